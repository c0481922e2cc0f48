//! The end of whole keys: those of periods that are over, and those that somebody asked to shred.

use std::collections::BTreeMap;
use std::time::Duration;

use super::erase::{ErasureReport, TRIES, destroyed};
use super::orders::{
    Concerned, HoldAdded, HoldReleased, Orders, PlacesRule, PlacesSet, ShredAsked, ShredCancelled, ShredDone,
};
use super::region::RegionKeys;
use super::tombstone::{Cause, Destroyed, Taken};
use super::{Hold, Keyring, Shredding, managing};
use crate::audit::{Event, EventKind};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::guard::Permit;
use crate::ledger::overtaken;
use crate::observe;
use crate::period::Period;
use crate::processing::Where;
use crate::region::Region;
use crate::retention::Retention;
use crate::scope::Scope;
use crate::store::{KeySlot, KeyState, RowWrite, StoredKey, Written};
use crate::time::Time;

/// How many keys one tombstone speaks of at most: few enough for one entry of the ledger, however long their names are.
const KEYS_MAX: usize = 4_000;

/// Keys that are due, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// Whose.
    pub scope: Scope,
    /// Of which period.
    pub period: Period,
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub due: Time,
    /// The hold that keeps them, if one does.
    pub held: Option<String>,
}

/// What expired.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpiryReport {
    /// All that is due, what is held among it.
    pub due: Vec<Due>,
    /// What was destroyed of it; none of a dry run.
    pub destroyed: Option<ErasureReport>,
}

