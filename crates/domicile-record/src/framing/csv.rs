//! Rows of comma-separated values, as RFC 4180 has them and as people write them.

use std::ops::ControlFlow;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};
use memchr::{memchr, memchr2};

use super::Delimiter;

/// Finds the ends of rows in octets that come bit by bit.
///
/// Quotes are read as csv-core reads them: a field is quoted if it begins with a quote; after its
/// closing quote, what comes before the next delimiter is data, quotes included.
#[derive(Debug)]
pub(super) struct Csv {
    delimiter: u8,
    state: State,
    /// The octet before the next one, as far as it matters: whether a field begins there. LF at the
    /// beginning of a row.
    previous: u8,
    /// What is odd about the row so far.
    oddity: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside quotes.
    Plain,
    /// Within quotes.
    Quoted,
    /// After a quote within quotes: it closes them, or it is the first half of a doubled one.
    Quote,
}

impl Csv {
    pub(super) fn new(delimiter: Delimiter) -> Self {
        Self { delimiter: delimiter.octet(), state: State::Plain, previous: b'\n', oddity: None }
    }

    /// Where the current row ends in `fresh`, if it does.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        let mut rest = fresh;
        loop {
            match self.state {
                State::Plain => {
                    let Some(at) = memchr2(b'\n', QUOTE, rest) else {
                        self.previous = rest.last().copied().unwrap_or(self.previous);
                        return None;
                    };
                    let (before, found) = rest.split_at_checked(at)?;
                    let (&octet, after) = found.split_first()?;
                    let previous = before.last().copied().unwrap_or(self.previous);
                    rest = after;
                    self.previous = octet;
                    if octet == b'\n' {
                        return Some(fresh.len() - rest.len());
                    }
                    if previous == self.delimiter || previous == b'\n' {
                        self.state = State::Quoted;
                    }
                }
                State::Quoted => {
                    let at = memchr(QUOTE, rest)?;
                    rest = rest.get(at + 1..)?;
                    self.state = State::Quote;
                }
                State::Quote => match rest {
                    [] => return None,
                    [QUOTE, after @ ..] => {
                        rest = after;
                        self.state = State::Quoted;
                    }
                    // Most writers quote all fields or none: from one to the next without a search.
                    [octet, QUOTE, after @ ..] if *octet == self.delimiter => {
                        rest = after;
                        self.state = State::Quoted;
                    }
                    // What follows is no quote, so that `previous` does not matter for it.
                    [octet, ..] => {
                        if *octet != self.delimiter && *octet != b'\n' && *octet != b'\r' {
                            self.oddity = Some(GOES_ON);
                        }
                        self.state = State::Plain;
                    }
                },
            }
        }
    }

    /// What was odd about the row that ended, once.
    pub(super) fn take_oddity(&mut self) -> Option<&'static str> {
        self.oddity.take()
    }

    /// What is odd when the input ends here.
    pub(super) fn finish(&self) -> Option<&'static str> {
        (self.state == State::Quoted).then_some(NOT_CLOSED)
    }
}

/// Whether a row that this is said of may hold rows of others.
pub(super) fn mixes_rows(oddity: &str) -> bool {
    [NOT_CLOSED, GOES_ON].contains(&oddity)
}

const GOES_ON: &str = "a quoted field goes on behind its closing quote: its row may hold others";

const NOT_CLOSED: &str = "a quoted field is not closed: its row holds all that follows";

/// Reads the fields of rows, without their quotes.
pub(super) struct Cells {
    delimiter: Delimiter,
    reader: Reader,
    text: Vec<u8>,
}

impl Cells {
    pub(super) fn new(delimiter: Delimiter) -> Self {
        // A CR is data here: csv-core's own default would end a row at a lone one.
        let reader =
            ReaderBuilder::new().delimiter(delimiter.octet()).terminator(Terminator::Any(b'\n')).build();
        Self { delimiter, reader, text: Vec::new() }
    }

