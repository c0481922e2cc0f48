//! Keys on a token: which there are, whether they may leave it, and what is done with them there.

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Wrap;
use super::failure::Fault;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::kms::{VerifyingKey, low_s};

pub(super) const NONCE_BYTES: usize = 12;
/// A key of 32 octets and its tag.
pub(super) const SEALED_BYTES: usize = 32 + 16;
const TAG_BITS: Ulong = Ulong::new(128);
/// No id of a key is longer.
const ID_BYTES_MAX: usize = 32;
/// The object identifier of P-256 in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A version of the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) handle: ObjectHandle,
    pub(super) id: Vec<u8>,
}

/// The signing key pair.
pub(super) struct Signing {
    handle: ObjectHandle,
    label: String,
    pub(super) public: VerifyingKey,
}

/// Whether a key can be told by this id.
pub(super) fn is_id(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
}

/// An id as the number by which versions are in order.
fn number(id: &[u8]) -> (usize, &[u8]) {
    let zeros = id.iter().take_while(|octet| **octet == 0).count();
    let digits = id.get(zeros..).unwrap_or_default();
    (digits.len(), digits)
}

/// The id of the version after this one: the next number.
pub(super) fn next_id(root: &Root, label: &str) -> Result<Vec<u8>> {
    let (_, digits) = number(&root.id);
    let mut next = digits.to_vec();
    for octet in next.iter_mut().rev() {
        let (sum, carries) = octet.overflowing_add(1);
        *octet = sum;
        if !carries {
            return Ok(next);
        }
    }
    next.insert(0, 1);
    if is_id(&next) { Ok(next) } else { Err(refused(label, "has no id after the last one")) }
}

/// The versions of the root key, in order: none that may leave the token is among them.
pub(super) fn roots(session: &Session, label: &str) -> Result<Vec<Root>, Fault> {
    let asked = [
        AttributeType::Id,
        AttributeType::KeyType,
        AttributeType::ValueLen,
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
        AttributeType::Encrypt,
        AttributeType::Decrypt,
    ];
    let mut roots = Vec::new();
    for handle in session.find_objects(&[
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
    ])? {
        let attributes = session.get_attributes(handle, &asked)?;
        stays(&attributes, label)?;
        let aes_256 = attributes.contains(&Attribute::KeyType(KeyType::AES))
            && attributes.iter().all(|one| !matches!(one, Attribute::ValueLen(length) if **length != 32));
        if !aes_256 {
            return Err(refused(label, "is no AES key of 256 bits").into());
        }
        let may = |may: Attribute| attributes.contains(&may);
        if !may(Attribute::Encrypt(true)) || !may(Attribute::Decrypt(true)) {
            return Err(refused(label, "may not encrypt and decrypt").into());
        }
        roots.push(Root { handle, id: id(&attributes, label)? });
    }
    roots.sort_by(|left, right| number(&left.id).cmp(&number(&right.id)));
    let twice = |pair: &[Root]| matches!(pair, [one, other] if number(&one.id) == number(&other.id));
    if roots.windows(2).any(twice) {
        return Err(refused(label, "is there twice with one id").into());
    }
    Ok(roots)
}

/// The newest of them, which wraps.
pub(super) fn current(roots: Vec<Root>, label: &str) -> Result<Root> {
    roots.into_iter().next_back().ok_or_else(|| no_key(label, "root"))
}

