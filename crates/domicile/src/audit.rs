//! The audit chain: what this process did with keys, in an order that cannot be changed unseen.
//!
//! One append-only chain per process, begun by an entry that the region's key signed (and another behind each
//! write of which nobody knows whether the store has it). Each event carries the digest of all before it. An
//! event is durable in the key store before the key that it speaks of is handed out. No event holds a
//! subscriber's number, or a hash of one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::chain::digest_after;
pub use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent, verify_chain};
use crate::error::{Code, Error, Result};
use crate::guard::Action;
use crate::hex;
use crate::kms::Kms;
use crate::observe;
use crate::period::Period;
use crate::random::Randomness;
use crate::region::{Place, Region};
use crate::scope::Scope;
use crate::store::{KeyName, KeyStore};
use crate::time::{Clock, Time};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// A home was chosen: recorded before it is written.
    Choose,
    /// A home signed a choice that was made where its key was not at hand.
    SignHome,
    /// A key was made: recorded before it is written. Where another process was faster, it was never used.
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
    /// Leaves are taken out of keys: recorded before it is done; the ledger has the tombstone.
    Erase,
    /// Keys are destroyed: recorded before it is done; the ledger has the tombstone.
    Destroy,
    /// A key is followed by a new version, or wrapped anew: recorded before it is done.
    Rotate,
    /// A hold was added or released, or a shredding asked for or taken back.
    Order,
    /// A restored store is made good.
    Replay,
    /// A post was enrolled: recorded before it is said.
    Enrol,
    /// A post was revoked: recorded before it is said.
    Revoke,
    /// A bundle for posts was signed: recorded before it is handed out.
    Issue,
    /// A post's segment was adopted: recorded before it is said.
    Adopt,
    /// What a crash left of a segment was closed.
    Recover,
    /// Records of other times than the present are sealed, as somebody asked for.
    Backfill,
    /// A checkpoint is said: recorded before, so that this process's own chain is in it.
    Checkpoint,
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
    post: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaves: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
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
            post: None,
            segment: None,
            selected: None,
            lanes: None,
            records: None,
            bytes: None,
            digest: None,
            keys: None,
            leaves: None,
            what: None,
            outcome: "ok",
        }
    }

    /// For what, and with which reference.
    #[must_use]
    pub fn action(mut self, action: &Action) -> Self {
        self.purpose = Some(action.as_str());
        if let Action::Open(request) | Action::Manage(request) = action {
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

    /// The post.
    #[must_use]
    pub fn post(mut self, post: &str) -> Self {
        self.post = Some(post.to_owned());
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

    /// How many keys were changed, and how many leaves taken out of them.
    #[must_use]
    pub fn changed(mut self, keys: usize, leaves: usize) -> Self {
        self.keys = Some(keys as u64);
        self.leaves = (leaves > 0).then_some(leaves as u64);
        self
    }

    /// What of several things was done.
    #[must_use]
    pub fn what(mut self, what: &'static str) -> Self {
        self.what = Some(what);
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
    state: tokio::sync::Mutex<State>,
    /// What waits for whoever writes next.
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    /// What could not be written when it happened, with when that was.
    kept: Vec<(Time, Event)>,
}

/// The events of one caller, and where it is told what came of them.
#[derive(Debug)]
struct Waiting {
    events: Vec<Event>,
    told: oneshot::Sender<Result<(), Arc<Error>>>,
}

/// The error itself, or one like it where several were told.
fn told(error: Arc<Error>) -> Error {
    Arc::try_unwrap(error).unwrap_or_else(|shared| shared.again().because(shared))
}

#[derive(Debug)]
struct Head {
    chain: ChainId,
    number: u64,
    digest: [u8; 32],
}

impl AuditChain {
    /// The most events that are kept while the chain is out of reach.
    pub const KEPT_MAX: usize = 10_000;

    /// The chain of a process that is at `place`, kept in that region's store and begun under its key.
    pub(crate) fn new(
        place: Place,
        actor: String,
        store: Arc<dyn KeyStore>,
        kms: Arc<dyn Kms>,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        Self {
            place,
            actor,
            store,
            kms,
            clock,
            randomness,
            state: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Records events; they are durable when this returns. Whoever comes while others write is written together with
    /// all who wait: the store makes them durable at once.
    ///
    /// # Errors
    /// [`AuditUnavailable`](Code::AuditUnavailable): nothing was recorded, and what the events speak of
    /// must not happen.
    pub async fn record(&self, events: &[Event]) -> Result<()> {
        let mut answer = self.wait_with(events);
        let mut state = self.state.lock().await;
        loop {
            match answer.try_recv() {
                Ok(recorded) => return recorded.map_err(told),
                Err(TryRecvError::Empty) => {}
                // Who wrote them went away before it knew: they are recorded again, in another chain.
                Err(TryRecvError::Closed) => answer = self.wait_with(events),
            }
            self.write_waiting(&mut state).await;
        }
    }

    /// Records events of what is done and stands by itself; where the chain is out of reach they are kept, at most
    /// [`KEPT_MAX`](Self::KEPT_MAX) of them, and written before the next ones. What a process still keeps when it ends is
    /// in no chain: the caller says so, who finds it in [`kept`](Self::kept).
    ///
    /// # Errors
    /// As [`record`](Self::record), for anything but an outage, and when too many are kept.
    pub async fn record_when_possible(&self, events: &[Event]) -> Result<()> {
        let Err(error) = self.record(events).await else { return Ok(()) };
        let mut state = self.state.lock().await;
        if !error.is_outage() || state.kept.len() + events.len() > Self::KEPT_MAX {
            return Err(error);
        }
        tracing::warn!(cause = %error, events = events.len(), "audit events are kept until they can be written");
        let now = self.clock.now();
        state.kept.extend(events.iter().map(|event| (now, event.clone())));
        Ok(())
    }

    /// Writes what is kept, if anything is. Says how many events still are.
    pub async fn kept(&self) -> usize {
        let mut state = self.state.lock().await;
        if !state.kept.is_empty()
            && let Err(error) = self.append(&mut state, &[]).await
        {
            tracing::warn!(cause = %error, "audit events are still kept");
        }
        state.kept.len()
    }

    fn wait_with(&self, events: &[Event]) -> oneshot::Receiver<Result<(), Arc<Error>>> {
        let (told, answer) = oneshot::channel();
        self.waiting().push(Waiting { events: events.to_vec(), told });
        answer
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, and tells those who do.
    async fn write_waiting(&self, state: &mut State) {
        // Whoever gave up waiting is not recorded: what it was to do is not done.
        let waiting: Vec<_> = self.waiting().drain(..).filter(|waiting| !waiting.told.is_closed()).collect();
        let events: Vec<_> = waiting.iter().flat_map(|waiting| &waiting.events).collect();
        let written = self.append(state, &events).await.map_err(Arc::new);
        for Waiting { told, .. } in waiting {
            // Nobody hears it who went away meanwhile.
            let _ = told.send(written.clone());
        }
    }

    /// Writes what is kept, and these events behind it.
    async fn append(&self, state: &mut State, events: &[&Event]) -> Result<()> {
        let State { head, kept } = state;
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
        let now = self.clock.now();
        let events =
            kept.iter().map(|(time, event)| (*time, event)).chain(events.iter().map(|event| (now, *event)));
        let mut sealed = Vec::new();
        for (time, event) in events {
            let entry = Entry { time: time.to_string(), actor: &self.actor, here: &self.place.region, event };
            let body = serde_json::to_string(&entry).map_err(|source| {
                unavailable(Error::new(Code::StoreUnavailable, "an event has no JSON").because(source))
            })?;
            number += 1;
            digest = digest_after(&digest, number, &body);
            sealed.push(SealedEvent { number, body, digest });
        }
        self.store.append_events(chain, &sealed).await.map_err(unavailable)?;
        *head = Some(Head { chain, number, digest });
        kept.clear();
        observe::recorded(sealed.len());
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
