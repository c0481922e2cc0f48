//! Keys in use, and keys that cannot be had: a data key ends with its tenant key, an outage loses no record, and a denial is none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::io::Read;
use std::time::Duration;

use domicile::keyring::{Ages, Concerned};
use domicile::kms::KeyStatus;
use domicile::post::Post;
use domicile::store::KeyStore;
use domicile::{Action, Code, Domicile, ManualClock, Purpose, Result};
use domicile_record::format::{Contents, Descriptor, LaneNo, Origin};
use domicile_record::{
    Adopting, Erasable, Intake, IntakeOptions, Scoping, Segment, SegmentWriter, Selection, Stamp,
    WriterOptions, erase,
};
use domicile_tests::away::{REGION, Region};
use domicile_tests::{InMemory, descriptor, region, scope};

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

async fn writer(process: &Domicile) -> SegmentWriter<Vec<u8>> {
    let options = WriterOptions { block_bytes: 4 << 10, ..WriterOptions::default() };
    SegmentWriter::create(process, &region(REGION), Vec::new(), options).await.unwrap()
}

fn lane_of(tenant: &str) -> Descriptor {
    descriptor(tenant, Contents::default())
}

/// A segment with a lane of many blocks for each of these tenants.
async fn sealed(process: &Domicile, tenants: &[&str]) -> Vec<u8> {
    let mut writer = writer(process).await;
    for tenant in tenants {
        let lane = writer.open_lane(lane_of(tenant), b"").await.unwrap();
        for number in 0..2_000 {
            writer.append(lane, format!("{tenant} {number}\n").as_bytes(), Stamp::default()).unwrap();
        }
    }
    writer.finish().await.unwrap().0
}

async fn opened<'a>(process: &Domicile, bytes: &'a [u8]) -> Segment<&'a [u8]> {
    Segment::open_source(process, bytes, Purpose::Support, Selection::all()).await.unwrap()
}

async fn text(process: &Domicile, bytes: &[u8]) -> Result<String> {
    let mut output = Vec::new();
    let restored = opened(process, bytes).await.restore(&mut output)?;
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    Ok(String::from_utf8(output).unwrap())
}

async fn erase_first_lane(process: &Domicile, bytes: &[u8]) {
    let id = domicile_record::inspect(bytes).unwrap().segment;
    let lanes = Erasable::Lanes(vec![LaneNo(1)]);
    erase(process, bytes, &lanes, &id, Purpose::Maintenance).await.unwrap();
}

#[tokio::test]
async fn a_reader_stops_where_a_lane_is_erased_elsewhere_and_reads_its_neighbours_on() {
    let here = Region::new().await;
    let (reading, erasing) = (here.process().await, here.process().await);
    let bytes = sealed(&reading, &["acme", "globex"]).await;
    let segment = opened(&reading, &bytes).await;
    let mut blocks = segment.blocks();
    blocks.next().unwrap().unwrap();
    erase_first_lane(&erasing, &bytes).await;
    // Nobody told this process yet, and the poll's age has not passed.
    reading.keep_up().await.unwrap();
    blocks.next().unwrap().unwrap();
    here.clock.advance(Ages::default().poll);
    reading.keep_up().await.unwrap();
    assert_eq!(blocks.next().unwrap().unwrap_err().code(), Code::KeyDestroyed);
    let rest: Vec<_> = blocks.collect();
    assert!(rest.len() > 3 && rest.iter().all(Result::is_ok), "globex's lane is what it was");
}

