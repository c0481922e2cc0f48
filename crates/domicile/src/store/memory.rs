//! A store in memory: for tests and simulations. What it holds is gone with the process, and with it
//! everything that its keys sealed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Buried, Change, Chosen, Floor, HomeRegistry, Incarnation, Inserted, KeyIdentity, KeyName, KeyRow,
    KeySlot, KeyState, KeyStore, LedgerEntry, RowFilter, SignedChoices, StoreMark, StoredKey, Write, Written,
};
use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::error::{Code, Error, Result};
use crate::home::{ChosenHome, HomeChoice, Types};
use crate::puncture::LeafNumber;
use crate::region::Region;
use crate::scope::TenantId;
use crate::time::Time;

/// A key store and registry of homes in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
    forgets_events: bool,
}

/// What a [`MemoryStore`] held at one instant: a backup, to put back.
#[derive(Debug, Clone)]
pub struct MemoryBackup(Contents);

#[derive(Debug, Clone, Default)]
struct Contents {
    incarnation: [u8; 16],
    inserts: u64,
    /// By slot and version.
    keys: HashMap<KeySlot, BTreeMap<u32, KeyRow>>,
    names: HashMap<KeyName, KeyIdentity>,
    floors: HashMap<KeyName, Floor>,
    tombstones: HashMap<(KeyName, LeafNumber), u64>,
    ledger: BTreeMap<Region, Vec<LedgerEntry>>,
    changes: Vec<Change>,
    writers: u32,
    chains: Vec<(ChainBeginning, Vec<SealedEvent>)>,
    homes: BTreeMap<(TenantId, Types), ChosenHome>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that keeps no audit events, for simulations and fuzzers that open by the million.
    #[must_use]
    pub fn forgetting_events() -> Self {
        Self { forgets_events: true, ..Self::default() }
    }

    /// All that the store holds now.
    #[must_use]
    pub fn backup(&self) -> MemoryBackup {
        MemoryBackup(self.contents().clone())
    }

    /// Puts a backup back, as a careless operator does: everything since is gone.
    pub fn restore(&self, backup: &MemoryBackup) {
        *self.contents() = backup.0.clone();
    }

