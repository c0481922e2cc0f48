//! AEADs from several libraries behind one small type.
//!
//! All of them give identical bytes, which tests hold them to on published vectors and at random; which
//! is fastest depends on the machine, so one is chosen at run time, for bulk and for records apart
//! ([`Engines`]), and the choice is always shown.
//!
//! No caller ever picks a nonce: a [`Nonce`] comes from the operating system, is spent by sealing and
//! cannot be copied. Keys are made by the [hierarchy](crate::keyring) alone.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod choice;
#[cfg(feature = "graviola")]
mod graviola;
#[cfg(feature = "ring")]
mod ring;
mod rustcrypto;
mod xaes;

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroize;

pub use choice::Engines;
pub use xaes::{SELECTOR_BYTES, XaesKey};

use crate::error::{Code, Error, Result};
use crate::random::Randomness;
use crate::secret::Secret;

/// Octets of a tag.
pub const TAG_BYTES: usize = 16;
/// Octets of a nonce.
pub const NONCE_BYTES: usize = 12;

/// What a key is for: an AEAD and the KDF that makes its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D) with HKDF-SHA-512.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439) with HKDF-SHA-512.
    ChaCha20Poly1305,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    /// The number of the suite, as it stands in formats.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Suite::Aes256Gcm => 0x0001,
            Suite::ChaCha20Poly1305 => 0x0002,
        }
    }

    /// The suite with this number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    /// The usual name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Suite::Aes256Gcm => "AES-256-GCM",
            Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A library that implements the suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// RustCrypto: pure Rust, always there, the oracle of the tests.
    RustCrypto,
    /// ring. Its keys are not wiped from memory when dropped.
    #[cfg(feature = "ring")]
    Ring,
    /// AWS-LC through aws-lc-rs.
    #[cfg(feature = "aws-lc-rs")]
    AwsLcRs,
    /// Graviola: young; Rust and assembly, no C.
    #[cfg(feature = "graviola")]
    Graviola,
}

impl Engine {
    /// The engines of this build that run on this processor.
    #[must_use]
    pub fn available() -> Vec<Engine> {
        [
            Some(Engine::RustCrypto),
            #[cfg(feature = "ring")]
            Some(Engine::Ring),
            #[cfg(feature = "aws-lc-rs")]
            Some(Engine::AwsLcRs),
            #[cfg(feature = "graviola")]
            self::graviola::runs_here().then_some(Engine::Graviola),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The name, as it is configured and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::RustCrypto => "rustcrypto",
            #[cfg(feature = "ring")]
            Engine::Ring => "ring",
            #[cfg(feature = "aws-lc-rs")]
            Engine::AwsLcRs => "aws-lc-rs",
            #[cfg(feature = "graviola")]
            Engine::Graviola => "graviola",
        }
    }

    fn cipher(self, suite: Suite, key: &[u8; 32]) -> Result<Box<dyn Cipher>> {
        match self {
            Engine::RustCrypto => Ok(rustcrypto::cipher(suite, key)),
            #[cfg(feature = "ring")]
            Engine::Ring => self::ring::cipher(suite, key),
            #[cfg(feature = "aws-lc-rs")]
            Engine::AwsLcRs => aws_lc::cipher(suite, key),
            #[cfg(feature = "graviola")]
            Engine::Graviola => self::graviola::cipher(suite, key),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|engine| engine.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|engine| engine.as_str()).collect();
            Error::new(Code::EngineUnavailable, format!("no engine {text:?} runs here"))
                .rule(format!("this build and processor have {}", names.join(", ")))
                .advise("choose one of these, or `auto`")
        })
    }
}

/// What a library gives for one key. Payloads are at most 16 MiB, far below any suite's limit.
trait Cipher: Send + Sync {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        payload: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Unverified>;

    /// On failure `payload` holds anything at all: the caller wipes it.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        payload: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unverified>;

    /// Reads something of its memory that is no secret, if it can.
    fn touch(&self) -> usize {
        0
    }
}

/// A tag does not match. Nothing more is known, on purpose: wrong key, changed byte and wrong context
/// give the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unverified;

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag does not match")
    }
}

impl std::error::Error for Unverified {}

/// Twelve octets for one sealing: drawn from the operating system, spent by value.
///
/// Uniqueness rests on no state, over every crash, restore, fork and snapshot: two of N nonces under one
/// key are equal with probability N^2/2^97, which is 2^-49 at the 2^24 blocks that a lane can have.
#[derive(Debug)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// The octets, as they are written beside what they seal.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }

    pub(crate) fn fixed(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }
}

/// The nonces of one pass: drawn in one call, dropped when the pass ends, never kept for another.
#[derive(Debug)]
pub struct Nonces {
    bytes: Vec<u8>,
}

impl Nonces {
    /// Draws `count` nonces in one call.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable) when the operating system gives none.
    pub fn draw(randomness: &dyn Randomness, count: usize) -> Result<Self> {
        let mut bytes = vec![0; count * NONCE_BYTES];
        randomness.fill(&mut bytes)?;
        Ok(Self { bytes })
    }

