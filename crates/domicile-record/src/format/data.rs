//! Data blocks: records back to back, and the arrays that address them. An opened block is an Arrow
//! binary array: values from octet 0, offsets aligned to 8.
//!
//! ```text
//! record octets | zeros to 8 | n+1 offsets (i32, little-endian, from 0) | zeros to 8
//!   | n event times (i64), earliest, latest (i64); or else when the block was sealed (i64)
//!   | n arrival numbers (i64); or the first of them (i64); or nothing
//!   | number of the first record (u64) | what is there (u8) and how many (u24)
//! ```

use std::fmt;

use domicile::wire::{Decoder, Malformed};

use super::{PAYLOAD_BYTES_MAX, padded};

/// The earliest and the latest event time of some records, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan {
    /// The earliest.
    pub earliest: i64,
    /// The latest; not before the earliest.
    pub latest: i64,
}

impl TimeSpan {
    /// One instant.
    #[must_use]
    pub fn at(micros: i64) -> Self {
        Self { earliest: micros, latest: micros }
    }

    /// The shortest span that holds both.
    #[must_use]
    pub fn with(self, other: TimeSpan) -> Self {
        Self { earliest: self.earliest.min(other.earliest), latest: self.latest.max(other.latest) }
    }
}

/// The arrival numbers of a block's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrivals {
    /// The lane carries none.
    None,
    /// They count up from this one: the records arrived one after another, and need no array.
    From(i64),
    /// Each record has its own.
    Each,
}

/// What a data block says of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSummary {
    /// How many records, or one piece of a record.
    pub count: u32,
    /// The number in its lane of the first record.
    pub first_record: u64,
    /// Whether each record has an event time.
    pub has_times: bool,
    /// The event times; without them, when the block was sealed.
    pub span: TimeSpan,
    /// The arrival numbers.
    pub arrivals: Arrivals,
}

impl DataSummary {
    /// The most records of a block.
    pub const COUNT_MAX: u32 = (1 << 24) - 1;

    const TAIL_BYTES: usize = 12;
    const TIMES: u8 = 0x01;
    const ARRIVALS_EACH: u8 = 0x02;
    const ARRIVALS_FROM: u8 = 0x04;

    /// The most octets that a block needs beside its records' own.
    #[must_use]
    pub fn overhead(count: usize, has_times: bool, has_arrivals: bool) -> usize {
        let arrays = usize::from(has_times) + usize::from(has_arrivals);
        // Seven zeros before the offsets and four behind them; two times and an arrival beside the arrays.
        7 + (count + 1) * 4 + 4 + arrays * count * 8 + 3 * 8 + Self::TAIL_BYTES
    }

    /// Completes a payload that holds `ends.len()` records, the octets from `start` on, in place.
    ///
    /// `ends` are the records' ends, counted from `start`; `times` and `arrivals` are read only where the
    /// summary says so.
    pub fn complete(
        &self,
        payload: &mut Vec<u8>,
        start: usize,
        ends: &[u32],
        times: &[i64],
        arrivals: &[i64],
    ) {
        let pad = |payload: &mut Vec<u8>| payload.resize(start + padded(payload.len() - start), 0);
        let numbers = |payload: &mut Vec<u8>, numbers: &[i64]| {
            numbers.iter().for_each(|number| payload.extend_from_slice(&number.to_be_bytes()));
        };
        pad(payload);
        let offsets_at = payload.len() + 4;
        payload.resize(offsets_at + ends.len() * 4, 0);
        let offsets = payload.get_mut(offsets_at..).unwrap_or_default();
        for (offset, end) in offsets.as_chunks_mut::<4>().0.iter_mut().zip(ends) {
            *offset = end.to_le_bytes();
        }
        pad(payload);
        let mut what = 0;
        if self.has_times {
            what |= Self::TIMES;
            numbers(payload, times);
            numbers(payload, &[self.span.earliest, self.span.latest]);
        } else {
            numbers(payload, &[self.span.latest]);
        }
        match self.arrivals {
            Arrivals::None => {}
            Arrivals::From(first) => {
                what |= Self::ARRIVALS_FROM;
                numbers(payload, &[first]);
            }
            Arrivals::Each => {
                what |= Self::ARRIVALS_EACH;
                numbers(payload, arrivals);
            }
        }
        payload.extend_from_slice(&self.first_record.to_be_bytes());
        payload.extend_from_slice(&(u32::from(what) << 24 | self.count & Self::COUNT_MAX).to_be_bytes());
    }
}

