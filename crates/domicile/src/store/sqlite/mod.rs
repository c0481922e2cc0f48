//! The embedded default: one SQLite file is the key store of every region, and the registry of homes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Executor, Row, SqliteConnection};

use super::{
    Change, Chosen, Floor, HomeRegistry, Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState, KeyStore,
    LedgerEntry, RowFilter, RowWrite, SignedChoices, StoreMark, StoredKey, Write, Written,
};
use crate::chain::{ChainBeginning, ChainId, SealedEvent};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::files;
use crate::hex;
use crate::home::{ChosenHome, HomeChoice, SignedStatement};
use crate::puncture::LeafNumber;
use crate::random::{OsRandom, Randomness};
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::time::Time;

/// What was written by each version of the schema, in order; the last is what this build reads and writes.
const SCHEMAS: [&str; 2] = [include_str!("schema_1.sql"), include_str!("schema_2.sql")];
const SCHEMA: i64 = 2;

/// A key store and registry in one SQLite file.
///
/// Written ahead and synced at every commit, so that what a write returned is durable; deleted bytes are
/// overwritten at once. Several processes of one host may use it together.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    pool: SqlitePool,
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
        let mut incarnation = [0; 16];
        OsRandom.fill(&mut incarnation)?;
        let mut transaction = self.pool.begin().await.map_err(|source| self.unavailable(source))?;
        for schema in SCHEMAS {
            let made = transaction.execute(sqlx::raw_sql(schema)).await;
            made.map_err(|source| self.unavailable(source))?;
        }
        sqlx::query("INSERT INTO meta VALUES (?1, ?1, ?1, ?2, 0)")
            .bind(SCHEMA)
            .bind(&incarnation[..])
            .execute(&mut *transaction)
            .await
            .map_err(|source| self.unavailable(source))?;
        transaction.commit().await.map_err(|source| self.unavailable(source))?;
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
        let store = Self::connect(path);
        if !path.is_file() {
            return Err(Error::new(Code::StoreUnavailable, "there is no key store")
                .at(path.display().to_string())
                .advise("`domicile init` makes one; `store` in the configuration says where it is"));
        }
        let invalid = |what: &str| Error::new(Code::StoreInvalid, what).at(path.display().to_string());
        let row = sqlx::query("SELECT schema, min_reader, min_writer FROM meta")
            .fetch_one(&store.pool)
            .await
            .map_err(|source| match &source {
                sqlx::Error::Database(error) if error.message().contains("no such table") => {
                    invalid("this SQLite file is not a key store").because(source)
                }
                sqlx::Error::Database(error) if error.message().contains("not a database") => {
                    invalid("this file is not a key store").because(source)
                }
                _ => store.unavailable(source),
            })?;
        let needed: i64 = std::cmp::max(store.column(&row, "min_reader")?, store.column(&row, "min_writer")?);
        if needed > SCHEMA {
            return Err(invalid("this key store was made by a newer Domicile")
                .advise("use that version or a newer one"));
        }
        if store.column::<i64>(&row, "schema")? < SCHEMA {
            return Err(invalid("this key store was made by an older Domicile")
                .advise("`domicile store migrate` brings it up to date; back it up before"));
        }
        Ok(store)
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
        Self { path: PathBuf::from(path).into(), pool }
    }

    fn unavailable(&self, source: sqlx::Error) -> Error {
        Error::new(Code::StoreUnavailable, "the key store failed")
            .at(self.path.display().to_string())
            .advise("see that the file can be read and written, and that its disk is not full")
            .because(source)
    }

    fn column<'r, T>(&self, row: &'r SqliteRow, name: &'static str) -> Result<T>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name)
            .map_err(|source| unreadable_row(name).at(self.path.display().to_string()).because(source))
    }

    fn key_row(&self, row: &SqliteRow) -> Result<KeyRow> {
        let text = |name| self.column::<&str>(row, name);
        let number = |name| self.column::<i64>(row, name);
        let bad = |name: &'static str| unreadable_row(name).at(self.path.display().to_string());
        let small = |name| number(name).and_then(|value| u32::try_from(value).map_err(|_| bad(name)));
        let code = |name| number(name).and_then(|value| u8::try_from(value).map_err(|_| bad(name)));
        Ok(KeyRow {
            identity: KeyIdentity {
                slot: KeySlot {
                    kind: KeyKind::from_code(code("kind")?).ok_or_else(|| bad("kind"))?,
                    region: text("region")?.parse()?,
                    scope: Scope {
                        tenant: TenantId::stored(text("tenant")?)?,
                        record_type: RecordType::stored(text("record_type")?)?,
                    },
                    period: text("period")?.parse().map_err(|_| bad("period"))?,
                },
                version: small("version")?,
            },
            generation: number("generation")?.try_into().map_err(|_| bad("generation"))?,
            state: KeyState::from_code(code("state")?).ok_or_else(|| bad("state"))?,
            name: KeyName(self.column::<&[u8]>(row, "name")?.try_into().map_err(|_| bad("name"))?),
            commitment: self.column::<&[u8]>(row, "commitment")?.try_into().map_err(|_| bad("commitment"))?,
            parent_version: small("parent_version")?,
            sealed: self.column(row, "sealed")?,
        })
    }

    fn chosen_home(&self, row: &SqliteRow) -> Result<ChosenHome> {
        let body: Option<Vec<u8>> = self.column(row, "body")?;
        let signature: Option<Vec<u8>> = self.column(row, "signature")?;
        Ok(ChosenHome {
            choice: HomeChoice {
                tenant: self.column::<&str>(row, "tenant")?.parse()?,
                types: self.column::<&str>(row, "record_type")?.parse()?,
                region: self.column::<&str>(row, "region")?.parse()?,
            },
            chosen: Time::from_micros(self.column(row, "chosen")?)?,
            own: self.column::<Option<bool>>(row, "own")?.unwrap_or_default(),
            statement: body.zip(signature).map(|(body, signature)| SignedStatement { body, signature }),
        })
    }

    fn stored_key(&self, row: &SqliteRow) -> Result<StoredKey> {
        let bad = |name| unreadable_row(name).at(self.path.display().to_string());
        let number = |name: &'static str| {
            let number: Option<i64> = self.column(row, name)?;
            number.map(|number| u64::try_from(number).map_err(|_| bad(name))).transpose()
        };
        let floor = number("floor_generation")?.zip(number("floor_entry")?);
        let floor = floor.map(|(generation, entry)| Floor { generation, entry });
        Ok(StoredKey { row: self.key_row(row)?, floor })
    }

    async fn one_key(&self, row: Result<Option<SqliteRow>, sqlx::Error>) -> Result<Option<StoredKey>> {
        row.map_err(|source| self.unavailable(source))?.map(|row| self.stored_key(&row)).transpose()
    }

    async fn many_keys(&self, rows: Result<Vec<SqliteRow>, sqlx::Error>) -> Result<Vec<StoredKey>> {
        rows.map_err(|source| self.unavailable(source))?.iter().map(|row| self.stored_key(row)).collect()
    }

    fn ledger_entry(&self, row: &SqliteRow) -> Result<LedgerEntry> {
        let number =
            u64::try_from(self.column::<i64>(row, "number")?).map_err(|_| unreadable_row("ledger"))?;
        let kind = u8::try_from(self.column::<i64>(row, "kind")?).map_err(|_| unreadable_row("ledger"))?;
        Ok(LedgerEntry {
            number,
            kind,
            body: self.column(row, "body")?,
            signature: self.column(row, "signature")?,
        })
    }

    /// Writes one row, if what stands is what it replaces.
    async fn write_row(&self, connection: &mut SqliteConnection, write: &RowWrite) -> Result<bool> {
        let KeyRow { identity, generation, state, name, commitment, parent_version, sealed } = &write.row;
        let KeyIdentity { slot, version } = identity;
        let query = match write.replaces {
            None => sqlx::query(
                "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (kind, region, tenant, record_type, period, version) DO NOTHING",
            ),
            Some(_) => sqlx::query(
                "UPDATE keys SET generation = ?7, state = ?8, commitment = ?10, parent_version = ?11, sealed = ?12
                 WHERE kind = ?1 AND region = ?2 AND tenant = ?3 AND record_type = ?4 AND period = ?5
                 AND version = ?6 AND name = ?9 AND generation = ?13",
            ),
        };
        let query = query
            .bind(i64::from(slot.kind.code()))
            .bind(slot.region.as_str())
            .bind(slot.scope.tenant.as_str())
            .bind(slot.scope.record_type.as_str())
            .bind(slot.period.to_string())
            .bind(i64::from(*version))
            .bind(stored_number(*generation)?)
            .bind(i64::from(state.code()))
            .bind(&name.0[..])
            .bind(&commitment[..])
            .bind(i64::from(*parent_version))
            .bind(&sealed[..]);
        let query = match write.replaces {
            None => query,
            Some(replaced) => query.bind(stored_number(replaced)?),
        };
        let written = query.execute(connection).await.map_err(|source| self.unavailable(source))?;
        Ok(written.rows_affected() == 1)
    }

    async fn note_change(
        &self,
        connection: &mut SqliteConnection,
        region: &Region,
        slot: Option<&KeySlot>,
    ) -> Result<()> {
        sqlx::query("INSERT INTO changes (region, kind, tenant, record_type, period) VALUES (?, ?, ?, ?, ?)")
            .bind(region.as_str())
            .bind(slot.map(|slot| i64::from(slot.kind.code())))
            .bind(slot.map(|slot| slot.scope.tenant.as_str()))
            .bind(slot.map(|slot| slot.scope.record_type.as_str()))
            .bind(slot.map(|slot| slot.period.to_string()))
            .execute(connection)
            .await
            .map(|_| ())
            .map_err(|source| self.unavailable(source))
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
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn insert(&self, row: &KeyRow) -> Result<Inserted> {
        let write = RowWrite { row: row.clone(), replaces: None, buries: false, leaves: Vec::new() };
        let mut connection = self.pool.acquire().await.map_err(|source| self.unavailable(source))?;
        if self.write_row(&mut connection, &write).await? {
            return Ok(Inserted::Ours);
        }
        match self.find(&row.identity).await? {
            Some(theirs) => Ok(Inserted::Theirs(Box::new(theirs))),
            None => Err(unreadable_row(&row.identity.slot)),
        }
    }

    async fn write(&self, write: &Write) -> Result<Written> {
        // The transaction takes the write lock first: what it compares cannot change before it commits.
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|source| self.unavailable(source))?;
        if let Some(entry) = &write.entry {
            let inserted = sqlx::query(
                "INSERT INTO ledger SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE ?2 = 1 + (SELECT coalesce(max(number), 0) FROM ledger WHERE region = ?1)",
            )
            .bind(write.region.as_str())
            .bind(stored_number(entry.number)?)
            .bind(i64::from(entry.kind))
            .bind(&entry.body[..])
            .bind(&entry.signature[..])
            .execute(&mut *transaction)
            .await
            .map_err(|source| self.unavailable(source))?;
            if inserted.rows_affected() == 0 {
                transaction.rollback().await.map_err(|source| self.unavailable(source))?;
                return Ok(Written::Overtaken);
            }
            self.note_change(&mut transaction, &write.region, None).await?;
        }
        for row in &write.rows {
            if !self.write_row(&mut transaction, row).await? {
                transaction.rollback().await.map_err(|source| self.unavailable(source))?;
                return Ok(Written::Overtaken);
            }
            self.note_change(&mut transaction, &write.region, Some(&row.row.identity.slot)).await?;
            if let Some(entry) = write.entry.as_ref().filter(|_| row.buries) {
                sqlx::query(
                    "INSERT INTO floors VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE
                     SET generation = excluded.generation, entry = excluded.entry",
                )
                .bind(&row.row.name.0[..])
                .bind(stored_number(row.row.generation)?)
                .bind(stored_number(entry.number)?)
                .execute(&mut *transaction)
                .await
                .map_err(|source| self.unavailable(source))?;
                for leaf in &row.leaves {
                    // Of several tombstones of one leaf, the first is the one that took it.
                    sqlx::query(
                        "INSERT INTO tombstones VALUES (?, ?, ?) ON CONFLICT (name, leaf) DO NOTHING",
                    )
                    .bind(&row.row.name.0[..])
                    .bind(&leaf.0.to_be_bytes()[..])
                    .bind(stored_number(entry.number)?)
                    .execute(&mut *transaction)
                    .await
                    .map_err(|source| self.unavailable(source))?;
                }
            }
        }
        if let Some(incarnation) = &write.incarnation {
            sqlx::query("UPDATE meta SET incarnation = ?")
                .bind(&incarnation[..])
                .execute(&mut *transaction)
                .await
                .map_err(|source| self.unavailable(source))?;
        }
        transaction.commit().await.map_err(|source| self.unavailable(source))?;
        let replaced = write.rows.iter().any(|row| row.replaces.is_some());
        Ok(Written::Done { scrubbed: !replaced || self.scrub().await })
    }

    async fn newest(&self, slot: &KeySlot) -> Result<Option<StoredKey>> {
        Ok(self.versions(slot).await?.pop())
    }

    async fn versions(&self, slot: &KeySlot) -> Result<Vec<StoredKey>> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "{KEYS} WHERE kind = ? AND region = ? AND tenant = ? AND record_type = ? AND period = ? ORDER BY version"
        )))
        .bind(i64::from(slot.kind.code()))
        .bind(slot.region.as_str())
        .bind(slot.scope.tenant.as_str())
        .bind(slot.scope.record_type.as_str())
        .bind(slot.period.to_string())
        .fetch_all(&self.pool)
        .await;
        self.many_keys(rows).await
    }

    async fn find(&self, identity: &KeyIdentity) -> Result<Option<StoredKey>> {
        let slot = &identity.slot;
        let row = sqlx::query(AssertSqlSafe(format!(
            "{KEYS} WHERE kind = ? AND region = ? AND tenant = ? AND record_type = ? AND period = ? AND version = ?"
        )))
        .bind(i64::from(slot.kind.code()))
        .bind(slot.region.as_str())
        .bind(slot.scope.tenant.as_str())
        .bind(slot.scope.record_type.as_str())
        .bind(slot.period.to_string())
        .bind(i64::from(identity.version))
        .fetch_optional(&self.pool)
        .await;
        self.one_key(row).await
    }

    async fn named(&self, name: KeyName) -> Result<Option<StoredKey>> {
        let row = sqlx::query(AssertSqlSafe(format!("{KEYS} WHERE keys.name = ?")))
            .bind(&name.0[..])
            .fetch_optional(&self.pool)
            .await;
        self.one_key(row).await
    }

    async fn load_many(
        &self,
        filter: &RowFilter,
        after: Option<&KeyIdentity>,
        limit: u32,
    ) -> Result<Vec<StoredKey>> {
        let rows = sqlx::query(AssertSqlSafe(format!(
            "{KEYS} WHERE kind = ?1 AND region = ?2 AND (?3 IS NULL OR period = ?3) AND (?4 IS NULL OR tenant = ?4)
             AND (?5 IS NULL OR (tenant, record_type, period, version) > (?5, ?6, ?7, ?8))
             ORDER BY tenant, record_type, period, version LIMIT ?9"
        )))
        .bind(i64::from(filter.kind.code()))
        .bind(filter.region.as_str())
        .bind(filter.period.map(|period| period.to_string()))
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(after.map(|after| after.slot.scope.tenant.as_str()))
        .bind(after.map(|after| after.slot.scope.record_type.as_str()))
        .bind(after.map(|after| after.slot.period.to_string()))
        .bind(after.map(|after| i64::from(after.version)))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        self.many_keys(rows).await
    }

    async fn tombstone(&self, name: KeyName, leaf: LeafNumber) -> Result<Option<u64>> {
        let row = sqlx::query("SELECT entry FROM tombstones WHERE name = ? AND leaf = ?")
            .bind(&name.0[..])
            .bind(&leaf.0.to_be_bytes()[..])
            .fetch_optional(&self.pool)
            .await
            .map_err(|source| self.unavailable(source))?;
        let entry =
            |row| u64::try_from(self.column::<i64>(row, "entry")?).map_err(|_| unreadable_row("tombstone"));
        row.as_ref().map(entry).transpose()
    }

    async fn mark(&self) -> Result<StoreMark> {
        let row = sqlx::query(
            "SELECT incarnation, inserts, (SELECT coalesce(max(number), 0) FROM changes) AS changes FROM meta",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|source| self.unavailable(source))?;
        let number = |name| u64::try_from(self.column::<i64>(&row, name)?).map_err(|_| unreadable_row(name));
        Ok(StoreMark {
            incarnation: hex::encode(self.column(&row, "incarnation")?),
            changes: number("changes")?,
            inserts: number("inserts")?,
        })
    }

    async fn changes_since(&self, number: u64, limit: u32) -> Result<Vec<Change>> {
        let bad = |name: &'static str| unreadable_row(name).at(self.path.display().to_string());
        let change = |row: &SqliteRow| {
            let region: Region = self.column::<&str>(row, "region")?.parse()?;
            let slot = match self.column::<Option<i64>>(row, "kind")? {
                None => None,
                Some(kind) => Some(KeySlot {
                    kind: u8::try_from(kind).ok().and_then(KeyKind::from_code).ok_or_else(|| bad("kind"))?,
                    region: region.clone(),
                    scope: Scope {
                        tenant: TenantId::stored(self.column(row, "tenant")?)?,
                        record_type: RecordType::stored(self.column(row, "record_type")?)?,
                    },
                    period: self.column::<&str>(row, "period")?.parse().map_err(|_| bad("period"))?,
                }),
            };
            let number = u64::try_from(self.column::<i64>(row, "number")?).map_err(|_| bad("number"))?;
            Ok(Change { number, region, slot })
        };
        sqlx::query("SELECT * FROM changes WHERE number > ? ORDER BY number LIMIT ?")
            .bind(stored_number(number)?)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(|source| self.unavailable(source))?
            .iter()
            .map(change)
            .collect()
    }

    async fn ledger(
        &self,
        region: &Region,
        kinds: &[u8],
        after: u64,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>> {
        let list = kinds.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        let kinds = if kinds.is_empty() { String::new() } else { format!("AND kind IN ({list})") };
        sqlx::query(AssertSqlSafe(format!(
            "SELECT * FROM ledger WHERE region = ? AND number > ? {kinds} ORDER BY number LIMIT ?"
        )))
        .bind(region.as_str())
        .bind(stored_number(after)?)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.unavailable(source))?
        .iter()
        .map(|row| self.ledger_entry(row))
        .collect()
    }

    async fn ledger_head(&self, region: &Region) -> Result<Option<LedgerEntry>> {
        sqlx::query("SELECT * FROM ledger WHERE region = ? ORDER BY number DESC LIMIT 1")
            .bind(region.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|source| self.unavailable(source))?
            .map(|row| self.ledger_entry(&row))
            .transpose()
    }

    async fn next_writer(&self) -> Result<u32> {
        let row = sqlx::query("INSERT INTO writers DEFAULT VALUES RETURNING number")
            .fetch_one(&self.pool)
            .await
            .map_err(|source| self.unavailable(source))?;
        let number: i64 = self.column(&row, "number")?;
        u32::try_from(number)
            .map_err(|_| Error::new(Code::StoreUnavailable, "all 2^32 writer numbers are given"))
    }

    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<()> {
        sqlx::query("INSERT INTO audit_chains VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&beginning.chain.0[..])
            .bind(beginning.place.region.as_str())
            .bind(beginning.place.jurisdiction.as_str())
            .bind(beginning.begun.micros())
            .bind(&beginning.actor)
            .bind(&beginning.signature[..])
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|source| self.unavailable(source))
    }

    async fn append_events(&self, chain: ChainId, events: &[SealedEvent]) -> Result<()> {
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|source| self.unavailable(source))?;
        for event in events {
            let number = i64::try_from(event.number).map_err(|_| unreadable_row("audit event"))?;
            sqlx::query("INSERT INTO audit_events VALUES (?, ?, ?, ?)")
                .bind(&chain.0[..])
                .bind(number)
                .bind(&event.body)
                .bind(&event.digest[..])
                .execute(&mut *transaction)
                .await
                .map_err(|source| self.unavailable(source))?;
        }
        transaction.commit().await.map_err(|source| self.unavailable(source))
    }

    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>> {
        let bad = |name: &'static str| unreadable_row(name).at(self.path.display().to_string());
        let rows = sqlx::query("SELECT * FROM audit_chains ORDER BY begun, chain")
            .fetch_all(&self.pool)
            .await
            .map_err(|source| self.unavailable(source))?;
        let mut chains = Vec::with_capacity(rows.len());
        for row in rows {
            let chain = ChainId(self.column::<&[u8]>(&row, "chain")?.try_into().map_err(|_| bad("chain"))?);
            let beginning = ChainBeginning {
                chain,
                place: Place {
                    region: self.column::<&str>(&row, "region")?.parse()?,
                    jurisdiction: self.column::<&str>(&row, "jurisdiction")?.parse()?,
                },
                begun: Time::from_micros(self.column(&row, "begun")?)?,
                actor: self.column(&row, "actor")?,
                signature: self.column(&row, "signature")?,
            };
            let events =
                sqlx::query("SELECT number, body, digest FROM audit_events WHERE chain = ? ORDER BY number")
                    .bind(&chain.0[..])
                    .fetch_all(&self.pool)
                    .await
                    .map_err(|source| self.unavailable(source))?
                    .iter()
                    .map(|row| {
                        Ok(SealedEvent {
                            number: self
                                .column::<i64>(row, "number")?
                                .try_into()
                                .map_err(|_| bad("number"))?,
                            body: self.column(row, "body")?,
                            digest: self
                                .column::<&[u8]>(row, "digest")?
                                .try_into()
                                .map_err(|_| bad("digest"))?,
                        })
                    })
                    .collect::<Result<_>>()?;
            chains.push((beginning, events));
        }
        Ok(chains)
    }

    /// Closes all connections, and with the last one the files beside the store.
    async fn close(&self) {
        self.pool.close().await;
    }
}

