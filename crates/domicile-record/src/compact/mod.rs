//! Compaction: segments of small blocks are read and written anew, lane by lane, in full blocks under fresh keys. The new
//! segment says which ones it replaces.

mod place;

use std::collections::{BTreeMap, BTreeSet};

use domicile::{Action, Code, Domicile, Error, Purpose, Region, Result, Scope};

pub use place::{Compaction, compact};
pub(crate) use place::{compact_on, finish_replacing};

use crate::format::{BlockKind, Descriptor, SegmentHeader, SegmentId};
use crate::reader::{LaneCursor, Opening, ReadableLane, Segment, Selection, Source, Wanted};
use crate::writer::{SegmentSummary, SegmentWriter, Sink, Stamp, WriterOptions};

/// Segments of one region that are whole and open, to be written anew as one.
#[derive(Debug)]
pub struct Compacting<'a, S> {
    domicile: &'a Domicile,
    region: Region,
    segments: Vec<Segment<S>>,
    /// What is replaced: the segments, and whatever they replaced.
    replaces: BTreeSet<SegmentId>,
    erased: u64,
}

/// What a lane of the new segment is made of.
struct LanePlan<'s, S> {
    descriptor: Descriptor,
    input: usize,
    parts: Vec<Part<'s, S>>,
}

/// A lane of an old one, with what is added to its arrival numbers.
struct Part<'s, S> {
    segment: &'s Segment<S>,
    lane: &'s ReadableLane,
    arrivals_from: i64,
}

/// An input, or several that are written on as one: nothing stands between their records.
struct Input {
    framing: Option<crate::framing::Framing>,
    arrivals: bool,
    preamble: Vec<u8>,
    postamble: Vec<u8>,
    /// The first arrival number that no record of it has.
    next_arrival: i64,
}

impl<'a, S: Source> Compacting<'a, S> {
    /// Opens segments of one region with every lane that they have, oldest first. Lanes that were erased are left behind.
    ///
    /// # Errors
    /// [`SegmentUnfinished`](Code::SegmentUnfinished) and the like for what is not whole: recover it first;
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for segments of several regions, one that comes twice, or none; what keeps a
    /// lane from being opened: nothing is left behind because its key is not to be had.
    pub async fn examine(domicile: &'a Domicile, sources: impl IntoIterator<Item = S>) -> Result<Self> {
        let action = Action::Manage(Purpose::Maintenance.into());
        let opening = Opening { domicile, action, selection: Selection::all() };
        let mut segments = Vec::new();
        for source in sources {
            segments.push(opening.open(source).await?);
        }
        let Some(first) = segments.first() else {
            return Err(Error::new(Code::ArgumentInvalid, "there is no segment to compact"));
        };
        let region = first.file.header.place.region.clone();
        let of_one_region = segments.iter().all(|segment| segment.file.header.place.region == region);
        let ids: BTreeSet<_> = segments.iter().map(|segment| segment.file.header.id).collect();
        if !of_one_region || ids.len() != segments.len() {
            return Err(Error::new(Code::ArgumentInvalid, "segments of several regions, or one twice")
                .advise("compact each region's segments apart, and each once"));
        }
        // Records of what another one replaces are there already.
        let whole = segments.iter().filter(|segment| segment.state.is_whole());
        let replaced: BTreeSet<_> = whole
            .filter_map(|segment| segment.region.as_ref())
            .flat_map(|region| region.descriptor.replaces.iter().copied())
            .collect();
        segments.retain(|segment| !replaced.contains(&segment.file.header.id));
        let mut erased = 0;
        for segment in &segments {
            if let Some(error) = segment.state.obstacle() {
                return Err(error.advise("only what is whole is written anew: recover it first"));
            }
            for lane in segment.lanes() {
                match lane.obstacle() {
                    Some(error) if error.code() == Code::KeyDestroyed => erased += 1,
                    Some(error) => return Err(error.again()),
                    None => {}
                }
            }
        }
        segments.sort_by_key(|segment| (segment.file.header.created, segment.file.header.id));
        let replaces = ids.union(&replaced).copied().collect();
        Ok(Self { domicile, region, segments, replaces, erased })
    }

    /// The headers of the segments whose records are written, oldest first: those that another one replaces are left out.
    pub fn headers(&self) -> impl Iterator<Item = &SegmentHeader> {
        self.segments.iter().map(|segment| &segment.file.header)
    }

    /// Lanes that were erased, and are left behind.
    #[must_use]
    pub fn erased(&self) -> u64 {
        self.erased
    }

    /// Writes one segment that replaces them all: lanes of a scope, a period and an input become one, in one piece and in full
    /// blocks; it is durable then, as far as the sink is. `sink` is opened once the segment has its name.
    ///
    /// # Errors
    /// What keeps keys from being had; a block that does not verify; [`OutputFailed`](Code::OutputFailed).
    pub async fn write<O: Sink>(
        &self,
        sink: impl FnOnce(&SegmentHeader) -> Result<O>,
        options: WriterOptions,
    ) -> Result<(O, SegmentSummary)> {
        let replaces: Vec<SegmentId> = self.replaces.iter().copied().collect();
        let (plans, inputs) = self.plan()?;
        let mut writer =
            SegmentWriter::create_replacing(self.domicile, &self.region, sink, options, replaces).await?;
        for plan in plans {
            let Some(input) = inputs.get(plan.input) else { continue };
            let lane = write_lane(&mut writer, plan, input).await?;
            writer.set_postamble(lane, &input.postamble)?;
            writer.end_lane(lane)?;
        }
        writer.finish().await
    }

