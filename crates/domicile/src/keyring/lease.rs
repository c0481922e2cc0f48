//! Leases: a data key that is in use ends with the tenant key that it came from.
//!
//! A lease asks nobody. [`check`](Lease::check) says whether its key may still be used, from what this process knows;
//! [`Keyring::keep_up`] brings that knowledge up to date, for all leases at once. Where nobody calls it, every lease lapses
//! with the hard age of its branch key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::branch::BranchKey;
use super::follow::Follower;
use super::orders::Orders;
use super::region::RegionKeys;
use super::tenant::TenantKey;
use super::tombstone::Subject;
use super::{Keyring, tenant};
use crate::error::{Code, Error, Result};
use crate::observe;
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::scope::Scope;
use crate::store::{KeyName, KeyState};
use crate::time::Clock;

/// How long a data key may be used: as long as its tenant key is what it was, and its branch key's consent stands.
///
/// Cheap to clone and to ask: two clocks are compared.
#[derive(Clone)]
pub struct Lease {
    held: Arc<Held>,
}

struct Held {
    key: KeyName,
    leaf: LeafNumber,
    /// What the leaf wrapped, for whoever opens it; none for a fresh one.
    subject: Option<Subject>,
    /// Whether something new is sealed under it: then it also ends when the key is followed by another.
    seals: bool,
    branch: RwLock<Arc<BranchKey>>,
    follower: Arc<Follower>,
    clock: Arc<dyn Clock>,
    hard: Duration,
    ended: OnceLock<Error>,
}

impl Lease {
    /// Whether the data key may be used now.
    ///
    /// # Errors
    /// What ended it: [`KeyDestroyed`](Code::KeyDestroyed), [`KeyShredding`](Code::KeyShredding),
    /// [`KmsDenied`](Code::KmsDenied) and the like, for good; [`KeyLapsed`](Code::KeyLapsed) while nobody has asked the
    /// store or the key services for the hard age of keys.
    pub fn check(&self) -> Result<()> {
        let Held { branch, follower, clock, hard, ended, .. } = &*self.held;
        if let Some(reason) = ended.get() {
            return Err(reason.again());
        }
        let branch = branch.read().unwrap_or_else(PoisonError::into_inner);
        branch.check_consent()?;
        let heard = follower.age(&**clock).is_some_and(|age| age < *hard);
        if heard && branch.usable(*hard, &**clock) {
            return Ok(());
        }
        Err(Error::new(Code::KeyLapsed, "a key was in use for longer than anybody vouched for it")
            .rule(format!("keys are used for {} s without a word of their key services and store", hard.as_secs()))
            .advise("call `Domicile::keep_up` every few seconds while keys are in use; if that was done, see that the services answer"))
    }

    /// Whether it has ended for good, and did not merely lapse.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.held.ended.get().is_some()
    }
}

impl Held {
    fn end(&self, reason: &Error) {
        // Whoever was first has said why.
        let _ = self.ended.set(reason.again());
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.held.key)
            .field("leaf", &self.held.leaf)
            .finish_non_exhaustive()
    }
}

/// The leases of one region, and which of them may have ended.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<Standing>,
    /// Whoever keeps up returns when everything is judged, by itself or by another.
    judging: tokio::sync::Mutex<()>,
}

/// Slots whose leases are being judged. Those that are not when this is dropped are judged the next time.
struct Judging<'a> {
    leases: &'a Leases,
    left: Vec<(Scope, Period)>,
}

impl Drop for Judging<'_> {
    fn drop(&mut self) {
        self.leases.standing().changed.extend(self.left.drain(..));
    }
}

/// What this process knew of a region's keys when somebody asked for one. Whatever changed by the time that it is handed out
/// may be about that very key.
#[derive(Debug)]
pub(super) struct Known {
    changes: u64,
    pub(super) orders: Arc<Orders>,
}

#[derive(Default)]
struct Standing {
    slots: HashMap<(Scope, Period), Vec<Weak<Held>>>,
    /// Counts what was written, whether there were leases then or not.
    changes: u64,
    /// Slots of which something was written since their leases were judged.
    changed: HashSet<(Scope, Period)>,
    /// The orders under which all leases were judged last.
    orders: Option<Arc<Orders>>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standing({} slots, {} changed)", self.slots.len(), self.changed.len())
    }
}

