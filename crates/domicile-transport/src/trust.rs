//! What this host knows at one moment: its own certificate, and who vouches for whom. Read whole, exchanged whole.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domicile::processing::Processing;
use domicile::{Code, Error, Place, Region, Result, Time};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::certificate::{Certificate, RevocationList};
use crate::exchange::Exchange;
use crate::settings::{Authorities, Settings};
use crate::{Identity, files};

/// Everything that connections are judged by.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) identity: Identity,
    /// Until when this host's own certificate holds.
    pub(crate) ends_at: Time,
    pub(crate) own: Arc<SingleCertAndKey>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) settings: Settings,
    regions: BTreeMap<Region, RegionTrust>,
    stamps: Vec<Stamp>,
}

/// Who vouches for one region: rustls's own verifiers over its anchors alone.
#[derive(Debug)]
struct RegionTrust {
    place: Place,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    /// When the oldest of its revocation lists was made, if it has any.
    listed: Option<Time>,
    lifetime_max: Option<Duration>,
}

/// By what a file is known to have changed: where it lies, how long it is, and when it was written or renamed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp(PathBuf, Option<(u64, u64, u64, i64, i64, i64, i64)>);

/// Which end of a connection is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Server,
    Client,
}

/// Whom whoever connects wants to find at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A certificate for this name of a host or this address.
    Name(ServerName<'static>),
    /// Exactly this identity; names of hosts are not looked at.
    Identity(Identity),
    /// Whoever may be there by what is exchanged.
    Anybody,
}

/// The other end, as it was found good.
#[derive(Debug, Clone)]
pub(crate) struct Approved {
    pub(crate) identity: Identity,
    pub(crate) place: Place,
    pub(crate) not_after: Time,
    pub(crate) fingerprint: String,
}

/// The other end is not taken: what this end says, and what TLS tells the other.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) tls: rustls::Error,
    pub(crate) claimed: Option<Identity>,
}

