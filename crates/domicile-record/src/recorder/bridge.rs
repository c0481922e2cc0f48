//! What a recorder does while the keys of a home are out of reach, and not denied: the records go into a segment that it writes
//! as a post of that home, beside the home's own. The keys are asked for again behind those who append.

use std::collections::BTreeSet;
use std::sync::Arc;

use domicile::post::Post;
use domicile::{Action, Place, Result, Scope, TenantId, Time};

use super::Base;
use super::group::Group;
use super::keys;
use super::shard::Shard;
use crate::outage::{home_by_bundle, only_post};

/// Where a scope is at home; while that cannot be asked, what the one bundle says that has the scope.
pub(super) async fn home_of(base: &Base, scope: &Scope) -> Result<Place> {
    let error = match base.domicile.permit(scope, Action::Seal).await {
        Ok(permit) => return Ok(permit.home().clone()),
        Err(error) => error,
    };
    let by_bundle = home_by_bundle(&base.domicile, &base.options.posts, scope, error)?;
    // Where the registry itself can be asked, a bundle of another home counts for nothing.
    match base.domicile.home(scope).await {
        Ok(home) => Ok(home.place().clone()),
        Err(error) if error.is_outage() => Ok(by_bundle),
        Err(error) => Err(error),
    }
}

/// Opens a lane for records of a time in the home's own segment or, where its keys are out of reach, in one beside it. While
/// they are not asked for again, what is known of them counts all the same: a denial never falls back.
pub(super) async fn open_lane(shard: &Shard, group: &Group, slot: usize, time: Time) -> Result<()> {
    let (base, scope) = (&shard.base, shard.scope_of(slot)?.0);
    let Some(post) = post_of(base, shard, &scope) else {
        return keys::open_lane(shard, group, slot, shard.period(slot, time)?).await;
    };
    let owner = base.domicile.keyring().owner_of(shard.region(), &scope);
    if base.outages().lasts(shard.region(), &owner, base.domicile.now()) {
        base.domicile.keyring().check_orders(&scope, shard.region())?;
        return open_beside(shard, group, slot, time, &post).await;
    }
    match keys::open_lane(shard, group, slot, shard.period(slot, time)?).await {
        Err(error) if error.is_outage() => {
            base.outages().note(shard.region(), owner, base.domicile.now());
            let beside = open_beside(shard, group, slot, time, &post).await;
            beside.map_err(|as_post| error.because(as_post))
        }
        answered => {
            base.outages().is_over(shard.region(), &owner);
            answered
        }
    }
}

/// The one post of a shard's region that may seal for a scope.
fn post_of(base: &Base, shard: &Shard, scope: &Scope) -> Option<Post> {
    let of_region = base.options.posts.iter().filter(|post| *post.place() == shard.place);
    only_post(of_region, scope).cloned()
}

async fn open_beside(shard: &Shard, group: &Group, slot: usize, time: Time, post: &Post) -> Result<()> {
    let (scope, options) = shard.scope_of(slot)?;
    let beside = group.shard(&shard.base, &shard.place, shard.number, Some(post))?;
    let at = beside.add_scope(&scope, options);
    keys::open_lane(&beside, group, at, beside.period(at, time)?).await?;
    shard.state().set_beside(slot, beside, at);
    Ok(())
}

/// Asks again for keys that were out of reach, where records go beside their home's segments and the pause is over. What is had
/// again, or denied or ordered against by now, takes nothing beside any more: the next record goes home, or is told.
pub(super) async fn ask_again(base: &Arc<Base>, group: &Group) {
    for beside in group.shards().into_iter().filter(|shard| shard.post.is_some()) {
        let lanes = beside.state().open_lanes();
        let was_open = !lanes.is_empty();
        let (mut asked, mut away) = (BTreeSet::new(), BTreeSet::new());
        for (slot, scope, period) in lanes {
            if base.domicile.keyring().check_orders(&scope, beside.region()).is_err() {
                beside.state().close_lane(slot, period);
                continue;
            }
            let owner = base.domicile.keyring().owner_of(beside.region(), &scope);
            let waits = |owner: &TenantId| base.outages().lasts(beside.region(), owner, base.domicile.now());
            if away.contains(&owner) || !asked.contains(&owner) && waits(&owner) {
                continue;
            }
            if asked.insert(owner.clone()) {
                // Whoever needs a lane meanwhile does not wait for the same answer.
                base.outages().note(beside.region(), owner.clone(), base.domicile.now());
            }
            let opened = open_at_home(base, group, &beside, slot, period.bounds().start).await;
            match opened {
                Err(error) if error.is_outage() => {
                    base.outages().note(beside.region(), owner.clone(), base.domicile.now());
                    away.insert(owner);
                }
                _ => {
                    base.outages().is_over(beside.region(), &owner);
                    beside.state().close_lane(slot, period);
                }
            }
        }
        if was_open && beside.state().open_lanes().is_empty() {
            keys::retire(&beside, group).await;
        }
    }
}

/// Opens the lane of the home's own segment that takes what goes into this one beside it.
async fn open_at_home(
    base: &Arc<Base>,
    group: &Group,
    beside: &Shard,
    slot: usize,
    micros: i64,
) -> Result<()> {
    let (scope, options) = beside.scope_of(slot)?;
    let home = group.shard(base, &beside.place, beside.number, None)?;
    let at = home.add_scope(&scope, options);
    keys::open_lane(&home, group, at, home.period(at, Time::from_micros(micros)?)?).await
}
