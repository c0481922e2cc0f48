//! Posts: hosts that may seal for a home, and can open nothing that they have closed.
//!
//! A post holds a *bundle*, signed by the home: the public keys of the next days. It holds no key that opens
//! anything, no key store and no key service. For each segment it draws a secret, seals it to the key of the day
//! ([`encapsulation`](crate::encapsulation)), derives the data keys of the segment's lanes from it, and forgets it when
//! the segment ends. It signs what it seals with a key of its own, which the home has *enrolled* for named scopes:
//! else whoever has the bundle, which is no secret, could forge records. The home *adopts* a segment once, and opens
//! nothing that it has not adopted.
//!
//! What stands here needs no store: the home's side is behind [`Domicile::posts`](crate::Domicile). Formats: page `keys.md` of the book,
//! KEY-30 to KEY-38.

mod bundle;
mod claim;
mod identity;
mod scopes;

use std::sync::Arc;

pub use bundle::{Bundle, BundleTerms, DayKey, Permitted};
pub use claim::{Claim, PostSeal};
pub use identity::{PostIdentity, PostPublic};
pub use scopes::{PostId, PostScope};

use crate::encapsulation::Encapsulation;
use crate::error::{Code, Error, Result};
use crate::kdf;
use crate::keyring::DataKey;
use crate::period::{Period, PeriodUnit};
use crate::random::Randomness;
use crate::region::Place;
use crate::scope::{RecordType, Scope};
use crate::secret::Secret;
use crate::time::{Clock, Time};
use crate::wire;

/// A post as it seals: its identity, and a bundle that is for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Post {
    identity: Arc<PostIdentity>,
    bundle: Arc<Bundle>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
}

impl Post {
    /// A post with a bundle, which was verified when it was read.
    ///
    /// # Errors
    /// [`PostScope`](Code::PostScope) when the bundle is not for this post; [`PostExpired`](Code::PostExpired) when its
    /// time is over.
    pub fn new(
        identity: Arc<PostIdentity>,
        bundle: Bundle,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
    ) -> Result<Self> {
        let post = Self { identity, bundle: Arc::new(bundle), clock, randomness };
        if post.bundle.scopes_of(post.id()).is_none() {
            return Err(Error::new(
                Code::PostScope,
                format!("this bundle is not for the post {}", post.id()),
            )
            .rule(format!("bundle {} of {}", post.bundle.serial, post.place()))
            .advise("enrol the post at home, and export a new bundle"));
        }
        post.check_time()?;
        Ok(post)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &PostId {
        self.identity.id()
    }

    /// The home that it seals for.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.bundle.place
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The present instant, by this post's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Where secrets and nonces come from.
    #[must_use]
    pub fn randomness(&self) -> &Arc<dyn Randomness> {
        &self.randomness
    }

    /// The period of a record of this type at this time, as the home cuts them.
    ///
    /// # Errors
    /// [`InputTime`](Code::InputTime) for a time that no period's name can show.
    pub fn period(&self, record_type: &RecordType, time: Time) -> Result<Period> {
        let units = self.bundle.periods.iter();
        let unit = units.filter(|(of, _)| of == record_type).map(|(_, unit)| *unit).next();
        Period::containing(time, unit.unwrap_or_default())
    }

    /// Whether this post may seal records of a scope now.
    ///
    /// # Errors
    /// [`PostScope`](Code::PostScope) or [`PostExpired`](Code::PostExpired).
    pub fn check(&self, scope: &Scope) -> Result<()> {
        self.check_time()?;
        let scopes = self.bundle.scopes_of(self.id()).unwrap_or_default();
        if scopes.iter().any(|allowed| allowed.covers(scope)) {
            return Ok(());
        }
        Err(Error::new(Code::PostScope, format!("the post {} may not seal records of {scope}", self.id()))
            .rule(format!("bundle {} of {} names its scopes", self.bundle.serial, self.place()))
            .advise("enrol the post for the scope at home, and export a new bundle"))
    }

    /// Draws the secret of a segment with this fixed header, and seals it to the home's key of the day.
    ///
    /// # Errors
    /// [`PostExpired`](Code::PostExpired); [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn begin(&self, header: &[u8]) -> Result<PostSegment> {
        self.check_time()?;
        let day = Period::containing(self.now(), PeriodUnit::Day)?;
        let key = self.bundle.keys.iter().find(|key| key.day == day).ok_or_else(|| {
            Error::new(Code::PostExpired, format!("the bundle has no key for {day}")).advise(RENEW)
        })?;
        let secret = Secret::random(&*self.randomness)?;
        let mut claim = Claim {
            post: self.id().clone(),
            serial: self.bundle.serial,
            day,
            key_id: key.key.id(),
            encapsulation_digest: [0; 32],
        };
        let info = claim.info(&self.place().region, header);
        let encapsulation = Encapsulation::seal(&key.key, &info, &secret, &*self.randomness)?;
        claim.encapsulation_digest = encapsulation.digest();
        Ok(PostSegment {
            claim,
            encapsulation,
            secret: SegmentSecret(secret),
            identity: self.identity.clone(),
            header: header.to_vec(),
        })
    }

