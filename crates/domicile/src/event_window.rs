//! How far from now the event times of records may lie: what lies further is a broken clock or a wrong field, and would make
//! keys for periods that nobody meant.

use std::ops::Range;

use jiff::Span;

use crate::error::{Code, Error, Result};
use crate::time::Time;

/// The event times that are sealed without being asked twice: 40 days back and one day ahead, unless configured otherwise.
#[derive(Debug, Clone, Copy)]
pub struct EventWindow {
    back: Span,
    ahead: Span,
}

impl Default for EventWindow {
    fn default() -> Self {
        Self { back: Span::new().days(40), ahead: Span::new().days(1) }
    }
}

impl EventWindow {
    /// A window of so much time, in whichever calendar units.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) for what is negative.
    pub fn new(back: Span, ahead: Span) -> Result<Self> {
        if back.is_negative() || ahead.is_negative() {
            return Err(Error::new(
                Code::ConfigInvalid,
                "a window of event times that ends before it begins",
            ));
        }
        Ok(Self { back, ahead })
    }

    /// How far back.
    #[must_use]
    pub fn back(&self) -> Span {
        self.back
    }

    /// How far ahead.
    #[must_use]
    pub fn ahead(&self) -> Span {
        self.ahead
    }

    /// The times in it at an instant, in microseconds since 1970; the end is not included. Past the ends of the calendar
    /// it has none.
    #[must_use]
    pub fn at(&self, now: Time) -> Range<i64> {
        let begin = now.after(self.back.negate()).map_or(i64::MIN, Time::micros);
        let end = now.after(self.ahead).map_or(i64::MAX, Time::micros);
        begin..end.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reaches_back_and_ahead_by_the_calendar() {
        let now: Time = "2026-11-25T08:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Time>().unwrap().micros();
        let window = EventWindow::default().at(now);
        assert_eq!(window, at("2026-10-16T08:00:00Z")..at("2026-11-26T08:00:00Z") + 1);
        let year = EventWindow::new(Span::new().years(1), Span::new()).unwrap().at(now);
        assert_eq!(year, at("2025-11-25T08:00:00Z")..now.micros() + 1);
        let ever = EventWindow::new(Span::new().years(19_000), Span::new().years(19_000)).unwrap().at(now);
        assert_eq!(ever, i64::MIN..i64::MAX);
        assert!(EventWindow::new(Span::new().days(-1), Span::new()).is_err());
    }
}
