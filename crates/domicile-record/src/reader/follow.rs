//! Following a segment while it is written: records as they become durable.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::sync::Arc;

use domicile::wire::Malformed;
use domicile::{Action, Code, Domicile, Error, Request, Result, Scope};

use super::lane::{LaneCursor, ReadableLane};
use super::map::{BlockPlaces, LanePlace, SegmentFile};
use super::source::Source;
use super::state::State;
use super::{Opening, SegmentLane, SegmentLeaves, Selection};
use crate::format::{
    BlockHeader, BlockKind, Commit, DataBlock, LaneEnd, LaneKey, LaneNo, LaneOpen, SegmentHeader,
};

/// A segment that is followed while its writer goes on.
///
/// It gives the data blocks of the selected lanes in the order in which they were written, each once, and none of which the
/// segment's own lane does not say that it was on disk: a block is given when a commit block says so that a later commit wrote,
/// or once the segment has its end. So the blocks of the last commit come with the next one. A crash takes back nothing that
/// was given.
pub struct Follower<S> {
    domicile: Domicile,
    action: Action,
    selection: Selection,
    file: SegmentFile<S>,
    region: ReadableLane,
    leaves: SegmentLeaves,
    /// Lanes that began, and were selected.
    lanes: BTreeMap<LaneNo, FollowedLane>,
    /// How far commits were looked for.
    looked: Way,
    /// How far blocks were given.
    given: Way,
    /// Blocks with a lower ordinal are passed by: somebody has them.
    passed: u64,
    /// Blocks with a lower ordinal were on disk.
    durable: u64,
    ended: Option<State>,
    body: Vec<u8>,
}

/// A place in the file, and the ordinal of the block that begins there.
#[derive(Debug, Clone, Copy)]
struct Way {
    at: u64,
    ordinal: u64,
}

#[derive(Debug)]
struct FollowedLane {
    lane: SegmentLane,
    cursor: LaneCursor,
    next: u32,
}

/// What became of a followed segment.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// Records of a lane.
    Block(LaneNo, DataBlock),
    /// Nothing more is known to be on disk. Whoever waits asks again.
    Nothing,
    /// The segment is whole, and all of it was given: [`State::Complete`], or [`State::Recovered`].
    Ended(State),
}

impl<S: Source> Follower<S> {
    /// Begins to follow a segment, from its first record on: the guard is asked, and the opening recorded, as where a segment
    /// is opened; the keys of a lane are had when the lane begins to be given.
    ///
    /// # Errors
    /// As [`Segment::open_source`](super::Segment::open_source); [`SegmentUnfinished`](Code::SegmentUnfinished) when the file has
    /// no more than its header yet.
    pub async fn new(
        domicile: &Domicile,
        source: S,
        request: impl Into<Request>,
        selection: impl Into<Selection>,
    ) -> Result<Self> {
        let (action, selection) = (Action::Open(request.into()), selection.into());
        let file = SegmentFile::growing(source)?;
        let opening = Opening { domicile, action: action.clone(), selection: selection.clone() };
        if let Err(error) = opening.check_place(&file.header) {
            return Err(domicile.refuse(error, &Scope::of_region(), &action).await);
        }
        let begin = SegmentHeader::BYTES as u64;
        let opens = file.block_header_at(begin)?.filter(|(header, _)| header.kind == BlockKind::LaneOpen);
        if opens.is_none_or(|(header, _)| header.lane != LaneNo::REGION) {
            return Err(Error::new(Code::SegmentUnfinished, "the segment has only begun").advise("try again"));
        }
        let permit = domicile.permit_region(&file.header.place.region, action.clone()).await?;
        opening.record_opening(&file.header, &BTreeMap::new()).await?;
        let mut leaves = SegmentLeaves::new();
        let place = file.lane_at(begin, LaneNo::REGION)?;
        let scope = Scope::of_region();
        let mut opened = opening.unlock(&file, &mut leaves, permit, &scope, vec![place]).await;
        let region = opened
            .pop()
            .map(|lane| lane.status)
            .unwrap_or_else(|| Err(corrupt("the segment has no lane 0")))?;
        let begin = Way { at: begin, ordinal: 0 };
        Ok(Self {
            domicile: domicile.clone(),
            action,
            selection,
            file,
            region,
            leaves,
            lanes: BTreeMap::new(),
            looked: begin,
            given: begin,
            passed: 0,
            durable: 0,
            ended: None,
            body: Vec::new(),
        })
    }

