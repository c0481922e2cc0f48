//! Compaction where segments lie: the new one is written and verified beside its place, gets its name, and only then are the
//! old ones retired. At every instant the records are there once: a reader of the directory leaves out what a whole segment
//! replaces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use domicile::{Code, Domicile, Error, Purpose, Result};

use super::Compacting;
use crate::disk::{Disk, FileSink, LocalDisk, made_place, make_directory_on, part_of, taken};
use crate::format::{SegmentHeader, SegmentId};
use crate::reader::{Source, replaced_by, retire_replaced};
use crate::verify::verify;
use crate::writer::{SegmentSummary, WriterOptions};

/// What compaction wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// The new segment.
    pub summary: SegmentSummary,
    /// Where it lies.
    pub path: PathBuf,
    /// Lanes that were erased, and were left behind.
    pub erased: u64,
}

/// Writes segments of one region anew as one, below `directory`, where it is verified before it gets its name. The old ones are
/// as they were; with `retire`, they are retired (every copy of them, by their own leaves) and removed once the new one is there.
///
/// # Errors
/// [`SegmentBusy`](Code::SegmentBusy) for one that is written; those of [`Compacting::examine`] and
/// [`Compacting::write`]; [`SegmentCorrupt`](Code::SegmentCorrupt) when what was written does not verify, which nobody sees then.
pub async fn compact(
    domicile: &Domicile,
    files: &[PathBuf],
    directory: impl AsRef<Path>,
    retire: bool,
) -> Result<Compaction> {
    compact_on(&LocalDisk, domicile, files, directory.as_ref(), WriterOptions::default(), retire).await
}

pub(crate) async fn compact_on(
    disk: &dyn Disk,
    domicile: &Domicile,
    files: &[PathBuf],
    directory: &Path,
    options: WriterOptions,
    retire: bool,
) -> Result<Compaction> {
    let mut sources = Vec::with_capacity(files.len());
    for path in files {
        sources.push(taken(disk, path).map_err(|error| error.at(path.display().to_string()))?);
    }
    let compacting = Compacting::examine(domicile, sources.iter().cloned()).await?;
    let mut path = PathBuf::new();
    let open = |header: &SegmentHeader| {
        make_directory_on(disk, directory)?;
        path = made_place(disk, directory, header)?;
        disk.create(&part_of(&path)).map(FileSink::new).map_err(failed)
    };
    let written = compacting.write(open, options).await;
    let part = part_of(&path);
    let summary = match written {
        Ok((sink, summary)) => {
            // Whoever takes it to verify it finds nobody writing.
            drop(sink);
            summary
        }
        Err(error) => {
            give_up(disk, &part);
            return Err(error);
        }
    };
    if let Err(error) = check(disk, domicile, &part, &summary).await {
        give_up(disk, &part);
        return Err(error);
    }
    disk.rename(&part, &path).map_err(failed)?;
    let erased = compacting.erased();
    drop(compacting);
    if retire {
        for (path, source) in files.iter().zip(sources) {
            retire_and_remove(disk, domicile, path, source).await?;
        }
    }
    Ok(Compaction { summary, path, erased })
}

/// What was written must open, all of it, before anybody relies on it.
async fn check(disk: &dyn Disk, domicile: &Domicile, part: &Path, summary: &SegmentSummary) -> Result<()> {
    let source = taken(disk, part)?;
    let found = verify(domicile, source, Some(Purpose::Maintenance.into())).await?;
    let same = (found.records, found.bytes) == (summary.records, summary.bytes);
    if found.is_complete() && same {
        return Ok(());
    }
    let what = found.findings.first().map_or(found.detail, |finding| finding.what.clone());
    Err(Error::new(Code::SegmentCorrupt, "what was compacted does not verify, and was given up")
        .at(what)
        .advise("look at the disk; the segments that were to be replaced are as they were"))
}

/// Ends every copy of a segment whose records another one has, and removes this one.
async fn retire_and_remove(
    disk: &dyn Disk,
    domicile: &Domicile,
    path: &Path,
    source: Arc<dyn Source + Send + Sync>,
) -> Result<()> {
    match retire_replaced(domicile, source).await {
        Ok(()) => {}
        // An earlier attempt came as far as this.
        Err(error) if error.code() == Code::KeyDestroyed => {}
        Err(error) => return Err(error),
    }
    disk.remove(path).map_err(failed)
}

/// Does what is left of a compaction that published its segment and died: what that one replaces is retired and removed. Whether
/// anything was.
pub(crate) async fn finish_replacing(
    disk: &dyn Disk,
    domicile: &Domicile,
    path: &Path,
    others: &dyn Fn(&SegmentId) -> Option<PathBuf>,
) -> Result<bool> {
    let Some(source) = disk.take(path).map_err(failed)? else { return Ok(false) };
    let replaced = replaced_by(domicile, source, Purpose::Maintenance).await?;
    let mut any = false;
    for id in replaced {
        let Some(old) = others(&id) else { continue };
        match disk.take(&old) {
            Ok(Some(source)) => {
                retire_and_remove(disk, domicile, &old, source).await?;
                any = true;
            }
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(any)
}

/// Takes away what nobody knows; what is left of it is taken away by the next recorder.
fn give_up(disk: &dyn Disk, part: &Path) {
    if let Err(source) = disk.remove(part) {
        tracing::debug!(%source, path = %part.display(), "what was given up could not be removed");
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::output_failed("the compacted segment could not be written", source)
}
