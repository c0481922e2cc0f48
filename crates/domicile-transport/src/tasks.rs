//! Connections under tokio: the same handshake, check and right to go on, for tasks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use domicile::{Code, Error, Result};
use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::check::Check;
use crate::lease::{Direction, Lease, Slot};
use crate::observe;
use crate::stream::{PlacedStream, carried, explained, told};
use crate::transport::{Acceptor, Connector, Target, Transport};
use crate::trust::End;

/// TLS over a socket of tokio.
#[derive(Debug)]
pub struct Tasks<T> {
    tls: Box<TlsStream<T>>,
    idle: Idle,
}

/// How long nothing may happen. The timer is looked at when it runs out, and not set anew each time something happens.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

/// A handshake that failed, with the socket.
type Failed<T> = (io::Error, T);

impl Connector {
    /// Connects under tokio, and shakes hands: an end in the wrong place is refused before anything is sent to it. A future
    /// that is dropped has closed its socket.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_async(
        &self,
        address: impl ToSocketAddrs,
        target: &Target,
    ) -> Result<PlacedStream<Tasks<TcpStream>>> {
        let failed = |source: io::Error| {
            Error::new(Code::ConnectionFailed, "the other end cannot be reached")
                .advise("see that it listens, and what lies between")
                .because(source)
        };
        let connected = timeout(self.transport.settings_now().handshake, TcpStream::connect(address)).await;
        let socket = connected.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let address = socket.peer_addr().map_err(failed)?;
        let connected = self.connect_async_from(socket, target, Some(address)).await;
        connected.map_err(|error| error.at(address.to_string()))
    }

    /// Shakes hands over whatever is connected already.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_async_over<T>(&self, socket: T, target: &Target) -> Result<PlacedStream<Tasks<T>>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_async_from(socket, target, None).await
    }

    async fn connect_async_from<T>(
        &self,
        socket: T,
        target: &Target,
        address: Option<std::net::SocketAddr>,
    ) -> Result<PlacedStream<Tasks<T>>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let slot = self.transport.admit()?;
        let (check, config) = self.begin(target)?;
        let tls = TlsConnector::from(Arc::new(config));
        let shake =
            async { tls.connect(target.server_name(), socket).into_fallible().await.map(TlsStream::from) };
        placed(&self.transport, &check, End::Server, slot, address, shake).await
    }
}

impl Acceptor {
    /// Shakes hands with whoever connected, under tokio.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn accept_async(&self, socket: TcpStream) -> Result<PlacedStream<Tasks<TcpStream>>> {
        let address = socket.peer_addr().ok();
        self.accept_async_from(socket, address).await
    }

    /// The same over whatever is connected already.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn accept_async_over<T>(&self, socket: T) -> Result<PlacedStream<Tasks<T>>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_async_from(socket, None).await
    }

    async fn accept_async_from<T>(
        &self,
        socket: T,
        address: Option<std::net::SocketAddr>,
    ) -> Result<PlacedStream<Tasks<T>>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let slot = self.transport.admit()?;
        let (check, config) = self.begin()?;
        let tls = TlsAcceptor::from(Arc::new(config));
        let shake = async { tls.accept(socket).into_fallible().await.map(TlsStream::from) };
        placed(&self.transport, &check, End::Client, slot, address, shake).await
    }
}

