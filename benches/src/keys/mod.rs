//! The key hierarchy in figures: look-ups, cold caches, new scopes, rotation, erasure, memory, audit, and the calls to
//! a key service of a whole day.
//!
//! Everything goes through the public door, with a key service in memory that counts its calls and answers at once:
//! what a real one takes is its own, and the counts say how often.

mod day;
mod erasure;
mod figures;
mod ground;
mod memory;
mod stores;

use std::path::Path;
use std::time::Instant;

use domicile_tests::postgres::Server;
use tokio::runtime::{Builder, Runtime};

use figures::Figures;
use ground::Ground;

/// How much of everything.
pub(crate) struct Size {
    /// Scopes in a store.
    scopes: usize,
    /// Look-ups of each kind.
    look_ups: usize,
    /// Leaves erased in one write, and one by one.
    erased: usize,
    /// Segments retired.
    retired: usize,
    /// Audit events of each kind.
    events: usize,
    day: day::Plan,
}

const FULL: Size = Size {
    scopes: 100_000,
    look_ups: 2_000,
    erased: 1_000,
    retired: 100_000,
    events: 10_000,
    day: day::Plan { scopes: 400_000, writers: 100, records_a_day: 1e9, hours: 6, thinned_writers: 100 },
};

/// Enough to see that everything still runs.
const QUICK: Size = Size {
    scopes: 2_000,
    look_ups: 200,
    erased: 50,
    retired: 1_000,
    events: 300,
    day: day::Plan { scopes: 800, writers: 100, records_a_day: 1e7, hours: 2, thinned_writers: 5 },
};

/// `keys [--quick] [SECTION]`; and what the memory section starts as a process of its own.
pub(crate) fn run(arguments: &[String]) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let [first, path] = arguments
        && first == memory::CHILD
    {
        return runtime.block_on(memory::child(Path::new(path)));
    }
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    let sections = ["sqlite", "postgresql", "retiring", "day"];
    let only = match &arguments[usize::from(quick)..] {
        [] => None,
        [section] if sections.contains(&section.as_str()) => Some(section.as_str()),
        _ => {
            eprintln!("usage: scripts/bench keys [--quick] [{}]", sections.join("|"));
            std::process::exit(2);
        }
    };
    let size = if quick { QUICK } else { FULL };
    let command = format!("scripts/bench keys {}", arguments.join(" ")).trim().to_owned();
    let mut figures = Figures::new(command, size.scopes);
    for section in sections.iter().filter(|section| only.is_none_or(|only| only == **section)) {
        let begun = Instant::now();
        measure(section, &size, &runtime, &mut figures);
        eprintln!("  ({section}: {:.0} s)", begun.elapsed().as_secs_f64());
    }
    let name = only.map_or_else(|| "keys".to_owned(), |section| format!("keys-{section}"));
    figures.write(&format!("target/bench/{name}.json"));
}

fn measure(section: &str, size: &Size, runtime: &Runtime, figures: &mut Figures) {
    match section {
        "sqlite" => {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("keys.db");
            let sizes = || memory::of_sqlite(&path);
            runtime.block_on(async {
                let ground = Ground::new_sqlite(&path).await;
                stores::fill(&ground, size, figures, &sizes).await;
                memory::measure(&path, size, figures);
                stores::change(&ground, size, figures, &sizes).await;
            });
        }
        "postgresql" if !Server::is_installed() => {
            figures.skip("PostgreSQL is not installed: no figures of it".to_owned());
        }
        "postgresql" => runtime.block_on(async {
            let server = Server::new().await;
            let ground = Ground::postgresql(&server).await;
            let sizes = || memory::of_postgresql(&server);
            stores::fill(&ground, size, figures, &sizes).await;
            stores::change(&ground, size, figures, &sizes).await;
        }),
        "retiring" => runtime.block_on(erasure::retiring(size, figures)),
        _ => runtime.block_on(day::measure(&size.day, figures)),
    }
}
