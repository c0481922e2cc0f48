//! `domicile compact`: small blocks and files into large ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use domicile::{Code, Error, Result};
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

/// The segments of each region become one; what is wrong with one region stops no other.
pub(crate) async fn run(common: &Common, arguments: &Compact, report: &Report) -> Result<()> {
    let mut regions: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for input in Input::all(&arguments.files, Some("dseg"), report)? {
        let Input::File(path) = &input else {
            let what = "segments are compacted where they lie, and not in a pipe";
            return Err(Error::new(Code::ArgumentInvalid, what));
        };
        let inspected = domicile_record::inspect(input.open_anywhere()?);
        let region = inspected.map_err(|error| error.at(input.name()))?.region;
        regions.entry(region).or_default().push(path.clone());
    }
    let domicile = input::domicile(common, report).await?;
    for (region, files) in regions {
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
