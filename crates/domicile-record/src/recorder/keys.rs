//! Keys for lanes and segments: one thread with a runtime of its own, so that whoever appends needs none.

use std::sync::Arc;

use domicile::audit::EventKind;
use domicile::post::PostId;
use domicile::{Code, Error, Period, Result, Time};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::Base;
use super::bridge;
use super::group::Group;
use super::shard::{Ahead, Shard, Writer};
use super::tend::{Task, is_hot};
use crate::disk::FileSink;
use crate::writer::{SegmentSummary, SegmentWriter};

/// What is asked of the thread.
pub(super) enum Ask {
    /// A lane of a scope for records of a time.
    Lane { shard: Arc<Shard>, slot: usize, time: Time, answer: oneshot::Sender<Result<()>> },
    /// The next segment of a region.
    Turn(Arc<Shard>),
    /// The word of a segment's end in the audit chain; by which post it was sealed, if by one, and whether it is written anew
    /// otherwise.
    Ended { summary: Box<SegmentSummary>, post: Option<PostId>, compact: bool },
    /// Where a scope is at home.
    Home { scope: domicile::Scope, answer: oneshot::Sender<Result<domicile::Place>> },
    /// An answer once everything that was asked for before is done.
    Flush(oneshot::Sender<()>),
}

/// Serves until nobody asks any longer.
pub(super) fn run(
    base: &Arc<Base>,
    group: &Arc<Group>,
    tasks: &mpsc::UnboundedSender<Task>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            tracing::error!(%source, "a recorder has no runtime for its keys");
            return;
        }
    };
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let mut tick = tokio::time::interval(base.domicile.keyring().poll_age());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What whoever closes the recorder waits for. Each is on its own: a key that is not to be had delays no other.
        let mut pending = JoinSet::new();
        // A key service that does not answer is waited for by nobody else.
        let mut keeping_up = tokio::task::spawn_local(async {});
        loop {
            let ask = tokio::select! {
                ask = asks.recv() => ask,
                _ = tick.tick() => {
                    if keeping_up.is_finished() {
                        let (base, group) = (base.clone(), group.clone());
                        keeping_up = tokio::task::spawn_local(async move {
                            bridge::ask_again(&base, &group).await;
                            keep_up(&base, &group).await;
                        });
                    }
                    continue;
                }
            };
            // Those that are done are forgotten.
            while pending.try_join_next().is_some() {}
            match ask {
                None => break,
                Some(Ask::Lane { shard, slot, time, answer }) => {
                    let group = group.clone();
                    pending.spawn_local(async move {
                        // Whoever asked may have gone.
                        let _ = answer.send(bridge::open_lane(&shard, &group, slot, time).await);
                    });
                }
                Some(Ask::Turn(shard)) => {
                    let group = group.clone();
                    pending.spawn_local(async move { turn(&shard, &group).await });
                }
                Some(Ask::Ended { summary, post, compact }) => {
                    let (base, tasks) = (base.clone(), tasks.clone());
                    pending.spawn_local(async move {
                        record(&base, &summary, post.as_ref()).await;
                        let path = base.directory.join(summary.path());
                        let compact = compact && is_hot(&summary);
                        let task = match post {
                            Some(_) => Some(Task::Adopt { path, region: summary.place.region, compact }),
                            None => compact.then_some(Task::Compact(path)),
                        };
                        // Whoever takes it is there as long as the recorder is.
                        let _ = task.map(|task| tasks.send(task));
                    });
                }
                Some(Ask::Home { scope, answer }) => {
                    let base = base.clone();
                    tokio::task::spawn_local(async move {
                        let _ = answer.send(bridge::home_of(&base, &scope).await);
                    });
                }
                Some(Ask::Flush(answer)) => {
                    // A task that failed has said so.
                    while pending.join_next().await.is_some() {}
                    let keeping = std::mem::replace(&mut keeping_up, tokio::task::spawn_local(async {}));
                    let _ = keeping.await;
                    let _ = answer.send(());
                }
            }
        }
    }));
}

/// The segment is whole and vouches for itself: a chain that is out of reach does not undo it.
async fn record(base: &Base, summary: &SegmentSummary, post: Option<&PostId>) {
    let event = summary.event(EventKind::Seal);
    let event = post.iter().fold(event, |event, post| event.post(post.as_str()));
    if let Err(error) = base.domicile.audit().record_when_possible(&[event]).await {
        tracing::error!(code = %error.code(), segment = %summary.id, "that a segment was sealed is not on record");
    }
}

