//! Writing a segment: one process, one go, never opened again.

mod index;
mod lane;
mod open_block;
mod output;
mod sealing;

use std::path::PathBuf;
use std::sync::Arc;

use domicile::audit::{Event, EventKind};
use domicile::engine::{Engine, Engines, Nonces, Suite};
use domicile::keyring::{DataKey, Lease, SealingLeaf, SegmentLeaf};
use domicile::post::{Post, PostSegment};
use domicile::random::Randomness;
use domicile::{
    Action, Code, Domicile, Error, Period, Permit, Place, RecordType, Region, Result, Scope, Time,
};

pub use lane::Stamp;
pub use output::Sink;
pub use sealing::SealingPool;

use crate::compression::Packer;
use crate::format::{
    BlockKind, Commit, Compression, Contents, Descriptor, DirectoryEntry, Footer, LaneKey, LaneNo, Limits,
    Origin, PAYLOAD_BYTES_MAX, SegmentHeader, SegmentId, path_of,
};
use crate::lane_key;
use crate::region_end::RegionEnd;
use crate::seal::LaneSealer;
use index::IndexBuilder;
use lane::{FullBlock, Lane, LongRecord, Totals};
use open_block::{OpenBlock, SpareBlocks};
use output::Output;
use sealing::UnderWay;

/// How a segment is written.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The suite of every lane.
    pub suite: Suite,
    /// Octets of records that fill a block; at most [`BLOCK_BYTES_MAX`](Self::BLOCK_BYTES_MAX).
    pub block_bytes: usize,
    /// Octets of memory that all unsealed blocks together may take; past it the fuller ones are sealed. 64 MiB. Of what was sealed, half
    /// as much is kept for the next ones.
    pub open_bytes_max: usize,
    /// Whether lanes that an intake or a recorder opens are compressed. They are not, unless somebody says so: what compression
    /// leaks stands in the specification.
    pub compression: Compression,
    /// Where writing stops; never beyond the format's own limits.
    pub limits: Limits,
    /// Threads that seal full blocks beside the one that appends. None: that one seals.
    pub pool: Option<SealingPool>,
}

impl WriterOptions {
    /// The most that a block may be made to hold: 16 MiB, less what addresses its records.
    pub const BLOCK_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            suite: Suite::default(),
            block_bytes: 64 << 10,
            open_bytes_max: 64 << 20,
            compression: Compression::None,
            limits: Limits::FORMAT,
            pool: None,
        }
    }
}

/// Writes one segment: blocks of many lanes, lane 0's vouching for them, and a footer.
///
/// What is appended is safe once [`commit`](Self::commit) returned; the segment is whole once
/// [`finish`](Self::finish) did. After any error the writer takes nothing more, and the file is what a
/// crash would have left. A dropped writer is a crash.
pub struct SegmentWriter<S: Sink> {
    hand: Hand,
    header: SegmentHeader,
    options: WriterOptions,
    engine: Engine,
    output: Output<S>,
    lanes: Vec<Lane>,
    /// Octets of memory of open blocks; full ones are not counted.
    open_bytes: usize,
    /// Lanes that have something in their open block; some of them have nothing any longer.
    filling: Vec<u32>,
    /// Blocks that are sealed in the next pass, and octets of their records.
    full: Vec<FullBlock>,
    full_bytes: usize,
    /// Blocks that the pool seals.
    under_way: UnderWay,
    spare: SpareBlocks,
    packer: Packer,
    /// When what is sealed from now on was sealed first, where that was before.
    sealed_at: Option<i64>,
    failed: bool,
}

/// Who seals, and with what.
enum Hand {
    /// A host with the region's keys: each lane has a random key, wrapped under a leaf of its scope's.
    Home { domicile: Domicile, segment_leaf: SegmentLeaf },
    /// A post: the keys of lanes follow from the segment's secret, which goes with the writer.
    Post { post: Post, keys: PostSegment },
}

impl Hand {
    fn randomness(&self) -> &Arc<dyn Randomness> {
        match self {
            Hand::Home { domicile, .. } => domicile.randomness(),
            Hand::Post { post, .. } => post.randomness(),
        }
    }

    fn now(&self) -> Time {
        match self {
            Hand::Home { domicile, .. } => domicile.now(),
            Hand::Post { post, .. } => post.now(),
        }
    }
}

/// What a finished segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its name.
    pub id: SegmentId,
    /// Its region.
    pub place: Place,
    /// When it was begun.
    pub created: Time,
    /// Who sealed it: what a post did must be adopted.
    pub origin: Origin,
    /// Lanes beside lane 0.
    pub lanes: u32,
    /// Blocks, the footer left out.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Octets of records.
    pub bytes: u64,
    /// Octets of the file.
    pub file_bytes: u64,
    /// The running hash over all blocks but the footer.
    pub digest: [u8; 32],
}

impl SegmentSummary {
    /// Where it stands below a directory of segments.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.place.region, self.created, self.id)
    }

    /// An event about this segment.
    pub(crate) fn event(&self, kind: EventKind) -> Event {
        Event::new(kind)
            .region(&self.place.region)
            .segment(&self.id.0)
            .counts(u64::from(self.lanes), self.records, self.bytes)
            .digest(&self.digest)
    }
}

