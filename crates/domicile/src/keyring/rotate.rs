//! Rotation: new versions of keys, and new wraps of those that stay.
//!
//! Each row is one compare-and-set write, and each step can be done again: whoever was stopped in the middle starts over
//! and finds done what was done.

use super::erase::{TRIES, destroyed};
use super::region::RegionKeys;
use super::tombstone::{Cause, Destroyed, Taken};
use super::{Keyring, managing};
use crate::audit::{Event, EventKind};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::guard::Permit;
use crate::ledger::overtaken;
use crate::observe;
use crate::period::Period;
use crate::scope::{Scope, TenantId};
use crate::store::{KeyIdentity, KeyRow, KeySlot, KeyState, RowFilter, RowWrite, StoredKey, Written};

/// How many rows are read at once.
pub(super) const ROWS: u32 = 1_000;

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
        let filter = region.rows(KeyKind::Tenant, Some(&permit.scope().tenant));
        let mut slots: Vec<KeySlot> = Vec::new();
        region
            .each_row(&filter, async |row| {
                let slot = &row.identity.slot;
                if slot.scope == *permit.scope()
                    && slot.period.bounds().end > now
                    && slots.last() != Some(slot)
                {
                    slots.push(slot.clone());
                }
                Ok(())
            })
            .await?;
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
        let filter = region.rows(KeyKind::Branch, None);
        region
            .each_row(&filter, async |row| {
                if row.state != KeyState::Destroyed {
                    report.rewrapped += usize::from(region.rewrap_branch(&row.identity).await?);
                }
                Ok(())
            })
            .await?;
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
        let filter = region.rows(KeyKind::Branch, None);
        let mut owners: Vec<(TenantId, Period)> = Vec::new();
        region
            .each_row(&filter, async |row| {
                let slot = &row.identity.slot;
                let owner = (slot.scope.tenant.clone(), slot.period);
                if owners.last() != Some(&owner) {
                    owners.push(owner);
                }
                Ok(())
            })
            .await?;
        if anew {
            for (owner, month) in owners.iter().filter(|(_, month)| month.bounds().end > now) {
                report.made += usize::from(region.follow_branch(owner, *month).await?);
            }
        }
        let filter = region.rows(KeyKind::Tenant, None);
        region
            .each_page(&filter, async |page| {
                report.rewrapped += region.reseal_all(page).await?;
                Ok(())
            })
            .await?;
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
        let filter = region.rows(KeyKind::Branch, None);
        region
            .each_row(&filter, async |row| {
                let custody = region.custody_of(&row.identity.slot.scope.tenant)?;
                below +=
                    usize::from(row.state != KeyState::Destroyed && custody.names_root(&row.sealed, root)?);
                Ok(())
            })
            .await?;
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
    pub(super) fn rows(&self, kind: KeyKind, tenant: Option<&TenantId>) -> RowFilter {
        RowFilter { region: self.place.region.clone(), kind, period: None, tenant: tenant.cloned() }
    }

    /// Visits rows as they stood when their page was read.
    pub(super) async fn each_row(
        &self,
        filter: &RowFilter,
        mut visit: impl AsyncFnMut(&KeyRow) -> Result<()>,
    ) -> Result<()> {
        self.each_page(filter, async |page| {
            for stored in &page {
                visit(&stored.row).await?;
            }
            Ok(())
        })
        .await
    }

    async fn each_page(
        &self,
        filter: &RowFilter,
        mut visit: impl AsyncFnMut(Vec<StoredKey>) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<KeyIdentity> = None;
        loop {
            let page = self.store.load_many(filter, after.as_ref(), ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.row.identity.clone());
            visit(page).await?;
        }
    }

    /// Writes rows; whether nobody was faster.
    pub(super) async fn written(&self, rows: Vec<RowWrite>) -> Result<bool> {
        let slots: Vec<_> = rows.iter().map(|row| row.row.identity.slot.clone()).collect();
        let written = self.ledger.write(rows, None).await?;
        for slot in &slots {
            self.forget(slot).await;
        }
        Ok(matches!(written, Written::Done { .. }))
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
    async fn reseal_all(&self, page: Vec<StoredKey>) -> Result<usize> {
        let (mut count, mut writes, mut bytes) = (0, Vec::new(), 0);
        for stored in page {
            if stored.row.state == KeyState::Destroyed {
                continue;
            }
            if let Some(row) = self.resealed_today(stored.standing()?).await? {
                bytes += row.row.sealed.len();
                writes.push(row);
            }
            if writes.len() >= RESEALED_ROWS || bytes >= RESEALED_BYTES {
                count += self.reseal_together(std::mem::take(&mut writes)).await?;
                bytes = 0;
            }
        }
        Ok(count + self.reseal_together(writes).await?)
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

    /// Destroys the branch keys of a month that are followed by newer ones and that no tenant key lies under.
    async fn destroy_unused_branches(&self, owner: &TenantId, month: Period) -> Result<usize> {
        let slot = KeySlot::branch(&self.place.region, owner, month);
        let mut destroyed_keys = 0;
        for stored in self.store.versions(&slot).await? {
            let row = stored.standing()?;
            if row.state != KeyState::DecryptOnly || self.is_parent(&row.identity).await? {
                continue;
            }
            let write = destroyed(&row)?;
            let tombstone = Destroyed { cause: Cause::Disuse, keys: vec![Taken::of(&write.row)] };
            let entry = self.ledger.sign(&tombstone).await?;
            let written = self.ledger.write(vec![write], Some(entry)).await?;
            self.forget(&slot).await;
            // If somebody was faster, the next run finds what is left.
            destroyed_keys += usize::from(matches!(written, Written::Done { .. }));
        }
        Ok(destroyed_keys)
    }

    /// Whether any tenant key lies under this branch key.
    async fn is_parent(&self, branch: &KeyIdentity) -> Result<bool> {
        let owner = &branch.slot.scope.tenant;
        let tenant = (*owner != TenantId::REGION).then_some(owner);
        let mut found = false;
        self.each_row(&self.rows(KeyKind::Tenant, tenant), async |row| {
            let slot = &row.identity.slot;
            let parent = super::tenant::parent(row);
            found |= row.state != KeyState::Destroyed
                && slot.period.month() == branch.slot.period
                && parent == (owner.clone(), branch.version);
            Ok(())
        })
        .await?;
        // Posts' keys of the month lie under it too.
        self.each_row(&self.rows(KeyKind::Post, tenant), async |row| {
            let same = row.identity.slot.period.month() == branch.slot.period;
            found |= row.state != KeyState::Destroyed && same && row.parent_version == branch.version;
            Ok(())
        })
        .await?;
        Ok(found)
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
