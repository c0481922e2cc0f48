//! Erased keys: a leaf of a tenant key taken out of its row, as the specification says that a row is written anew.
//! What the leaf wrapped is gone, in every copy, and nothing else is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use domicile::context::EncryptionContext;
use domicile::danger::{expose, hkdf_sha512, hmac_sha256};
use domicile::keyring::LeafRef;
use domicile::store::{KeyIdentity, KeyRow, KeySlot, KeyStore, SqliteStore};
use domicile::wire::parts;
use domicile::{Action, Class, Code, Purpose};
use domicile_record::format::{BlockHeader, BlockKind, LaneNo, LaneOpen, SegmentHeader};
use domicile_record::{Segment, Selection, State, verify};
use domicile_tests::{Home, scope};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

/// The leaves that a lane's wrapped key names.
fn leaves(bytes: &[u8], lane: LaneNo) -> (LeafRef, LeafRef) {
    let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let mut at = SegmentHeader::BYTES;
    loop {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &header.id).unwrap();
        if block.kind == BlockKind::LaneOpen && block.lane == lane {
            let payload = &bytes[at + BlockHeader::BYTES..][..block.length as usize];
            let wrapped = LaneOpen::decode(payload, lane).unwrap().wrapped;
            return (wrapped.tenant, wrapped.segment);
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

/// KEY-9: what a row of a later generation commits to.
fn commitment(row: &KeyRow, state: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let slot = &row.identity.slot;
    Sha256::digest(parts(&[
        b"domicile/v1/commitment/tenant-key",
        slot.region.as_str().as_bytes(),
        slot.scope.tenant.as_str().as_bytes(),
        slot.scope.record_type.as_str().as_bytes(),
        slot.period.to_string().as_bytes(),
        &row.identity.version.to_be_bytes(),
        &row.generation.to_be_bytes(),
        &[row.state.code()],
        &row.name.0,
        state,
    ]))
    .into()
}

/// Takes a leaf out of the key that a wrap names, and writes its row anew.
async fn erase(home: &Home, leaf: LeafRef) {
    let path = home.directory.path().join("domicile.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut row = store.named(leaf.key).await.unwrap().unwrap().row;
    let slot = KeySlot::branch(&row.identity.slot.region, row.identity.slot.period.month());
    let branch = store
        .find(&KeyIdentity { slot: slot.clone(), version: row.parent_version })
        .await
        .unwrap()
        .unwrap()
        .row;
    let context = EncryptionContext {
        region: slot.region.clone(),
        owner: slot.scope.tenant.clone(),
        period: slot.period,
        kind: slot.kind,
        version: branch.identity.version,
        generation: branch.generation,
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
    let state = punctured(&state, leaf.leaf.0);
    row.generation += 1;
    row.commitment = commitment(&row, &state);
    let associated = row.associated("domicile/v1/tenant-key");
    let nonce = [7; 24];
    let ciphertext = cipher.encrypt((&nonce).into(), Payload { msg: &state, aad: &associated }).unwrap();
    row.sealed = [&nonce[..], &ciphertext].concat();

    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("UPDATE keys SET generation = ?, commitment = ?, sealed = ? WHERE name = ?")
        .bind(i64::try_from(row.generation).unwrap())
        .bind(&row.commitment[..])
        .bind(&row.sealed[..])
        .bind(&row.name.0[..])
        .execute(&pool)
        .await
        .unwrap();
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
    erase(&home, leaves(&bytes, LaneNo(1)).0).await;

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
    erase(&home, segment_leaf).await;

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
    erase(&home, leaves(&bytes, LaneNo(1)).0).await;
    // The name of a later generation is in the commitment and under the tag: it cannot be given to another row.
    let path = home.directory.path().join("domicile.db");
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("UPDATE keys SET name = zeroblob(16) WHERE name = ?")
        .bind(&tenant_leaf.key.0[..])
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("UPDATE keys SET name = ? WHERE generation = 2")
        .bind(&tenant_leaf.key.0[..])
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let domicile = home.restarted().await;
    let permit = domicile.permit(&scope("acme"), Action::Open(Purpose::Support.into())).await;
    let opened = domicile
        .keyring()
        .opening_leaves(permit.unwrap(), &[("2026-11".parse().unwrap(), tenant_leaf)])
        .await;
    assert_eq!(opened[0].as_ref().unwrap_err().code(), Code::KeyUnverified);
}
