//! This library: a segment of one lane written to memory that is thrown away, and read from memory.

use std::hint::black_box;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domicile::engine::{Engine, Suite};
use domicile::kms::{Kms, LocalKms};
use domicile::store::MemoryStore;
use domicile::{Domicile, KnownRegion, Purpose, RecordType, Scope};
use domicile_record::format::{DataBlock, Descriptor, LaneNo};
use domicile_record::{BlockOrder, Segment, SegmentWriter, Selection, Sink, Stamp, WriterOptions};
use domicile_samples::Records;
use tokio::runtime::Runtime;

use crate::rounds::Case;

const REGION: &str = "eu-central-1";

/// A place whose keys are in memory, forced to one engine.
pub(crate) struct Place {
    _directory: tempfile::TempDir,
    domicile: Domicile,
    scope: Scope,
    engine: Engine,
}

impl Place {
    pub(crate) async fn new(engine: Engine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let kms = LocalKms::create(REGION.parse().unwrap(), path("root"), path("signing")).unwrap();
        let store = Arc::new(MemoryStore::new());
        let place = domicile::Place { region: REGION.parse().unwrap(), jurisdiction: "EU".parse().unwrap() };
        let region = KnownRegion {
            verifying_key: kms.describe().await.unwrap().verifying_key,
            place,
            kms: Some(Arc::new(kms)),
            store: store.clone(),
        };
        let builder = Domicile::builder(REGION.parse().unwrap(), store);
        let domicile = builder.region(region).engine(engine).build().unwrap();
        let scope = Scope::new("acme", RecordType::VOICE).unwrap();
        domicile.choose_home(&scope, REGION).await.unwrap();
        Self { _directory: directory, domicile, scope, engine }
    }

    pub(crate) fn domicile(&self) -> &Domicile {
        &self.domicile
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) async fn writer<S: Sink>(
        &self,
        sink: S,
        options: WriterOptions,
    ) -> (SegmentWriter<S>, LaneNo) {
        let suite = options.suite;
        let region = REGION.parse().unwrap();
        let mut writer = SegmentWriter::create(&self.domicile, &region, sink, options).await.unwrap();
        let descriptor = Descriptor::new(self.scope.clone(), "2026-11".parse().unwrap(), suite);
        let lane = writer.open_lane(descriptor, &[]).await.unwrap();
        (writer, lane)
    }
}

/// A whole segment: keys, lanes, blocks, offsets, index, lane 0, footer; written to a sink that counts.
pub(crate) fn write<'a>(
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
) -> Case<'a> {
    Case {
        name: "segment/write/300B".to_owned(),
        engine: Some(place.engine),
        ideal: Some("ideal/write/300B".to_owned()),
        expected: records.as_bytes().len() as u64,
        run: Box::new(move || {
            let (mut writer, lane) = runtime
                .block_on(place.writer(Counter::default(), WriterOptions { suite, ..Default::default() }));
            for record in records.iter() {
                writer.append(lane, record, Stamp::default()).unwrap();
            }
            let (sink, summary) = runtime.block_on(writer.finish()).unwrap();
            (summary.bytes, sink.0)
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
    reading("read/300B", records, suite, place, runtime, |segment| {
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
    reading("read/2 threads", records, suite, place, runtime, |segment| {
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
    records: &'a Records,
    suite: Suite,
    place: &'a Place,
    runtime: &'a Runtime,
    read: impl Fn(&Segment<&[u8]>) -> u64 + 'a,
) -> Case<'a> {
    let bytes = runtime.block_on(async {
        let (mut writer, lane) =
            place.writer(Vec::new(), WriterOptions { suite, ..Default::default() }).await;
        for record in records.iter() {
            writer.append(lane, record, Stamp::default()).unwrap();
        }
        writer.finish().await.unwrap().0
    });
    Case {
        name: format!("segment/{name}"),
        engine: Some(place.engine),
        ideal: Some(format!("ideal/{name}")),
        expected: records.as_bytes().len() as u64,
        run: Box::new(move || {
            let opening =
                Segment::open_source(&place.domicile, &bytes[..], Purpose::Verification, Selection::all());
            let segment = runtime.block_on(opening).unwrap();
            (read(&segment), bytes.len() as u64)
        }),
    }
}

/// Counts octets and makes the optimiser believe that they are read.
#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += black_box(bytes).len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Counter {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
