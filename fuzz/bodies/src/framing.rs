//! The framing of records: whatever the input, its pieces joined are the input.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use domicile_record::framing::{
    Choice, Delimiter, Framer, Framing, PREAMBLE_BYTES_MAX, Piece, WARNINGS_MAX, Warning,
};
use serde_json::value::RawValue;

use crate::octets::Octets;

/// Frames an input in one go and in dribbles: the same pieces, which joined are the input.
///
/// The first octet chooses the framing, the second the longest record, the third how many octets a read
/// gives, and whether reads fail in between. The rest is the input. Where it is well-formed, its records are
/// those that an independent reader finds.
pub fn framing(data: &[u8]) {
    let mut input = Octets::new(data);
    let choice = input.pick(&Choice::ALL);
    let record_bytes_max = input.pick(&RECORD_BYTES_MAX);
    let dribble = input.u8();
    let input = input.rest();

    let whole = framed(input, choice, record_bytes_max, Reading { octets: usize::MAX, fails: false });
    hold_to_the_rules(&whole, input, record_bytes_max);
    let reading = Reading { octets: usize::from(dribble & 0x7f).max(1), fails: dribble >= 0x80 };
    let dribbled = framed(input, choice, record_bytes_max, reading);
    assert!(dribbled == whole, "the pieces depend on how many octets a read gives: {whole:?} {dribbled:?}");
    agree_with_others(&whole, input);
}

pub(crate) const RECORD_BYTES_MAX: [usize; 8] = [1 << 20, 1, 2, 3, 7, 40, 300, 70_000];

/// What came of an input.
#[derive(Debug, PartialEq, Eq)]
struct Framed {
    framing: Framing,
    pieces: Vec<(Kind, Vec<u8>)>,
    warnings: Vec<Warning>,
    warning_count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preamble,
    Record,
    Part { last: bool },
    Postamble,
}

impl Framed {
    fn of(&self, wanted: Kind) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, bytes)| bytes.as_slice())
    }
}

fn framed(input: &[u8], choice: Choice, record_bytes_max: usize, reading: Reading) -> Framed {
    let may_fail = Rc::new(Cell::new(false));
    let longest = record_bytes_max.max(PREAMBLE_BYTES_MAX);
    let dribble = Dribble {
        rest: input,
        reading,
        calls: 0,
        may_fail: may_fail.clone(),
        room_max: (256 << 10).max(2 * (longest + 1)),
    };
    let mut framer = Framer::new(dribble, choice).unwrap().with_record_bytes_max(record_bytes_max);
    may_fail.set(true);
    let framing = framer.framing();
    let mut pieces = Vec::new();
    let mut position = 0;
    loop {
        match framer.next() {
            Ok(None) => break,
            Ok(Some(piece)) => {
                position += piece.bytes().len() as u64;
                let kind = match piece {
                    Piece::Preamble(_) => Kind::Preamble,
                    Piece::Record(_) => Kind::Record,
                    Piece::Part { last, .. } => Kind::Part { last },
                    Piece::Postamble(_) => Kind::Postamble,
                };
                pieces.push((kind, piece.bytes().to_vec()));
            }
            // Nothing is lost by a read that fails: the next call reads again from there.
            Err(error) => assert_eq!(error.code(), domicile::Code::InputFailed),
        }
        assert_eq!(framer.position(), position);
    }
    assert!(framer.next().unwrap_or(None).is_none(), "a piece behind the last");
    let (warnings, warning_count) = (framer.warnings().to_vec(), framer.warning_count());
    Framed { framing, pieces, warnings, warning_count }
}

fn hold_to_the_rules(framed: &Framed, input: &[u8], record_bytes_max: usize) {
    let joined: Vec<u8> = framed.pieces.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    assert!(joined == input, "the pieces joined are not the input");
    let last = framed.pieces.len().saturating_sub(1);
    let mut inside_record = false;
    for (index, (kind, bytes)) in framed.pieces.iter().enumerate() {
        assert!(!bytes.is_empty(), "an empty piece");
        match kind {
            Kind::Preamble => assert!(index == 0 && bytes.len() <= PREAMBLE_BYTES_MAX),
            Kind::Postamble => assert!(index == last && bytes.len() <= PREAMBLE_BYTES_MAX),
            Kind::Record => assert!(bytes.len() <= record_bytes_max, "a record longer than its limit"),
            Kind::Part { last: false } => assert_eq!(bytes.len(), record_bytes_max),
            Kind::Part { last: true } => assert!(inside_record && bytes.len() <= record_bytes_max),
        }
        assert!(!inside_record || matches!(kind, Kind::Part { .. }), "a record without its last part");
        inside_record = *kind == Kind::Part { last: false };
    }
    assert!(!inside_record, "a record without its last part");
    assert!(framed.warnings.len() <= WARNINGS_MAX && framed.warnings.len() as u64 <= framed.warning_count);
    assert!(framed.warnings.iter().all(|warning| warning.at <= input.len() as u64));

    let framing = framed.framing;
    let (kind, parameter) = framing.code();
    assert_eq!(Framing::from_code(kind, parameter), Some(framing));
    for record in framed.of(Kind::Record) {
        let content = framing.content(record);
        assert!(content.is_empty() || record.windows(content.len()).any(|part| part == content));
        assert!(record.starts_with(framing.end_of_selection(record)));
    }
}

