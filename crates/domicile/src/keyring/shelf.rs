//! What was loaded once, for everybody who asks: bounded, loaded by one caller however many wait, never stale unseen.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moka::future::Cache;
use moka::ops::compute::Op;

use crate::error::{Code, Error, Result};
use crate::observe;

/// A cache of `V`, by `K`.
pub(super) struct Shelf<K, V> {
    what: &'static str,
    entries: Cache<K, Entry<V>>,
    /// Counts who asks: a failure is shared with those who were there when it happened, and with nobody later.
    tickets: AtomicU64,
    /// Counts what was made stale: what was loaded meanwhile may be.
    staled: AtomicU64,
}

struct Entry<V> {
    /// The newest that was loaded, which the next is compared with.
    value: Option<Arc<V>>,
    stale: Arc<AtomicBool>,
    /// Why loading failed, and the first ticket that does not share that.
    failed: Option<(Arc<Error>, u64)>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), stale: self.stale.clone(), failed: self.failed.clone() }
    }
}

impl<V> Entry<V> {
    fn fresh(&self) -> Option<&Arc<V>> {
        self.value.as_ref().filter(|_| self.failed.is_none() && !self.stale.load(Ordering::SeqCst))
    }
}

impl<K, V> fmt::Debug for Shelf<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shelf({})", self.what)
    }
}

impl<K, V> Shelf<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty one for at most `entries_max`; `what` names it in metrics.
    pub(super) fn new(what: &'static str, entries_max: u64) -> Self {
        Self {
            what,
            entries: Cache::builder().max_capacity(entries_max).build(),
            tickets: AtomicU64::new(0),
            staled: AtomicU64::new(0),
        }
    }

    /// What is kept and `usable`, else what `load` gives, which is told what was kept before.
    pub(super) async fn get<F>(
        &self,
        key: &K,
        usable: impl Fn(&V) -> bool + Send,
        load: impl FnOnce(Option<Arc<V>>) -> F + Send,
    ) -> Result<Arc<V>>
    where
        F: Future<Output = Result<V>> + Send,
    {
        self.get_since(key, None, usable, load).await
    }

    /// How much was made stale so far: asked before many are loaded at once, and given to [`get_since`](Self::get_since)
    /// for each of them.
    pub(super) fn staled(&self) -> u64 {
        self.staled.load(Ordering::SeqCst)
    }

    /// As [`get`](Self::get) for a `load` that gives what was read earlier, when [`staled`](Self::staled) said `since`:
    /// what was made stale from then on is loaded anew by the next caller.
    pub(super) async fn get_since<F>(
        &self,
        key: &K,
        since: Option<u64>,
        usable: impl Fn(&V) -> bool + Send,
        load: impl FnOnce(Option<Arc<V>>) -> F + Send,
    ) -> Result<Arc<V>>
    where
        F: Future<Output = Result<V>> + Send,
    {
        if let Some(entry) = self.entries.get(key).await
            && let Some(value) = entry.fresh()
            && usable(value)
        {
            observe::looked_up(self.what, true);
            return Ok(value.clone());
        }
        observe::looked_up(self.what, false);
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        // How much had been made stale when it was loaded here, if it was.
        let mut loaded = None;
        let computed = self
            .entries
            .entry(key.clone())
            .and_compute_with(async |entry| {
                let entry = entry.map(moka::Entry::into_value);
                if let Some(entry) = &entry {
                    let shared = entry.failed.as_ref().is_some_and(|(_, behind)| ticket < *behind);
                    if shared || entry.fresh().is_some_and(|value| usable(value)) {
                        return Op::Nop;
                    }
                }
                let before = entry.and_then(|entry| entry.value);
                let staled = since.unwrap_or_else(|| self.staled());
                match Box::pin(load(before.clone())).await {
                    Ok(value) => {
                        loaded = Some(staled);
                        let stale = self.staled() != staled;
                        let stale = Arc::new(AtomicBool::new(stale));
                        Op::Put(Entry { value: Some(Arc::new(value)), stale, failed: None })
                    }
                    Err(error) => {
                        let behind = self.tickets.load(Ordering::SeqCst);
                        let failed = Some((Arc::new(error), behind));
                        Op::Put(Entry { value: before, stale: Arc::default(), failed })
                    }
                }
            })
            .await;
        let Some(entry) = computed.into_entry().map(moka::Entry::into_value) else {
            return Err(Error::new(Code::StoreUnavailable, "a key was loaded and was not there"));
        };
        // Between the look above and the entry's being there, whoever makes stale finds the one before it.
        if loaded.is_some_and(|staled| staled != self.staled()) {
            entry.stale.store(true, Ordering::SeqCst);
        }
        match entry {
            Entry { failed: Some((error, _)), .. } => Err(shared(&error)),
            Entry { value: Some(value), .. } => Ok(value),
            Entry { .. } => Err(Error::new(Code::StoreUnavailable, "a key was loaded and was not there")),
        }
    }

    /// What is kept, fresh or not; nothing is loaded.
    pub(super) async fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key).await.and_then(|entry| entry.value)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.staled.fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate_all();
    }

    /// Has the next caller load this anew.
    pub(super) async fn stale(&self, key: &K) {
        self.staled.fetch_add(1, Ordering::SeqCst);
        if let Some(entry) = self.entries.get(key).await {
            entry.stale.store(true, Ordering::SeqCst);
        }
    }
}

