//! The embedded default: one SQLite file is the key store of every region, and the registry of homes.

mod backup;
mod guards;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Executor, Row, Sqlite, SqliteConnection};

use super::check::{self, Condition, Findings};
use super::migration::{self, Migrated, Step};
use super::sql::{Connection, Lease, Part, Sql, Value, bound};
use crate::error::{Code, Error, Result};
use crate::files;

/// A key store and registry in one SQLite file.
///
/// Written ahead and synced at every commit, so that what a write returned is durable; deleted bytes are
/// overwritten at once. Several processes of one host may use it together.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    pool: SqlitePool,
    /// Whether it is a file that nobody writes: a copy.
    still: bool,
}

impl SqliteStore {
    /// Makes a new store, mode 0600; if it cannot be made, nothing is left of it.
    ///
    /// # Errors
    /// [`ConfigExists`](Code::ConfigExists) when the file exists;
    /// [`StoreUnavailable`](Code::StoreUnavailable) when it cannot be written.
    pub async fn create(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
            |source| {
                let code = match source.kind() {
                    std::io::ErrorKind::AlreadyExists => Code::ConfigExists,
                    _ => Code::StoreUnavailable,
                };
                Error::new(code, "the key store could not be made")
                    .at(path.display().to_string())
                    .because(source)
            },
        )?;
        let store = Self::connect(path);
        let made = store.fill().await;
        if made.is_err() {
            // Half a store is none, and this call made it.
            store.pool.close().await;
            for suffix in ["", "-wal", "-shm"] {
                let mut file = path.as_os_str().to_owned();
                file.push(suffix);
                let _ = std::fs::remove_file(file);
            }
        }
        made.map(|()| store)
    }

    /// Writes the schema into an empty file.
    async fn fill(&self) -> Result<()> {
        migration::create(self).await?;
        files::sync_directory(&self.path).map_err(|source| {
            Error::new(Code::StoreUnavailable, "the key store could not be made durable")
                .at(self.path.display().to_string())
                .because(source)
        })
    }

    /// Opens a store that exists.
    ///
    /// # Errors
    /// [`StoreUnavailable`](Code::StoreUnavailable) when it cannot be read;
    /// [`StoreInvalid`](Code::StoreInvalid) when it is no key store, or a newer one than this build writes.
    pub async fn open(path: &Path) -> Result<Self> {
        let store = Self::existing(path)?;
        migration::judge(&store).await?;
        Ok(store)
    }

    /// Brings a store's schema up to date, in two steps; see [`Step`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreInvalid`](Code::StoreInvalid) when it is to be contracted and was not expanded.
    pub async fn migrate(path: &Path, step: Step) -> Result<Migrated> {
        let store = Self::existing(path)?;
        let migrated = migration::migrate(&store, step, false).await;
        store.pool.close().await;
        migrated
    }

    /// Looks at a store without a key; nothing is changed.
    ///
    /// # Errors
    /// [`StoreUnavailable`](Code::StoreUnavailable) when it cannot be read. What is wrong with it is the answer.
    pub async fn examine(path: &Path) -> Result<Condition> {
        let store = Self::existing(path)?;
        let condition = check::examine(&store).await;
        store.pool.close().await;
        condition
    }

    fn existing(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::new(Code::StoreUnavailable, "there is no key store")
                .at(path.display().to_string())
                .advise("`domicile init` makes one; `store` in the configuration says where it is"));
        }
        Ok(Self::connect(path))
    }

    fn connect(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("secure_delete", "ON");
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        Self { path: PathBuf::from(path).into(), pool, still: false }
    }
}

#[async_trait]
impl Sql for SqliteStore {
    type Database = Sqlite;

    /// The transaction takes the write lock first: what it compares cannot change before it commits.
    // Whoever writes is alone.
    const KEEP: &'static str = "";
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const MARK: &'static str = "SELECT incarnation, NULL AS cluster, inserts,
         (SELECT coalesce(max(number), 0) FROM changes) AS changes FROM meta";
    const FIND_META: &'static str = "SELECT count(*) AS stores FROM sqlite_schema WHERE name = 'meta'";
    const SCHEMAS: &'static [&'static str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];
    const FIRST_SCHEMA: u32 = 1;
    /// A file answers; the busy timeout bounds how long it is waited for.
    const PATIENCE: Option<Duration> = None;
    const CLOCK: Option<&'static str> = None;

    fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        let message = source.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
        let error = if message.contains("no such table") || message.contains("not a database") {
            Error::new(Code::StoreInvalid, "this file is not a key store")
        } else if message.contains("malformed") {
            damaged(&message)
        } else {
            Error::new(Code::StoreUnavailable, "the key store failed")
                .advise("see that the file can be read and written, and that its disk is not full")
        };
        error.at(self.place()).because(source)
    }

    fn is_conflict(&self, _: &sqlx::Error) -> bool {
        false
    }

    async fn serialise(&self, _: &mut Lease<'_, Self>, _: Part) -> Result<()> {
        Ok(())
    }

    /// Brings the log of writes into the file and empties it: what was replaced is overwritten in the file
    /// (`secure_delete`), and gone from the log. Whether that was so in the end: a reader may hold it up.
    async fn scrub(&self) -> bool {
        for _ in 0..SCRUB_TRIES {
            let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.pool).await;
            if checkpoint.and_then(|row| row.try_get::<i64, _>(0)).is_ok_and(|busy| busy == 0) {
                return true;
            }
        }
        false
    }

    async fn guards(&self, findings: &mut Findings) -> Result<()> {
        guards::look(self, findings).await
    }
}

#[async_trait]
impl Connection for SqliteConnection {
    type Row = SqliteRow;

    async fn select(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<SqliteRow>, sqlx::Error> {
        bound::<Sqlite>(sql, values).fetch_all(self).await
    }

    async fn apply(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        Ok(bound::<Sqlite>(sql, values).execute(self).await?.rows_affected())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        Executor::execute(self, sqlx::raw_sql(sql)).await.map(drop)
    }
}

/// What SQLite cannot make sense of.
fn damaged(words: &str) -> Error {
    Error::new(
        Code::StoreCorrupt,
        format!("the file of the key store is damaged: {}", words.replace('\n', " ")),
    )
    .advise("restore it from a backup, then `domicile key replay`; see to its disk")
}

/// How often the log of writes is asked to empty itself; a reader of its end may be in the way, each time for the
/// busy timeout.
const SCRUB_TRIES: u32 = 3;
