//! Any octets as a segment: whatever opens was sealed, and nothing but what was sealed verifies.

use std::cell::Cell;
use std::io;

use domicile::engine::Suite;
use domicile::{Domicile, Purpose, Time};
use domicile_record::format::{BlockHeader, BlockKind, LaneNo, SegmentHeader, Trailer};
use domicile_record::{Restored, Segment, Selection, Source, inspect, verify, why};

use crate::octets::Octets;
use crate::place::Place;
use crate::sample::{Parts, sealed};
use crate::structures::mend_last;

/// Looks at a file as every reader does: inspects and explains it, opens, restores and verifies it.
///
/// The first octet says what the file is: the beginning of a segment that this very place sealed and then
/// the rest of the octets; that segment with some of its octets changed; or its blocks taken apart, moved and
/// put together again (`Forgery`). Checksums are made right, so that nothing but keys stands in the way.
/// Every line that comes back was sealed into the segment that the file says it is, in that order; and what verifies as
/// complete is that segment. With the highest bit, a second engine looks as well.
pub fn segment(data: &[u8]) {
    BENCH.with(|bench| {
        let mut input = Octets::new(data);
        let first = input.u8();
        let file = match Forgery::ALL[usize::from(first & 0x7f) % Forgery::ALL.len()] {
            Forgery::Continued => continued(bench, input),
            Forgery::Edited => edited(bench, input),
            Forgery::Rebuilt => rebuilt(bench, input),
        };
        let sealed = bench.named_by(&file);
        let seen = look(bench, &bench.place.domicile, &file);
        assert!(
            is_left_of(&seen.restored, &sealed.whole),
            "what opens was not sealed so:\n{}",
            String::from_utf8_lossy(&seen.restored)
        );
        if seen.is_complete {
            assert!(sealed.parts.are_in(&file), "a changed segment verifies as complete");
        }
        if file == sealed.bytes {
            assert!(seen.is_complete && seen.restored == sealed.whole, "the segment itself does not open");
        }
        if first >= 0x80 {
            assert!(look(bench, &bench.place.second, &file) == seen, "two engines do not agree");
        }
        inspect_and_explain(bench, &file);
    });
}

/// What the first octet selects, in this order from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forgery {
    /// How much of the segment stands at the beginning (u16), and what follows it.
    Continued,
    /// Which checksums are made right, how much is cut off (u16), and octets to be changed: offset (u16),
    /// and what is changed in it.
    Edited,
    /// Which numbers are made right, and steps: what is done ([`Step`]) and three octets.
    Rebuilt,
}

impl Forgery {
    const ALL: [Forgery; 3] = [Forgery::Continued, Forgery::Edited, Forgery::Rebuilt];

    /// The octet that selects it.
    pub(crate) fn selector(self) -> u8 {
        self as u8
    }
}

/// A step of taking apart and putting together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Leaves a block out.
    Drop,
    /// Puts a block in once more, elsewhere.
    Repeat,
    /// Swaps two blocks.
    Swap,
    /// Puts a block of another segment of the place where one stands.
    Replace,
    /// Swaps what two blocks hold, and leaves their headers.
    SwapBodies,
    /// Changes an octet behind a header.
    Octet,
    /// Gives a block another place in its lane.
    Sequence,
    /// Gives a block to another lane.
    Lane,
    /// Changes the flags of a block.
    Flags,
    /// Says that a block is of another kind.
    Kind,
    /// Changes a part of a lane's opening, or takes it from another opening.
    Opening,
    /// Changes the segment's header.
    Header,
}

impl Step {
    const ALL: [Step; 12] = [
        Step::Drop,
        Step::Repeat,
        Step::Swap,
        Step::Replace,
        Step::SwapBodies,
        Step::Octet,
        Step::Sequence,
        Step::Lane,
        Step::Flags,
        Step::Kind,
        Step::Opening,
        Step::Header,
    ];

    /// The octet that selects it.
    pub(crate) fn selector(self) -> u8 {
        self as u8
    }
}

/// Octets of the segment that is edited.
pub(crate) fn sample_bytes() -> usize {
    BENCH.with(|bench| bench.this.bytes.len())
}

/// Octets of its footer.
pub(crate) fn sample_footer_bytes() -> usize {
    BENCH.with(|bench| bench.this.bytes.len() - bench.this.parts.offsets.last().unwrap())
}

// What an edited file makes right.
pub(crate) const MEND_HEADERS: u8 = 0x01;
pub(crate) const MEND_FOOTER: u8 = 0x02;
// What a rebuilt file makes right.
pub(crate) const RENUMBER_ORDINALS: u8 = 0x01;
pub(crate) const RENUMBER_SEQUENCES: u8 = 0x02;

thread_local! {
    // Not for the whole process: what a thread owns is dropped with it, the files of the keys among it.
    static BENCH: Bench = Bench::new();
}

