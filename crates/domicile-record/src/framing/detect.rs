//! How an input is framed, by its first octets.
//!
//! A wrong answer loses nothing, but it names records that are none. So `auto` takes an input for CSV, JSON
//! or BER only if all that it sees agrees; what is told to be one of them is taken at its word.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use serde::de::IgnoredAny;

use super::csv::{Cells, Csv};
use super::framer::PREAMBLE_BYTES_MAX;
use super::ts32297::{self, Beginning};
use super::{Choice, Delimiter, Framing, ber, blocks, json, lines};

/// The beginning of an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'w> {
    octets: &'w [u8],
    rest: Rest,
    /// Columns that the caller will ask for: where the first row names them, it is a header.
    columns: &'w [&'w str],
}

/// What is known of the input behind a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There is none.
    Nothing,
    /// There is more than a window holds.
    Something,
    /// It was not read yet.
    Unread,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Detection {
    pub(super) framing: Framing,
    /// Octets of the preamble.
    pub(super) preamble: usize,
    pub(super) oddity: Option<&'static str>,
}

impl<'w> Window<'w> {
    /// A window onto an input of which `read` was read.
    pub(super) fn new(read: &'w [u8], is_input_ended: bool, columns: &'w [&'w str]) -> Self {
        let (octets, rest) = match read.split_at_checked(PREAMBLE_BYTES_MAX) {
            Some((octets, [_, ..])) => (octets, Rest::Something),
            _ if is_input_ended => (read, Rest::Nothing),
            _ => (read, Rest::Unread),
        };
        Self { octets, rest, columns }
    }

    fn skip(self, length: usize) -> Self {
        Self { octets: self.octets.get(length..).unwrap_or_default(), ..self }
    }

    fn is_all(self) -> bool {
        self.rest == Rest::Nothing
    }
}

impl Detection {
    fn new(framing: Framing, preamble: usize) -> Self {
        Self { framing, preamble, oddity: None }
    }
}

/// How the input is framed; `None` if that depends on octets not read yet.
///
/// An answer does not change when more is read, and there is one as soon as the window is full or the
/// input has ended.
pub(super) fn detect(choice: Choice, window: Window<'_>) -> Option<Detection> {
    match choice {
        Choice::Whole => return Some(Detection::new(Framing::Whole, 0)),
        Choice::LengthPrefixed => return Some(Detection::new(Framing::LengthPrefixed, 0)),
        Choice::LengthPrefixedInclusive => return Some(Detection::new(Framing::LengthPrefixedInclusive, 0)),
        Choice::Ber => return Some(Detection::new(Framing::Ber, 0)),
        Choice::Ts32297 => return ts32297(window),
        Choice::Auto | Choice::Csv if window.rest == Rest::Unread => return None,
        _ => {}
    }
    let mark = match byte_order_mark(window)? {
        Mark::None => 0,
        Mark::Utf8 => UTF_8_MARK.len(),
        Mark::Utf16 => {
            let oddity = (choice != Choice::Auto).then_some(UTF_16);
            return Some(Detection { oddity, ..Detection::new(Framing::Whole, 0) });
        }
    };
    let body = window.skip(mark);
    let found = match choice {
        Choice::Lines => Detection::new(Framing::Lines, 0),
        Choice::Blocks => Detection::new(Framing::Blocks, 0),
        Choice::Csv => csv(body),
        Choice::Json => json(body)?,
        _ => auto(window, body)?,
    };
    // What is kept whole is kept with its mark: it is opaque.
    let preamble = if found.framing == Framing::Whole { 0 } else { mark + found.preamble };
    Some(Detection { preamble, ..found })
}

enum Mark {
    None,
    Utf8,
    Utf16,
}

fn byte_order_mark(window: Window<'_>) -> Option<Mark> {
    match window.octets {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(Mark::Utf16),
        [0xef, 0xbb, 0xbf, ..] => Some(Mark::Utf8),
        [] | [0xff] | [0xfe] | [0xef] | [0xef, 0xbb] if window.rest == Rest::Unread => None,
        _ => Some(Mark::None),
    }
}

/// From the surest sign to the weakest.
fn auto(window: Window<'_>, body: Window<'_>) -> Option<Detection> {
    let whole = Some(Detection::new(Framing::Whole, 0));
    if COMPRESSED_OR_MEDIA.iter().any(|magic| window.octets.starts_with(magic)) {
        return whole;
    }
    if ts32297::is_beyond_doubt(window.octets) {
        return ts32297(window);
    }
    if is_chain_of_lengths(window) {
        return Some(Detection::new(Framing::LengthPrefixed, 0));
    }
    if !is_text(body) {
        let is_ber = ber::is_beyond_doubt(window.octets, window.is_all());
        return if is_ber { Some(Detection::new(Framing::Ber, 0)) } else { whole };
    }
    if is_markup(body.octets) {
        return whole;
    }
    if is_json(body) {
        return json(body);
    }
    if blocks::are_beyond_doubt(body.octets, body.is_all()) {
        return Some(Detection::new(Framing::Blocks, 0));
    }
    Some(csv_beyond_doubt(body).unwrap_or(Detection::new(Framing::Lines, 0)))
}

/// A file of TS 32.297, its header as the preamble; kept whole if it has none. Nothing is nothing of either.
fn ts32297(window: Window<'_>) -> Option<Detection> {
    match ts32297::beginning(window.octets, !window.is_all()) {
        Beginning::Header(length) => Some(Detection::new(Framing::Ts32297, length)),
        Beginning::Unread => None,
        Beginning::None(_) if window.octets.is_empty() => Some(Detection::new(Framing::Ts32297, 0)),
        Beginning::None(what) => Some(Detection { oddity: Some(what), ..Detection::new(Framing::Whole, 0) }),
    }
}

/// Whether lengths lead from record to record through the window, and exactly to the input's end if
/// that can be seen.
///
/// Two records are too many for chance: a length of at most 16 MiB begins with 00 or 01, and all of them
/// have to. Formats whose lengths count themselves or precede the whole file miss the next length, as they
/// should: the boxes of MP4 are such, and are no records.
fn is_chain_of_lengths(window: Window<'_>) -> bool {
    let (mut rest, mut record_count) = (window.octets, 0);
    while let Some((prefix, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*prefix);
        if !(1..=CHAINED_RECORD_BYTES_MAX).contains(&length) {
            return false;
        }
        match usize::try_from(length).ok().and_then(|length| after.get(length..)) {
            Some(after) => rest = after,
            None => return record_count >= 2 && !window.is_all(),
        }
        record_count += 1;
    }
    record_count >= 2 && (rest.is_empty() || !window.is_all())
}

/// Whether this is text of UTF-8, or of a superset of ASCII with one octet a character.
///
/// Logs do hold a control character now and then, as somebody's text message. One in a hundred is
/// suffered in UTF-8, whose form is a strong sign by itself; an octet of zero never is.
fn is_text(body: Window<'_>) -> bool {
    let controls = body.octets.iter().filter(|octet| is_control(**octet)).count();
    let is_utf_8 = match std::str::from_utf8(body.octets) {
        Ok(_) => true,
        // The window may end within a character.
        Err(error) => error.error_len().is_none() && !body.is_all(),
    };
    let controls_max = if is_utf_8 { body.octets.len() / 100 } else { 0 };
    controls <= controls_max && !body.octets.contains(&0)
}

fn is_control(octet: u8) -> bool {
    octet.is_ascii_control() && !matches!(octet, b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Whether this is XML or HTML. A line of syslog begins with `<` as well, and a digit.
fn is_markup(body: &[u8]) -> bool {
    match json::trim(body) {
        [b'<', octet, ..] => octet.is_ascii_alphabetic() || matches!(octet, b'?' | b'!' | b'_'),
        _ => false,
    }
}

/// Whether this is JSON: its first value is well-formed, as far as it can be seen, and what follows
/// begins another one. A line of a log may well begin with `[`.
fn is_json(body: Window<'_>) -> bool {
    let text = json::trim(body.octets);
    match text.first() {
        Some(b'{') => match value_length(text) {
            Some(Ok(length)) => begins_value_or_ends(text, length),
            Some(Err(CutOff)) => true,
            None => false,
        },
        Some(b'[') => {
            let inside = json::trim(text.get(1..).unwrap_or_default());
            let is_first_fine = match (inside.first(), value_length(inside)) {
                (None | Some(b']'), _) | (_, Some(Err(CutOff))) => true,
                (_, Some(Ok(length))) => {
                    let after = json::trim(inside.get(length..).unwrap_or_default());
                    matches!(after.first(), None | Some(b',' | b']'))
                }
                (_, None) => false,
            };
            is_first_fine && json::nested_length(text).is_none_or(|length| begins_value_or_ends(text, length))
        }
        _ => false,
    }
}

/// The window, or the input, ends within a value.
struct CutOff;

/// Length of the well-formed value that `text` begins with, if it does.
fn value_length(text: &[u8]) -> Option<Result<usize, CutOff>> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next()? {
        Ok(IgnoredAny) => Some(Ok(values.byte_offset())),
        Err(error) if error.is_eof() => Some(Err(CutOff)),
        Err(_) => None,
    }
}

fn begins_value_or_ends(text: &[u8], length: usize) -> bool {
    let after = json::trim(text.get(length..).unwrap_or_default());
    matches!(after.first(), None | Some(b'{' | b'[' | b','))
}

/// Whether JSON is one array or many values, and how long the array's preamble is.
fn json(body: Window<'_>) -> Option<Detection> {
    let values = Some(Detection::new(Framing::JsonValues, 0));
    let is_unread = body.rest == Rest::Unread;
    let blanks = |octets: &[u8]| octets.iter().position(|octet| !json::is_blank(*octet));
    let Some(begin) = blanks(body.octets) else {
        return if is_unread { None } else { values };
    };
    let value = body.octets.get(begin..).unwrap_or_default();
    let Some(inside) = value.strip_prefix(b"[") else {
        return values;
    };
    let preamble = match blanks(inside) {
        Some(length) => begin + 1 + length,
        None if is_unread => return None,
        None => body.octets.len(),
    };
    let array = Some(Detection::new(Framing::JsonArray, preamble));

    // An array on a line of its own, with another value after it, is a value among others.
    let length = json::nested_length(value);
    let is_on_one_line = !value.get(..length.unwrap_or(value.len())).unwrap_or_default().contains(&b'\n');
    let Some(length) = length else {
        return if is_unread && is_on_one_line { None } else { array };
    };
    if !is_on_one_line {
        return array;
    }
    match json::trim(value.get(length..).unwrap_or_default()).first() {
        Some(b'[' | b'{' | b'"' | b',' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => values,
        None if is_unread => None,
        _ => array,
    }
}

/// CSV that was told to be: by the delimiter that divides most rows into equally many fields.
fn csv(body: Window<'_>) -> Detection {
    let rank = |table: &Table<'_>| {
        let (columns, row_count) = table.commonest();
        (if columns >= 2 { row_count } else { 0 }, Reverse(table.odd_count()), columns)
    };
    let mut best = Table::new(body, Delimiter::Comma);
    for delimiter in BY_RARITY {
        let table = Table::new(body, delimiter);
        if rank(&table) > rank(&best) {
            best = table;
        }
    }
    best.detection()
}

/// CSV that nobody would take for anything else, if it is.
///
/// All rows have equally many fields, of which at most one in ten is odd. Two columns without a header
/// may be a time with decimals and a message after it.
fn csv_beyond_doubt(body: Window<'_>) -> Option<Detection> {
    let rank = |table: &Table<'_>| (Reverse(table.odd_count()), table.columns());
    let mut best: Option<Table<'_>> = None;
    for delimiter in BY_RARITY {
        let table = Table::new(body, delimiter);
        if table.is_regular() && best.as_ref().is_none_or(|best| rank(&table) > rank(best)) {
            best = Some(table);
        }
    }
    let table = best?;
    let (has_header, columns) = (table.seems_to_have_header(), table.columns());
    let is_enough = match table.rows.len() {
        // A day without calls.
        1 => body.is_all() && has_header && columns >= 3,
        _ => has_header || columns >= 3,
    };
    is_enough.then(|| table.detection())
}

/// The first rows of a CSV, as one delimiter divides them.
struct Table<'w> {
    delimiter: Delimiter,
    rows: Vec<Row<'w>>,
    /// Columns that the caller will ask for.
    wanted: &'w [&'w str],
}

