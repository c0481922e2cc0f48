//! The home's side of [posts](crate::post): who may seal for it, with which keys, and what it has adopted.
//!
//! All of it stands in the region's signed ledger, which is followed from its beginning: what the store leaves out of a
//! list would be a post that was revoked.

mod said;

use std::collections::{BTreeMap, BTreeSet};

pub use said::{Adoption, BundleIssue, Enrolment, Revocation};

use crate::audit::{AuditChain, Event, EventKind};
use crate::encapsulation::Encapsulation;
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::guard::{Action, Guard, Permit};
use crate::keyring::{Keyring, LeafRef};
use crate::kms::Kms;
use crate::ledger::{Ledger, StatementKind, content, overtaken};
use crate::period::{Period, PeriodUnit};
use crate::post::{
    Bundle, BundleTerms, Claim, DayKey, Permitted, PostId, PostPublic, PostScope, SegmentSecret,
};
use crate::region::Place;
use crate::scope::{RecordType, Scope};
use crate::store::Written;
use crate::time::{Clock, Time};

/// Posts of one region, as its home sees them.
///
/// It remembers how far it has followed the ledger: keep one for many segments.
#[derive(Debug)]
pub struct Posts<'a> {
    pub(crate) place: Place,
    pub(crate) guard: &'a Guard,
    pub(crate) keyring: &'a Keyring,
    pub(crate) audit: &'a AuditChain,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) periods: &'a BTreeMap<RecordType, PeriodUnit>,
    pub(crate) ledger: Ledger,
    pub(crate) view: tokio::sync::Mutex<View>,
}

/// What the ledger says of posts, up to an entry.
#[derive(Debug, Default)]
pub(crate) struct View {
    after: u64,
    previous: Option<[u8; 32]>,
    posts: BTreeMap<PostId, Standing>,
    bundles: BTreeMap<u64, BundleIssue>,
    adopted: BTreeMap<(PostId, [u8; 32]), Adoption>,
}

#[derive(Debug, Clone)]
struct Standing {
    enrolment: Enrolment,
    enrolled: Time,
    revoked: Option<Time>,
}

/// A post, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostState {
    /// Its name, key and scopes.
    pub enrolment: Enrolment,
    /// When it was last enrolled.
    pub enrolled: Time,
    /// When it was revoked, if it was.
    pub revoked: Option<Time>,
    /// Segments of it that were adopted.
    pub adopted: u64,
}

/// A post's claim to a segment that the home has found good: the key that verifies what else the post signed of it.
#[derive(Debug)]
pub struct Admission {
    enrolment: Enrolment,
    claim: Claim,
}

impl Admission {
    /// Checks what the post signed of the segment.
    ///
    /// # Errors
    /// [`PostForged`](Code::PostForged).
    pub fn verify(&self, statement: &[u8], signature: &[u8; 64]) -> Result<()> {
        self.enrolment.public.key.verify(statement, signature).map_err(|Unverified| {
            let post = &self.enrolment.public.id;
            Error::new(Code::PostForged, format!("this was not signed by the post {post}"))
                .advise("take the file from the post itself, unchanged")
        })
    }

    /// Whether the post may seal records of a scope.
    ///
    /// # Errors
    /// [`PostScope`](Code::PostScope).
    pub fn check(&self, scope: &Scope) -> Result<()> {
        if self.enrolment.scopes.iter().any(|allowed| allowed.covers(scope)) {
            return Ok(());
        }
        let post = &self.enrolment.public.id;
        Err(Error::new(Code::PostScope, format!("the post {post} may not seal records of {scope}"))
            .rule("a post seals for the scopes for which it is enrolled")
            .advise("find out why it did; enrol it for the scope only if it should have"))
    }
}

/// What came of saying that a segment is adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "now or before: there is no third")]
pub enum Adopted {
    /// It is, from now on.
    Now,
    /// It was, before; this is what was said then.
    Before(Adoption),
}

