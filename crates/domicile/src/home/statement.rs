//! What is signed about homes: which tenants and types chose which region, and who says so.

use super::{HomeChoice, HomeState, Types};
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::kms::VerifyingKey;
use crate::region::{Jurisdiction, Place, Region};
use crate::scope::{RecordType, TenantId};
use crate::time::Time;
use crate::wire::{Decoder, Encoder, Malformed};

/// The encoded statement and a region's signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// A [`HomeStatement`], encoded.
    pub body: Vec<u8>,
    /// The signature over `body` of the key of the region that the statement is by.
    pub signature: Vec<u8>,
}

/// What is signed: these tenants and types chose this home at this time. One signature covers up to
/// [`CHOICES_MAX`](Self::CHOICES_MAX) choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeStatement {
    /// The home.
    pub place: Place,
    /// The region that signs: the home itself, or where the choice was made while the home's key was not at hand.
    pub by: Region,
    /// When the statement was signed.
    pub signed: Time,
    /// Who chose it, and for which types.
    pub choices: Vec<StatedChoice>,
}

/// One choice, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedChoice {
    /// Who chose.
    pub tenant: TenantId,
    /// For which types.
    pub types: Types,
    /// Of a choice for all types, those that had another home before, in rising order: it does not speak for them,
    /// even if somebody takes their own rows away. At most [`EXCEPTIONS_MAX`](HomeStatement::EXCEPTIONS_MAX).
    pub except: Vec<RecordType>,
}

impl HomeStatement {
    /// How many choices one signature covers at most: few enough that checking one home stays cheap.
    pub const CHOICES_MAX: usize = 256;

    /// How many types a choice for all may leave out.
    pub const EXCEPTIONS_MAX: usize = 255;

    const LABEL: &'static [u8] = b"domicile/v1/home";

    /// The bytes that are signed.
    ///
    /// # Errors
    /// More choices than one statement may hold.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        if self.choices.len() > Self::CHOICES_MAX {
            return Err(Malformed { what: "more choices than a statement may hold", at: 0 });
        }
        let mut out = Encoder::new();
        out.short(Self::LABEL, "label")?
            .short(self.place.region.as_str().as_bytes(), "region")?
            .short(self.place.jurisdiction.as_str().as_bytes(), "jurisdiction")?
            .short(self.by.as_str().as_bytes(), "signing region")?
            .i64(self.signed.micros())
            .count(self.choices.len(), "choices")?;
        for StatedChoice { tenant, types, except } in &self.choices {
            let exceptions = u8::try_from(except.len())
                .map_err(|_| Malformed { what: "more types with homes of their own than may be", at: 0 })?;
            out.short(tenant.as_str().as_bytes(), "tenant")?
                .short(types.as_str().as_bytes(), "record type")?
                .u8(exceptions);
            for record_type in except {
                out.short(record_type.as_str().as_bytes(), "record type that is left out")?;
            }
        }
        Ok(out.finish())
    }

    /// Reads what was signed; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = |what| Malformed { what, at: 0 };
        if input.short("label")? != Self::LABEL {
            return Err(bad("label"));
        }
        let region: Region = input.text("region")?.parse().map_err(|_| bad("region"))?;
        let jurisdiction: Jurisdiction =
            input.text("jurisdiction")?.parse().map_err(|_| bad("jurisdiction"))?;
        let by = input.text("signing region")?.parse().map_err(|_| bad("signing region"))?;
        let signed = Time::from_micros(input.i64("time")?).map_err(|_| bad("time"))?;
        let count = input.count(4, "choices")?;
        if count > Self::CHOICES_MAX {
            return Err(bad("more choices than a statement may hold"));
        }
        let mut choices = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = input.text("tenant")?.parse().map_err(|_| bad("tenant"))?;
            let types = input.text("record type")?.parse().map_err(|_| bad("record type"))?;
            let mut except = Vec::new();
            for _ in 0..input.u8("types that are left out")? {
                let left_out = input.text("record type that is left out")?;
                except.push(left_out.parse().map_err(|_| bad("record type that is left out"))?);
            }
            let rises = except.is_sorted_by(|left: &RecordType, right| left < right);
            if !rises || types != Types::All && !except.is_empty() {
                return Err(bad("types that are left out"));
            }
            choices.push(StatedChoice { tenant, types, except });
        }
        input.end("end of the statement")?;
        Ok(Self { place: Place { region, jurisdiction }, by, signed, choices })
    }
}

impl HomeStatement {
    /// What is stated of this very tenant and these types.
    fn names(&self, choice: &HomeChoice) -> Option<&StatedChoice> {
        self.choices.iter().find(|named| named.tenant == choice.tenant && named.types == choice.types)
    }
}

impl SignedStatement {
    /// Checks that a region said this, and that it speaks of this very choice; says which of the two it was.
    /// `key_of` gives the pinned key of a region, if it is configured.
    ///
    /// # Errors
    /// [`HomeForged`](Code::HomeForged): somebody changed the registry.
    pub fn verify(
        &self,
        choice: &HomeChoice,
        place: &Place,
        key_of: impl Fn(&Region) -> Option<VerifyingKey>,
    ) -> Result<HomeState> {
        let statement = HomeStatement::decode(&self.body).map_err(|_| forged(choice))?;
        let key = key_of(&statement.by).ok_or_else(|| forged(choice))?;
        key.verify(&self.body, &self.signature).map_err(|Unverified| forged(choice))?;
        if statement.place != *place || choice.region != place.region || statement.names(choice).is_none() {
            return Err(forged(choice));
        }
        Ok(if statement.by == place.region { HomeState::Signed } else { HomeState::Pending })
    }

