//! `domicile open`: give back what went in, for a purpose.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use domicile::files::NewFile;
use domicile::{Class, Code, Domicile, Error, Request, Result};
use domicile_record::{Restored, Segment, SegmentLane, Selection};
use serde::Serialize;

use crate::arguments::{Common, Open};
use crate::input::{self, Input, Opened};
use crate::report::{Report, counted, output_failed};

/// Nobody else may read what was opened.
const OPENED_MODE: u32 = 0o600;

const OUTPUT_BUFFER_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct OpenJson {
    output: String,
    records: u64,
    bytes: u64,
    files: Vec<FileJson>,
}

#[derive(Serialize)]
struct FileJson {
    file: String,
    segment: String,
    region: String,
    state: &'static str,
    records: u64,
    bytes: u64,
    lanes: usize,
}

pub(crate) async fn run(common: &Common, open: &Open, report: &Report) -> Result<()> {
    let request = Request::new(open.purpose, open.reference.as_deref())?;
    let selection = selection(open)?;
    if open.follow {
        return super::follow::run(common, &open.files, request, selection, report).await;
    }
    let inputs = Input::all(&open.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    let opening = Opening { domicile, request, selection, bytes: open.bytes.clone(), report };
    match &open.output {
        None => {
            let mut output = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, report.stdout());
            opening.all(&inputs, &mut output).await?;
            output.flush().map_err(output_failed)
        }
        Some(path) => {
            let at_path = |error: Error| error.at(path.display().to_string());
            let file = NewFile::create(path, OPENED_MODE, open.force)?;
            let mut output = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, file);
            let files = opening.all(&inputs, &mut output).await.map_err(at_path)?;
            let file = output.into_inner().map_err(|error| {
                at_path(Error::output_failed("the output could not be written", error.into_error()))
            })?;
            publish(file, path, files, report)
        }
    }
}

/// Gives the output its name, if it is whole; if not, what could be read is kept under a name that says so.
fn publish(file: NewFile, path: &Path, files: Vec<FileJson>, report: &Report) -> Result<()> {
    let sum = |of: fn(&FileJson) -> u64| files.iter().map(of).sum();
    let (records, bytes) = (sum(|file| file.records), sum(|file| file.bytes));
    let path = match report.worst() {
        None => {
            file.publish()?;
            path.to_owned()
        }
        Some(_) if bytes > 0 => {
            let mut partial = path.to_owned().into_os_string();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            file.publish_as(&partial)?;
            report.warn(&format!("what could be read is in {}", partial.display()));
            partial
        }
        Some(_) => return Ok(()),
    };
    if report.json {
        let result = OpenJson { output: path.display().to_string(), records, bytes, files };
        report.print(&result, String::new)?;
    }
    Ok(())
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
    if open.alone {
        if !selection.names_lanes() {
            return Err(Error::new(Code::ArgumentInvalid, "lanes are read alone if they are named")
                .advise("name a tenant, or a tenant and a type"));
        }
        selection = selection.alone();
    }
    match &open.records {
        Some(records) => selection.records(records.clone()),
        None => Ok(selection),
    }
}

/// Gives back octets of the one record that was selected.
fn range(
    segment: &Segment<Opened>,
    bytes: Range<u64>,
    output: &mut dyn Write,
    restored: &mut Restored,
) -> Result<()> {
    let mut readable = segment.lanes().iter().filter(|lane| lane.obstacle().is_none());
    let lane = match (readable.next(), readable.next()) {
        (Some(lane), None) if lane.holds_one_record() => lane.lane,
        // What cannot be read is told beside this.
        (None, _) => return Ok(()),
        _ => {
            return Err(Error::new(Code::ArgumentInvalid, "there is more than one record to take octets of")
                .rule("--bytes takes octets of a lane that holds one record, such as a recording")
                .advise("`domicile inspect` shows the lanes; --tenant and --type choose"));
        }
    };
    let (mut record, start) = (segment.long_record(lane)?, bytes.start);
    let outcome = record.write_range(bytes, output);
    restored.bytes += record.position().saturating_sub(start);
    match outcome {
        Err(error) if error.code() == Code::OutputFailed => return Err(error),
        Err(error) => restored.failures.push(error),
        Ok(_) => {}
    }
    Ok(())
}

