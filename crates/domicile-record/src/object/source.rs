//! An object as a source of octets: one version of it, its end at hand, and as few requests as will do.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use domicile::{Code, Error, Result};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::bridge::Bridge;
use super::failure::{failed, is_missing};
use crate::format::Footer;
use crate::reader::Source;

/// Octets that one request asks for at most, unless a single block is longer, and that stay in memory together.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Octets that are read at once where one read follows another; each time twice as many.
const AHEAD_BYTES: u64 = 64 << 10;

/// How far apart two reads may be for the second to follow the first: what lies between is had more cheaply than a request.
const NEAR_BYTES: u64 = 128 << 10;

/// Pieces of an object in memory: several threads read several lanes.
const WINDOWS: usize = 4;

/// The names of segments end so.
const ENDING: &str = ".dseg";

/// A store, and a thread that asks it. Clones share both.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    bridge: Arc<Bridge>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.store)
    }
}

impl Objects {
    /// The objects of a store, which must be one that may be asked from another runtime than the one where it was made: those of
    /// `object_store` are.
    ///
    /// # Errors
    /// [`ObjectUnavailable`](Code::ObjectUnavailable) when the thread cannot be begun.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self> {
        Ok(Self { store, bridge: Arc::new(Bridge::new()?) })
    }

    /// Opens an object: one request, for its last 64 KiB. Blocks, as all reading does.
    ///
    /// What is read from then on is of the version that was there then: the e-tag of the first answer is the condition of every
    /// later request, and an object that was replaced meanwhile is an error, [`ObjectChanged`](Code::ObjectChanged).
    ///
    /// # Errors
    /// [`ObjectMissing`](Code::ObjectMissing), [`ObjectDenied`](Code::ObjectDenied) and
    /// [`ObjectUnavailable`](Code::ObjectUnavailable), also where the store names no versions.
    pub fn open(&self, location: &Path) -> Result<ObjectSource> {
        let (store, of) = (Arc::clone(&self.store), location.clone());
        let opened = self.bridge.wait_for(async move { open(&*store, &of).await });
        let (meta, tail) = opened?;
        let e_tag = meta.e_tag.ok_or_else(|| {
            Error::new(
                Code::ObjectUnavailable,
                "the object store does not say which version of an object it has",
            )
            .at(location.to_string())
            .rule("parts of an object are read by its e-tag, so that parts of two versions are never mixed")
        })?;
        Ok(ObjectSource {
            objects: self.clone(),
            location: location.clone(),
            length: meta.size,
            e_tag,
            tail_at: meta.size.saturating_sub(tail.len() as u64),
            tail,
            windows: Mutex::default(),
        })
    }

    /// The segments below a prefix, at any depth, in the order of their names.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn list(&self, prefix: &Path) -> Result<Vec<Path>> {
        let (store, of) = (Arc::clone(&self.store), prefix.clone());
        self.bridge.wait_for(async move {
            let listed: Vec<ObjectMeta> =
                store.list(Some(&of)).try_collect().await.map_err(|error| failed(&error, of.as_ref()))?;
            let names = listed.into_iter().map(|meta| meta.location);
            let mut names: Vec<_> =
                names.filter(|name| name.filename().is_some_and(|name| name.ends_with(ENDING))).collect();
            names.sort();
            Ok(names)
        })
    }
}

async fn open(store: &dyn ObjectStore, location: &Path) -> Result<(ObjectMeta, Bytes)> {
    let range = Some(GetRange::Suffix(Footer::TAIL_BYTES as u64));
    let got = match store.get_opts(location, GetOptions { range, ..GetOptions::default() }).await {
        Ok(got) => got,
        Err(error) => {
            // An object of no octets has no last ones.
            return match store.head(location).await {
                Ok(meta) if meta.size == 0 => Ok((meta, Bytes::new())),
                _ => Err(failed(&error, location.as_ref())),
            };
        }
    };
    let (meta, range) = (got.meta.clone(), got.range.clone());
    let tail = got.bytes().await.map_err(|error| failed(&error, location.as_ref()))?;
    let expected = meta.size.min(Footer::TAIL_BYTES as u64);
    if range.end != meta.size || tail.len() as u64 != expected {
        return Err(another_answer(location));
    }
    Ok((meta, tail))
}

fn another_answer(location: &Path) -> Error {
    Error::new(Code::ObjectUnavailable, "the object store gave other octets than those that were asked for")
        .at(location.to_string())
        .rule("a request names a range, and the answer is that range")
}

