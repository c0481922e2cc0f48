//! Connections whose other end is where it may be: over blocking sockets here, under tokio in a module of their own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile::{Code, Error, Result, Time};
use rustls::{AlertDescription, ClientConnection, Connection, ServerConnection};

use crate::check::Check;
use crate::lease::Lease;
use crate::observe;
use crate::peer::Peer;
use crate::transport::{Acceptor, Connector, Target, Transport};
use crate::trust::End;

/// A connection over TLS 1.3 whose other end is known, in a permitted place, and judged in this very handshake.
///
/// Over a blocking socket it is [`Read`] and [`Write`]; under tokio (feature `tokio`) `AsyncRead` and `AsyncWrite`. An end of
/// the stream is told from a cut: a cut is an error ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof)). Dropped without
/// [`close`](Self::close), it is a cut for the other end. Errors of reading and writing carry a [`domicile::Error`]:
/// [`error_of`] finds it.
#[derive(Debug)]
pub struct PlacedStream<S> {
    pub(crate) inner: S,
    pub(crate) lease: Arc<Lease>,
}

impl<S> PlacedStream<S> {
    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.lease.peer()
    }

    /// When it ends at the latest.
    #[must_use]
    pub fn ends_at(&self) -> Time {
        self.lease.peer().ends_at()
    }
}

/// A socket whose waits can be limited and ended.
pub trait Socket: Read + Write {
    /// Limits how long one call of `read` or `write` waits.
    ///
    /// # Errors
    /// Those of the system.
    fn limit_waits(&self, limit: Duration) -> io::Result<()>;

    /// What ends whatever waits on the socket, from another thread.
    ///
    /// # Errors
    /// Those of the system.
    fn closer(&self) -> io::Result<Box<dyn Fn() + Send + Sync>>;

    /// Says that nothing more is written.
    ///
    /// # Errors
    /// Those of the system.
    fn finish(&self) -> io::Result<()>;

    /// Where the other end is reached, if that is an address of the network.
    fn address(&self) -> Option<SocketAddr>;
}

