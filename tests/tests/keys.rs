//! The key hierarchy (KEY-8, KEY-40, KEY-42) as a platform team uses it: rotation, erasure, holds, expiry, shredding, restores, under load and at
//! once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::time::Duration;

use domicile::context::KeyKind;
use domicile::keyring::{Ages, Cause, Concerned};
use domicile::kms::{Agreement, Custody, FakeKms, Holder, Kms, LocalKms, Operation};
use domicile::retention::Retention;
use domicile::store::{Fault, FaultyStore, KeyState, KeyStore, MemoryStore, RowFilter};
use domicile::{Action, Clock, Code, Domicile, KnownRegion, ManualClock, Purpose, RecordType, Result, Scope};
use domicile_record::format::{
    BlockHeader, BlockKind, Contents, Descriptor, LaneNo, LaneOpen, SegmentHeader,
};
use domicile_record::{
    Erasable, Segment, SegmentWriter, Selection, Stamp, State, WriterOptions, erase, rewrap,
};
use domicile_tests::{descriptor, place, region};

const REGION: &str = "eu-central-1";
const DAY: Duration = Duration::from_secs(86_400);

/// A region in memory: several processes may share it, each with its own caches.
struct Region {
    _directory: tempfile::TempDir,
    kms: Vec<Arc<dyn Kms>>,
    memory: Arc<MemoryStore>,
    store: Arc<FaultyStore>,
    homes: Arc<MemoryStore>,
    clock: ManualClock,
    retention: Retention,
    custody: Option<Agreement>,
}

impl Region {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kms = |name: &str| -> Arc<dyn Kms> {
            let path = |what: &str| directory.path().join(format!("{name}.{what}"));
            Arc::new(LocalKms::create(region(REGION), path("root"), path("signing")).unwrap())
        };
        let kms = vec![kms("ours"), kms("theirs")];
        let memory = Arc::new(MemoryStore::new());
        let here = Self {
            _directory: directory,
            kms,
            store: Arc::new(FaultyStore::new(memory.clone())),
            memory,
            homes: Arc::new(MemoryStore::new()),
            clock: ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap()),
            retention: Retention::default(),
            custody: None,
        };
        let process = here.process().await;
        for tenant in ["acme", "globex"] {
            for record_type in [RecordType::VOICE, RecordType::FAX] {
                process.choose_home(&Scope::new(tenant, record_type).unwrap(), REGION).await.unwrap();
            }
        }
        here
    }

    async fn process(&self) -> Domicile {
        let known = KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: self.kms[0].describe().await.unwrap().verifying_key,
            kms: Some(self.kms[0].clone()),
            store: self.store.clone(),
        };
        let mut builder = Domicile::builder(region(REGION), self.homes.clone())
            .region(known)
            .clock(Arc::new(self.clock.clone()))
            .retention(self.retention.clone())
            .witness(self._directory.path().join("seen"));
        if let Some(agreement) = self.custody {
            let holder =
                |(name, kms): (&str, &Arc<dyn Kms>)| Holder { name: name.to_owned(), kms: kms.clone() };
            let holders = ["ours", "theirs"].into_iter().zip(&self.kms).map(holder).collect();
            builder = builder.custody(region(REGION), None, Custody::of(agreement, holders).unwrap());
        }
        builder.build().unwrap()
    }

    async fn rows(&self, kind: KeyKind) -> Vec<(u32, KeyState, u64)> {
        let filter =
            RowFilter { region: region(REGION), kind, period: None, tenant: Some("acme".parse().unwrap()) };
        let filter = if kind == KeyKind::Branch { RowFilter { tenant: None, ..filter } } else { filter };
        let rows = self.memory.load_many(&filter, None, 1_000).await.unwrap();
        rows.iter().map(|key| (key.row.identity.version, key.row.state, key.row.generation)).collect()
    }
}

/// The one row of acme's key as it stands now.
async fn row_of_acme(here: &Region) -> domicile::store::KeyRow {
    let slot = domicile::store::KeySlot::tenant(&region(REGION), &acme(), "2026-11".parse().unwrap());
    here.memory.versions(&slot).await.unwrap().remove(0).row
}

fn acme() -> Scope {
    Scope::new("acme", RecordType::VOICE).unwrap()
}

fn globex() -> Scope {
    Scope::new("globex", RecordType::VOICE).unwrap()
}

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

fn concerned(tenant: &str, types: &str) -> Concerned {
    Concerned { tenant: tenant.parse().unwrap(), types: types.parse().unwrap() }
}

/// A segment with a lane for each of these scopes, and in it one record: the tenant's name.
async fn sealed_of(domicile: &Domicile, scopes: &[Scope]) -> Result<Vec<u8>> {
    let options = WriterOptions::default();
    let mut writer = SegmentWriter::create(domicile, &region(REGION), Vec::new(), options).await?;
    for scope in scopes {
        let lane = Descriptor { scope: scope.clone(), ..descriptor("acme", Contents::default()) };
        let lane = writer.open_lane(lane, b"").await?;
        writer.append(lane, scope.tenant.as_str().as_bytes(), Stamp::default())?;
    }
    Ok(writer.finish().await?.0)
}

async fn sealed(domicile: &Domicile) -> Result<Vec<u8>> {
    sealed_of(domicile, &[acme(), globex()]).await
}