#[tokio::test]
async fn a_key_in_use_that_nobody_vouches_for_lapses_with_the_hard_age_and_comes_back_with_a_word() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process, &["acme"]).await;
    let segment = opened(&process, &bytes).await;
    let mut blocks = segment.blocks();
    // Kept up, it is used for hours.
    here.pass(&process, Duration::from_secs(7_200)).await;
    blocks.next().unwrap().unwrap();
    here.clock.advance(Ages::default().hard);
    assert_eq!(segment.blocks().next().unwrap().unwrap_err().code(), Code::KeyLapsed);
    process.keep_up().await.unwrap();
    segment.blocks().next().unwrap().unwrap();

    let mut writer = writer(&process).await;
    let lane = writer.open_lane(lane_of("acme"), b"").await.unwrap();
    writer.append(lane, b"one", Stamp::default()).unwrap();
    here.clock.advance(Ages::default().hard);
    assert_eq!(writer.stop_lapsed_lanes(), 1);
    assert_eq!(writer.append(lane, b"two", Stamp::default()).unwrap_err().code(), Code::KeyLapsed);
    process.keep_up().await.unwrap();
    assert_eq!(writer.stop_lapsed_lanes(), 0);
    writer.append(lane, b"two", Stamp::default()).unwrap();
    let bytes = writer.finish().await.unwrap().0;
    assert_eq!(text(&process, &bytes).await.unwrap(), "onetwo");
}

#[tokio::test]
async fn lanes_roll_when_their_key_is_rotated_and_no_record_is_lost() {
    let here = Region::new().await;
    let (writing, rotating) = (here.process().await, here.process().await);
    let mut writer = writer(&writing).await;
    let (old, other) = (
        writer.open_lane(lane_of("acme"), b"").await.unwrap(),
        writer.open_lane(lane_of("globex"), b"").await.unwrap(),
    );
    writer.append(old, b"before\n", Stamp::default()).unwrap();
    rotating.keyring().rotate(rotating.permit(&scope("acme"), manage()).await.unwrap()).await.unwrap();
    here.clock.advance(Ages::default().poll);
    writing.keep_up().await.unwrap();
    assert_eq!(writer.stop_lapsed_lanes(), 1, "globex's key was not rotated");
    let lapsed = writer.append(old, b"lost?\n", Stamp::default()).unwrap_err();
    assert_eq!(lapsed.code(), Code::KeyLapsed);
    let new = writer.open_lane(lane_of("acme"), b"").await.unwrap();
    writer.append(new, b"behind\n", Stamp::default()).unwrap();
    writer.append(other, b"beside\n", Stamp::default()).unwrap();
    let bytes = writer.finish().await.unwrap().0;
    let all = text(&here.process().await, &bytes).await.unwrap();
    assert_eq!(all, "before\nbeside\nbehind\n");
}

#[tokio::test]
async fn roots_and_branches_rotate_below_keys_in_use() {
    let here = Region::new().await;
    let (using, rotating) = (here.process().await, here.process().await);
    let bytes = sealed(&using, &["acme"]).await;
    let segment = opened(&using, &bytes).await;
    let mut writer = writer(&using).await;
    let lane = writer.open_lane(lane_of("acme"), b"").await.unwrap();
    for _ in 0..3 {
        let permit = async || rotating.permit_region(&region(REGION), manage()).await.unwrap();
        rotating.keyring().rotate_roots(permit().await, true).await.unwrap();
        rotating.keyring().rotate_branches(permit().await, true).await.unwrap();
        here.pass(&using, 2 * Ages::default().hard).await;
        assert_eq!(writer.stop_lapsed_lanes(), 0);
        writer.append(lane, b"x", Stamp::default()).unwrap();
        assert!(segment.blocks().all(|block| block.is_ok()));
    }
    let written = writer.finish().await.unwrap().0;
    assert_eq!(text(&using, &written).await.unwrap(), "xxx");
}

