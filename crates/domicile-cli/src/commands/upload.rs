//! `domicile upload`: finished segments to where their region keeps them.

use std::path::Path;

use domicile::{Code, Config, Error, Result};
use domicile_record::object::{Destination, ObjectUrl, UploadOptions, Uploaded, upload};
use serde::Serialize;

use crate::arguments::{Common, Upload};
use crate::input::{self, Input};
use crate::report::{Report, counted};

#[derive(Serialize)]
struct UploadJson {
    file: String,
    url: String,
    segment: String,
    bytes: u64,
    parts_sent: u64,
    parts_before: u64,
    existed: bool,
}

/// What is wrong with one segment stops no other.
pub(crate) async fn run(common: &Common, arguments: &Upload, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let destination = destination(&config, &arguments.url)?;
    if let Some(url) = arguments.files.iter().find(|file| file.to_str().is_some_and(ObjectUrl::is_one)) {
        return Err(Error::new(Code::ArgumentInvalid, "files are uploaded, and not objects")
            .at(url.display().to_string()));
    }
    let inputs = Input::all(&arguments.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    for input in inputs {
        let Input::File(path) = &input else {
            report.fail(
                &Error::new(
                    Code::ArgumentInvalid,
                    "segments are uploaded from where they lie, and not from a pipe",
                )
                .at(input.name()),
            );
            continue;
        };
        match upload(&domicile, &destination, path, UploadOptions::default()).await {
            Ok(uploaded) => {
                let json = json(path, uploaded);
                report.print(&json, || text(&json))?;
            }
            Err(error) => report.fail(&error),
        }
    }
    Ok(())
}

/// Where segments may be uploaded to: to a URL that the configuration says is of a region.
fn destination(config: &Config, url: &str) -> Result<Destination> {
    match config.region_of_objects(url) {
        Some(region) => Destination::parse(region.place.region.clone(), url),
        // What is no URL at all is told so.
        None => {
            let shown = if ObjectUrl::is_one(url) { ObjectUrl::shown(url)? } else { String::new() };
            Err(Error::new(Code::ObjectElsewhere, "no region is said to keep its segments there")
                .at(shown)
                .rule("`objects` of a region names the URLs below which its segments are kept")
                .advise("add it to the region's configuration, if that is where the bucket lies; it ends with `/`"))
        }
    }
}

fn json(path: &Path, uploaded: Uploaded) -> UploadJson {
    let Uploaded { url, segment, bytes, parts_sent, parts_before, existed, .. } = uploaded;
    let file = path.display().to_string();
    UploadJson { file, url, segment: segment.to_string(), bytes, parts_sent, parts_before, existed }
}

fn text(json: &UploadJson) -> String {
    let how = match json {
        UploadJson { existed: true, .. } => "lay there already".to_owned(),
        UploadJson { parts_before: 0, parts_sent, .. } => counted(*parts_sent, "part"),
        UploadJson { parts_before, parts_sent, .. } => {
            format!("{}, and {parts_before} before", counted(*parts_sent, "part"))
        }
    };
    format!("{}: {} at {} ({how})", json.file, counted(json.bytes, "byte"), json.url)
}
