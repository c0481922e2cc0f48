//! Erasing lanes and retiring whole segments: the wraps are unwrapped, which proves which leaves keep them, and then those
//! leaves are taken out of the keys. The file itself is not touched, and neither is any other.

use std::collections::{BTreeMap, BTreeSet};

use domicile::keyring::{ErasureReport, LeafOf, Subject, UnwrappedLeaf, WrappedKey};
use domicile::{Action, Code, Domicile, Error, Request, Result, Scope};

use super::{Opening, SegmentFile, SegmentLeaves, Source, read_wrapped};
use crate::format::{LaneNo, SegmentId};
use crate::lane_key;
use crate::reader::{LanePlace, Selection};

/// What is to be erased of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Erasable {
    /// These lanes.
    Lanes(Vec<LaneNo>),
    /// Every copy of the segment, whole: its own leaf.
    Segment,
}

/// Erases lanes of a segment, or retires it. `confirm` is the segment's name, as whoever asks for it believes.
///
/// Each scope's lanes are erased in one write, which is durable when this returns; scopes follow each other in the order
/// of their names, and what failed in the middle is done again without harm.
///
/// # Errors
/// [`ArgumentInvalid`](Code::ArgumentInvalid) when the segment is another one than was confirmed, or lane 0 is named;
/// [`LaneNone`](Code::LaneNone) when it has no such lane; [`KeyDestroyed`](Code::KeyDestroyed) when a lane was erased
/// before; [`KeyHeld`](Code::KeyHeld) under a hold; those of opening.
pub async fn erase<S: Source>(
    domicile: &Domicile,
    source: S,
    what: &Erasable,
    confirm: &str,
    request: impl Into<Request>,
) -> Result<Vec<(Scope, ErasureReport)>> {
    let mut file = SegmentFile::open(source)?;
    if file.header.id.to_string() != confirm {
        return Err(Error::new(
            Code::ArgumentInvalid,
            "this is another segment than the one that was confirmed",
        )
        .at(format!("segment {}", file.header.id))
        .advise("look at it once more: `domicile inspect` shows its name and its lanes"));
    }
    // Where the lanes are is read from the blocks themselves: a footer is a hint.
    file.rewalk()?;
    let action = Action::Manage(request.into());
    let opening = Opening { domicile, action: action.clone(), selection: Selection::all() };
    opening.check_place(&file.header)?;
    let wanted = match what {
        Erasable::Segment => vec![LaneNo::REGION],
        Erasable::Lanes(lanes) if lanes.contains(&LaneNo::REGION) => {
            return Err(Error::new(Code::ArgumentInvalid, "lane 0 is not erased alone: every lane needs it")
                .advise("retire the segment, if nothing of it is wanted any longer"));
        }
        Erasable::Lanes(lanes) => lanes.clone(),
    };
    let places = named(&file, &wanted)?;
    let mut reports = Vec::new();
    for (scope, places) in places {
        let proved = opening.prove(&file, &scope, &places).await?;
        let region = &file.header.place.region;
        let report = if scope.is_region() {
            let permit = domicile.permit_region(region, action.clone()).await?;
            // The records of every scope in it end with a segment.
            let ends: BTreeSet<_> = file.lanes(&|_| true)?.into_iter().map(|place| place.key.scope).collect();
            let ends: Vec<_> = ends.into_iter().filter(|scope| !scope.is_region()).collect();
            domicile.keyring().retire(permit, &proved, &ends).await?
        } else {
            let permit = opening.permit(&file.header, &scope).await?;
            domicile.keyring().erase(permit, &proved).await?
        };
        reports.push((scope, report));
    }
    Ok(reports)
}

/// Ends every copy of a segment whose records another one has: no scope's records end with it, and no hold keeps it.
pub(crate) async fn retire_replaced<S: Source>(domicile: &Domicile, source: S) -> Result<()> {
    let mut file = SegmentFile::open(source)?;
    file.rewalk()?;
    let action = Action::Manage(domicile::Purpose::Maintenance.into());
    let opening = Opening { domicile, action: action.clone(), selection: Selection::all() };
    opening.check_place(&file.header)?;
    for (scope, places) in named(&file, &[LaneNo::REGION])? {
        let proved = opening.prove(&file, &scope, &places).await?;
        let permit = domicile.permit_region(&file.header.place.region, action.clone()).await?;
        domicile.keyring().retire(permit, &proved, &[]).await?;
    }
    Ok(())
}

