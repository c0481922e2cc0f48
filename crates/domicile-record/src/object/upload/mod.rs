//! Uploads of finished segments: in parts that are not sent twice, to where their region keeps its segments, over nothing that
//! lies there.

mod state;

use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use domicile::{Action, Code, Domicile, Error, Purpose, Region, Result, Scope};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart,
};
use sha2::{Digest, Sha256};

use super::failure::{failed, is_missing};
use crate::disk::{LocalDisk, taken};
use crate::format::Footer;
use crate::reader::{SegmentFile, Source, unreadable};
use state::State;

/// Parts of an upload, at most: what S3 takes.
const PARTS_MAX: u64 = 10_000;

/// Where finished segments of one region are uploaded to.
#[derive(Clone)]
pub struct Destination {
    region: Region,
    root: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    parts: Option<Arc<dyn MultipartStore>>,
    completing: Option<Arc<dyn MultipartStore>>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({}, of {})", self.url_of(&self.prefix), self.region)
    }
}

impl Destination {
    /// Below a prefix of a store, of which the caller knows that this region keeps its segments there. `root` names the store, as
    /// in `s3://bucket`: it is shown, and an upload goes on only at the same one.
    ///
    /// Segments are put whole, or, where they are longer than a part, written beside their place and given their name if nothing
    /// has it: stores that upload [in parts](Self::in_parts) resume.
    #[must_use]
    pub fn new(region: Region, root: impl Into<String>, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { region, root: root.into(), store, prefix, parts: None, completing: None }
    }

    /// The same store, by the interface that keeps what was uploaded in parts.
    #[must_use]
    pub fn in_parts(self, parts: Arc<dyn MultipartStore>) -> Self {
        Self { parts: Some(parts), ..self }
    }

    /// The same store once more, which completes an upload only where nothing has the name. Without it, what somebody else puts
    /// there between the last look and the completion is replaced.
    #[must_use]
    pub fn completing(self, completing: Arc<dyn MultipartStore>) -> Self {
        Self { completing: Some(completing), ..self }
    }

    /// The region whose segments are kept here.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    fn url_of(&self, location: &Path) -> String {
        format!("{}/{location}", self.root)
    }
}

/// How segments are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadOptions {
    /// Octets of a part; more where there would be more than 10,000 of them. S3 takes no less than 5 MiB, but for the last.
    /// A segment that is no longer is put whole.
    pub part_bytes: u64,
    /// Parts that are in memory, and under way, at the same time.
    pub parts_at_once: usize,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self { part_bytes: 8 << 20, parts_at_once: 4 }
    }
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Where the segment lies.
    pub url: String,
    /// Its name.
    pub segment: crate::format::SegmentId,
    /// Its octets.
    pub bytes: u64,
    /// Parts that were sent now; 1 for a segment that was put whole.
    pub parts_sent: u64,
    /// Parts that an earlier run had sent.
    pub parts_before: u64,
    /// Whether the same segment lay there already.
    pub existed: bool,
}

/// Uploads a finished segment, as `<region>/<yyyy-mm-dd>/<segment id>.dseg` below the destination's prefix.
///
/// A segment of more than one part is uploaded part by part, and which parts the store has stands in `<file>.upload` beside
/// the segment: after a crash or a cut, the same call sends the others alone, if segment, destination and length of parts are the same. Afterwards
/// the object's length and its last 64 KiB are compared with the file's, and the small file is taken away. What was uploaded of
/// a segment that was given up is kept by the store until its owner's rule for incomplete uploads takes it away.
///
/// Where the same segment lies there already, octet for octet, nothing is done.
///
/// The guard is asked first: sealed records are moved from a place where they may be processed to where their region keeps
/// them, and nowhere else.
///
/// # Errors
/// [`ObjectElsewhere`](Code::ObjectElsewhere) where the destination is another region's;
/// [`HomeRefused`](Code::HomeRefused) where the region's records may not be here; [`ObjectExists`](Code::ObjectExists) where
/// something else has the name: it stays; [`SegmentUnfinished`](Code::SegmentUnfinished) for a segment without its end,
/// [`SegmentBusy`](Code::SegmentBusy) for one that somebody writes or uploads; [`ArgumentInvalid`](Code::ArgumentInvalid) where
/// an upload to another place was begun; [`ObjectDenied`](Code::ObjectDenied), [`ObjectUnavailable`](Code::ObjectUnavailable)
/// and [`ObjectMissing`](Code::ObjectMissing), after which the same call goes on.
pub async fn upload(
    domicile: &Domicile,
    destination: &Destination,
    file: impl AsRef<FilePath>,
    options: UploadOptions,
) -> Result<Uploaded> {
    let path = file.as_ref();
    let uploaded = async {
        let source = taken(&LocalDisk, path)?;
        let file = SegmentFile::open(&*source)?;
        if !file.has_whole_footer()? {
            return Err(Error::new(
                Code::SegmentUnfinished,
                "this segment is not finished, or its footer is damaged",
            )
            .rule("finished segments alone are uploaded")
            .advise("`domicile recover` closes what a crash left; `domicile verify` says what is wrong"));
        }
        allowed(domicile, destination, &file).await?;
        let location =
            file.header.path().to_string_lossy().split('/').fold(destination.prefix.clone(), Path::join);
        Upload { destination, file: &file, path, location, options }.run().await
    };
    uploaded.await.map_err(|error: Error| error.at(path.display().to_string()))
}

