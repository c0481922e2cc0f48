//! Recorders: records of thousands of scopes, appended by many callers, made durable together.

mod bridge;
mod feed;
mod group;
mod keys;
mod lane;
mod memory;
mod shard;
mod tend;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domicile::event_window::EventWindow;
use domicile::post::Post;
use domicile::{Code, Domicile, Error, Place, Result, Scope, Time};
use tokio::sync::{mpsc, oneshot, watch};

pub use feed::Feed;
pub use lane::RecorderLane;

use crate::disk::{Disk, DiskFile, LocalDisk, made_place, make_directory_on};
use crate::format::{Commit, SegmentHeader};
use crate::framing::Framing;
use crate::outage::Outages;
use crate::recover::Recovery;
use crate::writer::{SealingPool, SegmentSummary, WriterOptions};
use group::{End, Group, Progress};
use keys::Ask;
use memory::Room;
use shard::Shard;
use tend::{Recovered, Task};

/// How a recorder writes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecorderOptions {
    /// How its segments are written.
    pub writer: WriterOptions,
    /// How long what was appended waits for others to be made durable with it. 20 ms.
    pub commit_interval: Duration,
    /// How many octets of records wait at most: as many are made durable at once. 16 MiB.
    pub commit_bytes: u64,
    /// Octets of a segment at which another follows it. 1 GiB.
    pub segment_bytes: u64,
    /// Age of a segment at which another follows it. 15 minutes.
    pub segment_age: Duration,
    /// Lanes of a segment at which another follows it. 65,536.
    pub segment_lanes: usize,
    /// Segments of a region that are written at once, each with a lock and a share of the scopes: as many callers as there are
    /// seal at the same time. 1.
    pub shards: usize,
    /// Threads that seal full blocks beside the callers', for all shards together; 0 has callers seal. As many as there are cores
    /// beside two, for a caller and for the disk, at most 4. Where [`writer`](Self::writer) has a pool already, that one is used.
    pub sealing_threads: usize,
    /// Octets of memory that its segments may take together: blocks that are filled, lanes whether busy or idle, places of blocks
    /// and indexes. Where it is nearly used up, the largest segment is followed by another; where it is, callers wait until that
    /// one is ended. An eighth of what this host or its control group has, at most 1 GiB.
    pub memory_bytes: u64,
    /// How far from now event times may lie.
    pub event_window: EventWindow,
    /// As which posts this host may go on where its homes' keys are out of reach: what is appended then goes into a segment as a
    /// post seals it, beside the home's own, and nobody waits for the keys. It is [adopted](crate::Adopting) behind the recorder
    /// once the keys are back, and opened then. None.
    pub posts: Vec<Post>,
    /// Whether segments that another one followed, and those that a crash left, are written anew behind the recorder: lane by
    /// lane, in full blocks. They are retired then, and removed. True.
    pub compact: bool,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            writer: WriterOptions::default(),
            commit_interval: Duration::from_millis(20),
            commit_bytes: 16 << 20,
            segment_bytes: 1 << 30,
            segment_age: Duration::from_secs(15 * 60),
            segment_lanes: 1 << 16,
            shards: 1,
            sealing_threads: std::thread::available_parallelism()
                .map_or(0, |cores| cores.get().saturating_sub(2).min(4)),
            memory_bytes: memory::default_bytes(),
            event_window: EventWindow::default(),
            posts: Vec::new(),
            compact: true,
        }
    }
}

/// What a lane keeps beside its records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneOptions {
    /// How records stood in the input that they come from, if they come from one.
    pub framing: Option<Framing>,
    /// What stood before them in that input.
    pub preamble: Arc<[u8]>,
    /// Whether event times are kept: 8 octets a record.
    pub event_times: bool,
    /// Whether the order of arrival is kept over several lanes.
    pub arrivals: bool,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self { framing: None, preamble: Arc::from([]), event_times: false, arrivals: false }
    }
}

/// That everything appended before it was asked for is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its number: receipts of a recorder count up.
    pub number: u64,
    /// Records that are safe by it, from the recorder's first on.
    pub records: u64,
}

