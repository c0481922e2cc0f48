//! Somebody who knows the format, has no key, and makes every checksum and the footer right again: lanes, blocks,
//! openings and headers moved between segments, lanes, periods, tenants and regions. Nothing of it opens as
//! what it was not sealed as, and nothing of it verifies.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use domicile::{Purpose, Scope};
use domicile_record::format::{
    BlockHeader, BlockKind, Contents, Descriptor, Footer, LaneKey, LaneNo, LaneOpen, SegmentHeader,
    footer_block,
};
use domicile_record::{Segment, SegmentWriter, Selection, Stamp, WriterOptions, verify};
use domicile_tests::{Home, descriptor, region, scope};

/// A block apart from its place in a file.
#[derive(Clone, PartialEq)]
struct Block {
    header: BlockHeader,
    body: Vec<u8>,
}

impl Block {
    /// The opening, which may have been moved under the number of another lane.
    fn opening(&self) -> LaneOpen {
        let payload = &self.body[..self.header.payload_bytes()];
        LaneOpen::decode(payload, LaneNo::REGION).or_else(|_| LaneOpen::decode(payload, LaneNo(1))).unwrap()
    }

    /// The same block with another opening of a lane in it.
    fn with(&self, opening: &LaneOpen) -> Self {
        let body = opening.encode().unwrap();
        let header = BlockHeader { length: u32::try_from(body.len()).unwrap(), ..self.header };
        Self { header, body }
    }
}

/// A segment taken apart; putting it together makes checksums, places and footer right.
#[derive(Clone)]
struct Parts {
    header: SegmentHeader,
    blocks: Vec<Block>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        let (mut at, mut blocks) = (SegmentHeader::BYTES, Vec::new());
        loop {
            let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &header.id).unwrap();
            if block.kind == BlockKind::Footer {
                return Self { header, blocks };
            }
            let body = at + BlockHeader::BYTES;
            at = body + block.body_bytes();
            blocks.push(Block { header: block, body: bytes[body..at].to_vec() });
        }
    }

    fn lane(&self, lane: u32) -> Vec<Block> {
        self.blocks.iter().filter(|block| block.header.lane == LaneNo(lane)).cloned().collect()
    }

    /// Puts these blocks where a lane's were, one for one as far as they go, under the lane's number.
    fn with_lane(&self, lane: u32, mut blocks: Vec<Block>) -> Self {
        let mut parts = self.clone();
        blocks.reverse();
        parts.blocks.retain_mut(|block| {
            if block.header.lane != LaneNo(lane) {
                return true;
            }
            let Some(other) = blocks.pop() else { return false };
            *block = other;
            block.header.lane = LaneNo(lane);
            true
        });
        parts
    }

    fn without_lane(&self, lane: u32) -> Self {
        self.with_lane(lane, Vec::new())
    }

    /// The same, and the lanes behind it move up.
    fn without_lane_renumbered(&self, lane: u32) -> Self {
        let mut parts = self.without_lane(lane);
        for block in parts.blocks.iter_mut().filter(|block| block.header.lane > LaneNo(lane)) {
            block.header.lane.0 -= 1;
        }
        parts
    }

    fn with_opening(&self, lane: u32, change: impl Fn(&mut LaneOpen)) -> Self {
        let mut blocks = self.lane(lane);
        let mut opening = blocks[0].opening();
        change(&mut opening);
        blocks[0] = blocks[0].with(&opening);
        self.with_lane(lane, blocks)
    }

    fn with_header(&self, change: impl Fn(&mut SegmentHeader)) -> Self {
        let mut parts = self.clone();
        change(&mut parts.header);
        parts
    }

    fn assembled(&self) -> Vec<u8> {
        let mut bytes = self.header.encode().to_vec();
        let mut footer: Vec<(LaneNo, Option<LaneKey>, Vec<u64>)> = Vec::new();
        for (ordinal, block) in (0..).zip(&self.blocks) {
            let header = BlockHeader { ordinal, ..block.header };
            let lane = match footer.iter_mut().find(|(lane, ..)| *lane == header.lane) {
                Some(lane) => lane,
                None => {
                    footer.push((header.lane, None, Vec::new()));
                    footer.last_mut().unwrap()
                }
            };
            lane.2.push(bytes.len() as u64);
            if header.kind == BlockKind::LaneOpen {
                let Descriptor { scope, period, .. } = block.opening().descriptor;
                lane.1 = Some(LaneKey::new(scope, period, header.lane));
            }
            bytes.extend_from_slice(&header.encode(&self.header.id));
            bytes.extend_from_slice(&block.body);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let mut sorted = Footer::new();
        for (_, key, offsets) in footer {
            if let Some(key) = key {
                sorted.add(key, offsets);
            }
        }
        let payload = sorted.encode(&self.header, bytes.len() as u64).unwrap();
        bytes.extend(footer_block(&self.header.id, self.blocks.len() as u64, &payload).unwrap());
        bytes
    }
}

