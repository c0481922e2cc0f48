//! Floor, ideal, this library and its peers over the same records, interleaved in one run; with `keys`, the key
//! hierarchy; with `commit`, the commit path; with `lanes`, many lanes and several writers; with `compaction`, what a busy
//! recorder leaves, before and behind compaction; with `tls`, connections; with `shipping`, segments on their way home.
//!
//! Ratios are the result; absolute figures are notes. What each case does stands with it; all of them
//! move the same records, and say so: a case that saw other octets fails the run. The peers are in a package of their own,
//! `domicile-bench-peers`, which hands its cases to [`run`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program that prints")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run has nothing else to do than stop"
)]

mod beside;
mod commit;
mod compaction;
mod counter;
mod files;
mod ideal;
mod keys;
mod lanes;
mod machine;
mod peak;
mod plain_tls;
mod plot;
mod records;
mod rounds;
mod segment;
mod shipping;
mod table;
mod tls;

use std::path::PathBuf;

use domicile::engine::{Engine, Suite};
use domicile_samples::{Records, records_of_about_300_bytes};
use serde::Serialize;

pub use counter::Counter;
pub use ideal::{IDEAL_READ, IDEAL_WRITE};
use rounds::Measured;
pub use rounds::{Case, Run};

/// The cases of peers over these records. They take part beside AES-256-GCM.
pub type Peers = for<'a> fn(&'a Records) -> Vec<Case<'a>>;

/// What `target/bench/results.json` holds.
#[derive(Serialize)]
struct Results {
    machine: machine::Machine,
    command: String,
    records: usize,
    record_bytes: usize,
    rounds: usize,
    results: Vec<ResultRow>,
}

#[derive(Serialize)]
struct ResultRow {
    name: String,
    engine: String,
    suite: String,
    records: usize,
    bytes_per_s: f64,
    ns_per_record: f64,
    ratio_to_ideal: Option<f64>,
    ratio_spread: Option<[f64; 2]>,
    overhead_bytes_per_record: f64,
    /// What a process of its own occupied at most, beside the records and what was made ready.
    peak_bytes: Option<u64>,
}

/// What the program does: all of it, from its arguments on.
///
/// # Panics
/// Where it cannot run, or a case saw other records.
pub fn run(peers: Peers) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first() {
        match first.as_str() {
            "keys" => return keys::run(rest),
            "commit" => return commit::run(rest),
            "lanes" => return lanes::run(rest),
            "compaction" => return compaction::run(rest),
            "records" => return records::run(rest),
            "read" => return files::run(rest),
            "shipping" => return shipping::run(rest),
            "tls" => return tls::run(rest),
            peak::CHILD => return peak_of(rest, peers),
            _ => {}
        }
    }
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    // For a profile: one engine alone.
    let only = match &arguments[usize::from(quick)..] {
        [] => "",
        [engine] if Engine::available().iter().any(|known| known.as_str() == engine) => engine,
        _ => {
            eprintln!(
                "usage: scripts/bench [keys|commit|lanes|compaction|records|read|tls|shipping] [--quick] [ENGINE | SECTION]"
            );
            std::process::exit(2);
        }
    };
    let (count, rounds) = if quick { (100_000, 5) } else { (500_000, 15) };
    let records = records_of_about_300_bytes(count);
    let total = records.as_bytes().len();
    eprintln!("{count} records of {:.1} octets, {rounds} rounds", total as f64 / records.len() as f64);

    let bench = Bench::new(&records, only);
    let mut rows = Vec::new();
    for suite in Suite::ALL {
        let measured = rounds::interleave(bench.cases(suite, peers), rounds);
        let of_suite = measured.iter().map(|one| ResultRow {
            // Of one suite: the other's differ by nothing but its keys.
            peak_bytes: (suite == Suite::default()).then(|| peak::of(one, suite, records.len())),
            ..row(one, &measured, suite)
        });
        let of_suite: Vec<_> = of_suite.collect();
        table::print(suite, &of_suite);
        rows.push((suite, of_suite));
    }

    std::fs::create_dir_all("target/bench").expect("target/bench");
    for (suite, rows) in &rows {
        let path = format!("target/bench/{suite}.svg");
        std::fs::write(&path, plot::svg(&format!("{suite}, {count} records, {rounds} rounds"), rows))
            .expect("a plot");
        println!("\nplotted in {path}");
    }
    let results = Results {
        machine: machine::Machine::look(),
        command: format!("scripts/bench {}", arguments.join(" ")).trim().to_owned(),
        records: records.len(),
        record_bytes: total,
        rounds,
        results: rows.into_iter().flat_map(|(_, rows)| rows).collect(),
    };
    let path = PathBuf::from("target/bench/results.json");
    std::fs::write(&path, serde_json::to_string_pretty(&results).expect("results")).expect("results.json");
    println!("written to {}", path.display());
}