/// Learns what changed, and has lanes whose keys ended take nothing more.
async fn keep_up(base: &Base, group: &Group) {
    if let Err(error) = base.domicile.keep_up().await {
        tracing::warn!(code = %error.code(), "a recorder does not hear what became of its keys");
    }
    let window = base.options.event_window.at(base.domicile.now());
    for shard in group.shards() {
        let mut state = shard.state();
        state.window = window.clone();
        if let Some(writer) = &mut state.writer {
            writer.stop_lapsed_lanes();
        }
        let turns = state.writer.is_some() && !state.turning && shard.is_aged(&state);
        drop(state);
        if turns {
            group.touch(false);
        }
    }
}

/// Opens a lane for a scope and a period in the shard's own segment, which is begun if it is not there.
pub(super) async fn open_lane(shard: &Shard, group: &Group, slot: usize, period: Period) -> Result<()> {
    // The segment may fill, or be followed, while its key is asked for.
    for _ in 0..8 {
        if shard.state().has_lane(slot, period) {
            return Ok(());
        }
        let (descriptor, preamble) = shard.state().descriptor(slot, period, &shard.base)?;
        let prepared = shard.keys().prepare(descriptor).await?;
        let (is_none, generation) = {
            let state = shard.state();
            (state.writer.is_none(), state.generation)
        };
        if is_none {
            begin(shard, group, generation, Vec::new()).await?;
        }
        let begun = {
            let mut state = shard.state();
            if state.closed {
                return Err(super::shard::closed());
            }
            if state.has_lane(slot, period) {
                return Ok(());
            }
            let begun = state.writer.as_mut().map(|writer| writer.begin_lane(prepared, &preamble));
            if let Some(Ok(lane)) = begun {
                state.add_lane(slot, period, lane);
                return Ok(());
            }
            begun
        };
        match begun {
            // All lanes are taken: the next segment has room.
            Some(Err(error)) if error.code() == Code::SegmentLimit => turn(shard, group).await,
            Some(Err(error)) => {
                if shard.state().has_failed() && shard.state().give_up() {
                    group.lose(&error);
                }
                return Err(error);
            }
            _ => {}
        }
    }
    Err(Error::new(Code::WriterFailed, "segments end faster than a lane is opened in them"))
}

/// Ends a post's segment: the next one is begun when there is a record for it.
pub(super) async fn retire(shard: &Shard, group: &Group) {
    let _alone = shard.beginning.lock().await;
    shard.state().retire();
    group.touch(true);
}

/// Begins the next segment, with the lanes that took records in this one opened ahead.
async fn turn(shard: &Shard, group: &Group) {
    if shard.post.is_some() {
        return retire(shard, group).await;
    }
    let (ahead, generation) = {
        let state = shard.state();
        (state.lanes_ahead(), state.generation)
    };
    if let Err(error) = begin(shard, group, generation, ahead).await {
        // The segment that is written goes on.
        tracing::warn!(code = %error.code(), region = %shard.region(), "the next segment could not be begun");
        // Nothing is given back by it: whoever waits for room goes on.
        shard.base.room.decide(|| {
            shard.state().turning = false;
            false
        });
    }
}

/// Begins the segment behind this generation, unless somebody else does.
async fn begin(shard: &Shard, group: &Group, generation: u64, ahead: Vec<Ahead>) -> Result<()> {
    let _alone = shard.beginning.lock().await;
    {
        let state = shard.state();
        if state.closed {
            return Err(super::shard::closed());
        }
        if state.generation != generation && state.writer.is_some() {
            return Ok(());
        }
    }
    let (writer, lanes) = begun(shard, group, ahead).await?;
    let mut state = shard.state();
    if state.closed {
        drop(state);
        // Its file is there, and is made whole: nothing is in it.
        writer.finish_unrecorded()?;
        return Err(super::shard::closed());
    }
    state.follow(writer, lanes, shard.base.domicile.now());
    drop(state);
    group.touch(true);
    Ok(())
}

async fn begun(
    shard: &Shard,
    group: &Group,
    ahead: Vec<Ahead>,
) -> Result<(Writer, Vec<(Ahead, crate::format::LaneNo)>)> {
    let base = &shard.base;
    let open = |header: &crate::format::SegmentHeader| base.create_file(header).map(FileSink::new);
    let options = base.writer_options(group.shards().len());
    let mut writer = match &shard.post {
        Some(post) => SegmentWriter::create_named_at_post(post, open, options).await?,
        None => SegmentWriter::create_named(&base.domicile, shard.region(), open, options).await?,
    };
    writer.sync_opening()?;
    let mut lanes = Vec::with_capacity(ahead.len());
    for ahead in ahead {
        let (descriptor, preamble) = shard.state().descriptor(ahead.slot, ahead.period, base)?;
        match shard.keys().prepare(descriptor).await {
            Ok(prepared) => {
                let lane = writer.begin_lane(prepared, &preamble)?;
                lanes.push((ahead, lane));
            }
            // Asked for again when its next record comes, which is told then.
            Err(error) => tracing::debug!(code = %error.code(), "a lane was not opened ahead"),
        }
    }
    Ok((writer, lanes))
}
