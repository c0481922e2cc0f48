//! Structures as the formats' own encoders write them, and a few that are cut or changed.

use domicile::engine::Suite;
use domicile::home::{HomeStatement, StatedChoice, Types};
use domicile::keyring::{LeafRef, WrapKind, WrappedDayKey, WrappedKey};
use domicile::ledger::{Statement, StatementKind};
use domicile::store::{KeyHandle, KeyName};
use domicile::{LeafNumber, RecordType, Scope, Time};
use domicile_record::format::{
    Arrivals, BlockFlags, BlockHeader, BlockKind, Commit, Contents, DataSummary, Descriptor, DirectoryEntry,
    Findable, Footer, IndexEntry, LaneEnd, LaneKey, LaneNo, LaneOpen, SealedRecord, Section, Sections,
    SegmentHeader, SegmentId, Summary, TimeSpan, Trailer,
};
use domicile_record::framing::Framing;

use crate::structures::{SEGMENT, Structure, any_header};

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |structure: Structure, bytes: &[u8]| [&[structure.selector()], bytes].concat();
    let mended = |structure: Structure, bytes: &[u8]| [&[structure.selector() | 0x80], bytes].concat();
    let cut = |bytes: Vec<u8>, octets: usize| bytes[..bytes.len() - octets].to_vec();
    let footer = footer();
    let trailer = Trailer::decode(footer.last_chunk().unwrap()).unwrap();
    let part = |range: std::ops::Range<u64>| {
        footer[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    };
    vec![
        ("segment-header", of(Structure::SegmentHeader, &any_header().encode())),
        ("segment-header-with-the-longest-names", of(Structure::SegmentHeader, &longest_header().encode())),
        ("segment-header-of-a-later-version", mended(Structure::SegmentHeader, &later_header())),
        ("block-header-of-data", of(Structure::BlockHeader, &block(BlockKind::Data, 0).encode(&SEGMENT))),
        (
            "block-header-inside-a-record",
            of(
                Structure::BlockHeader,
                &block(BlockKind::Data, BlockFlags::CONTINUED | BlockFlags::CONTINUES).encode(&SEGMENT),
            ),
        ),
        (
            "block-header-of-a-kind-to-skip",
            of(Structure::BlockHeader, &block(BlockKind::Skippable(0x80), 0).encode(&SEGMENT)),
        ),
        (
            "block-header-with-an-unknown-flag",
            mended(Structure::BlockHeader, &block(BlockKind::Data, 0x80).encode(&SEGMENT)),
        ),
        ("descriptor-of-lines", of(Structure::Descriptor, &descriptor().encode().unwrap())),
        ("descriptor-of-lane-0", of(Structure::Descriptor, &region_descriptor().encode().unwrap())),
        ("lane-open-with-context", of(Structure::LaneOpen, &lane_open())),
        ("lane-open-cut-in-its-wrapped-key", of(Structure::LaneOpen, &cut(lane_open(), 40))),
        ("data-block-with-stamps", of(Structure::DataBlock, &data(true, Arrivals::Each))),
        ("data-block-that-counts-up", of(Structure::DataBlock, &data(false, Arrivals::From(-1)))),
        ("data-block-without-arrays", of(Structure::DataBlock, &data(false, Arrivals::None))),
        ("data-block-of-an-empty-record", of(Structure::DataBlock, &empty_record())),
        ("data-block-with-offsets-that-fall", of(Structure::DataBlock, &falling())),
        ("lane-end-with-an-index", of(Structure::LaneEnd, &lane_end(vec![index()]))),
        ("lane-end-of-lane-0", of(Structure::LaneEnd, &lane_end(vec![directory(), summary()]))),
        ("lane-end-with-a-section-to-skip", of(Structure::LaneEnd, &lane_end(vec![to_skip(), index()]))),
        ("lane-end-cut-in-a-section", of(Structure::LaneEnd, &cut(lane_end(vec![directory()]), 9))),
        ("sections-of-a-directory", of(Structure::Sections, &Sections(vec![directory()]).encode().unwrap())),
        ("commit-with-the-callers-octets", of(Structure::Commit, &commit(b"offset 1767601800"))),
        ("commit-of-nobody", of(Structure::Commit, &commit(b""))),
        ("wrapped-key", of(Structure::WrappedKey, &wrapped().encode())),
        ("home-statement-of-two", of(Structure::HomeStatement, &home_statement())),
        ("home-statement-that-claims-many", of(Structure::HomeStatement, &claims_many())),
        ("trailer-behind-a-page", mended(Structure::Trailer, &footer)),
        ("keys-of-one-page", of(Structure::Keys, &part(trailer.tops().unwrap()))),
        ("distances-of-three-blocks", of(Structure::Distances, &distances())),
        ("footer-of-two-lanes", of(Structure::Footer, b"\0\x05\0\0\0\x01\x02\x09\x08\x03\x03\0\0\x04\0")),
        ("ledger-entry-that-is-a-checkpoint", of(Structure::Statement, &ledger_entry().encode().unwrap())),
        ("checkpoint-of-two-chains", of(Structure::Checkpoint, &checkpoint(2))),
        ("checkpoint-that-claims-many", of(Structure::Checkpoint, &checkpoint(u32::MAX))),
        ("sealed-record", of(Structure::SealedRecord, &sealed_record(b"as long as the record"))),
        ("sealed-record-that-is-empty", of(Structure::SealedRecord, &sealed_record(b""))),
        ("sealed-record-cut-in-its-tag", of(Structure::SealedRecord, &cut(sealed_record(b""), 1))),
        ("sealed-record-of-a-later-version", of(Structure::SealedRecord, &later_record())),
        ("wrapped-day-key", of(Structure::WrappedDayKey, &wrapped_day().encode())),
        ("wrapped-day-key-that-is-a-lanes", of(Structure::WrappedDayKey, &wrapped().encode())),
        ("footer-of-two-pages", of(Structure::Footer, b"\x03\x05\0\0\0\x01\x01\x09\x03\x03\0\0\x04\0")),
    ]
}

