//! Posts: what they seal opens once their home has adopted it, and their home adopts what they alone could have
//! sealed. Held here: KEY-30, KEY-31, KEY-32, KEY-33, KEY-34, KEY-35, KEY-36, KEY-37, KEY-38; SEG-40, SEG-41, SEG-42, SEG-43,
//! SEG-44, SEG-45, SEG-51.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domicile::keyring::WrappedKey;
use domicile::kms::{FakeKms, Kms, LocalKms, VerifyingKey};
use domicile::post::{Bundle, BundleTerms, Post, PostId, PostIdentity};
use domicile::random::OsRandom;
use domicile::store::MemoryStore;
use domicile::{Clock, Code, Domicile, Error, KnownRegion, Purpose, Time};
use domicile_record::format::{BlockHeader, BlockKind, Contents, LaneNo, LaneOpen, SegmentHeader};
use domicile_record::{
    Adopting, Erasable, Recovery, Segment, SegmentWriter, Selection, Stamp, WriterOptions, erase, inspect,
    is_unadopted, recover, verify, why,
};
use domicile_tests::{descriptor, place, region, scope};

/// A clock that tests put forward.
#[derive(Debug)]
struct Hand(AtomicI64);

impl Hand {
    fn days_later(&self, days: i64) {
        self.0.fetch_add(days * 86_400_000_000, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Time {
        Time::from_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }
}

/// A home in eu-central-1 and its post edge-7, which may seal acme's and globex's voice records.
struct World {
    _directory: tempfile::TempDir,
    clock: Arc<Hand>,
    store: Arc<MemoryStore>,
    home: Domicile,
    key: VerifyingKey,
    identity: Arc<PostIdentity>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicI64::new("2026-11-25T08:00:00Z".parse::<Time>().unwrap().micros())));
        let store = Arc::new(MemoryStore::new());
        let mut builder = Domicile::builder(region("eu-central-1"), store.clone()).clock(clock.clone());
        let mut keys = BTreeMap::new();
        for (name, jurisdiction) in [("eu-central-1", "EU"), ("us-east-1", "US")] {
            let path = |kind: &str| directory.path().join(format!("{name}.{kind}"));
            let kms = Arc::new(LocalKms::create(region(name), path("root"), path("signing")).unwrap());
            let verifying_key = kms.describe().await.unwrap().verifying_key;
            keys.insert(region(name), verifying_key);
            builder = builder.region(KnownRegion {
                place: place(name, jurisdiction),
                verifying_key,
                kms: Some(kms),
                store: store.clone(),
            });
        }
        let home = builder.build().unwrap();
        let key = keys[&region("eu-central-1")];
        for (tenant, of) in [("acme", "eu-central-1"), ("hooli", "eu-central-1"), ("globex", "us-east-1")] {
            home.choose_home(&scope(tenant), of).await.unwrap();
        }
        let identity = Arc::new(identity("edge-7", key));
        let world = Self { _directory: directory, clock, store, home, key, identity };
        world.enrol(&world.identity, &["acme/voice", "globex/all"]).await;
        world
    }

    async fn enrol(&self, identity: &PostIdentity, scopes: &[&str]) {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        let posts = self.home.posts(&region("eu-central-1")).await.unwrap();
        posts.enrol(identity.public(), scopes).await.unwrap();
    }

    async fn bundle(&self) -> Vec<u8> {
        let posts = self.home.posts(&region("eu-central-1")).await.unwrap();
        posts.issue(&[], BundleTerms::default()).await.unwrap().1
    }

    fn post_with(&self, bundle: &[u8]) -> Result<Post, Error> {
        let bundle = Bundle::read(bundle, &self.identity)?;
        Post::new(self.identity.clone(), bundle, self.clock.clone(), Arc::new(OsRandom))
    }

    async fn post(&self) -> Post {
        self.post_with(&self.bundle().await).unwrap()
    }

    async fn adopt(&self, segment: &[u8]) -> Result<Vec<u8>, Error> {
        let posts = self.home.posts(&region("eu-central-1")).await?;
        let adopting = Adopting::examine(&self.home, &posts, segment).await?;
        Ok(adopting.write(Vec::new()).await?.0)
    }

    async fn refused(&self, segment: &[u8], code: Code) {
        let error = self.adopt(segment).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }

    async fn open(&self, segment: &[u8]) -> Result<Vec<u8>, Error> {
        let opened = Segment::open_source(&self.home, segment, Purpose::Billing, Selection::all()).await?;
        for lane in opened.lanes() {
            assert!(lane.obstacle().is_none(), "{:?}", lane.obstacle());
        }
        let mut records = Vec::new();
        opened.restore(&mut records)?;
        Ok(records)
    }
}

