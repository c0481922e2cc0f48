//! The scopes of an input: where each is at home, asked once, and which lanes take its records now.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use domicile::audit::Event;
use domicile::post::Post;
use domicile::{Action, Code, Domicile, Error, Period, Place, RecordType, Region, Result, Scope, TenantId};

use super::segments::{Hand, LaneAt};
use super::{Elsewhere, IntakeOptions, Scoping, Skipped};
use crate::framing::Fields;
use crate::outage::{home_by_bundle, only_post};
use crate::refusals::Refusals;

#[derive(Debug, Default)]
pub(super) struct Scopes {
    slots: Vec<ScopeSlot>,
    /// Tenant and type as they stand in the records, with a separator that neither can hold.
    by_text: HashMap<String, usize>,
    text: String,
}

#[derive(Debug)]
pub(super) struct ScopeSlot {
    pub(super) index: usize,
    pub(super) standing: Standing,
    scope: Scope,
    /// The lane that took the last record, and the times that it takes.
    current: Option<(Range<i64>, LaneAt)>,
    /// The last lane of each period, by when the period begins.
    lanes: BTreeMap<i64, (Range<i64>, LaneAt)>,
    left_out: Option<(u64, u64)>,
}

/// Whether a scope's records may be sealed here.
#[derive(Debug)]
pub(super) enum Standing {
    /// In this region, by this hand.
    Here(Region, Hand),
    /// At home there, if anywhere, and why that is in the way.
    Elsewhere { home: Option<Place>, code: Code },
}

impl ScopeSlot {
    /// The open lane for a record of this time.
    #[inline]
    pub(super) fn lane_at(&mut self, micros: i64) -> Option<LaneAt> {
        if let Some((times, lane)) = &self.current
            && times.contains(&micros)
        {
            return Some(*lane);
        }
        let before = self.lanes.range(..=micros).next_back();
        self.current = before.map(|(_, lane)| lane).filter(|(times, _)| times.contains(&micros)).cloned();
        self.current.as_ref().map(|(_, lane)| *lane)
    }
}

impl Scopes {
    /// The slot of the scope that a record names, or of the one scope.
    pub(super) async fn slot(
        &mut self,
        domicile: Option<&Domicile>,
        options: &IntakeOptions,
        fields: Option<&Fields>,
        first_field: usize,
    ) -> Result<&mut ScopeSlot> {
        let index = match &options.scoping {
            Scoping::One(scope) if self.slots.is_empty() => {
                // One scope that may not be sealed here is an error, and not a count.
                let (region, hand) = match (domicile, options.posts.first()) {
                    (Some(domicile), _) => match domicile.permit(scope, Action::Seal).await {
                        Ok(permit) => (permit.home().region.clone(), Hand::Home),
                        Err(error) => {
                            (home_by_bundle(domicile, &options.posts, scope, error)?.region, Hand::Home)
                        }
                    },
                    (None, Some(post)) => match only_post(options.posts.iter(), scope) {
                        Some(post) => (post.place().region.clone(), Hand::Post),
                        None => {
                            post.check(scope)?;
                            return Err(several_homes(scope));
                        }
                    },
                    (None, None) => return Err(Error::new(Code::InputScope, "there is nobody to seal for")),
                };
                self.add(scope.clone(), Standing::Here(region, hand))
            }
            Scoping::One(_) => 0,
            Scoping::ByField { tenant, record_type } => {
                let value = |index: usize, name: &str| {
                    fields.and_then(|fields| fields.get(index)).ok_or_else(|| {
                        Error::new(Code::InputScope, format!("the record has no value in {name}"))
                            .rule("a record's scope is what its fields say, and never guessed")
                    })
                };
                let tenant_text = value(first_field, tenant)?;
                let type_text = value(first_field + 1, record_type)?;
                self.text.clear();
                self.text.push_str(tenant_text);
                self.text.push('\0');
                self.text.push_str(type_text);
                match self.by_text.get(self.text.as_str()) {
                    Some(index) => *index,
                    None => {
                        let scope = scope_of(tenant, tenant_text, record_type, type_text)?;
                        let standing = standing(domicile, options, &scope).await?;
                        let index = self.add(scope, standing);
                        self.by_text.insert(self.text.clone(), index);
                        index
                    }
                }
            }
        };
        self.slots.get_mut(index).ok_or_else(|| Error::new(Code::InputScope, "a scope that was never met"))
    }

    /// The scope in a slot, its region, and whose hand seals for it, if it may be sealed here.
    pub(super) fn here(&self, slot: usize) -> Option<(Scope, Region, Hand)> {
        let slot = self.slots.get(slot)?;
        match &slot.standing {
            Standing::Here(region, hand) => Some((slot.scope.clone(), region.clone(), *hand)),
            Standing::Elsewhere { .. } => None,
        }
    }

