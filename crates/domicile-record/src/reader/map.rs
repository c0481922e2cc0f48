//! Where everything in a segment is: by its footer, or by a walk over its blocks. No key is needed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use domicile::{Code, Error, Result, Scope};

use super::source::Source;
use super::walk::{Step, Walker};
use crate::format::{
    BlockHeader, BlockKind, Descriptor, Footer, FooterEntry, Guide, LaneKey, LaneNo, LaneOpen, SegmentHeader,
    Trailer,
};

/// A segment's file: its header, and where its lanes are. What it says is a hint until a key vouches for it.
#[derive(Debug)]
pub(crate) struct SegmentFile<S> {
    pub(crate) source: S,
    pub(crate) length: u64,
    pub(crate) header: SegmentHeader,
    map: Map,
}

#[derive(Debug)]
enum Map {
    Footer(Trailer),
    Walked(WalkedMap),
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct WalkedMap {
    pub(crate) lanes: BTreeMap<LaneNo, WalkedLane>,
    pub(crate) blocks: u64,
    /// The footer block, if one was found.
    pub(crate) footer: Option<u64>,
    /// The first octets that are no block and have blocks behind them.
    pub(crate) damage: Option<Damage>,
    /// Octets at the end of the file that are no whole block.
    pub(crate) tail: Option<Damage>,
}

/// Octets that are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    /// Whole blocks before them: the ordinal that stood there, in a file as it was written.
    pub(crate) ordinal: u64,
}

/// A lane as a walk found it.
#[derive(Debug, Default)]
pub(crate) struct WalkedLane {
    /// Its opening, without context, findable fields and replaced segments: a walk keeps the openings of all lanes,
    /// and lists may be long.
    pub(crate) open: Option<Box<LaneOpen>>,
    pub(crate) blocks: Arc<BlockPlaces>,
    /// The places in the lane of its end: several, if all but one are forged or left over.
    pub(crate) ends: Vec<u32>,
    pub(crate) data_blocks: u64,
    pub(crate) block_bytes: u64,
}

/// A lane, and where its blocks are.
#[derive(Debug, Clone)]
pub(crate) struct LanePlace {
    pub(crate) key: LaneKey,
    pub(crate) blocks: Arc<BlockPlaces>,
    /// Where the lane may end, in rising order: the last of them that verifies is its end.
    pub(crate) ends: Vec<u32>,
}

/// The offsets of a lane's blocks, by their place in the lane. It takes as much memory as there are blocks,
/// whatever places their headers claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockPlaces(Vec<(u32, u64)>);

impl BlockPlaces {
    /// Where the block at this place is, if it was found.
    pub(crate) fn get(&self, sequence: u32) -> Option<u64> {
        match self.0.get(sequence as usize) {
            Some((place, at)) if *place == sequence => Some(*at),
            _ => {
                let found = self.0.binary_search_by_key(&sequence, |(place, _)| *place).ok()?;
                self.0.get(found).map(|(_, at)| *at)
            }
        }
    }

    /// The places of the blocks that were found, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.0.iter().map(|(place, _)| *place)
    }

    /// The first place at or behind this one of which a block was found.
    pub(crate) fn next_from(&self, sequence: u32) -> Option<u32> {
        match self.0.get(sequence as usize) {
            Some((place, _)) if *place == sequence => Some(sequence),
            _ => {
                let found = self.0.partition_point(|(place, _)| *place < sequence);
                self.0.get(found).map(|(place, _)| *place)
            }
        }
    }

    /// The blocks that were found at or behind a place, with their offsets.
    pub(super) fn from(&self, sequence: u32) -> impl Iterator<Item = (u32, u64)> {
        let first = self.0.partition_point(|(place, _)| *place < sequence);
        self.0.get(first..).unwrap_or_default().iter().copied()
    }

    /// How many blocks were found before an offset.
    pub(crate) fn count_before(&self, offset: u64) -> usize {
        self.0.iter().filter(|(_, at)| *at < offset).count()
    }

    /// How many blocks were found.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The last place of which a block was found.
    pub(crate) fn last(&self) -> Option<u32> {
        self.0.last().map(|(place, _)| *place)
    }

    fn push(&mut self, sequence: u32, at: u64) {
        self.0.push((sequence, at));
    }

    /// Puts the blocks into the order of the lane; of two that claim one place, the first in the file stays.
    fn sort(&mut self) {
        self.0.sort_by_key(|(place, _)| *place);
        self.0.dedup_by_key(|(place, _)| *place);
    }
}

