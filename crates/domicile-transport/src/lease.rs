//! A connection's right to go on: until its certificate ends, or until somebody looks again and finds that it would not be
//! made now.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;

use domicile::{Clock, Code, Error, Result, Time};
use rustls::pki_types::CertificateDer;

use crate::exchange::Exchange;
use crate::observe;
use crate::peer::Peer;
use crate::trust::{End, Expected, Trust, unix};

/// Every open connection of a [`Transport`](crate::Transport).
#[derive(Debug)]
pub(crate) struct Registry {
    leases: Mutex<HashMap<u64, Weak<Lease>>>,
    next: AtomicU64,
    open: AtomicUsize,
}

/// Room for one connection, from before its handshake until it is gone.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Registry>);

/// What one connection may do, as long as it may.
pub(crate) struct Lease {
    id: u64,
    slot: Slot,
    clock: Arc<dyn Clock>,
    chain: Vec<CertificateDer<'static>>,
    end: End,
    expected: Expected,
    exchange: Exchange,
    peer: Peer,
    ended: OnceLock<Error>,
    wakers: Mutex<[Option<Waker>; 2]>,
    /// Ends whatever waits on the socket.
    close: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// By what a connection was made, so that it can be judged again.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) end: End,
    pub(crate) expected: Expected,
    pub(crate) exchange: Exchange,
    pub(crate) peer: Peer,
}

/// Which direction of a connection waits.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Reading,
    Writing,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { leases: Mutex::default(), next: AtomicU64::new(0), open: AtomicUsize::new(0) })
    }

    /// Takes room for one more connection.
    pub(crate) fn admit(self: &Arc<Self>, connections_max: usize) -> Result<Slot> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < connections_max).then_some(open + 1)
        });
        match taken {
            Ok(before) => {
                observe::open(before + 1);
                Ok(Slot(Arc::clone(self)))
            }
            Err(_) => {
                Err(Error::new(Code::ConnectionFailed, "there are as many connections as this host may have")
                    .rule(format!("connections_max = {connections_max}"))
                    .advise("try again later; raise the limit, if memory allows"))
            }
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn lease(slot: Slot, clock: Arc<dyn Clock>, terms: Terms) -> Arc<Lease> {
        let Terms { chain, end, expected, exchange, peer } = terms;
        let registry = Arc::clone(&slot.0);
        let id = registry.next.fetch_add(1, Ordering::Relaxed);
        let (ended, wakers, close) = (OnceLock::new(), Mutex::default(), OnceLock::new());
        let lease = Lease { id, slot, clock, chain, end, expected, exchange, peer, ended, wakers, close };
        let lease = Arc::new(lease);
        lock(&registry.leases).insert(id, Arc::downgrade(&lease));
        lease
    }

    fn leases(&self) -> Vec<Arc<Lease>> {
        lock(&self.leases).values().filter_map(Weak::upgrade).collect()
    }

    /// Judges every connection anew; how many were ended.
    pub(crate) fn judge_again(&self, trust: &Trust, now: Time) -> usize {
        self.leases().iter().filter(|lease| lease.judge_again(trust, now)).count()
    }

    /// Ends connections whose time is over; how many.
    pub(crate) fn end_what_is_over(&self) -> usize {
        let over = |lease: &&Arc<Lease>| lease.ended.get().is_none() && lease.check().is_err();
        self.leases().iter().filter(over).count()
    }
}

impl Lease {
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What ends whatever waits on the socket; said once, as soon as there is one.
    pub(crate) fn closes_with(&self, close: Box<dyn Fn() + Send + Sync>) {
        let close = self.close.get_or_init(|| close);
        if self.ended.get().is_some() {
            close();
        }
    }

    /// Whether the connection may go on.
    ///
    /// # Errors
    /// [`ConnectionEnded`](Code::ConnectionEnded) once it may not.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(ended) = self.ended.get() {
            return Err(ended.again());
        }
        if self.clock.now() < self.peer.ends_at() {
            return Ok(());
        }
        let over = Error::new(
            Code::ConnectionEnded,
            "a connection lives no longer than the certificates of its two ends",
        )
        .at(self.peer.identity().to_string())
        .rule(format!("until {}", self.peer.ends_at()))
        .advise("connect again, with certificates that hold");
        let error = over.again();
        self.end(over, "certificate");
        Err(error)
    }

    /// Ends the connection: whatever waits is woken, and everything fails from here on.
    pub(crate) fn end(&self, reason: Error, cause: &'static str) {
        if self.ended.set(reason).is_err() {
            return;
        }
        observe::ended(cause);
        if let Some(close) = self.close.get() {
            close();
        }
        for waker in std::mem::take(&mut *lock(&self.wakers)).into_iter().flatten() {
            waker.wake();
        }
    }

    /// Whom to wake when the connection ends while it waits. It is to be [checked](Self::check) after that.
    #[cfg(feature = "tokio")]
    pub(crate) fn wakes(&self, direction: Direction, waker: &Waker) {
        let mut wakers = lock(&self.wakers);
        let [reading, writing] = &mut *wakers;
        let slot = match direction {
            Direction::Reading => reading,
            Direction::Writing => writing,
        };
        match slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Whether the connection was ended because it would not be made now.
    pub(crate) fn judge_again(&self, trust: &Trust, now: Time) -> bool {
        let Some((leaf, intermediates)) = self.chain.split_first() else { return false };
        if self.ended.get().is_some() {
            return false;
        }
        match trust.judge((leaf, intermediates), self.end, &self.expected, &self.exchange, unix(now)) {
            Ok(_) => false,
            Err(refusal) => {
                let error = refusal.error;
                let rule = error.broken_rule().unwrap_or_default().to_owned();
                tracing::warn!(peer = %self.peer.identity(), exchange = %self.exchange, what = error.what(), rule, "a connection is ended: it would not be made now");
                let ended = Error::new(Code::ConnectionEnded, "the other end would not be taken any longer");
                self.end(
                    ended.at(self.peer.identity().to_string()).rule(rule).because(error),
                    "judged-again",
                );
                true
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.slot.0.leases).remove(&self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.0.open.fetch_sub(1, Ordering::AcqRel);
        observe::open(before.saturating_sub(1));
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("peer", &self.peer).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What a panic elsewhere left is as good as before it: every value here is whole after each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