async fn opened(domicile: &Domicile, bytes: &[u8]) -> Result<(State, String)> {
    let segment = Segment::open_source(domicile, bytes, Purpose::Support, Selection::all()).await?;
    let mut output = Vec::new();
    segment.restore(&mut output)?;
    Ok((segment.state().clone(), String::from_utf8(output).unwrap()))
}

/// Why acme's lane does not open.
async fn obstacle(domicile: &Domicile, bytes: &[u8]) -> Option<Code> {
    match Segment::open_source(domicile, bytes, Purpose::Support, &[acme()]).await {
        Ok(segment) => segment.lanes()[0].obstacle().map(domicile::Error::code),
        Err(error) => Some(error.code()),
    }
}

async fn erase_acme(domicile: &Domicile, bytes: &[u8]) -> Result<domicile::keyring::ErasureReport> {
    let inspected = domicile_record::inspect(bytes).unwrap();
    let lanes = Erasable::Lanes(vec![LaneNo(1)]);
    let mut reports = erase(domicile, bytes, &lanes, &inspected.segment, Purpose::Maintenance).await?;
    assert_eq!(reports.len(), 1);
    Ok(reports.remove(0).1)
}

#[tokio::test]
async fn an_erased_lane_opens_nowhere_and_its_neighbours_do() {
    let here = Region::new().await;
    let (ours, theirs) = (here.process().await, here.process().await);
    let (bytes, other) = (sealed(&ours).await.unwrap(), sealed(&ours).await.unwrap());
    assert_eq!(opened(&theirs, &bytes).await.unwrap(), (State::Complete, "acmeglobex".into()));

    let report = erase_acme(&ours, &bytes).await.unwrap();
    assert_eq!((report.keys, report.leaves, report.tombstone), (1, 1, Some(1)));
    assert!(report.done > report.erased && report.final_.is_none(), "nobody said how long backups are kept");
    assert_eq!(obstacle(&ours, &bytes).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&ours, &bytes).await.unwrap(), (State::Complete, "globex".into()));
    assert_eq!(opened(&ours, &other).await.unwrap(), (State::Complete, "acmeglobex".into()));

    // Another process that had the key takes note within the poll's age.
    here.clock.advance(Duration::from_secs(2));
    assert_eq!(obstacle(&theirs, &bytes).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&theirs, &other).await.unwrap().1, "acmeglobex");
    // Twice is once.
    assert_eq!(erase_acme(&ours, &bytes).await.unwrap_err().code(), Code::KeyDestroyed);
    // And what is sealed from now on is as before.
    let later = sealed(&theirs).await.unwrap();
    assert_eq!(opened(&ours, &later).await.unwrap().1, "acmeglobex");
}

#[tokio::test]
async fn a_segment_that_was_retired_opens_in_no_copy() {
    let here = Region::new().await;
    let process = here.process().await;
    let (bytes, other) = (sealed(&process).await.unwrap(), sealed(&process).await.unwrap());
    let id = domicile_record::inspect(&bytes[..]).unwrap().segment;
    let wrong = erase(&process, &bytes[..], &Erasable::Segment, &"0".repeat(64), Purpose::Maintenance).await;
    assert_eq!(wrong.unwrap_err().code(), Code::ArgumentInvalid);
    let lane_0 = Erasable::Lanes(vec![LaneNo::REGION]);
    let wrong = erase(&process, &bytes[..], &lane_0, &id, Purpose::Maintenance).await;
    assert_eq!(wrong.unwrap_err().code(), Code::ArgumentInvalid);
    erase(&process, &bytes[..], &Erasable::Segment, &id, Purpose::Maintenance).await.unwrap();
    assert_eq!(opened(&process, &bytes).await.unwrap(), (State::Retired, String::new()));
    assert_eq!(opened(&process, &other).await.unwrap(), (State::Complete, "acmeglobex".into()));
}

#[tokio::test]
async fn a_rotated_key_opens_what_it_sealed_and_the_new_one_seals() {
    let here = Region::new().await;
    let (ours, theirs) = (here.process().await, here.process().await);
    let before = sealed(&ours).await.unwrap();
    let during = sealed(&theirs).await.unwrap();
    let report = ours.keyring().rotate(ours.permit(&acme(), manage()).await.unwrap()).await.unwrap();
    assert_eq!(report.made, 1);
    assert_eq!(here.rows(KeyKind::Tenant).await, [(1, KeyState::DecryptOnly, 2), (2, KeyState::Active, 1)]);
    let after = sealed(&ours).await.unwrap();
    here.clock.advance(Duration::from_secs(2));
    for bytes in [&before, &during, &after, &sealed(&theirs).await.unwrap()] {
        assert_eq!(opened(&theirs, bytes).await.unwrap().1, "acmeglobex");
    }
    // An erasure takes the leaf from all versions.
    let report = erase_acme(&theirs, &after).await.unwrap();
    assert_eq!(report.keys, 2);
    here.clock.advance(Duration::from_secs(2));
    assert_eq!(obstacle(&ours, &after).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&ours, &before).await.unwrap().1, "acmeglobex");
}

