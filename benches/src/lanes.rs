//! Many lanes: records that come in any order for thousands of scopes, beside the ideal of one lane; what a lane takes that
//! nothing is appended to; and two writers on two threads, beside two ideals.
//!
//! Lanes are of scopes of their own, with keys from the embedded store (SQLite, a root key in a file). Each contender stands
//! from round to round: what is measured is appending, once its buffers are there.

use std::hint::black_box;
use std::process::Command;

use domicile::danger::SeededRandom;
use domicile::engine::{Engine, Suite};
use domicile::random::Randomness;
use domicile_record::format::LaneNo;
use domicile_record::{SealingPool, SegmentWriter, Stamp, WriterOptions};
use domicile_samples::{Records, records_of_about_300_bytes};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::counter::Counter;
use crate::ideal;
use crate::peak;
use crate::rounds::{self, Case, Measured};
use crate::segment::Place;

/// The argument of the process in which idle lanes are opened.
const CHILD: &str = "idle-of";

/// How much of everything.
struct Size {
    records: u64,
    rounds: usize,
    /// Busy lanes, each as likely as the others.
    busy: &'static [usize],
    /// Scopes of which some have most of the records.
    scopes: usize,
    idle: usize,
}

const FULL: Size =
    Size { records: 500_000, rounds: 11, busy: &[1, 128, 1_024, 4_096], scopes: 100_000, idle: 100_000 };

/// Enough to see that everything still runs.
const QUICK: Size = Size { records: 20_000, rounds: 1, busy: &[1, 128], scopes: 300, idle: 300 };

/// Scopes of one tenant.
const TYPES: usize = 8;
/// The exponent of Zipf's law.
const EXPONENT: f64 = 1.1;
/// Budgets of open blocks beside the default.
const BUDGETS: [usize; 3] = [4 << 20, 8 << 20, 128 << 20];
/// The same for all scopes: some 2 KiB for each of 100,000.
const SCOPES_BUDGET: usize = 256 << 20;

/// What `target/bench/lanes.json` holds.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    records: u64,
    rounds: usize,
    engine: String,
    rows: Vec<Row>,
    idle_lanes: usize,
    idle_lane_bytes: f64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    mb_per_s: f64,
    ratio_to_ideal: f64,
    ratio_spread: [f64; 2],
    overhead_bytes_per_record: f64,
}

/// `lanes [--quick] [SCOPES]`; and what it starts as a process of its own.
pub(crate) fn run(arguments: &[String]) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let [child, lanes] = arguments
        && child == CHILD
    {
        return idle_child(lanes.parse().unwrap(), &runtime);
    }
    if arguments == ["threads"] {
        let records = records_of_about_300_bytes(FULL.records);
        let place = runtime.block_on(Place::new(Engine::Ring));
        two_threads(&records, &place, &runtime, FULL.rounds);
        return;
    }
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    let mut size = if quick { QUICK } else { FULL };
    match &arguments[usize::from(quick)..] {
        [] => {}
        [scopes] if scopes.parse::<usize>().is_ok_and(|scopes| scopes >= 4_096) => {
            size.scopes = scopes.parse().unwrap();
        }
        _ => {
            eprintln!("usage: scripts/bench lanes [--quick] [SCOPES, at least 4096] | lanes threads");
            std::process::exit(2);
        }
    }
    let records = records_of_about_300_bytes(size.records);
    let engine = Engine::Ring;
    let mut rows = Vec::new();
    println!("{:<44} {:>9} {:>9} {:>13} {:>13}", "contender", "MB/s", "x ideal", "(spread)", "B/record over");

    let place = runtime.block_on(Place::embedded(engine, size.scopes, TYPES));
    let mut cases = vec![ideal::write(&records, Suite::default(), engine)];
    for &lanes in size.busy {
        let order = uniform(records.len(), lanes);
        let name = format!("ideal, {lanes} lanes of 64 KiB");
        cases.push(many_ideals(name, &records, order.clone(), lanes, engine));
        cases.push(many(
            format!("segment, {lanes} lanes"),
            &records,
            order.clone(),
            lanes,
            &place,
            &runtime,
            None,
        ));
        for budget in BUDGETS.into_iter().filter(|_| lanes >= 1_024) {
            let name = format!("segment, {lanes} lanes, {} MiB open", budget >> 20);
            cases.push(many(name, &records, order.clone(), lanes, &place, &runtime, Some(budget)));
        }
    }
    let order = zipf(records.len(), size.scopes);
    for budget in [None, Some(SCOPES_BUDGET)] {
        let open = budget.map_or(String::new(), |budget| format!(", {} MiB open", budget >> 20));
        let name = format!("segment, {} scopes by Zipf {EXPONENT}{open}", size.scopes);
        cases.push(many(name, &records, order.clone(), size.scopes, &place, &runtime, budget));
    }
    rows.extend(measure(cases, size.rounds, ideal::IDEAL_WRITE));

    rows.extend(two_threads(&records, &place, &runtime, size.rounds));

    let idle_lane_bytes = idle(size.idle);
    println!("an idle lane takes {idle_lane_bytes:.0} octets: {} of one scope, resident", size.idle);
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench lanes {}", arguments.join(" ")).trim().to_owned(),
        records: size.records,
        rounds: size.rounds,
        engine: engine.as_str().to_owned(),
        rows,
        idle_lanes: size.idle,
        idle_lane_bytes,
    };
    std::fs::create_dir_all("target/bench").unwrap();
    std::fs::write("target/bench/lanes.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("written to target/bench/lanes.json");
}