impl FromIterator<u64> for BlockPlaces {
    fn from_iter<I: IntoIterator<Item = u64>>(offsets: I) -> Self {
        Self((0..).zip(offsets).collect())
    }
}

impl<S: Source> SegmentFile<S> {
    /// Reads the header, and the footer if there is one; walks otherwise.
    pub(crate) fn open(source: S) -> Result<Self> {
        if source.is_far()
            && let Some((header, length, trailer)) = read_end(&source)
        {
            return Ok(Self { source, length, header, map: Map::Footer(trailer) });
        }
        let (header, length) = read_header(&source)?;
        let map = match read_trailer(&source, &header, length) {
            Some(trailer) => Map::Footer(trailer),
            None => Map::Walked(walk(&source, &header, length)?),
        };
        Ok(Self { source, length, header, map })
    }

    /// Reads the header alone, of a file that grows: whoever reads it looks for blocks by himself.
    pub(crate) fn growing(source: S) -> Result<Self> {
        let (header, length) = read_header(&source)?;
        Ok(Self { source, length, header, map: Map::Walked(WalkedMap::default()) })
    }

    /// Takes note of how long the file is by now.
    pub(super) fn look_again(&mut self) -> Result<()> {
        self.length = self.source.length().map_err(|source| unreadable(0, source))?;
        Ok(())
    }

    /// Leaves the footer and walks, because what it said was not so.
    pub(crate) fn rewalk(&mut self) -> Result<&WalkedMap> {
        if let Map::Footer(_) = self.map {
            if self.source.is_far() {
                // What was read was the copy at the end.
                self.header = read_header(&self.source)?.0;
            }
            self.map = Map::Walked(walk(&self.source, &self.header, self.length)?);
        }
        match &self.map {
            Map::Walked(walked) => Ok(walked),
            Map::Footer(_) => Err(Error::new(Code::SegmentCorrupt, "the segment has no map")),
        }
    }

    /// Looks whether the file begins with the header that its end has a copy of: of what is far away, the copy alone was read.
    pub(crate) fn check_beginning(&self) -> Result<()> {
        if !self.source.is_far() || read_header(&self.source)?.0 == self.header {
            return Ok(());
        }
        Err(Error::new(
            Code::SegmentCorrupt,
            "the segment begins with another header than its end has a copy of",
        )
        .at("byte 0"))
    }

    /// What a walk found, if there was one.
    pub(crate) fn walked(&self) -> Option<&WalkedMap> {
        match &self.map {
            Map::Walked(walked) => Some(walked),
            Map::Footer(_) => None,
        }
    }

    /// Whether the footer is there, octet for octet as it was written: it is written last, so that the segment is whole then.
    pub(crate) fn has_whole_footer(&self) -> Result<bool> {
        let Map::Footer(trailer) = &self.map else { return Ok(false) };
        let mut at = trailer.footer_at + BlockHeader::BYTES as u64;
        let end = self.length.saturating_sub(Trailer::BYTES as u64);
        let (mut checksum, mut window) = (0, Vec::new());
        while at < end {
            window.resize(usize::try_from((end - at).min(256 << 10)).unwrap_or(0), 0);
            self.source.read_at(at, &mut window).map_err(|source| unreadable(at, source))?;
            checksum = crc32c::crc32c_append(checksum, &window);
            at += window.len() as u64;
        }
        Ok(checksum == trailer.checksum)
    }

