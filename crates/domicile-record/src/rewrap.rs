//! Moving a segment's lanes to the newest versions of their keys: a new edition with the same sealed blocks.

use std::collections::BTreeMap;

use domicile::keyring::WrappedKey;
use domicile::{Action, Code, Domicile, Error, Request, Result, Scope};

use crate::format::{LaneNo, LaneOpen};
use crate::lane_key;
use crate::reader::{LanePlace, Opening, Segment, Selection, Source};
use crate::rewrite::{changed, rewrite};
use crate::writer::Sink;

/// What was rewrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rewrapped {
    /// Lanes whose data keys lie under newer versions now.
    pub lanes: u64,
    /// Lanes that lay under the newest version before.
    pub current: u64,
    /// Lanes that were erased, and stay so.
    pub erased: u64,
}

/// Writes a segment again, with the data keys of its lanes wrapped under the newest versions of their tenant keys. Every
/// sealed block is copied octet for octet; the segment's own leaf, and lane 0's, stay. Nothing is written where all lanes
/// are current.
///
/// It does not cure a data key that leaked: that takes sealing the records anew.
///
/// # Errors
/// [`SegmentUnfinished`](Code::SegmentUnfinished) and the like for what is not whole; those of opening; what keeps a
/// scope's keys from being had, for the whole of it: a file is moved, or left as it is. [`OutputFailed`](Code::OutputFailed).
pub async fn rewrap<S: Source, O: Sink>(
    domicile: &Domicile,
    source: S,
    request: impl Into<Request>,
    sink: &mut O,
) -> Result<Rewrapped> {
    let action = Action::Manage(request.into());
    let opening = Opening { domicile, action, selection: Selection::all() };
    let mut segment = opening.open(source).await?;
    if let Some(error) = segment.state.obstacle() {
        return Err(error.advise("only what is whole is written again: recover it first"));
    }
    // Where the lanes are is read from the blocks themselves: a footer is a hint.
    segment.file.rewalk()?;
    let mut rewrapped = Rewrapped::default();
    let mut fresh: BTreeMap<LaneNo, WrappedKey> = BTreeMap::new();
    for (scope, places) in by_scope(&segment, &mut rewrapped)? {
        let of_scope = opening.rewrap_scope(&segment, &scope, &places).await?;
        rewrapped.current += (places.len() - of_scope.len()) as u64;
        fresh.extend(of_scope);
    }
    rewrapped.lanes = fresh.len() as u64;
    if fresh.is_empty() {
        return Ok(rewrapped);
    }
    rewrite(&segment.file, sink, |lane, open| match fresh.remove(&lane) {
        Some(wrapped) => Ok(LaneOpen { wrapped: Some(wrapped), ..open }),
        None => Ok(open),
    })?;
    // Each was found when the file was read, and must be in it when it is written.
    if fresh.is_empty() { Ok(rewrapped) } else { Err(changed()) }
}

/// The lanes that can be read, by scope. One that was erased stays as it is; any other obstacle is one for the file.
fn by_scope<S: Source>(
    segment: &Segment<S>,
    rewrapped: &mut Rewrapped,
) -> Result<BTreeMap<Scope, Vec<LanePlace>>> {
    let places = segment.file.lanes(&|_| true)?;
    let mut by_scope: BTreeMap<Scope, Vec<LanePlace>> = BTreeMap::new();
    for lane in segment.lanes() {
        match lane.obstacle() {
            Some(error) if error.code() == Code::KeyDestroyed => rewrapped.erased += 1,
            Some(error) => return Err(error.again()),
            None => {
                let place = places.iter().find(|place| place.key.lane == lane.lane).ok_or_else(changed)?;
                by_scope.entry(lane.scope.clone()).or_default().push(place.clone());
            }
        }
    }
    Ok(by_scope)
}

impl Opening<'_> {
    /// New wraps for the lanes of one scope that need them.
    async fn rewrap_scope<S: Source>(
        &self,
        segment: &Segment<S>,
        scope: &Scope,
        places: &[LanePlace],
    ) -> Result<Vec<(LaneNo, WrappedKey)>> {
        let file = &segment.file;
        let opens = self.wraps_of(file, places)?;
        let wanted: Vec<_> = opens.iter().map(|wrap| wrap.wanted).collect();
        let keyring = self.domicile.keyring();
        let newest = keyring.rewrapping_leaves(self.permit(&file.header, scope).await?, &wanted).await?;
        let old = keyring.opening_leaves(self.permit(&file.header, scope).await?, &wanted).await;
        let mut segment_leaves = crate::reader::SegmentLeaves::new();
        let mut fresh = Vec::new();
        for ((wrap, newest), old) in opens.iter().zip(newest).zip(old) {
            let at = |error: Error| error.at(format!("lane {}", wrap.lane));
            let Some(newest) = newest.map_err(at)? else { continue };
            let segment_leaf =
                self.segment_leaf(file, &mut segment_leaves, wrap.wrapped.segment).await.map_err(at)?;
            let owner = lane_key::owner(&file.header, &wrap.descriptor, &wrap.commitment);
            let data_key = old.map_err(at)?.unwrap(segment_leaf, &wrap.wrapped, &owner).map_err(at)?;
            fresh.push((wrap.lane, newest.wrap(segment_leaf, &data_key, &owner).map_err(at)?));
        }
        Ok(fresh)
    }
}
