//! The end of a lane: totals, and tagged sections.

use domicile::wire::{Decoder, Encoder, Malformed};

use super::{DirectoryEntry, Summary, TimeSpan};

/// The payload of a lane-end block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEnd {
    /// Blocks that hold records.
    pub data_blocks: u32,
    /// Records.
    pub records: u64,
    /// Octets of records, framing left out.
    pub bytes: u64,
    /// Section blocks that stand before this one.
    pub section_blocks: u32,
    /// The sections that fitted into this block.
    pub sections: Vec<Section>,
}

impl LaneEnd {
    /// The octets before they are sealed.
    ///
    /// # Errors
    /// A section that does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.u32(self.data_blocks).u64(self.records).u64(self.bytes).u32(self.section_blocks);
        encode_sections(&mut out, &self.sections)?;
        Ok(out.finish())
    }

    /// Reads an opened payload; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        Ok(Self {
            data_blocks: input.u32("data blocks of the lane")?,
            records: input.u64("records of the lane")?,
            bytes: input.u64("octets of the lane")?,
            section_blocks: input.u32("section blocks of the lane")?,
            sections: decode_sections(&mut input)?,
        })
    }
}

impl LaneEnd {
    /// Of lane 0's end, what it says of the segment as a whole.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        self.sections.iter().rev().find_map(|section| match section {
            Section::Summary(summary) => Some(summary),
            _ => None,
        })
    }
}

/// The payload of a section block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections(pub Vec<Section>);

impl Sections {
    /// The octets before they are sealed.
    ///
    /// # Errors
    /// A section that does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        encode_sections(&mut out, &self.0)?;
        Ok(out.finish())
    }

    /// Reads an opened payload; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        decode_sections(&mut Decoder::new(bytes)).map(Self)
    }
}

/// A tagged section of a lane's end. Tags from 0x80 on may be skipped; a tag may come again, its parts in
/// order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// Which blocks hold which records and times.
    Index(Vec<IndexEntry>),
    /// Lane 0: the lanes of the segment.
    Directory(Vec<DirectoryEntry>),
    /// Lane 0: the segment as a whole.
    Summary(Summary),
    /// Lane 0 of a post's segment: the post's signature over everything before.
    PostEnd([u8; 64]),
    /// A section that this build does not know and may skip.
    Skippable(u8, Vec<u8>),
}

impl Section {
    const INDEX: u8 = 0x01;
    const DIRECTORY: u8 = 0x02;
    const SUMMARY: u8 = 0x03;
    const POST_END: u8 = 0x04;
}

/// A run of data blocks that follow one another in the lane; a run has at least 64 records, but for the
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The place in the lane of the run's first block.
    pub sequence: u32,
    /// How many blocks.
    pub blocks: u32,
    /// The number in the lane of the run's first record.
    pub first_record: u64,
    /// The lowest arrival number of the run; 0 where the lane carries none.
    pub lowest_arrival: i64,
    /// The event times of the run.
    pub span: TimeSpan,
}

impl IndexEntry {
    /// Octets of an entry.
    pub const BYTES: usize = 40;

    /// The most entries that a lane keeps; beyond, neighbouring runs are joined.
    pub const COUNT_MAX: usize = 1 << 16;

    /// Joins a run with the one that follows it.
    #[must_use]
    pub fn joined(self, next: IndexEntry) -> Self {
        Self {
            blocks: self.blocks.saturating_add(next.blocks),
            lowest_arrival: self.lowest_arrival.min(next.lowest_arrival),
            span: self.span.with(next.span),
            ..self
        }
    }
}

