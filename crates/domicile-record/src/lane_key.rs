//! What a lane's content key is derived from, and whom its data key belongs to.

use domicile::Result;
use domicile::engine::{ContentKey, Engine, Suite};
use domicile::keyring::{DataKey, Owner, WrapKind};
use domicile::wire;
use sha2::{Digest, Sha256};

use crate::format::{LaneNo, SegmentHeader};

/// Derives the content key and the commitment of a lane.
///
/// HKDF-SHA-512 with the segment's id as salt; the info names suite, lane, and a hash of header and
/// descriptor. Every part is preceded by its length, so no two lanes share an info.
pub(crate) fn derive(
    data_key: &DataKey,
    engine: Engine,
    suite: Suite,
    header: &SegmentHeader,
    lane: LaneNo,
    descriptor: &[u8],
) -> Result<(ContentKey, [u8; 32])> {
    let bound = Sha256::digest(wire::parts(&[b"domicile/v1/lane-descriptor", &header.fixed(), descriptor]));
    let info: [&[u8]; 4] = [b"domicile/v1/lane", &suite.code().to_be_bytes(), &lane.0.to_be_bytes(), &bound];
    data_key.content_key(suite, engine, &header.id.0, &info)
}

/// Whom a lane's data key belongs to: nothing can be swapped between lanes, segments, tenants or regions.
pub(crate) fn owner(header: &SegmentHeader, descriptor: &[u8], commitment: &[u8; 32]) -> Owner {
    Owner::new(WrapKind::Lane, &[&header.fixed(), descriptor, commitment])
}
