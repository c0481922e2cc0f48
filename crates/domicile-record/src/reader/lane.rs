//! Reading one lane whose key is at hand.

use std::ops::Range;

use domicile::keyring::Lease;
use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

use super::ahead::Ahead;
use super::map::{LanePlace, SegmentFile, missing_block};
use super::source::Source;
use crate::compression::decompress;
use crate::format::{
    Arrivals, BlockHeader, BlockKind, Compression, DataBlock, Descriptor, IndexEntry, LaneEnd, Section,
    Sections, TimeSpan,
};
use crate::open::LaneOpener;
use crate::running_hash::end_hash;

/// A lane that can be read.
#[derive(Debug)]
pub(crate) struct ReadableLane {
    pub(crate) place: LanePlace,
    pub(crate) descriptor: Descriptor,
    pub(crate) opener: LaneOpener,
    /// How long its data key may be used; none where a home examines what a post sealed.
    pub(crate) lease: Option<Lease>,
    /// The lane's end, once it was read and verified.
    pub(crate) end: Option<VerifiedEnd>,
    /// What says that it is the lane's end, and does not verify: of a segment that a crash cut short, part of the damage.
    pub(crate) broken_end: Option<BrokenEnd>,
    /// Of a segment without an end: blocks from this ordinal on may be what a crash left of them.
    pub(crate) unsynced_from: Option<u64>,
}

/// A block that says that it is the end of its lane, and does not verify.
#[derive(Debug)]
pub(crate) struct BrokenEnd {
    pub(crate) sequence: u32,
    pub(crate) error: Error,
}

/// The end of a lane, and what it says.
#[derive(Debug)]
pub(crate) struct VerifiedEnd {
    pub(crate) sequence: u32,
    /// Its sections, but for the index.
    pub(crate) end: LaneEnd,
    /// The runs of data blocks.
    pub(crate) index: Vec<IndexEntry>,
    pub(crate) hash: [u8; 32],
}

/// Takes the index out of the sections: it may come in parts, which follow one another.
fn take_index(sections: &mut Vec<Section>) -> Vec<IndexEntry> {
    let mut index = Vec::new();
    sections.retain_mut(|section| match section {
        Section::Index(part) => {
            index.append(part);
            false
        }
        _ => true,
    });
    index
}

/// Whether the runs of an index follow one another, before `behind`, and are of so many blocks.
fn places_all_data(index: &[IndexEntry], data_blocks: u32, behind: u32) -> bool {
    let mut free = 1;
    let mut blocks: u32 = 0;
    for run in index {
        let (Some(end), Some(sum)) = (run.sequence.checked_add(run.blocks), blocks.checked_add(run.blocks))
        else {
            return false;
        };
        if run.sequence < free || end > behind {
            return false;
        }
        (free, blocks) = (end, sum);
    }
    blocks == data_blocks
}

impl ReadableLane {
    /// A lane whose key is at hand, of whose end nothing is known yet.
    pub(crate) fn new(
        place: LanePlace,
        descriptor: Descriptor,
        opener: LaneOpener,
        lease: Option<Lease>,
    ) -> Self {
        Self { place, descriptor, opener, lease, end: None, broken_end: None, unsynced_from: None }
    }

