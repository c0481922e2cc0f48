//! The names of keys at AWS KMS.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::region::Region;

/// The ARN of a key or an alias of AWS KMS: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `…:alias/NAME`.
///
/// A key is always named so, and never by its id or a bare alias: those mean another key in another account or region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arn {
    text: String,
    region: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Key,
    MultiRegionKey,
    Alias,
}

/// No ARN is longer, so that its length fits an octet (KEY-21).
const ARN_BYTES_MAX: usize = 255;

impl Arn {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_alias(&self) -> bool {
        self.kind == Kind::Alias
    }

    /// Whether the key's material may be in other regions too.
    pub(super) fn is_multi_region(&self) -> bool {
        self.kind == Kind::MultiRegionKey
    }

    pub(super) fn is_in(&self, region: &Region) -> bool {
        self.region == region.as_str()
    }
}

impl FromStr for Arn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let mut fields = text.split(':');
            let mut field = || fields.next().filter(|field| !field.is_empty());
            let (arn, partition, service) = (field()?, field()?, field()?);
            let (region, account, resource) = (field()?, field()?, field()?);
            let named = |name: &str, more: &str| {
                let of = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
                !name.is_empty() && name.chars().all(of)
            };
            let kind = match resource.split_once('/')? {
                ("key", id) if named(id, "-") && id.starts_with("mrk-") => Kind::MultiRegionKey,
                ("key", id) if named(id, "-") => Kind::Key,
                ("alias", name) if named(name, "-_/") => Kind::Alias,
                _ => return None,
            };
            let whole = fields.next().is_none() && text.len() <= ARN_BYTES_MAX;
            let account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
            let place = partition.starts_with("aws") && named(partition, "-") && named(region, "-");
            let region = region.to_owned();
            (whole && account && place && (arn, service) == ("arn", "kms")).then(|| Self {
                text: text.to_owned(),
                region,
                kind,
            })
        };
        parse().ok_or_else(|| {
            Error::new(Code::ConfigInvalid, format!("{text:?} is not the ARN of a key at AWS KMS"))
                .rule("a key is named arn:aws:kms:REGION:ACCOUNT:key/ID, or …:alias/NAME")
        })
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_read_whole_or_not_at_all() {
        let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let parsed: Arn = key.parse().unwrap();
        assert!(!parsed.is_alias() && !parsed.is_multi_region());
        assert!(
            parsed.is_in(&"eu-central-1".parse().unwrap()) && !parsed.is_in(&"eu-central".parse().unwrap())
        );
        assert!(
            "arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/a/b_c".parse::<Arn>().unwrap().is_alias()
        );
        assert!("arn:aws:kms:eu-west-1:123456789012:key/mrk-12ab".parse::<Arn>().unwrap().is_multi_region());
        let long = format!("arn:aws:kms:eu-west-1:123456789012:alias/{}", "a".repeat(220));
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/root",
            "arn:aws:s3:eu-west-1:123456789012:key/a",
            "arn:aws:kms::123456789012:key/a",
            "arn:aws:kms:eu-west-1:12345:key/a",
            "arn:aws:kms:eu-west-1:123456789012:key/",
            "arn:aws:kms:eu-west-1:123456789012:key/a:b",
            "arn:aws:kms:eu-west-1:123456789012:key/a b",
            "arn:aws:kms:eu-west-1:123456789012:grant/a",
            "urn:aws:kms:eu-west-1:123456789012:key/a",
            "arn:evil:kms:eu-west-1:123456789012:key/a",
            &long,
        ] {
            assert_eq!(bad.parse::<Arn>().unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
