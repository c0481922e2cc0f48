//! The second reader: written in Python from the specification alone, it opens and verifies what the
//! program wrote, and refuses what was damaged.
//!
//! It needs a Python with the package `cryptography`: `scripts/test` makes one and names it in
//! DOMICILE_PYTHON. Without that, the python3 of this machine is tried, and its absence said.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that is skipped says so"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use domicile::engine::Suite;
use domicile::{Domicile, SystemClock};
use domicile_record::format::Descriptor;
use domicile_record::{RecordContext, SealedRecords, SegmentWriter, Stamp, WriterOptions};
use domicile_tests::away::enrolled;
use domicile_tests::program::{program, repository, samples, succeed};
use domicile_tests::{hex, scope, unhex};

/// Samples are of any time.
const BACKFILL: &str = "--backfill";
const EVER: &str = "1000-01-01..3000-01-01";

/// The Python to use; `None` where there is none and nobody named one.
fn python() -> Option<PathBuf> {
    let (python, named) = match std::env::var_os("DOMICILE_PYTHON") {
        Some(python) => (PathBuf::from(python), true),
        None => (PathBuf::from("python3"), false),
    };
    let works = Command::new(&python).args(["-c", "import cryptography, tomllib"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    assert!(works || !named, "{} has no package `cryptography`", python.display());
    if !works {
        eprintln!("SKIPPED: python3 has no package `cryptography`; scripts/test makes one that has");
    }
    works.then_some(python)
}

struct Place {
    directory: tempfile::TempDir,
    python: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let python = python()?;
        let directory = tempfile::tempdir().unwrap();
        succeed(program().arg("init").arg(directory.path()));
        let place = Self { directory, python };
        succeed(place.domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
        succeed(place.domicile().args(["home", "choose", "globex", "all", "--region", "eu-central-1"]));
        Some(place)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn domicile(&self) -> Command {
        let mut command = program();
        command.current_dir(self.path());
        command
    }

    fn reader(&self, command: &str, file: &Path) -> Command {
        let mut reader = Command::new(&self.python);
        reader.arg(repository().join("tests/interop/reader.py")).arg(command).arg(self.path()).arg(file);
        reader
    }

    fn seal(&self, name: &str, arguments: &[&str], inputs: &[PathBuf]) -> PathBuf {
        let sealed = self.path().join(format!("{name}.dseg"));
        succeed(
            self.domicile()
                .arg("seal")
                .args(inputs)
                .args(["--tenant", "acme", "--type", "voice"])
                .args(arguments)
                .arg("-o")
                .arg(&sealed),
        );
        sealed
    }
}

#[test]
fn it_opens_and_verifies_what_the_program_sealed() {
    let Some(place) = Place::new() else { return };
    let sample = |name: &str| samples().join(name);
    let whole_year = place.path().join("year.csv");
    let generator = domicile_samples::Generator::new(domicile_samples::Options {
        step_micros: 30_000_000_000,
        ..domicile_samples::Options::default()
    });
    let csv = generator.unwrap().file(domicile_samples::Format::Csv, 0..1000);
    std::fs::write(&whole_year, csv).unwrap();
    // A lane a month, and more of them than one page of a footer holds.
    let many_months = place.path().join("months.csv");
    let generator = domicile_samples::Generator::new(domicile_samples::Options {
        step_micros: 2_700_000_000_000,
        ..domicile_samples::Options::default()
    });
    let csv = generator.unwrap().file(domicile_samples::Format::Csv, 0..70);
    std::fs::write(&many_months, csv).unwrap();
    let long = place.path().join("long.bin");
    let octets: Vec<u8> =
        (0..700_000u32).flat_map(|number| number.wrapping_mul(number).to_be_bytes()).collect();
    std::fs::write(&long, octets).unwrap();

    let mut cases: Vec<(String, Vec<&str>, Vec<PathBuf>)> = std::fs::read_dir(samples())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind != "rs" && kind != "toml" && kind != "md"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), vec![], vec![path]))
        .collect();
    assert!(cases.len() > 10, "the samples are there");
    cases.push(("year".into(), vec!["--time", "start_time", BACKFILL, EVER], vec![whole_year]));
    cases.push(("months".into(), vec!["--time", "start_time", BACKFILL, EVER], vec![many_months]));
    cases.push(("two".into(), vec![], vec![sample("voice.csv"), sample("wireless.jsonl")]));
    cases.push(("long".into(), vec!["--framing", "whole"], vec![long]));
    cases.push(("compressed".into(), vec!["--compress"], vec![sample("mixed.csv")]));
    cases.push(("chacha".into(), vec!["--suite", "chacha20-poly1305"], vec![sample("conference.json")]));
    for (name, arguments, inputs) in cases {
        let sealed = place.seal(&name, &arguments, &inputs);
        let expected: Vec<u8> = inputs.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
        assert!(succeed(&mut place.reader("open", &sealed)) == expected, "{name} came out different");
        let report = succeed(&mut place.reader("check", &sealed));
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let lanes = report["lanes"].as_array().unwrap();
        assert!(name != "months" || lanes.len() > 29, "{} lanes need no second page", lanes.len());
        let records: u64 =
            report["lanes"].as_array().unwrap().iter().map(|lane| lane["records"].as_u64().unwrap()).sum();
        let ours = succeed(place.domicile().arg("verify").arg(&sealed).arg("--json"));
        let ours: serde_json::Value = serde_json::from_slice(&ours).unwrap();
        assert_eq!(ours["records"].as_u64(), Some(records), "{name}");
        assert_eq!(ours["segment"], report["segment"], "{name}");
    }
}

