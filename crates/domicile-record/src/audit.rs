//! The audit events of segments.

use domicile::Action;
use domicile::audit::{Event, EventKind};

use crate::format::SegmentHeader;
use crate::writer::SegmentSummary;

/// A segment was closed, with its counts and the running hash over it.
pub(crate) fn sealed(summary: &SegmentSummary) -> Event {
    Event::new(EventKind::Seal)
        .region(&summary.place.region)
        .segment(&summary.id.0)
        .counts(u64::from(summary.lanes), summary.records, summary.bytes)
        .digest(&summary.digest)
}

/// A segment is about to be opened: for what, and how much of it.
pub(crate) fn opened(header: &SegmentHeader, action: &Action, selected: String, lanes: u64) -> Event {
    Event::new(EventKind::Open)
        .action(action)
        .region(&header.place.region)
        .segment(&header.id.0)
        .selected(selected)
        .lanes(lanes)
}
