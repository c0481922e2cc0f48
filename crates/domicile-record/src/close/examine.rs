//! How far a segment goes that a crash cut short.

use std::collections::BTreeMap;

use domicile::{Code, Error, Result};

use super::Cut;
use crate::format::{BlockHeader, BlockKind, Commit, LaneNo, LaneOpen};
use crate::reader::{Segment, SegmentFile, SegmentLane, Source, Step, Walker, last_commit, unreadable};
use crate::running_hash::RunningHash;

/// How far a segment goes, and what is known of that much.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    /// Where it ends in the file.
    pub(crate) at: u64,
    /// How many blocks there are up to there, lane 0's among them.
    pub(crate) blocks: u64,
    /// What the caller kept beside the newest commit that has any.
    pub(crate) caller: Vec<u8>,
    /// Blocks behind the newest sync whose keys are not to be had now, so that nobody can say whether they verify.
    pub(crate) unverified: u64,
}

/// Which blocks are opened, to see whether they verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looking {
    /// Those that no finished sync covers: of the others, lane 0's running hash tells.
    WhatIsUnsynced,
    /// All of them, as of what somebody else sealed.
    Everything,
}

impl Extent {
    /// What of a file so long is behind it.
    pub(crate) fn cut(&self, length: u64) -> Option<Cut> {
        let bytes = length.saturating_sub(self.at);
        (bytes > 0).then_some(Cut { at: self.at, bytes })
    }

    /// The octets that are cut, in pieces.
    pub(crate) fn for_each_cut<S: Source>(
        &self,
        file: &SegmentFile<S>,
        keep: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (mut at, mut window) = (self.at, Vec::new());
        while at < file.length {
            let bytes = (file.length - at).min(1 << 18);
            window.resize(usize::try_from(bytes).unwrap_or(0), 0);
            file.source.read_at(at, &mut window).map_err(|source| unreadable(at, source))?;
            keep(&window)?;
            at += bytes;
        }
        Ok(())
    }

    /// How far a segment goes whose lane 0 is open.
    pub(crate) fn of<S: Source>(segment: &Segment<S>, looking: Looking) -> Result<Self> {
        let region = segment.region.as_ref().ok_or_else(super::no_region_lane)?;
        let newest = last_commit(&segment.file, region)?;
        let survey = Survey {
            segment,
            looking,
            durable: newest.map_or(0, |commit| commit.durable),
            lanes: segment.lanes.iter().map(|lane| (lane.lane, lane)).collect(),
            next: BTreeMap::new(),
            hash: RunningHash::new(&segment.file.header),
            extent: Extent::default(),
        };
        survey.walk()
    }
}

struct Survey<'a, S> {
    segment: &'a Segment<S>,
    looking: Looking,
    /// Blocks with an ordinal below this were on disk when lane 0 last said so.
    durable: u64,
    lanes: BTreeMap<LaneNo, &'a SegmentLane>,
    /// The next place in each lane.
    next: BTreeMap<LaneNo, u32>,
    hash: RunningHash,
    extent: Extent,
}

/// Whether the segment goes on behind a block.
enum Passed {
    /// It does.
    On,
    /// It was lane 0's end.
    End,
    /// The block is none of the segment: it goes up to there.
    Cut,
}

