//! The footer: where every lane and block is. Hints, in clear: whatever it says is checked against what
//! is sealed, and without it a reader walks the blocks.
//!
//! ```text
//! block distances (u32 each, a checksum behind each lane's) | lane pages (4 KiB each) | key pages (up to 512 keys each)
//!   | guide | first keys of the key pages | copy of the segment header | trailer (64 octets, the file's last)
//! ```
//!
//! The lane pages of a scope are found with two reads however many lanes there are: the file's last 64 KiB, in which the
//! [`Guide`] is, and a few pages that follow one another; together less than 128 KiB. Keys that the guide has no room for
//! take one read more, of a key page.

use std::cmp::Ordering;
use std::ops::Range;

use domicile::engine::NONCE_BYTES;
use domicile::wire::{Decoder, Encoder, Fixed, Malformed};
use domicile::{Period, RecordType, Scope, TenantId};

use super::guide::Guide;
use super::{BlockFlags, BlockHeader, BlockKind, LaneNo, Limits, SegmentHeader, SegmentId, padded};

/// How lanes are sorted in the footer: by tenant, record type, period as it is written, and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKey {
    /// Whose records.
    pub scope: Scope,
    /// Their period.
    pub period: Period,
    /// The lane's number.
    pub lane: LaneNo,
}

/// The longest period, `2026-11-24`.
const PERIOD_BYTES: usize = 10;

impl LaneKey {
    /// Octets of a key.
    pub const BYTES: usize = 1 + TenantId::LENGTH_MAX + 1 + RecordType::LENGTH_MAX + 1 + PERIOD_BYTES + 4;

    /// The key of a lane.
    #[must_use]
    pub fn new(scope: Scope, period: Period, lane: LaneNo) -> Self {
        Self { scope, period, lane }
    }

    /// Octets that are in order as keys are: texts that end in a zero, which none of them holds, and the number.
    pub(super) fn sorted(&self) -> Vec<u8> {
        let mut octets = Self::sorted_scope(&self.scope);
        octets.extend_from_slice(self.period.to_string().as_bytes());
        octets.push(0);
        octets.extend_from_slice(&self.lane.0.to_be_bytes());
        octets
    }

    /// What the sorted octets of all keys of a scope begin with, and those of no other.
    pub(super) fn sorted_scope(scope: &Scope) -> Vec<u8> {
        let mut octets = Vec::with_capacity(Self::BYTES);
        for text in [scope.tenant.as_str(), scope.record_type.as_str()] {
            octets.extend_from_slice(text.as_bytes());
            octets.push(0);
        }
        octets
    }

    fn encode<const N: usize>(&self, out: &mut Fixed<N>) {
        out.padded_text(self.scope.tenant.as_str(), TenantId::LENGTH_MAX)
            .padded_text(self.scope.record_type.as_str(), RecordType::LENGTH_MAX)
            .padded_text(&self.period.to_string(), PERIOD_BYTES)
            .u32(self.lane.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = input.malformed("key of a lane");
        let tenant = TenantId::stored(input.padded_text(TenantId::LENGTH_MAX, "tenant")?).map_err(|_| bad)?;
        let record_type = input.padded_text(RecordType::LENGTH_MAX, "record type")?;
        let record_type = RecordType::stored(record_type).map_err(|_| bad)?;
        let period = input.padded_text(PERIOD_BYTES, "period")?;
        let period: Period = period.parse().map_err(|_| bad)?;
        Ok(Self::new(Scope { tenant, record_type }, period, LaneNo(input.u32("lane")?)))
    }
}

impl Ord for LaneKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let periods = || self.period.to_string().cmp(&other.period.to_string());
        self.scope.cmp(&other.scope).then_with(periods).then_with(|| self.lane.cmp(&other.lane))
    }
}

impl PartialOrd for LaneKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where one lane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterEntry {
    /// Which lane.
    pub key: LaneKey,
    /// Offset in the file of its lane-open block.
    pub open_at: u64,
    /// Offset in the file of its lane-end block.
    pub end_at: u64,
    /// Its blocks, opening and end included.
    pub blocks: u32,
    /// Where its distances begin, in units of 4 octets from the footer's first.
    pub distances_from: u64,
}

