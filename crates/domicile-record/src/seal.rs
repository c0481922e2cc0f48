//! Sealing the blocks of one lane: bytes in, bytes out, no files.

use std::sync::Arc;

use domicile::engine::{ContentKey, Engine, NONCE_BYTES, Nonce, TAG_BYTES};
use domicile::keyring::{DataKey, WrappedKey};
use domicile::post::PostSeal;
use domicile::{Code, Error, Result};

use crate::block_buffer::BlockBuffer;
use crate::format::{
    BlockFlags, BlockHeader, BlockKind, Descriptor, LaneNo, LaneOpen, Limits, SegmentHeader, SegmentId,
};
use crate::lane_key;

/// Seals the blocks of one lane, in order, once.
///
/// It is not `Clone` and cannot be resumed. A place in the lane is spent when it is given out, whether or not a block comes to
/// stand there: whoever fails in between writes nothing more. Nonces are drawn from the operating system by the caller, one
/// for each block: no two blocks of a lane share one, whatever is forked, restored or crashes, because nothing here is counted
/// to make them.
#[derive(Debug)]
pub(crate) struct LaneSealer {
    key: Arc<ContentKey>,
    segment: SegmentId,
    lane: LaneNo,
    next_sequence: u32,
    bytes: u64,
    limits: Limits,
}

/// One block's place, its nonce, and the key of its lane: what it takes to seal it, once, on whichever thread.
#[derive(Debug)]
pub(crate) struct BlockSealer {
    key: Arc<ContentKey>,
    segment: SegmentId,
    header: BlockHeader,
    nonce: Nonce,
}

/// What a lane-open block binds: for the running hash.
pub(crate) struct Opening {
    pub(crate) block: BlockBuffer,
    pub(crate) descriptor: Vec<u8>,
    pub(crate) commitment: [u8; 32],
}

impl LaneSealer {
    /// Begins a lane with a data key that nothing else has; `keep` says, of descriptor and commitment, how the opening
    /// keeps it.
    #[expect(clippy::too_many_arguments, reason = "everything that a lane is bound to")]
    pub(crate) fn begin(
        header: &SegmentHeader,
        lane: LaneNo,
        ordinal: u64,
        descriptor: Descriptor,
        engine: Engine,
        data_key: &DataKey,
        keep: impl FnOnce(&[u8], &[u8; 32]) -> Result<(Option<WrappedKey>, Option<PostSeal>)>,
        limits: Limits,
    ) -> Result<(Self, Opening)> {
        let misfit =
            |source| Error::new(Code::SegmentLimit, "this lane's descriptor does not fit").because(source);
        let encoded = descriptor.encode().map_err(misfit)?;
        let (key, commitment) = lane_key::derive(data_key, engine, descriptor.suite, header, lane, &encoded)?;
        let (wrapped, post) = keep(&encoded, &commitment)?;
        let payload = LaneOpen { descriptor, commitment, wrapped, post }.encode().map_err(misfit)?;
        let key = Arc::new(key);
        let mut sealer = Self { key, segment: header.id, lane, next_sequence: 0, bytes: 0, limits };
        let mut block = BlockBuffer::of(&payload);
        let opening = sealer.next_header(BlockKind::LaneOpen, BlockFlags::default(), ordinal, None)?;
        finish_block(opening, &header.id, None, &mut block)?;
        sealer.wrote(block.block().len())?;
        Ok((sealer, Opening { block, descriptor: encoded, commitment }))
    }

    /// Seals a block in place and completes it with header, tag and padding. Returns the tag.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) at a limit; whatever the engine says.
    pub(crate) fn seal(
        &mut self,
        kind: BlockKind,
        flags: BlockFlags,
        ordinal: u64,
        nonce: Nonce,
        block: &mut BlockBuffer,
    ) -> Result<[u8; TAG_BYTES]> {
        let tag = self.next_block(kind, flags, ordinal, nonce)?.seal(block)?;
        self.wrote(block.block().len())?;
        Ok(tag)
    }

