//! What a home gives its posts: public keys of the next days, for whom they may be used, and until when.

use super::{PostId, PostIdentity, PostScope};
use crate::encapsulation::{PublicKey, SUITE};
use crate::engine::Unverified;
use crate::error::{Code, Error, Result};
use crate::period::{Period, PeriodUnit};
use crate::region::{Place, Region};
use crate::scope::RecordType;
use crate::time::Time;
use crate::wire::{Decoder, Encoder, Malformed};

/// A home's bundle, as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The home.
    pub place: Place,
    /// The number of the entry in the home's ledger that tells of this bundle.
    pub serial: u64,
    /// When it was signed.
    pub issued: Time,
    /// Posts seal with it before this instant.
    pub not_after: Time,
    /// The home keeps the private halves until this instant: what is not adopted by then is lost.
    pub destroy_after: Time,
    /// The keys, one for each day, the days rising.
    pub keys: Vec<DayKey>,
    /// The lengths of record types' periods at home, where they are not months; the types rising.
    pub periods: Vec<(RecordType, PeriodUnit)>,
    /// The posts that it is for, rising, each with the scopes that it may seal for.
    pub posts: Vec<Permitted>,
}

/// The key that posts seal to on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayKey {
    /// The UTC day.
    pub day: Period,
    /// The public half.
    pub key: PublicKey,
}

/// A post in a bundle, and for whom it may seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// The post.
    pub post: PostId,
    /// The scopes, rising.
    pub scopes: Vec<PostScope>,
}

/// For how long a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleTerms {
    /// How many days it has keys for, from today; at most [`Bundle::DAYS_MAX`].
    pub days: u16,
    /// The longest that a segment is under way, in days: the private halves live so much longer.
    pub shipping_days: u16,
}

impl Default for BundleTerms {
    fn default() -> Self {
        Self { days: 14, shipping_days: 30 }
    }
}

impl Bundle {
    /// The most days.
    pub const DAYS_MAX: usize = 62;
    /// The most posts.
    pub const POSTS_MAX: usize = 1024;
    /// The most record types whose periods are named.
    pub const PERIODS_MAX: usize = 1024;
    /// No bundle is longer.
    pub const BYTES_MAX: usize = 16 << 20;

    /// The first octets of every bundle.
    pub const MAGIC: [u8; 8] = *b"\x89DBUN\r\n\x1a";

    const LABEL: &'static [u8] = b"domicile/v1/post-bundle";

    /// The scopes of a post, if the bundle is for it.
    #[must_use]
    pub fn scopes_of(&self, post: &PostId) -> Option<&[PostScope]> {
        self.posts.iter().find(|permitted| permitted.post == *post).map(|permitted| &permitted.scopes[..])
    }

