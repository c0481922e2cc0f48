//! Group commit: one thread makes durable, for everybody who waits, whatever was appended until it looked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use domicile::post::Post;
use domicile::{Code, Error, Place, Result};
use tokio::sync::{mpsc, watch};

use super::keys::Ask;
use super::shard::Shard;
use super::{Base, Receipt};
use crate::writer::SegmentSummary;

/// What the committing thread and those who wait for it have in common.
#[derive(Debug)]
pub(super) struct Group {
    state: Mutex<GroupState>,
    wake: Condvar,
    /// Something was appended since the newest commit began: asked at each record, without the lock.
    touched: AtomicBool,
    pub(super) progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct GroupState {
    shards: Vec<Arc<Shard>>,
    /// The newest commit that has begun to look at what was appended.
    begun: u64,
    /// Somebody waits for one that has not begun.
    wanted: bool,
    /// Something was appended since the newest one began.
    dirty: bool,
    /// Enough was appended that it does not wait for the interval.
    full: bool,
    caller: Option<Vec<u8>>,
    end: Option<End>,
    ended: Vec<SegmentSummary>,
}

/// How a recorder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its segments are ended.
    Closed,
    /// Nobody has it any longer: as a crash would leave it.
    Dropped,
}

/// How far commits have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) receipt: Receipt,
    /// The first receipt that did not come to be, until whoever appended what it was for has said so.
    pub(super) lost: Option<u64>,
    /// Nothing comes any more.
    pub(super) over: bool,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            touched: AtomicBool::new(false),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard of a region with a number, by the home's hand or by a post's; begun if it is not there.
    ///
    /// # Errors
    /// [`WriterFailed`](Code::WriterFailed) for another one once the recorder was closed: nobody would end it.
    pub(super) fn shard(
        &self,
        base: &Arc<Base>,
        place: &Place,
        number: usize,
        post: Option<&Post>,
    ) -> Result<Arc<Shard>> {
        let mut state = self.state();
        if let Some(found) = state.shards.iter().find(|shard| shard.is(place, number, post)) {
            return Ok(found.clone());
        }
        if state.end.is_some() {
            return Err(super::shard::closed());
        }
        let shard = Arc::new(Shard::new(place.clone(), number, post.cloned(), base.clone()));
        state.shards.push(shard.clone());
        Ok(shard)
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.state().shards.clone()
    }

    /// Something was appended, or there is something to end.
    #[inline]
    pub(super) fn touch(&self, full: bool) {
        if full || !self.touched.swap(true, Ordering::SeqCst) {
            self.wake_up(full);
        }
    }

    #[cold]
    fn wake_up(&self, full: bool) {
        let mut state = self.state();
        state.dirty = true;
        state.full |= full;
        self.wake.notify_one();
    }

    /// Asks for a commit of all that was appended before: its number.
    pub(super) fn want(&self, caller: Option<&[u8]>) -> Result<u64> {
        let mut state = self.state();
        if state.end.is_some() {
            return Err(super::shard::closed());
        }
        if let Some(caller) = caller {
            state.caller = Some(caller.to_vec());
        }
        state.wanted = true;
        self.wake.notify_one();
        Ok(state.begun + 1)
    }

    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        state.end = state.end.or(Some(end));
        self.wake.notify_one();
    }

    /// What was ended when the recorder was closed.
    pub(super) fn take_ended(&self) -> Vec<SegmentSummary> {
        std::mem::take(&mut self.state().ended)
    }

    /// Whoever appended what was lost has it, and appends it again.
    pub(super) fn resume(&self) {
        self.progress.send_modify(|progress| progress.lost = None);
    }

    /// The segment of a shard failed: what no receipt covers is lost. A commit that is under way may have looked for it in
    /// vain, and gives no receipt either.
    pub(super) fn lose(&self, error: &Error) {
        self.progress.send_modify(|progress| {
            let first = *progress.lost.get_or_insert(progress.receipt.number + 1);
            tracing::error!(code = %error.code(), receipt = first, "a segment failed; what no receipt covers is not safe");
        });
    }

    /// Commits until the recorder ends.
    pub(super) fn run(&self, base: &Base, asks: &mpsc::WeakUnboundedSender<Ask>) {
        let mut last: Option<Instant> = None;
        // What the newest sync made durable is not said in a segment yet.
        let mut unsaid = false;
        loop {
            let mut state = self.state();
            let idle = loop {
                if state.end == Some(End::Dropped) {
                    drop(state);
                    self.over();
                    return;
                }
                let now = Instant::now();
                let due = last.map_or(now, |last| last + base.options.commit_interval);
                let waits = due.saturating_duration_since(now);
                let pending = state.wanted || state.dirty;
                if state.end.is_some() || pending && (state.full || waits.is_zero()) {
                    break false;
                }
                if unsaid && !pending && waits.is_zero() {
                    break true;
                }
                state = if pending || unsaid {
                    self.wake.wait_timeout(state, waits).unwrap_or_else(PoisonError::into_inner).0
                } else {
                    self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
                };
            };
            if idle {
                let shards = state.shards.clone();
                drop(state);
                unsaid = false;
                shards.iter().for_each(|shard| say_durable(shard));
                continue;
            }
            state.begun += 1;
            (state.wanted, state.dirty, state.full) = (false, false, false);
            // Before it is looked at what was appended: who appends later touches again.
            self.touched.store(false, Ordering::SeqCst);
            let (number, caller) = (state.begun, state.caller.take());
            let (shards, closes) = (state.shards.clone(), state.end.is_some());
            drop(state);
            (last, unsaid) = (Some(Instant::now()), true);
            self.commit(base, number, &caller.unwrap_or_default(), &shards, closes, asks);
            if closes {
                self.over();
                return;
            }
        }
    }

    fn over(&self) {
        self.progress.send_modify(|progress| progress.over = true);
    }

    /// One commit: every shard's, and then the word of it.
    fn commit(
        &self,
        base: &Base,
        number: u64,
        caller: &[u8],
        shards: &[Arc<Shard>],
        closes: bool,
        asks: &mpsc::WeakUnboundedSender<Ask>,
    ) {
        let mut records = 0;
        for shard in shards {
            let ended = match commit_shard(shard, caller, closes) {
                Ok(ended) => ended,
                Err(error) => {
                    // The caller's own octets are lost with it, if nothing else is.
                    if shard.state().give_up() || !caller.is_empty() {
                        self.lose(&error);
                    }
                    Vec::new()
                }
            };
            records += shard.state().safe;
            for summary in ended {
                if let Some(asks) = asks.upgrade() {
                    // Whoever takes it is there as long as the recorder is.
                    let (summary, compact) = (Box::new(summary.clone()), !closes);
                    let post = shard.post.as_ref().map(|post| post.id().clone());
                    let _ = asks.send(Ask::Ended { summary, post, compact });
                }
                if closes {
                    self.state().ended.push(summary);
                }
            }
            if !closes {
                turn_if_due(shard, base, asks);
            }
        }
        base.room.decide(|| !closes && is_full(shards, base, asks));
        self.progress.send_modify(|progress| {
            if progress.lost.is_none_or(|lost| number < lost) {
                progress.receipt = Receipt { number, records };
            }
        });
    }
}

