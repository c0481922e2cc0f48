//! The door: what a program opens first, and asks for homes, permits and keys.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::audit::{AuditChain, Event, EventKind};
use crate::config::{Config, KmsConfig, Url};
use crate::engine::{Engine, Engines, Suite};
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Guard, Permit};
use crate::home::{ChosenHome, Home, HomeChoice, HomeStatement, SignedStatement, Types};
use crate::keyring::{Keyring, RegionKeys};
use crate::kms::{Kms, LocalKms, VerifyingKey};
use crate::period::{Period, PeriodUnit};
use crate::random::{OsRandom, Randomness};
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::store::{Chosen, HomeRegistry, KeyStore};
use crate::time::{Clock, SystemClock, Time};

/// Regions, homes, keys and audit of one process that knows where it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Domicile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    guard: Guard,
    regions: BTreeMap<Region, KnownRegion>,
    homes: Arc<dyn HomeRegistry>,
    keyring: Keyring,
    audit: Arc<AuditChain>,
    periods: BTreeMap<RecordType, PeriodUnit>,
    engine: Option<Engine>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
}

/// A region as this process knows it.
#[derive(Debug, Clone)]
pub struct KnownRegion {
    /// The region and its jurisdiction.
    pub place: Place,
    /// Verifies what the region signed.
    pub verifying_key: VerifyingKey,
    /// Its key service, where this process may use it.
    pub kms: Option<Arc<dyn Kms>>,
    /// Its key store.
    pub store: Arc<dyn KeyStore>,
}

/// What came of choosing homes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceReport {
    /// Choices that were made now; the others stood already.
    pub made: Vec<HomeChoice>,
    /// Choices that exclude any other but that their region has not signed yet, because its key is not
    /// at hand here.
    pub pending: Vec<HomeChoice>,
}