/// Lanes 1 to 4: acme in November, globex in November, acme in October, acme in November once more. What they
/// hold says whose it is.
const LANES: [(&str, &str); 4] =
    [("acme", "2026-11"), ("globex", "2026-11"), ("acme", "2026-10"), ("acme", "2026-11")];

fn record(segment: &str, lane: usize, number: usize) -> String {
    let (tenant, period) = LANES[lane - 1];
    format!("<{segment} lane {lane} {tenant} {period} {number}>")
}

async fn sealed(home: &Home, name: &str) -> Parts {
    let options = WriterOptions { block_bytes: 120, ..WriterOptions::default() };
    let mut writer =
        SegmentWriter::create(&home.domicile, &region("eu-central-1"), Vec::new(), options).await.unwrap();
    for (source, (tenant, period)) in (0..).zip(LANES) {
        let descriptor =
            Descriptor { source, period: period.parse().unwrap(), ..descriptor(tenant, Contents::default()) };
        writer.open_lane(descriptor, b"").await.unwrap();
    }
    for number in 0..6 {
        for (lane, index) in (1..).zip(1usize..=LANES.len()) {
            writer.append(LaneNo(lane), record(name, index, number).as_bytes(), Stamp::default()).unwrap();
        }
    }
    Parts::of(&writer.finish().await.unwrap().0)
}

/// What opens of a scope: its records, or nothing.
async fn opened(home: &Home, bytes: &[u8], scope: Scope) -> String {
    let mut output = Vec::new();
    let opening = Segment::open_source(&home.domicile, bytes, Purpose::Support, Selection::scopes(&[scope]));
    if let Ok(segment) = opening.await {
        segment.restore(&mut output).unwrap();
    }
    String::from_utf8(output).unwrap()
}

/// Holds a spliced file of segment A's to the promise.
async fn check(home: &Home, what: &str, parts: &Parts) {
    let bytes = parts.assembled();
    let verified = verify(&home.domicile, &bytes[..], None).await;
    assert!(!verified.is_ok_and(|found| found.is_complete()), "{what} went unnoticed");
    for tenant in ["acme", "globex"] {
        let output = opened(home, &bytes, scope(tenant)).await;
        for record in output.split_inclusive('>') {
            let own = record.starts_with("<A ") && record.contains(tenant);
            assert!(own, "{what}: opening {tenant} gave {record}");
        }
    }
}

#[tokio::test]
async fn what_is_taken_apart_and_put_together_again_is_what_it_was() {
    let home = Home::of(&["acme", "globex"]).await;
    let a = sealed(&home, "A").await;
    let bytes = a.assembled();
    assert!(verify(&home.domicile, &bytes[..], None).await.unwrap().is_complete());
    let expected: String =
        [1, 3, 4].iter().flat_map(|lane| (0..6).map(|number| record("A", *lane, number))).collect();
    assert_eq!(opened(&home, &bytes, scope("acme")).await, expected);
    // The edition is under no tag, on purpose: whoever rewrites a file without touching what is sealed raises it.
    let rewritten = a.with_header(|header| header.edition = 7).assembled();
    assert!(verify(&home.domicile, &rewritten[..], None).await.unwrap().is_complete());
}

