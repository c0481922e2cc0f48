//! Records as BER, and the headers of 3GPP TS 32.297 that files of them have.
//!
//! Choices and tags of fields are those of TS 32.298, as far as these records have such fields. What has
//! none stands in the extensions, as one text.

use crate::generator::Draft;
use crate::moment::bcd;
use crate::scope::RecordType;

/// What a record of BER is made of, beside what its draft says.
pub(crate) struct Fields {
    /// The parties, as E.164 has them.
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    pub(crate) duration_ms: u64,
    /// `tenant=t-000001;region=eu-central-1;type=voice;`, and the attributes.
    pub(crate) text: Vec<u8>,
}

/// A record: a value of one of four choices. Every fourth is of indefinite length, and so are its extensions.
pub(crate) fn record(draft: &Draft, fields: &Fields) -> Vec<u8> {
    let (choice, record_type, extensions) = match draft.scope.record_type {
        RecordType::Voice => (0, 0, 35),
        RecordType::Messaging => (6, 6, 11),
        RecordType::Wireless => (79, 85, 19),
        _ => (69, 69, 25),
    };
    let start = time(draft.start_ms);
    let end = time(draft.start_ms + fields.duration_ms);
    let seconds = number(fields.duration_ms / 1000);
    let mut members = vec![primitive(0, &number(record_type))];
    match choice {
        0 => members.extend([
            primitive(4, &address(&fields.from)),
            primitive(5, &address(&fields.to)),
            primitive(23, &start),
            primitive(24, &end),
            primitive(25, &seconds),
        ]),
        6 => members.extend([
            primitive(3, &address(&fields.from)),
            primitive(9, &start),
            primitive(12, &address(&fields.to)),
        ]),
        79 => members.extend([
            primitive(13, &start),
            primitive(14, &seconds),
            primitive(22, &address(&fields.from)),
        ]),
        _ => members.extend([
            constructed(6, &primitive(1, &[b"tel:", &fields.from[..]].concat()), false),
            constructed(7, &primitive(1, &[b"tel:", &fields.to[..]].concat()), false),
            primitive(9, &start),
            primitive(10, &end),
        ]),
    }
    let is_indefinite = draft.session & 3 == 0;
    let text = value(&[UTF8_STRING], &fields.text);
    let extension = [EXAMPLE_OID, &constructed(2, &text, false)].concat();
    members.push(constructed(extensions, &value(&[SEQUENCE], &extension), is_indefinite));
    members.push(primitive(33, &draft.session.to_be_bytes()));
    constructed(choice, &members.concat(), is_indefinite)
}

/// The header of a record in a file of TS 32.297: of four octets, or for half the records of five.
pub(crate) fn record_header(draft: &Draft, record: &[u8]) -> Vec<u8> {
    let specification = match draft.scope.record_type {
        RecordType::Voice | RecordType::Messaging => 6,
        RecordType::Wireless => 7,
        _ => 9,
    };
    let length = u16::try_from(record.len()).unwrap_or_default().to_be_bytes();
    let form = ENCODED_AS_BER << 5 | specification;
    let [high, low] = length;
    if draft.session & 4 == 0 {
        vec![high, low, RELEASE_9, form]
    } else {
        vec![high, low, RELEASE_16, form, EXTENSION]
    }
}

/// The header of a file of TS 32.297 whose length and count were filled in when it was closed.
pub(crate) fn file_header(file_length: u32, records: u32, opened_ms: u64, last_ms: u64) -> Vec<u8> {
    let mut header = OPEN_FILE.to_vec();
    let fields: [(usize, u32); 4] =
        [(0, file_length), (10, minute(opened_ms)), (14, minute(last_ms)), (18, records)];
    for (at, field) in fields {
        if let Some(room) = header.get_mut(at..at + 4) {
            room.copy_from_slice(&field.to_be_bytes());
        }
    }
    header
}

/// The header of a file that was not closed: opened on 5 January at midnight, UTC. Its node is 192.0.2.1.
pub(crate) const OPEN_FILE: &[u8; 53] =
    b"\xFF\xFF\xFF\xFF\0\0\0\x35\xE9\xC9\x12\x80\x08\0\x12\x80\x08\0\xFF\xFF\xFF\xFF\
    \0\0\0\x01\0\xFF\xFF\xFF\xFF\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xC0\0\x02\x01\0\0\0\0\0\x06";

