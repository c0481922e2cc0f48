//! The door: what a program opens first, and asks for homes, permits and keys.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::audit::{AuditChain, Event, EventKind};
use crate::choosing::{ChoiceReport, Homes};
use crate::config::{Config, Url};
use crate::engine::{Engine, Engines, Suite};
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Guard, Permit};
use crate::home::{ChosenHome, Home, HomeChoice, HomeState, Types};
use crate::keyring::{Keyring, RegionKeys};
use crate::known_regions::{KnownRegion, KnownRegions};
use crate::period::{Period, PeriodUnit};
use crate::random::{OsRandom, Randomness};
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::store::HomeRegistry;
use crate::time::{Clock, SystemClock, Time};

/// Regions, homes, keys and audit of one process that knows where it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Domicile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    guard: Guard,
    regions: KnownRegions,
    homes: Homes,
    keyring: Keyring,
    audit: Arc<AuditChain>,
    periods: BTreeMap<RecordType, PeriodUnit>,
    engine: Option<Engine>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
}

/// Puts a [`Domicile`] together from parts, where no configuration file does.
#[derive(Debug)]
pub struct Builder {
    here: Region,
    regions: KnownRegions,
    homes: Arc<dyn HomeRegistry>,
    periods: BTreeMap<RecordType, PeriodUnit>,
    engine: Option<Engine>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    actor: String,
}

impl Builder {
    /// Adds a region.
    #[must_use]
    pub fn region(mut self, region: KnownRegion) -> Self {
        self.regions.add(region);
        self
    }

    /// Sets the length of a record type's periods; a month otherwise.
    #[must_use]
    pub fn period(mut self, record_type: RecordType, unit: PeriodUnit) -> Self {
        self.periods.insert(record_type, unit);
        self
    }

    /// Forces one engine; otherwise the fastest is measured.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Brings another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Brings another randomness than the operating system's; see [`danger`](crate::danger).
    #[must_use]
    pub fn randomness(mut self, randomness: Arc<dyn Randomness>) -> Self {
        self.randomness = randomness;
        self
    }

    /// Says who runs the process; the user id otherwise. It is a claim, kept in the audit chain.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when `here` is not one of the regions;
    /// [`KmsUnavailable`](Code::KmsUnavailable) when this process has no key service of its own region.
    pub fn build(self) -> Result<Domicile> {
        let here = self.regions.get(&self.here).map_err(|error| error.at("here"))?;
        let kms = here.kms.clone().ok_or_else(|| {
            Error::new(
                Code::KmsUnavailable,
                format!("there is no key service for {}, where this host is", here.place),
            )
            .advise(format!("add `kms` to [regions.{}]: the audit chain begins under its key", self.here))
        })?;
        let audit = Arc::new(AuditChain::new(
            here.place.clone(),
            self.actor,
            here.store.clone(),
            kms,
            self.clock.clone(),
            self.randomness.clone(),
        ));
        let keys: HashMap<_, _> = self
            .regions
            .all()
            .filter_map(|known| {
                let kms = known.kms.clone()?;
                let keys = RegionKeys { place: known.place.clone(), kms, store: known.store.clone() };
                Some((known.place.region.clone(), keys))
            })
            .collect();
        Ok(Domicile {
            inner: Arc::new(Inner {
                guard: Guard::new(here.place.clone()),
                keyring: Keyring::new(keys, audit.clone(), self.randomness.clone()),
                homes: Homes {
                    registry: self.homes,
                    regions: self.regions.clone(),
                    here: self.here,
                    audit: audit.clone(),
                    clock: self.clock.clone(),
                },
                audit,
                periods: self.periods,
                engine: self.engine,
                clock: self.clock,
                randomness: self.randomness,
                regions: self.regions,
            }),
        })
    }
}

