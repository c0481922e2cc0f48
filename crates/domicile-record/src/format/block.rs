//! Block headers: what kind, whose, in which order, how long.

use domicile::engine::{NONCE_BYTES, TAG_BYTES};
use domicile::wire::{Decoder, Fixed, Malformed};

use super::{LaneNo, LaneOpen, Limits, PAYLOAD_BYTES_MAX, SegmentId};

/// What a block holds. Kinds from 0x80 on may be skipped by readers that do not know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockKind {
    /// A lane begins: its descriptor, commitment and wrapped data key, in clear.
    LaneOpen,
    /// Records.
    Data,
    /// What frames the records and stands before them.
    Preamble,
    /// What frames the records and stands behind them.
    Postamble,
    /// Lane 0: how far the segment is on disk.
    Commit,
    /// Part of a lane's end that did not fit into it.
    Section,
    /// A lane ends: totals, and tagged sections.
    LaneEnd,
    /// Where everything is, in clear: hints.
    Footer,
    /// A kind that this build does not know and may skip.
    Skippable(u8),
}

impl BlockKind {
    /// The number, as it stands in headers.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            BlockKind::LaneOpen => 0x01,
            BlockKind::Data => 0x02,
            BlockKind::Preamble => 0x03,
            BlockKind::Postamble => 0x04,
            BlockKind::Commit => 0x05,
            BlockKind::Section => 0x06,
            BlockKind::LaneEnd => 0x07,
            BlockKind::Footer => 0x08,
            BlockKind::Skippable(code) => code,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x01 => BlockKind::LaneOpen,
            0x02 => BlockKind::Data,
            0x03 => BlockKind::Preamble,
            0x04 => BlockKind::Postamble,
            0x05 => BlockKind::Commit,
            0x06 => BlockKind::Section,
            0x07 => BlockKind::LaneEnd,
            0x08 => BlockKind::Footer,
            0x80.. => BlockKind::Skippable(code),
            _ => return None,
        })
    }

    /// The name, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BlockKind::LaneOpen => "lane open",
            BlockKind::Data => "data",
            BlockKind::Preamble => "preamble",
            BlockKind::Postamble => "postamble",
            BlockKind::Commit => "commit",
            BlockKind::Section => "section",
            BlockKind::LaneEnd => "lane end",
            BlockKind::Footer => "footer",
            BlockKind::Skippable(_) => "skippable",
        }
    }
}

/// Flags of a block. Readers refuse those of `must` that they do not know, and ignore those of `may`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockFlags {
    /// Ignored if unknown; none is known.
    pub may: u8,
    /// Refused if unknown.
    pub must: u8,
}

impl BlockFlags {
    /// The payload is encrypted and a tag follows it.
    pub const SEALED: u8 = 0x01;
    /// The block begins inside a record that an earlier block began.
    pub const CONTINUED: u8 = 0x02;
    /// The block ends inside a record that goes on in the next block.
    pub const CONTINUES: u8 = 0x04;

    const KNOWN: u8 = Self::SEALED | Self::CONTINUED | Self::CONTINUES;

    /// Encrypted, and nothing else.
    #[must_use]
    pub fn sealed() -> Self {
        Self { may: 0, must: Self::SEALED }
    }

    /// Whether the payload is encrypted.
    #[must_use]
    pub fn is_sealed(self) -> bool {
        self.must & Self::SEALED != 0
    }

    /// Whether the block begins inside a record.
    #[must_use]
    pub fn is_continued(self) -> bool {
        self.must & Self::CONTINUED != 0
    }

    /// Whether the block ends inside a record.
    #[must_use]
    pub fn continues(self) -> bool {
        self.must & Self::CONTINUES != 0
    }
}

/// The 44 octets before every block; all of them are authenticated with what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the block holds.
    pub kind: BlockKind,
    /// How to read it.
    pub flags: BlockFlags,
    /// Whose it is; [`LaneNo::NONE`] for the footer.
    pub lane: LaneNo,
    /// Its place in the lane, from 0 without gaps.
    pub sequence: u32,
    /// Its place in the segment as it was written, from 0 without gaps.
    pub ordinal: u64,
    /// Octets of the payload, without tag and padding.
    pub length: u32,
    /// The nonce; zeros where nothing is sealed.
    pub nonce: [u8; NONCE_BYTES],
}

impl BlockHeader {
    /// Octets of a block header.
    pub const BYTES: usize = 44;

    /// Where the length stands.
    pub const LENGTH_AT: usize = 24;

    /// How every block begins.
    pub const MAGIC: [u8; 4] = *b"\xd0BLK";

