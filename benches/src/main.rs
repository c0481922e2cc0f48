//! Floor, ideal and this library over the same records, interleaved in one run; with `keys`, the key
//! hierarchy; with `commit`, the commit path; with `records`, single sealed records; with
//! `read`, files.
//!
//! Ratios are the result; absolute figures are notes. What each case does stands with it; all of them
//! move the same records, and say so: a case that saw other octets fails the run.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program that prints")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run has nothing else to do than stop"
)]

mod commit;
mod files;
mod ideal;
mod keys;
mod machine;
mod records;
mod rounds;
mod segment;
mod table;

use std::path::PathBuf;

use domicile::engine::{Engine, Suite};
use domicile_samples::records_of_about_300_bytes;
use serde::Serialize;

use rounds::{Case, Measured};

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
    bytes_per_s: f64,
    ns_per_record: f64,
    ratio_to_ideal: Option<f64>,
    ratio_spread: Option<[f64; 2]>,
    overhead_bytes_per_record: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("keys", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return keys::run(rest);
    }
    if let Some(("commit", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return commit::run(rest);
    }
    if let Some(("records", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return records::run(rest);
    }
    if let Some(("read", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return files::run(rest);
    }
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    // For a profile: one engine alone.
    let only = match &arguments[usize::from(quick)..] {
        [] => "",
        [engine] if Engine::available().iter().any(|known| known.as_str() == engine) => engine,
        _ => {
            eprintln!("usage: scripts/bench [keys|commit|records|read] [--quick] [ENGINE | SECTION]");
            std::process::exit(2);
        }
    };
    let (count, rounds) = if quick { (200_000, 7) } else { (1_000_000, 15) };
    let records = records_of_about_300_bytes(count);
    let total = records.as_bytes().len();
    eprintln!("{count} records of {:.1} octets, {rounds} rounds", total as f64 / records.len() as f64);

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut rows = Vec::new();
    for suite in Suite::ALL {
        let mut engines = Engine::available();
        engines.retain(|engine| engine.as_str().contains(only));
        let places: Vec<_> =
            engines.iter().map(|engine| runtime.block_on(segment::Place::new(*engine))).collect();
        let mut cases: Vec<Case<'_>> = vec![ideal::floor_write(&records), ideal::floor_read(&records)];
        for (engine, place) in engines.iter().zip(&places) {
            cases.push(ideal::write(&records, suite, *engine));
            cases.push(segment::write(&records, suite, place, &runtime));
            cases.push(ideal::read(&records, suite, *engine));
            cases.push(segment::read(&records, suite, place, &runtime));
            cases.push(ideal::read_by_two(&records, suite, *engine));
            cases.push(segment::read_by_two(&records, suite, place, &runtime));
        }
        let measured = rounds::interleave(cases, rounds);
        let rows_of_suite: Vec<_> =
            measured.iter().map(|one| row(one, &measured, suite, records.len(), total)).collect();
        table::print(suite, &rows_of_suite);
        rows.extend(rows_of_suite);
    }

    let results = Results {
        machine: machine::Machine::look(),
        command: format!("scripts/bench{}", if quick { " --quick" } else { "" }),
        records: records.len(),
        record_bytes: total,
        rounds,
        results: rows,
    };
    let path = PathBuf::from("target/bench/results.json");
    std::fs::create_dir_all("target/bench").expect("target/bench");
    std::fs::write(&path, serde_json::to_string_pretty(&results).expect("results")).expect("results.json");
    println!("\nwritten to {}", path.display());
}

/// A row of the results: the median of the rounds, and its ratio to the ideal of the same engine and
/// direction, taken round by round.
fn row(one: &Measured, all: &[Measured], suite: Suite, records: usize, total: usize) -> ResultRow {
    let is_ideal = |other: &&Measured| Some(&other.name) == one.ideal.as_ref() && other.engine == one.engine;
    let ideal = all.iter().find(is_ideal);
    let ratios = ideal.map(|ideal| {
        let mut ratios: Vec<_> =
            ideal.seconds.iter().zip(&one.seconds).map(|(ideal, ours)| ideal / ours).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    });
    let median = rounds::median(&one.seconds);
    ResultRow {
        name: one.name.clone(),
        engine: one.engine.map_or("-", Engine::as_str).to_owned(),
        suite: suite.to_string(),
        bytes_per_s: total as f64 / median,
        ns_per_record: median * 1e9 / records as f64,
        ratio_to_ideal: ratios.as_ref().map(|ratios| ratios[ratios.len() / 2]),
        ratio_spread: ratios.as_ref().map(|ratios| [ratios[0], ratios[ratios.len() - 1]]),
        overhead_bytes_per_record: (one.output_bytes as f64 - total as f64) / records as f64,
    }
}
