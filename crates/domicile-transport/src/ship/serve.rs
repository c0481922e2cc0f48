//! Taking requests until told to end, and ending well.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use domicile::{Code, Error, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::landing::Landing;
use super::routes::{Desk, Metrics, router};
use crate::Identity;
use crate::exchange::Exchange;
use crate::stream::PlacedStream;
use crate::tasks::Tasks;
use crate::transport::Transport;

/// How often certificates and lists are looked at.
const KEPT_UP_EVERY: Duration = Duration::from_secs(5);

/// How often old uploads are looked for.
const TIDIED_EVERY: Duration = Duration::from_hours(1);

/// How long it may take to make durable what was cut.
const ENDED_AFTER_MAX: Duration = Duration::from_secs(10);

/// What is read of a connection before somebody takes it: headers fit in, and what does not is refused.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// How long the headers of a request may take, and how long a connection may wait for the next request.
const HEADERS_FOR_MAX: Duration = Duration::from_secs(60);

/// The home's server: it takes segments of this host's region from peers in every region that has trust anchors, since sealed
/// segments may come from anywhere, and gives them to nobody who is not named.
#[must_use]
pub struct Server {
    transport: Transport,
    landing: Landing,
    readers: Vec<Identity>,
    drain_max: Duration,
    metrics: Option<Metrics>,
}

impl Server {
    /// A server of this host for a landing of its region.
    pub fn new(transport: &Transport, landing: Landing) -> Self {
        let drain_max = Duration::from_secs(30);
        Self { transport: transport.clone(), landing, readers: Vec::new(), drain_max, metrics: None }
    }

    /// Gives segments that are here to these peers, if they are where records of this region may be processed.
    pub fn readers(mut self, readers: Vec<Identity>) -> Self {
        self.readers = readers;
        self
    }

    /// How long what goes on may go on when the server is told to end; 30 seconds, unless said otherwise. What is not at its
    /// end then is cut, and what came of it stays.
    pub fn drain_max(mut self, drain_max: Duration) -> Self {
        self.drain_max = drain_max;
        self
    }

    /// What answers `GET /v1/metrics`; nothing does otherwise.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(render));
        self
    }

    /// Takes requests until `end` is ready, and returns when what went on has come to its end, or was brought to one.
    /// Certificates, keys and lists are read again when they change, and uploads that nobody goes on with are removed.
    ///
    /// # Errors
    /// [`ConnectionFailed`](Code::ConnectionFailed) when nothing can be listened to.
    pub async fn run(self, listener: TcpListener, end: impl Future<Output = ()>) -> Result<()> {
        let failed = |source: io::Error| {
            Error::new(Code::ConnectionFailed, "nothing can be listened to").because(source)
        };
        let Self { transport, landing, readers, drain_max, metrics } = self;
        let trust = transport.trust();
        let desk = Desk {
            landing: landing.clone(),
            readers: readers.into(),
            exchange: Exchange::processing(&trust.settings.here),
            processing: trust.settings.processing.clone(),
            metrics,
        };
        let router = router(desk);
        let acceptor =
            transport.acceptor(Exchange::from_anywhere("sealed segments")).protocols(&[b"http/1.1"]);
        let mut listener = acceptor.listen(listener).map_err(failed)?;
        let (ending, ends) = watch::channel(false);
        let mut connections = JoinSet::new();
        let upkeep = tokio::spawn(keep_up(transport, landing.clone()));
        tokio::pin!(end);
        loop {
            tokio::select! {
                stream = listener.accept() => {
                    connections.spawn(converse(stream, router.clone(), ends.clone()));
                }
                Some(_) = connections.join_next() => {}
                () = &mut end => break,
            }
        }
        drop(listener);
        landing.drain();
        tracing::info!("no more is begun; what goes on may end");
        ending.send_replace(true);
        if timeout(drain_max, all_of(&mut connections)).await.is_err() {
            tracing::warn!(seconds = drain_max.as_secs(), "what still goes on is cut; what came of it stays");
        }
        if timeout(ENDED_AFTER_MAX, landing.end()).await.is_err() {
            tracing::warn!("a segment is still examined; it is examined again after the next start");
        }
        // Whoever was cut is told where to go on, if that can be said at once.
        let _ = timeout(Duration::from_secs(1), all_of(&mut connections)).await;
        connections.shutdown().await;
        upkeep.abort();
        // It ends as it was told, and lets go of the directory.
        let _ = upkeep.await;
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("landing", &self.landing)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

/// Waits until all have ended.
async fn all_of(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// One connection, request by request.
async fn converse(stream: PlacedStream<Tasks<TcpStream>>, router: Router, mut ends: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router.layer(Extension(stream.peer().clone())));
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_FOR_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(ends.wait_for(|ends| *ends).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection was cut");
    }
}

async fn keep_up(transport: Transport, landing: Landing) {
    let (mut certificates, mut parts) = (interval(KEPT_UP_EVERY), interval(TIDIED_EVERY));
    loop {
        tokio::select! {
            _ = certificates.tick() => {
                let transport = transport.clone();
                // What cannot be read again is logged where it is read, and everything goes on as before.
                let _ = tokio::task::spawn_blocking(move || transport.keep_up()).await;
            }
            _ = parts.tick() => {
                let landing = landing.clone();
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || landing.tidy()).await {
                    tracing::warn!(%error, "old uploads could not be looked for");
                }
            }
        }
    }
}
