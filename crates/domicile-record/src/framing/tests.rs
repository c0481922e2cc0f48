//! What holds for every input, and what holds for the inputs that real systems write.

use std::io::{self, Read};

use domicile::Code;
use proptest::prelude::*;

use super::splitter::{Finish, Splitter};
use super::*;

/// A piece that outlives the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Preamble(Vec<u8>),
    Record(Vec<u8>),
    Part(Vec<u8>, bool),
    Postamble(Vec<u8>),
}

impl Kept {
    fn bytes(&self) -> &[u8] {
        match self {
            Kept::Preamble(bytes) | Kept::Record(bytes) | Kept::Part(bytes, _) | Kept::Postamble(bytes) => {
                bytes
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    framing: Framing,
    pieces: Vec<Kept>,
    warnings: Vec<Warning>,
}

impl Outcome {
    fn of(input: impl Read, choice: Choice, record_bytes_max: usize) -> Self {
        let mut framer = Framer::new(input, choice).unwrap().with_record_bytes_max(record_bytes_max);
        let mut pieces = Vec::new();
        let mut position = 0;
        while let Some(piece) = framer.next().unwrap() {
            position += piece.bytes().len() as u64;
            pieces.push(match piece {
                Piece::Preamble(bytes) => Kept::Preamble(bytes.to_vec()),
                Piece::Record(bytes) => Kept::Record(bytes.to_vec()),
                Piece::Part { bytes, last } => Kept::Part(bytes.to_vec(), last),
                Piece::Postamble(bytes) => Kept::Postamble(bytes.to_vec()),
            });
            assert_eq!(framer.position(), position);
        }
        assert_eq!(framer.next().unwrap(), None, "the end is the end");
        assert!(framer.warning_count() >= framer.warnings().len() as u64);
        Self { framing: framer.framing(), pieces, warnings: framer.warnings().to_vec() }
    }

    /// Records, parts joined.
    fn records(&self) -> Vec<Vec<u8>> {
        let (mut records, mut parts) = (Vec::new(), Vec::new());
        for piece in &self.pieces {
            match piece {
                Kept::Record(record) => records.push(record.clone()),
                Kept::Part(part, last) => {
                    parts.extend_from_slice(part);
                    if *last {
                        records.push(std::mem::take(&mut parts));
                    }
                }
                Kept::Preamble(_) | Kept::Postamble(_) => {}
            }
        }
        assert!(parts.is_empty(), "the last part is missing");
        records
    }

    fn preamble(&self) -> &[u8] {
        match self.pieces.first() {
            Some(Kept::Preamble(bytes)) => bytes,
            _ => b"",
        }
    }

    fn postamble(&self) -> &[u8] {
        match self.pieces.last() {
            Some(Kept::Postamble(bytes)) => bytes,
            _ => b"",
        }
    }
}

/// A reader that returns a few octets at once, and is interrupted before each.
struct Drip<'a> {
    rest: &'a [u8],
    at_once: usize,
    is_interrupted: bool,
}

impl<'a> Drip<'a> {
    fn new(input: &'a [u8], at_once: usize) -> Self {
        Self { rest: input, at_once, is_interrupted: false }
    }
}

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = self.at_once.min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = later;
        Ok(length)
    }
}

/// What [`Framer`] promises for any input.
fn keeps_its_promises(input: &[u8], choice: Choice, record_bytes_max: usize, chunks: &[usize]) {
    let outcome = Outcome::of(input, choice, record_bytes_max);
    let context = || format!("{choice} {record_bytes_max} {}", input.escape_ascii());

    let joined: Vec<u8> = outcome.pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect();
    assert!(joined == input, "lossless: {}", context());

    let mut part_bytes = 0;
    for (at, piece) in outcome.pieces.iter().enumerate() {
        assert!(!piece.bytes().is_empty(), "no piece is empty: {}", context());
        assert!(part_bytes == 0 || matches!(piece, Kept::Part(..)), "parts in a row: {}", context());
        let length = piece.bytes().len();
        match piece {
            Kept::Preamble(_) => assert!(at == 0 && length <= PREAMBLE_BYTES_MAX, "{}", context()),
            Kept::Postamble(_) => {
                assert!(at + 1 == outcome.pieces.len() && length <= PREAMBLE_BYTES_MAX, "{}", context());
            }
            Kept::Record(_) => assert!(length <= record_bytes_max, "{}", context()),
            Kept::Part(_, false) => {
                assert_eq!(length, record_bytes_max, "{}", context());
                part_bytes += length;
            }
            Kept::Part(_, true) => {
                assert!(length <= record_bytes_max && part_bytes > 0, "{}", context());
                part_bytes = 0;
            }
        }
    }

    for at_once in chunks {
        let dripped = Outcome::of(Drip::new(input, *at_once), choice, record_bytes_max);
        assert!(dripped == outcome, "reads of {at_once}: {}", context());
    }
    let unlimited = Outcome::of(input, choice, usize::MAX);
    assert_eq!(unlimited.records(), outcome.records(), "{}", context());
    assert_eq!(unlimited.warnings, outcome.warnings, "{}", context());
    assert_eq!(unlimited.framing, outcome.framing, "{}", context());
}

fn choice() -> impl Strategy<Value = Choice> {
    prop::sample::select(&Choice::ALL[..])
}

