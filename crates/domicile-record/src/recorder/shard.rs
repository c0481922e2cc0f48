//! The segment of one region that is written now, and the lanes of it that take records.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domicile::post::Post;
use domicile::{Code, Error, Period, Place, Region, Result, Scope, Time};
use smallvec::SmallVec;

use super::{Base, LaneOptions};
use crate::disk::FileSink;
use crate::format::{Contents, Descriptor, LaneNo};
use crate::writer::{LaneKeys, SegmentWriter, Stamp};

pub(super) type Writer = SegmentWriter<FileSink>;

/// How long a post keeps the secret of a segment: another follows it then.
const POST_AGE_MAX: Duration = Duration::from_secs(5 * 60);

/// One region's segments, one after the other: the home's own, or those that this host seals as a post of it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) place: Place,
    /// Which of the region's.
    pub(super) number: usize,
    /// The post that seals them, if not the home itself.
    pub(super) post: Option<Post>,
    pub(super) base: Arc<Base>,
    state: Mutex<ShardState>,
    /// Whoever begins a segment, begins it alone.
    pub(super) beginning: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct ShardState {
    /// None before the first is begun, after one failed, and when the recorder was closed.
    pub(super) writer: Option<Writer>,
    /// Counts segments.
    pub(super) generation: u64,
    /// The next segment was asked for.
    pub(super) turning: bool,
    /// Segments that another has followed, and that are to be ended.
    pub(super) ending: Vec<Writer>,
    pub(super) began: Time,
    pub(super) closed: bool,
    scopes: Vec<ScopeState>,
    /// Where each scope stands among them, once for each of its options.
    by_scope: HashMap<Scope, Vec<usize>>,
    /// The event times that may be sealed.
    pub(super) window: Range<i64>,
    arrivals: i64,
    /// Records that were taken, those of failed segments among them.
    pub(super) taken: u64,
    /// Of these, the ones that a receipt covers, or that were said to be lost.
    pub(super) settled: u64,
    /// Records that a receipt covers.
    pub(super) safe: u64,
    pub(super) unsettled_bytes: u64,
    /// Records in the segment that is written now.
    pub(super) here: u64,
}

#[derive(Debug)]
struct ScopeState {
    scope: Scope,
    options: LaneOptions,
    /// One for each period that records come for: mostly one, which is found without a way further.
    lanes: SmallVec<[OpenLane; 1]>,
    /// Where its records go while the home's keys are out of reach: a post's shard, and the scope's place there.
    beside: Option<(Arc<Shard>, usize)>,
}

#[derive(Debug, Clone)]
struct OpenLane {
    times: Range<i64>,
    period: Period,
    lane: LaneNo,
    /// It took a record in this segment.
    used: bool,
}

/// A lane that the next segment begins with.
pub(super) struct Ahead {
    pub(super) slot: usize,
    pub(super) period: Period,
}

impl Shard {
    pub(super) fn new(place: Place, number: usize, post: Option<Post>, base: Arc<Base>) -> Self {
        let now = base.domicile.now();
        let state = ShardState {
            writer: None,
            generation: 0,
            turning: false,
            ending: Vec::new(),
            began: now,
            closed: false,
            scopes: Vec::new(),
            by_scope: HashMap::new(),
            window: base.options.event_window.at(now),
            arrivals: 0,
            taken: 0,
            settled: 0,
            safe: 0,
            unsettled_bytes: 0,
            here: 0,
        };
        Self { place, number, post, base, state: Mutex::new(state), beginning: tokio::sync::Mutex::new(()) }
    }

