#![doc = include_str!("../README.md")]

#[cfg(feature = "authority")]
pub mod authority;
mod certificate;
mod check;
mod exchange;
mod files;
mod identity;
mod lease;
mod observe;
mod peer;
mod provider;
mod settings;
mod stream;
mod transport;
mod trust;

pub use certificate::{Certificate, RevocationList};
pub use exchange::Exchange;
pub use identity::Identity;
pub use peer::Peer;
pub use provider::Provider;
pub use settings::{Authorities, Settings};
pub use stream::{Blocking, PlacedStream, Socket, error_of};
pub use transport::{Acceptor, Builder, Connector, Reloaded, Target, Transport};
