//! What a key service said: what it means, and how it is kept as the cause of an error of ours.

use std::fmt;

use crate::error::Code;

/// What an error means to whoever waits for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It may be waited out: the service, the way to it, or its dependencies are away, or it is asked too often.
    Outage,
    /// It must not be waited out: the key may not be used, or not by this host.
    Denial,
    /// The wrap, or the answer, is not what it should be.
    Unverified,
}

impl Meaning {
    pub(super) fn code(self) -> Code {
        match self {
            Meaning::Outage => Code::KmsUnavailable,
            Meaning::Denial => Code::KmsDenied,
            Meaning::Unverified => Code::KmsUnverified,
        }
    }
}

/// A cause in one line.
#[derive(Debug)]
pub(super) struct Cause(String);

impl Cause {
    /// What somebody else wrote, made fit for a line of a log.
    pub(super) fn new(text: &str) -> Self {
        const CHARS_MAX: usize = 500;
        Self(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// An error and what lies behind it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_one_line_with_an_end() {
        assert_eq!(Cause::new("a\r\nb\x1b[0m").to_string(), "a  b [0m");
        assert_eq!(Cause::new(&"x".repeat(10_000)).to_string().len(), 500);
    }
}