impl Leases {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was written about a slot.
    pub(super) fn slot_changed(&self, scope: &Scope, period: Period) {
        self.standing().changes += 1;
        self.judge_again(scope, period);
    }

    /// Has the leases of a slot judged the next time.
    fn judge_again(&self, scope: &Scope, period: Period) {
        let slot = (scope.clone(), period);
        let mut standing = self.standing();
        if standing.slots.contains_key(&slot) {
            standing.changed.insert(slot);
        }
    }

    /// Something was written about a branch key of this month.
    pub(super) fn month_changed(&self, month: Period) {
        self.change_where(|period| period.month() == month);
    }

    /// Anything may have been written.
    pub(super) fn all_changed(&self) {
        self.change_where(|_| true);
    }

    fn change_where(&self, of: impl Fn(Period) -> bool) {
        let mut standing = self.standing();
        let Standing { slots, changed, changes, .. } = &mut *standing;
        *changes += 1;
        changed.extend(slots.keys().filter(|(_, period)| of(*period)).cloned());
    }

    /// Adds a lease of a key that was asked for when no more than `known` was. If more is by now, it is judged the next
    /// time: nobody marked it, since it was not there.
    fn add(&self, scope: &Scope, period: Period, held: &Arc<Held>, known: &Known, orders: &Arc<Orders>) {
        let mut standing = self.standing();
        let slot = (scope.clone(), period);
        if standing.changes != known.changes || !Arc::ptr_eq(&known.orders, orders) {
            standing.changed.insert(slot.clone());
        }
        let of_slot = standing.slots.entry(slot).or_default();
        // Those that nobody holds any longer go whenever the list would have to grow.
        if of_slot.len() == of_slot.capacity() {
            of_slot.retain(|held| held.strong_count() > 0);
        }
        of_slot.push(Arc::downgrade(held));
    }

    /// Those of a slot that somebody holds and that have not ended. A slot without any is forgotten.
    fn of(&self, slot: &(Scope, Period)) -> Vec<Arc<Held>> {
        let mut standing = self.standing();
        let Some(of_slot) = standing.slots.get_mut(slot) else { return Vec::new() };
        of_slot.retain(|held| held.strong_count() > 0);
        if of_slot.is_empty() {
            standing.slots.remove(slot);
            return Vec::new();
        }
        let held = of_slot.iter().filter_map(Weak::upgrade);
        held.filter(|held| held.ended.get().is_none()).collect()
    }

    /// Slots whose leases must be judged: where something was written, and all of them under new orders.
    fn take_changed(&self, orders: &Arc<Orders>) -> Judging<'_> {
        let mut standing = self.standing();
        let known = standing.orders.as_ref().is_some_and(|known| Arc::ptr_eq(known, orders));
        if !known {
            standing.orders = Some(orders.clone());
            let Standing { slots, changed, .. } = &mut *standing;
            changed.extend(slots.keys().cloned());
        }
        Judging { leases: self, left: standing.changed.drain().collect() }
    }

    /// The branch keys that leases stand under, each once. Leases that nobody holds any longer are forgotten.
    fn branches(&self) -> Vec<Arc<BranchKey>> {
        let mut branches = BTreeMap::new();
        self.standing().slots.retain(|_, of_slot| {
            of_slot.retain(|held| {
                let Some(held) = held.upgrade() else { return false };
                let branch = held.branch.read().unwrap_or_else(PoisonError::into_inner).clone();
                branches.entry(Arc::as_ptr(&branch) as usize).or_insert(branch);
                true
            });
            !of_slot.is_empty()
        });
        branches.into_values().collect()
    }

    fn end_all(&self, reason: &Error) {
        let standing = self.standing();
        standing.slots.values().flatten().filter_map(Weak::upgrade).for_each(|held| held.end(reason));
    }
}

