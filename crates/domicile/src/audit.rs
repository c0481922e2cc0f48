//! The audit chain: what this process did with keys, in an order that cannot be changed unseen.
//!
//! One append-only chain per process, begun by an entry that the region's key signed (and another behind each
//! write of which nobody knows whether the store has it). Each event carries the digest of all before it. An
//! event is durable in the key store before the key that it speaks of is handed out. No event holds a
//! subscriber's number, or a hash of one.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::guard::Action;
use crate::hex;
use crate::kms::{Kms, VerifyingKey};
use crate::period::Period;
use crate::random::Randomness;
use crate::region::{Place, Region};
use crate::scope::Scope;
use crate::store::{KeyName, KeyStore};
use crate::time::{Clock, Time};
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

    fn digest(&self) -> [u8; 32] {
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

fn digest_after(previous: &[u8; 32], number: u64, body: &str) -> [u8; 32] {
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
/// [`KeyUnverified`](Code::KeyUnverified) naming the first event that is not what it was.
pub fn verify_chain(beginning: &ChainBeginning, events: &[SealedEvent], key: &VerifyingKey) -> Result<()> {
    let broken = |what: String| {
        Error::new(Code::KeyUnverified, what)
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

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// A home was chosen.
    Choose,
    /// A home signed a choice that was made where its key was not at hand.
    SignHome,
    /// A key was made.
    Generate,
    /// A key service unwrapped a branch key.
    Unwrap,
    /// This process used a tenant key for a purpose for the first time.
    Use,
    /// Something was opened.
    Open,
    /// A segment was closed.
    Seal,
    /// Something was refused.
    Refuse,
}

/// One event. What does not apply is left out.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    event: EventKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    record_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    outcome: &'static str,
}

impl Event {
    /// An event that went well and of which nothing else is known yet.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self {
            event: kind,
            purpose: None,
            reference: None,
            region: None,
            tenant: None,
            record_type: None,
            period: None,
            key: None,
            segment: None,
            selected: None,
            lanes: None,
            records: None,
            bytes: None,
            digest: None,
            outcome: "ok",
        }
    }

    /// For what, and with which reference.
    #[must_use]
    pub fn action(mut self, action: &Action) -> Self {
        self.purpose = Some(action.as_str());
        if let Action::Open(request) = action {
            self.reference = request.reference().map(str::to_owned);
        }
        self
    }

    /// The region whose keys or home it is about.
    #[must_use]
    pub fn region(mut self, region: &Region) -> Self {
        self.region = Some(region.clone());
        self
    }

    /// The scope.
    #[must_use]
    pub fn scope(self, scope: &Scope) -> Self {
        self.tenant_and_types(scope.tenant.as_str(), scope.record_type.as_str())
    }

    /// The tenant, and a record type or `all`.
    #[must_use]
    pub fn tenant_and_types(mut self, tenant: &str, types: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self.record_type = Some(types.to_owned());
        self
    }

    /// The period.
    #[must_use]
    pub fn period(mut self, period: Period) -> Self {
        self.period = Some(period);
        self
    }

    /// The key, by its name.
    #[must_use]
    pub fn key(mut self, name: KeyName) -> Self {
        self.key = Some(name.to_string());
        self
    }

    /// The segment, by its id.
    #[must_use]
    pub fn segment(mut self, id: &[u8]) -> Self {
        self.segment = Some(hex::encode(id));
        self
    }

    /// What was asked for of it: tenant, type, times, record numbers.
    #[must_use]
    pub fn selected(mut self, selection: String) -> Self {
        self.selected = Some(selection);
        self
    }

    /// How many lanes were written, and how many records and octets of records they hold.
    #[must_use]
    pub fn counts(mut self, lanes: u64, records: u64, bytes: u64) -> Self {
        self.lanes = Some(lanes);
        self.records = Some(records);
        self.bytes = Some(bytes);
        self
    }

    /// How many lanes were selected.
    #[must_use]
    pub fn lanes(mut self, lanes: u64) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// The digest of what was written.
    #[must_use]
    pub fn digest(mut self, digest: &[u8]) -> Self {
        self.digest = Some(hex::encode(digest));
        self
    }

    /// What came of it, if it did not go well.
    #[must_use]
    pub fn outcome(mut self, code: Code) -> Self {
        self.outcome = code.as_str();
        self
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    actor: &'a str,
    here: &'a Region,
    #[serde(flatten)]
    event: &'a Event,
}

/// The chain of this process. It begins with its first event.
#[derive(Debug)]
pub struct AuditChain {
    place: Place,
    actor: String,
    store: Arc<dyn KeyStore>,
    kms: Arc<dyn Kms>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    head: tokio::sync::Mutex<Option<Head>>,
}

#[derive(Debug)]
struct Head {
    chain: ChainId,
    number: u64,
    digest: [u8; 32],
}

impl AuditChain {
    /// The chain of a process that is at `place`, kept in that region's store and begun under its key.
    pub(crate) fn new(
        place: Place,
        actor: String,
        store: Arc<dyn KeyStore>,
        kms: Arc<dyn Kms>,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        Self { place, actor, store, kms, clock, randomness, head: tokio::sync::Mutex::new(None) }
    }

    /// Records events; they are durable when this returns.
    ///
    /// # Errors
    /// [`AuditUnavailable`](Code::AuditUnavailable): nothing was recorded, and what the events speak of
    /// must not happen.
    pub async fn record(&self, events: &[Event]) -> Result<()> {
        let mut head = self.head.lock().await;
        let unavailable = |source: Error| {
            Error::new(
                Code::AuditUnavailable,
                "the audit chain could not be made durable, so nothing was done",
            )
            .advise(
                source.advice().unwrap_or("see that the key store of this region can be written").to_owned(),
            )
            .because(source)
        };
        // The head is put back once it is known what the store holds. A write that failed, or whose caller went
        // away, may have reached the store or not: then nothing can follow it, and the next event begins
        // another chain.
        let Head { chain, mut number, mut digest } = match head.take() {
            Some(head) => head,
            None => {
                let begun = self.begin().await.map_err(unavailable)?;
                Head { chain: begun.chain, number: 0, digest: begun.digest() }
            }
        };
        let time = self.clock.now().to_string();
        let mut sealed = Vec::with_capacity(events.len());
        for event in events {
            let entry = Entry { time: time.clone(), actor: &self.actor, here: &self.place.region, event };
            let body = serde_json::to_string(&entry).map_err(|source| {
                unavailable(Error::new(Code::StoreUnavailable, "an event has no JSON").because(source))
            })?;
            number += 1;
            digest = digest_after(&digest, number, &body);
            sealed.push(SealedEvent { number, body, digest });
        }
        self.store.append_events(chain, &sealed).await.map_err(unavailable)?;
        *head = Some(Head { chain, number, digest });
        Ok(())
    }

    async fn begin(&self) -> Result<ChainBeginning> {
        let mut chain = ChainId([0; 16]);
        self.randomness.fill(&mut chain.0)?;
        let mut beginning = ChainBeginning {
            chain,
            place: self.place.clone(),
            begun: self.clock.now(),
            actor: self.actor.clone(),
            signature: Vec::new(),
        };
        beginning.signature = self.kms.sign(&beginning.statement()).await?;
        self.store.begin_chain(&beginning).await?;
        Ok(beginning)
    }
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
