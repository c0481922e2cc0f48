//! Every structure of the formats, decoded from any octets.

use domicile::checkpoint::Checkpoint;
use domicile::engine::Suite;
use domicile::home::HomeStatement;
use domicile::keyring::{WrappedDayKey, WrappedKey};
use domicile::ledger::{Said, Statement};
use domicile::wire::Malformed;
use domicile::{Period, Place, Scope, TenantId, Time};
use domicile_record::format::{
    Arrivals, BlockHeader, Commit, DataBlock, DataSummary, Descriptor, Footer, FooterEntry, LaneEnd, LaneKey,
    LaneNo, LaneOpen, Origin, SealedRecord, Sections, SegmentHeader, SegmentId, TimeSpan, Trailer,
};

use crate::octets::Octets;

/// Decodes one structure; whatever reads writes back to the same octets.
///
/// The first octet selects the structure (its low five bits, `Structure`). With its highest bit, checksums
/// are made right before: no fuzzer guesses them. The rest is the structure.
pub fn structures(data: &[u8]) {
    let mut input = Octets::new(data);
    let selector = input.u8();
    let (which, mend) =
        (Structure::ALL[usize::from(selector & 0x1f) % Structure::ALL.len()], selector >= 0x80);
    match which {
        Structure::SegmentHeader => segment_header(input.rest(), mend),
        Structure::BlockHeader => block_header(input.rest(), mend),
        Structure::Descriptor => {
            writes_back(input.rest(), Descriptor::decode, Descriptor::encode);
        }
        Structure::LaneOpen => {
            let octets = input.rest();
            let opens = [LaneNo::REGION, LaneNo(1)].map(|lane| {
                let decode = |octets: &[u8]| LaneOpen::decode(octets, lane);
                writes_back(octets, decode, LaneOpen::encode)
            });
            assert!(opens.iter().flatten().count() < 2, "an opening of lane 0 and of another");
            for open in opens.iter().flatten() {
                let descriptor = open.descriptor.encode().unwrap();
                writes_back(&descriptor, Descriptor::decode, Descriptor::encode).unwrap();
            }
        }
        Structure::DataBlock => data_block(input.rest()),
        Structure::LaneEnd => {
            writes_back(input.rest(), LaneEnd::decode, LaneEnd::encode);
        }
        Structure::Sections => {
            writes_back(input.rest(), Sections::decode, Sections::encode);
        }
        Structure::Commit => {
            writes_back(input.rest(), Commit::decode, Commit::encode);
        }
        Structure::WrappedKey => {
            writes_back(input.rest(), WrappedKey::decode, |wrapped| Ok(wrapped.encode()));
        }
        Structure::HomeStatement => {
            writes_back(input.rest(), HomeStatement::decode, HomeStatement::encode);
        }
        Structure::Trailer => trailer(input.rest(), mend),
        Structure::Keys => keys(input.rest(), mend),
        Structure::Distances => distances(input, mend),
        Structure::Footer => footer(input),
        Structure::Statement => {
            writes_back(input.rest(), Statement::decode, Statement::encode);
        }
        Structure::Checkpoint => {
            writes_back(input.rest(), Checkpoint::decode, Checkpoint::encode);
        }
        Structure::SealedRecord => sealed_record(input.rest()),
        Structure::WrappedDayKey => {
            let octets = input.rest();
            let day = writes_back(octets, WrappedDayKey::decode, |wrapped| Ok(wrapped.encode()));
            assert!(day.is_none() || WrappedKey::decode(octets).is_err(), "a wrap of two kinds");
        }
    }
}

/// What the first octet selects, in this order from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Structure {
    SegmentHeader,
    BlockHeader,
    Descriptor,
    LaneOpen,
    DataBlock,
    LaneEnd,
    Sections,
    Commit,
    WrappedKey,
    HomeStatement,
    /// The payload of a footer, which its trailer ends.
    Trailer,
    Keys,
    /// Offset of the lane's first block, then distances.
    Distances,
    /// Lanes, of which a footer is made.
    Footer,
    /// An entry of a ledger, whatever it says.
    Statement,
    /// What an entry says that is a checkpoint.
    Checkpoint,
    /// A record that was sealed alone.
    SealedRecord,
    WrappedDayKey,
}

impl Structure {
    pub(crate) const ALL: [Structure; 18] = [
        Structure::SegmentHeader,
        Structure::BlockHeader,
        Structure::Descriptor,
        Structure::LaneOpen,
        Structure::DataBlock,
        Structure::LaneEnd,
        Structure::Sections,
        Structure::Commit,
        Structure::WrappedKey,
        Structure::HomeStatement,
        Structure::Trailer,
        Structure::Keys,
        Structure::Distances,
        Structure::Footer,
        Structure::Statement,
        Structure::Checkpoint,
        Structure::SealedRecord,
        Structure::WrappedDayKey,
    ];

