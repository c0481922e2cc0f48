//! What guards an SQLite store: the file's own order, its log, its mode, and the triggers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use sqlx::Executor;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::{SqliteStore, damaged};
use crate::error::{Code, Error, Result};
use crate::store::check::{Findings, texts, weakened};
use crate::store::sql::{Reading, Sql, rows};

/// How many lines of `integrity_check` are told.
const LINES: &str = "PRAGMA integrity_check(20)";

/// Looks.
pub(super) async fn look(store: &SqliteStore, findings: &mut Findings) -> Result<()> {
    for line in texts(store, LINES, "integrity_check").await? {
        if line != "ok" {
            findings.wrong(&damaged(&line).at(store.place()));
        }
    }
    triggers(store, findings).await?;
    if store.still {
        // A copy is read, and written by nobody.
        return Ok(());
    }
    let journal = texts(store, "PRAGMA journal_mode", "journal_mode").await?;
    if journal != ["wal"] {
        let what =
            format!("the journal is {} and not wal: a crash may lose what was committed", journal.join(""));
        findings.wrong(&weakened(what).at(store.place()).advise("bring the file to a local disk"));
    }
    let secure = rows(store, "PRAGMA secure_delete", &[]).await?;
    let secure =
        secure.first().map(|row| Reading::of(store, row).number::<i64>("secure_delete")).transpose()?;
    if secure != Some(1) {
        let what = "deleted bytes are not overwritten: secure_delete is off in this build of SQLite";
        findings.wrong(&weakened(what).at(store.place()).advise("use the SQLite that Domicile brings"));
    }
    mode(store, findings);
    Ok(())
}

fn mode(store: &SqliteStore, findings: &mut Findings) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = store.path.as_os_str().to_owned();
        file.push(suffix);
        let mode = fs::metadata(&file).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            let what = "others than the owner may read or write the key store";
            findings.weak(&weakened(what).at(file.display().to_string()).advise(
                "chmod 600: who may write it can roll keys back, who may read it knows tenants and homes",
            ));
        }
    }
}

/// What stands in the schema, against what a store is made with.
async fn triggers(store: &SqliteStore, findings: &mut Findings) -> Result<()> {
    let made = made(store).await?;
    let stands = schema(store).await?;
    let wrong = |what: String| {
        weakened(what).at(store.place()).advise(
            "find out who changed the store; make a new one, or bring a backup, and `domicile key replay`",
        )
    };
    for ((kind, name), sql) in &made {
        match stands.get(&(kind.clone(), name.clone())) {
            None => findings.wrong(&wrong(format!("the {kind} {name} is gone"))),
            Some(stands) if stands != sql => {
                findings.wrong(&wrong(format!("the {kind} {name} is not as it was made")));
            }
            Some(_) => {}
        }
    }
    for (kind, name) in stands.keys().filter(|named| !made.contains_key(*named)) {
        findings.wrong(&wrong(format!("there is a {kind} {name} that Domicile did not make")));
    }
    Ok(())
}

/// Tables, indices and triggers by kind and name, with their SQL.
async fn schema(store: &SqliteStore) -> Result<BTreeMap<(String, String), String>> {
    // What SQLite keeps for itself begins with its name.
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'";
    let found = rows(store, sql, &[]).await?;
    let entry = |row| {
        let row = Reading::of(store, row);
        Ok(((row.text("type")?.to_owned(), row.text("name")?.to_owned()), row.text("sql")?.to_owned()))
    };
    found.iter().map(entry).collect()
}

/// The same of a store that is made now, in memory.
async fn made(store: &SqliteStore) -> Result<BTreeMap<(String, String), String>> {
    let options = SqliteConnectOptions::new().in_memory(true);
    // Another connection would be another database, and one that is idle for long would be gone.
    let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let fresh = SqliteStore { path: store.path.clone(), pool: pool.connect_lazy_with(options), still: true };
    for script in SqliteStore::SCHEMAS {
        let made = fresh.pool.execute(sqlx::raw_sql(*script)).await;
        made.map_err(|source| {
            Error::new(Code::StoreUnavailable, "the schema could not be made for comparison").because(source)
        })?;
    }
    let made = schema(&fresh).await;
    fresh.pool.close().await;
    made
}
