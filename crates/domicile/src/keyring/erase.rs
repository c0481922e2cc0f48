//! Erasing: leaves are taken out of tenant keys, and what they wrapped is gone in every copy.
//!
//! All versions of the slot are written in one compare-and-set, with the tombstone: it is durable when it is reported, and
//! nothing that was written meanwhile (a rotation, a new wrap, another erasure) is written over.

use std::collections::BTreeMap;

use super::branch::rolled_back;
use super::orders::Orders;
use super::region::RegionKeys;
use super::tombstone::{Erased, Subject, Taken};
use super::{Keyring, UnwrappedLeaf, managing};
use crate::audit::{Event, EventKind};
use crate::error::{Code, Error, Result};
use crate::guard::Permit;
use crate::ledger::overtaken;
use crate::observe;
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::scope::Scope;
use crate::store::{KeyRow, KeySlot, KeyState, RowWrite, Written};
use crate::time::Time;

/// How many times somebody else may be faster.
pub(super) const TRIES: u32 = 256;

/// How large a key's state may become, in subtrees of 41 octets: past it, the key is to be rotated.
const SUBTREES_MAX: usize = 1 << 20;

/// What was taken, where it is written, and when it is so everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErasureReport {
    /// The tombstone's number in the region's ledger; none where there was nothing to take.
    pub tombstone: Option<u64>,
    /// How many keys were written anew or destroyed.
    pub keys: usize,
    /// How many leaves were taken.
    pub leaves: usize,
    /// When.
    pub erased: Time,
    /// When every process has taken note, or the ages of what it holds have passed.
    pub done: Time,
    /// When no copy of the old rows is left that can be opened: when the last backup is gone, as the configuration says
    /// how long they are kept. None where it does not say: then whoever keeps backups knows.
    pub final_: Option<Time>,
    /// Whether no old bytes are left in the store's own files.
    pub scrubbed: bool,
}

impl Keyring {
    /// Takes the leaves that keep these out of the keys of the permit's scope, in all versions.
    ///
    /// # Errors
    /// [`KeyHeld`](Code::KeyHeld) while the scope is held; [`HomeRefused`](Code::HomeRefused) for another's permit;
    /// whatever keeps the key service, the store or the audit chain from answering: then nothing was erased, or, if the
    /// store's answer was lost, all of it.
    pub async fn erase(&self, permit: Permit, proved: &[UnwrappedLeaf]) -> Result<ErasureReport> {
        let leaves =
            proved.iter().map(|proof| (proof.tenant.period, proof.tenant.leaf.leaf, proof.tenant.subject));
        self.take(permit, leaves.collect(), &[]).await
    }

    /// Takes the segment leaves of these segments out of the region's own keys: every copy of them is ended. The permit
    /// is the region's. `ends` are the scopes whose records end with them: none where another segment has the records.
    ///
    /// # Errors
    /// As [`erase`](Self::erase); [`KeyHeld`](Code::KeyHeld) while one of these scopes is held.
    pub async fn retire(
        &self,
        permit: Permit,
        proved: &[UnwrappedLeaf],
        ends: &[Scope],
    ) -> Result<ErasureReport> {
        let region = self.region(&permit.home().region)?;
        let mut leaves = Vec::with_capacity(proved.len());
        for proof in proved {
            let (Subject::Lane { segment, .. } | Subject::Segment { segment }) = proof.tenant.subject else {
                return Err(Error::new(Code::ArgumentInvalid, "a day key is of no segment"));
            };
            let slot = region.owner_named(proof.segment.key).await?;
            let period = slot.ok_or_else(|| region.unknown(proof.segment.key))?.period;
            leaves.push((period, proof.segment.leaf, Subject::Segment { segment }));
        }
        self.take(permit, leaves, ends).await
    }

