//! Whose records, and of what kind: the unit that chooses a home.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::name::{Name, name_traits};

/// The customer (account) whose data it is: `[A-Za-z0-9._-]{1,64}`, compared as bytes.
///
/// An opaque id, never a name, number or address of a person. Ids that begin with `_` are reserved;
/// parsing refuses them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Name);

impl TenantId {
    /// The longest id, in octets.
    pub const LENGTH_MAX: usize = 64;

    /// The region itself, which owns lane 0 of its segments and its branch keys.
    pub const REGION: TenantId = TenantId(Name::Static("_region"));

    /// Whether this is one of Domicile's own.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with('_')
    }

    /// Reads an id from a stored structure, where reserved ones occur.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for what is no id.
    pub fn stored(text: &str) -> Result<Self> {
        Name::checked(text, "tenant", Self::LENGTH_MAX, "A-Z, a-z, 0-9, '.', '_' and '-'", |octet| {
            octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-')
        })
        .map(Self)
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let tenant = Self::stored(text)?;
        if tenant.is_reserved() {
            return Err(Error::new(Code::NameReserved, format!("the tenant {text:?} is reserved"))
                .rule("tenants that begin with _ are Domicile's own"));
        }
        Ok(tenant)
    }
}

name_traits!(TenantId);

/// What kind of record: an open name, `[a-z0-9-]{1,32}`.
///
/// The constants are the well-known ones; any other is fine, and [`near_miss`](Self::near_miss) tells
/// of a probable slip. `all` and `segment` are reserved; parsing refuses them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(Name);

macro_rules! well_known {
    ($($(#[$doc:meta])* $constant:ident = $text:literal;)+) => {
        impl RecordType {
            $($(#[$doc])* pub const $constant: RecordType = RecordType(Name::Static($text));)+

            /// The well-known record types.
            pub const WELL_KNOWN: &'static [RecordType] = &[$(Self::$constant,)+];
        }
    };
}

well_known! {
    /// Calls.
    VOICE = "voice";
    /// Commands and events of programmable calls.
    CALL_CONTROL = "call-control";
    /// Recordings of calls.
    CALL_RECORDING = "call-recording";
    /// Calls from browsers and apps.
    WEBRTC = "webrtc";
    /// Faxes.
    FAX = "fax";
    /// SMS and MMS.
    MESSAGING = "messaging";
    /// WhatsApp messages.
    WHATSAPP = "whatsapp";
    /// Conferences and their participants.
    CONFERENCE = "conference";
    /// Media forked to a third party.
    FORKING = "forking";
    /// Stored media.
    MEDIA_STORAGE = "media-storage";
    /// Answering machine detection.
    PREMIUM_AMD = "premium-amd";
    /// Transcriptions.
    SPEECH_TO_TEXT = "speech-to-text";
    /// Verification of numbers.
    VERIFY = "verify";
    /// Video rooms.
    VIDEO = "video";
    /// SIM cards' sessions.
    WIRELESS = "wireless";
}

impl RecordType {
    /// The longest name, in octets.
    pub const LENGTH_MAX: usize = 32;

    /// The type of lane 0, and of the region's own key.
    pub const SEGMENT: RecordType = RecordType(Name::Static("segment"));

    /// Reads a type from a stored structure, where `segment` occurs.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for what is no type.
    pub fn stored(text: &str) -> Result<Self> {
        Name::checked(text, "record type", Self::LENGTH_MAX, "a-z, 0-9 and -", |octet| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-'
        })
        .map(Self)
    }

    /// The well-known type that this is probably meant to be: one slip of the finger away.
    #[must_use]
    pub fn near_miss(&self) -> Option<&'static RecordType> {
        if Self::WELL_KNOWN.contains(self) {
            return None;
        }
        let alike = |known: &&RecordType| {
            let bare = |name: &str| name.replace('-', "");
            bare(known.as_str()) == bare(self.as_str()) || edits_at_most_one(known.as_str(), self.as_str())
        };
        Self::WELL_KNOWN.iter().find(alike)
    }
}

/// Whether one insertion, deletion, replacement or swap of neighbours makes `left` into `right`.
fn edits_at_most_one(left: &str, right: &str) -> bool {
    let same_start = left.bytes().zip(right.bytes()).take_while(|(a, b)| a == b).count();
    let (left, right) = (left.get(same_start..).unwrap_or(""), right.get(same_start..).unwrap_or(""));
    let same_end = left.bytes().rev().zip(right.bytes().rev()).take_while(|(a, b)| a == b).count();
    let middle = |text: &str| text.len() - same_end;
    match (middle(left), middle(right)) {
        (0 | 1, 0 | 1) => true,
        (2, 2) => left
            .bytes()
            .take(2)
            .eq([right.as_bytes().get(1), right.as_bytes().first()].into_iter().flatten().copied()),
        _ => false,
    }
}

impl FromStr for RecordType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let record_type = Self::stored(text)?;
        if matches!(text, "all" | "segment") {
            return Err(Error::new(Code::NameReserved, format!("the record type {text:?} is reserved"))
                .rule("`all` stands for every type, and `segment` for a segment's own lane"));
        }
        Ok(record_type)
    }
}

