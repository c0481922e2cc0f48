//! The Transit engine of HashiCorp Vault, or of OpenBao, as key service: one region's root key and signing key there.
//!
//! The encryption context is the associated data of each wrap, and an answer is believed if it names the version of the key
//! that was asked for. Formats: page `keys.md` of the book, KEY-24.

mod failure;
mod http;
mod key;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::http::{Http, Question, misread};
use self::key::{Key, Signs};
use super::{Kms, KmsDescription, VaultOptions, VerifyingKey, low_s};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::Secret;
use crate::wire::{Decoder, Encoder, Malformed};

const WRAP_VERSION: u8 = 3;
const WRAP_LABEL: &str = "domicile/v1/vault-wrap";
/// No context has this encoding.
const REHEARSAL_LABEL: &[u8] = b"domicile/v1/vault-rehearsal";
/// What `aes256-gcm96` makes of 32 octets: nonce, ciphertext and tag.
const CIPHERTEXT_BYTES: usize = 12 + 32 + 16;
const NAME_BYTES_MAX: usize = 128;

/// The key service of a region whose keys are at the Transit engine of HashiCorp Vault or OpenBao.
///
/// Nothing is asked before the first use; then each key is looked at once: its kind, and whether it may leave its place.
/// The first wrap of a process is tried under another context, which must not open it: a service that does not know
/// `associated_data` would pass over it. A host needs a token that may `read` `MOUNT/keys/ROOT` and `MOUNT/keys/SIGNING`, and
/// `update` `MOUNT/encrypt/ROOT`, `MOUNT/decrypt/ROOT` and `MOUNT/sign/SIGNING`. Keys pass through the buffers of the HTTP
/// client, which it does not wipe.
///
/// Asked outside of a tokio runtime, it is out of reach.
pub struct VaultKms {
    region: Region,
    options: VaultOptions,
    http: Http,
    randomness: Arc<dyn Randomness>,
    checked_root: OnceCell<()>,
    checked_signing: OnceCell<(Signs, u32, VerifyingKey)>,
    bound: OnceCell<()>,
}

impl fmt::Debug for VaultKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKms")
            .field("region", &self.region)
            .field("root", &self.options.root)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
    key_version: Option<u32>,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

#[derive(Deserialize)]
struct Signed {
    signature: String,
}

impl VaultKms {
    /// The key service behind these keys. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when the address is not one that keys may be sent to, a name is none that
    /// Vault has, or it is not clear as whom to ask.
    pub fn new(region: Region, options: VaultOptions) -> Result<Self> {
        let randomness: Arc<dyn Randomness> = Arc::new(OsRandom);
        for name in [&options.root, &options.signing] {
            if !is_name(name) {
                return Err(Error::new(Code::ConfigInvalid, format!("{name:?} is not the name of a key at Vault"))
                    .rule("a key is named by 1 to 128 letters, digits, _, - and ., of which the first and last are none of the last two"));
            }
        }
        for mount in [&options.mount, &options.role_mount] {
            if mount.len() > NAME_BYTES_MAX || !mount.split('/').all(is_name) {
                return Err(Error::new(Code::ConfigInvalid, format!("{mount:?} is not a mount of Vault"))
                    .rule("a mount is written as a path without / at its ends"));
            }
        }
        if options.root == options.signing {
            return Err(Error::new(
                Code::ConfigInvalid,
                "one key cannot be the root key and the signing key",
            ));
        }
        Ok(Self {
            http: Http::new(options.clone(), randomness.clone())?,
            region,
            options,
            randomness,
            checked_root: OnceCell::new(),
            checked_signing: OnceCell::new(),
            bound: OnceCell::new(),
        })
    }

    fn path(&self, operation: &str, key: &str) -> String {
        format!("{}/{operation}/{key}", self.options.mount)
    }

    async fn look_at(&self, name: &str) -> Result<Key> {
        let question = Question::read("describe a key", self.path("keys", name));
        let answer = self.http.ask(&question).await.map_err(|error| error.at(name))?;
        Key::parse(name, &answer)
    }

    async fn look_at_root(&self) -> Result<Key> {
        let key = self.look_at(&self.options.root).await?;
        key.is_root()?;
        Ok(key)
    }

    async fn look_at_signing(&self) -> Result<(Signs, u32, VerifyingKey)> {
        self.look_at(&self.options.signing).await?.signs(self.options.signing_version)
    }

    /// The root key, looked at once.
    async fn root(&self) -> Result<&str> {
        self.checked_root.get_or_try_init(async || self.look_at_root().await.map(|_| ())).await?;
        Ok(&self.options.root)
    }

    fn id(&self, version: u32) -> String {
        format!("{}:v{version}", self.options.root)
    }

