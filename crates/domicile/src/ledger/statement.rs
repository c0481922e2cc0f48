//! One statement of a region, as it is signed.

use sha2::{Digest, Sha256};

use crate::region::Region;
use crate::store::LedgerEntry;
use crate::time::Time;
use crate::wire::{self, Decoder, Encoder, Malformed};

/// What a region says, with its place in the ledger: the number, and the digest of the entry before, so that
/// no entry can be taken out, exchanged or put elsewhere unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub region: Region,
    /// Its place in the region's ledger, from 1.
    pub number: u64,
    /// The digest of the entry before; zeros for the first.
    pub previous: [u8; 32],
    /// When it was said.
    pub said: Time,
    /// What it speaks of.
    pub kind: StatementKind,
    /// What it says of it, encoded as the kind has it.
    pub content: Vec<u8>,
}

/// What a statement speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StatementKind {
    /// Leaves were taken out of keys.
    Erased = 0x01,
    /// Whole keys were destroyed.
    Destroyed = 0x02,
    /// Nothing of a scope may be destroyed or erased, for a reason.
    HoldAdded = 0x03,
    /// It may be again.
    HoldReleased = 0x04,
    /// The keys of a scope are to be destroyed, and are not used until then.
    ShredAsked = 0x05,
    /// They are not to be.
    ShredCancelled = 0x06,
    /// A post may seal for scopes.
    PostEnrolled = 0x07,
    /// It may no longer.
    PostRevoked = 0x08,
    /// A bundle of public keys was given to posts.
    BundleIssued = 0x09,
    /// A post's segment was adopted.
    Adopted = 0x0a,
    /// Where records of a scope may be processed.
    PlacesSet = 0x0b,
    /// How far the audit chains have come.
    Checkpoint = 0x0c,
    /// A restored store was made good.
    Replayed = 0x0d,
    /// Keys were shredded, as it was asked.
    ShredDone = 0x0e,
}

impl StatementKind {
    /// Every kind, by its number.
    pub const ALL: [StatementKind; 14] = [
        StatementKind::Erased,
        StatementKind::Destroyed,
        StatementKind::HoldAdded,
        StatementKind::HoldReleased,
        StatementKind::ShredAsked,
        StatementKind::ShredCancelled,
        StatementKind::PostEnrolled,
        StatementKind::PostRevoked,
        StatementKind::BundleIssued,
        StatementKind::Adopted,
        StatementKind::PlacesSet,
        StatementKind::Checkpoint,
        StatementKind::Replayed,
        StatementKind::ShredDone,
    ];

    /// The name, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StatementKind::Erased => "erased",
            StatementKind::Destroyed => "destroyed",
            StatementKind::HoldAdded => "hold-added",
            StatementKind::HoldReleased => "hold-released",
            StatementKind::ShredAsked => "shred-asked",
            StatementKind::ShredCancelled => "shred-cancelled",
            StatementKind::PostEnrolled => "post-enrolled",
            StatementKind::PostRevoked => "post-revoked",
            StatementKind::BundleIssued => "bundle-issued",
            StatementKind::Adopted => "adopted",
            StatementKind::PlacesSet => "places-set",
            StatementKind::Checkpoint => "checkpoint",
            StatementKind::Replayed => "replayed",
            StatementKind::ShredDone => "shred-done",
        }
    }
}

impl Statement {
    /// The longest content, in octets.
    pub const CONTENT_MAX: usize = 1 << 20;

    const LABEL: &'static [u8] = b"domicile/v1/ledger";

    /// The octets that are signed.
    ///
    /// # Errors
    /// Content longer than [`CONTENT_MAX`](Self::CONTENT_MAX).
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        if self.content.len() > Self::CONTENT_MAX {
            return Err(Malformed { what: "more content than a statement may have", at: 0 });
        }
        let mut out = Encoder::new();
        out.short(Self::LABEL, "label")?
            .short(self.region.as_str().as_bytes(), "region")?
            .u64(self.number)
            .raw(&self.previous)
            .i64(self.said.micros())
            .u8(self.kind as u8)
            .long(&self.content, "content")?;
        Ok(out.finish())
    }

    /// Reads what was signed; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = |what| Malformed { what, at: 0 };
        if input.short("label")? != Self::LABEL {
            return Err(bad("label"));
        }
        let region = input.text("region")?.parse().map_err(|_| bad("region"))?;
        let number = input.u64("number")?;
        let previous = input.array("digest of the entry before")?;
        let said = Time::from_micros(input.i64("time")?).map_err(|_| bad("time"))?;
        let code = input.u8("kind")?;
        let kind =
            StatementKind::ALL.into_iter().find(|kind| *kind as u8 == code).ok_or_else(|| bad("kind"))?;
        let content = input.long("content")?.to_vec();
        input.end("end of the statement")?;
        Ok(Self { region, number, previous, said, kind, content })
    }
}

/// What the next entry names its predecessor by: the signature is part of it.
#[must_use]
pub fn digest(entry: &LedgerEntry) -> [u8; 32] {
    Sha256::digest(wire::parts(&[b"domicile/v1/ledger-entry", &entry.body, &entry.signature])).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_read_back_and_kinds_are_numbered_in_order() {
        for (code, kind) in (1u8..).zip(StatementKind::ALL) {
            assert_eq!(kind as u8, code);
            let statement = Statement {
                region: "eu-central-1".parse().unwrap(),
                number: 7,
                previous: [3; 32],
                said: Time::EPOCH,
                kind,
                content: vec![1, 2, 3],
            };
            assert_eq!(Statement::decode(&statement.encode().unwrap()).unwrap(), statement);
        }
    }

    proptest! {
        #[test]
        fn what_reads_writes_back_the_same(tail in prop::collection::vec(any::<u8>(), 0..120)) {
            let bytes = [&[18u8][..], Statement::LABEL, &tail].concat();
            if let Ok(statement) = Statement::decode(&bytes) {
                prop_assert_eq!(statement.encode().unwrap(), bytes);
            }
        }
    }
}
