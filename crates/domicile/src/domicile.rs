//! The door: what a program opens first, and asks for homes, permits and keys.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::audit::{AuditChain, Event, EventKind};
use crate::checkpoint::{self, CheckpointReport};
use crate::choosing::{ChoiceReport, Homes};
use crate::config::{Config, KmsConfig, Url};
use crate::engine::{Engine, Engines, Suite};
use crate::error::{Code, Error, Result};
use crate::export::Export;
use crate::guard::{Action, Guard, Permit};
use crate::home::{ChosenHome, Home, HomeChoice, HomeState, Types};
use crate::keyring::{Ages, ErasureReport, Follower, Keyring, RegionParts, ReplayReport};
use crate::kms::{Custody, Holder};
use crate::known_regions::{KnownRegion, KnownRegions};
use crate::ledger::{Ledger, Statement};
use crate::period::{Period, PeriodUnit};
use crate::posts::Posts;
use crate::processing::{Processing, Ruling, Where};
use crate::random::{OsRandom, Randomness};
use crate::region::{Place, Region};
use crate::retention::Retention;
use crate::scope::{RecordType, Scope, TenantId};
use crate::store::{self, HomeRegistry, SignedChoices};
use crate::time::{Clock, SystemClock, Time};
use crate::witness::Witness;

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
    witness: Option<Arc<Witness>>,
    keyring: Keyring,
    audit: Arc<AuditChain>,
    periods: BTreeMap<RecordType, PeriodUnit>,
    retention: Retention,
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
    custody: BTreeMap<(Region, Option<TenantId>), Custody>,
    retention: Retention,
    processing: Processing,
    backups_kept: Option<jiff::Span>,
    ages: Ages,
    witness: Option<std::path::PathBuf>,
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

    /// Says who holds the branch keys of a region, where it is not its key service alone; or those of one tenant there,
    /// which has custody of its own.
    #[must_use]
    pub fn custody(mut self, region: Region, tenant: Option<TenantId>, custody: Custody) -> Self {
        self.custody.insert((region, tenant), custody);
        self
    }

    /// Says how long records are kept; otherwise for ever.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Says where records may be processed, by the jurisdiction of their home; otherwise there alone.
    #[must_use]
    pub fn processing(mut self, processing: Processing) -> Self {
        self.processing = processing;
        self
    }

    /// Says how long backups of the key stores are kept: an erasure is final when the last of them is gone.
    #[must_use]
    pub fn backups_kept(mut self, kept: jiff::Span) -> Self {
        self.backups_kept = Some(kept);
        self
    }

    /// Changes how long keys are used without asking again.
    #[must_use]
    pub fn ages(mut self, ages: Ages) -> Self {
        self.ages = ages;
        self
    }

    /// Remembers in this file what was seen of the key stores, so that one that is put back in time is known by it.
    #[must_use]
    pub fn witness(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.witness = Some(path.into());
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
        let witness = self.witness.map(|path| Arc::new(Witness::new(path)));
        let parts = |known: &KnownRegion| {
            let kms = known.kms.clone()?;
            let region = &known.place.region;
            let own = self.custody.iter().filter(|((of, _), _)| of == region);
            let custodies = own.filter_map(|((_, tenant), custody)| Some((tenant.clone()?, custody.clone())));
            let ledger = Ledger {
                region: region.clone(),
                verifying_key: known.verifying_key,
                kms: Some(kms.clone()),
                store: known.store.clone(),
                clock: self.clock.clone(),
            };
            Some(RegionParts {
                place: known.place.clone(),
                custodies: custodies.collect(),
                custody: self
                    .custody
                    .get(&(region.clone(), None))
                    .cloned()
                    .unwrap_or_else(|| Custody::one(kms)),
                ledger,
                follower: Arc::new(Follower::new(witness.clone())),
            })
        };
        let keys = self.regions.all().filter_map(parts).collect();
        Ok(Domicile {
            inner: Arc::new(Inner {
                guard: Guard::new(here.place.clone(), self.processing),
                witness,
                keyring: Keyring::new(
                    keys,
                    self.ages,
                    self.backups_kept,
                    &self.clock,
                    &audit,
                    &self.randomness,
                ),
                homes: Homes {
                    registry: self.homes,
                    regions: self.regions.clone(),
                    here: self.here,
                    audit: audit.clone(),
                    clock: self.clock.clone(),
                },
                audit,
                periods: self.periods,
                retention: self.retention,
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
    pub async fn from_config(config: &Config) -> Result<Self> {
        let mut stores: HashMap<Url, store::Opened> = HashMap::new();
        for url in config.regions().values().map(|region| &region.store).chain([config.homes()]) {
            if !stores.contains_key(url) {
                stores.insert(url.clone(), store::open(url).await?);
            }
        }
        let store = |url: &Url| {
            stores
                .get(url)
                .cloned()
                .ok_or_else(|| Error::new(Code::ConfigInvalid, "a store that was not opened"))
        };
        let mut builder = Self::builder(config.here().region.clone(), store(config.homes())?.homes);
        for region in config.regions().values() {
            let name = &region.place.region;
            let open = |kms: &KmsConfig| {
                kms.open(name).map_err(|error| error.at(config.path().display().to_string()))
            };
            let kms = region.kms.as_ref().map(open).transpose()?;
            let custodies = region.tenants.iter().map(|(tenant, custody)| (Some(tenant.clone()), custody));
            for (tenant, custody) in region.custody.iter().map(|custody| (None, custody)).chain(custodies) {
                let holder = |(holder, kms): (&String, &KmsConfig)| {
                    Ok(Holder { name: holder.clone(), kms: open(kms)? })
                };
                let holders = custody.holders.iter().map(holder).collect::<Result<_>>()?;
                let of = Custody::of(custody.agreement, holders)
                    .map_err(|error| error.at(format!("regions.{name}")))?;
                let of = if custody.opens_only { of.opening_only() } else { of };
                builder = builder.custody(name.clone(), tenant, of);
            }
            builder = builder.region(KnownRegion {
                place: region.place.clone(),
                verifying_key: region.signing_key,
                kms,
                store: store(&region.store)?.keys,
            });
        }
        builder = builder.retention(config.retention().clone()).processing(config.processing().clone());
        builder = builder.witness(config.witness());
        if let Some(kept) = config.backups_kept() {
            builder = builder.backups_kept(kept);
        }
        for (record_type, unit) in config.periods() {
            builder = builder.period(record_type.clone(), *unit);
        }
        if let Some(engine) = config.engine() {
            builder = builder.engine(engine);
        }
        builder.build()
    }

    /// Closes the stores: what is asked of them later fails. A process that ends without it leaves files beside
    /// an SQLite store, which the next one takes up.
    pub async fn close(&self) {
        self.inner.audit.kept().await;
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
            custody: BTreeMap::new(),
            retention: Retention::default(),
            processing: Processing::default(),
            backups_kept: None,
            ages: Ages::default(),
            witness: None,
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
        let at = |error: Error| error.at(format!("scope {scope}"));
        let rule = self.rule_of(home.place(), scope).await.map_err(at)?;
        let guard = &self.inner.guard;
        guard.check_scope(home.place(), rule.as_ref()).map_err(at)?;
        let home = self.inner.homes.settle(home, &chosen).await?;
        guard.permit(&home, rule.as_ref(), action.clone())
    }

    /// What a home says of where records of a scope may be processed. Where it cannot be asked, what is refused without
    /// its word is refused.
    async fn rule_of(&self, home: &Place, scope: &Scope) -> Result<Option<Ruling>> {
        match self.inner.keyring.orders_of(&home.region).await {
            Ok(orders) => Ok(orders.and_then(|orders| Some(orders.places_of(scope)?.ruling(&home.region)))),
            Err(error) => Err(self.inner.guard.check_place(home).err().unwrap_or(error)),
        }
    }

    /// Whether records of a scope that is at home in `home` may be processed here: as that home says of the scope, or else
    /// by the rule of its jurisdiction. No key service is asked.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) with home, this place and the rule; those of the home's store, where this host
    /// has its keys.
    pub async fn check_processing(&self, home: &Place, scope: &Scope) -> Result<()> {
        let rule = self.rule_of(home, scope).await?;
        self.inner.guard.check_scope(home, rule.as_ref())
    }

    /// Where records of a scope that is at home in `home` may be processed: as that home says of the scope, or else by the
    /// rule of its jurisdiction. It is what whoever sends such records must know of the other end.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) where the home cannot be asked and this host is not permitted without its word;
    /// those of the home's store, where this host has its keys.
    pub async fn processing_places(&self, home: &Place, scope: &Scope) -> Result<Vec<Where>> {
        let rule = self.rule_of(home, scope).await?;
        Ok(rule.map_or_else(|| self.inner.guard.processing().of(home), |rule| rule.places))
    }

    /// Whether a region's own keys may be used here: where its records may be processed, or those of any of its scopes.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) with home, this place and the rule.
    pub async fn check_region_processing(&self, place: &Place) -> Result<()> {
        self.inner.guard.check_region(place, &self.rules_beyond(place).await)
    }

    /// What a region said of places, for a host whose place the configuration alone does not permit; nothing where its
    /// store does not answer, or must be made good first.
    async fn rules_beyond(&self, place: &Place) -> Vec<Ruling> {
        if self.inner.guard.check_place(place).is_ok() {
            return Vec::new();
        }
        match self.inner.keyring.orders_of(&place.region).await {
            Ok(orders) => {
                let orders = orders.unwrap_or_default();
                orders.places().map(|rule| rule.ruling(&place.region)).collect()
            }
            Err(error) => {
                tracing::warn!(cause = %error, region = %place.region, "where its records may be processed cannot be asked");
                Vec::new()
            }
        }
    }

    /// The guard's word for one use of a region's own keys here. Refusals are recorded.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) when records of this region may not be processed here;
    /// [`PurposeReference`](Code::PurposeReference) when the purpose needs a reference.
    pub async fn permit_region(&self, region: &Region, action: Action) -> Result<Permit> {
        let place = &self.region(region)?.place;
        let rules = self.rules_beyond(place).await;
        match self.inner.guard.permit_region(place, &rules, action.clone()) {
            Ok(permit) => Ok(permit),
            Err(error) => Err(self.refuse(error, &Scope::of_region(), &action).await),
        }
    }

    /// The posts of a region, as their home sees them: who may seal for it, and what it adopts. Refusals are recorded.
    ///
    /// # Errors
    /// As [`permit_region`](Self::permit_region): the home of posts is where their records may be processed.
    pub async fn posts(&self, region: &Region) -> Result<Posts<'_>> {
        let _allowed = self.permit_region(region, Action::Seal).await?;
        let known = self.region(region)?;
        let inner = &*self.inner;
        Ok(Posts {
            place: known.place.clone(),
            guard: &inner.guard,
            keyring: &inner.keyring,
            audit: &inner.audit,
            clock: &*inner.clock,
            periods: &inner.periods,
            ledger: self.ledger(known),
            view: tokio::sync::Mutex::default(),
        })
    }

    /// Destroys the keys that posts sealed to on days whose bundles are all past their destroy-after: what was not adopted
    /// until then opens with nothing.
    ///
    /// # Errors
    /// As [`permit_region`](Self::permit_region); those of the key service, the store and the audit chain.
    pub async fn destroy_post_keys(&self, region: &Region, action: Action) -> Result<ErasureReport> {
        let permit = self.permit_region(region, action).await?;
        let days = self.posts(region).await?.days_due().await?;
        self.inner.keyring.destroy_posts(permit, &days).await
    }

    /// Learns what changed, for all data keys that this process has in use: what was rotated, erased, destroyed, held or
    /// shredded anywhere, and whether key services still consent. Call it every few seconds while segments are open; it
    /// asks a store when what is known of it is older than the poll's age, and otherwise costs nothing.
    ///
    /// # Errors
    /// As [`Keyring::keep_up`]: what is in use knows by itself what it may not do any longer.
    pub async fn keep_up(&self) -> Result<()> {
        self.inner.keyring.keep_up().await
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

    /// How long records are kept.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.inner.retention
    }

    /// Takes out of a region's store what it can prove: to keep where whoever may write to the store cannot.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn export(&self, region: &Region) -> Result<Export> {
        const PAGE: u32 = 1_000;
        let known = self.region(region)?;
        let mut export = Export::new(region.clone(), self.now());
        loop {
            let after = export.ledger.last().map_or(0, |last| last.number);
            let page = known.store.ledger(region, &[], after, PAGE).await?;
            if page.is_empty() {
                break;
            }
            export.ledger.extend(page);
        }
        let chains = known.store.chains().await?;
        export.chains =
            chains.into_iter().filter(|(beginning, _)| beginning.place.region == *region).collect();
        let homes = self.inner.homes.registry.homes(None).await?;
        export.homes = homes.into_iter().filter(|home| home.choice.region == *region).collect();
        Ok(export)
    }

    /// Says in a region's ledger how far the audit chains in its store have come: whatever is cut from them later shows
    /// against it. `with_keys` also looks at every key row, so that one that is changed without a trace shows. Say one on
    /// a clock, and export it to where those who may write to the store cannot: later events are exposed until then.
    ///
    /// # Errors
    /// Those of [`permit_region`](Self::permit_region); [`LedgerUnverified`](Code::LedgerUnverified) when a chain was cut
    /// since the last one; those of the key service, the store and the audit chain.
    pub async fn checkpoint(
        &self,
        region: &Region,
        action: Action,
        with_keys: bool,
    ) -> Result<CheckpointReport> {
        let permit = self.permit_region(region, action).await?;
        let event = Event::new(EventKind::Checkpoint).action(permit.action()).region(region);
        self.inner.audit.record(&[event]).await?;
        checkpoint::say(&self.ledger(self.region(region)?), with_keys).await
    }

    /// Whether the keys of a region are what its newest checkpoint that looked at them says, and when the newest one was
    /// said. Nothing can be said of the keys where something was changed or made since then.
    ///
    /// # Errors
    /// Those of the store; [`LedgerUnverified`](Code::LedgerUnverified) when a key row was changed and nothing says so.
    pub async fn check_checkpoint(&self, region: &Region, statements: &[Statement]) -> Result<Option<Time>> {
        let Some((said, keys)) = checkpoint::newest(statements)? else { return Ok(None) };
        let store = &*self.region(region)?.store;
        let same = match &keys {
            Some(keys) => checkpoint::check_keys(store, region, keys).await?,
            None => None,
        };
        if same == Some(false) {
            return Err(Error::new(
                Code::LedgerUnverified,
                format!("a key of {region} was changed, and nothing says so"),
            )
            .rule("whoever writes a key leaves a change that others follow")
            .advise(
                "rows were written behind Domicile's back: find out by whom, and compare with a backup",
            ));
        }
        Ok(Some(said))
    }

    /// Remembers that an export was written: [`doctor`](crate::doctor) says what no export holds.
    ///
    /// # Errors
    /// [`StoreUnavailable`](Code::StoreUnavailable) when this host cannot remember it.
    pub fn note_exported(&self, export: &Export) -> Result<()> {
        let newest = export.ledger.last().map_or(0, |last| last.number);
        match &self.inner.witness {
            Some(witness) => witness.note_exported(&export.region, newest),
            None => Ok(()),
        }
    }

    /// The newest entry of a region's ledger that was exported from this host; none where this host remembers nothing.
    ///
    /// # Errors
    /// [`StoreUnavailable`](Code::StoreUnavailable) when what it remembers cannot be read.
    pub fn exported(&self, region: &Region) -> Result<Option<u64>> {
        self.inner.witness.as_ref().map(|witness| witness.exported(region)).transpose()
    }

    fn ledger(&self, known: &KnownRegion) -> Ledger {
        Ledger {
            region: known.place.region.clone(),
            verifying_key: known.verifying_key,
            kms: known.kms.clone(),
            store: known.store.clone(),
            clock: self.inner.clock.clone(),
        }
    }

    /// Makes a restored store good with an export: the homes that were chosen since, and then everything that was
    /// erased, destroyed and ordered. Until then nothing of the region opens and no key is made.
    ///
    /// # Errors
    /// Those of [`permit_region`](Self::permit_region); [`LedgerUnverified`](Code::LedgerUnverified) for an export that
    /// is not what the region signed; [`KeyRolledBack`](Code::KeyRolledBack) for one that is older than what this host saw;
    /// [`HomeChosen`](Code::HomeChosen) when the registry says another home than the export: that is a proof of a
    /// violation.
    pub async fn replay(&self, export: &Export, action: Action) -> Result<ReplayReport> {
        let permit = self.permit_region(&export.region, action).await?;
        let exported = export.verify(&self.region(&export.region)?.verifying_key)?;
        let mut homes = 0;
        for home in &export.homes {
            let choices = vec![home.choice.clone()];
            let Some(statement) = home.statement.clone() else { continue };
            let stands = self.inner.homes.registry.standing(&choices).await?.into_iter().next().flatten();
            let list = SignedChoices { choices, statement, own: home.own };
            self.inner.homes.restore(list, home).await?;
            homes += usize::from(stands.is_none_or(|stands| stands.choice != home.choice));
        }
        let mut report = self.inner.keyring.replay(permit, export, &exported).await?;
        report.homes = homes;
        Ok(report)
    }

    /// The present instant, by this process's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.clock.now()
    }

    /// This process's clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// Where keys, salts and nonces come from.
    #[must_use]
    pub fn randomness(&self) -> &Arc<dyn Randomness> {
        &self.inner.randomness
    }

    /// Records a refusal, and gives its reason back. It stands whether or not it could be recorded; if not, it says so.
    pub async fn refuse(&self, error: Error, scope: &Scope, action: &Action) -> Error {
        crate::observe::refused(error.code());
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
