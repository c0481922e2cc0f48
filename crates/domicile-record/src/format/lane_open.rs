//! The block that begins a lane, in clear: descriptor, commitment, wrapped data key.

use domicile::TenantId;
use domicile::keyring::WrappedKey;
use domicile::wire::{Decoder, Encoder, Malformed};

use super::{Descriptor, LaneNo};

/// The payload of a lane-open block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneOpen {
    /// Whose records, and how they are kept.
    pub descriptor: Descriptor,
    /// Commits to the data key, the segment, the lane and the descriptor.
    pub commitment: [u8; 32],
    /// The data key. It is in no hash and under no tag but its own, and may be wrapped again.
    pub wrapped: WrappedKey,
}

impl LaneOpen {
    /// The octets, as they stand in a file.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.long(&self.descriptor.encode()?, "descriptor")?
            .raw(&self.commitment)
            .medium(&self.wrapped.encode(), "wrapped key")?;
        Ok(out.finish())
    }

    /// The most octets of the payload that opens this lane.
    #[must_use]
    pub fn bytes_max(lane: LaneNo) -> usize {
        const COMMITMENT_BYTES: usize = 32;
        4 + Descriptor::bytes_max(lane) + COMMITMENT_BYTES + 2 + WrappedKey::BYTES
    }

    /// Reads the payload that opens this lane; every octet must be accounted for. Nothing is allocated for a
    /// descriptor that is longer than its lane may have it.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8], lane: LaneNo) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let descriptor = input.long("descriptor")?;
        if descriptor.len() > Descriptor::bytes_max(lane) {
            return Err(Malformed { what: "length of the descriptor", at: 0 });
        }
        let descriptor = Descriptor::decode(descriptor)?;
        let of_the_region = descriptor.scope.tenant == TenantId::REGION;
        let in_its_lane = if lane == LaneNo::REGION { descriptor.scope.is_region() } else { !of_the_region };
        if !in_its_lane {
            return Err(Malformed { what: "scope of the lane", at: 4 });
        }
        let commitment = input.array("commitment")?;
        let wrapped = WrappedKey::decode(input.medium("wrapped key")?)?;
        input.end("end of the lane-open block")?;
        Ok(Self { descriptor, commitment, wrapped })
    }
}
