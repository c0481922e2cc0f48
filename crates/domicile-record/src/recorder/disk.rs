//! Where a recorder writes: what it asks of a file system, and no more. Tests put a disk in its place that loses, tears and
//! reorders what was not synced.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use domicile::files::{make_directory, refuse_foreign_link, sync_directory};

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
        make_directory(path)?;
        // Also of one that is there: whoever made it may have been killed before this.
        sync_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().append(true).create_new(true).mode(SEGMENT_MODE).open(path)?;
        // Whoever looks for what a crash left leaves it alone.
        file.try_lock().map_err(io::Error::from)?;
        sync_directory(path)?;
        Ok(Arc::new(LocalFile(file)))
    }
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

/// The file of a segment that is written. It has others sync what was written while it is written on.
#[derive(Debug)]
pub(super) struct SegmentFile {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
}

impl SegmentFile {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// The file, to be synced while it is written on.
    pub(super) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }
}

impl Write for SegmentFile {
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

impl Sink for SegmentFile {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
