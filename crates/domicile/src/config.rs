//! `domicile.toml`: where this host is, the regions, their key services and stores.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::event_window::EventWindow;
use crate::files;
use crate::kms::{
    Agreement, AwsOptions, Kms, LocalKms, PassphraseSource, Pkcs11Options, VaultOptions, VerifyingKey,
};
use crate::period::PeriodUnit;
use crate::processing::Processing;
use crate::region::{Jurisdiction, Place, Region};
use crate::retention::{self, Retention};
use crate::scope::{RecordType, TenantId};

/// The name of the configuration file.
pub const FILE_NAME: &str = "domicile.toml";

const FILE_BYTES_MAX: u64 = 1 << 20;

/// What stands in `domicile.toml`.
///
/// ```
/// # let text = r#"
/// here = "eu-central-1"
/// store = "sqlite://domicile.db"
///
/// [regions.eu-central-1]
/// jurisdiction = "EU"
/// signing_key = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
/// kms = { provider = "local", root = "keys/eu-central-1.root", signing = "keys/eu-central-1.signing" }
/// objects = ["s3://segments-of-acme-eu/"]   # where its finished segments may be uploaded to
///
/// [regions.us-east-1]              # no kms: this host has no keys of that region
/// jurisdiction = "US"
/// signing_key = "ed25519:fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
///
/// [periods]
/// voice = "day"                    # the others: month
///
/// [retention.EU]
/// voice = "6 months"               # so long after the end of their period; the others for ever
///
/// [event_window]                  # event times further off are a wrong clock or field
/// back = "40 days"
/// ahead = "1 day"
///
/// [processing]
/// EU = ["EU", "GB"]                # where records of the EU may be processed; without a rule, in their jurisdiction
///
/// [erasure]
/// backups_kept = "35 days"         # of the key stores: when the last is gone, an erasure is final
/// # "#;
/// # let config = domicile::Config::parse(text, "domicile.toml".as_ref())?;
/// # assert_eq!(config.here().to_string(), "eu-central-1 (EU)");
/// # Ok::<(), domicile::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    here: Place,
    homes: Url,
    engine: Option<Engine>,
    periods: BTreeMap<RecordType, PeriodUnit>,
    retention: Retention,
    processing: Processing,
    event_window: EventWindow,
    backups_kept: Option<jiff::Span>,
    witness: PathBuf,
    regions: BTreeMap<Region, RegionConfig>,
    post: Option<PostConfig>,
    transport: Option<toml::Table>,
}

/// As which post this host may seal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostConfig {
    /// The identity of the post; the path is relative to the configuration.
    pub identity: PathBuf,
    /// Its bundles, each of another home.
    pub bundles: Vec<PathBuf>,
}

/// What is configured of one region.
#[derive(Debug, Clone)]
pub struct RegionConfig {
    /// The region and its jurisdiction.
    pub place: Place,
    /// Verifies what the region signed; pinned on every host.
    pub signing_key: VerifyingKey,
    /// The key service, where this host may use it.
    pub kms: Option<KmsConfig>,
    /// Who holds the region's branch keys, where it is not that key service alone.
    pub custody: Option<CustodyConfig>,
    /// Who holds those of tenants with custody of their own.
    pub tenants: BTreeMap<TenantId, CustodyConfig>,
    /// The region's key store.
    pub store: Url,
    /// URLs below which its finished segments may be kept in object stores: each ends with `/`, and that it lies in the
    /// region is the operator's word.
    pub objects: Vec<String>,
}