fn sealed_record(ciphertext: &[u8]) -> Vec<u8> {
    let handle = KeyHandle([1; 8]);
    SealedRecord { handle, selector: [2; 12], nonce: [3; 12], ciphertext, tag: [4; 16] }.encode()
}

fn later_record() -> Vec<u8> {
    let mut record = sealed_record(b"record");
    record[0] = SealedRecord::VERSION + 1;
    record
}

fn wrapped_day() -> WrappedDayKey {
    let leaf = LeafRef { key: KeyName([1; 16]), leaf: LeafNumber(7) };
    WrappedDayKey { leaf, nonce: [2; 12], sealed: [3; 32], tag: [4; 16] }
}

/// Two heads, as they say or not, and a digest of keys.
fn checkpoint(claimed: u32) -> Vec<u8> {
    let head = |octet: u8| [&[octet; 16][..], &u64::from(octet).to_be_bytes(), &[octet; 32]].concat();
    let keys = [&[1][..], &9_u64.to_be_bytes(), &3_u64.to_be_bytes(), &[5; 32]].concat();
    [&claimed.to_be_bytes()[..], &head(1), &head(2), &keys].concat()
}

fn ledger_entry() -> Statement {
    Statement {
        region: "eu-central-1".parse().unwrap(),
        number: 7,
        previous: [3; 32],
        said: Time::from_micros(1_795_509_000_250_000).unwrap(),
        kind: StatementKind::Checkpoint,
        content: checkpoint(2),
    }
}

fn longest_header() -> SegmentHeader {
    let mut header = any_header();
    header.place.region = "r".repeat(32).parse().unwrap();
    header.place.jurisdiction = "J".repeat(16).parse().unwrap();
    header.suite = Suite::ChaCha20Poly1305;
    header.edition = 7;
    header
}

fn later_header() -> Vec<u8> {
    let mut bytes = any_header().encode().to_vec();
    bytes[9] = 2;
    bytes
}

fn block(kind: BlockKind, flags: u8) -> BlockHeader {
    BlockHeader {
        kind,
        flags: BlockFlags { may: 0, must: BlockFlags::SEALED | flags },
        lane: LaneNo(3),
        sequence: 4,
        ordinal: 5,
        length: 65_536,
        nonce: [9; 12],
    }
}

fn scope() -> Scope {
    Scope::new("acme", RecordType::VOICE).unwrap()
}

fn descriptor() -> Descriptor {
    Descriptor {
        framing: Some(Framing::Lines),
        contents: Contents { event_times: true, arrivals: true, long_record: false },
        source: 2,
        context: vec![("gateway".into(), "192.0.2.1".into()), ("shift".into(), String::new())],
        findable: vec![
            Findable { field: "from".into(), normaliser: 0x02 },
            Findable { field: "to".into(), normaliser: 0x01 },
        ],
        ..Descriptor::new(scope(), "2026-11-24".parse().unwrap(), Suite::Aes256Gcm)
    }
}

fn region_descriptor() -> Descriptor {
    Descriptor {
        replaces: vec![SegmentId([1; 32]), SegmentId([2; 32])],
        ..Descriptor::new(Scope::of_region(), "2026-W48".parse().unwrap(), Suite::ChaCha20Poly1305)
    }
}

