//! A listener that gives connections whose other ends are where they may be; handshakes go on beside one another.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stream::PlacedStream;
use crate::tasks::Tasks;
use crate::transport::Acceptor;

/// Gives connections one by one, in the order in which their handshakes end. Dropped, it listens no longer; what it gave goes
/// on.
#[derive(Debug)]
pub struct Listener {
    ready: mpsc::Receiver<PlacedStream<Tasks<TcpStream>>>,
    local: SocketAddr,
    listening: JoinHandle<()>,
}

impl Acceptor {
    /// Listens for connections, under tokio. A handshake that fails is counted and logged, and keeps nobody else waiting;
    /// beyond the limit of connections, new ones are closed at once.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn listen(&self, listener: TcpListener) -> io::Result<Listener> {
        /// So many may be ready that nobody has taken.
        const READY_MAX: usize = 64;
        let local = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        let acceptor = self.clone();
        let listening = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => {
                        let (acceptor, sender) = (acceptor.clone(), sender.clone());
                        tokio::spawn(async move {
                            let placed = match socket.set_nodelay(true) {
                                Ok(()) => acceptor.accept_async(socket).await,
                                Err(_) => return, // it is gone already
                            };
                            match placed {
                                // Nobody takes it any longer when the listener is gone: then it is cut.
                                Ok(stream) => drop(sender.send(stream).await),
                                Err(error) => {
                                    tracing::debug!(code = %error.code(), %error, "no connection came of it");
                                }
                            }
                        });
                    }
                    Err(error) => {
                        // One that went before it was taken costs nothing; without descriptors, some time must go by.
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Listener { ready, local, listening })
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&mut self) -> PlacedStream<Tasks<TcpStream>> {
        match self.ready.recv().await {
            Some(stream) => stream,
            // The runtime ends: whoever waits ends with it.
            None => std::future::pending().await,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// For what is polled.
    #[cfg(feature = "tonic")]
    pub(crate) fn poll_accept(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<PlacedStream<Tasks<TcpStream>>>> {
        self.ready.poll_recv(context)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