/// Writes records of many scopes into segments below a directory: `<region>/<yyyy-mm-dd>/<segment id>.dseg`.
///
/// Cheap to clone; clones are one recorder, for any number of threads and tasks, on any runtime or none. It has threads
/// of its own: one makes durable what was appended, one gets keys, and one closes what earlier recorders left in the directory
/// ([`recovered`](Self::recovered)), adopts what was sealed as a post, and compacts what is rolled over. A key that is not to be had delays no
/// other scope.
///
/// *Appended* is a record once [`append`](RecorderLane::append) has returned: it will be written. *Safe* it is once a
/// [`commit`](Self::commit) that began after that has returned: then it survives the death of the process, of the host, and a
/// loss of power. When the last clone and the last lane are dropped without [`close`](Self::close), what no receipt covers
/// may be lost, as in a crash.
///
/// A segment that cannot be written or synced is given up, and writing goes on in another. What no receipt covers is not safe
/// then: every [`commit`](Self::commit) says so, and names the first receipt that did not come to be, until
/// [`resume`](Self::resume) says that it was appended again.
///
/// ```no_run
/// # async fn example(domicile: domicile::Domicile, acme: domicile::Scope) -> domicile::Result<()> {
/// use domicile_record::Recorder;
///
/// let recorder = Recorder::create(&domicile, "segments").await?;
/// let lane = recorder.scope(&acme).await?;
/// lane.append(domicile.now(), b"one record").await?;
/// let receipt = recorder.commit().await?;
/// println!("{} records are safe", receipt.records);
/// recorder.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// What all clones and lanes of a recorder have in common.
struct Shared {
    base: Arc<Base>,
    group: Arc<Group>,
    asks: mpsc::UnboundedSender<Ask>,
    tasks: mpsc::UnboundedSender<Task>,
    recovered: watch::Receiver<Option<Arc<Recovered>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.group.end(End::Dropped);
    }
}

/// What its threads need too.
#[derive(Debug)]
struct Base {
    domicile: Domicile,
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    options: RecorderOptions,
    room: Room,
    /// Whose keys were out of reach.
    outages: Mutex<Outages>,
}

