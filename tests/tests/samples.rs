//! Every sample file, the project's own and those of real systems where they lie beside it: sealed, verified, and
//! opened again octet for octet, whatever it is taken for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that leaves something out says so"
)]

use domicile::engine::Suite;
use domicile::{Purpose, Region, Result};
use domicile_record::framing::Choice;
use domicile_record::{Intake, IntakeOptions, Outlet, Scoping, Segment, Selection, WriterOptions, verify};
use domicile_tests::program::{all_samples, program, samples, succeed};
use domicile_tests::{Home, scope};

struct InMemory;

impl Outlet for InMemory {
    type Sink = Vec<u8>;

    fn open(&mut self, _: &Region) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

async fn sealed(home: &Home, options: IntakeOptions, inputs: &[&[u8]]) -> Vec<u8> {
    let mut intake = Intake::new(&home.domicile, options, InMemory);
    for input in inputs {
        intake.read(*input).await.unwrap();
    }
    intake.finish().await.unwrap().segments.pop().unwrap().0
}

async fn opened(home: &Home, segment: &[u8], selection: Selection) -> Vec<u8> {
    let segment = Segment::open_source(&home.domicile, segment, Purpose::Support, selection).await.unwrap();
    let mut output = Vec::new();
    let restored = segment.restore(&mut output).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    output
}

#[test]
fn every_sample_goes_through_the_program_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let domicile = || {
        let mut command = program();
        command.current_dir(&directory);
        command
    };
    succeed(domicile().arg("init"));
    succeed(domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
    let files = all_samples();
    assert!(files.len() >= 16, "{files:?}");
    for file in files {
        let name = file.display().to_string();
        // The record type that its name begins with, or whatever it is.
        let kind = file.file_name().unwrap().to_string_lossy().to_string();
        let kind: String = kind.chars().take_while(char::is_ascii_lowercase).collect();
        let seal = ["--tenant", "acme", "--type", &kind, "-o", "sealed.dseg", "--force"];
        succeed(domicile().arg("seal").arg(&file).args(seal));
        succeed(domicile().args(["verify", "sealed.dseg"]));
        let output = succeed(domicile().args(["open", "sealed.dseg", "--purpose", "portability"]));
        assert!(output == std::fs::read(&file).unwrap(), "{name} came out different");
    }
}

#[tokio::test]
async fn every_sample_comes_back_whatever_it_is_taken_for() {
    let home = Home::of(&["acme"]).await;
    for file in all_samples() {
        let input = std::fs::read(&file).unwrap();
        for framing in Choice::ALL {
            for (suite, block_bytes) in [(Suite::Aes256Gcm, 64 << 10), (Suite::ChaCha20Poly1305, 700)] {
                let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
                options.framing = framing;
                options.writer = WriterOptions { suite, block_bytes, ..WriterOptions::default() };
                let segment = sealed(&home, options, &[&input]).await;
                let context = format!("{} as {framing}, {suite}", file.display());
                assert!(
                    opened(&home, &segment, Selection::all()).await == input,
                    "{context} came out different"
                );
                let verified = verify(&home.domicile, &segment[..], None).await.unwrap();
                assert!(verified.is_complete(), "{context}: {verified:#?}");
            }
        }
    }
}

#[tokio::test]
async fn all_samples_together_come_back_one_after_the_other() {
    let home = Home::of(&["acme"]).await;
    let inputs: Vec<_> = all_samples().iter().map(|file| std::fs::read(file).unwrap()).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(|input| &input[..]).collect();
    let segment = sealed(&home, IntakeOptions::new(Scoping::One(scope("acme"))), &inputs).await;
    assert!(opened(&home, &segment, Selection::all()).await == inputs.concat());
}

/// Which sample has its event time where.
const TIMES: [(&str, &str); 9] = [
    ("voice.csv", "start_time"),
    ("voice-no-header.csv", "6"),
    ("messaging-newlines.csv", "start_time"),
    ("wireless.jsonl", "start_time"),
    ("conference.json", "start_time"),
    ("call-control.events", "Event-Date-Timestamp"),
    ("voice-asterisk.csv", "10"),
    ("verify-twilio.jsonl", "date_created"),
    ("call-recording-twilio.jsonl", "date_created"),
];

#[tokio::test]
async fn event_times_are_read_where_real_systems_keep_them_and_select() {
    let home = Home::of(&["acme"]).await;
    let files = all_samples();
    for (name, field) in TIMES {
        let Some(file) = files.iter().find(|file| file.file_name().unwrap() == name) else {
            assert!(!samples().join(name).exists());
            eprintln!("SKIPPED: {name}");
            continue;
        };
        let input = std::fs::read(file).unwrap();
        let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
        options.time = Some(field.to_owned());
        options.backfill =
            Some("1900-01-01T00:00:00Z".parse().unwrap().."2200-01-01T00:00:00Z".parse().unwrap());
        let segment = sealed(&home, options, &[&input]).await;
        assert!(opened(&home, &segment, Selection::all()).await == input, "{name} came out different");
        let verified = verify(&home.domicile, &segment[..], None).await.unwrap();
        assert!(verified.is_complete(), "{name}: {verified:#?}");

        // Before, from and after an instant in the middle is everything, once each.
        let blocks =
            Segment::open_source(&home.domicile, &segment[..], Purpose::Support, Selection::all()).await;
        let mut times = Vec::new();
        for block in blocks.unwrap().blocks() {
            let block = block.unwrap();
            times.extend((0..block.len()).map(|index| block.time(index).unwrap()));
        }
        times.sort_unstable();
        let middle = domicile::Time::from_micros(times[times.len() / 2]).unwrap();
        let mut count = 0;
        for selection in [Selection::all().to(middle), Selection::all().from(middle)] {
            let segment =
                Segment::open_source(&home.domicile, &segment[..], Purpose::Support, selection).await;
            count += segment.unwrap().restore(&mut Vec::new()).unwrap().records;
        }
        assert_eq!(count, times.len() as u64, "{name}");
    }
}
