//! Adopting what posts sealed: everything is verified, then the data keys are wrapped under the home's own, and the
//! blocks are written as they were. What a post left without an end is closed by its home as it adopts it.

mod further;
mod place;

use std::collections::{BTreeMap, BTreeSet};

pub use place::is_unadopted;
pub(crate) use place::{AdoptedHere, adopt_taken, opening_of, waits_for_its_home};

use domicile::audit::EventKind;
use domicile::engine::Engine;
use domicile::keyring::{AdoptingLeaf, DataKey, LeafRef, Owner, SegmentLeaf};
use domicile::post::{Claim, PostId, PostSeal};
use domicile::posts::{Admission, Adopted, Posts};
use domicile::{Action, Code, Domicile, Error, Period, RecordType, Result, Scope, wire};
use sha2::{Digest, Sha256};

use crate::close::{Cut, Extent, Looking, Region, RegionAnew, close};
use crate::format::{LaneNo, LaneOpen, Origin, Section};
use crate::lane_key;
use crate::open::LaneOpener;
use crate::reader::{LanePlace, ReadableLane, Segment, SegmentFile, Source, State, read_lane_open};
use crate::rewrite::{changed, rewrite};
use crate::writer::{SegmentSummary, Sink, lane_permit};

/// A post's segment that is found good, and not written anew yet.
///
/// ```no_run
/// # async fn example(domicile: domicile::Domicile, file: std::fs::File) -> domicile::Result<()> {
/// use domicile_record::Adopting;
///
/// let posts = domicile.posts(&"eu-central-1".parse()?).await?;
/// let adopting = Adopting::examine(&domicile, &posts, file).await?;
/// let (segment, summary, _) = adopting.write(Vec::new()).await?;
/// println!("{} records in {} octets", summary.records, segment.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Adopting<'a, S> {
    domicile: &'a Domicile,
    posts: &'a Posts<'a>,
    segment: Segment<S>,
    lanes: BTreeMap<LaneNo, PostLane>,
    admission: Admission,
    post: PostId,
    digests: Digests,
    summary: SegmentSummary,
    before: Option<LeafRef>,
    /// How far it goes, where it has no footer.
    cut_short: Option<Extent>,
}

/// What the ledger takes for a segment, and what it may have taken for it before.
#[derive(Debug, Default)]
struct Digests {
    said: [u8; 32],
    others: Vec<[u8; 32]>,
}

impl Digests {
    fn all(&self) -> Vec<[u8; 32]> {
        self.others.iter().copied().chain([self.said]).collect()
    }
}

/// A lane of a post's segment, with the data key that the post sealed it with.
#[derive(Debug)]
struct PostLane {
    scope: Scope,
    period: Period,
    data_key: DataKey,
}

impl<'a, S: Source> Adopting<'a, S> {
    /// Verifies a post's segment: that the post is enrolled and may seal for each scope, that each scope is at home
    /// here, every signature, every tag, total and index. Refusals are recorded.
    ///
    /// Of one without an end, which a crash left or which is still written, it verifies what is there up to the first block that is
    /// not whole or does not verify: every tag, and what lane 0 said so far. That this is all that was sealed, nobody signed
    /// ([`had_end`](Self::had_end)).
    ///
    /// # Errors
    /// [`PostUnknown`](Code::PostUnknown), [`PostScope`](Code::PostScope), [`PostExpired`](Code::PostExpired),
    /// [`PostReplayed`](Code::PostReplayed), [`PostForged`](Code::PostForged); [`HomeMismatch`](Code::HomeMismatch) and
    /// the like for scopes that are not at home here; [`SegmentCorrupt`](Code::SegmentCorrupt) for what no crash made;
    /// whatever keeps the keys from being had.
    pub async fn examine(domicile: &'a Domicile, posts: &'a Posts<'a>, source: S) -> Result<Self> {
        let mut scope = Scope::of_region();
        match Self::examine_as(domicile, posts, source, &mut scope).await {
            // A home's own refusals are recorded where they are made.
            Err(error) if matches!(error.code(), Code::PostForged) || of_a_post(error.code()) => {
                Err(domicile.refuse(error, &scope, &Action::Seal).await)
            }
            examined => examined,
        }
    }

