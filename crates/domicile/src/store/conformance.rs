//! What every store is held to. For tests of stores, ours and others'; panics where one breaks a
//! guarantee.

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a conformance suite is a test")]

use super::{
    Buried, Chosen, Floor, HomeRegistry, Incarnation, Inserted, KeyHandle, KeyIdentity, KeyName, KeyRow,
    KeySlot, KeyState, KeyStore, LedgerEntry, RowFilter, RowWrite, SignedChoices, StoredKey, Write, Written,
};
use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::context::KeyKind;
use crate::error::Result;
use crate::home::{HomeChoice, SignedStatement};
use crate::puncture::LeafNumber;
use crate::region::Place;
use crate::scope::{RecordType, Scope};
use crate::time::Time;

/// Holds an empty key store to the guarantees of [`KeyStore`].
///
/// # Errors
/// Whatever the store answers when it should have worked.
pub async fn key_store(store: &dyn KeyStore) -> Result<()> {
    let region = "eu-central-1".parse()?;
    let period = "2026-11".parse::<crate::Period>()?;
    let slot = KeySlot::tenant(&region, &Scope::new("acme", RecordType::VOICE)?, period);
    let row = |version: u32, name: u8| KeyRow {
        identity: KeyIdentity { slot: slot.clone(), version },
        generation: 1,
        state: KeyState::Active,
        name: KeyName([name; 16]),
        commitment: [name; 32],
        parent_version: 1,
        sealed: vec![name; 89],
    };

    let plain = |row: KeyRow| Some(StoredKey { row, floor: None });
    let branch = |version: u32| KeyRow {
        identity: KeyIdentity {
            slot: KeySlot::branch(&region, &crate::scope::TenantId::REGION, period),
            version,
        },
        parent_version: 0,
        ..row(version, 0x40 + u8::try_from(version).unwrap_or(0))
    };

    assert_eq!(store.newest(&slot).await?, None, "an empty store has no keys");
    let empty = store.mark().await?;
    assert!(matches!(store.insert(&row(1, 1)).await?, Inserted::Orphan), "a key lies under a branch key");
    assert_eq!(store.newest(&slot).await?, None, "or is not written");
    assert!(matches!(store.insert(&branch(1)).await?, Inserted::Ours));
    assert!(matches!(store.insert(&row(1, 1)).await?, Inserted::Ours));
    match store.insert(&row(1, 2)).await? {
        Inserted::Theirs(first) => assert_eq!(first.row, row(1, 1), "the first row of an identity wins"),
        other => panic!("a second row of one identity was written: {other:?}"),
    }
    assert!(store.insert(&row(3, 1)).await.is_err(), "two keys do not share a name");
    assert!(matches!(store.insert(&row(2, 2)).await?, Inserted::Ours));
    assert_eq!(store.newest(&slot).await?, plain(row(2, 2)), "the newest has the highest version");
    let versions: Vec<_> = store.versions(&slot).await?.into_iter().map(Some).collect();
    assert_eq!(versions, [plain(row(1, 1)), plain(row(2, 2))]);
    assert_eq!(store.find(&row(1, 1).identity).await?, plain(row(1, 1)));
    assert_eq!(store.find(&row(9, 9).identity).await?, None);
    assert_eq!(store.named(KeyName([2; 16])).await?, plain(row(2, 2)));
    assert_eq!(store.named(KeyName([9; 16])).await?, None);
    let other = KeySlot::post(&region, period);
    assert_eq!(store.newest(&other).await?, None, "slots of other kinds are others");
    let mark = store.mark().await?;
    assert_eq!(mark.incarnation, empty.incarnation);
    assert!(mark.inserts >= empty.inserts + 2, "every insert is counted");

    day_keys(store, &row(2, 2)).await?;
    compare_and_set(store, &row(1, 1), &row(3, 3)).await?;
    branches(store, &branch(1), &branch(2), &row(4, 4)).await?;

    let (first, second) = (store.next_writer().await?, store.next_writer().await?);
    assert!(first < second, "a writer number is given once");

    let beginning = ChainBeginning {
        chain: ChainId([1; 16]),
        place: Place { region, jurisdiction: "EU".parse()? },
        begun: Time::EPOCH,
        actor: "uid:0".to_owned(),
        signature: vec![3; 64],
    };
    store.begin_chain(&beginning).await?;
    let event = |number: u64| SealedEvent { number, body: format!("{{\"n\":{number}}}"), digest: [4; 32] };
    store.append_events(beginning.chain, &[event(1), event(2)]).await?;
    store.append_events(beginning.chain, &[event(3)]).await?;
    assert!(store.append_events(ChainId([9; 16]), &[event(1)]).await.is_err(), "a chain begins first");
    let head = ChainHead { chain: beginning.chain, events: 3, digest: event(3).digest };
    assert_eq!(store.chain_heads(&beginning.place.region).await?, [head]);
    assert_eq!(store.chain_heads(&"another-1".parse()?).await?, []);
    assert_eq!(store.chains().await?, [(beginning, vec![event(1), event(2), event(3)])]);
    Ok(())
}

