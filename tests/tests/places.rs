//! Places: what may be done where, and that no key service is asked where it may not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domicile::context::EncryptionContext;
use domicile::home::{HomeChoice, HomeState};
use domicile::kms::{Kms, KmsDescription, LocalKms};
use domicile::secret::Secret;
use domicile::store::{HomeRegistry, KeyStore, MemoryStore, SignedChoices};
use domicile::{
    Action, ChoiceReport, Code, Domicile, KnownRegion, Place, Purpose, RecordType, Region, Result, Scope,
};
use domicile_record::format::Contents;
use domicile_record::{Segment, SegmentWriter, Selection, Stamp, WriterOptions, verify, why};
use domicile_tests::{descriptor, place, region, scope};

const PLACES: [(&str, &str); 4] =
    [("eu-central-1", "EU"), ("eu-west-1", "EU"), ("us-east-1", "US"), ("ap-southeast-2", "AU")];

/// A key service that counts what is asked of it.
#[derive(Debug)]
struct Counting {
    kms: LocalKms,
    calls: AtomicUsize,
}

impl Counting {
    fn count(&self) -> &LocalKms {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.kms
    }
}

#[async_trait]
impl Kms for Counting {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.count().generate(context).await
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.count().wrap(key, context).await
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.count().unwrap(wrap, context).await
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        self.count().sign(statement).await
    }

    async fn describe(&self) -> Result<KmsDescription> {
        self.kms.describe().await
    }
}

/// Four regions whose key services and store all hosts share; a host differs by where it says it is.
struct World {
    _directory: tempfile::TempDir,
    store: Arc<MemoryStore>,
    kms: Vec<(Place, Arc<Counting>)>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kms = PLACES.map(|(name, jurisdiction)| {
            let path = |kind: &str| directory.path().join(format!("{name}.{kind}"));
            let kms = LocalKms::create(region(name), path("root"), path("signing")).unwrap();
            (place(name, jurisdiction), Arc::new(Counting { kms, calls: AtomicUsize::new(0) }))
        });
        Self { _directory: directory, store: Arc::new(MemoryStore::new()), kms: kms.into() }
    }

    /// A host that is `here`; `keys_of` says whose key service it has for each region.
    async fn host(&self, here: &str, keys_of: impl Fn(&Region) -> Option<Region>) -> Domicile {
        self.builder(here, keys_of).await.build().unwrap()
    }

    async fn builder(&self, here: &str, keys_of: impl Fn(&Region) -> Option<Region>) -> domicile::Builder {
        let mut builder = Domicile::builder(region(here), self.store.clone());
        for (place, kms) in &self.kms {
            let of =
                keys_of(&place.region).and_then(|of| self.kms.iter().find(|(place, _)| place.region == of));
            builder = builder.region(KnownRegion {
                place: place.clone(),
                verifying_key: kms.describe().await.unwrap().verifying_key,
                kms: of.map(|(_, kms)| kms.clone() as Arc<dyn Kms>),
                store: self.store.clone(),
            });
        }
        builder
    }

    async fn honest_host(&self, here: &str) -> Domicile {
        self.host(here, |region| Some(region.clone())).await
    }

    fn calls(&self, name: &str) -> usize {
        let (_, kms) = self.kms.iter().find(|(place, _)| place.region == region(name)).unwrap();
        kms.calls.load(Ordering::SeqCst)
    }
}

/// A choice of acme's.
fn choice(types: &str, name: &str) -> HomeChoice {
    HomeChoice { tenant: "acme".parse().unwrap(), types: types.parse().unwrap(), region: region(name) }
}

async fn sealed(host: &Domicile, home: &str, tenant: &str) -> Result<Vec<u8>> {
    let mut writer = SegmentWriter::create(host, &region(home), Vec::new(), WriterOptions::default()).await?;
    let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await?;
    writer.append(lane, b"one record", Stamp::default())?;
    Ok(writer.finish().await?.0)
}

