//! Keys made ahead: when a period begins, the keys that will be asked for are there, and nobody waits for a key service.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::region::is_of_tenant;
use super::{Keyring, managing};
use crate::context::KeyKind;
use crate::error::Result;
use crate::guard::Permit;
use crate::period::Period;
use crate::scope::{Scope, TenantId};
use crate::store::{KeySlot, KeyState, StoredKey};
use crate::time::Time;
use crate::wire;

/// What was made ahead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AheadReport {
    /// Keys that were made.
    pub made: usize,
    /// Keys whose time has come and that were there.
    pub there: usize,
    /// Keys whose time has not come yet.
    pub later: usize,
    /// Tenants with custody of their own whose key services did not answer, or denied: they got no key yet.
    pub without: BTreeSet<TenantId>,
}

impl Keyring {
    /// Makes the next period's key for every scope of a region that has a key of this period which seals. Each has a time
    /// of its own in the last tenth of the period (the last three days of a month): called every hour, this makes some of
    /// them each time. The permit is the region's.
    ///
    /// # Errors
    /// Whatever keeps the key service, the store or the audit chain from answering. What was made stays.
    pub async fn make_ahead(&self, permit: Permit) -> Result<AheadReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        region.catch_up().await?;
        let now = self.clock.now();
        let mut slots: Vec<KeySlot> = Vec::new();
        let mut pages = region.pages(KeyKind::Tenant, None);
        while let Some(page) = pages.next().await? {
            for StoredKey { row, .. } in page {
                let slot = row.identity.slot;
                let is_current = slot.period.bounds().contains(&now.micros());
                if row.state == KeyState::Active && is_current && slots.last() != Some(&slot) {
                    slots.push(slot);
                }
            }
        }
        let mut report = AheadReport::default();
        for KeySlot { scope, period, .. } in slots {
            if now.micros() < due(&scope, period) {
                report.later += 1;
                continue;
            }
            // Whose keys are to be shredded gets none, and stops nobody else.
            if region.follower.orders().check_use(&scope, true).is_err() {
                continue;
            }
            let next = Period::containing(Time::from_micros(period.bounds().end)?, period.unit())?;
            let slot = KeySlot::tenant(&region.place.region, &scope, next);
            if region.store.newest(&slot).await?.is_some() {
                report.there += 1;
                continue;
            }
            // Nor does a tenant whose own key services do not answer, or deny.
            match region.sealing_key(&scope, next).await {
                Ok(_) => report.made += 1,
                Err(error) if is_of_tenant(&region.owner_of(&scope), &error) => {
                    report.without.insert(scope.tenant);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }
}

/// When the key of the next period is made: in the first half of the last tenth of this one, for each scope at a time of its own,
/// so that what could not be made is tried again before it is needed.
fn due(scope: &Scope, period: Period) -> i64 {
    let bounds = period.bounds();
    let tenth = (bounds.end - bounds.start) / 10;
    let name = wire::parts(&[
        b"domicile/v1/ahead",
        scope.tenant.as_str().as_bytes(),
        scope.record_type.as_str().as_bytes(),
    ]);
    let [first, second, ..]: [u8; 32] = Sha256::digest(name).into();
    let share = i64::from(u16::from_be_bytes([first, second]));
    bounds.end - tenth + tenth / i64::from(u16::MAX) * share / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_has_a_time_of_its_own_in_the_last_tenth() {
        for period in ["2026-11", "2026-W48", "2026-11-24"] {
            let period: Period = period.parse().unwrap();
            let bounds = period.bounds();
            let tenth = (bounds.end - bounds.start) / 10;
            let times: Vec<_> = (0..1_000)
                .map(|tenant| {
                    due(&Scope::new(&format!("t{tenant}"), crate::RecordType::VOICE).unwrap(), period)
                })
                .collect();
            assert!(times.iter().all(|time| (bounds.end - tenth..bounds.end - tenth / 2 + 1).contains(time)));
            let early = times.iter().filter(|time| **time < bounds.end - 3 * tenth / 4).count();
            assert!((400..600).contains(&early), "{early} of a thousand in the first half of it");
        }
    }
}
