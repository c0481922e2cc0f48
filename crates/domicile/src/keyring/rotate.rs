//! Rotation: new versions of keys, and new wraps of those that stay.
//!
//! Each row is one compare-and-set write, and each step can be done again: whoever was stopped in the middle starts over
//! and finds done what was done.

use std::collections::BTreeSet;

use super::erase::{TRIES, destroyed};
use super::region::{RegionKeys, is_of_tenant};
use super::tenant::parent;
use super::tombstone::{Cause, Destroyed, Taken};
use super::{Keyring, managing};
use crate::audit::{Event, EventKind};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::guard::Permit;
use crate::kms::Custody;
use crate::ledger::overtaken;
use crate::observe;
use crate::period::Period;
use crate::scope::{Scope, TenantId};
use crate::store::{
    KeyIdentity, KeyRow, KeySlot, KeyState, KeyStore, RowFilter, RowWrite, StoredKey, Written,
};

/// How many rows are read at once.
const ROWS: u32 = 1_000;

/// How many rows are sealed anew in one write, and how many octets of them: rows that lost many leaves are long.
const RESEALED_ROWS: usize = 250;
const RESEALED_BYTES: usize = 4 << 20;

/// What was rotated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotationReport {
    /// New versions of keys.
    pub made: usize,
    /// Keys that were wrapped or sealed anew and are what they were.
    pub rewrapped: usize,
    /// Keys that seal nothing any longer and were destroyed.
    pub destroyed: usize,
    /// New versions of root keys, by their ids.
    pub roots: Vec<String>,
    /// Tenants with custody of their own whose key services did not answer, denied, or are not configured here: their keys
    /// are as they were.
    pub without: BTreeSet<TenantId>,
}

/// Rows as they stood when their page was read.
pub(super) struct Pages<'a> {
    store: &'a dyn KeyStore,
    filter: RowFilter,
    after: Option<KeyIdentity>,
}

impl Pages<'_> {
    /// The next of them; none behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StoredKey>>> {
        let page = self.store.load_many(&self.filter, self.after.as_ref(), ROWS).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.row.identity.clone());
        Ok(Some(page))
    }
}

impl RotationReport {
    /// What came of a key of this owner; nothing, where it failed by key services of a tenant's own.
    fn unless_of_tenant<T: Default>(&mut self, owner: &TenantId, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if is_of_tenant(owner, &error) => {
                tracing::warn!(code = %error.code(), "the keys of a tenant with custody of its own stay as they are");
                self.without.insert(owner.clone());
                Ok(T::default())
            }
            result => result,
        }
    }
}

