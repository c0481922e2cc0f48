//! Framing: where records begin and end in an input, so that joining the pieces gives the input back.
//!
//! ```
//! use domicile_record::framing::{Choice, Fields, Framer, Piece, event_time};
//!
//! let input = "start,caller,note\r\n\
//!              2026-01-05T08:00:00Z,+493023125000,\"two\nlines\"\r\n\
//!              2026-01-05T08:00:04Z,+493023125001,";
//!
//! let mut framer = Framer::new(input.as_bytes(), Choice::Auto)?;
//! let framing = framer.framing();
//! assert_eq!(framing.to_string(), "csv (,, header)");
//!
//! let (mut joined, mut times, mut fields) = (Vec::new(), Vec::new(), None);
//! while let Some(piece) = framer.next()? {
//!     joined.extend_from_slice(piece.bytes());
//!     match piece {
//!         Piece::Preamble(header) => fields = Some(Fields::new(framing, header, &["start"])?),
//!         Piece::Record(record) => {
//!             let fields = fields.as_mut().expect("this input has a header");
//!             fields.read(record)?;
//!             times.push(fields.get(0).and_then(event_time::recognise));
//!         }
//!         Piece::Part { .. } | Piece::Postamble(_) => unreachable!("every record is short, and nothing follows"),
//!     }
//! }
//! assert_eq!(joined, input.as_bytes());
//! assert_eq!(times, [Some("2026-01-05T08:00:00Z".parse()?), Some("2026-01-05T08:00:04Z".parse()?)]);
//! # Ok::<(), domicile::Error>(())
//! ```
//!
//! **Nothing is lost, whatever the input.** A record holds its terminator, its separator and its length
//! prefix; what frames the records but is none (byte order mark, CSV or file header, brackets of a JSON array,
//! filler behind the last record) is a preamble or a postamble. Every octet belongs to exactly one piece, and pieces come in the
//! input's order. So there is no input that cannot be framed: where it is malformed, a record may be
//! longer or shorter than its author meant, [`Framer::warnings`] says so, and the octets are still there.
//!
//! **Time is linear and memory is bounded, for hostile input as well.** Every octet is looked at a
//! bounded number of times. The buffer is 256 KiB, or twice [`Framer::with_record_bytes_max`] where
//! that is more: a longer record comes in parts.
//!
//! The state machines ([`Framing`] has one each) do no input or output; [`Framer`] drives them.

mod ber;
mod blocks;
mod csv;
mod detect;
pub mod event_time;
mod fields;
mod framer;
mod json;
mod length_prefixed;
mod lines;
mod splitter;
#[cfg(test)]
mod tests;
mod ts32297;

use std::fmt;
use std::str::FromStr;

use domicile::{Code, Error, Result};

pub use fields::Fields;
pub use framer::{Framer, PREAMBLE_BYTES_MAX, Piece, RECORD_BYTES_MAX, WARNINGS_MAX, Warning};

/// What makes a record in an input.
///
/// | framing | a record is | preamble | postamble |
/// |---|---|---|---|
/// | `Whole` | the input | none | none |
/// | `Lines` | a line with its LF | byte order mark | none |
/// | `Csv` | a row of RFC 4180 with its LF: an LF in quotes ends nothing | byte order mark, header row | none |
/// | `JsonValues` | a value, blanks before it, blanks after it up to the first LF | byte order mark | blanks after the last value |
/// | `JsonArray` | an element, the comma after it, blanks around both | byte order mark, `[`, blanks | `]`, blanks |
/// | `LengthPrefixed` | a length (u32, big-endian, not counting itself) and that many octets | none | none |
/// | `LengthPrefixedInclusive` | a length (u32, big-endian, counting itself) and the octets that it counts | none | none |
/// | `Ber` | a value of BER: tag, length, contents; filler (00, FF) before it | none | filler after the last value |
/// | `Ts32297` | a header of 4 or 5 octets and the CDR behind it | the file header | filler after the last CDR |
/// | `Blocks` | lines and the empty line after them; empty lines before them | byte order mark | empty lines after the last block |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// The whole input is one record.
    Whole,
    /// Lines that end with LF. A CR before it is part of the line end, a CR elsewhere is data.
    Lines,
    /// Rows of comma-separated values as RFC 4180 has them.
    ///
    /// A field is quoted if it begins with `"`; a quote inside it is doubled. A quote in a field that
    /// does not begin with one is data, and so is a CR that no LF follows.
    Csv {
        /// What stands between two fields.
        delimiter: Delimiter,
        /// Whether the first row names the columns; then it is the preamble.
        header: bool,
    },
    /// JSON values one after another, on a line each or not.
    JsonValues,
    /// The elements of one JSON array.
    JsonArray,
    /// Octets preceded by their number: u32, big-endian, not counting itself.
    LengthPrefixed,
    /// Octets preceded by their number: u32, big-endian, counting itself, as SMPP and many others have it.
    ///
    /// A length under 4 leads nowhere: from it on, the input is one record, with a warning.
    LengthPrefixedInclusive,
    /// Values of BER (X.690), one after another: of definite and of indefinite length, nested to any depth,
    /// with tags of up to six octets.
    ///
    /// Writers fill their blocks: octets of 00 before a value, where no tag begins so, and of FF, two or more,
    /// are filler. What is no BER has nothing that tells where it ends: from there on the input is one record,
    /// with a warning.
    Ber,
    /// A file of 3GPP TS 32.297: a file header, then CDRs with a header each, of whatever encoding.
    ///
    /// Where the file header gives the file's length, the records end there; where it was never filled in
    /// (the file was not closed), they end with the input, and a warning says so. So does one where length or
    /// count disagree with what came. An input without such a header is kept whole, with a warning.
    Ts32297,
    /// Blocks of lines, an empty one after each (LF or CRLF): as FreeSWITCH and Asterisk write events.
    Blocks,
}

