//! What goes into an intake comes out of its segments, and what fails stays failed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use domicile::store::{KeyStore, SqliteStore};
use domicile::{Code, Purpose};
use domicile_record::{Elsewhere, Intake, IntakeOptions, Scoping, Segment, Selection};
use domicile_tests::{Home, InMemory, scope};
use proptest::prelude::*;

/// All times that a sample may have.
fn ever() -> std::ops::Range<domicile::Time> {
    "1900-01-01T00:00:00Z".parse().unwrap().."2200-01-01T00:00:00Z".parse().unwrap()
}

/// A segment of one input, in blocks of `block_bytes`.
async fn sealed(home: &Home, input: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
    options.framing = domicile_record::framing::Choice::Json;
    options.writer.block_bytes = block_bytes;
    let mut intake = Intake::new(&home.domicile, options, InMemory);
    intake.read(input).await.unwrap();
    intake.finish().await.unwrap().segments.pop().unwrap().0
}

async fn restored(home: &Home, segment: &[u8], selection: Selection) -> Vec<u8> {
    let segment = Segment::open_source(&home.domicile, segment, Purpose::Support, selection).await.unwrap();
    let (mut output, mut restored) = (Vec::new(), domicile_record::Restored::default());
    segment.restore_into(&mut output, &mut restored).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    assert_eq!(restored.bytes, output.len() as u64);
    output
}

#[tokio::test]
async fn an_array_with_a_record_that_may_not_be_sealed_is_refused_by_name() {
    let home = Home::of(&["acme"]).await;
    let mut options =
        IntakeOptions::new(Scoping::ByField { tenant: "tenant".into(), record_type: "type".into() });
    options.framing = domicile_record::framing::Choice::Json;
    let mut intake = Intake::new(&home.domicile, options, InMemory);
    let input = r#"[{"tenant":"acme","type":"voice"},{"tenant":"initech","type":"voice"}]"#;
    let report = intake.read(input.as_bytes()).await.unwrap();
    assert_eq!(report.records, 2);
    let refused = intake.finish().await.unwrap_err();
    assert_eq!(refused.code(), Code::HomeNone);
    assert!(refused.to_string().contains("initech/voice"), "{refused}");
}

#[tokio::test]
async fn whatever_looks_like_an_array_comes_back_octet_for_octet() {
    let home = Home::of(&["acme"]).await;
    let blanks = " \n".repeat(40 << 10);
    let long = "x, ".repeat(500 << 10);
    for input in [
        "[1,]".to_owned(),
        "[1,,2]".to_owned(),
        "[1 , ".to_owned(),
        "[1,".to_owned(),
        "[1".to_owned(),
        "[".to_owned(),
        "[]".to_owned(),
        "[,]".to_owned(),
        "[1,2,] , \n".to_owned(),
        "[{\"a\":1},\n{\"a\":2},\n".to_owned(),
        "[{\"a\":\", ,".to_owned(),
        "[1,]]".to_owned(),
        "[1,] , [2,]".to_owned(),
        format!("[1,{blanks}2,{blanks}]"),
        format!("[1,{blanks}"),
        format!("[1{blanks},{blanks}"),
        format!("[\"{long}\", \"{long}\" ,{blanks}]"),
        format!("[\"{long},,,"),
    ] {
        for block_bytes in [1, 65536] {
            if input.len() > 1000 && block_bytes == 1 {
                continue;
            }
            let segment = sealed(&home, input.as_bytes(), block_bytes).await;
            for selection in [Selection::all(), Selection::scopes(&[scope("acme")])] {
                let output = restored(&home, &segment, selection).await;
                assert!(output == input.as_bytes(), "{:.80} ({} octets)", input, input.len());
            }
        }
    }
}

