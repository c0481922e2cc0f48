//! The memory of one block while it is filled and sealed: room for a header, then the payload.

use std::fmt;

use crate::format::BlockHeader;

/// A block in the making. The payload begins where a vector register's worth of octets does, so that
/// neither copying into it nor sealing it crosses cache lines: that is worth a tenth of the time.
#[derive(Default)]
pub(crate) struct BlockBuffer {
    bytes: Vec<u8>,
    /// Where the payload begins; the header ends there. 0 while there is no memory.
    start: usize,
}

/// Octets that are being written. Whatever happens meanwhile, those behind `length` are none.
struct Appending<'a> {
    bytes: &'a mut Vec<u8>,
    length: usize,
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.bytes.truncate(self.length);
    }
}

impl fmt::Debug for BlockBuffer {
    /// Shows how much there is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockBuffer").field("payload_bytes", &self.payload_bytes()).finish_non_exhaustive()
    }
}

impl BlockBuffer {
    /// Where payloads begin.
    pub(crate) const ALIGNMENT: usize = 64;

    /// An empty payload, with room for `payload_bytes` without moving.
    pub(crate) fn with_room(payload_bytes: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(payload_bytes + BlockHeader::BYTES + 2 * Self::ALIGNMENT);
        // Any start is right; where the alignment cannot be told, the first that leaves room will do.
        let aligned = bytes.as_ptr().align_offset(Self::ALIGNMENT) % Self::ALIGNMENT;
        let start = if aligned < BlockHeader::BYTES { aligned + Self::ALIGNMENT } else { aligned };
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Octets that the payload may have, and what stands behind it, without moving.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity() - self.start
    }

    /// The payload.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// A block of this payload.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let mut block = Self::with_room(payload.len() + Self::ALIGNMENT);
        block.append(payload);
        block
    }

    /// Whether there is any memory.
    pub(crate) fn has_memory(&self) -> bool {
        self.start > 0
    }

    /// Octets of the payload.
    #[inline]
    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends to the payload.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeros.
    #[inline]
    pub(crate) fn append_zeros(&mut self, length: usize) {
        self.bytes.resize(self.bytes.len() + length, 0);
    }

    /// Appends zeros that `fill` writes over; nothing, if it panics.
    #[inline]
    pub(crate) fn append_with(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) {
        let mut appending = Appending { length: self.bytes.len(), bytes: &mut self.bytes };
        let before = appending.length;
        appending.bytes.resize(before + length, 0);
        fill(appending.bytes.get_mut(before..).unwrap_or_default());
        appending.length = before + length;
    }

    /// The payload as part of its vector, and where it begins there.
    pub(crate) fn parts(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.bytes, self.start)
    }

    /// The header's room and the payload.
    pub(crate) fn header_and_payload(&mut self) -> (&mut [u8], &mut [u8]) {
        let (head, payload) = self.bytes.split_at_mut(self.start);
        let room = head.len() - BlockHeader::BYTES;
        (head.split_at_mut(room).1, payload)
    }

    /// The block as it is written: header, and what stands behind it.
    pub(crate) fn block(&self) -> &[u8] {
        self.bytes.get(self.start - BlockHeader::BYTES..).unwrap_or_default()
    }

    /// Empties the payload, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }
}
