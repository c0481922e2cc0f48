//! The key store and the registry in the hands of somebody who may write to them: with SQL, with the
//! triggers dropped, with rows of one put in the place of another.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::path::PathBuf;

use domicile::audit::{Event, EventKind};
use domicile::kms::{Kms, LocalKms};
use domicile::store::{Fault, FaultyStore, KeyStore, MemoryStore, SqliteStore};
use domicile::{Code, Domicile, Error, KnownRegion, Purpose, Result};
use domicile_record::format::Contents;
use domicile_record::{Segment, Stamp, WriterOptions};
use domicile_tests::{Home, descriptor, place, region, scope};
use sqlx::Executor;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

fn store_path(home: &Home) -> PathBuf {
    home.directory.path().join("domicile.db")
}

async fn sql(home: &Home, statement: &'static str) -> Result<(), sqlx::Error> {
    let pool =
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(store_path(home)).foreign_keys(false))
            .await?;
    pool.execute(sqlx::raw_sql(statement)).await?;
    pool.close().await;
    Ok(())
}

/// Opens acme's lane after a restart, and gives what is in it.
async fn opened(home: &Home, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let domicile = home.restarted().await;
    let segment = Segment::open_source(&domicile, bytes, Purpose::Support, &[scope("acme")]).await?;
    if let Some(obstacle) = segment.lanes()[0].obstacle() {
        return Err(obstacle.again());
    }
    let mut output = Vec::new();
    segment.restore(&mut output)?;
    Ok(output)
}

#[tokio::test]
async fn homes_and_the_audit_chain_cannot_be_changed_by_mistake() {
    let home = Home::of(&["acme"]).await;
    for statement in [
        "UPDATE homes SET region = 'us-east-1'",
        "DELETE FROM homes",
        "UPDATE home_statements SET body = x'00'",
        "DELETE FROM home_statements",
        "UPDATE home_signed SET statement = 9",
        "DELETE FROM home_signed",
        "UPDATE audit_events SET body = '{}'",
        "DELETE FROM audit_events",
        "UPDATE audit_chains SET actor = 'nobody'",
        "DELETE FROM audit_chains",
        "INSERT INTO homes VALUES ('acme', 'voice', 'us-east-1', 0)",
        "INSERT OR REPLACE INTO homes VALUES ('acme', 'voice', 'us-east-1', 0)",
        "INSERT OR REPLACE INTO home_signed VALUES ('acme', 'voice', 1, 1)",
        "INSERT OR REPLACE INTO home_statements VALUES (1, x'00', x'00')",
        "INSERT OR REPLACE INTO audit_chains SELECT chain, region, jurisdiction, 0, actor, signature FROM audit_chains",
        "INSERT OR REPLACE INTO audit_events SELECT chain, number, '{}', digest FROM audit_events",
    ] {
        sql(&home, statement).await.expect_err(statement);
    }
    let homes = home.restarted().await.homes(None).await.unwrap();
    assert_eq!(homes.len(), 1);
    homes[0].1.as_ref().unwrap();
}

#[tokio::test]
async fn a_home_that_was_rewritten_with_the_triggers_dropped_is_found() {
    for (statement, expected) in [
        ("UPDATE homes SET region = 'eu-west-1' WHERE tenant = 'acme'", Code::HomeForged),
        (
            "UPDATE home_signed SET statement = (SELECT statement FROM home_signed WHERE tenant = 'globex') \
             WHERE tenant = 'acme'",
            Code::HomeForged,
        ),
        ("UPDATE home_statements SET signature = zeroblob(64)", Code::HomeForged),
        (
            "UPDATE home_statements SET body = CAST(substr(body, 1, length(body) - 1) || x'41' AS BLOB)",
            Code::HomeForged,
        ),
        // A row that nobody signed is no home, and nobody signs it afterwards.
        ("DELETE FROM home_signed WHERE tenant = 'acme'", Code::HomeForged),
        ("DELETE FROM home_statements", Code::HomeForged),
        ("UPDATE home_signed SET statement = 99 WHERE tenant = 'acme'", Code::HomeForged),
        // Kept as what it is not.
        ("UPDATE home_signed SET own = 0 WHERE tenant = 'acme'", Code::HomeForged),
        (
            "DELETE FROM home_signed WHERE tenant = 'acme'; \
             UPDATE homes SET region = 'eu-west-1' WHERE tenant = 'acme'",
            Code::HomeForged,
        ),
        (
            "DELETE FROM home_signed WHERE tenant = 'acme'; DELETE FROM homes WHERE tenant = 'acme'; \
             INSERT INTO homes VALUES ('acme', 'all', 'eu-west-1', 0)",
            Code::HomeForged,
        ),
        (
            "DELETE FROM home_signed WHERE tenant = 'acme'; DELETE FROM homes WHERE tenant = 'acme'",
            Code::HomeNone,
        ),
    ] {
        let home = Home::of(&["acme", "globex"]).await;
        let bytes = home.sealed(&["acme", "globex"]).await;
        sql(
            &home,
            "DROP TRIGGER homes_once; DROP TRIGGER homes_forever; \
             DROP TRIGGER home_signed_once; DROP TRIGGER home_signed_forever; \
             DROP TRIGGER home_statements_once; DROP TRIGGER home_statements_forever; DROP TRIGGER homes_agree",
        )
        .await
        .unwrap();
        sql(&home, statement).await.unwrap();
        // Twice: a first use must not mend what it refuses.
        for _ in 0..2 {
            assert_eq!(opened(&home, &bytes).await.unwrap_err().code(), expected, "{statement}");
        }
    }
}