/// Whether the segments of this region may be here, and are kept there.
async fn allowed<S: Source>(
    domicile: &Domicile,
    destination: &Destination,
    file: &SegmentFile<S>,
) -> Result<()> {
    let home = &file.header.place;
    let action = Action::Manage(Purpose::Maintenance.into());
    let refused = if destination.region != home.region {
        Some(
            Error::new(
                Code::ObjectElsewhere,
                format!(
                    "this segment is at home in {home}, and {} is where {} keeps its segments",
                    destination.url_of(&destination.prefix),
                    destination.region
                ),
            )
            .rule("a segment is uploaded to where its own region keeps its segments")
            .advise(format!("name a URL below one of `objects` of [regions.{}]", home.region)),
        )
    } else if domicile.region(&home.region)?.place != *home {
        Some(Error::new(
            Code::HomeMismatch,
            format!("the segment says that {} lies in {}", home.region, home.jurisdiction),
        ))
    } else {
        None
    };
    match refused {
        Some(error) => Err(domicile.refuse(error, &Scope::of_region(), &action).await),
        None => domicile.permit_region(&home.region, action).await.map(|_permit| ()),
    }
}

/// One segment on its way.
struct Upload<'a, S> {
    destination: &'a Destination,
    file: &'a SegmentFile<S>,
    path: &'a FilePath,
    location: Path,
    options: UploadOptions,
}

/// An attempt that did not come to its end.
enum Cut {
    /// The store knows nothing of the upload any more.
    Forgotten,
    Failed(Error),
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Cut::Failed(error)
    }
}

