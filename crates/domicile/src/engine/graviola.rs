//! The engine `graviola`: Rust and assembly, no C, the fastest for small payloads.

use ::graviola::aead::{AesGcm, ChaCha20Poly1305};

use super::{Cipher, NONCE_BYTES, Suite, TAG_BYTES, Unverified};
use crate::error::Result;

/// Graviola panics on a processor without these, so it is not offered there.
#[cfg(target_arch = "x86_64")]
pub(super) fn runs_here() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes") && has!("pclmulqdq") && has!("bmi1") && has!("adx") && has!("avx") && has!("avx2")
}

/// Graviola panics on a processor without these, so it is not offered there.
#[cfg(target_arch = "aarch64")]
pub(super) fn runs_here() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature as the other engines")]
pub(super) fn cipher(suite: Suite, key: &[u8; 32]) -> Result<Box<dyn Cipher>> {
    Ok(match suite {
        Suite::Aes256Gcm => Box::new(Graviola(AesGcm::new(key))),
        Suite::ChaCha20Poly1305 => Box::new(Graviola(ChaCha20Poly1305::new(*key))),
    })
}

struct Graviola<A>(A);

macro_rules! cipher_over {
    ($aead:ty) => {
        impl Cipher for Graviola<$aead> {
            fn seal(
                &self,
                nonce: &[u8; NONCE_BYTES],
                associated: &[u8],
                payload: &mut [u8],
            ) -> Result<[u8; TAG_BYTES], Unverified> {
                let mut tag = [0; TAG_BYTES];
                self.0.encrypt(nonce, associated, payload, &mut tag);
                Ok(tag)
            }

            fn open(
                &self,
                nonce: &[u8; NONCE_BYTES],
                associated: &[u8],
                payload: &mut [u8],
                tag: &[u8; TAG_BYTES],
            ) -> Result<(), Unverified> {
                self.0.decrypt(nonce, associated, payload, tag).map_err(|_| Unverified)
            }
        }
    };
}

cipher_over!(AesGcm);
cipher_over!(ChaCha20Poly1305);
