//! Sealed records: one record or field sealed alone, for a column of a database or a message of a queue.
//!
//! ```no_run
//! # use domicile::{Domicile, Purpose, RecordType, Result, Scope};
//! # use domicile_record::{RecordContext, SealedRecords};
//! # async fn example(domicile: &Domicile) -> Result<()> {
//! let acme = Scope::new("acme", RecordType::VOICE)?;
//! let column = SealedRecords::new(domicile, &acme, RecordContext::new(&["calls", "detail"])?);
//!
//! // Home and key are checked here; from now on sealing is a plain function.
//! let mut sealer = column.sealer().await?;
//! let mut cell = Vec::new();
//! sealer.seal(4711_i64, b"+12015550102,+12015550147,31", &mut cell)?;
//!
//! // The guard, then the keys that the cells name, then bytes.
//! let opener = column.opener(Purpose::Billing).await?;
//! opener.load_for([&*cell]).await?;
//! let mut record = Vec::new();
//! opener.open(4711_i64, &cell, &mut record)?;
//! # Ok(())
//! # }
//! ```
//!
//! A record is bound to its region, scope, column and row: put anywhere else, it does not open. An *old* record put back
//! into its own cell does; whoever must see that keeps a version in the row's id.
//!
//! Format: the page `sealed-records.md` of the book, whose rules are named REC-1 and so on.

mod batch;
mod opener;
mod sealer;

use std::sync::Arc;

pub use batch::{OpenedBatch, SealedBatch};
pub use opener::RecordOpener;
pub use sealer::RecordSealer;

use domicile::engine::{Engine, Suite};
use domicile::keyring::ErasureReport;
use domicile::store::KeyHandle;
use domicile::{Action, Code, Domicile, Error, Period, Region, Request, Result, Scope};

use crate::format::{SealedRecord, binding};

/// The sealed records of one column of one scope. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SealedRecords {
    column: Arc<Column>,
}

#[derive(Debug)]
struct Column {
    domicile: Domicile,
    scope: Scope,
    context: RecordContext,
    engine: Engine,
}

impl SealedRecords {
    /// Those of a scope and a context. Nothing is asked yet.
    #[must_use]
    pub fn new(domicile: &Domicile, scope: &Scope, context: RecordContext) -> Self {
        let engine = domicile.engines(Suite::Aes256Gcm).records;
        let (domicile, scope) = (domicile.clone(), scope.clone());
        Self { column: Arc::new(Column { domicile, scope, context, engine }) }
    }

    /// Asks the guard, and then for the key of this day.
    ///
    /// # Errors
    /// Those of [`Domicile::permit`] and of [`Keyring::sealing_day_key`](domicile::keyring::Keyring::sealing_day_key).
    pub async fn sealer(&self) -> Result<RecordSealer> {
        RecordSealer::new(self.column.clone()).await
    }

    /// Asks the guard. Keys are loaded by the handles that records name.
    ///
    /// # Errors
    /// Those of [`Domicile::permit`].
    pub async fn opener(&self, request: impl Into<Request>) -> Result<RecordOpener> {
        RecordOpener::new(self.column.clone(), Action::Open(request.into())).await
    }

    /// Erases the keys of one day: every single record that was sealed for this scope on it, **in whichever column or
    /// queue**, opens with nothing, in every copy.
    ///
    /// # Errors
    /// [`KeyHeld`](Code::KeyHeld) under a hold; [`KeyUnknown`](Code::KeyUnknown) when nothing was sealed on that day; those
    /// of [`Keyring::erase_day`](domicile::keyring::Keyring::erase_day).
    pub async fn erase_day(&self, day: Period, request: impl Into<Request>) -> Result<ErasureReport> {
        let Column { domicile, scope, .. } = &*self.column;
        let permit = domicile.permit(scope, Action::Manage(request.into())).await?;
        domicile.keyring().erase_day(permit, day).await
    }
}

impl Column {
    fn binding(&self, region: &Region) -> [u8; 32] {
        binding(region, &self.scope, &self.context.parts)
    }

    /// Says where something failed: scope and column, and the day key if one is concerned.
    fn at(&self, error: Error) -> Error {
        error.at(format!("scope {}, {}", self.scope, self.context))
    }

    fn foreign(&self, source: domicile::wire::Malformed) -> Error {
        let error = Error::new(Code::RecordForeign, "this is not a sealed record, or one of another version")
            .because(source);
        self.at(error)
    }

    fn unverified(&self, handle: KeyHandle) -> Error {
        let error = Error::new(Code::RecordUnverified, "a sealed record does not verify")
            .advise("it was changed, or belongs to another row, column or scope: bring it back from a copy");
        self.at(error.at(format!("key {handle}")))
    }
}