macro_rules! socket {
    ($socket:ty, $address:expr) => {
        impl Socket for $socket {
            fn limit_waits(&self, limit: Duration) -> io::Result<()> {
                // Nothing at all would mean for ever.
                let limit = limit.max(Duration::from_millis(1));
                self.set_read_timeout(Some(limit))?;
                self.set_write_timeout(Some(limit))
            }

            fn closer(&self) -> io::Result<Box<dyn Fn() + Send + Sync>> {
                let socket = self.try_clone()?;
                Ok(Box::new(move || {
                    // One that is closed already is as it should be.
                    let _ = socket.shutdown(Shutdown::Both);
                }))
            }

            fn finish(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn address(&self) -> Option<SocketAddr> {
                let address: fn(&$socket) -> Option<SocketAddr> = $address;
                address(self)
            }
        }
    };
}

socket!(TcpStream, |socket| socket.peer_addr().ok());
socket!(UnixStream, |_| None);

/// TLS over a blocking socket.
#[derive(Debug)]
pub struct Blocking<T: Socket> {
    connection: Connection,
    socket: T,
}

impl Connector {
    /// Connects, and shakes hands: an end in the wrong place is refused before anything is sent to it.
    ///
    /// # Errors
    /// [`PeerRefused`](Code::PeerRefused) for an end in another place, with the rule; [`PeerUnverified`](Code::PeerUnverified)
    /// for one whose certificate does not verify; [`PeerDenied`](Code::PeerDenied) where it says that it does not take this
    /// one, which may also show at the first `read`; [`ConnectionFailed`](Code::ConnectionFailed) for the rest.
    pub fn connect(
        &self,
        address: impl ToSocketAddrs,
        target: &Target,
    ) -> Result<PlacedStream<Blocking<TcpStream>>> {
        let failed = |source: io::Error| {
            Error::new(Code::ConnectionFailed, "the other end cannot be reached")
                .advise("see that it listens, and what lies between")
                .because(source)
        };
        let limit = self.transport.settings_now().handshake;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, limit) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(failed)?;
                    return self.connect_over(socket, target).map_err(|error| error.at(address.to_string()));
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Shakes hands over a socket that is connected.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_over<T: Socket>(&self, socket: T, target: &Target) -> Result<PlacedStream<Blocking<T>>> {
        let slot = self.transport.admit()?;
        let (check, config) = self.begin(target)?;
        let connection = ClientConnection::new(Arc::new(config), target.server_name())
            .map_err(|source| Error::new(Code::ConnectionFailed, "TLS cannot begin").because(source))?;
        let mut tls = Blocking { connection: connection.into(), socket };
        let lease = tls.shake_hands(&self.transport, &check).and_then(|()| {
            self.transport.placed(&tls.connection, &check, End::Server, slot, tls.socket.address())
        });
        tls.placed(lease, "client", &self.transport)
    }
}

impl Acceptor {
    /// Shakes hands with whoever connected.
    ///
    /// # Errors
    /// [`PeerRefused`](Code::PeerRefused) for an end in another place, with the rule; [`PeerUnverified`](Code::PeerUnverified)
    /// for one whose certificate does not verify; [`PeerDenied`](Code::PeerDenied) where it says that it does not take this
    /// one; [`ConnectionFailed`](Code::ConnectionFailed) for the rest.
    pub fn accept<T: Socket>(&self, socket: T) -> Result<PlacedStream<Blocking<T>>> {
        let slot = self.transport.admit()?;
        let (check, config) = self.begin()?;
        let connection = ServerConnection::new(Arc::new(config))
            .map_err(|source| Error::new(Code::ConnectionFailed, "TLS cannot begin").because(source))?;
        let mut tls = Blocking { connection: connection.into(), socket };
        let lease = tls.shake_hands(&self.transport, &check).and_then(|()| {
            self.transport.placed(&tls.connection, &check, End::Client, slot, tls.socket.address())
        });
        tls.placed(lease, "server", &self.transport)
    }
}

impl<T: Socket> Blocking<T> {
    fn shake_hands(&mut self, transport: &Transport, check: &Check) -> Result<()> {
        let deadline = Instant::now() + transport.settings_now().handshake;
        let shaken = self.exchange_flights(deadline);
        let Err(error) = shaken else { return Ok(()) };
        // What the other end is told comes before what this one says.
        self.tell_alert(deadline);
        Err(check.refusal().unwrap_or_else(|| explained(error, "the handshake failed")))
    }

    fn exchange_flights(&mut self, deadline: Instant) -> io::Result<()> {
        while self.connection.is_handshaking() || self.connection.wants_write() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.limit_waits(left)?;
            if self.connection.wants_write() {
                self.connection.write_tls(&mut self.socket)?;
            } else {
                if self.connection.read_tls(&mut self.socket)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.connection.process_new_packets().map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Sends the alert that is due, and waits until the other end had a chance to read it: a socket that is closed while
    /// something lies in it unread takes back what was sent last.
    fn tell_alert(&mut self, deadline: Instant) {
        const WAIT_MAX: Duration = Duration::from_secs(1);
        const UNREAD_BYTES_MAX: usize = 1 << 16;
        let deadline = deadline.min(Instant::now() + WAIT_MAX);
        let mut tell = || -> io::Result<()> {
            self.socket.limit_waits(deadline.saturating_duration_since(Instant::now()))?;
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.socket)?;
            }
            self.socket.finish()?;
            let (mut unread, mut buffer) = (0, [0; 4096]);
            while unread < UNREAD_BYTES_MAX {
                self.socket.limit_waits(deadline.saturating_duration_since(Instant::now()))?;
                match self.socket.read(&mut buffer)? {
                    0 => break,
                    count => unread += count,
                }
            }
            Ok(())
        };
        // The connection fails in any case; what is told is a courtesy.
        let _ = tell();
    }

    fn placed(
        mut self,
        lease: Result<Arc<Lease>>,
        role: &'static str,
        transport: &Transport,
    ) -> Result<PlacedStream<Self>> {
        let lease = match lease {
            Ok(lease) => lease,
            Err(error) => {
                observe::failed(role, &error);
                self.connection.send_close_notify();
                return Err(error);
            }
        };
        let failed =
            |source| Error::new(Code::ConnectionFailed, "the socket cannot be set up").because(source);
        self.socket.limit_waits(transport.settings_now().idle).map_err(failed)?;
        lease.closes_with(self.socket.closer().map_err(failed)?);
        let peer = lease.peer();
        observe::shook_hands(role, "ok", peer.region().as_str(), peer.key_exchange());
        tracing::debug!(peer = %peer.identity(), key_exchange = peer.key_exchange(), role, "a connection is placed");
        Ok(PlacedStream { inner: self, lease })
    }

    fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A cut is `UnexpectedEof`, a proper end is nothing.
                read => return read,
            }
            self.write_all_tls()?;
            self.connection.read_tls(&mut self.socket)?;
            if let Err(error) = self.connection.process_new_packets() {
                // What the other end is told; the error that is returned is the one that counts.
                let _ = self.write_all_tls();
                return Err(io::Error::other(error));
            }
        }
    }

    fn write_all_tls(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl<T: Socket> PlacedStream<Blocking<T>> {
    /// The socket below, to set options of it. What is read from it or written to it is lost to TLS.
    #[must_use]
    pub fn socket(&self) -> &T {
        &self.inner.socket
    }

    /// Says properly that nothing more comes, and that it was all.
    ///
    /// # Errors
    /// [`ConnectionFailed`](Code::ConnectionFailed) when that could not be said: the other end will take it for a cut.
    pub fn close(self) -> Result<()> {
        self.finish().map(drop)
    }

    /// Says properly that nothing more is written, and gives back the half that is still read.
    ///
    /// # Errors
    /// As [`close`](Self::close); [`ConnectionEnded`](Code::ConnectionEnded) where the connection may not go on.
    pub fn finish(mut self) -> Result<ReadHalf<T>> {
        self.lease.check()?;
        self.inner.connection.send_close_notify();
        let closed = self.inner.write_all_tls().and_then(|()| self.inner.socket.finish());
        closed.map_err(|error| explained(error, "the connection could not be closed properly"))?;
        Ok(ReadHalf(self))
    }

    /// What an error of the socket means, now that it is known whether the connection was ended.
    fn told<V>(&self, done: io::Result<V>) -> io::Result<V> {
        done.map_err(|error| told(&self.lease, error))
    }
}

impl<T: Socket> Read for PlacedStream<Blocking<T>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lease.check().map_err(carried)?;
        let read = self.inner.read_plain(buffer);
        self.told(read)
    }
}

