//! A process that is killed in the middle of what changes keys (KEY-40, KEY-42): at every write of its store and every
//! call of its key services, before it and behind it. Whoever comes next opens everything that was sealed, and nothing that
//! was erased; done again, the work ends as it would have.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domicile::context::{EncryptionContext, KeyKind};
use domicile::danger::SeededRandom;
use domicile::keyring::Concerned;
use domicile::kms::{Agreement, Custody, FakeKms, Holder, Kms, KmsDescription};
use domicile::retention::Retention;
use domicile::secret::Secret;
use domicile::store::{
    Death, FaultyStore, Fuse, HomeRegistry, KeyState, KeyStore, MemoryStore, RowFilter, Severity, SqliteStore,
};
use domicile::{Action, Code, Domicile, KnownRegion, ManualClock, Purpose, RecordType, Result};
use domicile_record::format::{Contents, LaneNo};
use domicile_record::{Erasable, Segment, SegmentWriter, Selection, Stamp, State, WriterOptions};
use domicile_tests::{descriptor, place, region, scope};

const REGION: &str = "eu-central-1";

/// A key service as one process has it.
#[derive(Debug)]
struct Reached {
    kms: FakeKms,
    fuse: Fuse,
}

impl Reached {
    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.fuse.step(Code::KmsUnavailable, work).await
    }
}

#[async_trait]
impl Kms for Reached {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.call(self.kms.generate(context)).await
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.call(self.kms.wrap(key, context)).await
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.call(self.kms.unwrap(wrap, context)).await
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        self.call(self.kms.sign(statement)).await
    }

    async fn describe(&self) -> Result<KmsDescription> {
        self.call(self.kms.describe()).await
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        self.kms.root_of(wrap)
    }

    async fn current_root(&self) -> Result<String> {
        self.call(self.kms.current_root()).await
    }

    async fn rotate_root(&self) -> Result<String> {
        self.call(self.kms.rotate_root()).await
    }

    async fn retire_root(&self, id: &str) -> Result<()> {
        self.call(self.kms.retire_root(id)).await
    }

    async fn probe(&self) -> Result<()> {
        self.call(self.kms.probe()).await
    }
}

/// Which store a place is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Memory,
    Sqlite,
}

/// A region, its key services and its store, as they are between processes.
struct Place {
    directory: tempfile::TempDir,
    on: On,
    memory: Arc<MemoryStore>,
    kms: Vec<FakeKms>,
    clock: ManualClock,
    custody: Option<Agreement>,
}

/// What was sealed before anything was done.
struct Sealed {
    doomed: Vec<u8>,
    kept: Vec<u8>,
    /// The root key of then.
    root: String,
}

/// The same key services, whoever makes them: the randomness of each begins anew.
fn services() -> Vec<FakeKms> {
    let service = |seed| FakeKms::with_randomness(region(REGION), Arc::new(SeededRandom::new(seed)));
    [7, 8].map(|seed| service(seed).unwrap()).into()
}

