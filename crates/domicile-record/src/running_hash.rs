//! The running hash over all blocks of a segment, by ordinal: what lane 0 vouches for.

use sha2::{Digest, Sha256};

use domicile::engine::TAG_BYTES;

use crate::format::{BlockHeader, SegmentHeader};

/// SHA-256 over the fixed header and, for each block, what cannot be changed without its key.
#[derive(Debug, Clone)]
pub(crate) struct RunningHash(Sha256);

impl RunningHash {
    const SEALED: u8 = 0x01;
    const LANE_OPEN: u8 = 0x02;

    pub(crate) fn new(header: &SegmentHeader) -> Self {
        Self(Sha256::new().chain_update(b"domicile/v1/running-hash").chain_update(header.fixed()))
    }

    /// A sealed block: its header and its tag, both of fixed length.
    pub(crate) fn add_sealed(&mut self, header: &[u8; BlockHeader::BYTES], tag: &[u8; TAG_BYTES]) {
        self.0.update([Self::SEALED]);
        self.0.update(header);
        self.0.update(tag);
    }

    /// A lane-open block: of its header what comes before the length, descriptor and commitment. The
    /// wrapped key may be wrapped again, and with it the length may change.
    pub(crate) fn add_lane_open(
        &mut self,
        header: &[u8; BlockHeader::BYTES],
        descriptor: &[u8],
        commitment: &[u8; 32],
    ) {
        self.0.update([Self::LANE_OPEN]);
        self.0.update(header.get(..BlockHeader::LENGTH_AT).unwrap_or_default());
        self.0.update((descriptor.len() as u64).to_be_bytes());
        self.0.update(descriptor);
        self.0.update(commitment);
    }

    pub(crate) fn value(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }
}

/// What lane 0 keeps of a lane's end: SHA-256 over header and tag of its block.
pub(crate) fn end_hash(header: &[u8; BlockHeader::BYTES], tag: &[u8; TAG_BYTES]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"domicile/v1/lane-end")
        .chain_update(header)
        .chain_update(tag)
        .finalize()
        .into()
}
