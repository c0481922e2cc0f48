//! Branch keys: one per region and month, wrapped by the region's key service, kept in memory for
//! [`HARD_AGE`](super::HARD_AGE).

use std::sync::Arc;
use std::time::Instant;

use super::commitment::{committed, name_and_commit};
use super::{HARD_AGE, RegionKeys};
use crate::audit::{AuditChain, Event, EventKind};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::kdf;
use crate::period::Period;
use crate::region::Region;
use crate::secret::Secret;
use crate::store::{Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState};
use crate::wire::{Decoder, Encoder, Malformed};

const COMMITMENT_LABEL: &[u8] = b"domicile/v1/commitment/branch-key";

/// An unwrapped branch key.
#[derive(Debug)]
pub(super) struct BranchKey {
    pub(super) version: u32,
    state: KeyState,
    secret: Secret,
    unwrapped: Instant,
}

impl BranchKey {
    /// The key under which tenant keys of this branch are sealed.
    pub(super) fn tenant_key_sealing_key(&self) -> Secret {
        kdf::derive(&self.secret, &[], &[b"domicile/v1/branch/tenant-key"])
    }

    /// The last instant at which this key, or one opened with it, may be used.
    pub(super) fn valid_until(&self) -> Instant {
        self.unwrapped + HARD_AGE
    }
}

/// The branch keys of this process, each unwrapped by one call however many ask at once.
#[derive(Debug)]
pub(super) struct BranchKeys {
    cache: moka::future::Cache<(Region, Period, Option<u32>), Arc<BranchKey>>,
    audit: Arc<AuditChain>,
}

impl BranchKeys {
    pub(super) fn new(audit: Arc<AuditChain>) -> Self {
        const KEYS_MAX: u64 = 10_000;
        Self {
            cache: moka::future::Cache::builder().max_capacity(KEYS_MAX).time_to_live(HARD_AGE).build(),
            audit,
        }
    }

    /// The branch key that seals new tenant keys of this month; made if there is none.
    pub(super) async fn active(&self, region: &RegionKeys, month: Period) -> Result<Arc<BranchKey>> {
        let slot = KeySlot::branch(&region.place.region, month);
        self.cached(region, month, None, async {
            let key = match region.store.newest(&slot).await? {
                Some(stored) => self.unwrap(region, &stored.standing()?).await?,
                None => self.generate(region, slot.clone()).await?,
            };
            if key.state == KeyState::Active { Ok(key) } else { Err(sealing_no_longer(&slot, key.state)) }
        })
        .await
    }

    /// The branch key that sealed an older tenant key.
    pub(super) async fn of_version(
        &self,
        region: &RegionKeys,
        month: Period,
        version: u32,
    ) -> Result<Arc<BranchKey>> {
        let slot = KeySlot::branch(&region.place.region, month);
        self.cached(region, month, Some(version), async {
            match region.store.find(&KeyIdentity { slot: slot.clone(), version }).await? {
                Some(stored) => self.unwrap(region, &stored.standing()?).await,
                None => Err(Error::new(
                    Code::KeyUnknown,
                    format!("the key store has no {slot}, version {version}"),
                )
                .advise("restore the key store: what it lost opens with nothing else")),
            }
        })
        .await
    }

    async fn cached(
        &self,
        region: &RegionKeys,
        month: Period,
        version: Option<u32>,
        load: impl Future<Output = Result<BranchKey>>,
    ) -> Result<Arc<BranchKey>> {
        let key = (region.place.region.clone(), month, version);
        let loaded = self.cache.try_get_with(key, async { load.await.map(Arc::new) }).await;
        loaded.map_err(|shared| shared_error(&shared))
    }