    pub(super) fn region(&self) -> &Region {
        &self.place.region
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the one of a region with that number, by the home's hand or by that post's.
    pub(super) fn is(&self, place: &Place, number: usize, post: Option<&Post>) -> bool {
        let of = |post: &Post| (post.id().clone(), post.bundle().serial);
        (&self.place, self.number) == (place, number) && self.post.as_ref().map(of) == post.map(of)
    }

    /// Who gets keys for lanes.
    pub(super) fn keys(&self) -> LaneKeys {
        match &self.post {
            Some(post) => LaneKeys::Post(post.clone()),
            None => LaneKeys::Home { domicile: self.base.domicile.clone(), place: self.place.clone() },
        }
    }

    /// Whether its segment is so old that another is to follow it. A post's is followed with or without records: what opens it
    /// goes with it.
    pub(super) fn is_aged(&self, state: &ShardState) -> bool {
        let most = self.base.options.segment_age;
        let most = if self.post.is_some() { most.min(POST_AGE_MAX) } else { most };
        let age = self.base.domicile.now().micros().saturating_sub(state.began.micros());
        (state.here > 0 || self.post.is_some()) && age >= i64::try_from(most.as_micros()).unwrap_or(i64::MAX)
    }

    /// The scope in a slot, and what its lanes keep.
    pub(super) fn scope_of(&self, slot: usize) -> Result<(Scope, LaneOptions)> {
        let state = self.state();
        let ScopeState { scope, options, .. } = state.scope(slot)?;
        Ok((scope.clone(), options.clone()))
    }

    /// The place for the lanes of a scope with these options.
    pub(super) fn add_scope(&self, scope: &Scope, options: LaneOptions) -> usize {
        let mut state = self.state();
        let ShardState { scopes, by_scope, .. } = &mut *state;
        let slots = by_scope.entry(scope.clone()).or_default();
        let same = |slot: &&usize| scopes.get(**slot).is_some_and(|known| known.options == options);
        if let Some(slot) = slots.iter().find(same) {
            return *slot;
        }
        slots.push(scopes.len());
        scopes.push(ScopeState { scope: scope.clone(), options, lanes: SmallVec::new(), beside: None });
        scopes.len() - 1
    }

    /// The period of a record of a scope.
    pub(super) fn period(&self, slot: usize, time: Time) -> Result<Period> {
        let record_type = self.state().scope(slot)?.scope.record_type.clone();
        match &self.post {
            Some(post) => post.period(&record_type, time),
            None => self.base.domicile.period(&record_type, time),
        }
    }
}

impl ShardState {
    fn scope(&self, slot: usize) -> Result<&ScopeState> {
        self.scopes.get(slot).ok_or_else(|| Error::new(Code::ArgumentInvalid, "a lane of another recorder"))
    }

