//! A store in memory: for tests and simulations. What it holds is gone with the process, and with it
//! everything that its keys sealed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Chosen, HomeRegistry, Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyStore, SignedChoices};
use crate::chain::{ChainBeginning, ChainId, SealedEvent};
use crate::error::{Code, Error, Result};
use crate::home::{ChosenHome, HomeChoice, Types};
use crate::scope::TenantId;
use crate::time::Time;

/// A key store and registry of homes in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    keys: HashMap<KeyIdentity, KeyRow>,
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

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
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
        if let Some(theirs) = contents.keys.get(&row.identity) {
            return Ok(Inserted::Theirs(Box::new(theirs.clone())));
        }
        if contents.keys.values().any(|other| other.name == row.name) {
            return Err(Error::new(Code::StoreUnavailable, "two keys have one name"));
        }
        contents.keys.insert(row.identity.clone(), row.clone());
        Ok(Inserted::Ours)
    }

    async fn newest(&self, slot: &KeySlot) -> Result<Option<KeyRow>> {
        let contents = self.contents();
        let rows = contents.keys.values().filter(|row| row.identity.slot == *slot);
        Ok(rows.max_by_key(|row| row.identity.version).cloned())
    }

    async fn find(&self, identity: &KeyIdentity) -> Result<Option<KeyRow>> {
        Ok(self.contents().keys.get(identity).cloned())
    }

    async fn named(&self, name: KeyName) -> Result<Option<KeyRow>> {
        Ok(self.contents().keys.values().find(|row| row.name == name).cloned())
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
        kept.extend_from_slice(events);
        Ok(())
    }

    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>> {
        Ok(self.contents().chains.clone())
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
