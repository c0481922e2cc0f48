//! What can be told of a store without a key: that its schema is this build's, that what guards it is there and as it was
//! made, and that its rows hang together. Nothing is changed.

use std::collections::HashSet;

use super::migration::{self, Versions};
use super::sql::{Columns, Reading, Sql, Value, number, rows};
use super::{Finding, KeyRow, KeyStore, StoreMark, StoredKey};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::region::Region;
use crate::scope::TenantId;
use crate::severity::Severity;

/// What was found in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// Its schema; none where it is none of this build's, which is a finding.
    pub versions: Option<Versions>,
    /// Which store it is, and how far it has come.
    pub mark: Option<StoreMark>,
    /// How many rows of keys it holds.
    pub keys: u64,
    /// How many homes.
    pub homes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Findings as they are collected. Of what is wrong a thousand times, the first are told and the others counted.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
    untold: u64,
}

/// Looks at what guards a store, and at no row.
pub(super) async fn guards<S: Sql>(store: &S) -> Result<Vec<Finding>> {
    let mut findings = Findings::default();
    store.guards(&mut findings).await?;
    Ok(findings.finish())
}

/// How many findings are told.
const FINDINGS_MAX: usize = 1_000;

impl Findings {
    pub(super) fn wrong(&mut self, error: &Error) {
        self.add(Finding::of(Severity::Wrong, error));
    }

    pub(super) fn weak(&mut self, error: &Error) {
        self.add(Finding::of(Severity::Weak, error));
    }

    fn add(&mut self, finding: Finding) {
        if self.all.len() < FINDINGS_MAX { self.all.push(finding) } else { self.untold += 1 }
    }

    fn finish(mut self) -> Vec<Finding> {
        if self.untold > 0 {
            let more = Error::new(Code::StoreCorrupt, format!("and {} findings more", self.untold))
                .advise("restore the key store; domicile key replay");
            self.all.push(Finding::of(Severity::Wrong, &more));
        }
        self.all
    }
}

/// A guard of the store that is not as it was made.
pub(super) fn weakened(what: impl Into<String>) -> Error {
    Error::new(Code::StoreWeakened, what)
}

/// Looks at a store that could be reached.
pub(super) async fn examine<S: Sql>(store: &S) -> Result<Condition> {
    let mut findings = Findings::default();
    let mut condition = Condition { versions: None, mark: None, keys: 0, homes: 0, findings: Vec::new() };
    match migration::judge(store).await {
        Ok(versions) => condition.versions = Some(versions),
        Err(error) if error.code() == Code::StoreInvalid => {
            findings.wrong(&error);
            return Ok(Condition { findings: findings.finish(), ..condition });
        }
        Err(error) => return Err(error),
    }
    match contents(store, &mut condition, &mut findings).await {
        // A page that cannot be read, where no more can be told.
        Err(error) if error.is_corruption() => findings.wrong(&error),
        looked => looked?,
    }
    Ok(Condition { findings: findings.finish(), ..condition })
}

async fn contents<S: Sql>(store: &S, condition: &mut Condition, findings: &mut Findings) -> Result<()> {
    store.guards(findings).await?;
    condition.keys = keys(store, findings).await?;
    condition.homes = homes(store, findings).await?;
    orphans(store, findings).await?;
    let mark = store.mark().await?;
    if mark.inserts < condition.keys {
        let counted = format!("{} rows of keys, and {} were counted", condition.keys, mark.inserts);
        findings.wrong(
            &weakened("rows were inserted past the count that a restored store is known by")
                .at(counted)
                .advise("find out who writes to the store beside Domicile"),
        );
    }
    condition.mark = Some(mark);
    Ok(())
}

/// How many rows are read at once.
const PAGE: u32 = 1_000;

/// Every row of a key: that it can be read, is not below its tombstone, and that what it is sealed under is there.
/// Branch keys stand before all others.
async fn keys<S: Sql>(store: &S, findings: &mut Findings) -> Result<u64> {
    let mut branches: HashSet<(Region, TenantId, String, u32)> = HashSet::new();
    let mut after: Option<(i64, [String; 4], i64)> = None;
    let mut count = 0;
    loop {
        let sql = format!(
            "{} WHERE ($1 IS NULL OR (kind, region, tenant, record_type, period, version) > ($1, $2, $3, $4, $5, $6))
             ORDER BY kind, region, tenant, record_type, period, version LIMIT $7",
            super::sql::KEYS
        );
        let of = |index: usize| {
            let texts = after.as_ref().map(|(_, texts, _)| texts);
            Value::Text(texts.and_then(|texts| texts.get(index)).map(String::as_str))
        };
        let values = [
            Value::Number(after.as_ref().map(|(kind, ..)| *kind)),
            of(0),
            of(1),
            of(2),
            of(3),
            Value::Number(after.as_ref().map(|(.., version)| *version)),
            number(PAGE),
        ];
        let page = rows(store, &sql, &values).await?;
        for row in &page {
            count += 1;
            match Reading::of(store, row).stored_key() {
                Err(error) => findings.wrong(&error.at(place_of(store, row)?)),
                Ok(stored) => key(stored, &mut branches, findings),
            }
        }
        let Some(last) = page.last() else { return Ok(count) };
        after = Some(primary_key(store, last)?);
    }
}

