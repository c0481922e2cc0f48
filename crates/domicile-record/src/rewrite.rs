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
    let header = SegmentHeader { edition: file.header.edition.saturating_add(1), ..file.header.clone() };
    let mut at = 0;
    let mut write = |bytes: &[u8]| -> Result<u64> {
        let before = at;
        sink.write_all(bytes).map_err(failed)?;
        at += bytes.len() as u64;
        Ok(before)
    };
    write(&header.encode())?;
    let mut lanes: BTreeMap<LaneNo, (LaneKey, Vec<u64>)> = BTreeMap::new();
    let mut walker = Walker::new(&file.source, &file.header, file.length);
    let (mut body, mut blocks) = (Vec::new(), 0);
    while let Some(step) = walker.next().map_err(|source| unreadable(0, source))? {
        let Step::Block { at: from, header: block, encoded } = step else { return Err(changed()) };
        if block.kind == BlockKind::Footer {
            break;
        }
        body.resize(block.body_bytes(), 0);
        let behind = from + BlockHeader::BYTES as u64;
        file.source.read_at(behind, &mut body).map_err(|source| unreadable(behind, source))?;
        blocks += 1;
        if block.kind == BlockKind::LaneOpen {
            body.truncate(block.payload_bytes());
            let open = LaneOpen::decode(&body, block.lane).map_err(misfit)?;
            let key = LaneKey::new(open.descriptor.scope.clone(), open.descriptor.period, block.lane);
            let open = opening(block.lane, open)?;
            let block = opening_block(&header, &block, &open)?;
            lanes.insert(key.lane, (key, vec![write(&block)?]));
            continue;
        }
        let start = write(&encoded)?;
        write(&body)?;
        if let Some((_, offsets)) = lanes.get_mut(&block.lane) {
            offsets.push(start);
        }
    }
    let mut footer = Footer::new();
    for (key, offsets) in lanes.into_values() {
        footer.add(key, offsets);
    }
    let payload = footer.encode(&header, write(&[])?).map_err(misfit)?;
    write(&footer_block(&header.id, blocks, &payload).map_err(misfit)?)?;
    sink.flush().and_then(|()| sink.sync()).map_err(failed)?;
    Ok(at)
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

fn misfit(source: Malformed) -> Error {
    Error::new(Code::SegmentCorrupt, "a lane's opening is damaged").because(source)
}

fn failed(source: std::io::Error) -> Error {
    Error::output_failed("the segment could not be written", source)
}
