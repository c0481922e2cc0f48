//! A disk in memory that fails when it is told to, and of which a crash leaves what a disk may leave: what was not synced is
//! lost, torn or there, in whatever order; what is done to names and was not said to be done is done or not.

#![allow(clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domicile_record::{Disk, DiskFile, Source};

/// Numbers that follow from a seed, so that what failed can be done again.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // SplitMix64, by its constants.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    appends_fail: AtomicBool,
    syncs_fail: AtomicBool,
    creations_fail: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The names that a crash left, when the disk is what one left.
    began_with: BTreeMap<PathBuf, usize>,
    names: BTreeMap<PathBuf, usize>,
    files: Vec<FileState>,
    /// What was done so far, in order.
    log: Vec<Step>,
    operations: usize,
}

#[derive(Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    taken: bool,
    /// What was there when the disk was made, and is safe.
    from_the_start: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// A file grew to so many octets.
    Append { file: usize, length: usize },
    /// So many octets of a file are on disk.
    Synced { file: usize, length: usize },
    /// Something is done to names; whether it was done when a crash comes, nobody knows.
    Begun { operation: usize, what: Naming },
    /// It was done.
    Done { operation: usize },
    /// A caller was told that so many records are safe.
    Note(u64),
}

#[derive(Debug, Clone)]
enum Naming {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Naming::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Naming::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Naming::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl State {
    fn name(&mut self, what: Naming) {
        let operation = self.operations;
        self.operations += 1;
        what.apply(&mut self.names);
        self.log.push(Step::Begun { operation, what });
        self.log.push(Step::Done { operation });
    }
}

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether writes fail from now on, with half of what they were to write written.
    pub fn fail_appends(&self, fail: bool) {
        self.0.appends_fail.store(fail, Ordering::SeqCst);
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.0.syncs_fail.store(fail, Ordering::SeqCst);
    }

    /// Whether files cannot be made from now on.
    pub fn fail_creations(&self, fail: bool) {
        self.0.creations_fail.store(fail, Ordering::SeqCst);
    }

    /// Notes in the order of what is done that a caller was told that so many records are safe.
    pub fn note(&self, records: u64) {
        self.state().log.push(Step::Note(records));
    }

    /// How many steps were done: a crash comes before one of them, or behind the last.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.state().log.len()
    }

    /// The files, by name, as whoever reads them now sees them.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].bytes.clone())).collect()
    }

    /// The segments among them.
    #[must_use]
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let is_segment = |(name, bytes): (PathBuf, Vec<u8>)| {
            name.extension().is_some_and(|ending| ending == "dseg").then_some(bytes)
        };
        self.files().into_iter().filter_map(is_segment).collect()
    }

    /// What a crash after so many steps leaves, and how many records a caller was told to be safe before it.
    #[must_use]
    pub fn crash(&self, after: usize, dice: &mut Dice) -> (SimulatedDisk, u64) {
        let state = self.state();
        let done: Vec<_> = state.log.iter().take(after).collect();
        let mut told = 0;
        let mut lengths: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (file, there) in state.files.iter().enumerate() {
            lengths.insert(file, (there.from_the_start, there.from_the_start));
        }
        let mut names = state.began_with.clone();
        let is_done = |operation: usize| {
            done.iter().any(|step| matches!(step, Step::Done { operation: done } if *done == operation))
        };
        for step in &done {
            match step {
                Step::Append { file, length } => lengths.entry(*file).or_default().1 = *length,
                Step::Synced { file, length } => {
                    let synced = &mut lengths.entry(*file).or_default().0;
                    *synced = (*synced).max(*length);
                }
                Step::Begun { operation, what } => {
                    if is_done(*operation) || dice.below(2) == 0 {
                        what.apply(&mut names);
                    }
                }
                Step::Done { .. } => {}
                Step::Note(records) => told = told.max(*records),
            }
        }
        let mut left = State::default();
        for (name, file) in names {
            let (synced, written) = lengths.get(&file).copied().unwrap_or_default();
            let bytes = remains(&state.files[file].bytes, synced, written, dice);
            left.began_with.insert(name, left.files.len());
            left.files.push(FileState { from_the_start: bytes.len(), bytes, taken: false });
        }
        left.names = left.began_with.clone();
        let shared = Shared { state: Mutex::new(left), ..Shared::default() };
        (SimulatedDisk(Arc::new(shared)), told)
    }
}

/// What a crash leaves of a file: everything that was synced, and of the rest some length, in which some sectors are zeros.
fn remains(bytes: &[u8], synced: usize, written: usize, dice: &mut Dice) -> Vec<u8> {
    const SECTOR: usize = 512;
    let length = match dice.below(4) {
        0 => synced,
        1 => written,
        _ => synced + dice.below(written - synced + 1),
    };
    let mut left = bytes[..length].to_vec();
    // Some crashes lose nothing but the end; others lose sectors in the middle.
    if dice.below(2) == 0 {
        return left;
    }
    let mut at = synced;
    while at < length {
        let end = length.min((at / SECTOR + 1) * SECTOR);
        if dice.below(4) == 0 {
            left[at..end].fill(0);
        }
        at = end;
    }
    left
}

/// A file that is written to.
#[derive(Debug)]
struct Written {
    disk: SimulatedDisk,
    file: usize,
}

/// A file that was taken.
#[derive(Debug)]
struct Taken {
    disk: SimulatedDisk,
    file: usize,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.disk.state().files[self.file].taken = false;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.disk.state().files[self.file].taken = false;
    }
}

impl Disk for SimulatedDisk {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.creations_fail.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(FileState { taken: true, ..FileState::default() });
        state.name(Naming::Create(path.to_owned(), file));
        Ok(Arc::new(Written { disk: self.clone(), file }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        let below = state.names.keys().filter_map(|name| name.strip_prefix(path).ok()?.iter().next());
        let mut names: Vec<_> = below.map(OsString::from).collect();
        names.dedup();
        Ok(names)
    }

    fn take(&self, path: &Path) -> io::Result<Option<Arc<dyn Source + Send + Sync>>> {
        let mut state = self.state();
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if std::mem::replace(&mut state.files[file].taken, true) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Taken { disk: self.clone(), file })))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(Naming::Remove(path.to_owned()));
        Ok(())
    }
}

impl DiskFile for Written {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let fails = self.disk.0.appends_fail.load(Ordering::SeqCst);
        let written = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let mut state = self.disk.state();
        state.files[self.file].bytes.extend_from_slice(written);
        let length = state.files[self.file].bytes.len();
        state.log.push(Step::Append { file: self.file, length });
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let length = self.disk.state().files[self.file].bytes.len();
        if self.disk.0.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        self.disk.state().log.push(Step::Synced { file: self.file, length });
        Ok(())
    }
}

impl Source for Taken {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.state().files[self.file].bytes[..].read_at(at, into)
    }
}
