//! Reading a segment: guard, then the keys that were asked for, then bytes.

mod ahead;
mod erase;
mod follow;
mod lane;
mod long;
mod map;
mod merge;
mod parallel;
mod replaced;
mod restore;
mod selection;
mod source;
mod state;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use domicile::audit::{Event, EventKind};
use domicile::keyring::{LeafRef, SegmentLeaf, WrappedKey};
use domicile::post::PostSeal;
use domicile::{Action, Code, Domicile, Error, Period, Permit, Request, Result, Scope};

pub(crate) use erase::retire_replaced;
use lane::Buffers;
pub(crate) use lane::{LaneCursor, ReadableLane, Wanted};
pub(crate) use map::{Damage, LanePlace, SegmentFile, unreadable};
pub(crate) use walk::{Step, Walker};

pub use erase::{Erasable, erase};
pub use follow::{Follower, News};
pub use long::LongRecord;
pub use map::{header_of, is_finished};
pub use parallel::BlockOrder;
pub use replaced::{claims_to_replace, replaced_among, replaced_by};
pub use restore::Restored;
pub use selection::Selection;
pub use source::Source;
pub use state::State;
pub(crate) use state::last_commit;

use crate::format::{BlockKind, DataBlock, DirectoryEntry, LaneNo, LaneOpen, Origin, SegmentHeader};
use crate::lane_key;
use crate::open::LaneOpener;
use crate::refusals::Refusals;

/// A segment whose selected lanes are open for reading.
#[derive(Debug)]
pub struct Segment<S> {
    pub(crate) file: SegmentFile<S>,
    pub(crate) state: State,
    /// Lane 0, if it can be read.
    pub(crate) region: Option<ReadableLane>,
    pub(crate) lanes: Vec<SegmentLane>,
    wanted: Wanted,
    notes: Vec<String>,
}

/// A lane that was selected, and whether it can be read.
#[derive(Debug)]
pub struct SegmentLane {
    /// Its number.
    pub lane: LaneNo,
    /// Whose records.
    pub scope: Scope,
    /// Their period.
    pub period: Period,
    status: Result<ReadableLane>,
}

impl SegmentLane {
    /// Why the lane cannot be read, if it cannot: locked (refused here), erased, an unknown key, or corrupt.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Error> {
        self.status.as_ref().err()
    }

    /// How many records the lane holds, where its end was read.
    #[must_use]
    pub fn records(&self) -> Option<u64> {
        self.status.as_ref().ok()?.end.as_ref().map(|end| end.end.records)
    }

    pub(crate) fn readable(&self) -> Option<&ReadableLane> {
        self.status.as_ref().ok()
    }
}

impl Segment<File> {
    /// Opens a file for a purpose: the guard is asked, then the keys of the selected lanes are had, and the
    /// opening stands in the audit chain before any of them is handed out.
    ///
    /// ```no_run
    /// # async fn example(domicile: domicile::Domicile, acme: domicile::Scope) -> domicile::Result<()> {
    /// use domicile::Purpose;
    /// use domicile_record::Segment;
    ///
    /// let segment = Segment::open(&domicile, "voice.dseg", Purpose::Billing, &[acme]).await?;
    /// for block in segment.blocks() {
    ///     for record in &block? {
    ///         println!("{} octets", record.len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`open_source`](Self::open_source); [`InputFailed`](Code::InputFailed) when the file cannot be
    /// read.
    pub async fn open(
        domicile: &Domicile,
        path: impl AsRef<Path>,
        request: impl Into<Request>,
        selection: impl Into<Selection>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| {
            Error::new(Code::InputFailed, "the segment cannot be opened")
                .at(path.display().to_string())
                .because(source)
        })?;
        let opened = Self::open_source(domicile, file, request, selection).await;
        opened.map_err(|error| error.at(path.display().to_string()))
    }
}

impl<S: Source> Segment<S> {
    /// Opens a segment that is anywhere.
    ///
    /// Lanes that were not asked for by name and cannot be read are reported by [`lanes`](Self::lanes) and
    /// stop nothing.
    ///
    /// # Errors
    /// [`SegmentForeign`](Code::SegmentForeign) and the like for what is no segment;
    /// [`HomeRefused`](Code::HomeRefused) when its records may not be processed here;
    /// [`HomeMismatch`](Code::HomeMismatch) when a scope asked for is at home elsewhere;
    /// [`LaneNone`](Code::LaneNone) when the segment is whole and has nothing of what was asked for; whatever
    /// keeps the region's keys from being had.
    pub async fn open_source(
        domicile: &Domicile,
        source: S,
        request: impl Into<Request>,
        selection: impl Into<Selection>,
    ) -> Result<Self> {
        Opening { domicile, action: Action::Open(request.into()), selection: selection.into() }
            .open(source)
            .await
    }

