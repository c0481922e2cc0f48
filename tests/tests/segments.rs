//! Writing segments and reading them back, through the public doors.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use domicile::{Code, Purpose};
use domicile_record::format::{Commit, Contents, Descriptor, LaneNo};
use domicile_record::{Segment, Selection, Stamp, State, WriterOptions};
use domicile_tests::{Counting, Home, descriptor, scope};

async fn restored(home: &Home, bytes: &[u8], selection: Selection) -> Vec<u8> {
    let segment = Segment::open_source(&home.domicile, bytes, Purpose::Support, selection).await.unwrap();
    assert_eq!(*segment.state(), State::Complete);
    assert!(segment.notes().is_empty(), "{:?}", segment.notes());
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    output
}

#[tokio::test]
async fn records_of_two_tenants_come_back_each_to_whom_asks_for_it() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 100, ..Default::default() }).await;
    let acme = writer.open_lane(descriptor("acme", Contents::default()), b"head\n").await.unwrap();
    // Another input, so that it does not share acme's preamble.
    let of_another_input = Descriptor { source: 1, ..descriptor("globex", Contents::default()) };
    let globex = writer.open_lane(of_another_input, b"").await.unwrap();
    let (mut of_acme, mut of_globex) = (b"head\n".to_vec(), Vec::new());
    for number in 0..1000 {
        let record = format!("record {number}\n").into_bytes();
        let (lane, kept) = if number % 3 == 0 { (globex, &mut of_globex) } else { (acme, &mut of_acme) };
        writer.append(lane, &record, Stamp::default()).unwrap();
        kept.extend_from_slice(&record);
    }
    writer.set_postamble(acme, b"foot\n").unwrap();
    of_acme.extend_from_slice(b"foot\n");
    let (bytes, summary) = writer.finish().await.unwrap();
    assert_eq!((summary.lanes, summary.records), (2, 1000));
    assert_eq!(summary.file_bytes, bytes.len() as u64);

    assert_eq!(restored(&home, &bytes, Selection::scopes(&[scope("acme")])).await, of_acme);
    assert_eq!(restored(&home, &bytes, Selection::scopes(&[scope("globex")])).await, of_globex);
    assert_eq!(restored(&home, &bytes, Selection::all()).await, [of_acme, of_globex].concat());
    let nobody = Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, &[scope("nobody")]).await;
    assert_eq!(nobody.unwrap_err().code(), Code::LaneNone);
}

#[tokio::test]
async fn arrival_numbers_give_the_order_back_across_lanes() {
    let home = Home::of(&["acme"]).await;
    let contents = Contents { arrivals: true, event_times: true, long_record: false };
    let mut writer = home.writer(WriterOptions { block_bytes: 300, ..Default::default() }).await;
    let mut lanes = Vec::new();
    for period in ["2026-09", "2026-10", "2026-11"] {
        let descriptor = Descriptor { period: period.parse().unwrap(), ..descriptor("acme", contents) };
        lanes.push(writer.open_lane(descriptor, b"head\n").await.unwrap());
    }
    let mut expected = b"head\n".to_vec();
    for number in 0..2000i64 {
        let record = format!("record {number}\n").into_bytes();
        let lane = lanes[usize::try_from(number * number % 7 % 3).unwrap()];
        writer.append(lane, &record, Stamp { time: Some(number * 10), arrival: Some(number) }).unwrap();
        expected.extend_from_slice(&record);
        if number == 1000 {
            writer.commit(b"offset 1000").unwrap();
        }
    }
    let (bytes, _) = writer.finish().await.unwrap();
    assert_eq!(restored(&home, &bytes, Selection::all()).await, expected);

    let ten = Selection::all().records(995..1005).unwrap();
    let some: Vec<_> = (995..1005).map(|number| format!("record {number}\n")).collect();
    assert_eq!(restored(&home, &bytes, ten).await, format!("head\n{}", some.concat()).into_bytes());

    let time = |micros| domicile::Time::from_micros(micros).unwrap();
    let by_time = Selection::all().from(time(9950)).to(time(10_050));
    assert_eq!(restored(&home, &bytes, by_time).await, format!("head\n{}", some.concat()).into_bytes());
}

