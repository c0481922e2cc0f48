//! Branch keys: one per region (or tenant with custody of its own) and month, the only keys that key services wrap.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::commitment::{committed, name_and_commit};
use super::region::RegionKeys;
use crate::audit::{Event, EventKind};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::observe;
use crate::period::Period;
use crate::scope::TenantId;
use crate::secret::Secret;
use crate::store::{Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState};
use crate::{kdf, time::Clock};

pub(super) const COMMITMENT_LABEL: &[u8] = b"domicile/v1/commitment/branch-key";

/// An unwrapped branch key, and its key services' consent to its use.
#[derive(Debug)]
pub(super) struct BranchKey {
    pub(super) identity: KeyIdentity,
    pub(super) generation: u64,
    pub(super) state: KeyState,
    pub(super) name: KeyName,
    pub(super) secret: Secret,
    consent: Arc<Consent>,
}

/// When the key services last said yes.
#[derive(Debug)]
struct Consent {
    asked: AtomicU64,
    /// How much earlier than others this process asks again.
    early: Duration,
    ended: AtomicBool,
    asking: AtomicBool,
}

impl BranchKey {
    /// The key under which tenant keys of this branch are sealed.
    pub(super) fn tenant_key_sealing_key(&self) -> Secret {
        kdf::derive(&self.secret, &[], &[b"domicile/v1/branch/tenant-key"])
    }

    /// The key under which post keys of this branch are sealed.
    pub(super) fn post_key_sealing_key(&self) -> Secret {
        kdf::derive(&self.secret, &[], &[b"domicile/v1/branch/post-key"])
    }

    pub(super) fn slot(&self) -> &KeySlot {
        &self.identity.slot
    }

    /// How long ago the key services said yes.
    fn age(&self, clock: &dyn Clock) -> Duration {
        let asked = Duration::from_micros(self.consent.asked.load(Ordering::SeqCst));
        clock.elapsed().saturating_sub(asked)
    }

    /// Whether it may still be used.
    pub(super) fn usable(&self, hard: Duration, clock: &dyn Clock) -> bool {
        !self.consent.ended.load(Ordering::SeqCst) && self.age(clock) < hard
    }

    /// Whether the key services said no.
    pub(super) fn check_consent(&self) -> Result<()> {
        if self.consent.ended.load(Ordering::SeqCst) {
            return Err(Error::new(
                Code::KmsDenied,
                format!("the key services no longer open the {}", self.slot()),
            ));
        }
        Ok(())
    }

