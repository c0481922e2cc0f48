//! Reading one lane whose key is at hand.

use std::ops::Range;

use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

use super::map::{LanePlace, SegmentFile};
use super::source::Source;
use crate::format::{
    Arrivals, BlockHeader, BlockKind, DataBlock, Descriptor, IndexEntry, LaneEnd, Section, Sections, TimeSpan,
};
use crate::open::LaneOpener;
use crate::running_hash::end_hash;

/// A lane that can be read.
#[derive(Debug)]
pub(crate) struct ReadableLane {
    pub(crate) place: LanePlace,
    pub(crate) descriptor: Descriptor,
    pub(crate) opener: LaneOpener,
    /// The lane's end, once it was read and verified.
    pub(crate) end: Option<VerifiedEnd>,
}

/// The end of a lane, and what it says.
#[derive(Debug)]
pub(crate) struct VerifiedEnd {
    pub(crate) sequence: u32,
    pub(crate) end: LaneEnd,
    pub(crate) hash: [u8; 32],
}

impl VerifiedEnd {
    /// The runs of data blocks, if the lane has an index.
    pub(crate) fn index(&self) -> &[IndexEntry] {
        let index = self.end.sections.iter().find_map(|section| match section {
            Section::Index(entries) => Some(&entries[..]),
            _ => None,
        });
        index.unwrap_or(&[])
    }
}

impl ReadableLane {
    /// Reads and verifies the lane's end, if the last block that was found is one; its section blocks are
    /// read with it.
    pub(crate) fn read_end<S: Source>(&mut self, file: &SegmentFile<S>) -> Result<()> {
        let Some(sequence) = self.place.blocks.last() else { return Ok(()) };
        let mut body = Vec::new();
        let (header, encoded) = file.read_block(&self.place, sequence, &mut body)?;
        if header.kind != BlockKind::LaneEnd {
            return Ok(());
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
        end.sections = sections;
        self.end = Some(VerifiedEnd { sequence, end, hash: end_hash(&encoded, &tag) });
        Ok(())
    }

    /// Opens a block of this lane in place.
    pub(crate) fn open_block(
        &self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<[u8; domicile::engine::TAG_BYTES]> {
        self.opener
            .open(header, encoded, body)
            .map_err(|error| error.at(format!("lane {}, block {}", header.lane, header.sequence)))
    }

    /// The places in the lane of the data blocks that can hold the wanted records and times.
    pub(crate) fn candidates(&self, wanted: &Wanted) -> Vec<Range<u32>> {
        let last = self.place.blocks.last().map_or(0, |last| last + 1);
        let Some(end) = self.end.as_ref().filter(|_| !wanted.is_everything()) else {
            return std::iter::once(1..last).collect();
        };
        // Numbers rise through a lane (SEG-24), so that a run ends where the next one begins.
        let numbers = |run: &IndexEntry| match self.descriptor.contents.arrivals {
            true => run.lowest_arrival,
            false => i64::try_from(run.first_record).unwrap_or(i64::MAX),
        };
        let index = end.index();
        let behind = index.iter().skip(1).map(numbers).chain([i64::MAX]);
        index
            .iter()
            .zip(behind)
            .filter(|(run, behind)| wanted.may_touch(run.span, numbers(run)..*behind))
            .map(|(run, _)| run.sequence..run.sequence.saturating_add(run.blocks))
            .collect()
    }

    pub(crate) fn malformed(&self, sequence: u32, source: Malformed) -> Error {
        Error::new(Code::SegmentCorrupt, "a block was sealed with contents that make no sense")
            .at(format!("lane {}, block {sequence}", self.place.key.lane))
            .because(source)
    }
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
            let Some(sequence) = self.range.next() else {
                match self.ranges.next() {
                    Some(range) => {
                        self.range = range;
                        continue;
                    }
                    None => return Ok(None),
                }
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

    fn read<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        lane: &ReadableLane,
        sequence: u32,
        body: &mut Vec<u8>,
    ) -> Result<Option<DataBlock>> {
        let (header, encoded) = file.read_block(&lane.place, sequence, body)?;
        match header.kind {
            BlockKind::Data => {
                lane.open_block(&header, &encoded, body)?;
                let malformed = |source| lane.malformed(sequence, source);
                let block = DataBlock::decode(std::mem::take(body)).map_err(malformed)?;
                self.check(lane, &header, &block).map_err(malformed)?;
                return Ok(Some(block));
            }
            BlockKind::LaneEnd if self.everything => self.check_end(lane)?,
            // Whoever wants records reads these elsewhere.
            _ => {}
        }
        Ok(None)
    }

    /// Whether any data block was read.
    pub(crate) fn has_read(&self) -> bool {
        self.data_blocks > 0
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