impl FooterEntry {
    const BYTES: usize = LaneKey::BYTES + 8 + 8 + 4 + 8;
    const PER_PAGE: usize = (Footer::PAGE_BYTES - 4) / Self::BYTES;

    fn encode<const N: usize>(&self, out: &mut Fixed<N>) {
        self.key.encode(out);
        out.u64(self.open_at).u64(self.end_at).u32(self.blocks).u64(self.distances_from);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = input.malformed("entry of a lane");
        let entry = Self {
            key: LaneKey::decode(input)?,
            open_at: input.u64("offset of a lane")?,
            end_at: input.u64("offset of a lane's end")?,
            blocks: input.u32("blocks of a lane")?,
            distances_from: input.u64("distances of a lane")?,
        };
        if entry.blocks == 0 || entry.blocks > Limits::FORMAT.lane_blocks {
            return Err(bad);
        }
        Ok(entry)
    }
}

/// Where everything in a segment is, gathered by a writer or by a walk over the blocks.
#[derive(Debug, Default)]
pub struct Footer {
    lanes: Vec<(LaneKey, Vec<u64>)>,
}

impl Footer {
    /// Octets of a lane page.
    pub const PAGE_BYTES: usize = 4096;
    /// Keys of a key page.
    pub const KEYS_PER_PAGE: usize = 512;
    /// Octets that a reader takes from the end of a file to find its way.
    pub const TAIL_BYTES: usize = 64 << 10;

    /// A footer of no lanes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a lane, with the offsets in the file of its blocks, by their place in the lane.
    pub fn add(&mut self, key: LaneKey, offsets: Vec<u64>) {
        self.lanes.push((key, offsets));
    }

    /// The payload of the footer block that stands at `footer_at`.
    ///
    /// # Errors
    /// More than 4 GiB of footer.
    pub fn encode(&mut self, header: &SegmentHeader, footer_at: u64) -> Result<Vec<u8>, Malformed> {
        self.lanes.sort_by(|left, right| left.0.cmp(&right.0));
        let mut out = Encoder::new();
        let mut entries = Vec::with_capacity(self.lanes.len());
        let mut distances: u64 = 0;
        for (key, offsets) in &self.lanes {
            let (Some(open_at), Some(end_at)) = (offsets.first(), offsets.last()) else { continue };
            let blocks =
                u32::try_from(offsets.len()).map_err(|_| Malformed { what: "blocks of a lane", at: 0 })?;
            entries.push(FooterEntry {
                key: key.clone(),
                open_at: *open_at,
                end_at: *end_at,
                blocks,
                distances_from: distances,
            });
            let mut of_lane = Encoder::new();
            for pair in offsets.windows(2) {
                of_lane.u32(distance(pair));
            }
            checked(&mut out, &of_lane.finish());
            distances += u64::from(blocks);
        }
        while !out.len().is_multiple_of(8) {
            out.u32(0);
        }
        let pages_at = out.len();
        for page in entries.chunks(FooterEntry::PER_PAGE) {
            let mut bytes = Fixed::<{ Self::PAGE_BYTES - 4 }>::new();
            page.iter().for_each(|entry| entry.encode(&mut bytes));
            checked(&mut out, &bytes.finish());
        }
        let keys_at = out.len();
        let first_keys: Vec<_> =
            entries.chunks(FooterEntry::PER_PAGE).filter_map(|page| page.first()).collect();
        for page in first_keys.chunks(Self::KEYS_PER_PAGE) {
            checked(&mut out, &keys(page.iter().map(|entry| &entry.key)));
        }
        let pages: Vec<_> = entries.chunks(FooterEntry::PER_PAGE).collect();
        let room = Self::TAIL_BYTES
            - (SegmentHeader::BYTES + 8 + Trailer::BYTES)
            - (first_keys.len().div_ceil(Self::KEYS_PER_PAGE) * LaneKey::BYTES + 4);
        let guide_at = out.len();
        let guide = Guide::of(&pages, room.saturating_sub(4));
        if let Some(guide) = &guide {
            checked(&mut out, &guide.encode());
        }
        let tops_at = out.len();
        let tops = first_keys.chunks(Self::KEYS_PER_PAGE).filter_map(|page| page.first());
        checked(&mut out, &keys(tops.map(|entry| &entry.key)));
        out.raw(&header.encode());
        while out.len() != padded(out.len() + BlockHeader::BYTES) - BlockHeader::BYTES {
            out.u8(0);
        }
        let trailer = Trailer {
            footer_at,
            lanes: u32::try_from(entries.len()).map_err(|_| Malformed { what: "lanes", at: 0 })?,
            apart: self.is_apart(),
            pages_at: pages_at as u64,
            keys_at: keys_at as u64,
            tops_at: tops_at as u64,
            guide_at: guide.map_or(0, |_| guide_at as u64),
            checksum: 0,
        };
        let mut payload = out.finish();
        payload.extend_from_slice(&Trailer { checksum: crc32c::crc32c(&payload), ..trailer }.encode());
        Ok(payload)
    }
}