    /// The lanes of a scope: with a footer, by two or three reads however many lanes there are.
    pub(crate) fn lanes_of(&self, scope: &Scope) -> Result<Vec<LanePlace>> {
        match &self.map {
            Map::Footer(trailer) => self.find_by_footer(trailer, scope),
            Map::Walked(_) => self.lanes(&|other| other == scope),
        }
    }

    /// The lanes whose scope is `wanted`, lane 0 among them if it is, in the order of their keys.
    pub(crate) fn lanes(&self, wanted: &dyn Fn(&Scope) -> bool) -> Result<Vec<LanePlace>> {
        match &self.map {
            Map::Footer(trailer) => {
                let mut places = Places::of(self, trailer);
                for page in 0..trailer.page_count() {
                    for entry in self.lane_page(trailer, page)? {
                        if wanted(&entry.key.scope) {
                            places.add(entry)?;
                        }
                    }
                }
                Ok(places.found)
            }
            Map::Walked(walked) => {
                let mut places: Vec<_> = walked
                    .lanes
                    .iter()
                    .filter_map(|(lane, found)| {
                        let descriptor = &found.open.as_ref()?.descriptor;
                        let key = LaneKey::new(descriptor.scope.clone(), descriptor.period, *lane);
                        wanted(&descriptor.scope).then(|| LanePlace {
                            key,
                            blocks: Arc::clone(&found.blocks),
                            ends: found.ends.clone(),
                        })
                    })
                    .collect();
                places.sort_by(|left, right| left.key.cmp(&right.key));
                Ok(places)
            }
        }
    }

    /// Reads a block that should be this lane's, at this place.
    pub(crate) fn read_block(
        &self,
        place: &LanePlace,
        sequence: u32,
        body: &mut Vec<u8>,
    ) -> Result<(BlockHeader, [u8; BlockHeader::BYTES])> {
        let at = place.blocks.get(sequence).ok_or_else(|| missing_block(place, sequence))?;
        let (header, encoded) = self.read_block_at(at, body)?;
        if header.lane != place.key.lane || header.sequence != sequence {
            return Err(Error::new(Code::SegmentCorrupt, "another block stands where this lane's should be")
                .at(format!("lane {}, block {sequence}, byte {at}", place.key.lane)));
        }
        Ok((header, encoded))
    }

    /// Reads the header alone of a block that should be this lane's: nothing vouches for it.
    pub(super) fn read_block_header(&self, place: &LanePlace, sequence: u32) -> Result<BlockHeader> {
        let at = place.blocks.get(sequence).ok_or_else(|| missing_block(place, sequence))?;
        let mut encoded = [0; BlockHeader::BYTES];
        self.source.read_at(at, &mut encoded).map_err(|source| unreadable(at, source))?;
        BlockHeader::decode(&encoded, &self.header.id).map_err(|source| no_block(at).because(source))
    }

    /// Reads the block at an offset, whosever it is.
    pub(crate) fn read_block_at(
        &self,
        at: u64,
        body: &mut Vec<u8>,
    ) -> Result<(BlockHeader, [u8; BlockHeader::BYTES])> {
        let mut encoded = [0; BlockHeader::BYTES];
        let room = self.length.checked_sub(at).and_then(|room| room.checked_sub(BlockHeader::BYTES as u64));
        let Some(room) = room else { return Err(no_block(at)) };
        self.source.read_at(at, &mut encoded).map_err(|source| unreadable(at, source))?;
        let header =
            BlockHeader::decode(&encoded, &self.header.id).map_err(|source| no_block(at).because(source))?;
        // Checked against what is left before anything is allocated; a footer is read page by page.
        if header.kind == BlockKind::Footer || header.body_bytes() as u64 > room {
            return Err(no_block(at));
        }
        self.read_body(at, &header, body)?;
        Ok((header, encoded))
    }

