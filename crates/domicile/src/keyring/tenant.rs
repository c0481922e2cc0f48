//! Tenant keys: one tree per scope, period and version, sealed under a branch key of the month. All versions of a
//! slot are loaded together, and are as good as their branch keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::branch::{BranchKey, event, rolled_back, sealing_no_longer, unverified};
use super::commitment::{commit, committed, name_and_commit};
use super::erase::TRIES;
use super::region::RegionKeys;
use super::tombstone::{Cause, Destroyed, Erased, Subject};
use crate::audit::EventKind;
use crate::error::{Class, Code, Error, Result};
use crate::ledger::{content, overtaken};
use crate::period::Period;
use crate::puncture::{LeafNumber, Tree};
use crate::scope::{Scope, TenantId};
use crate::secret::Secret;
use crate::store::{Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState, StoredKey};
use crate::wire::Decoder;

const SEAL_LABEL: &str = "domicile/v1/tenant-key";
const COMMITMENT_LABEL: &[u8] = b"domicile/v1/commitment/tenant-key";
const NONCE_BYTES: usize = 24;

/// The bit of a row's `parent_version` that says: the branch key is the tenant's own, and not the region's.
const OWN_BRANCH: u32 = KeyRow::OWN_BRANCH;

/// An opened tenant key.
#[derive(Debug)]
pub(super) struct TenantKey {
    pub(super) identity: KeyIdentity,
    pub(super) generation: u64,
    pub(super) name: KeyName,
    pub(super) state: KeyState,
    pub(super) tree: Tree,
    pub(super) branch: Arc<BranchKey>,
}

impl TenantKey {
    pub(super) fn slot(&self) -> &KeySlot {
        &self.identity.slot
    }
}

/// All versions of one slot, each opened or with the reason why not.
#[derive(Debug)]
pub(super) struct SlotKeys {
    versions: BTreeMap<u32, SlotKey>,
}

#[derive(Debug)]
struct SlotKey {
    name: KeyName,
    generation: u64,
    key: Result<Arc<TenantKey>>,
}

impl SlotKeys {
    fn newest(&self) -> Option<Result<&Arc<TenantKey>>> {
        self.versions.values().next_back().map(SlotKey::key)
    }

    pub(super) fn named(&self, name: KeyName) -> Option<Result<&Arc<TenantKey>>> {
        self.versions.values().find(|slot| slot.name == name).map(SlotKey::key)
    }

    fn opened(&self) -> impl Iterator<Item = &Arc<TenantKey>> {
        self.versions.values().filter_map(|slot| slot.key.as_ref().ok())
    }
}

impl SlotKey {
    fn key(&self) -> Result<&Arc<TenantKey>> {
        self.key.as_ref().map_err(Error::again)
    }
}

/// How often branch keys may be destroyed while a key is made.
pub(super) const ORPHANS_MAX: u32 = 8;

impl RegionKeys {
    /// The key that seals in this slot; made if there is none.
    pub(super) async fn sealing_key(&self, scope: &Scope, period: Period) -> Result<Arc<TenantKey>> {
        let slot = KeySlot::tenant(&self.place.region, scope, period);
        for _ in 0..ORPHANS_MAX {
            match self.slot(scope, period).await?.newest() {
                Some(key) => {
                    let key = key?.clone();
                    let active = key.state == KeyState::Active;
                    return if active { Ok(key) } else { Err(sealing_no_longer(&slot, key.state)) };
                }
                None => self.generate_tenant_key(slot.clone()).await?,
            }
        }
        Err(Error::new(Code::StoreUnavailable, format!("the key store did not keep the {slot}")))
    }