impl Keyring {
    /// Learns what changed, for all data keys in use: the stores' changes, the consent of branch keys that is due for
    /// renewal, and which leases ended by that. Whoever uses data keys for longer than a moment calls this every few
    /// seconds; the poll's age says when it asks a store, and nothing is asked for a region of which no key is in use.
    ///
    /// # Errors
    /// What kept a region's store from saying what changed, for longer than the hard age, or that it is not the store
    /// that it was. The leases know by then; those of other regions were brought up to date all the same.
    pub async fn keep_up(&self) -> Result<()> {
        let mut failed = None;
        for region in self.regions.values().filter(|region| region.has_leases()) {
            if let Err(error) = region.keep_up().await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// How old what is known of a store may be before [`keep_up`](Self::keep_up) asks it again.
    #[must_use]
    pub fn poll_age(&self) -> Duration {
        self.ages.poll
    }
}

impl RegionKeys {
    /// What is known now.
    pub(super) fn known(&self) -> Known {
        // In this order: what is ordered in between is seen by whoever compares.
        let orders = self.follower.orders();
        Known { changes: self.leases.standing().changes, orders }
    }

    /// A lease of a leaf that is handed out.
    pub(super) fn lease(
        &self,
        known: &Known,
        key: &TenantKey,
        leaf: LeafNumber,
        subject: Option<Subject>,
        seals: bool,
    ) -> Lease {
        let held = Arc::new(Held {
            key: key.name,
            leaf,
            subject,
            seals,
            branch: RwLock::new(key.branch.clone()),
            follower: self.follower.clone(),
            clock: self.clock.clone(),
            hard: self.ages.hard,
            ended: OnceLock::new(),
        });
        let slot = key.slot();
        self.leases.add(&slot.scope, slot.period, &held, known, &self.follower.orders());
        Lease { held }
    }

    fn has_leases(&self) -> bool {
        !self.leases.standing().slots.is_empty()
    }

    async fn keep_up(&self) -> Result<()> {
        if let Err(error) = self.catch_up().await {
            if !error.is_retryable() {
                self.leases.end_all(&error);
            }
            return Err(error);
        }
        for branch in self.leases.branches() {
            // A denial ends the branch key, and so whatever stands under it: its leases say so.
            if let Err(error) = self.renew_consent(&branch).await {
                tracing::warn!(code = %error.code(), key = %branch.name, "keys in use end with their branch key");
            }
        }
        let _alone = self.leases.judging.lock().await;
        let orders = self.follower.orders();
        let mut judging = self.leases.take_changed(&orders);
        while let Some(slot) = judging.left.last().cloned() {
            self.judge(&slot, &orders).await;
            judging.left.pop();
        }
        Ok(())
    }

    /// Ends the leases of a slot whose keys are not what they were.
    async fn judge(&self, slot: &(Scope, Period), orders: &Orders) {
        let held = self.leases.of(slot);
        if held.is_empty() {
            return;
        }
        let (scope, period) = slot;
        let allowed = |seals| orders.check_use(scope, seals);
        let keys = match self.slot(scope, *period).await {
            Ok(keys) => keys,
            Err(error) if error.is_retryable() => {
                // Nobody knows yet: they are judged the next time, and lapse with their branch key until then.
                self.leases.judge_again(scope, *period);
                return;
            }
            Err(error) => {
                held.iter().for_each(|held| held.end(&error));
                return;
            }
        };
        let mut ended = 0;
        for held in held {
            let judged = match allowed(held.seals) {
                Ok(()) => self.judged(&keys, &held).await,
                Err(error) => Err(error),
            };
            match judged {
                Ok(branch) => *held.branch.write().unwrap_or_else(PoisonError::into_inner) = branch,
                Err(error) if error.is_retryable() => self.leases.judge_again(scope, *period),
                Err(error) => {
                    held.end(&error);
                    ended += 1;
                }
            }
        }
        observe::leases_ended(ended);
    }

    /// The branch key that a lease stands under now.
    async fn judged(&self, keys: &tenant::SlotKeys, held: &Held) -> Result<Arc<BranchKey>> {
        let key = keys.named(held.key).unwrap_or_else(|| Err(self.unknown(held.key)))?;
        if held.seals && key.state != KeyState::Active {
            return Err(super::branch::sealing_no_longer(key.slot(), key.state));
        }
        self.leaf(key, held.leaf, held.subject.as_ref()).await?;
        Ok(key.branch.clone())
    }
}
