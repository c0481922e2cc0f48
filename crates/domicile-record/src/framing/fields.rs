//! Named fields of records: the event time, the tenant, the record type.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use domicile::{Code, Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::csv::{Cell, Cells};
use super::{Delimiter, Framing, blocks, lines};

/// Picks the values of some fields out of one record after another.
///
/// | framing | a name is |
/// |---|---|
/// | CSV with header | a name of the header, exactly; else, if it is all digits, a column's number, from 1, beside a name |
/// | CSV without | a column's number, from 1 |
/// | JSON | a member of the record's object; else, split at its dots, a path to a member of a member |
/// | blocks | what a line `Name: value` has before its first colon, exactly |
///
/// The value of a line is what follows the colon, without blanks around it, as it stands: whether it is
/// percent-encoded only the system knows that wrote it.
///
/// ```
/// use domicile_record::framing::{Fields, Framing};
///
/// let mut fields = Fields::new(Framing::JsonValues, b"", &["tenant", "billing.seconds"])?;
/// fields.read(br#"{"tenant": "acme", "billing": {"seconds": 12.50}}"#)?;
/// assert_eq!(fields.get(0), Some("acme"));
/// assert_eq!(fields.get(1), Some("12.50"));
/// # Ok::<(), domicile::Error>(())
/// ```
pub struct Fields {
    framing: Framing,
    source: Source,
    values: Values,
}

impl fmt::Debug for Fields {
    /// Shows no value: values are plaintext, which no log may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("framing", &self.framing).finish_non_exhaustive()
    }
}

enum Source {
    Nothing,
    Csv { cells: Box<Cells>, columns: Vec<Column> },
    Json { members: Vec<Member> },
    Block { lines: Vec<Line> },
}

impl Fields {
    /// Finds `names` in what `framing` and `preamble` say of the records.
    ///
    /// # Errors
    /// [`InputField`](Code::InputField) if records framed so have no named fields, and if a CSV has no
    /// column of that name or number, or several.
    pub fn new(framing: Framing, preamble: &[u8], names: &[&str]) -> Result<Self> {
        let source = match framing {
            _ if names.is_empty() => Source::Nothing,
            Framing::Csv { delimiter, header } => {
                let header = header.then(|| Header::new(delimiter, preamble));
                let mut columns = Vec::new();
                for (index, name) in names.iter().enumerate() {
                    columns.push(Column { column: column(header.as_ref(), name)?, index });
                }
                columns.sort_unstable_by_key(|wanted| wanted.column);
                Source::Csv { cells: Box::new(Cells::new(delimiter)), columns }
            }
            Framing::JsonValues | Framing::JsonArray => {
                let mut members = Vec::new();
                for (index, name) in names.iter().enumerate() {
                    Member::add(&mut members, &[name], index, Rank::Member);
                    if name.contains('.') {
                        let path: Vec<&str> = name.split('.').collect();
                        Member::add(&mut members, &path, index, Rank::Path);
                    }
                }
                Source::Json { members }
            }
            Framing::Blocks => Source::Block { lines: names.iter().map(|name| Line::named(name)).collect() },
            _ => {
                let what = format!("records framed as {framing} have no named fields");
                return Err(Error::new(Code::InputField, what)
                    .rule("csv, json and blocks have named fields")
                    .advise("name fields only where records are framed so, or choose that framing"));
            }
        };
        Ok(Self { framing, source, values: Values::new(names) })
    }

    /// Reads a record as the [`Framer`](super::Framer) hands it out; its values replace those before.
    ///
    /// The time it takes is linear in the record's length, and in steady state nothing is allocated
    /// but for JSON strings with escapes.
    ///
    /// # Errors
    /// [`InputFraming`](Code::InputFraming) if the record cannot be read: a CSV row with a quote that is
    /// not closed, what is not JSON, an object that has a wanted member twice, and a block that has two
    /// values for a wanted name (whoever reads it next may take the other). All values are absent then. No
    /// error holds anything of the record.
    pub fn read(&mut self, record: &[u8]) -> Result<()> {
        self.values.clear();
        let content = self.framing.content(record);
        let outcome = match &mut self.source {
            Source::Nothing => Ok(()),
            Source::Csv { cells, columns } => read_row(content, cells, columns, &mut self.values),
            Source::Json { members } => read_json(content, members, &mut self.values),
            Source::Block { lines } => read_block(content, lines, &mut self.values),
        };
        if outcome.is_err() {
            self.values.clear();
        }
        outcome
    }