impl<S: Sink> SegmentWriter<S> {
    /// Begins a segment of a region on an empty sink.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) when the region's records may not be processed here; whatever
    /// keeps its keys from being had; [`OutputFailed`](Code::OutputFailed).
    pub async fn create(
        domicile: &Domicile,
        region: &Region,
        sink: S,
        options: WriterOptions,
    ) -> Result<Self> {
        Self::create_named(domicile, region, |_| Ok(sink), options).await
    }

    /// As [`create`](Self::create), on a sink that is opened once the segment has its name.
    pub(crate) async fn create_named(
        domicile: &Domicile,
        region: &Region,
        sink: impl FnOnce(&SegmentHeader) -> Result<S>,
        options: WriterOptions,
    ) -> Result<Self> {
        Self::create_replacing(domicile, region, sink, options, Vec::new()).await
    }

    /// The same, of a segment that takes the place of others once it is whole.
    pub(crate) async fn create_replacing(
        domicile: &Domicile,
        region: &Region,
        sink: impl FnOnce(&SegmentHeader) -> Result<S>,
        options: WriterOptions,
        replaces: Vec<SegmentId>,
    ) -> Result<Self> {
        let created = domicile.now();
        let period = domicile.period(&RecordType::SEGMENT, created)?;
        let permit = domicile.permit_region(region, Action::Seal).await?;
        let segment_leaf = domicile.keyring().segment_leaf(permit, period).await?;
        let mut id = SegmentId([0; 32]);
        domicile.randomness().fill(&mut id.0)?;
        let place = domicile.region(region)?.place.clone();
        let header =
            SegmentHeader { suite: options.suite, id, place, created, origin: Origin::Writer, edition: 0 };
        let engine = domicile.engines(options.suite).bulk;
        let hand = Hand::Home { domicile: domicile.clone(), segment_leaf };
        let sink = sink(&header)?;
        Self::begin(hand, header, engine, period, sink, options, replaces).await
    }

    /// Begins a segment of a post's home, on a host that has none of the home's keys. The home must
    /// [adopt](crate::Adopting) it before anybody can open it.
    ///
    /// # Errors
    /// [`PostExpired`](Code::PostExpired) when the bundle's time is over; [`OutputFailed`](Code::OutputFailed).
    pub async fn create_at_post(post: &Post, sink: S, options: WriterOptions) -> Result<Self> {
        Self::create_named_at_post(post, |_| Ok(sink), options).await
    }

    /// The same, on a sink that is opened once the segment has its name.
    pub(crate) async fn create_named_at_post(
        post: &Post,
        sink: impl FnOnce(&SegmentHeader) -> Result<S>,
        options: WriterOptions,
    ) -> Result<Self> {
        let created = post.now();
        let period = post.period(&RecordType::SEGMENT, created)?;
        let mut id = SegmentId([0; 32]);
        post.randomness().fill(&mut id.0)?;
        let place = post.place().clone();
        let header =
            SegmentHeader { suite: options.suite, id, place, created, origin: Origin::Post, edition: 0 };
        let engine = Engines::measured(options.suite).bulk;
        let hand = Hand::Post { keys: post.begin(&header.fixed())?, post: post.clone() };
        let sink = sink(&header)?;
        Self::begin(hand, header, engine, period, sink, options, Vec::new()).await
    }

    async fn begin(
        hand: Hand,
        header: SegmentHeader,
        engine: Engine,
        period: Period,
        sink: S,
        options: WriterOptions,
        replaces: Vec<SegmentId>,
    ) -> Result<Self> {
        let options = WriterOptions {
            block_bytes: options.block_bytes.clamp(1, WriterOptions::BLOCK_BYTES_MAX),
            limits: Limits {
                lane_blocks: options.limits.lane_blocks.min(Limits::FORMAT.lane_blocks),
                lane_bytes: options.limits.lane_bytes.min(Limits::FORMAT.lane_bytes),
                lanes: options.limits.lanes.min(Limits::FORMAT.lanes),
                blocks: options.limits.blocks.min(Limits::FORMAT.blocks),
            },
            ..options
        };
        let spare = SpareBlocks::new(options.open_bytes_max / 2);
        let mut writer = Self {
            engine,
            hand,
            output: Output::begin(sink, &header)?,
            header,
            options,
            lanes: Vec::new(),
            open_bytes: 0,
            filling: Vec::new(),
            full: Vec::with_capacity(PASS_BLOCKS),
            full_bytes: 0,
            under_way: UnderWay::default(),
            spare,
            packer: Packer::default(),
            sealed_at: None,
            failed: false,
        };
        let of_region = Descriptor::new(Scope::of_region(), period, writer.options.suite);
        let descriptor = Descriptor { replaces, ..of_region };
        writer.add_lane(descriptor, &[]).await?;
        Ok(writer)
    }

