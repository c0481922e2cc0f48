//! One lane while it is written: its sealer, the block that is being filled, its totals and index.

use std::fmt;

use domicile::engine::Nonce;
use domicile::keyring::Lease;
use domicile::{Code, Error, Period, Result};

use super::index::IndexBuilder;
use super::output::{Output, Sink};
use crate::block_buffer::BlockBuffer;
use crate::compression::Packer;
use crate::format::{
    Arrivals, BlockFlags, BlockHeader, BlockKind, Compression, Contents, DataSummary, DirectoryEntry,
    LaneEnd, LaneKey, LaneNo, Section, TimeSpan,
};
use crate::running_hash::end_hash;
use crate::seal::LaneSealer;

/// When a record happened, and in which order it came, where its lane keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Event time, in microseconds since 1970.
    pub time: Option<i64>,
    /// Arrival number.
    pub arrival: Option<i64>,
}

impl Stamp {
    /// What of this stamp a lane would have to keep.
    #[inline]
    pub(super) fn kept(self) -> Kept {
        Kept(u8::from(self.time.is_some()) | u8::from(self.arrival.is_some()) << 1)
    }
}

/// What a lane keeps of each record's stamp, as one octet to compare with; one that no stamp has, where
/// records are not appended whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept(u8);

impl Kept {
    /// No stamp has it.
    pub(super) const NOTHING: Kept = Kept(u8::MAX);

    pub(super) fn of(lane: LaneNo, contents: Contents) -> Self {
        if lane == LaneNo::REGION || contents.long_record {
            return Self::NOTHING;
        }
        Kept(u8::from(contents.event_times) | u8::from(contents.arrivals) << 1)
    }
}

pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) sealer: LaneSealer,
    /// How long its data key may be used; none at a post, whose segment drops its keys with it.
    pub(super) lease: Option<Lease>,
    pub(super) contents: Contents,
    pub(super) compression: Compression,
    pub(super) takes: Kept,
    pub(super) stamp_bytes: u8,
    pub(super) period: Period,
    pub(super) offsets: Vec<u64>,
    pub(super) postamble: Vec<u8>,
    pub(super) totals: Totals,
    pub(super) index: IndexBuilder,
    pub(super) open: OpenBlock,
    /// Blocks that are full and wait to be sealed, and octets of their payloads.
    pub(super) waiting_blocks: u32,
    pub(super) waiting_bytes: usize,
    /// The last block that was sealed ends inside a record.
    pub(super) inside_record: bool,
    /// How far the long record is.
    pub(super) long: LongRecord,
    /// What lane 0 vouches for, once the lane has its end.
    pub(super) ended: Option<Box<DirectoryEntry>>,
}

/// How far the long record of a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LongRecord {
    /// Nothing was appended.
    NotBegun,
    /// Pieces were appended, with this stamp.
    Begun(Stamp),
    /// Its last piece was appended.
    Ended,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) data_blocks: u32,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// The block that is being filled: room for a header, the records back to back, and their arrays.
#[derive(Default)]
pub(super) struct OpenBlock {
    pub(super) buffer: BlockBuffer,
    pub(super) ends: Vec<u32>,
    times: Vec<i64>,
    arrivals: Vec<i64>,
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
    fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
        self.times.clear();
        self.arrivals.clear();
        (self.payload_bytes, self.room) = (0, 0);
    }

    /// Octets of memory.
    fn memory(&self) -> usize {
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
#[derive(Debug, Default)]
pub(super) struct SpareBlocks {
    blocks: Vec<OpenBlock>,
    bytes: usize,
}

impl SpareBlocks {
    /// What is kept at most: 64 blocks of 64 KiB.
    const BYTES_MAX: usize = 4 << 20;

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
        if self.bytes.saturating_add(memory) <= Self::BYTES_MAX {
            self.bytes += memory;
            self.blocks.push(block);
        }
    }
}

/// What a block has beside its records and their arrays: paddings, tail and tag.
const BLOCK_REMAINDER_BYTES: usize = 128;

/// A block that is full, and waits for the others of its pass.
#[derive(Debug)]
pub(super) struct FullBlock {
    pub(super) lane: usize,
    pub(super) block: OpenBlock,
    /// Its record goes on in the next block.
    pub(super) continues: bool,
    /// When its records were sealed first, where that was before.
    sealed_at: Option<i64>,
}

