//! What a writer knows of its file: where the next block goes, and what stands before it.

use std::io::{self, Write};

use domicile::engine::TAG_BYTES;
use domicile::{Error, Result};

use crate::format::{BlockHeader, SegmentHeader};
use crate::running_hash::RunningHash;

/// Where a segment is written: in one go, and made durable on request.
pub trait Sink: Write {
    /// Returns once everything written so far survives a loss of power.
    ///
    /// # Errors
    /// What was written may be lost, whatever a later call says.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for std::fs::File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A segment that gets its name once it is whole.
impl Sink for domicile::files::NewFile {
    fn sync(&mut self) -> io::Result<()> {
        domicile::files::NewFile::sync(self)
    }
}

/// A segment in memory.
impl Sink for Vec<u8> {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
}

#[derive(Debug)]
pub(super) struct Output<S> {
    sink: S,
    at: u64,
    ordinal: u64,
    hash: RunningHash,
    /// Blocks below this ordinal were on disk when the last finished sync returned.
    durable: u64,
}

impl<S: Sink> Output<S> {
    pub(super) fn begin(sink: S, header: &SegmentHeader) -> Result<Self> {
        let mut output = Self { sink, at: 0, ordinal: 0, hash: RunningHash::new(header), durable: 0 };
        output.write(&header.encode())?;
        Ok(output)
    }

    /// The ordinal of the next block.
    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// The offset of the next block.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn running_hash(&self) -> [u8; 32] {
        self.hash.value()
    }

    /// Writes a sealed block, with header and padding; returns its offset.
    pub(super) fn write_sealed(&mut self, block: &[u8], tag: &[u8; TAG_BYTES]) -> Result<u64> {
        if let Some(header) = block.first_chunk::<{ BlockHeader::BYTES }>() {
            self.hash.add_sealed(header, tag);
        }
        self.write_block(block)
    }

    /// Writes a lane-open block; returns its offset.
    pub(super) fn write_lane_open(
        &mut self,
        block: &[u8],
        descriptor: &[u8],
        commitment: &[u8; 32],
    ) -> Result<u64> {
        if let Some(header) = block.first_chunk::<{ BlockHeader::BYTES }>() {
            self.hash.add_lane_open(header, descriptor, commitment);
        }
        self.write_block(block)
    }

    /// Writes the footer.
    pub(super) fn write_footer(&mut self, block: &[u8]) -> Result<u64> {
        self.write_block(block)
    }

    /// Hands on what the sink has kept back.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.sink.flush().map_err(|source| {
            Error::output_failed("the segment could not be written", source).at(format!("byte {}", self.at))
        })
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.sink
            .sync()
            .map_err(|source| Error::output_failed("the segment could not be made durable", source))?;
        self.durable = self.ordinal;
        Ok(())
    }

    /// Blocks below this ordinal were made durable, by whoever has the sink too.
    pub(super) fn made_durable(&mut self, ordinal: u64) {
        self.durable = self.durable.max(ordinal);
    }

    pub(super) fn sink(&self) -> &S {
        &self.sink
    }

    pub(super) fn into_sink(self) -> S {
        self.sink
    }

    fn write_block(&mut self, block: &[u8]) -> Result<u64> {
        let at = self.at;
        self.write(block)?;
        self.ordinal += 1;
        Ok(at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|source| {
            Error::output_failed("the segment could not be written", source).at(format!("byte {}", self.at))
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
