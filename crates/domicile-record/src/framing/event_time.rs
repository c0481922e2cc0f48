//! Event times, in the forms in which records carry them.

use domicile::Time;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::Offset;

/// The instant that `text` gives, if it is in one of these forms; blanks around it are passed over.
///
/// | form | such as |
/// |---|---|
/// | RFC 3339, ISO 8601 | `2026-01-05T08:30:00Z`, `2026-01-05 08:30:00.25+01:00`, `2026-01-05t08:30` |
/// | ISO 8601, basic | `20260105T083000Z`, `20260105083000`, `20260105083000.25+0100` |
/// | a date, which is its midnight | `2026-01-05` |
/// | RFC 2822 | `Mon, 05 Jan 2026 08:30:00 +0000`, `5 Jan 2026 08:30 GMT` |
/// | Unix seconds, 10 digits | `1767601800`, `1767601800.25` |
/// | Unix milliseconds, 13 digits | `1767601800250` |
/// | Unix microseconds, 16 digits | `1767601800250000` |
/// | Unix nanoseconds, 19 digits | `1767601800250000000` |
///
/// Fractions follow a point or a comma and are cut to microseconds. An offset is `Z`, `UTC`, `GMT`,
/// `+01:00`, `+0100` or `+01`, behind a blank or not; without one the time is UTC. A leap second is the
/// second before it.
///
/// Forms that can be read in two ways (`01/05/26`), other names of zones, numbers of other lengths and
/// percent-encoding are not recognised: a time that is guessed wrong expires a record at the wrong time.
#[must_use]
pub fn recognise(text: &str) -> Option<Time> {
    let text = text.trim_ascii();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let cursor = Cursor(text.as_bytes());
    match (digits, text.as_bytes().get(digits)) {
        (4, Some(b'-')) => cursor.extended(),
        (8, Some(b'T' | b't')) | (14, _) => cursor.basic(),
        (10, None | Some(b'.' | b',')) => cursor.unix(digits),
        (13 | 16 | 19, None) => cursor.unix(digits),
        (0..=2, Some(_)) => rfc_2822(text),
        _ => None,
    }
}

/// Takes a time from the front of a text, part by part.
struct Cursor<'t>(&'t [u8]);

