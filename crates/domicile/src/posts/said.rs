//! What a home's ledger says of posts.

use crate::keyring::LeafRef;
use crate::kms::VerifyingKey;
use crate::ledger::{Said, StatementKind};
use crate::period::{Period, PeriodUnit};
use crate::post::{Bundle, PostId, PostPublic, PostScope};
use crate::puncture::LeafNumber;
use crate::store::KeyName;
use crate::time::Time;
use crate::wire::{Decoder, Encoder, Malformed};

/// A post may seal for scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Its name and key.
    pub public: PostPublic,
    /// The scopes, rising.
    pub scopes: Vec<PostScope>,
}

impl Said for Enrolment {
    const KIND: StatementKind = StatementKind::PostEnrolled;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        let VerifyingKey::Ed25519(key) = &self.public.key else {
            return Err(Malformed { what: "a post's key, which is Ed25519", at: 0 });
        };
        out.short(self.public.id.as_str().as_bytes(), "post")?.raw(key);
        PostScope::encode_list(&mut out, &self.scopes)?;
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let id = post(&mut input)?;
        let key = VerifyingKey::Ed25519(input.array("key")?);
        let scopes = PostScope::decode_list(&mut input)?;
        input.end("end of the enrolment")?;
        Ok(Self { public: PostPublic { id, key }, scopes })
    }
}

/// A post may seal for nobody any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The post.
    pub post: PostId,
}

impl Said for Revocation {
    const KIND: StatementKind = StatementKind::PostRevoked;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.short(self.post.as_str().as_bytes(), "post")?;
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let post = post(&mut input)?;
        input.end("end of the revocation")?;
        Ok(Self { post })
    }
}

/// A bundle was signed, whose serial is the number of this entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleIssue {
    /// Posts seal with it before this instant.
    pub not_after: Time,
    /// The private halves are kept until this instant.
    pub destroy_after: Time,
    /// The days of its keys, rising.
    pub days: Vec<Period>,
    /// The posts that it is for, rising.
    pub posts: Vec<PostId>,
}

impl Said for BundleIssue {
    const KIND: StatementKind = StatementKind::BundleIssued;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        if !self.is_canonical() {
            return Err(Malformed { what: "days or posts of the bundle", at: 0 });
        }
        let mut out = Encoder::new();
        out.i64(self.not_after.micros()).i64(self.destroy_after.micros()).count(self.days.len(), "days")?;
        for day in &self.days {
            out.short(day.to_string().as_bytes(), "day")?;
        }
        out.count(self.posts.len(), "posts")?;
        for post in &self.posts {
            out.short(post.as_str().as_bytes(), "post")?;
        }
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let bad = |what| Malformed { what, at: 0 };
        let mut time = || Time::from_micros(input.i64("time")?).map_err(|_| bad("time"));
        let (not_after, destroy_after) = (time()?, time()?);
        let count = input.count(2, "days")?.min(Bundle::DAYS_MAX + 1);
        let mut days = Vec::with_capacity(count);
        for _ in 0..count {
            days.push(input.text("day")?.parse().map_err(|_| bad("day"))?);
        }
        let count = input.count(2, "posts")?.min(Bundle::POSTS_MAX + 1);
        let mut posts = Vec::with_capacity(count);
        for _ in 0..count {
            posts.push(post(&mut input)?);
        }
        input.end("end of the bundle's entry")?;
        let issue = Self { not_after, destroy_after, days, posts };
        if issue.is_canonical() { Ok(issue) } else { Err(bad("days or posts of the bundle")) }
    }
}

impl BundleIssue {
    fn is_canonical(&self) -> bool {
        self.days.len() <= Bundle::DAYS_MAX
            && self.posts.len() <= Bundle::POSTS_MAX
            && self.days.is_sorted_by(|left, right| left < right)
            && self.days.iter().all(|day| day.unit() == PeriodUnit::Day)
            && self.posts.is_sorted_by(|left, right| left < right)
    }
}

/// A post's segment was adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The post.
    pub post: PostId,
    /// The serial of its bundle.
    pub serial: u64,
    /// The segment.
    pub segment: [u8; 32],
    /// The running hash behind lane 0's end: what the segment holds, however it is wrapped.
    pub digest: [u8; 32],
    /// The segment leaf of the adopted file: erasing it ends every copy.
    pub leaf: LeafRef,
}

impl Said for Adoption {
    const KIND: StatementKind = StatementKind::Adopted;

    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.short(self.post.as_str().as_bytes(), "post")?
            .u64(self.serial)
            .raw(&self.segment)
            .raw(&self.digest)
            .raw(&self.leaf.key.0)
            .u64(self.leaf.leaf.0);
        Ok(out.finish())
    }

    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(content);
        let adoption = Self {
            post: post(&mut input)?,
            serial: input.u64("serial")?,
            segment: input.array("segment")?,
            digest: input.array("digest")?,
            leaf: LeafRef { key: KeyName(input.array("key")?), leaf: LeafNumber(input.u64("leaf")?) },
        };
        input.end("end of the adoption")?;
        Ok(adoption)
    }
}

fn post(input: &mut Decoder<'_>) -> Result<PostId, Malformed> {
    let bad = input.malformed("post");
    input.text("post")?.parse().map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn reads_back<S: Said + PartialEq + Debug>(said: &S) {
        let bytes = said.encode().unwrap();
        assert_eq!(&S::decode(&bytes).unwrap(), said);
        for length in 0..bytes.len() {
            S::decode(&bytes[..length]).unwrap_err();
        }
        S::decode(&[&bytes[..], &[0]].concat()).unwrap_err();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = S::decode(&changed) {
                assert_eq!(other.encode().unwrap(), changed, "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_said_of_posts_reads_back_and_has_one_encoding() {
        let id: PostId = "edge-7".parse().unwrap();
        let key = VerifyingKey::Ed25519([3; 32]);
        let scopes = vec!["acme/fax".parse().unwrap(), "acme/all".parse().unwrap()];
        reads_back(&Enrolment { public: PostPublic { id: id.clone(), key }, scopes });
        reads_back(&Revocation { post: id.clone() });
        let days = vec!["2026-11-25".parse().unwrap(), "2026-11-26".parse().unwrap()];
        let issue =
            BundleIssue { not_after: Time::EPOCH, destroy_after: Time::EPOCH, days, posts: vec![id.clone()] };
        reads_back(&issue);
        BundleIssue { posts: vec![id.clone(), id.clone()], ..issue }.encode().unwrap_err();
        let leaf = LeafRef { key: KeyName([1; 16]), leaf: LeafNumber(7) };
        reads_back(&Adoption { post: id, serial: 3, segment: [4; 32], digest: [5; 32], leaf });
    }
}
