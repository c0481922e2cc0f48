//! The engine `ring`.

use ::ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{Cipher, NONCE_BYTES, Suite, TAG_BYTES, Unverified};
use crate::error::{Code, Error, Result};

pub(super) fn cipher(suite: Suite, key: &[u8; 32]) -> Result<Box<dyn Cipher>> {
    let algorithm = match suite {
        Suite::Aes256Gcm => &AES_256_GCM,
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    let key = UnboundKey::new(algorithm, key)
        .map_err(|_| Error::new(Code::EngineUnavailable, "the engine refused a key"))?;
    Ok(Box::new(Ring(LessSafeKey::new(key))))
}

struct Ring(LessSafeKey);

impl Cipher for Ring {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        payload: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Unverified> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(associated), payload)
            .map_err(|_| Unverified)?;
        tag.as_ref().try_into().map_err(|_| Unverified)
    }

    fn touch(&self) -> usize {
        std::ptr::from_ref(self.0.algorithm()).addr()
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        payload: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unverified> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(associated), (*tag).into(), payload, 0..)
            .map(|_| ())
            .map_err(|_| Unverified)
    }
}
