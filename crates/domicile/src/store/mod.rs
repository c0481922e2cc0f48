//! Where wrapped keys, homes and the audit chain are kept: traits, and the embedded default.
//!
//! The key store is the data: what it loses is noise for ever. A key is used once it is durable here.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod check;
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
mod faulty;
mod finding;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migration;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use check::Condition;
#[cfg(any(test, feature = "testing"))]
pub use faulty::{Death, Fault, FaultyStore, Fuse};
pub use finding::Finding;
pub use memory::{MemoryBackup, MemoryStore};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use migration::{Migrated, Step, Versions};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use row::{KeyHandle, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::config::Url;
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::home::{ChosenHome, HomeChoice, SignedStatement};
use crate::period::Period;
use crate::puncture::LeafNumber;
use crate::region::Region;
use crate::scope::TenantId;
pub use crate::severity::Severity;

/// A store that was opened, in both of its roles.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As key store.
    pub keys: Arc<dyn KeyStore>,
    /// As registry of homes.
    pub homes: Arc<dyn HomeRegistry>,
}

/// Opens the store that a configuration names.
///
/// # Errors
/// Those of the store; [`ConfigInvalid`](Code::ConfigInvalid) when this build has none of its kind.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(clippy::unused_async, reason = "the same signature as with a store")
)]
pub async fn open(url: &Url) -> Result<Opened> {
    match url {
        #[cfg(feature = "sqlite")]
        Url::Sqlite(path) => Ok(both(SqliteStore::open(path).await?)),
        #[cfg(feature = "postgres")]
        Url::Postgres(url) => Ok(both(PostgresStore::open(url).await?)),
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        _ => Err(Error::new(Code::ConfigInvalid, "this build has no such store").at(url.to_string()).advise(
            "build with the feature `sqlite` or `postgres`, or bring a store with Domicile::builder",
        )),
    }
}

/// Brings the schema of the store that a configuration names up to date, one step; makes one in an empty PostgreSQL
/// database.
///
/// # Errors
/// As [`open`]; [`StoreInvalid`](Code::StoreInvalid) when it is to be contracted and was not expanded.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub async fn migrate(url: &Url, step: Step) -> Result<Migrated> {
    match url {
        Url::Sqlite(path) => SqliteStore::migrate(path, step).await,
        Url::Postgres(url) => PostgresStore::migrate(url, step).await,
    }
}

/// Looks at the store that a configuration names without a key: its schema, what guards it, and its rows. Nothing is
/// changed.
///
/// # Errors
/// None for what is wrong, which is the answer; [`StoreUnavailable`](Code::StoreUnavailable) when it cannot be reached.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub async fn examine(url: &Url) -> Result<Condition> {
    match url {
        Url::Sqlite(path) => SqliteStore::examine(path).await,
        Url::Postgres(url) => PostgresStore::examine(url).await,
    }
}

/// Copies the store that a configuration names, while others use it, into a file that appears under its name once it is
/// whole and was checked. What is said of the copy was read from it.
///
/// # Errors
/// [`ArgumentInvalid`](Code::ArgumentInvalid) for a PostgreSQL store, whose own tools do that: the advice is their
/// command; [`StoreCorrupt`](Code::StoreCorrupt) when the copy is not whole; those of the store, and of writing files.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub async fn backup(url: &Url, target: &std::path::Path, replace: bool) -> Result<BackedUp> {
    match url {
        Url::Sqlite(path) => SqliteStore::backup(path, target, replace).await,
        Url::Postgres(url) => Err(PostgresStore::dumped_by_its_own_tools(url).await?),
    }
}

/// What stands in a copy of a store.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// Which store it was, and how far it had come.
    pub mark: StoreMark,
    /// How many rows of keys it has.
    pub keys: u64,
    /// How many homes.
    pub homes: u64,
    /// How far the ledger of each region had come.
    pub ledgers: Vec<(Region, u64)>,
    /// What is wrong with the store, and so with the copy, which is whole all the same.
    pub findings: Vec<Finding>,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn both<S: KeyStore + HomeRegistry + 'static>(store: S) -> Opened {
    let store = Arc::new(store);
    Opened { keys: store.clone(), homes: store }
}

/// What came of writing a row that must not exist yet.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a store that answers more must be understood")]
pub enum Inserted {
    /// The row is durable.
    Ours,
    /// Another process was first; this is its row.
    Theirs(Box<StoredKey>),
    /// Nothing was written: the branch key that it is sealed under was destroyed, or is not there.
    Orphan,
}

/// A row as the store gives it back, with the word of its newest tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The row.
    pub row: KeyRow,
    /// The newest entry of the ledger that took something from this key, if one did.
    pub floor: Option<Floor>,
}

