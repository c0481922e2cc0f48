//! `axum::serve` over placed connections.

use std::io;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::TcpStream;

use crate::listener::Listener;
use crate::peer::Peer;
use crate::stream::PlacedStream;
use crate::tasks::Tasks;

impl axum::serve::Listener for Listener {
    type Io = PlacedStream<Tasks<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let stream = Listener::accept(self).await;
        let address = stream.peer().address().unwrap_or_else(|| self.local_addr());
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Listener::local_addr(self))
    }
}

/// `router.into_make_service_with_connect_info::<Peer>()`, and handlers take `ConnectInfo<Peer>`.
impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().peer().clone()
    }
}
