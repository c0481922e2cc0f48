//! The hierarchy, and the one door to it.
//!
//! ```text
//! root key        in a key service, one per region, or a tenant's own
//!   branch key    random; one per region and month; the only key that a key service wraps
//!     tenant key  random; one per scope, period and version; its tree is sealed under the branch key
//!       leaf      of that tree, joined with the leaf that the whole segment shares; wraps one data key
//!         data key  seals one lane: content key and commitment by HKDF
//!         day key   seals a scope's single records of one day; lies in the key store, under a tenant key's leaf alone
//! ```
//!
//! Every function here takes a [`Permit`]: without the guard's word no key is reached. A key is handed out
//! once it is durable in the key store and its use is durable in the audit chain.
//!
//! What is where: keys are loaded and kept by `branch` and `tenant`, on a `shelf`, for their `ages`; `follow` brings
//! what other processes changed, and `lease` ends by it what is in use; `warm` fills a cold cache; `erase`, `rotate`,
//! `expire` and `replay` change keys, each in compare-and-set writes; `rewrap` moves data keys to new versions; `day` has
//! the keys of single records.

mod ages;
mod ahead;
mod branch;
mod commitment;
mod data_key;
mod day;
mod erase;
mod erased;
mod expire;
mod follow;
mod leaf;
mod lease;
mod orders;
mod post;
mod region;
mod replay;
mod rewrap;
mod rotate;
mod shelf;
mod tenant;
mod tombstone;
mod warm;
mod wrapped;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

pub use ages::Ages;
pub use ahead::AheadReport;
pub use data_key::DataKey;
pub use day::DayKey;
pub use erase::ErasureReport;
pub use expire::{Due, ExpiryReport};
pub(crate) use follow::Follower;
pub use leaf::{AdoptingLeaf, EndedLeaf, LeafOf, OpeningLeaf, SealingLeaf, SegmentLeaf, UnwrappedLeaf};
pub use lease::Lease;
pub use orders::{Concerned, Hold, PlacesRule, Shredding};
pub(crate) use region::RegionParts;
pub use replay::ReplayReport;
pub use rotate::RotationReport;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub(crate) use tombstone::taken_by;
pub use tombstone::{Cause, Subject};
pub use warm::WarmReport;
pub use wrapped::{LeafRef, Owner, WrapKind, WrappedDayKey, WrappedKey};

use crate::audit::{AuditChain, EventKind};
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Permit};
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::random::Randomness;
use crate::region::Region;
use crate::scope::Scope;
use crate::store::{KeyName, KeySlot, KeyState, StoredKey};
use crate::time::Clock;
use region::{LeafFor, RegionKeys};
use tenant::TenantKey;

/// The way to every key.
#[derive(Debug)]
pub struct Keyring {
    regions: HashMap<Region, RegionKeys>,
    used: Mutex<HashSet<(KeyName, &'static str)>>,
    audit: Arc<AuditChain>,
    clock: Arc<dyn Clock>,
    ages: Ages,
    randomness: Arc<dyn Randomness>,
    /// How long backups of key stores are kept, where the operator says so.
    backups_kept: Option<jiff::Span>,
}

impl Keyring {
    pub(crate) fn new(
        regions: Vec<RegionParts>,
        ages: Ages,
        backups_kept: Option<jiff::Span>,
        clock: &Arc<dyn Clock>,
        audit: &Arc<AuditChain>,
        randomness: &Arc<dyn Randomness>,
    ) -> Self {
        let keys = |parts: RegionParts| {
            let region = parts.place.region.clone();
            let keys = RegionKeys::new(parts, ages, clock.clone(), audit.clone(), randomness.clone());
            (region, keys)
        };
        Self {
            regions: regions.into_iter().map(keys).collect(),
            used: Mutex::default(),
            audit: audit.clone(),
            clock: clock.clone(),
            ages,
            randomness: randomness.clone(),
            backups_kept,
        }
    }

    /// A fresh leaf of the permit's scope, to wrap one data key. The tenant key is made if it is the
    /// first of its period.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) for a permit to open; [`KeyDestroyed`](Code::KeyDestroyed) when
    /// the period has expired; [`KeyShredding`](Code::KeyShredding) while the scope's keys are to be shredded;
    /// whatever keeps the key service, the store or the audit chain from answering.
    pub async fn sealing_leaf(&self, permit: Permit, period: Period) -> Result<SealingLeaf> {
        sealing(&permit)?;
        // What is sealed under the region's own key vouches for others: a new version of it ends nothing.
        let seals = *permit.scope() != Scope::of_region();
        let known = self.region(&permit.home().region)?.check_use(permit.scope(), true).await?;
        let FreshLeaf { leaf, secret, lease } =
            self.fresh_leaf(permit, period, LeafFor::Lane, seals, known).await?;
        Ok(SealingLeaf::new(leaf, secret, lease, self.randomness.clone()))
    }