impl Trust {
    /// Reads every file that the settings name.
    ///
    /// `config` is the stamp of the configuration from before it was read.
    pub(crate) fn read(
        settings: Settings,
        config: Stamp,
        provider: Arc<CryptoProvider>,
        now: Time,
    ) -> Result<Self> {
        // Taken before anything is read: what changes meanwhile is found to have changed.
        let stamps = stamps(&settings, config);
        let at = settings.certificate.display().to_string();
        let chain = files::chain(&files::read(&settings.certificate)?, &settings.certificate)?;
        let leaf = chain.first().map(Certificate::read);
        let leaf = leaf
            .ok_or_else(|| files::invalid(&settings.certificate, "there is no certificate in this file"))?;
        let leaf = leaf.map_err(|error| error.at(at.clone()))?;
        let identity = own_identity(&leaf, &settings, now).map_err(|error| error.at(at))?;
        let key = files::key(&files::read_key(&settings.key)?, &settings.key)?;
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|source| {
            files::invalid(
                &settings.key,
                "this private key does not belong to the certificate, or cannot be used",
            )
            .advise("name the key that was issued with the certificate: ECDSA P-256, P-384, Ed25519 or RSA")
            .because(source)
        })?;
        let regions = settings
            .regions
            .iter()
            .map(|(region, authorities)| Ok((region.clone(), RegionTrust::read(authorities, &provider)?)));
        let regions: BTreeMap<_, _> = regions.collect::<Result<_>>()?;
        let trust = Self {
            identity,
            ends_at: leaf.not_after,
            own: Arc::new(SingleCertAndKey::from(own)),
            provider,
            settings,
            regions,
            stamps,
        };
        trust.warn_of_lists(now);
        Ok(trust)
    }

    /// Whether a file is another than the one that was read.
    pub(crate) fn is_outdated(&self) -> bool {
        stamps(&self.settings, Stamp::of(&self.settings.config)) != self.stamps
    }

    pub(crate) fn processing(&self) -> &Processing {
        &self.settings.processing
    }

    /// Judges a chain, the holder's certificate first: its form, then name, chain, time and revocation by rustls over the
    /// anchors of the region that it claims and no other, then the place.
    pub(crate) fn judge(
        &self,
        (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        end: End,
        expected: &Expected,
        exchange: &Exchange,
        now: UnixTime,
    ) -> Result<Approved, Box<Refusal>> {
        use rustls::CertificateError as Tls;
        let refuse = |tls: Tls, claimed: Option<&Identity>, error: Error| {
            Box::new(Refusal {
                error,
                tls: rustls::Error::InvalidCertificate(tls),
                claimed: claimed.cloned(),
            })
        };
        let read = Certificate::read(leaf).map_err(|error| {
            let unverified = Error::new(Code::PeerUnverified, "the other end's certificate cannot be read");
            refuse(Tls::BadEncoding, None, unverified.because(error))
        })?;
        let identity =
            read.identity().map_err(|error| refuse(Tls::ApplicationVerificationFailure, None, error))?;
        let claimed = Some(&identity);
        let unverified = |what: String| Error::new(Code::PeerUnverified, what).at(identity.to_string());
        if identity.trust_domain() != self.settings.trust_domain {
            let error =
                unverified(format!("the other end is of the trust domain {}", identity.trust_domain()))
                    .rule(format!("trust_domain = \"{}\"", self.settings.trust_domain));
            return Err(refuse(Tls::UnknownIssuer, claimed, error));
        }
        let Some(region) = self.regions.get(identity.region()) else {
            let error = unverified(format!("nobody vouches for {} here", identity.region()))
                .rule("trust anchors are configured for each region")
                .advise(format!(
                    "add [transport.regions.{}] with its anchors, if it is to be known",
                    identity.region()
                ));
            return Err(refuse(Tls::UnknownIssuer, claimed, error));
        };
        if let Some(listed) = region.listed
            && is_past(now, listed, self.settings.crl_age_max)
        {
            let error = unverified(format!(
                "the revocation list of {} is too old to say that it holds",
                identity.region()
            ))
            .rule(format!("made {listed}, older than crl_age_max allows"))
            .advise("fetch the region's list; `domicile cert revoke` without a file makes a fresh one");
            return Err(refuse(Tls::ExpiredRevocationList, claimed, error));
        }
        region.verify((leaf, intermediates), end, expected, now, &read).map_err(|tls| {
            let error = unverified(said(&tls, identity.region()));
            let error =
                error.rule(format!("the trust anchors and revocation lists of {}", identity.region()));
            Box::new(Refusal { error: error.because(tls.clone()), tls, claimed: claimed.cloned() })
        })?;
        if let Some(lifetime_max) = region.lifetime_max {
            let micros = read.not_after.micros().saturating_sub(read.not_before.micros());
            if u128::try_from(micros).unwrap_or_default() > lifetime_max.as_micros() {
                let error =
                    unverified("the other end's certificate lives longer than its region's may".to_owned())
                        .rule(format!("transport.regions.{}.lifetime_max", identity.region()));
                return Err(refuse(Tls::ApplicationVerificationFailure, claimed, error));
            }
        }
        if let Expected::Identity(wanted) = expected
            && *wanted != identity
        {
            let error = unverified(format!("the other end is not {wanted}"));
            return Err(refuse(Tls::NotValidForName, claimed, error));
        }
        exchange.check(&region.place, self.processing()).map_err(|error| {
            refuse(Tls::ApplicationVerificationFailure, claimed, error.at(identity.to_string()))
        })?;
        Ok(Approved {
            place: region.place.clone(),
            identity,
            not_after: read.not_after,
            fingerprint: read.fingerprint,
        })
    }

    /// Tells early of what will refuse everybody later.
    fn warn_of_lists(&self, now: Time) {
        for (region, trust) in &self.regions {
            if let Some(listed) = trust.listed
                && is_past(unix(now), listed, self.settings.crl_age_max)
            {
                tracing::warn!(%region, made = %listed, "the revocation list is too old: everybody of this region will be refused");
            }
        }
    }
}

impl RegionTrust {
    fn read(authorities: &Authorities, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let (mut roots, mut lists, mut listed) = (RootCertStore::empty(), Vec::new(), None);
        for path in &authorities.anchors {
            for anchor in files::certificates(&files::read(path)?, path)? {
                let read =
                    Certificate::read(&anchor).map_err(|error| error.at(path.display().to_string()))?;
                if !read.is_authority {
                    return Err(files::invalid(path, "this certificate is no authority's")
                        .advise("name the certificates of the region's authorities, as `domicile cert authority` wrote them"));
                }
                roots.add(anchor).map_err(|source| {
                    files::invalid(path, "this trust anchor cannot be used").because(source)
                })?;
            }
        }
        for path in &authorities.crls {
            for list in files::revocation_lists(&files::read(path)?, path)? {
                let read =
                    RevocationList::read(&list).map_err(|error| error.at(path.display().to_string()))?;
                listed = Some(listed.map_or(read.this_update, |listed: Time| listed.min(read.this_update)));
                lists.push(list);
            }
        }
        let unusable = |source: rustls::server::VerifierBuilderError| {
            Error::new(Code::CertificateInvalid, "these trust anchors and revocation lists cannot be used")
                .at(format!("[transport.regions.{}]", authorities.place.region))
                .because(source)
        };
        let roots = Arc::new(roots);
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        let servers = servers.with_crls(lists.iter().cloned()).enforce_revocation_expiration();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let clients = clients.with_crls(lists).enforce_revocation_expiration();
        Ok(Self {
            place: authorities.place.clone(),
            servers: servers.build().map_err(unusable)?,
            clients: clients.build().map_err(unusable)?,
            listed,
            lifetime_max: authorities.lifetime_max,
        })
    }

