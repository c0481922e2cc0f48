//! Our own vectors: a place, key rows and segments with every intermediate value, made from a seed, kept in
//! `tests/vectors/`. What is written today must be what was written then, octet for octet; the values
//! must be those that the second reader finds; and every engine must open every block with them.
//!
//! `DOMICILE_WRITE_VECTORS=1 DOMICILE_PYTHON=… cargo test --package domicile-tests --test vectors` writes them anew:
//! after a deliberate change of a format, and never otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that is skipped says so"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use domicile::danger::{self, SeededRandom};
use domicile::engine::{Engine, Suite};
use domicile::kms::Kms;
use domicile::store::{KeyStore, SqliteStore};
use domicile::{Domicile, FixedClock, KnownRegion};
use domicile_record::format::SealedRecord;
use domicile_record::format::{BlockHeader, BlockKind, Contents, Descriptor, SegmentHeader};
use domicile_record::{RecordContext, SealedRecords, SegmentWriter, Stamp, WriterOptions};
use domicile_tests::program::{repository, succeed};
use domicile_tests::{descriptor, hex, place, region, scope, unhex};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

const REGION: &str = "eu-central-1";

/// Makes the place and its segments from the seed.
async fn make(directory: &Path) -> Value {
    let path = |name: &str| directory.join(name);
    let kms = danger::local_kms(
        region(REGION),
        path("eu-central-1.root"),
        path("eu-central-1.signing"),
        Arc::new(SeededRandom::new(1)),
    )
    .unwrap();
    let key = kms.describe().await.unwrap().verifying_key;
    let configuration = format!(
        "here = \"{REGION}\"\nstore = \"sqlite://domicile.db\"\n[regions.{REGION}]\njurisdiction = \"EU\"\n\
         signing_key = \"{key}\"\n\
         kms = {{ provider = \"local\", root = \"eu-central-1.root\", signing = \"eu-central-1.signing\" }}\n"
    );
    std::fs::write(path("domicile.toml"), &configuration).unwrap();
    let store = Arc::new(SqliteStore::create(&path("domicile.db")).await.unwrap());
    let domicile = Domicile::builder(region(REGION), store.clone())
        .region(KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: key,
            kms: Some(Arc::new(kms)),
            store: store.clone(),
        })
        .clock(Arc::new(FixedClock("2026-11-24T08:00:00Z".parse().unwrap())))
        .randomness(Arc::new(SeededRandom::new(2)))
        .engine(Engine::RustCrypto)
        .actor("vectors")
        .build()
        .unwrap();
    for tenant in ["acme", "globex"] {
        domicile.choose_home(&scope(tenant), REGION).await.unwrap();
    }
    let mut segments = Vec::new();
    for suite in Suite::ALL {
        let bytes = segment(&domicile, suite).await;
        let name = format!("{}.dseg", suite.as_str().to_lowercase());
        std::fs::write(path(&name), &bytes).unwrap();
        segments.push(json!({ "name": name, "suite": suite.as_str(), "segment": hex(&bytes) }));
    }
    let records = records(&domicile).await;
    std::fs::write(path("records.json"), serde_json::to_vec(&records).unwrap()).unwrap();
    KeyStore::close(&*store).await;
    json!({
        "about": "A place made from a seed: see tests/tests/vectors.rs. All octets in hexadecimal.",
        "configuration": configuration,
        "root_file": std::fs::read_to_string(path("eu-central-1.root")).unwrap(),
        "signing_file": std::fs::read_to_string(path("eu-central-1.signing")).unwrap(),
        "key_rows": key_rows(&path("domicile.db")).await,
        "segments": segments,
        "records": records,
    })
}

/// Single records of two columns: an empty one, and one of a row whose id is a text.
async fn records(domicile: &Domicile) -> Vec<Value> {
    let mut all = Vec::new();
    for (tenant, context, row, record) in [
        ("acme", ["calls", "detail"], &7_i64.to_be_bytes()[..], &b"7,+15555550107"[..]),
        ("acme", ["calls", "detail"], &8_i64.to_be_bytes()[..], b""),
        ("globex", ["outbox", "body"], b"0192f0c4/8", b"record 8"),
    ] {
        let column = SealedRecords::new(domicile, &scope(tenant), RecordContext::new(&context).unwrap());
        let mut sealed = Vec::new();
        column.sealer().await.unwrap().seal(row, record, &mut sealed).unwrap();
        all.push(json!({
            "tenant": tenant, "type": "voice", "context": context, "row": hex(row), "sealed": hex(&sealed),
            "record": hex(record),
        }));
    }
    all
}

