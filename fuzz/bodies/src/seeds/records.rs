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
        ("time-with-an-offset", time("2026-11-24T09:30:00.25+01:00")),
        ("time-of-digits", time("20261124083000.5-0100")),
        ("time-in-a-leap-second", time("2016-12-31T23:59:60Z")),
        ("time-in-milliseconds", time("1795509000250")),
        ("time-of-mail", time("Tue, 24 Nov 2026 08:30:00 +0000")),
        ("date", time(" 2026-11-24\n")),
    ]
}

const HEADER: &str = "start,to,seconds\r\n";

const CALLS: &str = "start,from,to,seconds\r\n\
    2026-11-24T08:30:00Z,+12015550102,+12015550103,17\r\n\
    2026-11-24T08:31:00Z,+12015550103,+12015550104,4\r\n";

const QUOTED: &str = "id,text,to\n1,\"two\r\nlines, \"\"quoted\"\"\",+12015550102\n2,\"\",+12015550103\n";

const VALUES: &str = "{\"to\":\"+12015550102\",\"text\":\"}\\\"{\"}\n {\"to\":\n\"+12015550103\"}\n\n";

const TORN: &str = "{\"a\":\"x\n{\"a\":1}\n{\"a\":\"x\\\n{\"a\":2}\n";