    /// Gives a block its place; it is counted once it [was sealed](Self::wrote).
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) where the lane has all its blocks.
    pub(crate) fn next_block(
        &mut self,
        kind: BlockKind,
        flags: BlockFlags,
        ordinal: u64,
        nonce: Nonce,
    ) -> Result<BlockSealer> {
        let header = self.next_header(kind, flags, ordinal, Some(&nonce))?;
        Ok(BlockSealer { key: self.key.clone(), segment: self.segment, header, nonce })
    }

    /// Counts the octets of a block, header and padding among them.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) when the lane has more octets than it may have: the block must not be written.
    pub(crate) fn wrote(&mut self, block_bytes: usize) -> Result<()> {
        self.bytes += block_bytes as u64;
        if self.bytes > self.limits.lane_bytes {
            return Err(self.limit("this lane has all the octets that a lane may have"));
        }
        Ok(())
    }

    /// Reads what is always needed of the key.
    pub(crate) fn touch(&self) -> usize {
        self.key.touch().wrapping_add(self.next_sequence as usize)
    }

    /// The place in the lane of the next block.
    pub(crate) fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Whether a block of `payload_bytes` still fits, with room for `blocks_after` more.
    pub(crate) fn has_room(&self, payload_bytes: usize, blocks_after: u32) -> bool {
        let bytes = self.bytes + (payload_bytes + BlockHeader::BYTES + TAG_BYTES + 8) as u64;
        self.next_sequence.saturating_add(blocks_after) < self.limits.lane_blocks
            && bytes <= self.limits.lane_bytes
    }

    fn next_header(
        &mut self,
        kind: BlockKind,
        flags: BlockFlags,
        ordinal: u64,
        nonce: Option<&Nonce>,
    ) -> Result<BlockHeader> {
        if self.next_sequence >= self.limits.lane_blocks {
            return Err(self.limit("this lane has all the blocks that a lane may have"));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let nonce = nonce.map_or([0; NONCE_BYTES], |nonce| *nonce.as_bytes());
        Ok(BlockHeader { kind, flags, lane: self.lane, sequence, ordinal, length: 0, nonce })
    }

    #[cold]
    fn limit(&self, what: &str) -> Error {
        Error::new(Code::SegmentLimit, what.to_owned())
            .at(format!("lane {}", self.lane))
            .rule("a lane has at most 2^24 blocks and 64 GiB")
    }
}

impl BlockSealer {
    /// The block's place in its lane.
    pub(crate) fn sequence(&self) -> u32 {
        self.header.sequence
    }

    /// Seals the block in place and completes it with header, tag and padding. Returns the tag.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) for one that is too long; whatever the engine says.
    pub(crate) fn seal(self, block: &mut BlockBuffer) -> Result<[u8; TAG_BYTES]> {
        let tag = finish_block(self.header, &self.segment, Some((&self.key, self.nonce)), block)?;
        tag.ok_or_else(|| Error::new(Code::WriterFailed, "a block was not sealed"))
    }
}

/// Completes a block with its header and padding and, where it is sealed, its tag.
fn finish_block(
    header: BlockHeader,
    segment: &SegmentId,
    key: Option<(&ContentKey, Nonce)>,
    block: &mut BlockBuffer,
) -> Result<Option<[u8; TAG_BYTES]>> {
    let length = u32::try_from(block.payload_bytes())
        .map_err(|_| Error::new(Code::SegmentLimit, "a block is longer than a block may be"))?;
    let header = BlockHeader { length, ..header };
    let encoded = header.encode(segment);
    let (head, payload) = block.header_and_payload();
    head.copy_from_slice(&encoded);
    let tag = key.map(|(key, nonce)| key.seal(nonce, &encoded, payload)).transpose()?;
    if let Some(tag) = &tag {
        block.append(tag);
    }
    block.append_zeros(header.body_bytes() - header.sealed_bytes());
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(LaneSealer: Clone);
    assert_not_impl_any!(BlockSealer: Clone);
}
