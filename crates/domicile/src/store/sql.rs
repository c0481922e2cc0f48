//! What SQLite and PostgreSQL do alike: the statements, and what stands in their rows.
//!
//! Columns are named and never `*`: a newer schema may have more of them while this program runs.

use std::fmt::{self, Write as _};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Pool, Row, Type};

use super::check::{self, Findings};
use super::{
    Change, Chosen, Finding, Floor, HomeRegistry, Incarnation, Inserted, KeyIdentity, KeyName, KeyRow,
    KeySlot, KeyState, KeyStore, LedgerEntry, RowFilter, RowWrite, SignedChoices, StoreMark, StoredKey,
    Write, Written,
};
use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::home::{ChosenHome, HomeChoice, SignedStatement};
use crate::puncture::LeafNumber;
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::time::Time;

/// One database: how it is reached, how a transaction begins, and what its failures mean.
#[async_trait]
pub(super) trait Sql: Send + Sync + fmt::Debug {
    /// sqlx's name for it.
    type Database: Database<Connection: Connection>;

    /// Begins a transaction that writes.
    const BEGIN: &'static str;
    /// One row: `incarnation`, `cluster` (what else tells this store from a copy), `changes` and `inserts`.
    const MARK: &'static str;
    /// One row with one number, `stores`: whether there is the table `meta`.
    const FIND_META: &'static str;
    /// What each version of the schema adds, from [`FIRST_SCHEMA`](Self::FIRST_SCHEMA) on.
    const SCHEMAS: &'static [&'static str];
    /// The oldest schema that this database was given.
    const FIRST_SCHEMA: u32;
    /// How long a statement may take before the connection is given up, where the database cannot be trusted with
    /// that.
    const PATIENCE: Option<Duration>;

    fn pool(&self) -> &Pool<Self::Database>;

    /// Where the store is, as it is shown.
    fn place(&self) -> String;

    /// What a failure means, and what to do about it.
    fn failed(&self, source: sqlx::Error) -> Error;

    /// Whether a transaction failed because another was in its way; nothing of it was written.
    fn is_conflict(&self, source: &sqlx::Error) -> bool;

    /// What keeps a row that a statement reads from being changed until the statement's own work is durable.
    const KEEP: &'static str;

    /// Has whoever else writes to this part of the store wait until the transaction ends.
    async fn serialise(&self, work: &mut Lease<'_, Self>, part: Part) -> Result<()>
    where
        Self: Sized;

    /// Whether no copy of replaced bytes is left in the store's own files, after it was seen to.
    async fn scrub(&self) -> bool;

    /// One row with one number, `micros` since 1970, by the server's clock; none where this host's is it.
    const CLOCK: Option<&'static str>;

    /// Looks at what guards the store: settings, triggers, rights.
    async fn guards(&self, findings: &mut Findings) -> Result<()>;
}

/// What writers take turns at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Rows that stand, and the ledger.
    Keys,
    /// Homes, and what is signed about them.
    Homes,
    /// The schema.
    Schema,
}

/// A value of a statement, of the types that both databases have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(Option<i64>),
    Text(Option<&'a str>),
    Octets(&'a [u8]),
}

pub(super) fn number(number: impl Into<i64>) -> Value<'static> {
    Value::Number(Some(number.into()))
}

/// Databases' integers have a sign.
fn large(number: u64) -> Result<Value<'static>> {
    let number = i64::try_from(number);
    number
        .map(|number| Value::Number(Some(number)))
        .map_err(|_| Error::new(Code::StoreUnavailable, "a number past the store's range"))
}

pub(super) fn text(text: &str) -> Value<'_> {
    Value::Text(Some(text))
}

/// A statement with its values.
pub(super) fn bound<'q, D>(sql: &str, values: &[Value<'q>]) -> Query<'q, D, D::Arguments>
where
    D: Database,
    Option<i64>: Encode<'q, D> + Type<D>,
    Option<&'q str>: Encode<'q, D> + Type<D>,
    &'q [u8]: Encode<'q, D> + Type<D>,
{
    let query = sqlx::query(AssertSqlSafe(sql));
    values.iter().fold(query, |query, value| match *value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Octets(octets) => query.bind(octets),
    })
}

/// A connection that takes statements of ours.
#[async_trait]
pub(super) trait Connection: Send {
    type Row: Columns + Send + Sync;

