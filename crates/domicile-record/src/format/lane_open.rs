//! The block that begins a lane, in clear: descriptor, commitment, wrapped data key.

use domicile::TenantId;
use domicile::keyring::WrappedKey;
use domicile::post::PostSeal;
use domicile::wire::{Decoder, Encoder, Malformed};

use super::{Descriptor, LaneNo, Origin};

/// The payload of a lane-open block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneOpen {
    /// Whose records, and how they are kept.
    pub descriptor: Descriptor,
    /// Commits to the data key, the segment, the lane and the descriptor.
    pub commitment: [u8; 32],
    /// The data key. It is in no hash and under no tag but its own, and may be wrapped again.
    /// A post's segment has none until it is adopted.
    pub wrapped: Option<WrappedKey>,
    /// Of a post's segment, what the post says of the lane and signed.
    pub post: Option<PostSeal>,
}

/// CRC32C over everything before it.
const CHECKSUM_BYTES: usize = 4;

impl LaneOpen {
    /// The octets, as they stand in a file.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.long(&self.descriptor.encode()?, "descriptor")?
            .raw(&self.commitment)
            .medium(&self.wrapped.as_ref().map(WrappedKey::encode).unwrap_or_default(), "wrapped key")?;
        if let Some(post) = &self.post {
            out.medium(&post.encode()?, "seal of a post")?;
        }
        let mut bytes = out.finish();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        Ok(bytes)
    }

    /// The most octets of the payload that opens this lane.
    #[must_use]
    pub fn bytes_max(lane: LaneNo) -> usize {
        const COMMITMENT_BYTES: usize = 32;
        let post = if lane == LaneNo::REGION { PostSeal::BYTES_MAX } else { PostSeal::LANE_BYTES };
        4 + Descriptor::bytes_max(lane) + COMMITMENT_BYTES + 2 + WrappedKey::BYTES + 2 + post + CHECKSUM_BYTES
    }

    /// Whether the opening of this lane is one of a segment of this origin.
    #[must_use]
    pub fn fits(&self, origin: Origin, lane: LaneNo) -> bool {
        match (origin, &self.post) {
            (Origin::Writer, None) => true,
            (Origin::Post, Some(PostSeal::Segment { .. })) => lane == LaneNo::REGION,
            (Origin::Post, Some(PostSeal::Lane { .. })) => lane != LaneNo::REGION,
            _ => false,
        }
    }

    /// Reads the payload that opens this lane; every octet must be accounted for. Nothing is allocated for a
    /// descriptor that is longer than its lane may have it. The checksum finds what a crash made of it, where no key is at hand.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8], lane: LaneNo) -> Result<Self, Malformed> {
        let damaged = Malformed { what: "checksum of the lane-open block", at: 0 };
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(damaged)?;
        if crc32c::crc32c(bytes).to_be_bytes() != *checksum {
            return Err(damaged);
        }
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
        let wrapped = match input.medium("wrapped key")? {
            [] => None,
            wrapped => Some(WrappedKey::decode(wrapped)?),
        };
        let post = match input.remaining() {
            0 => None,
            _ => Some(PostSeal::decode(input.medium("seal of a post")?)?),
        };
        input.end("end of the lane-open block")?;
        if wrapped.is_none() && post.is_none() {
            return Err(Malformed { what: "wrapped key", at: 0 });
        }
        Ok(Self { descriptor, commitment, wrapped, post })
    }
}
