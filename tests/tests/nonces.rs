//! SEG-8: no content key ever meets a nonce twice, and no nonce is kept for later.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use domicile::random::{OsRandom, Randomness};
use domicile::store::SqliteStore;
use domicile::{Domicile, Result};
use domicile_record::format::{BlockHeader, Contents, SegmentHeader};
use domicile_record::{SegmentWriter, Stamp, WriterOptions};
use domicile_tests::{Home, descriptor, region};

/// The nonces of a segment's sealed blocks, in the order of the file.
fn nonces(bytes: &[u8]) -> Vec<[u8; 12]> {
    let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let (mut at, mut nonces) = (SegmentHeader::BYTES, Vec::new());
    while at < bytes.len() {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &header.id).unwrap();
        if block.flags.is_sealed() {
            nonces.push(block.nonce);
        }
        at += usize::try_from(block.block_bytes()).unwrap();
    }
    nonces
}

async fn seal(domicile: &Domicile, records: usize) -> Vec<u8> {
    let options = WriterOptions { block_bytes: 700, ..WriterOptions::default() };
    let mut writer =
        SegmentWriter::create(domicile, &region("eu-central-1"), Vec::new(), options).await.unwrap();
    let mut lanes = Vec::new();
    for tenant in ["acme", "globex"] {
        lanes.push(writer.open_lane(descriptor(tenant, Contents::default()), b"a,b\n").await.unwrap());
    }
    for record in 0..records {
        writer.append(lanes[record % 2], &[b'x'; 100], Stamp::default()).unwrap();
        if record % 50 == 49 {
            writer.commit(b"").unwrap();
        }
    }
    writer.finish().await.unwrap().0
}

#[tokio::test]
async fn nonces_of_many_segments_of_many_processes_are_all_different() {
    let home = Home::of(&["acme", "globex"]).await;
    let (mut all, mut count) = (HashSet::new(), 0);
    for _ in 0..10 {
        // A process that starts now knows nothing of the others, as after a crash or a restore.
        let domicile = Domicile::from_config(&home.config).await.unwrap();
        for _ in 0..5 {
            let of_segment = nonces(&seal(&domicile, 200).await);
            assert!(of_segment.len() > 40, "{}", of_segment.len());
            count += of_segment.len();
            all.extend(of_segment);
        }
    }
    assert_eq!(all.len(), count);
}

/// The operating system's randomness, with a note of what it gave.
#[derive(Debug, Default)]
struct Noted(Mutex<Vec<Vec<u8>>>);

impl Randomness for Noted {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        OsRandom.fill(bytes)?;
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(())
    }
}

#[tokio::test]
async fn every_nonce_is_drawn_for_its_block_and_used_once() {
    let home = Home::of(&["acme", "globex"]).await;
    let noted = Arc::new(Noted::default());
    let store = Arc::new(SqliteStore::open(&home.directory.path().join("domicile.db")).await.unwrap());
    let mut builder = Domicile::builder(region("eu-central-1"), store).randomness(noted.clone());
    for known in home.domicile.regions() {
        builder = builder.region(known.clone());
    }
    let domicile = builder.build().unwrap();
    seal(&domicile, 10).await;
    noted.0.lock().unwrap().clear();

    let of_segment = nonces(&seal(&domicile, 200).await);
    let drawn = noted.0.lock().unwrap().clone();
    let draw_of = |nonce: &[u8; 12]| {
        let has =
            |bytes: &&Vec<u8>| bytes.len().is_multiple_of(12) && bytes.chunks(12).any(|drawn| drawn == nonce);
        assert_eq!(drawn.iter().filter(has).count(), 1, "drawn once");
        drawn.iter().position(|bytes| has(&bytes)).unwrap()
    };
    let draws: Vec<_> = of_segment.iter().map(draw_of).collect();
    // What was drawn is used before anything else is drawn, so that a fork or a crash has nothing to use again.
    assert!(draws.is_sorted(), "{draws:?}");
    assert_eq!(of_segment.iter().collect::<HashSet<_>>().len(), of_segment.len());
    assert!(drawn.iter().any(|bytes| bytes.len() == 4 * 12), "four blocks in a pass");
}
