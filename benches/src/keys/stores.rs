//! What depends on the store: look-ups, filling, new scopes, rotation, erasure, audit.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domicile::audit::{Event, EventKind};
use domicile::keyring::{DataKey, LeafOf, Owner, Subject, WrapKind, WrappedKey};
use domicile::store::{KeyIdentity, KeySlot};
use domicile::{Action, Domicile, Permit};
use tokio::task::JoinSet;

use super::Size;
use super::erasure;
use super::figures::Figures;
use super::ground::{Ground, manage, open, period, permits, region, scope};
use super::memory::Sizes;

/// How many ask at once where many do.
const AT_ONCE: usize = 64;

/// New scopes, and what they cost to find again.
pub(crate) async fn fill(ground: &Ground, size: &Size, figures: &mut Figures, sizes: &impl Fn() -> Sizes) {
    let domicile = ground.process().await;
    let begun = Instant::now();
    ground.choose_homes(&domicile, size.scopes).await;
    let tenants = size.scopes.div_ceil(super::ground::TYPES) as f64;
    figures.add("homes", ground.name, "tenants that choose, in one go", tenants / seconds(begun), "a second");

    creation(&domicile, ground, size, figures, sizes).await;
    look_ups(ground, size, figures).await;
    filling(ground, size, figures).await;
}

/// What changes them.
pub(crate) async fn change(ground: &Ground, size: &Size, figures: &mut Figures, sizes: &impl Fn() -> Sizes) {
    rotation(ground, size, figures).await;
    erasure::erasing(ground, size, figures).await;
    audit(ground, size, figures, sizes).await;
}

/// The first lane of each scope.
async fn creation(
    domicile: &Domicile,
    ground: &Ground,
    size: &Size,
    figures: &mut Figures,
    sizes: &impl Fn() -> Sizes,
) {
    const SECTION: &str = "new scopes";
    let alone = size.scopes / 50;
    let before = (sizes(), ground.calls());
    let mut permits = permits(domicile, 0..size.scopes, &Action::Seal).await;
    let rest = permits.split_off(alone);
    let begun = Instant::now();
    for permit in permits {
        domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
    }
    let rate = alone as f64 / seconds(begun);
    figures.add(SECTION, ground.name, "first sealing leaf, one asks at a time", rate, "a second");
    let begun = Instant::now();
    let others = rest.len() as f64;
    at_once(domicile, rest, async |domicile, permit| {
        domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
    })
    .await;
    let rate = others / seconds(begun);
    figures.add(SECTION, ground.name, format!("the same, {AT_ONCE} ask at a time"), rate, "a second");
    let calls = ground.calls().since(before.1).all() as f64;
    figures.add(SECTION, ground.name, "calls of the key service, all scopes", calls, "calls");

    let (before, after, scopes) = (before.0, sizes(), size.scopes as f64);
    let mut grown = |what: &str, before: Option<u64>, after: Option<u64>, each: f64| {
        if let (Some(before), Some(after)) = (before, after) {
            figures.add(SECTION, ground.name, what, after.saturating_sub(before) as f64 / each, "octets");
        }
    };
    grown("store, a scope: its key, and the two events of it", Some(before.all), Some(after.all), scopes);
    grown("of it a key's row with its indices", before.keys, after.keys, scopes);
    grown("of it an audit event with its index", before.events, after.events, scopes * 2.0);
}

