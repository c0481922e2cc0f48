//! Recovery: a segment that a crash cut short is closed. What its lanes hold stays as it was sealed; lane 0 is sealed anew,
//! under a data key of its own, and says how far each lane goes.

mod place;

use domicile::keyring::{DataKey, Owner, SealingLeaf, SegmentLeaf};
use domicile::{Action, Domicile, Purpose, Result};

pub use place::{Recovery, recover};
pub(crate) use place::{adopt_on, recover_on};

use crate::close::{Cut, Extent, Looking, Region, RegionAnew, close, no_region_lane};
use crate::format::SegmentHeader;
use crate::reader::{Opening, ReadableLane, Segment, SegmentFile, SegmentLeaves, Selection, Source, State};
use crate::writer::{SegmentSummary, Sink, lane_permit};

/// A segment that a crash left without an end, examined and not closed yet.
///
/// ```no_run
/// # async fn example(domicile: domicile::Domicile, file: std::fs::File) -> domicile::Result<()> {
/// use domicile_record::Recovering;
///
/// match Recovering::examine(&domicile, file).await? {
///     None => println!("it is whole"),
///     Some(recovering) => {
///         println!("{:?} is cut", recovering.cut());
///         let (segment, summary) = recovering.write(Vec::new())?;
///         println!("{} blocks in {} octets", summary.blocks, segment.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recovering<'a, S> {
    domicile: &'a Domicile,
    file: SegmentFile<S>,
    extent: Extent,
    lane_zero: LaneZero,
}

#[derive(Debug)]
enum LaneZero {
    /// Its end is there, with these totals: the footer alone is not.
    Whole((u32, u64, u64)),
    /// It has none, and is sealed anew.
    Anew(Box<RegionKeys>),
}

/// What lane 0 was sealed with, and is to be.
#[derive(Debug)]
struct RegionKeys {
    old: ReadableLane,
    leaf: SealingLeaf,
    segment_leaf: SegmentLeaf,
}

impl<'a, S: Source> Recovering<'a, S> {
    /// Finds out how far a segment goes: up to its first block that is not whole, or that does not verify although the
    /// commitment of its lane does. Blocks that were on disk when lane 0 last said so are held against its running hash;
    /// those behind are opened, where their keys are to be had. None for a segment that has its footer, which a writer writes
    /// last: no key is asked for then.
    ///
    /// # Errors
    /// [`SegmentCorrupt`](domicile::Code::SegmentCorrupt) for damage that no crash made;
    /// [`PostUnadopted`](domicile::Code::PostUnadopted) for what a post sealed: its home finishes it;
    /// [`KeyDestroyed`](domicile::Code::KeyDestroyed) for a retired segment; what keeps the region's keys from being had, and those
    /// of opening.
    pub async fn examine(domicile: &'a Domicile, source: S) -> Result<Option<Self>> {
        let action = Action::Manage(Purpose::Maintenance.into());
        let opening = Opening { domicile, action, selection: Selection::all() };
        let mut file = SegmentFile::open(source)?;
        if file.has_whole_footer()? {
            return Ok(None);
        }
        file.rewalk()?;
        let segment = opening.open_file(file).await?;
        match segment.state {
            State::Complete | State::Recovered | State::Unfinished | State::Torn { .. } => {}
            State::Retired | State::Unasked | State::Corrupt { .. } => {
                return Err(segment.state.obstacle().unwrap_or_else(no_region_lane));
            }
        }
        let extent = Extent::of(&segment, Looking::WhatIsUnsynced)?;
        let summary = segment.region.as_ref().and_then(|region| region.end.as_ref()?.end.summary());
        let totals = summary.map(|summary| (summary.lanes, summary.records, summary.bytes));
        let Segment { file, region, .. } = segment;
        let region = region.ok_or_else(no_region_lane)?;
        let lane_zero = match totals {
            Some(totals) => LaneZero::Whole(totals),
            None => LaneZero::Anew(Box::new(region_keys(&opening, &file, region).await?)),
        };
        Ok(Some(Self { domicile, file, extent, lane_zero }))
    }

    /// What is cut: nothing that was said to be durable, if the disk keeps what it says.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.extent.cut(self.file.length)
    }

    /// The header of the segment.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.file.header
    }

    /// The octets that the caller kept beside the newest commit that has any.
    #[must_use]
    pub fn caller(&self) -> &[u8] {
        &self.extent.caller
    }

    /// The octets that are cut, in pieces.
    ///
    /// # Errors
    /// [`InputFailed`](domicile::Code::InputFailed) when they cannot be read, or what `keep` returned.
    pub fn for_each_cut(&self, mut keep: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.extent.for_each_cut(&self.file, &mut keep)
    }

    /// Writes the closed segment, one edition on; it is durable then, as far as the sink is. The totals of the summary are
    /// those of a whole segment whose footer was missing; 0 otherwise, because nobody counted what the crash left.
    ///
    /// # Errors
    /// [`OutputFailed`](domicile::Code::OutputFailed); [`InputFailed`](domicile::Code::InputFailed) when the file cannot be read.
    pub fn write<O: Sink>(self, mut sink: O) -> Result<(O, SegmentSummary)> {
        let region = match self.lane_zero {
            LaneZero::Whole(totals) => Region::Stays(totals),
            LaneZero::Anew(keys) => {
                let RegionKeys { old, leaf, segment_leaf } = *keys;
                let wrap = move |key: &DataKey, owner: &Owner| leaf.wrap(&segment_leaf, key, owner);
                Region::Anew(Box::new(RegionAnew { old, wrap: Box::new(wrap) }))
            }
        };
        let summary = close(self.domicile, &self.file, &self.extent, region, &mut sink, |_, open| Ok(open))?;
        Ok((sink, summary))
    }
}

/// A fresh leaf for lane 0's new data key, and the segment's own, under which it stays.
async fn region_keys<S: Source>(
    opening: &Opening<'_>,
    file: &SegmentFile<S>,
    old: ReadableLane,
) -> Result<RegionKeys> {
    let domicile = opening.domicile;
    let wraps = opening.wraps_of(file, std::slice::from_ref(&old.place))?;
    let wrap = wraps.first().ok_or_else(no_region_lane)?;
    let mut leaves = SegmentLeaves::new();
    // The segment leaf that the old key lies under: what ends it ends every copy, before recovery and behind it.
    opening.segment_leaf(file, &mut leaves, wrap.wrapped.segment).await?;
    let segment_leaf = leaves.remove(&wrap.wrapped.segment).ok_or_else(no_region_lane)?;
    let permit = lane_permit(domicile, &file.header.place, &domicile::Scope::of_region()).await?;
    let leaf = domicile.keyring().sealing_leaf(permit, old.descriptor.period).await?;
    Ok(RegionKeys { old, leaf, segment_leaf })
}