/// Rows with the word of their newest tombstone.
const KEYS: &str = "SELECT keys.*, floors.generation AS floor_generation, floors.entry AS floor_entry
     FROM keys LEFT JOIN floors ON floors.name = keys.name";

/// How often the log of writes is asked to empty itself; a reader of its end may be in the way, each time for the
/// busy timeout.
const SCRUB_TRIES: u32 = 3;

/// Choices with the statement of the home itself if there is one, otherwise with the other.
const HOMES: &str = "SELECT homes.*, own, body, signature FROM homes
     LEFT JOIN home_signed ON home_signed.tenant = homes.tenant AND home_signed.record_type = homes.record_type
         AND own = (SELECT max(own) FROM home_signed AS best
                    WHERE best.tenant = homes.tenant AND best.record_type = homes.record_type)
     LEFT JOIN home_statements ON home_statements.id = statement";

impl SqliteStore {
    /// What stands in the place of a choice.
    async fn standing_home(
        &self,
        connection: &mut SqliteConnection,
        choice: &HomeChoice,
    ) -> Result<Option<ChosenHome>> {
        sqlx::query(AssertSqlSafe(format!(
            "{HOMES} WHERE homes.tenant = ? AND homes.record_type IN (?, 'all')
             ORDER BY homes.record_type = 'all' LIMIT 1"
        )))
        .bind(choice.tenant.as_str())
        .bind(choice.types.as_str())
        .fetch_optional(connection)
        .await
        .map_err(|source| self.unavailable(source))?
        .map(|row| self.chosen_home(&row))
        .transpose()
    }

