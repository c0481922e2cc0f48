//! Generated records of many tenants through `seal --route`: each lands in the directory of its home and nowhere else, and
//! counts and octets add up. 200,000 of them, and a million in the long form (`DOMICILE_LONG`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that leaves something out says so"
)]

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use domicile_samples::{Format, Generator, Options};
use domicile_tests::long_form;
use domicile_tests::program::{peak_memory, program, shared_samples, succeed};
use serde_json::Value;

const TENANTS: u32 = 500;

const REGIONS: [(&str, &str); 6] = [
    ("eu-central-1", "EU"),
    ("eu-west-1", "EU"),
    ("eu-west-2", "GB"),
    ("us-east-1", "US"),
    ("us-west-2", "US"),
    ("ap-southeast-2", "AU"),
];

/// Sealing takes as much memory as the open blocks of each region's segment may, 32 MiB, and what is known of each scope
/// and lane.
const MEMORY_BYTES_MAX: u64 = (6 * 32 + 64) << 20;

/// A place with six regions; `law_of` says in which jurisdiction each lies.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(law_of: impl Fn(&str, &str) -> String, homes: &Path) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        let regions = REGIONS
            .iter()
            .flat_map(|(name, law)| ["--region".to_owned(), format!("{name}={}", law_of(name, law))]);
        succeed(place.domicile().arg("init").arg(".").args(regions).args(["--here", "eu-central-1"]));
        succeed(place.domicile().args(["home", "choose", "--from"]).arg(homes));
        place
    }

    fn domicile(&self) -> Command {
        let mut command = program();
        command.current_dir(&self.directory);
        command
    }

    /// Seals what `input` holds by the columns of both generators.
    fn seal(&self, input: impl FnOnce(&mut dyn Write), elsewhere: &str) -> Value {
        let mut child = self
            .domicile()
            .args([
                "seal",
                "-",
                "--route",
                "tenant=tenant,type=record_type",
                "--time",
                "start_time",
                "--backfill",
                "1900-01-01..2200-01-01",
            ])
            .args(["-o", "sealed", "--json", "--elsewhere", elsewhere])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        // The answer is longer than a pipe holds: it is read while it is written.
        let answer = std::thread::spawn(move || serde_json::from_reader(said).unwrap());
        input(&mut pipe);
        drop(pipe);
        let (peak, exit) = peak_memory(&mut child);
        assert!(exit.success(), "{exit}");
        assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "{peak} octets of memory");
        answer.join().unwrap()
    }

    /// Everything that a directory of segments opens to, as CSV, read while it comes.
    fn open(&self, directory: &Path) -> Child {
        self.domicile()
            .arg("open")
            .arg(directory)
            .args(["--purpose", "verification"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Holds every record of every region's directory against its home; returns how many there are.
    fn check(&self, homes: &HashMap<(String, String), String>) -> (u64, u64) {
        let sealed = self.directory.path().join("sealed");
        let (mut records, mut regions) = (0, 0);
        for entry in std::fs::read_dir(&sealed).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let region = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(REGIONS.iter().any(|(name, _)| *name == region), "{region} is no region");
            let mut child = self.open(&path);
            let mut rows = csv::Reader::from_reader(BufReader::new(child.stdout.take().unwrap()));
            let column = |name: &str, header: &csv::ByteRecord| {
                header.iter().position(|column| column == name.as_bytes()).unwrap()
            };
            let header = rows.byte_headers().unwrap().clone();
            let (tenant, kind) = (column("tenant", &header), column("record_type", &header));
            let mut row = csv::ByteRecord::new();
            let mut known: HashMap<(Vec<u8>, Vec<u8>), bool> = HashMap::new();
            while rows.read_byte_record(&mut row).unwrap() {
                let scope = (row[tenant].to_vec(), row[kind].to_vec());
                let at_home = known.entry(scope).or_insert_with_key(|(tenant, kind)| {
                    let text = |octets: &Vec<u8>| String::from_utf8(octets.clone()).unwrap();
                    homes.get(&(text(tenant), text(kind))) == Some(&region)
                });
                assert!(*at_home, "{region} holds a record of {}", String::from_utf8_lossy(&row[tenant]));
                records += 1;
            }
            assert!(child.wait().unwrap().success());
            regions += 1;
        }
        succeed(self.domicile().args(["verify", "sealed"]));
        (records, regions)
    }
}

/// Where each scope is at home, from CSV of tenant,record_type,region and perhaps more.
fn homes(csv: &[u8]) -> HashMap<(String, String), String> {
    let mut rows = csv::Reader::from_reader(csv);
    let rows = rows.records().map(Result::unwrap);
    rows.map(|row| ((row[0].to_owned(), row[1].to_owned()), row[2].to_owned())).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The sum of a field over a list of the answer.
fn sum(answer: &Value, list: &str, field: &str) -> u64 {
    answer[list].as_array().unwrap().iter().map(|entry| number(&entry[field])).sum()
}

fn records() -> u64 {
    if long_form() { 1_000_000 } else { 200_000 }
}

/// Seals everything twice: where all regions lie in one jurisdiction, into six directories; and where they lie
/// as they do, into those of the EU, the others left out and counted.
fn check_stream(list: &[u8], stream: impl Fn(&mut dyn Write)) {
    let scopes = homes(list);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, list).unwrap();

    let place = Place::new(|_, _| "EU".to_owned(), file.path());
    let answer = place.seal(&stream, "refuse");
    assert_eq!(number(&answer["records"]), records());
    assert_eq!(sum(&answer, "segments", "records"), records());
    assert_eq!(sum(&answer, "segments", "bytes"), number(&answer["bytes"]));
    assert_eq!(place.check(&scopes), (records(), 6));

    let place = Place::new(|_, law| law.to_owned(), file.path());
    let skipping = place.seal(&stream, "skip");
    let sealed = number(&skipping["records"]);
    assert!(sealed > 0 && sealed < records());
    assert_eq!(sealed + sum(&skipping, "skipped", "records"), records());
    let left_out = sum(&skipping, "skipped", "bytes");
    assert_eq!(number(&skipping["bytes"]) + left_out, number(&answer["bytes"]));
    assert_eq!(place.check(&scopes), (sealed, 2));
}

#[test]
fn records_of_the_projects_generator_land_in_their_homes() {
    let generator = Generator::new(Options { tenants: TENANTS, ..Options::default() }).unwrap();
    let mut list = b"tenant,record_type,region\n".to_vec();
    for scope in generator.scopes() {
        writeln!(list, "{scope}").unwrap();
    }
    check_stream(&list, |out| {
        out.write_all(Format::Csv.header()).unwrap();
        let mut batch = Vec::new();
        for from in (0..records()).step_by(10_000) {
            batch.clear();
            generator.write(Format::Csv, from..from + 10_000, &mut batch);
            out.write_all(&batch).unwrap();
        }
    });
}

#[test]
fn records_of_another_generator_land_in_their_homes() {
    let Some(script) =
        shared_samples().map(|folder| folder.join("generate.py")).filter(|path| path.is_file())
    else {
        eprintln!("SKIPPED: there is no other generator beside the repository");
        return;
    };
    let tenants = TENANTS.to_string();
    let generate = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(&script).args(["--tenants", &tenants]).args(arguments);
        command
    };
    let list = succeed(&mut generate(&["--list-scopes"]));
    check_stream(&list, |out| {
        let count = records().to_string();
        let mut child = generate(&["--count", &count, "--format", "csv", "--csv-newlines"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::copy(&mut child.stdout.take().unwrap(), out).unwrap();
        assert!(child.wait().unwrap().success());
    });
}
