//! HKDF-SHA-512 (RFC 5869), with infos that are lists of parts and so never mean two things.

use hkdf::Hkdf;
use sha2::Sha512;

use crate::secret::Secret;
use crate::wire;

/// Derives one 256-bit key from `secret`; `info` is encoded by [`wire::parts`].
pub(crate) fn derive(secret: &Secret, salt: &[u8], info: &[&[u8]]) -> Secret {
    Secret::filled_by(|key| expand(secret.expose(), salt, info, key))
}

/// Derives a key, and beside it a commitment to everything that the key depends on.
pub(crate) fn derive_committed(secret: &Secret, salt: &[u8], info: &[&[u8]]) -> (Secret, [u8; 32]) {
    let mut commitment = [0; 32];
    let key = Secret::filled_by(|key| {
        let mut both = zeroize::Zeroizing::new([0u8; 64]);
        expand(secret.expose(), salt, info, &mut both);
        let (first, second) = both.split_at(32);
        key.copy_from_slice(first);
        commitment.copy_from_slice(second);
    });
    (key, commitment)
}

/// Derives one 256-bit key from two secrets of fixed length, one after the other.
pub(crate) fn derive_from_both(left: &Secret, right: &Secret, info: &[&[u8]]) -> Secret {
    let mut both = zeroize::Zeroizing::new([0u8; 64]);
    let (first, second) = both.split_at_mut(32);
    first.copy_from_slice(left.expose());
    second.copy_from_slice(right.expose());
    Secret::filled_by(|key| expand(&both[..], &[], info, key))
}

fn expand<const N: usize>(input: &[u8], salt: &[u8], info: &[&[u8]], output: &mut [u8; N]) {
    hkdf(input, salt, &wire::parts(info), output);
}

/// HKDF-SHA-512 as RFC 5869 has it; an empty salt is its default of 64 zeros.
pub(crate) fn hkdf<const N: usize>(input: &[u8], salt: &[u8], info: &[u8], output: &mut [u8; N]) {
    // The only failure there is: more output than 255 hashes have. No caller compiles that asks for it.
    const { assert!(N <= 255 * 64) };
    let salt = (!salt.is_empty()).then_some(salt);
    let expanded = Hkdf::<Sha512>::new(salt, input).expand(info, output);
    debug_assert!(expanded.is_ok());
}