    /// The version that an id of ours names.
    fn version_of(&self, id: &str) -> Option<u32> {
        let digits = id.strip_prefix(self.options.root.as_str())?.strip_prefix(":v")?;
        let version = digits.parse().ok()?;
        (self.id(version) == id).then_some(version)
    }

    fn belongs_here(&self, context: &EncryptionContext) -> Result<()> {
        if context.region == self.region {
            return Ok(());
        }
        let what = format!("a key of {} was asked of the key service of {}", context.region, self.region);
        Err(Error::new(Code::KmsDenied, what))
    }

    async fn encrypt(&self, key: &Secret, context: &EncryptionContext) -> Result<Wrap> {
        let root = self.root().await?;
        let plaintext = Zeroizing::new(Base64::encode_string(key.expose()));
        let ad = Base64::encode_string(&context.encode(WRAP_LABEL));
        let body = format!("{{\"plaintext\":\"{}\",\"associated_data\":\"{ad}\"}}", *plaintext);
        let question = Question::write("wrap a key", self.path("encrypt", root), Zeroizing::new(body));
        let question = Question { secret: Some(&plaintext), ..question };
        let answer = self.http.ask(&question).await.map_err(|error| error.at(root))?;
        let answer: Answer<Encrypted> =
            serde_json::from_slice(&answer).map_err(|_| misread("a wrap").at(root))?;
        let Encrypted { ciphertext, key_version } = answer.data;
        let mut octets = [0; CIPHERTEXT_BYTES];
        let version = read(&ciphertext, &mut octets).ok_or_else(|| misread("a wrap").at(root))?;
        if key_version.is_some_and(|named| named != version) {
            return Err(misread("a wrap").at(root).rule("a wrap is of the version that the answer names"));
        }
        Ok(Wrap { root: root.to_owned(), version, ciphertext: octets })
    }

    async fn decrypt(&self, wrap: &Wrap, ad: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let root = self.root().await?;
        let Wrap { version, ciphertext, .. } = wrap;
        let ciphertext = format!("vault:v{version}:{}", Base64::encode_string(ciphertext));
        let ad = Base64::encode_string(ad);
        let body = format!("{{\"ciphertext\":\"{ciphertext}\",\"associated_data\":\"{ad}\"}}");
        let question = Question::write("unwrap a key", self.path("decrypt", root), Zeroizing::new(body));
        self.http.ask(&question).await.map_err(|error| error.at(self.id(*version)))
    }

    /// Shows once that this wrap, made a moment ago, opens with nothing but its own context.
    async fn show_bound(&self, wrap: &Wrap) -> Result<()> {
        match self.decrypt(wrap, REHEARSAL_LABEL).await {
            Err(error) if error.code() == Code::KmsUnverified => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(Code::KmsUnverified, "Vault opens a wrap under another context")
                .at(self.options.root.clone())
                .rule("the encryption context is authenticated with each wrap")
                .advise("take a version of Vault or OpenBao that knows `associated_data`")),
        }
    }
}

