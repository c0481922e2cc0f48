//! `domicile seal --acknowledge`: records that keep coming are made durable as they come, and said to be.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use domicile::{Code, Domicile, Error, Result, Scope};
use domicile_record::format::Origin;
use domicile_record::{Feed, Receipt, Recorder, RecorderOptions, Recovery};

use super::seal::warn_of_near_miss;
use crate::arguments::{Common, Seal};
use crate::input::{self, Input};
use crate::report::{Report, counted};

pub(crate) async fn run(common: &Common, seal: &Seal, inputs: &[Input], report: &Report) -> Result<()> {
    let (Some(tenant), Some(record_type)) = (&seal.tenant, &seal.record_type) else {
        return Err(Error::new(Code::ArgumentInvalid, "say --tenant and --type"));
    };
    let [only] = inputs else {
        return Err(Error::new(Code::ArgumentInvalid, "one input is acknowledged at a time"));
    };
    warn_of_near_miss(record_type, report);
    let scope = Scope { tenant: tenant.clone(), record_type: record_type.clone() };
    let config = input::config(common, report)?;
    // The recorder itself follows what becomes of its keys.
    let domicile = Domicile::from_config(&config).await?;
    report.closes(&domicile);
    let mut options = RecorderOptions::default();
    options.writer = seal.writer_options();
    options.commit_interval = seal.commit_interval;
    options.event_window = config.event_window();
    options.posts = super::post::configured(&config, false, report)?;
    // Before anything is read or made: what comes through a pipe cannot be read again.
    match domicile.permit(&scope, domicile::Action::Seal).await {
        // A post may go on.
        Err(error) if error.is_outage() && !options.posts.is_empty() => {}
        permit => permit.map(drop)?,
    }
    let recorder = Recorder::with_options(&domicile, &seal.output, options).await?;
    recorder.scope(&scope).await.map(drop)?;

    let saying = say_receipts(recorder.clone())?;
    let mut feed = Feed::default();
    (feed.framing, feed.time) = (seal.framing, seal.time.clone());
    let (reader, name) = (only.clone(), only.name());
    let fed = {
        let recorder = recorder.clone();
        tokio::task::spawn_blocking(move || feed.read(&recorder, &scope, reader.open()?)).await
    };
    let fed = fed.map_err(|_| Error::new(Code::InputFailed, "reading was given up"))?;
    say_recovered(&recorder, report).await;
    // What was read before an error is safe all the same.
    let closed = recorder.clone().close().await;
    let adopted = adopted(&recorder, &seal.output).await;
    let said = saying.join().map_err(|_| Error::new(Code::OutputFailed, "acknowledging was given up"))?;
    let read = fed.map_err(|error| error.at(name.clone()))?;
    for warning in &read.warnings {
        report.warn(&format!("{name}: {warning}; nothing was lost"));
    }
    for summary in closed? {
        report.say(&format!(
            "{}: segment {} of {}, {} in {}",
            seal.output.display(),
            summary.id,
            summary.place,
            counted(summary.records, "record"),
            counted(summary.file_bytes, "byte"),
        ));
        if summary.origin == Origin::Post && !adopted.contains(&summary.path()) {
            report.warn(&format!(
                "{}: {} sealed as by a post; once the keys are back, `domicile post adopt` or the next run brings them under them",
                seal.output.join(summary.path()).display(),
                counted(summary.records, "record"),
            ));
        }
    }
    said.map_err(|source| {
        Error::output_failed("the acknowledgements could not be written", source).at("standard output")
    })
}

/// The segments of posts below a directory that were adopted behind the recorder.
async fn adopted(recorder: &Recorder, directory: &Path) -> Vec<PathBuf> {
    let recovered = recorder.recovered().await;
    let is_adopted = |outcome: &Result<Recovery>| matches!(outcome, Ok(Recovery::Adopted { .. }));
    let adopted = recovered.iter().filter(|(_, outcome)| is_adopted(outcome));
    adopted.filter_map(|(path, _)| path.strip_prefix(directory).ok().map(Path::to_owned)).collect()
}

/// Says what became of segments that earlier runs left without an end.
async fn say_recovered(recorder: &Recorder, report: &Report) {
    for (path, outcome) in recorder.recovered().await.iter() {
        match outcome {
            Ok(Recovery::Closed { .. }) => report.say(&format!("{}: closed behind a crash", path.display())),
            Ok(Recovery::Adopted { post, .. }) => {
                report.say(&format!("{}: sealed by the post {post}, and adopted", path.display()));
            }
            Ok(Recovery::Empty { kept }) => {
                report.say(&format!("{}: nothing in it was ever durable", kept.display()));
            }
            Ok(Recovery::Whole) => {}
            Err(error) => {
                let path = path.display();
                report.warn(&format!("{path}: not recovered: {error}; `domicile recover` says more"));
            }
        }
    }
}

/// Says each receipt, until the recorder ends or nobody reads along.
fn say_receipts(recorder: Recorder) -> Result<JoinHandle<io::Result<()>>> {
    let say = move || {
        let mut receipt = Receipt::default();
        // A segment that failed is told by whoever closes the recorder.
        while let Ok(next) = pollster::block_on(recorder.receipt_after(receipt)) {
            if next.records > receipt.records {
                let mut output = io::stdout().lock();
                writeln!(output, "{}", next.records)?;
                output.flush()?;
            }
            receipt = next;
        }
        Ok(())
    };
    let started = std::thread::Builder::new().name("acknowledge".to_owned()).spawn(say);
    started.map_err(|source| Error::output_failed("a thread could not be started", source))
}
