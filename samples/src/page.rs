//! The buffer in which a record is put together, and the texts that it is put together from.
//!
//! Copying a text whose length is known only at run time is a call and a branch that nobody can predict.
//! So a text is copied with as many of the octets behind it as make the number a constant, which the
//! compiler turns into a few moves, and the next text goes over what was too much.

/// Records in the making.
pub(crate) struct Page<'a> {
    // Borrowed, so that the length can stay in a register while octets are stored: in a buffer of the
    // page's own, every store might change it.
    octets: &'a mut [u8; PAGE_OCTETS],
    length: usize,
}

/// Room for some fifty records: read back much sooner, what was just stored would have to be waited for.
pub(crate) const PAGE_OCTETS: usize = 16 * 1024;

/// Room that is left for a record. What does not fit is not written, but the longest record has less than a
/// third of this: a test sees to it.
pub(crate) const RECORD_OCTETS_MAX: usize = 4 * 1024;

impl<'a> Page<'a> {
    #[inline]
    pub(crate) fn new(octets: &'a mut [u8; PAGE_OCTETS]) -> Self {
        Self { octets, length: 0 }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends `text`.
    #[inline(always)]
    pub(crate) fn literal<const N: usize>(&mut self, text: &[u8; N]) {
        self.padded(text, N);
    }

    /// Appends the first `length` octets of `text`.
    #[inline(always)]
    pub(crate) fn padded<const N: usize>(&mut self, text: &[u8; N], length: usize) {
        if let Some(room) = self.octets.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut) {
            *room = *text;
        }
        self.length += length;
    }

    /// Appends `text`, of any length.
    #[inline]
    pub(crate) fn slice(&mut self, text: &[u8]) {
        if let Some(room) = self.octets.get_mut(self.length..self.length + text.len()) {
            room.copy_from_slice(text);
        }
        self.length += text.len();
    }

    /// Appends text `index`, quickly if it has at most `N` octets.
    #[inline(always)]
    pub(crate) fn text<const N: usize>(&mut self, texts: &Texts, index: usize) {
        let (from_here, length) = texts.from(index);
        let room = self.octets.get_mut(self.length..).unwrap_or_default();
        match (from_here.first_chunk::<N>(), room.first_chunk_mut()) {
            (Some(text), Some(room)) if length <= N => *room = *text,
            _ => copy_exactly(from_here, length, room),
        }
        self.length += length;
    }

    /// Appends a UUID, given in two halves: `8-4-4-4-12` digits.
    #[inline(always)]
    pub(crate) fn uuid(&mut self, [first, second]: [u64; 2]) {
        const DASH: u128 = b'-' as u128;
        let (time, versions) = (eight_digits(first >> 32), u128::from(eight_digits(first & 0xFFFF_FFFF)));
        let (variant, node) = (eight_digits(second >> 32), u128::from(eight_digits(second & 0xFFFF_FFFF)));
        self.literal(&time.to_be_bytes());
        // Each from the highest octet down: -xxxx-xxxx-, then xxxx-, then the last twelve digits.
        let middle =
            DASH << 120 | (versions >> 32) << 88 | DASH << 80 | (versions & 0xFFFF_FFFF) << 48 | DASH << 40;
        self.padded(&middle.to_be_bytes(), 11);
        let [a, b, c, d, tail @ ..] = variant.to_be_bytes();
        self.literal(&[a, b, c, d, b'-']);
        self.padded(&(u128::from(u32::from_be_bytes(tail)) << 96 | node << 32).to_be_bytes(), 12);
    }

    /// Puts `octets` at `offset`, over what is there.
    pub(crate) fn patch<const N: usize>(&mut self, offset: usize, octets: [u8; N]) {
        if let Some(room) = self.octets.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
            *room = octets;
        }
    }

    /// Whether there may be too little room for another record.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.length > PAGE_OCTETS - RECORD_OCTETS_MAX
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// Copies `length` octets of `text` to the front of `room`.
#[cold]
fn copy_exactly(text: &[u8], length: usize, room: &mut [u8]) {
    if let (Some(text), Some(room)) = (text.get(..length), room.get_mut(..length)) {
        room.copy_from_slice(text);
    }
}