#[tokio::test]
async fn roots_and_branches_are_rotated_without_a_lane_noticing() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let report = process.keyring().rotate_roots(permit().await, true).await.unwrap();
    assert_eq!(report.roots.len(), 1);
    assert_eq!((report.rewrapped, here.rows(KeyKind::Branch).await), (1, vec![(1, KeyState::Active, 2)]));
    let report = process.keyring().rotate_branches(permit().await, true).await.unwrap();
    // acme's, globex's and the region's own key lie under the new one; nothing is left under the old one.
    assert_eq!((report.made, report.rewrapped, report.destroyed), (1, 3, 1));
    assert_eq!(here.rows(KeyKind::Branch).await, [(1, KeyState::Destroyed, 4), (2, KeyState::Active, 1)]);
    let report = process.keyring().rotate_branches(permit().await, false).await.unwrap();
    assert_eq!((report.made, report.rewrapped, report.destroyed), (0, 0, 0), "done is done");
    for domicile in [&process, &here.process().await] {
        assert_eq!(opened(domicile, &bytes).await.unwrap().1, "acmeglobex");
        assert_eq!(opened(domicile, &sealed(domicile).await.unwrap()).await.unwrap().1, "acmeglobex");
    }
}

#[tokio::test]
async fn a_root_key_goes_when_nothing_lies_under_it_and_with_it_every_old_row() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let old = here.kms[0].current_root().await.unwrap();
    let backup = here.memory.backup();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let early = process.keyring().retire_root(permit().await, &old).await.unwrap_err();
    assert_eq!(early.code(), Code::ArgumentInvalid, "a branch key lies under it");
    process.keyring().rotate_roots(permit().await, true).await.unwrap();
    let again = process.keyring().rotate_roots(permit().await, false).await.unwrap();
    assert_eq!((again.roots.len(), again.rewrapped), (0, 0), "done is done");
    process.keyring().retire_root(permit().await, &old).await.unwrap();
    assert_eq!(opened(&here.process().await, &bytes).await.unwrap().1, "acmeglobex");
    // The old row, which a backup still holds, is noise.
    here.memory.restore(&backup);
    std::fs::remove_file(here._directory.path().join("seen")).unwrap();
    assert_eq!(obstacle(&here.process().await, &bytes).await, Some(Code::KmsDenied));
}