    /// By rustls's own verifiers. Where an identity is wanted, no name of a host is compared, and the verifier that compares
    /// none is the one for clients: so such a server's certificate is good for both purposes (decision 0051).
    fn verify(
        &self,
        (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        end: End,
        expected: &Expected,
        now: UnixTime,
        read: &Certificate,
    ) -> Result<(), rustls::Error> {
        match (end, expected) {
            (End::Server, Expected::Name(name)) => {
                self.servers.verify_server_cert(leaf, intermediates, name, &[], now).map(drop)
            }
            (End::Server, _) if !read.for_servers => {
                Err(rustls::Error::InvalidCertificate(rustls::CertificateError::InvalidPurpose))
            }
            (End::Server | End::Client, _) => {
                self.clients.verify_client_cert(leaf, intermediates, now).map(drop)
            }
        }
    }
}

/// This host is where its certificate says, and the certificate holds.
fn own_identity(leaf: &Certificate, settings: &Settings, now: Time) -> Result<Identity> {
    let invalid = |what: String| Error::new(Code::CertificateInvalid, what);
    let identity = leaf.identity().map_err(|error| {
        invalid("this host's certificate does not say where it is".to_owned()).because(error)
    })?;
    if *identity.region() != settings.here.region {
        return Err(invalid(format!(
            "this host's certificate is of {}, and this host is in {}",
            identity.region(),
            settings.here
        ))
        .advise("issue one by the authority of the region that `here` names"));
    }
    if identity.trust_domain() != settings.trust_domain {
        return Err(invalid(format!(
            "this host's certificate is of the trust domain {}",
            identity.trust_domain()
        ))
        .rule(format!("trust_domain = \"{}\"", settings.trust_domain)));
    }
    if leaf.is_authority {
        return Err(
            invalid("an authority's certificate is no host's".to_owned()).advise("`domicile cert issue`")
        );
    }
    if now < leaf.not_before || now > leaf.not_after {
        return Err(invalid(format!(
            "this host's certificate holds from {} to {}",
            leaf.not_before, leaf.not_after
        ))
        .advise("issue another, or mend this host's clock"));
    }
    Ok(identity)
}

/// What rustls found, for people.
fn said(error: &rustls::Error, region: &Region) -> String {
    use rustls::CertificateError as Tls;
    let rustls::Error::InvalidCertificate(error) = error else {
        return "the other end's certificate does not verify".to_owned();
    };
    match error {
        Tls::Expired | Tls::ExpiredContext { .. } => "the other end's certificate has expired".to_owned(),
        Tls::NotValidYet | Tls::NotValidYetContext { .. } => {
            "the other end's certificate does not hold yet".to_owned()
        }
        Tls::Revoked => "the other end's certificate was revoked".to_owned(),
        Tls::UnknownIssuer | Tls::BadSignature => {
            format!("the other end's certificate was not issued by an authority of {region}")
        }
        Tls::UnknownRevocationStatus => {
            format!("no revocation list of {region} speaks of the other end's certificate")
        }
        Tls::ExpiredRevocationList | Tls::ExpiredRevocationListContext { .. } => {
            format!("the revocation list of {region} has expired")
        }
        Tls::NotValidForName | Tls::NotValidForNameContext { .. } => {
            "the other end's certificate is not for the name that was connected to".to_owned()
        }
        Tls::InvalidPurpose | Tls::InvalidPurposeContext { .. } => {
            "the other end's certificate is for another purpose".to_owned()
        }
        _ => "the other end's certificate does not verify".to_owned(),
    }
}

/// Whether `age` went by between `then` and `now`.
fn is_past(now: UnixTime, then: Time, age: Duration) -> bool {
    now.as_secs().saturating_sub(unix(then).as_secs()) > age.as_secs()
}

pub(crate) fn unix(time: Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(time.micros()).unwrap_or_default()))
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let of = std::fs::metadata(path).ok().map(|file| {
            (
                file.dev(),
                file.ino(),
                file.len(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            )
        });
        Self(path.to_owned(), of)
    }
}

fn stamps(settings: &Settings, config: Stamp) -> Vec<Stamp> {
    let of_regions = settings.regions.values().flat_map(|region| region.anchors.iter().chain(&region.crls));
    let files = [&settings.certificate, &settings.key].into_iter().chain(of_regions);
    std::iter::once(config).chain(files.map(|path| Stamp::of(path))).collect()
}
