//! XAES-256-GCM (C2SP) taken apart: one key, and from it a key of AES-256-GCM for each first half of a nonce.
//!
//! Whoever seals many small things under one key derives once and pays one AES-256-GCM call for each, by whichever engine;
//! what comes out is XAES-256-GCM all the same.

use std::fmt;

use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::{ContentKey, Engine, Suite};
use crate::error::Result;
use crate::secret::Secret;

/// Octets of a nonce that select a derived key: the first half of 24.
pub const SELECTOR_BYTES: usize = 12;

const BLOCK_BYTES: usize = 16;

/// A key of XAES-256-GCM.
pub struct XaesKey {
    cipher: Aes256,
    /// K1 of CMAC.
    subkey: Zeroizing<[u8; BLOCK_BYTES]>,
}

impl XaesKey {
    pub(crate) fn new(key: &Secret) -> Self {
        let cipher = Aes256::new(key.expose().into());
        let mut subkey = Zeroizing::new([0; BLOCK_BYTES]);
        cipher.encrypt_block((&mut *subkey).into());
        // Doubling in GF(2^128), without a branch on what is secret.
        let doubled = u128::from_be_bytes(*subkey);
        let doubled = (doubled << 1) ^ ((doubled >> 127) * 0x87);
        subkey.copy_from_slice(&doubled.to_be_bytes());
        Self { cipher, subkey }
    }

    /// The key of AES-256-GCM that seals under nonces which begin with `selector`: two blocks of AES in counter mode's
    /// KDF over CMAC (NIST SP 800-108), as C2SP has it.
    ///
    /// # Errors
    /// [`EngineUnavailable`](crate::Code::EngineUnavailable) when the engine refuses the key.
    pub fn derive(&self, selector: &[u8; SELECTOR_BYTES], engine: Engine) -> Result<ContentKey> {
        let key = Secret::filled_by(|key| {
            let (halves, _) = key.as_chunks_mut::<BLOCK_BYTES>();
            for (counter, half) in (1_u8..).zip(halves) {
                half.copy_from_slice(&self.block(counter, selector)[..]);
                self.cipher.encrypt_block(half.into());
            }
        });
        ContentKey::new(Suite::Aes256Gcm, engine, &key)
    }

    /// A message of CMAC's that is one whole block, joined with its subkey: what AES makes the tag of.
    fn block(&self, counter: u8, selector: &[u8; SELECTOR_BYTES]) -> Zeroizing<[u8; BLOCK_BYTES]> {
        let mut block = self.subkey.clone();
        let message = [0, counter, b'X', 0].into_iter().chain(*selector);
        block.iter_mut().zip(message).for_each(|(to, from)| *to ^= from);
        block
    }
}

impl fmt::Debug for XaesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XaesKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Nonce;
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::{Aead, Payload};

    assert_not_impl_any!(XaesKey: Clone, serde::Serialize);

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", XaesKey::new(&Secret::copied_from(&[1; 32]))), "XaesKey(secret)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_engine_seals_what_the_whole_construction_seals(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 24]>(),
            associated in prop::collection::vec(any::<u8>(), 0..80),
            plain in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let payload = Payload { msg: &plain, aad: &associated };
            let whole = Xaes256Gcm::new(&key.into()).encrypt(&nonce.into(), payload).unwrap();
            let (selector, rest) = nonce.split_at(SELECTOR_BYTES);
            for engine in Engine::available() {
                let derived = XaesKey::new(&Secret::copied_from(&key)).derive(selector.try_into().unwrap(), engine).unwrap();
                let mut sealed = plain.clone();
                let tag = derived.seal(Nonce::fixed(rest.try_into().unwrap()), &associated, &mut sealed).unwrap();
                sealed.extend_from_slice(&tag);
                prop_assert_eq!(&sealed, &whole, "{}", engine);
            }
        }
    }
}
