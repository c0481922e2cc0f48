//! Compaction and settling: the same records in fewer, larger blocks; at every step each record is there once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use domicile::{Code, Purpose};
use domicile_record::format::{BlockKind, Contents, Descriptor};
use domicile_record::framing::Framing;
use domicile_record::{
    Compacting, Recovering, Segment, Selection, Stamp, WriterOptions, inspect, replaced_by, settle, verify,
};
use domicile_tests::{Home, descriptor};

/// What `open` gives back of a segment.
async fn restored(home: &Home, bytes: &[u8], selection: Selection) -> String {
    let segment = Segment::open_source(&home.domicile, bytes, Purpose::Support, selection).await.unwrap();
    let mut output = Vec::new();
    let restored = segment.restore(&mut output).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    String::from_utf8(output).unwrap()
}

async fn checked(home: &Home, bytes: &[u8]) -> u64 {
    let verified = verify(&home.domicile, bytes, None).await.unwrap();
    assert!(verified.is_complete(), "{}: {:?}", verified.detail, verified.findings);
    verified.records
}

/// A hot segment: lanes that take turns, a block for each few records.
async fn hot(home: &Home, tenants: &[&str], contents: Contents, from: u64, records: u64) -> Vec<u8> {
    let mut writer = home.writer(WriterOptions::default()).await;
    let mut lanes = Vec::new();
    for tenant in tenants {
        let framed = Descriptor { framing: Some(Framing::Lines), ..descriptor(tenant, contents) };
        lanes.push(writer.open_lane(framed, b"head\n").await.unwrap());
    }
    for number in 0..records {
        let stamp = Stamp {
            time: contents.event_times.then_some(1_000_000 * i64::try_from(from + number).unwrap()),
            arrival: contents.arrivals.then_some(i64::try_from(number).unwrap()),
        };
        let lane = usize::try_from(number).unwrap() % lanes.len();
        writer
            .append(lanes[lane], format!("{} {}\n", tenants[lane], from + number).as_bytes(), stamp)
            .unwrap();
        if number % 7 == 6 {
            writer.commit(b"").unwrap();
        }
    }
    writer.finish().await.unwrap().0
}

async fn compacted(home: &Home, sources: &[Vec<u8>]) -> Vec<u8> {
    let sources = sources.iter().map(|bytes| &bytes[..]);
    let compacting = Compacting::examine(&home.domicile, sources).await.unwrap();
    compacting.write(|_| Ok(Vec::new()), WriterOptions::default()).await.unwrap().0
}

/// SEG-48.
#[tokio::test]
async fn lanes_of_several_segments_become_one_piece_each_and_the_order_stays() {
    let tenants = ["acme", "globex", "initech"];
    let home = Home::of(&tenants).await;
    let contents = Contents { event_times: true, arrivals: true, ..Contents::default() };
    let first = hot(&home, &tenants, contents, 0, 300).await;
    let second = hot(&home, &tenants[1..], contents, 300, 100).await;
    let new = compacted(&home, &[second.clone(), first.clone()]).await;
    assert_eq!(checked(&home, &new).await, 400);
    let inspected = inspect(&new[..]).unwrap();
    assert_eq!(inspected.lanes.iter().map(|lane| lane.data_blocks).collect::<Vec<_>>(), [0, 1, 1, 1]);
    assert!(new.len() < first.len() / 2 + second.len(), "{} and {}", new.len(), first.len());
    // The order of arrival, over lanes and segments; what stood before the records, once.
    let expected = |range: std::ops::Range<u64>| -> String {
        let tenant = |number: u64| match number {
            0..300 => tenants[usize::try_from(number).unwrap() % 3],
            _ => tenants[1..][usize::try_from(number - 300).unwrap() % 2],
        };
        range.map(|number| format!("{} {number}\n", tenant(number))).collect()
    };
    assert_eq!(restored(&home, &new, Selection::all()).await, format!("head\n{}", expected(0..400)));
    let some = Selection::all().records(250..350).unwrap();
    assert_eq!(restored(&home, &new, some).await, format!("head\n{}", expected(250..350)));
    let replaced = replaced_by(&home.domicile, &new[..], Purpose::Support).await.unwrap();
    let id = |bytes: &[u8]| domicile_record::header_of(bytes).unwrap().id;
    let mut both = vec![id(&first), id(&second)];
    both.sort_unstable();
    assert_eq!(replaced, both);
    // Compacted once more, with what it replaces, nothing is there twice, and what was replaced stays so.
    let again = compacted(&home, &[second.clone(), new.clone(), first.clone()]).await;
    assert_eq!(checked(&home, &again).await, 400);
    let replaced = replaced_by(&home.domicile, &again[..], Purpose::Support).await.unwrap();
    assert!(replaced.len() == 3 && both.iter().all(|old| replaced.contains(old)));
    // Alone, nothing is lost.
    assert_eq!(
        restored(&home, &compacted(&home, &[new]).await, Selection::all()).await,
        format!("head\n{}", expected(0..400))
    );
}

