//! Key services: where root keys live, and the only thing that wraps a branch key.

#[cfg(feature = "aws")]
mod aws;
#[cfg(any(test, feature = "testing"))]
mod conformance;
mod credential;
mod custody;
#[cfg(any(feature = "aws", feature = "vault"))]
mod endpoint;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod local;
mod options;
mod passphrase;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod root;
mod root_file;
#[cfg(any(feature = "aws", feature = "vault", feature = "pkcs11"))]
mod said;
#[cfg(feature = "vault")]
mod vault;
mod verifying_key;

use std::fmt;

use async_trait::async_trait;

#[cfg(feature = "aws")]
pub use aws::AwsKms;
#[cfg(any(test, feature = "testing"))]
pub use conformance::{conformance, conformance_in, conformance_of_rotation};
pub use custody::{Agreement, Custody, Holder};
#[cfg(any(test, feature = "testing"))]
pub use fake::{Answer, FakeKms, Gate, KeyStatus, Operation};
pub use local::LocalKms;
pub use options::{AwsOptions, Pkcs11Options, VaultOptions};
pub use passphrase::{PassphraseCost, PassphraseSource};
#[cfg(feature = "pkcs11")]
pub use pkcs11::Pkcs11Kms;
#[cfg(feature = "vault")]
pub use vault::VaultKms;
pub use verifying_key::{VerifyingKey, low_s};

use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::secret::Secret;

/// The key service of one region.
///
/// Guarantees that every implementation gives, and that the suite `conformance` (feature `testing`) holds it
/// to: the root key never leaves the service; a wrap opens under the same context alone, and a changed one not at all; an error
/// tells being out of reach ([`KmsUnavailable`](Code::KmsUnavailable)) from a denial
/// ([`KmsDenied`](Code::KmsDenied)), because an outage may be waited out and a denial must not be.
///
/// Calls are few: one for each branch key and cache age, none for a scope or a record.
#[async_trait]
pub trait Kms: Send + Sync + fmt::Debug {
    /// Makes a fresh key and wraps it. At most 4,096 bytes of wrap.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)>;

    /// Wraps a key that exists already, as rotation of a root key needs.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>>;

    /// Opens a wrap made by this service under the same context.
    ///
    /// # Errors
    /// The service is out of reach or says no, or the wrap does not verify.
    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret>;

    /// Signs a statement of the region: a home, the beginning of an audit chain.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>>;

    /// Says which keys these are, without using them.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn describe(&self) -> Result<KmsDescription>;

    /// The root key that a wrap says it lies under, read off the wrap; none where it does not say. With
    /// [`current_root`](Self::current_root), rotation knows which wraps to renew before any call.
    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        let _ = wrap;
        None
    }

    /// The root key that new wraps lie under, as [`root_of`](Self::root_of) names it. Asks the service at most once.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn current_root(&self) -> Result<String> {
        Ok(self.describe().await?.root)
    }

    /// Makes a new version of the root key, and returns its id: new wraps lie under it, and old ones open as long as
    /// theirs is kept.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) where a root key is made by the operator, and named in the
    /// configuration; what stands in the way otherwise.
    async fn rotate_root(&self) -> Result<String> {
        Err(Error::new(Code::ArgumentInvalid, "this key service makes no root keys by itself")
            .advise("make a key in the service, name it as `root`, and the one before it under `former`"))
    }

    /// Drops an old version of the root key: whatever still lies under it, in whatever copy, opens no more.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for the current root, one that is not there, or where the operator
    /// destroys root keys; what stands in the way otherwise.
    async fn retire_root(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(Error::new(Code::ArgumentInvalid, "this key service drops no root keys by itself")
            .advise("schedule the deletion of the key in the service, and take it out of `former`"))
    }

    /// Asks whether this host's credentials could open wraps, and opens none.
    ///
    /// # Errors
    /// The service is out of reach or says no.
    async fn probe(&self) -> Result<()> {
        self.ready()
    }

    /// Whether a wrap could be opened here, as far as this host can tell without asking the service.
    ///
    /// # Errors
    /// What stands in the way.
    fn ready(&self) -> Result<()> {
        Ok(())
    }
}

/// Which keys a key service holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsDescription {
    /// The kind of service: `local`, `aws`, `vault`, `pkcs11`.
    pub provider: &'static str,
    /// The root key's id, as it stands beside each wrap.
    pub root: String,
    /// Verifies what the service signed.
    pub verifying_key: VerifyingKey,
}