impl Keyring {
    /// Follows the scope's keys of this period and those to come by new versions, which new lanes are sealed under. The
    /// old versions open what they sealed.
    ///
    /// # Errors
    /// Whatever keeps the key service, the store or the audit chain from answering. What was done stays done.
    pub async fn rotate(&self, permit: Permit) -> Result<RotationReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.check_use(permit.scope(), true).await?;
        let now = self.clock.now().micros();
        let mut report = RotationReport::default();
        let mut slots: Vec<KeySlot> = Vec::new();
        let mut pages = region.pages(KeyKind::Tenant, Some(&permit.scope().tenant));
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in page {
                let slot = row.identity.slot;
                let concerned = slot.scope == *permit.scope() && slot.period.bounds().end > now;
                if concerned && slots.last() != Some(&slot) {
                    slots.push(slot);
                }
            }
        }
        for slot in slots {
            self.note_rotation(region, &permit, &slot.scope, "tenant-key").await?;
            report.made += usize::from(region.rotate_slot(&slot).await?);
        }
        observe::rewrote("rotation", report.made);
        Ok(report)
    }

    /// Makes a new version of the root key of the region's own custody, where its services make their own and `anew` is
    /// set, and wraps all branch keys anew that do not lie under the newest roots and for the holders of today. Old roots
    /// still open old wraps, until they are retired.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate). The permit is the region's.
    pub async fn rotate_roots(&self, permit: Permit, anew: bool) -> Result<RotationReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        self.note_rotation(region, &permit, &Scope::of_region(), "root-key").await?;
        let mut report = RotationReport::default();
        for holder in region.custody.holders().iter().filter(|_| anew) {
            match holder.kms.rotate_root().await {
                Ok(root) => report.roots.push(root),
                // Its operator makes root keys, and has named the new one in the configuration.
                Err(error) if error.code() == Code::ArgumentInvalid => {}
                Err(error) => return Err(error),
            }
        }
        let mut pages = region.pages(KeyKind::Branch, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in page {
                if row.state != KeyState::Destroyed {
                    let owner = &row.identity.slot.scope.tenant;
                    let rewrapped = region.rewrap_branch(&row.identity).await;
                    report.rewrapped += usize::from(report.unless_of_tenant(owner, rewrapped)?);
                }
            }
        }
        observe::rewrote("root-rotation", report.rewrapped);
        Ok(report)
    }

    /// Follows the branch keys of this month and those to come by new versions (or, where `anew` is false, finishes what
    /// was begun), seals all tenant keys under the branch keys that seal today, and destroys branch keys that nothing is
    /// sealed under any longer. The same brings the keys of a tenant that got custody of its own there.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate). The permit is the region's.
    pub async fn rotate_branches(&self, permit: Permit, anew: bool) -> Result<RotationReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        self.note_rotation(region, &permit, &Scope::of_region(), "branch-key").await?;
        let mut report = RotationReport::default();
        let now = self.clock.now().micros();
        let mut owners: Vec<(TenantId, Period)> = Vec::new();
        let mut pages = region.pages(KeyKind::Branch, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in page {
                let slot = row.identity.slot;
                let owner = (slot.scope.tenant, slot.period);
                if owners.last() != Some(&owner) {
                    owners.push(owner);
                }
            }
        }
        if anew {
            for (owner, month) in owners.iter().filter(|(_, month)| month.bounds().end > now) {
                if region.custodies.get(owner).is_some_and(|custody| !custody.seals()) {
                    continue;
                }
                let followed = region.follow_branch(owner, *month).await;
                report.made += usize::from(report.unless_of_tenant(owner, followed)?);
            }
        }
        let mut pages = region.pages(KeyKind::Tenant, None);
        while let Some(page) = pages.next().await? {
            region.reseal_all(page, &mut report).await?;
        }
        for (owner, month) in owners {
            report.destroyed += region.destroy_unused_branches(&owner, month).await?;
        }
        observe::rewrote("branch-rotation", report.rewrapped);
        Ok(report)
    }

    /// Drops an old version of a root key, once no branch key lies under it any longer: that is the end of every copy of
    /// every row that does, in whatever backup. The permit is the region's.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) while a branch key lies under it, for the current root, and where the
    /// operator destroys root keys.
    pub async fn retire_root(&self, permit: Permit, root: &str) -> Result<()> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        let mut below = 0;
        let mut pages = region.pages(KeyKind::Branch, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in &page {
                below += usize::from(row.state != KeyState::Destroyed && region.lies_under(row, root)?);
            }
        }
        if below > 0 {
            return Err(Error::new(
                Code::ArgumentInvalid,
                format!("branch keys still lie under the root key {root}"),
            )
            .at(format!("{below} of them"))
            .advise(format!("domicile key rotate --root {}, and then retire it", region.place.region)));
        }
        self.note_rotation(region, &permit, &Scope::of_region(), "retire-root-key").await?;
        let mut refused = None;
        for holder in region.custody.holders() {
            match holder.kms.retire_root(root).await {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(Code::ArgumentInvalid, "there is no such root key")))
    }

    async fn note_rotation(
        &self,
        region: &RegionKeys,
        permit: &Permit,
        scope: &Scope,
        what: &'static str,
    ) -> Result<()> {
        let event = Event::new(EventKind::Rotate)
            .action(permit.action())
            .region(&region.place.region)
            .scope(scope)
            .what(what);
        self.audit.record(&[event]).await
    }
}

