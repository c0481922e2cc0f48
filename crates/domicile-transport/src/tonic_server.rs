//! `tonic` servers over placed connections: `Server::builder().serve_with_incoming(listener)`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tonic::transport::server::Connected;

use crate::listener::Listener;
use crate::peer::Peer;
use crate::stream::PlacedStream;
use crate::tasks::Tasks;

/// Requests carry the [`Peer`] among their extensions.
impl<T> Connected for PlacedStream<Tasks<T>> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer().clone()
    }
}

impl futures_core::Stream for Listener {
    type Item = io::Result<PlacedStream<Tasks<TcpStream>>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_accept(context).map(|stream| stream.map(Ok))
    }
}
