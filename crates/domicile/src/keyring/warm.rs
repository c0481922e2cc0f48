//! Warming: a cold cache is filled in one stream, where its scopes would ask the store one by one.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use super::region::{RegionKeys, is_of_tenant};
use super::tenant::{SlotKeys, parent};
use super::{Keyring, region_permit};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Permit};
use crate::period::Period;
use crate::scope::TenantId;
use crate::store::{RowFilter, StoredKey};

/// What a cold cache was filled with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmReport {
    /// Scopes whose keys are at hand now.
    pub scopes: usize,
    /// Tenants with custody of their own whose key services do not answer, or say no: their keys are asked for when they
    /// are used.
    pub without: Vec<TenantId>,
}

impl Keyring {
    /// Loads the tenant keys of this period in pages and opens them, ahead of their first use: what a recorder does when
    /// it starts. What is at hand already stays. The permit is the region's.
    ///
    /// A key service is asked once for each branch key that is not at hand, and that is recorded. Nothing is used: the
    /// first use of each key is recorded when it comes, and is refused then if it must be. A row that does not open keeps
    /// its reason for whoever asks for it.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) for a scope's permit, or one to change keys; whatever keeps the region's key
    /// service, the store or the audit chain from answering.
    pub async fn warm(&self, permit: Permit, period: Period) -> Result<WarmReport> {
        region_permit(&permit)?;
        if matches!(permit.action(), Action::Manage(_)) {
            return Err(Error::new(Code::HomeRefused, "a permit to change keys opens none"));
        }
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        let mut warming = Warming { region, period, away: BTreeSet::new(), scopes: 0 };
        let mut pages = region.pages_of(RowFilter {
            region: region.place.region.clone(),
            kind: KeyKind::Tenant,
            period: Some(period),
            tenant: None,
        });
        // The versions of one slot, which may stand on two pages; and what had been made stale before they were read.
        let (mut slot, mut since): (Vec<StoredKey>, _) = (Vec::new(), 0);
        loop {
            let staled = region.slots.staled();
            let Some(page) = pages.next().await? else { break };
            for stored in page {
                if slot.first().is_none_or(|first| first.row.identity.slot != stored.row.identity.slot) {
                    warming.put(mem::take(&mut slot), since).await?;
                    since = staled;
                }
                slot.push(stored);
            }
        }
        warming.put(slot, since).await?;
        Ok(WarmReport { scopes: warming.scopes, without: warming.away.into_iter().collect() })
    }
}

struct Warming<'a> {
    region: &'a RegionKeys,
    period: Period,
    /// Tenants with custody of their own whose branch keys are not to be had: they are asked for once, and not once a key.
    away: BTreeSet<TenantId>,
    scopes: usize,
}

impl Warming<'_> {
    /// Keeps the versions of one slot.
    async fn put(&mut self, all: Vec<StoredKey>, since: u64) -> Result<()> {
        let Some(first) = all.first() else { return Ok(()) };
        let slot = first.row.identity.slot.clone();
        let tenant = &slot.scope.tenant;
        let own = *tenant != TenantId::REGION && all.iter().any(|stored| parent(&stored.row).0 == *tenant);
        if own && self.away.contains(tenant) {
            return Ok(());
        }
        let region = self.region;
        let load = async |before: Option<Arc<SlotKeys>>| region.open_versions(&slot, all, before).await;
        let key = (slot.scope.clone(), self.period);
        match region.slots.get_since(&key, Some(since), |keys| region.are_usable(keys), load).await {
            Ok(_) => self.scopes += 1,
            Err(error) if own && is_of_tenant(tenant, &error) => {
                tracing::warn!(code = %error.code(), "the keys of a tenant with custody of its own are not at hand");
                self.away.insert(tenant.clone());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