#[tokio::test]
async fn lanes_moved_between_segments_are_noticed() {
    let home = Home::of(&["acme", "globex"]).await;
    let (a, b) = (sealed(&home, "A").await, sealed(&home, "B").await);
    for lane in 0..=4 {
        check(&home, &format!("lane {lane} of another segment"), &a.with_lane(lane, b.lane(lane))).await;
        let opening_of_b = [&b.lane(lane)[..1], &a.lane(lane)[1..]].concat();
        check(&home, &format!("lane {lane}'s opening of another segment"), &a.with_lane(lane, opening_of_b))
            .await;
        let blocks_of_b = [&a.lane(lane)[..1], &b.lane(lane)[1..]].concat();
        check(&home, &format!("lane {lane}'s blocks of another segment"), &a.with_lane(lane, blocks_of_b))
            .await;
        let wrapped = b.lane(lane)[0].opening().wrapped;
        let with_wrap = a.with_opening(lane, |opening| opening.wrapped = wrapped.clone());
        check(&home, &format!("lane {lane}'s data key of another segment"), &with_wrap).await;
        let commitment = b.lane(lane)[0].opening().commitment;
        let with_commitment = a.with_opening(lane, |opening| opening.commitment = commitment);
        check(&home, &format!("lane {lane}'s commitment of another segment"), &with_commitment).await;
    }
    check(&home, "the header of another segment", &a.with_header(|header| *header = b.header.clone())).await;
    check(&home, "the id of another segment", &a.with_header(|header| header.id = b.header.id)).await;
    let other = Parts { header: a.header.clone(), blocks: b.blocks.clone() };
    check(&home, "all blocks of another segment", &other).await;
}

#[tokio::test]
async fn lanes_moved_between_scopes_and_periods_are_noticed() {
    let home = Home::of(&["acme", "globex"]).await;
    let a = sealed(&home, "A").await;
    for (one, other) in [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)] {
        let swapped = a.with_lane(one, a.lane(other)).with_lane(other, a.lane(one));
        check(&home, &format!("lanes {one} and {other} swapped"), &swapped).await;
        let openings = a
            .with_opening(one, |opening| *opening = a.lane(other)[0].opening())
            .with_opening(other, |opening| *opening = a.lane(one)[0].opening());
        check(&home, &format!("openings {one} and {other} swapped"), &openings).await;
        let wraps = a
            .with_opening(one, |opening| opening.wrapped = a.lane(other)[0].opening().wrapped)
            .with_opening(other, |opening| opening.wrapped = a.lane(one)[0].opening().wrapped);
        check(&home, &format!("data keys {one} and {other} swapped"), &wraps).await;
        let blocks = |from: u32, to: u32| [&a.lane(to)[..1], &a.lane(from)[1..]].concat();
        let contents = a.with_lane(one, blocks(other, one)).with_lane(other, blocks(one, other));
        check(&home, &format!("blocks of {one} and {other} swapped"), &contents).await;
    }
    for lane in [1, 3, 4] {
        let moved = a.with_opening(lane, |opening| opening.descriptor.scope = scope("globex"));
        check(&home, &format!("lane {lane} said to be globex's"), &moved).await;
    }
    for (lane, period) in [(1, "2026-10"), (3, "2026-11"), (2, "2026-W48"), (4, "2026-11-24")] {
        let moved = a.with_opening(lane, |opening| opening.descriptor.period = period.parse().unwrap());
        check(&home, &format!("lane {lane} said to be of {period}"), &moved).await;
    }
    let suite = domicile::engine::Suite::ChaCha20Poly1305;
    let times = a.with_opening(1, |opening| opening.descriptor.contents.event_times = true);
    check(&home, "event times", &times).await;
    let long = a.with_opening(1, |opening| opening.descriptor.contents.long_record = true);
    check(&home, "one long record", &long).await;
    check(&home, "another source", &a.with_opening(1, |opening| opening.descriptor.source = 9)).await;
    let context = vec![("a".to_owned(), "b".to_owned())];
    let with_context = a.with_opening(1, |opening| opening.descriptor.context = context.clone());
    check(&home, "a context", &with_context).await;
    check(&home, "another suite", &a.with_opening(1, |opening| opening.descriptor.suite = suite)).await;
    // A leaf of the same key beside the right one, and the segment leaf in the place of the tenant's.
    check(
        &home,
        "another leaf",
        &a.with_opening(1, |opening| opening.wrapped.as_mut().unwrap().tenant.leaf.0 ^= 1),
    )
    .await;
    let leaf = |opening: &mut LaneOpen| {
        let wrapped = opening.wrapped.as_mut().unwrap();
        wrapped.tenant = wrapped.segment;
    };
    check(&home, "the segment's leaf for the tenant's", &a.with_opening(1, leaf)).await;
    let leaf = |opening: &mut LaneOpen| {
        let wrapped = opening.wrapped.as_mut().unwrap();
        wrapped.segment = wrapped.tenant;
    };
    check(&home, "the tenant's leaf for the segment's", &a.with_opening(1, leaf)).await;
}

