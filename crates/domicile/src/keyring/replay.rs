//! Making a restored store good: what was erased, destroyed, held and chosen since is taken from an export and done
//! again, before anything opens.

use super::branch::unverified;
use super::erase::{TRIES, destroyed};
use super::region::RegionKeys;
use super::tombstone::{Destroyed, Erased, Taken};
use super::{Keyring, managing};
use crate::audit::{Event, EventKind};
use crate::error::{Code, Error, Result};
use crate::export::Export;
use crate::guard::Permit;
use crate::ledger::{Said, Statement, StatementKind, content, digest, overtaken};
use crate::puncture::LeafNumber;
use crate::random::Randomness;
use crate::scope::Scope;
use crate::store::{
    Incarnation, KeyIdentity, KeyName, KeySlot, KeyState, LedgerEntry, RowWrite, Write, Written,
};
use crate::wire::{Decoder, Encoder, Malformed};

/// A store of this incarnation was made good with all that the ledger said up to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) incarnation: String,
    pub(crate) through: u64,
}

impl Said for Replayed {
    const KIND: StatementKind = StatementKind::Replayed;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.short(self.incarnation.as_bytes(), "incarnation")?.u64(self.through);
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let incarnation = input.text("incarnation")?.to_owned();
        let through = input.u64("entry")?;
        input.end("end of the statement")?;
        Ok(Self { incarnation, through })
    }
}

/// What a replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Entries of the ledger that the store had lost.
    pub entries: usize,
    /// Keys from which something was taken again.
    pub keys: usize,
    /// Homes that the registry had lost.
    pub homes: usize,
    /// Keys that were used, as the audit says, and are gone: their names, and whose they were. What they sealed opens
    /// with nothing, unless a later backup has them.
    pub gone: Vec<(KeyName, String)>,
}

impl Keyring {
    /// Brings a region's store up to an export, which was verified and says `exported`, and then lets it be used again. The
    /// permit is the region's.
    ///
    /// It can be done again: what was done is found done.
    ///
    /// # Errors
    /// [`LedgerUnverified`](Code::LedgerUnverified) for an export that is not what the region signed, or for a store whose
    /// ledger says something else; [`KeyRolledBack`](Code::KeyRolledBack) for an export that is older than what this host
    /// saw; whatever keeps the key service, the store or the audit chain from answering.
    pub(crate) async fn replay(
        &self,
        permit: Permit,
        export: &Export,
        exported: &[Statement],
    ) -> Result<ReplayReport> {
        managing(&permit)?;
        let region = self.region(&permit.home().region)?;
        if export.region != region.place.region {
            return Err(Error::new(Code::ArgumentInvalid, format!("this is an export of {}", export.region))
                .advise(format!("bring one of {}", region.place.region)));
        }
        region.follower.check_covers(&region.ledger, &export.ledger).await?;
        let event = Event::new(EventKind::Replay)
            .action(permit.action())
            .region(&region.place.region)
            .scope(&Scope::of_region());
        self.audit.record(&[event]).await?;

        let mut report = ReplayReport::default();
        let (mut stands, mut statements) = (Vec::new(), Vec::new());
        region
            .ledger
            .follow(0, None, |statement, entry| {
                stands.push(entry.clone());
                statements.push(statement.clone());
                Ok(())
            })
            .await?;
        let missing = missing(&stands, &export.ledger).ok_or_else(|| {
            Error::new(Code::LedgerUnverified, "the store's ledger and the export say different things")
                .advise("somebody wrote to the store after it was restored: take the export of today, or find out who")
        })?;
        for statement in &statements {
            report.keys += region.take_again(statement, None).await?;
        }
        let lost = exported.get(stands.len()..).unwrap_or_default();
        for (statement, entry) in lost.iter().zip(missing) {
            report.keys += region.take_again(statement, Some(entry)).await?;
            report.entries += 1;
        }
        for (name, words) in export.keys_used() {
            if region.store.named(name).await?.is_none() {
                report.gone.push((name, words));
            }
        }
        region.reborn(&*self.randomness).await?;
        region.forget_all();
        region.follower.begin_again().await;
        Ok(report)
    }
}

/// What a ledger lacks of an exported one; none where they say different things. A store may know more than an older
/// export.
fn missing<'a>(stands: &[LedgerEntry], exported: &'a [LedgerEntry]) -> Option<&'a [LedgerEntry]> {
    let agree = stands.iter().zip(exported).all(|(stands, exported)| stands == exported);
    agree.then(|| exported.get(stands.len()..).unwrap_or_default())
}

