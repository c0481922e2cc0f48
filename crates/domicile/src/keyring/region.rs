//! The keys of one region, as this process has them: its key services, its store, and what was loaded from it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::ages::Ages;
use super::branch::BranchKey;
use super::follow::Follower;
use super::lease::{Known, Leases};
use super::shelf::Shelf;
use super::tenant::SlotKeys;
use crate::audit::AuditChain;
use crate::error::{Code, Error, Result};
use crate::kms::Custody;
use crate::ledger::Ledger;
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::random::Randomness;
use crate::region::Place;
use crate::scope::{Scope, TenantId};
use crate::store::{Buried, KeyHandle, KeyName, KeyRow, KeySlot, KeyStore, LedgerEntry, RowWrite, Written};
use crate::time::Clock;

/// What the keys of a region are made of and kept in.
#[derive(Debug)]
pub(crate) struct RegionParts {
    pub(crate) place: Place,
    /// Who holds the region's own branch keys.
    pub(crate) custody: Custody,
    /// Who holds those of tenants with custody of their own.
    pub(crate) custodies: BTreeMap<TenantId, Custody>,
    pub(crate) ledger: Ledger,
    pub(crate) follower: Arc<Follower>,
}

/// The keys of one region.
#[derive(Debug)]
pub(super) struct RegionKeys {
    pub(super) place: Place,
    pub(super) custody: Custody,
    pub(super) custodies: BTreeMap<TenantId, Custody>,
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) ledger: Ledger,
    pub(super) follower: Arc<Follower>,
    pub(super) ages: Ages,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) audit: Arc<AuditChain>,
    pub(super) randomness: Arc<dyn Randomness>,
    /// Unwrapped branch keys: by owner, month and version.
    pub(super) branches: Shelf<(TenantId, Period, u32), BranchKey>,
    /// The version of the branch key that seals: by owner and month.
    pub(super) sealing_branches: Shelf<(TenantId, Period), u32>,
    /// Opened tenant keys, all versions of a slot together.
    pub(super) slots: Shelf<(Scope, Period), SlotKeys>,
    /// Whose a key is, by its name: that never changes.
    pub(super) owners: moka::future::Cache<KeyName, KeySlot>,
    /// Rows of day keys, which never change: the newest of a slot, and each by its handle.
    pub(super) newest_days: moka::future::Cache<KeySlot, Arc<KeyRow>>,
    pub(super) days: moka::future::Cache<KeyHandle, Arc<KeyRow>>,
    /// Data keys in use.
    pub(super) leases: Leases,
    lanes: Counter,
    segments: Counter,
}

/// Whether an error is of the key services that this owner of a branch key, a tenant, has of its own: nobody else's keys
/// are concerned.
pub(super) fn is_of_tenant(owner: &TenantId, error: &Error) -> bool {
    *owner != TenantId::REGION && matches!(error.code(), Code::KmsUnavailable | Code::KmsDenied)
}

/// Where the leaves of one kind of wrap come from.
#[derive(Debug, Default)]
struct Counter(tokio::sync::Mutex<Option<Writer>>);

/// What a fresh leaf is for. Segments have a writer number of their own: those that follow one another have neighbouring
/// leaves, and to retire all of them costs the region's key no more state than to retire one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeafFor {
    /// A data key's own leaf.
    Lane,
    /// The leaf that the lanes of a segment share.
    Segment,
}

/// This process as a writer of the region's store: its number, and the next leaf under it.
#[derive(Debug)]
struct Writer {
    number: u32,
    next: u32,
}

impl RegionKeys {
    pub(super) fn new(
        parts: RegionParts,
        ages: Ages,
        clock: Arc<dyn Clock>,
        audit: Arc<AuditChain>,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        const BRANCHES_MAX: u64 = 100_000;
        const SLOTS_MAX: u64 = 1_000_000;
        const DAYS_MAX: u64 = 100_000;
        Self {
            store: parts.ledger.store.clone(),
            place: parts.place,
            custody: parts.custody,
            custodies: parts.custodies,
            ledger: parts.ledger,
            follower: parts.follower,
            ages,
            clock,
            audit,
            randomness,
            branches: Shelf::new("branch", BRANCHES_MAX),
            sealing_branches: Shelf::new("sealing-branch", BRANCHES_MAX),
            slots: Shelf::new("tenant", SLOTS_MAX),
            owners: moka::future::Cache::new(SLOTS_MAX),
            newest_days: moka::future::Cache::new(DAYS_MAX),
            days: moka::future::Cache::new(DAYS_MAX),
            leases: Leases::default(),
            lanes: Counter::default(),
            segments: Counter::default(),
        }
    }

    /// Takes note of what others changed, and checks that a scope's keys may be used. What is known by then is what a
    /// [lease](Self::lease) is compared with.
    pub(super) async fn check_use(&self, scope: &Scope, sealing: bool) -> Result<Known> {
        self.catch_up().await?;
        let known = self.known();
        known.orders.check_use(scope, sealing)?;
        Ok(known)
    }

    /// Takes note of what others changed since the last poll, if that is too long ago.
    pub(super) async fn catch_up(&self) -> Result<()> {
        self.follower.catch_up(self).await
    }

    /// Takes note of what others changed until now, however short the last poll is ago.
    pub(super) async fn catch_up_now(&self) -> Result<()> {
        self.follower.catch_up_now(self).await
    }

