//! The table `[transport]` of `domicile.toml`: who this host is, and by whom others are vouched for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domicile::{Code, Config, Error, Place, Region, Result, processing::Processing, retention};
use serde::Deserialize;

/// What stands in `[transport]`, with what else of the configuration matters here.
///
/// ```toml
/// [transport]
/// trust_domain = "example.org"
/// certificate = "tls/eu-central-1.store.pem"  # this host's own chain, its own certificate first
/// key = "tls/eu-central-1.store.key"          # PKCS#8, readable for its owner alone
/// crl_age_max = "7 days"                      # no older list is believed, whatever it says itself
/// handshake_timeout = "10 seconds"
/// idle_timeout = "5 minutes"
/// connections_max = 4096
///
/// [transport.regions.eu-central-1]
/// anchors = ["tls/eu-central-1.authority.pem"]
/// crls = ["tls/eu-central-1.authority.crl"]
///
/// [transport.regions.us-east-1]
/// anchors = ["tls/us-east-1.bundle.pem"]
/// lifetime_max = "1 day"                      # in place of lists: certificates that live no longer
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The configuration that this was read from.
    pub config: PathBuf,
    /// Where this host is.
    pub here: Place,
    /// Whose identities count.
    pub trust_domain: String,
    /// This host's own chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// How old a revocation list may be.
    pub crl_age_max: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a single octet.
    pub idle_timeout: Duration,
    /// How many connections one [`Transport`](crate::Transport) has at once, handshakes among them.
    pub connections_max: usize,
    /// What is known of the authorities of each region.
    pub regions: BTreeMap<Region, Authorities>,
    /// Where records of each jurisdiction may be processed.
    pub processing: Processing,
}

/// Who vouches for the identities of a region.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Authorities {
    /// The region and its jurisdiction.
    pub place: Place,
    /// Files of the certificates of its authorities.
    pub anchors: Vec<PathBuf>,
    /// Files of their revocation lists.
    pub crls: Vec<PathBuf>,
    /// How long certificates of the region may live altogether, if that is limited.
    pub lifetime_max: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    trust_domain: Option<String>,
    certificate: PathBuf,
    key: PathBuf,
    crl_age_max: Option<String>,
    handshake_timeout: Option<String>,
    idle_timeout: Option<String>,
    connections_max: Option<usize>,
    #[serde(default)]
    regions: BTreeMap<Region, RegionTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    anchors: Vec<PathBuf>,
    #[serde(default)]
    crls: Vec<PathBuf>,
    lifetime_max: Option<String>,
}

impl Settings {
    /// The trust domain where nobody names one.
    pub const TRUST_DOMAIN: &str = "domicile.internal";

    /// Understands the table of a configuration. Paths are relative to it. Nothing is read yet.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when there is no such table, or it cannot be understood.
    pub fn from_config(config: &Config) -> Result<Self> {
        let at = |error: Error| error.at("[transport]").at(config.path().display().to_string());
        let invalid = |what: String| at(Error::new(Code::ConfigInvalid, what));
        let table: Table = config.transport()?.ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "nothing is configured for connections")
                .at(config.path().display().to_string())
                .advise("add [transport] with certificate, key, and [transport.regions.…] with anchors")
        })?;
        let directory = config.path().parent().unwrap_or(Path::new(""));
        let paths = |paths: Vec<PathBuf>| paths.into_iter().map(|path| directory.join(path)).collect();
        let length =
            |text: Option<String>, usual: &str| duration(text.as_deref().unwrap_or(usual)).map_err(at);
        let mut regions = BTreeMap::new();
        for (region, of_region) in table.regions {
            let known = config.regions().get(&region);
            let place = known.map(|known| known.place.clone()).ok_or_else(|| {
                invalid(format!("regions.{region}: the region {region} is not configured"))
                    .advise(format!("add [regions.{region}] with its jurisdiction"))
            })?;
            if of_region.anchors.is_empty() {
                return Err(invalid(format!("regions.{region}: nobody vouches for this region")).advise(
                    "name the certificates of its authorities in `anchors`, or take the region out",
                ));
            }
            if of_region.crls.is_empty() && of_region.lifetime_max.is_none() {
                return Err(invalid(format!(
                    "regions.{region}: nothing says which certificates were revoked"
                ))
                .rule("without `crls`, certificates are short-lived, and `lifetime_max` says how short"));
            }
            let lifetime_max = of_region.lifetime_max.map(|text| duration(&text).map_err(at)).transpose()?;
            let (anchors, crls) = (paths(of_region.anchors), paths(of_region.crls));
            regions.insert(region, Authorities { place, anchors, crls, lifetime_max });
        }
        Ok(Self {
            config: config.path().to_owned(),
            here: config.here().clone(),
            trust_domain: table.trust_domain.unwrap_or_else(|| Self::TRUST_DOMAIN.to_owned()),
            certificate: directory.join(table.certificate),
            key: directory.join(table.key),
            crl_age_max: length(table.crl_age_max, "7 days")?,
            handshake_timeout: length(table.handshake_timeout, "10 seconds")?,
            idle_timeout: length(table.idle_timeout, "5 minutes")?,
            connections_max: table.connections_max.unwrap_or(4096),
            regions,
            processing: config.processing().clone(),
        })
    }
}

