//! Records by number.

use std::ops::Range;

use crate::attributes::{CHARGES, CHARGES_OF_SOMETHING, DETAILS, DURATION_MS_MAX, OUTCOMES, Value};
use crate::ber;
use crate::draw::{STEP, Weighted, high, low, mix, scaled};
use crate::format::Format;
use crate::moment::{Calendar, MILLIS_MAX};
use crate::number::Number;
use crate::options::{Options, OptionsError};
use crate::page::{PAGE_OCTETS, Page};
use crate::records::Records;
use crate::render::Tables;
use crate::scope::{Mix, RecordType, Scope, Tenant};

/// A generator of records, each of which has a number and depends on nothing but that and the options.
pub struct Generator {
    options: Options,
    /// What the draws of all records are counted from.
    origin: u64,
    tenants: Weighted,
    types: Weighted,
    tables: Tables,
}

impl Generator {
    /// Prepares everything that records have in common, which takes some milliseconds.
    ///
    /// # Errors
    /// If the options contradict themselves: see [`OptionsError`].
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self::unchecked(options))
    }

    fn unchecked(options: Options) -> Self {
        let weights: Vec<u64> =
            RecordType::ALL.iter().map(|&record_type| u64::from(options.types.weight(record_type))).collect();
        Self {
            origin: mix(options.seed),
            tenants: Weighted::zipf(options.tenants),
            types: Weighted::new(&weights),
            tables: Tables::new(&options),
            options,
        }
    }

    /// Appends the records with these numbers, and the [separator](Format::separator) between any two.
    ///
    /// A whole file is [`header`](Self::header), records and [`footer`](Format::footer). Where it is made
    /// in parts, the caller puts a separator between them.
    pub fn write(&self, format: Format, records: Range<u64>, out: &mut Vec<u8>) {
        self.append(format, records, format.separator(), out, |_| ());
    }

    /// What stands before these records in a file of them alone. That of TS 32.297 counts them and their octets,
    /// for which they are made once more; it has room for 4 GiB, and one with more is as if it were not closed.
    #[must_use]
    pub fn header(&self, format: Format, records: Range<u64>) -> Vec<u8> {
        if format != Format::Ts32297 || records.is_empty() {
            return format.header().to_vec();
        }
        let (mut octets, mut length) = (Vec::new(), format.header().len() as u64);
        let mut from = records.start;
        while from < records.end {
            let to = records.end.min(from.saturating_add(1000));
            octets.clear();
            self.write(format, from..to, &mut octets);
            length += octets.len() as u64;
            from = to;
        }
        let start = |record: u64| self.draft(record, &mut Calendar::new()).start_ms;
        match (u32::try_from(length), u32::try_from(records.end - records.start)) {
            (Ok(length), Ok(count)) => {
                ber::file_header(length, count, start(records.start), start(records.end - 1))
            }
            _ => format.header().to_vec(),
        }
    }

    /// A whole file of these records.
    #[must_use]
    pub fn file(&self, format: Format, records: Range<u64>) -> Vec<u8> {
        let mut file = self.header(format, records.clone());
        self.write(format, records, &mut file);
        file.extend_from_slice(format.footer());
        file
    }

    /// These records one by one, without separators.
    #[must_use]
    pub fn records(&self, format: Format, records: Range<u64>) -> Records {
        // Room for most of them at once; beyond a GiB it grows as it fills.
        let count = usize::try_from(records.end.saturating_sub(records.start)).unwrap_or_default();
        let mut kept = Records::default();
        kept.bytes.reserve(count.saturating_mul(320).min(1 << 30));
        kept.ends.reserve(count.min(1 << 22));
        self.append(format, records, b"", &mut kept.bytes, |end| kept.ends.push(end));
        kept
    }

    /// Who a record belongs to, what it is, and where it is at home.
    #[must_use]
    pub fn scope(&self, record: u64) -> Scope {
        let word = self.word(record, 0);
        let tenant = Tenant::new(self.tenants.pick(high(word)) + 1);
        let record_type = RecordType::numbered(self.types.pick(low(word)));
        Scope { tenant, record_type, region: tenant.home(record_type, &self.options.regions) }
    }

    /// All scopes that records may have, tenant by tenant.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        (1..=self.options.tenants).map(Tenant::new).flat_map(move |tenant| {
            self.options.types.types().map(move |record_type| Scope {
                tenant,
                record_type,
                region: tenant.home(record_type, &self.options.regions),
            })
        })
    }

    /// The options that the generator was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Everything that a record says, by name and in order: slower than [`write`](Self::write) by far, and
    /// the measure of what that writes.
    pub(crate) fn members(&self, record: u64) -> Vec<(&'static str, Value)> {
        let mut calendar = Calendar::new();
        self.tables.members(&self.draft(record, &mut calendar), &calendar)
    }

    /// Appends records with `separator` between them, and tells `ended` the length of `out` after each.
    fn append(
        &self,
        format: Format,
        records: Range<u64>,
        separator: &[u8],
        out: &mut Vec<u8>,
        ended: impl FnMut(usize),
    ) {
        // One loop for each format: what is the same for all records is decided outside.
        match format {
            Format::Csv => self.append_as(Tables::csv, records, separator, out, ended),
            Format::Jsonl => self.append_as(Tables::json_line, records, separator, out, ended),
            Format::Json => self.append_as(Tables::json_element, records, separator, out, ended),
            Format::Lines => self.append_as(Tables::log_line, records, separator, out, ended),
            Format::Lp => self.append_as(Tables::length_prefixed, records, separator, out, ended),
            Format::Ber => self.append_as(Tables::ber, records, separator, out, ended),
            Format::Ts32297 => self.append_as(Tables::ts32297, records, separator, out, ended),
        }
    }

    fn append_as(
        &self,
        render: impl Fn(&Tables, &Draft, &Calendar, &mut Page<'_>),
        records: Range<u64>,
        separator: &[u8],
        out: &mut Vec<u8>,
        mut ended: impl FnMut(usize),
    ) {
        let mut calendar = Calendar::new();
        let mut octets = [0; PAGE_OCTETS];
        let mut page = Page::new(&mut octets);
        let first = records.start;
        for record in records {
            if page.is_full() {
                out.extend_from_slice(page.as_bytes());
                page.clear();
            }
            if record != first {
                page.slice(separator);
            }
            let draft = self.draft(record, &mut calendar);
            render(&self.tables, &draft, &calendar, &mut page);
            ended(out.len() + page.as_bytes().len());
        }
        out.extend_from_slice(page.as_bytes());
    }

    /// Draws a record, and turns the calendar to its day.
    #[inline]
    fn draft(&self, record: u64, calendar: &mut Calendar) -> Draft {
        let scope = self.scope(record);
        let (parts, parties) = (self.word(record, 1), self.word(record, 2));
        let record_type = scope.record_type as u32;
        let outcome = (record_type * OUTCOMES + (low(parts) & 63)) as usize;
        let details = (record_type * DETAILS + (low(parts) >> 6 & 255)) as usize;
        let outbound = low(parts) >> 14 & 1 == 1;
        let charge = if self.tables.is_charged(outcome) {
            scaled(high(parts), CHARGES_OF_SOMETHING)
        } else {
            CHARGES_OF_SOMETHING + scaled(high(parts), CHARGES - CHARGES_OF_SOMETHING)
        };
        let charge = (record_type * CHARGES + charge) as usize;
        // One party is a number of the region's own country, the other one from anywhere.
        let here = self.tables.numbers.of_region(scope.region, high(parties));
        let there = self.tables.numbers.of_anywhere(low(parts) & 0xFFFF_0000, low(parties));
        let (from, to) = if outbound { (here, there) } else { (there, here) };
        let session = self.word(record, 5);
        let start_ms = self.start_ms(record, session & 0xFFFF);
        calendar.turn_to(start_ms);
        Draft {
            scope,
            // Version 4 (random) and variant 2 of a UUID.
            id: [self.word(record, 3) & !0xF000 | 0x4000, self.word(record, 4) >> 2 | 1 << 63],
            session,
            start_ms,
            outbound,
            from,
            to,
            outcome,
            details,
            charge,
        }
    }

    /// When a record starts, so that it ends in a year of four digits.
    #[inline]
    fn start_ms(&self, record: u64, jitter_micros: u64) -> u64 {
        let (start, step) =
            (self.options.start_micros.unsigned_abs(), self.options.step_micros.unsigned_abs());
        let micros = start.saturating_add(record.saturating_mul(step)).saturating_add(jitter_micros);
        (micros / 1000).min(MILLIS_MAX - u64::from(DURATION_MS_MAX))
    }

    /// Draw `n`, 0 to 7, of a record.
    #[inline]
    fn word(&self, record: u64, n: u64) -> u64 {
        mix(self.origin.wrapping_add(record.wrapping_mul(8).wrapping_add(n + 1).wrapping_mul(STEP)))
    }
}