    /// `asked` is the scope that a refusal is about.
    async fn examine_as(
        domicile: &'a Domicile,
        posts: &'a Posts<'a>,
        source: S,
        asked: &mut Scope,
    ) -> Result<Self> {
        let mut file = SegmentFile::open(source)?;
        // It is written last, and once the rest is durable.
        let is_finished = file.has_whole_footer()?;
        file.rewalk()?;
        let header = file.header.clone();
        let fixed = header.fixed();
        if header.origin != Origin::Post {
            return Err(Error::new(Code::ArgumentInvalid, "no post sealed this: there is nothing to adopt"));
        }
        if header.place != *posts.place() {
            return Err(Error::new(
                Code::HomeMismatch,
                format!("this was sealed for {}, and {} adopts", header.place, posts.place()),
            ));
        }
        let places: BTreeMap<LaneNo, LanePlace> =
            file.lanes(&|_| true)?.into_iter().map(|place| (place.key.lane, place)).collect();
        let mut opens = BTreeMap::new();
        for (lane, place) in &places {
            opens.insert(*lane, read_lane_open(&file, place)?);
        }
        let Some((claim, encapsulation)) = opens.get(&LaneNo::REGION).and_then(claim_of) else {
            return Err(Error::new(Code::PostForged, "this segment does not say how its post sealed it")
                .advise("what was adopted before has its secret no more: it is open to its home"));
        };

        let admission = posts.admit(&claim, header.created).await?;
        let mut scopes = BTreeSet::new();
        for (lane, open) in &opens {
            let at = |error: Error| error.at(format!("lane {lane}"));
            let descriptor = open.descriptor.encode().map_err(misfit)?;
            let signed = claim.of_lane(&fixed, lane.0, &descriptor, &open.commitment);
            let seal = open.post.as_ref().ok_or_else(|| misfit(NO_SEAL))?;
            admission.verify(&signed, seal.signature()).map_err(at)?;
            let scope = &open.descriptor.scope;
            if *lane != LaneNo::REGION && scopes.insert(scope.clone()) {
                *asked = scope.clone();
                admission.check(scope).map_err(at)?;
                let _at_home_here = lane_permit(domicile, &header.place, scope).await?;
            }
        }
        *asked = Scope::of_region();

        let secret = posts.open(&admission, &encapsulation, &fixed).await?;
        let mut lanes = BTreeMap::new();
        let mut readable = BTreeMap::new();
        for (lane, place) in places {
            let Some(open) = opens.remove(&lane) else { continue };
            let descriptor = open.descriptor.encode().map_err(misfit)?;
            let data_key = secret.lane_key(lane.0, &fixed, &descriptor);
            let engine: Engine = domicile.engines(open.descriptor.suite).bulk;
            let opener = LaneOpener::new(&header, lane, &open, &data_key, engine)?;
            let (scope, period) = (open.descriptor.scope.clone(), open.descriptor.period);
            let needs_its_end = is_finished || lane == LaneNo::REGION;
            let mut of_lane = ReadableLane::new(place, open.descriptor, opener, None);
            if needs_its_end {
                of_lane.read_end(&file)?;
            }
            if let Some(broken) = of_lane.broken_end.take_if(|_| is_finished) {
                return Err(broken.error);
            }
            lanes.insert(lane, PostLane { scope, period, data_key });
            readable.insert(lane, of_lane);
        }
        let segment = Segment::of_lanes(file, readable)?;
        let without_end = digest_without_end(&segment)?;
        let (digests, summary, cut_short) = if is_finished {
            let (digest, summary) = finished(&segment, &admission, &claim)?;
            (Digests { said: digest, others: vec![without_end] }, summary, None)
        } else {
            let (digest, summary, extent) = cut_short(&segment, &admission, &claim)?;
            (Digests { said: without_end, others: digest.into_iter().collect() }, summary, Some(extent))
        };
        let before = posts.adopted(&claim.post, &header.id.0, &digests.all()).await?;
        let (before, post) = (before.map(|before| before.leaf), claim.post);
        Ok(Self { domicile, posts, segment, lanes, admission, post, digests, summary, before, cut_short })
    }

    /// The post that sealed it.
    #[must_use]
    pub fn post(&self) -> &PostId {
        &self.post
    }

