//! The guard: who may use a scope's keys, where, and why. Its answer is a value, and without it no key
//! is reached.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::home::Home;
use crate::processing::{Processing, Ruling, Where, shown};
use crate::region::Place;
use crate::scope::Scope;

/// Why something is opened. It is the caller's claim, kept in the audit chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Purpose {
    /// Invoices and what they rest on.
    Billing,
    /// A customer's question.
    Support,
    /// Finding a fault.
    Debugging,
    /// A request of a person under the GDPR or the CCPA; carries its reference.
    SubjectRequest,
    /// A request of a court or an authority; carries its reference.
    LegalRequest,
    /// Handing a customer its own data.
    Portability,
    /// Checking that what was sealed can be opened.
    Verification,
    /// Rewriting what was sealed.
    Maintenance,
}

impl Purpose {
    /// Every purpose, in the order of the documentation.
    pub const ALL: [Purpose; 8] = [
        Purpose::Billing,
        Purpose::Support,
        Purpose::Debugging,
        Purpose::SubjectRequest,
        Purpose::LegalRequest,
        Purpose::Portability,
        Purpose::Verification,
        Purpose::Maintenance,
    ];

    /// The name, as it is spelled in arguments and audit events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Billing => "billing",
            Purpose::Support => "support",
            Purpose::Debugging => "debugging",
            Purpose::SubjectRequest => "subject-request",
            Purpose::LegalRequest => "legal-request",
            Purpose::Portability => "portability",
            Purpose::Verification => "verification",
            Purpose::Maintenance => "maintenance",
        }
    }

    /// Whether somebody's request stands behind it, whose reference must be given.
    #[must_use]
    pub fn needs_reference(self) -> bool {
        matches!(self, Purpose::SubjectRequest | Purpose::LegalRequest)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|purpose| purpose.as_str()).collect();
            Error::new(Code::NameInvalid, format!("there is no purpose {text:?}"))
                .rule(format!("a purpose is one of {}", names.join(", ")))
        })
    }
}

/// A purpose with the reference of the request behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    purpose: Purpose,
    reference: Option<String>,
}

impl Request {
    /// A purpose with its reference, such as a ticket or a file number.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for a reference that is not 1 to 128 printable ASCII
    /// characters, or that is a telephone number: the reference stands in the audit chain in clear.
    pub fn new(purpose: Purpose, reference: Option<&str>) -> Result<Self> {
        const LENGTH_MAX: usize = 128;
        if let Some(reference) = reference {
            let printable = reference.bytes().all(|octet| (0x20..0x7f).contains(&octet));
            if reference.is_empty() || reference.len() > LENGTH_MAX || !printable {
                return Err(Error::new(Code::NameInvalid, "this is not a reference")
                    .rule(format!("a reference has 1 to {LENGTH_MAX} printable ASCII characters")));
            }
            if looks_like_a_number(reference) {
                return Err(Error::new(Code::NameInvalid, "a telephone number is no reference")
                    .rule("references stand in the audit chain in clear")
                    .advise("give the number of the ticket or of the file"));
            }
        }
        Ok(Self { purpose, reference: reference.map(str::to_owned) })
    }

    /// The purpose.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The reference, if one was given.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }
}

impl From<Purpose> for Request {
    fn from(purpose: Purpose) -> Self {
        Self { purpose, reference: None }
    }
}

/// `+` and seven to fifteen digits, with the usual separators.
fn looks_like_a_number(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('+') else { return false };
    let digits = rest.bytes().filter(u8::is_ascii_digit).count();
    let separators = rest.bytes().all(|octet| octet.is_ascii_digit() || b" -./()".contains(&octet));
    separators && (7..=15).contains(&digits)
}

/// What a permit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Sealing new records.
    Seal,
    /// Opening what was sealed.
    Open(Request),
    /// Changing keys: erasing, rotating, holding. Nothing is opened with it.
    Manage(Request),
}

impl Action {
    /// The word for it: the purpose, or `sealing`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Action::Seal => "sealing",
            Action::Open(request) | Action::Manage(request) => request.purpose().as_str(),
        }
    }
}

/// Proof that the guard allowed one use of one scope's keys: here, for a stated purpose.
///
/// Only [`Guard`] makes one. Not `Clone`: one permit, one use.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    scope: Scope,
    home: Place,
    action: Action,
}

impl Permit {
    /// Whose keys.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The home of the scope.
    #[must_use]
    pub fn home(&self) -> &Place {
        &self.home
    }

    /// For what.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }
}

/// Knows where this process is, and says what may be done here.
///
/// It is asked before any key service and again once a header has been authenticated. Take it out, and
/// unwrapping still fails on every host that has no credential for the home's root key.
#[derive(Debug, Clone)]
pub struct Guard {
    here: Place,
    processing: Processing,
}

impl Guard {
    /// The guard of a process that is `here`.
    pub(crate) fn new(here: Place, processing: Processing) -> Self {
        Self { here, processing }
    }

    /// Where this process is.
    #[must_use]
    pub fn here(&self) -> &Place {
        &self.here
    }

    /// Where records of a home may be processed, where that home says nothing of their scope.
    #[must_use]
    pub fn processing(&self) -> &Processing {
        &self.processing
    }