impl Posts<'_> {
    /// The region.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Enrols a post for scopes, or enrols it anew: what was said of it before no longer counts.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for no scopes or too many; those of the key service, the store and
    /// the audit chain.
    pub async fn enrol(&self, public: PostPublic, mut scopes: Vec<PostScope>) -> Result<u64> {
        scopes.sort();
        scopes.dedup();
        if scopes.is_empty() || scopes.len() > PostScope::COUNT_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "a post is enrolled for 1 to 4,096 scopes"));
        }
        let events: Vec<_> = scopes
            .iter()
            .map(|scope| {
                self.event(EventKind::Enrol, &public.id)
                    .tenant_and_types(scope.tenant.as_str(), scope.types.as_str())
            })
            .collect();
        self.audit.record(&events).await?;
        self.ledger.say(&Enrolment { public, scopes }).await
    }

    /// Revokes a post: nothing of it is adopted any more, whenever it was sealed. When it was is the post's own
    /// word, and its key may be somebody else's by now.
    ///
    /// # Errors
    /// [`PostUnknown`](Code::PostUnknown) when it is not enrolled; those of the key service, the store and the audit
    /// chain.
    pub async fn revoke(&self, post: &PostId) -> Result<u64> {
        self.follow().await?.standing(post)?;
        self.audit.record(&[self.event(EventKind::Revoke, post)]).await?;
        self.ledger.say(&Revocation { post: post.clone() }).await
    }

    /// All posts that were ever enrolled, by name.
    ///
    /// # Errors
    /// Those of the store; [`KeyUnverified`](Code::KeyUnverified) for a ledger that was changed.
    pub async fn list(&self) -> Result<Vec<PostState>> {
        let view = self.follow().await?;
        let state = |(post, standing): (&PostId, &Standing)| PostState {
            enrolment: standing.enrolment.clone(),
            enrolled: standing.enrolled,
            revoked: standing.revoked,
            adopted: view.adopted.keys().filter(|(of, _)| of == post).count() as u64,
        };
        Ok(view.posts.iter().map(state).collect())
    }

    /// Signs a bundle for all posts that are enrolled, or for these alone; returns it and its file. The keys of its
    /// days are made where they are not there yet.
    ///
    /// # Errors
    /// [`PostUnknown`](Code::PostUnknown) when there is no such post, or none; [`ArgumentInvalid`](Code::ArgumentInvalid)
    /// for no days or too many; whatever keeps the keys from being had.
    pub async fn issue(&self, only: &[PostId], terms: BundleTerms) -> Result<(Bundle, Vec<u8>)> {
        let permitted = self.permitted(only).await?;
        if terms.days == 0 || usize::from(terms.days) > Bundle::DAYS_MAX {
            return Err(Error::new(Code::ArgumentInvalid, "a bundle has keys for 1 to 62 days"));
        }
        let issued = self.clock.now();
        let mut days = vec![Period::containing(issued, PeriodUnit::Day)?];
        for _ in 1..terms.days {
            let behind = days.last().map_or(i64::MAX, |day| day.bounds().end);
            days.push(Period::containing(Time::from_micros(behind)?, PeriodUnit::Day)?);
        }
        let not_after = Time::from_micros(days.last().map_or(i64::MAX, |day| day.bounds().end))?;
        let shipping = i64::from(terms.shipping_days).saturating_mul(DAY_MICROS);
        let destroy_after = Time::from_micros(not_after.micros().saturating_add(shipping))?;
        let keys = self.keyring.post_keys(&self.permit()?, &days).await?;

        let events: Vec<_> =
            permitted.iter().map(|permitted| self.event(EventKind::Issue, &permitted.post)).collect();
        self.audit.record(&events).await?;
        let posts = permitted.iter().map(|permitted| permitted.post.clone()).collect();
        let issue = BundleIssue { not_after, destroy_after, days: days.clone(), posts };
        let serial = self.ledger.say(&issue).await?;
        let keys = days.into_iter().zip(keys).map(|(day, key)| DayKey { day, key });
        let bundle = Bundle {
            place: self.place.clone(),
            serial,
            issued,
            not_after,
            destroy_after,
            keys: keys.collect(),
            periods: self.periods.iter().map(|(of, unit)| (of.clone(), *unit)).collect(),
            posts: permitted,
        };
        let too_long =
            |source| Error::new(Code::ArgumentInvalid, "this is too much for one bundle").because(source);
        let body = bundle.body().map_err(too_long)?;
        let signature = self.kms()?.sign(&body).await?;
        Ok((bundle, Bundle::file(&body, &signature).map_err(too_long)?))
    }

    /// Days whose keys nothing that is still to be adopted can need: every bundle with them is past its
    /// destroy-after.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn days_due(&self) -> Result<Vec<Period>> {
        let (view, now) = (self.follow().await?, self.clock.now());
        let (mut due, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for issue in view.bundles.values() {
            let of = if issue.destroy_after < now { &mut due } else { &mut needed };
            of.extend(issue.days.iter().copied());
        }
        Ok(due.difference(&needed).copied().collect())
    }

    /// Judges a post's claim to a segment: whether the post is enrolled and not revoked, and the bundle was given to
    /// it and still counts. What it signed is not looked at yet.
    ///
    /// # Errors
    /// [`PostUnknown`](Code::PostUnknown), [`PostExpired`](Code::PostExpired), [`PostForged`](Code::PostForged); as
    /// [`list`](Self::list).
    pub async fn admit(&self, claim: &Claim, created: Time) -> Result<Admission> {
        let view = self.follow().await?;
        let enrolment = view.standing(&claim.post)?.clone();
        let forged = |what: &str| {
            Error::new(Code::PostForged, what.to_owned()).rule(format!("bundle {}", claim.serial))
        };
        let issue = view
            .bundles
            .get(&claim.serial)
            .ok_or_else(|| forged("the home never signed the bundle that this segment was sealed with"))?;
        if !issue.posts.contains(&claim.post) {
            return Err(forged("the bundle that this segment was sealed with was not given to its post"));
        }
        let in_its_time = created < issue.not_after && issue.days.contains(&claim.day);
        if !in_its_time {
            return Err(forged("this segment says that it was sealed outside the time of its bundle"));
        }
        if self.clock.now() > issue.destroy_after {
            return Err(Error::new(Code::PostExpired, "this segment came too late to be adopted")
                .rule(format!("the home keeps its keys until {}", issue.destroy_after))
                .advise("give bundles a longer shipping time, and see why it was so long under way"));
        }
        Ok(Admission { enrolment, claim: claim.clone() })
    }

    /// The secret of an admitted segment with this fixed header.
    ///
    /// # Errors
    /// [`PostForged`](Code::PostForged) when it does not open; whatever keeps the key from being had.
    pub async fn open(
        &self,
        admission: &Admission,
        encapsulation: &Encapsulation,
        header: &[u8],
    ) -> Result<SegmentSecret> {
        let claim = &admission.claim;
        if encapsulation.digest() != claim.encapsulation_digest {
            return Err(Error::new(
                Code::PostForged,
                "the secret of the segment is not what the post signed",
            ));
        }
        let info = claim.info(&self.place.region, header);
        let secret =
            self.keyring.open_encapsulation(&self.permit()?, claim.day, encapsulation, &info).await?;
        Ok(SegmentSecret::new(secret))
    }

    /// What was said before of a segment of a post, with one of these digests.
    ///
    /// # Errors
    /// [`PostReplayed`](Code::PostReplayed) when it was adopted with other contents; as [`list`](Self::list).
    pub async fn adopted(
        &self,
        post: &PostId,
        segment: &[u8; 32],
        digests: &[[u8; 32]],
    ) -> Result<Option<Adoption>> {
        self.follow().await?.adopted(post, segment, digests)
    }

    /// Says that a segment is adopted: once, whoever else says so at the same time, with `digest`. That it was before with one
    /// of `others` is as good.
    ///
    /// # Errors
    /// As [`adopted`](Self::adopted); [`PostUnknown`](Code::PostUnknown) when the post was revoked meanwhile; those of
    /// the key service and the audit chain.
    pub async fn adopt(
        &self,
        admission: &Admission,
        segment: [u8; 32],
        digest: [u8; 32],
        others: &[[u8; 32]],
        leaf: LeafRef,
    ) -> Result<Adopted> {
        let post = &admission.claim.post;
        let known: Vec<_> = others.iter().copied().chain([digest]).collect();
        let serial = admission.claim.serial;
        let adoption = Adoption { post: post.clone(), serial, segment, digest, leaf };
        let event = self.event(EventKind::Adopt, post).segment(&segment).digest(&digest);
        self.audit.record(&[event]).await?;
        for _ in 0..TRIES {
            let after = {
                let view = self.follow().await?;
                if let Some(before) = view.adopted(post, &segment, &known)? {
                    return Ok(Adopted::Before(before));
                }
                if *view.standing(post)? != admission.enrolment {
                    return Err(unknown(post, "was enrolled anew meanwhile"));
                }
                view.after
            };
            let entry = self.ledger.sign(&adoption).await?;
            // What was looked at is what the entry follows, or it is looked at again.
            if entry.number == after + 1
                && let Written::Done { .. } = self.ledger.write(Vec::new(), Some(entry)).await?
            {
                return Ok(Adopted::Now);
            }
        }
        Err(overtaken(&self.place.region))
    }

    async fn permitted(&self, only: &[PostId]) -> Result<Vec<Permitted>> {
        let view = self.follow().await?;
        let names: BTreeSet<&PostId> = if only.is_empty() {
            view.posts.iter().filter(|(_, standing)| standing.revoked.is_none()).map(|(id, _)| id).collect()
        } else {
            only.iter().collect()
        };
        if names.is_empty() || names.len() > Bundle::POSTS_MAX {
            return Err(Error::new(
                Code::PostUnknown,
                "there are no posts to sign a bundle for, or too many",
            )
            .advise("enrol one with `domicile post enrol`; name those that it is for, if there are many"));
        }
        let permitted =
            |id: &PostId| Ok(Permitted { post: id.clone(), scopes: view.standing(id)?.scopes.clone() });
        names.into_iter().map(permitted).collect()
    }

    fn kms(&self) -> Result<&dyn Kms> {
        self.ledger.kms.as_deref().ok_or_else(|| {
            Error::new(Code::KmsUnavailable, format!("the signing key of {} is not at hand", self.place))
        })
    }

    fn permit(&self) -> Result<Permit> {
        self.guard.permit_region(&self.place, &[], Action::Seal)
    }

    fn event(&self, kind: EventKind, post: &PostId) -> Event {
        Event::new(kind).region(&self.place.region).post(post.as_str())
    }

    /// The view, after what was said since.
    async fn follow(&self) -> Result<tokio::sync::MutexGuard<'_, View>> {
        let mut view = self.view.lock().await;
        let (after, previous) = (view.after, view.previous);
        let mut seen = Vec::new();
        let (after, previous) = self
            .ledger
            .follow(after, previous, |statement, _| {
                seen.push(statement.clone());
                Ok(())
            })
            .await?;
        for statement in &seen {
            view.take(statement)?;
        }
        (view.after, view.previous) = (after, previous);
        Ok(view)
    }
}

