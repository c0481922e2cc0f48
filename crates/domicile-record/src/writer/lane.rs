//! One lane while it is written: its sealer, its totals and index.

use domicile::engine::Nonce;
use domicile::keyring::Lease;
use domicile::{Code, Error, Period, Result};

use super::index::IndexBuilder;
use super::open_block::{BLOCK_REMAINDER_BYTES, OpenBlock, SpareBlocks};
use super::output::{Output, Sink};
use super::sealing::{Sealed, Unsealed};
use crate::block_buffer::BlockBuffer;
use crate::format::{
    BlockFlags, BlockHeader, BlockKind, Compression, Contents, DirectoryEntry, LaneEnd, LaneKey, LaneNo,
    Section,
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
    /// Octets of payload of the block that was taken out last: the next one is likely to become as large.
    pub(super) expected_bytes: usize,
    /// It stands among those that have something in their open block.
    pub(super) is_filling: bool,
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

    /// Makes the open block take a payload of so many octets, and puts the lane among those that fill. Returns how many octets of
    /// memory that took.
    pub(super) fn make_room(
        &mut self,
        payload_bytes: usize,
        spare: &mut SpareBlocks,
        filling: &mut Vec<u32>,
    ) -> usize {
        if !std::mem::replace(&mut self.is_filling, true) {
            filling.push(self.key.lane.0);
        }
        self.open.make_room(spare, payload_bytes)
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

    /// Reads a little of everything that sealing the open block will need. Lanes that were idle are far from the caches; of several that
    /// are touched one after another the waits overlap, where each would else be waited for alone.
    pub(super) fn touch(&self) -> usize {
        let first = self.open.buffer.payload().first().copied().map_or(0, usize::from);
        let ends = self.open.ends.first().map_or(0, |end| *end as usize);
        let offset = self.offsets.last().map_or(0, |offset| usize::from(offset.to_le_bytes()[0]));
        [first, ends, offset, self.sealer.touch(), self.index.touch(), usize::from(self.is_filling)]
            .into_iter()
            .fold(self.waiting_bytes, usize::wrapping_add)
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
        self.expected_bytes = self.cost(0) * block.ends.len() + block.record_bytes();
        self.waiting_bytes += self.expected_bytes;
        FullBlock { lane, block, continues, sealed_at }
    }

    /// Gives a block that waited its place in the lane and, with its ordinal, in the file.
    pub(super) fn place(
        &mut self,
        full: FullBlock,
        ordinal: u64,
        nonce: Nonce,
        now: i64,
    ) -> Result<Unsealed> {
        let FullBlock { lane, block, continues, sealed_at } = full;
        self.waiting_blocks -= 1;
        // A piece is not a record of its own, and its number is the record's.
        let whole_records =
            if self.contents.long_record { u64::from(!continues) } else { block.ends.len() as u64 };
        let mut flags = BlockFlags::sealed();
        if self.inside_record {
            flags.must |= BlockFlags::CONTINUED;
        }
        if continues {
            flags.must |= BlockFlags::CONTINUES;
        }
        let first_record = self.totals.records;
        self.totals.data_blocks += 1;
        self.totals.records += whole_records;
        self.totals.bytes += block.record_bytes() as u64;
        self.inside_record = continues;
        Ok(Unsealed {
            lane,
            sealer: self.sealer.next_block(BlockKind::Data, flags, ordinal, nonce)?,
            payload_bytes: self.cost(0) * block.ends.len() + block.record_bytes(),
            block,
            compression: self.compression,
            first_record,
            whole_records,
            has_times: self.contents.event_times,
            sealed_at: sealed_at.unwrap_or(now),
        })
    }

    /// Writes a block that was sealed; gives its memory back.
    pub(super) fn write_data<S: Sink>(
        &mut self,
        output: &mut Output<S>,
        sealed: Sealed,
    ) -> Result<OpenBlock> {
        self.waiting_bytes -= sealed.payload_bytes;
        self.sealer.wrote(sealed.bytes().len())?;
        self.offsets.push(output.write_sealed(sealed.bytes(), &sealed.tag)?);
        let Sealed { sequence, first_record, whole_records, lowest_arrival, span, .. } = sealed;
        self.index.add(sequence, first_record, whole_records, lowest_arrival, span);
        Ok(sealed.emptied())
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