    async fn insert_statement(
        &self,
        connection: &mut SqliteConnection,
        signed: &SignedStatement,
    ) -> Result<i64> {
        let row = sqlx::query("INSERT INTO home_statements (body, signature) VALUES (?, ?) RETURNING id")
            .bind(&signed.body[..])
            .bind(&signed.signature[..])
            .fetch_one(connection)
            .await
            .map_err(|source| self.unavailable(source))?;
        self.column(&row, "id")
    }

    /// Links a choice with a statement. Two processes may sign the same choice; the first statement stays.
    async fn insert_signed(
        &self,
        connection: &mut SqliteConnection,
        choice: &HomeChoice,
        own: bool,
        statement: i64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO home_signed SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS
             (SELECT 1 FROM home_signed WHERE tenant = ?1 AND record_type = ?2 AND own = ?3)",
        )
        .bind(choice.tenant.as_str())
        .bind(choice.types.as_str())
        .bind(own)
        .bind(statement)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(|source| self.unavailable(source))
    }
}

#[async_trait]
impl HomeRegistry for SqliteStore {
    async fn standing(&self, choices: &[HomeChoice]) -> Result<Vec<Option<ChosenHome>>> {
        let mut connection = self.pool.acquire().await.map_err(|source| self.unavailable(source))?;
        let mut standing = Vec::with_capacity(choices.len());
        for choice in choices {
            standing.push(self.standing_home(&mut connection, choice).await?);
        }
        Ok(standing)
    }