#[tokio::test]
async fn writers_erasures_and_rotations_at_once_lose_nothing() {
    let here = Region::new().await;
    let first = here.process().await;
    let mut doomed = Vec::new();
    for _ in 0..6 {
        doomed.push(sealed(&first).await.unwrap());
    }
    let kept = sealed(&first).await.unwrap();
    let (one, two, three, four) =
        (here.process().await, here.process().await, here.process().await, here.process().await);
    let erasing = |process: Domicile, bytes: Vec<Vec<u8>>| async move {
        for bytes in bytes {
            erase_acme(&process, &bytes).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let rotating = async |process: &Domicile| {
        for _ in 0..4 {
            process.keyring().rotate(process.permit(&acme(), manage()).await.unwrap()).await.unwrap();
            let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
            process.keyring().rotate_roots(permit, false).await.unwrap();
            let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
            process.keyring().rotate_branches(permit, true).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let writing = async |process: &Domicile| {
        let mut all = Vec::new();
        for _ in 0..10 {
            here.clock.advance(Duration::from_secs(3));
            all.push(sealed(process).await.unwrap());
            tokio::task::yield_now().await;
        }
        all
    };
    let ((), (), (), written) = tokio::join!(
        erasing(one.clone(), doomed[..3].to_vec()),
        erasing(two.clone(), doomed[3..].to_vec()),
        rotating(&three),
        writing(&four),
    );
    let fresh = here.process().await;
    for bytes in &doomed {
        assert_eq!(obstacle(&fresh, bytes).await, Some(Code::KeyDestroyed), "no rotation brought it back");
    }
    for bytes in written.iter().chain([&kept]) {
        assert_eq!(opened(&fresh, bytes).await.unwrap().1, "acmeglobex");
    }
}

/// Rotates the branch keys of the region.
async fn rotate_branches(domicile: &Domicile) -> domicile::keyring::RotationReport {
    let permit = domicile.permit_region(&region(REGION), manage()).await.unwrap();
    domicile.keyring().rotate_branches(permit, true).await.unwrap()
}

#[tokio::test]
async fn what_others_seal_while_branch_keys_are_destroyed_opens_all_the_same() {
    let here = Region::new().await;
    let (officer, writer) = (here.process().await, here.process().await);
    let bytes = sealed_of(&writer, &[acme()]).await.unwrap();
    // The writer has the branch key at hand, and no time passes in which it would ask what changed.
    assert_eq!(rotate_branches(&officer).await.destroyed, 1);
    let new = sealed_of(&writer, &[globex()]).await.unwrap();
    erase_acme(&writer, &bytes).await.unwrap();
    let fax = Scope::new("acme", RecordType::FAX).unwrap();
    let other = sealed_of(&writer, &[fax]).await.unwrap();
    for domicile in [&here.process().await, &officer, &writer] {
        assert_eq!(opened(domicile, &new).await.unwrap().1, "globex");
        assert_eq!(opened(domicile, &other).await.unwrap().1, "acme");
        assert_eq!(obstacle(domicile, &bytes).await, Some(Code::KeyDestroyed));
    }
    let alive = here.rows(KeyKind::Branch).await;
    let alive: Vec<_> = alive.iter().map(|(version, state, _)| (*version, *state)).collect();
    assert_eq!(alive, [(1, KeyState::Destroyed), (2, KeyState::Active)]);
}

#[tokio::test]
async fn a_store_of_before_a_rotation_is_made_good_and_opens() {
    let here = Region::new().await;
    let process = here.process().await;
    let (bytes, erased) = (sealed(&process).await.unwrap(), sealed(&process).await.unwrap());
    let backup = here.memory.backup();
    assert_eq!(rotate_branches(&process).await.destroyed, 1);
    erase_acme(&process, &erased).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();

    here.memory.restore(&backup);
    let fresh = here.process().await;
    let report = fresh.replay(&export, manage()).await.unwrap();
    assert_eq!((report.entries, report.keys, report.buried.len()), (2, 1, 0));
    here.clock.advance(Duration::from_secs(3));
    for domicile in [&fresh, &here.process().await] {
        assert_eq!(opened(domicile, &bytes).await.unwrap().1, "acmeglobex");
        assert_eq!(obstacle(domicile, &erased).await, Some(Code::KeyDestroyed));
    }
    let new = sealed(&fresh).await.unwrap();
    // The branch key that came back goes with the next rotation.
    assert_eq!(rotate_branches(&fresh).await.destroyed, 1);
    here.clock.advance(Duration::from_secs(3));
    assert_eq!(opened(&here.process().await, &new).await.unwrap().1, "acmeglobex");
    assert_eq!(opened(&fresh, &bytes).await.unwrap().1, "acmeglobex");
}

#[tokio::test]
async fn what_a_checkpoint_said_of_the_keys_of_another_store_is_held_against_none() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let backup = here.memory.backup();
    let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
    assert_eq!(process.keyring().rotate_roots(permit, true).await.unwrap().rewrapped, 1);
    erase_acme(&process, &bytes).await.unwrap();
    process.checkpoint(&region(REGION), manage(), true).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory.restore(&backup);
    let fresh = here.process().await;
    fresh.replay(&export, manage()).await.unwrap();
    let key = here.kms[0].describe().await.unwrap().verifying_key;
    let statements = fresh.export(&region(REGION)).await.unwrap().verify(&key).unwrap();
    let said = fresh.check_checkpoint(&region(REGION), &statements).await.unwrap();
    assert!(said.is_some(), "when it was said is known all the same");
    // One that was said of this store is held against it.
    fresh.checkpoint(&region(REGION), manage(), true).await.unwrap();
    let statements = fresh.export(&region(REGION)).await.unwrap().verify(&key).unwrap();
    fresh.check_checkpoint(&region(REGION), &statements).await.unwrap();
}

#[tokio::test]
async fn what_was_erased_is_erased_again_whatever_was_written_since_the_restore() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let backup = here.memory.backup();
    erase_acme(&process, &bytes).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory.restore(&backup);
    // Another host, that never saw the store, and does not wait for the replay.
    std::fs::remove_file(here._directory.path().join("seen")).unwrap();
    let fresh = here.process().await;
    let permit = fresh.permit(&acme(), manage()).await.unwrap();
    assert_eq!(fresh.keyring().rotate(permit).await.unwrap().made, 1);
    assert_eq!(opened(&fresh, &bytes).await.unwrap().1, "acmeglobex");
    assert_eq!(fresh.replay(&export, manage()).await.unwrap().keys, 1);
    for domicile in [&fresh, &here.process().await] {
        assert_eq!(obstacle(domicile, &bytes).await, Some(Code::KeyDestroyed));
        assert_eq!(opened(domicile, &bytes).await.unwrap().1, "globex");
    }
}

#[tokio::test]
async fn a_row_put_back_below_two_tombstones_is_made_good() {
    let here = Region::new().await;
    let process = here.process().await;
    let (first, second) = (sealed(&process).await.unwrap(), sealed(&process).await.unwrap());
    let old = row_of_acme(&here).await;
    erase_acme(&process, &first).await.unwrap();
    erase_acme(&process, &second).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory.put_back(old);
    let other = here.process().await;
    other.replay(&export, manage()).await.unwrap();
    for bytes in [&first, &second] {
        assert_eq!(obstacle(&here.process().await, bytes).await, Some(Code::KeyDestroyed));
    }
    sealed(&other).await.unwrap();
}

#[tokio::test]
async fn a_hold_that_comes_while_keys_are_destroyed_keeps_them() {
    for erases in [false, true] {
        let mut here = Region::new().await;
        here.retention.add("EU".parse().unwrap(), RecordType::VOICE, "6 months").unwrap();
        // One key service, whose signatures can be made to wait.
        let kms = FakeKms::new(region(REGION)).unwrap();
        here.kms[0] = Arc::new(kms.clone());
        here.homes = Arc::new(MemoryStore::new());
        let process = here.process().await;
        for scope in [acme(), globex()] {
            process.choose_home(&scope, REGION).await.unwrap();
        }
        let bytes = sealed(&process).await.unwrap();
        let officer = here.process().await;
        if !erases {
            here.clock.advance(DAY * 188);
        }
        // Both processes have begun their audit chains, which is signed too.
        opened(&officer, &bytes).await.unwrap();
        let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
        process.keyring().hold(permit, concerned("globex", "fax"), "case 1").await.unwrap();

        kms.delay(Operation::Sign, Duration::from_secs(1));
        let destroying = {
            let (process, bytes) = (process.clone(), bytes.clone());
            tokio::spawn(async move {
                if erases {
                    return erase_acme(&process, &bytes).await.map(|_| ());
                }
                let permit = process.permit_region(&region(REGION), manage()).await?;
                process.keyring().expire(permit, process.retention(), false).await.map(|_| ())
            })
        };
        kms.gate().until_held(1).await;
        kms.delay(Operation::Sign, Duration::ZERO);
        let permit = officer.permit_region(&region(REGION), manage()).await.unwrap();
        officer.keyring().hold(permit, concerned("acme", "all"), "case 8").await.unwrap();
        kms.gate().advance(Duration::from_secs(1));
        let done = destroying.await.unwrap();
        assert_eq!(done.err().map(|error| error.code()), erases.then_some(Code::KeyHeld));
        assert!(opened(&here.process().await, &bytes).await.unwrap().1.starts_with("acme"));
    }
}

#[tokio::test]
async fn a_segment_that_holds_what_is_held_is_not_retired() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
    process.keyring().hold(permit, concerned("globex", "voice"), "case 9").await.unwrap();
    let id = domicile_record::inspect(&bytes[..]).unwrap().segment;
    let retire = async || erase(&process, &bytes[..], &Erasable::Segment, &id, Purpose::Maintenance).await;
    assert_eq!(retire().await.unwrap_err().code(), Code::KeyHeld);
    assert_eq!(opened(&process, &bytes).await.unwrap().1, "acmeglobex");
    let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
    process.keyring().release(permit, concerned("globex", "voice"), "closed").await.unwrap();
    retire().await.unwrap();
    assert_eq!(opened(&here.process().await, &bytes).await.unwrap().1, "");
}

#[tokio::test]
async fn of_several_shreddings_the_first_to_be_due_counts_and_none_hides_another() {
    let here = Region::new().await;
    let process = here.process().await;
    let fax = Scope::new("acme", RecordType::FAX).unwrap();
    let bytes = sealed(&process).await.unwrap();
    let other = sealed_of(&process, &[fax]).await.unwrap();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let keys = process.keyring();
    keys.shred(permit().await, concerned("acme", "fax"), DAY * 365).await.unwrap();
    keys.shred(permit().await, concerned("acme", "all"), DAY * 7).await.unwrap();
    // Taking one back does not take the other back.
    keys.unshred(permit().await, concerned("acme", "fax")).await.unwrap();
    assert_eq!(opened(&process, &other).await.unwrap().1, "", "it is still to be shredded with all");
    keys.shred(permit().await, concerned("acme", "fax"), DAY * 365).await.unwrap();
    here.clock.advance(DAY * 8);
    let report = keys.expire(permit().await, process.retention(), false).await.unwrap();
    assert_eq!(report.destroyed.unwrap().keys, 2);
    let done: Vec<_> = keys.shreddings(&region(REGION)).await.unwrap();
    let done: Vec<_> = done.iter().map(|one| (one.whom.to_string(), one.done)).collect();
    assert_eq!(done, [("acme/fax".to_owned(), false), ("acme/all".to_owned(), true)]);
    keys.unshred(permit().await, concerned("acme", "fax")).await.unwrap();
    let fresh = here.process().await;
    assert_eq!(opened(&fresh, &other).await.unwrap().1, "");
    assert_eq!(opened(&fresh, &bytes).await.unwrap().1, "globex");
}

#[tokio::test]
async fn what_is_held_is_neither_erased_nor_destroyed() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let keys = process.keyring();
    let refused = keys.hold(permit().await, concerned("acme", "voice"), " ").await;
    assert_eq!(refused.unwrap_err().code(), Code::ArgumentInvalid, "a hold has a reason");
    keys.hold(permit().await, concerned("acme", "voice"), "case 4/26").await.unwrap();
    assert_eq!(keys.holds(&region(REGION)).await.unwrap()[0].reason, "case 4/26");
    let held = erase_acme(&here.process().await, &bytes).await.unwrap_err();
    assert_eq!((held.code(), held.broken_rule()), (Code::KeyHeld, Some("held: case 4/26")));
    let no_such = keys.release(permit().await, concerned("acme", "all"), "closed").await;
    assert_eq!(no_such.unwrap_err().code(), Code::ArgumentInvalid);
    keys.release(permit().await, concerned("acme", "voice"), "closed").await.unwrap();
    erase_acme(&process, &bytes).await.unwrap();
}

