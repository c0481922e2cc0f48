//! Erased keys: what is left of a row is what the specification says, what the leaf wrapped is gone in every copy, nothing
//! else is, and no loss passes for an erasure.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use domicile::context::EncryptionContext;
use domicile::danger::{expose, hkdf_sha512, hmac_sha256};
use domicile::keyring::{Concerned, LeafOf, LeafRef, Subject};
use domicile::store::{KeyIdentity, KeySlot, KeyStore, SqliteStore};
use domicile::wire::parts;
use domicile::{Action, Class, Code, Purpose, TenantId};
use domicile_record::format::{BlockHeader, BlockKind, LaneNo, LaneOpen, SegmentHeader};
use domicile_record::{Erasable, Segment, Selection, State, inspect, verify};
use domicile_tests::{Home, hex, scope};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

/// The leaves that a lane's wrapped key names.
fn leaves(bytes: &[u8], lane: LaneNo) -> (LeafRef, LeafRef) {
    let (from, behind) = opening(bytes, lane);
    let wrapped = LaneOpen::decode(&bytes[from..behind], lane).unwrap().wrapped.unwrap();
    (wrapped.tenant, wrapped.segment)
}

/// Where the payload of a lane's opening stands.
fn opening(bytes: &[u8], lane: LaneNo) -> (usize, usize) {
    let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let mut at = SegmentHeader::BYTES;
    loop {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &header.id).unwrap();
        if block.kind == BlockKind::LaneOpen && block.lane == lane {
            let from = at + BlockHeader::BYTES;
            return (from, from + block.length as usize);
        }
        at += usize::try_from(block.block_bytes()).unwrap();
    }
}

/// KEY-11 and KEY-12: the state of a fresh key without one leaf: the nodes beside the way to it.
fn punctured(state: &[u8], leaf: u64) -> Vec<u8> {
    assert_eq!((state[0], &state[1..5], state[5]), (1, &1_u32.to_be_bytes()[..], 0), "a fresh key");
    let mut node: [u8; 32] = state[14..46].try_into().unwrap();
    let mut beside = Vec::new();
    for depth in 1..=64_u8 {
        let bit = leaf >> (64 - depth) & 1;
        let prefix = (leaf >> (64 - depth) ^ 1) << (64 - depth);
        beside.push((prefix, depth, hmac_sha256(&node, &[u8::from(bit == 0)])));
        node = hmac_sha256(&node, &[u8::from(bit == 1)]);
    }
    beside.sort_unstable();
    let mut erased = [&[1][..], &64_u32.to_be_bytes()].concat();
    for (prefix, depth, node) in beside {
        erased.extend([&[depth][..], &prefix.to_be_bytes(), &node].concat());
    }
    erased
}

/// KEY-10: the state of the key that a wrap names, opened with the branch key by hand.
async fn state_of(home: &Home, leaf: LeafRef) -> Vec<u8> {
    let store = SqliteStore::open(&home.directory.path().join("domicile.db")).await.unwrap();
    let row = store.named(leaf.key).await.unwrap().unwrap().row;
    let month = row.identity.slot.period.month();
    let slot = KeySlot::branch(&row.identity.slot.region, &TenantId::REGION, month);
    let identity = KeyIdentity { slot: slot.clone(), version: row.parent_version };
    let branch = store.find(&identity).await.unwrap().unwrap().row;
    let context = EncryptionContext {
        region: slot.region.clone(),
        owner: slot.scope.tenant.clone(),
        period: slot.period,
        kind: slot.kind,
        version: branch.identity.version,
        generation: branch.generation,
        share: None,
    };
    let known = home.domicile.region(&slot.region).unwrap();
    // KEY-8: custody, one wrap, its length.
    let branch_key = known.kms.as_ref().unwrap().unwrap(&branch.sealed[4..], &context).await.unwrap();
    let mut key = [0; 32];
    hkdf_sha512(expose(&branch_key), &[], &parts(&[b"domicile/v1/branch/tenant-key"]), &mut key);
    let cipher = Xaes256Gcm::new((&key).into());
    let (nonce, ciphertext) = row.sealed.split_first_chunk::<24>().unwrap();
    let associated = row.associated("domicile/v1/tenant-key");
    let state = cipher.decrypt(nonce.into(), Payload { msg: ciphertext, aad: &associated }).unwrap();
    KeyStore::close(&store).await;
    state
}

