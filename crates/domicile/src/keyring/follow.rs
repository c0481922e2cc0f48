//! Following a store: what others changed, known within the poll's age; and that the store is still the one that this
//! host knew.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::orders::Orders;
use super::region::RegionKeys;
use super::replay::Replayed;
use crate::error::{Code, Error, Result};
use crate::ledger::{Ledger, PAGE, StatementKind, content, digest};
use crate::observe;
use crate::store::StoreMark;
use crate::time::Clock;
use crate::witness::{Seen, Witness};

/// How this process follows the store of one region.
#[derive(Debug)]
pub(crate) struct Follower {
    witness: Option<Arc<Witness>>,
    orders: RwLock<Arc<Orders>>,
    /// When the last poll began, in microseconds of the clock, and one more; 0 before the first.
    polled: AtomicU64,
    /// The next caller polls, whatever the last poll's age.
    due: AtomicBool,
    /// The last poll failed.
    away: AtomicBool,
    state: tokio::sync::Mutex<State>,
}

/// What one caller at a time brings up to date.
#[derive(Debug, Default)]
struct State {
    followed: Option<Followed>,
    /// When the last poll failed, and why.
    failed: Option<(Duration, Error)>,
}

/// How far it has come.
#[derive(Debug, Clone)]
struct Followed {
    mark: StoreMark,
    ledger: u64,
    digest: [u8; 32],
}

