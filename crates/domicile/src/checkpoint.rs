//! Checkpoints: a region says in its ledger how far the audit chains in its store have come, and what its keys are.
//!
//! A chain alone does not show that its end was cut off, or that all of it is gone. A checkpoint names the head of every
//! chain that went on since the one before, and is an entry of the ledger like any other: numbered, signed, and held
//! wherever the ledger is exported to. Whatever it names and is no longer there was taken away. Format: page `keys.md` of
//! the book, KEY-44.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::chain::{ChainBeginning, ChainHead, ChainId, SealedEvent};
use crate::context::KeyKind;
use crate::error::{Code, Error, Result};
use crate::ledger::{Ledger, Said, Statement, StatementKind, content};
use crate::region::Region;
use crate::store::{KeyStore, RowFilter};
use crate::time::Time;
use crate::wire::{self, Decoder, Encoder, Malformed};

/// What the keys of a region are: names, generations and states, of all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysDigest {
    /// The number of the store's newest change, before which nothing is missing here.
    pub changes: u64,
    /// How many rows.
    pub rows: u64,
    /// A digest over all of them.
    pub digest: [u8; 32],
}

/// What one checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The chains that went on since the checkpoint before.
    pub heads: Vec<ChainHead>,
    /// The keys, where they were looked at.
    pub keys: Option<KeysDigest>,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The newest entry of the ledger that is one.
    pub entry: u64,
    /// When it was said.
    pub said: Time,
    /// How many chains went on.
    pub chains: usize,
}

/// The most heads in one entry: more are said in several.
const HEADS_MAX: usize = 10_000;

/// How often rows are read that change meanwhile.
const READINGS: u32 = 3;

impl Said for Checkpoint {
    const KIND: StatementKind = StatementKind::Checkpoint;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.count(self.heads.len(), "heads of chains")?;
        for head in &self.heads {
            out.raw(&head.chain.0).u64(head.events).raw(&head.digest);
        }
        match &self.keys {
            Some(keys) => out.u8(1).u64(keys.changes).u64(keys.rows).raw(&keys.digest),
            None => out.u8(0),
        };
        Ok(out.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        const HEAD_BYTES: usize = 56;
        let mut input = Decoder::new(bytes);
        let count = usize::try_from(input.u32("heads of chains")?).unwrap_or(usize::MAX);
        if count > HEADS_MAX || count.saturating_mul(HEAD_BYTES) > input.remaining() {
            return Err(input.malformed("more heads than there can be"));
        }
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let chain = ChainId(input.array("chain")?);
            heads.push(ChainHead { chain, events: input.u64("events")?, digest: input.array("digest")? });
        }
        let keys = match input.u8("keys")? {
            0 => None,
            1 => Some(KeysDigest {
                changes: input.u64("changes")?,
                rows: input.u64("rows")?,
                digest: input.array("digest")?,
            }),
            _ => return Err(input.malformed("keys")),
        };
        input.end("end of the checkpoint")?;
        Ok(Self { heads, keys })
    }
}

/// Says how far the chains of a region have come.
pub(crate) async fn say(ledger: &Ledger, with_keys: bool) -> Result<CheckpointReport> {
    let known = Known::of(ledger).await?;
    let heads = ledger.store.chain_heads(&ledger.region).await?;
    let gone = known.heads.values().find(|known| {
        let stands = heads.iter().find(|head| head.chain == known.chain);
        stands.is_none_or(|head| head.events < known.events)
    });
    if let Some(gone) = gone {
        return Err(cut(gone.chain, "is shorter than a checkpoint says"));
    }
    let moved: Vec<_> =
        heads.into_iter().filter(|head| known.heads.get(&head.chain.0) != Some(head)).collect();
    let mut keys = match with_keys {
        true => keys_digest(&*ledger.store, &ledger.region).await?,
        false => None,
    };
    let chains = moved.len();
    let mut entry = 0;
    let mut parts = moved.chunks(HEADS_MAX);
    // One without heads says as of when nothing went on.
    let mut part = parts.next().unwrap_or_default();
    loop {
        let next = parts.next();
        let keys = if next.is_none() { keys.take() } else { None };
        entry = ledger.say(&Checkpoint { heads: part.to_vec(), keys }).await?.max(entry);
        match next {
            Some(next) => part = next,
            None => return Ok(CheckpointReport { entry, said: ledger.clock.now(), chains }),
        }
    }
}

/// What the checkpoints so far say, all together.
struct Known {
    heads: BTreeMap<[u8; 16], ChainHead>,
}

impl Known {
    async fn of(ledger: &Ledger) -> Result<Self> {
        let mut known = Self { heads: BTreeMap::new() };
        let kinds = [StatementKind::Checkpoint as u8, StatementKind::Replayed as u8];
        let mut statements = ledger.statements(&kinds);
        while let Some(page) = statements.next().await? {
            for statement in page {
                if statement.kind == StatementKind::Replayed {
                    known.heads.clear();
                    continue;
                }
                let checkpoint: Checkpoint = content(&statement)?;
                known.heads.extend(checkpoint.heads.into_iter().map(|head| (head.chain.0, head)));
            }
        }
        Ok(known)
    }
}

/// A digest over the names, generations and states of a region's keys; none where they change faster than they are read.
pub(crate) async fn keys_digest(store: &dyn KeyStore, region: &Region) -> Result<Option<KeysDigest>> {
    for _ in 0..READINGS {
        let before = store.mark().await?;
        let (mut rows, mut digest) = (0, Sha256::new());
        for kind in KeyKind::ALL {
            let filter = RowFilter { region: region.clone(), kind, period: None, tenant: None };
            let mut after = None;
            loop {
                let page = store.load_many(&filter, after.as_ref(), ROWS).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.row.identity.clone());
                for stored in &page {
                    let row = &stored.row;
                    digest.update(wire::parts(&[
                        b"domicile/v1/checkpoint-key",
                        &row.name.0,
                        &row.generation.to_be_bytes(),
                        &[row.state.code()],
                    ]));
                    rows += 1;
                }
            }
        }
        let after = store.mark().await?;
        if (before.changes, before.inserts) == (after.changes, after.inserts) {
            return Ok(Some(KeysDigest { changes: after.changes, rows, digest: digest.finalize().into() }));
        }
    }
    Ok(None)
}

