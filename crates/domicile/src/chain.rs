//! What an audit chain is made of: a signed beginning, and events that each carry the digest of all before.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::kms::VerifyingKey;
use crate::region::Place;
use crate::time::Time;
use crate::wire;

/// The name of a chain: 16 random octets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainId(pub [u8; 16]);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({self})")
    }
}

/// The signed entry that begins a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainBeginning {
    /// The chain's name.
    pub chain: ChainId,
    /// Where the process says it is.
    pub place: Place,
    /// When the chain began.
    pub begun: Time,
    /// Who runs the process, as it claims.
    pub actor: String,
    /// The region's signature over [`statement`](Self::statement).
    pub signature: Vec<u8>,
}

impl ChainBeginning {
    /// The bytes that are signed.
    #[must_use]
    pub fn statement(&self) -> Vec<u8> {
        wire::parts(&[
            b"domicile/v1/audit-chain",
            &self.chain.0,
            self.place.region.as_str().as_bytes(),
            self.place.jurisdiction.as_str().as_bytes(),
            &self.begun.micros().to_be_bytes(),
            self.actor.as_bytes(),
        ])
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(wire::parts(&[b"domicile/v1/audit-begin", &self.statement(), &self.signature])).into()
    }
}

/// An event as it is kept: its JSON, and the digest over it and everything before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEvent {
    /// Its place in the chain, from 1.
    pub number: u64,
    /// One JSON object.
    pub body: String,
    /// The digest of the chain up to here.
    pub digest: [u8; 32],
}

/// How far one chain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a store says of a chain, written out by each")]
pub struct ChainHead {
    /// The chain.
    pub chain: ChainId,
    /// The number of its newest event.
    pub events: u64,
    /// The digest of the chain behind that event.
    pub digest: [u8; 32],
}

/// The digest of a chain behind one more event.
pub(crate) fn digest_after(previous: &[u8; 32], number: u64, body: &str) -> [u8; 32] {
    Sha256::digest(wire::parts(&[
        b"domicile/v1/audit-event",
        previous,
        &number.to_be_bytes(),
        body.as_bytes(),
    ]))
    .into()
}

/// Checks a chain from its signed beginning to its last event.
///
/// A chain that was cut at its end still verifies; checkpoints that others hold show that.
///
/// # Errors
/// [`LedgerUnverified`](Code::LedgerUnverified) naming the first event that is not what it was.
pub fn verify_chain(beginning: &ChainBeginning, events: &[SealedEvent], key: &VerifyingKey) -> Result<()> {
    let broken = |what: String| {
        Error::new(Code::LedgerUnverified, what)
            .at(format!("audit chain {}", beginning.chain))
            .advise("the audit chain was changed behind Domicile's back: find out by whom")
    };
    key.verify(&beginning.statement(), &beginning.signature)
        .map_err(|Unverified| broken("the beginning of the chain is not what the region signed".into()))?;
    let mut digest = beginning.digest();
    for (expected, event) in (1u64..).zip(events) {
        digest = digest_after(&digest, expected, &event.body);
        if event.number != expected || event.digest != digest {
            return Err(broken(format!("event {expected} is not the one that was recorded")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn chain() -> (ChainBeginning, Vec<SealedEvent>, VerifyingKey) {
        let key = SigningKey::from_bytes(&[5; 32]);
        let mut beginning = ChainBeginning {
            chain: ChainId([1; 16]),
            place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
            begun: Time::EPOCH,
            actor: "uid:1".into(),
            signature: Vec::new(),
        };
        beginning.signature = key.sign(&beginning.statement()).to_bytes().to_vec();
        let mut digest = beginning.digest();
        let events = (1..=3)
            .map(|number| {
                let body = format!("{{\"n\":{number}}}");
                digest = digest_after(&digest, number, &body);
                SealedEvent { number, body, digest }
            })
            .collect();
        (beginning, events, VerifyingKey::Ed25519(key.verifying_key().to_bytes()))
    }

    #[test]
    fn every_change_of_a_chain_but_a_cut_at_its_end_is_noticed() {
        let (beginning, events, key) = chain();
        verify_chain(&beginning, &events, &key).unwrap();
        verify_chain(&beginning, &events[..2], &key).unwrap();
        let mut changed = events.clone();
        changed[1].body = "{\"n\":7}".into();
        assert!(verify_chain(&beginning, &changed, &key).is_err());
        let mut removed = events.clone();
        removed.remove(1);
        assert!(verify_chain(&beginning, &removed, &key).is_err());
        let mut swapped = events.clone();
        swapped.swap(0, 1);
        assert!(verify_chain(&beginning, &swapped, &key).is_err());
        let other = ChainBeginning { actor: "uid:2".into(), ..beginning };
        assert!(verify_chain(&other, &events, &key).is_err());
    }
}