    /// Goes on where another follower of the same segment [was](Self::position): behind a recovery, say, which gives the segment
    /// another file, and each of its blocks the same ordinal. What lies before is verified, and not given.
    #[must_use]
    pub fn passing(self, position: u64) -> Self {
        Self { passed: position, ..self }
    }

    /// How far it is: the ordinal of the next block.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.given.ordinal.max(self.passed)
    }

    /// The segment's header.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.file.header
    }

    /// The selected lanes that were reached so far; one that cannot be read says why.
    pub fn lanes(&self) -> impl Iterator<Item = &SegmentLane> {
        self.lanes.values().map(|followed| &followed.lane)
    }

    /// What comes next. It does not wait: where nothing is known to be on disk that was not given, it says so.
    ///
    /// # Errors
    /// What keeps a lane from being read that was asked for by name; what does not verify although it was on disk: the segment is
    /// followed no further then.
    pub async fn next(&mut self) -> Result<News> {
        loop {
            if self.given.ordinal >= self.durable {
                self.look()?;
            }
            if self.given.ordinal >= self.durable {
                return Ok(self.ended.clone().map_or(News::Nothing, News::Ended));
            }
            if let Some((lane, block)) = self.give().await?
                && self.given.ordinal > self.passed
            {
                return Ok(News::Block(lane, block));
            }
        }
    }

    /// Octets of the file that nothing vouches for yet.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.file.length.saturating_sub(self.given.at)
    }

    /// Looks for commits in what was written since. What is no whole block is being written.
    fn look(&mut self) -> Result<()> {
        self.file.look_again()?;
        while self.ended.is_none() {
            let Some((header, encoded)) = self.file.block_header_at(self.looked.at)? else { return Ok(()) };
            if header.ordinal != self.looked.ordinal {
                return Err(out_of_order(&header));
            }
            if matches!((header.lane, header.kind), (LaneNo::REGION, BlockKind::Commit | BlockKind::LaneEnd))
            {
                self.file.read_body(self.looked.at, &header, &mut self.body)?;
                match self.region.open_block(&header, &encoded, &mut self.body) {
                    Ok(_) => self.hear(&header)?,
                    Err(error) if error.code() == Code::BlockUnverified => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            self.looked = self.looked.behind(&header);
        }
        Ok(())
    }

    /// Takes note of what lane 0 says.
    fn hear(&mut self, header: &BlockHeader) -> Result<()> {
        let malformed = |source| self.region.malformed(header.sequence, source);
        if header.kind == BlockKind::Commit {
            let commit = Commit::decode(&self.body).map_err(malformed)?;
            self.durable = self.durable.max(commit.durable.min(header.ordinal));
            return Ok(());
        }
        let end = LaneEnd::decode(&self.body).map_err(malformed)?;
        let summary = end.summary().ok_or_else(|| malformed(bad("summary of the segment")))?;
        self.ended = Some(if summary.recovered { State::Recovered } else { State::Complete });
        // It was written when everything before it was on disk.
        self.durable = header.ordinal;
        Ok(())
    }

    /// The next block that was on disk, if it holds records of a lane that is followed.
    async fn give(&mut self) -> Result<Option<(LaneNo, DataBlock)>> {
        let at = self.given.at;
        let found = self.file.block_header_at(at)?;
        let (header, encoded) = found.ok_or_else(|| corrupt("a block was on disk, and is no more"))?;
        if header.ordinal != self.given.ordinal {
            return Err(out_of_order(&header));
        }
        if header.kind == BlockKind::LaneOpen && header.lane != LaneNo::REGION {
            self.begin_lane(at, header.lane).await?;
        }
        let mut block = None;
        if let Some(FollowedLane { lane, cursor, next }) = self.lanes.get_mut(&header.lane)
            && let Some(readable) = lane.readable()
        {
            if header.sequence != *next {
                return Err(out_of_order(&header));
            }
            *next = next.saturating_add(1);
            if header.flags.is_sealed() {
                self.file.read_body(at, &header, &mut self.body)?;
                readable.open_block(&header, &encoded, &mut self.body)?;
                block = cursor.follow(readable, &header, &mut self.body)?;
            }
        }
        self.given = self.given.behind(&header);
        Ok(block.map(|block| (header.lane, block)))
    }

    /// A lane begins: asks the guard and for its key, if it was selected.
    async fn begin_lane(&mut self, at: u64, number: LaneNo) -> Result<()> {
        let place = self.file.lane_at(at, number)?;
        let scope = place.key.scope.clone();
        if !self.selection.wants_scope(&scope) {
            return Ok(());
        }
        let (domicile, action, selection) = (&self.domicile, self.action.clone(), self.selection.clone());
        let opening = Opening { domicile, action, selection };
        let names_lanes = self.selection.names_lanes();
        let permit = match opening.permit(&self.file.header, &scope).await {
            Err(error) if names_lanes || !error.is_refusal() => {
                return Err(domicile.refuse(error, &scope, &self.action).await);
            }
            permit => permit,
        };
        let mut scopes = BTreeMap::from([(scope.clone(), (permit, vec![place.clone()]))]);
        opening.record_opening(&self.file.header, &scopes).await?;
        let lane = match scopes.pop_first() {
            Some((_, (Ok(permit), places))) => {
                let mut opened = opening.unlock(&self.file, &mut self.leaves, permit, &scope, places).await;
                opened.pop().ok_or_else(|| corrupt("a lane's opening is gone"))?
            }
            Some((_, (Err(error), _))) => SegmentLane::new(&place, &scope, Err(error)),
            None => return Ok(()),
        };
        let followed = FollowedLane { lane, cursor: LaneCursor::following(), next: 0 };
        if self.lanes.insert(number, followed).is_some() {
            return Err(corrupt("a lane begins twice"));
        }
        Ok(())
    }
}

impl Follower<File> {
    /// Whether nobody writes the file any longer: a recorder holds a lock on it as long as it does. Asked before the last
    /// [`next`](Self::next), it tells a segment that waits from one whose writer died. It takes the lock for a moment, in which
    /// a recovery takes the file for one that is written: ask when nothing came for a while, and not at each turn.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_abandoned(&self) -> Result<bool> {
        let file = &self.file.source;
        match file.try_lock_shared() {
            Ok(()) => {
                let unlocked = file.unlock();
                unlocked.map_err(|source| super::unreadable(0, source))?;
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(source)) => Err(super::unreadable(0, source)),
        }
    }
}