impl Place {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("domicile.db")
    }

    /// An empty place.
    async fn new(on: On, custody: Option<Agreement>) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            on,
            memory: Arc::new(MemoryStore::new()),
            kms: services(),
            clock: ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap()),
            custody,
        };
        if on == On::Sqlite {
            KeyStore::close(&SqliteStore::create(&place.path()).await.unwrap()).await;
        }
        place
    }

    /// A copy of a place, in which nothing runs.
    fn copy(&self) -> Self {
        let copy = Self {
            directory: tempfile::tempdir().unwrap(),
            on: self.on,
            memory: Arc::new(MemoryStore::new()),
            kms: services(),
            clock: self.clock.clone(),
            custody: self.custody,
        };
        copy.memory.restore(&self.memory.backup());
        if self.on == On::Sqlite {
            std::fs::copy(self.path(), copy.path()).unwrap();
        }
        copy
    }

    /// A process that starts now.
    async fn process(&self, fuse: &Fuse) -> Domicile {
        let (keys, homes): (Arc<dyn KeyStore>, Arc<dyn HomeRegistry>) = match self.on {
            On::Memory => (self.memory.clone(), self.memory.clone()),
            On::Sqlite => {
                let store = Arc::new(SqliteStore::open(&self.path()).await.unwrap());
                (store.clone(), store)
            }
        };
        let reached = |kms: &FakeKms| Arc::new(Reached { kms: kms.clone(), fuse: fuse.clone() });
        let known = KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: self.kms[0].describe().await.unwrap().verifying_key,
            kms: Some(reached(&self.kms[0])),
            store: Arc::new(FaultyStore::of_process(keys, fuse.clone())),
        };
        let mut retention = Retention::default();
        retention.add("EU".parse().unwrap(), RecordType::VOICE, "1 month").unwrap();
        let mut builder = Domicile::builder(region(REGION), homes)
            .region(known)
            .clock(Arc::new(self.clock.clone()))
            .retention(retention);
        if let Some(agreement) = self.custody {
            let holder = |(name, kms): (&str, &FakeKms)| Holder { name: name.to_owned(), kms: reached(kms) };
            let holders = ["ours", "theirs"].into_iter().zip(&self.kms).map(holder).collect();
            builder = builder.custody(region(REGION), None, Custody::of(agreement, holders).unwrap());
        }
        builder.build().unwrap()
    }

    async fn seal(&self) -> Sealed {
        let process = self.process(&Fuse::default()).await;
        for tenant in ["acme", "globex"] {
            process.choose_home(&scope(tenant), REGION).await.unwrap();
        }
        let root = self.kms[0].current_root().await.unwrap();
        let sealed = Sealed { doomed: sealed(&process).await, kept: sealed(&process).await, root };
        process.close().await;
        sealed
    }

    /// All rows of a kind, without their bytes.
    async fn rows(&self, process: &Domicile, kind: KeyKind) -> Vec<Row> {
        let store = &process.region(&region(REGION)).unwrap().store;
        let filter = RowFilter { region: region(REGION), kind, period: None, tenant: None };
        let rows = store.load_many(&filter, None, 1_000).await.unwrap();
        let row = |stored: &domicile::store::StoredKey| Row {
            scope: stored.row.identity.slot.scope.to_string(),
            version: stored.row.identity.version,
            state: stored.row.state,
            parent: stored.row.parent_version,
        };
        rows.iter().map(row).collect()
    }
}

/// A row of a key, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    scope: String,
    version: u32,
    state: KeyState,
    parent: u32,
}

/// A segment with a lane for acme and one for globex, and in each one record: the tenant's name.
async fn sealed(domicile: &Domicile) -> Vec<u8> {
    let options = WriterOptions::default();
    let mut writer = SegmentWriter::create(domicile, &region(REGION), Vec::new(), options).await.unwrap();
    for tenant in ["acme", "globex"] {
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await.unwrap();
        writer.append(lane, tenant.as_bytes(), Stamp::default()).unwrap();
    }
    writer.finish().await.unwrap().0
}

/// What opens of a segment.
async fn opened(domicile: &Domicile, bytes: &[u8]) -> (State, String) {
    let segment = Segment::open_source(domicile, bytes, Purpose::Support, Selection::all()).await.unwrap();
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    (segment.state().clone(), String::from_utf8(output).unwrap())
}

async fn manage(process: &Domicile) -> Result<domicile::Permit> {
    process.permit_region(&region(REGION), Action::Manage(Purpose::Maintenance.into())).await
}

/// What is done, and done again after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    RotateTenant,
    RotateBranches,
    RotateRoots,
    RetireRoot,
    /// To another agreement of the same holders: new wraps, then new branch keys.
    ChangeCustody,
    EraseLane,
    RetireSegment,
    Shred,
    Expire,
    Hold,
}

impl Work {
    async fn run(self, process: &Domicile, sealed: &Sealed) -> Result<()> {
        let keys = process.keyring();
        match self {
            Work::RotateTenant => {
                let manage = Action::Manage(Purpose::Maintenance.into());
                keys.rotate(process.permit(&scope("acme"), manage).await?).await.map(drop)
            }
            Work::RotateBranches => keys.rotate_branches(manage(process).await?, true).await.map(drop),
            Work::RotateRoots => keys.rotate_roots(manage(process).await?, true).await.map(drop),
            Work::RetireRoot => {
                keys.rotate_roots(manage(process).await?, true).await?;
                match keys.retire_root(manage(process).await?, &sealed.root).await {
                    // It was done before the kill.
                    Err(error) if error.code() == Code::ArgumentInvalid => Ok(()),
                    retired => retired,
                }
            }
            Work::ChangeCustody => {
                keys.rotate_roots(manage(process).await?, false).await?;
                keys.rotate_branches(manage(process).await?, true).await.map(drop)
            }
            Work::EraseLane | Work::RetireSegment => {
                let erasable = match self {
                    Work::EraseLane => Erasable::Lanes(vec![LaneNo(1)]),
                    _ => Erasable::Segment,
                };
                let id = domicile_record::inspect(&sealed.doomed[..])?.segment;
                let erased =
                    domicile_record::erase(process, &sealed.doomed[..], &erasable, &id, Purpose::Maintenance);
                match erased.await {
                    // It was done before the kill.
                    Err(error) if error.code() == Code::KeyDestroyed => Ok(()),
                    erased => erased.map(drop),
                }
            }
            Work::Shred => {
                let whom = Concerned { tenant: "acme".parse()?, types: "all".parse()? };
                keys.shred(manage(process).await?, whom, Duration::ZERO).await?;
                keys.expire(manage(process).await?, process.retention(), false).await.map(drop)
            }
            Work::Expire => keys.expire(manage(process).await?, process.retention(), false).await.map(drop),
            Work::Hold => {
                let whom = Concerned { tenant: "acme".parse()?, types: "all".parse()? };
                keys.hold(manage(process).await?, whom, "case 1").await.map(drop)
            }
        }
    }
}

