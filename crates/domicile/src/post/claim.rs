//! What a post says of a segment, and signs.

use sha2::{Digest, Sha256};

use super::PostId;
use crate::encapsulation::{Encapsulation, SUITE};
use crate::period::{Period, PeriodUnit};
use crate::region::Region;
use crate::wire::{self, Decoder, Encoder, Malformed};

/// Who sealed a segment, with which bundle, to which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The post.
    pub post: PostId,
    /// The serial of its bundle.
    pub serial: u64,
    /// The day whose key it sealed the segment's secret to.
    pub day: Period,
    /// That key.
    pub key_id: [u8; 32],
    /// The digest of the encapsulated secret, which goes when the segment is adopted.
    pub encapsulation_digest: [u8; 32],
}

impl Claim {
    /// The most octets of an encoded claim.
    pub const BYTES_MAX: usize = 2 + 1 + PostId::LENGTH_MAX + 8 + 1 + 10 + 32 + 32;

    const VERSION: u8 = 0x01;

    /// What is authenticated with the secret of a segment with this fixed header.
    #[must_use]
    pub fn info(&self, region: &Region, header: &[u8]) -> Vec<u8> {
        super::info_of(region.as_str(), header, self.serial, self.post.as_str())
    }

    /// What is signed of a lane; of lane 0 with the claim itself, of the others with its digest.
    #[must_use]
    pub fn of_lane(&self, header: &[u8], lane: u32, descriptor: &[u8], commitment: &[u8; 32]) -> Vec<u8> {
        let lane = lane.to_be_bytes();
        wire::parts(&[b"domicile/v1/post/lane", header, &lane, descriptor, commitment, &self.digest()])
    }

    /// What is signed at the end: the number of blocks before lane 0's end, and the running hash over them.
    #[must_use]
    pub fn of_end(&self, header: &[u8], blocks: u64, running_hash: &[u8; 32]) -> Vec<u8> {
        let blocks = blocks.to_be_bytes();
        wire::parts(&[b"domicile/v1/post/end", header, &blocks, running_hash, &self.digest()])
    }

    fn digest(&self) -> [u8; 32] {
        // Every claim that was read or made is well formed.
        Sha256::digest(self.encode().unwrap_or_default()).into()
    }

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.u8(Self::VERSION)
            .u8(SUITE)
            .short(self.post.as_str().as_bytes(), "post")?
            .u64(self.serial)
            .short(self.day.to_string().as_bytes(), "day")?
            .raw(&self.key_id)
            .raw(&self.encapsulation_digest);
        Ok(out.finish())
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        if input.u8("version of the claim")? != Self::VERSION {
            return Err(bad("version of the claim"));
        }
        if input.u8("suite of the encapsulation")? != SUITE {
            return Err(bad("suite of the encapsulation"));
        }
        let post = input.text("post")?.parse().map_err(|_| bad("post"))?;
        let serial = input.u64("serial of the bundle")?;
        let day: Period = input.text("day")?.parse().map_err(|_| bad("day"))?;
        if day.unit() != PeriodUnit::Day {
            return Err(bad("day"));
        }
        let (key_id, encapsulation_digest) = (input.array("key")?, input.array("digest")?);
        Ok(Self { post, serial, day, key_id, encapsulation_digest })
    }
}

/// What a post puts into the opening of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "lane 0 and the others: there is no third")]
pub enum PostSeal {
    /// Lane 0's: the claim of the whole segment.
    Segment {
        /// Who, with what, to whom.
        claim: Claim,
        /// Over [`Claim::of_lane`].
        signature: [u8; 64],
        /// The segment's secret; gone once the segment was adopted.
        encapsulation: Option<Encapsulation>,
    },
    /// Another lane's.
    Lane {
        /// Over [`Claim::of_lane`].
        signature: [u8; 64],
    },
}

impl PostSeal {
    /// The most octets of what a post puts into the opening of lane 0; of the others, 65.
    pub const BYTES_MAX: usize = 1 + Claim::BYTES_MAX + 64 + 2 + Encapsulation::BYTES;

    /// The octets of what a post puts into the opening of any other lane.
    pub const LANE_BYTES: usize = 65;

    const SEGMENT: u8 = 0x01;
    const LANE: u8 = 0x02;

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        match self {
            PostSeal::Segment { signature, .. } | PostSeal::Lane { signature } => signature,
        }
    }

    /// The octets, as they stand in a file.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        match self {
            PostSeal::Segment { claim, signature, encapsulation } => {
                let encapsulation = encapsulation.as_ref().map_or(&[][..], |sealed| &sealed.as_bytes()[..]);
                out.u8(Self::SEGMENT)
                    .raw(&claim.encode()?)
                    .raw(signature)
                    .medium(encapsulation, "encapsulation")?;
            }
            PostSeal::Lane { signature } => {
                out.u8(Self::LANE).raw(signature);
            }
        }
        Ok(out.finish())
    }

    /// Reads it back; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let seal = match input.u8("kind of a post's seal")? {
            Self::SEGMENT => {
                let claim = Claim::decode(&mut input)?;
                let signature = input.array("signature")?;
                let encapsulation = match input.medium("encapsulation")? {
                    [] => None,
                    octets => {
                        let octets = octets.try_into();
                        let octets = octets.map_err(|_| Malformed { what: "encapsulation", at: 0 })?;
                        Some(Encapsulation::from_bytes(octets))
                    }
                };
                PostSeal::Segment { claim, signature, encapsulation }
            }
            Self::LANE => PostSeal::Lane { signature: input.array("signature")? },
            _ => return Err(Malformed { what: "kind of a post's seal", at: 0 }),
        };
        input.end("end of a post's seal")?;
        Ok(seal)
    }

    /// The same without the secret: what stays of it in an adopted segment.
    #[must_use]
    pub fn adopted(mut self) -> Self {
        if let PostSeal::Segment { encapsulation, .. } = &mut self {
            *encapsulation = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seals() -> [PostSeal; 3] {
        let claim = Claim {
            post: "p".repeat(64).parse().unwrap(),
            serial: 7,
            day: "2026-11-25".parse().unwrap(),
            key_id: [1; 32],
            encapsulation_digest: [2; 32],
        };
        let encapsulation = Some(Encapsulation::from_bytes(&[3; Encapsulation::BYTES]));
        let whole = PostSeal::Segment { claim, signature: [4; 64], encapsulation };
        [whole.clone(), whole.adopted(), PostSeal::Lane { signature: [5; 64] }]
    }

    #[test]
    fn seals_read_back_within_their_bounds() {
        for (seal, length) in seals().into_iter().zip([PostSeal::BYTES_MAX, 217, PostSeal::LANE_BYTES]) {
            let bytes = seal.encode().unwrap();
            assert_eq!(bytes.len(), length);
            assert_eq!(PostSeal::decode(&bytes).unwrap(), seal);
            for cut in 0..length {
                PostSeal::decode(&bytes[..cut]).unwrap_err();
            }
            PostSeal::decode(&[&bytes[..], &[0]].concat()).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn what_reads_writes_back_the_same(which in 0usize..3, at in 0usize..220, octet: u8) {
            let mut bytes = seals()[which].encode().unwrap();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = octet;
            }
            if let Ok(seal) = PostSeal::decode(&bytes) {
                prop_assert_eq!(seal.encode().unwrap(), bytes);
            }
        }
    }
}
