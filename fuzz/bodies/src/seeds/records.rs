//! Inputs with records in them, well-formed and not, and single records whose fields are picked.

use domicile_record::framing::{Choice, Delimiter, Framing};

use super::short;
use crate::fields::FRAMINGS;
use crate::framing::RECORD_BYTES_MAX;

pub(super) fn framing() -> Vec<(&'static str, Vec<u8>)> {
    // One octet a read; seven, with reads that fail; many.
    let (dripping, failing, flowing) = (1, 0x87, 0x7f);
    let of = |choice: Choice, longest: usize, reading: u8, input: &[u8]| {
        let choice = Choice::ALL.iter().position(|other| *other == choice).unwrap();
        let longest = RECORD_BYTES_MAX.iter().position(|other| *other == longest).unwrap();
        let head = [u8::try_from(choice).unwrap(), u8::try_from(longest).unwrap(), reading];
        [&head, input].concat()
    };
    let auto = |reading: u8, input: &[u8]| of(Choice::Auto, 1 << 20, reading, input);
    vec![
        ("lines", auto(dripping, b"one line\nanother line\r\n\nno end")),
        ("lines-behind-a-byte-order-mark", of(Choice::Lines, 1 << 20, failing, b"\xef\xbb\xbfa\nb\n")),
        ("line-in-parts", of(Choice::Lines, 7, dripping, b"short\nmuch longer than seven octets\nshort\n")),
        ("csv-with-a-header", auto(failing, CALLS.as_bytes())),
        ("csv-with-line-ends-in-quotes", auto(flowing, QUOTED.as_bytes())),
        ("csv-of-semicolons", of(Choice::Csv, 1 << 20, failing, CALLS.replace(',', ";").as_bytes())),
        ("csv-with-a-quote-that-is-not-closed", of(Choice::Csv, 1 << 20, dripping, b"a,b\n1,\"2\n3,4\n")),
        ("csv-with-a-lone-cr", of(Choice::Csv, 1 << 20, dripping, b"a,b\rc,d\n1,\"\"\r\n")),
        ("csv-of-quotes-only", of(Choice::Csv, 40, flowing, b"\"\"\"\",\"\"\n\"\"\n\"")),
        ("json-values-on-lines", auto(failing, VALUES.as_bytes())),
        ("json-values-without-lines", of(Choice::Json, 300, dripping, b"{}[]1 \"a\"\"b\"true null -0.5e3")),
        ("json-values-torn-in-a-string", of(Choice::Json, 1 << 20, failing, TORN.as_bytes())),
        ("json-values-with-blanks-behind", of(Choice::Json, 3, dripping, b"{}\n\n \t\r\n   ")),
        ("json-array", auto(dripping, b"[ {\"a\": 1},\n  {\"a\": \"]\"} ]\n")),
        ("json-array-with-a-comma-at-its-end", of(Choice::Json, 1 << 20, failing, b"[1,{\"a\":[2]},]\n")),
        ("json-array-that-is-not-closed", of(Choice::Json, 1 << 20, dripping, b"[1,\n[2,3],\n")),
        ("json-array-and-more-behind-it", of(Choice::Json, 1 << 20, flowing, b"[1,\n2]\n{\"a\":1}\n]")),
        ("json-arrays-on-lines", of(Choice::Json, 1 << 20, failing, b"[1,2]\n[3]\n[]\n")),
        ("json-array-in-parts", of(Choice::Json, 2, dripping, b"  [ \"much longer\" , [[]] ]  \n ")),
        ("length-prefixed", auto(failing, b"\0\0\0\x03abc\0\0\0\x01d\0\0\0\x02ef")),
        ("length-prefixed-cut", of(Choice::LengthPrefixed, 1 << 20, dripping, b"\0\0\0\0\0\0\0\x09abc")),
        ("length-prefixed-cut-in-a-length", of(Choice::LengthPrefixed, 3, dripping, b"\0\0\0\x05abcde\0\0")),
        ("inclusive-lengths", of(Choice::LengthPrefixedInclusive, 1 << 20, failing, SMPP)),
        ("inclusive-lengths-cut", of(Choice::LengthPrefixedInclusive, 7, dripping, &SMPP[..SMPP.len() - 1])),
        (
            "inclusive-length-under-four",
            of(Choice::LengthPrefixedInclusive, 1 << 20, dripping, b"\0\0\0\x05a\0\0\0\x03b"),
        ),
        ("ber", auto(failing, &[BER, BER].concat())),
        ("ber-with-filler", auto(dripping, &[BER, b"\0\0", BER, b"\xff\xff\xff", BER, b"\0\xff"].concat())),
        (
            "ber-of-private-tags-between-filler",
            of(Choice::Ber, 1 << 20, failing, b"\xff\x21\x01a\xff\xff\xff\0\xff\x22\x00\xff\0\0"),
        ),
        (
            "ber-nested-without-lengths",
            of(Choice::Ber, 7, dripping, b"\x30\x80\xbf\x81\x01\x80\x30\x80\x04\x00\0\0\0\0\0\0\x30\x00"),
        ),
        ("ber-of-opened-values", of(Choice::Ber, 40, flowing, &b"\x30\x80".repeat(500))),
        (
            "ber-of-long-lengths",
            of(Choice::Ber, 1 << 20, failing, b"\x30\x89\0\0\0\0\0\0\0\0\x01a\x30\x88\xff\0\0\0\0\0\0\0a"),
        ),
        (
            "ber-of-a-primitive-without-a-length",
            of(Choice::Ber, 1 << 20, dripping, b"\x30\x00\x04\x80a\0\0\x30\x00"),
        ),
        ("ber-without-an-end", of(Choice::Ber, 1 << 20, failing, b"\x30\x80\x04\x01a\0")),
        ("ber-with-half-an-end", of(Choice::Ber, 1 << 20, dripping, b"\x30\x80\x04\x01a\0\x01\x30\x00")),
        ("ber-of-a-tag-without-a-number", of(Choice::Ber, 1 << 20, failing, b"\xbf\x80\x01\x00")),
        ("ts32297", auto(failing, &cdrs(68, 2))),
        ("ts32297-that-was-not-closed", auto(dripping, &[&cdrs(u32::MAX, u32::MAX)[..], &[0; 9]].concat())),
        ("ts32297-in-parts", of(Choice::Ts32297, 3, dripping, &cdrs(68, 2))),
        ("ts32297-that-is-cut", of(Choice::Ts32297, 1 << 20, failing, &cdrs(68, 2)[..65])),
        ("ts32297-cut-in-a-header", of(Choice::Ts32297, 1 << 20, failing, &cdrs(68, 2)[..62])),
        ("ts32297-cut-in-its-header", of(Choice::Ts32297, 1 << 20, dripping, &cdrs(68, 2)[..40])),
        ("ts32297-of-another-count", of(Choice::Ts32297, 1 << 20, failing, &cdrs(68, 3))),
        ("ts32297-of-another-length", of(Choice::Ts32297, 1 << 20, dripping, &cdrs(64, 2))),
        ("ts32297-twice", auto(failing, &cdrs(68, 2).repeat(2))),
        ("ts32297-with-filler", auto(dripping, &[&cdrs(68, 2)[..], b"\0\xff"].concat())),
        ("ts32297-without-records", auto(dripping, &cdrs(53, 0)[..53])),
        ("blocks", auto(failing, EVENTS.as_bytes())),
        ("blocks-with-crlf", auto(dripping, EVENTS.replace('\n', "\r\n").as_bytes())),
        ("blocks-between-empty-lines", of(Choice::Blocks, 7, dripping, b"\n\r\n\ra\nb\r\n\r\n\n\r\n\r")),
        ("block-without-an-end", of(Choice::Blocks, 1 << 20, failing, b"a: 1\n\nb: 2")),
        ("json-values-without-blanks", auto(dripping, b"{\"a\":1}{\"b\":\"}{\"}[{}]")),
        ("whole-that-is-no-text", auto(flowing, b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0")),
        ("utf-16", of(Choice::Csv, 1 << 20, failing, b"\xff\xfea\0,\0b\0\n\0")),
        ("nothing", auto(flowing, b"")),
    ]
}

pub(super) fn fields() -> Vec<(&'static str, Vec<u8>)> {
    let of = |framing: Framing, names: &[&str], preamble: &str, record: &[u8]| {
        let framing = FRAMINGS.iter().position(|other| *other == framing).unwrap();
        let head = [u8::try_from(framing).unwrap(), u8::try_from(names.len()).unwrap()];
        let names: Vec<u8> = names.iter().flat_map(|name| short(name)).collect();
        [&head, &names[..], &short(preamble), record].concat()
    };
    let csv = |header| Framing::Csv { delimiter: Delimiter::Comma, header };
    let json = |names: &[&str], record: &str| of(Framing::JsonValues, names, "", record.as_bytes());
    let time = |text: &str| of(Framing::Whole, &[], "", text.as_bytes());
    vec![
        ("row-by-names", of(csv(true), &["start", "to"], HEADER, b"2026-11-24T08:30:00Z,+12015550102,7\r\n")),
        ("row-by-numbers", of(csv(false), &["3", "1"], "", b"a,\"b, \"\"c\"\"\",d\n")),
        ("row-that-is-short", of(csv(true), &["seconds"], HEADER, b"2026-11-24\n")),
        ("row-with-a-quote-that-is-not-closed", of(csv(false), &["2"], "", b"a,\"b\n")),
        ("row-that-is-no-utf-8", of(csv(false), &["1", "2"], "", b"caf\xe9,x\n")),
        ("header-that-names-one-twice", of(csv(true), &["a"], "a,a\n", b"1,2\n")),
        ("header-behind-a-byte-order-mark", of(csv(true), &["a b"], "\u{feff}\"a b\",c\n", b"1,2\n")),
        ("header-of-numbers", of(csv(true), &["2", "1"], "id,1\n", b"x,y\n")),
        ("member-and-path", json(&["a.b", "a"], r#"{"a":{"b":2},"a.b":null,"c":[]}"#)),
        ("member-of-escapes", json(&["a"], r#"{"\u0061":"caf\u00e9 \ud83d\ude00\n"}"#)),
        ("member-of-half-a-character", json(&["a"], r#"{"a":"\ud800"}"#)),
        ("member-twice", json(&["a"], r#"{"a":1,"b":{},"a":2}"#)),
        ("member-twice-on-a-path", json(&["a.b"], r#"{"a":{"b":1,"b":2}}"#)),
        ("numbers-as-they-were-written", json(&["n", "m"], r#"{"n":0.10,"m":-1E+3}"#)),
        ("element-with-its-comma", of(Framing::JsonArray, &["a"], "[", b"{\"a\":true} , ")),
        ("object-that-is-cut", json(&["a"], r#"{"a":"1""#)),
        ("lines-have-no-fields", of(Framing::Lines, &["a"], "", b"a\n")),
        (
            "line-of-a-block",
            of(
                Framing::Blocks,
                &["Event-Name", "to"],
                "",
                b"Event-Name: HANGUP\r\nto:\t%2B12015550102 \r\n\r\n",
            ),
        ),
        ("line-twice", of(Framing::Blocks, &["a"], "", b"a: 1\nb: 2\na: 1\n")),
        ("line-of-two-values", of(Framing::Blocks, &["a"], "", b"a: 1\na: 2\n")),
        ("line-that-is-no-utf-8", of(Framing::Blocks, &["a", "b"], "", b"a: caf\xe9\nb\n b: 1\nb:: 2\n")),
        ("values-have-no-fields", of(Framing::Ber, &["a"], "", BER)),
        ("cdrs-have-no-fields", of(Framing::Ts32297, &["a"], "", b"\0\x01\xc9\x26a")),
        ("time-with-an-offset", time("2026-11-24T09:30:00.25+01:00")),
        ("time-of-digits", time("20261124083000.5-0100")),
        ("time-in-a-leap-second", time("2016-12-31T23:59:60Z")),
        ("time-in-milliseconds", time("1795509000250")),
        ("time-of-mail", time("Tue, 24 Nov 2026 08:30:00 +0000")),
        ("date", time(" 2026-11-24\n")),
        // Found by fuzzing: it was read as two instants.
        ("time-before-1970-with-nanoseconds", time("1013-11-24T08:30:00,201555026-17")),
    ]
}

/// A file of TS 32.297 with two records, of which its header may say anything.
fn cdrs(file_length: u32, count: u32) -> Vec<u8> {
    let mut file = b"\0\0\0\0\0\0\0\x35\xe9\xc9\xbc\x21\xe8\0\xbc\x21\xe8\0\0\0\0\0\0\0\0\x07\0\xff\xff\xff\xff\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\0\0\0\0\0\x06\0\x03\xc9\x26\xa0\x01a\0\x03\xe9\x26\x06\xa0\x01b"
        .to_vec();
    file[..4].copy_from_slice(&file_length.to_be_bytes());
    file[18..22].copy_from_slice(&count.to_be_bytes());
    file
}

/// A value with values in it, some without a length.
const BER: &[u8] =
    b"\xa0\x19\x80\x01\0\x84\x04\x91\x21\x10\x55\xbf\x23\x80\x30\x80\x06\x01\x2a\x0c\x00\0\0\0\0\x99\x00";

/// enquire_link, submit_sm_resp, enquire_link_resp: lengths that count themselves.
const SMPP: &[u8] = b"\0\0\0\x10\0\0\0\x15\0\0\0\0\0\0\0\x01\0\0\0\x12\x80\0\0\x04\0\0\0\0\0\0\0\x027\0\
    \0\0\0\x10\x80\0\0\x15\0\0\0\0\0\0\0\x01";

const EVENTS: &str = "Event-Name: CHANNEL_ANSWER\nCaller-ANI: %2B12015550102\n\n\
    Event-Name: CHANNEL_HANGUP\nCaller-ANI: %2B12015550103\nHangup-Cause: NORMAL_CLEARING\n\n";

const HEADER: &str = "start,to,seconds\r\n";

const CALLS: &str = "start,from,to,seconds\r\n\
    2026-11-24T08:30:00Z,+12015550102,+12015550103,17\r\n\
    2026-11-24T08:31:00Z,+12015550103,+12015550104,4\r\n";

const QUOTED: &str = "id,text,to\n1,\"two\r\nlines, \"\"quoted\"\"\",+12015550102\n2,\"\",+12015550103\n";

const VALUES: &str = "{\"to\":\"+12015550102\",\"text\":\"}\\\"{\"}\n {\"to\":\n\"+12015550103\"}\n\n";

const TORN: &str = "{\"a\":\"x\n{\"a\":1}\n{\"a\":\"x\\\n{\"a\":2}\n";
