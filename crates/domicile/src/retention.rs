//! How long records are kept, by jurisdiction and record type: `6 months` after the end of their period.

use std::collections::BTreeMap;

use jiff::Span;

use crate::error::{Code, Error, Result};
use crate::period::Period;
use crate::region::Jurisdiction;
use crate::scope::{RecordType, Scope};
use crate::time::Time;

/// The rules of all jurisdictions. What has no rule is kept.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    rules: BTreeMap<Jurisdiction, BTreeMap<RecordType, Span>>,
}

impl Retention {
    /// Adds a rule, such as `6 months`, `90 days` or `2 years`: so long after the end of their period, the keys of this
    /// type are due in this jurisdiction.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) for what is no such time.
    pub fn add(&mut self, jurisdiction: Jurisdiction, record_type: RecordType, after: &str) -> Result<()> {
        self.rules.entry(jurisdiction).or_default().insert(record_type, span(after)?);
        Ok(())
    }

    /// When the keys of a slot are due; none where no rule says so. The region's own keys have none: every segment needs
    /// one, whatever its lanes.
    #[must_use]
    pub fn ends(&self, jurisdiction: &Jurisdiction, scope: &Scope, period: Period) -> Option<Time> {
        let rules = self.rules.get(jurisdiction)?;
        let end = Time::from_micros(period.bounds().end).ok()?;
        rules.get(&scope.record_type).filter(|_| !scope.is_region()).and_then(|span| end.after(*span))
    }
}

/// A span of calendar units, as a person writes it.
///
/// # Errors
/// [`ConfigInvalid`](Code::ConfigInvalid) for what is none, or is negative.
pub fn span(text: &str) -> Result<Span> {
    let invalid = || {
        Error::new(Code::ConfigInvalid, format!("{text:?} is not a length of time"))
            .rule("it is written like 90 days, 6 months or 2 years")
    };
    let span: Span = text.parse().map_err(|source: jiff::Error| invalid().because(source))?;
    if span.is_negative() { Err(invalid()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_due_so_long_after_the_end_of_their_period() {
        let mut retention = Retention::default();
        retention.add("EU".parse().unwrap(), RecordType::VOICE, "6 months").unwrap();
        let eu = "EU".parse().unwrap();
        let ends = |record_type: RecordType, period: &str| {
            let scope = Scope::new("acme", record_type).unwrap();
            retention.ends(&eu, &scope, period.parse().unwrap()).map(|time| time.to_string())
        };
        assert_eq!(ends(RecordType::VOICE, "2026-08").unwrap(), "2027-03-01T00:00:00Z");
        assert_eq!(ends(RecordType::VOICE, "2026-08-31").unwrap(), "2027-03-01T00:00:00Z");
        assert_eq!(ends(RecordType::FAX, "2026-08"), None, "what has no rule is kept");
        assert_eq!(retention.ends(&eu, &Scope::of_region(), "2026-08".parse().unwrap()), None);
        for bad in ["", "soon", "-3 days", "3"] {
            assert_eq!(span(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
