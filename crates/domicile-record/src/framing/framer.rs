//! The reader: a buffer that is reused, and pieces that borrow from it.

use std::fmt;
use std::io::{ErrorKind, Read};

use domicile::{Code, Error, Result};

use super::detect::{self, Detection, Window};
use super::splitter::Splitter;
use super::{Choice, Framing, csv};

/// A record that is longer than this comes in parts, unless
/// [`with_record_bytes_max`](Framer::with_record_bytes_max) says otherwise.
pub const RECORD_BYTES_MAX: usize = 1024 * KIB;

/// The longest preamble and the longest postamble: what would exceed it belongs to a record. So many
/// octets are looked at to decide how an input is framed.
pub const PREAMBLE_BYTES_MAX: usize = 64 * KIB;

/// Warnings that are kept; further ones are only counted.
pub const WARNINGS_MAX: usize = 16;

/// Cuts an input into pieces that, joined in order, are the input again.
///
/// ```
/// use domicile_record::framing::{Choice, Framer, Piece};
///
/// let mut framer = Framer::new(&b"[ {\"a\": 1},\n  {\"a\": 2} ]\n"[..], Choice::Json)?;
/// assert_eq!(framer.next()?, Some(Piece::Preamble(b"[ ")));
/// assert_eq!(framer.next()?, Some(Piece::Record(b"{\"a\": 1},\n  ")));
/// assert_eq!(framer.next()?, Some(Piece::Record(b"{\"a\": 2} ")));
/// assert_eq!(framer.next()?, Some(Piece::Postamble(b"]\n")));
/// assert_eq!(framer.next()?, None);
/// # Ok::<(), domicile::Error>(())
/// ```
///
/// The pieces depend on the input's octets alone, not on how many of them a read returns. A record is
/// handed out as soon as its last octet was read (one of JSON that does not end with an LF, as soon as
/// the next one began), so that a slow pipe is framed as it comes.
pub struct Framer<R> {
    input: R,
    framing: Framing,
    splitter: Splitter,
    record_bytes_max: usize,

    // begin <= scanned <= filled <= buffer.len()
    buffer: Vec<u8>,
    /// Where the current piece begins.
    begin: usize,
    /// What the splitter has seen.
    scanned: usize,
    /// What was read.
    filled: usize,

    /// Octets of the preamble, until it was handed out.
    preamble: usize,
    /// Where the current record ends, once that is known.
    end: Option<usize>,
    /// Where the current record begins in the input, if parts of it were handed out.
    parts_from: Option<u64>,
    /// Octets handed out.
    position: u64,
    is_input_ended: bool,
    is_finished: bool,

    warnings: Vec<Warning>,
    warning_count: u64,
}

/// A stretch of the input.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever passes over a kind of piece loses octets")]
pub enum Piece<'a> {
    /// What precedes the records and is none: the first piece, if there is one.
    Preamble(&'a [u8]),
    /// A record, no longer than the framer's limit.
    Record(&'a [u8]),
    /// A part of a longer record: as long as the limit, the last one perhaps shorter.
    Part {
        /// The part.
        bytes: &'a [u8],
        /// Whether the record ends with it.
        last: bool,
    },
    /// What follows the records and is none: the last piece, if there is one.
    Postamble(&'a [u8]),
}

impl<'a> Piece<'a> {
    /// The octets, whatever they are; never none.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Piece::Preamble(bytes)
            | Piece::Record(bytes)
            | Piece::Part { bytes, .. }
            | Piece::Postamble(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Piece<'_> {
    /// Shows `Record(318 bytes)`: records are plaintext, which no log may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Piece::Preamble(_) => "Preamble",
            Piece::Record(_) => "Record",
            Piece::Part { last: false, .. } => "Part",
            Piece::Part { last: true, .. } => "LastPart",
            Piece::Postamble(_) => "Postamble",
        };
        write!(f, "{kind}({} bytes)", self.bytes().len())
    }
}

/// Something odd about an input, which was framed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// Where the record concerned begins: octets from the beginning of the input.
    pub at: u64,
    /// What is odd, without anything of the record.
    pub what: &'static str,
}

impl fmt::Display for Warning {
    /// Shows `the last JSON value is not complete (byte 2048)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {})", self.what, self.at)
    }
}

impl<R: Read> Framer<R> {
    /// Reads as much as it takes to decide how `input` is framed: for [`Choice::Auto`] and
    /// [`Choice::Csv`] at most [`PREAMBLE_BYTES_MAX`] octets and one more, for [`Choice::Ts32297`] the file header,
    /// for the others a few.
    ///
    /// # Errors
    /// [`InputFailed`](Code::InputFailed) if the input cannot be read.
    pub fn new(input: R, choice: Choice) -> Result<Self> {
        Self::naming(input, choice, &[])
    }