/// What a second thread adds: with a writer of its own, and sealing for the first.
fn two_threads(records: &Records, place: &Place, runtime: &Runtime, rounds: usize) -> Vec<Row> {
    let two = "two ideals, two threads";
    let cases = vec![
        two_ideals(two, records, Engine::Ring),
        two_writers("two segments, two threads", records, place, runtime),
        one_writer("one segment, one thread", records, place, runtime, None),
        one_writer(
            "one segment, one thread that seals beside",
            records,
            place,
            runtime,
            Some(SealingPool::new(1).unwrap()),
        ),
    ];
    measure(cases, rounds, two)
}

/// Runs these in turns, and prints them as they compare with the one of this name.
fn measure(cases: Vec<Case<'_>>, rounds: usize, ideal: &str) -> Vec<Row> {
    let all = rounds::interleave(cases, rounds);
    let ideal: &Measured = all.iter().find(|one| one.name == ideal).unwrap();
    let rows = all.iter().map(|one| {
        let [least, ratio_to_ideal, most] = one.ratios_to(ideal);
        Row {
            name: one.name.clone(),
            mb_per_s: one.record_bytes as f64 / rounds::median(&one.seconds) / 1e6,
            ratio_to_ideal,
            ratio_spread: [least, most],
            overhead_bytes_per_record: (one.output_bytes as f64 - one.record_bytes as f64)
                / one.records as f64,
        }
    });
    let rows: Vec<_> = rows.collect();
    for row in &rows {
        let spread = format!("{:.2}-{:.2}", row.ratio_spread[0], row.ratio_spread[1]);
        println!(
            "{:<44} {:>9.0} {:>9.3} {spread:>13} {:>13.2}",
            row.name, row.mb_per_s, row.ratio_to_ideal, row.overhead_bytes_per_record
        );
    }
    rows
}

fn case<'a>(
    name: impl Into<String>,
    records: &'a Records,
    prepare: impl FnOnce() -> rounds::Run<'a> + 'a,
) -> Case<'a> {
    Case {
        name: name.into(),
        engine: None,
        ideal: None,
        records: records.len(),
        expected: records.as_bytes().len() as u64,
        prepare: Box::new(prepare),
    }
}

/// Appends each record to the lane that `order` says, of a writer that has this many.
fn many<'a>(
    name: String,
    records: &'a Records,
    order: Vec<u32>,
    lanes: usize,
    place: &'a Place,
    runtime: &'a Runtime,
    open_bytes_max: Option<usize>,
) -> Case<'a> {
    case(name, records, move || {
        let options = WriterOptions::default();
        let open_bytes_max = open_bytes_max.unwrap_or(options.open_bytes_max);
        let options = WriterOptions { open_bytes_max, ..options };
        let (mut writer, numbers) = runtime.block_on(place.lanes(Counter::default(), options, lanes));
        let order: Vec<LaneNo> = order.into_iter().map(|lane| numbers[lane as usize]).collect();
        Box::new(move || {
            let (mut seen, before) = (0, writer.file_bytes());
            for (record, lane) in records.iter().zip(&order) {
                writer.append(*lane, record, Stamp::default()).unwrap();
                seen += record.len() as u64;
            }
            (seen, writer.file_bytes() - before)
        })
    })
}

/// The ideal of as many lanes: each record is copied into the block of its lane, which is sealed when it is full.
fn many_ideals(name: String, records: &Records, order: Vec<u32>, lanes: usize, engine: Engine) -> Case<'_> {
    case(name, records, move || {
        let key = ideal::key(Suite::default(), engine);
        let mut blocks: Vec<Vec<u8>> = (0..lanes).map(|_| Vec::with_capacity(ideal::BLOCK_BYTES)).collect();
        let mut number = 0;
        Box::new(move || {
            let (mut seen, mut produced) = (0, 0);
            for (record, lane) in records.iter().zip(&order) {
                let block = &mut blocks[*lane as usize];
                if block.len() + record.len() > ideal::BLOCK_BYTES {
                    black_box(ideal::seal(&key, number, block));
                    number += 1;
                    produced += block.len() as u64;
                    block.clear();
                }
                block.extend_from_slice(record);
                seen += record.len() as u64;
            }
            (seen, produced)
        })
    })
}

