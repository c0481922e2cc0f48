//! The index of a lane, gathered while it is written: runs of data blocks, and what they hold.

use crate::format::{IndexEntry, TimeSpan};

/// Runs are closed once they have this many blocks and this many records: an index that costs a few
/// octets a block, and tells nothing about fewer records than that.
const RUN_BLOCKS: u32 = 16;
const RUN_RECORDS: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    entries: Vec<IndexEntry>,
    last_run_records: u64,
}

impl IndexBuilder {
    /// Adds a data block.
    pub(super) fn add(
        &mut self,
        sequence: u32,
        first_record: u64,
        records: u64,
        lowest_arrival: i64,
        span: TimeSpan,
    ) {
        let block = IndexEntry { sequence, blocks: 1, first_record, lowest_arrival, span };
        match self.entries.last_mut() {
            Some(run) if run.blocks < RUN_BLOCKS || self.last_run_records < RUN_RECORDS => {
                *run = run.joined(block);
                self.last_run_records += records;
            }
            _ => {
                if self.entries.len() == IndexEntry::COUNT_MAX {
                    self.halve();
                }
                self.entries.push(block);
                self.last_run_records = records;
            }
        }
    }

    /// Octets of the index if one more block is added.
    pub(super) fn bytes(&self) -> usize {
        (self.entries.len() + 1) * IndexEntry::BYTES
    }

    /// Reads the entry that the next block goes into.
    pub(super) fn touch(&self) -> usize {
        self.entries.last().map_or(0, |run| run.blocks as usize)
    }

    pub(super) fn into_entries(self) -> Vec<IndexEntry> {
        self.entries
    }

    /// Joins neighbouring runs, two and two.
    fn halve(&mut self) {
        let joined =
            self.entries.chunks(2).filter_map(|pair| pair.iter().copied().reduce(IndexEntry::joined));
        self.entries = joined.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_enough_blocks_and_records_and_cover_everything() {
        let mut index = IndexBuilder::default();
        for block in 0..100 {
            index.add(
                block + 1,
                u64::from(block) * 3,
                3,
                7 - i64::from(block),
                TimeSpan::at(i64::from(block)),
            );
        }
        let entries = index.into_entries();
        assert_eq!(entries.iter().map(|run| run.blocks).sum::<u32>(), 100);
        for pair in entries.windows(2) {
            assert_eq!(pair[0].sequence + pair[0].blocks, pair[1].sequence);
            assert!(pair[1].first_record - pair[0].first_record >= RUN_RECORDS);
        }
        assert_eq!(entries[0].span, TimeSpan { earliest: 0, latest: i64::from(entries[0].blocks) - 1 });
        assert_eq!(entries[0].lowest_arrival, 8 - i64::from(entries[0].blocks));
    }

    #[test]
    fn an_index_stays_within_its_bound() {
        let mut index = IndexBuilder::default();
        let blocks = u32::try_from(IndexEntry::COUNT_MAX).unwrap() * RUN_BLOCKS * 2;
        for block in 0..blocks {
            index.add(block, u64::from(block) * 64, 64, 0, TimeSpan::at(0));
        }
        let entries = index.into_entries();
        assert!(entries.len() <= IndexEntry::COUNT_MAX);
        assert_eq!(entries.iter().map(|run| run.blocks).sum::<u32>(), blocks);
    }
}