    /// Whether the post ended the segment, and signed how far it goes. If not, a crash cut it short or it is still written, and
    /// what is [written](Self::write) says so: its state is `recovered`.
    #[must_use]
    pub fn had_end(&self) -> bool {
        self.segment.state.is_whole()
    }

    /// What of the file is no part of the segment, and is not adopted.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.cut_short.as_ref()?.cut(self.segment.file.length)
    }

    /// The octets that are cut, in pieces.
    ///
    /// # Errors
    /// [`InputFailed`](Code::InputFailed) when they cannot be read, or what `keep` returned.
    pub fn for_each_cut(&self, mut keep: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(extent) = &self.cut_short else { return Ok(()) };
        extent.for_each_cut(&self.segment.file, &mut keep)
    }

    /// The octets that the post's caller kept beside the newest commit that has any, where it has no footer.
    #[must_use]
    pub fn caller(&self) -> &[u8] {
        self.cut_short.as_ref().map_or(&[], |extent| &extent.caller)
    }

    /// What the segment holds; octets of the file are those of the post's. Where it has no end, nobody counted its records.
    #[must_use]
    pub fn summary(&self) -> &SegmentSummary {
        &self.summary
    }

    /// Whether it was adopted before. Its file, if it is lost, may be [written](Self::write) again: under the same
    /// segment leaf, so that what ends the one ends the other.
    #[must_use]
    pub fn was_adopted(&self) -> bool {
        self.before.is_some()
    }

    /// Says in the home's ledger that the segment is adopted, and writes it: the same blocks, with the data keys
    /// wrapped under fresh leaves, one edition on, durable as far as the sink is. It says so before it writes, and once it
    /// has the keys of every lane: a file that is lost in between is written again.
    ///
    /// A lane whose scope's keys of the period were destroyed before it came reads as erased from the start, and one that was erased
    /// since it was adopted before stays so; returned are the scopes of such lanes. They keep no other lane from being adopted.
    ///
    /// # Errors
    /// Whatever keeps the keys, the ledger or the audit chain from being had; [`OutputFailed`](Code::OutputFailed).
    pub async fn write<O: Sink>(mut self, mut sink: O) -> Result<(O, SegmentSummary, Vec<Scope>)> {
        let leaf = self.segment_leaf().await?;
        let (mut leaves, mut ended) = (BTreeMap::new(), BTreeSet::new());
        for (lane, PostLane { scope, period, .. }) in &self.lanes {
            let at = |error: Error| error.at(format!("lane {lane}, scope {scope}"));
            let permit = lane_permit(self.domicile, &self.segment.file.header.place, scope).await?;
            let of_lane = self.domicile.keyring().adopting_leaf(permit, *period).await.map_err(at)?;
            if matches!(of_lane, AdoptingLeaf::Ended(_)) {
                ended.insert(scope.clone());
            }
            leaves.insert(*lane, of_lane);
        }
        let Digests { said, others } = &self.digests;
        let segment = self.segment.file.header.id.0;
        let leaf = match self.posts.adopt(&self.admission, segment, *said, others, leaf.leaf()).await? {
            Adopted::Now => leaf,
            Adopted::Before(said) => {
                self.leave_erased(&mut leaves, &mut ended).await?;
                if said.leaf == leaf.leaf() { leaf } else { self.leaf_of(said.leaf).await? }
            }
        };
        let summary = match self.cut_short.take() {
            Some(extent) => {
                let summary = self.close(&extent, leaves, &leaf, &mut sink)?;
                // It vouches for itself: a chain that is out of reach does not undo it.
                let event = summary.event(EventKind::Recover).post(self.post.as_str());
                self.domicile.audit().record_when_possible(&[event]).await?;
                summary
            }
            None => {
                let file_bytes = rewrite(&self.segment.file, &mut sink, |lane, open| {
                    let of_lane = leaves.remove(&lane).ok_or_else(changed)?;
                    self.adopted_opening(lane, open, of_lane, &leaf)
                })?;
                SegmentSummary { file_bytes, ..self.summary }
            }
        };
        Ok((sink, summary, ended.into_iter().collect()))
    }

    /// Writes what there is of a segment without a footer. Lane 0 is sealed anew by its home where the post never ended it, under
    /// a data key that is none of the post's.
    fn close<O: Sink>(
        &mut self,
        extent: &Extent,
        mut leaves: BTreeMap<LaneNo, AdoptingLeaf>,
        leaf: &SegmentLeaf,
        sink: &mut O,
    ) -> Result<SegmentSummary> {
        let region = if self.had_end() {
            Region::Stays((self.summary.lanes, self.summary.records, self.summary.bytes))
        } else {
            let (old, of_lane) =
                self.segment.region.take().zip(leaves.remove(&LaneNo::REGION)).ok_or_else(changed)?;
            let wrap = move |key: &DataKey, owner: &Owner| of_lane.wrap(leaf, key, owner);
            Region::Anew(Box::new(RegionAnew { old, wrap: Box::new(wrap) }))
        };
        close(self.domicile, &self.segment.file, extent, region, sink, |lane, open| {
            let of_lane = leaves.remove(&lane).ok_or_else(changed)?;
            self.adopted_opening(lane, open, of_lane, leaf)
        })
    }

    /// What was erased of the segment since it was adopted before stays so.
    async fn leave_erased(
        &self,
        leaves: &mut BTreeMap<LaneNo, AdoptingLeaf>,
        ended: &mut BTreeSet<Scope>,
    ) -> Result<()> {
        let permit = self.domicile.permit_region(&self.posts.place().region, Action::Seal).await?;
        let segment = &self.segment.file.header.id.0;
        for (lane, leaf) in self.domicile.keyring().erased_leaves(&permit, segment).await? {
            let lane = LaneNo(lane);
            if let Some(PostLane { scope, .. }) = self.lanes.get(&lane) {
                ended.insert(scope.clone());
                leaves.insert(lane, leaf);
            }
        }
        Ok(())
    }

    async fn segment_leaf(&self) -> Result<SegmentLeaf> {
        if let Some(leaf) = self.before {
            return self.leaf_of(leaf).await;
        }
        let region = &self.posts.place().region;
        let period = self.domicile.period(&RecordType::SEGMENT, self.domicile.now())?;
        let permit = self.domicile.permit_region(region, Action::Seal).await?;
        self.domicile.keyring().segment_leaf(permit, period).await
    }

    async fn leaf_of(&self, leaf: LeafRef) -> Result<SegmentLeaf> {
        let permit = self.domicile.permit_region(&self.posts.place().region, Action::Seal).await?;
        let segment = self.segment.file.header.id.0;
        self.domicile.keyring().segment_leaf_of(permit, leaf, segment).await
    }

    /// The opening of a lane with its data key wrapped; the secret that it was sealed to is left out.
    fn adopted_opening(
        &self,
        lane: LaneNo,
        open: LaneOpen,
        leaf: AdoptingLeaf,
        segment_leaf: &SegmentLeaf,
    ) -> Result<LaneOpen> {
        let header = &self.segment.file.header;
        let PostLane { scope, period, data_key } = self.lanes.get(&lane).ok_or_else(changed)?;
        if (scope, period) != (&open.descriptor.scope, &open.descriptor.period) {
            return Err(changed());
        }
        let descriptor = open.descriptor.encode().map_err(misfit)?;
        let owner = lane_key::owner(header, &descriptor, &open.commitment);
        let wrapped = Some(leaf.wrap(segment_leaf, data_key, &owner)?);
        Ok(LaneOpen { wrapped, post: open.post.map(PostSeal::adopted), ..open })
    }
}