    async fn select(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Self::Row>, sqlx::Error>;

    /// Gives the number of rows that were written.
    async fn apply(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, sqlx::Error>;

    /// Many statements without values.
    async fn script(&mut self, sql: &'static str) -> Result<(), sqlx::Error>;
}

/// A row, by the names of its columns.
pub(super) trait Columns {
    fn number(&self, name: &'static str) -> Result<Option<i64>, sqlx::Error>;
    fn text(&self, name: &'static str) -> Result<Option<&str>, sqlx::Error>;
    fn octets(&self, name: &'static str) -> Result<Option<&[u8]>, sqlx::Error>;
}

impl<R> Columns for R
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    for<'r> &'r str: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
{
    fn number(&self, name: &'static str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(name)
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(name)
    }

    fn octets(&self, name: &'static str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(name)
    }
}

/// A connection of the pool. Given up half way, it is closed and not given to the next: what it was asked is not
/// known to have ended, and its transaction ends with it.
#[derive(Debug)]
pub(super) struct Lease<'s, S: Sql> {
    store: &'s S,
    connection: PoolConnection<S::Database>,
    ended: bool,
}

impl<S: Sql> Drop for Lease<'_, S> {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

type RowOf<S> = <<<S as Sql>::Database as Database>::Connection as Connection>::Row;

impl<'s, S: Sql> Lease<'s, S> {
    async fn of(store: &'s S) -> Result<Self> {
        let connection = store.pool().acquire().await.map_err(|source| store.failed(source))?;
        Ok(Self { store, connection, ended: false })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(store: &'s S) -> Result<Self> {
        let mut lease = Self::of(store).await?;
        lease.execute(S::BEGIN, &[]).await?;
        Ok(lease)
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.execute("COMMIT", &[]).await?;
        self.ended = true;
        Ok(())
    }

    async fn rollback(mut self) -> Result<()> {
        self.execute("ROLLBACK", &[]).await?;
        self.ended = true;
        Ok(())
    }

    pub(super) async fn rows(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<RowOf<S>>> {
        let asked = self.connection.select(sql, values);
        patiently::<S, _>(asked).await.map_err(|source| self.store.failed(source))
    }

    pub(super) async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let asked = self.connection.apply(sql, values);
        patiently::<S, _>(asked).await.map_err(|source| self.store.failed(source))
    }

    pub(super) async fn script(&mut self, sql: &'static str) -> Result<()> {
        self.connection.script(sql).await.map_err(|source| self.store.failed(source))
    }
}

/// Waits no longer than the store's patience.
async fn patiently<S: Sql, T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match S::PATIENCE {
        None => asked.await,
        #[cfg(feature = "postgres")]
        Some(patience) => tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(sqlx::Error::Io(late))
        }),
        #[cfg(not(feature = "postgres"))]
        Some(_) => asked.await,
    }
}

/// Rows of one statement.
pub(super) async fn rows<S: Sql>(store: &S, sql: &str, values: &[Value<'_>]) -> Result<Vec<RowOf<S>>> {
    let mut lease = Lease::of(store).await?;
    let rows = lease.rows(sql, values).await?;
    lease.ended = true;
    Ok(rows)
}

/// One statement that writes.
async fn execute<S: Sql>(store: &S, sql: &str, values: &[Value<'_>]) -> Result<u64> {
    let mut lease = Lease::of(store).await?;
    let written = lease.execute(sql, values).await?;
    lease.ended = true;
    Ok(written)
}

/// What stands in one row, with the name of the store for errors.
pub(super) struct Reading<'r, R> {
    row: &'r R,
    place: String,
}

impl<'r, R: Columns> Reading<'r, R> {
    pub(super) fn of<S: Sql>(store: &S, row: &'r R) -> Self {
        Self { row, place: store.place() }
    }

    fn bad(&self, name: &'static str) -> Error {
        unreadable_row(name).at(self.place.clone())
    }

    fn unreadable(&self, name: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
        let error = self.bad(name);
        move |source| error.because(source)
    }

    fn maybe_number(&self, name: &'static str) -> Result<Option<i64>> {
        self.row.number(name).map_err(self.unreadable(name))
    }

    /// A number of the type that is asked for.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T> {
        let number = self.maybe_number(name)?.ok_or_else(|| self.bad(name))?;
        T::try_from(number).map_err(|_| self.bad(name))
    }

    fn maybe_text(&self, name: &'static str) -> Result<Option<&'r str>> {
        self.row.text(name).map_err(self.unreadable(name))
    }

    pub(super) fn text(&self, name: &'static str) -> Result<&'r str> {
        self.maybe_text(name)?.ok_or_else(|| self.bad(name))
    }

    fn maybe_octets(&self, name: &'static str) -> Result<Option<&'r [u8]>> {
        self.row.octets(name).map_err(self.unreadable(name))
    }

    pub(super) fn octets(&self, name: &'static str) -> Result<&'r [u8]> {
        self.maybe_octets(name)?.ok_or_else(|| self.bad(name))
    }

    fn array<const N: usize>(&self, name: &'static str) -> Result<[u8; N]> {
        self.octets(name)?.try_into().map_err(|_| self.bad(name))
    }

    fn slot(&self) -> Result<KeySlot> {
        Ok(KeySlot {
            kind: KeyKind::from_code(self.number("kind")?).ok_or_else(|| self.bad("kind"))?,
            region: self.text("region")?.parse()?,
            scope: Scope {
                tenant: TenantId::stored(self.text("tenant")?)?,
                record_type: RecordType::stored(self.text("record_type")?)?,
            },
            period: self.text("period")?.parse().map_err(|_| self.bad("period"))?,
        })
    }

    pub(super) fn stored_key(&self) -> Result<StoredKey> {
        let floor = self.maybe_number("floor_generation")?.zip(self.maybe_number("floor_entry")?);
        let floor = floor.map(|(generation, entry)| {
            let generation = u64::try_from(generation).map_err(|_| self.bad("floor_generation"))?;
            let entry = u64::try_from(entry).map_err(|_| self.bad("floor_entry"))?;
            Ok::<_, Error>(Floor { generation, entry })
        });
        let row = KeyRow {
            identity: KeyIdentity { slot: self.slot()?, version: self.number("version")? },
            generation: self.number("generation")?,
            state: KeyState::from_code(self.number("state")?).ok_or_else(|| self.bad("state"))?,
            name: KeyName(self.array("name")?),
            commitment: self.array("commitment")?,
            parent_version: self.number("parent_version")?,
            sealed: self.octets("sealed")?.to_vec(),
        };
        Ok(StoredKey { row, floor: floor.transpose()? })
    }

    fn change(&self) -> Result<Change> {
        let slot = self.maybe_number("kind")?.map(|_| self.slot()).transpose()?;
        Ok(Change { number: self.number("number")?, region: self.text("region")?.parse()?, slot })
    }

    fn ledger_entry(&self) -> Result<LedgerEntry> {
        Ok(LedgerEntry {
            number: self.number("number")?,
            kind: self.number("kind")?,
            body: self.octets("body")?.to_vec(),
            signature: self.octets("signature")?.to_vec(),
        })
    }

    fn beginning(&self) -> Result<ChainBeginning> {
        Ok(ChainBeginning {
            chain: ChainId(self.array("chain")?),
            place: Place {
                region: self.text("region")?.parse()?,
                jurisdiction: self.text("jurisdiction")?.parse()?,
            },
            begun: Time::from_micros(self.number("begun")?)?,
            actor: self.text("actor")?.to_owned(),
            signature: self.octets("signature")?.to_vec(),
        })
    }

    fn event(&self) -> Result<SealedEvent> {
        Ok(SealedEvent {
            number: self.number("number")?,
            body: self.text("body")?.to_owned(),
            digest: self.array("digest")?,
        })
    }

    pub(super) fn home(&self) -> Result<ChosenHome> {
        let signed = self.maybe_octets("body")?.zip(self.maybe_octets("signature")?);
        Ok(ChosenHome {
            choice: HomeChoice {
                tenant: self.text("tenant")?.parse()?,
                types: self.text("record_type")?.parse()?,
                region: self.text("region")?.parse()?,
            },
            chosen: Time::from_micros(self.number("chosen")?)?,
            own: self.maybe_number("own")? == Some(1),
            statement: signed.map(|(body, signature)| SignedStatement {
                body: body.to_vec(),
                signature: signature.to_vec(),
            }),
        })
    }
}

/// Rows with the word of their newest tombstone.
pub(super) const KEYS: &str =
    "SELECT kind, region, tenant, record_type, period, version, keys.generation, state, keys.name, commitment,
     parent_version, sealed, floors.generation AS floor_generation, floors.entry AS floor_entry
     FROM keys LEFT JOIN floors ON floors.name = keys.name";

/// How many events one statement may take. Few sizes, so that few statements are prepared.
const EVENTS_A_STATEMENT: [usize; 3] = [128, 16, 1];

/// The rows of a slot.
const OF_SLOT: &str = "kind = $1 AND region = $2 AND tenant = $3 AND record_type = $4 AND period = $5";

const LEDGER: &str = "SELECT number, kind, body, signature FROM ledger WHERE region = $1";

/// Choices with the statement of the home itself if there is one, otherwise with the other.
pub(super) const HOMES: &str = "SELECT homes.tenant, homes.record_type, region, chosen, own, body, signature FROM homes
     LEFT JOIN home_signed ON home_signed.tenant = homes.tenant AND home_signed.record_type = homes.record_type
         AND own = (SELECT max(own) FROM home_signed AS best
                    WHERE best.tenant = homes.tenant AND best.record_type = homes.record_type)
     LEFT JOIN home_statements ON home_statements.id = statement";

fn slot_values<'a>(slot: &'a KeySlot, period: &'a str) -> [Value<'a>; 5] {
    [
        number(slot.kind.code()),
        text(slot.region.as_str()),
        text(slot.scope.tenant.as_str()),
        text(slot.scope.record_type.as_str()),
        text(period),
    ]
}

async fn keys<S: Sql>(store: &S, sql: &str, values: &[Value<'_>]) -> Result<Vec<StoredKey>> {
    let rows = rows(store, sql, values).await?;
    rows.iter().map(|row| Reading::of(store, row).stored_key()).collect()
}

impl<S: Sql> Lease<'_, S> {
    /// Writes one row, if what stands is what it replaces, and the branch key that it is sealed under stands.
    ///
    /// Of a branch key that is destroyed it is looked at first what lies under it, once nobody can write more there: whoever
    /// inserts a row keeps its branch key as it is until the row is durable, and other writers take turns.
    async fn write_row(&mut self, write: &RowWrite) -> Result<bool> {
        let KeyRow { identity, generation, state, name, commitment, parent_version, sealed } = &write.row;
        let period = identity.slot.period.to_string();
        let [kind, region, tenant, record_type, period] = slot_values(&identity.slot, &period);
        let mut values = vec![
            kind,
            region,
            tenant,
            record_type,
            period,
            number(identity.version),
            large(*generation)?,
            number(state.code()),
            Value::Octets(&name.0),
            Value::Octets(commitment),
            number(*parent_version),
            Value::Octets(sealed),
        ];
        let stands_on = write.row.stands_on();
        let month = stands_on.as_ref().map(|branch| branch.slot.period.to_string());
        let mut stands = String::new();
        if let (Some(branch), Some(month)) = (&stands_on, &month) {
            let [kind, region, owner, record_type, month] = slot_values(&branch.slot, month);
            values.extend([kind, region, owner, record_type, month, number(branch.version)]);
            stands = format!(
                "SELECT 1 AS stands FROM keys WHERE kind = $13 AND region = $14 AND tenant = $15 AND record_type = $16
                 AND period = $17 AND version = $18 AND state <> {}",
                KeyState::Destroyed.code()
            );
        }
        let sql = match write.replaces {
            None => {
                let new = if stands_on.is_some() {
                    format!(
                        "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM ({stands}{}) AS branch WHERE TRUE",
                        S::KEEP
                    )
                } else {
                    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)".to_owned()
                };
                format!(
                    "INSERT INTO keys (kind, region, tenant, record_type, period, version, generation, state, name,
                     commitment, parent_version, sealed) {new}
                     ON CONFLICT (kind, region, tenant, record_type, period, version) DO NOTHING"
                )
            }
            Some(replaced) => {
                values.push(large(replaced)?);
                let stands =
                    if stands_on.is_some() { format!(" AND EXISTS ({stands})") } else { String::new() };
                format!(
                    "UPDATE keys SET generation = $7, state = $8, commitment = $10, parent_version = $11, sealed = $12
                     WHERE kind = $1 AND region = $2 AND tenant = $3 AND record_type = $4 AND period = $5
                     AND version = $6 AND name = $9 AND generation = ${}{stands}",
                    values.len()
                )
            }
        };
        if self.execute(&sql, &values).await? != 1 {
            return Ok(false);
        }
        Ok(!write.row.ends_a_branch() || self.is_childless(identity).await?)
    }

    /// Whether no row lies under a branch key.
    async fn is_childless(&mut self, branch: &KeyIdentity) -> Result<bool> {
        let KeySlot { region, scope, period, .. } = &branch.slot;
        let own = scope.tenant != TenantId::REGION;
        let parent_version = branch.version | if own { KeyRow::OWN_BRANCH } else { 0 };
        let mut values =
            vec![text(region.as_str()), number(parent_version), number(KeyState::Destroyed.code())];
        let mut of = String::new();
        if own {
            values.push(text(scope.tenant.as_str()));
            of = format!(" AND tenant = ${}", values.len());
        }
        // Texts of periods have no quotes.
        let periods: Vec<_> = period.of_month().iter().map(|period| format!("'{period}'")).collect();
        let sql = format!(
            "SELECT 1 AS lies FROM keys WHERE kind IN ({}, {}) AND region = $1 AND parent_version = $2 AND state <> $3{of}
             AND period IN ({}) LIMIT 1",
            KeyKind::Tenant.code(),
            KeyKind::Post.code(),
            periods.join(", ")
        );
        Ok(self.rows(&sql, &values).await?.is_empty())
    }

    /// Raises the floor of a key, and says by which entry these leaves were taken.
    async fn bury(
        &mut self,
        name: KeyName,
        generation: u64,
        entry: u64,
        leaves: &[LeafNumber],
    ) -> Result<()> {
        let values = [Value::Octets(&name.0), large(generation)?, large(entry)?];
        let sql = "INSERT INTO floors (name, generation, entry) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, entry = excluded.entry
             WHERE excluded.generation > floors.generation";
        self.execute(sql, &values).await?;
        for leaf in leaves {
            // Of several tombstones of one leaf, the first is the one that took it.
            let sql = "INSERT INTO tombstones (name, leaf, entry) VALUES ($1, $2, $3)
                 ON CONFLICT (name, leaf) DO NOTHING";
            let leaf = leaf.0.to_be_bytes();
            let values = [Value::Octets(&name.0), Value::Octets(&leaf), large(entry)?];
            self.execute(sql, &values).await?;
        }
        Ok(())
    }

    async fn note_change(&mut self, region: &Region, slot: Option<&KeySlot>) -> Result<()> {
        let period = slot.map(|slot| slot.period.to_string());
        let values = [
            text(region.as_str()),
            Value::Number(slot.map(|slot| i64::from(slot.kind.code()))),
            Value::Text(slot.map(|slot| slot.scope.tenant.as_str())),
            Value::Text(slot.map(|slot| slot.scope.record_type.as_str())),
            Value::Text(period.as_deref()),
        ];
        let sql =
            "INSERT INTO changes (region, kind, tenant, record_type, period) VALUES ($1, $2, $3, $4, $5)";
        self.execute(sql, &values).await.map(drop)
    }

    /// Writes all of it, or says that something is no longer what the caller had read.
    async fn write_all(&mut self, write: &Write) -> Result<bool> {
        let store = self.store;
        store.serialise(self, Part::Keys).await?;
        if let Some(entry) = &write.entry {
            let values = [
                text(write.region.as_str()),
                large(entry.number)?,
                number(entry.kind),
                Value::Octets(&entry.body),
                Value::Octets(&entry.signature),
            ];
            let sql = "INSERT INTO ledger (region, number, kind, body, signature) SELECT $1, $2, $3, $4, $5
                 WHERE $2 = 1 + (SELECT coalesce(max(number), 0) FROM ledger WHERE region = $1)";
            if self.execute(sql, &values).await? == 0 {
                return Ok(false);
            }
            self.note_change(&write.region, None).await?;
        }
        for row in &write.rows {
            if !self.write_row(row).await? {
                return Ok(false);
            }
            self.note_change(&write.region, Some(&row.row.identity.slot)).await?;
            if let Some(entry) = write.entry.as_ref().filter(|_| row.buries) {
                self.bury(row.row.name, row.row.generation, entry.number, &row.leaves).await?;
            }
        }
        for buried in &write.buried {
            if let Some(entry) = &write.entry {
                self.bury(buried.name, buried.generation, entry.number, &buried.leaves).await?;
            }
        }
        if let Some(incarnation) = &write.incarnation {
            self.execute("UPDATE meta SET incarnation = $1", &[Value::Octets(incarnation)]).await?;
        }
        Ok(true)
    }

    /// Writes events in one statement: a server that is far away is asked once for all of them.
    async fn insert_events(&mut self, chain: ChainId, events: &[SealedEvent]) -> Result<()> {
        let mut sql = String::from("INSERT INTO audit_events (chain, number, body, digest) VALUES ");
        let mut values = vec![Value::Octets(&chain.0)];
        for (index, event) in events.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let first = values.len() + 1;
            // To a text, which cannot fail.
            let _ = write!(sql, "{comma}($1, ${first}, ${}, ${})", first + 1, first + 2);
            values.extend([large(event.number)?, text(&event.body), Value::Octets(&event.digest)]);
        }
        self.execute(&sql, &values).await.map(drop)
    }

    /// What stands in the place of a choice.
    async fn standing_home(&mut self, choice: &HomeChoice) -> Result<Option<ChosenHome>> {
        let sql = format!(
            "{HOMES} WHERE homes.tenant = $1 AND homes.record_type IN ($2, 'all')
             ORDER BY homes.record_type = 'all' LIMIT 1"
        );
        let values = [text(choice.tenant.as_str()), text(choice.types.as_str())];
        let rows = self.rows(&sql, &values).await?;
        rows.first().map(|row| Reading::of(self.store, row).home()).transpose()
    }

    async fn insert_statement(&mut self, signed: &SignedStatement) -> Result<i64> {
        let sql = "INSERT INTO home_statements (body, signature) VALUES ($1, $2) RETURNING id";
        let rows = self.rows(sql, &[Value::Octets(&signed.body), Value::Octets(&signed.signature)]).await?;
        let row = rows.first().ok_or_else(|| unreadable_row("home_statements"))?;
        Reading::of(self.store, row).number("id")
    }

    /// Links a choice with a statement. Two processes may sign the same choice; the first statement stays.
    async fn insert_signed(&mut self, choice: &HomeChoice, own: bool, statement: i64) -> Result<()> {
        let sql = "INSERT INTO home_signed (tenant, record_type, own, statement) SELECT $1, $2, $3, $4
             WHERE NOT EXISTS (SELECT 1 FROM home_signed WHERE tenant = $1 AND record_type = $2 AND own = $3)";
        let values =
            [text(choice.tenant.as_str()), text(choice.types.as_str()), number(own), number(statement)];
        self.execute(sql, &values).await.map(drop)
    }
}

#[async_trait]
impl<S: Sql> KeyStore for S {
    async fn insert(&self, row: &KeyRow) -> Result<Inserted> {
        let write = RowWrite { row: row.clone(), replaces: None, buries: false, leaves: Vec::new() };
        let mut lease = Lease::of(self).await?;
        let ours = lease.write_row(&write).await?;
        lease.ended = true;
        drop(lease);
        if ours {
            return Ok(Inserted::Ours);
        }
        match self.find(&row.identity).await? {
            Some(theirs) => Ok(Inserted::Theirs(Box::new(theirs))),
            None if row.stands_on().is_some() => Ok(Inserted::Orphan),
            None => Err(unreadable_row(&row.identity.slot)),
        }
    }

    async fn write(&self, write: &Write) -> Result<Written> {
        let mut work = Lease::begin(self).await?;
        match work.write_all(write).await {
            Ok(true) => work.commit().await?,
            Ok(false) => {
                work.rollback().await?;
                return Ok(Written::Overtaken);
            }
            Err(error) if is_conflict(self, &error) => return Ok(Written::Overtaken),
            Err(error) => return Err(error),
        }
        let replaced = write.rows.iter().any(|row| row.replaces.is_some());
        Ok(Written::Done { scrubbed: !replaced || self.scrub().await })
    }

    async fn newest(&self, slot: &KeySlot) -> Result<Option<StoredKey>> {
        Ok(self.versions(slot).await?.pop())
    }

    async fn versions(&self, slot: &KeySlot) -> Result<Vec<StoredKey>> {
        let sql = format!("{KEYS} WHERE {OF_SLOT} ORDER BY version");
        keys(self, &sql, &slot_values(slot, &slot.period.to_string())).await
    }

    async fn find(&self, identity: &KeyIdentity) -> Result<Option<StoredKey>> {
        let sql = format!("{KEYS} WHERE {OF_SLOT} AND version = $6");
        let period = identity.slot.period.to_string();
        let mut values = slot_values(&identity.slot, &period).to_vec();
        values.push(number(identity.version));
        Ok(keys(self, &sql, &values).await?.pop())
    }

    async fn named(&self, name: KeyName) -> Result<Option<StoredKey>> {
        let sql = format!("{KEYS} WHERE keys.name = $1");
        Ok(keys(self, &sql, &[Value::Octets(&name.0)]).await?.pop())
    }

    async fn load_many(
        &self,
        filter: &RowFilter,
        after: Option<&KeyIdentity>,
        limit: u32,
    ) -> Result<Vec<StoredKey>> {
        // What is not asked for is left out, and not compared with NULL: a database finds the place behind `after` by
        // its index alone, and reads no page twice.
        let period = filter.period.map(|period| period.to_string());
        let behind = after.map(|after| (&after.slot.scope, after.slot.period.to_string(), after.version));
        let mut values = vec![number(filter.kind.code()), text(filter.region.as_str()), number(limit)];
        let mut wanted = String::new();
        if let Some(period) = &period {
            values.push(text(period));
            wanted += &format!(" AND period = ${}", values.len());
        }
        if let Some(tenant) = &filter.tenant {
            values.push(text(tenant.as_str()));
            wanted += &format!(" AND tenant = ${}", values.len());
        }
        if let Some((scope, period, version)) = &behind {
            let first = values.len() + 1;
            values.extend([
                text(scope.tenant.as_str()),
                text(scope.record_type.as_str()),
                text(period),
                number(*version),
            ]);
            let [record_type, period, version] = [first + 1, first + 2, first + 3];
            wanted += &format!(
                " AND (tenant, record_type, period, version) > (${first}, ${record_type}, ${period}, ${version})"
            );
        }
        let sql = format!(
            "{KEYS} WHERE kind = $1 AND region = $2{wanted}
             ORDER BY tenant, record_type, period, version LIMIT $3"
        );
        keys(self, &sql, &values).await
    }

    async fn tombstone(&self, name: KeyName, leaf: LeafNumber) -> Result<Option<u64>> {
        let sql = "SELECT entry FROM tombstones WHERE name = $1 AND leaf = $2";
        let leaf = leaf.0.to_be_bytes();
        let rows = rows(self, sql, &[Value::Octets(&name.0), Value::Octets(&leaf)]).await?;
        rows.first().map(|row| Reading::of(self, row).number("entry")).transpose()
    }

    async fn mark(&self) -> Result<StoreMark> {
        let rows = rows(self, Self::MARK, &[]).await?;
        let row = rows.first().ok_or_else(|| unreadable_row("meta"))?;
        let row = Reading::of(self, row);
        let cluster = row.maybe_text("cluster")?.map(str::to_owned);
        let id = row.octets("incarnation")?.try_into().map_err(|_| unreadable_row("incarnation"))?;
        Ok(StoreMark {
            incarnation: Incarnation { id, cluster },
            changes: row.number("changes")?,
            inserts: row.number("inserts")?,
        })
    }

    async fn changes_since(&self, after: u64, limit: u32) -> Result<Vec<Change>> {
        let sql = "SELECT number, region, kind, tenant, record_type, period FROM changes WHERE number > $1
             ORDER BY number LIMIT $2";
        let rows = rows(self, sql, &[large(after)?, number(limit)]).await?;
        rows.iter().map(|row| Reading::of(self, row).change()).collect()
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
        let sql = format!("{LEDGER} AND number > $2 {kinds} ORDER BY number LIMIT $3");
        let rows = rows(self, &sql, &[text(region.as_str()), large(after)?, number(limit)]).await?;
        rows.iter().map(|row| Reading::of(self, row).ledger_entry()).collect()
    }

    async fn ledger_head(&self, region: &Region) -> Result<Option<LedgerEntry>> {
        let sql = format!("{LEDGER} ORDER BY number DESC LIMIT 1");
        let rows = rows(self, &sql, &[text(region.as_str())]).await?;
        rows.first().map(|row| Reading::of(self, row).ledger_entry()).transpose()
    }

    async fn next_writer(&self) -> Result<u32> {
        let rows = rows(self, "INSERT INTO writers DEFAULT VALUES RETURNING number", &[]).await?;
        let row = rows.first().ok_or_else(|| unreadable_row("writers"))?;
        let number: i64 = Reading::of(self, row).number("number")?;
        u32::try_from(number)
            .map_err(|_| Error::new(Code::StoreUnavailable, "all 2^32 writer numbers are given"))
    }

    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<()> {
        let sql = "INSERT INTO audit_chains (chain, region, jurisdiction, begun, actor, signature)
             VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            Value::Octets(&beginning.chain.0),
            text(beginning.place.region.as_str()),
            text(beginning.place.jurisdiction.as_str()),
            number(beginning.begun.micros()),
            text(&beginning.actor),
            Value::Octets(&beginning.signature),
        ];
        execute(self, sql, &values).await.map(drop)
    }

    async fn append_events(&self, chain: ChainId, events: &[SealedEvent]) -> Result<()> {
        let mut work = Lease::begin(self).await?;
        let mut rest = events;
        while !rest.is_empty() {
            let take = EVENTS_A_STATEMENT.into_iter().find(|take| *take <= rest.len()).unwrap_or(1);
            let (now, later) = rest.split_at(take);
            work.insert_events(chain, now).await?;
            rest = later;
        }
        work.commit().await
    }

    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>> {
        let begun = "SELECT chain, region, jurisdiction, begun, actor, signature FROM audit_chains
             ORDER BY begun, chain";
        let events = "SELECT number, body, digest FROM audit_events WHERE chain = $1 ORDER BY number";
        let mut chains = Vec::new();
        for row in rows(self, begun, &[]).await? {
            let beginning = Reading::of(self, &row).beginning()?;
            let events = rows(self, events, &[Value::Octets(&beginning.chain.0)]).await?;
            let events = events.iter().map(|row| Reading::of(self, row).event()).collect::<Result<_>>()?;
            chains.push((beginning, events));
        }
        Ok(chains)
    }

    async fn chain_heads(&self, region: &Region) -> Result<Vec<ChainHead>> {
        let heads = "SELECT begun.chain, event.number, event.digest FROM audit_chains AS begun
             JOIN audit_events AS event ON event.chain = begun.chain AND event.number =
                 (SELECT MAX(newest.number) FROM audit_events AS newest WHERE newest.chain = begun.chain)
             WHERE begun.region = $1 ORDER BY begun.begun, begun.chain";
        let rows = rows(self, heads, &[Value::Text(Some(region.as_str()))]).await?;
        let head = |row| {
            let row = Reading::of(self, row);
            let chain = ChainId(row.array("chain")?);
            Ok(ChainHead { chain, events: row.number("number")?, digest: row.array("digest")? })
        };
        rows.iter().map(head).collect()
    }

    async fn weaknesses(&self) -> Result<Vec<Finding>> {
        check::guards(self).await
    }

    async fn now(&self) -> Result<Option<Time>> {
        let Some(sql) = Self::CLOCK else { return Ok(None) };
        let rows = rows(self, sql, &[]).await?;
        let micros = rows.first().map(|row| Reading::of(self, row).number("micros")).transpose()?;
        micros.map(Time::from_micros).transpose()
    }

    /// Closes all connections, and with the last one the files beside an SQLite store.
    async fn close(&self) {
        self.pool().close().await;
    }
}

#[async_trait]
impl<S: Sql> HomeRegistry for S {
    async fn standing(&self, choices: &[HomeChoice]) -> Result<Vec<Option<ChosenHome>>> {
        let mut lease = Lease::of(self).await?;
        let mut standing = Vec::with_capacity(choices.len());
        for choice in choices {
            standing.push(lease.standing_home(choice).await?);
        }
        lease.ended = true;
        Ok(standing)
    }

    async fn choose(&self, lists: &[SignedChoices], now: Time) -> Result<Chosen> {
        let mut work = Lease::begin(self).await?;
        self.serialise(&mut work, Part::Homes).await?;
        let mut contradicted = Vec::new();
        for list in lists {
            let statement = work.insert_statement(&list.statement).await?;
            for choice in &list.choices {
                if let Some(standing) = work.standing_home(choice).await? {
                    if standing.choice.region != choice.region {
                        contradicted.push((choice.clone(), standing.choice.region));
                    }
                    continue;
                }
                let sql = "INSERT INTO homes (tenant, record_type, region, chosen) VALUES ($1, $2, $3, $4)";
                let values = [
                    text(choice.tenant.as_str()),
                    text(choice.types.as_str()),
                    text(choice.region.as_str()),
                    number(now.micros()),
                ];
                work.execute(sql, &values).await?;
                work.insert_signed(choice, list.own, statement).await?;
            }
        }
        if !contradicted.is_empty() {
            work.rollback().await?;
            return Ok(Chosen::Contradicted(contradicted));
        }
        work.commit().await?;
        Ok(Chosen::Made)
    }

    async fn add_statement(&self, list: &SignedChoices) -> Result<()> {
        let mut work = Lease::begin(self).await?;
        self.serialise(&mut work, Part::Homes).await?;
        let statement = work.insert_statement(&list.statement).await?;
        for choice in &list.choices {
            work.insert_signed(choice, list.own, statement).await?;
        }
        work.commit().await
    }

    async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<ChosenHome>> {
        let sql =
            format!("{HOMES} WHERE $1 IS NULL OR homes.tenant = $1 ORDER BY homes.tenant, homes.record_type");
        let rows = rows(self, &sql, &[Value::Text(tenant.map(TenantId::as_str))]).await?;
        rows.iter().map(|row| Reading::of(self, row).home()).collect()
    }

    async fn close(&self) {
        self.pool().close().await;
    }
}

/// Whether another transaction was in the way.
fn is_conflict<S: Sql>(store: &S, error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.is_some_and(|source| store.is_conflict(source))
}

/// A row that cannot be read back: somebody else wrote it.
pub(super) fn unreadable_row(what: impl fmt::Display) -> Error {
    Error::new(Code::KeyUnverified, format!("the key store holds a row that Domicile did not write ({what})"))
        .advise("restore the key store; do not let anything else write to it")
}
