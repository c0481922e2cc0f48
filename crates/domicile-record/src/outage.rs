//! Outages lose no records: where a home's keys are out of reach, and not denied, its writer goes on as one of its posts.

use std::collections::BTreeMap;

use domicile::post::Post;
use domicile::{Domicile, Error, Place, Region, Result, Scope, TenantId, Time};

/// How long keys that were out of reach are not asked for again.
const PAUSE_MICROS: i64 = 10_000_000;

/// Whose keys were out of reach, and when: by region, and who has the branch key there. A tenant's own key services that do
/// not answer are nobody else's outage.
#[derive(Debug, Default)]
pub(crate) struct Outages(BTreeMap<(Region, TenantId), Time>);

impl Outages {
    /// The keys of a region were out of reach.
    pub(crate) fn note(&mut self, region: &Region, owner: TenantId, now: Time) {
        if self.0.insert((region.clone(), owner), now).is_none() {
            tracing::warn!(%region, "its keys are out of reach; its records are sealed as by a post");
        }
    }

    /// They were had again.
    pub(crate) fn is_over(&mut self, region: &Region, owner: &TenantId) {
        self.0.remove(&(region.clone(), owner.clone()));
    }

    /// Whether they were so a moment ago.
    pub(crate) fn lasts(&self, region: &Region, owner: &TenantId, now: Time) -> bool {
        let noted = self
            .0
            .get(&(region.clone(), owner.clone()))
            .map(|noted| now.micros().saturating_sub(noted.micros()));
        noted.is_some_and(|ago| (0..PAUSE_MICROS).contains(&ago))
    }
}

/// The one of these posts that may seal for a scope; none where several homes' may: a home is never guessed.
pub(crate) fn only_post<'a>(posts: impl Iterator<Item = &'a Post>, scope: &Scope) -> Option<&'a Post> {
    let mut may = posts.filter(|post| post.check(scope).is_ok());
    let found = may.next()?;
    may.all(|other| other.place() == found.place()).then_some(found)
}

/// The home of a scope while the registry is out of reach: what the one bundle says, signed by that home, that has the scope
/// and is of a place whose records may be sealed here. Otherwise the error stands.
pub(crate) fn home_by_bundle(
    domicile: &Domicile,
    posts: &[Post],
    scope: &Scope,
    error: Error,
) -> Result<Place> {
    let allowed = |post: &&Post| domicile.guard().check_place(post.place()).is_ok();
    match only_post(posts.iter().filter(allowed), scope) {
        Some(post) if error.is_outage() => Ok(post.place().clone()),
        _ => Err(error),
    }
}
