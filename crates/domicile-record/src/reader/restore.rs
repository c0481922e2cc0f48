//! Giving back what went in: preambles, records in the order of arrival, postambles.

use std::collections::BTreeMap;
use std::io::Write;

use domicile::{Error, Result};

use super::lane::{LaneCursor, ReadableLane};
use super::merge::Merge;
use super::source::Source;
use super::{Segment, SegmentLane};
use crate::format::{BlockKind, Section};
use crate::framing::Framing;

/// What was given back.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Restored {
    /// Records.
    pub records: u64,
    /// Octets, framing included.
    pub bytes: u64,
    /// A range of times was asked of lanes that keep none: blocks were selected by when they were sealed.
    pub times_by_block: bool,
    /// What could not be read and was left out: the first [`FAILURES_MAX`](Self::FAILURES_MAX) blocks.
    pub failures: Vec<Error>,
}

impl Restored {
    /// The most failures that are kept; further ones are left out as well.
    pub const FAILURES_MAX: usize = 100;

    /// Keeps a failure, once: a block may be looked at for its records, and for what frames them.
    pub(super) fn fail(&mut self, error: Error) {
        let is_same = |known: &Error| (known.code(), known.place()) == (error.code(), error.place());
        if self.failures.len() < Self::FAILURES_MAX && !self.failures.iter().any(is_same) {
            self.failures.push(error);
        }
    }
}

impl<S: Source> Segment<S> {
    /// Writes the selected records as they stood in the input: each input's preamble, its records in the
    /// order in which they arrived, and its postamble. Everything selected gives the input back, octet for
    /// octet. Nothing is written before it was authenticated; a block that does not verify is left out and
    /// reported, and stops no other.
    ///
    /// # Errors
    /// [`OutputFailed`](domicile::Code::OutputFailed) when `output` fails.
    pub fn restore(&self, output: &mut dyn Write) -> Result<Restored> {
        let mut restored = Restored::default();
        self.restore_into(output, &mut restored)?;
        Ok(restored)
    }