    /// Hands the fields of `row`, which is without its line end, to `each`, until that breaks off.
    pub(super) fn read(&mut self, row: &[u8], mut each: impl FnMut(Cell<'_>) -> ControlFlow<()>) {
        if self.text.len() < row.len() {
            self.text.resize(row.len(), 0);
        }
        self.reader.reset();
        let (mut rest, mut begin, mut column, mut filled) = (row, row, 0, 0);
        loop {
            let room = self.text.get_mut(filled..).unwrap_or_default();
            let (result, taken, written) = self.reader.read_field(rest, room);
            rest = rest.get(taken..).unwrap_or_default();
            filled += written;
            match result {
                // That the row has ended is told by an empty rest, in the next round.
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::Field { record_end } => {
                    let text = self.text.get(..filled).unwrap_or_default();
                    let is_quoted = begin.first() == Some(&QUOTE);
                    let is_closed = !record_end || self.is_closed(begin);
                    if each(Cell { column, text, is_quoted, is_closed }).is_break() || record_end {
                        return;
                    }
                    (begin, column, filled) = (rest, column + 1, 0);
                }
                // `text` is as long as the row, so that it is never full before the row has ended.
                ReadFieldResult::End | ReadFieldResult::OutputFull => return,
            }
        }
    }

    /// The text of every field of `row`, which is without its line end.
    pub(super) fn all(&mut self, row: &[u8]) -> Vec<Vec<u8>> {
        let mut cells = Vec::new();
        self.read(row, |cell| {
            cells.push(cell.text.to_vec());
            ControlFlow::Continue(())
        });
        cells
    }

    /// Whether the quotes of a row's last field, as it was written, are closed.
    fn is_closed(&self, field: &[u8]) -> bool {
        let mut csv = Csv::new(self.delimiter);
        csv.scan(field).is_some() || csv.finish().is_none()
    }
}

/// A field of a row.
pub(super) struct Cell<'c> {
    /// Its place in the row, from 0.
    pub(super) column: usize,
    /// Without its quotes.
    pub(super) text: &'c [u8],
    /// Whether it begins with a quote.
    pub(super) is_quoted: bool,
    /// Whether its quotes are closed; if not, the row has ended within them.
    pub(super) is_closed: bool,
}