const ROWS: u32 = 1_000;

/// Keeps of a ledger that is followed what [`hold`] needs of it.
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub(crate) fn keep(statement: &Statement, kept: &mut Vec<Statement>) {
    if matches!(statement.kind, StatementKind::Checkpoint | StatementKind::Replayed) {
        kept.push(statement.clone());
    }
}

/// Holds chains against the checkpoints of a ledger that was verified: each chain that one names must be there, and behind
/// the event that it names must have the digest that it says. Events that a restore lost are in the export from which the
/// store was made good: what was said before that is held against it, and not against the store.
///
/// # Errors
/// [`LedgerUnverified`](Code::LedgerUnverified), naming the first chain that was cut, changed or taken away.
pub(crate) fn hold(statements: &[Statement], chains: &[(ChainBeginning, Vec<SealedEvent>)]) -> Result<()> {
    let by_name: BTreeMap<_, _> = chains.iter().map(|(begun, events)| (begun.chain.0, events)).collect();
    let replayed = statements.iter().rposition(|statement| statement.kind == StatementKind::Replayed);
    let since = statements.get(replayed.map_or(0, |replayed| replayed + 1)..).unwrap_or_default();
    for statement in since.iter().filter(|statement| statement.kind == StatementKind::Checkpoint) {
        let checkpoint: Checkpoint = content(statement)?;
        for head in checkpoint.heads {
            let at = |error: Error| {
                error.at(format!("entry {} of the ledger, {}", statement.number, statement.said))
            };
            let Some(events) = by_name.get(&head.chain.0) else {
                return Err(at(cut(head.chain, "is gone")));
            };
            let place = head.events.checked_sub(1).and_then(|before| usize::try_from(before).ok());
            match place.map(|place| events.get(place)) {
                Some(Some(event)) if event.digest == head.digest => {}
                Some(Some(_)) => return Err(at(cut(head.chain, "is another than a checkpoint says"))),
                _ => return Err(at(cut(head.chain, "is shorter than a checkpoint says"))),
            }
        }
    }
    Ok(())
}

fn cut(chain: ChainId, how: &str) -> Error {
    Error::new(Code::LedgerUnverified, format!("the audit chain {chain} {how}"))
        .advise("events were taken out behind Domicile's back: find out by whom; an export that was kept elsewhere has them")
}

/// The newest checkpoint of a ledger that was verified, with what one says of the keys that the store has: those of before a
/// restore were of another store.
pub(crate) fn newest(statements: &[Statement]) -> Result<Option<(Time, Option<KeysDigest>)>> {
    let (mut newest, mut restored) = (None, false);
    for statement in statements.iter().rev() {
        restored |= statement.kind == StatementKind::Replayed;
        if statement.kind != StatementKind::Checkpoint {
            continue;
        }
        let said = newest.get_or_insert(statement.said);
        if restored {
            break;
        }
        if let Some(keys) = content::<Checkpoint>(statement)?.keys {
            return Ok(Some((*said, Some(keys))));
        }
    }
    Ok(newest.map(|said| (said, None)))
}

/// Whether keys are what the newest checkpoint that looked at them says; none where nothing can be said, because something
/// changed since.
pub(crate) async fn check_keys(
    store: &dyn KeyStore,
    region: &Region,
    said: &KeysDigest,
) -> Result<Option<bool>> {
    // A store that has not come so far is another one, and its changes are others.
    if store.mark().await?.changes < said.changes || !keys_stand(store, said.changes).await? {
        return Ok(None);
    }
    let Some(now) = keys_digest(store, region).await? else { return Ok(None) };
    // Keys that were made since are no change of those that were there: with them, nothing can be said. And whoever
    // changed one while they were read left a word of it.
    let comparable = now.rows == said.rows && keys_stand(store, said.changes).await?;
    Ok(comparable.then_some(now.digest == said.digest))
}

/// Whether nobody says that a key was changed since this change. What else is said, the checkpoint's own entry among it,
/// changes none.
async fn keys_stand(store: &dyn KeyStore, mut since: u64) -> Result<bool> {
    loop {
        let page = store.changes_since(since, ROWS).await?;
        let Some(last) = page.last() else { return Ok(true) };
        if page.iter().any(|change| change.slot.is_some()) {
            return Ok(false);
        }
        since = last.number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_read_back_and_have_one_encoding() {
        let head =
            |byte| ChainHead { chain: ChainId([byte; 16]), events: u64::from(byte), digest: [byte; 32] };
        let keys = KeysDigest { changes: 7, rows: 3, digest: [9; 32] };
        for checkpoint in [
            Checkpoint { heads: vec![], keys: None },
            Checkpoint { heads: vec![head(1), head(2)], keys: Some(keys) },
        ] {
            let bytes = checkpoint.encode().unwrap();
            assert_eq!(Checkpoint::decode(&bytes).unwrap(), checkpoint);
            for length in 0..bytes.len() {
                Checkpoint::decode(&bytes[..length]).unwrap_err();
            }
            Checkpoint::decode(&[&bytes[..], &[0]].concat()).unwrap_err();
        }
        // A count that promises more than there is asks for no memory.
        Checkpoint::decode(&[0xff; 8]).unwrap_err();
    }
}