/// SEG-40 to SEG-45 and SEG-51, as far as a reader goes.
#[tokio::test]
async fn it_opens_what_posts_sealed_once_it_is_adopted_whether_it_had_an_end_or_not() {
    let Some(place) = Place::new() else { return };
    let domicile = Domicile::open(place.path().join("domicile.toml")).await.unwrap();
    let post = enrolled(&domicile, "edge-7", &["acme/all"], Arc::new(SystemClock)).await;
    let mut bytes = Vec::new();
    let mut writer =
        SegmentWriter::create_at_post(&post, &mut bytes, WriterOptions::default()).await.unwrap();
    let month = post.period(&scope("acme").record_type, post.now()).unwrap();
    let lane = Descriptor::new(scope("acme"), month, Suite::default());
    let lane = writer.open_lane(lane, b"").await.unwrap();
    let mut on_disk = 0;
    for round in 0..2 {
        for number in 0..500 {
            writer.append(lane, format!("{round} {number}\n").as_bytes(), Stamp::default()).unwrap();
        }
        writer.commit(b"").unwrap();
        if round == 0 {
            on_disk = usize::try_from(writer.file_bytes()).unwrap();
        }
    }
    writer.finish().await.unwrap();
    domicile.close().await;
    let records = |rounds: u32| -> Vec<u8> {
        (0..rounds * 500).flat_map(|at| format!("{} {}\n", at / 500, at % 500).into_bytes()).collect()
    };

    // Before it is adopted, it is opened by nobody; cut short, it is adopted as far as it goes; whole, it takes that one's place.
    let (file, out) = (place.path().join("edge.dseg"), place.path().join("adopted"));
    for (length, expected, state) in [(on_disk + 60, records(1), 1), (bytes.len(), records(2), 0)] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let refused = place.reader("open", &file).output().unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty());
        let said =
            succeed(place.domicile().args(["post", "adopt"]).arg(&file).arg("-o").arg(&out).arg("--json"));
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["had_end"].as_bool(), Some(state == 0));
        let adopted = PathBuf::from(said["adopted"].as_str().unwrap());
        assert!(succeed(&mut place.reader("open", &adopted)) == expected);
        assert!(
            succeed(place.domicile().arg("open").arg(&adopted).args(["--purpose", "support"])) == expected
        );
        succeed(&mut place.reader("check", &adopted));
        succeed(place.domicile().arg("verify").arg(&adopted));
        if state == 1 {
            assert_eq!(std::fs::read(said["kept"].as_str().unwrap()).unwrap(), bytes[on_disk..length]);
        }
        // Again, and an earlier copy of it, change nothing.
        let before = std::fs::read(&adopted).unwrap();
        std::fs::write(&file, &bytes[..on_disk]).unwrap();
        succeed(place.domicile().args(["post", "adopt"]).arg(&file).arg("-o").arg(&out));
        assert!(std::fs::read(&adopted).unwrap() == before);
    }
}