fn encode_sections(out: &mut Encoder, sections: &[Section]) -> Result<(), Malformed> {
    for section in sections {
        let (tag, body) = match section {
            Section::Index(entries) => {
                let mut body = Encoder::new();
                for entry in entries {
                    body.u32(entry.sequence)
                        .u32(entry.blocks)
                        .u64(entry.first_record)
                        .i64(entry.lowest_arrival)
                        .i64(entry.span.earliest)
                        .i64(entry.span.latest);
                }
                (Section::INDEX, body.finish())
            }
            Section::Directory(entries) => {
                let mut body = Encoder::new();
                for entry in entries {
                    entry.encode(&mut body)?;
                }
                (Section::DIRECTORY, body.finish())
            }
            Section::Summary(summary) => (Section::SUMMARY, summary.encode().to_vec()),
            Section::PostEnd(signature) => (Section::POST_END, signature.to_vec()),
            Section::Skippable(tag, body) => (*tag, body.clone()),
        };
        out.u8(tag).long(&body, "section")?;
    }
    Ok(())
}

fn decode_sections(input: &mut Decoder<'_>) -> Result<Vec<Section>, Malformed> {
    let mut sections = Vec::new();
    while input.remaining() > 0 {
        let unknown = input.malformed("unknown section");
        let tag = input.u8("tag of a section")?;
        let body = input.long("section")?;
        sections.push(match tag {
            Section::INDEX => Section::Index(decode_index(body)?),
            Section::DIRECTORY => {
                let mut input = Decoder::new(body);
                let mut entries = Vec::new();
                while input.remaining() > 0 {
                    entries.push(DirectoryEntry::decode(&mut input)?);
                }
                Section::Directory(entries)
            }
            Section::SUMMARY => Section::Summary(Summary::decode(body)?),
            Section::POST_END => Section::PostEnd(
                body.try_into().map_err(|_| Malformed { what: "signature of a post", at: 0 })?,
            ),
            0x80.. => Section::Skippable(tag, body.to_vec()),
            _ => return Err(unknown),
        });
    }
    Ok(sections)
}

fn decode_index(body: &[u8]) -> Result<Vec<IndexEntry>, Malformed> {
    let mut input = Decoder::new(body);
    let mut entries = Vec::with_capacity(body.len() / IndexEntry::BYTES);
    while input.remaining() > 0 {
        let error = input.malformed("index entry");
        let entry = IndexEntry {
            sequence: input.u32("index entry")?,
            blocks: input.u32("index entry")?,
            first_record: input.u64("index entry")?,
            lowest_arrival: input.i64("index entry")?,
            span: TimeSpan { earliest: input.i64("index entry")?, latest: input.i64("index entry")? },
        };
        if entry.blocks == 0 || entry.span.earliest > entry.span.latest {
            return Err(error);
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::directory::tests as directory;

    #[test]
    fn ends_read_back_and_unknown_sections_are_skipped_or_refused() {
        let entry = IndexEntry {
            sequence: 1,
            blocks: 2,
            first_record: 0,
            lowest_arrival: 3,
            span: TimeSpan { earliest: -1, latest: 5 },
        };
        let end = LaneEnd {
            data_blocks: 2,
            records: 100,
            bytes: 30_000,
            section_blocks: 0,
            sections: vec![
                Section::Index(vec![entry, IndexEntry { sequence: 3, ..entry }]),
                Section::Directory(vec![directory::sample()]),
                Section::Summary(directory::summary()),
                Section::PostEnd([7; 64]),
                Section::Skippable(0x80, vec![1, 2, 3]),
            ],
        };
        let bytes = end.encode().unwrap();
        assert_eq!(LaneEnd::decode(&bytes).unwrap(), end);
        for length in 0..bytes.len() {
            // A cut between two sections leaves a shorter end that reads; lane 0 and the tag tell it apart.
            if let Ok(shorter) = LaneEnd::decode(&bytes[..length]) {
                assert!(shorter.sections.len() < end.sections.len());
            }
        }
        let unknown = LaneEnd { sections: vec![Section::Skippable(0x7f, vec![])], ..end };
        LaneEnd::decode(&unknown.encode().unwrap()).unwrap_err();
    }
}