    async fn choose(&self, lists: &[SignedChoices], now: Time) -> Result<Chosen> {
        // The transaction takes the write lock first: what it reads cannot change before it commits.
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|source| self.unavailable(source))?;
        let mut contradicted = Vec::new();
        for list in lists {
            let statement = self.insert_statement(&mut transaction, &list.statement).await?;
            for choice in &list.choices {
                if let Some(standing) = self.standing_home(&mut transaction, choice).await? {
                    if standing.choice.region != choice.region {
                        contradicted.push((choice.clone(), standing.choice.region));
                    }
                    continue;
                }
                sqlx::query("INSERT INTO homes VALUES (?, ?, ?, ?)")
                    .bind(choice.tenant.as_str())
                    .bind(choice.types.as_str())
                    .bind(choice.region.as_str())
                    .bind(now.micros())
                    .execute(&mut *transaction)
                    .await
                    .map_err(|source| self.unavailable(source))?;
                self.insert_signed(&mut transaction, choice, list.own, statement).await?;
            }
        }
        if !contradicted.is_empty() {
            transaction.rollback().await.map_err(|source| self.unavailable(source))?;
            return Ok(Chosen::Contradicted(contradicted));
        }
        transaction.commit().await.map_err(|source| self.unavailable(source))?;
        Ok(Chosen::Made)
    }

    async fn add_statement(&self, list: &SignedChoices) -> Result<()> {
        let mut transaction =
            self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|source| self.unavailable(source))?;
        let statement = self.insert_statement(&mut transaction, &list.statement).await?;
        for choice in &list.choices {
            self.insert_signed(&mut transaction, choice, list.own, statement).await?;
        }
        transaction.commit().await.map_err(|source| self.unavailable(source))
    }

    async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<ChosenHome>> {
        sqlx::query(AssertSqlSafe(format!(
            "{HOMES} WHERE ?1 IS NULL OR homes.tenant = ?1 ORDER BY homes.tenant, homes.record_type"
        )))
        .bind(tenant.map(TenantId::as_str))
        .fetch_all(&self.pool)
        .await
        .map_err(|source| self.unavailable(source))?
        .iter()
        .map(|row| self.chosen_home(row))
        .collect()
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// SQLite's integers have a sign.
fn stored_number(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::new(Code::StoreUnavailable, "a number past the store's range"))
}

/// A row that cannot be read back: somebody else wrote it.
fn unreadable_row(what: impl std::fmt::Display) -> Error {
    Error::new(Code::KeyUnverified, format!("the key store holds a row that Domicile did not write ({what})"))
        .advise("restore the key store; do not let anything else write to it")
}
