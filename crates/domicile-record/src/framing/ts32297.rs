//! Files of call detail records as 3GPP TS 32.297 has them: a file header, then records with a header each.
//!
//! The file header is the preamble. What it says of the file's length and of the number of records is held
//! against what comes, and doubted before the records are.

use super::framer::PREAMBLE_BYTES_MAX;
use super::splitter::Finish;

/// Finds the ends of records, with their headers, in octets that come bit by bit.
#[derive(Debug, Default)]
pub(super) struct Ts32297 {
    state: State,
    /// Octets of records that the file header still promises.
    promised: Promise,
    /// Records that it promises.
    records_promised: Option<u64>,
    records: u64,
    oddity: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a record's header, behind so many of its octets; the record's length and the header's, once known.
    Header { seen: u8, length: u16, octets: u8 },
    /// In a record of so many octets, of which some are missing.
    Contents { missing: u16, octets: u32 },
    /// Behind the records: so much filler.
    Behind { filler: usize },
    /// Behind the records: something else.
    Rest,
}

/// What a file header says of the octets behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Promise {
    /// There was no header to say anything, or what it said has been found wrong.
    #[default]
    None,
    /// The file was not closed: its length was not filled in.
    Open,
    Octets(u64),
}

impl Default for State {
    fn default() -> Self {
        State::Header { seen: 0, length: 0, octets: 0 }
    }
}

impl Ts32297 {
    /// Behind `file_header`.
    pub(super) fn new(file_header: &[u8]) -> Self {
        let Some(header) = FileHeader::read(file_header) else { return Self::default() };
        let promised = match u64::from(header.file_length).checked_sub(file_header.len() as u64) {
            _ if header.file_length == UNKNOWN => Promise::Open,
            Some(octets) => Promise::Octets(octets),
            None => Promise::None,
        };
        let records_promised = Some(header.records).filter(|count| *count != UNKNOWN).map(u64::from);
        let oddity = (promised == Promise::None).then_some(OTHER_LENGTH);
        Self { promised, records_promised, oddity, ..Self::default() }
    }

    /// Where the current record ends in `fresh`, if it does.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        let mut rest = fresh;
        while !rest.is_empty() {
            match self.state {
                State::Header { seen: 0, .. } if self.promised == Promise::Octets(0) => {
                    self.state = State::Behind { filler: 0 };
                }
                State::Header { seen, length, octets } => {
                    let (&octet, after) = rest.split_first()?;
                    rest = after;
                    self.state = header_goes_on(seen, length, octets, octet);
                }
                State::Contents { missing, octets } => match rest.get(usize::from(missing)..) {
                    Some(after) => {
                        self.ended(octets);
                        return Some(fresh.len() - after.len());
                    }
                    None => {
                        let here = u16::try_from(rest.len()).unwrap_or(u16::MAX);
                        self.state = State::Contents { missing: missing.saturating_sub(here), octets };
                        return None;
                    }
                },
                State::Behind { filler } => match rest.iter().position(|octet| !matches!(octet, 0 | 0xff)) {
                    None => {
                        self.state = State::Behind { filler: filler.saturating_add(rest.len()) };
                        return None;
                    }
                    Some(_) => self.state = State::Rest,
                },
                State::Rest => return None,
            }
        }
        None
    }

    /// What was odd about the record that ended, once.
    pub(super) fn take_oddity(&mut self) -> Option<&'static str> {
        self.oddity.take()
    }

    /// Whether the octets since the last record's end are a postamble if the input ends now: filler.
    pub(super) fn may_be_postamble(&self) -> bool {
        matches!(self.state, State::Behind { filler } if filler <= PREAMBLE_BYTES_MAX)
    }

    /// What it means that the input ends here.
    pub(super) fn finish(&self) -> Finish {
        let is_counted = self.records_promised.is_none_or(|promised| promised == self.records);
        let ended = |filler: usize| match self.promised {
            Promise::Open => Some(NOT_CLOSED),
            Promise::Octets(left) if left != 0 && left != filler as u64 => Some(OTHER_LENGTH),
            _ => (!is_counted).then_some(OTHER_COUNT),
        };
        let oddity = match self.state {
            State::Header { seen: 0, .. } => ended(0),
            State::Header { .. } => Some(CUT_IN_HEADER),
            State::Contents { .. } => Some(CUT),
            State::Behind { filler } => ended(filler),
            State::Rest => Some(GOES_ON),
        };
        Finish { is_postamble: self.may_be_postamble(), oddity }
    }

    /// Counts a record of so many octets.
    fn ended(&mut self, octets: u32) {
        self.state = State::default();
        self.records = self.records.saturating_add(1);
        if let Promise::Octets(left) = self.promised {
            self.promised = match left.checked_sub(u64::from(octets)) {
                Some(left) => Promise::Octets(left),
                None => {
                    self.oddity = Some(PASSES_THE_END);
                    Promise::None
                }
            };
        }
    }
}

