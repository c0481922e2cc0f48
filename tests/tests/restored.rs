//! Stores that are not what they were: looked at, copied, put back whole or row by row (KEY-40, KEY-43).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use domicile::checkup::check;
use domicile::export::Export;
use domicile::store::{self, Finding, Severity, SqliteStore};
use domicile::{Action, Code, Domicile, Purpose, RecordType, Scope};
use domicile_record::format::{Contents, LaneNo};
use domicile_record::{Erasable, Segment, Selection, Stamp, WriterOptions};
use domicile_tests::{Home, descriptor, region, scope};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

fn store_path(home: &Home) -> PathBuf {
    home.directory.path().join("domicile.db")
}

/// Runs SQL past Domicile.
async fn sql(home: &Home, statement: &str) {
    let options = SqliteConnectOptions::new().filename(store_path(home)).foreign_keys(false);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

/// What opens of a segment, or why nothing does.
async fn opened(domicile: &Domicile, bytes: &[u8]) -> Result<String, Code> {
    let segment = Segment::open_source(domicile, bytes, Purpose::Support, Selection::all());
    let segment = segment.await.map_err(|error| error.code())?;
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    Ok(String::from_utf8(output).unwrap())
}

/// Why acme's lane does not open.
async fn obstacle(domicile: &Domicile, bytes: &[u8]) -> Option<Code> {
    match Segment::open_source(domicile, bytes, Purpose::Support, &[scope("acme")]).await {
        Ok(segment) => segment.lanes()[0].obstacle().map(domicile::Error::code),
        Err(error) => Some(error.code()),
    }
}

async fn erase_acme(domicile: &Domicile, bytes: &[u8]) {
    let id = domicile_record::inspect(bytes).unwrap().segment;
    let lanes = Erasable::Lanes(vec![LaneNo(1)]);
    domicile_record::erase(domicile, bytes, &lanes, &id, Purpose::Maintenance).await.unwrap();
}

async fn exported(domicile: &Domicile) -> Export {
    let mut text = Vec::new();
    domicile.export(&region("eu-central-1")).await.unwrap().write(&mut text).unwrap();
    Export::read(&text[..]).unwrap()
}

/// What is wrong with a place's stores.
async fn wrong(home: &Home) -> Vec<Finding> {
    let checkups = check(&home.config, None).await.unwrap();
    let all = checkups.into_iter().flat_map(|checkup| checkup.condition.findings);
    all.filter(|finding| finding.severity == Severity::Wrong).collect()
}

async fn codes(home: &Home) -> Vec<Code> {
    wrong(home).await.iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn a_whole_store_has_nothing_wrong_and_its_copy_neither() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    erase_acme(&home.domicile, &bytes).await;
    let checkups = check(&home.config, None).await.unwrap();
    assert_eq!(checkups.len(), 1, "one file is all stores and the registry");
    let condition = &checkups[0].condition;
    assert_eq!(condition.findings, []);
    assert_eq!((condition.keys, condition.homes, checkups[0].registry), (4, 2, true));
    let here = checkups[0].regions.iter().find(|of| of.region == region("eu-central-1")).unwrap();
    assert_eq!((here.entries, here.chains), (1, 1));

    // While the store is in use: a copy that is whole, is nobody else's to read, and replaces nothing unasked.
    let copy = home.directory.path().join("copy.db");
    let url = home.config.homes();
    let backed_up = store::backup(url, &copy, false).await.unwrap();
    assert_eq!((backed_up.keys, backed_up.homes), (4, 2));
    assert_eq!(backed_up.ledgers, [(region("eu-central-1"), 1)]);
    assert_eq!(Some(&backed_up.mark), condition.mark.as_ref());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let again = store::backup(url, &copy, false).await.unwrap_err();
    assert_eq!(again.code(), Code::OutputExists);
    store::backup(url, &copy, true).await.unwrap();
    let copied = SqliteStore::examine(&copy).await.unwrap();
    assert_eq!((copied.findings, copied.mark), (vec![], condition.mark.clone()));
    let left: Vec<_> =
        std::fs::read_dir(home.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| domicile::files::is_temporary(name)), "{left:?}");
}