/// Shakes hands within the time that there is for it, and looks again.
async fn placed<T>(
    transport: &Transport,
    check: &Check,
    end: End,
    slot: Slot,
    address: Option<std::net::SocketAddr>,
    shake: impl Future<Output = Result<TlsStream<T>, Failed<T>>>,
) -> Result<PlacedStream<Tasks<T>>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let role = match end {
        End::Server => "client",
        End::Client => "server",
    };
    let limits = transport.settings_now();
    let outcome = match timeout(limits.handshake, shake).await {
        Err(_) => Err(explained(io::ErrorKind::TimedOut.into(), "the handshake failed")),
        Ok(Err((error, socket))) => {
            linger(socket, limits.handshake).await;
            Err(check.refusal().unwrap_or_else(|| explained(error, "the handshake failed")))
        }
        Ok(Ok(tls)) => {
            let connection: &CommonState = tls.get_ref().1;
            match transport.placed(connection, check, end, slot, address) {
                Ok(lease) => Ok((tls, lease)),
                Err(error) => Err(error),
            }
        }
    };
    let (tls, lease) = outcome.inspect_err(|error| observe::failed(role, error))?;
    let peer = lease.peer();
    observe::shook_hands(role, "ok", peer.region().as_str(), peer.key_exchange());
    tracing::debug!(peer = %peer.identity(), key_exchange = peer.key_exchange(), role, "a connection is placed");
    Ok(PlacedStream { inner: Tasks { tls: Box::new(tls), idle: Idle::new(limits.idle) }, lease })
}

/// Waits until the other end had a chance to read what it was told: a socket that is closed while something lies in it unread
/// takes back what was sent last.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut socket: T, limit: Duration) {
    const WAIT_MAX: Duration = Duration::from_secs(1);
    const UNREAD_BYTES_MAX: u64 = 1 << 16;
    let told = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(UNREAD_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The connection failed in any case; what is told is a courtesy.
    let _ = timeout(limit.min(WAIT_MAX), told).await;
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Ready when nothing happened for too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let until = self.last + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
        }
    }
}

impl<T> PlacedStream<Tasks<T>> {
    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &T {
        self.inner.tls.get_ref().0
    }

    /// One step of reading or writing: something happened, or it is waited for.
    fn step<V>(
        &mut self,
        context: &mut Context<'_>,
        direction: Direction,
        polled: Poll<io::Result<V>>,
    ) -> Poll<io::Result<V>> {
        match polled {
            Poll::Ready(Ok(value)) => {
                self.inner.idle.last = Instant::now();
                Poll::Ready(Ok(value))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(told(&self.lease, error))),
            Poll::Pending => {
                self.lease.wakes(direction, context.waker());
                self.lease.check().map_err(carried)?;
                ready!(self.inner.idle.poll(context));
                Poll::Ready(Err(told(&self.lease, io::ErrorKind::TimedOut.into())))
            }
        }
    }

    fn may_go_on(&self) -> io::Result<()> {
        let lease: &Lease = &self.lease;
        lease.check().map_err(carried)
    }
}

/// Reads what is there, up to what the buffer holds: TLS gives a record at a time, and whoever reads is woken once for many. What
/// went wrong behind some octets is told by the next reading, as is an end: both stay.
fn fill<T: AsyncRead + AsyncWrite + Unpin>(
    mut tls: Pin<&mut TlsStream<T>>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let before = buffer.filled().len();
    loop {
        let filled = buffer.filled().len();
        match tls.as_mut().poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > filled && buffer.remaining() > 0 => {}
            Poll::Pending | Poll::Ready(Err(_)) if filled > before => return Poll::Ready(Ok(())),
            polled => return polled,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for PlacedStream<Tasks<T>> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.may_go_on()?;
        let polled = fill(Pin::new(&mut *this.inner.tls), context, buffer);
        this.step(context, Direction::Reading, polled)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PlacedStream<Tasks<T>> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.may_go_on()?;
        let polled = Pin::new(&mut this.inner.tls).poll_write(context, bytes);
        this.step(context, Direction::Writing, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.may_go_on()?;
        let polled = Pin::new(&mut this.inner.tls).poll_write_vectored(context, bytes);
        this.step(context, Direction::Writing, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.may_go_on()?;
        let polled = Pin::new(&mut this.inner.tls).poll_flush(context);
        this.step(context, Direction::Writing, polled)
    }

    /// Says properly that nothing more comes.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.may_go_on()?;
        let polled = Pin::new(&mut this.inner.tls).poll_shutdown(context);
        this.step(context, Direction::Writing, polled)
    }
}
