//! Compression of a lane's data blocks, before they are sealed. What it leaks stands in the specification.

use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

use crate::block_buffer::BlockBuffer;
use crate::format::{Compression, PAYLOAD_BYTES_MAX};

/// How a payload stands in a block of a compressed lane.
const STORED: u8 = 0x00;
const ZSTD: u8 = 0x01;

/// Octets before it: how, three zeros, and its length when it is opened.
const HEAD_BYTES: usize = 8;

/// Fast: a fifth of the cipher's speed, and a third of the size of call records.
#[cfg(feature = "zstd")]
const LEVEL: i32 = 1;

/// Whether this build can write and read lanes of this compression.
///
/// # Errors
/// [`SegmentUnsupported`](Code::SegmentUnsupported).
pub(crate) fn check(compression: Compression) -> Result<()> {
    match compression {
        Compression::None => Ok(()),
        #[cfg(feature = "zstd")]
        Compression::Zstd => Ok(()),
        #[cfg(not(feature = "zstd"))]
        Compression::Zstd => Err(Error::new(Code::SegmentUnsupported, "this build knows no zstd")
            .advise("build it with the feature `zstd`")),
    }
}

/// Compresses blocks, with what one needs for it kept for the next.
#[derive(Default)]
pub(crate) struct Packer {
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// A block of what a compressed lane seals in place of this payload. Where compressing gains nothing, it is stored.
    pub(crate) fn compress(&mut self, payload: &[u8]) -> Result<BlockBuffer> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = |how: u8| [how, 0, 0, 0, length[0], length[1], length[2], length[3]];
        let mut block = BlockBuffer::with_room(HEAD_BYTES + payload.len() + 64);
        if let Some(packed) = self.pack(payload)? {
            block.append(&head(ZSTD));
            block.append(&packed);
            return Ok(block);
        }
        block.append(&head(STORED));
        block.append(payload);
        if block.payload_bytes() > PAYLOAD_BYTES_MAX {
            return Err(Error::new(Code::SegmentLimit, "a block of a compressed lane is too long"));
        }
        Ok(block)
    }

    /// The payload as a frame of zstd, where that is shorter.
    #[cfg(feature = "zstd")]
    fn pack(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        let failed = |source: std::io::Error| {
            Error::new(Code::WriterFailed, "a block could not be compressed").because(source)
        };
        if self.zstd.is_none() {
            self.zstd = Some(zstd::bulk::Compressor::new(LEVEL).map_err(failed)?);
        }
        let Some(zstd) = &mut self.zstd else { return Ok(None) };
        let packed = zstd.compress(payload).map_err(failed)?;
        Ok((packed.len() < payload.len()).then_some(packed))
    }

    #[cfg(not(feature = "zstd"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "with the feature it packs")]
    fn pack(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// The payload that a compressed lane's block holds: as long as it says, and no longer than a payload may be.
pub(crate) fn decompress(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let bad = |what| Malformed { what, at: 0 };
    let (head, packed) = body.split_first_chunk::<HEAD_BYTES>().ok_or(bad("head of a compressed block"))?;
    let [how, 0, 0, 0, length @ ..] = head else { return Err(bad("head of a compressed block")) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(bad("length of a compressed block"));
    }
    let payload = match *how {
        STORED => packed.to_vec(),
        #[cfg(feature = "zstd")]
        ZSTD => zstd::bulk::decompress(packed, length).map_err(|_| bad("zstd frame"))?,
        _ => return Err(bad("compression of a block")),
    };
    if payload.len() == length { Ok(payload) } else { Err(bad("length of a compressed block")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_and_lengths_that_lie_are_refused() {
        for payload in [vec![], b"a".repeat(100_000), (0..=255).collect::<Vec<u8>>()] {
            let block = Packer::default().compress(&payload).unwrap();
            assert_eq!(decompress(block.payload()).unwrap(), payload);
            assert!(block.payload_bytes() <= payload.len() + HEAD_BYTES);
            for length in [payload.len() + 1, payload.len().wrapping_sub(1), PAYLOAD_BYTES_MAX + 1] {
                let mut lies = block.payload().to_vec();
                lies[4..8].copy_from_slice(&u32::try_from(length & 0xFFFF_FFFF).unwrap().to_be_bytes());
                decompress(&lies).unwrap_err();
            }
        }
        for length in 0..HEAD_BYTES {
            decompress(&[0; HEAD_BYTES][..length]).unwrap_err();
        }
        decompress(&[9, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
    }

    /// A few octets that say that they are 16 MiB take no more than they are given.
    #[cfg(feature = "zstd")]
    #[test]
    fn what_expands_without_end_is_stopped_at_the_length_it_said() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let mut lies = vec![ZSTD, 0, 0, 0];
        lies.extend_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX).unwrap().to_be_bytes());
        lies.extend_from_slice(&bomb);
        assert!(lies.len() < 8 << 10);
        decompress(&lies).unwrap_err();
    }
}
