//! The names of metrics of connections, all in one place: page `metrics.md` of the book lists them. No label ever names a
//! tenant or a host; regions are those that are configured.

/// A handshake ended, well or not. `region` is that of the other end, where it was believed.
pub(crate) fn shook_hands(role: &'static str, outcome: &'static str, region: &str, group: &str) {
    metrics::counter!(
        "domicile_handshakes_total",
        "role" => role, "outcome" => outcome, "region" => region.to_owned(), "group" => group.to_owned()
    )
    .increment(1);
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
