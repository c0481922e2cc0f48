//! This library: a segment of one lane written to memory that is thrown away, and read from memory.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use domicile::engine::{Engine, Suite};
use domicile::home::{HomeChoice, Types};
use domicile::kms::{Kms, LocalKms};
use domicile::store::{HomeRegistry, KeyStore, MemoryStore, SqliteStore};
use domicile::{
    Action, Clock, Domicile, KnownRegion, Period, PeriodUnit, Purpose, RecordType, Region, Scope, SystemClock,
};
use domicile_record::format::{DataBlock, Descriptor, LaneNo};
use domicile_record::{BlockOrder, Segment, SegmentWriter, Selection, Sink, Stamp, WriterOptions};
use domicile_samples::Records;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::counter::Counter;
use crate::ideal::{IDEAL_READ, IDEAL_READ_BY_TWO, IDEAL_WRITE};
use crate::rounds::Case;

/// How many keys are made at once.
const AT_ONCE: usize = 256;

/// A place, forced to one engine.
pub(crate) struct Place {
    _directory: tempfile::TempDir,
    domicile: Domicile,
    engine: Engine,
    scopes: usize,
    /// Scopes of one tenant.
    types: usize,
}

impl Place {
    /// One whose keys are in memory.
    pub(crate) async fn new(engine: Engine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::of(directory, MemoryStore::new(), engine, 1, 1).await
    }

    /// One whose keys are in the embedded store, with so many scopes that have their keys, and so many of each tenant.
    pub(crate) async fn embedded(engine: Engine, scopes: usize, types: usize) -> Self {
        // On a disk, which a directory for what is temporary need not be.
        std::fs::create_dir_all("target/bench").unwrap();
        let directory = tempfile::tempdir_in("target/bench").unwrap();
        let store = SqliteStore::create(&directory.path().join("keys.db")).await.unwrap();
        let place = Self::of(directory, store, engine, scopes, types).await;
        let begun = Instant::now();
        for first in (0..scopes).step_by(AT_ONCE) {
            let mut together = JoinSet::new();
            for number in first..scopes.min(first + AT_ONCE) {
                let (domicile, scope) = (place.domicile.clone(), place.scope(number));
                together.spawn(async move {
                    let permit = domicile.permit(&scope, Action::Seal).await?;
                    domicile.keyring().sealing_leaf(permit, period()).await.map(|_| ())
                });
            }
            while let Some(made) = together.join_next().await {
                made.unwrap().unwrap();
            }
        }
        eprintln!("{scopes} scopes got their keys in {:.0} s", begun.elapsed().as_secs_f64());
        place
    }

    async fn of<S: KeyStore + HomeRegistry + 'static>(
        directory: tempfile::TempDir,
        store: S,
        engine: Engine,
        scopes: usize,
        types: usize,
    ) -> Self {
        let path = |name: &str| directory.path().join(name);
        let kms = LocalKms::create(region(), path("root"), path("signing")).unwrap();
        let store = Arc::new(store);
        let known = KnownRegion {
            verifying_key: kms.describe().await.unwrap().verifying_key,
            place: domicile::Place { region: region(), jurisdiction: "EU".parse().unwrap() },
            kms: Some(Arc::new(kms)),
            store: store.clone(),
        };
        let builder = Domicile::builder(region(), store);
        let domicile = builder.region(known).engine(engine).build().unwrap();
        let place = Self { _directory: directory, domicile, engine, scopes, types };
        let choice =
            |number| HomeChoice { tenant: place.scope(number).tenant, types: Types::All, region: region() };
        let choices: Vec<_> = (0..scopes).step_by(types).map(choice).collect();
        place.domicile.choose_homes(&choices).await.unwrap();
        place
    }

    pub(crate) fn domicile(&self) -> &Domicile {
        &self.domicile
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// The scope of this number.
    pub(crate) fn scope(&self, number: usize) -> Scope {
        let record_type = RecordType::WELL_KNOWN[number % self.types].clone();
        Scope::new(&format!("tenant-{:06}", number / self.types), record_type).unwrap()
    }

    /// Of the scope of number 0.
    pub(crate) fn descriptor(&self, suite: Suite) -> Descriptor {
        Descriptor::new(self.scope(0), period(), suite)
    }

    /// A writer with one lane.
    pub(crate) async fn writer<S: Sink>(&self, sink: S, suite: Suite) -> (SegmentWriter<S>, LaneNo) {
        self.writer_with(sink, WriterOptions { suite, ..WriterOptions::default() }).await
    }

    /// The same, with other options.
    pub(crate) async fn writer_with<S: Sink>(
        &self,
        sink: S,
        options: WriterOptions,
    ) -> (SegmentWriter<S>, LaneNo) {
        let suite = options.suite;
        let mut writer = SegmentWriter::create(&self.domicile, &region(), sink, options).await.unwrap();
        let lane = writer.open_lane(self.descriptor(suite), &[]).await.unwrap();
        (writer, lane)
    }

    /// A writer with a lane for each of so many scopes.
    pub(crate) async fn lanes<S: Sink>(
        &self,
        sink: S,
        options: WriterOptions,
        lanes: usize,
    ) -> (SegmentWriter<S>, Vec<LaneNo>) {
        assert!(lanes <= self.scopes, "a scope a lane");
        let suite = options.suite;
        let mut writer = SegmentWriter::create(&self.domicile, &region(), sink, options).await.unwrap();
        let mut numbers = Vec::with_capacity(lanes);
        for number in 0..lanes {
            let descriptor = Descriptor::new(self.scope(number), period(), suite);
            numbers.push(writer.open_lane(descriptor, &[]).await.unwrap());
        }
        (writer, numbers)
    }
}