impl Work {
    /// What opens of the doomed segment while the work is done, and when it is.
    fn leaves(self) -> (&'static [&'static str], &'static str) {
        match self {
            Work::EraseLane | Work::Shred => (&["acmeglobex", "globex"], "globex"),
            Work::RetireSegment | Work::Expire => (&["acmeglobex", ""], ""),
            _ => (&["acmeglobex"], "acmeglobex"),
        }
    }

    /// Whether the keys are as the work leaves them.
    async fn check_done(self, place: &Place, process: &Domicile, sealed: &Sealed) {
        let keys = process.keyring();
        let branches = place.rows(process, KeyKind::Branch).await;
        let tenants = place.rows(process, KeyKind::Tenant).await;
        match self {
            Work::RotateTenant => {
                let acme: Vec<_> = tenants.iter().filter(|row| row.scope == "acme/voice").collect();
                let (newest, older) = acme.split_last().unwrap();
                assert_eq!((newest.state, older.is_empty()), (KeyState::Active, false), "{acme:?}");
                assert!(older.iter().all(|row| row.state == KeyState::DecryptOnly), "{acme:?}");
            }
            Work::RotateBranches | Work::ChangeCustody => {
                let (newest, older) = branches.split_last().unwrap();
                assert_eq!((newest.state, older.is_empty()), (KeyState::Active, false), "{branches:?}");
                assert!(older.iter().all(|row| row.state == KeyState::Destroyed), "{branches:?}");
                assert!(tenants.iter().all(|row| row.parent == newest.version), "{tenants:?}");
                let again = keys.rotate_branches(manage(process).await.unwrap(), false).await.unwrap();
                assert_eq!((again.made, again.rewrapped, again.destroyed), (0, 0, 0), "done is done");
                let again = keys.rotate_roots(manage(process).await.unwrap(), false).await.unwrap();
                assert_eq!(again.rewrapped, 0, "done is done");
            }
            Work::RotateRoots | Work::RetireRoot => {
                let again = keys.rotate_roots(manage(process).await.unwrap(), false).await.unwrap();
                assert_eq!(again.rewrapped, 0, "done is done");
                assert_eq!(branches.len(), 1);
                let retired = keys.retire_root(manage(process).await.unwrap(), &sealed.root).await;
                assert_eq!(retired.is_err(), self == Work::RetireRoot, "it is gone, or may go");
            }
            Work::Shred => {
                let acme = tenants.iter().filter(|row| row.scope == "acme/voice");
                assert!(
                    acme.clone().count() == 1 && acme.clone().all(|row| row.state == KeyState::Destroyed)
                );
                assert!(keys.shreddings(&region(REGION)).await.unwrap()[0].done);
            }
            Work::Hold => {
                let holds = keys.holds(&region(REGION)).await.unwrap();
                assert_eq!((holds.len(), &holds[0].reason[..]), (1, "case 1"));
            }
            Work::Expire => {
                let due =
                    keys.expire(manage(process).await.unwrap(), process.retention(), true).await.unwrap();
                assert_eq!(due.due, [], "done is done");
            }
            Work::EraseLane | Work::RetireSegment => {}
        }
    }
}

