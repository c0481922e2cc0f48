//! The file that holds a region's root keys: the current one first, then older ones that still open.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::passphrase::Lock;
use super::root::{Root, RootId, SEALED_BYTES, open, seal};
use crate::engine::Unverified;
use crate::error::Result;
use crate::random::Randomness;
use crate::region::Region;
use crate::secret::{Secret, same};
use crate::{hex, kdf, private_file, wire};

/// No root-key file has more roots.
pub(super) const ROOTS_MAX: usize = 12;
const FORMAT: &str = "domicile root key v1";
const CHECK_LABEL: &[u8] = b"domicile/v1/local-root-check";
const SEAL_LABEL: &[u8] = b"domicile/v1/root-under-passphrase";

/// What stands in a root-key file (KEY-1, KEY-22, KEY-23).
pub(super) struct RootFile {
    pub(super) lock: Option<Lock>,
    entries: Vec<Entry>,
}

struct Entry {
    id: RootId,
    key: EntryKey,
    check: [u8; 32],
}

enum EntryKey {
    Plain(Secret),
    Sealed([u8; SEALED_BYTES]),
}

impl RootFile {
    /// Reads a file of this region: exactly these lines and nothing else.
    pub(super) fn parse(text: &str, region: &Region) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n').peekable();
        if lines.next()? != FORMAT || lines.next()?.strip_prefix("region ")? != region.as_str() {
            return None;
        }
        let lock = match lines.next_if(|line| line.starts_with("passphrase ")) {
            None => None,
            Some(cost) => Some(Lock::parse(
                cost.strip_prefix("passphrase ")?,
                lines.next()?.strip_prefix("salt ")?,
                lines.next()?.strip_prefix("commitment ")?,
            )?),
        };
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(line) = lines.next() {
            let id = hex::decode(line.strip_prefix("id ")?)?;
            let key = lines.next()?;
            let key = match lock {
                None => {
                    let key = Zeroizing::new(hex::decode(key.strip_prefix("key ")?)?);
                    EntryKey::Plain(Secret::copied_from(&key))
                }
                Some(_) => EntryKey::Sealed(hex::decode(key.strip_prefix("sealed ")?)?),
            };
            let check = hex::decode(lines.next()?.strip_prefix("check ")?)?;
            if entries.len() == ROOTS_MAX || entries.iter().any(|entry| entry.id == id) {
                return None;
            }
            entries.push(Entry { id, key, check });
        }
        (!entries.is_empty()).then_some(Self { lock, entries })
    }

    /// The roots, each verified; `key` is that of the lock.
    pub(super) fn roots(self, region: &Region, key: Option<&Secret>) -> Result<Vec<Root>, Unverified> {
        let ids: Vec<RootId> = self.entries.iter().map(|entry| entry.id).collect();
        let mut roots = Vec::with_capacity(ids.len());
        for (place, entry) in self.entries.into_iter().enumerate() {
            let root = match (entry.key, key) {
                (EntryKey::Plain(secret), _) => secret,
                (EntryKey::Sealed(sealed), Some(key)) => open(key, &ad(region, place, &ids), &sealed)?,
                (EntryKey::Sealed(_), None) => return Err(Unverified),
            };
            if !same(&check(&root, &entry.id, region), &entry.check) {
                return Err(Unverified);
            }
            roots.push(Root { id: entry.id, key: root });
        }
        Ok(roots)
    }
}

/// The text of a file with these roots, in memory that is wiped and was never moved.
pub(super) fn write(
    region: &Region,
    roots: &[Root],
    lock: Option<(&Lock, &Secret)>,
    randomness: &dyn Randomness,
) -> Result<Zeroizing<String>> {
    let ids: Vec<RootId> = roots.iter().map(|root| root.id).collect();
    let mut text = Zeroizing::new(String::with_capacity(private_file::FILE_BYTES_MAX));
    // Writing to a String cannot fail.
    let _ = write!(text, "{FORMAT}\nregion {region}\n");
    if let Some((lock, _)) = lock {
        text.push_str(&lock.lines());
    }
    for (place, root) in roots.iter().enumerate() {
        let _ = writeln!(text, "id {}", hex::encode(&root.id));
        let _ = match lock {
            None => writeln!(text, "key {}", &*Zeroizing::new(hex::encode(root.key.expose()))),
            Some((_, key)) => {
                let sealed = seal(randomness, key, &ad(region, place, &ids), &root.key)?;
                writeln!(text, "sealed {}", hex::encode(&sealed))
            }
        };
        let _ = writeln!(text, "check {}", hex::encode(&check(&root.key, &root.id, region)));
    }
    Ok(text)
}

/// Ties a root key to its id and region, so that a damaged or misplaced file is noticed before use (KEY-2).
fn check(key: &Secret, id: &RootId, region: &Region) -> [u8; 32] {
    *kdf::derive(key, id, &[CHECK_LABEL, region.as_str().as_bytes()]).expose()
}

/// Ties a sealed root to its place among all of them: nobody without the passphrase makes an older one current.
fn ad(region: &Region, place: usize, ids: &[RootId]) -> Vec<u8> {
    let place = (place as u64).to_be_bytes();
    let mut list: Vec<&[u8]> = vec![SEAL_LABEL, region.as_str().as_bytes(), &place];
    list.extend(ids.iter().map(|id| &id[..]));
    wire::parts(&list)
}