#[tokio::test]
async fn what_is_to_be_shredded_is_used_by_nobody_within_seconds() {
    let here = Region::new().await;
    let (using, shredding) = (here.process().await, here.process().await);
    let bytes = sealed(&using, &["acme", "globex"]).await;
    let segment = opened(&using, &bytes).await;
    let mut writer = writer(&using).await;
    let lane = writer.open_lane(lane_of("acme"), b"").await.unwrap();
    let permit = async || shredding.permit_region(&region(REGION), manage()).await.unwrap();
    let whom = || Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
    shredding.keyring().shred(permit().await, whom(), Duration::from_secs(86_400)).await.unwrap();
    here.clock.advance(Ages::default().poll);
    using.keep_up().await.unwrap();
    let codes: Vec<_> = segment.blocks().filter_map(|block| block.err().map(|error| error.code())).collect();
    assert_eq!(codes, [Code::KeyShredding]);
    assert_eq!(writer.stop_lapsed_lanes(), 1);
    assert_eq!(writer.append(lane, b"x", Stamp::default()).unwrap_err().code(), Code::KeyLapsed);
    let refused = writer.open_lane(lane_of("acme"), b"").await.unwrap_err();
    assert_eq!(refused.code(), Code::KeyShredding);
    // Taken back, the keys are there for whoever asks again.
    shredding.keyring().unshred(permit().await, whom()).await.unwrap();
    here.clock.advance(Ages::default().poll);
    assert!(opened(&using, &bytes).await.blocks().all(|block| block.is_ok()));
    writer.open_lane(lane_of("acme"), b"").await.unwrap();
}

#[tokio::test]
async fn a_denial_ends_keys_in_use_at_the_next_asking_and_an_outage_at_the_hard_age() {
    let here = Region::new().await;
    let process = here.process().await;
    let bytes = sealed(&process, &["acme"]).await;
    let segment = opened(&process, &bytes).await;
    let ages = Ages::default();
    here.kms_away(true);
    here.pass(&process, ages.hard - Duration::from_secs(60)).await;
    segment.blocks().next().unwrap().unwrap();
    here.pass(&process, Duration::from_secs(120)).await;
    assert_eq!(segment.blocks().next().unwrap().unwrap_err().code(), Code::KeyLapsed);
    here.kms_away(false);
    process.keep_up().await.unwrap();
    segment.blocks().next().unwrap().unwrap();

    here.kms.set_status(KeyStatus::Disabled);
    here.pass(&process, ages.soft + Duration::from_secs(30)).await;
    assert_eq!(segment.blocks().next().unwrap().unwrap_err().code(), Code::KmsDenied);
    here.kms.set_status(KeyStatus::Enabled);
    process.keep_up().await.unwrap();
    // A denial is not taken back by itself: whoever opens it again asks again.
    assert_eq!(segment.blocks().next().unwrap().unwrap_err().code(), Code::KmsDenied);
    assert!(opened(&process, &bytes).await.blocks().all(|block| block.is_ok()));
}

/// What happens before a piece of an input comes.
type Happens<'a> = Box<dyn FnOnce() + 'a>;

/// An input that comes in pieces, before each of which something happens.
struct Scripted<'a> {
    pieces: std::collections::VecDeque<(Happens<'a>, Vec<u8>)>,
}

impl<'a> Scripted<'a> {
    fn new() -> Self {
        Self { pieces: std::collections::VecDeque::new() }
    }

    fn then(mut self, happens: impl FnOnce() + 'a, lines: std::ops::Range<u32>, tenants: &[&str]) -> Self {
        let mut happens: Option<Happens<'a>> = Some(Box::new(happens));
        // One record a piece, so that time goes by between two of them.
        for number in lines {
            for tenant in tenants {
                let line = record(tenant, number).into_bytes();
                let before = happens.take().unwrap_or_else(|| Box::new(|| ()));
                self.pieces.push_back((before, line));
            }
        }
        self
    }
}