    /// The header of the segment.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Octets written so far.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.output.at()
    }

    /// Opens a lane. Its `preamble`, which may be empty, is sealed at once.
    ///
    /// # Errors
    /// [`HomeMismatch`](Code::HomeMismatch) when the scope is at home in another region;
    /// [`SegmentLimit`](Code::SegmentLimit) when the segment has all its lanes or the descriptor is too
    /// long (neither spends the writer); whatever keeps the scope's keys from being had.
    pub async fn open_lane(&mut self, descriptor: Descriptor, preamble: &[u8]) -> Result<LaneNo> {
        if descriptor.scope.is_region() {
            return Err(Error::new(Code::NameReserved, "lane 0 alone is the region's own"));
        }
        self.add_lane(descriptor, preamble).await
    }

    /// Who gets keys for lanes of this segment, and of others of the same region and hand.
    pub(crate) fn lane_keys(&self) -> LaneKeys {
        match &self.hand {
            Hand::Home { domicile, .. } => {
                LaneKeys::Home { domicile: domicile.clone(), place: self.header.place.clone() }
            }
            Hand::Post { post, .. } => LaneKeys::Post(post.clone()),
        }
    }

    /// Appends a record to a lane. It is copied once, into the block that will be sealed.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) when the lane has no room left, which spends nothing: open
    /// another lane. [`KeyLapsed`](Code::KeyLapsed) when the lane's key may not be used any longer, which spends nothing
    /// either: open another lane, whose key is asked for anew. It is looked at whenever a block begins or grows.
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for a stamp that does not fit the lane's
    /// contents, or a record longer than [`BLOCK_BYTES_MAX`](WriterOptions::BLOCK_BYTES_MAX).
    /// [`OutputFailed`](Code::OutputFailed) and the like spend the writer.
    #[inline]
    pub fn append(&mut self, lane: LaneNo, record: &[u8], stamp: Stamp) -> Result<()> {
        let slot = self.lane_for(lane, record.len(), stamp)?;
        let cost = slot.cost(record.len());
        slot.open.buffer.append(record);
        slot.open.end_record(stamp, cost);
        let beside = slot.cost(0);
        self.count_open(beside)
    }

    /// Appends a record of `length` octets that `fill` writes into the block itself, which saves the copy.
    /// It is given zeros. If it panics, nothing was appended.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    #[inline]
    pub fn append_with(
        &mut self,
        lane: LaneNo,
        length: usize,
        stamp: Stamp,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let slot = self.lane_for(lane, length, stamp)?;
        let cost = slot.cost(length);
        slot.open.buffer.append_with(length, fill);
        slot.open.end_record(stamp, cost);
        let beside = slot.cost(0);
        self.count_open(beside)
    }

    /// Appends a piece of the one record of a lane that was opened for a long record; `last` ends it.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`ArgumentInvalid`](Code::ArgumentInvalid) when the lane holds other
    /// records, or its record has ended.
    pub fn append_piece(&mut self, lane: LaneNo, mut piece: &[u8], stamp: Stamp, last: bool) -> Result<()> {
        self.check()?;
        self.check_blocks()?;
        let index = self.index_of(lane)?;
        let block_bytes = self.options.block_bytes;
        loop {
            let Some(slot) = self.lanes.get_mut(index) else { return Err(no_such_lane(lane)) };
            if !slot.contents.long_record || slot.long == LongRecord::Ended {
                return Err(Error::new(
                    Code::ArgumentInvalid,
                    "this lane is not for a long record, or has it already",
                ));
            }
            check_stamp(slot.contents, stamp)?;
            slot.check_lease()?;
            slot.long = LongRecord::Begun(stamp);
            self.open_bytes += slot.make_room(block_bytes, &mut self.spare, &mut self.filling);
            let free = block_bytes - slot.open.record_bytes();
            let (now, later) = piece.split_at_checked(free).unwrap_or((piece, &[]));
            slot.open.buffer.append(now);
            piece = later;
            if piece.is_empty() && !last {
                return self.count_open(0);
            }
            // What was copied of the piece cannot be taken back.
            if !slot.has_room(block_bytes) {
                self.fail();
                return Err(Error::new(Code::SegmentLimit, "a record is longer than a lane may be")
                    .rule("a lane has at most 2^24 blocks and 64 GiB"));
            }
            if !self.has_room_for(1, 0) {
                self.fail();
                return Err(no_blocks());
            }
            let Some(slot) = self.lanes.get_mut(index) else { return Err(no_such_lane(lane)) };
            slot.open.end_record(stamp, 0);
            let ends = piece.is_empty();
            if ends {
                slot.long = LongRecord::Ended;
            }
            self.queue_block(index, !ends)?;
            if ends {
                return Ok(());
            }
        }
    }

    /// Keeps what stands behind the records of a lane; it is sealed when the segment is finished.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) when it is longer than a block.
    pub fn set_postamble(&mut self, lane: LaneNo, postamble: &[u8]) -> Result<()> {
        self.check()?;
        if postamble.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "a postamble longer than a block"));
        }
        let index = self.index_of(lane)?;
        let Some(slot) = self.lanes.get_mut(index) else { return Err(no_such_lane(lane)) };
        slot.postamble = postamble.to_vec();
        if slot.has_room(slot.open_payload_bytes()) {
            return Ok(());
        }
        slot.postamble = Vec::new();
        Err(no_room(lane))
    }

    /// Has lanes whose keys may not be used now take nothing more, and says how many they are: call it behind
    /// [`Domicile::keep_up`]. What they took is sealed; [`append`](Self::append) says
    /// [`KeyLapsed`](Code::KeyLapsed) of them until their keys may be used again, if ever.
    pub fn stop_lapsed_lanes(&mut self) -> usize {
        let mut stopped = 0;
        for lane in self.lanes.iter_mut().skip(1) {
            if lane.check_lease().is_err() {
                lane.takes = lane::Kept::NOTHING;
                stopped += 1;
            }
        }
        stopped
    }

    /// What is appended from now on was sealed before, at this time: lanes that keep no event times are selected by it.
    pub(crate) fn was_sealed_at(&mut self, micros: i64) {
        self.sealed_at = Some(micros);
    }

    /// Ends a lane that takes nothing more, right behind its blocks, so that it lies in one piece and takes no memory but for
    /// the places of its blocks.
    pub(crate) fn end_lane(&mut self, lane: LaneNo) -> Result<()> {
        self.check()?;
        let index = self.index_of(lane)?;
        self.guarded(|writer| {
            writer.queue_what_is_open(index)?;
            writer.seal_what_waits()?;
            let nonces = Nonces::draw(&**writer.hand.randomness(), 2)?;
            let Some(slot) = writer.lanes.get_mut(index) else { return Err(no_such_lane(lane)) };
            slot.end(&mut writer.output, nonces)
        })
    }

    /// Seals what is open, and returns once everything appended so far is on disk. `caller`, at most 256
    /// octets, is kept with it and given back by recovery: a queue's offset, say.
    ///
    /// Returns the ordinal below which all blocks are durable.
    ///
    /// # Errors
    /// [`SegmentLimit`](Code::SegmentLimit) where nothing was appended since the last commit and the segment has no block left to
    /// keep `caller` in. Any other error spends the writer: what is not covered by an earlier receipt may be lost.
    pub fn commit(&mut self, caller: &[u8]) -> Result<u64> {
        let ordinal = self.begin_commit(caller)?;
        self.guarded(|writer| writer.output.sync())?;
        Ok(ordinal)
    }

    /// Seals what is open and hands it to the sink, all of it: what is written below the ordinal that is returned is durable
    /// once the sink is synced, which [`committed`](Self::committed) is told then.
    pub(crate) fn begin_commit(&mut self, caller: &[u8]) -> Result<u64> {
        self.check()?;
        // What was appended left room for it: without any, there is nothing new to speak of.
        let has_room = self.has_room_for(0, 0);
        if !has_room && !caller.is_empty() {
            return Err(no_blocks());
        }
        self.guarded(|writer| {
            writer.seal_all()?;
            if has_room {
                writer.write_commit(caller)?;
            }
            writer.output.flush()?;
            Ok(writer.output.ordinal())
        })
    }

    /// Makes the opening of lane 0 durable, before anything else is written: whatever a crash damages later, the segment can
    /// be told from one in which nothing was ever safe.
    pub(crate) fn sync_opening(&mut self) -> Result<()> {
        self.guarded(|writer| writer.output.sync())
    }

    /// What was written below this ordinal is durable.
    pub(crate) fn committed(&mut self, ordinal: u64) {
        self.output.made_durable(ordinal);
    }

    /// Whether it failed, and takes nothing more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Lanes, lane 0 among them.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Octets of memory that it takes: blocks that are filled and those that were given back, every lane whether busy or idle, and
    /// the place and the share in an index of each block that was written.
    pub(crate) fn memory_bytes(&self) -> u64 {
        /// A lane with its key, and what it has on the heap while it is idle.
        const LANE: u64 = (size_of::<Lane>() + 256) as u64;
        /// An offset, and an entry of an index for each few blocks.
        const BLOCK: u64 = 8 + 4;
        let blocks = (self.open_bytes + self.under_way.bytes() + self.spare.bytes()) as u64;
        blocks + LANE * self.lanes.len() as u64 + BLOCK * self.output.ordinal()
    }

    /// The sink.
    pub(crate) fn sink(&self) -> &S {
        self.output.sink()
    }

    /// Ends all lanes, vouches for them in lane 0, writes the footer, makes everything durable and records
    /// the segment's end in the audit chain.
    ///
    /// # Errors
    /// The segment is not whole then and must not be published.
    pub async fn finish(self) -> Result<(S, SegmentSummary)> {
        let domicile = match &self.hand {
            Hand::Home { domicile, .. } => Some(domicile.clone()),
            // A post has no audit chain: what it sealed is on record when it is adopted.
            Hand::Post { .. } => None,
        };
        let (sink, summary) = self.finish_unrecorded()?;
        // The segment is whole and vouches for itself: a chain that is out of reach does not undo it.
        if let Some(domicile) = domicile {
            domicile.audit().record_when_possible(&[summary.event(EventKind::Seal)]).await?;
        }
        Ok((sink, summary))
    }

    /// As [`finish`](Self::finish), without the word of it in the audit chain.
    pub(crate) fn finish_unrecorded(mut self) -> Result<(S, SegmentSummary)> {
        self.check()?;
        let summary = self.end()?;
        Ok((self.output.into_sink(), summary))
    }

    async fn add_lane(&mut self, descriptor: Descriptor, preamble: &[u8]) -> Result<LaneNo> {
        self.check_lanes()?;
        let prepared = self.lane_keys().prepare(descriptor).await?;
        self.begin_lane(prepared, preamble)
    }

    /// Whether the segment has room for one more lane: the number that it would have.
    fn check_lanes(&self) -> Result<LaneNo> {
        self.check()?;
        let lane = LaneNo(u32::try_from(self.lanes.len()).unwrap_or(u32::MAX));
        // Its opening, and what stands before its records.
        if !self.has_room_for(2, 1) {
            return Err(no_blocks());
        }
        if lane.0 < self.options.limits.lanes {
            return Ok(lane);
        }
        Err(Error::new(Code::SegmentLimit, "this segment has all the lanes that a segment may have")
            .rule("a segment has at most 2^20 lanes")
            .advise("write the other scopes into another segment"))
    }

    /// Opens a lane whose key is at hand.
    ///
    /// # Errors
    /// As [`open_lane`](Self::open_lane).
    pub(crate) fn begin_lane(&mut self, prepared: PreparedLane, preamble: &[u8]) -> Result<LaneNo> {
        let PreparedLane { descriptor, leaf } = prepared;
        let lane = self.check_lanes()?;
        if preamble.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "a preamble longer than a block"));
        }
        let key = LaneKey::new(descriptor.scope.clone(), descriptor.period, lane);
        let lease: Option<Lease> = leaf.as_ref().map(|leaf| leaf.lease().clone());
        let (contents, period, compression) =
            (descriptor.contents, descriptor.period, descriptor.compression);
        crate::compression::check(compression)?;
        self.guarded(|writer| {
            // Blocks that have their ordinals come first.
            writer.write_sealed(true)?;
            let header = &writer.header;
            let (ordinal, engine, limits) = (writer.output.ordinal(), writer.engine, writer.options.limits);
            let (sealer, opening) = match (&writer.hand, leaf) {
                (Hand::Home { domicile, segment_leaf }, Some(leaf)) => {
                    let data_key = DataKey::random(&**domicile.randomness())?;
                    LaneSealer::begin(
                        header,
                        lane,
                        ordinal,
                        descriptor,
                        engine,
                        &data_key,
                        |descriptor, commitment| {
                            let owner = lane_key::owner(header, descriptor, commitment);
                            Ok((Some(leaf.wrap(segment_leaf, &data_key, &owner)?), None))
                        },
                        limits,
                    )?
                }
                (Hand::Post { keys, .. }, _) => {
                    let data_key = keys.lane_key(lane.0, &descriptor.encode().map_err(does_not_fit)?);
                    LaneSealer::begin(
                        header,
                        lane,
                        ordinal,
                        descriptor,
                        engine,
                        &data_key,
                        |descriptor, commitment| {
                            Ok((None, Some(keys.seal_of_lane(lane.0, descriptor, commitment))))
                        },
                        limits,
                    )?
                }
                (Hand::Home { .. }, None) => return Err(no_such_lane(lane)),
            };
            let at = writer.output.write_lane_open(
                opening.block.block(),
                &opening.descriptor,
                &opening.commitment,
            )?;
            let mut new = Lane {
                key,
                sealer,
                lease,
                contents,
                compression,
                takes: lane::Kept::of(lane, contents),
                period,
                stamp_bytes: Lane::stamp_bytes(contents),
                waiting_blocks: 0,
                waiting_bytes: 0,
                expected_bytes: 0,
                long: LongRecord::NotBegun,
                offsets: vec![at],
                postamble: Vec::new(),
                totals: Totals::default(),
                index: IndexBuilder::default(),
                open: OpenBlock::default(),
                is_filling: false,
                inside_record: false,
                ended: None,
            };
            if !preamble.is_empty() {
                let nonce = Nonces::one(&**writer.hand.randomness())?;
                new.seal_block(&mut writer.output, BlockKind::Preamble, nonce, preamble)?;
            }
            writer.lanes.push(new);
            Ok(lane)
        })
    }

    /// The lane that takes a record with such a stamp, with room for it in its open block.
    #[inline]
    fn lane_for(&mut self, lane: LaneNo, length: usize, stamp: Stamp) -> Result<&mut Lane> {
        let index = lane.0 as usize;
        let takes = |slot: &Lane| slot.takes == stamp.kept() && slot.open.fits(slot.cost(length));
        if !self.lanes.get(index).is_some_and(takes) {
            self.begin_block(lane, length, stamp)?;
        }
        self.lanes.get_mut(index).ok_or_else(|| no_such_lane(lane))
    }

    #[inline]
    fn count_open(&mut self, beside: usize) -> Result<()> {
        self.open_bytes += beside;
        if self.open_bytes > self.options.open_bytes_max { self.seal_fuller_blocks() } else { Ok(()) }
    }

    /// Makes room for a record, in a block that grows or in an empty one, if the lane takes it and has any;
    /// otherwise nothing is spent.
    #[cold]
    fn begin_block(&mut self, lane: LaneNo, length: usize, stamp: Stamp) -> Result<()> {
        self.check()?;
        self.check_blocks()?;
        let index = self.index_of(lane)?;
        if length > WriterOptions::BLOCK_BYTES_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "this record is longer than a block")
                .advise("open a lane for a long record, and append it in pieces"));
        }
        let Some(slot) = self.lanes.get_mut(index) else { return Err(no_such_lane(lane)) };
        check_stamp(slot.contents, stamp)?;
        if slot.contents.long_record {
            return Err(Error::new(Code::ArgumentInvalid, "this lane is for one long record"));
        }
        slot.check_lease()?;
        slot.takes = lane::Kept::of(lane, slot.contents);
        if slot.open.fits(slot.cost(length)) {
            // Its key may be used again.
            return Ok(());
        }
        let (cost, block_bytes) = (slot.cost(length), self.options.block_bytes);
        let filled = slot.open_payload_bytes();
        let grows = !slot.open.is_empty() && filled + cost <= block_bytes;
        if !grows && !slot.has_room(filled + cost.max(block_bytes)) {
            return Err(no_room(lane));
        }
        let payload_bytes = if grows {
            slot.open.payload_bytes().saturating_mul(2).clamp(filled + cost, block_bytes)
        } else {
            let likely = slot.expected_bytes.max(self.first_payload_bytes());
            cost.max(likely.next_power_of_two().min(block_bytes))
        };
        if !grows && filled > 0 {
            self.queue_block(index, false)?;
        }
        if let Some(slot) = self.lanes.get_mut(index) {
            self.open_bytes += slot.make_room(payload_bytes, &mut self.spare, &mut self.filling);
        }
        Ok(())
    }

    /// The payload that a block begins with, unless its lane's last one became larger. It is a share of what all open blocks may take,
    /// so that those of many lanes are small as long as they are empty; one that fills grows.
    fn first_payload_bytes(&self) -> usize {
        let share = self.options.open_bytes_max / 2 / self.lanes.len().max(1);
        share.max(FIRST_PAYLOAD_BYTES_MIN).min(self.options.block_bytes)
    }

    /// Spends the writer: no lane takes anything more.
    fn fail(&mut self) {
        self.failed = true;
        self.lanes.clear();
    }

    fn check(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(Code::WriterFailed, "this writer failed before and takes nothing more")
                .advise("begin a new segment, and append again what no receipt covers"));
        }
        Ok(())
    }

    /// Whether there is room for so many more blocks and lanes, and behind them for a commit and for what ends the segment: of each
    /// lane its open block, its postamble and its end, and of lane 0 another commit, the directory and its own end.
    fn has_room_for(&self, blocks: u64, lanes: u64) -> bool {
        let lanes = self.lanes.len() as u64 + lanes;
        let placed = self.output.ordinal() + self.full.len() as u64 + self.under_way.blocks();
        let ends = 3 * (lanes + 2) + lanes / RegionEnd::ENTRIES_PER_BLOCK as u64;
        placed + blocks + 1 + ends <= self.options.limits.blocks
    }

    /// Room for another block.
    fn check_blocks(&self) -> Result<()> {
        if self.has_room_for(1, 0) { Ok(()) } else { Err(no_blocks()) }
    }

    fn index_of(&self, lane: LaneNo) -> Result<usize> {
        let index = lane.0 as usize;
        match self.lanes.get(index) {
            Some(slot) if lane != LaneNo::REGION && slot.ended.is_none() => Ok(index),
            _ => Err(no_such_lane(lane)),
        }
    }

    /// Spends the writer if `step` fails.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let result = step(self);
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// Puts a lane's open block to those that are sealed in one pass, and seals them if they are enough.
    fn queue_block(&mut self, index: usize, continues: bool) -> Result<()> {
        if let Some(slot) = self.lanes.get_mut(index) {
            self.open_bytes -= slot.open_memory().min(self.open_bytes);
            self.full_bytes += slot.open.record_bytes();
            self.full.push(slot.take_open_block(index, continues, self.sealed_at));
        }
        let enough = self.full.len() >= PASS_BLOCKS || self.full_bytes >= PASS_BYTES;
        if enough { self.seal_pass() } else { Ok(()) }
    }

    /// Seals the full blocks, in the order in which they filled, here or in the pool. Their nonces are drawn in one call and
    /// never kept.
    fn seal_pass(&mut self) -> Result<()> {
        self.full_bytes = 0;
        if self.full.is_empty() {
            return Ok(());
        }
        self.guarded(|writer| {
            let now = writer.hand.now().micros();
            let nonces = Nonces::draw(&**writer.hand.randomness(), writer.full.len())?;
            let placed = writer.output.ordinal() + writer.under_way.blocks();
            let pool = writer.options.pool.clone();
            let mut pass = Vec::with_capacity(if pool.is_some() { writer.full.len() } else { 0 });
            for ((full, nonce), ordinal) in writer.full.drain(..).zip(nonces).zip(placed..) {
                let Some(slot) = writer.lanes.get_mut(full.lane) else { continue };
                let unsealed = slot.place(full, ordinal, nonce, now)?;
                if pool.is_some() {
                    pass.push(unsealed);
                } else {
                    let sealed = unsealed.seal(&mut writer.packer)?;
                    writer.spare.give(slot.write_data(&mut writer.output, sealed)?);
                }
            }
            if let Some(pool) = &pool {
                writer.under_way.add(pass, pool, &mut writer.packer)?;
            }
            writer.write_sealed(false)
        })
    }

    /// Writes blocks that the pool has sealed: all that are under way, or those that are ready.
    fn write_sealed(&mut self, all: bool) -> Result<()> {
        let Some(pool) = &self.options.pool else { return Ok(()) };
        while let Some(pass) = self.under_way.next(all, pool)? {
            for sealed in pass {
                let Some(slot) = self.lanes.get_mut(sealed.lane) else { continue };
                self.spare.give(slot.write_data(&mut self.output, sealed)?);
            }
        }
        Ok(())
    }

    /// Seals and writes all blocks that are full.
    fn seal_what_waits(&mut self) -> Result<()> {
        self.seal_pass()?;
        self.guarded(|writer| writer.write_sealed(true))
    }

    fn seal_all(&mut self) -> Result<()> {
        let mut filling = std::mem::take(&mut self.filling);
        for pass in filling.chunks(PASS_BLOCKS) {
            self.touch(pass.iter().map(|lane| *lane as usize));
            for lane in pass {
                let index = *lane as usize;
                if let Some(slot) = self.lanes.get_mut(index) {
                    slot.is_filling = false;
                    self.queue_what_is_open(index)?;
                }
            }
        }
        filling.clear();
        // Their number is much the same at the next commit.
        self.filling = filling;
        self.seal_what_waits()
    }

    /// Seals the fullest blocks until half of the memory is free, so that a record costs the same however many
    /// lanes are open, and however unevenly they fill.
    fn seal_fuller_blocks(&mut self) -> Result<()> {
        let filled = |lane: &u32| {
            let index = *lane as usize;
            self.lanes.get(index).map(|slot| (slot.open_payload_bytes(), index))
        };
        let mut open: Vec<_> = self.filling.iter().filter_map(filled).collect();
        open.retain(|(filled, _)| *filled > 0);
        open.sort_unstable_by(|left, right| right.cmp(left));
        'passes: for pass in open.chunks(PASS_BLOCKS) {
            self.touch(pass.iter().map(|(_, index)| *index));
            for (_, index) in pass {
                if self.open_bytes <= self.options.open_bytes_max / 2 {
                    break 'passes;
                }
                self.queue_what_is_open(*index)?;
            }
        }
        self.seal_pass()
    }

    /// Has what these lanes need to be sealed come near together.
    fn touch(&self, lanes: impl Iterator<Item = usize>) {
        let lanes = lanes.filter_map(|index| self.lanes.get(index));
        std::hint::black_box(lanes.map(Lane::touch).fold(0, usize::wrapping_add));
    }

    /// Puts what a lane has in its open block to what is sealed next; a long record goes on behind it.
    fn queue_what_is_open(&mut self, index: usize) -> Result<()> {
        let Some(slot) = self.lanes.get_mut(index) else { return Ok(()) };
        match slot.long {
            LongRecord::Begun(stamp) if slot.open.record_bytes() > 0 => {
                slot.open.end_record(stamp, 0);
                self.queue_block(index, true)
            }
            _ if !slot.open.is_empty() => self.queue_block(index, false),
            _ => Ok(()),
        }
    }

    fn write_commit(&mut self, caller: &[u8]) -> Result<()> {
        let commit = Commit {
            durable: self.output.durable(),
            running_hash: self.output.running_hash(),
            caller: caller.to_vec(),
        };
        let payload = commit.encode().map_err(|source| {
            Error::new(Code::ArgumentInvalid, "a commit keeps at most 256 octets of the caller's")
                .because(source)
        })?;
        let nonce = Nonces::one(&**self.hand.randomness())?;
        match self.lanes.first_mut() {
            Some(region) => {
                region.seal_block(&mut self.output, BlockKind::Commit, nonce, &payload).map(|_| ())
            }
            None => Err(no_such_lane(LaneNo::REGION)),
        }
    }

    fn end(&mut self) -> Result<SegmentSummary> {
        self.guarded(|writer| {
            if writer.lanes.iter().any(|lane| matches!(lane.long, LongRecord::Begun(_))) {
                return Err(Error::new(Code::ArgumentInvalid, "a long record has begun and not ended"));
            }
            writer.seal_all()?;
            let directory = writer.end_lanes()?;
            writer.write_commit(&[])?;
            // Each is on disk before the next is written: where lane 0 has an end, what it vouches for is there, and where there
            // is a footer, everything is, whatever a crash does between two of them.
            writer.output.sync()?;
            let summary = writer.end_region_lane(directory)?;
            writer.output.sync()?;
            writer.write_footer()?;
            writer.output.sync()?;
            Ok(SegmentSummary { file_bytes: writer.output.at(), ..summary })
        })
    }

    /// Ends every lane but lane 0; returns what lane 0 shall vouch for.
    fn end_lanes(&mut self) -> Result<Vec<DirectoryEntry>> {
        let mut directory = Vec::with_capacity(self.lanes.len());
        let open = self.lanes.iter().skip(1).filter(|lane| lane.ended.is_none()).count();
        let nonces = Nonces::draw(&**self.hand.randomness(), 2 * open)?;
        let mut nonces = nonces.into_iter();
        for lane in self.lanes.iter_mut().skip(1) {
            if lane.ended.is_none() {
                lane.end(&mut self.output, nonces.by_ref().take(2))?;
            }
            directory.extend(lane.ended.take().map(|ended| *ended));
        }
        Ok(directory)
    }

    /// Ends lane 0: the directory, in section blocks where it is long, and the summary.
    fn end_region_lane(&mut self, directory: Vec<DirectoryEntry>) -> Result<SegmentSummary> {
        let mut end = RegionEnd::of(directory);
        let (lanes, records, bytes) = (end.lanes, end.records, end.bytes);
        let randomness = self.hand.randomness().clone();
        let Some(region) = self.lanes.first_mut() else { return Err(no_such_lane(LaneNo::REGION)) };
        for payload in end.sections().map_err(does_not_fit)? {
            region.seal_block(&mut self.output, BlockKind::Section, Nonces::one(&*randomness)?, &payload)?;
        }
        let (blocks, digest) = (self.output.ordinal(), self.output.running_hash());
        let post = match &self.hand {
            Hand::Post { keys, .. } => Some(keys.seal_of_end(blocks, &digest)),
            Hand::Home { .. } => None,
        };
        let payload = end.end(false, blocks, digest, post).map_err(does_not_fit)?;
        region.seal_block(&mut self.output, BlockKind::LaneEnd, Nonces::one(&*randomness)?, &payload)?;
        Ok(SegmentSummary {
            id: self.header.id,
            place: self.header.place.clone(),
            created: self.header.created,
            origin: self.header.origin,
            lanes,
            blocks: self.output.ordinal(),
            records,
            bytes,
            file_bytes: 0,
            digest: self.output.running_hash(),
        })
    }

    fn write_footer(&mut self) -> Result<()> {
        let mut footer = Footer::new();
        for lane in &mut self.lanes {
            footer.add(lane.key.clone(), std::mem::take(&mut lane.offsets));
        }
        let payload = footer.encode(&self.header, self.output.at()).map_err(does_not_fit)?;
        let block = crate::format::footer_block(&self.header.id, self.output.ordinal(), &payload)
            .map_err(does_not_fit)?;
        self.output.write_footer(&block).map(|_| ())
    }
}