    /// The key that a wrapped key names, of this scope and period.
    pub(super) async fn opening_key(
        &self,
        scope: &Scope,
        period: Period,
        name: KeyName,
    ) -> Result<Arc<TenantKey>> {
        if let Some(key) = self.slot(scope, period).await?.named(name) {
            return key.cloned();
        }
        // Another process may have made it since the slot was loaded.
        match self.owner_named(name).await? {
            Some(slot) if slot.scope == *scope && slot.period == period => {
                self.slots.stale(&(scope.clone(), period)).await;
                match self.slot(scope, period).await?.named(name) {
                    Some(key) => key.cloned(),
                    None => Err(self.unknown(name)),
                }
            }
            // A permit speaks for its own scope alone, and a lane's key is of the lane's period.
            Some(_) => {
                Err(Error::new(Code::KeyUnverified, "the key that a wrap names belongs to somebody else")
                    .at(format!("scope {scope}, key {name}")))
            }
            None => Err(self.unknown(name)),
        }
    }

    /// Whose the key of this name is, by the store's word: it says where to look, and what is found there verifies.
    pub(super) async fn owner_named(&self, name: KeyName) -> Result<Option<KeySlot>> {
        if let Some(slot) = self.owners.get(&name).await {
            return Ok(Some(slot));
        }
        let Some(stored) = self.store.named(name).await? else { return Ok(None) };
        let slot = stored.row.identity.slot;
        if slot.region != self.place.region || slot.kind != crate::context::KeyKind::Tenant {
            return Err(unverified(&slot));
        }
        self.owners.insert(name, slot.clone()).await;
        Ok(Some(slot))
    }

    pub(super) fn unknown(&self, name: KeyName) -> Error {
        Error::new(Code::KeyUnknown, format!("the key store of {} knows no key {name}", self.place.region))
            .advise(
                "open it with the key store that sealed it; what a lost store held opens with nothing else",
            )
    }

    /// All versions of a slot, as the store has them, under branch keys whose consent stands.
    pub(super) async fn slot(&self, scope: &Scope, period: Period) -> Result<Arc<SlotKeys>> {
        let slot = KeySlot::tenant(&self.place.region, scope, period);
        let load = async |before: Option<Arc<SlotKeys>>| {
            let stored = self.store.versions(&slot).await?;
            self.open_versions(&slot, stored, before).await
        };
        let usable = |keys: &SlotKeys| self.are_usable(keys);
        let keys = self.slots.get(&(scope.clone(), period), usable, load).await?;
        for key in keys.opened() {
            self.renew_consent(&key.branch).await?;
        }
        Ok(keys)
    }

    pub(super) fn are_usable(&self, keys: &SlotKeys) -> bool {
        keys.opened().all(|key| key.branch.usable(self.ages.hard, &*self.clock))
    }

    /// All versions of a slot, as the store gave them: each opened, or with the reason why not.
    pub(super) async fn open_versions(
        &self,
        slot: &KeySlot,
        all: Vec<StoredKey>,
        before: Option<Arc<SlotKeys>>,
    ) -> Result<SlotKeys> {
        let mut versions = BTreeMap::new();
        for stored in all {
            let (version, name, generation) =
                (stored.row.identity.version, stored.row.name, stored.row.generation);
            let seen = before.as_ref().and_then(|before| before.versions.get(&version));
            let key = if seen.is_some_and(|seen| generation < seen.generation) {
                Err(rolled_back(slot))
            } else {
                Box::pin(self.open_stored(stored)).await
            };
            let key = match key {
                // What may pass, or a denial: nothing to remember.
                Err(error) if error.class() == Class::KeyService => return Err(error),
                key => key.map(Arc::new),
            };
            self.owners.insert(name, slot.clone()).await;
            let generation = generation.max(seen.map_or(0, |seen| seen.generation));
            versions.insert(version, SlotKey { name, generation, key });
        }
        Ok(SlotKeys { versions })
    }

    async fn open_stored(&self, stored: StoredKey) -> Result<TenantKey> {
        self.open_row(stored.standing()?).await
    }

    /// Opens a row, or the one that stands in its place: a rotation elsewhere may have sealed it anew since it was read, and
    /// destroyed the branch key that it lay under.
    pub(super) async fn open_row(&self, mut row: KeyRow) -> Result<TenantKey> {
        for _ in 0..TRIES {
            let error = match self.open_read(&row).await {
                Err(error) if error.code() == Code::KeyDestroyed && row.state != KeyState::Destroyed => error,
                opened => return opened,
            };
            match self.store.find(&row.identity).await? {
                Some(stored) if stored.row.generation > row.generation => row = stored.standing()?,
                _ => return Err(error),
            }
        }
        Err(overtaken(&self.place.region))
    }

