//! Which nonce went with which block, under every key: no pair of key and nonce comes twice.

use std::collections::HashMap;

use domicile_record::format::{BlockHeader, BlockKind, LaneNo, LaneOpen, SegmentHeader};

/// What every key ever sealed: of each lane of each writing, which block a nonce went with.
#[derive(Debug, Default)]
pub struct Pairs(HashMap<([u8; 32], [u8; 12]), Vec<u8>>);

impl Pairs {
    /// Notes the blocks of a file, as far as they are whole.
    pub fn add(&mut self, bytes: &[u8]) {
        let Some(Ok(header)) = bytes.first_chunk().map(SegmentHeader::decode) else { return };
        let mut at = SegmentHeader::BYTES;
        let mut commitments: HashMap<LaneNo, [u8; 32]> = HashMap::new();
        while let Some(encoded) =
            bytes.get(at..).and_then(|rest| rest.first_chunk::<{ BlockHeader::BYTES }>())
        {
            let Ok(block) = BlockHeader::decode(encoded, &header.id) else { return };
            let end = at + usize::try_from(block.block_bytes()).unwrap();
            let Some(body) = bytes.get(at + BlockHeader::BYTES..end) else { return };
            if block.kind == BlockKind::LaneOpen {
                let Ok(open) = LaneOpen::decode(&body[..block.payload_bytes()], block.lane) else { return };
                commitments.insert(block.lane, open.commitment);
            } else if block.flags.is_sealed() {
                // A body that a crash tore is none that was sealed.
                let whole = [&encoded[..], body].concat();
                if body.iter().rev().take(32).all(|octet| *octet == 0) {
                    return;
                }
                let pair = (commitments[&block.lane], block.nonce);
                let known = self.0.entry(pair).or_insert_with(|| encoded.to_vec());
                assert_eq!(known[..], whole[..BlockHeader::BYTES], "one nonce for two blocks under one key");
            }
            at = end;
        }
    }
}
