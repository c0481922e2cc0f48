//! What Vault says of a key: of which kind it is, and whether it may leave its place.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use p256::pkcs8::DecodePublicKey;
use serde::Deserialize;
use serde_json::Value;

use super::http::misread;
use crate::error::{Code, Error, Result};
use crate::kms::VerifyingKey;

/// A key as `keys/NAME` describes it.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    derived: bool,
    exportable: bool,
    allow_plaintext_backup: bool,
    deletion_allowed: bool,
    #[serde(default)]
    imported_key: bool,
    /// Newer services mark a key so before it is deleted.
    #[serde(default)]
    soft_deleted: bool,
    pub(super) latest_version: u32,
    pub(super) min_decryption_version: u32,
    pub(super) min_encryption_version: u32,
    #[serde(default)]
    pub(super) min_available_version: u32,
    keys: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Data {
    data: Key,
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    Ed25519,
    EcdsaP256,
}

impl Key {
    /// Reads an answer about the key that was asked for, and refuses one that may leave its place.
    pub(super) fn parse(asked: &str, answer: &[u8]) -> Result<Self> {
        let key = serde_json::from_slice::<Data>(answer).map_err(|_| misread("a key").at(asked))?.data;
        if key.name != asked || key.latest_version == 0 {
            return Err(misread("a key")
                .at(asked)
                .rule("an answer counts if it names the key that was asked"));
        }
        if key.soft_deleted {
            return Err(Error::new(Code::KmsDenied, "a key at Vault was deleted, and can still be restored")
                .at(asked)
                .advise("restore it, if it was not deleted on purpose"));
        }
        let loose = [
            (key.exportable, "may be exported"),
            (key.allow_plaintext_backup, "may be backed up in clear"),
            (key.imported_key, "was imported: whoever made it may have a copy"),
            (key.deletion_allowed, "may be deleted at once"),
            (key.derived, "is derived anew for each context, and has no associated data"),
        ];
        if let Some((_, what)) = loose.iter().find(|(loose, _)| *loose) {
            return Err(Error::new(Code::ConfigInvalid, format!("a key at Vault {what}"))
                .at(asked)
                .rule("a root or signing key is made in Vault, stays there, and is not deleted by a slip")
                .advise(format!(
                    "make a key without these: vault write -f MOUNT/keys/NAME type={}; deletion_allowed can be taken back",
                    key.kind
                )));
        }
        Ok(key)
    }

    /// Whether it wraps.
    pub(super) fn is_root(&self) -> Result<()> {
        if self.kind == "aes256-gcm96" { Ok(()) } else { Err(self.of_another_kind("aes256-gcm96")) }
    }

    /// How it signs, with which version, and what verifies that.
    pub(super) fn signs(&self, version: Option<u32>) -> Result<(Signs, u32, VerifyingKey)> {
        let version = version.unwrap_or(self.latest_version);
        let unreadable = || misread("a public key").at(self.name.clone());
        let Some(entry) = self.keys.get(&version.to_string()) else {
            return Err(Error::new(
                Code::KmsDenied,
                format!("there is no version {version} of a signing key"),
            )
            .at(self.name.clone())
            .advise("name one that is there as `signing_version`"));
        };
        let public = entry.get("public_key").and_then(Value::as_str);
        match self.kind.as_str() {
            "ed25519" => {
                let mut bytes = [0; 32];
                let read = Base64::decode(public.ok_or_else(unreadable)?, &mut bytes);
                if read.map_err(|_| unreadable())?.len() != bytes.len() {
                    return Err(unreadable());
                }
                Ok((Signs::Ed25519, version, VerifyingKey::Ed25519(bytes)))
            }
            "ecdsa-p256" => {
                let public = public.ok_or_else(unreadable)?;
                let public =
                    p256::ecdsa::VerifyingKey::from_public_key_pem(public).map_err(|_| unreadable())?;
                let point = public.to_sec1_point(true);
                let point = point.as_bytes().try_into().map_err(|_| unreadable())?;
                Ok((Signs::EcdsaP256, version, VerifyingKey::EcdsaP256(point)))
            }
            _ => Err(self.of_another_kind("ed25519 or ecdsa-p256")),
        }
    }

    fn of_another_kind(&self, is_to_be: &str) -> Error {
        let kind: String = self.kind.escape_default().take(100).collect();
        Error::new(Code::ConfigInvalid, format!("a key at Vault is {kind}, and not {is_to_be}"))
            .at(self.name.clone())
            .advise("a root key is aes256-gcm96, a signing key ed25519 or ecdsa-p256")
    }
}