impl Footer {
    /// Whether no lane has blocks between those of another one; lane 0, which has some everywhere, aside.
    fn is_apart(&self) -> bool {
        let lanes = self.lanes.iter().filter(|(key, _)| key.lane != LaneNo::REGION);
        let mut spans: Vec<_> =
            lanes.filter_map(|(_, offsets)| Some((*offsets.first()?, *offsets.last()?))).collect();
        spans.sort_unstable();
        spans.iter().all(|(first, last)| first <= last)
            && spans.windows(2).all(|pair| matches!(pair, [before, next] if before.1 < next.0))
    }
}

/// A whole footer block.
///
/// # Errors
/// A payload of more than 4 GiB.
pub fn footer_block(segment: &SegmentId, ordinal: u64, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let header = BlockHeader {
        kind: BlockKind::Footer,
        flags: BlockFlags::default(),
        lane: LaneNo::NONE,
        sequence: 0,
        ordinal,
        length: u32::try_from(payload.len())
            .map_err(|_| Malformed { what: "length of the footer", at: 0 })?,
        nonce: [0; NONCE_BYTES],
    };
    let mut block = header.encode(segment).to_vec();
    block.extend_from_slice(payload);
    block.resize(BlockHeader::BYTES + header.body_bytes(), 0);
    Ok(block)
}

/// The distance from a block to the next of its lane, in units of 8 octets; 0 where it does not fit,
/// which sends a reader on a walk.
fn distance(pair: &[u64]) -> u32 {
    match pair {
        [from, to] => to.checked_sub(*from).and_then(|octets| u32::try_from(octets / 8).ok()).unwrap_or(0),
        _ => 0,
    }
}

/// Appends octets and their checksum.
fn checked(out: &mut Encoder, bytes: &[u8]) {
    out.raw(bytes).u32(crc32c::crc32c(bytes));
}

fn unchecked<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
    let bad = Malformed { what, at: 0 };
    let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(bad)?;
    if crc32c::crc32c(bytes).to_be_bytes() == *crc { Ok(bytes) } else { Err(bad) }
}

fn keys<'a>(keys: impl Iterator<Item = &'a LaneKey>) -> Vec<u8> {
    let mut out = Vec::new();
    for key in keys {
        let mut bytes = Fixed::<{ LaneKey::BYTES }>::new();
        key.encode(&mut bytes);
        out.extend_from_slice(&bytes.finish());
    }
    out
}

/// The last 64 octets of a complete segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Offset in the file of the footer block.
    pub footer_at: u64,
    /// How many lanes the footer lists, lane 0 among them.
    pub lanes: u32,
    /// Whether each lane lies apart: between its first block and its last there are no others but lane 0's.
    pub apart: bool,
    /// Where the lane pages begin in the footer's payload; the distances stand before them.
    pub pages_at: u64,
    /// Where the key pages begin.
    pub keys_at: u64,
    /// Where the first keys of the key pages begin.
    pub tops_at: u64,
    /// Where the guide begins, which ends where these do; 0 where it had no room.
    pub guide_at: u64,
    /// CRC32C over the footer's payload before the trailer.
    pub checksum: u32,
}

