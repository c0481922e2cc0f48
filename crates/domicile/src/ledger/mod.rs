//! The ledger of a region: everything that it said and stands by, signed, one entry after the other.
//!
//! Tombstones, holds, posts, places: what must outlive the process that did it and be proved to others. An
//! entry names its predecessor, so the ledger is a chain: nothing is taken out of its middle unseen. That its end was
//! cut is seen by whoever remembers a later entry: each host does, and every export of it.
//!
//! An entry that takes something from keys is written in one transaction with their rows.

mod statement;

use std::sync::Arc;

pub use statement::{Statement, StatementKind, digest};

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::kms::{Kms, VerifyingKey};
use crate::region::Region;
use crate::store::{Buried, KeyStore, LedgerEntry, RowWrite, Write, Written};
use crate::time::Clock;
use crate::wire::Malformed;

/// The content of one kind of statement.
pub trait Said: Sized {
    /// The kind.
    const KIND: StatementKind;

    /// The octets of the content.
    ///
    /// # Errors
    /// What does not fit.
    fn encode(&self) -> Result<Vec<u8>, Malformed>;

    /// Reads them back; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    fn decode(content: &[u8]) -> Result<Self, Malformed>;
}

/// A region's ledger, as this process reads it and, where the region's signing key is at hand, writes it.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) region: Region,
    pub(crate) verifying_key: VerifyingKey,
    pub(crate) kms: Option<Arc<dyn Kms>>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// How many times somebody else may be faster before a write gives up.
const TRIES: u32 = 64;

/// How many entries are read at once.
pub(crate) const PAGE: u32 = 256;

impl Ledger {
    /// Signs what is said as the next entry.
    pub(crate) async fn sign<S: Said>(&self, said: &S) -> Result<LedgerEntry> {
        let kms = self.kms.as_ref().ok_or_else(|| {
            Error::new(Code::KmsUnavailable, format!("the signing key of {} is not at hand", self.region))
                .advise("do this on a host that has the region's key service")
        })?;
        let head = self.store.ledger_head(&self.region).await?;
        let statement = Statement {
            region: self.region.clone(),
            number: head.as_ref().map_or(1, |head| head.number + 1),
            previous: head.as_ref().map_or([0; 32], digest),
            said: self.clock.now(),
            kind: S::KIND,
            content: said.encode().map_err(too_long)?,
        };
        let body = statement.encode().map_err(too_long)?;
        let signature = kms.sign(&body).await?;
        let entry = LedgerEntry { number: statement.number, kind: S::KIND as u8, body, signature };
        // What was signed must verify under the key that every host has pinned.
        self.verify(&entry)?;
        Ok(entry)
    }

    /// Says something, with no key rows.
    pub(crate) async fn say<S: Said>(&self, said: &S) -> Result<u64> {
        for _ in 0..TRIES {
            let entry = self.sign(said).await?;
            let number = entry.number;
            if let Written::Done { .. } = self.write(Vec::new(), Some(entry)).await? {
                return Ok(number);
            }
        }
        Err(overtaken(&self.region))
    }

    /// Writes rows and an entry: all, or nothing.
    pub(crate) async fn write(&self, rows: Vec<RowWrite>, entry: Option<LedgerEntry>) -> Result<Written> {
        self.write_with(rows, Vec::new(), entry).await
    }

    /// Writes rows and an entry, which is a tombstone of further keys too: all, or nothing.
    pub(crate) async fn write_with(
        &self,
        rows: Vec<RowWrite>,
        buried: Vec<Buried>,
        entry: Option<LedgerEntry>,
    ) -> Result<Written> {
        let write = Write { region: self.region.clone(), rows, entry, buried, incarnation: None };
        self.store.write(&write).await
    }

