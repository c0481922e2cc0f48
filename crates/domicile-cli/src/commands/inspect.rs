//! `domicile inspect`: the structure of segments, without any key.

use domicile::{Class, Result};
use domicile_record::{Inspection, inspect};
use serde::Serialize;

use super::home::table;
use crate::arguments::Inspect;
use crate::input::Input;
use crate::report::{Report, counted, grouped};

#[derive(Serialize)]
struct InspectJson {
    file: String,
    #[serde(flatten)]
    inspection: Inspection,
}

pub(crate) fn run(arguments: &Inspect, report: &Report) -> Result<()> {
    for input in Input::all(std::slice::from_ref(&arguments.file), Some("dseg"), report)? {
        let file = input.name();
        match input.open_anywhere().and_then(inspect) {
            Ok(inspection) => {
                let result = InspectJson { file, inspection };
                match result.inspection.state {
                    "complete" | "recovered" => {}
                    "corrupt" => report.remember(Class::Corrupt),
                    _ => report.remember(Class::Unfinished),
                }
                report.print(&result, || text(&result))?;
            }
            Err(error) => report.fail(&error.at(file)),
        }
    }
    Ok(())
}

fn text(result: &InspectJson) -> String {
    let InspectJson { file, inspection } = result;
    let lanes: Vec<_> = inspection
        .lanes
        .iter()
        .map(|lane| {
            let keeps = [
                lane.event_times.then_some("times"),
                lane.arrivals.then_some("order"),
                Some(lane.compression).filter(|compression| *compression != "none"),
                lane.long_record.then_some("one long record"),
            ];
            let keeps: Vec<_> = keeps.into_iter().flatten().collect();
            [
                lane.lane.to_string(),
                lane.tenant.clone(),
                lane.record_type.clone(),
                lane.period.clone(),
                grouped(lane.data_blocks),
                grouped(lane.bytes),
                lane.framing.clone().unwrap_or_else(|| "-".to_owned()),
                if keeps.is_empty() { "-".to_owned() } else { keeps.join(", ") },
                if lane.ended { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let rows: Vec<_> = lanes.iter().map(|lane| lane.each_ref().map(String::as_str)).collect();
    let post = match &inspection.post {
        Some(post) => format!(", sealed by the post {post}"),
        None => String::new(),
    };
    let header = ["LANE", "TENANT", "TYPE", "PERIOD", "DATA BLOCKS", "BYTES", "FRAMING", "KEEPS", "ENDED"];
    format!(
        "{file}: {} ({})\n\
         \x20 segment: {}, version {}, edition {}\n\
         \x20 home:    {} ({}){post}\n\
         \x20 created: {}, {}\n\
         \x20 size:    {}, {}, footer {}\n\
         {}\n\
         not vouched for: {}",
        inspection.state,
        inspection.detail,
        inspection.segment,
        inspection.version,
        inspection.edition,
        inspection.region,
        inspection.jurisdiction,
        inspection.created,
        inspection.suite,
        counted(inspection.file_bytes, "byte"),
        counted(inspection.blocks, "block"),
        if inspection.footer { "found" } else { "not found" },
        table(header, &rows),
        inspection.not_vouched_for,
    )
}
