//! `domicile compact`: small blocks and files into large ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use domicile::{Code, Domicile, Error, Purpose, Result};
use domicile_record::header_of;
use serde::Serialize;

use crate::arguments::{Common, Compact};
use crate::input::{self, Input};
use crate::report::{Report, counted};

#[derive(Serialize)]
struct CompactJson {
    output: String,
    segment: String,
    region: String,
    replaces: usize,
    lanes: u32,
    records: u64,
    bytes: u64,
    file_bytes: u64,
    /// Lanes that were erased, and were left behind.
    erased: u64,
    retired: bool,
}

/// The segments of each region become one, or a few where they are very many; what is wrong with one region stops no other.
pub(crate) async fn run(common: &Common, arguments: &Compact, report: &Report) -> Result<()> {
    let mut regions: BTreeMap<String, Vec<Input>> = BTreeMap::new();
    for input in Input::all(&arguments.files, Some("dseg"), report)? {
        if matches!(input, Input::Stdin) {
            let what = "segments are compacted where they lie, and not in a pipe";
            return Err(Error::new(Code::ArgumentInvalid, what));
        }
        if let Input::Object(url) = &input {
            return Err(Error::new(Code::ArgumentInvalid, "segments are compacted before they are uploaded")
                .at(url.to_string())
                .advise("copy them into a directory, compact them there, and upload what comes of it"));
        }
        let header = header_of(input.open_anywhere()?).map_err(|error| error.at(input.name()))?;
        regions.entry(header.place.region.to_string()).or_default().push(input);
    }
    let domicile = input::domicile(common, report).await?;
    let mut batches = Vec::new();
    for (region, files) in regions {
        batches.extend(batches_of(&domicile, files).await?.into_iter().map(|files| (region.clone(), files)));
    }
    for (region, files) in batches {
        match domicile_record::compact(&domicile, &files, &arguments.output, arguments.retire).await {
            Ok(compaction) => {
                let summary = &compaction.summary;
                let json = CompactJson {
                    output: compaction.path.display().to_string(),
                    segment: summary.id.to_string(),
                    region,
                    replaces: files.len(),
                    lanes: summary.lanes,
                    records: summary.records,
                    bytes: summary.bytes,
                    file_bytes: summary.file_bytes,
                    erased: compaction.erased,
                    retired: arguments.retire,
                };
                report.print(&json, || text(&json))?;
            }
            Err(error) => report.fail(&error.at(region)),
        }
    }
    Ok(())
}

/// Files that are open at the same time.
const FILES_AT_ONCE: usize = 256;

/// The files that become one segment each: all of them, or as many as may be open at once. What another of them replaces is
/// left out then, because its records are in that one.
async fn batches_of(domicile: &Domicile, inputs: Vec<Input>) -> Result<Vec<Vec<PathBuf>>> {
    let path = |input: &Input| if let Input::File(path) = input { Some(path.clone()) } else { None };
    if inputs.len() <= FILES_AT_ONCE {
        return Ok(vec![inputs.iter().filter_map(path).collect()]);
    }
    let (current, _) = Input::current(domicile, &inputs, &Purpose::Maintenance.into()).await?;
    let files: Vec<_> = current.into_iter().filter_map(path).collect();
    Ok(files.chunks(FILES_AT_ONCE).map(<[_]>::to_vec).collect())
}

fn text(json: &CompactJson) -> String {
    let mut text = format!(
        "{}: {}, {} in {} of {}, in place of {}{}",
        json.output,
        counted(json.records, "record"),
        counted(u64::from(json.lanes), "lane"),
        counted(json.file_bytes, "byte"),
        json.region,
        counted(json.replaces as u64, "segment"),
        if json.retired { ", which are retired" } else { "" },
    );
    if json.erased > 0 {
        text += &format!("\n  {} had been erased, and were left behind", counted(json.erased, "lane"));
    }
    text
}
