//! Reading one lane whose key is at hand.

use std::ops::Range;

use domicile::keyring::Lease;
use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

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
    /// A lane whose key is at hand, with its end, if it has one.
    pub(crate) fn new<S: Source>(
        file: &SegmentFile<S>,
        place: LanePlace,
        descriptor: Descriptor,
        opener: LaneOpener,
        lease: Option<Lease>,
    ) -> Result<Self> {
        let mut lane =
            Self { place, descriptor, opener, lease, end: None, broken_end: None, unsynced_from: None };
        lane.read_end(file)?;
        Ok(lane)
    }

    /// Reads and verifies the lane's end, with its section blocks: the last of the blocks that say they are it and
    /// whose tag verifies. What stands behind that was not sealed as this lane's, or not by its writer.
    fn read_end<S: Source>(&mut self, file: &SegmentFile<S>) -> Result<()> {
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
        let tag = body.get(header.payload_bytes()..).and_then(|behind| behind.first_chunk());
        let hash = tag.filter(|_| header.flags.is_sealed()).map(|tag| end_hash(&encoded, tag));
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

/// Steps through the data blocks of a lane, in order, and checks that they follow one another.
#[derive(Debug)]
pub(crate) struct LaneCursor {
    ranges: std::vec::IntoIter<Range<u32>>,
    range: Range<u32>,
    everything: bool,
    next_record: u64,
    inside_record: bool,
    bytes: u64,
    data_blocks: u32,
    block: Option<DataBlock>,
}

impl LaneCursor {
    pub(crate) fn new(lane: &ReadableLane, wanted: &Wanted) -> Self {
        Self {
            ranges: lane.candidates(wanted).into_iter(),
            range: 0..0,
            everything: wanted.is_everything(),
            next_record: 0,
            inside_record: false,
            bytes: 0,
            data_blocks: 0,
            block: None,
        }
    }

    /// Whether the last block that was read ends inside a record.
    pub(crate) fn is_inside_record(&self) -> bool {
        self.inside_record
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
        let mut body = self.block.take().map(DataBlock::into_buffer).unwrap_or_default();
        loop {
            let Some(sequence) = self.next_place(lane)? else {
                if std::mem::take(&mut self.everything) {
                    self.check_end(lane)?;
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
        let (header, encoded) = file.read_block(&lane.place, sequence, body)?;
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
        let bad = |what| Malformed { what, at: 0 };
        let summary = block.summary();
        let contents = lane.descriptor.contents;
        if summary.has_times != contents.event_times
            || (summary.arrivals != Arrivals::None) != contents.arrivals
        {
            return Err(bad("arrays of a data block that its lane does not keep"));
        }
        let pieces = header.flags.is_continued() || header.flags.continues();
        if pieces && !contents.long_record || contents.long_record && summary.count != 1 {
            return Err(bad("pieces of a record in a lane of whole records"));
        }
        if self.everything {
            if summary.first_record != self.next_record || header.flags.is_continued() != self.inside_record {
                return Err(bad("number of the first record"));
            }
            self.inside_record = header.flags.continues();
        }
        let whole =
            if contents.long_record { u64::from(!header.flags.continues()) } else { block.len() as u64 };
        self.next_record =
            summary.first_record.checked_add(whole).ok_or(bad("number of the first record"))?;
        self.bytes += block.values().len() as u64;
        self.data_blocks += 1;
        Ok(())
    }

    /// What was read must be what the lane's end says.
    fn check_end(&self, lane: &ReadableLane) -> Result<()> {
        let Some(VerifiedEnd { sequence, end, .. }) = &lane.end else { return Ok(()) };
        let read = (self.data_blocks, self.next_record, self.bytes, self.inside_record);
        if read != (end.data_blocks, end.records, end.bytes, false) {
            return Err(lane.malformed(*sequence, Malformed { what: "totals of the lane", at: 0 }));
        }
        Ok(())
    }
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