impl StoredKey {
    /// The row, unless it is an old one put back.
    ///
    /// # Errors
    /// [`KeyRolledBack`](Code::KeyRolledBack) for a row below its tombstone.
    pub fn standing(self) -> Result<KeyRow> {
        match self.floor {
            Some(floor) if self.row.generation < floor.generation => {
                let slot = &self.row.identity.slot;
                Err(Error::new(Code::KeyRolledBack, format!("an old row of the {slot} was put back"))
                    .at(format!(
                        "generation {} where entry {} of the ledger says {}",
                        self.row.generation, floor.entry, floor.generation
                    ))
                    .advise(
                        "find out who restored it; `domicile key replay` takes again what was erased since",
                    ))
            }
            _ => Ok(self.row),
        }
    }
}

/// Below which generation a row is an old one put back, and which entry of the ledger says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The generation that the tombstone's own write gave the row.
    pub generation: u64,
    /// The tombstone's number in the region's ledger.
    pub entry: u64,
}

/// One row of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// The row as it shall be.
    pub row: KeyRow,
    /// The generation of the row that it takes the place of; none where there must be no row yet.
    pub replaces: Option<u64>,
    /// Whether the write's entry in the ledger is a tombstone of this key.
    pub buries: bool,
    /// The leaves that it takes from the key, to find the tombstone by; none where it takes all of them.
    pub leaves: Vec<LeafNumber>,
}

/// What a region said, as its ledger keeps it. The store judges none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its place in the region's ledger, from 1.
    pub number: u64,
    /// What it speaks of, by the number of its kind: to find it by. The body says so too.
    pub kind: u8,
    /// What was signed: number, predecessor, time and content.
    pub body: Vec<u8>,
    /// The region's signature over the body.
    pub signature: Vec<u8>,
}

/// A key of which something was taken, and whose row cannot be written, because nobody opens it: what the store has of it is
/// an old row from now on, and is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// The key.
    pub name: KeyName,
    /// The generation that its row has where it was written.
    pub generation: u64,
    /// The leaves that were taken; none where all of them were.
    pub leaves: Vec<LeafNumber>,
}

/// Rows and an entry of the ledger that are written together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The region whose ledger and keys these are.
    pub region: Region,
    /// The rows.
    pub rows: Vec<RowWrite>,
    /// The entry, whose number must be the next.
    pub entry: Option<LedgerEntry>,
    /// Keys that the entry is a tombstone of, though their rows stay as they are.
    pub buried: Vec<Buried>,
    /// A new incarnation of the store, after a restore was made good.
    pub incarnation: Option<[u8; 16]>,
}

/// What came of a [`Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store that answers more must be understood")]
pub enum Written {
    /// All of it is durable.
    Done {
        /// Whether no copy of the replaced bytes is left in the store's own files. A store that cannot know says no.
        scrubbed: bool,
    },
    /// Nothing was written: a row or the ledger is no longer what the caller had read.
    Overtaken,
}

/// Something that changed in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place among all changes of the store, in the order in which they became visible.
    pub number: u64,
    /// The region.
    pub region: Region,
    /// The slot whose rows changed; none where the region's ledger grew.
    pub slot: Option<KeySlot>,
}

/// Which store this is: what a copy, a restore under another server or a failover has otherwise. It is shown, and named in
/// the ledger, as its id and, behind a hyphen, what the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a store says of itself, written out by each")]
pub struct Incarnation {
    /// Random, and another once a restore was made good.
    pub id: [u8; 16],
    /// What else tells this store from others, where a server knows.
    pub cluster: Option<String>,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.id))?;
        self.cluster.iter().try_for_each(|cluster| write!(f, "-{cluster}"))
    }
}

/// Which store this is, and how far it has come: what a process compares with what it saw before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMark {
    /// Another after a restore, a failover or a copy: SQLite a random id; PostgreSQL also the system identifier and
    /// the timeline.
    pub incarnation: Incarnation,
    /// The number of the newest change.
    pub changes: u64,
    /// How many rows were ever inserted, or more; it never goes back.
    pub inserts: u64,
}

/// Which rows [`KeyStore::load_many`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFilter {
    /// The region.
    pub region: Region,
    /// The kind.
    pub kind: KeyKind,
    /// One period, or all.
    pub period: Option<Period>,
    /// One tenant, or all.
    pub tenant: Option<TenantId>,
}