/// An opened data block. It owns its octets; records are slices of them.
pub struct DataBlock {
    payload: Vec<u8>,
    summary: DataSummary,
    offsets_at: usize,
    times_at: usize,
    arrivals_at: usize,
}

impl DataBlock {
    /// Reads an opened payload. What was sealed may still be hostile (a post may have sealed it): every
    /// offset is checked here, once, so that records are slices afterwards.
    ///
    /// # Errors
    /// The part that is not what it should be.
    pub fn decode(payload: Vec<u8>) -> Result<Self, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(bad("length of a data block"));
        }
        let (rest, tail) = payload.split_last_chunk::<{ DataSummary::TAIL_BYTES }>().ok_or(bad("tail"))?;
        let mut tail = Decoder::new(tail);
        let first_record = tail.u64("first record")?;
        let [what, count @ ..] = tail.array::<4>("count of records")?;
        let count = u32::from_be_bytes([0, count[0], count[1], count[2]]);
        // A count has 24 bits, so none of these products overflows; and the rest is at most 16 MiB.
        let (records, mut end) = (count as usize, rest.len());
        let mut take = |octets: usize| -> Result<usize, Malformed> {
            end = end.checked_sub(octets).ok_or(bad("arrays of a data block"))?;
            Ok(end)
        };
        let number = |at: usize| -> Result<i64, Malformed> {
            Decoder::new(rest.get(at..).unwrap_or_default()).i64("arrays of a data block")
        };

        let (arrivals_at, arrivals) = match what & !DataSummary::TIMES {
            0 => (take(0)?, Arrivals::None),
            DataSummary::ARRIVALS_FROM => {
                let at = take(8)?;
                (at, Arrivals::From(number(at)?))
            }
            DataSummary::ARRIVALS_EACH => (take(records * 8)?, Arrivals::Each),
            _ => return Err(bad("arrays of a data block")),
        };
        let has_times = what & DataSummary::TIMES != 0;
        let span_at = take(if has_times { 16 } else { 8 })?;
        let span = match has_times {
            true => TimeSpan { earliest: number(span_at)?, latest: number(span_at + 8)? },
            false => TimeSpan::at(number(span_at)?),
        };
        let times_at = take(if has_times { records * 8 } else { 0 })?;
        let offsets_at = take(padded((records + 1) * 4))?;
        if count == 0 || span.earliest > span.latest || !offsets_at.is_multiple_of(8) {
            return Err(bad("tail of a data block"));
        }
        let summary = DataSummary { count, first_record, has_times, span, arrivals };
        let block = Self { payload, summary, offsets_at, times_at, arrivals_at };
        block.check_offsets()?;
        Ok(block)
    }

    /// What the block says of itself.
    #[must_use]
    pub fn summary(&self) -> &DataSummary {
        &self.summary
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.summary.count as usize
    }

    /// Never: a block holds at least one record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All records, in order.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let values = self.payload.get(..self.offsets_at).unwrap_or_default();
        Records { values, ends: self.offsets().get(4..).unwrap_or_default(), start: 0 }
    }

    /// One record, by its place in the block.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<&[u8]> {
        let (start, end) = (self.offset(index)?, self.offset(index.checked_add(1)?)?);
        self.payload.get(start..end)
    }

    /// The event time of a record, where the lane carries them.
    #[must_use]
    pub fn time(&self, index: usize) -> Option<i64> {
        (self.summary.has_times && index < self.len()).then(|| self.number(self.times_at, index))?
    }

    /// The arrival number of a record, where the lane carries them.
    #[must_use]
    pub fn arrival(&self, index: usize) -> Option<i64> {
        if index >= self.len() {
            return None;
        }
        match self.summary.arrivals {
            Arrivals::None => None,
            Arrivals::From(first) => first.checked_add(i64::try_from(index).ok()?),
            Arrivals::Each => self.number(self.arrivals_at, index),
        }
    }

    /// The records' octets, back to back: the values of an Arrow binary array.
    #[must_use]
    pub fn values(&self) -> &[u8] {
        self.offset(self.len()).and_then(|end| self.payload.get(..end)).unwrap_or_default()
    }

    /// The offsets, as Arrow has them: n+1 times i32, little-endian.
    #[must_use]
    pub fn offsets(&self) -> &[u8] {
        self.payload
            .get(self.offsets_at..)
            .and_then(|rest| rest.get(..(self.len() + 1) * 4))
            .unwrap_or_default()
    }

    /// Checks what reading does not need: that the summary agrees with the arrays.
    ///
    /// # Errors
    /// The part that does not agree.
    pub fn verify(&self) -> Result<(), Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        if self.summary.has_times {
            let spans = (0..self.len()).filter_map(|index| self.time(index)).map(TimeSpan::at);
            if spans.reduce(TimeSpan::with) != Some(self.summary.span) {
                return Err(bad("time span of a data block"));
            }
        }
        if self.summary.arrivals != Arrivals::None && self.arrival(self.len() - 1).is_none() {
            return Err(bad("arrival numbers of a data block"));
        }
        Ok(())
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        self.payload.capacity()
    }

    /// Gives the buffer back, to be used again.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.payload
    }

    #[expect(clippy::little_endian_bytes, reason = "offsets are as Arrow has them")]
    fn check_offsets(&self) -> Result<(), Malformed> {
        let bad = Malformed { what: "offsets of a data block", at: self.offsets_at };
        let mut previous = 0;
        let mut rises = true;
        for offset in self.offsets().as_chunks::<4>().0 {
            let offset = i32::from_le_bytes(*offset);
            rises &= offset >= previous;
            previous = offset;
        }
        let end = usize::try_from(previous).map_err(|_| bad)?;
        let zeros = |range: std::ops::Range<usize>| {
            self.payload.get(range).is_some_and(|zeros| zeros.iter().all(|octet| *octet == 0))
        };
        let tight = padded(end) == self.offsets_at
            && self.offset(0) == Some(0)
            && zeros(end..self.offsets_at)
            && zeros(self.offsets_at + self.offsets().len()..self.times_at);
        if rises && tight { Ok(()) } else { Err(bad) }
    }

    #[expect(clippy::little_endian_bytes, reason = "offsets are as Arrow has them")]
    fn offset(&self, index: usize) -> Option<usize> {
        let bytes = self.offsets().as_chunks::<4>().0.get(index)?;
        usize::try_from(i32::from_le_bytes(*bytes)).ok()
    }

    fn number(&self, at: usize, index: usize) -> Option<i64> {
        let bytes = self.payload.get(at..)?.as_chunks::<8>().0.get(index)?;
        Some(i64::from_be_bytes(*bytes))
    }
}

