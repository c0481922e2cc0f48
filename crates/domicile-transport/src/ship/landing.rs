//! The home's end: a directory into which segments come, part by part, and where they stand once they are whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use domicile::files::{is_over_a_network, make_durable_directory};
use domicile::{Clock, Code, Domicile, Error, Place, Result, SystemClock};
use domicile_record::format::{SegmentHeader, SegmentId};
use domicile_record::header_of;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::digest::Digest;
use super::examine::{Examined, check_header, check_homes, examine};
use super::failure::Failure;
use super::part::{ENDINGS, Part};
use super::request::{Sent, Trailers, digest_of};
use super::shelf::{self, Kept, Shelf};
use super::turns::{NoTurn, Turn, Turns};
use crate::Identity;
use crate::observe;

/// What is gathered of a body before it is written.
const WRITE_BYTES: usize = 1 << 20;

/// So many segments are examined at once: each takes memory for its lanes, and all of a core.
const EXAMINED_MAX: usize = 2;

/// How much a landing takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Octets of a segment; 64 GiB.
    pub segment_bytes_max: u64,
    /// Uploads at once; 64. Each takes about 3 MiB of memory.
    pub uploads_max: usize,
    /// Uploads at once of one peer; 16.
    pub uploads_per_peer_max: usize,
    /// Uploads of one peer that are not whole; 1,000.
    pub parts_per_peer_max: usize,
    /// How long a client may send nothing in the middle of a segment; 30 seconds.
    pub silence_max: Duration,
    /// After how long an upload that nobody went on with is removed; 7 days.
    pub part_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes_max: 64 << 30,
            uploads_max: 64,
            uploads_per_peer_max: 16,
            parts_per_peer_max: 1000,
            silence_max: Duration::from_secs(30),
            part_age_max: Duration::from_hours(7 * 24),
        }
    }
}

/// What is here of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// So many octets of so many are on disk.
    Incomplete {
        /// Octets on disk, from the first on.
        offset: u64,
        /// Octets of the whole.
        length: u64,
    },
    /// All of it, verified as far as can be without a key, and on disk under its name.
    Kept(Kept),
}

/// A directory into which segments come. Cheap to clone.
///
/// No key is needed: framing, place and digest are checked, tags are not. One process has a directory at a time, and it does not
/// lie on a file system over a network.
#[derive(Debug, Clone)]
pub struct Landing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    incoming: PathBuf,
    shelf: Arc<Shelf>,
    here: Place,
    limits: Limits,
    homes: Option<Domicile>,
    clock: Arc<dyn Clock>,
    turns: Arc<Turns>,
    rooms: Arc<Semaphore>,
    examining: Semaphore,
    stage: watch::Sender<Stage>,
    /// Held as long as this is.
    _lock: File,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// Nothing new is begun.
    Draining,
    /// What goes on ends where it is.
    Ended,
}

impl Landing {
    const INCOMING: &str = "_incoming";

