//! What is done behind a recorder that writes: what earlier ones left is closed, what was sealed as a post is adopted, and what is
//! rolled over is compacted. One thread, one file after another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domicile::{Code, Region, Result, TenantId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Base;
use crate::compact::{compact_on, finish_replacing};
use crate::disk::is_left_over;
use crate::format::SegmentId;
use crate::recover::{Recovery, adopt_on, recover_on};
use crate::writer::SegmentSummary;

/// What became of each file that was found without an end, or was sealed as a post.
pub(super) type Recovered = Vec<(PathBuf, Result<Recovery>)>;

/// What is asked of the thread.
pub(super) enum Task {
    /// A segment was rolled over.
    Compact(PathBuf),
    /// A segment was ended that this host sealed as a post of a region; whether it is compacted once it is adopted.
    Adopt { path: PathBuf, region: Region, compact: bool },
    /// An answer once everything that was asked for before is done.
    Flush(oneshot::Sender<()>),
}

/// The segments of this host's regions that stood in the directory when the recorder began.
pub(super) fn found(base: &Base) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for region in names(base, &base.directory) {
        let is_ours = |region: Region| base.domicile.region(&region).is_ok();
        if !region.to_str().and_then(|name| name.parse().ok()).is_some_and(is_ours) {
            continue;
        }
        let of_region = base.directory.join(region);
        for day in names(base, &of_region) {
            let of_day = of_region.join(day);
            let segments = names(base, &of_day).into_iter();
            found.extend(segments.map(|name| of_day.join(name)));
        }
    }
    found.sort();
    found
}

/// What cannot be listed is no directory of segments.
fn names(base: &Base, directory: &Path) -> Vec<OsString> {
    base.disk.list(directory).unwrap_or_default()
}

/// Whether a segment is worth writing anew: its records lie in small blocks, or its lanes in many pieces.
pub(super) fn is_hot(summary: &SegmentSummary) -> bool {
    let beside = summary.file_bytes.saturating_sub(summary.bytes);
    summary.records > 0 && (summary.lanes > 1 || beside > 8 * summary.records)
}

/// Closes and adopts what was found, and then does what is asked until nobody asks any longer.
pub(super) fn run(
    base: &Base,
    found: &[PathBuf],
    done: &watch::Sender<Option<Arc<Recovered>>>,
    mut tasks: mpsc::UnboundedReceiver<Task>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            tracing::error!(%source, "a recorder has no runtime to recover with");
            done.send_replace(Some(Arc::default()));
            return;
        }
    };
    runtime.block_on(async {
        let mut tending = Tending { base, done, waiting: BTreeSet::new(), hot: VecDeque::new() };
        tending.begin(found).await;
        let mut wait = AGAIN_MIN;
        let mut again = Instant::now() + wait;
        loop {
            let compacts = tending.hot.front().map_or(again, |(due, _)| *due);
            let task = tokio::select! {
                task = tasks.recv() => task,
                () = tokio::time::sleep_until(compacts), if !tending.hot.is_empty() => {
                    tending.compact_next().await;
                    continue;
                }
                () = tokio::time::sleep_until(again), if !tending.waiting.is_empty() => {
                    tending.mend_what_waits().await;
                    wait = if tending.waiting.is_empty() { AGAIN_MIN } else { AGAIN_MAX.min(2 * wait) };
                    again = Instant::now() + wait;
                    continue;
                }
            };
            match task {
                None => break,
                Some(Task::Compact(path)) => compact(base, &path).await,
                Some(Task::Adopt { path, region, compact }) => {
                    tending.adopt_ended(path, &region, compact).await;
                }
                Some(Task::Flush(answer)) => {
                    while !tending.hot.is_empty() {
                        tending.compact_next().await;
                    }
                    // Whoever asked may have gone.
                    let _ = answer.send(());
                }
            }
        }
    });
}

/// How long what waits is left alone the first time; twice as long each time after that, up to a minute.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How long what was closed or adopted is left as it is before it is compacted: whoever follows it goes on in the file of its name,
/// and finds it within two seconds.
const COMPACTED_AFTER: Duration = Duration::from_secs(5);

/// What the thread knows of its files.
struct Tending<'a> {
    base: &'a Base,
    done: &'a watch::Sender<Option<Arc<Recovered>>>,
    /// What is looked at again: its keys were out of reach, or its writer had it still. Of a process that ends while this one begins,
    /// the last segment is closed so.
    waiting: BTreeSet<PathBuf>,
    /// What is compacted, and not before when.
    hot: VecDeque<(Instant, PathBuf)>,
}