/// A place, a segment that it sealed, and another one.
struct Bench {
    place: Place,
    this: Sealed,
    other: Sealed,
}

/// A segment, and what it is made of.
struct Sealed {
    bytes: Vec<u8>,
    parts: Parts,
    /// What restoring it gives.
    whole: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let place = Place::new(1);
        let [this, other] = ["this", "other"].map(|name| {
            let bytes = place.run(sealed(&place, name));
            let parts = Parts::of(&bytes).unwrap();
            assert_eq!(parts.assembled(), bytes);
            Sealed { bytes, parts, whole: Vec::new() }
        });
        let mut bench = Self { place, this, other };
        let wholes = [&bench.this, &bench.other].map(|sealed| {
            let seen = look(&bench, &bench.place.domicile, &sealed.bytes);
            assert!(seen.is_complete);
            seen.restored
        });
        [bench.this.whole, bench.other.whole] = wholes;
        bench
    }

    /// The segment that a file says it is: whoever has both may put the blocks of the one behind its own header again.
    fn named_by(&self, file: &[u8]) -> &Sealed {
        let is_other = domicile_record::header_of(file)
            .is_ok_and(|header| header.fixed() == self.other.parts.header.fixed());
        if is_other { &self.other } else { &self.this }
    }
}

/// What a reader makes of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    restored: Vec<u8>,
    is_complete: bool,
    state: Option<&'static str>,
}

fn look(bench: &Bench, domicile: &Domicile, file: &[u8]) -> Seen {
    let mut seen = Seen { restored: Vec::new(), is_complete: false, state: None };
    let source = Metered::new(file);
    let opening = Segment::open_source(domicile, &source, Purpose::Support, Selection::all());
    let opened = bench.place.run(opening);
    source.hold_to_bound("opening");
    match &opened {
        Err(error) => assert!(error.is_corruption() || !error.what().is_empty()),
        Ok(segment) => {
            let restored = segment.restore(&mut seen.restored).unwrap();
            assert_eq!(restored.bytes, seen.restored.len() as u64);
            assert!(restored.failures.len() <= Restored::FAILURES_MAX);
            source.hold_to_bound("restoring");
            let mut opened_records = 0;
            for block in segment.blocks() {
                let Ok(block) = block else { continue };
                opened_records += block.len() as u64;
                let whole = &bench.named_by(file).whole;
                if !whole.is_empty() {
                    for record in &block {
                        let lines = record.split_inclusive(|octet| *octet == b'\n');
                        assert!(lines.into_iter().all(|line| is_left_of(line, whole)));
                    }
                }
            }
            // A lane that failed once is restored behind the damage, and not read on block by block.
            let failed = !restored.failures.is_empty();
            assert!(failed || opened_records >= restored.records, "records that stand in no block");
            seen.state = Some(segment.state().as_str());
        }
    }
    let verified = bench.place.run(verify(domicile, &source, None));
    source.hold_to_bound("verifying");
    match (&opened, &verified) {
        (Ok(segment), Ok(verification)) => {
            seen.is_complete = verification.is_complete();
            // Nothing is whole that the quicker look already finds otherwise.
            assert!(!verification.state().is_whole() || segment.state().is_whole());
            assert!(!seen.is_complete || verification.findings.is_empty());
        }
        (Err(opening), Err(verifying)) => assert_eq!(opening.code(), verifying.code()),
        _ => panic!("opening and verifying do not agree: {opened:?} {verified:?}"),
    }
    seen
}

fn inspect_and_explain(bench: &Bench, file: &[u8]) {
    let source = Metered::new(file);
    let inspection = inspect(&source);
    source.hold_to_bound("inspecting");
    let explanation = bench.place.run(why(&bench.place.domicile, &source));
    source.hold_to_bound("explaining");
    match (inspection, explanation) {
        (Ok(inspection), Ok(explanation)) => {
            assert_eq!(inspection.segment, explanation.segment);
            assert_eq!(inspection.file_bytes, file.len() as u64);
            let blocks_max = (file.len() - SegmentHeader::BYTES) / BlockHeader::BYTES;
            assert!(inspection.blocks <= blocks_max as u64 && inspection.lanes.len() <= blocks_max);
            let block_bytes: u64 = inspection.lanes.iter().map(|lane| lane.bytes).sum();
            assert!(block_bytes <= inspection.file_bytes, "more blocks than octets");
            assert!(explanation.is_clear() || file != bench.named_by(file).bytes, "{explanation:?}");
        }
        (Err(inspecting), Err(explaining)) => assert_eq!(inspecting.code(), explaining.code()),
        (inspection, explanation) => panic!("{inspection:?} {explanation:?}"),
    }
}