impl<S: Sink> std::fmt::Debug for SegmentWriter<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("id", &self.header.id)
            .field("lanes", &self.lanes.len())
            .field("file_bytes", &self.output.at())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Who gets keys for lanes: asked without the writer, which goes on meanwhile.
#[derive(Debug, Clone)]
pub(crate) enum LaneKeys {
    /// A host with the region's keys.
    Home { domicile: Domicile, place: Place },
    /// A post, whose segments have their own.
    Post(Post),
}

/// A lane that may be opened, once, in a segment of its region: the guard was asked, and its key is at hand.
#[derive(Debug)]
pub(crate) struct PreparedLane {
    descriptor: Descriptor,
    leaf: Option<SealingLeaf>,
}

impl LaneKeys {
    /// Asks for what a lane needs.
    ///
    /// # Errors
    /// As [`SegmentWriter::open_lane`].
    pub(crate) async fn prepare(&self, descriptor: Descriptor) -> Result<PreparedLane> {
        descriptor.encode().map_err(|source| {
            Error::new(Code::SegmentLimit, "this lane's descriptor does not fit").because(source)
        })?;
        let leaf = match self {
            LaneKeys::Home { domicile, place } => {
                let permit = lane_permit(domicile, place, &descriptor.scope).await?;
                Some(domicile.keyring().sealing_leaf(permit, descriptor.period).await?)
            }
            LaneKeys::Post(post) => {
                if !descriptor.scope.is_region() {
                    post.check(&descriptor.scope)?;
                }
                None
            }
        };
        Ok(PreparedLane { descriptor, leaf })
    }
}

