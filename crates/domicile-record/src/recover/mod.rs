//! Recovery: a segment that a crash cut short is closed. What its lanes hold stays as it was sealed; lane 0 is sealed anew,
//! under a data key of its own, and says how far each lane goes.

mod examine;
mod place;

use std::collections::BTreeMap;

use domicile::engine::Nonces;
use domicile::keyring::{DataKey, SealingLeaf, SegmentLeaf};
use domicile::{Action, Code, Domicile, Error, Purpose, Result};

pub(crate) use place::recover_on;
pub use place::{Recovery, recover};

use crate::block_buffer::BlockBuffer;
use crate::format::{
    BlockFlags, BlockHeader, BlockKind, Commit, DirectoryEntry, LaneNo, LaneOpen, Limits, SegmentHeader,
};
use crate::lane_key;
use crate::reader::{
    Opening, ReadableLane, Segment, SegmentFile, SegmentLeaves, Selection, Source, State, Step, Walker,
    unreadable,
};
use crate::region_end::RegionEnd;
use crate::rewrite::{NextEdition, changed, misfit};
use crate::running_hash::{RunningHash, end_hash};
use crate::seal::LaneSealer;
use crate::writer::{SegmentSummary, Sink, lane_permit};
use examine::Extent;

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

/// Octets at the end of a file that are no part of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// Where they begin.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
}

impl<'a, S: Source> Recovering<'a, S> {
    /// Finds out how far a segment goes: up to its first block that is not whole, or that does not verify although the
    /// commitment of its lane does. Blocks that were on disk when lane 0 last said so are held against its running hash;
    /// those behind are opened, where their keys are to be had. None for a segment that has its footer, which a writer writes
    /// last: no key is asked for then.
    ///
    /// # Errors
    /// [`SegmentCorrupt`](Code::SegmentCorrupt) for damage that no crash made;
    /// [`PostUnadopted`](Code::PostUnadopted) for what a post sealed: its home finishes it;
    /// [`KeyDestroyed`](Code::KeyDestroyed) for a retired segment; what keeps the region's keys from being had, and those
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
        let extent = Extent::of(&segment)?;
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
        let bytes = self.file.length.saturating_sub(self.extent.at);
        (bytes > 0).then_some(Cut { at: self.extent.at, bytes })
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
    /// [`InputFailed`](Code::InputFailed) when they cannot be read, or what `keep` returned.
    pub fn for_each_cut(&self, mut keep: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut window = Vec::new();
        let mut at = self.extent.at;
        while at < self.file.length {
            let bytes = (self.file.length - at).min(1 << 18);
            window.resize(usize::try_from(bytes).unwrap_or(0), 0);
            self.file.source.read_at(at, &mut window).map_err(|source| unreadable(at, source))?;
            keep(&window)?;
            at += bytes;
        }
        Ok(())
    }

    /// Writes the closed segment, one edition on; it is durable then, as far as the sink is. The totals of the summary are
    /// those of a whole segment whose footer was missing; 0 otherwise, because nobody counted what the crash left.
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed); [`InputFailed`](Code::InputFailed) when the file cannot be read.
    pub fn write<O: Sink>(self, mut sink: O) -> Result<(O, SegmentSummary)> {
        let mut closing = Closing {
            edition: NextEdition::begin(&self.file.header, &mut sink)?,
            hash: RunningHash::new(&self.file.header),
            ordinal: 0,
            lanes: BTreeMap::new(),
        };
        let mut region = None;
        let (mut keys, mut totals) = match self.lane_zero {
            LaneZero::Whole(totals) => (None, totals),
            LaneZero::Anew(keys) => (Some(*keys), (0, 0, 0)),
        };
        let mut walker = Walker::new(&self.file.source, &self.file.header, self.file.length);
        let mut body = Vec::new();
        while closing.ordinal < self.extent.blocks {
            let step = walker.next().map_err(|source| unreadable(0, source))?;
            let Some(Step::Block { at, header, encoded }) = step else { return Err(changed()) };
            self.file.read_body(at, &header, &mut body)?;
            if header.kind == BlockKind::LaneOpen {
                body.truncate(header.payload_bytes());
                let open = LaneOpen::decode(&body, header.lane).map_err(misfit)?;
                if header.lane == LaneNo::REGION
                    && let Some(keys) = keys.take()
                {
                    region = Some(closing.begin_region(self.domicile, &self.file.header, keys, &open)?);
                } else {
                    closing.copy_opening(&header, &encoded, &open)?;
                }
            } else if let Some(region) = region.as_mut().filter(|_| header.lane == LaneNo::REGION) {
                region.copy(&mut closing, &header, &encoded, &mut body)?;
            } else {
                closing.copy(&header, &encoded, &body)?;
            }
        }
        if let Some(mut region) = region {
            totals = region.end(&mut closing)?;
        }
        let (lanes, records, bytes) = totals;
        let (blocks, digest) = (closing.ordinal, closing.hash.value());
        let file_bytes = closing.edition.end()?;
        let SegmentHeader { id, place, created, origin, .. } = self.file.header;
        let summary =
            SegmentSummary { id, place, created, origin, lanes, blocks, records, bytes, file_bytes, digest };
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

fn no_region_lane() -> Error {
    Error::new(Code::SegmentCorrupt, "the segment has no lane 0")
}

/// The closed segment while it is written.
struct Closing<'a, O> {
    edition: NextEdition<'a, O>,
    hash: RunningHash,
    ordinal: u64,
    lanes: BTreeMap<LaneNo, DirectoryEntry>,
}

