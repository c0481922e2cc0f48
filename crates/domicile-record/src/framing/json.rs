//! JSON: values one after another, or the elements of one array.
//!
//! Nothing is validated: brackets are counted and strings passed over, which tells where a value ends
//! if it is one. What is no value is cut at blanks, commas and brackets, so that it becomes a record of
//! its own and the next value is found again.

use memchr::memchr3;

use super::framer::PREAMBLE_BYTES_MAX;
use super::splitter::Finish;

/// Finds the ends of JSON records in octets that come bit by bit.
#[derive(Debug)]
pub(super) struct Json {
    /// Within an array, until its bracket closed and something followed.
    in_array: bool,
    state: State,
    /// Octets of the current record, while it has no value: the blanks before one, or the closing
    /// bracket with the blanks behind it.
    held: usize,
    oddity: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value: blanks.
    Before,
    /// In a number, a word, or what stands in their place.
    Scalar,
    /// In an array or object, outside strings.
    Nested { depth: u64 },
    /// In a string, within so many brackets; if none is open, the string is the value.
    Text { depth: u64, escaped: bool },
    /// After a value, perhaps after the comma behind it: blanks.
    After { comma: bool },
    /// After the bracket that closes the array: blanks.
    Closed,
}

/// What becomes of the octet that a state looked at.
enum Step {
    /// It belongs to the record, which goes on.
    Take,
    /// The state changed: look again.
    Again,
    /// The record ended before it.
    EndBefore,
    /// The record ends with it.
    EndAfter,
}

impl Json {
    /// At the beginning of values.
    pub(super) fn values() -> Self {
        Self { in_array: false, state: State::Before, held: 0, oddity: None }
    }

    /// Behind the bracket that opens an array, and the blanks that follow it.
    pub(super) fn array() -> Self {
        Self { in_array: true, ..Self::values() }
    }

