//! Commit blocks of lane 0: how far the segment is on disk, and what the caller keeps beside it.

use std::fmt;

use domicile::wire::{Decoder, Encoder, Malformed};

/// The payload of a commit block.
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    /// Blocks with an ordinal below this were on disk when the last finished sync returned.
    pub durable: u64,
    /// The running hash over all blocks with an ordinal below this block's own.
    pub running_hash: [u8; 32],
    /// The caller's own octets, such as the offset of a queue.
    pub caller: Vec<u8>,
}

impl Commit {
    /// The most that a caller may keep in a commit.
    pub const CALLER_BYTES_MAX: usize = 256;

    /// The octets before they are sealed.
    ///
    /// # Errors
    /// The caller's octets, when they are too many.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        if self.caller.len() > Self::CALLER_BYTES_MAX {
            return Err(Malformed { what: "caller's octets of a commit", at: 40 });
        }
        let mut out = Encoder::new();
        out.u64(self.durable).raw(&self.running_hash).medium(&self.caller, "caller's octets of a commit")?;
        Ok(out.finish())
    }

    /// Reads an opened payload; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let durable = input.u64("durable ordinal")?;
        let running_hash = input.array("running hash")?;
        let caller = input.medium("caller's octets of a commit")?;
        input.end("end of the commit")?;
        if caller.len() > Self::CALLER_BYTES_MAX {
            return Err(Malformed { what: "caller's octets of a commit", at: 40 });
        }
        Ok(Self { durable, running_hash, caller: caller.to_vec() })
    }
}

impl fmt::Debug for Commit {
    /// Shows how much the caller keeps, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("durable", &self.durable)
            .field("caller_bytes", &self.caller.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_read_back_within_their_limit() {
        let commit = Commit { durable: 7, running_hash: [1; 32], caller: vec![2; 256] };
        let bytes = commit.encode().unwrap();
        assert_eq!(Commit::decode(&bytes).unwrap(), commit);
        for length in 0..bytes.len() {
            Commit::decode(&bytes[..length]).unwrap_err();
        }
        Commit { caller: vec![0; 257], ..commit }.encode().unwrap_err();
    }
}