struct Row<'w> {
    /// With its line end.
    octets: &'w [u8],
    /// Without quotes.
    cells: Vec<Vec<u8>>,
    /// Fields that hold a quote and do not begin with one, and fields that begin with a blank as what
    /// follows the commas of a sentence does: signs that the delimiter is none.
    odd_count: usize,
}

impl<'w> Row<'w> {
    fn new(octets: &'w [u8], reader: &mut Cells) -> Self {
        let (mut cells, mut odd_count) = (Vec::new(), 0);
        reader.read(lines::without_end(octets), |cell| {
            let is_odd = (cell.column > 0 && cell.text.starts_with(b" ")) || cell.text.contains(&b'"');
            odd_count += usize::from(is_odd && !cell.is_quoted);
            cells.push(cell.text.to_vec());
            ControlFlow::Continue(())
        });
        Self { octets, cells, odd_count }
    }
}

impl<'w> Table<'w> {
    fn new(body: Window<'w>, delimiter: Delimiter) -> Self {
        let mut splitter = Csv::new(delimiter);
        let mut cells = Cells::new(delimiter);
        let (mut rest, mut rows) = (body.octets, Vec::new());
        while rows.len() < ROWS_MAX {
            let length = match splitter.scan(rest) {
                Some(length) => length,
                None if body.is_all() && !rest.is_empty() => rest.len(),
                // The row may go on behind the window.
                None => break,
            };
            let Some((octets, after)) = rest.split_at_checked(length) else { break };
            rows.push(Row::new(octets, &mut cells));
            rest = after;
        }
        Self { delimiter, rows, wanted: body.columns }
    }

