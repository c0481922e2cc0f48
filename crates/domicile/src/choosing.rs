//! Choosing homes, and looking them up: the registry's rows, held against what regions signed.
//!
//! A row that nobody signed is no home. Whoever can write to the registry can therefore take a home away, which is
//! noticed, and cannot make or move one: a choice for all types names those that it does not speak for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::audit::{AuditChain, Event, EventKind};
use crate::error::{Code, Error, Result};
use crate::home::{
    ChosenHome, Home, HomeChoice, HomeState, HomeStatement, SignedStatement, StatedChoice, Types, forged,
};
use crate::kms::VerifyingKey;
use crate::known_regions::KnownRegions;
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::store::{Chosen, HomeRegistry, SignedChoices};
use crate::time::Clock;

/// What came of choosing homes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceReport {
    /// Choices that were made now; the others stood already.
    pub made: Vec<HomeChoice>,
    /// Choices that exclude any other but that their region has not signed yet, because its key is not
    /// at hand here.
    pub pending: Vec<HomeChoice>,
}

/// The homes of all scopes, as one process sees them.
#[derive(Debug)]
pub(crate) struct Homes {
    pub(crate) registry: Arc<dyn HomeRegistry>,
    pub(crate) regions: KnownRegions,
    /// Signs what the homes' own keys cannot.
    pub(crate) here: Region,
    pub(crate) audit: Arc<AuditChain>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Homes {
    /// Makes all choices, or none. What is chosen is signed, then recorded, then written: no row is ever without
    /// either, whatever fails between.
    pub(crate) async fn choose(&self, choices: &[HomeChoice]) -> Result<ChoiceReport> {
        for choice in choices {
            self.regions.get(&choice.region)?;
            if choice.tenant.is_reserved() {
                let what = format!("the tenant {} is reserved", choice.tenant);
                return Err(Error::new(Code::NameReserved, what));
            }
        }
        let standing = self.registry.standing(choices).await?;
        let (mut fresh, mut contradicted, mut pending) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut list, mut except) = (List::default(), Exceptions::new());
        for (choice, standing) in choices.iter().zip(standing) {
            let state = standing.as_ref().map(|chosen| self.verify_for(chosen, &choice.types)).transpose()?;
            let region = match &standing {
                Some(chosen) => Some(&chosen.choice.region),
                None => list.region(choice),
            };
            match region {
                Some(region) if *region != choice.region => {
                    contradicted.push((choice.clone(), region.clone()));
                }
                Some(_) if state == Some(HomeState::Pending) => {
                    except.extend(standing.as_ref().and_then(exceptions));
                    pending.extend(standing.map(|chosen| chosen.choice));
                }
                Some(_) => {}
                None => {
                    list.add(choice);
                    fresh.push(choice.clone());
                }
            }
        }
        if !contradicted.is_empty() {
            return Err(self.refuse(&contradicted).await?);
        }

        except.extend(self.elsewhere(&fresh).await?);
        let signed = self.sign_all(&fresh, &except).await?;
        self.record(EventKind::Choose, &fresh).await?;
        if let Chosen::Contradicted(contradicted) = self.registry.choose(&signed, self.clock.now()).await? {
            // Another process was faster.
            return Err(self.refuse(&contradicted).await?);
        }
        let asked = signed.into_iter().filter(|signed| !signed.own).flat_map(|signed| signed.choices);
        let mut report = ChoiceReport { pending: asked.collect(), made: fresh };
        report.pending.extend(self.sign_pending(pending, &except).await?);
        Ok(report)
    }