/// A key service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum KmsConfig {
    /// Key files on this host; paths are relative to the configuration.
    Local {
        /// The root-key file.
        root: PathBuf,
        /// The signing-key file.
        signing: PathBuf,
        /// Where the passphrase over the root-key file comes from, if it is under one.
        passphrase: Option<PassphraseSource>,
    },
    /// AWS KMS, in builds with the feature `aws`.
    Aws(AwsOptions),
    /// The Transit engine of HashiCorp Vault or OpenBao, in builds with the feature `vault`.
    Vault(VaultOptions),
    /// A hardware security module by PKCS#11, in builds with the feature `pkcs11`.
    Pkcs11(Pkcs11Options),
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Url {
    /// `sqlite://PATH`, relative to the configuration.
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`, as libpq has it.
    Postgres(PostgresUrl),
}

/// Where a PostgreSQL store is. No password stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PostgresUrl {
    text: String,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    here: Region,
    store: Option<String>,
    homes: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    engine: Option<String>,
    #[serde(default)]
    write_version: Option<u16>,
    #[serde(default)]
    periods: BTreeMap<RecordType, PeriodUnit>,
    #[serde(default)]
    retention: BTreeMap<Jurisdiction, BTreeMap<RecordType, String>>,
    #[serde(default)]
    processing: BTreeMap<Jurisdiction, Vec<String>>,
    #[serde(default)]
    event_window: FileEventWindow,
    #[serde(default)]
    erasure: FileErasure,
    witness: Option<PathBuf>,
    regions: BTreeMap<Region, FileRegion>,
    post: Option<PostConfig>,
    transport: Option<toml::Table>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEventWindow {
    back: Option<String>,
    ahead: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileErasure {
    backups_kept: Option<String>,
}

/// Who holds branch keys together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CustodyConfig {
    /// Who of them must agree.
    pub agreement: Agreement,
    /// The holders, by name, in the order of their names.
    pub holders: BTreeMap<String, KmsConfig>,
    /// Whether a tenant's keys go back under the region's branch keys: these open what lies under theirs until then.
    #[serde(default)]
    pub opens_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRegion {
    jurisdiction: Jurisdiction,
    signing_key: String,
    kms: Option<KmsConfig>,
    custody: Option<CustodyConfig>,
    #[serde(default)]
    tenants: BTreeMap<TenantId, CustodyConfig>,
    store: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    objects: Vec<String>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigMissing`](Code::ConfigMissing) when there is none; [`ConfigInvalid`](Code::ConfigInvalid),
    /// with the line, when it cannot be understood.
    pub fn read(path: &Path) -> Result<Self> {
        let file = fs::File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::new(Code::ConfigMissing, "there is no such configuration")
                .at(path.display().to_string())
                .because(source),
            _ => unreadable(path, source),
        })?;
        Self::read_from(file, path)
    }

    /// Finds and reads the nearest `domicile.toml` in `directory` or above it. What is judged and what is read is
    /// one open file, whatever its name is given to meanwhile.
    ///
    /// # Errors
    /// [`ConfigMissing`](Code::ConfigMissing) when there is none;
    /// [`ConfigUntrusted`](Code::ConfigUntrusted) when it, or the link in its place, belongs to another user, or
    /// anybody may write it; [`ConfigInvalid`](Code::ConfigInvalid) as [`read`](Self::read).
    pub fn find(directory: &Path) -> Result<Self> {
        for directory in directory.ancestors() {
            let path = directory.join(FILE_NAME);
            if let Some(file) = open_trusted(&path)? {
                return Self::read_from(file, &path);
            }
        }
        Err(Error::new(Code::ConfigMissing, format!("there is no {FILE_NAME} here or above"))
            .at(directory.display().to_string())
            .advise("set up a place with `domicile init`, or name a configuration with --config or DOMICILE_CONFIG"))
    }

    /// Reads what is open; `path` is where it was found.
    fn read_from(file: fs::File, path: &Path) -> Result<Self> {
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|source| unreadable(path, source))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::new(Code::ConfigInvalid, "this is too long for a configuration")
                .at(path.display().to_string())
                .rule("a configuration has at most 1 MiB"));
        }
        Self::parse(&text, path)
    }

    /// Understands a configuration. Paths in it are relative to the directory of `path`.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid), with the line where that is known.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let invalid = |what: String| Error::new(Code::ConfigInvalid, what).at(path.display().to_string());
        let file: File = toml::from_str(text).map_err(|source| {
            let line =
                source.span().map(|span| 1 + text.get(..span.start).unwrap_or("").matches('\n').count());
            let error = invalid(source.message().trim().to_owned());
            match line {
                Some(line) => error.at(format!("line {line}")),
                None => error,
            }
        })?;
        if let Some(version) = file.write_version.filter(|version| *version != 1) {
            return Err(invalid(format!(
                "write_version = {version} is not a version that this build writes"
            ))
            .rule("this build writes version 1"));
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let url = |text: &str, password_file: Option<&PathBuf>| {
            let password_file =
                password_file.or(file.password_file.as_ref()).map(|file| directory.join(file));
            Url::parse(text, directory, password_file).map_err(|error| error.at(path.display().to_string()))
        };
        let mut regions = BTreeMap::new();
        for (region, of_region) in file.regions {
            let store = of_region.store.as_deref().or(file.store.as_deref()).ok_or_else(|| {
                invalid(format!("there is no key store for {region}"))
                    .advise("add `store = \"sqlite://domicile.db\"`")
            })?;
            let place = Place { region: region.clone(), jurisdiction: of_region.jurisdiction };
            let signing_key = of_region.signing_key.parse().map_err(|error: Error| {
                error.at(format!("regions.{region}.signing_key")).at(path.display().to_string())
            })?;
            let kms = of_region.kms.map(|kms| kms.resolved(directory));
            let custody = of_region.custody.map(|custody| custody.resolved(directory));
            if custody.as_ref().is_some_and(|custody| custody.opens_only) {
                return Err(invalid(format!("the branch keys of {region} itself have to seal"))
                    .at(format!("regions.{region}.custody"))
                    .advise(
                        "say `opens_only = true` of a tenant's custody, which it had and has no longer",
                    ));
            }
            let tenants = of_region.tenants.into_iter();
            let tenants = tenants.map(|(tenant, custody)| (tenant, custody.resolved(directory))).collect();
            let store = url(store, of_region.password_file.as_ref())?;
            let objects = of_region.objects;
            if let Some(wrong) = objects.iter().find(|prefix| !is_prefix_of_objects(prefix)) {
                let shown = if wrong.contains(['@', '?']) { "this" } else { wrong };
                return Err(invalid(format!("{shown} is no URL below which objects lie"))
                    .at(format!("regions.{region}.objects"))
                    .rule("s3://BUCKET/, s3://BUCKET/PREFIX/ or file:///DIRECTORY/, without credentials, `..` or a query"));
            }
            regions
                .insert(region, RegionConfig { place, signing_key, kms, custody, tenants, store, objects });
        }
        if let Some((one, other)) = shared_objects(&regions) {
            return Err(invalid(format!("objects of {one} and of {other} would lie below each other"))
                .rule("where segments lie in an object store says which region they are of"));
        }
        let here = regions.get(&file.here).map(|region| region.place.clone()).ok_or_else(|| {
            invalid(format!("here = \"{}\" is not one of the regions", file.here))
                .advise(format!("add [regions.{}], or say where this host is", file.here))
        })?;
        let homes = file.homes.as_deref().or(file.store.as_deref()).ok_or_else(|| {
            invalid("there is no registry of homes".to_owned())
                .advise("add `homes = \"sqlite://domicile.db\"`")
        })?;
        let engine = match file.engine.as_deref() {
            None | Some("auto") => None,
            Some(name) => Some(name.parse().map_err(|error: Error| error.at(path.display().to_string()))?),
        };
        let post = file.post.map(|post| PostConfig {
            identity: directory.join(post.identity),
            bundles: post.bundles.iter().map(|bundle| directory.join(bundle)).collect(),
        });
        let at = |error: Error| error.at(path.display().to_string());
        let mut retention = Retention::default();
        for (jurisdiction, rules) in file.retention {
            for (record_type, after) in rules {
                let place = format!("retention.{jurisdiction}.{record_type}");
                retention
                    .add(jurisdiction.clone(), record_type, &after)
                    .map_err(|error| at(error.at(place)))?;
            }
        }
        let mut processing = Processing::default();
        for (jurisdiction, places) in file.processing {
            let at = |error: Error| at(error.at(format!("processing.{jurisdiction}")));
            let places = places.iter().map(|place| place.parse()).collect::<Result<_>>().map_err(at)?;
            processing.add(jurisdiction.clone(), places).map_err(at)?;
        }
        let usual = EventWindow::default();
        let span = |text: Option<String>, usual| text.map_or(Ok(usual), |text| retention::span(&text));
        let event_window = span(file.event_window.back, usual.back())
            .and_then(|back| EventWindow::new(back, span(file.event_window.ahead, usual.ahead())?))
            .map_err(|error| at(error.at("event_window")))?;
        let backups_kept = file.erasure.backups_kept.as_deref().map(retention::span).transpose();
        let backups_kept = backups_kept.map_err(|error| at(error.at("erasure.backups_kept")))?;
        let witness = match (file.witness, regions.get(&here.region).map(|region| &region.store)) {
            (Some(witness), _) => directory.join(witness),
            (None, Some(Url::Sqlite(store))) => store.with_extension("seen"),
            (None, _) => directory.join("domicile.seen"),
        };
        Ok(Self {
            post,
            transport: file.transport,
            homes: url(homes, None)?,
            path: path.to_owned(),
            here,
            engine,
            periods: file.periods,
            retention,
            processing,
            event_window,
            backups_kept,
            witness,
            regions,
        })
    }

    /// The file that this was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this host is.
    #[must_use]
    pub fn here(&self) -> &Place {
        &self.here
    }

    /// The registry of homes.
    #[must_use]
    pub fn homes(&self) -> &Url {
        &self.homes
    }

    /// The engine that is forced, if one is.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        self.engine
    }

    /// As which post this host may seal, if it is one.
    #[must_use]
    pub fn post(&self) -> Option<&PostConfig> {
        self.post.as_ref()
    }

    /// The table `[transport]` in the form that its reader gives it, if there is one: what it means is the business of
    /// `domicile-transport`.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when it has another form.
    pub fn transport<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(table) = &self.transport else { return Ok(None) };
        T::deserialize(table.clone()).map(Some).map_err(|source: toml::de::Error| {
            Error::new(Code::ConfigInvalid, source.message().trim().to_owned())
                .at("[transport]")
                .at(self.path.display().to_string())
        })
    }

    /// How long the periods of record types are, where they are not months.
    #[must_use]
    pub fn periods(&self) -> &BTreeMap<RecordType, PeriodUnit> {
        &self.periods
    }

    /// How long records are kept.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Where records may be processed, by the jurisdiction of their home.
    #[must_use]
    pub fn processing(&self) -> &Processing {
        &self.processing
    }

    /// How far from now event times may lie.
    #[must_use]
    pub fn event_window(&self) -> EventWindow {
        self.event_window
    }

    /// How long backups of the key stores are kept, if the operator says so.
    #[must_use]
    pub fn backups_kept(&self) -> Option<jiff::Span> {
        self.backups_kept
    }

    /// Where this host remembers what it saw of the key stores: beside its own region's SQLite store, or beside the
    /// configuration, where it does not say.
    #[must_use]
    pub fn witness(&self) -> &Path {
        &self.witness
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &BTreeMap<Region, RegionConfig> {
        &self.regions
    }
}

