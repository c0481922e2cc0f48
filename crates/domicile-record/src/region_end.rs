//! What lane 0 says at its end: the directory of the segment's lanes, in several blocks where it is long, and the summary.

use domicile::wire::Malformed;

use crate::format::{DirectoryEntry, LaneEnd, Section, Sections, Summary};

/// The end of lane 0 in the making.
#[derive(Debug)]
pub(crate) struct RegionEnd {
    /// The entries that stand in section blocks before the end.
    parts: Vec<Vec<DirectoryEntry>>,
    /// Those that stand in the end itself.
    last: Vec<DirectoryEntry>,
    pub(crate) lanes: u32,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl RegionEnd {
    /// About 700 KiB of entries.
    pub(crate) const ENTRIES_PER_BLOCK: usize = 4096;

    pub(crate) fn of(mut directory: Vec<DirectoryEntry>) -> Self {
        let sum = |of: fn(&DirectoryEntry) -> u64| directory.iter().map(of).sum::<u64>();
        let (records, bytes) = (sum(|entry| entry.records), sum(|entry| entry.bytes));
        let lanes = u32::try_from(directory.len()).unwrap_or(u32::MAX);
        let full = directory.len().saturating_sub(1) / Self::ENTRIES_PER_BLOCK;
        let last = directory.split_off(full * Self::ENTRIES_PER_BLOCK);
        let parts = directory.chunks(Self::ENTRIES_PER_BLOCK).map(<[_]>::to_vec).collect();
        Self { parts, last, lanes, records, bytes }
    }

    /// The payloads of the section blocks, which stand right before the end.
    pub(crate) fn sections(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        let parts = self.parts.iter_mut().map(std::mem::take);
        parts.map(|part| Sections(vec![Section::Directory(part)]).encode()).collect()
    }

    /// The payload of the end, with what stands before its block: so many blocks, of this running hash.
    pub(crate) fn end(
        self,
        recovered: bool,
        blocks: u64,
        running_hash: [u8; 32],
        post: Option<[u8; 64]>,
    ) -> Result<Vec<u8>, Malformed> {
        let Self { lanes, records, bytes, .. } = self;
        let section_blocks = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let summary = Summary { recovered, lanes, blocks, records, bytes, running_hash };
        let mut sections = vec![Section::Directory(self.last), Section::Summary(summary)];
        sections.extend(post.map(Section::PostEnd));
        LaneEnd { data_blocks: 0, records: 0, bytes: 0, section_blocks, sections }.encode()
    }
}