    /// Whether this is what the region signed as this entry.
    pub(crate) fn verify(&self, entry: &LedgerEntry) -> Result<Statement> {
        let verified = self.verifying_key.verify(&entry.body, &entry.signature);
        verified.map_err(|Unverified| self.broken(entry.number))?;
        let statement =
            Statement::decode(&entry.body).map_err(|source| self.broken(entry.number).because(source))?;
        if statement.number != entry.number
            || statement.kind as u8 != entry.kind
            || statement.region != self.region
        {
            return Err(self.broken(entry.number));
        }
        Ok(statement)
    }

    /// One entry, verified; `None` when the ledger does not reach so far.
    pub(crate) async fn entry(&self, number: u64) -> Result<Option<Statement>> {
        let Some(before) = number.checked_sub(1) else { return Ok(None) };
        let page = self.store.ledger(&self.region, &[], before, 1).await?;
        match page.first() {
            Some(entry) if entry.number == number => self.verify(entry).map(Some),
            Some(_) => Err(self.broken(number)),
            None => Ok(None),
        }
    }

    /// Every entry behind `after`, each verified, and that it follows the one before. `previous` is the digest of
    /// entry `after`, where the caller knows it.
    pub(crate) async fn follow(
        &self,
        mut after: u64,
        mut previous: Option<[u8; 32]>,
        mut visit: impl FnMut(&Statement, &LedgerEntry) -> Result<()>,
    ) -> Result<(u64, Option<[u8; 32]>)> {
        if after == 0 {
            previous = Some([0; 32]);
        }
        loop {
            let page = self.store.ledger(&self.region, &[], after, PAGE).await?;
            for entry in &page {
                let statement = self.verify(entry)?;
                let follows = previous.is_none_or(|previous| previous == statement.previous);
                if !follows || entry.number != after + 1 {
                    return Err(self.broken(after + 1));
                }
                visit(&statement, entry)?;
                (after, previous) = (entry.number, Some(digest(entry)));
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok((after, previous));
            }
        }
    }

    /// The statements of these kinds, from the first on.
    pub(crate) fn statements<'a>(&'a self, kinds: &'a [u8]) -> Statements<'a> {
        Statements { ledger: self, kinds, after: 0, is_over: false }
    }

    fn broken(&self, number: u64) -> Error {
        Error::new(
            Code::LedgerUnverified,
            format!("entry {number} of the ledger of {} is not what was signed", self.region),
        )
        .advise("the ledger was changed behind Domicile's back: restore the store, and find out by whom")
    }
}

/// Statements of some kinds, page by page; that none between them is missing, nobody looks.
pub(crate) struct Statements<'a> {
    ledger: &'a Ledger,
    kinds: &'a [u8],
    after: u64,
    /// The last page was not full.
    is_over: bool,
}

impl Statements<'_> {
    /// The next of them, each verified; none behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Statement>>> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.ledger.store.ledger(&self.ledger.region, self.kinds, self.after, PAGE).await?;
        self.is_over = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        let Some(last) = page.last() else { return Ok(None) };
        self.after = last.number;
        page.iter().map(|entry| self.ledger.verify(entry)).collect::<Result<_>>().map(Some)
    }
}

/// The content of a statement, of the kind that the caller expects.
pub(crate) fn content<S: Said>(statement: &Statement) -> Result<S> {
    let wrong = |source: Malformed| {
        Error::new(Code::LedgerUnverified, format!("entry {} of the ledger says nothing", statement.number))
            .because(source)
    };
    if statement.kind != S::KIND {
        return Err(wrong(Malformed { what: "kind", at: 0 }));
    }
    S::decode(&statement.content).map_err(wrong)
}

/// Too many writers at once.
pub(crate) fn overtaken(region: &Region) -> Error {
    Error::new(Code::StoreUnavailable, format!("the keys of {region} changed again and again meanwhile"))
        .advise("try again")
}

fn too_long(source: Malformed) -> Error {
    Error::new(Code::ArgumentInvalid, "this is too much for one entry of the ledger").because(source)
}
