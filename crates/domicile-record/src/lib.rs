#![doc = include_str!("../README.md")]

mod adopt;
mod block_buffer;
mod close;
mod compact;
mod compression;
mod disk;
pub mod format;
pub mod framing;
mod inspect;
mod intake;
mod lane_key;
#[cfg(feature = "object-store")]
pub mod object;
mod open;
mod outage;
mod reader;
mod recorder;
mod recover;
mod refusals;
mod region_end;
mod rewrap;
mod rewrite;
mod running_hash;
mod seal;
mod sealed_record;
mod settle;
mod verify;
mod why;
mod writer;

pub use adopt::{Adopting, is_unadopted};
pub use close::Cut;
pub use compact::{Compacting, Compaction, compact};
pub use disk::{Disk, DiskFile, LocalDisk};
pub use inspect::{Inspection, LaneInspection, inspect};
pub use intake::{Elsewhere, InputReport, Intake, IntakeOptions, Outlet, Scoping, Sealed, Skipped};
pub use reader::{
    BlockOrder, Blocks, Erasable, Follower, LongRecord, News, Restored, Segment, SegmentLane, Selection,
    Source, State, claims_to_replace, erase, header_of, is_finished, replaced_among, replaced_by,
};
pub use recorder::{Feed, LaneOptions, Receipt, Recorder, RecorderLane, RecorderOptions};
pub use recover::{Recovering, Recovery, recover};
pub use rewrap::{Rewrapped, rewrap};
pub use sealed_record::{
    OpenedBatch, RecordContext, RecordOpener, RecordSealer, RowId, SealedBatch, SealedRecords,
};
pub use settle::settle;
pub use verify::{FINDINGS_MAX, Finding, LaneVerification, Verification, verify};
pub use why::{Explanation, Obstacle, ScopeExplanation, why};
pub use writer::{SealingPool, SegmentSummary, SegmentWriter, Sink, Stamp, WriterOptions};
