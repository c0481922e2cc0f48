//! The other end of a connection, as it was found good.

use std::net::SocketAddr;
use std::sync::Arc;

use domicile::{Place, Region, Time};

use crate::Identity;

/// Who and where the other end is. Cheap to clone; HTTP servers find it beside each request.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Facts>);

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) identity: Identity,
    pub(crate) place: Place,
    pub(crate) fingerprint: String,
    pub(crate) end_point: Option<Vec<u8>>,
    pub(crate) ends_at: Time,
    pub(crate) key_exchange: String,
    pub(crate) suite: String,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) address: Option<SocketAddr>,
}

impl Peer {
    pub(crate) fn new(facts: Facts) -> Self {
        Self(Arc::new(facts))
    }

    /// Its identity, which its region's authority vouches for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The region that it is in.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.0.place.region
    }

    /// The region with its jurisdiction, as this host's configuration has them.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// SHA-256 of its certificate, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// What a protocol inside may bind itself to (RFC 5929, `tls-server-end-point`): the hash of the other end's certificate, where
    /// that is signed with SHA-256.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.0.end_point.as_deref()
    }

    /// When the connection ends at the latest: with the certificate of either end.
    #[must_use]
    pub fn ends_at(&self) -> Time {
        self.0.ends_at
    }

    /// The key exchange that was agreed on: `X25519MLKEM768` is safe from quantum computers to come, as far as is known.
    #[must_use]
    pub fn key_exchange(&self) -> &str {
        &self.0.key_exchange
    }

    /// The cipher suite that was agreed on.
    #[must_use]
    pub fn suite(&self) -> &str {
        &self.0.suite
    }

    /// The protocol that was agreed on inside, if both ends named one (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn.as_deref()
    }

    /// The address that the connection was made to or came from, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }
}
