//! Sealing a secret to somebody who is not here: HPKE (RFC 9180), single-shot, base mode.
//!
//! One suite: the KEM X-Wing (X25519 and ML-KEM-768, 0x647a), the KDF HKDF-SHA-512 (0x0003), the AEAD AES-256-GCM
//! (0x0002). Whoever holds the public half can seal and cannot open. Base mode says nothing of who sealed: that
//! takes a signature.

use std::convert::Infallible;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha512;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::random::Randomness;
use crate::secret::Secret;
use crate::wire::{self, Malformed};

/// The suite, as it stands in formats.
pub const SUITE: u8 = 0x01;

/// The public half of a key pair: 1,216 octets.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Box<[u8; PublicKey::BYTES]>);

impl PublicKey {
    /// Octets of a public key.
    pub const BYTES: usize = 1216;

    /// The public half of the pair that `seed`, its private half, stands for.
    #[must_use]
    pub fn of(seed: &Secret) -> Self {
        let mut bytes = Box::new([0; Self::BYTES]);
        if let Ok(private) = private_key(seed) {
            XWing::sk_to_pk(&private).write_exact(&mut bytes[..]);
        }
        Self(bytes)
    }

    /// Reads a public key.
    ///
    /// # Errors
    /// What is no point or no matrix.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, Malformed> {
        let valid = <XWing as Kem>::PublicKey::from_bytes(bytes);
        valid.map_err(|_| Malformed { what: "public key", at: 0 })?;
        Ok(Self(Box::new(*bytes)))
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// What the key is called: a hash of it.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        Sha256::digest(wire::parts(&[b"domicile/v1/post-key-id", &[SUITE], &self.0[..]])).into()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", crate::hex::encode(&self.id()))
    }
}

/// A secret of 32 octets, sealed to a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encapsulation(Box<[u8; Encapsulation::BYTES]>);

impl Encapsulation {
    /// Octets of the encapsulated key (1,120), the sealed secret and its tag.
    pub const BYTES: usize = ENCAPSULATED_BYTES + 32 + 16;

    /// Seals `secret` to `key`; `info` is authenticated with it.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn seal(key: &PublicKey, info: &[u8], secret: &Secret, randomness: &dyn Randomness) -> Result<Self> {
        let failed = || Error::new(Code::PostBundle, "a secret could not be sealed to a key of the bundle");
        // Drawn before it is used: what HPKE draws from cannot fail, and what we draw from can.
        let mut drawn = Drawn { octets: Zeroizing::new([0; Drawn::OCTETS]), used: 0 };
        randomness.fill(&mut drawn.octets[..])?;
        let public = <XWing as Kem>::PublicKey::from_bytes(&key.0[..]).map_err(|_| failed())?;
        let (encapsulated, sealed) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha512, XWing>(
            &OpModeS::Base,
            &public,
            info,
            secret.expose(),
            &[],
            &mut drawn,
        )
        .map_err(|_| failed())?;
        if drawn.used != Drawn::OCTETS {
            // More than was drawn would not have been random.
            return Err(Error::new(Code::RandomUnavailable, "an encapsulation drew other than it should"));
        }
        let octets = [&encapsulated.to_bytes()[..], &sealed].concat();
        let octets: Box<[u8; Self::BYTES]> = octets.into_boxed_slice().try_into().map_err(|_| failed())?;
        Ok(Self(octets))
    }

    /// Opens it with the private half.
    ///
    /// # Errors
    /// [`Unverified`] and nothing more: another key, another info, a changed octet.
    pub fn open(&self, seed: &Secret, info: &[u8]) -> Result<Secret, Unverified> {
        let (encapsulated, sealed) = self.0.split_at(ENCAPSULATED_BYTES);
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| Unverified)?;
        let private = private_key(seed).map_err(|_| Unverified)?;
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha512, XWing>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            info,
            sealed,
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|_| Unverified)?);
        let secret: &[u8; 32] = opened.as_slice().try_into().map_err(|_| Unverified)?;
        Ok(Secret::copied_from(secret))
    }

    /// The octets, as they stand in a file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Takes octets of a file. Whether they open says only [`open`](Self::open).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self(Box::new(*bytes))
    }

    /// What a post signs of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(wire::parts(&[b"domicile/v1/post/encapsulation", &self.0[..]])).into()
    }
}

const ENCAPSULATED_BYTES: usize = 1120;

fn private_key(seed: &Secret) -> Result<<XWing as Kem>::PrivateKey, hpke::HpkeError> {
    <XWing as Kem>::PrivateKey::from_bytes(seed.expose())
}

/// Octets that were drawn before, each given once.
struct Drawn {
    octets: Zeroizing<[u8; Drawn::OCTETS]>,
    /// How many were asked for, those that are not there among them.
    used: usize,
}

impl Drawn {
    /// What an encapsulation of X-Wing draws.
    const OCTETS: usize = 64;
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut octets = [0; 4];
        self.try_fill_bytes(&mut octets)?;
        Ok(u32::from_be_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut octets = [0; 8];
        self.try_fill_bytes(&mut octets)?;
        Ok(u64::from_be_bytes(octets))
    }

    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), Infallible> {
        let end = self.used.saturating_add(room.len());
        if let Some(octets) = self.octets.get(self.used..end) {
            room.copy_from_slice(octets);
        }
        self.used = end;
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn what_is_sealed_opens_with_the_private_half_the_same_info_and_nothing_changed() {
        let (seed, secret) = (Secret::random(&OsRandom).unwrap(), Secret::random(&OsRandom).unwrap());
        let public = PublicKey::of(&seed);
        assert_eq!(PublicKey::from_bytes(public.as_bytes()).unwrap(), public);
        let sealed = Encapsulation::seal(&public, b"info", &secret, &OsRandom).unwrap();
        assert!(sealed.open(&seed, b"info").unwrap().same_as(&secret));
        assert_eq!(sealed.open(&seed, b"other").unwrap_err(), Unverified);
        let other = Secret::random(&OsRandom).unwrap();
        assert_eq!(sealed.open(&other, b"info").unwrap_err(), Unverified);
        for octet in
            (0..Encapsulation::BYTES).step_by(7).chain(Encapsulation::BYTES - 48..Encapsulation::BYTES)
        {
            let mut bad = sealed.clone();
            bad.0[octet] ^= 1;
            assert_eq!(bad.open(&seed, b"info").unwrap_err(), Unverified, "octet {octet}");
        }
    }
}
