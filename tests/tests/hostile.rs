//! Files that somebody made who knows the format and has no key: numbers as large as they go, lists as long as
//! they go, footers that count one block many times. Whoever reads them takes no more time and memory than
//! an honest file of their length would.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fs::File;
use std::path::{Path, PathBuf};

use domicile::Purpose;
use domicile_record::format::{
    BlockFlags, BlockHeader, BlockKind, Contents, Descriptor, Footer, LaneKey, LaneNo, LaneOpen,
    SegmentHeader, footer_block,
};
use domicile_record::{Restored, Segment, Selection, Stamp, WriterOptions, inspect, verify, why};
use domicile_tests::program::{peak_memory, program, succeed};
use domicile_tests::{Counting, Home, blocks, descriptor, scope};

const MEMORY_BYTES_MAX: u64 = 100 << 20;

fn header_of(bytes: &[u8]) -> SegmentHeader {
    SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap()
}

/// A block with right checksums and, where it is sealed, a tag that somebody made up.
fn forged(bytes: &[u8], header: BlockHeader, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let header = BlockHeader { length, ..header };
    let mut block = header.encode(&header_of(bytes).id).to_vec();
    block.extend_from_slice(payload);
    block.resize(BlockHeader::BYTES + header.body_bytes(), 0);
    block
}

fn sealed(kind: BlockKind, lane: u32, sequence: u32, ordinal: u64) -> BlockHeader {
    let flags = BlockFlags::sealed();
    BlockHeader { kind, flags, lane: LaneNo(lane), sequence, ordinal, length: 0, nonce: [0; 12] }
}

/// Where the first block of a kind stands.
fn first(bytes: &[u8], kind: BlockKind) -> usize {
    blocks(bytes).iter().find(|(_, block)| block.kind == kind).unwrap().0
}

/// Two lanes with a few blocks each.
async fn sample(home: &Home) -> Vec<u8> {
    let mut writer = home.writer(WriterOptions { block_bytes: 40, ..WriterOptions::default() }).await;
    let acme = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let globex = Descriptor { source: 1, ..descriptor("globex", Contents::default()) };
    let globex = writer.open_lane(globex, b"").await.unwrap();
    for _ in 0..5 {
        writer.append(acme, b"acme's record\n", Stamp::default()).unwrap();
        writer.append(globex, b"globex' record\n", Stamp::default()).unwrap();
    }
    writer.finish().await.unwrap().0
}

async fn restored(home: &Home, bytes: &[u8]) -> (Vec<u8>, Restored) {
    let segment =
        Segment::open_source(&home.domicile, bytes, Purpose::Support, Selection::all()).await.unwrap();
    let mut output = Vec::new();
    let restored = segment.restore(&mut output).unwrap();
    (output, restored)
}

#[tokio::test]
async fn numbers_that_no_writer_reaches_are_no_block() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let (whole, _) = restored(&home, &bytes).await;
    let cut = first(&bytes, BlockKind::LaneEnd);
    for header in [
        sealed(BlockKind::Data, 1, u32::MAX, 40),
        sealed(BlockKind::Data, 1, 1 << 24, 40),
        sealed(BlockKind::Skippable(0x80), 1, 9, u64::MAX),
        sealed(BlockKind::Skippable(0x80), 1 << 20, 0, 40),
        sealed(BlockKind::Skippable(0x80), u32::MAX, 0, 40),
    ] {
        let extended = [&bytes[..cut], &forged(&bytes, header, b"")].concat();
        let (output, failures) = restored(&home, &extended).await;
        assert_eq!((&output, failures.failures.len()), (&whole, 0), "{header:?}");
        assert_eq!(inspect(&extended[..]).unwrap().state, "torn", "{header:?}");
        assert_eq!(verify(&home.domicile, &extended[..], None).await.unwrap().state, "torn", "{header:?}");
    }
}