#[tokio::test]
async fn every_pair_of_places_seals_and_opens_within_a_jurisdiction_and_nowhere_else() {
    let world = World::new();
    for (home, law) in PLACES {
        let tenant = format!("of-{home}");
        let at_home = world.honest_host(home).await;
        at_home.choose_home(&scope(&tenant), home).await.unwrap();
        let bytes = sealed(&at_home, home, &tenant).await.unwrap();
        for (here, law_here) in PLACES {
            let host = world.honest_host(here).await;
            // The host's own chain begins under its own key; what counts is the home's.
            host.audit().record(&[]).await.unwrap();
            let before = world.calls(home);
            let may = law == law_here;

            let opened = Segment::open_source(&host, &bytes[..], Purpose::Support, Selection::all()).await;
            assert_eq!(opened.is_ok(), may, "opening {home} in {here}");
            assert_eq!(sealed(&host, home, &tenant).await.is_ok(), may, "sealing {home} in {here}");
            assert_eq!(verify(&host, &bytes[..], None).await.is_ok(), may, "verifying {home} in {here}");
            if !may {
                let refusal = opened.unwrap_err();
                assert_eq!(refusal.code(), Code::HomeRefused);
                assert!(refusal.what().contains(home) && refusal.what().contains(here), "{refusal}");
                assert_eq!(refusal.broken_rule(), Some(&*format!("processing = [\"{law}\"]")));
                assert_eq!(world.calls(home), before, "a key service of {home} was asked from {here}");
            }
            // Explaining asks no key service, wherever it is done.
            let before: Vec<_> = PLACES.iter().map(|(name, _)| world.calls(name)).collect();
            let explanation = why(&host, &bytes[..]).await.unwrap();
            assert_eq!(explanation.is_clear(), may, "explaining {home} in {here}");
            assert_eq!(PLACES.map(|(name, _)| world.calls(name)).to_vec(), before);
        }
    }
}

