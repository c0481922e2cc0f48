//! Figures: what was measured, of what, on which store; a table of them, and the file.

use std::time::Duration;

use serde::Serialize;

use crate::machine::Machine;

#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) section: &'static str,
    pub(crate) what: String,
    pub(crate) store: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// All of a run.
#[derive(Serialize)]
pub(crate) struct Figures {
    machine: Machine,
    command: String,
    scopes: usize,
    /// What was left out, and why.
    skipped: Vec<String>,
    figures: Vec<Figure>,
}

impl Figures {
    pub(crate) fn new(command: String, scopes: usize) -> Self {
        Self { machine: Machine::look(), command, scopes, skipped: Vec::new(), figures: Vec::new() }
    }

    pub(crate) fn skip(&mut self, what: String) {
        println!("SKIPPED: {what}");
        self.skipped.push(what);
    }

    /// Keeps a figure, and prints it: a run is long, and what was seen is seen at once.
    pub(crate) fn add(
        &mut self,
        section: &'static str,
        store: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) {
        let what = what.into();
        if self.figures.last().is_none_or(|last| last.section != section) {
            println!("\n{section}");
        }
        println!("  {store:<11} {what:<58} {:>14} {unit}", shown(value));
        assert!(value.is_finite(), "{what}: {value}");
        self.figures.push(Figure { section, what, store, unit, value });
    }

    /// The median and the 99th percentile.
    pub(crate) fn add_spread(
        &mut self,
        section: &'static str,
        store: &'static str,
        what: &str,
        mut times: Vec<Duration>,
    ) {
        times.sort();
        for (name, percent) in [("p50", 50), ("p99", 99)] {
            let time = times[(times.len() - 1) * percent / 100];
            self.add(section, store, format!("{what}, {name}"), time.as_secs_f64() * 1e6, "us");
        }
    }

    pub(crate) fn write(&self, path: &str) {
        std::fs::create_dir_all("target/bench").unwrap();
        std::fs::write(path, serde_json::to_string_pretty(self).unwrap()).unwrap();
        println!("\nwritten to {path}");
    }
}

fn shown(value: f64) -> String {
    let digits = if value >= 1_000.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}
