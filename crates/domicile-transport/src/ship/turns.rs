//! Who uploads which segment: one at a time for each peer and segment, and the newest goes first, since the older one is mostly a
//! connection that was cut and does not know it yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domicile_record::format::SegmentId;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;

/// How long whoever was before may take to make durable what it has.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A peer, by the name of its directory, and a segment.
pub(super) type Key = (String, SegmentId);

/// Every upload that goes on or waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    table: Mutex<HashMap<Key, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The number of the newest who asked.
    newest: watch::Sender<u64>,
    users: usize,
}

/// The right to write one part.
#[derive(Debug)]
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
    asking: Asking,
}

/// Somebody who has a turn, or waits for one.
#[derive(Debug)]
struct Asking {
    turns: Arc<Turns>,
    key: Key,
    number: u64,
    newest: watch::Receiver<u64>,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// The peer uploads as many segments as it may.
    TooMany,
    /// Whoever was before has not ended yet, or somebody came after.
    Taken,
}

impl Turns {
    /// Asks whoever uploads the same to end, and waits for that.
    pub(super) async fn take(self: &Arc<Self>, key: Key, per_peer_max: usize) -> Result<Turn, NoTurn> {
        let (asking, turn) = self.ask(key, per_peer_max)?;
        let guard = timeout(WAIT_MAX, turn.lock_owned()).await.map_err(|_| NoTurn::Taken)?;
        if asking.is_superseded() {
            return Err(NoTurn::Taken);
        }
        Ok(Turn { _guard: guard, asking })
    }

    fn ask(
        self: &Arc<Self>,
        key: Key,
        per_peer_max: usize,
    ) -> Result<(Asking, Arc<tokio::sync::Mutex<()>>), NoTurn> {
        let mut table = self.table();
        let of_peer = table.keys().filter(|(peer, _)| *peer == key.0).count();
        if !table.contains_key(&key) && of_peer >= per_peer_max {
            return Err(NoTurn::TooMany);
        }
        let entry = table.entry(key.clone()).or_default();
        entry.users += 1;
        let number = *entry.newest.borrow() + 1;
        entry.newest.send_replace(number);
        let (newest, turn) = (entry.newest.subscribe(), Arc::clone(&entry.turn));
        Ok((Asking { turns: Arc::clone(self), key, number, newest }, turn))
    }

    /// Whether anybody uploads this now.
    pub(super) fn is_taken(&self, key: &Key) -> bool {
        self.table().contains_key(key)
    }

    /// What a panic elsewhere left is as good as before it: every value here is whole after each step.
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Ready when somebody newer asked.
    pub(super) async fn superseded(&mut self) {
        let number = self.asking.number;
        if self.asking.newest.wait_for(|newest| *newest != number).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Asking {
    fn is_superseded(&self) -> bool {
        *self.newest.borrow() != self.number
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut table = self.turns.table();
        if let Some(entry) = table.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                table.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(peer: &str, id: u8) -> Key {
        (peer.to_owned(), SegmentId([id; 32]))
    }

    #[tokio::test]
    async fn the_newest_goes_first_and_others_are_left_alone() {
        let turns = Arc::new(Turns::default());
        let mut first = turns.take(key("a", 1), 2).await.unwrap();
        let mut other = turns.take(key("b", 1), 2).await.unwrap();
        let second = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(key("a", 1), 2).await }
        });
        first.superseded().await;
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(10), other.superseded()).await.is_err());
        assert!(turns.is_taken(&key("a", 1)));
        drop((second, other));
        assert!(!turns.is_taken(&key("a", 1)));
    }

    #[tokio::test]
    async fn a_peer_has_so_many_turns_and_no_more() {
        let turns = Arc::new(Turns::default());
        let one = turns.take(key("a", 1), 2).await.unwrap();
        let _two = turns.take(key("a", 2), 2).await.unwrap();
        assert_eq!(turns.take(key("a", 3), 2).await.unwrap_err(), NoTurn::TooMany);
        let _other = turns.take(key("b", 3), 2).await.unwrap();
        drop(one);
        turns.take(key("a", 3), 2).await.unwrap();
    }
}
