//! The record of a lane that holds one, such as a recording of a call, as a stream that can be read anywhere.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

use super::lane::ReadableLane;
use super::map::SegmentFile;
use super::source::Source;
use super::{Segment, SegmentLane};
use crate::format::{BlockHeader, BlockKind, Compression, DataBlock, LaneNo, padded};

/// A long record: octets that are verified, block by block, before any of them is given.
///
/// Only the blocks of what is read are opened, where its pieces are of one length, as a writer makes them that did not commit
/// while the record came; of another, the blocks before it are opened once. One block is in memory.
///
/// Errors of [`Read`] and [`Seek`] hold the [`Error`] that says why.
pub struct LongRecord<'a, S> {
    file: &'a SegmentFile<S>,
    lane: &'a ReadableLane,
    /// Where data blocks can stand in the lane.
    blocks: Range<u32>,
    /// Octets of the record: what the lane's end says, or what was found by reading up to where a lane without one ends.
    length: Option<u64>,
    at: u64,
    piece: Option<Piece>,
    /// What is known of where pieces begin: every so many of those that were passed.
    passed: Vec<Place>,
    pieces: Pieces,
    spare: Vec<u8>,
}

/// Whether pieces are of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    NotLooked,
    OfOneLength(u64),
    Various,
}

/// Where a piece stands in the lane, and in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: u32,
    at: u64,
    /// No piece of the record comes before it.
    begins: bool,
}

/// An opened piece.
#[derive(Debug)]
struct Piece {
    place: Place,
    block: DataBlock,
    /// The record goes on behind it.
    continues: bool,
}

impl Piece {
    fn end(&self) -> u64 {
        self.place.at + self.block.values().len() as u64
    }

    /// Where the next piece may stand.
    fn next(&self) -> Place {
        Place { sequence: self.place.sequence.saturating_add(1), at: self.end(), begins: false }
    }
}

/// Of the pieces that were passed, one of so many is kept: half a mebibyte for the longest lane.
const PASSED_EACH: u32 = 256;

impl<S: Source> Segment<S> {
    /// The record of a selected lane that holds one: in pieces, or whole in a block.
    ///
    /// # Errors
    /// [`LaneNone`](Code::LaneNone) when the lane was not selected; why it cannot be read;
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) when it holds other records.
    pub fn long_record(&self, lane: LaneNo) -> Result<LongRecord<'_, S>> {
        let at = || format!("lane {lane}");
        let selected = self.lanes.iter().find(|selected| selected.lane == lane);
        let selected = selected.ok_or_else(|| {
            Error::new(Code::LaneNone, "the lane is not among those that were selected").at(at())
        })?;
        let readable = selected.status.as_ref().map_err(Error::again)?;
        if !readable.holds_one_record() {
            return Err(Error::new(Code::ArgumentInvalid, "the lane does not hold one record alone").at(at()));
        }
        Ok(LongRecord::new(&self.file, readable))
    }
}

impl SegmentLane {
    /// Whether the lane can be read and holds one record, in pieces or whole.
    #[must_use]
    pub fn holds_one_record(&self) -> bool {
        self.readable().is_some_and(ReadableLane::holds_one_record)
    }
}

impl ReadableLane {
    fn holds_one_record(&self) -> bool {
        self.descriptor.contents.long_record || self.end.as_ref().is_some_and(|end| end.end.records == 1)
    }
}

impl<'a, S: Source> LongRecord<'a, S> {
    fn new(file: &'a SegmentFile<S>, lane: &'a ReadableLane) -> Self {
        let (blocks, length) = match &lane.end {
            Some(end) => {
                let sections = end.sequence.saturating_sub(end.end.section_blocks);
                let first = end.index.first().map_or(sections, |run| run.sequence);
                (first..sections, Some(end.end.bytes))
            }
            None => (1..lane.place.blocks.last().map_or(1, |last| last.saturating_add(1)), None),
        };
        Self {
            file,
            lane,
            blocks,
            length,
            at: 0,
            piece: None,
            passed: Vec::new(),
            pieces: Pieces::NotLooked,
            spare: Vec::new(),
        }
    }

    /// Octets of the record. Of a segment without an end, whose length nobody has said, all of it is read to find out.
    ///
    /// # Errors
    /// The first block that does not verify.
    pub fn length(&mut self) -> Result<u64> {
        match self.length {
            Some(length) => Ok(length),
            None => {
                self.find(u64::MAX)?;
                Ok(self.length.unwrap_or_default())
            }
        }
    }

