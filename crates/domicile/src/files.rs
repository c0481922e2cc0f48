//! What is asked of files in several places: whose they are, that their names are durable, and that a
//! name stands for a whole file or for none.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
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

/// Makes a directory whose parent is there; one that is there already is fine. Whether it was made. Its name is not durable yet.
///
/// # Errors
/// Those of the file system.
pub fn make_directory(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same, and its name is durable: also that of one that is there, since whoever made it may have been killed before it was.
///
/// # Errors
/// Those of the file system.
pub fn make_durable_directory(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    sync_directory(path)
}

/// Whether a file lies on a file system over a network, whose locks and syncs keep less than those of a disk.
///
/// # Errors
/// Those of asking.
pub fn is_over_a_network(file: &File) -> io::Result<bool> {
    /// NFS, SMB, CIFS, SMB2, AFS, Ceph, Coda, NCP: `statfs(2)`.
    const MAGICS: [u64; 8] =
        [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x5346_414F, 0x00C3_6400, 0x7375_7245, 0x564C];
    // The type of this number differs from architecture to architecture; its low 32 bits are the name.
    let magic = u64::try_from(rustix::fs::fstatfs(file)?.f_type).unwrap_or_default() & 0xFFFF_FFFF;
    Ok(MAGICS.contains(&magic))
}

/// How the name of a file begins and ends that is written and not published yet.
const TEMPORARY: (&str, &str) = (".domicile-", ".part");

/// Whether this is the name of a file that a [`NewFile`] is, or was when its process died, written to.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMPORARY.0.as_bytes()) && name.ends_with(TEMPORARY.1.as_bytes())
}

/// Refuses a path that is a link which neither this user nor root made: it leads where somebody else likes.
///
/// # Errors
/// [`OutputFailed`](Code::OutputFailed).
pub fn refuse_foreign_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(link) if link.is_symlink() && !belongs_to_us(&link) => {
            Err(not_ours(path, "the output is a link that somebody else made"))
        }
        // What is not there is made, and what cannot be looked at cannot be written.
        _ => Ok(()),
    }
}

/// A file that appears under its name only when it is whole: it is written beside its place, synced, and
/// then given its name. Dropped before that, it is gone.
///
/// A pipe or a character device is written directly, if it belongs to this user or to root, or is this
/// process's own standard output.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// The name that it will have, if that is known.
    target: Option<PathBuf>,
    /// Where it is written; none for a device or a pipe, which are written directly.
    temporary: Option<PathBuf>,
    replace: bool,
}

impl NewFile {
    /// Begins a file that will be called `target`, with these permissions.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) when there is one and it shall not be replaced;
    /// [`OutputFailed`](Code::OutputFailed) when it cannot be written there, or is a block device, a socket,
    /// or a link, a pipe or a device of somebody else.
    pub fn create(target: &Path, mode: u32, replace: bool) -> Result<Self> {
        refuse_foreign_link(target)?;
        let failed = |source: io::Error| output_failed(target, source);
        let existing = fs::metadata(target).map(|metadata| metadata.file_type());
        if let Ok(kind) = existing {
            if kind.is_char_device() || kind.is_fifo() {
                let file = open_stream(target)?;
                return Ok(Self { file, target: Some(target.to_owned()), temporary: None, replace });
            }
            if kind.is_block_device() || kind.is_socket() {
                let what =
                    if kind.is_socket() { "the output is a socket" } else { "the output is a block device" };
                return Err(Error::new(Code::OutputFailed, what)
                    .at(target.display().to_string())
                    .rule("what is written to is a file, a pipe or a character device")
                    .advise("name a file"));
            }
            if kind.is_dir() {
                return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
            }
            if !replace {
                return Err(exists(target));
            }
        }
        if target.file_name().is_none() {
            return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let (file, temporary) = temporary(&target.with_file_name(temporary_name()?), mode, target)?;
        Ok(Self { file, target: Some(target.to_owned()), temporary: Some(temporary), replace })
    }

    /// Begins a file in `directory` whose name is not known yet: it is published by
    /// [`publish_as`](Self::publish_as), and replaces nothing.
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed) when it cannot be written there.
    pub fn create_in(directory: &Path, mode: u32) -> Result<Self> {
        let (file, temporary) = temporary(&directory.join(temporary_name()?), mode, directory)?;
        Ok(Self { file, target: None, temporary: Some(temporary), replace: false })
    }