#[tokio::test]
async fn a_period_that_expired_is_gone_from_old_copies_and_its_neighbours_are_not() {
    let mut here = Region::new().await;
    here.retention.add("EU".parse().unwrap(), RecordType::VOICE, "6 months").unwrap();
    let process = here.process().await;
    let november = sealed(&process).await.unwrap();
    let permit = async |process: &Domicile| process.permit_region(&region(REGION), manage()).await.unwrap();
    let expire = async |process: &Domicile, dry| {
        process.keyring().expire(permit(process).await, process.retention(), dry).await.unwrap()
    };
    assert!(expire(&process, true).await.due.is_empty());
    here.clock.advance(DAY * 182);
    // On 2027-05-26 nothing is due; on the 1st of June, November's keys are.
    assert!(expire(&process, true).await.due.is_empty());
    here.clock.advance(DAY * 6);
    process.keyring().hold(permit(&process).await, concerned("globex", "all"), "case 5").await.unwrap();
    let dry = expire(&process, true).await;
    assert_eq!((dry.due.len(), dry.destroyed), (2, None));
    assert!(dry.due.iter().all(|due| due.cause == Cause::Expiry && due.period.to_string() == "2026-11"));
    assert_eq!(opened(&process, &november).await.unwrap().1, "acmeglobex", "a dry run destroys nothing");

    let report = expire(&process, false).await;
    assert_eq!(report.destroyed.unwrap().keys, 1);
    assert_eq!(report.due.iter().filter(|due| due.held.is_some()).count(), 1);
    assert_eq!(obstacle(&process, &november).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&here.process().await, &november).await.unwrap(), (State::Complete, "globex".into()));
    // A destroyed period is not made again.
    let again = sealed_of(&process, &[acme()]).await;
    assert_eq!(again.unwrap_err().code(), Code::KeyDestroyed);
    assert!(expire(&process, false).await.due.iter().all(|due| due.held.is_some()), "done is done");
}

