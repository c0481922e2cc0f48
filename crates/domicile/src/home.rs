//! Homes: the region that a scope chose, once, as a statement signed by that region's key.

use std::fmt;
use std::str::FromStr;

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::kms::VerifyingKey;
use crate::region::{Jurisdiction, Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::time::Time;
use crate::wire::{Decoder, Encoder, Malformed};

/// Which record types a choice is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "one or all: there is no third")]
pub enum Types {
    /// This one.
    One(RecordType),
    /// Every type that has no home of its own, now and later.
    All,
}

impl Types {
    /// The type, or `all`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Types::One(record_type) => record_type.as_str(),
            Types::All => "all",
        }
    }

    /// Whether a choice for these types gives `record_type` a home.
    #[must_use]
    pub fn cover(&self, record_type: &RecordType) -> bool {
        match self {
            Types::One(one) => one == record_type,
            Types::All => true,
        }
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Types {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" { Ok(Types::All) } else { text.parse().map(Types::One) }
    }
}

/// A choice of a home, before it is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeChoice {
    /// Who chooses.
    pub tenant: TenantId,
    /// For which record types.
    pub types: Types,
    /// The region.
    pub region: Region,
}

impl fmt::Display for HomeChoice {
    /// Shows `acme/voice -> eu-central-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} -> {}", self.tenant, self.types, self.region)
    }
}

/// A choice as it stands in the registry of homes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenHome {
    /// The choice.
    pub choice: HomeChoice,
    /// When it was made.
    pub chosen: Time,
    /// The signed statement; none while the choice is pending.
    pub statement: Option<SignedStatement>,
}

/// The home of a scope, verified against its region's signing key.
///
/// Only [`Domicile`](crate::Domicile) makes one, from the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Whose home.
    pub(crate) scope: Scope,
    /// The region, with its jurisdiction.
    pub(crate) place: Place,
}

impl Home {
    /// Whose home.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The region, with its jurisdiction.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// The encoded statement and the region's signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// A [`HomeStatement`], encoded.
    pub body: Vec<u8>,
    /// The signature of the region's key over `body`.
    pub signature: Vec<u8>,
}

/// What the home region signs: these tenants and types chose it at this time. One signature covers up
/// to [`CHOICES_MAX`](Self::CHOICES_MAX) choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeStatement {
    /// The home.
    pub place: Place,
    /// When the statement was signed.
    pub signed: Time,
    /// Who chose it, and for which types.
    pub choices: Vec<(TenantId, Types)>,
}

impl HomeStatement {
    /// How many choices one signature covers at most: few enough that checking one home stays cheap.
    pub const CHOICES_MAX: usize = 256;

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
            .i64(self.signed.micros())
            .count(self.choices.len(), "choices")?;
        for (tenant, types) in &self.choices {
            out.short(tenant.as_str().as_bytes(), "tenant")?
                .short(types.as_str().as_bytes(), "record type")?;
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
        let signed = Time::from_micros(input.i64("time")?).map_err(|_| bad("time"))?;
        let count = input.count(4, "choices")?;
        if count > Self::CHOICES_MAX {
            return Err(bad("more choices than a statement may hold"));
        }
        let mut choices = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = input.text("tenant")?.parse().map_err(|_| bad("tenant"))?;
            let types = input.text("record type")?.parse().map_err(|_| bad("record type"))?;
            choices.push((tenant, types));
        }
        input.end("end of the statement")?;
        Ok(Self { place: Place { region, jurisdiction }, signed, choices })
    }
}

impl SignedStatement {
    /// Checks that the region said this, and that it speaks of this very choice.
    ///
    /// # Errors
    /// [`HomeForged`](Code::HomeForged): somebody changed the registry.
    pub fn verify(&self, choice: &HomeChoice, place: &Place, key: &VerifyingKey) -> Result<()> {
        let forged = || {
            Error::new(Code::HomeForged, format!("the home {choice} is not what {} signed", choice.region))
                .advise("the registry of homes was changed behind Domicile's back: restore it, and find out by whom")
        };
        key.verify(&self.body, &self.signature).map_err(|Unverified| forged())?;
        let statement = HomeStatement::decode(&self.body).map_err(|_| forged())?;
        let named = statement
            .choices
            .iter()
            .any(|(tenant, types)| *tenant == choice.tenant && *types == choice.types);
        if statement.place != *place || choice.region != place.region || !named {
            return Err(forged());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn statement() -> HomeStatement {
        HomeStatement {
            place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
            signed: "2026-11-24T08:00:00Z".parse().unwrap(),
            choices: vec![
                ("acme".parse().unwrap(), Types::One(RecordType::VOICE)),
                ("acme".parse().unwrap(), Types::All),
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
        signed.verify(&choice, &statement.place, &key).unwrap();
        for bit in 0..signed.body.len() * 8 {
            let mut bad = signed.clone();
            bad.body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(bad.verify(&choice, &statement.place, &key).unwrap_err().code(), Code::HomeForged);
        }
        for bit in 0..signed.signature.len() * 8 {
            let mut bad = signed.clone();
            bad.signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(bad.verify(&choice, &statement.place, &key).unwrap_err().code(), Code::HomeForged);
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
            assert_eq!(signed.verify(&choice, place, &key).unwrap_err().code(), Code::HomeForged, "{choice}");
        }
    }
}