/// One version of an object, which is read as a file is: several threads may, inside a runtime and outside.
///
/// In memory are its last 64 KiB, and at most four pieces of 8 MiB of what was read last. Reads that follow one another are made
/// in larger and larger pieces.
pub struct ObjectSource {
    objects: Objects,
    location: Path,
    length: u64,
    e_tag: String,
    tail: Bytes,
    tail_at: u64,
    windows: Mutex<Windows>,
}

impl fmt::Debug for ObjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectSource({}, {} octets)", self.location, self.length)
    }
}

#[derive(Default)]
struct Windows(VecDeque<(u64, Bytes)>);

impl Windows {
    /// What is at hand from an offset on.
    fn from(&self, at: u64) -> Option<Bytes> {
        self.0.iter().rev().find_map(|(start, bytes)| {
            let skip = usize::try_from(at.checked_sub(*start)?).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        })
    }

    /// How long the piece is that ends right before an offset.
    fn before(&self, at: u64) -> Option<u64> {
        self.0.iter().rev().find_map(|(start, bytes)| {
            let end = start + bytes.len() as u64;
            (end <= at && at - end <= NEAR_BYTES).then_some(bytes.len() as u64)
        })
    }

    fn keep(&mut self, at: u64, bytes: Bytes) {
        if self.0.len() == WINDOWS {
            self.0.pop_front();
        }
        self.0.push_back((at, bytes));
    }
}

impl ObjectSource {
    /// The e-tag of the version that is read.
    #[must_use]
    pub fn e_tag(&self) -> &str {
        &self.e_tag
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        // A piece is put in whole, whatever happens to the thread beside it.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is at hand from an offset on; none, if it has to be asked for.
    fn at_hand(&self, at: u64) -> Option<Bytes> {
        match at.checked_sub(self.tail_at) {
            Some(skip) => self.tail.get(usize::try_from(skip).ok()?..).map(|rest| self.tail.slice_ref(rest)),
            None => self.windows().from(at),
        }
    }

    /// One request, for these octets and, where it follows another, for those behind them; what comes is kept at hand.
    fn ask_ahead(&self, at: u64, end: u64) -> io::Result<Bytes> {
        let ahead = match self.windows().before(at) {
            Some(before) => AHEAD_BYTES.max(before.saturating_mul(2)).min(WINDOW_BYTES_MAX),
            None => 0,
        };
        let end = end.max(at.saturating_add(ahead)).min(self.tail_at);
        let asked = self.ask(at..end)?;
        if asked.len() as u64 <= WINDOW_BYTES_MAX {
            self.windows().keep(at, asked.clone());
        }
        Ok(asked)
    }

    /// One request.
    fn ask(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (store, location) = (Arc::clone(&self.objects.store), self.location.clone());
        let (e_tag, length) = (self.e_tag.clone(), self.length);
        let asked = self.objects.bridge.wait_for(async move {
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                if_match: Some(e_tag.clone()),
                ..GetOptions::default()
            };
            let got = store.get_opts(&location, options).await.map_err(|error| match is_missing(&error) {
                true => changed(&location).because("it is gone"),
                false => failed(&error, location.as_ref()),
            })?;
            // A store may not know conditions.
            if got.meta.e_tag.as_ref() != Some(&e_tag) || got.meta.size != length {
                return Err(changed(&location));
            }
            let answered = got.range.clone();
            let bytes = got.bytes().await.map_err(|error| failed(&error, location.as_ref()))?;
            if answered != range || bytes.len() as u64 != range.end - range.start {
                return Err(another_answer(&location));
            }
            Ok(bytes)
        });
        asked.map_err(io::Error::other)
    }
}

fn changed(location: &Path) -> Error {
    Error::new(Code::ObjectChanged, "the object is no longer the one of which a part was read")
        .at(location.to_string())
        .advise("read it again from its beginning, and find out who replaces segments")
}

impl Source for ObjectSource {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, mut at: u64, into: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(into.len() as u64).filter(|end| *end <= self.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut rest = into;
        while !rest.is_empty() {
            let found = match self.at_hand(at) {
                Some(found) => found,
                None => self.ask_ahead(at, end)?,
            };
            let (now, later) = rest.split_at_mut(found.len().min(rest.len()));
            now.copy_from_slice(found.get(..now.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn near_bytes(&self) -> u64 {
        NEAR_BYTES
    }

    fn is_far(&self) -> bool {
        true
    }

    fn fetch(&self, from: u64, to: u64) -> io::Result<bool> {
        if to.saturating_sub(from) > WINDOW_BYTES_MAX {
            return Ok(false);
        }
        let mut at = from;
        while at < to.min(self.length) {
            at += match self.at_hand(at) {
                Some(found) => found.len() as u64,
                None => self.ask_ahead(at, to)?.len() as u64,
            };
        }
        Ok(true)
    }
}
