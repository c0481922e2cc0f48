//! Tenants with custody of their own: when their key services go, deny or are taken away, nobody else's keys wait for them,
//! nor do other lanes of a post's segment (KEY-39).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domicile::context::KeyKind;
use domicile::keyring::Concerned;
use domicile::kms::{Custody, FakeKms, KeyStatus, Kms, Operation};
use domicile::post::{Bundle, BundleTerms, Post, PostIdentity};
use domicile::random::OsRandom;
use domicile::store::{KeyState, KeyStore, MemoryStore, RowFilter};
use domicile::{Action, Code, Domicile, KnownRegion, ManualClock, Permit, Purpose, Result, TenantId};
use domicile_record::format::{BlockKind, Contents, LaneNo, Origin};
use domicile_record::{
    Adopting, Compacting, Erasable, Intake, IntakeOptions, Recovering, Scoping, Segment, SegmentWriter,
    Selection, Stamp, WriterOptions, erase, verify,
};
use domicile_tests::{InMemory, blocks, descriptor, place, region, scope};

const REGION: &str = "eu-central-1";

/// How a process knows the custody of acme.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acme {
    /// It has its own.
    Own,
    /// It had its own.
    Had,
    /// Nothing of it is configured here.
    Gone,
}

/// A region, and in it acme with a key service of its own, and globex without.
struct Place {
    kms: FakeKms,
    acme: FakeKms,
    store: Arc<MemoryStore>,
    clock: ManualClock,
}

impl Place {
    async fn new() -> Self {
        let kms = || FakeKms::new(region(REGION)).unwrap();
        let clock = ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap());
        let here = Self { kms: kms(), acme: kms(), store: Arc::default(), clock };
        let process = here.process(Acme::Own).await;
        for tenant in ["acme", "globex"] {
            process.choose_home(&scope(tenant), REGION).await.unwrap();
        }
        here
    }

    async fn process(&self, acme: Acme) -> Domicile {
        let known = KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: self.kms.describe().await.unwrap().verifying_key,
            kms: Some(Arc::new(self.kms.clone())),
            store: self.store.clone(),
        };
        let builder = Domicile::builder(region(REGION), self.store.clone()).region(known);
        let custody = Custody::one(Arc::new(self.acme.clone()));
        let custody = match acme {
            Acme::Own => Some(custody),
            Acme::Had => Some(custody.opening_only()),
            Acme::Gone => None,
        };
        let of = |tenant: &str| Some(tenant.parse::<TenantId>().unwrap());
        let builder = match custody {
            Some(custody) => builder.custody(region(REGION), of("acme"), custody),
            None => builder,
        };
        builder.clock(Arc::new(self.clock.clone())).build().unwrap()
    }

    async fn rows(&self, kind: KeyKind) -> Vec<(String, KeyState, u64)> {
        let filter = RowFilter { region: region(REGION), kind, period: None, tenant: None };
        let rows = self.store.load_many(&filter, None, 100).await.unwrap();
        let shown = |stored: &domicile::store::StoredKey| {
            (stored.row.identity.slot.scope.tenant.to_string(), stored.row.state, stored.row.generation)
        };
        rows.iter().map(shown).collect()
    }
}

async fn sealed(domicile: &Domicile, tenants: &[&str]) -> Result<Vec<u8>> {
    let options = WriterOptions::default();
    let mut writer = SegmentWriter::create(domicile, &region(REGION), Vec::new(), options).await?;
    for tenant in tenants {
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await?;
        writer.append(lane, tenant.as_bytes(), Stamp::default())?;
    }
    Ok(writer.finish().await?.0)
}

/// What opens, and why the first lane does not.
async fn opened(domicile: &Domicile, bytes: &[u8]) -> (String, Option<Code>) {
    let segment = Segment::open_source(domicile, bytes, Purpose::Support, Selection::all()).await.unwrap();
    let mut output = Vec::new();
    // What is away is told at each lane.
    let _ = segment.restore(&mut output);
    let obstacle = segment.lanes()[0].obstacle().map(domicile::Error::code);
    (String::from_utf8(output).unwrap(), obstacle)
}

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