#[tokio::test]
async fn a_long_record_goes_in_and_out_in_pieces() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 1000, ..Default::default() }).await;
    let contents = Contents { long_record: true, ..Contents::default() };
    let lane = writer.open_lane(descriptor("acme", contents), b"").await.unwrap();
    let record: Vec<u8> = (0..10_500u32).flat_map(u32::to_be_bytes).collect();
    for piece in record.chunks(777) {
        writer.append_piece(lane, piece, Stamp::default(), false).unwrap();
    }
    writer.append_piece(lane, &[], Stamp::default(), true).unwrap();
    assert_eq!(
        writer.append_piece(lane, b"more", Stamp::default(), true).unwrap_err().code(),
        Code::ArgumentInvalid
    );
    let (bytes, summary) = writer.finish().await.unwrap();
    assert_eq!((summary.records, summary.bytes), (1, record.len() as u64));
    assert_eq!(restored(&home, &bytes, Selection::all()).await, record);
}

#[tokio::test]
async fn an_empty_lane_and_empty_records_are_kept() {
    let home = Home::of(&["acme"]).await;
    let mut empty = home.writer(WriterOptions::default()).await;
    empty.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let (bytes, _) = empty.finish().await.unwrap();
    assert_eq!(restored(&home, &bytes, Selection::all()).await, b"");

    let mut writer = home.writer(WriterOptions { block_bytes: 64, ..Default::default() }).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    for _ in 0..1000 {
        writer.append(lane, b"", Stamp::default()).unwrap();
    }
    let (bytes, summary) = writer.finish().await.unwrap();
    assert_eq!(summary.records, 1000);
    let segment =
        Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    assert_eq!(segment.blocks().map(|block| block.unwrap().len()).sum::<usize>(), 1000);
    assert_eq!(segment.lanes()[0].lane, LaneNo(1));
}

#[tokio::test]
async fn what_a_cut_file_does_not_show_may_have_been_in_it() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    let cut = usize::try_from(writer.file_bytes()).unwrap();
    writer.open_lane(descriptor("globex", Contents::default()), b"").await.unwrap();
    let (bytes, _) = writer.finish().await.unwrap();
    let open = |length| {
        let select = Selection::scopes(&[scope("globex")]);
        Segment::open_source(&home.domicile, &bytes[..length], Purpose::Support, select)
    };
    let segment = open(cut).await.unwrap();
    assert_eq!((segment.lanes().len(), segment.state()), (0, &State::Unfinished));
    let torn = open(cut + 1).await.unwrap();
    assert_eq!(*torn.state(), State::Torn { at: cut as u64, bytes: 1 });
    assert_eq!(open(bytes.len()).await.unwrap().lanes().len(), 1);
}

#[tokio::test]
async fn a_record_whose_filling_panics_was_not_appended() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    writer.append(lane, b"first", Stamp::default()).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.append_with(lane, 4, Stamp::default(), |room| {
            room[..2].copy_from_slice(b"ab");
            panic!("while it fills");
        })
    }));
    assert!(panicked.is_err());
    writer.append(lane, b"second", Stamp::default()).unwrap();
    writer.append_with(lane, 5, Stamp::default(), |room| room.copy_from_slice(b"third")).unwrap();
    let (bytes, summary) = writer.finish().await.unwrap();
    assert_eq!(summary.records, 3);
    let segment =
        Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    let block = segment.blocks().next().unwrap().unwrap();
    assert_eq!(block.records().collect::<Vec<_>>(), [&b"first"[..], b"second", b"third"]);
}

