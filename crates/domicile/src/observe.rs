//! The names of metrics, all in one place: page `metrics.md` of the book lists them. No label ever names a tenant.

/// Somebody asked the cache `what` for a key.
pub(crate) fn looked_up(what: &'static str, hit: bool) {
    let outcome = if hit { "hit" } else { "miss" };
    metrics::counter!("domicile_key_lookups_total", "cache" => what, "outcome" => outcome).increment(1);
}

/// A key service was asked.
pub(crate) fn asked_kms(operation: &'static str, region: &crate::Region, outcome: &'static str) {
    metrics::counter!(
        "domicile_kms_calls_total",
        "operation" => operation, "region" => region.to_string(), "outcome" => outcome
    )
    .increment(1);
}

/// The changes of a store were asked for.
pub(crate) fn polled(region: &crate::Region, outcome: &'static str) {
    metrics::counter!("domicile_store_polls_total", "region" => region.to_string(), "outcome" => outcome)
        .increment(1);
}

/// Key rows were written anew.
pub(crate) fn rewrote(what: &'static str, rows: usize) {
    metrics::counter!("domicile_key_rows_written_total", "cause" => what).increment(rows as u64);
}

/// The guard, or the state of a scope, said no.
pub(crate) fn refused(code: crate::Code) {
    metrics::counter!("domicile_refusals_total", "code" => code.as_str()).increment(1);
}

/// Audit events became durable.
pub(crate) fn recorded(events: usize) {
    metrics::counter!("domicile_audit_events_total").increment(events as u64);
}

/// Data keys in use ended with their tenant keys.
pub(crate) fn leases_ended(count: u64) {
    metrics::counter!("domicile_leases_ended_total").increment(count);
}
