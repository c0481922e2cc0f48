//! Lane 0's own sections: which lanes there are, and the segment as a whole.

use domicile::wire::{Decoder, Encoder, Fixed, Malformed};
use domicile::{Period, RecordType, Scope, TenantId};

use super::LaneNo;

/// One lane of the segment, as lane 0 vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its number.
    pub lane: LaneNo,
    /// Whose records.
    pub scope: Scope,
    /// Their period.
    pub period: Period,
    /// Its blocks, opening and end included.
    pub blocks: u32,
    /// Its records.
    pub records: u64,
    /// Octets of its records.
    pub bytes: u64,
    /// SHA-256 over header and tag of its lane-end block.
    pub end_hash: [u8; 32],
}

impl DirectoryEntry {
    /// The most octets of an entry.
    pub const BYTES_MAX: usize = 4 + 65 + 33 + 11 + 4 + 8 + 8 + 32;

    /// Records of all these lanes, and octets of their records; `None` for more than there can be.
    #[must_use]
    pub fn totals(entries: &[Self]) -> Option<(u64, u64)> {
        entries.iter().try_fold((0u64, 0u64), |(records, bytes), entry| {
            Some((records.checked_add(entry.records)?, bytes.checked_add(entry.bytes)?))
        })
    }

    pub(super) fn encode(&self, out: &mut Encoder) -> Result<(), Malformed> {
        out.u32(self.lane.0)
            .short(self.scope.tenant.as_str().as_bytes(), "tenant")?
            .short(self.scope.record_type.as_str().as_bytes(), "record type")?
            .short(self.period.to_string().as_bytes(), "period")?
            .u32(self.blocks)
            .u64(self.records)
            .u64(self.bytes)
            .raw(&self.end_hash);
        Ok(())
    }

    pub(super) fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = input.malformed("directory entry");
        let lane = LaneNo(input.u32("lane")?);
        let tenant = TenantId::stored(input.text("tenant")?).map_err(|_| bad)?;
        let record_type = RecordType::stored(input.text("record type")?).map_err(|_| bad)?;
        Ok(Self {
            lane,
            scope: Scope { tenant, record_type },
            period: input.text("period")?.parse().map_err(|_| bad)?,
            blocks: input.u32("blocks of a lane")?,
            records: input.u64("records of a lane")?,
            bytes: input.u64("octets of a lane")?,
            end_hash: input.array("hash of a lane's end")?,
        })
    }
}

/// The segment as a whole, as lane 0 vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Whether the segment was closed after a crash.
    pub recovered: bool,
    /// Lanes beside lane 0.
    pub lanes: u32,
    /// Blocks with an ordinal below this block's own: all there are.
    pub blocks: u64,
    /// Records of all lanes.
    pub records: u64,
    /// Octets of records of all lanes.
    pub bytes: u64,
    /// The running hash over all blocks with an ordinal below this block's own.
    pub running_hash: [u8; 32],
}

impl Summary {
    const BYTES: usize = 61;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        Fixed::new()
            .u8(u8::from(self.recovered))
            .u32(self.lanes)
            .u64(self.blocks)
            .u64(self.records)
            .u64(self.bytes)
            .raw(&self.running_hash)
            .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let recovered = match input.u8("closing")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed { what: "closing", at: 0 }),
        };
        let summary = Self {
            recovered,
            lanes: input.u32("lanes")?,
            blocks: input.u64("blocks")?,
            records: input.u64("records")?,
            bytes: input.u64("octets")?,
            running_hash: input.array("running hash")?,
        };
        input.end("end of the summary")?;
        Ok(summary)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> DirectoryEntry {
        DirectoryEntry {
            lane: LaneNo(1),
            scope: Scope::new("acme", RecordType::VOICE).unwrap(),
            period: "2026-11".parse().unwrap(),
            blocks: 3,
            records: 100,
            bytes: 30_000,
            end_hash: [4; 32],
        }
    }

    pub(crate) fn summary() -> Summary {
        Summary { recovered: false, lanes: 1, blocks: 6, records: 100, bytes: 30_000, running_hash: [5; 32] }
    }

    #[test]
    fn totals_that_cannot_be_are_none() {
        assert_eq!(DirectoryEntry::totals(&[]), Some((0, 0)));
        assert_eq!(DirectoryEntry::totals(&[sample(), sample()]), Some((200, 60_000)));
        let many = DirectoryEntry { records: u64::MAX, ..sample() };
        assert_eq!(DirectoryEntry::totals(&[many, sample()]), None);
        let long = DirectoryEntry { bytes: u64::MAX, ..sample() };
        assert_eq!(DirectoryEntry::totals(&[sample(), long]), None);
    }

    #[test]
    fn the_longest_entry_is_within_its_bound() {
        let longest = DirectoryEntry {
            scope: Scope {
                tenant: "t".repeat(64).parse().unwrap(),
                record_type: "r".repeat(32).parse().unwrap(),
            },
            period: "2026-11-24".parse().unwrap(),
            ..sample()
        };
        let mut out = Encoder::new();
        longest.encode(&mut out).unwrap();
        assert_eq!(out.len(), DirectoryEntry::BYTES_MAX);
    }
}