    /// Reads what stands behind the header of a block, which a walk found to be whole.
    pub(crate) fn read_body(&self, at: u64, header: &BlockHeader, body: &mut Vec<u8>) -> Result<()> {
        body.resize(header.body_bytes(), 0);
        self.source.read_at(at + BlockHeader::BYTES as u64, body).map_err(|source| unreadable(at, source))
    }

    fn find_by_footer(&self, trailer: &Trailer, scope: &Scope) -> Result<Vec<LanePlace>> {
        let pages = match self.guide(trailer)? {
            Some(guide) => guide.pages_of(scope, trailer.page_count()),
            None => self.page_by_keys(trailer, scope)?..trailer.page_count(),
        };
        // The guide names the pages, and they are few; without it they are looked at one by one.
        let at_once = if trailer.guide().is_some() { PAGES_AT_ONCE } else { 1 };
        let mut places = Places::of(self, trailer).fetching(self.source.is_far() && trailer.apart);
        let (mut from, mut past) = (pages.start, false);
        while from < pages.end && !past {
            let to = pages.end.min(from + at_once);
            let bytes = self.footer_part(trailer, trailer.pages(from..to))?;
            for (page, bytes) in (from..to).zip(bytes.chunks(Footer::PAGE_BYTES)) {
                let entries = trailer.read_page(bytes, page).map_err(damaged_footer)?;
                past = entries.last().is_some_and(|last| last.key.scope > *scope);
                for entry in entries.into_iter().filter(|entry| entry.key.scope == *scope) {
                    places.add(entry)?;
                }
            }
            from = to;
        }
        Ok(places.found)
    }

    fn guide(&self, trailer: &Trailer) -> Result<Option<Guide>> {
        let Some(range) = trailer.guide() else { return Ok(None) };
        let bytes = self.footer_part(trailer, Some(range))?;
        Trailer::read_guide(&bytes).map(Some).map_err(damaged_footer)
    }

    /// The first page that can hold a scope, by the key pages.
    fn page_by_keys(&self, trailer: &Trailer, scope: &Scope) -> Result<usize> {
        // The last key at or before the scope's first, or the first key of all.
        let page_of = |keys: &[LaneKey]| keys.partition_point(|key| key.scope < *scope).saturating_sub(1);
        let tops = Trailer::read_keys(&self.footer_part(trailer, trailer.tops())?).map_err(damaged_footer)?;
        let key_page = page_of(&tops);
        let keys = Trailer::read_keys(&self.footer_part(trailer, trailer.key_page(key_page))?)
            .map_err(damaged_footer)?;
        Ok(key_page * Footer::KEYS_PER_PAGE + page_of(&keys))
    }

    fn lane_page(&self, trailer: &Trailer, page: usize) -> Result<Vec<FooterEntry>> {
        trailer.read_page(&self.footer_part(trailer, trailer.page(page))?, page).map_err(damaged_footer)
    }

    fn footer_part(&self, trailer: &Trailer, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let payload_at = trailer.footer_at.checked_add(BlockHeader::BYTES as u64);
        let part = payload_at.zip(range).and_then(|(payload_at, range)| {
            let (start, end) = (payload_at.checked_add(range.start)?, payload_at.checked_add(range.end)?);
            (end <= self.length).then_some((start, usize::try_from(end - start).ok()?))
        });
        let Some((start, length)) = part else {
            return Err(damaged_footer(domicile::wire::Malformed { what: "a range of the footer", at: 0 }));
        };
        let mut bytes = vec![0; length];
        self.source.read_at(start, &mut bytes).map_err(|source| unreadable(start, source))?;
        Ok(bytes)
    }
}

/// Lane pages that are read at once: with the last 64 KiB, less than 128.
const PAGES_AT_ONCE: usize = Guide::PAGES_A_STEP_MAX as usize * 3 / 2;

