//! Leaves: what wraps one data key.

use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::data_key::DataKey;
use super::lease::Lease;
use super::tombstone::Subject;
use super::wrapped::{LeafRef, Owner, WrappedKey};
use crate::engine::{NONCE_BYTES, TAG_BYTES};
use crate::error::{Code, Error, Result};
use crate::kdf;
use crate::period::Period;
use crate::random::Randomness;
use crate::secret::Secret;

const KEY_LABEL: &[u8] = b"domicile/v1/wrapping-key";

/// The leaf of the region's own key that all lanes of one segment share. Erasing it ends every copy of
/// the segment.
#[derive(Debug)]
pub struct SegmentLeaf {
    leaf: LeafRef,
    secret: Secret,
    lease: Lease,
}

impl SegmentLeaf {
    pub(super) fn new(leaf: LeafRef, secret: Secret, lease: Lease) -> Self {
        Self { leaf, secret, lease }
    }

    /// Which leaf of which key.
    #[must_use]
    pub fn leaf(&self) -> LeafRef {
        self.leaf
    }

    /// How long what it wraps may be used.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// A fresh leaf of a tenant key: it wraps one data key, and is spent by it.
#[derive(Debug)]
pub struct SealingLeaf {
    leaf: LeafRef,
    secret: Secret,
    lease: Lease,
    randomness: Arc<dyn Randomness>,
}

impl SealingLeaf {
    pub(super) fn new(leaf: LeafRef, secret: Secret, lease: Lease, randomness: Arc<dyn Randomness>) -> Self {
        Self { leaf, secret, lease, randomness }
    }

    /// How long the data key that it wraps may be used to seal.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Wraps a data key under this leaf and the segment's, for `owner`, which is authenticated with it.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn wrap(self, segment: &SegmentLeaf, data_key: &DataKey, owner: &Owner) -> Result<WrappedKey> {
        // The leaf is this wrap's own, but a fork or a restored snapshot may repeat it: the nonce is
        // random all the same, so that even then no (key, nonce) pair is used twice.
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let mut payload = Zeroizing::new(*data_key.secret().expose());
        let tag = wrapping_key(&self.secret, self.leaf, segment, owner)
            .encrypt_inout_detached(&nonce.into(), owner.associated(), (&mut payload[..]).into())
            .map_err(|_| Error::new(Code::LaneUnverified, "a data key could not be wrapped"))?;
        Ok(WrappedKey {
            kind: owner.kind(),
            tenant: self.leaf,
            segment: segment.leaf,
            nonce,
            sealed: *payload,
            tag: tag.into(),
        })
    }
}

/// What a data key that a post made is wrapped under, when its home adopts it.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a key lives or it does not")]
pub enum AdoptingLeaf {
    /// A fresh leaf.
    Fresh(SealingLeaf),
    /// The keys of the scope and period ended before it came: nothing is to open it.
    Ended(EndedLeaf),
}

impl AdoptingLeaf {
    /// Wraps a data key under this leaf and the segment's, for `owner`; or makes what stands for it, where the scope's keys
    /// have ended: a wrap that names them and holds nothing, so that readers find the tombstone.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn wrap(self, segment: &SegmentLeaf, data_key: &DataKey, owner: &Owner) -> Result<WrappedKey> {
        match self {
            AdoptingLeaf::Fresh(leaf) => leaf.wrap(segment, data_key, owner),
            AdoptingLeaf::Ended(EndedLeaf { leaf, randomness }) => {
                let (mut nonce, mut sealed, mut tag) = ([0; NONCE_BYTES], [0; 32], [0; TAG_BYTES]);
                randomness.fill(&mut nonce)?;
                randomness.fill(&mut sealed)?;
                randomness.fill(&mut tag)?;
                Ok(WrappedKey { kind: owner.kind(), tenant: leaf, segment: segment.leaf, nonce, sealed, tag })
            }
        }
    }
}

/// A leaf of a key that was destroyed: a name, and nothing that it could wrap with.
#[derive(Debug)]
pub struct EndedLeaf {
    pub(super) leaf: LeafRef,
    pub(super) randomness: Arc<dyn Randomness>,
}

/// The leaf that wrapped one data key.
#[derive(Debug)]
pub struct OpeningLeaf {
    secret: Secret,
    named: LeafOf,
    lease: Lease,
}

/// A leaf that is wanted, or was had: of whose key, and what it wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a wrap names, and where the wrap stood")]
pub struct LeafOf {
    /// The period of the key.
    pub period: Period,
    /// The leaf, as the wrapped key names it.
    pub leaf: LeafRef,
    /// What it wrapped.
    pub subject: Subject,
}

/// Proof that a wrap was unwrapped, and so that its leaves are the ones that keep what it belongs to: only such leaves
/// are erased, never those that a file merely names.
#[derive(Debug)]
pub struct UnwrappedLeaf {
    pub(super) tenant: LeafOf,
    pub(super) segment: LeafRef,
}

impl OpeningLeaf {
    pub(super) fn new(secret: Secret, named: LeafOf, lease: Lease) -> Self {
        Self { secret, named, lease }
    }

    /// How long the data key that it unwraps may be used.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Opens a wrapped data key of `owner`, and keeps the proof in place of the key.
    ///
    /// # Errors
    /// As [`unwrap`](Self::unwrap).
    pub fn prove(self, segment: &SegmentLeaf, wrapped: &WrappedKey, owner: &Owner) -> Result<UnwrappedLeaf> {
        let tenant = self.named;
        let _: DataKey = self.unwrap(segment, wrapped, owner)?;
        Ok(UnwrappedLeaf { tenant, segment: segment.leaf })
    }

    /// Opens a wrapped data key of `owner`.
    ///
    /// # Errors
    /// [`LaneUnverified`](Code::LaneUnverified), without a reason: another owner, another leaf or a changed
    /// byte.
    pub fn unwrap(self, segment: &SegmentLeaf, wrapped: &WrappedKey, owner: &Owner) -> Result<DataKey> {
        let mut payload = Zeroizing::new(wrapped.sealed);
        wrapping_key(&self.secret, wrapped.tenant, segment, owner)
            .decrypt_inout_detached(
                &wrapped.nonce.into(),
                owner.associated(),
                (&mut payload[..]).into(),
                &wrapped.tag.into(),
            )
            .map_err(|_| Error::new(Code::LaneUnverified, "a wrapped data key does not verify"))?;
        Ok(DataKey::from_secret(Secret::copied_from(&payload)))
    }
}

fn wrapping_key(tenant_secret: &Secret, tenant: LeafRef, segment: &SegmentLeaf, owner: &Owner) -> Aes256Gcm {
    let key = kdf::derive_from_both(
        tenant_secret,
        &segment.secret,
        &[
            KEY_LABEL,
            &[owner.kind().code()],
            &tenant.key.0,
            &tenant.leaf.0.to_be_bytes(),
            &segment.leaf.key.0,
            &segment.leaf.leaf.0.to_be_bytes(),
        ],
    );
    Aes256Gcm::new(key.expose().into())
}
