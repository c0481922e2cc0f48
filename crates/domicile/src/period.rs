//! Periods: the unit that expires.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan;
use jiff::civil::{Date, ISOWeekDate, Weekday};

use crate::error::{Code, Error, Result};
use crate::time::Time;

/// How long the periods of a record type are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PeriodUnit {
    /// A UTC month.
    #[default]
    Month,
    /// A UTC week as ISO 8601 counts them, Monday to Sunday.
    Week,
    /// A UTC day.
    Day,
}

/// The UTC month, ISO week or day of a record's event time: `2026-11`, `2026-W48`, `2026-11-24`.
///
/// A tenant key belongs to one period, so that destroying it expires every copy of the period's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    first: Date,
    unit: Unit,
}

// A private twin of PeriodUnit, so that Period can be ordered and hashed without promising an order of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    Month,
    Week,
    Day,
}

impl Period {
    /// The period of `unit` that contains `time`.
    ///
    /// # Errors
    /// [`InputTime`](Code::InputTime) outside the years 0 to 9999, which a period's name cannot show.
    pub fn containing(time: Time, unit: PeriodUnit) -> Result<Self> {
        let date = time.date();
        let period = match unit {
            PeriodUnit::Month => Self { first: date.first_of_month(), unit: Unit::Month },
            PeriodUnit::Day => Self { first: date, unit: Unit::Day },
            PeriodUnit::Week => {
                let week = date.iso_week_date();
                let monday =
                    ISOWeekDate::new(week.year(), week.week(), Weekday::Monday).map_err(|source| {
                        Error::new(Code::InputTime, "a time outside the calendar").because(source)
                    })?;
                Self { first: monday.date(), unit: Unit::Week }
            }
        };
        if period.first.iso_week_date().year() < 0 || period.first.year() < 0 {
            return Err(Error::new(Code::InputTime, "a time outside the years 0 to 9999"));
        }
        Ok(period)
    }

    /// The unit of this period.
    #[must_use]
    pub fn unit(self) -> PeriodUnit {
        match self.unit {
            Unit::Month => PeriodUnit::Month,
            Unit::Week => PeriodUnit::Week,
            Unit::Day => PeriodUnit::Day,
        }
    }

    /// The first instant of this period, and the first behind it, in microseconds since 1970. The last
    /// period of the calendar ends with it.
    #[must_use]
    pub fn bounds(self) -> std::ops::Range<i64> {
        let instant = |date: Date| {
            let midnight = date.at(0, 0, 0, 0);
            jiff::tz::TimeZone::UTC.to_timestamp(midnight).map(jiff::Timestamp::as_microsecond)
        };
        let behind = match self.unit {
            Unit::Month => self.first.last_of_month().tomorrow(),
            Unit::Day => self.first.tomorrow(),
            Unit::Week => self.first.checked_add(jiff::Span::new().days(7)),
        };
        instant(self.first).unwrap_or(i64::MIN)..behind.and_then(instant).unwrap_or(i64::MAX)
    }

    /// The month in which this period begins; the region's branch key of that month seals its tenant keys.
    #[must_use]
    pub fn month(self) -> Period {
        Self { first: self.first.first_of_month(), unit: Unit::Month }
    }

    /// Every period that begins in this period's month: the month, its weeks, its days. The keys of all of them lie under its
    /// branch key.
    #[must_use]
    pub fn of_month(self) -> Vec<Period> {
        let first = self.month().first;
        let days = (0..first.days_in_month()).filter_map(|day| first.checked_add(i64::from(day).days()).ok());
        let mut periods = vec![self.month()];
        for day in days {
            periods.push(Self { first: day, unit: Unit::Day });
            if day.weekday() == Weekday::Monday {
                periods.push(Self { first: day, unit: Unit::Week });
            }
        }
        periods
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first;
        match self.unit {
            Unit::Month => write!(f, "{:04}-{:02}", first.year(), first.month()),
            Unit::Day => write!(f, "{:04}-{:02}-{:02}", first.year(), first.month(), first.day()),
            Unit::Week => {
                let week = first.iso_week_date();
                write!(f, "{:04}-W{:02}", week.year(), week.week())
            }
        }
    }
}

/// A text that is no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPeriod;

impl fmt::Display for NotAPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a period is written 2026-11, 2026-W48 or 2026-11-24")
    }
}

impl std::error::Error for NotAPeriod {}