/// Half of the records on each of two threads, with one ideal each.
fn two_ideals<'a>(name: &str, records: &'a Records, engine: Engine) -> Case<'a> {
    let half = records.len() / 2;
    case(name, records, move || {
        Box::new(move || {
            let one = |skipped: usize, taken: usize| {
                let key = ideal::key(Suite::default(), engine);
                ideal::seal_blocks(records.iter().skip(skipped).take(taken), &key)
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| one(half, records.len()));
                let (seen, produced) = one(0, half);
                let (other_seen, other_produced) = other.join().unwrap();
                (seen + other_seen, produced + other_produced)
            })
        })
    })
}

/// The same with a whole segment each.
fn two_writers<'a>(name: &str, records: &'a Records, place: &'a Place, runtime: &'a Runtime) -> Case<'a> {
    let half = records.len() / 2;
    case(name, records, move || {
        Box::new(move || {
            let writer = || runtime.block_on(place.writer(Counter::default(), Suite::default()));
            let fill =
                |(mut writer, lane): (SegmentWriter<Counter>, LaneNo), skipped: usize, taken: usize| {
                    for record in records.iter().skip(skipped).take(taken) {
                        writer.append(lane, record, Stamp::default()).unwrap();
                    }
                    writer
                };
            let (one, other) = (writer(), writer());
            let written = std::thread::scope(|scope| {
                let other = scope.spawn(|| fill(other, half, records.len()));
                [fill(one, 0, half), other.join().unwrap()]
            });
            written.into_iter().fold((0, 0), |(seen, produced), writer| {
                let (sink, summary) = runtime.block_on(writer.finish()).unwrap();
                (seen + summary.bytes, produced + sink.0)
            })
        })
    })
}

/// One segment of all records, whose blocks are sealed by whoever appends, or by a pool.
fn one_writer<'a>(
    name: &str,
    records: &'a Records,
    place: &'a Place,
    runtime: &'a Runtime,
    pool: Option<SealingPool>,
) -> Case<'a> {
    case(name, records, move || {
        Box::new(move || {
            let options = WriterOptions { pool: pool.clone(), ..WriterOptions::default() };
            let (mut writer, lane) = runtime.block_on(place.writer_with(Counter::default(), options));
            for record in records.iter() {
                writer.append(lane, record, Stamp::default()).unwrap();
            }
            let (sink, summary) = runtime.block_on(writer.finish()).unwrap();
            (summary.bytes, sink.0)
        })
    })
}

/// Octets of an idle lane, in a process that has nothing else.
fn idle(lanes: usize) -> f64 {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["lanes", CHILD, &lanes.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let grown: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    grown as f64 / lanes as f64
}

/// Opens lanes of one scope, so that the cache of keys does not grow with them, and prints by how much the process did.
fn idle_child(lanes: usize, runtime: &Runtime) {
    let place = runtime.block_on(Place::new(Engine::Ring));
    let (mut writer, _) = runtime.block_on(place.writer(Counter::default(), Suite::default()));
    let before = peak::status("VmRSS:");
    for _ in 0..lanes {
        runtime.block_on(writer.open_lane(place.descriptor(Suite::default()), &[])).unwrap();
    }
    println!("{}", peak::status("VmRSS:").saturating_sub(before));
}

/// A lane for each record, all as likely.
fn uniform(records: usize, lanes: usize) -> Vec<u32> {
    let mut draw = Draw::new();
    (0..records).map(|_| u32::try_from(draw.next() % lanes as u64).unwrap()).collect()
}

/// A scope for each record, by Zipf's law; which scope has which rank is as good as random.
fn zipf(records: usize, scopes: usize) -> Vec<u32> {
    let mut draw = Draw::new();
    let mut sum = 0.0;
    let shares: Vec<f64> = (1..=scopes)
        .map(|rank| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        })
        .collect();
    let mut of_rank: Vec<u32> = (0..u32::try_from(scopes).unwrap()).collect();
    for last in (1..scopes).rev() {
        of_rank.swap(last, usize::try_from(draw.next() % (last as u64 + 1)).unwrap());
    }
    let rank = |draw: &mut Draw| {
        let point = (draw.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        shares.partition_point(|share| *share <= point).min(scopes - 1)
    };
    (0..records).map(|_| of_rank[rank(&mut draw)]).collect()
}

/// The same numbers in each run.
pub(crate) struct Draw(SeededRandom);

impl Draw {
    pub(crate) fn new() -> Self {
        Self(SeededRandom::new(7))
    }

    pub(crate) fn next(&mut self) -> u64 {
        let mut octets = [0; 8];
        self.0.fill(&mut octets).unwrap();
        u64::from_be_bytes(octets)
    }
}
