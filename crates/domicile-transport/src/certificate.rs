//! What stands in a certificate, as far as anybody here asks. Whether it is true is the verifier's business.

use domicile::{Code, Error, Result, Time, hex};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _};

use crate::Identity;

/// A certificate that was read and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// The subject, as RFC 4514 shows it or nearly so.
    pub subject: String,
    /// The subject of the authority that signed it.
    pub issuer: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// From when on it holds.
    pub not_before: Time,
    /// Until when it holds.
    pub not_after: Time,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Every URI among its names.
    pub uris: Vec<String>,
    /// Every DNS name among its names.
    pub dns_names: Vec<String>,
    /// Whether it may be used by the end that accepts a connection.
    pub for_servers: bool,
    /// Whether it may be used by the end that makes one.
    pub for_clients: bool,
    /// Whether names stand in it that cannot be read.
    pub has_unreadable_names: bool,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads a certificate in DER, with nothing behind it.
    ///
    /// # Errors
    /// [`CertificateInvalid`](Code::CertificateInvalid) for what is none.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self> {
        let certificate = parsed(der)?;
        let (mut uris, mut dns_names, mut has_unreadable_names) = (Vec::new(), Vec::new(), false);
        let names = certificate.subject_alternative_name().map_err(|_| not_a_certificate())?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::Invalid(..) => has_unreadable_names = true,
                _ => {}
            }
        }
        let purposes = certificate.extended_key_usage().map_err(|_| not_a_certificate())?;
        // Without the extension there is no limit (RFC 5280, section 4.2.1.12); `any` is none of the two for webpki.
        let for_servers = purposes.as_ref().is_none_or(|purposes| purposes.value.server_auth);
        let for_clients = purposes.as_ref().is_none_or(|purposes| purposes.value.client_auth);
        let basic = certificate.basic_constraints().map_err(|_| not_a_certificate())?;
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex::encode(certificate.raw_serial()),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            is_authority: basic.is_some_and(|basic| basic.value.ca),
            uris,
            dns_names,
            for_servers,
            for_clients,
            has_unreadable_names,
            fingerprint: fingerprint(der),
        })
    }

    /// The identity of its holder: its one URI, in the form of [`Identity`]. Names of hosts may stand beside it, another URI
    /// may not (SPIFFE X509-SVID, section 2).
    ///
    /// # Errors
    /// [`PeerUnverified`](Code::PeerUnverified) without a URI, with several, with names that cannot be read, or with a URI of
    /// another form.
    pub fn identity(&self) -> Result<Identity> {
        let refused = |what: &str| {
            Error::new(Code::PeerUnverified, what)
                .rule("a certificate names its holder's place in exactly one URI, spiffe://<trust domain>/region/<region>/<service>")
        };
        if self.has_unreadable_names {
            return Err(refused("the certificate has names that cannot be read"));
        }
        match self.uris.as_slice() {
            [] => Err(refused("the certificate does not say where its holder is")),
            [uri] => uri
                .parse()
                .map_err(|error: Error| refused("the URI in the certificate names no place").because(error)),
            several => Err(refused(&format!("the certificate has {} URIs", several.len()))),
        }
    }
}

/// A revocation list that was read and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevocationList {
    /// The authority that signed it.
    pub issuer: String,
    /// Its number, which counts up, if it has one.
    pub number: Option<u64>,
    /// When it was made.
    pub this_update: Time,
    /// When the next one is to be expected at the latest, if it says.
    pub next_update: Option<Time>,
    /// The serial numbers on it, in hexadecimal, and when each was revoked.
    pub revoked: Vec<(String, Time)>,
}

impl RevocationList {
    /// Reads a list in DER, with nothing behind it.
    ///
    /// # Errors
    /// [`CertificateInvalid`](Code::CertificateInvalid) for what is none.
    pub fn read(der: &CertificateRevocationListDer<'_>) -> Result<Self> {
        let list = parsed_list(der)?;
        let revoked = list
            .iter_revoked_certificates()
            .map(|entry| (hex::encode(entry.raw_serial()), time(entry.revocation_date)))
            .collect();
        Ok(Self {
            issuer: list.issuer().to_string(),
            number: list.crl_number().and_then(|number| u64::try_from(number).ok()),
            this_update: time(list.last_update()),
            next_update: list.next_update().map(time),
            revoked,
        })
    }
}

/// SHA-256 of a certificate that is signed with SHA-256: what RFC 5929 calls `tls-server-end-point` then.
pub(crate) fn end_point(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use x509_parser::oid_registry::{OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256};
    let certificate = parsed(der).ok()?;
    let signed = certificate.signature_algorithm.oid();
    let with_sha256 = *signed == OID_SIG_ECDSA_WITH_SHA256 || *signed == OID_PKCS1_SHA256WITHRSA;
    with_sha256.then(|| Sha256::digest(der.as_ref()).to_vec())
}

fn parsed_list<'a>(der: &'a CertificateRevocationListDer<'_>) -> Result<CertificateRevocationList<'a>> {
    let not_a_list = || Error::new(Code::CertificateInvalid, "this is not a revocation list");
    match CertificateRevocationList::from_der(der.as_ref()) {
        Ok(([], list)) => Ok(list),
        _ => Err(not_a_list()),
    }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(not_a_certificate()),
    }
}

fn not_a_certificate() -> Error {
    Error::new(Code::CertificateInvalid, "this is not a certificate")
}

/// SHA-256, by which people compare certificates.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex::encode(&Sha256::digest(der.as_ref()))
}

/// A time as everything else here has it. What has no end is written 9999-12-31T23:59:59Z (RFC 5280, section 4.1.2.5), which is
/// a day past our calendar: it is the calendar's end.
fn time(time: ASN1Time) -> Time {
    let seconds = time.timestamp();
    let bound = if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    Time::from_micros(seconds.saturating_mul(1_000_000)).unwrap_or(bound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_ends_with_the_calendar() {
        let no_end = ASN1Time::from_timestamp(253_402_300_799).unwrap();
        assert_eq!(no_end.to_datetime().year(), 9999);
        assert!(time(no_end) > "9999-12-01T00:00:00Z".parse().unwrap());
        assert_eq!(time(ASN1Time::from_timestamp(1_795_509_000).unwrap()).micros(), 1_795_509_000_000_000);
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        for junk in [&b""[..], b"\x30", b"\x30\x00", &[0x30; 64], b"-----BEGIN CERTIFICATE-----"] {
            let read = Certificate::read(&CertificateDer::from(junk));
            assert_eq!(read.unwrap_err().code(), Code::CertificateInvalid, "{junk:?}");
            let read = RevocationList::read(&CertificateRevocationListDer::from(junk));
            assert_eq!(read.unwrap_err().code(), Code::CertificateInvalid, "{junk:?}");
        }
    }
}
