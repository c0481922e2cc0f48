//! Recordings: one record of any length, read as a stream and by ranges, in the memory of a block.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; --nocapture shows how much memory it was"
)]

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::process::Stdio;

use domicile::{Code, Error, Purpose};
use domicile_record::format::{BlockHeader, BlockKind, Contents, Descriptor, LaneNo};
use domicile_record::{Segment, Selection, Source, Stamp, WriterOptions};
use domicile_tests::program::{peak_memory, program, succeed};
use domicile_tests::{Counting, Home, blocks, descriptor, long_form, scope};

const BLOCK_BYTES: usize = 4096;

/// Octets that say where they stand.
fn octets(range: Range<u64>) -> Vec<u8> {
    range.map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn recording(tenant: &str) -> Descriptor {
    descriptor(tenant, Contents { long_record: true, ..Contents::default() })
}

/// A segment with one recording, in lane 1; a commit after each of these pieces but the last.
async fn recorded(home: &Home, pieces: &[usize], preamble: &[u8]) -> Vec<u8> {
    let mut writer = home.writer(WriterOptions { block_bytes: BLOCK_BYTES, ..Default::default() }).await;
    let lane = writer.open_lane(recording("acme"), preamble).await.unwrap();
    let mut at = 0;
    for (number, length) in (1..).zip(pieces) {
        let piece = octets(at..at + *length as u64);
        let last = number == pieces.len();
        writer.append_piece(lane, &piece, Stamp::default(), last).unwrap();
        if !last {
            writer.commit(b"").unwrap();
        }
        at += *length as u64;
    }
    writer.finish().await.unwrap().0
}

async fn open<S: Source>(home: &Home, source: S) -> Segment<S> {
    Segment::open_source(&home.domicile, source, Purpose::Support, Selection::all()).await.unwrap()
}

/// Reads ranges all over a recording, in an order that goes back and forth.
fn check<S: Source>(segment: &Segment<S>, length: u64, name: &str) {
    let mut record = segment.long_record(LaneNo(1)).unwrap();
    let mut whole = Vec::new();
    record.read_to_end(&mut whole).unwrap();
    assert!(whole == octets(0..length), "{name}: read through");
    assert_eq!(record.length().unwrap(), length, "{name}");
    assert_eq!(record.read(&mut [0; 9]).unwrap(), 0, "{name}: behind its end");

    let mut record = segment.long_record(LaneNo(1)).unwrap();
    for number in 0..200u64 {
        let start = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (length + 10);
        let end = start + number.wrapping_mul(0x2545_f491_4f6c_dd1d) % 9000;
        let mut output = Vec::new();
        let count = record.write_range(start..end, &mut output).unwrap();
        let expected = octets(start.min(length)..end.min(length));
        assert!(output == expected, "{name}: {start}..{end} of {length}");
        assert_eq!(count, expected.len() as u64, "{name}");
    }
    let mut last = vec![0; usize::try_from(length.min(100)).unwrap()];
    let from = record.seek(SeekFrom::End(-i64::try_from(last.len()).unwrap())).unwrap();
    record.read_exact(&mut last).unwrap();
    assert!(last == octets(from..length), "{name}: its end");
    assert!(record.seek(SeekFrom::Current(i64::MIN)).is_err(), "{name}");
}

#[tokio::test]
async fn a_recording_is_read_anywhere_however_its_pieces_were_cut() {
    let home = Home::of(&["acme"]).await;
    // Lengths whose sum is that of as many of the first, among them; and those that look so to whoever sees padded ones.
    for pieces in [
        vec![0],
        vec![1],
        vec![BLOCK_BYTES],
        vec![40 * BLOCK_BYTES],
        vec![40 * BLOCK_BYTES + 17],
        vec![100, 40 * BLOCK_BYTES],
        vec![7, 5000, 1, 30_000, 12],
        vec![320, 312, 328, 320],
        vec![316, 314, 318, 316],
        vec![320, 320, 320, 320, 8],
        vec![320, 320, 0],
    ] {
        for preamble in [&b""[..], b"RIFF"] {
            let bytes = recorded(&home, &pieces, preamble).await;
            let segment = open(&home, &bytes[..]).await;
            let length = pieces.iter().sum::<usize>() as u64;
            check(&segment, length, &format!("{pieces:?}"));
        }
    }
}

#[tokio::test]
async fn a_recording_without_an_end_is_as_long_as_what_is_there() {
    let home = Home::of(&["acme"]).await;
    let bytes = recorded(&home, &[100, 9000, 50_000, 5], b"RIFF").await;
    let data: Vec<_> =
        blocks(&bytes).into_iter().filter(|(_, block)| block.kind == BlockKind::Data).collect();
    let cut = data.last().unwrap().0;
    let segment = open(&home, &bytes[..cut]).await;
    assert!(!segment.state().is_whole());
    check(&segment, 59_100, "without an end");
}

#[tokio::test]
async fn of_a_range_only_its_blocks_are_read() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: BLOCK_BYTES, ..Default::default() }).await;
    let lane = writer.open_lane(recording("acme"), b"").await.unwrap();
    let other = Descriptor { source: 1, ..recording("globex") };
    let other = writer.open_lane(other, b"").await.unwrap();
    const LENGTH: u64 = 400 * BLOCK_BYTES as u64 + 100;
    for start in (0..LENGTH).step_by(1000) {
        let end = LENGTH.min(start + 1000);
        // The other's blocks lie between, here and there.
        if start % 3000 == 0 {
            writer.append_piece(other, &octets(start..end), Stamp::default(), false).unwrap();
        }
        writer.append_piece(lane, &octets(start..end), Stamp::default(), end == LENGTH).unwrap();
    }
    writer.append_piece(other, b"", Stamp::default(), true).unwrap();
    let (bytes, _) = writer.finish().await.unwrap();
    let source = Counting::new(&bytes);
    let selection = Selection::scopes(&[scope("acme")]);
    let segment = Segment::open_source(&home.domicile, &source, Purpose::Support, selection).await.unwrap();
    let block = BLOCK_BYTES as u64 + 200;
    let before = source.read();
    let mut record = segment.long_record(lane).unwrap();
    let mut output = Vec::new();
    record.write_range(1_500_000..1_510_000, &mut output).unwrap();
    assert!(output == octets(1_500_000..1_510_000));
    // Three or four blocks of the range, the first and the last, and some headers.
    let read = source.read() - before;
    assert!(read < 6 * block + 400 * BlockHeader::BYTES as u64, "{read} octets of {}", bytes.len());
    let before = source.read();
    record.write_range(20_000..20_001, &mut output).unwrap();
    assert!(source.read() - before <= block, "now it is known where they stand");
    check(&segment, LENGTH, "beside another");
}

