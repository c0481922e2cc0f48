//! Making a restored store good: what was erased, destroyed, held and chosen since is taken from an export and done
//! again, before anything opens.

use std::collections::HashSet;

use super::branch::unverified;
use super::erase::{TRIES, destroyed};
use super::region::{RegionKeys, is_of_tenant};
use super::tombstone::{Destroyed, Erased, Taken};
use super::{Keyring, managing};
use crate::audit::{Event, EventKind};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::export::Export;
use crate::guard::Permit;
use crate::ledger::{Said, Statement, StatementKind, content, digest, overtaken};
use crate::puncture::LeafNumber;
use crate::random::Randomness;
use crate::scope::Scope;
use crate::store::{
    Buried, Incarnation, KeyIdentity, KeyName, KeyRow, KeySlot, KeyState, LedgerEntry, RowWrite, StoredKey,
    Write, Written,
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
    /// Keys from which something was to be taken again, and that nobody opens here: they are refused as rolled back until
    /// their key services answer and the same export is replayed once more.
    pub buried: Vec<(KeyName, String)>,
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
        let lost = exported.get(stands.len()..).unwrap_or_default();
        // What is destroyed in the end needs no key service to be punctured before.
        let ended = ended(statements.iter().chain(lost))?;
        for statement in &statements {
            region.take_again(statement, None, &ended, &mut report).await?;
        }
        for (statement, entry) in lost.iter().zip(missing) {
            region.take_again(statement, Some(entry), &ended, &mut report).await?;
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

/// The keys that these statements destroyed.
fn ended<'a>(statements: impl Iterator<Item = &'a Statement>) -> Result<HashSet<KeyName>> {
    let mut ended = HashSet::new();
    for statement in statements.filter(|statement| statement.kind == StatementKind::Destroyed) {
        ended.extend(content::<Destroyed>(statement)?.keys.iter().map(|taken| taken.name));
    }
    Ok(ended)
}

/// What a statement takes again.
#[derive(Default)]
struct Again {
    rows: Vec<RowWrite>,
    buried: Vec<Buried>,
    names: Vec<(KeyName, String)>,
}

impl RegionKeys {
    /// Takes from the rows what a statement took, where they do not have it yet; with the entry itself, where the store
    /// lost it, in the same write.
    async fn take_again(
        &self,
        statement: &Statement,
        missing: Option<&LedgerEntry>,
        ended: &HashSet<KeyName>,
        report: &mut ReplayReport,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let mut again = Again::default();
            match statement.kind {
                StatementKind::Erased => {
                    let Erased { leaves, keys } = content(statement)?;
                    let leaves: Vec<_> = leaves.iter().map(|(leaf, _)| *leaf).collect();
                    for taken in keys.iter().filter(|taken| !ended.contains(&taken.name)) {
                        self.erase_again(taken, &leaves, &mut again).await?;
                    }
                }
                StatementKind::Destroyed => {
                    let Destroyed { keys, .. } = content(statement)?;
                    for taken in &keys {
                        again.rows.extend(self.destroyed_again(taken).await?);
                    }
                }
                _ => {}
            }
            let Again { rows, buried, names } = again;
            let keys = rows.len();
            if rows.is_empty() && missing.is_none() {
                report.buried.extend(names);
                return Ok(());
            }
            if let Written::Done { .. } = self.write(rows, buried, missing.cloned()).await? {
                report.keys += keys;
                report.buried.extend(names);
                return Ok(());
            }
        }
        Err(overtaken(&self.place.region))
    }

    /// Takes leaves from a key again. That they are gone is not read off its generation, which every write raises: the
    /// tombstone's own floor says so, or the key itself does.
    async fn erase_again(&self, taken: &Taken, leaves: &[LeafNumber], again: &mut Again) -> Result<()> {
        let Some(StoredKey { row, floor }) = self.store.find(&self.identity(taken)).await? else {
            return Ok(());
        };
        let floor = floor.map_or(0, |floor| floor.generation);
        let is_done = floor >= taken.generation && row.generation >= floor;
        if row.name != taken.name || row.state == KeyState::Destroyed || is_done {
            return Ok(());
        }
        let (replaces, slot) = (row.generation, row.identity.slot.clone());
        let generation = replaces.checked_add(1).ok_or_else(|| unverified(&slot))?.max(taken.generation);
        let owner = self.concerned_by(&row);
        match self.without_again(row, taken, generation, leaves).await {
            Ok(Some(row)) => {
                let leaves = leaves.to_vec();
                again.rows.push(RowWrite { row, replaces: Some(replaces), buries: true, leaves });
            }
            Ok(None) => {}
            // Nobody else waits for the key services of a tenant, which may have gone with it.
            Err(error) if is_of_tenant(&owner, &error) => {
                tracing::warn!(code = %error.code(), %slot, "a key that nobody opens here is refused as rolled back");
                again.buried.push(Buried { name: taken.name, generation, leaves: leaves.to_vec() });
                again.names.push((taken.name, slot.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A row without these leaves, of this generation; none where it is newer than their tombstone and holds none of them.
    async fn without_again(
        &self,
        row: KeyRow,
        taken: &Taken,
        generation: u64,
        leaves: &[LeafNumber],
    ) -> Result<Option<KeyRow>> {
        let mut key = self.open_row(row).await?;
        if key.generation >= taken.generation && !leaves.iter().any(|leaf| key.tree.holds(*leaf)) {
            return Ok(None);
        }
        key.generation = generation.checked_sub(1).ok_or_else(|| unverified(key.slot()))?;
        self.resealed(&key, key.state, &key.tree.without(leaves)).await.map(Some)
    }

    /// Destroys a key again. A branch key that was destroyed because nothing lay under it any longer is needed as long as
    /// something does in the store as it was restored: the next rotation of branch keys destroys it.
    async fn destroyed_again(&self, taken: &Taken) -> Result<Option<RowWrite>> {
        let Some(stored) = self.store.find(&self.identity(taken)).await? else { return Ok(None) };
        let row = stored.row;
        if row.name != taken.name || row.state == KeyState::Destroyed {
            return Ok(None);
        }
        if taken.kind == KeyKind::Branch && self.is_parent(&row.identity).await? {
            return Ok(None);
        }
        let mut write = destroyed(&row)?;
        write.row.generation = write.row.generation.max(taken.generation);
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
            let write = Write {
                region,
                rows: Vec::new(),
                entry: Some(entry),
                buried: Vec::new(),
                incarnation: renewed,
            };
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
