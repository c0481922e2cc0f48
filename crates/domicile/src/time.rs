//! Instants in microseconds, and who says what time it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use crate::error::{Code, Error, Result};

/// An instant: microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Every value is one that a calendar can show: from -9999 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Time = Time(0);

    /// From microseconds since 1970.
    ///
    /// # Errors
    /// [`InputTime`](crate::Code::InputTime) outside the years -9999 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self> {
        match Timestamp::from_microsecond(micros) {
            Ok(_) => Ok(Self(micros)),
            Err(source) => Err(Error::new(Code::InputTime, "a time outside the calendar").because(source)),
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The instant behind a span of calendar units, in UTC; none outside the calendar.
    #[must_use]
    pub fn after(self, span: jiff::Span) -> Option<Self> {
        let there = TimeZone::UTC.to_datetime(self.timestamp()).checked_add(span).ok()?;
        TimeZone::UTC.to_timestamp(there).ok().map(Self::from)
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        // Every Time was checked against the same range when it was made.
        Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn date(self) -> jiff::civil::Date {
        TimeZone::UTC.to_datetime(self.timestamp()).date()
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        // Downwards, on both sides of 1970: an instant is not moved ahead by what is left out of it.
        let micros = timestamp.as_nanosecond().div_euclid(1000);
        Self(i64::try_from(micros).unwrap_or_else(|_| timestamp.as_microsecond()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

impl FromStr for Time {
    type Err = Error;

    /// Reads RFC 3339: `2026-11-24T08:30:00Z`, with any offset and up to nine decimals (cut to six).
    fn from_str(text: &str) -> Result<Self> {
        text.parse::<Timestamp>().map(Self::from).map_err(|source| {
            Error::new(Code::InputTime, "not a time in the form of RFC 3339")
                .advise("write it like 2026-11-24T08:30:00Z")
                .because(source)
        })
    }
}

/// Says what time it is. Tests and simulations bring their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant.
    fn now(&self) -> Time;

    /// The time that went by since some instant of this clock's choice. It never goes back, and counts while the machine
    /// sleeps: the ages of keys are measured by it.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others replace")]
    fn now(&self) -> Time {
        Timestamp::now().into()
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}

/// A clock that stands where it was set.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub Time);

impl Clock for FixedClock {
    fn now(&self) -> Time {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A clock that goes on when it is told to, for tests and simulations. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    begun: Time,
    micros: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn new(begun: Time) -> Self {
        Self { begun, micros: Arc::default() }
    }

    /// Lets time go by.
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.begun.0.saturating_add(self.micros.load(Ordering::SeqCst)))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.micros.load(Ordering::SeqCst)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_microsecond_is_left_out_downwards_before_1970_too() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000001999Z", 1),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("1969-12-31T23:59:59.999998001Z", -2),
            ("1969-12-31T23:59:59.999998Z", -2),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().micros(), micros, "{text}");
        }
    }

    #[test]
    fn times_are_shown_and_read_in_utc() {
        let time: Time = "2026-11-24T09:30:00.25+01:00".parse().unwrap();
        assert_eq!(time.micros(), 1_795_509_000_250_000);
        assert_eq!(time.to_string(), "2026-11-24T08:30:00.25Z");
    }

    #[test]
    fn times_outside_the_calendar_are_refused() {
        assert_eq!(Time::from_micros(i64::MAX).unwrap_err().code(), Code::InputTime);
        assert!(Time::from_micros(0).is_ok());
    }
}