    /// Fields of the first row.
    fn columns(&self) -> usize {
        self.rows.first().map_or(0, |row| row.cells.len())
    }

    /// The number of fields that most rows have, and how many rows that is; rows without fields aside.
    fn commonest(&self) -> (usize, usize) {
        let mut counts: Vec<usize> = self.rows.iter().map(|row| row.cells.len()).collect();
        counts.retain(|count| *count > 0);
        counts.sort_unstable();
        counts
            .chunk_by(|left, right| left == right)
            .filter_map(|run| Some((*run.first()?, run.len())))
            .max_by_key(|(_, row_count)| *row_count)
            .unwrap_or_default()
    }

    fn odd_count(&self) -> usize {
        self.rows.iter().map(|row| row.odd_count).sum()
    }

    /// Whether all rows have equally many fields, at least two, of which at most one in ten is odd.
    /// Empty lines are suffered at the end alone.
    fn is_regular(&self) -> bool {
        let columns = self.columns();
        let filled = self.rows.iter().take_while(|row| !row.cells.is_empty()).count();
        let (filled, empty) = self.rows.split_at_checked(filled).unwrap_or_default();
        columns >= 2
            && filled.iter().all(|row| row.cells.len() == columns)
            && empty.iter().all(|row| row.cells.is_empty())
            && self.odd_count() * 10 <= filled.len() * columns
    }

