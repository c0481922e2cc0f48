//! `domicile store`: care of key stores.

use domicile::checkup::{self, Checkup};
use domicile::store::{Finding, Severity, Step, backup as back_up, migrate as migrate_store};
use domicile::{Code, Error, Result};
use serde::Serialize;

use crate::arguments::{Common, StoreBackup, StoreCheck, StoreMigrate};
use crate::input;
use crate::report::{Report, counted};

#[derive(Serialize)]
struct MigratedJson {
    store: String,
    before: Option<u32>,
    schema: u32,
    min_reader: u32,
    min_writer: u32,
}

pub(crate) async fn migrate(common: &Common, migrate: &StoreMigrate, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let step = if migrate.contract { Step::Contract } else { Step::Expand };
    let mut urls: Vec<_> =
        config.regions().values().map(|region| &region.store).chain([config.homes()]).collect();
    urls.sort_by_key(ToString::to_string);
    urls.dedup();
    for url in urls {
        let migrated = migrate_store(url, step).await?;
        let json = MigratedJson {
            store: url.to_string(),
            before: migrated.before.map(|before| before.schema),
            schema: migrated.after.schema,
            min_reader: migrated.after.min_reader,
            min_writer: migrated.after.min_writer,
        };
        report.print(&json, || {
            let before = json.before.map_or("none".to_owned(), |before| before.to_string());
            let MigratedJson { store, schema, min_reader, min_writer, .. } = &json;
            format!("{store}: schema {schema} (was {before}), for readers from {min_reader} and writers from {min_writer}")
        })?;
    }
    Ok(())
}

#[derive(Serialize)]
struct CheckedJson<'a> {
    store: String,
    schema: Option<u32>,
    min_reader: Option<u32>,
    min_writer: Option<u32>,
    incarnation: Option<String>,
    changes: Option<u64>,
    keys: u64,
    /// None where it is not the registry.
    homes: Option<u64>,
    regions: Vec<RegionJson<'a>>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct RegionJson<'a> {
    region: &'a str,
    entries: u64,
    chains: u64,
}

pub(crate) async fn check(common: &Common, check: &StoreCheck, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let mut wrong = 0;
    for checkup in checkup::check(&config, check.region.as_ref()).await? {
        let findings = &checkup.condition.findings;
        for finding in findings.iter().filter(|finding| finding.severity == Severity::Wrong) {
            report.remember(finding.code.class());
            wrong += 1;
        }
        report.print(&json(&checkup), || text(&checkup))?;
    }
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::new(Code::PlaceAiling, format!("{} to be put right", counted(wrong, "thing"))))
}

fn json(checkup: &Checkup) -> CheckedJson<'_> {
    let Checkup { store, regions, registry, condition, .. } = checkup;
    CheckedJson {
        store: store.to_string(),
        schema: condition.versions.map(|versions| versions.schema),
        min_reader: condition.versions.map(|versions| versions.min_reader),
        min_writer: condition.versions.map(|versions| versions.min_writer),
        incarnation: condition.mark.as_ref().map(|mark| mark.incarnation.to_string()),
        changes: condition.mark.as_ref().map(|mark| mark.changes),
        keys: condition.keys,
        homes: registry.then_some(condition.homes),
        regions: regions
            .iter()
            .map(|of| RegionJson { region: of.region.as_str(), entries: of.entries, chains: of.chains })
            .collect(),
        findings: &condition.findings,
    }
}

fn text(checkup: &Checkup) -> String {
    let Checkup { store, regions, registry, condition, .. } = checkup;
    let mut lines = Vec::new();
    match (condition.versions, &condition.mark) {
        (Some(versions), Some(mark)) => {
            let homes =
                if *registry { format!(", {}", counted(condition.homes, "home")) } else { String::new() };
            lines.push(format!(
                "{store}: schema {}, {}{homes}, change {} of {}",
                versions.schema,
                counted(condition.keys, "key"),
                mark.changes,
                mark.incarnation
            ));
        }
        _ => lines.push(format!("{store}: cannot be used")),
    }
    lines.extend(regions.iter().map(|region| {
        format!(
            "  {}: {} of the ledger and {} verify",
            region.region,
            counted(region.entries, "entry"),
            counted(region.chains, "chain")
        )
    }));
    lines.extend(condition.findings.iter().map(words));
    if condition.findings.is_empty() {
        lines.push("  nothing is wrong".to_owned());
    }
    lines.join("\n")
}

fn words(finding: &Finding) -> String {
    let Finding { severity, code, what, place, advice, .. } = finding;
    let place = place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    let advice = if advice.is_empty() { String::new() } else { format!("\n    do: {advice}") };
    format!("  {} [{code}]: {what}{place}{advice}", severity.as_str())
}

#[derive(Serialize)]
struct BackupJson {
    store: String,
    output: String,
    incarnation: String,
    changes: u64,
    keys: u64,
    homes: u64,
    ledgers: std::collections::BTreeMap<String, u64>,
}

pub(crate) async fn backup(common: &Common, backup: &StoreBackup, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let region = backup.region.as_ref().unwrap_or(&config.here().region);
    let of_region = config
        .regions()
        .get(region)
        .ok_or_else(|| Error::new(Code::ConfigInvalid, format!("the region {region} is not configured")))?;
    let copy = back_up(&of_region.store, &backup.output, backup.force).await?;
    for finding in &copy.findings {
        report.warn(words(finding).trim());
    }
    if *config.homes() != of_region.store {
        report.warn(&format!("the registry of homes is {}, and not in this copy", config.homes()));
    }
    let json = BackupJson {
        store: of_region.store.to_string(),
        output: backup.output.display().to_string(),
        incarnation: copy.mark.incarnation.to_string(),
        changes: copy.mark.changes,
        keys: copy.keys,
        homes: copy.homes,
        ledgers: copy.ledgers.iter().map(|(region, number)| (region.to_string(), *number)).collect(),
    };
    report.print(&json, || {
        let ledgers = json.ledgers.iter().map(|(region, number)| format!(", entry {number} of the ledger of {region}"));
        format!(
            "{}: a whole copy of {}\nholds {} and {}: change {} of {}{}\n\
             to put it back, an export of the audit is needed that is as new as the newest erasure: `domicile audit export`",
            json.output,
            json.store,
            counted(json.keys, "key"),
            counted(json.homes, "home"),
            json.changes,
            json.incarnation,
            ledgers.collect::<String>()
        )
    })
}
