//! The limits of the format, made small: writers stop before them, spend nothing, and go on elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use domicile::{Code, Purpose};
use domicile_record::format::{Contents, Descriptor, Limits};
use domicile_record::{
    Intake, IntakeOptions, Outlet, Scoping, Segment, Selection, Stamp, WriterOptions, verify,
};
use domicile_tests::{Home, descriptor, scope};

fn options(limits: Limits) -> WriterOptions {
    WriterOptions { block_bytes: 200, limits, ..WriterOptions::default() }
}

#[tokio::test]
async fn a_lane_that_is_full_takes_no_more_and_another_lane_does() {
    for limits in [Limits { lane_blocks: 8, ..Limits::FORMAT }, Limits { lane_bytes: 4000, ..Limits::FORMAT }]
    {
        let home = Home::of(&["acme"]).await;
        let mut writer = home.writer(options(limits)).await;
        let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
        let mut taken = 0;
        let error = loop {
            match writer.append(lane, &[b'x'; 50], Stamp::default()) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::SegmentLimit);
        assert!(taken > 5, "{taken}");
        // Nothing was spent: a second lane of the scope goes on.
        let next = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
        writer.append(next, b"more", Stamp::default()).unwrap();
        let (bytes, summary) = writer.finish().await.unwrap();
        assert_eq!(summary.records, taken + 1);
        assert!(verify(&home.domicile, &bytes[..], None).await.unwrap().is_complete());
    }
}

#[tokio::test]
async fn a_segment_has_so_many_lanes_and_blocks_and_no_more() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(options(Limits { lanes: 3, ..Limits::FORMAT })).await;
    for _ in 0..2 {
        writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    }
    let error = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap_err();
    assert_eq!(error.code(), Code::SegmentLimit);
    writer.finish().await.unwrap();

    let mut writer = home.writer(options(Limits { blocks: 40, ..Limits::FORMAT })).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let error = (0..1000).find_map(|_| writer.append(lane, &[b'x'; 50], Stamp::default()).err()).unwrap();
    assert_eq!(error.code(), Code::SegmentLimit);
    let (bytes, summary) = writer.finish().await.unwrap();
    assert!(summary.blocks <= 40);
    assert!(verify(&home.domicile, &bytes[..], None).await.unwrap().is_complete());
}

#[tokio::test]
async fn what_does_not_fit_into_a_descriptor_or_a_block_is_refused_and_spends_nothing() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let context = (0..50).map(|number| (format!("{number:02}"), "x".repeat(100))).collect();
    let too_long = Descriptor { context, ..descriptor("acme", Contents::default()) };
    assert_eq!(writer.open_lane(too_long, b"").await.unwrap_err().code(), Code::SegmentLimit);
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let too_long = vec![0; WriterOptions::BLOCK_BYTES_MAX + 1];
    assert_eq!(writer.append(lane, &too_long, Stamp::default()).unwrap_err().code(), Code::ArgumentInvalid);
    let stamp = Stamp { time: Some(1), arrival: None };
    assert_eq!(writer.append(lane, b"x", stamp).unwrap_err().code(), Code::ArgumentInvalid);
    assert_eq!(writer.commit(&[0; 257]).unwrap_err().code(), Code::ArgumentInvalid);
    // A failed commit spends the writer: what was sealed and what was not is no longer known to the caller.
    assert_eq!(writer.append(lane, b"x", Stamp::default()).unwrap_err().code(), Code::WriterFailed);
}

#[tokio::test]
async fn the_largest_record_fits_into_a_block_of_its_own() {
    let home = Home::of(&["acme"]).await;
    let contents = Contents { event_times: true, arrivals: true, long_record: false };
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", contents), b"").await.unwrap();
    let largest = vec![7; WriterOptions::BLOCK_BYTES_MAX];
    let stamp = |arrival| Stamp { time: Some(1), arrival: Some(arrival) };
    writer.append(lane, b"before", stamp(0)).unwrap();
    writer.append(lane, &largest, stamp(1)).unwrap();
    writer.append(lane, b"behind", stamp(2)).unwrap();
    let (bytes, _) = writer.finish().await.unwrap();
    assert!(verify(&home.domicile, &bytes[..], None).await.unwrap().is_complete());
}

#[tokio::test]
async fn a_million_empty_records_with_stamps_stay_within_blocks_that_can_be_read() {
    let home = Home::of(&["acme"]).await;
    let contents = Contents { event_times: true, arrivals: true, long_record: false };
    let block_bytes = WriterOptions::BLOCK_BYTES_MAX;
    let mut writer = home.writer(WriterOptions { block_bytes, ..WriterOptions::default() }).await;
    let lane = writer.open_lane(descriptor("acme", contents), b"").await.unwrap();
    for number in 0..1_000_000 {
        // Not one after another, so that each keeps its own arrival number.
        writer.append(lane, b"", Stamp { time: Some(number), arrival: Some(number * 2) }).unwrap();
    }
    let (bytes, _) = writer.finish().await.unwrap();
    let segment =
        Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    let mut records = 0;
    segment
        .for_each_block(|block| {
            records += block.len();
            Ok(())
        })
        .unwrap();
    assert_eq!(records, 1_000_000);
}

struct InMemory;

impl Outlet for InMemory {
    type Sink = Vec<u8>;

    fn open(&mut self, _: &domicile::Region) -> domicile::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn an_input_goes_on_in_another_lane_when_one_is_full() {
    let home = Home::of(&["acme"]).await;
    let input: Vec<u8> = (0..500).flat_map(|number| format!("line number {number}\n").into_bytes()).collect();
    let mut intake_options = IntakeOptions::new(Scoping::One(scope("acme")));
    intake_options.writer = options(Limits { lane_blocks: 8, ..Limits::FORMAT });
    let mut intake = Intake::new(&home.domicile, intake_options, InMemory);
    intake.read(&input[..]).await.unwrap();
    let (bytes, summary) = intake.finish().await.unwrap().segments.pop().unwrap();
    assert!(summary.lanes > 3, "{summary:?}");
    let segment =
        Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    assert_eq!(output, input);
}
