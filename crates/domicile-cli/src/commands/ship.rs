//! `domicile ship`: finished segments go home.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile::files::sync_directory;
use domicile::{Class, Code, Error, Result};
use domicile_record::{claims_to_replace, header_of};
use domicile_transport::Transport;
use domicile_transport::ship::{Patience, Progress, Shipped, Shipper, is_passing};
use serde::Serialize;

use super::signals::told_to_end;
use crate::arguments::{Common, Ship};
use crate::input::{self, Input};
use crate::report::{Report, counted};

/// How often a home is asked whether it has adopted a segment by now.
const ASKED_EVERY: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct ShippedJson {
    path: String,
    segment: String,
    bytes: u64,
    sent: u64,
    blake3: String,
    state: &'static str,
    new: bool,
    removed: bool,
}

/// What tells one file from another under the same name.
type Stamp = (u64, u64, u64, i64, i64);

/// What is known of files from earlier rounds.
#[derive(Default)]
struct Known(HashMap<PathBuf, (Stamp, Outcome)>);

/// What came of a file.
#[derive(Clone, Copy)]
enum Outcome {
    /// There is nothing more to do with it.
    Settled,
    /// Its home has it, and is asked again whether it has adopted it.
    Waits(Instant),
}

pub(crate) async fn run(common: &Common, ship: &Ship, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let transport = Transport::open(&config)?;
    let mut patience = Patience::default();
    patience.attempts_max = ship.attempts.max(1);
    let shipper = Shipper::new(&transport, &ship.to)?.patience(patience);
    if !ship.watch {
        return round(ship, &shipper, &mut Known::default(), report).await;
    }
    let end = told_to_end()?;
    tokio::pin!(end);
    let mut known = Known::default();
    loop {
        let rounds = async {
            round(ship, &shipper, &mut known, report).await?;
            tokio::time::sleep(Duration::from_secs(ship.every.max(1))).await;
            // Certificates and lists that were replaced meanwhile.
            if let Err(error) = transport.keep_up() {
                report.warn(&format!("certificates and lists stay as they were: {error}"));
            }
            Ok::<_, Error>(())
        };
        tokio::select! {
            outcome = rounds => outcome?,
            // What was taken of a segment that is on its way stays at its home.
            () = &mut end => return Ok(()),
        }
    }
}

/// Looks for segments, and ships them one after another. One that is refused stops no other.
async fn round(ship: &Ship, shipper: &Shipper, known: &mut Known, report: &Report) -> Result<()> {
    let (mut found, mut replaced) = (Vec::new(), BTreeSet::new());
    for name in &ship.files {
        let is_directory = fs::metadata(name).is_ok_and(|metadata| metadata.is_dir());
        let mut inputs = Vec::new();
        if is_directory {
            input::walk(name, Some("dseg"), &mut inputs, report)?;
        } else {
            inputs.push(Input::File(name.clone()));
        }
        for input in inputs {
            if let Input::File(path) = input
                && !known.is_settled(&path)
            {
                // What cannot be read is told when it is shipped.
                let file = File::open(&path).ok();
                let id = file.as_ref().and_then(|file| header_of(file).ok()).map(|header| header.id);
                replaced.extend(file.and_then(|file| claims_to_replace(file).ok()).unwrap_or_default());
                found.push((path, id, is_directory));
            }
        }
    }
    for (path, id, in_directory) in found {
        if id.is_some_and(|id| replaced.contains(&id)) {
            report.say(&format!("{}: another segment here replaces it; left out", path.display()));
            continue;
        }
        if in_directory && File::open(&path).is_ok_and(|file| input::is_written(&file)) {
            report.say(&format!("{}: somebody writes it; left out", path.display()));
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else {
            report
                .fail(&Error::new(Code::InputFailed, "there is no such file").at(path.display().to_string()));
            continue;
        };
        let stamp = stamp_of(&metadata);
        let bar = bar(&path, metadata.len(), report);
        let progress: Progress = {
            let bar = bar.clone();
            Arc::new(move |at, _| bar.set_position(at))
        };
        let shipped = shipper.ship(&path, Some(progress)).await;
        bar.finish_and_clear();
        match shipped {
            Ok(shipped) => {
                let outcome = done(ship, &path, stamp, &shipped, report)?;
                known.0.insert(path, (stamp, outcome));
            }
            // Somebody writes it, or will recover it.
            Err(error) if in_directory && error.class() == Class::Unfinished => {
                report.say(&format!("{}: not finished; left out", path.display()));
            }
            Err(error) if ship.watch && is_passing(&error) => {
                report.warn(&format!("{error}; tried again later"));
            }
            Err(error) => {
                report.fail(&error);
                known.0.insert(path, (stamp, Outcome::Settled));
            }
        }
    }
    Ok(())
}

/// Says what came of a segment that its home has, and removes it if that is wanted and may be.
fn done(ship: &Ship, path: &Path, stamp: Stamp, shipped: &Shipped, report: &Report) -> Result<Outcome> {
    let kept = &shipped.kept;
    // Whoever sealed it has the only copy that can be adopted, until it is.
    let waits = kept.of_a_post && !kept.adopted;
    let removed = ship.remove && !waits && remove(path, stamp)?;
    let json = ShippedJson {
        path: path.display().to_string(),
        segment: shipped.segment.to_string(),
        bytes: kept.length,
        sent: shipped.sent,
        blake3: kept.digest.to_string(),
        state: if kept.adopted { "adopted" } else { "stored" },
        new: shipped.new,
        removed,
    };
    report.print(&json, || {
        let before = if json.new { "" } else { ", there already" };
        let removed = if removed { "; removed here" } else { "" };
        format!("{}: {} ({}{before}){removed}", json.path, json.state, counted(json.bytes, "byte"))
    })?;
    Ok(if ship.remove && waits { Outcome::Waits(Instant::now()) } else { Outcome::Settled })
}

/// Removes a file, if it is still the one that was shipped.
fn remove(path: &Path, stamp: Stamp) -> Result<bool> {
    let failed = |source: io::Error| {
        Error::output_failed("a segment that is at home could not be removed here", source)
            .at(path.display().to_string())
    };
    match fs::metadata(path) {
        Ok(metadata) if stamp_of(&metadata) == stamp => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    fs::remove_file(path).map_err(failed)?;
    sync_directory(path).map_err(failed)?;
    Ok(true)
}

impl Known {
    /// Whether there is nothing to do with a file in this round.
    fn is_settled(&self, path: &Path) -> bool {
        let Some((stamp, outcome)) = self.0.get(path) else { return false };
        let same = fs::metadata(path).is_ok_and(|metadata| stamp_of(&metadata) == *stamp);
        same && match outcome {
            Outcome::Settled => true,
            Outcome::Waits(since) => since.elapsed() < ASKED_EVERY,
        }
    }
}

fn stamp_of(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// How far a segment has come, where somebody looks.
fn bar(path: &Path, length: u64, report: &Report) -> indicatif::ProgressBar {
    let name = path.file_name().map(|name| name.to_string_lossy().chars().take(12).collect::<String>());
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    report.bar(Some(length), template).with_message(name.unwrap_or_default())
}
