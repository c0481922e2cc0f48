//! Rows of the key store: which key, what it may do, and its sealed bytes.

use std::fmt;

use crate::context::KeyKind;
use crate::hex;
use crate::period::Period;
use crate::region::Region;
use crate::scope::{RecordType, Scope, TenantId};
use crate::wire;

/// Whose key it is and for when; versions of a key share a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeySlot {
    /// What kind of key.
    pub kind: KeyKind,
    /// The region that the key belongs to.
    pub region: Region,
    /// The scope; for a branch key, its owner and `segment`.
    pub scope: Scope,
    /// The period; for a branch key, a month.
    pub period: Period,
}

impl KeySlot {
    /// The slot of a branch key of a month: the region's own, or that of a tenant with custody of its own.
    #[must_use]
    pub fn branch(region: &Region, owner: &TenantId, month: Period) -> Self {
        let scope = Scope { tenant: owner.clone(), record_type: RecordType::SEGMENT };
        Self { kind: KeyKind::Branch, region: region.clone(), scope, period: month }
    }

    /// The slot of a tenant key.
    #[must_use]
    pub fn tenant(region: &Region, scope: &Scope, period: Period) -> Self {
        Self { kind: KeyKind::Tenant, region: region.clone(), scope: scope.clone(), period }
    }

    /// The slot of the key that posts seal to on a day.
    #[must_use]
    pub fn post(region: &Region, day: Period) -> Self {
        Self { kind: KeyKind::Post, region: region.clone(), scope: Scope::of_region(), period: day }
    }

    /// The slot of the keys of a scope's sealed records of a day.
    #[must_use]
    pub fn day(region: &Region, scope: &Scope, day: Period) -> Self {
        Self { kind: KeyKind::Day, region: region.clone(), scope: scope.clone(), period: day }
    }
}

impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} for {} in {}", self.kind, self.scope, self.period, self.region)
    }
}

/// Which key exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyIdentity {
    /// Whose and for when.
    pub slot: KeySlot,
    /// Which version, from 1.
    pub version: u32,
}

/// What a key may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Seals and opens.
    Active,
    /// Opens what it sealed before.
    DecryptOnly,
    /// Is gone.
    Destroyed,
}

impl KeyState {
    /// The number, as it stands in rows and associated data.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            KeyState::Active => 0x01,
            KeyState::DecryptOnly => 0x02,
            KeyState::Destroyed => 0x03,
        }
    }

    /// The state with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [KeyState::Active, KeyState::DecryptOnly, KeyState::Destroyed]
            .into_iter()
            .find(|state| state.code() == code)
    }

    /// The name, as it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Active => "active",
            KeyState::DecryptOnly => "decrypt-only",
            KeyState::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How wrapped keys name the key that wrapped them: the first 16 octets of its first commitment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(pub [u8; 16]);

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({self})")
    }
}

/// How sealed records name the day key that sealed them: the first 8 octets of its commitment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHandle(pub [u8; 8]);

impl KeyHandle {
    /// The handle of the key with this commitment.
    #[must_use]
    pub fn of(commitment: &[u8; 32]) -> Self {
        let mut handle = Self([0; 8]);
        handle.0.iter_mut().zip(commitment).for_each(|(to, from)| *to = *from);
        handle
    }

    /// The name of its row: the handle, and zeros. Names are unique in a store, and so handles are.
    #[must_use]
    pub fn name(self) -> KeyName {
        let mut name = KeyName([0; 16]);
        name.0.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        name
    }
}

impl fmt::Display for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHandle({self})")
    }
}

/// One row of the key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Which key.
    pub identity: KeyIdentity,
    /// Which writing of the row, from 1; authenticated with the wrap.
    pub generation: u64,
    /// What the key may do; authenticated with the wrap.
    pub state: KeyState,
    /// What wrapped keys call it.
    pub name: KeyName,
    /// Commits to the identity, the generation and the key.
    pub commitment: [u8; 32],
    /// For a tenant or post key, the version of the branch key that seals it; otherwise 0.
    pub parent_version: u32,
    /// The key, wrapped by a key service or by a leaf, or sealed under a branch key.
    pub sealed: Vec<u8>,
}

impl KeyRow {
    /// In a parent's version: the branch key is the tenant's own, and not the region's.
    pub(crate) const OWN_BRANCH: u32 = 1 << 31;

    /// Where in a day key's `sealed` the name of its tenant key begins, so that a store is checked without a key.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) const DAY_PARENT_AT: usize = 2;

    /// The branch key that a tenant or post key is sealed under: whose, and which version.
    #[must_use]
    pub fn parent(&self) -> (TenantId, u32) {
        let own = self.parent_version & Self::OWN_BRANCH != 0;
        let owner = if own { self.identity.slot.scope.tenant.clone() } else { TenantId::REGION };
        (owner, self.parent_version & !Self::OWN_BRANCH)
    }

    /// The branch key that must stand for this row to be of use; none of a branch key, of a day key, which lies under a
    /// leaf of a tenant key, and of what is destroyed.
    #[must_use]
    pub fn stands_on(&self) -> Option<KeyIdentity> {
        let lies_under_none = matches!(self.identity.slot.kind, KeyKind::Branch | KeyKind::Day);
        if lies_under_none || self.state == KeyState::Destroyed {
            return None;
        }
        let (owner, version) = self.parent();
        let KeySlot { region, period, .. } = &self.identity.slot;
        Some(KeyIdentity { slot: KeySlot::branch(region, &owner, period.month()), version })
    }

    /// Whether this is what is left of a branch key: nothing may lie under it.
    pub(crate) fn ends_a_branch(&self) -> bool {
        self.identity.slot.kind == KeyKind::Branch && self.state == KeyState::Destroyed
    }

    /// What is authenticated with a sealed key: everything in the row but the sealed key itself.
    #[must_use]
    pub fn associated(&self, label: &str) -> Vec<u8> {
        let slot = &self.identity.slot;
        wire::parts(&[
            label.as_bytes(),
            &[slot.kind.code()],
            slot.region.as_str().as_bytes(),
            slot.scope.tenant.as_str().as_bytes(),
            slot.scope.record_type.as_str().as_bytes(),
            slot.period.to_string().as_bytes(),
            &self.identity.version.to_be_bytes(),
            &self.generation.to_be_bytes(),
            &[self.state.code()],
            &self.name.0,
            &self.commitment,
            &self.parent_version.to_be_bytes(),
        ])
    }
}
