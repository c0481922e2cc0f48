//! Connections whose other end is where it may be, beside plain rustls with the same provider and mutual authentication, and
//! beside plain TCP: octets a second over loopback, and full handshakes a second. Interleaved: each round takes every
//! contender once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use domicile_tests::hosts::{Hosts, by_name, known};
use domicile_transport::{Acceptor, Connector, Exchange};
use serde::Serialize;

use crate::beside::{Row, print, rows};
use crate::plain_tls::Plain;

pub(crate) const CHUNK_BYTES: usize = 1 << 16;

/// What `target/bench/tls.json` holds.
#[derive(Serialize)]
struct Results {
    machine: crate::machine::Machine,
    command: String,
    rounds: usize,
    stream_bytes: usize,
    handshakes_a_round: usize,
    streams: Vec<Row>,
    handshakes: Vec<Row>,
}

pub(crate) fn run(arguments: &[String]) {
    let quick = match arguments {
        [] => false,
        [quick] if quick == "--quick" => true,
        _ => {
            eprintln!("usage: scripts/bench tls [--quick]");
            std::process::exit(2);
        }
    };
    let (stream_bytes, count, rounds) = if quick { (32 << 20, 50, 3) } else { (512 << 20, 500, 21) };
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::processing(&known("eu-central-1")));
    let connector = client.connector(Exchange::home(&known("eu-central-1")));

    let streams = streams(&hosts, &acceptor, &connector, stream_bytes, rounds);
    let handshakes = handshakes(&hosts, &acceptor, &connector, count, rounds);
    println!(
        "{} MiB over loopback, 64 KiB at a time; full handshakes with both ends' certificates; {rounds} rounds",
        stream_bytes >> 20
    );
    println!("{:<44} {:>12} {:>9} {:>13}", "stream", "MB/s", "x rustls", "(spread)");
    for row in &streams {
        print(row, row.a_second / 1e6);
    }
    println!("{:<44} {:>12} {:>9} {:>13}", "handshake", "a second", "x rustls", "(spread)");
    for row in &handshakes {
        print(row, row.a_second);
    }
    let results = Results {
        machine: crate::machine::Machine::look(),
        command: format!("scripts/bench tls {}", arguments.join(" ")).trim().to_owned(),
        rounds,
        stream_bytes,
        handshakes_a_round: count,
        streams,
        handshakes,
    };
    std::fs::create_dir_all("target/bench").unwrap();
    std::fs::write("target/bench/tls.json", serde_json::to_string_pretty(&results).unwrap()).unwrap();
    println!("written to target/bench/tls.json");
}

/// Sends so much one way, and waits for one octet back: seconds of that, without the handshake.
pub(crate) fn send(mut from: impl Read + Write, bytes: usize) -> f64 {
    let chunk = vec![7_u8; CHUNK_BYTES];
    let began = Instant::now();
    for _ in 0..bytes / CHUNK_BYTES {
        from.write_all(&chunk).unwrap();
    }
    from.flush().unwrap();
    from.read_exact(&mut [0]).unwrap();
    began.elapsed().as_secs_f64()
}

pub(crate) fn receive(mut to: impl Read + Write, bytes: usize) {
    let (mut left, mut chunk) = (bytes, vec![0; CHUNK_BYTES]);
    while left > 0 {
        let count = to.read(&mut chunk).unwrap();
        assert!(count > 0, "cut");
        left -= count;
    }
    to.write_all(&[1]).unwrap();
    to.flush().unwrap();
}

fn streams(
    hosts: &Hosts,
    acceptor: &Acceptor,
    connector: &Connector,
    bytes: usize,
    rounds: usize,
) -> Vec<Row> {
    let plain = Plain::new(hosts, true);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connected = || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    };
    let accepted = || {
        let socket = listener.accept().unwrap().0;
        socket.set_nodelay(true).unwrap();
        socket
    };
    let mut seconds = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for turn in 0..3 {
            let which = (turn + round) % 3;
            let took = thread::scope(|scope| {
                scope.spawn(|| match which {
                    0 => receive(accepted(), bytes),
                    1 => receive(plain.accept(accepted()), bytes),
                    _ => receive(acceptor.accept(accepted()).unwrap(), bytes),
                });
                match which {
                    0 => send(connected(), bytes),
                    1 => send(plain.connect(connected()), bytes),
                    _ => send(connector.connect(address, &by_name()).unwrap(), bytes),
                }
            });
            if round > 0 {
                seconds[which].push(took);
            }
        }
    }
    rows([("plain TCP", Some(1)), ("plain rustls", None), ("domicile", Some(1))], &seconds, bytes as f64)
}

/// Both ends of one handshake, each on a thread of its own, over a pair of sockets.
fn handshakes(
    hosts: &Hosts,
    acceptor: &Acceptor,
    connector: &Connector,
    count: usize,
    rounds: usize,
) -> Vec<Row> {
    let (hybrid, classic) = (Plain::new(hosts, true), Plain::new(hosts, false));
    let names = [
        ("plain rustls, X25519MLKEM768", None),
        ("domicile, X25519MLKEM768", Some(0)),
        ("plain rustls, X25519", None),
        ("domicile takes plain rustls, X25519", Some(2)),
    ];
    let mut seconds = [const { Vec::new() }; 4];
    thread::scope(|scope| {
        let (sockets, takes) = mpsc::channel::<(usize, UnixStream)>();
        let (done, waits) = mpsc::channel();
        let (hybrid, classic) = (&hybrid, &classic);
        scope.spawn(move || {
            for (which, socket) in takes {
                match which {
                    0 => drop(hybrid.accept(socket)),
                    2 => drop(classic.accept(socket)),
                    _ => {
                        let stream = acceptor.accept(socket).unwrap();
                        let group = if which == 1 { "X25519MLKEM768" } else { "X25519" };
                        assert_eq!(stream.peer().key_exchange(), group);
                    }
                }
                done.send(()).unwrap();
            }
        });
        for round in 0..=rounds {
            for turn in 0..names.len() {
                let which = (turn + round) % names.len();
                let began = Instant::now();
                for _ in 0..count {
                    let (here, there) = UnixStream::pair().unwrap();
                    sockets.send((which, there)).unwrap();
                    match which {
                        0 => drop(hybrid.connect(here)),
                        1 => drop(connector.connect_over(here, &by_name()).unwrap()),
                        _ => drop(classic.connect(here)),
                    }
                    waits.recv().unwrap();
                }
                if round > 0 {
                    seconds[which].push(began.elapsed().as_secs_f64());
                }
            }
        }
        drop(sockets);
    });
    rows(names, &seconds, count as f64)
}
