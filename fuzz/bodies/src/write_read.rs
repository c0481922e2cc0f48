//! Histories of a writer against a plain model: what went in comes out, however it is asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;

use domicile::engine::Suite;
use domicile::{Code, Domicile, Period, Purpose, Scope, Time};
use domicile_record::format::{BlockHeader, BlockKind, Contents, Descriptor, LaneNo, Limits};
use domicile_record::framing::Framing;
use domicile_record::{
    Recovering, SealingPool, Segment, SegmentSummary, SegmentWriter, Selection, Sink, Stamp, State,
    WriterOptions, inspect, verify, why,
};

use crate::octets::Octets;
use crate::place::{NOW, Place, region, scopes};
use crate::sample::{Block, Parts};

/// Writes a segment as the octets say, and holds it against a model of vectors.
///
/// The first octets choose sizes and limits, the rest is a history of `Op`s. A segment that is finished
/// verifies, and gives back what went in: everything, and whatever a selection by scope, number or time
/// asks for, by two engines. One whose writer died gives back at least what was committed. No two of its
/// blocks share a nonce.
pub fn write_read(data: &[u8]) {
    PLACE.with(|place| {
        let mut input = Octets::new(data);
        let mut history = History::begin(place, &mut input);
        let mut ops = 0;
        while !input.is_empty() && ops < OPS_MAX && !history.is_over {
            ops += 1;
            history.take(&mut input);
        }
        history.end(&mut input);
    });
}

/// What is done to a writer, in this order from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// Lane, how far the stamps move, record.
    Append,
    /// The same, written into the block itself.
    AppendWith,
    /// How many, then the same.
    AppendMany,
    /// Lane, whether it is the last and how far the stamps move, piece.
    AppendPiece,
    /// Scope, period, contents and whether it joins an input, framing, preamble.
    OpenLane,
    /// The caller's octets.
    Commit,
    /// Lane, the postamble of its input.
    SetPostamble,
    /// Lane, what no lane takes: it is refused and spends nothing.
    Misuse,
    /// A range of numbers that will be asked for.
    AskNumbers,
    /// A range of times that will be asked for.
    AskTimes,
    /// The writer is dropped.
    Crash,
}

impl Op {
    const ALL: [Op; 11] = [
        Op::Append,
        Op::AppendWith,
        Op::AppendMany,
        Op::AppendPiece,
        Op::OpenLane,
        Op::Commit,
        Op::SetPostamble,
        Op::Misuse,
        Op::AskNumbers,
        Op::AskTimes,
        Op::Crash,
    ];

    /// The octet that selects it.
    pub(crate) fn selector(self) -> u8 {
        self as u8
    }
}

pub(crate) const PERIODS: [&str; 3] = ["2026-11", "2026-W48", "2026-11-24"];
pub(crate) const BLOCK_BYTES: [usize; 6] = [64, 1, 9, 40, 300, 4096];
const OPEN_BYTES_MAX: [usize; 4] = [32 << 20, 0, 64, 700];
const FRAMINGS: [Option<Framing>; 4] =
    [Some(Framing::Lines), None, Some(Framing::JsonArray), Some(Framing::JsonValues)];
/// The format's own, and small ones that leave room for what a writer cannot do without.
const LIMITS: [Limits; 5] = [
    Limits::FORMAT,
    Limits { lane_blocks: 24, ..Limits::FORMAT },
    Limits { lane_bytes: 12_000, ..Limits::FORMAT },
    Limits { lanes: 3, ..Limits::FORMAT },
    Limits { blocks: 90, ..Limits::FORMAT },
];
/// Where arrival numbers begin.
const FIRST_ARRIVALS: [i64; 4] = [0, 1_000_000, -3, i64::MIN];

const FILLS_THE_POSTAMBLES_BLOCK: bool = true;

const OPS_MAX: usize = 60;
const LANES_MAX: usize = 8;
/// Lane 0 keeps a block for each, and has the lanes' limits.
const COMMITS_MAX: usize = 10;
const ASKED_MAX: usize = 6;
const RECORDS_MAX: usize = 2000;

thread_local! {
    // Not for the whole process: what a thread owns is dropped with it, the files of the keys among it.
    static PLACE: Place = Place::new(2);
}