/// Whether a refusal is of the post, and not of a home.
fn of_a_post(code: Code) -> bool {
    matches!(code, Code::PostUnknown | Code::PostScope | Code::PostExpired | Code::PostReplayed)
}

fn claim_of(open: &LaneOpen) -> Option<(Claim, domicile::encapsulation::Encapsulation)> {
    match &open.post {
        Some(PostSeal::Segment { claim, encapsulation: Some(sealed), .. }) if open.wrapped.is_none() => {
            Some((claim.clone(), sealed.clone()))
        }
        _ => None,
    }
}

/// A segment with its footer: all of it must be as it was sealed. Its digest, and what it holds.
fn finished<S: Source>(
    segment: &Segment<S>,
    admission: &Admission,
    claim: &Claim,
) -> Result<([u8; 32], SegmentSummary)> {
    let verification = segment.verify()?;
    if !verification.is_complete() {
        return Err(not_whole(segment.state(), &verification));
    }
    check_end(segment, admission, claim)
}

/// A segment without one: how far it goes, and what it holds. Its digest where the footer alone is missing.
fn cut_short<S: Source>(
    segment: &Segment<S>,
    admission: &Admission,
    claim: &Claim,
) -> Result<(Option<[u8; 32]>, SegmentSummary, Extent)> {
    if !matches!(segment.state(), State::Complete | State::Unfinished | State::Torn { .. }) {
        return Err(not_whole(segment.state(), &segment.verify()?));
    }
    let extent = Extent::of(segment, Looking::Everything)?;
    if segment.state.is_whole() {
        let verification = segment.verify()?;
        if verification.findings.iter().any(|finding| finding.at < extent.at) {
            return Err(not_whole(&State::Corrupt { what: "before its end".to_owned() }, &verification));
        }
        let (digest, summary) = check_end(segment, admission, claim)?;
        return Ok((Some(digest), summary, extent));
    }
    let header = &segment.file.header;
    let summary = SegmentSummary {
        id: header.id,
        place: header.place.clone(),
        created: header.created,
        origin: header.origin,
        lanes: u32::try_from(segment.lanes.len()).unwrap_or(u32::MAX),
        blocks: extent.blocks,
        records: 0,
        bytes: 0,
        file_bytes: segment.file.length,
        digest: digest_without_end(segment)?,
    };
    Ok((None, summary, extent))
}

