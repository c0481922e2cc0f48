//! Tombstones: what the ledger says that was taken, from which keys, and when.

use crate::context::KeyKind;
use crate::error::Result;
use crate::ledger::{Said, StatementKind};
#[cfg(all(feature = "sqlite", feature = "postgres"))]
use crate::ledger::{Statement, content};
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::scope::{RecordType, Scope, TenantId};
use crate::store::{KeyIdentity, KeyName, KeyRow};
use crate::wire::{Decoder, Encoder, Malformed};

/// What a leaf had wrapped, so that nobody can pass the loss of another thing off as its erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A lane of a segment.
    Lane {
        /// The segment's id.
        segment: [u8; 32],
        /// The lane's number.
        lane: u32,
    },
    /// A whole segment: its own leaf.
    Segment {
        /// The segment's id.
        segment: [u8; 32],
    },
    /// A scope's sealed records of a day: one day key.
    Day {
        /// The commitment to the key.
        commitment: [u8; 32],
    },
}

impl Subject {
    fn encode(self, out: &mut Encoder) {
        match self {
            Subject::Lane { segment, lane } => out.u8(0x01).raw(&segment).u32(lane),
            Subject::Segment { segment } => out.u8(0x02).raw(&segment),
            Subject::Day { commitment } => out.u8(0x03).raw(&commitment),
        };
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        match input.u8("kind of the subject")? {
            0x01 => Ok(Subject::Lane { segment: input.array("segment")?, lane: input.u32("lane")? }),
            0x02 => Ok(Subject::Segment { segment: input.array("segment")? }),
            0x03 => Ok(Subject::Day { commitment: input.array("commitment")? }),
            _ => Err(Malformed { what: "kind of the subject", at: 0 }),
        }
    }
}

/// A key as a tombstone names it, with the generation that its row has since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) kind: KeyKind,
    pub(crate) scope: Scope,
    pub(crate) period: Period,
    pub(crate) version: u32,
    pub(crate) name: KeyName,
    pub(crate) generation: u64,
}

impl Taken {
    /// Whether this is about the key of a row, and no later than it: a row that was written again before a restored store was
    /// made good has a higher generation than its tombstone.
    pub(crate) fn took(&self, row: &KeyRow) -> bool {
        let generation = self.generation;
        generation <= row.generation && *self == Taken { generation, ..Self::of(row) }
    }

    /// The key of a row, as the write that takes from it leaves it.
    pub(crate) fn of(row: &KeyRow) -> Self {
        let KeyIdentity { slot, version } = &row.identity;
        Self {
            kind: slot.kind,
            scope: slot.scope.clone(),
            period: slot.period,
            version: *version,
            name: row.name,
            generation: row.generation,
        }
    }

    fn encode<'a>(&self, out: &'a mut Encoder) -> Result<&'a mut Encoder, Malformed> {
        Ok(out
            .u8(self.kind.code())
            .short(self.scope.tenant.as_str().as_bytes(), "tenant")?
            .short(self.scope.record_type.as_str().as_bytes(), "record type")?
            .short(self.period.to_string().as_bytes(), "period")?
            .u32(self.version)
            .raw(&self.name.0)
            .u64(self.generation))
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        let kind = KeyKind::from_code(input.u8("kind of key")?).ok_or_else(|| bad("kind of key"))?;
        let tenant = TenantId::stored(input.text("tenant")?).map_err(|_| bad("tenant"))?;
        let record_type = RecordType::stored(input.text("record type")?).map_err(|_| bad("record type"))?;
        Ok(Self {
            kind,
            scope: Scope { tenant, record_type },
            period: input.text("period")?.parse().map_err(|_| bad("period"))?,
            version: input.u32("version")?,
            name: KeyName(input.array("name")?),
            generation: input.u64("generation")?,
        })
    }

    /// At least so many octets.
    const BYTES_MIN: usize = 4 + 4 + 16 + 8;
}

fn encode_keys(out: &mut Encoder, keys: &[Taken]) -> Result<(), Malformed> {
    out.count(keys.len(), "keys")?;
    for key in keys {
        key.encode(out)?;
    }
    Ok(())
}

fn decode_keys(input: &mut Decoder<'_>) -> Result<Vec<Taken>, Malformed> {
    (0..input.count(Taken::BYTES_MIN, "keys")?).map(|_| Taken::decode(input)).collect()
}

/// Leaves that were taken, with what each had wrapped, and the keys from which they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Erased {
    pub(crate) leaves: Vec<(LeafNumber, Subject)>,
    pub(crate) keys: Vec<Taken>,
}

impl Said for Erased {
    const KIND: StatementKind = StatementKind::Erased;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.count(self.leaves.len(), "leaves")?;
        for (leaf, subject) in &self.leaves {
            subject.encode(out.u64(leaf.0));
        }
        encode_keys(&mut out, &self.keys)?;
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let leaves = (0..input.count(8 + 33, "leaves")?)
            .map(|_| Ok((LeafNumber(input.u64("leaf")?), Subject::decode(&mut input)?)))
            .collect::<Result<_, Malformed>>()?;
        let keys = decode_keys(&mut input)?;
        input.end("end of the tombstone")?;
        Ok(Self { leaves, keys })
    }
}

/// Why whole keys were destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Their period is over, and so is the time that records of it are kept.
    Expiry = 0x01,
    /// Somebody asked that they be shredded.
    Shredding = 0x02,
    /// Nothing is sealed under them any longer: a branch key that was replaced, a post's key of a day past.
    Disuse = 0x03,
}

impl Cause {
    /// The word for it, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Expiry => "expiry",
            Cause::Shredding => "shredding",
            Cause::Disuse => "disuse",
        }
    }
}

/// Keys that were destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destroyed {
    pub(crate) cause: Cause,
    pub(crate) keys: Vec<Taken>,
}

impl Said for Destroyed {
    const KIND: StatementKind = StatementKind::Destroyed;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.u8(self.cause as u8);
        encode_keys(&mut out, &self.keys)?;
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let code = input.u8("cause")?;
        let cause =
            [Cause::Expiry, Cause::Shredding, Cause::Disuse].into_iter().find(|cause| *cause as u8 == code);
        let cause = cause.ok_or(Malformed { what: "cause", at: 0 })?;
        let keys = decode_keys(&mut input)?;
        input.end("end of the tombstone")?;
        Ok(Self { cause, keys })
    }
}

/// The keys that a statement took something from, with the generations that they had since; none of another kind.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub(crate) fn taken_by(statement: &Statement) -> Result<Vec<(KeyName, u64)>> {
    let keys = match statement.kind {
        StatementKind::Erased => content::<Erased>(statement)?.keys,
        StatementKind::Destroyed => content::<Destroyed>(statement)?.keys,
        _ => Vec::new(),
    };
    Ok(keys.iter().map(|key| (key.name, key.generation)).collect())
}