#[tokio::test]
async fn what_is_to_be_shredded_is_not_used_meanwhile_and_can_be_had_back() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let keys = process.keyring();
    keys.shred(permit().await, concerned("acme", "all"), DAY * 7).await.unwrap();
    assert_eq!(obstacle(&process, &bytes).await, Some(Code::KeyShredding));
    assert_eq!(sealed(&process).await.unwrap_err().code(), Code::KeyShredding);
    assert_eq!(keys.expire(permit().await, process.retention(), false).await.unwrap().due, []);
    keys.unshred(permit().await, concerned("acme", "all")).await.unwrap();
    assert_eq!(opened(&process, &bytes).await.unwrap().1, "acmeglobex");

    keys.shred(permit().await, concerned("acme", "all"), DAY * 7).await.unwrap();
    here.clock.advance(DAY * 7);
    let report = keys.expire(permit().await, process.retention(), false).await.unwrap();
    assert_eq!((report.due[0].cause, report.destroyed.unwrap().keys), (Cause::Shredding, 1));
    for domicile in [&process, &here.process().await] {
        assert_eq!(obstacle(domicile, &bytes).await, Some(Code::KeyDestroyed));
        assert_eq!(opened(domicile, &bytes).await.unwrap().1, "globex");
        assert_eq!(sealed(domicile).await.unwrap_err().code(), Code::KeyShredding, "nothing begins anew");
    }
}

#[tokio::test]
async fn with_custody_of_all_no_holder_alone_opens_anything_and_with_any_each_does() {
    let mut here = Region::new().await;
    here.custody = Some(Agreement::All);
    let bytes = sealed(&here.process().await).await.unwrap();
    assert_eq!(opened(&here.process().await, &bytes).await.unwrap().1, "acmeglobex");
    let both = here.kms.clone();
    // One of them is somebody else's service: its wraps do not verify.
    for missing in 0..2 {
        let other = here._directory.path().join(format!("other-{missing}"));
        let other = LocalKms::create(region(REGION), other.clone(), other.with_extension("signing")).unwrap();
        here.kms = both.clone();
        let signing = here.kms[0].describe().await.unwrap().verifying_key;
        here.kms[missing] = Arc::new(other);
        if missing == 0 {
            // The first signs too, and homes are verified under its key.
            assert_ne!(here.kms[0].describe().await.unwrap().verifying_key, signing);
            continue;
        }
        assert_eq!(obstacle(&here.process().await, &bytes).await, Some(Code::KmsDenied));
    }
    here.kms = both;

    // A change of custody is a new wrap of the same keys: old files open, and now each alone opens them.
    here.custody = None;
    assert!(obstacle(&here.process().await, &bytes).await.is_some(), "the second holder is not asked");
    here.custody = Some(Agreement::All);
    let all = here.process().await;
    let filter = here.rows(KeyKind::Branch).await;
    here.custody = Some(Agreement::Any);
    let any = here.process().await;
    let permit = any.permit_region(&region(REGION), manage()).await.unwrap();
    assert_eq!(any.keyring().rotate_roots(permit, false).await.unwrap().rewrapped, filter.len());
    assert_eq!(opened(&any, &bytes).await.unwrap().1, "acmeglobex");
    drop(all);
    let other = here._directory.path().join("third");
    here.kms[1] =
        Arc::new(LocalKms::create(region(REGION), other.clone(), other.with_extension("signing")).unwrap());
    assert_eq!(opened(&here.process().await, &bytes).await.unwrap().1, "acmeglobex");
}

