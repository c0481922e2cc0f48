//! Homes: the region that a scope chose, once, as a statement signed by that region's key.
//!
//! Where that key is not at hand, the choosing host's own region signs that it was asked, and the choice is
//! *pending*: it excludes any other at once, and the home signs it before the first key. What nobody signed is no
//! home: a row in the registry alone says nothing.

mod statement;

use std::fmt;
use std::str::FromStr;

pub(crate) use statement::forged;
pub use statement::{HomeStatement, SignedStatement, StatedChoice};

use crate::error::{Code, Error, Result};
use crate::region::{Place, Region};
use crate::scope::{RecordType, Scope, TenantId};
use crate::time::Time;

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
    /// What was signed about it: by the home if it has, otherwise by the region where it was made. A row without
    /// is none of ours.
    pub statement: Option<SignedStatement>,
    /// Whether the registry keeps that statement as the home's own.
    pub own: bool,
}

/// Who signed a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HomeState {
    /// The home itself.
    Signed,
    /// The region where it was chosen, and not yet the home.
    Pending,
}

impl HomeState {
    /// The word for it, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HomeState::Signed => "signed",
            HomeState::Pending => "pending",
        }
    }
}

/// The home of a scope, verified against what was signed about it.
///
/// Only [`Domicile`](crate::Domicile) makes one, from the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub(crate) scope: Scope,
    pub(crate) place: Place,
    pub(crate) state: HomeState,
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

    /// Who signed it. A pending home has no keys.
    #[must_use]
    pub fn state(&self) -> HomeState {
        self.state
    }

    /// Whether the home itself has signed.
    ///
    /// # Errors
    /// [`HomePending`](Code::HomePending) while it has not.
    pub fn check_signed(&self) -> Result<()> {
        if self.state == HomeState::Signed {
            return Ok(());
        }
        let what =
            format!("the home of {} is {}, which has not signed the choice yet", self.scope, self.place);
        Err(Error::new(Code::HomePending, what)
            .advise(format!("choose it again on a host in {}, whose key signs it", self.place.region)))
    }
}