    /// Takes segments of this place into a directory, which is there. `homes` is asked where the scopes of each segment are at
    /// home; without it, only the header of a segment says where that is.
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed) where nothing can be kept; [`ShipmentBusy`](Code::ShipmentBusy) when another
    /// process takes segments into it.
    pub fn open(directory: &Path, here: &Place, limits: Limits, homes: Option<Domicile>) -> Result<Self> {
        Self::open_at(directory, here, limits, homes, Arc::new(SystemClock))
    }

    /// The same by another clock, which says how old uploads are.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(
        directory: &Path,
        here: &Place,
        limits: Limits,
        homes: Option<Domicile>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let failed = |source: io::Error| {
            Error::output_failed("segments cannot be taken into this directory", source)
                .at(directory.display().to_string())
        };
        let incoming = directory.join(Self::INCOMING);
        make_durable_directory(&incoming).map_err(failed)?;
        let lock = File::create(incoming.join("lock")).map_err(failed)?;
        if is_over_a_network(&lock).map_err(failed)? {
            let what = "a file system over a network does not keep what is acknowledged here";
            return Err(failed(io::Error::new(io::ErrorKind::Unsupported, what)));
        }
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Error::new(Code::ShipmentBusy, "another process takes segments into this directory")
                    .at(directory.display().to_string())
                    .advise("end it first, or name another directory")
            }
            TryLockError::Error(source) => failed(source),
        })?;
        let shelf = Arc::new(Shelf::new(directory, &here.region));
        let (turns, rooms) = (Arc::default(), Arc::new(Semaphore::new(limits.uploads_max)));
        let (examining, stage) = (Semaphore::new(EXAMINED_MAX), watch::Sender::new(Stage::Open));
        let here = here.clone();
        let inner = Inner {
            incoming,
            shelf,
            here,
            limits,
            homes,
            clock,
            turns,
            rooms,
            examining,
            stage,
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What is here of a segment, for this peer: of what others upload it is told nothing. An upload that is whole and was cut
    /// short in its last steps is brought to its end.
    pub(super) async fn status(&self, peer: &Identity, id: &SegmentId) -> Result<Status, Failure> {
        if let Some(kept) = self.find(id).await? {
            return Ok(Status::Kept(kept));
        }
        let (directory, key) = (self.directory_of(peer), (peer_name(peer), *id));
        let name = *id;
        let mark = blocking(move || Part::look(&directory, &name)).await?.map_err(unreadable)?;
        let Some(mark) = mark else { return Err(none(id).into()) };
        if mark.durable == mark.total && !self.inner.turns.is_taken(&key) {
            let _turn = self.turn(peer, id).await?;
            let directory = self.directory_of(peer);
            let part = blocking(move || Part::find(&directory, &name)).await?.map_err(unreadable)?;
            return match part {
                Some(part) => {
                    self.finish(Arc::new(Mutex::new(part)), id).await.map(|(kept, _)| Status::Kept(kept))
                }
                // Somebody else brought it to its end meanwhile.
                None => match self.find(id).await? {
                    Some(kept) => Ok(Status::Kept(kept)),
                    None => Err(none(id).into()),
                },
            };
        }
        Ok(Status::Incomplete { offset: mark.durable, length: mark.total })
    }

    /// Takes octets of a segment, and keeps it once it is whole. True says that it is here for the first time.
    pub(super) async fn take(
        &self,
        peer: &Identity,
        id: &SegmentId,
        sent: Sent,
        body: &mut Body,
    ) -> Result<(Status, bool), Failure> {
        self.check_open()?;
        if let Some(kept) = self.find(id).await?
            && (sent.digest.is_some() || sent.total != kept.length)
        {
            return same(&kept, sent.digest, id).map(|()| (Status::Kept(kept), false)).map_err(Failure::from);
        }
        let Ok(_room) = Arc::clone(&self.inner.rooms).try_acquire_owned() else {
            return Err(busy("as many segments are uploaded as may be at once")
                .rule(format!("at most {} uploads", self.inner.limits.uploads_max))
                .into());
        };
        let mut turn = self.turn(peer, id).await?;
        let part = Arc::new(Mutex::new(self.part(peer, id, &sent).await?));
        let _counted = observe::Uploading::begin();
        let mut writing = Writing { part: &part, under_way: None };
        let received = self.receive(&mut writing, id, sent, body, &mut turn).await;
        // Nothing is written any more when it is settled, whatever came before.
        let received = received.and(writing.done().await.map(drop));
        let was_whole = received.is_ok();
        // Whatever came of it: what was taken is on disk before anybody is told how much that is.
        let settled = on(&part, move |part| if was_whole { part.settle() } else { part.leave() });
        let settled = settled.await?.map_err(not_written);
        let (durable, total) = reach(&part);
        if let Err(failure) = received {
            if failure.is_of_the_content() {
                self.forget(&part).await?;
                return Err(failure);
            }
            return Err(failure.reached(durable, total));
        }
        settled.map_err(|error| Failure::from(error).reached(durable, total))?;
        if durable < total {
            return Ok((Status::Incomplete { offset: durable, length: total }, false));
        }
        self.finish(part, id).await.map(|(kept, new)| (Status::Kept(kept), new))
    }

    /// The octets of a segment that is here.
    pub(super) async fn open_kept(&self, id: &SegmentId) -> Result<(File, Kept), Failure> {
        let kept = self.find(id).await?.ok_or_else(|| none(id))?;
        let (shelf, name) = (Arc::clone(&self.inner.shelf), *id);
        let file = blocking(move || shelf.open(&name)).await??.ok_or_else(|| none(id))?;
        Ok((file, kept))
    }

    /// Removes uploads that nobody went on with for too long; how many.
    ///
    /// # Errors
    /// [`ShipmentFailed`](Code::ShipmentFailed) when they cannot be looked at.
    pub fn tidy(&self) -> Result<usize> {
        let age_max = i64::try_from(self.inner.limits.part_age_max.as_secs()).unwrap_or(i64::MAX);
        let oldest = (self.inner.clock.now().micros() / 1_000_000).saturating_sub(age_max);
        let mut removed = 0;
        for peer in fs::read_dir(&self.inner.incoming).map_err(unreadable)? {
            let peer = peer.map_err(unreadable)?;
            if !peer.file_type().map_err(unreadable)?.is_dir() {
                continue;
            }
            for file in fs::read_dir(peer.path()).map_err(unreadable)? {
                let path = file.map_err(unreadable)?.path();
                if self.is_forgotten(&peer.file_name().to_string_lossy(), &path, oldest) {
                    removed += usize::from(path.extension().is_some_and(|ending| ending == ENDINGS[0]));
                    fs::remove_file(&path).map_err(unreadable)?;
                }
            }
        }
        if removed > 0 {
            tracing::info!(removed, "uploads that nobody went on with were removed");
        }
        Ok(removed)
    }

    /// Begins nothing new. What goes on goes on.
    pub fn drain(&self) {
        self.inner.stage.send_if_modified(|stage| {
            let begins = *stage == Stage::Open;
            *stage = Stage::Draining.max(*stage);
            begins
        });
    }

    /// Ends what goes on where it is, durably, and waits for that.
    pub async fn end(&self) {
        self.inner.stage.send_replace(Stage::Ended);
        let all = u32::try_from(self.inner.limits.uploads_max).unwrap_or(u32::MAX);
        // It fails if it is closed, and then there is nobody to wait for.
        drop(self.inner.rooms.acquire_many(all).await);
    }

    /// Whether new uploads are begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.inner.stage.borrow() == Stage::Open
    }

    fn check_open(&self) -> Result<()> {
        if self.is_open() { Ok(()) } else { Err(busy("this host is about to end")) }
    }

    async fn find(&self, id: &SegmentId) -> Result<Option<Kept>> {
        let (shelf, id) = (Arc::clone(&self.inner.shelf), *id);
        blocking(move || shelf.find(&id)).await?
    }

    async fn turn(&self, peer: &Identity, id: &SegmentId) -> Result<Turn, Failure> {
        let per_peer_max = self.inner.limits.uploads_per_peer_max;
        self.inner.turns.take((peer_name(peer), *id), per_peer_max).await.map_err(|none| match none {
            NoTurn::TooMany => Failure::new(
                StatusCode::TOO_MANY_REQUESTS,
                busy("this peer uploads as many segments as it may at once")
                    .rule(format!("at most {per_peer_max} uploads of a peer")),
            ),
            NoTurn::Taken => superseded().into(),
        })
    }

    /// The part that goes on, or begins, with what comes.
    async fn part(&self, peer: &Identity, id: &SegmentId, sent: &Sent) -> Result<Part, Failure> {
        let (directory, id, sent) = (self.directory_of(peer), *id, *sent);
        let parts_max = self.inner.limits.parts_per_peer_max;
        blocking(move || {
            let found = Part::find(&directory, &id).map_err(unreadable)?;
            let Some(mut part) = found.filter(|_| sent.first > 0) else {
                if sent.first > 0 {
                    return Err(gap(&sent, 0).reached(0, sent.total));
                }
                if Part::look(&directory, &id).map_err(unreadable)?.is_none()
                    && count(&directory) >= parts_max
                {
                    let error = busy("this peer has as many unfinished uploads as it may")
                        .rule(format!("at most {parts_max}"))
                        .advise("finish them; those that nobody goes on with are removed after some days");
                    return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, error));
                }
                let begun = Part::begin(&directory, &id, sent.total, sent.digest);
                return begun.map_err(|source| not_written(source).into());
            };
            let (durable, total) = (part.durable(), part.total());
            if total != sent.total || sent.digest.is_some_and(|said| !part.agrees_on(said)) {
                let what = "what is here is of another file than what comes";
                let error = Error::new(Code::ShipmentOffset, what).advise("begin with the first octet");
                return Err(Failure::from(error).reached(0, sent.total));
            }
            if sent.first > durable {
                return Err(gap(&sent, durable).reached(durable, total));
            }
            part.rewind(sent.first).map_err(not_written)?;
            Ok(part)
        })
        .await?
    }

    /// Writes what comes, as it comes: while one piece is written, the next is gathered.
    async fn receive(
        &self,
        writing: &mut Writing<'_>,
        id: &SegmentId,
        sent: Sent,
        body: &mut Body,
        turn: &mut Turn,
    ) -> Result<(), Failure> {
        let mut stage = self.inner.stage.subscribe();
        let (mut gathered, mut left) = (Vec::with_capacity(WRITE_BYTES), sent.length);
        let (mut is_known, mut ends) = (false, sent.trailers == Trailers::None);
        let mut digest = None;
        while left > 0 || !ends {
            let frame = tokio::select! {
                frame = timeout(self.inner.limits.silence_max, body.frame()) => frame,
                () = turn.superseded() => Ok(Some(Err(axum::Error::new(superseded())))),
                _ = stage.wait_for(|stage| *stage == Stage::Ended) => Ok(Some(Err(axum::Error::new(busy("this host ends"))))),
            };
            let came = match frame {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            digest = digest_of(&trailers)?.or(digest);
                        }
                        continue;
                    }
                },
                Ok(Some(Err(error))) => Err(ended(error)),
                Ok(None) if left == 0 => {
                    ends = true;
                    continue;
                }
                Ok(None) => Err(cut(None)),
                Err(_) => Err(silent(self.inner.limits.silence_max).into()),
            };
            let (data, failure) = match came {
                Ok(data) => (data, None),
                Err(failure) => (Bytes::new(), Some(failure)),
            };
            left = left
                .checked_sub(data.len() as u64)
                .ok_or_else(|| Failure::from(Error::new(Code::ShipmentInvalid, "more came than was said")))?;
            gathered.extend_from_slice(&data);
            if gathered.len() >= WRITE_BYTES || left == 0 || failure.is_some() {
                observe::received(gathered.len() as u64);
                gathered = writing.begin(gathered).await?;
                if !is_known {
                    writing.done().await?;
                    is_known = self.check_beginning(writing.part, id).await?;
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        let agrees = match digest {
            Some(digest) => on(writing.part, move |part| part.agrees_on(digest)).await?,
            None => sent.trailers != Trailers::Digest,
        };
        if !agrees {
            let what = "the digest behind the segment is another than the one before it, or did not come";
            return Err(Error::new(Code::ShipmentInvalid, what).into());
        }
        Ok(())
    }

    /// Whether the header is there; what does not belong here is refused before more of it comes.
    async fn check_beginning(&self, part: &Arc<Mutex<Part>>, id: &SegmentId) -> Result<bool, Failure> {
        let (part, id, here) = (Arc::clone(part), *id, self.inner.here.clone());
        blocking(move || {
            let part = lock(&part);
            if part.at() < SegmentHeader::BYTES as u64 {
                return Ok(false);
            }
            check_header(&header_of(&part.file)?, &id, &here)?;
            Ok(true)
        })
        .await?
    }

    /// From a part of which every octet is on disk to a segment that is kept.
    async fn finish(&self, part: Arc<Mutex<Part>>, id: &SegmentId) -> Result<(Kept, bool), Failure> {
        let finished = self.examine_and_publish(&part, id).await;
        match finished {
            Ok((kept, new)) => {
                if new {
                    tracing::info!(segment = %id, octets = kept.length, "a segment is here");
                    observe::kept(kept.length);
                }
                Ok((kept, new))
            }
            Err(failure) if failure.is_of_the_content() => {
                self.forget(&part).await?;
                Err(failure)
            }
            Err(failure) => {
                let (durable, total) = reach(&part);
                Err(failure.reached(durable, total))
            }
        }
    }

    async fn examine_and_publish(
        &self,
        part: &Arc<Mutex<Part>>,
        id: &SegmentId,
    ) -> Result<(Kept, bool), Failure> {
        let examining = self.inner.examining.acquire().await;
        let (examined, digest) = {
            let (part, name, here) = (Arc::clone(part), *id, self.inner.here.clone());
            blocking(move || {
                let part = lock(&part);
                if part.file.metadata().map_err(unreadable)?.len() != part.total() {
                    return Err(Error::new(Code::ShipmentUnverified, "more lies here than was to come")
                        .advise("begin with the first octet"));
                }
                let examined = examine(&part.file)?;
                check_header(&examined.header, &name, &here)?;
                let digest = match part.running_digest() {
                    Some(digest) => digest,
                    None => Digest::of(&part.file).map_err(unreadable)?,
                };
                if part.digest().is_some_and(|said| said != digest) {
                    return Err(Error::new(Code::ShipmentUnverified, "what arrived is not what was sent")
                        .rule(format!("BLAKE3 of what arrived: {digest}"))
                        .advise("send it again from the first octet"));
                }
                Ok((examined, digest))
            })
            .await??
        };
        drop(examining);
        if let Some(homes) = &self.inner.homes {
            check_homes(homes, &examined.scopes, &self.inner.here).await?;
        }
        let (shelf, part, id) = (Arc::clone(&self.inner.shelf), Arc::clone(part), *id);
        blocking(move || publish(&shelf, &lock(&part), &examined, digest, &id)).await?.map_err(Failure::from)
    }

    async fn forget(&self, part: &Arc<Mutex<Part>>) -> Result<(), Failure> {
        on(part, |part| part.remove()).await?.map_err(|source| not_written(source).into())
    }

    fn directory_of(&self, peer: &Identity) -> PathBuf {
        self.inner.incoming.join(peer_name(peer))
    }

    fn is_forgotten(&self, peer: &str, path: &Path, oldest: i64) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let id = path.file_stem().and_then(|stem| super::segment_id(&stem.to_string_lossy()));
        let Some(id) = id.filter(|_| path.extension().is_some_and(|e| ENDINGS.iter().any(|of| e == *of)))
        else {
            return false;
        };
        // Both files are as old as the newer of them.
        let age =
            |ending| path.with_extension(ending).metadata().map_or(i64::MIN, |metadata| metadata.mtime());
        let newest = ENDINGS.into_iter().map(age).max().unwrap_or(i64::MIN);
        newest < oldest && !self.inner.turns.is_taken(&(peer.to_owned(), id))
    }
}