impl Lane {
    /// Whether the lane's key may still be used.
    pub(super) fn check_lease(&self) -> Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        lease.check().map_err(|reason| {
            Error::new(Code::KeyLapsed, "a lane's key may not be used any longer")
                .at(format!("lane {}", self.key.lane))
                .advise("open another lane of the scope; what this one took is sealed")
                .because(reason)
        })
    }

    /// Octets of payload that a record takes: its own, its offset, and what is kept of its stamp.
    #[inline]
    pub(super) fn cost(&self, length: usize) -> usize {
        length + usize::from(self.stamp_bytes)
    }

    /// Octets of payload of the open block, as far as it is filled.
    pub(super) fn open_payload_bytes(&self) -> usize {
        self.cost(0) * self.open.ends.len() + self.open.record_bytes()
    }

    /// Octets of memory of the open block: of its records, and of the arrays beside them.
    pub(super) fn open_memory(&self) -> usize {
        self.open.buffer.memory() + self.cost(0) * self.open.ends.len()
    }

    /// Octets of payload that each record takes beside its own.
    pub(super) fn stamp_bytes(contents: Contents) -> u8 {
        4 + if contents.event_times { 8 } else { 0 } + if contents.arrivals { 8 } else { 0 }
    }

    /// Whether a payload fits, behind what waits to be sealed and before the lane's end.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        /// Postamble and end.
        const BLOCKS_AFTER_DATA: u32 = 2;
        let end = self.postamble.len() + self.index.bytes() + 1024;
        let before = self.waiting_bytes + (self.waiting_blocks as usize + 1) * 2 * BLOCK_REMAINDER_BYTES;
        self.sealer.has_room(before + payload_bytes + end, self.waiting_blocks + BLOCKS_AFTER_DATA)
    }

    /// Takes the open block out, to be sealed with others.
    pub(super) fn take_open_block(
        &mut self,
        lane: usize,
        continues: bool,
        sealed_at: Option<i64>,
    ) -> FullBlock {
        let block = std::mem::take(&mut self.open);
        self.waiting_blocks += 1;
        self.waiting_bytes += self.cost(0) * block.ends.len() + block.record_bytes();
        FullBlock { lane, block, continues, sealed_at }
    }

    /// Seals a block that waited and writes it; gives its memory back.
    pub(super) fn seal_data<S: Sink>(
        &mut self,
        output: &mut Output<S>,
        packer: &mut Packer,
        full: FullBlock,
        nonce: Nonce,
        now: i64,
    ) -> Result<OpenBlock> {
        let FullBlock { mut block, continues, sealed_at, .. } = full;
        self.waiting_blocks -= 1;
        self.waiting_bytes -= self.cost(0) * block.ends.len() + block.record_bytes();
        // A piece is not a record of its own, and its number is the record's.
        let whole_records =
            if self.contents.long_record { u64::from(!continues) } else { block.ends.len() as u64 };
        let (arrivals, lowest_arrival) = arrivals_of(&block.arrivals);
        let spans = block.times.iter().copied().map(TimeSpan::at);
        let summary = DataSummary {
            // At most 16 MiB of offsets, so less than 2^24 records.
            count: u32::try_from(block.ends.len()).unwrap_or(u32::MAX),
            first_record: self.totals.records,
            has_times: self.contents.event_times,
            span: spans.reduce(TimeSpan::with).unwrap_or(TimeSpan::at(sealed_at.unwrap_or(now))),
            arrivals,
        };
        let record_bytes = block.record_bytes() as u64;
        let (payload, start) = block.buffer.parts();
        summary.complete(payload, start, &block.ends, &block.times, &block.arrivals);
        let mut flags = BlockFlags::sealed();
        if self.inside_record {
            flags.must |= BlockFlags::CONTINUED;
        }
        if continues {
            flags.must |= BlockFlags::CONTINUES;
        }
        let sequence = self.sealer.next_sequence();
        let mut packed = match self.compression {
            Compression::None => None,
            _ => Some(packer.compress(block.buffer.payload())?),
        };
        let buffer = packed.as_mut().unwrap_or(&mut block.buffer);
        let tag = self.sealer.seal(BlockKind::Data, flags, output.ordinal(), nonce, buffer)?;
        self.offsets.push(output.write_sealed(buffer.block(), &tag)?);
        self.index.add(sequence, summary.first_record, whole_records, lowest_arrival, summary.span);
        self.totals.data_blocks += 1;
        self.totals.records += whole_records;
        self.totals.bytes += record_bytes;
        self.inside_record = continues;
        block.clear();
        Ok(block)
    }

    /// Seals the postamble, if there is one, and the lane's end; nothing comes behind that.
    pub(super) fn end<S: Sink>(
        &mut self,
        output: &mut Output<S>,
        nonces: impl IntoIterator<Item = Nonce>,
    ) -> Result<()> {
        let mut nonces = nonces.into_iter();
        let (Some(first), Some(second)) = (nonces.next(), nonces.next()) else {
            return Err(Error::new(Code::RandomUnavailable, "a lane has no nonces"));
        };
        let postamble = std::mem::take(&mut self.postamble);
        if !postamble.is_empty() {
            self.seal_block(output, BlockKind::Postamble, first, &postamble)?;
        }
        let Totals { data_blocks, records, bytes } = self.totals;
        let entries = std::mem::take(&mut self.index).into_entries();
        let sections = if entries.is_empty() { vec![] } else { vec![Section::Index(entries)] };
        let end = LaneEnd { data_blocks, records, bytes, section_blocks: 0, sections };
        let payload = end.encode().map_err(super::does_not_fit)?;
        let (block, tag) = self.seal_block(output, BlockKind::LaneEnd, second, &payload)?;
        let header = block.block().first_chunk::<{ BlockHeader::BYTES }>();
        self.ended = Some(Box::new(DirectoryEntry {
            lane: self.key.lane,
            scope: self.key.scope.clone(),
            period: self.period,
            blocks: self.sealer.next_sequence(),
            records,
            bytes,
            end_hash: header.map_or([0; 32], |header| end_hash(header, &tag)),
        }));
        self.takes = Kept::NOTHING;
        Ok(())
    }

    /// Seals a payload of another kind and writes it; returns the block as it was written.
    pub(super) fn seal_block<S: Sink>(
        &mut self,
        output: &mut Output<S>,
        kind: BlockKind,
        nonce: Nonce,
        payload: &[u8],
    ) -> Result<(BlockBuffer, [u8; domicile::engine::TAG_BYTES])> {
        let mut block = BlockBuffer::of(payload);
        let tag = self.sealer.seal(kind, BlockFlags::sealed(), output.ordinal(), nonce, &mut block)?;
        self.offsets.push(output.write_sealed(block.block(), &tag)?);
        Ok((block, tag))
    }
}

