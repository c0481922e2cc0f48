//! `domicile settle`: each lane in one piece.

use std::path::Path;

use domicile::Result;
use domicile::files::NewFile;
use serde::Serialize;

use crate::arguments::Settle;
use crate::input::Input;
use crate::output::make;
use crate::report::{Report, counted};

/// What is sealed may be read by others.
const SEGMENT_MODE: u32 = 0o644;

#[derive(Serialize)]
struct SettleJson {
    file: String,
    segment: String,
    output: String,
    file_bytes: u64,
}

/// What is wrong with one file stops no other.
pub(crate) fn run(arguments: &Settle, report: &Report) -> Result<()> {
    for input in Input::all(&arguments.files, Some("dseg"), report)? {
        match one(&input, &arguments.output) {
            Ok(json) => report.print(&json, || {
                format!("{}: {} in {}", json.file, counted(json.file_bytes, "byte"), json.output)
            })?,
            Err(error) => report.fail(&error.at(input.name())),
        }
    }
    Ok(())
}

fn one(input: &Input, directory: &Path) -> Result<SettleJson> {
    let source = input.open_anywhere()?;
    let path = directory.join(domicile_record::header_of(&source)?.path());
    make(path.parent().unwrap_or(directory))?;
    let mut output = NewFile::create(&path, SEGMENT_MODE, false)?;
    let (header, file_bytes) = domicile_record::settle(&source, &mut output)?;
    output.publish()?;
    let (file, output) = (input.name(), path.display().to_string());
    Ok(SettleJson { file, segment: header.id.to_string(), output, file_bytes })
}
