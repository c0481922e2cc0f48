//! The commit path: records a second against the commit interval, and how long a commit takes, beside a plain file that is
//! synced as often and an SQLite database that commits as often. Interleaved: each round takes every contender once.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domicile::engine::{Engines, Suite};
use domicile_record::{Recorder, RecorderOptions};
use domicile_samples::{Records, records_of_about_300_bytes};
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tokio::runtime::Builder;

use crate::rounds::{median, spread};
use crate::segment::Place;

const INTERVALS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(100)];

/// What `target/bench/commit.json` holds.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    records: u64,
    rounds: usize,
    engine: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    interval_ms: f64,
    plain_records_per_s: f64,
    recorder_records_per_s: f64,
    sqlite_records_per_s: f64,
    ratio: f64,
    ratio_spread: [f64; 2],
    /// Without the thread that seals beside.
    alone_records_per_s: f64,
    ratio_to_alone: f64,
    ratio_to_alone_spread: [f64; 2],
    ratio_to_sqlite: f64,
    ratio_to_sqlite_spread: [f64; 2],
    commit_p50_ms: f64,
    commit_p99_ms: f64,
    commit_p999_ms: f64,
    overhead_bytes_per_record: f64,
}

pub(crate) fn run(arguments: &[String]) {
    let quick = match arguments {
        [] => false,
        [quick] if quick == "--quick" => true,
        _ => {
            eprintln!("usage: scripts/bench commit [--quick]");
            std::process::exit(2);
        }
    };
    let (count, rounds) = if quick { (50_000_u64, 1) } else { (2_000_000, 5) };
    let records = records_of_about_300_bytes(count);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = Engines::measured(Suite::default()).bulk;
    let place = runtime.block_on(Place::new(engine));
    std::fs::create_dir_all("target/bench").unwrap();
    let mut rows = Vec::new();
    for interval in INTERVALS {
        let (mut ratios, mut plains, mut recorders, mut waits) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut to_sqlite, mut sqlites) = (Vec::new(), Vec::new());
        let (mut to_alone, mut alones) = (Vec::new(), Vec::new());
        let mut overhead = 0.0;
        for _ in 0..rounds {
            let directory = tempfile::tempdir_in("target/bench").unwrap();
            let plain = plain(&records, interval, directory.path());
            let sqlite = runtime.block_on(sqlite(&records, interval, directory.path()));
            let run = |name: &str, threads| {
                let directory = directory.path().join(name);
                std::fs::create_dir(&directory).unwrap();
                recorded(&records, interval, &directory, &place, &runtime, threads)
            };
            let (alone, _, _) = run("alone", 0);
            let (recorded, octets, waited) = run("pool", 1);
            to_alone.push(alone.as_secs_f64() / recorded.as_secs_f64());
            alones.push(count as f64 / alone.as_secs_f64());
            overhead = (octets as f64 - records.as_bytes().len() as f64) / count as f64;
            ratios.push(plain.as_secs_f64() / recorded.as_secs_f64());
            to_sqlite.push(sqlite.as_secs_f64() / recorded.as_secs_f64());
            sqlites.push(count as f64 / sqlite.as_secs_f64());
            plains.push(count as f64 / plain.as_secs_f64());
            recorders.push(count as f64 / recorded.as_secs_f64());
            waits.extend(waited);
        }
        waits.sort_unstable();
        let ([least, ratio, most], [sqlite_least, ratio_to_sqlite, sqlite_most]) =
            (spread(ratios), spread(to_sqlite));
        let [alone_least, ratio_to_alone, alone_most] = spread(to_alone);
        let at = |per_mille: usize| {
            let index = waits.len().saturating_sub(1) * per_mille / 1_000;
            waits.get(index).map_or(0.0, |wait: &Duration| wait.as_secs_f64() * 1e3)
        };
        let row = Row {
            interval_ms: interval.as_secs_f64() * 1e3,
            plain_records_per_s: median(&plains),
            recorder_records_per_s: median(&recorders),
            sqlite_records_per_s: median(&sqlites),
            ratio,
            ratio_spread: [least, most],
            alone_records_per_s: median(&alones),
            ratio_to_alone,
            ratio_to_alone_spread: [alone_least, alone_most],
            ratio_to_sqlite,
            ratio_to_sqlite_spread: [sqlite_least, sqlite_most],
            commit_p50_ms: at(500),
            commit_p99_ms: at(990),
            commit_p999_ms: at(999),
            overhead_bytes_per_record: overhead,
        };
        println!(
            "{:>6.0} ms  plain {:>10.0} records/s  recorder {:>10.0}  ratio {:.2} ({:.2} to {:.2})  sealing on its thread {:>10.0}  ratio {:.2} ({:.2} to {:.2})  sqlite {:>9.0} records/s  ratio {:.1} ({:.1} to {:.1})  commit p50 {:.1} p99 {:.1} p99.9 {:.1} ms  {:.2} octets a record",
            row.interval_ms,
            row.plain_records_per_s,
            row.recorder_records_per_s,
            row.ratio,
            row.ratio_spread[0],
            row.ratio_spread[1],
            row.alone_records_per_s,
            row.ratio_to_alone,
            row.ratio_to_alone_spread[0],
            row.ratio_to_alone_spread[1],
            row.sqlite_records_per_s,
            row.ratio_to_sqlite,
            row.ratio_to_sqlite_spread[0],
            row.ratio_to_sqlite_spread[1],
            row.commit_p50_ms,
            row.commit_p99_ms,
            row.commit_p999_ms,
            row.overhead_bytes_per_record,
        );
        rows.push(row);
    }
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench commit {}", arguments.join(" ")).trim().to_owned(),
        records: count,
        rounds,
        engine: engine.as_str().to_owned(),
        rows,
    };
    let text = serde_json::to_string_pretty(&results).unwrap();
    std::fs::write("target/bench/commit.json", text).unwrap();
    println!("written to target/bench/commit.json");
}