    /// Opens a row as it was read: the branch key that it names, its tag, its commitment, its tree.
    async fn open_read(&self, row: &KeyRow) -> Result<TenantKey> {
        let slot = &row.identity.slot;
        if slot.region != self.place.region || slot.kind != crate::context::KeyKind::Tenant {
            return Err(unverified(slot));
        }
        if row.state == KeyState::Destroyed {
            return Err(self.destroyed(row).await?);
        }
        let (owner, version) = parent(row);
        let branch = self.branch(&owner, slot.period.month(), version).await?;
        let mut input = Decoder::new(&row.sealed);
        let nonce: [u8; NONCE_BYTES] = input.array("nonce").map_err(|_| unverified(slot))?;
        let length = input.remaining().checked_sub(16).ok_or_else(|| unverified(slot))?;
        let mut payload = Zeroizing::new(input.raw(length, "state").map_err(|_| unverified(slot))?.to_vec());
        let tag: [u8; 16] = input.array("tag").map_err(|_| unverified(slot))?;
        cipher(&branch)
            .decrypt_inout_detached(
                &nonce.into(),
                &row.associated(SEAL_LABEL),
                (&mut payload[..]).into(),
                &tag.into(),
            )
            .map_err(|_| unverified(slot))?;
        if !committed(COMMITMENT_LABEL, row, &payload) {
            return Err(unverified(slot));
        }
        let tree = Tree::decode(&payload).map_err(|source| unverified(slot).because(source))?;
        let KeyRow { identity, generation, name, state, .. } = row;
        let (identity, generation, name, state) = (identity.clone(), *generation, *name, *state);
        Ok(TenantKey { identity, generation, name, state, tree, branch })
    }

    async fn generate_tenant_key(&self, slot: KeySlot) -> Result<()> {
        let (scope, period) = (slot.scope.clone(), slot.period);
        let row = self.new_tenant_key(KeyIdentity { slot, version: 1 }).await?;
        match self.store.insert(&row).await? {
            // Whether it is ours or another's that was faster: what stands is loaded.
            Inserted::Ours | Inserted::Theirs(_) => self.slots.stale(&(scope, period)).await,
            // Another branch key seals by now than the one that was at hand.
            Inserted::Orphan => self.forget(&self.branch_of(&row.identity.slot)).await,
        }
        Ok(())
    }

    /// A fresh tenant key's row, recorded and not yet written.
    pub(super) async fn new_tenant_key(&self, identity: KeyIdentity) -> Result<KeyRow> {
        // The branch key first: a scope whose key cannot be sealed gets none.
        self.sealing_branch(&self.owner_of(&identity.slot.scope), identity.slot.period.month()).await?;
        let tree = Tree::random(&*self.randomness)?;
        let row = self.sealed_row(identity, None, KeyState::Active, &tree).await?;
        // Before the row: no key is ever in the store of which the chain does not know.
        self.audit.record(&[event(EventKind::Generate, &row)]).await?;
        Ok(row)
    }

    /// A key's next generation: with this state and tree, under the branch key that seals today.
    pub(super) async fn resealed(&self, key: &TenantKey, state: KeyState, tree: &Tree) -> Result<KeyRow> {
        self.sealed_row(key.identity.clone(), Some((key.name, key.generation)), state, tree).await
    }

