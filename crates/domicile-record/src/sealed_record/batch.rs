//! Many records in one buffer.

use std::fmt;
use std::ops::Range;

use domicile::{Error, Result};

/// Sealed records back to back. Used again, it allocates nothing once it is large enough.
#[derive(Default)]
pub struct SealedBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl SealedBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The sealed records, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl fmt::Debug for SealedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBatch({} records, {} bytes)", self.ends.len(), self.bytes.len())
    }
}

/// Opened records, or why each could not be opened.
#[derive(Default)]
pub struct OpenedBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Result<Range<usize>>>,
}

impl OpenedBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it has an answer for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = Result<&[u8], &Error>> {
        let record = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.records.iter().map(move |opened| opened.as_ref().map(record))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}

impl fmt::Debug for OpenedBatch {
    /// Shows how much was opened, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenedBatch({} records)", self.records.len())
    }
}