impl<O: Sink> Closing<'_, O> {
    /// Copies the opening of a lane, which may have been wrapped anew: octet for octet.
    fn copy_opening(
        &mut self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        open: &LaneOpen,
    ) -> Result<()> {
        self.edition.add_opening(header, open)?;
        let descriptor = open.descriptor.encode().map_err(misfit)?;
        self.hash.add_lane_open(encoded, &descriptor, &open.commitment);
        self.ordinal += 1;
        if header.lane != LaneNo::REGION {
            let entry = DirectoryEntry {
                lane: header.lane,
                scope: open.descriptor.scope.clone(),
                period: open.descriptor.period,
                blocks: 1,
                records: 0,
                bytes: 0,
                end_hash: [0; 32],
            };
            self.lanes.insert(header.lane, entry);
        }
        Ok(())
    }

    /// Copies a sealed block, octet for octet.
    fn copy(&mut self, header: &BlockHeader, encoded: &[u8; BlockHeader::BYTES], body: &[u8]) -> Result<()> {
        let tag = header.tag_in(body).ok_or_else(changed)?;
        self.hash.add_sealed(encoded, &tag);
        if let Some(entry) = self.lanes.get_mut(&header.lane) {
            entry.blocks += 1;
            entry.end_hash = end_hash(encoded, &tag);
        }
        self.edition.add(header.lane, encoded, body)?;
        self.ordinal += 1;
        Ok(())
    }

    /// Begins lane 0 anew: the same descriptor, and a data key that nothing was sealed with before.
    fn begin_region<'d>(
        &mut self,
        domicile: &'d Domicile,
        header: &SegmentHeader,
        keys: RegionKeys,
        before: &LaneOpen,
    ) -> Result<NewRegion<'d>> {
        let RegionKeys { old, leaf, segment_leaf } = keys;
        let data_key = DataKey::random(&**domicile.randomness())?;
        let engine = domicile.engines(before.descriptor.suite).bulk;
        let (sealer, opening) = LaneSealer::begin(
            header,
            LaneNo::REGION,
            0,
            before.descriptor.clone(),
            engine,
            &data_key,
            |descriptor, commitment| {
                let owner = lane_key::owner(header, descriptor, commitment);
                Ok((Some(leaf.wrap(&segment_leaf, &data_key, &owner)?), None))
            },
            Limits::FORMAT,
        )?;
        let block = opening.block.block();
        let encoded = block.first_chunk::<{ BlockHeader::BYTES }>().ok_or_else(changed)?;
        self.hash.add_lane_open(encoded, &opening.descriptor, &opening.commitment);
        self.edition.add_opening_block(LaneNo::REGION, before, block)?;
        self.ordinal += 1;
        Ok(NewRegion { domicile, old, sealer })
    }
}

/// Lane 0 while it is sealed anew: each of its blocks keeps its place and its ordinal.
///
/// Nonces are drawn for each block, and the data key is this writing's own: whether the file is recovered once, or by two
/// processes, or again behind a crash, no pair of key and nonce comes twice.
struct NewRegion<'d> {
    domicile: &'d Domicile,
    old: ReadableLane,
    sealer: LaneSealer,
}

impl NewRegion<'_> {
    fn copy<O: Sink>(
        &mut self,
        closing: &mut Closing<'_, O>,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<()> {
        self.old.open_block(header, encoded, body)?;
        if header.kind == BlockKind::Commit {
            // The blocks before it are the same, but for lane 0's own.
            let commit = Commit::decode(body).map_err(misfit)?;
            *body = Commit { running_hash: closing.hash.value(), ..commit }.encode().map_err(misfit)?;
        }
        self.seal(closing, header.kind, header.flags, body)
    }

    fn seal<O: Sink>(
        &mut self,
        closing: &mut Closing<'_, O>,
        kind: BlockKind,
        flags: BlockFlags,
        payload: &[u8],
    ) -> Result<()> {
        let mut block = BlockBuffer::of(payload);
        let nonce = Nonces::one(&**self.domicile.randomness())?;
        let tag = self.sealer.seal(kind, flags, closing.ordinal, nonce, &mut block)?;
        let bytes = block.block();
        let encoded = bytes.first_chunk::<{ BlockHeader::BYTES }>().ok_or_else(changed)?;
        closing.hash.add_sealed(encoded, &tag);
        closing.edition.add(LaneNo::REGION, encoded, bytes.get(BlockHeader::BYTES..).unwrap_or_default())?;
        closing.ordinal += 1;
        Ok(())
    }

    /// Says how far each lane goes, and that a crash cut them.
    fn end<O: Sink>(&mut self, closing: &mut Closing<'_, O>) -> Result<(u32, u64, u64)> {
        let mut end = RegionEnd::of(std::mem::take(&mut closing.lanes).into_values().collect());
        let totals = (end.lanes, end.records, end.bytes);
        for payload in end.sections().map_err(misfit)? {
            self.seal(closing, BlockKind::Section, BlockFlags::sealed(), &payload)?;
        }
        let payload = end.end(true, closing.ordinal, closing.hash.value(), None).map_err(misfit)?;
        self.seal(closing, BlockKind::LaneEnd, BlockFlags::sealed(), &payload)?;
        Ok(totals)
    }
}
