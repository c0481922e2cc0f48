//! Sealing single records.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use domicile::engine::{ContentKey, NONCE_BYTES, Nonce, Nonces, SELECTOR_BYTES};
use domicile::keyring::DayKey;
use domicile::{Action, Code, Error, Period, PeriodUnit, Result};

use super::{Column, RowId, SealedBatch, no_row_id};
use crate::format::{Associated, PREFIX_BYTES, SealedRecord, prefix};

/// How many records a derived key seals, and for how long it is kept.
const DERIVED_RECORDS_MAX: u32 = 1 << 20;
const DERIVED_AGE_MAX: Duration = Duration::from_secs(1);

/// Seals single records of one column, under the key of one day.
///
/// Not `Clone`: each has a derived key of its own, so a program that seals in many threads has a sealer in each. Nonces are
/// drawn from the operating system for every record, and nothing of them is kept: a fork or a snapshot of a process that
/// seals repeats none.
pub struct RecordSealer {
    column: Arc<Column>,
    key: DayKey,
    associated: Associated,
    /// The first instant of the key's day, and the first behind it, in microseconds.
    day: Range<i64>,
    derived: Derived,
}

/// A key for up to 2^20 records or a second.
struct Derived {
    key: ContentKey,
    prefix: [u8; PREFIX_BYTES],
    since: Duration,
    left: u32,
}

impl RecordSealer {
    pub(super) async fn new(column: Arc<Column>) -> Result<Self> {
        let (key, binding) = sealing_key(&column).await?;
        let associated = Associated::of(key.handle(), &binding);
        let derived = Derived::new(&column, &key)?;
        let day = key.day().bounds();
        Ok(Self { column, key, associated, day, derived })
    }

    /// Asks the guard and for the key of this day anew, if the one at hand may seal no longer or its day is over; otherwise
    /// nothing is asked. Call it when a sealing failed with [`KeyLapsed`](Code::KeyLapsed) or because its key has ended, or
    /// before each batch.
    ///
    /// # Errors
    /// As [`SealedRecords::sealer`](super::SealedRecords::sealer). The sealer stays as it was.
    pub async fn renew(&mut self) -> Result<()> {
        if self.check().is_ok() {
            return Ok(());
        }
        *self = Self::new(self.column.clone()).await?;
        Ok(())
    }