/// CSV records of calls of one tenant, of 290 to 320 octets on average: what benchmarks seal.
///
/// Record n is the same whatever `count` is.
#[must_use]
pub fn records_of_about_300_bytes(count: u64) -> Records {
    let options = Options { tenants: 1, types: Mix::only(RecordType::Voice), ..Options::default() };
    Generator::unchecked(options).records(Format::Csv, 0..count)
}

/// What a record says, as numbers.
pub(crate) struct Draft {
    pub(crate) scope: Scope,
    /// A UUID in two halves.
    pub(crate) id: [u64; 2],
    pub(crate) session: u64,
    pub(crate) start_ms: u64,
    pub(crate) outbound: bool,
    pub(crate) from: Number,
    pub(crate) to: Number,
    /// Places in the tables of all types together.
    pub(crate) outcome: usize,
    pub(crate) details: usize,
    pub(crate) charge: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::COLUMNS;
    use crate::scope::Region;
    use std::collections::HashMap;

    fn generator(line_breaks: bool) -> Generator {
        Generator::new(Options { tenants: 40, line_breaks, ..Options::default() }).unwrap()
    }

    #[test]
    fn the_same_options_give_the_same_octets() {
        let other_seed = Generator::new(Options { seed: 2, tenants: 40, ..Options::default() }).unwrap();
        for &format in Format::ALL {
            let file = generator(false).file(format, 0..500);
            assert_eq!(file, generator(false).file(format, 0..500), "{format}");
            assert_ne!(file, other_seed.file(format, 0..500), "{format}");
        }
    }