    /// As [`sealing_leaf`](Self::sealing_leaf), for a data key that a post made and sealed with before its home knew of it.
    /// Where the keys of its scope and period were destroyed meanwhile, it is to open with nothing, and keeps nobody else's
    /// lanes waiting; where they are to be shredded, it shares what becomes of them.
    ///
    /// # Errors
    /// As [`sealing_leaf`](Self::sealing_leaf), but for these two.
    pub async fn adopting_leaf(&self, permit: Permit, period: Period) -> Result<AdoptingLeaf> {
        sealing(&permit)?;
        let scope = permit.scope().clone();
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        match self.fresh_leaf(permit, period, LeafFor::Lane, true, region.known()).await {
            Ok(FreshLeaf { leaf, secret, lease }) => {
                Ok(AdoptingLeaf::Fresh(SealingLeaf::new(leaf, secret, lease, self.randomness.clone())))
            }
            Err(error) if error.code() == Code::KeyDestroyed => {
                let slot = KeySlot::tenant(&region.place.region, &scope, period);
                let newest = region.store.newest(&slot).await?.map(|stored| stored.row);
                let Some(row) = newest.filter(|row| row.state == KeyState::Destroyed) else {
                    return Err(error);
                };
                let leaf = LeafRef { key: row.name, leaf: region.next_leaf(LeafFor::Lane).await? };
                Ok(AdoptingLeaf::Ended(EndedLeaf { leaf, randomness: self.randomness.clone() }))
            }
            Err(error) => Err(error),
        }
    }

    /// A fresh leaf of the region's own key, for all lanes of one new segment. The permit is the region's.
    ///
    /// # Errors
    /// As [`sealing_leaf`](Self::sealing_leaf).
    pub async fn segment_leaf(&self, permit: Permit, period: Period) -> Result<SegmentLeaf> {
        region_permit(&permit)?;
        sealing(&permit)?;
        let known = self.region(&permit.home().region)?.check_use(permit.scope(), true).await?;
        let FreshLeaf { leaf, secret, lease } =
            self.fresh_leaf(permit, period, LeafFor::Segment, false, known).await?;
        Ok(SegmentLeaf::new(leaf, secret, lease))
    }

    /// The segment leaf that a wrapped key of this segment names. The permit is the region's.
    ///
    /// # Errors
    /// As [`opening_leaves`](Self::opening_leaves).
    pub async fn segment_leaf_of(
        &self,
        permit: Permit,
        leaf: LeafRef,
        segment: [u8; 32],
    ) -> Result<SegmentLeaf> {
        region_permit(&permit)?;
        let region = self.region(&permit.home().region)?;
        let known = region.check_use(permit.scope(), false).await?;
        let slot = region.owner_named(leaf.key).await?.ok_or_else(|| region.unknown(leaf.key))?;
        let key = region.opening_key(permit.scope(), slot.period, leaf.key).await?;
        self.note_use(&permit, &key).await?;
        let subject = Subject::Segment { segment };
        let secret = region.leaf(&key, leaf.leaf, Some(&subject)).await?;
        Ok(SegmentLeaf::new(leaf, secret, region.lease(&known, &key, leaf.leaf, Some(subject), false)))
    }

    /// The leaves that wrapped data keys of the permit's scope: one permit, for all that one opening needs.
    ///
    /// # Errors
    /// Each leaf has its own: [`KeyUnknown`](Code::KeyUnknown) when nothing is known of the key, or no tombstone says
    /// that what is gone was erased; [`KeyDestroyed`](Code::KeyDestroyed) when key or leaf were erased;
    /// [`KeyUnverified`](Code::KeyUnverified) when the row is another's or was changed;
    /// [`KeyRolledBack`](Code::KeyRolledBack) when it is an old one; whatever keeps the
    /// key service, the store or the audit chain from answering.
    pub async fn opening_leaves(&self, permit: Permit, leaves: &[LeafOf]) -> Vec<Result<OpeningLeaf>> {
        let mut opened = Vec::with_capacity(leaves.len());
        for wanted in leaves {
            opened.push(self.opening_leaf(&permit, wanted).await);
        }
        opened
    }

    async fn opening_leaf(&self, permit: &Permit, wanted: &LeafOf) -> Result<OpeningLeaf> {
        let region = self.region(&permit.home().region)?;
        let known = region.check_use(permit.scope(), false).await?;
        let key = region.opening_key(permit.scope(), wanted.period, wanted.leaf.key).await?;
        self.note_use(permit, &key).await?;
        let secret = region.leaf(&key, wanted.leaf.leaf, Some(&wanted.subject)).await?;
        let lease = region.lease(&known, &key, wanted.leaf.leaf, Some(wanted.subject), false);
        Ok(OpeningLeaf::new(secret, *wanted, lease))
    }