    /// The octets, as they stand in a file. The checksum begins with the segment's id, so that a block
    /// of another segment, left over on a disk, is not taken for one of this.
    #[must_use]
    pub fn encode(&self, segment: &SegmentId) -> [u8; Self::BYTES] {
        let mut out = Fixed::<{ Self::BYTES }>::new();
        out.raw(&Self::MAGIC)
            .u8(self.kind.code())
            .u8(self.flags.may)
            .u8(self.flags.must)
            .u8(0)
            .u32(self.lane.0)
            .u32(self.sequence)
            .u64(self.ordinal)
            .u32(self.length)
            .raw(&self.nonce);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.0), out.written());
        out.u32(crc).finish()
    }

    /// Reads a block header. The checksum finds accidents and says nothing about attackers.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8; Self::BYTES], segment: &SegmentId) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = |what, at| Malformed { what, at };
        if input.array("magic of a block")? != Self::MAGIC {
            return Err(bad("magic of a block", 0));
        }
        let kind = BlockKind::from_code(input.u8("kind of block")?);
        let flags = BlockFlags { may: input.u8("flags")?, must: input.u8("flags")? };
        let reserved = input.u8("reserved octet")?;
        let lane = LaneNo(input.u32("lane")?);
        let sequence = input.u32("place in the lane")?;
        let ordinal = input.u64("place in the segment")?;
        let length = input.u32("length")?;
        let nonce = input.array("nonce")?;
        let crc = input.u32("checksum of a block header")?;
        let covered = bytes.first_chunk::<{ Self::BYTES - 4 }>().map_or(&bytes[..], |covered| &covered[..]);
        if crc32c::crc32c_append(crc32c::crc32c(&segment.0), covered) != crc {
            return Err(bad("checksum of a block header", Self::BYTES - 4));
        }
        // Only now is it worth telling a damaged header from one of a later version.
        let kind = kind.ok_or(bad("unknown kind of block", 4))?;
        if flags.must & !BlockFlags::KNOWN != 0 {
            return Err(bad("unknown flags of a block", 6));
        }
        // What a later version adds is sealed, so that nothing unauthenticated slips in as unknown.
        if flags.is_sealed() == matches!(kind, BlockKind::LaneOpen | BlockKind::Footer) {
            return Err(bad("sealed flag of a block", 6));
        }
        if (flags.is_continued() || flags.continues()) && kind != BlockKind::Data {
            return Err(bad("continuation of a block without records", 6));
        }
        if reserved != 0 || (!flags.is_sealed() && nonce != [0; NONCE_BYTES]) {
            return Err(bad("reserved octet of a block header", 7));
        }
        let header = Self { kind, flags, lane, sequence, ordinal, length, nonce };
        header.check_limits()?;
        Ok(header)
    }

    /// Numbers and lengths that no writer reaches: nobody who reads shall count or allocate up to them.
    fn check_limits(&self) -> Result<(), Malformed> {
        let limits = Limits::FORMAT;
        let bad = |what, at| Err(Malformed { what, at });
        // The footer stands behind as many blocks as there may be, is read page by page, and may be large.
        let (length_max, ordinal_max) = match self.kind {
            BlockKind::Footer => (usize::MAX, limits.blocks),
            BlockKind::LaneOpen => (LaneOpen::bytes_max(self.lane), limits.blocks - 1),
            _ => (PAYLOAD_BYTES_MAX, limits.blocks - 1),
        };
        let lane_fits = match self.kind {
            BlockKind::Footer => self.lane == LaneNo::NONE,
            BlockKind::Commit => self.lane == LaneNo::REGION,
            BlockKind::Data | BlockKind::Preamble | BlockKind::Postamble => {
                self.lane != LaneNo::REGION && self.lane.0 < limits.lanes
            }
            _ => self.lane.0 < limits.lanes,
        };
        if !lane_fits {
            return bad("lane", 8);
        }
        let sequence_fits = match self.kind {
            BlockKind::Footer => self.sequence == 0,
            _ => self.sequence < limits.lane_blocks,
        };
        if !sequence_fits {
            return bad("place in the lane", 12);
        }
        if self.ordinal > ordinal_max {
            return bad("place in the segment", 16);
        }
        if self.payload_bytes() > length_max {
            return bad("length of a block", Self::LENGTH_AT);
        }
        Ok(())
    }

    /// Octets of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        // usize has at least 32 bits wherever this builds.
        self.length as usize
    }

    /// Octets of payload and tag.
    #[must_use]
    pub fn sealed_bytes(&self) -> usize {
        self.payload_bytes() + if self.flags.is_sealed() { TAG_BYTES } else { 0 }
    }

    /// The tag of a sealed block, as it stands behind the payload in what follows this header.
    #[must_use]
    pub fn tag_in(&self, body: &[u8]) -> Option<[u8; TAG_BYTES]> {
        let tag = body.get(self.payload_bytes()..self.sealed_bytes())?;
        tag.try_into().ok().filter(|_| self.flags.is_sealed())
    }

    /// Octets from the end of this header to the next: payload, tag, and zeros up to a multiple of eight of
    /// the whole block.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        padded(Self::BYTES + self.sealed_bytes()) - Self::BYTES
    }

    /// Octets of the whole block.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        (Self::BYTES + self.body_bytes()) as u64
    }
}

