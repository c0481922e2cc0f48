//! Crashes: whatever a disk loses, tears and reorders, what was said to be safe is there, nothing was invented, and what is
//! left is closed. Each image has a seed; `DOMICILE_SEED` takes one alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domicile::{Domicile, Purpose};
use domicile_record::{
    Recorder, RecorderOptions, Recovery, Segment, Selection, State, replaced_among, replaced_by, verify,
};
use domicile_tests::disk::{Dice, SimulatedDisk};
use domicile_tests::pairs::Pairs;
use domicile_tests::{Home, long_form, scope};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// The rounds of records that are appended behind a crash.
const BEHIND: u64 = 1_000_000;

fn options() -> RecorderOptions {
    let mut options = RecorderOptions::default();
    options.commit_interval = Duration::from_millis(1);
    options.writer.block_bytes = 2 << 10;
    options.segment_bytes = 40 << 10;
    options.sealing_threads = 2;
    // What is retired has no keys any longer, whatever an older image of the disk says: compaction has a test of its own.
    options.compact = false;
    options
}

fn on(disk: &SimulatedDisk, domicile: &Domicile) -> Recorder {
    Recorder::on_disk(domicile, Path::new("segments"), options(), Arc::new(disk.clone())).unwrap()
}

/// Appends records of every tenant in turn, and notes on the disk what the recorder says to be safe.
async fn record(disk: &SimulatedDisk, home: &Home, rounds: u64) {
    let recorder = on(disk, &home.domicile);
    let mut lanes = Vec::new();
    for tenant in TENANTS {
        lanes.push(recorder.scope(&scope(tenant)).await.unwrap());
    }
    for round in 0..rounds {
        for (lane, tenant) in lanes.iter().zip(TENANTS) {
            let record = format!("{tenant} {round} {}\n", "x".repeat(usize::try_from(round % 90).unwrap()));
            lane.append(home.domicile.now(), record.as_bytes()).await.unwrap();
        }
        if round % 8 == 7 {
            let receipt = recorder.commit_with(&round.to_be_bytes()).await.unwrap();
            disk.note(receipt.records);
        }
    }
    // Some of the images are of a segment that is being closed, and of one that is whole.
    recorder.close().await.unwrap();
}

/// The rounds of each tenant whose records a reader of the directory sees, each once: it leaves out what a whole segment
/// replaces, and what cannot be read of one that a crash left.
async fn rounds(domicile: &Domicile, disk: &SimulatedDisk) -> BTreeMap<String, BTreeSet<u64>> {
    let mut rounds: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let segments = disk.segments();
    let replaced = replaced_among(domicile, segments.iter().map(|bytes| &bytes[..]), Purpose::Support);
    let replaced = replaced.await.unwrap();
    for bytes in segments {
        let opened = Segment::open_source(domicile, &bytes[..], Purpose::Support, Selection::all()).await;
        let Ok(segment) = opened else { continue };
        if replaced.contains(&segment.header().id) {
            continue;
        }
        for block in segment.blocks() {
            let Ok(block) = block else { continue };
            for record in block.records() {
                let text = String::from_utf8(record.to_vec()).unwrap();
                let mut words = text.split(' ');
                let (tenant, round) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
                assert!(
                    rounds.entry(tenant.to_owned()).or_default().insert(round),
                    "{tenant} {round} is there twice"
                );
            }
        }
    }
    rounds
}

/// What was told to be safe is there, and nothing was invented.
fn check_rounds(found: &BTreeMap<String, BTreeSet<u64>>, told: u64) {
    for (place, tenant) in (0..).zip(TENANTS) {
        // They were appended in turn: so many of this one were told to be safe.
        let safe = (told + 2 - place) / 3;
        let there = found.get(tenant);
        for round in 0..safe {
            assert!(there.is_some_and(|there| there.contains(&round)), "{tenant} {round} of {safe} is lost");
        }
        assert!(there.into_iter().flatten().all(|round| *round < 400 || *round >= BEHIND), "invented");
    }
}