#[tokio::test]
async fn a_selection_of_an_array_is_an_array() {
    let home = Home::of(&["acme"]).await;
    let long = "x, ".repeat(500 << 10);
    let input = format!("[ 1 ,\n\"{long}\" , {{\"a\": \", \"}},\"{long}\"\n, 5 ]\n");
    let all: Vec<serde_json::Value> = serde_json::from_str(&input).unwrap();
    let segment = sealed(&home, input.as_bytes(), 65536).await;
    for first in 0..5 {
        for end in first..=5 {
            let selection = Selection::all().records(first as u64..end as u64).unwrap();
            let output = restored(&home, &segment, selection).await;
            let array: Vec<serde_json::Value> = serde_json::from_slice(&output).unwrap();
            assert!(array == all[first..end], "{first}..{end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn odd_arrays_come_back_and_selections_of_good_ones_are_good(
        odd in "\\[[1, \n\"\\[\\]]{0,24}",
        good in prop::collection::vec(("[ \n]{0,3}", "1|\"a, \"|\\[1, 2\\]|\\{\\}", "[ \n]{0,3}"), 0..6),
        from in 0_usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = Home::of(&["acme"]).await;
            let segment = sealed(&home, odd.as_bytes(), 16).await;
            let output = restored(&home, &segment, Selection::all()).await;
            prop_assert_eq!(String::from_utf8_lossy(&output), odd);

            let list: Vec<_> = good.iter().map(|(before, value, after)| [&before[..], value, after].concat()).collect();
            let array = format!("[{}]", list.join(","));
            let segment = sealed(&home, array.as_bytes(), 16).await;
            let selection = Selection::all().records(0..from as u64).unwrap();
            let selected = restored(&home, &segment, selection).await;
            let selected: Vec<serde_json::Value> = serde_json::from_slice(&selected).unwrap();
            let all: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap();
            prop_assert_eq!(&selected[..], &all[..from.min(all.len())]);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_intake_that_failed_takes_and_gives_nothing_more() {
    let home = Home::of(&["acme"]).await;
    let good = &b"t,n\n2026-01-01,1\n2026-01-02,2\n"[..];
    let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
    options.time = Some("t".to_owned());
    options.backfill = Some(ever());
    let mut intake = Intake::new(&home.domicile, options.clone(), InMemory);
    intake.read(good).await.unwrap();
    let error = intake.read(&b"t,n\n2026-01-01,1\nnonsense,2\n"[..]).await.unwrap_err();
    assert_eq!(error.code(), Code::InputTime);
    assert_eq!(intake.read(good).await.unwrap_err().code(), Code::WriterFailed);
    assert_eq!(intake.finish().await.unwrap_err().code(), Code::WriterFailed);

    let mut intake = Intake::new(&home.domicile, options, InMemory);
    intake.read(good).await.unwrap();
    assert_eq!(intake.finish().await.unwrap().segments[0].1.records, 2);
}

#[tokio::test]
async fn event_times_lie_near_now_or_in_what_was_asked_for_and_that_is_on_record() {
    let home = Home::of(&["acme"]).await;
    let now = home.domicile.now();
    let day = days_from(now, 0);
    let options = |backfill| {
        let mut options = IntakeOptions::new(Scoping::One(scope("acme")));
        options.time = Some("t".to_owned());
        options.backfill = backfill;
        options
    };
    let line = |days: i64| format!("t,n\n{},1\n", days_from(now, days));
    for (days, may) in [(0, true), (-39, true), (-41, false), (2, false), (-400, false)] {
        let mut intake = Intake::new(&home.domicile, options(None), InMemory);
        let read = intake.read(line(days).as_bytes()).await;
        assert_eq!(
            read.err().map(|error| error.code()),
            (!may).then_some(Code::InputTime),
            "{days} days from {day}"
        );
    }
    let asked = days_from(now, -500)..days_from(now, -300);
    for (days, may) in [(-400, true), (0, true), (-200, false), (-600, false)] {
        let mut intake = Intake::new(&home.domicile, options(Some(asked.clone())), InMemory);
        assert_eq!(intake.read(line(days).as_bytes()).await.is_ok(), may, "{days} days from {day}");
    }
    let export = home.domicile.export(&"eu-central-1".parse().unwrap()).await.unwrap();
    let said = export
        .chains
        .iter()
        .flat_map(|(_, events)| events)
        .filter(|event| event.body.contains("\"backfill\""));
    assert_eq!(said.count(), 1, "once for the intake that made use of it");
}

fn days_from(now: domicile::Time, days: i64) -> domicile::Time {
    domicile::Time::from_micros(now.micros() + days * 86_400_000_000).unwrap()
}

fn routed(elsewhere: Elsewhere) -> IntakeOptions {
    let (tenant, record_type) = ("tenant".to_owned(), "type".to_owned());
    let mut options = IntakeOptions::new(Scoping::ByField { tenant, record_type });
    options.elsewhere = elsewhere;
    options
}

/// How often something was refused, and what was said of it.
async fn refusals(home: &Home) -> Vec<String> {
    let store = SqliteStore::open(&home.directory.path().join("domicile.db")).await.unwrap();
    let chains = store.chains().await.unwrap();
    let bodies = chains.iter().flat_map(|(_, events)| events).map(|event| event.body.clone());
    bodies.filter(|body| body.contains("\"refuse\"")).collect()
}

#[tokio::test]
async fn refusals_are_recorded_once_and_as_many_as_can_be_read() {
    let home = Home::of(&["acme"]).await;
    home.domicile.choose_home(&scope("globex"), "us-east-1").await.unwrap();
    let mut input = String::from("tenant,type,n\nacme,voice,1\n");
    for _ in 0..3 {
        input.push_str("globex,voice,1\n");
        (0..150).for_each(|number| input.push_str(&format!("nobody-{number},voice,1\n")));
    }
    let mut intake = Intake::new(&home.domicile, routed(Elsewhere::Skip), InMemory);
    intake.read(input.as_bytes()).await.unwrap();
    assert_eq!(refusals(&home).await, [""; 0], "before all of them are known");
    let sealed = intake.finish().await.unwrap();
    assert_eq!((sealed.segments[0].1.records, sealed.skipped.len()), (1, 151));
    let recorded = refusals(&home).await;
    assert_eq!(recorded.len(), 101);
    assert!(recorded[0].contains("globex") && recorded[0].contains("home/refused"), "{}", recorded[0]);
    assert!(recorded[0].contains("\"records\":3"), "{}", recorded[0]);
    let rest = &recorded[100];
    assert!(
        rest.contains("51 scopes") && rest.contains("\"records\":153") && rest.contains("home/none"),
        "{rest}"
    );

    // An input that fails leaves word of who was refused before.
    let mut intake = Intake::new(&home.domicile, routed(Elsewhere::Refuse), InMemory);
    let input = &b"tenant,type,n\nglobex,voice,1\nglobex,voice,1\nglobex,?,1\n"[..];
    assert_eq!(intake.read(input).await.unwrap_err().code(), Code::InputScope);
    assert_eq!(refusals(&home).await.len(), 102);
}

#[tokio::test]
async fn what_may_be_a_phone_number_is_counted_and_not_named() {
    let home = Home::of(&["acme", "4930123456"]).await;
    let mut intake = Intake::new(&home.domicile, routed(Elsewhere::Refuse), InMemory);
    let input =
        "tenant,type,n\n4930123456,voice,1\n493023125000,voice,2\n0049-30-2312,voice,3\n123456,voice,4\n";
    intake.read(input.as_bytes()).await.unwrap();
    let refusal = intake.finish().await.unwrap_err();
    assert_eq!(refusal.code(), Code::HomeNone);
    assert!(
        refusal
            .what()
            .ends_with(": 123456/voice (no home); 2 scopes (no home) of what looks like phone numbers"),
        "{refusal}"
    );
    let recorded = refusals(&home).await.concat();
    assert!(recorded.contains("123456") && recorded.contains("2 scopes"), "{recorded}");
    assert!(!recorded.contains("493023125000") && !recorded.contains("0049"), "{recorded}");
}
