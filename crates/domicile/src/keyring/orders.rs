//! Standing orders: what the ledger says of scopes as they are now: held, or to be shredded.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::home::Types;
use crate::ledger::{Said, Statement, StatementKind, content};
use crate::processing::{Ruling, Where};
use crate::region::Region;
use crate::scope::{Scope, TenantId};
use crate::time::Time;
use crate::wire::{Decoder, Encoder, Malformed};

/// Whom an order is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "a tenant and its types have no more to them")]
pub struct Concerned {
    /// The tenant.
    pub tenant: TenantId,
    /// One record type, or all.
    pub types: Types,
}

impl Concerned {
    pub(crate) fn concerns(&self, scope: &Scope) -> bool {
        self.tenant == scope.tenant && self.types.cover(&scope.record_type)
    }

    fn encode<'a>(&self, out: &'a mut Encoder) -> Result<&'a mut Encoder, Malformed> {
        out.short(self.tenant.as_str().as_bytes(), "tenant")?
            .short(self.types.as_str().as_bytes(), "record type")
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        let tenant = input.text("tenant")?.parse().map_err(|_| bad("tenant"))?;
        let types = input.text("record type")?.parse().map_err(|_| bad("record type"))?;
        Ok(Self { tenant, types })
    }
}

impl std::fmt::Display for Concerned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.types)
    }
}

macro_rules! reasoned {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name {
            pub(crate) whom: Concerned,
            pub(crate) reason: String,
        }

        impl Said for $name {
            const KIND: StatementKind = StatementKind::$kind;

            fn encode(&self) -> Result<Vec<u8>, Malformed> {
                let mut out = Encoder::new();
                self.whom.encode(&mut out)?.medium(self.reason.as_bytes(), "reason")?;
                Ok(out.finish())
            }

            fn decode(content: &[u8]) -> Result<Self, Malformed> {
                let mut input = Decoder::new(content);
                let whom = Concerned::decode(&mut input)?;
                let reason = String::from_utf8(input.medium("reason")?.to_vec())
                    .map_err(|_| Malformed { what: "reason", at: 0 })?;
                input.end("end of the order")?;
                Ok(Self { whom, reason })
            }
        }
    };
}

reasoned!(
    /// Nothing of these scopes is destroyed or erased.
    HoldAdded, HoldAdded
);
reasoned!(
    /// It may be again.
    HoldReleased, HoldReleased
);
reasoned!(
    /// The keys are not to be destroyed after all.
    ShredCancelled, ShredCancelled
);

reasoned!(
    /// They were.
    ShredDone, ShredDone
);

/// Records of these scopes may be processed in these places, whatever else is configured; with none, where records of
/// their home otherwise may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacesSet {
    pub(crate) whom: Concerned,
    pub(crate) places: Vec<Where>,
    pub(crate) reason: String,
}

impl Said for PlacesSet {
    const KIND: StatementKind = StatementKind::PlacesSet;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        self.whom.encode(&mut out)?;
        Where::encode_all(&self.places, &mut out)?;
        out.medium(self.reason.as_bytes(), "reason")?;
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let whom = Concerned::decode(&mut input)?;
        let places = Where::decode_all(&mut input)?;
        let reason = String::from_utf8(input.medium("reason")?.to_vec())
            .map_err(|_| Malformed { what: "reason", at: 0 })?;
        input.end("end of the order")?;
        Ok(Self { whom, places, reason })
    }
}

/// Where records of scopes may be processed, as their home said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlacesRule {
    /// Whose records.
    pub whom: Concerned,
    /// Where.
    pub places: Vec<Where>,
    /// Why, as whoever set it said.
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// Its version: the number of the statement in the home's ledger.
    pub version: u64,
}

impl PlacesRule {
    /// What the guard needs of it.
    pub(crate) fn ruling(&self, region: &Region) -> Ruling {
        let of = format!("of {}, entry {} of the ledger of {region}", self.whom, self.version);
        Ruling { places: self.places.clone(), of }
    }
}

/// The keys of these scopes are to be destroyed, and are not used until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShredAsked {
    pub(crate) whom: Concerned,
    pub(crate) pending: Duration,
}

impl Said for ShredAsked {
    const KIND: StatementKind = StatementKind::ShredAsked;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        self.whom.encode(&mut out)?.u64(self.pending.as_secs());
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let whom = Concerned::decode(&mut input)?;
        let pending = Duration::from_secs(input.u64("pending time")?);
        input.end("end of the order")?;
        Ok(Self { whom, pending })
    }
}

