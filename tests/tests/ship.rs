//! Shipping home over real sockets: cut anywhere, by clients that lie and by homes that die, a segment arrives whole and once, or
//! is refused with the reason; nothing is lost on the way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domicile::{Code, Domicile};
use domicile_record::format::SegmentHeader;
use domicile_record::header_of;
use domicile_tests::Home;
use domicile_tests::hosts::{Hosts, by_name, known};
use domicile_tests::way::{Fault, pass_all};
use domicile_transport::ship::{Digest, Landing, Limits, Patience, Server, Shipper};
use domicile_transport::{Exchange, PlacedStream, Tasks, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const HERE: &str = "eu-central-1";

/// A home's server in this process, and a directory that it takes segments into.
struct Serving {
    hosts: Hosts,
    directory: PathBuf,
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    running: JoinHandle<domicile::Result<()>>,
    kept: tempfile::TempDir,
}

impl Serving {
    async fn new(home: &Home) -> Self {
        Self::with(Some(home.domicile.clone()), Limits::default()).await
    }

    async fn with(homes: Option<Domicile>, limits: Limits) -> Self {
        Self::at(in_memory(), Hosts::new(), homes, limits).await
    }

    /// The server dies, as far as the directory knows, and another one starts.
    async fn restarted(self) -> Self {
        let Self { hosts, running, kept, end, .. } = self;
        drop(end);
        running.await.unwrap().unwrap();
        Self::at(kept, hosts, None, Limits::default()).await
    }

    async fn at(kept: tempfile::TempDir, hosts: Hosts, homes: Option<Domicile>, limits: Limits) -> Self {
        let landing = Landing::open(kept.path(), &known(HERE), limits, homes).unwrap();
        let server = Server::new(&hosts.store(HERE), landing)
            .readers(vec![domicile_tests::hosts::identity(HERE, "store").parse().unwrap()])
            .drain_max(Duration::from_millis(500))
            .metrics(|| "domicile_of_a_test 1\n".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let running = tokio::spawn(server.run(listener, async { drop(ended.await) }));
        let directory = kept.path().to_owned();
        Self { hosts, directory, address, end: Some(end), running, kept }
    }

    fn to(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What ships from a region; certificates are for `localhost`.
    fn shipper(&self, region: &str) -> Shipper {
        let mut patience = Patience::default();
        (patience.attempts_max, patience.wait_min) = (4, Duration::from_millis(1));
        Shipper::new(&self.hosts.store(region), &self.to()).unwrap().patience(patience)
    }

    async fn connect(&self) -> Stream {
        self.connect_as(&self.hosts.store(HERE)).await
    }

    async fn connect_as(&self, transport: &Transport) -> Stream {
        let connector = transport.connector(Exchange::home(&known(HERE))).protocols(&[b"http/1.1"]);
        connector.connect_async(self.address, &by_name()).await.unwrap()
    }

    /// Another host of this region, with an identity of its own.
    async fn connect_as_another(&self) -> Stream {
        self.hosts.issue(HERE, "other", domicile_tests::hosts::DAY);
        self.hosts.configure(HERE, "other", "");
        self.connect_as(&self.hosts.host(HERE, "other")).await
    }

    /// What is kept, by its path below the directory.
    fn segments(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.directory).into_iter().filter(|(path, _)| path.ends_with(".dseg")).collect()
    }

    /// What is left of uploads.
    fn parts(&self) -> Vec<String> {
        let is_part = |path: &String| path.ends_with(".part") || path.ends_with(".mark");
        files(&self.directory).into_keys().filter(is_part).collect()
    }

    /// BLAKE3 of some octets.
    fn blake3(&self, bytes: &[u8]) -> Vec<u8> {
        let path = self.hosts.file("octets");
        fs::write(&path, bytes).unwrap();
        let digest = digest_of(&path);
        domicile_tests::unhex(&digest.to_string())
    }

    async fn ends(mut self) {
        self.end.take().unwrap().send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

type Stream = PlacedStream<Tasks<TcpStream>>;

/// A directory in memory where there is such a thing: what is synced here is not what a disk does.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut folders, mut files) = (vec![directory.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// An answer: status, headers, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn number(&self, name: &str) -> Option<u64> {
        self.headers.get(name)?.parse().ok()
    }

    fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// Says something, and hears the answer.
async fn say(stream: &mut Stream, head: &str, body: &[u8]) -> Answer {
    // Whoever is refused may find that nobody listens any more; the answer is there all the same.
    let _ = stream.write_all(format!("{head}\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    let answer = hear(stream, head.starts_with("HEAD")).await;
    assert!(is_described(head, answer.status), "docs/openapi.yaml: {} to {head}", answer.status);
    answer
}

/// Whether the description has this answer to this request. What it does not have at all is refused by all servers.
fn is_described(head: &str, status: u16) -> bool {
    static DESCRIPTION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        fs::read_to_string(domicile_tests::program::repository().join("docs/openapi.yaml")).unwrap()
    });
    let (method, path) = head.split_once(' ').unwrap();
    let path = path.split(' ').next().unwrap();
    let path = if path.starts_with("/v1/segments/") { "/v1/segments/{id}" } else { path };
    let Some(paths) = DESCRIPTION.split(&format!("\n  {path}:\n")).nth(1) else { return true };
    let of_path = paths.split("\n  /").next().unwrap().split("\ncomponents:").next().unwrap();
    let Some(methods) = of_path.split(&format!("\n    {}:\n", method.to_lowercase())).nth(1) else {
        return true;
    };
    let mut lines = methods.lines().take_while(|line| line.starts_with("      "));
    status == 431 || lines.any(|line| line.starts_with(&format!("        \"{status}\":")))
}

async fn hear(stream: &mut Stream, without_body: bool) -> Answer {
    let (mut bytes, mut one) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one).await.unwrap();
        bytes.push(one[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; if without_body || status == 204 { 0 } else { length }];
    stream.read_exact(&mut body).await.unwrap();
    Answer { status, headers, body }
}

fn id(segment: &[u8]) -> String {
    header_of(segment).unwrap().id.to_string()
}

fn path(segment: &[u8]) -> String {
    header_of(segment).unwrap().path().to_str().unwrap().to_owned()
}

async fn head(stream: &mut Stream, segment: &[u8]) -> Answer {
    say(stream, &format!("HEAD /v1/segments/{} HTTP/1.1", id(segment)), b"").await
}

async fn put(stream: &mut Stream, segment: &[u8], from: usize, to: usize) -> Answer {
    let total = segment.len();
    let range = format!("\r\nContent-Range: bytes {from}-{}/{total}", to.wrapping_sub(1));
    let range = if (from, to) == (0, total) { "" } else { &range };
    let head = format!("PUT /v1/segments/{} HTTP/1.1\r\nContent-Length: {}{range}", id(segment), to - from);
    say(stream, &head, &segment[from..to]).await
}

/// The same segment, as far as can be seen without a key, of a home in the US.
fn elsewhere(segment: &[u8]) -> Vec<u8> {
    let mut header = header_of(segment).unwrap();
    header.place = known("us-east-1");
    let mut segment = segment.to_vec();
    segment[..SegmentHeader::BYTES].copy_from_slice(&header.encode());
    segment
}

/// The same segment in another edition: only what is not sealed is another.
fn another_edition(segment: &[u8]) -> Vec<u8> {
    let mut header = header_of(segment).unwrap();
    header.edition += 1;
    let mut segment = segment.to_vec();
    segment[..SegmentHeader::BYTES].copy_from_slice(&header.encode());
    segment
}

/// Begins a segment and says no more than so many octets of it.
async fn begin(stream: &mut Stream, segment: &[u8], octets: usize) {
    let (id, total) = (id(segment), segment.len());
    let head = format!("PUT /v1/segments/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: {total}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&segment[..octets]).await.unwrap();
    stream.flush().await.unwrap();
}

/// Asks until so much of a segment is there.
async fn reached(stream: &mut Stream, segment: &[u8], offset: usize) -> Answer {
    loop {
        let known = head(stream, segment).await;
        if known.number("upload-offset") == Some(offset as u64) {
            return known;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn digest_of(file: &Path) -> Digest {
    Digest::of(&fs::File::open(file).unwrap()).unwrap()
}

/// Writes a segment into a directory of its own.
fn in_a_file(segment: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = in_memory();
    let path = directory.path().join("a.dseg");
    fs::write(&path, segment).unwrap();
    (directory, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_goes_home_once_and_is_known_there() {
    let home = Home::of(&["acme", "globex"]).await;
    let serving = Serving::new(&home).await;
    let segment = home.sealed(&["acme", "globex"]).await;
    let (_directory, file) = in_a_file(&segment);
    // From anywhere: what is sealed may leave, and goes home.
    for (region, new) in [("us-east-1", true), ("us-east-1", false), (HERE, false)] {
        let shipped = serving.shipper(region).ship(&file, None).await.unwrap();
        assert_eq!((shipped.new, shipped.kept.length), (new, segment.len() as u64), "{region}");
        assert_eq!(shipped.sent, if new { segment.len() as u64 } else { 0 });
        assert!(!shipped.kept.adopted && !shipped.kept.of_a_post);
    }
    assert_eq!(serving.segments(), BTreeMap::from([(path(&segment), segment.clone())]));
    assert_eq!(serving.parts(), Vec::<String>::new());

    let mut stream = serving.connect().await;
    let known = head(&mut stream, &segment).await;
    assert_eq!((known.status, known.headers["segment-state"].as_str()), (200, "stored"));
    assert_eq!(known.number("upload-offset"), Some(segment.len() as u64));
    let digest = Digest::from_etag(&known.headers["etag"]).unwrap();
    assert_eq!(digest, digest_of(&file));
    // Sent again without a word of what it is: it is read, and found to be the same.
    assert_eq!(put(&mut stream, &segment, 0, segment.len()).await.status, 200);
    serving.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_cut_anywhere_goes_on_from_there() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::new(&home).await;
    let segment = home.sealed(&["acme"]).await;
    let step = if domicile_tests::long_form() { 1 } else { 17 };
    for cut in (1..segment.len()).step_by(step) {
        let mut stream = serving.connect().await;
        begin(&mut stream, &segment, cut).await;
        drop(stream);
        // The home has what came as soon as it has noticed the cut.
        let mut stream = serving.connect().await;
        let reached = reached(&mut stream, &segment, cut).await;
        assert_eq!((reached.status, reached.number("upload-offset")), (204, Some(cut as u64)));
        assert_eq!(reached.number("upload-length"), Some(segment.len() as u64));
        assert_eq!(reached.headers["segment-state"], "incomplete");
        let stored = put(&mut stream, &segment, cut, segment.len()).await;
        assert_eq!(stored.status, 201, "cut at {cut}: {}", String::from_utf8_lossy(&stored.body));
        assert_eq!(serving.segments(), BTreeMap::from([(path(&segment), segment.clone())]), "cut at {cut}");
        assert_eq!(serving.parts(), Vec::<String>::new());
        fs::remove_file(serving.directory.join(path(&segment))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shipper_whose_way_is_cut_at_any_octet_of_either_direction_comes_home_once() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::new(&home).await;
    let segment = home.sealed(&["acme"]).await;
    let (_directory, file) = in_a_file(&segment);
    let way = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = way.local_addr().unwrap().port();
    let mut patience = Patience::default();
    (patience.attempts_max, patience.wait_min) = (4, Duration::from_millis(1));
    // The first connection has the fault; those that follow have none.
    let ship = async |up: Fault, down: Fault| {
        let (way, to, ends) = (way.try_clone().unwrap(), serving.address, Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&ends);
        let passes = std::thread::spawn(move || pass_all(&way, to, up, down, &is_over));
        let shipper = Shipper::new(&serving.hosts.store("us-east-1"), &format!("https://localhost:{port}"));
        let shipped = shipper.unwrap().patience(patience).ship(&file, None).await;
        ends.store(true, Ordering::SeqCst);
        // One more, which says that no more come.
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
        let passed = tokio::task::spawn_blocking(|| passes.join().unwrap()).await.unwrap();
        let shipped = shipped.unwrap_or_else(|error| panic!("{up:?} {down:?}: {error:?}"));
        assert_eq!(shipped.kept.length, segment.len() as u64);
        assert_eq!(
            serving.segments(),
            BTreeMap::from([(path(&segment), segment.clone())]),
            "{up:?} {down:?}"
        );
        assert_eq!(serving.parts(), Vec::<String>::new());
        fs::remove_file(serving.directory.join(path(&segment))).unwrap();
        passed
    };
    let [up, down] = ship(Fault::None, Fault::None).await;
    assert!(up > segment.len() && down > 1000, "{up} {down}");
    let step = if domicile_tests::long_form() { 1 } else { 61 };
    for octet in (0..up).step_by(step) {
        ship(Fault::CutAfter(octet), Fault::None).await;
    }
    for octet in (0..down).step_by(step) {
        ship(Fault::None, Fault::CutAfter(octet)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_for_another_home_is_refused_before_an_octet_of_it_leaves() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::new(&home).await;
    let segment = elsewhere(&home.sealed(&["acme"]).await);
    let (_directory, file) = in_a_file(&segment);
    let refused = serving.shipper("us-east-1").ship(&file, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::PeerRefused, "{refused:?}");
    assert_eq!(refused.broken_rule(), Some("home = [\"us-east-1\"]"));
    // Whoever has no such guard is refused by the home.
    let mut stream = serving.connect().await;
    let answer = put(&mut stream, &segment, 0, segment.len()).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "home/mismatch"));
    assert!(serving.segments().is_empty() && serving.parts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_segment_comes_in_parts_each_of_which_is_on_disk_when_it_is_answered() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::new(&home).await;
    let mut writer = home.writer(domicile_record::WriterOptions::default()).await;
    let lane = domicile_tests::descriptor("acme", domicile_record::format::Contents::default());
    let lane = writer.open_lane(lane, b"").await.unwrap();
    for number in 0..60u8 {
        writer.append(lane, &vec![number; 64 << 10], domicile_record::Stamp::default()).unwrap();
    }
    let segment = writer.finish().await.unwrap().0;
    assert!(segment.len() > 3 << 20);
    let mut stream = serving.connect().await;
    let mut from = 0;
    while from < segment.len() {
        let to = (from + 300_001).min(segment.len());
        // A gap is refused, and the answer says where to go on.
        if from > 0 && to < segment.len() {
            let gap = put(&mut stream, &segment, from + 1, to).await;
            assert_eq!((gap.status, gap.code().as_str()), (409, "shipment/offset"));
            assert_eq!(gap.number("upload-offset"), Some(from as u64));
        }
        let answer = put(&mut stream, &segment, from, to).await;
        let whole = to == segment.len();
        assert_eq!(
            (answer.status, answer.number("upload-offset")),
            (if whole { 201 } else { 204 }, Some(to as u64))
        );
        // What is here already may come once more.
        if !whole {
            assert_eq!(put(&mut stream, &segment, from.max(1), to).await.status, 204);
        }
        from = to;
    }
    assert_eq!(serving.segments(), BTreeMap::from([(path(&segment), segment)]));
    assert_eq!(serving.parts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_lie_or_make_no_sense_are_refused_and_leave_nothing() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let (name, total) = (id(&segment), segment.len());
    let put = format!("PUT /v1/segments/{name} HTTP/1.1");
    for (head, status, code) in [
        (format!("{put}\r\nTransfer-Encoding: chunked"), 411, "shipment/invalid"),
        (
            format!("{put}\r\nContent-Length: {total}\r\nContent-Range: bytes 0-1/{total}"),
            400,
            "shipment/invalid",
        ),
        (
            format!("{put}\r\nContent-Length: {total}\r\nContent-Range: bytes */{total}"),
            400,
            "shipment/invalid",
        ),
        (format!("{put}\r\nContent-Length: {total}\r\nRepr-Digest: blake3=:AAAA:"), 400, "shipment/invalid"),
        (format!("{put}\r\nContent-Length: {}", u64::MAX / 2), 413, "segment/limit"),
        (
            format!("PUT /v1/segments/{} HTTP/1.1\r\nContent-Length: {total}", name.to_uppercase()),
            400,
            "shipment/invalid",
        ),
        (
            format!("PUT /v1/segments/..%2f..%2fx HTTP/1.1\r\nContent-Length: {total}"),
            400,
            "shipment/invalid",
        ),
        (
            format!("PUT /v1/segments/{} HTTP/1.1\r\nContent-Length: {total}", "0".repeat(64)),
            400,
            "shipment/invalid",
        ),
        (format!("GET /v1/segments/{name} HTTP/1.1"), 404, "shipment/none"),
        ("GET /v2/ HTTP/1.1".to_owned(), 404, "shipment/none"),
        (format!("DELETE /v1/segments/{name} HTTP/1.1"), 405, "shipment/invalid"),
    ] {
        let mut stream = serving.connect().await;
        let answer = say(&mut stream, &head, if head.contains("PUT") { &segment } else { b"" }).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{head}");
    }
    let mut stream = serving.connect().await;
    assert_eq!(head(&mut stream, &segment).await.status, 404);
    // More headers than anybody has.
    let long = put.clone() + &"\r\nX: y".repeat(100);
    assert_eq!(say(&mut serving.connect().await, &long, b"").await.status, 431);
    assert!(serving.segments().is_empty() && serving.parts().is_empty());
    // Shorter than it is: no segment that is whole.
    for length in [0, 1, 111, 112, 200, total - 1] {
        let mut stream = serving.connect().await;
        let answer =
            say(&mut stream, &format!("{put}\r\nContent-Length: {length}"), &segment[..length]).await;
        assert_eq!(answer.status, 422, "{length}: {}", answer.code());
        assert!(serving.parts().is_empty(), "{length}");
    }
    // Longer than it is: what is behind it is no segment.
    let longer = [&segment[..], b"more"].concat();
    let answer =
        say(&mut serving.connect().await, &format!("{put}\r\nContent-Length: {}", longer.len()), &longer)
            .await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "segment/corrupt"));
    assert!(serving.segments().is_empty() && serving.parts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_damaged_on_the_way_is_refused_and_dropped() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let (_directory, file) = in_a_file(&segment);
    let digest = digest_of(&file).repr();
    for at in (SegmentHeader::BYTES..segment.len()).step_by(97) {
        let mut damaged = segment.clone();
        damaged[at] ^= 1;
        let mut stream = serving.connect().await;
        let head = format!(
            "PUT /v1/segments/{} HTTP/1.1\r\nContent-Length: {}\r\nRepr-Digest: {digest}",
            id(&segment),
            segment.len()
        );
        let answer = say(&mut stream, &head, &damaged).await;
        assert_eq!(answer.status, 422, "octet {at}");
        assert!(
            ["shipment/unverified", "segment/corrupt", "segment/torn", "segment/unfinished"]
                .contains(&answer.code().as_str()),
            "{}",
            answer.code()
        );
        assert!(serving.segments().is_empty() && serving.parts().is_empty());
        // Nothing stands in the way of the right one.
        if at == SegmentHeader::BYTES {
            assert_eq!(say(&mut stream, &head, &segment).await.status, 201);
            fs::remove_file(serving.directory.join(path(&segment))).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_may_come_behind_the_octets_and_nothing_is_whole_before_it() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let (_directory, file) = in_a_file(&segment);
    let digest = digest_of(&file).repr();
    let another = |digest: &str| {
        let (first, rest) = digest.split_at("blake3=:".len());
        let other = if rest.starts_with('A') { "B" } else { "A" };
        format!("{first}{other}{}", &rest[1..])
    };
    let total = segment.len();
    let head_of = |from: usize, to: usize| {
        let (name, last) = (id(&segment), to - 1);
        format!(
            "PUT /v1/segments/{name} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\nContent-Range: bytes {from}-{last}/{total}"
        )
    };
    let whole = head_of(0, total);
    let said = |digest: &str| format!("Repr-Digest: {digest}\r\n");
    let none = String::new();
    let longer = [&segment[..], b"x"].concat();
    for (head, octets, trailers, status, code) in [
        (whole.clone(), &segment[..], said("blake3=:AAAA:"), 400, "shipment/invalid"),
        (whole.clone(), &segment[..], none.clone(), 400, "shipment/invalid"),
        (whole.clone(), &segment[..], said("sha-256=:AAAA:"), 400, "shipment/invalid"),
        (whole.clone(), &segment[..], said(&another(&digest)), 422, "shipment/unverified"),
        (
            format!("{whole}\r\nRepr-Digest: {}", another(&digest)),
            &segment[..],
            said(&digest),
            400,
            "shipment/invalid",
        ),
        (whole.clone(), &longer[..], said(&digest), 400, "shipment/invalid"),
        (
            head_of(0, total).replace("Content-Range", "Range"),
            &segment[..],
            said(&digest),
            411,
            "shipment/invalid",
        ),
    ] {
        let answer = say(&mut serving.connect().await, &head, &chunks(octets, &trailers)).await;
        assert_eq!(answer.status, status, "{head} {trailers}");
        assert_eq!(answer.code(), code, "{head} {trailers}");
        assert!(serving.segments().is_empty() && serving.parts().is_empty(), "{head} {trailers}");
    }
    let mut stream = serving.connect().await;
    for (octets, left) in [(total - 1, 0), (total - 1, 5), (total, 0), (total, 5)] {
        // Cut behind the last octet but one, and behind the last, with or without the end of the chunks.
        let mut cut = serving.connect().await;
        let body = chunks(&segment[..octets], &said(&digest));
        let body = &body[..body.len() - said(&digest).len() - 5 + left]; // up to the last chunk of none, or before the trailer
        cut.write_all(format!("{whole}\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
        cut.write_all(body).await.unwrap();
        cut.flush().await.unwrap();
        drop(cut);
        let known = reached(&mut stream, &segment, total - 1).await;
        assert_eq!((known.status, known.headers["segment-state"].as_str()), (204, "incomplete"));
        assert!(serving.segments().is_empty());
        // What goes on with it may say the digest before or behind.
        let rest = &segment[total - 1..];
        let (head, body) = match left {
            0 => (head_of(total - 1, total), chunks(rest, &said(&digest))),
            _ => {
                let range =
                    format!("Content-Length: 1\r\nContent-Range: bytes {}-{}/{total}", total - 1, total - 1);
                (
                    format!("PUT /v1/segments/{} HTTP/1.1\r\n{range}\r\nRepr-Digest: {digest}", id(&segment)),
                    rest.to_vec(),
                )
            }
        };
        assert_eq!(say(&mut stream, &head, &body).await.status, 201);
        assert_eq!(serving.segments(), BTreeMap::from([(path(&segment), segment.clone())]));
        assert!(serving.parts().is_empty());
        fs::remove_file(serving.directory.join(path(&segment))).unwrap();
    }
    // A digest that came behind one part holds for the whole.
    let half = total / 2;
    let first =
        say(&mut stream, &head_of(0, half), &chunks(&segment[..half], &said(&another(&digest)))).await;
    assert_eq!(first.status, 204);
    assert_eq!(put(&mut stream, &segment, half, total).await.status, 422);
    assert!(serving.segments().is_empty() && serving.parts().is_empty());
    serving.ends().await;
}

/// A body in chunks of 100 octets, and what comes behind them.
fn chunks(octets: &[u8], trailers: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in octets.chunks(100) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_upload_the_same_do_each_other_no_harm() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let other = another_edition(&segment);
    let half = segment.len() / 2;
    let (mut one, mut two) = (serving.connect().await, serving.connect_as_another().await);
    assert_eq!(put(&mut one, &segment, 0, half).await.status, 204);
    // What others upload, nobody is told.
    assert_eq!(head(&mut two, &segment).await.status, 404);
    assert_eq!(put(&mut two, &other, 0, half + 8).await.status, 204);
    assert_eq!(head(&mut one, &segment).await.number("upload-offset"), Some(half as u64));
    assert_eq!(put(&mut one, &segment, half, segment.len()).await.status, 201);
    // Another file under this name is refused, now and whenever it comes again, and the first one stays.
    let late = put(&mut two, &other, half + 8, other.len()).await;
    assert_eq!((late.status, late.code().as_str()), (409, "shipment/conflict"));
    assert!(serving.parts().is_empty());
    assert_eq!(put(&mut two, &other, 0, other.len()).await.status, 409);
    // The same is the same, whoever sends it.
    assert_eq!(put(&mut two, &segment, 0, segment.len()).await.status, 200);
    assert_eq!(serving.segments(), BTreeMap::from([(path(&segment), segment.clone())]));

    // Many at once, of one host and of another: it is kept once.
    let segment = home.sealed(&["acme"]).await;
    let (_directory, file) = in_a_file(&segment);
    let shippers = (0..8).map(|number| serving.shipper(if number % 2 == 0 { HERE } else { "us-east-1" }));
    let shipping: Vec<_> = shippers
        .map(|shipper| {
            let file = file.clone();
            tokio::spawn(async move { shipper.ship(&file, None).await })
        })
        .collect();
    let mut new = 0;
    for shipped in shipping {
        // Those who were overtaken too often are told so, and have lost nothing.
        match shipped.await.unwrap() {
            Ok(shipped) => new += usize::from(shipped.new),
            Err(error) => assert_eq!(error.code(), Code::ShipmentBusy, "{error}"),
        }
    }
    assert!(new <= 1);
    assert_eq!(serving.segments()[&path(&segment)], segment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_goes_on_though_the_cut_was_not_noticed_yet() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let mut silent = serving.connect().await;
    begin(&mut silent, &segment, 300).await;
    reached_part(&serving, &segment).await;
    let mut stream = serving.connect().await;
    // Nothing of it is on disk yet, so that it begins anew; whoever was before is told.
    assert_eq!(put(&mut stream, &segment, 0, segment.len()).await.status, 201);
    let told = hear(&mut silent, false).await;
    assert_eq!((told.status, told.code().as_str()), (503, "shipment/busy"));
    assert_eq!(serving.segments()[&path(&segment)], segment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_told_and_what_was_taken_stays() {
    let home = Home::of(&["acme"]).await;
    let mut limits = Limits::default();
    (limits.uploads_max, limits.uploads_per_peer_max, limits.parts_per_peer_max) = (2, 1, 1);
    limits.silence_max = Duration::from_millis(300);
    let serving = Serving::with(None, limits).await;
    let (first, second) = (home.sealed(&["acme"]).await, home.sealed(&["acme"]).await);
    let (mut one, mut two) = (serving.connect().await, serving.connect().await);
    begin(&mut one, &first, 150).await;
    reached_part(&serving, &first).await;
    let refused = put(&mut two, &second, 0, 10).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "shipment/busy"));
    assert!(refused.headers.contains_key("retry-after"));
    // Silence in the middle: what came is on disk, and said.
    let silent = hear(&mut one, false).await;
    assert_eq!((silent.status, silent.number("upload-offset")), (408, Some(150)));
    // One upload that is not whole is all that this peer may have.
    let mut two = serving.connect().await;
    assert_eq!(put(&mut two, &second, 0, 10).await.status, 429);
    let mut one = serving.connect().await;
    assert_eq!(put(&mut one, &first, 150, first.len()).await.status, 201);
    assert_eq!(put(&mut two, &second, 0, second.len()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_at_home_elsewhere_is_refused_and_one_that_nobody_knows_is_not() {
    let home = Home::of(&["acme", "globex"]).await;
    let segment = home.sealed(&["globex", "acme"]).await;
    let registry = Home::new().await;
    registry.domicile.choose_home(&domicile_tests::scope("globex"), HERE).await.unwrap();
    let serving = Serving::new(&registry).await;
    let mut stream = serving.connect().await;
    assert_eq!(put(&mut stream, &segment, 0, segment.len()).await.status, 201);

    registry.domicile.choose_home(&domicile_tests::scope("acme"), "us-east-1").await.unwrap();
    let segment = home.sealed(&["globex", "acme"]).await;
    let refused = put(&mut stream, &segment, 0, segment.len()).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "home/mismatch"));
    assert!(serving.parts().is_empty());
    assert_eq!(serving.segments().len(), 1);
    let (_directory, file) = in_a_file(&segment);
    let refused = serving.shipper(HERE).ship(&file, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::HomeMismatch, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_are_read_by_those_who_may_whole_and_in_ranges() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let mut stream = serving.connect().await;
    assert_eq!(put(&mut stream, &segment, 0, segment.len()).await.status, 201);
    let get = format!("GET /v1/segments/{} HTTP/1.1", id(&segment));
    let whole = say(&mut stream, &get, b"").await;
    assert_eq!((whole.status, &whole.body), (200, &segment));
    assert!(whole.headers["etag"].starts_with("\"blake3-"));
    let total = segment.len();
    for (range, expected) in [
        ("bytes=0-0", Some(0..1)),
        ("bytes=10-19", Some(10..20)),
        ("bytes=100-", Some(100..total)),
        ("bytes=-5", Some(total - 5..total)),
        ("bytes=5-999999999", Some(5..total)),
        ("bytes=999999999-", None),
    ] {
        let answer = say(&mut stream, &format!("{get}\r\nRange: {range}"), b"").await;
        match expected {
            Some(expected) => {
                let said = format!("bytes {}-{}/{total}", expected.start, expected.end - 1);
                assert_eq!((answer.status, &answer.headers["content-range"]), (206, &said), "{range}");
                assert_eq!(answer.body, segment[expected], "{range}");
            }
            None => assert_eq!(answer.status, 416, "{range}"),
        }
    }
    let several = say(&mut stream, &format!("{get}\r\nRange: bytes=0-1,5-6"), b"").await;
    assert_eq!((several.status, several.body.len()), (200, total));
    let refused = say(&mut serving.connect_as_another().await, &get, b"").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "shipment/refused"));

    let health = say(&mut stream, "GET /v1/health HTTP/1.1", b"").await;
    assert_eq!((health.status, &*health.body), (200, &b"{\"state\":\"ok\"}\n"[..]));
    assert_eq!(say(&mut stream, "GET /v1/metrics HTTP/1.1", b"").await.body, b"domicile_of_a_test 1\n");
}

/// The files of every step between the first octet and the last, as a home that died there left them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_between_any_two_steps_goes_on_from_there() {
    let home = Home::of(&["acme"]).await;
    let segment = home.sealed(&["acme"]).await;
    let mut serving = Serving::with(None, Limits::default()).await;
    let mut stream = serving.connect().await;
    let half = segment.len() / 2;
    assert_eq!(put(&mut stream, &segment, 0, half).await.status, 204);
    let peer = serving.directory.join("_incoming").join(
        fs::read_dir(serving.directory.join("_incoming"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.path().is_dir())
            .unwrap()
            .file_name(),
    );
    let [part, mark] = ["part", "mark"].map(|ending| peer.join(format!("{}.{ending}", id(&segment))));
    let receipts = serving.directory.join("_receipts");
    let final_path = serving.directory.join(path(&segment));
    let mark_at_half = fs::read(&mark).unwrap();
    drop(stream);

    // Written beyond the mark, and none of that on disk: zeros stand there.
    serving = serving.restarted().await;
    fs::write(&part, [&segment[..half], &vec![0; segment.len() - half][..]].concat()).unwrap();
    let mut stream = serving.connect().await;
    assert_eq!(head(&mut stream, &segment).await.number("upload-offset"), Some(half as u64));
    assert_eq!(put(&mut stream, &segment, half, segment.len()).await.status, 201);
    drop(stream);

    // Only begun; a mark without its file; half a mark; less in the file than the mark says.
    for (left, bytes) in [(0, 0), (mark_at_half.len(), 0), (20, half), (mark_at_half.len(), half - 1)] {
        serving = serving.restarted().await;
        fs::remove_file(&final_path).unwrap();
        fs::write(&mark, &mark_at_half[..left]).unwrap();
        fs::write(&part, &segment[..bytes]).unwrap();
        let mut stream = serving.connect().await;
        let gap = put(&mut stream, &segment, half, segment.len()).await;
        assert_eq!((gap.status, gap.number("upload-offset")), (409, Some(0)), "{left} {bytes}");
        assert_eq!(put(&mut stream, &segment, 0, segment.len()).await.status, 201);
        assert_eq!(fs::read(&final_path).unwrap(), segment);
    }

    // All octets are on disk, and nothing was examined: the next question ends it.
    serving = serving.restarted().await;
    fs::remove_file(&final_path).unwrap();
    let mut stream = serving.connect().await;
    assert_eq!(put(&mut stream, &segment, 0, half).await.status, 204);
    let whole = whole_mark(&serving, &segment, &mark);
    fs::write(&part, &segment).unwrap();
    fs::write(&mark, &whole).unwrap();
    drop(stream);
    serving = serving.restarted().await;
    let known = head(&mut serving.connect().await, &segment).await;
    assert_eq!((known.status, known.headers["segment-state"].as_str()), (200, "stored"));
    assert!(serving.parts().is_empty());

    // It has its name: the mark is left, the receipt was not written, or only half.
    for receipt in [None, Some(&b"{\"day\":"[..])] {
        serving = serving.restarted().await;
        fs::remove_dir_all(&receipts).unwrap();
        fs::write(&mark, &whole).unwrap();
        if let Some(receipt) = receipt {
            let folder = receipts.join(&id(&segment)[..2]);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{}.json", id(&segment))), receipt).unwrap();
        }
        let known = head(&mut serving.connect().await, &segment).await;
        assert_eq!((known.status, known.headers["segment-state"].as_str()), (200, "stored"));
        assert_eq!(put(&mut serving.connect().await, &segment, 0, segment.len()).await.status, 200);
        assert_eq!(fs::read(&final_path).unwrap(), segment);
    }
    assert_eq!(serving.segments().len(), 1);
}

/// The mark of an upload of which every octet is on disk, made by another home.
fn whole_mark(serving: &Serving, segment: &[u8], mark: &Path) -> Vec<u8> {
    // What differs is the offset, and the check behind it.
    let mut bytes = fs::read(mark).unwrap();
    bytes[16..24].copy_from_slice(&(segment.len() as u64).to_be_bytes());
    let check = bytes.len() - 8;
    let digest = serving.blake3(&bytes[..check]);
    bytes[check..].copy_from_slice(&digest[..8]);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_nobody_goes_on_with_are_removed_and_one_process_has_a_directory() {
    let home = Home::of(&["acme"]).await;
    let serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let mut stream = serving.connect().await;
    assert_eq!(put(&mut stream, &segment, 0, 200).await.status, 204);
    let open = |days: u64| {
        let clock = domicile::FixedClock(domicile_tests::hosts::later(Duration::from_hours(days * 24)));
        Landing::open_at(
            &serving.directory,
            &known(HERE),
            Limits::default(),
            None,
            std::sync::Arc::new(clock),
        )
    };
    assert_eq!(open(0).unwrap_err().code(), Code::ShipmentBusy);
    let directory = serving.directory.clone();
    let serving = {
        drop(stream);
        serving.restarted().await
    };
    let kept = serving.parts();
    let Serving { kept: temporary, running, end, .. } = serving;
    drop(end);
    running.await.unwrap().unwrap();
    let at = |days: u64| {
        let clock = domicile::FixedClock(domicile_tests::hosts::later(Duration::from_hours(days * 24)));
        let landing =
            Landing::open_at(&directory, &known(HERE), Limits::default(), None, std::sync::Arc::new(clock));
        landing.unwrap().tidy().unwrap()
    };
    assert_eq!((kept.len(), at(6)), (2, 0));
    assert_eq!(at(8), 1);
    let left = files(temporary.path());
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["_incoming/lock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_told_to_end_keeps_what_came_and_says_so() {
    let home = Home::of(&["acme"]).await;
    let mut serving = Serving::with(None, Limits::default()).await;
    let segment = home.sealed(&["acme"]).await;
    let mut stream = serving.connect().await;
    begin(&mut stream, &segment, 300).await;
    reached_part(&serving, &segment).await;
    serving.end.take().unwrap().send(()).unwrap();
    // It has half a second to go on, and is then told where to.
    let told = hear(&mut stream, false).await;
    assert_eq!((told.status, told.number("upload-offset")), (503, Some(300)));
    (&mut serving.running).await.unwrap().unwrap();
    let connector = serving.hosts.store(HERE).connector(Exchange::home(&known(HERE)));
    assert!(connector.connect_async(serving.address, &by_name()).await.is_err());
    let Serving { kept, hosts, .. } = serving;
    let serving = Serving::at(kept, hosts, None, Limits::default()).await;
    let mut stream = serving.connect().await;
    assert_eq!(head(&mut stream, &segment).await.number("upload-offset"), Some(300));
    assert_eq!(put(&mut stream, &segment, 300, segment.len()).await.status, 201);
}

/// Waits until an upload has begun.
async fn reached_part(serving: &Serving, segment: &[u8]) {
    while !serving.parts().iter().any(|path| path.ends_with(&format!("{}.part", id(segment)))) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
