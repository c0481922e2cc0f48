//! Verifying a segment: every tag, total and index, from its first octet to its last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use domicile::engine::TAG_BYTES;
use domicile::keyring::LeafRef;
use domicile::wire::Malformed;
use domicile::{Class, Domicile, Purpose, Request, Result};
use serde::Serialize;

use crate::format::{
    Arrivals, BlockHeader, BlockKind, Commit, DirectoryEntry, Footer, IndexEntry, LaneEnd, LaneKey, LaneNo,
    LaneOpen, Origin, Section, SegmentHeader,
};
use crate::reader::{Damage, ReadableLane, Segment, Selection, Source, State, Step, Walker, unreadable};
use crate::running_hash::{RunningHash, end_hash};

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// The segment's name, in hexadecimal.
    pub segment: String,
    /// Its region.
    pub region: String,
    /// The word for its state.
    pub state: &'static str,
    /// The state in a sentence.
    pub detail: String,
    /// Blocks whose tags were checked.
    pub blocks: u64,
    /// Records that were opened.
    pub records: u64,
    /// Octets of these records.
    pub bytes: u64,
    /// The lanes.
    pub lanes: Vec<LaneVerification>,
    /// What is wrong, in the order of the file; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    #[serde(skip)]
    verdict: State,
}

/// One lane of a verified segment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LaneVerification {
    /// Its number.
    pub lane: u32,
    /// Whose records.
    pub tenant: String,
    /// Of which type.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Their period.
    pub period: String,
    /// Its records.
    pub records: u64,
    /// Octets of its records.
    pub bytes: u64,
    /// Why it could not be read, as a code.
    pub obstacle: Option<&'static str>,
    /// The class of that code.
    #[serde(skip)]
    pub class: Option<Class>,
}

/// Something that is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Offset in the file.
    pub at: u64,
    /// The lane, where it is known.
    pub lane: Option<u32>,
    /// What is wrong.
    pub what: String,
}

/// Blocks that wait for one of a lower ordinal: a bound to what a file takes whose blocks come in no order. Where more would,
/// they are read once more, by ordinal.
const WAITING_MAX: usize = 1 << 16;

/// How much of a footer is read at once.
const FOOTER_WINDOW_BYTES: usize = 64 << 10;

/// The most findings that a verification lists.
pub const FINDINGS_MAX: usize = 100;

impl Verification {
    /// Whether the segment is whole, and everything in it was opened and is as it was sealed. Lanes that were
    /// erased on purpose are no fault; lanes whose keys are not to be had here could not be verified.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let opened = self.lanes.iter().all(|lane| matches!(lane.class, None | Some(Class::Erased)));
        self.verdict.is_whole() && self.findings.is_empty() && opened
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.verdict
    }
}

/// Verifies a segment: opens every block of every lane whose keys may be had here, checks totals, indexes,
/// lane 0's directory, the running hash, and the footer.
///
/// # Errors
/// Those of [`Segment::open_source`]; [`InputFailed`](domicile::Code::InputFailed) when it cannot be read. What is
/// wrong with the segment is no error but a finding.
pub async fn verify<S: Source>(
    domicile: &Domicile,
    source: S,
    request: Option<Request>,
) -> Result<Verification> {
    let request = request.unwrap_or_else(|| Purpose::Verification.into());
    let segment = Segment::open_source(domicile, source, request, Selection::all()).await?;
    segment.verify()
}