/// The signing key pair of this label.
pub(super) fn signing(session: &Session, label: &str) -> Result<Signing, Fault> {
    let found = session.find_objects(&[
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
    ])?;
    let handle = match found.as_slice() {
        [handle] => *handle,
        [] => return Err(no_key(label, "signing").into()),
        _ => return Err(refused(label, "is there more than once, and which of them signs?").into()),
    };
    let attributes = session.get_attributes(
        handle,
        &[
            AttributeType::Id,
            AttributeType::KeyType,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::AlwaysSensitive,
            AttributeType::NeverExtractable,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
        ],
    )?;
    stays(&attributes, label)?;
    if !attributes.contains(&Attribute::Sign(true)) {
        return Err(refused(label, "may not sign").into());
    }
    if attributes.contains(&Attribute::AlwaysAuthenticate(true)) {
        return Err(refused(label, "asks for the PIN each time it signs").into());
    }
    let public = session.find_objects(&[
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(true),
        Attribute::Id(id(&attributes, label)?),
        Attribute::Label(label.as_bytes().to_vec()),
    ])?;
    let [public] = public.as_slice() else {
        return Err(refused(label, "has no public half of the same label and id").into());
    };
    let of_public = session.get_attributes(*public, &[AttributeType::EcPoint, AttributeType::EcParams])?;
    let point = of_public.iter().find_map(|one| match one {
        Attribute::EcPoint(point) => Some(point.as_slice()),
        _ => None,
    });
    let public = if attributes.contains(&Attribute::KeyType(KeyType::EC)) {
        if !of_public.contains(&Attribute::EcParams(P256.to_vec())) {
            return Err(refused(label, "is on another curve than P-256").into());
        }
        point.and_then(p256_point)
    } else if attributes.contains(&Attribute::KeyType(KeyType::EC_EDWARDS)) {
        point.and_then(|point| octet_string(point).try_into().ok()).map(VerifyingKey::Ed25519)
    } else {
        return Err(refused(label, "is no key of ECDSA on P-256 or of Ed25519").into());
    };
    let public = public.ok_or_else(|| {
        Error::new(Code::KmsUnverified, "the module gave a public key that is none").at(label)
    })?;
    Ok(Signing { handle, label: label.to_owned(), public })
}

impl Signing {
    /// Signs, and hands out what verifies alone: in the one encoding that counts (KEY-20).
    pub(super) fn sign(&self, session: &Session, statement: &[u8]) -> Result<Vec<u8>, Fault> {
        let unreadable = || {
            Error::new(Code::KmsUnverified, "the module gave a signature that is none").at(self.label.clone())
        };
        let signature = match self.public {
            VerifyingKey::Ed25519(_) => {
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                session.sign(&mechanism, self.handle, statement)?
            }
            VerifyingKey::EcdsaP256(_) => {
                let raw = session.sign(&Mechanism::Ecdsa, self.handle, &Sha256::digest(statement))?;
                let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|_| unreadable())?;
                low_s(signature.to_der().as_bytes()).map_err(|_| unreadable())?
            }
        };
        self.public.verify(statement, &signature).map_err(|_| unreadable())?;
        Ok(signature)
    }
}

/// Wraps a key inside the token, under this nonce.
pub(super) fn encrypt(
    session: &Session,
    root: &Root,
    nonce: &[u8; NONCE_BYTES],
    ad: &[u8],
    key: &[u8; 32],
) -> Result<[u8; SEALED_BYTES], Fault> {
    let mut given = *nonce;
    let params = GcmParams::new(&mut given, ad, TAG_BITS)?;
    let sealed = session.encrypt(&Mechanism::AesGcm(params), root.handle, key)?;
    // Some modules draw a nonce of their own, and say so here, or by a longer answer.
    let sealed = sealed.as_slice().try_into().ok().filter(|_| given == *nonce);
    Ok(sealed.ok_or_else(|| super::disobedient(&hex::encode(&root.id)))?)
}

/// Opens a wrap inside the token.
pub(super) fn decrypt(
    session: &Session,
    root: &Root,
    wrap: &Wrap,
    ad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut nonce = wrap.nonce;
    let params = GcmParams::new(&mut nonce, ad, TAG_BITS)?;
    Ok(Zeroizing::new(session.decrypt(&Mechanism::AesGcm(params), root.handle, &wrap.sealed)?))
}

/// Whether any key has this label.
pub(super) fn is_taken(session: &Session, label: &str) -> Result<bool, Fault> {
    let label = Attribute::Label(label.as_bytes().to_vec());
    let classes = [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY];
    for class in classes {
        if !session.find_objects(&[Attribute::Class(class), label.clone()])?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a version of the root key, which never leaves.
pub(super) fn make_root(session: &Session, label: &str, id: &[u8]) -> Result<ObjectHandle, Fault> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
    ];
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}

