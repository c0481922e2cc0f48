//! How much memory a case takes, as the kernel counts it: each runs once in a process of its own, and what that process
//! occupied at most meanwhile is held against what it occupied before.

use std::process::Command;

use domicile::engine::Suite;

use crate::rounds::{Case, Measured};

/// The argument of that process.
pub(crate) const CHILD: &str = "peak-of";

/// Octets that a case takes at its peak, beside the records and what was made ready.
pub(crate) fn of(case: &Measured, suite: Suite, records: usize) -> u64 {
    let engine = case.engine.map_or("-", |engine| engine.as_str());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([CHILD, &suite.to_string(), engine, &case.name, &records.to_string()]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// Runs the one case of this name and engine, and prints its octets.
pub(crate) fn child(cases: Vec<Case<'_>>, engine: &str, name: &str) {
    let is_it =
        |case: &Case<'_>| case.name == name && case.engine.map_or("-", |engine| engine.as_str()) == engine;
    let mut run = (cases.into_iter().find(is_it).unwrap().prepare)();
    // From now on the peak is what this case needs, and not what making it ready did.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    run();
    println!("{}", status("VmHWM:").saturating_sub(before));
}

/// Octets of this process: resident now (`VmRSS:`), or at most (`VmHWM:`).
pub(crate) fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