#[tokio::test]
async fn a_store_that_was_put_back_opens_nothing_before_the_replay_and_nothing_erased_after_it() {
    let here = Region::new().await;
    let process = here.process().await;
    let (erased, kept) = (sealed(&process).await.unwrap(), sealed(&process).await.unwrap());
    let backup = here.memory.backup();
    erase_acme(&process, &erased).await.unwrap();
    let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
    process.keyring().hold(permit, concerned("globex", "all"), "case 6").await.unwrap();
    let fax = Scope::new("acme", RecordType::FAX).unwrap();
    sealed_of(&process, &[fax]).await.unwrap();
    let early = process.export(&region(REGION)).await.unwrap();
    let permit = process.permit_region(&region(REGION), manage()).await.unwrap();
    process.keyring().hold(permit, concerned("globex", "fax"), "case 7").await.unwrap();
    let mut text = Vec::new();
    process.export(&region(REGION)).await.unwrap().write(&mut text).unwrap();
    // Another process saw the newest entry, and this host remembers it.
    let newest = here.process().await;
    opened(&newest, &kept).await.unwrap();
    here.clock.advance(Duration::from_secs(3));
    opened(&process, &kept).await.unwrap();

    here.memory.restore(&backup);
    here.clock.advance(Duration::from_secs(3));
    for domicile in [&process, &here.process().await] {
        assert_eq!(obstacle(domicile, &erased).await, Some(Code::KeyRolledBack));
        assert_eq!(opened(domicile, &kept).await.unwrap_err().code(), Code::KeyRolledBack);
        assert_eq!(sealed(domicile).await.unwrap_err().code(), Code::KeyRolledBack);
    }
    let fresh = here.process().await;
    let old = fresh.replay(&early, manage()).await.unwrap_err();
    assert_eq!(
        old.code(),
        Code::KeyRolledBack,
        "an export older than what this host saw would bring back what was erased"
    );
    let export = domicile::export::Export::read(&text[..]).unwrap();
    let report = fresh.replay(&export, manage()).await.unwrap();
    assert_eq!((report.entries, report.keys), (3, 1));
    let gone: Vec<_> = report.gone.iter().map(|(_, whose)| whose.as_str()).collect();
    assert_eq!(gone, ["acme/fax/2026-11"], "a key that was used and is gone is named");

    here.clock.advance(Duration::from_secs(3));
    for domicile in [&fresh, &process, &here.process().await] {
        assert_eq!(obstacle(domicile, &erased).await, Some(Code::KeyDestroyed));
        assert_eq!(opened(domicile, &kept).await.unwrap().1, "acmeglobex");
        assert_eq!(domicile.keyring().holds(&region(REGION)).await.unwrap().len(), 2);
    }
    // Again, it finds everything done.
    let again = here.process().await.replay(&export, manage()).await.unwrap();
    assert_eq!((again.entries, again.keys), (0, 0));
}

#[tokio::test]
async fn one_row_put_back_is_known_by_its_tombstone() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let old = row_of_acme(&here).await;
    erase_acme(&process, &bytes).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory.put_back(old);
    let other = here.process().await;
    assert_eq!(obstacle(&other, &bytes).await, Some(Code::KeyRolledBack));
    assert_eq!(opened(&other, &bytes).await.unwrap().1, "globex");
    assert_eq!(other.replay(&export, manage()).await.unwrap().keys, 1);
    assert_eq!(obstacle(&here.process().await, &bytes).await, Some(Code::KeyDestroyed));
}

#[tokio::test]
async fn a_store_that_is_away_is_bridged_until_the_hard_age() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let ages = Ages::default();
    for operation in ["mark", "newest", "versions", "find", "named", "changes_since"] {
        here.store.fail(operation, Some(Fault::Away));
    }
    here.clock.advance(ages.hard - Duration::from_secs(1));
    assert_eq!(opened(&process, &bytes).await.unwrap().1, "acmeglobex");
    here.clock.advance(Duration::from_secs(2));
    assert_eq!(opened(&process, &bytes).await.unwrap_err().code(), Code::StoreUnavailable);
    for operation in ["mark", "newest", "versions", "find", "named", "changes_since"] {
        here.store.fail(operation, None);
    }
    assert_eq!(opened(&process, &bytes).await.unwrap().1, "acmeglobex");
    assert!(here.clock.elapsed() > ages.hard);
}

#[tokio::test]
async fn an_erasure_whose_answer_was_lost_was_done() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    here.store.fail("write", Some(Fault::Lost));
    assert_eq!(erase_acme(&process, &bytes).await.unwrap_err().code(), Code::StoreUnavailable);
    here.store.fail("write", None);
    assert_eq!(erase_acme(&here.process().await, &bytes).await.unwrap_err().code(), Code::KeyDestroyed);
}

