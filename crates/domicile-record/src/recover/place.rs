//! Recovery where a segment lies: what is cut is kept beside it, and the closed segment takes its name.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use domicile::audit::EventKind;
use domicile::{Domicile, Error, Result};

use super::{Cut, Recovering};
use crate::disk::{Disk, FileSink, LocalDisk, part_of, taken};
use crate::format::SegmentHeader;
use crate::reader::{SegmentFile, Source, Step, Walker, unreadable};
use crate::writer::{SegmentSummary, Sink};

/// What recovery did with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a file is whole, is closed, or holds nothing")]
pub enum Recovery {
    /// The segment is whole: nothing was done.
    Whole,
    /// It was closed, and lies under its name.
    Closed {
        /// What it holds. Records were counted by nobody, unless the footer alone was missing.
        summary: Box<SegmentSummary>,
        /// What was cut, and where it is kept.
        cut: Option<(Cut, PathBuf)>,
        /// The octets that the caller kept beside the newest commit that has any.
        caller: Vec<u8>,
        /// Blocks that were kept and that nobody could verify: their keys were not to be had.
        unverified: u64,
    },
    /// The crash came before anything was durable: there is no segment, and what there is, is kept under this name.
    Empty {
        /// Where.
        kept: PathBuf,
    },
}

/// Closes a segment that a crash cut short, where it lies. What is cut is kept beside it, under its name with `.cut-` and
/// where it began. Whatever happens meanwhile, one file or the other has the name, and is as good as it was; doing it again
/// changes nothing.
///
/// # Errors
/// [`SegmentBusy`](domicile::Code::SegmentBusy) while its writer has it; those of [`Recovering::examine`];
/// [`OutputFailed`](domicile::Code::OutputFailed).
pub async fn recover(domicile: &Domicile, path: impl AsRef<Path>) -> Result<Recovery> {
    let path = path.as_ref();
    recover_on(&LocalDisk, domicile, path).await.map_err(|error| error.at(path.display().to_string()))
}

pub(crate) async fn recover_on(disk: &dyn Disk, domicile: &Domicile, path: &Path) -> Result<Recovery> {
    let source = taken(disk, path)?;
    if holds_nothing(&source).map_err(|source| unreadable(0, source))? {
        return keep_whole(disk, path);
    }
    let recovering = match Recovering::examine(domicile, &source).await {
        Ok(Some(recovering)) => recovering,
        Ok(None) => return Ok(Recovery::Whole),
        // Its opening alone was written, and is not what it was to be.
        Err(error) if error.is_corruption() && has_one_block(&source)? => return keep_whole(disk, path),
        Err(error) => return Err(error),
    };
    let cut = recovering.cut().map(|cut| (cut, kept_beside(path, cut.at)));
    if let Some((_, kept)) = &cut {
        let mut sink = written_beside(disk, kept)?;
        recovering.for_each_cut(|piece| sink.write_all(piece).map_err(failed))?;
        sink.flush().and_then(|()| sink.sync()).map_err(failed)?;
        disk.rename(&part_of(kept), kept).map_err(failed)?;
    }
    let (caller, unverified) = (recovering.caller().to_vec(), recovering.extent.unverified);
    let (_, summary) = recovering.write(written_beside(disk, path)?)?;
    disk.rename(&part_of(path), path).map_err(failed)?;
    // It is closed and vouches for itself: a chain that is out of reach does not undo it.
    domicile.audit().record_when_possible(&[summary.event(EventKind::Recover)]).await?;
    Ok(Recovery::Closed { summary: Box::new(summary), cut, caller, unverified })
}

/// There is no segment: what there is, is kept.
fn keep_whole(disk: &dyn Disk, path: &Path) -> Result<Recovery> {
    let kept = kept_beside(path, 0);
    disk.rename(path, &kept).map_err(failed)?;
    Ok(Recovery::Empty { kept })
}

/// Whether a file holds nothing that its writer made durable. A recorder syncs the header and lane 0's opening before it writes
/// anything else, so that a file of which these are not there is short, or empty, or all zeros.
fn holds_nothing(source: &dyn Source) -> io::Result<bool> {
    /// More than header and opening, with room for zeros that a file system may put behind.
    const LOOKED_AT: u64 = 4 << 10;
    let length = source.length()?;
    if length > LOOKED_AT {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    source.read_at(0, &mut bytes)?;
    let Some(Ok(header)) = bytes.first_chunk().map(SegmentHeader::decode) else {
        let magic = SegmentHeader::MAGIC;
        let begins = magic.iter().zip(&bytes).all(|(octet, found)| octet == found);
        // A sector may be lost, and those behind it there.
        let first_sector = bytes.get(..512).unwrap_or(&bytes);
        return Ok(begins || first_sector.iter().all(|octet| *octet == 0));
    };
    let first = Walker::new(source, &header, length).next()?;
    Ok(!matches!(first, Some(Step::Block { .. })))
}

/// Whether a file has no block but lane 0's opening.
fn has_one_block(source: &dyn Source) -> Result<bool> {
    let file = SegmentFile::open(source)?;
    Ok(file.walked().is_some_and(|walked| walked.blocks <= 1))
}

/// Where what is cut of a segment is kept.
fn kept_beside(path: &Path, at: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".cut-{at}"));
    PathBuf::from(name)
}

/// Begins a file beside its place. One that is there was left by a recovery that died: whoever has the segment is alone.
fn written_beside(disk: &dyn Disk, path: &Path) -> Result<FileSink> {
    let part = part_of(path);
    match disk.remove(&part) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    Ok(FileSink::new(disk.create(&part).map_err(failed)?))
}

fn failed(source: io::Error) -> Error {
    Error::output_failed("the recovered segment could not be written", source)
}