impl Config {
    /// The region whose segments may be kept at this URL of an object store, or below it; none if no region's may.
    #[must_use]
    pub fn region_of_objects(&self, url: &str) -> Option<&RegionConfig> {
        let plain = !has_steps(url);
        self.regions
            .values()
            .find(|region| plain && region.objects.iter().any(|prefix| url.starts_with(prefix)))
    }
}

/// Whether a URL can be written in two ways: by steps to where it is or above, or by what stands for other octets.
fn has_steps(url: &str) -> bool {
    url.contains('%') || url.split('/').any(|part| part == "." || part == "..")
}

fn is_prefix_of_objects(url: &str) -> bool {
    let rest = url
        .strip_prefix("s3://")
        .or_else(|| url.strip_prefix("file://").filter(|path| path.starts_with('/')));
    let Some((rest, of_s3)) = rest.map(|rest| (rest, url.starts_with("s3://"))) else { return false };
    let bucket = rest.split('/').next().unwrap_or_default();
    rest.ends_with('/')
        && of_s3 != bucket.is_empty()
        && !has_steps(url)
        && !rest.contains("//")
        && !rest.contains(['@', '?', '#', '\\'])
        && !rest.contains(char::is_whitespace)
}

/// Two regions of which one's objects would lie below the other's.
fn shared_objects(regions: &BTreeMap<Region, RegionConfig>) -> Option<(&Region, &Region)> {
    let all = || regions.iter().flat_map(|(name, of)| of.objects.iter().map(move |prefix| (name, prefix)));
    all().find_map(|(name, prefix)| {
        let (other, _) = all().find(|(other, below)| *other != name && below.starts_with(prefix.as_str()))?;
        Some((name, other))
    })
}

