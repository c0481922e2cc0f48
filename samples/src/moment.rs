//! Times as text, RFC 3339 with milliseconds in UTC, without a division more than needed.

use crate::page::Page;

pub(crate) const MILLIS_A_DAY: u64 = 86_400_000;

/// The last millisecond of the year 9999: later ones have no four-digit year.
pub(crate) const MILLIS_MAX: u64 = 253_402_300_799_999;

/// Microseconds since 1970 of a UTC time `2026-01-05`, `2026-01-05T08:00:00` or `2026-01-05T08:00:00Z`.
#[must_use]
pub fn micros_from_text(text: &str) -> Option<i64> {
    let (date, clock) = match text.split_once('T') {
        Some((date, clock)) => (date, clock.strip_suffix('Z').unwrap_or(clock)),
        None => (text, "00:00:00"),
    };
    let (year, month, day) = three_numbers(date, '-', 4)?;
    let (hour, minute, second) = three_numbers(clock, ':', 2)?;
    let days = days_before(year, month, day)?;
    let seconds = (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)?;
    i64::try_from((days * 86_400 + seconds) * 1_000_000).ok()
}

/// Three numbers of two digits each, except that the first has `first_digits`.
fn three_numbers(text: &str, separator: char, first_digits: usize) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(separator);
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|octet| octet.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let numbers = (number(first_digits)?, number(2)?, number(2)?);
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970 to a date of the Gregorian calendar, if there is that date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    ((1970..=9999).contains(&year) && (1..=month_days).contains(&day)).then_some(())?;
    // Years that begin in March: the odd day comes last, and five months have 153 days.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + of_year - DAYS_FROM_MARCH_0000)
}

/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_FROM_MARCH_0000: u64 = 719_468;

/// `2026-01-05T` of the day that is `days` after 1970, and five octets to fill the row.
fn date_text(days: u64) -> [u8; 16] {
    let days = days + DAYS_FROM_MARCH_0000;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let mut row = [0; 16];
    for (octet, text) in row.iter_mut().zip(format!("{year:04}-{month:02}-{day:02}T").bytes()) {
        *octet = text;
    }
    row
}

/// Year, month, day, hour, minute and second of a time in milliseconds since 1970, each as two digits in an octet.
pub(crate) fn bcd(millis: u64) -> [u8; 6] {
    let date = date_text(millis / MILLIS_A_DAY);
    let second = millis % MILLIS_A_DAY / 1000;
    let digits = |at: usize| match date.get(at..at + 2) {
        Some([tens, ones]) => (tens & 15) << 4 | ones & 15,
        _ => 0,
    };
    let two = |number: u64| u8::try_from(((number / 10) << 4) | (number % 10)).unwrap_or_default();
    [digits(2), digits(5), digits(8), two(second / 3600), two(second / 60 % 60), two(second % 60)]
}

/// Digits that many records need, each as the low octets of a number, the first digit in the highest.
pub(crate) struct Digits {
    /// `00:00:` to `23:59:`.
    minutes: Box<[u64; 1440]>,
    /// `000` to `999`.
    three: Box<[u32; 1000]>,
}

impl Digits {
    pub(crate) fn new() -> Self {
        let packed = |text: String| text.bytes().fold(0_u64, |number, octet| number << 8 | u64::from(octet));
        Self {
            minutes: Box::new(std::array::from_fn(|minute| {
                packed(format!("{:02}:{:02}:", minute / 60, minute % 60))
            })),
            three: Box::new(std::array::from_fn(|number| {
                u32::try_from(packed(format!("{number:03}"))).unwrap_or_default()
            })),
        }
    }

    /// Three digits in the low 24 bits, for a number below 1,000.
    #[inline]
    pub(crate) fn three(&self, number: u32) -> u32 {
        self.three.get(number as usize).copied().unwrap_or_default()
    }

    /// `HH:MM:SS`, for a second of the day.
    #[inline]
    fn clock(&self, second: u64) -> u64 {
        let (minute, second) = (second / 60, second % 60);
        let minutes = self.minutes.get(crate::draw::low(minute) as usize).copied().unwrap_or_default();
        minutes << 16 | (second / 10 + u64::from(b'0')) << 8 | (second % 10 + u64::from(b'0'))
    }
}

/// The day that records are in, and the next one, as text: it changes once in a great many records.
pub(crate) struct Calendar {
    day: u64,
    today: [u8; 16],
    tomorrow: [u8; 16],
}

impl Calendar {
    pub(crate) fn new() -> Self {
        Self { day: 0, today: date_text(0), tomorrow: date_text(1) }
    }

    /// Turns to the day in which `millis` (since 1970) falls. Then times up to a day later can be written.
    #[inline]
    pub(crate) fn turn_to(&mut self, millis: u64) {
        let day = millis / MILLIS_A_DAY;
        if day != self.day {
            *self = Self { day, today: date_text(day), tomorrow: date_text(day + 1) };
        }
    }

    /// Appends `2026-01-05T08:00:00.000Z`; `millis` is today or tomorrow.
    #[inline(always)]
    pub(crate) fn write(&self, digits: &Digits, millis: u64, page: &mut Page<'_>) {
        let (day, of_day) = (millis / MILLIS_A_DAY, millis % MILLIS_A_DAY);
        let (second, milli) = (of_day / 1000, of_day % 1000);
        page.padded(if day == self.day { &self.today } else { &self.tomorrow }, 11);
        page.literal(&digits.clock(second).to_be_bytes());
        let thousandths = u64::from(digits.three(crate::draw::low(milli)));
        let tail = u64::from(b'.') << 56 | thousandths << 32 | u64::from(b'Z') << 24;
        page.padded(&tail.to_be_bytes(), 5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PAGE_OCTETS;

    fn text(digits: &Digits, millis: u64) -> String {
        let (mut calendar, mut octets) = (Calendar::new(), [0; PAGE_OCTETS]);
        let mut page = Page::new(&mut octets);
        calendar.turn_to(millis);
        calendar.write(digits, millis, &mut page);
        String::from_utf8(page.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_767_571_200_007, "2026-01-05T00:00:00.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (MILLIS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text(&Digits::new(), millis), expected);
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_read_as_it_is_written() {
        let digits = Digits::new();
        for day in 0..146_097 {
            let written = text(&digits, day * MILLIS_A_DAY + 3_723_000);
            let read = micros_from_text(written.get(..19).unwrap()).unwrap();
            assert_eq!(u64::try_from(read).unwrap() / 1000, day * MILLIS_A_DAY + 3_723_000, "{written}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-01-05T24:00:00Z",
            "1969-12-31",
            "2026-01-05T00:00",
            "2026-1-5",
            "2026-0001-05",
            "2026-01-05-06",
            "2026-01-05 00:00:00",
            "+202-01-01",
        ] {
            assert_eq!(micros_from_text(bad), None, "{bad}");
        }
        assert_eq!(micros_from_text("2026-01-05T00:00:00Z"), Some(1_767_571_200_000_000));
        assert_eq!(micros_from_text("2026-01-05"), Some(1_767_571_200_000_000));
    }
}