    /// The same, and adds what was given back to `restored`: what could not be read is known even if
    /// `output` fails later.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_into(&self, output: &mut dyn Write, restored: &mut Restored) -> Result<()> {
        let mut inputs: BTreeMap<u32, Vec<&ReadableLane>> = BTreeMap::new();
        for lane in self.lanes.iter().filter_map(SegmentLane::readable) {
            inputs.entry(lane.descriptor.source).or_default().push(lane);
        }
        let is_everything = self.is_everything();
        for lanes in inputs.into_values() {
            if self.wanted.times.is_some() {
                restored.times_by_block |= lanes.iter().any(|lane| !lane.descriptor.contents.event_times);
            }
            let framing = lanes.first().and_then(|lane| lane.descriptor.framing);
            let mut out =
                Out { output, framing, held: Vec::new(), is_whole: is_everything, restored: &mut *restored };
            self.write_frame(&lanes, BlockKind::Preamble, &mut out)?;
            if lanes.len() > 1 && lanes.iter().all(|lane| lane.descriptor.contents.arrivals) {
                Merge::new(&self.file, &self.wanted, lanes.clone(), &mut out).write(&mut out)?;
            } else {
                for lane in &lanes {
                    self.write_lane(lane, &mut out)?;
                }
            }
            out.end_records()?;
            self.write_frame(&lanes, BlockKind::Postamble, &mut out)?;
        }
        Ok(())
    }

    /// Whether every lane that the segment has was selected and can be read, and every record of it.
    fn is_everything(&self) -> bool {
        let directory = self.region.as_ref().and_then(|region| region.end.as_ref()).map(|end| {
            let sections = end.end.sections.iter();
            sections
                .map(|section| if let Section::Directory(lanes) = section { lanes.len() } else { 0 })
                .sum()
        });
        // A segment without an end has the lanes that a walk found, lane 0 among them.
        let walked = || self.file.walked().and_then(|walked| walked.lanes.len().checked_sub(1));
        self.wanted.is_everything()
            && directory.or_else(walked) == Some(self.lanes.len())
            && self.lanes.iter().all(|lane| lane.readable().is_some())
    }

    fn write_lane(&self, lane: &ReadableLane, out: &mut Out<'_>) -> Result<()> {
        let mut cursor = LaneCursor::new(lane, &self.wanted).reading_ahead();
        let pieces = lane.descriptor.contents.long_record;
        let everything = self.wanted.is_everything();
        let mut is_wanted = false;
        loop {
            let block = match cursor.next(&self.file, lane) {
                Ok(Some((block, _))) => block,
                Ok(None) => break,
                Err(error) => {
                    out.fail(error);
                    continue;
                }
            };
            if pieces {
                if self.wanted.wants(block, 0) {
                    out.piece(block.values())?;
                    is_wanted = true;
                }
            } else if everything {
                // Whole blocks at once: records stand in them as they stood in the input.
                out.records(block.values(), block.len() as u64)?;
            } else {
                for (index, record) in block.records().enumerate() {
                    if self.wanted.wants(block, index) {
                        out.record(record)?;
                    }
                }
            }
        }
        if is_wanted {
            out.count_record();
        }
        Ok(())
    }

    /// Writes the preamble or postamble of an input: every lane of it keeps the same, so the first that
    /// can be read will do.
    fn write_frame(&self, lanes: &[&ReadableLane], kind: BlockKind, out: &mut Out<'_>) -> Result<()> {
        let mut failure = None;
        for lane in lanes {
            match self.frame(lane, kind) {
                Ok(Some(frame)) => return out.write(&frame),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.into_iter().for_each(|error| out.fail(error));
        Ok(())
    }

    pub(crate) fn frame(&self, lane: &ReadableLane, kind: BlockKind) -> Result<Option<Vec<u8>>> {
        let Some(sequence) = frame_sequence(lane, kind) else { return Ok(None) };
        let mut body = Vec::new();
        let (header, encoded) = self.file.read_block(&lane.place, sequence, &mut body)?;
        // That there is none counts once the block that stands there verifies.
        lane.open_block(&header, &encoded, &mut body)?;
        Ok((header.kind == kind).then_some(body))
    }
}

/// Where a preamble or postamble stands in its lane: behind the opening, or before the end.
fn frame_sequence(lane: &ReadableLane, kind: BlockKind) -> Option<u32> {
    match kind {
        BlockKind::Preamble => (lane.place.blocks.len() > 1).then_some(1),
        _ => {
            let end = lane.end.as_ref()?;
            end.sequence.checked_sub(end.end.section_blocks)?.checked_sub(1).filter(|sequence| *sequence > 0)
        }
    }
}

/// Where restored records go.
pub(super) struct Out<'a> {
    output: &'a mut dyn Write,
    framing: Option<Framing>,
    /// Blanks and commas that the elements of a JSON array ended with so far: whether they are written
    /// depends on what follows.
    held: Vec<u8>,
    /// Everything is given back, and nothing of it was left out so far.
    is_whole: bool,
    restored: &'a mut Restored,
}

/// The most octets that are held back. A comma with more blanks behind it is written where it stands, and a
/// selection that ends with it has one comma too many.
const HELD_BYTES_MAX: usize = 64 << 10;

impl Out<'_> {
    pub(super) fn record(&mut self, record: &[u8]) -> Result<()> {
        self.records(record, 1)
    }

    /// Several records at once.
    fn records(&mut self, values: &[u8], count: u64) -> Result<()> {
        self.restored.records += count;
        self.piece(values)
    }

    /// A piece of a long record; whoever gives its last counts the record.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<()> {
        let (body, divider) = self.framing.map_or((piece, &[][..]), |framing| framing.split_divider(piece));
        if !body.is_empty() {
            self.write_held()?;
            self.write(body)?;
        }
        if self.held.len() + divider.len() > HELD_BYTES_MAX {
            self.write_held()?;
            return self.write(divider);
        }
        self.held.extend_from_slice(divider);
        Ok(())
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.is_whole = false;
        self.restored.fail(error);
    }

    pub(super) fn count_record(&mut self) {
        self.restored.records += 1;
    }

    fn end_records(&mut self) -> Result<()> {
        if let Some(framing) = self.framing.filter(|_| !self.is_whole) {
            let kept = framing.end_of_selection(&self.held).len();
            self.held.truncate(kept);
        }
        self.write_held()
    }

    fn write_held(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        self.write(&held)?;
        self.held = held;
        self.held.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.restored.bytes += bytes.len() as u64;
        let written = self.output.write_all(bytes);
        written.map_err(|source| Error::output_failed("the output could not be written", source))
    }
}
