//! Recovery where a segment lies: what is cut is kept beside it, and the closed segment takes its name.

use std::io;
use std::path::{Path, PathBuf};

use domicile::audit::EventKind;
use domicile::post::PostId;
use domicile::{Domicile, Result, Scope};

use super::Recovering;
use crate::adopt::{AdoptedHere, adopt_taken, opening_of, waits_for_its_home};
use crate::close::{Cut, failed, keep_cut, kept_beside, written_beside};
use crate::disk::{Disk, LocalDisk, part_of, taken};
use crate::format::SegmentHeader;
use crate::reader::{SegmentFile, Source, Step, Walker, unreadable};
use crate::writer::SegmentSummary;

/// What recovery did with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a file is whole, is closed, is adopted, or holds nothing")]
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
    /// A post sealed it, and its home adopted it: it lies under its name, and opens. Where the post had not ended it, it was closed
    /// as well.
    Adopted {
        /// What it holds. Of one without an end, nobody counted its records.
        summary: Box<SegmentSummary>,
        /// The post.
        post: PostId,
        /// Whether the post ended it, and signed how far it goes.
        had_end: bool,
        /// What was cut, and where it is kept.
        cut: Option<(Cut, PathBuf)>,
        /// The octets that the caller kept beside the newest commit that has any, where a crash cut it short.
        caller: Vec<u8>,
        /// Scopes whose keys had ended before it was adopted: their lanes read as erased.
        ended: Vec<Scope>,
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
/// What a post left without an end is [adopted](crate::Adopting) by its home, and closed with that. Where this host has no keys of
/// that home it stays as it is.
///
/// # Errors
/// [`SegmentBusy`](domicile::Code::SegmentBusy) while its writer has it; those of [`Recovering::examine`];
/// [`PostUnadopted`](domicile::Code::PostUnadopted) for what a post left, where its home's keys are not configured; where they are,
/// those of [`Adopting::examine`](crate::Adopting::examine) and [`Adopting::write`](crate::Adopting::write);
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
    let file = SegmentFile::open(&source)?;
    if waits_for_its_home(&file) && !file.has_whole_footer()? {
        if opening_of(&file).is_none() && has_one_block(&source)? {
            return keep_whole(disk, path);
        }
        return adopt_taken(disk, domicile, path, source).await.map(Recovery::from);
    }
    let recovering = match Recovering::examine(domicile, &source).await {
        Ok(Some(recovering)) => recovering,
        Ok(None) => return Ok(Recovery::Whole),
        // Its opening alone was written, and is not what it was to be.
        Err(error) if error.is_corruption() && has_one_block(&source)? => return keep_whole(disk, path),
        Err(error) => return Err(error),
    };
    let cut = keep_cut(disk, path, recovering.cut(), |keep| recovering.for_each_cut(keep))?;
    let (caller, unverified) = (recovering.caller().to_vec(), recovering.extent.unverified);
    let (_, summary) = recovering.write(written_beside(disk, path)?)?;
    disk.rename(&part_of(path), path).map_err(failed)?;
    // It is closed and vouches for itself: a chain that is out of reach does not undo it.
    domicile.audit().record_when_possible(&[summary.event(EventKind::Recover)]).await?;
    Ok(Recovery::Closed { summary: Box::new(summary), cut, caller, unverified })
}

/// Adopts a segment where it lies, if a post sealed it and it is not adopted.
pub(crate) async fn adopt_on(disk: &dyn Disk, domicile: &Domicile, path: &Path) -> Result<Recovery> {
    let source = taken(disk, path)?;
    if !waits_for_its_home(&SegmentFile::open(&source)?) {
        return Ok(Recovery::Whole);
    }
    adopt_taken(disk, domicile, path, source).await.map(Recovery::from)
}

impl From<AdoptedHere> for Recovery {
    fn from(adopted: AdoptedHere) -> Self {
        let AdoptedHere { summary, post, had_end, cut, caller, ended } = adopted;
        Recovery::Adopted { summary, post, had_end, cut, caller, ended }
    }
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