#[tokio::test]
async fn every_changed_column_of_a_key_row_is_found() {
    for (statement, expected) in [
        ("UPDATE keys SET generation = 2 WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET state = 2 WHERE tenant = 'acme'", Code::KeyUnverified),
        // Nobody signed that it was erased, so that it does not pass for an erasure.
        ("UPDATE keys SET state = 3 WHERE tenant = 'acme'", Code::KeyUnknown),
        ("UPDATE keys SET state = 3 WHERE kind = 1", Code::KeyUnknown),
        ("UPDATE keys SET state = 9 WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET version = 2 WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET period = '2026-10' WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET tenant = 'mallory' WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET record_type = 'fax' WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET region = 'eu-west-1' WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET commitment = zeroblob(32) WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET sealed = zeroblob(length(sealed)) WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET sealed = substr(sealed, 1, 30) WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET sealed = CAST(sealed || x'00' AS BLOB) WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET parent_version = 7 WHERE tenant = 'acme'", Code::KeyUnknown),
        ("UPDATE keys SET name = zeroblob(16) WHERE tenant = 'acme'", Code::KeyUnknown),
        ("UPDATE keys SET name = zeroblob(3) WHERE tenant = 'acme'", Code::KeyUnverified),
        ("UPDATE keys SET kind = 1 WHERE tenant = 'acme'", Code::KeyUnverified),
        ("DELETE FROM keys WHERE tenant = 'acme'", Code::KeyUnknown),
        // One owner's key in the place of another's, and the branch keys of the region.
        (
            "UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE tenant = 'globex') WHERE tenant = 'acme'",
            Code::KeyUnverified,
        ),
        ("UPDATE keys SET generation = 2 WHERE kind = 1", Code::KmsUnverified),
        ("UPDATE keys SET commitment = zeroblob(32) WHERE kind = 1", Code::KeyUnverified),
        ("UPDATE keys SET state = 2 WHERE kind = 1", Code::KeyUnverified),
        ("UPDATE keys SET name = randomblob(16) WHERE kind = 1", Code::KeyUnverified),
        ("UPDATE keys SET sealed = zeroblob(length(sealed)) WHERE kind = 1", Code::KeyUnverified),
        ("UPDATE keys SET period = '2027-01' WHERE kind = 1", Code::KeyUnknown),
        ("DELETE FROM keys WHERE kind = 1", Code::KeyUnknown),
    ] {
        let home = Home::of(&["acme", "globex"]).await;
        let bytes = home.sealed(&["acme", "globex"]).await;
        assert_eq!(opened(&home, &bytes).await.unwrap(), b"acme");
        sql(&home, "DROP TRIGGER keys_rise; DROP TRIGGER keys_forever").await.unwrap();
        sql(&home, statement).await.unwrap();
        let error = opened(&home, &bytes).await.unwrap_err();
        assert_eq!(error.code(), expected, "{statement}: {error:?}");
    }
}

#[tokio::test]
async fn swapped_rows_of_two_owners_open_neither() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    sql(
        &home,
        "DROP TRIGGER keys_rise; \
         UPDATE keys SET tenant = 'swap' WHERE tenant = 'acme'; \
         UPDATE keys SET tenant = 'acme' WHERE tenant = 'globex'; \
         UPDATE keys SET tenant = 'globex' WHERE tenant = 'swap'",
    )
    .await
    .unwrap();
    assert_eq!(opened(&home, &bytes).await.unwrap_err().code(), Code::KeyUnverified);
}

