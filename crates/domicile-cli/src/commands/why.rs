//! `domicile why`: who could open a segment, and what stands in the way here.

use domicile::Result;
use domicile_record::{Explanation, Obstacle, why};
use serde::Serialize;

use crate::arguments::{Common, Why};
use crate::input::{self, Input};
use crate::report::{Report, counted};

#[derive(Serialize)]
struct WhyJson {
    file: String,
    opens_here: bool,
    #[serde(flatten)]
    explanation: Explanation,
}

pub(crate) async fn run(common: &Common, arguments: &Why, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    for input in Input::all(std::slice::from_ref(&arguments.file), Some("dseg"), report)? {
        let file = input.name();
        let explained = match input.open_anywhere() {
            Ok(source) => why(&domicile, source).await,
            Err(error) => Err(error),
        };
        match explained {
            Ok(explanation) => {
                let result = WhyJson { file, opens_here: explanation.is_clear(), explanation };
                report.print(&result, || text(&result))?;
            }
            Err(error) => report.fail(&error.at(file)),
        }
    }
    Ok(())
}

fn text(result: &WhyJson) -> String {
    let Explanation { segment, region, jurisdiction, here, who, obstacles, scopes, .. } = &result.explanation;
    let mut lines = vec![
        format!("{}: {}", result.file, if result.opens_here { "opens here" } else { "does not open here" }),
        format!("  segment:  {segment}"),
        format!("  home:     {region} ({jurisdiction}), as the file says"),
        format!("  here:     {here}"),
        format!("  who:      {who}"),
    ];
    lines.extend(obstacles.iter().map(|obstacle| line("  ", obstacle)));
    for scope in scopes {
        let home = scope.home.as_deref().unwrap_or("no home");
        lines.push(format!(
            "  scope:    {}/{}, {}, home {home}{}",
            scope.tenant,
            scope.record_type,
            counted(scope.lanes, "lane"),
            if scope.obstacles.is_empty() { ": nothing in the way" } else { "" },
        ));
        lines.extend(scope.obstacles.iter().map(|obstacle| line("    ", obstacle)));
    }
    lines.join("\n")
}

fn line(indent: &str, obstacle: &Obstacle) -> String {
    let mut text = format!("{indent}in the way: {} [{}]", obstacle.what, obstacle.code);
    let details = [("where:", &obstacle.place), ("rule:", &obstacle.rule), ("do:", &obstacle.advice)];
    for (label, detail) in details {
        if let Some(detail) = detail {
            text.push_str(&format!("\n{indent}  {label:<7}{detail}"));
        }
    }
    text
}