impl<S: Source> Segment<S> {
    /// Verifies the segment as far as its lanes were selected and can be read.
    ///
    /// # Errors
    /// [`InputFailed`](domicile::Code::InputFailed) when it cannot be read; [`SegmentCorrupt`](domicile::Code::SegmentCorrupt)
    /// and the like when it does not begin with the header under which it was opened.
    pub fn verify(&self) -> Result<Verification> {
        self.file.check_beginning()?;
        let mut check = Check::new(self);
        let mut walker = Walker::new(&self.file.source, &self.file.header, self.file.length);
        let mut body = Vec::new();
        while let Some(step) = walker.next().map_err(|source| unreadable(0, source))? {
            match step {
                // It may be large, and is compared where it stands.
                Step::Block { at, header, .. } if header.kind == BlockKind::Footer => {
                    check.footer(at, &header)?;
                }
                Step::Block { at, header, encoded } => {
                    self.file.read_body(at, &header, &mut body)?;
                    check.block(at, &header, &encoded, &mut body);
                }
                Step::Damage { at, bytes } | Step::Tail { at, bytes } => {
                    let ordinal = check.walked;
                    check.damaged(Damage { at, bytes, ordinal });
                }
            }
        }
        check.hash_by_ordinal()?;
        Ok(check.finish())
    }
}

/// What is known of one lane while its blocks pass.
struct LaneCheck<'a> {
    lane: Option<&'a ReadableLane>,
    stage: Stage,
    next_sequence: u32,
    offsets: Vec<u64>,
    key: Option<LaneKey>,
    records: u64,
    bytes: u64,
    data_blocks: u32,
    section_blocks: u32,
    inside_record: bool,
    last_arrival: Option<i64>,
    sections: Vec<Section>,
    blocks: Vec<IndexEntry>,
    /// The hash of the last block that passed: what lane 0 keeps of the lane. Zeros stand for the opening's.
    last_hash: [u8; 32],
}

/// Where in a lane the next block stands: kinds follow one another in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Opening,
    Preamble,
    Data,
    Postamble,
    Sections,
    Ended,
}

struct Check<'a, S> {
    segment: &'a Segment<S>,
    lanes: BTreeMap<LaneNo, LaneCheck<'a>>,
    findings: Vec<Finding>,
    first_damage: Option<Damage>,
    /// Blocks that passed, whole in length.
    walked: u64,
    verified: u64,
    hash: HashCheck,
    durable: u64,
    /// Lane 0 says that a crash cut the segment short: lanes need no ends.
    recovered: bool,
    /// The ordinal of lane 0's end, which vouches for all before it.
    last_ordinal: Option<u64>,
    /// The segment leaf that lane 0 names; all lanes name the same.
    segment_leaf: Option<LeafRef>,
    footer: bool,
}

/// The running hash, fed by ordinal in whatever order the blocks stand in the file.
struct HashCheck {
    hash: RunningHash,
    next_ordinal: u64,
    waiting: BTreeMap<u64, HashItem>,
    /// What lane 0 said that the hash is before an ordinal, and where it said so.
    expected: BTreeMap<u64, (u64, [u8; 32])>,
    /// Where it said something else than what is.
    wrong: Vec<u64>,
    /// More blocks would have waited than may: nothing was kept, and they are to be read by ordinal.
    given_up: bool,
}

enum HashItem {
    Sealed([u8; BlockHeader::BYTES], [u8; TAG_BYTES]),
    LaneOpen([u8; BlockHeader::BYTES], Vec<u8>, [u8; 32]),
}

impl HashCheck {
    fn add(&mut self, ordinal: u64, item: HashItem) -> Result<(), String> {
        if ordinal < self.next_ordinal || self.waiting.contains_key(&ordinal) {
            return Err(format!("a second block {ordinal} of the segment"));
        }
        if self.given_up {
            return Ok(());
        }
        if self.waiting.len() >= WAITING_MAX && ordinal != self.next_ordinal {
            (self.given_up, self.waiting) = (true, BTreeMap::new());
            return Ok(());
        }
        self.waiting.insert(ordinal, item);
        while let Some(item) = self.waiting.remove(&self.next_ordinal) {
            self.next(item);
        }
        Ok(())
    }

