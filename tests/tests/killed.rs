//! The program is killed while it records, at moments that nobody chose: what it said to be safe is safe, and nothing is
//! invented.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use domicile::{Domicile, Purpose};
use domicile_record::{Segment, Selection};
use domicile_tests::long_form;
use domicile_tests::program::{acknowledging, program, succeed};

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(segments(&path)) } else { found.push(path) }
    }
    found
}

/// The records that a run left behind, in their order.
async fn left(domicile: &Domicile, directory: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = Vec::new();
    for path in segments(directory) {
        let bytes = std::fs::read(path).unwrap();
        let opened = Segment::open_source(domicile, &bytes[..], Purpose::Support, Selection::all()).await;
        let Ok(segment) = opened else { continue };
        for block in segment.blocks() {
            let Ok(block) = block else { continue };
            let number =
                |record: &[u8]| std::str::from_utf8(record).unwrap().trim_end().parse::<u64>().unwrap();
            numbers.extend(block.records().map(number));
        }
    }
    numbers.sort_unstable();
    numbers
}

/// Has what a kill left closed: by a process that is killed as well, and then by one that is not.
fn close(place: &Path, out: &Path, killed_after: Duration) {
    let mut child = program()
        .current_dir(place)
        .arg("recover")
        .arg(out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(killed_after);
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(program().current_dir(place).arg("recover").arg(out));
    succeed(program().current_dir(place).arg("verify").arg(out));
}

/// The program, which acknowledges numbers, and the thread that feeds them to it until it ends.
fn recording(place: &Path, out: &Path) -> (Child, JoinHandle<()>) {
    let mut child = acknowledging(program(), place, "2ms", out);
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let mut text = String::new();
        for from in (0..).step_by(100) {
            text.clear();
            (from..from + 100).for_each(|number| text += &format!("{number}\n"));
            if stdin.write_all(text.as_bytes()).is_err() {
                break;
            }
        }
    });
    (child, feeding)
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_kill() {
    let place = tempfile::tempdir().unwrap();
    succeed(program().arg("init").arg(place.path()));
    let at_home = ["home", "choose", "acme", "voice", "--region", "eu-central-1"];
    succeed(program().current_dir(&place).args(at_home));
    let domicile = Domicile::open(place.path().join("domicile.toml")).await.unwrap();
    let (mut acknowledged, mut appended) = (0, 0);
    let mut seed = 11_u64;
    for round in 0..if long_form() { 1_000 } else { 40 } {
        let out = place.path().join(format!("out-{round}"));
        let (mut child, feeding) = recording(place.path(), &out);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (first, began) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut safe = 0;
            for line in stdout.lines() {
                // The last line may be cut, as the process was.
                let Some(number) = line.ok().and_then(|line| line.parse::<u64>().ok()) else { break };
                assert!(number > safe, "acknowledgements grow");
                safe = number;
                let _ = first.send(());
            }
            safe
        });
        began.recv_timeout(Duration::from_secs(60)).unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((seed >> 33) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let safe = reading.join().unwrap();
        feeding.join().unwrap();
        close(place.path(), &out, Duration::from_micros((seed >> 23) % 12_000));
        let found = left(&domicile, &out).await;
        assert!(found.len() as u64 >= safe, "round {round}: {} of {safe} acknowledged", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "round {round}");
        acknowledged += safe;
        appended += found.len() as u64;
    }
    assert!(acknowledged > 0 && appended >= acknowledged);
}

#[test]
fn an_input_that_ends_is_acknowledged_whole_and_its_segment_is_complete() {
    let place = tempfile::tempdir().unwrap();
    succeed(program().arg("init").arg(place.path()));
    succeed(program().current_dir(&place).args([
        "home",
        "choose",
        "acme",
        "voice",
        "--region",
        "eu-central-1",
    ]));
    let mut child = program()
        .current_dir(&place)
        .args(["seal", "-", "--tenant", "acme", "--type", "voice", "--acknowledge", "-o", "out"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = |until: u64| {
        let mut line = String::new();
        while line.trim_end().parse::<u64>().unwrap_or(0) < until {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended before {until} were safe");
        }
        line.trim_end().parse::<u64>().unwrap()
    };
    // A record is acknowledged while the input goes on, without another behind it.
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(acknowledged(1), 1);
    stdin.write_all(b"two\nthree\n").unwrap();
    drop(stdin);
    assert_eq!(acknowledged(3), 3);
    assert!(child.wait().unwrap().success());
    let sealed = segments(&place.path().join("out"));
    assert_eq!(sealed.len(), 1);
    succeed(program().current_dir(&place).arg("verify").arg(&sealed[0]));
    let opened = succeed(program().current_dir(&place).args(["open", "out", "--purpose", "support"]));
    assert_eq!(opened, b"one\ntwo\nthree\n");
}

/// A place whose writer is a post of its own region, too.
fn with_a_post(place: &Path) {
    succeed(program().arg("init").arg(place));
    let run = |arguments: &[&str]| succeed(program().current_dir(place).args(arguments));
    run(&["home", "choose", "acme", "voice", "--region", "eu-central-1"]);
    let config = std::fs::read_to_string(place.join("domicile.toml")).unwrap();
    let (_, of_region) = config.split_once("[regions.eu-central-1]").unwrap();
    let (_, key) = of_region.split_once("signing_key = \"").unwrap();
    let home = format!("eu-central-1={}", key.split_once('"').unwrap().0);
    run(&["post", "init", "writer-1", "--home", &home, "-o", "writer-1.key"]);
    run(&["post", "enrol", "writer-1", "--key", "writer-1.key.pub", "--scope", "acme/voice"]);
    run(&["post", "export", "own.bundle"]);
    let post = "\n[post]\nidentity = \"writer-1.key\"\nbundles = [\"own.bundle\"]\n";
    std::fs::write(place.join("domicile.toml"), config + post).unwrap();
}

/// The key service is away while the program records, and it is killed: its home adopts what it left, and finds all of it.
#[tokio::test]
async fn what_was_acknowledged_in_an_outage_survives_every_kill_and_comes_home() {
    let place = tempfile::tempdir().unwrap();
    with_a_post(place.path());
    let (root, away) = (place.path().join("keys/eu-central-1.root"), place.path().join("root"));
    let domicile = Domicile::open(place.path().join("domicile.toml")).await.unwrap();
    let mut seed = 13_u64;
    for round in 0..if long_form() { 300 } else { 12 } {
        std::fs::rename(&root, &away).unwrap();
        let out = place.path().join(format!("out-{round}"));
        let (mut child, feeding) = recording(place.path(), &out);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut safe, mut line) = (0, String::new());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..1 + (seed >> 33) % 20 {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "round {round}: it ended");
            safe = line.trim_end().parse::<u64>().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        feeding.join().unwrap();
        // Without the key nothing of it opens, and nothing is changed.
        let refused = program().current_dir(&place).arg("recover").arg(&out).output().unwrap();
        assert!(!refused.status.success(), "round {round}");
        std::fs::rename(&away, &root).unwrap();
        close(place.path(), &out, Duration::from_micros((seed >> 23) % 12_000));
        let found = left(&domicile, &out).await;
        assert!(found.len() as u64 >= safe, "round {round}: {} of {safe} acknowledged", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "round {round}");
    }
}
