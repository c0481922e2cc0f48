//! The name of one end of a connection: who issues it, where it is, what it does.

use std::fmt;
use std::str::FromStr;

use domicile::{Code, Error, Region, Result};

/// `spiffe://<trust domain>/region/<region>/<service>`: the one URI in a certificate that says where its
/// holder is.
///
/// The form is that of SPIFFE (SPIFFE-ID, section 2), with the path fixed: exactly three segments, the first
/// of them `region`. A region in a name is a claim; only the trust anchors of that very region make it true.
///
/// ```
/// use domicile_transport::Identity;
///
/// let identity: Identity = "spiffe://example.org/region/eu-central-1/cdr-writer".parse()?;
/// assert_eq!(identity.region().as_str(), "eu-central-1");
/// # Ok::<(), domicile::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    trust_domain: String,
    region: Region,
    service: String,
}

impl Identity {
    /// The longest identity, in octets.
    pub const LENGTH_MAX: usize = 2048;

    /// The longest trust domain, in octets.
    pub const TRUST_DOMAIN_LENGTH_MAX: usize = 255;

    /// An identity of its parts.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid) for a part that SPIFFE does not allow.
    pub fn new(trust_domain: &str, region: Region, service: &str) -> Result<Self> {
        let is_domain =
            |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b".-_".contains(&octet);
        let is_segment = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
        if trust_domain.is_empty()
            || trust_domain.len() > Self::TRUST_DOMAIN_LENGTH_MAX
            || !trust_domain.bytes().all(is_domain)
        {
            return Err(invalid("a trust domain has 1 to 255 of a-z, 0-9, '.', '-' and '_'"));
        }
        if service.is_empty() || matches!(service, "." | "..") || !service.bytes().all(is_segment) {
            return Err(invalid(
                "a service has at least one of A-Z, a-z, 0-9, '.', '-' and '_', and is neither '.' nor '..'",
            ));
        }
        let identity = Self { trust_domain: trust_domain.to_owned(), region, service: service.to_owned() };
        if identity.to_string().len() > Self::LENGTH_MAX {
            return Err(invalid("an identity has at most 2,048 octets"));
        }
        Ok(identity)
    }

    /// Who issues it.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Where its holder says it is.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What its holder does.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/region/{}/{}", self.trust_domain, self.region, self.service)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = || invalid("an identity is written spiffe://<trust domain>/region/<region>/<service>");
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let (Some(trust_domain), Some("region"), Some(region), Some(service), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        Self::new(trust_domain, region.parse()?, service)
    }
}

fn invalid(rule: &str) -> Error {
    Error::new(Code::NameInvalid, "this is no identity with a place").rule(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        for text in [
            "spiffe://example.org/region/eu-central-1/cdr-writer",
            "spiffe://a_b-c.1/region/us-east-1/Store.2_x",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            "https://example.org/region/eu-central-1/x",
            "SPIFFE://example.org/region/eu-central-1/x",
            "spiffe:///region/eu-central-1/x",
            "spiffe://Example.org/region/eu-central-1/x",
            "spiffe://example.org:443/region/eu-central-1/x",
            "spiffe://user@example.org/region/eu-central-1/x",
            "spiffe://example.org/region/eu-central-1",
            "spiffe://example.org/region/eu-central-1/",
            "spiffe://example.org/region/eu-central-1/x/",
            "spiffe://example.org/region/eu-central-1/x/y",
            "spiffe://example.org/Region/eu-central-1/x",
            "spiffe://example.org/region/EU/x",
            "spiffe://example.org/region/eu%2Dcentral/x",
            "spiffe://example.org/region/eu-central-1/..",
            "spiffe://example.org/region/eu-central-1/x?y",
            "spiffe://example.org/region/eu-central-1/x#y",
            "spiffe://example.org//region/eu-central-1/x",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap_err().code(), Code::NameInvalid, "{text}");
        }
    }
}
