//! Fields of records, and the times that stand in them.

use domicile::{Code, Time};
use domicile_record::framing::{Delimiter, Fields, Framing, event_time};
use serde_json::Value;

use crate::octets::Octets;

/// Picks named fields out of a record, and holds them against an independent reader's.
///
/// The first octet chooses the framing, the second how many names there are; each name has its length first,
/// and so has the preamble. The rest is the record. Every value, and the record itself where it is text, is
/// read as an event time.
pub fn fields(data: &[u8]) {
    let mut input = Octets::new(data);
    let framing = input.pick(&FRAMINGS);
    let count = input.below(5);
    let names: Vec<String> =
        (0..count).map(|_| String::from_utf8_lossy(input.short()).into_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let preamble = input.short();
    let record = input.rest();
    if let Ok(text) = std::str::from_utf8(record) {
        event_time_of(text);
    }

    let columns = match framing {
        Framing::Csv { delimiter, header } => columns(delimiter, header.then_some(preamble), &names),
        _ => None,
    };
    let mut fields = match Fields::new(framing, preamble, &names) {
        Ok(fields) => fields,
        Err(error) => {
            assert_eq!(error.code(), Code::InputField);
            assert!(columns.is_none(), "a column that is there was not found: {error:?}");
            return;
        }
    };
    let read = fields.read(record);
    if let Err(error) = &read {
        assert_eq!(error.code(), Code::InputFraming);
        assert!((0..names.len()).all(|index| fields.get(index).is_none()), "a value of what was refused");
    }
    assert_eq!(fields.get(names.len()), None);
    let values: Vec<Option<String>> =
        (0..names.len()).map(|index| fields.get(index).map(str::to_owned)).collect();
    values.iter().flatten().for_each(|value| event_time_of(value));

    match framing {
        Framing::Csv { delimiter, .. } => {
            if let (Some(columns), Ok(())) = (columns, &read) {
                agree_on_a_row(delimiter, framing.content(record), &columns, &values);
            }
        }
        Framing::JsonValues | Framing::JsonArray => {
            agree_on_json(framing.content(record), &names, &values, read.as_ref().err());
        }
        Framing::Blocks => agree_on_lines(framing.content(record), &names, &values, read.is_err()),
        _ => assert!(names.is_empty(), "fields of records that have none"),
    }
}

pub(crate) const FRAMINGS: [Framing; 15] = [
    Framing::Csv { delimiter: Delimiter::Comma, header: true },
    Framing::Csv { delimiter: Delimiter::Comma, header: false },
    Framing::Csv { delimiter: Delimiter::Semicolon, header: true },
    Framing::Csv { delimiter: Delimiter::Semicolon, header: false },
    Framing::Csv { delimiter: Delimiter::Tab, header: true },
    Framing::Csv { delimiter: Delimiter::Pipe, header: false },
    Framing::JsonValues,
    Framing::JsonArray,
    Framing::Whole,
    Framing::Lines,
    Framing::LengthPrefixed,
    Framing::LengthPrefixedInclusive,
    Framing::Ber,
    Framing::Ts32297,
    Framing::Blocks,
];

/// Which columns the names stand for, where each stands for one.
fn columns(delimiter: Delimiter, header: Option<&[u8]>, names: &[&str]) -> Option<Vec<usize>> {
    let number = |name: &str| {
        let digits = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_digit());
        name.parse::<usize>().ok().filter(|_| digits)?.checked_sub(1)
    };
    let Some(header) = header else { return names.iter().map(|name| number(name)).collect() };
    let header = one_row(delimiter, Framing::Csv { delimiter, header: true }.content(header))?;
    let column = |name: &&str| {
        let mut named = (0..header.len()).filter(|column| header.get(*column) == Some(name.as_bytes()));
        match (named.next(), named.next()) {
            (Some(column), None) => Some(column),
            (Some(_), Some(_)) => None,
            _ => number(name).filter(|column| *column < header.len()),
        }
    };
    names.iter().map(column).collect()
}

