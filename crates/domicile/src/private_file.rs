//! Files that hold a secret: their owner alone can read them, and they are no links. Root keys, signing keys and the
//! identities of posts are kept so.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::files;

/// No key file is longer.
pub(crate) const FILE_BYTES_MAX: usize = 4096;

/// Reads `format`, whose key it is and the named fields, one a line, in this order and nothing else.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a str,
    format: &str,
    (owner, name): (&str, &str),
    names: [&str; N],
) -> Option<[&'a str; N]> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let (kind, version) = format.rsplit_once(' ')?;
    if field(kind)? != version || field(owner)? != name {
        return None;
    }
    let mut values = [""; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = field(name)?;
    }
    lines.next().is_none().then_some(values)
}

/// The text of a key file, in memory that is wiped and was never moved.
pub(crate) fn text(text: std::fmt::Arguments<'_>) -> Zeroizing<String> {
    use std::fmt::Write as _;
    let mut file = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    // Writing to a String cannot fail.
    let _ = file.write_fmt(text);
    file
}

/// Writes a new file that its owner alone can read.
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let written = file.write_all(contents).and_then(|()| file.sync_all());
        written.and_then(|()| files::sync_directory(path)).inspect_err(|_| {
            // Nothing was sealed under half a key; what was made is taken back.
            let _ = fs::remove_file(path);
        })
    };
    write().map_err(|source| {
        let error = match source.kind() {
            io::ErrorKind::AlreadyExists => Error::new(Code::ConfigExists, "this key file exists already")
                .advise("keep it: what it sealed opens with nothing else"),
            _ => {
                return Error::output_failed("a key file could not be written", source)
                    .at(path.display().to_string());
            }
        };
        error.at(path.display().to_string()).because(source)
    })
}

/// Reads a key file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>> {
    let file = open(path)?;
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64).read_to_string(&mut text).map_err(|source| unavailable(path, source))?;
    Ok(text)
}

/// Opens a key file that belongs to this user or root, that nobody else can read, and that is no link.
pub(crate) fn open(path: &Path) -> Result<File> {
    let unavailable = |source| unavailable(path, source);
    let exposed = |what: &str, advice: &str| {
        Error::new(Code::KmsExposed, what).at(path.display().to_string()).advise(advice)
    };

    // Not blocking: a pipe in the file's place is refused below, and not waited for.
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| unavailable(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(unavailable)?;
    if !metadata.is_file() {
        return Err(unavailable(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(exposed(
            &format!("others can read this key file (mode {:04o})", metadata.mode() & 0o7777),
            "chmod 600 it; if somebody may have read it, replace the root key",
        ));
    }
    if !files::belongs_to_us(&metadata) {
        return Err(exposed(
            "this key file belongs to another user",
            "chown it to the user that runs Domicile",
        ));
    }
    Ok(file)
}

/// A key file that cannot be read.
pub(crate) fn unavailable(path: &Path, source: io::Error) -> Error {
    let advice = match source.kind() {
        io::ErrorKind::NotFound => "bring the file here only if this host may open records of its region",
        _ => "run as the user that owns the file; symbolic links are refused",
    };
    Error::new(Code::KmsUnavailable, "a key file cannot be read")
        .at(path.display().to_string())
        .advise(advice)
        .because(source)
}