/// What the ledger takes for a segment that nobody signed the end of: the same for all that a crash may leave of it, however far
/// that goes. The commitment of lane 0 follows from the secret that the post drew for it.
fn digest_without_end<S: Source>(segment: &Segment<S>) -> Result<[u8; 32]> {
    let region = segment.region.as_ref().ok_or_else(changed)?;
    let open = read_lane_open(&segment.file, &region.place)?;
    let label: &[u8] = b"domicile/v1/post/adopted-unfinished";
    Ok(Sha256::digest(wire::parts(&[label, &segment.file.header.id.0, &open.commitment])).into())
}

/// What the post signed at the end; the digest of the whole, and what lane 0 says that it holds.
fn check_end<S: Source>(
    segment: &Segment<S>,
    admission: &Admission,
    claim: &Claim,
) -> Result<([u8; 32], SegmentSummary)> {
    let header = &segment.file.header;
    let unsigned = || Error::new(Code::PostForged, "the end of the segment was not signed by its post");
    let end = segment.region.as_ref().and_then(|region| region.end.as_ref()).ok_or_else(unsigned)?;
    let signature = end.end.sections.iter().rev().find_map(|section| match section {
        Section::PostEnd(signature) => Some(signature),
        _ => None,
    });
    let (summary, signature) = end.end.summary().zip(signature).ok_or_else(unsigned)?;
    // What a crash cut short is closed by its home, and by nobody before.
    if summary.recovered {
        return Err(unsigned());
    }
    admission.verify(&claim.of_end(&header.fixed(), summary.blocks, &summary.running_hash), signature)?;
    let digest = wire::parts(&[b"domicile/v1/post/adopted", &header.id.0, &summary.running_hash, &end.hash]);
    let digest: [u8; 32] = Sha256::digest(digest).into();
    let summary = SegmentSummary {
        id: header.id,
        place: header.place.clone(),
        created: header.created,
        origin: header.origin,
        lanes: summary.lanes,
        blocks: summary.blocks.saturating_add(1),
        records: summary.records,
        bytes: summary.bytes,
        file_bytes: segment.file.length,
        digest,
    };
    Ok((digest, summary))
}

fn not_whole(state: &State, verification: &crate::Verification) -> Error {
    let code = match state {
        State::Unfinished => Code::SegmentUnfinished,
        State::Torn { .. } => Code::SegmentTorn,
        _ => Code::SegmentCorrupt,
    };
    let found = verification.findings.first().map(|finding| finding.what.clone());
    let error = Error::new(code, "this segment is not as its post sealed it, or has no end")
        .advise("take the file from the post again; a post keeps its copy until it is adopted");
    error.at(found.unwrap_or_else(|| state.to_string()))
}

const NO_SEAL: wire::Malformed = wire::Malformed { what: "seal of a post", at: 0 };

fn misfit(source: wire::Malformed) -> Error {
    Error::new(Code::SegmentCorrupt, "a structure of the segment does not fit").because(source)
}
