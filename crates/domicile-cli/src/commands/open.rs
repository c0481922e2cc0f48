//! `domicile open`: give back what went in, for a purpose.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use domicile::files::NewFile;
use domicile::{Class, Code, Domicile, Error, Request, Result};
use domicile_record::{Segment, Selection, State};

use crate::arguments::{Common, Open};
use crate::input::{self, Input};
use crate::report::{Report, counted, output_failed};

/// Nobody else may read what was opened.
const OPENED_MODE: u32 = 0o600;

pub(crate) async fn run(common: &Common, open: &Open, report: &Report) -> Result<()> {
    let request = Request::new(open.purpose, open.reference.as_deref())?;
    let selection = selection(open)?;
    let inputs = Input::all(&open.files, Some("dseg"))?;
    let domicile = input::domicile(common, report).await?;
    match &open.output {
        None => {
            let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            open_all(&domicile, &inputs, &request, &selection, report, &mut output).await?;
            output.flush().map_err(output_failed)
        }
        Some(path) => {
            let file = NewFile::create(path, OPENED_MODE, open.force)?;
            let mut output = BufWriter::with_capacity(1 << 20, file);
            let bytes = open_all(&domicile, &inputs, &request, &selection, report, &mut output).await?;
            let file = output.into_inner().map_err(|error| output_failed(error.into_error()))?;
            match report.worst() {
                None => file.publish(),
                // What could be read is kept, under a name that says that it is not all.
                Some(_) if bytes > 0 => {
                    let mut partial = path.clone().into_os_string();
                    partial.push(".partial");
                    let partial = PathBuf::from(partial);
                    file.publish_as(&partial)?;
                    report.warn(&format!("what could be read is in {}", partial.display()));
                    Ok(())
                }
                Some(_) => Ok(()),
            }
        }
    }
}

fn selection(open: &Open) -> Result<Selection> {
    let mut selection = Selection::all();
    if let Some(tenant) = &open.tenant {
        selection = selection.tenant(tenant.clone());
    }
    if let Some(record_type) = &open.record_type {
        selection = selection.record_type(record_type.clone());
    }
    if let Some(from) = open.from {
        selection = selection.from(from);
    }
    if let Some(to) = open.to {
        selection = selection.to(to);
    }
    match &open.records {
        Some(records) => selection.records(records.clone()),
        None => Ok(selection),
    }
}

/// Opens one input after the other; what is wrong with one is reported and stops no other.
async fn open_all(
    domicile: &Domicile,
    inputs: &[Input],
    request: &Request,
    selection: &Selection,
    report: &Report,
    output: &mut dyn Write,
) -> Result<u64> {
    let mut bytes = 0;
    for input in inputs {
        match open_one(domicile, input, request, selection, report, output).await {
            Ok(of_input) => bytes += of_input,
            // The output is everybody's: without it, nothing goes on.
            Err(error) if error.code() == Code::OutputFailed => return Err(error),
            Err(error) => report.fail(&error.at(input.name())),
        }
    }
    Ok(bytes)
}

async fn open_one(
    domicile: &Domicile,
    input: &Input,
    request: &Request,
    selection: &Selection,
    report: &Report,
    output: &mut dyn Write,
) -> Result<u64> {
    let file = input.open_anywhere()?;
    let segment = Segment::open_source(domicile, file, request.clone(), selection.clone()).await?;
    let name = input.name();
    for note in segment.notes() {
        report.warn(&format!("{name}: {note}"));
    }
    let restored = segment.restore(output)?;
    for failure in restored.failures {
        report.fail(&failure.at(name.clone()));
    }
    if restored.times_by_block {
        report.warn(&format!(
            "{name}: the lanes keep no event times, so whole blocks were selected by when they were sealed"
        ));
    }
    for lane in segment.lanes() {
        let Some(obstacle) = lane.obstacle() else { continue };
        if obstacle.class() == Class::Erased && !selection.names_lanes() {
            report.warn(&format!("{name}: lane {} of {} was erased", lane.lane, lane.scope));
            continue;
        }
        report.fail(&obstacle.again().at(name.clone()));
    }
    if let Some(error) = state_error(segment.state()) {
        report.fail(&error.at(name.clone()));
    }
    report.say(&format!(
        "{name}: {}, {} from {} of {} ({})",
        counted(restored.records, "record"),
        counted(restored.bytes, "byte"),
        counted(segment.lanes().len() as u64, "lane"),
        segment.header().place,
        segment.state().as_str(),
    ));
    Ok(restored.bytes)
}

/// What a segment's state means to whoever opens it.
pub(crate) fn state_error(state: &State) -> Option<Error> {
    let (code, advice) = match state {
        State::Complete | State::Recovered => return None,
        State::Unfinished => (
            Code::SegmentUnfinished,
            "it is still written, its writer died, or it was cut: more may have been sealed than is here",
        ),
        State::Torn { .. } => (
            Code::SegmentTorn,
            "its writer died while it wrote, or it was cut: more may have been sealed than is here",
        ),
        _ => (Code::SegmentCorrupt, "compare it with another copy; `domicile verify` says what is wrong"),
    };
    Some(Error::new(code, format!("the segment is {state}")).advise(advice))
}
