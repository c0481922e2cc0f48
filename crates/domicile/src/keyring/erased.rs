//! What was erased of one segment, as the ledger says: a copy of it that comes again brings nothing back.

use std::collections::BTreeMap;

use super::leaf::{AdoptingLeaf, EndedLeaf};
use super::region::RegionKeys;
use super::tombstone::{Erased, Subject};
use super::wrapped::LeafRef;
use super::{Keyring, region_permit, sealing};
use crate::error::Result;
use crate::guard::Permit;
use crate::ledger::{StatementKind, content};
use crate::puncture::LeafNumber;

impl Keyring {
    /// The lanes of a segment that were erased, each with the leaf that it lay under, which opens nothing any more: what a home
    /// adopts again, it wraps under these, so that readers find the tombstone. It reads every erasure of the region; the permit
    /// is the region's.
    ///
    /// # Errors
    /// Whatever keeps the ledger from being read, or what is not as the region signed it.
    pub async fn erased_leaves(
        &self,
        permit: &Permit,
        segment: &[u8; 32],
    ) -> Result<BTreeMap<u32, AdoptingLeaf>> {
        region_permit(permit)?;
        sealing(permit)?;
        let region = self.region(&permit.home().region)?;
        let mut lanes = BTreeMap::new();
        let mut erasures = region.ledger.statements(&[StatementKind::Erased as u8]);
        while let Some(page) = erasures.next().await? {
            for statement in page {
                let tombstone: Erased = content(&statement)?;
                for (leaf, subject) in &tombstone.leaves {
                    if let Subject::Lane { segment: of, lane } = subject
                        && of == segment
                        && let Some(leaf) = region.named_by(&tombstone, *leaf, statement.number).await?
                    {
                        let randomness = self.randomness.clone();
                        lanes.insert(*lane, AdoptingLeaf::Ended(EndedLeaf { leaf, randomness }));
                    }
                }
            }
        }
        Ok(lanes)
    }
}

impl RegionKeys {
    /// The leaf with the name of its key: of the keys of a tombstone, the one from which this entry took it.
    async fn named_by(&self, tombstone: &Erased, leaf: LeafNumber, entry: u64) -> Result<Option<LeafRef>> {
        let mut named = tombstone.keys.first().map(|taken| LeafRef { key: taken.name, leaf });
        for taken in &tombstone.keys {
            if self.store.tombstone(taken.name, leaf).await? == Some(entry) {
                named = Some(LeafRef { key: taken.name, leaf });
            }
        }
        Ok(named)
    }
}