    /// Where the current record ends in `fresh`, if it does; 0 if the octets before were all of it.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        let mut rest = fresh;
        while let Some((&octet, after)) = rest.split_first() {
            let step = match self.state {
                State::Before => self.before(octet),
                State::Scalar => self.scalar(octet),
                State::Nested { depth } => {
                    let run = self.nested(rest, depth);
                    rest = run.rest;
                    if run.is_torn {
                        return Some(self.end(fresh.len() - rest.len()));
                    }
                    continue;
                }
                State::Text { depth, escaped } => {
                    let run = self.text(rest, depth, escaped);
                    rest = run.rest;
                    if run.is_torn {
                        return Some(self.end(fresh.len() - rest.len()));
                    }
                    continue;
                }
                State::After { comma } => self.after(octet, comma),
                State::Closed => self.closed(octet),
            };
            match step {
                Step::Take => rest = after,
                Step::Again => {}
                Step::EndBefore => return Some(self.end(fresh.len() - rest.len())),
                Step::EndAfter => return Some(self.end(fresh.len() - after.len())),
            }
        }
        None
    }

    /// What was odd about the octets scanned since the last call.
    pub(super) fn take_oddity(&mut self) -> Option<&'static str> {
        self.oddity.take()
    }

    /// Whether the octets since the last record's end are a postamble if the input ends now.
    pub(super) fn may_be_postamble(&self) -> bool {
        match self.state {
            State::Before => !self.in_array && self.held <= PREAMBLE_BYTES_MAX,
            State::Closed => true,
            _ => false,
        }
    }

    /// What it means that the input ends here.
    pub(super) fn finish(&self) -> Finish {
        let oddity = match self.state {
            State::Closed => None,
            _ if self.in_array => Some(NOT_CLOSED),
            State::Nested { .. } | State::Text { .. } => Some(INCOMPLETE),
            State::Before | State::Scalar | State::After { .. } => None,
        };
        Finish { is_postamble: self.may_be_postamble(), oddity }
    }

    fn end(&mut self, at: usize) -> usize {
        self.state = State::Before;
        self.held = 0;
        at
    }

    fn before(&mut self, octet: u8) -> Step {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' => {
                self.held = self.held.saturating_add(1);
                return Step::Take;
            }
            b'{' | b'[' => {
                self.state = State::Nested { depth: 0 };
                return Step::Again;
            }
            b']' if self.in_array && self.held == 0 => {
                self.state = State::Closed;
                return Step::Again;
            }
            // Blanks that the preamble had no room for.
            b']' if self.in_array => return Step::EndBefore,
            b'"' => self.state = State::Text { depth: 0, escaped: false },
            b',' => {
                self.oddity.get_or_insert(NO_VALUE);
                self.state = State::After { comma: true };
            }
            b']' | b'}' | b':' => {
                self.oddity.get_or_insert(NO_VALUE);
                self.state = State::After { comma: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.state = State::Scalar,
            _ => {
                self.oddity.get_or_insert(NO_VALUE);
                self.state = State::Scalar;
            }
        }
        Step::Take
    }

    fn scalar(&mut self, octet: u8) -> Step {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'"' | b'[' | b']' | b'{' | b'}' => {
                self.state = State::After { comma: false };
                Step::Again
            }
            _ => Step::Take,
        }
    }

    fn after(&mut self, octet: u8, comma: bool) -> Step {
        match octet {
            b'\n' if !self.in_array => Step::EndAfter,
            b' ' | b'\t' | b'\r' | b'\n' => Step::Take,
            b',' if !comma => {
                if !self.in_array {
                    self.oddity.get_or_insert(STRAY_COMMA);
                }
                self.state = State::After { comma: true };
                Step::Take
            }
            _ => {
                if self.in_array && !comma && octet != b']' {
                    self.oddity.get_or_insert(NO_COMMA);
                }
                Step::EndBefore
            }
        }
    }

    fn closed(&mut self, octet: u8) -> Step {
        match octet {
            b']' if self.held == 0 => {}
            b' ' | b'\t' | b'\r' | b'\n' if self.held < PREAMBLE_BYTES_MAX => {}
            b' ' | b'\t' | b'\r' | b'\n' => {
                // Too long for a postamble: from here on, a value and the blanks after it.
                self.oddity.get_or_insert(AFTER_ARRAY);
                self.in_array = false;
                self.state = State::After { comma: false };
                return Step::Again;
            }
            _ => {
                self.oddity.get_or_insert(AFTER_ARRAY);
                self.in_array = false;
                return Step::EndBefore;
            }
        }
        self.held += 1;
        Step::Take
    }

    /// Runs through brackets and the strings among them.
    fn nested<'f>(&mut self, fresh: &'f [u8], mut depth: u64) -> Run<'f> {
        let mut rest = fresh;
        loop {
            let found = rest.iter().position(|octet| matches!(octet, b'"' | b'[' | b']' | b'{' | b'}'));
            let Some((&octet, after)) = found.and_then(|at| rest.get(at..)).and_then(<[u8]>::split_first)
            else {
                self.state = State::Nested { depth };
                return Run { rest: &[], is_torn: false };
            };
            rest = after;
            match octet {
                b'"' => match self.skip_text(rest) {
                    Text::Closed(after) => rest = after,
                    Text::Torn(after) => return self.torn(after),
                    Text::Open { escaped } => {
                        self.state = State::Text { depth, escaped };
                        return Run { rest: &[], is_torn: false };
                    }
                },
                b'[' | b'{' => depth += 1,
                _ => {
                    // The first bracket opened, so that depth is at least 1.
                    depth -= 1;
                    if depth == 0 {
                        self.state = State::After { comma: false };
                        return Run { rest, is_torn: false };
                    }
                }
            }
        }
    }

    /// Runs to the end of a string that began in earlier octets.
    fn text<'f>(&mut self, fresh: &'f [u8], depth: u64, escaped: bool) -> Run<'f> {
        let fresh = if escaped { after_escaped(fresh) } else { fresh };
        match self.skip_text(fresh) {
            Text::Closed(rest) => {
                self.state = if depth == 0 { State::After { comma: false } } else { State::Nested { depth } };
                Run { rest, is_torn: false }
            }
            Text::Torn(rest) => self.torn(rest),
            Text::Open { escaped } => {
                self.state = State::Text { depth, escaped };
                Run { rest: &[], is_torn: false }
            }
        }
    }

    /// A string from behind its opening quote.
    ///
    /// JSON has no line end inside a string. Among values it is the mark of a writer that died in the
    /// middle of a line: the line is given up, or every quote after it would be taken for its opposite.
    /// Arrays are written in one go, and a string there goes on.
    fn skip_text<'f>(&self, fresh: &'f [u8]) -> Text<'f> {
        let mut rest = fresh;
        loop {
            let found = memchr3(b'"', b'\\', b'\n', rest);
            let Some((&octet, after)) = found.and_then(|at| rest.get(at..)).and_then(<[u8]>::split_first)
            else {
                return Text::Open { escaped: false };
            };
            rest = after;
            match octet {
                b'"' => return Text::Closed(rest),
                b'\\' if rest.is_empty() => return Text::Open { escaped: true },
                b'\\' => rest = after_escaped(rest),
                _ if self.in_array => {}
                _ => return Text::Torn(rest),
            }
        }
    }

    fn torn<'f>(&mut self, rest: &'f [u8]) -> Run<'f> {
        self.oddity.get_or_insert(TORN);
        Run { rest, is_torn: true }
    }
}

