//! Whether a segment is whole: what lane 0 says, and what a walk over the blocks found.

use std::fmt;

use domicile::{Code, Error, Result};

use super::lane::{BrokenEnd, ReadableLane};
use super::map::{Damage, SegmentFile, WalkedMap};
use super::source::Source;
use crate::format::{BlockKind, Commit, DirectoryEntry, Section};

/// The state of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Its end is there, and vouches for everything before it.
    Complete,
    /// It was closed after a crash.
    Recovered,
    /// Its keys were erased on purpose: it is closed for good, in every copy.
    Retired,
    /// It has no end: it is still written, or its writer died between two blocks.
    Unfinished,
    /// It has no end, and its last octets are no whole block.
    Torn {
        /// Where they begin.
        at: u64,
        /// How many there are.
        bytes: u64,
    },
    /// Lanes were read by themselves, so that nobody asked.
    Unasked,
    /// Anything else.
    Corrupt {
        /// What is wrong, and where.
        what: String,
    },
}

impl State {
    pub(crate) fn corrupt(error: &Error) -> Self {
        State::Corrupt { what: error.to_string() }
    }

    /// Whether everything that was sealed is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, State::Complete | State::Recovered)
    }

    /// Whether something is there that should not be.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, State::Corrupt { .. })
    }

    /// What the state means to whoever opens the segment; none where it is whole.
    #[must_use]
    pub fn obstacle(&self) -> Option<Error> {
        let (code, advice) = match self {
            State::Complete | State::Recovered | State::Unasked => return None,
            State::Retired => (Code::KeyDestroyed, "what replaced it is under another name, if anything did"),
            State::Unfinished => (
                Code::SegmentUnfinished,
                "it is still written, its writer died, or it was cut: more may have been sealed than is here",
            ),
            State::Torn { .. } => (
                Code::SegmentTorn,
                "its writer died while it wrote, or it was cut: more may have been sealed than is here",
            ),
            State::Corrupt { .. } => {
                (Code::SegmentCorrupt, "compare it with another copy; `domicile verify` says what is wrong")
            }
        };
        Some(Error::new(code, format!("the segment is {self}")).advise(advice))
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Recovered => "recovered",
            State::Retired => "retired",
            State::Unfinished => "unfinished",
            State::Unasked => "not asked for",
            State::Torn { .. } => "torn",
            State::Corrupt { .. } => "corrupt",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Torn { at, bytes } => {
                write!(f, "torn: the last {bytes} bytes, from byte {at}, are no whole block")
            }
            State::Corrupt { what } => write!(f, "corrupt: {what}"),
            State::Unfinished => f.write_str("unfinished: it has no end"),
            _ => f.write_str(self.as_str()),
        }
    }
}

/// The state of a segment whose lane 0 is open, and what lane 0 says of the other lanes.
pub(super) fn of<S: Source>(
    file: &SegmentFile<S>,
    region: &ReadableLane,
) -> (State, Option<Vec<DirectoryEntry>>) {
    match ended(region) {
        Ok(Some((state, directory))) => (state, Some(directory)),
        Ok(None) => (file.walked().map_or_else(no_end, |walked| open_ended(file, region, walked)), None),
        Err(error) => (State::corrupt(&error), None),
    }
}

/// A footer without an end before it.
fn no_end() -> State {
    State::Corrupt { what: "the segment has a footer and no end".to_owned() }
}

/// What lane 0's end says, if there is one.
fn ended(region: &ReadableLane) -> Result<Option<(State, Vec<DirectoryEntry>)>> {
    let Some(end) = &region.end else { return Ok(None) };
    let mut directory = Vec::new();
    for section in &end.end.sections {
        if let Section::Directory(entries) = section {
            directory.extend_from_slice(entries);
        }
    }
    let malformed = |what| region.malformed(end.sequence, domicile::wire::Malformed { what, at: 0 });
    let summary = end.end.summary().ok_or_else(|| malformed("summary of the segment"))?;
    let agrees = summary.lanes as usize == directory.len()
        && directory.iter().zip(1..).all(|(entry, lane)| entry.lane.0 == lane)
        && DirectoryEntry::totals(&directory) == Some((summary.records, summary.bytes));
    if !agrees {
        return Err(malformed("directory of the segment"));
    }
    let state = if summary.recovered { State::Recovered } else { State::Complete };
    Ok(Some((state, directory)))
}

/// What a walk says of a segment without an end. A crash may damage whatever no finished sync covers;
/// damage below the last ordinal that lane 0 says was on disk is no crash's work.
fn open_ended<S: Source>(file: &SegmentFile<S>, region: &ReadableLane, walked: &WalkedMap) -> State {
    let broken = match region.broken_end.as_ref().map(|broken| place_of(file, region, broken)).transpose() {
        Ok(broken) => broken,
        Err(error) => return State::corrupt(&error),
    };
    let first = [walked.damage, walked.tail, broken].into_iter().flatten().min_by_key(|damage| damage.at);
    let Some(damage) = first else { return State::Unfinished };
    match last_commit(file, region) {
        Ok(commit) if commit.as_ref().is_some_and(|commit| damage.ordinal < commit.durable) => {
            State::Corrupt {
                what: format!("block {} was on disk, and is no more at byte {}", damage.ordinal, damage.at),
            }
        }
        Ok(_) => State::Torn { at: damage.at, bytes: file.length.saturating_sub(damage.at) },
        Err(error) => State::corrupt(&error),
    }
}

/// Where an end of lane 0 that does not verify stands.
fn place_of<S: Source>(file: &SegmentFile<S>, region: &ReadableLane, broken: &BrokenEnd) -> Result<Damage> {
    let mut body = Vec::new();
    let (header, _) = file.read_block(&region.place, broken.sequence, &mut body)?;
    let at = region.place.blocks.get(broken.sequence).unwrap_or(file.length);
    Ok(Damage { at, bytes: header.block_bytes(), ordinal: header.ordinal })
}

/// The newest commit block of lane 0 that verifies.
pub(crate) fn last_commit<S: Source>(file: &SegmentFile<S>, region: &ReadableLane) -> Result<Option<Commit>> {
    let mut body = Vec::new();
    for sequence in region.place.blocks.iter().rev() {
        let (header, encoded) = file.read_block(&region.place, sequence, &mut body)?;
        if header.kind == BlockKind::Commit && region.open_block(&header, &encoded, &mut body).is_ok() {
            return Commit::decode(&body).map(Some).map_err(|source| region.malformed(sequence, source));
        }
    }
    Ok(None)
}