    /// Whether the first row has every column that the caller names, and one of them by a word: who asks for
    /// a column by its name says that there are names.
    fn has_wanted(&self) -> bool {
        let Some(first) = self.rows.first() else { return false };
        let mut words = self.wanted.iter().filter(|name| !is_number(name)).peekable();
        words.peek().is_some() && words.all(|name| first.cells.iter().any(|cell| cell == name.as_bytes()))
    }

    /// Whether the caller will ask for columns, and for each by its number.
    fn is_asked_by_number(&self) -> bool {
        !self.wanted.is_empty() && self.wanted.iter().all(|name| is_number(name))
    }

    /// Whether the first row seems to name the columns.
    ///
    /// Its fields are different names, and none of them comes again in its column. In at least one
    /// column all that follows is no name: numbers, times, or nothing at all. The first row of a table
    /// without header would have to be one that holds names and nothing else, where the others do not.
    fn seems_to_have_header(&self) -> bool {
        if self.has_wanted() {
            return true;
        }
        let Some((first, later)) = self.rows.split_first() else { return false };
        let mut names: Vec<Vec<u8>> = first.cells.iter().map(|cell| cell.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < 2 || names.len() != first.cells.len() || !names.iter().all(|name| is_name(name)) {
            return false;
        }
        // A header that comes again is where two files were joined.
        let later: Vec<&Row<'_>> =
            later.iter().filter(|row| !row.cells.is_empty() && row.cells != first.cells).collect();
        if later.is_empty() {
            return true;
        }
        let mut is_any_unnamed = false;
        for (column, name) in first.cells.iter().enumerate() {
            let (mut is_filled, mut is_unnamed) = (false, true);
            for cell in later.iter().filter_map(|row| row.cells.get(column)) {
                if cell == name {
                    return false;
                }
                is_filled |= !cell.is_empty();
                is_unnamed &= !is_name(cell);
            }
            is_any_unnamed |= is_unnamed && (is_filled || later.len() >= 3);
        }
        is_any_unnamed
    }

    /// A first row that only seems to be a header is somebody's record where columns are asked for by number:
    /// as a preamble it would be kept with the records of everybody.
    fn detection(&self) -> Detection {
        let seems = self.seems_to_have_header();
        let header = seems && !self.is_asked_by_number();
        let length = self.rows.first().filter(|_| header).map_or(0, |row| row.octets.len());
        let oddity = (seems && !header).then_some(SEEMS_A_HEADER);
        Detection { oddity, ..Detection::new(Framing::Csv { delimiter: self.delimiter, header }, length) }
    }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|octet| octet.is_ascii_digit())
}

