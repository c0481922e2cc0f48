//! `domicile recover`: closes what a crash left.

use std::path::PathBuf;

use domicile::{Code, Error, Result};
use domicile_record::{Cut, Recovery, SegmentSummary, recover};
use serde::Serialize;

use crate::arguments::{Common, Recover};
use crate::input::{self, Input};
use crate::report::{Report, counted};

#[derive(Serialize)]
struct RecoverJson {
    file: String,
    /// `whole`: nothing was done; `closed`; `adopted`: closed, of a post; or `empty`: nothing in it was ever durable.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    /// Octets that were cut.
    cut: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// What the caller kept beside its newest commit, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    unverified: u64,
    /// The post that sealed it, where it was adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    post: Option<String>,
}

/// What is wrong with one file stops no other.
pub(crate) async fn run(common: &Common, arguments: &Recover, report: &Report) -> Result<()> {
    let inputs = Input::all(&arguments.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    for input in inputs {
        let Input::File(path) = &input else {
            let what = "a segment is recovered where it lies, and not in a pipe";
            return Err(Error::new(Code::ArgumentInvalid, what));
        };
        match recover(&domicile, path).await {
            Ok(recovery) => {
                let json = json(input.name(), recovery);
                report.print(&json, || text(&json))?;
            }
            Err(error) => report.fail(&error),
        }
    }
    Ok(())
}

fn json(file: String, recovery: Recovery) -> RecoverJson {
    let mut json = RecoverJson {
        file,
        outcome: "whole",
        segment: None,
        lanes: None,
        blocks: None,
        cut: 0,
        kept: None,
        caller: None,
        unverified: 0,
        post: None,
    };
    match recovery {
        Recovery::Whole => {}
        Recovery::Empty { kept } => {
            (json.outcome, json.kept) = ("empty", Some(kept.display().to_string()));
        }
        Recovery::Closed { summary, cut, caller, unverified } => {
            json.outcome = "closed";
            json.unverified = unverified;
            json.holds(&summary, cut, &caller);
        }
        Recovery::Adopted { summary, post, cut, caller, .. } => {
            json.outcome = "adopted";
            json.post = Some(post.to_string());
            json.holds(&summary, cut, &caller);
        }
    }
    json
}

impl RecoverJson {
    fn holds(&mut self, summary: &SegmentSummary, cut: Option<(Cut, PathBuf)>, caller: &[u8]) {
        self.segment = Some(summary.id.to_string());
        (self.lanes, self.blocks) = (Some(summary.lanes), Some(summary.blocks));
        if let Some((cut, kept)) = cut {
            (self.cut, self.kept) = (cut.bytes, Some(kept.display().to_string()));
        }
        let digits = domicile::hex::encode(caller);
        self.caller = Some(digits).filter(|digits| !digits.is_empty());
    }
}

fn text(json: &RecoverJson) -> String {
    let RecoverJson { file, lanes, blocks, .. } = json;
    let kept = json.kept.as_deref().unwrap_or_default();
    let mut text = match json.outcome {
        "whole" => format!("{file}: whole"),
        "empty" => format!("{file}: nothing in it was ever durable; what there is, is in {kept}"),
        _ => format!(
            "{file}: {}: {}, {}",
            match &json.post {
                Some(post) => format!("of {post}, adopted and closed"),
                None => json.outcome.to_owned(),
            },
            counted(u64::from(lanes.unwrap_or_default()), "lane"),
            counted(blocks.unwrap_or_default(), "block"),
        ),
    };
    if json.cut > 0 {
        text += &format!("\n  the last {} were cut, and are in {kept}", counted(json.cut, "byte"));
    }
    if let Some(caller) = &json.caller {
        text += &format!("\n  beside its newest commit, its caller kept {caller}");
    }
    if json.unverified > 0 {
        let blocks = counted(json.unverified, "block");
        text += &format!("\n  {blocks} could not be verified: their keys are not to be had here");
    }
    text
}