    fn end(&self) {
        self.consent.ended.store(true, Ordering::SeqCst);
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

impl RegionKeys {
    /// The branch key that seals new tenant keys of this owner and month; made if there is none.
    pub(super) async fn sealing_branch(&self, owner: &TenantId, month: Period) -> Result<Arc<BranchKey>> {
        let slot = KeySlot::branch(&self.place.region, owner, month);
        let newest = async |_: Option<Arc<u32>>| match self.store.newest(&slot).await? {
            Some(stored) => Ok(stored.standing()?.identity.version),
            None => self.generate_branch(slot.clone(), 1).await,
        };
        let at = (owner.clone(), month);
        let mut looked_again = false;
        loop {
            let version = self.sealing_branches.get(&at, |_| true, newest).await?;
            let branch = self.branch(owner, month, *version).await.and_then(|branch| match branch.state {
                KeyState::Active => Ok(branch),
                state => Err(sealing_no_longer(&slot, state)),
            });
            match branch {
                // A newer one may seal by now than the one that was at hand.
                Err(error) if error.code() == Code::KeyDestroyed && !looked_again => {
                    self.sealing_branches.stale(&at).await;
                    looked_again = true;
                }
                branch => return branch,
            }
        }
    }

    /// One branch key, unwrapped by one call however many ask at once.
    pub(super) async fn branch(
        &self,
        owner: &TenantId,
        month: Period,
        version: u32,
    ) -> Result<Arc<BranchKey>> {
        let slot = KeySlot::branch(&self.place.region, owner, month);
        let load = async |before: Option<Arc<BranchKey>>| {
            let stored = self.store.find(&KeyIdentity { slot: slot.clone(), version }).await?;
            let loaded = match stored {
                Some(stored) => self.unwrap_branch(&stored.standing()?, before.as_deref()).await,
                None => Err(Error::new(
                    Code::KeyUnknown,
                    format!("the key store has no {slot}, version {version}"),
                )
                .advise("restore the key store: what it lost opens with nothing else")),
            };
            if let (Err(error), Some(before)) = (&loaded, &before)
                && !error.is_retryable()
            {
                before.end();
            }
            loaded
        };
        let usable = |branch: &BranchKey| branch.usable(self.ages.hard, &*self.clock);
        let branch = self.branches.get(&(owner.clone(), month, version), usable, load).await?;
        self.renew_consent(&branch).await?;
        Ok(branch)
    }

    /// Behind the soft age, one caller asks the key services again, while the others go on. No answer changes
    /// nothing until the hard age; a denial ends the key at once.
    pub(super) async fn renew_consent(&self, branch: &BranchKey) -> Result<()> {
        branch.check_consent()?;
        let soft = self.ages.soft.saturating_sub(branch.consent.early);
        if branch.age(&*self.clock) < soft || branch.consent.asking.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // Whoever is dropped while asking leaves it to the next.
        let asking = Asking(&branch.consent.asking);
        let stored = self.store.find(&branch.identity).await;
        let renewed = match stored
            .and_then(|stored| stored.map(crate::store::StoredKey::standing).transpose())
        {
            Ok(Some(row)) => self.unwrap_branch(&row, Some(branch)).await,
            Ok(None) => Err(Error::new(Code::KeyUnknown, format!("the key store has no {}", branch.slot()))),
            Err(error) => Err(error),
        };
        drop(asking);
        match renewed {
            Ok(renewed) => {
                branch.consent.asked.store(renewed.consent.asked.load(Ordering::SeqCst), Ordering::SeqCst);
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(code = %error.code(), key = %branch.name, "a branch key's consent could not be renewed");
                Ok(())
            }
            Err(error) => {
                branch.end();
                Err(error)
            }
        }
    }

    /// Makes a branch key of a version that does not exist; says which version stands in the end.
    pub(super) async fn generate_branch(&self, slot: KeySlot, version: u32) -> Result<u32> {
        let identity = KeyIdentity { slot, version };
        let (row, secret) = self.new_branch(identity).await?;
        let stands = match self.store.insert(&row).await? {
            Inserted::Ours => {
                let branch = self.branch_key(&row, secret, None);
                let key = (row.identity.slot.scope.tenant.clone(), row.identity.slot.period, version);
                // Whoever asks first finds it unwrapped.
                let _ = self.branches.get(&key, |_| true, async |_| Ok(branch)).await?;
                row.identity.version
            }
            Inserted::Theirs(theirs) => theirs.standing()?.identity.version,
            Inserted::Orphan => {
                return Err(Error::new(Code::StoreUnavailable, "the key store did not keep a branch key"));
            }
        };
        Ok(stands)
    }

    /// A fresh branch key and its row, recorded and not yet written.
    pub(super) async fn new_branch(&self, identity: KeyIdentity) -> Result<(KeyRow, Secret)> {
        let custody = self.custody_of(&identity.slot.scope.tenant)?;
        let made = custody.generate(&context(&identity, 1), &*self.randomness).await;
        observe::asked_kms("generate", &self.place.region, outcome(&made));
        let (secret, sealed) = made?;
        let mut row = KeyRow {
            identity,
            generation: 1,
            state: KeyState::Active,
            name: KeyName([0; 16]),
            commitment: [0; 32],
            parent_version: 0,
            sealed,
        };
        name_and_commit(COMMITMENT_LABEL, &mut row, secret.expose());
        // Before the row: no key is ever in the store of which the chain does not know.
        self.audit.record(&[event(EventKind::Generate, &row)]).await?;
        Ok((row, secret))
    }

    /// A row's next generation, wrapped for the holders of today.
    pub(super) async fn rewrapped_branch(&self, branch: &BranchKey, state: KeyState) -> Result<KeyRow> {
        let generation = branch.generation + 1;
        let custody = self.custody_of(&branch.slot().scope.tenant)?;
        let context = context(&branch.identity, generation);
        let wrapped = custody.wrap(&branch.secret, &context, &*self.randomness).await;
        observe::asked_kms("wrap", &self.place.region, outcome(&wrapped));
        let mut row = KeyRow {
            identity: branch.identity.clone(),
            generation,
            state,
            name: branch.name,
            commitment: [0; 32],
            parent_version: 0,
            sealed: wrapped?,
        };
        super::commitment::commit(COMMITMENT_LABEL, &mut row, branch.secret.expose());
        Ok(row)
    }

    /// Unwraps a row: the key services are asked, and what they were asked is on record before.
    pub(super) async fn unwrap_branch(&self, row: &KeyRow, before: Option<&BranchKey>) -> Result<BranchKey> {
        let slot = &row.identity.slot;
        if before.is_some_and(|before| row.generation < before.generation) {
            return Err(rolled_back(slot));
        }
        if row.state == KeyState::Destroyed {
            return Err(self.destroyed(row).await?);
        }
        let event = event(EventKind::Unwrap, row);
        self.audit.record(std::slice::from_ref(&event)).await?;
        let custody = self.custody_of(&slot.scope.tenant)?;
        let asked = self.clock.elapsed();
        let secret = custody.unwrap(&row.sealed, &context(&row.identity, row.generation)).await;
        observe::asked_kms("unwrap", &self.place.region, outcome(&secret));
        let secret = match secret {
            Ok(secret) => secret,
            Err(error) => {
                self.audit.record(&[event.outcome(error.code())]).await?;
                return Err(error);
            }
        };
        if !committed(COMMITMENT_LABEL, row, secret.expose()) {
            return Err(unverified(slot));
        }
        let branch = self.branch_key(row, secret, before);
        branch.consent.asked.store(micros(asked), Ordering::SeqCst);
        Ok(branch)
    }

    /// An unwrapped branch key. The consent to it is one, however often its row was loaded: what holds an older load is
    /// renewed with it. A denial is final for those who held it.
    fn branch_key(&self, row: &KeyRow, secret: Secret, before: Option<&BranchKey>) -> BranchKey {
        let consent = before.map(|before| &before.consent);
        let consent = consent.filter(|consent| !consent.ended.load(Ordering::SeqCst));
        BranchKey {
            identity: row.identity.clone(),
            generation: row.generation,
            state: row.state,
            name: row.name,
            secret,
            consent: consent.cloned().unwrap_or_else(|| self.new_consent()),
        }
    }

    fn new_consent(&self) -> Arc<Consent> {
        // No key material: what tells this process from others that began with it.
        let chance = RandomState::new().build_hasher().finish();
        let fifth = self.ages.soft / 5;
        Arc::new(Consent {
            asked: AtomicU64::new(micros(self.clock.elapsed())),
            early: fifth.saturating_mul(u32::try_from(chance % 1_000).unwrap_or(0)) / 1_000,
            ended: AtomicBool::new(false),
            asking: AtomicBool::new(false),
        })
    }
}

struct Asking<'a>(&'a AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn outcome<T>(result: &Result<T>) -> &'static str {
    result.as_ref().map_or_else(|error| error.code().as_str(), |_| "ok")
}

/// An event about a key, by its row.
pub(super) fn event(kind: EventKind, row: &KeyRow) -> Event {
    let slot = &row.identity.slot;
    Event::new(kind).region(&slot.region).scope(&slot.scope).period(slot.period).key(row.name)
}

pub(super) fn unverified(slot: &KeySlot) -> Error {
    Error::new(Code::KeyUnverified, format!("the key store's {slot} does not verify"))
        .advise("the row was changed or belongs to another key: restore the key store")
}

/// A row of a lower generation than one that this process has seen.
pub(super) fn rolled_back(slot: &KeySlot) -> Error {
    Error::new(Code::KeyRolledBack, format!("an old row of the {slot} was put back"))
        .advise("find out who restored it; `domicile key replay` takes again what was erased since")
}

/// A key that opens what it sealed before, and nothing new.
pub(super) fn sealing_no_longer(slot: &KeySlot, state: KeyState) -> Error {
    Error::new(Code::KeyDestroyed, format!("the {slot} no longer seals ({state})"))
}

pub(super) fn context(identity: &KeyIdentity, generation: u64) -> EncryptionContext {
    let slot = &identity.slot;
    EncryptionContext {
        region: slot.region.clone(),
        owner: slot.scope.tenant.clone(),
        period: slot.period,
        kind: slot.kind,
        version: identity.version,
        generation,
        share: None,
    }
}