    /// The octets that the home signs.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn body(&self) -> Result<Vec<u8>, Malformed> {
        if !self.is_canonical() {
            return Err(Malformed { what: "days, periods or posts of the bundle", at: 0 });
        }
        let mut out = Encoder::new();
        out.short(Self::LABEL, "label")?
            .u8(SUITE)
            .short(self.place.region.as_str().as_bytes(), "region")?
            .short(self.place.jurisdiction.as_str().as_bytes(), "jurisdiction")?
            .u64(self.serial)
            .i64(self.issued.micros())
            .i64(self.not_after.micros())
            .i64(self.destroy_after.micros())
            .count(self.keys.len(), "keys")?;
        for key in &self.keys {
            out.short(key.day.to_string().as_bytes(), "day")?.raw(key.key.as_bytes());
        }
        out.count(self.periods.len(), "periods")?;
        for (record_type, unit) in &self.periods {
            out.short(record_type.as_str().as_bytes(), "record type")?.u8(unit_code(*unit));
        }
        out.count(self.posts.len(), "posts")?;
        for permitted in &self.posts {
            out.short(permitted.post.as_str().as_bytes(), "post")?;
            PostScope::encode_list(&mut out, &permitted.scopes)?;
        }
        Ok(out.finish())
    }

    /// The file: magic, what was signed with its length, and the signature with its own.
    ///
    /// # Errors
    /// What is longer than a bundle may be.
    pub fn file(body: &[u8], signature: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.raw(&Self::MAGIC).long(body, "body of the bundle")?.medium(signature, "signature")?;
        if out.len() > Self::BYTES_MAX {
            return Err(Malformed { what: "length of the bundle", at: Self::BYTES_MAX });
        }
        Ok(out.finish())
    }

    /// Reads a bundle and verifies it under the key of its home that this post trusts.
    ///
    /// # Errors
    /// [`PostBundle`](Code::PostBundle): it is none, of another home, or not what the home signed.
    pub fn read(file: &[u8], identity: &PostIdentity) -> Result<Self> {
        let unverified = || {
            Error::new(Code::PostBundle, "this is not a bundle that a home signed")
                .advise("export it at home with `domicile post export`, and bring it here unchanged")
        };
        let (body, signature) = Self::split(file).map_err(|source| unverified().because(source))?;
        // Which key is to verify it stands in it; nothing else is believed before.
        let region = Self::region_of(body).map_err(|source| unverified().because(source))?;
        let key = identity.home(&region)?;
        key.verify(body, signature).map_err(|Unverified| unverified())?;
        Self::decode(body).map_err(|source| unverified().because(source))
    }

    fn split(file: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
        let mut input = Decoder::new(file);
        if file.len() > Self::BYTES_MAX {
            return Err(input.malformed("length of the bundle"));
        }
        if input.array("magic of a bundle")? != Self::MAGIC {
            return Err(Malformed { what: "magic of a bundle", at: 0 });
        }
        let body = input.long("body of the bundle")?;
        let signature = input.medium("signature")?;
        input.end("end of the bundle")?;
        Ok((body, signature))
    }

    fn region_of(body: &[u8]) -> Result<Region, Malformed> {
        let mut input = Decoder::new(body);
        Self::begin(&mut input)
    }

    fn begin(input: &mut Decoder<'_>) -> Result<Region, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        if input.short("label")? != Self::LABEL {
            return Err(bad("label"));
        }
        if input.u8("suite")? != SUITE {
            return Err(bad("suite"));
        }
        input.text("region")?.parse().map_err(|_| bad("region"))
    }

    /// Reads what was signed; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(body);
        let bad = |what| Malformed { what, at: 0 };
        let region = Self::begin(&mut input)?;
        let jurisdiction = input.text("jurisdiction")?.parse().map_err(|_| bad("jurisdiction"))?;
        let serial = input.u64("serial")?;
        let mut time = || Time::from_micros(input.i64("time")?).map_err(|_| bad("time"));
        let (issued, not_after, destroy_after) = (time()?, time()?, time()?);
        let count = capped(input.count(11 + PublicKey::BYTES, "keys")?, Self::DAYS_MAX, "keys")?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let day = input.text("day")?.parse().map_err(|_| bad("day"))?;
            keys.push(DayKey { day, key: PublicKey::from_bytes(&input.array("public key")?)? });
        }
        let count = capped(input.count(3, "periods")?, Self::PERIODS_MAX, "periods")?;
        let mut periods = Vec::with_capacity(count);
        for _ in 0..count {
            let record_type = input.text("record type")?.parse().map_err(|_| bad("record type"))?;
            periods.push((record_type, unit_of(input.u8("period")?).ok_or_else(|| bad("period"))?));
        }
        let count = capped(input.count(6, "posts")?, Self::POSTS_MAX, "posts")?;
        let mut posts = Vec::with_capacity(count);
        for _ in 0..count {
            let post = input.text("post")?.parse().map_err(|_| bad("post"))?;
            posts.push(Permitted { post, scopes: PostScope::decode_list(&mut input)? });
        }
        input.end("end of the bundle")?;
        let place = Place { region, jurisdiction };
        let bundle = Self { place, serial, issued, not_after, destroy_after, keys, periods, posts };
        if bundle.is_canonical() { Ok(bundle) } else { Err(bad("days, periods or posts of the bundle")) }
    }

    fn is_canonical(&self) -> bool {
        let days = self.keys.is_sorted_by(|left, right| left.day < right.day)
            && self.keys.iter().all(|key| key.day.unit() == PeriodUnit::Day);
        let counts = (1..=Self::DAYS_MAX).contains(&self.keys.len())
            && self.periods.len() <= Self::PERIODS_MAX
            && self.posts.len() <= Self::POSTS_MAX;
        let rising = self.periods.is_sorted_by(|left, right| left.0 < right.0)
            && self.posts.is_sorted_by(|left, right| left.post < right.post);
        let times = self.issued <= self.not_after && self.not_after <= self.destroy_after;
        days && counts && rising && times
    }
}