/// Gives a part its name, unless something has it: then it is the same, or another and refused.
fn publish(
    shelf: &Shelf,
    part: &Part,
    examined: &Examined,
    digest: Digest,
    id: &SegmentId,
) -> Result<(Kept, bool)> {
    let kept = shelf::kept(examined, digest);
    let known = match shelf.find(id)? {
        Some(known) => Some(known),
        None if shelf.publish(part.path(), &examined.header, &kept)? => None,
        // Somebody was faster.
        None => shelf.find(id)?,
    };
    if let Some(known) = &known {
        same(known, Some(kept.digest), id)?;
    }
    part.remove().map_err(not_written)?;
    Ok((known.unwrap_or(kept), known.is_none()))
}

/// That what is kept is what was sent.
fn same(kept: &Kept, digest: Option<Digest>, id: &SegmentId) -> Result<()> {
    if digest == Some(kept.digest) {
        return Ok(());
    }
    Err(Error::new(Code::ShipmentConflict, "another file is kept here under the name of this segment")
        .at(format!("segment {id}"))
        .rule(format!("kept: edition {}, {} octets, BLAKE3 {}", kept.edition, kept.length, kept.digest))
        .advise("compare the two: one of them was changed, or is of another edition"))
}

/// The directory of a peer's uploads: it survives the renewal of its certificate.
fn peer_name(peer: &Identity) -> String {
    blake3::hash(peer.to_string().as_bytes()).to_hex().get(..32).unwrap_or_default().to_owned()
}