impl Way {
    fn behind(self, header: &BlockHeader) -> Self {
        Self { at: self.at.saturating_add(header.block_bytes()), ordinal: self.ordinal.saturating_add(1) }
    }
}

impl<S: Source> SegmentFile<S> {
    /// The header of the block at an offset, if the file has all of it.
    fn block_header_at(&self, at: u64) -> Result<Option<(BlockHeader, [u8; BlockHeader::BYTES])>> {
        let behind = at.checked_add(BlockHeader::BYTES as u64);
        if behind.is_none_or(|behind| behind > self.length) {
            return Ok(None);
        }
        let mut encoded = [0; BlockHeader::BYTES];
        self.source.read_at(at, &mut encoded).map_err(|source| super::unreadable(at, source))?;
        let header = BlockHeader::decode(&encoded, &self.header.id).ok();
        let whole = header.filter(|header| at.saturating_add(header.block_bytes()) <= self.length);
        Ok(whole.map(|header| (header, encoded)))
    }

    /// The lane that opens at an offset.
    fn lane_at(&self, at: u64, number: LaneNo) -> Result<LanePlace> {
        let mut body = Vec::new();
        let (header, _) = self.read_block_at(at, &mut body)?;
        body.truncate(header.payload_bytes());
        let open = LaneOpen::decode(&body, number).map_err(|source| {
            corrupt("a lane's opening is damaged").at(format!("lane {number}")).because(source)
        })?;
        let key = LaneKey::new(open.descriptor.scope, open.descriptor.period, number);
        let blocks: BlockPlaces = std::iter::once(at).collect();
        Ok(LanePlace { key, blocks: Arc::new(blocks), ends: Vec::new() })
    }
}

fn corrupt(what: &'static str) -> Error {
    Error::new(Code::SegmentCorrupt, what)
}

fn bad(what: &'static str) -> Malformed {
    Malformed { what, at: 0 }
}

fn out_of_order(header: &BlockHeader) -> Error {
    corrupt("blocks do not follow one another").at(format!("lane {}, block {}", header.lane, header.sequence))
}

impl<S> fmt::Debug for Follower<S> {
    /// Shows how far it is, and nothing of the records.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("segment", &self.file.header.id)
            .field("given", &self.given)
            .field("durable", &self.durable)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