    fn check_time(&self) -> Result<()> {
        if self.now() < self.bundle.not_after {
            return Ok(());
        }
        Err(Error::new(Code::PostExpired, "the time of this bundle is over")
            .rule(format!(
                "bundle {} of {} ends at {}",
                self.bundle.serial,
                self.place(),
                self.bundle.not_after
            ))
            .advise(RENEW))
    }
}

const RENEW: &str = "export a new bundle at home and bring it here";

/// What a post keeps of a segment while it writes it. Dropped, nothing here opens the segment any more.
#[derive(Debug)]
pub struct PostSegment {
    claim: Claim,
    encapsulation: Encapsulation,
    secret: SegmentSecret,
    identity: Arc<PostIdentity>,
    header: Vec<u8>,
}

impl PostSegment {
    /// The data key of a lane.
    #[must_use]
    pub fn lane_key(&self, lane: u32, descriptor: &[u8]) -> DataKey {
        self.secret.lane_key(lane, &self.header, descriptor)
    }

    /// What stands in the opening of a lane beside its descriptor and commitment: of lane 0 the whole claim.
    #[must_use]
    pub fn seal_of_lane(&self, lane: u32, descriptor: &[u8], commitment: &[u8; 32]) -> PostSeal {
        let signature = self.identity.sign(&self.claim.of_lane(&self.header, lane, descriptor, commitment));
        match lane {
            0 => PostSeal::Segment {
                claim: self.claim.clone(),
                signature,
                encapsulation: Some(self.encapsulation.clone()),
            },
            _ => PostSeal::Lane { signature },
        }
    }

    /// The signature over everything before lane 0's end.
    #[must_use]
    pub fn seal_of_end(&self, blocks: u64, running_hash: &[u8; 32]) -> [u8; 64] {
        self.identity.sign(&self.claim.of_end(&self.header, blocks, running_hash))
    }
}

/// The secret of a post's segment: every data key of the segment follows from it.
#[derive(Debug)]
pub struct SegmentSecret(Secret);

impl SegmentSecret {
    pub(crate) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The data key of a lane, which depends on everything that the lane is bound to.
    #[must_use]
    pub fn lane_key(&self, lane: u32, header: &[u8], descriptor: &[u8]) -> DataKey {
        let info: [&[u8]; 4] = [b"domicile/v1/post/lane-key", &lane.to_be_bytes(), header, descriptor];
        DataKey::from_secret(kdf::derive(&self.0, &[], &info))
    }
}

/// What is authenticated with a segment's secret, beside the key that it is sealed to.
pub(crate) fn info_of(region: &str, header: &[u8], serial: u64, post: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let header = Sha256::digest(header);
    wire::parts(&[
        b"domicile/v1/post/segment-secret",
        region.as_bytes(),
        &header,
        &serial.to_be_bytes(),
        post.as_bytes(),
    ])
}