    /// The types that a choice leaves out, of a statement that was verified.
    pub(crate) fn exceptions(&self, choice: &HomeChoice) -> Vec<RecordType> {
        let statement = HomeStatement::decode(&self.body).ok();
        statement
            .and_then(|statement| statement.names(choice).map(|named| named.except.clone()))
            .unwrap_or_default()
    }
}

/// A home that is not what anybody signed.
pub(crate) fn forged(choice: &HomeChoice) -> Error {
    Error::new(Code::HomeForged, format!("the home {choice} is not what a region signed"))
        .advise("the registry of homes was changed behind Domicile's back: restore it, and find out by whom")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn stated(types: Types, except: Vec<RecordType>) -> StatedChoice {
        StatedChoice { tenant: "acme".parse().unwrap(), types, except }
    }

    #[test]
    fn only_a_choice_for_all_leaves_types_out_each_once_and_in_order() {
        for (types, except) in [
            (Types::One(RecordType::VOICE), vec![RecordType::FAX]),
            (Types::All, vec![RecordType::VOICE, RecordType::FAX]),
            (Types::All, vec![RecordType::FAX, RecordType::FAX]),
        ] {
            let body =
                HomeStatement { choices: vec![stated(types, except)], ..statement() }.encode().unwrap();
            HomeStatement::decode(&body).unwrap_err();
        }
        let many = (0..256).map(|number| format!("type-{number:03}").parse().unwrap()).collect();
        HomeStatement { choices: vec![stated(Types::All, many)], ..statement() }.encode().unwrap_err();
    }

    fn statement() -> HomeStatement {
        HomeStatement {
            place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
            by: "eu-central-1".parse().unwrap(),
            signed: "2026-11-24T08:00:00Z".parse().unwrap(),
            choices: vec![
                stated(Types::One(RecordType::VOICE), vec![]),
                stated(Types::All, vec![RecordType::FAX, RecordType::VOICE]),
            ],
        }
    }

    fn sign(statement: &HomeStatement) -> (VerifyingKey, SignedStatement) {
        let key = SigningKey::from_bytes(&[3; 32]);
        let body = statement.encode().unwrap();
        let signature = key.sign(&body).to_bytes().to_vec();
        (VerifyingKey::Ed25519(key.verifying_key().to_bytes()), SignedStatement { body, signature })
    }

    #[test]
    fn statements_read_back_and_every_changed_bit_is_noticed() {
        let statement = statement();
        let (key, signed) = sign(&statement);
        assert_eq!(HomeStatement::decode(&signed.body).unwrap(), statement);
        let choice = HomeChoice {
            tenant: "acme".parse().unwrap(),
            types: Types::All,
            region: statement.place.region.clone(),
        };
        let key_of = |region: &Region| (region.as_str() == "eu-central-1").then_some(key);
        assert_eq!(signed.verify(&choice, &statement.place, key_of).unwrap(), HomeState::Signed);
        for bit in 0..signed.body.len() * 8 {
            let mut bad = signed.clone();
            bad.body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(bad.verify(&choice, &statement.place, key_of).unwrap_err().code(), Code::HomeForged);
        }
        for bit in 0..signed.signature.len() * 8 {
            let mut bad = signed.clone();
            bad.signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(bad.verify(&choice, &statement.place, key_of).unwrap_err().code(), Code::HomeForged);
        }
    }

    #[test]
    fn a_statement_speaks_for_nobody_else_and_for_no_other_place() {
        let statement = statement();
        let (key, signed) = sign(&statement);
        let choice = |tenant: &str, types, region: &str| HomeChoice {
            tenant: tenant.parse().unwrap(),
            types,
            region: region.parse().unwrap(),
        };
        let us = Place { region: "us-east-1".parse().unwrap(), jurisdiction: "US".parse().unwrap() };
        let moved = Place { jurisdiction: "US".parse().unwrap(), ..statement.place.clone() };
        for (choice, place) in [
            (choice("other", Types::All, "eu-central-1"), &statement.place),
            (choice("acme", Types::One(RecordType::FAX), "eu-central-1"), &statement.place),
            (choice("acme", Types::All, "us-east-1"), &us),
            (choice("acme", Types::All, "eu-central-1"), &moved),
        ] {
            let found = signed.verify(&choice, place, |_| Some(key));
            assert_eq!(found.unwrap_err().code(), Code::HomeForged, "{choice}");
        }
    }

    #[test]
    fn what_another_region_signed_is_pending_and_what_an_unknown_one_signed_is_forged() {
        let asked = HomeStatement { by: "us-east-1".parse().unwrap(), ..statement() };
        let (key, signed) = sign(&asked);
        let choice = HomeChoice {
            tenant: "acme".parse().unwrap(),
            types: Types::All,
            region: asked.place.region.clone(),
        };
        assert_eq!(signed.verify(&choice, &asked.place, |_| Some(key)).unwrap(), HomeState::Pending);
        let unknown = signed.verify(&choice, &asked.place, |_| None);
        assert_eq!(unknown.unwrap_err().code(), Code::HomeForged);
    }
}
