//! Following a segment while it is written: each record once, in order, and none that was not on disk.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use domicile::engine::Suite;
use domicile::{Code, Domicile, Purpose, SystemClock};
use domicile_record::format::{BlockHeader, BlockKind, Contents, Descriptor, SegmentHeader};
use domicile_record::{
    Follower, News, Recorder, RecorderOptions, SegmentWriter, Selection, Source, Stamp, State, WriterOptions,
};
use domicile_tests::away::enrolled;
use domicile_tests::program::{program, succeed};
use domicile_tests::{Home, descriptor, region, scope};

/// What is known by now, and how the segment ended if it did.
async fn news<S: Source>(follower: &mut Follower<S>) -> (Vec<String>, Option<State>) {
    let mut records = Vec::new();
    loop {
        match follower.next().await.unwrap() {
            News::Block(_, block) => {
                records.extend(block.records().map(|record| String::from_utf8(record.to_vec()).unwrap()));
            }
            News::Ended(state) => return (records, Some(state)),
            _ => return (records, None),
        }
    }
}

fn options() -> WriterOptions {
    WriterOptions { block_bytes: 200, ..WriterOptions::default() }
}

#[tokio::test]
async fn records_come_once_in_order_and_not_before_they_are_on_disk() {
    let home = Home::of(&["acme", "globex"]).await;
    let path = home.directory.path().join("followed.dseg");
    let file = File::create(&path).unwrap();
    let mut writer =
        SegmentWriter::create(&home.domicile, &region("eu-central-1"), file, options()).await.unwrap();
    let acme = writer.open_lane(descriptor("acme", Contents::default()), b"head").await.unwrap();
    writer.commit(b"").unwrap();
    let follow = |selection: Selection| {
        let file = File::open(&path).unwrap();
        Follower::new(&home.domicile, file, Purpose::Support, selection)
    };
    let mut all = follow(Selection::all()).await.unwrap();
    let mut of_globex = follow(Selection::scopes(&[scope("globex")])).await.unwrap();
    let (mut committed, mut before, mut globex) = (Vec::new(), 0, None);
    let (mut given, mut given_of_globex) = (Vec::new(), Vec::new());
    for round in 0..20 {
        if round == 10 {
            globex = Some(writer.open_lane(descriptor("globex", Contents::default()), b"").await.unwrap());
        }
        for number in 0..50 {
            let record = format!("acme {round} {number}");
            writer.append(acme, record.as_bytes(), Stamp::default()).unwrap();
        }
        if let Some(globex) = globex {
            writer.append(globex, format!("globex {round}").as_bytes(), Stamp::default()).unwrap();
        }
        // Blocks that are full may have been written, and nobody has synced them.
        given.extend(news(&mut all).await.0);
        assert_eq!(given.len(), before, "round {round}: what was appended is not on disk");
        let of_rounds_before = committed.len();
        writer.commit(b"").unwrap();
        committed.extend((0..50).map(|number| format!("acme {round} {number}")));
        committed.extend(globex.map(|_| format!("globex {round}")));
        let (records, ended) = news(&mut all).await;
        given.extend(records);
        assert_eq!((given.len(), ended), (of_rounds_before, None), "round {round}: the next commit says so");
        before = given.len();
        given_of_globex.extend(news(&mut of_globex).await.0);
    }
    writer.finish().await.unwrap();
    let (records, ended) = news(&mut all).await;
    given.extend(records);
    assert_eq!(ended, Some(State::Complete));
    // Lanes are written apart from one another; each is in order.
    for tenant in ["acme", "globex"] {
        let of = |records: &[String]| -> Vec<_> {
            records.iter().filter(|record| record.starts_with(tenant)).cloned().collect()
        };
        assert_eq!(of(&given), of(&committed), "{tenant}");
    }
    assert_eq!(given.len(), committed.len());
    given_of_globex.extend(news(&mut of_globex).await.0);
    assert_eq!(given_of_globex, (10..20).map(|round| format!("globex {round}")).collect::<Vec<_>>());
    assert_eq!(of_globex.lanes().count(), 1, "no key of another lane was asked for");
    assert_eq!(news(&mut all).await, (vec![], Some(State::Complete)), "and it stays so");
    assert!(all.pending_bytes() > 0, "the end and the footer");
}

/// A segment of one lane with commits, and where each of its blocks begins.
async fn committed(home: &Home) -> (Vec<u8>, Vec<(usize, BlockHeader)>) {
    let mut writer = home.writer(options()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    for number in 0..60 {
        writer.append(lane, format!("record {number}").as_bytes(), Stamp::default()).unwrap();
        if number % 7 == 6 {
            writer.commit(b"").unwrap();
        }
    }
    let (bytes, _) = writer.finish().await.unwrap();
    let id = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap().id;
    let (mut at, mut blocks) = (SegmentHeader::BYTES, Vec::new());
    while at < bytes.len() {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &id).unwrap();
        blocks.push((at, block));
        at += usize::try_from(block.block_bytes()).unwrap();
    }
    (bytes, blocks)
}

