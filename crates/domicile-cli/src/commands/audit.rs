//! `domicile audit`: what was done, and the proof of it.

use std::io::BufWriter;
use std::path::Path;

use domicile::export::Export;
use domicile::files::NewFile;
use domicile::{Action, Class, Code, Domicile, Error, Purpose, Region, Result};
use serde::{Deserialize, Serialize};

use super::key::read_export;
use crate::arguments::{AuditCheckpoint, AuditExport, AuditList, AuditVerify, Common};
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
    /// When the newest checkpoint was said: what happened since may be cut off unseen.
    checkpoint: Option<String>,
    /// The newest entry that somebody else holds too.
    held_elsewhere: Option<u64>,
}

pub(crate) async fn verify(common: &Common, verify: &AuditVerify, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = verify.region.as_ref().unwrap_or(&domicile.here().region);
    let key = domicile.region(region)?.verifying_key;
    let export = domicile.export(region).await?;
    let statements = export.verify(&key)?;
    let checkpoint = domicile.check_checkpoint(region, &statements).await?;
    let against = verify.against.as_deref().map(read_export).transpose()?;
    if let Some(kept) = &against {
        kept.verify(&key).map_err(|error| error.at("the export that was kept elsewhere"))?;
        holds(&export, kept)?;
    }
    let json = VerifiedJson {
        entries: export.ledger.len(),
        chains: export.chains.len(),
        events: export.chains.iter().map(|(_, events)| events.len()).sum(),
        checkpoint: checkpoint.map(|said| said.to_string()),
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
        let exposed = match &json.checkpoint {
            Some(said) => format!("no event before {said} was cut from a chain; later ones are exposed until the next checkpoint"),
            None => "no checkpoint was said yet: the ends of chains are exposed".to_owned(),
        };
        format!("{what}\n{exposed}\n{held}")
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
    path: String,
    entries: usize,
    chains: usize,
    homes: usize,
    checkpoint: Option<u64>,
}

pub(crate) async fn export(common: &Common, export: &AuditExport, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = export.region.as_ref().unwrap_or(&domicile.here().region);
    let Some(every) = export.every else {
        let said = checkpoint_if_possible(&domicile, region, true, report).await?;
        return export_to(&domicile, region, &export.output, said, report).await;
    };
    if !export.output.is_dir() {
        return Err(Error::new(Code::ArgumentInvalid, "with --every, exports go into a directory")
            .at(export.output.display().to_string())
            .advise("make it where whoever may write to the store cannot"));
    }
    let mut looked_at_keys: Option<domicile::Time> = None;
    loop {
        let now = domicile.now();
        // Looking at every key is dear where there are many: once an hour.
        let with_keys = looked_at_keys.is_none_or(|looked| now.micros() - looked.micros() >= HOUR_MICROS);
        if with_keys {
            looked_at_keys = Some(now);
        }
        // The chain of this process itself goes on with each, so that none is the same.
        let attempt = async {
            let said = checkpoint_if_possible(&domicile, region, with_keys, report).await?;
            let name: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
            let path = export.output.join(format!("{region}-{name}.jsonl"));
            export_to(&domicile, region, &path, said, report).await
        };
        match attempt.await {
            // It goes on when the services come back; whatever else is wrong does not mend itself.
            Err(error) if error.is_outage() => report.warn(&format!("nothing was exported: {error}")),
            done => done?,
        }
        tokio::time::sleep(every).await;
    }
}

const HOUR_MICROS: i64 = 3_600_000_000;

/// A checkpoint goes before an export, where this host may say one.
async fn checkpoint_if_possible(
    domicile: &Domicile,
    region: &Region,
    with_keys: bool,
    report: &Report,
) -> Result<Option<u64>> {
    let known = domicile.region(region)?;
    if known.kms.is_none() || domicile.check_region_processing(&known.place).await.is_err() {
        report.say("no checkpoint: the region's signing key is not at hand");
        return Ok(None);
    }
    let action = Action::Manage(Purpose::Maintenance.into());
    match domicile.checkpoint(region, action, with_keys).await {
        Ok(said) => Ok(Some(said.entry)),
        // Who may only read, or reaches no key service, exports what stands. A chain that was cut is another matter.
        Err(error) if error.class() == Class::KeyService => {
            report.warn(&format!("no checkpoint was said: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn export_to(
    domicile: &Domicile,
    region: &Region,
    path: &Path,
    checkpoint: Option<u64>,
    report: &Report,
) -> Result<()> {
    let taken = domicile.export(region).await?;
    // What does not verify is not kept as a proof.
    taken.verify(&domicile.region(region)?.verifying_key)?;
    let mut file = NewFile::create(path, 0o600, false)?;
    taken.write(BufWriter::new(&mut file))?;
    file.publish()?;
    domicile.note_exported(&taken)?;
    let json = ExportedJson {
        path: path.display().to_string(),
        entries: taken.ledger.len(),
        chains: taken.chains.len(),
        homes: taken.homes.len(),
        checkpoint,
    };
    report.print(&json, || {
        format!(
            "{} of the ledger, {}, {} exported",
            counted(json.entries as u64, "entry"),
            counted(json.chains as u64, "chain"),
            counted(json.homes as u64, "home"),
        )
    })
}

#[derive(Serialize)]
struct CheckpointJson {
    entry: u64,
    said: String,
    chains: usize,
}

pub(crate) async fn checkpoint(common: &Common, checkpoint: &AuditCheckpoint, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = checkpoint.region.as_ref().unwrap_or(&domicile.here().region);
    let action = Action::Manage(Purpose::Maintenance.into());
    let said = domicile.checkpoint(region, action, checkpoint.keys).await?;
    let json = CheckpointJson { entry: said.entry, said: said.said.to_string(), chains: said.chains };
    report.print(&json, || {
        format!("{} that went on, entry {} of the ledger", counted(json.chains as u64, "chain"), json.entry)
    })
}