    /// The value of the `index`-th name in the record read last.
    ///
    /// `None` if the record does not have it, if it is `null`, an array or an object, and if it is not
    /// UTF-8. A JSON number is given as it was written.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        let value = self.values.list.get(index)?;
        value.rank.map(|_| value.text.as_str())
    }
}

/// What the record read last has for the wanted names.
struct Values {
    list: Vec<Value>,
    /// Whether octets that are not UTF-8 were replaced before the record was read.
    is_lossy: bool,
    /// A member that came a second time.
    twice: Option<String>,
}

struct Value {
    text: String,
    /// How it was found, if it was.
    rank: Option<Rank>,
}

/// How a name leads to a value. A member of exactly that name comes before a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Path,
    Member,
}

impl Values {
    fn new(names: &[&str]) -> Self {
        let list = names.iter().map(|_| Value { text: String::new(), rank: None }).collect();
        Self { list, is_lossy: false, twice: None }
    }

    fn clear(&mut self) {
        self.is_lossy = false;
        self.twice = None;
        for value in &mut self.list {
            value.rank = None;
        }
    }

    fn set(&mut self, index: usize, rank: Rank, text: &str) {
        if self.is_lossy && text.contains(char::REPLACEMENT_CHARACTER) {
            return;
        }
        if let Some(value) = self.list.get_mut(index)
            && value.rank <= Some(rank)
        {
            value.text.clear();
            value.text.push_str(text);
            value.rank = Some(rank);
        }
    }
}

/// A wanted column of a CSV, from 0, and the place of its name among the wanted ones.
struct Column {
    column: usize,
    index: usize,
}

struct Header {
    names: Vec<Vec<u8>>,
}

impl Header {
    fn new(delimiter: Delimiter, preamble: &[u8]) -> Self {
        // Cells pass over a byte order mark.
        Self { names: Cells::new(delimiter).all(lines::without_end(preamble)) }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (column, name) in self.names.iter().take(NAMES_SHOWN_MAX).enumerate() {
            let comma = if column > 0 { ", " } else { "" };
            write!(f, "{comma}{}", String::from_utf8_lossy(name))?;
        }
        match self.names.len().checked_sub(NAMES_SHOWN_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// The column that `name` stands for.
fn column(header: Option<&Header>, name: &str) -> Result<usize> {
    let error = |what: String| Error::new(Code::InputField, what);
    let is_number = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_digit());
    let number = || name.parse::<usize>().ok().filter(|_| is_number).and_then(|number| number.checked_sub(1));
    let Some(header) = header else {
        return number().ok_or_else(|| {
            error(format!("no column {name}: this CSV has no header"))
                .advise("name a column by its number, from 1")
        });
    };
    let mut named = header.names.iter().enumerate().filter(|(_, other)| *other == name.as_bytes());
    match (named.next(), named.next()) {
        (Some((column, _)), None) => Ok(column),
        (Some(_), Some(_)) => Err(error(format!("the header names {name} more than once"))
            .advise("name the column by its number, from 1")),
        (None, _) => number().filter(|column| *column < header.names.len()).ok_or_else(|| {
            error(format!("the header names no column {name}"))
                .advise(format!("choose one of these, or a number from 1: {header}"))
        }),
    }
}

fn read_row(content: &[u8], cells: &mut Cells, columns: &[Column], values: &mut Values) -> Result<()> {
    let mut wanted = columns.iter().peekable();
    let mut is_closed = true;
    cells.read(content, |cell: Cell<'_>| {
        is_closed = cell.is_closed;
        while let Some(found) = wanted.next_if(|wanted| wanted.column == cell.column) {
            if let Ok(text) = std::str::from_utf8(cell.text) {
                values.set(found.index, Rank::Member, text);
            }
        }
        if wanted.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if is_closed {
        Ok(())
    } else {
        Err(Error::new(Code::InputFraming, "a quoted field of a CSV row is not closed"))
    }
}

/// A wanted line of a block, and its value in the record at hand.
struct Line {
    name: String,
    value: Vec<u8>,
    is_seen: bool,
}

impl Line {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), value: Vec::new(), is_seen: false }
    }