/// A file that is written through a buffer and synced once in the interval, and at the end.
fn plain(records: &Records, interval: Duration, directory: &Path) -> Duration {
    let began = Instant::now();
    let mut file = BufWriter::with_capacity(256 << 10, File::create_new(directory.join("plain")).unwrap());
    let mut synced = Instant::now();
    for (number, record) in records.iter().enumerate() {
        file.write_all(record).unwrap();
        if number % 64 == 0 && synced.elapsed() >= interval {
            file.flush().unwrap();
            file.get_ref().sync_data().unwrap();
            synced = Instant::now();
        }
    }
    file.flush().unwrap();
    file.get_ref().sync_data().unwrap();
    began.elapsed()
}

/// A database with a write-ahead log and `synchronous = FULL`, whose transaction ends once in the interval: a row for each
/// record, many rows in a statement that is prepared once.
async fn sqlite(records: &Records, interval: Duration, directory: &Path) -> Duration {
    const ROWS: usize = 256;
    let options = SqliteConnectOptions::new()
        .filename(directory.join("records.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let create = "CREATE TABLE records (number INTEGER PRIMARY KEY, record BLOB NOT NULL)";
    sqlx::query(create).execute(&mut database).await.unwrap();
    let statement =
        |rows: usize| format!("INSERT INTO records (record) VALUES {}", vec!["(?)"; rows].join(","));
    let (full, all) = (statement(ROWS), records.iter().collect::<Vec<_>>());
    let began = Instant::now();
    let mut synced = Instant::now();
    let mut transaction = database.begin().await.unwrap();
    for rows in all.chunks(ROWS) {
        let text = if rows.len() == ROWS { full.clone() } else { statement(rows.len()) };
        let query = rows.iter().fold(sqlx::query(AssertSqlSafe(text)), |query, record| query.bind(*record));
        query.execute(&mut *transaction).await.unwrap();
        if synced.elapsed() >= interval {
            transaction.commit().await.unwrap();
            transaction = database.begin().await.unwrap();
            synced = Instant::now();
        }
    }
    transaction.commit().await.unwrap();
    let taken = began.elapsed();
    database.close().await.unwrap();
    taken
}

/// The same through a recorder, with a caller beside that does nothing but wait for commits.
fn recorded(
    records: &Records,
    interval: Duration,
    directory: &Path,
    place: &Place,
    runtime: &tokio::runtime::Runtime,
    sealing_threads: usize,
) -> (Duration, u64, Vec<Duration>) {
    let mut options = RecorderOptions::default();
    options.sealing_threads = sealing_threads;
    options.commit_interval = interval;
    options.commit_bytes = u64::MAX;
    options.segment_bytes = u64::MAX;
    let recorder = runtime
        .block_on(Recorder::with_options(place.domicile(), directory.join("segments"), options))
        .unwrap();
    let lane = runtime.block_on(recorder.scope(&place.scope(0))).unwrap();
    let (time, over) = (recorder.now(), Arc::new(AtomicBool::new(false)));
    // The lane is there: what is measured is appending.
    lane.append_blocking(time, b"").unwrap();
    runtime.block_on(recorder.commit()).unwrap();
    let waiting = {
        let (recorder, over) = (recorder.clone(), over.clone());
        runtime.spawn(async move {
            let mut waits = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                recorder.commit().await.unwrap();
                waits.push(began.elapsed());
            }
            waits
        })
    };
    let began = Instant::now();
    for record in records.iter() {
        lane.append_blocking(time, record).unwrap();
    }
    runtime.block_on(recorder.commit()).unwrap();
    let taken = began.elapsed();
    over.store(true, Ordering::SeqCst);
    let waits = runtime.block_on(waiting).unwrap();
    let summaries = runtime.block_on(recorder.close()).unwrap();
    assert_eq!(summaries.iter().map(|summary| summary.bytes).sum::<u64>(), records.as_bytes().len() as u64);
    (taken, summaries.iter().map(|summary| summary.file_bytes).sum(), waits)
}