/// A writer, and what it should have made of what was done to it.
struct History<'a> {
    place: &'a Place,
    options: WriterOptions,
    file: Shared,
    writer: Option<SegmentWriter<Shared>>,
    model: Model,
    next_arrival: Option<i64>,
    time: i64,
    commits: usize,
    asked: Vec<Asked>,
    /// Nothing more can be appended.
    is_over: bool,
    /// The writer died, or an error spent it.
    crashed: bool,
}

/// Two threads for all histories.
fn pool() -> SealingPool {
    static POOL: OnceLock<SealingPool> = OnceLock::new();
    POOL.get_or_init(|| SealingPool::new(2).unwrap()).clone()
}

/// A range that is asked for, in numbers of records or in times.
#[derive(Debug, Clone)]
enum Asked {
    Numbers(Range<u64>),
    Times(Option<i64>, Option<i64>),
}

impl<'a> History<'a> {
    fn begin(place: &'a Place, input: &mut Octets<'_>) -> Self {
        let options = WriterOptions {
            block_bytes: input.pick(&BLOCK_BYTES),
            open_bytes_max: input.pick(&OPEN_BYTES_MAX),
            limits: input.pick(&LIMITS),
            suite: input.pick(&Suite::ALL),
            pool: input.pick(&[false, true]).then(pool),
            ..WriterOptions::default()
        };
        let next_arrival = Some(input.pick(&FIRST_ARRIVALS));
        let (file, region) = (Shared::default(), region());
        let creating = SegmentWriter::create(&place.domicile, &region, file.clone(), options.clone());
        Self {
            writer: Some(place.run(creating).unwrap()),
            place,
            options,
            file,
            model: Model::default(),
            next_arrival,
            time: 0,
            commits: 0,
            asked: Vec::new(),
            is_over: false,
            crashed: false,
        }
    }

    fn take(&mut self, input: &mut Octets<'_>) {
        match input.pick(&Op::ALL) {
            Op::OpenLane => self.open_lane(input),
            Op::Append => self.append(input, 1, false),
            Op::AppendWith => self.append(input, 1, true),
            Op::AppendMany => {
                let count = usize::from(input.u8());
                self.append(input, count, false);
            }
            Op::AppendPiece => self.append_piece(input),
            Op::Commit => self.commit(input.short()),
            Op::SetPostamble => self.set_postamble(input),
            Op::Misuse => self.misuse(input),
            Op::Crash => {
                self.is_over = true;
                self.crashed = true;
            }
            Op::AskNumbers => {
                // Near the numbers that there are.
                let base = input.u8().checked_sub(0x80).map_or(0, |_| FIRST_ARRIVALS[1].unsigned_abs());
                let (start, length) = (base + u64::from(input.u8()), u64::from(input.u8()));
                self.ask(Asked::Numbers(start..start + length));
            }
            Op::AskTimes => {
                let what = input.u8();
                let (from, length) = (time_of(input), i64::from(input.u16()));
                let to = if what & 2 == 0 { from.saturating_add(length) } else { time_of(input) };
                let (from, to) = ((what & 4 == 0).then_some(from), (what & 8 == 0).then_some(to));
                if from.is_some() || to.is_some() {
                    self.ask(Asked::Times(from, to));
                }
            }
        }
    }

