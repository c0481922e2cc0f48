//! Values of BER (X.690), one after another.
//!
//! Only what says where a value ends is read: tags, lengths, and inside a value of indefinite length the
//! values in it, up to its end-of-contents octets. How deep these are nested is a number, and no stack: what
//! stands in a value of definite length is passed over.

use super::framer::PREAMBLE_BYTES_MAX;
use super::splitter::Finish;

/// Finds the ends of BER values in octets that come bit by bit.
#[derive(Debug)]
pub(super) struct Ber {
    state: State,
    /// Values of indefinite length that are open.
    open: u64,
    /// Octets of filler that the current record began with.
    filler: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value: filler, or nothing yet.
    Before { ones: bool },
    /// After one octet of FF before a value: filler if filler follows, else the beginning of a tag.
    Ones,
    /// In a value of indefinite length, before a value or the end of contents.
    Inside,
    /// In a tag, behind so many of its octets.
    Tag { constructed: bool, octets: u8 },
    /// Before a length.
    Length { constructed: bool },
    /// In a length, of which so many octets are missing.
    LongLength { missing: u8, length: u64 },
    /// In contents, of which so many octets are missing.
    Contents { missing: u64 },
    /// After the first of the end-of-contents octets.
    End,
    /// Behind what is no BER: nothing tells where anything ends.
    Rest(&'static str),
}

impl Default for Ber {
    fn default() -> Self {
        Self { state: State::Before { ones: false }, open: 0, filler: 0 }
    }
}

impl Ber {
    /// Where the current record ends in `fresh`, if it does.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        let mut rest = fresh;
        loop {
            if let State::Rest(_) = self.state {
                return None;
            }
            if let State::Contents { missing } = self.state {
                let here = rest.len();
                match usize::try_from(missing).ok().and_then(|missing| rest.get(missing..)) {
                    Some(after) => rest = after,
                    None => {
                        self.state = State::Contents { missing: missing.saturating_sub(here as u64) };
                        return None;
                    }
                }
                if self.closed() {
                    return Some(fresh.len() - rest.len());
                }
                continue;
            }
            let (&octet, after) = rest.split_first()?;
            rest = after;
            if self.step(octet) {
                return Some(fresh.len() - rest.len());
            }
        }
    }

    /// Whether the octets since the last record's end are a postamble if the input ends now: filler.
    pub(super) fn may_be_postamble(&self) -> bool {
        match self.state {
            State::Before { .. } => self.filler <= PREAMBLE_BYTES_MAX,
            State::Ones => self.filler < PREAMBLE_BYTES_MAX,
            _ => false,
        }
    }

    /// What it means that the input ends here.
    pub(super) fn finish(&self) -> Finish {
        let oddity = match self.state {
            State::Before { .. } | State::Ones => None,
            State::Rest(what) => Some(what),
            _ if self.open > 0 => Some(NOT_ENDED),
            State::Contents { .. } => Some(CUT),
            _ => Some(CUT_BEFORE_CONTENTS),
        };
        Finish { is_postamble: self.may_be_postamble(), oddity }
    }

    /// Takes an octet that is none of contents; says whether the record ends with it.
    fn step(&mut self, octet: u8) -> bool {
        self.state = match self.state {
            State::Before { ones: true } if octet == ONES => self.fill(1, true),
            State::Before { .. } => match octet {
                0 => self.fill(1, false),
                ONES => State::Ones,
                _ => tag(octet),
            },
            // No tag has the number 0 in this form.
            State::Ones if octet == 0 => self.fill(2, false),
            State::Ones if octet == ONES => self.fill(2, true),
            State::Ones => tag_goes_on(true, 1, octet),
            State::Inside if octet == 0 => State::End,
            State::Inside => tag(octet),
            State::Tag { constructed, octets } => tag_goes_on(constructed, octets, octet),
            State::Length { constructed } => match octet {
                0..0x80 => return self.contents(u64::from(octet)),
                0x80 if constructed => {
                    self.open = self.open.saturating_add(1);
                    State::Inside
                }
                0x80 => State::Rest(INDEFINITE_PRIMITIVE),
                0xff => State::Rest(NO_LENGTH),
                _ => State::LongLength { missing: octet & 0x7f, length: 0 },
            },
            State::LongLength { length, .. } if length > u64::MAX >> 8 => State::Rest(NO_LENGTH),
            State::LongLength { missing, length } => {
                let length = length << 8 | u64::from(octet);
                if missing <= 1 {
                    return self.contents(length);
                }
                State::LongLength { missing: missing - 1, length }
            }
            State::End if octet == 0 => {
                self.open = self.open.saturating_sub(1);
                return self.closed();
            }
            State::End => State::Rest(NO_END),
            state @ (State::Contents { .. } | State::Rest(_)) => state,
        };
        false
    }