/// Erases as a user does, and holds what is left of the key against the specification.
async fn erase(home: &Home, bytes: &[u8], what: Erasable) {
    let inspected = inspect(bytes).unwrap();
    let leaf = match &what {
        Erasable::Lanes(lanes) => leaves(bytes, lanes[0]).0,
        _ => leaves(bytes, LaneNo::REGION).1,
    };
    let before = state_of(home, leaf).await;
    let domicile = home.restarted().await;
    let report =
        domicile_record::erase(&domicile, bytes, &what, &inspected.segment, Purpose::Maintenance).await;
    assert!(report.unwrap()[0].1.scrubbed);
    domicile.close().await;
    assert_eq!(state_of(home, leaf).await, punctured(&before, leaf.leaf.0));
}

async fn write(home: &Home, statement: &str) {
    let path = home.directory.path().join("domicile.db");
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap();
    for trigger in ["keys_rise", "tombstones_forever", "ledger_once"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER IF EXISTS {trigger}")))
            .execute(&pool)
            .await
            .unwrap();
    }
    sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

async fn opened(home: &Home, bytes: &[u8], selection: impl Into<Selection>) -> (State, Vec<u8>) {
    let domicile = home.restarted().await;
    let segment = Segment::open_source(&domicile, bytes, Purpose::Support, selection).await.unwrap();
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    (segment.state().clone(), output)
}

#[tokio::test]
async fn an_erased_lane_is_gone_and_its_neighbours_are_not() {
    let home = Home::of(&["acme", "globex"]).await;
    let (bytes, other) = (home.sealed(&["acme", "globex"]).await, home.sealed(&["acme", "globex"]).await);
    erase(&home, &bytes, Erasable::Lanes(vec![LaneNo(1)])).await;

    let domicile = home.restarted().await;
    let segment =
        Segment::open_source(&domicile, &bytes[..], Purpose::Support, &[scope("acme")]).await.unwrap();
    let obstacle = segment.lanes()[0].obstacle().unwrap();
    assert_eq!((obstacle.code(), obstacle.class()), (Code::KeyDestroyed, Class::Erased));
    assert_eq!(opened(&home, &bytes, Selection::all()).await, (State::Complete, b"globex".to_vec()));
    // Another leaf of the same key is what it was, and so is every leaf to come.
    assert_eq!(opened(&home, &other, Selection::all()).await, (State::Complete, b"acmeglobex".to_vec()));
    let home = Home { domicile: home.restarted().await, ..home };
    let later = home.sealed(&["acme", "globex"]).await;
    assert_eq!(opened(&home, &later, &[scope("acme")]).await.1, b"acme");
    // An erased lane is as it should be.
    let verified = verify(&home.restarted().await, &bytes[..], None).await.unwrap();
    assert!(verified.is_complete(), "{verified:#?}");
}

#[tokio::test]
async fn a_segment_whose_own_leaf_was_erased_is_retired() {
    let home = Home::of(&["acme", "globex"]).await;
    let (bytes, other) = (home.sealed(&["acme", "globex"]).await, home.sealed(&["acme", "globex"]).await);
    let (_, segment_leaf) = leaves(&bytes, LaneNo(2));
    assert_eq!(leaves(&bytes, LaneNo::REGION).1, segment_leaf, "one for the whole segment");
    erase(&home, &bytes, Erasable::Segment).await;

    assert_eq!(opened(&home, &bytes, Selection::all()).await, (State::Retired, Vec::new()));
    assert_eq!(opened(&home, &bytes, &[scope("acme")]).await, (State::Retired, Vec::new()));
    let verified = verify(&home.restarted().await, &bytes[..], None).await.unwrap();
    assert_eq!((verified.state(), verified.is_complete()), (&State::Retired, false));
    assert!(verified.findings.is_empty(), "{:#?}", verified.findings);
    // Without its footer it is walked, and says the same.
    let cut = &bytes[..bytes.len() - 100];
    assert_eq!(opened(&home, cut, Selection::all()).await, (State::Retired, Vec::new()));
    assert_eq!(opened(&home, &other, Selection::all()).await, (State::Complete, b"acmeglobex".to_vec()));
}

#[tokio::test]
async fn a_row_written_anew_keeps_its_name() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    let (tenant_leaf, _) = leaves(&bytes, LaneNo(2));
    erase(&home, &bytes, Erasable::Lanes(vec![LaneNo(1)])).await;
    // The name of a later generation is in the commitment and under the tag: it cannot be given to another row.
    let name = hex(&tenant_leaf.key.0);
    write(&home, &format!("UPDATE keys SET name = zeroblob(16) WHERE name = x'{name}'")).await;
    write(&home, &format!("UPDATE keys SET name = x'{name}' WHERE generation = 2")).await;
    let domicile = home.restarted().await;
    let permit = domicile.permit(&scope("acme"), Action::Open(Purpose::Support.into())).await;
    let opened = domicile
        .keyring()
        .opening_leaves(
            permit.unwrap(),
            &[LeafOf {
                period: "2026-11".parse().unwrap(),
                leaf: tenant_leaf,
                subject: Subject::Segment { segment: [0; 32] },
            }],
        )
        .await;
    assert_eq!(opened[0].as_ref().unwrap_err().code(), Code::KeyUnverified);
}