#[tokio::test]
async fn each_fault_of_a_store_is_found_and_told_apart() {
    const FREE: &str = "DROP TRIGGER keys_rise; DROP TRIGGER keys_forever; DROP TRIGGER floors_forever;
        DROP TRIGGER tombstones_forever; DROP TRIGGER ledger_once; DROP TRIGGER ledger_forever; DROP TRIGGER homes_once;
        DROP TRIGGER home_signed_forever; DROP TRIGGER audit_events_once; ";
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    erase_acme(&home.domicile, &bytes).await;
    home.domicile.close().await;
    let whole = std::fs::read(store_path(&home)).unwrap();
    for (statement, code, words) in [
        ("", None, ""),
        ("DROP TRIGGER keys_rise", Some(Code::StoreWeakened), "trigger keys_rise is gone"),
        (
            "DROP TRIGGER keys_rise; CREATE TRIGGER keys_rise BEFORE UPDATE ON keys WHEN 0 BEGIN SELECT 1; END",
            Some(Code::StoreWeakened),
            "trigger keys_rise is not as it was made",
        ),
        (
            "CREATE TRIGGER quiet BEFORE INSERT ON ledger BEGIN SELECT RAISE(IGNORE); END",
            Some(Code::StoreWeakened),
            "a trigger quiet that Domicile did not make",
        ),
        ("UPDATE meta SET inserts = 1", Some(Code::StoreWeakened), "past the count"),
        ("UPDATE meta SET min_reader = 9", Some(Code::StoreInvalid), "newer Domicile"),
        (
            "FREE; UPDATE keys SET kind = 9 WHERE tenant = 'acme'",
            Some(Code::KeyUnverified),
            "did not write (kind)",
        ),
        (
            "FREE; UPDATE keys SET period = 'never' WHERE tenant = 'acme'",
            Some(Code::KeyUnverified),
            "(period)",
        ),
        (
            "FREE; UPDATE keys SET commitment = x'00' WHERE tenant = 'acme'",
            Some(Code::KeyUnverified),
            "(commitment)",
        ),
        (
            "FREE; UPDATE keys SET parent_version = 7 WHERE tenant = 'acme'",
            Some(Code::KeyUnknown),
            "is gone, or was",
        ),
        (
            "FREE; UPDATE keys SET parent_version = parent_version | (1 << 31)",
            Some(Code::KeyUnknown),
            "branch key of acme",
        ),
        ("FREE; DELETE FROM keys WHERE kind = 1", Some(Code::KeyUnknown), "branch key of _region"),
        ("FREE; DELETE FROM keys WHERE tenant = 'acme'", Some(Code::KeyUnknown), "whose row is gone"),
        (
            "FREE; UPDATE keys SET state = 3 WHERE tenant = 'globex'",
            Some(Code::KeyUnknown),
            "no tombstone says",
        ),
        (
            "FREE; UPDATE keys SET sealed = x'' WHERE tenant = 'globex'",
            Some(Code::KeyUnverified),
            "without a key",
        ),
        (
            "FREE; UPDATE keys SET generation = 1 WHERE tenant = 'acme'",
            Some(Code::KeyRolledBack),
            "was put back",
        ),
        (
            "FREE; UPDATE keys SET generation = 1 WHERE tenant = 'acme'; DELETE FROM tombstones; DELETE FROM floors",
            Some(Code::KeyRolledBack),
            "was put back",
        ),
        ("FREE; DELETE FROM floors", Some(Code::StoreCorrupt), "the store forgot that entry 1"),
        (
            "FREE; UPDATE ledger SET signature = zeroblob(64)",
            Some(Code::LedgerUnverified),
            "not what was signed",
        ),
        ("FREE; DELETE FROM ledger", Some(Code::KeyRolledBack), "not the one that this host knew"),
        (
            "FREE; UPDATE homes SET region = 'us-east-1' WHERE tenant = 'acme'",
            Some(Code::HomeForged),
            "acme/voice",
        ),
        (
            "FREE; UPDATE homes SET region = 'Mars' WHERE tenant = 'acme'",
            Some(Code::NameInvalid),
            "home of acme/voice",
        ),
        ("FREE; DELETE FROM home_signed WHERE tenant = 'acme'", Some(Code::HomeForged), "acme/voice"),
        (
            "FREE; UPDATE audit_events SET body = '{}' WHERE number = 2",
            Some(Code::LedgerUnverified),
            "event 2",
        ),
    ] {
        std::fs::write(store_path(&home), &whole).unwrap();
        sql(&home, &statement.replace("FREE;", FREE)).await;
        let found = wrong(&home).await;
        let said = |finding: &&Finding| {
            let place = finding.place.clone().unwrap_or_default();
            Some(finding.code) == code && format!("{} {place}", finding.what).contains(words)
        };
        match code {
            None => assert_eq!(found, [], "a whole store"),
            Some(_) => {
                let told = found.iter().find(said).unwrap_or_else(|| panic!("{statement}: {found:#?}"));
                assert!(!told.advice.is_empty() || told.code == Code::NameInvalid, "{told:?}");
            }
        }
    }
    // A page of the file that is noise.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2 / 4096 * 4096;
    damaged[middle..middle + 4096].fill(0x5a);
    std::fs::write(store_path(&home), &damaged).unwrap();
    assert!(codes(&home).await.contains(&Code::StoreCorrupt));
    let copy = home.directory.path().join("copy.db");
    let refused = store::backup(home.config.homes(), &copy, false).await.unwrap_err();
    assert!([Code::StoreCorrupt, Code::OutputFailed].contains(&refused.code()), "{refused:?}");
    assert!(!copy.exists());
    std::fs::write(store_path(&home), "noise").unwrap();
    assert_eq!(codes(&home).await, [Code::StoreInvalid]);
}

