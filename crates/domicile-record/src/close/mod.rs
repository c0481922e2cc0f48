//! Closing a segment that a crash cut short: what its lanes hold stays as it was sealed; lane 0 is sealed anew, under a data key of
//! its own, and says how far each lane goes. [Recovery](crate::recover) and [adoption](crate::adopt) do so.

mod beside;
mod examine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domicile::engine::Nonces;
use domicile::keyring::{DataKey, Owner, WrappedKey};
use domicile::post::PostSeal;
use domicile::{Code, Domicile, Error, Result};

pub(crate) use beside::{failed, keep_cut, kept_beside, written_beside};
pub(crate) use examine::{Extent, Looking};

use crate::block_buffer::BlockBuffer;
use crate::format::{
    BlockFlags, BlockHeader, BlockKind, Commit, DirectoryEntry, LaneNo, LaneOpen, Limits, SegmentHeader,
};
use crate::lane_key;
use crate::reader::{ReadableLane, SegmentFile, Source, Step, Walker, unreadable};
use crate::region_end::RegionEnd;
use crate::rewrite::{NextEdition, changed, misfit};
use crate::running_hash::{RunningHash, end_hash};
use crate::seal::LaneSealer;
use crate::writer::{SegmentSummary, Sink};

/// Octets at the end of a file that are no part of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// Where they begin.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
}

impl Cut {
    /// Where these octets are kept, of a segment with this path.
    #[must_use]
    pub fn beside(&self, path: &Path) -> PathBuf {
        kept_beside(path, self.at)
    }
}

pub(crate) fn no_region_lane() -> Error {
    Error::new(Code::SegmentCorrupt, "the segment has no lane 0")
}

/// What becomes of lane 0.
pub(crate) enum Region<'k> {
    /// It has its end, and stays as it is: with these totals.
    Stays((u32, u64, u64)),
    /// It is sealed anew.
    Anew(Box<RegionAnew<'k>>),
}

type Wrap<'k> = dyn FnOnce(&DataKey, &Owner) -> Result<WrappedKey> + Send + 'k;

/// What opens what lane 0 was, and what wraps the data key that it gets.
pub(crate) struct RegionAnew<'k> {
    pub(crate) old: ReadableLane,
    pub(crate) wrap: Box<Wrap<'k>>,
}

/// Writes what there is of a segment as a closed one, one edition on, and durable as far as the sink is. `opening` gives
/// back how the opening of a lane that stays is to stand.
pub(crate) fn close<S: Source, O: Sink>(
    domicile: &Domicile,
    file: &SegmentFile<S>,
    extent: &Extent,
    region: Region<'_>,
    sink: &mut O,
    mut opening: impl FnMut(LaneNo, LaneOpen) -> Result<LaneOpen>,
) -> Result<SegmentSummary> {
    let mut closing = Closing {
        edition: NextEdition::begin(&file.header, sink)?,
        hash: RunningHash::new(&file.header),
        ordinal: 0,
        lanes: BTreeMap::new(),
    };
    let (mut anew, mut totals) = match region {
        Region::Anew(anew) => (Some(anew), (0, 0, 0)),
        Region::Stays(totals) => (None, totals),
    };
    let mut region = None;
    let mut walker = Walker::new(&file.source, &file.header, file.length);
    let mut body = Vec::new();
    while closing.ordinal < extent.blocks {
        let step = walker.next().map_err(|source| unreadable(0, source))?;
        let Some(Step::Block { at, header, encoded }) = step else { return Err(changed()) };
        file.read_body(at, &header, &mut body)?;
        if header.kind == BlockKind::LaneOpen {
            body.truncate(header.payload_bytes());
            let open = LaneOpen::decode(&body, header.lane).map_err(misfit)?;
            match anew.take_if(|_| header.lane == LaneNo::REGION) {
                Some(anew) => region = Some(closing.begin_region(domicile, &file.header, *anew, &open)?),
                None => closing.copy_opening(&header, &encoded, &opening(header.lane, open)?)?,
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
    let SegmentHeader { id, created, origin, .. } = file.header;
    let place = file.header.place.clone();
    Ok(SegmentSummary { id, place, created, origin, lanes, blocks, records, bytes, file_bytes, digest })
}

/// The closed segment while it is written.
struct Closing<'a, O> {
    edition: NextEdition<'a, O>,
    hash: RunningHash,
    ordinal: u64,
    lanes: BTreeMap<LaneNo, DirectoryEntry>,
}

impl<O: Sink> Closing<'_, O> {
    /// Keeps the opening of a lane, which may have been wrapped anew: what is hashed of it is what it was.
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
        anew: RegionAnew<'_>,
        before: &LaneOpen,
    ) -> Result<NewRegion<'d>> {
        let RegionAnew { old, wrap } = anew;
        // A post's claim stays; its signature of this opening was over the commitment that goes.
        let post = before.post.clone().map(PostSeal::adopted);
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
                Ok((Some(wrap(&data_key, &owner)?), post))
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