impl KmsConfig {
    /// The key service of a region. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when its options make no sense, or this build does not have it.
    pub fn open(&self, region: &Region) -> Result<Arc<dyn Kms>> {
        match self {
            KmsConfig::Local { root, signing, passphrase } => {
                let kms = LocalKms::new(region.clone(), root.clone(), signing.clone());
                Ok(Arc::new(match passphrase {
                    Some(passphrase) => kms.under(passphrase.clone()),
                    None => kms,
                }))
            }
            #[cfg(feature = "aws")]
            KmsConfig::Aws(options) => {
                Ok(Arc::new(crate::kms::AwsKms::new(region.clone(), options.clone())?))
            }
            #[cfg(feature = "vault")]
            KmsConfig::Vault(options) => {
                Ok(Arc::new(crate::kms::VaultKms::new(region.clone(), options.clone())?))
            }
            #[cfg(feature = "pkcs11")]
            KmsConfig::Pkcs11(options) => {
                Ok(Arc::new(crate::kms::Pkcs11Kms::new(region.clone(), options.clone())?))
            }
            #[cfg(not(feature = "aws"))]
            KmsConfig::Aws(_) => Err(not_built("AWS KMS", "aws", region)),
            #[cfg(not(feature = "vault"))]
            KmsConfig::Vault(_) => Err(not_built("HashiCorp Vault", "vault", region)),
            #[cfg(not(feature = "pkcs11"))]
            KmsConfig::Pkcs11(_) => Err(not_built("PKCS#11", "pkcs11", region)),
        }
    }