async fn officer(domicile: &Domicile) -> Permit {
    domicile.permit_region(&region(REGION), manage()).await.unwrap()
}

async fn erase_acme(domicile: &Domicile, bytes: &[u8]) {
    let id = domicile_record::inspect(bytes).unwrap().segment;
    let lanes = Erasable::Lanes(vec![LaneNo(1)]);
    erase(domicile, bytes, &lanes, &id, Purpose::Maintenance).await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_denies_or_left_keeps_no_root_and_no_branch_from_being_rotated() {
    for left in [Acme::Own, Acme::Gone] {
        let here = Place::new().await;
        let before = here.process(Acme::Own).await;
        let bytes = sealed(&before, &["acme", "globex"]).await.unwrap();
        here.acme.set_status(KeyStatus::Disabled);
        let process = here.process(left).await;
        let keys = process.keyring();
        let old = here.kms.current_root().await.unwrap();

        let report = keys.rotate_roots(officer(&process).await, true).await.unwrap();
        // Its own root is the newest: there is nothing to ask it for. One that is not configured is named.
        assert_eq!(report.without.len(), usize::from(left == Acme::Gone));
        assert_eq!((report.roots.len(), report.rewrapped), (1, 1));
        keys.retire_root(officer(&process).await, &old).await.unwrap();
        let report = keys.rotate_branches(officer(&process).await, true).await.unwrap();
        assert_eq!(report.without.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["acme"]);
        assert_eq!(
            (report.made, report.rewrapped, report.destroyed),
            (1, 2, 1),
            "globex's, and the region's"
        );
        assert_eq!(opened(&here.process(left).await, &bytes).await.0, "globex");

        // It consents again: nothing of it was lost, and what was left is done.
        here.acme.set_status(KeyStatus::Enabled);
        let process = here.process(Acme::Own).await;
        assert_eq!(opened(&process, &bytes).await.0, "acmeglobex");
        let report = process.keyring().rotate_branches(officer(&process).await, true).await.unwrap();
        assert!(report.without.is_empty());
        assert_eq!(opened(&here.process(Acme::Own).await, &bytes).await.0, "acmeglobex");
    }
}

/// SEG-46: what cannot be verified here stays as the crash left it.
#[tokio::test]
async fn what_a_crash_left_is_closed_though_a_tenants_key_service_is_away() {
    for left in [Acme::Own, Acme::Gone] {
        let here = Place::new().await;
        let bytes = sealed(&here.process(Acme::Own).await, &["acme", "globex"]).await.unwrap();
        let blocks = blocks(&bytes);
        let end = blocks.iter().find(|(_, block)| block.kind == BlockKind::LaneEnd).unwrap().0;
        here.acme.set_status(KeyStatus::Disabled);
        let process = here.process(left).await;
        let recovering = Recovering::examine(&process, &bytes[..end]).await.unwrap().unwrap();
        assert!(recovering.cut().is_none());
        let closed = recovering.write(Vec::new()).unwrap().0;
        let (readable, obstacle) = opened(&process, &closed).await;
        assert_eq!(readable, "globex");
        assert!(obstacle.is_some());
        let verified = verify(&process, &closed[..], None).await.unwrap();
        assert!(!verified.is_complete() && verified.findings.is_empty(), "{:?}", verified.findings);
        // Nothing is left behind because its key is not to be had.
        let compacting = Compacting::examine(&process, [&closed[..]]).await.unwrap_err();
        assert_eq!(Some(compacting.code()), obstacle);
        assert!(Recovering::examine(&process, &closed[..]).await.unwrap().is_none());

        here.acme.set_status(KeyStatus::Enabled);
        let process = here.process(Acme::Own).await;
        assert_eq!(opened(&process, &closed).await, ("acmeglobex".to_owned(), None));
        assert!(verify(&process, &closed[..], None).await.unwrap().is_complete());
    }
}

#[tokio::test]
async fn keys_go_back_under_the_regions_branch_key_when_a_tenant_gives_its_custody_up() {
    let here = Place::new().await;
    let bytes = sealed(&here.process(Acme::Own).await, &["acme", "globex"]).await.unwrap();
    let process = here.process(Acme::Had).await;
    // What is sealed meanwhile is sealed for the region.
    let new = sealed(&process, &["acme"]).await.unwrap();
    let report = process.keyring().rotate_branches(officer(&process).await, false).await.unwrap();
    assert_eq!((report.made, report.destroyed, report.without.len()), (0, 1, 0));
    let branches = here.rows(KeyKind::Branch).await;
    let of_acme: Vec<_> = branches.iter().filter(|(tenant, ..)| tenant == "acme").collect();
    assert!(matches!(of_acme[..], [(_, KeyState::Destroyed, _)]), "{of_acme:?}");
    here.acme.set_status(KeyStatus::PendingDeletion);
    for acme in [Acme::Had, Acme::Gone] {
        let process = here.process(acme).await;
        assert_eq!(opened(&process, &bytes).await.0, "acmeglobex");
        assert_eq!(opened(&process, &new).await.0, "acme");
    }
}

#[tokio::test]
async fn a_restored_store_is_made_good_without_the_key_services_of_a_tenant() {
    for shredded in [false, true] {
        let here = Place::new().await;
        let process = here.process(Acme::Own).await;
        let bytes = sealed(&process, &["acme", "globex"]).await.unwrap();
        let kept = sealed(&process, &["acme"]).await.unwrap();
        let backup = here.store.backup();
        erase_acme(&process, &bytes).await;
        if shredded {
            let whom = Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
            let keys = process.keyring();
            keys.shred(officer(&process).await, whom, Duration::ZERO).await.unwrap();
            let expired = keys.expire(officer(&process).await, process.retention(), false).await.unwrap();
            assert_eq!(expired.destroyed.unwrap().keys, 1);
        }
        let export = process.export(&region(REGION)).await.unwrap();
        here.acme.set_status(KeyStatus::Disabled);
        here.store.restore(&backup);
        let fresh = here.process(Acme::Own).await;
        let report = fresh.replay(&export, manage()).await.unwrap();
        assert_eq!(report.buried.len(), usize::from(!shredded), "who cannot be asked is refused");
        let after = here.process(Acme::Own).await;
        let wanted = if shredded { Code::KeyDestroyed } else { Code::KeyRolledBack };
        assert_eq!(opened(&after, &bytes).await, ("globex".to_owned(), Some(wanted)));

        here.acme.set_status(KeyStatus::Enabled);
        let wanted = if shredded { Code::KeyDestroyed } else { Code::KeyRolledBack };
        let after = here.process(Acme::Own).await;
        assert_eq!(opened(&after, &bytes).await.1, Some(wanted), "nor opens it when it answers");
        let again = after.replay(&export, manage()).await.unwrap();
        assert_eq!((again.buried.len(), again.keys), (0, usize::from(!shredded)));
        let after = here.process(Acme::Own).await;
        assert_eq!(opened(&after, &bytes).await, ("globex".to_owned(), Some(Code::KeyDestroyed)));
        let kept = opened(&after, &kept).await;
        assert_eq!(kept.0, if shredded { "" } else { "acme" });
    }
}

#[tokio::test]
async fn keys_are_made_ahead_for_everybody_else() {
    let here = Place::new().await;
    let process = here.process(Acme::Own).await;
    sealed(&process, &["acme", "globex"]).await.unwrap();
    here.acme.set_status(KeyStatus::Disabled);
    here.clock.advance(Duration::from_secs(86_400 * 5 + 57_000));
    let process = here.process(Acme::Own).await;
    let report = process.keyring().make_ahead(officer(&process).await).await.unwrap();
    assert_eq!(report.without.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["acme"]);
    // globex's, and the region's own.
    assert_eq!((report.made, report.later), (2, 0));
}

/// This host as a post of the region.
async fn post(here: &Place, home: &Domicile) -> Post {
    let homes = BTreeMap::from([(region(REGION), home.region(&region(REGION)).unwrap().verifying_key)]);
    let identity = PostIdentity::generate("writer-1".parse().unwrap(), homes, &OsRandom).unwrap();
    let posts = home.posts(&region(REGION)).await.unwrap();
    let scopes = ["acme/voice", "globex/voice"].map(|scope| scope.parse().unwrap());
    posts.enrol(identity.public(), scopes.to_vec()).await.unwrap();
    let (_, bundle) = posts.issue(&[], BundleTerms::default()).await.unwrap();
    let bundle = Bundle::read(&bundle, &identity).unwrap();
    Post::new(Arc::new(identity), bundle, Arc::new(here.clock.clone()), Arc::new(OsRandom)).unwrap()
}

async fn taken_in(domicile: &Domicile, post: &Post, tenants: &[&str]) -> Result<Vec<(Origin, u64)>> {
    let mut options =
        IntakeOptions::new(Scoping::ByField { tenant: "tenant".into(), record_type: "type".into() });
    options.framing = "csv".parse().unwrap();
    options.posts = vec![post.clone()];
    let mut intake = Intake::new(domicile, options, InMemory);
    let mut text = "tenant,type\n".to_owned();
    tenants.iter().for_each(|tenant| text += &format!("{tenant},voice\n"));
    intake.read(text.as_bytes()).await?;
    let sealed = intake.finish().await?;
    Ok(sealed.segments.iter().map(|(_, summary)| (summary.origin, summary.records)).collect())
}

#[tokio::test]
async fn a_tenants_outage_is_nobody_elses_and_what_is_known_against_a_scope_counts_in_one() {
    let here = Place::new().await;
    let home = here.process(Acme::Own).await;
    let post = post(&here, &home).await;
    for operation in [Operation::Generate, Operation::Wrap, Operation::Unwrap] {
        here.acme.take_away(operation);
    }
    let process = here.process(Acme::Own).await;
    let by = taken_in(&process, &post, &["acme", "globex", "acme"]).await.unwrap();
    assert_eq!(by, [(Origin::Writer, 1), (Origin::Post, 2)], "globex's keys are at hand");

    // The region's own are away, and globex is to be shredded: it is refused as it would be otherwise.
    let whom = Concerned { tenant: "globex".parse().unwrap(), types: "all".parse().unwrap() };
    home.keyring().shred(officer(&home).await, whom, Duration::from_secs(86_400)).await.unwrap();
    for operation in [Operation::Generate, Operation::Wrap, Operation::Unwrap] {
        here.kms.take_away(operation);
    }
    let process = here.process(Acme::Gone).await;
    let refused = taken_in(&process, &post, &["acme", "globex"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::KeyShredding);
}

#[tokio::test]
async fn lanes_whose_keys_ended_before_they_came_keep_no_others_from_being_adopted() {
    let here = Place::new().await;
    let home = here.process(Acme::Own).await;
    let post = post(&here, &home).await;
    sealed(&home, &["acme", "globex"]).await.unwrap();
    let mut writer =
        SegmentWriter::create_at_post(&post, Vec::new(), WriterOptions::default()).await.unwrap();
    for tenant in ["acme", "globex"] {
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await.unwrap();
        writer.append(lane, tenant.as_bytes(), Stamp::default()).unwrap();
    }
    let segment = writer.finish().await.unwrap().0;
    let posts = home.posts(&region(REGION)).await.unwrap();
    let adopting = async || Adopting::examine(&home, &posts, &segment[..]).await.unwrap();

    // Key services that do not answer may answer later: nothing is said before they do.
    here.acme.set_status(KeyStatus::Disabled);
    let fresh = here.process(Acme::Own).await;
    let of_fresh = fresh.posts(&region(REGION)).await.unwrap();
    let denied = Adopting::examine(&fresh, &of_fresh, &segment[..]).await.unwrap().write(Vec::new()).await;
    assert_eq!(denied.unwrap_err().code(), Code::KmsDenied);
    assert!(!adopting().await.was_adopted());
    here.acme.set_status(KeyStatus::Enabled);

    // To be shredded, but not yet: it shares what becomes of the scope.
    let whom = Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
    let keys = home.keyring();
    keys.shred(officer(&home).await, whom.clone(), Duration::from_secs(86_400)).await.unwrap();
    let (adopted, _, ended) = adopting().await.write(Vec::new()).await.unwrap();
    assert_eq!(ended, []);
    assert_eq!(opened(&home, &adopted).await, ("globex".to_owned(), Some(Code::KeyShredding)));
    here.clock.advance(Duration::from_secs(86_401));
    keys.expire(officer(&home).await, home.retention(), false).await.unwrap();
    assert_eq!(opened(&home, &adopted).await, ("globex".to_owned(), Some(Code::KeyDestroyed)));

    // Shredded: the file is written again, and its lane reads as erased from the start.
    let (again, summary, ended) = adopting().await.write(Vec::new()).await.unwrap();
    assert_eq!((ended, summary.records), (vec![scope("acme")], 2));
    assert_eq!(opened(&home, &again).await, ("globex".to_owned(), Some(Code::KeyDestroyed)));
}

#[tokio::test]
async fn what_is_erased_while_its_key_is_asked_for_ends_with_the_next_look() {
    let here = Place::new().await;
    let officer = here.process(Acme::Own).await;
    let bytes = sealed(&officer, &["acme", "globex"]).await.unwrap();
    let reader = here.process(Acme::Own).await;
    let other = sealed(&officer, &["globex"]).await.unwrap();
    let _in_use =
        Segment::open_source(&reader, &other[..], Purpose::Support, Selection::all()).await.unwrap();
    // The reader has read acme's row, and waits for acme's key service.
    here.acme.delay(Operation::Unwrap, Duration::from_secs(1));
    let opening = Segment::open_source(&reader, &bytes[..], Purpose::Support, Selection::all());
    let (segment, ()) = tokio::join!(opening, async {
        here.acme.gate().until_held(1).await;
        here.acme.delay(Operation::Unwrap, Duration::ZERO);
        erase_acme(&officer, &bytes).await;
        here.clock.advance(Duration::from_secs(3));
        // Another reader of the process keeps up, and learns of the erasure before there is a lease.
        reader.keep_up().await.unwrap();
        here.acme.gate().advance(Duration::from_secs(1));
    });
    let segment = segment.unwrap();
    reader.keep_up().await.unwrap();
    let mut output = Vec::new();
    let restored = segment.restore(&mut output);
    assert!(!String::from_utf8(output).unwrap().contains("acme"), "{restored:?}");
}

#[tokio::test]
async fn whoever_gives_up_keeping_up_leaves_it_to_the_next() {
    let here = Place::new().await;
    let officer = here.process(Acme::Own).await;
    let bytes = sealed(&officer, &["acme", "globex"]).await.unwrap();
    let reader = here.process(Acme::Own).await;
    let segment =
        Segment::open_source(&reader, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    erase_acme(&officer, &bytes).await;
    // Judging asks acme's key service, which is slow, and the caller does not wait.
    here.clock.advance(domicile::keyring::Ages::default().hard);
    here.acme.delay(Operation::Unwrap, Duration::from_secs(1));
    tokio::select! {
        kept = reader.keep_up() => panic!("{kept:?}"),
        () = here.acme.gate().until_held(1) => {}
    }
    here.acme.delay(Operation::Unwrap, Duration::ZERO);
    reader.keep_up().await.unwrap();
    let mut output = Vec::new();
    let _ = segment.restore(&mut output);
    assert_eq!(String::from_utf8(output).unwrap(), "globex");
}
