//! A recorder as a storage service uses it: many scopes, many callers, receipts, roll-over, disks that fail and crashes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domicile::{Code, Domicile, Purpose, Time};
use domicile_record::format::{BlockKind, Contents};
use domicile_record::{
    Feed, LaneOptions, Receipt, Recorder, RecorderLane, RecorderOptions, Recovery, Segment, Selection, Stamp,
    WriterOptions,
};
use domicile_tests::disk::SimulatedDisk;
use domicile_tests::{Home, blocks, scope};

/// The records of these segments: of each scope, in the order of their numbers.
async fn records(domicile: &Domicile, files: &[Vec<u8>]) -> BTreeMap<String, Vec<u64>> {
    let mut records: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for bytes in files {
        let opened = Segment::open_source(domicile, &bytes[..], Purpose::Support, Selection::all()).await;
        // What has no block yet holds nothing.
        let Ok(segment) = opened else { continue };
        for block in segment.blocks() {
            let Ok(block) = block else { continue };
            for record in block.records() {
                let text = String::from_utf8(record.to_vec()).unwrap();
                let (tenant, number) = text.trim_end().split_once(' ').unwrap();
                records.entry(tenant.to_owned()).or_default().push(number.parse().unwrap());
            }
        }
    }
    records.values_mut().for_each(|numbers| numbers.sort_unstable());
    records
}

fn options() -> RecorderOptions {
    let mut options = RecorderOptions::default();
    options.commit_interval = Duration::from_millis(1);
    options.writer.block_bytes = 4 << 10;
    options
}

fn on(disk: &SimulatedDisk, home: &Home, options: RecorderOptions) -> Recorder {
    Recorder::on_disk(&home.domicile, Path::new("segments"), options, Arc::new(disk.clone())).unwrap()
}

async fn append(lane: &RecorderLane, home: &Home, tenant: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        lane.append(home.domicile.now(), format!("{tenant} {number}\n").as_bytes()).await.unwrap();
    }
}

const TENANTS: [&str; 4] = ["acme", "globex", "initech", "hooli"];

