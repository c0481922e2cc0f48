//! The names of metrics of connections, all in one place: page `metrics.md` of the book lists them. No label ever names a
//! tenant or a host; regions are those that are configured.

use domicile::{Code, Error};

/// A handshake ended, well or not. `region` is that of the other end, where it was believed.
pub(crate) fn shook_hands(role: &'static str, outcome: &'static str, region: &str, group: &str) {
    metrics::counter!(
        "domicile_handshakes_total",
        "role" => role, "outcome" => outcome, "region" => region.to_owned(), "group" => group.to_owned()
    )
    .increment(1);
}

/// A handshake came to nothing. Whoever refused has said why; that this end was refused is said here.
pub(crate) fn failed(role: &'static str, error: &Error) {
    shook_hands(role, error.code().as_str(), "", "");
    if error.code() == Code::PeerDenied {
        tracing::warn!(code = %error.code(), role, "{error}: the other end's log says by which rule");
    }
}

/// So many connections are open, handshakes among them.
pub(crate) fn open(connections: usize) {
    metrics::gauge!("domicile_connections").set(u32::try_from(connections).unwrap_or(u32::MAX));
}

/// A connection was ended from this side.
pub(crate) fn ended(cause: &'static str) {
    metrics::counter!("domicile_connections_ended_total", "cause" => cause).increment(1);
}

/// Certificates, keys and revocation lists were read again.
pub(crate) fn reloaded(outcome: &'static str) {
    metrics::counter!("domicile_certificate_reloads_total", "outcome" => outcome).increment(1);
}

/// Octets of segments came in, be they whole or not.
#[cfg(feature = "ship")]
pub(crate) fn received(octets: u64) {
    metrics::counter!("domicile_shipping_received_bytes_total").increment(octets);
}

/// A segment of so many octets is kept.
#[cfg(feature = "ship")]
pub(crate) fn kept(octets: u64) {
    metrics::counter!("domicile_shipping_segments_total").increment(1);
    metrics::counter!("domicile_shipping_kept_bytes_total").increment(octets);
}

/// A request about segments was answered.
#[cfg(feature = "ship")]
pub(crate) fn answered(method: &'static str, status: u16) {
    let outcome = match status {
        200..300 => "ok",
        400..500 => "refused",
        _ => "failed",
    };
    metrics::counter!("domicile_shipping_requests_total", "operation" => method, "outcome" => outcome)
        .increment(1);
}

/// One upload that goes on, as long as this is held.
#[cfg(feature = "ship")]
#[derive(Debug)]
pub(crate) struct Uploading(());

#[cfg(feature = "ship")]
impl Uploading {
    pub(crate) fn begin() -> Self {
        metrics::gauge!("domicile_shipping_uploads").increment(1.0);
        Self(())
    }
}

#[cfg(feature = "ship")]
impl Drop for Uploading {
    fn drop(&mut self) {
        metrics::gauge!("domicile_shipping_uploads").decrement(1.0);
    }
}
