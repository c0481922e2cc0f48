//! What an attacker or an accident can do to a segment: every single bit flipped, every length cut or
//! extended, blocks, lanes and files mixed. Each is refused or reported; none panics, none yields a wrong
//! byte.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use domicile::Purpose;
use domicile_record::format::{BlockHeader, Contents, Descriptor, SegmentHeader};
use domicile_record::{Segment, Selection, Stamp, State, Verification, WriterOptions, verify};
use domicile_tests::{Home, descriptor};

/// A small segment with one of each structure: two lanes with preamble and postamble, times and arrivals,
/// a commit, a long record; and what restoring it gives.
async fn sample(home: &Home) -> Vec<u8> {
    let mut writer = home.writer(WriterOptions { block_bytes: 40, ..Default::default() }).await;
    let contents = Contents { event_times: true, arrivals: true, long_record: false };
    let of_acme = writer.open_lane(descriptor("acme", contents), b"a,b\n").await.unwrap();
    let globex = Descriptor { source: 1, ..descriptor("globex", Contents::default()) };
    let of_globex = writer.open_lane(globex, b"").await.unwrap();
    let long = Contents { long_record: true, arrivals: true, ..Contents::default() };
    let long = Descriptor { source: 2, ..descriptor("acme", long) };
    let of_long = writer.open_lane(long, b"").await.unwrap();
    for number in 0..6i64 {
        let record = format!("{number},acme\n");
        writer
            .append(of_acme, record.as_bytes(), Stamp { time: Some(number), arrival: Some(number * 2) })
            .unwrap();
        writer.append(of_globex, b"globex", Stamp::default()).unwrap();
    }
    writer.commit(b"here").unwrap();
    writer.append_piece(of_long, &[7; 100], Stamp { time: None, arrival: Some(20) }, true).unwrap();
    writer.set_postamble(of_acme, b"end\n").unwrap();
    writer.finish().await.unwrap().0
}

/// What opening and verifying the bytes gives: whatever was readable, and whether it was called whole.
async fn look(home: &Home, bytes: &[u8]) -> (Option<Verification>, Vec<u8>) {
    let verification = verify(&home.domicile, bytes, None).await.ok();
    let mut output = Vec::new();
    if let Ok(segment) = Segment::open_source(&home.domicile, bytes, Purpose::Support, Selection::all()).await
    {
        let _ = segment.restore(&mut output);
    }
    (verification, output)
}

async fn restored(home: &Home, bytes: &[u8]) -> Vec<u8> {
    let (verification, output) = look(home, bytes).await;
    let verification = verification.unwrap();
    assert!(verification.is_complete(), "{verification:#?}");
    output
}

/// Whether `part` is what is left of `whole` when some of its lanes, or the ends of some, are missing.
fn is_left_of(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|octet| rest.any(|other| other == octet))
}

/// One place, one segment and one thread for each core: a flip takes milliseconds, and there are tens of thousands.
#[test]
fn every_single_bit_flip_is_refused_or_reported() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(flip_every_bit(first, threads));
            });
        }
    });
}

/// Flips every `step`th bit, from the `first` on.
async fn flip_every_bit(first: usize, step: usize) {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let whole = restored(&home, &bytes).await;
    for bit in (first..bytes.len() * 8).step_by(step) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (verification, output) = look(&home, &flipped).await;
        let block = blocks(&bytes).into_iter().rfind(|(at, ..)| *at <= bit / 8);
        assert!(
            !verification.is_some_and(|found| found.is_complete()),
            "bit {bit} of byte {} went unnoticed: {block:?}",
            bit / 8
        );
        assert!(is_left_of(&output, &whole), "bit {bit} of byte {} gave wrong bytes", bit / 8);
    }
}

#[tokio::test]
async fn every_cut_and_every_extension_is_refused_or_reported() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let whole = restored(&home, &bytes).await;
    for length in 0..bytes.len() {
        let (verification, output) = look(&home, &bytes[..length]).await;
        if let Some(found) = verification {
            assert!(!found.is_complete(), "a cut to {length} went unnoticed");
        }
        assert!(is_left_of(&output, &whole), "a cut to {length} gave wrong bytes");
    }
    for more in 1..=130usize {
        for octet in [0, 0xff, 0x42] {
            let extended = [&bytes[..], &vec![octet; more]].concat();
            let (verification, output) = look(&home, &extended).await;
            assert!(
                !verification.is_some_and(|found| found.is_complete()),
                "{more} more bytes went unnoticed"
            );
            assert_eq!(output, whole, "{more} more bytes changed what opens");
        }
    }
    let twice = [&bytes[..], &bytes[SegmentHeader::BYTES..]].concat();
    assert!(!look(&home, &twice).await.0.is_some_and(|found| found.is_complete()));
}

/// Offset and length of every block.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize, BlockHeader)> {
    let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let mut found = Vec::new();
    let mut at = SegmentHeader::BYTES;
    while at < bytes.len() {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &header.id).unwrap();
        let length = usize::try_from(block.block_bytes()).unwrap();
        found.push((at, length, block));
        at += length;
    }
    found
}

#[tokio::test]
async fn blocks_that_are_swapped_dropped_repeated_or_moved_are_noticed() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let whole = restored(&home, &bytes).await;
    let blocks = blocks(&bytes);
    let with_order = |order: &[usize]| {
        let parts = order.iter().map(|&index| &bytes[blocks[index].0..blocks[index].0 + blocks[index].1]);
        [&bytes[..SegmentHeader::BYTES]].into_iter().chain(parts).collect::<Vec<_>>().concat()
    };
    let order: Vec<_> = (0..blocks.len()).collect();
    assert_eq!(with_order(&order), bytes);
    let mut changed = Vec::new();
    for one in 0..order.len() {
        let mut dropped = order.clone();
        dropped.remove(one);
        changed.push((format!("without block {one}"), dropped));
        let mut repeated = order.clone();
        repeated.insert(one, one);
        changed.push((format!("block {one} twice"), repeated));
        for other in one + 1..order.len() {
            let mut swapped = order.clone();
            swapped.swap(one, other);
            changed.push((format!("blocks {one} and {other} swapped"), swapped));
        }
    }
    for (what, order) in changed {
        let (verification, output) = look(&home, &with_order(&order)).await;
        assert!(!verification.is_some_and(|found| found.is_complete()), "{what} went unnoticed");
        assert!(is_left_of(&output, &whole), "{what} gave wrong bytes");
    }
}

#[tokio::test]
async fn a_cut_between_blocks_is_unfinished_and_one_inside_a_block_is_torn() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    for (at, length, header) in blocks(&bytes) {
        if header.ordinal < 2 {
            continue;
        }
        let state = |bytes: Vec<u8>| {
            let home = &home;
            async move { verify(&home.domicile, &bytes[..], None).await.unwrap().state().clone() }
        };
        let ended = header.kind == domicile_record::format::BlockKind::Footer;
        let at_the_border = state(bytes[..at].to_vec()).await;
        let inside = state(bytes[..at + length - 1].to_vec()).await;
        if ended {
            // Lane 0 vouches for everything: what is missing is the footer alone.
            assert!(at_the_border.is_corrupt() && inside.is_corrupt(), "{at_the_border} {inside}");
        } else {
            assert_eq!(at_the_border, State::Unfinished, "block {}", header.ordinal);
            assert_eq!(
                inside,
                State::Torn { at: at as u64, bytes: length as u64 - 1 },
                "block {}",
                header.ordinal
            );
        }
    }
}