/// Whether this could name a column: `start_time`, `Duration [s]`, `Gebühr`.
fn is_name(cell: &[u8]) -> bool {
    let is_letter = |octet: &u8| octet.is_ascii_alphabetic() || !octet.is_ascii() || *octet == b'_';
    cell.len() <= NAME_BYTES_MAX
        && cell.first().is_some_and(is_letter)
        && cell
            .iter()
            .all(|octet| is_letter(octet) || octet.is_ascii_digit() || b" -./()#:[]%$&+*".contains(octet))
}

const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first row may be a header, and is framed as a record.
pub(super) const SEEMS_A_HEADER: &str =
    "the first row looks like a header; it was taken for a record, since columns are named by their numbers";

const UTF_16: &str = "a text of UTF-16, which this version does not split: it is kept whole";

/// zstd, gzip, RIFF (WAVE): sure signs, should the rest happen to look like text.
const COMPRESSED_OR_MEDIA: [&[u8]; 3] = [b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"RIFF"];

/// Longer ones are not believed to be lengths.
const CHAINED_RECORD_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Rows that are looked at.
const ROWS_MAX: usize = 100;

const NAME_BYTES_MAX: usize = 64;

/// Delimiters, the one that stands least often inside a field first: it wins among equals.
const BY_RARITY: [Delimiter; 4] = [Delimiter::Tab, Delimiter::Pipe, Delimiter::Semicolon, Delimiter::Comma];