impl RegionKeys {
    /// Takes from the rows what a statement took, where they do not have it yet; with the entry itself, where the store
    /// lost it, in the same write. Says how many keys that were.
    async fn take_again(&self, statement: &Statement, missing: Option<&LedgerEntry>) -> Result<usize> {
        for _ in 0..TRIES {
            let mut rows = Vec::new();
            match statement.kind {
                StatementKind::Erased => {
                    let Erased { leaves, keys } = content(statement)?;
                    let leaves: Vec<_> = leaves.iter().map(|(leaf, _)| *leaf).collect();
                    for taken in &keys {
                        rows.extend(self.erased_again(taken, &leaves).await?);
                    }
                }
                StatementKind::Destroyed => {
                    let Destroyed { keys, .. } = content(statement)?;
                    for taken in &keys {
                        rows.extend(self.destroyed_again(taken).await?);
                    }
                }
                _ => {}
            }
            let count = rows.len();
            if rows.is_empty() && missing.is_none() {
                return Ok(0);
            }
            if let Written::Done { .. } = self.ledger.write(rows, missing.cloned()).await? {
                return Ok(count);
            }
        }
        Err(overtaken(&self.place.region))
    }

    async fn erased_again(&self, taken: &Taken, leaves: &[LeafNumber]) -> Result<Option<RowWrite>> {
        let Some(stored) = self.store.find(&self.identity(taken)).await? else { return Ok(None) };
        let row = stored.row;
        if row.name != taken.name || row.generation >= taken.generation || row.state == KeyState::Destroyed {
            return Ok(None);
        }
        let replaces = Some(row.generation);
        let mut key = self.open_row(row).await?;
        key.generation = taken.generation.checked_sub(1).ok_or_else(|| unverified(key.slot()))?;
        let row = self.resealed(&key, key.state, &key.tree.without(leaves)).await?;
        Ok(Some(RowWrite { row, replaces, buries: true, leaves: leaves.to_vec() }))
    }

    async fn destroyed_again(&self, taken: &Taken) -> Result<Option<RowWrite>> {
        let Some(stored) = self.store.find(&self.identity(taken)).await? else { return Ok(None) };
        let row = stored.row;
        if row.name != taken.name || row.generation >= taken.generation {
            return Ok(None);
        }
        let mut write = destroyed(&row)?;
        write.row.generation = taken.generation;
        Ok(Some(write))
    }

    fn identity(&self, taken: &Taken) -> KeyIdentity {
        let Taken { kind, scope, period, version, .. } = taken;
        let slot =
            KeySlot { kind: *kind, region: self.place.region.clone(), scope: scope.clone(), period: *period };
        KeyIdentity { slot, version: *version }
    }

    /// Says that the store was made good, under a new id: what knew it as it was then asks for that word. A store that is
    /// another one already, by its server or because a region that shares it was made good first, keeps the id that it
    /// has.
    async fn reborn(&self, randomness: &dyn Randomness) -> Result<()> {
        let mut id = [0; 16];
        randomness.fill(&mut id)?;
        let seen = self.follower.seen(&self.ledger)?;
        for _ in 0..TRIES {
            let mark = self.store.mark().await?;
            let known = seen.as_ref().is_none_or(|seen| seen.incarnation == mark.incarnation.to_string());
            let renewed = known.then_some(id);
            let incarnation = Incarnation { id: renewed.unwrap_or(mark.incarnation.id), ..mark.incarnation };
            let head = self.store.ledger_head(&self.place.region).await?;
            let through = head.as_ref().map_or(0, |head| head.number);
            let entry = self.ledger.sign(&Replayed { incarnation: incarnation.to_string(), through }).await?;
            let region = self.place.region.clone();
            let write = Write { region, rows: Vec::new(), entry: Some(entry), incarnation: renewed };
            if let Written::Done { .. } = self.store.write(&write).await? {
                return Ok(());
            }
        }
        Err(overtaken(&self.place.region))
    }
}

impl super::Follower {
    /// Whether an export, or the store itself, reaches at least as far as what this host saw of the ledger.
    pub(super) async fn check_covers(
        &self,
        ledger: &crate::ledger::Ledger,
        export: &[LedgerEntry],
    ) -> Result<()> {
        let Some(seen) = self.seen(ledger)? else { return Ok(()) };
        let covered = self.remembers(ledger, &seen).await?
            || export.iter().any(|entry| entry.number == seen.ledger && digest(entry) == seen.digest);
        if covered {
            return Ok(());
        }
        Err(Error::new(Code::KeyRolledBack, "this export is older than what this host saw of the ledger")
            .at(format!("this host saw entry {}", seen.ledger))
            .advise("bring a newer export: with this one, something that was erased would come back"))
    }
}