impl Recorder {
    /// A recorder that writes below `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed) when it cannot be made, or the threads cannot be started.
    pub async fn create(domicile: &Domicile, directory: impl AsRef<Path>) -> Result<Self> {
        Self::with_options(domicile, directory, RecorderOptions::default()).await
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    #[expect(
        clippy::unused_async,
        reason = "what a recorder finds at its beginning will have to be asked for"
    )]
    pub async fn with_options(
        domicile: &Domicile,
        directory: impl AsRef<Path>,
        options: RecorderOptions,
    ) -> Result<Self> {
        Self::on_disk(domicile, directory.as_ref(), options, Arc::new(LocalDisk))
    }

    /// The same, on another disk than this host's.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn on_disk(
        domicile: &Domicile,
        directory: &Path,
        mut options: RecorderOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Self> {
        if options.writer.pool.is_none() && options.sealing_threads > 0 {
            options.writer.pool = Some(SealingPool::new(options.sealing_threads)?);
        }
        let base = Base {
            domicile: domicile.clone(),
            directory: directory.to_owned(),
            disk,
            options,
            room: Room::default(),
            outages: Mutex::default(),
        };
        make_directory_on(&*base.disk, directory)?;
        // Before a segment is begun, so that none of its own is among them.
        let found = tend::found(&base);
        let (base, group) = (Arc::new(base), Arc::new(Group::new()));
        let (asks, asked) = mpsc::unbounded_channel();
        let (tasks, tasked) = mpsc::unbounded_channel();
        let weak = asks.downgrade();
        {
            let (base, group) = (base.clone(), group.clone());
            let tasks = tasks.clone();
            start("domicile-keys", move || keys::run(&base, &group, &tasks, asked))?;
        }
        {
            let (base, group) = (base.clone(), group.clone());
            start("domicile-commit", move || group.run(&base, &weak))?;
        }
        let (done, recovered) = watch::channel(None);
        {
            let base = base.clone();
            start("domicile-tend", move || tend::run(&base, &found, &done, tasked))?;
        }
        Ok(Self { shared: Arc::new(Shared { base, group, asks, tasks, recovered }) })
    }

    /// What became of the segments below its directory that had no end when the recorder began: each is closed behind the
    /// recorder, which writes meanwhile. This waits until all were looked at. Those that somebody else writes are left alone, and looked
    /// at again.
    ///
    /// Segments that were sealed as a post are among them, whoever left them, and those of this recorder once they are adopted. One
    /// whose keys are out of reach, or whose writer still has it, is tried again after a second, then after twice as long each time, up to
    /// a minute: here is how that ended so far.
    ///
    /// A recovery gives back what [`commit_with`](Self::commit_with) kept: a queue is read on from there.
    pub async fn recovered(&self) -> Arc<Vec<(PathBuf, Result<Recovery>)>> {
        let mut recovered = self.shared.recovered.clone();
        match recovered.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or_default(),
            // The thread is gone without a word: it found nothing that it could speak of.
            Err(_) => Arc::default(),
        }
    }

    /// Octets of memory that its segments take now.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shared.group.shards().iter().map(|shard| shard.state().memory_bytes()).sum()
    }

    /// The time, by the clock of its keys.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.base.domicile.now()
    }

    /// Where records of a scope are appended; its home is asked for once. Whoever asks again gets the same lanes.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) and the like where its records may not be sealed here; what keeps its home from
    /// being known, unless the bundle of one of the recorder's [posts](RecorderOptions::posts) names it.
    pub async fn scope(&self, scope: &Scope) -> Result<RecorderLane> {
        self.scope_with(scope, LaneOptions::default()).await
    }

    /// The same, for records that something is kept beside.
    ///
    /// # Errors
    /// As [`scope`](Self::scope).
    pub async fn scope_with(&self, scope: &Scope, options: LaneOptions) -> Result<RecorderLane> {
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Ask::Home { scope: scope.clone(), answer })?;
        let home = answered.await.map_err(|_| gone())??;
        let shard = self.shared.shard(&home, scope)?;
        let slot = shard.add_scope(scope, options);
        Ok(RecorderLane::new(self.shared.clone(), shard, slot))
    }

    /// Returns once everything that was appended before is safe. Commits of all callers go together; one that is given up
    /// goes on, and loses only its answer.
    ///
    /// # Errors
    /// [`RecordsLost`](Code::RecordsLost), naming the first receipt that did not come to be, while a segment has failed
    /// and [`resume`](Self::resume) was not called; [`WriterFailed`](Code::WriterFailed) when the recorder was closed.
    pub async fn commit(&self) -> Result<Receipt> {
        self.committed(None).await
    }

    /// The same, with up to 256 octets of the caller's own, which stand in the segments: a queue's offset, say. Of
    /// several commits that go together, the last one's stand.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); [`ArgumentInvalid`](Code::ArgumentInvalid) for more octets.
    pub async fn commit_with(&self, caller: &[u8]) -> Result<Receipt> {
        if caller.len() > Commit::CALLER_BYTES_MAX {
            return Err(Error::new(
                Code::ArgumentInvalid,
                "a commit keeps at most 256 octets of the caller's",
            ));
        }
        self.committed(Some(caller)).await
    }

    /// As [`scope`](Self::scope), from a thread that may wait; it needs no runtime.
    ///
    /// # Errors
    /// As [`scope`](Self::scope).
    pub fn scope_blocking(&self, scope: &Scope) -> Result<RecorderLane> {
        pollster::block_on(self.scope(scope))
    }

    /// As [`commit`](Self::commit), from a thread that may wait; it needs no runtime.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_blocking(&self) -> Result<Receipt> {
        pollster::block_on(self.commit())
    }

    /// As [`close`](Self::close), from a thread that may wait; it needs no runtime.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_blocking(self) -> Result<Vec<SegmentSummary>> {
        pollster::block_on(self.close())
    }

    async fn committed(&self, caller: Option<&[u8]>) -> Result<Receipt> {
        let number = self.shared.group.want(caller)?;
        self.reached(|progress| progress.receipt.number >= number).await
    }

    /// The next receipt behind this one, whoever asked for it: what was appended is made durable within the commit interval,
    /// asked for or not.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn receipt_after(&self, receipt: Receipt) -> Result<Receipt> {
        self.reached(|progress| progress.receipt.number > receipt.number).await
    }

    /// Whether nothing was lost that was not said to be appended again.
    ///
    /// # Errors
    /// [`RecordsLost`](Code::RecordsLost).
    pub fn check(&self) -> Result<()> {
        self.shared.group.progress.borrow().lost.map_or(Ok(()), |receipt| Err(group::lost(receipt)))
    }

    async fn reached(&self, is: impl Fn(&Progress) -> bool) -> Result<Receipt> {
        let mut progress = self.shared.group.progress.subscribe();
        let seen =
            progress.wait_for(|progress| is(progress) || progress.lost.is_some() || progress.over).await;
        let seen = *seen.map_err(|_| gone())?;
        match seen.lost {
            Some(receipt) => Err(group::lost(receipt)),
            None if is(&seen) => Ok(seen.receipt),
            None => Err(shard::closed()),
        }
    }

    /// Says that what was lost with a failed segment was appended again, or is to be lost: commits may succeed again.
    pub fn resume(&self) {
        self.shared.group.resume();
    }

    /// Makes everything durable and ends the segments, which are whole then; waits for what is compacted. Clones and lanes take
    /// nothing more.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn close(self) -> Result<Vec<SegmentSummary>> {
        self.shared.group.end(End::Closed);
        let mut progress = self.shared.group.progress.subscribe();
        let seen = *progress.wait_for(|progress| progress.over).await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Ask::Flush(answer))?;
        answered.await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        self.shared.tasks.send(Task::Flush(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?;
        match seen.lost {
            Some(receipt) => Err(group::lost(receipt)),
            None => Ok(self.shared.group.take_ended()),
        }
    }
}

