//! What guards a PostgreSQL store: triggers, rights, and the settings of its server.

use std::collections::{BTreeMap, BTreeSet};

use super::PostgresStore;
use crate::error::{Error, Result};
use crate::store::check::{Findings, texts, weakened};
use crate::store::sql::{Reading, Sql, rows};

/// Looks.
pub(super) async fn look(store: &PostgresStore, findings: &mut Findings) -> Result<()> {
    triggers(store, findings).await?;
    functions(store, findings).await?;
    grants(store, findings).await?;
    server(store, findings).await
}

/// Every trigger as the server writes it, one a line: what the schema's own statements make.
const TRIGGERS: &str = include_str!("triggers.txt");

async fn triggers(store: &PostgresStore, findings: &mut Findings) -> Result<()> {
    // Names of this schema are written without it, whatever the search path.
    let sql = "SELECT tgname::text AS name, tgenabled::text AS enabled,
             replace(pg_get_triggerdef(pg_trigger.oid), quote_ident(current_schema()) || '.', '') AS definition
         FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
         WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal ORDER BY tgname";
    let wrong = |what: String| {
        weakened(what).at(store.place()).advise(
            "find out who changed it; the owner of the tables makes it anew from \
             crates/domicile/src/store/postgres/schema_2.sql",
        )
    };
    let mut made: BTreeMap<&str, &str> =
        TRIGGERS.lines().filter_map(|line| Some((line.split(' ').nth(2)?, line))).collect();
    for row in rows(store, sql, &[]).await? {
        let row = Reading::of(store, &row);
        let (name, enabled) = (row.text("name")?, row.text("enabled")?);
        match made.remove(name) {
            None => findings.wrong(&wrong(format!("there is a trigger {name} that Domicile did not make"))),
            // After a dump was brought back, the server writes a chain of ORs with fewer parentheses.
            Some(made) if bare(made) != bare(row.text("definition")?) => {
                findings.wrong(&wrong(format!("the trigger {name} is not as it was made")));
            }
            // As it was made, or in every session.
            Some(_) if !["O", "A"].contains(&enabled) => {
                findings.wrong(&wrong(format!("the trigger {name} is disabled")));
            }
            Some(_) => {}
        }
    }
    for name in made.keys() {
        findings.wrong(&wrong(format!("the trigger {name} is gone")));
    }
    Ok(())
}

/// Without parentheses: no condition has anything but comparisons and ORs, which they do not change.
fn bare(definition: &str) -> String {
    definition.replace(['(', ')'], "")
}

/// What triggers call must be what the schema says.
async fn functions(store: &PostgresStore, findings: &mut Findings) -> Result<()> {
    let sql = "SELECT DISTINCT proname::text AS name, prosrc AS body FROM pg_proc
         JOIN pg_trigger ON tgfoid = pg_proc.oid JOIN pg_class ON pg_class.oid = tgrelid
         WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal ORDER BY 1";
    let schema: String = PostgresStore::SCHEMAS.concat();
    for row in rows(store, sql, &[]).await? {
        let row = Reading::of(store, &row);
        let (name, body) = (row.text("name")?, row.text("body")?);
        let made = format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS\n$${body}$$;"
        );
        if !schema.contains(&made) {
            let what = format!("the function {name}, which triggers call, is not as it was made");
            findings
                .wrong(&weakened(what).at(store.place()).advise("find out who changed it, and make it anew"));
        }
    }
    Ok(())
}

/// What the documented roles may, beside reading: table, column where it is for one, and privilege.
const READER: &[&str] = &["audit_chains INSERT", "audit_events INSERT"];
const WRITER: &[&str] = &[
    "keys INSERT",
    "changes INSERT",
    "writers INSERT",
    "homes INSERT",
    "home_statements INSERT",
    "home_signed INSERT",
    "keys.generation UPDATE",
    "keys.state UPDATE",
    "keys.commitment UPDATE",
    "keys.parent_version UPDATE",
    "keys.sealed UPDATE",
    "counters.value UPDATE",
];
const OFFICER: &[&str] = &[
    "ledger INSERT",
    "floors INSERT",
    "tombstones INSERT",
    "floors.generation UPDATE",
    "floors.entry UPDATE",
    "meta.incarnation UPDATE",
];

fn may(role: &str, right: &str) -> bool {
    let more: &[&[&str]] = match role {
        "domicile_reader" => &[READER],
        "domicile_writer" => &[READER, WRITER],
        "domicile_officer" => &[READER, WRITER, OFFICER],
        _ => &[],
    };
    // Whoever was let in to read, a role for dumps or for reports, sees what is no secret.
    (role != "PUBLIC" && right.ends_with(" SELECT")) || more.concat().contains(&right)
}

async fn grants(store: &PostgresStore, findings: &mut Findings) -> Result<()> {
    let sql = "WITH rights AS (
             SELECT relname::text AS what, relowner AS owner, (aclexplode(relacl)).* FROM pg_class
                 WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
             UNION ALL
             SELECT relname || '.' || attname, relowner, (aclexplode(attacl)).* FROM pg_class
                 JOIN pg_attribute ON attrelid = pg_class.oid
                 WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped
             UNION ALL
             SELECT 'schema', nspowner, (aclexplode(nspacl)).* FROM pg_namespace
                 WHERE oid = current_schema()::regnamespace)
         SELECT what, coalesce((SELECT rolname FROM pg_roles WHERE oid = grantee)::text, 'PUBLIC') AS role,
             privilege_type AS privilege, is_grantable::int::bigint AS passed_on
         FROM rights WHERE grantee <> owner AND NOT (what = 'schema' AND privilege_type = 'USAGE')
         ORDER BY 1, 2, 3";
    let mut wide: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(store, sql, &[]).await? {
        let row = Reading::of(store, &row);
        let (role, right) = (row.text("role")?, format!("{} {}", row.text("what")?, row.text("privilege")?));
        let passed_on = row.number::<i64>("passed_on")? != 0;
        if passed_on || !may(role, &right) {
            wide.entry(role.to_owned()).or_default().insert(right);
        }
    }
    for (role, rights) in wide {
        let rights: Vec<_> = rights.into_iter().collect();
        findings.wrong(
            &weakened(format!("{role} may more than is documented"))
                .at(rights.join(", "))
                .advise("REVOKE it, or run roles.sql again as the owner of the tables"),
        );
    }
    Ok(())
}

async fn server(store: &PostgresStore, findings: &mut Findings) -> Result<()> {
    let weak = |what: &str, advice: &str| -> Error { weakened(what).at(store.place()).advise(advice) };
    let owns =
        "SELECT 'owns' AS owns FROM pg_class WHERE oid = 'keys'::regclass AND pg_has_role(relowner, 'USAGE')";
    if !texts(store, owns, "owns").await?.is_empty() {
        findings.weak(&weak(
            "the role of this URL owns the tables, and can undo whatever guards them",
            "log in with a role that has domicile_reader, domicile_writer or domicile_officer",
        ));
    }
    let standbys = "SELECT current_setting('synchronous_standby_names') AS standbys";
    if texts(store, standbys, "standbys").await?.concat().is_empty() {
        findings.weak(&weak(
            "no synchronous standby is named: keys are on one server alone when they are used",
            "name one in synchronous_standby_names: a key that is lost takes its records with it",
        ));
    }
    // Where the log does not hold whole pages, a crash in the middle of one leaves neither.
    let pages = "SELECT current_setting('full_page_writes') AS pages";
    if texts(store, pages, "pages").await? != ["on"] {
        findings.wrong(&weak("full_page_writes is off: a crash may damage the store", "set it to on"));
    }
    Ok(())
}