    /// The lanes of the new segment in the order of its footer, and the inputs that they are of.
    fn plan(&self) -> Result<(Vec<LanePlan<'_, S>>, Vec<Input>)> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut plans: BTreeMap<(Scope, String, Vec<u8>, usize), LanePlan<'_, S>> = BTreeMap::new();
        for segment in &self.segments {
            let mut by_source: BTreeMap<u32, Vec<&ReadableLane>> = BTreeMap::new();
            for lane in segment.lanes.iter().filter_map(|lane| lane.readable()) {
                by_source.entry(lane.descriptor.source).or_default().push(lane);
            }
            for lanes in by_source.into_values() {
                let (input, arrivals_from) = join(&mut inputs, segment, &lanes)?;
                for lane in lanes {
                    let source = u32::try_from(input).unwrap_or(u32::MAX);
                    let descriptor = Descriptor { source, ..lane.descriptor.clone() };
                    let encoded = descriptor.encode().map_err(crate::rewrite::misfit)?;
                    // A long record has a lane of its own.
                    let apart = if descriptor.contents.long_record { plans.len() + 1 } else { 0 };
                    let period = descriptor.period.to_string();
                    let plan = plans.entry((descriptor.scope.clone(), period, encoded, apart));
                    let plan = plan.or_insert_with(|| LanePlan { descriptor, input, parts: Vec::new() });
                    plan.parts.push(Part { segment, lane, arrivals_from });
                }
            }
        }
        Ok((plans.into_values().collect(), inputs))
    }
}

/// Finds the input that the lanes of one go on, or begins another: which, and what is added to their arrival numbers.
fn join<S: Source>(
    inputs: &mut Vec<Input>,
    segment: &Segment<S>,
    lanes: &[&ReadableLane],
) -> Result<(usize, i64)> {
    let Some(first) = lanes.first() else { return Ok((0, 0)) };
    let (framing, arrivals) = (first.descriptor.framing, first.descriptor.contents.arrivals);
    let preamble = segment.frame(first, BlockKind::Preamble)?.unwrap_or_default();
    let postamble = segment.frame(first, BlockKind::Postamble)?.unwrap_or_default();
    let mut behind = 0;
    for lane in lanes.iter().filter(|_| arrivals) {
        behind = behind.max(last_arrival(segment, lane)?.map_or(0, |last| last.saturating_add(1)));
    }
    let goes_on = |input: &Input| {
        (input.framing, input.arrivals, &input.preamble) == (framing, arrivals, &preamble)
            && input.postamble.is_empty()
            && postamble.is_empty()
    };
    if let Some(at) = inputs.iter().position(goes_on)
        && let Some(input) = inputs.get_mut(at)
    {
        let from = input.next_arrival;
        input.next_arrival = from.checked_add(behind).ok_or_else(too_many_arrivals)?;
        return Ok((at, from));
    }
    inputs.push(Input { framing, arrivals, preamble, postamble, next_arrival: behind });
    Ok((inputs.len() - 1, 0))
}

/// The highest arrival number of a lane: numbers rise through it.
fn last_arrival<S: Source>(segment: &Segment<S>, lane: &ReadableLane) -> Result<Option<i64>> {
    for sequence in lane.place.blocks.iter().rev() {
        if let Some(block) = lane.data_at(&segment.file, sequence)? {
            return Ok(block.len().checked_sub(1).and_then(|last| block.arrival(last)));
        }
    }
    Ok(None)
}

/// Writes the records of a lane's parts. Where the lane is full, another of the same kind goes on.
async fn write_lane<S: Source, O: Sink>(
    writer: &mut SegmentWriter<O>,
    plan: LanePlan<'_, S>,
    input: &Input,
) -> Result<crate::format::LaneNo> {
    let LanePlan { descriptor, parts, .. } = plan;
    let mut lane = writer.open_lane(descriptor.clone(), &input.preamble).await?;
    for Part { segment, lane: old, arrivals_from } in parts {
        let everything = Wanted::default();
        let mut cursor = LaneCursor::new(old, &everything);
        // Of a long record, of which each piece has it.
        let mut stamped = None;
        while let Some((block, _)) = cursor.next(&segment.file, old)? {
            writer.was_sealed_at(block.summary().span.latest);
            let stamp = |index| -> Result<Stamp> {
                let arrival = block.arrival(index).map(|number| number.checked_add(arrivals_from));
                let arrival = arrival.map(|number| number.ok_or_else(too_many_arrivals)).transpose()?;
                Ok(Stamp { time: block.time(index), arrival })
            };
            if descriptor.contents.long_record {
                // Whether it is the last is known once the next one was looked for.
                let stamp = *stamped.insert(stamp(0)?);
                writer.append_piece(lane, block.values(), stamp, false)?;
                continue;
            }
            for (index, record) in block.records().enumerate() {
                let stamp = stamp(index)?;
                match writer.append(lane, record, stamp) {
                    Err(error) if error.code() == Code::SegmentLimit => {
                        writer.end_lane(lane)?;
                        lane = writer.open_lane(descriptor.clone(), &input.preamble).await?;
                        writer.append(lane, record, stamp)?;
                    }
                    appended => appended?,
                }
            }
        }
        if let Some(stamp) = stamped {
            if cursor.is_inside_record() {
                return Err(Error::new(Code::SegmentUnfinished, "a crash cut a long record")
                    .at(format!("lane {} of segment {}", old.place.key.lane, segment.file.header.id))
                    .advise("seal it again, and erase its lane; nothing was written"));
            }
            writer.append_piece(lane, b"", stamp, true)?;
        }
    }
    Ok(lane)
}

fn too_many_arrivals() -> Error {
    Error::new(Code::SegmentLimit, "arrival numbers of these segments together are more than there are")
}