impl Read for Scripted<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let Some((happens, piece)) = self.pieces.pop_front() else { return Ok(0) };
        happens();
        into[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

fn routed(post: Option<Post>) -> IntakeOptions {
    let mut options =
        IntakeOptions::new(Scoping::ByField { tenant: "tenant".into(), record_type: "type".into() });
    options.framing = "csv".parse().unwrap();
    options.posts = post.into_iter().collect();
    options
}

/// A record of a thousand octets: few of them are read ahead of what happens.
fn record(tenant: &str, number: u32) -> String {
    format!("{tenant},voice,{number:01000}\n")
}

const HEADER: &str = "tenant,type,number\n";

/// Opens and adopts what was sealed: the records, in no order.
async fn records_of(process: &Domicile, segments: Vec<(Vec<u8>, Origin)>) -> Vec<String> {
    let mut records = Vec::new();
    for (bytes, origin) in segments {
        let bytes = match origin {
            Origin::Post => {
                let posts = process.posts(&region(REGION)).await.unwrap();
                let adopting = Adopting::examine(process, &posts, &bytes[..]).await.unwrap();
                adopting.write(Vec::new()).await.unwrap().0
            }
            _ => bytes,
        };
        let segment = opened(process, &bytes).await;
        for block in segment.blocks() {
            records
                .extend(block.unwrap().records().map(|record| String::from_utf8(record.to_vec()).unwrap()));
        }
    }
    records.sort();
    records
}

fn expected(tenants: &[(&str, std::ops::Range<u32>)]) -> Vec<String> {
    let lines = tenants
        .iter()
        .flat_map(|(tenant, numbers)| numbers.clone().map(move |number| record(tenant, number)));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn an_hour_without_key_service_and_store_loses_no_record() {
    let here = Region::new().await;
    let process = here.process().await;
    let post = here.post(&process).await;
    let mut intake = Intake::new(&process, routed(Some(post)), InMemory);
    let minute = || here.clock.advance(Duration::from_secs(60));
    let mut input = Scripted::new().then(|| (), 0..100, &["acme"]);
    // Both go away; a minute passes with each hundred records, for an hour and more.
    input = input.then(
        || {
            here.kms_away(true);
            here.store_away(true);
        },
        100..200,
        &["acme"],
    );
    for round in 2..70 {
        input = input.then(minute, 100 * round..100 * (round + 1), &["acme"]);
    }
    // A scope's first record, while nothing can be asked.
    input = input.then(minute, 0..100, &["late"]);
    input = input.then(
        || {
            here.kms_away(false);
            here.store_away(false);
            here.clock.advance(Duration::from_secs(60));
        },
        0..100,
        &["globex"],
    );
    let input = HEADER.as_bytes().chain(input);
    let report = intake.read(input).await.unwrap();
    assert_eq!(report.records, 7_200);
    let sealed = intake.finish().await.unwrap();
    let by: Vec<_> = sealed.segments.iter().map(|(_, summary)| (summary.origin, summary.records)).collect();
    assert_eq!(by.iter().map(|(_, records)| records).sum::<u64>(), 7_200);
    assert_eq!(by.len(), 2, "{by:?}");
    // The hard age of keys is a quarter of an hour: until then the home's own go on.
    assert!(
        matches!(by[..], [(Origin::Writer, home), (Origin::Post, post)] if home > 1_400 && post > 4_000),
        "{by:?}"
    );
    assert_eq!(process.audit().kept().await, 0);
    let segments = sealed.segments.into_iter().map(|(bytes, summary)| (bytes, summary.origin)).collect();
    let found = records_of(&here.process().await, segments).await;
    assert_eq!(found, expected(&[("acme", 0..7_000), ("late", 0..100), ("globex", 0..100)]));
}

/// A recording that takes an hour to come in.
struct Slow<'a> {
    clock: &'a ManualClock,
    pieces: u32,
}

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.pieces == 0 {
            return Ok(0);
        }
        self.pieces -= 1;
        self.clock.advance(Duration::from_secs(30));
        into.fill(7);
        Ok(into.len())
    }
}

#[tokio::test]
async fn one_record_that_takes_longer_than_keys_are_used_unasked_is_sealed() {
    let here = Region::new().await;
    let process = here.process().await;
    let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
    options.framing = "whole".parse().unwrap();
    let mut intake = Intake::new(&process, options, InMemory);
    let report = intake.read(Slow { clock: &here.clock, pieces: 120 }).await.unwrap();
    assert_eq!(report.records, 1);
    let (bytes, _) = intake.finish().await.unwrap().segments.remove(0);
    assert_eq!(text(&process, &bytes).await.unwrap().len() as u64, report.bytes);
}