#[tokio::test]
async fn a_gap_in_a_lane_is_one_failure_however_wide() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let (whole, _) = restored(&home, &bytes).await;
    let cut = first(&bytes, BlockKind::LaneEnd);
    for kind in [BlockKind::Data, BlockKind::LaneEnd] {
        let far = forged(&bytes, sealed(kind, 1, (1 << 24) - 1, 40), &[0; 28]);
        let extended = [&bytes[..cut], &far].concat();
        let selection = Selection::scopes(&[scope("acme")]);
        let segment =
            Segment::open_source(&home.domicile, &extended[..], Purpose::Support, selection).await.unwrap();
        let mut output = Vec::new();
        let found = segment.restore(&mut output).unwrap();
        // An end that does not verify, behind what was on disk, is a crash's work as any other block.
        let codes: Vec<_> = found.failures.iter().map(|error| error.code().as_str()).collect();
        assert_eq!(codes, ["segment/corrupt", "segment/torn"]);
        assert!(whole.starts_with(&output) && output.len() == 5 * 14);
        let verification = verify(&home.domicile, &extended[..], None).await.unwrap();
        assert!(!verification.is_complete());
    }
}

#[tokio::test]
async fn forged_ends_behind_a_lanes_own_are_not_its_end() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let (whole, _) = restored(&home, &bytes).await;
    let footer = first(&bytes, BlockKind::Footer);
    for lane in 0..=2 {
        let mut extended = bytes[..footer].to_vec();
        for sequence in [200, 1000, (1 << 24) - 1] {
            extended.extend(forged(&bytes, sealed(BlockKind::LaneEnd, lane, sequence, 40), &[0; 28]));
            extended.extend(forged(&bytes, sealed(BlockKind::Skippable(0x80), lane, sequence - 1, 41), b""));
        }
        let (output, failures) = restored(&home, &extended).await;
        assert_eq!((&output, failures.failures.len()), (&whole, 0), "lane {lane}");
        let verification = verify(&home.domicile, &extended[..], None).await.unwrap();
        assert!(verification.state().is_corrupt(), "lane {lane}: {verification:?}");
        let what = &verification.findings[0].what;
        assert!(what.contains("behind the end of lane 0") || what.contains("stands where"), "{what}");
    }
}

/// The blocks of a file under another edition, changed, with a footer that fits.
fn rewritten(bytes: &[u8], mut change: impl FnMut(&mut BlockHeader, &mut [u8])) -> Vec<u8> {
    let header = SegmentHeader { edition: 1, ..header_of(bytes) };
    let mut out = header.encode().to_vec();
    let mut lanes: std::collections::BTreeMap<LaneNo, (Option<LaneKey>, Vec<u64>)> = Default::default();
    for (at, mut block) in blocks(bytes) {
        if block.kind == BlockKind::Footer {
            let mut footer = Footer::new();
            for (key, offsets) in std::mem::take(&mut lanes).into_values() {
                footer.add(key.unwrap(), offsets);
            }
            let payload = footer.encode(&header, out.len() as u64).unwrap();
            out.extend(footer_block(&header.id, block.ordinal, &payload).unwrap());
            break;
        }
        let from = at + BlockHeader::BYTES;
        let mut body = bytes[from..from + block.body_bytes()].to_vec();
        let (key, offsets) = lanes.entry(block.lane).or_default();
        if block.kind == BlockKind::LaneOpen {
            let open = LaneOpen::decode(&body[..block.payload_bytes()], block.lane).unwrap();
            *key = Some(LaneKey::new(open.descriptor.scope, open.descriptor.period, block.lane));
        }
        offsets.push(out.len() as u64);
        change(&mut block, &mut body);
        out.extend(block.encode(&header.id));
        out.extend(body);
    }
    out
}

#[tokio::test]
async fn blocks_that_the_running_hash_never_reached_are_a_finding() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = sample(&home).await;
    let check = async |file: Vec<u8>| {
        // Of one tenant's lane alone, so that nothing but the running hash vouches for the other's blocks.
        let selection = Selection::scopes(&[scope("acme")]);
        let opening = Segment::open_source(&home.domicile, &file[..], Purpose::Verification, selection);
        opening.await.unwrap().verify().unwrap()
    };
    let whole = check(rewritten(&bytes, |_, _| {})).await;
    assert!(whole.is_complete(), "{whole:?}");
    for away in [None, Some((1 << 29) - 1)] {
        let mut away = away;
        let changed = rewritten(&bytes, |block, body| {
            if block.lane == LaneNo(2) && block.kind == BlockKind::Data {
                body[block.payload_bytes()] ^= 1;
                block.ordinal = away.take().unwrap_or(block.ordinal);
            }
        });
        let found = check(changed).await;
        assert!(!found.is_complete() && !found.findings.is_empty(), "{found:?}");
    }
}

