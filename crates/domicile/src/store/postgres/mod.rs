//! The key store of a fleet: one PostgreSQL database, of which the primary alone is asked.

mod guards;

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::{Connection as _, Executor, PgConnection, Postgres};

use super::check::{self, Condition, Findings};
use super::migration::{self, Migrated, Step};
use super::sql::{Connection, Lease, Part, Sql, Value, bound};
use crate::config::PostgresUrl;
use crate::error::{Code, Error, Result};
use crate::files;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the server works on one statement, and waits for a lock.
const STATEMENT: &str = "30s";
const LOCK: &str = "10s";

/// A key store and registry in a PostgreSQL database.
///
/// What a write returned is durable on the primary and on the standbys that `synchronous_standby_names` names. Any
/// number of processes may use it together.
#[derive(Clone)]
pub struct PostgresStore {
    place: Arc<str>,
    pool: PgPool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// The roles that programs log in with, as SQL to be run by the owner of the tables.
    pub const ROLES: &str = include_str!("roles.sql");

    /// Opens a store that exists.
    ///
    /// # Errors
    /// [`StoreUnavailable`](Code::StoreUnavailable) when the server cannot be reached, refuses, is a standby, or
    /// does not make durable what it commits; [`StoreInvalid`](Code::StoreInvalid) when the database has no key store,
    /// or one of another version; [`ConfigInvalid`](Code::ConfigInvalid) for a URL that cannot be understood.
    pub async fn open(url: &PostgresUrl) -> Result<Self> {
        let store = Self::connect(url).await?;
        migration::judge(&store).await?;
        Ok(store)
    }

    /// Makes a store in a database that has none, or brings its schema up to date, in two steps; see [`Step`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreInvalid`](Code::StoreInvalid) when it is to be contracted and was not expanded.
    pub async fn migrate(url: &PostgresUrl, step: Step) -> Result<Migrated> {
        let store = Self::connect(url).await?;
        let migrated = migration::migrate(&store, step, true).await;
        store.pool.close().await;
        migrated
    }

    /// Looks at a store without a key; nothing is changed.
    ///
    /// # Errors
    /// As [`open`](Self::open), but that what is wrong with the store is the answer.
    pub async fn examine(url: &PostgresUrl) -> Result<Condition> {
        let store = Self::connect(url).await?;
        let condition = check::examine(&store).await;
        store.pool.close().await;
        condition
    }

    /// Makes the [roles](Self::ROLES), as the owner of the tables, who must be allowed to make roles.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn make_roles(url: &PostgresUrl) -> Result<()> {
        let store = Self::connect(url).await?;
        let made = Executor::execute(&store.pool, sqlx::raw_sql(Self::ROLES)).await;
        store.pool.close().await;
        made.map(drop).map_err(|source| store.failed(source))
    }

    /// Why there is no backup of it by Domicile: the advice is the command that makes one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn dumped_by_its_own_tools(url: &PostgresUrl) -> Result<Error> {
        let store = Self::open(url).await?;
        let schema = check::texts(&store, "SELECT current_schema()::text AS schema", "schema").await;
        store.pool.close().await;
        let schema = schema?.join("");
        // The password is in the environment of one process, and on no command line.
        let password = url.password_file().map_or(String::new(), |path| {
            format!("PGPASSWORD=\"$(head -n 1 {})\" ", quoted(&path.display().to_string()))
        });
        let command = format!(
            "{password}pg_dump --format=custom --schema={} --file=FILE --dbname={}",
            quoted(&schema),
            quoted(url.as_str())
        );
        Ok(Error::new(Code::ArgumentInvalid, "a store in PostgreSQL is copied by PostgreSQL's own tools")
            .at(store.place())
            .rule("the copy is taken by the owner of the tables, and put back with pg_restore; then `domicile key replay`")
            .advise(command))
    }

    /// Reaches the server once, so that its own words say why it cannot be; the pool would try again and tell nothing.
    async fn connect(url: &PostgresUrl) -> Result<Self> {
        let options = connect_options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| Box::pin(refuse_unfit(connection)));
        let store = Self { place: url.to_string().into(), pool: pool.connect_lazy_with(options.clone()) };
        let reached = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            refuse_unfit(&mut connection).await?;
            connection.close().await
        };
        let reached = tokio::time::timeout(CONNECT, reached).await;
        reached.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(|source| store.failed(source))?;
        Ok(store)
    }
}

