//! HTTP over placed connections: a connector for clients of `hyper-util` and `tonic`, and listeners for servers of `axum` and
//! `tonic`, which find the [`Peer`] beside each request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use domicile::{Code, Error, Result};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::Identity;
use crate::stream::PlacedStream;
use crate::tasks::Tasks;
use crate::transport::{Connector, Target};

/// Connects HTTP clients: `hyper_util::client::legacy::Client::builder(..).build(connector)`, or
/// `tonic::transport::Endpoint::connect_with_connector(connector)`.
#[derive(Debug, Clone)]
pub struct HttpConnector {
    connector: Connector,
    identity: Option<Identity>,
}

impl Connector {
    /// A connector for HTTP clients, to servers with a certificate for the name in the URI. What the client speaks is said
    /// by [`protocols`](Self::protocols): `h2`, `http/1.1`.
    #[must_use]
    pub fn http(&self) -> HttpConnector {
        HttpConnector { connector: self.clone(), identity: None }
    }

    /// The same to exactly this identity, whatever the name in the URI.
    #[must_use]
    pub fn http_to(&self, identity: Identity) -> HttpConnector {
        HttpConnector { connector: self.clone(), identity: Some(identity) }
    }
}

impl HttpConnector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<PlacedStream<Tasks<TcpStream>>>> {
        let invalid = |what: &str| Error::new(Code::ArgumentInvalid, what).at(uri.to_string());
        if uri.scheme_str() != Some("https") {
            return Err(invalid("only https is placed").advise("write the URI with https://"));
        }
        let host = uri.host().ok_or_else(|| invalid("there is no host in this URI"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let target = match self.identity {
            Some(identity) => Target::identity(identity),
            None => Target::named(host)?,
        };
        let stream = self.connector.connect_async((host, uri.port_u16().unwrap_or(443)), &target).await?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for HttpConnector {
    type Response = TokioIo<PlacedStream<Tasks<TcpStream>>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// What comes over it carries the [`Peer`](crate::Peer) among its extensions.
impl<T: AsyncRead + AsyncWrite + Unpin> Connection for PlacedStream<Tasks<T>> {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.peer().clone());
        if self.peer().alpn() == Some(b"h2") { connected.negotiated_h2() } else { connected }
    }
}