/// Holds the records against those of readers that share nothing with the framer.
fn agree_with_others(framed: &Framed, input: &[u8]) {
    if framed.pieces.iter().any(|(kind, _)| matches!(kind, Kind::Part { .. })) {
        return;
    }
    let records: Vec<&[u8]> = framed.of(Kind::Record).collect();
    let preamble = framed.of(Kind::Preamble).next().unwrap_or_default();
    let postamble = framed.of(Kind::Postamble).next().unwrap_or_default();
    let body = &input[preamble.len()..];
    match framed.framing {
        Framing::Whole => assert_eq!(records.concat(), input),
        Framing::Lines => {
            assert!(records.iter().copied().eq(body.split_inclusive(|octet| *octet == b'\n')));
        }
        Framing::LengthPrefixed => assert_eq!(records, length_prefixed(body)),
        Framing::LengthPrefixedInclusive => {
            let (expected, is_lost) = inclusive(body);
            assert_eq!(records, expected);
            assert!(!is_lost || framed.warning_count == 1, "a length that leads nowhere went unnoticed");
        }
        Framing::Ber => agree_on_ber(framed, &records, body, postamble),
        Framing::Ts32297 => agree_on_cdrs(framed, &records, preamble, body, postamble),
        Framing::Blocks => {
            let (expected, rest) = blocks(body);
            assert_eq!((records, postamble), (expected, rest));
            assert_eq!(framed.warning_count, 0);
        }
        Framing::Csv { delimiter, header } if framed.warning_count == 0 => {
            // The other reader drops a byte order mark where it begins to read, and so once for each row.
            if !body.windows(3).any(|octets| octets == BYTE_ORDER_MARK) {
                let rows = records
                    .iter()
                    .flat_map(|record| rows(delimiter, record.strip_suffix(b"\n").unwrap_or(record)));
                assert!(rows.eq(self::rows(delimiter, body)), "rows end where the other reader's do not");
            }
            if header {
                assert!(!preamble.is_empty(), "a header row that is none");
            }
        }
        Framing::JsonValues => {
            let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Box<RawValue>>();
            let parsed: Result<Vec<_>, _> = values.by_ref().collect();
            if let Ok(parsed) = parsed {
                same_values(framed, &records, &parsed);
            }
        }
        Framing::JsonArray => {
            let text = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
            if let Ok(parsed) = serde_json::from_slice::<Vec<Box<RawValue>>>(text) {
                same_values(framed, &records, &parsed);
                assert!(preamble.ends_with(b"[") || preamble.last().is_some_and(u8::is_ascii_whitespace));
                assert!(!postamble.is_empty());
            }
        }
        _ => {}
    }
}

fn same_values(framed: &Framed, records: &[&[u8]], parsed: &[Box<RawValue>]) {
    assert_eq!(records.len(), parsed.len(), "another reader finds other values");
    for (record, value) in records.iter().zip(parsed) {
        assert_eq!(framed.framing.content(record), value.get().as_bytes());
    }
    assert_eq!(framed.warning_count, 0, "warnings about well-formed JSON: {:?}", framed.warnings);
}

fn length_prefixed(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = rest.first_chunk().map_or(u64::MAX, |prefix| u64::from(u32::from_be_bytes(*prefix)) + 4);
        let (record, after) =
            rest.split_at(usize::try_from(length).map_or(rest.len(), |it| it.min(rest.len())));
        records.push(record);
        rest = after;
    }
    records
}

/// Records after lengths that count themselves, and whether one leads nowhere.
fn inclusive(mut rest: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut records = Vec::new();
    while let Some(prefix) = rest.first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap();
        if length < 4 || length > rest.len() {
            records.push(rest);
            return (records, length < 4);
        }
        let (record, after) = rest.split_at(length);
        records.push(record);
        rest = after;
    }
    if !rest.is_empty() {
        records.push(rest);
    }
    (records, false)
}

/// Where there is no warning, every record is a value that another reader takes for one, and filler before it.
fn agree_on_ber(framed: &Framed, records: &[&[u8]], body: &[u8], postamble: &[u8]) {
    assert!(postamble.iter().all(|octet| [0, 0xff].contains(octet)), "a postamble that is no filler");
    let count = records.len();
    for (index, record) in records.iter().enumerate() {
        let value = framed.framing.content(record);
        let (filler, _) = record.split_at(record.len() - value.len());
        assert!(filler.iter().all(|octet| [0, 0xff].contains(octet)), "a value taken for filler");
        let is_rest = index + 1 == count && (framed.warning_count > 0 || value.is_empty());
        assert!(is_rest || ber_value(value) == Some(value.len()), "a record that is no value");
        if is_rest {
            assert_ne!(ber_value(value), Some(value.len()), "a value that was taken for none");
        }
    }
    assert!(framed.warning_count <= 1 && records.concat().len() + postamble.len() == body.len());
}

