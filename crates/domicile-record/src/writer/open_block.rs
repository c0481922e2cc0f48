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
        if !self.buffer.has_memory() {
            self.buffer = BlockBuffer::with_room(needed);
        } else if self.buffer.room() < needed {
            let mut larger = spare.take(needed).unwrap_or_default();
            if !larger.buffer.has_memory() {
                larger.buffer = BlockBuffer::with_room(needed);
            }
            larger.buffer.append(self.buffer.payload());
            std::mem::swap(&mut self.buffer, &mut larger.buffer);
            larger.clear();
            spare.give(larger);
        }
        self.room = self.room.max(1) + (payload_bytes - self.payload_bytes);
        self.payload_bytes = payload_bytes;
        self.buffer.memory().saturating_sub(before)
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

/// Memory of blocks that were sealed, for the next ones of their size.
#[derive(Debug)]
pub(super) struct SpareBlocks {
    /// By the power of two that their payloads have at least.
    by_size: Vec<Vec<OpenBlock>>,
    bytes: usize,
    bytes_max: usize,
}

impl SpareBlocks {
    /// Keeps at most so many octets of memory.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { by_size: Vec::new(), bytes: 0, bytes_max }
    }

    /// Octets of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory of a block with so much room, and less than twice as much.
    fn take(&mut self, room: usize) -> Option<OpenBlock> {
        let size = size_of_room(room);
        // What a payload is aligned by may put its block among those of the next power.
        let about = room..=room + 2 * BlockBuffer::ALIGNMENT;
        let above = self.by_size.get_mut(size + 1);
        let above = above.and_then(|blocks| blocks.pop_if(|block| about.contains(&block.buffer.room())));
        let block = match above {
            Some(block) => block,
            None => self.by_size.get_mut(size)?.pop()?,
        };
        self.bytes -= block.memory().min(self.bytes);
        (block.buffer.room() >= room).then_some(block)
    }

    /// Keeps the memory of a block, and rather that of small ones than of large ones, which are fewer.
    pub(super) fn give(&mut self, block: OpenBlock) {
        let (size, memory) = (size_of_room(block.buffer.room()), block.memory());
        while self.bytes.saturating_add(memory) > self.bytes_max {
            let largest = self.by_size.iter_mut().enumerate().rfind(|(_, blocks)| !blocks.is_empty());
            let Some((_, blocks)) = largest.filter(|(largest, _)| *largest > size) else { return };
            let dropped = blocks.pop().map_or(0, |block| block.memory());
            self.bytes -= dropped.min(self.bytes);
        }
        if self.by_size.len() <= size {
            self.by_size.resize_with(size + 1, Vec::new);
        }
        self.bytes += memory;
        if let Some(blocks) = self.by_size.get_mut(size) {
            blocks.push(block);
        }
    }
}

/// The power of two that a block's payload has at least, of a buffer with so much room.
fn size_of_room(room: usize) -> usize {
    room.saturating_sub(BLOCK_REMAINDER_BYTES).max(1).ilog2() as usize
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
        let take = |spare: &mut SpareBlocks, payload_bytes| spare.take(payload_bytes + BLOCK_REMAINDER_BYTES);
        spare.give(emptied(bytes_max));
        assert_eq!(spare.bytes, 0, "too large to be kept");
        for _ in 0..100 {
            spare.give(emptied(64 << 10));
        }
        assert!(spare.bytes <= bytes_max && spare.by_size[16].len() > 50);
        assert!(take(&mut spare, 64 << 10).is_some());
        assert!(take(&mut spare, 4 << 10).is_none(), "far too much");
        assert!(take(&mut spare, 128 << 10).is_none(), "too little");
        // Small ones take the room of large ones, and large ones that of none.
        let large = spare.by_size[16].len();
        for _ in 0..1000 {
            spare.give(emptied(1 << 10));
        }
        assert!(spare.bytes <= bytes_max && spare.by_size[16].len() < large);
        assert_eq!(spare.by_size[10].len(), 1000);
        while take(&mut spare, 1 << 10).is_some() || take(&mut spare, 64 << 10).is_some() {}
        assert_eq!(spare.bytes, 0);
        // Between two powers, what was given may be too small.
        spare.give(emptied(1000));
        assert!(take(&mut spare, 1000).is_some());
        spare.give(emptied(600));
        assert!(take(&mut spare, 1000).is_none());
    }

    #[test]
    fn a_block_that_grows_takes_memory_that_is_there_and_gives_its_own_back() {
        let mut spare = SpareBlocks::new(1 << 20);
        let (mut block, mut large) = (OpenBlock::default(), OpenBlock::default());
        large.make_room(&mut spare, 4096);
        large.clear();
        spare.give(large);
        block.make_room(&mut spare, 512);
        block.buffer.append(b"one");
        block.make_room(&mut spare, 4096);
        assert_eq!(block.buffer.payload(), b"one");
        assert!(spare.by_size[12].is_empty() && spare.by_size[9].len() == 1);
        assert!(spare.take(512).is_none() && spare.take(512 + BLOCK_REMAINDER_BYTES).is_some());
    }
}