fn identity(name: &str, key: VerifyingKey) -> PostIdentity {
    let homes = BTreeMap::from([(region("eu-central-1"), key)]);
    PostIdentity::generate(name.parse().unwrap(), homes, &OsRandom).unwrap()
}

async fn sealed(post: &Post, tenants: &[&str]) -> Result<Vec<u8>, Error> {
    let mut writer = SegmentWriter::create_at_post(post, Vec::new(), WriterOptions::default()).await?;
    for tenant in tenants {
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"head\n").await?;
        for number in 0..300 {
            writer.append(lane, format!("{tenant} {number}\n").as_bytes(), Stamp::default())?;
        }
        writer.commit(b"offset")?;
    }
    Ok(writer.finish().await?.0)
}

/// The blocks of a segment.
fn blocks(segment: &[u8]) -> Vec<(BlockHeader, Vec<u8>)> {
    let header = SegmentHeader::decode(segment.first_chunk().unwrap()).unwrap();
    let (mut at, mut found) = (SegmentHeader::BYTES, Vec::new());
    while at < segment.len() {
        let block = BlockHeader::decode(segment[at..].first_chunk().unwrap(), &header.id).unwrap();
        let end = at + usize::try_from(block.block_bytes()).unwrap();
        found.push((block, segment[at..end].to_vec()));
        at = end;
    }
    found
}

