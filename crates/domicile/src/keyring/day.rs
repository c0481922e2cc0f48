//! Day keys: what seals a scope's single records of one day, in every process of its region.
//!
//! A day key lies in the key store, wrapped by a leaf of the scope's tenant key, so that erasure, expiry and shredding reach
//! it as they reach a lane. Whoever needs the first one of a day makes it; the store lets one of several win, and all use
//! that. Its row never changes: a rotation of the tenant key or the erasure of the leaf gives the day another key.

use std::fmt;
use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::branch::{event, unverified};
use super::erase::ErasureReport;
use super::lease::{Known, Lease};
use super::region::{LeafFor, RegionKeys};
use super::tenant::TenantKey;
use super::tombstone::Subject;
use super::wrapped::{LeafRef, Owner, WrapKind, WrappedDayKey};
use super::{DataKey, Keyring, managing, sealing};
use crate::audit::EventKind;
use crate::context::KeyKind;
use crate::engine::{ContentKey, Engine, NONCE_BYTES, SELECTOR_BYTES, XaesKey};
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Permit};
use crate::kdf;
use crate::period::{Period, PeriodUnit};
use crate::scope::Scope;
use crate::secret::{Secret, same};
use crate::store::{Inserted, KeyHandle, KeyIdentity, KeyRow, KeySlot, KeyState};

const KEY_LABEL: &[u8] = b"domicile/v1/day-key";
const ROW_LABEL: &str = "domicile/v1/day-key-row";
const WRAPPING_LABEL: &[u8] = b"domicile/v1/wrapping-key";

/// How often another process may be faster, or two keys have one handle.
const TRIES: u32 = 16;

/// The key of a scope's single records of one day. Its bytes are never seen.
pub struct DayKey {
    handle: KeyHandle,
    day: Period,
    key: XaesKey,
    lease: Lease,
}

impl DayKey {
    /// What records that it sealed call it.
    #[must_use]
    pub fn handle(&self) -> KeyHandle {
        self.handle
    }

    /// The day.
    #[must_use]
    pub fn day(&self) -> Period {
        self.day
    }

    /// How long it may be used.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The key that seals under nonces which begin with `selector`.
    ///
    /// # Errors
    /// [`EngineUnavailable`](Code::EngineUnavailable) when the engine refuses the key.
    pub fn derive(&self, selector: &[u8; SELECTOR_BYTES], engine: Engine) -> Result<ContentKey> {
        self.key.derive(selector, engine)
    }
}

