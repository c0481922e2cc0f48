//! Segments that are all there: where they stand, and receipts of what was taken.
//!
//! Below the directory, `<region>/<yyyy-mm-dd>/<segment id>.dseg` is what a reader opens; `_posts/` has the same tree of what posts
//! sealed and the home has not adopted; `_receipts/` has a small file for each segment that was taken, so that the same one is
//! known again when it was adopted meanwhile. No region begins with `_`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use domicile::files::{NewFile, make_durable_directory, rename_to_new, sync_directory};
use domicile::{Code, Error, Region, Result};
use domicile_record::format::{Origin, SegmentHeader, SegmentId};
use domicile_record::header_of;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::examine::Examined;

/// Segments of one region below a directory.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    region: Region,
}

/// A segment that is here, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Octets of the file as it was taken.
    pub length: u64,
    /// Their digest.
    pub digest: Digest,
    /// The edition that was taken.
    pub edition: u32,
    /// Whether it came from a post and the home has it under its own keys by now.
    pub adopted: bool,
    /// Whether it came from a post: whoever sealed it keeps a copy until it is adopted.
    pub of_a_post: bool,
}

/// A file of `_receipts/`.
#[derive(Serialize, Deserialize)]
struct Receipt {
    day: String,
    bytes: u64,
    blake3: String,
    edition: u32,
    of_a_post: bool,
}

impl Shelf {
    pub(super) const POSTS: &str = "_posts";
    const RECEIPTS: &str = "_receipts";

    pub(super) fn new(root: &Path, region: &Region) -> Self {
        Self { root: root.to_owned(), region: region.clone() }
    }

    /// The segment with this name, if it is here. Its name is durable.
    pub(super) fn find(&self, id: &SegmentId) -> Result<Option<Kept>> {
        let receipt = match fs::read(self.receipt_path(id)) {
            Ok(bytes) => serde_json::from_slice::<Receipt>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(error)),
        };
        // One that cannot be read is made anew from what is there.
        let known = receipt.and_then(|receipt| Some((Digest::from_hex(&receipt.blake3)?, receipt)));
        if let Some((digest, Receipt { day, bytes, edition, of_a_post, .. })) = known {
            let is_there = self.path(&day, id).is_file();
            let kept = Kept { length: bytes, digest, edition, adopted: of_a_post && is_there, of_a_post };
            let waits = of_a_post && self.post_path(&day, id).is_file();
            return Ok((is_there || waits).then_some(kept));
        }
        self.find_without_receipt(id)
    }

    /// Where the octets are of a segment that was found.
    pub(super) fn open(&self, id: &SegmentId) -> Result<Option<File>> {
        Ok(self.places(id)?.into_iter().next().map(|(_, file)| file))
    }

    /// Gives a part that is whole and was examined its name, durably; false where something has that name.
    pub(super) fn publish(&self, part: &Path, header: &SegmentHeader, kept: &Kept) -> Result<bool> {
        let failed =
            |source: io::Error| Error::output_failed("the segment could not be given its name", source);
        let (day, id) = (day_of(header)?, &header.id);
        let path = if kept.of_a_post { self.post_path(&day, id) } else { self.path(&day, id) };
        self.make_above(&path).map_err(failed)?;
        match rename_to_new(part, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            renamed => renamed.map_err(failed)?,
        }
        sync_directory(&path).map_err(failed)?;
        self.write_receipt(id, day, kept)?;
        Ok(true)
    }

    /// A segment whose receipt was never written, or was lost: the process died in between, or the file came another way.
    fn find_without_receipt(&self, id: &SegmentId) -> Result<Option<Kept>> {
        let Some((path, file)) = self.places(id)?.into_iter().next() else { return Ok(None) };
        let failed = |source: io::Error| unreadable(source);
        let header = header_of(&file)?;
        let of_a_post = header.origin == Origin::Post;
        let kept = Kept {
            length: file.metadata().map_err(failed)?.len(),
            digest: Digest::of(&file).map_err(failed)?,
            edition: header.edition,
            adopted: of_a_post && !path.starts_with(self.root.join(Self::POSTS)),
            of_a_post,
        };
        sync_directory(&path).map_err(failed)?;
        self.write_receipt(id, day_of(&header)?, &kept)?;
        Ok(Some(kept))
    }

    /// Every file with this name, what a reader opens first.
    fn places(&self, id: &SegmentId) -> Result<Vec<(PathBuf, File)>> {
        let mut found = Vec::new();
        let trees =
            [self.root.join(self.region.as_str()), self.root.join(Self::POSTS).join(self.region.as_str())];
        for tree in trees {
            let days = match fs::read_dir(&tree) {
                Ok(days) => days,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(error)),
            };
            for day in days {
                let path = day.map_err(unreadable)?.path().join(name(id));
                match File::open(&path) {
                    Ok(file) => found.push((path, file)),
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    }
                    Err(error) => return Err(unreadable(error)),
                }
            }
        }
        Ok(found)
    }

    fn write_receipt(&self, id: &SegmentId, day: String, kept: &Kept) -> Result<()> {
        let path = self.receipt_path(id);
        let failed = |source: io::Error| Error::output_failed("a receipt could not be written", source);
        self.make_above(&path).map_err(failed)?;
        let Kept { length, digest, edition, of_a_post, .. } = *kept;
        let receipt = Receipt { day, bytes: length, blake3: digest.to_string(), edition, of_a_post };
        let text = serde_json::to_vec(&receipt).map_err(|source| failed(source.into()))?;
        let mut file = NewFile::create(&path, super::part::MODE, true)?;
        file.write_all(&text).map_err(failed)?;
        file.publish()
    }

    /// Makes the directories that a file stands in, each durably.
    fn make_above(&self, path: &Path) -> io::Result<()> {
        let below = path.parent().and_then(|parent| parent.strip_prefix(&self.root).ok());
        let mut directory = self.root.clone();
        for component in below.unwrap_or(Path::new("")).components() {
            directory.push(component);
            make_durable_directory(&directory)?;
        }
        Ok(())
    }

    fn path(&self, day: &str, id: &SegmentId) -> PathBuf {
        self.root.join(self.region.as_str()).join(day).join(name(id))
    }

    fn post_path(&self, day: &str, id: &SegmentId) -> PathBuf {
        self.root.join(Self::POSTS).join(self.region.as_str()).join(day).join(name(id))
    }

    fn receipt_path(&self, id: &SegmentId) -> PathBuf {
        let id = id.to_string();
        let shard = id.get(..2).unwrap_or_default().to_owned();
        self.root.join(Self::RECEIPTS).join(shard).join(format!("{id}.json"))
    }
}

/// What is kept of a segment that was just examined.
pub(super) fn kept(examined: &Examined, digest: Digest) -> Kept {
    Kept {
        length: examined.bytes,
        digest,
        edition: examined.header.edition,
        adopted: false,
        of_a_post: examined.unadopted,
    }
}

fn name(id: &SegmentId) -> String {
    format!("{id}.dseg")
}

/// The day in the name of a segment.
fn day_of(header: &SegmentHeader) -> Result<String> {
    let path = header.path();
    let day = path.parent().and_then(Path::file_name).and_then(|day| day.to_str());
    day.map(str::to_owned).ok_or_else(|| Error::new(Code::SegmentCorrupt, "the segment was begun on no day"))
}

fn unreadable(source: io::Error) -> Error {
    Error::new(Code::ShipmentFailed, "what is kept here cannot be read").because(source)
}
