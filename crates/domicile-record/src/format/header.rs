//! The segment header: 104 octets that everything is bound to, and 8 that may change.

use std::fmt;
use std::path::{Path, PathBuf};

use domicile::wire::{Decoder, Fixed, Malformed};
use domicile::{Jurisdiction, Place, Region, Time, engine::Suite};

use super::VERSION;

/// The name of a segment: 32 random octets. It salts every key derivation of the segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub [u8; 32]);

impl fmt::Display for SegmentId {
    /// Shows 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentId({self})")
    }
}

/// Who sealed a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A writer that has the region's keys.
    Writer,
    /// A post, which seals for the region and has none of its keys.
    Post,
}

impl Origin {
    /// The name, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Writer => "writer",
            Origin::Post => "post",
        }
    }
}

/// The beginning of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The suite of lane 0; each lane names its own.
    pub suite: Suite,
    /// The segment's name.
    pub id: SegmentId,
    /// The region whose records these are, and its jurisdiction.
    pub place: Place,
    /// When the segment was begun.
    pub created: Time,
    /// Who sealed it.
    pub origin: Origin,
    /// How often the file was rewritten without touching what is sealed; 0 at first. Not authenticated.
    pub edition: u32,
}

impl SegmentHeader {
    /// Octets of the header.
    pub const BYTES: usize = 112;
    /// Octets of its fixed part, which stands in every hash, signature and associated data.
    pub const FIXED_BYTES: usize = 104;

    /// The first octets of every segment: unlike any text, and changed by a transfer in text mode.
    pub const MAGIC: [u8; 8] = *b"\x89DSEG\r\n\x1a";

    /// Where the segment stands below a directory of segments: `<region>/<yyyy-mm-dd>/<segment id>.dseg`, never a tenant.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.place.region, self.created, self.id)
    }

    /// The octets, as they stand in a file.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = Fixed::<{ Self::BYTES }>::new();
        out.raw(&self.fixed()).u32(self.edition);
        let crc = crc32c::crc32c(out.written());
        out.u32(crc).finish()
    }

    /// The fixed part.
    #[must_use]
    pub fn fixed(&self) -> [u8; Self::FIXED_BYTES] {
        let origin = match self.origin {
            Origin::Writer => 0x01,
            Origin::Post => 0x02,
        };
        Fixed::new()
            .raw(&Self::MAGIC)
            .u16(VERSION)
            .u16(self.suite.code())
            .raw(&self.id.0)
            .padded_text(self.place.region.as_str(), Region::LENGTH_MAX)
            .padded_text(self.place.jurisdiction.as_str(), Jurisdiction::LENGTH_MAX)
            .i64(self.created.micros())
            .u8(origin)
            .u8(0) // flags, none of which is known
            .finish()
    }

    /// Reads a header.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = |what| Malformed { what, at: 0 };
        if input.array("magic")? != Self::MAGIC {
            return Err(bad("magic"));
        }
        if input.u16("version")? != VERSION {
            return Err(bad("version"));
        }
        let suite = Suite::from_code(input.u16("suite")?).ok_or(bad("suite"))?;
        let id = SegmentId(input.array("segment id")?);
        let region = input.padded_text(Region::LENGTH_MAX, "region")?.parse().map_err(|_| bad("region"))?;
        let jurisdiction = input.padded_text(Jurisdiction::LENGTH_MAX, "jurisdiction")?;
        let jurisdiction = jurisdiction.parse().map_err(|_| bad("jurisdiction"))?;
        let created =
            Time::from_micros(input.i64("time of creation")?).map_err(|_| bad("time of creation"))?;
        let origin = match input.u8("origin")? {
            0x01 => Origin::Writer,
            0x02 => Origin::Post,
            _ => return Err(bad("origin")),
        };
        if input.u8("flags")? != 0 {
            return Err(bad("flags"));
        }
        let edition = input.u32("edition")?;
        let header = Self { suite, id, place: Place { region, jurisdiction }, created, origin, edition };
        // Encoding is canonical: what encodes to other bytes was damaged, the checksum included.
        if header.encode() != *bytes {
            return Err(Malformed { what: "checksum of the header", at: Self::BYTES - 4 });
        }
        Ok(header)
    }
}

/// Where a segment stands below a directory of segments: `<region>/<yyyy-mm-dd>/<segment id>.dseg`, never a tenant.
pub(crate) fn path_of(region: &Region, created: Time, id: SegmentId) -> PathBuf {
    let created = created.to_string();
    let day = created.get(..10).unwrap_or(&created);
    Path::new(region.as_str()).join(day).join(format!("{id}.dseg"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> SegmentHeader {
        SegmentHeader {
            suite: Suite::Aes256Gcm,
            id: SegmentId([7; 32]),
            place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
            created: "2026-11-24T08:00:00Z".parse().unwrap(),
            origin: Origin::Writer,
            edition: 0,
        }
    }

    #[test]
    fn headers_read_back_and_every_changed_bit_is_noticed() {
        let bytes = sample().encode();
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), sample());
        assert!(bytes.starts_with(&sample().fixed()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let place =
            Place { region: "r".repeat(32).parse().unwrap(), jurisdiction: "J".repeat(16).parse().unwrap() };
        let header = SegmentHeader { place, ..sample() };
        assert_eq!(SegmentHeader::decode(&header.encode()).unwrap(), header);
    }
}
