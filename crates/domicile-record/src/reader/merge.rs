//! Records of several lanes in the order in which they arrived, in bounded memory.

use std::collections::BTreeSet;

use domicile::{Code, Error, Result};

use super::lane::{LaneCursor, ReadableLane, Wanted};
use super::map::SegmentFile;
use super::restore::Out;
use super::source::Source;
use crate::format::DataBlock;

/// Octets of memory of opened blocks that are kept at once. Beyond it, the block that is needed last is dropped and
/// opened again when its turn comes: many lanes cost time, not memory.
const HELD_BYTES_MAX: usize = 16 << 20;

pub(super) struct Merge<'a, S> {
    file: &'a SegmentFile<S>,
    wanted: &'a Wanted,
    inputs: Vec<Input<'a>>,
    /// The arrival number of each input's next record.
    queue: BTreeSet<(i64, usize)>,
    /// Those of the queue whose block is held.
    held: BTreeSet<(i64, usize)>,
    held_bytes: usize,
}

struct Input<'a> {
    lane: &'a ReadableLane,
    cursor: LaneCursor,
    sequence: u32,
    index: usize,
    block: Option<DataBlock>,
}

impl<'a, S: Source> Merge<'a, S> {
    pub(super) fn new(
        file: &'a SegmentFile<S>,
        wanted: &'a Wanted,
        lanes: Vec<&'a ReadableLane>,
        out: &mut Out<'_>,
    ) -> Self {
        let inputs = lanes.into_iter().map(|lane| Input {
            lane,
            cursor: LaneCursor::new(lane, wanted),
            sequence: 0,
            index: 0,
            block: None,
        });
        let mut merge = Self {
            file,
            wanted,
            inputs: inputs.collect(),
            queue: BTreeSet::new(),
            held: BTreeSet::new(),
            held_bytes: 0,
        };
        for input in 0..merge.inputs.len() {
            merge.load_next(input, out);
        }
        merge
    }

    /// Writes everything. A block that cannot be read is left out; the lane goes on behind it.
    pub(super) fn write(mut self, out: &mut Out<'_>) -> Result<()> {
        while let Some((arrival, number)) = self.queue.pop_first() {
            self.held.remove(&(arrival, number));
            let until = self.queue.first().map_or(i64::MAX, |(arrival, _)| *arrival);
            let Some(input) = self.inputs.get_mut(number) else { continue };
            let block = match input.block.take() {
                Some(block) => {
                    self.held_bytes -= block.memory();
                    Ok(block)
                }
                None => input.reopen(self.file),
            };
            let block = match block {
                Ok(block) => block,
                Err(error) => {
                    out.fail(error);
                    self.load_next(number, out);
                    continue;
                }
            };
            if input.lane.descriptor.contents.long_record {
                input.write_long_record(self.file, self.wanted, &block, out)?;
                continue;
            }
            // All records of this block that come before any other lane's next.
            let mut next = Some(arrival);
            while let Some(arrival) = next.filter(|arrival| *arrival <= until) {
                if let Some(record) =
                    block.record(input.index).filter(|_| self.wanted.wants(&block, input.index))
                {
                    out.record(record)?;
                }
                input.index += 1;
                next = block.arrival(input.index);
                if next.is_some_and(|next| next <= arrival) {
                    out.fail(out_of_order(input.lane));
                    next = None;
                }
            }
            match next {
                Some(next) => self.hold(number, next, block),
                None => self.load_next(number, out),
            }
        }
        Ok(())
    }

    fn load_next(&mut self, number: usize, out: &mut Out<'_>) {
        let Some(input) = self.inputs.get_mut(number) else { return };
        loop {
            match input.cursor.next_owned(self.file, input.lane) {
                Ok(None) => return,
                Err(error) => out.fail(error),
                Ok(Some((block, sequence))) => match block.arrival(0) {
                    None => out.fail(out_of_order(input.lane)),
                    Some(arrival) => {
                        input.sequence = sequence;
                        input.index = 0;
                        self.hold(number, arrival, block);
                        return;
                    }
                },
            }
        }
    }

    fn hold(&mut self, number: usize, arrival: i64, block: DataBlock) {
        self.held_bytes += block.memory();
        if let Some(input) = self.inputs.get_mut(number) {
            input.block = Some(block);
        }
        self.queue.insert((arrival, number));
        self.held.insert((arrival, number));
        while self.held_bytes > HELD_BYTES_MAX && self.held.len() > 1 {
            let Some((_, last)) = self.held.pop_last() else { break };
            if let Some(block) = self.inputs.get_mut(last).and_then(|input| input.block.take()) {
                self.held_bytes -= block.memory();
            }
        }
    }
}

impl Input<'_> {
    /// Opens a block again that was dropped to save memory.
    fn reopen<S: Source>(&self, file: &SegmentFile<S>) -> Result<DataBlock> {
        let mut body = Vec::new();
        let (header, encoded) = file.read_block(&self.lane.place, self.sequence, &mut body)?;
        self.lane.open_block(&header, &encoded, &mut body)?;
        self.lane.decode_data(body).map_err(|source| self.lane.malformed(self.sequence, source))
    }

    fn write_long_record<S: Source>(
        &mut self,
        file: &SegmentFile<S>,
        wanted: &Wanted,
        first: &DataBlock,
        out: &mut Out<'_>,
    ) -> Result<()> {
        if !wanted.wants(first, 0) {
            return Ok(());
        }
        out.piece(first.values())?;
        loop {
            match self.cursor.next(file, self.lane) {
                Ok(Some((block, _))) => out.piece(block.values())?,
                Ok(None) => break,
                Err(error) => out.fail(error),
            }
        }
        out.count_record();
        Ok(())
    }
}

fn out_of_order(lane: &ReadableLane) -> Error {
    Error::new(Code::SegmentCorrupt, "arrival numbers of a lane do not rise")
        .at(format!("lane {}", lane.place.key.lane))
}
