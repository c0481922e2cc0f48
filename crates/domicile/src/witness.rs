//! What this host saw of key stores, in a small file apart from them: a store that was put back in time is known by it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::files::NewFile;
use crate::hex;
use crate::region::Region;
use crate::store::StoreMark;

/// How far a region's store had come when this host last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) incarnation: String,
    pub(crate) changes: u64,
    pub(crate) inserts: u64,
    pub(crate) ledger: u64,
    pub(crate) digest: [u8; 32],
}

impl Seen {
    /// Whether a store is another one, or has not come as far.
    pub(crate) fn is_behind(&self, mark: &StoreMark) -> bool {
        self.incarnation != mark.incarnation.to_string()
            || mark.changes < self.changes
            || mark.inserts < self.inserts
    }
}

/// The file. Nothing in it is secret; whoever may write it can make this host forget.
#[derive(Debug)]
pub(crate) struct Witness {
    path: PathBuf,
    /// What was read or written last, so that what did not change is not written again.
    known: Mutex<Option<BTreeMap<Region, Line>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    incarnation: String,
    changes: u64,
    inserts: u64,
    ledger: u64,
    digest: String,
    /// The newest entry of the ledger that was exported from this host.
    #[serde(default)]
    exported: u64,
}

const FILE_BYTES_MAX: u64 = 1 << 20;

impl Witness {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// What was seen of a region's store, if anything was.
    pub(crate) fn seen(&self, region: &Region) -> Result<Option<Seen>> {
        let line = self.read()?.remove(region);
        line.map(|line| {
            let digest = hex::decode(&line.digest)
                .ok_or_else(|| self.unreadable(io::ErrorKind::InvalidData.into()))?;
            let Line { incarnation, changes, inserts, ledger, .. } = line;
            Ok(Seen { incarnation, changes, inserts, ledger, digest })
        })
        .transpose()
    }

    /// Remembers it. Several processes of a host share the file; of one incarnation, the furthest counts.
    pub(crate) fn remember(&self, region: &Region, seen: &Seen) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = Line {
            incarnation: seen.incarnation.clone(),
            changes: seen.changes,
            inserts: seen.inserts,
            ledger: seen.ledger,
            digest: hex::encode(&seen.digest),
            exported: 0,
        };
        let worth_it = |old: &Line| {
            // Inserts come by the thousand and alone tell little: they are remembered with what else changes.
            (&old.incarnation, old.changes, old.ledger) != (&line.incarnation, line.changes, line.ledger)
                || line.inserts > old.inserts.saturating_add(old.inserts / 8).saturating_add(8)
        };
        if known.as_ref().and_then(|known| known.get(region)).is_some_and(|old| !worth_it(old)) {
            return Ok(());
        }
        let _alone = self.lock()?;
        let mut lines = self.read()?;
        line.exported = lines.get(region).map_or(0, |old| old.exported);
        if let Some(old) = lines.get(region).filter(|old| old.incarnation == line.incarnation) {
            line.changes = line.changes.max(old.changes);
            line.inserts = line.inserts.max(old.inserts);
            if old.ledger > line.ledger {
                (line.ledger, line.digest) = (old.ledger, old.digest.clone());
            }
        }
        lines.insert(region.clone(), line);
        self.write(&lines)?;
        *known = Some(lines);
        Ok(())
    }

    /// The newest entry of a region's ledger that was exported from this host; 0 where none was.
    pub(crate) fn exported(&self, region: &Region) -> Result<u64> {
        Ok(self.read()?.get(region).map_or(0, |line| line.exported))
    }

    /// Remembers that a ledger was exported up to this entry. A region that this host never used is not remembered.
    pub(crate) fn note_exported(&self, region: &Region, entry: u64) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.lock()?;
        let mut lines = self.read()?;
        let Some(line) = lines.get_mut(region) else { return Ok(()) };
        line.exported = line.exported.max(entry);
        self.write(&lines)?;
        *known = Some(lines);
        Ok(())
    }

    /// Has other processes of this host wait with what they write, until what is given is dropped. It is the directory that is
    /// locked: the file itself is replaced by each writing.
    fn lock(&self) -> Result<File> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory =
            File::open(parent.unwrap_or(Path::new("."))).map_err(|source| self.unreadable(source))?;
        let locked = rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive);
        locked.map_err(|source| self.unreadable(source.into()))?;
        Ok(directory)
    }

    fn read(&self) -> Result<BTreeMap<Region, Line>> {
        let text = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(self.unreadable(io::ErrorKind::InvalidData.into()));
            }
            Ok(_) => fs::read_to_string(&self.path).map_err(|source| self.unreadable(source))?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(self.unreadable(source)),
        };
        serde_json::from_str(&text).map_err(|source| self.unreadable(source.into()))
    }

    fn write(&self, lines: &BTreeMap<Region, Line>) -> Result<()> {
        let text = serde_json::to_vec_pretty(lines).map_err(|source| self.unreadable(source.into()))?;
        let mut file = NewFile::create(&self.path, 0o600, true)?;
        file.write_all(&text).map_err(|source| self.unreadable(source))?;
        file.publish()
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::new(Code::StoreUnavailable, "what this host remembers of key stores cannot be read or written")
            .at(Path::display(&self.path).to_string())
            .advise("see that the directory can be written, or say `witness = \"PATH\"` in the configuration")
            .because(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_host_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seen");
        std::thread::scope(|scope| {
            for process in 0..4 {
                let path = path.clone();
                scope.spawn(move || {
                    let witness = Witness::new(path);
                    let region: Region = format!("region-{process}").parse().unwrap();
                    for changes in 1..=50 {
                        let seen = Seen {
                            incarnation: "one".to_owned(),
                            changes,
                            inserts: 0,
                            ledger: changes,
                            digest: [7; 32],
                        };
                        witness.remember(&region, &seen).unwrap();
                        witness.note_exported(&region, changes).unwrap();
                    }
                });
            }
        });
        let witness = Witness::new(path);
        for process in 0..4 {
            let region: Region = format!("region-{process}").parse().unwrap();
            assert_eq!(witness.seen(&region).unwrap().unwrap().changes, 50);
            assert_eq!(witness.exported(&region).unwrap(), 50);
        }
    }
}