    async fn generate(&self, region: &RegionKeys, slot: KeySlot) -> Result<BranchKey> {
        let identity = KeyIdentity { slot, version: 1 };
        let generation = 1;
        let (secret, wrap) = region.kms.generate(&context(&identity, generation)).await?;
        let unwrapped = Instant::now();
        let mut row = KeyRow {
            generation,
            state: KeyState::Active,
            name: KeyName([0; 16]),
            commitment: [0; 32],
            parent_version: 0,
            sealed: encode_wraps(&[wrap]).map_err(|source| unverified(&identity.slot).because(source))?,
            identity,
        };
        name_and_commit(COMMITMENT_LABEL, &mut row, secret.expose());
        let event = Event::new(EventKind::Generate)
            .region(&row.identity.slot.region)
            .scope(&row.identity.slot.scope)
            .period(row.identity.slot.period)
            .key(row.name);
        // Before the row: no key is ever in the store of which the chain does not know.
        self.audit.record(&[event]).await?;
        match region.store.insert(&row).await? {
            Inserted::Ours => Ok(BranchKey { version: 1, state: row.state, secret, unwrapped }),
            Inserted::Theirs(theirs) => self.unwrap(region, &theirs.standing()?).await,
        }
    }

    async fn unwrap(&self, region: &RegionKeys, row: &KeyRow) -> Result<BranchKey> {
        let slot = &row.identity.slot;
        if row.state == KeyState::Destroyed {
            return Err(destroyed(slot));
        }
        let event = Event::new(EventKind::Unwrap)
            .region(&slot.region)
            .scope(&slot.scope)
            .period(slot.period)
            .key(row.name);
        self.audit.record(std::slice::from_ref(&event)).await?;
        let unwrapped = Instant::now();
        let secret = match decode_wrap(&row.sealed) {
            Ok(wrap) => region.kms.unwrap(wrap, &context(&row.identity, row.generation)).await,
            Err(source) => Err(unverified(slot).because(source)),
        };
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
        Ok(BranchKey { version: row.identity.version, state: row.state, secret, unwrapped })
    }
}

/// What several waiters for one load are told: the same, each in an error of its own.
pub(super) fn shared_error(shared: &Arc<Error>) -> Error {
    shared.again().because(shared.clone())
}

pub(super) fn unverified(slot: &KeySlot) -> Error {
    Error::new(Code::KeyUnverified, format!("the key store's {slot} does not verify"))
        .advise("the row was changed or belongs to another key: restore the key store")
}

/// A destroyed key has nothing left that could vouch for its row, so that a row alone is no proof of an
/// erasure: whoever may write to the store could pass off a loss as one.
pub(super) fn destroyed(slot: &KeySlot) -> Error {
    Error::new(
        Code::KeyUnknown,
        format!("the key store says that the {slot} was destroyed, and nothing signed says so"),
    )
    .advise("find out who wrote to the key store, and restore it if the key was not to be destroyed")
}

/// A key that opens what it sealed before, and nothing new.
pub(super) fn sealing_no_longer(slot: &KeySlot, state: KeyState) -> Error {
    Error::new(Code::KeyDestroyed, format!("the {slot} no longer seals ({state})"))
}

fn context(identity: &KeyIdentity, generation: u64) -> EncryptionContext {
    let slot = &identity.slot;
    EncryptionContext {
        region: slot.region.clone(),
        owner: slot.scope.tenant.clone(),
        period: slot.period,
        kind: slot.kind,
        version: identity.version,
        generation,
    }
}

/// Custody `any` with one holder: custody 1, the number of wraps, then each wrap with its length (u16).
const CUSTODY_ANY: u8 = 0x01;

fn encode_wraps(wraps: &[Vec<u8>]) -> Result<Vec<u8>, Malformed> {
    let mut out = Encoder::new();
    out.u8(CUSTODY_ANY).u8(u8::try_from(wraps.len()).map_err(|_| Malformed { what: "wraps", at: 1 })?);
    for wrap in wraps {
        out.medium(wrap, "wrap")?;
    }
    Ok(out.finish())
}

fn decode_wrap(sealed: &[u8]) -> Result<&[u8], Malformed> {
    let mut input = Decoder::new(sealed);
    if input.u8("custody")? != CUSTODY_ANY || input.u8("wraps")? != 1 {
        return Err(Malformed { what: "custody", at: 0 });
    }
    let wrap = input.medium("wrap")?;
    input.end("end of the wraps")?;
    Ok(wrap)
}