/// How a block keeps its arrival numbers: not at all while they count up, so that a file sealed into one
/// lane pays nothing for its order.
fn arrivals_of(arrivals: &[i64]) -> (Arrivals, i64) {
    let Some(first) = arrivals.first() else { return (Arrivals::None, 0) };
    if arrivals.windows(2).all(|pair| matches!(pair, [left, right] if left.checked_add(1) == Some(*right))) {
        (Arrivals::From(*first), *first)
    } else {
        (Arrivals::Each, arrivals.iter().copied().min().unwrap_or(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_grows_and_keeps_what_stands_in_it() {
        let (mut block, mut spare) = (OpenBlock::default(), SpareBlocks::default());
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
        let mut spare = SpareBlocks::default();
        let emptied = |payload_bytes| {
            let mut block = OpenBlock::default();
            block.make_room(&mut SpareBlocks::default(), payload_bytes);
            block.clear();
            block
        };
        spare.give(emptied(SpareBlocks::BYTES_MAX));
        assert_eq!(spare.bytes, 0, "too large to be kept");
        for _ in 0..100 {
            spare.give(emptied(64 << 10));
        }
        assert!(spare.bytes <= SpareBlocks::BYTES_MAX && spare.blocks.len() > 50);
        assert!(spare.take(64 << 10).is_some());
        assert!(spare.take(4 << 10).is_none(), "far too much");
        assert!(spare.take(128 << 10).is_none(), "too little");
        while spare.take(64 << 10).is_some() {}
        assert_eq!(spare.bytes, 0);
    }
}