    fn ask(&mut self, asked: Asked) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push(asked);
        }
    }

    fn open_lane(&mut self, input: &mut Octets<'_>) {
        let scope = input.pick(&scopes());
        let period: Period = input.pick(&PERIODS).parse().unwrap();
        let what = input.u8();
        let framing = input.pick(&FRAMINGS);
        let preamble = input.short();
        if self.model.lanes.len() == LANES_MAX {
            return;
        }
        let flags =
            Contents { event_times: what & 1 != 0, arrivals: what & 2 != 0, long_record: what & 4 != 0 };
        // A lane of an input that began has its framing and its preamble.
        let joins = what & 8 != 0 && !self.model.sources.is_empty();
        let source = match joins {
            true => usize::from(what >> 4) % self.model.sources.len(),
            false => self.model.sources.len(),
        };
        let kept = self.model.sources.get(source).cloned();
        let input_of_lane =
            kept.unwrap_or_else(|| Source { framing, preamble: preamble.to_vec(), postamble: None });
        let descriptor = Descriptor {
            framing: input_of_lane.framing,
            contents: flags,
            source: u32::try_from(source).unwrap(),
            context: vec![("lane".into(), self.model.lanes.len().to_string())],
            ..Descriptor::new(scope.clone(), period, self.options.suite)
        };
        let writer = self.writer.as_mut().unwrap();
        match self.place.run(writer.open_lane(descriptor, &input_of_lane.preamble)) {
            Ok(number) => {
                assert_eq!(usize::try_from(number.0).unwrap(), self.model.lanes.len() + 1);
                if !joins {
                    self.model.sources.push(input_of_lane);
                }
                self.model.lanes.push(Lane {
                    number,
                    source,
                    scope,
                    contents: flags,
                    records: Vec::new(),
                    long: None,
                    postamble: Vec::new(),
                    committed: 0,
                });
            }
            Err(error) => self.limited(&error),
        }
    }

    fn append(&mut self, input: &mut Octets<'_>, count: usize, with: bool) {
        let lane = input.u8();
        let steps = input.u8();
        let record = input.short();
        let Some(at) = self.lane(lane, |lane| !lane.contents.long_record) else { return };
        for _ in 0..count {
            let contents = self.model.lanes[at].contents;
            let Some(stamp) = self.stamp(contents, steps) else { return };
            let number = self.model.lanes[at].number;
            let writer = self.writer.as_mut().unwrap();
            let appended = match with {
                true => writer.append_with(number, record.len(), stamp, |into| {
                    assert!(into.iter().all(|octet| *octet == 0), "memory of another record");
                    into.copy_from_slice(record);
                }),
                false => writer.append(number, record, stamp),
            };
            match appended {
                Ok(()) => self.model.lanes[at].records.push(Record { octets: record.to_vec(), stamp }),
                Err(error) => return self.limited(&error),
            }
        }
    }

    fn append_piece(&mut self, input: &mut Octets<'_>) {
        let lane = input.u8();
        let what = input.u8();
        let piece = input.short();
        let ended = |lane: &Lane| lane.long.as_ref().is_some_and(|long| long.ended);
        let Some(at) = self.lane(lane, |lane| lane.contents.long_record && !ended(lane)) else { return };
        let last = what & 1 != 0;
        let begun = self.model.lanes[at].long.as_ref().map(|long| long.record.stamp);
        let Some(stamp) = begun.or_else(|| self.stamp(self.model.lanes[at].contents, what >> 1)) else {
            return;
        };
        let number = self.model.lanes[at].number;
        let appended = self.writer.as_mut().unwrap().append_piece(number, piece, stamp, last);
        if let Err(error) = &appended {
            self.limited(error);
            // What was copied of a piece cannot be taken back: this limit spends the writer, unless the segment
            // had no block left to begin with.
            let writer = self.writer.as_mut().unwrap();
            let again = writer.append_piece(number, b"", stamp, false).unwrap_err();
            self.crashed = again.code() == Code::WriterFailed;
            self.is_over |= self.crashed;
            if !self.crashed {
                return;
            }
        }
        let begin = || Long { record: Record { octets: Vec::new(), stamp }, ended: false };
        let long = self.model.lanes[at].long.get_or_insert_with(begin);
        long.record.octets.extend_from_slice(piece);
        long.ended = last;
    }

    fn commit(&mut self, caller: &[u8]) {
        if self.commits == COMMITS_MAX {
            return;
        }
        self.commits += 1;
        let receipt = match self.writer.as_mut().unwrap().commit(caller) {
            Ok(receipt) => receipt,
            // Nothing new, and no block for what the caller keeps: nothing is lost, and the writer goes on.
            Err(error) => {
                self.limited(&error);
                assert!(!caller.is_empty());
                self.writer.as_mut().unwrap().commit(b"").unwrap()
            }
        };
        let blocks = Parts::of(&self.file.octets.borrow()).unwrap().blocks;
        assert_eq!(receipt, blocks.len() as u64);
        for lane in &mut self.model.lanes {
            lane.committed = lane.length();
        }
    }

    /// Every lane of an input keeps the same postamble; it is set once, when nothing more may come.
    fn set_postamble(&mut self, input: &mut Octets<'_>) {
        let lane = input.u8();
        let postamble = input.short();
        let Some(at) = self.lane(lane, |_| true) else { return };
        if FILLS_THE_POSTAMBLES_BLOCK && self.options.limits.lane_blocks < Limits::FORMAT.lane_blocks {
            return;
        }
        let source = self.model.lanes[at].source;
        let postamble =
            self.model.sources[source].postamble.get_or_insert_with(|| postamble.to_vec()).clone();
        for at in 0..self.model.lanes.len() {
            let lane = &self.model.lanes[at];
            if lane.source != source || !lane.postamble.is_empty() {
                continue;
            }
            match self.writer.as_mut().unwrap().set_postamble(lane.number, &postamble) {
                Ok(()) => self.model.lanes[at].postamble.clone_from(&postamble),
                Err(error) => self.limited(&error),
            }
        }
    }

    fn misuse(&mut self, input: &mut Octets<'_>) {
        let lanes = u32::try_from(self.model.lanes.len()).unwrap();
        let lane = self.lane(input.u8(), |_| true).map(|at| self.model.lanes[at].clone());
        let (none, stamped) = (Stamp::default(), Stamp { time: Some(0), arrival: Some(0) });
        let what = input.u8() % 8;
        let descriptor = |scope| Descriptor::new(scope, PERIODS[0].parse().unwrap(), Suite::Aes256Gcm);
        let writer = self.writer.as_mut().unwrap();
        let refused = match (what, lane) {
            (0, _) => writer.append(LaneNo::REGION, b"x", none),
            (1, _) => writer.append(LaneNo(lanes + 1), b"x", none),
            (2, _) => writer.append(LaneNo::NONE, b"x", none),
            (3, _) => writer.set_postamble(LaneNo::REGION, b"x"),
            (4, _) => self.place.run(writer.open_lane(descriptor(Scope::of_region()), b"")).map(|_| ()),
            (5, _) => {
                let nobody = Scope::new("nobody", "voice".parse().unwrap()).unwrap();
                self.place.run(writer.open_lane(descriptor(nobody), b"")).map(|_| ())
            }
            (_, None) => writer.append_piece(LaneNo::REGION, b"x", none, true),
            (6, Some(lane)) if lane.contents.long_record => writer.append(lane.number, b"x", none),
            (6, Some(lane)) => writer.append_piece(lane.number, b"x", none, true),
            (_, Some(lane)) => {
                let other = match lane.contents {
                    Contents { event_times: true, arrivals: true, .. } => none,
                    _ => stamped,
                };
                writer.append(lane.number, b"x", other)
            }
        };
        let code = refused.unwrap_err().code();
        let expected = match what {
            4 => Code::NameReserved,
            5 => Code::HomeNone,
            _ => Code::ArgumentInvalid,
        };
        assert!(code == expected || code == Code::SegmentLimit && self.has_limits(), "{code}");
    }

    /// An error of the writer that may be: a limit that was made small.
    fn limited(&self, error: &domicile::Error) {
        assert_eq!(error.code(), Code::SegmentLimit, "{error:?}");
        assert!(self.has_limits(), "a limit far from the format's own: {error:?}");
    }

    fn has_limits(&self) -> bool {
        self.options.limits != Limits::FORMAT
    }

    /// The lane that is meant, if it is one that takes this.
    fn lane(&self, number: u8, takes: impl Fn(&Lane) -> bool) -> Option<usize> {
        let fit: Vec<_> = (0..self.model.lanes.len()).filter(|at| takes(&self.model.lanes[*at])).collect();
        fit.get(usize::from(number) % fit.len().max(1)).copied()
    }

    /// The next stamp of a lane that keeps this: numbers rise through the whole segment, times go anywhere.
    fn stamp(&mut self, contents: Contents, steps: u8) -> Option<Stamp> {
        if self.model.lanes.iter().map(|lane| lane.records.len()).sum::<usize>() >= RECORDS_MAX {
            return None;
        }
        let arrival = match contents.arrivals {
            true => {
                let next = self.next_arrival?;
                self.next_arrival = next.checked_add(1 + i64::from(steps % 4));
                Some(next)
            }
            false => None,
        };
        self.time += i64::from(steps / 4) - 20;
        Some(Stamp { time: contents.event_times.then_some(self.time), arrival })
    }

    fn end(mut self, input: &mut Octets<'_>) {
        let mut writer = self.writer.take().unwrap();
        if self.crashed {
            drop(writer);
            return self.after_a_crash(input);
        }
        // A record that has begun must end before the segment does.
        for at in 0..self.model.lanes.len() {
            let lane = &mut self.model.lanes[at];
            let Some(long) = lane.long.as_mut().filter(|long| !long.ended) else { continue };
            let (number, stamp) = (lane.number, long.record.stamp);
            match writer.append_piece(number, b"", stamp, true) {
                Ok(()) => long.ended = true,
                Err(error) => {
                    self.limited(&error);
                    drop(writer);
                    return self.after_a_crash(input);
                }
            }
        }
        let (_, summary) = self.place.run(writer.finish()).unwrap();
        self.after_the_end(&summary);
    }

    fn after_the_end(&self, summary: &SegmentSummary) {
        let file = self.file.octets.borrow();
        let parts = Parts::of(&file).unwrap();
        assert!(parts.footer.is_some());
        assert_eq!((summary.file_bytes, summary.blocks), (file.len() as u64, parts.blocks.len() as u64));
        let most = self.options.limits.blocks;
        assert!(summary.blocks <= most, "{} blocks, and {most} may be", summary.blocks);
        self.hold_to_limits(&parts);
        nonces_differ(&parts);
        let lanes = &self.model.lanes;
        let records: usize = lanes.iter().map(Lane::record_count).sum();
        let bytes: usize = lanes.iter().map(Lane::record_bytes).sum();
        assert_eq!((summary.records, summary.bytes), (records as u64, bytes as u64));
        assert_eq!(usize::try_from(summary.lanes).unwrap(), lanes.len());

        let place = self.place;
        for domicile in [&place.domicile, &place.second] {
            let verification = place.run(verify(domicile, &file[..], None)).unwrap();
            assert!(verification.is_complete(), "{verification:#?}");
            assert_eq!((verification.records, verification.bytes), (summary.records, summary.bytes));
            self.ask_for(domicile, &file, &Wanted::default());
        }
        let inspection = inspect(&file[..]).unwrap();
        assert_eq!((inspection.state, inspection.lanes.len()), ("complete", lanes.len() + 1));
        assert!(place.run(why(&place.domicile, &file[..])).unwrap().is_clear());

        for scope in scopes() {
            self.ask_for(&place.domicile, &file, &Wanted { scope: Some(scope), asked: None });
        }
        for asked in &self.asked {
            self.ask_for(&place.domicile, &file, &Wanted { scope: None, asked: Some(asked.clone()) });
            let of_one = Wanted { scope: Some(scopes()[0].clone()), asked: Some(asked.clone()) };
            self.ask_for(&place.domicile, &file, &of_one);
        }
    }

    /// Opens a selection and holds what is restored against the model.
    fn ask_for(&self, domicile: &Domicile, file: &[u8], wanted: &Wanted) {
        let opening = Segment::open_source(domicile, file, Purpose::Support, wanted.selection());
        let segment = match self.place.run(opening) {
            Ok(segment) => segment,
            Err(error) => {
                assert_eq!(error.code(), Code::LaneNone, "{error:?}");
                assert!(!self.model.lanes.iter().any(|lane| wanted.wants_lane(lane)), "{error:?}");
                return;
            }
        };
        assert_eq!(*segment.state(), State::Complete);
        assert!(segment.notes().is_empty(), "{:?}", segment.notes());
        let mut output = Vec::new();
        let restored = segment.restore(&mut output).unwrap();
        assert!(restored.failures.is_empty(), "{:?}", restored.failures);
        let expected = self.model.expected(wanted);
        assert!(output == expected.output, "{wanted:?} gave\n{output:?} in place of\n{:?}", expected.output);
        assert_eq!(restored.bytes, output.len() as u64);
        assert_eq!(restored.records, expected.records, "{wanted:?}");
        // SEG-25.
        assert_eq!(restored.times_by_block, expected.times_by_block, "{wanted:?}");
    }

    /// A file whose writer died: what was synced is there, and of the rest some or nothing.
    fn after_a_crash(&self, input: &mut Octets<'_>) {
        let (octets, synced) = (self.file.octets.borrow(), *self.file.synced.borrow());
        let unsynced = octets.len() - synced;
        let kept = synced + usize::from(input.u16()) % (unsynced + 1);
        let mut file = octets[..kept].to_vec();
        // A file system may have made the file longer before it wrote what was to stand there.
        file.resize(file.len() + usize::from(input.u8() & 0x1f), 0);
        let parts = Parts::of(&octets).unwrap();
        let ends = parts.offsets.iter().skip(1).copied().chain([octets.len()]);
        let whole = ends.take_while(|end| file.get(..*end) == Some(&octets[..*end])).count();
        let whole = whole.min(parts.blocks.len());
        let verification = match self.place.run(verify(&self.place.domicile, &file[..], None)) {
            Ok(verification) => verification,
            Err(error) => {
                assert_eq!(whole, 0, "nothing can be read of a file that has lane 0: {error:?}");
                return;
            }
        };
        assert!(!verification.is_complete());
        // An opening of which zeros stand in the place of the end has no commitment that speaks for it: that
        // is called corrupt, and costs nothing that was committed.
        let next = parts.blocks.get(whole).zip(parts.offsets.get(whole));
        let torn_opening = next.is_some_and(|(block, at)| {
            block.header.kind == BlockKind::LaneOpen && *at + BlockHeader::BYTES < file.len()
        });
        if whole > 0 && !torn_opening {
            let is_a_crash = matches!(verification.state(), State::Unfinished | State::Torn { .. });
            assert!(is_a_crash && verification.findings.is_empty(), "a crash left {verification:#?}");
        }
        let opening =
            Segment::open_source(&self.place.domicile, &file[..], Purpose::Support, Selection::all());
        let segment = self.place.run(opening).unwrap();
        let mut blocks = segment.blocks().filter_map(Result::ok);
        for lane in &self.model.lanes {
            let of_lane =
                |block: &&Block| (block.header.kind, block.header.lane) == (BlockKind::Data, lane.number);
            let mut length = 0;
            for _ in 0..parts.blocks.iter().take(whole).filter(of_lane).count() {
                length += lane.hold_prefix(length, &blocks.next().unwrap());
            }
            assert!(length >= lane.committed, "lane {} lost what was committed", lane.number);
        }
        assert!(blocks.next().is_none(), "blocks that nobody wrote");
        // Without its lane 0 there is nothing to close, and nothing in it was on disk.
        if whole > 0 {
            self.recovered(&file);
        }
    }

    /// SEG-46: what a crash left is closed, by whichever process, and verifies: everything that was committed is in it, and of the
    /// rest what was whole.
    fn recovered(&self, file: &[u8]) {
        let mut closed = Vec::new();
        for domicile in [&self.place.domicile, &self.place.second] {
            let recovering = self.place.run(Recovering::examine(domicile, file)).unwrap().unwrap();
            let mut cut = 0;
            let count = |piece: &[u8]| {
                cut += piece.len();
                Ok(())
            };
            recovering.for_each_cut(count).unwrap();
            assert_eq!(recovering.cut().map_or(0, |cut| cut.bytes), cut as u64);
            let (bytes, summary) = recovering.write(Vec::new()).unwrap();
            assert_eq!(summary.file_bytes, bytes.len() as u64);
            let verification = self.place.run(verify(domicile, &bytes[..], None)).unwrap();
            assert!(verification.is_complete(), "{verification:#?}");
            assert_eq!(*verification.state(), State::Recovered);
            assert!(self.place.run(Recovering::examine(domicile, &bytes[..])).unwrap().is_none());
            closed.push(bytes);
        }
        // Twice from one file: lane 0 has two keys, and what it says is the same.
        let [first, second] = &closed[..] else { unreachable!("two processes") };
        assert_eq!(first.len(), second.len());
        let [one, other] = [first, second].map(|bytes| nonces_of_region(&Parts::of(bytes).unwrap()));
        assert!(one.iter().all(|nonce| !other.contains(nonce)), "one nonce in two recoveries");
        let opening =
            Segment::open_source(&self.place.domicile, &first[..], Purpose::Support, Selection::all());
        let segment = self.place.run(opening).unwrap();
        let mut blocks = segment.blocks();
        for lane in &self.model.lanes {
            let place = segment.lanes().iter().find(|known| known.lane == lane.number);
            let parts = Parts::of(first).unwrap();
            let of_lane =
                |block: &&Block| (block.header.kind, block.header.lane) == (BlockKind::Data, lane.number);
            let mut length = 0;
            for _ in 0..parts.blocks.iter().filter(of_lane).count() {
                length += lane.hold_prefix(length, &blocks.next().unwrap().unwrap());
            }
            assert!(length >= lane.committed, "lane {} lost what was committed", lane.number);
            assert!(place.is_some() || lane.committed == 0);
        }
        assert!(blocks.next().is_none(), "blocks that nobody wrote");
    }

    fn hold_to_limits(&self, parts: &Parts) {
        let mut of_lane: BTreeMap<LaneNo, (u32, u64)> = BTreeMap::new();
        for block in &parts.blocks {
            let (blocks, bytes) = of_lane.entry(block.header.lane).or_default();
            *blocks += 1;
            *bytes += block.header.block_bytes();
        }
        let limits = self.options.limits;
        let within =
            |(blocks, bytes): &(u32, u64)| *blocks <= limits.lane_blocks && *bytes <= limits.lane_bytes;
        assert!(of_lane.values().all(within), "a lane beyond its limits: {of_lane:?}");
        assert!(of_lane.len() <= usize::try_from(limits.lanes).unwrap());
    }
}

