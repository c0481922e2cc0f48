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
use std::time::Duration;

use domicile::{Code, Domicile};
use domicile_record::format::SegmentHeader;
use domicile_record::header_of;
use domicile_tests::Home;
use domicile_tests::hosts::{Hosts, by_name, known};
use domicile_transport::ship::{Landing, Limits, Patience, Server, Shipper};
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
    _kept: tempfile::TempDir,
}

impl Serving {
    async fn new(home: &Home) -> Self {
        Self::with(Some(home.domicile.clone()), Limits::default()).await
    }

    async fn with(homes: Option<Domicile>, limits: Limits) -> Self {
        let kept = in_memory();
        let hosts = Hosts::new();
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
        Self { hosts, directory, address, end: Some(end), running, _kept: kept }
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

    /// What is kept, by its path below the directory.
    fn kept(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.directory).into_iter().filter(|(path, _)| path.ends_with(".dseg")).collect()
    }

    /// What is left of uploads.
    fn parts(&self) -> Vec<String> {
        let is_part = |path: &String| path.ends_with(".part") || path.ends_with(".mark");
        files(&self.directory).into_keys().filter(is_part).collect()
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
    hear(stream, head.starts_with("HEAD")).await
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
    assert_eq!(serving.kept(), BTreeMap::from([(path(&segment), segment.clone())]));
    assert_eq!(serving.parts(), Vec::<String>::new());

    let mut stream = serving.connect().await;
    let known = head(&mut stream, &segment).await;
    assert_eq!((known.status, known.headers["segment-state"].as_str()), (200, "stored"));
    assert_eq!(known.number("upload-offset"), Some(segment.len() as u64));
    let digest = domicile_transport::ship::Digest::from_etag(&known.headers["etag"]).unwrap();
    assert_eq!(digest, domicile_transport::ship::Digest::of(&fs::File::open(&file).unwrap()).unwrap());
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
        let first = format!("PUT /v1/segments/{} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", id(&segment), segment.len());
        stream.write_all(first.as_bytes()).await.unwrap();
        stream.write_all(&segment[..cut]).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let mut stream = serving.connect().await;
        // The home has what came as soon as it has noticed the cut.
        let reached = loop {
            let known = head(&mut stream, &segment).await;
            match known.number("upload-offset") {
                Some(offset) if offset > 0 => break known,
                _ => tokio::task::yield_now().await,
            }
        };
        assert_eq!((reached.status, reached.number("upload-offset")), (204, Some(cut as u64)));
        assert_eq!(reached.number("upload-length"), Some(segment.len() as u64));
        assert_eq!(reached.headers["segment-state"], "incomplete");
        let stored = put(&mut stream, &segment, cut, segment.len()).await;
        assert_eq!(stored.status, 201, "cut at {cut}: {}", String::from_utf8_lossy(&stored.body));
        assert_eq!(serving.kept(), BTreeMap::from([(path(&segment), segment.clone())]), "cut at {cut}");
        assert_eq!(serving.parts(), Vec::<String>::new());
        fs::remove_file(serving.directory.join(path(&segment))).unwrap();
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
    assert!(serving.kept().is_empty() && serving.parts().is_empty());
}
