//! A segment that is not all there yet: its octets, and a mark that says how many of them are on disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domicile::files::{make_durable_directory, sync_directory};
use domicile_record::format::SegmentId;

use super::digest::{self, Digest};
use super::mark::Mark;

/// Others may read what is sealed.
pub(super) const MODE: u32 = 0o644;

/// So many octets at most are lost when the process dies.
const SETTLED_EVERY_BYTES: u64 = 32 << 20;

/// The endings of the two files.
pub(super) const ENDINGS: [&str; 2] = ["part", "mark"];

/// A segment on its way in. Blocking; one at a time has it.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    mark_path: PathBuf,
    pub(super) file: File,
    mark_file: File,
    mark: Mark,
    /// So many octets were written.
    at: u64,
    /// BLAKE3 of what was written, where all of it was since the process began.
    running: Option<digest::Running>,
    /// Its names are not durable yet.
    new: bool,
}

impl Part {
    /// What is known of an upload, if anything is; nothing is opened for writing.
    pub(super) fn look(directory: &Path, id: &SegmentId) -> io::Result<Option<Mark>> {
        let [_, mark] = paths(directory, id);
        let mut bytes = Vec::new();
        match File::open(mark) {
            Ok(file) => io::Read::read_to_end(&mut io::Read::take(file, Mark::BYTES as u64 + 1), &mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Mark::decode(&bytes))
    }

    /// Goes on with an upload; none where nothing is known that can be gone on with.
    pub(super) fn find(directory: &Path, id: &SegmentId) -> io::Result<Option<Self>> {
        let Some(mark) = Self::look(directory, id)? else { return Ok(None) };
        let [path, mark_path] = paths(directory, id);
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let file = match open(&path) {
            Ok(file) => file,
            // It has its own name already, and died before the mark was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < mark.durable {
            return Ok(None);
        }
        let (mark_file, at) = (open(&mark_path)?, mark.durable);
        Ok(Some(Self { path, mark_path, file, mark_file, mark, at, running: None, new: false }))
    }

    /// Begins an upload; what was there of one before is forgotten.
    pub(super) fn begin(
        directory: &Path,
        id: &SegmentId,
        total: u64,
        digest: Option<Digest>,
    ) -> io::Result<Self> {
        make_durable_directory(directory)?;
        let [path, mark_path] = paths(directory, id);
        let create = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(MODE).open(path)
        };
        // The mark first, and on disk: an old one must vouch for nothing of the new file.
        let (mark_file, mark) = (create(&mark_path)?, Mark { total, durable: 0, digest });
        mark_file.write_all_at(&mark.encode(), 0)?;
        mark_file.sync_data()?;
        let file = create(&path)?;
        let running = Some(digest::Running::default());
        Ok(Self { path, mark_path, file, mark_file, mark, at: 0, running, new: true })
    }

    pub(super) fn total(&self) -> u64 {
        self.mark.total
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.mark.digest
    }

    /// What the whole is, as its sender says behind what was there already; false where another was said before.
    #[must_use]
    pub(super) fn agrees_on(&mut self, digest: Digest) -> bool {
        *self.mark.digest.get_or_insert(digest) == digest
    }

    /// So many octets are on disk.
    pub(super) fn durable(&self) -> u64 {
        self.mark.durable
    }

    /// So many octets were written.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Goes back to an offset within what is there: what comes from there on is written anew.
    pub(super) fn rewind(&mut self, to: u64) -> io::Result<()> {
        if to < self.at {
            (self.at, self.running) = (to, None);
        }
        if self.at < self.mark.durable {
            self.say(self.at)?;
        }
        Ok(())
    }