    /// The octet that selects it.
    pub(crate) fn selector(self) -> u8 {
        self as u8
    }
}

/// The id that block headers are read with.
pub(crate) const SEGMENT: SegmentId = SegmentId([7; 32]);

/// Decodes, encodes and compares.
fn writes_back<T>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    encode: fn(&T) -> Result<Vec<u8>, Malformed>,
) -> Option<T> {
    match decode(bytes) {
        Ok(structure) => {
            let again = encode(&structure).unwrap();
            assert_eq!(again, bytes, "what reads does not write back to the same octets");
            Some(structure)
        }
        Err(malformed) => {
            assert!(malformed.at <= bytes.len(), "a field that begins behind the end: {malformed}");
            None
        }
    }
}

fn sealed_record(bytes: &[u8]) {
    match SealedRecord::decode(bytes) {
        Ok(record) => {
            assert_eq!(record.encode(), bytes, "what reads does not write back to the same octets");
            assert_eq!(record.ciphertext.len() + SealedRecord::OVERHEAD_BYTES, bytes.len());
            assert_eq!(record.handle.name().0[..8], bytes[1..9]);
        }
        Err(malformed) => assert!(malformed.at <= bytes.len(), "a field behind the end: {malformed}"),
    }
}

fn segment_header(bytes: &[u8], mend: bool) {
    let Some(mut bytes) = bytes.first_chunk::<{ SegmentHeader::BYTES }>().copied() else { return };
    if mend {
        mend_last(&mut bytes, 0);
    }
    let Ok(header) = SegmentHeader::decode(&bytes) else { return };
    assert_eq!(header.encode(), bytes);
    assert_eq!(header.fixed(), bytes[..SegmentHeader::FIXED_BYTES]);
    let longer = SegmentHeader { edition: header.edition.wrapping_add(1), ..header.clone() };
    assert_eq!(longer.fixed(), header.fixed(), "the edition stands in what is authenticated");
}

fn block_header(bytes: &[u8], mend: bool) {
    let Some(mut bytes) = bytes.first_chunk::<{ BlockHeader::BYTES }>().copied() else { return };
    if mend {
        mend_last(&mut bytes, crc32c::crc32c(&SEGMENT.0));
    }
    let Ok(header) = BlockHeader::decode(&bytes, &SEGMENT) else { return };
    assert_eq!(header.encode(&SEGMENT), bytes);
    assert!(header.block_bytes().is_multiple_of(8), "a block that the next one cannot follow");
    assert!(header.body_bytes() >= header.sealed_bytes() && header.sealed_bytes() >= header.payload_bytes());
    BlockHeader::decode(&bytes, &SegmentId([8; 32])).unwrap_err();
}

fn data_block(payload: &[u8]) {
    let Ok(block) = DataBlock::decode(payload.to_vec()) else { return };
    let summary = *block.summary();
    assert!(!block.is_empty() && block.len() <= payload.len() / 4, "more records than there are offsets");
    assert_eq!(block.records().len(), block.len());

    let (mut values, mut ends) = (Vec::new(), Vec::new());
    for (index, record) in block.records().enumerate() {
        assert_eq!(block.record(index), Some(record));
        values.extend_from_slice(record);
        ends.push(u32::try_from(values.len()).unwrap());
    }
    assert_eq!((values.as_slice(), ends.len()), (block.values(), block.len()));
    assert_eq!(block.record(block.len()), None);
    assert_eq!((block.time(block.len()), block.arrival(block.len())), (None, None));

    let times: Vec<_> = (0..block.len()).filter_map(|index| block.time(index)).collect();
    assert_eq!(times.len(), if summary.has_times { block.len() } else { 0 });
    let arrivals: Vec<_> = (0..block.len()).filter_map(|index| block.arrival(index)).collect();
    let each: &[i64] = if summary.arrivals == Arrivals::Each { &arrivals } else { &[] };
    let mut again = values;
    summary.complete(&mut again, 0, &ends, &times, each);
    assert_eq!(again, payload, "what reads does not write back to the same octets");

    // What the block says of its records is what they say.
    let span = times.iter().copied().map(TimeSpan::at).reduce(TimeSpan::with);
    let counted = match summary.arrivals {
        Arrivals::None => arrivals.is_empty(),
        _ => arrivals.len() == block.len(),
    };
    assert_eq!(block.verify().is_ok(), span.is_none_or(|span| span == summary.span) && counted);
    let overhead = DataSummary::overhead(block.len(), summary.has_times, summary.arrivals == Arrivals::Each);
    assert!(payload.len() <= block.values().len() + overhead);
    assert_eq!(block.into_buffer(), payload);
}