/// Kills the work at each of its steps, on both sides, until it is not killed any more; says how many steps it has.
async fn killed_everywhere(on: On, before: Option<Agreement>, after: Option<Agreement>, work: Work) -> u64 {
    let base = Place::new(on, before).await;
    let sealed = base.seal().await;
    let (meanwhile, done) = work.leaves();
    for step in 1.. {
        for death in [Death::Before, Death::After] {
            let at = format!("{work:?} on {on:?}, killed {death:?} step {step}");
            let day = if work == Work::Expire { "2027-03-01" } else { "2026-11-25" };
            let clock = ManualClock::new(format!("{day}T09:00:00Z").parse().unwrap());
            let place = Place { custody: after, clock, ..base.copy() };
            let fuse = Fuse::at(step, death);
            let process = place.process(&fuse).await;
            let outcome = work.run(&process, &sealed).await;
            assert!(fuse.is_blown() || outcome.is_ok(), "{at}: {outcome:?}");
            process.close().await;
            let untouched = !fuse.is_blown();

            let next = place.process(&Fuse::default()).await;
            let full = "acmeglobex".to_owned();
            if [Work::Shred, Work::Expire].contains(&work) {
                let left = opened(&next, &sealed.kept).await.1;
                assert!(meanwhile.contains(&&left[..]), "{at}: {left}");
            } else {
                assert_eq!(opened(&next, &sealed.kept).await, (State::Complete, full.clone()), "{at}");
            }
            let left = opened(&next, &sealed.doomed).await.1;
            assert!(meanwhile.contains(&&left[..]), "{at}: {left}");
            if untouched {
                assert_eq!(left, done, "{at}");
            } else {
                work.run(&next, &sealed).await.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            }
            work.check_done(&place, &next, &sealed).await;
            // As whoever comes last sees it.
            let last = place.process(&Fuse::default()).await;
            assert_eq!(opened(&last, &sealed.doomed).await.1, done, "{at}");
            let kept = if [Work::Shred, Work::Expire].contains(&work) { done } else { "acmeglobex" };
            assert_eq!(opened(&last, &sealed.kept).await.1, kept, "{at}");
            let export = last.export(&region(REGION)).await.unwrap();
            export.verify(&last.region(&region(REGION)).unwrap().verifying_key).unwrap();
            // What was made and never came to the store is no key that was lost.
            let manage = Action::Manage(Purpose::Maintenance.into());
            let replayed = last.replay(&export, manage).await.unwrap();
            assert_eq!((replayed.entries, replayed.keys, replayed.gone), (0, 0, vec![]), "{at}");
            next.close().await;
            last.close().await;
            if on == On::Sqlite {
                let condition = SqliteStore::examine(&place.path()).await.unwrap();
                let mut wrong = condition.findings.iter().filter(|found| found.severity == Severity::Wrong);
                assert_eq!(wrong.next(), None, "{at}");
            }
            if untouched {
                return step - 1;
            }
        }
    }
    unreachable!("every work ends")
}

/// A test for each work on each store.
macro_rules! killed {
    ($($name:ident: $work:expr, $before:expr => $after:expr, at_least $steps:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                for on in [On::Memory, On::Sqlite] {
                    let steps = killed_everywhere(on, $before, $after, $work).await;
                    assert!(steps >= $steps, "only {steps} steps");
                }
            }
        )*
    };
}

killed! {
    a_rotation_of_a_tenant_key_is_killed_at_every_step: Work::RotateTenant, None => None, at_least 7;
    a_rotation_of_branch_keys_is_killed_at_every_step: Work::RotateBranches, None => None, at_least 12;
    a_rotation_of_the_root_key_is_killed_at_every_step: Work::RotateRoots, None => None, at_least 7;
    the_end_of_a_root_key_is_killed_at_every_step: Work::RetireRoot, None => None, at_least 9;
    a_change_to_custody_of_all_is_killed_at_every_step:
        Work::ChangeCustody, Some(Agreement::Any) => Some(Agreement::All), at_least 20;
    a_change_to_custody_of_any_is_killed_at_every_step:
        Work::ChangeCustody, Some(Agreement::All) => Some(Agreement::Any), at_least 20;
    an_erasure_of_a_lane_is_killed_at_every_step: Work::EraseLane, None => None, at_least 7;
    the_retirement_of_a_segment_is_killed_at_every_step: Work::RetireSegment, None => None, at_least 7;
    a_shredding_is_killed_at_every_step: Work::Shred, None => None, at_least 7;
    an_expiry_is_killed_at_every_step: Work::Expire, None => None, at_least 4;
    a_hold_is_killed_at_every_step: Work::Hold, None => None, at_least 5;
}
