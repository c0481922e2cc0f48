//! Adopting what posts sealed: everything is verified, then the data keys are wrapped under the home's own, and the
//! blocks are written as they were.

use std::collections::{BTreeMap, BTreeSet};

use domicile::engine::Engine;
use domicile::keyring::{AdoptingLeaf, DataKey, LeafRef, SegmentLeaf};
use domicile::post::{Claim, PostId, PostSeal};
use domicile::posts::{Admission, Adopted, Posts};
use domicile::{Action, Code, Domicile, Error, Period, RecordType, Result, Scope, wire};
use sha2::{Digest, Sha256};

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
    digest: [u8; 32],
    summary: SegmentSummary,
    before: Option<LeafRef>,
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
    /// # Errors
    /// [`PostUnknown`](Code::PostUnknown), [`PostScope`](Code::PostScope), [`PostExpired`](Code::PostExpired),
    /// [`PostReplayed`](Code::PostReplayed), [`PostForged`](Code::PostForged); [`HomeMismatch`](Code::HomeMismatch) and
    /// the like for scopes that are not at home here; [`SegmentUnfinished`](Code::SegmentUnfinished) and the like for
    /// what is not whole; whatever keeps the keys from being had.
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
            let mut of_lane = ReadableLane::new(&file, place, open.descriptor, opener, None)?;
            if let Some(broken) = of_lane.broken_end.take() {
                return Err(broken.error);
            }
            lanes.insert(lane, PostLane { scope, period, data_key });
            readable.insert(lane, of_lane);
        }
        let segment = Segment::of_lanes(file, readable)?;
        let verification = segment.verify()?;
        if !verification.is_complete() {
            return Err(not_whole(segment.state(), &verification));
        }
        let (digest, summary) = check_end(&segment, &admission, &claim)?;
        let before = posts.adopted(&claim.post, &header.id.0, &digest).await?.map(|before| before.leaf);
        let post = claim.post;
        Ok(Self { domicile, posts, segment, lanes, admission, post, digest, summary, before })
    }

    /// The post that sealed it.
    #[must_use]
    pub fn post(&self) -> &PostId {
        &self.post
    }

    /// What the segment holds; octets of the file are those of the post's.
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
    /// A lane whose scope's keys of the period were destroyed before it came reads as erased from the start; returned are
    /// the scopes of such lanes. It keeps no other lane from being adopted.
    ///
    /// # Errors
    /// Whatever keeps the keys, the ledger or the audit chain from being had; [`OutputFailed`](Code::OutputFailed).
    pub async fn write<O: Sink>(self, mut sink: O) -> Result<(O, SegmentSummary, Vec<Scope>)> {
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
        let leaf = match self
            .posts
            .adopt(&self.admission, self.segment.file.header.id.0, self.digest, leaf.leaf())
            .await?
        {
            Adopted::Now => leaf,
            Adopted::Before(said) if said.leaf == leaf.leaf() => leaf,
            Adopted::Before(said) => self.leaf_of(said.leaf).await?,
        };
        let file_bytes = rewrite(&self.segment.file, &mut sink, |lane, open| {
            let of_lane = leaves.remove(&lane).ok_or_else(changed)?;
            self.adopted_opening(lane, open, of_lane, &leaf)
        })?;
        Ok((sink, SegmentSummary { file_bytes, ..self.summary }, ended.into_iter().collect()))
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
