//! `domicile compact`: small blocks and files into large ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use domicile::{Code, Domicile, Error, Purpose, Result};
use domicile_record::{header_of, replaced_among};
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
async fn batches_of(domicile: &Domicile, mut files: Vec<PathBuf>) -> Result<Vec<Vec<PathBuf>>> {
    if files.len() <= FILES_AT_ONCE {
        return Ok(vec![files]);
    }
    let mut replaced = BTreeSet::new();
    for path in &files {
        let file = Input::File(path.clone()).open_anywhere()?;
        replaced.extend(replaced_among(domicile, [file], Purpose::Maintenance).await?);
    }
    let is_current = |path: &PathBuf| {
        let header = Input::File(path.clone()).open_anywhere().and_then(header_of);
        header.map_or(true, |header| !replaced.contains(&header.id))
    };
    files.retain(is_current);
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