    /// Seals one record. `sealed` holds it afterwards, and nothing else: 49 octets more than `record`.
    ///
    /// # Errors
    /// [`KeyLapsed`](Code::KeyLapsed) when the day is over, or nobody has [kept keys up](domicile::Domicile::keep_up), and
    /// what ended the key when it was rotated, erased or destroyed: then [`renew`](Self::renew).
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for an id of a row past 128 octets or a record past 16 MiB;
    /// [`RandomUnavailable`](Code::RandomUnavailable). `sealed` is empty then.
    pub fn seal<'r>(&mut self, row: impl Into<RowId<'r>>, record: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        sealed.clear();
        let row = row.into();
        self.turn_if_due()?;
        let nonce = Nonces::one(&**self.column.domicile.randomness())?;
        self.append(row, record, nonce, sealed).inspect_err(|_| sealed.clear())
    }

    /// Seals many records, with nonces drawn in one call. `sealed` holds them afterwards, in their order, and nothing else.
    ///
    /// # Errors
    /// As [`seal`](Self::seal): all are sealed, or none, and `sealed` is empty then.
    pub fn seal_batch(&mut self, records: &[(RowId<'_>, &[u8])], sealed: &mut SealedBatch) -> Result<()> {
        sealed.clear();
        self.check()?;
        let nonces = Nonces::draw(&**self.column.domicile.randomness(), records.len())?;
        let octets = |(_, record): &(RowId<'_>, &[u8])| record.len() + SealedRecord::OVERHEAD_BYTES;
        sealed.bytes.reserve(records.iter().map(octets).sum());
        sealed.ends.reserve(records.len());
        self.append_all(records, nonces, sealed).inspect_err(|_| sealed.clear())
    }

    fn append_all(
        &mut self,
        records: &[(RowId<'_>, &[u8])],
        nonces: Nonces,
        sealed: &mut SealedBatch,
    ) -> Result<()> {
        for ((row, record), nonce) in records.iter().zip(nonces) {
            if self.derived.left == 0 || sealed.ends.is_empty() {
                self.turn_if_due()?;
            }
            self.append(*row, record, nonce, &mut sealed.bytes)?;
            sealed.ends.push(sealed.bytes.len());
        }
        Ok(())
    }

    /// Appends one sealed record.
    fn append(&mut self, row: RowId<'_>, record: &[u8], nonce: Nonce, into: &mut Vec<u8>) -> Result<()> {
        if record.len() > SealedRecord::RECORD_BYTES_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "this record is too long to be sealed alone")
                .rule(format!("a sealed record has at most {} octets", SealedRecord::RECORD_BYTES_MAX))
                .advise("seal it into a segment"));
        }
        let associated = self.associated.with(row.octets()).ok_or_else(no_row_id)?;
        into.reserve(record.len() + SealedRecord::OVERHEAD_BYTES);
        into.extend_from_slice(&self.derived.prefix);
        into.extend_from_slice(nonce.as_bytes());
        let begins = into.len();
        into.extend_from_slice(record);
        self.derived.left = self.derived.left.saturating_sub(1);
        let payload = into.get_mut(begins..).unwrap_or_default();
        let tag = self.derived.key.seal(nonce, associated, payload)?;
        into.extend_from_slice(&tag);
        Ok(())
    }

    /// Whether the key may seal now.
    fn check(&self) -> Result<()> {
        let at = |error| self.column.at(error);
        self.key.lease().check().map_err(at)?;
        if self.day.contains(&self.column.domicile.now().micros()) {
            return Ok(());
        }
        Err(at(Error::new(Code::KeyLapsed, format!("the key of {} seals on no other day", self.key.day()))
            .advise("call `renew`: it asks for the key of this day")))
    }

    /// Derives another key once the one at hand has sealed 2^20 records or is a second old, after a look at the lease and the
    /// day. A key that has ended seals nothing more from the moment on that this process knows.
    fn turn_if_due(&mut self) -> Result<()> {
        let age = self.column.domicile.clock().elapsed().saturating_sub(self.derived.since);
        if self.derived.left > 0 && age < DERIVED_AGE_MAX && !self.key.lease().has_ended() {
            return Ok(());
        }
        self.check()?;
        self.derived = Derived::new(&self.column, &self.key)?;
        Ok(())
    }
}

impl Derived {
    fn new(column: &Column, key: &DayKey) -> Result<Self> {
        let mut selector = [0; SELECTOR_BYTES];
        column.domicile.randomness().fill(&mut selector)?;
        Ok(Self {
            key: key.derive(&selector, column.engine)?,
            prefix: prefix(key.handle(), &selector).finish(),
            since: column.domicile.clock().elapsed(),
            left: DERIVED_RECORDS_MAX,
        })
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSealer")
            .field("column", &self.column)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The key of this day, and what its records are bound to.
async fn sealing_key(column: &Column) -> Result<(DayKey, [u8; 32])> {
    let Column { domicile, scope, .. } = column;
    let now = domicile.now();
    let (period, day) =
        (domicile.period(&scope.record_type, now)?, Period::containing(now, PeriodUnit::Day)?);
    let permit = domicile.permit(scope, Action::Seal).await?;
    let binding = column.binding(&permit.home().region);
    let key = domicile.keyring().sealing_day_key(permit, period, day).await;
    Ok((key.map_err(|error| column.at(error))?, binding))
}

// The header is what a reader finds: the prefix, and the nonce's second half.
const _: () = assert!(PREFIX_BYTES + NONCE_BYTES == SealedRecord::HEADER_BYTES);
