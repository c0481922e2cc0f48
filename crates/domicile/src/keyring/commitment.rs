//! What a row of the key store commits to: its key, and everything in the row that a reader acts on.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::same;
use crate::store::{KeyName, KeyRow};
use crate::wire;

/// Gives a row of the first generation its commitment, and the name that it keeps from then on.
pub(super) fn name_and_commit(label: &[u8], row: &mut KeyRow, key: &[u8]) {
    row.commitment = commitment(label, row, key);
    row.name = name_of(&row.commitment);
}

/// Gives a row of a later generation its commitment; it has its name.
pub(super) fn commit(label: &[u8], row: &mut KeyRow, key: &[u8]) {
    row.commitment = commitment(label, row, key);
}

/// Whether a row is the one that was written with this key.
pub(super) fn committed(label: &[u8], row: &KeyRow, key: &[u8]) -> bool {
    let named = row.generation > 1 || row.name == name_of(&row.commitment);
    named && same(&commitment(label, row, key), &row.commitment)
}

/// A hash of label, identity, generation, state, name and key. In the first generation the name follows from the
/// commitment, and stands in it empty.
fn commitment(label: &[u8], row: &KeyRow, key: &[u8]) -> [u8; 32] {
    let slot = &row.identity.slot;
    let name: &[u8] = if row.generation > 1 { &row.name.0 } else { &[] };
    let parts = Zeroizing::new(wire::parts(&[
        label,
        slot.region.as_str().as_bytes(),
        slot.scope.tenant.as_str().as_bytes(),
        slot.scope.record_type.as_str().as_bytes(),
        slot.period.to_string().as_bytes(),
        &row.identity.version.to_be_bytes(),
        &row.generation.to_be_bytes(),
        &[row.state.code()],
        name,
        key,
    ]));
    Sha256::digest(&parts[..]).into()
}

fn name_of(commitment: &[u8; 32]) -> KeyName {
    let mut name = KeyName([0; 16]);
    for (to, from) in name.0.iter_mut().zip(commitment) {
        *to = *from;
    }
    name
}