#[tokio::test]
async fn audit_chains_verify_and_every_change_inside_one_is_found() {
    use domicile::audit::verify_chain;
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    opened(&home, &bytes).await.unwrap();
    let store = SqliteStore::open(&store_path(&home)).await.unwrap();
    let key =
        home.domicile.regions().find(|known| known.place == *home.domicile.here()).unwrap().verifying_key;
    let chains = store.chains().await.unwrap();
    assert_eq!(chains.len(), 2, "one for each process");
    let mut kinds = Vec::new();
    for (beginning, events) in &chains {
        verify_chain(beginning, events, &key).unwrap();
        kinds.extend(events.iter().map(|event| event.body.clone()));
        for changed in 0..events.len() {
            let mut bad = events.clone();
            bad[changed].body.push(' ');
            verify_chain(beginning, &bad, &key).unwrap_err();
            let mut shorter = events.clone();
            shorter.remove(changed);
            assert_eq!(verify_chain(beginning, &shorter, &key).is_ok(), changed + 1 == events.len());
        }
    }
    for kind in ["choose", "generate", "use", "seal", "open", "unwrap"] {
        let event = format!("\"event\":\"{kind}\"");
        assert!(kinds.iter().any(|body| body.contains(&event)), "no event {kind} in {kinds:#?}");
    }
    assert!(kinds.iter().all(|body| serde_json::from_str::<serde_json::Value>(body).unwrap().is_object()));
}

#[tokio::test]
async fn no_key_is_handed_out_that_is_not_in_the_audit_chain() {
    let home = Home::of(&["acme"]).await;
    sql(
        &home,
        "CREATE TRIGGER full BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    .await
    .unwrap();
    let domicile = home.restarted().await;
    let permit = domicile.permit(&scope("acme"), domicile::Action::Seal).await.unwrap();
    let leaf = domicile.keyring().sealing_leaf(permit, "2026-11".parse::<domicile::Period>().unwrap()).await;
    assert_eq!(leaf.unwrap_err().code(), Code::AuditUnavailable);

    // Once there is room again, events begin a chain that holds no gap.
    sql(&home, "DROP TRIGGER full").await.unwrap();
    let permit = domicile.permit(&scope("acme"), domicile::Action::Seal).await.unwrap();
    domicile.keyring().sealing_leaf(permit, "2026-11".parse::<domicile::Period>().unwrap()).await.unwrap();
    let store = SqliteStore::open(&store_path(&home)).await.unwrap();
    all_chains_verify(&home.domicile, &store).await;
}

async fn all_chains_verify(domicile: &Domicile, store: &dyn KeyStore) -> usize {
    let key = domicile.region(&domicile.here().region).unwrap().verifying_key;
    let chains = store.chains().await.unwrap();
    for (beginning, events) in &chains {
        domicile::audit::verify_chain(beginning, events, &key).unwrap();
    }
    chains.len()
}

#[tokio::test]
async fn a_caller_who_goes_away_while_an_event_is_written_stops_no_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let kms = LocalKms::create(region("eu-central-1"), path("root"), path("signing")).unwrap();
    let store = std::sync::Arc::new(FaultyStore::new(std::sync::Arc::new(MemoryStore::new())));
    let known = KnownRegion {
        place: place("eu-central-1", "EU"),
        verifying_key: kms.describe().await.unwrap().verifying_key,
        kms: Some(std::sync::Arc::new(kms)),
        store: store.clone(),
    };
    let homes = std::sync::Arc::new(MemoryStore::new());
    let domicile = Domicile::builder(region("eu-central-1"), homes).region(known).build().unwrap();
    let event = [Event::new(EventKind::Choose)];
    domicile.audit().record(&event).await.unwrap();
    store.fail("append_events", Some(Fault::Silent));
    tokio::select! {
        biased;
        _ = domicile.audit().record(&event) => panic!("the store does not answer"),
        () = std::future::ready(()) => {}
    }
    store.fail("append_events", None);
    domicile.audit().record(&event).await.unwrap();
    domicile.audit().record(&event).await.unwrap();
    assert_eq!(all_chains_verify(&domicile, &*store).await, 2);
}

#[tokio::test]
async fn two_processes_that_make_the_same_key_at_once_agree_on_one() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut hosts = Vec::new();
    for _ in 0..6 {
        hosts.push(home.restarted().await);
    }
    let set = tokio::task::LocalSet::new();
    let tasks: Vec<_> = hosts
        .iter()
        .map(|host| {
            let host = host.clone();
            set.spawn_local(async move {
                let region = "eu-central-1".parse().unwrap();
                let options = WriterOptions::default();
                let mut writer = domicile_record::SegmentWriter::create(&host, &region, Vec::new(), options)
                    .await
                    .unwrap();
                let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
                writer.append(lane, b"acme", Stamp::default()).unwrap();
                writer.finish().await.unwrap().0
            })
        })
        .collect();
    set.await;
    for task in tasks {
        assert_eq!(opened(&home, &task.await.unwrap()).await.unwrap(), b"acme");
    }
    let pool =
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(store_path(&home))).await.unwrap();
    let (keys, writers): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM writers)")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(keys, 3, "a branch key, the region's own, and acme's");
    assert_eq!(
        writers, 12,
        "two numbers for each process: one for leaves of lanes, one for those of segments"
    );
}
