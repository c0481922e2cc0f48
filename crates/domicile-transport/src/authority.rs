//! Authorities: one for each region, which vouches for the identities of hosts there and of no others.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domicile::files::NewFile;
use domicile::random::{OsRandom, Randomness as _};
use domicile::{Code, Error, Region, Result, Time, hex};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, RevocationList};
use crate::{Identity, files};

/// How long before now a new certificate holds: clocks differ.
const BACKDATED: Duration = Duration::from_mins(5);

/// No certificate is issued for longer: a hundred years.
const VALID_MAX: Duration = Duration::from_hours(24 * 36_525);

/// Who vouches for the identities of one region.
///
/// It is three files in a directory: `REGION.authority.pem`, its certificate, which every host that is to know the region
/// gets as trust anchor; `REGION.authority.key`, its private key, ECDSA P-256 in PKCS#8, mode 0600, which belongs nowhere
/// near a host that takes connections; `REGION.authority.crl`, what it revoked, of which hosts want a fresh copy every few
/// days.
pub struct Authority {
    region: Region,
    trust_domain: String,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    files: AuthorityFiles,
}

/// Where the files of an authority are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorityFiles {
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Its revocation list.
    pub crl: PathBuf,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// Whose it is.
    pub identity: Identity,
    /// Where its chain was written.
    pub certificate: PathBuf,
    /// Where its private key was written.
    pub key: PathBuf,
    /// Until when it holds.
    pub not_after: Time,
}

/// What is to be issued.
#[derive(Debug, Clone)]
pub struct Issue<'a> {
    /// What the holder does.
    pub service: &'a str,
    /// Names of hosts, for those who connect by name; none is needed where they connect by identity.
    pub dns_names: &'a [String],
    /// For how long.
    pub valid: Duration,
    /// Whether files that are there are replaced: so certificates are renewed.
    pub replace: bool,
}

impl AuthorityFiles {
    fn of(directory: &Path, region: &Region) -> Self {
        let file = |kind: &str| directory.join(format!("{region}.authority.{kind}"));
        Self { certificate: file("pem"), key: file("key"), crl: file("crl") }
    }
}

impl Authority {
    /// Makes an authority of a region, with its first, empty revocation list, which says that the next one comes within
    /// `next_list`. The directory is there.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) where there is one already; [`NameInvalid`](Code::NameInvalid) for a trust domain
    /// that is none; [`OutputFailed`](Code::OutputFailed) when it cannot be written.
    pub fn create(
        directory: &Path,
        region: &Region,
        trust_domain: &str,
        valid: Duration,
        next_list: Duration,
        now: Time,
    ) -> Result<Self> {
        // Checks the trust domain.
        Identity::new(trust_domain, region.clone(), "authority")?;
        let files = AuthorityFiles::of(directory, region);
        let key = new_key()?;
        // A list is found by the name of its authority: two of one region, the old and the new, have two names.
        let mut mark = [0; 4];
        OsRandom.fill(&mut mark)?;
        let mut params = params(format!("{} {}", subject(region), hex::encode(&mark)), now, valid)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let certificate = params.self_signed(&key).map_err(cannot_make)?;
        // The key comes first: what nobody can sign with is no authority.
        write(&files.key, 0o600, false, key_pem(&key).as_bytes())?;
        write(&files.certificate, 0o644, false, certificate.pem().as_bytes())?;
        let read = Certificate::read(certificate.der())?;
        let issuer = Issuer::new(params, key);
        let authority = Self {
            region: region.clone(),
            trust_domain: trust_domain.to_owned(),
            certificate: read,
            issuer,
            files,
        };
        authority.write_list(&[], 1, next_list, now, false)?;
        Ok(authority)
    }

