//! The program, as its users run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program, built for these tests if it is not.
pub fn path() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "domicile-cli"])
            .current_dir(repository())
            .status()
            .unwrap();
        assert!(built.success(), "cargo build --package domicile-cli failed");
        target().join("debug/domicile")
    })
}

/// Where cargo builds.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(repository().join("target"), PathBuf::from)
}

/// Runs the program, with nothing of the environment that changes what it does.
#[must_use]
pub fn program() -> Command {
    let mut command = Command::new(path());
    command.env_remove("DOMICILE_CONFIG").env("RUST_BACKTRACE", "0");
    command
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The project's own sample files.
#[must_use]
pub fn samples() -> PathBuf {
    repository().join("samples")
}

/// Runs a command and wants it to succeed; returns what it wrote to standard output.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    stdout
}