    /// Puts one row back as it was, behind everybody's back, as whoever may write to a database can.
    pub fn put_back(&self, row: KeyRow) {
        self.contents().put(row);
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn row(&self, identity: &KeyIdentity) -> Option<&KeyRow> {
        self.keys.get(&identity.slot)?.get(&identity.version)
    }

    fn put(&mut self, row: KeyRow) {
        self.names.insert(row.name, row.identity.clone());
        self.keys.entry(row.identity.slot.clone()).or_default().insert(row.identity.version, row);
    }

    fn stored(&self, row: &KeyRow) -> StoredKey {
        StoredKey { row: row.clone(), floor: self.floors.get(&row.name).copied() }
    }

    /// Whether the branch key that a row is sealed under stands, if it has one.
    fn has_parent(&self, row: &KeyRow) -> bool {
        let stands =
            |branch: KeyIdentity| self.row(&branch).is_some_and(|branch| branch.state != KeyState::Destroyed);
        row.stands_on().is_none_or(stands)
    }

    fn is_childless(&self, branch: &KeyIdentity) -> bool {
        let mut rows = self.keys.values().flat_map(BTreeMap::values);
        !rows.any(|row| row.stands_on().as_ref() == Some(branch))
    }

    fn bury(&mut self, name: KeyName, generation: u64, entry: u64, leaves: &[LeafNumber]) {
        let floor = self.floors.entry(name).or_insert(Floor { generation, entry });
        if generation > floor.generation {
            *floor = Floor { generation, entry };
        }
        for leaf in leaves {
            self.tombstones.entry((name, *leaf)).or_insert(entry);
        }
    }

    fn changed(&mut self, region: &Region, slot: Option<&KeySlot>) {
        let number = self.changes.len() as u64 + 1;
        self.changes.push(Change { number, region: region.clone(), slot: slot.cloned() });
    }

    fn is_next(&self, region: &Region, entry: &LedgerEntry) -> bool {
        entry.number == self.ledger.get(region).map_or(0, Vec::len) as u64 + 1
    }

    /// What stands in the place of a choice.
    fn home(&self, choice: &HomeChoice) -> Option<&ChosenHome> {
        let of = |types: Types| self.homes.get(&(choice.tenant.clone(), types));
        of(choice.types.clone()).or_else(|| of(Types::All))
    }

    fn add(&mut self, choice: &HomeChoice, now: Time, list: &SignedChoices) {
        let home = ChosenHome {
            choice: choice.clone(),
            chosen: now,
            statement: Some(list.statement.clone()),
            own: list.own,
        };
        self.homes.insert((choice.tenant.clone(), choice.types.clone()), home);
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn insert(&self, row: &KeyRow) -> Result<Inserted> {
        let mut contents = self.contents();
        if let Some(theirs) = contents.row(&row.identity) {
            return Ok(Inserted::Theirs(Box::new(contents.stored(theirs))));
        }
        if contents.names.contains_key(&row.name) {
            return Err(Error::new(Code::StoreUnavailable, "two keys have one name"));
        }
        if !contents.has_parent(row) {
            return Ok(Inserted::Orphan);
        }
        contents.put(row.clone());
        contents.inserts += 1;
        Ok(Inserted::Ours)
    }

    async fn write(&self, write: &Write) -> Result<Written> {
        let mut contents = self.contents();
        let stands = write.rows.iter().all(|row| {
            let standing = contents.row(&row.row.identity).map(|standing| standing.generation);
            standing == row.replaces
                && contents.has_parent(&row.row)
                && (!row.row.ends_a_branch() || contents.is_childless(&row.row.identity))
        });
        let next = write.entry.as_ref().is_none_or(|entry| contents.is_next(&write.region, entry));
        if !stands || !next {
            return Ok(Written::Overtaken);
        }
        if let Some(entry) = &write.entry {
            contents.ledger.entry(write.region.clone()).or_default().push(entry.clone());
            contents.changed(&write.region, None);
        }
        for row in &write.rows {
            contents.put(row.row.clone());
            contents.inserts += u64::from(row.replaces.is_none());
            contents.changed(&write.region, Some(&row.row.identity.slot));
            if let Some(entry) = write.entry.as_ref().filter(|_| row.buries) {
                contents.bury(row.row.name, row.row.generation, entry.number, &row.leaves);
            }
        }
        for Buried { name, generation, leaves } in &write.buried {
            if let Some(entry) = &write.entry {
                contents.bury(*name, *generation, entry.number, leaves);
            }
        }
        contents.incarnation = write.incarnation.unwrap_or(contents.incarnation);
        Ok(Written::Done { scrubbed: true })
    }

    async fn newest(&self, slot: &KeySlot) -> Result<Option<StoredKey>> {
        Ok(self.versions(slot).await?.pop())
    }

    async fn versions(&self, slot: &KeySlot) -> Result<Vec<StoredKey>> {
        let contents = self.contents();
        let rows = contents.keys.get(slot).into_iter().flat_map(BTreeMap::values);
        Ok(rows.map(|row| contents.stored(row)).collect())
    }

    async fn find(&self, identity: &KeyIdentity) -> Result<Option<StoredKey>> {
        let contents = self.contents();
        Ok(contents.row(identity).map(|row| contents.stored(row)))
    }

    async fn named(&self, name: KeyName) -> Result<Option<StoredKey>> {
        let contents = self.contents();
        let row = contents.names.get(&name).and_then(|identity| contents.row(identity));
        Ok(row.map(|row| contents.stored(row)))
    }

    async fn load_many(
        &self,
        filter: &RowFilter,
        after: Option<&KeyIdentity>,
        limit: u32,
    ) -> Result<Vec<StoredKey>> {
        let place = |identity: &KeyIdentity| {
            let KeySlot { scope, period, .. } = &identity.slot;
            (scope.tenant.clone(), scope.record_type.to_string(), period.to_string(), identity.version)
        };
        let contents = self.contents();
        let wanted = |slot: &KeySlot| {
            slot.kind == filter.kind
                && slot.region == filter.region
                && filter.period.is_none_or(|period| slot.period == period)
                && filter.tenant.as_ref().is_none_or(|tenant| slot.scope.tenant == *tenant)
        };
        let rows = contents.keys.values().flat_map(BTreeMap::values).filter(|row| {
            let behind = after.is_none_or(|after| place(&row.identity) > place(after));
            behind && wanted(&row.identity.slot)
        });
        let mut rows: Vec<_> = rows.map(|row| contents.stored(row)).collect();
        rows.sort_by_key(|stored| place(&stored.row.identity));
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(rows)
    }

    async fn tombstone(&self, name: KeyName, leaf: LeafNumber) -> Result<Option<u64>> {
        Ok(self.contents().tombstones.get(&(name, leaf)).copied())
    }

    async fn mark(&self) -> Result<StoreMark> {
        let contents = self.contents();
        Ok(StoreMark {
            incarnation: Incarnation { id: contents.incarnation, cluster: None },
            changes: contents.changes.len() as u64,
            inserts: contents.inserts,
        })
    }

    async fn changes_since(&self, number: u64, limit: u32) -> Result<Vec<Change>> {
        let contents = self.contents();
        let since = contents.changes.iter().filter(|change| change.number > number);
        Ok(since.take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn ledger(
        &self,
        region: &Region,
        kinds: &[u8],
        after: u64,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>> {
        let contents = self.contents();
        let wanted =
            |entry: &&LedgerEntry| entry.number > after && (kinds.is_empty() || kinds.contains(&entry.kind));
        let entries = contents.ledger.get(region).into_iter().flatten().filter(wanted);
        Ok(entries.take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn ledger_head(&self, region: &Region) -> Result<Option<LedgerEntry>> {
        Ok(self.contents().ledger.get(region).and_then(|entries| entries.last()).cloned())
    }

    async fn next_writer(&self) -> Result<u32> {
        let mut contents = self.contents();
        let next = contents.writers.checked_add(1);
        contents.writers =
            next.ok_or_else(|| Error::new(Code::StoreUnavailable, "all 2^32 writer numbers are given"))?;
        Ok(contents.writers)
    }

    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<()> {
        self.contents().chains.push((beginning.clone(), Vec::new()));
        Ok(())
    }

    async fn append_events(&self, chain: ChainId, events: &[SealedEvent]) -> Result<()> {
        let mut contents = self.contents();
        let of_chain = contents.chains.iter_mut().find(|(beginning, _)| beginning.chain == chain);
        let (_, kept) =
            of_chain.ok_or_else(|| Error::new(Code::StoreUnavailable, "this audit chain has not begun"))?;
        if !self.forgets_events {
            kept.extend_from_slice(events);
        }
        Ok(())
    }

    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>> {
        Ok(self.contents().chains.clone())
    }

    async fn chain_heads(&self, region: &Region) -> Result<Vec<ChainHead>> {
        let contents = self.contents();
        let of_region = contents.chains.iter().filter(|(begun, _)| begun.place.region == *region);
        let head = |(begun, events): &(ChainBeginning, Vec<SealedEvent>)| {
            let last = events.last()?;
            Some(ChainHead { chain: begun.chain, events: last.number, digest: last.digest })
        };
        Ok(of_region.filter_map(head).collect())
    }
}

#[async_trait]
impl HomeRegistry for MemoryStore {
    async fn standing(&self, choices: &[HomeChoice]) -> Result<Vec<Option<ChosenHome>>> {
        let contents = self.contents();
        Ok(choices.iter().map(|choice| contents.home(choice).cloned()).collect())
    }

    async fn choose(&self, lists: &[SignedChoices], now: Time) -> Result<Chosen> {
        let mut contents = self.contents();
        let before = contents.homes.clone();
        let mut contradicted = Vec::new();
        for list in lists {
            for choice in &list.choices {
                match contents.home(choice) {
                    Some(standing) if standing.choice.region != choice.region => {
                        contradicted.push((choice.clone(), standing.choice.region.clone()));
                    }
                    Some(_) => {}
                    None => contents.add(choice, now, list),
                }
            }
        }
        if contradicted.is_empty() {
            return Ok(Chosen::Made);
        }
        contents.homes = before;
        Ok(Chosen::Contradicted(contradicted))
    }

    async fn add_statement(&self, list: &SignedChoices) -> Result<()> {
        let mut contents = self.contents();
        for choice in &list.choices {
            let home = contents.homes.get_mut(&(choice.tenant.clone(), choice.types.clone()));
            if let Some(home) = home.filter(|home| list.own && !home.own) {
                (home.statement, home.own) = (Some(list.statement.clone()), true);
            }
        }
        Ok(())
    }

    async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<ChosenHome>> {
        let contents = self.contents();
        let homes = contents.homes.values();
        let mut homes: Vec<_> =
            homes.filter(|home| tenant.is_none_or(|tenant| home.choice.tenant == *tenant)).cloned().collect();
        homes.sort_by_key(|home| (home.choice.tenant.clone(), home.choice.types.to_string()));
        Ok(homes)
    }
}