#[tokio::test]
async fn without_event_times_blocks_are_selected_by_when_they_were_sealed_first() {
    let home = Home::of(&["acme"]).await;
    let bytes = hot(&home, &["acme"], Contents::default(), 0, 50).await;
    let behind = home.domicile.now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let new = compacted(&home, &[bytes]).await;
    let before = restored(&home, &new, Selection::all().to(behind)).await;
    assert_eq!(before.lines().count(), 51, "{before}");
    assert_eq!(restored(&home, &new, Selection::all().from(behind)).await, "head\n");
}

#[tokio::test]
async fn long_records_and_inputs_of_their_own_stay_apart() {
    let home = Home::of(&["acme"]).await;
    let long = Contents { long_record: true, arrivals: true, ..Contents::default() };
    let mut writer = home.writer(WriterOptions { block_bytes: 1 << 10, ..WriterOptions::default() }).await;
    let arrival = |number| Stamp { arrival: Some(number), ..Stamp::default() };
    let lane = writer.open_lane(descriptor("acme", long), b"").await.unwrap();
    writer.append_piece(lane, &[b'x'; 5000], arrival(0), false).unwrap();
    writer.append_piece(lane, &[b'y'; 5000], arrival(0), true).unwrap();
    let ordered = Contents { arrivals: true, ..Contents::default() };
    let lane = writer.open_lane(descriptor("acme", ordered), b"").await.unwrap();
    writer.append(lane, b"short", arrival(1)).unwrap();
    let other = Descriptor { source: 1, framing: Some(Framing::JsonArray), ..descriptor("acme", ordered) };
    let lane = writer.open_lane(other, b"[").await.unwrap();
    writer.append(lane, b"1", arrival(0)).unwrap();
    writer.set_postamble(lane, b"]").unwrap();
    let bytes = writer.finish().await.unwrap().0;
    let before = restored(&home, &bytes, Selection::all()).await;
    let new = compacted(&home, &[bytes]).await;
    assert_eq!(checked(&home, &new).await, 3);
    assert_eq!(restored(&home, &new, Selection::all()).await, before);
}

#[tokio::test]
async fn what_is_erased_stays_behind_and_what_cannot_be_opened_stops_it() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = hot(&home, &["acme", "globex"], Contents::default(), 0, 20).await;
    let name = domicile_record::header_of(&bytes[..]).unwrap().id.to_string();
    let lane = domicile_record::Erasable::Lanes(vec![domicile_record::format::LaneNo(1)]);
    domicile_record::erase(&home.domicile, &bytes[..], &lane, &name, Purpose::Maintenance).await.unwrap();
    let compacting = Compacting::examine(&home.domicile, [&bytes[..]]).await.unwrap();
    assert_eq!(compacting.erased(), 1);
    let new = compacting.write(|_| Ok(Vec::new()), WriterOptions::default()).await.unwrap().0;
    assert_eq!(checked(&home, &new).await, 10);
    let cut = Compacting::examine(&home.domicile, [&bytes[..bytes.len() - 1]]).await;
    assert!(cut.is_err() || cut.unwrap().headers().count() == 1, "a footer is a hint");
    let torn = Compacting::examine(&home.domicile, [&bytes[..1000]]).await.unwrap_err();
    assert!(matches!(torn.code(), Code::SegmentTorn | Code::SegmentUnfinished), "{torn}");
    let twice = Compacting::examine(&home.domicile, [&bytes[..], &bytes[..]]).await.unwrap_err();
    assert_eq!(twice.code(), Code::ArgumentInvalid);
}

/// More than a recorder leaves in a day of roll-overs, and more than many systems let a process have open by default.
#[tokio::test]
async fn very_many_segments_become_one() {
    let home = Home::of(&["acme", "globex"]).await;
    let contents = Contents { arrivals: true, ..Contents::default() };
    let mut sources = Vec::new();
    for from in 0..300 {
        sources.push(
            hot(&home, &["acme", "globex"][..if from % 2 == 0 { 1 } else { 2 }], contents, 2 * from, 2).await,
        );
    }
    let new = compacted(&home, &sources).await;
    assert_eq!(checked(&home, &new).await, 600);
    let tenant = |number: u64| if number % 4 == 3 { "globex" } else { "acme" };
    let expected: String = (0..600).map(|number| format!("{} {number}\n", tenant(number))).collect();
    assert_eq!(restored(&home, &new, Selection::all()).await, format!("head\n{expected}"));
    assert_eq!(replaced_by(&home.domicile, &new[..], Purpose::Support).await.unwrap().len(), 300);
}

