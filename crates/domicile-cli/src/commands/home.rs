//! `domicile home choose` and `domicile home list`.

use domicile::home::HomeChoice;
use domicile::{Code, Error, Result};
use serde::Serialize;

use crate::arguments::{Common, HomeChoose, HomeList};
use crate::input::{self, Input};
use crate::report::{Report, counted, print_line};

#[derive(Serialize)]
struct ChoiceJson<'a> {
    tenant: &'a str,
    #[serde(rename = "type")]
    types: &'a str,
    region: &'a str,
    state: &'static str,
}

pub(crate) async fn choose(common: &Common, choose: &HomeChoose, report: &Report) -> Result<()> {
    let choices = match (&choose.from, &choose.tenant, &choose.types, &choose.region) {
        (Some(from), ..) => read_choices(from)?,
        (None, Some(tenant), Some(types), Some(region)) => {
            vec![HomeChoice { tenant: tenant.clone(), types: types.clone(), region: region.clone() }]
        }
        _ => return Err(Error::new(Code::ArgumentInvalid, "a choice has a tenant, a type and a region")),
    };
    for choice in &choices {
        if let domicile::home::Types::One(record_type) = &choice.types
            && let Some(meant) = record_type.near_miss()
        {
            report.warn(&format!("the record type {record_type} is not well known; did you mean {meant}?"));
        }
    }
    let domicile = input::domicile(common, report).await?;
    let chosen = domicile.choose_homes(&choices).await?;
    for choice in &chosen.pending {
        report.warn(&format!(
            "{choice} is pending: choose it again on a host with the key of {}",
            choice.region
        ));
    }
    if report.json || choices.len() == 1 {
        for choice in &choices {
            let state = match (chosen.pending.contains(choice), chosen.made.contains(choice)) {
                (true, _) => "pending",
                (false, true) => "chosen",
                (false, false) => "unchanged",
            };
            let json = ChoiceJson {
                tenant: choice.tenant.as_str(),
                types: choice.types.as_str(),
                region: choice.region.as_str(),
                state,
            };
            report.print(&json, || format!("{choice} ({state})"))?;
        }
        return Ok(());
    }
    let unchanged = choices.len() - chosen.made.len();
    print_line(&format!("{} chosen, {unchanged} unchanged", counted(chosen.made.len() as u64, "home")))
}

/// Reads CSV of tenant,record_type,region, its header line first.
fn read_choices(from: &std::ffi::OsStr) -> Result<Vec<HomeChoice>> {
    let input = Input::all(&[from.to_owned()], None)?;
    let [input] = input.as_slice() else {
        return Err(Error::new(Code::ArgumentInvalid, "--from takes one file"));
    };
    let name = input.name();
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input.open()?);
    let unreadable = |source: csv::Error| {
        let line = source.position().map_or(0, csv::Position::line);
        Error::new(Code::ArgumentInvalid, "this is not CSV of tenant,record_type,region")
            .at(format!("{name}, line {line}"))
            .because(source)
    };
    let header = rows.headers().map_err(unreadable)?;
    if header.iter().ne(["tenant", "record_type", "region"]) {
        return Err(Error::new(Code::ArgumentInvalid, "the first line does not name the columns")
            .at(format!("{name}, line 1"))
            .rule("the first line is tenant,record_type,region"));
    }
    let mut choices = Vec::new();
    for row in rows.records() {
        let row = row.map_err(unreadable)?;
        let line = row.position().map_or(0, csv::Position::line);
        let field = |index: usize| row.get(index).unwrap_or_default();
        let choice = || -> Result<HomeChoice> {
            Ok(HomeChoice { tenant: field(0).parse()?, types: field(1).parse()?, region: field(2).parse()? })
        };
        choices.push(choice().map_err(|error| error.at(format!("{name}, line {line}")))?);
    }
    Ok(choices)
}

#[derive(Serialize)]
struct HomeJson<'a> {
    tenant: &'a str,
    #[serde(rename = "type")]
    types: &'a str,
    region: &'a str,
    chosen: String,
    state: &'static str,
}

pub(crate) async fn list(common: &Common, list: &HomeList, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let homes = domicile.homes(list.tenant.as_ref()).await?;
    let mut all = Vec::with_capacity(homes.len());
    for (home, verified) in &homes {
        let state = match (verified, &home.statement) {
            (Err(error), _) => {
                report.fail(error);
                "forged"
            }
            (Ok(()), Some(_)) => "signed",
            (Ok(()), None) => "pending",
        };
        all.push(HomeJson {
            tenant: home.choice.tenant.as_str(),
            types: home.choice.types.as_str(),
            region: home.choice.region.as_str(),
            chosen: home.chosen.to_string(),
            state,
        });
    }
    report.print(&all, || {
        let rows: Vec<_> = all
            .iter()
            .map(|home| [home.tenant, home.types, home.region, home.chosen.as_str(), home.state])
            .collect();
        table(["TENANT", "TYPE", "REGION", "CHOSEN", "STATE"], &rows)
    })
}

/// Columns as wide as their widest entry.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[&str; N]]) -> String {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[&str; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&header).chain(rows).map(line).collect::<Vec<_>>().join("\n")
}
