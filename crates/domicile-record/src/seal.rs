//! Sealing the blocks of one lane: bytes in, bytes out, no files.

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
/// It is not `Clone` and cannot be resumed; after an error or at a limit it is spent. Nonces are drawn from
/// the operating system by the caller, one for each block: no two blocks of a lane share one, whatever is
/// forked, restored or crashes, because nothing here is counted to make them.
#[derive(Debug)]
pub(crate) struct LaneSealer {
    key: ContentKey,
    segment: SegmentId,
    lane: LaneNo,
    next_sequence: u32,
    bytes: u64,
    limits: Limits,
    spent: bool,
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
        let mut sealer =
            Self { key, segment: header.id, lane, next_sequence: 0, bytes: 0, limits, spent: false };
        let mut block = BlockBuffer::of(&payload);
        sealer.finish_block(BlockKind::LaneOpen, BlockFlags::default(), ordinal, None, &mut block)?;
        Ok((sealer, Opening { block, descriptor: encoded, commitment }))
    }

    /// Seals a block in place and completes it with header, tag and padding. Returns the tag.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) at a limit; whatever the engine says. The sealer is spent then.
    pub(crate) fn seal(
        &mut self,
        kind: BlockKind,
        flags: BlockFlags,
        ordinal: u64,
        nonce: Nonce,
        block: &mut BlockBuffer,
    ) -> Result<[u8; TAG_BYTES]> {
        let tag = self.finish_block(kind, flags, ordinal, Some(nonce), block)?;
        tag.ok_or_else(|| Error::new(Code::WriterFailed, "a block was not sealed"))
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

    fn finish_block(
        &mut self,
        kind: BlockKind,
        flags: BlockFlags,
        ordinal: u64,
        nonce: Option<Nonce>,
        block: &mut BlockBuffer,
    ) -> Result<Option<[u8; TAG_BYTES]>> {
        if self.spent {
            return Err(Error::new(Code::WriterFailed, "this lane failed before"));
        }
        // Spent until proven otherwise: an early return below leaves a lane that takes nothing more.
        self.spent = true;
        let payload_bytes = block.payload_bytes();
        let limit = |what: &str| {
            Err(Error::new(Code::SegmentLimit, what.to_owned())
                .at(format!("lane {}", self.lane))
                .rule("a lane has at most 2^24 blocks and 64 GiB"))
        };
        if self.next_sequence >= self.limits.lane_blocks {
            return limit("this lane has all the blocks that a lane may have");
        }
        let Ok(length) = u32::try_from(payload_bytes) else { return limit("this block is too long") };
        let header = BlockHeader {
            kind,
            flags,
            lane: self.lane,
            sequence: self.next_sequence,
            ordinal,
            length,
            nonce: nonce.as_ref().map_or([0; NONCE_BYTES], |nonce| *nonce.as_bytes()),
        };
        if self.bytes + header.block_bytes() > self.limits.lane_bytes {
            return limit("this lane has all the octets that a lane may have");
        }
        let encoded = header.encode(&self.segment);
        let (head, payload) = block.header_and_payload();
        head.copy_from_slice(&encoded);
        let tag = nonce.map(|nonce| self.key.seal(nonce, &encoded, payload)).transpose()?;
        if let Some(tag) = &tag {
            block.append(tag);
        }
        block.append_zeros(header.body_bytes() - header.sealed_bytes());
        self.next_sequence += 1;
        self.bytes += header.block_bytes();
        self.spent = false;
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(LaneSealer: Clone);
}