    /// The same, for a caller who will ask for these [`Fields`](super::Fields): where the first row of a CSV has
    /// them all, it is taken for a header, even if it looks like any other row. Whoever asks for columns by their
    /// numbers alone says that there is no header, even if the first row looks like one, which is warned of.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn naming(input: R, choice: Choice, columns: &[&str]) -> Result<Self> {
        let mut framer = Self {
            input,
            framing: Framing::Whole,
            splitter: Splitter::Whole,
            record_bytes_max: RECORD_BYTES_MAX,
            buffer: vec![0; BUFFER_BYTES],
            begin: 0,
            scanned: 0,
            filled: 0,
            preamble: 0,
            end: None,
            parts_from: None,
            position: 0,
            is_input_ended: false,
            is_finished: false,
            warnings: Vec::new(),
            warning_count: 0,
        };
        let detection = framer.detect(choice, columns)?;
        framer.framing = detection.framing;
        let preamble = framer.buffer.get(..detection.preamble).unwrap_or_default();
        framer.splitter = Splitter::new(detection.framing, preamble);
        framer.preamble = detection.preamble;
        framer.scanned = detection.preamble;
        if let Some(what) = detection.oddity {
            framer.warn(what);
        }
        Ok(framer)
    }

    /// Sets the length beyond which a record comes in parts; 0 is taken for 1.
    #[must_use]
    pub fn with_record_bytes_max(mut self, record_bytes_max: usize) -> Self {
        self.record_bytes_max = record_bytes_max.max(1);
        self
    }

    /// The next piece, which borrows from the framer's buffer.
    ///
    /// # Errors
    /// [`InputFailed`](Code::InputFailed) if the input cannot be read, with the byte that could not.
    /// Nothing is lost by that: the next call reads again from there.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its buffer")]
    pub fn next(&mut self) -> Result<Option<Piece<'_>>> {
        if self.preamble > 0 {
            let length = std::mem::take(&mut self.preamble);
            return Ok(Some(Piece::Preamble(self.take(length))));
        }
        loop {
            if self.end.is_none() && self.scanned < self.filled {
                self.scan();
            }
            let length = self.end.unwrap_or(self.scanned) - self.begin;
            if length > self.record_bytes_max && !(self.end.is_none() && self.splitter.may_be_postamble()) {
                self.parts_from.get_or_insert(self.position);
                return Ok(Some(Piece::Part { bytes: self.take(self.record_bytes_max), last: false }));
            }
            if self.end.take().is_some() {
                return Ok(Some(self.record(length)));
            }
            if self.is_input_ended {
                return Ok(self.finish(length));
            }
            self.fill()?;
        }
    }
}

impl<R> Framer<R> {
    /// How the input is framed.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Where the next piece begins: octets handed out so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was odd so far: the first [`WARNINGS_MAX`] cases.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether the first row looks like a header and was taken for a record.
    pub(crate) fn seems_to_have_header(&self) -> bool {
        self.warnings.first().is_some_and(|warning| warning.what == detect::SEEMS_A_HEADER)
    }

    /// The first row of CSV that may hold others, for its quotes.
    pub(crate) fn mixed_row(&self) -> Option<&Warning> {
        self.warnings.iter().find(|warning| csv::mixes_rows(warning.what))
    }

    /// How many cases were odd so far, kept or not.
    #[must_use]
    pub fn warning_count(&self) -> u64 {
        self.warning_count
    }

    /// Shows the splitter what it has not seen, up to the end of the current record.
    fn scan(&mut self) {
        let fresh = self.buffer.get(self.scanned..self.filled).unwrap_or_default();
        match self.splitter.scan(fresh) {
            Some(length) => {
                self.scanned += length;
                self.end = Some(self.scanned);
                if let Some(what) = self.splitter.take_oddity() {
                    self.warn(what);
                }
            }
            None => self.scanned = self.filled,
        }
    }