#[tokio::test]
async fn it_opens_single_records_and_refuses_them_anywhere_else() {
    let Some(place) = Place::new() else { return };
    let domicile = Domicile::open(place.path().join("domicile.toml")).await.unwrap();
    let mut entries = Vec::new();
    for tenant in ["acme", "globex"] {
        let column =
            SealedRecords::new(&domicile, &scope(tenant), RecordContext::new(&["calls", "detail"]).unwrap());
        let mut sealer = column.sealer().await.unwrap();
        for (row, record) in [(1_i64, &b"+12015550102"[..]), (-2, b""), (3, &[7; 5_000])] {
            let mut cell = Vec::new();
            sealer.seal(row, record, &mut cell).unwrap();
            entries.push(serde_json::json!({
                "tenant": tenant, "type": "voice", "context": ["calls", "detail"],
                "row": hex(&row.to_be_bytes()), "sealed": hex(&cell), "expected": hex(record),
            }));
        }
    }
    domicile.close().await;
    let sealed = entries.len();
    let other = |entry: usize, field: &str, value: serde_json::Value| {
        let mut changed = entries[entry].clone();
        changed[field] = value;
        changed["expected"] = serde_json::json!("refused");
        changed
    };
    let mut changed = vec![
        other(0, "row", entries[1]["row"].clone()),
        other(0, "tenant", serde_json::json!("globex")),
        other(0, "type", serde_json::json!("fax")),
        other(0, "context", serde_json::json!(["calls", "summary"])),
        other(0, "context", serde_json::json!(["callsdetail"])),
        other(0, "sealed", serde_json::json!("00")),
    ];
    let octets = unhex(entries[0]["sealed"].as_str().unwrap());
    for bit in (0..octets.len() * 8).step_by(5) {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        changed.push(other(0, "sealed", serde_json::json!(hex(&flipped))));
    }
    entries.extend(changed);
    let file = place.path().join("records.json");
    std::fs::write(&file, serde_json::to_vec(&entries).unwrap()).unwrap();
    let mut reader = Command::new(&place.python);
    reader.arg(repository().join("tests/interop/records.py")).arg("open").arg(place.path()).arg(&file);
    let answers: Vec<String> = serde_json::from_slice(&succeed(&mut reader)).unwrap();
    assert_eq!(answers.len(), entries.len());
    for (number, (entry, answer)) in entries.iter().zip(&answers).enumerate() {
        let expected = entry["expected"].as_str().unwrap();
        if number < sealed {
            assert_eq!(answer, expected, "record {number}");
        } else {
            assert!(answer.starts_with("refused: "), "{entry}: {answer}");
        }
    }
}

#[test]
fn it_refuses_what_was_damaged() {
    let Some(place) = Place::new() else { return };
    let sealed = place.seal("small", &[], &[samples().join("empty.csv")]);
    let mut selftest = Command::new(&place.python);
    selftest.arg(repository().join("tests/interop/selftest.py")).arg(place.path()).arg(&sealed);
    let said = String::from_utf8(succeed(&mut selftest)).unwrap();
    assert!(said.ends_with("all refused\n"), "{said}");
}

#[test]
fn it_refuses_where_the_host_stands_elsewhere() {
    let Some(place) = Place::new() else { return };
    let sealed = place.seal("small", &[], &[samples().join("empty.csv")]);
    let configuration = std::fs::read_to_string(place.path().join("domicile.toml")).unwrap();
    let moved = configuration.replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
    std::fs::write(place.path().join("domicile.toml"), moved).unwrap();
    let refused = place.reader("open", &sealed).output().unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("us-east-1"));
}