#[tokio::test]
async fn dropped_lanes_and_changed_places_are_noticed() {
    let home = Home::of(&["acme", "globex"]).await;
    let a = sealed(&home, "A").await;
    for lane in 0..=4 {
        check(&home, &format!("without lane {lane}"), &a.without_lane(lane)).await;
        check(&home, &format!("without lane {lane}, renumbered"), &a.without_lane_renumbered(lane)).await;
        for keep in 1..a.lane(lane).len() {
            let cut = a.with_lane(lane, a.lane(lane)[..keep].to_vec());
            check(&home, &format!("lane {lane} cut to {keep} blocks"), &cut).await;
        }
    }
    // Both lie in the EU, so that no guard stands in the way of the attempt.
    let west = region("eu-west-1");
    check(&home, "another region", &a.with_header(|header| header.place.region = west.clone())).await;
    let us = domicile_tests::place("us-east-1", "US");
    check(&home, "another place", &a.with_header(|header| header.place = us.clone())).await;
    let law = |header: &mut SegmentHeader| header.place.jurisdiction = "US".parse().unwrap();
    check(&home, "another jurisdiction", &a.with_header(law)).await;
    check(&home, "another time", &a.with_header(|header| header.created = domicile::Time::EPOCH)).await;
    let suite = domicile::engine::Suite::ChaCha20Poly1305;
    check(&home, "another suite of the segment", &a.with_header(|header| header.suite = suite)).await;
}

#[tokio::test]
async fn a_segment_of_one_region_does_not_open_as_anothers() {
    let home = Home::new().await;
    home.domicile.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    home.domicile.choose_home(&scope("globex"), "eu-west-1").await.unwrap();
    let mut parts = Vec::new();
    for (tenant, name) in [("acme", "eu-central-1"), ("globex", "eu-west-1")] {
        let mut writer =
            SegmentWriter::create(&home.domicile, &region(name), Vec::new(), WriterOptions::default())
                .await
                .unwrap();
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await.unwrap();
        writer.append(lane, format!("<{tenant}>").as_bytes(), Stamp::default()).unwrap();
        parts.push(Parts::of(&writer.finish().await.unwrap().0));
    }
    let (central, west) = (&parts[0], &parts[1]);
    for (what, spliced) in [
        ("the lane of another region", central.with_lane(1, west.lane(1))),
        ("lane 0 of another region", central.with_lane(0, west.lane(0))),
        ("the header of another region", central.with_header(|header| *header = west.header.clone())),
        (
            "another region's lane, said to be of this one's tenant",
            central
                .with_lane(1, west.lane(1))
                .with_opening(1, |opening| opening.descriptor.scope = scope("acme")),
        ),
    ] {
        let bytes = spliced.assembled();
        let verified = verify(&home.domicile, &bytes[..], None).await;
        assert!(!verified.is_ok_and(|found| found.is_complete()), "{what} went unnoticed");
        assert_eq!(opened(&home, &bytes, scope("globex")).await, "", "{what}");
        let of_acme = opened(&home, &bytes, scope("acme")).await;
        assert!(of_acme.is_empty() || of_acme == "<acme>", "{what}: {of_acme}");
    }
}
