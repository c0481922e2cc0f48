//! Single sealed records: that each opens where it was sealed and nowhere else (REC-1, REC-2, REC-5, REC-7), that no nonce
//! comes twice (REC-6), and that day keys begin, follow each other and end as keys do (REC-3, REC-8, KEY-45, KEY-46).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use domicile::context::KeyKind;
use domicile::danger::SeededRandom;
use domicile::keyring::{Concerned, WrappedDayKey};
use domicile::kms::{FakeKms, Kms, Operation};
use domicile::random::{OsRandom, Randomness};
use domicile::retention::Retention;
use domicile::store::{
    Fault, FaultyStore, KeyHandle, KeyRow, KeyState, KeyStore, MemoryStore, RowFilter, SqliteStore,
};
use domicile::{
    Action, Class, Code, Domicile, Error, KnownRegion, ManualClock, Purpose, RecordType, Result, Scope,
};
use domicile_record::format::SealedRecord;
use domicile_record::{
    OpenedBatch, RecordContext, RecordOpener, RecordSealer, RowId, SealedBatch, SealedRecords,
};
use domicile_tests::{Home, place, region, scope};

const REGION: &str = "eu-central-1";
const ELSEWHERE: &str = "us-east-1";
const DAY: Duration = Duration::from_secs(86_400);
const RECORD: &[u8] = b"+12015550102,+12015550147,31";

/// Two regions in memory, each with its key service and store: several processes may share them.
struct World {
    directory: tempfile::TempDir,
    kms: [FakeKms; 2],
    memory: [Arc<MemoryStore>; 2],
    store: Arc<FaultyStore>,
    homes: Arc<MemoryStore>,
    clock: ManualClock,
    retention: Retention,
}

impl World {
    async fn new() -> Self {
        Self::with(Arc::new(OsRandom)).await
    }

    async fn with(randomness: Arc<dyn Randomness>) -> Self {
        let kms = |name: &str| FakeKms::with_randomness(region(name), randomness.clone()).unwrap();
        let memory = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
        let here = Self {
            directory: tempfile::tempdir().unwrap(),
            kms: [kms(REGION), kms(ELSEWHERE)],
            store: Arc::new(FaultyStore::new(memory[0].clone())),
            memory,
            homes: Arc::new(MemoryStore::new()),
            clock: ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap()),
            retention: Retention::default(),
        };
        let process = here.process_with(REGION, randomness).await;
        for scope in [acme(), scope("globex"), fax()] {
            process.choose_home(&scope, REGION).await.unwrap();
        }
        here
    }

    async fn process(&self) -> Domicile {
        self.process_with(REGION, Arc::new(OsRandom)).await
    }

    async fn process_with(&self, here: &str, randomness: Arc<dyn Randomness>) -> Domicile {
        let stores: [Arc<dyn KeyStore>; 2] = [self.store.clone(), self.memory[1].clone()];
        let mut builder = Domicile::builder(region(here), self.homes.clone());
        for ((name, jurisdiction), (kms, store)) in
            [(REGION, "EU"), (ELSEWHERE, "US")].into_iter().zip(self.kms.iter().zip(stores))
        {
            builder = builder.region(KnownRegion {
                place: place(name, jurisdiction),
                verifying_key: kms.describe().await.unwrap().verifying_key,
                kms: Some(Arc::new(kms.clone())),
                store,
            });
        }
        builder
            .clock(Arc::new(self.clock.clone()))
            .retention(self.retention.clone())
            .randomness(randomness)
            .witness(self.directory.path().join("seen"))
            .build()
            .unwrap()
    }

    async fn days(&self) -> Vec<KeyRow> {
        let filter = RowFilter { region: region(REGION), kind: KeyKind::Day, period: None, tenant: None };
        let rows = self.memory[0].load_many(&filter, None, 1_000).await.unwrap();
        rows.into_iter().map(|stored| stored.row).collect()
    }

    /// How often the key service of home was asked to use a key.
    fn calls(&self) -> usize {
        let uses = [Operation::Generate, Operation::Wrap, Operation::Unwrap, Operation::Sign];
        uses.into_iter().map(|operation| self.kms[0].calls(operation)).sum()
    }

    /// What all audit chains of home say.
    async fn events(&self) -> Vec<serde_json::Value> {
        let chains = self.memory[0].chains().await.unwrap();
        let events = chains.into_iter().flat_map(|(_, events)| events);
        events.map(|event| serde_json::from_str(&event.body).unwrap()).collect()
    }
}

fn acme() -> Scope {
    scope("acme")
}

fn fax() -> Scope {
    Scope::new("acme", RecordType::FAX).unwrap()
}

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

fn column(domicile: &Domicile, scope: &Scope, name: &str) -> SealedRecords {
    SealedRecords::new(domicile, scope, RecordContext::new(&["calls", name]).unwrap())
}

/// acme's column of details.
fn details(domicile: &Domicile) -> SealedRecords {
    column(domicile, &acme(), "detail")
}

async fn sealed(domicile: &Domicile, row: i64, record: &[u8]) -> Result<Vec<u8>> {
    sealed_by(&mut details(domicile).sealer().await?, row, record)
}

fn sealed_by(sealer: &mut RecordSealer, row: i64, record: &[u8]) -> Result<Vec<u8>> {
    let mut cell = Vec::new();
    sealer.seal(row, record, &mut cell)?;
    Ok(cell)
}

/// What a process opens that begins with loading.
async fn opened(domicile: &Domicile, row: i64, cell: &[u8]) -> Result<Vec<u8>> {
    let opener = details(domicile).opener(Purpose::Support).await?;
    opener.load_for([cell]).await?;
    opened_by(&opener, row, cell)
}

