//! A recorder whose home's keys are out of reach: it goes on as a post of that home, nothing waits, and no record is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile::keyring::Ages;
use domicile::kms::{KeyStatus, Operation};
use domicile::post::Post;
use domicile::store::KeyStore;
use domicile::{Code, Domicile, Purpose};
use domicile_record::format::Origin;
use domicile_record::{
    Adopting, Recorder, RecorderLane, RecorderOptions, Recovery, Segment, Selection, header_of,
    replaced_among, verify,
};
use domicile_tests::away::{REGION, Region};
use domicile_tests::disk::{Dice, SimulatedDisk};
use domicile_tests::pairs::Pairs;
use domicile_tests::{long_form, region, scope};

fn options(post: Option<&Post>) -> RecorderOptions {
    let mut options = RecorderOptions::default();
    options.commit_interval = Duration::from_millis(1);
    options.writer.block_bytes = 4 << 10;
    options.sealing_threads = 0;
    options.compact = false;
    options.posts = post.into_iter().cloned().collect();
    options
}

fn on(disk: &SimulatedDisk, process: &Domicile, options: RecorderOptions) -> Recorder {
    Recorder::on_disk(process, Path::new("segments"), options, Arc::new(disk.clone())).unwrap()
}

async fn append(lane: &RecorderLane, here: &Region, tenant: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let time = domicile::Clock::now(&here.clock);
        lane.append(time, format!("{tenant} {number}\n").as_bytes()).await.unwrap();
    }
}

/// The segments on a disk, by whose hand each was sealed.
fn by_origin(disk: &SimulatedDisk) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let origin = |bytes: &Vec<u8>| header_of(&bytes[..]).unwrap().origin;
    disk.segments().into_iter().partition(|bytes| origin(bytes) != Origin::Post)
}

/// What is left once what posts sealed is adopted, if it is not yet.
async fn adopted(process: &Domicile, segments: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let posts = process.posts(&region(REGION)).await.unwrap();
    let mut adopted = Vec::new();
    for bytes in segments {
        if header_of(&bytes[..]).unwrap().edition > 0 {
            adopted.push(bytes);
            continue;
        }
        let adopting = Adopting::examine(process, &posts, &bytes[..]).await.unwrap();
        adopted.push(adopting.write(Vec::new()).await.unwrap().0);
    }
    adopted
}

/// The numbers of each tenant's records.
async fn numbers(process: &Domicile, segments: &[Vec<u8>]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for bytes in segments {
        let segment = Segment::open_source(process, &bytes[..], Purpose::Support, Selection::all()).await;
        for block in segment.unwrap().blocks() {
            for record in block.unwrap().records() {
                let text = String::from_utf8(record.to_vec()).unwrap();
                let (tenant, number) = text.trim_end().split_once(' ').unwrap();
                numbers.entry(tenant.to_owned()).or_default().push(number.parse().unwrap());
            }
        }
    }
    numbers.values_mut().for_each(|numbers| numbers.sort_unstable());
    numbers
}