#[tokio::test]
async fn what_does_not_verify_is_not_given_and_what_does_is() {
    let home = Home::of(&["acme"]).await;
    let mut bytes = recorded(&home, &[40 * BLOCK_BYTES], b"").await;
    let data: Vec<_> =
        blocks(&bytes).into_iter().filter(|(_, block)| block.kind == BlockKind::Data).collect();
    bytes[data[20].0 + BlockHeader::BYTES] ^= 1;
    let segment = open(&home, &bytes[..]).await;
    let mut record = segment.long_record(LaneNo(1)).unwrap();
    let broken = 20 * BLOCK_BYTES as u64;
    let mut output = Vec::new();
    record.write_range(broken - 10..broken, &mut output).unwrap();
    record.write_range(broken + BLOCK_BYTES as u64..broken + 5000, &mut output).unwrap();
    let error = record.write_range(broken - 10..broken + 1, &mut output).unwrap_err();
    assert_eq!(error.code(), Code::BlockUnverified);
    assert_eq!(record.position(), broken, "up to there it is authentic");
    let mut whole = Vec::new();
    let error = segment.long_record(LaneNo(1)).unwrap().read_to_end(&mut whole).unwrap_err();
    assert!(whole == octets(0..broken));
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()).unwrap();
    assert_eq!(cause.code(), Code::BlockUnverified);
}

#[tokio::test]
async fn a_record_that_is_alone_in_its_lane_is_one_though_it_is_short() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    writer.append(lane, &octets(0..5000), Stamp::default()).unwrap();
    let two = writer.open_lane(descriptor("globex", Contents::default()), b"").await.unwrap();
    writer.append(two, b"one", Stamp::default()).unwrap();
    writer.append(two, b"two", Stamp::default()).unwrap();
    let (bytes, _) = writer.finish().await.unwrap();
    let segment = open(&home, &bytes[..]).await;
    check(&segment, 5000, "short");
    let code = |lane| segment.long_record(LaneNo(lane)).map(|_| ()).unwrap_err().code();
    assert_eq!((code(2), code(3)), (Code::ArgumentInvalid, Code::LaneNone));
}

/// The program, from a pipe and by ranges: 64 MiB, or 1 GiB in the long form.
#[test]
fn a_recording_is_sealed_and_opened_in_the_memory_of_a_few_blocks() {
    const MEMORY_BYTES_MAX: u64 = 40 << 20;
    let length: u64 = if long_form() { 1 << 30 } else { 64 << 20 };
    let directory = tempfile::tempdir().unwrap();
    let domicile = || {
        let mut command = program();
        command.current_dir(directory.path());
        command
    };
    succeed(domicile().arg("init"));
    succeed(domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
    let mut sealing = domicile()
        .args(["seal", "-", "--tenant", "acme", "--type", "call-recording", "--framing", "whole"])
        .args(["-o", "call.dseg"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = sealing.stdin.take().unwrap();
    let watch = std::thread::spawn(move || peak_memory(&mut sealing));
    for start in (0..length).step_by(1 << 20) {
        pipe.write_all(&octets(start..start + (1 << 20))).unwrap();
    }
    drop(pipe);
    let (sealing_peak, exit) = watch.join().unwrap();
    assert!(exit.success() && sealing_peak > 0 && sealing_peak < MEMORY_BYTES_MAX, "{sealing_peak}");
    for range in [0..100, length / 2 - 1..length / 2 + 500_000, length - 3..length, length - 3..u64::MAX] {
        let bytes = format!("{}..{}", range.start, range.end);
        let output = directory.path().join("range");
        let mut opening = domicile()
            .args(["open", "call.dseg", "--purpose", "support", "--bytes", &bytes, "--force", "-o"])
            .arg(&output)
            .spawn()
            .unwrap();
        let (peak, exit) = peak_memory(&mut opening);
        assert!(exit.success() && peak > 0 && peak < MEMORY_BYTES_MAX, "{bytes}: {exit}, {peak} octets");
        assert!(std::fs::read(&output).unwrap() == octets(range.start..range.end.min(length)), "{bytes}");
        println!("{length} octets, {bytes}: {} MiB, and {} MiB to seal", peak >> 20, sealing_peak >> 20);
    }
}