fn trailer(payload: &[u8], mend: bool) {
    let Some((before, last)) = payload.split_last_chunk::<{ Trailer::BYTES }>() else { return };
    let mut last = *last;
    if mend {
        mend_last(&mut last, 0);
    }
    let Ok(trailer) = Trailer::decode(&last) else { return };
    let payload = [before, &last].concat();
    let part = |range: Option<std::ops::Range<u64>>| {
        let range = range?;
        let mut part =
            payload.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?.to_vec();
        if mend {
            mend_last(&mut part, 0);
        }
        Some(part)
    };
    // What the trailer claims may be any number: the octets that are there bound what is read.
    for page in 0..trailer.page_count().min(payload.len() / Footer::PAGE_BYTES + 1) {
        let Some(bytes) = part(trailer.page(page)) else { continue };
        let Ok(entries) = trailer.read_page(&bytes, page) else { continue };
        assert!(entries.len() * (LaneKey::BYTES + 28) <= bytes.len());
        for entry in &entries {
            one_key(&entry.key);
            if let Some(bytes) = part(trailer.distances(entry)) {
                lane_distances(entry, &bytes);
            }
        }
    }
    for range in [trailer.tops(), trailer.key_page(0), trailer.key_page(1), trailer.key_page(usize::MAX)] {
        if let Some(bytes) = part(range) {
            keys(&bytes, false);
        }
    }
    if let Some(bytes) = part(trailer.guide()) {
        guide(&bytes, &trailer);
    }
}

/// A guide and its checksum: it writes back, and names pages that there are.
fn guide(bytes: &[u8], trailer: &Trailer) {
    let Ok(guide) = Trailer::read_guide(bytes) else { return };
    assert_eq!(guide.encode(), bytes[..bytes.len() - 4], "a guide does not write back to the same octets");
    let pages = guide.pages_of(&Scope::of_region(), trailer.page_count());
    assert!(pages.start <= pages.end && pages.end <= trailer.page_count());
}

/// Keys, and their checksum behind them.
fn keys(bytes: &[u8], mend: bool) {
    let mut bytes = bytes.to_vec();
    if mend {
        mend_last(&mut bytes, 0);
    }
    let Ok(keys) = Trailer::read_keys(&bytes) else { return };
    assert_eq!(keys.len() * LaneKey::BYTES + 4, bytes.len(), "not every octet was accounted for");
    for (key, octets) in keys.iter().zip(bytes.chunks(LaneKey::BYTES)) {
        assert_eq!(one_key(key), octets, "a key does not write back to the same octets");
    }
}

/// The octets of a key, as a footer of this lane alone has them.
fn one_key(key: &LaneKey) -> Vec<u8> {
    let mut footer = Footer::new();
    footer.add(key.clone(), vec![0]);
    let payload = footer.encode(&any_header(), 0).unwrap();
    let trailer = Trailer::decode(payload.last_chunk().unwrap()).unwrap();
    let tops = slice(&payload, trailer.tops());
    assert_eq!(Trailer::read_keys(tops).unwrap(), std::slice::from_ref(key));
    tops[..LaneKey::BYTES].to_vec()
}

fn distances(mut input: Octets<'_>, mend: bool) {
    let (open_at, end_at) = (input.u64(), input.u64());
    let mut bytes = input.rest().to_vec();
    if mend {
        mend_last(&mut bytes, 0);
    }
    let key = LaneKey::new(Scope::of_region(), "2026-11".parse().unwrap(), LaneNo::REGION);
    // Nobody guesses the last offset either: where it is left out, it is what the distances lead to.
    let led_to = || {
        let (distances, _) = bytes.split_last_chunk::<4>()?;
        let steps = distances.as_chunks::<4>().0.iter().map(|step| u64::from(u32::from_be_bytes(*step)) * 8);
        steps.into_iter().try_fold(open_at, u64::checked_add)
    };
    let end_at = if end_at == 0 { led_to().unwrap_or(0) } else { end_at };
    let blocks = u32::try_from(bytes.len() / 4).unwrap();
    lane_distances(&FooterEntry { key, open_at, end_at, blocks, distances_from: 0 }, &bytes);
}