#[async_trait]
impl Kms for VaultKms {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.belongs_here(context)?;
        let key = Secret::random(&*self.randomness)?;
        let wrap = self.wrap(&key, context).await?;
        Ok((key, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.belongs_here(context)?;
        let wrap = self.encrypt(key, context).await?;
        self.bound.get_or_try_init(|| self.show_bound(&wrap)).await?;
        wrap.encode().map_err(|_| misread("a wrap").at(self.options.root.clone()))
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.belongs_here(context)?;
        let wrap = Wrap::decode(wrap).map_err(|_| {
            Error::new(Code::KmsUnverified, format!("a wrap of a key of {} does not verify", self.region))
        })?;
        if wrap.root != self.options.root {
            return Err(Error::new(
                Code::KmsDenied,
                format!("a key of {} was wrapped by another root key", self.region),
            )
            .at(wrap.root)
            .advise("name the key as `root` that Vault wraps this region's keys with"));
        }
        let answer = self.decrypt(&wrap, &context.encode(WRAP_LABEL)).await?;
        let unreadable = || misread("a key").at(self.id(wrap.version));
        let answer: Answer<Decrypted> = serde_json::from_slice(&answer).map_err(|_| unreadable())?;
        let plaintext = Zeroizing::new(answer.data.plaintext);
        let mut bytes = Zeroizing::new([0; 32]);
        let length = Base64::decode(plaintext.as_bytes(), &mut *bytes).map(<[u8]>::len);
        if length.ok() == Some(32) { Ok(Secret::copied_from(&bytes)) } else { Err(unreadable()) }
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let name = &self.options.signing;
        let (signs, version, key) = self.checked_signing.get_or_try_init(|| self.look_at_signing()).await?;
        let (path, body) = match signs {
            Signs::Ed25519 => {
                let input = Base64::encode_string(statement);
                (self.path("sign", name), format!("{{\"input\":\"{input}\",\"key_version\":{version}}}"))
            }
            // A digest: a statement may be long.
            Signs::EcdsaP256 => {
                let input = Base64::encode_string(&Sha256::digest(statement));
                let body = format!(
                    "{{\"input\":\"{input}\",\"key_version\":{version},\"prehashed\":true,\
                     \"hash_algorithm\":\"sha2-256\",\"marshaling_algorithm\":\"asn1\"}}"
                );
                (self.path("sign", name), body)
            }
        };
        let question = Question::write("sign", path, Zeroizing::new(body));
        let answer = self.http.ask(&question).await.map_err(|error| error.at(name.clone()))?;
        let unreadable = || misread("a signature").at(name.clone());
        let answer: Answer<Signed> = serde_json::from_slice(&answer).map_err(|_| unreadable())?;
        let mut octets = [0; 128];
        let (named, text) = versioned(&answer.data.signature).ok_or_else(unreadable)?;
        let signature = Base64::decode(text, &mut octets).map_err(|_| unreadable())?;
        let signature = match signs {
            Signs::Ed25519 => signature.to_vec(),
            Signs::EcdsaP256 => low_s(signature).map_err(|_| unreadable())?,
        };
        if named != *version || key.verify(statement, &signature).is_err() {
            return Err(unreadable());
        }
        Ok(signature)
    }

    /// Asks the service, each time.
    async fn describe(&self) -> Result<KmsDescription> {
        let root = self.id(self.look_at_root().await?.latest_version);
        let (_, _, verifying_key) = self.look_at_signing().await?;
        Ok(KmsDescription { provider: "vault", root, verifying_key })
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        Wrap::decode(wrap).ok().map(|wrap| format!("{}:v{}", wrap.root, wrap.version))
    }

    /// Asks the service, each time: its operator may rotate a key, or Vault by itself.
    async fn current_root(&self) -> Result<String> {
        Ok(self.id(self.look_at_root().await?.latest_version))
    }

    async fn rotate_root(&self) -> Result<String> {
        let before = self.look_at_root().await?.latest_version;
        let path = format!("{}/rotate", self.path("keys", &self.options.root));
        let question = Question::write("rotate a key", path, Zeroizing::new("{}".to_owned()));
        let rotated = self.http.ask(&Question { once: true, ..question }).await;
        rotated.map_err(|error| self.for_its_operator(error, "rotate"))?;
        let after = self.look_at_root().await?.latest_version;
        if after <= before {
            return Err(misread("a rotation").at(self.options.root.clone()));
        }
        Ok(self.id(after))
    }

    /// Versions go in their order, the oldest first: Vault keeps one border below which nothing opens, and then takes away
    /// what lies below it.
    async fn retire_root(&self, id: &str) -> Result<()> {
        let key = self.look_at_root().await?;
        let oldest = key.min_available_version.max(1);
        let invalid = |what: &str, advice: String| {
            Err(Error::new(Code::ArgumentInvalid, what).at(id.escape_default().to_string()).advise(advice))
        };
        let version = match self.version_of(id) {
            Some(version) if version == key.latest_version => {
                return invalid(
                    "the current root key is not dropped",
                    "rotate first, and rewrap what lies under it".to_owned(),
                );
            }
            Some(version) if (oldest..key.latest_version).contains(&version) => version,
            _ => {
                let ids = format!("{} to {} are there", self.id(oldest), self.id(key.latest_version));
                return invalid("there is no root key with this id", ids);
            }
        };
        if version != oldest {
            return invalid(
                "older versions of this root key are still there",
                format!("retire {} first", self.id(oldest)),
            );
        }
        let border = version + 1;
        let decryption = key.min_decryption_version.max(border);
        let encryption = key.min_encryption_version.max(decryption);
        let path = self.path("keys", &self.options.root);
        let config =
            format!("{{\"min_decryption_version\":{decryption},\"min_encryption_version\":{encryption}}}");
        let trim = format!("{{\"min_available_version\":{border}}}");
        for (step, body) in [("config", config), ("trim", trim)] {
            let question = Question::write("retire a key", format!("{path}/{step}"), Zeroizing::new(body));
            self.http.ask(&question).await.map_err(|error| self.for_its_operator(error, step))?;
        }
        let after = self.look_at_root().await?;
        if after.min_decryption_version < border || after.min_available_version < border {
            return Err(misread("a retirement").at(self.options.root.clone()));
        }
        Ok(())
    }

    /// A Decrypt of random octets: whoever may decrypt is told that they do not verify, anybody else that he may not.
    async fn probe(&self) -> Result<()> {
        let key = self.look_at_root().await?;
        let mut ciphertext = [0; CIPHERTEXT_BYTES];
        self.randomness.fill(&mut ciphertext)?;
        let wrap = Wrap { root: self.options.root.clone(), version: key.latest_version, ciphertext };
        match self.decrypt(&wrap, REHEARSAL_LABEL).await {
            Err(error) if error.code() == Code::KmsUnverified => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(misread("a rehearsal").at(self.options.root.clone())),
        }
    }
}

impl VaultKms {
    /// A host that may not change keys leaves it to whoever may.
    fn for_its_operator(&self, error: Error, step: &str) -> Error {
        if error.code() != Code::KmsDenied {
            return error.at(self.options.root.clone());
        }
        let path = self.path("keys", &self.options.root);
        Error::new(Code::ArgumentInvalid, "this host may not change root keys at Vault")
            .at(format!("{path}/{step}"))
            .advise(format!(
                "let its operator do it: vault write {path}/{step}; or allow it in the token's policy"
            ))
            .because(error)
    }
}

/// What a wrap holds: the key's name, its version, and what Vault made of the branch key (KEY-24).
struct Wrap {
    root: String,
    version: u32,
    ciphertext: [u8; CIPHERTEXT_BYTES],
}

impl Wrap {
    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.u8(WRAP_VERSION).short(self.root.as_bytes(), "root key")?;
        out.u32(self.version).raw(&self.ciphertext);
        Ok(out.finish())
    }

