//! Sealed records: one record or field alone, 49 octets longer than it was.

use domicile::engine::{NONCE_BYTES, SELECTOR_BYTES, TAG_BYTES};
use domicile::store::KeyHandle;
use domicile::wire::{Decoder, Fixed, Malformed, parts};
use domicile::{Region, Scope};
use sha2::{Digest, Sha256};

/// A sealed record, taken apart. Nothing in it is authenticated before it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedRecord<'a> {
    /// The day key.
    pub handle: KeyHandle,
    /// The first half of the nonce, which selects a derived key.
    pub selector: [u8; SELECTOR_BYTES],
    /// The second half: the derived key's nonce.
    pub nonce: [u8; NONCE_BYTES],
    /// As long as the record.
    pub ciphertext: &'a [u8],
    /// Over the record and what it is bound to.
    pub tag: [u8; TAG_BYTES],
}

impl<'a> SealedRecord<'a> {
    /// The version and suite that this build writes and reads: XAES-256-GCM.
    pub const VERSION: u8 = 0x01;
    /// Octets before the ciphertext.
    pub const HEADER_BYTES: usize = 33;
    /// Octets of a sealed record beside the record.
    pub const OVERHEAD_BYTES: usize = Self::HEADER_BYTES + TAG_BYTES;
    /// The longest record.
    pub const RECORD_BYTES_MAX: usize = 16 << 20;
    /// The longest id of a row.
    pub const ROW_ID_BYTES_MAX: usize = 128;

    /// Reads a sealed record. There is one way to write each, and no octet is left over.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        if input.u8("version")? != Self::VERSION {
            return Err(Malformed { what: "version", at: 0 });
        }
        let handle = KeyHandle(input.array("key handle")?);
        let (selector, nonce) = (input.array("nonce")?, input.array("nonce")?);
        let length = input.remaining().checked_sub(TAG_BYTES).ok_or_else(|| input.malformed("tag"))?;
        if length > Self::RECORD_BYTES_MAX {
            return Err(input.malformed("length of the record"));
        }
        let ciphertext = input.raw(length, "ciphertext")?;
        Ok(Self { handle, selector, nonce, ciphertext, tag: input.array("tag")? })
    }

    /// The octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.ciphertext.len() + Self::OVERHEAD_BYTES);
        out.extend_from_slice(&self.prefix().finish());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(self.ciphertext);
        out.extend_from_slice(&self.tag);
        out
    }

    fn prefix(&self) -> Fixed<{ PREFIX_BYTES }> {
        prefix(self.handle, &self.selector)
    }
}

/// Octets that all records share which were sealed under one derived key.
pub(crate) const PREFIX_BYTES: usize = 1 + 8 + SELECTOR_BYTES;

/// What stands before the nonce's second half.
pub(crate) fn prefix(handle: KeyHandle, selector: &[u8; SELECTOR_BYTES]) -> Fixed<PREFIX_BYTES> {
    let mut prefix = Fixed::new();
    prefix.u8(SealedRecord::VERSION).raw(&handle.0).raw(selector);
    prefix
}

/// What every record of one column is bound to: version, region, scope and the caller's fixed context, hashed.
#[must_use]
pub fn binding(region: &Region, scope: &Scope, context: &[String]) -> [u8; 32] {
    let mut list: Vec<&[u8]> = vec![
        b"domicile/v1/sealed-record",
        &[SealedRecord::VERSION],
        region.as_str().as_bytes(),
        scope.tenant.as_str().as_bytes(),
        scope.record_type.as_str().as_bytes(),
    ];
    list.extend(context.iter().map(String::as_bytes));
    Sha256::digest(parts(&list)).into()
}

/// What is authenticated with a record: the key handle, what its column is bound to, and the id of its row, which ends it.
/// Made once for many rows.
#[derive(Debug)]
pub(crate) struct Associated {
    octets: [u8; Self::ROW_ID_AT + SealedRecord::ROW_ID_BYTES_MAX],
}

impl Associated {
    const ROW_ID_AT: usize = 8 + 32;

    /// Of no row yet.
    pub(crate) fn of(handle: KeyHandle, binding: &[u8; 32]) -> Self {
        let mut octets = Fixed::new();
        octets.raw(&handle.0).raw(binding);
        Self { octets: octets.finish() }
    }

    /// Of a row; none for an id that is empty or longer than [`SealedRecord::ROW_ID_BYTES_MAX`].
    pub(crate) fn with(&mut self, row_id: &[u8]) -> Option<&[u8]> {
        let end = Self::ROW_ID_AT + row_id.len();
        self.octets.get_mut(Self::ROW_ID_AT..end).filter(|room| !room.is_empty())?.copy_from_slice(row_id);
        self.octets.get(..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_reads_writes_back_the_same(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = SealedRecord::VERSION;
            }
            match SealedRecord::decode(&bytes) {
                Ok(record) => prop_assert_eq!(record.encode(), bytes),
                Err(_) => prop_assert!(bytes.len() < SealedRecord::OVERHEAD_BYTES),
            }
        }
    }

    #[test]
    fn other_versions_and_records_past_the_limit_are_refused() {
        let mut bytes = vec![0; SealedRecord::OVERHEAD_BYTES + SealedRecord::RECORD_BYTES_MAX];
        for version in [0, 2, 0xff] {
            bytes[0] = version;
            assert_eq!(SealedRecord::decode(&bytes).unwrap_err().what, "version");
        }
        bytes[0] = SealedRecord::VERSION;
        assert_eq!(SealedRecord::decode(&bytes).unwrap().ciphertext.len(), SealedRecord::RECORD_BYTES_MAX);
        bytes.push(0);
        assert_eq!(SealedRecord::decode(&bytes).unwrap_err().what, "length of the record");
    }

    #[test]
    fn what_is_authenticated_ends_with_the_id_of_the_row_and_keeps_nothing_of_the_one_before() {
        let mut associated = Associated::of(KeyHandle([1; 8]), &[2; 32]);
        for id in [&[9; 128][..], b"a", &[8; 8]] {
            assert_eq!(associated.with(id).unwrap(), [&[1; 8][..], &[2; 32], id].concat());
        }
        assert!(associated.with(&[]).is_none() && associated.with(&[9; 129]).is_none());
    }

    #[test]
    fn every_column_of_every_scope_and_region_is_bound_to_something_else() {
        let scope = |tenant: &str, record_type: &str| Scope {
            tenant: tenant.parse().unwrap(),
            record_type: record_type.parse().unwrap(),
        };
        let of = |region: &str, scope: &Scope, context: &[&str]| {
            let context: Vec<_> = context.iter().map(|part| (*part).to_owned()).collect();
            binding(&region.parse().unwrap(), scope, &context)
        };
        let all = [
            of("eu-central-1", &scope("acme", "voice"), &["calls", "detail"]),
            of("eu-west-1", &scope("acme", "voice"), &["calls", "detail"]),
            of("eu-central-1", &scope("acm", "voice"), &["calls", "detail"]),
            of("eu-central-1", &scope("acme", "fax"), &["calls", "detail"]),
            of("eu-central-1", &scope("acme", "voice"), &["call", "sdetail"]),
            of("eu-central-1", &scope("acme", "voice"), &["callsdetail"]),
            of("eu-central-1", &scope("acme", "voice"), &["calls"]),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }
}