/// The options of a connection. Nothing of them is shown: they hold the password.
fn connect_options(url: &PostgresUrl) -> Result<PgConnectOptions> {
    let invalid = |what: &str| Error::new(Code::ConfigInvalid, what).at(url.to_string());
    let mut options = PgConnectOptions::from_str(url.as_str())
        .map_err(|source| invalid("this is not the URL of a PostgreSQL database").because(source))?;
    if let Some(path) = url.password_file() {
        options = options.password(&read_password(path)?);
    }
    // What goes over a network goes to the server that was meant, unless the URL says otherwise.
    let said = url.parameter("sslmode").is_some() || std::env::var_os("PGSSLMODE").is_some();
    let socket = options.get_socket().is_some() || options.get_host().starts_with('/');
    if !said && !socket && !is_loopback(options.get_host()) {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options.options([
        ("statement_timeout", STATEMENT),
        ("lock_timeout", LOCK),
        ("idle_in_transaction_session_timeout", STATEMENT),
    ]))
}

/// As a shell reads it back.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads the first line of a file that nobody else can read.
fn read_password(path: &Path) -> Result<String> {
    let failed = |what: &str| Error::new(Code::StoreUnavailable, what).at(path.display().to_string());
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = fs::OpenOptions::new().read(true).custom_flags(no_link).open(path);
    let file = file.map_err(|source| failed("the password file cannot be read").because(source))?;
    let metadata =
        file.metadata().map_err(|source| failed("the password file cannot be read").because(source))?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || !files::belongs_to_us(&metadata) {
        return Err(failed("others can read or replace the password file")
            .rule("a password file is a file of this user or root with mode 0600")
            .advise("chmod 600 it, and change the password if it may have been read"));
    }
    let mut text = String::new();
    let read = file.take(4096).read_to_string(&mut text);
    read.map_err(|source| failed("the password file cannot be read").because(source))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Why a server that answers is none to keep keys in.
#[derive(Debug, Clone, Copy)]
enum Unfit {
    Standby,
    NotDurable,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Standby => "this server is a standby",
            Unfit::NotDurable => "synchronous_commit or fsync is off here: what is committed may be lost",
        })
    }
}

impl std::error::Error for Unfit {}

/// Refuses a server that is no primary, or does not make durable what it commits.
async fn refuse_unfit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let sql = "SELECT pg_is_in_recovery() AS standby,
         current_setting('synchronous_commit') IN ('on', 'remote_apply') AND current_setting('fsync') = 'on' AS durable";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    let is = |name: &str| sqlx::Row::try_get::<bool, _>(&row, name);
    if is("standby")? {
        return Err(sqlx::Error::Configuration(Box::new(Unfit::Standby)));
    }
    if !is("durable")? {
        return Err(sqlx::Error::Configuration(Box::new(Unfit::NotDurable)));
    }
    Ok(())
}

#[async_trait]
impl Sql for PostgresStore {
    type Database = Postgres;