/// How many uploads lie in a directory.
fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, |entries| {
        let is_part = |path: &Path| path.extension().is_some_and(|ending| ending == ENDINGS[0]);
        entries.flatten().filter(|entry| is_part(&entry.path())).count()
    })
}

/// Pieces on their way into a part, one at a time and in order.
struct Writing<'a> {
    part: &'a Arc<Mutex<Part>>,
    under_way: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Writing<'_> {
    /// Writes a piece, once the one before it is written; a buffer for the next.
    async fn begin(&mut self, gathered: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let empty = self.done().await?;
        let part = Arc::clone(self.part);
        self.under_way = Some(tokio::task::spawn_blocking(move || {
            lock(&part).write(&gathered)?;
            let mut gathered = gathered;
            gathered.clear();
            Ok(gathered)
        }));
        Ok(empty.unwrap_or_else(|| Vec::with_capacity(WRITE_BYTES)))
    }

    /// Waits for what is written now; its buffer, if there was anything.
    async fn done(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(under_way) = self.under_way.take() else { return Ok(None) };
        let written = under_way.await.map_err(gone)?;
        Ok(Some(written.map_err(not_written)?))
    }
}

async fn on<T: Send + 'static>(
    part: &Arc<Mutex<Part>>,
    work: impl FnOnce(&mut Part) -> T + Send + 'static,
) -> Result<T, Error> {
    let part = Arc::clone(part);
    blocking(move || work(&mut lock(&part))).await
}