#[tokio::test]
async fn a_segment_that_was_cut_gives_what_a_commit_vouches_for_and_no_more() {
    let home = Home::of(&["acme"]).await;
    let (bytes, blocks) = committed(&home).await;
    let of = |kind| blocks.iter().filter(move |(_, block)| block.kind == kind);
    let begun = blocks[0].0 + usize::try_from(blocks[0].1.block_bytes()).unwrap();
    let mut most = 0;
    for cut in (begun..bytes.len()).step_by(37).chain(blocks.iter().map(|(at, _)| *at).skip(1)) {
        let mut follower =
            Follower::new(&home.domicile, &bytes[..cut], Purpose::Support, Selection::all()).await.unwrap();
        let (records, ended) = news(&mut follower).await;
        let expected: Vec<_> = (0..records.len()).map(|number| format!("record {number}")).collect();
        assert_eq!(records, expected, "cut at {cut}");
        let commits = of(BlockKind::Commit)
            .filter(|(at, block)| at + usize::try_from(block.block_bytes()).unwrap() <= cut)
            .count();
        let ends = ended.is_some();
        // One commit says what the sync of the one before made durable.
        assert!(ends || records.len() <= 7 * commits.saturating_sub(1), "cut at {cut}");
        most = most.max(records.len());
    }
    assert_eq!(most, 60);
    let header = Follower::new(&home.domicile, &bytes[..112], Purpose::Support, Selection::all()).await;
    assert_eq!(header.unwrap_err().code(), Code::SegmentUnfinished);
}