    /// Draws one.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable) when the operating system gives none.
    pub fn one(randomness: &dyn Randomness) -> Result<Nonce> {
        let mut bytes = [0; NONCE_BYTES];
        randomness.fill(&mut bytes)?;
        Ok(Nonce(bytes))
    }
}

impl Iterator for Nonces {
    type Item = Nonce;

    fn next(&mut self) -> Option<Nonce> {
        let start = self.bytes.len().checked_sub(NONCE_BYTES)?;
        let nonce = self.bytes.get(start..)?.try_into().ok()?;
        self.bytes.truncate(start);
        Some(Nonce(nonce))
    }
}

/// A key that seals and opens blocks of data.
pub struct ContentKey {
    cipher: Box<dyn Cipher>,
}

impl ContentKey {
    pub(crate) fn new(suite: Suite, engine: Engine, key: &Secret) -> Result<Self> {
        Ok(Self { cipher: engine.cipher(suite, key.expose())? })
    }

    /// Encrypts `payload` in place and returns the tag over it and `associated`. Spends the nonce.
    ///
    /// # Errors
    /// [`BlockUnverified`](Code::BlockUnverified) if the engine refuses, which none does below 16 MiB;
    /// `payload` is then wiped.
    #[expect(clippy::needless_pass_by_value, reason = "a nonce is spent by value")]
    pub fn seal(&self, nonce: Nonce, associated: &[u8], payload: &mut [u8]) -> Result<[u8; TAG_BYTES]> {
        let Nonce(bytes) = nonce;
        self.cipher.seal(&bytes, associated, payload).map_err(|Unverified| {
            payload.zeroize();
            Error::new(Code::BlockUnverified, "the engine refused to seal")
        })
    }

    /// Decrypts `payload` in place if `tag` matches it and `associated`.
    ///
    /// # Errors
    /// [`Unverified`] if it does not: `payload` is wiped, and nothing of it or of `associated` may be
    /// believed.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        payload: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unverified> {
        self.cipher.open(nonce, associated, payload, tag).inspect_err(|Unverified| payload.zeroize())
    }

    /// Reads something of the key's memory that is no secret, so that sealing or opening next finds it near: of several keys that are
    /// touched one after another, the waits for memory overlap. What it returns says nothing.
    #[must_use]
    pub fn touch(&self) -> usize {
        self.cipher.touch()
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;
    use proptest::prelude::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(ContentKey: Clone, serde::Serialize);
    assert_not_impl_any!(Nonce: Clone, Copy);

    /// Every engine of this build, for one suite and key.
    fn keys(suite: Suite, key: &[u8; 32]) -> Vec<(Engine, ContentKey)> {
        let key = Secret::copied_from(key);
        Engine::available()
            .into_iter()
            .map(|engine| (engine, ContentKey::new(suite, engine, &key).unwrap()))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_engines_give_and_take_the_same_bytes(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            associated in prop::collection::vec(any::<u8>(), 0..80),
            plain in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            for suite in Suite::ALL {
                let keys = keys(suite, &key);
                let sealed: Vec<_> = keys.iter().map(|(engine, key)| {
                    let mut payload = plain.clone();
                    let tag = key.seal(Nonce::fixed(nonce), &associated, &mut payload).unwrap();
                    (*engine, payload, tag)
                }).collect();
                for (engine, payload, tag) in &sealed {
                    prop_assert_eq!((payload, tag), (&sealed[0].1, &sealed[0].2), "{} {}", suite, engine);
                    for (opener, key) in &keys {
                        let mut opened = payload.clone();
                        prop_assert_eq!(key.open(&nonce, &associated, &mut opened, tag), Ok(()), "{} {}", suite, opener);
                        prop_assert_eq!(&opened, &plain);
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_verify_is_wiped() {
        for suite in Suite::ALL {
            for (engine, key) in keys(suite, &[1; 32]) {
                let mut payload = *b"+15555550100";
                let mut tag = key.seal(Nonce::fixed([2; 12]), b"here", &mut payload).unwrap();
                let mut elsewhere = payload;
                assert_eq!(
                    key.open(&[2; 12], b"there", &mut elsewhere, &tag),
                    Err(Unverified),
                    "{suite} {engine}"
                );
                assert_eq!(elsewhere, [0; 12], "{suite} {engine}");
                tag[15] ^= 1;
                assert_eq!(
                    key.open(&[2; 12], b"here", &mut payload, &tag),
                    Err(Unverified),
                    "{suite} {engine}"
                );
                assert_eq!(payload, [0; 12], "{suite} {engine}");
            }
        }
    }

    #[test]
    fn a_pass_has_as_many_nonces_as_were_drawn() {
        let nonces: Vec<_> = Nonces::draw(&OsRandom, 100).unwrap().map(|nonce| *nonce.as_bytes()).collect();
        assert_eq!(nonces.len(), 100);
        let distinct: std::collections::HashSet<_> = nonces.iter().collect();
        assert_eq!(distinct.len(), 100);
    }
}
