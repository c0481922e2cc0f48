//! What the key hierarchy stands on: a key service in memory that counts its calls, a store, and scopes that have chosen
//! their homes.

use std::path::Path;
use std::sync::Arc;

use domicile::danger::SeededRandom;
use domicile::home::{HomeChoice, Types};
use domicile::kms::{FakeKms, Kms, Operation};
use domicile::store::{HomeRegistry, KeyStore, MemoryStore, PostgresStore, SqliteStore};
use domicile::{
    Action, Clock, Domicile, KnownRegion, Period, Permit, Place, Purpose, RecordType, Region, Scope,
    SystemClock,
};
use domicile_tests::postgres::Server;

/// Scopes of one tenant.
pub(crate) const TYPES: usize = 8;

pub(crate) fn region() -> Region {
    "eu-central-1".parse().unwrap()
}

pub(crate) fn period() -> Period {
    "2026-11".parse().unwrap()
}

/// The scope of this number: eight of each tenant, in the order in which a store keeps them.
pub(crate) fn scope(number: usize) -> Scope {
    let record_type = RecordType::WELL_KNOWN[number % TYPES].clone();
    Scope::new(&format!("tenant-{:06}", number / TYPES), record_type).unwrap()
}

pub(crate) fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

pub(crate) fn open() -> Action {
    Action::Open(Purpose::Billing.into())
}

/// One region, and everything of it that is not in a process's memory.
pub(crate) struct Ground {
    /// As tables and results name it.
    pub(crate) name: &'static str,
    pub(crate) kms: FakeKms,
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) homes: Arc<dyn HomeRegistry>,
    clock: Arc<dyn Clock>,
}

impl Ground {
    fn of<S: KeyStore + HomeRegistry + 'static>(name: &'static str, store: S, clock: Arc<dyn Clock>) -> Self {
        let store = Arc::new(store);
        // Seeded: a child process has the same root key.
        let kms = FakeKms::with_randomness(region(), Arc::new(SeededRandom::new(21))).unwrap();
        Self { name, kms, keys: store.clone(), homes: store, clock }
    }

    pub(crate) fn memory(clock: Arc<dyn Clock>) -> Self {
        Self::of("memory", MemoryStore::new(), clock)
    }

    pub(crate) async fn new_sqlite(path: &Path) -> Self {
        Self::of("sqlite", SqliteStore::create(path).await.unwrap(), Arc::new(SystemClock))
    }

    pub(crate) async fn sqlite(path: &Path) -> Self {
        Self::of("sqlite", SqliteStore::open(path).await.unwrap(), Arc::new(SystemClock))
    }

    pub(crate) async fn postgresql(server: &Server) -> Self {
        let store = PostgresStore::open(&server.store("keys").await).await.unwrap();
        Self::of("postgresql", store, Arc::new(SystemClock))
    }

    /// A process that starts now: nothing is in its memory.
    pub(crate) async fn process(&self) -> Domicile {
        let known = KnownRegion {
            place: Place { region: region(), jurisdiction: "EU".parse().unwrap() },
            verifying_key: self.kms.describe().await.unwrap().verifying_key,
            kms: Some(Arc::new(self.kms.clone())),
            store: self.keys.clone(),
        };
        let builder = Domicile::builder(region(), self.homes.clone()).region(known);
        builder.clock(self.clock.clone()).actor("bench").build().unwrap()
    }

    /// The homes of this many scopes, chosen as an operator does: for each tenant, in one go.
    pub(crate) async fn choose_homes(&self, domicile: &Domicile, scopes: usize) {
        let choice = |number: usize| HomeChoice {
            tenant: scope(number * TYPES).tenant,
            types: Types::All,
            region: region(),
        };
        let choices: Vec<_> = (0..scopes.div_ceil(TYPES)).map(choice).collect();
        domicile.choose_homes(&choices).await.unwrap();
    }

    /// Calls of the key service so far: generate, wrap, unwrap, sign.
    pub(crate) fn calls(&self) -> Calls {
        Calls(
            [Operation::Generate, Operation::Wrap, Operation::Unwrap, Operation::Sign]
                .map(|operation| self.kms.calls(operation)),
        )
    }
}

/// How often a key service was asked, by what it was asked: [`NAMES`](Self::NAMES).
#[derive(Clone, Copy)]
pub(crate) struct Calls(pub(crate) [usize; 4]);

impl Calls {
    pub(crate) const NAMES: [&'static str; 4] = ["generate", "wrap", "unwrap", "sign"];

    pub(crate) fn since(self, before: Calls) -> Self {
        let mut calls = self.0;
        calls.iter_mut().zip(before.0).for_each(|(calls, before)| *calls -= before);
        Self(calls)
    }

    pub(crate) fn all(self) -> usize {
        self.0.iter().sum()
    }
}

/// The guard's word for each of these scopes.
pub(crate) async fn permits(
    domicile: &Domicile,
    numbers: impl Iterator<Item = usize>,
    action: &Action,
) -> Vec<Permit> {
    let mut permits = Vec::new();
    for number in numbers {
        permits.push(domicile.permit(&scope(number), action.clone()).await.unwrap());
    }
    permits
}