#[tokio::test]
async fn a_file_that_is_put_back_opens_nothing_before_the_replay_and_nothing_erased_after_it() {
    for backed_up in [false, true] {
        let home = Home::of(&["acme", "globex"]).await;
        let (doomed, kept) = (home.sealed(&["acme", "globex"]).await, home.sealed(&["acme", "globex"]).await);
        let (path, old) = (store_path(&home), home.directory.path().join("old.db"));
        if backed_up {
            store::backup(home.config.homes(), &old, false).await.unwrap();
            home.domicile.close().await;
        } else {
            home.domicile.close().await;
            std::fs::copy(&path, &old).unwrap();
        }
        let process = home.restarted().await;
        erase_acme(&process, &doomed).await;
        // A key that no backup has.
        let fax = Scope::new("acme", RecordType::FAX).unwrap();
        process.choose_home(&fax, "eu-central-1").await.unwrap();
        let mut writer = domicile_record::SegmentWriter::create(
            &process,
            &region("eu-central-1"),
            Vec::new(),
            WriterOptions::default(),
        )
        .await
        .unwrap();
        let lane =
            domicile_record::format::Descriptor { scope: fax, ..descriptor("acme", Contents::default()) };
        let lane = writer.open_lane(lane, b"").await.unwrap();
        writer.append(lane, b"lost", Stamp::default()).unwrap();
        let lost = writer.finish().await.unwrap().0;
        let export = exported(&process).await;
        process.close().await;

        std::fs::copy(&old, &path).unwrap();
        for left in ["domicile.db-wal", "domicile.db-shm"] {
            let _ = std::fs::remove_file(home.directory.path().join(left));
        }
        let process = home.restarted().await;
        assert_eq!(opened(&process, &kept).await, Err(Code::KeyRolledBack));
        assert_eq!(obstacle(&process, &doomed).await, Some(Code::KeyRolledBack));
        process.close().await;
        assert_eq!(codes(&home).await, [Code::KeyRolledBack]);

        let process = home.restarted().await;
        let action = Action::Manage(Purpose::Maintenance.into());
        let report = process.replay(&export, action).await.unwrap();
        assert_eq!((report.entries, report.keys, report.homes), (1, 1, 1));
        let gone: Vec<_> = report.gone.iter().map(|(_, whose)| &whose[..]).collect();
        assert_eq!(gone, ["acme/fax/2026-11"]);
        assert_eq!(opened(&process, &kept).await.unwrap(), "acmeglobex");
        assert_eq!(obstacle(&process, &doomed).await, Some(Code::KeyDestroyed));
        assert_eq!(opened(&process, &lost).await.unwrap_or_default(), "");
        process.close().await;
        assert_eq!(codes(&home).await, []);
    }
}

