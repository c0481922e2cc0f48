//! Wrapped data keys, as they stand in files.

use crate::engine::{NONCE_BYTES, TAG_BYTES};
use crate::puncture::LeafNumber;
use crate::store::KeyName;
use crate::wire::{self, Decoder, Encoder, Malformed};

/// What a wrapped data key seals. A wrap of one kind never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WrapKind {
    /// A lane of a segment.
    Lane,
    /// A scope's sealed records of a day.
    Day,
}

impl WrapKind {
    const VERSION: u8 = 0x01;

    /// How a wrap of this kind begins.
    fn begin_wrap(self) -> Encoder {
        let mut out = Encoder::new();
        out.u8(Self::VERSION).u8(self.code());
        out
    }

    /// What stands behind the beginning of a wrap that must be of this kind.
    fn read_wrap(self, bytes: &[u8]) -> Result<Decoder<'_>, Malformed> {
        let mut input = Decoder::new(bytes);
        if input.u8("version of the wrapped key")? != Self::VERSION {
            return Err(Malformed { what: "version of the wrapped key", at: 0 });
        }
        if input.u8("kind")? != self.code() {
            return Err(Malformed { what: "kind", at: 1 });
        }
        Ok(input)
    }

    /// The number, as it stands in formats.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            WrapKind::Lane => 0x01,
            WrapKind::Day => 0x02,
        }
    }
}

/// Whom a data key belongs to: what is authenticated with its wrap, its kind first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    kind: WrapKind,
    associated: Vec<u8>,
}

impl Owner {
    /// The owner of this kind that `parts` describe, encoded so that no two lists are alike.
    #[must_use]
    pub fn new(kind: WrapKind, parts: &[&[u8]]) -> Self {
        let kind_code = [kind.code()];
        let mut list: Vec<&[u8]> = vec![b"domicile/v1/wrapped-key", &kind_code];
        list.extend_from_slice(parts);
        Self { kind, associated: wire::parts(&list) }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> WrapKind {
        self.kind
    }

    /// What is authenticated.
    #[must_use]
    pub fn associated(&self) -> &[u8] {
        &self.associated
    }
}

/// A leaf of a tenant key, by the names of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafRef {
    /// The tenant key.
    pub key: KeyName,
    /// The leaf of its tree.
    pub leaf: LeafNumber,
}

impl LeafRef {
    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.key.0).u64(self.leaf.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self { key: KeyName(input.array("key name")?), leaf: LeafNumber(input.u64("leaf")?) })
    }
}

/// An encrypted data key, and what is needed to unwrap it. 110 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// What the data key seals.
    pub kind: WrapKind,
    /// The leaf of the scope's tenant key; a data key keeps it in every later wrap.
    pub tenant: LeafRef,
    /// The leaf of the region's own key that the whole segment shares.
    pub segment: LeafRef,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// The data key, encrypted.
    pub sealed: [u8; 32],
    /// Over the data key and its owner.
    pub tag: [u8; TAG_BYTES],
}

impl WrappedKey {
    /// Octets of an encoded wrapped key.
    pub const BYTES: usize = 110;

    /// The octets, as they stand in a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.kind.begin_wrap();
        self.tenant.encode(&mut out);
        self.segment.encode(&mut out);
        out.raw(&self.nonce).raw(&self.sealed).raw(&self.tag);
        out.finish()
    }

    /// Reads a wrapped key; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = WrapKind::Lane.read_wrap(bytes)?;
        let (tenant, segment) = (LeafRef::decode(&mut input)?, LeafRef::decode(&mut input)?);
        let wrapped = Self {
            kind: WrapKind::Lane,
            tenant,
            segment,
            nonce: input.array("nonce")?,
            sealed: input.array("sealed key")?,
            tag: input.array("tag")?,
        };
        input.end("end of the wrapped key")?;
        Ok(wrapped)
    }
}

/// An encrypted day key, as it stands in its row. 86 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedDayKey {
    /// The leaf of the scope's tenant key.
    pub leaf: LeafRef,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// The key, encrypted.
    pub sealed: [u8; 32],
    /// Over the key and its row.
    pub tag: [u8; TAG_BYTES],
}

impl WrappedDayKey {
    /// Octets of an encoded wrapped day key.
    pub const BYTES: usize = 86;

    /// The octets, as they stand in a row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = WrapKind::Day.begin_wrap();
        self.leaf.encode(&mut out);
        out.raw(&self.nonce).raw(&self.sealed).raw(&self.tag);
        out.finish()
    }

    /// Reads a wrapped day key; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = WrapKind::Day.read_wrap(bytes)?;
        let wrapped = Self {
            leaf: LeafRef::decode(&mut input)?,
            nonce: input.array("nonce")?,
            sealed: input.array("sealed key")?,
            tag: input.array("tag")?,
        };
        input.end("end of the wrapped key")?;
        Ok(wrapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_reads_writes_back_the_same(bytes in prop::collection::vec(any::<u8>(), 100..120)) {
            let mut bytes = bytes;
            bytes[0] = WrapKind::VERSION;
            bytes[1] = WrapKind::Lane.code();
            match WrappedKey::decode(&bytes) {
                Ok(wrapped) => prop_assert_eq!(wrapped.encode(), bytes),
                Err(_) => prop_assert_ne!(bytes.len(), WrappedKey::BYTES),
            }
        }

        #[test]
        fn a_day_key_reads_and_writes_back_the_same_and_is_no_lanes(bytes in prop::collection::vec(any::<u8>(), 80..120)) {
            let mut bytes = bytes;
            bytes[0] = WrapKind::VERSION;
            bytes[1] = WrapKind::Day.code();
            prop_assert!(WrappedKey::decode(&bytes).is_err());
            match WrappedDayKey::decode(&bytes) {
                Ok(wrapped) => {
                    #[cfg(feature = "sqlite")]
                    prop_assert_eq!(&bytes[crate::store::KeyRow::DAY_PARENT_AT..][..16], &wrapped.leaf.key.0);
                    prop_assert_eq!(wrapped.encode(), bytes);
                }
                Err(_) => prop_assert_ne!(bytes.len(), WrappedDayKey::BYTES),
            }
        }
    }
}
