//! `domicile home places`: where records of a scope may be processed.

use domicile::keyring::{Concerned, PlacesRule};
use domicile::processing::Where;
use domicile::{Action, Domicile, Purpose, Region, Result};
use serde::Serialize;

use super::home::table;
use crate::arguments::{Common, HoldChange, PlacesCommand};
use crate::input;
use crate::report::Report;

pub(crate) async fn run(common: &Common, places: &PlacesCommand, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    match places {
        PlacesCommand::Set(set) => change(&domicile, &set.change, set.places.clone(), report).await,
        PlacesCommand::Clear(clear) => change(&domicile, clear, Vec::new(), report).await,
        PlacesCommand::List(list) => {
            let rules = domicile.keyring().places(region(&domicile, list.region.as_ref())).await?;
            print(&rules, report)
        }
    }
}

fn region<'a>(domicile: &'a Domicile, named: Option<&'a Region>) -> &'a Region {
    named.unwrap_or(&domicile.here().region)
}

#[derive(Serialize)]
struct EntryJson {
    entry: u64,
}

async fn change(domicile: &Domicile, change: &HoldChange, places: Vec<Where>, report: &Report) -> Result<()> {
    let action = Action::Manage(Purpose::Maintenance.into());
    let permit = domicile.permit_region(region(domicile, change.region.as_ref()), action).await?;
    let whom = Concerned { tenant: change.tenant.clone(), types: change.types.clone() };
    let names: Vec<_> = places.iter().map(ToString::to_string).collect();
    let entry = domicile.keyring().set_places(permit, whom.clone(), places, &change.reason).await?;
    report.print(&EntryJson { entry }, || {
        let what = match names.is_empty() {
            true => "may be processed where records of their home may".to_owned(),
            false => format!("may be processed in {}", names.join(", ")),
        };
        format!("records of {whom} {what} (entry {entry} of the ledger)")
    })
}

#[derive(Serialize)]
struct RuleJson {
    tenant: String,
    #[serde(rename = "type")]
    types: String,
    places: Vec<String>,
    version: u64,
    since: String,
    reason: String,
}

fn print(rules: &[PlacesRule], report: &Report) -> Result<()> {
    let all: Vec<_> = rules
        .iter()
        .map(|rule| RuleJson {
            tenant: rule.whom.tenant.to_string(),
            types: rule.whom.types.to_string(),
            places: rule.places.iter().map(ToString::to_string).collect(),
            version: rule.version,
            since: rule.since.to_string(),
            reason: rule.reason.clone(),
        })
        .collect();
    report.print(&all, || {
        let places: Vec<_> = all.iter().map(|rule| rule.places.join(",")).collect();
        let rows: Vec<_> = all
            .iter()
            .zip(&places)
            .map(|(rule, places)| [&rule.tenant[..], &rule.types, places, &rule.since, &rule.reason])
            .collect();
        table(["TENANT", "TYPE", "PLACES", "SINCE", "REASON"], &rows)
    })
}
