//! The signing key of a post, and the homes that it trusts: a file of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::PostId;
use crate::error::{Code, Error, Result};
use crate::kms::VerifyingKey;
use crate::random::Randomness;
use crate::region::Region;
use crate::secret::Secret;
use crate::{hex, private_file};

const FORMAT: &str = "domicile post v1";
const PUBLIC_FORMAT: &str = "domicile post key v1";

/// Who a post is: its signing key, and the keys of the homes whose bundles it takes. It opens nothing.
#[derive(Debug)]
pub struct PostIdentity {
    id: PostId,
    seed: Secret,
    homes: BTreeMap<Region, VerifyingKey>,
}

impl PostIdentity {
    /// The most homes that a post trusts.
    const HOMES_MAX: usize = 24;

    /// A new identity.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable); [`ArgumentInvalid`](Code::ArgumentInvalid) for no homes or too
    /// many.
    pub fn generate(
        id: PostId,
        homes: BTreeMap<Region, VerifyingKey>,
        randomness: &dyn Randomness,
    ) -> Result<Self> {
        if homes.is_empty() || homes.len() > Self::HOMES_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "a post trusts the keys of 1 to 24 homes"));
        }
        Ok(Self { id, seed: Secret::random(randomness)?, homes })
    }

    /// Writes a new file that its owner alone can read.
    ///
    /// # Errors
    /// [`ConfigExists`](Code::ConfigExists) when it exists; [`OutputFailed`](Code::OutputFailed).
    pub fn create(&self, path: &Path) -> Result<()> {
        let homes = self.homes.iter().fold(String::new(), |mut text, (region, key)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "home {region} {key}");
            text
        });
        let file = private_file::text(format_args!(
            "{FORMAT}\npost {}\nkey {}\npublic {}\n{homes}",
            self.id,
            &*Zeroizing::new(hex::encode(self.seed.expose())),
            hex::encode(&self.public_bytes()),
        ));
        private_file::create(path, file.as_bytes())
    }

    /// Reads an identity. The file is refused if others can read it.
    ///
    /// # Errors
    /// [`KmsUnavailable`](Code::KmsUnavailable), [`KmsExposed`](Code::KmsExposed) or
    /// [`KmsUnverified`](Code::KmsUnverified), as of every key file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = private_file::read(path).map_err(|error| match error.code() {
            Code::KmsUnavailable => error.advise("make one with `domicile post init`, and enrol it at home"),
            _ => error,
        })?;
        Self::parse(&text).ok_or_else(|| {
            Error::new(Code::KmsUnverified, "this is not the identity of a post, or it is damaged")
                .at(path.display().to_string())
                .advise("make another with `domicile post init`, and enrol it at home")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FORMAT {
            return None;
        }
        let id = lines.next()?.strip_prefix("post ")?.parse().ok()?;
        let seed = Zeroizing::new(hex::decode::<32>(lines.next()?.strip_prefix("key ")?)?);
        let public = hex::decode::<32>(lines.next()?.strip_prefix("public ")?)?;
        let mut homes = BTreeMap::new();
        for line in lines {
            let (region, key) = line.strip_prefix("home ")?.split_once(' ')?;
            homes.insert(region.parse().ok()?, key.parse().ok()?);
        }
        let identity = Self { id, seed: Secret::copied_from(&seed), homes };
        (identity.public_bytes() == public).then_some(identity)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &PostId {
        &self.id
    }

    /// What the home enrols.
    #[must_use]
    pub fn public(&self) -> PostPublic {
        PostPublic { id: self.id.clone(), key: VerifyingKey::Ed25519(self.public_bytes()) }
    }

    /// The key of a home, if the post trusts it.
    ///
    /// # Errors
    /// [`PostBundle`](Code::PostBundle) for a region that it was not told of.
    pub fn home(&self, region: &Region) -> Result<&VerifyingKey> {
        self.homes.get(region).ok_or_else(|| {
            Error::new(Code::PostBundle, format!("the post {} does not trust {region}", self.id))
                .advise("name the home and its key when the identity is made: `domicile post init --home`")
        })
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> [u8; 64] {
        SigningKey::from_bytes(self.seed.expose()).sign(statement).to_bytes()
    }

    fn public_bytes(&self) -> [u8; 32] {
        *SigningKey::from_bytes(self.seed.expose()).verifying_key().as_bytes()
    }
}

/// A post's name and the public half of its key: what the home enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostPublic {
    /// The post.
    pub id: PostId,
    /// Verifies what it signed.
    pub key: VerifyingKey,
}

impl PostPublic {
    /// The text of a file with it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PUBLIC_FORMAT}\npost {}\npublic {}\n", self.id, self.key)
    }

    /// Reads that text.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for any other.
    pub fn parse(text: &str) -> Result<Self> {
        let read = || {
            let mut lines = text.strip_suffix('\n')?.split('\n');
            if lines.next()? != PUBLIC_FORMAT {
                return None;
            }
            let id = lines.next()?.strip_prefix("post ")?.parse().ok()?;
            let key = lines.next()?.strip_prefix("public ")?.parse().ok()?;
            lines.next().is_none().then_some(Self { id, key })
        };
        read().ok_or_else(|| {
            Error::new(Code::ArgumentInvalid, "this is not the public key of a post")
                .advise("`domicile post init` writes it beside the identity, with .pub behind its name")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;
    use static_assertions::assert_not_impl_any;
    use std::os::unix::fs::PermissionsExt;

    assert_not_impl_any!(PostIdentity: Clone, Copy, serde::Serialize);

    #[test]
    fn an_identity_reads_back_and_is_refused_if_others_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.key");
        let homes = BTreeMap::from([("eu-central-1".parse().unwrap(), VerifyingKey::Ed25519([1; 32]))]);
        let made = PostIdentity::generate("edge-7".parse().unwrap(), homes, &OsRandom).unwrap();
        made.create(&path).unwrap();
        assert_eq!(made.create(&path).unwrap_err().code(), Code::ConfigExists);
        let read = PostIdentity::read(&path).unwrap();
        assert_eq!((read.public(), &read.homes), (made.public(), &made.homes));
        assert_eq!(PostPublic::parse(&made.public().text()).unwrap(), made.public());
        made.public().key.verify(b"said", &read.sign(b"said")).unwrap();
        assert!(!format!("{made:?}").contains(&hex::encode(made.seed.expose())));

        let text = std::fs::read_to_string(&path).unwrap();
        for bad in
            [text.replace("post edge", "post Edge"), text.replace("\nkey ", "\nkey 0"), format!("{text}x\n")]
        {
            assert!(PostIdentity::parse(&bad).is_none());
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(PostIdentity::read(&path).unwrap_err().code(), Code::KmsExposed);
    }
}
