//! Writing a segment again with other openings and the same blocks: what is sealed depends on no offset and on no wrapped
//! key, so that every octet of it stays valid one edition on.

use std::collections::BTreeMap;

use domicile::wire::Malformed;
use domicile::{Code, Error, Result};

use crate::format::{BlockHeader, BlockKind, Footer, LaneKey, LaneNo, LaneOpen, SegmentHeader, footer_block};
use crate::reader::{SegmentFile, Source, Step, Walker, unreadable};
use crate::writer::Sink;

/// Copies a whole segment to a sink, one edition on, each lane's opening as `opening` gives it back; durable as far as the
/// sink is. Returns the octets written.
pub(crate) fn rewrite<S: Source, O: Sink>(
    file: &SegmentFile<S>,
    sink: &mut O,
    mut opening: impl FnMut(LaneNo, LaneOpen) -> Result<LaneOpen>,
) -> Result<u64> {
    let mut edition = NextEdition::begin(&file.header, sink)?;
    let mut walker = Walker::new(&file.source, &file.header, file.length);
    let mut body = Vec::new();
    while let Some(step) = walker.next().map_err(|source| unreadable(0, source))? {
        let Step::Block { at, header, encoded } = step else { return Err(changed()) };
        if header.kind == BlockKind::Footer {
            break;
        }
        file.read_body(at, &header, &mut body)?;
        if header.kind == BlockKind::LaneOpen {
            body.truncate(header.payload_bytes());
            let open = LaneOpen::decode(&body, header.lane).map_err(misfit)?;
            edition.add_opening(&header, &opening(header.lane, open)?)?;
        } else {
            edition.add(header.lane, &encoded, &body)?;
        }
    }
    edition.end()
}

/// The next edition of a segment while it is written: blocks that were sealed before, where they stand now, and a footer
/// that says so.
pub(crate) struct NextEdition<'a, O> {
    header: SegmentHeader,
    sink: &'a mut O,
    at: u64,
    blocks: u64,
    lanes: BTreeMap<LaneNo, (LaneKey, Vec<u64>)>,
}

impl<'a, O: Sink> NextEdition<'a, O> {
    pub(crate) fn begin(before: &SegmentHeader, sink: &'a mut O) -> Result<Self> {
        let header = SegmentHeader { edition: before.edition.saturating_add(1), ..before.clone() };
        let mut begun = Self { header, sink, at: 0, blocks: 0, lanes: BTreeMap::new() };
        begun.write(&begun.header.encode())?;
        Ok(begun)
    }

    /// The opening of a lane, in place of the one whose block header this is.
    pub(crate) fn add_opening(&mut self, header: &BlockHeader, open: &LaneOpen) -> Result<()> {
        let block = opening_block(&self.header, header, open)?;
        self.add_opening_block(header.lane, open, &block)
    }

    /// The same, as it stands in a block already.
    pub(crate) fn add_opening_block(&mut self, lane: LaneNo, open: &LaneOpen, block: &[u8]) -> Result<()> {
        let key = LaneKey::new(open.descriptor.scope.clone(), open.descriptor.period, lane);
        let at = self.write(block)?;
        self.blocks += 1;
        self.lanes.insert(lane, (key, vec![at]));
        Ok(())
    }

    /// A sealed block: its header, and what stands behind that. Blocks of a lane come in their order.
    pub(crate) fn add(&mut self, lane: LaneNo, encoded: &[u8], body: &[u8]) -> Result<()> {
        let at = self.write(encoded)?;
        self.write(body)?;
        self.blocks += 1;
        match self.lanes.get_mut(&lane) {
            Some((_, offsets)) => offsets.push(at),
            None => return Err(changed()),
        }
        Ok(())
    }

    /// Writes the footer; everything is durable then, as far as the sink is. Returns the octets of the file.
    pub(crate) fn end(mut self) -> Result<u64> {
        let mut footer = Footer::new();
        for (key, offsets) in std::mem::take(&mut self.lanes).into_values() {
            footer.add(key, offsets);
        }
        let payload = footer.encode(&self.header, self.at).map_err(misfit)?;
        let block = footer_block(&self.header.id, self.blocks, &payload).map_err(misfit)?;
        self.write(&block)?;
        self.sink.flush().and_then(|()| self.sink.sync()).map_err(failed)?;
        Ok(self.at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<u64> {
        let before = self.at;
        self.sink.write_all(bytes).map_err(failed)?;
        self.at += bytes.len() as u64;
        Ok(before)
    }
}

fn opening_block(header: &SegmentHeader, block: &BlockHeader, open: &LaneOpen) -> Result<Vec<u8>> {
    let payload = open.encode().map_err(misfit)?;
    let length = u32::try_from(payload.len()).map_err(|_| changed())?;
    let block = BlockHeader { length, ..*block };
    let mut bytes = [&block.encode(&header.id)[..], &payload].concat();
    bytes.resize(BlockHeader::BYTES + block.body_bytes(), 0);
    Ok(bytes)
}

/// The file is not what it was when it was verified.
pub(crate) fn changed() -> Error {
    Error::new(Code::SegmentCorrupt, "the segment changed while it was written anew")
}

pub(crate) fn misfit(source: Malformed) -> Error {
    Error::new(Code::SegmentCorrupt, "a lane's opening is damaged").because(source)
}

fn failed(source: std::io::Error) -> Error {
    Error::output_failed("the segment could not be written", source)
}