    /// The block with the next ordinal.
    fn next(&mut self, item: HashItem) {
        if let Some((at, expected)) = self.expected.remove(&self.next_ordinal)
            && expected != self.hash.value()
        {
            self.wrong.push(at);
        }
        match item {
            HashItem::Sealed(header, tag) => self.hash.add_sealed(&header, &tag),
            HashItem::LaneOpen(header, descriptor, commitment) => {
                self.hash.add_lane_open(&header, &descriptor, &commitment);
            }
        }
        self.next_ordinal += 1;
    }

    /// Whether every block was added that stands before one that was, and everything that lane 0 said was compared.
    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.expected.is_empty()
    }

    /// Lane 0 says what the hash is before the block with this ordinal, which is added after this.
    fn expect(&mut self, ordinal: u64, at: u64, value: [u8; 32]) {
        self.expected.insert(ordinal, (at, value));
    }
}

impl<'a, S: Source> Check<'a, S> {
    fn new(segment: &'a Segment<S>) -> Self {
        let hash = HashCheck {
            hash: RunningHash::new(&segment.file.header),
            next_ordinal: 0,
            waiting: BTreeMap::new(),
            expected: BTreeMap::new(),
            wrong: Vec::new(),
            given_up: false,
        };
        let mut lanes = BTreeMap::new();
        if let Some(region) = &segment.region {
            lanes.insert(LaneNo::REGION, LaneCheck::new(Some(region)));
        }
        for lane in &segment.lanes {
            lanes.insert(lane.lane, LaneCheck::new(lane.readable()));
        }
        Self {
            segment,
            lanes,
            findings: Vec::new(),
            first_damage: None,
            walked: 0,
            verified: 0,
            hash,
            durable: 0,
            recovered: false,
            last_ordinal: None,
            segment_leaf: None,
            footer: false,
        }
    }

