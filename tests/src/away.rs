//! A region whose key service and store are out of reach when a test says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domicile::kms::{FakeKms, Kms, Operation};
use domicile::post::{Bundle, BundleTerms, Post, PostIdentity};
use domicile::random::OsRandom;
use domicile::store::{Fault, FaultyStore, KeyStore, MemoryStore};
use domicile::{Clock, Domicile, KnownRegion, ManualClock};

use crate::{place, region, scope};

/// Its name.
pub const REGION: &str = "eu-central-1";

/// A region whose key service, store and clock do what a test says.
#[derive(Debug)]
pub struct Region {
    /// Its key service.
    pub kms: FakeKms,
    /// What is in its store.
    pub memory: Arc<MemoryStore>,
    /// Its store.
    pub store: Arc<FaultyStore>,
    /// The registry.
    pub homes: Arc<MemoryStore>,
    /// Everybody's clock.
    pub clock: ManualClock,
}

impl Region {
    /// Sets it up, with homes there for `acme`, `globex`, `late` and `unenrolled`.
    pub async fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let here = Self {
            kms: FakeKms::new(region(REGION)).unwrap(),
            store: Arc::new(FaultyStore::new(memory.clone())),
            memory,
            homes: Arc::new(MemoryStore::new()),
            clock: ManualClock::new("2026-11-25T08:00:00Z".parse().unwrap()),
        };
        let process = here.process().await;
        for tenant in ["acme", "globex", "late", "unenrolled"] {
            process.choose_home(&scope(tenant), REGION).await.unwrap();
        }
        here
    }

    /// A process that starts now.
    pub async fn process(&self) -> Domicile {
        self.process_with(self.store.clone()).await
    }

    /// A process that starts now with a copy of the store: what it does, no other learns.
    pub async fn process_apart(&self) -> Domicile {
        let copy = MemoryStore::new();
        copy.restore(&self.memory.backup());
        self.process_with(Arc::new(copy)).await
    }

    async fn process_with(&self, store: Arc<dyn KeyStore>) -> Domicile {
        let known = KnownRegion {
            place: place(REGION, "EU"),
            verifying_key: self.kms.describe().await.unwrap().verifying_key,
            kms: Some(Arc::new(self.kms.clone())),
            store,
        };
        let builder = Domicile::builder(region(REGION), self.homes.clone()).region(known);
        builder.clock(Arc::new(self.clock.clone())).build().unwrap()
    }

    /// This host as a post of its own region, for `acme`, `globex` and `late`.
    pub async fn post(&self, home: &Domicile) -> Post {
        let scopes = ["acme/voice", "globex/voice", "late/all"];
        enrolled(home, "writer-1", &scopes, Arc::new(self.clock.clone())).await
    }

    /// Takes its key service out of reach, or brings it back.
    pub fn kms_away(&self, away: bool) {
        for operation in [Operation::Generate, Operation::Wrap, Operation::Unwrap, Operation::Sign] {
            if away { self.kms.take_away(operation) } else { self.kms.bring_back(operation) }
        }
    }

    /// The same, of its store.
    pub fn store_away(&self, away: bool) {
        self.store.fail_all(away.then_some(Fault::Away));
    }

    /// Lets time go by in steps, as a process lives through it.
    pub async fn pass(&self, process: &Domicile, time: Duration) {
        let step = Duration::from_secs(30);
        for _ in 0..time.as_secs() / step.as_secs() {
            self.clock.advance(step);
            // What fails, the keys in use know.
            let _ = process.keep_up().await;
        }
    }
}

/// A post of eu-central-1 that its home has enrolled for these scopes, and given a bundle.
pub async fn enrolled(home: &Domicile, name: &str, scopes: &[&str], clock: Arc<dyn Clock>) -> Post {
    let key = home.region(&region(REGION)).unwrap().verifying_key;
    let homes = BTreeMap::from([(region(REGION), key)]);
    let identity = PostIdentity::generate(name.parse().unwrap(), homes, &OsRandom).unwrap();
    let posts = home.posts(&region(REGION)).await.unwrap();
    let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    posts.enrol(identity.public(), scopes).await.unwrap();
    let (_, bundle) = posts.issue(&[], BundleTerms::default()).await.unwrap();
    let bundle = Bundle::read(&bundle, &identity).unwrap();
    Post::new(Arc::new(identity), bundle, clock, Arc::new(OsRandom)).unwrap()
}