/// Where records of one kind lie: a table and its column, a queue and its field. It never changes, and stands in the audit
/// chain: nothing of a subscriber belongs into it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordContext {
    parts: Vec<String>,
}

impl RecordContext {
    /// A context of one to eight names, each of 1 to 64 printable ASCII characters.
    ///
    /// # Errors
    /// [`NameInvalid`](Code::NameInvalid).
    pub fn new(names: &[&str]) -> Result<Self> {
        const NAMES_MAX: usize = 8;
        const LENGTH_MAX: usize = 64;
        let is_name = |name: &&str| {
            (1..=LENGTH_MAX).contains(&name.len()) && name.bytes().all(|octet| (0x20..0x7f).contains(&octet))
        };
        if !(1..=NAMES_MAX).contains(&names.len()) || !names.iter().all(is_name) {
            return Err(Error::new(Code::NameInvalid, "this is no context of sealed records")
                .rule(format!("1 to {NAMES_MAX} names, each of 1 to {LENGTH_MAX} printable ASCII characters"))
                .advise("name the table and the column, or the queue and the field"));
        }
        Ok(Self { parts: names.iter().map(|name| (*name).to_owned()).collect() })
    }
}

impl std::fmt::Display for RecordContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("."))
    }
}

/// What tells a row from every other row of its table: the primary key, 1 to 128 octets. It is authenticated and not
/// written into the record.
///
/// A number is its 8 octets, big-endian, in two's complement; a text its UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId<'a>(Id<'a>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id<'a> {
    Number([u8; 8]),
    Octets(&'a [u8]),
}

impl RowId<'_> {
    fn octets(&self) -> &[u8] {
        match &self.0 {
            Id::Number(octets) => octets,
            Id::Octets(octets) => octets,
        }
    }
}

fn no_row_id() -> Error {
    Error::new(Code::ArgumentInvalid, "this is no id of a row")
        .rule(format!("an id has 1 to {} octets", SealedRecord::ROW_ID_BYTES_MAX))
        .advise("give the row's primary key, or a hash of it")
}

impl From<u64> for RowId<'_> {
    fn from(number: u64) -> Self {
        Self(Id::Number(number.to_be_bytes()))
    }
}

impl From<i64> for RowId<'_> {
    fn from(number: i64) -> Self {
        Self(Id::Number(number.to_be_bytes()))
    }
}

impl<'a> From<&'a [u8]> for RowId<'a> {
    fn from(octets: &'a [u8]) -> Self {
        Self(Id::Octets(octets))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for RowId<'a> {
    fn from(octets: &'a [u8; N]) -> Self {
        Self(Id::Octets(octets))
    }
}

impl<'a> From<&'a str> for RowId<'a> {
    fn from(text: &'a str) -> Self {
        Self(Id::Octets(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    // A sealer is one thread's; an opener is everybody's.
    assert_not_impl_any!(RecordSealer: Clone);
    assert_impl_all!(RecordSealer: Send);
    assert_not_impl_any!(RecordOpener: Clone);
    assert_impl_all!(RecordOpener: Send, Sync);
    assert_impl_all!(SealedRecords: Clone, Send, Sync);

    #[test]
    fn what_asks_for_keys_runs_on_any_thread() {
        fn of_column<T: Send>(_: impl FnOnce(&'static SealedRecords) -> T) {}
        of_column(SealedRecords::sealer);
        of_column(|column| column.opener(domicile::Purpose::Support));
        fn of_sealer<T: Send>(_: impl FnOnce(&'static mut RecordSealer) -> T) {}
        of_sealer(RecordSealer::renew);
        fn of_opener<T: Send>(_: impl FnOnce(&'static RecordOpener) -> T) {}
        of_opener(|opener| opener.load_for([&b""[..]]));
        of_opener(|opener| opener.load_handles(&[]));
    }

    #[test]
    fn contexts_are_names() {
        assert_eq!(RecordContext::new(&["calls", "detail"]).unwrap().to_string(), "calls.detail");
        let long = "x".repeat(65);
        for names in [&[][..], &[""], &["calls", ""], &["déjà"], &["a\n"], &[&*long], &["a"; 9]] {
            assert_eq!(RecordContext::new(names).unwrap_err().code(), Code::NameInvalid, "{names:?}");
        }
    }

    #[test]
    fn ids_of_rows_are_their_octets() {
        assert_eq!(RowId::from(-2_i64).octets(), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(RowId::from(7_u64).octets(), RowId::from(7_i64).octets());
        assert_eq!(RowId::from("a/7").octets(), b"a/7");
        assert_eq!(RowId::from(&[7; 16]).octets(), [7; 16]);
    }
}
