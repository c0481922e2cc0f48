//! Opening single records.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use domicile::audit::{Event, EventKind};
use domicile::engine::{ContentKey, SELECTOR_BYTES};
use domicile::keyring::DayKey;
use domicile::store::KeyHandle;
use domicile::{Action, Class, Code, Error, Region, Result};

use super::{Column, OpenedBatch, RowId, no_row_id};
use crate::format::{Associated, SealedRecord};

/// How many handles that have no key are remembered: whoever writes the column can name any.
const FAILURES_MAX: usize = 4_096;

/// Opens single records of one column, for one purpose. To be shared by those who open for it.
pub struct RecordOpener {
    column: Arc<Column>,
    action: Action,
    region: Region,
    binding: [u8; 32],
    keys: RwLock<Keys>,
}

/// What is known of the handles that were asked for.
#[derive(Default)]
struct Keys {
    loaded: HashMap<KeyHandle, Arc<DayKey>>,
    failed: HashMap<KeyHandle, Error>,
}

impl RecordOpener {
    pub(super) async fn new(column: Arc<Column>, action: Action) -> Result<Self> {
        let permit = column.domicile.permit(&column.scope, action.clone()).await?;
        let region = permit.home().region.clone();
        let binding = column.binding(&region);
        Ok(Self { column, action, region, binding, keys: RwLock::default() })
    }

