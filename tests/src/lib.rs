//! What the tests share: places on the embedded default, scopes, segments in memory.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "this crate is only ever part of a test; what is left out must not look like what passed"
)]

pub mod away;
#[cfg(feature = "key-services")]
pub mod aws;
pub mod disk;
#[cfg(feature = "transport")]
pub mod hosts;
#[cfg(feature = "key-services")]
pub mod http;
#[cfg(feature = "key-services")]
pub mod journey;
pub mod pairs;
pub mod postgres;
pub mod program;
#[cfg(feature = "key-services")]
pub mod softhsm;
#[cfg(feature = "key-services")]
pub mod vault;
pub mod way;

use std::sync::atomic::{AtomicU64, Ordering};

use domicile::{Config, Domicile, Place, RecordType, Region, Scope};
use domicile_record::format::{BlockHeader, Contents, Descriptor, SegmentHeader};
use domicile_record::{Outlet, SegmentWriter, Source, Stamp, WriterOptions};

/// A place on the embedded default, in a directory that is removed with it: eu-central-1 and eu-west-1 in
/// the EU, us-east-1 in the US; this host is in eu-central-1.
#[derive(Debug)]
pub struct Home {
    /// Where it is.
    pub directory: tempfile::TempDir,
    /// What `init` wrote.
    pub config: Config,
    /// The open door.
    pub domicile: Domicile,
}

impl Home {
    /// Sets it up.
    pub async fn new() -> Self {
        let directory = directory();
        let places = [place("eu-central-1", "EU"), place("eu-west-1", "EU"), place("us-east-1", "US")];
        let config = domicile::setup::init(directory.path(), &places, &places[0].region).await.unwrap();
        let domicile = Domicile::from_config(&config).await.unwrap();
        Self { directory, config, domicile }
    }

    /// Sets it up, with voice homes in eu-central-1 for these tenants.
    pub async fn of(tenants: &[&str]) -> Self {
        let home = Self::new().await;
        for tenant in tenants {
            home.domicile.choose_home(&scope(tenant), "eu-central-1").await.unwrap();
        }
        home
    }

    /// A process that starts now: nothing is in its memory.
    pub async fn restarted(&self) -> Domicile {
        Domicile::from_config(&Config::read(self.config.path()).unwrap()).await.unwrap()
    }

    /// A segment with a lane for each of these tenants, and in it one record: the tenant's name.
    pub async fn sealed(&self, tenants: &[&str]) -> Vec<u8> {
        let mut writer = self.writer(WriterOptions::default()).await;
        for tenant in tenants {
            let lane = writer.open_lane(descriptor(tenant, Contents::default()), b"").await.unwrap();
            writer.append(lane, tenant.as_bytes(), Stamp::default()).unwrap();
        }
        writer.finish().await.unwrap().0
    }

    /// Begins a segment of eu-central-1 in memory.
    pub async fn writer(&self, options: WriterOptions) -> SegmentWriter<Vec<u8>> {
        SegmentWriter::create(&self.domicile, &region("eu-central-1"), Vec::new(), options).await.unwrap()
    }
}

/// Whether tests that have a short and a long form take the long one: `DOMICILE_LONG` is in the environment.
#[must_use]
pub fn long_form() -> bool {
    std::env::var_os("DOMICILE_LONG").is_some()
}

/// A directory in memory where there is such a thing: these tests are not about disks, and open tens of thousands of times
/// what is recorded on one.
fn directory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Segments in memory.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Outlet for InMemory {
    type Sink = Vec<u8>;

    fn open(&mut self, _: &domicile::Region) -> domicile::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// A file in memory that counts the octets that are read of it.
#[derive(Debug)]
pub struct Counting<'a> {
    bytes: &'a [u8],
    read: AtomicU64,
    reads: AtomicU64,
}

impl<'a> Counting<'a> {
    /// A file of which nothing was read yet.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, read: AtomicU64::new(0), reads: AtomicU64::new(0) }
    }

    /// The octets that were read so far, each as often as it was.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many reads there were so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Source for Counting<'_> {
    fn length(&self) -> std::io::Result<u64> {
        self.bytes.length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.read.fetch_add(into.len() as u64, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.read_at(at, into)
    }
}

/// Offset and header of every block of a segment.
#[must_use]
pub fn blocks(bytes: &[u8]) -> Vec<(usize, BlockHeader)> {
    let id = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap().id;
    let (mut at, mut found) = (SegmentHeader::BYTES, Vec::new());
    while at < bytes.len() {
        let block = BlockHeader::decode(bytes[at..].first_chunk().unwrap(), &id).unwrap();
        found.push((at, block));
        at += usize::try_from(block.block_bytes()).unwrap();
    }
    found
}

/// A region with its jurisdiction.
#[must_use]
pub fn place(region: &str, jurisdiction: &str) -> Place {
    Place { region: region.parse().unwrap(), jurisdiction: jurisdiction.parse().unwrap() }
}

/// A region.
#[must_use]
pub fn region(name: &str) -> Region {
    name.parse().unwrap()
}

/// A tenant's voice scope.
#[must_use]
pub fn scope(tenant: &str) -> Scope {
    Scope::new(tenant, RecordType::VOICE).unwrap()
}

/// A lane of a tenant's voice scope, in November 2026.
#[must_use]
pub fn descriptor(tenant: &str, contents: Contents) -> Descriptor {
    Descriptor {
        contents,
        ..Descriptor::new(scope(tenant), "2026-11".parse().unwrap(), domicile::engine::Suite::default())
    }
}

/// Octets as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The octets of hexadecimal digits.
#[must_use]
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits");
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