/// Whether `part` is some of the lines of `whole`, in their order.
fn is_left_of(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.split_inclusive(|octet| *octet == b'\n');
    part.split_inclusive(|octet| *octet == b'\n').all(|line| rest.any(|other| other == line))
}

fn continued(bench: &Bench, mut input: Octets<'_>) -> Vec<u8> {
    let kept = usize::from(input.u16()).min(bench.this.bytes.len());
    [&bench.this.bytes[..kept], input.rest()].concat()
}

fn edited(bench: &Bench, mut input: Octets<'_>) -> Vec<u8> {
    let (mend, cut) = (input.u8(), usize::from(input.u16()));
    let mut file = bench.this.bytes.clone();
    while !input.is_empty() {
        let at = usize::from(input.u16()) % file.len();
        file[at] ^= input.u8();
    }
    let footer_at = *bench.this.parts.offsets.last().unwrap();
    if mend & MEND_FOOTER != 0 {
        mend_footer(&mut file[footer_at + BlockHeader::BYTES..]);
    }
    if mend & MEND_HEADERS != 0 {
        mend_last(&mut file[..SegmentHeader::BYTES], 0);
        let id = crc32c::crc32c(&file[12..44]);
        for at in &bench.this.parts.offsets {
            mend_last(&mut file[*at..at + BlockHeader::BYTES], id);
        }
    }
    file.truncate(file.len().saturating_sub(cut));
    file
}

/// Makes the checksums of a footer's payload right, where its trailer says that they are.
fn mend_footer(payload: &mut [u8]) {
    let length = payload.len();
    mend_last(&mut payload[length - Trailer::BYTES..], 0);
    let copy = length - Trailer::BYTES - SegmentHeader::BYTES;
    // The copy of the header stands before the fewest zeros that let the trailer end the file.
    for copy in copy.saturating_sub(7)..=copy {
        if payload[copy..].starts_with(&SegmentHeader::MAGIC) {
            mend_last(&mut payload[copy..copy + SegmentHeader::BYTES], 0);
        }
    }
    let Some(Ok(trailer)) = payload.last_chunk().map(Trailer::decode) else { return };
    let part = |range: Option<std::ops::Range<u64>>| {
        let range = range?;
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        (range.start <= range.end && range.end <= length).then_some(range)
    };
    let mut parts: Vec<_> =
        [trailer.tops(), trailer.key_page(0), trailer.guide()].into_iter().filter_map(part).collect();
    for page in 0..trailer.page_count().min(4) {
        let Some(range) = part(trailer.page(page)) else { continue };
        mend_last(&mut payload[range.clone()], 0);
        for entry in trailer.read_page(&payload[range], page).unwrap_or_default() {
            parts.extend(part(trailer.distances(&entry)));
        }
    }
    for range in parts {
        mend_last(&mut payload[range], 0);
    }
}

fn rebuilt(bench: &Bench, mut input: Octets<'_>) -> Vec<u8> {
    let numbers = input.u8();
    let mut parts = bench.this.parts.clone();
    let mut steps = 0;
    while !input.is_empty() && steps < STEPS_MAX {
        steps += 1;
        let step = input.pick(&Step::ALL);
        let operands = [input.u8(), input.u8(), input.u8()];
        take_step(&mut parts, &bench.other.parts, step, operands);
    }
    if numbers & RENUMBER_ORDINALS != 0 {
        for (ordinal, block) in (0..).zip(&mut parts.blocks) {
            block.header.ordinal = ordinal;
        }
    }
    if numbers & RENUMBER_SEQUENCES != 0 {
        let mut next = std::collections::BTreeMap::new();
        for block in &mut parts.blocks {
            let next = next.entry(block.header.lane).or_insert(0);
            block.header.sequence = *next;
            *next += 1;
        }
    }
    parts.assembled()
}

/// More of them make a file that has nothing of the segment left.
const STEPS_MAX: usize = 40;