/// Puts a [`Domicile`] together from parts, where no configuration file does.
#[derive(Debug)]
pub struct Builder {
    here: Region,
    regions: BTreeMap<Region, KnownRegion>,
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
        self.regions.insert(region.place.region.clone(), region);
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
        let here = self.regions.get(&self.here).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, format!("here = \"{}\" is not one of the regions", self.here))
        })?;
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
            .values()
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
                homes: self.homes,
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
            let kms = region.kms.as_ref().map(|kms| match kms {
                KmsConfig::Local { root, signing } => {
                    let kms = LocalKms::new(region.place.region.clone(), root.clone(), signing.clone());
                    Arc::new(kms) as Arc<dyn Kms>
                }
            });
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
        let (KmsConfig::Local { .. }, Url::Sqlite(path)) =
            (KmsConfig::Local { root: "".into(), signing: "".into() }, config.homes());
        let _ = LocalKms::new;
        Err(Error::new(Code::ConfigInvalid, "this build has no SQLite store")
            .at(path.display().to_string())
            .advise("build with the feature `sqlite`, or bring a store with Domicile::builder"))
    }

    /// Closes the stores: what is asked of them later fails. A process that ends without it leaves files beside
    /// an SQLite store, which the next one takes up.
    pub async fn close(&self) {
        for known in self.inner.regions.values() {
            known.store.close().await;
        }
        self.inner.homes.close().await;
    }

    /// Puts a Domicile together from parts.
    #[must_use]
    pub fn builder(here: Region, homes: Arc<dyn HomeRegistry>) -> Builder {
        Builder {
            here,
            homes,
            regions: BTreeMap::new(),
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
        self.inner.regions.values()
    }

    /// One region that this process knows.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when it is not configured.
    pub fn region(&self, region: &Region) -> Result<&KnownRegion> {
        self.inner.regions.get(region).ok_or_else(|| {
            let known: Vec<_> = self.inner.regions.keys().map(Region::as_str).collect();
            Error::new(Code::ConfigInvalid, format!("the region {region} is not configured"))
                .rule(format!("configured are {}", known.join(", ")))
                .advise(format!("add [regions.{region}] to the configuration, with its jurisdiction"))
        })
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
    /// # Errors
    /// [`HomeChosen`](Code::HomeChosen) when any of them contradicts an earlier choice or another of the
    /// list; [`ConfigInvalid`](Code::ConfigInvalid) for a region that is not configured; those of the
    /// store, the key service and the audit chain. A choice that was written but not signed stands; it is
    /// signed by choosing it again, or before its first key.
    pub async fn choose_homes(&self, choices: &[HomeChoice]) -> Result<ChoiceReport> {
        for choice in choices {
            self.region(&choice.region)?;
            if choice.tenant.is_reserved() {
                return Err(Error::new(
                    Code::NameReserved,
                    format!("the tenant {} is reserved", choice.tenant),
                ));
            }
        }
        let made = match self.inner.homes.choose(choices, self.now()).await? {
            Chosen::Made(made) => made,
            Chosen::Contradicted(contradicted) => {
                self.record_refusals(choices, &contradicted).await?;
                return Err(contradiction(choices, &contradicted));
            }
        };
        let made: Vec<_> = made.into_iter().filter_map(|place| choices.get(place).cloned()).collect();
        let events: Vec<_> = made
            .iter()
            .map(|choice| {
                Event::new(EventKind::Choose)
                    .region(&choice.region)
                    .tenant_and_types(choice.tenant.as_str(), choice.types.as_str())
            })
            .collect();
        if !events.is_empty() {
            self.inner.audit.record(&events).await?;
        }
        let pending = self.sign_pending(choices).await?;
        Ok(ChoiceReport { made, pending })
    }

    /// The home of a scope, as its region signed it.
    ///
    /// # Errors
    /// [`HomeNone`](Code::HomeNone) when it has chosen none; [`HomePending`](Code::HomePending) while its
    /// region has not signed it; [`HomeForged`](Code::HomeForged) when the registry was changed.
    pub async fn home(&self, scope: &Scope) -> Result<Home> {
        let chosen = self.chosen_home(scope).await?;
        let place = self.region(&chosen.choice.region)?.place.clone();
        if chosen.statement.is_none()
            && !self.sign_pending(std::slice::from_ref(&chosen.choice)).await?.is_empty()
        {
            return Err(Error::new(
                Code::HomePending,
                format!("the home of {scope} is {place}, which has not signed the choice yet"),
            )
            .advise(format!("choose it again on a host in {}, whose key signs it", place.region)));
        }
        if let Some(statement) = &chosen.statement {
            self.verify_home(&chosen.choice, statement)?;
        }
        Ok(Home { scope: scope.clone(), place })
    }

    /// All choices, of one tenant or of all, each checked against its region's signature.
    ///
    /// # Errors
    /// Those of the store. A choice that does not verify is an entry, not an error.
    pub async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<(ChosenHome, Result<()>)>> {
        let homes = self.inner.homes.homes(tenant).await?;
        Ok(homes
            .into_iter()
            .map(|chosen| {
                let verified = chosen
                    .statement
                    .as_ref()
                    .map_or(Ok(()), |signed| self.verify_home(&chosen.choice, signed));
                (chosen, verified)
            })
            .collect())
    }

    /// The guard's word for one use of a scope's keys here. A home that is pending is signed first, if its
    /// region's key is at hand. Refusals are recorded.
    ///
    /// # Errors
    /// Those of [`home`](Self::home) and [`Guard::permit`].
    pub async fn permit(&self, scope: &Scope, action: Action) -> Result<Permit> {
        // The place is checked on the unsigned choice first, so that nothing is asked of a key service
        // on behalf of records that may not be processed here.
        let permit = async {
            let chosen = self.chosen_home(scope).await?;
            let place = &self.region(&chosen.choice.region)?.place;
            self.inner.guard.check_place(place).map_err(|error| error.at(format!("scope {scope}")))?;
            if chosen.statement.is_none() {
                self.sign_pending(std::slice::from_ref(&chosen.choice)).await?;
            }
            self.inner.guard.permit(&self.home(scope).await?, action.clone())
        };
        match permit.await {
            Ok(permit) => Ok(permit),
            Err(error) => Err(self.record_refusal(error, scope, &action).await),
        }
    }

    /// The guard's word for one use of a region's own keys here. Refusals are recorded.
    ///
    /// # Errors
    /// Those of [`Guard::permit_region`].
    pub async fn permit_region(&self, region: &Region, action: Action) -> Result<Permit> {
        let place = &self.region(region)?.place;
        match self.inner.guard.permit_region(place, action.clone()) {
            Ok(permit) => Ok(permit),
            Err(error) => Err(self.record_refusal(error, &Scope::of_region(), &action).await),
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

    async fn chosen_home(&self, scope: &Scope) -> Result<ChosenHome> {
        self.inner.homes.home(&scope.tenant, &scope.record_type).await?.ok_or_else(|| {
            Error::new(Code::HomeNone, format!("{scope} has not chosen a home"))
                .rule("records are sealed and opened for a scope that has chosen its home, never for a guessed one")
                .advise(format!("domicile home choose {} {} --region NAME", scope.tenant, scope.record_type))
        })
    }

    fn verify_home(&self, choice: &HomeChoice, statement: &SignedStatement) -> Result<()> {
        let region = self.region(&choice.region)?;
        statement.verify(choice, &region.place, &region.verifying_key)
    }

    /// Signs those of `choices` that are pending and whose region's key is at hand; returns the others.
    async fn sign_pending(&self, choices: &[HomeChoice]) -> Result<Vec<HomeChoice>> {
        let mut by_region: BTreeMap<&Region, Vec<&HomeChoice>> = BTreeMap::new();
        for choice in choices {
            by_region.entry(&choice.region).or_default().push(choice);
        }
        let mut unsigned = Vec::new();
        for (region, choices) in by_region {
            let pending = self.inner.homes.pending(region).await?;
            let pending: Vec<_> = pending.into_iter().filter(|choice| choices.contains(&choice)).collect();
            let known = self.region(region)?;
            let Some(kms) = &known.kms else {
                unsigned.extend(pending);
                continue;
            };
            for choices in pending.chunks(HomeStatement::CHOICES_MAX) {
                let statement = HomeStatement {
                    place: known.place.clone(),
                    signed: self.now(),
                    choices: choices
                        .iter()
                        .map(|choice| (choice.tenant.clone(), choice.types.clone()))
                        .collect(),
                };
                let body = statement.encode().map_err(|source| {
                    Error::new(Code::NameInvalid, "these homes cannot be signed").because(source)
                })?;
                match kms.sign(&body).await {
                    Ok(signature) => {
                        let signed = SignedStatement { body, signature };
                        // What was signed must verify under the key that every host has pinned.
                        for choice in choices {
                            self.verify_home(choice, &signed)?;
                        }
                        self.inner.homes.add_statement(region, choices, &signed).await?;
                    }
                    Err(error) if error.code() == Code::KmsUnavailable => unsigned.extend_from_slice(choices),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(unsigned)
    }

    async fn record_refusals(&self, choices: &[HomeChoice], contradicted: &[(usize, Region)]) -> Result<()> {
        let events: Vec<_> = contradicted
            .iter()
            .filter_map(|(place, _)| choices.get(*place))
            .map(|choice| {
                Event::new(EventKind::Refuse)
                    .region(&choice.region)
                    .tenant_and_types(choice.tenant.as_str(), choice.types.as_str())
                    .outcome(Code::HomeChosen)
            })
            .collect();
        self.inner.audit.record(&events).await
    }

    /// Records a refusal. It stands whether or not it could be recorded; if not, it says so.
    async fn record_refusal(&self, error: Error, scope: &Scope, action: &Action) -> Error {
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

fn contradiction(choices: &[HomeChoice], contradicted: &[(usize, Region)]) -> Error {
    const NAMED_MAX: usize = 20;
    let named: Vec<_> = contradicted
        .iter()
        .filter_map(|(place, stands)| Some((choices.get(*place)?, stands)))
        .take(NAMED_MAX)
        .map(|(choice, stands)| {
            format!("{}/{} has chosen {stands}, not {}", choice.tenant, choice.types, choice.region)
        })
        .collect();
    let more = contradicted.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Error::new(Code::HomeChosen, format!("{}{more}", named.join("; ")))
        .rule("a home is chosen once")
        .advise("keep the home that stands; nothing was written")
}