/// What is left after running through a value; if it was torn, it ends there.
struct Run<'f> {
    rest: &'f [u8],
    is_torn: bool,
}

/// How a string ended, and what follows it.
enum Text<'f> {
    Closed(&'f [u8]),
    Torn(&'f [u8]),
    Open { escaped: bool },
}

/// What follows the octet after a backslash. An LF is left: no escape, but the end of a torn line.
fn after_escaped(fresh: &[u8]) -> &[u8] {
    match fresh.split_first() {
        Some((b'\n', _)) | None => fresh,
        Some((_, after)) => after,
    }
}

/// Length of the array or object at the beginning of `octets`, if it ends there.
pub(super) fn nested_length(octets: &[u8]) -> Option<usize> {
    let mut json = Json::array();
    let run = json.nested(octets, 0);
    (json.state == State::After { comma: false }).then_some(octets.len() - run.rest.len())
}

/// Whether `octet` is a blank of JSON.
pub(super) fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// `octets` without the blanks around them.
pub(super) fn trim(octets: &[u8]) -> &[u8] {
    let begin = octets.iter().position(|octet| !is_blank(*octet)).unwrap_or(octets.len());
    trim_end(octets.get(begin..).unwrap_or_default())
}

/// `octets` without the blanks behind them.
pub(super) fn trim_end(octets: &[u8]) -> &[u8] {
    let end = octets.iter().rposition(|octet| !is_blank(*octet)).map_or(0, |at| at + 1);
    octets.get(..end).unwrap_or_default()
}

const TORN: &str = "a JSON string is not closed before the end of its line: the record ends there";
const NO_VALUE: &str = "something that is no JSON value: it ends at the next blank, comma or bracket";
const STRAY_COMMA: &str = "a comma after a JSON value, outside any array";
const NO_COMMA: &str = "no comma after an element of the JSON array";
const AFTER_ARRAY: &str = "something follows the JSON array: from here on, records are JSON values";
const INCOMPLETE: &str = "the last JSON value is not complete";
const NOT_CLOSED: &str = "the JSON array is not closed";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The records of `input`, and what was odd about them.
    fn split(mut json: Json, input: &str) -> (Vec<&str>, Vec<&'static str>) {
        let (mut rest, mut records, mut oddities) = (input, Vec::new(), Vec::new());
        while let Some(end) = json.scan(rest.as_bytes()) {
            records.push(&rest[..end]);
            oddities.extend(json.take_oddity());
            rest = &rest[end..];
        }
        oddities.extend(json.take_oddity());
        oddities.extend(json.finish().oddity);
        records.extend((!rest.is_empty()).then_some(rest));
        (records, oddities)
    }

    fn values(input: &str) -> Vec<&str> {
        let (records, oddities) = split(Json::values(), input);
        assert_eq!(oddities, [""; 0], "{input}");
        records
    }

    fn elements(input: &str) -> Vec<&str> {
        let (records, oddities) = split(Json::array(), input);
        assert_eq!(oddities, [""; 0], "{input}");
        records
    }

    #[test]
    fn a_value_takes_the_blanks_after_it_up_to_the_first_lf() {
        assert_eq!(values("{} \r\n\n {}"), ["{} \r\n", "\n {}"]);
        assert_eq!(values("{\"a\": [1,\n{}]} {}\n"), ["{\"a\": [1,\n{}]} ", "{}\n"]);
        assert_eq!(values("{}[]{}"), ["{}", "[]", "{}"]);
        assert_eq!(values("1 2\n-3"), ["1 ", "2\n", "-3"]);
        assert_eq!(values("\"a\"\"b\"true\"c\" null"), ["\"a\"", "\"b\"", "true", "\"c\" ", "null"]);
    }

    #[test]
    fn brackets_and_quotes_in_strings_are_passed_over() {
        assert_eq!(values(r#"{"a":"}]{["}{}"#), [r#"{"a":"}]{["}"#, "{}"]);
        assert_eq!(values(r#"{"a":"\"}"}{}"#), [r#"{"a":"\"}"}"#, "{}"]);
        assert_eq!(values(r#"["\\"]["\\\""]"#), [r#"["\\"]"#, r#"["\\\""]"#]);
    }

    #[test]
    fn an_element_takes_its_comma_and_the_blanks_around_it() {
        assert_eq!(
            elements("{\"a\":1},\n  {\"a\":2} ,3\n]\n"),
            ["{\"a\":1},\n  ", "{\"a\":2} ,", "3\n", "]\n"]
        );
        assert_eq!(elements("]"), ["]"]);
        assert_eq!(elements("[],\"]\",true]"), ["[],", "\"]\",", "true", "]"]);
        // A line end in a string is forbidden, and suffered in an array.
        assert_eq!(elements("\"a\nb\",1]"), ["\"a\nb\",", "1", "]"]);
    }

    #[test]
    fn blanks_after_the_last_value_are_a_postamble() {
        for (mut json, input, is_postamble) in [
            (Json::values(), "{}\n\n \n", true),
            (Json::values(), "{}\n", true),
            (Json::values(), "{} ", false),
            (Json::values(), "", true),
            (Json::array(), "1]", true),
            (Json::array(), "1] \n", true),
            (Json::array(), "1", false),
        ] {
            let mut rest = input.as_bytes();
            while let Some(end) = json.scan(rest) {
                rest = &rest[end..];
            }
            assert_eq!(json.finish().is_postamble, is_postamble, "{input:?}");
        }
    }

    #[test]
    fn a_torn_line_costs_that_line_alone() {
        let (records, oddities) = split(Json::values(), "{\"a\":\"x\n{\"a\":1}\n{\"a\":\"x\\\n{\"a\":2}\n");
        assert_eq!(records, ["{\"a\":\"x\n", "{\"a\":1}\n", "{\"a\":\"x\\\n", "{\"a\":2}\n"]);
        assert_eq!(oddities, [TORN, TORN]);
    }

    #[test]
    fn what_is_no_value_is_a_record_of_its_own() {
        let (records, oddities) = split(Json::values(), "{}}\n: ,{} x=1 {}");
        assert_eq!(records, ["{}", "}\n", ": ,", "{} ", "x=1 ", "{}"]);
        assert_eq!(oddities, [NO_VALUE, NO_VALUE, NO_VALUE]);
        let (records, oddities) = split(Json::values(), "{},\n{} ,, {}");
        assert_eq!(records, ["{},\n", "{} ,", ", ", "{}"]);
        assert_eq!(oddities, [STRAY_COMMA, STRAY_COMMA, NO_VALUE]);
        let (records, oddities) = split(Json::array(), "1 2,}:,,3]");
        assert_eq!(records, ["1 ", "2,", "}", ":,", ",", "3", "]"]);
        assert_eq!(oddities, [NO_COMMA, NO_VALUE, NO_VALUE, NO_VALUE]);
    }

    #[test]
    fn what_follows_an_array_is_values() {
        let (records, oddities) = split(Json::array(), "1,2]\n {\"a\":1}\n{\"a\":\n2}\n]");
        assert_eq!(records, ["1,", "2", "]\n ", "{\"a\":1}\n", "{\"a\":\n2}\n", "]"]);
        assert_eq!(oddities, [AFTER_ARRAY, NO_VALUE]);
    }

    #[test]
    fn what_the_end_cuts_off_is_noticed() {
        for (json, input, oddity) in [
            (Json::values(), "{\"a\":", INCOMPLETE),
            (Json::values(), "\"a", INCOMPLETE),
            (Json::array(), "{\"a\":", NOT_CLOSED),
            (Json::array(), "1,\n", NOT_CLOSED),
            (Json::array(), "", NOT_CLOSED),
        ] {
            assert_eq!(split(json, input).1, [oddity], "{input:?}");
        }
    }

    #[test]
    fn blanks_are_a_postamble_up_to_its_limit() {
        let mut json = Json::array();
        assert_eq!(json.scan(b"]"), None);
        assert_eq!(json.scan(&vec![b' '; PREAMBLE_BYTES_MAX - 1]), None);
        assert!(json.may_be_postamble());
        assert_eq!(json.scan(b" "), None);
        assert!(!json.may_be_postamble());
        assert_eq!(json.scan(b" \n"), Some(2), "and the record ends as values do");

        let mut json = Json::values();
        assert_eq!(json.scan(&vec![b'\n'; PREAMBLE_BYTES_MAX]), None);
        assert!(json.may_be_postamble());
        assert_eq!(json.scan(b"\n"), None);
        assert!(!json.may_be_postamble());
    }

    #[test]
    fn blanks_that_the_preamble_had_no_room_for_are_a_record() {
        let (records, oddities) = split(Json::array(), " \n] ");
        assert_eq!((records, oddities), (vec![" \n", "] "], vec![]));
        assert_eq!(elements(" \n1]"), [" \n1", "]"]);
    }

    #[test]
    fn the_length_of_nested_values_is_found() {
        assert_eq!(nested_length(b"[1,[\"]\"]] x"), Some(9));
        assert_eq!(nested_length(b"[1,[2]"), None);
        assert_eq!(nested_length(b"{}"), Some(2));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a\"\\\\{}\\[\\],:\n é]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a\"\\\\]{0,3}", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_json_is_split_into_its_values(
            all in prop::collection::vec((json(), any::<bool>()), 0..6),
        ) {
            let text = |(value, is_pretty): &(serde_json::Value, bool)| {
                if *is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap()
            };
            let lines: Vec<String> = all.iter().map(|value| text(value) + "\n").collect();
            let joined = lines.concat();
            prop_assert_eq!(values(&joined), lines);

            let list: Vec<String> = all.iter().map(text).collect();
            let array = list.join(" ,\n ") + "]";
            let records = elements(&array);
            prop_assert_eq!(records.len(), list.len() + 1);
            for (record, value) in records.iter().zip(&list) {
                prop_assert_eq!(crate::framing::Framing::JsonArray.content(record.as_bytes()), value.as_bytes());
            }
        }
    }
}
