//! `domicile doctor`: what is wrong, before it matters.

use domicile::doctor::{Severity, examine};
use domicile::{Code, Error, Result};

use crate::arguments::Common;
use crate::input;
use crate::report::{Report, counted};

pub(crate) async fn run(common: &Common, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let found = examine(&domicile).await?;
    report.print(&found, || {
        if found.is_empty() {
            return "nothing is wrong".to_owned();
        }
        let line = |ailment: &domicile::doctor::Ailment| {
            let severity = if ailment.severity == Severity::Wrong { "wrong" } else { "weak" };
            let advice =
                if ailment.advice.is_empty() { String::new() } else { format!("\n  do: {}", ailment.advice) };
            format!("{severity} [{}]: {}{advice}", ailment.about, ailment.what)
        };
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    let wrong = found.iter().filter(|ailment| ailment.severity == Severity::Wrong).count();
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::new(Code::PlaceAiling, format!("{} to be put right", counted(wrong as u64, "thing"))))
}