impl Shared {
    fn ask(&self, ask: Ask) -> Result<()> {
        self.asks.send(ask).map_err(|_| gone())
    }

    /// The shard of a region that a scope's records go to: always the same.
    fn shard(&self, place: &Place, scope: &Scope) -> Result<Arc<Shard>> {
        let mut hasher = DefaultHasher::new();
        scope.hash(&mut hasher);
        let count = self.base.options.shards.max(1);
        let number = usize::try_from(hasher.finish() % count as u64).unwrap_or(0);
        self.group.shard(&self.base, place, number, None)
    }
}

impl Base {
    /// Begins the file of a segment, in directories that are made if they are not there.
    fn create_file(&self, header: &SegmentHeader) -> Result<Arc<dyn DiskFile>> {
        let path = made_place(&*self.disk, &self.directory, header)?;
        self.disk.create(&path).map_err(|source| {
            Error::output_failed("a segment could not be begun", source).at(path.display().to_string())
        })
    }

    /// How the next segment is written: the blocks of all shards together have a quarter of the memory.
    fn writer_options(&self, shards: usize) -> WriterOptions {
        let share = self.options.memory_bytes / 4 / shards.max(1) as u64;
        let share = usize::try_from(share).unwrap_or(usize::MAX).max(64 << 10);
        let options = self.options.writer.clone();
        WriterOptions { open_bytes_max: options.open_bytes_max.min(share), ..options }
    }

    fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started
        .map(drop)
        .map_err(|source| Error::output_failed("a thread of a recorder could not be started", source))
}

/// A thread is gone, which ends with nothing but the recorder.
fn gone() -> Error {
    Error::new(Code::WriterFailed, "a thread of this recorder is gone").advise("begin another recorder")
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("directory", &self.shared.base.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    assert_impl_all!(Recorder: Clone, Send, Sync);
    assert_impl_all!(RecorderLane: Clone, Send, Sync);
    assert_not_impl_any!(Shared: Clone);
}