/// Day keys lie under no branch key, and are found by their handle, which no two of them share.
async fn day_keys(store: &dyn KeyStore, tenant: &KeyRow) -> Result<()> {
    let KeySlot { region, scope, .. } = &tenant.identity.slot;
    let row = |day: &str, version: u32, handle: u8| -> Result<KeyRow> {
        let slot = KeySlot::day(region, scope, day.parse::<crate::Period>()?);
        Ok(KeyRow {
            identity: KeyIdentity { slot, version },
            name: KeyHandle([handle; 8]).name(),
            parent_version: 0,
            sealed: vec![handle; 86],
            ..tenant.clone()
        })
    };
    let plain = |row: &KeyRow| Some(StoredKey { row: row.clone(), floor: None });
    let (first, second) = (row("2026-11-24", 1, 0x61)?, row("2026-11-24", 2, 0x62)?);
    assert_eq!(store.newest(&first.identity.slot).await?, None);
    assert!(matches!(store.insert(&first).await?, Inserted::Ours), "it lies under no branch key");
    match store.insert(&row("2026-11-24", 1, 0x63)?).await? {
        Inserted::Theirs(theirs) => assert_eq!(theirs.row, first, "one process makes the key of a day"),
        other => panic!("a second key of one day and version was written: {other:?}"),
    }
    let taken = row("2026-11-25", 1, 0x61)?;
    assert!(store.insert(&taken).await.is_err(), "two day keys do not share a handle");
    assert_eq!(store.newest(&taken.identity.slot).await?, None);
    assert!(matches!(store.insert(&second).await?, Inserted::Ours));
    assert_eq!(store.newest(&first.identity.slot).await?, plain(&second));
    assert_eq!(store.named(KeyHandle([0x61; 8]).name()).await?, plain(&first));
    assert_eq!(store.named(KeyHandle([0x63; 8]).name()).await?, None);
    let filter = RowFilter { region: region.clone(), kind: KeyKind::Day, period: None, tenant: None };
    let all = store.load_many(&filter, None, 100).await?;
    assert_eq!(all.iter().map(|stored| &stored.row).collect::<Vec<_>>(), [&first, &second]);
    Ok(())
}