    const KEEP: &'static str = " FOR SHARE";
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    /// Another cluster has another system identifier, a promoted standby or a cluster brought back to an earlier time
    /// another timeline, a dump brought back another database or other tables. The timeline is the one that is written
    /// now: the control file knows of it only from the next checkpoint on. Anybody may call these functions.
    const MARK: &'static str = "SELECT incarnation,
         (SELECT system_identifier FROM pg_control_system())
             || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
             || '-' || (SELECT oid FROM pg_database WHERE datname = current_database())
             || '.' || 'meta'::regclass::oid AS cluster,
         (SELECT coalesce(max(number), 0) FROM keys) AS inserts,
         (SELECT coalesce(max(number), 0) FROM changes) AS changes
         FROM meta";
    const FIND_META: &'static str = "SELECT count(to_regclass('meta')) AS stores";
    const SCHEMAS: &'static [&'static str] = &[include_str!("schema_2.sql")];
    const FIRST_SCHEMA: u32 = 2;
    /// The server gives up first; this is for one that is gone without a word.
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(35));
    const CLOCK: Option<&'static str> =
        Some("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros");

    fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn place(&self) -> String {
        self.place.to_string()
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        let state = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .unwrap_or_default()
            .into_owned();
        let unfit = match &source {
            sqlx::Error::Configuration(cause) => cause.downcast_ref::<Unfit>().copied(),
            _ => None,
        };
        let (code, what, advice) = match (state.as_str(), unfit) {
            (_, Some(Unfit::Standby)) | ("25006", _) => (
                Code::StoreUnavailable,
                "this is a standby of the key store",
                "name the primary in the URL: a standby may not know yet what was erased",
            ),
            (_, Some(Unfit::NotDurable)) => (
                Code::StoreUnavailable,
                "this server does not make durable what it commits",
                "set synchronous_commit and fsync to on: a key that is lost takes its records with it",
            ),
            ("42501", _) => (
                Code::StoreUnavailable,
                "the role may not do this in the key store",
                "grant it domicile_reader, domicile_writer or domicile_officer, whichever its work needs",
            ),
            ("42P01" | "3F000" | "42703", _) => (
                Code::StoreInvalid,
                "there is no key store in this database",
                "`domicile store migrate` makes one; see that the URL names its schema",
            ),
            ("28P01" | "28000", _) => (
                Code::StoreUnavailable,
                "the server does not let this role in",
                "see its name and password (`password_file`, PGPASSFILE), and pg_hba.conf",
            ),
            ("3D000", _) => (
                Code::StoreUnavailable,
                "there is no such database",
                "create it, then `domicile store migrate`",
            ),
            ("57014" | "55P03" | "40001" | "40P01", _) => (
                Code::StoreUnavailable,
                "the key store was busy for too long",
                "try again; see pg_stat_activity for what holds it up",
            ),
            ("23505" | "23503" | "23000", _) => (
                Code::StoreUnavailable,
                "the key store refuses what contradicts it",
                "nothing was written; see the cause",
            ),
            _ => (
                Code::StoreUnavailable,
                "the key store is out of reach",
                "see that the server runs and can be reached from here",
            ),
        };
        Error::new(code, what).at(self.place()).advise(advice).because(source)
    }

    fn is_conflict(&self, source: &sqlx::Error) -> bool {
        // A serialization failure, or a deadlock.
        source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| ["40001", "40P01"].contains(&code.as_ref()))
    }

    async fn serialise(&self, work: &mut Lease<'_, Self>, part: Part) -> Result<()> {
        let sql = match part {
            Part::Keys => "SELECT value FROM counters WHERE name = 'changes' FOR UPDATE",
            Part::Homes => "SELECT value FROM counters WHERE name = 'homes' FOR UPDATE",
            // There is no table yet; the number is this line's own.
            Part::Schema => "SELECT pg_advisory_xact_lock(7236837021934512)",
        };
        work.rows(sql, &[]).await.map(drop)
    }

    /// Old rows stay in the files until they are vacuumed, in the log and its archive, and on standbys: nothing is
    /// claimed.
    async fn scrub(&self) -> bool {
        false
    }

    async fn guards(&self, findings: &mut Findings) -> Result<()> {
        guards::look(self, findings).await
    }
}

#[async_trait]
impl Connection for PgConnection {
    type Row = PgRow;

    async fn select(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<PgRow>, sqlx::Error> {
        bound::<Postgres>(sql, values).fetch_all(self).await
    }

    async fn apply(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        Ok(bound::<Postgres>(sql, values).execute(self).await?.rows_affected())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        Executor::execute(self, sqlx::raw_sql(sql)).await.map(drop)
    }
}
