//! Blocks that are sealed by threads beside the one that appends: the same segments, in the same order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use domicile::{Code, Purpose};
use domicile_record::format::{Compression, Contents, Descriptor, Limits};
use domicile_record::{
    BlockOrder, Recorder, RecorderOptions, SealingPool, Segment, SegmentWriter, Selection, Sink, Stamp,
    WriterOptions, verify,
};
use domicile_tests::{Home, blocks, descriptor, region, scope};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

fn pool(threads: usize) -> SealingPool {
    SealingPool::new(threads).unwrap()
}

/// Every third record is long, and every thousandth is followed by a commit.
fn record(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(3) { 900 } else { 30 };
    let mut record = format!("{number:08} ").into_bytes();
    record.resize(length, b'a' + u8::try_from(number % 26).unwrap());
    record
}

/// Records of three tenants in turn, some with times, some compressed.
async fn written(home: &Home, options: WriterOptions) -> Vec<u8> {
    let mut writer = home.writer(options).await;
    let mut lanes = Vec::new();
    for (tenant, event_times, compression) in [
        ("acme", true, Compression::None),
        ("globex", false, Compression::Zstd),
        ("initech", false, Compression::None),
    ] {
        let contents = Contents { event_times, arrivals: true, ..Contents::default() };
        let descriptor = Descriptor { compression, ..descriptor(tenant, contents) };
        lanes.push((writer.open_lane(descriptor, b"head").await.unwrap(), event_times));
    }
    for number in 0..20_000u64 {
        let (lane, event_times) = lanes[usize::try_from(number % 3).unwrap()];
        let time = event_times.then_some(number.cast_signed());
        let stamp = Stamp { time, arrival: Some(number.cast_signed()) };
        writer.append(lane, &record(number), stamp).unwrap();
        if number % 1_000 == 999 {
            writer.commit(b"").unwrap();
        }
        if number == 7_000 {
            // Between blocks that are under way.
            let late = Descriptor { source: 1, ..descriptor("acme", Contents::default()) };
            let late = writer.open_lane(late, b"").await.unwrap();
            writer.append(late, b"late", Stamp::default()).unwrap();
        }
    }
    writer.finish().await.unwrap().0
}

/// Of each lane, its records in order.
async fn read(home: &Home, bytes: &[u8]) -> BTreeMap<u32, Vec<Vec<u8>>> {
    let segment =
        Segment::open_source(&home.domicile, bytes, Purpose::Support, Selection::all()).await.unwrap();
    let lanes: Mutex<BTreeMap<u32, Vec<Vec<u8>>>> = Mutex::default();
    let read = segment.for_each_block_parallel(NonZeroUsize::MIN, BlockOrder::InLane, |lane, block| {
        let mut lanes = lanes.lock().unwrap();
        lanes.entry(lane.lane.0).or_default().extend(block.records().map(<[u8]>::to_vec));
        Ok(())
    });
    read.unwrap();
    lanes.into_inner().unwrap()
}

#[tokio::test]
async fn a_pool_writes_what_one_thread_writes() {
    let home = Home::of(&TENANTS).await;
    let options = |pool| WriterOptions { block_bytes: 4 << 10, pool, ..WriterOptions::default() };
    let alone = written(&home, options(None)).await;
    let expected = read(&home, &alone).await;
    assert_eq!(expected.values().map(Vec::len).sum::<usize>(), 20_001);
    for threads in [1, 2, 5] {
        let bytes = written(&home, options(Some(pool(threads)))).await;
        assert_eq!(read(&home, &bytes).await, expected, "{threads} threads");
        let verified = verify(&home.domicile, &bytes[..], None).await.unwrap();
        assert!(verified.is_complete(), "{:?}", verified.findings);
        // The same blocks in the same order: who sealed them shows nowhere.
        let places = |bytes: &[u8]| {
            let places = blocks(bytes).into_iter();
            places.map(|(_, header)| (header.lane, header.sequence, header.ordinal)).collect::<Vec<_>>()
        };
        assert_eq!(places(&bytes), places(&alone));
    }
}

