//! Reading the blocks of a segment on several threads.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use domicile::Result;

use super::lane::{Buffers, LaneCursor, ReadableLane, Stretch};
use super::source::Source;
use super::{Segment, SegmentLane};
use crate::format::DataBlock;

/// How the blocks of one lane come when several threads read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockOrder {
    /// In any order, and several at the same time: one large lane keeps all threads busy. Where a block belongs,
    /// [`first_record`](crate::format::DataSummary::first_record) says. Pieces of a long record come one after another all the same.
    Any,
    /// One after another, as they stand in the lane: a lane has one thread.
    InLane,
}

/// Octets of the file that a part of a lane reaches over: enough that taking the next one costs nothing, and few enough that
/// threads end together.
const PART_BYTES: u64 = 1 << 20;

/// Fewest blocks of a part: where a lane's lie far apart.
const PART_BLOCKS_MIN: u32 = 16;

/// Blocks of a lane, in order: some, or all that are wanted of it.
struct Part<'a> {
    lane: &'a SegmentLane,
    readable: &'a ReadableLane,
    range: Option<Range<u32>>,
}

/// What several threads take their work from.
struct Work<'a, S, V> {
    segment: &'a Segment<S>,
    parts: Vec<Part<'a>>,
    visit: V,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// A part by its number, and what was read of it.
type Done = (usize, Result<Stretch>);

impl<S: Source + Sync> Segment<S> {
    /// Reads the data blocks of the selected lanes on this thread and as many more as make `threads`, and gives each block to
    /// `visit` on the thread that opened it.
    ///
    /// Everything is checked that [`for_each_block`](Self::for_each_block) checks; that blocks follow one another over the parts
    /// of a lane, and that the lane has what its end says, once all of it was read. Each thread holds one opened block, and at
    /// most 8 MiB of sealed ones (256 KiB of a file).
    ///
    /// # Errors
    /// The first block that does not verify, or what `visit` returned; of several, the one that stands first in the segment.
    /// Blocks behind it, and before it, may have been visited.
    pub fn for_each_block_parallel(
        &self,
        threads: NonZeroUsize,
        order: BlockOrder,
        visit: impl Fn(&SegmentLane, &DataBlock) -> Result<()> + Sync,
    ) -> Result<()> {
        let work = Work {
            segment: self,
            parts: self.parts(order),
            visit,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        };
        let more = threads.get().min(work.parts.len()).saturating_sub(1);
        let mut done = thread::scope(|scope| {
            // A thread that cannot be had is one fewer: this one does whatever is left.
            let begin = || thread::Builder::new().spawn_scoped(scope, || work.run()).ok();
            let begun: Vec<_> = (0..more).map_while(|_| begin()).collect();
            let mut done = work.run();
            for thread in begun {
                match thread.join() {
                    Ok(more) => done.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        });
        done.sort_by_key(|(number, _)| *number);
        let mut stretches = Vec::with_capacity(done.len());
        for (number, outcome) in done {
            stretches.push((number, outcome?));
        }
        work.check_lanes(&stretches)
    }

    fn parts(&self, order: BlockOrder) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        for lane in &self.lanes {
            let Some(readable) = lane.readable() else { continue };
            let mut add = |range| parts.push(Part { lane, readable, range });
            if order == BlockOrder::InLane || readable.descriptor.contents.long_record {
                add(None);
                continue;
            }
            for range in readable.candidates(&self.wanted) {
                split(readable, range, &mut |range| add(Some(range)));
            }
        }
        parts
    }
}

/// Cuts a range of a lane's blocks into parts.
fn split(lane: &ReadableLane, range: Range<u32>, add: &mut impl FnMut(Range<u32>)) {
    let mut start = range.start;
    let mut start_at = lane.place.blocks.get(start);
    let places = lane.place.blocks.from(start).take_while(|(place, _)| *place < range.end);
    for (place, at) in places {
        let reaches = start_at.is_none_or(|start_at| at.saturating_sub(start_at) >= PART_BYTES);
        if reaches && place - start >= PART_BLOCKS_MIN {
            add(start..place);
            (start, start_at) = (place, Some(at));
        }
    }
    add(start..range.end);
}

impl<S: Source + Sync, V: Fn(&SegmentLane, &DataBlock) -> Result<()> + Sync> Work<'_, S, V> {
    fn run(&self) -> Vec<Done> {
        let mut done = Vec::new();
        let mut buffers = Buffers::default();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(number) else { break };
            match self.read(part, &mut buffers) {
                Ok(None) => break,
                Ok(Some(stretch)) => done.push((number, Ok(stretch))),
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    done.push((number, Err(error)));
                    break;
                }
            }
        }
        done
    }

    /// Reads one part; nothing, if another thread has failed meanwhile.
    fn read(&self, part: &Part<'_>, buffers: &mut Buffers) -> Result<Option<Stretch>> {
        let Segment { file, wanted, .. } = self.segment;
        let cursor = match &part.range {
            None => LaneCursor::new(part.readable, wanted),
            Some(range) => LaneCursor::part(range.clone(), wanted.is_everything()),
        };
        let mut cursor = cursor.using(std::mem::take(buffers));
        while let Some((block, _)) = cursor.next(file, part.readable)? {
            (self.visit)(part.lane, block)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        let stretch = cursor.stretch();
        *buffers = cursor.into_buffers();
        Ok(Some(stretch))
    }

    /// The parts of each lane, all of them read, must follow one another and come to what its end says.
    fn check_lanes(&self, stretches: &[(usize, Stretch)]) -> Result<()> {
        if !self.segment.wanted.is_everything() {
            return Ok(());
        }
        let lane_of = |number: usize| self.parts.get(number).map(|part| part.readable.place.key.lane);
        for of_lane in stretches.chunk_by(|(left, _), (right, _)| lane_of(*left) == lane_of(*right)) {
            let part = of_lane.first().and_then(|(number, _)| self.parts.get(*number));
            // Whoever reads a lane in one go checks it by itself.
            let Some(part) = part.filter(|part| part.range.is_some()) else { continue };
            Stretch::check_whole(part.readable, of_lane.iter().map(|(_, stretch)| *stretch))?;
        }
        Ok(())
    }
}
