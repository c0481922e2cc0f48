//! Giving back what went in: preambles, records in the order of arrival, postambles.

use std::collections::BTreeMap;
use std::io::Write;

use domicile::{Error, Result};

use super::lane::{LaneCursor, ReadableLane};
use super::merge::Merge;
use super::source::Source;
use super::{Segment, SegmentLane};
use crate::format::BlockKind;
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

    pub(super) fn fail(&mut self, error: Error) {
        if self.failures.len() < Self::FAILURES_MAX {
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
    /// [`OutputFailed`](Code::OutputFailed) when `output` fails.
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
        for lanes in inputs.into_values() {
            if self.wanted.times.is_some() {
                restored.times_by_block |= lanes.iter().any(|lane| !lane.descriptor.contents.event_times);
            }
            let framing = lanes.first().and_then(|lane| lane.descriptor.framing);
            let mut out = Out { output, framing, held: None, restored: &mut *restored };
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

    fn write_lane(&self, lane: &ReadableLane, out: &mut Out<'_>) -> Result<()> {
        let mut cursor = LaneCursor::new(lane, &self.wanted);
        let pieces = lane.descriptor.contents.long_record;
        let everything = self.wanted.is_everything();
        loop {
            let block = match cursor.next(&self.file, lane) {
                Ok(Some((block, _))) => block,
                Ok(None) => break,
                Err(error) => {
                    out.restored.fail(error);
                    continue;
                }
            };
            if pieces {
                if self.wanted.wants(block, 0) {
                    out.piece(block.values())?;
                }
            } else if everything && !out.holds_back() {
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
        if pieces {
            out.restored.records += u64::from(cursor.has_read());
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

    fn frame(&self, lane: &ReadableLane, kind: BlockKind) -> Result<Option<Vec<u8>>> {
        let Some(sequence) = frame_sequence(lane, kind) else { return Ok(None) };
        let mut body = Vec::new();
        let (header, encoded) = self.file.read_block(&lane.place, sequence, &mut body)?;
        if header.kind != kind {
            return Ok(None);
        }
        lane.open_block(&header, &encoded, &mut body)?;
        Ok(Some(body))
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
    /// The last record of a JSON array, whose comma depends on what follows.
    held: Option<Vec<u8>>,
    restored: &'a mut Restored,
}

impl Out<'_> {
    /// Whether records must be given one by one.
    pub(super) fn holds_back(&self) -> bool {
        self.framing == Some(Framing::JsonArray)
    }

    pub(super) fn record(&mut self, record: &[u8]) -> Result<()> {
        self.restored.records += 1;
        if self.holds_back() {
            let before = self.held.replace(record.to_vec());
            return before.map_or(Ok(()), |before| self.write(&before));
        }
        self.write(record)
    }

    /// Several records at once.
    pub(super) fn records(&mut self, values: &[u8], count: u64) -> Result<()> {
        self.restored.records += count;
        self.write(values)
    }

    /// A piece of a long record; whoever gives its last counts the record.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<()> {
        if let Some(before) = self.held.take() {
            self.write(&before)?;
        }
        self.write(piece)
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.restored.fail(error);
    }

    pub(super) fn count_record(&mut self) {
        self.restored.records += 1;
    }

    fn end_records(&mut self) -> Result<()> {
        let Some(last) = self.held.take() else { return Ok(()) };
        self.write(self.framing.map_or(&last[..], |framing| framing.last_of_selection(&last)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.restored.bytes += bytes.len() as u64;
        let written = self.output.write_all(bytes);
        written.map_err(|source| Error::output_failed("the output could not be written", source))
    }
}
