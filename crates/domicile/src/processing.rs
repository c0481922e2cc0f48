//! Where records may be processed: by default in the jurisdiction of their home, and nowhere else.
//!
//! The configuration may say otherwise for all records of a jurisdiction. For one scope its home says so, in a statement of
//! its ledger that every host verifies: the newest one counts, and replaces the rule of the jurisdiction.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::region::{Jurisdiction, Place, Region};
use crate::wire::{Decoder, Encoder, Malformed};

/// A place where something may be done: a whole jurisdiction, or one region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Where {
    /// Every region of a jurisdiction.
    Jurisdiction(Jurisdiction),
    /// One region.
    Region(Region),
}

impl Where {
    /// Whether a place is there.
    #[must_use]
    pub fn holds(&self, place: &Place) -> bool {
        match self {
            Where::Jurisdiction(jurisdiction) => place.jurisdiction == *jurisdiction,
            Where::Region(region) => place.region == *region,
        }
    }

    /// The most places of one rule.
    pub const COUNT_MAX: usize = 64;

    pub(crate) fn encode_all(places: &[Self], out: &mut Encoder) -> Result<(), Malformed> {
        if places.len() > Self::COUNT_MAX {
            return Err(Malformed { what: "more places than a rule has", at: 0 });
        }
        out.count(places.len(), "places")?;
        for place in places {
            match place {
                Where::Jurisdiction(name) => out.u8(1).short(name.as_str().as_bytes(), "jurisdiction")?,
                Where::Region(name) => out.u8(2).short(name.as_str().as_bytes(), "region")?,
            };
        }
        Ok(())
    }

    pub(crate) fn decode_all(input: &mut Decoder<'_>) -> Result<Vec<Self>, Malformed> {
        let count = usize::try_from(input.u32("places")?).unwrap_or(usize::MAX);
        if count > Self::COUNT_MAX {
            return Err(input.malformed("more places than a rule has"));
        }
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = input.u8("place")?;
            let bad = input.malformed("place");
            let name = input.text("place")?;
            places.push(match kind {
                1 => Where::Jurisdiction(name.parse().map_err(|_| bad)?),
                2 => Where::Region(name.parse().map_err(|_| bad)?),
                _ => return Err(bad),
            });
        }
        // One list has one encoding.
        if places.is_sorted_by(|left, right| left < right) {
            Ok(places)
        } else {
            Err(input.malformed("places out of order"))
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::Jurisdiction(jurisdiction) => jurisdiction.fmt(f),
            Where::Region(region) => region.fmt(f),
        }
    }
}

impl FromStr for Where {
    type Err = Error;

    /// What can be the name of a jurisdiction is one: they are in capitals, as regions never are.
    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(jurisdiction) => Ok(Where::Jurisdiction(jurisdiction)),
            Err(_) => text.parse().map(Where::Region).map_err(|error: Error| {
                Error::new(Code::NameInvalid, format!("{text:?} is neither a jurisdiction nor a region"))
                    .rule(error.broken_rule().unwrap_or_default().to_owned())
            }),
        }
    }
}

/// What a home said of where records of a scope may be processed.
#[derive(Debug, Clone)]
pub(crate) struct Ruling {
    pub(crate) places: Vec<Where>,
    /// Of whose records it was said, and where that stands.
    pub(crate) of: String,
}

/// A list of places as a rule shows it: `["EU", "GB"]`.
pub(crate) fn shown(places: &[Where]) -> String {
    let quoted: Vec<_> = places.iter().map(|place| format!("\"{place}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// The rules of jurisdictions, as configured.
#[derive(Debug, Clone, Default)]
pub struct Processing {
    rules: BTreeMap<Jurisdiction, Vec<Where>>,
}

impl Processing {
    /// Says where records that are at home in a jurisdiction may be processed.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) without a place, or with too many.
    pub fn add(&mut self, jurisdiction: Jurisdiction, mut places: Vec<Where>) -> Result<()> {
        places.sort();
        places.dedup();
        if places.is_empty() || places.len() > Where::COUNT_MAX {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("records of {jurisdiction} may be processed nowhere, or in too many places"),
            )
            .rule(format!("1 to {} jurisdictions and regions", Where::COUNT_MAX)));
        }
        self.rules.insert(jurisdiction, places);
        Ok(())
    }

    /// Where records of this home may be processed.
    #[must_use]
    pub fn of(&self, home: &Place) -> Vec<Where> {
        let rule = self.rules.get(&home.jurisdiction).cloned();
        rule.unwrap_or_else(|| vec![Where::Jurisdiction(home.jurisdiction.clone())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_places_read_back_and_have_one_encoding() {
        let lists: [&[&str]; 4] = [&[], &["EU"], &["EU", "GB", "us-east-1"], &["1"]];
        for list in lists {
            let places: Vec<Where> = list.iter().map(|name| name.parse().unwrap()).collect();
            let mut out = Encoder::new();
            Where::encode_all(&places, &mut out).unwrap();
            let bytes = out.finish();
            assert_eq!(Where::decode_all(&mut Decoder::new(&bytes)).unwrap(), places);
            for length in 0..bytes.len() {
                Where::decode_all(&mut Decoder::new(&bytes[..length])).unwrap_err();
            }
        }
        let mut out = Encoder::new();
        Where::encode_all(&["GB".parse().unwrap(), "EU".parse().unwrap()], &mut out).unwrap();
        Where::decode_all(&mut Decoder::new(&out.finish())).unwrap_err();
        assert_eq!("eu central".parse::<Where>().unwrap_err().code(), Code::NameInvalid);
    }
}