/// The next multiple of eight.
#[must_use]
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BlockHeader {
        BlockHeader {
            kind: BlockKind::Data,
            flags: BlockFlags::sealed(),
            lane: LaneNo(3),
            sequence: 4,
            ordinal: 5,
            length: 65_536,
            nonce: [9; 12],
        }
    }

    fn in_clear(kind: BlockKind, lane: LaneNo, length: u32) -> BlockHeader {
        let flags = BlockFlags::default();
        BlockHeader { kind, flags, lane, sequence: 0, ordinal: 5, length, nonce: [0; 12] }
    }

    #[test]
    fn headers_read_back_and_every_changed_bit_is_noticed() {
        let id = SegmentId([1; 32]);
        let bytes = sample().encode(&id);
        assert_eq!(BlockHeader::decode(&bytes, &id).unwrap(), sample());
        assert!(BlockHeader::decode(&bytes, &SegmentId([2; 32])).is_err(), "a block of another segment");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&bad, &id).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn what_a_later_version_may_add_is_skipped_or_refused() {
        let id = SegmentId([1; 32]);
        let decode = |header: BlockHeader| BlockHeader::decode(&header.encode(&id), &id);
        let skippable = BlockHeader { kind: BlockKind::Skippable(0x80), ..sample() };
        assert_eq!(decode(skippable).unwrap(), skippable);
        let ignorable = BlockHeader { flags: BlockFlags { may: 0xff, ..BlockFlags::sealed() }, ..sample() };
        assert_eq!(decode(ignorable).unwrap(), ignorable);
        for header in [
            BlockHeader { kind: BlockKind::Skippable(0x7f), ..sample() },
            BlockHeader { flags: BlockFlags { may: 0, must: 0x81 }, ..sample() },
            BlockHeader { flags: BlockFlags::default(), ..sample() },
            BlockHeader { kind: BlockKind::Skippable(0x80), flags: BlockFlags::default(), ..sample() },
            BlockHeader { kind: BlockKind::Footer, ..sample() },
            BlockHeader { kind: BlockKind::Commit, flags: BlockFlags { may: 0, must: 0x05 }, ..sample() },
            BlockHeader { length: u32::try_from(PAYLOAD_BYTES_MAX).unwrap() + 1, ..sample() },
        ] {
            decode(header).unwrap_err();
        }
    }

    #[test]
    fn numbers_beyond_the_limits_are_refused() {
        let id = SegmentId([1; 32]);
        let reads = |header: BlockHeader| BlockHeader::decode(&header.encode(&id), &id).is_ok();
        let footer = in_clear(BlockKind::Footer, LaneNo::NONE, 1 << 30);
        let open = |lane, length| in_clear(BlockKind::LaneOpen, LaneNo(lane), length);
        for header in [
            BlockHeader { sequence: (1 << 24) - 1, ..sample() },
            BlockHeader { lane: LaneNo((1 << 20) - 1), ..sample() },
            BlockHeader { ordinal: (1 << 29) - 1, ..sample() },
            BlockHeader { ordinal: 1 << 29, ..footer },
            BlockHeader { kind: BlockKind::Commit, lane: LaneNo::REGION, ..sample() },
            open(0, 2 << 20),
            open(1, 4 << 10),
        ] {
            assert!(reads(header), "{header:?}");
        }
        for header in [
            BlockHeader { sequence: 1 << 24, ..sample() },
            BlockHeader { lane: LaneNo(1 << 20), ..sample() },
            BlockHeader { lane: LaneNo::NONE, ..sample() },
            BlockHeader { lane: LaneNo::REGION, ..sample() },
            BlockHeader { kind: BlockKind::Commit, ..sample() },
            BlockHeader { ordinal: 1 << 29, ..sample() },
            BlockHeader { ordinal: (1 << 29) + 1, ..footer },
            BlockHeader { lane: LaneNo(1), ..footer },
            BlockHeader { sequence: 1, ..footer },
            open(0, 3 << 20),
            open(1, 2 << 20),
        ] {
            assert!(!reads(header), "{header:?}");
        }
    }

    #[test]
    fn blocks_are_padded_to_eight() {
        for (length, bytes) in [(0, 64), (4, 64), (5, 72), (12, 72), (13, 80)] {
            assert_eq!(BlockHeader { length, ..sample() }.block_bytes(), bytes);
        }
    }
}
