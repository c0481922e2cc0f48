//! How far an upload is on disk: a small file beside the octets themselves, since the length of a file says nothing of what a
//! crash leaves of it.

use domicile::wire::{Decoder, Fixed};

use super::digest::Digest;

/// What is known of an upload that is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// How long the segment is to be.
    pub(super) total: u64,
    /// So many octets from the first on are on disk.
    pub(super) durable: u64,
    /// What the whole is, if its sender said so.
    pub(super) digest: Option<Digest>,
}

impl Mark {
    const MAGIC: [u8; 8] = *b"DOMMARK1";

    /// Octets of a mark: it is overwritten in place, and fits into a sector.
    pub(super) const BYTES: usize = 8 + 8 + 8 + 1 + 32 + 8;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = Fixed::<{ Self::BYTES }>::new();
        let digest = self.digest.map_or([0; 32], |digest| digest.0);
        out.raw(&Self::MAGIC).u64(self.total).u64(self.durable).u8(self.digest.is_some().into()).raw(&digest);
        let check = check(out.written());
        out.raw(&check).finish()
    }

    /// None for what a crash left half written: nothing of such an upload is believed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Decoder::new(bytes);
        if input.array("magic").ok()? != Self::MAGIC {
            return None;
        }
        let (total, durable) = (input.u64("length").ok()?, input.u64("offset").ok()?);
        let known = input.u8("flag").ok()? == 1;
        let digest = known.then_some(Digest(input.array("digest").ok()?));
        let mark = Self { total, durable, digest };
        // Encoding is canonical: what encodes to other octets was damaged, the check included.
        (durable <= total && mark.encode() == *bytes).then_some(mark)
    }
}

/// The first octets of BLAKE3: against accidents.
fn check(bytes: &[u8]) -> [u8; 8] {
    blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_and_every_changed_bit_and_cut_is_noticed() {
        for digest in [None, Some(Digest([7; 32]))] {
            let mark = Mark { total: 1 << 40, durable: 4096, digest };
            let bytes = mark.encode();
            assert_eq!(Mark::decode(&bytes), Some(mark));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Mark::decode(&bad), None, "bit {bit} went unnoticed");
            }
            for length in 0..bytes.len() {
                assert_eq!(Mark::decode(&bytes[..length]), None);
            }
        }
        let beyond = Mark { total: 1, durable: 2, digest: None };
        assert_eq!(Mark::decode(&beyond.encode()), None);
    }
}