/// What an opener opens alone; in a batch it must say the same.
fn opened_by(opener: &RecordOpener, row: i64, cell: &[u8]) -> Result<Vec<u8>> {
    let mut record = b"left by somebody else".to_vec();
    let result = opener.open(row, cell, &mut record);
    let mut batch = OpenedBatch::new();
    opener.open_batch(&[(row.into(), cell)], &mut batch);
    let of_batch = batch.iter().next().unwrap();
    match &result {
        Ok(()) => assert_eq!(of_batch.unwrap(), record),
        Err(error) => {
            assert_eq!(of_batch.unwrap_err().code(), error.code());
            assert!(record.is_empty(), "nothing that was not authenticated comes out");
        }
    }
    result.map(|()| record)
}

fn handle(cell: &[u8]) -> KeyHandle {
    SealedRecord::decode(cell).unwrap().handle
}

fn nonce(cell: &[u8]) -> [u8; 24] {
    cell[9..33].try_into().unwrap()
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn a_record_opens_in_another_process_and_is_49_octets_longer() {
    let here = World::new().await;
    let (ours, theirs) = (here.process().await, here.process().await);
    let mut sealer = details(&ours).sealer().await.unwrap();
    let long = vec![7; 100_000];
    for (row, record) in [(1, RECORD), (2, b""), (i64::MIN, b"x"), (3, &long)] {
        let cell = sealed_by(&mut sealer, row, record).unwrap();
        assert_eq!(cell.len(), record.len() + 49);
        assert_eq!(opened(&theirs, row, &cell).await.unwrap(), record);
    }
    // A batch is the same records in one buffer, and a text names a row as well as a number does.
    let records: [(RowId<'_>, &[u8]); 4] =
        [(1_i64.into(), RECORD), ("7/a".into(), b""), (2_u64.into(), &long), (2_u64.into(), &long)];
    let (mut batch, mut out) = (SealedBatch::new(), OpenedBatch::new());
    for _ in 0..2 {
        sealer.seal_batch(&records, &mut batch).unwrap();
        assert_eq!(batch.len(), 4);
    }
    let cells: Vec<_> = records.iter().zip(batch.iter()).map(|((row, _), cell)| (*row, cell)).collect();
    assert_ne!(cells[2].1, cells[3].1, "alike, and sealed differently");
    let opener = details(&theirs).opener(Purpose::Billing).await.unwrap();
    opener.load_for(batch.iter()).await.unwrap();
    for _ in 0..2 {
        opener.open_batch(&cells, &mut out);
        let opened: Vec<_> = out.iter().map(|record| record.unwrap()).collect();
        assert_eq!(opened, [RECORD, b"", &long, &long]);
    }
    sealer.seal_batch(&[], &mut batch).unwrap();
    opener.open_batch(&[], &mut out);
    assert!(batch.is_empty() && out.is_empty());
}

#[tokio::test]
async fn every_flip_cut_and_extension_is_refused_and_nothing_comes_out() {
    let here = World::new().await;
    let process = here.process().await;
    for record in [RECORD, b""] {
        let cell = sealed(&process, 7, record).await.unwrap();
        let opener = details(&process).opener(Purpose::Support).await.unwrap();
        opener.load_for([&*cell]).await.unwrap();
        let refused = |changed: &[u8], what: &str| {
            let refused = opened_by(&opener, 7, changed).unwrap_err();
            let expected = [Code::RecordForeign, Code::RecordUnverified, Code::KeyAbsent];
            assert!(expected.contains(&refused.code()), "{what}: {refused:?}");
            assert!(!refused.to_string().contains("5550"), "{refused}");
        };
        for bit in 0..cell.len() * 8 {
            let mut changed = cell.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&changed, &format!("bit {bit}"));
            // With whatever key there is: a handle that was changed names none.
            opener.load_for([&*changed]).await.unwrap();
            let again = opened_by(&opener, 7, &changed).unwrap_err().code();
            let handle = (8..72).contains(&bit);
            assert_eq!(again == Code::KeyUnknown, handle, "bit {bit}: {again}");
        }
        for length in 0..cell.len() {
            refused(&cell[..length], &format!("the first {length} octets"));
            refused(&cell[cell.len() - length..], &format!("the last {length} octets"));
        }
        for octet in [0, 1, 0xff] {
            refused(&[&cell[..], &[octet]].concat(), "an octet more");
            refused(&[&[octet], &cell[..]].concat(), "an octet before");
        }
        refused(&[&cell[..], &cell].concat(), "twice");
        assert_eq!(opened_by(&opener, 7, &cell).unwrap(), record, "and itself opens all the while");
    }
}

#[tokio::test]
async fn a_record_opens_in_no_other_row_column_type_or_tenant() {
    let here = World::new().await;
    let process = here.process().await;
    let (first, second) =
        (sealed(&process, 1, b"one").await.unwrap(), sealed(&process, 2, b"two").await.unwrap());
    assert_eq!(handle(&first), handle(&second), "one key for all of a scope's columns and rows of a day");
    assert_eq!(opened(&process, 1, &first).await.unwrap(), b"one");
    assert_eq!(code(opened(&process, 2, &first).await), Some(Code::RecordUnverified));
    assert_eq!(code(opened(&process, 1, &second).await), Some(Code::RecordUnverified));
    for (scope, name, expected) in [
        (acme(), "summary", Code::RecordUnverified),
        (fax(), "detail", Code::KeyUnverified),
        (scope("globex"), "detail", Code::KeyUnverified),
    ] {
        // With a key of its own at hand, too.
        let theirs = column(&process, &scope, name);
        let mut own = Vec::new();
        theirs.sealer().await.unwrap().seal(1_i64, b"own", &mut own).unwrap();
        let opener = theirs.opener(Purpose::Support).await.unwrap();
        opener.load_for([&*first, &*own]).await.unwrap();
        assert_eq!(opened_by(&opener, 1, &own).unwrap(), b"own");
        assert_eq!(code(opened_by(&opener, 1, &first)), Some(expected), "{scope} {name}");
        // The other's key under the own scope's name.
        let mut forged = first.clone();
        forged[1..9].copy_from_slice(&handle(&own).0);
        assert_eq!(code(opened_by(&opener, 1, &forged)), Some(Code::RecordUnverified), "{scope} {name}");
    }
    let mut opener_out = Vec::new();
    let opener = details(&process).opener(Purpose::Support).await.unwrap();
    opener.load_for([&*first]).await.unwrap();
    for id in [&[][..], &[7; 129]] {
        assert_eq!(code(opener.open(id, &first, &mut opener_out)), Some(Code::ArgumentInvalid));
        let mut sealer = details(&process).sealer().await.unwrap();
        assert_eq!(code(sealer.seal(id, b"", &mut opener_out)), Some(Code::ArgumentInvalid));
    }
}

#[tokio::test]
async fn a_record_opens_in_no_other_region_even_with_its_key_row() {
    let (here, there) = (World::new().await, World::new().await);
    let (ours, theirs) = (here.process().await, there.process().await);
    let cell = sealed(&ours, 1, RECORD).await.unwrap();
    sealed(&theirs, 1, b"theirs").await.unwrap();
    assert_eq!(code(opened(&theirs, 1, &cell).await), Some(Code::KeyUnknown));
    // Whoever writes to stores copies the row, as it is and as the other region's.
    let row = here.days().await.remove(0);
    there.memory[0].put_back(row);
    assert_eq!(code(opened(&theirs, 1, &cell).await), Some(Code::KeyUnknown), "the tenant key is not there");
    let moved = World::new().await;
    let us = scope("hooli");
    let process = moved.process_with(ELSEWHERE, Arc::new(OsRandom)).await;
    process.choose_home(&us, ELSEWHERE).await.unwrap();
    let mut row = here.days().await.remove(0);
    row.identity.slot.region = region(ELSEWHERE);
    row.identity.slot.scope = us.clone();
    moved.memory[1].put_back(row);
    let opener = column(&process, &us, "detail").opener(Purpose::Support).await.unwrap();
    opener.load_for([&*cell]).await.unwrap();
    assert_eq!(code(opened_by(&opener, 1, &cell)), Some(Code::KeyUnknown));
}

#[tokio::test]
async fn a_row_of_the_key_store_that_was_changed_opens_and_seals_nothing() {
    let here = World::new().await;
    let cell = sealed(&here.process().await, 1, RECORD).await.unwrap();
    let row = here.days().await.remove(0);
    let wrapped = WrappedDayKey::decode(&row.sealed).unwrap();
    assert_eq!((row.name, row.commitment[..8].to_vec()), (handle(&cell).name(), handle(&cell).0.to_vec()));
    let mut changes = Vec::new();
    for octet in 0..row.sealed.len() {
        let mut sealed = row.sealed.clone();
        sealed[octet] ^= 0x10;
        changes.push(KeyRow { sealed, ..row.clone() });
    }
    changes.push(KeyRow { sealed: row.sealed[..85].to_vec(), ..row.clone() });
    let mut commitment = row.commitment;
    commitment[31] ^= 1;
    changes.push(KeyRow { commitment, ..row.clone() });
    changes.push(KeyRow { state: KeyState::DecryptOnly, ..row.clone() });
    changes.push(KeyRow { generation: 2, ..row.clone() });
    for (number, changed) in changes.into_iter().enumerate() {
        here.memory[0].put_back(changed);
        let process = here.process().await;
        let refused = opened(&process, 1, &cell).await.unwrap_err();
        // Another name of a tenant key, or another leaf, is one that nobody knows.
        let expected = if (2..26).contains(&number) {
            [Code::KeyUnknown, Code::KeyUnverified]
        } else {
            [Code::KeyUnverified, Code::KeyUnverified]
        };
        assert!(expected.contains(&refused.code()), "{number}: {refused:?}");
        if !(2..26).contains(&number) {
            assert_eq!(code(sealed(&process, 1, RECORD).await), Some(Code::KeyUnverified), "{number}");
        }
        here.memory[0].put_back(row.clone());
    }
    assert_eq!(opened(&here.process().await, 1, &cell).await.unwrap(), RECORD);
    assert_eq!(wrapped.encode(), row.sealed);
}

/// The operating system's generator, until it is told to say the same to everybody.
#[derive(Debug, Default)]
struct Forked(AtomicBool);

impl Randomness for Forked {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        if self.0.load(Ordering::SeqCst) {
            bytes.fill(0x66);
            return Ok(());
        }
        OsRandom.fill(bytes)
    }
}

#[tokio::test]
async fn no_nonce_comes_twice_over_sealers_threads_processes_and_forks() {
    let here = World::new().await;
    let processes = [here.process().await, here.process().await];
    sealed(&processes[0], 0, b"").await.unwrap();
    let (mut nonces, mut selectors, mut count) = (HashSet::new(), HashSet::new(), 0);
    let mut note = |cells: Vec<Vec<u8>>| {
        let mut own = HashSet::new();
        for cell in cells {
            nonces.insert(nonce(&cell));
            own.insert(<[u8; 12]>::try_from(&cell[9..21]).unwrap());
            count += 1;
        }
        own
    };
    for process in processes.iter().cycle().take(12) {
        let sealer = details(process).sealer().await.unwrap();
        let by_thread = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let mut sealer = sealer;
                let mut cells: Vec<_> =
                    (0..300).map(|row| sealed_by(&mut sealer, row, b"").unwrap()).collect();
                let mut batch = SealedBatch::new();
                for size in [1_usize, 64, 500] {
                    let records: Vec<(RowId<'_>, &[u8])> = vec![(1_i64.into(), b""); size];
                    sealer.seal_batch(&records, &mut batch).unwrap();
                    cells.extend(batch.iter().map(<[u8]>::to_vec));
                }
                cells
            });
            thread.join().unwrap()
        });
        let own = note(by_thread);
        assert_eq!(own.len(), 1, "one derived key for all of them");
        selectors.extend(own);
    }
    assert_eq!(selectors.len(), 12, "each sealer has its own");

    // Two processes that were one: whatever a sealer holds, both hold.
    let forked = Arc::new(Forked::default());
    let mut both = Vec::new();
    for _ in 0..2 {
        let process = here.process_with(REGION, forked.clone()).await;
        sealed(&process, 0, b"").await.unwrap();
        forked.0.store(true, Ordering::SeqCst);
        both.push(details(&process).sealer().await.unwrap());
        forked.0.store(false, Ordering::SeqCst);
    }
    let cells = both
        .iter_mut()
        .flat_map(|sealer| (0..300).map(|row| sealed_by(sealer, row, b"").unwrap()).collect::<Vec<_>>());
    let own = note(cells.collect());
    assert_eq!(own, HashSet::from([[0x66; 12]]), "they share the derived key");
    assert_eq!(nonces.len(), count);
}

