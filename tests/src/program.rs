//! The program, as its users run it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// What is built, as cargo is told.
const PROGRAMS: [&str; 6] =
    ["--package", "domicile-cli", "--package", "domicile-record", "--bins", "--examples"];

/// The program, built for these tests if it is not.
pub fn path() -> PathBuf {
    built().join("domicile")
}

/// An example of `domicile-record`, built for these tests if it is not.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built().join("examples").join(name)
}

/// Where programs are built. The examples are built with the program, because both stand on the same libraries then: on
/// their own, most of these would be compiled anew with fewer features.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.arg("build").arg("--quiet").args(PROGRAMS).current_dir(repository());
        // What cargo says of the test to the test: a build script that looks at it would be run anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|of| name.starts_with(of))
            {
                build.env_remove(&*name);
            }
        }
        let built = build.status().unwrap();
        assert!(built.success(), "cargo build {PROGRAMS:?} failed");
        target().join("debug")
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

/// Starts the program, which this command is or runs: it seals what it is fed for one scope, and acknowledges what is safe.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn acknowledging(mut command: Command, place: &Path, interval: &str, out: &Path) -> Child {
    command
        .current_dir(place)
        .args(["seal", "-", "--tenant", "acme", "--type", "voice", "--acknowledge"])
        .args(["--commit-interval", interval, "-o"])
        .arg(out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
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

/// Samples as real systems write them, which lie beside the repository, or where `DOMICILE_SHARED_SAMPLES` says.
/// Their licences differ, so that they are no part of it: a test that does not find them says so.
#[must_use]
pub fn shared_samples() -> Option<PathBuf> {
    let beside = || repository().join("../shared/samples");
    let folder = std::env::var_os("DOMICILE_SHARED_SAMPLES").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there are no samples of real systems in {}", folder.display());
    None
}

/// The sample files of the project, and those of real systems where they lie beside it.
#[must_use]
pub fn all_samples() -> Vec<PathBuf> {
    let of_the_crate = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        hidden || path.extension().is_some_and(|kind| ["md", "toml", "py"].iter().any(|other| kind == *other))
    };
    let mut files: Vec<_> = std::iter::once(samples())
        .chain(shared_samples())
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !of_the_crate(path))
        .collect();
    files.sort();
    files
}

/// Polls the most memory that a process had so far until it ends; returns that and its exit.
///
/// # Panics
/// When it cannot be waited for.
pub fn peak_memory(child: &mut std::process::Child) -> (u64, std::process::ExitStatus) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = kib.and_then(|kib| kib.parse::<u64>().ok()).map_or(peak, |kib| peak.max(kib * 1024));
        if let Some(exit) = child.try_wait().unwrap() {
            return (peak, exit);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