/// Two tenants; times, arrivals in order and out of order, a preamble, a postamble, a commit, a long record.
async fn segment(domicile: &Domicile, suite: Suite) -> Vec<u8> {
    let options = WriterOptions { suite, block_bytes: 100, ..WriterOptions::default() };
    let mut writer = SegmentWriter::create(domicile, &region(REGION), Vec::new(), options).await.unwrap();
    let lane = |tenant: &str, source: u32, contents: Contents| Descriptor {
        suite,
        source,
        context: vec![("table".into(), "calls".into())],
        ..descriptor(tenant, contents)
    };
    let all = Contents { event_times: true, arrivals: true, long_record: false };
    let acme = writer.open_lane(lane("acme", 0, all), b"number,caller\n").await.unwrap();
    let globex = writer.open_lane(lane("globex", 1, Contents::default()), b"").await.unwrap();
    let long = Contents { long_record: true, ..Contents::default() };
    let recording = writer.open_lane(lane("globex", 2, long), b"").await.unwrap();
    for number in 0..12i64 {
        let arrival = if number < 6 { number } else { number * 2 };
        let stamp = Stamp { time: Some(1_795_507_200_000_000 + number), arrival: Some(arrival) };
        writer.append(acme, format!("{number},+1555555010{}\n", number % 10).as_bytes(), stamp).unwrap();
        writer.append(globex, format!("record {number}").as_bytes(), Stamp::default()).unwrap();
    }
    writer.commit(b"queue offset 12").unwrap();
    writer.append_piece(recording, &[0x5a; 250], Stamp::default(), true).unwrap();
    writer.set_postamble(acme, b"# end\n").unwrap();
    writer.finish().await.unwrap().0
}

async fn key_rows(store: &Path) -> Vec<Value> {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(store)).await.unwrap();
    let rows = sqlx::query("SELECT * FROM keys ORDER BY kind, tenant").fetch_all(&pool).await.unwrap();
    let text = |row: &sqlx::sqlite::SqliteRow, name: &str| row.get::<String, _>(name);
    let number = |row: &sqlx::sqlite::SqliteRow, name: &str| row.get::<i64, _>(name);
    let octets = |row: &sqlx::sqlite::SqliteRow, name: &str| hex(&row.get::<Vec<u8>, _>(name));
    rows.iter()
        .map(|row| {
            json!({
                "kind": number(row, "kind"), "region": text(row, "region"), "tenant": text(row, "tenant"),
                "record_type": text(row, "record_type"), "period": text(row, "period"),
                "version": number(row, "version"), "generation": number(row, "generation"),
                "state": number(row, "state"), "name": octets(row, "name"),
                "commitment": octets(row, "commitment"), "parent_version": number(row, "parent_version"),
                "sealed": octets(row, "sealed"),
            })
        })
        .collect()
}

fn vectors_path() -> PathBuf {
    repository().join("tests/vectors/place-v1.json")
}

fn python() -> Option<PathBuf> {
    std::env::var_os("DOMICILE_PYTHON").map(PathBuf::from)
}

/// What the second reader finds in a segment, step by step.
fn values(python: &Path, directory: &Path, name: &str) -> Value {
    let mut reader = Command::new(python);
    reader
        .arg(repository().join("tests/interop/reader.py"))
        .arg("values")
        .arg(directory)
        .arg(directory.join(name));
    serde_json::from_slice(&succeed(&mut reader)).unwrap()
}

/// What it finds in the single records.
fn record_values(python: &Path, directory: &Path) -> Vec<Value> {
    let mut reader = Command::new(python);
    reader.arg(repository().join("tests/interop/records.py")).arg("values");
    reader.arg(directory).arg(directory.join("records.json"));
    serde_json::from_slice(&succeed(&mut reader)).unwrap()
}

