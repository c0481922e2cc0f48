//! Outages lose no records: where a home's keys are out of reach, and not denied, its writer goes on as one of its posts.

use std::collections::BTreeMap;

use domicile::post::Post;
use domicile::{Region, Scope, TenantId, Time};

/// How long keys that were out of reach are not asked for again.
const PAUSE_MICROS: i64 = 10_000_000;

/// Whose keys were out of reach, and when: by region, and who has the branch key there. A tenant's own key services that do
/// not answer are nobody else's outage.
#[derive(Debug, Default)]
pub(super) struct Outages(BTreeMap<(Region, TenantId), Time>);

impl Outages {
    /// The keys of a region were out of reach.
    pub(super) fn note(&mut self, region: &Region, owner: TenantId, now: Time) {
        tracing::warn!(%region, "its keys are out of reach; its records are sealed as by a post");
        self.0.insert((region.clone(), owner), now);
    }

    /// Whether they were so a moment ago.
    pub(super) fn lasts(&self, region: &Region, owner: &TenantId, now: Time) -> bool {
        let noted = self
            .0
            .get(&(region.clone(), owner.clone()))
            .map(|noted| now.micros().saturating_sub(noted.micros()));
        noted.is_some_and(|ago| (0..PAUSE_MICROS).contains(&ago))
    }
}

/// The one of these posts that may seal for a scope; none where several homes' may: a home is never guessed.
pub(super) fn only_post<'a>(posts: impl Iterator<Item = &'a Post>, scope: &Scope) -> Option<&'a Post> {
    let mut may = posts.filter(|post| post.check(scope).is_ok());
    let found = may.next()?;
    may.all(|other| other.place() == found.place()).then_some(found)
}