#[tokio::test]
async fn rows_that_are_put_back_from_an_old_file_are_refused() {
    let home = Home::of(&["acme", "globex"]).await;
    let (doomed, kept) = (home.sealed(&["acme", "globex"]).await, home.sealed(&["acme", "globex"]).await);
    let old = home.directory.path().join("old.db");
    store::backup(home.config.homes(), &old, false).await.unwrap();
    erase_acme(&home.domicile, &doomed).await;
    home.domicile
        .keyring()
        .rotate_roots(
            home.domicile
                .permit_region(&region("eu-central-1"), Action::Manage(Purpose::Maintenance.into()))
                .await
                .unwrap(),
            true,
        )
        .await
        .unwrap();
    home.domicile.close().await;
    let now = std::fs::read(store_path(&home)).unwrap();
    let put_back = |which: &str| {
        format!(
            "DROP TRIGGER keys_rise; DROP TRIGGER keys_forever; DROP TRIGGER keys_counted;
             ATTACH '{}' AS old; DELETE FROM main.keys WHERE {which};
             INSERT INTO main.keys SELECT * FROM old.keys WHERE {which}",
            old.display()
        )
    };

    // The key from which something was erased.
    sql(&home, &put_back("tenant = 'acme'")).await;
    let process = home.restarted().await;
    assert_eq!(obstacle(&process, &doomed).await, Some(Code::KeyRolledBack));
    assert_eq!(opened(&process, &kept).await.unwrap(), "globex", "whose row it is not");
    process.close().await;
    assert!(codes(&home).await.contains(&Code::KeyRolledBack));

    // A branch key under an old wrap is no erased key: it opens as long as the old root key does.
    std::fs::write(store_path(&home), &now).unwrap();
    sql(&home, &put_back("kind = 1")).await;
    let process = home.restarted().await;
    assert_eq!(obstacle(&process, &doomed).await, Some(Code::KeyDestroyed));
    assert_eq!(opened(&process, &kept).await.unwrap(), "acmeglobex");
    process.close().await;

    // One owner's row in the place of another's.
    std::fs::write(store_path(&home), &now).unwrap();
    sql(
        &home,
        "DROP TRIGGER keys_rise; UPDATE keys SET tenant = 'swap' WHERE tenant = 'acme';
         UPDATE keys SET tenant = 'acme' WHERE tenant = 'globex'; UPDATE keys SET tenant = 'globex' WHERE tenant = 'swap'",
    )
    .await;
    let process = home.restarted().await;
    assert_eq!(obstacle(&process, &kept).await, Some(Code::KeyUnverified));
    process.close().await;
}

/// Whoever begins while others of its host go on may hear of what they saw later than of the store itself: that is no earlier
/// state of it.
#[tokio::test]
async fn processes_that_begin_while_others_go_on_know_their_store() {
    let home = Home::of(&["acme"]).await;
    std::thread::scope(|threads| {
        for process in 0..4 {
            let home = &home;
            threads.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for round in 0..12 {
                        let domicile = home.restarted().await;
                        let scope = scope(&format!("tenant-{process}-{round}"));
                        domicile.choose_home(&scope, "eu-central-1").await.unwrap();
                        let permit = domicile.permit(&scope, Action::Seal).await.unwrap();
                        let period = domicile.period(&RecordType::VOICE, domicile.now()).unwrap();
                        domicile.keyring().sealing_leaf(permit, period).await.unwrap();
                        let permit = domicile.permit(&scope, manage()).await.unwrap();
                        domicile.keyring().rotate(permit).await.unwrap();
                        domicile.close().await;
                    }
                });
            });
        }
    });
}

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}