/// What stands is replaced by whoever has read it, with an entry of the ledger or not at all.
async fn compare_and_set(store: &dyn KeyStore, standing: &KeyRow, fresh: &KeyRow) -> Result<()> {
    let region = &standing.identity.slot.region;
    let before = store.mark().await?;
    let replaced = |generation: u64| KeyRow { generation, sealed: vec![7; 300], ..standing.clone() };
    let entry = |number: u64| LedgerEntry {
        number,
        kind: u8::try_from(number).unwrap_or(0),
        body: vec![5; 40],
        signature: vec![6; 64],
    };
    let write = |rows: Vec<RowWrite>, entry: Option<LedgerEntry>| Write {
        region: region.clone(),
        rows,
        entry,
        buried: Vec::new(),
        incarnation: None,
    };
    let set = |row: KeyRow, replaces: Option<u64>| RowWrite {
        row,
        replaces,
        buries: true,
        leaves: vec![LeafNumber(3), LeafNumber(u64::MAX)],
    };

    assert_eq!(store.ledger_head(region).await?, None);
    let stale = [
        (write(vec![set(replaced(3), Some(2))], None), "a generation that does not stand"),
        (write(vec![set(replaced(2), None)], None), "a row that exists is not new"),
        (write(vec![set(fresh.clone(), Some(1))], None), "a row that does not exist is not replaced"),
        (write(vec![], Some(entry(2))), "the ledger begins at 1"),
        (
            write(vec![set(replaced(2), Some(1)), set(fresh.clone(), Some(1))], Some(entry(1))),
            "all or nothing",
        ),
        (write(vec![set(replaced(2), Some(1))], Some(entry(2))), "nor without its entry"),
    ];
    for (write, why) in stale {
        assert_eq!(store.write(&write).await?, Written::Overtaken, "{why}");
    }
    assert_eq!(store.named(standing.name).await?, Some(StoredKey { row: standing.clone(), floor: None }));
    assert_eq!(store.changes_since(before.changes, 100).await?, [], "what was not written changed nothing");

    let both = write(vec![set(replaced(2), Some(1)), set(fresh.clone(), None)], Some(entry(1)));
    assert!(matches!(store.write(&both).await?, Written::Done { .. }));
    assert_eq!(store.write(&both).await?, Written::Overtaken, "once");
    let floor = Some(Floor { generation: 2, entry: 1 });
    assert_eq!(store.named(standing.name).await?, Some(StoredKey { row: replaced(2), floor }));
    assert_eq!(store.tombstone(standing.name, LeafNumber(u64::MAX)).await?, Some(1));
    assert_eq!(store.tombstone(standing.name, LeafNumber(4)).await?, None);
    assert_eq!(store.tombstone(KeyName([77; 16]), LeafNumber(3)).await?, None);
    let quiet = RowWrite { buries: false, leaves: Vec::new(), ..set(replaced(3), Some(2)) };
    assert!(matches!(store.write(&write(vec![quiet], Some(entry(2)))).await?, Written::Done { .. }));
    assert_eq!(
        store.find(&standing.identity).await?,
        Some(StoredKey { row: replaced(3), floor }),
        "floors stay"
    );
    assert_eq!(store.ledger_head(region).await?, Some(entry(2)));
    assert_eq!(store.ledger(region, &[], 0, 100).await?, [entry(1), entry(2)]);
    assert_eq!(store.ledger(region, &[], 1, 100).await?, [entry(2)]);
    assert_eq!(store.ledger(region, &[2, 9], 0, 100).await?, [entry(2)], "of these kinds alone");
    assert_eq!(store.ledger(&"elsewhere".parse()?, &[], 0, 100).await?, [], "each region has its own");

    let changes = store.changes_since(before.changes, 100).await?;
    let slots: Vec<_> = changes.iter().map(|change| change.slot.clone()).collect();
    let slot = Some(standing.identity.slot.clone());
    assert_eq!(slots, [None, slot.clone(), slot.clone(), None, slot], "every change is named, in order");
    assert!(changes.is_sorted_by(|left, right| left.number < right.number));
    let [first, .., last] = &changes[..] else { panic!("five changes") };
    assert_eq!(store.changes_since(first.number, 2).await?, changes.get(1..3).unwrap_or_default());
    assert_eq!(store.mark().await?.changes, last.number);

    let filter = RowFilter {
        region: region.clone(),
        kind: KeyKind::Tenant,
        period: Some(standing.identity.slot.period),
        tenant: None,
    };
    let all = store.load_many(&filter, None, 100).await?;
    let versions: Vec<_> = all.iter().map(|stored| stored.row.identity.version).collect();
    assert_eq!(versions, [1, 2, 3]);
    let behind = store.load_many(&filter, Some(&standing.identity), 1).await?;
    assert_eq!(Some(&behind[..]), all.get(1..2), "pages follow each other");
    let nobody = RowFilter { tenant: Some("nobody".parse()?), ..filter.clone() };
    assert_eq!(store.load_many(&nobody, None, 100).await?, []);
    assert_eq!(store.load_many(&RowFilter { kind: KeyKind::Post, ..filter }, None, 100).await?, []);

    // A tombstone that is taken up late lowers no floor, and one of a row that stays as it is counts.
    let bury = |generation: u64, number: u64| Write {
        buried: vec![Buried { name: standing.name, generation, leaves: vec![LeafNumber(9)] }],
        ..write(vec![], Some(entry(number)))
    };
    assert!(matches!(store.write(&bury(1, 3)).await?, Written::Done { .. }));
    assert_eq!(store.named(standing.name).await?, Some(StoredKey { row: replaced(3), floor }));
    assert_eq!(store.tombstone(standing.name, LeafNumber(9)).await?, Some(3));
    assert!(matches!(store.write(&bury(4, 4)).await?, Written::Done { .. }));
    let floor = Some(Floor { generation: 4, entry: 4 });
    let buried = StoredKey { row: replaced(3), floor };
    assert_eq!(store.named(standing.name).await?, Some(buried.clone()));
    assert!(buried.standing().is_err(), "what is buried is an old row");

    let reborn = Write { incarnation: Some([9; 16]), ..write(vec![], None) };
    assert!(matches!(store.write(&reborn).await?, Written::Done { .. }));
    let reborn = Incarnation { id: [9; 16], ..before.incarnation };
    assert_eq!(store.mark().await?.incarnation, reborn, "another id, on the same server");
    Ok(())
}

