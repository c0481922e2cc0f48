//! `domicile open --follow`: records of a segment that is still written, or of all segments of a directory, as they become
//! durable.

mod directory;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use domicile::{Code, Error, Request, Result};
use domicile_record::object::ObjectUrl;
use domicile_record::{Follower, News, Selection, State};

use super::open::say_obstacles;
use crate::arguments::Common;
use crate::input;
use crate::report::{Report, counted, output_failed};

/// How long nothing is looked for when nothing came.
const PAUSE: Duration = Duration::from_millis(50);

/// How long nothing came before the writer is looked for.
const SILENCE: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    common: &Common,
    files: &[OsString],
    request: Request,
    selection: Selection,
    report: &Report,
) -> Result<()> {
    let is_object = |file: &OsString| file.to_str().is_some_and(ObjectUrl::is_one);
    let path = match files {
        [file] if file != "-" && !is_object(file) => Path::new(file),
        _ => return Err(Error::new(Code::ArgumentInvalid, "what is followed is one file, or one directory")),
    };
    let at_path = |error: Error| error.at(path.display().to_string());
    let domicile = input::domicile(common, report).await?;
    if path.is_dir() {
        return directory::run(domicile, path, request, selection, report).await;
    }
    let file = File::open(path).map_err(|source| {
        at_path(Error::new(Code::InputFailed, "the input cannot be read").because(source))
    })?;
    let names_lanes = selection.names_lanes();
    let mut follower = Follower::new(&domicile, file, request, selection).await.map_err(at_path)?;
    let mut output = BufWriter::new(report.stdout());
    let (mut records, mut last) = (0, Instant::now());
    let state = loop {
        // Looked for first: what a writer wrote before it went is looked at once more.
        let abandoned = last.elapsed() >= SILENCE && follower.is_abandoned().map_err(at_path)?;
        let before = records;
        let given = give(&mut follower, &mut output, &mut records).await;
        let ended = given.map_err(|error| match error.code() {
            Code::OutputFailed => error,
            _ => at_path(error),
        })?;
        if records > before {
            last = Instant::now();
        }
        match ended {
            Some(state) => break state,
            None if abandoned => break State::Unfinished,
            None => tokio::time::sleep(PAUSE).await,
        }
    };
    say_obstacles(follower.lanes(), &path.display().to_string(), names_lanes, report);
    if let Some(error) = state.obstacle() {
        report.fail(&at_path(error));
    }
    report.say(&format!(
        "{}: {}, {} that nothing vouches for ({})",
        path.display(),
        counted(records, "record"),
        counted(follower.pending_bytes(), "byte"),
        state.as_str(),
    ));
    Ok(())
}

/// Writes what became durable of a segment; its state, once all of it was given.
async fn give(
    follower: &mut Follower<File>,
    output: &mut impl Write,
    records: &mut u64,
) -> Result<Option<State>> {
    let ended = loop {
        match follower.next().await? {
            News::Block(_, block) => {
                output.write_all(block.values()).map_err(output_failed)?;
                *records += block.len() as u64;
            }
            News::Ended(state) => break Some(state),
            _ => break None,
        }
    };
    output.flush().map_err(output_failed)?;
    Ok(ended)
}
