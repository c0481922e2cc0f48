//! Who a post is, and for whom it may seal.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::home::Types;
use crate::name::{Name, name_traits};
use crate::scope::{Scope, TenantId};
use crate::wire::{Decoder, Encoder, Malformed};

/// The name of a post: `[a-z0-9.-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(Name);

impl PostId {
    /// The longest name, in octets.
    pub const LENGTH_MAX: usize = 64;
}

impl FromStr for PostId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Name::checked(text, "post", Self::LENGTH_MAX, "a-z, 0-9, '.' and '-'", |octet| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'.' | b'-')
        })
        .map(Self)
    }
}

name_traits!(PostId);

/// Records that a post may seal: a tenant's, of one type or of all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostScope {
    /// Whose.
    pub tenant: TenantId,
    /// Of which types.
    pub types: Types,
}

impl PostScope {
    /// The most scopes of one post.
    pub const COUNT_MAX: usize = 4096;

    /// Whether it allows a scope.
    #[must_use]
    pub fn covers(&self, scope: &Scope) -> bool {
        self.tenant == scope.tenant && self.types.cover(&scope.record_type)
    }
}

impl fmt::Display for PostScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.types)
    }
}

impl FromStr for PostScope {
    type Err = Error;

    /// Reads `acme/voice` or `acme/all`.
    fn from_str(text: &str) -> Result<Self> {
        let (tenant, types) = text.split_once('/').ok_or_else(|| {
            Error::new(Code::NameInvalid, "not a scope").rule("a scope is written TENANT/TYPE or TENANT/all")
        })?;
        Ok(Self { tenant: tenant.parse()?, types: types.parse()? })
    }
}

impl PostScope {
    /// Writes scopes, which rise strictly.
    pub(crate) fn encode_list(out: &mut Encoder, scopes: &[PostScope]) -> Result<(), Malformed> {
        if !is_canonical(scopes) {
            return Err(Malformed { what: "scopes of a post", at: out.len() });
        }
        out.count(scopes.len(), "scopes of a post")?;
        for scope in scopes {
            out.short(scope.tenant.as_str().as_bytes(), "tenant")?
                .short(scope.types.as_str().as_bytes(), "record type")?;
        }
        Ok(())
    }

    /// Reads them back.
    pub(crate) fn decode_list(input: &mut Decoder<'_>) -> Result<Vec<PostScope>, Malformed> {
        let bad = input.malformed("scopes of a post");
        let count = input.count(4, "scopes of a post")?;
        if count > PostScope::COUNT_MAX {
            return Err(bad);
        }
        let mut scopes = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = input.text("tenant")?.parse().map_err(|_| bad)?;
            scopes.push(PostScope { tenant, types: input.text("record type")?.parse().map_err(|_| bad)? });
        }
        if is_canonical(&scopes) { Ok(scopes) } else { Err(bad) }
    }
}

fn is_canonical(scopes: &[PostScope]) -> bool {
    scopes.len() <= PostScope::COUNT_MAX && scopes.is_sorted_by(|left, right| left < right)
}