fn wrapped() -> WrappedKey {
    let leaf = |octet| LeafRef { key: KeyName([octet; 16]), leaf: LeafNumber::new(1, octet.into()) };
    WrappedKey {
        kind: WrapKind::Lane,
        tenant: leaf(1),
        segment: leaf(2),
        nonce: [3; 12],
        sealed: [4; 32],
        tag: [5; 16],
    }
}

fn lane_open() -> Vec<u8> {
    LaneOpen { descriptor: descriptor(), commitment: [6; 32], wrapped: Some(wrapped()), post: None }
        .encode()
        .unwrap()
}

fn data(has_times: bool, arrivals: Arrivals) -> Vec<u8> {
    let records = ["+12015550102,17\n", "", "+12015550103,4\n"];
    let (mut payload, mut ends) = (Vec::new(), Vec::new());
    for record in records {
        payload.extend_from_slice(record.as_bytes());
        ends.push(u32::try_from(payload.len()).unwrap());
    }
    let span = if has_times { TimeSpan { earliest: -5, latest: 9 } } else { TimeSpan::at(1) };
    let summary = DataSummary { count: 3, first_record: 64, has_times, span, arrivals };
    summary.complete(&mut payload, 0, &ends, &[9, -5, 0], &[3, 5, 8]);
    payload
}

fn empty_record() -> Vec<u8> {
    let mut payload = Vec::new();
    let span = TimeSpan::at(0);
    let summary = DataSummary { count: 1, first_record: 0, has_times: false, span, arrivals: Arrivals::None };
    summary.complete(&mut payload, 0, &[0], &[], &[]);
    payload
}

fn falling() -> Vec<u8> {
    let mut payload = data(false, Arrivals::None);
    // The second of four offsets, which stand behind 31 octets of records and a zero.
    payload[32 + 4] = 30;
    payload
}

fn lane_end(sections: Vec<Section>) -> Vec<u8> {
    LaneEnd { data_blocks: 2, records: 100, bytes: 30_000, section_blocks: 0, sections }.encode().unwrap()
}

fn index() -> Section {
    let first = IndexEntry {
        sequence: 1,
        blocks: 16,
        first_record: 0,
        lowest_arrival: 3,
        span: TimeSpan { earliest: -1, latest: 5 },
    };
    Section::Index(vec![first, IndexEntry { sequence: 17, blocks: 1, first_record: 64, ..first }])
}

fn directory() -> Section {
    let entry = DirectoryEntry {
        lane: LaneNo(1),
        scope: scope(),
        period: "2026-11".parse().unwrap(),
        blocks: 3,
        records: 100,
        bytes: 30_000,
        end_hash: [4; 32],
    };
    Section::Directory(vec![entry.clone(), DirectoryEntry { lane: LaneNo(2), ..entry }])
}

fn summary() -> Section {
    Section::Summary(Summary {
        recovered: false,
        lanes: 2,
        blocks: 9,
        records: 200,
        bytes: 60_000,
        running_hash: [5; 32],
    })
}

fn to_skip() -> Section {
    Section::Skippable(0x80, b"of a later version".to_vec())
}

fn commit(caller: &[u8]) -> Vec<u8> {
    Commit { durable: 7, running_hash: [1; 32], caller: caller.to_vec() }.encode().unwrap()
}

fn statement() -> HomeStatement {
    let tenant = |name: &str| name.parse().unwrap();
    HomeStatement {
        place: any_header().place,
        by: "us-east-1".parse().unwrap(),
        signed: Time::EPOCH,
        choices: vec![
            StatedChoice { tenant: tenant("acme"), types: Types::All, except: vec![RecordType::VOICE] },
            StatedChoice { tenant: tenant("globex"), types: Types::One(RecordType::FAX), except: Vec::new() },
        ],
    }
}

fn home_statement() -> Vec<u8> {
    statement().encode().unwrap()
}

fn claims_many() -> Vec<u8> {
    let empty = HomeStatement { choices: Vec::new(), ..statement() };
    let mut bytes = empty.encode().unwrap();
    *bytes.last_chunk_mut().unwrap() = u32::MAX.to_be_bytes();
    bytes
}

fn footer() -> Vec<u8> {
    let mut footer = Footer::new();
    let period = "2026-11".parse().unwrap();
    footer.add(LaneKey::new(Scope::of_region(), period, LaneNo::REGION), vec![112, 700, 900]);
    footer.add(LaneKey::new(scope(), period, LaneNo(1)), vec![400, 800]);
    footer.encode(&any_header(), 1000).unwrap()
}

fn distances() -> Vec<u8> {
    let steps = [1u32.to_be_bytes(), 9u32.to_be_bytes()].concat();
    let crc = crc32c::crc32c(&steps).to_be_bytes();
    [&112u64.to_be_bytes()[..], &192u64.to_be_bytes(), &steps, &crc].concat()
}