impl fmt::Debug for DataBlock {
    /// Shows how much there is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataBlock")
            .field("records", &self.len())
            .field("record_bytes", &self.values().len())
            .field("first_record", &self.summary.first_record)
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a DataBlock {
    type Item = &'a [u8];
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.records()
    }
}

/// The records of a block, in order.
#[derive(Clone)]
pub struct Records<'a> {
    values: &'a [u8],
    ends: &'a [u8],
    start: usize,
}

impl fmt::Debug for Records<'_> {
    /// Shows how many are left, and nothing of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("left", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    #[inline]
    #[expect(clippy::little_endian_bytes, reason = "offsets are as Arrow has them")]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (end, rest) = self.ends.split_first_chunk::<4>()?;
        self.ends = rest;
        // Checked when the block was read: offsets rise from 0 to the end of the values.
        let end = u32::from_le_bytes(*end) as usize;
        let record = self.values.get(self.start..end)?;
        self.start = end;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.len() / 4;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(records: &[Vec<u8>], times: Option<&[i64]>, arrivals: Arrivals, each: &[i64]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut ends = Vec::new();
        for record in records {
            payload.extend_from_slice(record);
            ends.push(u32::try_from(payload.len()).unwrap());
        }
        let spans = times.unwrap_or(&[1]).iter().copied().map(TimeSpan::at);
        let summary = DataSummary {
            count: u32::try_from(records.len()).unwrap(),
            first_record: 5,
            has_times: times.is_some(),
            span: spans.reduce(TimeSpan::with).unwrap(),
            arrivals,
        };
        summary.complete(&mut payload, 0, &ends, times.unwrap_or(&[]), each);
        payload
    }

    proptest! {
        #[test]
        fn records_times_and_arrivals_read_back(
            records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), any::<i64>(), any::<i64>()), 1..30),
            has_times: bool,
            arrivals in prop::sample::select(vec![Arrivals::None, Arrivals::From(-7), Arrivals::Each]),
        ) {
            let bytes: Vec<_> = records.iter().map(|record| record.0.clone()).collect();
            let times: Vec<_> = records.iter().map(|record| record.1).collect();
            let each: Vec<_> = records.iter().map(|record| record.2).collect();
            let payload = encoded(&bytes, has_times.then_some(&times[..]), arrivals, &each);
            let bound = DataSummary::overhead(bytes.len(), has_times, arrivals == Arrivals::Each);
            prop_assert!(payload.len() <= bytes.concat().len() + bound);
            let block = DataBlock::decode(payload).unwrap();
            block.verify().unwrap();
            prop_assert!(block.records().eq(bytes.iter().map(|record| &record[..])));
            prop_assert_eq!(block.values(), bytes.concat());
            for (index, number) in (0..bytes.len()).zip(-7i64..) {
                prop_assert_eq!(block.record(index), Some(&bytes[index][..]));
                prop_assert_eq!(block.time(index), has_times.then_some(times[index]));
                let expected = match arrivals {
                    Arrivals::None => None,
                    Arrivals::From(_) => Some(number),
                    Arrivals::Each => Some(each[index]),
                };
                prop_assert_eq!(block.arrival(index), expected);
            }
            prop_assert_eq!(block.record(bytes.len()), None);
            prop_assert_eq!(block.arrival(bytes.len()), None);
        }

        #[test]
        fn hostile_payloads_are_refused_or_read_within_bounds(
            mut payload in prop::collection::vec(0u8..4, 0..200),
            count in 0u8..12,
            what in 0u8..8,
        ) {
            // Enough structure to get past the tail, hostile in everything else.
            payload.extend_from_slice(&[&[0; 8][..], &[what, 0, 0, count]].concat());
            if let Ok(block) = DataBlock::decode(payload) {
                let _ = block.verify();
                prop_assert_eq!(block.records().count(), block.len());
                prop_assert_eq!(block.records().map(<[u8]>::len).sum::<usize>(), block.values().len());
            }
        }
    }

    #[test]
    fn every_single_octet_that_matters_is_checked() {
        let payload = encoded(&[b"abc".to_vec(), b"de".to_vec()], None, Arrivals::None, &[]);
        DataBlock::decode(payload.clone()).unwrap();
        // Zeros behind the records, and the zeros behind the offsets.
        for at in [5, 6, 7, 20, 21, 22, 23] {
            let mut bad = payload.clone();
            bad[at] = 1;
            DataBlock::decode(bad).unwrap_err();
        }
        // Offsets that fall, that start above zero, and that end before the records do.
        for (at, octet) in [(8, 1), (12, 9), (16, 4), (19, 0x80)] {
            let mut bad = payload.clone();
            bad[at] = octet;
            DataBlock::decode(bad).unwrap_err();
        }
        for length in 0..payload.len() {
            assert!(DataBlock::decode(payload[..length].to_vec()).is_err(), "cut to {length}");
        }
    }
}