fn header_goes_on(seen: u8, length: u16, octets: u8, octet: u8) -> State {
    let length = if seen < 2 { length << 8 | u16::from(octet) } else { length };
    let octets = if seen == 2 { header_octets(octet) } else { octets };
    match seen + 1 {
        // No record is empty: zeros are filler.
        2 if length == 0 => State::Behind { filler: 2 },
        seen if seen >= 3 && seen == octets => {
            State::Contents { missing: length, octets: u32::from(octets) + u32::from(length) }
        }
        seen => State::Header { seen, length, octets },
    }
}

/// Octets of a record's header, of which `octet` is the third: its release and version.
fn header_octets(octet: u8) -> u8 {
    if octet >> 5 == RELEASE_EXTENDED { 5 } else { 4 }
}

/// `record` without its header.
pub(super) fn without_header(record: &[u8]) -> &[u8] {
    let octets = record.get(2).map_or(4, |octet| header_octets(*octet));
    record.get(usize::from(octets)..).unwrap_or_default()
}

/// What a file header says, as far as the codec uses it.
#[derive(Debug, Clone, Copy)]
struct FileHeader {
    file_length: u32,
    header_length: u32,
    records: u32,
}

impl FileHeader {
    fn read(octets: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| octets.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
        Some(Self { file_length: u32_at(0)?, header_length: u32_at(4)?, records: u32_at(18)? })
    }
}

/// What stands at the beginning of an input that is said to be a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A file header of so many octets.
    Header(usize),
    /// More has to be read.
    Unread,
    /// No file header, for this reason.
    None(&'static str),
}

/// The file header at the beginning of `octets`, by its length alone; `is_more` is whether octets may follow.
pub(super) fn beginning(octets: &[u8], is_more: bool) -> Beginning {
    let length = FileHeader::read(octets).map(|header| header.header_length);
    match length.map(usize::try_from) {
        Some(Ok(length)) if length < HEADER_OCTETS_MIN => Beginning::None(NO_HEADER),
        Some(Ok(length)) if length <= octets.len() => Beginning::Header(length),
        Some(Ok(length)) if length <= PREAMBLE_BYTES_MAX && is_more => Beginning::Unread,
        Some(Ok(length)) if length <= PREAMBLE_BYTES_MAX => Beginning::None(HEADER_CUT),
        Some(_) => Beginning::None(HEADER_TOO_LONG),
        None if is_more => Beginning::Unread,
        None => Beginning::None(HEADER_CUT),
    }
}

/// Whether these octets, all of an input or its beginning, are such a file: its header's lengths, times and
/// reason of closure agree, and the headers of all records that can be seen are headers.
pub(super) fn is_beyond_doubt(octets: &[u8]) -> bool {
    is_file(octets).unwrap_or(false)
}