fn capped(count: usize, max: usize, what: &'static str) -> Result<usize, Malformed> {
    if count > max { Err(Malformed { what, at: 0 }) } else { Ok(count) }
}

fn unit_code(unit: PeriodUnit) -> u8 {
    match unit {
        PeriodUnit::Month => 0x01,
        PeriodUnit::Week => 0x02,
        PeriodUnit::Day => 0x03,
    }
}

fn unit_of(code: u8) -> Option<PeriodUnit> {
    [PeriodUnit::Month, PeriodUnit::Week, PeriodUnit::Day].into_iter().find(|unit| unit_code(*unit) == code)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kms::VerifyingKey;
    use crate::random::OsRandom;
    use crate::secret::Secret;
    use ed25519_dalek::{Signer, SigningKey};
    use std::collections::BTreeMap;

    pub(crate) fn sample() -> Bundle {
        let key = PublicKey::of(&Secret::copied_from(&[7; 32]));
        Bundle {
            place: Place { region: "eu-central-1".parse().unwrap(), jurisdiction: "EU".parse().unwrap() },
            serial: 3,
            issued: "2026-11-25T08:00:00Z".parse().unwrap(),
            not_after: "2026-11-27T00:00:00Z".parse().unwrap(),
            destroy_after: "2026-12-27T00:00:00Z".parse().unwrap(),
            keys: ["2026-11-25", "2026-11-26"]
                .map(|day| DayKey { day: day.parse().unwrap(), key: key.clone() })
                .to_vec(),
            periods: vec![(RecordType::VOICE, PeriodUnit::Day)],
            posts: vec![Permitted {
                post: "edge-7".parse().unwrap(),
                scopes: vec!["acme/fax".parse().unwrap(), "acme/voice".parse().unwrap()],
            }],
        }
    }

    #[test]
    fn a_bundle_reads_back_under_the_key_of_its_home_and_every_change_is_noticed() {
        let home = SigningKey::from_bytes(&[3; 32]);
        let homes = |key: VerifyingKey| BTreeMap::from([("eu-central-1".parse().unwrap(), key)]);
        let trusted = homes(VerifyingKey::Ed25519(home.verifying_key().to_bytes()));
        let identity = PostIdentity::generate("edge-7".parse().unwrap(), trusted, &OsRandom).unwrap();
        let body = sample().body().unwrap();
        let file = Bundle::file(&body, &home.sign(&body).to_bytes()).unwrap();
        assert_eq!(Bundle::read(&file, &identity).unwrap(), sample());
        for octet in 0..file.len() {
            let mut bad = file.clone();
            bad[octet] ^= 1;
            assert_eq!(Bundle::read(&bad, &identity).unwrap_err().code(), Code::PostBundle, "octet {octet}");
        }
        for length in (0..file.len()).step_by(11) {
            assert_eq!(Bundle::read(&file[..length], &identity).unwrap_err().code(), Code::PostBundle);
        }
        let other = PostIdentity::generate(
            "edge-7".parse().unwrap(),
            homes(VerifyingKey::Ed25519([9; 32])),
            &OsRandom,
        );
        assert_eq!(Bundle::read(&file, &other.unwrap()).unwrap_err().code(), Code::PostBundle);
    }

    #[test]
    fn one_meaning_has_one_encoding() {
        let twice = |mut bundle: Bundle| {
            bundle.keys.reverse();
            bundle
        };
        twice(sample()).body().unwrap_err();
        Bundle { posts: [sample().posts, sample().posts].concat(), ..sample() }.body().unwrap_err();
        Bundle { not_after: sample().destroy_after, destroy_after: sample().not_after, ..sample() }
            .body()
            .unwrap_err();
        let mut scopes = sample();
        scopes.posts[0].scopes.reverse();
        scopes.body().unwrap_err();
        let body = sample().body().unwrap();
        assert_eq!(Bundle::decode(&body).unwrap(), sample());
        for length in 0..body.len() {
            Bundle::decode(&body[..length]).unwrap_err();
        }
    }
}
