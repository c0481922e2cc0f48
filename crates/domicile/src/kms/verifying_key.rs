//! The public halves of regions' signing keys.

use std::fmt;
use std::str::FromStr;

use p256::ecdsa::signature::Verifier;

use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::hex;

/// The public half of a region's signing key, pinned in the configuration of every host.
///
/// A statement has one signature that verifies, octet for octet, for whoever does not have the key: others are refused,
/// because a signature is hashed with what it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyingKey {
    /// Ed25519 (RFC 8032), verified strictly: low-order points and non-canonical values are refused.
    Ed25519([u8; 32]),
    /// ECDSA on P-256 over SHA-256, as a compressed SEC 1 point: what AWS KMS and hardware modules sign with. Signatures are
    /// DER with the lower of the two values of `s`; the higher, and any other encoding, is refused.
    EcdsaP256([u8; 33]),
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
            VerifyingKey::EcdsaP256(bytes) => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| Unverified)?;
                if low_s(signature)? != signature {
                    return Err(Unverified);
                }
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| Unverified)?;
                key.verify(statement, &signature).map_err(|_| Unverified)
            }
        }
    }
}

/// The one encoding of an ECDSA signature that [`VerifyingKey::verify`] takes: DER, with the lower value of `s`
/// (KEY-20). Services give either value; whoever signs through one passes its answer through this.
///
/// # Errors
/// [`Unverified`] for what is no signature in DER.
pub fn low_s(signature: &[u8]) -> Result<Vec<u8>, Unverified> {
    let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| Unverified)?;
    Ok(signature.normalize_s().to_der().as_bytes().to_vec())
}

impl fmt::Display for VerifyingKey {
    /// Shows `ed25519:` and 64 hexadecimal digits, or `p256:` and 66.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyingKey::Ed25519(bytes) => write!(f, "ed25519:{}", hex::encode(bytes)),
            VerifyingKey::EcdsaP256(bytes) => write!(f, "p256:{}", hex::encode(bytes)),
        }
    }
}

impl FromStr for VerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let key = match text.split_once(':') {
            Some(("ed25519", digits)) => hex::decode(digits).map(VerifyingKey::Ed25519),
            // A point that is not on the curve is a mistake to be told of now, and not a signature that fails later.
            Some(("p256", digits)) => hex::decode(digits)
                .filter(|bytes: &[u8; 33]| p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).is_ok())
                .map(VerifyingKey::EcdsaP256),
            _ => None,
        };
        key.ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "not a verifying key")
                .rule("a verifying key is written ed25519: and 64 hexadecimal digits, or p256: and the 66 of a compressed point")
        })
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer;

    use super::*;

    fn signed(statement: &[u8]) -> (VerifyingKey, p256::ecdsa::Signature) {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(true);
        (VerifyingKey::EcdsaP256(point.as_bytes().try_into().unwrap()), key.sign(statement))
    }

    /// KEY-20: of two values of `s` that both satisfy the equation, the lower one in DER counts.
    #[test]
    fn an_ecdsa_signature_has_one_encoding() {
        let (key, signature) = signed(b"a statement");
        let low = signature.normalize_s();
        let high = p256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
        assert_ne!(low, high);
        assert_eq!(key.verify(b"a statement", low.to_der().as_bytes()), Ok(()));
        assert_eq!(key.verify(b"another statement", low.to_der().as_bytes()), Err(Unverified));
        assert_eq!(key.verify(b"a statement", high.to_der().as_bytes()), Err(Unverified));
        assert_eq!(low_s(high.to_der().as_bytes()).unwrap(), low.to_der().as_bytes());
        assert_eq!(low_s(low.to_der().as_bytes()).unwrap(), low.to_der().as_bytes());
        // Not DER; and DER that is not what an encoder writes.
        assert_eq!(key.verify(b"a statement", &low.to_bytes()), Err(Unverified));
        let der = low.to_der().as_bytes().to_vec();
        let (sequence, r) = (der[1], der[3]);
        let long_length = [&[0x30, 0x81, sequence][..], &der[2..]].concat();
        assert_eq!(key.verify(b"a statement", &long_length), Err(Unverified));
        let padded = [&[0x30, sequence + 1, 0x02, r + 1, 0][..], &der[4..]].concat();
        assert_eq!(key.verify(b"a statement", &padded), Err(Unverified));
        let negative = [&der[..4], &[0xff], &der[5..]].concat();
        assert_eq!(key.verify(b"a statement", &negative), Err(Unverified));
    }

    #[test]
    fn every_bit_of_an_ecdsa_signature_and_key_counts() {
        let (key, signature) = signed(b"a statement");
        let der = signature.normalize_s().to_der().as_bytes().to_vec();
        for bit in 0..der.len() * 8 {
            let mut flipped = der.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(b"a statement", &flipped), Err(Unverified), "bit {bit}");
        }
        for length in 0..der.len() {
            assert_eq!(key.verify(b"a statement", &der[..length]), Err(Unverified), "{length}");
        }
        let VerifyingKey::EcdsaP256(point) = key else { unreachable!() };
        for bit in 0..point.len() * 8 {
            let mut flipped = point;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(VerifyingKey::EcdsaP256(flipped).verify(b"a statement", &der), Err(Unverified));
        }
    }

    #[test]
    fn keys_read_back_as_they_are_written() {
        let (key, _) = signed(b"");
        let text = key.to_string();
        assert_eq!(text.len(), 5 + 66);
        assert_eq!(text.parse::<VerifyingKey>().unwrap(), key);
        let ed25519 = format!("ed25519:{}", "3d".repeat(32));
        assert_eq!(ed25519.parse::<VerifyingKey>().unwrap().to_string(), ed25519);
        let uncompressed = format!("p256:04{}", "11".repeat(32));
        let off_the_curve = format!("p256:02{}", "ff".repeat(32));
        let upper_case = text.to_uppercase();
        let bad = [
            "",
            "p256:",
            "ed25519:",
            "p384:00",
            &text[5..],
            &text[..70],
            &uncompressed,
            &off_the_curve,
            &upper_case,
        ];
        for bad in bad {
            assert_eq!(bad.parse::<VerifyingKey>().unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