#[tokio::test]
async fn what_is_shown_for_debugging_shows_nothing_of_the_records() {
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    writer.append(lane, b"zzzz", Stamp::default()).unwrap();
    assert!(!shows_records(&writer));
    let (bytes, _) = writer.finish().await.unwrap();
    let segment =
        Segment::open_source(&home.domicile, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    let mut blocks = segment.blocks();
    let block = blocks.next().unwrap().unwrap();
    assert!(shows_records(&block.values()), "this is how octets are shown");
    assert!(!shows_records(&blocks) && !shows_records(&block) && !shows_records(&block.records()));
    assert!(format!("{block:?}").contains("records: 1"));
    let commit = Commit { durable: 0, running_hash: [0; 32], caller: b"zzzz".to_vec() };
    assert!(!shows_records(&commit));
}

/// Whether four times `z` can be seen.
fn shows_records(shown: &dyn std::fmt::Debug) -> bool {
    let shown = format!("{shown:?}");
    shown.contains("122, 122, 122, 122") || shown.contains("zzzz")
}

/// Restores a selection; returns what came out and the octets that were read for it.
async fn counted(home: &Home, bytes: &[u8], selection: Selection) -> (Vec<u8>, u64) {
    let source = Counting::new(bytes);
    let segment = Segment::open_source(&home.domicile, &source, Purpose::Support, selection).await.unwrap();
    let mut output = Vec::new();
    let restored = segment.restore(&mut output).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    (output, source.read())
}

#[tokio::test]
async fn records_are_found_by_number_and_time_without_reading_the_others() {
    for contents in [
        Contents::default(),
        Contents { arrivals: true, ..Contents::default() },
        Contents { event_times: true, arrivals: true, long_record: false },
    ] {
        let home = Home::of(&["acme", "globex"]).await;
        let mut writer = home.writer(WriterOptions { block_bytes: 4000, ..Default::default() }).await;
        let lane = writer.open_lane(descriptor("acme", contents), b"").await.unwrap();
        // The other tenant's records lie between, and count in the order of arrival.
        let other = Descriptor { source: 1, ..descriptor("globex", contents) };
        let other = writer.open_lane(other, b"").await.unwrap();
        let line = |number: i64| format!("record number {number:08}, and as much again to make it long\n");
        for number in 0..40_000i64 {
            let lane = if number % 2 == 0 { lane } else { other };
            let stamp = Stamp {
                time: contents.event_times.then_some(number * 1000),
                arrival: contents.arrivals.then_some(number),
            };
            writer.append(lane, line(number).as_bytes(), stamp).unwrap();
        }
        let (bytes, _) = writer.finish().await.unwrap();
        let acme = || Selection::scopes(&[scope("acme")]);
        let (_, all) = counted(&home, &bytes, acme()).await;
        assert!(all > 1_000_000 && all < bytes.len() as u64, "{all}: the other lane is not read");

        // By number: arrival numbers where the lane keeps them, and places in the lane otherwise.
        for start in [0u64, 7_000, 19_990] {
            let (range, numbers): (_, Vec<i64>) = if contents.arrivals {
                (2 * start..2 * start + 20, (0..10).map(|n| 2 * (start.cast_signed() + n)).collect())
            } else {
                (start..start + 10, (0..10).map(|n| 2 * (start.cast_signed() + n)).collect())
            };
            let (output, read) = counted(&home, &bytes, acme().records(range).unwrap()).await;
            let expected: String = numbers.iter().map(|number| line(*number)).collect();
            assert_eq!(String::from_utf8(output).unwrap(), expected, "{contents:?} from {start}");
            assert!(read < all / 5, "{contents:?} from {start}: {read} of {all} octets");
        }
        if contents.event_times {
            let time = |number: i64| domicile::Time::from_micros(number * 1000).unwrap();
            let (output, read) = counted(&home, &bytes, acme().from(time(30_000)).to(time(30_010))).await;
            let expected: String = (30_000..30_010).step_by(2).map(line).collect();
            assert_eq!(String::from_utf8(output).unwrap(), expected);
            assert!(read < all / 5, "{read} of {all} octets");
        }
    }
}