/// Blocks that are sealed in one pass, and octets of their records: enough to share the call that draws their nonces, few
/// enough to stay in a second-level cache.
const PASS_BLOCKS: usize = 64;
const PASS_BYTES: usize = 192 << 10;

/// The least payload that a block begins with: a few records.
const FIRST_PAYLOAD_BYTES_MIN: usize = 512;

fn no_blocks() -> Error {
    Error::new(Code::SegmentLimit, "this segment has all the blocks that a segment may have")
        .rule("a segment has at most 2^29 blocks")
        .advise("write the rest into another segment")
}

/// The guard's word for sealing a lane of a scope into a segment of this place.
pub(crate) async fn lane_permit(domicile: &Domicile, place: &Place, scope: &Scope) -> Result<Permit> {
    let permit = if scope.is_region() {
        domicile.permit_region(&place.region, Action::Seal).await?
    } else {
        domicile.permit(scope, Action::Seal).await?
    };
    if permit.home() == place {
        return Ok(permit);
    }
    let what = format!("{scope} is at home in {}, and this segment in {place}", permit.home());
    Err(domicile.refuse(Error::new(Code::HomeMismatch, what), scope, &Action::Seal).await)
}

fn check_stamp(contents: Contents, stamp: Stamp) -> Result<()> {
    if contents.event_times == stamp.time.is_some() && contents.arrivals == stamp.arrival.is_some() {
        return Ok(());
    }
    Err(Error::new(Code::ArgumentInvalid, "a record's stamp is not what its lane keeps"))
}

#[cold]
fn no_such_lane(lane: LaneNo) -> Error {
    Error::new(Code::ArgumentInvalid, format!("this segment has no lane {lane} to append to"))
}

#[cold]
fn no_room(lane: LaneNo) -> Error {
    Error::new(Code::SegmentLimit, "this lane has no room left")
        .at(format!("lane {lane}"))
        .rule("a lane has at most 2^24 blocks and 64 GiB")
        .advise("open another lane of the scope")
}

fn does_not_fit(source: domicile::wire::Malformed) -> Error {
    Error::new(Code::SegmentLimit, "a structure of the segment does not fit").because(source)
}