fn is_file(octets: &[u8]) -> Option<bool> {
    let header = FileHeader::read(octets)?;
    let u16_at =
        |at: usize| octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes).map(usize::from);
    let release_extensions = [8, 9]
        .into_iter()
        .try_fold(0, |count, at| Some(count + usize::from(octets.get(at)? >> 5 == RELEASE_EXTENDED)))?;
    let filter = u16_at(48)?;
    let extension = u16_at(50 + filter)?;
    let length = HEADER_OCTETS_MIN + filter + extension + release_extensions;
    let is_length = header.header_length == u32::try_from(length).ok()? && length <= octets.len();
    // How long the file is in truth does not count: one that was cut is a file all the same.
    let file_length = usize::try_from(header.file_length).unwrap_or(usize::MAX);
    let opened = u32::from_be_bytes(octets.get(10..)?.first_chunk().copied()?);
    let reason = *octets.get(26)?;
    let is_reason = matches!(reason, 0..=5 | 128..=131);
    let is_header = is_length && length <= file_length && is_time(opened) && is_reason;
    Some(is_header && are_records(octets.get(length..file_length.min(octets.len()))?))
}

/// Whether a time stamp is one: month, day, hour and minute, and the offset's hours and minutes.
fn is_time(stamp: u32) -> bool {
    let field = |shift: u32, bits: u32| stamp >> shift & ((1 << bits) - 1);
    (1..=12).contains(&field(28, 4))
        && (1..=31).contains(&field(23, 5))
        && field(18, 5) < 24
        && field(12, 6) < 60
        && field(6, 5) < 24
        && field(0, 6) < 60
}

/// Whether the records of a file have headers with lengths and formats, as far as they can be seen.
fn are_records(octets: &[u8]) -> bool {
    let mut rest = octets;
    while let [high, low, release, format, ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 {
            // Filler, as far as can be seen.
            return rest.iter().all(|octet| matches!(octet, 0 | 0xff));
        }
        if !(1..=4).contains(&(format >> 5)) {
            return false;
        }
        let Some(after) = rest.get(usize::from(header_octets(*release)) + length..) else { return true };
        rest = after;
    }
    true
}

/// A file length or a count that was not filled in.
const UNKNOWN: u32 = u32::MAX;

/// A release identifier that stands for the ones after it, which an octet more tells apart.
const RELEASE_EXTENDED: u8 = 7;

/// A file header without routeing filter, private extension and release extensions.
const HEADER_OCTETS_MIN: usize = 52;

const NO_HEADER: &str = "this is no file of TS 32.297: its header would be too short; it is kept whole";
const HEADER_CUT: &str = "the input ends within the header of a TS 32.297 file; it is kept whole";
const HEADER_TOO_LONG: &str =
    "the file header is longer than a preamble may be, or none of TS 32.297; the input is kept whole";
const NOT_CLOSED: &str = "the file was not closed: its header does not say how long it is";
const OTHER_LENGTH: &str = "the file is not as long as its header says";
const OTHER_COUNT: &str = "the file has not as many CDRs as its header says";
const PASSES_THE_END: &str = "a CDR goes on behind the end that the file header gives";
const GOES_ON: &str = "the input goes on behind the last CDR of a file: what follows is kept as one record";
const CUT_IN_HEADER: &str = "the input ends within the header of a CDR";
const CUT: &str = "the last CDR is shorter than its length says";

#[cfg(test)]
mod tests {
    use super::*;