    /// The segment's header.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.file.header
    }

    /// Whether the segment is whole.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The lanes that were selected.
    #[must_use]
    pub fn lanes(&self) -> &[SegmentLane] {
        &self.lanes
    }

    /// What was odd on the way and cost nothing but time, such as a damaged footer.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The data blocks of the selected lanes, lane by lane, that can hold what was selected. A block owns
    /// its octets; records borrow from it.
    ///
    /// A lane's key is asked before each block whether it may still be used. Whoever reads for long calls
    /// [`Domicile::keep_up`] every few seconds: an erasure elsewhere then ends the reading, and the key's age does not.
    ///
    /// Blocks are whole: a record of one may lie outside a selected range of times or numbers;
    /// [`restore`](Self::restore) gives records exactly.
    pub fn blocks(&self) -> Blocks<'_, S> {
        Blocks { segment: self, lanes: self.lanes.iter(), current: None }
    }

    /// Reads the data blocks of the selected lanes one after another, each into the memory of the last.
    ///
    /// # Errors
    /// The first block that does not verify, or what `visit` returned.
    pub fn for_each_block(&self, mut visit: impl FnMut(&DataBlock) -> Result<()>) -> Result<()> {
        let mut buffers = Buffers::default();
        for lane in self.lanes.iter().filter_map(SegmentLane::readable) {
            let mut cursor = LaneCursor::new(lane, &self.wanted).using(buffers);
            while let Some((block, _)) = cursor.next(&self.file, lane)? {
                visit(block)?;
            }
            buffers = cursor.into_buffers();
        }
        Ok(())
    }
}

impl<S: Source> Segment<S> {
    /// A segment whose lanes, lane 0 among them, are open already: as its home examines a post's.
    pub(crate) fn of_lanes(file: SegmentFile<S>, mut lanes: BTreeMap<LaneNo, ReadableLane>) -> Result<Self> {
        let region = lanes.remove(&LaneNo::REGION);
        let region = region.ok_or_else(|| Error::new(Code::SegmentCorrupt, "the segment has no lane 0"))?;
        let (state, _) = state::of(&file, &region);
        let lanes = lanes.into_iter().map(|(number, lane)| SegmentLane {
            lane: number,
            scope: lane.descriptor.scope.clone(),
            period: lane.descriptor.period,
            status: Ok(lane),
        });
        let lanes = lanes.collect();
        Ok(Self { file, state, region: Some(region), lanes, wanted: Wanted::default(), notes: Vec::new() })
    }
}

/// The data blocks of a segment's selected lanes.
#[derive(Debug)]
pub struct Blocks<'a, S> {
    segment: &'a Segment<S>,
    lanes: std::slice::Iter<'a, SegmentLane>,
    current: Option<(&'a ReadableLane, LaneCursor)>,
}

impl<S: Source> Iterator for Blocks<'_, S> {
    type Item = Result<DataBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((lane, cursor)) = &mut self.current {
                match cursor.next_owned(&self.segment.file, lane) {
                    Ok(Some((block, _))) => return Some(Ok(block)),
                    Ok(None) => self.current = None,
                    Err(error) => {
                        // A lane that failed once is not read on; the others are.
                        self.current = None;
                        return Some(Err(error));
                    }
                }
            }
            let lane = self.lanes.find_map(SegmentLane::readable)?;
            let cursor = LaneCursor::new(lane, &self.segment.wanted).reading_ahead();
            self.current = Some((lane, cursor));
        }
    }
}

/// The steps from a source to a segment whose lanes are open.
pub(crate) struct Opening<'a> {
    pub(crate) domicile: &'a Domicile,
    pub(crate) action: Action,
    pub(crate) selection: Selection,
}

/// What one look at a segment found.
struct Survey {
    state: State,
    region: Option<ReadableLane>,
    lanes: Vec<SegmentLane>,
}

impl Survey {
    /// Whether anything is not as it should be, so that it is worth not believing the footer.
    fn is_suspicious(&self) -> bool {
        let corrupt = |lane: &SegmentLane| lane.obstacle().is_some_and(is_of_the_segment);
        self.state.is_corrupt() || self.lanes.iter().any(corrupt)
    }
}

