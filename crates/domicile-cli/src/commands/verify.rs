//! `domicile verify`: every tag, total and index.

use domicile::{Class, Code, Error, Result};
use domicile_record::{Verification, verify};
use serde::Serialize;

use crate::arguments::{Common, Verify};
use crate::input::{self, Input};
use crate::report::{Report, counted};

#[derive(Serialize)]
struct VerifyJson {
    file: String,
    complete: bool,
    #[serde(flatten)]
    verification: Verification,
}

pub(crate) async fn run(common: &Common, arguments: &Verify, report: &Report) -> Result<()> {
    let inputs = Input::all(&arguments.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    for input in inputs {
        let file = input.name();
        let verified = match input.open_anywhere() {
            Ok(source) => verify(&domicile, source, None).await,
            Err(error) => Err(error),
        };
        match verified {
            Ok(verification) => {
                let result = VerifyJson { file, complete: verification.is_complete(), verification };
                let printed = report.print(&result, || text(&result));
                conclude(&result, report);
                printed?;
            }
            Err(error) => report.fail(&error.at(file)),
        }
    }
    Ok(())
}

/// What the verification means for the exit code.
fn conclude(result: &VerifyJson, report: &Report) {
    for lane in &result.verification.lanes {
        // Lanes that were erased on purpose are as they should be.
        if let Some(class) = lane.class.filter(|class| *class != Class::Erased) {
            report.remember(class);
        }
    }
    match result.verification.state().obstacle() {
        Some(error) => report.fail(&error.at(result.file.clone())),
        None if !result.verification.findings.is_empty() => {
            let error = Error::new(Code::SegmentCorrupt, "the segment is not as it was sealed");
            report.fail(&error.at(result.file.clone()));
        }
        None => {}
    }
}

fn text(result: &VerifyJson) -> String {
    let VerifyJson { file, complete, verification } = result;
    let word = match (complete, verification.state) {
        (false, "complete" | "recovered") => "not fully verified",
        (_, state) => state,
    };
    let mut lines = vec![format!(
        "{file}: {word}: {}, {}, {} in {} of {}",
        counted(verification.lanes.len() as u64, "lane"),
        counted(verification.records, "record"),
        counted(verification.bytes, "byte"),
        counted(verification.blocks, "verified block"),
        verification.region,
    )];
    for lane in &verification.lanes {
        if let Some(obstacle) = lane.obstacle {
            lines.push(format!(
                "  lane {} of {}/{} could not be read: {obstacle}",
                lane.lane, lane.tenant, lane.record_type
            ));
        }
    }
    for finding in &verification.findings {
        let lane = finding.lane.map(|lane| format!(", lane {lane}")).unwrap_or_default();
        lines.push(format!("  byte {}{lane}: {}", finding.at, finding.what));
    }
    lines.join("\n")
}