/// One key after the other.
async fn look_ups(ground: &Ground, size: &Size, figures: &mut Figures) {
    const SECTION: &str = "look-ups";
    // Far apart, as scopes are that ask one after the other.
    let spread = |turn: usize| (0..size.look_ups).map(move |n| (n * 7_919 + turn) % size.scopes);
    let mut times = Vec::new();
    for number in spread(0) {
        let slot = KeySlot::tenant(&region(), &scope(number), period());
        let begun = Instant::now();
        let rows = ground.keys.versions(&slot).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(rows.len(), 1);
    }
    figures.add_spread(SECTION, ground.name, "the row alone, by the store", times);

    let domicile = ground.process().await;
    let mut times = Vec::new();
    for number in spread(0) {
        let scope = scope(number);
        let begun = Instant::now();
        let _permit = domicile.permit(&scope, Action::Seal).await.unwrap();
        times.push(begun.elapsed());
    }
    figures.add_spread(SECTION, ground.name, "a permit: the home, verified", times);

    for what in ["cold: loaded, opened, first use recorded", "cached"] {
        let permits = permits(&domicile, spread(1), &Action::Seal).await;
        let mut times = Vec::new();
        for permit in permits {
            let begun = Instant::now();
            domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
            times.push(begun.elapsed());
        }
        figures.add_spread(SECTION, ground.name, &format!("sealing leaf, {what}"), times);
    }

    // What was sealed by one process, and is opened by another.
    let (segment, wraps) = sealed(&domicile, spread(2)).await;
    let domicile = ground.process().await;
    for what in ["cold: loaded, opened, first use recorded", "cached"] {
        let permits = permits(&domicile, spread(2), &open()).await;
        let mut times = Vec::new();
        for (permit, wrap) in permits.into_iter().zip(&wraps) {
            let wanted = [named(wrap)];
            let begun = Instant::now();
            let leaf = domicile.keyring().opening_leaves(permit, &wanted).await.remove(0).unwrap();
            times.push(begun.elapsed());
            leaf.unwrap(&segment, wrap, &owner()).unwrap();
        }
        figures.add_spread(SECTION, ground.name, &format!("opening leaf, {what}"), times);
    }
}

/// A cold cache, filled in one stream and key by key.
async fn filling(ground: &Ground, size: &Size, figures: &mut Figures) {
    const SECTION: &str = "cold cache";
    let before = ground.calls();
    let domicile = ground.process().await;
    let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
    let begun = Instant::now();
    let warmed = domicile.keyring().warm(permit, period()).await.unwrap();
    let taken = seconds(begun);
    assert!(warmed.scopes >= size.scopes && warmed.without.is_empty());
    figures.add(SECTION, ground.name, "filled in one stream", taken, "s");
    figures.add(SECTION, ground.name, "keys of it", warmed.scopes as f64 / taken, "a second");
    let calls = ground.calls().since(before).all() as f64;
    figures.add(
        SECTION,
        ground.name,
        "calls of the key service, the chain's signature included",
        calls,
        "calls",
    );

    let mut after = None;
    let begun = Instant::now();
    let filter = domicile::store::RowFilter {
        region: region(),
        kind: domicile::context::KeyKind::Tenant,
        period: Some(period()),
        tenant: None,
    };
    loop {
        let page = ground.keys.load_many(&filter, after.as_ref(), 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(KeyIdentity::clone(&last.row.identity));
    }
    figures.add(SECTION, ground.name, "its rows alone, by the store", seconds(begun), "s");

    let mut times = Vec::new();
    for permit in permits(&domicile, 0..size.look_ups.min(size.scopes), &Action::Seal).await {
        let begun = Instant::now();
        domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
        times.push(begun.elapsed());
    }
    figures.add_spread(SECTION, ground.name, "sealing leaf after it: first use recorded", times);
}

async fn rotation(ground: &Ground, size: &Size, figures: &mut Figures) {
    const SECTION: &str = "rotation";
    let domicile = ground.process().await;
    for what in ["root", "branch"] {
        let before = ground.calls();
        let permit = domicile.permit_region(&region(), manage()).await.unwrap();
        let begun = Instant::now();
        let report = match what {
            "root" => domicile.keyring().rotate_roots(permit, true).await.unwrap(),
            _ => domicile.keyring().rotate_branches(permit, true).await.unwrap(),
        };
        let taken = seconds(begun);
        let calls = ground.calls().since(before).all() as f64;
        assert!(what == "root" || report.rewrapped >= size.scopes, "{report:?}");
        figures.add(SECTION, ground.name, format!("of the {what} key"), taken, "s");
        figures.add(SECTION, ground.name, "rows written anew", report.rewrapped as f64, "rows");
        figures.add(SECTION, ground.name, "calls of the key service", calls, "calls");
    }
}

async fn audit(ground: &Ground, size: &Size, figures: &mut Figures, sizes: &impl Fn() -> Sizes) {
    const SECTION: &str = "audit";
    let domicile = ground.process().await;
    let event = |number: usize| {
        Event::new(EventKind::Use)
            .action(&Action::Seal)
            .region(&region())
            .scope(&scope(number))
            .period(period())
            .key(domicile::store::KeyName([7; 16]))
    };
    let alone = size.events / 5;
    let begun = Instant::now();
    for number in 0..alone {
        domicile.audit().record(&[event(number)]).await.unwrap();
    }
    figures.add(SECTION, ground.name, "events, one at a time", alone as f64 / seconds(begun), "a second");
    let events: Vec<_> = (0..size.events).map(event).collect();
    let begun = Instant::now();
    at_once(&domicile, events.clone(), async |domicile, event| {
        domicile.audit().record(&[event]).await.unwrap();
    })
    .await;
    let rate = size.events as f64 / seconds(begun);
    figures.add(SECTION, ground.name, format!("events, {AT_ONCE} recorders at a time"), rate, "a second");
    let before = sizes();
    let begun = Instant::now();
    for some in events.chunks(1_000) {
        domicile.audit().record(some).await.unwrap();
    }
    let rate = size.events as f64 / seconds(begun);
    figures.add(SECTION, ground.name, "events, a thousand in one write", rate, "a second");
    let grown = match (before.events, sizes().events) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => sizes().all.saturating_sub(before.all),
    };
    figures.add(SECTION, ground.name, "store, an event", grown as f64 / size.events as f64, "octets");
}