/// Inputs made of what the state machines look at.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        &b","[..],
        b";",
        b"\t",
        b"|",
        b"\"",
        b"\"\"",
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"\\",
        b"\\\"",
        b"1",
        b"-2.5e3",
        b"true",
        b"a",
        b"start_time",
        b"\xc3\xa9",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\x00\x00\x00\x03",
        b"\x00\x00\x00\x01a",
        b"{\"a\":1}\n",
        b"[1,2]\n",
        b"a,b,c\n",
        b"1,2,3\n",
        b"\"a\nb\",2,3\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"Event: a\nId: 1\n\n",
        b"\x30\x80",
        b"\x30\x03",
        b"\x04\x01a",
        b"\x04\x80",
        b"\xbf\x4f",
        b"\xbf\x82\x01a",
        b"\x82\x00\x02",
        b"\x00\x00",
        b"\xff\xff\xff",
        b"\x00\x03\xc9\x26abc",
        b"\x00\x02\xe9\x26\x06ab",
        FILE_HEADER,
    ]);
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

/// A header of TS 32.297 for a file of 68 octets with two records.
const FILE_HEADER: &[u8] = b"\x00\x00\x00\x44\x00\x00\x00\x35\xe9\xc9\x94\x98\x50\x40\x94\x98\x50\x40\
    \x00\x00\x00\x02\x00\x00\x00\x07\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\
    \xc0\x00\x02\x01\x00\x00\x00\x00\x00\x06";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_octets_are_framed_without_loss(
        input in prop::collection::vec(any::<u8>(), 0..200), choice in choice(), max in 1usize..64,
    ) {
        keeps_its_promises(&input, choice, max, &[1, 2, 7, 64]);
    }

    #[test]
    fn any_mixture_of_what_matters_is_framed_without_loss(
        input in fragments(), choice in choice(), max in 1usize..32,
    ) {
        keeps_its_promises(&input, choice, max, &[1, 2, 7, 64]);
    }

    #[test]
    fn any_mixture_behind_a_file_header_is_framed_without_loss(
        input in fragments(), choice in prop::sample::select(vec![Choice::Auto, Choice::Ts32297]), max in 1usize..80,
        file_length in prop_oneof![Just(u32::MAX), 53u32..200],
    ) {
        let mut file = [FILE_HEADER, &input].concat();
        file[..4].copy_from_slice(&file_length.to_be_bytes());
        keeps_its_promises(&file, choice, max, &[1, 2, 7, 64]);
    }
}

/// Every framing, with one of the delimiters.
fn every_framing() -> impl Strategy<Value = Framing> {
    prop::sample::select(vec![
        Framing::Whole,
        Framing::Lines,
        Framing::Csv { delimiter: Delimiter::Comma, header: false },
        Framing::JsonValues,
        Framing::JsonArray,
        Framing::LengthPrefixed,
        Framing::LengthPrefixedInclusive,
        Framing::Ber,
        Framing::Ts32297,
        Framing::Blocks,
    ])
}