impl Keyring {
    /// Destroys the tenant keys of a region whose time is over, and those whose shredding is due; with `dry_run` it only
    /// says which. The permit is the region's.
    ///
    /// # Errors
    /// Whatever keeps the key service, the store or the audit chain from answering. What was destroyed until then stays
    /// so; the same call goes on.
    pub async fn expire(&self, permit: Permit, retention: &Retention, dry_run: bool) -> Result<ExpiryReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up_now().await?;
        let orders = region.follower.orders();
        let now = self.clock.now();
        let mut due: BTreeMap<(String, String, String), Due> = BTreeMap::new();
        let mut pages = region.pages(KeyKind::Tenant, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in &page {
                let slot = &row.identity.slot;
                let found =
                    (row.state != KeyState::Destroyed).then(|| region.due(slot, retention, &orders, now));
                if let Some(found) = found.flatten() {
                    let Scope { tenant, record_type } = &slot.scope;
                    due.insert((tenant.to_string(), record_type.to_string(), slot.period.to_string()), found);
                }
            }
        }
        let due: Vec<Due> = due.into_values().collect();
        if dry_run {
            return Ok(ExpiryReport { due, destroyed: None });
        }
        let mut total = self.report(None, 0, 0, true);
        for cause in [Cause::Expiry, Cause::Shredding] {
            let slots: Vec<_> = due
                .iter()
                .filter(|due| due.cause == cause && due.held.is_none())
                .map(|due| KeySlot::tenant(&region.place.region, &due.scope, due.period))
                .collect();
            // A hold or a shredding that is taken back while this runs counts from that moment on.
            let still = |orders: &Orders, slot: &KeySlot| {
                region
                    .due(slot, retention, orders, now)
                    .is_some_and(|due| due.cause == cause && due.held.is_none())
            };
            for slots in slots.chunks(KEYS_MAX) {
                total = total.and(&self.destroy(region, &permit, slots, cause, &still).await?);
            }
        }
        self.end_shreddings(region, now).await?;
        region.follower.poll_next();
        Ok(ExpiryReport { due, destroyed: Some(total) })
    }

    /// Says of shreddings that are due that they are done, where no key of theirs is left.
    async fn end_shreddings(&self, region: &RegionKeys, now: Time) -> Result<()> {
        let (_, orders) = region.follower.orders_now(region).await?;
        let ends = |shredding: &&Shredding| shredding.due <= now && !shredding.done;
        let mut ended: Vec<_> =
            orders.shreddings().filter(ends).map(|shredding| shredding.whom.clone()).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let mut pages = region.pages(KeyKind::Tenant, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in page.iter().filter(|stored| stored.row.state != KeyState::Destroyed)
            {
                ended.retain(|whom| !whom.concerns(&row.identity.slot.scope));
            }
        }
        for whom in ended {
            region.ledger.say(&ShredDone { whom, reason: String::new() }).await?;
        }
        Ok(())
    }

    async fn destroy(
        &self,
        region: &RegionKeys,
        permit: &Permit,
        slots: &[KeySlot],
        cause: Cause,
        still: &(dyn Fn(&Orders, &KeySlot) -> bool + Sync),
    ) -> Result<ErasureReport> {
        let events: Vec<_> = slots
            .iter()
            .map(|slot| {
                Event::new(EventKind::Destroy)
                    .action(permit.action())
                    .region(&slot.region)
                    .scope(&slot.scope)
                    .period(slot.period)
                    .what(cause.as_str())
            })
            .collect();
        self.audit.record(&events).await?;
        let mut total = self.report(None, 0, 0, true);
        let mut tries = 0;
        while tries < TRIES {
            let (ordered, orders) = region.follower.orders_now(region).await?;
            let mut rows: Vec<RowWrite> = Vec::new();
            for slot in slots.iter().filter(|slot| still(&orders, slot)) {
                for stored in region.store.versions(slot).await? {
                    let row = stored.standing()?;
                    if row.state != KeyState::Destroyed {
                        rows.push(destroyed(&row)?);
                    }
                }
                if rows.len() >= KEYS_MAX {
                    break;
                }
            }
            // The others come with the next tombstone: a slot may have many versions.
            rows.truncate(KEYS_MAX);
            if rows.is_empty() {
                return Ok(total);
            }
            let tombstone = Destroyed { cause, keys: rows.iter().map(|row| Taken::of(&row.row)).collect() };
            let keys = rows.len();
            let entry = region.ledger.sign(&tombstone).await?;
            let number = entry.number;
            // What follows the orders that were looked at is ordered by nobody else: a hold comes before or behind.
            if number == ordered + 1
                && let Written::Done { scrubbed } = region.write(rows, Vec::new(), Some(entry)).await?
            {
                region.take_note().await;
                observe::rewrote(cause.as_str(), keys);
                total = total.and(&self.report(Some(number), keys, 0, scrubbed));
                tries = 0;
            } else {
                tries += 1;
            }
        }
        Err(overtaken(&region.place.region))
    }

    /// Destroys the keys that posts sealed to on these days. The permit is the region's.
    pub(crate) async fn destroy_posts(&self, permit: Permit, days: &[Period]) -> Result<ErasureReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        let mut slots = Vec::new();
        for day in days {
            let slot = KeySlot::post(&region.place.region, *day);
            let stands = region.store.newest(&slot).await?;
            if stands.is_some_and(|stored| stored.row.state != KeyState::Destroyed) {
                slots.push(slot);
            }
        }
        if slots.is_empty() {
            return Ok(self.report(None, 0, 0, true));
        }
        self.destroy(region, &permit, &slots, Cause::Disuse, &|_, _| true).await
    }

    /// Forbids that anything of a scope is destroyed or erased, for a reason.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) without a reason; those of the store, the key service and the chain.
    pub async fn hold(&self, permit: Permit, whom: Concerned, reason: &str) -> Result<u64> {
        let reason = checked_reason(reason)?;
        self.order(permit, &whom, "hold", &HoldAdded { whom: whom.clone(), reason }).await
    }

    /// Releases a hold, for a reason.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) without a reason, or where there is no such hold; as
    /// [`hold`](Self::hold).
    pub async fn release(&self, permit: Permit, whom: Concerned, reason: &str) -> Result<u64> {
        let reason = checked_reason(reason)?;
        if !self.holds(&permit.home().region).await?.iter().any(|hold| hold.whom == whom) {
            return Err(no_such("hold", &whom));
        }
        self.order(permit, &whom, "release", &HoldReleased { whom: whom.clone(), reason }).await
    }

    /// Asks that all keys of a scope be destroyed when a time has passed, in which none of them is used.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub async fn shred(&self, permit: Permit, whom: Concerned, pending: Duration) -> Result<u64> {
        self.order(permit, &whom, "shred", &ShredAsked { whom: whom.clone(), pending }).await
    }

    /// Takes a shredding back. What was destroyed already stays so.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) where none was asked for; as [`hold`](Self::hold).
    pub async fn unshred(&self, permit: Permit, whom: Concerned) -> Result<u64> {
        if !self.shreddings(&permit.home().region).await?.iter().any(|shredding| shredding.whom == whom) {
            return Err(no_such("shredding", &whom));
        }
        let cancelled = ShredCancelled { whom: whom.clone(), reason: String::new() };
        self.order(permit, &whom, "unshred", &cancelled).await
    }

    /// Says where records of a scope may be processed from now on, for a reason: in these places and in no other. With
    /// none, where records of their home otherwise may. Every process follows within seconds.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) without a reason, or with too many places; as [`hold`](Self::hold).
    pub async fn set_places(
        &self,
        permit: Permit,
        whom: Concerned,
        mut places: Vec<Where>,
        reason: &str,
    ) -> Result<u64> {
        let reason = checked_reason(reason)?;
        places.sort();
        places.dedup();
        if places.len() > Where::COUNT_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "these are too many places for one rule")
                .rule(format!("at most {} jurisdictions and regions", Where::COUNT_MAX)));
        }
        self.order(permit, &whom, "places", &PlacesSet { whom: whom.clone(), places, reason }).await
    }

    /// Where records may be processed, as this region said for scopes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn places(&self, region: &Region) -> Result<Vec<PlacesRule>> {
        Ok(self.newest_orders(region).await?.places().cloned().collect())
    }

    /// The holds that stand in a region.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn holds(&self, region: &Region) -> Result<Vec<Hold>> {
        Ok(self.newest_orders(region).await?.holds().cloned().collect())
    }

    /// The shreddings that were asked for in a region.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn shreddings(&self, region: &Region) -> Result<Vec<Shredding>> {
        Ok(self.newest_orders(region).await?.shreddings().cloned().collect())
    }

    async fn newest_orders(&self, region: &Region) -> Result<std::sync::Arc<Orders>> {
        let region = self.region(region)?;
        region.catch_up_now().await?;
        Ok(region.follower.orders())
    }

    async fn order<S: crate::ledger::Said>(
        &self,
        permit: Permit,
        whom: &Concerned,
        what: &'static str,
        said: &S,
    ) -> Result<u64> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        let event = Event::new(EventKind::Order)
            .action(permit.action())
            .region(&region.place.region)
            .tenant_and_types(whom.tenant.as_str(), whom.types.as_str())
            .what(what);
        self.audit.record(&[event]).await?;
        let number = region.ledger.say(said).await?;
        region.take_note().await;
        Ok(number)
    }
}