fn key(stored: StoredKey, branches: &mut HashSet<(Region, TenantId, String, u32)>, findings: &mut Findings) {
    let slot = stored.row.identity.slot.clone();
    let (version, floor) = (stored.row.identity.version, stored.floor);
    let row = match stored.standing() {
        Ok(row) => row,
        Err(error) => return findings.wrong(&error),
    };
    let place = |error: Error| error.at(format!("version {version} of the {slot}"));
    if row.state == super::KeyState::Destroyed {
        // Nobody erased it whom anybody could name (KEY-43).
        if floor.is_none() {
            let what = "a key is marked as destroyed, and no tombstone says that it was";
            findings.wrong(&place(
                Error::new(Code::KeyUnknown, what)
                    .advise("restore the key store; do not let anything else write to it"),
            ));
        }
        return;
    }
    if row.sealed.is_empty() {
        let what = "a row without a key, which is not marked as destroyed";
        return findings.wrong(&place(Error::new(Code::KeyUnverified, what).advise("restore the key store")));
    }
    let branch =
        |owner: TenantId, version| (slot.region.clone(), owner, slot.period.month().to_string(), version);
    if slot.kind == KeyKind::Branch {
        branches.insert(branch(slot.scope.tenant.clone(), version));
        return;
    }
    if slot.kind == KeyKind::Day {
        return;
    }
    let (owner, parent) = row.parent();
    if !branches.contains(&branch(owner.clone(), parent)) {
        let what = format!("the branch key of {owner} that a key is sealed under is gone, or was destroyed");
        findings.wrong(&place(
            Error::new(Code::KeyUnknown, what)
                .at(format!("version {parent}"))
                .advise("restore the key store: what it lost opens with nothing else"),
        ));
    }
}

fn primary_key<S: Sql, R: Columns>(store: &S, row: &R) -> Result<(i64, [String; 4], i64)> {
    let row = Reading::of(store, row);
    let [region, tenant, record_type, period] = [
        row.text("region")?.to_owned(),
        row.text("tenant")?.to_owned(),
        row.text("record_type")?.to_owned(),
        row.text("period")?.to_owned(),
    ];
    Ok((row.number("kind")?, [region, tenant, record_type, period], row.number("version")?))
}

/// Which row it is that cannot be read, by what stands in it.
fn place_of<S: Sql, R: Columns>(store: &S, row: &R) -> Result<String> {
    let (kind, [region, tenant, record_type, period], version) = primary_key(store, row)?;
    Ok(format!("kind {kind}, {region}, {tenant}/{record_type}, {period}, version {version}"))
}

async fn homes<S: Sql>(store: &S, findings: &mut Findings) -> Result<u64> {
    let sql = format!("{} ORDER BY homes.tenant, homes.record_type", super::sql::HOMES);
    let all = rows(store, &sql, &[]).await?;
    for row in &all {
        let row = Reading::of(store, row);
        if let Err(error) = row.home() {
            findings.wrong(&error.at(format!(
                "home of {}/{}",
                row.text("tenant")?,
                row.text("record_type")?
            )));
        }
    }
    Ok(all.len() as u64)
}

/// What names a key that is gone, and names that two keys have.
async fn orphans<S: Sql>(store: &S, findings: &mut Findings) -> Result<()> {
    let under_none = format!(
        "SELECT name FROM keys AS day WHERE kind = {} AND NOT EXISTS (SELECT 1 FROM keys WHERE kind = {}
             AND keys.name = substr(day.sealed, {}, 16)) ORDER BY name LIMIT 100",
        KeyKind::Day.code(),
        KeyKind::Tenant.code(),
        KeyRow::DAY_PARENT_AT + 1,
    );
    for (sql, code, what) in [
        (&*under_none, Code::KeyUnknown, "the tenant key that a day key is wrapped under is gone"),
        (
            "SELECT name FROM floors WHERE NOT EXISTS (SELECT 1 FROM keys WHERE keys.name = floors.name)
             ORDER BY name LIMIT 100",
            Code::KeyUnknown,
            "something was erased from a key whose row is gone",
        ),
        (
            "SELECT name FROM tombstones WHERE NOT EXISTS (SELECT 1 FROM floors WHERE floors.name = tombstones.name)
             GROUP BY name ORDER BY name LIMIT 100",
            Code::StoreCorrupt,
            "leaves were erased from a key, and the word of its newest tombstone is gone",
        ),
        (
            "SELECT name FROM keys GROUP BY name HAVING count(*) > 1 ORDER BY name LIMIT 100",
            Code::StoreCorrupt,
            "two keys have one name",
        ),
    ] {
        for row in rows(store, sql, &[]).await? {
            let name = hex::encode(Reading::of(store, &row).octets("name")?);
            findings.wrong(
                &Error::new(code, what)
                    .at(format!("key {name}"))
                    .advise("restore the key store; do not let anything else write to it"),
            );
        }
    }
    Ok(())
}

/// The first column of all rows, as text.
pub(super) async fn texts<S: Sql>(store: &S, sql: &str, name: &'static str) -> Result<Vec<String>> {
    let found = rows(store, sql, &[]).await?;
    found.iter().map(|row| Ok(Reading::of(store, row).text(name)?.to_owned())).collect()
}
