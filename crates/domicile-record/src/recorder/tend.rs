//! What is done behind a recorder that writes: what earlier ones left is closed, and what is rolled over is compacted. One thread,
//! one file after another.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domicile::{Code, Region, Result};
use tokio::sync::{mpsc, oneshot, watch};

use super::Base;
use crate::compact::{compact_on, finish_replacing};
use crate::disk::is_left_over;
use crate::format::SegmentId;
use crate::recover::{Recovery, recover_on};
use crate::writer::SegmentSummary;

/// What became of each file that was found without an end.
pub(super) type Recovered = Vec<(PathBuf, Result<Recovery>)>;

/// What is asked of the thread.
pub(super) enum Task {
    /// A segment was rolled over.
    Compact(PathBuf),
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

/// Closes what was found, and then does what is asked until nobody asks any longer.
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
        let recovered = recover_all(base, found).await;
        finish_compactions(base, found).await;
        let closed = recovered.iter().filter(|(_, outcome)| matches!(outcome, Ok(Recovery::Closed { .. })));
        let closed: Vec<_> = closed.map(|(path, _)| path.clone()).collect();
        done.send_replace(Some(Arc::new(recovered)));
        for path in closed {
            compact(base, &path).await;
        }
        while let Some(task) = tasks.recv().await {
            match task {
                Task::Compact(path) => compact(base, &path).await,
                Task::Flush(answer) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(());
                }
            }
        }
    });
}

async fn recover_all(base: &Base, found: &[PathBuf]) -> Recovered {
    let mut recovered = Recovered::new();
    for path in found {
        if path.file_name().is_some_and(is_left_over) {
            remove_left_over(base, path);
        } else if is_segment(path) {
            match recover_on(&*base.disk, &base.domicile, path).await {
                Ok(Recovery::Whole) => {}
                Err(error) if error.code() == Code::SegmentBusy => {}
                Ok(recovery) => {
                    tracing::info!(path = %path.display(), ?recovery, "a segment was recovered");
                    recovered.push((path.clone(), Ok(recovery)));
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), code = %error.code(), "a segment was not recovered");
                    recovered.push((path.clone(), Err(error)));
                }
            }
        }
    }
    recovered
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