    /// Takes `value`; says whether another one was there.
    fn take(&mut self, value: &[u8]) -> bool {
        if self.is_seen {
            return self.value != value;
        }
        self.value.clear();
        self.value.extend_from_slice(value);
        self.is_seen = true;
        false
    }
}

/// Reads lines `Name: value`. Others have no names, and are passed over.
fn read_block(content: &[u8], wanted: &mut [Line], values: &mut Values) -> Result<()> {
    wanted.iter_mut().for_each(|line| line.is_seen = false);
    for (name, value) in content.split(|octet| *octet == b'\n').filter_map(blocks::name_and_value) {
        for (index, line) in wanted.iter_mut().enumerate() {
            if line.name.as_bytes() != name {
                continue;
            }
            // Real systems write some names twice, with the same value.
            if line.take(value) {
                let what = format!("a record has two values for {}", line.name);
                return Err(Error::new(Code::InputFraming, what));
            }
            if let Ok(text) = std::str::from_utf8(value) {
                values.set(index, Rank::Member, text);
            }
        }
    }
    Ok(())
}

/// A wanted member, or one that leads there.
struct Member {
    name: String,
    /// The names that its value answers.
    answers: Vec<(usize, Rank)>,
    /// What is wanted inside.
    members: Vec<Member>,
    is_seen: bool,
}

impl Member {
    /// Adds the member that `path` leads to, and those on the way.
    fn add(members: &mut Vec<Member>, path: &[&str], index: usize, rank: Rank) {
        let Some((name, inside)) = path.split_first() else { return };
        let known = members.iter().position(|member| member.name == *name);
        let at = known.unwrap_or(members.len());
        if known.is_none() {
            let name = (*name).to_owned();
            members.push(Member { name, answers: Vec::new(), members: Vec::new(), is_seen: false });
        }
        if let Some(member) = members.get_mut(at) {
            if inside.is_empty() {
                member.answers.push((index, rank));
            }
            Self::add(&mut member.members, inside, index, rank);
        }
    }

    fn forget(members: &mut [Member]) {
        for member in members {
            member.is_seen = false;
            Self::forget(&mut member.members);
        }
    }

    /// Takes `json`, a well-formed value, for this member's.
    fn take(&mut self, json: &str, values: &mut Values) -> serde_json::Result<()> {
        let text = match json.as_bytes() {
            [b'"', .., b'"'] => match json.get(1..json.len() - 1) {
                Some(text) if !text.contains('\\') => Cow::Borrowed(text),
                // Escapes may stand for half a character: then it is no text.
                _ => match serde_json::from_str(json) {
                    Ok(text) => Cow::Owned(text),
                    Err(_) => return Ok(()),
                },
            },
            [b'{', ..] if !self.members.is_empty() => {
                return Object { members: &mut self.members, values }
                    .deserialize(&mut serde_json::Deserializer::from_str(json));
            }
            [b'{' | b'[' | b'n', ..] => return Ok(()),
            _ => Cow::Borrowed(json),
        };
        for (index, rank) in &self.answers {
            values.set(*index, *rank, &text);
        }
        Ok(())
    }
}

fn read_json(content: &[u8], members: &mut [Member], values: &mut Values) -> Result<()> {
    Member::forget(members);
    let text = String::from_utf8_lossy(content);
    values.is_lossy = matches!(text, Cow::Owned(_));
    let mut json = serde_json::Deserializer::from_str(&text);
    let read = if text.starts_with('{') {
        Object { members, values: &mut *values }.deserialize(&mut json)
    } else {
        // No object has no members, but it must be JSON all the same.
        serde::Deserialize::deserialize(&mut json).map(|IgnoredAny| ())
    };
    let Err(error) = read.and_then(|()| json.end()) else { return Ok(()) };
    // The error itself might quote the record.
    Err(match values.twice.take() {
        Some(name) => Error::new(Code::InputFraming, format!("a record has the member {name} twice")),
        None => Error::new(Code::InputFraming, "a record is not JSON").at(format!(
            "line {}, column {} of the record",
            error.line(),
            error.column()
        )),
    })
}

