#![doc = include_str!("../README.md")]

#[cfg(feature = "authority")]
pub mod authority;
#[cfg(feature = "axum")]
mod axum_listener;
mod certificate;
mod check;
mod exchange;
mod files;
#[cfg(feature = "hyper")]
mod http;
mod identity;
mod lease;
#[cfg(feature = "tokio")]
mod listener;
mod observe;
mod peer;
mod pem;
#[cfg(feature = "tokio-postgres")]
mod postgres;
mod provider;
mod settings;
#[cfg(feature = "ship")]
pub mod ship;
mod stream;
#[cfg(feature = "tokio")]
mod tasks;
#[cfg(feature = "tonic")]
mod tonic_server;
mod transport;
mod trust;

pub use certificate::{Certificate, RevocationList};
pub use exchange::Exchange;
#[cfg(feature = "hyper")]
pub use http::HttpConnector;
pub use identity::Identity;
#[cfg(feature = "tokio")]
pub use listener::Listener;
pub use peer::Peer;
pub use pem::{Piece, read_pem};
#[cfg(feature = "tokio-postgres")]
pub use postgres::{PostgresConnector, PostgresHandshake};
pub use provider::Provider;
pub use settings::{Authorities, Settings};
pub use stream::{Blocking, PlacedStream, ReadHalf, Socket, error_of};
#[cfg(feature = "tokio")]
pub use tasks::Tasks;
pub use transport::{Acceptor, Builder, Connector, Reloaded, Target, Transport};
