//! The block that begins a lane, in clear: descriptor, commitment, wrapped data key.

use domicile::keyring::WrappedKey;
use domicile::wire::{Decoder, Encoder, Malformed};

use super::{Descriptor, REGION_DESCRIPTOR_BYTES_MAX};

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

    /// Reads the payload; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let descriptor = input.long("descriptor")?;
        if descriptor.len() > REGION_DESCRIPTOR_BYTES_MAX {
            return Err(Malformed { what: "length of the descriptor", at: 0 });
        }
        let descriptor = Descriptor::decode(descriptor)?;
        let commitment = input.array("commitment")?;
        let wrapped = WrappedKey::decode(input.medium("wrapped key")?)?;
        input.end("end of the lane-open block")?;
        Ok(Self { descriptor, commitment, wrapped })
    }
}
