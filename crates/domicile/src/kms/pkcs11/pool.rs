//! Threads for calls that block: a module answers when it likes, and nobody's runtime is to wait for it.
//!
//! They start at the first call, do what they are given and nothing by themselves, and end with the key service. A call
//! that is not answered in time is given up by its caller; what the module does with it, it may go on doing.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};

/// So many calls at once, each with a session of its own: tokens have few.
const THREADS: usize = 4;
/// So many calls wait for one; more are turned away.
const WAITING_MAX: usize = 256;

type Job<W> = Box<dyn FnOnce(&mut W) + Send>;
type GivingUp = (Instant, Box<dyn Expire>);

/// Threads that each have a `W`.
pub(super) struct Pool<W> {
    timeout: Duration,
    threads: OnceLock<Threads<W>>,
}

struct Threads<W> {
    jobs: SyncSender<Job<W>>,
    clock: Sender<GivingUp>,
    /// Disconnected once the last of them that calls the module has ended.
    ended: Mutex<Receiver<()>>,
}

/// How long whoever drops the pool waits for its threads. A module that is called while its process ends may take it down.
const ENDING: Duration = Duration::from_secs(2);

impl<W> Drop for Pool<W> {
    fn drop(&mut self) {
        let Some(Threads { jobs, clock, ended }) = self.threads.take() else { return };
        drop((jobs, clock));
        // Nothing is ever sent: this ends with the threads, or with the time.
        let _ = ended.into_inner().unwrap_or_else(PoisonError::into_inner).recv_timeout(ENDING);
    }
}

/// Where an answer goes, until it is there or too late.
struct Waiting<T>(Mutex<Option<oneshot::Sender<Result<T>>>>);

/// What a clock does to what waits.
trait Expire: Send {
    fn is_over(&self) -> bool;
    fn give_up(&self);
}

impl<T> Waiting<T> {
    fn lock(&self) -> MutexGuard<'_, Option<oneshot::Sender<Result<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits any longer.
    fn is_over(&self) -> bool {
        self.lock().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&self, answer: Result<T>) {
        if let Some(sender) = self.lock().take() {
            // Whoever asked may have gone.
            let _ = sender.send(answer);
        }
    }
}

impl<T: Send> Expire for Arc<Waiting<T>> {
    fn is_over(&self) -> bool {
        Waiting::is_over(self)
    }

    fn give_up(&self) {
        self.answer(Err(late()));
    }
}

impl<W: Send + 'static> Pool<W> {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, threads: OnceLock::new() }
    }

    /// Does a job on one of the threads, each of which makes its `W` with `make`. Whether it was begun is not known of one
    /// that is given up.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        make: impl Fn() -> W + Send + Clone + 'static,
        job: impl FnOnce(&mut W) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let threads = self.threads(make)?;
        let (sender, receiver) = oneshot::channel();
        let waiting = Arc::new(Waiting(Mutex::new(Some(sender))));
        let job = {
            let waiting = waiting.clone();
            Box::new(move |worker: &mut W| {
                if !waiting.is_over() {
                    waiting.answer(job(worker));
                }
            })
        };
        threads.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => unavailable("too many wait for the module"),
            TrySendError::Disconnected(_) => unavailable("the threads for the module ended"),
        })?;
        let deadline = Instant::now() + self.timeout;
        let clock = threads.clock.send((deadline, Box::new(waiting)));
        clock.map_err(|_| unavailable("the clock for the module ended"))?;
        receiver.await.unwrap_or_else(|_| Err(unavailable("a thread for the module ended")))
    }

    fn threads(&self, make: impl Fn() -> W + Send + Clone + 'static) -> Result<&Threads<W>> {
        if let Some(threads) = self.threads.get() {
            return Ok(threads);
        }
        let (jobs, waiting) = sync_channel::<Job<W>>(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let (alive, ended) = channel::<()>();
        for _ in 0..THREADS {
            let (waiting, make, alive) = (waiting.clone(), make.clone(), alive.clone());
            start(move || {
                work(&waiting, make());
                drop(alive);
            })?;
        }
        drop(alive);
        let (clock, times) = channel();
        start(move || keep_time(&times))?;
        // Where two came first, the threads of one end with their senders.
        Ok(self.threads.get_or_init(|| Threads { jobs, clock, ended: Mutex::new(ended) }))
    }
}