/// A hold that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// Whom it is for.
    pub whom: Concerned,
    /// Why, as whoever added it said.
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// A shredding that was asked for and not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shredding {
    /// Whose keys.
    pub whom: Concerned,
    /// When it was asked for.
    pub asked: Time,
    /// From when it may be done.
    pub due: Time,
    /// Whether it was.
    pub done: bool,
}

/// All orders that stand in a region.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    holds: BTreeMap<Concerned, Hold>,
    shreddings: BTreeMap<Concerned, Shredding>,
    places: BTreeMap<Concerned, PlacesRule>,
}

impl Orders {
    /// The kinds of statements that orders are made of.
    pub(crate) const KINDS: [u8; 6] = [
        StatementKind::HoldAdded as u8,
        StatementKind::HoldReleased as u8,
        StatementKind::ShredAsked as u8,
        StatementKind::ShredCancelled as u8,
        StatementKind::ShredDone as u8,
        StatementKind::PlacesSet as u8,
    ];

    /// Takes up what a statement says.
    pub(crate) fn follow(&mut self, statement: &Statement) -> Result<()> {
        match statement.kind {
            StatementKind::HoldAdded => {
                let HoldAdded { whom, reason } = content(statement)?;
                self.holds.insert(whom.clone(), Hold { whom, reason, since: statement.said });
            }
            StatementKind::HoldReleased => {
                self.holds.remove(&content::<HoldReleased>(statement)?.whom);
            }
            StatementKind::ShredAsked => {
                let ShredAsked { whom, pending } = content(statement)?;
                let pending = i64::try_from(pending.as_micros()).unwrap_or(i64::MAX);
                let due = Time::from_micros(statement.said.micros().saturating_add(pending))?;
                self.shreddings
                    .insert(whom.clone(), Shredding { whom, asked: statement.said, due, done: false });
            }
            StatementKind::ShredDone => {
                if let Some(shredding) = self.shreddings.get_mut(&content::<ShredDone>(statement)?.whom) {
                    shredding.done = true;
                }
            }
            StatementKind::ShredCancelled => {
                self.shreddings.remove(&content::<ShredCancelled>(statement)?.whom);
            }
            StatementKind::PlacesSet => {
                let PlacesSet { whom, places, reason } = content(statement)?;
                let (since, version) = (statement.said, statement.number);
                let rule = PlacesRule { whom: whom.clone(), places, reason, since, version };
                if rule.places.is_empty() {
                    self.places.remove(&whom);
                } else {
                    self.places.insert(whom, rule);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The rules of places that stand.
    pub(crate) fn places(&self) -> impl Iterator<Item = &PlacesRule> {
        self.places.values()
    }

    /// The rule that counts for a scope: that of its own type, else that of all.
    pub(crate) fn places_of(&self, scope: &Scope) -> Option<&PlacesRule> {
        let of = |types: Types| self.places.get(&Concerned { tenant: scope.tenant.clone(), types });
        of(Types::One(scope.record_type.clone())).or_else(|| of(Types::All))
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    pub(crate) fn shreddings(&self) -> impl Iterator<Item = &Shredding> {
        self.shreddings.values()
    }

    /// The shreddings that concern a scope: of its type, and of all.
    pub(crate) fn shreddings_of(&self, scope: &Scope) -> impl Iterator<Item = &Shredding> {
        self.shreddings.values().filter(|shredding| shredding.whom.concerns(scope))
    }

    /// Whether a scope's keys may be used. Those that were shredded say so themselves; new ones are not made.
    pub(crate) fn check_use(&self, scope: &Scope, sealing: bool) -> Result<()> {
        let stands = |shredding: &&Shredding| sealing || !shredding.done;
        let first = self.shreddings_of(scope).filter(stands).min_by_key(|shredding| shredding.due);
        let Some(shredding) = first else { return Ok(()) };
        let Shredding { whom, due, done, .. } = shredding;
        let what = if *done { "were shredded" } else { "are to be shredded" };
        Err(Error::new(Code::KeyShredding, format!("the keys of {whom} {what}, from {due}"))
            .rule(
                "from the asking on, nothing is sealed, and nothing opened, so that what depends on it shows",
            )
            .advise(format!(
                "domicile key unshred {} {} --confirm {0}, if they are still needed",
                whom.tenant, whom.types
            )))
    }

    /// Whether anything of a scope may be destroyed.
    pub(crate) fn check_destruction(&self, scope: &Scope) -> Result<()> {
        match self.holds.values().find(|hold| hold.whom.concerns(scope)) {
            None => Ok(()),
            Some(hold) => {
                Err(Error::new(Code::KeyHeld, format!("{} is held since {}", hold.whom, hold.since))
                    .rule(format!("held: {}", hold.reason))
                    .advise(format!(
                        "domicile key hold release {} {}, once the reason is gone",
                        hold.whom.tenant, hold.whom.types
                    )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<S: Said>(number: u64, said: &S) -> Statement {
        Statement {
            region: "eu-central-1".parse().unwrap(),
            number,
            previous: [0; 32],
            said: "2026-11-25T08:00:00Z".parse().unwrap(),
            kind: S::KIND,
            content: said.encode().unwrap(),
        }
    }

    #[test]
    fn orders_stand_until_they_are_taken_back() {
        let whom = |types: &str| Concerned { tenant: "acme".parse().unwrap(), types: types.parse().unwrap() };
        let (voice, fax) =
            (Scope::new("acme", crate::RecordType::VOICE), Scope::new("acme", crate::RecordType::FAX));
        let (voice, fax) = (voice.unwrap(), fax.unwrap());
        let mut orders = Orders::default();
        orders.follow(&said(1, &HoldAdded { whom: whom("voice"), reason: "case 4".into() })).unwrap();
        orders
            .follow(&said(2, &ShredAsked { whom: whom("all"), pending: Duration::from_secs(7 * 86_400) }))
            .unwrap();
        assert_eq!(orders.check_destruction(&voice).unwrap_err().code(), Code::KeyHeld);
        orders.check_destruction(&fax).unwrap();
        let refusal = orders.check_use(&fax, false).unwrap_err();
        assert_eq!(refusal.code(), Code::KeyShredding);
        assert!(refusal.what().contains("2026-12-02T08:00:00Z"), "{refusal}");
        orders.check_use(&Scope::new("globex", crate::RecordType::FAX).unwrap(), true).unwrap();
        orders.follow(&said(3, &ShredDone { whom: whom("all"), reason: String::new() })).unwrap();
        orders.check_use(&fax, false).unwrap();
        assert!(orders.check_use(&fax, true).is_err(), "what was shredded is not begun anew");
        // What is taken back is what was ordered, not what it covers.
        orders.follow(&said(3, &ShredCancelled { whom: whom("fax"), reason: String::new() })).unwrap();
        assert!(orders.check_use(&fax, true).is_err());
        orders.follow(&said(4, &ShredCancelled { whom: whom("all"), reason: String::new() })).unwrap();
        orders.follow(&said(5, &HoldReleased { whom: whom("voice"), reason: "closed".into() })).unwrap();
        orders.check_use(&fax, false).unwrap();
        orders.check_destruction(&voice).unwrap();
    }

    #[test]
    fn the_rule_of_a_type_counts_before_that_of_all_and_the_newest_counts() {
        let whom = |types: &str| Concerned { tenant: "acme".parse().unwrap(), types: types.parse().unwrap() };
        let set = |types, places: &[&str]| PlacesSet {
            whom: whom(types),
            places: places.iter().map(|name| name.parse().unwrap()).collect(),
            reason: "contract 7".into(),
        };
        let (voice, fax) =
            (Scope::new("acme", crate::RecordType::VOICE), Scope::new("acme", crate::RecordType::FAX));
        let (voice, fax) = (voice.unwrap(), fax.unwrap());
        let mut orders = Orders::default();
        assert_eq!(orders.places_of(&voice), None);
        let first = set("all", &["EU", "GB"]);
        assert_eq!(PlacesSet::decode(&first.encode().unwrap()).unwrap(), first);
        orders.follow(&said(1, &first)).unwrap();
        orders.follow(&said(2, &set("voice", &["eu-central-1"]))).unwrap();
        assert_eq!(orders.places_of(&voice).unwrap().version, 2);
        assert_eq!(orders.places_of(&fax).unwrap().version, 1);
        orders.follow(&said(3, &set("voice", &[]))).unwrap();
        assert_eq!(orders.places_of(&voice).unwrap().version, 1);
        assert_eq!(orders.places_of(&Scope::new("globex", crate::RecordType::FAX).unwrap()), None);
    }

    #[test]
    fn an_order_with_an_octet_more_or_less_is_none() {
        let whom = Concerned { tenant: "acme".parse().unwrap(), types: Types::All };
        let order = HoldAdded { whom, reason: "case 4".into() };
        let octets = order.encode().unwrap();
        assert_eq!(HoldAdded::decode(&octets).unwrap(), order);
        for length in 0..octets.len() {
            assert!(HoldAdded::decode(&octets[..length]).is_err());
        }
        assert!(HoldAdded::decode(&[&octets[..], &[0]].concat()).is_err());
    }
}