    /// The home of a scope, verified; nothing is signed and nothing written.
    pub(crate) async fn look_up(&self, scope: &Scope) -> Result<(Home, ChosenHome)> {
        let choice = HomeChoice {
            tenant: scope.tenant.clone(),
            types: Types::One(scope.record_type.clone()),
            // Not looked at: what stands is asked for.
            region: self.here.clone(),
        };
        let standing = self.registry.standing(std::slice::from_ref(&choice)).await?;
        let Some(chosen) = standing.into_iter().next().flatten() else {
            return Err(Error::new(Code::HomeNone, format!("{scope} has not chosen a home"))
                .rule("records are sealed and opened for a scope that has chosen its home, never for a guessed one")
                .advise(format!(
                    "domicile home choose {} {} --region NAME",
                    scope.tenant, scope.record_type
                )));
        };
        let state = self.verify_for(&chosen, &choice.types)?;
        let place = self.regions.get(&chosen.choice.region)?.place.clone();
        Ok((Home { scope: scope.clone(), place, state }, chosen))
    }

    /// Signs a pending home, if the home's key is at hand. The caller has asked the guard.
    pub(crate) async fn settle(&self, home: Home, chosen: &ChosenHome) -> Result<Home> {
        if home.state == HomeState::Signed {
            return Ok(home);
        }
        let except = exceptions(chosen).into_iter().collect();
        let unsigned = self.sign_pending([chosen.choice.clone()], &except).await?;
        let state = if unsigned.is_empty() { HomeState::Signed } else { HomeState::Pending };
        Ok(Home { state, ..home })
    }