/// A region's key store.
///
/// Guarantees: what a write returned is durable; the first row of an identity wins and no later insert
/// replaces it; a row is replaced only by a [`write`](Self::write) that names its generation, and then all of the
/// write happens or nothing; no row is written under a branch key that is destroyed or not there, and none is destroyed that a
/// row lies under, whoever writes at the same time; what was taken from a key is not given back by a later write; the ledger only grows, by one entry after the other; changes are numbered in the order in which they
/// become visible, so that whoever asks for those since a number misses none; a writer number is given once, over all
/// processes and restarts; audit events are kept in the order in which they were appended, and nothing changes or
/// removes them. Everything is read from the primary.
#[async_trait]
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// Writes a new row, unless one with the same identity exists. Nobody is told of it as of a change: what did not
    /// exist is in no cache.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn insert(&self, row: &KeyRow) -> Result<Inserted>;

    /// Compares and sets: every row must still have the generation that it is said to replace, or not exist, and the
    /// entry must be the ledger's next.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable): it may have been written or not.
    async fn write(&self, write: &Write) -> Result<Written>;

    /// The row of the highest version in a slot.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable), or
    /// [`KeyUnverified`](crate::Code::KeyUnverified) for a row that cannot be read.
    async fn newest(&self, slot: &KeySlot) -> Result<Option<StoredKey>>;

    /// All versions in a slot, the lowest first.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn versions(&self, slot: &KeySlot) -> Result<Vec<StoredKey>>;

    /// The row of one key.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn find(&self, identity: &KeyIdentity) -> Result<Option<StoredKey>>;

    /// The row that wrapped keys name so.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn named(&self, name: KeyName) -> Result<Option<StoredKey>>;

    /// Many rows in the order of tenant, record type, period and version, at most `limit`, those behind `after`: a
    /// page, so that a cold cache of any size is filled in bounded memory.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    async fn load_many(
        &self,
        filter: &RowFilter,
        after: Option<&KeyIdentity>,
        limit: u32,
    ) -> Result<Vec<StoredKey>>;

    /// The entry of the ledger that took this leaf from this key.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn tombstone(&self, name: KeyName, leaf: LeafNumber) -> Result<Option<u64>>;

    /// Which store this is, and how far it has come.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn mark(&self) -> Result<StoreMark>;

    /// What changed since the change of this number, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn changes_since(&self, number: u64, limit: u32) -> Result<Vec<Change>>;

    /// Entries of a region's ledger behind this number, of these kinds (of all, when none is named), in order, at
    /// most `limit`.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn ledger(&self, region: &Region, kinds: &[u8], after: u64, limit: u32)
    -> Result<Vec<LedgerEntry>>;

    /// The newest entry of a region's ledger.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn ledger_head(&self, region: &Region) -> Result<Option<LedgerEntry>>;

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

    /// How far each chain of a region has come, those without an event left out.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn chain_heads(&self, region: &Region) -> Result<Vec<ChainHead>>;

    /// What weakens the store, as far as it can tell: rights, triggers, settings. No row is read.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn weaknesses(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// The time by the store's own clock, where it is on another host.
    ///
    /// # Errors
    /// [`StoreUnavailable`](crate::Code::StoreUnavailable).
    async fn now(&self) -> Result<Option<crate::Time>> {
        Ok(None)
    }

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

    /// A store as the first schema had it.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_store_of_the_first_schema_is_expanded_and_then_contracted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let old = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql(include_str!("sqlite/schema_1.sql")).execute(&old).await.unwrap();
        sqlx::raw_sql("INSERT INTO meta VALUES (1, 1, 1, zeroblob(16))").execute(&old).await.unwrap();
        let insert = "INSERT INTO keys VALUES (2, 'eu', 'acme', 'voice', '2026-11', ";
        let insert = |version: u8| {
            sqlx::AssertSqlSafe(format!("{insert}{version}, 1, 1, x'{version:032}', zeroblob(32), 1, x'07')"))
        };
        sqlx::raw_sql(insert(1)).execute(&old).await.unwrap();

        assert_eq!(SqliteStore::open(&path).await.unwrap_err().code(), Code::StoreInvalid);
        let early = SqliteStore::migrate(&path, Step::Contract).await.unwrap_err();
        assert_eq!(early.what(), "this key store was not expanded yet");
        let first = Versions { schema: 1, min_reader: 1, min_writer: 1 };
        let expanded = SqliteStore::migrate(&path, Step::Expand).await.unwrap();
        let both = Versions { schema: 2, ..first };
        assert_eq!(expanded, Migrated { before: Some(first), after: both });
        // An older program goes on beside a new one, and is counted.
        sqlx::raw_sql(insert(2)).execute(&old).await.unwrap();
        old.close().await;
        let store = SqliteStore::open(&path).await.unwrap();
        let mark = store.mark().await.unwrap();
        assert_eq!((mark.changes, mark.inserts), (0, 2));
        assert!(store.named(KeyName([0; 16])).await.unwrap().is_none());
        KeyStore::close(&store).await;
        // Doing it again changes nothing.
        assert_eq!(SqliteStore::migrate(&path, Step::Expand).await.unwrap().after, both);
        let contracted = SqliteStore::migrate(&path, Step::Contract).await.unwrap();
        assert_eq!(contracted.after, Versions { schema: 2, min_reader: 2, min_writer: 2 });
        SqliteStore::open(&path).await.unwrap();
    }
}