#[tokio::test]
async fn what_is_written_from_the_seed_is_what_was_written_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut made = make(directory.path()).await;
    if std::env::var_os("DOMICILE_WRITE_VECTORS").is_some() {
        let python = python().expect("DOMICILE_PYTHON names a Python with `cryptography`");
        for segment in made["segments"].as_array_mut().unwrap() {
            let name = segment["name"].as_str().unwrap().to_owned();
            segment["values"] = values(&python, directory.path(), &name);
        }
        let found = record_values(&python, directory.path());
        for (record, found) in made["records"].as_array_mut().unwrap().iter_mut().zip(found) {
            record["values"] = found;
        }
        std::fs::write(vectors_path(), serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let mut kept: Value = serde_json::from_slice(&std::fs::read(vectors_path()).unwrap()).unwrap();
    for place in [&mut kept, &mut made] {
        for list in ["segments", "records"] {
            for one in place[list].as_array_mut().unwrap() {
                one.as_object_mut().unwrap().remove("values");
            }
        }
    }
    assert_eq!(made, kept);
}

#[tokio::test]
async fn the_second_reader_finds_the_same_intermediate_values() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: DOMICILE_PYTHON names no Python; scripts/test makes one");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let kept: Value = serde_json::from_slice(&std::fs::read(vectors_path()).unwrap()).unwrap();
    for segment in kept["segments"].as_array().unwrap() {
        let name = segment["name"].as_str().unwrap();
        assert_eq!(values(&python, directory.path(), name), segment["values"], "{name}");
    }
    let records = kept["records"].as_array().unwrap();
    for (record, found) in records.iter().zip(record_values(&python, directory.path())) {
        assert_eq!(found, record["values"]);
    }
}

#[test]
fn every_engine_opens_every_single_record_with_the_day_keys_of_the_vectors() {
    let kept: Value = serde_json::from_slice(&std::fs::read(vectors_path()).unwrap()).unwrap();
    let records = kept["records"].as_array().unwrap();
    assert_eq!(records.len(), 3);
    let octets = |value: &Value| unhex(value.as_str().unwrap());
    for (record, engine) in
        records.iter().flat_map(|record| Engine::available().into_iter().map(move |engine| (record, engine)))
    {
        let (sealed, values) = (octets(&record["sealed"]), &record["values"]);
        let parsed = SealedRecord::decode(&sealed).unwrap();
        let key = danger::xaes_key(&octets(&values["day_key"]).try_into().unwrap());
        let key = key.derive(&parsed.selector, engine).unwrap();
        let mut payload = parsed.ciphertext.to_vec();
        key.open(&parsed.nonce, &octets(&values["associated"]), &mut payload, &parsed.tag).unwrap();
        assert_eq!(hex(&payload), record["record"], "{engine}");
    }
}

#[test]
fn every_engine_opens_every_block_with_the_content_keys_of_the_vectors() {
    let kept: Value = serde_json::from_slice(&std::fs::read(vectors_path()).unwrap()).unwrap();
    let mut opened = 0;
    for segment in kept["segments"].as_array().unwrap() {
        let bytes = unhex(segment["segment"].as_str().unwrap());
        let suite = Suite::ALL.into_iter().find(|suite| segment["suite"] == suite.as_str()).unwrap();
        let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        let keys: Vec<[u8; 32]> = segment["values"]["lanes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lane| unhex(lane["content_key"].as_str().unwrap()).try_into().unwrap())
            .collect();
        for engine in Engine::available() {
            let mut at = SegmentHeader::BYTES;
            while at < bytes.len() {
                let encoded = bytes[at..].first_chunk().unwrap();
                let block = BlockHeader::decode(encoded, &header.id).unwrap();
                let body = at + BlockHeader::BYTES;
                at = body + block.body_bytes();
                if !block.flags.is_sealed() {
                    assert!(matches!(block.kind, BlockKind::LaneOpen | BlockKind::Footer));
                    continue;
                }
                let key = danger::content_key(suite, engine, &keys[block.lane.0 as usize]).unwrap();
                let mut payload = bytes[body..body + block.payload_bytes()].to_vec();
                let tag =
                    bytes[body + block.payload_bytes()..body + block.sealed_bytes()].try_into().unwrap();
                key.open(&block.nonce, encoded, &mut payload, &tag).unwrap();
                opened += 1;
            }
        }
    }
    assert!(opened > 40, "{opened} blocks");
}
