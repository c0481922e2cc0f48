//! Bytes in and out: big-endian integers, lengths first, every length checked before it is believed.
//!
//! Two encodings are used throughout. *Structures* (rows, headers, descriptors) are written field by
//! field with an [`Encoder`] and read back with a [`Decoder`]. What is *hashed or authenticated* is a
//! list of parts, each preceded by its length in eight bytes ([`parts`]): two different lists never
//! have the same encoding, whatever their contents.

use std::fmt;

/// Joins `parts` so that no two lists share an encoding: each part is preceded by its length (u64).
///
/// The first part is a label that names the use, for example `domicile/v1/lane`.
#[must_use]
pub fn parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Why bytes are not the structure that they should be: the field, and where it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What was being read, in words.
    pub what: &'static str,
    /// Offset of that field from the beginning of the structure.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An encoder that has written nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder with room for so many octets, which it writes without moving them: what is secret among
    /// them leaves no copy behind.
    #[must_use]
    pub fn with_room(octets: usize) -> Self {
        Self { bytes: Vec::with_capacity(octets) }
    }

    /// Appends one octet.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Appends two octets, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends four octets, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends eight octets, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends eight octets, big-endian, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends octets of a length that the reader knows.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends a length (u8) and that many octets.
    ///
    /// # Errors
    /// `what`, when `value` is longer than 255 octets.
    pub fn short(&mut self, value: &[u8], what: &'static str) -> Result<&mut Self, Malformed> {
        let length = u8::try_from(value.len()).map_err(|_| self.malformed(what))?;
        Ok(self.u8(length).raw(value))
    }

    /// Appends a length (u16) and that many octets.
    ///
    /// # Errors
    /// `what`, when `value` is longer than 65,535 octets.
    pub fn medium(&mut self, value: &[u8], what: &'static str) -> Result<&mut Self, Malformed> {
        let length = u16::try_from(value.len()).map_err(|_| self.malformed(what))?;
        Ok(self.u16(length).raw(value))
    }

    /// Appends a length (u32) and that many octets.
    ///
    /// # Errors
    /// `what`, when `value` is longer than 4 GiB - 1.
    pub fn long(&mut self, value: &[u8], what: &'static str) -> Result<&mut Self, Malformed> {
        let length = u32::try_from(value.len()).map_err(|_| self.malformed(what))?;
        Ok(self.u32(length).raw(value))
    }

    /// Appends a count (u32), as of the entries that follow.
    ///
    /// # Errors
    /// `what`, when there are more than a u32 can count.
    pub fn count(&mut self, count: usize, what: &'static str) -> Result<&mut Self, Malformed> {
        let count = u32::try_from(count).map_err(|_| self.malformed(what))?;
        Ok(self.u32(count))
    }

    /// Octets written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.bytes.len() }
    }
}

/// Fills a structure of `N` octets, field by field.
#[derive(Debug)]
pub struct Fixed<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fixed<N> {
    /// A structure of which nothing is written.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    /// Writes octets.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        let end = self.at.saturating_add(value.len());
        let room = self.bytes.get_mut(self.at..end);
        debug_assert!(room.is_some(), "a structure of {N} octets has no room for {end}");
        if let Some(room) = room {
            room.copy_from_slice(value);
        }
        self.at = end;
        self
    }

    /// Writes one octet.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// Writes two octets, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Writes four octets, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Writes eight octets, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Writes eight octets, big-endian, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Writes a text's length (u8), the text, and zeros up to `length_max`, which no text exceeds.
    pub fn padded_text(&mut self, text: &str, length_max: usize) -> &mut Self {
        let end = self.at + 1 + length_max;
        debug_assert!(text.len() <= length_max && length_max <= usize::from(u8::MAX));
        self.u8(u8::try_from(text.len()).unwrap_or(u8::MAX)).raw(text.as_bytes());
        self.at = end;
        self
    }

    /// What was written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.at).unwrap_or(&self.bytes)
    }

    /// The structure; what was not written is zero.
    #[must_use]
    pub fn finish(&self) -> [u8; N] {
        self.bytes
    }
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes fields from the front of a slice. Nothing is allocated for a length that is not there.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Decoder<'a> {
    /// Reads `bytes` from the beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// Offset of the next field.
    #[must_use]
    pub fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Octets that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error about the field that comes next.
    #[must_use]
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at() }
    }

    /// Takes `length` octets.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn raw(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed(what))?;
        self.rest = tail;
        Ok(head)
    }

    /// Takes `N` octets.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed(what))?;
        self.rest = tail;
        Ok(*head)
    }

    /// Takes one octet.
    ///
    /// # Errors
    /// `what`, when none is left.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Takes two octets, big-endian.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Takes four octets, big-endian.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Takes eight octets, big-endian.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Takes eight octets, big-endian, two's complement.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Takes a length (u8) and that many octets.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn short(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u8(what)?);
        self.raw(length, what)
    }

    /// Takes a length (u16) and that many octets.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn medium(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16(what)?);
        self.raw(length, what)
    }

    /// Takes a length (u32) and that many octets.
    ///
    /// # Errors
    /// `what`, when fewer are left.
    pub fn long(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32(what)?).map_err(|_| self.malformed(what))?;
        self.raw(length, what)
    }

    /// Takes a count (u32) of entries that are at least `entry_bytes_min` octets each.
    ///
    /// # Errors
    /// `what`, when so many entries cannot be left.
    pub fn count(&mut self, entry_bytes_min: usize, what: &'static str) -> Result<usize, Malformed> {
        let error = self.malformed(what);
        let count = usize::try_from(self.u32(what)?).map_err(|_| error)?;
        let least = count.checked_mul(entry_bytes_min.max(1)).ok_or(error)?;
        if least > self.rest.len() {
            return Err(error);
        }
        Ok(count)
    }

    /// Takes a length (u8) and that much UTF-8.
    ///
    /// # Errors
    /// `what`, when fewer octets are left or they are not UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let error = self.malformed(what);
        std::str::from_utf8(self.short(what)?).map_err(|_| error)
    }

    /// Takes a text written by [`Fixed::padded_text`]: its length (u8), the text, and zeros up to `length_max`.
    ///
    /// # Errors
    /// `what`, when it is not that.
    pub fn padded_text(&mut self, length_max: usize, what: &'static str) -> Result<&'a str, Malformed> {
        let error = self.malformed(what);
        let length = usize::from(self.u8(what)?);
        let (text, zeros) = self.raw(length_max, what)?.split_at_checked(length).ok_or(error)?;
        if zeros.iter().any(|octet| *octet != 0) {
            return Err(error);
        }
        std::str::from_utf8(text).map_err(|_| error)
    }

    /// Takes what is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// `what`, when something is.
    pub fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_of_parts_share_an_encoding() {
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
        assert_ne!(parts(&[b"ab"]), parts(&[b"ab", b""]));
        assert_ne!(parts(&[]), parts(&[b""]));
    }

    #[test]
    fn a_length_that_is_not_there_allocates_nothing() {
        let mut lying = Decoder::new(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(lying.long("name").unwrap_err(), Malformed { what: "name", at: 4 });
        let mut lying = Decoder::new(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(lying.count(8, "entries").unwrap_err(), Malformed { what: "entries", at: 0 });
    }
}