/// Makes durable what a shard has taken; ends what another segment has followed, and everything where it closes.
fn commit_shard(shard: &Shard, caller: &[u8], closes: bool) -> Result<Vec<SegmentSummary>> {
    let mut ended = Vec::new();
    let mut state = loop {
        // What was appended before lies in these, if it does not lie in the segment that is written now: they are ended before
        // it is looked at how much was taken, and another may have been followed meanwhile.
        let mut state = shard.state();
        if closes {
            state.closed = true;
            if let Some(mut writer) = state.writer.take() {
                if !caller.is_empty() {
                    writer.begin_commit(caller)?;
                }
                state.ending.push(writer);
            }
        }
        let ending = std::mem::take(&mut state.ending);
        if ending.is_empty() {
            break state;
        }
        drop(state);
        for writer in ending {
            ended.push(writer.finish_unrecorded()?.1);
        }
    };
    let (taken, generation) = (state.taken, state.generation);
    let has_work = taken > state.settled || !caller.is_empty();
    let Some(writer) = state.writer.as_mut().filter(|_| has_work) else {
        drop(state);
        settle(shard, taken);
        return Ok(ended);
    };
    let ordinal = writer.begin_commit(caller)?;
    let file = writer.sink().file();
    drop(state);
    // The others append meanwhile.
    file.sync().map_err(|source| Error::output_failed("the segment could not be made durable", source))?;
    let mut state = shard.state();
    if generation == state.generation
        && let Some(writer) = &mut state.writer
    {
        writer.committed(ordinal);
    }
    drop(state);
    settle(shard, taken);
    Ok(ended)
}

