//! How bad something is that was found.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// Something does not work, or is not as safe as it says.
    Wrong,
    /// Something will be, or weakens what protects.
    Weak,
}

impl Severity {
    /// The word for it, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Wrong => "wrong",
            Severity::Weak => "weak",
        }
    }
}
