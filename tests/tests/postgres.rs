//! The key store in PostgreSQL: what every store promises, and what comes of several servers, processes and roles.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::time::Duration;

use domicile::store::{
    KeyIdentity, KeyName, KeyRow, KeySlot, KeyState, KeyStore, LedgerEntry, PostgresStore, RowWrite, Step,
    Write, Written, conformance,
};
use domicile::{Code, Error};
use domicile_tests::postgres::Server;
use domicile_tests::{region, scope};

fn row(tenant: &str, generation: u64) -> KeyRow {
    let mut name = [0; 16];
    name[..tenant.len()].copy_from_slice(tenant.as_bytes());
    let slot = KeySlot::tenant(&region("eu-central-1"), &scope(tenant), "2026-11".parse().unwrap());
    KeyRow {
        identity: KeyIdentity { slot, version: 1 },
        generation,
        state: KeyState::Active,
        name: KeyName(name),
        commitment: [1; 32],
        parent_version: 1,
        sealed: vec![7; 89],
    }
}

/// A write of one row, with or without an entry of the ledger.
fn write(row: KeyRow, entry: Option<u64>) -> Write {
    let replaces = (row.generation > 1).then(|| row.generation - 1);
    Write {
        region: region("eu-central-1"),
        rows: vec![RowWrite { row, replaces, buries: entry.is_some(), leaves: Vec::new() }],
        entry: entry.map(|number| LedgerEntry { number, kind: 1, body: vec![5; 9], signature: vec![6; 64] }),
        buried: Vec::new(),
        incarnation: None,
    }
}

/// The branch key that these rows lie under.
fn branch() -> KeyRow {
    let slot =
        KeySlot::branch(&region("eu-central-1"), &domicile::TenantId::REGION, "2026-11".parse().unwrap());
    KeyRow { identity: KeyIdentity { slot, version: 1 }, parent_version: 0, ..row("branch", 1) }
}

