//! `domicile audit`: what was done, and the proof of it.

use std::io::BufWriter;

use domicile::export::Export;
use domicile::files::NewFile;
use domicile::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use super::key::read_export;
use crate::arguments::{AuditExport, AuditList, AuditVerify, Common};
use crate::input;
use crate::report::{Report, counted};

/// What of an event is asked for here.
#[derive(Deserialize)]
struct Known {
    event: String,
    tenant: Option<String>,
}

pub(crate) async fn list(common: &Common, list: &AuditList, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = list.region.as_ref().unwrap_or(&domicile.here().region);
    let export = domicile.export(region).await?;
    let mut events: Vec<&str> =
        export.chains.iter().flat_map(|(_, events)| events).map(|event| &event.body[..]).collect();
    // Each begins with its time, in one form.
    events.sort_unstable();
    for body in events {
        let known: Known = serde_json::from_str(body).map_err(|source| {
            Error::new(Code::LedgerUnverified, "an audit event that Domicile did not write")
                .advise("`domicile audit verify` says which")
                .because(source)
        })?;
        let wanted = list.event.as_ref().is_none_or(|event| *event == known.event)
            && list.tenant.as_ref().is_none_or(|tenant| known.tenant.as_deref() == Some(tenant.as_str()));
        if wanted {
            report.print_line(body)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct VerifiedJson {
    entries: usize,
    chains: usize,
    events: usize,
    /// The newest entry that somebody else holds too.
    held_elsewhere: Option<u64>,
}

pub(crate) async fn verify(common: &Common, verify: &AuditVerify, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = verify.region.as_ref().unwrap_or(&domicile.here().region);
    let key = domicile.region(region)?.verifying_key;
    let export = domicile.export(region).await?;
    export.verify(&key)?;
    let against = verify.against.as_deref().map(read_export).transpose()?;
    if let Some(kept) = &against {
        kept.verify(&key).map_err(|error| error.at("the export that was kept elsewhere"))?;
        holds(&export, kept)?;
    }
    let json = VerifiedJson {
        entries: export.ledger.len(),
        chains: export.chains.len(),
        events: export.chains.iter().map(|(_, events)| events.len()).sum(),
        held_elsewhere: against.map(|kept| kept.ledger.len() as u64),
    };
    report.print(&json, || {
        let what = format!(
            "{} of the ledger, {} in {} verify",
            counted(json.entries as u64, "entry"),
            counted(json.events as u64, "event"),
            counted(json.chains as u64, "chain"),
        );
        let held = match json.held_elsewhere {
            Some(number) => format!("nothing up to entry {number} was changed or cut: the export says the same"),
            None => "that nothing was cut from the ends is seen against an export that was kept elsewhere (--against)"
                .to_owned(),
        };
        format!("{what}\n{held}")
    })
}

/// Whether the store still holds everything that an export of it does.
fn holds(now: &Export, kept: &Export) -> Result<()> {
    let cut = |what: String| {
        Error::new(Code::LedgerUnverified, what)
            .advise("the store was changed or put back since the export: find out by whom; `domicile key replay` after a restore")
    };
    if now.ledger.get(..kept.ledger.len()) != Some(&kept.ledger[..]) {
        return Err(cut("the ledger is not the one that was exported, or was cut".to_owned()));
    }
    for (beginning, events) in &kept.chains {
        let chain = now.chains.iter().find(|(now, _)| now == beginning);
        let same = chain.is_some_and(|(_, now)| now.get(..events.len()) == Some(&events[..]));
        if !same {
            return Err(cut(format!(
                "the chain {} is not the one that was exported, or was cut",
                beginning.chain
            )));
        }
    }
    match kept.homes.iter().find(|home| home.own && !now.homes.contains(home)) {
        Some(home) => Err(cut(format!("the home {} is not the one that was exported", home.choice))),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct ExportedJson {
    entries: usize,
    chains: usize,
    homes: usize,
}

pub(crate) async fn export(common: &Common, export: &AuditExport, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = export.region.as_ref().unwrap_or(&domicile.here().region);
    let taken = domicile.export(region).await?;
    // What does not verify is not kept as a proof.
    taken.verify(&domicile.region(region)?.verifying_key)?;
    let mut file = NewFile::create(&export.output, 0o600, false)?;
    taken.write(BufWriter::new(&mut file))?;
    file.publish()?;
    let json =
        ExportedJson { entries: taken.ledger.len(), chains: taken.chains.len(), homes: taken.homes.len() };
    report.print(&json, || {
        format!(
            "{} of the ledger, {}, {} exported",
            counted(json.entries as u64, "entry"),
            counted(json.chains as u64, "chain"),
            counted(json.homes as u64, "home"),
        )
    })
}