    /// Keeps a lane that was opened for a scope and a period.
    pub(super) fn keep_lane(&mut self, slot: usize, period: Period, lane: LaneAt) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let entry = (period.bounds(), lane);
            slot.current = Some(entry.clone());
            slot.lanes.insert(entry.0.start, entry);
        }
    }

    /// Another input begins: its records go into lanes of their own.
    pub(super) fn forget_lanes(&mut self) {
        for slot in &mut self.slots {
            slot.current = None;
            slot.lanes.clear();
        }
    }

    /// Counts a record that is left out.
    pub(super) fn count(&mut self, slot: usize, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let (records, octets) = slot.left_out.get_or_insert((0, 0));
            *records += 1;
            *octets += bytes;
        }
    }

    /// What was left out, by scope.
    pub(super) fn elsewhere(&self) -> Vec<Skipped> {
        let mut skipped: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| match (&slot.standing, slot.left_out) {
                (Standing::Elsewhere { code, .. }, Some((records, bytes))) => {
                    Some(Skipped { scope: slot.scope.clone(), records, bytes, code: *code })
                }
                _ => None,
            })
            .collect();
        skipped.sort_by(|left, right| left.scope.cmp(&right.scope));
        skipped
    }

    /// What the audit chain says of those that were left out.
    pub(super) fn refusals(&self) -> Vec<Event> {
        let mut refusals = Refusals::of(&Action::Seal);
        for slot in &self.slots {
            if let (Standing::Elsewhere { home, code }, Some((records, bytes))) =
                (&slot.standing, slot.left_out)
            {
                refusals.add(&slot.scope, *code, home.as_ref().map(|home| &home.region), records, bytes);
            }
        }
        refusals.into_events()
    }

    /// Why a scope's records were left out, in a word or two.
    pub(super) fn reason(&self, scope: &Scope) -> String {
        let slot = self.slots.iter().find(|slot| slot.scope == *scope);
        match slot.map(|slot| &slot.standing) {
            Some(Standing::Elsewhere { home, code: Code::HomeRefused }) => {
                home.as_ref().map(|home| format!("home {home}")).unwrap_or_default()
            }
            Some(Standing::Elsewhere { code: Code::HomeNone, .. }) => "no home".to_owned(),
            Some(Standing::Elsewhere { code, .. }) => code.to_string(),
            _ => String::new(),
        }
    }

    fn add(&mut self, scope: Scope, standing: Standing) -> usize {
        let index = self.slots.len();
        self.slots.push(ScopeSlot {
            index,
            standing,
            scope,
            current: None,
            lanes: BTreeMap::new(),
            left_out: None,
        });
        index
    }
}

/// Whether a scope may be sealed here, as far as its home goes: who is refused is recorded once for all records,
/// and the guard is asked again for the keys.
async fn standing(domicile: Option<&Domicile>, options: &IntakeOptions, scope: &Scope) -> Result<Standing> {
    let as_a_post = |region: Option<&Region>| {
        let of_the_home = |post: &&Post| region.is_none_or(|region| post.place().region == *region);
        let post = only_post(options.posts.iter().filter(of_the_home), scope);
        post.map(|post| Standing::Here(post.place().region.clone(), Hand::Post))
    };
    let Some(domicile) = domicile else {
        let refused = Standing::Elsewhere { home: None, code: Code::PostScope };
        return Ok(as_a_post(None).unwrap_or(refused));
    };
    let home = match domicile.home(scope).await {
        Ok(home) => home.place().clone(),
        Err(error) if error.is_refusal() => {
            return Ok(Standing::Elsewhere { home: None, code: error.code() });
        }
        Err(error) => {
            let home = home_by_bundle(domicile, &options.posts, scope, error)?;
            return Ok(Standing::Here(home.region, Hand::Home));
        }
    };
    match domicile.check_processing(&home, scope).await {
        Ok(()) => Ok(Standing::Here(home.region, Hand::Home)),
        Err(error) if error.is_outage() => {
            let home = home_by_bundle(domicile, &options.posts, scope, error)?;
            Ok(Standing::Here(home.region, Hand::Home))
        }
        Err(error) if !error.is_refusal() => Err(error),
        Err(error) => {
            let post =
                (options.elsewhere == Elsewhere::Post).then(|| as_a_post(Some(&home.region))).flatten();
            Ok(post.unwrap_or(Standing::Elsewhere { home: Some(home), code: error.code() }))
        }
    }
}

fn several_homes(scope: &Scope) -> Error {
    Error::new(Code::PostScope, format!("posts of several homes may seal for {scope}"))
        .rule("a home is never guessed")
        .advise("name the one bundle that is meant, or wait until the registry can be asked")
}

/// The scope that a record's fields name. Their values are not shown: nobody knows what stands in them.
fn scope_of(tenant: &str, tenant_text: &str, record_type: &str, type_text: &str) -> Result<Scope> {
    let no_scope = |field: &str, error: Error| {
        let error_of_field =
            Error::new(Code::InputScope, format!("{field} does not hold the name of a scope"));
        error_of_field.rule(error.broken_rule().unwrap_or_default().to_owned())
    };
    Ok(Scope {
        tenant: tenant_text.parse::<TenantId>().map_err(|error| no_scope(tenant, error))?,
        record_type: type_text.parse::<RecordType>().map_err(|error| no_scope(record_type, error))?,
    })
}