    fn fill(&mut self, octets: usize, ones: bool) -> State {
        self.filler = self.filler.saturating_add(octets);
        State::Before { ones }
    }

    fn contents(&mut self, length: u64) -> bool {
        self.state = State::Contents { missing: length };
        length == 0 && self.closed()
    }

    /// A value has ended; says whether the record has.
    fn closed(&mut self) -> bool {
        if self.open > 0 {
            self.state = State::Inside;
            return false;
        }
        *self = Self::default();
        true
    }
}

fn tag(octet: u8) -> State {
    let constructed = octet & CONSTRUCTED != 0;
    if octet & TAG_BITS == TAG_BITS {
        State::Tag { constructed, octets: 1 }
    } else {
        State::Length { constructed }
    }
}

fn tag_goes_on(constructed: bool, octets: u8, octet: u8) -> State {
    match octet {
        0..0x80 => State::Length { constructed },
        0x80 if octets == 1 => State::Rest(NO_TAG),
        _ if octets >= TAG_OCTETS_MAX - 1 => State::Rest(NO_TAG),
        _ => State::Tag { constructed, octets: octets + 1 },
    }
}

/// `record` without the filler before its value.
pub(super) fn without_filler(record: &[u8]) -> &[u8] {
    let mut rest = record;
    loop {
        rest = match rest {
            [0, after @ ..] | [ONES, 0, after @ ..] => after,
            [ONES, ONES, ..] => {
                let end = rest.iter().position(|octet| *octet != ONES).unwrap_or(rest.len());
                rest.get(end..).unwrap_or_default()
            }
            _ => return rest,
        };
    }
}

/// Whether these octets, all of an input or its beginning, are BER as far as they can be seen: constructed
/// values, filler at most between them, and in them values down to the last.
///
/// Every length has to lead to where another value begins or where the one around it ends. A handful of
/// values that end where the input does are too many for chance; where the end is not seen, a length may
/// lead out of sight, and it takes more of them.
pub(super) fn is_beyond_doubt(octets: &[u8], is_all: bool) -> bool {
    // Where the open values end, the innermost last; nowhere stated for those of indefinite length.
    let mut open: Vec<Option<usize>> = Vec::new();
    let (mut at, mut values) = (0, 0_usize);
    let is_seen = |values: usize| values >= if is_all { VALUES_MIN } else { VALUES_MIN_OF_MORE };
    loop {
        while open.last().is_some_and(|end| *end == Some(at)) {
            open.pop();
        }
        let mut rest = octets.get(at..).unwrap_or_default();
        if open.is_empty() && values > 0 {
            rest = without_filler(rest);
            at = octets.len() - rest.len();
        }
        if rest.is_empty() {
            return is_seen(values) && (!is_all || open.is_empty());
        }
        if let ([0, 0, ..], Some(None)) = (rest, open.last()) {
            open.pop();
            at += 2;
            continue;
        }
        let header = match header(rest) {
            Header::Read(header) => header,
            Header::Cut => return is_seen(values) && !is_all,
            Header::None => return false,
        };
        let is_plausible = header.tag & !CONSTRUCTED != 0 && (header.constructed || !open.is_empty());
        if !is_plausible || open.len() >= BELIEVED_DEPTH_MAX {
            return false;
        }
        values += 1;
        let begin = at + header.octets;
        let bound = open.iter().rev().find_map(|end| *end);
        let end = match header.length {
            None => None,
            Some(length) => {
                let end = usize::try_from(length).ok().and_then(|length| begin.checked_add(length));
                let bound = bound.or_else(|| is_all.then_some(octets.len()));
                match end.filter(|end| bound.is_none_or(|bound| *end <= bound)) {
                    Some(end) => Some(end),
                    None => return false,
                }
            }
        };
        match end {
            Some(end) if !header.constructed && end > octets.len() => return is_seen(values),
            Some(end) if !header.constructed => at = end,
            end => {
                open.push(end);
                at = begin;
            }
        }
    }
}