impl<T: Socket> Write for PlacedStream<Blocking<T>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lease.check().map_err(carried)?;
        let mut write = || {
            let written = self.inner.connection.writer().write(bytes)?;
            self.inner.write_all_tls().map(|()| written)
        };
        let written = write();
        self.told(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lease.check().map_err(carried)?;
        let flushed = self.inner.write_all_tls().and_then(|()| self.inner.socket.flush());
        self.told(flushed)
    }
}

/// The half of a [`PlacedStream`] that is read, after the other one was [finished](PlacedStream::finish).
#[derive(Debug)]
pub struct ReadHalf<T: Socket>(PlacedStream<Blocking<T>>);

impl<T: Socket> Read for ReadHalf<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// The [`domicile::Error`] in an error of reading or writing a [`PlacedStream`].
#[must_use]
pub fn error_of(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// An error of a connection that stands: the lease's if it has ended, else what happened. It is the last thing that happens.
pub(crate) fn told(lease: &Lease, error: io::Error) -> io::Error {
    if let Err(ended) = lease.check() {
        return carried(ended);
    }
    if error_of(&error).is_some() || error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    let error = explained(error, "the connection failed").at(lease.peer().identity().to_string());
    lease.end(error.again(), "failed");
    carried(error)
}

/// An error as `Read` and `Write` carry it.
pub(crate) fn carried(error: Error) -> io::Error {
    let kind = match (
        error.code(),
        std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>()),
    ) {
        (Code::PeerDenied | Code::PeerRefused | Code::PeerUnverified | Code::ConnectionEnded, _) => {
            io::ErrorKind::PermissionDenied
        }
        (_, Some(cause)) if cause.kind() == io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut,
        (_, Some(cause)) => cause.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// What an error below means: an alert of the other end, a wait that was too long, a cut.
pub(crate) fn explained(error: io::Error, what: &str) -> Error {
    use AlertDescription as Alert;
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(Alert::AccessDenied)), _) => {
            Error::new(Code::PeerDenied, "the other end does not take this one: access denied")
                .rule("it says no more; its own log names the rule")
                .advise("see that this host is in a place where what is exchanged may be")
                .because(error)
        }
        (
            Some(rustls::Error::AlertReceived(
                alert @ (Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::DecryptError
                | Alert::CertificateRequired),
            )),
            _,
        ) => Error::new(
            Code::PeerDenied,
            format!("the other end does not take this one's certificate: {alert:?}"),
        )
        .advise("see `domicile cert show` of this host's certificate, and the other end's log")
        .because(error),
        (None, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Error::new(
            Code::ConnectionFailed,
            format!("{what}: the other end kept this one waiting for too long"),
        )
        .because(error),
        (None, io::ErrorKind::UnexpectedEof) => {
            Error::new(Code::ConnectionFailed, format!("{what}: it was cut")).because(error)
        }
        _ => Error::new(Code::ConnectionFailed, what.to_owned()).because(error),
    }
}
