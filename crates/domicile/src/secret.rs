//! Key material as types: no bytes in `Debug`, no clone, zeroed on drop, compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Result;
use crate::random::Randomness;

/// A 256-bit secret.
///
/// It lives in one place on the heap, so that moving it leaves no copies behind, and is zeroed when
/// dropped. Nothing outside this crate reads its bytes, except through
/// [`danger::expose`](crate::danger::expose), which an implementation of [`Kms`](crate::kms::Kms) needs.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// Fresh key material.
    ///
    /// # Errors
    /// [`RandomUnavailable`](crate::Code::RandomUnavailable) when the operating system gives none.
    pub fn random(randomness: &dyn Randomness) -> Result<Self> {
        let mut secret = Self(Box::new([0; 32]));
        randomness.fill(&mut secret.0[..])?;
        Ok(secret)
    }

    /// Fills a new secret in place, for example from a key service's answer.
    pub fn filled_by(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        fill(&mut secret.0);
        secret
    }

    /// Copies key material in; the caller wipes its own copy.
    #[must_use]
    pub fn copied_from(bytes: &[u8; 32]) -> Self {
        Self::filled_by(|secret| secret.copy_from_slice(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both hold the same bytes, in a time that does not depend on them.
    #[must_use]
    pub fn same_as(&self, other: &Secret) -> bool {
        same(&self.0[..], &other.0[..])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(secret)")
    }
}

/// Whether both slices are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    assert_not_impl_any!(Secret: Clone, Copy, std::fmt::Display, serde::Serialize, PartialEq);
    assert_impl_all!(Secret: ZeroizeOnDrop, Send, Sync);

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", Secret::copied_from(&[0xab; 32])), "Secret(secret)");
    }

    #[test]
    fn equal_secrets_are_the_same() {
        let secret = Secret::copied_from(&[7; 32]);
        assert!(secret.same_as(&Secret::copied_from(&[7; 32])));
        assert!(!secret.same_as(&Secret::copied_from(&[8; 32])));
        assert!(!same(b"abc", b"abcd"));
    }
}
