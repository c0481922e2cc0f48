//! How key services that are no files are reached: what stands in the configuration, in every build.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How the keys of one region at AWS KMS are reached.
///
/// Credentials come from the SDK's ordinary chain (environment, profile, container, instance), and never from here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsOptions {
    /// The ARN of the root key, or of an alias, which is resolved once.
    pub root: String,
    /// The ARN of the signing key (`ECC_NIST_P256`), or of an alias.
    pub signing: String,
    /// The ARNs of earlier root keys: they still open what lies under them.
    #[serde(default)]
    pub former: Vec<String>,
    /// The ARNs of multi-Region keys (`mrk-`) that are allowed all the same: copies of their material may be in other
    /// regions.
    #[serde(default)]
    pub multi_region: Vec<String>,
    /// Another endpoint than the region's own: a VPC endpoint, or, on this host, a stand-in for tests.
    pub endpoint: Option<String>,
    /// A profile of the SDK's files.
    pub profile: Option<String>,
    /// The ARN of a role to assume.
    pub role: Option<String>,
}

impl AwsOptions {
    /// A root key and a signing key, reached in the ordinary way.
    #[must_use]
    pub fn new(root: impl Into<String>, signing: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            signing: signing.into(),
            former: Vec::new(),
            multi_region: Vec::new(),
            endpoint: None,
            profile: None,
            role: None,
        }
    }
}

/// How the keys of one region at the Transit engine of HashiCorp Vault or OpenBao are reached.
///
/// The token comes from a file, from an AppRole, or from the environment (`VAULT_TOKEN`), and never from here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultOptions {
    /// Where the service is: `https://HOST:PORT`, or `http://` on this host.
    pub address: String,
    /// Where the Transit engine is mounted.
    #[serde(default = "VaultOptions::default_mount")]
    pub mount: String,
    /// The name of the root key (`aes256-gcm96`).
    pub root: String,
    /// The name of the signing key (`ed25519` or `ecdsa-p256`).
    pub signing: String,
    /// The version of the signing key that signs, where it is not the latest.
    pub signing_version: Option<u32>,
    /// The namespace, where there are any.
    pub namespace: Option<String>,
    /// The file that holds the token; read at each call, so that an agent may replace it.
    pub token_file: Option<PathBuf>,
    /// The id of an AppRole to log in with, in place of a token.
    pub role_id: Option<String>,
    /// The file that holds the secret id of that role.
    pub secret_id_file: Option<PathBuf>,
    /// Where AppRole is mounted.
    #[serde(default = "VaultOptions::default_role_mount")]
    pub role_mount: String,
    /// The certificates (PEM) that the service's must come from, in place of those that this host trusts.
    pub ca_file: Option<PathBuf>,
}

impl VaultOptions {
    /// A root key and a signing key at this address, under the token of the environment.
    #[must_use]
    pub fn new(address: impl Into<String>, root: impl Into<String>, signing: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            mount: Self::default_mount(),
            root: root.into(),
            signing: signing.into(),
            signing_version: None,
            namespace: None,
            token_file: None,
            role_id: None,
            secret_id_file: None,
            role_mount: Self::default_role_mount(),
            ca_file: None,
        }
    }

    fn default_mount() -> String {
        "transit".to_owned()
    }

    fn default_role_mount() -> String {
        "approle".to_owned()
    }

    /// The same, with paths that are relative to `directory`.
    pub(crate) fn resolved(mut self, directory: &Path) -> Self {
        for path in [&mut self.token_file, &mut self.secret_id_file, &mut self.ca_file] {
            *path = path.take().map(|path| directory.join(path));
        }
        self
    }
}

/// How the keys of one region in a hardware security module are reached, by PKCS#11.
///
/// The PIN comes from a file or the environment, and never from here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Options {
    /// The library that its maker gives: code that this process loads and runs.
    pub module: PathBuf,
    /// The token: its label, or its serial number.
    pub token: String,
    /// The label of the root key. Versions of it have the same label, and the highest `CKA_ID` is current.
    pub root: String,
    /// The label of the signing key pair.
    pub signing: String,
    /// The file that holds the user's PIN.
    pub pin_file: Option<PathBuf>,
    /// The environment variable that holds it.
    pub pin_env: Option<String>,
}

impl Pkcs11Options {
    /// Keys of a token, under the PIN in a file.
    #[must_use]
    pub fn new(
        module: impl Into<PathBuf>,
        token: impl Into<String>,
        root: impl Into<String>,
        signing: impl Into<String>,
        pin_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            module: module.into(),
            token: token.into(),
            root: root.into(),
            signing: signing.into(),
            pin_file: Some(pin_file.into()),
            pin_env: None,
        }
    }

    /// The same, with paths that are relative to `directory`.
    pub(crate) fn resolved(mut self, directory: &Path) -> Self {
        self.module = directory.join(self.module);
        self.pin_file = self.pin_file.map(|path| directory.join(path));
        self
    }
}
