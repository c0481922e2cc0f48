//! Where a segment is read from: any place that gives octets at an offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Octets at offsets: a file, or memory.
pub trait Source {
    /// How many octets there are.
    ///
    /// # Errors
    /// Those of asking.
    fn length(&self) -> io::Result<u64>;

    /// Fills `into` with the octets from `at` on.
    ///
    /// # Errors
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when there are fewer; those of reading.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// How many octets between two that are wanted are better read for nothing than left out by one read more: a page of a
    /// disk, unless said otherwise.
    fn near_bytes(&self) -> u64 {
        4 << 10
    }

    /// Whether the last 64 KiB are at hand, and everything else is asked for over a network: the header is then read from its
    /// copy at the end, and nothing is read twice.
    fn is_far(&self) -> bool {
        false
    }

    /// Says that what stands from one offset to another will be read next, in pieces, so that where reads are paid by the
    /// request it is had by one. Whether it is at hand now.
    ///
    /// # Errors
    /// Those of reading.
    fn fetch(&self, from: u64, to: u64) -> io::Result<bool> {
        let _ = (from, to);
        Ok(false)
    }
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

impl Source for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).ok();
        let octets = start.and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(octets.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn near_bytes(&self) -> u64 {
        0
    }
}

impl Source for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        self[..].length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self[..].read_at(at, into)
    }

    fn near_bytes(&self) -> u64 {
        self[..].near_bytes()
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read_at(at, into)
    }

    fn near_bytes(&self) -> u64 {
        (**self).near_bytes()
    }

    fn is_far(&self) -> bool {
        (**self).is_far()
    }

    fn fetch(&self, from: u64, to: u64) -> io::Result<bool> {
        (**self).fetch(from, to)
    }
}

impl<S: Source + ?Sized> Source for std::sync::Arc<S> {
    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read_at(at, into)
    }

    fn near_bytes(&self) -> u64 {
        (**self).near_bytes()
    }

    fn is_far(&self) -> bool {
        (**self).is_far()
    }

    fn fetch(&self, from: u64, to: u64) -> io::Result<bool> {
        (**self).fetch(from, to)
    }
}