    /// Has this host remember what was written now: a restore that takes it back is then known, even if this process does
    /// nothing more. It was written, whatever comes of this.
    pub(super) async fn take_note(&self) {
        self.follower.poll_next();
        if let Err(error) = self.catch_up().await {
            tracing::warn!(code = %error.code(), region = %self.place.region, "what was written could not be followed");
        }
    }

    /// Writes rows and an entry, and has what they are of loaded anew, whoever wrote it in the end. Where somebody else was
    /// faster, that is looked at whose branch keys seal, too: one may have been destroyed.
    pub(super) async fn write(
        &self,
        rows: Vec<RowWrite>,
        buried: Vec<Buried>,
        entry: Option<LedgerEntry>,
    ) -> Result<Written> {
        let slots: HashSet<_> = rows.iter().map(|row| row.row.identity.slot.clone()).collect();
        let written = self.ledger.write_with(rows, buried, entry).await?;
        for slot in &slots {
            self.forget(slot).await;
        }
        if written == Written::Overtaken {
            let branches: HashSet<_> = slots.iter().map(|slot| self.branch_of(slot)).collect();
            for branch in &branches {
                self.forget(branch).await;
            }
        }
        Ok(written)
    }

    /// The slot of the branch key under which rows of this slot are sealed from now on.
    pub(super) fn branch_of(&self, slot: &KeySlot) -> KeySlot {
        KeySlot::branch(&self.place.region, &self.owner_of(&slot.scope), slot.period.month())
    }

    /// Has the keys of a slot loaded anew.
    pub(super) async fn forget(&self, slot: &KeySlot) {
        match slot.kind {
            crate::context::KeyKind::Tenant => {
                self.slots.stale(&(slot.scope.clone(), slot.period)).await;
                self.leases.slot_changed(&slot.scope, slot.period);
            }
            crate::context::KeyKind::Branch => {
                let owner = slot.scope.tenant.clone();
                let newest = self.sealing_branches.peek(&(owner.clone(), slot.period)).await;
                self.sealing_branches.stale(&(owner.clone(), slot.period)).await;
                for version in 1..=newest.map_or(1, |newest| newest.saturating_add(1)) {
                    self.branches.stale(&(owner.clone(), slot.period, version)).await;
                }
                self.leases.month_changed(slot.period);
            }
            // Their rows are never written again; what they were wrapped under is.
            crate::context::KeyKind::Post | crate::context::KeyKind::Day => {}
        }
    }

    /// Has everything loaded anew.
    pub(super) fn forget_all(&self) {
        self.slots.clear();
        self.sealing_branches.clear();
        self.branches.clear();
        self.owners.invalidate_all();
        self.newest_days.invalidate_all();
        self.days.invalidate_all();
        self.leases.all_changed();
    }

    /// Who holds the branch keys of this owner: the region itself, or a tenant.
    pub(super) fn custody_of(&self, owner: &TenantId) -> Result<&Custody> {
        if *owner == TenantId::REGION {
            return Ok(&self.custody);
        }
        self.custodies.get(owner).ok_or_else(|| {
            Error::new(Code::KmsUnavailable, format!("the key services of {owner} are not configured here"))
                .at(self.place.to_string())
                .advise(format!(
                    "add [regions.{}.custody.{owner}], if this host may ask them",
                    self.place.region
                ))
        })
    }

    /// Whether a branch key of this row lies under a root key, or may.
    pub(super) fn lies_under(&self, row: &KeyRow, root: &str) -> Result<bool> {
        let owner = &row.identity.slot.scope.tenant;
        let custody =
            if *owner == TenantId::REGION { Some(&self.custody) } else { self.custodies.get(owner) };
        match custody {
            Some(custody) => custody.names_root(&row.sealed, root, true),
            // Of a tenant that is no longer served, the region's own services know what is theirs.
            None => self.custody.names_root(&row.sealed, root, false),
        }
    }

    /// Whose key services a row needs to be sealed anew: it lies under the branch key of its tenant, or is to.
    pub(super) fn concerned_by(&self, row: &KeyRow) -> TenantId {
        let (owner, _) = row.parent();
        if owner == TenantId::REGION { self.owner_of(&row.identity.slot.scope) } else { owner }
    }

    /// Whose branch key seals the keys of this scope from now on.
    pub(super) fn owner_of(&self, scope: &Scope) -> TenantId {
        let own = self.custodies.get(&scope.tenant).is_some_and(Custody::seals);
        if own { scope.tenant.clone() } else { TenantId::REGION }
    }

    /// Leaves of one process never repeat: its writer numbers are its own, and the counters only grow. When
    /// a counter is used up, another writer number is drawn.
    pub(super) async fn next_leaf(&self, wanted: LeafFor) -> Result<LeafNumber> {
        let counter = match wanted {
            LeafFor::Lane => &self.lanes,
            LeafFor::Segment => &self.segments,
        };
        let mut writer = counter.0.lock().await;
        let Writer { number, next } = match writer.take() {
            Some(writer) => writer,
            None => Writer { number: self.store.next_writer().await?, next: 0 },
        };
        *writer = next.checked_add(1).map(|next| Writer { number, next });
        Ok(LeafNumber::new(number, next))
    }
}