    fn find(&mut self, at: u64, lane: Option<LaneNo>, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { at, lane: lane.map(|lane| lane.0), what: what.into() });
        }
    }

    fn damaged(&mut self, damage: Damage) {
        self.first_damage.get_or_insert(damage);
        self.find(damage.at, None, format!("{} bytes are no block", damage.bytes));
    }

    fn block(
        &mut self,
        at: u64,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) {
        let Some(ordinal) = self.pass(at, header) else { return };
        if self.has_ended() {
            self.find(at, Some(header.lane), "a block stands behind the end of lane 0");
            return;
        }
        if let Err(what) = self.lane_block(at, header, encoded, body) {
            self.first_damage.get_or_insert(Damage { at, bytes: header.block_bytes(), ordinal });
            self.find(at, Some(header.lane), what);
        }
    }

    fn footer(&mut self, at: u64, header: &BlockHeader) -> Result<()> {
        if self.pass(at, header).is_none() {
            return Ok(());
        }
        self.footer = true;
        self.hash_by_ordinal()?;
        if !self.footer_agrees(at, header)? {
            self.find(at, None, "the footer does not say what is");
        }
        Ok(())
    }

    /// Counts a block, and says which it is; `None` behind the footer, where no block belongs.
    fn pass(&mut self, at: u64, header: &BlockHeader) -> Option<u64> {
        let ordinal = self.walked;
        self.walked += 1;
        if self.footer {
            self.find(at, None, "a block stands behind the footer");
            return None;
        }
        // A file that was rewritten may have its blocks in another order, but for the last.
        let in_order = self.segment.file.header.edition == 0 || header.kind == BlockKind::Footer;
        if in_order && header.ordinal != ordinal {
            let what = format!("block {} stands where block {ordinal} should", header.ordinal);
            self.find(at, Some(header.lane).filter(|lane| *lane != LaneNo::NONE), what);
        }
        Some(ordinal)
    }

    /// Whether lane 0's end passed.
    fn has_ended(&self) -> bool {
        self.lanes.get(&LaneNo::REGION).is_some_and(|region| region.stage == Stage::Ended)
    }

    /// Checks one block of a lane; the error says what is wrong with it.
    fn lane_block(
        &mut self,
        at: u64,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<(), String> {
        let lane = self.lanes.entry(header.lane).or_insert_with(|| LaneCheck::new(None));
        lane.offsets.push(at);
        let expected = lane.next_sequence;
        lane.next_sequence = header.sequence.saturating_add(1);
        if header.sequence != expected {
            return Err(format!(
                "block {} of its lane stands where block {expected} should",
                header.sequence
            ));
        }
        lane.enter(header.kind)?;
        if header.kind == BlockKind::LaneOpen {
            return self.lane_open(header, encoded, body);
        }
        let Some(readable) = lane.lane else {
            // Its key is not to be had here: the structure was checked, and nothing more can be.
            let tag = header.tag_in(body).ok_or("a block without a tag")?;
            lane.last_hash = end_hash(encoded, &tag);
            return self.hash.add(header.ordinal, HashItem::Sealed(*encoded, tag));
        };
        let tag = readable.opener.open(header, encoded, body).map_err(|error| error.what().to_owned())?;
        self.verified += 1;
        lane.last_hash = end_hash(encoded, &tag);
        let malformed = |source: Malformed| format!("sealed with contents that make no sense: {source}");
        match header.kind {
            BlockKind::Data => lane.data(header, std::mem::take(body)).map_err(malformed)?,
            BlockKind::Section => {
                let sections = crate::format::Sections::decode(body).map_err(malformed)?;
                lane.section_blocks += 1;
                lane.sections.extend(sections.0);
            }
            BlockKind::LaneEnd => {
                lane.end(body)?;
                if header.lane == LaneNo::REGION {
                    self.region_end(at, header)?;
                }
            }
            BlockKind::Commit if header.lane == LaneNo::REGION => {
                let commit = Commit::decode(body).map_err(malformed)?;
                if commit.durable > header.ordinal || commit.durable < self.durable {
                    return Err("a commit block says that more was on disk than there was".to_owned());
                }
                self.durable = commit.durable;
                self.hash.expect(header.ordinal, at, commit.running_hash);
            }
            BlockKind::Commit => return Err("a commit block in a lane of records".to_owned()),
            _ => {}
        }
        self.hash.add(header.ordinal, HashItem::Sealed(*encoded, tag))
    }

    fn lane_open(
        &mut self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<(), String> {
        let zeros = body.get(header.payload_bytes()..).unwrap_or_default().iter().all(|octet| *octet == 0);
        body.truncate(header.payload_bytes());
        let open = LaneOpen::decode(body, header.lane)
            .map_err(|source| format!("a lane's opening is damaged: {source}"))?;
        if !zeros {
            return Err("the padding of a lane's opening is not zero".to_owned());
        }
        let descriptor = open.descriptor.encode().map_err(|source| source.to_string())?;
        if !open.fits(self.segment.file.header.origin, header.lane) {
            return Err("a lane's opening is not one of a segment of this origin".to_owned());
        }
        if let Some(wrapped) = &open.wrapped
            && *self.segment_leaf.get_or_insert(wrapped.segment) != wrapped.segment
        {
            return Err("a lane that names another segment leaf than lane 0".to_owned());
        }
        let lane = self.lanes.entry(header.lane).or_insert_with(|| LaneCheck::new(None));
        lane.key = Some(LaneKey::new(open.descriptor.scope.clone(), open.descriptor.period, header.lane));
        let agrees = lane.lane.is_none_or(|lane| lane.descriptor == open.descriptor);
        self.hash.add(header.ordinal, HashItem::LaneOpen(*encoded, descriptor, open.commitment))?;
        if agrees { Ok(()) } else { Err("a second opening of a lane".to_owned()) }
    }

    /// Lane 0's directory and summary against everything that passed.
    fn region_end(&mut self, at: u64, header: &BlockHeader) -> Result<(), String> {
        let Some(region) = self.lanes.get_mut(&LaneNo::REGION) else { return Ok(()) };
        let sections = std::mem::take(&mut region.sections);
        let mut entries = Vec::new();
        let (mut summary, mut signed, of_a_post) =
            (None, false, self.segment.file.header.origin == Origin::Post);
        for section in sections {
            match section {
                Section::Directory(mut part) => entries.append(&mut part),
                Section::Summary(found) if summary.is_none() => summary = Some(found),
                Section::PostEnd(_) if of_a_post => signed = true,
                Section::Skippable(..) => {}
                _ => return Err("lane 0 ends with sections that are not its own".to_owned()),
            }
        }
        let Some(summary) = summary else { return Err("lane 0 ends without a summary".to_owned()) };
        if of_a_post && signed == summary.recovered {
            return Err("a post signed the end, or did not, against what lane 0 says of a crash".to_owned());
        }
        self.hash.expect(header.ordinal, at, summary.running_hash);
        self.last_ordinal = Some(header.ordinal);
        self.recovered = summary.recovered;
        let mut others = self.lanes.iter().filter(|(lane, _)| **lane != LaneNo::REGION);
        for entry in &entries {
            let Some((number, lane)) = others.next() else {
                return Err(format!("lane {} is missing", entry.lane));
            };
            if *number != entry.lane {
                return Err(format!("lane {} is missing, or lane {number} is one too many", entry.lane));
            }
            let key =
                lane.key.as_ref().is_some_and(|key| key.scope == entry.scope && key.period == entry.period);
            let counts = match lane.lane {
                // What a crash cut short was counted by nobody.
                _ if summary.recovered => (entry.records, entry.bytes) == (0, 0),
                Some(_) => (lane.records, lane.bytes) == (entry.records, entry.bytes),
                None => true,
            };
            let last = (lane.next_sequence, lane.last_hash) == (entry.blocks, entry.end_hash);
            if !key || !last || !counts {
                return Err(format!("lane {number} is not what lane 0 says of it"));
            }
        }
        if let Some((number, _)) = others.next() {
            return Err(format!("lane {number} is one too many"));
        }
        let vouched = (u64::from(summary.lanes), summary.blocks, Some((summary.records, summary.bytes)));
        if (entries.len() as u64, header.ordinal, DirectoryEntry::totals(&entries)) != vouched {
            return Err("the totals of the segment are not what lane 0 says".to_owned());
        }
        Ok(())
    }

    /// Reads headers and tags of all blocks once more, in the order of their ordinals, where that of the file was too far from it:
    /// each lane's rise, so that the lowest of the lanes' next ones is the next.
    fn hash_by_ordinal(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.hash.given_up) {
            return Ok(());
        }
        let file = &self.segment.file;
        self.hash.hash = RunningHash::new(&file.header);
        self.hash.next_ordinal = 0;
        let mut body = Vec::new();
        let mut next = BinaryHeap::new();
        let mut places: BTreeMap<LaneNo, std::slice::Iter<'_, u64>> =
            self.lanes.iter().map(|(lane, check)| (*lane, check.offsets.iter())).collect();
        let firsts: Vec<_> = places.keys().copied().collect();
        let mut advance = |lane: LaneNo, next: &mut BinaryHeap<_>, body: &mut Vec<u8>| -> Result<()> {
            if let Some(at) = places.get_mut(&lane).and_then(Iterator::next) {
                next.push(Reverse((file.read_block_at(*at, body)?.0.ordinal, lane, *at)));
            }
            Ok(())
        };
        for lane in firsts {
            advance(lane, &mut next, &mut body)?;
        }
        while let Some(Reverse((ordinal, lane, at))) = next.pop() {
            if ordinal != self.hash.next_ordinal {
                break;
            }
            let (header, encoded) = file.read_block_at(at, &mut body)?;
            match hash_item(&header, &encoded, &body) {
                Some(item) => self.hash.next(item),
                None => break,
            }
            advance(lane, &mut next, &mut body)?;
        }
        Ok(())
    }

    /// The footer must be, octet for octet, what the blocks before it make.
    fn footer_agrees(&mut self, at: u64, header: &BlockHeader) -> Result<bool> {
        let mut footer = Footer::new();
        for lane in self.lanes.values_mut() {
            if let Some(key) = &lane.key {
                footer.add(key.clone(), std::mem::take(&mut lane.offsets));
            }
        }
        let Ok(mut expected) = footer.encode(&self.segment.file.header, at) else { return Ok(false) };
        // The lengths first: only a footer as long as these blocks make it is worth reading.
        if expected.len() != header.payload_bytes() {
            return Ok(false);
        }
        expected.resize(header.body_bytes(), 0);
        let mut window = vec![0; expected.len().min(FOOTER_WINDOW_BYTES)];
        let mut from = at + BlockHeader::BYTES as u64;
        for expected in expected.chunks(FOOTER_WINDOW_BYTES) {
            window.truncate(expected.len());
            self.segment.file.source.read_at(from, &mut window).map_err(|source| unreadable(from, source))?;
            if window != expected {
                return Ok(false);
            }
            from += expected.len() as u64;
        }
        Ok(true)
    }

    fn finish(mut self) -> Verification {
        for at in std::mem::take(&mut self.hash.wrong) {
            self.find(
                at,
                Some(LaneNo::REGION),
                "the blocks before this are not those that lane 0 vouches for",
            );
        }
        let ended = self.has_ended();
        if self.last_ordinal.is_some_and(|last| self.hash.next_ordinal > last + 1) {
            self.find(self.segment.file.length, None, "there are blocks that lane 0 does not vouch for");
        }
        // Where something else was found, that is why; nothing else may be left to find.
        if self.findings.is_empty() && !self.hash.is_settled() {
            let what =
                format!("block {} of the segment is missing, or does not verify", self.hash.next_ordinal);
            self.find(self.segment.file.length, None, what);
        }
        if ended {
            let open: Vec<_> = self
                .lanes
                .iter()
                .filter(|(_, lane)| lane.stage != Stage::Ended && !self.recovered)
                .map(|(lane, _)| *lane)
                .collect();
            for lane in open {
                self.find(self.segment.file.length, Some(lane), "the lane has no end");
            }
            if !self.footer {
                self.find(self.segment.file.length, None, "the footer is missing");
            }
        }
        let verdict = self.verdict(ended);
        // What a crash leaves behind the last sync is no finding but the state.
        if let State::Torn { at, .. } = verdict {
            self.findings.retain(|finding| finding.at < at);
        }
        let lanes: Vec<_> = self
            .segment
            .lanes
            .iter()
            .map(|lane| {
                let check = self.lanes.get(&lane.lane);
                LaneVerification {
                    lane: lane.lane.0,
                    tenant: lane.scope.tenant.to_string(),
                    record_type: lane.scope.record_type.to_string(),
                    period: lane.period.to_string(),
                    records: check.map_or(0, |check| check.records),
                    bytes: check.map_or(0, |check| check.bytes),
                    obstacle: lane.obstacle().map(|error| error.code().as_str()),
                    class: lane.obstacle().map(domicile::Error::class),
                }
            })
            .collect();
        let SegmentHeader { id, place, .. } = &self.segment.file.header;
        Verification {
            segment: id.to_string(),
            region: place.region.to_string(),
            state: verdict.as_str(),
            detail: verdict.to_string(),
            blocks: self.verified,
            records: lanes.iter().map(|lane| lane.records).sum(),
            bytes: lanes.iter().map(|lane| lane.bytes).sum(),
            lanes,
            findings: self.findings,
            verdict,
        }
    }

    fn verdict(&self, ended: bool) -> State {
        let corrupt = |what: String| State::Corrupt { what };
        if let State::Corrupt { .. } | State::Retired = self.segment.state {
            return self.segment.state.clone();
        }
        match (&self.first_damage, self.findings.first()) {
            (Some(damage), _) if !ended && damage.ordinal >= self.durable => {
                State::Torn { at: damage.at, bytes: self.segment.file.length.saturating_sub(damage.at) }
            }
            (_, Some(finding)) => corrupt(format!("{} (byte {})", finding.what, finding.at)),
            _ if ended => self.segment.state.clone(),
            _ => State::Unfinished,
        }
    }
}

