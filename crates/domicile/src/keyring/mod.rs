//! The hierarchy, and the one door to it.
//!
//! ```text
//! root key        in a key service, one per region
//!   branch key    random; one per region and month; the only key that a key service wraps
//!     tenant key  random; one per scope and period; its tree is sealed under the branch key
//!       leaf      of that tree, joined with the leaf that the whole segment shares; wraps one data key
//!         data key  seals one lane: content key and commitment by HKDF
//! ```
//!
//! Every function here takes a [`Permit`]: without the guard's word no key is reached. A key is handed out
//! once it is durable in the key store and its use is durable in the audit chain.

mod branch;
mod commitment;
mod data_key;
mod leaf;
mod tenant;
mod wrapped;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use data_key::DataKey;
pub use leaf::{OpeningLeaf, SealingLeaf, SegmentLeaf};
pub use wrapped::{LeafRef, Owner, WrapKind, WrappedKey};

use crate::audit::{AuditChain, Event, EventKind};
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Permit};
use crate::kms::Kms;
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::random::Randomness;
use crate::region::{Place, Region};
use crate::scope::Scope;
use crate::store::{KeyName, KeySlot, KeyState, KeyStore};
use branch::BranchKeys;
use tenant::{TenantKey, TenantKeys};

/// How long an unwrapped branch key may be used before its key service is asked again.
pub const HARD_AGE: Duration = Duration::from_secs(15 * 60);

/// Where the keys of one region are: its key service and its key store.
#[derive(Debug, Clone)]
pub(crate) struct RegionKeys {
    pub(crate) place: Place,
    pub(crate) kms: Arc<dyn Kms>,
    pub(crate) store: Arc<dyn KeyStore>,
}

/// The way to every key.
#[derive(Debug)]
pub struct Keyring {
    regions: HashMap<Region, RegionKeys>,
    branches: BranchKeys,
    tenants: TenantKeys,
    leaves: HashMap<Region, tokio::sync::Mutex<Option<Writer>>>,
    used: std::sync::Mutex<HashSet<(KeyName, &'static str)>>,
    audit: Arc<AuditChain>,
    randomness: Arc<dyn Randomness>,
}

/// This process as a writer of one region's store: its number, and the next leaf under it.
#[derive(Debug)]
struct Writer {
    number: u32,
    next: u32,
}

impl Keyring {
    pub(crate) fn new(
        regions: HashMap<Region, RegionKeys>,
        audit: Arc<AuditChain>,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        let leaves = regions.keys().map(|region| (region.clone(), tokio::sync::Mutex::new(None))).collect();
        Self {
            branches: BranchKeys::new(audit.clone()),
            tenants: TenantKeys::new(audit.clone(), randomness.clone()),
            regions,
            leaves,
            used: std::sync::Mutex::default(),
            audit,
            randomness,
        }
    }

    /// A fresh leaf of the permit's scope, to wrap one data key. The tenant key is made if it is the
    /// first of its period.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) for a permit to open; [`KeyDestroyed`](Code::KeyDestroyed) when
    /// the period has expired; whatever keeps the key service, the store or the audit chain from answering.
    pub async fn sealing_leaf(&self, permit: Permit, period: Period) -> Result<SealingLeaf> {
        let (key, number) = self.fresh_leaf(permit, period).await?;
        let secret = key.leaf(number)?;
        Ok(SealingLeaf::new(LeafRef { key: key.name(), leaf: number }, secret, self.randomness.clone()))
    }

    /// A fresh leaf of the region's own key, for all lanes of one new segment. The permit is the region's.
    ///
    /// # Errors
    /// As [`sealing_leaf`](Self::sealing_leaf).
    pub async fn segment_leaf(&self, permit: Permit, period: Period) -> Result<SegmentLeaf> {
        region_permit(&permit)?;
        let (key, number) = self.fresh_leaf(permit, period).await?;
        let secret = key.leaf(number)?;
        Ok(SegmentLeaf::new(LeafRef { key: key.name(), leaf: number }, secret))
    }

    /// The segment leaf that a wrapped key names. The permit is the region's.
    ///
    /// # Errors
    /// As [`opening_leaves`](Self::opening_leaves).
    pub async fn segment_leaf_of(&self, permit: Permit, leaf: LeafRef) -> Result<SegmentLeaf> {
        region_permit(&permit)?;
        let key = self.named_key(&permit, None, leaf.key).await?;
        Ok(SegmentLeaf::new(leaf, key.leaf(leaf.leaf)?))
    }

