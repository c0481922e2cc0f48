//! Reading files: large blocks and the small ones of frequent commits, on one thread and on two, with what lies near one another
//! read at once and without.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use domicile::Purpose;
use domicile::engine::{Engines, Suite};
use domicile_record::{BlockOrder, Segment, Selection, Source, Stamp, WriterOptions};
use domicile_samples::records_of_about_300_bytes;
use serde::Serialize;

use crate::rounds::median;
use crate::segment::{Place, walk};

#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    rounds: usize,
    results: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    file: &'static str,
    threads: usize,
    near_bytes: u64,
    bytes_per_s: f64,
    /// Against one thread that reads block by block, in the same round.
    ratio: f64,
}

/// A file of which so many octets are read for nothing sooner than read once more.
struct Near(File, u64);

impl Source for Near {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at, into)
    }

    fn near_bytes(&self) -> u64 {
        self.1
    }
}

const CONTENDERS: [(usize, u64); 4] = [(1, 0), (1, 4 << 10), (2, 0), (2, 4 << 10)];

pub(crate) fn run(arguments: &[String]) {
    let quick = arguments == ["--quick"];
    if !quick && !arguments.is_empty() {
        eprintln!("usage: scripts/bench read [--quick]");
        std::process::exit(2);
    }
    let (count, rounds) = if quick { (100_000, 5) } else { (1_000_000, 11) };
    let records = records_of_about_300_bytes(count);
    let total = records.as_bytes().len() as f64;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engine = Engines::measured(Suite::default()).bulk;
    let place = runtime.block_on(Place::new(engine));
    let directory = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    println!("{count} records, {rounds} rounds, {engine}, files in {}", directory.path().display());
    for (file, block_bytes) in [("64 KiB", 64 << 10), ("1 KiB", 1 << 10), ("300 B", 300)] {
        let path = directory.path().join("bench.dseg");
        runtime.block_on(async {
            let options = WriterOptions { block_bytes, ..WriterOptions::default() };
            let output = File::create(&path).unwrap();
            let (mut writer, lane) = place.writer_with(output, options).await;
            for record in records.iter() {
                writer.append(lane, record, Stamp::default()).unwrap();
            }
            writer.finish().await.unwrap();
        });
        let mut seconds = vec![Vec::new(); CONTENDERS.len()];
        for round in 0..=rounds {
            for (contender, (threads, near)) in CONTENDERS.into_iter().enumerate() {
                let source = Near(File::open(&path).unwrap(), near);
                let opening =
                    Segment::open_source(place.domicile(), source, Purpose::Verification, Selection::all());
                let segment = runtime.block_on(opening).unwrap();
                let seen = AtomicU64::new(0);
                let start = Instant::now();
                let threads = NonZeroUsize::new(threads).unwrap();
                let read = segment.for_each_block_parallel(threads, BlockOrder::Any, |_, block| {
                    seen.fetch_add(walk(block), Ordering::Relaxed);
                    Ok(())
                });
                read.unwrap();
                let elapsed = start.elapsed().as_secs_f64();
                assert_eq!(seen.into_inner(), records.as_bytes().len() as u64);
                if round > 0 {
                    seconds[contender].push(elapsed);
                }
            }
        }
        for ((threads, near_bytes), of_this) in CONTENDERS.into_iter().zip(&seconds) {
            let ratios: Vec<_> = seconds[0].iter().zip(of_this).map(|(one, this)| one / this).collect();
            let row = Row {
                file,
                threads,
                near_bytes,
                bytes_per_s: total / median(of_this),
                ratio: median(&ratios),
            };
            println!(
                "blocks of {:>6}, {} thread(s), near {:>4}: {:>6.0} MB/s, {:.2} of block by block",
                row.file,
                row.threads,
                row.near_bytes,
                row.bytes_per_s / 1e6,
                row.ratio
            );
            rows.push(row);
        }
    }
    let results = Results { machine: crate::machine::Machine::look(), rounds, results: rows };
    std::fs::create_dir_all("target/bench").unwrap();
    std::fs::write("target/bench/read.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
}