impl Framing {
    /// The two octets that a lane's descriptor holds: kind and parameter.
    #[must_use]
    pub fn code(self) -> (u8, u8) {
        match self {
            Framing::Whole => (0x01, 0),
            Framing::Lines => (0x02, 0),
            Framing::Csv { delimiter, header } => {
                (0x03, delimiter.code() | if header { HEADER_FLAG } else { 0 })
            }
            Framing::JsonValues => (0x04, 0),
            Framing::JsonArray => (0x05, 0),
            Framing::LengthPrefixed => (0x06, 0),
            Framing::LengthPrefixedInclusive => (0x06, 1),
            Framing::Ber => (0x07, 0),
            Framing::Ts32297 => (0x08, 0),
            Framing::Blocks => (0x09, 0),
        }
    }

    /// The framing of these two octets; `None` for those that this version does not know.
    #[must_use]
    pub fn from_code(kind: u8, parameter: u8) -> Option<Self> {
        match (kind, parameter) {
            (0x01, 0) => Some(Framing::Whole),
            (0x02, 0) => Some(Framing::Lines),
            (0x03, _) => Some(Framing::Csv {
                delimiter: Delimiter::from_code(parameter & !HEADER_FLAG)?,
                header: parameter & HEADER_FLAG != 0,
            }),
            (0x04, 0) => Some(Framing::JsonValues),
            (0x05, 0) => Some(Framing::JsonArray),
            (0x06, 0) => Some(Framing::LengthPrefixed),
            (0x06, 1) => Some(Framing::LengthPrefixedInclusive),
            (0x07, 0) => Some(Framing::Ber),
            (0x08, 0) => Some(Framing::Ts32297),
            (0x09, 0) => Some(Framing::Blocks),
            _ => None,
        }
    }

    /// The [`Choice`] that leads here, as it is written: `csv`, `json`. `Display` says more.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Framing::Whole => "whole",
            Framing::Lines => "lines",
            Framing::Csv { .. } => "csv",
            Framing::JsonValues | Framing::JsonArray => "json",
            Framing::LengthPrefixed => "length-prefixed",
            Framing::LengthPrefixedInclusive => "length-prefixed-inclusive",
            Framing::Ber => "ber",
            Framing::Ts32297 => "ts32297",
            Framing::Blocks => "blocks",
        }
    }

    /// `record` without what frames it: its line end (LF or CRLF), blanks and comma around a JSON
    /// value, the length before its octets, filler before a BER value, a CDR's header, empty lines
    /// around a block and the end of its last line.
    ///
    /// For whole records: a [`Piece::Part`] has only one of its ends.
    #[must_use]
    pub fn content(self, record: &[u8]) -> &[u8] {
        match self {
            Framing::Whole => record,
            Framing::Lines | Framing::Csv { .. } => lines::without_end(record),
            Framing::JsonValues | Framing::JsonArray => {
                let value = json::trim(record);
                json::trim(value.strip_suffix(b",").unwrap_or(value))
            }
            Framing::LengthPrefixed | Framing::LengthPrefixedInclusive => {
                record.get(length_prefixed::PREFIX_BYTES..).unwrap_or_default()
            }
            Framing::Ber => ber::without_filler(record),
            Framing::Ts32297 => ts32297::without_header(record),
            Framing::Blocks => blocks::without_ends(record),
        }
    }

    /// How a selection of records ends, which need not be how the input does: `records` without what
    /// divides its last record from one that was not selected.
    ///
    /// Elements of a JSON array lose a comma at their end and the blanks after it, so that preamble,
    /// selected records and postamble are an array again. For every other framing this is `records` itself.
    /// The file header of TS 32.297 stands before a selection as it was: it tells of the file that it came with.
    #[must_use]
    pub fn end_of_selection(self, records: &[u8]) -> &[u8] {
        let (body, divider) = self.split_divider(records);
        let comma = divider.iter().position(|octet| *octet == b',');
        comma.and_then(|at| records.get(..body.len() + at)).unwrap_or(records)
    }

    /// `records`, and the octets at its end that may be no more than what divides it from what follows:
    /// blanks and commas of a JSON array.
    pub(crate) fn split_divider(self, records: &[u8]) -> (&[u8], &[u8]) {
        let divides = |octet: &u8| json::is_blank(*octet) || *octet == b',';
        let end = match self {
            Framing::JsonArray => records.iter().rposition(|octet| !divides(octet)).map_or(0, |at| at + 1),
            _ => records.len(),
        };
        records.split_at_checked(end).unwrap_or((records, &[]))
    }
}

