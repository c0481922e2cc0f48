//! Who a record belongs to, what kind it is, and where such records are at home.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::draw::{STEP, high, low, mix, scaled};

/// Whose records of what kind: what chooses a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Whose records.
    pub tenant: Tenant,
    /// What kind of records.
    pub record_type: RecordType,
    /// Where they are at home.
    pub region: Region,
}

impl Scope {
    /// The header line of a list of homes, which is CSV and has a scope as each row.
    pub const HEADER: &str = "tenant,record_type,region";
}

impl fmt::Display for Scope {
    /// Shows a row of a list of homes: `t-000001,voice,eu-central-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.tenant, self.record_type, self.region)
    }
}

/// A fictional customer, shown as `t-000001`, `t-000002`…
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(u32);

impl Tenant {
    /// The highest number that a name has room for.
    pub const NUMBER_MAX: u32 = 999_999;

    /// The tenant of that number. The first is 1, and it is the one with the most records.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The tenant's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Where this tenant's records of that type are at home, if there are these `regions`.
    ///
    /// Three tenants in four have one home for everything, the fourth has a home for each type. It depends
    /// on what is given here and on nothing else: not on a seed, not on the number of tenants.
    #[must_use]
    #[inline]
    pub fn home(self, record_type: RecordType, regions: &[Region]) -> Region {
        let own = mix(u64::from(self.0).wrapping_mul(STEP));
        let by_type = mix(own.wrapping_add((record_type as u64 + 1).wrapping_mul(STEP)));
        let bits = high(if low(own) & 3 == 3 { by_type } else { own });
        let index = scaled(bits, u32::try_from(regions.len()).unwrap_or(u32::MAX));
        regions.get(index as usize).copied().unwrap_or(Region::UsEast1)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t-{:06}", self.0)
    }
}

/// A name that is not among those there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} {:?}, but {}", self.what, self.name, self.known.join(", "))
    }
}

impl Error for UnknownName {}

/// Makes an enumeration whose variants are numbered from 0 and have a name each.
macro_rules! named {
    (
        $(#[$type_doc:meta])* $type:ident, $what:literal:
        $($(#[$doc:meta])* $variant:ident = $name:literal,)+
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$doc])* $variant,)+
        }

        impl $type {
            /// All there are, in the order of their numbers.
            pub const ALL: &'static [$type] = &[$($type::$variant,)+];

            /// The name, as records and options have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::scope::UnknownName;

            fn from_str(name: &str) -> Result<Self, $crate::scope::UnknownName> {
                match name {
                    $($name => Ok($type::$variant),)+
                    _ => Err($crate::scope::UnknownName::new($what, name, &[$($name,)+])),
                }
            }
        }
    };
}
pub(crate) use named;

impl UnknownName {
    pub(crate) fn new(what: &'static str, name: &str, known: &[&'static str]) -> Self {
        Self { what, name: name.to_owned(), known: known.to_vec() }
    }
}

named! {
    /// What kind of record.
    RecordType, "record type":
    /// Calls.
    Voice = "voice",
    /// Commands and events of programmable calls.
    CallControl = "call-control",
    /// Recordings of calls.
    CallRecording = "call-recording",
    /// Calls from browsers and apps.
    Webrtc = "webrtc",
    /// Faxes.
    Fax = "fax",
    /// SMS and MMS.
    Messaging = "messaging",
    /// WhatsApp messages.
    Whatsapp = "whatsapp",
    /// Conferences.
    Conference = "conference",
    /// Media forked to a third party.
    Forking = "forking",
    /// Stored media.
    MediaStorage = "media-storage",
    /// Answering machine detection.
    PremiumAmd = "premium-amd",
    /// Transcriptions.
    SpeechToText = "speech-to-text",
    /// Verification of numbers.
    Verify = "verify",
    /// Video rooms.
    Video = "video",
    /// SIM cards' sessions.
    Wireless = "wireless",
}

impl RecordType {
    /// The type of that number.
    #[inline]
    pub(crate) fn numbered(number: u32) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or(Self::Voice)
    }
}

named! {
    /// Where records are at home.
    Region, "region":
    /// Frankfurt: EU.
    EuCentral1 = "eu-central-1",
    /// Dublin: EU.
    EuWest1 = "eu-west-1",
    /// London: GB.
    EuWest2 = "eu-west-2",
    /// Virginia: US.
    UsEast1 = "us-east-1",
    /// Oregon: US.
    UsWest2 = "us-west-2",
    /// Sydney: AU.
    ApSoutheast2 = "ap-southeast-2",
}

impl Region {
    /// Whose law holds there: `EU`, `GB`, `US` or `AU`.
    #[must_use]
    pub const fn jurisdiction(self) -> &'static str {
        match self {
            Self::EuCentral1 | Self::EuWest1 => "EU",
            Self::EuWest2 => "GB",
            Self::UsEast1 | Self::UsWest2 => "US",
            Self::ApSoutheast2 => "AU",
        }
    }
}