#[tokio::test]
async fn what_was_on_disk_and_does_not_verify_is_told() {
    let home = Home::of(&["acme"]).await;
    let (bytes, blocks) = committed(&home).await;
    let data: Vec<_> = blocks.iter().filter(|(_, block)| block.kind == BlockKind::Data).collect();
    let (at, block) = *data[data.len() / 2];
    let mut changed = bytes.clone();
    changed[at + BlockHeader::BYTES] ^= 1;
    let without = [&bytes[..at], &bytes[at + usize::try_from(block.block_bytes()).unwrap()..]].concat();
    for (bytes, code) in [(changed, Code::BlockUnverified), (without, Code::SegmentCorrupt)] {
        let mut follower =
            Follower::new(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
        let error = loop {
            match follower.next().await {
                Ok(News::Block(..)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), code);
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        succeed(program().arg("init").arg(place.path()));
        let at_home = ["home", "choose", "acme", "voice", "--region", "eu-central-1"];
        succeed(program().current_dir(&place).args(at_home));
        Self(place)
    }

    fn recording(&self) -> Child {
        let arguments = ["seal", "-", "--tenant", "acme", "--type", "voice", "--acknowledge", "-o", "out"];
        let mut command = program();
        command.current_dir(&self.0).args(arguments).args(["--commit-interval", "2ms"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn following(&self, segment: &Path) -> Child {
        let mut command = program();
        command.current_dir(&self.0).args(["open", "--follow", "--purpose", "support"]).arg(segment);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn segments_in(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { segments_in(&path) } else { 1 }).sum()
}

fn segment_in(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries.map(|entry| entry.unwrap().path()).find_map(|path| match path.is_dir() {
        true => segment_in(&path),
        false => path.extension().is_some_and(|ending| ending == "dseg").then_some(path),
    })
}

/// The program follows another one, which ends or is killed.
#[test]
fn the_program_prints_what_another_one_records_until_it_ends_or_dies() {
    for killed in [false, true] {
        let place = Place::new();
        let mut recording = place.recording();
        let mut stdin = recording.stdin.take().unwrap();
        let mut acknowledged = BufReader::new(recording.stdout.take().unwrap()).lines();
        let mut safe = |until: u64| {
            while acknowledged.next().unwrap().unwrap().trim().parse::<u64>().unwrap() < until {}
        };
        writeln!(stdin, "record 0").unwrap();
        safe(1);
        let segment = segment_in(&place.0.path().join("out")).unwrap();
        let mut following = place.following(&segment);
        let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
        for number in 1..200 {
            writeln!(stdin, "record {number}").unwrap();
            safe(number + 1);
            // The commit of this record vouches for the one before.
            assert_eq!(printed.next().unwrap().unwrap(), format!("record {}", number - 1));
        }
        // And where the recorder falls idle, it says so of the last one.
        assert_eq!(printed.next().unwrap().unwrap(), "record 199");
        if killed {
            recording.kill().unwrap();
        }
        drop(stdin);
        recording.wait().unwrap();
        let rest: Vec<_> = printed.map(|line| line.unwrap()).collect();
        let exit = following.wait_with_output().unwrap();
        let said = String::from_utf8(exit.stderr).unwrap();
        if killed {
            assert_eq!((exit.status.code(), rest.len()), (Some(5), 0), "{said}");
            assert!(said.contains("error[segment/unfinished]"), "{said}");
        } else {
            assert_eq!((exit.status.code(), rest.len()), (Some(0), 0), "{said}");
        }
    }
}

/// The record behind a crash.
const CRASH: usize = 90;

/// What a recorder does in a directory that the program follows: segments come one after another, a crash is recovered from, and
/// what was rolled over is compacted.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_follows_a_directory_over_roll_overs_and_a_crash() {
    let place = Place::new();
    let domicile = Domicile::open(place.0.path().join("domicile.toml")).await.unwrap();
    let directory = place.0.path().join("out");
    let recorder = |compact| {
        let mut options = RecorderOptions::default();
        (options.segment_bytes, options.compact) = (8 << 10, compact);
        options.commit_interval = Duration::from_millis(5);
        Recorder::with_options(&domicile, &directory, options)
    };
    // The first record stands there before anybody follows.
    let mut recording = recorder(false).await.unwrap();
    let mut lane = recording.scope(&scope("acme")).await.unwrap();
    lane.append(domicile.now(), b"record 0\n").await.unwrap();
    recording.commit().await.unwrap();
    let mut following = place.following(&directory);
    let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut printed = |numbers: std::ops::RangeInclusive<usize>| {
        let mut all: Vec<_> = numbers.clone().map(|_| printed.next().unwrap().unwrap()).collect();
        if numbers.contains(&CRASH) {
            // What the crash left is given when it is closed, and the next segment may be there by then.
            all.sort_by_key(|line| line.trim_start_matches("record ").parse::<usize>().unwrap());
        }
        assert_eq!(all, numbers.map(|number| format!("record {number}")).collect::<Vec<_>>());
    };
    printed(0..=0);
    for number in 1..180 {
        if number == CRASH {
            assert!(segments_in(&directory) > 1, "one has followed another");
            // A crash, and another recorder that finds what it left.
            drop((lane, recording));
            recording = recorder(true).await.unwrap();
            recording.recovered().await;
            lane = recording.scope(&scope("acme")).await.unwrap();
        }
        lane.append(domicile.now(), format!("record {number}\n").as_bytes()).await.unwrap();
        recording.commit().await.unwrap();
        if number % 50 == 0 {
            // And falls idle, which says so of all of them.
            printed(number - 49..=number);
        }
    }
    recording.close().await.unwrap();
    printed(151..=179);
    following.kill().unwrap();
    let said = String::from_utf8(following.wait_with_output().unwrap().stderr).unwrap();
    assert!(!said.contains("error["), "{said}");
}

/// What a post sealed lies in a directory that is followed: it is given once it is adopted, and nothing is said against it before.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_followed_gives_what_a_post_sealed_once_it_is_adopted() {
    let place = Place::new();
    let domicile = Domicile::open(place.0.path().join("domicile.toml")).await.unwrap();
    let post = enrolled(&domicile, "writer-1", &["acme/voice"], Arc::new(SystemClock)).await;
    let mut bytes = Vec::new();
    let mut writer = SegmentWriter::create_at_post(&post, &mut bytes, options()).await.unwrap();
    let month = post.period(&scope("acme").record_type, post.now()).unwrap();
    let lane = Descriptor::new(scope("acme"), month, Suite::default());
    let lane = writer.open_lane(lane, b"").await.unwrap();
    for number in 0..50 {
        writer.append(lane, format!("record {number}\n").as_bytes(), Stamp::default()).unwrap();
    }
    let path = place.0.path().join("out").join(writer.header().path());
    // It is still written, as far as anybody knows.
    writer.commit(b"").unwrap();
    drop(writer);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let mut following = place.following(&place.0.path().join("out"));
    let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
    std::thread::sleep(Duration::from_millis(1_200));
    domicile_record::recover(&domicile, &path).await.unwrap();
    for number in 0..50 {
        assert_eq!(printed.next().unwrap().unwrap(), format!("record {number}"));
    }
    following.kill().unwrap();
    let said = String::from_utf8(following.wait_with_output().unwrap().stderr).unwrap();
    assert!(!said.contains("error["), "{said}");
}

#[tokio::test]
async fn a_follower_goes_on_in_the_file_that_a_recovery_made() {
    let home = Home::of(&["acme"]).await;
    let (bytes, blocks) = committed(&home).await;
    let cut = &bytes[..blocks[blocks.len() / 2].0];
    let mut before = Follower::new(&home.domicile, cut, Purpose::Support, Selection::all()).await.unwrap();
    let (mut records, ended) = news(&mut before).await;
    assert_eq!(ended, None);
    let path = home.directory.path().join("cut.dseg");
    std::fs::write(&path, cut).unwrap();
    domicile_record::recover(&home.domicile, &path).await.unwrap();
    let after = Follower::new(&home.domicile, File::open(&path).unwrap(), Purpose::Support, Selection::all());
    let mut after = after.await.unwrap().passing(before.position());
    let (more, ended) = news(&mut after).await;
    assert_eq!(ended, Some(State::Recovered));
    assert!(!records.is_empty() && !more.is_empty());
    records.extend(more);
    let expected: Vec<_> = (0..records.len()).map(|number| format!("record {number}")).collect();
    assert_eq!(records, expected);
}