    /// Where reading goes on.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Writes a range of the record's octets, as far as it has them; returns how many there were. Reading goes on behind them.
    ///
    /// # Errors
    /// The first block that does not verify; [`OutputFailed`](Code::OutputFailed). What was written before is authentic, and
    /// goes up to where reading would go on.
    pub fn write_range(&mut self, range: Range<u64>, output: &mut dyn Write) -> Result<u64> {
        self.at = range.start;
        while self.at < range.end {
            let at = self.at;
            let Some(found) = self.find(at)? else { break };
            let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let found = found.get(..wanted).unwrap_or(found);
            let written = output.write_all(found);
            written.map_err(|source| Error::output_failed("the output could not be written", source))?;
            self.at += found.len() as u64;
        }
        Ok(self.at - range.start)
    }

    /// What the piece around an offset holds from there on; nothing behind the record's end.
    fn find(&mut self, at: u64) -> Result<Option<&[u8]>> {
        if self.length.is_some_and(|length| at >= length) {
            return Ok(None);
        }
        let is_held = |piece: &Piece| (piece.place.at..piece.end()).contains(&at);
        if !self.piece.as_ref().is_some_and(is_held) && !self.go_to(at)? {
            return Ok(None);
        }
        let Some(piece) = &self.piece else { return Ok(None) };
        let from = usize::try_from(at - piece.place.at).unwrap_or(usize::MAX);
        Ok(piece.block.values().get(from..).filter(|octets| !octets.is_empty()))
    }

    /// Opens the piece around an offset; false if the record ends before it.
    fn go_to(&mut self, at: u64) -> Result<bool> {
        let next = self.piece.as_ref().map_or(0, Piece::end);
        if at != next {
            if self.pieces == Pieces::NotLooked {
                self.pieces = self.look()?;
            }
            if let Pieces::OfOneLength(length) = self.pieces {
                let number = at.checked_div(length).and_then(|number| u32::try_from(number).ok());
                let sequence = number.and_then(|number| self.blocks.start.checked_add(number));
                let Some((sequence, number)) = sequence.zip(number) else { return Ok(false) };
                let place = Place { sequence, at: u64::from(number) * length, begins: number == 0 };
                let piece = self.open(place)?;
                let piece = piece.filter(|piece| !piece.continues || piece.end() - place.at == length);
                self.piece = piece;
                return if self.piece.is_some() { Ok(true) } else { Err(self.wrong(sequence)) };
            }
        }
        self.step_to(at)
    }

    /// Opens piece after piece, from the nearest that is known on, until the one around an offset is open.
    fn step_to(&mut self, at: u64) -> Result<bool> {
        let passed = self.passed.partition_point(|place| place.at <= at).checked_sub(1);
        let passed = passed.and_then(|passed| self.passed.get(passed)).copied();
        let held = self.piece.as_ref().filter(|piece| piece.end() <= at);
        let held = held.map(|piece| (piece.next(), piece.continues));
        let start = Place { sequence: self.blocks.start, at: 0, begins: true };
        let known = passed.map(|place| (place, true)).into_iter().chain(held);
        let nearest = known.max_by_key(|(place, _)| place.sequence);
        let (mut place, mut goes_on) = nearest.unwrap_or((start, true));
        while goes_on && place.sequence < self.blocks.end {
            let Some(piece) = self.open(place)? else {
                place.sequence += 1;
                continue;
            };
            self.keep(place);
            (place, goes_on) = (piece.next(), piece.continues);
            let found = at < piece.end();
            self.piece = Some(piece);
            if found {
                return Ok(true);
            }
        }
        match self.length {
            Some(length) if length != place.at => Err(self.wrong(place.sequence.saturating_sub(1))),
            _ => {
                self.length = Some(place.at);
                Ok(false)
            }
        }
    }

    fn keep(&mut self, place: Place) {
        let is_behind = self.passed.last().is_none_or(|last| last.sequence < place.sequence);
        if is_behind && (place.sequence - self.blocks.start).is_multiple_of(PASSED_EACH) {
            self.passed.push(place);
        }
    }