impl fmt::Display for Framing {
    /// Shows `lines`, `csv (;, no header)`, `json (array)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Framing::Csv { delimiter, header } => {
                write!(f, " ({delimiter}, {})", if *header { "header" } else { "no header" })
            }
            Framing::JsonArray => f.write_str(" (array)"),
            _ => Ok(()),
        }
    }
}

/// What stands between the fields of a CSV row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// The tabulator.
    Tab,
    /// `|`
    Pipe,
}

impl Delimiter {
    /// Every delimiter there is, in the order of their codes.
    pub const ALL: [Delimiter; 4] = [Delimiter::Comma, Delimiter::Semicolon, Delimiter::Tab, Delimiter::Pipe];

    /// The octet itself.
    #[must_use]
    pub fn octet(self) -> u8 {
        match self {
            Delimiter::Comma => b',',
            Delimiter::Semicolon => b';',
            Delimiter::Tab => b'\t',
            Delimiter::Pipe => b'|',
        }
    }

    fn code(self) -> u8 {
        match self {
            Delimiter::Comma => 0x00,
            Delimiter::Semicolon => 0x01,
            Delimiter::Tab => 0x02,
            Delimiter::Pipe => 0x03,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|delimiter| delimiter.code() == code)
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delimiter::Comma => ",",
            Delimiter::Semicolon => ";",
            Delimiter::Tab => "tab",
            Delimiter::Pipe => "|",
        })
    }
}

/// How an input is to be framed: `auto` looks at it, the others are told.
///
/// Whether a CSV has a header, which delimiter it uses, and whether JSON is one array or many values is
/// always seen from the input. A text of UTF-16 is kept whole, whatever form of text was chosen for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Choice {
    /// By the first [`PREAMBLE_BYTES_MAX`] octets.
    #[default]
    Auto,
    /// [`Framing::Whole`].
    Whole,
    /// [`Framing::Lines`].
    Lines,
    /// [`Framing::Csv`].
    Csv,
    /// [`Framing::JsonArray`] if the first octet that is no blank is `[`, unless that array stands on
    /// one line and another value follows it; else [`Framing::JsonValues`].
    Json,
    /// [`Framing::Blocks`].
    Blocks,
    /// [`Framing::Ber`].
    Ber,
    /// [`Framing::Ts32297`] where the input begins with a file header, else [`Framing::Whole`].
    Ts32297,
    /// [`Framing::LengthPrefixed`].
    LengthPrefixed,
    /// [`Framing::LengthPrefixedInclusive`], which `auto` never takes an input for: the boxes of MP4 and its
    /// kin are framed alike.
    LengthPrefixedInclusive,
}

impl Choice {
    /// Every choice there is, in the order in which help shows them.
    pub const ALL: [Choice; 10] = [
        Choice::Auto,
        Choice::Lines,
        Choice::Csv,
        Choice::Json,
        Choice::Blocks,
        Choice::Ber,
        Choice::Ts32297,
        Choice::LengthPrefixed,
        Choice::LengthPrefixedInclusive,
        Choice::Whole,
    ];

    /// As it is written on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Choice::Auto => "auto",
            Choice::Whole => "whole",
            Choice::Lines => "lines",
            Choice::Csv => "csv",
            Choice::Json => "json",
            Choice::Blocks => "blocks",
            Choice::Ber => "ber",
            Choice::Ts32297 => "ts32297",
            Choice::LengthPrefixed => "length-prefixed",
            Choice::LengthPrefixedInclusive => "length-prefixed-inclusive",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(choice) = Self::ALL.into_iter().find(|choice| choice.name() == text) {
            return Ok(choice);
        }
        Err(Error::new(Code::ArgumentInvalid, "there is no framing of that name")
            .advise(format!("choose one of these: {}", Self::ALL.map(Choice::name).join(", "))))
    }
}

/// In the parameter of a CSV: the first row is a header.
const HEADER_FLAG: u8 = 0x80;