/// Octets in which the end of a lane is looked for behind its beginning, of a lane without blocks of data; and of what share
/// of the lane there are more, because the end has an index of them.
const END_BYTES: u64 = 4 << 10;
const END_SHARE: u64 = 1024;

/// Octets of lanes that are fetched whole for one scope.
const FETCH_BYTES_MAX: u64 = 16 << 20;

/// Lanes that are placed by their entries in a footer.
struct Places<'a, S> {
    file: &'a SegmentFile<S>,
    trailer: &'a Trailer,
    /// Blocks that further entries may have: entries that share distances must not make many blocks of a few.
    blocks_left: u64,
    /// Octets of lanes that may be fetched whole; what is more might not be at hand any more when it is read.
    fetch_bytes_left: u64,
    found: Vec<LanePlace>,
}

impl<'a, S: Source> Places<'a, S> {
    fn of(file: &'a SegmentFile<S>, trailer: &'a Trailer) -> Self {
        Self { file, trailer, blocks_left: trailer.blocks_max(), fetch_bytes_left: 0, found: Vec::new() }
    }

    /// Fetches lanes whole.
    fn fetching(self, fetching: bool) -> Self {
        Self { fetch_bytes_left: if fetching { FETCH_BYTES_MAX } else { 0 }, ..self }
    }

    fn add(&mut self, entry: FooterEntry) -> Result<()> {
        let damaged = |what| damaged_footer(domicile::wire::Malformed { what, at: 0 });
        let left = self.blocks_left.checked_sub(u64::from(entry.blocks));
        self.blocks_left = left.ok_or_else(|| damaged("blocks of the lanes"))?;
        if entry.key.lane != LaneNo::REGION
            && let Some(place) = self.fetch(&entry)?
        {
            self.found.push(place);
            return Ok(());
        }
        let distances = self.file.footer_part(self.trailer, self.trailer.distances(&entry))?;
        let offsets = Trailer::read_distances(&entry, &distances);
        let offsets = offsets.ok_or_else(|| damaged("distances of a lane"))?;
        let blocks: BlockPlaces = offsets.into_iter().collect();
        let ends = blocks.last().into_iter().collect();
        self.found.push(LanePlace { key: entry.key, blocks: Arc::new(blocks), ends });
        Ok(())
    }
}

impl<S: Source> Places<'_, S> {
    /// Fetches a lane that lies apart whole, and finds its blocks by walking over them, which saves a read of their
    /// distances; none if it is too long for that, or not what its entry says.
    fn fetch(&mut self, entry: &FooterEntry) -> Result<Option<LanePlace>> {
        let (file, trailer) = (self.file, self.trailer);
        let Some(span) = entry.end_at.checked_sub(entry.open_at) else { return Ok(None) };
        let Some(left) = self.fetch_bytes_left.checked_sub(span).filter(|left| *left > 0) else {
            return Ok(None);
        };
        self.fetch_bytes_left = left;
        let end = entry.end_at.saturating_add(END_BYTES + span / END_SHARE).min(trailer.footer_at);
        let fetched =
            file.source.fetch(entry.open_at, end).map_err(|source| unreadable(entry.open_at, source))?;
        if !fetched {
            return Ok(None);
        }
        let mut walker = Walker::over(&file.source, &file.header, entry.open_at..trailer.footer_at);
        let mut blocks = BlockPlaces::default();
        loop {
            match walker.next().map_err(|source| unreadable(entry.open_at, source))? {
                Some(Step::Block { at, header, .. }) if at <= entry.end_at => {
                    if header.lane == entry.key.lane {
                        blocks.push(header.sequence, at);
                    }
                    if at == entry.end_at {
                        break;
                    }
                }
                _ => return Ok(None),
            }
        }
        let as_it_says = blocks.len() == entry.blocks as usize
            && blocks.iter().eq(0..entry.blocks)
            && blocks.get(0) == Some(entry.open_at)
            && blocks.0.last().map(|(_, at)| *at) == Some(entry.end_at);
        let ends = blocks.last().into_iter().collect();
        Ok(as_it_says.then(|| LanePlace { key: entry.key.clone(), blocks: Arc::new(blocks), ends }))
    }
}

