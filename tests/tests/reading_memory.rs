//! What reading on several threads takes: a process of its own, so that nothing else counts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; --nocapture shows how much it was"
)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use domicile::Purpose;
use domicile_record::format::Contents;
use domicile_record::{BlockOrder, Segment, SegmentWriter, Selection, Stamp, WriterOptions};
use domicile_tests::{Home, descriptor, region};

/// Octets of memory of this process: the most that it had, and what it has.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    };
    (of("VmHWM:"), of("VmRSS:"))
}

#[tokio::test]
async fn four_threads_take_16_mib_and_a_block_each() {
    const BLOCK_BYTES: usize = 1 << 20;
    const THREADS: usize = 4;
    let home = Home::of(&["acme"]).await;
    // On a disk: what lies in memory as a file does not count.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.dseg");
    let (mut written, mut most) = (0, 0);
    for block_bytes in [BLOCK_BYTES, 2000] {
        let options = WriterOptions { block_bytes, ..WriterOptions::default() };
        let file = File::create(&path).unwrap();
        let mut writer =
            SegmentWriter::create(&home.domicile, &region("eu-central-1"), file, options).await.unwrap();
        let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
        let record = [b'x'; 900];
        for _ in 0..100_000 {
            writer.append(lane, &record, Stamp::default()).unwrap();
        }
        written += writer.finish().await.unwrap().1.bytes;

        let file = File::open(&path).unwrap();
        let segment =
            Segment::open_source(&home.domicile, file, Purpose::Support, Selection::all()).await.unwrap();
        // The peak counts from here on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (_, before) = memory();
        let seen = AtomicU64::new(0);
        let threads = NonZeroUsize::new(THREADS).unwrap();
        let read = segment.for_each_block_parallel(threads, BlockOrder::Any, |_, block| {
            seen.fetch_add(block.values().len() as u64, Ordering::Relaxed);
            Ok(())
        });
        read.unwrap();
        let taken = memory().0.saturating_sub(before);
        assert_eq!(seen.into_inner(), 90_000_000);
        assert!(taken < (16 << 20) + (THREADS * BLOCK_BYTES) as u64, "{taken} octets");
        most = most.max(taken);
        println!("blocks of {block_bytes}: {} KiB for {THREADS} threads", taken >> 10);
    }
    assert_eq!(written, 180_000_000);
    assert!(most > 0, "it was not measured");
}