    /// The leaves that wrapped data keys of the permit's scope, each of its period: one permit, for all that
    /// one opening needs.
    ///
    /// # Errors
    /// Each leaf has its own: [`KeyUnknown`](Code::KeyUnknown) when nothing is known of the key;
    /// [`KeyDestroyed`](Code::KeyDestroyed) when key or leaf were erased;
    /// [`KeyUnverified`](Code::KeyUnverified) when the row is another's or was changed; whatever keeps the
    /// key service, the store or the audit chain from answering.
    pub async fn opening_leaves(
        &self,
        permit: Permit,
        leaves: &[(Period, LeafRef)],
    ) -> Vec<Result<OpeningLeaf>> {
        let mut opened = Vec::with_capacity(leaves.len());
        for (period, leaf) in leaves {
            let secret = match self.named_key(&permit, Some(*period), leaf.key).await {
                Ok(key) => key.leaf(leaf.leaf),
                Err(error) => Err(error),
            };
            opened.push(secret.map(OpeningLeaf::new));
        }
        opened
    }

    /// What the key store says of a key, without asking a key service.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn key_state(&self, region: &Region, name: KeyName) -> Result<Option<(KeySlot, KeyState)>> {
        let row = self.region(region)?.store.named(name).await?;
        Ok(row.map(|stored| (stored.row.identity.slot, stored.row.state)))
    }

    async fn fresh_leaf(&self, permit: Permit, period: Period) -> Result<(Arc<TenantKey>, LeafNumber)> {
        if !matches!(permit.action(), Action::Seal) {
            return Err(Error::new(Code::HomeRefused, "a permit to open does not seal"));
        }
        let region = self.region(&permit.home().region)?;
        let slot = KeySlot::tenant(&region.place.region, permit.scope(), period);
        let key = self.tenants.active(region, &self.branches, slot).await?;
        self.note_use(&permit, &key).await?;
        let number = self.next_leaf(region).await?;
        Ok((key, number))
    }

    async fn named_key(
        &self,
        permit: &Permit,
        period: Option<Period>,
        name: KeyName,
    ) -> Result<Arc<TenantKey>> {
        let region = self.region(&permit.home().region)?;
        let key = self.tenants.named(region, &self.branches, name).await?;
        // The row's identity was authenticated when the key was opened; a permit speaks for its own scope alone.
        let slot = key.slot();
        if slot.scope != *permit.scope() || period.is_some_and(|period| slot.period != period) {
            return Err(Error::new(
                Code::KeyUnverified,
                "the key that a wrap names belongs to somebody else",
            )
            .at(format!("scope {}, key {name}", permit.scope())));
        }
        self.note_use(permit, &key).await?;
        Ok(key)
    }

    fn region(&self, region: &Region) -> Result<&RegionKeys> {
        self.regions.get(region).ok_or_else(|| {
            Error::new(Code::KmsUnavailable, format!("no key service is configured for {region}")).advise(
                format!("add [regions.{region}] to the configuration, if this host may have its keys"),
            )
        })
    }

    /// The first use of a key for a purpose is recorded before the key is handed out.
    async fn note_use(&self, permit: &Permit, key: &TenantKey) -> Result<()> {
        let first = |used: &HashSet<_>| !used.contains(&(key.name(), permit.action().as_str()));
        if !first(&self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            return Ok(());
        }
        let slot = key.slot();
        let event = Event::new(EventKind::Use)
            .action(permit.action())
            .region(&slot.region)
            .scope(&slot.scope)
            .period(slot.period)
            .key(key.name());
        self.audit.record(&[event]).await?;
        self.used
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert((key.name(), permit.action().as_str()));
        Ok(())
    }

    /// Leaves of one process never repeat: its writer number is its own, and the counter only grows. When
    /// the counter is used up, another writer number is drawn.
    async fn next_leaf(&self, region: &RegionKeys) -> Result<LeafNumber> {
        let Some(writer) = self.leaves.get(&region.place.region) else {
            return Err(Error::new(Code::KmsUnavailable, format!("no leaves for {}", region.place.region)));
        };
        let mut writer = writer.lock().await;
        let Writer { number, next } = match writer.take() {
            Some(writer) => writer,
            None => Writer { number: region.store.next_writer().await?, next: 0 },
        };
        *writer = next.checked_add(1).map(|next| Writer { number, next });
        Ok(LeafNumber::new(number, next))
    }
}

fn region_permit(permit: &Permit) -> Result<()> {
    if *permit.scope() == Scope::of_region() {
        return Ok(());
    }
    Err(Error::new(Code::HomeRefused, "a segment leaf needs the region's own permit")
        .at(format!("scope {}", permit.scope())))
}
