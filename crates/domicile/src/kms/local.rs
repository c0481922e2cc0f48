//! The embedded key service: one root-key file per region, and a signing-key file beside it.
//!
//! Whoever holds a region's root file can open every record of that region, so it stays on hosts of the
//! region, mode 0600, and out of ordinary backups. Formats: page `keys.md` of the book.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::passphrase::{Lock, PassphraseCost, PassphraseSource};
use super::root::{Root, Wrap, old_root};
use super::root_file::{self, ROOTS_MAX, RootFile};
use super::{Kms, KmsDescription, VerifyingKey};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::Secret;
use crate::{files, hex, private_file};

const SIGNING_FORMAT: &str = "domicile signing key v1";

/// The key service of a region whose root key is a file on this host.
///
/// Wraps are XAES-256-GCM (C2SP) with 24 random octets of nonce, so that there is no count to keep;
/// signatures are Ed25519.
#[derive(Debug)]
pub struct LocalKms {
    region: Region,
    root: PathBuf,
    signing: PathBuf,
    passphrase: Option<PassphraseSource>,
    /// The key of the lock that was opened last: making it again would cost each call its whole price.
    unlocked: Mutex<Option<(Lock, Secret)>>,
    randomness: Arc<dyn Randomness>,
}

impl LocalKms {
    /// The key service behind two files. They are read, and their modes checked, at each call.
    #[must_use]
    pub fn new(region: Region, root: PathBuf, signing: PathBuf) -> Self {
        Self::with_randomness(region, root, signing, Arc::new(OsRandom))
    }

    fn with_randomness(
        region: Region,
        root: PathBuf,
        signing: PathBuf,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        Self { region, root, signing, passphrase: None, unlocked: Mutex::new(None), randomness }
    }

    /// The same, whose root-key file is under a passphrase. It is asked for when it is needed, and once.
    #[must_use]
    pub fn under(mut self, passphrase: PassphraseSource) -> Self {
        self.passphrase = Some(passphrase);
        self
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
        let root_file = root_file::write(&region, &[Root::random(&*randomness)?], None, &*randomness)?;
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
        Ok(Self::with_randomness(region, root, signing, randomness))
    }

    /// Puts the root-key file under this passphrase, or under none. The file is replaced whole: a crash leaves the one or
    /// the other. What the disk kept of the old one opens with the old passphrase.
    ///
    /// # Errors
    /// Those of reading the file under the old passphrase; [`ArgumentInvalid`](Code::ArgumentInvalid) for a cost out of
    /// bounds; [`OutputFailed`](Code::OutputFailed) when it cannot be written.
    pub fn change_passphrase(&mut self, new: Option<PassphraseSource>, cost: PassphraseCost) -> Result<()> {
        let _alone = self.alone()?;
        let (roots, _) = self.read_roots()?;
        let lock = match &new {
            Some(source) => Some(Lock::new(&self.region, source, cost, &*self.randomness)?),
            None => None,
        };
        self.replace(&roots, lock.as_ref().map(|(lock, key)| (lock, key)))?;
        *self.unlocked() = lock;
        self.passphrase = new;
        Ok(())
    }

    fn unlocked(&self) -> MutexGuard<'_, Option<(Lock, Secret)>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Excludes other writers of the root-key file until it is dropped.
    fn alone(&self) -> Result<File> {
        loop {
            let file = private_file::open(&self.root)?;
            let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
            locked.map_err(|errno| private_file::unavailable(&self.root, errno.into()))?;
            // Whoever was alone before may have put another file in its place.
            let now = private_file::open(&self.root)?;
            let inode = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
            let same = inode(&file).and_then(|file| Ok(file == inode(&now)?));
            if same.map_err(|source| private_file::unavailable(&self.root, source))? {
                return Ok(file);
            }
        }
    }

    /// Writes the root-key file anew: beside it, synced, and then in its place.
    fn replace(&self, roots: &[Root], lock: Option<(&Lock, &Secret)>) -> Result<()> {
        let text = root_file::write(&self.region, roots, lock, &*self.randomness)?;
        let mut file = files::NewFile::create(&self.root, 0o600, true)?;
        file.write_all(text.as_bytes()).map_err(|source| {
            Error::output_failed("a key file could not be written", source)
                .at(self.root.display().to_string())
        })?;
        file.publish()
    }

