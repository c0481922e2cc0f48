#![doc = include_str!("../README.md")]

mod adopt;
mod block_buffer;
pub mod format;
pub mod framing;
mod inspect;
mod intake;
mod lane_key;
mod open;
mod reader;
mod recorder;
mod refusals;
mod rewrap;
mod rewrite;
mod running_hash;
mod seal;
mod sealed_record;
mod verify;
mod why;
mod writer;

pub use adopt::Adopting;
pub use inspect::{Inspection, LaneInspection, inspect};
pub use intake::{Elsewhere, InputReport, Intake, IntakeOptions, Outlet, Scoping, Sealed, Skipped};
pub use reader::{Blocks, Erasable, Restored, Segment, SegmentLane, Selection, Source, State, erase};
pub use recorder::{
    Disk, DiskFile, Feed, LaneOptions, LocalDisk, Receipt, Recorder, RecorderLane, RecorderOptions,
};
pub use rewrap::{Rewrapped, rewrap};
pub use sealed_record::{
    OpenedBatch, RecordContext, RecordOpener, RecordSealer, RowId, SealedBatch, SealedRecords,
};
pub use verify::{FINDINGS_MAX, Finding, LaneVerification, Verification, verify};
pub use why::{Explanation, Obstacle, ScopeExplanation, why};
pub use writer::{SegmentSummary, SegmentWriter, Sink, Stamp, WriterOptions};
