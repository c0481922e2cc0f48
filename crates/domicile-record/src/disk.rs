//! Where recorders write and recovery works: what they ask of a file system, and no more. Tests put a disk in its place that loses, tears and
//! reorders what was not synced.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domicile::files::{is_over_a_network, make_durable_directory, refuse_foreign_link, sync_directory};
use domicile::{Code, Error, Result};

use crate::format::SegmentHeader;
use crate::reader::Source;
use crate::writer::Sink;

/// A file system, as far as a recorder needs one.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a directory whose parent is there; one that is there already is fine. Its name is durable when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Begins a file that is not there yet, and has nobody else write to it. Its name is durable when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a file for reading and keeps everybody else from taking it as long as it is open; none if somebody writes to
    /// it, or has taken it.
    ///
    /// # Errors
    /// Those of the file system.
    fn take(&self, path: &Path) -> io::Result<Option<Arc<dyn Source + Send + Sync>>>;

    /// Gives a file another name in the same directory, in place of what has that name. It is durable when this returns.
    ///
    /// # Errors
    /// Those of the file system; the name stands for what it stood for before, or a crash may take it back.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away. It is durable when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file that grows at its end alone.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes at the end, all of it.
    ///
    /// # Errors
    /// Those of the file system; how much was written is unknown then.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything that was appended before survives a loss of power, its length among it. Others may append
    /// meanwhile.
    ///
    /// # Errors
    /// What was appended since the last success may be lost, whatever a later call says.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of this host.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LocalDisk;

/// Others may read what is sealed.
const SEGMENT_MODE: u32 = 0o644;

impl Disk for LocalDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        refuse_foreign_link(path).map_err(io::Error::other)?;
        make_durable_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        // Under another name until it is locked: whoever looks for what a crash left must not take it before.
        let part = part_of(path);
        let file = OpenOptions::new().append(true).create_new(true).mode(SEGMENT_MODE).open(&part)?;
        if is_over_a_network(&file)? {
            let what = "a file system over a network does not keep what a recorder promises";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        file.try_lock().map_err(io::Error::from)?;
        fs::rename(&part, path)?;
        sync_directory(path)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn take(&self, path: &Path) -> io::Result<Option<Arc<dyn Source + Send + Sync>>> {
        loop {
            let file = File::open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Between the two, another may have put a new file in its place.
            let (locked, named) = (file.metadata()?, fs::metadata(path)?);
            if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
                return Ok(Some(Arc::new(file)));
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_directory(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_directory(path)
    }
}

/// How the name of a file ends that has not got its own yet.
const PART: &str = ".part";

/// Where a file is written until it is whole, and begun until it is locked.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART);
    PathBuf::from(name)
}

/// Whether this is the name of a file that was written beside its place when its process died, or that is so now: then it is
/// locked. What other writers keep under names of their own is not meant.
pub(crate) fn is_left_over(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let of_a_segment = memchr::memmem::find(name, b".dseg").is_some_and(|at| at > 0);
    of_a_segment && !name.starts_with(b".") && name.ends_with(PART.as_bytes())
}

/// Takes a segment.
///
/// # Errors
/// [`SegmentBusy`](Code::SegmentBusy) while somebody else has it; [`InputFailed`](Code::InputFailed).
pub(crate) fn taken(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn Source + Send + Sync>> {
    let taken = disk
        .take(path)
        .map_err(|source| Error::new(Code::InputFailed, "the segment cannot be opened").because(source))?;
    taken.ok_or_else(|| {
        Error::new(Code::SegmentBusy, "somebody writes this segment, or recovers it")
            .advise("wait until its writer has left it")
    })
}

/// Where a segment stands below a directory of segments that is there: its directories are made if they are not.
///
/// # Errors
/// [`OutputFailed`](Code::OutputFailed).
pub(crate) fn made_place(disk: &dyn Disk, root: &Path, header: &SegmentHeader) -> Result<PathBuf> {
    let path = root.join(header.path());
    let above: Vec<_> = path.ancestors().skip(1).take_while(|above| *above != root).collect();
    above.into_iter().rev().try_for_each(|directory| make_directory_on(disk, directory))?;
    Ok(path)
}

/// Makes a directory whose parent is there, if it is not.
///
/// # Errors
/// [`OutputFailed`](Code::OutputFailed).
pub(crate) fn make_directory_on(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.create_directory(path).map_err(|source| {
        Error::output_failed("a directory of segments could not be made", source)
            .at(path.display().to_string())
    })
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// What blocks are gathered to before they are written: many lanes seal small ones.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that a segment is written to. It has others sync what was written while it is written on.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
}

impl FileSink {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// The file, to be synced while it is written on.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES / 2 {
            self.file.append(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // A dropped file is a crash: what is kept back here is written by nobody else.
        if !self.buffer.is_empty() {
            self.file.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_not_left_over() {
        for name in ["a1.dseg.part", "a1.dseg.cut-7.part"] {
            assert!(is_left_over(OsStr::new(name)), "{name}");
        }
        for name in
            [".domicile-12ab.part", "a1.dseg", "a1.dseg.cut-7", "notes.part", ".a1.dseg.part", ".dseg.part"]
        {
            assert!(!is_left_over(OsStr::new(name)), "{name}");
        }
    }
}
