//! Adoption where a segment lies: what is adopted takes the name of the post's copy, in one step, so that no reader of the directory
//! finds a record twice or misses one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domicile::post::PostId;
use domicile::{Domicile, Result, Scope};

use super::Adopting;
use crate::close::{Cut, failed, keep_cut, written_beside};
use crate::disk::{Disk, FileSink, part_of};
use crate::format::{BlockKind, LaneNo, LaneOpen, Origin, SegmentHeader};
use crate::reader::{SegmentFile, Source, unadopted};
use crate::writer::{SegmentSummary, Sink};

/// The opening of lane 0, which stands first in every edition, if it can be read.
pub(crate) fn opening_of<S: Source>(file: &SegmentFile<S>) -> Option<LaneOpen> {
    let mut body = Vec::new();
    let (header, _) = file.read_block_at(SegmentHeader::BYTES as u64, &mut body).ok()?;
    body.truncate(header.payload_bytes());
    let opens = header.kind == BlockKind::LaneOpen && header.lane == LaneNo::REGION;
    LaneOpen::decode(&body, header.lane).ok().filter(|_| opens)
}

/// Whether a post sealed this, and its home has not adopted it.
pub(crate) fn waits_for_its_home<S: Source>(file: &SegmentFile<S>) -> bool {
    file.header.origin == Origin::Post && opening_of(file).is_none_or(|open| open.wrapped.is_none())
}

/// Whether a post sealed this segment, and its home has not adopted it: nobody opens it yet. No key is asked for, and nothing
/// vouches for it.
///
/// # Errors
/// [`SegmentForeign`](domicile::Code::SegmentForeign) and the like for what is no segment;
/// [`InputFailed`](domicile::Code::InputFailed).
pub fn is_unadopted(source: impl Source) -> Result<bool> {
    SegmentFile::growing(source).map(|file| waits_for_its_home(&file))
}

/// What became of a post's segment that was adopted where it lay.
#[derive(Debug)]
pub(crate) struct AdoptedHere {
    pub(crate) summary: Box<SegmentSummary>,
    pub(crate) post: PostId,
    pub(crate) had_end: bool,
    pub(crate) cut: Option<(Cut, PathBuf)>,
    pub(crate) caller: Vec<u8>,
    pub(crate) ended: Vec<Scope>,
}

/// Adopts a segment that is taken, where it lies. It is said in the ledger first, then written beside its place, synced, and given the name of
/// the post's copy, which is gone with that: whatever happens meanwhile, one or the other has the name, and doing it again
/// gives the same segment under the same leaf.
pub(crate) async fn adopt_taken(
    disk: &dyn Disk,
    domicile: &Domicile,
    path: &Path,
    source: Arc<dyn Source + Send + Sync>,
) -> Result<AdoptedHere> {
    let file = SegmentFile::open(&source)?;
    let region = &file.header.place.region;
    if let (Some(open), true) = (opening_of(&file), domicile.region(region)?.kms.is_none()) {
        return Err(unadopted(&open));
    }
    let posts = domicile.posts(region).await?;
    let adopting = Adopting::examine(domicile, &posts, &source).await?;
    let cut = keep_cut(disk, path, adopting.cut(), |keep| adopting.for_each_cut(keep))?;
    let (post, caller, had_end) = (adopting.post().clone(), adopting.caller().to_vec(), adopting.had_end());
    let written = adopting.write(Beside::new(disk, path)).await;
    let (summary, ended) = match written {
        Ok((sink, summary, ended)) => {
            // Whoever takes it next finds nobody writing.
            drop(sink);
            (Box::new(summary), ended)
        }
        Err(error) => {
            // What is left of it is taken away by whoever tries again.
            let _ = disk.remove(&part_of(path));
            return Err(error);
        }
    };
    disk.rename(&part_of(path), path).map_err(failed)?;
    Ok(AdoptedHere { summary, post, had_end, cut, caller, ended })
}

/// A file that is begun beside its place with the first octet that is written: none is where keys cannot be had.
#[derive(Debug)]
struct Beside<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    begun: Option<FileSink>,
}

impl<'a> Beside<'a> {
    fn new(disk: &'a dyn Disk, path: &'a Path) -> Self {
        Self { disk, path, begun: None }
    }

    fn begun(&mut self) -> std::io::Result<&mut FileSink> {
        if self.begun.is_none() {
            self.begun = Some(written_beside(self.disk, self.path).map_err(std::io::Error::other)?);
        }
        self.begun.as_mut().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

impl Write for Beside<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.begun()?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.begun()?.flush()
    }
}

impl Sink for Beside<'_> {
    fn sync(&mut self) -> std::io::Result<()> {
        self.begun()?.sync()
    }
}