#[tokio::test]
async fn a_loss_does_not_pass_for_an_erasure() {
    let home = Home::of(&["acme", "globex"]).await;
    let (bytes, other) = (home.sealed(&["acme", "globex"]).await, home.sealed(&["acme", "globex"]).await);
    erase(&home, &bytes, Erasable::Lanes(vec![LaneNo(1)])).await;
    let obstacle = async |bytes: Vec<u8>| {
        let domicile = home.restarted().await;
        let segment =
            Segment::open_source(&domicile, &bytes[..], Purpose::Support, &[scope("acme")]).await.unwrap();
        segment.lanes()[0].obstacle().map(domicile::Error::code)
    };
    assert_eq!(obstacle(bytes.clone()).await, Some(Code::KeyDestroyed));

    // Somebody who may write the other file has its lane name the leaf that was erased.
    let (erased, named) = (leaves(&bytes, LaneNo(1)).0, leaves(&other, LaneNo(1)).0);
    assert_eq!(erased.key, named.key);
    let [erased, named] = [erased, named].map(|leaf| [&leaf.key.0[..], &leaf.leaf.0.to_be_bytes()].concat());
    let at = other.windows(named.len()).position(|window| window == named).unwrap();
    let mut swapped = other.clone();
    swapped[at..at + erased.len()].copy_from_slice(&erased);
    // The checksum of the opening, which is for accidents, is no obstacle.
    let (from, behind) = opening(&swapped, LaneNo(1));
    let checksum = crc32c::crc32c(&swapped[from..behind - 4]);
    swapped[behind - 4..behind].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(obstacle(swapped).await, Some(Code::KeyUnknown));
    assert_eq!(obstacle(other).await, None);

    // KEY-41, KEY-43: without its tombstone, nobody can say that a leaf was erased; nor with one that nobody signed.
    write(&home, "DELETE FROM tombstones").await;
    assert_eq!(obstacle(bytes.clone()).await, Some(Code::KeyUnknown));
    write(&home, "UPDATE ledger SET signature = zeroblob(64)").await;
    let domicile = home.restarted().await;
    let opened = Segment::open_source(&domicile, &bytes[..], Purpose::Support, &[scope("acme")]).await;
    assert_eq!(opened.unwrap_err().code(), Code::LedgerUnverified);
}

/// SQLite drops the old bytes at once: neither the file nor its log holds a sealed key that was replaced or destroyed.
#[tokio::test]
async fn nothing_of_a_destroyed_key_is_left_in_the_file_or_its_log() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    let (erased, kept) = (leaves(&bytes, LaneNo(1)).0, leaves(&bytes, LaneNo(2)).0);
    let path = home.directory.path().join("domicile.db");
    let sealed = async |leaf: LeafRef| {
        let store = SqliteStore::open(&path).await.unwrap();
        let sealed = store.named(leaf.key).await.unwrap().unwrap().row.sealed;
        KeyStore::close(&store).await;
        sealed
    };
    let stands = |needle: &[u8]| {
        let mut files = ["", "-wal"].map(|suffix| std::fs::read(format!("{}{suffix}", path.display())));
        files.iter_mut().flatten().any(|file| file.windows(needle.len()).any(|window| window == needle))
    };
    let (first, other) = (sealed(erased).await, sealed(kept).await);
    assert!(stands(&first[..32]) && stands(&other[..32]));
    erase(&home, &bytes, Erasable::Lanes(vec![LaneNo(1)])).await;
    let second = sealed(erased).await;
    assert!(!stands(&first[..32]) && stands(&second[..32]));

    let domicile = home.restarted().await;
    let permit = async || {
        let action = Action::Manage(Purpose::Maintenance.into());
        domicile.permit_region(&domicile_tests::region("eu-central-1"), action).await.unwrap()
    };
    let whom = Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
    domicile.keyring().shred(permit().await, whom, std::time::Duration::ZERO).await.unwrap();
    let expired = domicile.keyring().expire(permit().await, domicile.retention(), false).await.unwrap();
    assert!(expired.destroyed.unwrap().scrubbed);
    assert!(!stands(&second[..32]) && stands(&other[..32]));
    assert_eq!(sealed(erased).await, b"");
}
