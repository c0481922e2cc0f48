//! Encryption contexts: what is authenticated with every key that a key service wraps.

use std::fmt;

use crate::period::Period;
use crate::region::Region;
use crate::scope::TenantId;
use crate::wire;

/// What kind of key a wrap or a row holds. A wrap of one kind never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// The only keys that a key service wraps.
    Branch = 0x01,
    /// The keys of scopes and periods, and of the region itself.
    Tenant = 0x02,
    /// The private half of a key pair that posts seal to on one day.
    Post = 0x03,
    /// The keys of a scope's sealed records of one day.
    Day = 0x04,
}

impl KeyKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [KeyKind; 4] = [KeyKind::Branch, KeyKind::Tenant, KeyKind::Post, KeyKind::Day];

    /// The name, as it stands in contexts and audit events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Branch => "branch-key",
            KeyKind::Tenant => "tenant-key",
            KeyKind::Post => "post-key",
            KeyKind::Day => "day-key",
        }
    }

    /// The number, as it stands in rows and associated data.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            KeyKind::Branch => 0x01,
            KeyKind::Tenant => 0x02,
            KeyKind::Post => 0x03,
            KeyKind::Day => 0x04,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is authenticated with a key that a key service wraps: a fixed set of names.
///
/// A key service logs it in clear (AWS: CloudTrail), so there is no way to put anything of a
/// subscriber into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionContext {
    /// The region whose key it is.
    pub region: Region,
    /// Who owns the key: the region itself, or a tenant with custody of its own.
    pub owner: TenantId,
    /// The period that the key is for.
    pub period: Period,
    /// What kind of key.
    pub kind: KeyKind,
    /// Which version of the key, from 1.
    pub version: u32,
    /// Which writing of the key's row, from 1.
    pub generation: u64,
    /// Where several must agree, which share this wrap holds.
    pub share: Option<Share>,
}

/// One of the shares of a key that opens with all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its place in the row, from 1.
    pub index: u8,
    /// How many there are.
    pub of: u8,
}

impl EncryptionContext {
    /// The pairs, sorted by name.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("domicile:generation", self.generation.to_string()),
            ("domicile:kind", self.kind.to_string()),
            ("domicile:owner", self.owner.to_string()),
            ("domicile:period", self.period.to_string()),
            ("domicile:region", self.region.to_string()),
        ];
        pairs.extend(self.share.map(|share| ("domicile:share", format!("{}/{}", share.index, share.of))));
        pairs.push(("domicile:version", self.version.to_string()));
        pairs
    }

    /// The associated data of a wrap: `label`, then names and values in order.
    #[must_use]
    pub fn encode(&self, label: &str) -> Vec<u8> {
        let pairs = self.pairs();
        let mut list: Vec<&[u8]> = vec![label.as_bytes()];
        for (name, value) in &pairs {
            list.push(name.as_bytes());
            list.push(value.as_bytes());
        }
        wire::parts(&list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_name_no_subscriber() {
        let context = EncryptionContext {
            region: "eu-central-1".parse().unwrap(),
            owner: TenantId::REGION,
            period: "2026-11".parse().unwrap(),
            kind: KeyKind::Branch,
            version: 1,
            generation: 1,
            share: Some(Share { index: 1, of: 2 }),
        };
        let names: Vec<_> = context.pairs().into_iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted());
        assert!(names.iter().all(|name| name.starts_with("domicile:")));
        assert_eq!(EncryptionContext { share: None, ..context }.pairs().len(), 6);
    }
}