    async fn sealed_row(
        &self,
        identity: KeyIdentity,
        before: Option<(KeyName, u64)>,
        state: KeyState,
        tree: &Tree,
    ) -> Result<KeyRow> {
        let failed = || Error::new(Code::KeyUnverified, "a tenant key could not be sealed");
        let owner = self.owner_of(&identity.slot.scope);
        let branch = self.sealing_branch(&owner, identity.slot.period.month()).await?;
        let own = if owner == TenantId::REGION { 0 } else { OWN_BRANCH };
        let mut payload = tree.encode().map_err(|source| failed().because(source))?;
        let mut row = KeyRow {
            identity,
            generation: 1,
            state,
            name: KeyName([0; 16]),
            commitment: [0; 32],
            parent_version: branch.identity.version | own,
            sealed: Vec::new(),
        };
        match before {
            None => name_and_commit(COMMITMENT_LABEL, &mut row, &payload),
            Some((name, generation)) => {
                (row.name, row.generation) = (name, generation + 1);
                commit(COMMITMENT_LABEL, &mut row, &payload);
            }
        }
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let tag = cipher(&branch)
            .encrypt_inout_detached(&nonce.into(), &row.associated(SEAL_LABEL), (&mut payload[..]).into())
            .map_err(|_| failed())?;
        row.sealed = [&nonce[..], &payload, &tag].concat();
        Ok(row)
    }

    /// The secret of a leaf, or the word of its tombstone.
    pub(super) async fn leaf(
        &self,
        key: &TenantKey,
        leaf: LeafNumber,
        subject: Option<&Subject>,
    ) -> Result<Secret> {
        match key.tree.leaf(leaf) {
            Some(secret) => Ok(secret),
            None => Err(self.erased(key, leaf, subject).await?),
        }
    }

    /// What to say of a leaf that is gone: that it was erased, if a signed tombstone says so of this very subject. A
    /// file can name any leaf, and whoever may write to the file could pass off a loss as an erasure.
    async fn erased(&self, key: &TenantKey, leaf: LeafNumber, subject: Option<&Subject>) -> Result<Error> {
        let at = format!("scope {}, leaf {leaf}", key.identity.slot.scope);
        let unproved = |what: &str| {
            Error::new(Code::KeyUnknown, what)
                .at(at.clone())
                .advise("look for another copy; find out who wrote to the file and to the key store")
        };
        let Some(entry) = self.store.tombstone(key.name, leaf).await? else {
            return Ok(unproved(
                "the key that wrapped this is gone, and no tombstone says that it was erased",
            ));
        };
        let Some(statement) = self.ledger.entry(entry).await? else {
            return Ok(unproved("the key that wrapped this is gone, and its tombstone is not in the ledger"));
        };
        let tombstone: Erased = content(&statement)?;
        let named = tombstone.leaves.iter().find(|(number, _)| *number == leaf);
        let of_key = tombstone.keys.iter().any(|taken| taken.name == key.name);
        match named {
            Some((_, erased)) if of_key && subject.is_none_or(|subject| subject == erased) => {
                Ok(Error::new(Code::KeyDestroyed, format!("this was erased on {}", statement.said)).at(at))
            }
            _ => Ok(unproved("the wrapped key names a leaf that was erased with something else")),
        }
    }

    /// What to say of a destroyed key. Its row has nothing left that could vouch for it: only a signed tombstone does.
    pub(super) async fn destroyed(&self, row: &KeyRow) -> Result<Error> {
        let slot = &row.identity.slot;
        let unproved = || {
            Error::new(
                Code::KeyUnknown,
                format!("the key store says that the {slot} was destroyed, and nothing signed says so"),
            )
            .advise("find out who wrote to the key store, and restore it if the key was not to be destroyed")
        };
        let stored = self.store.find(&row.identity).await?;
        let Some(floor) = stored.and_then(|stored| stored.floor) else { return Ok(unproved()) };
        let Some(statement) = self.ledger.entry(floor.entry).await? else { return Ok(unproved()) };
        let tombstone: Destroyed = content(&statement)?;
        if !tombstone.keys.iter().any(|taken| taken.took(row)) {
            return Ok(unproved());
        }
        let why = match tombstone.cause {
            Cause::Expiry => "expired",
            Cause::Shredding => "was shredded",
            Cause::Disuse => "was destroyed when it was no longer used",
        };
        Ok(Error::new(Code::KeyDestroyed, format!("the {slot} {why} on {}", statement.said)))
    }
}

/// The owner and version of the branch key that a row lies under.
pub(super) fn parent(row: &KeyRow) -> (TenantId, u32) {
    row.parent()
}

fn cipher(branch: &BranchKey) -> Xaes256Gcm {
    Xaes256Gcm::new(branch.tenant_key_sealing_key().expose().into())
}
