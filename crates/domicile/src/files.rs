//! What is asked of files in several places: whose they are, that their names are durable, and that a
//! name stands for a whole file or for none.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::hex;
use crate::random::{OsRandom, Randomness};

/// Whether a file belongs to the user that this process runs as, or to root.
#[must_use]
pub fn belongs_to_us(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Makes the name of `path` durable, by a sync of the directory that holds it.
///
/// # Errors
/// Those of opening and syncing the directory.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// A file that appears under its name only when it is whole: it is written beside its place, synced, and
/// then given its name. Dropped before that, it is gone.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    target: PathBuf,
    /// Where it is written; none for a device or a pipe, which are written directly.
    temporary: Option<PathBuf>,
    replace: bool,
}

impl NewFile {
    /// Begins a file that will be called `target`, with these permissions.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) when there is one and it shall not be replaced;
    /// [`OutputFailed`](Code::OutputFailed) when it cannot be written there.
    pub fn create(target: &Path, mode: u32, replace: bool) -> Result<Self> {
        let failed = |source: io::Error| output_failed(target, source);
        let existing = fs::metadata(target).map(|metadata| metadata.file_type());
        if let Ok(kind) = existing {
            if kind.is_char_device() || kind.is_fifo() || kind.is_block_device() || kind.is_socket() {
                let file = fs::OpenOptions::new().write(true).open(target).map_err(failed)?;
                return Ok(Self { file, target: target.to_owned(), temporary: None, replace });
            }
            if kind.is_dir() {
                return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
            }
            if !replace {
                return Err(exists(target));
            }
        }
        let mut random = [0; 8];
        OsRandom.fill(&mut random)?;
        let mut name = OsString::from(".");
        name.push(target.file_name().ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?);
        name.push(format!(".{}.part", hex::encode(&random)));
        let temporary = target.with_file_name(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(failed)?;
        Ok(Self { file, target: target.to_owned(), temporary: Some(temporary), replace })
    }

    /// The name that the file will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes durable what was written so far; the name is not given yet.
    ///
    /// # Errors
    /// Those of syncing.
    pub fn sync(&self) -> io::Result<()> {
        // A device or a pipe keeps nothing that could be made durable.
        if self.temporary.is_some() { self.file.sync_data() } else { Ok(()) }
    }

    /// Makes the contents durable, then the name.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) when somebody else took the name meanwhile;
    /// [`OutputFailed`](Code::OutputFailed). The name stands for what it stood for before.
    pub fn publish(self) -> Result<()> {
        let target = self.target.clone();
        self.publish_as(&target)
    }

    /// Publishes under another name, which is replaced: what is left of something that is not whole.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_as(mut self, target: &Path) -> Result<()> {
        let Some(temporary) = self.temporary.take() else {
            return self.file.flush().map_err(|source| output_failed(target, source));
        };
        let replace = self.replace || target != self.target;
        let publish = || {
            self.file.sync_all()?;
            if replace {
                fs::rename(&temporary, target)?;
            } else {
                rename_to_new(&temporary, target)?;
            }
            sync_directory(target)
        };
        publish().map_err(|source| {
            // It is gone either way: renamed, or not wanted.
            let _ = fs::remove_file(&temporary);
            match source.kind() {
                io::ErrorKind::AlreadyExists => exists(target),
                _ => output_failed(target, source),
            }
        })
    }
}

/// Gives a file a name that nothing has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can: a second link that must be new is the same, in two steps.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => result.map_err(io::Error::from),
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody knows the name; a file that is left costs room and nothing else.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn exists(target: &Path) -> Error {
    Error::new(Code::OutputExists, "the output exists already")
        .at(target.display().to_string())
        .advise("name another, or replace it with --force")
}

fn output_failed(target: &Path, source: io::Error) -> Error {
    Error::output_failed("the output could not be written", source).at(target.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let mut dropped = NewFile::create(&target, 0o600, false).unwrap();
        dropped.write_all(b"half").unwrap();
        assert!(!target.exists());
        drop(dropped);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        let mut whole = NewFile::create(&target, 0o600, false).unwrap();
        whole.write_all(b"whole").unwrap();
        whole.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_replaced_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        // Somebody takes the name while the file is written.
        let late = NewFile::create(&target, 0o600, false).unwrap();
        fs::write(&target, "theirs").unwrap();
        assert_eq!(late.publish().unwrap_err().code(), Code::OutputExists);
        assert_eq!(NewFile::create(&target, 0o600, false).unwrap_err().code(), Code::OutputExists);
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        NewFile::create(&target, 0o600, true).unwrap().publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_device_is_an_error_and_no_file() {
        let mut full = NewFile::create(Path::new("/dev/full"), 0o600, false).unwrap();
        assert!(full.write_all(b"x").is_err());
    }
}
