//! The embedded key service: one root-key file per region, and a signing-key file beside it.
//!
//! Whoever holds a region's root file can open every record of that region, so it stays on hosts of the
//! region, mode 0600, and out of ordinary backups. Formats: page `keys.md` of the book.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ed25519_dalek::{Signer, SigningKey};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::{Kms, KmsDescription, VerifyingKey};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::{Secret, same};
use crate::wire::Decoder;
use crate::{hex, kdf, private_file};

const ROOT_FORMAT: &str = "domicile root key v1";
const SIGNING_FORMAT: &str = "domicile signing key v1";
const WRAP_VERSION: u8 = 1;
const WRAP_LABEL: &str = "domicile/v1/local-wrap";
const CHECK_LABEL: &[u8] = b"domicile/v1/local-root-check";
const NONCE_BYTES: usize = 24;

/// The key service of a region whose root key is a file on this host.
///
/// Wraps are XAES-256-GCM (C2SP) with 24 random octets of nonce, so that there is no count to keep;
/// signatures are Ed25519.
#[derive(Debug)]
pub struct LocalKms {
    region: Region,
    root: PathBuf,
    signing: PathBuf,
    randomness: Arc<dyn Randomness>,
}

impl LocalKms {
    /// The key service behind two files. They are read, and their modes checked, at each call.
    #[must_use]
    pub fn new(region: Region, root: PathBuf, signing: PathBuf) -> Self {
        Self { region, root, signing, randomness: Arc::new(OsRandom) }
    }

    /// Makes both files, mode 0600, durable before this returns. Existing files are left alone, and if one cannot
    /// be made, neither is.
    ///
    /// # Errors
    /// [`ConfigExists`](Code::ConfigExists) when either file exists;
    /// [`OutputFailed`](Code::OutputFailed) when one cannot be written.
    pub fn create(region: Region, root: PathBuf, signing: PathBuf) -> Result<Self> {
        Self::create_from(region, root, signing, Arc::new(OsRandom))
    }

    /// Makes both files from this randomness, and wraps with it.
    pub(crate) fn create_from(
        region: Region,
        root: PathBuf,
        signing: PathBuf,
        randomness: Arc<dyn Randomness>,
    ) -> Result<Self> {
        let mut id = [0; 16];
        randomness.fill(&mut id)?;
        let key = Secret::random(&*randomness)?;
        let root_file = private_file::text(format_args!(
            "{ROOT_FORMAT}\nregion {region}\nid {}\nkey {}\ncheck {}\n",
            hex::encode(&id),
            &*Zeroizing::new(hex::encode(key.expose())),
            hex::encode(&check(&key, &id, &region)),
        ));
        let seed = Secret::random(&*randomness)?;
        let public = SigningKey::from_bytes(seed.expose()).verifying_key();
        let signing_file = private_file::text(format_args!(
            "{SIGNING_FORMAT}\nregion {region}\nkey {}\npublic {}\n",
            &*Zeroizing::new(hex::encode(seed.expose())),
            hex::encode(public.as_bytes()),
        ));
        private_file::create(&root, root_file.as_bytes())?;
        private_file::create(&signing, signing_file.as_bytes()).inspect_err(|_| {
            // This call made it, and nothing knows it yet.
            let _ = fs::remove_file(&root);
        })?;
        Ok(Self { region, root, signing, randomness })
    }

    fn read_root(&self) -> Result<Root> {
        let text = private_file::read(&self.root)?;
        let unreadable = || {
            Error::new(Code::KmsUnverified, "this is not a root-key file, or it is damaged")
                .at(self.root.display().to_string())
                .advise("restore the file from where the region's root key is kept")
        };
        let [id, key, stored_check] = private_file::fields(
            &text,
            ROOT_FORMAT,
            ("region", self.region.as_str()),
            ["id", "key", "check"],
        )
        .ok_or_else(unreadable)?;
        let id = hex::decode(id).ok_or_else(unreadable)?;
        let bytes = Zeroizing::new(hex::decode(key).ok_or_else(unreadable)?);
        let stored_check: [u8; 32] = hex::decode(stored_check).ok_or_else(unreadable)?;
        let key = Secret::copied_from(&bytes);
        if !same(&check(&key, &id, &self.region), &stored_check) {
            return Err(unreadable());
        }
        Ok(Root { id, key })
    }

    fn read_signing(&self) -> Result<SigningKey> {
        let text = private_file::read(&self.signing)?;
        let unreadable = || {
            Error::new(Code::KmsUnverified, "this is not a signing-key file, or it is damaged")
                .at(self.signing.display().to_string())
                .advise("restore the file from where the region's keys are kept")
        };
        let [seed, public] =
            private_file::fields(&text, SIGNING_FORMAT, ("region", self.region.as_str()), ["key", "public"])
                .ok_or_else(unreadable)?;
        let seed = Zeroizing::new(hex::decode(seed).ok_or_else(unreadable)?);
        let key = SigningKey::from_bytes(&seed);
        if hex::decode(public) != Some(*key.verifying_key().as_bytes()) {
            return Err(unreadable());
        }
        Ok(key)
    }

    fn wrap_under(&self, root: &Root, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let mut payload = Zeroizing::new(*key.expose());
        let tag = root
            .cipher()
            .encrypt_inout_detached(&nonce.into(), &context.encode(WRAP_LABEL), (&mut payload[..]).into())
            .map_err(|_| Error::new(Code::KmsUnverified, "the root key could not wrap"))?;
        Ok([&[WRAP_VERSION][..], &root.id, &nonce, &payload[..], &tag].concat())
    }

    fn belongs_here(&self, context: &EncryptionContext) -> Result<()> {
        if context.region == self.region {
            return Ok(());
        }
        Err(Error::new(
            Code::KmsDenied,
            format!("a key of {} was asked of the key service of {}", context.region, self.region),
        ))
    }
}