    /// A file header: file length, number of records, release octets, filter and private extension.
    fn file_header(
        file_length: u32,
        records: u32,
        releases: [u8; 2],
        filter: &[u8],
        private: &[u8],
    ) -> Vec<u8> {
        let extensions = releases.iter().filter(|release| **release >> 5 == 7).map(|_| 6);
        let field = |octets: &[u8]| [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat();
        // 9 September, 06:18, +01:00.
        let time = (9u32 << 28 | 9 << 23 | 6 << 18 | 18 << 12 | 1 << 11 | 1 << 6).to_be_bytes();
        let mut header = [
            &[0; 8],
            &releases[..],
            &time,
            &time,
            &records.to_be_bytes(),
            &7u32.to_be_bytes(),
            &[3],
            &[0xff; 20],
            &[0],
            &field(filter),
            &field(private),
        ]
        .concat();
        header.extend(extensions);
        let length = u32::try_from(header.len()).unwrap();
        header[..4].copy_from_slice(&file_length.to_be_bytes());
        header[4..8].copy_from_slice(&length.to_be_bytes());
        header
    }

    /// A record with a header of four octets, or of five.
    fn record(contents: &[u8], is_extended: bool) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        let header: &[u8] = if is_extended { &[0xe9, 0x26, 6] } else { &[0xc9, 0x26] };
        [&length, header, contents].concat()
    }

    fn records() -> Vec<u8> {
        [record(b"\xa0\x01a", false), record(b"\xa0\x02bc", true), record(b"\xa0\x80\0\0", false)].concat()
    }

    /// A file that is whole.
    fn file(releases: [u8; 2], filter: &[u8], private: &[u8]) -> Vec<u8> {
        let length = file_header(0, 3, releases, filter, private).len() + records().len();
        let header = file_header(u32::try_from(length).unwrap(), 3, releases, filter, private);
        [header, records()].concat()
    }

    /// How long the records are, what is left, and what was odd.
    fn split(file: &[u8]) -> (Vec<usize>, Vec<u8>, Vec<&'static str>, bool) {
        let Beginning::Header(length) = beginning(file, false) else { panic!("no header") };
        let (header, mut rest) = file.split_at(length);
        let (mut splitter, mut lengths, mut oddities) = (Ts32297::new(header), Vec::new(), Vec::new());
        while let Some(end) = splitter.scan(rest) {
            lengths.push(end);
            oddities.extend(splitter.take_oddity());
            rest = &rest[end..];
        }
        let finish = splitter.finish();
        oddities.extend(finish.oddity);
        (lengths, rest.to_vec(), oddities, finish.is_postamble)
    }

    #[test]
    fn headers_of_every_length_are_passed_over() {
        for (releases, filter, private, length) in [
            ([0xc9, 0xc9], &b""[..], &b""[..], 52),
            ([0xe9, 0xc9], b"", b"", 53),
            ([0xe9, 0xe9], b"", b"", 54),
            ([0xe9, 0xc9], b"SAMPLE", b"x", 60),
            ([0xc9, 0xc9], b"", b"private", 59),
            ([0xe9, 0xe9], &[7; 40_000], &[8; 20_000], 60_054),
        ] {
            let file = file(releases, filter, private);
            assert_eq!(beginning(&file, false), Beginning::Header(length));
            assert_eq!(split(&file), (vec![7, 9, 8], vec![], vec![], false));
            assert!(is_beyond_doubt(&file));
            assert!(is_beyond_doubt(&file[..length + 5]), "a beginning");
            assert!(!is_beyond_doubt(&file[..length - 1]));
        }
    }

    #[test]
    fn a_record_is_its_header_and_what_the_header_counts() {
        assert_eq!(without_header(&record(b"abc", false)), b"abc");
        assert_eq!(without_header(&record(b"abc", true)), b"abc");
        assert_eq!(without_header(b"\0\x01"), b"");
        assert_eq!(without_header(b"\0\x01\xe9\x26"), b"");
        let long = [file_header(UNKNOWN, UNKNOWN, [0xc9; 2], b"", b""), record(&[7; 65_535], true)].concat();
        assert_eq!(split(&long).0, [65_540]);
    }