impl Trailer {
    /// Octets of the trailer.
    pub const BYTES: usize = 64;

    const MAGIC: [u8; 8] = *b"\x89DSEGEND";

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = Fixed::<{ Self::BYTES }>::new();
        out.raw(&Self::MAGIC)
            .u16(super::VERSION)
            .u16(u16::from(self.apart))
            .u32(self.lanes)
            .u64(self.footer_at)
            .u64(self.pages_at)
            .u64(self.keys_at)
            .u64(self.tops_at)
            .u32(self.checksum)
            .u64(self.guide_at);
        let crc = crc32c::crc32c(out.written());
        out.u32(crc).finish()
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = Malformed { what: "trailer of the footer", at: 0 };
        if input.array("magic of the trailer")? != Self::MAGIC || input.u16("version")? != super::VERSION {
            return Err(bad);
        }
        let apart = match input.u16("flags of the trailer")? {
            0 => false,
            1 => true,
            _ => return Err(bad),
        };
        let trailer = Self {
            apart,
            lanes: input.u32("lanes")?,
            footer_at: input.u64("offset of the footer")?,
            pages_at: input.u64("lane pages")?,
            keys_at: input.u64("key pages")?,
            tops_at: input.u64("first keys")?,
            checksum: input.u32("checksum of the footer")?,
            guide_at: input.u64("guide")?,
        };
        if trailer.encode() != *bytes || trailer.lanes > Limits::FORMAT.lanes {
            return Err(bad);
        }
        Ok(trailer)
    }

    /// How many lane pages there are.
    #[must_use]
    pub fn page_count(&self) -> usize {
        (self.lanes as usize).div_ceil(FooterEntry::PER_PAGE)
    }

    /// Where lane pages that follow one another are in the footer's payload.
    #[must_use]
    pub fn pages(&self, pages: Range<usize>) -> Option<Range<u64>> {
        let at =
            |index: usize| self.pages_at.checked_add((index as u64).checked_mul(Footer::PAGE_BYTES as u64)?);
        Some(at(pages.start)?..at(pages.end)?)
    }

    /// Where a lane page is in the footer's payload.
    #[must_use]
    pub fn page(&self, index: usize) -> Option<Range<u64>> {
        self.pages(index..index.checked_add(1)?)
    }

    /// Where a page of keys is in the footer's payload.
    #[must_use]
    pub fn key_page(&self, index: usize) -> Option<Range<u64>> {
        const FULL: u64 = (Footer::KEYS_PER_PAGE * LaneKey::BYTES + 4) as u64;
        let before = index.checked_mul(Footer::KEYS_PER_PAGE)?;
        let keys = self.page_count().checked_sub(before)?.min(Footer::KEYS_PER_PAGE);
        let start = self.keys_at.checked_add(index as u64 * FULL)?;
        Some(start..start.checked_add((keys * LaneKey::BYTES + 4) as u64)?)
    }

    /// Where the first keys of the key pages are in the footer's payload.
    #[must_use]
    pub fn tops(&self) -> Option<Range<u64>> {
        let keys = self.page_count().div_ceil(Footer::KEYS_PER_PAGE);
        Some(self.tops_at..self.tops_at.checked_add((keys * LaneKey::BYTES + 4) as u64)?)
    }

    /// Where the guide is in the footer's payload, if it had room.
    #[must_use]
    pub fn guide(&self) -> Option<Range<u64>> {
        let fits = self.keys_at < self.guide_at
            && self.guide_at < self.tops_at
            && self.tops_at - self.guide_at <= Footer::TAIL_BYTES as u64;
        fits.then_some(self.guide_at..self.tops_at)
    }

    /// Where the copy of the segment header is in the footer's payload.
    #[must_use]
    pub fn header(&self) -> Option<Range<u64>> {
        let start = self.tops()?.end;
        Some(start..start.checked_add(SegmentHeader::BYTES as u64)?)
    }

    /// Reads the guide.
    ///
    /// # Errors
    /// A damaged guide.
    pub fn read_guide(bytes: &[u8]) -> Result<Guide, Malformed> {
        Guide::decode(unchecked(bytes, "guide of the footer")?)
    }

    /// How many blocks all lanes together can have: there is a distance, or a checksum, for each.
    #[must_use]
    pub fn blocks_max(&self) -> u64 {
        self.pages_at / 4
    }

    /// Where the distances of a lane are in the footer's payload.
    #[must_use]
    pub fn distances(&self, entry: &FooterEntry) -> Option<Range<u64>> {
        let start = entry.distances_from.checked_mul(4)?;
        let end = start.checked_add(u64::from(entry.blocks).checked_mul(4)?)?;
        (end <= self.pages_at).then_some(start..end)
    }

    /// Reads a page of keys, or the first keys.
    ///
    /// # Errors
    /// A damaged page.
    pub fn read_keys(bytes: &[u8]) -> Result<Vec<LaneKey>, Malformed> {
        let mut input = Decoder::new(unchecked(bytes, "keys of the footer")?);
        let mut keys = Vec::with_capacity(bytes.len() / LaneKey::BYTES);
        while input.remaining() > 0 {
            keys.push(LaneKey::decode(&mut input)?);
        }
        Ok(keys)
    }

    /// Reads a lane page; `index` is its number.
    ///
    /// # Errors
    /// A damaged page.
    pub fn read_page(&self, bytes: &[u8], index: usize) -> Result<Vec<FooterEntry>, Malformed> {
        let mut input = Decoder::new(unchecked(bytes, "lane page of the footer")?);
        let before = index.saturating_mul(FooterEntry::PER_PAGE);
        let count = (self.lanes as usize).saturating_sub(before).min(FooterEntry::PER_PAGE);
        (0..count).map(|_| FooterEntry::decode(&mut input)).collect()
    }

    /// The offsets of a lane's blocks, from its entry and its distances; `None` where these are damaged, or
    /// where one did not fit.
    #[must_use]
    pub fn read_distances(entry: &FooterEntry, bytes: &[u8]) -> Option<Vec<u64>> {
        let bytes = unchecked(bytes, "distances of a lane").ok()?;
        let mut at = entry.open_at;
        let mut offsets = vec![at];
        for distance in bytes.as_chunks::<4>().0 {
            let distance = u64::from(u32::from_be_bytes(*distance));
            if distance == 0 {
                return None;
            }
            at = at.checked_add(distance * 8)?;
            offsets.push(at);
        }
        (at == entry.end_at).then_some(offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::tests::sample as header;

    fn key(number: u32) -> LaneKey {
        let scope = Scope::new(&format!("t-{number:06}"), RecordType::VOICE).unwrap();
        LaneKey::new(scope, "2026-11".parse().unwrap(), LaneNo(number))
    }

    fn footer(lanes: u32) -> (Trailer, Vec<u8>) {
        let mut footer = Footer::new();
        for number in (0..lanes).rev() {
            let at = u64::from(number) * 80;
            footer.add(key(number), vec![at, at + 16, at + 40]);
        }
        let payload = footer.encode(&header(), 1 << 40).unwrap();
        let trailer = Trailer::decode(payload.last_chunk().unwrap()).unwrap();
        (trailer, payload)
    }

    fn slice(payload: &[u8], range: Option<Range<u64>>) -> &[u8] {
        let range = range.unwrap();
        &payload[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
    }

    /// Finds a lane as a reader does: from the first keys to a key page to a lane page.
    fn find(trailer: &Trailer, payload: &[u8], wanted: &LaneKey) -> FooterEntry {
        let last_not_above = |keys: &[LaneKey]| keys.iter().rposition(|key| key <= wanted).unwrap();
        let tops = Trailer::read_keys(slice(payload, trailer.tops())).unwrap();
        let key_page = last_not_above(&tops);
        let keys = Trailer::read_keys(slice(payload, trailer.key_page(key_page))).unwrap();
        let page = key_page * Footer::KEYS_PER_PAGE + last_not_above(&keys);
        let entries = trailer.read_page(slice(payload, trailer.page(page)), page).unwrap();
        entries.into_iter().find(|entry| entry.key == *wanted).unwrap()
    }

    /// Finds a lane by the guide.
    fn guided(trailer: &Trailer, payload: &[u8], wanted: &LaneKey) -> FooterEntry {
        let mut pages = match trailer.guide() {
            Some(range) => {
                let guide = Trailer::read_guide(slice(payload, Some(range))).unwrap();
                guide.pages_of(&wanted.scope, trailer.page_count())
            }
            // One page needs none.
            None => 0..1,
        };
        assert!(trailer.guide().is_some() || trailer.page_count() == 1);
        let found = pages.find_map(|page| {
            let entries = trailer.read_page(slice(payload, trailer.page(page)), page).unwrap();
            entries.into_iter().find(|entry| entry.key == *wanted)
        });
        found.unwrap()
    }

    #[test]
    fn every_lane_is_found_by_its_key() {
        for lanes in [1, 2, 29, 30, 1000, 20_000] {
            let (trailer, payload) = footer(lanes);
            assert_eq!(trailer.lanes, lanes);
            for number in (0..lanes).step_by(1 + lanes as usize / 50) {
                let entry = find(&trailer, &payload, &key(number));
                assert_eq!(guided(&trailer, &payload, &key(number)), entry);
                let at = u64::from(number) * 80;
                let offsets = Trailer::read_distances(&entry, slice(&payload, trailer.distances(&entry)));
                assert_eq!(offsets, Some(vec![at, at + 16, at + 40]));
            }
        }
    }

    /// SEG-28.
    #[test]
    fn the_way_to_a_lane_of_the_largest_segment_is_128_kib() {
        // 2^20 lanes; 29 a page; 512 pages a key page; one first key each.
        let trailer = Trailer {
            footer_at: 0,
            lanes: 1 << 20,
            apart: false,
            pages_at: 0,
            keys_at: 0,
            tops_at: 0,
            guide_at: 0,
            checksum: 0,
        };
        let length = |range: Option<Range<u64>>| range.map(|range| range.end - range.start).unwrap();
        let tail = length(trailer.tops()) + SegmentHeader::BYTES as u64 + 8 + Trailer::BYTES as u64;
        assert!(tail <= Footer::TAIL_BYTES as u64);
        let read = Footer::TAIL_BYTES as u64 + length(trailer.key_page(0)) + length(trailer.page(0));
        assert!(read <= 128 << 10, "{read}");
    }

    #[test]
    fn damage_to_keys_pages_and_trailer_is_noticed() {
        let (trailer, payload) = footer(100);
        let from = usize::try_from(trailer.pages_at).unwrap();
        for at in (from..payload.len()).step_by(3) {
            let mut bad = payload.clone();
            bad[at] ^= 0x10;
            let Ok(found) = Trailer::decode(bad.last_chunk().unwrap()) else { continue };
            let pages = (0..trailer.page_count())
                .all(|page| found.read_page(slice(&bad, found.page(page)), page).is_ok());
            let keys = Trailer::read_keys(slice(&bad, found.key_page(0))).is_ok();
            let guide = Trailer::read_guide(slice(&bad, found.guide())).is_ok();
            let tops = Trailer::read_keys(slice(&bad, found.tops())).is_ok() && guide;
            // The copy of the header has a checksum of its own, and the padding none: a walk compares all.
            let rest = payload.len() - Trailer::BYTES - SegmentHeader::BYTES - 16;
            let copy = bad[rest..] != payload[rest..];
            assert!(!(pages && keys && tops) || copy, "octet {at} went unnoticed");
        }
    }
}
