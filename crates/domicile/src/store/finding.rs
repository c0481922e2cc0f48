//! What is found of a store.

use serde::Serialize;

use crate::error::Code;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::error::Error;
use crate::severity::Severity;

/// One thing in a store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What it means; the code never changes its meaning.
    #[serde(serialize_with = "code_text")]
    pub code: Code,
    /// What, in a sentence.
    pub what: String,
    /// Where: a row, a trigger, a setting.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// What to do about it.
    #[serde(rename = "do")]
    pub advice: String,
}

fn code_text<S: serde::Serializer>(code: &Code, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

impl Finding {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn of(severity: Severity, error: &Error) -> Self {
        Self {
            severity,
            code: error.code(),
            what: error.what().to_owned(),
            place: error.place().map(str::to_owned),
            advice: error.advice().unwrap_or_default().to_owned(),
        }
    }
}