    /// Hands out the record that is `length` long, or its last part.
    fn record(&mut self, length: usize) -> Piece<'_> {
        if self.parts_from.take().is_some() {
            Piece::Part { bytes: self.take(length), last: true }
        } else {
            Piece::Record(self.take(length))
        }
    }

    /// The input has ended; hands out the `length` octets that are left, if any.
    fn finish(&mut self, length: usize) -> Option<Piece<'_>> {
        let finish = self.splitter.finish();
        if !std::mem::replace(&mut self.is_finished, true) {
            for what in self.splitter.take_oddity().into_iter().chain(finish.oddity) {
                self.warn(what);
            }
        }
        match length {
            0 => None,
            _ if finish.is_postamble => Some(Piece::Postamble(self.take(length))),
            _ => Some(self.record(length)),
        }
    }

    /// The next `length` octets, which the caller has made sure of.
    fn take(&mut self, length: usize) -> &[u8] {
        let taken = self.begin..self.begin + length;
        self.begin = taken.end;
        self.position += length as u64;
        self.buffer.get(taken).unwrap_or_default()
    }

    fn warn(&mut self, what: &'static str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { at: self.parts_from.unwrap_or(self.position), what });
        }
        self.warning_count += 1;
    }
}

impl<R> fmt::Debug for Framer<R> {
    /// Shows nothing of the buffer: records are plaintext, which no log may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer")
            .field("framing", &self.framing)
            .field("position", &self.position)
            .field("warning_count", &self.warning_count)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Framer<R> {
    fn detect(&mut self, choice: Choice, columns: &[&str]) -> Result<Detection> {
        // The window is looked at anew only when it has doubled, so that an input that comes octet by
        // octet is not looked at once for each.
        let mut filled_next = 0;
        loop {
            if self.filled >= filled_next || self.is_input_ended {
                let octets = self.buffer.get(..self.filled).unwrap_or_default();
                let window = Window::new(octets, self.is_input_ended, columns);
                if let Some(detection) = detect::detect(choice, window) {
                    return Ok(detection);
                }
                filled_next = self.filled.saturating_mul(2).min(PREAMBLE_BYTES_MAX + 1);
            }
            self.fill()?;
        }
    }

    /// Reads once, or notices that the input has ended.
    fn fill(&mut self) -> Result<()> {
        self.make_room();
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        loop {
            match self.input.read(room) {
                Ok(0) => self.is_input_ended = true,
                Ok(length) => self.filled += length.min(room.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let read = self.position + (self.filled - self.begin) as u64;
                    return Err(Error::new(Code::InputFailed, "the input cannot be read")
                        .at(format!("byte {read}"))
                        .because(error));
                }
            }
            return Ok(());
        }
    }

    /// Makes room behind `filled`: by moving the current piece to the front, and by doubling the buffer
    /// if the piece takes more than half of it. Either way no more is moved than can be read then, so
    /// that moving never costs more than reading.
    fn make_room(&mut self) {
        let current = self.filled - self.begin;
        if current > 0 && self.filled < self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.begin..self.filled, 0);
        self.scanned -= self.begin;
        self.filled = current;
        self.begin = 0;
        if current > self.buffer.len() / 2 {
            // No piece is kept that is longer than a record or a postamble may be, so that a buffer
            // of twice that length is never enlarged again.
            let longest = self.record_bytes_max.max(PREAMBLE_BYTES_MAX);
            let length = self.buffer.len().saturating_mul(2).min(longest.saturating_add(1).saturating_mul(2));
            self.buffer.resize(length.max(current + 1), 0);
        }
    }
}

/// Large enough that reading costs little, small enough for the second-level cache.
const BUFFER_BYTES: usize = 256 * KIB;

const KIB: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_the_longest_record() {
        for (choice, octet) in [
            (Choice::Lines, b'x'),
            (Choice::Csv, b'"'),
            (Choice::Json, b'['),
            (Choice::Ber, 0xff),
            (Choice::Ber, 0xbf),
            (Choice::Ts32297, b'x'),
            (Choice::Blocks, b'\n'),
            (Choice::LengthPrefixedInclusive, 0x7f),
        ] {
            let mut framer = Framer::new(std::io::repeat(octet).take(8 << 20), choice).unwrap();
            let mut length = 0;
            while let Some(piece) = framer.next().unwrap() {
                assert!(piece.bytes().len() <= RECORD_BYTES_MAX);
                length += piece.bytes().len();
            }
            assert_eq!(length, 8 << 20);
            assert!(framer.buffer.capacity() <= 2 * (RECORD_BYTES_MAX + 1), "{choice}");
        }
    }

    #[test]
    fn nothing_of_a_record_is_shown_by_debug() {
        let mut framer = Framer::new(&b"secret\n"[..], Choice::Lines).unwrap();
        assert!(format!("{framer:?}").starts_with("Framer { framing: Lines, position: 0"));
        assert_eq!(format!("{:?}", framer.next().unwrap().unwrap()), "Record(7 bytes)");
    }
}