/// Whether something is corrupt, and it may be the segment: a damaged root key or a forged home is not cured by
/// another look at the file.
fn is_of_the_segment(error: &Error) -> bool {
    error.is_corruption()
        && !matches!(error.code(), Code::KmsUnverified | Code::HomeForged | Code::LedgerUnverified)
}

/// The segment leaves of a segment: one, unless somebody mixed two.
pub(crate) type SegmentLeaves = HashMap<LeafRef, SegmentLeaf>;

/// The selected lanes by scope, with the guard's word on each.
type Permits = BTreeMap<Scope, (Result<Permit>, Vec<LanePlace>)>;

impl Opening<'_> {
    pub(crate) async fn open<S: Source>(&self, source: S) -> Result<Segment<S>> {
        self.open_file(SegmentFile::open(source)?).await
    }

    /// The same, of a file whose blocks were found already.
    pub(crate) async fn open_file<S: Source>(&self, mut file: SegmentFile<S>) -> Result<Segment<S>> {
        let mut notes = Vec::new();
        if file.walked().is_some_and(|walked| walked.lanes.values().any(|lane| !lane.ends.is_empty())) {
            notes.push("the footer is missing or damaged; the blocks were walked instead".to_owned());
        }
        let survey = match self.survey(&file).await {
            Ok(survey) if file.walked().is_some() || !survey.is_suspicious() => survey,
            Err(error) if file.walked().is_some() || !is_of_the_segment(&error) => return Err(error),
            _ => {
                file.rewalk()?;
                notes.push("the footer does not say what is; the blocks were walked instead".to_owned());
                self.survey(&file).await?
            }
        };
        // Of a file that is not whole, nobody can say what it does not have.
        let nothing = survey.lanes.is_empty() && self.selection.names_lanes();
        if nothing && survey.state == State::Unasked {
            return Err(Error::new(
                Code::LaneNone,
                "the segment's footer names no lane of what was asked for",
            )
            .rule(self.selection.to_string())
            .advise("nothing vouches for a footer: open the segment whole to be sure"));
        }
        if nothing && survey.state.is_whole() {
            return Err(Error::new(Code::LaneNone, "the segment has no lane of what was asked for")
                .rule(self.selection.to_string())
                .advise("`domicile inspect` shows which lanes it has"));
        }
        let Survey { state, region, lanes } = survey;
        Ok(Segment { file, state, region, lanes, wanted: self.selection.wanted(), notes })
    }

    async fn survey<S: Source>(&self, file: &SegmentFile<S>) -> Result<Survey> {
        if let Err(error) = self.check_place(&file.header).and_then(|()| check_adopted(file)) {
            return Err(self.domicile.refuse(error, &Scope::of_region(), &self.action).await);
        }
        // The guard first: not even the region's own key is asked for where its records may not be.
        let region = &file.header.place.region;
        let permit = self.domicile.permit_region(region, self.action.clone()).await?;
        let mut scopes = self.permits(file).await?;
        self.record_opening(&file.header, &scopes).await?;

        let mut leaves = SegmentLeaves::new();
        // A walk has read more than lane 0's directory takes.
        let alone = self.selection.is_alone() && file.walked().is_none();
        let (region, state, directory) = if alone {
            (None, State::Unasked, None)
        } else {
            match self.region_lane(file, &mut leaves, permit).await {
                Ok(region) => {
                    let (state, directory) = state::of(file, &region);
                    (Some(region), state, directory)
                }
                Err(error) if is_of_the_segment(&error) => (None, State::corrupt(&error), None),
                Err(error) if error.code() == Code::KeyDestroyed => (None, State::Retired, None),
                Err(error) => return Err(error),
            }
        };
        let mut lanes = Vec::new();
        while let Some((scope, (permit, places))) = scopes.pop_first() {
            match permit {
                Ok(permit) => lanes.extend(self.unlock(file, &mut leaves, permit, &scope, places).await),
                Err(error) => lanes.extend(
                    places
                        .iter()
                        .map(|place| SegmentLane::new(place, &scope, Err(shared(&error, place.key.lane)))),
                ),
            }
        }
        lanes.sort_by_key(|lane| lane.lane);
        if alone {
            lanes.iter_mut().for_each(SegmentLane::needs_its_end);
        }
        match (directory, &region) {
            (Some(directory), _) => self.hold_against(file, &state, &directory, &mut lanes),
            // A crash may damage whatever no finished sync covers.
            (None, Some(region)) if !state.is_corrupt() => {
                let unsynced_from = last_commit(file, region)?.map_or(0, |commit| commit.durable);
                for lane in lanes.iter_mut().filter_map(|lane| lane.status.as_mut().ok()) {
                    lane.unsynced_from = Some(unsynced_from);
                }
            }
            _ => {}
        }
        Ok(Survey { state, region, lanes })
    }

    /// What the header says of its region must be what is configured.
    fn check_place(&self, header: &SegmentHeader) -> Result<()> {
        let place = &self.domicile.region(&header.place.region)?.place;
        if *place == header.place {
            return Ok(());
        }
        Err(Error::new(
            Code::HomeMismatch,
            format!("the segment says that {} lies in {}", place.region, header.place.jurisdiction),
        )
        .rule(format!("here, {} lies in {}", place.region, place.jurisdiction)))
    }

    /// The selected lanes by scope, each scope with the guard's word. A refusal of what was asked for by
    /// name ends the opening; otherwise it locks the lanes of its scope.
    async fn permits<S: Source>(&self, file: &SegmentFile<S>) -> Result<Permits> {
        let places = match self.selection.one_scope() {
            Some(scope) => file.lanes_of(&scope)?,
            None => file.lanes(&|scope| self.selection.wants_scope(scope))?,
        };
        let mut by_scope: BTreeMap<Scope, Vec<LanePlace>> = BTreeMap::new();
        for place in places {
            by_scope.entry(place.key.scope.clone()).or_default().push(place);
        }
        let mut scopes = BTreeMap::new();
        for (scope, places) in by_scope {
            match self.permit(&file.header, &scope).await {
                Err(error) if self.selection.names_lanes() || !error.is_refusal() => {
                    return Err(self.domicile.refuse(error, &scope, &self.action).await);
                }
                permit => scopes.insert(scope, (permit, places)),
            };
        }
        Ok(scopes)
    }

    /// Records what is about to be opened, and what was refused of it, before any key is had.
    async fn record_opening(&self, header: &SegmentHeader, scopes: &Permits) -> Result<()> {
        let selected = scopes.values().map(|(_, places)| places.len() as u64).sum();
        let event = Event::new(EventKind::Open)
            .action(&self.action)
            .region(&header.place.region)
            .segment(&header.id.0)
            .selected(self.selection.to_string())
            .lanes(selected);
        let mut refusals = Refusals::of(&self.action);
        for (scope, (permit, _)) in scopes {
            if let Err(error) = permit {
                refusals.add(scope, error.code(), None, 0, 0);
            }
        }
        let events: Vec<_> = std::iter::once(event).chain(refusals.into_events()).collect();
        self.domicile.audit().record(&events).await
    }

    pub(crate) async fn permit(&self, header: &SegmentHeader, scope: &Scope) -> Result<Permit> {
        let permit = self.domicile.consider(scope, &self.action).await?;
        if *permit.home() == header.place {
            return Ok(permit);
        }
        Err(Error::new(
            Code::HomeMismatch,
            format!("{scope} is at home in {}, and this segment is of {}", permit.home(), header.place),
        )
        .advise("records of a scope under another region's keys are a violation: find out who sealed them"))
    }

    /// Lane 0, which vouches for the rest.
    async fn region_lane<S: Source>(
        &self,
        file: &SegmentFile<S>,
        leaves: &mut SegmentLeaves,
        permit: Permit,
    ) -> Result<ReadableLane> {
        let scope = Scope::of_region();
        let mut places = file.lanes_of(&scope)?;
        places.retain(|place| place.key.lane == LaneNo::REGION);
        let place =
            places.pop().ok_or_else(|| Error::new(Code::SegmentCorrupt, "the segment has no lane 0"))?;
        let mut opened = self.unlock(file, leaves, permit, &scope, vec![place]).await;
        match opened.pop() {
            Some(lane) => lane.status,
            None => Err(Error::new(Code::SegmentCorrupt, "the segment has no lane 0")),
        }
    }

    /// Unwraps the data keys of the lanes of one scope, and checks their commitments.
    async fn unlock<S: Source>(
        &self,
        file: &SegmentFile<S>,
        leaves: &mut SegmentLeaves,
        permit: Permit,
        scope: &Scope,
        places: Vec<LanePlace>,
    ) -> Vec<SegmentLane> {
        let opens: Vec<_> = places.iter().map(|place| read_wrapped(file, place)).collect();
        let wanted: Vec<_> = places
            .iter()
            .zip(&opens)
            .filter_map(|(place, open)| {
                let (open, wrapped) = open.as_ref().ok()?;
                Some(erase::wanted(&file.header.id, place.key.lane, open, wrapped))
            })
            .collect();
        let mut opening_leaves = self.domicile.keyring().opening_leaves(permit, &wanted).await.into_iter();
        let mut lanes = Vec::with_capacity(places.len());
        for (place, open) in places.into_iter().zip(opens) {
            let number = place.key.lane;
            let status = match open {
                Ok((open, wrapped)) => match opening_leaves.next() {
                    Some(Ok(leaf)) => match self.segment_leaf(file, leaves, wrapped.segment).await {
                        Ok(segment_leaf) => {
                            let place = place.clone();
                            unlock_lane(self.domicile, file, place, open, &wrapped, leaf, segment_leaf)
                        }
                        Err(error) => Err(error),
                    },
                    Some(Err(error)) => Err(error),
                    None => Err(Error::new(Code::KeyUnknown, "the keyring gave no leaf")),
                },
                Err(error) => Err(error),
            };
            lanes.push(SegmentLane::new(
                &place,
                scope,
                status.map_err(|error| error.at(format!("lane {number}"))),
            ));
        }
        lanes
    }

    pub(crate) async fn segment_leaf<'l, S: Source>(
        &self,
        file: &SegmentFile<S>,
        leaves: &'l mut SegmentLeaves,
        leaf: LeafRef,
    ) -> Result<&'l SegmentLeaf> {
        if let std::collections::hash_map::Entry::Vacant(vacant) = leaves.entry(leaf) {
            let permit = self.domicile.permit_region(&file.header.place.region, self.action.clone()).await?;
            vacant.insert(self.domicile.keyring().segment_leaf_of(permit, leaf, file.header.id.0).await?);
        }
        leaves.get(&leaf).ok_or_else(|| Error::new(Code::KeyUnknown, "the segment leaf is gone"))
    }

    /// Holds the lanes against what lane 0 says of them; selected lanes that are not there are added.
    fn hold_against<S: Source>(
        &self,
        file: &SegmentFile<S>,
        state: &State,
        directory: &[DirectoryEntry],
        lanes: &mut Vec<SegmentLane>,
    ) {
        let mut entries: HashMap<_, _> = directory
            .iter()
            .filter(|entry| self.selection.wants_scope(&entry.scope))
            .map(|entry| (entry.lane, entry))
            .collect();
        for lane in lanes.iter_mut() {
            let vouched = entries
                .remove(&lane.lane)
                .filter(|entry| entry.scope == lane.scope && entry.period == lane.period);
            let Ok(readable) = &mut lane.status else { continue };
            if let Some(broken) = readable.broken_end.take() {
                lane.status = Err(broken.error);
                continue;
            }
            let agrees = match (vouched, &readable.end) {
                // What a crash cut short is vouched for up to its last block, and was counted by nobody.
                (Some(entry), _) if *state == State::Recovered => {
                    let last = readable.last_block(file);
                    last.is_ok_and(|last| last == (entry.blocks, entry.end_hash))
                }
                (Some(entry), Some(end)) => {
                    (entry.blocks, entry.records, entry.bytes, entry.end_hash)
                        == (end.sequence.saturating_add(1), end.end.records, end.end.bytes, end.hash)
                }
                _ => false,
            };
            if !agrees {
                let what = "a lane is not what the segment's own lane says of it";
                lane.status = Err(Error::new(Code::SegmentCorrupt, what).at(format!("lane {}", lane.lane)));
            }
        }
        for entry in entries.into_values() {
            lanes.push(SegmentLane {
                lane: entry.lane,
                scope: entry.scope.clone(),
                period: entry.period,
                status: Err(Error::new(Code::SegmentCorrupt, "a lane of the segment is missing")
                    .at(format!("lane {}", entry.lane))),
            });
        }
        lanes.sort_by_key(|lane| lane.lane);
    }
}

