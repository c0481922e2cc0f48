//! Between readers, which wait for octets, and stores, which are asked in a runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;

use domicile::{Code, Error, Result};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A thread with a runtime of its own, which asks a store what readers want to know: they wait for it inside a runtime or
/// outside, and several may wait at the same time. It ends with the last that can ask it.
#[derive(Debug)]
pub(super) struct Bridge {
    jobs: UnboundedSender<Job>,
}

impl Bridge {
    pub(super) fn new() -> Result<Self> {
        let failed = |source| {
            Error::new(Code::ObjectUnavailable, "no thread could be begun that asks object stores")
                .because(source)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (jobs, mut waiting) = unbounded_channel::<Job>();
        let work = move || {
            runtime.block_on(async {
                while let Some(job) = waiting.recv().await {
                    tokio::spawn(job);
                }
            });
        };
        std::thread::Builder::new().name("domicile-objects".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { jobs })
    }

    /// Has something done, and waits for it.
    pub(super) fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::pin(async move {
            // Whoever asked has gone, or reads the answer.
            let _ = answer.send(work.await);
        });
        let gone = || Error::new(Code::ObjectUnavailable, "the thread that asks object stores has ended");
        self.jobs.send(job).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}