async fn done(store: &PostgresStore, write: &Write) {
    assert!(matches!(store.write(write).await.unwrap(), Written::Done { .. }));
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn it_keeps_what_a_store_promises() {
    let server = Server::new().await;
    let store = PostgresStore::open(&server.store("one").await).await.unwrap();
    conformance::key_store(&store).await.unwrap();
    conformance::home_registry(&store).await.unwrap();

    // A schema of another name, in the same database: another store.
    server.sql("one", "CREATE SCHEMA eu").unwrap();
    let url = format!("{}?options=-csearch_path%3Deu", server.text("owner", "one"));
    let url = domicile::config::PostgresUrl::new(&url, None).unwrap();
    assert_eq!(PostgresStore::open(&url).await.unwrap_err().code(), Code::StoreInvalid);
    PostgresStore::migrate(&url, Step::Expand).await.unwrap();
    let other = PostgresStore::open(&url).await.unwrap();
    assert_ne!(other.mark().await.unwrap().incarnation, store.mark().await.unwrap().incarnation);
    conformance::key_store(&other).await.unwrap();
    conformance::home_registry(&other).await.unwrap();
}

#[tokio::test]
async fn whoever_writes_past_the_store_is_refused_by_triggers() {
    let server = Server::new().await;
    let store = PostgresStore::open(&server.store("one").await).await.unwrap();
    conformance::key_store(&store).await.unwrap();
    conformance::home_registry(&store).await.unwrap();
    for (sql, words) in [
        ("UPDATE keys SET state = 3", "the generation of a key rises"),
        ("UPDATE keys SET generation = generation + 1, tenant = 'globex'", "the generation of a key rises"),
        ("DELETE FROM keys", "leaves its row"),
        ("TRUNCATE keys", "leaves its row"),
        ("UPDATE ledger SET body = ''", "the ledger only grows"),
        ("DELETE FROM ledger", "the ledger only grows"),
        ("INSERT INTO ledger VALUES ('eu-central-1', 9, 1, '', '')", "one entry after the other"),
        ("UPDATE floors SET generation = generation - 1", "is not given back"),
        ("DELETE FROM floors", "is not given back"),
        ("DELETE FROM tombstones", "is not given back"),
        ("UPDATE tombstones SET entry = 9", "is not given back"),
        ("UPDATE counters SET value = 0 WHERE name = 'changes'", "does not go back"),
        ("DELETE FROM changes", "what changed has changed"),
        ("DELETE FROM writers", "a writer number is given once"),
        ("UPDATE homes SET region = 'us-east-1'", "a home is chosen once"),
        ("DELETE FROM homes", "a home is chosen once"),
        ("INSERT INTO homes VALUES ('acme', 'telex', 'eu-central-1', 0)", "one home for all record types"),
        ("UPDATE home_statements SET body = ''", "a statement is made once"),
        ("DELETE FROM home_signed", "a statement is made once"),
        ("UPDATE audit_events SET body = ''", "the audit chain only grows"),
        ("DELETE FROM audit_events", "the audit chain only grows"),
        ("TRUNCATE audit_chains CASCADE", "the audit chain only grows"),
        ("DELETE FROM meta", "a store is one"),
        ("INSERT INTO meta VALUES (true, 2, 2, 2, '0123456789abcdef')", "meta_pkey"),
    ] {
        let said = server.sql("one", sql).unwrap_err();
        assert!(said.contains(words), "{sql}: {said}");
    }
}

#[tokio::test]
async fn whoever_polls_for_changes_misses_none_however_many_write() {
    const WRITERS: usize = 4;
    const WRITES: u64 = 30;
    let server = Server::new().await;
    let url = server.store("one").await;
    let reader = PostgresStore::open(&url).await.unwrap();
    reader.insert(&branch()).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = PostgresStore::open(&url).await.unwrap();
        writers.push(tokio::spawn(async move {
            let tenant = format!("t{writer}");
            store.insert(&row(&tenant, 1)).await.unwrap();
            for generation in 2..=WRITES {
                // Every third has an entry, whose number all of them fight for.
                if generation % 3 != 0 {
                    done(&store, &write(row(&tenant, generation), None)).await;
                    continue;
                }
                loop {
                    let head = store.ledger_head(&region("eu-central-1")).await.unwrap();
                    let next = head.map_or(1, |head| head.number + 1);
                    match store.write(&write(row(&tenant, generation), Some(next))).await.unwrap() {
                        Written::Done { .. } => break,
                        Written::Overtaken => {}
                    }
                }
            }
        }));
    }
    let (mut seen, mut last) = (Vec::new(), 0);
    loop {
        let ended = writers.iter().all(tokio::task::JoinHandle::is_finished);
        for change in reader.changes_since(last, 7).await.unwrap() {
            assert!(change.number > last);
            last = change.number;
            seen.push(change);
        }
        if ended && reader.mark().await.unwrap().changes == last {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen, reader.changes_since(0, 10_000).await.unwrap());
    let entries = reader.ledger(&region("eu-central-1"), &[], 0, 10_000).await.unwrap();
    assert_eq!(entries.len(), WRITERS * 10);
    assert_eq!(seen.len(), WRITERS * 29 + entries.len());
    assert_eq!(reader.mark().await.unwrap().inserts, WRITERS as u64 + 1);
}

#[tokio::test]
async fn many_insert_one_key_and_one_of_them_wins() {
    let server = Server::new().await;
    let url = server.store("one").await;
    PostgresStore::open(&url).await.unwrap().insert(&branch()).await.unwrap();
    let mut inserts = Vec::new();
    for writer in 0..6u8 {
        let store = PostgresStore::open(&url).await.unwrap();
        inserts.push(tokio::spawn(async move {
            let mine = KeyRow { name: KeyName([writer; 16]), ..row("acme", 1) };
            let inserted = store.insert(&mine).await.unwrap();
            (matches!(inserted, domicile::store::Inserted::Ours), store.next_writer().await.unwrap())
        }));
    }
    let (mut ours, mut numbers) = (0, Vec::new());
    for insert in inserts {
        let (won, number) = insert.await.unwrap();
        ours += u32::from(won);
        numbers.push(number);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((ours, numbers.len()), (1, 6));
}

#[tokio::test]
async fn a_dump_brought_back_is_another_store_or_one_that_went_back() {
    let (server, other) = tokio::join!(Server::new(), Server::new());
    let store = PostgresStore::open(&server.store("one").await).await.unwrap();
    store.insert(&branch()).await.unwrap();
    store.insert(&row("acme", 1)).await.unwrap();
    done(&store, &write(row("acme", 2), Some(1))).await;
    let dump = server.dump("one");
    done(&store, &write(row("acme", 3), Some(2))).await;
    store.insert(&row("globex", 1)).await.unwrap();
    let before = store.mark().await.unwrap();
    KeyStore::close(&store).await;

    // Into another database of this server, into another server, and in the place of what was there.
    let beside = server.database("two");
    server.script("two", &dump);
    let elsewhere = other.database("one");
    other.script("one", &dump);
    server.sql("one", "DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
    server.script("one", &dump);
    let in_place = server.url("owner", "one");
    for url in [beside, elsewhere, in_place] {
        let store = PostgresStore::open(&url).await.unwrap();
        let mark = store.mark().await.unwrap();
        assert_ne!(mark.incarnation, before.incarnation);
        assert!(mark.changes < before.changes && mark.inserts < before.inserts, "{mark:?}");
        // It works as it did: counters and triggers came back too.
        done(&store, &write(row("acme", 3), Some(2))).await;
        store.insert(&row("globex", 1)).await.unwrap();
        assert!(store.mark().await.unwrap().inserts > mark.inserts);
    }
}

#[tokio::test]
async fn a_standby_is_refused_until_it_is_promoted_and_is_another_store_then() {
    let server = Server::new().await;
    let url = server.store("one").await;
    let store = PostgresStore::open(&url).await.unwrap();
    store.insert(&row("acme", 1)).await.unwrap();
    let before = store.mark().await.unwrap();
    let standby = Server::standby_of(&server).await;
    let url = standby.url("owner", "one");
    let refused = PostgresStore::open(&url).await.unwrap_err();
    assert_eq!(refused.code(), Code::StoreUnavailable);
    assert_eq!(refused.what(), "this is a standby of the key store");
    assert_eq!(store.mark().await.unwrap(), before, "the primary is what it was");

    standby.promote();
    let promoted = PostgresStore::open(&url).await.unwrap();
    let mark = promoted.mark().await.unwrap();
    assert_ne!(mark.incarnation, before.incarnation);
    assert_eq!((mark.changes, mark.inserts), (before.changes, before.inserts));
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_middle_of_a_write_is_said_and_nothing_is_written() {
    let mut server = Server::new().await;
    let store = PostgresStore::open(&server.store("one").await).await.unwrap();
    store.insert(&branch()).await.unwrap();
    store.insert(&row("acme", 1)).await.unwrap();
    let before = store.mark().await.unwrap();
    // Somebody holds the counter, and the write waits for it when its connection goes.
    let mut holder = server.psql("owner", "one");
    let mut holder =
        holder.args(["-c", "BEGIN; SELECT FROM counters FOR UPDATE; SELECT pg_sleep(60)"]).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while server.sql("one", held).unwrap() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.write(&write(row("acme", 2), Some(1))).await })
    };
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE'";
    while server.sql("one", end).unwrap() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::StoreUnavailable, "{error:?}");
    assert!(error.is_retryable());
    server
        .sql("one", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        .unwrap();
    holder.wait().unwrap();
    assert_eq!(store.mark().await.unwrap(), before);
    assert_eq!(store.find(&row("acme", 1).identity).await.unwrap().unwrap().row, row("acme", 1));

    // The whole server goes, and comes back.
    server.stop();
    let error = store.mark().await.unwrap_err();
    assert_eq!(error.code(), Code::StoreUnavailable);
    let error = PostgresStore::open(&server.url("owner", "one")).await.unwrap_err();
    assert_eq!((error.code(), error.what()), (Code::StoreUnavailable, "the key store is out of reach"));
    server.start().await;
    assert_eq!(store.mark().await.unwrap(), before);
    done(&store, &write(row("acme", 2), Some(1))).await;
}

#[tokio::test]
async fn each_failure_says_what_to_do() {
    let server = Server::new().await;
    let url = server.database("one");
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreInvalid);
    assert!(error.advice().unwrap().contains("domicile store migrate"), "{error:?}");
    PostgresStore::migrate(&url, Step::Expand).await.unwrap();

    let error = PostgresStore::open(&server.url("owner", "none")).await.unwrap_err();
    assert_eq!((error.code(), error.what()), (Code::StoreUnavailable, "there is no such database"));

    server.sql("one", "CREATE ROLE stranger LOGIN; CREATE ROLE locked LOGIN PASSWORD 'hush'").unwrap();
    let error = PostgresStore::open(&server.url("stranger", "one")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.what()),
        (Code::StoreUnavailable, "the role may not do this in the key store")
    );

    server.sql("postgres", "ALTER SYSTEM SET synchronous_commit = 'off'").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert_eq!(error.what(), "this server does not make durable what it commits");
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_commit").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;

    // A password comes from a file that nobody else can read, and is shown nowhere.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    server.sql("one", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO locked").unwrap();
    let locked = |file: &std::path::Path| {
        domicile::config::PostgresUrl::new(&server.text("locked", "one"), Some(file.to_owned())).unwrap()
    };
    set(&file, "wrong", 0o600);
    let error = PostgresStore::open(&locked(&file)).await.unwrap_err();
    assert_eq!(error.what(), "the server does not let this role in");
    assert!(!format!("{error:?} {}", cause(&error)).contains("wrong"));
    set(&file, "hush\n", 0o640);
    let error = PostgresStore::open(&locked(&file)).await.unwrap_err();
    assert_eq!(error.what(), "others can read or replace the password file");
    set(&file, "hush\n", 0o600);
    let store = PostgresStore::open(&locked(&file)).await.unwrap();
    assert!(!format!("{store:?}").contains("hush"));
    store.mark().await.unwrap();
}