    /// Whether all pieces but the last are as long as the first, so that a piece is found without those before it.
    ///
    /// Its end says how many pieces the lane has and how long they are together. If none but the last is longer than the first,
    /// and they come to that with the first's length, each has it. That none is longer, the lengths in their headers say: these
    /// tell a length up to a multiple of eight, so that the first's must be one.
    fn look(&mut self) -> Result<Pieces> {
        let Some(end) = self.lane.end.as_ref().map(|end| &end.end) else { return Ok(Pieces::Various) };
        // The length of a compressed block says nothing of what is in it.
        if self.lane.descriptor.compression != Compression::None {
            return Ok(Pieces::Various);
        }
        let last = self.blocks.start.checked_add(end.data_blocks).and_then(|behind| behind.checked_sub(1));
        let last = last.filter(|last| end.data_blocks > 1 && *last < self.blocks.end);
        let (Some(last), Some((first_header, first))) = (last, self.open_block(self.blocks.start)?) else {
            return Ok(Pieces::Various);
        };
        let length = first.values().len();
        self.spare = first.into_buffer();
        let Some((last_header, block)) = self.open_block(last)? else { return Ok(Pieces::Various) };
        let all_but_last = u64::from(end.data_blocks - 1) * length as u64;
        let come_to_the_total = all_but_last + block.values().len() as u64 == end.bytes
            && block.values().len() <= length
            && !last_header.flags.continues();
        self.spare = block.into_buffer();
        if length == 0 || length != padded(length) || !come_to_the_total {
            return Ok(Pieces::Various);
        }
        for sequence in self.blocks.start + 1..last {
            // Blocks that follow one another in the file are as long as they lie apart.
            let places = &self.lane.place.blocks;
            let apart = places.get(sequence).zip(places.get(sequence + 1));
            let apart = apart.and_then(|(at, next)| next.checked_sub(at));
            if apart != Some(first_header.block_bytes())
                && self.file.read_block_header(&self.lane.place, sequence)?.length != first_header.length
            {
                return Ok(Pieces::Various);
            }
        }
        Ok(Pieces::OfOneLength(length as u64))
    }

    /// Opens the piece at a place, if a data block stands there.
    fn open(&mut self, place: Place) -> Result<Option<Piece>> {
        let Some((header, block)) = self.open_block(place.sequence)? else { return Ok(None) };
        let piece = Piece { place, block, continues: header.flags.continues() };
        let fits = match self.length {
            Some(length) if piece.continues => piece.end() <= length,
            Some(length) => piece.end() == length,
            None => true,
        };
        if fits && header.flags.is_continued() != place.begins && piece.block.len() == 1 {
            return Ok(Some(piece));
        }
        Err(self.wrong(place.sequence))
    }

    fn open_block(&mut self, sequence: u32) -> Result<Option<(BlockHeader, DataBlock)>> {
        let mut body = match self.piece.take() {
            Some(piece) => piece.block.into_buffer(),
            None => std::mem::take(&mut self.spare),
        };
        let (header, encoded) = self.file.read_block(&self.lane.place, sequence, &mut body)?;
        self.lane.open_block(&header, &encoded, &mut body)?;
        if header.kind != BlockKind::Data {
            self.spare = body;
            return Ok(None);
        }
        let malformed = |source| self.lane.malformed(sequence, source);
        let block = self.lane.decode_data(body).map_err(malformed)?;
        self.lane.check_contents(&header, &block).map_err(malformed)?;
        Ok(Some((header, block)))
    }

    fn wrong(&self, sequence: u32) -> Error {
        self.lane.malformed(sequence, Malformed { what: "pieces of a record", at: 0 })
    }
}

impl<S: Source> Read for LongRecord<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let found = self.find(at).map_err(io::Error::other)?.unwrap_or_default();
        let length = found.len().min(into.len());
        if let (Some(into), Some(found)) = (into.get_mut(..length), found.get(..length)) {
            into.copy_from_slice(found);
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl<S: Source> Seek for LongRecord<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length().map_err(io::Error::other)?.checked_add_signed(by),
        };
        let before =
            || io::Error::new(io::ErrorKind::InvalidInput, "a place before the record's first octet");
        self.at = at.ok_or_else(before)?;
        Ok(self.at)
    }
}

impl<S> fmt::Debug for LongRecord<'_, S> {
    /// Shows where it is, and nothing of the record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongRecord")
            .field("lane", &self.lane.place.key.lane)
            .field("length", &self.length)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