/// Texts by number, back to back.
pub(crate) struct Texts {
    octets: Vec<u8>,
    /// Offset and length of each.
    spans: Vec<(u32, u32)>,
}

impl Texts {
    /// Octets kept behind the last text, so that it too can be copied with more than its own.
    const SLACK: usize = 256;

    pub(crate) fn new() -> Self {
        Self { octets: vec![0; Self::SLACK], spans: Vec::new() }
    }

    /// Adds a text under the next number.
    pub(crate) fn push(&mut self, text: &[u8]) {
        let offset = self.octets.len().saturating_sub(Self::SLACK);
        self.octets.truncate(offset);
        self.octets.extend_from_slice(text);
        self.octets.resize(offset + text.len() + Self::SLACK, 0);
        // A table has a few thousand texts of a few hundred octets.
        let narrow = |number: usize| u32::try_from(number).unwrap_or_default();
        self.spans.push((narrow(offset), narrow(text.len())));
    }

    #[inline]
    pub(crate) fn length(&self, index: usize) -> usize {
        self.spans.get(index).map_or(0, |&(_, length)| length as usize)
    }

    /// Text `index`, as long as it is.
    pub(crate) fn exactly(&self, index: usize) -> &[u8] {
        let (text, length) = self.from(index);
        text.get(..length).unwrap_or_default()
    }

    /// What begins with text `index`, and how long that is.
    #[inline]
    fn from(&self, index: usize) -> (&[u8], usize) {
        let (offset, length) = self.spans.get(index).copied().unwrap_or_default();
        (self.octets.get(offset as usize..).unwrap_or_default(), length as usize)
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut table = Self::new();
        texts.into_iter().for_each(|text| table.push(text.as_ref()));
        table
    }
}

/// A number of 64 bits as sixteen hexadecimal digits.
#[inline]
pub(crate) fn hexadecimal(word: u64) -> [u8; 16] {
    let digits = u128::from(eight_digits(word >> 32)) << 64 | u128::from(eight_digits(word & 0xFFFF_FFFF));
    digits.to_be_bytes()
}

/// A number of 32 bits as eight hexadecimal digits, the first in the highest octet.
#[inline]
fn eight_digits(number: u64) -> u64 {
    // Halve what lies together until every four bits have an octet of their own.
    let spread = (number << 16 | number) & 0x0000_FFFF_0000_FFFF;
    let spread = (spread << 8 | spread) & 0x00FF_00FF_00FF_00FF;
    let spread = (spread << 4 | spread) & 0x0F0F_0F0F_0F0F_0F0F;
    // Adding 6 carries into the upper half of the octet from 10 on: there the letters begin.
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_come_out_as_they_went_in() {
        let texts: Texts =
            [0, 1, 15, 16, 17, 300, 1500].into_iter().map(|length| vec![b'x'; length]).collect();
        let mut octets = [0; PAGE_OCTETS];
        let mut page = Page::new(&mut octets);
        for index in (0..7).chain((0..7).rev()) {
            page.text::<16>(&texts, index);
            page.literal(b"|");
        }
        let parts: Vec<&[u8]> = page.as_bytes().split(|&octet| octet == b'|').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [0, 1, 15, 16, 17, 300, 1500, 1500, 300, 17, 16, 15, 1, 0, 0]);
        assert!(parts.concat().iter().all(|&octet| octet == b'x'));
        page.patch(3, *b"yy");
        assert!(page.as_bytes().starts_with(b"|x|yyxx"));
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_standard_library() {
        for word in [0, 1, 0x0123_4567_89AB_CDEF, 0x9090_A0A0_FFFF_0000, u64::MAX] {
            assert_eq!(hexadecimal(word), format!("{word:016x}").as_bytes());
        }
    }
}
