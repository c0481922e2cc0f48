//! A cold cache that is filled ahead: in one stream, with one call for each branch key, and with nothing old in it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;

use domicile::kms::{Agreement, Custody, FakeKms, Holder, KeyStatus, Kms, Operation};
use domicile::store::{Fault, FaultyStore, MemoryStore};
use domicile::{Action, Code, Domicile, KnownRegion, Period, Purpose, Scope};
use domicile_tests::{place, region, scope};

const REGION: &str = "eu-central-1";

/// More than two pages of a store.
const TENANTS: usize = 2_200;

struct Fleet {
    kms: FakeKms,
    /// Holds the branch keys of tenant 7.
    own: FakeKms,
    store: Arc<FaultyStore>,
    homes: Arc<MemoryStore>,
}

impl Fleet {
    /// Every tenant has a key for voice in November.
    async fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let kms = || FakeKms::new(region(REGION)).unwrap();
        let store = Arc::new(FaultyStore::new(memory.clone()));
        let fleet = Self { kms: kms(), own: kms(), store, homes: memory };
        let process = fleet.process().await;
        for number in 0..TENANTS {
            process.choose_home(&tenant(number), REGION).await.unwrap();
            seal(&process, number).await.unwrap();
        }
        fleet
    }

    async fn process(&self) -> Domicile {
        let known = KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: self.kms.describe().await.unwrap().verifying_key,
            kms: Some(Arc::new(self.kms.clone())),
            store: self.store.clone(),
        };
        let holder = Holder { name: "tenant".to_owned(), kms: Arc::new(self.own.clone()) };
        let custody = Custody::of(Agreement::Any, vec![holder]).unwrap();
        let builder = Domicile::builder(region(REGION), self.homes.clone()).region(known);
        builder.custody(region(REGION), Some(tenant(7).tenant), custody).build().unwrap()
    }
}

fn tenant(number: usize) -> Scope {
    scope(&format!("tenant-{number:04}"))
}

fn november() -> Period {
    "2026-11".parse().unwrap()
}

async fn seal(process: &Domicile, number: usize) -> domicile::Result<()> {
    let permit = process.permit(&tenant(number), Action::Seal).await?;
    process.keyring().sealing_leaf(permit, november()).await.map(drop)
}

async fn warm(process: &Domicile) -> domicile::Result<domicile::keyring::WarmReport> {
    let permit = process.permit_region(&region(REGION), Action::Seal).await?;
    process.keyring().warm(permit, november()).await
}

#[tokio::test]
async fn one_stream_and_one_call_for_each_branch_key_fill_a_cold_cache() {
    let fleet = Fleet::new().await;
    let process = fleet.process().await;
    let calls = (fleet.kms.calls(Operation::Unwrap), fleet.own.calls(Operation::Unwrap));
    let pages = fleet.store.calls("load_many");
    let report = warm(&process).await.unwrap();
    assert_eq!((report.scopes, report.without.len()), (TENANTS, 0));
    assert_eq!(fleet.kms.calls(Operation::Unwrap), calls.0 + 1);
    assert_eq!(fleet.own.calls(Operation::Unwrap), calls.1 + 1);
    assert_eq!(fleet.store.calls("load_many"), pages + 4);

    // The store is not asked for a key any longer.
    fleet.store.fail("versions", Some(Fault::Away));
    fleet.store.fail("find", Some(Fault::Away));
    for number in [0, 7, 999, 1_000, TENANTS - 1] {
        seal(&process, number).await.unwrap();
    }
    let cold = fleet.process().await;
    assert_eq!(seal(&cold, 0).await.unwrap_err().code(), Code::StoreUnavailable);
}

#[tokio::test]
async fn all_versions_of_a_key_come_together_and_what_is_at_hand_stays() {
    let fleet = Fleet::new().await;
    let process = fleet.process().await;
    // Two versions from here on: some of them stand on two pages.
    for number in 0..TENANTS {
        let permit =
            process.permit(&tenant(number), Action::Manage(Purpose::Maintenance.into())).await.unwrap();
        process.keyring().rotate(permit).await.unwrap();
    }
    let cold = fleet.process().await;
    seal(&cold, 3).await.unwrap();
    assert_eq!(warm(&cold).await.unwrap().scopes, TENANTS);
    let unwraps = fleet.kms.calls(Operation::Unwrap);
    assert_eq!(warm(&cold).await.unwrap().scopes, TENANTS);
    assert_eq!(fleet.kms.calls(Operation::Unwrap), unwraps);
    fleet.store.fail("versions", Some(Fault::Away));
    for number in 0..TENANTS {
        seal(&cold, number).await.unwrap();
    }
}

#[tokio::test]
async fn one_tenants_key_service_that_says_no_keeps_nobody_elses_keys() {
    let fleet = Fleet::new().await;
    fleet.own.set_status(KeyStatus::Disabled);
    let process = fleet.process().await;
    let report = warm(&process).await.unwrap();
    assert_eq!((report.scopes, report.without), (TENANTS - 1, vec![tenant(7).tenant]));
    seal(&process, 8).await.unwrap();
    assert_eq!(seal(&process, 7).await.unwrap_err().code(), Code::KmsDenied);

    fleet.kms.set_status(KeyStatus::Disabled);
    let process = fleet.process().await;
    // Already the audit chain is begun under its key.
    assert_eq!(warm(&process).await.unwrap_err().code(), Code::AuditUnavailable);
}

#[tokio::test]
async fn the_permit_is_the_regions_own_and_not_one_to_change_keys() {
    let fleet = Fleet::new().await;
    let process = fleet.process().await;
    let permit = process.permit(&tenant(1), Action::Seal).await.unwrap();
    assert_eq!(process.keyring().warm(permit, november()).await.unwrap_err().code(), Code::HomeRefused);
    let manage = Action::Manage(Purpose::Maintenance.into());
    let permit = process.permit_region(&region(REGION), manage).await.unwrap();
    assert_eq!(process.keyring().warm(permit, november()).await.unwrap_err().code(), Code::HomeRefused);
    assert_eq!(fleet.store.calls("load_many"), 0);
}
