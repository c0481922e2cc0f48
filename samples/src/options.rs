//! What a generator is asked for.

use std::error::Error;
use std::fmt;

use crate::moment::MILLIS_MAX;
use crate::scope::{Mix, Region, Tenant};

/// What records to make. The same options give the same octets, whatever the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Any number: another seed gives other records of the same kind. Homes do not depend on it.
    pub seed: u64,
    /// How many tenants there are, 1 to [`Tenant::NUMBER_MAX`]. Tenant n has 1/n as many records as tenant 1.
    pub tenants: u32,
    /// How many records of each type.
    pub types: Mix,
    /// The regions that scopes are at home in. With other regions, they have other homes.
    pub regions: Vec<Region>,
    /// When record 0 starts, in microseconds since 1970; not before that, nor after the year 9999.
    pub start_micros: i64,
    /// How much later each record starts than the one before, in microseconds: 0 or more.
    ///
    /// Up to 65,535 microseconds are added to each start, so that records are only almost in order, as real
    /// ones are. Where the year 9999 ends, time stands still.
    pub step_micros: i64,
    /// Whether some texts contain line breaks (LF and CRLF). In CSV they stand inside quotes, where a line is
    /// then no record; JSON and the access log escape them.
    pub line_breaks: bool,
}

impl Default for Options {
    /// A thousand tenants, all record types, all regions, 10,000 records a second from 2026-01-05 on.
    fn default() -> Self {
        Self {
            seed: 1,
            tenants: 1000,
            types: Mix::default(),
            regions: Region::ALL.to_vec(),
            start_micros: 1_767_571_200_000_000,
            step_micros: 100,
            line_breaks: false,
        }
    }
}

impl Options {
    /// Says what is wrong with the options, if something is.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let micros_max = i64::try_from(MILLIS_MAX).unwrap_or(i64::MAX / 1000) * 1000;
        match self {
            _ if !(1..=Tenant::NUMBER_MAX).contains(&self.tenants) => {
                Err(OptionsError::Tenants(self.tenants))
            }
            _ if self.types.types().next().is_none() => Err(OptionsError::NoTypes),
            _ if self.regions.is_empty() => Err(OptionsError::NoRegions),
            _ if !(0..=micros_max).contains(&self.start_micros) => {
                Err(OptionsError::Start(self.start_micros))
            }
            _ if self.step_micros < 0 => Err(OptionsError::Step(self.step_micros)),
            _ => Ok(()),
        }
    }
}

/// Why there are no such records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// No tenant, or more than names have room for.
    Tenants(u32),
    /// Every record type has the weight 0.
    NoTypes,
    /// No region.
    NoRegions,
    /// A start before 1970 or after the year 9999.
    Start(i64),
    /// A step back in time.
    Step(i64),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenants(number) => write!(f, "{number} tenants: there must be 1 to {}", Tenant::NUMBER_MAX),
            Self::NoTypes => f.write_str("no record type: at least one must have a weight above 0"),
            Self::NoRegions => f.write_str("no region: scopes must be at home somewhere"),
            Self::Start(micros) => {
                write!(f, "a start {micros} microseconds from 1970: it must lie in the years 1970 to 9999")
            }
            Self::Step(micros) => write!(f, "a step of {micros} microseconds: time must not run backwards"),
        }
    }
}

impl Error for OptionsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::RecordType;

    #[test]
    fn options_that_no_record_can_meet_are_refused() {
        let good = Options::default();
        assert_eq!(good.check(), Ok(()));
        for (bad, error) in [
            (Options { tenants: 0, ..good.clone() }, OptionsError::Tenants(0)),
            (Options { tenants: 1_000_000, ..good.clone() }, OptionsError::Tenants(1_000_000)),
            (
                Options { types: Mix::only(RecordType::Fax).with(RecordType::Fax, 0), ..good.clone() },
                OptionsError::NoTypes,
            ),
            (Options { regions: Vec::new(), ..good.clone() }, OptionsError::NoRegions),
            (Options { start_micros: -1, ..good.clone() }, OptionsError::Start(-1)),
            (Options { start_micros: i64::MAX, ..good.clone() }, OptionsError::Start(i64::MAX)),
            (Options { step_micros: -1, ..good.clone() }, OptionsError::Step(-1)),
        ] {
            assert_eq!(bad.check(), Err(error), "{error}");
        }
    }
}
