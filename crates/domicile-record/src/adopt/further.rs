//! Whether a post's segment goes on behind an adopted file of the same one, which was adopted before it had its end.

use std::collections::{BTreeMap, BTreeSet};

use domicile::{Code, Error, Result};

use super::{Adopting, waits_for_its_home};
use crate::format::{BlockKind, LaneNo, LaneOpen};
use crate::reader::{LanePlace, SegmentFile, Source, read_lane_open};
use crate::rewrite::changed;

impl<S: Source> Adopting<'_, S> {
    /// Whether there is more here than in an adopted file of the same segment, all of whose lanes go on here: it may be replaced by
    /// what is [written](Self::write) then, which lies under the same segment leaf. So may the post's own copy. False where the
    /// adopted one has as much, or more.
    ///
    /// # Errors
    /// [`PostReplayed`](Code::PostReplayed) where neither goes on where the other ends; those of opening.
    pub fn goes_further_than(&self, adopted: impl Source) -> Result<bool> {
        let mut there = SegmentFile::open(adopted)?;
        there.rewalk()?;
        let here = &self.segment.file;
        if there.header.fixed() != here.header.fixed() {
            return Err(another());
        }
        if waits_for_its_home(&there) {
            return Ok(true);
        }
        let end = self.cut_short.as_ref().map_or(here.length, |extent| extent.at);
        let (ours, theirs) = (lanes_of(here)?, lanes_of(&there)?);
        let (mut more, mut less) = (false, false);
        for lane in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let (our, their) = (ours.get(lane), theirs.get(lane));
            let counts = (
                our.map_or(0, |place| place.blocks.count_before(end)),
                their.map_or(0, |place| place.blocks.len()),
            );
            (more, less) = (more || counts.0 > counts.1, less || counts.0 < counts.1);
            if let (Some(last), Some(our), Some(their)) = (counts.0.min(counts.1).checked_sub(1), our, their)
            {
                let sequence = u32::try_from(last).map_err(|_| changed())?;
                if block_at(here, our, sequence)? != block_at(&there, their, sequence)? {
                    return Err(another());
                }
            }
        }
        if more && less { Err(another()) } else { Ok(more) }
    }
}

/// Where the lanes lie that hold records.
fn lanes_of<S: Source>(file: &SegmentFile<S>) -> Result<BTreeMap<LaneNo, LanePlace>> {
    let lanes = file.lanes(&|_| true)?.into_iter().map(|place| (place.key.lane, place));
    Ok(lanes.filter(|(lane, _)| *lane != LaneNo::REGION).collect())
}

/// What is sealed in a block, and stays in every edition.
fn block_at<S: Source>(file: &SegmentFile<S>, place: &LanePlace, sequence: u32) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let (header, encoded) = file.read_block(place, sequence, &mut body)?;
    if header.kind == BlockKind::LaneOpen {
        let LaneOpen { commitment, .. } = read_lane_open(file, place)?;
        return Ok(commitment.to_vec());
    }
    Ok([&encoded[..], &body].concat())
}

fn another() -> Error {
    Error::new(Code::PostReplayed, "what was adopted under this name is not where this segment goes on")
        .advise("keep both, and find out which of them the post sealed; revoke it if it sealed both")
}
