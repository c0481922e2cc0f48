//! Key services: where root keys live, and the only thing that wraps a branch key.

#[cfg(any(test, feature = "testing"))]
mod fake;
mod local;
mod root;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

#[cfg(any(test, feature = "testing"))]
pub use fake::{Answer, FakeKms, Gate, KeyStatus, Operation};
pub use local::LocalKms;

use crate::context::EncryptionContext;
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::secret::Secret;

/// The key service of one region.
///
/// Guarantees that every implementation gives and that [`conformance`] holds it to: the root key never
/// leaves the service; a wrap opens under the same context alone, and a changed one not at all; an error
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
    /// The kind of service: `local`.
    pub provider: &'static str,
    /// The root key's id, as it stands beside each wrap.
    pub root: String,
    /// Verifies what the service signed.
    pub verifying_key: VerifyingKey,
}

/// The public half of a region's signing key, pinned in the configuration of every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyingKey {
    /// Ed25519 (RFC 8032), verified strictly: low-order points and non-canonical values are refused.
    Ed25519([u8; 32]),
}

impl VerifyingKey {
    /// Checks a signature over a statement.
    ///
    /// # Errors
    /// [`Unverified`] and nothing more.
    pub fn verify(&self, statement: &[u8], signature: &[u8]) -> Result<(), Unverified> {
        match self {
            VerifyingKey::Ed25519(bytes) => {
                let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| Unverified)?;
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| Unverified)?;
                key.verify_strict(statement, &signature).map_err(|_| Unverified)
            }
        }
    }
}

impl fmt::Display for VerifyingKey {
    /// Shows `ed25519:` and 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyingKey::Ed25519(bytes) => write!(f, "ed25519:{}", hex::encode(bytes)),
        }
    }
}

impl FromStr for VerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.strip_prefix("ed25519:").and_then(hex::decode);
        bytes.map(VerifyingKey::Ed25519).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "not a verifying key")
                .rule("a verifying key is written ed25519: and 64 hexadecimal digits")
        })
    }
}

/// Holds an implementation of [`Kms`] to the guarantees of the trait. Panics where it breaks one.
///
/// For tests of key services, ours and others'.
///
/// # Errors
/// Whatever the service answers when it should have worked.
#[expect(clippy::panic, clippy::missing_panics_doc, reason = "a conformance suite is a test")]
pub async fn conformance(kms: &dyn Kms) -> Result<()> {
    use crate::context::KeyKind;
    let context = EncryptionContext {
        region: "eu-central-1".parse()?,
        owner: crate::scope::TenantId::REGION,
        period: "2026-11".parse::<crate::period::Period>()?,
        kind: KeyKind::Branch,
        version: 1,
        generation: 1,
    };
    let (key, wrap) = kms.generate(&context).await?;
    assert!(wrap.len() <= 4096, "a wrap has at most 4,096 bytes");
    assert!(kms.unwrap(&wrap, &context).await?.same_as(&key), "a wrap opens to what was wrapped");

    let again = kms.wrap(&key, &context).await?;
    assert_ne!(again, wrap, "two wraps of one key differ");
    assert!(kms.unwrap(&again, &context).await?.same_as(&key), "the second wrap opens too");
    let (other, _) = kms.generate(&context).await?;
    assert!(!other.same_as(&key), "two generated keys differ");

    let elsewhere = [
        EncryptionContext { region: "us-east-1".parse()?, ..context.clone() },
        EncryptionContext { owner: "acme".parse()?, ..context.clone() },
        EncryptionContext { period: "2026-12".parse::<crate::period::Period>()?, ..context.clone() },
        EncryptionContext { kind: KeyKind::Tenant, ..context.clone() },
        EncryptionContext { version: 2, ..context.clone() },
        EncryptionContext { generation: 2, ..context.clone() },
    ];
    for context in &elsewhere {
        assert!(kms.unwrap(&wrap, context).await.is_err(), "a wrap opens under its own context alone");
    }
    for bit in 0..wrap.len() * 8 {
        let mut flipped = wrap.clone();
        if let Some(octet) = flipped.get_mut(bit / 8) {
            *octet ^= 1 << (bit % 8);
        }
        assert!(kms.unwrap(&flipped, &context).await.is_err(), "bit {bit} of a wrap went unnoticed");
    }
    for length in 0..wrap.len() {
        let cut = wrap.get(..length).unwrap_or_default();
        assert!(kms.unwrap(cut, &context).await.is_err(), "a wrap cut to {length} bytes opened");
    }
    assert!(kms.unwrap(&[&wrap[..], &[0]].concat(), &context).await.is_err(), "an extended wrap opened");

    let description = kms.describe().await?;
    let signature = kms.sign(b"a statement").await?;
    let Ok(()) = description.verifying_key.verify(b"a statement", &signature) else {
        panic!("a signature verifies under the key that describe names");
    };
    assert_eq!(description.verifying_key.verify(b"another statement", &signature), Err(Unverified));
    Ok(())
}