impl SegmentLane {
    fn new(place: &LanePlace, scope: &Scope, status: Result<ReadableLane>) -> Self {
        Self { lane: place.key.lane, scope: scope.clone(), period: place.key.period, status }
    }

    /// Takes a lane for unreadable that has no end which vouches for it: nothing else does where lane 0 is not asked.
    fn needs_its_end(&mut self) {
        let Ok(lane) = &mut self.status else { return };
        let broken = lane.broken_end.take().map(|broken| broken.error);
        if broken.is_none() && lane.end.is_some() {
            return;
        }
        self.status = Err(broken.unwrap_or_else(|| {
            Error::new(Code::SegmentUnfinished, "the lane has no end of its own")
                .at(format!("lane {}", self.lane))
                .rule("a lane is read alone if its own end vouches for it")
                .advise("open the segment whole: its own lane says how far this one goes")
        }));
    }
}

/// Reads a lane's descriptor, commitment and wrapped key: unauthenticated until the key was unwrapped.
pub(crate) fn read_lane_open<S: Source>(file: &SegmentFile<S>, place: &LanePlace) -> Result<LaneOpen> {
    let mut body = Vec::new();
    let (header, _) = file.read_block(place, 0, &mut body)?;
    body.truncate(header.payload_bytes());
    let damaged = || {
        Error::new(Code::SegmentCorrupt, "a lane's opening is damaged").at(format!("lane {}", place.key.lane))
    };
    if header.kind != BlockKind::LaneOpen {
        return Err(damaged());
    }
    let open = LaneOpen::decode(&body, place.key.lane).map_err(|source| damaged().because(source))?;
    let of_its_place = open.descriptor.scope == place.key.scope && open.descriptor.period == place.key.period;
    if !of_its_place || !open.fits(file.header.origin, place.key.lane) {
        return Err(damaged());
    }
    Ok(open)
}