/// The header of a segment: which it is, and where its records are at home. No key is needed, and nothing is vouched for.
///
/// # Errors
/// [`SegmentForeign`](Code::SegmentForeign) and the like for what is no segment; [`InputFailed`](Code::InputFailed).
pub fn header_of<S: Source>(source: S) -> Result<SegmentHeader> {
    if source.is_far()
        && let Some((header, ..)) = read_end(&source)
    {
        return Ok(header);
    }
    read_header(&source).map(|(header, _)| header)
}

/// Whether a segment has its footer, and that is whole: nobody writes it any longer. No key is needed, and nothing is vouched for.
///
/// # Errors
/// As [`header_of`].
pub fn is_finished<S: Source>(source: S) -> Result<bool> {
    SegmentFile::open(source)?.has_whole_footer()
}

/// What the end of a whole segment says: the copy of the header, the length, the trailer. Nothing before the last 64 KiB
/// is read, so that less is looked at than where the file is at hand.
fn read_end<S: Source>(source: &S) -> Option<(SegmentHeader, u64, Trailer)> {
    let length = source.length().ok()?;
    let mut bytes = [0; Trailer::BYTES];
    source.read_at(length.checked_sub(Trailer::BYTES as u64)?, &mut bytes).ok()?;
    let trailer = Trailer::decode(&bytes).ok()?;
    let payload_at = trailer.footer_at.checked_add(BlockHeader::BYTES as u64)?;
    let copy = trailer.header()?;
    let end = payload_at.checked_add(copy.end)?;
    // Padding, and the trailer, are all that follows it.
    let rest = length.checked_sub(end)?.checked_sub(Trailer::BYTES as u64)?;
    if rest >= 8 || payload_at <= SegmentHeader::BYTES as u64 {
        return None;
    }
    let mut bytes = [0; SegmentHeader::BYTES];
    source.read_at(payload_at.checked_add(copy.start)?, &mut bytes).ok()?;
    Some((SegmentHeader::decode(&bytes).ok()?, length, trailer))
}

fn read_header<S: Source>(source: &S) -> Result<(SegmentHeader, u64)> {
    let length = source.length().map_err(|source| unreadable(0, source))?;
    let mut bytes = [0; SegmentHeader::BYTES];
    let foreign = || {
        Error::new(Code::SegmentForeign, "this is not a segment")
            .advise("a segment is what `domicile seal` writes")
    };
    if length < SegmentHeader::BYTES as u64 {
        let mut start = vec![0; usize::try_from(length).unwrap_or(0)];
        source.read_at(0, &mut start).map_err(|source| unreadable(0, source))?;
        let begins =
            !start.is_empty() && SegmentHeader::MAGIC.iter().zip(&start).all(|(octet, found)| octet == found);
        return Err(if begins {
            Error::new(Code::SegmentTorn, "this segment was cut inside its header")
                .at(format!("byte {length}"))
                .advise("nothing can be read of it")
        } else {
            foreign()
        });
    }
    source.read_at(0, &mut bytes).map_err(|source| unreadable(0, source))?;
    if !bytes.starts_with(&SegmentHeader::MAGIC) {
        return Err(foreign());
    }
    let header = SegmentHeader::decode(&bytes).map_err(|source| {
        let (code, what) = match source.what {
            "version" | "suite" | "origin" | "flags" => (
                Code::SegmentUnsupported,
                "this segment's header is damaged, or of a version that this build does not read",
            ),
            _ => (Code::SegmentCorrupt, "this segment's header is damaged"),
        };
        Error::new(code, what).at("byte 0").because(source)
    })?;
    Ok((header, length))
}