    /// Opens the authority of a region.
    ///
    /// # Errors
    /// [`CertificateInvalid`](Code::CertificateInvalid) where there is none, or it is of another region, or its key is
    /// another's; [`CertificateExposed`](Code::CertificateExposed) for a key that others can read.
    pub fn open(directory: &Path, region: &Region) -> Result<Self> {
        let files = AuthorityFiles::of(directory, region);
        let invalid = |what: &str| files::invalid(&files.certificate, what);
        let pem = files::read(&files.certificate).map_err(|error| {
            error.advise(format!("make one with `domicile cert authority --region {region}`, or say where it is with --authority"))
        })?;
        let chain = files::certificates(&pem, &files.certificate)?;
        let [der] = chain.as_slice() else { return Err(invalid("an authority has one certificate")) };
        let certificate =
            Certificate::read(der).map_err(|error| error.at(files.certificate.display().to_string()))?;
        let trust_domain = match certificate.uris.as_slice() {
            [uri] => uri.strip_prefix("spiffe://").unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let is_ours =
            certificate.is_authority && certificate.subject.starts_with(&format!("CN={} ", subject(region)));
        if !is_ours || Identity::new(&trust_domain, region.clone(), "authority").is_err() {
            return Err(invalid(&format!("this is no authority of {region}"))
                .advise("authorities are made with `domicile cert authority`"));
        }
        let pem = files::read_key(&files.key)?;
        let unusable = || files::invalid(&files.key, "this is no private key of an authority");
        let key = std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok())
            .ok_or_else(unusable)?;
        if !belongs(der, &key) {
            return Err(files::invalid(&files.key, "this private key belongs to another certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(cannot_make)?;
        Ok(Self { region: region.clone(), trust_domain, certificate, issuer, files })
    }

    /// The region that it vouches for.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// In whose name it issues.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Where it lies.
    #[must_use]
    pub fn files(&self) -> &AuthorityFiles {
        &self.files
    }

    /// Issues an identity of this region: a fresh key, ECDSA P-256, and a certificate for both ends of connections, which
    /// ends with the authority's at the latest. They are written as `REGION.SERVICE.key`, mode 0600, and
    /// `REGION.SERVICE.pem`.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for a service or a name of a host that is none;
    /// [`OutputExists`](Code::OutputExists) where one was issued and shall not be replaced;
    /// [`CertificateInvalid`](Code::CertificateInvalid) when the authority itself does not hold now;
    /// [`OutputFailed`](Code::OutputFailed) when it cannot be written.
    pub fn issue(&self, directory: &Path, issue: &Issue<'_>, now: Time) -> Result<Issued> {
        let identity = Identity::new(&self.trust_domain, self.region.clone(), issue.service)?;
        if now < self.certificate.not_before || now >= self.certificate.not_after {
            return Err(files::invalid(&self.files.certificate, "this authority does not hold now")
                .rule(format!("from {} to {}", self.certificate.not_before, self.certificate.not_after))
                .advise("make another, and give it to every host beside this one before it issues"));
        }
        let file = |kind: &str| directory.join(format!("{}.{}.{kind}", self.region, issue.service));
        let (certificate_path, key_path) = (file("pem"), file("key"));
        // A common name has at most 64 characters (RFC 5280, ub-common-name), and nobody here looks at it.
        let name = issue.service.get(..64).unwrap_or(issue.service);
        let mut params = params(name.to_owned(), now, issue.valid)?;
        let end = offset(self.certificate.not_after);
        params.not_after = params.not_after.min(end);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&identity.to_string())?];
        for name in issue.dns_names {
            params.subject_alt_names.push(host_name(name)?);
        }
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(cannot_make)?;
        let not_after = Certificate::read(certificate.der())?.not_after;
        if !issue.replace {
            refuse_what_is_there(&certificate_path)?;
        }
        write(&key_path, 0o600, issue.replace, key_pem(&key).as_bytes())?;
        write(&certificate_path, 0o644, issue.replace, certificate.pem().as_bytes())?;
        Ok(Issued { identity, certificate: certificate_path, key: key_path, not_after })
    }

    /// Puts certificates on the revocation list, and makes it anew: without any, the list is as long as it was, and fresh.
    /// It says that the next one comes within `next_list`.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for a certificate of another authority;
    /// [`CertificateInvalid`](Code::CertificateInvalid) when the list so far is gone or cannot be read: another would take
    /// back what it revoked; [`OutputFailed`](Code::OutputFailed) when it cannot be written.
    pub fn revoke(
        &self,
        certificates: &[Certificate],
        next_list: Duration,
        now: Time,
    ) -> Result<RevocationList> {
        // Two that revoke at once would each forget what the other revoked.
        let lock = File::open(&self.files.key).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(|source| {
            files::invalid(&self.files.key, "the authority cannot be locked").because(source)
        })?;
        let lists = files::revocation_lists(&files::read(&self.files.crl)?, &self.files.crl)?;
        let [list] = lists.as_slice() else {
            return Err(files::invalid(&self.files.crl, "an authority has one revocation list"));
        };
        let list =
            RevocationList::read(list).map_err(|error| error.at(self.files.crl.display().to_string()))?;
        let mut revoked = list.revoked;
        for certificate in certificates {
            if certificate.issuer != self.certificate.subject || certificate.is_authority {
                return Err(Error::new(
                    Code::ArgumentInvalid,
                    format!("this certificate is not of the authority of {}", self.region),
                )
                .at(certificate.issuer.clone())
                .advise("revoke it with its own authority"));
            }
            if !revoked.iter().any(|(serial, _)| *serial == certificate.serial) {
                revoked.push((certificate.serial.clone(), now));
            }
        }
        self.write_list(&revoked, list.number.unwrap_or_default().saturating_add(1), next_list, now, true)
    }

    fn write_list(
        &self,
        revoked: &[(String, Time)],
        number: u64,
        next_list: Duration,
        now: Time,
        replace: bool,
    ) -> Result<RevocationList> {
        let entries = revoked.iter().map(|(serial, when)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(
                    &hex::decode_any(serial).ok_or_else(unreadable_serial)?,
                ),
                revocation_time: offset(*when),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: offset(now),
            next_update: offset(now) + next_list.min(VALID_MAX),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: entries.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(cannot_make)?;
        let pem = list.pem().map_err(cannot_make)?;
        write(&self.files.crl, 0o644, replace, pem.as_bytes())?;
        RevocationList::read(list.der())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("region", &self.region)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// How the name of an authority of a region begins; eight digits of its own follow.
fn subject(region: &Region) -> String {
    format!("Domicile authority of {region}")
}

fn params(name: String, now: Time, valid: Duration) -> Result<CertificateParams> {
    if valid < Duration::from_mins(1) || valid > VALID_MAX {
        return Err(Error::new(Code::ArgumentInvalid, "no certificate is issued for such a time")
            .rule("from a minute to a hundred years"));
    }
    let mut serial = [0; 16];
    OsRandom.fill(&mut serial)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Not empty and not negative, whatever was drawn.
    params.serial_number = Some(SerialNumber::from_slice(&[&[0x40], &serial[..]].concat()));
    params.not_before = offset(now) - BACKDATED;
    params.not_after = offset(now) + valid;
    params.key_identifier_method = KeyIdMethod::Sha256;
    Ok(params)
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::new(Code::RandomUnavailable, "no key could be made").because(source))
}

/// A key as it is written; what rcgen made on the way is wiped by it.
fn key_pem(key: &KeyPair) -> Zeroizing<String> {
    Zeroizing::new(key.serialize_pem())
}

/// Whether a key is the one of a certificate.
fn belongs(der: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::certificate::X509Certificate::from_der(der.as_ref())
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

fn uri(text: &str) -> Result<SanType> {
    Ok(SanType::URI(ia5(text)?))
}

/// A name of a host as webpki compares them: one that it would not take is not issued.
fn host_name(name: &str) -> Result<SanType> {
    use rustls::pki_types::ServerName;
    let invalid =
        || Error::new(Code::NameInvalid, format!("{name:?} is neither the name of a host nor an address"));
    let host = name.strip_prefix("*.").unwrap_or(name);
    match ServerName::try_from(host).map_err(|_| invalid())? {
        ServerName::DnsName(_) => Ok(SanType::DnsName(ia5(name)?)),
        ServerName::IpAddress(address) if host == name => Ok(SanType::IpAddress(address.into())),
        _ => Err(invalid()),
    }
}

fn ia5(text: &str) -> Result<Ia5String> {
    Ia5String::try_from(text).map_err(|_| Error::new(Code::NameInvalid, "a name in a certificate is ASCII"))
}

/// A time as rcgen takes it.
fn offset(time: Time) -> OffsetDateTime {
    let seconds = u64::try_from(time.micros() / 1_000_000).unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn unreadable_serial() -> Error {
    Error::new(Code::CertificateInvalid, "a serial number that is none")
}

fn cannot_make(source: rcgen::Error) -> Error {
    Error::new(Code::CertificateInvalid, "the certificate could not be made").because(source)
}

fn refuse_what_is_there(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::new(Code::OutputExists, "the output exists already")
        .at(path.display().to_string())
        .advise("name another, or replace it with --force"))
}

fn write(path: &Path, mode: u32, replace: bool, contents: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path, mode, replace)?;
    file.write_all(contents).map_err(|source| {
        Error::output_failed("the output could not be written", source).at(path.display().to_string())
    })?;
    file.publish()
}
