//! Settling: the blocks of a finished segment are written anew lane by lane, so that each lane lies in one piece. No key is
//! needed, because nothing sealed depends on where it stands.

use std::collections::BTreeMap;

use domicile::{Code, Error, Result, Scope};

use crate::format::{LaneNo, SegmentHeader};
use crate::reader::{LanePlace, SegmentFile, Source, read_lane_open};
use crate::rewrite::NextEdition;
use crate::writer::Sink;

/// Writes a finished segment again with its lanes in one piece each, in the order of the footer, one edition on; every sealed
/// octet stays as it is. Durable as far as the sink is. Returns the segment's header, and the octets written. Nothing is
/// authenticated: who opens it sees to that.
///
/// # Errors
/// [`SegmentUnfinished`](Code::SegmentUnfinished) for a segment without its footer; [`SegmentCorrupt`](Code::SegmentCorrupt) for
/// one whose footer does not say where its blocks are; [`OutputFailed`](Code::OutputFailed).
pub fn settle<S: Source, O: Sink>(source: S, sink: &mut O) -> Result<(SegmentHeader, u64)> {
    let file = SegmentFile::open(source)?;
    if !file.has_whole_footer()? {
        return Err(Error::new(
            Code::SegmentUnfinished,
            "this segment is not finished, or its footer is damaged",
        )
        .advise("only what is whole is settled: recover it first"));
    }
    let mut lanes: BTreeMap<LaneNo, LanePlace> = BTreeMap::new();
    let mut order = Vec::new();
    for place in file.lanes(&|_| true)?.into_iter().chain(file.lanes_of(&Scope::of_region())?) {
        let number = place.key.lane;
        if lanes.insert(number, place).is_none() {
            order.push(number);
        }
    }
    let region = lanes
        .remove(&LaneNo::REGION)
        .ok_or_else(|| Error::new(Code::SegmentCorrupt, "the segment has no lane 0"))?;
    let mut edition = NextEdition::begin(&file.header, sink)?;
    let mut body = Vec::new();
    // Lane 0 opens a segment and ends it.
    copy(&file, &region, 0..1, &mut edition, &mut body)?;
    for place in order.iter().filter_map(|lane| lanes.get(lane)) {
        copy(&file, place, 0..u32::MAX, &mut edition, &mut body)?;
    }
    copy(&file, &region, 1..u32::MAX, &mut edition, &mut body)?;
    let bytes = edition.end()?;
    Ok((file.header, bytes))
}

/// Copies the blocks of a lane at these places.
fn copy<S: Source, O: Sink>(
    file: &SegmentFile<S>,
    place: &LanePlace,
    sequences: std::ops::Range<u32>,
    edition: &mut NextEdition<'_, O>,
    body: &mut Vec<u8>,
) -> Result<()> {
    for sequence in place.blocks.iter().filter(|sequence| sequences.contains(sequence)) {
        let (header, encoded) = file.read_block(place, sequence, body)?;
        if sequence == 0 {
            edition.add_opening(&header, &read_lane_open(file, place)?)?;
        } else {
            edition.add(place.key.lane, &encoded, body)?;
        }
    }
    Ok(())
}