impl RegionKeys {
    /// The rows of a kind: of the whole region, or of a tenant.
    pub(super) fn pages(&self, kind: KeyKind, tenant: Option<&TenantId>) -> Pages<'_> {
        let region = self.place.region.clone();
        self.pages_of(RowFilter { region, kind, period: None, tenant: tenant.cloned() })
    }

    /// The rows that a filter asks for.
    pub(super) fn pages_of(&self, filter: RowFilter) -> Pages<'_> {
        Pages { store: &*self.store, filter, after: None }
    }

    /// Writes rows; whether nobody was faster.
    pub(super) async fn written(&self, rows: Vec<RowWrite>) -> Result<bool> {
        Ok(matches!(self.write(rows, Vec::new(), None).await?, Written::Done { .. }))
    }

    /// A new version of a slot's key, and the old one for opening alone, in one write.
    async fn rotate_slot(&self, slot: &KeySlot) -> Result<bool> {
        for _ in 0..TRIES {
            let Some(newest) = self.store.newest(slot).await? else { return Ok(false) };
            let row = newest.standing()?;
            if row.state != KeyState::Active {
                return Ok(false);
            }
            let replaces = Some(row.generation);
            let key = self.open_row(row).await?;
            let old = self.resealed(&key, KeyState::DecryptOnly, &key.tree).await?;
            let identity = KeyIdentity { slot: slot.clone(), version: next_version(&key.identity)? };
            let new = self.new_tenant_key(identity).await?;
            if self.written(vec![replacing(old, replaces), replacing(new, None)]).await? {
                return Ok(true);
            }
        }
        Err(overtaken(&self.place.region))
    }

    /// A new version of a branch key, and the old one for opening alone, in one write.
    async fn follow_branch(&self, owner: &TenantId, month: Period) -> Result<bool> {
        let slot = KeySlot::branch(&self.place.region, owner, month);
        for _ in 0..TRIES {
            let Some(newest) = self.store.newest(&slot).await? else { return Ok(false) };
            let row = newest.standing()?;
            if row.state != KeyState::Active {
                return Ok(false);
            }
            let branch = self.unwrap_branch(&row, None).await?;
            let old = self.rewrapped_branch(&branch, KeyState::DecryptOnly).await?;
            let identity = KeyIdentity { slot: slot.clone(), version: next_version(&row.identity)? };
            let (new, _) = self.new_branch(identity).await?;
            if self.written(vec![replacing(old, Some(row.generation)), replacing(new, None)]).await? {
                return Ok(true);
            }
        }
        Err(overtaken(&self.place.region))
    }

    async fn rewrap_branch(&self, identity: &KeyIdentity) -> Result<bool> {
        for _ in 0..TRIES {
            let Some(stored) = self.store.find(identity).await? else { return Ok(false) };
            let row = stored.standing()?;
            let custody = self.custody_of(&identity.slot.scope.tenant)?;
            if row.state == KeyState::Destroyed || custody.is_current(&row.sealed).await? {
                return Ok(false);
            }
            let branch = self.unwrap_branch(&row, None).await?;
            let rewrapped = self.rewrapped_branch(&branch, row.state).await?;
            if self.written(vec![replacing(rewrapped, Some(row.generation))]).await? {
                return Ok(true);
            }
        }
        Err(overtaken(&self.place.region))
    }

    /// Seals the tenant keys of a page under the branch keys that seal today, where they are not. Many in one write: a
    /// write is made durable, and old bytes are scrubbed, once for all of them.
    async fn reseal_all(&self, page: Vec<StoredKey>, report: &mut RotationReport) -> Result<()> {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        for stored in page {
            if stored.row.state == KeyState::Destroyed {
                continue;
            }
            let owner = self.concerned_by(&stored.row);
            let resealed = self.resealed_today(stored.standing()?).await;
            if let Some(row) = report.unless_of_tenant(&owner, resealed)? {
                bytes += row.row.sealed.len();
                writes.push(row);
            }
            if writes.len() >= RESEALED_ROWS || bytes >= RESEALED_BYTES {
                report.rewrapped += self.reseal_together(std::mem::take(&mut writes)).await?;
                bytes = 0;
            }
        }
        report.rewrapped += self.reseal_together(writes).await?;
        Ok(())
    }

    /// Writes these rows together; one by one where somebody changed one of them since it was read.
    async fn reseal_together(&self, rows: Vec<RowWrite>) -> Result<usize> {
        let identities: Vec<_> = rows.iter().map(|row| row.row.identity.clone()).collect();
        if rows.is_empty() || self.written(rows).await? {
            return Ok(identities.len());
        }
        let mut count = 0;
        for identity in &identities {
            count += usize::from(self.reseal(identity).await?);
        }
        Ok(count)
    }

    /// A row under the branch key that seals today; none where it is.
    async fn resealed_today(&self, row: KeyRow) -> Result<Option<RowWrite>> {
        let slot = &row.identity.slot;
        let today = self.sealing_branch(&self.owner_of(&slot.scope), slot.period.month()).await?;
        let replaces = Some(row.generation);
        let key = self.open_row(row).await?;
        if key.branch.identity == today.identity {
            return Ok(None);
        }
        Ok(Some(replacing(self.resealed(&key, key.state, &key.tree).await?, replaces)))
    }

    /// Seals a tenant key under the branch key that seals today, if it is not.
    async fn reseal(&self, identity: &KeyIdentity) -> Result<bool> {
        for _ in 0..TRIES {
            let Some(stored) = self.store.find(identity).await? else { return Ok(false) };
            let row = stored.standing()?;
            if row.state == KeyState::Destroyed {
                return Ok(false);
            }
            let Some(resealed) = self.resealed_today(row).await? else { return Ok(false) };
            if self.written(vec![resealed]).await? {
                return Ok(true);
            }
        }
        Err(overtaken(&self.place.region))
    }

    /// Destroys the branch keys of a month that nothing is sealed under any longer, because newer ones follow them or their
    /// tenant has no custody of its own now, and that no tenant key lies under.
    async fn destroy_unused_branches(&self, owner: &TenantId, month: Period) -> Result<usize> {
        let seals = *owner == TenantId::REGION || self.custodies.get(owner).is_some_and(Custody::seals);
        let slot = KeySlot::branch(&self.place.region, owner, month);
        let mut destroyed_keys = 0;
        for stored in self.store.versions(&slot).await? {
            let row = stored.standing()?;
            let unused = row.state == KeyState::DecryptOnly || row.state == KeyState::Active && !seals;
            if !unused || self.is_parent(&row.identity).await? {
                continue;
            }
            let write = destroyed(&row)?;
            let tombstone = Destroyed { cause: Cause::Disuse, keys: vec![Taken::of(&write.row)] };
            let entry = self.ledger.sign(&tombstone).await?;
            let written = self.write(vec![write], Vec::new(), Some(entry)).await?;
            // If somebody was faster, or sealed something under it meanwhile, the next run finds what is left.
            destroyed_keys += usize::from(matches!(written, Written::Done { .. }));
        }
        Ok(destroyed_keys)
    }

    /// Whether any tenant key lies under this branch key, as far as could be seen; the store looks again when it is written.
    pub(super) async fn is_parent(&self, branch: &KeyIdentity) -> Result<bool> {
        let owner = &branch.slot.scope.tenant;
        let tenant = (*owner != TenantId::REGION).then_some(owner);
        let lies_under = |row: &KeyRow| {
            let same = row.identity.slot.period.month() == branch.slot.period;
            row.state != KeyState::Destroyed && same && parent(row) == (owner.clone(), branch.version)
        };
        // Posts' keys of the month lie under it too.
        for kind in [KeyKind::Tenant, KeyKind::Post] {
            let mut pages = self.pages(kind, tenant);
            while let Some(page) = pages.next().await? {
                if page.iter().any(|stored| lies_under(&stored.row)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn replacing(row: KeyRow, replaces: Option<u64>) -> RowWrite {
    RowWrite { row, replaces, buries: false, leaves: Vec::new() }
}

fn next_version(identity: &KeyIdentity) -> Result<u32> {
    // The highest bit of a version says something else where it is named as a parent.
    identity.version.checked_add(1).filter(|version| version >> 31 == 0).ok_or_else(|| {
        Error::new(Code::ArgumentInvalid, format!("the {} has had too many versions", identity.slot))
    })
}
