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