impl<S: Source> Upload<'_, S> {
    async fn run(&self) -> Result<Uploaded> {
        if self.lies_there().await? {
            self.abandon().await?;
            return Ok(self.done(0, 0, true));
        }
        let (sent, before) = match &self.destination.parts {
            Some(parts) if self.file.length > self.part_bytes() => {
                let sent = self.in_parts(&**parts).await?;
                State::remove(self.path)?;
                sent
            }
            _ => {
                self.abandon().await?;
                (self.whole().await?, 0)
            }
        };
        self.compare_end().await?;
        Ok(self.done(sent, before, false))
    }

    fn done(&self, parts_sent: u64, parts_before: u64, existed: bool) -> Uploaded {
        Uploaded {
            url: self.destination.url_of(&self.location),
            segment: self.file.header.id,
            bytes: self.file.length,
            parts_sent,
            parts_before,
            existed,
        }
    }

    fn part_bytes(&self) -> u64 {
        self.options.part_bytes.max(1).max(self.file.length.div_ceil(PARTS_MAX))
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        let error = failed(error, &self.destination.url_of(&self.location));
        match error.code() {
            Code::ObjectUnavailable => error.advise(
                "see that endpoint, region and bucket are those meant, and run it again: parts that are there are not sent again",
            ),
            _ => error,
        }
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length)
            .map_err(|_| Error::new(Code::ArgumentInvalid, "a part is longer than memory"))?;
        let mut bytes = vec![0; length];
        self.file.source.read_at(at, &mut bytes).map_err(|source| unreadable(at, source))?;
        Ok(bytes)
    }

    /// Whether this very segment has the name already.
    async fn lies_there(&self) -> Result<bool> {
        let meta = match self.destination.store.head(&self.location).await {
            Ok(meta) => meta,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(self.failed(&error)),
        };
        let mut same = meta.size == self.file.length;
        let mut at = 0;
        while same && at < self.file.length {
            let length = self.part_bytes().min(self.file.length - at);
            same = self.object(at, length, meta.e_tag.clone()).await? == self.read(at, length)?;
            at += length;
        }
        if same {
            return Ok(true);
        }
        self.abandon().await?;
        Err(Error::new(Code::ObjectExists, "something else lies where this segment belongs")
            .at(self.destination.url_of(&self.location))
            .rule("what lies in an object store is not replaced")
            .advise("compare both: `domicile inspect` shows their editions; move one of them away"))
    }

    async fn object(&self, at: u64, length: u64, e_tag: Option<String>) -> Result<Bytes> {
        let range = Some(GetRange::Bounded(at..at + length));
        let options = GetOptions { range, if_match: e_tag, ..GetOptions::default() };
        let got = self.destination.store.get_opts(&self.location, options).await;
        let got = got.map_err(|error| self.failed(&error))?;
        got.bytes().await.map_err(|error| self.failed(&error))
    }

    /// What was uploaded must end as the file does, and be as long.
    async fn compare_end(&self) -> Result<()> {
        let store = &self.destination.store;
        let meta = store.head(&self.location).await.map_err(|error| self.failed(&error))?;
        let length = self.file.length.min(Footer::TAIL_BYTES as u64);
        let at = self.file.length - length;
        if meta.size == self.file.length
            && self.object(at, length, meta.e_tag).await? == self.read(at, length)?
        {
            return Ok(());
        }
        Err(Error::new(Code::ObjectChanged, "what lies in the object store is not what was uploaded")
            .at(self.destination.url_of(&self.location))
            .advise("find out who else writes there; the segment here is as it was"))
    }

    /// Puts it where nothing is, in one go or, where it is longer than a part, by a name beside it.
    async fn whole(&self) -> Result<u64> {
        let store = &self.destination.store;
        let put = if self.file.length <= self.part_bytes() {
            let payload = PutPayload::from(self.read(0, self.file.length)?);
            store.put_opts(&self.location, payload, PutMode::Create.into()).await.map(|_| ())
        } else {
            let beside = Path::from(format!("{}.part", self.location));
            self.stream(&beside).await?;
            let renamed = store.rename_if_not_exists(&beside, &self.location).await;
            if renamed.is_err() {
                // What could not get its name is of no use.
                let _ = store.delete(&beside).await;
            }
            renamed
        };
        match put {
            Ok(()) => Ok(1),
            // A put that was made again finds what it put itself.
            Err(error) => self.lay_there(error).await.map(|()| 1),
        }
    }

    /// What could not be put, may be there all the same.
    async fn lay_there(&self, error: object_store::Error) -> Result<()> {
        if self.lies_there().await? { Ok(()) } else { Err(self.failed(&error)) }
    }

    async fn stream(&self, beside: &Path) -> Result<()> {
        let upload: Box<dyn MultipartUpload> =
            self.destination.store.put_multipart(beside).await.map_err(|error| self.failed(&error))?;
        let part = usize::try_from(self.part_bytes()).unwrap_or(usize::MAX);
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part);
        let mut at = 0;
        while at < self.file.length {
            let length = self.part_bytes().min(self.file.length - at);
            writer
                .wait_for_capacity(self.options.parts_at_once.max(1))
                .await
                .map_err(|error| self.failed(&error))?;
            writer.put(self.read(at, length)?.into());
            at += length;
        }
        writer.finish().await.map_err(|error| self.failed(&error))?;
        Ok(())
    }

    /// Sends the parts that the store does not have, and completes the upload: how many were sent, and how many had been.
    async fn in_parts(&self, store: &dyn MultipartStore) -> Result<(u64, u64)> {
        let hash = self.hash()?;
        let state = State::read(self.path)?;
        if let Some(state) = state.as_ref().filter(|state| !self.same_object(state)) {
            return Err(Error::new(
                Code::ArgumentInvalid,
                "an upload of this segment to another place was begun",
            )
            .at(state.destination.clone())
            .advise(format!(
                "finish it there first, or give it up: remove {}",
                State::path(self.path).display()
            )));
        }
        let resumed = match state {
            Some(state) if state.is_of(self.file.length, &hash) && state.part_bytes == self.part_bytes() => {
                Some(state)
            }
            other => {
                self.forget(other).await?;
                None
            }
        };
        if let Some(state) = resumed {
            match self.send(store, state).await {
                Ok(sent) => return Ok(sent),
                Err(Cut::Forgotten) => {}
                Err(Cut::Failed(error)) => return Err(error),
            }
        }
        let begun = store.create_multipart(&self.location).await.map_err(|error| self.failed(&error))?;
        let state = State::begin(
            self.destination.url_of(&self.location),
            (self.file.header.id.to_string(), self.file.length, hash),
            self.part_bytes(),
            begun,
        );
        state.write(self.path)?;
        match self.send(store, state).await {
            Ok(sent) => Ok(sent),
            Err(Cut::Failed(error)) => Err(error),
            Err(Cut::Forgotten) => Err(Error::new(
                Code::ObjectUnavailable,
                "the object store does not know the upload that it has just begun",
            )
            .at(self.destination.url_of(&self.location))),
        }
    }

    fn same_object(&self, state: &State) -> bool {
        // Another edition of the segment has the same name there.
        state.destination == self.destination.url_of(&self.location)
    }

    fn hash(&self) -> Result<String> {
        let (mut at, mut hash) = (0, Sha256::new());
        while at < self.file.length {
            let bytes = self.read(at, (1 << 20).min(self.file.length - at))?;
            hash.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(domicile::hex::encode(&hash.finalize()))
    }

    async fn send(&self, store: &dyn MultipartStore, mut state: State) -> Result<(u64, u64), Cut> {
        let (part_bytes, length) = (state.part_bytes, self.file.length);
        let before = state.parts.len() as u64;
        let missing: Vec<u64> =
            (0..length.div_ceil(part_bytes)).filter(|part| !state.parts.contains_key(part)).collect();
        let upload = state.upload.clone();
        let (mut missing, mut sending, mut failure) = (missing.into_iter(), FuturesUnordered::new(), None);
        let mut sent = 0;
        loop {
            while failure.is_none()
                && sending.len() < self.options.parts_at_once.max(1)
                && let Some(part) = missing.next()
            {
                let at = part * part_bytes;
                let payload = PutPayload::from(self.read(at, part_bytes.min(length - at))?);
                let number = usize::try_from(part).unwrap_or(usize::MAX);
                let (location, upload) = (&self.location, &upload);
                sending.push(async move { (part, store.put_part(location, upload, number, payload).await) });
            }
            match sending.next().await {
                None => break,
                Some((part, Ok(PartId { content_id }))) => {
                    sent += 1;
                    state.parts.insert(part, content_id);
                    state.write(self.path)?;
                }
                // The others may come to their end: what they sent need not be sent again.
                Some((_, Err(error))) => {
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if is_missing(&error) => return Err(Cut::Forgotten),
            Some(error) => return Err(self.failed(&error).into()),
            None => {}
        }
        let parts = state.parts.into_values().map(|content_id| PartId { content_id }).collect();
        let completing = self.destination.completing.as_deref().unwrap_or(store);
        match completing.complete_multipart(&self.location, &upload, parts).await {
            Ok(_) => Ok((sent, before)),
            Err(error) => match self.lies_there().await {
                Ok(true) => Ok((sent, before)),
                Ok(false) if is_missing(&error) => Err(Cut::Forgotten),
                Ok(false) => Err(self.failed(&error).into()),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Gives up what an earlier run uploaded to this name, if it did.
    async fn abandon(&self) -> Result<()> {
        match State::read(self.path)? {
            Some(state) if self.same_object(&state) => self.forget(Some(state)).await,
            _ => Ok(()),
        }
    }

    async fn forget(&self, state: Option<State>) -> Result<()> {
        let Some(state) = state.filter(|state| self.same_object(state)) else { return Ok(()) };
        if let Some(store) = &self.destination.parts
            && let Err(error) = store.abort_multipart(&self.location, &state.upload).await
            && !is_missing(&error)
        {
            // The owner's rule for incomplete uploads takes it away.
            tracing::warn!(cause = %self.failed(&error), "an upload that is of no use could not be aborted");
        }
        State::remove(self.path)
    }
}