enum Header {
    Read(TagAndLength),
    /// The octets end within it.
    Cut,
    /// There is none.
    None,
}

struct TagAndLength {
    /// The first octet of the tag.
    tag: u8,
    constructed: bool,
    /// Of the contents; none if it is indefinite.
    length: Option<u64>,
    /// Of tag and length.
    octets: usize,
}

/// Tag and length at the beginning of `octets`, read as the states above read them.
fn header(octets: &[u8]) -> Header {
    let Some((&first, rest)) = octets.split_first() else { return Header::Cut };
    let mut ber = Ber { state: tag(first), open: 0, filler: 0 };
    let constructed = first & CONSTRUCTED != 0;
    let mut header = TagAndLength { tag: first, constructed, length: None, octets: 1 };
    for octet in rest {
        header.octets += 1;
        if ber.step(*octet) {
            // No contents.
            header.length = Some(0);
            return Header::Read(header);
        }
        match ber.state {
            State::Contents { missing } => {
                header.length = Some(missing);
                return Header::Read(header);
            }
            State::Inside => return Header::Read(header),
            State::Rest(_) => return Header::None,
            _ => {}
        }
    }
    Header::Cut
}

const CONSTRUCTED: u8 = 0x20;

const TAG_BITS: u8 = 0x1f;

const ONES: u8 = 0xff;

/// A longer tag would have a number of more than 35 bits.
const TAG_OCTETS_MAX: u8 = 6;

/// Fewer values are not believed to be BER.
const VALUES_MIN: usize = 6;

/// The same, where there is more than can be seen.
const VALUES_MIN_OF_MORE: usize = 24;

/// Records of this field are nested less than half as deep.
const BELIEVED_DEPTH_MAX: usize = 64;

const CUT: &str = "the last BER value is shorter than its length says";
const CUT_BEFORE_CONTENTS: &str = "the input ends within the tag or the length of a BER value";
const NOT_ENDED: &str = "the last BER value is of indefinite length, and is not ended";
const INDEFINITE_PRIMITIVE: &str =
    "a primitive BER value has an indefinite length: what follows cannot be split and is kept as one record";