/// Waits until something is so, which takes a recorder's threads a moment.
async fn until(mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never came to be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_go_away_and_come_back_cost_no_record_and_receipts_count_all() {
    let here = Region::new().await;
    let process = here.process().await;
    let post = here.post(&process).await;
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &process, options(Some(&post)));
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    append(&lane, &here, "acme", 0..100).await;
    assert_eq!(recorder.commit_with(b"first").await.unwrap().records, 100);

    // Both are away, and the keys in use lapse: a lane that was open goes on beside its home's segment.
    here.kms_away(true);
    here.store_away(true);
    here.clock.advance(2 * Ages::default().hard);
    append(&lane, &here, "acme", 100..200).await;
    // A scope's first record.
    let late = recorder.scope(&scope("late")).await.unwrap();
    append(&late, &here, "late", 0..50).await;
    assert_eq!(recorder.commit_with(b"second").await.unwrap().records, 250);
    let (homes, posts) = by_origin(&disk);
    assert_eq!((homes.len(), posts.len()), (1, 1));
    // What cannot be asked is asked for again after ten seconds, and nobody waits for the answer.
    for round in 2..6 {
        here.clock.advance(Duration::from_secs(8));
        append(&lane, &here, "acme", round * 100..(round + 1) * 100).await;
    }
    assert_eq!(recorder.commit().await.unwrap().records, 650);

    here.kms_away(false);
    here.store_away(false);
    here.clock.advance(Duration::from_secs(30));
    // The home's own segment has the lane again, and the post's is ended.
    until(|| by_origin(&disk).1.iter().all(|bytes| domicile_record::is_finished(&bytes[..]).unwrap())).await;
    append(&lane, &here, "acme", 600..700).await;
    assert_eq!(recorder.commit().await.unwrap().records, 750);
    let summaries = recorder.close().await.unwrap();
    assert!(summaries.iter().all(|summary| summary.origin == Origin::Writer));

    // It is on record who sealed it.
    assert_eq!(process.audit().kept().await, 0);
    let chains = here.memory.chains().await.unwrap();
    let sealed = |body: &str| body.contains("\"event\":\"seal\"") && body.contains("writer-1");
    assert!(chains.iter().flat_map(|(_, events)| events).any(|event| sealed(&event.body)));

    let (mut files, posts) = by_origin(&disk);
    files.extend(adopted(&process, posts).await);
    let found = numbers(&process, &files).await;
    assert_eq!(found["acme"], (0..700).collect::<Vec<_>>());
    assert_eq!(found["late"], (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_that_begins_in_an_outage_seals_as_a_post_what_its_bundle_names_and_nothing_else() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.kms_away(true);
    here.store_away(true);
    let process = here.process().await;
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &process, options(Some(&post)));
    let mut lanes = Vec::new();
    for tenant in ["acme", "globex"] {
        lanes.push((tenant, recorder.scope(&scope(tenant)).await.unwrap()));
    }
    for (tenant, lane) in &lanes {
        append(lane, &here, tenant, 0..500).await;
    }
    assert_eq!(recorder.commit().await.unwrap().records, 1_000);
    // Whom no bundle names is not guessed at: the outage is told as it is.
    let error = recorder.scope(&scope("unenrolled")).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    let summaries = recorder.close().await.unwrap();
    assert!(matches!(&summaries[..], [one] if one.origin == Origin::Post && one.records == 1_000));
    // Without a post, an outage is told.
    let recorder = on(&SimulatedDisk::default(), &process, options(None));
    assert!(recorder.scope(&scope("acme")).await.unwrap_err().is_outage());

    here.kms_away(false);
    here.store_away(false);
    let found = numbers(&home, &adopted(&home, disk.segments()).await).await;
    assert!(found.len() == 2 && found.values().all(|numbers| *numbers == (0..500).collect::<Vec<_>>()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_never_falls_back_whenever_it_comes() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    for status in [KeyStatus::Disabled, KeyStatus::PendingDeletion] {
        here.kms.set_status(status);
        let process = here.process().await;
        let disk = SimulatedDisk::default();
        let recorder = on(&disk, &process, options(Some(&post)));
        let lane = recorder.scope(&scope("acme")).await.unwrap();
        let error = lane.append(process.now(), b"acme 0\n").await.unwrap_err();
        assert!(!error.is_outage(), "{error:?}");
        assert!(disk.segments().is_empty());
        here.kms.set_status(KeyStatus::Enabled);

        // An outage that turns out to be a denial.
        here.kms_away(true);
        here.clock.advance(2 * Ages::default().hard);
        append(&lane, &here, "acme", 0..10).await;
        assert_eq!(recorder.commit().await.unwrap().records, 10);
        here.kms.set_status(status);
        here.kms_away(false);
        here.clock.advance(Duration::from_secs(30));
        let began = Instant::now();
        let error = loop {
            assert!(began.elapsed() < Duration::from_secs(60), "the denial was never told");
            match lane.append(process.now(), b"acme 0\n").await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        };
        assert!(!error.is_outage(), "{error:?}");
        here.kms.set_status(KeyStatus::Enabled);
        recorder.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posts_segment_is_ended_within_minutes_and_another_follows_it() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.kms_away(true);
    let process = here.process().await;
    let disk = SimulatedDisk::default();
    let recorder = on(&disk, &process, options(Some(&post)));
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    let ended = || {
        let segments = disk.segments();
        segments.iter().filter(|bytes| domicile_record::is_finished(&bytes[..]).unwrap()).count()
    };
    for round in 0..3 {
        append(&lane, &here, "acme", round * 100..(round + 1) * 100).await;
        assert_eq!(recorder.commit().await.unwrap().records, (round + 1) * 100);
        here.clock.advance(Duration::from_secs(5 * 60));
        // With or without another record: what opens it goes with it.
        until(|| ended() as u64 == round + 1).await;
    }
    recorder.close().await.unwrap();
    here.kms_away(false);
    assert_eq!(disk.segments().len(), 3);
    let found = numbers(&home, &adopted(&home, disk.segments()).await).await;
    assert_eq!(found["acme"], (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_pause_lasts_nobody_waits_for_a_key_service() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.kms_away(true);
    let process = here.process().await;
    let recorder = on(&SimulatedDisk::default(), &process, options(Some(&post)));
    let acme = recorder.scope(&scope("acme")).await.unwrap();
    append(&acme, &here, "acme", 0..1).await;
    let asked = || here.kms.calls(Operation::Generate) + here.kms.calls(Operation::Unwrap);
    let before = asked();
    // Another scope, whose keys the same service has, and a period that is new.
    let late = recorder.scope(&scope("late")).await.unwrap();
    append(&late, &here, "late", 0..1).await;
    let last_month = "2026-10-30T00:00:00Z".parse().unwrap();
    acme.append(last_month, b"acme 1\n").await.unwrap();
    assert_eq!(asked(), before);
    assert_eq!(recorder.commit().await.unwrap().records, 3);
    recorder.close().await.unwrap();
}

/// Records until a test has enough, during an outage, and notes on the disk what is said to be safe.
async fn record_in_an_outage(here: &Region, disk: &SimulatedDisk, post: &Post, rounds: u64) {
    let process = here.process().await;
    let mut options = options(Some(post));
    options.writer.block_bytes = 2 << 10;
    options.segment_bytes = 20 << 10;
    let recorder = on(disk, &process, options);
    let mut lanes = Vec::new();
    for tenant in ["acme", "globex"] {
        lanes.push((tenant, recorder.scope(&scope(tenant)).await.unwrap()));
    }
    for round in 0..rounds {
        for (tenant, lane) in &lanes {
            append(lane, here, tenant, round..round + 1).await;
        }
        if round % 8 == 7 {
            disk.note(recorder.commit_with(&round.to_be_bytes()).await.unwrap().records);
        }
    }
    // Some of the images are of a segment that is being ended, and of one that is whole.
    recorder.close().await.unwrap();
}

/// What a reader of the directory finds: each record once, and all that was told to be safe.
fn check(found: &BTreeMap<String, Vec<u64>>, told: u64, where_: &str) {
    for (place, tenant) in (0..).zip(["acme", "globex"]) {
        let numbers = found.get(tenant).map_or(&[][..], |numbers| &numbers[..]);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{where_}: {tenant}: a record twice");
        // They were appended in turn: so many of this one were told to be safe.
        let safe = (told + 1 - place) / 2;
        assert!(
            (0..safe).all(|number| numbers.binary_search(&number).is_ok()),
            "{where_}: {tenant} of {safe}"
        );
    }
}

/// The segments of a directory as a reader sees them: what another one replaces is left out.
async fn seen(process: &Domicile, disk: &SimulatedDisk) -> Vec<Vec<u8>> {
    let segments = disk.segments();
    let replaced = replaced_among(process, segments.iter().map(|bytes| &bytes[..]), Purpose::Support).await;
    let replaced = replaced.unwrap();
    let is_current = |bytes: &Vec<u8>| !replaced.contains(&header_of(&bytes[..]).unwrap().id);
    segments.into_iter().filter(is_current).collect()
}

/// SEG-51: what crashes leave of segments that were sealed in an outage is adopted behind the next recorder, once: whatever the disk lost,
/// tore or reordered, and where a second crash comes while it adopts.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_crash_leaves_of_an_outage_its_home_adopts_once() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.kms_away(true);
    let disk = SimulatedDisk::default();
    record_in_an_outage(&here, &disk, &post, 200).await;
    here.kms_away(false);
    let only: Option<u64> = std::env::var("DOMICILE_SEED").ok().map(|seed| seed.parse().unwrap());
    let (mut adopted_without_end, mut pairs) = (0, Pairs::default());
    for seed in only.map_or(0..if long_form() { 3_000 } else { 120 }, |seed| seed..seed + 1) {
        println!("DOMICILE_SEED={seed}");
        let mut dice = Dice::new(seed);
        let (left, told) = disk.crash(dice.below(disk.steps() + 1), &mut dice);
        // Of each image the home knows nothing yet.
        let home = here.process_apart().await;
        let recorder = on(&left, &home, options(None));
        for (path, recovered) in recorder.recovered().await.iter() {
            match recovered.as_ref().unwrap_or_else(|error| panic!("{}: {error:?}", path.display())) {
                Recovery::Adopted { had_end, caller, .. } => {
                    adopted_without_end += u32::from(!had_end);
                    assert!(matches!(caller.len(), 0 | 8));
                }
                Recovery::Whole | Recovery::Empty { .. } | Recovery::Closed { .. } => {}
            }
        }
        recorder.close().await.unwrap();
        left.files().values().for_each(|bytes| pairs.add(bytes));
        check(&numbers(&home, &left.segments()).await, told, &format!("seed {seed}"));

        // A crash while they were adopted, at any step: and once more.
        let (again, _) = left.crash(dice.below(left.steps() + 1), &mut dice);
        let recorder = on(&again, &home, options(None));
        assert!(recorder.recovered().await.iter().all(|(_, recovered)| recovered.is_ok()), "seed {seed}");
        recorder.close().await.unwrap();
        check(&numbers(&home, &again.segments()).await, told, &format!("seed {seed}, again"));
        again.files().values().for_each(|bytes| pairs.add(bytes));
        for bytes in again.segments() {
            let verified = verify(&home, &bytes[..], None).await.unwrap();
            assert!(verified.is_complete(), "seed {seed}: {}: {:?}", verified.detail, verified.findings);
        }
        // Once is enough.
        let recorder = on(&again, &home, options(None));
        assert!(recorder.recovered().await.is_empty());
        recorder.close().await.unwrap();
    }
    assert!(only.is_some() || adopted_without_end > 20, "{adopted_without_end} without an end");
}

/// A recorder dies at every step of adopting, and of compacting what it adopted: between any two, no record is there twice, and the
/// next one finds all of them.
#[tokio::test(flavor = "multi_thread")]
async fn at_every_step_of_an_adoption_each_record_is_there_once() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    let mut compacting = options(None);
    compacting.compact = true;
    let (mut step, mut goes_on) = (0, true);
    while goes_on {
        here.kms_away(true);
        let disk = SimulatedDisk::default();
        record_in_an_outage(&here, &disk, &post, 40).await;
        here.kms_away(false);
        // The last segment without its end.
        let cut = disk.crash(disk.steps() - 4, &mut Dice::new(7)).0;
        cut.die_after(step);
        on(&cut, &home, compacting.clone()).close().await.unwrap();
        let dead: Vec<_> = seen(&home, &cut).await;
        let readable = dead.into_iter().filter(|bytes| {
            header_of(&bytes[..]).is_ok_and(|header| header.origin == Origin::Writer || header.edition > 0)
        });
        let found = numbers(&home, &readable.collect::<Vec<_>>()).await;
        check(&found, 0, &format!("step {step}, dead"));
        let next = cut.another();
        let recorder = on(&next, &home, compacting.clone());
        assert!(recorder.recovered().await.iter().all(|(_, recovered)| recovered.is_ok()), "step {step}");
        recorder.close().await.unwrap();
        check(&numbers(&home, &seen(&home, &next).await).await, 80, &format!("step {step}"));
        for (name, bytes) in next.files() {
            let name = name.to_string_lossy().into_owned();
            assert!(!name.ends_with(".part"), "step {step}: {name} is left");
            if name.ends_with(".dseg") {
                let verified = verify(&home, &bytes[..], None).await.unwrap();
                assert!(verified.is_complete(), "step {step}: {}", verified.detail);
            }
        }
        goes_on = cut.has_died();
        step += 1;
    }
    assert!(step > 8, "{step} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_recorder_sealed_as_a_post_it_adopts_once_the_keys_are_back_and_opens_then() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    let process = here.process().await;
    let disk = SimulatedDisk::default();
    let mut options = options(Some(&post));
    options.compact = true;
    let recorder = on(&disk, &process, options);
    here.kms_away(true);
    let lane = recorder.scope(&scope("acme")).await.unwrap();
    append(&lane, &here, "acme", 0..300).await;
    assert_eq!(recorder.commit().await.unwrap().records, 300);
    here.kms_away(false);
    here.clock.advance(Duration::from_secs(30));
    // It is ended, adopted and compacted behind whoever appends, and no copy of the post's is left.
    until(|| {
        let segments = disk.segments();
        !segments.is_empty()
            && segments.iter().all(|bytes| header_of(&bytes[..]).unwrap().origin == Origin::Writer)
    })
    .await;
    let adopted =
        |(_, outcome): &(_, domicile::Result<Recovery>)| matches!(outcome, Ok(Recovery::Adopted { .. }));
    assert_eq!(recorder.recovered().await.iter().filter(|entry| adopted(entry)).count(), 1);
    append(&lane, &here, "acme", 300..400).await;
    recorder.close().await.unwrap();
    let found = numbers(&home, &seen(&home, &disk).await).await;
    assert_eq!(found["acme"], (0..400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_recorder_left_waits_for_the_keys_and_a_refusal_is_one_for_good() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.kms_away(true);
    let disk = SimulatedDisk::default();
    record_in_an_outage(&here, &disk, &post, 40).await;
    // Still away: it is said, and left as it is.
    let process = here.process().await;
    let recorder = on(&disk.another(), &process, options(None));
    let recovered = recorder.recovered().await;
    assert!(!recovered.is_empty());
    for (path, outcome) in recovered.iter() {
        assert!(outcome.as_ref().unwrap_err().is_outage(), "{}: {outcome:?}", path.display());
    }
    recorder.close().await.unwrap();
    here.kms_away(false);

    // A post that was revoked meanwhile.
    let posts = home.posts(&region(REGION)).await.unwrap();
    posts.revoke(post.id()).await.unwrap();
    let left = disk.another();
    let recorder = on(&left, &home, options(None));
    for (path, outcome) in recorder.recovered().await.iter() {
        assert_eq!(outcome.as_ref().unwrap_err().code(), Code::PostUnknown, "{}", path.display());
    }
    recorder.close().await.unwrap();
    assert_eq!(left.segments(), disk.segments());
}