/// No peers at all.
#[must_use]
pub fn no_peers(_: &Records) -> Vec<Case<'_>> {
    Vec::new()
}

/// What the cases of this library stand on.
struct Bench<'a> {
    records: &'a Records,
    runtime: tokio::runtime::Runtime,
    places: Vec<segment::Place>,
}

impl<'a> Bench<'a> {
    fn new(records: &'a Records, only: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let engines = Engine::available().into_iter().filter(|engine| engine.as_str().contains(only));
        let places = engines.map(|engine| runtime.block_on(segment::Place::new(engine))).collect();
        Self { records, runtime, places }
    }

    fn cases(&self, suite: Suite, peers: Peers) -> Vec<Case<'_>> {
        let records = self.records;
        let mut cases = vec![ideal::floor_write(records), ideal::floor_read(records)];
        for place in &self.places {
            cases.push(ideal::write(records, suite, place.engine()));
            cases.push(segment::write(records, suite, place, &self.runtime));
            cases.push(segment::reserve(records, suite, place, &self.runtime));
            cases.push(ideal::read(records, suite, place.engine()));
            cases.push(segment::read(records, suite, place, &self.runtime));
            cases.push(ideal::read_by_two(records, suite, place.engine()));
            cases.push(segment::read_by_two(records, suite, place, &self.runtime));
        }
        let ideal_is_there = |case: &Case<'_>| {
            self.places.iter().any(|place| case.ideal.is_some_and(|(_, engine)| engine == place.engine()))
        };
        if suite == Suite::default() {
            cases.extend(peers(records).into_iter().filter(ideal_is_there));
        }
        cases
    }
}

/// `SUITE ENGINE NAME RECORDS`: runs one case for [`peak::of`].
fn peak_of(arguments: &[String], peers: Peers) {
    let [suite, engine, name, count] = arguments else { unreachable!("it says which case") };
    let suite = *Suite::ALL.iter().find(|known| known.to_string() == *suite).expect("a suite");
    let records = records_of_about_300_bytes(count.parse().expect("a number"));
    let bench = Bench::new(&records, "");
    peak::child(bench.cases(suite, peers), engine, name);
}

/// A row of the results: the median of the rounds, and its ratio to the ideal that it is held against, taken round by
/// round.
fn row(one: &Measured, all: &[Measured], suite: Suite) -> ResultRow {
    let is_ideal = |other: &&Measured| {
        one.ideal.is_some_and(|(name, engine)| name == other.name && Some(engine) == other.engine)
    };
    let ratios = all.iter().find(is_ideal).map(|ideal| one.ratios_to(ideal));
    let seconds = rounds::median(&one.seconds);
    let (records, bytes) = (one.records as f64, one.record_bytes as f64);
    ResultRow {
        name: one.name.clone(),
        engine: one.engine.map_or("-", Engine::as_str).to_owned(),
        suite: suite.to_string(),
        records: one.records,
        bytes_per_s: bytes / seconds,
        ns_per_record: seconds * 1e9 / records,
        ratio_to_ideal: ratios.map(|[_, median, _]| median),
        ratio_spread: ratios.map(|[least, _, most]| [least, most]),
        overhead_bytes_per_record: (one.output_bytes as f64 - bytes) / records,
        peak_bytes: None,
    }
}
