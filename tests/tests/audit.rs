//! What an auditor sees: each kind of cut, change, reorder and rewrite of chains and ledger, and how far back it is found (KEY-18, KEY-41,
//! KEY-44).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use domicile::export::Export;
use domicile::{Action, Code, Domicile, Purpose, Result};
use domicile_record::{Segment, Selection};
use domicile_tests::{Home, region};

const REGION: &str = "eu-central-1";

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

/// Two processes that opened something each, a checkpoint, and what one of them did since.
async fn history() -> (Home, Export) {
    let home = Home::of(&["acme"]).await;
    let bytes = home.sealed(&["acme"]).await;
    let other = home.restarted().await;
    open(&other, &bytes).await;
    home.domicile.checkpoint(&region(REGION), manage(), true).await.unwrap();
    open(&home.domicile, &bytes).await;
    open(&home.domicile, &bytes).await;
    let export = home.domicile.export(&region(REGION)).await.unwrap();
    (home, export)
}

async fn open(process: &Domicile, bytes: &[u8]) {
    Segment::open_source(process, bytes, Purpose::Support, Selection::all()).await.unwrap();
}

fn verify(home: &Home, export: &Export) -> Result<()> {
    let key = home.domicile.region(&region(REGION)).unwrap().verifying_key;
    export.verify(&key).map(|_| ())
}

#[tokio::test]
async fn what_a_checkpoint_saw_cannot_be_cut_changed_reordered_or_rewritten() {
    let (home, whole) = history().await;
    verify(&home, &whole).unwrap();
    assert_eq!(whole.chains.len(), 2);
    // The chain of the process that went on behind the checkpoint, and where the checkpoint found it.
    let (mine, theirs) = match whole.chains[0].1.len() > whole.chains[1].1.len() {
        true => (0, 1),
        false => (1, 0),
    };
    let seen =
        whole.chains[mine].1.iter().position(|event| event.body.contains("\"checkpoint\"")).unwrap() + 1;
    assert!(whole.chains[mine].1.len() > seen, "something happened since");
    type Change<'a> = (&'a str, Box<dyn Fn(&mut Export)>);
    let changes: Vec<Change<'_>> = vec![
        (
            "the end of a chain, from before the checkpoint",
            Box::new(move |export| export.chains[mine].1.truncate(seen - 1)),
        ),
        ("all events of a chain", Box::new(move |export| export.chains[theirs].1.clear())),
        ("a whole chain", Box::new(move |export| drop(export.chains.remove(theirs)))),
        ("both chains", Box::new(|export| export.chains.clear())),
        ("an event in the middle", Box::new(move |export| drop(export.chains[mine].1.remove(1)))),
        ("two events in another order", Box::new(move |export| export.chains[mine].1.swap(0, 1))),
        ("an event's body", Box::new(move |export| export.chains[mine].1[0].body.push(' '))),
        ("an event's digest", Box::new(move |export| export.chains[mine].1[0].digest[0] ^= 1)),
        ("who began a chain", Box::new(move |export| export.chains[theirs].0.actor = "somebody else".into())),
        (
            "one chain's events under another's name",
            Box::new(move |export| {
                let events = export.chains[theirs].1.clone();
                export.chains[mine].1 = events;
            }),
        ),
        ("the checkpoint's entry", Box::new(|export| export.ledger.last_mut().unwrap().body[60] ^= 1)),
        (
            "the checkpoint's signature",
            Box::new(|export| export.ledger.last_mut().unwrap().signature[0] ^= 1),
        ),
        ("the ledger from its beginning", Box::new(|export| drop(export.ledger.remove(0)))),
    ];
    for (what, change) in changes {
        let mut changed = whole.clone();
        change(&mut changed);
        if what == "the ledger from its beginning" && whole.ledger.len() == 1 {
            // Without any entry there is no checkpoint: that is seen against an export alone.
            continue;
        }
        let error = verify(&home, &changed).expect_err(what);
        assert_eq!(error.code(), Code::LedgerUnverified, "{what}");
    }
    // A rewrite of a chain, with digests that fit, is seen by the head that the checkpoint names.
    let mut rewritten = whole.clone();
    let (begun, _) = rewritten.chains[mine].clone();
    let alone = home.restarted().await;
    open(&alone, &home.sealed(&["acme"]).await).await;
    let now = home.domicile.export(&region(REGION)).await.unwrap();
    let (_, other) = now
        .chains
        .iter()
        .find(|(beginning, _)| !whole.chains.iter().any(|(known, _)| known == beginning))
        .unwrap();
    rewritten.chains[mine] = (begun, other.clone());
    assert_eq!(verify(&home, &rewritten).unwrap_err().code(), Code::LedgerUnverified);

    // What happened since is exposed: it is found by the next checkpoint, and not before.
    let mut exposed = whole.clone();
    exposed.chains[mine].1.truncate(seen);
    verify(&home, &exposed).unwrap();
    home.domicile.checkpoint(&region(REGION), manage(), false).await.unwrap();
    let later = home.domicile.export(&region(REGION)).await.unwrap();
    verify(&home, &later).unwrap();
    exposed.ledger = later.ledger;
    assert_eq!(verify(&home, &exposed).unwrap_err().code(), Code::LedgerUnverified);
}

#[tokio::test]
async fn a_key_that_was_changed_behind_everybodys_back_is_not_what_the_checkpoint_says() {
    let (home, export) = history().await;
    let here = region(REGION);
    let key = home.domicile.region(&here).unwrap().verifying_key;
    let statements = export.verify(&key).unwrap();
    assert!(home.domicile.check_checkpoint(&here, &statements).await.unwrap().is_some());
    let path = home.directory.path().join("domicile.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let triggers = sqlx::query_as::<_, (String,)>("SELECT name FROM sqlite_master WHERE type = 'trigger'");
    for (name,) in triggers.fetch_all(&pool).await.unwrap() {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&pool).await.unwrap();
    }
    let changed = sqlx::query("UPDATE keys SET generation = generation + 1 WHERE record_type = 'voice'");
    assert_eq!(changed.execute(&pool).await.unwrap().rows_affected(), 1);
    let error = home.domicile.check_checkpoint(&here, &statements).await.unwrap_err();
    assert_eq!(error.code(), Code::LedgerUnverified);
    // A chain that was cut in the store is told by whoever says the next checkpoint.
    sqlx::query("DELETE FROM audit_events WHERE number > 1").execute(&pool).await.unwrap();
    let process = home.restarted().await;
    let error = process.checkpoint(&here, manage(), false).await.unwrap_err();
    assert_eq!(error.code(), Code::LedgerUnverified, "{error:?}");
}