/// Makes a signing key pair, of which the private half never leaves.
pub(super) fn make_signing(session: &Session, label: &str) -> Result<(), Fault> {
    let (label, id) = (Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(vec![1]));
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        label.clone(),
        id.clone(),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        label,
        id,
    ];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok(())
}

/// Refuses a key that may leave the token, or might have before. What a module does not say of the past is believed; what
/// it does not say of the present is not.
fn stays(attributes: &[Attribute], label: &str) -> Result<()> {
    let says = |attribute: Attribute| attributes.contains(&attribute);
    let loose = [
        (!says(Attribute::Sensitive(true)), "is not sensitive: its value can be read"),
        (!says(Attribute::Extractable(false)), "can be extracted from the token"),
        (says(Attribute::AlwaysSensitive(false)), "was not always sensitive: its value could be read"),
        (says(Attribute::NeverExtractable(false)), "could be extracted once, or was brought from elsewhere"),
    ];
    match loose.iter().find(|(loose, _)| *loose) {
        Some((_, what)) => Err(refused(label, what)),
        None => Ok(()),
    }
}

fn id(attributes: &[Attribute], label: &str) -> Result<Vec<u8>> {
    let id = attributes.iter().find_map(|one| match one {
        Attribute::Id(id) => Some(id.clone()),
        _ => None,
    });
    id.filter(|id| is_id(id)).ok_or_else(|| refused(label, "has no id of 1 to 32 octets"))
}

fn refused(label: &str, what: &str) -> Error {
    Error::new(Code::ConfigInvalid, format!("a key on the token {what}"))
        .at(label)
        .rule("a root or signing key is made on the token, sensitive and not extractable, with an id of its own")
        .advise("make another one so, and keep this one as long as something lies under it")
}

fn no_key(label: &str, which: &str) -> Error {
    Error::new(Code::KmsDenied, format!("there is no {which} key on the token"))
        .at(label)
        .advise("make it, or name the label that it has")
}

/// The contents of an octet string in DER, or of what is none: modules give points either way.
fn octet_string(value: &[u8]) -> &[u8] {
    match value {
        [0x04, length, rest @ ..] if usize::from(*length) == rest.len() => rest,
        _ => value,
    }
}

fn p256_point(value: &[u8]) -> Option<VerifyingKey> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(octet_string(value)).ok()?;
    Some(VerifyingKey::EcdsaP256(key.to_sec1_point(true).as_bytes().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_says_of_a_key_decides() {
        let good = [
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
        ];
        stays(&good, "root").unwrap();
        stays(&good[..2], "root").unwrap();
        let bad = [
            vec![],
            vec![Attribute::Sensitive(true)],
            vec![Attribute::Extractable(false)],
            vec![Attribute::Sensitive(false), Attribute::Extractable(false)],
            vec![Attribute::Sensitive(true), Attribute::Extractable(true)],
            vec![good[0].clone(), good[1].clone(), Attribute::AlwaysSensitive(false)],
            vec![good[0].clone(), good[1].clone(), Attribute::NeverExtractable(false)],
        ];
        for attributes in bad {
            assert_eq!(stays(&attributes, "root").unwrap_err().code(), Code::ConfigInvalid, "{attributes:?}");
        }
    }

    #[test]
    fn versions_are_numbers() {
        let ids: [&[u8]; 6] = [&[0, 1], &[2], &[0x0a], &[0xff], &[1, 0], &[1, 0, 0]];
        assert!(ids.windows(2).all(|pair| number(pair[0]) < number(pair[1])));
        assert_eq!(number(&[0, 0, 7]), number(&[7]));
    }

    #[test]
    fn points_are_read_in_both_encodings() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let raw = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        let wrapped = [&[0x04, 65][..], &raw].concat();
        assert_eq!(p256_point(&raw), p256_point(&wrapped));
        assert!(p256_point(&raw).is_some());
        assert_eq!(p256_point(&raw[..64]), None);
        assert_eq!(octet_string(&[0x04, 2, 8, 9]), [8, 9]);
        assert_eq!(octet_string(&[0x04, 3, 8, 9]), [4, 3, 8, 9]);
    }
}