/// What several waiters for one load are told: the same, each in an error of its own.
fn shared(error: &Arc<Error>) -> Error {
    error.again().because(error.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test]
    async fn a_thousand_who_wait_share_one_load_and_one_failure() {
        let shelf: Arc<Shelf<u8, u8>> = Arc::new(Shelf::new("test", 10));
        let loads = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        for (round, works) in [false, true].into_iter().enumerate() {
            let ask = || {
                let (shelf, loads, gate) = (shelf.clone(), loads.clone(), gate.clone());
                tokio::spawn(async move {
                    let load = |_| async move {
                        loads.fetch_add(1, Ordering::SeqCst);
                        gate.acquire().await.unwrap().forget();
                        if works { Ok(7) } else { Err(Error::new(Code::KmsUnavailable, "away")) }
                    };
                    shelf.get(&1, |_| true, load).await.map(|value| *value).map_err(|error| error.code())
                })
            };
            let waiters: Vec<_> = (0..1_000).map(|_| ask()).collect();
            tokio::task::yield_now().await;
            gate.add_permits(1);
            for waiter in waiters {
                let expected = if works { Ok(7) } else { Err(Code::KmsUnavailable) };
                assert_eq!(waiter.await.unwrap(), expected);
            }
            assert_eq!(loads.load(Ordering::SeqCst), round + 1);
        }
    }

    #[tokio::test]
    async fn what_was_made_stale_while_it_was_loaded_is_loaded_again() {
        let shelf: Shelf<u8, u8> = Shelf::new("test", 10);
        let first = shelf.get(
            &1,
            |_| true,
            async |_| {
                shelf.stale(&1).await;
                Ok(1)
            },
        );
        assert_eq!(*first.await.unwrap(), 1);
        let second = shelf.get(&1, |_| true, async |before: Option<Arc<u8>>| Ok(*before.unwrap() + 1));
        assert_eq!(*second.await.unwrap(), 2);
        assert_eq!(*shelf.get(&1, |_| true, async |_| Ok(9)).await.unwrap(), 2);
        assert_eq!(*shelf.get(&1, |value| *value > 2, async |_| Ok(9)).await.unwrap(), 9);
        shelf.stale(&1).await;
        assert_eq!(*shelf.peek(&1).await.unwrap(), 9);
    }

    #[tokio::test]
    async fn what_was_made_stale_since_it_was_read_is_loaded_again() {
        let shelf: Shelf<u8, u8> = Shelf::new("test", 10);
        let since = shelf.staled();
        shelf.get_since(&1, Some(since), |_| true, async |_| Ok(1)).await.unwrap();
        assert_eq!(*shelf.get(&1, |_| true, async |_| Ok(9)).await.unwrap(), 1);
        // Whatever it was: it may have been this.
        shelf.stale(&3).await;
        shelf.get_since(&2, Some(since), |_| true, async |_| Ok(2)).await.unwrap();
        assert_eq!(*shelf.get(&2, |_| true, async |_| Ok(9)).await.unwrap(), 9);
    }
}
