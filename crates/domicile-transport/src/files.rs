//! Certificates, keys and revocation lists in files, as PEM. They are read whole, within limits, and followed through links:
//! that is how secrets are put into containers.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use domicile::{Code, Error, Result, files};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// No file of certificates is longer; a revocation list of 100,000 entries has 4 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// No key file is longer.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// No chain that is sent is longer.
const CHAIN_LENGTH_MAX: usize = 8;

/// A file's octets.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(&open(path)?, path, FILE_BYTES_MAX, &mut bytes)?;
    Ok(bytes)
}

/// The octets of a private key's file, in memory that is wiped.
///
/// The file belongs to this user or to root and nobody else can read it; where it is root's, its group may: services that do
/// not run as root are given their keys so.
pub(crate) fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let exposed = |what: &str, advice: &str| {
        Error::new(Code::CertificateExposed, what).at(path.display().to_string()).advise(advice)
    };
    if !files::belongs_to_us(&metadata) {
        return Err(exposed(
            "this private key belongs to another user",
            "chown it to the user that runs Domicile",
        ));
    }
    let others = if metadata.uid() == 0 && !rustix::process::geteuid().is_root() { 0o037 } else { 0o077 };
    if metadata.mode() & others != 0 {
        return Err(exposed(
            &format!("others can read this private key (mode {:04o})", metadata.mode() & 0o7777),
            "chmod 600 it; if somebody may have read it, revoke its certificate and issue another",
        ));
    }
    // As much as it may have, at once: a buffer that grows leaves copies behind.
    let size = metadata.len().min(KEY_BYTES_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size + 1).unwrap_or_default()));
    read_into(&file, path, KEY_BYTES_MAX, &mut bytes)?;
    Ok(bytes)
}

/// Opens a file; a pipe in its place is not waited for.
fn open(path: &Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(file.map_err(|errno| unreadable(path, errno.into()))?);
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(unreadable(path, io::ErrorKind::InvalidInput.into())),
        Err(source) => Err(unreadable(path, source)),
    }
}

fn read_into(file: &File, path: &Path, bytes_max: u64, bytes: &mut Vec<u8>) -> Result<()> {
    file.take(bytes_max + 1).read_to_end(bytes).map_err(|source| unreadable(path, source))?;
    if bytes.len() as u64 > bytes_max {
        return Err(invalid(path, "this file is too long").rule(format!("at most {bytes_max} octets")));
    }
    Ok(())
}

/// The certificates of a file, in its order; at least one.
pub(crate) fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| invalid(path, "this is not PEM").because(source.to_string()))?;
    if read.is_empty() {
        return Err(invalid(path, "there is no certificate in this file"));
    }
    Ok(read)
}

/// A chain of one's own: the holder's certificate first.
pub(crate) fn chain(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain = certificates(pem, path)?;
    if chain.len() > CHAIN_LENGTH_MAX {
        return Err(invalid(path, "this chain is too long")
            .rule(format!("at most {CHAIN_LENGTH_MAX} certificates, the holder's first")));
    }
    Ok(chain)
}

/// The revocation lists of a file; at least one.
pub(crate) fn revocation_lists(
    pem: &[u8],
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| invalid(path, "this is not PEM").because(source.to_string()))?;
    if read.is_empty() {
        return Err(invalid(path, "there is no revocation list in this file"));
    }
    Ok(read)
}

/// The one private key of a file.
pub(crate) fn key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>> {
    // The cause is not kept: it may show a line of the file.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| invalid(path, "there is no private key in this file").rule("PKCS#8, in PEM"))
}

pub(crate) fn invalid(path: &Path, what: &str) -> Error {
    Error::new(Code::CertificateInvalid, what).at(path.display().to_string())
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    invalid(path, "this file cannot be read").because(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_that_others_can_read_are_refused_and_links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (key, link) = (directory.path().join("key"), directory.path().join("link"));
        fs::write(&key, "secret").unwrap();
        std::os::unix::fs::symlink("key", &link).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o602] {
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_key(&link).unwrap_err().code(), Code::CertificateExposed, "{mode:o}");
        }
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_key(&link).unwrap().as_slice(), b"secret");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&key, Some(12_345), None).unwrap();
            assert_eq!(read_key(&key).unwrap_err().code(), Code::CertificateExposed);
        }
    }

    #[test]
    fn what_is_no_file_or_too_long_or_empty_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [&pipe, directory.path(), Path::new("/dev/zero"), &directory.path().join("none")] {
            assert_eq!(read(path).unwrap_err().code(), Code::CertificateInvalid, "{}", path.display());
        }
        let long = directory.path().join("long");
        File::create(&long).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(read(&long).unwrap_err().broken_rule(), Some("at most 16777216 octets"));
        let nothing = Path::new("x");
        for pem in [&b""[..], b"junk", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert_eq!(certificates(pem, nothing).unwrap_err().code(), Code::CertificateInvalid);
            assert_eq!(revocation_lists(pem, nothing).unwrap_err().code(), Code::CertificateInvalid);
            assert_eq!(key(pem, nothing).unwrap_err().code(), Code::CertificateInvalid);
        }
    }
}