/// Month, day, hour and minute, in UTC.
fn minute(millis: u64) -> u32 {
    let [_, month, day, hour, minute, _] =
        bcd(millis).map(|octet| u32::from(octet >> 4) * 10 + u32::from(octet & 15));
    month << 28 | day << 23 | hour << 18 | minute << 12 | 1 << 11
}

/// A time stamp of TS 32.298: twelve digits, and the offset.
fn time(millis: u64) -> Vec<u8> {
    [&bcd(millis)[..], b"+\0\0"].concat()
}

/// An international number: its type, and its digits in swapped pairs.
fn address(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> =
        number.iter().filter(|octet| octet.is_ascii_digit()).map(|octet| octet - b'0').collect();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [first, second] => second << 4 | first,
        [first] => 0xF0 | first,
        _ => 0xFF,
    });
    std::iter::once(0x91).chain(pairs).collect()
}

/// An integer of as few octets as it takes.
fn number(number: u64) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    // A first bit would be a sign.
    let is_signed = octets.get(zeros).is_none_or(|octet| *octet >= 0x80);
    let digits = octets.get(zeros..).unwrap_or_default();
    if is_signed { [&[0], digits].concat() } else { digits.to_vec() }
}

fn primitive(number: u8, contents: &[u8]) -> Vec<u8> {
    value(&tag(CONTEXT, number), contents)
}

fn constructed(number: u8, contents: &[u8], is_indefinite: bool) -> Vec<u8> {
    let tag = tag(CONTEXT | CONSTRUCTED, number);
    if is_indefinite { [&tag[..], &[0x80], contents, &[0, 0]].concat() } else { value(&tag, contents) }
}

fn tag(class: u8, number: u8) -> Vec<u8> {
    if number < 31 { vec![class | number] } else { vec![class | 31, number & 0x7F] }
}

/// A value of definite length.
fn value(tag: &[u8], contents: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(contents.len()).unwrap_or(u16::MAX).to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, 0..128) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [tag, length, contents].concat()
}

const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;
const SEQUENCE: u8 = 0x30;
const UTF8_STRING: u8 = 0x0C;

/// 2.999.1.1, of the arc for examples.
const EXAMPLE_OID: &[u8] = b"\x06\x04\x88\x37\x01\x01";

const ENCODED_AS_BER: u8 = 1;

/// Release and version of TS 32.298 V9.9.0, and of V16.9.0, which takes another octet.
const RELEASE_9: u8 = 0xC9;
const RELEASE_16: u8 = 0xE9;
const EXTENSION: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_those_of_the_standards() {
        assert_eq!(number(0), [0]);
        assert_eq!(number(127), [127]);
        assert_eq!(number(128), [0, 128]);
        assert_eq!(number(0x1234), [0x12, 0x34]);
        assert_eq!(tag(CONTEXT | CONSTRUCTED, 79), [0xBF, 0x4F]);
        assert_eq!(tag(CONTEXT | CONSTRUCTED, 6), [0xA6]);
        assert_eq!(value(&[SEQUENCE], &[7; 200])[..3], [0x30, 0x81, 200]);
        assert_eq!(value(&[SEQUENCE], &[7; 256])[..4], [0x30, 0x82, 1, 0]);
        assert_eq!(address(b"+12015550102"), [0x91, 0x21, 0x10, 0x55, 0x05, 0x01, 0xF2]);
        // 2026-01-05T08:30:59Z
        assert_eq!(time(1_767_601_859_999), b"\x26\x01\x05\x08\x30\x59+\0\0");
        assert_eq!(minute(1_767_601_859_999), 1 << 28 | 5 << 23 | 8 << 18 | 30 << 12 | 1 << 11);
        assert_eq!(minute(1_767_571_200_000).to_be_bytes(), OPEN_FILE[10..14]);
        assert_eq!(OPEN_FILE[7], 53);
    }
}
