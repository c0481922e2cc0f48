//! Data keys: what seals a lane.

use std::fmt;

use crate::engine::{ContentKey, Engine, Suite};
use crate::error::Result;
use crate::kdf;
use crate::random::Randomness;
use crate::secret::Secret;

/// A random 256-bit key that seals data, wrapped by a leaf. Its bytes are never seen.
pub struct DataKey(Secret);

impl DataKey {
    /// A fresh data key.
    ///
    /// # Errors
    /// [`RandomUnavailable`](crate::Code::RandomUnavailable).
    pub fn random(randomness: &dyn Randomness) -> Result<Self> {
        Secret::random(randomness).map(Self)
    }

    pub(crate) fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    /// Derives the key that seals content, and the commitment to it: HKDF-SHA-512 with `salt`, and with
    /// `info` as a list of parts.
    ///
    /// The commitment is compared (in constant time) before anything is opened: AES-GCM and
    /// ChaCha20-Poly1305 alone would let one ciphertext open under two keys.
    ///
    /// # Errors
    /// [`EngineUnavailable`](crate::Code::EngineUnavailable) when the engine refuses the key.
    pub fn content_key(
        &self,
        suite: Suite,
        engine: Engine,
        salt: &[u8; 32],
        info: &[&[u8]],
    ) -> Result<(ContentKey, [u8; 32])> {
        let (key, commitment) = kdf::derive_committed(&self.0, salt, info);
        Ok((ContentKey::new(suite, engine, &key)?, commitment))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(DataKey: Clone, Copy, fmt::Display, serde::Serialize);

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", DataKey::random(&OsRandom).unwrap()), "DataKey(secret)");
    }
}