/// How many records of each type there are, relative to each other.
///
/// Read from a text, `voice,messaging=3` is three messages to one call, and `all` is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix([u32; RecordType::ALL.len()]);

impl Mix {
    /// Records of one type.
    #[must_use]
    pub fn only(record_type: RecordType) -> Self {
        Self([0; RecordType::ALL.len()]).with(record_type, 1)
    }

    /// The same mix but for the weight of one type.
    #[must_use]
    pub fn with(mut self, record_type: RecordType, weight: u32) -> Self {
        if let Some(part) = self.0.get_mut(record_type as usize) {
            *part = weight;
        }
        self
    }

    /// The weight of a type; 0 if there are no such records.
    #[must_use]
    pub fn weight(&self, record_type: RecordType) -> u32 {
        self.0.get(record_type as usize).copied().unwrap_or_default()
    }

    /// The types of which there are records.
    pub fn types(&self) -> impl Iterator<Item = RecordType> + '_ {
        RecordType::ALL.iter().copied().filter(|&record_type| self.weight(record_type) > 0)
    }
}

impl Default for Mix {
    /// Every type, mostly calls and messages.
    fn default() -> Self {
        use RecordType as T;
        let parts = [
            (T::Voice, 320),
            (T::Messaging, 280),
            (T::CallControl, 90),
            (T::Whatsapp, 60),
            (T::CallRecording, 45),
            (T::MediaStorage, 40),
            (T::Webrtc, 35),
            (T::Verify, 30),
            (T::PremiumAmd, 20),
            (T::SpeechToText, 20),
            (T::Wireless, 20),
            (T::Conference, 15),
            (T::Forking, 10),
            (T::Video, 10),
            (T::Fax, 5),
        ];
        let nothing = Self([0; RecordType::ALL.len()]);
        parts.into_iter().fold(nothing, |mix, (record_type, weight)| mix.with(record_type, weight))
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        if text == "all" {
            return Ok(Self::default());
        }
        text.split(',').try_fold(Self([0; RecordType::ALL.len()]), |mix, part| {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let record_type = name.parse().map_err(MixError::Name)?;
            let weight = weight.parse().map_err(|_| MixError::Weight(part.to_owned()))?;
            Ok(mix.with(record_type, weight))
        })
    }
}

/// Why a text is no [`Mix`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MixError {
    /// No such record type.
    Name(UnknownName),
    /// The weight in this part is not a whole number from 0 to 2^32 - 1.
    Weight(String),
}

impl fmt::Display for MixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Weight(part) => write!(f, "the weight in {part:?} is not a whole number below 2^32"),
        }
    }
}

impl Error for MixError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tenants_in_four_have_one_home_for_everything() {
        let one_home = (1..=4000).map(Tenant::new).filter(|tenant| {
            let mut homes = RecordType::ALL.iter().map(|&record_type| tenant.home(record_type, Region::ALL));
            let first = homes.next().unwrap();
            homes.all(|home| home == first)
        });
        assert!((2900..3100).contains(&one_home.count()));
    }

    #[test]
    fn homes_are_where_they_always_were() {
        // Whoever keeps generated records keeps a list of homes with them: these must not move.
        let homes: Vec<&str> =
            (1..=8).map(|number| Tenant::new(number).home(RecordType::Voice, Region::ALL).as_str()).collect();
        let expected = [
            "us-east-1",
            "eu-west-2",
            "ap-southeast-2",
            "ap-southeast-2",
            "eu-west-1",
            "eu-west-1",
            "eu-west-1",
            "us-west-2",
        ];
        assert_eq!(homes, expected);
    }

    #[test]
    fn every_region_is_somebodys_home() {
        for &region in Region::ALL {
            let tenants = (1..=600).map(Tenant::new);
            let at_home =
                tenants.filter(|tenant| tenant.home(RecordType::Voice, Region::ALL) == region).count();
            assert!((70..130).contains(&at_home), "{region}: {at_home}");
        }
    }

    #[test]
    fn a_mix_is_read_from_text() {
        let mix: Mix = "voice,messaging=3".parse().unwrap();
        assert_eq!((mix.weight(RecordType::Voice), mix.weight(RecordType::Messaging)), (1, 3));
        assert_eq!(mix.types().count(), 2);
        assert_eq!("all".parse(), Ok(Mix::default()));
        assert_eq!(Mix::default().types().count(), RecordType::ALL.len());
        let slip = "voise".parse::<Mix>().unwrap_err().to_string();
        assert!(slip.starts_with("there is no record type \"voise\", but voice, call-control,"), "{slip}");
        assert!(matches!("voice=many".parse::<Mix>(), Err(MixError::Weight(_))));
        assert!("".parse::<Mix>().is_err());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for &record_type in RecordType::ALL {
            assert_eq!(record_type.as_str().parse(), Ok(record_type));
            assert_eq!(RecordType::numbered(record_type as u32), record_type);
        }
        for &region in Region::ALL {
            assert_eq!(region.as_str().parse(), Ok(region));
        }
        assert_eq!(Tenant::new(42).to_string(), "t-000042");
    }
}
