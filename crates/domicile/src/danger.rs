//! What vectors, simulations and implementations of key services need, and nobody else.
//!
//! Nothing here is reached through a flag or an environment variable: whoever uses it writes
//! `domicile::danger` into their code, and a search finds it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::engine::{ContentKey, Engine, NONCE_BYTES, Nonce, Suite, XaesKey};
use crate::error::Result;
use crate::kms::LocalKms;
use crate::random::Randomness;
use crate::region::Region;
use crate::secret::Secret;
use crate::{kdf, puncture};

/// The bytes of a secret, for an implementation of [`Kms`](crate::kms::Kms) that must wrap it.
#[must_use]
pub fn expose(secret: &Secret) -> &[u8; 32] {
    secret.expose()
}

/// A content key made from bytes, to hold engines against published vectors.
///
/// # Errors
/// [`EngineUnavailable`](crate::Code::EngineUnavailable) when the engine refuses the key.
pub fn content_key(suite: Suite, engine: Engine, key: &[u8; 32]) -> Result<ContentKey> {
    ContentKey::new(suite, engine, &Secret::copied_from(key))
}

/// A key of XAES-256-GCM made from bytes, to hold engines against published vectors.
#[must_use]
pub fn xaes_key(key: &[u8; 32]) -> XaesKey {
    XaesKey::new(&Secret::copied_from(key))
}

/// A nonce that the caller chose. Sealing twice with it under one key gives both payloads away.
#[must_use]
pub fn nonce(bytes: [u8; NONCE_BYTES]) -> Nonce {
    Nonce::fixed(bytes)
}

/// HKDF-SHA-512 as keys are derived with it, to hold it against published vectors.
pub fn hkdf_sha512<const N: usize>(input: &[u8], salt: &[u8], info: &[u8], output: &mut [u8; N]) {
    kdf::hkdf(input, salt, info, output);
}

/// HMAC-SHA-256 as the trees of tenant keys step with it, to hold it against published vectors.
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    *puncture::hmac(key, message)
}

/// A local key service whose keys and nonces come from the caller's randomness, to write vectors.
///
/// # Errors
/// As [`LocalKms::create`].
pub fn local_kms(
    region: Region,
    root: PathBuf,
    signing: PathBuf,
    randomness: Arc<dyn Randomness>,
) -> Result<LocalKms> {
    LocalKms::create_from(region, root, signing, randomness)
}

/// Randomness that repeats: SHA-256 of a seed and a counter. What it makes protects nothing.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    counter: Mutex<u64>,
}

impl SeededRandom {
    /// The stream of a seed, from its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: Mutex::new(0) }
    }
}

impl Randomness for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let mut counter = self.counter.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in bytes.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(b"domicile/seeded")
                .chain_update(self.seed.to_be_bytes())
                .chain_update(counter.to_be_bytes())
                .finalize();
            *counter += 1;
            for (to, from) in chunk.iter_mut().zip(block) {
                *to = from;
            }
        }
        Ok(())
    }
}
