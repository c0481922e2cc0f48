//! What an upload has done, in a small file beside the segment, so that the next run does not do it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use domicile::files::{NewFile, belongs_to_us, sync_directory};
use domicile::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// 10,000 parts, each with an e-tag.
const BYTES_MAX: u64 = 4 << 20;

/// Nobody else's business.
const MODE: u32 = 0o600;

const VERSION: u16 = 1;

/// An upload that was begun: what of, where to, and which of its parts the store has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u16,
    /// The URL of the object.
    pub(super) destination: String,
    segment: String,
    bytes: u64,
    sha256: String,
    pub(super) part_bytes: u64,
    /// The store's name for the upload.
    pub(super) upload: String,
    /// The parts that the store has, from 0, by their e-tags.
    pub(super) parts: BTreeMap<u64, String>,
}

impl State {
    pub(super) fn begin(
        destination: String,
        (segment, bytes, sha256): (String, u64, String),
        part_bytes: u64,
        upload: String,
    ) -> Self {
        Self {
            version: VERSION,
            destination,
            segment,
            bytes,
            sha256,
            part_bytes,
            upload,
            parts: BTreeMap::new(),
        }
    }

    /// Whether this is of a file with these octets.
    pub(super) fn is_of(&self, bytes: u64, sha256: &str) -> bool {
        self.bytes == bytes && self.sha256 == sha256
    }

    /// Where it is written.
    pub(super) fn path(segment: &Path) -> PathBuf {
        let mut name = segment.as_os_str().to_owned();
        name.push(".upload");
        PathBuf::from(name)
    }

    /// What stands beside a segment, if an upload was begun.
    pub(super) fn read(segment: &Path) -> Result<Option<Self>> {
        let path = Self::path(segment);
        let failed = |what: &str| {
            Error::new(Code::InputFailed, what.to_owned())
                .at(path.display().to_string())
                .advise("remove it: the upload begins anew, and what the store has of it is of no use")
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("what an upload has done cannot be read").because(source)),
        };
        let unread = |source| failed("what an upload has done cannot be read").because(source);
        if !belongs_to_us(&file.metadata().map_err(unread)?) {
            return Err(failed("what an upload has done was written by somebody else"));
        }
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
        let state: Self = serde_json::from_str(&text)
            .map_err(|source| failed("what an upload has done makes no sense").because(source))?;
        let parts = state.bytes.div_ceil(state.part_bytes.max(1));
        let makes_sense = state.version == VERSION
            && state.part_bytes > 0
            && parts <= super::PARTS_MAX
            && state.parts.last_key_value().is_none_or(|(last, _)| *last < parts);
        if makes_sense { Ok(Some(state)) } else { Err(failed("what an upload has done makes no sense")) }
    }

    /// Writes it beside the segment: whole, durable, in place of what stood there.
    pub(super) fn write(&self, segment: &Path) -> Result<()> {
        let path = Self::path(segment);
        let failed = |source| {
            Error::output_failed("what an upload has done could not be written", source)
                .at(path.display().to_string())
        };
        let text = serde_json::to_string(self).map_err(|source| failed(source.into()))?;
        let mut file = NewFile::create(&path, MODE, true)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.publish()
    }

    /// Takes it away, if it is there.
    pub(super) fn remove(segment: &Path) -> Result<()> {
        let path = Self::path(segment);
        let removed = match fs::remove_file(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| sync_directory(&path)),
        };
        removed.map_err(|source| {
            Error::output_failed("what an upload has done could not be taken away", source)
                .at(path.display().to_string())
        })
    }
}