/// How many times somebody else may be faster before an adoption gives up.
const TRIES: u32 = 64;

const DAY_MICROS: i64 = 86_400_000_000;

impl View {
    fn take(&mut self, statement: &crate::ledger::Statement) -> Result<()> {
        match statement.kind {
            StatementKind::PostEnrolled => {
                let enrolment: Enrolment = content(statement)?;
                let standing =
                    Standing { enrolled: statement.said, revoked: None, enrolment: enrolment.clone() };
                self.posts.insert(enrolment.public.id, standing);
            }
            StatementKind::PostRevoked => {
                let Revocation { post } = content(statement)?;
                if let Some(standing) = self.posts.get_mut(&post) {
                    standing.revoked = Some(statement.said);
                }
            }
            StatementKind::BundleIssued => {
                self.bundles.insert(statement.number, content(statement)?);
            }
            StatementKind::Adopted => {
                let adoption: Adoption = content(statement)?;
                // The first counts.
                self.adopted.entry((adoption.post.clone(), adoption.segment)).or_insert(adoption);
            }
            _ => {}
        }
        Ok(())
    }

    fn standing(&self, post: &PostId) -> Result<&Enrolment> {
        match self.posts.get(post) {
            Some(Standing { enrolment, revoked: None, .. }) => Ok(enrolment),
            Some(Standing { revoked: Some(when), .. }) => {
                Err(unknown(post, &format!("was revoked at {when}")))
            }
            None => Err(unknown(post, "is not enrolled")),
        }
    }

    fn adopted(&self, post: &PostId, segment: &[u8; 32], digests: &[[u8; 32]]) -> Result<Option<Adoption>> {
        match self.adopted.get(&(post.clone(), *segment)) {
            Some(adoption) if digests.contains(&adoption.digest) => Ok(Some(adoption.clone())),
            Some(_) => Err(Error::new(
                Code::PostReplayed,
                format!("another segment of the post {post} was adopted under this name"),
            )
            .rule("a segment is adopted once, as it was then; a copy without its end counts for nothing behind it")
            .advise("open what was adopted; if this is no earlier copy of it, revoke the post: it, or whoever has its key, sealed twice under one name")),
            None => Ok(None),
        }
    }
}

fn unknown(post: &PostId, what: &str) -> Error {
    Error::new(Code::PostUnknown, format!("the post {post} {what}"))
        .rule("a home adopts what posts sealed that it has enrolled, and not revoked")
        .advise("enrol it with `domicile post enrol`, if it is to be trusted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_as_many_microseconds_as_its_period() {
        let day: Period = "2026-11-25".parse().unwrap();
        assert_eq!(day.bounds().end - day.bounds().start, DAY_MICROS);
    }
}