/// Reads an object and keeps what is wanted of it.
struct Object<'m> {
    members: &'m mut [Member],
    values: &'m mut Values,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Key(&mut *self.members))? {
            let Some(member) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(&mut member.is_seen, true) {
                self.values.twice = Some(member.name.clone());
                return Err(A::Error::custom("twice"));
            }
            let json: &RawValue = map.next_value()?;
            member.take(json.get(), self.values).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Reads a member's name, and says whether it is wanted.
struct Key<'m>(&'m mut [Member]);

impl<'de, 'm> DeserializeSeed<'de> for Key<'m> {
    type Value = Option<&'m mut Member>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'m> Visitor<'_> for Key<'m> {
    type Value = Option<&'m mut Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter_mut().find(|member| member.name == name))
    }
}

/// Names of a header that an error shows.
const NAMES_SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: Framing = Framing::Csv { delimiter: Delimiter::Comma, header: true };
    const BARE_CSV: Framing = Framing::Csv { delimiter: Delimiter::Comma, header: false };

    fn read<'f>(fields: &'f mut Fields, record: &str) -> Vec<Option<&'f str>> {
        fields.read(record.as_bytes()).unwrap();
        (0..fields.values.list.len()).map(|index| fields.get(index)).collect()
    }

    fn refusal(framing: Framing, preamble: &str, name: &str) -> Error {
        Fields::new(framing, preamble.as_bytes(), &[name]).unwrap_err()
    }

    #[test]
    fn columns_are_found_by_the_names_of_the_header() {
        let mut fields =
            Fields::new(CSV, b"\xef\xbb\xbfid,\"start time\",a \"\"b\r\n", &["start time", "id"]).unwrap();
        assert_eq!(
            read(&mut fields, "7,\"2026-01-05, \"\"early\"\"\",x\r\n"),
            [Some("2026-01-05, \"early\""), Some("7")]
        );
        assert_eq!(read(&mut fields, "8\n"), [None, Some("8")]);
        assert_eq!(read(&mut fields, "8,"), [Some(""), Some("8")]);
        assert_eq!(read(&mut fields, "\n"), [None, None]);
    }

    #[test]
    fn columns_are_found_by_their_numbers() {
        let mut fields = Fields::new(BARE_CSV, b"", &["3", "1", "03"]).unwrap();
        assert_eq!(read(&mut fields, "a,b,c,d\n"), [Some("c"), Some("a"), Some("c")]);
        // A header may use numbers as names, and those come first.
        let mut fields = Fields::new(CSV, b"id,1\n", &["1", "2"]).unwrap();
        assert_eq!(read(&mut fields, "a,b\n"), [Some("b"), Some("b")]);
    }

    #[test]
    fn a_column_that_is_not_there_is_refused_with_those_that_are() {
        let error = refusal(CSV, "id,start\n", "begin");
        assert_eq!(error.code(), Code::InputField);
        assert_eq!(error.what(), "the header names no column begin");
        assert_eq!(error.advice(), Some("choose one of these, or a number from 1: id, start"));

        let header: Vec<String> = (0..25).map(|column| format!("c{column}")).collect();
        let advice = refusal(CSV, &header.join(","), "x").advice().unwrap().to_owned();
        assert!(advice.ends_with("c18, c19 and 5 more"), "{advice}");

        assert_eq!(refusal(CSV, "id,id\n", "id").what(), "the header names id more than once");
        for (framing, name) in
            [(CSV, "3"), (CSV, "0"), (CSV, ""), (BARE_CSV, "0"), (BARE_CSV, "id"), (BARE_CSV, "+1")]
        {
            assert_eq!(refusal(framing, "id,start\n", name).code(), Code::InputField, "{name}");
        }
        assert_eq!(refusal(BARE_CSV, "", &"9".repeat(40)).code(), Code::InputField);
    }

    #[test]
    fn records_without_fields_have_none() {
        for framing in [Framing::Whole, Framing::Lines, Framing::LengthPrefixed] {
            assert_eq!(refusal(framing, "", "id").code(), Code::InputField);
            assert!(Fields::new(framing, b"", &[]).unwrap().read(b"anything").is_ok());
        }
    }

    #[test]
    fn members_are_found_by_name_and_by_path() {
        let mut fields = Fields::new(Framing::JsonValues, b"", &["a", "a.b", "c.d.e", "x"]).unwrap();
        assert_eq!(
            read(&mut fields, r#" {"y":[{"a":0}],"a":{"b":true,"a":1},"c":{"d":{"e":"\u00e9\n"}}}, "#),
            [None, Some("true"), Some("é\n"), None]
        );
        // A member of exactly that name comes first, wherever it stands.
        assert_eq!(read(&mut fields, r#"{"a.b":1,"a":{"b":2},"x":null}"#), [None, Some("1"), None, None]);
        assert_eq!(read(&mut fields, r#"{"a":{"b":2},"a.b":1,"x":[]}"#), [None, Some("1"), None, None]);
        assert_eq!(read(&mut fields, r#"{"\u0061":"plain"}"#), [Some("plain"), None, None, None]);
        assert_eq!(read(&mut fields, "[1]"), [None; 4]);
        assert_eq!(read(&mut fields, "17\n"), [None; 4]);
    }

    #[test]
    fn numbers_are_given_as_they_were_written() {
        let mut fields = Fields::new(Framing::JsonArray, b"[", &["n"]).unwrap();
        for number in ["0.10", "1497952162.000", "1e3", "-0", "123456789012345678901234567890"] {
            assert_eq!(read(&mut fields, &format!("{{\"n\": {number} }},\n ")), [Some(number)]);
        }
    }

    #[test]
    fn what_is_not_utf_8_is_absent() {
        let mut fields = Fields::new(Framing::JsonValues, b"", &["a", "b"]).unwrap();
        fields.read(b"{\"a\":\"caf\xe9\",\"b\":\"x\",\"\xe9\":1}\n").unwrap();
        assert_eq!((fields.get(0), fields.get(1)), (None, Some("x")));
        fields.read(b"{\"a\":\"\\ud800\",\"b\":\"\\ufffd\"}\n").unwrap();
        assert_eq!((fields.get(0), fields.get(1)), (None, Some("\u{fffd}")));

        let mut fields = Fields::new(BARE_CSV, b"", &["1", "2"]).unwrap();
        fields.read(b"caf\xe9,x\n").unwrap();
        assert_eq!((fields.get(0), fields.get(1)), (None, Some("x")));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_refused_without_a_word_of_it() {
        for (framing, name, record) in [
            (Framing::JsonValues, "tenant", "{\"tenant\":\"secret\""),
            (Framing::JsonValues, "tenant", "{\"tenant\":\"secret\"} secret"),
            (Framing::JsonValues, "tenant", "{\"tenant\":secret}"),
            (Framing::JsonValues, "tenant", "{\"tenant\":\"secret\",\"tenant\":\"other\"}"),
            (Framing::JsonValues, "tenant", "{\"tenant\":null,\"secret\":1,\"tenant\":\"other\"}"),
            (Framing::JsonValues, "tenant", "secret"),
            (Framing::JsonValues, "tenant", ""),
            (BARE_CSV, "3", "a,\"secret\n"),
            (BARE_CSV, "3", "a,b,\"secret\"\"\n"),
        ] {
            let mut fields = Fields::new(framing, b"", &[name]).unwrap();
            let error = fields.read(record.as_bytes()).unwrap_err();
            assert_eq!(error.code(), Code::InputFraming, "{record}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            assert_eq!(fields.get(0), None, "{record}");
        }
        // What comes before the open quote can be read.
        let mut first = Fields::new(BARE_CSV, b"", &["1"]).unwrap();
        assert_eq!(read(&mut first, "a,\"secret\n"), [Some("a")]);
    }

    #[test]
    fn a_line_of_a_block_is_found_by_its_name() {
        let mut fields = Fields::new(Framing::Blocks, b"", &["Event-Date", "id", "Gone"]).unwrap();
        let record =
            "\nEvent-Name: HANGUP\r\nEvent-Date: 2015-07-07%2016%3A53\r\nid:\t7 \r\nID: 8\r\nbody\r\n\r\n";
        assert_eq!(read(&mut fields, record), [Some("2015-07-07%2016%3A53"), Some("7"), None]);
        assert_eq!(read(&mut fields, "id: a:b\n id: c\n"), [None, Some("a:b"), None]);
        assert_eq!(read(&mut fields, ""), [None, None, None]);
        // Twice the same is no contradiction.
        assert_eq!(read(&mut fields, "id: 7\nid:7\n"), [None, Some("7"), None]);
        let error = fields.read(b"id: secret\nGone: 1\nid: other\n").unwrap_err();
        assert_eq!((error.code(), error.what()), (Code::InputFraming, "a record has two values for id"));
        assert_eq!((fields.get(1), fields.get(2)), (None, None));
        fields.read(b"id: \xff\nGone: \xc3\xa9\n").unwrap();
        assert_eq!((fields.get(1), fields.get(2)), (None, Some("é")));
        assert_eq!(fields.read(b"id: \xff\nid: 7\n").unwrap_err().code(), Code::InputFraming);

        // Two wants of one name.
        let mut fields = Fields::new(Framing::Blocks, b"", &["id", "id"]).unwrap();
        assert_eq!(read(&mut fields, "id: 7\n\n"), [Some("7"), Some("7")]);
    }

    #[test]
    fn only_some_framings_have_fields() {
        for framing in [
            Framing::Whole,
            Framing::Lines,
            Framing::LengthPrefixed,
            Framing::LengthPrefixedInclusive,
            Framing::Ber,
            Framing::Ts32297,
        ] {
            let error = Fields::new(framing, b"", &["a"]).unwrap_err();
            let what = format!("records framed as {framing} have no named fields");
            assert_eq!((error.code(), error.what()), (Code::InputField, what.as_str()));
            assert_eq!(error.broken_rule(), Some("csv, json and blocks have named fields"));
            assert!(Fields::new(framing, b"", &[]).is_ok());
        }
    }

    #[test]
    fn deep_nesting_needs_no_deep_stack() {
        let mut fields = Fields::new(Framing::JsonValues, b"", &["a"]).unwrap();
        let record = format!("{{\"x\":{}{},\"a\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&mut fields, &record), [Some("1")]);
        let record = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&mut fields, &record), [None]);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(
            record in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\a1\n"[..])], 0..64),
        ) {
            for (framing, names) in [
                (Framing::JsonValues, ["a", "a.a"]),
                (BARE_CSV, ["1", "2"]),
                (Framing::Blocks, ["a", "1"]),
            ] {
                let _ = Fields::new(framing, b"", &names).unwrap().read(&record);
            }
        }

        #[test]
        fn any_row_is_read_back(cells in prop::collection::vec("[ -~é\n\r\"]{0,8}", 1..6)) {
            let quoted: Vec<String> =
                cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            let names: Vec<String> = (1..=cells.len()).map(|number| number.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut fields = Fields::new(BARE_CSV, b"", &names).unwrap();
            let record = quoted.join(",") + "\r\n";
            prop_assert_eq!(read(&mut fields, &record), cells.iter().map(|cell| Some(cell.as_str())).collect::<Vec<_>>());
        }

        #[test]
        fn any_member_is_read_back(name in "\\PC{0,8}", value in "\\PC{0,8}", other in any::<i64>()) {
            prop_assume!(name != "other");
            let record = serde_json::json!({ name.as_str(): value, "other": other }).to_string();
            let mut fields = Fields::new(Framing::JsonValues, b"", &["other", &name]).unwrap();
            let other = other.to_string();
            prop_assert_eq!(read(&mut fields, &record), [Some(other.as_str()), Some(value.as_str())]);
        }
    }
}
