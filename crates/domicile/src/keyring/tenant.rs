//! Tenant keys: one tree per scope and period, sealed under the region's branch key of the month.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::RegionKeys;
use super::branch::{BranchKey, BranchKeys, destroyed, sealing_no_longer, shared_error, unverified};
use super::commitment::{committed, name_and_commit};
use crate::audit::{AuditChain, Event, EventKind};
use crate::error::{Code, Error, Result};
use crate::puncture::{LeafNumber, Tree};
use crate::random::Randomness;
use crate::region::Region;
use crate::secret::Secret;
use crate::store::{Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState};
use crate::wire::Decoder;

const SEAL_LABEL: &str = "domicile/v1/tenant-key";
const COMMITMENT_LABEL: &[u8] = b"domicile/v1/commitment/tenant-key";
const NONCE_BYTES: usize = 24;

/// An opened tenant key.
#[derive(Debug)]
pub(super) struct TenantKey {
    identity: KeyIdentity,
    name: KeyName,
    state: KeyState,
    tree: Tree,
    valid_until: Instant,
}

impl TenantKey {
    pub(super) fn slot(&self) -> &KeySlot {
        &self.identity.slot
    }

    pub(super) fn name(&self) -> KeyName {
        self.name
    }

    pub(super) fn leaf(&self, number: LeafNumber) -> Result<Secret> {
        self.tree.leaf(number).ok_or_else(|| {
            Error::new(Code::KeyDestroyed, "the key that wrapped this was erased")
                .at(format!("scope {}, leaf {number}", self.identity.slot.scope))
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CacheKey {
    Active(KeySlot),
    Named(Region, KeyName),
}

/// The tenant keys of this process. A tenant key is valid as long as the branch key that opened it.
#[derive(Debug)]
pub(super) struct TenantKeys {
    cache: moka::future::Cache<CacheKey, Arc<TenantKey>>,
    audit: Arc<AuditChain>,
    randomness: Arc<dyn Randomness>,
}

struct UntilBranchExpires;

impl moka::Expiry<CacheKey, Arc<TenantKey>> for UntilBranchExpires {
    fn expire_after_create(&self, _: &CacheKey, value: &Arc<TenantKey>, now: Instant) -> Option<Duration> {
        Some(value.valid_until.saturating_duration_since(now))
    }
}

impl TenantKeys {
    pub(super) fn new(audit: Arc<AuditChain>, randomness: Arc<dyn Randomness>) -> Self {
        const KEYS_MAX: u64 = 1_000_000;
        let cache =
            moka::future::Cache::builder().max_capacity(KEYS_MAX).expire_after(UntilBranchExpires).build();
        Self { cache, audit, randomness }
    }

    /// The key that seals in this slot; made if there is none.
    pub(super) async fn active(
        &self,
        region: &RegionKeys,
        branches: &BranchKeys,
        slot: KeySlot,
    ) -> Result<Arc<TenantKey>> {
        let load = async {
            let key = match region.store.newest(&slot).await? {
                Some(stored) => open(region, branches, stored.standing()?).await?,
                None => self.generate(region, branches, slot.clone()).await?,
            };
            if key.state != KeyState::Active {
                return Err(sealing_no_longer(&slot, key.state));
            }
            Ok(Arc::new(key))
        };
        let loaded = self.cache.try_get_with(CacheKey::Active(slot.clone()), load).await;
        loaded.map_err(|shared| shared_error(&shared))
    }

    /// The key that a wrapped key names.
    pub(super) async fn named(
        &self,
        region: &RegionKeys,
        branches: &BranchKeys,
        name: KeyName,
    ) -> Result<Arc<TenantKey>> {
        let load = async {
            match region.store.named(name).await? {
                Some(stored) => open(region, branches, stored.standing()?).await.map(Arc::new),
                None => Err(Error::new(
                    Code::KeyUnknown,
                    format!("the key store of {} knows no key {name}", region.place.region),
                )
                .advise("open it with the key store that sealed it; what a lost store held opens with nothing else")),
            }
        };
        let key = CacheKey::Named(region.place.region.clone(), name);
        self.cache.try_get_with(key, load).await.map_err(|shared| shared_error(&shared))
    }

    async fn generate(&self, region: &RegionKeys, branches: &BranchKeys, slot: KeySlot) -> Result<TenantKey> {
        let branch = branches.active(region, slot.period.month()).await?;
        let tree = Tree::random(&*self.randomness)?;
        let identity = KeyIdentity { slot, version: 1 };
        let row = self.seal(&branch, identity, &tree)?;
        let event = Event::new(EventKind::Generate)
            .region(&row.identity.slot.region)
            .scope(&row.identity.slot.scope)
            .period(row.identity.slot.period)
            .key(row.name);
        // Before the row: no key is ever in the store of which the chain does not know.
        self.audit.record(&[event]).await?;
        match region.store.insert(&row).await? {
            Inserted::Ours => {
                let KeyRow { identity, name, state, .. } = row;
                Ok(TenantKey { identity, name, state, tree, valid_until: branch.valid_until() })
            }
            Inserted::Theirs(theirs) => open(region, branches, theirs.standing()?).await,
        }
    }

    fn seal(&self, branch: &BranchKey, identity: KeyIdentity, tree: &Tree) -> Result<KeyRow> {
        let failed = || Error::new(Code::KeyUnverified, "a tenant key could not be sealed");
        let mut payload = tree.encode().map_err(|source| failed().because(source))?;
        let mut row = KeyRow {
            identity,
            generation: 1,
            state: KeyState::Active,
            name: KeyName([0; 16]),
            commitment: [0; 32],
            parent_version: branch.version,
            sealed: Vec::new(),
        };
        name_and_commit(COMMITMENT_LABEL, &mut row, &payload);
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let tag = cipher(branch)
            .encrypt_inout_detached(&nonce.into(), &row.associated(SEAL_LABEL), (&mut payload[..]).into())
            .map_err(|_| failed())?;
        row.sealed = [&nonce[..], &payload, &tag].concat();
        Ok(row)
    }
}

fn cipher(branch: &BranchKey) -> Xaes256Gcm {
    Xaes256Gcm::new(branch.tenant_key_sealing_key().expose().into())
}

async fn open(region: &RegionKeys, branches: &BranchKeys, row: KeyRow) -> Result<TenantKey> {
    let slot = &row.identity.slot;
    if slot.region != region.place.region || slot.kind != crate::context::KeyKind::Tenant {
        return Err(unverified(slot));
    }
    if row.state == KeyState::Destroyed {
        return Err(destroyed(slot));
    }
    let branch = branches.of_version(region, slot.period.month(), row.parent_version).await?;
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
    if !committed(COMMITMENT_LABEL, &row, &payload) {
        return Err(unverified(slot));
    }
    let tree = Tree::decode(&payload).map_err(|source| unverified(slot).because(source))?;
    Ok(TenantKey {
        name: row.name,
        state: row.state,
        identity: row.identity,
        tree,
        valid_until: branch.valid_until(),
    })
}
