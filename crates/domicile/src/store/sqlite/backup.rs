//! A copy of an SQLite store, taken while others use it.

use std::path::Path;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::SqliteStore;
use crate::error::{Code, Error, Result};
use crate::files::NewFile;
use crate::region::Region;
use crate::store::check::{self, texts};
use crate::store::{BackedUp, Finding, KeyStore, Severity, migration};

impl SqliteStore {
    /// Copies the store as it stands at one instant into a new file, mode 0600, that appears under its name when it was
    /// checked and is durable; it holds no deleted bytes.
    ///
    /// # Errors
    /// [`OutputExists`](Code::OutputExists) when the file exists and shall not be replaced;
    /// [`StoreCorrupt`](Code::StoreCorrupt) when the copy is not whole: nothing is left of it; those of
    /// [`open`](Self::open), and [`OutputFailed`](Code::OutputFailed).
    pub async fn backup(path: &Path, target: &Path, replace: bool) -> Result<BackedUp> {
        let store = Self::existing(path)?;
        let copied = store.copied(target, replace).await;
        store.pool.close().await;
        copied
    }

    async fn copied(&self, target: &Path, replace: bool) -> Result<BackedUp> {
        migration::judge(self).await?;
        let file = NewFile::create(target, 0o600, replace)?;
        let place = target.display().to_string();
        let unnamed = || {
            Error::new(Code::OutputFailed, "a backup is a file whose name is text")
                .at(place.clone())
                .advise("name a file: SQLite writes it, and no pipe or device")
        };
        let written = file.written_at().ok_or_else(unnamed)?.to_owned();
        let name = written.to_str().ok_or_else(unnamed)?;
        // One read transaction: what is committed meanwhile is not in it.
        let vacuumed = sqlx::query("VACUUM INTO ?").bind(name).execute(&self.pool).await;
        vacuumed.map_err(|source| {
            Error::new(Code::OutputFailed, "the key store could not be copied")
                .at(place.clone())
                .advise("see that there is room on the disk, and that the store can be read")
                .because(source)
        })?;
        let copy = Self { path: written.as_path().into(), pool: still(&written), still: true };
        let described = copy.described().await;
        copy.pool.close().await;
        let described = described.map_err(|error| error.at(place))?;
        file.publish()?;
        Ok(described)
    }

    /// What stands in a copy that is whole.
    async fn described(&self) -> Result<BackedUp> {
        let condition = check::examine(self).await?;
        let broken = condition.findings.iter().find(|finding| {
            finding.severity == Severity::Wrong
                && [Code::StoreCorrupt, Code::StoreInvalid].contains(&finding.code)
        });
        if let Some(Finding { what, .. }) = broken {
            let what = format!("the copy is not kept, because the store is not whole: {what}");
            return Err(Error::new(Code::StoreCorrupt, what).advise("domicile store check"));
        }
        let mut ledgers = Vec::new();
        for region in texts(self, "SELECT DISTINCT region FROM ledger ORDER BY region", "region").await? {
            let region: Region = region.parse()?;
            let head = self.ledger_head(&region).await?;
            ledgers.push((region, head.map_or(0, |head| head.number)));
        }
        let mark = match condition.mark {
            Some(mark) => mark,
            None => self.mark().await?,
        };
        Ok(BackedUp {
            mark,
            keys: condition.keys,
            homes: condition.homes,
            ledgers,
            findings: condition.findings,
        })
    }
}

/// A file that nobody writes: nothing is made beside it.
fn still(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options)
}