    fn decode(wrap: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(wrap);
        if input.u8("version")? != WRAP_VERSION {
            return Err(Malformed { what: "version", at: 0 });
        }
        let root = input.text("root key")?.to_owned();
        let wrap =
            Self { root, version: input.u32("version of the key")?, ciphertext: input.array("ciphertext")? };
        input.end("end of the wrap")?;
        if !is_name(&wrap.root) || wrap.version == 0 {
            return Err(Malformed { what: "root key", at: 1 });
        }
        Ok(wrap)
    }
}

/// What stands behind `vault:v3:`, and the three. The one spelling of it: no sign, no zeros before, no version nought.
fn versioned(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.strip_prefix("vault:v")?.split_once(':')?;
    let version: u32 = digits.parse().ok()?;
    (version > 0 && version.to_string() == digits).then_some((version, rest))
}

/// Reads a ciphertext of exactly this length, and its version.
fn read(text: &str, into: &mut [u8; CIPHERTEXT_BYTES]) -> Option<u32> {
    let (version, text) = versioned(text)?;
    let read = Base64::decode(text, into).ok()?.len();
    (read == CIPHERTEXT_BYTES).then_some(version)
}

/// Whether Vault's paths can have this name.
fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let of = |c: char| word(c) || "-.".contains(c);
    name.len() <= NAME_BYTES_MAX
        && name.chars().all(of)
        && name.chars().next().is_some_and(word)
        && name.chars().next_back().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEY-24
    #[test]
    fn a_wrap_names_its_root_key_and_version() {
        let kms =
            VaultKms::new("eu".parse().unwrap(), VaultOptions::new("https://v", "domicile-eu", "s")).unwrap();
        let wrap = Wrap { root: "domicile-eu".into(), version: 258, ciphertext: [7; CIPHERTEXT_BYTES] };
        let wrap = wrap.encode().unwrap();
        assert_eq!(wrap.len(), 2 + 11 + 4 + 60);
        assert_eq!((wrap[..2].to_vec(), &wrap[13..17]), (vec![3, 11], &[0, 0, 1, 2][..]));
        assert_eq!(kms.root_of(&wrap).as_deref(), Some("domicile-eu:v258"));
        assert_eq!(kms.version_of("domicile-eu:v258"), Some(258));
        for length in 0..wrap.len() {
            assert_eq!(kms.root_of(&wrap[..length]), None, "{length}");
        }
        assert_eq!(kms.root_of(&[&wrap[..], &[0]].concat()), None);
        assert_eq!(kms.root_of(&[&[2], &wrap[1..]].concat()), None);
        let nought = [&wrap[..13], &[0; 4], &wrap[17..]].concat();
        assert_eq!(kms.root_of(&nought), None, "there is no version nought");
    }

    #[test]
    fn a_version_has_one_spelling() {
        assert_eq!(versioned("vault:v1:AAAA"), Some((1, "AAAA")));
        assert_eq!(versioned("vault:v4294967295:"), Some((u32::MAX, "")));
        for bad in [
            "",
            "vault:v:A",
            "vault:v0:A",
            "vault:v01:A",
            "vault:v+1:A",
            "vault:v4294967296:A",
            "vault:1:A",
            "v1:A",
            "vault:v1",
        ] {
            assert_eq!(versioned(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["a", "domicile-eu", "domicile_eu.2", "_x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a/",
            "-a",
            "a-",
            "a b",
            "a?b",
            "a%2fb",
            "\u{e9}",
            &"a".repeat(129),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