impl Cursor<'_> {
    fn extended(mut self) -> Option<Time> {
        let year = self.year()?;
        self.expect(b'-')?;
        let month = self.two_digits()?;
        self.expect(b'-')?;
        let day = self.two_digits()?;
        if self.0.is_empty() {
            return instant(DateTime::new(year, month, day, 0, 0, 0, 0).ok()?, 0, 0);
        }
        if !(self.skip(b'T') || self.skip(b't') || self.skip(b' ')) {
            return None;
        }
        let hour = self.two_digits()?;
        self.expect(b':')?;
        let minute = self.two_digits()?;
        let (second, micros) = if self.skip(b':') { (self.second()?, self.fraction()?) } else { (0, 0) };
        let offset = self.offset()?;
        instant(DateTime::new(year, month, day, hour, minute, second, 0).ok()?, micros, offset)
    }

    fn basic(mut self) -> Option<Time> {
        let (year, month, day) = (self.year()?, self.two_digits()?, self.two_digits()?);
        let _ = self.skip(b'T') || self.skip(b't');
        let (hour, minute, second) = (self.two_digits()?, self.two_digits()?, self.second()?);
        let micros = self.fraction()?;
        let offset = self.offset()?;
        instant(DateTime::new(year, month, day, hour, minute, second, 0).ok()?, micros, offset)
    }

    /// So many digits since 1970: seconds, or a thousand, a million or a billion times as many.
    fn unix(mut self, digits: usize) -> Option<Time> {
        let mut count: u64 = 0;
        for _ in 0..digits {
            // 19 digits at most, which a u64 holds.
            count = count * 10 + u64::from(self.digit()?);
        }
        let micros = match digits {
            10 => count * 1_000_000 + u64::from(self.fraction()?.unsigned_abs()),
            13 => count * 1_000,
            16 => count,
            _ => count / 1_000,
        };
        if !self.0.is_empty() {
            return None;
        }
        Time::from_micros(i64::try_from(micros).ok()?).ok()
    }

    fn year(&mut self) -> Option<i16> {
        Some(i16::from(self.two_digits()?) * 100 + i16::from(self.two_digits()?))
    }

    fn second(&mut self) -> Option<i8> {
        let second = self.two_digits()?;
        Some(if second == 60 { 59 } else { second })
    }

    /// Microseconds of a fraction, 0 if there is none.
    fn fraction(&mut self) -> Option<i32> {
        if !(self.skip(b'.') || self.skip(b',')) {
            return Some(0);
        }
        let (mut micros, mut weight) = (0, 100_000);
        loop {
            micros += i32::from(self.digit()?) * weight;
            weight /= 10;
            if !matches!(self.0.first(), Some(b'0'..=b'9')) {
                return Some(micros);
            }
        }
    }

    /// Minutes of an offset, and the end.
    fn offset(&mut self) -> Option<i32> {
        self.skip(b' ');
        let minutes = match self.0 {
            [] | [b'Z' | b'z'] | b"UTC" | b"GMT" => return Some(0),
            [b'+' | b'-', ..] => {
                let sign = if self.skip(b'-') { -1 } else { 1 };
                self.skip(b'+');
                let hours = self.two_digits()?;
                let has_minutes = self.skip(b':') || !self.0.is_empty();
                let minutes = if has_minutes { self.two_digits()? } else { 0 };
                if hours > 23 || minutes > 59 {
                    return None;
                }
                sign * (i32::from(hours) * 60 + i32::from(minutes))
            }
            _ => return None,
        };
        self.0.is_empty().then_some(minutes)
    }

    fn two_digits(&mut self) -> Option<i8> {
        let (tens, ones) = (self.digit()?, self.digit()?);
        i8::try_from(tens * 10 + ones).ok()
    }

    fn digit(&mut self) -> Option<u8> {
        let (&octet, rest) = self.0.split_first()?;
        if !octet.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        Some(octet - b'0')
    }

    fn expect(&mut self, octet: u8) -> Option<()> {
        self.skip(octet).then_some(())
    }

    fn skip(&mut self, octet: u8) -> bool {
        match self.0.split_first() {
            Some((&first, rest)) if first == octet => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

fn instant(local: DateTime, micros: i32, offset_minutes: i32) -> Option<Time> {
    let utc = Offset::UTC.to_timestamp(local).ok()?.as_microsecond();
    Time::from_micros(utc + i64::from(micros) - i64::from(offset_minutes) * 60_000_000).ok()
}

/// Day and month by name. Of zones by name only UTC's: others have no meaning that all agree on, and
/// the RFC has them read as UTC, which is worse than not at all.
fn rfc_2822(text: &str) -> Option<Time> {
    let zone = text.rsplit(' ').next()?;
    let is_known = zone.starts_with(['+', '-'])
        || ["GMT", "UT", "UTC", "Z"].iter().any(|name| name.eq_ignore_ascii_case(zone));
    if !is_known {
        return None;
    }
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(Time::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Option<Time> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_forms_of_the_table_are_recognised() {
        for (text, expected) in [
            ("2026-01-05T08:30:00Z", "2026-01-05T08:30:00Z"),
            ("2026-01-05t08:30:00z", "2026-01-05T08:30:00Z"),
            (" 2026-01-05 08:30:00\r\n", "2026-01-05T08:30:00Z"),
            ("2026-01-05T08:30", "2026-01-05T08:30:00Z"),
            ("2026-01-05T08:30+01:00", "2026-01-05T07:30:00Z"),
            ("2026-01-05T08:30:00.25+01:00", "2026-01-05T07:30:00.25Z"),
            ("2026-01-05T08:30:00,25+0100", "2026-01-05T07:30:00.25Z"),
            ("2026-01-05T08:30:00.123456789-05", "2026-01-05T13:30:00.123456Z"),
            ("2026-01-05 08:30:00 -0030", "2026-01-05T09:00:00Z"),
            ("2026-01-05 08:30:00 UTC", "2026-01-05T08:30:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2026-01-05", "2026-01-05T00:00:00Z"),
            ("20260105083000", "2026-01-05T08:30:00Z"),
            ("20260105083000.5", "2026-01-05T08:30:00.5Z"),
            ("20260105083000+0100", "2026-01-05T07:30:00Z"),
            ("20260105T083000Z", "2026-01-05T08:30:00Z"),
            ("20260105T083000.5-0100", "2026-01-05T09:30:00.5Z"),
            ("Thu, 01 Jan 2015 10:23:45 +0000", "2015-01-01T10:23:45Z"),
            ("Thu, 01 Jan 2015 10:23:45 -0500", "2015-01-01T15:23:45Z"),
            ("Thu, 1 Jan 2015 10:23:45 GMT", "2015-01-01T10:23:45Z"),
            ("01 Jan 2015 10:23 UT", "2015-01-01T10:23:00Z"),
            ("1767601800", "2026-01-05T08:30:00Z"),
            ("1767601800.25", "2026-01-05T08:30:00.25Z"),
            ("1335310195.513823", "2012-04-24T23:29:55.513823Z"),
            ("1767601800250", "2026-01-05T08:30:00.25Z"),
            ("1767601800250001", "2026-01-05T08:30:00.250001Z"),
            ("1767601800250001999", "2026-01-05T08:30:00.250001Z"),
            ("9999999999999999999", "2286-11-20T17:46:39.999999Z"),
        ] {
            assert_eq!(recognise(text), time(expected), "{text}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_not_recognised() {
        for text in [
            "",
            " ",
            "01/05/26",
            "01/05/26 08:10",
            "05.01.2026 08:30:00",
            "2026-1-5",
            "2026-13-05",
            "2026-02-30T00:00:00Z",
            "2026-01-05T24:00:00Z",
            "2026-01-05T08:60:00Z",
            "2026-01-05T08:30:61Z",
            "2026-01-05  08:30:00",
            "2026-01-05T08:30:00.",
            "2026-01-05T08:30:00.Z",
            "2026-01-05T08:30:00 CET",
            "2026-01-05T08:30:00+24:00",
            "2026-01-05T08:30:00+01:60",
            "2026-01-05T08:30:00+01:0",
            "2026-01-05T08:30:00+01:",
            "2026-01-05T08:30:00Z+01:00",
            "2026-01-05T08:30:00Z[Europe/Berlin]",
            "2026-01-05T08%3A30%3A00Z",
            "2026-01",
            "20260105",
            "20261305083000",
            "260105083000",
            "-1767601800",
            "+1767601800",
            "17676018000",
            "1767601800Z",
            "1767601800.",
            "1767601800250.5",
            "17676018002500019990",
            "Fri, 01 Jan 2015 10:23:45 +0000",
            "Thu, 01 Jan 2015 10:23:45 CEST",
            "Thu, 01 Jan 2015 10:23:45",
            "Jan 01 2015 10:23:45 +0000",
            "08:30:00",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), digits in "[0-9.,TtZz: +-]{0,24}") {
            let _ = (recognise(&text), recognise(&digits));
        }

        #[test]
        fn every_form_of_an_instant_is_that_instant(seconds in 1_000_000_000i64..9_999_999_999, micros in 0i64..1_000_000) {
            let expected = Time::from_micros(seconds * 1_000_000 + micros).ok();
            let whole = Time::from_micros(seconds * 1_000_000).ok();
            let text = expected.unwrap().to_string();
            prop_assert_eq!(recognise(&text), expected);
            prop_assert_eq!(recognise(&text.replace('T', " ").replace('Z', "")), expected);
            prop_assert_eq!(recognise(&text.replace(['-', ':'], "")), expected);
            prop_assert_eq!(recognise(&text.replace(['-', ':', 'T', 'Z'], "")), expected);
            prop_assert_eq!(recognise(&format!("{seconds}.{micros:06}")), expected);
            prop_assert_eq!(recognise(&format!("{seconds}{micros:06}")), expected);
            prop_assert_eq!(recognise(&format!("{seconds}{micros:06}999")), expected);
            prop_assert_eq!(recognise(&seconds.to_string()), whole);
            let timestamp = jiff::Timestamp::from_second(seconds).unwrap();
            let mail = rfc2822::DateTimePrinter::new().timestamp_to_string(&timestamp).unwrap();
            prop_assert_eq!(recognise(&mail), whole);
        }

        // Where both read a text, the core's own reader agrees.
        #[test]
        fn it_agrees_with_the_reader_of_the_core(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])",
        ) {
            if let Ok(time) = text.parse::<Time>() {
                prop_assert_eq!(recognise(&text), Some(time));
            }
        }
    }
}
