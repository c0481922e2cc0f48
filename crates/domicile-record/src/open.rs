//! Opening the blocks of one lane: bytes in, bytes out, no files.

use domicile::engine::{ContentKey, Engine, TAG_BYTES, Unverified};
use domicile::keyring::DataKey;
use domicile::{Code, Error, Result, secret};

use crate::format::{BlockHeader, LaneNo, LaneOpen, SegmentHeader};
use crate::lane_key;

/// Opens the blocks of one lane, in any order. It exists only once the lane's commitment was checked.
#[derive(Debug)]
pub(crate) struct LaneOpener {
    key: ContentKey,
    lane: LaneNo,
}

impl LaneOpener {
    /// Derives the lane's key and compares the commitment, in constant time, before anything is opened.
    pub(crate) fn new(
        header: &SegmentHeader,
        lane: LaneNo,
        open: &LaneOpen,
        data_key: &DataKey,
        engine: Engine,
    ) -> Result<Self> {
        let unverified = || {
            Error::new(Code::LaneUnverified, "a lane's commitment does not verify").at(format!("lane {lane}"))
        };
        let descriptor = open.descriptor.encode().map_err(|source| unverified().because(source))?;
        let (key, commitment) =
            lane_key::derive(data_key, engine, open.descriptor.suite, header, lane, &descriptor)?;
        if !secret::same(&commitment, &open.commitment) {
            return Err(unverified());
        }
        Ok(Self { key, lane })
    }

    /// Opens a block in place: `body` is payload, tag and padding as they stand behind the header, and the
    /// payload alone when this returns.
    ///
    /// # Errors
    /// [`BlockUnverified`](Code::BlockUnverified): `body` is wiped, and nothing of the header may be
    /// believed.
    pub(crate) fn open(
        &self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Result<[u8; TAG_BYTES]> {
        let unverified = |body: &mut Vec<u8>| {
            body.clear();
            Error::new(Code::BlockUnverified, "a block does not verify")
        };
        let (payload_bytes, sealed_bytes) = (header.payload_bytes(), header.sealed_bytes());
        let zeros = body.get(sealed_bytes..).is_some_and(|padding| padding.iter().all(|octet| *octet == 0));
        let fits = body.len() == header.body_bytes() && header.flags.is_sealed() && header.lane == self.lane;
        if !zeros || !fits {
            return Err(unverified(body));
        }
        body.truncate(sealed_bytes);
        let Some((payload, tag)) = body.split_at_mut_checked(payload_bytes) else {
            return Err(unverified(body));
        };
        let Ok(tag) = <[u8; TAG_BYTES]>::try_from(&*tag) else { return Err(unverified(body)) };
        match self.key.open(&header.nonce, encoded, payload, &tag) {
            Ok(()) => {
                body.truncate(payload_bytes);
                Ok(tag)
            }
            Err(Unverified) => Err(unverified(body)),
        }
    }
}