    /// Changes the list of roots, under the same lock.
    fn change_roots<T>(&self, change: impl FnOnce(&mut Vec<Root>) -> Result<T>) -> Result<T> {
        let _alone = self.alone()?;
        let (mut roots, lock) = self.read_roots()?;
        let changed = change(&mut roots)?;
        let unlocked = self.unlocked();
        let lock = match (lock, &*unlocked) {
            (None, _) => None,
            (Some(lock), Some((of, key))) if *of == lock => Some((of, key)),
            // It was opened just now, and somebody changed the passphrase since.
            _ => return Err(Error::new(Code::KmsUnavailable, "the passphrase was changed meanwhile")),
        };
        self.replace(&roots, lock)?;
        Ok(changed)
    }

    /// The current root key.
    fn read_root(&self) -> Result<Root> {
        let (roots, _) = self.read_roots()?;
        roots.into_iter().next().ok_or_else(|| self.unreadable())
    }

    /// All root keys, the current one first, and the lock that they are under.
    fn read_roots(&self) -> Result<(Vec<Root>, Option<Lock>)> {
        let text = private_file::read(&self.root)?;
        let file = RootFile::parse(&text, &self.region).ok_or_else(|| self.unreadable())?;
        let lock = file.lock;
        let place = || self.root.display().to_string();
        match (lock, &self.passphrase) {
            (None, None) => Ok((file.roots(&self.region, None).map_err(|_| self.unreadable())?, None)),
            (None, Some(_)) => Err(Error::new(Code::KmsExposed, "this root-key file is under no passphrase")
                .at(place())
                .rule("the configuration names a passphrase for it")
                .advise("put it under the passphrase; if somebody may have read it, replace the root key")),
            (Some(_), None) => {
                Err(Error::new(Code::KmsUnavailable, "this root-key file is under a passphrase")
                    .at(place())
                    .advise("name it: passphrase = { file = \"PATH\" } or { env = \"NAME\" }"))
            }
            (Some(lock), Some(source)) => {
                // Held while the key is made: whoever comes meanwhile waits for this one.
                let mut unlocked = self.unlocked();
                let key = match unlocked.take() {
                    Some((of, key)) if of == lock => key,
                    _ => lock.open(&self.region, source).map_err(|error| error.at(place()))?,
                };
                let roots = file.roots(&self.region, Some(&key));
                *unlocked = Some((lock, key));
                Ok((roots.map_err(|_| self.unreadable())?, Some(lock)))
            }
        }
    }

    fn unreadable(&self) -> Error {
        Error::new(Code::KmsUnverified, "this is not a root-key file, or it is damaged")
            .at(self.root.display().to_string())
            .advise("restore the file from where the region's root key is kept")
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
        let (roots, _) = self.read_roots()?;
        let root = roots.iter().find(|root| root.id == wrap.root).ok_or_else(|| {
            let id = hex::encode(&wrap.root);
            Error::new(
                Code::KmsDenied,
                format!("a key of {} was wrapped by another root key ({id})", self.region),
            )
            .at(self.root.display().to_string())
            .advise("put the root-key file with that id in its place")
        })?;
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

    async fn rotate_root(&self) -> Result<String> {
        self.change_roots(|roots| {
            if roots.len() >= ROOTS_MAX {
                return Err(Error::new(
                    Code::ArgumentInvalid,
                    format!("there are {ROOTS_MAX} root keys already"),
                )
                .at(self.root.display().to_string())
                .advise("rewrap what lies under the oldest, and retire it"));
            }
            let root = Root::random(&*self.randomness)?;
            let id = hex::encode(&root.id);
            roots.insert(0, root);
            Ok(id)
        })
    }

    async fn retire_root(&self, id: &str) -> Result<()> {
        self.change_roots(|roots| {
            let at = old_root(roots, id).map_err(|error| error.at(self.root.display().to_string()))?;
            roots.remove(at);
            Ok(())
        })
    }

    async fn probe(&self) -> Result<()> {
        self.read_root().map(|_| ())
    }

    /// Whether the root-key file is there and is ours alone; nothing is read of it.
    fn ready(&self) -> Result<()> {
        private_file::open(&self.root).map(|_| ())
    }
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

    const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 8 * 1024, passes: 1, lanes: 1 };

