//! Walking over the blocks of a file from its first octet to its last, believing nothing but checksums.

use std::io;
use std::ops::Range;

use super::source::Source;
use crate::format::{BlockHeader, SegmentHeader, SegmentId};

/// What stands next in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A block, whole in length.
    Block { at: u64, header: BlockHeader, encoded: [u8; BlockHeader::BYTES] },
    /// Octets that are no block; another block follows them, or a footer.
    Damage { at: u64, bytes: u64 },
    /// The file ends inside a block, or in octets that are none.
    Tail { at: u64, bytes: u64 },
}

/// Steps over the blocks of a segment, reading headers and leaving bodies alone.
#[derive(Debug)]
pub(crate) struct Walker<'a, S: ?Sized> {
    source: &'a S,
    segment: SegmentId,
    at: u64,
    length: u64,
}

impl<'a, S: Source + ?Sized> Walker<'a, S> {
    pub(crate) fn new(source: &'a S, header: &SegmentHeader, length: u64) -> Self {
        Self::over(source, header, SegmentHeader::BYTES as u64..length)
    }

    /// Over a part of the file, which begins with a block.
    pub(super) fn over(source: &'a S, header: &SegmentHeader, part: Range<u64>) -> Self {
        Self { source, segment: header.id, at: part.start, length: part.end }
    }

    /// The next step, or `None` at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.length {
            return Ok(None);
        }
        let at = self.at;
        if let Some((header, encoded)) = self.header_at(at)? {
            let end = at.saturating_add(header.block_bytes());
            if end <= self.length {
                self.at = end;
                return Ok(Some(Step::Block { at, header, encoded }));
            }
        }
        let next = self.find_block(at + 1)?;
        self.at = next.unwrap_or(self.length);
        let bytes = self.at - at;
        Ok(Some(if next.is_some() { Step::Damage { at, bytes } } else { Step::Tail { at, bytes } }))
    }

    fn header_at(&self, at: u64) -> io::Result<Option<(BlockHeader, [u8; BlockHeader::BYTES])>> {
        if at.saturating_add(BlockHeader::BYTES as u64) > self.length {
            return Ok(None);
        }
        let mut encoded = [0; BlockHeader::BYTES];
        self.source.read_at(at, &mut encoded)?;
        Ok(BlockHeader::decode(&encoded, &self.segment).ok().map(|header| (header, encoded)))
    }

    /// The first whole block at or behind `from`, by its magic and its checksum.
    fn find_block(&self, from: u64) -> io::Result<Option<u64>> {
        // Small at first: between damage and the next block there is mostly little, and many short ones must not
        // make one file be read many times.
        const WINDOW_MIN: u64 = 512;
        const WINDOW_MAX: u64 = 64 << 10;
        let magic = BlockHeader::MAGIC;
        let mut window = Vec::new();
        let (mut start, mut length) = (from, WINDOW_MIN);
        while start.saturating_add(BlockHeader::BYTES as u64) <= self.length {
            let end = self.length.min(start + length);
            window.resize(usize::try_from(end - start).unwrap_or(0), 0);
            self.source.read_at(start, &mut window)?;
            for found in memchr::memmem::find_iter(&window, &magic) {
                let at = start + found as u64;
                if let Some((header, _)) = self.header_at(at)?
                    && at.saturating_add(header.block_bytes()) <= self.length
                {
                    return Ok(Some(at));
                }
            }
            if end == self.length {
                break;
            }
            // A magic may lie across the windows' border.
            start = end - (magic.len() as u64 - 1);
            length = WINDOW_MAX.min(length * 2);
        }
        Ok(None)
    }
}
