//! The block of a lane that is being filled, and the memory of those that were sealed.

use std::fmt;

use super::lane::Stamp;
use crate::block_buffer::BlockBuffer;

/// The block that is being filled: room for a header, the records back to back, and their arrays.
#[derive(Default)]
pub(super) struct OpenBlock {
    pub(super) buffer: BlockBuffer,
    pub(super) ends: Vec<u32>,
    pub(super) times: Vec<i64>,
    pub(super) arrivals: Vec<i64>,
    /// Octets of payload that the block takes before it has to grow, or to be sealed.
    payload_bytes: usize,
    /// One more than the octets of payload that are left; 0 for a block that takes nothing yet.
    room: usize,
}

impl OpenBlock {
    /// Octets of records.
    #[inline]
    pub(super) fn record_bytes(&self) -> usize {
        self.buffer.payload_bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Octets of payload that the block takes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Whether a record fits that takes so many octets of payload.
    #[inline]
    pub(super) fn fits(&self, cost: usize) -> bool {
        cost < self.room
    }

    /// Makes the block take a payload of so many octets, what stands in it included: with the memory of one that was
    /// given back, or new. Returns how many octets of memory it took for that.
    pub(super) fn make_room(&mut self, spare: &mut SpareBlocks, payload_bytes: usize) -> usize {
        if payload_bytes <= self.payload_bytes {
            return 0;
        }
        let before = self.buffer.memory();
        let needed = payload_bytes + BLOCK_REMAINDER_BYTES;
        if !self.buffer.has_memory() {
            *self = spare.take(needed).unwrap_or_default();
        }
        if !self.buffer.has_memory() || self.buffer.room() < needed {
            let mut larger = BlockBuffer::with_room(needed);
            larger.append(self.buffer.payload());
            self.buffer = larger;
        }
        self.room = self.room.max(1) + (payload_bytes - self.payload_bytes);
        self.payload_bytes = payload_bytes;
        self.buffer.memory() - before
    }

    /// Ends a record whose octets stand in the buffer and that takes so many octets of payload.
    #[inline]
    pub(super) fn end_record(&mut self, stamp: Stamp, cost: usize) {
        self.room -= cost.min(self.room);
        // A block's records are at most 16 MiB.
        self.ends.push(u32::try_from(self.record_bytes()).unwrap_or(u32::MAX));
        if let Some(time) = stamp.time {
            self.times.push(time);
        }
        if let Some(arrival) = stamp.arrival {
            self.arrivals.push(arrival);
        }
    }

    /// Empties the block, keeping its memory.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
        self.times.clear();
        self.arrivals.clear();
        (self.payload_bytes, self.room) = (0, 0);
    }

    /// Octets of memory.
    pub(super) fn memory(&self) -> usize {
        let arrays = self.times.capacity() + self.arrivals.capacity();
        self.buffer.memory() + 4 * self.ends.capacity() + 8 * arrays
    }
}

impl fmt::Debug for OpenBlock {
    /// Shows how much there is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBlock")
            .field("records", &self.ends.len())
            .field("record_bytes", &self.record_bytes())
            .finish_non_exhaustive()
    }
}

/// Memory of blocks that were sealed, for the next ones.
#[derive(Debug)]
pub(super) struct SpareBlocks {
    blocks: Vec<OpenBlock>,
    bytes: usize,
    bytes_max: usize,
}

impl SpareBlocks {
    /// Keeps at most so many octets of memory.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { blocks: Vec::new(), bytes: 0, bytes_max }
    }

    /// Octets of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory of a block with so much room; one that is much larger would be wasted on it.
    fn take(&mut self, room: usize) -> Option<OpenBlock> {
        let block = self.blocks.pop()?;
        self.bytes -= block.memory().min(self.bytes);
        let found = block.buffer.room();
        (found >= room && found / 2 <= room).then_some(block)
    }

    pub(super) fn give(&mut self, block: OpenBlock) {
        let memory = block.memory();
        if self.bytes.saturating_add(memory) <= self.bytes_max {
            self.bytes += memory;
            self.blocks.push(block);
        }
    }
}

/// What a block has beside its records and their arrays: paddings, tail and tag.
pub(super) const BLOCK_REMAINDER_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_grows_and_keeps_what_stands_in_it() {
        let (mut block, mut spare) = (OpenBlock::default(), SpareBlocks::new(0));
        assert!(!block.fits(0));
        let mut memory = block.make_room(&mut spare, 100);
        assert!(memory >= 100 && block.fits(100) && !block.fits(101));
        block.buffer.append(b"one");
        block.end_record(Stamp::default(), 7);
        assert!(block.fits(93) && !block.fits(94));
        memory += block.make_room(&mut spare, 1000);
        assert!(block.fits(993) && !block.fits(994));
        assert_eq!((block.buffer.payload(), &block.ends[..]), (&b"one"[..], &[3][..]));
        assert_eq!(memory, block.buffer.memory());
        assert_eq!(block.make_room(&mut spare, 500), 0);
    }

    #[test]
    fn memory_of_sealed_blocks_is_kept_within_a_bound_and_given_to_blocks_of_its_size() {
        let bytes_max = 4 << 20;
        let mut spare = SpareBlocks::new(bytes_max);
        let emptied = |payload_bytes| {
            let mut block = OpenBlock::default();
            block.make_room(&mut SpareBlocks::new(0), payload_bytes);
            block.clear();
            block
        };
        spare.give(emptied(bytes_max));
        assert_eq!(spare.bytes, 0, "too large to be kept");
        for _ in 0..100 {
            spare.give(emptied(64 << 10));
        }
        assert!(spare.bytes <= bytes_max && spare.blocks.len() > 50);
        assert!(spare.take(64 << 10).is_some());
        assert!(spare.take(4 << 10).is_none(), "far too much");
        assert!(spare.take(128 << 10).is_none(), "too little");
        while spare.take(64 << 10).is_some() {}
        assert_eq!(spare.bytes, 0);
    }
}
