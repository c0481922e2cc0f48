//! Where records of one scope are appended.

use std::fmt;
use std::sync::Arc;

use domicile::{Result, Time};
use tokio::sync::oneshot;

use super::keys::Ask;
use super::shard::{Shard, Writer};
use super::{Shared, gone};
use crate::format::LaneNo;
use crate::writer::Stamp;

/// Takes records of one scope, for whichever periods: a lane of the segment that is written now for each. Cheap to clone and
/// to keep; clones are one.
#[derive(Clone)]
pub struct RecorderLane {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    slot: usize,
}

impl RecorderLane {
    pub(super) fn new(shared: Arc<Shared>, shard: Arc<Shard>, slot: usize) -> Self {
        Self { shared, shard, slot }
    }

    /// Appends a record. It waits where its lane is to be opened first (for the first record of a period, behind a
    /// rotation of its key, at the beginning of a segment), and for room where the recorder's memory is used up. One that is
    /// given up has taken nothing.
    ///
    /// # Errors
    /// [`InputTime`](domicile::Code::InputTime) for an event time outside the window;
    /// [`ArgumentInvalid`](domicile::Code::ArgumentInvalid) for a record longer than
    /// [`BLOCK_BYTES_MAX`](crate::WriterOptions::BLOCK_BYTES_MAX); whatever keeps its key from being had;
    /// [`OutputFailed`](domicile::Code::OutputFailed) when the segment fails, which then also commits are told.
    pub async fn append(&self, time: Time, record: &[u8]) -> Result<()> {
        while !self.try_append(time, record)? {
            self.open(time).await?;
        }
        Ok(())
    }

    /// Appends a record, if that needs no waiting; false otherwise, and nothing was taken.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn try_append(&self, time: Time, record: &[u8]) -> Result<bool> {
        self.put(time, record.len(), |writer, lane, stamp| writer.append(lane, record, stamp))
    }

    /// Appends a record of `length` octets that `fill` writes into the block itself, which saves the copy. It is given
    /// zeros.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_with(&self, time: Time, length: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut fill = Some(fill);
        loop {
            let appended = self.put(time, length, |writer, lane, stamp| {
                writer.append_with(lane, length, stamp, |room| {
                    if let Some(fill) = fill.take() {
                        fill(room);
                    }
                })
            })?;
            if appended {
                return Ok(());
            }
            self.open(time).await?;
        }
    }

    /// Appends records of one event time, in order. If it fails, or is given up, those before the one that failed were taken.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_batch(&self, time: Time, records: &[&[u8]]) -> Result<()> {
        for record in records {
            self.append(time, record).await?;
        }
        Ok(())
    }

    /// As [`append`](Self::append), from a thread that may wait.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_blocking(&self, time: Time, record: &[u8]) -> Result<()> {
        if self.try_append(time, record)? {
            return Ok(());
        }
        pollster::block_on(self.append(time, record))
    }

    /// Appends in the home's own segment or, while its keys are out of reach, in one beside it.
    #[inline]
    fn put(
        &self,
        time: Time,
        length: usize,
        mut put: impl FnMut(&mut Writer, LaneNo, Stamp) -> Result<()>,
    ) -> Result<bool> {
        if self.shared.base.room.is_full() {
            return Ok(false);
        }
        if self.put_into(&self.shard, self.slot, time, length, &mut put)? {
            return Ok(true);
        }
        let beside = self.shard.state().beside(self.slot);
        beside.map_or(Ok(false), |(shard, slot)| self.put_into(&shard, slot, time, length, &mut put))
    }

    fn put_into(
        &self,
        shard: &Shard,
        slot: usize,
        time: Time,
        length: usize,
        put: impl FnOnce(&mut Writer, LaneNo, Stamp) -> Result<()>,
    ) -> Result<bool> {
        let mut state = shard.state();
        let taken = state.append(slot, time.micros(), length, put);
        let full = state.unsettled_bytes >= self.shared.base.options.commit_bytes;
        let failed = taken.is_err() && state.has_failed();
        let lost = failed && state.give_up();
        drop(state);
        match &taken {
            Ok(true) => self.shared.group.touch(full),
            Err(error) if lost => self.shared.group.lose(error),
            _ => {}
        }
        taken
    }

    /// Waits for room, or has the lane for a record of this time opened.
    async fn open(&self, time: Time) -> Result<()> {
        if self.shared.base.room.is_full() {
            self.shared.base.room.wait().await;
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Ask::Lane { shard: self.shard.clone(), slot: self.slot, time, answer })?;
        answered.await.map_err(|_| gone())?
    }
}

impl fmt::Debug for RecorderLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecorderLane").field("region", self.shard.region()).finish_non_exhaustive()
    }
}