#[tokio::test]
async fn a_process_that_starts_in_an_outage_seals_as_a_post() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    here.store_away(true);
    here.kms_away(true);
    let process = here.process().await;
    let mut intake = Intake::new(&process, routed(Some(post.clone())), InMemory);
    let input = Scripted::new().then(|| (), 0..50, &["acme", "globex"]);
    intake.read(HEADER.as_bytes().chain(input)).await.unwrap();
    let sealed = intake.finish().await.unwrap();
    assert_eq!(process.audit().kept().await, 1, "that it was sealed is recorded when it can be");
    here.store_away(false);
    here.kms_away(false);
    assert_eq!(process.audit().kept().await, 0);
    let chains = here.memory.chains().await.unwrap();
    let recorded =
        chains.iter().flat_map(|(_, events)| events).filter(|event| event.body.contains("writer-1"));
    assert!(recorded.count() > 0);
    let segments = sealed.segments.into_iter().map(|(bytes, summary)| (bytes, summary.origin)).collect();
    assert_eq!(records_of(&home, segments).await, expected(&[("acme", 0..50), ("globex", 0..50)]));

    // Whom no bundle names is not guessed at: the outage is told as it is.
    here.kms_away(true);
    here.store_away(true);
    let process = here.process().await;
    let mut intake = Intake::new(&process, routed(Some(post)), InMemory);
    let input = Scripted::new().then(|| (), 0..1, &["unenrolled"]);
    let error = intake.read(HEADER.as_bytes().chain(input)).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
}

#[tokio::test]
async fn a_denial_never_falls_back() {
    let here = Region::new().await;
    let home = here.process().await;
    let post = here.post(&home).await;
    sealed(&home, &["acme"]).await;
    for status in [KeyStatus::Disabled, KeyStatus::PendingDeletion] {
        here.kms.set_status(status);
        let process = here.process().await;
        let mut intake = Intake::new(&process, routed(Some(post.clone())), InMemory);
        let input = Scripted::new().then(|| (), 0..3, &["acme"]);
        let error = intake.read(HEADER.as_bytes().chain(input)).await.unwrap_err();
        assert!(!error.is_outage(), "{error:?}");
        // Nor where the denial comes in the middle.
        here.kms.set_status(KeyStatus::Enabled);
        let process = here.process().await;
        let mut intake = Intake::new(&process, routed(Some(post.clone())), InMemory);
        let denied = || {
            here.kms.set_status(status);
            here.clock.advance(Ages::default().soft);
        };
        let later = || here.clock.advance(Duration::from_secs(30));
        let input = Scripted::new().then(|| (), 0..5_000, &["acme"]).then(denied, 0..5_000, &["acme"]).then(
            later,
            0..5_000,
            &["acme"],
        );
        let error = intake.read(HEADER.as_bytes().chain(input)).await.unwrap_err();
        assert_eq!(error.code(), Code::KmsDenied, "{error:?}");
        here.kms.set_status(KeyStatus::Enabled);
    }
}

#[tokio::test]
async fn a_chain_that_cannot_be_written_keeps_what_was_done_and_refuses_what_is_to_be() {
    let here = Region::new().await;
    let process = here.process().await;
    let mut writer = writer(&process).await;
    let lane = writer.open_lane(lane_of("acme"), b"").await.unwrap();
    writer.append(lane, b"x", Stamp::default()).unwrap();
    here.store_away(true);
    let bytes = writer.finish().await.unwrap().0;
    assert_eq!(process.audit().kept().await, 1);
    // An opening is recorded before its key is had, or does not happen.
    let opening = Segment::open_source(&process, &bytes[..], Purpose::Support, Selection::all()).await;
    assert_eq!(opening.unwrap_err().code(), Code::AuditUnavailable);
    here.store_away(false);
    assert_eq!(text(&process, &bytes).await.unwrap(), "x");
    assert_eq!(process.audit().kept().await, 0);
    let chains = here.memory.chains().await.unwrap();
    let bodies: Vec<_> =
        chains.iter().flat_map(|(_, events)| events).map(|event| event.body.clone()).collect();
    let at = |what: &str| bodies.iter().position(|body| body.contains(what)).unwrap();
    assert!(at("\"event\":\"seal\"") < at("\"event\":\"open\""), "in the order in which it happened");
}