#[tokio::test]
async fn no_nonce_of_a_lane_is_used_twice_by_a_pool() {
    let home = Home::of(&TENANTS).await;
    let options = WriterOptions { block_bytes: 300, pool: Some(pool(4)), ..WriterOptions::default() };
    let bytes = written(&home, options).await;
    let mut nonces = BTreeMap::new();
    for (_, header) in blocks(&bytes) {
        if header.nonce != [0; 12] {
            *nonces.entry((header.lane, header.nonce)).or_insert(0) += 1;
        }
    }
    assert!(nonces.len() > 5_000);
    assert!(nonces.values().all(|uses| *uses == 1));
}

#[tokio::test]
async fn a_lane_that_is_full_says_so_before_anything_is_lost() {
    let home = Home::of(&["acme"]).await;
    let limits = Limits { lane_blocks: 20, ..Limits::FORMAT };
    let options = WriterOptions { block_bytes: 400, limits, pool: Some(pool(2)), ..WriterOptions::default() };
    let mut writer = home.writer(options).await;
    let mut lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let mut source = 0;
    for number in 0..2_000 {
        let record = record(number);
        if let Err(error) = writer.append(lane, &record, Stamp::default()) {
            assert_eq!(error.code(), Code::SegmentLimit);
            source += 1;
            let next = Descriptor { source, ..descriptor("acme", Contents::default()) };
            lane = writer.open_lane(next, b"").await.unwrap();
            writer.append(lane, &record, Stamp::default()).unwrap();
        }
    }
    assert!(source > 5);
    let (bytes, _) = writer.finish().await.unwrap();
    let records: Vec<_> = read(&home, &bytes).await.into_values().flatten().collect();
    assert_eq!(records, (0..2_000).map(record).collect::<Vec<_>>());
}

/// Takes so many octets, and fails then.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("no space"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Full {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_output_that_fails_spends_the_writer_and_the_pool_serves_others() {
    let home = Home::of(&TENANTS).await;
    let pool = pool(2);
    let options =
        WriterOptions { block_bytes: 1 << 10, pool: Some(pool.clone()), ..WriterOptions::default() };
    let region = region("eu-central-1");
    let mut writer =
        SegmentWriter::create(&home.domicile, &region, Full(200_000), options.clone()).await.unwrap();
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let mut appended = 0..;
    let error = loop {
        let number = appended.next().unwrap();
        if let Err(error) = writer.append(lane, &record(number), Stamp::default()) {
            break error;
        }
    };
    assert_eq!(error.code(), Code::OutputFailed);
    let error = writer.append(lane, b"another", Stamp::default()).unwrap_err();
    assert_eq!(error.code(), Code::WriterFailed);
    drop(writer);
    assert_eq!(read(&home, &written(&home, options).await).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_shares_a_pool_among_its_shards_and_callers() {
    let home = Arc::new(Home::of(&TENANTS).await);
    let directory = tempfile::tempdir().unwrap();
    let mut options = RecorderOptions::default();
    (options.shards, options.sealing_threads) = (2, 3);
    options.commit_interval = std::time::Duration::from_millis(1);
    options.writer.block_bytes = 2 << 10;
    let recorder = Recorder::with_options(&home.domicile, directory.path(), options).await.unwrap();
    let mut callers = Vec::new();
    for tenant in TENANTS {
        let (recorder, home) = (recorder.clone(), home.clone());
        callers.push(tokio::spawn(async move {
            let lane = recorder.scope(&scope(tenant)).await.unwrap();
            for number in 0..10_000 {
                lane.append(home.domicile.now(), &record(number)).await.unwrap();
                if number % 500 == 0 {
                    recorder.commit().await.unwrap();
                }
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let mut lanes = 0;
    for summary in recorder.close().await.unwrap() {
        let bytes = std::fs::read(directory.path().join(summary.path())).unwrap();
        for records in read(&home, &bytes).await.into_values() {
            assert_eq!(records, (0..10_000).map(record).collect::<Vec<_>>());
            lanes += 1;
        }
    }
    assert_eq!(lanes, 3);
}