fn set(file: &std::path::Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn each_role_may_do_what_its_work_needs_and_no_more() {
    let server = Server::new().await;
    let owner = PostgresStore::open(&server.store("one").await).await.unwrap();
    server.script("one", PostgresStore::ROLES);
    // Again, as after a migration.
    server.script("one", PostgresStore::ROLES);
    let logins =
        "CREATE ROLE opens LOGIN IN ROLE domicile_reader; CREATE ROLE seals LOGIN IN ROLE domicile_writer;
         CREATE ROLE erases LOGIN IN ROLE domicile_officer";
    server.sql("one", logins).unwrap();
    let reader = PostgresStore::open(&server.url("opens", "one")).await.unwrap();
    let writer = PostgresStore::open(&server.url("seals", "one")).await.unwrap();
    let officer = PostgresStore::open(&server.url("erases", "one")).await.unwrap();
    let denied = |error: Error| {
        assert_eq!(error.code(), Code::StoreUnavailable, "{error:?}");
        assert_eq!(error.what(), "the role may not do this in the key store");
    };
    let beginning = |chain: u8| domicile::audit::ChainBeginning {
        chain: domicile::audit::ChainId([chain; 16]),
        place: domicile_tests::place("eu-central-1", "EU"),
        begun: domicile::Time::EPOCH,
        actor: "uid:0".to_owned(),
        signature: vec![3; 64],
    };

    denied(reader.insert(&row("acme", 1)).await.unwrap_err());
    writer.insert(&branch()).await.unwrap();
    denied(reader.next_writer().await.unwrap_err());
    writer.insert(&row("acme", 1)).await.unwrap();
    writer.next_writer().await.unwrap();
    assert_eq!(reader.find(&row("acme", 1).identity).await.unwrap().unwrap().row, row("acme", 1));
    reader.mark().await.unwrap();
    denied(reader.write(&write(row("acme", 2), None)).await.unwrap_err());
    done(&writer, &write(row("acme", 2), None)).await;
    denied(writer.write(&write(row("acme", 3), Some(1))).await.unwrap_err());
    done(&officer, &write(row("acme", 3), Some(1))).await;
    let reborn = Write { rows: Vec::new(), incarnation: Some([9; 16]), ..write(row("acme", 1), None) };
    denied(writer.write(&reborn).await.unwrap_err());
    done(&officer, &reborn).await;
    for (chain, store) in (1..).zip([&reader, &writer, &officer]) {
        store.begin_chain(&beginning(chain)).await.unwrap();
    }
    conformance::home_registry(&writer).await.unwrap();
    assert_eq!(owner.chains().await.unwrap().len(), 3);

    for role in ["opens", "seals", "erases"] {
        for sql in [
            "DELETE FROM keys",
            "TRUNCATE audit_events",
            "ALTER TABLE keys ADD COLUMN more bigint",
            "CREATE TABLE mine (a bigint)",
            "ALTER TABLE keys DISABLE TRIGGER ALL",
            "UPDATE meta SET schema = 1",
            "UPDATE keys SET name = ''",
            "UPDATE audit_events SET body = ''",
        ] {
            let said = server.sql_as(role, "one", sql).unwrap_err();
            assert!(
                said.contains("permission denied") || said.contains("must be owner"),
                "{role}: {sql}: {said}"
            );
        }
        let error = PostgresStore::migrate(&server.url(role, "one"), Step::Expand).await.unwrap_err();
        assert_eq!(error.code(), Code::StoreUnavailable, "{role}");
    }
}

#[tokio::test]
async fn a_branch_key_goes_before_or_after_what_is_sealed_under_it_and_never_in_between() {
    let server = Server::new().await;
    let url = server.store("one").await;
    let store = PostgresStore::open(&url).await.unwrap();
    let mut ended = 0;
    for round in 0..40u32 {
        let name = |kind: u8| {
            KeyName([kind, u8::try_from(round).unwrap(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        };
        let identity = |row: KeyRow| KeyIdentity { version: round + 1, ..row.identity };
        let parent = KeyRow { identity: identity(branch()), name: name(1), ..branch() };
        store.insert(&parent).await.unwrap();
        let child = KeyRow {
            identity: identity(row("acme", 1)),
            name: name(2),
            parent_version: round + 1,
            ..row("acme", 1)
        };
        let end = KeyRow { state: KeyState::Destroyed, generation: 2, sealed: Vec::new(), ..parent };
        let other = PostgresStore::open(&url).await.unwrap();
        let end = write(end, None);
        // Now the one has a head start, now the other.
        let after = async |head_start: u64| tokio::time::sleep(Duration::from_micros(head_start)).await;
        let insert = async {
            after(u64::from(round % 8) * 300).await;
            store.insert(&child).await
        };
        let destroy = async {
            after(u64::from(7 - round % 8) * 300).await;
            other.write(&end).await
        };
        let (inserted, written) = tokio::join!(insert, destroy);
        match (inserted.unwrap(), written.unwrap()) {
            (domicile::store::Inserted::Ours, Written::Overtaken) => {}
            (domicile::store::Inserted::Orphan, Written::Done { .. }) => ended += 1,
            both => panic!("{both:?}"),
        }
        KeyStore::close(&other).await;
    }
    assert!((1..40).contains(&ended), "one of them was always first: {ended} of 40");
}