/// What lies under a branch key, and how it ends.
async fn branches(store: &dyn KeyStore, old: &KeyRow, new: &KeyRow, fresh: &KeyRow) -> Result<()> {
    let region = old.identity.slot.region.clone();
    let rows = |rows: Vec<(KeyRow, Option<u64>)>| Write {
        region: region.clone(),
        rows: rows
            .into_iter()
            .map(|(row, replaces)| RowWrite { row, replaces, buries: false, leaves: Vec::new() })
            .collect(),
        entry: None,
        buried: Vec::new(),
        incarnation: None,
    };
    let destroyed = KeyRow { generation: 2, state: KeyState::Destroyed, sealed: Vec::new(), ..old.clone() };
    let end = rows(vec![(destroyed, Some(1))]);
    assert_eq!(store.write(&end).await?, Written::Overtaken, "three keys lie under it");
    assert_eq!(store.find(&old.identity).await?.map(|stored| stored.row), Some(old.clone()));

    // Under a branch key of the same version that is the tenant's own, there is nothing.
    let own = KeyRow { parent_version: fresh.parent_version | KeyRow::OWN_BRANCH, ..fresh.clone() };
    assert!(matches!(store.insert(&own).await?, Inserted::Orphan));
    assert!(matches!(store.insert(new).await?, Inserted::Ours));
    let week = KeyRow {
        identity: KeyIdentity {
            slot: KeySlot { period: "2026-W48".parse()?, ..fresh.identity.slot.clone() },
            version: 1,
        },
        name: KeyName([0x51; 16]),
        ..fresh.clone()
    };
    assert!(
        matches!(store.insert(&week).await?, Inserted::Ours),
        "weeks lie under the month of their Monday"
    );
    for stored in store.versions(&fresh.identity.slot).await? {
        let (replaces, row) = (stored.row.generation, stored.row);
        let row = KeyRow { generation: replaces + 1, parent_version: 2, ..row };
        assert!(matches!(store.write(&rows(vec![(row, Some(replaces))])).await?, Written::Done { .. }));
    }
    assert_eq!(store.write(&end).await?, Written::Overtaken, "the week's key lies under it");
    let moved = KeyRow { generation: 2, parent_version: 2, ..week.clone() };
    assert!(matches!(store.write(&rows(vec![(moved.clone(), Some(1))])).await?, Written::Done { .. }));
    assert!(matches!(store.write(&end).await?, Written::Done { .. }), "now nothing does");

    let back = KeyRow { generation: 3, parent_version: 1, ..moved };
    assert_eq!(store.write(&rows(vec![(back, Some(2))])).await?, Written::Overtaken, "nor ever will");
    assert!(matches!(store.insert(fresh).await?, Inserted::Orphan));
    let again = rows(vec![(fresh.clone(), None)]);
    assert_eq!(store.write(&again).await?, Written::Overtaken);
    assert_eq!(store.find(&fresh.identity).await?, None);
    Ok(())
}