name_traits!(RecordType);

/// A tenant and a record type: the unit that chooses a home, and whose keys are its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Whose records.
    pub tenant: TenantId,
    /// What kind of records.
    pub record_type: RecordType,
}

impl Scope {
    /// A customer's scope, for example `Scope::new("acme", RecordType::VOICE)`.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) or [`NameReserved`](Code::NameReserved) for the tenant.
    pub fn new(tenant: &str, record_type: RecordType) -> Result<Self> {
        Ok(Self { tenant: tenant.parse()?, record_type })
    }

    /// The region's own scope: lane 0, and the key whose leaves are shared by whole segments.
    #[must_use]
    pub fn of_region() -> Self {
        Self { tenant: TenantId::REGION, record_type: RecordType::SEGMENT }
    }

    /// Whether this is the region's own scope.
    #[must_use]
    pub fn is_region(&self) -> bool {
        self.tenant == TenantId::REGION && self.record_type == RecordType::SEGMENT
    }
}

impl fmt::Display for Scope {
    /// Shows `acme/voice`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.record_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tenants_and_types_are_checked_once() {
        for good in ["acme", "t-000042", "A.b_c-9", "493023125000", &"x".repeat(64)] {
            assert_eq!(good.parse::<TenantId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "acmé", "a/b", "a\0", &"x".repeat(65)] {
            assert_eq!(bad.parse::<TenantId>().unwrap_err().code(), Code::NameInvalid, "{bad}");
        }
        assert_eq!("_region".parse::<TenantId>().unwrap_err().code(), Code::NameReserved);
        assert_eq!("all".parse::<RecordType>().unwrap_err().code(), Code::NameReserved);
        assert_eq!("segment".parse::<RecordType>().unwrap_err().code(), Code::NameReserved);
        assert_eq!("Voice".parse::<RecordType>().unwrap_err().code(), Code::NameInvalid);
        assert_eq!("voice".parse::<RecordType>().unwrap(), RecordType::VOICE);
    }

    #[test]
    fn a_slip_of_the_finger_is_noticed() {
        for (slip, meant) in [
            ("voce", "voice"),
            ("vioce", "voice"),
            ("voices", "voice"),
            ("callcontrol", "call-control"),
            ("web-rtc", "webrtc"),
            ("messagin", "messaging"),
        ] {
            let near = slip.parse::<RecordType>().unwrap().near_miss().map(RecordType::as_str);
            assert_eq!(near, Some(meant), "{slip}");
        }
        for other in ["voice", "sip-trunking", "tts", "inference"] {
            assert_eq!(other.parse::<RecordType>().unwrap().near_miss(), None, "{other}");
        }
    }
}
