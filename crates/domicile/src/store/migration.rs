//! How a store comes from one schema to the next: in two steps, so that programs of both ages run meanwhile.

use super::sql::{Lease, Part, Reading, Sql, Value, number, rows};
use crate::error::{Code, Error, Result};
use crate::random::{OsRandom, Randomness};

/// What this build reads and writes.
const SCHEMA: u32 = 2;

/// One step of bringing a store up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Step {
    /// Adds what the newer schema has. Older programs go on.
    Expand,
    /// Shuts out older programs, once none is left.
    Contract,
}

/// What a store was written by, and who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The schema that it has.
    pub schema: u32,
    /// The oldest schema whose readers understand it.
    pub min_reader: u32,
    /// The oldest schema whose writers may write it.
    pub min_writer: u32,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// What the store was; none where there was none.
    pub before: Option<Versions>,
    /// What it is.
    pub after: Versions,
}

const VERSIONS: &str = "SELECT schema, min_reader, min_writer FROM meta";

/// Whether this build may use the store.
pub(super) async fn judge<S: Sql>(store: &S) -> Result<Versions> {
    let rows = rows(store, VERSIONS, &[]).await?;
    let versions = rows.first().map(|row| read(&Reading::of(store, row)));
    let versions = versions.transpose()?.ok_or_else(|| none(store))?;
    if std::cmp::max(versions.min_reader, versions.min_writer) > SCHEMA {
        return Err(newer(store));
    }
    if versions.schema < SCHEMA {
        return Err(Error::new(Code::StoreInvalid, "this key store was made by an older Domicile")
            .at(store.place())
            .advise("`domicile store migrate` brings it up to date; back it up before"));
    }
    Ok(versions)
}

/// Writes the newest schema where there is nothing.
#[cfg(feature = "sqlite")]
pub(super) async fn create<S: Sql>(store: &S) -> Result<()> {
    migrate(store, Step::Expand, true).await.map(drop)
}

/// Does one step, wholly or not at all.
pub(super) async fn migrate<S: Sql>(store: &S, step: Step, may_create: bool) -> Result<Migrated> {
    let mut work = Lease::begin(store).await?;
    store.serialise(&mut work, Part::Schema).await?;
    let before = versions(store, &mut work).await?;
    match (step, before) {
        (Step::Expand, None) if may_create => fill(&mut work).await?,
        (_, None) => return Err(none(store)),
        (_, Some(before)) if before.schema > SCHEMA => return Err(newer(store)),
        (Step::Expand, Some(before)) => {
            for script in scripts::<S>(before.schema) {
                work.script(script).await?;
            }
            work.execute("UPDATE meta SET schema = $1", &[number(SCHEMA)]).await?;
        }
        (Step::Contract, Some(before)) if before.schema < SCHEMA => {
            return Err(Error::new(Code::StoreInvalid, "this key store was not expanded yet")
                .at(store.place())
                .advise("`domicile store migrate` first; contract when no older program uses it"));
        }
        (Step::Contract, Some(_)) => {
            work.execute("UPDATE meta SET min_reader = $1, min_writer = $1", &[number(SCHEMA)]).await?;
        }
    }
    let after = versions(store, &mut work).await?.ok_or_else(|| none(store))?;
    work.commit().await?;
    Ok(Migrated { before, after })
}

async fn fill<S: Sql>(work: &mut Lease<'_, S>) -> Result<()> {
    let mut incarnation = [0; 16];
    OsRandom.fill(&mut incarnation)?;
    for script in scripts::<S>(0) {
        work.script(script).await?;
    }
    let sql = "INSERT INTO meta (schema, min_reader, min_writer, incarnation) VALUES ($1, $1, $1, $2)";
    work.execute(sql, &[number(SCHEMA), Value::Octets(&incarnation)]).await.map(drop)
}

/// What is added to a store of this schema.
fn scripts<S: Sql>(schema: u32) -> impl Iterator<Item = &'static str> {
    let later = (S::FIRST_SCHEMA..).zip(S::SCHEMAS).filter(move |(version, _)| *version > schema);
    later.map(|(_, script)| *script)
}

async fn versions<S: Sql>(store: &S, work: &mut Lease<'_, S>) -> Result<Option<Versions>> {
    let found = work.rows(S::FIND_META, &[]).await?;
    let found: Option<i64> = found.first().map(|row| Reading::of(store, row).number("stores")).transpose()?;
    if found.unwrap_or_default() == 0 {
        return Ok(None);
    }
    let rows = work.rows(VERSIONS, &[]).await?;
    rows.first().map(|row| read(&Reading::of(store, row))).transpose()
}

fn read<R: super::sql::Columns>(row: &Reading<'_, R>) -> Result<Versions> {
    Ok(Versions {
        schema: row.number("schema")?,
        min_reader: row.number("min_reader")?,
        min_writer: row.number("min_writer")?,
    })
}

fn none<S: Sql>(store: &S) -> Error {
    Error::new(Code::StoreInvalid, "there is no key store in it").at(store.place())
}

fn newer<S: Sql>(store: &S) -> Error {
    Error::new(Code::StoreInvalid, "this key store was made by a newer Domicile")
        .at(store.place())
        .advise("use that version or a newer one")
}
