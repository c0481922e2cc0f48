//! Post keys: the key pairs, one for each day, that posts seal to. The private halves lie in the key store, sealed
//! under the branch key of the month; the public ones follow from them.

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::branch::{BranchKey, event, unverified};
use super::commitment::{committed, name_and_commit};
use super::region::RegionKeys;
use super::tenant::ORPHANS_MAX;
use super::{Keyring, region_permit};
use crate::audit::{Event, EventKind};
use crate::context::KeyKind;
use crate::encapsulation::{Encapsulation, PublicKey};
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Permit};
use crate::period::Period;
use crate::scope::TenantId;
use crate::secret::Secret;
use crate::store::{Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState};
use crate::wire::Decoder;

const SEAL_LABEL: &str = "domicile/v1/post-key";
const COMMITMENT_LABEL: &[u8] = b"domicile/v1/commitment/post-key";
const NONCE_BYTES: usize = 24;

impl Keyring {
    /// The public keys of these days, made where there are none. The permit is the region's.
    pub(crate) async fn post_keys(&self, permit: &Permit, days: &[Period]) -> Result<Vec<PublicKey>> {
        let region = self.sealing_region(permit)?;
        region.check_use(permit.scope(), true).await?;
        let mut keys = Vec::with_capacity(days.len());
        for day in days {
            let slot = KeySlot::post(&region.place.region, *day);
            let seed = match region.store.newest(&slot).await? {
                Some(stored) => self.open_post_key(region, stored.standing()?).await?,
                None => self.generate_post_key(region, slot).await?,
            };
            keys.push(PublicKey::of(&seed));
        }
        Ok(keys)
    }

    /// Opens a secret that was sealed to the key of a day. The permit is the region's.
    pub(crate) async fn open_encapsulation(
        &self,
        permit: &Permit,
        day: Period,
        encapsulation: &Encapsulation,
        info: &[u8],
    ) -> Result<Secret> {
        let region = self.sealing_region(permit)?;
        region.check_use(permit.scope(), true).await?;
        let slot = KeySlot::post(&region.place.region, day);
        let row = region.store.newest(&slot).await?.ok_or_else(|| {
            Error::new(Code::KeyUnknown, format!("the key store has no {slot}"))
                .advise("restore the key store: what posts sealed on that day opens with nothing else")
        })?;
        let row = row.standing()?;
        let event = Event::new(EventKind::Use)
            .action(permit.action())
            .region(&slot.region)
            .scope(&slot.scope)
            .period(day)
            .key(row.name);
        self.audit.record(&[event]).await?;
        let seed = self.open_post_key(region, row).await?;
        encapsulation.open(&seed, info).map_err(|Unverified| {
            Error::new(Code::PostForged, "the secret of the segment does not open with the key of its day")
        })
    }

    fn sealing_region(&self, permit: &Permit) -> Result<&RegionKeys> {
        region_permit(permit)?;
        if !matches!(permit.action(), Action::Seal) {
            return Err(Error::new(Code::HomeRefused, "a permit to open makes and uses no post keys"));
        }
        self.region(&permit.home().region)
    }

    async fn generate_post_key(&self, region: &RegionKeys, slot: KeySlot) -> Result<Secret> {
        for _ in 0..ORPHANS_MAX {
            let (row, seed) = self.new_post_key(region, slot.clone()).await?;
            match region.store.insert(&row).await? {
                Inserted::Ours => return Ok(seed),
                Inserted::Theirs(theirs) => return self.open_post_key(region, theirs.standing()?).await,
                // Another branch key seals by now than the one that was at hand.
                Inserted::Orphan => region.forget(&region.branch_of(&slot)).await,
            }
        }
        Err(Error::new(Code::StoreUnavailable, format!("the key store did not keep the {slot}")))
    }

    /// A fresh post key and its row, recorded and not yet written.
    async fn new_post_key(&self, region: &RegionKeys, slot: KeySlot) -> Result<(KeyRow, Secret)> {
        let branch = region.sealing_branch(&TenantId::REGION, slot.period.month()).await?;
        let seed = Secret::random(&*self.randomness)?;
        let mut row = KeyRow {
            identity: KeyIdentity { slot, version: 1 },
            generation: 1,
            state: KeyState::Active,
            name: KeyName([0; 16]),
            commitment: [0; 32],
            parent_version: branch.identity.version,
            sealed: Vec::new(),
        };
        name_and_commit(COMMITMENT_LABEL, &mut row, seed.expose());
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let mut payload = Zeroizing::new(*seed.expose());
        let tag = cipher(&branch)
            .encrypt_inout_detached(&nonce.into(), &row.associated(SEAL_LABEL), (&mut payload[..]).into())
            .map_err(|_| Error::new(Code::KeyUnverified, "a post key could not be sealed"))?;
        row.sealed = [&nonce[..], &payload[..], &tag].concat();
        // Before the row: no key is ever in the store of which the chain does not know.
        self.audit.record(&[event(EventKind::Generate, &row)]).await?;
        Ok((row, seed))
    }

    async fn open_post_key(&self, region: &RegionKeys, row: KeyRow) -> Result<Secret> {
        let slot = &row.identity.slot;
        if slot.region != region.place.region || slot.kind != KeyKind::Post {
            return Err(unverified(slot));
        }
        if row.state == KeyState::Destroyed {
            return Err(region.destroyed(&row).await?);
        }
        let branch = region.branch(&TenantId::REGION, slot.period.month(), row.parent_version).await?;
        let mut input = Decoder::new(&row.sealed);
        let nonce: [u8; NONCE_BYTES] = input.array("nonce").map_err(|_| unverified(slot))?;
        let mut payload: Zeroizing<[u8; 32]> =
            input.array("private half").map_err(|_| unverified(slot))?.into();
        let tag: [u8; 16] = input.array("tag").map_err(|_| unverified(slot))?;
        input.end("end of a post key").map_err(|_| unverified(slot))?;
        cipher(&branch)
            .decrypt_inout_detached(
                &nonce.into(),
                &row.associated(SEAL_LABEL),
                (&mut payload[..]).into(),
                &tag.into(),
            )
            .map_err(|_| unverified(slot))?;
        if !committed(COMMITMENT_LABEL, &row, &payload[..]) {
            return Err(unverified(slot));
        }
        Ok(Secret::copied_from(&payload))
    }
}

fn cipher(branch: &BranchKey) -> Xaes256Gcm {
    Xaes256Gcm::new(branch.post_key_sealing_key().expose().into())
}
