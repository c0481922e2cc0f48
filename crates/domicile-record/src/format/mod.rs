//! Format v1 of segments: pure encoding and decoding of every structure.
//!
//! Nothing here reads a file, asks a clock or holds a key. Every length is checked against what is left,
//! and against its limit, before anything is allocated; what decodes encodes to the same bytes. The
//! specification is the page `segment.md` of the book; names like SEG-12 refer to it. Beside them stands the format of
//! single sealed records (`sealed-records.md`, REC-1 and so on).

mod block;
mod commit;
mod data;
mod descriptor;
mod directory;
mod footer;
mod guide;
mod header;
mod lane_end;
mod lane_open;
mod sealed_record;

pub use block::{BlockFlags, BlockHeader, BlockKind, padded};
pub use commit::Commit;
pub use data::{Arrivals, DataBlock, DataSummary, Records, TimeSpan};
pub use descriptor::{Compression, Contents, Descriptor, Findable};
pub use directory::{DirectoryEntry, Summary};
pub use footer::{Footer, FooterEntry, LaneKey, Trailer, footer_block};
pub use guide::Guide;
pub(crate) use header::path_of;
pub use header::{Origin, SegmentHeader, SegmentId};
pub use lane_end::{IndexEntry, LaneEnd, Section, Sections};
pub use lane_open::LaneOpen;
pub(crate) use sealed_record::{Associated, PREFIX_BYTES, prefix};
pub use sealed_record::{SealedRecord, binding};

/// The version that this build writes, and the newest that it reads.
pub const VERSION: u16 = 1;

/// The number of a lane in its segment. Lane 0 is the region's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneNo(pub u32);

impl LaneNo {
    /// The region's own lane.
    pub const REGION: LaneNo = LaneNo(0);
    /// Stands in blocks that belong to no lane.
    pub const NONE: LaneNo = LaneNo(u32::MAX);
}

impl std::fmt::Display for LaneNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a segment may hold. Writers stop before, readers refuse beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blocks of a lane, its opening and end included.
    pub lane_blocks: u32,
    /// Octets of a lane: all its blocks with their headers and tags.
    pub lane_bytes: u64,
    /// Lanes of a segment, lane 0 included.
    pub lanes: u32,
    /// Blocks of a segment: as many as a footer can place.
    pub blocks: u64,
}

impl Limits {
    /// The format's own limits: 2^24 blocks and 64 GiB a lane, 2^20 lanes and 2^29 blocks a segment.
    pub const FORMAT: Limits =
        Limits { lane_blocks: 1 << 24, lane_bytes: 64 << 30, lanes: 1 << 20, blocks: 1 << 29 };
}

/// The largest payload of a sealed block.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The largest descriptor of a lane.
pub const DESCRIPTOR_BYTES_MAX: usize = 4 << 10;
/// The largest descriptor of lane 0, which lists the segments that its own replaces.
pub const REGION_DESCRIPTOR_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::header::tests::sample as header;
}