    /// What the key store says of a key, without asking a key service.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn key_state(&self, region: &Region, name: KeyName) -> Result<Option<(KeySlot, KeyState)>> {
        let stored = self.region(region)?.store.named(name).await?;
        Ok(stored.map(|StoredKey { row, .. }| (row.identity.slot, row.state)))
    }

    /// Who has the branch key under which the keys of a scope are sealed there: the region itself, or a tenant with custody of
    /// its own.
    #[must_use]
    pub fn owner_of(&self, region: &Region, scope: &Scope) -> crate::scope::TenantId {
        self.regions.get(region).map_or(crate::scope::TenantId::REGION, |keys| keys.owner_of(scope))
    }

    /// Whether anything that this process knows is ordered against sealing for a scope. Nobody is asked.
    ///
    /// # Errors
    /// [`KeyShredding`](Code::KeyShredding).
    pub fn check_orders(&self, scope: &Scope, region: &Region) -> Result<()> {
        self.regions.get(region).map_or(Ok(()), |keys| keys.follower.orders().check_use(scope, true))
    }

    /// Who holds branch keys of a region, and whose: its own, or a tenant's.
    pub(crate) fn holders(&self, region: &Region) -> Vec<(crate::scope::TenantId, &crate::kms::Holder)> {
        let Some(keys) = self.regions.get(region) else { return Vec::new() };
        let own = keys.custody.holders().iter().map(|holder| (crate::scope::TenantId::REGION, holder));
        let tenants = keys.custodies.iter().flat_map(|(tenant, custody)| {
            custody.holders().iter().map(move |holder| (tenant.clone(), holder))
        });
        own.chain(tenants).collect()
    }

    async fn fresh_leaf(
        &self,
        permit: Permit,
        period: Period,
        wanted: LeafFor,
        seals: bool,
        known: lease::Known,
    ) -> Result<FreshLeaf> {
        let region = self.region(&permit.home().region)?;
        let key = region.sealing_key(permit.scope(), period).await?;
        self.note_use(&permit, &key).await?;
        let number = self.unused_leaf(region, &key, wanted).await?;
        let secret = region.leaf(&key, number, None).await?;
        let lease = region.lease(&known, &key, number, None, seals);
        Ok(FreshLeaf { leaf: LeafRef { key: key.name, leaf: number }, secret, lease })
    }

    /// A leaf that was not erased: a snapshot that was restored may draw one again that was.
    async fn unused_leaf(&self, region: &RegionKeys, key: &TenantKey, wanted: LeafFor) -> Result<LeafNumber> {
        loop {
            let number = region.next_leaf(wanted).await?;
            if key.tree.holds(number) {
                return Ok(number);
            }
        }
    }

    /// What a region's ledger orders, as far as this process follows it; none where it has no keys of the region.
    pub(crate) async fn orders_of(&self, region: &Region) -> Result<Option<Arc<orders::Orders>>> {
        let Some(keys) = self.regions.get(region) else { return Ok(None) };
        keys.catch_up().await?;
        Ok(Some(keys.follower.orders()))
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
        self.note_use_of(permit, key.name, key.slot()).await
    }

    async fn note_use_of(&self, permit: &Permit, name: KeyName, slot: &KeySlot) -> Result<()> {
        let use_of = (name, permit.action().as_str());
        if self.used.lock().unwrap_or_else(PoisonError::into_inner).contains(&use_of) {
            return Ok(());
        }
        let event = crate::audit::Event::new(EventKind::Use)
            .action(permit.action())
            .region(&slot.region)
            .scope(&slot.scope)
            .period(slot.period)
            .key(name);
        self.audit.record(&[event]).await?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(use_of);
        Ok(())
    }
}

/// A leaf that nothing was wrapped under yet.
struct FreshLeaf {
    leaf: LeafRef,
    secret: crate::secret::Secret,
    lease: Lease,
}

fn region_permit(permit: &Permit) -> Result<()> {
    if *permit.scope() == Scope::of_region() {
        return Ok(());
    }
    Err(Error::new(Code::HomeRefused, "this needs the region's own permit")
        .at(format!("scope {}", permit.scope())))
}

/// Something new is sealed with a permit to seal.
fn sealing(permit: &Permit) -> Result<()> {
    if matches!(permit.action(), Action::Seal) {
        return Ok(());
    }
    Err(Error::new(Code::HomeRefused, "a permit to open does not seal"))
}

/// Keys are changed with a permit to change them.
fn managing(permit: &Permit) -> Result<()> {
    if matches!(permit.action(), Action::Manage(_)) {
        return Ok(());
    }
    Err(Error::new(Code::HomeRefused, "a permit to seal or to open changes no key"))
}