    /// All choices, of one tenant or of all, each with who signed it.
    pub(crate) async fn all(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(ChosenHome, Result<HomeState>)>> {
        let homes = self.registry.homes(tenant).await?;
        Ok(verify_all(homes, |region| self.pinned(region)))
    }

    fn verify_for(&self, chosen: &ChosenHome, types: &Types) -> Result<HomeState> {
        verify_for(chosen, types, |region| self.pinned(region))
    }

    fn verify(&self, chosen: &ChosenHome) -> Result<HomeState> {
        verify(chosen, |region| self.pinned(region))
    }

    fn pinned(&self, region: &Region) -> Result<(Place, VerifyingKey)> {
        let known = self.regions.get(region)?;
        Ok((known.place.clone(), known.verifying_key))
    }

    /// Has homes sign what other regions signed, where their keys are at hand; returns the others.
    async fn sign_pending(
        &self,
        choices: impl IntoIterator<Item = HomeChoice>,
        except: &Exceptions,
    ) -> Result<Vec<HomeChoice>> {
        let mut unsigned = Vec::new();
        for (region, choices) in lists(choices) {
            match self.sign_as(&region, &region, &choices, except).await? {
                Some(statement) => {
                    self.record(EventKind::SignHome, &choices).await?;
                    self.registry.add_statement(&SignedChoices { choices, statement, own: true }).await?;
                }
                None => unsigned.extend(choices),
            }
        }
        Ok(unsigned)
    }

    /// Signs new choices: by their homes where it can be, otherwise by the region of this host.
    async fn sign_all(&self, choices: &[HomeChoice], except: &Exceptions) -> Result<Vec<SignedChoices>> {
        let mut signed = Vec::new();
        for (region, choices) in lists(choices.iter().cloned()) {
            if let Some(statement) = self.sign_as(&region, &region, &choices, except).await? {
                signed.push(SignedChoices { choices, statement, own: true });
            } else if let Some(statement) = self.sign_as(&self.here, &region, &choices, except).await? {
                signed.push(SignedChoices { choices, statement, own: false });
            } else {
                let what = format!("the signing key of {} is not at hand", self.here);
                return Err(Error::new(Code::KmsUnavailable, what));
            }
        }
        Ok(signed)
    }

    /// A statement by `by` that these chose `home`, at most as many as a statement may hold; `None` where the
    /// key of `by` is not at hand.
    async fn sign_as(
        &self,
        by: &Region,
        home: &Region,
        choices: &[HomeChoice],
        except: &Exceptions,
    ) -> Result<Option<SignedStatement>> {
        let Some(kms) = &self.regions.get(by)?.kms else { return Ok(None) };
        let place = &self.regions.get(home)?.place;
        let statement = HomeStatement {
            place: place.clone(),
            by: by.clone(),
            signed: self.clock.now(),
            choices: choices.iter().map(|choice| stated(choice, except)).collect(),
        };
        let body = statement.encode().map_err(|source| {
            Error::new(Code::NameInvalid, "these homes cannot be signed").because(source)
        })?;
        let signature = match kms.sign(&body).await {
            Ok(signature) => signature,
            Err(error) if error.code() == Code::KmsUnavailable => return Ok(None),
            Err(error) => return Err(error),
        };
        let signed = SignedStatement { body, signature };
        // What was signed must verify under the keys that every host has pinned.
        for choice in choices {
            signed.verify(choice, place, |region| Some(self.regions.get(region).ok()?.verifying_key))?;
        }
        Ok(Some(signed))
    }

    /// Of new choices for all types, the types that their tenants have chosen other homes for: in the registry, and
    /// before in the same list.
    async fn elsewhere(&self, fresh: &[HomeChoice]) -> Result<Exceptions> {
        let mut elsewhere = Exceptions::new();
        let mut of_tenants: HashMap<&TenantId, Vec<&HomeChoice>> = HashMap::new();
        for choice in fresh {
            of_tenants.entry(&choice.tenant).or_default().push(choice);
        }
        for all in fresh.iter().filter(|choice| choice.types == Types::All) {
            let homes = self.registry.homes(Some(&all.tenant)).await?;
            let standing = homes.iter().map(|chosen| &chosen.choice);
            let types = standing.chain(of_tenants.get(&all.tenant).into_iter().flatten().copied());
            let left_out = types.filter(|choice| choice.region != all.region).filter_map(|choice| {
                let Types::One(record_type) = &choice.types else { return None };
                Some(record_type.clone())
            });
            elsewhere.insert(all.tenant.clone(), left_out.collect());
        }
        Ok(elsewhere)
    }

    /// Puts back a choice that the registry lost, with what was signed about it.
    pub(crate) async fn restore(&self, list: SignedChoices, home: &ChosenHome) -> Result<()> {
        self.verify(home)?;
        match self.registry.choose(std::slice::from_ref(&list), home.chosen).await? {
            Chosen::Made if list.own => self.registry.add_statement(&list).await,
            Chosen::Made => Ok(()),
            Chosen::Contradicted(contradicted) => Err(self.refuse(&contradicted).await?),
        }
    }

    async fn record(&self, kind: EventKind, choices: &[HomeChoice]) -> Result<()> {
        if choices.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = choices.iter().map(|choice| event(kind, choice)).collect();
        self.audit.record(&events).await
    }

    /// Records that choices were refused; returns why they were.
    async fn refuse(&self, contradicted: &[(HomeChoice, Region)]) -> Result<Error> {
        let refused =
            |(choice, _): &(HomeChoice, Region)| event(EventKind::Refuse, choice).outcome(Code::HomeChosen);
        let events: Vec<_> = contradicted.iter().map(refused).collect();
        self.audit.record(&events).await?;
        Ok(contradiction(contradicted))
    }
}

/// Verifies all homes of a registry (or of one tenant) against what is pinned of their regions.
pub(crate) fn verify_all(
    homes: Vec<ChosenHome>,
    pinned: impl Fn(&Region) -> Result<(Place, VerifyingKey)> + Copy,
) -> Vec<(ChosenHome, Result<HomeState>)> {
    let own: HashSet<_> =
        homes.iter().map(|home| (home.choice.tenant.clone(), home.choice.types.clone())).collect();
    let verified = |chosen: ChosenHome| {
        let missing = exceptions(&chosen).and_then(|(tenant, left_out)| {
            let mut types = left_out.into_iter().map(Types::One);
            types.find(|types| !own.contains(&(tenant.clone(), types.clone())))
        });
        let state = verify_for(&chosen, missing.as_ref().unwrap_or(&chosen.choice.types), pinned);
        (chosen, state)
    };
    homes.into_iter().map(verified).collect()
}

/// Verifies a standing choice, and that it speaks for these types: where it leaves them out, they had a home of
/// their own, whose row is gone.
fn verify_for(
    chosen: &ChosenHome,
    types: &Types,
    pinned: impl Fn(&Region) -> Result<(Place, VerifyingKey)>,
) -> Result<HomeState> {
    let state = verify(chosen, pinned)?;
    match types {
        Types::One(one) if exceptions(chosen).is_some_and(|(_, left_out)| left_out.contains(one)) => {
            Err(forged(&HomeChoice { types: types.clone(), ..chosen.choice.clone() }))
        }
        _ => Ok(state),
    }
}

fn verify(
    chosen: &ChosenHome,
    pinned: impl Fn(&Region) -> Result<(Place, VerifyingKey)>,
) -> Result<HomeState> {
    let (place, _) = pinned(&chosen.choice.region)?;
    let statement = chosen.statement.as_ref().ok_or_else(|| forged(&chosen.choice))?;
    let key_of = |region: &Region| Some(pinned(region).ok()?.1);
    let state = statement.verify(&chosen.choice, &place, key_of)?;
    // Kept as what it is not, it would be signed again at every use, and never be the home's own.
    let kept = if chosen.own { HomeState::Signed } else { HomeState::Pending };
    if state == kept { Ok(state) } else { Err(forged(&chosen.choice)) }
}

/// The types that the choices for all of tenants leave out.
type Exceptions = BTreeMap<TenantId, BTreeSet<RecordType>>;

/// What a standing choice for all leaves out, as it was signed.
fn exceptions(chosen: &ChosenHome) -> Option<(TenantId, BTreeSet<RecordType>)> {
    let statement = chosen.statement.as_ref().filter(|_| chosen.choice.types == Types::All)?;
    Some((chosen.choice.tenant.clone(), statement.exceptions(&chosen.choice).into_iter().collect()))
}

fn stated(choice: &HomeChoice, except: &Exceptions) -> StatedChoice {
    let except = except.get(&choice.tenant).filter(|_| choice.types == Types::All);
    StatedChoice {
        tenant: choice.tenant.clone(),
        types: choice.types.clone(),
        except: except.into_iter().flatten().cloned().collect(),
    }
}

/// Choices as they are signed: of one region together, no more than a statement may hold, and what is for one type
/// before what is for all others.
fn lists(choices: impl IntoIterator<Item = HomeChoice>) -> Vec<(Region, Vec<HomeChoice>)> {
    let mut by_region: BTreeMap<(bool, Region), Vec<HomeChoice>> = BTreeMap::new();
    for choice in choices {
        by_region.entry((choice.types == Types::All, choice.region.clone())).or_default().push(choice);
    }
    let chunks = |((_, region), choices): ((bool, Region), Vec<HomeChoice>)| {
        let chunks = choices.chunks(HomeStatement::CHOICES_MAX).map(<[HomeChoice]>::to_vec);
        chunks.map(|choices| (region.clone(), choices)).collect::<Vec<_>>()
    };
    by_region.into_iter().flat_map(chunks).collect()
}

fn event(kind: EventKind, choice: &HomeChoice) -> Event {
    Event::new(kind).region(&choice.region).tenant_and_types(choice.tenant.as_str(), choice.types.as_str())
}

fn contradiction(contradicted: &[(HomeChoice, Region)]) -> Error {
    const NAMED_MAX: usize = 20;
    let named: Vec<_> = contradicted
        .iter()
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

/// The choices of one list so far, so that it does not contradict itself.
#[derive(Default)]
struct List(HashMap<(TenantId, Types), Region>);

impl List {
    fn region(&self, choice: &HomeChoice) -> Option<&Region> {
        let of = |types: Types| self.0.get(&(choice.tenant.clone(), types));
        of(choice.types.clone()).or_else(|| of(Types::All).filter(|_| choice.types != Types::All))
    }

    fn add(&mut self, choice: &HomeChoice) {
        self.0.insert((choice.tenant.clone(), choice.types.clone()), choice.region.clone());
    }
}
