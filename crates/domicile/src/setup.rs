//! Setting up a place: key files, a store, a configuration.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, FILE_NAME, Url};
use crate::error::{Code, Error, Result};
use crate::files;
use crate::kms::{Kms, LocalKms};
use crate::region::{Place, Region};
use crate::store::{KeyStore, SqliteStore};

const STORE: &str = "domicile.db";
const KEYS: &str = "keys";

/// Which stores a place is set up on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stores {
    /// The URL of the key store of all regions, as a configuration has it; none is the embedded default.
    pub store: Option<String>,
    /// The URL of the registry of homes; none is the key store.
    pub homes: Option<String>,
    /// The file whose first line is the password of PostgreSQL.
    pub password_file: Option<PathBuf>,
}

/// As [`init_on`], with the embedded default as key store and registry.
///
/// # Errors
/// As [`init_on`].
pub async fn init(directory: &Path, places: &[Place], here: &Region) -> Result<Config> {
    init_on(directory, places, here, &Stores::default()).await
}

/// Makes a root key and a signing key for each place, empty stores, and the configuration that names them, in `directory`.
/// The configuration is written last; if anything fails, what was made is removed, but for what was made in PostgreSQL,
/// which is empty and is taken up by the next call.
///
/// In a PostgreSQL database without a key store, one is made, with the [roles](crate::store::PostgresStore::ROLES): the
/// role of the URL is to own the tables and be allowed to make roles. Where there is one that its owner made, it is used,
/// and only read.
///
/// # Errors
/// [`ConfigExists`](Code::ConfigExists) when a place was set up here before, or a store is in use already;
/// [`ArgumentInvalid`](Code::ArgumentInvalid) when `here` is not among the places;
/// [`ConfigInvalid`](Code::ConfigInvalid) for a URL that cannot be understood;
/// [`OutputFailed`](Code::OutputFailed) when a file cannot be written; those of the stores.
pub async fn init_on(directory: &Path, places: &[Place], here: &Region, stores: &Stores) -> Result<Config> {
    let config = directory.join(FILE_NAME);
    if config.symlink_metadata().is_ok() {
        return Err(Error::new(Code::ConfigExists, "a place was set up here before")
            .at(config.display().to_string())
            .advise("keep it: what its keys sealed opens with nothing else"));
    }
    if !places.iter().any(|place| place.region == *here) {
        return Err(Error::new(Code::ArgumentInvalid, format!("{here} is not among the regions"))
            .advise(format!("add --region {here}=JURISDICTION, or say --here with one of them")));
    }
    let mut made = Made::default();
    match make(directory, places, here, stores, &config, &mut made).await {
        Ok(()) => Config::read(&config),
        Err(error) => {
            made.remove();
            Err(error)
        }
    }
}

/// What this call made, to take it back if it does not succeed.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn remove(&self) {
        for path in self.0.iter().rev() {
            // A directory that holds anything else stays, and so does what is gone already.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

async fn make(
    directory: &Path,
    places: &[Place],
    here: &Region,
    stores: &Stores,
    config: &Path,
    made: &mut Made,
) -> Result<()> {
    let failed = |path: &Path| {
        let place = path.display().to_string();
        move |source: io::Error| Error::output_failed("this could not be made", source).at(place)
    };
    let keys = directory.join(KEYS);
    for (path, mode) in [(directory, 0o755), (&keys, 0o700)] {
        if !path.is_dir() {
            fs::DirBuilder::new().mode(mode).create(path).map_err(failed(path))?;
            made.0.push(path.to_owned());
            files::sync_directory(path).map_err(failed(path))?;
        }
    }
    let store = stores.store.clone().unwrap_or_else(|| format!("sqlite://{STORE}"));
    let what = if stores.homes.is_none() { ", and the registry of homes" } else { "" };
    let mut text = format!(
        "# Where this host is. Whatever is at home elsewhere in another jurisdiction is not opened here.\n\
         here = \"{here}\"\n\
         # The key store of all regions{what}. What it loses opens with nothing else.\n\
         store = {}\n",
        toml::Value::String(store)
    );
    // Writing to a String cannot fail.
    if let Some(homes) = &stores.homes {
        let _ = writeln!(text, "# The registry of homes.\nhomes = {}", toml::Value::String(homes.clone()));
    }
    if let Some(file) = &stores.password_file {
        let absolute = std::path::absolute(file).map_err(failed(file))?;
        let name = absolute.to_str().ok_or_else(|| {
            Error::new(Code::ArgumentInvalid, "the name of the password file is no text")
                .at(file.display().to_string())
        })?;
        let _ = writeln!(text, "password_file = {}", toml::Value::String(name.to_owned()));
    }
    for Place { region, jurisdiction } in places {
        let (root, signing) = (format!("{KEYS}/{region}.root"), format!("{KEYS}/{region}.signing"));
        let kms = LocalKms::create(region.clone(), directory.join(&root), directory.join(&signing))?;
        made.0.extend([directory.join(&root), directory.join(&signing)]);
        let key = kms.describe().await?.verifying_key;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[regions.{region}]\n\
             jurisdiction = \"{jurisdiction}\"\n\
             signing_key = \"{key}\"\n\
             kms = {{ provider = \"local\", root = \"{root}\", signing = \"{signing}\" }}\n"
        );
    }
    // What is written is read back before it is.
    let parsed = Config::parse(&text, config)?;
    let mut urls = vec![parsed.homes()];
    urls.extend(parsed.regions().values().map(|region| &region.store));
    urls.sort_by_key(ToString::to_string);
    urls.dedup();
    for url in urls {
        make_store(url, made).await?;
    }

    let mut write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(config)?;
        made.0.push(config.to_owned());
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        files::sync_directory(config)
    };
    write().map_err(failed(config))
}