const QUOTE: u8 = b'"';

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(delimiter: Delimiter, input: &str) -> Vec<&str> {
        let (mut splitter, mut rest, mut rows) = (Csv::new(delimiter), input, Vec::new());
        while let Some(end) = splitter.scan(rest.as_bytes()) {
            rows.push(&rest[..end]);
            rest = &rest[end..];
        }
        rows.extend((!rest.is_empty()).then_some(rest));
        rows
    }

    #[test]
    fn a_line_end_in_quotes_ends_nothing() {
        assert_eq!(rows(Delimiter::Comma, "a,\"b\nc\"\nd"), ["a,\"b\nc\"\n", "d"]);
        assert_eq!(rows(Delimiter::Comma, "\"a\r\nb\"\r\nc\r\n"), ["\"a\r\nb\"\r\n", "c\r\n"]);
        assert_eq!(rows(Delimiter::Comma, "\"a\"\"\n\"\"b\"\nc\n"), ["\"a\"\"\n\"\"b\"\n", "c\n"]);
        assert_eq!(rows(Delimiter::Semicolon, "a;\"b\nc\"\n"), ["a;\"b\nc\"\n"]);
    }

    #[test]
    fn a_quote_within_a_field_is_data() {
        assert_eq!(rows(Delimiter::Comma, "a\"b\nc\n"), ["a\"b\n", "c\n"]);
        assert_eq!(rows(Delimiter::Comma, "a, \"b\nc\"\n"), ["a, \"b\n", "c\"\n"]);
        // A comma is data where semicolons separate.
        assert_eq!(rows(Delimiter::Semicolon, "a,\"b\nc\n"), ["a,\"b\n", "c\n"]);
        // After the closing quote, a quote is data as well.
        assert_eq!(rows(Delimiter::Comma, "\"a\"b\"\nc\n"), ["\"a\"b\"\n", "c\n"]);
        assert_eq!(rows(Delimiter::Comma, "\"a\"\rb\"\nc\n"), ["\"a\"\rb\"\n", "c\n"]);
    }

    #[test]
    fn a_cr_without_lf_is_data() {
        assert_eq!(rows(Delimiter::Comma, "a\rb\nc\r"), ["a\rb\n", "c\r"]);
        assert_eq!(Cells::new(Delimiter::Comma).all(b"a\rb,\r"), [&b"a\rb"[..], b"\r"]);
    }

    #[test]
    fn a_quote_that_is_not_closed_holds_what_follows() {
        let mut splitter = Csv::new(Delimiter::Comma);
        assert_eq!(splitter.scan(b"\"a\nb\nc\n"), None);
        assert!(splitter.finish().unwrap().contains("not closed"));
        assert_eq!(splitter.scan(b"\""), None);
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn fields_are_read_without_their_quotes() {
        let mut cells = Cells::new(Delimiter::Comma);
        assert_eq!(cells.all(b"a,\"b \"\"c\"\"\",,\"\""), [&b"a"[..], b"b \"c\"", b"", b""]);
        assert_eq!(cells.all(b"a,"), [&b"a"[..], b""]);
        assert_eq!(cells.all(b","), [b"", b""]);
        assert_eq!(cells.all(b"\"a\nb\",c"), [&b"a\nb"[..], b"c"]);
        assert_eq!(cells.all(b""), Vec::<Vec<u8>>::new());
        assert_eq!(cells.all(b"\"\""), [b""]);

        let mut seen = Vec::new();
        cells.read(b"a,b,c,d", |cell| {
            seen.push((cell.column, cell.text.to_vec()));
            if cell.column == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, [(0, b"a".to_vec()), (1, b"b".to_vec())]);
    }

    #[test]
    fn a_field_whose_quote_is_not_closed_says_so() {
        for (row, expected) in [
            (&b"a,\"b"[..], [true, false]),
            (b"a,\"b\"", [true, true]),
            (b"a,\"b\"\"", [true, false]),
            (b"a,\"b\"c\"", [true, true]),
            (b"a,b\"", [true, true]),
            (b"a,\"", [true, false]),
            (b"\"a\nb\",\"c\nd", [true, false]),
        ] {
            let mut closed = Vec::new();
            Cells::new(Delimiter::Comma).read(row, |cell| {
                closed.push(cell.is_closed);
                ControlFlow::Continue(())
            });
            assert_eq!(closed, expected, "{}", row.escape_ascii());
        }
    }

    proptest! {
        // csv-core says what the fields are, so that it has to agree about where rows end.
        #[test]
        fn rows_end_where_csv_core_ends_them(
            input in prop::collection::vec(prop::sample::select(&b"a\",\n\r;"[..]), 0..64),
        ) {
            let mut splitter = Csv::new(Delimiter::Comma);
            let mut cells = Cells::new(Delimiter::Comma);
            let (mut rest, mut ours) = (&input[..], Vec::new());
            while !rest.is_empty() {
                let end = splitter.scan(rest).unwrap_or(rest.len());
                let row = rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]);
                // csv-core passes over empty rows, of which Cells sees no field.
                ours.extend(cells.all(row));
                rest = &rest[end..];
            }

            let mut reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
            let (mut rest, mut theirs, mut filled) = (&input[..], Vec::new(), 0);
            let mut text = [0; 64];
            loop {
                let (result, taken, written) = reader.read_field(rest, &mut text[filled..]);
                rest = &rest[taken..];
                filled += written;
                match result {
                    ReadFieldResult::Field { .. } => {
                        theirs.push(text[..filled].to_vec());
                        filled = 0;
                    }
                    ReadFieldResult::InputEmpty => {}
                    ReadFieldResult::End | ReadFieldResult::OutputFull => break,
                }
            }
            // A quote that is never closed takes the last LF with it, which is no field's text for us.
            if splitter.finish().is_none() {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
