//! Custody: which key services must agree before a branch key opens.
//!
//! With `any` of several, one outage loses nothing, and each holder alone opens everything. With `all`, nothing
//! opens without every holder's consent: the branch key is sealed under a key that comes of one share of each. In
//! both a change of holders is a new wrap of the same branch key.

use std::sync::Arc;

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use super::Kms;
use crate::context::{EncryptionContext, Share};
use crate::error::{Code, Error, Result};
use crate::kdf;
use crate::random::Randomness;
use crate::secret::Secret;
use crate::wire::{Decoder, Encoder, Malformed};

const SHARES_LABEL: &[u8] = b"domicile/v1/custody/all";
const SEAL_LABEL: &str = "domicile/v1/custody/all/branch-key";
const NONCE_BYTES: usize = 24;

/// How a row says who must agree.
const ONE: u8 = 0x01;
const ANY: u8 = 0x02;
const ALL: u8 = 0x03;

/// Who must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Agreement {
    /// One of the holders, whichever.
    Any,
    /// Every one of them.
    All,
}

/// A key service with the name under which rows know it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// `[a-z0-9-]{1,32}`; it stands in rows, and stays when the service's own keys change.
    pub name: String,
    /// The service.
    pub kms: Arc<dyn Kms>,
}

/// The key services behind branch keys, and who of them must agree.
#[derive(Debug, Clone)]
pub struct Custody {
    agreement: Agreement,
    holders: Vec<Holder>,
    /// New keys are sealed elsewhere.
    opens_only: bool,
}

impl Custody {
    /// How many holders there may be.
    pub const HOLDERS_MAX: usize = 8;

    /// One key service alone.
    #[must_use]
    pub fn one(kms: Arc<dyn Kms>) -> Self {
        Self {
            agreement: Agreement::Any,
            holders: vec![Holder { name: "kms".to_owned(), kms }],
            opens_only: false,
        }
    }