/// The segment with the opening of a lane changed.
fn with_opening(segment: &[u8], lane: u32, change: impl Fn(&mut LaneOpen)) -> Vec<u8> {
    let header = SegmentHeader::decode(segment.first_chunk().unwrap()).unwrap();
    let mut bytes = segment[..SegmentHeader::BYTES].to_vec();
    for (block, octets) in blocks(segment) {
        if block.kind != BlockKind::LaneOpen || block.lane != LaneNo(lane) {
            bytes.extend(octets);
            continue;
        }
        let payload = &octets[BlockHeader::BYTES..][..block.payload_bytes()];
        let mut open = LaneOpen::decode(payload, block.lane).unwrap();
        change(&mut open);
        let payload = open.encode().unwrap();
        let block = BlockHeader { length: u32::try_from(payload.len()).unwrap(), ..block };
        bytes.extend(block.encode(&header.id));
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

#[tokio::test]
async fn what_a_post_seals_opens_once_it_is_adopted_and_not_before() {
    let world = World::new().await;
    let post = world.post().await;
    let segment = sealed(&post, &["acme", "acme"]).await.unwrap();

    let unadopted = world.open(&segment).await.unwrap_err();
    assert_eq!(unadopted.code(), Code::PostUnadopted);
    assert_eq!(verify(&world.home, &segment[..], None).await.unwrap_err().code(), Code::PostUnadopted);
    assert_eq!(why(&world.home, &segment[..]).await.unwrap().obstacles[0].code, "post/unadopted");
    let seen = inspect(&segment[..]).unwrap();
    assert_eq!((seen.origin, seen.post.as_deref(), seen.state), ("post", Some("edge-7"), "complete"));

    let adopted = world.adopt(&segment).await.unwrap();
    let mut expected = b"head\n".to_vec();
    (0..300).for_each(|number| expected.extend(format!("acme {number}\n").bytes()));
    let records = world.open(&adopted).await.unwrap();
    assert!(records.starts_with(&expected), "{}", String::from_utf8_lossy(&records[..40]));
    let verification = verify(&world.home, &adopted[..], None).await.unwrap();
    assert!(verification.is_complete(), "{:?}", verification.findings);
    assert_eq!(verification.records, 600);

    // The sealed blocks are what they were, origin and signatures stay, and the secret is gone.
    let sealed_blocks = |segment: &[u8]| {
        let of = |(header, octets): (BlockHeader, Vec<u8>)| header.flags.is_sealed().then_some(octets);
        blocks(segment).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(sealed_blocks(&segment), sealed_blocks(&adopted));
    let seen = inspect(&adopted[..]).unwrap();
    assert_eq!((seen.origin, seen.post.as_deref(), seen.edition), ("post", Some("edge-7"), 1));
    assert!(seen.footer && adopted.len() < segment.len());

    // What was adopted is nothing to adopt.
    world.refused(&adopted, Code::PostForged).await;
    let events: String = world.events().await;
    for event in ["enrol", "issue", "adopt", "refuse"] {
        assert!(events.contains(&format!("\"event\":\"{event}\"")), "{event}");
    }
}

impl World {
    async fn events(&self) -> String {
        use domicile::store::KeyStore;
        let chains = self.store.chains().await.unwrap();
        chains.into_iter().flat_map(|(_, events)| events).map(|event| event.body).collect()
    }
}

/// The wrapped key of lane 0.
fn leaf(segment: &[u8]) -> WrappedKey {
    let (block, octets) = blocks(segment).swap_remove(0);
    let payload = &octets[BlockHeader::BYTES..][..block.payload_bytes()];
    LaneOpen::decode(payload, LaneNo(0)).unwrap().wrapped.unwrap()
}

#[tokio::test]
async fn a_segment_is_adopted_once_and_written_again_under_the_same_leaf() {
    let world = World::new().await;
    let post = world.post().await;
    let segment = sealed(&post, &["acme"]).await.unwrap();
    let (first, again) = (world.adopt(&segment).await.unwrap(), world.adopt(&segment).await.unwrap());
    assert_eq!(leaf(&first).segment, leaf(&again).segment);
    assert_ne!(leaf(&first).tenant, leaf(&again).tenant);
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    assert_eq!(posts.list().await.unwrap()[0].adopted, 1);
    assert!(Adopting::examine(&world.home, &posts, &segment[..]).await.unwrap().was_adopted());

    // Another segment under the same name, which only the post itself can make.
    let header = SegmentHeader::decode(segment.first_chunk().unwrap()).unwrap();
    let adopted = posts.adopted(&post.id().clone(), &header.id.0, &[[9; 32]]).await;
    assert_eq!(adopted.unwrap_err().code(), Code::PostReplayed);
}

#[tokio::test]
async fn a_lane_that_was_erased_stays_so_when_its_segment_comes_again() {
    let world = World::new().await;
    world.enrol(&world.identity, &["acme/all"]).await;
    let segment = sealed(&world.post().await, &["acme", "acme"]).await.unwrap();
    let adopted = world.adopt(&segment).await.unwrap();
    let id = inspect(&adopted[..]).unwrap().segment;
    let lane = Erasable::Lanes(vec![LaneNo(1)]);
    erase(&world.home, &adopted[..], &lane, &id, Purpose::Maintenance).await.unwrap();

    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    let adopting = Adopting::examine(&world.home, &posts, &segment[..]).await.unwrap();
    let (again, _, ended) = adopting.write(Vec::new()).await.unwrap();
    assert_eq!(ended, [scope("acme")]);
    for copy in [adopted, again] {
        let opened = Segment::open_source(&world.home, &copy[..], Purpose::Billing, Selection::all());
        let opened = opened.await.unwrap();
        let obstacle = opened.lanes()[0].obstacle().unwrap();
        assert_eq!(obstacle.code(), Code::KeyDestroyed);
        assert!(obstacle.what().contains("was erased on"), "{obstacle}");
        assert!(opened.lanes()[1].obstacle().is_none());
    }
}

#[tokio::test]
async fn posts_seal_for_their_scopes_alone_and_their_home_adopts_no_other() {
    let world = World::new().await;
    let post = world.post().await;
    // Not enrolled for it: the post itself refuses.
    assert_eq!(sealed(&post, &["hooli"]).await.unwrap_err().code(), Code::PostScope);
    // Enrolled for it, and at home elsewhere.
    world.refused(&sealed(&post, &["acme", "globex"]).await.unwrap(), Code::HomeRefused).await;
    // Enrolled for it, and without a home.
    world.enrol(&world.identity, &["acme/all", "hooli/voice", "umbrella/voice"]).await;
    let wider = world.post().await;
    world.refused(&sealed(&wider, &["umbrella"]).await.unwrap(), Code::HomeNone).await;
    // Not enrolled for it any more: its bundle says otherwise, and does not count.
    let hooli = sealed(&wider, &["hooli"]).await.unwrap();
    world.enrol(&world.identity, &["acme/voice"]).await;
    world.refused(&hooli, Code::PostScope).await;
    world.adopt(&sealed(&post, &["acme"]).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn revoked_and_unknown_posts_are_adopted_no_more_whenever_they_sealed() {
    let world = World::new().await;
    let segment = sealed(&world.post().await, &["acme"]).await.unwrap();
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    let unknown: PostId = "edge-8".parse().unwrap();
    assert_eq!(posts.revoke(&unknown).await.unwrap_err().code(), Code::PostUnknown);
    posts.revoke(world.identity.id()).await.unwrap();
    world.refused(&segment, Code::PostUnknown).await;
    assert!(posts.list().await.unwrap()[0].revoked.is_some());
    assert_eq!(posts.issue(&[], BundleTerms::default()).await.unwrap_err().code(), Code::PostUnknown);
    // Enrolled anew with another key: what the old one signed does not count.
    world.enrol(&identity("edge-7", world.key), &["acme/voice"]).await;
    world.refused(&segment, Code::PostForged).await;
    world.enrol(&world.identity, &["acme/voice"]).await;
    world.adopt(&segment).await.unwrap();
}

#[tokio::test]
async fn bundles_and_segments_expire() {
    let world = World::new().await;
    let bundle = world.bundle().await;
    let post = world.post_with(&bundle).unwrap();
    let segment = sealed(&post, &["acme"]).await.unwrap();
    world.clock.days_later(13);
    let late = sealed(&post, &["acme"]).await.unwrap();
    world.clock.days_later(1);
    assert_eq!(sealed(&post, &["acme"]).await.unwrap_err().code(), Code::PostExpired);
    assert_eq!(world.post_with(&bundle).unwrap_err().code(), Code::PostExpired);
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    assert_eq!(posts.days_due().await.unwrap(), vec![]);
    world.clock.days_later(29);
    world.adopt(&late).await.unwrap();
    world.clock.days_later(1);
    world.refused(&segment, Code::PostExpired).await;
    assert_eq!(posts.days_due().await.unwrap().len(), 14);
}

#[tokio::test]
async fn whoever_has_the_bundle_and_not_the_posts_key_forges_nothing() {
    let world = World::new().await;
    let bundle = world.bundle().await;
    // A thief with the post's name and the bundle, and a key of his own.
    let thief = Arc::new(identity("edge-7", world.key));
    let read = Bundle::read(&bundle, &thief).unwrap();
    let thief = Post::new(thief, read, world.clock.clone(), Arc::new(OsRandom)).unwrap();
    world.refused(&sealed(&thief, &["acme"]).await.unwrap(), Code::PostForged).await;
    // A bundle that is not for this post.
    let other = Arc::new(identity("edge-9", world.key));
    let read = Bundle::read(&bundle, &other).unwrap();
    let not_his = Post::new(other, read, world.clock.clone(), Arc::new(OsRandom)).unwrap_err();
    assert_eq!(not_his.code(), Code::PostScope);

    // Parts of two genuine segments.
    let post = world.post_with(&bundle).unwrap();
    let (one, two) = (sealed(&post, &["acme"]).await.unwrap(), sealed(&post, &["acme"]).await.unwrap());
    let seal = |segment: &[u8], lane: u32| {
        let (block, octets) =
            blocks(segment).into_iter().find(|(block, _)| block.lane == LaneNo(lane)).unwrap();
        LaneOpen::decode(&octets[BlockHeader::BYTES..][..block.payload_bytes()], block.lane).unwrap().post
    };
    for lane in [0, 1] {
        let mixed = with_opening(&one, lane, |open| open.post = seal(&two, lane));
        world.refused(&mixed, Code::PostForged).await;
    }
    let bare = with_opening(&one, 1, |open| open.commitment[0] ^= 1);
    world.refused(&bare, Code::PostForged).await;
    world.adopt(&one).await.unwrap();
}

#[tokio::test]
async fn a_flip_in_every_block_is_noticed_before_anything_is_adopted() {
    let world = World::new().await;
    let segment = sealed(&world.post().await, &["acme"]).await.unwrap();
    let mut at = SegmentHeader::BYTES;
    for (block, octets) in blocks(&segment) {
        let mut flipped = segment.clone();
        flipped[at + BlockHeader::BYTES + block.payload_bytes() / 2] ^= 4;
        // A damaged footer may be what a crash made of it, with the end before it whole.
        if block.kind != BlockKind::Footer {
            world.adopt(&flipped).await.unwrap_err();
        }
        at += octets.len();
    }
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    assert_eq!(posts.list().await.unwrap()[0].adopted, 0);
    world.adopt(&segment).await.unwrap();
}

/// A segment of two commits, and where it was when each was on disk, and when the second's records were written without one.
async fn cut_short(post: &Post) -> (Vec<u8>, [usize; 3]) {
    let mut bytes = Vec::new();
    let options = WriterOptions { block_bytes: 1 << 10, ..WriterOptions::default() };
    let mut writer = SegmentWriter::create_at_post(post, &mut bytes, options).await.unwrap();
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"head\n").await.unwrap();
    let mut ends = [0; 3];
    for (round, end) in ends.iter_mut().enumerate() {
        for number in round * 100..(round + 1) * 100 {
            writer.append(lane, format!("acme {number}\n").as_bytes(), Stamp::default()).unwrap();
        }
        writer.commit(format!("offset {round}").as_bytes()).unwrap();
        *end = usize::try_from(writer.file_bytes()).unwrap();
    }
    writer.finish().await.unwrap();
    (bytes, ends)
}

fn records_until(rounds: usize) -> Vec<u8> {
    let records = (0..rounds * 100).flat_map(|number| format!("acme {number}\n").into_bytes());
    b"head\n".iter().copied().chain(records).collect()
}

#[tokio::test]
async fn what_a_post_left_without_an_end_is_closed_by_its_home_which_says_so() {
    let world = World::new().await;
    let post = world.post().await;
    let (whole, ends) = cut_short(&post).await;
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();

    // Cut behind the second commit, within the next block.
    let torn = &whole[..ends[1] + 100];
    assert_eq!(world.open(torn).await.unwrap_err().code(), Code::PostUnadopted);
    let adopting = Adopting::examine(&world.home, &posts, torn).await.unwrap();
    assert!(!adopting.had_end() && !adopting.was_adopted());
    assert_eq!((adopting.cut().unwrap().at, adopting.cut().unwrap().bytes), (ends[1] as u64, 100));
    assert_eq!(adopting.caller(), b"offset 1");
    let mut cut = Vec::new();
    let keep = |piece: &[u8]| {
        cut.extend_from_slice(piece);
        Ok(())
    };
    adopting.for_each_cut(keep).unwrap();
    assert_eq!(cut, torn[ends[1]..]);
    let (closed, summary, ended) = adopting.write(Vec::new()).await.unwrap();
    assert_eq!((summary.lanes, summary.records, ended.len()), (1, 0, 0), "nobody counted them");
    assert_eq!(world.open(&closed).await.unwrap(), records_until(2));
    let verified = verify(&world.home, &closed[..], None).await.unwrap();
    assert!(verified.is_complete(), "{:?}", verified.findings);
    assert_eq!((verified.state, verified.records), ("recovered", 200));
    let seen = inspect(&closed[..]).unwrap();
    assert_eq!((seen.origin, seen.post.as_deref(), seen.edition), ("post", Some("edge-7"), 1));
    assert!(world.events().await.contains("\"event\":\"recover\""));

    // What its lanes hold is what the post sealed, octet for octet; lane 0 is none of it, under a key of its own.
    let of = |segment: &[u8], region: bool| {
        let of = |(header, octets): (BlockHeader, Vec<u8>)| {
            (header.flags.is_sealed() && (header.lane == LaneNo::REGION) == region).then_some(octets)
        };
        blocks(segment).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(of(&closed, false), of(&whole[..ends[1]], false));
    assert!(of(&closed, true).iter().all(|block| !of(&whole, true).contains(block)));

    // Again, and with a tail of another length: the same answer, under the same leaf.
    for again in [torn, &whole[..ends[1]], &whole[..ends[0] + 7]] {
        let adopting = Adopting::examine(&world.home, &posts, again).await.unwrap();
        assert!(adopting.was_adopted() && !adopting.goes_further_than(&closed[..]).unwrap());
        assert_eq!(leaf(&adopting.write(Vec::new()).await.unwrap().0).segment, leaf(&closed).segment);
    }
    assert_eq!(posts.list().await.unwrap()[0].adopted, 1);

    // What goes further takes its place, the whole segment among it.
    for (further, rounds) in [(&whole[..ends[2]], 3), (&whole[..], 3)] {
        let adopting = Adopting::examine(&world.home, &posts, further).await.unwrap();
        assert!(adopting.was_adopted() && adopting.goes_further_than(&closed[..]).unwrap());
        let written = adopting.write(Vec::new()).await.unwrap().0;
        assert_eq!(leaf(&written).segment, leaf(&closed).segment);
        assert_eq!(world.open(&written).await.unwrap(), records_until(rounds));
        assert!(verify(&world.home, &written[..], None).await.unwrap().is_complete());
        let shorter = Adopting::examine(&world.home, &posts, torn).await.unwrap();
        assert!(!shorter.goes_further_than(&written[..]).unwrap());
    }
    assert_eq!(posts.list().await.unwrap()[0].adopted, 1);

    // Once its leaf is erased, as compaction does, nothing of it is adopted any more: its records are elsewhere.
    let id = inspect(&closed[..]).unwrap().segment;
    erase(&world.home, &closed[..], &Erasable::Segment, &id, Purpose::Maintenance).await.unwrap();
    for again in [torn, &whole[..]] {
        let adopting = Adopting::examine(&world.home, &posts, again).await.unwrap();
        assert_eq!(adopting.write(Vec::new()).await.unwrap_err().code(), Code::KeyDestroyed);
    }
}

#[tokio::test]
async fn an_earlier_copy_of_what_was_adopted_whole_counts_for_nothing() {
    let world = World::new().await;
    let (whole, ends) = cut_short(&world.post().await).await;
    world.adopt(&whole).await.unwrap();
    world.refused(&whole[..ends[1]], Code::PostReplayed).await;
    // Its footer alone may be what a crash took.
    let footer = blocks(&whole).pop().unwrap().1.len();
    let (posts, cut) = (world.home.posts(&region("eu-central-1")).await.unwrap(), whole.len() - footer);
    for cut in [cut, cut + 50] {
        let adopting = Adopting::examine(&world.home, &posts, &whole[..cut]).await.unwrap();
        assert!(adopting.had_end() && adopting.was_adopted());
        let written = adopting.write(Vec::new()).await.unwrap().0;
        assert_eq!(world.open(&written).await.unwrap(), records_until(3));
        let verified = verify(&world.home, &written[..], None).await.unwrap();
        assert!(verified.is_complete() && verified.state == "complete", "{:?}", verified.findings);
    }
}

#[tokio::test]
async fn wherever_a_segment_is_cut_what_was_on_disk_is_adopted_and_a_flip_there_is_no_crash() {
    let world = World::new().await;
    let (whole, ends) = cut_short(&world.post().await).await;
    let all = records_until(3);
    let mut at = SegmentHeader::BYTES;
    for (number, (block, octets)) in blocks(&whole).into_iter().enumerate() {
        for cut in [at, at + 20, at + octets.len() / 2, at + octets.len() - 1] {
            let adopted = world.adopt(&whole[..cut]).await;
            // Before lane 0 is opened there is no segment.
            if number == 0 {
                adopted.unwrap_err();
                continue;
            }
            let adopted = adopted.unwrap_or_else(|error| panic!("cut at {cut}: {error:?}"));
            let opened = world.open(&adopted).await.unwrap();
            assert!(all.starts_with(&opened), "cut at {cut}");
            let on_disk = ends.iter().filter(|end| **end <= cut).count();
            assert!(on_disk == 0 || opened.len() >= records_until(on_disk).len(), "cut at {cut}");
            assert!(verify(&world.home, &adopted[..], None).await.unwrap().is_complete(), "cut at {cut}");
        }
        // A block that a later commit says was on disk.
        let mut flipped = whole[..ends[2]].to_vec();
        if at < ends[0] {
            flipped[at + BlockHeader::BYTES + block.payload_bytes() / 2] ^= 4;
            assert!(world.adopt(&flipped).await.is_err(), "block {number}");
        }
        at += octets.len();
    }
}

#[tokio::test]
async fn without_an_end_too_only_an_enrolled_post_seals_for_its_scopes() {
    let world = World::new().await;
    let bundle = world.bundle().await;
    let post = world.post_with(&bundle).unwrap();
    let (whole, ends) = cut_short(&post).await;
    let torn = &whole[..ends[1]];
    // A thief with the post's name and the bundle, and a key of his own.
    let thief = Arc::new(identity("edge-7", world.key));
    let read = Bundle::read(&bundle, &thief).unwrap();
    let thief = Post::new(thief, read, world.clock.clone(), Arc::new(OsRandom)).unwrap();
    let (forged, ends) = cut_short(&thief).await;
    world.refused(&forged[..ends[1]], Code::PostForged).await;
    // An opening that another segment has, and one that nobody signed.
    let (other, _) = cut_short(&post).await;
    let (block, octets) = blocks(&other).into_iter().find(|(block, _)| block.lane == LaneNo(1)).unwrap();
    let seal =
        LaneOpen::decode(&octets[BlockHeader::BYTES..][..block.payload_bytes()], block.lane).unwrap().post;
    world.refused(&with_opening(torn, 1, |open| open.post = seal.clone()), Code::PostForged).await;
    world.refused(&with_opening(torn, 1, |open| open.commitment[0] ^= 1), Code::PostForged).await;
    world.refused(&with_opening(torn, 0, |open| open.commitment[0] ^= 1), Code::PostForged).await;
    // Not for these scopes any more, not at all, and again.
    world.enrol(&world.identity, &["acme/fax"]).await;
    world.refused(torn, Code::PostScope).await;
    let posts = world.home.posts(&region("eu-central-1")).await.unwrap();
    posts.revoke(world.identity.id()).await.unwrap();
    world.refused(torn, Code::PostUnknown).await;
    world.enrol(&world.identity, &["acme/voice"]).await;
    world.adopt(torn).await.unwrap();
}

#[tokio::test]
async fn a_host_without_the_homes_keys_says_whose_it_is_and_changes_nothing() {
    let world = World::new().await;
    let (whole, ends) = cut_short(&world.post().await).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.dseg");
    std::fs::write(&path, &whole[..ends[1] + 9]).unwrap();
    // In another region of its jurisdiction, with keys of that one alone.
    let mut builder = Domicile::builder(region("eu-west-1"), world.store.clone()).clock(world.clock.clone());
    let kms = FakeKms::new(region("eu-west-1")).unwrap();
    let here = (kms.describe().await.unwrap().verifying_key, Some(Arc::new(kms) as Arc<dyn Kms>));
    for (name, (verifying_key, kms)) in [("eu-west-1", here), ("eu-central-1", (world.key, None))] {
        let (place, store) = (place(name, "EU"), world.store.clone());
        builder = builder.region(KnownRegion { place, verifying_key, kms, store });
    }
    let without = builder.build().unwrap();
    let error = recover(&without, &path).await.unwrap_err();
    assert_eq!(error.code(), Code::PostUnadopted, "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), whole[..ends[1] + 9]);
    // With them it is adopted where it lies, and what is cut stays beside it.
    assert!(is_unadopted(&whole[..ends[1]]).unwrap());
    let Recovery::Adopted { had_end, cut: Some((cut, kept)), caller, post, .. } =
        recover(&world.home, &path).await.unwrap()
    else {
        panic!("it is not adopted")
    };
    assert_eq!((had_end, cut.bytes, &caller[..], post.as_str()), (false, 9, &b"offset 1"[..], "edge-7"));
    assert_eq!(std::fs::read(kept).unwrap(), whole[ends[1]..ends[1] + 9]);
    let adopted = std::fs::read(&path).unwrap();
    assert!(!is_unadopted(&adopted[..]).unwrap());
    assert_eq!(world.open(&adopted).await.unwrap(), records_until(2));
    assert!(matches!(recover(&world.home, &path).await.unwrap(), Recovery::Whole));

    // An adopted file that was cut again, by whoever copied it, is recovered like any other, and stays one of that post.
    std::fs::write(&path, &adopted[..adopted.len() - 6_000]).unwrap();
    assert!(matches!(recover(&world.home, &path).await.unwrap(), Recovery::Closed { .. }));
    let verified = verify(&world.home, std::fs::File::open(&path).unwrap(), None).await.unwrap();
    assert!(verified.is_complete(), "{}: {:?}", verified.detail, verified.findings);
    assert_eq!(inspect(std::fs::File::open(&path).unwrap()).unwrap().post.as_deref(), Some("edge-7"));
}