fn region() -> Region {
    "eu-central-1".parse().unwrap()
}

/// That of now: recorders look at the clock.
fn period() -> Period {
    Period::containing(SystemClock.now(), PeriodUnit::Month).unwrap()
}

/// A whole segment: keys, lanes, blocks, offsets, index, lane 0, footer; written to a sink that counts.
pub(crate) fn write<'a>(
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
) -> Case<'a> {
    written("segment/write/300B", records, suite, place, runtime, |writer, lane, record| {
        writer.append(lane, record, Stamp::default()).unwrap();
    })
}

/// The same, of a caller that makes its records in the block itself: as long as those of the other cases, from octets that
/// are in the cache, so that nothing is read from memory. What is saved is the copy of a record that was made elsewhere.
pub(crate) fn reserve<'a>(
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
) -> Case<'a> {
    let longest = records.iter().max_by_key(|record| record.len()).unwrap_or_default();
    written("segment/write-reserved/300B", records, suite, place, runtime, move |writer, lane, record| {
        let fill = |room: &mut [u8]| room.copy_from_slice(&longest[..room.len()]);
        writer.append_with(lane, record.len(), Stamp::default(), fill).unwrap();
    })
}

fn written<'a>(
    name: &str,
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
    append: impl Fn(&mut SegmentWriter<Counter>, LaneNo, &[u8]) + 'a,
) -> Case<'a> {
    Case {
        name: name.to_owned(),
        engine: Some(place.engine),
        ideal: Some((IDEAL_WRITE, place.engine)),
        records: records.len(),
        expected: records.as_bytes().len() as u64,
        prepare: Box::new(move || {
            Box::new(move || {
                let (mut writer, lane) = runtime.block_on(place.writer(Counter::default(), suite));
                for record in records.iter() {
                    append(&mut writer, lane, record);
                }
                let (sink, summary) = runtime.block_on(writer.finish()).unwrap();
                (summary.bytes, sink.0)
            })
        }),
    }
}

/// A whole reading: guard, keys, lane 0, the lane's end and index, each block opened and its records walked.
pub(crate) fn read<'a>(
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
) -> Case<'a> {
    reading("segment/read/300B", IDEAL_READ, records, suite, place, runtime, |segment| {
        let mut seen = 0;
        let walked = segment.for_each_block(|block| {
            seen += walk(block);
            Ok(())
        });
        walked.unwrap();
        seen
    })
}

/// The same on two threads.
pub(crate) fn read_by_two<'a>(
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
) -> Case<'a> {
    reading("segment/read/2 threads", IDEAL_READ_BY_TWO, records, suite, place, runtime, |segment| {
        let seen = AtomicU64::new(0);
        let two = NonZeroUsize::new(2).unwrap();
        let walked = segment.for_each_block_parallel(two, BlockOrder::Any, |_, block| {
            seen.fetch_add(walk(block), Ordering::Relaxed);
            Ok(())
        });
        walked.unwrap();
        seen.into_inner()
    })
}

pub(crate) fn walk(block: &DataBlock) -> u64 {
    block.into_iter().map(|record| black_box(record).len() as u64).sum()
}

fn reading<'a>(
    name: &str,
    ideal: &'static str,
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
    read: impl Fn(&Segment<&[u8]>) -> u64 + 'a,
) -> Case<'a> {
    Case {
        name: name.to_owned(),
        engine: Some(place.engine),
        ideal: Some((ideal, place.engine)),
        records: records.len(),
        expected: records.as_bytes().len() as u64,
        prepare: Box::new(move || {
            let bytes = runtime.block_on(async {
                let (mut writer, lane) = place.writer(Vec::new(), suite).await;
                for record in records.iter() {
                    writer.append(lane, record, Stamp::default()).unwrap();
                }
                writer.finish().await.unwrap().0
            });
            Box::new(move || {
                let opening = Segment::open_source(
                    &place.domicile,
                    &bytes[..],
                    Purpose::Verification,
                    Selection::all(),
                );
                let segment = runtime.block_on(opening).unwrap();
                (read(&segment), bytes.len() as u64)
            })
        }),
    }
}