impl Domicile {
    /// Opens what a configuration file describes.
    ///
    /// # Errors
    /// Those of [`Config::read`], and of opening the stores.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_config(&Config::read(path.as_ref())?).await
    }

    /// Opens what a configuration describes.
    ///
    /// # Errors
    /// Those of opening the stores.
    #[cfg(feature = "sqlite")]
    pub async fn from_config(config: &Config) -> Result<Self> {
        use crate::store::SqliteStore;
        let mut stores: HashMap<Url, SqliteStore> = HashMap::new();
        for url in config.regions().values().map(|region| &region.store).chain([config.homes()]) {
            if !stores.contains_key(url) {
                let Url::Sqlite(path) = url;
                stores.insert(url.clone(), SqliteStore::open(path).await?);
            }
        }
        let store = |url: &Url| {
            stores
                .get(url)
                .cloned()
                .ok_or_else(|| Error::new(Code::ConfigInvalid, "a store that was not opened"))
        };
        let mut builder = Self::builder(config.here().region.clone(), Arc::new(store(config.homes())?));
        for region in config.regions().values() {
            let kms = region.kms.as_ref().map(|kms| kms.open(&region.place.region)).transpose();
            let kms = kms.map_err(|error| error.at(config.path().display().to_string()))?;
            builder = builder.region(KnownRegion {
                place: region.place.clone(),
                verifying_key: region.signing_key,
                kms,
                store: Arc::new(store(&region.store)?),
            });
        }
        for (record_type, unit) in config.periods() {
            builder = builder.period(record_type.clone(), *unit);
        }
        if let Some(engine) = config.engine() {
            builder = builder.engine(engine);
        }
        builder.build()
    }

    /// Opens what a configuration describes: this build has no store for it.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid), always.
    #[cfg(not(feature = "sqlite"))]
    #[expect(clippy::unused_async, reason = "the same signature as with a store")]
    pub async fn from_config(config: &Config) -> Result<Self> {
        let Url::Sqlite(path) = config.homes();
        Err(Error::new(Code::ConfigInvalid, "this build has no SQLite store")
            .at(path.display().to_string())
            .advise("build with the feature `sqlite`, or bring a store with Domicile::builder"))
    }

    /// Closes the stores: what is asked of them later fails. A process that ends without it leaves files beside
    /// an SQLite store, which the next one takes up.
    pub async fn close(&self) {
        for known in self.inner.regions.all() {
            known.store.close().await;
        }
        self.inner.homes.registry.close().await;
    }

    /// Puts a Domicile together from parts.
    #[must_use]
    pub fn builder(here: Region, homes: Arc<dyn HomeRegistry>) -> Builder {
        Builder {
            here,
            homes,
            regions: KnownRegions::default(),
            periods: BTreeMap::new(),
            engine: None,
            clock: Arc::new(SystemClock),
            randomness: Arc::new(OsRandom),
            actor: format!("uid:{}", rustix::process::getuid().as_raw()),
        }
    }

    /// Where this process is.
    #[must_use]
    pub fn here(&self) -> &Place {
        self.inner.guard.here()
    }

    /// The regions that this process knows.
    pub fn regions(&self) -> impl Iterator<Item = &KnownRegion> {
        self.inner.regions.all()
    }

    /// One region that this process knows.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when it is not configured.
    pub fn region(&self, region: &Region) -> Result<&KnownRegion> {
        self.inner.regions.get(region)
    }

    /// Chooses the home of a scope, once: choosing the same again changes nothing, another is refused.
    ///
    /// # Errors
    /// As [`choose_homes`](Self::choose_homes).
    pub async fn choose_home(&self, scope: &Scope, region: &str) -> Result<ChoiceReport> {
        let types = Types::One(scope.record_type.clone());
        self.choose_homes(&[HomeChoice { tenant: scope.tenant.clone(), types, region: region.parse()? }])
            .await
    }

    /// Chooses many homes at once: all of them, or none.
    ///
    /// Every choice is signed before it is written: by its home, or by this host's region where the home's key is
    /// not at hand. Then it is pending: it excludes any other at once, and its home signs it when it is chosen again
    /// or first used on a host that has that key.
    ///
    /// # Errors
    /// [`HomeChosen`](Code::HomeChosen) when any of them contradicts an earlier choice or another of the
    /// list; [`HomeForged`](Code::HomeForged) when what stands was signed by nobody;
    /// [`ConfigInvalid`](Code::ConfigInvalid) for a region that is not configured; those of the store, the key
    /// service and the audit chain.
    pub async fn choose_homes(&self, choices: &[HomeChoice]) -> Result<ChoiceReport> {
        self.inner.homes.choose(choices).await
    }

    /// The home of a scope, verified. Nothing is signed, written or recorded.
    ///
    /// # Errors
    /// [`HomeNone`](Code::HomeNone) when it has chosen none; [`HomeForged`](Code::HomeForged) when the registry
    /// was changed.
    pub async fn home(&self, scope: &Scope) -> Result<Home> {
        Ok(self.inner.homes.look_up(scope).await?.0)
    }

    /// All choices, of one tenant or of all, each with who signed it.
    ///
    /// # Errors
    /// Those of the store. A choice that does not verify is an entry, not an error.
    pub async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<(ChosenHome, Result<HomeState>)>> {
        self.inner.homes.all(tenant).await
    }

    /// The guard's word for one use of a scope's keys here. A pending home whose key is at hand signs first, once
    /// the guard has said that records of this home may be here. Refusals are recorded.
    ///
    /// # Errors
    /// Those of [`home`](Self::home) and of choosing; [`HomeRefused`](Code::HomeRefused) when records of this home
    /// may not be processed here; [`HomePending`](Code::HomePending) when the home has not signed, and cannot here;
    /// [`PurposeReference`](Code::PurposeReference) when the purpose needs a reference.
    pub async fn permit(&self, scope: &Scope, action: Action) -> Result<Permit> {
        match self.consider(scope, &action).await {
            Ok(permit) => Ok(permit),
            Err(error) => Err(self.refuse(error, scope, &action).await),
        }
    }

    /// As [`permit`](Self::permit), but refusals are not recorded: whoever considers many scopes at once records what
    /// was refused in one go, in [`audit`](Self::audit), before anything comes of it.
    ///
    /// # Errors
    /// As [`permit`](Self::permit).
    pub async fn consider(&self, scope: &Scope, action: &Action) -> Result<Permit> {
        let (home, chosen) = self.inner.homes.look_up(scope).await?;
        self.inner.guard.check_place(home.place()).map_err(|error| error.at(format!("scope {scope}")))?;
        let home = self.inner.homes.settle(home, &chosen).await?;
        self.inner.guard.permit(&home, action.clone())
    }

    /// The guard's word for one use of a region's own keys here. Refusals are recorded.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) when records of this region may not be processed here;
    /// [`PurposeReference`](Code::PurposeReference) when the purpose needs a reference.
    pub async fn permit_region(&self, region: &Region, action: Action) -> Result<Permit> {
        let place = &self.region(region)?.place;
        match self.inner.guard.permit_region(place, action.clone()) {
            Ok(permit) => Ok(permit),
            Err(error) => Err(self.refuse(error, &Scope::of_region(), &action).await),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    /// The guard.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    /// The audit chain of this process.
    #[must_use]
    pub fn audit(&self) -> &AuditChain {
        &self.inner.audit
    }

    /// The engines that seal and open: measured, or as configured.
    #[must_use]
    pub fn engines(&self, suite: Suite) -> Engines {
        self.inner.engine.map_or_else(|| Engines::measured(suite), Engines::forced)
    }

    /// The period of a record of this type at this time.
    ///
    /// # Errors
    /// [`InputTime`](Code::InputTime) for a time that no period's name can show.
    pub fn period(&self, record_type: &RecordType, time: Time) -> Result<Period> {
        Period::containing(time, self.period_unit(record_type))
    }

    /// How long the periods of a record type are.
    #[must_use]
    pub fn period_unit(&self, record_type: &RecordType) -> PeriodUnit {
        self.inner.periods.get(record_type).copied().unwrap_or_default()
    }

    /// The present instant, by this process's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.clock.now()
    }

    /// Where keys, salts and nonces come from.
    #[must_use]
    pub fn randomness(&self) -> &Arc<dyn Randomness> {
        &self.inner.randomness
    }

    /// Records a refusal, and gives its reason back. It stands whether or not it could be recorded; if not, it says so.
    pub async fn refuse(&self, error: Error, scope: &Scope, action: &Action) -> Error {
        let event = Event::new(EventKind::Refuse).action(action).scope(scope).outcome(error.code());
        match self.inner.audit.record(&[event]).await {
            Ok(()) => error,
            Err(unrecorded) => {
                tracing::error!(code = %error.code(), cause = %unrecorded, "a refusal could not be recorded");
                error.at("not recorded in the audit chain, which cannot be written")
            }
        }
    }
}