/// Work that waits for a disk, on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(gone)
}

fn gone(source: JoinError) -> Error {
    Error::new(Code::ShipmentFailed, "a thread ended before its work").because(source)
}

/// What a panic elsewhere left is judged by its mark.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reach(part: &Mutex<Part>) -> (u64, u64) {
    let part = lock(part);
    (part.durable(), part.total())
}

fn not_written(source: io::Error) -> Error {
    Error::output_failed("the segment could not be written", source)
}

fn unreadable(source: io::Error) -> Error {
    Error::new(Code::ShipmentFailed, "what was uploaded so far cannot be read").because(source)
}

fn none(id: &SegmentId) -> Error {
    Error::new(Code::ShipmentNone, "nothing of this segment is here").at(format!("segment {id}"))
}

fn busy(what: &str) -> Error {
    Error::new(Code::ShipmentBusy, what).advise("try again later: what was taken stays")
}

fn superseded() -> Error {
    busy("another request of this peer goes on with this upload")
}

/// Less came than was said.
fn cut(cause: Option<axum::BoxError>) -> Failure {
    let error = Error::new(Code::ConnectionFailed, "the segment was cut on its way")
        .advise("go on where the answer to HEAD says");
    let error = match cause {
        Some(cause) => error.because(cause),
        None => error,
    };
    Failure::new(StatusCode::BAD_REQUEST, error)
}

fn silent(limit: Duration) -> Error {
    Error::new(Code::ConnectionFailed, "nothing came for too long")
        .rule(format!("at most {} seconds between octets", limit.as_secs_f64()))
        .advise("go on where the answer to HEAD says")
}

/// An upload that ended before its end: cut, or told so from within.
fn ended(error: axum::Error) -> Failure {
    match error.into_inner().downcast::<Error>() {
        Ok(error) => Failure::from(*error),
        Err(source) => cut(Some(source)),
    }
}

fn gap(sent: &Sent, durable: u64) -> Failure {
    Failure::from(
        Error::new(Code::ShipmentOffset, "what comes leaves a gap behind what is here")
            .rule(format!("{durable} octets are here, and what comes begins with octet {}", sent.first))
            .advise("go on where the answer says"),
    )
}