    #[test]
    fn octets_are_what_they_always_were() {
        // FNV-1a over files of 10,000 records. Whoever compares numbers from two versions of a benchmark,
        // or keeps generated files, relies on this: a change here is a change of the format.
        let hash = |octets: &[u8]| {
            octets.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &octet| {
                (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01B3)
            })
        };
        let generator = Generator::new(Options::default()).unwrap();
        let hashes: Vec<_> =
            Format::ALL.iter().map(|&format| (format, hash(&generator.file(format, 0..10_000)))).collect();
        let expected = [
            (Format::Csv, 18_033_299_181_113_020_157),
            (Format::Jsonl, 17_579_114_573_748_838_307),
            (Format::Json, 6_682_246_309_521_777_589),
            (Format::Lines, 17_450_199_041_939_745_985),
            (Format::Lp, 8_719_686_122_561_464_248),
            (Format::Ber, 9_973_204_032_129_179_255),
            (Format::Ts32297, 14_552_994_643_739_887_592),
        ];
        assert_eq!(hashes, expected);
    }

    #[test]
    fn parts_of_a_stream_are_the_stream() {
        let generator = generator(true);
        for &format in Format::ALL {
            let mut parts = generator.header(format, 0..1000);
            for (part, range) in [0..1, 1..2, 2..777, 777..777, 777..1000].into_iter().enumerate() {
                if part > 0 && !range.is_empty() {
                    parts.extend_from_slice(format.separator());
                }
                generator.write(format, range, &mut parts);
            }
            parts.extend_from_slice(format.footer());
            assert!(parts == generator.file(format, 0..1000), "{format}");
            let one_by_one = generator.records(format, 500..1000);
            let again = self::generator(true);
            for (number, record) in (500..).zip(one_by_one.iter()) {
                assert_eq!(record, again.records(format, number..number + 1).as_bytes(), "{format} {number}");
            }
            assert_eq!(one_by_one.len(), 500);
        }
    }

    /// What record `number` says as columns of CSV: the attributes joined in the last one.
    fn columns(generator: &Generator, number: u64) -> Vec<String> {
        let members = generator.members(number);
        let (columns, attributes) = members.split_at(COLUMNS.len() - 1);
        assert!(columns.iter().map(|(name, _)| name).eq(&COLUMNS[..COLUMNS.len() - 1]));
        let attributes: Vec<String> =
            attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        columns.iter().map(|(_, value)| value.to_string()).chain([attributes.join(";")]).collect()
    }

    #[test]
    fn csv_says_what_records_say() {
        for line_breaks in [false, true] {
            let generator = generator(line_breaks);
            let file = generator.file(Format::Csv, 0..5000);
            let mut reader = csv::ReaderBuilder::new().from_reader(&file[..]);
            assert!(reader.headers().unwrap().iter().eq(COLUMNS.iter().copied()));
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 5000);
            for (number, row) in (0..).zip(&rows) {
                assert!(row.iter().eq(columns(&generator, number)), "record {number}: {row:?}");
            }
            let lines = file.iter().filter(|&&octet| octet == b'\n').count();
            assert_eq!(lines > 5001, line_breaks, "{lines} lines");
            for octets in [&b"\"\""[..], b", ", "ü".as_bytes()] {
                assert!(file.windows(octets.len()).any(|window| window == octets), "{octets:?}");
            }
        }
    }

    /// Length of the BER value at the beginning of `octets`, and where its contents begin.
    fn ber_value(octets: &[u8]) -> (usize, usize) {
        let mut at = 1;
        if octets[0] & 31 == 31 {
            at += 1;
        }
        let (length, begin) = match octets[at] {
            0x80 => (None, at + 1),
            0x81 => (Some(usize::from(octets[at + 1])), at + 2),
            0x82 => (Some(usize::from(octets[at + 1]) << 8 | usize::from(octets[at + 2])), at + 3),
            short => (Some(usize::from(short)), at + 1),
        };
        let end = length.map_or_else(
            || {
                let mut end = begin;
                while octets[end..end + 2] != [0, 0] {
                    end += ber_value(&octets[end..]).0;
                }
                end + 2
            },
            |length| begin + length,
        );
        (end, begin)
    }

    #[test]
    fn ber_says_what_records_say() {
        let generator = generator(false);
        let mut lengths = [0, 0];
        let values = generator.records(Format::Ber, 0..3000);
        for (number, value) in (0..).zip(values.iter()) {
            let (end, mut at) = ber_value(value);
            assert_eq!(end, value.len(), "record {number}");
            let is_indefinite = value[at - 1] == 0x80 && value.ends_with(&[0, 0]);
            lengths[usize::from(is_indefinite)] += 1;
            let end = if is_indefinite { end - 2 } else { end };
            while at < end {
                at += ber_value(&value[at..]).0;
            }
            assert_eq!(at, end, "record {number}");
            let columns = columns(&generator, number);
            let text =
                format!("tenant={};region={};type={};{}", columns[1], columns[2], columns[0], columns[14]);
            assert!(value.windows(text.len()).any(|part| part == text.as_bytes()), "{number}: {text}");
        }
        assert!(lengths.iter().all(|count| *count > 500), "{lengths:?}");
    }

    #[test]
    fn files_of_ts_32297_are_whole() {
        let generator = generator(false);
        let file = generator.file(Format::Ts32297, 500..2500);
        let u32_at = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!([u32_at(0), u32_at(4), u32_at(18)], [u32::try_from(file.len()).unwrap(), 53, 2000]);
        let (mut at, mut headers) = (53, [0, 0]);
        for value in generator.records(Format::Ber, 500..2500).iter() {
            let octets = if file[at + 2] >> 5 == 7 { 5 } else { 4 };
            headers[octets - 4] += 1;
            let length = usize::from(u16::from_be_bytes([file[at], file[at + 1]]));
            assert_eq!(&file[at + octets..at + octets + length], value);
            at += octets + length;
        }
        assert!(at == file.len() && headers.iter().all(|count| *count > 500), "{headers:?}");
        assert_eq!(generator.file(Format::Ts32297, 5..5), Format::Ts32297.header());
    }

    #[test]
    fn json_says_what_records_say() {
        use crate::render::json_value;
        for line_breaks in [false, true] {
            let generator = generator(line_breaks);
            let lines = String::from_utf8(generator.file(Format::Jsonl, 0..2000)).unwrap();
            let of_lines: Vec<serde_json::Value> =
                lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of_array: Vec<serde_json::Value> =
                serde_json::from_slice(&generator.file(Format::Json, 0..2000)).unwrap();
            assert_eq!(of_lines, of_array);
            for (number, object) in (0..).zip(&of_lines) {
                let members = generator.members(number);
                assert_eq!(object.as_object().unwrap().len(), members.len());
                for (name, value) in members {
                    let expected: serde_json::Value = serde_json::from_str(&json_value(&value)).unwrap();
                    assert_eq!(object[name], expected, "record {number}: {name}");
                    if let Value::Text(text) = value {
                        assert_eq!(object[name], *text, "record {number}: {name}");
                    }
                }
            }
        }
        let empty = generator(false).file(Format::Json, 7..7);
        assert_eq!(serde_json::from_slice::<Vec<u8>>(&empty).unwrap(), [0; 0]);
    }

    #[test]
    fn a_line_of_the_log_is_a_record() {
        let generator = generator(true);
        let file = String::from_utf8(generator.file(Format::Lines, 0..2000)).unwrap();
        assert_eq!(file.lines().count(), 2000);
        for (number, line) in (0..).zip(file.lines()) {
            let columns = columns(&generator, number);
            for column in [0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 12] {
                assert!(line.contains(&columns[column]), "record {number}: no {} in {line}", columns[column]);
            }
            assert!(line.contains(&format!("gw.{}.example.net", columns[2])));
        }
    }

    #[test]
    fn lengths_of_length_prefixed_records_add_up() {
        let generator = generator(true);
        let records = generator.records(Format::Lp, 0..3000);
        assert_eq!(records.as_bytes(), generator.file(Format::Lp, 0..3000));
        for (number, record) in (0..).zip(records.iter()) {
            let mut rest = record;
            let mut take = |length: usize| {
                let (taken, left) = rest.split_at(length);
                rest = left;
                taken
            };
            let number_of =
                |octets: &[u8]| octets.iter().fold(0, |value, &octet| value << 8 | u64::from(octet));
            assert_eq!(number_of(take(4)), record.len() as u64 - 4, "record {number}");
            assert_eq!(take(1), [1]);
            let (record_type, region, direction) = (take(1)[0], take(1)[0], take(1)[0]);
            let tenant = number_of(take(4));
            let id: String = take(16).iter().map(|octet| format!("{octet:02x}")).collect();
            let session = number_of(take(8));
            let start = number_of(take(8));
            let (duration, cost) = (number_of(take(4)), number_of(take(4)));
            let status = crate::attributes::STATUSES[usize::from(take(1)[0])];
            let mut text = |length_octets: usize| {
                let length = usize::try_from(number_of(take(length_octets))).unwrap();
                std::str::from_utf8(take(length)).unwrap().to_owned()
            };
            let (from, to, attributes) = (text(1), text(1), text(2));
            assert_eq!(rest, b"", "record {number}");

            let columns = columns(&generator, number);
            let start_text = (crate::micros_from_text(&columns[5][..19]).unwrap() / 1000).unsigned_abs();
            assert_eq!(start / 1000 * 1000, start_text);
            assert_eq!(columns[0], RecordType::ALL[usize::from(record_type)].as_str());
            assert_eq!(columns[1], format!("t-{tenant:06}"));
            assert_eq!(columns[2], Region::ALL[usize::from(region)].as_str());
            assert_eq!(columns[3].replace('-', ""), id);
            assert_eq!(columns[4], format!("{session:016x}"));
            assert_eq!(columns[7], duration.to_string());
            assert_eq!(columns[8], ["inbound", "outbound"][usize::from(direction)]);
            assert_eq!([&columns[9], &columns[10], &columns[14]], [&from, &to, &attributes]);
            assert_eq!(columns[11], status);
            assert_eq!(columns[12].replacen('.', "", 1).parse(), Ok(cost));
        }
    }

    #[test]
    fn records_are_where_the_list_of_homes_says() {
        let types: Mix = "voice,fax,verify=5".parse().unwrap();
        let regions = vec![Region::UsEast1, Region::EuCentral1];
        let options = Options { tenants: 30, types, regions: regions.clone(), ..Options::default() };
        let generator = Generator::new(options).unwrap();
        let homes: HashMap<(String, String), Region> = generator
            .scopes()
            .map(|scope| ((scope.tenant.to_string(), scope.record_type.to_string()), scope.region))
            .collect();
        assert_eq!(homes.len(), 90);
        assert!(homes.values().all(|region| regions.contains(region)));
        for number in 0..3000 {
            let columns = columns(&generator, number);
            let home = homes[&(columns[1].clone(), columns[0].clone())];
            assert_eq!(columns[2], home.as_str());
            let row = generator.scope(number).to_string();
            assert_eq!(row, [&columns[1], &columns[0], &columns[2]].map(String::as_str).join(","));
        }
        assert_eq!(Scope::HEADER.split(',').count(), 3);
    }

    #[test]
    fn ids_do_not_repeat_and_are_uuids() {
        let generator = generator(false);
        let mut ids: Vec<String> = (0..20_000).map(|number| columns(&generator, number)[3].clone()).collect();
        assert!(ids.iter().all(|id| id.len() == 36 && &id[14..15] == "4" && "89ab".contains(&id[19..20])));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 20_000);
    }

    #[test]
    fn far_records_and_late_starts_still_have_times() {
        let micros_max = crate::micros_from_text("9999-12-31T23:59:59Z").unwrap();
        let options = Options { start_micros: micros_max, step_micros: i64::MAX, ..Options::default() };
        let generator = Generator::new(options).unwrap();
        for number in [0, 1, u64::MAX - 1] {
            let columns = columns(&generator, number);
            assert!(columns[5].starts_with("9999-12-31T19:59:59"), "{columns:?}");
            assert!(columns[6].starts_with("9999-12-31T"), "{columns:?}");
            assert_eq!(generator.records(Format::Csv, number..number + 1).len(), 1);
        }
    }

    #[test]
    fn records_for_benchmarks_have_about_300_octets() {
        let records = records_of_about_300_bytes(20_000);
        let mean = records.as_bytes().len() / records.len();
        assert!((290..=320).contains(&mean), "{mean}");
        assert!(
            records.iter().all(|record| record.starts_with(b"voice,t-000001,") && record.ends_with(b"\"\n"))
        );
        assert_eq!(records.get(7), records_of_about_300_bytes(8).get(7));
    }
}