/// The footer's trailer, if the file ends with one that fits.
fn read_trailer<S: Source>(source: &S, header: &SegmentHeader, length: u64) -> Option<Trailer> {
    let at = length.checked_sub(Trailer::BYTES as u64)?;
    let mut bytes = [0; Trailer::BYTES];
    source.read_at(at, &mut bytes).ok()?;
    let trailer = Trailer::decode(&bytes).ok()?;
    let mut encoded = [0; BlockHeader::BYTES];
    source.read_at(trailer.footer_at, &mut encoded).ok()?;
    let footer = BlockHeader::decode(&encoded, &header.id).ok()?;
    let ends = trailer.footer_at.checked_add(footer.block_bytes())? == length;
    (footer.kind == BlockKind::Footer && ends).then_some(trailer)
}

fn walk<S: Source>(source: &S, header: &SegmentHeader, length: u64) -> Result<WalkedMap> {
    let mut map = WalkedMap::default();
    let mut walker = Walker::new(source, header, length);
    let mut body = Vec::new();
    while let Some(step) = walker.next().map_err(|source| unreadable(0, source))? {
        match step {
            Step::Damage { at, bytes } => {
                map.damage.get_or_insert(Damage { at, bytes, ordinal: map.blocks });
            }
            Step::Tail { at, bytes } => map.tail = Some(Damage { at, bytes, ordinal: map.blocks }),
            Step::Block { at, header, .. } if header.kind == BlockKind::Footer => {
                map.blocks += 1;
                map.footer = Some(at);
            }
            Step::Block { at, header, .. } => {
                map.blocks += 1;
                let lane = map.lanes.entry(header.lane).or_default();
                lane.block_bytes += header.block_bytes();
                lane.data_blocks += u64::from(header.kind == BlockKind::Data);
                Arc::make_mut(&mut lane.blocks).push(header.sequence, at);
                match header.kind {
                    BlockKind::LaneOpen if header.sequence == 0 => {
                        body.resize(header.payload_bytes(), 0);
                        source
                            .read_at(at + BlockHeader::BYTES as u64, &mut body)
                            .map_err(|source| unreadable(at, source))?;
                        lane.open = LaneOpen::decode(&body, header.lane).ok().map(without_lists);
                    }
                    BlockKind::LaneEnd => lane.ends.push(header.sequence),
                    _ => {}
                }
            }
        }
    }
    for lane in map.lanes.values_mut() {
        Arc::make_mut(&mut lane.blocks).sort();
        lane.ends.sort_unstable();
        lane.ends.dedup();
    }
    Ok(map)
}

fn without_lists(mut open: LaneOpen) -> Box<LaneOpen> {
    let Descriptor { context, findable, replaces, .. } = &mut open.descriptor;
    (*context, *findable, *replaces) = Default::default();
    Box::new(open)
}

pub(crate) fn unreadable(at: u64, source: io::Error) -> Error {
    // A source that has an error of its own says more than that it could not be read.
    let source = match source.downcast::<Error>() {
        Ok(error) => return error.at(format!("byte {at}")),
        Err(source) => source,
    };
    Error::new(Code::InputFailed, "the segment could not be read").at(format!("byte {at}")).because(source)
}

pub(super) fn missing_block(place: &LanePlace, sequence: u32) -> Error {
    Error::new(Code::SegmentCorrupt, "a block of a lane is missing")
        .at(format!("lane {}, block {sequence}", place.key.lane))
}

fn no_block(at: u64) -> Error {
    Error::new(Code::SegmentCorrupt, "there is no whole block where one should be").at(format!("byte {at}"))
}

fn damaged_footer(source: domicile::wire::Malformed) -> Error {
    Error::new(Code::SegmentCorrupt, "the footer is damaged").because(source)
}