fn take_step(parts: &mut Parts, other: &Parts, step: Step, operands: [u8; 3]) {
    let [first, second, third] = operands;
    let count = parts.blocks.len();
    if step == Step::Header {
        return change_header(&mut parts.header, &other.header, first, second);
    }
    if count == 0 {
        return;
    }
    let one = usize::from(first) % count;
    let another = usize::from(second) % count;
    let elsewhere = &other.blocks[usize::from(second) % other.blocks.len()];
    match step {
        Step::Drop => {
            parts.blocks.remove(one);
        }
        Step::Repeat => {
            let block = parts.blocks[one].clone();
            parts.blocks.insert(another, block);
        }
        Step::Swap => parts.blocks.swap(one, another),
        Step::Replace => {
            let kept = parts.blocks[one].header;
            parts.blocks[one] = elsewhere.clone();
            if third % 2 == 1 {
                let header = &mut parts.blocks[one].header;
                (header.lane, header.sequence, header.ordinal) = (kept.lane, kept.sequence, kept.ordinal);
            }
        }
        Step::SwapBodies => {
            let body = parts.blocks[one].body.clone();
            let length = parts.blocks[one].header.length;
            let theirs = std::mem::replace(&mut parts.blocks[another].body, body);
            let their_length = std::mem::replace(&mut parts.blocks[another].header.length, length);
            parts.blocks[one].body = theirs;
            parts.blocks[one].header.length = their_length;
        }
        Step::Octet => {
            let body = &mut parts.blocks[one].body;
            let at = usize::from(second) % body.len().max(1);
            if let Some(octet) = body.get_mut(at) {
                *octet ^= third;
            }
        }
        Step::Sequence => parts.blocks[one].header.sequence = u32::from(second),
        Step::Lane => parts.blocks[one].header.lane = LaneNo(u32::from(second % 8)),
        Step::Flags => {
            let flags = &mut parts.blocks[one].header.flags;
            flags.may ^= second;
            flags.must ^= third;
        }
        Step::Kind => {
            parts.blocks[one].header.kind = match second % 9 {
                0 => BlockKind::Skippable(0x80 | third),
                number => parts.blocks[usize::from(number) % count].header.kind,
            };
        }
        Step::Opening => {
            let Some(mut opening) = parts.blocks[one].opening() else { return };
            let ours = parts.blocks[another].opening();
            let Some(theirs) = (if third >= 0x80 { elsewhere.opening() } else { ours }) else { return };
            let (Some(wrapped), Some(their_wrapped)) = (&mut opening.wrapped, theirs.wrapped) else { return };
            match third % 16 {
                0 => opening.descriptor = theirs.descriptor,
                1 => opening.commitment = theirs.commitment,
                2 => *wrapped = their_wrapped,
                3 => wrapped.tenant = their_wrapped.tenant,
                4 => wrapped.segment = their_wrapped.segment,
                5 => wrapped.tenant = their_wrapped.segment,
                6 => wrapped.tenant.leaf.0 ^= 1,
                7 => opening.descriptor.scope = theirs.descriptor.scope,
                8 => opening.descriptor.period = "2026-W48".parse().unwrap(),
                9 => opening.descriptor.source ^= 1,
                10 => opening.descriptor.suite = other_suite(opening.descriptor.suite),
                11 => opening.descriptor.contents.arrivals ^= true,
                12 => opening.descriptor.contents.long_record ^= true,
                13 => wrapped.tenant.key.0[0] ^= 1,
                14 => opening.descriptor.scope = domicile::Scope::of_region(),
                _ => opening.descriptor.scope.tenant = "initech".parse().unwrap(),
            }
            parts.blocks[one].set_opening(&opening);
        }
        Step::Header => {}
    }
}

fn change_header(header: &mut SegmentHeader, other: &SegmentHeader, what: u8, value: u8) {
    match what % 7 {
        0 => header.edition = u32::from(value),
        1 => header.created = Time::from_micros(i64::from(value)).unwrap(),
        2 => header.suite = other_suite(header.suite),
        3 => header.id = other.id,
        4 => header.place.jurisdiction = "US".parse().unwrap(),
        5 => {
            header.place.region = "us-east-1".parse().unwrap();
            header.place.jurisdiction = "US".parse().unwrap();
        }
        _ => header.place.region = "eu-west-1".parse().unwrap(),
    }
}

fn other_suite(suite: Suite) -> Suite {
    match suite {
        Suite::Aes256Gcm => Suite::ChaCha20Poly1305,
        _ => Suite::Aes256Gcm,
    }
}

/// A file that counts what is asked of it: whoever reads makes room for it first.
#[derive(Debug)]
struct Metered<'a> {
    file: &'a [u8],
    asked: Cell<u64>,
}

impl<'a> Metered<'a> {
    fn new(file: &'a [u8]) -> Self {
        Self { file, asked: Cell::new(0) }
    }

    /// What was asked for in all is at most a multiple of the file. Counts anew behind it.
    fn hold_to_bound(&self, what: &str) {
        let (asked, length) = (self.asked.take(), self.file.len() as u64);
        let bound = ASKED_FOR_EACH_OCTET * (length + 4096);
        assert!(asked <= bound, "{what} {length} octets asked for {asked}");
    }
}

impl Source for Metered<'_> {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(into.len() <= self.file.len(), "{} octets asked of {}", into.len(), self.file.len());
        self.asked.set(self.asked.get() + into.len() as u64);
        self.file.read_at(at, into)
    }
}

/// How often an octet of a file may be read in one look at it: a footer that lies costs a second look, and
/// octets that are no block are looked at from each block that ends before them.
const ASKED_FOR_EACH_OCTET: u64 = 64;