    /// Allows one use of the keys of a scope that has chosen its home; `rule` is what that home says of the scope.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) when records of this scope may not be processed here;
    /// [`HomePending`](Code::HomePending) while the home has not signed;
    /// [`PurposeReference`](Code::PurposeReference) when the purpose needs a reference.
    pub(crate) fn permit(&self, home: &Home, rule: Option<&Ruling>, action: Action) -> Result<Permit> {
        self.check_scope(&home.place, rule).map_err(|error| error.at(format!("scope {}", home.scope)))?;
        check_reference(&action).map_err(|error| error.at(format!("scope {}", home.scope)))?;
        home.check_signed()?;
        Ok(Permit { scope: home.scope.clone(), home: home.place.clone(), action })
    }

    /// Allows one use of a region's own keys, which every segment of the region needs. A place where any scope of the
    /// region may be processed needs them too: `rules` are those that the region said.
    ///
    /// # Errors
    /// As [`permit`](Self::permit).
    pub(crate) fn permit_region(&self, place: &Place, rules: &[Ruling], action: Action) -> Result<Permit> {
        self.check_region(place, rules)?;
        check_reference(&action)?;
        Ok(Permit { scope: Scope::of_region(), home: place.clone(), action })
    }

    /// Whether a region's own keys may be used here.
    pub(crate) fn check_region(&self, place: &Place, rules: &[Ruling]) -> Result<()> {
        if rules.iter().any(|rule| self.is_among(&rule.places)) { Ok(()) } else { self.check_place(place) }
    }

    /// Whether records that are at home in `place` may be processed here, where their home says nothing of their scope.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) with home, this place and the rule.
    pub fn check_place(&self, place: &Place) -> Result<()> {
        let places = self.processing.of(place);
        if self.is_among(&places) { Ok(()) } else { Err(self.refusal(place, &places)) }
    }

    /// The same for a scope of which the home may say something.
    pub(crate) fn check_scope(&self, place: &Place, rule: Option<&Ruling>) -> Result<()> {
        match rule {
            None => self.check_place(place),
            Some(rule) if self.is_among(&rule.places) => Ok(()),
            Some(rule) => {
                let refusal = self.refusal(place, &rule.places);
                Err(refusal.rule(format!("processing = {} ({})", shown(&rule.places), rule.of)))
            }
        }
    }

    fn is_among(&self, places: &[Where]) -> bool {
        places.iter().any(|place| place.holds(&self.here))
    }

    fn refusal(&self, home: &Place, places: &[Where]) -> Error {
        let names: Vec<_> = places.iter().map(ToString::to_string).collect();
        Error::new(
            Code::HomeRefused,
            format!("these records are at home in {home}; this host is in {}", self.here),
        )
        .rule(format!("processing = {}", shown(places)))
        .advise(format!("do it on a host in {}", names.join(" or ")))
    }
}

fn check_reference(action: &Action) -> Result<()> {
    match action {
        Action::Open(request) | Action::Manage(request)
            if request.purpose().needs_reference() && request.reference().is_none() =>
        {
            Err(Error::new(
                Code::PurposeReference,
                format!("the purpose {} needs the reference of its request", request.purpose()),
            )
            .advise("give it with --reference, as a ticket or file number"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Permit: Clone, Copy, Default, serde::Serialize);

    fn place(region: &str, jurisdiction: &str) -> Place {
        Place { region: region.parse().unwrap(), jurisdiction: jurisdiction.parse().unwrap() }
    }

    #[test]
    fn another_region_of_the_same_jurisdiction_may_process_and_no_other() {
        let guard = Guard::new(place("eu-central-1", "EU"), Processing::default());
        guard.check_place(&place("eu-central-1", "EU")).unwrap();
        guard.check_place(&place("eu-west-1", "EU")).unwrap();
        let refusal = guard.permit_region(&place("us-east-1", "US"), &[], Action::Seal).unwrap_err();
        assert_eq!(refusal.code(), Code::HomeRefused);
        assert!(refusal.what().contains("us-east-1 (US)") && refusal.what().contains("eu-central-1 (EU)"));
        assert_eq!(refusal.broken_rule(), Some("processing = [\"US\"]"));
    }

    #[test]
    fn a_request_carries_its_reference() {
        let guard = Guard::new(place("eu-central-1", "EU"), Processing::default());
        let home = place("eu-central-1", "EU");
        let without = Action::Open(Purpose::SubjectRequest.into());
        assert_eq!(guard.permit_region(&home, &[], without).unwrap_err().code(), Code::PurposeReference);
        let with = Action::Open(Request::new(Purpose::SubjectRequest, Some("DSR-2026-17")).unwrap());
        let _permit = guard.permit_region(&home, &[], with).unwrap();
        for bad in ["", "+49 30 23125 000", "+493023125000", "a\nb", "é", &"x".repeat(129)] {
            assert_eq!(
                Request::new(Purpose::Support, Some(bad)).unwrap_err().code(),
                Code::NameInvalid,
                "{bad}"
            );
        }
        for good in ["4711", "T-1", "+x"] {
            Request::new(Purpose::Support, Some(good)).unwrap();
        }
    }

    #[test]
    fn purposes_are_read_as_they_are_shown() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.to_string().parse::<Purpose>().unwrap(), purpose);
        }
        assert!("Billing".parse::<Purpose>().is_err());
    }
}