    /// Where it is written until it has its name; none for a pipe or a device.
    #[cfg(feature = "sqlite")]
    pub(crate) fn written_at(&self) -> Option<&Path> {
        self.temporary.as_deref()
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
    /// As [`publish_as`](Self::publish_as); [`ArgumentInvalid`](Code::ArgumentInvalid) if it was begun without a
    /// name.
    pub fn publish(self) -> Result<()> {
        match self.target.clone() {
            Some(target) => self.publish_as(&target),
            None => Err(Error::new(Code::ArgumentInvalid, "a file without a name cannot be published")),
        }
    }

    /// Publishes under a name that was not the one to be: of a file begun without one, or, replacing what has the
    /// name, of what is left of something that is not whole.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) when somebody else took the name meanwhile;
    /// [`OutputFailed`](Code::OutputFailed). The name stands for what it stood for before, with one exception that
    /// the error tells: where the directory cannot be synced, the file has its name and is whole, but a crash may
    /// take the name back.
    pub fn publish_as(mut self, target: &Path) -> Result<()> {
        let Some(temporary) = self.temporary.take() else {
            return self.file.flush().map_err(|source| output_failed(target, source));
        };
        let replace = self.replace || self.target.as_ref().is_some_and(|named| named != target);
        let publish = || {
            self.file.sync_all()?;
            if replace { fs::rename(&temporary, target) } else { rename_to_new(&temporary, target) }
        };
        publish().map_err(|source| {
            // Nobody knows the name; a file that is left costs room and nothing else.
            let _ = fs::remove_file(&temporary);
            match source.kind() {
                io::ErrorKind::AlreadyExists => exists(target),
                _ => output_failed(target, source),
            }
        })?;
        sync_directory(target).map_err(|source| {
            let what = "the output has its name, but its directory could not be made durable";
            Error::output_failed(what, source).at(target.display().to_string())
        })
    }
}

fn temporary_name() -> Result<String> {
    let mut random = [0; 8];
    OsRandom.fill(&mut random)?;
    let (begin, end) = TEMPORARY;
    Ok(format!("{begin}{}{end}", hex::encode(&random)))
}

/// Makes the file that is written until it gets the name `target`.
fn temporary(path: &Path, mode: u32, target: &Path) -> Result<(File, PathBuf)> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    Ok((made.map_err(|source| output_failed(target, source))?, path.to_owned()))
}

/// Opens a pipe or a character device. What was opened is looked at, and not its name: that may have been given
/// to something else.
fn open_stream(target: &Path) -> Result<File> {
    let failed = |source: io::Error| output_failed(target, source);
    let no_terminal = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap_or_default();
    let file = fs::OpenOptions::new().write(true).custom_flags(no_terminal).open(target).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
    let kind = opened.file_type();
    if !kind.is_char_device() && !kind.is_fifo() {
        return Err(not_ours(target, "the output was exchanged while it was opened"));
    }
    if !belongs_to_us(&opened) && !is_standard_output(&opened) {
        return Err(not_ours(target, "the output is a pipe or a device of somebody else"));
    }
    Ok(file)
}

/// Whether this is where the process was told to write by whoever started it.
fn is_standard_output(opened: &Metadata) -> bool {
    let own = io::stdout().as_fd().try_clone_to_owned().and_then(|own| File::from(own).metadata());
    own.is_ok_and(|own| (own.dev(), own.ino()) == (opened.dev(), opened.ino()))
}

fn not_ours(target: &Path, what: &str) -> Error {
    Error::new(Code::OutputFailed, what)
        .at(target.display().to_string())
        .rule("links, pipes and devices that are written to belong to this user or to root")
        .advise("name a file in a directory of your own")
}

/// Gives a file a name that nothing has. Neither name is durable yet.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) where something has it; those of the file system.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
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
    fn a_file_without_a_name_gets_one_that_nothing_has() {
        let directory = tempfile::tempdir().unwrap();
        let (taken, free) = (directory.path().join("taken"), directory.path().join("free"));
        fs::write(&taken, "theirs").unwrap();
        let file = NewFile::create_in(directory.path(), 0o644).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.filter(|name| is_temporary(name)).count(), 1);
        assert_eq!(file.publish_as(&taken).unwrap_err().code(), Code::OutputExists);
        assert_eq!(fs::read(&taken).unwrap(), b"theirs");
        assert_eq!(
            NewFile::create_in(directory.path(), 0o644).unwrap().publish().unwrap_err().code(),
            Code::ArgumentInvalid
        );
        NewFile::create_in(directory.path(), 0o644).unwrap().publish_as(&free).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_may_have_as_long_a_name_as_there_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x".repeat(255));
        NewFile::create(&target, 0o600, false).unwrap().publish().unwrap();
        assert!(target.exists());
    }

    #[test]
    fn a_socket_is_no_output() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&target).unwrap();
        let refused = NewFile::create(&target, 0o600, true).unwrap_err();
        assert_eq!((refused.code(), refused.what()), (Code::OutputFailed, "the output is a socket"));
    }

    #[test]
    fn links_and_pipes_of_others_are_no_output() {
        if !rustix::process::geteuid().is_root() {
            // Nobody else can be made to own anything.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (pipe, link) = (directory.path().join("pipe"), directory.path().join("link"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
        // Opened for both, it does not wait for a reader.
        let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        NewFile::create(&pipe, 0o600, false).unwrap();
        std::os::unix::fs::chown(&pipe, Some(12_345), None).unwrap();
        assert_eq!(NewFile::create(&pipe, 0o600, true).unwrap_err().code(), Code::OutputFailed);

        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        NewFile::create(&link, 0o600, false).unwrap();
        std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
        assert_eq!(NewFile::create(&link, 0o600, true).unwrap_err().code(), Code::OutputFailed);
    }

    #[test]
    fn a_full_device_is_an_error_and_no_file() {
        let mut full = NewFile::create(Path::new("/dev/full"), 0o600, false).unwrap();
        assert!(full.write_all(b"x").is_err());
    }
}
