//! What is written beside a segment, where it lies: the closed one until it takes its name, and what is cut.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use domicile::{Error, Result};

use super::Cut;
use crate::disk::{Disk, FileSink, part_of};
use crate::writer::Sink;

/// Keeps what is cut of a segment beside it.
pub(crate) fn keep_cut(
    disk: &dyn Disk,
    path: &Path,
    cut: Option<Cut>,
    for_each: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<Option<(Cut, PathBuf)>> {
    let Some(cut) = cut else { return Ok(None) };
    let kept = kept_beside(path, cut.at);
    let mut sink = written_beside(disk, &kept)?;
    for_each(&mut |piece| sink.write_all(piece).map_err(failed))?;
    sink.flush().and_then(|()| sink.sync()).map_err(failed)?;
    disk.rename(&part_of(&kept), &kept).map_err(failed)?;
    Ok(Some((cut, kept)))
}

/// Where what is cut of a segment is kept.
pub(crate) fn kept_beside(path: &Path, at: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".cut-{at}"));
    PathBuf::from(name)
}

/// Begins a file beside its place. One that is there was left by a recovery that died: whoever has the segment is alone.
pub(crate) fn written_beside(disk: &dyn Disk, path: &Path) -> Result<FileSink> {
    let part = part_of(path);
    match disk.remove(&part) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    Ok(FileSink::new(disk.create(&part).map_err(failed)?))
}

pub(crate) fn failed(source: io::Error) -> Error {
    Error::output_failed("the recovered segment could not be written", source)
}
