//! Two gibibytes through a pipe, sealed and opened in less than 100 MiB, however the records stand in it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; --nocapture shows how much it was"
)]

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use domicile_samples::{Format, Generator, Options};
use domicile_tests::program::{peak_memory, program, succeed};

const INPUT_BYTES: u64 = 2 << 30;
const MEMORY_BYTES_MAX: u64 = 100 << 20;

fn domicile(directory: &Path) -> Command {
    let mut command = program();
    command.current_dir(directory);
    command
}

/// FNV-1a over words of eight octets: enough to tell one stream from another.
#[derive(Default)]
struct Sum {
    hash: u64,
    octets: u64,
    rest: Vec<u8>,
}

impl Sum {
    fn add(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        self.rest.extend_from_slice(octets);
        let whole = self.rest.len() / 8 * 8;
        let (words, _) = self.rest.as_chunks::<8>();
        for word in words {
            self.hash = (self.hash ^ u64::from_be_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.rest.drain(..whole);
    }

    fn value(&self) -> (u64, u64, &[u8]) {
        (self.hash, self.octets, &self.rest)
    }
}

/// Seals a stream of pieces and opens it again, through pipes; both stay below the bound.
fn check(name: &str, arguments: &[&str], mut piece: impl FnMut(u64) -> Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    succeed(domicile(directory.path()).arg("init"));
    // Periods are short, so that many lanes are open at once where there are event times.
    let mut configuration =
        OpenOptions::new().append(true).open(directory.path().join("domicile.toml")).unwrap();
    configuration.write_all(b"\n[periods]\nvoice = \"day\"\n").unwrap();
    succeed(domicile(directory.path()).args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
    let mut sealing = domicile(directory.path())
        .args(["seal", "-", "--tenant", "acme", "--type", "voice", "-o", "large.dseg"])
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = sealing.stdin.take().unwrap();
    let watch = std::thread::spawn(move || peak_memory(&mut sealing));
    let (mut went_in, mut number) = (Sum::default(), 0);
    while went_in.octets < INPUT_BYTES {
        let octets = piece(number);
        went_in.add(&octets);
        pipe.write_all(&octets).unwrap();
        number += 1;
    }
    drop(pipe);
    let (sealing_peak, exit) = watch.join().unwrap();
    assert!(exit.success(), "{name}: {exit}");
    assert!(
        sealing_peak > 0 && sealing_peak < MEMORY_BYTES_MAX,
        "{name}: sealing took {sealing_peak} octets"
    );

    let mut opening = domicile(directory.path())
        .args(["open", "large.dseg", "--purpose", "verification"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = opening.stdout.take().unwrap();
    let watch = std::thread::spawn(move || peak_memory(&mut opening));
    let (mut came_out, mut buffer) = (Sum::default(), vec![0; 1 << 20]);
    while let Some(octets) = Some(pipe.read(&mut buffer).unwrap()).filter(|octets| *octets > 0) {
        came_out.add(&buffer[..octets]);
    }
    let (peak, exit) = watch.join().unwrap();
    assert!(exit.success(), "{name}: {exit}");
    assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "{name}: opening took {peak} octets");
    assert_eq!(went_in.value(), came_out.value(), "{name}: came out different");
    println!("{name}: sealed and opened in {} and {} MiB", sealing_peak >> 20, peak >> 20);
}

#[test]
fn records_of_one_scope() {
    let generator = Generator::new(Options { tenants: 1, ..Options::default() }).unwrap();
    check("csv", &[], |number| generator.file(Format::Csv, number * 3000..(number + 1) * 3000));
}

#[test]
fn records_of_two_years_in_a_lane_a_day() {
    let options = Options { tenants: 1, step_micros: 14_000_000, ..Options::default() };
    let generator = Generator::new(options).unwrap();
    let mut octets = Vec::new();
    check("a lane a day", &["--time", "start_time", "--backfill", "1000-01-01..3000-01-01"], |number| {
        octets.clear();
        generator.write(Format::Jsonl, number * 2000..(number + 1) * 2000, &mut octets);
        octets.clone()
    });
}

/// Two hundred and fifty years, a lane a month, and records that come from all of them in turn: every lane is open, and
/// none has much.
#[test]
fn three_thousand_lanes_at_once() {
    const RECORDS_OF_EACH: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    succeed(domicile(directory.path()).arg("init"));
    succeed(domicile(directory.path()).args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
    let mut input = Vec::new();
    for number in 0..RECORDS_OF_EACH {
        for month in 0..3000 {
            let (year, month) = (1800 + month / 12, 1 + month % 12);
            writeln!(
                input,
                r#"{{"start_time":"{year:04}-{month:02}-03T00:00:00Z","number":"{number:0250}"}}"#
            )
            .unwrap();
        }
    }
    std::fs::write(directory.path().join("months.jsonl"), &input).unwrap();
    let mut sealing = domicile(directory.path());
    sealing.args(["seal", "months.jsonl", "--tenant", "acme", "--type", "voice", "--time", "start_time"]);
    sealing.args(["--backfill", "1000-01-01..3000-01-01"]);
    sealing.args(["-o", "months.dseg"]);
    let (peak, exit) = peak_memory(&mut sealing.spawn().unwrap());
    assert!(exit.success(), "{exit}");
    assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "sealing took {peak} octets");
    println!("3,000 lanes: sealed in {} MiB", peak >> 20);
    let opened =
        succeed(domicile(directory.path()).args(["open", "months.dseg", "--purpose", "verification"]));
    assert!(opened == input, "came out different");
}

#[test]
fn one_record_without_an_end() {
    let mut word = 1u64;
    check("whole", &["--framing", "whole"], |_| {
        (0..1 << 17)
            .flat_map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.to_be_bytes()
            })
            .collect()
    });
}

#[test]
fn one_line_without_an_end() {
    check("lines", &["--framing", "lines"], |_| vec![b'x'; 1 << 20]);
}

/// Values of indefinite length in one another, none of which is ever ended.
#[test]
fn one_value_of_ber_without_an_end() {
    check("ber", &["--framing", "ber"], |_| b"\x30\x80".repeat(1 << 19));
}
