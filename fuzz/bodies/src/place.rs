//! A place in memory: one region, its keys from a seed, a clock that stands still.

use std::sync::Arc;

use domicile::danger::{SeededRandom, local_kms};
use domicile::engine::Engine;
use domicile::kms::Kms;
use domicile::store::MemoryStore;
use domicile::{Domicile, FixedClock, KnownRegion, Region, Scope, Time};
use tokio::runtime::Runtime;

/// Where the place is, and where everybody in it is at home.
pub(crate) const REGION: &str = "eu-central-1";

/// The present instant, for ever: 2026-11-24T08:30:00Z.
pub(crate) const NOW: i64 = 1_795_509_000_000_000;

/// The scopes that are at home in the place.
pub(crate) const SCOPES: [(&str, &str); 3] = [("acme", "voice"), ("globex", "voice"), ("acme", "messaging")];

/// Two doors to the same keys, each forced to one engine.
pub(crate) struct Place {
    pub(crate) domicile: Domicile,
    pub(crate) second: Domicile,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Place {
    /// The same keys each time, as long as they are asked for in the same order.
    pub(crate) fn new(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let randomness = Arc::new(SeededRandom::new(seed));
        let kms = local_kms(region(), path("root"), path("signing"), randomness.clone()).unwrap();
        let store = Arc::new(MemoryStore::forgetting_events());
        let homes = Arc::new(MemoryStore::new());
        let known = KnownRegion {
            place: domicile::Place { region: region(), jurisdiction: "EU".parse().unwrap() },
            verifying_key: runtime.block_on(kms.describe()).unwrap().verifying_key,
            kms: Some(Arc::new(kms)),
            store,
        };
        // A region that is known here and whose keys are not: records of a home that may not be processed.
        let elsewhere = KnownRegion {
            place: domicile::Place {
                region: "us-east-1".parse().unwrap(),
                jurisdiction: "US".parse().unwrap(),
            },
            kms: None,
            ..known.clone()
        };
        let door = |engine| {
            Domicile::builder(region(), homes.clone())
                .region(known.clone())
                .region(elsewhere.clone())
                .engine(engine)
                .clock(Arc::new(FixedClock(Time::from_micros(NOW).unwrap())))
                .randomness(randomness.clone())
                .actor("fuzz")
                .build()
                .unwrap()
        };
        let (domicile, second) = (door(Engine::RustCrypto), door(Engine::Ring));
        runtime.block_on(async {
            for scope in scopes() {
                domicile.choose_home(&scope, REGION).await.unwrap();
            }
            let elsewhere = Scope::new("initech", "voice".parse().unwrap()).unwrap();
            domicile.choose_home(&elsewhere, "us-east-1").await.unwrap();
        });
        Self { domicile, second, runtime, _directory: directory }
    }

    /// Waits for what never waits: everything is in memory.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

pub(crate) fn region() -> Region {
    REGION.parse().unwrap()
}

pub(crate) fn scopes() -> [Scope; 3] {
    SCOPES.map(|(tenant, record_type)| Scope::new(tenant, record_type.parse().unwrap()).unwrap())
}