    #[test]
    fn what_the_file_header_says_is_held_against_what_comes() {
        let whole = file([0xe9, 0xc9], b"", b"");
        let with = |at: usize, octets: [u8; 4]| {
            let mut other = whole.clone();
            other[at..at + 4].copy_from_slice(&octets);
            split(&other).2
        };
        let length = u32::try_from(whole.len()).unwrap();
        assert_eq!(with(0, length.to_be_bytes()), [""; 0]);
        assert_eq!(with(0, [0xff; 4]), [NOT_CLOSED]);
        assert_eq!(with(18, [0xff; 4]), [""; 0], "the number of records need not be known");
        assert_eq!(with(18, [0, 0, 0, 2]), [OTHER_COUNT]);
        assert_eq!(with(0, [0, 0, 0, 52]), [OTHER_LENGTH], "less than its header");
        assert_eq!(with(0, (length + 1).to_be_bytes()), [OTHER_LENGTH]);
        assert_eq!(with(0, (length - 1).to_be_bytes()), [PASSES_THE_END]);
        assert_eq!(with(0, (length - 8).to_be_bytes()), [GOES_ON]);
        assert_eq!(split(&whole[..whole.len() - 1]).2, [CUT]);
        assert_eq!(split(&whole[..whole.len() - 5]).2, [CUT_IN_HEADER]);
        assert_eq!(split(&whole[..whole.len() - 8]).2, [OTHER_LENGTH]);
    }

    #[test]
    fn filler_behind_the_records_is_a_postamble() {
        let whole = file([0xe9, 0xc9], b"", b"");
        let behind = |tail: &[u8]| split(&[&whole[..], tail].concat());
        assert_eq!(behind(b"\0\xff\0"), (vec![7, 9, 8], b"\0\xff\0".to_vec(), vec![], true));
        assert_eq!(behind(b"\0\0a"), (vec![7, 9, 8], b"\0\0a".to_vec(), vec![GOES_ON], false));
        assert!(!behind(&[0; PREAMBLE_BYTES_MAX + 1]).3, "too long for one");
        // A second file is no record of the first.
        assert_eq!(behind(&whole), (vec![7, 9, 8], whole.clone(), vec![GOES_ON], false));

        let mut open = whole.clone();
        open[..4].copy_from_slice(&[0xff; 4]);
        open.extend([0; 100]);
        assert_eq!(split(&open), (vec![7, 9, 8], vec![0; 100], vec![NOT_CLOSED], true));
        assert!(is_beyond_doubt(&open));
        // Filler that the file's length counts.
        let mut padded = [&whole[..], &[0; 20]].concat();
        padded[..4].copy_from_slice(&u32::try_from(whole.len() + 20).unwrap().to_be_bytes());
        assert_eq!(split(&padded), (vec![7, 9, 8], vec![0; 20], vec![], true));
        assert!(is_beyond_doubt(&padded));
    }

    #[test]
    fn what_is_no_file_header_says_why() {
        let whole = file([0xe9, 0xc9], b"SAMPLE", b"x");
        for (input, is_more, expected) in [
            (&whole[..7], true, Beginning::Unread),
            (&whole[..7], false, Beginning::None(HEADER_CUT)),
            (&whole[..59], true, Beginning::Unread),
            (&whole[..59], false, Beginning::None(HEADER_CUT)),
            (&whole[..60], false, Beginning::Header(60)),
            (&[0; 60], false, Beginning::None(NO_HEADER)),
            (&[1; 60], true, Beginning::None(HEADER_TOO_LONG)),
        ] {
            assert_eq!(beginning(input, is_more), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_not_believed() {
        let whole = file([0xe9, 0xc9], b"SAMPLE", b"x");
        assert!(is_beyond_doubt(&whole));
        for (at, octet) in [
            (7, 61),    // header length
            (8, 0xc9),  // no release extension
            (0, 0xf0),  // the file length may be anything
            (3, 10),    // but no less than the header's
            (10, 0xd0), // month 13
            (26, 6),    // reason of closure
            (49, 7),    // length of the filter
            (63, 0xe6), // format 7 of the first record
            (60, 1),    // its length leads nowhere
        ] {
            let mut other = whole.clone();
            other[at] = octet;
            assert_eq!(is_beyond_doubt(&other), at == 0 || at == 60, "{at}");
        }
    }
}