    /// Loads the keys that these sealed records name, as [`load_handles`](Self::load_handles) does. What is no sealed record
    /// is left to [`open`](Self::open).
    ///
    /// # Errors
    /// As [`load_handles`](Self::load_handles).
    pub async fn load_for<'r>(&self, sealed: impl IntoIterator<Item = &'r [u8]>) -> Result<()> {
        let handles = sealed.into_iter().filter_map(|sealed| SealedRecord::decode(sealed).ok());
        let handles: BTreeSet<_> = handles.map(|record| record.handle).collect();
        self.load(handles).await
    }

    /// Loads day keys by their handles, those left out that are loaded and may be used. The guard is asked first, and that
    /// they are opened is recorded before any of them is had.
    ///
    /// A handle whose key is erased, unknown or another scope's is no error here: its records say so when they are opened, and
    /// others open all the same.
    ///
    /// # Errors
    /// Those of [`Domicile::permit`](domicile::Domicile::permit); what kept the key service, the store or the audit chain
    /// from answering: what was loaded until then stays so.
    pub async fn load_handles(&self, handles: &[KeyHandle]) -> Result<()> {
        self.load(handles.iter().copied().collect()).await
    }

    async fn load(&self, mut handles: BTreeSet<KeyHandle>) -> Result<()> {
        handles.retain(|handle| !self.loaded(*handle).is_ok_and(|key| key.lease().check().is_ok()));
        if handles.is_empty() {
            return Ok(());
        }
        let Column { domicile, scope, context, .. } = &*self.column;
        let permit = domicile.permit(scope, self.action.clone()).await?;
        let event = |handle: &KeyHandle| {
            Event::new(EventKind::Open)
                .action(&self.action)
                .region(&self.region)
                .scope(scope)
                .key(handle.name())
                .selected(context.to_string())
        };
        domicile.audit().record(&handles.iter().map(event).collect::<Vec<_>>()).await?;
        let handles: Vec<_> = handles.into_iter().collect();
        let opened = domicile.keyring().opening_day_keys(permit, &handles).await;
        let mut away = None;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for (handle, key) in handles.into_iter().zip(opened) {
            match key {
                Ok(key) => {
                    keys.failed.remove(&handle);
                    keys.loaded.insert(handle, Arc::new(key));
                }
                // What may pass: the next call asks again.
                Err(error) if error.class() == Class::KeyService => {
                    away.get_or_insert(error);
                }
                Err(error) => {
                    if keys.failed.len() >= FAILURES_MAX {
                        keys.failed.clear();
                    }
                    keys.loaded.remove(&handle);
                    keys.failed.insert(handle, error);
                }
            }
        }
        away.map_or(Ok(()), |error| Err(self.column.at(error)))
    }

    /// Opens one sealed record. `record` holds it afterwards, and nothing else.
    ///
    /// # Errors
    /// [`RecordForeign`](Code::RecordForeign) for what is no sealed record; [`KeyAbsent`](Code::KeyAbsent) when its key was
    /// not loaded; what kept its key from being loaded, or ended it since; [`KeyLapsed`](Code::KeyLapsed): load it again;
    /// [`RecordUnverified`](Code::RecordUnverified), without a reason, when it was changed or belongs to another row, column,
    /// scope or region. `record` is empty then.
    pub fn open<'r>(&self, row: impl Into<RowId<'r>>, sealed: &[u8], record: &mut Vec<u8>) -> Result<()> {
        record.clear();
        let row = row.into();
        let parsed = SealedRecord::decode(sealed).map_err(|source| self.column.foreign(source))?;
        let derived = self.derived(parsed.handle, &parsed.selector)?;
        let mut associated = Associated::of(parsed.handle, &self.binding);
        self.append(row, &parsed, &derived, &mut associated, record)
    }

    /// Opens many sealed records. `opened` has an answer for each afterwards, in their order, and nothing else. Those that
    /// share a key are opened together, so that a page of records costs few derivations.
    pub fn open_batch(&self, sealed: &[(RowId<'_>, &[u8])], opened: &mut OpenedBatch) {
        opened.clear();
        let mut parsed = Vec::with_capacity(sealed.len());
        for (index, (row, octets)) in sealed.iter().enumerate() {
            match SealedRecord::decode(octets) {
                Ok(record) => {
                    parsed.push((record.handle, record.selector, index, *row, record));
                    opened.records.push(Ok(0..0));
                }
                Err(source) => opened.records.push(Err(self.column.foreign(source))),
            }
        }
        parsed.sort_unstable_by_key(|(handle, selector, index, ..)| (*handle, *selector, *index));
        opened.bytes.reserve(parsed.iter().map(|(.., record)| record.ciphertext.len()).sum());
        for group in parsed.chunk_by(|left, right| (left.0, left.1) == (right.0, right.1)) {
            let Some((handle, selector, ..)) = group.first() else { continue };
            let derived = self.derived(*handle, selector);
            let mut associated = Associated::of(*handle, &self.binding);
            for (_, _, index, row, record) in group {
                let begins = opened.bytes.len();
                let result = match &derived {
                    Ok(key) => self.append(*row, record, key, &mut associated, &mut opened.bytes),
                    Err(error) => Err(error.again()),
                };
                if let Some(answer) = opened.records.get_mut(*index) {
                    *answer = result.map(|()| begins..opened.bytes.len());
                }
            }
        }
    }

    /// The key of a handle, or why there is none.
    fn loaded(&self, handle: KeyHandle) -> Result<Arc<DayKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.loaded.get(&handle) {
            return Ok(key.clone());
        }
        Err(self.column.at(keys.failed.get(&handle).map_or_else(
            || {
                Error::new(Code::KeyAbsent, "the key of a sealed record was not loaded")
                    .at(format!("key {handle}"))
                    .advise("call `load_for` with the records that are to be opened, and then open them")
            },
            Error::again,
        )))
    }

    fn derived(&self, handle: KeyHandle, selector: &[u8; SELECTOR_BYTES]) -> Result<ContentKey> {
        let key = self.loaded(handle)?;
        key.lease().check().map_err(|error| self.column.at(error))?;
        key.derive(selector, self.column.engine)
    }

    /// Appends one opened record; where it does not verify, nothing.
    fn append(
        &self,
        row: RowId<'_>,
        sealed: &SealedRecord<'_>,
        key: &ContentKey,
        associated: &mut Associated,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let associated = associated.with(row.octets()).ok_or_else(no_row_id)?;
        let begins = into.len();
        into.extend_from_slice(sealed.ciphertext);
        let payload = into.get_mut(begins..).unwrap_or_default();
        key.open(&sealed.nonce, associated, payload, &sealed.tag).map_err(|_| {
            into.truncate(begins);
            self.column.unverified(sealed.handle)
        })
    }
}

impl fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordOpener")
            .field("column", &self.column)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}