fn start(body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("domicile-pkcs11".to_owned()).spawn(body);
    started
        .map(|_| ())
        .map_err(|source| unavailable("no thread can be started for the module").because(source))
}

fn work<W>(waiting: &Mutex<Receiver<Job<W>>>, mut worker: W) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(&mut worker),
            Err(_) => return,
        }
    }
}

/// All wait equally long, so that they are late in the order in which they came.
fn keep_time(times: &Receiver<GivingUp>) {
    while let Ok((deadline, waiting)) = times.recv() {
        if !waiting.is_over() {
            thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
        waiting.give_up();
    }
}

fn late() -> Error {
    unavailable("the module did not answer in time")
}

fn unavailable(what: &str) -> Error {
    Error::new(Code::KmsUnavailable, what)
        .advise("see that the token is there, and that its module reaches it from here")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose clock matters to no test.
    fn pool() -> Pool<u32> {
        Pool::new(Duration::from_secs(60))
    }

    #[tokio::test]
    async fn answers_go_to_whoever_asked() {
        let pool = pool();
        for number in 0..50 {
            assert_eq!(pool.run(|| 0, move |_| Ok(number)).await.unwrap(), number);
        }
        let error = pool.run(|| 0, |_| Err::<(), _>(Error::new(Code::KmsDenied, "no"))).await.unwrap_err();
        assert_eq!(error.code(), Code::KmsDenied);
    }

    #[tokio::test]
    async fn silence_ends_and_is_an_outage() {
        let pool = Pool::<u32>::new(Duration::from_secs(2));
        let (hold, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hang = || {
            let held = held.clone();
            pool.run(
                || 0,
                move |_| {
                    // Until the test lets go.
                    let _ = held.lock().unwrap().recv();
                    Ok(())
                },
            )
        };
        // All threads hang, and the fifth call finds none.
        assert_eq!(THREADS, 4);
        let begun = Instant::now();
        let (a, b, c, d, e) = tokio::join!(hang(), hang(), hang(), hang(), hang());
        for late in [a, b, c, d, e] {
            assert_eq!(late.unwrap_err().code(), Code::KmsUnavailable);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        drop(hold);
        // Those that let go are there again.
        pool.run(|| 0, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_dies_is_an_outage() {
        let pool = pool();
        let died = pool.run(|| 0, |_| -> Result<()> { panic!("as the test has it") }).await;
        assert_eq!(died.unwrap_err().code(), Code::KmsUnavailable);
        pool.run(|| 0, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_drops_the_pool_waits_for_its_threads() {
        struct Slow(Sender<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                thread::sleep(Duration::from_millis(50));
                self.0.send(()).unwrap();
            }
        }
        let (dropped, drops) = channel();
        let pool = Pool::new(Duration::from_secs(60));
        pool.run(move || Slow(dropped.clone()), |_| Ok(())).await.unwrap();
        drop(pool);
        assert_eq!(drops.try_iter().count(), THREADS);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let pool = pool();
        let (begun, starts) = channel();
        let (hold, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let mut calls: Vec<_> = (0..=THREADS)
            .map(|number| {
                let (begun, held) = (begun.clone(), held.clone());
                Box::pin(pool.run(
                    || 0,
                    move |_| {
                        let _ = begun.send(number);
                        let _ = held.lock().unwrap().recv();
                        Ok(())
                    },
                ))
            })
            .collect();
        // Each is handed over when it is first asked; the last finds all threads busy.
        let last = calls.pop().unwrap();
        for call in &mut calls {
            assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
        }
        for _ in 0..THREADS {
            starts.recv().unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_millis(1), last).await.is_err());
        drop(hold);
        for call in calls {
            call.await.unwrap();
        }
        assert!(starts.try_recv().is_err(), "a call without a caller was begun");
    }
}
