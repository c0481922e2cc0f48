//! A root key held in memory, and the wraps made under it: what the embedded key service and the fake have in common.

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use crate::context::EncryptionContext;
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::random::Randomness;
use crate::secret::Secret;
use crate::wire::{Decoder, Malformed};

const WRAP_VERSION: u8 = 1;
const WRAP_LABEL: &str = "domicile/v1/local-wrap";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// A secret under another key: nonce, ciphertext and tag.
pub(super) const SEALED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;

/// Names a root key. It is random, and no secret.
pub(super) type RootId = [u8; 16];

/// A root key with its name.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) id: RootId,
    pub(super) key: Secret,
}

impl Root {
    /// A new one.
    pub(super) fn random(randomness: &dyn Randomness) -> Result<Self> {
        let mut id = [0; 16];
        randomness.fill(&mut id)?;
        Ok(Self { id, key: Secret::random(randomness)? })
    }

    /// Wraps a key (KEY-5).
    pub(super) fn wrap(
        &self,
        randomness: &dyn Randomness,
        key: &Secret,
        context: &EncryptionContext,
    ) -> Result<Vec<u8>> {
        let sealed = seal(randomness, &self.key, &context.encode(WRAP_LABEL), key)?;
        Ok([&[WRAP_VERSION][..], &self.id, &sealed].concat())
    }

    /// Opens what a wrap of this root holds.
    pub(super) fn unwrap(&self, wrap: &Wrap, context: &EncryptionContext) -> Result<Secret, Unverified> {
        if wrap.root != self.id {
            return Err(Unverified);
        }
        open(&self.key, &context.encode(WRAP_LABEL), &wrap.sealed)
    }
}

/// Where an old root with this id is among roots of which the first is current.
pub(super) fn old_root(roots: &[Root], id: &str) -> Result<usize> {
    match roots.iter().position(|root| hex::encode(&root.id) == id) {
        Some(0) => Err(Error::new(Code::ArgumentInvalid, "the current root key is not dropped")
            .advise("rotate first, and rewrap what lies under it")),
        Some(at) => Ok(at),
        None => Err(Error::new(Code::ArgumentInvalid, "there is no root key with this id")),
    }
}

/// A wrap, read and not opened.
pub(super) struct Wrap {
    /// The root key that it says it lies under.
    pub(super) root: RootId,
    sealed: [u8; SEALED_BYTES],
}

impl Wrap {
    pub(super) fn decode(wrap: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(wrap);
        if input.u8("version")? != WRAP_VERSION {
            return Err(Malformed { what: "version", at: 0 });
        }
        let wrap = Self { root: input.array("root key")?, sealed: input.array("sealed key")? };
        input.end("end of the wrap")?;
        Ok(wrap)
    }
}

/// Seals a secret under a key with XAES-256-GCM and a random nonce, of which there is no count to keep.
pub(super) fn seal(
    randomness: &dyn Randomness,
    under: &Secret,
    ad: &[u8],
    secret: &Secret,
) -> Result<[u8; SEALED_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    randomness.fill(&mut nonce)?;
    let mut payload = Zeroizing::new(*secret.expose());
    let tag = Xaes256Gcm::new(under.expose().into())
        .encrypt_inout_detached(&nonce.into(), ad, (&mut payload[..]).into())
        .map_err(|_| Error::new(Code::KmsUnverified, "a key could not be sealed"))?;
    let mut sealed = [0; SEALED_BYTES];
    for (to, from) in sealed.iter_mut().zip(nonce.iter().chain(payload.iter()).chain(tag.iter())) {
        *to = *from;
    }
    Ok(sealed)
}

/// Opens what [`seal`] made.
pub(super) fn open(under: &Secret, ad: &[u8], sealed: &[u8; SEALED_BYTES]) -> Result<Secret, Unverified> {
    let mut input = Decoder::new(sealed);
    let mut field = || -> Result<_, Malformed> {
        let nonce: [u8; NONCE_BYTES] = input.array("nonce")?;
        let payload: Zeroizing<[u8; 32]> = input.array("key")?.into();
        Ok((nonce, payload, input.array::<TAG_BYTES>("tag")?))
    };
    let (nonce, mut payload, tag) = field().map_err(|_| Unverified)?;
    Xaes256Gcm::new(under.expose().into())
        .decrypt_inout_detached(&nonce.into(), ad, (&mut payload[..]).into(), &tag.into())
        .map_err(|_| Unverified)?;
    Ok(Secret::copied_from(&payload))
}