/// Where records end when a state machine is shown so many octets at once.
fn ends(framing: Framing, input: &[u8], at_once: usize) -> (Vec<usize>, Finish) {
    let preamble = if framing == Framing::Ts32297 { FILE_HEADER } else { b"" };
    let (mut splitter, mut ends, mut end) = (Splitter::new(framing, preamble), Vec::new(), 0);
    for mut fresh in input.chunks(at_once) {
        while let Some(length) = splitter.scan(fresh) {
            end += length;
            ends.push(end);
            fresh = &fresh[length..];
        }
        end += fresh.len();
    }
    assert_eq!(end, input.len());
    (ends, splitter.finish())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // A framer that has to look at its input first shows a short one in one go; its splitter may not care.
    #[test]
    fn records_end_where_they_end_however_octets_come(input in fragments(), framing in every_framing()) {
        let at_once = ends(framing, &input, usize::MAX);
        for length in [1, 2, 3, 7] {
            prop_assert_eq!(ends(framing, &input, length), at_once.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // Around the limits of window, preamble, postamble, buffer and record.
    #[test]
    fn long_stretches_are_framed_without_loss(
        stretches in prop::collection::vec(
            (fragments(), prop::sample::select(&b" \nx1,\"{[\\\0\xff\x30"[..]),
             prop::sample::select(vec![1, PREAMBLE_BYTES_MAX - 1, PREAMBLE_BYTES_MAX, PREAMBLE_BYTES_MAX + 1, 150_000])),
            1..4),
        choice in choice(),
        max in prop::sample::select(vec![1000, PREAMBLE_BYTES_MAX - 1, PREAMBLE_BYTES_MAX, 100_000, RECORD_BYTES_MAX]),
    ) {
        let mut input = Vec::new();
        for (fragments, octet, length) in stretches {
            input.extend(fragments);
            input.extend(std::iter::repeat_n(octet, length));
        }
        keeps_its_promises(&input, choice, max, &[4093, PREAMBLE_BYTES_MAX, 1_000_000]);
    }
}

fn framing_of(input: &[u8]) -> Framing {
    Outcome::of(input, Choice::Auto, RECORD_BYTES_MAX).framing
}

/// How `input` is framed, and its records as text.
fn framed(choice: Choice, input: &[u8]) -> (String, Vec<String>) {
    keeps_its_promises(input, choice, 5, &[1, 3]);
    let outcome = Outcome::of(input, choice, RECORD_BYTES_MAX);
    let records = outcome.records();
    (outcome.framing.to_string(), records.iter().map(|record| record.escape_ascii().to_string()).collect())
}

fn framing(choice: Choice, input: impl AsRef<[u8]>) -> String {
    framed(choice, input.as_ref()).0
}

#[test]
fn an_empty_input_has_no_records() {
    for choice in Choice::ALL {
        assert_eq!(framed(choice, b"").1, [""; 0], "{choice}");
    }
    assert_eq!(framing(Choice::Auto, ""), "lines");
}

#[test]
fn a_line_holds_its_end_and_the_last_needs_none() {
    let (_, lines) = framed(Choice::Lines, b"a\r\n\nb\rc\nd");
    assert_eq!(lines, [r"a\r\n", r"\n", r"b\rc\n", "d"]);
}

#[test]
fn a_byte_order_mark_is_the_preamble_of_text() {
    for (choice, rest, preamble) in [
        (Choice::Lines, "a\n", "\u{feff}"),
        (Choice::Csv, "1,2\n", "\u{feff}"),
        (Choice::Csv, "id,start\n1,2\n", "\u{feff}id,start\n"),
        (Choice::Json, "{}\n", "\u{feff}"),
        (Choice::Json, " [ 1]", "\u{feff} [ "),
        (Choice::Auto, "", "\u{feff}"),
        (Choice::Auto, "id,start\n1,2\n", "\u{feff}id,start\n"),
        (Choice::Whole, "a\n", ""),
        (Choice::Auto, "<?xml version=\"1.0\"?>", ""),
    ] {
        let input = format!("\u{feff}{rest}");
        keeps_its_promises(input.as_bytes(), choice, 2, &[1, 2]);
        let outcome = Outcome::of(input.as_bytes(), choice, RECORD_BYTES_MAX);
        assert_eq!(outcome.preamble(), preamble.as_bytes(), "{choice} {rest}");
    }
}

#[test]
fn utf_16_is_kept_whole() {
    for mark in [b"\xff\xfe", b"\xfe\xff"] {
        let input = [&mark[..], b"a\0\n\0b\0\n\0"].concat();
        for choice in [Choice::Lines, Choice::Csv, Choice::Json] {
            let outcome = Outcome::of(&input[..], choice, RECORD_BYTES_MAX);
            assert_eq!((outcome.framing, outcome.records().len()), (Framing::Whole, 1));
            assert_eq!(outcome.warnings.len(), 1);
        }
        assert_eq!(framing(Choice::Auto, &input), "whole");
        assert_eq!(Outcome::of(&input[..], Choice::Auto, RECORD_BYTES_MAX).warnings, []);
    }
}

#[test]
fn a_csv_row_may_have_several_lines() {
    let (framing, rows) = framed(Choice::Csv, b"id,note\r\n1,\"a\r\nb\"\r\n2,\"c\"\"\nd\"\r\n");
    assert_eq!(framing, "csv (,, header)");
    assert_eq!(rows, [r#"1,\"a\r\nb\"\r\n"#, r#"2,\"c\"\"\nd\"\r\n"#]);
}

#[test]
fn a_header_is_told_from_a_row() {
    for (input, expected) in [
        ("id,start_time,note\n1,2026-01-05,a\n", "csv (,, header)"),
        ("\"id\",\"start time\"\n\"1\",\"x\"\n", "csv (,, header)"),
        ("Duration [s];Gebühr;% ASR\n1;2;3\n", "csv (;, no header)"),
        ("Duration [s];Gebühr\n1;2\n", "csv (;, header)"),
        // Nothing but names, once: a day without calls.
        ("id,start_time,note\n", "csv (,, header)"),
        // Joined files.
        ("id,note\n1,a\nid,note\n2,b\n", "csv (,, header)"),
        // Columns that are never filled.
        ("id,note\na,\nb,\nc,\n", "csv (,, header)"),
        // Names only, below as well.
        ("alice,bob,hello\ncarol,dave,bye\n", "csv (,, no header)"),
        ("alice,bob\ncarol,\n", "csv (,, no header)"),
        // A field is empty, is a number, or comes twice.
        ("id,,note\n1,2,3\n", "csv (,, no header)"),
        ("id,5,note\n1,2,3\n", "csv (,, no header)"),
        ("id,id,note\n1,2,3\n", "csv (,, no header)"),
        // The first row's value comes again.
        ("ANSWER,alice,x\nANSWER,12,y\nANSWER,13,z\n", "csv (,, no header)"),
        ("id\n1\n2\n", "csv (,, no header)"),
        ("\nid,start\n1,2\n", "csv (,, no header)"),
    ] {
        assert_eq!(framing(Choice::Csv, input), expected, "{input}");
    }
}

#[test]
fn a_header_that_looks_like_a_row_is_one_for_whoever_asks_for_its_columns() {
    let words = b"tenant,type\nacme,voice\nglobex,fax\n";
    for (columns, expected) in [
        (&[][..], "csv (,, no header)"),
        (&["tenant", "type"], "csv (,, header)"),
        (&["tenant"], "csv (,, header)"),
        (&["tenant", "2"], "csv (,, header)"),
        (&["1", "2"], "csv (,, no header)"),
        (&["tenant", "kind"], "csv (,, no header)"),
    ] {
        let framer = Framer::naming(&words[..], Choice::Csv, columns).unwrap();
        assert_eq!(framer.framing().to_string(), expected, "{columns:?}");
    }
    // Seen by itself it is lines; asked for its columns, a table.
    assert_eq!(Framer::new(&words[..], Choice::Auto).unwrap().framing(), Framing::Lines);
    for choice in [Choice::Csv, Choice::Auto] {
        // A header beyond doubt, were it not that nobody names it.
        let table = &b"tenant,start,seconds\nacme,2026-01-05T08:00:00Z,12\n"[..];
        let framer = Framer::naming(table, choice, &["1", "2"]).unwrap();
        assert_eq!(framer.framing().to_string(), "csv (,, no header)");
        assert!(framer.seems_to_have_header() && framer.warning_count() == 1);
        let framer = Framer::naming(table, choice, &["1", "start"]).unwrap();
        assert_eq!(framer.framing().to_string(), "csv (,, header)");
        assert_eq!(framer.warning_count(), 0);
        let framer = Framer::naming(&b"acme,5,12\nacme,6,12\n"[..], choice, &["1"]).unwrap();
        assert_eq!(
            (framer.framing().to_string(), framer.warning_count()),
            ("csv (,, no header)".to_owned(), 0)
        );
    }
    let framer = Framer::naming(&words[..], Choice::Auto, &["type"]).unwrap();
    assert_eq!(framer.framing().to_string(), "csv (,, header)");
}

#[test]
fn the_delimiter_is_the_one_that_rows_agree_on() {
    for (input, expected) in [
        ("1;2,5;x\n3;4,5;y\n", "csv (;, no header)"),
        ("1\t2,5\n3\t4\n", "csv (tab, no header)"),
        ("1|a,b|2\n3|c|4\n", "csv (|, no header)"),
        ("a b c\nd\n", "csv (,, no header)"),
        ("1,2,\"a;b;c;d\"\n3,4,\"e;f;g;h\"\n", "csv (,, no header)"),
    ] {
        assert_eq!(framing(Choice::Csv, input), expected, "{input}");
    }
}

#[test]
fn auto_takes_for_csv_only_what_is() {
    for (input, expected) in [
        ("id,start\n1,2\n", "csv (,, header)"),
        ("1,2,3\n4,5,6\n", "csv (,, no header)"),
        ("1,2,3\n4,5,6\n\n", "csv (,, no header)"),
        ("1;2;3\n4;5;6\n", "csv (;, no header)"),
        ("1,2,\"a\nb\"\n4,5,6\n", "csv (,, no header)"),
        ("id,start,end\n", "csv (,, header)"),
        // One row, or two columns without names, are no evidence.
        ("1,2,3\n", "lines"),
        ("id,start\n", "lines"),
        ("1,2\n3,4\n", "lines"),
        ("2026-01-05 08:00:00,123 INFO started\n2026-01-05 08:00:01,456 INFO stopped\n", "lines"),
        ("1,2,3\n4,5\n", "lines"),
        ("1,2,3\n\n4,5,6\n", "lines"),
        ("Hello, dear, world\nGood, bye, all\n", "lines"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", "lines"),
        (
            "192.0.2.1 \"GET /\" \"Mozilla/5.0 (X11; Linux; x)\"\n192.0.2.2 \"GET /\" \"Mozilla/5.0 (X11; Linux; x)\"\n",
            "lines",
        ),
    ] {
        assert_eq!(framing(Choice::Auto, input), expected, "{input}");
    }
    let long = format!("id,start,note\n1,2,{}\n", "x".repeat(PREAMBLE_BYTES_MAX));
    assert_eq!(framing_of(long.as_bytes()), Framing::Lines, "a header and no row to be seen");
}

#[test]
fn json_is_one_array_or_many_values() {
    for (input, expected, records) in [
        ("{\"a\":1}\n{\"a\":2}\n", "json", 2),
        ("{\n  \"a\": 1\n}\n{\"a\":2}", "json", 2),
        ("[{\"a\":1},{\"a\":2}]\n", "json (array)", 2),
        ("[\n  {\"a\":1},\n  {\"a\":2}\n]", "json (array)", 2),
        ("[]", "json (array)", 0),
        (" [ 1, \"a\", true ] ", "json (array)", 3),
        // Each line is an array.
        ("[1,2]\n[3,4]\n", "json", 2),
        ("[1,2][3,4]", "json", 2),
        ("[1,\n2]\n[3,4]\n", "json (array)", 4),
        // Incomplete.
        ("{\"a\":1}\n{\"a\":", "json", 2),
        ("[{\"a\":1},{\"a\":", "json (array)", 2),
        ("{\"a\":\"x\n{\"a\":1}\n", "json", 2),
        ("[", "json (array)", 0),
    ] {
        let (framing, list) = framed(Choice::Json, input.as_bytes());
        assert_eq!((framing.as_str(), list.len()), (expected, records), "{input}");
        if input.starts_with("{\"a\":\"x\n") {
            continue; // A log, for all that auto can tell.
        }
        assert_eq!(framed(Choice::Auto, input.as_bytes()).0, expected, "{input}");
    }
}

#[test]
fn auto_takes_for_json_only_what_is() {
    for input in [
        "[2026-01-05 08:00:00] started\n[2026-01-05 08:00:01] stopped\n",
        "[12:30:45] started\n",
        "[1] started\n[2] stopped\n",
        "[INFO] started\n",
        "[] nothing\n",
        "[1 2]\n",
        "{name} said\n",
        "{} said\n",
        "{\"a\":1} said\n",
        "{'a':1}\n",
        "\"a\" said\n",
    ] {
        assert_eq!(framing(Choice::Auto, input), "lines", "{input}");
    }
}

#[test]
fn parts_of_a_json_array_are_an_array_again() {
    let input = b"[\n  {\"a\":1},\n  {\"a\":2},\n  {\"a\":3}\n]\n";
    let outcome = Outcome::of(&input[..], Choice::Auto, RECORD_BYTES_MAX);
    let records = outcome.records();
    for (first, last) in [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)] {
        let mut selection = outcome.preamble().to_vec();
        selection.extend(outcome.framing.end_of_selection(&records[first..=last].concat()));
        selection.extend(outcome.postamble());
        let array: Vec<serde_json::Value> = serde_json::from_slice(&selection).unwrap();
        assert_eq!(array.len(), last - first + 1);
    }
    assert_eq!(Framing::Lines.end_of_selection(b"a,\n"), b"a,\n");
    for (records, end) in
        [("1 ,\n", "1 "), ("1 ", "1 "), ("1,,\n,", "1"), (" , ", " "), ("", ""), ("\",\"", "\",\"")]
    {
        assert_eq!(Framing::JsonArray.end_of_selection(records.as_bytes()), end.as_bytes(), "{records}");
    }
}

#[test]
fn lengths_are_believed_if_they_lead_to_the_end() {
    let record = |length: u32| [&length.to_be_bytes()[..], &vec![7; length as usize]].concat();
    let chain = [record(3), record(300), record(1)].concat();
    assert_eq!(framing(Choice::Auto, &chain), "length-prefixed");
    assert_eq!(framed(Choice::LengthPrefixed, &chain).1.len(), 3);

    let long = [record(3), record(5), record(100_000), record(1)].concat();
    assert_eq!(framing_of(&long), Framing::LengthPrefixed);

    let with = |tail: &[u8]| framing(Choice::Auto, [&chain, tail].concat());
    assert_eq!(with(b"\0"), "whole", "a length is cut");
    assert_eq!(with(b"\0\0\0\x02a"), "whole", "a record is cut");
    assert_eq!(with(b"\0\0\0\0"), "whole", "nothing has no length");
    assert_eq!(framing(Choice::Auto, record(3)), "whole", "one record is no chain");
    // Lengths that count themselves.
    assert_eq!(framing(Choice::Auto, b"\0\0\0\x05a\0\0\0\x06ab\0\0\0\x05c"), "whole");

    // An input that just fills the window is seen to its end.
    let full = [record(300), record(65_000), record(228 - 3)].concat();
    assert_eq!(full.len(), PREAMBLE_BYTES_MAX + 1);
    assert_eq!(framing_of(&full), Framing::LengthPrefixed);
    let full = [record(300), record(65_000), [0, 0, 1, 0].to_vec(), vec![7; 224]].concat();
    assert_eq!(full.len(), PREAMBLE_BYTES_MAX);
    assert_eq!(framing_of(&full), Framing::Whole);
    assert_eq!(framing_of(&[&full[..], b"7"].concat()), Framing::LengthPrefixed, "the end is not seen");

    let cut = Outcome::of(&chain[..chain.len() - 1], Choice::LengthPrefixed, RECORD_BYTES_MAX);
    assert_eq!(cut.records().len(), 3);
    assert_eq!(
        cut.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["the last record is shorter than its length says (byte 311)"]
    );
}

#[test]
fn what_is_no_text_is_kept_whole() {
    for input in [
        &b"\x28\xb5\x2f\xfdabc\n"[..],
        b"\x1f\x8babc\n",
        b"RIFFabcdWAVE\n",
        b"a\0b\n",
        b"\xa6\x81\xe4\x80\x01\x06\x81\x08\n",
        b"\x01\x02\x03 abc\n",
        b"<?xml version=\"1.0\"?>\n<a/>\n",
        b"<cdr>\n</cdr>\n",
        b"\xe9\x01\n",
        &[&[b'a'; 200][..], b"\x1b\xc3"].concat(),
    ] {
        assert_eq!(framing(Choice::Auto, input), "whole", "{}", input.escape_ascii());
    }
    for input in [&b"<34>Oct 11 22:14:15 started\n"[..], b"caf\xe9\n", b"caf\xc3\xa9\n"] {
        assert_eq!(framing(Choice::Auto, input), "lines", "{}", input.escape_ascii());
    }
    // A window may end within a character, and a long log may hold an odd one.
    let mut log = "é".repeat(PREAMBLE_BYTES_MAX).into_bytes();
    log.insert(0, b'a');
    assert_eq!(framing_of(&log), Framing::Lines);
    let odd = format!("{}\u{1b}\n", "a message of somebody. ".repeat(10));
    assert_eq!(framing(Choice::Auto, odd), "lines");
}

#[test]
fn a_postamble_is_never_cut_into_parts() {
    for input in ["{}\n\n\n\n\n\n\n\n\n", "[1]\n\n\n\n\n\n\n\n"] {
        keeps_its_promises(input.as_bytes(), Choice::Json, 4, &[1, 2, 7]);
        let outcome = Outcome::of(input.as_bytes(), Choice::Json, 4);
        assert_eq!((outcome.records().len(), outcome.postamble().len() > 4), (1, true));
    }
    // Blanks before a value are part of its record.
    let outcome = Outcome::of(&b"{}\n\n\n\n\n\n\n\n\n{}"[..], Choice::Json, 4);
    assert_eq!((outcome.records().len(), outcome.postamble()), (2, &b""[..]));
}

#[test]
fn a_long_record_comes_in_parts() {
    let pieces = |length: usize| {
        let input = [b"a\n".to_vec(), vec![b'x'; length - 1], b"\nb\n".to_vec()].concat();
        let outcome = Outcome::of(&input[..], Choice::Lines, 8);
        outcome.pieces[1..outcome.pieces.len() - 1]
            .iter()
            .map(|piece| match piece {
                Kept::Part(bytes, last) => (bytes.len(), Some(*last)),
                _ => (piece.bytes().len(), None),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(pieces(8), [(8, None)]);
    assert_eq!(pieces(9), [(8, Some(false)), (1, Some(true))]);
    assert_eq!(pieces(16), [(8, Some(false)), (8, Some(true))]);
    assert_eq!(pieces(17), [(8, Some(false)), (8, Some(false)), (1, Some(true))]);
}

#[test]
fn what_was_odd_is_said_with_its_place() {
    let warnings = |choice, input: &str| {
        let outcome = Outcome::of(input.as_bytes(), choice, RECORD_BYTES_MAX);
        outcome.warnings.iter().map(|warning| (warning.at, warning.what)).collect::<Vec<_>>()
    };
    assert_eq!(warnings(Choice::Lines, "a\nb"), []);
    assert_eq!(
        warnings(Choice::Csv, "1,2\n3,\"4\n5,6\n"),
        [(4, "a quoted field is not closed: its row holds all that follows")]
    );
    assert_eq!(warnings(Choice::Json, "{}\n{"), [(3, "the last JSON value is not complete")]);
    assert_eq!(warnings(Choice::Json, "[1,"), [(1, "the JSON array is not closed")]);
    assert_eq!(
        warnings(Choice::LengthPrefixed, "\0\0\0"),
        [(0, "the input ends within the length of a record")]
    );

    // However many there are, few are kept.
    let input = "}\n".repeat(1000);
    let mut framer = Framer::new(input.as_bytes(), Choice::Json).unwrap();
    while framer.next().unwrap().is_some() {}
    assert_eq!((framer.warnings().len(), framer.warning_count()), (WARNINGS_MAX, 1000));
}

#[test]
fn a_record_is_handed_out_as_soon_as_it_was_read() {
    /// Fails when it is asked for more than there is.
    struct Pipe<'a>(&'a [u8]);
    impl Read for Pipe<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
        }
    }
    for (choice, input) in [
        (Choice::Lines, &b"abc\n"[..]),
        (Choice::Json, b"{\"a\":1}\n"),
        (Choice::LengthPrefixed, b"\0\0\0\x01a"),
        (Choice::LengthPrefixedInclusive, b"\0\0\0\x05a"),
        (Choice::Ber, b"\x30\x80\x04\x01a\0\0"),
        (Choice::Blocks, b"a: 1\n\n"),
    ] {
        let mut framer = Framer::new(Pipe(input), choice).unwrap();
        assert_eq!(framer.next().unwrap(), Some(Piece::Record(input)), "{choice}");
        let error = framer.next().unwrap_err();
        assert_eq!(error.code(), Code::InputFailed);
        assert_eq!(error.place(), Some(format!("byte {}", input.len()).as_str()));
    }
    let file = [FILE_HEADER, b"\0\x03\xc9\x26abc"].concat();
    let mut framer = Framer::new(Pipe(&file), Choice::Ts32297).unwrap();
    assert_eq!(framer.next().unwrap(), Some(Piece::Preamble(FILE_HEADER)));
    assert_eq!(framer.next().unwrap(), Some(Piece::Record(b"\0\x03\xc9\x26abc")));
    let mut framer = Framer::new(Pipe(b"[\n {},\n {}"), Choice::Json).unwrap();
    assert_eq!(framer.next().unwrap(), Some(Piece::Preamble(b"[\n ")));
    assert_eq!(framer.next().unwrap(), Some(Piece::Record(b"{},\n ")));
}

#[test]
fn reading_goes_on_where_it_failed() {
    struct Flaky<'a>(&'a [u8], bool);
    impl Read for Flaky<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::Error::other("away")) } else { self.0.read(&mut buffer[..1]) }
        }
    }
    let mut framer = Framer::new(Flaky(b"ab\ncd", true), Choice::LengthPrefixed).unwrap();
    let (mut joined, mut failures) = (Vec::new(), 0);
    loop {
        match framer.next() {
            Ok(Some(piece)) => joined.extend_from_slice(piece.bytes()),
            Ok(None) => break,
            Err(_) => failures += 1,
        }
    }
    assert_eq!((joined.as_slice(), failures), (&b"ab\ncd"[..], 5));
}