/// A place, and a small segment of it.
struct Place {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory, bytes: Vec::new() };
        succeed(place.domicile().arg("init"));
        succeed(place.domicile().args(["home", "choose", "acme", "all", "--region", "eu-central-1"]));
        std::fs::write(place.path("in.txt"), "one\ntwo\n").unwrap();
        succeed(place.domicile().args(["seal", "in.txt", "--tenant", "acme", "--type", "voice"]).args([
            "--framing",
            "lines",
            "-o",
            "good.dseg",
        ]));
        Self { bytes: std::fs::read(place.path("good.dseg")).unwrap(), ..place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn domicile(&self) -> std::process::Command {
        let mut command = program();
        command.current_dir(self.directory.path());
        command
    }

    /// Has a file looked at in every way; each stays below the bound, and whoever verifies it says what it is.
    fn look(&self, file: &Path) {
        let length = file.metadata().unwrap().len();
        for arguments in
            [&["inspect"][..], &["why"], &["verify"], &["open", "--purpose", "verification", "-o", "out"]]
        {
            let (command, options) = arguments.split_first().unwrap();
            let mut looking = self.domicile();
            looking.arg(command).arg(file).args(options);
            looking.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let (peak, exit) = peak_memory(&mut looking.spawn().unwrap());
            assert!(peak < MEMORY_BYTES_MAX, "{command} of {length} octets took {peak}");
            assert!(*command != "verify" || !exit.success(), "{command}: {exit}");
            assert!(exit.code().is_some_and(|code| code < 100), "{command}: {exit}");
        }
    }

    fn look_at(&self, bytes: &[u8]) {
        let file = self.path("hostile.dseg");
        std::fs::write(&file, bytes).unwrap();
        self.look(&file);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// The payload of an opening with lists of so many empty pairs and fields.
fn opening(tenant: &str, record_type: &str, pairs: u32, fields: u32) -> Vec<u8> {
    let mut descriptor =
        [&[1][..], &text(tenant), &text(record_type), &text("2026-11"), &[0, 1, 0, 0, 0, 0]].concat();
    descriptor.extend([0; 4]);
    descriptor.extend(pairs.to_be_bytes());
    descriptor.extend(vec![0; 2 * pairs as usize]);
    descriptor.extend(fields.to_be_bytes());
    descriptor.extend([0, 1].repeat(fields as usize));
    descriptor.extend([0; 4]);
    let length = u32::try_from(descriptor.len()).unwrap().to_be_bytes();
    [&length[..], &descriptor, &[0; 32], &[0, 110, 1, 1], &[0; 108]].concat()
}

#[test]
fn openings_with_long_lists_take_no_memory() {
    let place = Place::new();
    let in_clear = |lane, ordinal| BlockHeader {
        flags: BlockFlags::default(),
        ..sealed(BlockKind::LaneOpen, lane, 0, ordinal)
    };
    let mut bytes = place.bytes[..SegmentHeader::BYTES].to_vec();
    for lane in 0..8 {
        for payload in [opening("_region", "segment", 0, 1_000_000), opening("acme", "voice", 1_000_000, 0)] {
            bytes.extend(forged(&place.bytes, in_clear(lane, u64::from(lane)), &payload));
        }
    }
    // As many lanes as fit, each as short as it can be.
    for lane in 8..10_000 {
        let payload = opening("acme", "voice", 0, 0);
        bytes.extend(forged(&place.bytes, in_clear(lane, u64::from(lane)), &payload));
    }
    place.look_at(&bytes);
}

#[test]
fn blocks_of_many_lanes_take_little_memory() {
    let place = Place::new();
    let mut bytes = place.bytes[..SegmentHeader::BYTES].to_vec();
    for lane in 0..100_000 {
        let header = sealed(BlockKind::Skippable(0x80), lane, lane % 7, u64::from(lane) * 3);
        bytes.extend(forged(&place.bytes, header, b""));
    }
    place.look_at(&bytes);
}

#[tokio::test]
async fn damage_between_all_blocks_does_not_make_a_file_be_read_many_times() {
    let home = Home::of(&["acme", "globex"]).await;
    let good = sample(&home).await;
    let mut bytes = good[..SegmentHeader::BYTES].to_vec();
    for number in 0..3000 {
        bytes.extend(forged(&good, sealed(BlockKind::Skippable(0x80), 1, number, u64::from(number)), b""));
        bytes.extend([0xff; 8]);
    }
    let source = Counting::new(&bytes);
    assert_eq!(inspect(&source).unwrap().blocks, 3000);
    let (read, length) = (source.read(), bytes.len() as u64);
    assert!(read < 20 * length, "{read} octets read of {length}");
}

/// Appends the CRC32C of octets.
fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes).to_be_bytes();
    bytes.extend(crc);
    bytes
}