/// SEG-46: opens what a crash left, has it closed behind a recorder that writes, and looks at what is there then.
async fn survive(home: &Home, disk: &SimulatedDisk, told: u64, behind: u64, pairs: &mut Pairs) {
    for (name, bytes) in disk.files() {
        pairs.add(&bytes);
        if name.extension().is_some_and(|ending| ending == "dseg") && bytes.len() > 4 << 10 {
            let opened =
                Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await;
            if let Ok(segment) = opened {
                assert!(!segment.state().is_corrupt(), "{}: {}", name.display(), segment.state());
            }
        }
    }
    check_rounds(&rounds(&home.domicile, disk).await, told);
    let recorder = on(disk, &home.domicile);
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    lane.append(home.domicile.now(), format!("acme {behind} behind\n").as_bytes()).await.unwrap();
    recorder.commit().await.unwrap();
    for (path, recovered) in recorder.recovered().await.iter() {
        match recovered.as_ref().unwrap_or_else(|error| panic!("{}: {error:?}", path.display())) {
            Recovery::Closed { caller, .. } => assert!(matches!(caller.len(), 0 | 8)),
            Recovery::Whole | Recovery::Empty { .. } | Recovery::Adopted { .. } => {}
        }
    }
    recorder.close().await.unwrap();
    for bytes in disk.segments() {
        pairs.add(&bytes);
        let verified = verify(&home.domicile, &bytes[..], None).await.unwrap();
        assert!(verified.is_complete(), "{}: {:?}", verified.detail, verified.findings);
        assert!(matches!(verified.state(), State::Complete | State::Recovered));
    }
    check_rounds(&rounds(&home.domicile, disk).await, told);
    // Once is enough.
    let again = on(disk, &home.domicile);
    assert!(again.recovered().await.is_empty());
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_crash_leaves_what_was_said_to_be_safe_is_there_and_is_closed() {
    let home = Home::of(&TENANTS).await;
    let disk = SimulatedDisk::default();
    record(&disk, &home, 400).await;
    assert!(disk.segments().len() > 2, "segments follow one another");
    let mut pairs = Pairs::default();
    let only: Option<u64> = std::env::var("DOMICILE_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..if long_form() { 10_000 } else { 600 }, |seed| seed..seed + 1);
    for seed in seeds {
        println!("DOMICILE_SEED={seed}");
        let mut dice = Dice::new(seed);
        let (left, told) = disk.crash(dice.below(disk.steps() + 1), &mut dice);
        survive(&home, &left, told, BEHIND, &mut pairs).await;
        // A crash while what the first one left was closed, at any step.
        let (again, _) = left.crash(dice.below(left.steps() + 1), &mut dice);
        survive(&home, &again, told, BEHIND + 1, &mut pairs).await;
    }
}

/// SEG-48: a recorder dies at every step of a compaction: between any two, a reader of the directory sees each record once, and
/// the next recorder does what was left.
#[tokio::test(flavor = "multi_thread")]
async fn at_every_step_of_a_compaction_each_record_is_there_once() {
    let home = Home::of(&TENANTS).await;
    let mut options = options();
    options.compact = true;
    let (mut step, mut published, mut goes_on) = (0, 0, true);
    while goes_on {
        let disk = SimulatedDisk::default();
        let mut quiet = options.clone();
        quiet.compact = false;
        let recorder =
            Recorder::on_disk(&home.domicile, Path::new("segments"), quiet, Arc::new(disk.clone())).unwrap();
        for round in 0..30_u64 {
            for tenant in TENANTS {
                let lane = recorder.scope(&scope(tenant)).await.unwrap();
                lane.append(home.domicile.now(), format!("{tenant} {round} once\n").as_bytes())
                    .await
                    .unwrap();
            }
            recorder.commit().await.unwrap();
        }
        recorder.close().await.unwrap();
        // What a crash left without an end is compacted once it is closed: each step of it is one that may be the last.
        let mut dice = Dice::new(7);
        let cut = disk.crash(disk.steps() - 3, &mut dice).0;
        cut.die_after(step);
        let dying =
            Recorder::on_disk(&home.domicile, Path::new("segments"), options.clone(), Arc::new(cut.clone()));
        dying.unwrap().close().await.unwrap();
        let found = rounds(&home.domicile, &cut).await;
        assert!(
            found.values().all(|rounds| rounds.len() == 30) && found.len() == 3,
            "step {step}: {found:?}"
        );
        published += usize::from(count_replacing(&home.domicile, &cut).await > 0);
        let next = cut.another();
        let recorder =
            Recorder::on_disk(&home.domicile, Path::new("segments"), options.clone(), Arc::new(next.clone()));
        let recorder = recorder.unwrap();
        for (path, recovered) in recorder.recovered().await.iter() {
            assert!(recovered.is_ok(), "step {step}: {}: {recovered:?}", path.display());
        }
        recorder.close().await.unwrap();
        let found = rounds(&home.domicile, &next).await;
        assert!(
            found.values().all(|rounds| rounds.len() == 30) && found.len() == 3,
            "step {step}: {found:?}"
        );
        for (name, bytes) in next.files() {
            let name = name.to_string_lossy().into_owned();
            assert!(!name.ends_with(".part"), "step {step}: {name} is left");
            if name.ends_with(".dseg") {
                let verified = verify(&home.domicile, &bytes[..], None).await.unwrap();
                assert!(verified.is_complete(), "step {step}: {}", verified.detail);
            }
        }
        goes_on = cut.has_died();
        step += 1;
    }
    assert!(step > 10 && published > 2, "{step} steps, {published} of them behind the publication");
}

async fn count_replacing(domicile: &Domicile, disk: &SimulatedDisk) -> usize {
    let mut count = 0;
    for bytes in disk.segments() {
        let replaced = replaced_by(domicile, &bytes[..], Purpose::Support).await;
        count += usize::from(replaced.is_ok_and(|replaced| !replaced.is_empty()));
    }
    count
}