#[tokio::test]
async fn a_derived_key_seals_for_a_second_or_2_to_the_20_records() {
    let here = World::new().await;
    let process = here.process().await;
    let mut sealer = details(&process).sealer().await.unwrap();
    let mut selectors = Vec::new();
    for _ in 0..4 {
        let cell = sealed_by(&mut sealer, 1, b"").unwrap();
        selectors.push(cell[9..21].to_vec());
        here.clock.advance(Duration::from_millis(600));
    }
    assert_eq!(selectors[0], selectors[1]);
    assert_eq!(selectors[2], selectors[3]);
    assert_ne!(selectors[1], selectors[2], "it is a second old");

    let mut sealer = details(&process).sealer().await.unwrap();
    let mut batch = SealedBatch::new();
    let records: Vec<(RowId<'_>, &[u8])> = vec![(1_i64.into(), b""); (1 << 20) - 1];
    sealer.seal_batch(&records, &mut batch).unwrap();
    let first: BTreeSet<_> = batch.iter().map(|cell| cell[9..21].to_vec()).collect();
    assert_eq!(first.len(), 1);
    sealer.seal_batch(&records[..3], &mut batch).unwrap();
    let next: Vec<_> = batch.iter().map(|cell| cell[9..21].to_vec()).collect();
    assert!(first.contains(&next[0]), "the last of 2^20");
    assert!(!first.contains(&next[1]) && next[1] == next[2], "and the first of another key");
}

#[tokio::test]
async fn of_many_processes_that_begin_a_day_at_once_one_makes_its_key() {
    let home = Home::of(&["acme"]).await;
    let processes: Vec<_> = {
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(home.restarted().await);
        }
        all
    };
    let barrier = Barrier::new(processes.len());
    let cells: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = processes
            .iter()
            .map(|process| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    barrier.wait();
                    runtime.block_on(sealed(process, 1, RECORD)).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let handles: BTreeSet<_> = cells.iter().map(|cell| handle(cell)).collect();
    assert_eq!(handles.len(), 1, "all of them use the one that won");
    for process in &processes {
        for cell in &cells {
            assert_eq!(opened(process, 1, cell).await.unwrap(), RECORD);
        }
    }
}

#[tokio::test]
async fn whose_row_came_second_takes_the_one_that_stands_and_a_lost_answer_is_no_second_key() {
    let here = World::new().await;
    let (ours, theirs) = (here.process().await, here.process().await);
    let cell = sealed(&ours, 1, RECORD).await.unwrap();
    let other = sealed(&theirs, 2, RECORD).await.unwrap();
    assert_eq!((handle(&cell), here.days().await.len()), (handle(&other), 1));
    // The row was written, and nobody said so.
    here.store.fail("insert", Some(Fault::Lost));
    let late = column(&ours, &scope("globex"), "detail").sealer().await;
    here.store.fail("insert", None);
    assert!(late.is_err(), "the first insert is the tenant key's: {late:?}");
    column(&ours, &scope("globex"), "detail").sealer().await.unwrap();
    assert_eq!(here.days().await.len(), 2);
    here.clock.advance(DAY);
    here.store.fail("insert", Some(Fault::Lost));
    let sealer = details(&ours).sealer().await;
    here.store.fail("insert", None);
    let mut sealer = sealer.unwrap();
    let again = sealed_by(&mut sealer, 3, RECORD).unwrap();
    assert_eq!(here.days().await.len(), 3, "the row that stands is used");
    assert_eq!(opened(&theirs, 3, &again).await.unwrap(), RECORD);
}

#[tokio::test]
async fn a_handle_that_another_key_has_is_drawn_again() {
    let seeded = async || {
        let randomness: Arc<dyn Randomness> = Arc::new(SeededRandom::new(7));
        let here = World::with(randomness.clone()).await;
        let process = here.process_with(REGION, randomness).await;
        (here, process)
    };
    let (there, process) = seeded().await;
    let first = handle(&sealed(&process, 1, RECORD).await.unwrap());
    let (_again, process) = seeded().await;
    assert_eq!(handle(&sealed(&process, 1, RECORD).await.unwrap()), first, "the seed says which is drawn");
    // The same again, and a key of another day has that handle already.
    let (here, process) = seeded().await;
    let mut row = there.days().await.remove(0);
    row.identity.slot.period = "2026-11-01".parse().unwrap();
    here.memory[0].put_back(row);
    let cell = sealed(&process, 1, RECORD).await.unwrap();
    assert_ne!(handle(&cell), first);
    assert_eq!(opened(&process, 1, &cell).await.unwrap(), RECORD);
    let days: Vec<_> = here.days().await.iter().map(|row| row.identity.slot.period.to_string()).collect();
    assert_eq!(days, ["2026-11-01", "2026-11-25"]);
}

#[tokio::test]
async fn a_day_ends_and_the_next_has_another_key() {
    let here = World::new().await;
    let process = here.process().await;
    let mut sealer = details(&process).sealer().await.unwrap();
    let wednesday = sealed_by(&mut sealer, 1, RECORD).unwrap();
    here.clock.advance(Duration::from_secs(16 * 3_600 - 1));
    process.keep_up().await.unwrap();
    assert_eq!(handle(&sealed_by(&mut sealer, 2, RECORD).unwrap()), handle(&wednesday));
    here.clock.advance(Duration::from_secs(1));
    process.keep_up().await.unwrap();
    for result in [
        sealed_by(&mut sealer, 3, RECORD).map(drop),
        sealer.seal_batch(&[(3_i64.into(), RECORD)], &mut SealedBatch::new()),
    ] {
        let over = result.unwrap_err();
        assert_eq!(over.code(), Code::KeyLapsed);
        assert!(over.what().contains("2026-11-25"), "{over}");
    }
    sealer.renew().await.unwrap();
    let thursday = sealed_by(&mut sealer, 3, RECORD).unwrap();
    assert_ne!(handle(&thursday), handle(&wednesday));
    sealer.renew().await.unwrap();
    assert_eq!(here.days().await.len(), 2, "nothing is asked while nothing is due");

    let opener = details(&process).opener(Purpose::Support).await.unwrap();
    assert_eq!(code(opened_by(&opener, 1, &wednesday)), Some(Code::KeyAbsent));
    opener.load_handles(&[handle(&wednesday), handle(&thursday)]).await.unwrap();
    assert_eq!(opened_by(&opener, 1, &wednesday).unwrap(), RECORD);
    assert_eq!(opened_by(&opener, 3, &thursday).unwrap(), RECORD);
}

#[tokio::test]
async fn a_key_that_nobody_vouches_for_seals_and_opens_nothing() {
    let here = World::new().await;
    let process = here.process().await;
    let mut sealer = details(&process).sealer().await.unwrap();
    let cell = sealed_by(&mut sealer, 1, RECORD).unwrap();
    let opener = details(&process).opener(Purpose::Support).await.unwrap();
    opener.load_for([&*cell]).await.unwrap();
    for _ in 0..10 {
        here.clock.advance(Duration::from_secs(5 * 60));
        process.keep_up().await.unwrap();
        assert_eq!(opened_by(&opener, 1, &cell).unwrap(), RECORD);
        sealed_by(&mut sealer, 1, RECORD).unwrap();
    }
    here.clock.advance(Duration::from_secs(16 * 60));
    assert_eq!(code(opened_by(&opener, 1, &cell)), Some(Code::KeyLapsed));
    assert_eq!(code(sealed_by(&mut sealer, 1, RECORD)), Some(Code::KeyLapsed));
    // The services are away, and then answer.
    here.kms[0].take_away(Operation::Unwrap);
    assert_eq!(code(opener.load_for([&*cell]).await), Some(Code::KmsUnavailable));
    assert_eq!(code(sealer.renew().await), Some(Code::KmsUnavailable));
    here.kms[0].bring_back(Operation::Unwrap);
    opener.load_for([&*cell]).await.unwrap();
    sealer.renew().await.unwrap();
    assert_eq!(opened_by(&opener, 1, &cell).unwrap(), RECORD);
    assert_eq!(handle(&sealed_by(&mut sealer, 1, RECORD).unwrap()), handle(&cell));
}

#[tokio::test]
async fn a_rotation_gives_the_day_another_key_and_the_old_one_opens() {
    let here = World::new().await;
    let (ours, theirs) = (here.process().await, here.process().await);
    let mut sealers = [details(&ours).sealer().await.unwrap(), details(&theirs).sealer().await.unwrap()];
    let before = sealed_by(&mut sealers[0], 1, RECORD).unwrap();
    ours.keyring().rotate(ours.permit(&acme(), manage()).await.unwrap()).await.unwrap();
    here.clock.advance(Duration::from_secs(2));
    let mut after = BTreeSet::new();
    for (process, sealer) in [&ours, &theirs].into_iter().zip(&mut sealers) {
        process.keep_up().await.unwrap();
        sealed_by(sealer, 2, RECORD).unwrap_err();
        sealer.renew().await.unwrap();
        let cell = sealed_by(sealer, 2, RECORD).unwrap();
        after.insert(handle(&cell));
        for opener in [&ours, &theirs] {
            assert_eq!(opened(opener, 1, &before).await.unwrap(), RECORD);
            assert_eq!(opened(opener, 2, &cell).await.unwrap(), RECORD);
        }
    }
    assert!(after.len() == 1 && !after.contains(&handle(&before)));
    let versions: Vec<_> = here.days().await.iter().map(|row| row.identity.version).collect();
    assert_eq!(versions, [1, 2]);
}

/// Whether everybody says of a record that it was erased: who had the key, and who asks anew.
async fn is_erased(processes: &[&Domicile], openers: &[RecordOpener], cell: &[u8]) {
    for process in processes {
        process.keep_up().await.unwrap();
        let error = opened(process, 1, cell).await.unwrap_err();
        assert_eq!((error.code(), error.class()), (Code::KeyDestroyed, Class::Erased), "{error:?}");
    }
    for opener in openers {
        assert_eq!(code(opened_by(opener, 1, cell)), Some(Code::KeyDestroyed));
    }
}

async fn with_openers(here: &World, cell: &[u8]) -> ([Domicile; 2], Vec<RecordOpener>) {
    let processes = [here.process().await, here.process().await];
    let mut openers = Vec::new();
    for process in &processes {
        let opener = details(process).opener(Purpose::Support).await.unwrap();
        opener.load_for([cell]).await.unwrap();
        assert_eq!(opened_by(&opener, 1, cell).unwrap(), RECORD);
        openers.push(opener);
    }
    (processes, openers)
}

#[tokio::test]
async fn an_erased_day_opens_nowhere_and_its_neighbours_do() {
    let here = World::new().await;
    let process = here.process().await;
    let (doomed, other) = (sealed(&process, 1, RECORD).await.unwrap(), {
        let mut cell = Vec::new();
        column(&process, &fax(), "detail").sealer().await.unwrap().seal(1_i64, RECORD, &mut cell).unwrap();
        cell
    });
    here.clock.advance(DAY);
    let thursday = sealed(&process, 1, RECORD).await.unwrap();
    let ([ours, theirs], openers) = with_openers(&here, &doomed).await;
    let mut sealer = details(&theirs).sealer().await.unwrap();
    let day = "2026-11-25".parse().unwrap();

    let refused = details(&ours).erase_day("2026-11-24".parse().unwrap(), Purpose::Maintenance).await;
    assert_eq!(code(refused), Some(Code::KeyUnknown), "nothing was sealed on that day");
    let permit = ours.permit_region(&region(REGION), manage()).await.unwrap();
    let whom = || Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
    ours.keyring().hold(permit, whom(), "case 4/26").await.unwrap();
    assert_eq!(code(details(&ours).erase_day(day, Purpose::Maintenance).await), Some(Code::KeyHeld));
    let permit = ours.permit_region(&region(REGION), manage()).await.unwrap();
    ours.keyring().release(permit, whom(), "closed").await.unwrap();

    let report = details(&ours).erase_day(day, Purpose::Maintenance).await.unwrap();
    assert_eq!((report.keys, report.leaves), (1, 1));
    let again = details(&ours).erase_day(day, Purpose::Maintenance).await.unwrap();
    assert_eq!((again.keys, again.leaves, again.tombstone), (0, 0, None), "twice is once");
    here.clock.advance(Duration::from_secs(2));
    is_erased(&[&ours, &theirs, &here.process().await], &openers, &doomed).await;
    // A page with both: what lives opens.
    let opener = details(&theirs).opener(Purpose::Support).await.unwrap();
    opener.load_for([&*doomed, &*thursday]).await.unwrap();
    let mut page = OpenedBatch::new();
    opener.open_batch(&[(1_i64.into(), &doomed), (1_i64.into(), &thursday)], &mut page);
    let answers: Vec<_> = page.iter().map(|record| record.map_err(Error::code)).collect();
    assert_eq!(answers, [Err(Code::KeyDestroyed), Ok(RECORD)]);
    let opener = column(&ours, &fax(), "detail").opener(Purpose::Support).await.unwrap();
    opener.load_for([&*other]).await.unwrap();
    assert_eq!(opened_by(&opener, 1, &other).unwrap(), RECORD);

    // Today's key is erased as well: the day goes on with another.
    details(&ours).erase_day("2026-11-26".parse().unwrap(), Purpose::Maintenance).await.unwrap();
    here.clock.advance(Duration::from_secs(2));
    theirs.keep_up().await.unwrap();
    assert_eq!(code(sealed_by(&mut sealer, 2, RECORD)), Some(Code::KeyDestroyed));
    sealer.renew().await.unwrap();
    let later = sealed_by(&mut sealer, 2, RECORD).unwrap();
    assert_ne!(handle(&later), handle(&thursday));
    assert_eq!(opened(&ours, 2, &later).await.unwrap(), RECORD);
    assert_eq!(code(opened(&ours, 1, &thursday).await), Some(Code::KeyDestroyed));
}

#[tokio::test]
async fn a_period_that_expired_takes_its_days_with_it() {
    let mut here = World::new().await;
    here.retention.add("EU".parse().unwrap(), RecordType::VOICE, "6 months").unwrap();
    let cell = sealed(&here.process().await, 1, RECORD).await.unwrap();
    here.clock.advance(DAY * 8);
    let december = sealed(&here.process().await, 1, RECORD).await.unwrap();
    here.clock.advance(DAY * 180);
    let ([ours, theirs], openers) = with_openers(&here, &cell).await;
    let permit = ours.permit_region(&region(REGION), manage()).await.unwrap();
    let report = ours.keyring().expire(permit, ours.retention(), false).await.unwrap();
    assert_eq!(report.destroyed.unwrap().keys, 1);
    here.clock.advance(Duration::from_secs(2));
    is_erased(&[&ours, &theirs, &here.process().await], &openers, &cell).await;
    assert_eq!(opened(&theirs, 1, &december).await.unwrap(), RECORD);
}

#[tokio::test]
async fn what_is_to_be_shredded_is_not_used_meanwhile_and_then_gone() {
    let here = World::new().await;
    let cell = sealed(&here.process().await, 1, RECORD).await.unwrap();
    let ([ours, theirs], openers) = with_openers(&here, &cell).await;
    let mut sealer = details(&theirs).sealer().await.unwrap();
    let whom = Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
    let permit = async || ours.permit_region(&region(REGION), manage()).await.unwrap();
    ours.keyring().shred(permit().await, whom, DAY * 7).await.unwrap();
    here.clock.advance(Duration::from_secs(2));
    theirs.keep_up().await.unwrap();
    assert_eq!(code(opened(&theirs, 1, &cell).await), Some(Code::KeyShredding));
    assert_eq!(code(opened_by(&openers[1], 1, &cell)), Some(Code::KeyShredding));
    assert_eq!(code(sealed_by(&mut sealer, 1, RECORD)), Some(Code::KeyShredding));
    assert_eq!(code(sealer.renew().await), Some(Code::KeyShredding));
    here.clock.advance(DAY * 7);
    ours.keyring().expire(permit().await, ours.retention(), false).await.unwrap();
    for process in [&ours, &theirs, &here.process().await] {
        let error = opened(process, 1, &cell).await.unwrap_err();
        assert_eq!(error.code(), Code::KeyDestroyed, "{error:?}");
    }
}

#[tokio::test]
async fn a_handle_that_nobody_knows_is_an_unknown_key() {
    let here = World::new().await;
    let process = here.process().await;
    let cell = sealed(&process, 1, RECORD).await.unwrap();
    let mut unknown = cell.clone();
    unknown[1..9].copy_from_slice(&[7; 8]);
    let opener = details(&process).opener(Purpose::Support).await.unwrap();
    let absent = opened_by(&opener, 1, &cell).unwrap_err();
    assert_eq!((absent.code(), absent.class()), (Code::KeyAbsent, Class::KeyService));
    opener.load_for([&*unknown, &*cell, b"no record"]).await.unwrap();
    let error = opened_by(&opener, 1, &unknown).unwrap_err();
    assert_eq!((error.code(), error.class()), (Code::KeyUnknown, Class::UnknownKey));
    assert_eq!(opened_by(&opener, 1, &cell).unwrap(), RECORD);
    assert_eq!(code(opened_by(&opener, 1, b"no record")), Some(Code::RecordForeign));
    // A tenant key's name is no handle of a day key.
    let tenant = WrappedDayKey::decode(&here.days().await[0].sealed).unwrap().leaf.key;
    unknown[1..9].copy_from_slice(&tenant.0[..8]);
    opener.load_for([&*unknown]).await.unwrap();
    assert_eq!(code(opened_by(&opener, 1, &unknown)), Some(Code::KeyUnknown));
}

#[tokio::test]
async fn a_host_elsewhere_is_refused_before_any_key_service_is_asked() {
    let here = World::new().await;
    let cell = sealed(&here.process().await, 1, RECORD).await.unwrap();
    let before = here.calls();
    let abroad = here.process_with(ELSEWHERE, Arc::new(OsRandom)).await;
    assert_eq!(code(details(&abroad).sealer().await), Some(Code::HomeRefused));
    assert_eq!(code(details(&abroad).opener(Purpose::Support).await), Some(Code::HomeRefused));
    let refused = details(&abroad).erase_day("2026-11-25".parse().unwrap(), Purpose::Maintenance).await;
    assert_eq!(code(refused), Some(Code::HomeRefused));
    assert_eq!(here.calls(), before, "no key was asked for");
    let chains = here.memory[1].chains().await.unwrap();
    let refusals =
        chains.iter().flat_map(|(_, events)| events).filter(|event| event.body.contains("home/refused"));
    assert_eq!(refusals.count(), 3, "and each refusal is recorded");
    // A purpose that needs a reference, and a scope without a home.
    let process = here.process().await;
    let unreferenced = details(&process).opener(Purpose::LegalRequest).await;
    assert_eq!(code(unreferenced), Some(Code::PurposeReference));
    let homeless = column(&process, &scope("hooli"), "detail").sealer().await;
    assert_eq!(code(homeless), Some(Code::HomeNone));
    assert_eq!(opened(&process, 1, &cell).await.unwrap(), RECORD);
}

#[tokio::test]
async fn what_is_opened_is_recorded_first_and_without_the_chain_nothing_opens() {
    let here = World::new().await;
    let process = here.process().await;
    let cell = sealed(&process, 1, RECORD).await.unwrap();
    let opener = details(&process).opener(Purpose::Billing).await.unwrap();
    here.store.fail("append_events", Some(Fault::Away));
    assert_eq!(code(opener.load_for([&*cell]).await), Some(Code::AuditUnavailable));
    assert_eq!(code(opened_by(&opener, 1, &cell)), Some(Code::KeyAbsent));
    here.store.fail("append_events", None);
    opener.load_for([&*cell]).await.unwrap();
    opener.load_for([&*cell]).await.unwrap();
    let events = here.events().await;
    let opens: Vec<_> = events.iter().filter(|event| event["event"] == "open").collect();
    assert_eq!(opens.len(), 1, "once for a key and an opener");
    assert_eq!(opens[0]["key"], handle(&cell).name().to_string());
    assert_eq!(
        [&opens[0]["purpose"], &opens[0]["selected"], &opens[0]["tenant"]],
        ["billing", "calls.detail", "acme"]
    );
    let made: Vec<_> =
        events.iter().filter(|event| event["key"] == opens[0]["key"]).map(|event| &event["event"]).collect();
    assert_eq!(made, ["generate", "use", "open", "use"]);
    assert!(!events.iter().any(|event| event.to_string().contains("5550102")));
}

#[tokio::test]
async fn key_services_are_asked_for_branch_keys_alone_however_many_scopes_and_days_there_are() {
    let here = World::new().await;
    let process = here.process().await;
    let scopes: Vec<_> = (0..40).map(|number| scope(&format!("tenant-{number}"))).collect();
    for scope in &scopes {
        process.choose_home(scope, REGION).await.unwrap();
    }
    let wraps = |here: &World| here.kms[0].calls(Operation::Generate) + here.kms[0].calls(Operation::Unwrap);
    let before = wraps(&here);
    for _ in 0..3 {
        for scope in &scopes {
            let mut cell = Vec::new();
            let column = column(&process, scope, "detail");
            column.sealer().await.unwrap().seal(1_i64, RECORD, &mut cell).unwrap();
            let opener = column.opener(Purpose::Support).await.unwrap();
            opener.load_for([&*cell]).await.unwrap();
            assert_eq!(opened_by(&opener, 1, &cell).unwrap(), RECORD);
        }
        here.clock.advance(DAY);
    }
    assert_eq!(here.days().await.len(), 120);
    // The branch key was made once, and its consent renewed once a day.
    assert!(wraps(&here) - before <= 4, "{}", wraps(&here) - before);
}

#[tokio::test]
async fn a_store_with_day_keys_is_checked_as_others_are() {
    let home = Home::of(&["acme"]).await;
    let cell = sealed(&home.domicile, 1, RECORD).await.unwrap();
    let url = home.config.homes().clone();
    assert_eq!(domicile::store::examine(&url).await.unwrap().findings, []);
    home.domicile.checkpoint(&region(REGION), manage(), true).await.unwrap();
    let export = home.domicile.export(&region(REGION)).await.unwrap();
    home.domicile.close().await;

    // Without its tenant key, a day key is noise: the check says so.
    let path = home.directory.path().join("without.db");
    let store = SqliteStore::create(&path).await.unwrap();
    let process = home.restarted().await;
    let filter = |kind| RowFilter { region: region(REGION), kind, period: None, tenant: None };
    let known = process.region(&region(REGION)).unwrap();
    for stored in known.store.load_many(&filter(KeyKind::Day), None, 10).await.unwrap() {
        store.insert(&stored.row).await.unwrap();
    }
    KeyStore::close(&store).await;
    let found = SqliteStore::examine(&path).await.unwrap().findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(format!("{found:?}").contains("tenant key that a day key is wrapped under is gone"), "{found:?}");

    // A checkpoint counts day keys among the region's.
    let key = known.verifying_key;
    let statements = export.verify(&key).unwrap();
    process.check_checkpoint(&region(REGION), &statements).await.unwrap();
    assert_eq!(opened(&process, 1, &cell).await.unwrap(), RECORD);
    let path = home.directory.path().join("domicile.db");
    assert!(path.is_file(), "the store of the place");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE keys SET generation = 2 WHERE kind = 4").execute(&pool).await.unwrap();
    pool.close().await;
    let changed = process.check_checkpoint(&region(REGION), &statements).await;
    assert_eq!(code(changed), Some(Code::LedgerUnverified));
}

#[tokio::test]
async fn a_day_that_was_erased_is_erased_again_in_a_restored_store() {
    let here = World::new().await;
    let process = here.process().await;
    let cell = sealed(&process, 1, RECORD).await.unwrap();
    here.clock.advance(DAY);
    let kept = sealed(&process, 1, RECORD).await.unwrap();
    let backup = here.memory[0].backup();
    details(&process).erase_day("2026-11-25".parse().unwrap(), Purpose::Maintenance).await.unwrap();
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory[0].restore(&backup);
    here.clock.advance(Duration::from_secs(3));
    assert_eq!(code(opened(&process, 1, &cell).await), Some(Code::KeyRolledBack));
    let fresh = here.process().await;
    assert_eq!(fresh.replay(&export, manage()).await.unwrap().keys, 1);
    here.clock.advance(Duration::from_secs(3));
    for process in [&fresh, &process, &here.process().await] {
        assert_eq!(code(opened(process, 1, &cell).await), Some(Code::KeyDestroyed));
        assert_eq!(opened(process, 1, &kept).await.unwrap(), RECORD);
    }
}

#[tokio::test]
async fn a_lost_leaf_passes_for_no_erasure_of_a_day() {
    let here = World::new().await;
    let process = here.process().await;
    let (cell, other) = (sealed(&process, 1, RECORD).await.unwrap(), {
        here.clock.advance(DAY);
        sealed(&process, 1, RECORD).await.unwrap()
    });
    details(&process).erase_day("2026-11-25".parse().unwrap(), Purpose::Maintenance).await.unwrap();
    assert_eq!(code(opened(&process, 1, &cell).await), Some(Code::KeyDestroyed));
    // Whoever writes to the store has the other day name the leaf that was erased.
    let rows = here.days().await;
    let erased = WrappedDayKey::decode(&rows[0].sealed).unwrap().leaf;
    let wrapped = WrappedDayKey { leaf: erased, ..WrappedDayKey::decode(&rows[1].sealed).unwrap() };
    here.memory[0].put_back(KeyRow { sealed: wrapped.encode(), ..rows[1].clone() });
    let process = here.process().await;
    assert_eq!(code(opened(&process, 1, &other).await), Some(Code::KeyUnknown));
}

#[tokio::test]
async fn a_day_key_that_a_restored_store_lost_is_named_by_the_replay() {
    let here = World::new().await;
    let process = here.process().await;
    sealed(&process, 1, RECORD).await.unwrap();
    let backup = here.memory[0].backup();
    here.clock.advance(DAY);
    let lost = sealed(&process, 1, RECORD).await.unwrap();
    // This host has seen how far the store had come.
    here.clock.advance(Duration::from_secs(3));
    assert_eq!(opened(&process, 1, &lost).await.unwrap(), RECORD);
    let export = process.export(&region(REGION)).await.unwrap();
    here.memory[0].restore(&backup);
    here.clock.advance(Duration::from_secs(3));
    assert_eq!(code(opened(&process, 1, &lost).await), Some(Code::KeyRolledBack));
    assert_eq!(code(sealed(&process, 1, RECORD).await), Some(Code::KeyRolledBack));
    let fresh = here.process().await;
    let report = fresh.replay(&export, manage()).await.unwrap();
    let gone: Vec<_> = report.gone.iter().map(|(name, whose)| (*name, whose.as_str())).collect();
    assert_eq!(gone, [(handle(&lost).name(), "acme/voice/2026-11-26")]);
    here.clock.advance(Duration::from_secs(3));
    for process in [&fresh, &process] {
        assert_eq!(code(opened(process, 1, &lost).await), Some(Code::KeyUnknown));
        let new = sealed(process, 1, RECORD).await.unwrap();
        assert_ne!(handle(&new), handle(&lost));
    }
}
