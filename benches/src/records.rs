//! Single sealed records: one alone and a batch of 64, beside one raw call of the same engine and one of the operating
//! system's generator. Interleaved: each round takes every contender once, and is short, so that most are undisturbed.

use std::hint::black_box;
use std::time::Instant;

use domicile::danger;
use domicile::engine::{Engine, Suite};
use domicile::random::{OsRandom, Randomness};
use domicile::{Purpose, Result};
use domicile_record::{OpenedBatch, RecordContext, RowId, SealedBatch, SealedRecords};
use serde::Serialize;
use tokio::runtime::Builder;

use crate::rounds::median;
use crate::segment::Place;

const RECORD: [u8; 300] = [b'7'; 300];
const BATCH: usize = 64;
/// As many octets as a record with a row id of 8 has: handle, binding and id.
const ASSOCIATED: [u8; 48] = [1; 48];

/// What `target/bench/records.json` holds; times are nanoseconds a record.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    record_bytes: usize,
    batch: usize,
    rounds: usize,
    generator_ns: f64,
    engines: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    engine: String,
    raw_seal_ns: f64,
    single_seal_ns: f64,
    /// What one record takes beside the raw call and one call of the generator.
    single_beside_ns: f64,
    batch_seal_ns: f64,
    batch_seal_ratio: f64,
    batch_seal_spread: [f64; 2],
    raw_open_ns: f64,
    single_open_ns: f64,
    batch_open_ns: f64,
    batch_open_ratio: f64,
}

pub(crate) fn run(arguments: &[String]) {
    let quick = match arguments {
        [] => false,
        [quick] if quick == "--quick" => true,
        _ => {
            eprintln!("usage: scripts/bench records [--quick]");
            std::process::exit(2);
        }
    };
    let (calls, rounds) = if quick { (2_048, 3) } else { (2_048, 501) };
    let generator = (0..rounds).map(|_| generator(calls)).collect::<Vec<_>>();
    let rows: Vec<_> =
        Engine::available().into_iter().map(|engine| measure(engine, calls, rounds).unwrap()).collect();
    println!(
        "{} octets a record, batches of {BATCH}; nanoseconds a record. One call of the generator for 12 octets: {:.0}",
        RECORD.len(),
        median(&generator)
    );
    println!(
        "{:<11} {:>6} {:>7} {:>8} {:>7} {:>8} {:>12}   {:>6} {:>7} {:>7} {:>8}",
        "engine",
        "seal",
        "single",
        "(beside)",
        "batch",
        "x raw",
        "(spread)",
        "open",
        "single",
        "batch",
        "x raw"
    );
    for row in &rows {
        let [low, high] = row.batch_seal_spread;
        println!(
            "{:<11} {:>6.0} {:>7.0} {:>8.0} {:>7.0} {:>8.3} {:>12}   {:>6.0} {:>7.0} {:>7.0} {:>8.3}",
            row.engine,
            row.raw_seal_ns,
            row.single_seal_ns,
            row.single_beside_ns,
            row.batch_seal_ns,
            row.batch_seal_ratio,
            format!("{low:.2}-{high:.2}"),
            row.raw_open_ns,
            row.single_open_ns,
            row.batch_open_ns,
            row.batch_open_ratio,
        );
    }
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench records {}", arguments.join(" ")).trim().to_owned(),
        record_bytes: RECORD.len(),
        batch: BATCH,
        rounds,
        generator_ns: median(&generator),
        engines: rows,
    };
    std::fs::create_dir_all("target/bench").unwrap();
    std::fs::write("target/bench/records.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("written to target/bench/records.json");
}

/// Nanoseconds of each of `records`.
fn each(records: usize, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e9 / records as f64
}

fn generator(calls: usize) -> f64 {
    let mut nonce = [0; 12];
    each(calls, || {
        for _ in 0..calls {
            OsRandom.fill(&mut nonce).unwrap();
            black_box(&nonce);
        }
    })
}

