//! A segment on its way home, beside plain rustls with the same provider: octets a second over loopback, from a file. Shipping has
//! what the plain stream has not: the file is looked at and its digest taken at both ends, what came is durable every 32 MiB and
//! at the end, and an upload that is cut goes on. Interleaved: each round takes every contender once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use domicile::engine::{Engines, Suite};
use domicile_record::Stamp;
use domicile_samples::records_of_about_300_bytes;
use domicile_tests::hosts::{Hosts, known};
use domicile_transport::ship::{Landing, Limits, Server, Shipper};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::beside::{Row, print, rows};
use crate::peak;
use crate::plain_tls::Plain;
use crate::segment::Place;
use crate::tls::{CHUNK_BYTES, receive, send};

const HERE: &str = "eu-central-1";

/// What `target/bench/shipping.json` holds.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    rounds: usize,
    segment_bytes: u64,
    shipping: Vec<Row>,
    /// Of this process, both ends of everything among it.
    peak_bytes: u64,
}

pub(crate) fn run(arguments: &[String]) {
    let quick = match arguments {
        [] => false,
        [quick] if quick == "--quick" => true,
        _ => {
            eprintln!("usage: scripts/bench shipping [--quick]");
            std::process::exit(2);
        }
    };
    let (records, rounds) = if quick { (20_000, 2) } else { (2_000_000, 11) };
    std::fs::create_dir_all("target/bench").unwrap();
    let disk = tempfile::tempdir_in("target/bench").unwrap();
    // Where there is such a thing, what is synced costs nothing, and the rest is seen.
    let shared_memory = Path::new("/dev/shm");
    let memory = if shared_memory.is_dir() { shared_memory } else { disk.path() };
    let memory = tempfile::tempdir_in(memory).unwrap();
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");

    let bytes = seal(records, &disk.path().join("segment"), &runtime);
    std::fs::copy(disk.path().join("segment"), memory.path().join("segment")).unwrap();
    let way = Way { hosts: Hosts::new(), runtime, listener: TcpListener::bind("localhost:0").unwrap() };
    let plain = Plain::new(&way.hosts, true);
    let mut seconds = [const { Vec::new() }; 4];
    for round in 0..=rounds {
        for turn in 0..seconds.len() {
            let which = (turn + round) % seconds.len();
            let took = match which {
                0 => way.stream(&plain, bytes),
                1 => way.file(&plain, disk.path()),
                2 => way.ship(disk.path()),
                _ => way.ship(memory.path()),
            };
            if round > 0 {
                seconds[which].push(took);
            }
        }
    }
    let names = [
        ("plain rustls, memory to memory", None),
        ("plain rustls, disk to disk, one fsync", None),
        ("ship and serve, disk to disk", Some(1)),
        ("ship and serve, file system in memory", Some(0)),
    ];
    let shipping = rows(names, &seconds, bytes as f64);
    println!("{:.1} MiB over loopback, {rounds} rounds", bytes as f64 / f64::from(1 << 20));
    println!("{:<44} {:>12} {:>9} {:>13}", "segment", "MB/s", "x rustls", "(spread)");
    shipping.iter().for_each(|row| print(row, row.a_second / 1e6));
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench shipping {}", arguments.join(" ")).trim().to_owned(),
        rounds,
        segment_bytes: bytes,
        shipping,
        peak_bytes: peak::status("VmHWM:"),
    };
    std::fs::write("target/bench/shipping.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("written to target/bench/shipping.json");
}

/// Seals call records into a file: octets of it.
fn seal(count: u64, path: &Path, runtime: &Runtime) -> u64 {
    let records = records_of_about_300_bytes(count);
    let engine = Engines::measured(Suite::default()).bulk;
    let place = runtime.block_on(Place::new(engine));
    let (mut writer, lane) = runtime.block_on(place.writer(File::create(path).unwrap(), Suite::default()));
    for record in records.iter() {
        writer.append(lane, record, Stamp::default()).unwrap();
    }
    runtime.block_on(writer.finish()).unwrap().1.file_bytes
}

/// Both ends, and what lies between them.
struct Way {
    hosts: Hosts,
    runtime: Runtime,
    listener: TcpListener,
}

impl Way {
    fn sockets(&self) -> (TcpStream, TcpStream) {
        let here = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let there = self.listener.accept().unwrap().0;
        for socket in [&here, &there] {
            socket.set_nodelay(true).unwrap();
        }
        (here, there)
    }

    /// As many octets, but for less than a chunk, from memory into memory.
    fn stream(&self, plain: &Plain, bytes: u64) -> f64 {
        let (here, there) = self.sockets();
        let bytes = usize::try_from(bytes).unwrap() / CHUNK_BYTES * CHUNK_BYTES;
        thread::scope(|scope| {
            scope.spawn(|| receive(plain.accept(there), bytes));
            send(plain.connect(here), bytes)
        })
    }

    /// The file, into another file that is made durable at its end.
    fn file(&self, plain: &Plain, directory: &Path) -> f64 {
        let (here, there) = self.sockets();
        let (mut from, to) = (File::open(directory.join("segment")).unwrap(), directory.join("copy"));
        let bytes = from.metadata().unwrap().len();
        let took = thread::scope(|scope| {
            scope.spawn(|| {
                let mut tls = plain.accept(there);
                let mut file = File::create(&to).unwrap();
                let came = io::copy(&mut (&mut tls).take(bytes), &mut file).unwrap();
                assert_eq!(came, bytes);
                file.sync_all().unwrap();
                tls.write_all(&[1]).unwrap();
                tls.flush().unwrap();
            });
            let mut tls = plain.connect(here);
            let began = Instant::now();
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = from.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                tls.write_all(&buffer[..read]).unwrap();
            }
            tls.flush().unwrap();
            tls.read_exact(&mut [0]).unwrap();
            began.elapsed().as_secs_f64()
        });
        std::fs::remove_file(to).unwrap();
        took
    }

    /// The file, to a home that has nothing of it: seconds from the look at it to the word that it is durable there.
    fn ship(&self, directory: &Path) -> f64 {
        let home = tempfile::tempdir_in(directory).unwrap();
        self.runtime.block_on(async {
            let landing = Landing::open(home.path(), &known(HERE), Limits::default(), None).unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let server = Server::new(&self.hosts.store(HERE), landing);
            let (end, ended) = oneshot::channel::<()>();
            let running = tokio::spawn(server.run(listener, async { drop(ended.await) }));
            let shipper = Shipper::new(&self.hosts.store("eu-west-1"), &address).unwrap();
            let began = Instant::now();
            let shipped = shipper.ship(&directory.join("segment"), None).await.unwrap();
            let took = began.elapsed().as_secs_f64();
            assert!(shipped.new && shipped.sent == shipped.kept.length);
            drop((shipper, end));
            running.await.unwrap().unwrap();
            took
        })
    }
}