impl From<NotAPeriod> for Error {
    fn from(source: NotAPeriod) -> Self {
        Error::new(Code::NameInvalid, "not a period").rule(source.to_string())
    }
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        let digits = |part: &str, length: usize| -> Result<i16, NotAPeriod> {
            if part.len() != length || !part.bytes().all(|octet| octet.is_ascii_digit()) {
                return Err(NotAPeriod);
            }
            part.parse().map_err(|_| NotAPeriod)
        };
        let small =
            |part: &str| digits(part, 2).and_then(|value| i8::try_from(value).map_err(|_| NotAPeriod));
        let parts: Vec<&str> = text.split('-').collect();
        match parts.as_slice() {
            [year, week] if week.starts_with('W') => {
                let week = small(week.strip_prefix('W').unwrap_or(week))?;
                let monday =
                    ISOWeekDate::new(digits(year, 4)?, week, Weekday::Monday).map_err(|_| NotAPeriod)?;
                Ok(Self { first: monday.date(), unit: Unit::Week })
            }
            [year, month] => {
                let first = Date::new(digits(year, 4)?, small(month)?, 1).map_err(|_| NotAPeriod)?;
                Ok(Self { first, unit: Unit::Month })
            }
            [year, month, day] => {
                let first =
                    Date::new(digits(year, 4)?, small(month)?, small(day)?).map_err(|_| NotAPeriod)?;
                Ok(Self { first, unit: Unit::Day })
            }
            _ => Err(NotAPeriod),
        }
    }
}

impl serde::Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn containing(time: &str, unit: PeriodUnit) -> String {
        Period::containing(time.parse().unwrap(), unit).unwrap().to_string()
    }

    #[test]
    fn the_periods_of_a_month_are_those_that_begin_in_it() {
        for month in ["2024-02", "2025-12", "2026-11"] {
            let month: Period = month.parse().unwrap();
            let of_month = month.of_month();
            let day = 86_400_000_000;
            let bounds = month.bounds();
            let days = (bounds.start - 40 * day..bounds.end + 40 * day).step_by(86_400_000_000);
            for micros in days {
                for unit in [PeriodUnit::Month, PeriodUnit::Week, PeriodUnit::Day] {
                    let period = Period::containing(Time::from_micros(micros).unwrap(), unit).unwrap();
                    assert_eq!(of_month.contains(&period), period.month() == month, "{period} of {month}");
                }
            }
        }
    }

    #[test]
    fn a_time_lies_in_one_period_of_each_unit() {
        assert_eq!(containing("2026-11-24T08:00:00Z", PeriodUnit::Month), "2026-11");
        assert_eq!(containing("2026-11-24T08:00:00Z", PeriodUnit::Week), "2026-W48");
        assert_eq!(containing("2026-11-24T08:00:00Z", PeriodUnit::Day), "2026-11-24");
        // The first days of 2027 belong to the last ISO week of 2026.
        assert_eq!(containing("2027-01-02T00:00:00Z", PeriodUnit::Week), "2026-W53");
        assert_eq!(containing("2026-12-01T00:30:00+01:00", PeriodUnit::Month), "2026-11");
    }

    #[test]
    fn only_one_spelling_of_a_period_is_read() {
        for text in ["2026-11", "2026-W48", "2026-11-24"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026",
            "2026-1",
            "2026-13",
            "2026-11-31",
            "2026-W54",
            "2025-W53",
            "2026-w48",
            "+026-11",
            "02026-11",
            "2026-11-24-1",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_week_belongs_to_the_month_of_its_monday() {
        let week: Period = "2026-W53".parse().unwrap();
        assert_eq!(week.month().to_string(), "2026-12");
    }

    proptest! {
        #[test]
        fn every_time_of_the_calendar_has_a_period_that_reads_back(micros in 1i64..253_000_000_000_000_000) {
            let time = Time::from_micros(micros).unwrap();
            for unit in [PeriodUnit::Month, PeriodUnit::Week, PeriodUnit::Day] {
                let period = Period::containing(time, unit).unwrap();
                prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
                prop_assert_eq!(period.unit(), unit);
                prop_assert!(period.bounds().contains(&micros));
                let (first, behind) = (period.bounds().start, period.bounds().end);
                let period_of = |micros| Period::containing(Time::from_micros(micros).unwrap(), unit).unwrap();
                prop_assert_eq!(period_of(first), period);
                prop_assert_eq!(period_of(behind - 1), period);
                prop_assert_ne!(period_of(first - 1), period);
            }
        }
    }
}
