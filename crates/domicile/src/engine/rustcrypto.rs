//! The engine that is always there: RustCrypto's `aes-gcm` and `chacha20poly1305`.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use super::{Cipher, NONCE_BYTES, Suite, TAG_BYTES, Unverified};

pub(super) fn cipher(suite: Suite, key: &[u8; 32]) -> Box<dyn Cipher> {
    match suite {
        Suite::Aes256Gcm => Box::new(RustCrypto(Aes256Gcm::new(key.into()))),
        Suite::ChaCha20Poly1305 => Box::new(RustCrypto(ChaCha20Poly1305::new(key.into()))),
    }
}

struct RustCrypto<A>(A);

macro_rules! cipher_over {
    ($aead:ty) => {
        impl Cipher for RustCrypto<$aead> {
            fn seal(
                &self,
                nonce: &[u8; NONCE_BYTES],
                associated: &[u8],
                payload: &mut [u8],
            ) -> Result<[u8; TAG_BYTES], Unverified> {
                let tag = self.0.encrypt_inout_detached(nonce.into(), associated, payload.into());
                tag.map(Into::into).map_err(|_| Unverified)
            }

            fn open(
                &self,
                nonce: &[u8; NONCE_BYTES],
                associated: &[u8],
                payload: &mut [u8],
                tag: &[u8; TAG_BYTES],
            ) -> Result<(), Unverified> {
                self.0
                    .decrypt_inout_detached(nonce.into(), associated, payload.into(), tag.into())
                    .map_err(|_| Unverified)
            }
        }
    };
}

cipher_over!(Aes256Gcm);
cipher_over!(ChaCha20Poly1305);