const NO_LENGTH: &str = "a length is none of BER: what follows cannot be split and is kept as one record";
const NO_TAG: &str = "a tag is none of BER: what follows cannot be split and is kept as one record";
const NO_END: &str =
    "the end of a BER value's contents is none: what follows cannot be split and is kept as one record";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records and what is left; and what is odd at the end.
    fn split(input: &[u8]) -> (Vec<&[u8]>, &[u8], Finish) {
        let (mut ber, mut rest, mut records) = (Ber::default(), input, Vec::new());
        while let Some(end) = ber.scan(rest) {
            records.push(&rest[..end]);
            rest = &rest[end..];
        }
        (records, rest, ber.finish())
    }

    fn lengths(input: &[u8]) -> Vec<usize> {
        let (records, rest, finish) = split(input);
        assert_eq!((rest, finish.oddity), (&b""[..], None), "{}", input.escape_ascii());
        records.iter().map(|record| record.len()).collect()
    }

    #[test]
    fn a_value_is_as_long_as_its_length_says() {
        assert_eq!(lengths(b"\x30\x03abc\x04\x00\x04\x01a"), [5, 2, 3]);
        let long =
            [b"\xa0\x81\xc8".to_vec(), vec![7; 200], b"\x30\x82\x01\x00".to_vec(), vec![7; 256]].concat();
        assert_eq!(lengths(&long), [203, 260]);
        // Zeros before a length are allowed, and tags of several octets.
        assert_eq!(lengths(b"\x30\x84\0\0\0\x01a\xbf\x4f\x01a\xbf\x81\x00\x01a"), [7, 4, 5]);
        assert_eq!(lengths(b"\x9f\x87\xff\xff\xff\x7f\x01a"), [8]);
        let padded = [b"\x30\xfe".to_vec(), vec![0; 125], b"\x01a".to_vec()].concat();
        assert_eq!(lengths(&padded), [129]);
    }

    #[test]
    fn an_indefinite_value_ends_where_its_contents_do() {
        assert_eq!(lengths(b"\x30\x80\0\0\x30\x00"), [4, 2]);
        assert_eq!(lengths(b"\x30\x80\x04\x02\0\0\x04\x00\0\0"), [10]);
        assert_eq!(lengths(b"\x30\x80\xbf\x23\x80\x04\x01a\0\0\0\0\x30\x01a"), [12, 3]);
        // What a definite value holds is passed over.
        assert_eq!(lengths(b"\x30\x80\x30\x04\x30\x80\0\0\0\0"), [10]);
        // In a value, FF begins a tag.
        assert_eq!(lengths(b"\x30\x80\xff\xff\x01\x01a\0\0"), [9]);
    }

    #[test]
    fn filler_belongs_to_the_value_after_it_or_to_none() {
        let input = b"\x30\x01a\0\0\x30\x01b\xff\xff\0\xff\xff\x30\x01c\xff\0\0\xff";
        let (records, rest, finish) = split(input);
        assert_eq!(records, [&b"\x30\x01a"[..], b"\0\0\x30\x01b", b"\xff\xff\0\xff\xff\x30\x01c"]);
        assert_eq!((rest, finish), (&b"\xff\0\0\xff"[..], Finish { is_postamble: true, oddity: None }));
        assert_eq!(lengths(b"\xff\x20\x01a"), [4], "a private tag of two octets");
        for (record, value) in [
            (&b"\0\xff\xff\0\x30\x01a"[..], &b"\x30\x01a"[..]),
            (b"\xff\x20\x01a", b"\xff\x20\x01a"),
            (b"\0\xff\x20\x01a", b"\xff\x20\x01a"),
            (b"\xff\0\xff\xff\xff", b""),
            (b"\0", b""),
        ] {
            assert_eq!(without_filler(record), value, "{}", record.escape_ascii());
        }
        let mut ber = Ber::default();
        assert_eq!(ber.scan(&[0; PREAMBLE_BYTES_MAX]), None);
        assert!(ber.may_be_postamble());
        assert_eq!(ber.scan(&[0]), None);
        assert!(!ber.may_be_postamble(), "too long for a postamble");
    }

    #[test]
    fn what_is_no_ber_takes_the_rest() {
        for (input, what) in [
            (&b"\x04\x80a\x30\x00"[..], INDEFINITE_PRIMITIVE),
            (b"\x30\xff\x30\x00", NO_LENGTH),
            (b"\x30\x89\x01\0\0\0\0\0\0\0\0\x30\x00", NO_LENGTH),
            (b"\xbf\x80\x01\x00", NO_TAG),
            (b"\xbf\x81\x81\x81\x81\x81\x01\x00", NO_TAG),
            (b"\x30\x80\x00\x01\x30\x00", NO_END),
            (b"\x30\x05abcd", CUT),
            (b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xffabcd", CUT),
            (b"\x30\x80\x04\x01a", NOT_ENDED),
            (b"\x30\x80\x04\x01a\x00", NOT_ENDED),
            (b"\x30", CUT_BEFORE_CONTENTS),
            (b"\x30\x82\x01", CUT_BEFORE_CONTENTS),
            (b"\xbf", CUT_BEFORE_CONTENTS),
        ] {
            let before = b"\x30\x01a";
            let input = [&before[..], input].concat();
            let (records, rest, finish) = split(&input);
            assert_eq!((records, rest), (vec![&before[..]], &input[3..]), "{}", input.escape_ascii());
            assert_eq!(
                finish,
                Finish { is_postamble: false, oddity: Some(what) },
                "{}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn any_depth_is_a_number() {
        let deep = [b"\x30\x80".repeat(1_000_000), b"\0\0".repeat(1_000_000)].concat();
        assert_eq!(lengths(&deep), [deep.len()]);
        let (records, _, finish) = split(&deep[..deep.len() - 1]);
        assert_eq!((records.len(), finish.oddity), (0, Some(NOT_ENDED)));
        assert!(!is_beyond_doubt(&deep, true));
    }

    #[test]
    fn what_leads_from_value_to_value_is_believed() {
        let record = b"\xa0\x0c\x80\x01\0\x81\x02ab\xa3\x03\x80\x01c";
        let indefinite = b"\xa0\x80\x80\x01\0\xbf\x23\x80\x81\x00\0\0\x04\x01a\0\0";
        let two = [&record[..], record].concat();
        let five = record.repeat(5);
        for (input, is_all, expected) in [
            (&two[..], true, true),
            (&record[..], true, false), // five values
            (&[&two[..], indefinite].concat(), true, true),
            (&[&indefinite[..], indefinite].concat(), true, true),
            (&[&record[..], b"\0\0\xff\xff", record].concat(), true, true),
            (&[&two[..], b"\xff\xff\0"].concat(), true, true),
            (&[b"\0", &two[..]].concat(), true, false),
            (&two[..two.len() - 1], true, false),
            (&two[..], false, false), // ten values
            (&five[..], false, true),
            (&five[..five.len() - 1], false, true),
            (&[&two[..], b"\x30"].concat(), true, false),
            (&[&five[..], b"\x30"].concat(), false, true),
            (&[&two[..], b"\x04\x01a"].concat(), true, false),
            (&[&two[..], indefinite, b"x"].concat(), true, false),
            // The inner lengths pass the outer's end, or leave an octet.
            (&[&two[..], b"\xa0\x0c\x80\x01\0\x81\x02ab\xa3\x04\x80\x01c\x04\x00"].concat(), true, false),
            (&[&two[..], b"\xa0\x0d\x80\x01\0\x81\x02ab\xa3\x03\x80\x01c\0"].concat(), true, false),
            (&[&two[..], b"\xa0\x80\x80\x01\0"].concat(), true, false),
            (&[&five[..], b"\xa0\x80\x80\x01\0"].concat(), false, true),
            // A length that leads out of sight.
            (&[&five[..], b"\xa0\x84\x01\0\0\0\x04\x84\x00\xff\0\0"].concat(), false, true),
            (&[&five[..], b"\xa0\x84\x01\0\0\0\x04\x84\x01\xff\0\0"].concat(), false, false),
            (b"", true, false),
        ] {
            assert_eq!(is_beyond_doubt(input, is_all), expected, "{}", input.escape_ascii());
        }
    }

    /// BER values, some of indefinite length.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let tag = |constructed: bool| {
            let bit = if constructed { CONSTRUCTED } else { 0 };
            prop_oneof![
                (1u8..31, 0u8..3).prop_map(move |(number, class)| vec![class << 6 | bit | number]),
                (31u8..128).prop_map(move |number| vec![0x9f | bit, number]),
                (1u8..128, 0u8..128).prop_map(move |(high, low)| vec![0x9f | bit, 0x80 | high, low]),
            ]
        };
        let length = |length: usize| {
            let octets = u32::try_from(length).unwrap().to_be_bytes();
            match length {
                0..128 => prop_oneof![Just(vec![octets[3]]), Just(vec![0x81, octets[3]])].boxed(),
                _ => Just([&[0x84], &octets[..]].concat()).boxed(),
            }
        };
        let leaf =
            (tag(false), prop::collection::vec(any::<u8>(), 0..12)).prop_flat_map(move |(tag, contents)| {
                length(contents.len()).prop_map(move |length| [&tag[..], &length, &contents].concat())
            });
        leaf.prop_recursive(4, 24, 5, move |inner| {
            (tag(true), prop::collection::vec(inner, 0..5), any::<bool>()).prop_flat_map(
                move |(tag, values, indefinite)| {
                    let contents = values.concat();
                    length(contents.len()).prop_map(move |length| {
                        if indefinite {
                            [&tag[..], b"\x80", &contents, b"\0\0"].concat()
                        } else {
                            [&tag[..], &length, &contents].concat()
                        }
                    })
                },
            )
        })
    }

    proptest! {
        #[test]
        fn whatever_is_ber_is_split_into_its_values(values in prop::collection::vec(value(), 0..8)) {
            let input = values.concat();
            let (records, rest, finish) = split(&input);
            prop_assert_eq!(&records, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!((rest, finish.oddity), (&b""[..], None));

            let seen = values.iter().all(|value| value[0] & CONSTRUCTED != 0);
            if is_beyond_doubt(&input, true) {
                prop_assert!(seen);
                // What was seen of it is believed as well, unless it is too little.
                for end in 0..input.len() {
                    let few = !is_beyond_doubt(&input[..end], false);
                    prop_assert!(!few || end < 600, "{} of {}", end, input.escape_ascii());
                }
            }
        }

        #[test]
        fn any_octets_are_looked_at(input in prop::collection::vec(any::<u8>(), 0..300), is_all in any::<bool>()) {
            let _ = (is_beyond_doubt(&input, is_all), split(&input));
        }
    }
}
