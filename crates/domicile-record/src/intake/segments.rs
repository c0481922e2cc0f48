//! The segments that an intake writes: one for each region, and for each hand that seals for it.

use domicile::{Code, Error, Region, Result};

use crate::format::{Descriptor, LaneNo};
use crate::writer::{SegmentSummary, SegmentWriter, Sink, Stamp};

/// Who seals for a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hand {
    /// This host, with the region's keys.
    Home,
    /// This host as one of the region's posts, without any.
    Post,
}

/// A lane of one of the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneAt {
    segment: usize,
    lane: LaneNo,
}

/// All of them, in the order in which they were begun.
#[derive(Debug)]
pub(super) struct Segments<S: Sink>(Vec<Begun<S>>);

#[derive(Debug)]
struct Begun<S: Sink> {
    region: Region,
    hand: Hand,
    writer: SegmentWriter<S>,
}

impl<S: Sink> Default for Segments<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Sink> Segments<S> {
    /// Where the segment of a region and a hand stands, if it was begun.
    pub(super) fn find(&self, region: &Region, hand: Hand) -> Option<usize> {
        self.0.iter().position(|begun| begun.region == *region && begun.hand == hand)
    }

    /// Adds one that was begun.
    pub(super) fn add(&mut self, region: Region, hand: Hand, writer: SegmentWriter<S>) -> usize {
        self.0.push(Begun { region, hand, writer });
        self.0.len() - 1
    }

    pub(super) async fn open_lane(
        &mut self,
        segment: usize,
        descriptor: Descriptor,
        preamble: &[u8],
    ) -> Result<LaneAt> {
        let lane = self.writer(segment)?.open_lane(descriptor, preamble).await?;
        Ok(LaneAt { segment, lane })
    }

    #[inline]
    pub(super) fn append(&mut self, at: LaneAt, record: &[u8], stamp: Stamp) -> Result<()> {
        self.writer(at.segment)?.append(at.lane, record, stamp)
    }

    pub(super) fn append_piece(&mut self, at: LaneAt, piece: &[u8], stamp: Stamp, last: bool) -> Result<()> {
        self.writer(at.segment)?.append_piece(at.lane, piece, stamp, last)
    }

    pub(super) fn set_postamble(&mut self, at: LaneAt, postamble: &[u8]) -> Result<()> {
        self.writer(at.segment)?.set_postamble(at.lane, postamble)
    }

    /// Has lanes whose keys may not be used now take nothing more.
    pub(super) fn stop_lapsed_lanes(&mut self) {
        for begun in &mut self.0 {
            begun.writer.stop_lapsed_lanes();
        }
    }

    /// Takes back what was begun: nothing of it will be published.
    pub(super) fn drop_all(&mut self) {
        self.0.clear();
    }

    /// Ends them, those of homes first.
    pub(super) async fn finish(mut self) -> Result<Vec<(Hand, S, SegmentSummary)>> {
        self.0.sort_by(|left, right| (&left.region, left.hand).cmp(&(&right.region, right.hand)));
        let mut finished = Vec::with_capacity(self.0.len());
        for Begun { hand, writer, .. } in self.0 {
            let (sink, summary) = writer.finish().await?;
            finished.push((hand, sink, summary));
        }
        Ok(finished)
    }

    #[inline]
    fn writer(&mut self, segment: usize) -> Result<&mut SegmentWriter<S>> {
        let begun = self.0.get_mut(segment).map(|begun| &mut begun.writer);
        begun.ok_or_else(|| Error::new(Code::WriterFailed, "a segment that is no longer written"))
    }
}