/// The same, with the wrapped key that only an unadopted segment of a post does not have.
fn read_wrapped<S: Source>(file: &SegmentFile<S>, place: &LanePlace) -> Result<(LaneOpen, WrappedKey)> {
    let mut open = read_lane_open(file, place)?;
    let wrapped = open.wrapped.take().ok_or_else(|| unadopted(&open))?;
    Ok((open, wrapped))
}

/// A segment of a post is opened once its home has adopted it, and not before.
fn check_adopted<S: Source>(file: &SegmentFile<S>) -> Result<()> {
    if file.header.origin == Origin::Writer {
        return Ok(());
    }
    let places = file.lanes_of(&Scope::of_region()).unwrap_or_default();
    match places
        .iter()
        .find(|place| place.key.lane == LaneNo::REGION)
        .map(|place| read_lane_open(file, place))
    {
        Some(Ok(open)) if open.wrapped.is_none() => Err(unadopted(&open)),
        // What is damaged is told when it is read for its key.
        _ => Ok(()),
    }
}

pub(crate) fn unadopted(open: &LaneOpen) -> Error {
    let who = match &open.post {
        Some(PostSeal::Segment { claim, .. }) => format!("the post {}", claim.post),
        _ => "a post".to_owned(),
    };
    Error::new(Code::PostUnadopted, format!("{who} sealed this, and its home has not adopted it"))
        .rule("what a post sealed is opened once the home has verified it and has it under its own keys")
        .advise("at home: `domicile post adopt FILE -o DIR`, then open what is in DIR")
}

fn unlock_lane<S: Source>(
    domicile: &Domicile,
    file: &SegmentFile<S>,
    place: LanePlace,
    open: LaneOpen,
    wrapped: &WrappedKey,
    leaf: domicile::keyring::OpeningLeaf,
    segment_leaf: &SegmentLeaf,
) -> Result<ReadableLane> {
    let misfit = |source| Error::new(Code::SegmentCorrupt, "a lane's opening is damaged").because(source);
    crate::compression::check(open.descriptor.compression)?;
    let descriptor = open.descriptor.encode().map_err(misfit)?;
    let owner = lane_key::owner(&file.header, &descriptor, &open.commitment);
    let lease = Some(leaf.lease().clone());
    let data_key = leaf.unwrap(segment_leaf, wrapped, &owner)?;
    let engine = domicile.engines(open.descriptor.suite).bulk;
    let opener = LaneOpener::new(&file.header, place.key.lane, &open, &data_key, engine)?;
    let mut lane = ReadableLane::new(place, open.descriptor, opener, lease);
    lane.read_end(file)?;
    Ok(lane)
}

/// One refusal for several lanes.
fn shared(error: &Error, lane: LaneNo) -> Error {
    error.again().at(format!("lane {lane}"))
}
