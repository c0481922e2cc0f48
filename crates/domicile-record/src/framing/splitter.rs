//! The state machines behind one face.

use super::ber::Ber;
use super::blocks::Blocks;
use super::csv::Csv;
use super::json::Json;
use super::length_prefixed::LengthPrefixed;
use super::ts32297::Ts32297;
use super::{Framing, lines};

/// Finds the ends of records. It is shown every octet once, in order, and keeps none.
#[derive(Debug)]
pub(super) enum Splitter {
    Whole,
    Lines,
    Csv(Csv),
    Json(Json),
    LengthPrefixed(LengthPrefixed),
    Ber(Ber),
    Ts32297(Ts32297),
    Blocks(Blocks),
}

/// What the end of the input makes of the octets since the last record's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finish {
    pub(super) is_postamble: bool,
    pub(super) oddity: Option<&'static str>,
}

impl Splitter {
    /// Behind the preamble of an input.
    pub(super) fn new(framing: Framing, preamble: &[u8]) -> Self {
        match framing {
            Framing::Whole => Splitter::Whole,
            Framing::Lines => Splitter::Lines,
            Framing::Csv { delimiter, .. } => Splitter::Csv(Csv::new(delimiter)),
            Framing::JsonValues => Splitter::Json(Json::values()),
            Framing::JsonArray => Splitter::Json(Json::array()),
            Framing::LengthPrefixed => Splitter::LengthPrefixed(LengthPrefixed::default()),
            Framing::LengthPrefixedInclusive => Splitter::LengthPrefixed(LengthPrefixed::inclusive()),
            Framing::Ber => Splitter::Ber(Ber::default()),
            Framing::Ts32297 => Splitter::Ts32297(Ts32297::new(preamble)),
            Framing::Blocks => Splitter::Blocks(Blocks::default()),
        }
    }

    /// Where the current record ends in `fresh`, if it does. What comes after is to be shown again, as
    /// the beginning of the next record.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        match self {
            Splitter::Whole => None,
            Splitter::Lines => lines::scan(fresh),
            Splitter::Csv(csv) => csv.scan(fresh),
            Splitter::Json(json) => json.scan(fresh),
            Splitter::LengthPrefixed(length_prefixed) => length_prefixed.scan(fresh),
            Splitter::Ber(ber) => ber.scan(fresh),
            Splitter::Ts32297(file) => file.scan(fresh),
            Splitter::Blocks(blocks) => blocks.scan(fresh),
        }
    }

    /// What was odd about the record that ended last.
    pub(super) fn take_oddity(&mut self) -> Option<&'static str> {
        match self {
            Splitter::Csv(csv) => csv.take_oddity(),
            Splitter::Json(json) => json.take_oddity(),
            Splitter::Ts32297(file) => file.take_oddity(),
            _ => None,
        }
    }

    /// Whether the octets since the last record's end are a postamble if the input ends now.
    pub(super) fn may_be_postamble(&self) -> bool {
        match self {
            Splitter::Json(json) => json.may_be_postamble(),
            Splitter::Ber(ber) => ber.may_be_postamble(),
            Splitter::Ts32297(file) => file.may_be_postamble(),
            Splitter::Blocks(blocks) => blocks.may_be_postamble(),
            _ => false,
        }
    }

    /// What it means that the input ends here.
    pub(super) fn finish(&self) -> Finish {
        let oddity = match self {
            Splitter::Whole | Splitter::Lines => None,
            Splitter::Csv(csv) => csv.finish(),
            Splitter::Json(json) => return json.finish(),
            Splitter::Ber(ber) => return ber.finish(),
            Splitter::Ts32297(file) => return file.finish(),
            Splitter::Blocks(blocks) => return blocks.finish(),
            Splitter::LengthPrefixed(length_prefixed) => length_prefixed.finish(),
        };
        Finish { is_postamble: false, oddity }
    }
}