impl<S: Source> Survey<'_, S> {
    fn walk(mut self) -> Result<Extent> {
        let file = &self.segment.file;
        let is_whole = self.segment.state.is_whole();
        let mut walker = Walker::new(&file.source, &file.header, file.length);
        let mut body = Vec::new();
        self.extent.at = crate::format::SegmentHeader::BYTES as u64;
        let mut ended = false;
        while let Some(Step::Block { at, header, encoded }) =
            walker.next().map_err(|source| unreadable(0, source))?
        {
            file.read_body(at, &header, &mut body)?;
            match self.block(&header, &encoded, &mut body) {
                Passed::Cut => break,
                passed => {
                    self.extent.at = at + header.block_bytes();
                    self.extent.blocks += 1;
                    ended = matches!(passed, Passed::End);
                }
            }
            if ended {
                break;
            }
        }
        if self.extent.blocks < self.durable || is_whole != ended {
            let what = "a block was on disk, and is no more what it was";
            return Err(Error::new(Code::SegmentCorrupt, what)
                .at(format!("block {}, byte {}", self.extent.blocks, self.extent.at))
                .rule("a crash damages what no finished sync covers, and nothing else")
                .advise("compare it with another copy; `domicile verify` says what is wrong"));
        }
        Ok(self.extent)
    }

    fn block(
        &mut self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Passed {
        let next = self.next.get(&header.lane).copied().unwrap_or(0);
        let opens = header.kind == BlockKind::LaneOpen;
        // Lanes are numbered in the order of their openings.
        let number = opens.then_some(header.lane.0 as usize);
        let in_order = header.ordinal == self.extent.blocks
            && header.sequence == next
            && opens == (next == 0)
            && number.is_none_or(|number| number == self.next.len());
        if !in_order || header.kind == BlockKind::Footer {
            return Passed::Cut;
        }
        self.next.insert(header.lane, next.saturating_add(1));
        if opens {
            return self.opening(header, encoded, body);
        }
        let Some(tag) = header.tag_in(body) else { return Passed::Cut };
        let passed = if header.lane == LaneNo::REGION {
            self.of_region(header, encoded, body)
        } else {
            self.of_lane(header, encoded, body)
        };
        self.hash.add_sealed(encoded, &tag);
        passed
    }

    /// An opening is under no tag but its wrap's. Where that one's key is not to be had, it is taken as it reads.
    fn opening(&mut self, header: &BlockHeader, encoded: &[u8; BlockHeader::BYTES], body: &[u8]) -> Passed {
        let (payload, padding) = body.split_at_checked(header.payload_bytes()).unwrap_or((body, &[]));
        let open = LaneOpen::decode(payload, header.lane).ok().filter(|_| padding.iter().all(|o| *o == 0));
        let Some((open, descriptor)) = open.and_then(|open| open.descriptor.encode().ok().map(|d| (open, d)))
        else {
            return Passed::Cut;
        };
        let is_known = header.lane == LaneNo::REGION || self.lanes.contains_key(&header.lane);
        if self.looking == Looking::Everything && !is_known {
            return Passed::Cut;
        }
        let obstacle = self.lanes.get(&header.lane).and_then(|lane| lane.obstacle());
        let is_damaged = obstacle.is_some_and(Error::is_corruption);
        if header.ordinal >= self.durable && is_damaged && !self.segment.state.is_whole() {
            return Passed::Cut;
        }
        self.hash.add_lane_open(encoded, &descriptor, &open.commitment);
        Passed::On
    }

    /// Lane 0's blocks are always opened: what they say of those before them must be so.
    fn of_region(
        &mut self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Passed {
        let Some(region) = &self.segment.region else { return Passed::Cut };
        if region.open_block(header, encoded, body).is_err() {
            return Passed::Cut;
        }
        match header.kind {
            BlockKind::Commit => match Commit::decode(body) {
                Ok(commit) if commit.running_hash == self.hash.value() => {
                    if !commit.caller.is_empty() {
                        self.extent.caller = commit.caller;
                    }
                    Passed::On
                }
                _ => Passed::Cut,
            },
            // Without the end that belongs to them, they say nothing.
            BlockKind::Section | BlockKind::LaneEnd if region.end.is_none() => Passed::Cut,
            BlockKind::LaneEnd => Passed::End,
            _ => Passed::On,
        }
    }

    /// What was on disk is vouched for by the running hash; what came behind that may be anything.
    fn of_lane(
        &mut self,
        header: &BlockHeader,
        encoded: &[u8; BlockHeader::BYTES],
        body: &mut Vec<u8>,
    ) -> Passed {
        let is_vouched_for = header.ordinal < self.durable || self.segment.state.is_whole();
        if is_vouched_for && self.looking == Looking::WhatIsUnsynced {
            return Passed::On;
        }
        match self.lanes.get(&header.lane).and_then(|lane| lane.readable()) {
            Some(lane) if lane.open_block(header, encoded, body).is_err() => Passed::Cut,
            Some(_) => Passed::On,
            // Whoever looks at everything has all keys: this lane was opened by nobody.
            None if self.looking == Looking::Everything => Passed::Cut,
            None => {
                self.extent.unverified += 1;
                Passed::On
            }
        }
    }
}