impl RegionKeys {
    fn due(&self, slot: &KeySlot, retention: &Retention, orders: &Orders, now: Time) -> Option<Due> {
        let shredding = orders.shreddings_of(&slot.scope).map(|shredding| shredding.due).min();
        let shredding = shredding.map(|due| (Cause::Shredding, due));
        let expiry = retention.ends(&self.place.jurisdiction, &slot.scope, slot.period);
        let expiry = expiry.map(|end| (Cause::Expiry, end));
        let (cause, due) = [expiry, shredding].into_iter().flatten().find(|(_, due)| *due <= now)?;
        let held = orders.check_destruction(&slot.scope).err().map(|error| error.what().to_owned());
        Some(Due { scope: slot.scope.clone(), period: slot.period, cause, due, held })
    }
}

fn checked_reason(reason: &str) -> Result<String> {
    const LENGTH_MAX: usize = 500;
    if reason.trim().is_empty() || reason.len() > LENGTH_MAX || reason.chars().any(char::is_control) {
        return Err(Error::new(Code::ArgumentInvalid, "an order is given and taken back for a reason")
            .rule(format!("a reason has 1 to {LENGTH_MAX} octets and no control characters")));
    }
    Ok(reason.to_owned())
}

fn no_such(what: &str, whom: &Concerned) -> Error {
    Error::new(Code::ArgumentInvalid, format!("there is no {what} of {whom}"))
        .advise("name it as it was added: a tenant and one type, or all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Said, Statement};
    use crate::store::{KeyIdentity, KeyName, KeyRow};

    #[test]
    fn a_tombstone_of_as_many_keys_as_there_may_be_fits_into_an_entry() {
        let scope =
            Scope { tenant: "t".repeat(64).parse().unwrap(), record_type: "r".repeat(32).parse().unwrap() };
        let slot = KeySlot::tenant(&"eu-central-1".parse().unwrap(), &scope, "2026-11-24".parse().unwrap());
        let row = KeyRow {
            identity: KeyIdentity { slot, version: 1 },
            generation: 1,
            state: KeyState::Destroyed,
            name: KeyName([7; 16]),
            commitment: [0; 32],
            parent_version: 0,
            sealed: Vec::new(),
        };
        let tombstone = Destroyed { cause: Cause::Expiry, keys: vec![Taken::of(&row); KEYS_MAX] };
        assert!(tombstone.encode().unwrap().len() <= Statement::CONTENT_MAX);
    }
}
