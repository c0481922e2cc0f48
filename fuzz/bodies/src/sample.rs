//! Two small segments of one place, and taking a segment apart and putting it together.

use domicile::Period;
use domicile::engine::Suite;
use domicile_record::format::{
    BlockHeader, BlockKind, Contents, Descriptor, Footer, LaneKey, LaneNo, LaneOpen, SegmentHeader,
    footer_block,
};
use domicile_record::framing::Framing;
use domicile_record::{SegmentWriter, Stamp, WriterOptions};

use crate::place::{Place, region, scopes};

/// Seals a small segment with one of each structure, in which every line says whose it is. Blocks end where
/// lines end, so that what is left of a damaged segment is lines of it.
pub(crate) async fn sealed(place: &Place, name: &str) -> Vec<u8> {
    let options = WriterOptions { block_bytes: LINE_BYTES, ..WriterOptions::default() };
    let mut writer = SegmentWriter::create(&place.domicile, &region(), Vec::new(), options).await.unwrap();
    let [acme, globex, messages] = scopes();
    let period: Period = "2026-11".parse().unwrap();
    let stamped = Contents { event_times: true, arrivals: true, long_record: false };
    let long = Contents { event_times: false, arrivals: true, long_record: true };
    let plain = |scope, suite| Descriptor::new(scope, period, suite);

    // Two scopes of one input, in the order in which their records arrived.
    let routed = |scope| Descriptor {
        framing: Some(Framing::Lines),
        contents: stamped,
        context: vec![("gateway".into(), "192.0.2.1".into())],
        ..plain(scope, Suite::Aes256Gcm)
    };
    let preamble = format!("{name} begins\n");
    let of_acme = writer.open_lane(routed(acme.clone()), preamble.as_bytes()).await.unwrap();
    let of_globex = writer.open_lane(routed(globex.clone()), preamble.as_bytes()).await.unwrap();
    let other_suite = Descriptor { source: 1, ..plain(messages, Suite::ChaCha20Poly1305) };
    let of_messages = writer.open_lane(other_suite, b"").await.unwrap();
    let one_long = Descriptor { source: 2, contents: long, ..plain(acme, Suite::Aes256Gcm) };
    let of_long = writer.open_lane(one_long, b"").await.unwrap();
    let empty = Descriptor { source: 3, ..plain(globex, Suite::Aes256Gcm) };
    writer.open_lane(empty, b"").await.unwrap();

    for number in 0..6i64 {
        let lane = if number % 3 == 1 { of_globex } else { of_acme };
        let stamp = Stamp { time: Some(1000 * number), arrival: Some(2 * number) };
        writer.append(lane, line(name, "routed", number).as_bytes(), stamp).unwrap();
        writer.append(of_messages, line(name, "message", number).as_bytes(), Stamp::default()).unwrap();
        if number == 3 {
            writer.commit(b"offset 3").unwrap();
        }
    }
    let record: String = (0..3).map(|number| line(name, "long", number)).collect();
    writer.append_piece(of_long, record.as_bytes(), Stamp { time: None, arrival: Some(20) }, true).unwrap();
    for lane in [of_acme, of_globex] {
        writer.set_postamble(lane, format!("{name} ends\n").as_bytes()).unwrap();
    }
    writer.finish().await.unwrap().0
}

/// Octets of a line, and of the records that fill a block.
const LINE_BYTES: usize = 32;

fn line(name: &str, what: &str, number: i64) -> String {
    let line = format!("{name} {what} {number}");
    format!("{line:-<length$}\n", length = LINE_BYTES - 1)
}

/// A block apart from its place in a file.
#[derive(Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) header: BlockHeader,
    /// Payload, tag and padding.
    pub(crate) body: Vec<u8>,
}

impl Block {
    /// The opening, which may have been moved under the number of another lane.
    pub(crate) fn opening(&self) -> Option<LaneOpen> {
        let payload = self.body.get(..self.header.payload_bytes())?;
        LaneOpen::decode(payload, LaneNo::REGION).or_else(|_| LaneOpen::decode(payload, LaneNo(1))).ok()
    }

    /// Puts another opening of a lane into the block, if it is one that the format can say.
    pub(crate) fn set_opening(&mut self, opening: &LaneOpen) {
        let Ok(body) = opening.encode() else { return };
        self.body = body;
        self.header.length = u32::try_from(self.body.len()).unwrap();
        self.body.resize(self.header.body_bytes(), 0);
    }
}

/// A segment taken apart.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) header: SegmentHeader,
    /// The blocks before the footer, in the order of the file.
    pub(crate) blocks: Vec<Block>,
    /// Where they, and the footer behind them, begin.
    pub(crate) offsets: Vec<usize>,
    pub(crate) footer: Option<Block>,
}

impl Parts {
    /// The parts of a file, if it is blocks from its header to its end.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let header = SegmentHeader::decode(bytes.first_chunk()?).ok()?;
        let mut parts = Self { header, blocks: Vec::new(), offsets: Vec::new(), footer: None };
        let mut at = SegmentHeader::BYTES;
        while at < bytes.len() {
            if parts.footer.is_some() {
                return None;
            }
            let header = BlockHeader::decode(bytes[at..].first_chunk()?, &parts.header.id).ok()?;
            let body = at + BlockHeader::BYTES;
            let end = body.checked_add(header.body_bytes())?;
            let block = Block { header, body: bytes.get(body..end)?.to_vec() };
            parts.offsets.push(at);
            match header.kind {
                BlockKind::Footer => parts.footer = Some(block),
                _ => parts.blocks.push(block),
            }
            at = end;
        }
        Some(parts)
    }

    /// Puts them together: every place, checksum and the footer as somebody would make them who knows the
    /// format and has no key.
    pub(crate) fn assembled(&self) -> Vec<u8> {
        let mut bytes = self.header.encode().to_vec();
        let mut lanes: Vec<(LaneNo, Option<LaneKey>, Vec<u64>)> = Vec::new();
        for block in &self.blocks {
            let known = lanes.iter().position(|(lane, ..)| *lane == block.header.lane);
            let at = known.unwrap_or(lanes.len());
            if known.is_none() {
                lanes.push((block.header.lane, None, Vec::new()));
            }
            lanes[at].2.push(bytes.len() as u64);
            if let (BlockKind::LaneOpen, Some(opening)) = (block.header.kind, block.opening()) {
                let Descriptor { scope, period, .. } = opening.descriptor;
                lanes[at].1 = Some(LaneKey::new(scope, period, block.header.lane));
            }
            bytes.extend_from_slice(&block.header.encode(&self.header.id));
            bytes.extend_from_slice(&block.body);
        }
        let mut footer = Footer::new();
        for (_, key, offsets) in lanes {
            if let Some(key) = key {
                footer.add(key, offsets);
            }
        }
        let payload = footer.encode(&self.header, bytes.len() as u64).unwrap();
        bytes.extend(footer_block(&self.header.id, self.blocks.len() as u64, &payload).unwrap());
        bytes
    }

    /// Whether a file holds the same, octet for octet, but for what nothing authenticates on purpose: the
    /// edition and with it the order of the blocks in the file, what the footer says (which is held against
    /// the blocks), and the flags of the footer that readers ignore.
    pub(crate) fn are_in(&self, bytes: &[u8]) -> bool {
        let Some(mut other) = Self::of(bytes) else { return false };
        if other.header.edition > 0 {
            other.blocks.sort_by_key(|block| block.header.ordinal);
        }
        other.header.fixed() == self.header.fixed() && other.blocks == self.blocks && other.footer.is_some()
    }
}
