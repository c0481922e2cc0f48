//! The embedded key service: one root-key file per region, and a signing-key file beside it.
//!
//! Whoever holds a region's root file can open every record of that region, so it stays on hosts of the
//! region, mode 0600, and out of ordinary backups. Formats: page `keys.md` of the book.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::root::{Root, Wrap};
use super::{Kms, KmsDescription, VerifyingKey};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::{Secret, same};
use crate::{files, hex, kdf};

const ROOT_FORMAT: &str = "domicile root key v1";
const SIGNING_FORMAT: &str = "domicile signing key v1";
const CHECK_LABEL: &[u8] = b"domicile/v1/local-root-check";
/// No key file is longer.
const FILE_BYTES_MAX: usize = 4096;

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
        let Root { id, key } = Root::random(&*randomness)?;
        let root_file = key_file(format_args!(
            "{ROOT_FORMAT}\nregion {region}\nid {}\nkey {}\ncheck {}\n",
            hex::encode(&id),
            &*Zeroizing::new(hex::encode(key.expose())),
            hex::encode(&check(&key, &id, &region)),
        ));
        let seed = Secret::random(&*randomness)?;
        let public = SigningKey::from_bytes(seed.expose()).verifying_key();
        let signing_file = key_file(format_args!(
            "{SIGNING_FORMAT}\nregion {region}\nkey {}\npublic {}\n",
            &*Zeroizing::new(hex::encode(seed.expose())),
            hex::encode(public.as_bytes()),
        ));
        create_private(&root, root_file.as_bytes())?;
        create_private(&signing, signing_file.as_bytes()).inspect_err(|_| {
            // This call made it, and nothing knows it yet.
            let _ = fs::remove_file(&root);
        })?;
        Ok(Self { region, root, signing, randomness })
    }

    fn read_root(&self) -> Result<Root> {
        let text = read_private(&self.root)?;
        let unreadable = || {
            Error::new(Code::KmsUnverified, "this is not a root-key file, or it is damaged")
                .at(self.root.display().to_string())
                .advise("restore the file from where the region's root key is kept")
        };
        let [id, key, stored_check] =
            fields(&text, ROOT_FORMAT, &self.region, ["id", "key", "check"]).ok_or_else(unreadable)?;
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
        let text = read_private(&self.signing)?;
        let unreadable = || {
            Error::new(Code::KmsUnverified, "this is not a signing-key file, or it is damaged")
                .at(self.signing.display().to_string())
                .advise("restore the file from where the region's keys are kept")
        };
        let [seed, public] =
            fields(&text, SIGNING_FORMAT, &self.region, ["key", "public"]).ok_or_else(unreadable)?;
        let seed = Zeroizing::new(hex::decode(seed).ok_or_else(unreadable)?);
        let key = SigningKey::from_bytes(&seed);
        if hex::decode(public) != Some(*key.verifying_key().as_bytes()) {
            return Err(unreadable());
        }
        Ok(key)
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
        let wrap = root.wrap(&*self.randomness, &key, context)?;
        Ok((key, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.belongs_here(context)?;
        self.read_root()?.wrap(&*self.randomness, key, context)
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.belongs_here(context)?;
        let unverified = || {
            Error::new(
                Code::KmsUnverified,
                format!("a wrap under the root key of {} does not verify", self.region),
            )
        };
        let wrap = Wrap::decode(wrap).map_err(|_| unverified())?;
        let root = self.read_root()?;
        if wrap.root != root.id {
            return Err(Error::new(
                Code::KmsDenied,
                format!(
                    "a key of {} was wrapped by another root key ({})",
                    self.region,
                    hex::encode(&wrap.root)
                ),
            )
            .at(self.root.display().to_string())
            .advise("put the root-key file with that id in its place"));
        }
        root.unwrap(&wrap, context).map_err(|_| unverified())
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

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        Wrap::decode(wrap).ok().map(|wrap| hex::encode(&wrap.root))
    }

    async fn current_root(&self) -> Result<String> {
        Ok(hex::encode(&self.read_root()?.id))
    }

    async fn probe(&self) -> Result<()> {
        self.read_root().map(|_| ())
    }

    /// Whether the root-key file is there and is ours alone; nothing is read of it.
    fn ready(&self) -> Result<()> {
        open_private(&self.root).map(|_| ())
    }
}

/// Ties a root key to its id and region, so that a damaged or misplaced file is noticed before use.
fn check(key: &Secret, id: &[u8; 16], region: &Region) -> [u8; 32] {
    *kdf::derive(key, id, &[CHECK_LABEL, region.as_str().as_bytes()]).expose()
}

/// Reads `format`, `region …` and the named fields, one a line, in this order and nothing else.
fn fields<'a, const N: usize>(
    text: &'a str,
    format: &str,
    region: &Region,
    names: [&str; N],
) -> Option<[&'a str; N]> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let (kind, version) = format.rsplit_once(' ')?;
    if field(kind)? != version || field("region")? != region.as_str() {
        return None;
    }
    let mut values = [""; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = field(name)?;
    }
    lines.next().is_none().then_some(values)
}

/// The text of a key file, in memory that is wiped and was never moved.
fn key_file(text: std::fmt::Arguments<'_>) -> Zeroizing<String> {
    use std::fmt::Write as _;
    let mut file = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    // Writing to a String cannot fail.
    let _ = file.write_fmt(text);
    file
}

/// Writes a new file that its owner alone can read.
fn create_private(path: &Path, contents: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let written = file.write_all(contents).and_then(|()| file.sync_all());
        written.and_then(|()| files::sync_directory(path)).inspect_err(|_| {
            // Nothing was sealed under half a key; what was made is taken back.
            let _ = fs::remove_file(path);
        })
    };
    write().map_err(|source| {
        let error = match source.kind() {
            io::ErrorKind::AlreadyExists => Error::new(Code::ConfigExists, "this key file exists already")
                .advise("keep it: what it sealed opens with nothing else"),
            _ => {
                return Error::output_failed("a key file could not be written", source)
                    .at(path.display().to_string());
            }
        };
        error.at(path.display().to_string()).because(source)
    })
}

/// Reads a key file.
fn read_private(path: &Path) -> Result<Zeroizing<String>> {
    let file = open_private(path)?;
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64).read_to_string(&mut text).map_err(|source| unavailable(path, source))?;
    Ok(text)
}

/// Opens a key file that belongs to this user or root, that nobody else can read, and that is no link.
fn open_private(path: &Path) -> Result<File> {
    let unavailable = |source| unavailable(path, source);
    let exposed = |what: &str, advice: &str| {
        Error::new(Code::KmsExposed, what).at(path.display().to_string()).advise(advice)
    };

    // Not blocking: a pipe in the file's place is refused below, and not waited for.
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| unavailable(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(unavailable)?;
    if !metadata.is_file() {
        return Err(unavailable(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(exposed(
            &format!("others can read this key file (mode {:04o})", metadata.mode() & 0o7777),
            "chmod 600 it; if somebody may have read it, replace the root key",
        ));
    }
    if !files::belongs_to_us(&metadata) {
        return Err(exposed(
            "this key file belongs to another user",
            "chown it to the user that runs Domicile",
        ));
    }
    Ok(file)
}

fn unavailable(path: &Path, source: io::Error) -> Error {
    let advice = match source.kind() {
        io::ErrorKind::NotFound => "bring the file here only if this host may open records of its region",
        _ => "run as the user that owns the file; symbolic links are refused",
    };
    Error::new(Code::KmsUnavailable, "a key file cannot be read")
        .at(path.display().to_string())
        .advise(advice)
        .because(source)
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