    /// Takes a record into its block; false where its lane is to be opened first.
    #[inline]
    pub(super) fn append(
        &mut self,
        slot: usize,
        micros: i64,
        length: usize,
        put: impl FnOnce(&mut Writer, LaneNo, Stamp) -> Result<()>,
    ) -> Result<bool> {
        if self.closed {
            return Err(closed());
        }
        if !self.window.contains(&micros) {
            return Err(out_of_window());
        }
        let (Some(writer), Some(scope)) = (&mut self.writer, self.scopes.get_mut(slot)) else {
            return Ok(false);
        };
        let found = scope.lanes.iter_mut().enumerate().find(|(_, open)| open.times.contains(&micros));
        let Some((at, open)) = found else { return Ok(false) };
        let stamp = Stamp {
            time: scope.options.event_times.then_some(micros),
            arrival: scope.options.arrivals.then_some(self.arrivals),
        };
        match put(writer, open.lane, stamp) {
            Ok(()) => {
                open.used = true;
                self.arrivals += i64::from(scope.options.arrivals);
                self.taken += 1;
                self.here += 1;
                self.unsettled_bytes += length as u64;
                Ok(true)
            }
            // Nothing was spent: the scope gets another lane, and its key is asked for anew.
            Err(error) if matches!(error.code(), Code::SegmentLimit | Code::KeyLapsed) => {
                scope.lanes.swap_remove(at);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Octets of memory that its segments take, the one that is written and those that are to be ended.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.writer.iter().chain(&self.ending).map(Writer::memory_bytes).sum()
    }

    /// Whether memory is about to be given back.
    pub(super) fn gives_back(&self) -> bool {
        self.turning || !self.ending.is_empty()
    }

    /// Whether the segment failed: nothing more is written to it.
    pub(super) fn has_failed(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::has_failed)
    }

    /// Gives the segment up that failed: what of it no receipt covers may be lost. Whether anything is.
    pub(super) fn give_up(&mut self) -> bool {
        self.writer = None;
        self.scopes.iter_mut().for_each(|scope| scope.lanes.clear());
        let lost = self.taken > self.settled;
        (self.settled, self.unsettled_bytes) = (self.taken, 0);
        lost
    }

    /// Whether a scope's lane for a period is open.
    pub(super) fn has_lane(&self, slot: usize, period: Period) -> bool {
        self.scope(slot).is_ok_and(|scope| scope.lanes.iter().any(|open| open.period == period))
    }

    /// What a lane of a scope is, and what stands before its records.
    pub(super) fn descriptor(
        &self,
        slot: usize,
        period: Period,
        base: &Base,
    ) -> Result<(Descriptor, Arc<[u8]>)> {
        let ScopeState { scope, options, .. } = self.scope(slot)?;
        let contents =
            Contents { event_times: options.event_times, arrivals: options.arrivals, ..Contents::default() };
        let descriptor = Descriptor {
            compression: base.options.writer.compression,
            framing: options.framing,
            contents,
            ..Descriptor::new(scope.clone(), period, base.options.writer.suite)
        };
        Ok((descriptor, options.preamble.clone()))
    }

    pub(super) fn add_lane(&mut self, slot: usize, period: Period, lane: LaneNo) {
        if let Some(scope) = self.scopes.get_mut(slot) {
            scope.lanes.push(OpenLane { times: period.bounds(), period, lane, used: false });
        }
    }

    /// Where a scope's records go while the home's keys are out of reach.
    pub(super) fn beside(&self, slot: usize) -> Option<(Arc<Shard>, usize)> {
        self.scopes.get(slot)?.beside.clone()
    }

    /// Says where that is.
    pub(super) fn set_beside(&mut self, slot: usize, shard: Arc<Shard>, at: usize) {
        if let Some(scope) = self.scopes.get_mut(slot) {
            scope.beside = Some((shard, at));
        }
    }

    /// The lanes that are open: each with its scope's place, its scope and its period.
    pub(super) fn open_lanes(&self) -> Vec<(usize, Scope, Period)> {
        let of = |(slot, scope): (usize, &ScopeState)| {
            scope.lanes.iter().map(|open| (slot, scope.scope.clone(), open.period)).collect::<Vec<_>>()
        };
        self.scopes.iter().enumerate().flat_map(of).collect()
    }

    /// Has a scope's lane for a period take nothing more.
    pub(super) fn close_lane(&mut self, slot: usize, period: Period) {
        if let Some(scope) = self.scopes.get_mut(slot) {
            scope.lanes.retain(|open| open.period != period);
        }
    }

    /// Has the segment that is written ended, and none follow it before somebody has a record for it.
    pub(super) fn retire(&mut self) {
        self.scopes.iter_mut().for_each(|scope| scope.lanes.clear());
        self.ending.extend(self.writer.take());
        self.generation += 1;
        (self.arrivals, self.here, self.turning) = (0, 0, false);
    }

    /// The lanes that took records in this segment.
    pub(super) fn lanes_ahead(&self) -> Vec<Ahead> {
        let of = |(slot, scope): (usize, &ScopeState)| {
            let used = scope.lanes.iter().filter(|open| open.used);
            used.map(|open| Ahead { slot, period: open.period }).collect::<Vec<_>>()
        };
        self.scopes.iter().enumerate().flat_map(of).collect()
    }

    /// Writes to another segment from now on, with these lanes; the one before is to be ended.
    pub(super) fn follow(&mut self, next: Writer, lanes: Vec<(Ahead, LaneNo)>, now: Time) {
        self.scopes.iter_mut().for_each(|scope| scope.lanes.clear());
        for (Ahead { slot, period }, lane) in lanes {
            self.add_lane(slot, period, lane);
        }
        self.ending.extend(self.writer.replace(next));
        self.generation += 1;
        (self.began, self.arrivals, self.here, self.turning) = (now, 0, 0, false);
    }
}

pub(super) fn closed() -> Error {
    Error::new(Code::WriterFailed, "this recorder was closed and takes nothing more")
}

#[cold]
fn out_of_window() -> Error {
    Error::new(Code::InputTime, "the event time is too far from now")
        .rule(
            "a recorder takes event times within its window: 40 days back, one ahead, unless said otherwise",
        )
        .advise("see that the producer's clock is right, or widen the window of the recorder")
}
