//! What every store is held to. For tests of stores, ours and others'; panics where one breaks a
//! guarantee.

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a conformance suite is a test")]

use super::{Chosen, HomeRegistry, Inserted, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState, KeyStore};
use crate::audit::{ChainBeginning, ChainId, SealedEvent};
use crate::error::Result;
use crate::home::{HomeChoice, SignedStatement};
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

    assert_eq!(store.newest(&slot).await?, None, "an empty store has no keys");
    assert!(matches!(store.insert(&row(1, 1)).await?, Inserted::Ours));
    match store.insert(&row(1, 2)).await? {
        Inserted::Theirs(first) => assert_eq!(*first, row(1, 1), "the first row of an identity wins"),
        Inserted::Ours => panic!("a second row of one identity was written"),
    }
    assert!(store.insert(&row(3, 1)).await.is_err(), "two keys do not share a name");
    assert!(matches!(store.insert(&row(2, 2)).await?, Inserted::Ours));
    assert_eq!(store.newest(&slot).await?, Some(row(2, 2)), "the newest has the highest version");
    assert_eq!(store.find(&row(1, 1).identity).await?, Some(row(1, 1)));
    assert_eq!(store.find(&row(9, 9).identity).await?, None);
    assert_eq!(store.named(KeyName([2; 16])).await?, Some(row(2, 2)));
    assert_eq!(store.named(KeyName([9; 16])).await?, None);
    let other = KeySlot::branch(&region, period);
    assert_eq!(store.newest(&other).await?, None, "slots of other kinds are others");

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
    assert_eq!(store.chains().await?, [(beginning, vec![event(1), event(2), event(3)])]);
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
    let now = Time::EPOCH;
    let eu = choice("acme", "voice", "eu-central-1")?;
    assert_eq!(registry.choose(std::slice::from_ref(&eu), now).await?, Chosen::Made(vec![0]));
    assert_eq!(
        registry.choose(std::slice::from_ref(&eu), now).await?,
        Chosen::Made(vec![]),
        "the same again is fine"
    );

    let us = choice("acme", "voice", "us-east-1")?;
    let fax = choice("acme", "fax", "us-east-1")?;
    let refused = registry.choose(&[fax.clone(), us], now).await?;
    assert_eq!(refused, Chosen::Contradicted(vec![(1, "eu-central-1".parse()?)]), "a home is chosen once");
    assert_eq!(registry.homes(None).await?.len(), 1, "all choices of a list are made, or none");
    let both_ways = [choice("initech", "fax", "us-east-1")?, choice("initech", "fax", "eu-central-1")?];
    assert_eq!(
        registry.choose(&both_ways, now).await?,
        Chosen::Contradicted(vec![(1, "us-east-1".parse()?)])
    );

    // `all` is every type without a home, now and later; what was chosen before stands.
    let all = choice("acme", "all", "us-east-1")?;
    assert_eq!(registry.choose(std::slice::from_ref(&all), now).await?, Chosen::Made(vec![0]));
    assert_eq!(registry.choose(&[fax], now).await?, Chosen::Made(vec![]), "it has that home already");
    let late = choice("acme", "fax", "eu-central-1")?;
    assert_eq!(registry.choose(&[late], now).await?, Chosen::Contradicted(vec![(0, "us-east-1".parse()?)]));
    let home = |record_type: RecordType| async move {
        let home = registry.home(&"acme".parse()?, &record_type).await?;
        Ok::<_, crate::Error>(home.map(|home| home.choice.region.to_string()))
    };
    assert_eq!(home(RecordType::VOICE).await?.as_deref(), Some("eu-central-1"));
    assert_eq!(home(RecordType::FAX).await?.as_deref(), Some("us-east-1"));
    assert_eq!(registry.home(&"nobody".parse()?, &RecordType::FAX).await?, None);
    assert_eq!(registry.homes(Some(&"acme".parse()?)).await?.len(), 2);

    // A choice is pending until its statement is added, and keeps the first.
    assert_eq!(registry.pending(&"us-east-1".parse()?).await?, std::slice::from_ref(&all));
    let signed = |octet: u8| SignedStatement { body: vec![octet; 9], signature: vec![octet; 64] };
    registry.add_statement(&all.region, std::slice::from_ref(&all), &signed(1)).await?;
    registry.add_statement(&all.region, std::slice::from_ref(&all), &signed(2)).await?;
    assert_eq!(registry.pending(&"us-east-1".parse()?).await?, []);
    let fax = registry.home(&"acme".parse()?, &RecordType::FAX).await?;
    assert_eq!(fax.and_then(|home| home.statement), Some(signed(1)));
    assert_eq!(registry.pending(&"eu-central-1".parse()?).await?, [eu]);
    Ok(())
}