/// Length of the value at the beginning of `octets`, if there is a whole one: read with a stack, from the
/// standard's own words.
fn ber_value(octets: &[u8]) -> Option<usize> {
    let mut ends: Vec<()> = Vec::new();
    let mut at = 0;
    loop {
        if !ends.is_empty() && octets.get(at) == Some(&0) {
            if *octets.get(at + 1)? != 0 {
                return None;
            }
            at += 2;
            ends.pop();
        } else {
            let first = *octets.get(at)?;
            at += 1;
            if first & 0x1f == 0x1f {
                let number = octets.get(at..)?;
                let length = number.iter().take(5).position(|octet| octet & 0x80 == 0)? + 1;
                if number[0] == 0x80 {
                    return None;
                }
                at += length;
            }
            let length = *octets.get(at)?;
            at += 1;
            match length {
                0x80 if first & 0x20 == 0 => return None,
                0x80 => ends.push(()),
                0xff => return None,
                0..0x80 => at += usize::from(length),
                _ => {
                    let digits = octets.get(at..at + usize::from(length & 0x7f))?;
                    at += digits.len();
                    let zeros = digits.iter().take_while(|octet| **octet == 0).count();
                    let mut number = [0; 8];
                    let digits = &digits[zeros..];
                    number[8_usize.checked_sub(digits.len())?..].copy_from_slice(digits);
                    at = at.checked_add(usize::try_from(u64::from_be_bytes(number)).ok()?)?;
                }
            }
        }
        if at > octets.len() {
            return None;
        }
        if ends.is_empty() {
            return Some(at);
        }
    }
}

/// The records lie between the file header and the end that it gives, each as long as its own header says.
fn agree_on_cdrs(framed: &Framed, records: &[&[u8]], preamble: &[u8], body: &[u8], postamble: &[u8]) {
    if preamble.is_empty() {
        assert!(body.is_empty(), "CDRs without a file header");
        return;
    }
    let u32_at = |at: usize| u32::from_be_bytes(*preamble[at..].first_chunk().unwrap());
    assert_eq!(u32_at(4) as usize, preamble.len());
    assert!(postamble.iter().all(|octet| [0, 0xff].contains(octet)), "a postamble that is no filler");
    let (mut octets, mut count) = (preamble.len(), 0);
    for (index, record) in records.iter().enumerate() {
        octets += record.len();
        let content = framed.framing.content(record);
        let length = record.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        let header = record.len() - content.len();
        let is_whole = content.len() == length && length > 0 && record.get(2).is_some();
        assert!(is_whole || index + 1 == records.len(), "a record that is no CDR");
        if is_whole {
            count += 1;
            assert_eq!(header, if record[2] >= 0xe0 { 5 } else { 4 });
        }
    }
    if framed.warning_count == 0 {
        assert!(
            [octets, octets + postamble.len()].contains(&(u32_at(0) as usize)),
            "a length unlike the file's"
        );
        assert!([u32::MAX as usize, count].contains(&(u32_at(18) as usize)), "a count unlike the file's");
    }
}

/// Blocks of lines, and what is behind them.
fn blocks(body: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut blocks, mut begin, mut at, mut has_text) = (Vec::new(), 0, 0, false);
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        at += line.len();
        let is_empty =
            [&b"\n"[..], b"\r\n"].contains(&line) || (!has_text && at == body.len() && line == b"\r");
        if is_empty && has_text {
            blocks.push(&body[begin..at]);
            (begin, has_text) = (at, false);
        } else {
            has_text |= !is_empty;
        }
    }
    let rest = &body[begin..];
    if has_text || rest.len() > PREAMBLE_BYTES_MAX {
        blocks.push(rest);
        return (blocks, b"");
    }
    (blocks, rest)
}

fn rows(delimiter: Delimiter, octets: &[u8]) -> Vec<csv::ByteRecord> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter.octet())
        .terminator(csv::Terminator::Any(b'\n'))
        .from_reader(octets)
        .into_byte_records()
        .map(|row| {
            let mut row = row.unwrap();
            row.set_position(None);
            row
        })
        .collect()
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How an input is read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The most octets that a read gives.
    octets: usize,
    /// Whether every second read is interrupted, and every fifth fails.
    fails: bool,
}

/// Gives an input in small reads, some of which fail, and watches how much is asked for.
struct Dribble<'a> {
    rest: &'a [u8],
    reading: Reading,
    calls: u64,
    may_fail: Rc<Cell<bool>>,
    room_max: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(!room.is_empty(), "a read that can give nothing looks like the end");
        assert!(room.len() <= self.room_max, "{} octets of buffer", room.len());
        self.calls += 1;
        if self.reading.fails && self.calls.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.reading.fails && self.may_fail.get() && self.calls.is_multiple_of(5) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let (given, rest) = self.rest.split_at(self.reading.octets.min(room.len()).min(self.rest.len()));
        room[..given.len()].copy_from_slice(given);
        self.rest = rest;
        Ok(given.len())
    }
}