    /// Reads and verifies the lane's end, with its section blocks: the last of the blocks that say they are it and
    /// whose tag verifies. What stands behind that was not sealed as this lane's, or not by its writer.
    pub(crate) fn read_end<S: Source>(&mut self, file: &SegmentFile<S>) -> Result<()> {
        for sequence in self.place.ends.iter().rev() {
            match self.end_at(file, *sequence) {
                Ok(end) => {
                    (self.end, self.broken_end) = (end, None);
                    return Ok(());
                }
                Err(error) if error.code() == Code::BlockUnverified => {
                    self.broken_end.get_or_insert(BrokenEnd { sequence: *sequence, error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The hash of the lane's last block, and how many there are: what lane 0 keeps of a lane that a crash left without
    /// an end. Zeros stand for the hash of an opening, which may be written again.
    pub(crate) fn last_block<S: Source>(&self, file: &SegmentFile<S>) -> Result<(u32, [u8; 32])> {
        let last = self.place.blocks.last().unwrap_or(0);
        let mut body = Vec::new();
        let (header, encoded) = file.read_block(&self.place, last, &mut body)?;
        let hash = header.tag_in(&body).map(|tag| end_hash(&encoded, &tag));
        Ok((last.saturating_add(1), hash.unwrap_or_default()))
    }

    fn end_at<S: Source>(&self, file: &SegmentFile<S>, sequence: u32) -> Result<Option<VerifiedEnd>> {
        let mut body = Vec::new();
        let (header, encoded) = file.read_block(&self.place, sequence, &mut body)?;
        if header.kind != BlockKind::LaneEnd {
            return Ok(None);
        }
        let tag = self.open_block(&header, &encoded, &mut body)?;
        let mut end = LaneEnd::decode(&body).map_err(|source| self.malformed(sequence, source))?;
        let first_section = sequence.checked_sub(end.section_blocks).ok_or_else(|| {
            self.malformed(sequence, Malformed { what: "section blocks of the lane", at: 0 })
        })?;
        let mut sections = Vec::new();
        for sequence in first_section..sequence {
            let (header, encoded) = file.read_block(&self.place, sequence, &mut body)?;
            if header.kind != BlockKind::Section {
                return Err(self.malformed(sequence, Malformed { what: "section block", at: 0 }));
            }
            self.open_block(&header, &encoded, &mut body)?;
            sections.extend(Sections::decode(&body).map_err(|source| self.malformed(sequence, source))?.0);
        }
        sections.append(&mut end.sections);
        let index = take_index(&mut sections);
        if !places_all_data(&index, end.data_blocks, first_section) {
            return Err(self.malformed(sequence, Malformed { what: "index of the lane", at: 0 }));
        }
        end.sections = sections;
        Ok(Some(VerifiedEnd { sequence, end, index, hash: end_hash(&encoded, &tag) }))
    }

    /// The data block at a place in the lane, if that is one.
    pub(crate) fn data_at<S: Source>(
        &self,
        file: &SegmentFile<S>,
        sequence: u32,
    ) -> Result<Option<DataBlock>> {
        let mut body = Vec::new();
        let (header, encoded) = file.read_block(&self.place, sequence, &mut body)?;
        if header.kind != BlockKind::Data {
            return Ok(None);
        }
        self.open_block(&header, &encoded, &mut body)?;
        self.decode_data(body).map(Some).map_err(|source| self.malformed(sequence, source))
    }

    /// The data block of an opened payload.
    pub(crate) fn decode_data(&self, body: Vec<u8>) -> Result<DataBlock, Malformed> {
        match self.descriptor.compression {
            Compression::None => DataBlock::decode(body),
            _ => DataBlock::decode(decompress(&body)?),
        }
    }

    /// Opens a block of this lane in place.
    pub(crate) fn open_block(
        &self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<[u8; domicile::engine::TAG_BYTES]> {
        if let Some(lease) = &self.lease {
            lease.check().map_err(|error| error.at(format!("lane {}", header.lane)))?;
        }
        self.opener.open(header, encoded, body).map_err(|error| {
            let is_torn = self.unsynced_from.is_some_and(|unsynced| header.ordinal >= unsynced);
            let error = if is_torn { torn_block() } else { error };
            error.at(format!("lane {}, block {}", header.lane, header.sequence))
        })
    }

    /// The places in the lane where data blocks can stand that hold the wanted records and times.
    pub(crate) fn candidates(&self, wanted: &Wanted) -> Vec<Range<u32>> {
        let Some(end) = &self.end else {
            let behind = self.place.blocks.last().map_or(1, |last| last.saturating_add(1));
            return std::iter::once(1..behind.max(1)).collect();
        };
        if wanted.is_everything() {
            return std::iter::once(1..end.sequence.max(1)).collect();
        }
        // Numbers rise through a lane (SEG-24), so that a run ends where the next one begins.
        let numbers = |run: &IndexEntry| match self.descriptor.contents.arrivals {
            true => run.lowest_arrival,
            false => i64::try_from(run.first_record).unwrap_or(i64::MAX),
        };
        let next = end.index.iter().skip(1);
        let behind = next.clone().map(|run| (run.sequence, numbers(run))).chain([(end.sequence, i64::MAX)]);
        end.index
            .iter()
            .zip(behind)
            .filter(|(run, (_, behind))| wanted.may_touch(run.span, numbers(run)..*behind))
            .map(|(run, (behind, _))| run.sequence..behind)
            .collect()
    }

    /// Whether a data block is one that this lane can have.
    pub(super) fn check_contents(&self, header: &BlockHeader, block: &DataBlock) -> Result<(), Malformed> {
        let summary = block.summary();
        let contents = self.descriptor.contents;
        if summary.has_times != contents.event_times
            || (summary.arrivals != Arrivals::None) != contents.arrivals
        {
            return Err(bad("arrays of a data block that its lane does not keep"));
        }
        let pieces = header.flags.is_continued() || header.flags.continues();
        if pieces && !contents.long_record || contents.long_record && summary.count != 1 {
            return Err(bad("pieces of a record in a lane of whole records"));
        }
        Ok(())
    }

    pub(crate) fn malformed(&self, sequence: u32, source: Malformed) -> Error {
        Error::new(Code::SegmentCorrupt, "a block was sealed with contents that make no sense")
            .at(format!("lane {}, block {sequence}", self.place.key.lane))
            .because(source)
    }
}

fn torn_block() -> Error {
    Error::new(Code::SegmentTorn, "a block does not verify that was not on disk yet when the segment was cut")
        .advise("its writer died while it wrote, or it was cut: `domicile recover` closes it")
}

/// Which records are wanted: by number, by time, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Event times, in microseconds; the end is not included.
    pub(crate) times: Option<Range<i64>>,
    /// Numbers, from 0: arrival numbers where lanes carry them, otherwise places in the lane.
    pub(crate) records: Option<Range<u64>>,
}

impl Wanted {
    pub(crate) fn is_everything(&self) -> bool {
        self.times.is_none() && self.records.is_none()
    }

    /// Whether a run of blocks with these times and numbers can hold anything that is wanted. A run of one
    /// record in pieces has no numbers between its own and the next one's.
    fn may_touch(&self, span: TimeSpan, numbers: Range<i64>) -> bool {
        let times =
            self.times.as_ref().is_none_or(|times| span.earliest < times.end && span.latest >= times.start);
        let records = self.records.as_ref().is_none_or(|records| {
            let behind = i128::from(numbers.end).max(i128::from(numbers.start) + 1);
            i128::from(numbers.start) < i128::from(records.end) && behind > i128::from(records.start)
        });
        times && records
    }

    /// Whether one record of a block is wanted.
    pub(crate) fn wants(&self, block: &DataBlock, index: usize) -> bool {
        let span = block.summary().span;
        let times = self.times.as_ref().is_none_or(|times| match block.time(index) {
            Some(time) => times.contains(&time),
            // Without event times, the whole block was sealed at one time.
            None => times.contains(&span.latest),
        });
        let records = self.records.as_ref().is_none_or(|records| {
            let number = match block.arrival(index) {
                Some(arrival) => u64::try_from(arrival).ok(),
                None => block.summary().first_record.checked_add(index as u64),
            };
            number.is_some_and(|number| records.contains(&number))
        });
        times && records
    }
}

/// Where one data block ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// The number in the lane of the next record.
    record: u64,
    /// Whether it is a piece of the one before.
    inside: bool,
}

impl Edge {
    const START: Self = Self { record: 0, inside: false };
}

/// What was read of a lane, from one edge to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stretch {
    /// Where its first data block begins.
    begins: Option<Edge>,
    /// Where the next data block must begin; of a stretch that begins inside a lane, nobody knows before its first.
    ends: Option<Edge>,
    bytes: u64,
    data_blocks: u32,
}

impl Stretch {
    fn from_start() -> Self {
        Self { ends: Some(Edge::START), ..Self::default() }
    }

    /// The stretches of a lane, read apart from one another, must be what its end says, as if they had been read in one go.
    pub(super) fn check_whole(lane: &ReadableLane, stretches: impl IntoIterator<Item = Self>) -> Result<()> {
        let whole = Self::joined(stretches).map_err(|source| lane.malformed(1, source))?;
        whole.check_end(lane)
    }

    /// Stretches that follow one another, from the lane's beginning on, as one.
    fn joined(stretches: impl IntoIterator<Item = Self>) -> Result<Self, Malformed> {
        let mut whole = Self::from_start();
        for stretch in stretches {
            let Some(begins) = stretch.begins else { continue };
            if whole.ends != Some(begins) {
                return Err(bad("number of the first record"));
            }
            whole.ends = stretch.ends;
            whole.bytes += stretch.bytes;
            whole.data_blocks += stretch.data_blocks;
        }
        Ok(whole)
    }

    /// What was read must be what the lane's end says.
    fn check_end(&self, lane: &ReadableLane) -> Result<()> {
        match &lane.end {
            Some(VerifiedEnd { sequence, end, .. }) if !self.is_all_of(end) => {
                Err(lane.malformed(*sequence, bad("totals of the lane")))
            }
            _ => Ok(()),
        }
    }

    fn is_all_of(&self, end: &LaneEnd) -> bool {
        let ends = Edge { record: end.records, inside: false };
        (self.data_blocks, self.ends, self.bytes) == (end.data_blocks, Some(ends), end.bytes)
    }
}

fn bad(what: &'static str) -> Malformed {
    Malformed { what, at: 0 }
}

/// Steps through the data blocks of a lane, in order, and checks that they follow one another.
#[derive(Debug)]
pub(crate) struct LaneCursor {
    ranges: std::vec::IntoIter<Range<u32>>,
    range: Range<u32>,
    /// Blocks must follow one another.
    everything: bool,
    /// From the lane's first block to its end.
    whole: bool,
    stretch: Stretch,
    block: Option<DataBlock>,
    /// Memory for the next block, where none is held.
    spare: Vec<u8>,
    ahead: Option<Ahead>,
}

impl LaneCursor {
    pub(crate) fn new(lane: &ReadableLane, wanted: &Wanted) -> Self {
        let everything = wanted.is_everything();
        Self {
            ranges: lane.candidates(wanted).into_iter(),
            range: 0..0,
            everything,
            whole: everything,
            stretch: Stretch::from_start(),
            block: None,
            spare: Vec::new(),
            ahead: None,
        }
    }

    /// Steps through some of the lane's blocks, which follow one another if all of them are wanted.
    pub(super) fn part(range: Range<u32>, everything: bool) -> Self {
        Self {
            ranges: Vec::new().into_iter(),
            range,
            everything,
            whole: false,
            stretch: Stretch::default(),
            block: None,
            spare: Vec::new(),
            ahead: None,
        }
    }

    /// Is given the blocks of a lane, from its first on, by whoever finds them.
    pub(super) fn following() -> Self {
        Self { stretch: Stretch::from_start(), ..Self::part(0..0, true) }
    }

    /// Takes a block of the lane that was opened, and checks that it follows those before: its records, if it holds any.
    pub(super) fn follow(
        &mut self,
        lane: &ReadableLane,
        header: &BlockHeader,
        body: &mut Vec<u8>,
    ) -> Result<Option<DataBlock>> {
        let malformed = |source| lane.malformed(header.sequence, source);
        match header.kind {
            BlockKind::Data => {
                let block = lane.decode_data(std::mem::take(body)).map_err(malformed)?;
                self.check(lane, header, &block).map_err(malformed)?;
                Ok(Some(block))
            }
            BlockKind::LaneEnd => {
                let end = LaneEnd::decode(body).map_err(malformed)?;
                if self.stretch.is_all_of(&end) {
                    Ok(None)
                } else {
                    Err(malformed(bad("totals of the lane")))
                }
            }
            _ => Ok(None),
        }
    }

    /// Reads small blocks that lie near one another at once.
    pub(super) fn reading_ahead(self) -> Self {
        self.using(Buffers::default())
    }

    /// The same, in the memory of a cursor before.
    pub(super) fn using(self, buffers: Buffers) -> Self {
        Self { ahead: Some(buffers.ahead), spare: buffers.block, ..self }
    }

    /// Gives the memory back, to be used again.
    pub(super) fn into_buffers(self) -> Buffers {
        Buffers {
            ahead: self.ahead.unwrap_or_default(),
            block: self.block.map_or(self.spare, DataBlock::into_buffer),
        }
    }

    /// What was read so far.
    pub(super) fn stretch(&self) -> Stretch {
        self.stretch
    }

    /// Whether the last block that was read ends inside a record.
    pub(crate) fn is_inside_record(&self) -> bool {
        self.stretch.ends.is_some_and(|ends| ends.inside)
    }

    /// The next data block and its place in the lane, read into the memory of the one before.
    pub(crate) fn next<'a, S: Source>(
        &'a mut self,
        file: &SegmentFile<S>,
        lane: &ReadableLane,
    ) -> Result<Option<(&'a DataBlock, u32)>> {
        let sequence = self.advance(file, lane)?;
        Ok(self.block.as_ref().zip(sequence))
    }

    /// The next data block and its place in the lane, to keep.
    pub(crate) fn next_owned<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        lane: &ReadableLane,
    ) -> Result<Option<(DataBlock, u32)>> {
        let sequence = self.advance(file, lane)?;
        Ok(self.block.take().zip(sequence))
    }

    fn advance<S: Source>(&mut self, file: &SegmentFile<S>, lane: &ReadableLane) -> Result<Option<u32>> {
        let spare = std::mem::take(&mut self.spare);
        let mut body = self.block.take().map_or(spare, DataBlock::into_buffer);
        loop {
            let Some(sequence) = self.next_place(lane)? else {
                self.spare = body;
                if std::mem::take(&mut self.everything) && self.whole {
                    self.stretch.check_end(lane)?;
                }
                return Ok(None);
            };
            match self.read(file, lane, sequence, &mut body) {
                Ok(None) => {}
                Ok(Some(block)) => {
                    self.block = Some(block);
                    return Ok(Some(sequence));
                }
                Err(error) => {
                    // Whoever goes on has a gap: what follows cannot follow what was read.
                    self.everything = false;
                    return Err(error);
                }
            }
        }
    }

    /// The next place where a block was found. Places without one, however many, are one error.
    fn next_place(&mut self, lane: &ReadableLane) -> Result<Option<u32>> {
        while self.range.is_empty() {
            match self.ranges.next() {
                Some(range) => self.range = range,
                None => return Ok(None),
            }
        }
        let wanted = self.range.start;
        let found = lane.place.blocks.next_from(wanted).filter(|found| *found < self.range.end);
        if found == Some(wanted) {
            self.range.start = wanted.saturating_add(1);
            return Ok(found);
        }
        self.range.start = found.unwrap_or(self.range.end);
        self.everything = false;
        Err(missing_block(&lane.place, wanted))
    }

    fn read<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        lane: &ReadableLane,
        sequence: u32,
        body: &mut Vec<u8>,
    ) -> Result<Option<DataBlock>> {
        let (header, encoded) = match &mut self.ahead {
            Some(ahead) => ahead.read_block(file, &lane.place, sequence, body)?,
            None => file.read_block(&lane.place, sequence, body)?,
        };
        // What a block says it is counts once it verifies: data must not be passed over for being called otherwise.
        lane.open_block(&header, &encoded, body)?;
        if header.kind != BlockKind::Data {
            return Ok(None);
        }
        let malformed = |source| lane.malformed(sequence, source);
        let block = lane.decode_data(std::mem::take(body)).map_err(malformed)?;
        self.check(lane, &header, &block).map_err(malformed)?;
        Ok(Some(block))
    }

    fn check(
        &mut self,
        lane: &ReadableLane,
        header: &BlockHeader,
        block: &DataBlock,
    ) -> Result<(), Malformed> {
        let summary = block.summary();
        let long_record = lane.descriptor.contents.long_record;
        lane.check_contents(header, block)?;
        let begins = Edge { record: summary.first_record, inside: header.flags.is_continued() };
        if self.everything && self.stretch.ends.is_some_and(|ends| ends != begins) {
            return Err(bad("number of the first record"));
        }
        let whole = if long_record { u64::from(!header.flags.continues()) } else { block.len() as u64 };
        let record = begins.record.checked_add(whole).ok_or(bad("number of the first record"))?;
        self.stretch.begins.get_or_insert(begins);
        self.stretch.ends = Some(Edge { record, inside: header.flags.continues() });
        self.stretch.bytes += block.values().len() as u64;
        self.stretch.data_blocks += 1;
        Ok(())
    }
}

/// The memory of a cursor.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    ahead: Ahead,
    block: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequence: u32, blocks: u32) -> IndexEntry {
        IndexEntry { sequence, blocks, first_record: 0, lowest_arrival: 0, span: TimeSpan::at(0) }
    }

    #[test]
    fn an_index_in_parts_is_one() {
        let summary = Section::Skippable(0x80, vec![]);
        let mut sections =
            vec![Section::Index(vec![run(1, 2)]), summary.clone(), Section::Index(vec![run(3, 1)])];
        assert_eq!(take_index(&mut sections), [run(1, 2), run(3, 1)]);
        assert_eq!(sections, [summary]);
    }

    fn stretch(begins: (u64, bool), ends: (u64, bool), data_blocks: u32) -> Stretch {
        let edge = |(record, inside)| Some(Edge { record, inside });
        Stretch { begins: edge(begins), ends: edge(ends), bytes: 10, data_blocks }
    }

    #[test]
    fn stretches_read_apart_are_one_lane_if_they_follow_one_another() {
        let (first, second, none) =
            (stretch((0, false), (5, true), 2), stretch((5, true), (9, false), 3), Stretch::default());
        let end = LaneEnd { data_blocks: 5, records: 9, bytes: 20, section_blocks: 0, sections: vec![] };
        let whole = Stretch::joined([first, none, second]).unwrap();
        assert!(whole.is_all_of(&end));
        for other in [
            LaneEnd { data_blocks: 6, ..end.clone() },
            LaneEnd { records: 8, ..end.clone() },
            LaneEnd { bytes: 21, ..end.clone() },
        ] {
            assert!(!whole.is_all_of(&other), "{other:?}");
        }
        assert!(!Stretch::joined([first]).unwrap().is_all_of(&LaneEnd {
            data_blocks: 2,
            records: 5,
            bytes: 10,
            ..end
        }));
        for gap in [vec![second], vec![first, first], vec![first, stretch((5, false), (9, false), 3)]] {
            assert!(Stretch::joined(gap.clone()).is_err(), "{gap:?}");
        }
    }

    #[test]
    fn the_runs_of_an_index_follow_one_another_and_are_of_all_data() {
        assert!(places_all_data(&[], 0, 1));
        assert!(places_all_data(&[run(1, 2), run(3, 1)], 3, 4));
        // With a block between them that a reader skips.
        assert!(places_all_data(&[run(2, 2), run(5, 1)], 3, 6));
        for (index, data_blocks) in [
            (vec![], 1),
            (vec![run(0, 2)], 2),
            (vec![run(1, 2), run(2, 1)], 3),
            (vec![run(3, 1), run(1, 2)], 3),
            (vec![run(1, 2), run(3, 1)], 4),
            (vec![run(1, 4)], 4),
            (vec![run(1, u32::MAX)], 3),
            (vec![run(u32::MAX, 1)], 1),
        ] {
            assert!(!places_all_data(&index, data_blocks, 4), "{index:?}");
        }
    }
}
