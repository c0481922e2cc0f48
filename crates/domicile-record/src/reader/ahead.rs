//! Several small blocks of a lane, read at once.

use domicile::Result;

use super::map::{LanePlace, SegmentFile, unreadable};
use super::source::Source;
use crate::format::BlockHeader;

/// Octets that are read at once, at most.
const AHEAD_BYTES_MAX: u64 = 8 << 20;

/// How many times what lies between two blocks may be read in one go.
const NEAR_TIMES: u64 = 64;

/// A piece of a segment in memory. Frequent commits make blocks so small that asking for each of them takes longer than opening
/// it: those that lie near one another are read together. Large blocks are read one by one, into the memory where they are opened.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    bytes: Vec<u8>,
    at: u64,
}

impl Ahead {
    /// As [`SegmentFile::read_block`].
    pub(super) fn read_block<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        place: &LanePlace,
        sequence: u32,
        body: &mut Vec<u8>,
    ) -> Result<(BlockHeader, [u8; BlockHeader::BYTES])> {
        let Some(at) = place.blocks.get(sequence) else { return file.read_block(place, sequence, body) };
        if self.from(at).is_none_or(|behind| behind.len() < BlockHeader::BYTES) {
            self.fill(file, place, sequence, at)?;
        }
        if let Some((encoded, behind)) = self.from(at).and_then(|behind| behind.split_first_chunk())
            && let Ok(header) = BlockHeader::decode(encoded, &file.header.id)
            && (header.lane, header.sequence) == (place.key.lane, sequence)
            && let Some(found) = behind.get(..header.body_bytes())
        {
            body.clear();
            body.extend_from_slice(found);
            return Ok((header, *encoded));
        }
        // Large, alone, or not what it should be.
        file.read_block(place, sequence, body)
    }

    /// What is at hand of the file from an offset on.
    fn from(&self, at: u64) -> Option<&[u8]> {
        self.bytes.get(usize::try_from(at.checked_sub(self.at)?).ok()?..)
    }

    /// Reads this block of a lane and those that follow it there, as far as they lie near one another; the last of them ends where
    /// the next begins.
    fn fill<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        place: &LanePlace,
        sequence: u32,
        at: u64,
    ) -> Result<()> {
        let near = file.source.near_bytes();
        let bytes_max = near.saturating_mul(NEAR_TIMES).min(AHEAD_BYTES_MAX);
        let mut end = at;
        for next in sequence.saturating_add(1).. {
            let Some(next_at) = place.blocks.get(next) else { break };
            let is_near = next_at.checked_sub(end).is_some_and(|distance| {
                distance >= BlockHeader::BYTES as u64 && distance <= near && next_at - at <= bytes_max
            });
            if !is_near || next_at > file.length {
                break;
            }
            end = next_at;
        }
        self.at = at;
        self.bytes.resize(usize::try_from(end - at).unwrap_or(0), 0);
        if self.bytes.is_empty() {
            return Ok(());
        }
        let read = file.source.read_at(at, &mut self.bytes);
        read.map_err(|source| {
            self.bytes.clear();
            unreadable(at, source)
        })
    }
}