impl fmt::Debug for DayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DayKey").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The key that seals the permit's scope's single records on a day, which lies in `period`: made if this is the first
    /// process that needs it.
    ///
    /// # Errors
    /// As [`sealing_leaf`](Self::sealing_leaf); [`ArgumentInvalid`](Code::ArgumentInvalid) for a day that does not lie in the
    /// period; [`KeyUnverified`](Code::KeyUnverified) when the row that stands was changed.
    pub async fn sealing_day_key(&self, permit: Permit, period: Period, day: Period) -> Result<DayKey> {
        sealing(&permit)?;
        check_day(period, day)?;
        let region = self.region(&permit.home().region)?;
        let slot = KeySlot::day(&region.place.region, permit.scope(), day);
        let mut known_row = region.newest_days.get(&slot).await;
        for _ in 0..TRIES {
            let known = region.check_use(permit.scope(), true).await?;
            let key = region.sealing_key(permit.scope(), period).await?;
            let was_known = known_row.is_some();
            let newest = match known_row.take() {
                Some(row) => Some(row),
                None => region.newest_day(&slot).await?,
            };
            if let Some(row) = &newest {
                let leaf = wrapped(row)?.leaf;
                if leaf.key == key.name && key.tree.holds(leaf.leaf) {
                    return self.opened_day(&permit, region, &known, row, &key).await;
                }
                if was_known {
                    // Another may have followed it meanwhile.
                    continue;
                }
            }
            let version = newest.map_or(Some(1), |row| row.identity.version.checked_add(1));
            let version = version.ok_or_else(|| unverified(&slot))?;
            let identity = KeyIdentity { slot: slot.clone(), version };
            if let Some(made) = self.new_day(&permit, region, &known, identity, &key).await? {
                return Ok(made);
            }
        }
        Err(Error::new(Code::StoreUnavailable, format!("the key store did not keep the {slot}")))
    }

    /// The keys that records name so, of the permit's scope: one permit, for all that one opening needs.
    ///
    /// # Errors
    /// Each has its own: [`KeyUnknown`](Code::KeyUnknown) when the key store has no such key, or no tombstone says that what is
    /// gone was erased; [`KeyDestroyed`](Code::KeyDestroyed) when it, its period or its scope ended;
    /// [`KeyUnverified`](Code::KeyUnverified) when it is another scope's or its row was changed; those of
    /// [`opening_leaves`](Self::opening_leaves).
    pub async fn opening_day_keys(&self, permit: Permit, handles: &[KeyHandle]) -> Vec<Result<DayKey>> {
        let mut opened = Vec::with_capacity(handles.len());
        for handle in handles {
            opened.push(self.opening_day_key(&permit, *handle).await);
        }
        opened
    }

    async fn opening_day_key(&self, permit: &Permit, handle: KeyHandle) -> Result<DayKey> {
        if !matches!(permit.action(), Action::Open(_)) {
            return Err(Error::new(Code::HomeRefused, "a permit to seal or to change keys opens no record"));
        }
        let region = self.region(&permit.home().region)?;
        let known = region.check_use(permit.scope(), false).await?;
        let row = region.day_named(handle).await?;
        let key = region.key_of_day(permit.scope(), &row).await?;
        self.opened_day(permit, region, &known, &row, &key).await
    }

    /// Erases the keys of a scope's single records of one day, whichever column or queue these lie in.
    ///
    /// # Errors
    /// As [`erase`](Self::erase); [`KeyUnknown`](Code::KeyUnknown) when nothing was sealed on that day.
    pub async fn erase_day(&self, permit: Permit, day: Period) -> Result<ErasureReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        let known = region.check_use(permit.scope(), false).await?;
        let slot = KeySlot::day(&region.place.region, permit.scope(), day);
        let rows = region.store.versions(&slot).await?;
        if rows.is_empty() {
            return Err(Error::new(Code::KeyUnknown, format!("the key store has no {slot}"))
                .advise("nothing was sealed in single records of this scope on that day"));
        }
        let mut leaves = Vec::with_capacity(rows.len());
        for stored in rows {
            let row = stored.standing()?;
            let key = region.key_of_day(permit.scope(), &row).await?;
            let leaf = wrapped(&row)?.leaf.leaf;
            if key.tree.holds(leaf) {
                // Only a leaf that keeps the key is taken, and not whatever a row names.
                let _proof: DayKey = self.opened_day(&permit, region, &known, &row, &key).await?;
                leaves.push((key.slot().period, leaf, subject(&row)));
            }
        }
        self.take(permit, leaves, &[]).await
    }

    /// Opens a row with the tenant key that it names.
    async fn opened_day(
        &self,
        permit: &Permit,
        region: &RegionKeys,
        known: &Known,
        row: &KeyRow,
        key: &TenantKey,
    ) -> Result<DayKey> {
        let (slot, wrapped) = (&row.identity.slot, wrapped(row)?);
        self.note_use(permit, key).await?;
        self.note_use_of(permit, row.name, slot).await?;
        let secret = region.leaf(key, wrapped.leaf.leaf, Some(&subject(row))).await?;
        let owner = owner(row);
        let mut payload = Zeroizing::new(wrapped.sealed);
        wrapping_key(&secret, wrapped.leaf, &owner)
            .decrypt_inout_detached(
                &wrapped.nonce.into(),
                owner.associated(),
                (&mut payload[..]).into(),
                &wrapped.tag.into(),
            )
            .map_err(|_| unverified(slot))?;
        let (content, commitment) =
            derived(&DataKey::from_secret(Secret::copied_from(&payload)), &row.identity);
        let handle = KeyHandle::of(&commitment);
        if !same(&commitment, &row.commitment) || handle.name() != row.name {
            return Err(unverified(slot));
        }
        let seals = matches!(permit.action(), Action::Seal);
        let lease = region.lease(known, key, wrapped.leaf.leaf, Some(subject(row)), seals);
        Ok(DayKey { handle, day: slot.period, key: XaesKey::new(&content), lease })
    }

    /// Makes the key of this identity; none where another process was faster.
    async fn new_day(
        &self,
        permit: &Permit,
        region: &RegionKeys,
        known: &Known,
        identity: KeyIdentity,
        key: &TenantKey,
    ) -> Result<Option<DayKey>> {
        self.note_use(permit, key).await?;
        let leaf = LeafRef { key: key.name, leaf: self.unused_leaf(region, key, LeafFor::Lane).await? };
        let secret = region.leaf(key, leaf.leaf, None).await?;
        for _ in 0..TRIES {
            let data_key = DataKey::random(&*self.randomness)?;
            let (content, commitment) = derived(&data_key, &identity);
            let handle = KeyHandle::of(&commitment);
            let mut row = KeyRow {
                identity: identity.clone(),
                generation: 1,
                state: KeyState::Active,
                name: handle.name(),
                commitment,
                parent_version: 0,
                sealed: Vec::new(),
            };
            row.sealed = self.wrap_day(&data_key, &secret, leaf, &owner(&row))?.encode();
            // Before the row: no key is ever in the store of which the chain does not know.
            self.audit.record(&[event(EventKind::Generate, &row)]).await?;
            match region.store.insert(&row).await {
                Ok(Inserted::Ours) => {
                    self.note_use_of(permit, row.name, &identity.slot).await?;
                    let lease = region.lease(known, key, leaf.leaf, Some(subject(&row)), true);
                    let day = identity.slot.period;
                    region.keep_day(row).await;
                    return Ok(Some(DayKey { handle, day, key: XaesKey::new(&content), lease }));
                }
                Ok(Inserted::Theirs(_) | Inserted::Orphan) => return Ok(None),
                Err(error) => match region.store.named(row.name).await? {
                    // Two keys do not share a handle: another is drawn.
                    Some(taken) if taken.row.identity != identity => {}
                    Some(_) => return Ok(None),
                    None => return Err(error),
                },
            }
        }
        Err(Error::new(Code::StoreUnavailable, "every handle that was drawn belongs to another day key"))
    }

    fn wrap_day(
        &self,
        data_key: &DataKey,
        secret: &Secret,
        leaf: LeafRef,
        owner: &Owner,
    ) -> Result<WrappedDayKey> {
        // As with lanes: a fork may repeat the leaf, and whoever draws again does.
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let mut payload = Zeroizing::new(*data_key.secret().expose());
        let tag = wrapping_key(secret, leaf, owner)
            .encrypt_inout_detached(&nonce.into(), owner.associated(), (&mut payload[..]).into())
            .map_err(|_| Error::new(Code::KeyUnverified, "a day key could not be wrapped"))?;
        Ok(WrappedDayKey { leaf, nonce, sealed: *payload, tag: tag.into() })
    }
}