#[test]
fn the_content_of_a_record_is_without_its_frame() {
    for (framing, record, content) in [
        (Framing::Whole, "a\n", "a\n"),
        (Framing::Lines, "a\r\n", "a"),
        (Framing::Csv { delimiter: Delimiter::Comma, header: true }, "a,\n", "a,"),
        (Framing::JsonValues, "\n {\"a\":1} \r\n", "{\"a\":1}"),
        (Framing::JsonArray, "{\"a\":1} ,\n  ", "{\"a\":1}"),
        (Framing::JsonArray, ",", ""),
        (Framing::LengthPrefixed, "\0\0\0\x01a", "a"),
        (Framing::LengthPrefixed, "\0\0", ""),
        (Framing::LengthPrefixedInclusive, "\0\0\0\x05a", "a"),
        (Framing::Ber, "\0\0\x30\x01a", "\x30\x01a"),
        (Framing::Ts32297, "\0\x01\x49\x26a", "a"),
        (Framing::Blocks, "\r\na: 1\r\nb: 2\r\n\r\n", "a: 1\r\nb: 2"),
    ] {
        assert_eq!(framing.content(record.as_bytes()), content.as_bytes(), "{framing} {record:?}");
    }
}

#[test]
fn every_framing_has_one_code() {
    let mut known = 0;
    for kind in 0..=u8::MAX {
        for parameter in 0..=u8::MAX {
            if let Some(framing) = Framing::from_code(kind, parameter) {
                assert_eq!(framing.code(), (kind, parameter));
                known += 1;
            }
        }
    }
    assert_eq!(known, 9 + 4 * 2);
    assert_eq!(Framing::from_code(0x06, 1), Some(Framing::LengthPrefixedInclusive));
    assert_eq!(Framing::from_code(0x06, 2), None);
    assert_eq!(Framing::from_code(0x0a, 0), None);
    let semicolons = Framing::Csv { delimiter: Delimiter::Semicolon, header: true };
    assert_eq!(semicolons.code(), (0x03, 0x81));
    assert_eq!(semicolons.to_string(), "csv (;, header)");
}