fn nonces_of_region(parts: &Parts) -> Vec<[u8; 12]> {
    let sealed = parts.blocks.iter().filter(|block| block.header.flags.is_sealed());
    sealed.filter(|block| block.header.lane == LaneNo::REGION).map(|block| block.header.nonce).collect()
}

fn nonces_differ(parts: &Parts) {
    let sealed = parts.blocks.iter().filter(|block| block.header.flags.is_sealed());
    let mut nonces: Vec<_> = sealed.map(|block| block.header.nonce).collect();
    let count = nonces.len();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), count, "two blocks share a nonce");
}

/// A time that the calendar can show, near those of the records or anywhere.
fn time_of(input: &mut Octets<'_>) -> i64 {
    match input.u8() % 4 {
        0 => i64::from(input.u8()) - 128,
        1 => NOW,
        2 => NOW + 1,
        _ => Time::from_micros(input.i64()).map_or(0, Time::micros),
    }
}

/// What is asked of a segment.
#[derive(Debug, Clone, Default)]
struct Wanted {
    scope: Option<Scope>,
    asked: Option<Asked>,
}

impl Wanted {
    fn selection(&self) -> Selection {
        let mut selection = match &self.scope {
            Some(scope) => Selection::scopes(std::slice::from_ref(scope)),
            None => Selection::all(),
        };
        let time = |micros: &i64| Time::from_micros(*micros).unwrap();
        match &self.asked {
            None => {}
            Some(Asked::Numbers(range)) => selection = selection.records(range.clone()).unwrap(),
            Some(Asked::Times(from, to)) => {
                if let Some(from) = from {
                    selection = selection.from(time(from));
                }
                if let Some(to) = to {
                    selection = selection.to(time(to));
                }
            }
        }
        selection
    }