#[tokio::test]
async fn a_long_record_that_a_crash_cut_is_told_and_nothing_is_written_without_it() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 1 << 10, ..WriterOptions::default() }).await;
    let lane = writer.open_lane(descriptor("globex", Contents::default()), b"").await.unwrap();
    writer.append(lane, b"short", Stamp::default()).unwrap();
    writer.commit(b"").unwrap();
    let long = Contents { long_record: true, ..Contents::default() };
    let lane = writer.open_lane(descriptor("acme", long), b"").await.unwrap();
    writer.append_piece(lane, &[b'x'; 5000], Stamp::default(), false).unwrap();
    writer.append_piece(lane, &[b'y'; 5000], Stamp::default(), true).unwrap();
    let bytes = writer.finish().await.unwrap().0;
    let pieces = domicile_tests::blocks(&bytes);
    let last = pieces.iter().rfind(|(_, block)| block.kind == BlockKind::Data && block.lane.0 == lane.0);
    let recovering = Recovering::examine(&home.domicile, &bytes[..last.unwrap().0]).await.unwrap().unwrap();
    let closed = recovering.write(Vec::new()).unwrap().0;
    assert_eq!(checked(&home, &closed).await, 1, "what is cut is no record");
    let compacting = Compacting::examine(&home.domicile, [&closed[..]]).await.unwrap();
    let refused = compacting.write(|_| Ok(Vec::new()), WriterOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::SegmentUnfinished);
    assert!(refused.place().unwrap().contains(&format!("lane {lane}")), "{refused:?}");
    // Once its lane is erased, as the error says, the rest is written anew.
    let name = domicile_record::header_of(&closed[..]).unwrap().id.to_string();
    let lanes = domicile_record::Erasable::Lanes(vec![lane]);
    domicile_record::erase(&home.domicile, &closed[..], &lanes, &name, Purpose::Maintenance).await.unwrap();
    let new = compacted(&home, &[closed]).await;
    assert_eq!(checked(&home, &new).await, 1);
    assert_eq!(restored(&home, &new, Selection::all()).await, "short");
}

#[tokio::test]
async fn settling_needs_no_key_and_leaves_every_lane_in_one_piece() {
    let tenants = ["acme", "globex", "initech"];
    let home = Home::of(&tenants).await;
    let contents = Contents { arrivals: true, ..Contents::default() };
    let bytes = hot(&home, &tenants, contents, 0, 300).await;
    let mut settled = Vec::new();
    settle(&bytes[..], &mut settled).unwrap();
    assert_eq!(checked(&home, &settled).await, 300);
    let all = restored(&home, &bytes, Selection::all()).await;
    assert_eq!(restored(&home, &settled, Selection::all()).await, all);
    let source = domicile_tests::Counting::new(&settled);
    let one = Selection::scopes(&[domicile_tests::scope("globex")]);
    let segment = Segment::open_source(&home.domicile, &source, Purpose::Support, one).await.unwrap();
    assert_eq!(segment.blocks().count(), 42 + 1);
    // Settled once more, nothing but the edition changes.
    let mut again = Vec::new();
    settle(&settled[..], &mut again).unwrap();
    assert_eq!(again[112..again.len() - 200], settled[112..settled.len() - 200]);
    assert_eq!(
        settle(&bytes[..bytes.len() - 1], &mut Vec::new()).unwrap_err().code(),
        Code::SegmentUnfinished
    );
}

/// The running hash goes by ordinal: a settled file of more blocks than may wait is read once more.
#[tokio::test]
async fn settled_files_of_very_many_blocks_verify() {
    let tenants = ["acme", "globex"];
    let home = Home::of(&tenants).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let mut lanes = Vec::new();
    for tenant in tenants {
        lanes.push(writer.open_lane(descriptor(tenant, Contents::default()), b"").await.unwrap());
    }
    for _ in 0..70_000 {
        for lane in &lanes {
            writer.append(*lane, b"x", Stamp::default()).unwrap();
        }
        writer.commit(b"").unwrap();
    }
    let bytes = writer.finish().await.unwrap().0;
    let mut settled = Vec::new();
    settle(&bytes[..], &mut settled).unwrap();
    assert_eq!(checked(&home, &settled).await, 140_000);
    // One block of another ordinal, and it is found out.
    let at = settled.len() / 2 / 8 * 8;
    let block = settled[at..].windows(4).position(|window| window == b"\xd0BLK").unwrap() + at;
    settled[block + 60] ^= 1;
    let verified = verify(&home.domicile, &settled[..], None).await.unwrap();
    assert!(verified.state().is_corrupt());
}