#[test]
fn choices_are_read_as_they_are_written() {
    for choice in Choice::ALL {
        assert_eq!(choice.name().parse::<Choice>().unwrap(), choice);
    }
    for text in ["xml", "Lines", ""] {
        let error = text.parse::<Choice>().unwrap_err();
        assert_eq!((error.code(), error.what()), (Code::ArgumentInvalid, "there is no framing of that name"));
        assert!(Choice::ALL.iter().all(|choice| error.advice().unwrap().contains(choice.name())));
    }
}

#[test]
fn json_values_need_nothing_between_them() {
    for (input, records) in [
        (r#"{"a":1}{"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#][..]),
        ("{\"a\":1} {\"b\":2}\n\n{\"c\":\n3}", &["{\"a\":1} ", "{\"b\":2}\n", "\n{\"c\":\n3}"]),
        (r#"{"a":"}{"}[1,{"b":[]}]{}"#, &[r#"{"a":"}{"}"#, r#"[1,{"b":[]}]"#, "{}"]),
    ] {
        for choice in [Choice::Json, Choice::Auto] {
            keeps_its_promises(input.as_bytes(), choice, 5, &[1, 3]);
            let outcome = Outcome::of(input.as_bytes(), choice, RECORD_BYTES_MAX);
            assert_eq!((outcome.framing, outcome.warnings.len()), (Framing::JsonValues, 0), "{input}");
            assert_eq!(outcome.records(), records.iter().map(|record| record.as_bytes()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn ber_is_seen_where_all_of_it_agrees() {
    let record = b"\xa0\x0c\x80\x01\0\x81\x02ab\xa3\x03\x80\x01c";
    let indefinite = b"\xbf\x4f\x80\x80\x01\0\xbf\x23\x80\x81\x00\0\0\0\0";
    let both = [&record[..], indefinite].concat();
    assert_eq!(framed(Choice::Auto, &both).0, "ber");
    assert_eq!(framed(Choice::Ber, &both).1.len(), 2);
    for tail in [&b"\x30"[..], b"\x30\x02a", b"plain", b"\x04\x01a"] {
        let with = [&both[..], tail].concat();
        assert_eq!(framing(Choice::Auto, &with), "whole", "{}", tail.escape_ascii());
        assert_eq!(framed(Choice::Ber, &with).1.len(), 3, "{}", tail.escape_ascii());
    }
    // Filler is nobody's record.
    let filled = [&both[..], b"\0\0\0", record, b"\xff\xff"].concat();
    let outcome = Outcome::of(&filled[..], Choice::Auto, RECORD_BYTES_MAX);
    assert_eq!((outcome.framing, outcome.records().len()), (Framing::Ber, 3));
    assert_eq!((outcome.postamble(), outcome.warnings.len()), (&b"\xff\xff"[..], 0));

    // A window may end anywhere, also within a value that is longer than it.
    let many = both.repeat(3000);
    assert_eq!(framing_of(&many), Framing::Ber);
    assert_eq!(Outcome::of(&many[..], Choice::Ber, RECORD_BYTES_MAX).records().len(), 6000);
    let length = u32::try_from(many.len()).unwrap().to_be_bytes();
    for file in [[b"\x61\x84", &length[..], &many].concat(), [b"\x61\x80", &many[..], b"\0\0"].concat()] {
        let outcome = Outcome::of(&file[..], Choice::Auto, RECORD_BYTES_MAX);
        assert_eq!(
            (outcome.framing, outcome.records(), outcome.warnings.len()),
            (Framing::Ber, vec![file], 0)
        );
    }
}

#[test]
fn a_file_of_ts_32297_is_its_header_and_its_records() {
    let records = [&b"\0\x03\xc9\x26abc"[..], b"\0\x03\xe9\x26\x06abc"];
    let file = [FILE_HEADER, records[0], records[1]].concat();
    for choice in [Choice::Auto, Choice::Ts32297] {
        keeps_its_promises(&file, choice, 4, &[1, 3, 60]);
        let outcome = Outcome::of(&file[..], choice, RECORD_BYTES_MAX);
        assert_eq!((outcome.framing, outcome.preamble()), (Framing::Ts32297, FILE_HEADER));
        assert_eq!((outcome.records(), outcome.warnings), (records.map(<[u8]>::to_vec).to_vec(), vec![]));
        assert!(records.iter().all(|record| Framing::Ts32297.content(record) == b"abc"));
    }
    // Cut, it is a file all the same, and says so.
    let outcome = Outcome::of(&file[..file.len() - 1], Choice::Auto, RECORD_BYTES_MAX);
    assert_eq!((outcome.framing, outcome.records().len()), (Framing::Ts32297, 2));
    assert_eq!(outcome.warnings, [Warning { at: 60, what: "the last CDR is shorter than its length says" }]);
    let outcome = Outcome::of(&file[..60], Choice::Auto, RECORD_BYTES_MAX);
    assert_eq!(outcome.warnings, [Warning { at: 60, what: "the file is not as long as its header says" }]);

    // Without a file header there are no records.
    for input in [&file[..40], b"\0\0\0\x07\0\0\0\x07abcdefghijklmnopqrstuvwxyz", records[0], b"a\n"] {
        keeps_its_promises(input, Choice::Ts32297, 4, &[1, 3, 60]);
        let outcome = Outcome::of(input, Choice::Ts32297, RECORD_BYTES_MAX);
        assert_eq!((outcome.framing, outcome.records().len()), (Framing::Whole, 1));
        assert_eq!(outcome.warnings.len(), 1, "{}", input.escape_ascii());
    }
    // One as long as a preamble may be, and one that is longer.
    for (length, expected) in
        [(PREAMBLE_BYTES_MAX, Framing::Ts32297), (PREAMBLE_BYTES_MAX + 1, Framing::Whole)]
    {
        let mut long = FILE_HEADER.to_vec();
        long[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        long.resize(length, 7);
        long.extend(records.concat());
        keeps_its_promises(&long, Choice::Ts32297, 4, &[4093, PREAMBLE_BYTES_MAX]);
        assert_eq!(Outcome::of(&long[..], Choice::Ts32297, RECORD_BYTES_MAX).framing, expected);
    }
}

#[test]
fn blocks_are_seen_where_names_agree() {
    let events = b"Event: A\r\nId: 1\r\n\r\nEvent: B\r\nId: 2\r\n\r\n\r\n";
    let outcome = Outcome::of(&events[..], Choice::Auto, RECORD_BYTES_MAX);
    assert_eq!((outcome.framing, outcome.records().len()), (Framing::Blocks, 2));
    assert_eq!((outcome.postamble(), outcome.warnings.len()), (&b"\r\n"[..], 0));
    let marked = [b"\xef\xbb\xbf", &events[..]].concat();
    assert_eq!(Outcome::of(&marked[..], Choice::Auto, RECORD_BYTES_MAX).preamble(), b"\xef\xbb\xbf");
    assert_eq!(framing(Choice::Auto, "Event: A\nId: 1\nEvent: B\nId: 2\n"), "lines");
    assert_eq!(framed(Choice::Blocks, b"one\ntwo\n\nthree").1.len(), 2);
    let many = b"Event: A\nId: 1\n\n".repeat(10_000);
    let outcome = Outcome::of(&many[..], Choice::Auto, RECORD_BYTES_MAX);
    assert_eq!((outcome.framing, outcome.records().len()), (Framing::Blocks, 10_000));
}

#[test]
fn lengths_that_count_themselves_are_told_and_never_guessed() {
    let record = |length: u32| [&length.to_be_bytes()[..], &vec![7; length as usize - 4]].concat();
    let chain = [record(16), record(300), record(4)].concat();
    assert_eq!(framing(Choice::Auto, &chain), "whole");
    assert_eq!(framed(Choice::LengthPrefixedInclusive, &chain).1.len(), 3);
    let lost = [&chain[..], b"\0\0\0\x03", &chain].concat();
    keeps_its_promises(&lost, Choice::LengthPrefixedInclusive, 5, &[1, 3]);
    let outcome = Outcome::of(&lost[..], Choice::LengthPrefixedInclusive, RECORD_BYTES_MAX);
    assert_eq!((outcome.records().len(), outcome.warnings[0].at), (4, 320));
    assert!(outcome.warnings[0].what.contains("less than 4"));
}

/// Inputs made to cost more than they should, octet by octet: work that grew with the square of their length
/// would never end.
#[test]
fn hostile_inputs_cost_what_others_cost() {
    const LENGTH: usize = 400 << 10;
    let endless = |pattern: &[u8]| -> Vec<u8> { pattern.iter().copied().cycle().take(LENGTH).collect() };
    let opened = [endless(b"\x30\x80"), endless(b"\0\0")].concat();
    let behind = [FILE_HEADER, b"\0\x03\xc9\x26abc", b"\0\x04\xe9\x26\x06abcd", &endless(b"\0")].concat();
    for (choice, input) in [
        (Choice::Ber, &opened),
        (Choice::Auto, &opened),
        (Choice::Ber, &endless(b"\x30\x00")),
        (Choice::Ber, &endless(b"\0\xff\xff")),
        (Choice::Ber, &endless(b"\xff\xff")),
        (Choice::Ber, &endless(b"\x30\xfe\0\0\0\0\0\0\0")),
        (Choice::Ber, &endless(b"\x30\x80\xbf\x81\x81\x01\x00")),
        (Choice::Ts32297, &behind),
        (Choice::Ts32297, &[FILE_HEADER, &endless(b"\0\x01\xc9\x26a")].concat()),
        (Choice::Blocks, &endless(b"\n")),
        (Choice::Blocks, &endless(b"\r\n")),
        (Choice::Blocks, &endless(b"\r")),
        (Choice::Blocks, &endless(b"a:\n")),
        (Choice::Auto, &endless(b"a: b\nc: d\n\n")),
        (Choice::Auto, &endless(b"a: b\n")),
        (Choice::LengthPrefixedInclusive, &endless(b"\0\0\0\x04")),
        (Choice::LengthPrefixedInclusive, &endless(b"\0\0\0\x03")),
    ] {
        let dripped = Outcome::of(Drip::new(input, 1), choice, 1000);
        assert!(dripped == Outcome::of(&input[..], choice, 1000), "{choice}");
        let joined: Vec<u8> = dripped.pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        assert!(joined == *input, "{choice}");
    }
}

/// The samples of the workspace, and how many records each has.
#[test]
fn the_samples_are_framed_as_their_list_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    for (name, framing, record_count) in [
        ("voice.csv", "csv (,, header)", 60),
        ("messaging-newlines.csv", "csv (,, header)", 60),
        ("wireless.jsonl", "json", 40),
        ("conference.json", "json (array)", 40),
        ("messaging.log", "lines", 60),
        ("voice.lp", "length-prefixed", 80),
        ("call-recording.wav", "whole", 1),
        ("voice-no-last-newline.csv", "csv (,, header)", 20),
        ("voice-crlf.csv", "csv (,, header)", 20),
        ("voice-bom.csv", "csv (,, header)", 20),
        ("voice-no-header.csv", "csv (,, no header)", 20),
        ("empty.csv", "lines", 0),
        ("messaging-pretty.json", "json", 20),
        ("video.xml", "whole", 1),
        ("mixed.csv", "csv (,, header)", 180),
        ("voice.ber", "ber", 60),
        ("wireless.ts32297", "ts32297", 60),
        ("wireless-open.ts32297", "ts32297", 20),
        ("call-control.events", "blocks", 40),
    ] {
        let input = std::fs::read(folder.join(name)).unwrap();
        let outcome = Outcome::of(&input[..], Choice::Auto, RECORD_BYTES_MAX);
        let found = (outcome.framing.to_string(), outcome.records().len());
        assert_eq!(found, (framing.to_owned(), record_count), "{name}");
        let warnings = usize::from(name == "wireless-open.ts32297");
        assert_eq!(outcome.warnings.len(), warnings, "{name}: {:?}", outcome.warnings);
        for choice in Choice::ALL {
            keeps_its_promises(&input, choice, 100, &[61, 4096]);
        }
    }
    let input = std::fs::read(folder.join("messaging.lpi")).unwrap();
    let outcome = Outcome::of(&input[..], Choice::LengthPrefixedInclusive, RECORD_BYTES_MAX);
    assert_eq!((outcome.records().len(), outcome.warnings.len()), (40, 0));
}