    fn wants_lane(&self, lane: &Lane) -> bool {
        self.scope.as_ref().is_none_or(|scope| *scope == lane.scope)
    }

    /// Whether a record is wanted, by its stamp and its place in the lane.
    fn wants(&self, stamp: Stamp, place: u64) -> bool {
        match &self.asked {
            None => true,
            Some(Asked::Numbers(range)) => {
                let number = stamp.arrival.map_or(Some(place), |arrival| u64::try_from(arrival).ok());
                number.is_some_and(|number| range.contains(&number))
            }
            Some(Asked::Times(from, to)) => {
                // Without event times, a record has the time at which it was sealed.
                let time = stamp.time.unwrap_or(NOW);
                from.is_none_or(|from| time >= from) && to.is_none_or(|to| time < to)
            }
        }
    }
}

/// What went in.
#[derive(Default)]
struct Model {
    sources: Vec<Source>,
    lanes: Vec<Lane>,
}

#[derive(Clone)]
struct Source {
    framing: Option<Framing>,
    preamble: Vec<u8>,
    postamble: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Lane {
    number: LaneNo,
    source: usize,
    scope: Scope,
    contents: Contents,
    records: Vec<Record>,
    long: Option<Long>,
    postamble: Vec<u8>,
    /// How long it was at the last commit, as [`Lane::length`] counts.
    committed: usize,
}

#[derive(Clone)]
struct Record {
    octets: Vec<u8>,
    stamp: Stamp,
}

#[derive(Clone)]
struct Long {
    record: Record,
    ended: bool,
}

/// What a selection should give.
struct Expected {
    output: Vec<u8>,
    records: u64,
    times_by_block: bool,
}

impl Model {
    fn expected(&self, wanted: &Wanted) -> Expected {
        let mut expected = Expected { output: Vec::new(), records: 0, times_by_block: false };
        let is_everything = wanted.asked.is_none() && self.lanes.iter().all(|lane| wanted.wants_lane(lane));
        for (number, source) in self.sources.iter().enumerate() {
            let lanes: Vec<_> =
                self.lanes.iter().filter(|lane| lane.source == number && wanted.wants_lane(lane)).collect();
            if lanes.is_empty() {
                continue;
            }
            if matches!(wanted.asked, Some(Asked::Times(..))) {
                expected.times_by_block |= lanes.iter().any(|lane| !lane.contents.event_times);
            }
            let records = self.in_order(&lanes);
            let selected: Vec<_> =
                records.iter().filter(|(place, record)| wanted.wants(record.stamp, *place)).collect();
            expected.records += selected.len() as u64;
            expected.output.extend_from_slice(&source.preamble);
            let octets = selected.iter().flat_map(|(_, record)| &record.octets).copied().collect::<Vec<_>>();
            // Everything is given back as it was; what was selected loses what divided it from the rest.
            let framing = source.framing.filter(|_| !is_everything);
            let octets = framing.map_or(&octets[..], |framing| framing.end_of_selection(&octets));
            expected.output.extend_from_slice(octets);
            let postamble = lanes.iter().map(|lane| &lane.postamble).find(|postamble| !postamble.is_empty());
            expected.output.extend_from_slice(postamble.map_or(&[], Vec::as_slice));
        }
        expected
    }

