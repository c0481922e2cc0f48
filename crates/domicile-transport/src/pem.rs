//! What a file in PEM holds, for people who look into it.

use std::path::Path;

use domicile::Result;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::certificate::{Certificate, RevocationList};
use crate::files;

/// One piece of a file in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// A certificate.
    Certificate(Certificate),
    /// A revocation list.
    RevocationList(RevocationList),
    /// A private key, of which nothing is said.
    PrivateKey,
    /// Something else.
    Other,
}

/// Reads every piece of a file, in its order. What SPIFFE workloads are given (`svid.pem`, `svid_key.pem`, `bundle.pem`) is
/// such a file as much as what `domicile cert` writes.
///
/// # Errors
/// [`CertificateInvalid`](domicile::Code::CertificateInvalid) for a file that cannot be read, has nothing in it, or something
/// that is not what it says it is.
pub fn read_pem(path: &Path) -> Result<Vec<Piece>> {
    // There may be a private key in it.
    let bytes = zeroize::Zeroizing::new(files::read(path)?);
    let at = |error: domicile::Error| error.at(path.display().to_string());
    let mut pieces = Vec::new();
    for piece in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        // The cause is not kept: it may show a line of a key.
        let (kind, der) = piece.map_err(|_| files::invalid(path, "this is not PEM"))?;
        let der = zeroize::Zeroizing::new(der);
        pieces.push(match kind {
            SectionKind::Certificate => {
                Piece::Certificate(Certificate::read(&CertificateDer::from(der.as_slice())).map_err(at)?)
            }
            SectionKind::Crl => {
                let list = CertificateRevocationListDer::from(der.as_slice());
                Piece::RevocationList(RevocationList::read(&list).map_err(at)?)
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                Piece::PrivateKey
            }
            _ => Piece::Other,
        });
    }
    if pieces.is_empty() {
        return Err(files::invalid(path, "there is nothing in PEM in this file"));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_pem_is_told_and_shows_nothing_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            let error = read_pem(&path).unwrap_err();
            assert_eq!(error.code(), domicile::Code::CertificateInvalid);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert_eq!(read_pem(&path).unwrap(), [Piece::PrivateKey]);
    }
}