#[test]
fn footer_entries_that_share_distances_take_no_memory() {
    const BLOCKS: u32 = 1_000_000;
    const LANES: u32 = 2000;
    let place = Place::new();
    let padded = |text: &str, length: usize| {
        let mut octets = [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        octets.resize(1 + length, 0);
        octets
    };
    let footer_at = first(&place.bytes, BlockKind::Footer);
    let mut distances = checked([0, 0, 0, 1].repeat(BLOCKS as usize - 1));
    distances.resize(distances.len().next_multiple_of(8), 0);
    let entries: Vec<Vec<u8>> = (1..=LANES)
        .map(|lane| {
            let mut entry = [padded("acme", 64), padded("voice", 32), padded("2026-11", 10)].concat();
            entry.extend(lane.to_be_bytes());
            entry.extend(112u64.to_be_bytes());
            entry.extend((112 + 8 * (u64::from(BLOCKS) - 1)).to_be_bytes());
            entry.extend(BLOCKS.to_be_bytes());
            entry.extend(0u64.to_be_bytes());
            entry
        })
        .collect();
    let pages: Vec<u8> = entries
        .chunks(29)
        .flat_map(|page| {
            let mut page = page.concat();
            page.resize(4092, 0);
            checked(page)
        })
        .collect();
    let keys = checked(entries.chunks(29).flat_map(|page| page[0][..113].to_vec()).collect());
    let tops = checked(entries[0][..113].to_vec());
    let places = [distances.len(), distances.len() + pages.len(), distances.len() + pages.len() + keys.len()];
    let mut payload = [&distances[..], &pages, &keys, &tops, &place.bytes[..SegmentHeader::BYTES]].concat();
    payload.resize((payload.len() + BlockHeader::BYTES).next_multiple_of(8) - BlockHeader::BYTES, 0);
    let mut trailer = b"\x89DSEGEND\0\x01\0\0".to_vec();
    trailer.extend(LANES.to_be_bytes());
    trailer.extend((footer_at as u64).to_be_bytes());
    places.iter().for_each(|place| trailer.extend((*place as u64).to_be_bytes()));
    trailer.extend([0; 12]);
    payload.extend(checked(trailer));
    let ordinal = blocks(&place.bytes).len() as u64 - 1;
    let footer = footer_block(&header_of(&place.bytes).id, ordinal, &payload).unwrap();
    place.look_at(&[&place.bytes[..footer_at], &footer].concat());
}

#[test]
fn a_footer_of_three_gibibytes_is_not_read() {
    let place = Place::new();
    let footer_at = first(&place.bytes, BlockKind::Footer);
    let header =
        BlockHeader::decode(place.bytes[footer_at..].first_chunk().unwrap(), &header_of(&place.bytes).id);
    let large = BlockHeader { length: 3 << 30, ..header.unwrap() };
    let encoded = large.encode(&header_of(&place.bytes).id);
    let path = place.path("large.dseg");
    std::fs::write(&path, [&place.bytes[..footer_at], &encoded].concat()).unwrap();
    // A hole, which takes no room on the disk.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(footer_at as u64 + large.block_bytes()).unwrap();
    place.look(&path);
}

#[tokio::test]
async fn a_block_that_is_called_something_else_is_missed() {
    use BlockKind::{Data, LaneEnd, Postamble, Preamble, Section, Skippable};
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 40, ..WriterOptions::default() }).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"head\n").await.unwrap();
    for number in 0..300 {
        writer.append(lane, format!("{number}\n").as_bytes(), Stamp::default()).unwrap();
    }
    writer.set_postamble(lane, b"foot\n").unwrap();
    let bytes = writer.finish().await.unwrap().0;
    let selections = [
        Selection::all(),
        Selection::all().records(0..250).unwrap(),
        Selection::all().records(100..300).unwrap(),
    ];
    let mut expected = Vec::new();
    for selection in &selections {
        let (output, reported) = shown(&home, &bytes, selection.clone()).await.unwrap();
        assert!(!reported && output.starts_with(b"head\n") && output.ends_with(b"foot\n"));
        expected.push(output);
    }
    let id = header_of(&bytes).id;
    let mut missed = 0;
    for (at, header) in blocks(&bytes).into_iter().filter(|(_, header)| header.lane == lane) {
        for kind in [Data, Preamble, Postamble, Section, LaneEnd, Skippable(0x80)] {
            if !header.flags.is_sealed() || header.kind == kind {
                continue;
            }
            let mut changed = bytes.clone();
            let renamed = BlockHeader { kind, ..header }.encode(&id);
            changed[at..][..BlockHeader::BYTES].copy_from_slice(&renamed);
            for (selection, expected) in selections.iter().zip(&expected) {
                // An error says so too.
                if let Ok((output, reported)) = shown(&home, &changed, selection.clone()).await {
                    assert!(reported || output == *expected, "{:?} called {kind:?}", header.kind);
                    missed += u32::from(reported);
                }
            }
        }
    }
    assert!(missed > 100, "{missed}");
}

