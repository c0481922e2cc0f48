//! What the figures were taken on.

use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    system: String,
    compiler: &'static str,
    version: &'static str,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let system = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: name.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            system: system.trim().to_owned(),
            compiler: "the one that rust-toolchain.toml names; release profile, no target-cpu",
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
