//! What holds for every input, and what holds for the inputs that real systems write.

use std::io::{self, Read};

use domicile::Code;
use proptest::prelude::*;

use super::json::Finish;
use super::splitter::Splitter;
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
    ]);
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

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
    ])
}

/// Where records end when a state machine is shown so many octets at once.
fn ends(framing: Framing, input: &[u8], at_once: usize) -> (Vec<usize>, Finish) {
    let (mut splitter, mut ends, mut end) = (Splitter::new(framing), Vec::new(), 0);
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
            (fragments(), prop::sample::select(&b" \nx1,\"{[\\"[..]),
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
    ] {
        let mut framer = Framer::new(Pipe(input), choice).unwrap();
        assert_eq!(framer.next().unwrap(), Some(Piece::Record(input)), "{choice}");
        let error = framer.next().unwrap_err();
        assert_eq!(error.code(), Code::InputFailed);
        assert_eq!(error.place(), Some(format!("byte {}", input.len()).as_str()));
    }
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
    assert_eq!(known, 5 + 4 * 2);
    assert_eq!(Framing::from_code(0x07, 0), None, "kept for BER");
    let semicolons = Framing::Csv { delimiter: Delimiter::Semicolon, header: true };
    assert_eq!(semicolons.code(), (0x03, 0x81));
    assert_eq!(semicolons.to_string(), "csv (;, header)");
}

#[test]
fn choices_are_read_as_they_are_written() {
    for choice in Choice::ALL {
        assert_eq!(choice.name().parse::<Choice>().unwrap(), choice);
    }
    for (text, what) in [
        ("ber", "this version does not split BER into records"),
        ("xml", "there is no framing of that name"),
        ("Lines", "there is no framing of that name"),
    ] {
        let error = text.parse::<Choice>().unwrap_err();
        assert_eq!((error.code(), error.what()), (Code::ArgumentInvalid, what));
        assert!(error.advice().is_some());
    }
}

/// The samples lie beside the workspace, or where `DOMICILE_SHARED_SAMPLES` says.
#[test]
#[expect(clippy::print_stderr, reason = "a test that was skipped must not look like one that passed")]
fn the_samples_of_real_systems_are_framed_as_their_list_says() {
    let folder = std::env::var_os("DOMICILE_SHARED_SAMPLES").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples").into(),
        std::path::PathBuf::from,
    );
    if !folder.is_dir() {
        eprintln!("skipped: there are no samples in {}", folder.display());
        return;
    }
    for (name, framing, record_count) in [
        ("voice-asterisk.csv", "csv (,, no header)", 218),
        ("call-control-asterisk-cel.csv", "csv (,, no header)", 30),
        ("call-control-freeswitch.json", "json", 2),
        ("call-control-freeswitch-events.txt", "lines", 659),
        ("voice-broadworks.xml", "whole", 1),
        ("voice-carrier.fwv", "lines", 35),
        ("voice-nrtrde.ber", "whole", 1),
        ("wireless-tap3.ber", "whole", 1),
        ("wireless-tap3-indefinite.ber", "whole", 1),
        ("voice-ts32297.dat", "whole", 1),
        ("messaging-smpp.bin", "whole", 1),
        ("messaging-twilio.json", "json", 1),
        ("messaging-kannel.log", "lines", 600),
        ("call-recording-twilio.jsonl", "json", 6),
        ("conference-twilio.jsonl", "json", 21),
        ("video-twilio.jsonl", "json", 3),
        ("verify-twilio.jsonl", "json", 2),
        ("whatsapp-cloudapi.jsonl", "json", 34),
        ("fax-hylafax.tsv", "lines", 240),
    ] {
        let input = match std::fs::read(folder.join(name)) {
            Ok(input) => input,
            // A copy may leave out what it may not carry.
            Err(_) => {
                eprintln!("skipped: {name}");
                continue;
            }
        };
        let outcome = Outcome::of(&input[..], Choice::Auto, RECORD_BYTES_MAX);
        assert_eq!(
            (outcome.framing.to_string().as_str(), outcome.records().len()),
            (framing, record_count),
            "{name}"
        );
        assert_eq!(outcome.warnings, [], "{name}");
        for choice in Choice::ALL {
            keeps_its_promises(&input, choice, 100, &[61, 4096]);
        }
    }
}