#[async_trait]
impl Kms for LocalKms {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.belongs_here(context)?;
        let root = self.read_root()?;
        let key = Secret::random(&*self.randomness)?;
        let wrap = self.wrap_under(&root, &key, context)?;
        Ok((key, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.belongs_here(context)?;
        self.wrap_under(&self.read_root()?, key, context)
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.belongs_here(context)?;
        let unverified = || {
            Error::new(
                Code::KmsUnverified,
                format!("a wrap under the root key of {} does not verify", self.region),
            )
        };
        let mut input = Decoder::new(wrap);
        let version = input.u8("version").map_err(|_| unverified())?;
        let id: [u8; 16] = input.array("root key").map_err(|_| unverified())?;
        let nonce: [u8; NONCE_BYTES] = input.array("nonce").map_err(|_| unverified())?;
        let mut payload: Zeroizing<[u8; 32]> = input.array("key").map_err(|_| unverified())?.into();
        let tag: [u8; 16] = input.array("tag").map_err(|_| unverified())?;
        if version != WRAP_VERSION || input.remaining() != 0 {
            return Err(unverified());
        }
        let root = self.read_root()?;
        if id != root.id {
            return Err(Error::new(
                Code::KmsDenied,
                format!("a key of {} was wrapped by another root key ({})", self.region, hex::encode(&id)),
            )
            .at(self.root.display().to_string())
            .advise("put the root-key file with that id in its place"));
        }
        root.cipher()
            .decrypt_inout_detached(
                &nonce.into(),
                &context.encode(WRAP_LABEL),
                (&mut payload[..]).into(),
                &tag.into(),
            )
            .map_err(|_| unverified())?;
        Ok(Secret::copied_from(&payload))
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        Ok(self.read_signing()?.sign(statement).to_bytes().to_vec())
    }

    async fn describe(&self) -> Result<KmsDescription> {
        Ok(KmsDescription {
            provider: "local",
            root: hex::encode(&self.read_root()?.id),
            verifying_key: VerifyingKey::Ed25519(*self.read_signing()?.verifying_key().as_bytes()),
        })
    }

    /// Whether the root-key file is there and is ours alone; nothing is read of it.
    fn ready(&self) -> Result<()> {
        private_file::open(&self.root).map(|_| ())
    }
}

struct Root {
    id: [u8; 16],
    key: Secret,
}

impl Root {
    fn cipher(&self) -> Xaes256Gcm {
        Xaes256Gcm::new(self.key.expose().into())
    }
}

/// Ties a root key to its id and region, so that a damaged or misplaced file is noticed before use.
fn check(key: &Secret, id: &[u8; 16], region: &Region) -> [u8; 32] {
    *kdf::derive(key, id, &[CHECK_LABEL, region.as_str().as_bytes()]).expose()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kms() -> (tempfile::TempDir, LocalKms) {
        let dir = tempfile::tempdir().unwrap();
        let (root, signing) = (dir.path().join("eu.root"), dir.path().join("eu.signing"));
        let kms = LocalKms::create("eu-central-1".parse().unwrap(), root, signing).unwrap();
        (dir, kms)
    }

    #[tokio::test]
    async fn it_keeps_what_a_key_service_promises() {
        let (_dir, kms) = kms();
        super::super::conformance(&kms).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        let (_dir, kms) = kms();
        for mode in [0o640, 0o604, 0o601, 0o666] {
            fs::set_permissions(&kms.root, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsExposed, "{mode:o}");
            assert_eq!(kms.ready().unwrap_err().code(), Code::KmsExposed, "{mode:o}");
        }
        fs::set_permissions(&kms.root, fs::Permissions::from_mode(0o400)).unwrap();
        kms.describe().await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_linked_or_foreign_file_is_refused() {
        let (dir, kms) = kms();
        let moved = dir.path().join("moved");
        fs::rename(&kms.root, &moved).unwrap();
        assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
        std::os::unix::fs::symlink(&moved, &kms.root).unwrap();
        assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
        fs::remove_file(&kms.root).unwrap();
        fs::create_dir(&kms.root).unwrap();
        assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
        fs::remove_dir(&kms.root).unwrap();
        // A pipe that nobody writes to must not be waited for.
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, &kms.root, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
    }

    #[tokio::test]
    async fn every_changed_byte_of_a_file_is_noticed() {
        let (_dir, kms) = kms();
        for path in [&kms.root, &kms.signing] {
            let good = fs::read(path).unwrap();
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(path, &bad).unwrap();
                let code = kms.describe().await.unwrap_err().code();
                assert!(
                    matches!(code, Code::KmsUnverified | Code::KmsUnavailable),
                    "{}: byte {at}",
                    path.display()
                );
            }
            fs::write(path, &good[..good.len() - 1]).unwrap();
            assert!(kms.describe().await.is_err());
            fs::write(path, [&good[..], b"more\n"].concat()).unwrap();
            assert!(kms.describe().await.is_err());
            fs::write(path, &good).unwrap();
        }
        kms.describe().await.unwrap();
    }

    #[test]
    fn files_are_made_once() {
        let (_dir, kms) = kms();
        let again = LocalKms::create(kms.region.clone(), kms.root.clone(), kms.signing.clone());
        assert_eq!(again.unwrap_err().code(), Code::ConfigExists);
        // Both or none: where the second exists, the first is taken back.
        let other = kms.root.with_extension("other");
        let half = LocalKms::create(kms.region.clone(), other.clone(), kms.signing.clone());
        assert_eq!(half.unwrap_err().code(), Code::ConfigExists);
        assert!(!other.exists() && kms.signing.exists());
    }
}
