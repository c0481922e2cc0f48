//! A store that fails when it is told to: for tests of whatever stands on one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    Change, Finding, Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyStore, LedgerEntry, RowFilter,
    StoreMark, StoredKey, Write, Written,
};
use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::error::{Code, Error, Result};
use crate::puncture::LeafNumber;
use crate::region::Region;
use crate::time::Time;

/// What a [`FaultyStore`] does in place of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing, and says that it is out of reach.
    Away,
    /// The work, and says that it is out of reach: an answer that was lost.
    Lost,
    /// The work, and never answers.
    Silent,
}

/// When a process dies: at one of its steps, which are the writes of its stores and, where a test has them pass here, the
/// calls of its key services. From then on nothing of the process reaches anybody. Clones are one fuse.
#[derive(Debug, Clone, Default)]
pub struct Fuse {
    state: Arc<Mutex<Burning>>,
}

#[derive(Debug, Default)]
struct Burning {
    steps: u64,
    at: Option<(u64, Death)>,
    blown: bool,
}

/// On which side of a step a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two sides")]
pub enum Death {
    /// The step is not done.
    Before,
    /// It is, and its answer is lost.
    After,
}

impl Fuse {
    /// A fuse that blows at this step, from 1; otherwise it only counts.
    #[must_use]
    pub fn at(step: u64, death: Death) -> Self {
        let state = Burning { at: Some((step, death)), ..Burning::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Whether it has blown.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.state().blown
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Does a step of the process, if it is alive; `code` is what a dead one is told.
    ///
    /// # Errors
    /// Those of the step, or `code`.
    pub async fn step<T>(&self, code: Code, work: impl Future<Output = Result<T>>) -> Result<T> {
        let dead = || Error::new(code, "the process died, as it was told to");
        let death = {
            let mut state = self.state();
            state.steps += 1;
            let death = state.at.filter(|(at, _)| *at == state.steps).map(|(_, death)| death);
            state.blown |= death == Some(Death::Before);
            if state.blown {
                return Err(dead());
            }
            death
        };
        let done = work.await;
        if death.is_some() {
            self.state().blown = true;
            return Err(dead());
        }
        done
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Burning> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operations that change something.
const WRITES: [&str; 5] = ["insert", "write", "next_writer", "begin_chain", "append_events"];

/// Any key store, with faults that a test switches on and off by the name of the operation; and a count of calls.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn KeyStore>,
    script: Mutex<Script>,
    fuse: Fuse,
}

#[derive(Debug, Default)]
struct Script {
    everywhere: Option<Fault>,
    faults: HashMap<&'static str, Fault>,
    calls: HashMap<&'static str, u64>,
}

impl FaultyStore {
    /// A store that works, so far.
    #[must_use]
    pub fn new(inner: Arc<dyn KeyStore>) -> Self {
        Self::of_process(inner, Fuse::default())
    }

    /// The store as one process has it, which dies when the fuse blows.
    #[must_use]
    pub fn of_process(inner: Arc<dyn KeyStore>, fuse: Fuse) -> Self {
        Self { inner, script: Mutex::default(), fuse }
    }

    /// Has an operation, by its name in [`KeyStore`], fail so from now on, or work again.
    pub fn fail(&self, operation: &'static str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.script().faults.insert(operation, fault),
            None => self.script().faults.remove(operation),
        };
    }

    /// Has every operation fail so from now on, or work again.
    pub fn fail_all(&self, fault: Option<Fault>) {
        self.script().everywhere = fault;
    }

    /// How often an operation was asked for.
    #[must_use]
    pub fn calls(&self, operation: &'static str) -> u64 {
        self.script().calls.get(operation).copied().unwrap_or_default()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn played<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = {
            let mut script = self.script();
            *script.calls.entry(operation).or_default() += 1;
            script.faults.get(operation).copied().or(script.everywhere)
        };
        let away = || Error::new(Code::StoreUnavailable, "the key store is away, as it was told to be");
        match fault {
            None if WRITES.contains(&operation) => self.fuse.step(Code::StoreUnavailable, work).await,
            None if self.fuse.is_blown() => Err(away()),
            None => work.await,
            Some(Fault::Away) => Err(away()),
            Some(Fault::Lost) => work.await.and(Err(away())),
            Some(Fault::Silent) => {
                work.await?;
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl KeyStore for FaultyStore {
    async fn insert(&self, row: &KeyRow) -> Result<Inserted> {
        self.played("insert", self.inner.insert(row)).await
    }

    async fn write(&self, write: &Write) -> Result<Written> {
        self.played("write", self.inner.write(write)).await
    }

    async fn newest(&self, slot: &KeySlot) -> Result<Option<StoredKey>> {
        self.played("newest", self.inner.newest(slot)).await
    }

    async fn versions(&self, slot: &KeySlot) -> Result<Vec<StoredKey>> {
        self.played("versions", self.inner.versions(slot)).await
    }

    async fn find(&self, identity: &KeyIdentity) -> Result<Option<StoredKey>> {
        self.played("find", self.inner.find(identity)).await
    }

    async fn named(&self, name: KeyName) -> Result<Option<StoredKey>> {
        self.played("named", self.inner.named(name)).await
    }

    async fn load_many(
        &self,
        filter: &RowFilter,
        after: Option<&KeyIdentity>,
        limit: u32,
    ) -> Result<Vec<StoredKey>> {
        self.played("load_many", self.inner.load_many(filter, after, limit)).await
    }

    async fn tombstone(&self, name: KeyName, leaf: LeafNumber) -> Result<Option<u64>> {
        self.played("tombstone", self.inner.tombstone(name, leaf)).await
    }

    async fn mark(&self) -> Result<StoreMark> {
        self.played("mark", self.inner.mark()).await
    }

    async fn changes_since(&self, number: u64, limit: u32) -> Result<Vec<Change>> {
        self.played("changes_since", self.inner.changes_since(number, limit)).await
    }

    async fn ledger(
        &self,
        region: &Region,
        kinds: &[u8],
        after: u64,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>> {
        self.played("ledger", self.inner.ledger(region, kinds, after, limit)).await
    }

    async fn ledger_head(&self, region: &Region) -> Result<Option<LedgerEntry>> {
        self.played("ledger_head", self.inner.ledger_head(region)).await
    }

    async fn next_writer(&self) -> Result<u32> {
        self.played("next_writer", self.inner.next_writer()).await
    }

    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<()> {
        self.played("begin_chain", self.inner.begin_chain(beginning)).await
    }

    async fn append_events(&self, chain: ChainId, events: &[SealedEvent]) -> Result<()> {
        self.played("append_events", self.inner.append_events(chain, events)).await
    }

    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>> {
        self.played("chains", self.inner.chains()).await
    }

    async fn chain_heads(&self, region: &Region) -> Result<Vec<ChainHead>> {
        self.played("chain_heads", self.inner.chain_heads(region)).await
    }

    async fn weaknesses(&self) -> Result<Vec<Finding>> {
        self.played("weaknesses", self.inner.weaknesses()).await
    }

    async fn now(&self) -> Result<Option<Time>> {
        self.played("now", self.inner.now()).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
