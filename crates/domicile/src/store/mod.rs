//! Where wrapped keys, homes and the audit chain are kept: traits, and the embedded default.
//!
//! The key store is the data: what it loses is noise for ever. A key is used once it is durable here.

pub mod conformance;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

use async_trait::async_trait;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::chain::{ChainBeginning, ChainId, SealedEvent};
use crate::context::KeyKind;
use crate::error::Result;
use crate::hex;
use crate::home::{ChosenHome, HomeChoice, SignedStatement};
use crate::period::Period;
use crate::region::Region;
use crate::scope::{Scope, TenantId};
use crate::wire;

/// Whose key it is and for when; versions of a key share a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeySlot {
    /// What kind of key.
    pub kind: KeyKind,
    /// The region that the key belongs to.
    pub region: Region,
    /// The scope; for a branch key, the region's own.
    pub scope: Scope,
    /// The period; for a branch key, a month.
    pub period: Period,
}

impl KeySlot {
    /// The slot of a region's branch key of a month.
    #[must_use]
    pub fn branch(region: &Region, month: Period) -> Self {
        Self { kind: KeyKind::Branch, region: region.clone(), scope: Scope::of_region(), period: month }
    }

    /// The slot of a tenant key.
    #[must_use]
    pub fn tenant(region: &Region, scope: &Scope, period: Period) -> Self {
        Self { kind: KeyKind::Tenant, region: region.clone(), scope: scope.clone(), period }
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
    /// For a tenant key, the version of the branch key that seals it; for a branch key, 0.
    pub parent_version: u32,
    /// The key, wrapped by a key service or sealed under a branch key.
    pub sealed: Vec<u8>,
}

impl KeyRow {
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

/// What came of writing a row that must not exist yet.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a store that answers more must be understood")]
pub enum Inserted {
    /// The row is durable.
    Ours,
    /// Another process was first; this is its row.
    Theirs(Box<KeyRow>),
}

/// A region's key store.
///
/// Guarantees: what a write returned is durable; the first row of an identity wins and no later insert
/// replaces it; a writer number is given once, over all processes and restarts; audit events are kept in
/// the order in which they were appended, and nothing changes or removes them.
#[async_trait]
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// Writes a new row, unless one with the same identity exists.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn insert(&self, row: &KeyRow) -> Result<Inserted>;

    /// The row of the highest version in a slot.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable), or
    /// [`KeyUnverified`](crate::Code::KeyUnverified) for a row that cannot be read.
    async fn newest(&self, slot: &KeySlot) -> Result<Option<KeyRow>>;

    /// The row of one key.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn find(&self, identity: &KeyIdentity) -> Result<Option<KeyRow>>;

    /// The row that wrapped keys name so.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn named(&self, name: KeyName) -> Result<Option<KeyRow>>;

    /// A number that no other process has or had: the upper half of the process's leaves.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn next_writer(&self) -> Result<u32>;

    /// Begins an audit chain.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<()>;

    /// Appends events to a chain, all or none.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn append_events(&self, chain: ChainId, events: &[SealedEvent]) -> Result<()>;

    /// Every chain with its events, oldest first, for verification.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn chains(&self) -> Result<Vec<(ChainBeginning, Vec<SealedEvent>)>>;

    /// Lets go of connections. What is asked of a store that was closed may fail.
    async fn close(&self) {}
}

/// Choices, and what was signed about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedChoices {
    /// The choices, all of one region.
    pub choices: Vec<HomeChoice>,
    /// The statement that names each of them.
    pub statement: SignedStatement,
    /// Whether that region itself signed it.
    pub own: bool,
}

/// What came of choosing homes.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a registry that answers more must be understood")]
pub enum Chosen {
    /// All of them stand, from now or from before.
    Made,
    /// Nothing was written: these contradict an earlier choice, whose region is given.
    Contradicted(Vec<(HomeChoice, Region)>),
}

/// The registry of homes, one for all regions.
///
/// Guarantees: a scope's home is written once, by a primary key and by triggers that refuse update and
/// delete; of two contradicting choices, one is refused, whoever makes them and when. It keeps statements and
/// judges none: whoever reads a home verifies what was signed about it.
#[async_trait]
pub trait HomeRegistry: Send + Sync + fmt::Debug {
    /// What stands in the place of each choice, whichever its region: that of its own types, else `all`. With the
    /// statement of the home itself if there is one, otherwise with the other.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn standing(&self, choices: &[HomeChoice]) -> Result<Vec<Option<ChosenHome>>>;

    /// Makes all choices of all lists, in their order, or none. One that stands already is left as it is.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn choose(&self, lists: &[SignedChoices], now: crate::Time) -> Result<Chosen>;

    /// Keeps another statement about choices that stand. Of each kind, the home's own or not, the first stays.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn add_statement(&self, list: &SignedChoices) -> Result<()>;

    /// All choices, of one tenant or of all, in the order of tenant and type.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn homes(&self, tenant: Option<&TenantId>) -> Result<Vec<ChosenHome>>;

    /// Lets go of connections. What is asked of a registry that was closed may fail.
    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_store_in_memory_keeps_what_a_store_promises() {
        conformance::key_store(&MemoryStore::new()).await.unwrap();
        conformance::home_registry(&MemoryStore::new()).await.unwrap();
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_keeps_what_a_store_promises() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(&directory.path().join("s.db")).await.unwrap();
        conformance::key_store(&store).await.unwrap();
        conformance::home_registry(&store).await.unwrap();
    }
}