impl Tending<'_> {
    /// Closes what was found, and adopts what posts sealed of it.
    async fn begin(&mut self, found: &[PathBuf]) {
        let mut recovered = Recovered::new();
        for path in found {
            if path.file_name().is_some_and(is_left_over) {
                remove_left_over(self.base, path);
            } else if is_segment(path) {
                match self.mend(path).await {
                    Ok(Recovery::Whole) => {}
                    Err(error) if error.code() == Code::SegmentBusy => {}
                    outcome => recovered.push((path.clone(), outcome)),
                }
            }
        }
        finish_compactions(self.base, found).await;
        let is_new = |(_, outcome): &&(PathBuf, Result<Recovery>)| {
            matches!(outcome, Ok(Recovery::Closed { .. } | Recovery::Adopted { .. }))
        };
        let due = Instant::now() + COMPACTED_AFTER;
        self.hot.extend(recovered.iter().filter(is_new).map(|(path, _)| (due, path.clone())));
        self.done.send_replace(Some(Arc::new(recovered)));
    }

    async fn compact_next(&mut self) {
        if let Some((_, path)) = self.hot.pop_front() {
            compact(self.base, &path).await;
        }
    }

    /// Closes a segment that has no end, or adopts one that a post ended.
    async fn mend(&mut self, path: &Path) -> Result<Recovery> {
        let (disk, domicile) = (&*self.base.disk, &self.base.domicile);
        let outcome = match recover_on(disk, domicile, path).await {
            Ok(Recovery::Whole) => adopt_on(disk, domicile, path).await,
            outcome => outcome,
        };
        match &outcome {
            Ok(Recovery::Whole) => {}
            Ok(recovery) => tracing::info!(path = %path.display(), ?recovery, "a segment was recovered"),
            Err(error) if error.code() == Code::SegmentBusy => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), code = %error.code(), "a segment was not recovered");
            }
        }
        // A refusal is one for good; a key that cannot be had may be had later, and a writer may end.
        let is_passing = |error: &domicile::Error| error.is_outage() || error.code() == Code::SegmentBusy;
        if outcome.as_ref().is_err_and(is_passing) {
            self.waiting.insert(path.to_owned());
        } else {
            self.waiting.remove(path);
        }
        outcome
    }

    /// Adopts a segment that was just ended; while the keys are known to be out of reach, later.
    async fn adopt_ended(&mut self, path: PathBuf, region: &Region, compacts: bool) {
        if self.base.outages().lasts(region, &TenantId::REGION, self.base.domicile.now()) {
            self.waiting.insert(path);
            return;
        }
        self.mend_behind(path, compacts).await;
        self.mend_what_waits().await;
    }

    async fn mend_what_waits(&mut self) {
        for path in self.waiting.clone() {
            self.mend_behind(path, true).await;
        }
    }

    /// Closes or adopts a file, says what became of it, and compacts it.
    async fn mend_behind(&mut self, path: PathBuf, compacts: bool) {
        let outcome = self.mend(&path).await;
        // Its writer may have ended it, or somebody else adopted it meanwhile, and compacted it.
        let is_nothing_new = match &outcome {
            Ok(recovery) => matches!(recovery, Recovery::Whole),
            Err(_) => !is_there(self.base, &path),
        };
        if is_nothing_new || self.waiting.contains(&path) {
            return;
        }
        let is_mended = matches!(outcome, Ok(Recovery::Closed { .. } | Recovery::Adopted { .. }));
        self.say(&path, outcome);
        if is_mended && compacts {
            self.hot.push_back((Instant::now() + COMPACTED_AFTER, path));
        }
    }

    /// Says what became of a file, in the place of what was said before.
    fn say(&self, path: &Path, outcome: Result<Recovery>) {
        let before = self.done.borrow().clone().unwrap_or_default();
        let others = before.iter().filter(|(other, _)| other != path);
        let mut all: Recovered = others.map(|(path, outcome)| (path.clone(), again(outcome))).collect();
        all.push((path.to_owned(), outcome));
        self.done.send_replace(Some(Arc::new(all)));
    }
}

/// The same once more.
fn again(outcome: &Result<Recovery>) -> Result<Recovery> {
    match outcome {
        Ok(recovery) => Ok(recovery.clone()),
        Err(error) => Err(error.again()),
    }
}

fn is_there(base: &Base, path: &Path) -> bool {
    let name = path.file_name().map(OsString::from);
    path.parent().is_some_and(|directory| names(base, directory).into_iter().any(|other| Some(other) == name))
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "dseg")
}

/// What a segment replaces is retired and removed, where whoever published it died before that.
async fn finish_compactions(base: &Base, found: &[PathBuf]) {
    let segments = found.iter().filter(|path| is_segment(path));
    let by_name: BTreeMap<_, _> = segments.clone().map(|path| (path.file_stem(), path)).collect();
    for path in segments {
        let of = |id: &SegmentId| {
            let name = OsString::from(id.to_string());
            by_name.get(&Some(name.as_os_str())).map(|path| (*path).clone())
        };
        match finish_replacing(&*base.disk, &base.domicile, path, &of).await {
            Ok(false) => {}
            Ok(true) => tracing::info!(path = %path.display(), "a compaction was finished"),
            Err(error) => {
                tracing::warn!(path = %path.display(), code = %error.code(), "a compaction was not finished");
            }
        }
    }
}

/// A segment that cannot be compacted stays as it is: it is whole.
async fn compact(base: &Base, path: &Path) {
    if !base.options.compact {
        return;
    }
    let (disk, options) = (&*base.disk, base.options.writer.clone());
    let compacted =
        compact_on(disk, &base.domicile, &[path.to_owned()], &base.directory, options, true).await;
    match compacted {
        Ok(compaction) => {
            tracing::debug!(from = %path.display(), to = %compaction.path.display(), "a segment was compacted");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), code = %error.code(), "a segment was not compacted");
        }
    }
}

/// A file that had not got its name when its writer died. Nobody knows it, and nothing in it was said to be safe.
fn remove_left_over(base: &Base, path: &Path) {
    if matches!(base.disk.take(path), Ok(Some(_)))
        && let Err(source) = base.disk.remove(path)
    {
        tracing::warn!(path = %path.display(), %source, "what a crash left could not be removed");
    }
}