    /// Several key services.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) for none, more than [`HOLDERS_MAX`](Self::HOLDERS_MAX), or two of one
    /// name.
    pub fn of(agreement: Agreement, holders: Vec<Holder>) -> Result<Self> {
        let mut names: Vec<_> = holders.iter().map(|holder| holder.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != holders.len() || holders.is_empty() || holders.len() > Self::HOLDERS_MAX {
            return Err(Error::new(Code::ConfigInvalid, "these cannot hold a key together")
                .rule(format!("a key has 1 to {} holders, each with a name of its own", Self::HOLDERS_MAX)));
        }
        Ok(Self { agreement, holders, opens_only: false })
    }

    /// The same for a tenant that had custody of its own and has it no longer: what lies under its branch keys opens, and
    /// goes to the region's with the next rotation of branch keys.
    #[must_use]
    pub fn opening_only(self) -> Self {
        Self { opens_only: true, ..self }
    }

    /// Whether new keys are sealed under the branch keys of these holders.
    pub(crate) fn seals(&self) -> bool {
        !self.opens_only
    }

    /// Who must agree.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// The holders, in order.
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Whether a wrap could be opened here, as far as this host can tell without asking anybody.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn ready(&self) -> Result<()> {
        let answers = self.holders.iter().map(|holder| holder.kms.ready());
        match self.agreement {
            Agreement::All => answers.collect::<Result<()>>(),
            Agreement::Any => {
                answers.reduce(|first, next| if first.is_ok() { first } else { next }).unwrap_or(Ok(()))
            }
        }
    }

    /// Makes a branch key and wraps it.
    pub(crate) async fn generate(
        &self,
        context: &EncryptionContext,
        randomness: &dyn Randomness,
    ) -> Result<(Secret, Vec<u8>)> {
        if let [only] = &self.holders[..] {
            let (key, wrap) = only.kms.generate(context).await?;
            return Ok((key, encode(&Wraps::One(wrap))?));
        }
        let key = Secret::random(randomness)?;
        let wraps = self.wrap(&key, context, randomness).await?;
        Ok((key, wraps))
    }

    /// Wraps a branch key, so that these holders open it and no others.
    pub(crate) async fn wrap(
        &self,
        key: &Secret,
        context: &EncryptionContext,
        randomness: &dyn Randomness,
    ) -> Result<Vec<u8>> {
        if let [only] = &self.holders[..] {
            return encode(&Wraps::One(only.kms.wrap(key, context).await?));
        }
        match self.agreement {
            Agreement::Any => self.wrap_for_any(key, context).await,
            Agreement::All => self.wrap_for_all(key, context, randomness).await,
        }
    }

    /// A holder that is away gets no wrap now, and one at the next writing of the row: the old one is of an older
    /// generation and is gone with it.
    async fn wrap_for_any(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        let (mut wraps, mut failed) = (Vec::new(), None);
        for holder in &self.holders {
            match holder.kms.wrap(key, context).await {
                Ok(wrap) => wraps.push((holder.name.clone(), wrap)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if wraps.is_empty() => Err(error),
            _ => encode(&Wraps::Any(wraps)),
        }
    }

    async fn wrap_for_all(
        &self,
        key: &Secret,
        context: &EncryptionContext,
        randomness: &dyn Randomness,
    ) -> Result<Vec<u8>> {
        let (mut shares, mut wraps) = (Vec::new(), Vec::new());
        for (holder, share) in self.holders.iter().zip(1u8..) {
            // From the operating system, not from a key service: no holder knows another's.
            let secret = Secret::random(randomness)?;
            let context =
                EncryptionContext { share: Some(share_of(share, self.holders.len())), ..context.clone() };
            wraps.push((holder.name.clone(), holder.kms.wrap(&secret, &context).await?));
            shares.push(secret);
        }
        let names: Vec<_> = wraps.iter().map(|(name, _)| name.as_str()).collect();
        let mut nonce = [0; NONCE_BYTES];
        randomness.fill(&mut nonce)?;
        let mut payload = Zeroizing::new(*key.expose());
        let tag = joined(&shares, &names, context)
            .encrypt_inout_detached(&nonce.into(), &context.encode(SEAL_LABEL), (&mut payload[..]).into())
            .map_err(|_| unverified())?;
        let sealed = [&nonce[..], &payload[..], &tag].concat();
        encode(&Wraps::All(wraps, sealed))
    }

    /// Whether a row lies under what these holders have now: the same agreement, the same holders, their newest roots.
    pub(crate) async fn is_current(&self, sealed: &[u8]) -> Result<bool> {
        let wraps = decode(sealed).map_err(|source| unverified().because(source))?;
        let (agrees, wraps) = match (self.holders.len(), self.agreement, wraps) {
            (1, _, Wraps::One(wrap)) => {
                (true, self.holders.iter().map(|holder| (holder.name.clone(), wrap.clone())).collect())
            }
            (2.., Agreement::Any, Wraps::Any(wraps)) | (2.., Agreement::All, Wraps::All(wraps, _)) => {
                (true, wraps)
            }
            _ => (false, Vec::new()),
        };
        if !agrees || wraps.len() != self.holders.len() {
            return Ok(false);
        }
        for (holder, (name, wrap)) in self.holders.iter().zip(&wraps) {
            // A service whose wraps do not say their root is asked again.
            let root = holder.kms.root_of(wrap);
            if holder.name != *name || root.is_none() || root != Some(holder.kms.current_root().await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether any wrap of a row lies under this root, or may; for rows of others, whether one says so.
    pub(crate) fn names_root(&self, sealed: &[u8], root: &str, own: bool) -> Result<bool> {
        let wraps = match decode(sealed).map_err(|source| unverified().because(source))? {
            Wraps::One(wrap) => vec![wrap],
            Wraps::Any(wraps) | Wraps::All(wraps, _) => wraps.into_iter().map(|(_, wrap)| wrap).collect(),
        };
        let roots = |wrap: &Vec<u8>| self.holders.iter().find_map(|holder| holder.kms.root_of(wrap));
        Ok(wraps.iter().any(|wrap| roots(wrap).map_or(own, |named| named == root)))
    }

    /// Opens a branch key, as its row says who must agree.
    pub(crate) async fn unwrap(&self, sealed: &[u8], context: &EncryptionContext) -> Result<Secret> {
        match decode(sealed).map_err(|source| unverified().because(source))? {
            Wraps::One(wrap) => {
                let wraps = self.holders.iter().map(|holder| (holder, &wrap[..])).collect();
                self.first_of(wraps, context).await
            }
            Wraps::Any(wraps) => {
                let wraps =
                    wraps.iter().filter_map(|(name, wrap)| Some((self.named(name)?, &wrap[..]))).collect();
                self.first_of(wraps, context).await
            }
            Wraps::All(wraps, sealed) => self.all_of(&wraps, &sealed, context).await,
        }
    }

    /// The first that answers. Of several reasons, being out of reach comes first: it may pass.
    async fn first_of(&self, wraps: Vec<(&Holder, &[u8])>, context: &EncryptionContext) -> Result<Secret> {
        let mut reason = None;
        for (holder, wrap) in wraps {
            match holder.kms.unwrap(wrap, context).await {
                Ok(key) => return Ok(key),
                Err(error) if reason.as_ref().is_none_or(|known: &Error| !known.is_retryable()) => {
                    reason = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(reason.unwrap_or_else(|| nobody("none of the holders of this branch key is configured here")))
    }

    async fn all_of(
        &self,
        wraps: &[(String, Vec<u8>)],
        sealed: &[u8],
        context: &EncryptionContext,
    ) -> Result<Secret> {
        let mut shares = Vec::with_capacity(wraps.len());
        for ((name, wrap), share) in wraps.iter().zip(1u8..) {
            let holder = self.named(name).ok_or_else(|| {
                nobody("a holder without whom this branch key does not open is not configured here")
            })?;
            let context = EncryptionContext { share: Some(share_of(share, wraps.len())), ..context.clone() };
            shares.push(holder.kms.unwrap(wrap, &context).await?);
        }
        let names: Vec<_> = wraps.iter().map(|(name, _)| name.as_str()).collect();
        let mut input = Decoder::new(sealed);
        let mut open = || -> Result<Secret, Malformed> {
            let nonce: [u8; NONCE_BYTES] = input.array("nonce")?;
            let mut payload: Zeroizing<[u8; 32]> = input.array("key")?.into();
            let tag: [u8; 16] = input.array("tag")?;
            input.end("end of the sealed key")?;
            joined(&shares, &names, context)
                .decrypt_inout_detached(
                    &nonce.into(),
                    &context.encode(SEAL_LABEL),
                    (&mut payload[..]).into(),
                    &tag.into(),
                )
                .map_err(|_| Malformed { what: "tag", at: 0 })?;
            Ok(Secret::copied_from(&payload))
        };
        open().map_err(|source| unverified().because(source))
    }

    fn named(&self, name: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.name == name)
    }
}

/// The key that all shares make together, in their order.
fn joined(shares: &[Secret], names: &[&str], context: &EncryptionContext) -> Xaes256Gcm {
    let mut input = Zeroizing::new(Vec::with_capacity(shares.len() * 32));
    for share in shares {
        input.extend_from_slice(share.expose());
    }
    let context = context.encode("domicile/v1/custody/context");
    let mut info: Vec<&[u8]> = vec![SHARES_LABEL];
    info.extend(names.iter().map(|name| name.as_bytes()));
    info.push(&context);
    let key = Secret::filled_by(|bytes| kdf::hkdf(&input, &[], &crate::wire::parts(&info), bytes));
    Xaes256Gcm::new(key.expose().into())
}

fn share_of(index: u8, of: usize) -> Share {
    Share { index, of: u8::try_from(of).unwrap_or(u8::MAX) }
}

fn unverified() -> Error {
    Error::new(Code::KeyUnverified, "the wraps of a branch key do not verify")
        .advise("the row was changed or belongs to another key: restore the key store")
}

fn nobody(what: &str) -> Error {
    Error::new(Code::KmsUnavailable, what).advise("add it to the configuration, if this host may ask it")
}

/// What a branch key's row holds.
enum Wraps {
    One(Vec<u8>),
    Any(Vec<(String, Vec<u8>)>),
    All(Vec<(String, Vec<u8>)>, Vec<u8>),
}

/// The agreement, the number of wraps, each wrap with its holder's name (but for one alone), and for `all` the key
/// sealed under what the shares make.
fn encode(wraps: &Wraps) -> Result<Vec<u8>> {
    let written = || -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        let mut list = |code: u8, wraps: &[(String, Vec<u8>)]| -> Result<(), Malformed> {
            let count = u8::try_from(wraps.len()).map_err(|_| Malformed { what: "wraps", at: 1 })?;
            out.u8(code).u8(count);
            for (name, wrap) in wraps {
                out.short(name.as_bytes(), "holder")?.medium(wrap, "wrap")?;
            }
            Ok(())
        };
        match wraps {
            Wraps::One(wrap) => {
                out.u8(ONE).u8(1).medium(wrap, "wrap")?;
            }
            Wraps::Any(wraps) => list(ANY, wraps)?,
            Wraps::All(wraps, sealed) => {
                list(ALL, wraps)?;
                out.medium(sealed, "sealed key")?;
            }
        }
        Ok(out.finish())
    };
    written().map_err(|source| unverified().because(source))
}

fn decode(sealed: &[u8]) -> Result<Wraps, Malformed> {
    let mut input = Decoder::new(sealed);
    let (code, count) = (input.u8("custody")?, input.u8("wraps")?);
    let wraps = match code {
        ONE if count == 1 => Wraps::One(input.medium("wrap")?.to_vec()),
        ANY | ALL if (1..=Custody::HOLDERS_MAX).contains(&usize::from(count)) => {
            let mut wraps = Vec::new();
            for _ in 0..count {
                wraps.push((input.text("holder")?.to_owned(), input.medium("wrap")?.to_vec()));
            }
            if code == ANY {
                Wraps::Any(wraps)
            } else {
                Wraps::All(wraps, input.medium("sealed key")?.to_vec())
            }
        }
        _ => return Err(Malformed { what: "custody", at: 0 }),
    };
    input.end("end of the wraps")?;
    Ok(wraps)
}
