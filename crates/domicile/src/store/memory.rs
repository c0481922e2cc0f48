//! A store in memory: for tests and simulations. What it holds is gone with the process, and with it
//! everything that its keys sealed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Chosen, HomeRegistry, Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyStore};
use crate::audit::{ChainBeginning, ChainId, SealedEvent};
use crate::error::{Code, Error, Result};
use crate::home::{ChosenHome, HomeChoice, SignedStatement, Types};
use crate::region::Region;
use crate::scope::{RecordType, TenantId};
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
    fn home(&self, tenant: &TenantId, types: &Types) -> Option<&ChosenHome> {
        let of = |types: Types| self.homes.get(&(tenant.clone(), types));
        of(types.clone()).or_else(|| of(Types::All))
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
    async fn choose(&self, choices: &[HomeChoice], now: Time) -> Result<Chosen> {
        let mut contents = self.contents();
        let mut homes = contents.homes.clone();
        let (mut made, mut contradicted) = (Vec::new(), Vec::new());
        for (place, choice) in choices.iter().enumerate() {
            let of = |types: Types| homes.get(&(choice.tenant.clone(), types));
            if let Some(standing) = of(choice.types.clone()).or_else(|| of(Types::All)) {
                if standing.choice.region != choice.region {
                    contradicted.push((place, standing.choice.region.clone()));
                }
                continue;
            }
            let chosen = ChosenHome { choice: choice.clone(), chosen: now, statement: None };
            homes.insert((choice.tenant.clone(), choice.types.clone()), chosen);
            made.push(place);
        }
        if !contradicted.is_empty() {
            return Ok(Chosen::Contradicted(contradicted));
        }
        contents.homes = homes;
        Ok(Chosen::Made(made))
    }

    async fn add_statement(
        &self,
        _: &Region,
        choices: &[HomeChoice],
        signed: &SignedStatement,
    ) -> Result<()> {
        let mut contents = self.contents();
        for choice in choices {
            let chosen = contents.homes.get_mut(&(choice.tenant.clone(), choice.types.clone()));
            if let Some(chosen) = chosen {
                chosen.statement.get_or_insert_with(|| signed.clone());
            }
        }
        Ok(())
    }

    async fn home(&self, tenant: &TenantId, record_type: &RecordType) -> Result<Option<ChosenHome>> {
        Ok(self.contents().home(tenant, &Types::One(record_type.clone())).cloned())
    }

    async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<ChosenHome>> {
        let contents = self.contents();
        let homes = contents.homes.values();
        Ok(homes.filter(|home| tenant.is_none_or(|tenant| home.choice.tenant == *tenant)).cloned().collect())
    }

    async fn pending(&self, region: &Region) -> Result<Vec<HomeChoice>> {
        let contents = self.contents();
        let pending = contents.homes.values().filter(|home| home.statement.is_none());
        Ok(pending.map(|home| home.choice.clone()).filter(|choice| choice.region == *region).collect())
    }
}