impl<'a> LaneCheck<'a> {
    fn new(lane: Option<&'a ReadableLane>) -> Self {
        Self {
            lane,
            stage: Stage::Opening,
            next_sequence: 0,
            offsets: Vec::new(),
            key: None,
            records: 0,
            bytes: 0,
            data_blocks: 0,
            section_blocks: 0,
            inside_record: false,
            last_arrival: None,
            sections: Vec::new(),
            blocks: Vec::new(),
            last_hash: [0; 32],
        }
    }

    /// Kinds come in their order, and those that come once do.
    fn enter(&mut self, kind: BlockKind) -> Result<(), String> {
        let (first, next) = match kind {
            BlockKind::LaneOpen => (Stage::Opening, Stage::Preamble),
            BlockKind::Preamble => (Stage::Preamble, Stage::Data),
            BlockKind::Data | BlockKind::Commit | BlockKind::Skippable(_) => (Stage::Data, Stage::Data),
            BlockKind::Postamble => (Stage::Postamble, Stage::Sections),
            BlockKind::Section => (Stage::Sections, Stage::Sections),
            BlockKind::LaneEnd => (Stage::Sections, Stage::Ended),
            BlockKind::Footer => return Err("a footer in a lane".to_owned()),
        };
        let begun = (self.stage == Stage::Opening) == (first == Stage::Opening);
        if self.stage > first || !begun {
            return Err(format!("a {} block out of its order", kind.as_str()));
        }
        self.stage = next;
        Ok(())
    }

