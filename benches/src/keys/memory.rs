//! Memory of a filled cache, measured in a process of its own; and the sizes of what lies in stores.

use std::path::Path;
use std::process::Command;

use domicile::Action;
use domicile_tests::postgres::Server;
use domicile_tests::program::succeed;

use super::Size;
use super::figures::Figures;
use super::ground::{Ground, period, region};

/// The argument of that process.
pub(crate) const CHILD: &str = "memory-of";

/// Octets of a store.
pub(crate) struct Sizes {
    /// The table of keys, with its indices, where the store can tell.
    pub(crate) keys: Option<u64>,
    /// The table of audit events, the same.
    pub(crate) events: Option<u64>,
    /// All of it.
    pub(crate) all: u64,
}

pub(crate) fn of_sqlite(path: &Path) -> Sizes {
    let log = path.with_extension("db-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    Sizes { keys: None, events: None, all: length(path) + length(&log) }
}

pub(crate) fn of_postgresql(server: &Server) -> Sizes {
    let ask = |what: &str| server.sql("keys", &format!("SELECT {what}")).unwrap().parse().unwrap();
    Sizes {
        keys: Some(ask("pg_total_relation_size('keys')")),
        events: Some(ask("pg_total_relation_size('audit_events')")),
        all: ask("pg_database_size(current_database())"),
    }
}

pub(crate) fn measure(path: &Path, size: &Size, figures: &mut Figures) {
    let output = succeed(Command::new(std::env::current_exe().unwrap()).args(["keys", CHILD]).arg(path));
    let [before, after, scopes]: [u64; 3] = serde_json::from_slice(&output).unwrap();
    assert_eq!(scopes, size.scopes as u64 + 1, "the region's own key is one of them");
    let each = after.saturating_sub(before) as f64 / scopes as f64;
    figures.add("memory", "sqlite", "resident, a cached key", each, "octets");
}

/// Fills a cold cache, and prints what the process occupied before and after, and for how many scopes.
pub(crate) async fn child(path: &Path) {
    let ground = Ground::sqlite(path).await;
    let domicile = ground.process().await;
    let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
    // What is there once, whatever the cache holds: connections, code, the first pages of the store.
    domicile.keyring().segment_leaf(permit, period()).await.unwrap();
    let before = resident();
    let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
    let warmed = domicile.keyring().warm(permit, period()).await.unwrap();
    println!("{}", serde_json::json!([before, resident(), warmed.scopes]));
}

/// Octets of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
