//! Places: regions, the jurisdictions they lie in, and where this process is.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::name::{Name, name_traits};

/// A place with its own key service and storage, such as `eu-central-1`: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(Name);

impl Region {
    /// The longest name, in octets.
    pub const LENGTH_MAX: usize = 32;
}

impl FromStr for Region {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Name::checked(text, "region", Self::LENGTH_MAX, "a-z, 0-9 and -", |octet| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-'
        })
        .map(Self)
    }
}

name_traits!(Region);

/// The legal area that a region lies in, such as `EU` or `US`: `[A-Z0-9-]{1,16}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jurisdiction(Name);

impl Jurisdiction {
    /// The longest name, in octets.
    pub const LENGTH_MAX: usize = 16;
}

impl FromStr for Jurisdiction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Name::checked(text, "jurisdiction", Self::LENGTH_MAX, "A-Z, 0-9 and -", |octet| {
            octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'-'
        })
        .map(Self)
    }
}

name_traits!(Jurisdiction);

/// A region together with its jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The region.
    pub region: Region,
    /// The jurisdiction that the region lies in.
    pub jurisdiction: Jurisdiction,
}

impl fmt::Display for Place {
    /// Shows `eu-central-1 (EU)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.region, self.jurisdiction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn names_of_places_are_checked_once() {
        for good in ["eu-central-1", "a", "0", "-", &"x".repeat(32)] {
            assert_eq!(good.parse::<Region>().unwrap().as_str(), good);
        }
        for bad in ["", "EU", "eu_central", "eu central", "é", "../x", &"x".repeat(33)] {
            assert_eq!(bad.parse::<Region>().unwrap_err().code(), Code::NameInvalid, "{bad}");
        }
        for bad in ["", "eu", "E U", &"X".repeat(17)] {
            assert_eq!(bad.parse::<Jurisdiction>().unwrap_err().code(), Code::NameInvalid, "{bad}");
        }
    }
}