    fn data(&mut self, header: &BlockHeader, payload: Vec<u8>) -> Result<(), Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        let Some(lane) = self.lane else { return Ok(()) };
        let contents = lane.descriptor.contents;
        let block = lane.decode_data(payload)?;
        block.verify()?;
        let summary = block.summary();
        if summary.first_record != self.records || header.flags.is_continued() != self.inside_record {
            return Err(bad("number of the first record"));
        }
        if summary.has_times != contents.event_times
            || (summary.arrivals != Arrivals::None) != contents.arrivals
        {
            return Err(bad("arrays that the lane does not keep"));
        }
        let continues = header.flags.continues();
        if (continues || self.inside_record) && !contents.long_record
            || contents.long_record && block.len() != 1
        {
            return Err(bad("pieces of a record in a lane of whole records"));
        }
        let arrivals: Vec<_> = (0..block.len()).filter_map(|index| block.arrival(index)).collect();
        let rises = arrivals.is_sorted_by(|left, right| left < right);
        let follows = self
            .last_arrival
            .zip(arrivals.first())
            .is_none_or(|(last, first)| last < *first || self.inside_record);
        if !rises || !follows {
            return Err(bad("arrival numbers"));
        }
        self.last_arrival = arrivals.last().copied().or(self.last_arrival);
        self.blocks.push(IndexEntry {
            sequence: header.sequence,
            blocks: 1,
            first_record: self.records,
            lowest_arrival: arrivals.iter().copied().min().unwrap_or(0),
            span: summary.span,
        });
        self.inside_record = continues;
        self.records += if contents.long_record { u64::from(!continues) } else { block.len() as u64 };
        self.bytes += block.values().len() as u64;
        self.data_blocks += 1;
        Ok(())
    }

    /// The lane's end against everything that passed.
    fn end(&mut self, body: &[u8]) -> Result<(), String> {
        let mut end =
            LaneEnd::decode(body).map_err(|source| format!("the lane's end makes no sense: {source}"))?;
        let counted = (self.data_blocks, self.records, self.bytes, self.section_blocks, false);
        if counted != (end.data_blocks, end.records, end.bytes, end.section_blocks, self.inside_record) {
            return Err("the totals of the lane are not those of its blocks".to_owned());
        }
        self.sections.append(&mut end.sections);
        let index = self.sections.iter().filter_map(|section| match section {
            Section::Index(entries) => Some(entries),
            _ => None,
        });
        let index: Vec<_> = index.flatten().copied().collect();
        if !covers(&index, &self.blocks) {
            return Err("the index of the lane does not say what is in its blocks".to_owned());
        }
        self.blocks = Vec::new();
        Ok(())
    }
}

