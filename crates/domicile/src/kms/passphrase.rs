//! A passphrase over a root-key file.

use std::path::PathBuf;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credential::Place;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::kdf;
use crate::random::Randomness;
use crate::region::Region;
use crate::secret::{Secret, same};

const KEY_LABEL: &[u8] = b"domicile/v1/passphrase";

/// Where a passphrase comes from. Never from an argument: those show in the list of processes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PassphraseSource {
    /// A file that only its owner can read; one newline at its end is no part of the passphrase.
    File(PathBuf),
    /// An environment variable: whoever may read this process's environment has it.
    Env(String),
}

impl PassphraseSource {
    /// The passphrase: 1 to 1,024 octets, taken as they are.
    fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            PassphraseSource::File(path) => Place::File(path),
            PassphraseSource::Env(name) => Place::Env(name),
        }
        .read("passphrase")
    }
}

/// What guessing at a passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB: 8 MiB to 1 GiB.
    pub memory_kib: u32,
    /// Passes over it: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 8.
    pub lanes: u32,
}

impl Default for PassphraseCost {
    /// The second choice of RFC 9106: 64 MiB, three passes, four lanes.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl PassphraseCost {
    /// Whether it is neither so low that it protects nothing, nor so high that a file could exhaust the host (KEY-23).
    pub(super) fn is_bounded(self) -> bool {
        (8 * 1024..=1024 * 1024).contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=8).contains(&self.lanes)
    }
}

/// What stands in a file of the passphrase over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) cost: PassphraseCost,
    pub(super) salt: [u8; 16],
    pub(super) commitment: [u8; 32],
}

impl Lock {
    /// A lock for a new passphrase, and its key.
    pub(super) fn new(
        region: &Region,
        source: &PassphraseSource,
        cost: PassphraseCost,
        randomness: &dyn Randomness,
    ) -> Result<(Self, Secret)> {
        if !cost.is_bounded() {
            return Err(Error::new(Code::ArgumentInvalid, "this is no cost for a passphrase")
                .rule("8 MiB to 1 GiB of memory, 1 to 16 passes, 1 to 8 lanes"));
        }
        let mut salt = [0; 16];
        randomness.fill(&mut salt)?;
        let (key, commitment) = derive(region, &source.read()?, &salt, cost)?;
        Ok((Self { cost, salt, commitment }, key))
    }

    /// The key, if it is the right passphrase.
    pub(super) fn open(&self, region: &Region, source: &PassphraseSource) -> Result<Secret> {
        let (key, commitment) = derive(region, &source.read()?, &self.salt, self.cost)?;
        if !same(&commitment, &self.commitment) {
            return Err(Error::new(Code::KmsDenied, "the passphrase does not open the root-key file")
                .advise("use the passphrase of this region, or restore the file if somebody changed it"));
        }
        Ok(key)
    }

    /// The three lines of a file.
    pub(super) fn lines(&self) -> String {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        let (salt, commitment) = (hex::encode(&self.salt), hex::encode(&self.commitment));
        format!("passphrase argon2id {memory_kib} {passes} {lanes}\nsalt {salt}\ncommitment {commitment}\n")
    }

    /// Reads them back. Parameters out of bounds are refused before anything is computed with them.
    pub(super) fn parse(cost: &str, salt: &str, commitment: &str) -> Option<Self> {
        let mut numbers = cost.strip_prefix("argon2id ")?.split(' ');
        let mut number = || {
            let text = numbers.next()?;
            let number: u32 = text.parse().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let cost = PassphraseCost { memory_kib: number()?, passes: number()?, lanes: number()? };
        if numbers.next().is_some() || !cost.is_bounded() {
            return None;
        }
        Some(Self { cost, salt: hex::decode(salt)?, commitment: hex::decode(commitment)? })
    }
}

/// The key under a passphrase, and the commitment to it and to all that it depends on.
fn derive(
    region: &Region,
    passphrase: &[u8],
    salt: &[u8; 16],
    cost: PassphraseCost,
) -> Result<(Secret, [u8; 32])> {
    let PassphraseCost { memory_kib, passes, lanes } = cost;
    let failed = |source: argon2::Error| {
        Error::new(Code::KmsUnavailable, "no key could be made of a passphrase")
            .advise(format!("see that {memory_kib} KiB of memory can be had"))
            .because(source.to_string())
    };
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
    // Ours, so that it is wiped: its last blocks are all that the key depends on.
    let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut result = Ok(());
    let stretched = Secret::filled_by(|key| {
        result = argon2.hash_password_into_with_memory(passphrase, salt, key, &mut memory[..]);
    });
    result.map_err(failed)?;
    let info = [
        KEY_LABEL,
        region.as_str().as_bytes(),
        &memory_kib.to_be_bytes(),
        &passes.to_be_bytes(),
        &lanes.to_be_bytes(),
    ];
    Ok(kdf::derive_committed(&stretched, salt, &info))
}
