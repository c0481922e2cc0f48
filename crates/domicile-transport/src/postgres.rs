//! Connections of `tokio-postgres` to a server that is where it may be.

use std::future::Future;
use std::pin::Pin;

use domicile::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::Identity;
use crate::stream::PlacedStream;
use crate::tasks::Tasks;
use crate::transport::{Connector, Target};

/// Connects to PostgreSQL: `config.connect(connector.postgres())`. With `ssl_mode(SslMode::Require)`, nothing goes without it.
#[derive(Debug, Clone)]
pub struct PostgresConnector {
    connector: Connector,
    identity: Option<Identity>,
}

/// What connects once.
#[derive(Debug)]
pub struct PostgresHandshake {
    connector: Connector,
    target: Target,
}

impl Connector {
    /// A connector for `tokio-postgres`, to servers with a certificate for the name that is connected to.
    #[must_use]
    pub fn postgres(&self) -> PostgresConnector {
        PostgresConnector { connector: self.clone(), identity: None }
    }

    /// The same to exactly this identity, whatever the name.
    #[must_use]
    pub fn postgres_to(&self, identity: Identity) -> PostgresConnector {
        PostgresConnector { connector: self.clone(), identity: Some(identity) }
    }
}

impl<S> MakeTlsConnect<S> for PostgresConnector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PlacedStream<Tasks<S>>;
    type TlsConnect = PostgresHandshake;
    type Error = Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<PostgresHandshake> {
        let target = match &self.identity {
            Some(identity) => Target::identity(identity.clone()),
            None => Target::named(domain)?,
        };
        Ok(PostgresHandshake { connector: self.connector.clone(), target })
    }
}

impl<S> TlsConnect<S> for PostgresHandshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PlacedStream<Tasks<S>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect_async_over(stream, &self.target).await })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PlacedStream<Tasks<S>> {
    /// The password is bound to the server's certificate (RFC 5929, `tls-server-end-point`) where that is signed with
    /// SHA-256, as those of `domicile cert` are.
    fn channel_binding(&self) -> ChannelBinding {
        match self.peer().end_point() {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.to_vec()),
            None => ChannelBinding::none(),
        }
    }
}