/// Whether the runs of an index are the blocks, joined in order.
fn covers(index: &[IndexEntry], mut blocks: &[IndexEntry]) -> bool {
    for run in index {
        let Some((of_run, rest)) = blocks.split_at_checked(run.blocks as usize) else { return false };
        if of_run.iter().copied().reduce(IndexEntry::joined) != Some(*run) {
            return false;
        }
        blocks = rest;
    }
    blocks.is_empty()
}

/// What of a block goes into the running hash.
fn hash_item(header: &BlockHeader, encoded: &[u8; BlockHeader::BYTES], body: &[u8]) -> Option<HashItem> {
    if header.kind != BlockKind::LaneOpen {
        return header.tag_in(body).map(|tag| HashItem::Sealed(*encoded, tag));
    }
    let open = LaneOpen::decode(body.get(..header.payload_bytes())?, header.lane).ok()?;
    Some(HashItem::LaneOpen(*encoded, open.descriptor.encode().ok()?, open.commitment))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether blocks of these kinds can follow one another in a lane.
    fn follow(kinds: &[BlockKind]) -> bool {
        let mut lane = LaneCheck::new(None);
        kinds.iter().all(|kind| lane.enter(*kind).is_ok())
    }

    #[test]
    fn kinds_that_may_be_skipped_stand_among_the_data() {
        use BlockKind::{Data, LaneEnd, LaneOpen, Postamble, Preamble, Section, Skippable};
        let skip = Skippable(0x80);
        assert!(follow(&[LaneOpen, Preamble, skip, Data, skip, Data, Postamble, Section, LaneEnd]));
        assert!(follow(&[LaneOpen, skip, LaneEnd]));
        for kinds in [
            &[skip][..],
            &[skip, LaneOpen],
            &[LaneOpen, skip, Preamble],
            &[LaneOpen, Postamble, skip],
            &[LaneOpen, Section, skip],
            &[LaneOpen, LaneEnd, skip],
        ] {
            assert!(!follow(kinds), "{kinds:?}");
        }
    }

    #[test]
    fn a_hash_that_was_not_compared_is_not_settled() {
        let mut hash = HashCheck {
            hash: RunningHash::new(&crate::format::tests::header()),
            next_ordinal: 0,
            waiting: BTreeMap::new(),
            expected: BTreeMap::new(),
            wrong: Vec::new(),
            given_up: false,
        };
        let block = || HashItem::Sealed([0; BlockHeader::BYTES], [0; TAG_BYTES]);
        hash.add(0, block()).unwrap();
        assert!(hash.is_settled());
        hash.add(2, block()).unwrap();
        assert!(!hash.is_settled(), "block 1 is missing");
        hash.add(1, block()).unwrap();
        assert!(hash.is_settled());
        hash.expect(3, 0, [0; 32]);
        assert!(!hash.is_settled(), "what lane 0 said was not compared");
        hash.add(3, block()).unwrap();
        assert!(hash.is_settled() && hash.wrong == [0]);
        hash.add(3, block()).unwrap_err();
        for ordinal in (5..).take(WAITING_MAX) {
            hash.add(ordinal, block()).unwrap();
        }
        assert!(!hash.given_up && hash.waiting.len() == WAITING_MAX);
        hash.add(5 + WAITING_MAX as u64, block()).unwrap();
        assert!(hash.given_up && hash.waiting.is_empty());
    }
}