    /// The records of some lanes of an input, in its order, each with its place in its lane.
    fn in_order<'m>(&self, lanes: &[&'m Lane]) -> Vec<(u64, &'m Record)> {
        let mut records: Vec<_> = lanes.iter().flat_map(|lane| (0..).zip(lane.all())).collect();
        if lanes.iter().all(|lane| lane.contents.arrivals) {
            records.sort_by_key(|(_, record)| record.stamp.arrival);
        }
        records
    }
}

impl Lane {
    fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().chain(self.long.iter().map(|long| &long.record))
    }

    fn record_count(&self) -> usize {
        self.all().count()
    }

    fn record_bytes(&self) -> usize {
        self.all().map(|record| record.octets.len()).sum()
    }

    /// Records, or octets of the one that comes in pieces.
    fn length(&self) -> usize {
        match &self.long {
            Some(long) => long.record.octets.len(),
            None => self.records.len(),
        }
    }

    /// Holds a block against what stands from `from` on, and returns how much of it that is.
    fn hold_prefix(&self, from: usize, block: &domicile_record::format::DataBlock) -> usize {
        if let Some(long) = &self.long {
            assert_eq!(long.record.octets.get(from..from + block.values().len()), Some(block.values()));
            return block.values().len();
        }
        for (index, record) in block.records().enumerate() {
            let expected = &self.records[from + index];
            assert_eq!((record, block.time(index)), (&expected.octets[..], expected.stamp.time));
            assert_eq!(block.arrival(index), expected.stamp.arrival);
        }
        block.len()
    }
}

/// A file in memory that outlives its writer, and knows what of it was synced.
#[derive(Debug, Clone, Default)]
struct Shared {
    octets: Rc<RefCell<Vec<u8>>>,
    synced: Rc<RefCell<usize>>,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.octets.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Shared {
    fn sync(&mut self) -> io::Result<()> {
        *self.synced.borrow_mut() = self.octets.borrow().len();
        Ok(())
    }
}