#[tokio::test]
async fn a_home_says_where_a_scopes_records_may_be_processed_and_every_host_follows() {
    use domicile::keyring::Concerned;
    use domicile::processing::Where;
    let world = World::new();
    let at_home = world.honest_host("eu-central-1").await;
    at_home.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    at_home.choose_home(&scope("other"), "eu-central-1").await.unwrap();
    let acme = sealed(&at_home, "eu-central-1", "acme").await.unwrap();
    let other = sealed(&at_home, "eu-central-1", "other").await.unwrap();
    let set = async |places: &[&str]| {
        let action = Action::Manage(Purpose::Maintenance.into());
        let permit = at_home.permit_region(&region("eu-central-1"), action).await.unwrap();
        let whom = Concerned { tenant: "acme".parse().unwrap(), types: "all".parse().unwrap() };
        let places: Vec<Where> = places.iter().map(|place| place.parse().unwrap()).collect();
        at_home.keyring().set_places(permit, whom, places, "contract 7").await
    };
    let rules: [&[&str]; 6] =
        [&[], &["EU"], &["EU", "US"], &["eu-central-1"], &["us-east-1"], &["EU", "us-east-1"]];
    for rule in rules {
        set(rule).await.unwrap();
        for (here, law) in PLACES {
            let host = world.honest_host(here).await;
            host.audit().record(&[]).await.unwrap();
            let before = world.calls("eu-central-1");
            let may = match rule {
                [] => law == "EU",
                places => places.contains(&here) || places.contains(&law),
            };
            let opened = Segment::open_source(&host, &acme[..], Purpose::Support, &scope("acme")).await;
            assert_eq!(
                opened.as_ref().err().map(domicile::Error::code),
                (!may).then_some(Code::HomeRefused),
                "{rule:?} in {here}"
            );
            if !may {
                assert_eq!(world.calls("eu-central-1"), before, "{rule:?} in {here}");
            }
            // A segment takes the region's own key, where others of the region may be processed; a lane, the scope's.
            assert_eq!(sealed(&host, "eu-central-1", "acme").await.is_ok(), may, "{rule:?} in {here}");
            assert_eq!(why(&host, &acme[..]).await.unwrap().is_clear(), may, "{rule:?} in {here}");
            // Another's records go by the rule of their home, whatever is said of acme's.
            let opened = Segment::open_source(&host, &other[..], Purpose::Support, &scope("other")).await;
            assert_eq!(opened.is_ok(), law == "EU", "{rule:?} in {here}");
        }
    }
    let listed = at_home.keyring().places(&region("eu-central-1")).await.unwrap();
    assert_eq!((listed.len(), listed[0].version, &*listed[0].reason), (1, 6, "contract 7"));
    set(&[]).await.unwrap();
    assert!(at_home.keyring().places(&region("eu-central-1")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_configuration_says_where_records_of_a_jurisdiction_may_be_processed() {
    use domicile::processing::Processing;
    let world = World::new();
    let at_home = world.honest_host("eu-central-1").await;
    at_home.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    let bytes = sealed(&at_home, "eu-central-1", "acme").await.unwrap();
    for (places, here, may) in [
        (&["EU", "US"][..], "us-east-1", true),
        (&["EU"], "us-east-1", false),
        (&["eu-west-1"], "eu-west-1", true),
        (&["eu-west-1"], "eu-central-1", false),
    ] {
        let mut processing = Processing::default();
        let places: Vec<_> = places.iter().map(|place| place.parse().unwrap()).collect();
        processing.add("EU".parse().unwrap(), places).unwrap();
        let host =
            world.builder(here, |region| Some(region.clone())).await.processing(processing).build().unwrap();
        let opened = Segment::open_source(&host, &bytes[..], Purpose::Support, Selection::all()).await;
        assert_eq!(opened.is_ok(), may, "{here}");
    }
    assert_eq!(
        Processing::default().add("EU".parse().unwrap(), vec![]).unwrap_err().code(),
        Code::ConfigInvalid
    );
}

#[tokio::test]
async fn refusals_stand_in_the_audit_chain() {
    use domicile::store::KeyStore;
    let world = World::new();
    let at_home = world.honest_host("us-east-1").await;
    at_home.choose_home(&scope("acme"), "us-east-1").await.unwrap();
    let elsewhere = world.honest_host("eu-central-1").await;
    elsewhere.permit(&scope("acme"), Action::Seal).await.unwrap_err();
    elsewhere.permit(&scope("nobody"), Action::Seal).await.unwrap_err();
    let chains = world.store.chains().await.unwrap();
    let events: Vec<_> = chains.iter().flat_map(|(_, events)| events).map(|event| &event.body[..]).collect();
    let refused = |tenant: &str, code: &str| {
        events.iter().any(|body| body.contains("\"refuse\"") && body.contains(tenant) && body.contains(code))
    };
    assert!(refused("acme", "home/refused") && refused("nobody", "home/none"), "{events:#?}");
}

#[tokio::test]
async fn without_the_guard_unwrapping_still_fails_without_the_homes_root_key() {
    let world = World::new();
    let at_home = world.honest_host("eu-central-1").await;
    at_home.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    let bytes = sealed(&at_home, "eu-central-1", "acme").await.unwrap();

    // A host in the US whose configuration lies: it says that it is in the EU. That is what a host with the
    // guard taken out can do at most. It has the key services of the US, and the whole key store.
    let us = region("us-east-1");
    let liar = world.host("eu-west-1", |_| Some(us.clone())).await;
    let error =
        Segment::open_source(&liar, &bytes[..], Purpose::Support, Selection::all()).await.unwrap_err();
    assert_ne!(error.code(), Code::HomeRefused, "the guard was to be out of the way");

    // And one that has no key service for the home at all.
    let own = |region: &Region| (region.as_str() == "eu-west-1").then(|| region.clone());
    let poor = world.host("eu-west-1", own).await;
    let error =
        Segment::open_source(&poor, &bytes[..], Purpose::Support, Selection::all()).await.unwrap_err();
    assert_eq!(error.code(), Code::KmsUnavailable);
}

#[tokio::test]
async fn a_scope_is_sealed_and_opened_under_its_home_alone() {
    let world = World::new();
    let host = world.honest_host("eu-central-1").await;
    host.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    host.choose_home(&scope("other"), "eu-west-1").await.unwrap();
    // Both may be processed here, and still neither goes into the other's segment.
    let error = sealed(&host, "eu-west-1", "acme").await.unwrap_err();
    assert_eq!(error.code(), Code::HomeMismatch);

    // A host with another registry, where acme chose the other region, sealed this; here it is a violation.
    let elsewhere = World { store: Arc::new(MemoryStore::new()), ..World::new() };
    let rogue = elsewhere.honest_host("eu-west-1").await;
    rogue.choose_home(&scope("acme"), "eu-west-1").await.unwrap();
    let bytes = sealed(&rogue, "eu-west-1", "acme").await.unwrap();
    let named = Segment::open_source(&host, &bytes[..], Purpose::Support, &[scope("acme")]).await;
    assert_eq!(named.unwrap_err().code(), Code::HomeMismatch);
}

#[tokio::test]
async fn key_services_are_called_for_branch_keys_and_never_for_scopes_or_records() {
    let world = World::new();
    let host = world.honest_host("eu-central-1").await;
    let mut calls = Vec::new();
    for scopes in [10, 100] {
        let before = world.calls("eu-central-1");
        let mut writer =
            SegmentWriter::create(&host, &region("eu-central-1"), Vec::new(), WriterOptions::default())
                .await
                .unwrap();
        for number in 0..scopes {
            let tenant = format!("t-{scopes}-{number}");
            let types = domicile::home::Types::One(RecordType::VOICE);
            let choice = domicile::home::HomeChoice {
                tenant: tenant.parse().unwrap(),
                types,
                region: region("eu-central-1"),
            };
            let chosen = world.calls("eu-central-1");
            host.choose_homes(&[choice]).await.unwrap();
            let signed = world.calls("eu-central-1") - chosen;
            let lane = writer.open_lane(descriptor(&tenant, Contents::default()), b"").await.unwrap();
            for _ in 0..100 {
                writer.append(lane, b"a record", Stamp::default()).unwrap();
            }
            calls.push(signed);
        }
        writer.finish().await.unwrap();
        let unwrapped = world.calls("eu-central-1") - before - scopes;
        assert!(unwrapped <= 3, "{unwrapped} calls for {scopes} scopes");
    }
    assert!(calls.iter().all(|signed| *signed <= 2), "choosing a home signs it, and may begin the chain");
}

#[tokio::test]
async fn a_pending_home_signs_where_the_guard_lets_it_and_nowhere_else() {
    let world = World::new();
    let without_us = |region: &Region| (region.as_str() != "us-east-1").then(|| region.clone());
    let asking = world.host("eu-central-1", without_us).await;
    let report = asking.choose_home(&scope("acme"), "us-east-1").await.unwrap();
    assert_eq!((report.made.len(), report.pending.len()), (1, 1));
    assert_eq!(asking.home(&scope("acme")).await.unwrap().state(), HomeState::Pending);
    assert_eq!(asking.permit(&scope("acme"), Action::Seal).await.unwrap_err().code(), Code::HomeRefused);
    let other = asking.choose_home(&scope("acme"), "eu-west-1").await.unwrap_err();
    assert_eq!(other.code(), Code::HomeChosen);

    // A host that has the key and may not use it: looking, refusing and listing sign nothing.
    let before = world.calls("us-east-1");
    let elsewhere = world.honest_host("eu-west-1").await;
    let refused = elsewhere.permit(&scope("acme"), Action::Seal).await.unwrap_err();
    assert_eq!(refused.code(), Code::HomeRefused);
    assert_eq!(elsewhere.home(&scope("acme")).await.unwrap().state(), HomeState::Pending);
    let states = elsewhere.homes(None).await.unwrap();
    assert_eq!(*states.first().unwrap().1.as_ref().unwrap(), HomeState::Pending);
    assert_eq!(world.calls("us-east-1"), before);

    // At home, the first permit has it sign.
    let _permit = world.honest_host("us-east-1").await.permit(&scope("acme"), Action::Seal).await.unwrap();
    assert_eq!(asking.home(&scope("acme")).await.unwrap().state(), HomeState::Signed);
}

#[tokio::test]
async fn a_pending_home_has_no_keys_in_its_own_jurisdiction_either() {
    let world = World::new();
    let without_west = |region: &Region| (region.as_str() != "eu-west-1").then(|| region.clone());
    let host = world.host("eu-central-1", without_west).await;
    host.choose_home(&scope("acme"), "eu-west-1").await.unwrap();
    assert_eq!(host.permit(&scope("acme"), Action::Seal).await.unwrap_err().code(), Code::HomePending);
    // Choosing it again where the key is signs it.
    let report = world.honest_host("us-east-1").await.choose_home(&scope("acme"), "eu-west-1").await.unwrap();
    assert_eq!(report, ChoiceReport { made: vec![], pending: vec![] });
    assert_eq!(host.home(&scope("acme")).await.unwrap().state(), HomeState::Signed);
    assert_eq!(host.permit(&scope("acme"), Action::Seal).await.unwrap().home().region, region("eu-west-1"));
}

#[tokio::test]
async fn a_list_of_homes_holds_together_in_its_own_order() {
    let world = World::new();
    let host = world.honest_host("eu-central-1").await;
    let error =
        host.choose_homes(&[choice("all", "eu-central-1"), choice("fax", "us-east-1")]).await.unwrap_err();
    assert_eq!(error.code(), Code::HomeChosen);
    assert!(host.homes(None).await.unwrap().is_empty());
    let list = [choice("fax", "us-east-1"), choice("all", "eu-central-1"), choice("voice", "eu-central-1")];
    let report = host.choose_homes(&list).await.unwrap();
    assert_eq!(report.made, list[..2]);
    let home = |record_type| Scope::new("acme", record_type).unwrap();
    assert_eq!(host.home(&home(RecordType::FAX)).await.unwrap().place().region, region("us-east-1"));
    assert_eq!(host.home(&home(RecordType::VOICE)).await.unwrap().place().region, region("eu-central-1"));
}

#[tokio::test]
async fn what_a_file_names_does_not_flood_the_audit_chain() {
    const TENANTS: usize = 250;
    let world = World::new();
    let host = world.honest_host("eu-central-1").await;
    let mut writer =
        SegmentWriter::create(&host, &region("eu-central-1"), Vec::new(), WriterOptions::default())
            .await
            .unwrap();
    for number in 0..TENANTS {
        // Some of them are as long as a phone number is.
        let tenant = if number % 10 == 0 { format!("4930{number:08}") } else { format!("tenant-{number}") };
        host.choose_home(&scope(&tenant), "eu-central-1").await.unwrap();
        let lane = writer.open_lane(descriptor(&tenant, Contents::default()), b"").await.unwrap();
        writer.append(lane, b"one record", Stamp::default()).unwrap();
    }
    let bytes = writer.finish().await.unwrap().0;

    // The same keys and another registry, in which nobody has a home.
    let mut builder = Domicile::builder(region("eu-central-1"), Arc::new(MemoryStore::new()));
    for known in host.regions() {
        builder = builder.region(known.clone());
    }
    let stranger = builder.build().unwrap();
    let segment =
        Segment::open_source(&stranger, &bytes[..], Purpose::Support, Selection::all()).await.unwrap();
    assert_eq!(segment.lanes().len(), TENANTS);
    assert!(
        segment
            .lanes()
            .iter()
            .all(|lane| lane.obstacle().is_some_and(|error| error.code() == Code::HomeNone))
    );
    let chains = world.store.chains().await.unwrap();
    let (_, events) = chains.last().unwrap();
    let refusals: Vec<_> =
        events.iter().map(|event| event.body.as_str()).filter(|body| body.contains("home/none")).collect();
    assert_eq!(refusals.len(), 101);
    assert!(refusals[100].contains("150 scopes that are not named"), "{}", refusals[100]);
    assert!(refusals.iter().all(|body| !body.contains(r#""tenant":"4930"#)));

    // One that was asked for by name is refused and recorded by name, and so is a scope of another place.
    let error = Segment::open_source(&stranger, &bytes[..], Purpose::Support, &[scope("tenant-1")])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::HomeNone);
    stranger.choose_home(&scope("tenant-2"), "eu-west-1").await.unwrap();
    let error = Segment::open_source(&stranger, &bytes[..], Purpose::Support, &[scope("tenant-2")])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::HomeMismatch);
    let chains = world.store.chains().await.unwrap();
    let (_, events) = chains.last().unwrap();
    let last = &events.last().unwrap().body;
    assert!(last.contains("home/mismatch") && last.contains("tenant-2"), "{last}");
}

#[tokio::test]
async fn a_long_list_of_pending_homes_is_signed_with_few_signatures() {
    const HOMES: usize = 600;
    let world = World::new();
    let without_us = |region: &Region| (region.as_str() != "us-east-1").then(|| region.clone());
    let asking = world.host("eu-central-1", without_us).await;
    let choices: Vec<_> = (0..HOMES)
        .map(|number| HomeChoice {
            tenant: format!("tenant-{number}").parse().unwrap(),
            types: "all".parse().unwrap(),
            region: region("us-east-1"),
        })
        .collect();
    let report = asking.choose_homes(&choices).await.unwrap();
    assert_eq!((report.made.len(), report.pending.len()), (HOMES, HOMES));
    // Each twice: a list may say so.
    let again: Vec<_> = choices.iter().chain(&choices).cloned().collect();
    assert_eq!(asking.choose_homes(&again).await.unwrap().pending.len(), HOMES);

    let at_home = world.honest_host("us-east-1").await;
    at_home.audit().record(&[]).await.unwrap();
    let before = world.calls("us-east-1");
    let report = at_home.choose_homes(&again).await.unwrap();
    assert_eq!(report, ChoiceReport { made: vec![], pending: vec![] });
    assert_eq!(world.calls("us-east-1") - before, 3, "256 homes a signature");
    let states = at_home.homes(None).await.unwrap();
    assert!(states.iter().all(|(_, state)| *state.as_ref().unwrap() == HomeState::Signed));
}

#[tokio::test]
async fn a_home_that_is_taken_away_does_not_become_the_home_of_all_the_rest() {
    let world = World::new();
    let host = world.honest_host("eu-central-1").await;
    // One before, one in the same list, one in the same region, and one that is pending.
    let without_us = |region: &Region| (region.as_str() != "us-east-1").then(|| region.clone());
    let asking = world.host("eu-central-1", without_us).await;
    asking.choose_homes(&[choice("voice", "eu-central-1")]).await.unwrap();
    let list = [choice("fax", "eu-west-1"), choice("messaging", "us-east-1"), choice("all", "us-east-1")];
    asking.choose_homes(&list).await.unwrap();
    // The home's own statement, made later, leaves out the same.
    assert_eq!(world.honest_host("us-east-1").await.choose_homes(&list).await.unwrap().pending, []);

    let of = |record_type: &str| Scope::new("acme", record_type.parse().unwrap()).unwrap();
    let verify = async |host: &Domicile, record_type: &str| {
        host.home(&of(record_type))
            .await
            .map(|home| home.place().region.to_string())
            .map_err(|error| error.code())
    };
    assert_eq!(verify(&host, "voice").await.unwrap(), "eu-central-1");
    assert_eq!(verify(&host, "wireless").await.unwrap(), "us-east-1");

    // A registry in which the rows of single types were removed.
    let robbed = Arc::new(MemoryStore::new());
    for home in host.homes(None).await.unwrap().into_iter().map(|(home, _)| home) {
        if home.choice.types.as_str() == "all" {
            let list = SignedChoices {
                choices: vec![home.choice],
                statement: home.statement.unwrap(),
                own: home.own,
            };
            robbed.choose(&[list], home.chosen).await.unwrap();
        }
    }
    let mut builder = Domicile::builder(region("us-east-1"), robbed);
    for known in host.regions() {
        builder = builder.region(known.clone());
    }
    let host = builder.build().unwrap();
    for (record_type, expected) in [
        ("voice", Err(Code::HomeForged)),
        ("fax", Err(Code::HomeForged)),
        // What was at home in the same region has lost nothing.
        ("messaging", Ok("us-east-1".to_owned())),
        ("wireless", Ok("us-east-1".to_owned())),
    ] {
        assert_eq!(verify(&host, record_type).await, expected, "{record_type}");
    }
    assert_eq!(host.permit(&of("voice"), Action::Seal).await.unwrap_err().code(), Code::HomeForged);
    let again = host.choose_homes(&[choice("voice", "us-east-1")]).await.unwrap_err();
    assert_eq!(again.code(), Code::HomeForged);
    let homes = host.homes(None).await.unwrap();
    assert_eq!(homes[0].1.as_ref().unwrap_err().code(), Code::HomeForged);
}