fn measure(engine: Engine, calls: usize, rounds: usize) -> Result<Row> {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let place = runtime.block_on(Place::new(engine));
    let column =
        SealedRecords::new(place.domicile(), &place.scope(0), RecordContext::new(&["calls", "detail"])?);
    let mut sealer = runtime.block_on(column.sealer())?;
    let opener = runtime.block_on(column.opener(Purpose::Verification))?;
    let raw = danger::content_key(Suite::Aes256Gcm, engine, &[7; 32])?;

    let records: Vec<(RowId<'_>, &[u8])> = (0..BATCH as u64).map(|row| (row.into(), &RECORD[..])).collect();
    let (mut batch, mut opened) = (SealedBatch::new(), OpenedBatch::new());
    sealer.seal_batch(&records, &mut batch)?;
    let cells: Vec<Vec<u8>> = batch.iter().map(<[u8]>::to_vec).collect();
    let cells: Vec<(RowId<'_>, &[u8])> =
        (0..BATCH as u64).map(Into::into).zip(cells.iter().map(|cell| &**cell)).collect();
    runtime.block_on(opener.load_for(cells.iter().map(|(_, cell)| *cell)))?;
    let mut ciphertext = RECORD;
    let tag = raw.seal(danger::nonce([9; 12]), &ASSOCIATED, &mut ciphertext)?;

    let mut times = [const { Vec::new() }; 6];
    let (mut payload, mut out) = (RECORD, Vec::new());
    // The first round is not counted.
    for round in 0..=rounds {
        let turn = [
            each(calls, || {
                for _ in 0..calls {
                    black_box(
                        raw.seal(danger::nonce([9; 12]), &ASSOCIATED, black_box(&mut payload)).unwrap(),
                    );
                }
            }),
            each(calls, || {
                for row in 0..calls as u64 {
                    sealer.seal(row, black_box(&RECORD), &mut out).unwrap();
                    black_box(&out);
                }
            }),
            each(calls / BATCH * BATCH, || {
                for _ in 0..calls / BATCH {
                    sealer.seal_batch(black_box(&records), &mut batch).unwrap();
                    black_box(&batch);
                }
            }),
            each(calls, || {
                for _ in 0..calls {
                    payload = ciphertext;
                    raw.open(&[9; 12], &ASSOCIATED, black_box(&mut payload), &tag).unwrap();
                }
            }),
            each(calls, || {
                for (row, cell) in cells.iter().cycle().take(calls) {
                    opener.open(*row, cell, &mut out).unwrap();
                    black_box(&out);
                }
            }),
            each(calls / BATCH * BATCH, || {
                for _ in 0..calls / BATCH {
                    opener.open_batch(black_box(&cells), &mut opened);
                    black_box(&opened);
                }
            }),
        ];
        assert!(out == RECORD && opened.iter().all(|record| record.is_ok_and(|record| record == RECORD)));
        if round > 0 {
            times.iter_mut().zip(turn).for_each(|(times, time)| times.push(time));
        }
    }
    let [raw_seal, single_seal, batch_seal, raw_open, single_open, batch_open] = &times;
    let ratios = |ours: &[f64], raw: &[f64]| {
        let mut ratios: Vec<_> = ours.iter().zip(raw).map(|(ours, raw)| ours / raw).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    let generator = (0..rounds).map(|_| generator(calls)).collect::<Vec<_>>();
    let seal_ratios = ratios(batch_seal, raw_seal);
    Ok(Row {
        engine: engine.as_str().to_owned(),
        raw_seal_ns: median(raw_seal),
        single_seal_ns: median(single_seal),
        single_beside_ns: median(single_seal) - median(raw_seal) - median(&generator),
        batch_seal_ns: median(batch_seal),
        batch_seal_ratio: median(&seal_ratios),
        batch_seal_spread: [seal_ratios[0], seal_ratios[seal_ratios.len() - 1]],
        raw_open_ns: median(raw_open),
        single_open_ns: median(single_open),
        batch_open_ns: median(batch_open),
        batch_open_ratio: median(&ratios(batch_open, raw_open)),
    })
}
