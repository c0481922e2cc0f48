//! Hosts in three regions, each with an authority, a certificate and a configuration of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domicile::{Clock, Config, Place, SystemClock, Time};
use domicile_transport::authority::{Authority, Issue};
use domicile_transport::{Certificate, Settings, Target, Transport};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use time::OffsetDateTime;

use crate::{place, region};

/// Every region with its jurisdiction.
pub const REGIONS: [(&str, &str); 3] = [("eu-central-1", "EU"), ("eu-west-1", "EU"), ("us-east-1", "US")];

/// A day.
pub const DAY: Duration = Duration::from_hours(24);

/// The name that certificates of hosts are for, beside their identities.
pub const NAME: &str = "localhost";

/// Authorities, certificates and configurations in a directory that is removed with it.
#[derive(Debug)]
pub struct Hosts {
    directory: tempfile::TempDir,
}

impl Hosts {
    /// A host called `store` in each region.
    pub fn new() -> Self {
        let hosts = Self { directory: tempfile::tempdir().unwrap() };
        let now = SystemClock.now();
        for (name, _) in REGIONS {
            let region = region(name);
            Authority::create(hosts.path(), &region, Settings::TRUST_DOMAIN, 30 * DAY, 7 * DAY, now).unwrap();
            hosts.issue(name, "store", 7 * DAY);
            hosts.configure(name, "store", "");
        }
        hosts
    }

    /// Where everything lies.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file among it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The authority of a region.
    pub fn authority(&self, name: &str) -> Authority {
        Authority::open(self.path(), &region(name)).unwrap()
    }

    /// Issues a certificate, or renews it.
    pub fn issue(&self, region: &str, service: &str, valid: Duration) -> Certificate {
        let issue = Issue { service, dns_names: &[NAME.to_owned()], valid, replace: true };
        let issued = self.authority(region).issue(self.path(), &issue, SystemClock.now()).unwrap();
        certificate(&issued.certificate)
    }

    /// Revokes what was issued to a service.
    pub fn revoke(&self, region: &str, service: &str) {
        let certificate = certificate(&self.file(&format!("{region}.{service}.pem")));
        self.authority(region).revoke(&[certificate], 7 * DAY, SystemClock.now()).unwrap();
    }

    /// Writes the configuration of a host, which is called by its region and service; `more` stands in `[transport]`.
    pub fn configure(&self, here: &str, service: &str, more: &str) -> PathBuf {
        self.configure_with(here, service, more, "")
    }

    /// The same with tables of its own.
    pub fn configure_with(&self, here: &str, service: &str, more: &str, tables: &str) -> PathBuf {
        let mut text = format!("here = \"{here}\"\nstore = \"sqlite://s.db\"\n{tables}\n");
        for (region, jurisdiction) in REGIONS {
            let key = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
            writeln!(text, "[regions.{region}]\njurisdiction = \"{jurisdiction}\"\nsigning_key = \"{key}\"")
                .unwrap();
        }
        writeln!(
            text,
            "[transport]\ncertificate = \"{here}.{service}.pem\"\nkey = \"{here}.{service}.key\"\n{more}"
        )
        .unwrap();
        for (region, _) in REGIONS {
            let files =
                format!("anchors = [\"{region}.authority.pem\"]\ncrls = [\"{region}.authority.crl\"]");
            writeln!(text, "[transport.regions.{region}]\n{files}").unwrap();
        }
        let path = self.file(&format!("{here}.{service}.toml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// The host called `store` of a region.
    pub fn store(&self, region: &str) -> Transport {
        self.host(region, "store")
    }

    /// A host that was configured.
    pub fn host(&self, region: &str, service: &str) -> Transport {
        Transport::open(&self.config(region, service)).unwrap()
    }

    /// A host that was configured, by another clock.
    pub fn host_at(&self, region: &str, service: &str, clock: Arc<dyn Clock>) -> Transport {
        let settings = Settings::from_config(&self.config(region, service)).unwrap();
        Transport::builder(settings).clock(clock).build().unwrap()
    }

    /// The configuration of a host.
    pub fn config(&self, region: &str, service: &str) -> Config {
        Config::read(&self.file(&format!("{region}.{service}.toml"))).unwrap()
    }

    /// Issues whatever a test wants in the name of a region's authority, under the name of a service, whose configuration
    /// is written too.
    pub fn forge(&self, region: &str, service: &str, change: impl FnOnce(&mut CertificateParams)) {
        self.forge_by(region, region, service, change);
    }

    /// The same by the authority of any region.
    pub fn forge_by(
        &self,
        authority: &str,
        region: &str,
        service: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let pem =
            |kind: &str| fs::read_to_string(self.file(&format!("{authority}.authority.{kind}"))).unwrap();
        let key = KeyPair::from_pem(&pem("key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&pem("pem"), key).unwrap();
        let mut params = leaf(region, service);
        change(&mut params);
        let own = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap();
        self.write(region, service, &certificate.pem(), &own.serialize_pem());
    }

    /// Files and configuration of a host.
    pub fn write(&self, region: &str, service: &str, certificate: &str, key: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = |kind: &str| self.file(&format!("{region}.{service}.{kind}"));
        fs::write(file("pem"), certificate).unwrap();
        fs::write(file("key"), key).unwrap();
        fs::set_permissions(file("key"), fs::Permissions::from_mode(0o600)).unwrap();
        self.configure(region, service, "");
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new()
    }
}

/// What a proper certificate of a host holds.
pub fn leaf(region: &str, service: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - DAY;
    params.not_after = OffsetDateTime::now_utc() + DAY;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        vec![uri(&identity(region, service)), SanType::DnsName(NAME.try_into().unwrap())];
    params
}

/// A name in a certificate.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// The identity of a host.
pub fn identity(region: &str, service: &str) -> String {
    format!("spiffe://{}/region/{region}/{service}", Settings::TRUST_DOMAIN)
}

/// A place of [`REGIONS`].
pub fn known(region: &str) -> Place {
    let (_, jurisdiction) = REGIONS.iter().find(|(name, _)| *name == region).unwrap();
    place(region, jurisdiction)
}

/// Whoever has a certificate for [`NAME`].
pub fn by_name() -> Target {
    Target::named(NAME).unwrap()
}

/// The host called `store` of a region, whatever its names.
pub fn by_identity(region: &str) -> Target {
    Target::identity(identity(region, "store").parse().unwrap())
}

/// Reads the first certificate of a file.
pub fn certificate(path: &Path) -> Certificate {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    Certificate::read(&CertificateDer::from_pem_file(path).unwrap()).unwrap()
}

/// So long after now.
pub fn later(by: Duration) -> Time {
    Time::from_micros(SystemClock.now().micros() + i64::try_from(by.as_micros()).unwrap()).unwrap()
}