/// What a selection gives, and whether anything was said to be wrong.
async fn shown(home: &Home, bytes: &[u8], selection: Selection) -> domicile::Result<(Vec<u8>, bool)> {
    let segment = Segment::open_source(&home.domicile, bytes, Purpose::Support, selection).await?;
    let mut output = Vec::new();
    let restored = segment.restore(&mut output)?;
    let locked = segment.lanes().iter().any(|lane| lane.obstacle().is_some());
    Ok((output, locked || !segment.state().is_whole() || !restored.failures.is_empty()))
}

#[tokio::test]
async fn many_unknown_keys_are_explained_in_a_few_words() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    writer.append(lane, b"a record", Stamp::default()).unwrap();
    let bytes = writer.finish().await.unwrap().0;
    let opening =
        blocks(&bytes).into_iter().find(|(_, block)| block.kind == BlockKind::LaneOpen && block.lane == lane);
    let (at, header) = opening.unwrap();
    let payload = &bytes[at + BlockHeader::BYTES..][..header.payload_bytes()];
    let open = LaneOpen::decode(payload, lane).unwrap();
    let mut many = bytes[..at].to_vec();
    for number in 1..3000_u32 {
        let mut wrapped = open.wrapped.clone();
        wrapped.as_mut().unwrap().tenant.key.0[..4].copy_from_slice(&number.to_be_bytes());
        let open = LaneOpen { wrapped, ..open.clone() }.encode().unwrap();
        let header = BlockHeader { lane: LaneNo(number), ordinal: number.into(), ..header };
        many.extend(forged(&bytes, header, &open));
    }
    let explanation = why(&home.domicile, &many[..]).await.unwrap();
    let [scope] = &explanation.scopes[..] else { panic!("{explanation:?}") };
    assert_eq!((scope.lanes, scope.obstacles.len()), (2999, 21));
    assert_eq!(scope.obstacles[20].what, "and 2979 more keys that cannot be had");
}