/// Does this for all of them, [`AT_ONCE`] at a time.
async fn at_once<T: Send + 'static>(
    domicile: &Domicile,
    all: Vec<T>,
    work: impl AsyncFn(&Domicile, T) + Copy + 'static,
) {
    let all = Arc::new(Mutex::new(all.into_iter()));
    let local = tokio::task::LocalSet::new();
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (domicile, all) = (domicile.clone(), all.clone());
        workers.spawn_local_on(
            async move {
                loop {
                    let next = all.lock().unwrap().next();
                    let Some(one) = next else { return };
                    work(&domicile, one).await;
                }
            },
            &local,
        );
    }
    local
        .run_until(async move {
            while let Some(ended) = workers.join_next().await {
                ended.unwrap();
            }
        })
        .await;
}

pub(crate) fn owner() -> Owner {
    Owner::new(WrapKind::Lane, &[b"bench"])
}

/// A leaf as a file names it.
pub(crate) fn named(wrap: &WrappedKey) -> LeafOf {
    LeafOf { period: period(), leaf: wrap.tenant, subject: Subject::Lane { segment: [9; 32], lane: 1 } }
}

/// One data key of each scope, wrapped under one segment leaf.
pub(crate) async fn sealed(
    domicile: &Domicile,
    numbers: impl Iterator<Item = usize>,
) -> (domicile::keyring::SegmentLeaf, Vec<WrappedKey>) {
    let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
    let segment = domicile.keyring().segment_leaf(permit, period()).await.unwrap();
    let mut wraps = Vec::new();
    for number in numbers {
        let permit: Permit = domicile.permit(&scope(number), Action::Seal).await.unwrap();
        let leaf = domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
        let key = DataKey::random(&**domicile.randomness()).unwrap();
        wraps.push(leaf.wrap(&segment, &key, &owner()).unwrap());
    }
    (segment, wraps)
}

pub(crate) fn seconds(begun: Instant) -> f64 {
    begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}