/// A length of time, at least a millisecond. A day has 24 hours.
fn duration(text: &str) -> Result<Duration> {
    let invalid = || {
        Error::new(Code::ConfigInvalid, format!("{text:?} is not a length of time"))
            .rule("it is written like 10 seconds, 5 minutes or 7 days")
    };
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let length = retention::span(text)?.to_duration(days).map_err(|source| invalid().because(source))?;
    match Duration::try_from(length) {
        Ok(length) if length >= Duration::from_millis(1) => Ok(length),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    fn with(transport: &str) -> Result<Settings> {
        let text = format!(
            "here = \"eu\"\nstore = \"sqlite://s.db\"\n[regions.eu]\njurisdiction = \"EU\"\nsigning_key = \"{KEY}\"\n{transport}"
        );
        Settings::from_config(&Config::parse(&text, Path::new("/etc/domicile.toml"))?)
    }

    #[test]
    fn paths_are_relative_and_limits_have_usual_values() {
        let settings = with(
            "[transport]\ncertificate = \"c\"\nkey = \"/k\"\nidle_timeout = \"90 s\"\n[transport.regions.eu]\nanchors = [\"a\"]\nlifetime_max = \"1 day\"\n",
        )
        .unwrap();
        assert_eq!((settings.certificate, settings.key), ("/etc/c".into(), "/k".into()));
        assert_eq!(settings.crl_age_max, Duration::from_hours(7 * 24));
        assert_eq!(settings.idle_timeout, Duration::from_secs(90));
        assert_eq!(settings.trust_domain, "domicile.internal");
        let region = &settings.regions[&"eu".parse().unwrap()];
        assert_eq!(region.anchors, [PathBuf::from("/etc/a")]);
        assert_eq!(region.lifetime_max, Some(Duration::from_hours(24)));
    }

    #[test]
    fn what_would_weaken_the_check_or_means_nothing_is_refused() {
        const REGION: &str = "[transport.regions.eu]\nanchors = [\"a\"]\ncrls = [\"c\"]\n";
        const OWN: &str = "[transport]\ncertificate = \"c\"\nkey = \"k\"\n";
        with(&format!("{OWN}{REGION}")).unwrap();
        for (transport, hint) in [
            (String::new(), "nothing is configured"),
            ("[transport]\ncertificate = \"c\"\n".to_owned(), "missing field `key`"),
            (format!("{OWN}crl_age = \"1 day\"\n"), "unknown field `crl_age`"),
            (format!("{OWN}crl_age_max = \"for ever\"\n"), "is not a length of time"),
            (format!("{OWN}idle_timeout = \"0 s\"\n"), "is not a length of time"),
            (format!("{OWN}[transport.regions.eu]\nanchors = [\"a\"]\n"), "which certificates were revoked"),
            (format!("{OWN}[transport.regions.eu]\nanchors = []\ncrls = [\"c\"]\n"), "nobody vouches"),
            (
                format!("{OWN}[transport.regions.us]\nanchors = [\"a\"]\ncrls = [\"c\"]\n"),
                "is not configured",
            ),
            (format!("{OWN}{REGION}verify = false\n"), "unknown field `verify`"),
        ] {
            let error = with(&transport).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid, "{transport}");
            assert!(error.to_string().contains(hint), "{transport}: {error}");
        }
    }
}