async fn make_store(url: &Url, made: &mut Made) -> Result<()> {
    match url {
        Url::Sqlite(path) => {
            KeyStore::close(&SqliteStore::create(path).await?).await;
            made.0.extend(["", "-wal", "-shm"].map(|suffix| {
                let mut file = path.as_os_str().to_owned();
                file.push(suffix);
                PathBuf::from(file)
            }));
            Ok(())
        }
        #[cfg(feature = "postgres")]
        Url::Postgres(url) => make_postgres(url).await,
        #[cfg(not(feature = "postgres"))]
        Url::Postgres(_) => Err(Error::new(Code::ConfigInvalid, "this build has no such store")
            .at(url.to_string())
            .advise("build with the feature `postgres`")),
    }
}

/// Makes a store where there is none; takes one that is empty.
#[cfg(feature = "postgres")]
async fn make_postgres(url: &crate::config::PostgresUrl) -> Result<()> {
    use crate::store::{HomeRegistry, PostgresStore, Step};
    let store = match PostgresStore::open(url).await {
        Err(error) if error.code() == Code::StoreInvalid => {
            let migrated = PostgresStore::migrate(url, Step::Expand).await?;
            if migrated.before.is_none() {
                PostgresStore::make_roles(url).await.map_err(|error| {
                    let what = "the tables were made, and the roles were not";
                    Error::new(error.code(), what).at(url.to_string()).because(error).advise(
                        "have a role that may make roles run crates/domicile/src/store/postgres/roles.sql, \
                         and set up again",
                    )
                })?;
            }
            PostgresStore::open(url).await?
        }
        opened => opened?,
    };
    let mark = store.mark().await;
    let homes = store.homes(None).await;
    KeyStore::close(&store).await;
    if mark?.inserts == 0 && homes?.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::ConfigExists, "this store is in use already")
        .at(url.to_string())
        .rule("root keys are made once for a store: it opens with nothing else")
        .advise("copy the configuration and the key files of a host that uses it; or name an empty database"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<Place> {
        vec![
            Place { region: "us-east-1".parse().unwrap(), jurisdiction: "US".parse().unwrap() },
            Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
        ]
    }

    #[tokio::test]
    async fn a_place_is_set_up_once_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let here = "eu-central-1".parse().unwrap();
        let config = init(directory.path(), &places(), &here).await.unwrap();
        assert_eq!(config.here().region, here);
        assert_eq!(config.regions().len(), 2);
        let again = init(directory.path(), &places(), &here).await.unwrap_err();
        assert_eq!(again.code(), Code::ConfigExists);
        crate::Domicile::from_config(&config).await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_setup_leaves_nothing_and_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join(KEYS).join("eu-central-1.root");
        fs::create_dir(directory.path().join(KEYS)).unwrap();
        fs::write(&kept, "mine").unwrap();
        let error = init(directory.path(), &places(), &"eu-central-1".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.code(), Code::ConfigExists);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path().join(KEYS)).unwrap().count(), 1);
        assert!(!directory.path().join(FILE_NAME).exists());

        let elsewhere =
            init(directory.path(), &places(), &"ap-southeast-2".parse().unwrap()).await.unwrap_err();
        assert_eq!(elsewhere.code(), Code::ArgumentInvalid);
    }
}
