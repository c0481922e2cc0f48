//! Reading at speed: several threads, several blocks at once, and nothing beside what was asked for.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use domicile::{Code, Error, Purpose, Time};
use domicile_record::format::{BlockHeader, BlockKind, Contents, Descriptor};
use domicile_record::{BlockOrder, Segment, Selection, Source, Stamp, WriterOptions};
use domicile_tests::{Counting, Home, blocks, descriptor, scope};

const ORDERS: [BlockOrder; 2] = [BlockOrder::Any, BlockOrder::InLane];

fn threads() -> impl Iterator<Item = NonZeroUsize> {
    [1, 2, 5].into_iter().filter_map(NonZeroUsize::new)
}

fn record(tenant: &str, number: u64) -> String {
    format!("{tenant}: record number {number:08}, and as much again to make it a little longer\n")
}

/// Of three tenants: acme has several mebibytes, globex a few blocks, initech none.
async fn segment_of_three(home: &Home, contents: Contents) -> Vec<u8> {
    let mut writer = home.writer(WriterOptions { block_bytes: 4000, ..Default::default() }).await;
    for (source, tenant, count) in [(0, "acme", 40_000u64), (1, "globex", 500), (2, "initech", 0)] {
        let of_this = Descriptor { source, ..descriptor(tenant, contents) };
        let lane = writer.open_lane(of_this, b"head").await.unwrap();
        for number in 0..count {
            let time = contents.event_times.then_some(number.cast_signed() * 1000);
            let stamp = Stamp { time, arrival: None };
            writer.append(lane, record(tenant, number).as_bytes(), stamp).unwrap();
        }
    }
    writer.finish().await.unwrap().0
}

async fn open<S: Source>(home: &Home, source: S, selection: Selection) -> Segment<S> {
    Segment::open_source(&home.domicile, source, Purpose::Support, selection).await.unwrap()
}

/// What a parallel reading gives: of each tenant its blocks by the number of their first record.
fn parallel<S: Source + Sync>(
    segment: &Segment<S>,
    threads: NonZeroUsize,
    order: BlockOrder,
) -> BTreeMap<(String, u64), Vec<u8>> {
    let seen: Mutex<BTreeMap<_, _>> = Mutex::default();
    let last: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let read = segment.for_each_block_parallel(threads, order, |lane, block| {
        let (tenant, first) = (lane.scope.tenant.to_string(), block.summary().first_record);
        if order == BlockOrder::InLane {
            let before = last.lock().unwrap().insert(tenant.clone(), first);
            assert!(before.is_none_or(|before| before < first), "{tenant}: {before:?}, then {first}");
        }
        let again = seen.lock().unwrap().insert((tenant, first), block.values().to_vec());
        assert!(again.is_none(), "a block came twice");
        Ok(())
    });
    read.unwrap();
    seen.into_inner().unwrap()
}

fn sequential<S: Source>(segment: &Segment<S>) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let read = segment.for_each_block(|block| {
        seen.push(block.values().to_vec());
        Ok(())
    });
    read.unwrap();
    seen
}

#[tokio::test]
async fn several_threads_see_each_block_once_and_what_one_thread_sees() {
    let home = Home::of(&["acme", "globex", "initech"]).await;
    let contents = Contents { event_times: true, ..Contents::default() };
    let bytes = segment_of_three(&home, contents).await;
    let file = home.directory.path().join("three.dseg");
    std::fs::write(&file, &bytes).unwrap();
    let time = |number: i64| Time::from_micros(number * 1000).unwrap();
    for selection in [
        Selection::all(),
        Selection::scopes(&[scope("acme")]),
        Selection::all().records(9_000..21_000).unwrap(),
        Selection::all().from(time(100)).to(time(30_000)),
    ] {
        let segment = open(&home, &bytes[..], selection.clone()).await;
        let expected = sequential(&segment);
        let in_file = open(&home, std::fs::File::open(&file).unwrap(), selection.clone()).await;
        assert_eq!(sequential(&in_file), expected);
        for threads in threads() {
            for order in ORDERS {
                let seen = parallel(&segment, threads, order);
                assert!(seen.values().eq(&expected), "{threads} threads, {order:?}, {selection}");
                assert!(parallel(&in_file, threads, order).values().eq(&expected));
            }
        }
    }
}