/// The lanes of these numbers, by scope.
fn named<S: Source>(file: &SegmentFile<S>, wanted: &[LaneNo]) -> Result<BTreeMap<Scope, Vec<LanePlace>>> {
    let mut by_scope: BTreeMap<Scope, Vec<LanePlace>> = BTreeMap::new();
    let mut places = file.lanes(&|_| true)?;
    places.extend(file.lanes_of(&Scope::of_region())?);
    places.sort_by_key(|place| place.key.lane);
    places.dedup_by_key(|place| place.key.lane);
    for lane in wanted {
        let Some(place) = places.iter().find(|place| place.key.lane == *lane) else {
            return Err(Error::new(Code::LaneNone, format!("the segment has no lane {lane}"))
                .advise("`domicile inspect` shows which lanes it has"));
        };
        by_scope.entry(place.key.scope.clone()).or_default().push(place.clone());
    }
    Ok(by_scope)
}

impl Opening<'_> {
    /// Unwraps the wraps of lanes of one scope, for the proof alone.
    async fn prove<S: Source>(
        &self,
        file: &SegmentFile<S>,
        scope: &Scope,
        places: &[LanePlace],
    ) -> Result<Vec<UnwrappedLeaf>> {
        let region = &file.header.place.region;
        let permit = if scope.is_region() {
            self.domicile.permit_region(region, self.action.clone()).await?
        } else {
            self.permit(&file.header, scope).await?
        };
        let wraps = self.wraps_of(file, places)?;
        let wanted: Vec<_> = wraps.iter().map(|wrap| wrap.wanted).collect();
        let leaves = self.domicile.keyring().opening_leaves(permit, &wanted).await;
        let mut segment_leaves = SegmentLeaves::new();
        let mut proved = Vec::with_capacity(places.len());
        for (wrap, leaf) in wraps.iter().zip(leaves) {
            let at = |error: Error| error.at(format!("lane {}", wrap.lane));
            let leaf = leaf.map_err(at)?;
            let segment_leaf =
                self.segment_leaf(file, &mut segment_leaves, wrap.wrapped.segment).await.map_err(at)?;
            let owner = lane_key::owner(&file.header, &wrap.descriptor, &wrap.commitment);
            proved.push(leaf.prove(segment_leaf, &wrap.wrapped, &owner).map_err(at)?);
        }
        Ok(proved)
    }

    /// The wrapped keys of these lanes, with what is needed to unwrap them.
    pub(crate) fn wraps_of<S: Source>(
        &self,
        file: &SegmentFile<S>,
        places: &[LanePlace],
    ) -> Result<Vec<LaneWrap>> {
        let wrap = |place: &LanePlace| {
            let lane = place.key.lane;
            let (open, wrapped) = read_wrapped(file, place)?;
            let descriptor = open.descriptor.encode().map_err(|source| {
                Error::new(Code::SegmentCorrupt, "a lane's opening is damaged")
                    .at(format!("lane {lane}"))
                    .because(source)
            })?;
            let wanted = wanted(&file.header.id, lane, &open, &wrapped);
            Ok(LaneWrap { lane, descriptor, commitment: open.commitment, wrapped, wanted })
        };
        places.iter().map(wrap).collect()
    }
}

/// A lane's wrapped key as it stands in the file, whom it says it belongs to, and the leaf that it names.
pub(crate) struct LaneWrap {
    pub(crate) lane: LaneNo,
    pub(crate) descriptor: Vec<u8>,
    pub(crate) commitment: [u8; 32],
    pub(crate) wrapped: WrappedKey,
    pub(crate) wanted: LeafOf,
}

/// The leaf that a lane's wrapped key names, with what it must have wrapped.
pub(super) fn wanted(
    segment: &SegmentId,
    lane: LaneNo,
    open: &crate::format::LaneOpen,
    wrapped: &WrappedKey,
) -> LeafOf {
    LeafOf {
        period: open.descriptor.period,
        leaf: wrapped.tenant,
        subject: Subject::Lane { segment: segment.0, lane: lane.0 },
    }
}