    fn passphrase(dir: &tempfile::TempDir, name: &str, text: &str) -> PassphraseSource {
        let path = dir.path().join(name);
        private_file::create(&path, text.as_bytes()).unwrap();
        PassphraseSource::File(path)
    }

    fn context() -> EncryptionContext {
        EncryptionContext {
            region: "eu-central-1".parse().unwrap(),
            owner: crate::scope::TenantId::REGION,
            period: "2026-11".parse().unwrap(),
            kind: crate::context::KeyKind::Branch,
            version: 1,
            generation: 1,
            share: None,
        }
    }

    /// The same files, read by a process that starts now.
    fn restarted(kms: &LocalKms) -> LocalKms {
        let fresh = LocalKms::new(kms.region.clone(), kms.root.clone(), kms.signing.clone());
        match &kms.passphrase {
            Some(source) => fresh.under(source.clone()),
            None => fresh,
        }
    }

    /// KEY-22
    #[tokio::test]
    async fn roots_are_rotated_and_retired_with_and_without_a_passphrase() {
        let (dir, mut kms) = kms();
        super::super::conformance_of_rotation(&kms).await.unwrap();
        let (key, wrap) = kms.generate(&context()).await.unwrap();
        kms.change_passphrase(Some(passphrase(&dir, "pass", "correct horse\n")), CHEAP).unwrap();
        super::super::conformance_of_rotation(&kms).await.unwrap();
        super::super::conformance(&restarted(&kms)).await.unwrap();
        // Its own root is gone by now.
        assert_eq!(kms.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsDenied);
        drop(key);
        // As many as there is room for, and not one more.
        for _ in 1..ROOTS_MAX {
            kms.rotate_root().await.unwrap();
        }
        assert_eq!(kms.rotate_root().await.unwrap_err().code(), Code::ArgumentInvalid);
        assert!(fs::metadata(&kms.root).unwrap().len() <= private_file::FILE_BYTES_MAX as u64);
        restarted(&kms).describe().await.unwrap();
        assert_eq!(fs::metadata(&kms.root).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// KEY-23
    #[tokio::test]
    async fn a_passphrase_is_put_on_changed_and_taken_off() {
        let (dir, mut kms) = kms();
        let plain = fs::read_to_string(&kms.root).unwrap();
        let (key, wrap) = kms.generate(&context()).await.unwrap();
        let opens = async |kms: &LocalKms| kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key);
        let (one, two) = (passphrase(&dir, "one", "one"), passphrase(&dir, "two", "two\n"));
        kms.change_passphrase(Some(one.clone()), CHEAP).unwrap();
        let secret = plain.lines().find_map(|line| line.strip_prefix("key ")).unwrap();
        assert!(!fs::read_to_string(&kms.root).unwrap().contains(secret));
        assert!(opens(&kms).await && opens(&restarted(&kms)).await);
        let bare = LocalKms::new(kms.region.clone(), kms.root.clone(), kms.signing.clone());
        assert_eq!(bare.probe().await.unwrap_err().code(), Code::KmsUnavailable);
        kms.change_passphrase(Some(two), CHEAP).unwrap();
        assert!(opens(&restarted(&kms)).await);
        let old = LocalKms::new(kms.region.clone(), kms.root.clone(), kms.signing.clone()).under(one);
        assert_eq!(old.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsDenied);
        let configured = restarted(&kms);
        kms.change_passphrase(None, CHEAP).unwrap();
        assert_eq!(fs::read_to_string(&kms.root).unwrap(), plain, "without one the file is what it was");
        assert!(opens(&restarted(&kms)).await);
        // It lies open, and the configuration says that it does not.
        assert_eq!(configured.probe().await.unwrap_err().code(), Code::KmsExposed);
    }

    #[tokio::test]
    async fn passphrases_that_are_none_or_exposed_are_refused() {
        let (dir, mut kms) = kms();
        let code =
            |kms: &mut LocalKms, source| kms.change_passphrase(Some(source), CHEAP).unwrap_err().code();
        for (name, text) in [("empty", ""), ("newline", "\n"), ("long", &*"x".repeat(1025))] {
            assert_eq!(code(&mut kms, passphrase(&dir, name, text)), Code::ConfigInvalid, "{name}");
        }
        let open = dir.path().join("open");
        fs::write(&open, "open").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(code(&mut kms, PassphraseSource::File(open)), Code::KmsExposed);
        let linked = dir.path().join("linked");
        std::os::unix::fs::symlink(dir.path().join("long"), &linked).unwrap();
        assert_eq!(code(&mut kms, PassphraseSource::File(linked)), Code::KmsUnavailable);
        let nothing = PassphraseSource::Env("DOMICILE_TEST_NO_SUCH_VARIABLE".into());
        assert_eq!(code(&mut kms, nothing), Code::KmsUnavailable);
        for cost in [
            PassphraseCost { memory_kib: 8 * 1024 - 1, ..CHEAP },
            PassphraseCost { memory_kib: 1024 * 1024 + 1, ..CHEAP },
            PassphraseCost { passes: 0, ..CHEAP },
            PassphraseCost { passes: 17, ..CHEAP },
            PassphraseCost { lanes: 0, ..CHEAP },
            PassphraseCost { lanes: 9, ..CHEAP },
        ] {
            let refused = kms.change_passphrase(Some(passphrase(&dir, &format!("{cost:?}"), "p")), cost);
            assert_eq!(refused.unwrap_err().code(), Code::ArgumentInvalid, "{cost:?}");
        }
        kms.probe().await.unwrap();
    }

    #[tokio::test]
    async fn every_changed_byte_of_a_file_under_a_passphrase_is_noticed() {
        let (dir, mut kms) = kms();
        kms.change_passphrase(Some(passphrase(&dir, "pass", "p")), CHEAP).unwrap();
        kms.rotate_root().await.unwrap();
        let good = fs::read_to_string(&kms.root).unwrap();
        // Parameters first: what they ask for is not done.
        let cost = "argon2id 8192 1 1";
        for hostile in [
            "argon2id 4294967295 1 1",
            "argon2id 8192 4294967295 1",
            "argon2id 8192 1 16777215",
            "argon2id 8 1 1",
            "argon2id 08192 1 1",
            "argon2id 8192 1 1 1",
            "argon2i 8192 1 1",
        ] {
            fs::write(&kms.root, good.replace(cost, hostile)).unwrap();
            assert_eq!(restarted(&kms).probe().await.unwrap_err().code(), Code::KmsUnverified, "{hostile}");
        }
        // The process that has the key in memory must notice as well, so both are asked.
        let all: Vec<usize> = (0..good.len()).collect();
        for at in all {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(&kms.root, &bad).unwrap();
            assert!(kms.probe().await.is_err(), "byte {at}");
        }
        for at in (0..good.len()).step_by(29) {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(&kms.root, &bad).unwrap();
            let code = restarted(&kms).probe().await.unwrap_err().code();
            assert!(
                [Code::KmsUnverified, Code::KmsDenied, Code::KmsUnavailable, Code::KmsExposed]
                    .contains(&code),
                "byte {at}: {code}"
            );
        }
        // Nobody without the passphrase makes an older root current, or drops one.
        let lines: Vec<&str> = good.lines().collect();
        let (head, roots) = lines.split_at(5);
        for order in [[&roots[3..], &roots[..3]].concat(), roots[..3].to_vec(), roots[3..].to_vec()] {
            fs::write(&kms.root, [head, &order].concat().join("\n") + "\n").unwrap();
            assert_eq!(kms.probe().await.unwrap_err().code(), Code::KmsUnverified);
        }
        fs::write(&kms.root, &good).unwrap();
        kms.probe().await.unwrap();
    }

    #[tokio::test]
    async fn a_passphrase_is_asked_for_once() {
        let (dir, mut kms) = kms();
        let source = passphrase(&dir, "pass", "p");
        kms.change_passphrase(Some(source), CHEAP).unwrap();
        let kms = restarted(&kms);
        kms.probe().await.unwrap();
        fs::remove_file(dir.path().join("pass")).unwrap();
        // The key is in memory.
        kms.probe().await.unwrap();
        assert_eq!(restarted(&kms).probe().await.unwrap_err().code(), Code::KmsUnavailable);
    }
}