#[tokio::test]
async fn a_rewrapped_segment_is_the_same_records_under_the_newest_keys_and_erased_with_all_its_editions() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process).await.unwrap();
    let mut none = Vec::new();
    let current = rewrap(&process, &bytes[..], Purpose::Maintenance, &mut none).await.unwrap();
    assert_eq!((current.lanes, current.current, none.len()), (0, 2, 0), "nothing is written for nothing");

    process.keyring().rotate(process.permit(&acme(), manage()).await.unwrap()).await.unwrap();
    let mut edition = Vec::new();
    let moved = rewrap(&process, &bytes[..], Purpose::Maintenance, &mut edition).await.unwrap();
    assert_eq!((moved.lanes, moved.current, moved.erased), (1, 1, 0));
    let mut again = Vec::new();
    assert_eq!(rewrap(&process, &edition[..], Purpose::Maintenance, &mut again).await.unwrap().lanes, 0);
    for bytes in [&bytes, &edition] {
        assert_eq!(
            opened(&here.process().await, bytes).await.unwrap(),
            (State::Complete, "acmeglobex".into())
        );
        assert!(domicile_record::verify(&process, &bytes[..], None).await.unwrap().is_complete());
    }
    // The same blocks: only the openings and the footer are others.
    let (old, new) =
        (domicile_record::inspect(&bytes[..]).unwrap(), domicile_record::inspect(&edition[..]).unwrap());
    assert_eq!((old.segment, old.blocks), (new.segment, new.blocks));

    // A third edition is another wrap of the same data key: all nonces are distinct, and one erasure ends all of them.
    process.keyring().rotate(process.permit(&acme(), manage()).await.unwrap()).await.unwrap();
    let mut third = Vec::new();
    rewrap(&process, &bytes[..], Purpose::Maintenance, &mut third).await.unwrap();
    let mut nonces = std::collections::BTreeSet::new();
    for bytes in [&bytes, &edition, &third] {
        nonces.insert(wrap_nonce(bytes));
    }
    assert_eq!(nonces.len(), 3);
    erase_acme(&process, &edition).await.unwrap();
    for bytes in [&bytes, &edition, &third] {
        assert_eq!(obstacle(&process, bytes).await, Some(Code::KeyDestroyed));
        let mut erased = Vec::new();
        let report = rewrap(&process, &bytes[..], Purpose::Maintenance, &mut erased).await.unwrap();
        assert_eq!((report.lanes, report.erased), (0, 1), "what was erased is wrapped under nothing again");
    }
    // What is not whole is left as it is.
    let cut = &bytes[..first_block(&bytes, BlockKind::LaneEnd)];
    let mut output = Vec::new();
    let refused = rewrap(&process, cut, Purpose::Maintenance, &mut output).await.unwrap_err();
    assert_eq!(refused.class(), domicile::Class::Unfinished);
    assert!(output.is_empty());
}

/// The nonce of the first lane's wrapped key.
fn wrap_nonce(bytes: &[u8]) -> Vec<u8> {
    let (at, block) = blocks(bytes)
        .find(|(_, block)| block.kind == BlockKind::LaneOpen && block.lane == LaneNo(1))
        .unwrap();
    let body = &bytes[at + BlockHeader::BYTES..][..block.payload_bytes()];
    LaneOpen::decode(body, LaneNo(1)).unwrap().wrapped.unwrap().nonce.to_vec()
}

/// Where the first block of this kind begins.
fn first_block(bytes: &[u8], kind: BlockKind) -> usize {
    blocks(bytes).find(|(_, block)| block.kind == kind).unwrap().0
}

/// The blocks of a segment, and where each begins.
fn blocks(bytes: &[u8]) -> impl Iterator<Item = (usize, BlockHeader)> {
    let header = SegmentHeader::decode(bytes[..SegmentHeader::BYTES].try_into().unwrap()).unwrap();
    let mut next = SegmentHeader::BYTES;
    std::iter::from_fn(move || {
        let at = next;
        let encoded = bytes.get(at..at + BlockHeader::BYTES)?;
        let block = BlockHeader::decode(encoded.try_into().unwrap(), &header.id).unwrap();
        next = at + BlockHeader::BYTES + block.body_bytes();
        Some((at, block))
    })
}

#[tokio::test]
async fn the_next_periods_keys_are_made_ahead_each_at_its_own_time() {
    let here = Region::new().await;
    let process = here.process().await;
    sealed(&process).await.unwrap();
    let permit = async || process.permit_region(&region(REGION), manage()).await.unwrap();
    let early = process.keyring().make_ahead(permit().await).await.unwrap();
    // acme's, globex's and the region's own: on the 25th of November, nobody's time has come.
    assert_eq!((early.made, early.there, early.later), (0, 0, 3));
    here.clock.advance(DAY * 5);
    let keys = process.keyring();
    keys.shred(permit().await, concerned("globex", "all"), DAY * 7).await.unwrap();
    let made = keys.make_ahead(permit().await).await.unwrap();
    assert_eq!((made.made, made.there, made.later), (2, 0, 0), "and none for whom is to be shredded");
    let again = keys.make_ahead(permit().await).await.unwrap();
    assert_eq!((again.made, again.there), (0, 2));
    // In December they are what seals, and no other is made.
    here.clock.advance(DAY * 2);
    let december =
        Descriptor { period: "2026-12".parse().unwrap(), ..descriptor("acme", Contents::default()) };
    let before = here.rows(KeyKind::Tenant).await.len();
    let mut writer =
        SegmentWriter::create(&process, &region(REGION), Vec::new(), WriterOptions::default()).await.unwrap();
    writer.open_lane(december, b"").await.unwrap();
    assert_eq!(here.rows(KeyKind::Tenant).await.len(), before);
}

/// What is retired in a row costs the state of the region's key no more than one segment (decision 0021).
#[tokio::test]
async fn segments_that_follow_one_another_have_neighbouring_leaves() {
    let region_here = Region::new().await;
    let process = region_here.process().await;
    let november = "2026-11".parse().unwrap();
    let mut leaves = Vec::new();
    for _ in 0..3 {
        let permit = process.permit_region(&region(REGION), Action::Seal).await.unwrap();
        leaves.push(process.keyring().segment_leaf(permit, november).await.unwrap().leaf().leaf.0);
        // Lanes of scopes, and the region's own.
        sealed(&process).await.unwrap();
    }
    // Each `sealed` wrote a segment too.
    assert_eq!([leaves[0] + 2, leaves[0] + 4], leaves[1..]);
}
