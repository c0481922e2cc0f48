//! What a busy recorder leaves: a steady rate of records of as many tenants as there are, any of them as likely as the
//! others, with frequent commits; octets a record as it was written, and behind compaction, and the processor time of both.

use std::path::Path;
use std::time::{Duration, Instant};

use domicile::engine::{Engines, Suite};
use domicile_record::{Recorder, RecorderOptions, SegmentSummary, compact};
use domicile_samples::records_of_about_300_bytes;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::lanes::Draw;
use crate::peak;
use crate::segment::Place;

/// How much of everything.
struct Size {
    tenants: usize,
    records_per_s: u32,
    seconds: u32,
}

const FULL: Size = Size { tenants: 50_000, records_per_s: 300_000, seconds: 20 };

/// Enough to see that everything still runs.
const QUICK: Size = Size { tenants: 200, records_per_s: 5_000, seconds: 1 };

const COMMIT_INTERVAL: Duration = Duration::from_millis(20);

/// What `target/bench/compaction.json` holds.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    tenants: usize,
    records_per_s_wanted: u32,
    records_per_s: f64,
    commit_interval_ms: u128,
    engine: String,
    records: u64,
    record_bytes: u64,
    blocks: u64,
    /// From the first octet of the segment to its last.
    hot_overhead_bytes_per_record: f64,
    /// Without the openings and ends of lanes, which a longer run shares among more records.
    hot_overhead_bytes_per_record_between: f64,
    hot_cores: f64,
    compacted_overhead_bytes_per_record: f64,
    compacted_overhead_bytes_per_lane: f64,
    compaction_s: f64,
    compaction_cores: f64,
    compaction_records_per_core_s: f64,
    peak_bytes: u64,
}

/// `compaction [--quick] [SECONDS]`.
pub(crate) fn run(arguments: &[String]) {
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    let mut size = if quick { QUICK } else { FULL };
    match &arguments[usize::from(quick)..] {
        [] => {}
        [seconds] if seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0) => {
            size.seconds = seconds.parse().unwrap();
        }
        _ => {
            eprintln!("usage: scripts/bench compaction [--quick] [SECONDS]");
            std::process::exit(2);
        }
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = Engines::measured(Suite::default()).bulk;
    let place = runtime.block_on(Place::embedded(engine, size.tenants, 1));
    let directory = tempfile::tempdir_in("target/bench").unwrap();
    let hot = record(&size, &place, &directory.path().join("hot"), &runtime);
    let SegmentSummary { records, bytes, file_bytes, blocks, .. } = hot.summary;
    let each = |octets: u64| octets.saturating_sub(bytes) as f64 / records as f64;
    println!(
        "hot: {:.0} records/s of {} wanted, {} tenants, {:?} commits: {:.2} octets a record over, {:.2} without openings and ends of lanes; {:.2} cores",
        hot.rate,
        size.records_per_s,
        size.tenants,
        COMMIT_INTERVAL,
        each(file_bytes),
        hot.between,
        hot.cores,
    );

    let clock = Clock::start();
    let files = [directory.path().join("hot").join(hot.summary.path())];
    let compaction = runtime
        .block_on(compact(place.domicile(), &files, directory.path().join("compacted"), false))
        .unwrap();
    let (seconds, cores) = clock.stop();
    let after = &compaction.summary;
    assert_eq!((after.records, after.bytes), (records, bytes));
    println!(
        "compacted in {seconds:.1} s on {cores:.2} cores, verified: {:.2} octets a record over",
        each(after.file_bytes)
    );
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench compaction {}", arguments.join(" ")).trim().to_owned(),
        tenants: size.tenants,
        records_per_s_wanted: size.records_per_s,
        records_per_s: hot.rate,
        commit_interval_ms: COMMIT_INTERVAL.as_millis(),
        engine: engine.as_str().to_owned(),
        records,
        record_bytes: bytes,
        blocks,
        hot_overhead_bytes_per_record: each(file_bytes),
        hot_overhead_bytes_per_record_between: hot.between,
        hot_cores: hot.cores,
        compacted_overhead_bytes_per_record: each(after.file_bytes),
        compacted_overhead_bytes_per_lane: (after.file_bytes - bytes) as f64 / f64::from(after.lanes),
        compaction_s: seconds,
        compaction_cores: cores,
        compaction_records_per_core_s: records as f64 / (seconds * cores),
        peak_bytes: peak::status("VmHWM:"),
    };
    std::fs::write("target/bench/compaction.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("written to target/bench/compaction.json");
}

/// What was recorded.
struct Hot {
    summary: SegmentSummary,
    rate: f64,
    cores: f64,
    /// Octets a record over, between the openings of lanes and their ends.
    between: f64,
}

/// Records at a steady rate, into lanes that are open.
fn record(size: &Size, place: &Place, directory: &Path, runtime: &Runtime) -> Hot {
    let records = records_of_about_300_bytes(500_000.min(u64::from(size.records_per_s)));
    let records: Vec<_> = records.iter().collect();
    let mut options = RecorderOptions::default();
    options.commit_interval = COMMIT_INTERVAL;
    options.segment_bytes = u64::MAX;
    options.compact = false;
    let recorder = runtime.block_on(Recorder::with_options(place.domicile(), directory, options)).unwrap();
    let lanes: Vec<_> =
        (0..size.tenants).map(|number| recorder.scope_blocking(&place.scope(number)).unwrap()).collect();
    let now = recorder.now();
    for lane in &lanes {
        lane.append_blocking(now, records[0]).unwrap();
    }
    recorder.commit_blocking().unwrap();
    let opened_bytes = octets_below(directory);

    let mut draw = Draw::new();
    let clock = Clock::start();
    let total = u64::from(size.records_per_s) * u64::from(size.seconds);
    let (mut appended, mut octets) = (0, 0);
    while appended < total {
        // As many as are due, once a millisecond.
        let elapsed = clock.wall.elapsed().as_secs_f64();
        let due = (elapsed * f64::from(size.records_per_s)).min(total as f64);
        while (appended as f64) < due {
            let lane = &lanes[usize::try_from(draw.next() % lanes.len() as u64).unwrap()];
            let record = records[usize::try_from(appended % records.len() as u64).unwrap()];
            lane.append_blocking(recorder.now(), record).unwrap();
            appended += 1;
            octets += record.len() as u64;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    recorder.commit_blocking().unwrap();
    let (seconds, cores) = clock.stop();
    let between = (octets_below(directory) - opened_bytes - octets) as f64 / total as f64;
    let mut summaries = recorder.close_blocking().unwrap();
    assert_eq!(summaries.len(), 1, "one segment");
    let summary = summaries.remove(0);
    assert_eq!(summary.records, total + size.tenants as u64);
    Hot { summary, rate: total as f64 / seconds, cores, between }
}

/// Octets of all files below a directory.
fn octets_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let octets =
        entries.map(|path| if path.is_dir() { octets_below(&path) } else { path.metadata().unwrap().len() });
    octets.sum()
}

/// The time, and that of the processors.
struct Clock {
    wall: Instant,
    processors: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), processors: Self::processors() }
    }

    /// Seconds since then, and how many cores were busy.
    fn stop(self) -> (f64, f64) {
        let seconds = self.wall.elapsed().as_secs_f64();
        (seconds, (Self::processors() - self.processors).as_secs_f64() / seconds)
    }

    fn processors() -> Duration {
        rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
    }
}