/// Everything that openings of several inputs share.
struct Opening<'a> {
    domicile: Domicile,
    request: Request,
    selection: Selection,
    /// These octets alone of the one record that is selected.
    bytes: Option<Range<u64>>,
    report: &'a Report,
}

impl Opening<'_> {
    /// Opens one input after the other; what is wrong with one is reported and stops no other. That one has
    /// nothing of what was asked for is only worth a word if none has.
    async fn all(&self, inputs: &[Input], output: &mut dyn Write) -> Result<Vec<FileJson>> {
        let mut opened = Vec::with_capacity(inputs.len());
        let mut without = Vec::new();
        let (current, replaced) = Input::current(&self.domicile, inputs, &self.request).await?;
        for input in replaced {
            self.report.say(&format!("{}: replaced by another one; left out", input.name()));
        }
        for input in current {
            match self.one(input, output).await {
                Ok(file) => opened.push(file),
                // The output is everybody's: without it, nothing goes on.
                Err(error) if error.code() == Code::OutputFailed => return Err(error),
                Err(error) if error.code() == Code::LaneNone => without.push(error),
                Err(error) => self.report.fail(&error.at(input.name())),
            }
        }
        if let (Some(first), true) = (inputs.first(), without.len() == inputs.len())
            && let Some(error) = without.into_iter().next()
        {
            let more = inputs.len() - 1;
            let more = if more > 0 {
                format!(", and {}", counted(more as u64, "other input"))
            } else {
                String::new()
            };
            self.report.fail(&error.at(first.name() + &more));
        }
        Ok(opened)
    }

    async fn one(&self, input: &Input, output: &mut dyn Write) -> Result<FileJson> {
        let file = input.open_anywhere()?;
        let segment =
            Segment::open_source(&self.domicile, file, self.request.clone(), self.selection.clone()).await?;
        let (report, name) = (self.report, input.name());
        for note in segment.notes() {
            report.warn(&format!("{name}: {note}"));
        }
        let mut restored = Restored::default();
        let outcome = match &self.bytes {
            None => segment.restore_into(output, &mut restored),
            Some(bytes) => range(&segment, bytes.clone(), output, &mut restored),
        };
        // Whatever becomes of the output, what is wrong with the segment makes the exit code.
        self.conclude(&segment, &mut restored, &name);
        outcome?;
        let header = segment.header();
        report.say(&format!(
            "{name}: {}, {} from {} of {} ({})",
            counted(restored.records, "record"),
            counted(restored.bytes, "byte"),
            counted(segment.lanes().len() as u64, "lane"),
            header.place,
            segment.state().as_str(),
        ));
        Ok(FileJson {
            file: name,
            segment: header.id.to_string(),
            region: header.place.region.to_string(),
            state: segment.state().as_str(),
            records: restored.records,
            bytes: restored.bytes,
            lanes: segment.lanes().len(),
        })
    }

    /// Says what could not be read, and what the segment's state means.
    fn conclude(&self, segment: &Segment<Opened>, restored: &mut Restored, name: &str) {
        let report = self.report;
        for failure in restored.failures.drain(..) {
            report.fail(&failure.at(name));
        }
        if restored.times_by_block {
            report.warn(&format!(
                "{name}: the lanes keep no event times, so whole blocks were selected by when they were sealed"
            ));
        }
        say_obstacles(segment.lanes(), name, self.selection.names_lanes(), report);
        if let Some(error) = segment.state().obstacle() {
            report.fail(&error.at(name));
        }
    }
}

/// Says which lanes could not be read. One that was erased is no failure, unless it was asked for by name.
pub(super) fn say_obstacles<'a>(
    lanes: impl IntoIterator<Item = &'a SegmentLane>,
    name: &str,
    names_lanes: bool,
    report: &Report,
) {
    for lane in lanes {
        let Some(obstacle) = lane.obstacle() else { continue };
        if obstacle.class() == Class::Erased && !names_lanes {
            report.warn(&format!("{name}: lane {} of {} was erased", lane.lane, lane.scope));
            continue;
        }
        report.fail(&obstacle.again().at(name));
    }
}