fn agree_on_a_row(delimiter: Delimiter, content: &[u8], columns: &[usize], values: &[Option<String>]) {
    let Some(row) = one_row(delimiter, content) else { return };
    for (column, value) in columns.iter().zip(values) {
        let expected = row.get(*column).and_then(|text| std::str::from_utf8(text).ok());
        assert_eq!(value.as_deref(), expected, "column {column}");
    }
}

/// The row that another reader finds, if it finds one and nothing else.
fn one_row(delimiter: Delimiter, octets: &[u8]) -> Option<csv::ByteRecord> {
    let mut rows = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter.octet())
        .terminator(csv::Terminator::Any(b'\n'))
        .from_reader(octets)
        .into_byte_records();
    let row = rows.next()?.unwrap();
    rows.next().is_none().then_some(row)
}

fn agree_on_json(
    content: &[u8],
    names: &[&str],
    values: &[Option<String>],
    refusal: Option<&domicile::Error>,
) {
    let Ok(json) = serde_json::from_slice::<Value>(content) else { return };
    if let Some(refusal) = refusal {
        // The other reader takes the last of two members of one name; ours must not choose.
        assert!(refusal.what().contains("twice"), "well-formed JSON was refused: {refusal}");
        return;
    }
    for (name, value) in names.iter().zip(values) {
        let member = |json: &Value, name: &str| json.as_object()?.get(name).cloned();
        let scalar = |json: &Value| !json.is_null() && !json.is_array() && !json.is_object();
        let path = || name.split('.').try_fold(json.clone(), |json, name| member(&json, name));
        let expected = member(&json, name).filter(scalar).or_else(|| path().filter(scalar));
        match (value, expected) {
            (None, None) => {}
            (Some(text), Some(Value::String(expected))) => assert_eq!(*text, expected, "member {name}"),
            // A number is given as it was written.
            (Some(text), Some(expected)) => {
                assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected, "member {name}");
            }
            (value, expected) => panic!("member {name}: {value:?}, and another reader says {expected:?}"),
        }
    }
}

/// What stands behind a name and its colon, blanks aside, in any line that begins with it.
fn agree_on_lines(content: &[u8], names: &[&str], values: &[Option<String>], is_refused: bool) {
    let mut is_twice = false;
    for (name, value) in names.iter().zip(values) {
        let mut found: Vec<&[u8]> = content
            .split(|octet| *octet == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            // The first colon ends a name.
            .filter(|_| !name.contains(':'))
            .filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))
            .map(|value| {
                let blanks = |octets: &[u8]| octets.iter().take_while(|octet| b" \t".contains(octet)).count();
                let value = &value[blanks(value)..];
                let end = value.iter().rposition(|octet| !b" \t".contains(octet)).map_or(0, |at| at + 1);
                &value[..end]
            })
            .collect();
        found.dedup();
        is_twice |= found.len() > 1;
        if !is_refused {
            let expected = found.first().and_then(|value| std::str::from_utf8(value).ok());
            assert_eq!(value.as_deref(), expected, "line {name}");
        }
    }
    assert_eq!(is_refused, is_twice, "two values for one name");
}

/// What is recognised is shown so that it is recognised again, and is what the reader of the core says.
fn event_time_of(text: &str) {
    let Some(time) = event_time::recognise(text) else { return };
    assert_eq!(event_time::recognise(text.trim_ascii()), Some(time));
    let shown = time.to_string();
    assert_eq!(shown.parse::<Time>().unwrap(), time, "{shown}");
    // Years before 0 and behind 9999 have six digits, which no form of records has.
    if !shown.starts_with(['-', '+']) {
        assert_eq!(event_time::recognise(&shown), Some(time), "{shown}");
    }
    if let Ok(same) = text.trim_ascii().parse::<Time>() {
        assert_eq!(time, same, "two readings of one time");
    }
}
