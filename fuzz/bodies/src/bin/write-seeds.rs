//! Writes the seeds below `fuzz/seeds`, or where it is told: `cargo run -p domicile-fuzz-bodies --bin write-seeds`.

#![allow(clippy::print_stdout, reason = "a program")]

use std::path::PathBuf;

use domicile_fuzz_bodies::{BODIES, seeds::seeds};

fn main() -> std::io::Result<()> {
    let into = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("fuzz/seeds"), PathBuf::from);
    for (body, _) in BODIES {
        let folder = into.join(body);
        // Seeds that are no longer made go with the folder.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
    }
    let (mut count, mut octets) = (0, 0);
    for seed in seeds() {
        std::fs::write(into.join(seed.body).join(seed.name), &seed.bytes)?;
        (count, octets) = (count + 1, octets + seed.bytes.len());
    }
    println!("{count} seeds, {octets} octets, below {}", into.display());
    Ok(())
}
