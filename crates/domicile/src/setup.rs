//! Setting up a place on the embedded default: key files, a store, a configuration.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, FILE_NAME};
use crate::error::{Code, Error, Result};
use crate::files;
use crate::kms::{Kms, LocalKms};
use crate::region::{Place, Region};
use crate::store::{KeyStore, SqliteStore};

const STORE: &str = "domicile.db";
const KEYS: &str = "keys";

/// Makes a root key and a signing key for each place, an empty store, and the configuration that names
/// them, in `directory`. The configuration is written last; if anything fails, what was made is removed.
///
/// # Errors
/// [`ConfigExists`](Code::ConfigExists) when a place was set up here before;
/// [`ArgumentInvalid`](Code::ArgumentInvalid) when `here` is not among the places;
/// [`OutputFailed`](Code::OutputFailed) when a file cannot be written.
pub async fn init(directory: &Path, places: &[Place], here: &Region) -> Result<Config> {
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
    match make(directory, places, here, &config, &mut made).await {
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
    let mut text = format!(
        "# Where this host is. Whatever is at home elsewhere in another jurisdiction is not opened here.\n\
         here = \"{here}\"\n\
         # The key store of all regions, and the registry of homes. What it loses opens with nothing else.\n\
         store = \"sqlite://{STORE}\"\n"
    );
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
    let store = directory.join(STORE);
    KeyStore::close(&SqliteStore::create(&store).await?).await;
    made.0.extend(["", "-wal", "-shm"].map(|suffix| directory.join(format!("{STORE}{suffix}"))));

    let mut write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(config)?;
        made.0.push(config.to_owned());
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        files::sync_directory(config)
    };
    write().map_err(failed(config))
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