impl RegionKeys {
    async fn newest_day(&self, slot: &KeySlot) -> Result<Option<Arc<KeyRow>>> {
        match self.store.newest(slot).await? {
            Some(stored) => Ok(Some(self.keep_day(stored.standing()?).await)),
            None => Ok(None),
        }
    }

    /// The row of a handle, by the store's word: what is found there verifies.
    async fn day_named(&self, handle: KeyHandle) -> Result<Arc<KeyRow>> {
        if let Some(row) = self.days.get(&handle).await {
            return Ok(row);
        }
        let stored = self.store.named(handle.name()).await?.ok_or_else(|| {
            Error::new(Code::KeyUnknown, format!("the key store of {} knows no key {handle}", self.place.region))
                .advise("open it with the key store of the region that sealed it; what a lost store held opens with nothing else")
        })?;
        let row = Arc::new(stored.standing()?);
        self.days.insert(handle, row.clone()).await;
        Ok(row)
    }

    async fn keep_day(&self, row: KeyRow) -> Arc<KeyRow> {
        let row = Arc::new(row);
        self.newest_days.insert(row.identity.slot.clone(), row.clone()).await;
        row
    }

    /// The tenant key that a row names, which must be the scope's own, of a period in which the day lies.
    async fn key_of_day(&self, scope: &Scope, row: &KeyRow) -> Result<Arc<TenantKey>> {
        let slot = &row.identity.slot;
        if slot.region != self.place.region || slot.kind != KeyKind::Day {
            return Err(unverified(slot));
        }
        if slot.scope != *scope {
            return Err(Error::new(
                Code::KeyUnverified,
                "the key that a record names belongs to somebody else",
            )
            .at(format!("scope {scope}, key {}", row.name)));
        }
        let name = wrapped(row)?.leaf.key;
        let of = self.owner_named(name).await?.ok_or_else(|| self.unknown(name))?;
        if of.scope != *scope || check_day(of.period, slot.period).is_err() {
            return Err(unverified(slot));
        }
        self.opening_key(scope, of.period, name).await
    }
}

fn check_day(period: Period, day: Period) -> Result<()> {
    let (outer, inner) = (period.bounds(), day.bounds());
    if day.unit() == PeriodUnit::Day && outer.start <= inner.start && inner.end <= outer.end {
        return Ok(());
    }
    Err(Error::new(Code::ArgumentInvalid, format!("{day} is no day in {period}")))
}

fn wrapped(row: &KeyRow) -> Result<WrappedDayKey> {
    WrappedDayKey::decode(&row.sealed).map_err(|source| unverified(&row.identity.slot).because(source))
}

fn subject(row: &KeyRow) -> Subject {
    Subject::Day { commitment: row.commitment }
}

fn owner(row: &KeyRow) -> Owner {
    Owner::new(WrapKind::Day, &[&row.associated(ROW_LABEL)])
}

/// The key that seals, and the commitment to it and to whose it is.
fn derived(data_key: &DataKey, identity: &KeyIdentity) -> (Secret, [u8; 32]) {
    let KeyIdentity { slot, version } = identity;
    kdf::derive_committed(
        data_key.secret(),
        &[],
        &[
            KEY_LABEL,
            slot.region.as_str().as_bytes(),
            slot.scope.tenant.as_str().as_bytes(),
            slot.scope.record_type.as_str().as_bytes(),
            slot.period.to_string().as_bytes(),
            &version.to_be_bytes(),
        ],
    )
}

/// As a lane's, from the tenant leaf alone.
fn wrapping_key(secret: &Secret, leaf: LeafRef, owner: &Owner) -> Aes256Gcm {
    let (key, number) = (&leaf.key.0, leaf.leaf.0.to_be_bytes());
    let key = kdf::derive(secret, &[], &[WRAPPING_LABEL, &[owner.kind().code()], key, &number]);
    Aes256Gcm::new(key.expose().into())
}
