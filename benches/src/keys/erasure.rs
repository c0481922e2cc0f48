//! Erasing leaves, and what is left of a region's key after many segments were retired.

use std::sync::Arc;
use std::time::Instant;

use domicile::keyring::{SegmentLeaf, UnwrappedLeaf, WrappedKey};
use domicile::store::KeySlot;
use domicile::{Action, Domicile, Scope, SystemClock};

use super::Size;
use super::figures::Figures;
use super::ground::{Ground, manage, open, period, region, scope};
use super::stores::{named, owner, sealed, seconds};

/// How many segments are retired in one write: their tombstone has to fit into one entry of the ledger.
const IN_ONE_WRITE: usize = 10_000;

/// Leaves of one scope: in one write, and one by one.
pub(crate) async fn erasing(ground: &Ground, size: &Size, figures: &mut Figures) {
    const SECTION: &str = "erasure";
    let domicile = ground.process().await;
    for (number, in_one) in [(0, size.erased), (1, 1)] {
        let (segment, wraps) = sealed(&domicile, std::iter::repeat_n(number, size.erased)).await;
        let proofs = proved(&domicile, number, &segment, &wraps).await;
        let begun = Instant::now();
        for some in proofs.chunks(in_one) {
            let permit = domicile.permit(&scope(number), manage()).await.unwrap();
            let report = domicile.keyring().erase(permit, some).await.unwrap();
            assert_eq!(report.leaves, some.len());
        }
        let taken = seconds(begun);
        let what = if in_one == 1 { "one by one" } else { "in one write" };
        let what = format!("{} leaves that follow one another, {what}", size.erased);
        figures.add(SECTION, ground.name, &*what, taken * 1e3, "ms");
        let state = state_bytes(ground, &scope(number)).await;
        figures.add(SECTION, ground.name, "state of the key after it", state as f64, "octets");
    }
}

/// A region's own key, from which many segments were taken.
pub(crate) async fn retiring(size: &Size, figures: &mut Figures) {
    const SECTION: &str = "retired segments";
    // Of each run of this many segments, one is retired.
    for (what, one_in) in [("all that one process wrote", 1), ("every second", 2), ("every tenth", 10)] {
        let ground = Ground::memory(Arc::new(SystemClock));
        let domicile = ground.process().await;
        ground.choose_homes(&domicile, 1).await;
        let mut segments = Vec::with_capacity(size.retired);
        for number in 0..size.retired * one_in {
            let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
            let leaf = domicile.keyring().segment_leaf(permit, period()).await.unwrap();
            if number % one_in == 0 {
                segments.push(leaf);
            }
        }
        let mut proofs = Vec::with_capacity(size.retired);
        for segment in &segments {
            let wrap = wrapped_under(&domicile, segment).await;
            proofs.extend(proved(&domicile, 0, segment, std::slice::from_ref(&wrap)).await);
        }
        let last = proofs.split_off(size.retired - 1);
        let begun = Instant::now();
        for some in proofs.chunks(IN_ONE_WRITE) {
            let permit = domicile.permit_region(&region(), manage()).await.unwrap();
            assert_eq!(domicile.keyring().retire(permit, some, &[]).await.unwrap().leaves, some.len());
        }
        let taken = seconds(begun);
        let title = format!("{} retired, {what}", size.retired);
        let mut add =
            |what: &str, value, unit| figures.add(SECTION, "memory", format!("{title}: {what}"), value, unit);
        add(&format!("in writes of {IN_ONE_WRITE}"), taken, "s");
        let permit = domicile.permit_region(&region(), manage()).await.unwrap();
        let begun = Instant::now();
        domicile.keyring().retire(permit, &last, &[]).await.unwrap();
        add("the last one alone", seconds(begun) * 1e3, "ms");
        add("state", state_bytes(&ground, &Scope::of_region()).await as f64, "octets");
        let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
        let begun = Instant::now();
        domicile.keyring().segment_leaf(permit, period()).await.unwrap();
        add("the next segment's leaf, the key loaded anew", seconds(begun) * 1e3, "ms");
    }
}

async fn wrapped_under(domicile: &Domicile, segment: &SegmentLeaf) -> WrappedKey {
    let permit = domicile.permit(&scope(0), Action::Seal).await.unwrap();
    let leaf = domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
    let key = domicile::keyring::DataKey::random(&**domicile.randomness()).unwrap();
    leaf.wrap(segment, &key, &owner()).unwrap()
}

/// Proof that each of these wraps was unwrapped.
async fn proved(
    domicile: &Domicile,
    number: usize,
    segment: &SegmentLeaf,
    wraps: &[WrappedKey],
) -> Vec<UnwrappedLeaf> {
    let permit = domicile.permit(&scope(number), open()).await.unwrap();
    let leaves: Vec<_> = wraps.iter().map(named).collect();
    let opened = domicile.keyring().opening_leaves(permit, &leaves).await;
    let proved = opened.into_iter().zip(wraps);
    proved.map(|(leaf, wrap)| leaf.unwrap().prove(segment, wrap, &owner()).unwrap()).collect()
}

/// Octets of a key's row, as it is sealed.
async fn state_bytes(ground: &Ground, scope: &Scope) -> usize {
    let slot = KeySlot::tenant(&region(), scope, period());
    let rows = ground.keys.versions(&slot).await.unwrap();
    rows.iter().map(|stored| stored.row.sealed.len()).sum()
}