#[tokio::test]
async fn several_threads_stop_at_what_does_not_verify_is_missing_or_is_not_wanted() {
    let home = Home::of(&["acme", "globex", "initech"]).await;
    let bytes = segment_of_three(&home, Contents::default()).await;
    let data: Vec<_> =
        blocks(&bytes).into_iter().filter(|(_, block)| block.kind == BlockKind::Data).collect();
    let (at, middle) = data[data.len() / 2];
    let mut changed = bytes.clone();
    changed[at + BlockHeader::BYTES] ^= 1;
    // Without its footer the segment is walked, and the block is not found.
    let end = at + usize::try_from(middle.block_bytes()).unwrap();
    let without = [&bytes[..at], &bytes[end..bytes.len() - 64]].concat();
    for (bytes, code) in [(changed, Code::BlockUnverified), (without, Code::SegmentCorrupt)] {
        let segment = open(&home, &bytes[..], Selection::all()).await;
        assert_eq!(segment.for_each_block(|_| Ok(())).unwrap_err().code(), code);
        for threads in threads() {
            for order in ORDERS {
                let read = segment.for_each_block_parallel(threads, order, |_, _| Ok(()));
                let error = read.unwrap_err();
                assert_eq!(error.code(), code, "{threads} threads, {order:?}");
                let place = format!("lane 1, block {}", middle.sequence);
                assert!(error.place().unwrap().contains(&place), "{:?}", error.place());
            }
        }
    }

    let segment = open(&home, &bytes[..], Selection::all()).await;
    for threads in threads() {
        let visited = AtomicUsize::new(0);
        let read = segment.for_each_block_parallel(threads, BlockOrder::Any, |_, _| {
            match visited.fetch_add(1, Ordering::Relaxed) {
                50 => Err(Error::new(Code::OutputFailed, "no more")),
                _ => Ok(()),
            }
        });
        assert_eq!(read.unwrap_err().code(), Code::OutputFailed);
        // Each thread may have been inside one more.
        let visited = visited.into_inner();
        assert!(visited > 50 && visited < data.len() / 2, "{visited} of {}", data.len());
    }
}

#[tokio::test]
async fn small_blocks_are_read_many_at_once() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 300, ..Default::default() }).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    for number in 0..40_000 {
        writer.append(lane, record("acme", number).as_bytes(), Stamp::default()).unwrap();
    }
    let (bytes, _) = writer.finish().await.unwrap();
    let count = blocks(&bytes).len() as u64;
    assert!(count > 10_000);
    let source = Counting::new(&bytes);
    let segment = open(&home, &source, Selection::all()).await;
    let before = (source.reads(), source.read());
    let in_turn = sequential(&segment);
    let (reads, read) = (source.reads() - before.0, source.read() - before.1);
    assert!(reads < count / 100, "{reads} reads for {count} blocks");
    assert!(read <= bytes.len() as u64, "{read} octets of {}", bytes.len());
    for threads in threads() {
        assert!(parallel(&segment, threads, BlockOrder::Any).values().eq(&in_turn));
    }
}

/// Of three hundred lanes: what is asked for by lane, by number and by time is read, and next to nothing beside it.
#[tokio::test]
async fn of_many_lanes_only_what_was_asked_for_is_read() {
    const LANES: u64 = 300;
    const RECORDS: u64 = 500;
    let names: Vec<_> = (0..LANES).map(|number| format!("tenant-{number:03}")).collect();
    let tenants: Vec<_> = names.iter().map(String::as_str).collect();
    let home = Home::of(&tenants).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 1000, ..Default::default() }).await;
    let contents = Contents { event_times: true, ..Contents::default() };
    let mut lanes = Vec::new();
    for tenant in &tenants {
        lanes.push(writer.open_lane(descriptor(tenant, contents), b"").await.unwrap());
    }
    for number in 0..RECORDS {
        for (tenant, lane) in tenants.iter().zip(&lanes) {
            let stamp = Stamp { time: Some(number.cast_signed() * 1000), arrival: None };
            writer.append(*lane, record(tenant, number).as_bytes(), stamp).unwrap();
        }
    }
    let (bytes, _) = writer.finish().await.unwrap();
    let whole = bytes.len() as u64;
    let of_a_lane = RECORDS * record(tenants[0], 0).len() as u64;
    assert!(whole > 10_000_000);
    let (wanted, all) = (Selection::scopes(&[scope("tenant-200")]), Selection::all());
    let time = |number: i64| Time::from_micros(number * 1000).unwrap();
    for (name, selection, records, read_max) in [
        // The lane, a quarter of it beside its records, and the way to it.
        ("a lane", wanted.clone(), RECORDS, of_a_lane * 5 / 4 + (128 << 10)),
        ("numbers of a lane", wanted.clone().records(100..110).unwrap(), 10, 64 << 10),
        ("times of a lane", wanted.from(time(100)).to(time(110)), 10, 64 << 10),
        // Of each lane one run of sixteen blocks, of the fifty that it has, and its end.
        ("numbers of all", all.clone().records(100..110).unwrap(), 10 * LANES, whole / 2),
        ("times of all", all.from(time(100)).to(time(110)), 10 * LANES, whole / 2),
    ] {
        let source = Counting::new(&bytes);
        let segment = open(&home, &source, selection).await;
        let mut output = Vec::new();
        let restored = segment.restore(&mut output).unwrap();
        assert!(restored.failures.is_empty(), "{name}: {:?}", restored.failures);
        assert_eq!(restored.records, records, "{name}");
        let read = source.read();
        assert!(read < read_max, "{name}: {read} octets of {whole}, not {read_max}");
    }
}
