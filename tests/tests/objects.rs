//! Segments in object stores: three requests find and read one lane of very many, parts of two versions are never mixed, and
//! uploads that were cut send what is missing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; one that takes long says what it did"
)]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domicile::{Code, Purpose};
use domicile_record::format::{Contents, Descriptor};
use domicile_record::object::object_store::memory::InMemory;
use domicile_record::object::object_store::multipart::{MultipartStore, PartId};
use domicile_record::object::object_store::path::Path;
use domicile_record::object::object_store::{
    self, CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use domicile_record::object::{Destination, Objects, UploadOptions, Uploaded, upload};
use domicile_record::{
    BlockOrder, Segment, Selection, Source, Stamp, State, WriterOptions, inspect, settle, verify, why,
};
use domicile_tests::{Home, descriptor, long_form, region, scope};
use futures_util::stream::BoxStream;

/// A store in memory that counts what it is asked, and does what it is told instead.
#[derive(Debug, Default)]
struct Counted {
    store: InMemory,
    ranges: Mutex<Vec<Range<u64>>>,
    heads: AtomicU64,
    /// Takes no notice of conditions.
    ignores_conditions: bool,
    /// Names no versions.
    no_versions: bool,
    /// Parts that were taken, and how many are taken before the line is cut.
    parts: AtomicUsize,
    parts_max: Option<usize>,
    /// Fails at the completion, before or after it was done.
    completes: Completion,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Completion {
    #[default]
    Done,
    CutBefore,
    CutAfter,
}

impl Counted {
    fn cut() -> object_store::Error {
        object_store::Error::Generic { store: "test", source: "the line was cut".into() }
    }

    /// Requests for octets so far, and how many octets came.
    fn asked(&self) -> (usize, u64) {
        let ranges = self.ranges.lock().unwrap();
        (ranges.len(), ranges.iter().map(|range| range.end - range.start).sum())
    }

    fn forget(&self) {
        self.ranges.lock().unwrap().clear();
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a counted store")
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.store.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, mut options: GetOptions) -> object_store::Result<GetResult> {
        if self.ignores_conditions {
            options.if_match = None;
        }
        let head = options.head;
        let mut got = self.store.get_opts(at, options).await?;
        if self.no_versions {
            got.meta.e_tag = None;
        }
        if head {
            self.heads.fetch_add(1, Ordering::Relaxed);
        } else {
            self.ranges.lock().unwrap().push(got.range.clone());
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Counted {
    async fn create_multipart(&self, at: &Path) -> object_store::Result<MultipartId> {
        self.store.create_multipart(at).await
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &MultipartId,
        part: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        if self.parts_max.is_some_and(|max| self.parts.load(Ordering::Relaxed) >= max) {
            return Err(Self::cut());
        }
        // Which is how S3 says it.
        let unknown =
            |error: object_store::Error| match error.to_string().contains("MultipartUpload not found") {
                true => object_store::Error::NotFound { path: at.to_string(), source: "NoSuchUpload".into() },
                false => error,
            };
        let put = self.store.put_part(at, id, part, data).await.map_err(unknown)?;
        self.parts.fetch_add(1, Ordering::Relaxed);
        Ok(put)
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        match self.completes {
            Completion::Done => self.store.complete_multipart(at, id, parts).await,
            Completion::CutBefore => Err(Self::cut()),
            Completion::CutAfter => {
                self.store.complete_multipart(at, id, parts).await?;
                Err(Self::cut())
            }
        }
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.store.abort_multipart(at, id).await
    }
}

const NAME: &str = "eu-central-1/2026-11-28/a.dseg";

/// A store with this segment in it.
async fn store_of(bytes: &[u8]) -> Arc<Counted> {
    changed_store(bytes, |_| {}).await
}

async fn changed_store(bytes: &[u8], change: impl FnOnce(&mut Counted)) -> Arc<Counted> {
    let mut store = Counted::default();
    change(&mut store);
    store.store.put(&Path::from(NAME), bytes.to_vec().into()).await.unwrap();
    Arc::new(store)
}

fn objects(store: &Arc<Counted>) -> Objects {
    Objects::new(Arc::clone(store) as Arc<dyn ObjectStore>).unwrap()
}

fn restored<S: Source>(segment: &Segment<S>) -> Vec<u8> {
    let mut output = Vec::new();
    let restored = segment.restore(&mut output).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    output
}

/// So many lanes, of a hundred tenants; of one more, in the middle of the others, there is one lane, with this many octets.
async fn segment_of(home: &Home, lanes: u32, octets: usize) -> Vec<u8> {
    let tenants: Vec<_> = (0..100).map(|number| format!("tenant-{number:02}")).collect();
    for tenant in tenants.iter().map(String::as_str).chain(["tenant-49x"]) {
        home.domicile.choose_home(&scope(tenant), "eu-central-1").await.unwrap();
    }
    let mut writer = home.writer(WriterOptions::default()).await;
    for (number, tenant) in (1..lanes).zip(tenants.iter().cycle()) {
        let of_this = Descriptor { source: number, ..descriptor(tenant, Contents::default()) };
        let lane = writer.open_lane(of_this, b"").await.unwrap();
        writer.append(lane, tenant.as_bytes(), Stamp::default()).unwrap();
    }
    let lane = writer.open_lane(descriptor("tenant-49x", Contents::default()), b"").await.unwrap();
    for number in 0..octets / 100 {
        writer.append(lane, format!("{number:0100}").as_bytes(), Stamp::default()).unwrap();
    }
    let (bytes, _) = writer.finish().await.unwrap();
    let mut settled = Vec::new();
    settle(&bytes[..], &mut settled).unwrap();
    settled
}

#[tokio::test]
async fn three_requests_find_and_read_one_lane_of_very_many() {
    const OCTETS: usize = 300_000;
    const BESIDE_MAX: u64 = 128 << 10;
    let home = Home::new().await;
    let lanes = if long_form() { 100_000 } else { 20_000 };
    let bytes = segment_of(&home, lanes, OCTETS).await;
    let store = store_of(&bytes).await;
    let object = objects(&store).open(&Path::from(NAME)).unwrap();
    let alone = Selection::scopes(&[scope("tenant-49x")]).alone();
    let segment = Segment::open_source(&home.domicile, object, Purpose::Billing, alone).await.unwrap();
    assert_eq!((segment.lanes().len(), segment.state()), (1, &State::Unasked));
    let mut records = 0;
    for block in segment.blocks() {
        for record in &block.unwrap() {
            assert_eq!(record, format!("{records:0100}").as_bytes());
            records += 1;
        }
    }
    assert_eq!(records, OCTETS / 100);
    let lane = lane_bytes(&bytes, segment.lanes()[0].lane.0);
    let (requests, octets) = store.asked();
    eprintln!(
        "{lanes} lanes, {} octets: {requests} requests, {} octets beside the lane's {lane}",
        bytes.len(),
        octets - lane
    );
    assert!(requests <= 3, "{:?}", store.ranges.lock().unwrap());
    assert!(octets - lane <= BESIDE_MAX, "{}", octets - lane);

    // A scope without a lane there is not taken for one with none.
    home.domicile.choose_home(&scope("tenant-49y"), "eu-central-1").await.unwrap();
    let object = objects(&store).open(&Path::from(NAME)).unwrap();
    let none = Selection::scopes(&[scope("tenant-49y")]).alone();
    let error = Segment::open_source(&home.domicile, object, Purpose::Billing, none).await.unwrap_err();
    assert_eq!(error.code(), Code::LaneNone);

    // The whole says the same, and takes lane 0's directory for it.
    store.forget();
    let object = objects(&store).open(&Path::from(NAME)).unwrap();
    let whole = Selection::scopes(&[scope("tenant-49x")]);
    let segment = Segment::open_source(&home.domicile, object, Purpose::Billing, whole).await.unwrap();
    assert_eq!(segment.state(), &State::Complete);
    assert_eq!(restored(&segment).len(), OCTETS / 100 * 100);
    let (requests, octets) = store.asked();
    eprintln!("with lane 0: {requests} requests, {octets} octets");
    assert!(requests <= 32, "{:?}", store.ranges.lock().unwrap());
}

/// Octets of a lane's blocks.
fn lane_bytes(bytes: &[u8], lane: u32) -> u64 {
    let blocks = domicile_tests::blocks(bytes);
    blocks.iter().filter(|(_, header)| header.lane.0 == lane).map(|(_, header)| header.block_bytes()).sum()
}

#[tokio::test]
async fn an_object_is_read_as_a_file_is() {
    let home = Home::of(&["acme", "globex"]).await;
    let mut writer = home.writer(WriterOptions { block_bytes: 4000, ..Default::default() }).await;
    for tenant in ["acme", "globex"] {
        let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"head\n").await.unwrap();
        for number in 0..20_000 {
            writer.append(lane, format!("{tenant} {number}\n").as_bytes(), Stamp::default()).unwrap();
        }
    }
    let (whole, _) = writer.finish().await.unwrap();
    let mut settled = Vec::new();
    settle(&whole[..], &mut settled).unwrap();
    let footer = domicile_tests::blocks(&whole).last().unwrap().0;
    for bytes in [&whole[..], &settled, &whole[..footer], &whole[..footer / 2], &home.sealed(&["acme"]).await]
    {
        let store = store_of(bytes).await;
        let objects = objects(&store);
        let object = || objects.open(&Path::from(NAME)).unwrap();
        let in_file = |selection| Segment::open_source(&home.domicile, bytes, Purpose::Billing, selection);
        for selection in [
            Selection::all(),
            Selection::scopes(&[scope("acme")]),
            Selection::scopes(&[scope("acme")]).alone(),
        ] {
            let expected = in_file(selection.clone()).await.unwrap();
            let segment = Segment::open_source(&home.domicile, object(), Purpose::Billing, selection.clone())
                .await
                .unwrap();
            assert_eq!(segment.state(), expected.state());
            assert_eq!(restored(&segment), restored(&expected));
            let seen = Mutex::new(0);
            let count = |block: &domicile_record::format::DataBlock| *seen.lock().unwrap() += block.len();
            let threads = 3.try_into().unwrap();
            segment
                .for_each_block_parallel(threads, BlockOrder::Any, |_, block| {
                    count(block);
                    Ok(())
                })
                .unwrap();
            let records: usize = expected.blocks().map(|block| block.unwrap().len()).sum();
            assert_eq!(*seen.lock().unwrap(), records);
        }
        let verified = verify(&home.domicile, object(), None).await.unwrap();
        let expected = verify(&home.domicile, bytes, None).await.unwrap();
        assert_eq!(
            (verified.state, verified.records, verified.blocks),
            (expected.state, expected.records, expected.blocks)
        );
        assert_eq!(verified.findings.len(), expected.findings.len());
        assert_eq!(inspect(object()).unwrap().state, inspect(bytes).unwrap().state);
        assert!(why(&home.domicile, object()).await.unwrap().is_clear());
        // What is read from the first octet to the last takes few requests, and not one for each block.
        store.forget();
        inspect(object()).unwrap();
        let (requests, octets) = store.asked();
        assert!(requests <= 12, "{:?}", store.ranges.lock().unwrap());
        assert!(octets <= bytes.len() as u64 + (64 << 10), "{octets} of {}", bytes.len());
    }
}

/// The copy at the end is enough to read a lane, and whoever looks at all looks at the beginning too.
#[tokio::test]
async fn a_damaged_beginning_is_noticed_behind_a_good_copy() {
    let home = Home::of(&["acme"]).await;
    let good = home.sealed(&["acme"]).await;
    for octet in [0, 9, 20, 60, 100, 111] {
        let mut bad = good.clone();
        bad[octet] ^= 1;
        let store = store_of(&bad).await;
        let object = || objects(&store).open(&Path::from(NAME)).unwrap();
        let selection = Selection::scopes(&[scope("acme")]);
        let segment =
            Segment::open_source(&home.domicile, object(), Purpose::Billing, selection).await.unwrap();
        assert_eq!(restored(&segment), b"acme");
        let expected = verify(&home.domicile, &bad[..], None).await.unwrap_err().code();
        assert_eq!(
            verify(&home.domicile, object(), None).await.unwrap_err().code(),
            expected,
            "octet {octet}"
        );
        assert_eq!(inspect(object()).unwrap_err().code(), expected, "octet {octet}");
    }
}

#[tokio::test]
async fn a_lane_without_an_end_of_its_own_is_not_read_alone() {
    let home = Home::of(&["acme", "globex"]).await;
    let bytes = home.sealed(&["acme", "globex"]).await;
    // Without its footer it is walked, and read as any other.
    let footer = domicile_tests::blocks(&bytes).last().unwrap().0;
    let selection = || Selection::scopes(&[scope("acme")]).alone();
    let cut =
        Segment::open_source(&home.domicile, &bytes[..footer], Purpose::Billing, selection()).await.unwrap();
    assert_eq!(cut.state(), &State::Complete);
    // An end that does not verify vouches for nothing.
    let lane = cut.lanes()[0].lane;
    let (at, header) =
        *domicile_tests::blocks(&bytes).iter().rfind(|(_, header)| header.lane == lane).unwrap();
    let mut bad = bytes.clone();
    bad[at + usize::try_from(header.block_bytes()).unwrap() - 9] ^= 1;
    let segment =
        Segment::open_source(&home.domicile, &bad[..], Purpose::Billing, selection()).await.unwrap();
    let obstacle = segment.lanes()[0].obstacle().unwrap();
    assert!(obstacle.is_corruption(), "{obstacle}");
    assert_eq!(segment.blocks().count(), 0);
}

/// Outside a runtime, inside one of one thread and inside one of several: whoever reads waits, and nothing panics.
#[test]
fn objects_are_read_inside_a_runtime_and_outside() {
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| number.to_be_bytes()[2]).collect();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime().block_on(store_of(&bytes));
    let read = || {
        let object = objects(&store).open(&Path::from(NAME)).unwrap();
        let mut all = vec![0; bytes.len()];
        object.read_at(0, &mut all).unwrap();
        assert_eq!(all, bytes);
        assert!(object.read_at(999_999, &mut [0; 2]).is_err(), "behind the end");
        assert!(object.read_at(u64::MAX, &mut [0; 2]).is_err());
        object.read_at(1_000_000, &mut []).unwrap();
    };
    read();
    runtime().block_on(async { read() });
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    several.block_on(async {
        let object = objects(&store).open(&Path::from(NAME)).unwrap();
        let object = Arc::new(object);
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (object, bytes) = (Arc::clone(&object), bytes.clone());
                tokio::task::spawn_blocking(move || {
                    for step in 0..200 {
                        let at = (thread * 7_919 + step * 104_729) % 990_000;
                        let mut piece = [0; 5000];
                        object.read_at(at, &mut piece).unwrap();
                        let from = usize::try_from(at).unwrap();
                        assert_eq!(piece[..], bytes[from..from + 5000]);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.await.unwrap();
        }
    });
}

fn code_of(error: std::io::Error) -> Code {
    error.downcast::<domicile::Error>().unwrap().code()
}

#[tokio::test]
async fn parts_of_two_versions_are_never_mixed() {
    let bytes = vec![7; 500_000];
    for ignores_conditions in [false, true] {
        let store = changed_store(&bytes, |store| store.ignores_conditions = ignores_conditions).await;
        let object = objects(&store).open(&Path::from(NAME)).unwrap();
        object.read_at(0, &mut [0; 10]).unwrap();
        // The very same octets: nobody can know.
        store.store.put(&Path::from(NAME), bytes.clone().into()).await.unwrap();
        assert_eq!(code_of(object.read_at(200_000, &mut [0; 10]).unwrap_err()), Code::ObjectChanged);
        object.read_at(499_000, &mut [0; 10]).unwrap();
        store.store.delete(&Path::from(NAME)).await.unwrap();
        assert_eq!(code_of(object.read_at(300_000, &mut [0; 10]).unwrap_err()), Code::ObjectChanged);
    }
    // And as whoever opens a segment sees it.
    let home = Home::of(&["acme"]).await;
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    // Longer than what opening it leaves in memory.
    (0..18_000).for_each(|_| writer.append(lane, &[b'x'; 1000], Stamp::default()).unwrap());
    let (bytes, _) = writer.finish().await.unwrap();
    let store = store_of(&bytes).await;
    let object = objects(&store).open(&Path::from(NAME)).unwrap();
    let segment =
        Segment::open_source(&home.domicile, object, Purpose::Billing, Selection::all()).await.unwrap();
    store.store.put(&Path::from(NAME), bytes.clone().into()).await.unwrap();
    let error = segment.blocks().find_map(Result::err).unwrap();
    assert_eq!(error.code(), Code::ObjectChanged, "{error}");
}

#[tokio::test]
async fn what_is_not_there_empty_or_without_a_version_is_told() {
    let store = changed_store(&[1; 10], |store| store.no_versions = true).await;
    let error = objects(&store).open(&Path::from(NAME)).unwrap_err();
    assert_eq!(error.code(), Code::ObjectUnavailable, "{error}");
    let store = store_of(&[]).await;
    let missing = objects(&store).open(&Path::from("eu-central-1/none.dseg")).unwrap_err();
    assert_eq!((missing.code(), missing.place()), (Code::ObjectMissing, Some("eu-central-1/none.dseg")));
    let empty = objects(&store).open(&Path::from(NAME)).unwrap();
    assert_eq!(empty.length().unwrap(), 0);
    assert_eq!(inspect(empty).unwrap_err().code(), Code::SegmentForeign);
    for name in ["eu-central-1/2026-11-28/b.dseg.part", "eu-central-1/2026-11-27/c.dseg", "us-east-1/d.dseg"]
    {
        store.store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    let listed = objects(&store).list(&Path::from("eu-central-1")).unwrap();
    assert_eq!(
        listed.iter().map(AsRef::<str>::as_ref).collect::<Vec<_>>(),
        ["eu-central-1/2026-11-27/c.dseg", NAME]
    );
}

/// A finished segment of about this many octets, in a file.
async fn segment_file(home: &Home, octets: usize) -> std::path::PathBuf {
    let mut writer = home.writer(WriterOptions::default()).await;
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    (0..octets / 1000).for_each(|_| writer.append(lane, &[b'x'; 1000], Stamp::default()).unwrap());
    let path = home.directory.path().join(format!("{}.dseg", writer.header().id));
    std::fs::write(&path, writer.finish().await.unwrap().0).unwrap();
    path
}

const PARTS: UploadOptions = UploadOptions { part_bytes: 100_000, parts_at_once: 3 };

fn destination(store: &Arc<Counted>) -> Destination {
    destination_of(store, "eu-central-1")
}

fn destination_of(store: &Arc<Counted>, of: &str) -> Destination {
    let store = Arc::clone(store);
    Destination::new(
        region(of),
        "memory://test",
        Arc::clone(&store) as Arc<dyn ObjectStore>,
        Path::from("kept"),
    )
    .in_parts(store)
}

/// The same objects in a store that is told something else.
fn told(store: &Arc<Counted>, parts_max: Option<usize>, completes: Completion) -> Arc<Counted> {
    let store = store.store.clone();
    Arc::new(Counted { store, parts_max, completes, ..Counted::default() })
}

fn state_of(file: &std::path::Path) -> std::path::PathBuf {
    file.with_extension("dseg.upload")
}

async fn lies(store: &Counted, uploaded: &Uploaded) -> Vec<u8> {
    let location = Path::from(uploaded.url.strip_prefix("memory://test/").unwrap());
    store.store.get(&location).await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn an_upload_that_was_cut_sends_the_missing_parts_alone() {
    let home = Home::of(&["acme"]).await;
    let file = segment_file(&home, 1_000_000).await;
    let bytes = std::fs::read(&file).unwrap();
    let parts = bytes.len().div_ceil(100_000);
    for (cut, completes) in (0..=parts)
        .map(|cut| (Some(cut), Completion::Done))
        .chain([(None, Completion::CutBefore), (None, Completion::CutAfter)])
    {
        let store = told(&Arc::default(), cut.filter(|cut| *cut < parts), completes);
        let first = upload(&home.domicile, &destination(&store), &file, PARTS).await;
        // What was done and not answered is found to be done.
        let whole = cut == Some(parts) || completes == Completion::CutAfter;
        assert_eq!(first.is_ok(), whole, "{cut:?} {completes:?}: {first:?}");
        if let Err(error) = first {
            assert_eq!(error.code(), Code::ObjectUnavailable, "{error}");
            assert!(state_of(&file).exists());
        }
        let before = store.parts.load(Ordering::Relaxed);
        let again = told(&store, None, Completion::Done);
        let uploaded = upload(&home.domicile, &destination(&again), &file, PARTS).await.unwrap();
        let sent = again.parts.load(Ordering::Relaxed);
        assert_eq!((before + sent, uploaded.existed), (parts, whole), "{cut:?} {completes:?}");
        if !whole {
            assert_eq!((uploaded.parts_before, uploaded.parts_sent), (before as u64, sent as u64));
        }
        assert_eq!(lies(&again, &uploaded).await, bytes);
        assert!(!state_of(&file).exists(), "it is of no use any more");
        assert!(uploaded.url.starts_with("memory://test/kept/eu-central-1/20"), "{}", uploaded.url);
        assert!(uploaded.url.ends_with(&format!("/{}.dseg", uploaded.segment)), "{}", uploaded.url);
        // And once more, by whoever does not know.
        let again = upload(&home.domicile, &destination(&again), &file, PARTS).await.unwrap();
        assert_eq!((again.existed, again.parts_sent), (true, 0));
    }
}

#[tokio::test]
async fn an_upload_goes_on_only_with_the_same_octets_at_the_same_place() {
    let home = Home::of(&["acme"]).await;
    let file = segment_file(&home, 1_000_000).await;
    let bytes = std::fs::read(&file).unwrap();
    let begun = async || {
        let store = told(&Arc::default(), Some(4), Completion::Done);
        upload(&home.domicile, &destination(&store), &file, PARTS).await.unwrap_err();
        told(&store, None, Completion::Done)
    };
    // Another edition of the segment: every part is sent anew.
    let store = begun().await;
    let mut settled = Vec::new();
    settle(&bytes[..], &mut settled).unwrap();
    std::fs::write(&file, &settled).unwrap();
    let uploaded = upload(&home.domicile, &destination(&store), &file, PARTS).await.unwrap();
    assert_eq!((uploaded.parts_before, lies(&store, &uploaded).await), (0, settled.clone()));

    // Another place: refused, until somebody says that the first is given up.
    let store = begun().await;
    let elsewhere = Destination::new(
        region("eu-central-1"),
        "memory://other",
        Arc::clone(&store) as _,
        Path::from("kept"),
    )
    .in_parts(Arc::clone(&store) as _);
    let error = upload(&home.domicile, &elsewhere, &file, PARTS).await.unwrap_err();
    assert_eq!(error.code(), Code::ArgumentInvalid, "{error}");
    std::fs::remove_file(state_of(&file)).unwrap();
    assert!(!upload(&home.domicile, &elsewhere, &file, PARTS).await.unwrap().existed);

    // The store has forgotten it: it begins anew by itself.
    begun().await;
    let empty = Arc::<Counted>::default();
    let uploaded = upload(&home.domicile, &destination(&empty), &file, PARTS).await.unwrap();
    assert_eq!((uploaded.parts_before, lies(&empty, &uploaded).await), (0, settled.clone()));

    // What makes no sense is not guessed at.
    let good = {
        begun().await;
        std::fs::read_to_string(state_of(&file)).unwrap()
    };
    for bad in [
        "",
        "{}",
        &good[..good.len() / 2],
        &good.replace("\"part_bytes\":100000", "\"part_bytes\":0"),
        &good.replace("\"version\":1", "\"version\":2"),
        &good.replace("\"parts\":{", "\"parts\":{\"999999\":\"x\","),
        &good.replace("\"part_bytes\":100000", "\"part_bytes\":1"),
    ] {
        std::fs::write(state_of(&file), bad).unwrap();
        let error = upload(&home.domicile, &destination(&Arc::default()), &file, PARTS).await.unwrap_err();
        assert_eq!(error.code(), Code::InputFailed, "{bad}: {error}");
    }
}

#[tokio::test]
async fn what_lies_there_is_never_replaced() {
    let home = Home::of(&["acme"]).await;
    let file = segment_file(&home, 1_000_000).await;
    let bytes = std::fs::read(&file).unwrap();
    let store = Arc::<Counted>::default();
    let uploaded = upload(&home.domicile, &destination(&store), &file, PARTS).await.unwrap();
    let location = Path::from(uploaded.url.strip_prefix("memory://test/").unwrap());
    // One octet in the middle, as long as before; shorter; and by stores that put whole segments.
    let mut other = bytes.clone();
    other[500_000] ^= 1;
    let whole = Destination::new(
        region("eu-central-1"),
        "memory://test",
        Arc::clone(&store) as _,
        Path::from("kept"),
    );
    let one_go = UploadOptions { part_bytes: 100_000_000, ..PARTS };
    for there in [&other[..], &bytes[..1000], b""] {
        store.store.put(&location, there.to_vec().into()).await.unwrap();
        for (destination, options) in [(&destination(&store), PARTS), (&whole, PARTS), (&whole, one_go)] {
            let error = upload(&home.domicile, destination, &file, options).await.unwrap_err();
            assert_eq!(error.code(), Code::ObjectExists, "{error}");
            assert_eq!(lies(&store, &uploaded).await, there);
        }
    }
    for options in [PARTS, one_go] {
        store.store.delete(&location).await.unwrap();
        assert!(!upload(&home.domicile, &whole, &file, options).await.unwrap().existed);
        assert_eq!(lies(&store, &uploaded).await, bytes);
        assert!(upload(&home.domicile, &whole, &file, options).await.unwrap().existed);
    }
    let beside = objects(&store).list(&Path::from("")).unwrap();
    assert_eq!(beside, [location]);
}

#[tokio::test]
async fn segments_go_where_their_region_keeps_them_and_are_finished() {
    let home = Home::of(&["acme"]).await;
    let file = segment_file(&home, 300_000).await;
    let store = Arc::<Counted>::default();
    for (of, code) in [("us-east-1", Code::ObjectElsewhere), ("eu-west-1", Code::ObjectElsewhere)] {
        let error = upload(&home.domicile, &destination_of(&store, of), &file, PARTS).await.unwrap_err();
        assert_eq!((error.code(), error.is_refusal()), (code, true), "{error}");
    }
    // From a host where the region's records may not be.
    let toml = std::fs::read_to_string(home.config.path()).unwrap();
    let abroad = toml.replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
    let abroad = domicile::Config::parse(&abroad, home.config.path()).unwrap();
    let abroad = domicile::Domicile::from_config(&abroad).await.unwrap();
    let error = upload(&abroad, &destination(&store), &file, PARTS).await.unwrap_err();
    assert_eq!(error.code(), Code::HomeRefused, "{error}");
    // Cut anywhere, or still written.
    let bytes = std::fs::read(&file).unwrap();
    let footer = domicile_tests::blocks(&bytes).last().unwrap().0;
    for length in [footer, footer + 100, bytes.len() - 1, 200_000] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = upload(&home.domicile, &destination(&store), &file, PARTS).await.unwrap_err();
        assert_eq!(error.code(), Code::SegmentUnfinished, "{length}: {error}");
    }
    std::fs::write(&file, &bytes).unwrap();
    let held = std::fs::File::open(&file).unwrap();
    held.lock().unwrap();
    let error = upload(&home.domicile, &destination(&store), &file, PARTS).await.unwrap_err();
    assert_eq!(error.code(), Code::SegmentBusy, "{error}");
    assert_eq!(store.asked().0, 0);
    assert!(objects(&store).list(&Path::from("")).unwrap().is_empty(), "nothing was put anywhere");
}