fn lane_distances(entry: &FooterEntry, bytes: &[u8]) {
    let Some(offsets) = Trailer::read_distances(entry, bytes) else { return };
    assert_eq!(offsets.len(), bytes.len() / 4, "as many blocks as distances and one more");
    assert_eq!((offsets[0], offsets[offsets.len() - 1]), (entry.open_at, entry.end_at));
    assert!(offsets.is_sorted_by(|left, right| left < right), "a block that does not stand behind another");
    if !bytes.len().is_multiple_of(4) {
        return;
    }
    let mut footer = Footer::new();
    footer.add(entry.key.clone(), offsets);
    let payload = footer.encode(&any_header(), 0).unwrap();
    assert_eq!(&payload[..bytes.len()], bytes, "distances do not write back to the same octets");
}

/// Makes a footer of lanes, and finds each of them again as a reader does.
fn footer(mut input: Octets<'_>) {
    let mut lanes: Vec<(LaneKey, Vec<u64>)> = Vec::new();
    let many = input.u8() % 4 == 3;
    while !input.is_empty() && lanes.len() < 8 {
        let tenant = input.pick(&["a", "a-", "A", "_region", "zz.top", "acme"]);
        let record_type = input.pick(&["voice", "voic", "voice-", "segment"]);
        let period: Period =
            input.pick(&["2026-11", "2026-W48", "2026-11-24", "0000-01", "9999-12-31"]).parse().unwrap();
        let scope = Scope {
            tenant: TenantId::stored(tenant).unwrap(),
            record_type: domicile::RecordType::stored(record_type).unwrap(),
        };
        let mut at = u64::from(input.u16()) * 8;
        let steps = input.short();
        let offsets = std::iter::once(at)
            .chain(steps.iter().map(|step| {
                at += (u64::from(*step) + 1) * 8;
                at
            }))
            .collect();
        let number = u32::try_from(lanes.len()).unwrap();
        lanes.push((LaneKey::new(scope, period, LaneNo(number)), offsets));
    }
    // So many lanes that they take a second page.
    let copies = if many { 30 / lanes.len().max(1) as u64 + 1 } else { 1 };
    let mut all = Vec::new();
    for copy in 0..copies {
        for (key, offsets) in &lanes {
            let number = u32::try_from(all.len()).unwrap();
            let key = LaneKey { lane: LaneNo(number), ..key.clone() };
            let offsets: Vec<_> = offsets.iter().map(|offset| offset + copy * 8).collect();
            all.push((key, offsets));
        }
    }
    let mut footer = Footer::new();
    all.iter().for_each(|(key, offsets)| footer.add(key.clone(), offsets.clone()));
    let payload = footer.encode(&any_header(), 1 << 40).unwrap();
    let trailer = Trailer::decode(payload.last_chunk().unwrap()).unwrap();
    assert_eq!((usize::try_from(trailer.lanes).unwrap(), trailer.footer_at), (all.len(), 1 << 40));
    assert!((payload.len() + BlockHeader::BYTES).is_multiple_of(8), "the trailer does not end the file");
    assert_eq!(trailer.guide().is_some(), trailer.page_count() > 1);
    let guide = trailer.guide().map(|range| Trailer::read_guide(slice(&payload, Some(range))).unwrap());
    let mut found = Vec::new();
    for page in 0..trailer.page_count() {
        let entries = trailer.read_page(slice(&payload, trailer.page(page)), page).unwrap();
        for entry in entries {
            let named = guide.as_ref().map(|guide| guide.pages_of(&entry.key.scope, trailer.page_count()));
            assert!(named.is_none_or(|named| named.contains(&page)), "the guide misses a lane");
            let distances = slice(&payload, trailer.distances(&entry));
            found.push((entry.key.clone(), Trailer::read_distances(&entry, distances).unwrap()));
        }
    }
    assert!(found.is_sorted_by(|left, right| left.0 < right.0), "the lanes of a footer are not sorted");
    all.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(found, all);
    let keys = Trailer::read_keys(slice(&payload, trailer.key_page(0))).unwrap();
    assert_eq!(keys.len(), trailer.page_count());
    let tops = Trailer::read_keys(slice(&payload, trailer.tops())).unwrap();
    assert_eq!(tops.first(), keys.first());
}

fn slice(payload: &[u8], range: Option<std::ops::Range<u64>>) -> &[u8] {
    let range = range.unwrap();
    &payload[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

/// Puts the checksum of what stands before them into the last four octets.
pub(crate) fn mend_last(bytes: &mut [u8], begun: u32) {
    if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c_append(begun, covered).to_be_bytes();
    }
}

/// A header of which nothing but its being there matters.
pub(crate) fn any_header() -> SegmentHeader {
    SegmentHeader {
        suite: Suite::Aes256Gcm,
        id: SEGMENT,
        place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
        created: Time::EPOCH,
        origin: Origin::Writer,
        edition: 0,
    }
}