/// Holds an empty registry to the guarantees of [`HomeRegistry`].
///
/// # Errors
/// Whatever the registry answers when it should have worked.
pub async fn home_registry(registry: &dyn HomeRegistry) -> Result<()> {
    let choice = |tenant: &str, types: &str, region: &str| -> Result<HomeChoice> {
        Ok(HomeChoice { tenant: tenant.parse()?, types: types.parse()?, region: region.parse()? })
    };
    let signed = |octet: u8| SignedStatement { body: vec![octet; 9], signature: vec![octet; 64] };
    let list = |choice: &HomeChoice, octet: u8, own: bool| SignedChoices {
        choices: vec![choice.clone()],
        statement: signed(octet),
        own,
    };
    let standing = |choice: HomeChoice| async move {
        let standing = registry.standing(&[choice]).await?.pop().flatten();
        Ok::<_, crate::Error>(standing.map(|home| (home.choice.region.to_string(), home.statement)))
    };
    let home = |region: &str, octet: u8| Some((region.to_owned(), Some(signed(octet))));
    let now = Time::EPOCH;
    let eu = choice("acme", "voice", "eu-central-1")?;
    let us = choice("acme", "voice", "us-east-1")?;
    let fax = choice("acme", "fax", "us-east-1")?;

    assert_eq!(registry.standing(&[eu.clone(), fax.clone()]).await?, [None, None]);
    assert_eq!(registry.choose(&[], now).await?, Chosen::Made);
    assert_eq!(registry.choose(&[list(&eu, 1, true)], now).await?, Chosen::Made);
    let again = registry.choose(&[list(&eu, 2, true)], now).await?;
    assert_eq!(again, Chosen::Made, "the same again is fine");
    assert_eq!(standing(us.clone()).await?, home("eu-central-1", 1), "and the first statement stays");

    let refused = registry.choose(&[list(&fax, 3, true), list(&us, 4, true)], now).await?;
    assert_eq!(refused, Chosen::Contradicted(vec![(us, "eu-central-1".parse()?)]), "a home is chosen once");
    assert_eq!(registry.homes(None).await?.len(), 1, "all choices of all lists are made, or none");
    let both = [choice("initech", "fax", "us-east-1")?, choice("initech", "fax", "eu-central-1")?];
    assert_eq!(
        registry.choose(&both.clone().map(|choice| list(&choice, 5, true)), now).await?,
        Chosen::Contradicted(vec![(both[1].clone(), "us-east-1".parse()?)])
    );

    // `all` is every type without a home, now and later; what was chosen before stands.
    let all = choice("acme", "all", "us-east-1")?;
    assert_eq!(registry.choose(&[list(&all, 6, false)], now).await?, Chosen::Made);
    assert_eq!(registry.choose(&[list(&fax, 7, true)], now).await?, Chosen::Made);
    assert_eq!(registry.homes(Some(&"acme".parse()?)).await?.len(), 2, "it had that home already");
    let late = choice("acme", "fax", "eu-central-1")?;
    assert_eq!(
        registry.choose(&[list(&late, 8, true)], now).await?,
        Chosen::Contradicted(vec![(late, "us-east-1".parse()?)])
    );
    assert_eq!(standing(eu.clone()).await?, home("eu-central-1", 1));
    assert_eq!(standing(fax.clone()).await?, home("us-east-1", 6));
    assert_eq!(standing(choice("nobody", "fax", "us-east-1")?).await?, None);

    // The home's own statement is preferred, and of each kind the first stays.
    registry.add_statement(&list(&all, 9, false)).await?;
    assert_eq!(standing(fax.clone()).await?, home("us-east-1", 6));
    registry.add_statement(&list(&all, 10, true)).await?;
    registry.add_statement(&list(&all, 11, true)).await?;
    assert_eq!(standing(fax).await?, home("us-east-1", 10));
    let homes = registry.homes(None).await?;
    let shown: Vec<_> = homes.iter().map(|home| home.choice.to_string()).collect();
    assert_eq!(shown, ["acme/all -> us-east-1", "acme/voice -> eu-central-1"]);
    assert_eq!(homes.first().and_then(|home| home.statement.clone()), Some(signed(10)));
    Ok(())
}
