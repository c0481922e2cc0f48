//! Wrapping data keys once more: under the same leaf of the newest version of their tenant key, so that the version before
//! can go.
//!
//! A data key keeps its leaf in every wrap. Whoever erases it later takes that leaf out of all versions, and so reaches
//! every copy of every edition; a leaf that was erased wraps nothing again.

use super::leaf::{LeafOf, SealingLeaf};
use super::lease::Known;
use super::wrapped::LeafRef;
use super::{Keyring, managing};
use crate::audit::{Event, EventKind};
use crate::error::Result;
use crate::guard::Permit;

impl Keyring {
    /// The leaves under which data keys of the permit's scope are to be wrapped now; none of those that lie under the
    /// newest version already. Nothing is wrapped under a key that does not seal any longer.
    ///
    /// # Errors
    /// Each leaf has its own: [`KeyDestroyed`](crate::Code::KeyDestroyed) when it was erased;
    /// [`KeyShredding`](crate::Code::KeyShredding); whatever keeps the key service, the store or the audit chain from
    /// answering.
    pub async fn rewrapping_leaves(
        &self,
        permit: Permit,
        leaves: &[LeafOf],
    ) -> Result<Vec<Result<Option<SealingLeaf>>>> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        let known = region.check_use(permit.scope(), true).await?;
        let event = Event::new(EventKind::Rotate)
            .action(permit.action())
            .region(&region.place.region)
            .scope(permit.scope())
            .what("rewrap")
            .changed(0, leaves.len());
        self.audit.record(&[event]).await?;
        let mut found = Vec::with_capacity(leaves.len());
        for wrapped in leaves {
            found.push(self.rewrapping_leaf(&permit, &known, wrapped).await);
        }
        Ok(found)
    }

    async fn rewrapping_leaf(
        &self,
        permit: &Permit,
        known: &Known,
        wrapped: &LeafOf,
    ) -> Result<Option<SealingLeaf>> {
        let region = self.region(&permit.home().region)?;
        let key = region.sealing_key(permit.scope(), wrapped.period).await?;
        if key.name == wrapped.leaf.key {
            return Ok(None);
        }
        self.note_use(permit, &key).await?;
        let number = wrapped.leaf.leaf;
        let secret = region.leaf(&key, number, Some(&wrapped.subject)).await?;
        let lease = region.lease(known, &key, number, Some(wrapped.subject), true);
        let leaf = LeafRef { key: key.name, leaf: number };
        Ok(Some(SealingLeaf::new(leaf, secret, lease, self.randomness.clone())))
    }
}
