//! `domicile home choose` and `domicile home list`.

use domicile::home::HomeChoice;
use domicile::{Code, Error, Result};
use serde::Serialize;

use crate::arguments::{Common, HomeChoose, HomeList};
use crate::input::{self, Input};
use crate::report::{Report, counted};

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
        (Some(from), ..) => read_choices(from, report)?,
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
    report.print_line(&format!("{} chosen, {unchanged} unchanged", counted(chosen.made.len() as u64, "home")))
}

/// Reads CSV of tenant,record_type,region. A header line that names these three may stand before it, and then the
/// columns in any order and beside others.
fn read_choices(from: &std::ffi::OsStr, report: &Report) -> Result<Vec<HomeChoice>> {
    let input = Input::all(&[from.to_owned()], None, report)?;
    let [input] = input.as_slice() else {
        return Err(Error::new(Code::ArgumentInvalid, "--from takes one file"));
    };
    let name = input.name();
    let mut rows =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(input.open()?);
    let place = |line: Option<u64>| match line {
        Some(line) => format!("{name}, line {line}"),
        None => name.clone(),
    };
    let (mut columns, mut choices) = ([0, 1, 2], Vec::new());
    for (index, row) in rows.records().enumerate() {
        let row = row.map_err(|source| {
            let line = source.position().map(csv::Position::line);
            Error::new(Code::ArgumentInvalid, "this is not CSV of tenant,record_type,region")
                .at(place(line))
                .because(source)
        })?;
        if let (0, Some(named)) = (index, named_columns(&row)) {
            columns = named;
            continue;
        }
        let choice = || -> Result<HomeChoice> {
            let [tenant, types, region] = columns.map(|column| row.get(column).unwrap_or_default());
            Ok(HomeChoice { tenant: tenant.parse()?, types: types.parse()?, region: region.parse()? })
        };
        choices.push(choice().map_err(|error| error.at(place(row.position().map(csv::Position::line))))?);
    }
    Ok(choices)
}

/// Where the three columns are, if this row names them.
fn named_columns(row: &csv::StringRecord) -> Option<[usize; 3]> {
    let column = |names: &[&str]| row.iter().position(|cell| names.contains(&cell));
    Some([column(&["tenant"])?, column(&["record_type", "type"])?, column(&["region"])?])
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
    for (home, state) in &homes {
        let state = match state {
            Ok(state) => state.as_str(),
            Err(error) => {
                report.fail(error);
                "forged"
            }
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
