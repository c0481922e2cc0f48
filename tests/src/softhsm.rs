//! Tokens of SoftHSM, a hardware security module in software, each test's in a process of its own.
//!
//! SoftHSM reads where its tokens are from the environment when it is loaded, and a process is loaded with it once. So a test
//! runs itself again, in a process whose environment says where its own directory is.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;

use domicile::kms::Pkcs11Options;

/// The label of each test's token.
pub const TOKEN: &str = "domicile-test";
/// Its user's PIN.
pub const PIN: &str = "271828";

const INNER: &str = "DOMICILE_TEST_TOKEN";
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A directory with a token in it, and the module for it.
#[derive(Debug)]
pub struct Softhsm {
    /// Where test files may be.
    pub directory: PathBuf,
    /// The library.
    pub module: PathBuf,
}

impl Softhsm {
    /// A root key `root` and a signing key `signing` on the token, which are not there yet, under the PIN in a file.
    #[must_use]
    pub fn options(&self) -> Pkcs11Options {
        let pin = self.directory.join("pin");
        write_private(&pin, PIN);
        Pkcs11Options::new(&self.module, TOKEN, "root", "signing", pin)
    }
}

/// Writes a file that its owner alone can read.
pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn module() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("DOMICILE_SOFTHSM2") {
        let named = PathBuf::from(named);
        assert!(named.exists(), "{} is not there", named.display());
        return Some(named);
    }
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no SoftHSM; scripts/test installs it (Debian: softhsm2)");
    }
    found
}

/// Runs the test `name`, which is `body`, with a new token, in a process of its own.
pub fn on_a_token<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Softhsm) -> F) {
    let Some(module) = module() else { return };
    if let Some(directory) = std::env::var_os(INNER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(body(Softhsm { directory: directory.into(), module }));
    }
    let directory = tempfile::tempdir().unwrap();
    let (tokens, config) = (directory.path().join("tokens"), directory.path().join("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(&config, text).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "314159"])
        .env("SOFTHSM2_CONF", &config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let inner = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env("SOFTHSM2_CONF", &config)
        .env(INNER, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{name}:\n{said}\n{}",
        String::from_utf8_lossy(&inner.stderr)
    );
}