/// Writes, when a segment falls idle, what its newest sync made durable: whoever follows it needs not wait for the next commit.
fn say_durable(shard: &Shard) {
    let mut state = shard.state();
    // What came meanwhile is committed in its turn.
    let idle = state.taken == state.settled && state.here > 0;
    if let Some(writer) = state.writer.as_mut().filter(|_| idle)
        && let Err(error) = writer.begin_commit(&[])
    {
        // Nothing in it is lost; another segment follows it.
        tracing::warn!(code = %error.code(), "a segment that fell idle failed");
        state.give_up();
    }
}

/// Records up to this one are safe.
fn settle(shard: &Shard, taken: u64) {
    let mut state = shard.state();
    if taken > state.settled {
        state.safe += taken - state.settled;
        state.settled = taken;
    }
    state.unsettled_bytes = 0;
}

/// Looks at the memory that segments take, and has the largest followed by another where it is nearly used up: whether all of it
/// is, and some of it about to be given back.
fn is_full(shards: &[Arc<Shard>], base: &Base, asks: &mpsc::WeakUnboundedSender<Ask>) -> bool {
    let (mut taken, mut gives_back, mut largest) = (0, false, None);
    for shard in shards {
        let state = shard.state();
        let of_shard = state.memory_bytes();
        taken += of_shard;
        gives_back |= state.gives_back();
        // One that has taken nothing yet gives nothing back.
        if state.here > 0 && largest.is_none_or(|(most, _)| of_shard > most) {
            largest = Some((of_shard, shard));
        }
    }
    let allowed = base.options.memory_bytes;
    if !gives_back
        && taken > allowed / 4 * 3
        && let Some((_, shard)) = largest
    {
        turn(shard, asks);
        gives_back = true;
    }
    gives_back && taken > allowed
}

/// Asks for the segment that is to follow the one that is written, once, where it is time for it.
fn turn_if_due(shard: &Arc<Shard>, base: &Base, asks: &mpsc::WeakUnboundedSender<Ask>) {
    let state = shard.state();
    let Some(writer) = state.writer.as_ref().filter(|_| !state.turning) else { return };
    let options = &base.options;
    let due = writer.file_bytes() >= options.segment_bytes
        || writer.lanes() > options.segment_lanes
        || shard.is_aged(&state);
    drop(state);
    if due {
        turn(shard, asks);
    }
}

/// Asks for the next segment of a shard, unless somebody has.
fn turn(shard: &Arc<Shard>, asks: &mpsc::WeakUnboundedSender<Ask>) {
    let mut state = shard.state();
    if let Some(asks) = asks.upgrade().filter(|_| state.writer.is_some() && !state.turning) {
        state.turning = true;
        // Whoever takes it is there as long as the recorder is.
        let _ = asks.send(Ask::Turn(shard.clone()));
    }
}

/// What a caller of a failed commit is told.
pub(super) fn lost(receipt: u64) -> Error {
    Error::new(Code::RecordsLost, format!("records that receipt {receipt} was to cover may be lost"))
        .rule("what was appended behind the receipt before it is not safe; writing goes on in a new segment")
        .advise("append it again, after Recorder::resume")
}