    /// Takes leaves out of the keys of the permit's scope, with a tombstone that says what each had wrapped.
    pub(super) async fn take(
        &self,
        permit: Permit,
        leaves: Vec<(Period, LeafNumber, Subject)>,
        ends: &[Scope],
    ) -> Result<ErasureReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        let scope = permit.scope().clone();
        let check = |orders: &Orders| {
            std::iter::once(&scope).chain(ends).try_for_each(|scope| orders.check_destruction(scope))
        };
        check(&region.follower.orders_now(region).await?.1)?;
        let event = Event::new(EventKind::Erase)
            .action(permit.action())
            .region(&region.place.region)
            .scope(permit.scope())
            .changed(0, leaves.len());
        self.audit.record(&[event]).await?;
        let mut by_period: BTreeMap<String, (Period, Vec<(LeafNumber, Subject)>)> = BTreeMap::new();
        for (period, leaf, subject) in leaves {
            by_period.entry(period.to_string()).or_insert((period, Vec::new())).1.push((leaf, subject));
        }
        for _ in 0..TRIES {
            let (ordered, orders) = region.follower.orders_now(region).await?;
            check(&orders)?;
            let punctured = region.punctured(permit.scope(), by_period.values()).await?;
            if punctured.rows.is_empty() {
                return Ok(self.report(None, 0, 0, true));
            }
            let (keys, leaves) = (punctured.rows.len(), punctured.tombstone.leaves.len());
            let entry = region.ledger.sign(&punctured.tombstone).await?;
            let number = entry.number;
            // What follows the orders that were looked at is ordered by nobody else: a hold comes before or behind.
            if number == ordered + 1
                && let Written::Done { scrubbed } =
                    region.write(punctured.rows, Vec::new(), Some(entry)).await?
            {
                region.take_note().await;
                observe::rewrote("erasure", keys);
                return Ok(self.report(Some(number), keys, leaves, scrubbed));
            }
        }
        Err(overtaken(&region.place.region))
    }

    /// What to report of something that was taken now.
    pub(super) fn report(
        &self,
        tombstone: Option<u64>,
        keys: usize,
        leaves: usize,
        scrubbed: bool,
    ) -> ErasureReport {
        let erased = self.clock.now();
        let hard = i64::try_from(self.ages.hard.as_micros()).unwrap_or(i64::MAX);
        let done = Time::from_micros(erased.micros().saturating_add(hard)).unwrap_or(erased);
        let kept = self.backups_kept.and_then(|kept| erased.after(kept));
        let final_ = kept.map(|kept| kept.max(done));
        ErasureReport { tombstone, keys, leaves, erased, done, final_, scrubbed }
    }
}

impl ErasureReport {
    /// This and what was taken after it: the later dates, and the newest tombstone.
    pub(super) fn and(self, later: &Self) -> Self {
        Self {
            tombstone: later.tombstone.or(self.tombstone),
            keys: self.keys + later.keys,
            leaves: self.leaves + later.leaves,
            scrubbed: self.scrubbed && later.scrubbed,
            ..later.clone()
        }
    }
}

struct Punctured {
    rows: Vec<RowWrite>,
    tombstone: Erased,
}

impl RegionKeys {
    /// The rows of all versions without these leaves, as they stand in the store now. What holds none of them any
    /// longer is left as it is.
    async fn punctured<'a>(
        &self,
        scope: &Scope,
        periods: impl Iterator<Item = &'a (Period, Vec<(LeafNumber, Subject)>)>,
    ) -> Result<Punctured> {
        let mut punctured =
            Punctured { rows: Vec::new(), tombstone: Erased { leaves: Vec::new(), keys: Vec::new() } };
        for (period, leaves) in periods {
            let slot = KeySlot::tenant(&self.place.region, scope, *period);
            let numbers: Vec<_> = leaves.iter().map(|(leaf, _)| *leaf).collect();
            let rows = self.without_leaves(&slot, &numbers).await?;
            if rows.is_empty() {
                continue;
            }
            punctured.tombstone.leaves.extend(leaves);
            punctured.tombstone.keys.extend(rows.iter().map(|row| Taken::of(&row.row)));
            punctured.rows.extend(rows);
        }
        Ok(punctured)
    }

    /// The rows of a slot without these leaves; those that hold none of them are left out.
    pub(super) async fn without_leaves(
        &self,
        slot: &KeySlot,
        leaves: &[LeafNumber],
    ) -> Result<Vec<RowWrite>> {
        let mut rows = Vec::new();
        for stored in self.store.versions(slot).await? {
            let row = stored.standing()?;
            if row.state == KeyState::Destroyed {
                continue;
            }
            let replaces = row.generation;
            let key = self.open_row(row).await?;
            if !leaves.iter().any(|leaf| key.tree.holds(*leaf)) {
                continue;
            }
            let tree = key.tree.without(leaves);
            if tree.subtrees() > SUBTREES_MAX {
                return Err(Error::new(
                    Code::ArgumentInvalid,
                    format!("the {slot} has lost too many leaves one by one"),
                )
                .rule(format!("the state of a key has at most {SUBTREES_MAX} subtrees"))
                .advise("erase neighbours together, or rotate the key and rewrap what stays"));
            }
            let row = self.resealed(&key, key.state, &tree).await?;
            rows.push(RowWrite { row, replaces: Some(replaces), buries: true, leaves: leaves.to_vec() });
        }
        Ok(rows)
    }
}

/// A row without its key: nothing is left of it but its name.
pub(super) fn destroyed(row: &KeyRow) -> Result<RowWrite> {
    let generation = row.generation.checked_add(1).ok_or_else(|| rolled_back(&row.identity.slot))?;
    let replaces = Some(row.generation);
    let row = KeyRow {
        generation,
        state: KeyState::Destroyed,
        commitment: [0; 32],
        parent_version: 0,
        sealed: Vec::new(),
        ..row.clone()
    };
    Ok(RowWrite { row, replaces, buries: true, leaves: Vec::new() })
}