impl Follower {
    pub(crate) fn new(witness: Option<Arc<Witness>>) -> Self {
        Self {
            witness,
            orders: RwLock::default(),
            polled: AtomicU64::new(0),
            due: AtomicBool::new(false),
            away: AtomicBool::new(false),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// What the ledger ordered, as of the last poll.
    pub(crate) fn orders(&self) -> Arc<Orders> {
        self.orders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the next caller poll, whatever the last one's age.
    pub(crate) fn poll_next(&self) {
        self.due.store(true, Ordering::SeqCst);
    }

    /// Takes note of what changed since the last poll, if that is too old, before anybody goes on with what was loaded.
    ///
    /// A store that is away is bridged until the hard age: nothing can be revoked without it. While it is known to be
    /// away one caller asks it, as often as it would be polled, and the others go on. One that is not what it was is not
    /// bridged: nothing is opened and no key made before it was made good.
    pub(super) async fn catch_up(&self, keys: &RegionKeys) -> Result<()> {
        let RegionKeys { ages, clock, .. } = keys;
        let is_young =
            || !self.due.load(Ordering::SeqCst) && self.age(&**clock).is_some_and(|age| age < ages.poll);
        if is_young() {
            return Ok(());
        }
        let bridges = self.age(&**clock).is_some_and(|age| age < ages.hard);
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(_) if bridges && self.away.load(Ordering::SeqCst) => return Ok(()),
            Err(_) => self.state.lock().await,
        };
        if is_young() {
            return Ok(());
        }
        let tried = state.failed.as_ref();
        let tried = tried.filter(|(at, _)| bridges && clock.elapsed().saturating_sub(*at) < ages.poll);
        let error = match tried {
            Some((_, error)) => error.again(),
            None => match self.poll_now(keys, &mut state).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        let bridges = self.age(&**clock).is_some_and(|age| age < ages.hard);
        if error.code() == Code::StoreUnavailable && bridges {
            tracing::warn!(region = %keys.place.region, "the key store does not say what changed");
            return Ok(());
        }
        Err(error)
    }

    /// Takes note of what changed until now. Nothing is bridged.
    pub(super) async fn catch_up_now(&self, keys: &RegionKeys) -> Result<()> {
        let mut state = self.state.lock().await;
        self.poll_now(keys, &mut state).await
    }

    /// Takes note of what changed until now: what is ordered, and the entry of the ledger that it reaches. Whoever signs the
    /// very next entry knows that nothing was ordered in between.
    pub(super) async fn orders_now(&self, keys: &RegionKeys) -> Result<(u64, Arc<Orders>)> {
        let mut state = self.state.lock().await;
        self.poll_now(keys, &mut state).await?;
        Ok((state.followed.as_ref().map_or(0, |followed| followed.ledger), self.orders()))
    }

    async fn poll_now(&self, keys: &RegionKeys, state: &mut State) -> Result<()> {
        let clock = &*keys.clock;
        // Whoever asks for another poll from here on gets one.
        self.due.store(false, Ordering::SeqCst);
        let begun = clock.elapsed();
        let polled = self.poll(keys, &mut state.followed).await;
        let region = &keys.ledger.region;
        observe::polled(region, polled.as_ref().map_or_else(|error| error.code().as_str(), |()| "ok"));
        self.away.store(polled.is_err(), Ordering::SeqCst);
        state.failed = polled.as_ref().err().map(|error| (clock.elapsed(), error.again()));
        if polled.is_ok() {
            let micros = u64::try_from(begun.as_micros()).unwrap_or(u64::MAX);
            self.polled.store(micros.saturating_add(1), Ordering::SeqCst);
        } else {
            self.due.store(true, Ordering::SeqCst);
        }
        polled
    }

    /// How long ago the store last said what changed; none before the first time.
    pub(super) fn age(&self, clock: &dyn Clock) -> Option<Duration> {
        let polled = self.polled.load(Ordering::SeqCst).checked_sub(1)?;
        Some(clock.elapsed().saturating_sub(Duration::from_micros(polled)))
    }

    async fn poll(&self, keys: &RegionKeys, followed: &mut Option<Followed>) -> Result<()> {
        let ledger = &keys.ledger;
        let Some(before) = followed.clone() else {
            *followed = Some(self.begin(ledger).await?);
            return Ok(());
        };
        let mark = ledger.store.mark().await?;
        if mark == before.mark {
            return Ok(());
        }
        if went_back(&before.mark, &mark) && !self.made_good(ledger, &before.seen(), &mark).await? {
            return Err(other_store(ledger));
        }
        let restored = before.mark.incarnation != mark.incarnation;
        let (mut newest, mut said) = (before.mark.changes, restored);
        if restored {
            // Whatever was loaded from the store as it was may not be in the one that is.
            keys.forget_all();
            newest = mark.changes;
        }
        loop {
            let page = ledger.store.changes_since(newest, PAGE).await?;
            for change in &page {
                newest = change.number;
                match &change.slot {
                    Some(slot) if slot.region == ledger.region => keys.forget(slot).await,
                    Some(_) => {}
                    None => said |= change.region == ledger.region,
                }
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                break;
            }
        }
        let mut after = Followed { mark: StoreMark { changes: newest.max(mark.changes), ..mark }, ..before };
        if said {
            let mut orders = Orders::clone(&self.orders());
            let (number, digest) = ledger
                .follow(after.ledger, Some(after.digest), |statement, _| orders.follow(statement))
                .await?;
            (after.ledger, after.digest) = (number, digest.unwrap_or(after.digest));
            *self.orders.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(orders);
        }
        self.remember(ledger, &after)?;
        *followed = Some(after);
        Ok(())
    }

    /// The first poll: the store must be the one that this host knew, or a later one.
    async fn begin(&self, ledger: &Ledger) -> Result<Followed> {
        // Before the store is asked: other processes of this host go on meanwhile, and what they see then is ahead of what the store
        // said before.
        let seen = self.seen(ledger)?;
        let mark = ledger.store.mark().await?;
        let head = ledger.store.ledger_head(&ledger.region).await?;
        if let Some(head) = &head {
            ledger.verify(head)?;
        }
        let followed = Followed {
            ledger: head.as_ref().map_or(0, |head| head.number),
            digest: head.as_ref().map_or([0; 32], digest),
            mark,
        };
        self.compare(ledger, seen, &followed.mark).await?;
        let mut orders = Orders::default();
        let mut ordered = ledger.statements(&Orders::KINDS);
        while let Some(page) = ordered.next().await? {
            page.iter().try_for_each(|statement| orders.follow(statement))?;
        }
        *self.orders.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(orders);
        self.remember(ledger, &followed)?;
        Ok(followed)
    }

    /// Whether a store is the one that this host knew, or a later state of it. Nothing is remembered: [`crate::checkup`] asks.
    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    pub(crate) async fn check_seen(&self, ledger: &Ledger) -> Result<()> {
        let seen = self.seen(ledger)?;
        let mark = ledger.store.mark().await?;
        self.compare(ledger, seen, &mark).await
    }

    /// Whether a store has come at least as far as what was seen of it, before it was asked how far that is.
    async fn compare(&self, ledger: &Ledger, seen: Option<Seen>, mark: &StoreMark) -> Result<()> {
        let Some(seen) = seen else { return Ok(()) };
        let back = seen.is_behind(mark) || !self.remembers(ledger, &seen).await?;
        if back && !self.made_good(ledger, &seen, mark).await? {
            return Err(other_store(ledger));
        }
        Ok(())
    }

    /// What this host saw before this process began.
    pub(super) fn seen(&self, ledger: &Ledger) -> Result<Option<Seen>> {
        Ok(self.witness.as_ref().map(|witness| witness.seen(&ledger.region)).transpose()?.flatten())
    }

    /// Has the next poll be the first: the store was made good.
    pub(super) async fn begin_again(&self) {
        *self.state.lock().await = State::default();
        self.polled.store(0, Ordering::SeqCst);
        self.poll_next();
    }

    /// Whether the ledger still holds the entry that this host saw last.
    pub(super) async fn remembers(&self, ledger: &Ledger, seen: &Seen) -> Result<bool> {
        let Some(before) = seen.ledger.checked_sub(1) else { return Ok(true) };
        let entries = ledger.store.ledger(&ledger.region, &[], before, 1).await?;
        Ok(entries.first().is_some_and(|entry| entry.number == seen.ledger && digest(entry) == seen.digest))
    }

    /// Whether a signed entry of the ledger says that this incarnation was made good, up to at least what was seen.
    async fn made_good(&self, ledger: &Ledger, seen: &Seen, mark: &StoreMark) -> Result<bool> {
        let mut replays = ledger.statements(&[StatementKind::Replayed as u8]);
        while let Some(page) = replays.next().await? {
            for statement in &page {
                let replayed: Replayed = content(statement)?;
                if replayed.incarnation == mark.incarnation.to_string() && replayed.through >= seen.ledger {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn remember(&self, ledger: &Ledger, followed: &Followed) -> Result<()> {
        match &self.witness {
            Some(witness) => witness.remember(&ledger.region, &followed.seen()),
            None => Ok(()),
        }
    }
}

impl Followed {
    fn seen(&self) -> Seen {
        Seen {
            incarnation: self.mark.incarnation.to_string(),
            changes: self.mark.changes,
            inserts: self.mark.inserts,
            ledger: self.ledger,
            digest: self.digest,
        }
    }
}

fn went_back(before: &StoreMark, mark: &StoreMark) -> bool {
    before.incarnation != mark.incarnation || mark.changes < before.changes || mark.inserts < before.inserts
}

fn other_store(ledger: &Ledger) -> Error {
    Error::new(
        Code::KeyRolledBack,
        format!("the key store of {} is not the one that this host knew, or an earlier state of it", ledger.region),
    )
    .rule("after a restore or a failover nothing is opened and no key made before what was erased since is taken again")
    .advise("domicile key replay, with the newest export of the audit")
}