    fn resolved(self, directory: &Path) -> Self {
        match self {
            KmsConfig::Local { root, signing, passphrase } => KmsConfig::Local {
                root: directory.join(root),
                signing: directory.join(signing),
                passphrase: passphrase.map(|source| match source {
                    PassphraseSource::File(path) => PassphraseSource::File(directory.join(path)),
                    other => other,
                }),
            },
            KmsConfig::Aws(options) => KmsConfig::Aws(options),
            KmsConfig::Vault(options) => KmsConfig::Vault(options.resolved(directory)),
            KmsConfig::Pkcs11(options) => KmsConfig::Pkcs11(options.resolved(directory)),
        }
    }
}

#[cfg(not(all(feature = "aws", feature = "vault", feature = "pkcs11")))]
fn not_built(what: &str, feature: &str, region: &Region) -> Error {
    Error::new(Code::ConfigInvalid, format!("this build has no {what}"))
        .at(format!("regions.{region}.kms"))
        .advise(format!("build with the feature `{feature}`"))
}

impl CustodyConfig {
    fn resolved(mut self, directory: &Path) -> Self {
        self.holders = self.holders.into_iter().map(|(name, kms)| (name, kms.resolved(directory))).collect();
        self
    }
}

impl Url {
    fn parse(text: &str, directory: &Path, password_file: Option<PathBuf>) -> Result<Self> {
        if let Some(path) = text.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            return Ok(Url::Sqlite(directory.join(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let url = PostgresUrl { text: text.to_owned(), password_file };
            return url.refuse_password().map(|()| Url::Postgres(url));
        }
        // What is no URL may hold a password all the same.
        let shown = if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
        Err(Error::new(Code::ConfigInvalid, format!("{shown} is not the URL of a store"))
            .rule("a store is written sqlite://PATH or postgres://USER@HOST/DATABASE"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Url::Postgres(url) => url.fmt(f),
        }
    }
}

impl PostgresUrl {
    /// A URL without a password, and the file that holds it, if one does.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) for anything else.
    pub fn new(text: &str, password_file: Option<PathBuf>) -> Result<Self> {
        match Url::parse(text, Path::new(""), password_file)? {
            Url::Postgres(url) => Ok(url),
            Url::Sqlite(_) => {
                Err(Error::new(Code::ConfigInvalid, "this is not the URL of a PostgreSQL store"))
            }
        }
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The file whose first line is the password.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// A parameter behind the question mark, as it is written.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters();
        parameters.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.text.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    /// Configurations are copied, shown and sent about; a password in one would be too.
    fn refuse_password(&self) -> Result<()> {
        let authority = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let in_user = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        // An escaped name may be `password` as well.
        let in_query = self.parameters().any(|(name, _)| name.contains("password") || name.contains('%'));
        if !in_user && !in_query {
            return Ok(());
        }
        Err(Error::new(Code::ConfigInvalid, "there is a password in the URL of a store")
            .rule("a password stands in no configuration")
            .advise("name a file with `password_file = \"PATH\"`, or use PGPASSFILE; change the password"))
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Opens a configuration that nobody named, if there is one and it is to be trusted.
fn open_trusted(path: &Path) -> Result<Option<fs::File>> {
    let file = match open_for_reading(path, OFlags::NOFOLLOW) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link in somebody's directory may lead to a file of ours: both must be to be trusted.
        Err(source) if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => open_trusted_link(path)?,
        Err(source) => return Err(unreadable(path, source)),
    };
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    refuse_foreign(path, &metadata)?;
    if !metadata.is_file() {
        return Err(Error::new(Code::ConfigInvalid, "the nearest configuration is no file")
            .at(path.display().to_string()));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(untrusted(path, "anybody may write the nearest configuration", "chmod o-w it"));
    }
    Ok(Some(file))
}

/// Opens what a link of ours leads to. The link that is judged is the one that is read.
fn open_trusted_link(path: &Path) -> Result<fs::File> {
    let failed = |source: io::Error| unreadable(path, source);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::open(path, flags, Mode::empty()).map_err(|source| failed(source.into()))?;
    let link = fs::File::from(link);
    refuse_foreign(path, &link.metadata().map_err(failed)?)?;
    let target = rustix::fs::readlinkat(&link, "", Vec::new()).map_err(|source| failed(source.into()))?;
    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
    open_for_reading(&path.with_file_name("").join(target), OFlags::empty()).map_err(failed)
}

/// Opens a file; a pipe in its place is not waited for.
fn open_for_reading(path: &Path, flags: OFlags) -> io::Result<fs::File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | flags;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn refuse_foreign(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if files::belongs_to_us(metadata) {
        return Ok(());
    }
    Err(untrusted(path, "the nearest configuration belongs to another user", "name yours with --config"))
}

fn untrusted(path: &Path, what: &str, advice: &str) -> Error {
    Error::new(Code::ConfigUntrusted, what)
        .at(path.display().to_string())
        .rule("a configuration found by walking upward must belong to this user or to root")
        .advise(advice)
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::new(Code::ConfigInvalid, "the configuration cannot be read")
        .at(path.display().to_string())
        .because(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    fn with(change: impl Fn(String) -> String) -> Result<Config> {
        let text = format!(
            "here = \"eu\"\nstore = \"sqlite://s.db\"\n[regions.eu]\njurisdiction = \"EU\"\nsigning_key = \"{KEY}\"\n"
        );
        Config::parse(&change(text), Path::new("/etc/domicile.toml"))
    }

    #[test]
    fn objects_of_a_region_lie_below_its_own_prefixes() {
        let objects = |eu: &str, us: &str| {
            let us =
                format!("[regions.us]\njurisdiction = \"US\"\nsigning_key = \"{KEY}\"\nobjects = [{us}]\n");
            with(move |text| format!("{text}objects = [{eu}]\n{us}"))
        };
        let config = objects("\"s3://eu/kept/\", \"file:///srv/eu/\"", "\"s3://us/\"").unwrap();
        for (url, region) in [
            ("s3://eu/kept/", Some("eu")),
            ("s3://eu/kept/deeper/", Some("eu")),
            ("file:///srv/eu/", Some("eu")),
            ("s3://us/kept/", Some("us")),
            ("s3://eu/", None),
            ("s3://eu/kept", None),
            ("s3://eu/keptnot/", None),
            ("s3://eu/kept/../", None),
            ("s3://eu/kept/./x/", None),
            ("s3://eu/kept/%2e%2e/", None),
            ("S3://eu/kept/", None),
            ("s3://us.example/", None),
        ] {
            let found = config.region_of_objects(url).map(|region| region.place.region.to_string());
            assert_eq!(found.as_deref(), region, "{url}");
        }
        for wrong in [
            "s3://eu",
            "s3://eu/kept",
            "s3:///",
            "s3:///kept/",
            "file://srv/",
            "file:///srv",
            "gs://eu/",
            "eu/",
            "s3://me:secret@eu/",
            "s3://eu/?x=/",
            "s3://eu/#/",
            "s3://eu//",
            "s3://eu/../",
            "s3://eu/%2e/",
            "s3://eu /",
        ] {
            let error = objects(&format!("\"{wrong}\""), "").unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid, "{wrong}");
        }
        for (eu, us) in [("s3://a/", "s3://a/"), ("s3://a/", "s3://a/us/"), ("s3://a/eu/", "s3://a/")] {
            assert!(objects(&format!("\"{eu}\""), &format!("\"{us}\"")).is_err(), "{eu} {us}");
        }
        assert!(objects("\"s3://a/eu/\"", "\"s3://a/us/\"").is_ok());
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config =
            with(|text| text + "kms = { provider = \"local\", root = \"k/eu\", signing = \"/s/eu\" }\n")
                .unwrap();
        assert_eq!(config.homes(), &Url::Sqlite("/etc/s.db".into()));
        let kms = config.regions()[&"eu".parse().unwrap()].kms.clone().unwrap();
        assert_eq!(
            kms,
            KmsConfig::Local { root: "/etc/k/eu".into(), signing: "/s/eu".into(), passphrase: None }
        );
        for (written, expected) in [
            ("{ file = \"p\" }", PassphraseSource::File("/etc/p".into())),
            ("{ env = \"P\" }", PassphraseSource::Env("P".into())),
        ] {
            let kms = format!(
                "kms = {{ provider = \"local\", root = \"r\", signing = \"s\", passphrase = {written} }}\n"
            );
            let config = with(|text| text + &kms).unwrap();
            let Some(KmsConfig::Local { passphrase, .. }) = &config.regions()[&"eu".parse().unwrap()].kms
            else {
                panic!("{written}");
            };
            assert_eq!(passphrase.as_ref(), Some(&expected));
        }
        // Nobody writes a passphrase into a configuration.
        assert!(
            with(|text| text
                + "kms = { provider = \"local\", root = \"r\", signing = \"s\", passphrase = \"p\" }\n")
            .is_err()
        );
    }

    #[test]
    fn keys_at_aws_are_named_by_their_arns() {
        let arn = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let kms = |more: &str| {
            let kms =
                format!("kms = {{ provider = \"aws\", root = \"{arn}\", signing = \"{arn}\"{more} }}\n");
            with(move |text| text + &kms).map(|config| config.regions()[&"eu".parse().unwrap()].kms.clone())
        };
        let plain = AwsOptions::new(arn, arn);
        assert_eq!(kms("").unwrap(), Some(KmsConfig::Aws(plain.clone())));
        let full = kms(&format!(
            ", former = [\"{arn}\"], multi_region = [\"{arn}\"], endpoint = \"https://e\", profile = \"p\", role = \"r\""
        ));
        let (former, multi_region) = (vec![arn.to_owned()], vec![arn.to_owned()]);
        let (endpoint, profile, role) = (Some("https://e".into()), Some("p".into()), Some("r".into()));
        let options = AwsOptions { former, multi_region, endpoint, profile, role, ..plain.clone() };
        assert_eq!(full.unwrap(), Some(KmsConfig::Aws(options)));
        // A name that is not known may be a misspelt rule: it is never passed over.
        assert!(kms(", multiregion = []").is_err());
        assert_eq!(
            KmsConfig::Aws(plain).open(&"us-east-1".parse().unwrap()).unwrap_err().code(),
            Code::ConfigInvalid
        );
    }

    #[test]
    fn keys_at_vault_and_in_modules_are_named_and_their_credentials_lie_elsewhere() {
        let kms = |kms: &str| {
            let line = format!("kms = {{ {kms} }}\n");
            with(move |text| text + &line).map(|config| config.regions()[&"eu".parse().unwrap()].kms.clone())
        };
        let vault = "provider = \"vault\", address = \"https://v:8200\", root = \"r\", signing = \"s\"";
        let plain = VaultOptions::new("https://v:8200", "r", "s");
        assert_eq!(kms(vault).unwrap(), Some(KmsConfig::Vault(plain.clone())));
        let full = kms(&format!(
            "{vault}, mount = \"eu/transit\", signing_version = 2, namespace = \"n\", token_file = \"t\", ca_file = \"/ca\""
        ));
        let options = VaultOptions {
            mount: "eu/transit".into(),
            signing_version: Some(2),
            namespace: Some("n".into()),
            token_file: Some("/etc/t".into()),
            ca_file: Some("/ca".into()),
            ..plain.clone()
        };
        assert_eq!(full.unwrap(), Some(KmsConfig::Vault(options)));
        let role = kms(&format!("{vault}, role_id = \"i\", secret_id_file = \"f\", role_mount = \"m\""));
        let options = VaultOptions {
            role_id: Some("i".into()),
            secret_id_file: Some("/etc/f".into()),
            role_mount: "m".into(),
            ..plain.clone()
        };
        assert_eq!(role.unwrap(), Some(KmsConfig::Vault(options)));
        // Nobody writes a token into a configuration, and there is no address but the one that is written.
        assert!(kms(&format!("{vault}, token = \"hvs.1\"")).is_err());
        assert!(kms("provider = \"vault\", root = \"r\", signing = \"s\"").is_err());

        let module = "provider = \"pkcs11\", module = \"m.so\", token = \"t\", root = \"r\", signing = \"s\"";
        let options = Pkcs11Options::new("/etc/m.so", "t", "r", "s", "/etc/p");
        let read = kms(&format!("{module}, pin_file = \"p\"")).unwrap();
        assert_eq!(read, Some(KmsConfig::Pkcs11(options.clone())));
        let from_env = Pkcs11Options { pin_file: None, pin_env: Some("P".into()), ..options };
        assert_eq!(kms(&format!("{module}, pin_env = \"P\"")).unwrap(), Some(KmsConfig::Pkcs11(from_env)));
        assert!(kms(&format!("{module}, pin = \"1234\"")).is_err());
        // Without credentials, or without the feature.
        let region = "eu".parse().unwrap();
        let bare = kms(module).unwrap().unwrap();
        assert_eq!(bare.open(&region).unwrap_err().code(), Code::ConfigInvalid);
        let plain = VaultOptions { address: "http://v:8200".into(), ..plain };
        assert_eq!(KmsConfig::Vault(plain).open(&region).unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn a_password_stands_in_a_file_of_its_own() {
        let url =
            "postgres://recorder@db.eu.example:5433/keys?sslmode=verify-full&options=-csearch_path%3Deu";
        let config =
            with(|text| text.replace("sqlite://s.db\"", &format!("{url}\"\npassword_file = \"secret/pg\"")))
                .unwrap();
        let Url::Postgres(read) = config.homes() else { panic!("{:?}", config.homes()) };
        assert_eq!((read.as_str(), read.parameter("sslmode")), (url, Some("verify-full")));
        assert_eq!(read.password_file(), Some(Path::new("/etc/secret/pg")));
        let of_region =
            with(|text| text.replace("sqlite://s.db", url) + "password_file = \"/run/pg\"\n").unwrap();
        let Url::Postgres(read) = &of_region.regions()[&"eu".parse().unwrap()].store else { panic!() };
        assert_eq!(read.password_file(), Some(Path::new("/run/pg")));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, hint) in [
            ("here = \"eu\"", "here = \"us\"", "not one of the regions"),
            ("here = \"eu\"", "hear = \"eu\"", "unknown field"),
            ("\"EU\"", "\"eu\"", "line 4"),
            ("sqlite://s.db", "mysql://s.db", "not the URL of a store"),
            ("sqlite://s.db", "postgres://u:hush@h/d", "a password in the URL"),
            ("sqlite://s.db", "postgres://u@h/d?password=hush", "a password in the URL"),
            ("sqlite://s.db", "postgres://h/d?%70assword=hush", "a password in the URL"),
            ("sqlite://s.db", "postgress://u:hush@h/d", "not the URL of a store"),
            ("ed25519:3d", "ed25519:", "not a verifying key"),
            ("here = \"eu\"", "here = \"eu\"\nengine = \"openssl\"", "no engine"),
            ("here = \"eu\"", "here = \"eu\"\nwrite_version = 2", "write_version"),
            ("store = \"sqlite://s.db\"\n", "", "no key store"),
        ] {
            let error = with(|text| text.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(hint), "{to}: {error}");
            assert!(error.to_string().contains("/etc/domicile.toml"), "{to}: {error}");
            assert!(!format!("{error:?}").contains("hush"), "{to}: {error:?}");
        }
    }

    #[test]
    fn the_nearest_file_is_found_unless_anybody_may_write_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, format!("here = \"eu\"\nstore = \"sqlite://s.db\"\n[regions.eu]\njurisdiction = \"EU\"\nsigning_key = \"{KEY}\"\n")).unwrap();
        assert_eq!(Config::find(&below).unwrap().path(), path);
        // A link of ours is followed, from where it stands.
        let linked = directory.path().join("linked");
        fs::create_dir(&linked).unwrap();
        std::os::unix::fs::symlink("../domicile.toml", linked.join(FILE_NAME)).unwrap();
        assert_eq!(Config::find(&linked).unwrap().path(), linked.join(FILE_NAME));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(Config::find(&below).unwrap_err().code(), Code::ConfigUntrusted);
        // One that leads nowhere is not passed over: what lies above it was not meant.
        std::os::unix::fs::symlink("nowhere", below.join(FILE_NAME)).unwrap();
        assert_eq!(Config::find(&below).unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn a_pipe_in_place_of_the_nearest_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(Config::find(directory.path()).unwrap_err().code(), Code::ConfigInvalid);
    }

    #[test]
    fn files_and_links_of_others_are_not_read() {
        if !rustix::process::geteuid().is_root() {
            // Nobody else can be made to own anything.
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (path, ours) = (directory.path().join(FILE_NAME), directory.path().join("ours.toml"));
        fs::write(&ours, "").unwrap();
        std::os::unix::fs::symlink("ours.toml", &path).unwrap();
        assert_eq!(Config::find(directory.path()).unwrap_err().code(), Code::ConfigInvalid);
        std::os::unix::fs::lchown(&path, Some(12_345), None).unwrap();
        assert_eq!(Config::find(directory.path()).unwrap_err().code(), Code::ConfigUntrusted);
        fs::remove_file(&path).unwrap();
        fs::rename(&ours, &path).unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert_eq!(Config::find(directory.path()).unwrap_err().code(), Code::ConfigUntrusted);
    }

    #[test]
    fn a_configuration_without_end_is_refused() {
        assert_eq!(Config::read(Path::new("/dev/zero")).unwrap_err().code(), Code::ConfigInvalid);
    }
}