    /// Writes what comes next; now and then it is made durable, but never the whole: that is said by whoever has seen the request
    /// to its end, which may bring the digest.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if let Some(running) = &mut self.running {
            running.update(bytes);
        }
        let is_due = self.at - self.mark.durable >= SETTLED_EVERY_BYTES && self.at < self.mark.total;
        if is_due { self.settle() } else { Ok(()) }
    }

    /// Makes durable what was written, then says so in the mark.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.at != self.mark.durable || self.new {
            self.file.sync_data()?;
            self.say(self.at)?;
        }
        if self.new {
            sync_directory(&self.path)?;
            self.new = false;
        }
        Ok(())
    }

    /// Makes durable what was written of a request that was not seen to its end. Its last octet is to be sent again, since a part
    /// that has all of them is one whose sender has said everything.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.rewind(self.mark.total.saturating_sub(1))?;
        self.settle()
    }

    fn say(&mut self, durable: u64) -> io::Result<()> {
        let mark = Mark { durable, ..self.mark };
        self.mark_file.write_all_at(&mark.encode(), 0)?;
        self.mark_file.sync_data()?;
        self.mark = mark;
        Ok(())
    }

    /// The digest of all that was written, where nothing of it has to be read for that.
    pub(super) fn running_digest(&self) -> Option<Digest> {
        self.running.as_ref().map(digest::Running::finish)
    }

    /// Where its octets are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets it: its octets, if they have no other name, and its mark.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [&self.path, &self.mark_path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn paths(directory: &Path, id: &SegmentId) -> [PathBuf; 2] {
    ENDINGS.map(|ending| directory.join(format!("{id}.{ending}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SegmentId = SegmentId([3; 32]);

    #[test]
    fn what_was_settled_is_gone_on_with_and_what_was_not_is_sent_again() {
        let directory = tempfile::tempdir().unwrap();
        let peer = directory.path().join("peer");
        assert!(Part::find(&peer, &ID).unwrap().is_none());
        let mut part = Part::begin(&peer, &ID, 10, None).unwrap();
        part.write(b"0123").unwrap();
        part.settle().unwrap();
        part.write(b"45").unwrap();
        drop(part); // the process dies
        let mut part = Part::find(&peer, &ID).unwrap().unwrap();
        assert_eq!((part.at(), part.durable(), part.total()), (4, 4, 10));
        part.write(b"456789").unwrap();
        part.settle().unwrap();
        assert_eq!(part.durable(), part.total());
        assert_eq!(part.running_digest(), None, "what another process wrote was not seen here");
        assert_eq!(fs::read(part.path()).unwrap(), b"0123456789");
        part.remove().unwrap();
        assert_eq!(fs::read_dir(&peer).unwrap().count(), 0);
        part.remove().unwrap();
    }

    #[test]
    fn whoever_goes_back_lowers_the_mark_before_anything_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut part = Part::begin(directory.path(), &ID, 10, None).unwrap();
        part.write(b"012345").unwrap();
        part.settle().unwrap();
        part.rewind(2).unwrap();
        assert_eq!(Part::look(directory.path(), &ID).unwrap().unwrap().durable, 2);
        part.rewind(9).unwrap();
        assert_eq!(part.at(), 2);
    }

    #[test]
    fn what_is_written_in_one_go_is_not_read_again_for_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let mut part = Part::begin(directory.path(), &ID, 10, None).unwrap();
        for octets in [&b"0123"[..], b"", b"456789"] {
            part.write(octets).unwrap();
        }
        part.rewind(10).unwrap();
        assert_eq!(part.running_digest(), Some(Digest::of(&part.file).unwrap()));
        part.rewind(9).unwrap();
        part.write(b"9").unwrap();
        assert_eq!(part.running_digest(), None);
    }

    #[test]
    fn a_mark_that_does_not_fit_its_file_vouches_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut part = Part::begin(directory.path(), &ID, 10, None).unwrap();
        part.write(b"012345").unwrap();
        part.settle().unwrap();
        part.file.set_len(5).unwrap();
        assert!(Part::find(directory.path(), &ID).unwrap().is_none());
        part.file.set_len(6).unwrap();
        assert!(Part::find(directory.path(), &ID).unwrap().is_some());
        fs::remove_file(part.path()).unwrap();
        assert!(Part::find(directory.path(), &ID).unwrap().is_none());
        fs::write(directory.path().join(format!("{ID}.mark")), b"DOMMARK1").unwrap();
        assert_eq!(Part::look(directory.path(), &ID).unwrap(), None);
    }
}