#[tokio::test(flavor = "multi_thread")]
async fn what_many_callers_append_is_there_once_and_whole_segments_are_left() {
    let home = Home::of(&TENANTS).await;
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(&home.domicile, directory.path().join("segments")).await.unwrap();
    let home = Arc::new(home);
    let mut callers = Vec::new();
    for tenant in TENANTS {
        let (recorder, home) = (recorder.clone(), home.clone());
        callers.push(tokio::spawn(async move {
            let lane = recorder.scope(&scope(tenant)).await.unwrap();
            let mut last = Receipt::default();
            for round in 0..10 {
                append(&lane, &home, tenant, round * 500..(round + 1) * 500).await;
                let receipt = recorder.commit_with(tenant.as_bytes()).await.unwrap();
                assert!(receipt.number > last.number && receipt.records >= (round + 1) * 500);
                last = receipt;
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let summaries = recorder.close().await.unwrap();
    assert_eq!(summaries.iter().map(|summary| summary.records).sum::<u64>(), 20_000);
    let mut files = Vec::new();
    for summary in &summaries {
        let created = summary.created.to_string();
        let path = directory.path().join("segments/eu-central-1").join(&created[..10]);
        let bytes = std::fs::read(path.join(format!("{}.dseg", summary.id))).unwrap();
        assert_eq!(bytes.len() as u64, summary.file_bytes);
        let verified = domicile_record::verify(&home.domicile, &bytes[..], None).await.unwrap();
        assert!(verified.is_complete(), "{:?}", verified.findings);
        files.push(bytes);
    }
    for (tenant, numbers) in records(&home.domicile, &files).await {
        assert_eq!(numbers, (0..5_000).collect::<Vec<_>>(), "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_follow_one_another_without_losing_or_repeating_a_record() {
    let home = Home::of(&TENANTS).await;
    for lanes_max in [1 << 16, 2] {
        let disk = SimulatedDisk::default();
        let mut options = options();
        (options.segment_bytes, options.segment_lanes) = (100 << 10, lanes_max);
        let recorder = on(&disk, &home, options);
        let mut lanes = Vec::new();
        for tenant in TENANTS {
            lanes.push(recorder.scope(&scope(tenant)).await.unwrap());
        }
        for number in 0..8_000 {
            for (lane, tenant) in lanes.iter().zip(TENANTS) {
                append(lane, &home, tenant, number..number + 1).await;
            }
            if number % 100 == 0 {
                recorder.commit().await.unwrap();
            }
        }
        recorder.close().await.unwrap();
        let files = disk.segments();
        assert!(files.len() > 2, "{} segments", files.len());
        for bytes in &files {
            let verified = domicile_record::verify(&home.domicile, &bytes[..], None).await.unwrap();
            assert!(verified.is_complete(), "{:?}", verified.findings);
        }
        let found = records(&home.domicile, &files).await;
        assert_eq!(found.len(), TENANTS.len());
        for (tenant, numbers) in found {
            assert_eq!(numbers, (0..8_000).collect::<Vec<_>>(), "{tenant}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_told_to_every_commit_until_what_was_lost_is_appended_again() {
    let home = Home::of(&["acme"]).await;
    for of_syncs in [true, false] {
        let disk = SimulatedDisk::default();
        let recorder = on(&disk, &home, options());
        let fail = |fail| if of_syncs { disk.fail_syncs(fail) } else { disk.fail_appends(fail) };
        let lane = recorder.scope(&scope("acme")).await.unwrap();
        append(&lane, &home, "acme", 0..100).await;
        let safe = recorder.commit().await.unwrap();
        assert_eq!(safe.records, 100);

        fail(true);
        append(&lane, &home, "acme", 100..110).await;
        let waiting = [recorder.clone(), recorder.clone()]
            .map(|recorder| tokio::spawn(async move { recorder.commit().await.unwrap_err() }));
        for waiting in waiting {
            let error = waiting.await.unwrap();
            assert_eq!(error.code(), Code::RecordsLost);
            assert!(error.what().contains("receipt"), "{error}");
        }
        fail(false);
        // Writing goes on, and nobody is told that all is well before it is.
        append(&lane, &home, "acme", 200..300).await;
        assert_eq!(recorder.commit().await.unwrap_err().code(), Code::RecordsLost);
        assert_eq!(recorder.receipt_after(safe).await.unwrap_err().code(), Code::RecordsLost);
        append(&lane, &home, "acme", 100..110).await;
        recorder.resume();
        let receipt = recorder.commit().await.unwrap();
        assert_eq!((receipt.records, receipt.number > safe.number), (210, true));
        recorder.close().await.unwrap();
        let mut numbers = records(&home.domicile, &disk.segments()).await.remove("acme").unwrap();
        numbers.dedup();
        assert_eq!(numbers, (0..110).chain(200..300).collect::<Vec<_>>());
    }
}

#[test]
fn threads_without_a_runtime_record_as_well() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = Arc::new(runtime.block_on(Home::of(&TENANTS)));
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &home, options());
    std::thread::scope(|threads| {
        for tenant in TENANTS {
            let (recorder, home) = (recorder.clone(), home.clone());
            threads.spawn(move || {
                let lane = recorder.scope_blocking(&scope(tenant)).unwrap();
                for number in 0..1_000 {
                    lane.append_blocking(home.domicile.now(), format!("{tenant} {number}\n").as_bytes())
                        .unwrap();
                }
                assert!(recorder.commit_blocking().unwrap().records >= 1_000);
            });
        }
    });
    let summaries = recorder.close_blocking().unwrap();
    assert_eq!(summaries.iter().map(|summary| summary.records).sum::<u64>(), 4_000);
    for (tenant, numbers) in runtime.block_on(records(&home.domicile, &disk.segments())) {
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>(), "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_scope_again_gets_its_lane() {
    let home = Home::of(&["acme"]).await;
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &home, options());
    let mut timed = LaneOptions::default();
    timed.event_times = true;
    for number in 0..10 {
        append(&recorder.scope(&scope("acme")).await.unwrap(), &home, "acme", number..number + 1).await;
        let lane = recorder.scope_with(&scope("acme"), timed.clone()).await.unwrap();
        append(&lane, &home, "acme", 10 + number..11 + number).await;
    }
    let summaries = recorder.close().await.unwrap();
    assert_eq!(
        (summaries.len(), summaries[0].lanes, summaries[0].records),
        (1, 2, 20),
        "one with times, and one without"
    );
    assert_eq!(records(&home.domicile, &disk.segments()).await["acme"], (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_segment_can_be_begun_the_caller_is_told_and_nothing_is_taken() {
    let home = Home::of(&["acme"]).await;
    let disk = SimulatedDisk::default();
    disk.fail_creations(true);
    let recorder = on(&disk, &home, options());
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    let error = lane.append(home.domicile.now(), b"acme 0\n").await.unwrap_err();
    assert_eq!(error.code(), Code::OutputFailed);
    assert!(!lane.try_append(home.domicile.now(), b"acme 0\n").unwrap());
    assert_eq!(recorder.commit().await.unwrap().records, 0);
    disk.fail_creations(false);
    append(&lane, &home, "acme", 1..2).await;
    assert_eq!(recorder.commit().await.unwrap().records, 1);
    // A scope without a home, and times that nobody meant, delay nobody.
    assert_eq!(recorder.scope(&scope("nobody")).await.unwrap_err().code(), Code::HomeNone);
    let error = lane.append(Time::EPOCH, b"acme 0\n").await.unwrap_err();
    assert_eq!(error.code(), Code::InputTime);
    recorder.close().await.unwrap();
    assert_eq!(lane.append(home.domicile.now(), b"late").await.unwrap_err().code(), Code::WriterFailed);
    assert_eq!(records(&home.domicile, &disk.segments()).await["acme"], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_that_is_dropped_leaves_what_a_crash_leaves() {
    let home = Home::of(&["acme"]).await;
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &home, options());
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    append(&lane, &home, "acme", 0..1_000).await;
    // A commit that nobody waits for goes on.
    drop(tokio::time::timeout(Duration::ZERO, recorder.commit()).await);
    recorder.receipt_after(Receipt::default()).await.unwrap();
    let safe = recorder.commit().await.unwrap();
    assert_eq!(safe.records, 1_000);
    append(&lane, &home, "acme", 1_000..1_010).await;
    drop((recorder, lane));
    let files = disk.segments();
    let found = records(&home.domicile, &files).await.remove("acme").unwrap();
    assert_eq!(found[..1_000], (0..1_000).collect::<Vec<_>>());
    let inspected = domicile_record::inspect(&files[0][..]).unwrap();
    assert_eq!(inspected.state, "unfinished");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_keeps_coming_is_appended_as_it_comes_with_what_stands_before_it() {
    let home = Arc::new(Home::of(&["acme"]).await);
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &home, options());
    let mut feed = Feed::default();
    (feed.framing, feed.time) = ("csv".parse().unwrap(), Some("at".to_owned()));
    let now = home.domicile.now().to_string();
    let text = format!("at,number\n{now},1\n{now},2\n");
    let report = {
        let (recorder, text) = (recorder.clone(), text.clone());
        tokio::task::spawn_blocking(move || feed.read(&recorder, &scope("acme"), text.as_bytes()))
    };
    assert_eq!(report.await.unwrap().unwrap().records, 2);
    let mut feed = Feed::default();
    feed.time = Some("at".to_owned());
    feed.framing = "json".parse().unwrap();
    let failed = {
        let recorder = recorder.clone();
        let bad = format!("{{\"at\":\"{now}\"}}\n{{\"at\":\"no time\"}}\n");
        tokio::task::spawn_blocking(move || feed.read(&recorder, &scope("acme"), bad.as_bytes()))
    };
    let failed = failed.await.unwrap().unwrap_err();
    assert_eq!(failed.code(), Code::InputTime);
    assert!(failed.place().unwrap().starts_with("record 2"), "{failed:?}");
    recorder.close().await.unwrap();
    let files = disk.segments();
    let segment = Segment::open_source(&home.domicile, &files[0][..], Purpose::Support, Selection::all())
        .await
        .unwrap();
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    assert!(output.starts_with(text.as_bytes()), "{}", String::from_utf8_lossy(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_budget_and_callers_wait_for_room() {
    let tenants: Vec<String> = (0..400).map(|number| format!("tenant-{number}")).collect();
    let home = Home::of(&tenants.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let disk = SimulatedDisk::default();
    let mut options = options();
    options.memory_bytes = 1 << 20;
    options.compact = false;
    let recorder = on(&disk, &home, options);
    let mut lanes = Vec::new();
    for tenant in &tenants {
        lanes.push(recorder.scope(&scope(tenant)).await.unwrap());
    }
    let mut most = 0;
    for number in 0..200 {
        for (lane, tenant) in lanes.iter().zip(&tenants) {
            append(lane, &home, tenant, number..number + 1).await;
        }
        most = most.max(recorder.memory_bytes());
    }
    recorder.close().await.unwrap();
    let files = disk.segments();
    // Idle lanes and places of blocks count: another segment followed, long before it was old or large.
    assert!(files.len() > 1, "{} segments", files.len());
    // Between two looks at it, a segment's next one is there as well.
    assert!(most < 3 << 20, "{most} octets");
    let found = records(&home.domicile, &files).await;
    assert_eq!(found.len(), tenants.len());
    for (tenant, numbers) in found {
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_segments_of_their_own_and_a_receipt_is_of_all() {
    let home = Home::of(&TENANTS).await;
    let disk = SimulatedDisk::default();
    let mut options = options();
    options.shards = 4;
    // Two recorders in one process, on one directory.
    let recorders = [on(&disk, &home, options.clone()), on(&disk, &home, options)];
    for recorder in &recorders {
        for (from, tenant) in (0..).step_by(100).zip(TENANTS) {
            let lane = recorder.scope(&scope(tenant)).await.unwrap();
            append(&lane, &home, tenant, from..from + 100).await;
        }
        assert_eq!(recorder.commit().await.unwrap().records, 400);
    }
    let [first, second] = recorders;
    let segments = first.close().await.unwrap();
    assert!(segments.len() > 1, "{} shards", segments.len());
    assert_eq!(segments.iter().map(|summary| summary.records).sum::<u64>(), 400);
    second.close().await.unwrap();
    let found = records(&home.domicile, &disk.segments()).await;
    for (from, tenant) in (0..).step_by(100).zip(TENANTS) {
        let twice: Vec<_> = (from..from + 100).flat_map(|number| [number, number]).collect();
        assert_eq!(found[tenant], twice, "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_other_segment_can_follow_nobody_waits_for_room_for_ever() {
    let tenants: Vec<String> = (0..100).map(|number| format!("tenant-{number}")).collect();
    let home = Home::of(&tenants.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let disk = SimulatedDisk::default();
    let mut options = options();
    // Less than its lanes take.
    options.memory_bytes = 64 << 10;
    let recorder = on(&disk, &home, options);
    let mut lanes = Vec::new();
    for tenant in &tenants {
        let lane = recorder.scope(&scope(tenant)).await.unwrap();
        append(&lane, &home, tenant, 0..1).await;
        lanes.push(lane);
        if lanes.len() == 50 {
            disk.fail_creations(true);
        }
    }
    for number in 1..20 {
        for (lane, tenant) in lanes.iter().zip(&tenants) {
            append(lane, &home, tenant, number..number + 1).await;
        }
        recorder.commit().await.unwrap();
    }
    disk.fail_creations(false);
    recorder.close().await.unwrap();
    let found = records(&home.domicile, &disk.segments()).await;
    assert!(found.values().all(|numbers| *numbers == (0..20).collect::<Vec<_>>()) && found.len() == 100);
}

/// A process that ends while its successor begins: what it still had is closed once it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_writer_ends_later_is_closed_later() {
    let home = Home::of(&["acme"]).await;
    let directory = home.directory.path().join("left");
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = domicile_tests::descriptor("acme", Contents::default());
    let lane = writer.open_lane(lane, b"").await.unwrap();
    writer.append(lane, b"record", Stamp::default()).unwrap();
    writer.commit(b"").unwrap();
    let path = directory.join(writer.header().path());
    let bytes = writer.finish().await.unwrap().0;
    let end = blocks(&bytes).into_iter().find(|(_, block)| block.kind == BlockKind::LaneEnd).unwrap().0;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes[..end]).unwrap();
    let had = std::fs::File::open(&path).unwrap();
    had.lock().unwrap();

    let recorder = Recorder::create(&home.domicile, &directory).await.unwrap();
    assert!(recorder.recovered().await.is_empty(), "its writer has it");
    drop(had);
    let closed = loop {
        let recovered = recorder.recovered().await;
        match recovered.first() {
            Some((closed, outcome)) => break (closed.clone(), outcome.as_ref().unwrap().clone()),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(closed.0, path);
    assert!(matches!(closed.1, Recovery::Closed { .. }), "{:?}", closed.1);
    recorder.close().await.unwrap();
}
