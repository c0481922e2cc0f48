//! Connections whose other end is where it may be, beside plain rustls with the same provider and mutual authentication, and
//! beside plain TCP: octets a second over loopback, and full handshakes a second. Interleaved: each round takes every
//! contender once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use domicile_tests::hosts::{Hosts, NAME, REGIONS, by_name, known};
use domicile_transport::{Acceptor, Connector, Exchange};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde::Serialize;

use crate::rounds::{median, spread};

const CHUNK_BYTES: usize = 1 << 16;

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

#[derive(Serialize)]
struct Row {
    name: String,
    /// Octets, or handshakes, a second.
    a_second: f64,
    /// Beside the first of its kind that is plain rustls: least, median and most of the rounds.
    ratio: Option<[f64; 3]>,
}

/// How two plain ends are set up.
struct Plain {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Plain {
    /// Mutual authentication by rustls's own verifiers, with revocation lists, and no resumption: what anybody would write.
    fn new(hosts: &Hosts, post_quantum: bool) -> Self {
        let mut provider = default_provider();
        provider.kx_groups = if post_quantum {
            vec![kx_group::X25519MLKEM768, kx_group::X25519]
        } else {
            vec![kx_group::X25519]
        };
        let provider = Arc::new(provider);
        let (mut roots, mut lists) = (RootCertStore::empty(), Vec::new());
        for (region, _) in REGIONS {
            roots
                .add(CertificateDer::from_pem_file(hosts.file(&format!("{region}.authority.pem"))).unwrap())
                .unwrap();
            let list = hosts.file(&format!("{region}.authority.crl"));
            lists.push(CertificateRevocationListDer::from_pem_file(list).unwrap());
        }
        let roots = Arc::new(roots);
        let own = |region: &str| {
            let chain = CertificateDer::pem_file_iter(hosts.file(&format!("{region}.store.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(hosts.file(&format!("{region}.store.key"))).unwrap();
            (chain.map(|certificate| certificate.unwrap()).collect::<Vec<_>>(), key)
        };
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let servers = servers.with_crls(lists.clone()).enforce_revocation_expiration().build().unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let clients = clients.with_crls(lists).enforce_revocation_expiration().build().unwrap();
        let only_13 = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(only_13)
            .unwrap();
        let client = client.dangerous().with_custom_certificate_verifier(servers);
        let (chain, key) = own("eu-west-1");
        let mut client = client.with_client_auth_cert(chain, key).unwrap();
        client.resumption = Resumption::disabled();
        let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(only_13).unwrap();
        let (chain, key) = own("eu-central-1");
        let mut server = server.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    fn connect<T: Read + Write>(&self, socket: T) -> StreamOwned<ClientConnection, T> {
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls =
            StreamOwned::new(ClientConnection::new(Arc::clone(&self.client), name).unwrap(), socket);
        while tls.conn.is_handshaking() || tls.conn.wants_write() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls
    }

    fn accept<T: Read + Write>(&self, socket: T) -> StreamOwned<ServerConnection, T> {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server)).unwrap(), socket);
        while tls.conn.is_handshaking() || tls.conn.wants_write() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls
    }
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

fn print(row: &Row, figure: f64) {
    let (ratio, spread) = row.ratio.map_or_else(Default::default, |[low, ratio, high]| {
        (format!("{ratio:.3}"), format!("{low:.2}-{high:.2}"))
    });
    println!("{:<44} {figure:>12.0} {ratio:>9} {spread:>13}", row.name);
}

/// Seconds that each contender took, by round; `plain` is what it is held against.
fn rows<const N: usize>(names: [(&str, Option<usize>); N], seconds: &[Vec<f64>; N], units: f64) -> Vec<Row> {
    let ratio = |own: &[f64], plain: usize| {
        spread(seconds[plain].iter().zip(own).map(|(plain, own)| plain / own).collect())
    };
    let row = |((name, plain), own): (&(&str, Option<usize>), &Vec<f64>)| Row {
        name: (*name).to_owned(),
        a_second: units / median(own),
        ratio: plain.map(|plain| ratio(own, plain)),
    };
    names.iter().zip(seconds).map(row).collect()
}

/// Sends so much one way, and waits for one octet back: seconds of that, without the handshake.
fn send(mut from: impl Read + Write, bytes: usize) -> f64 {
    let chunk = vec![7_u8; CHUNK_BYTES];
    let began = Instant::now();
    for _ in 0..bytes / CHUNK_BYTES {
        from.write_all(&chunk).unwrap();
    }
    from.flush().unwrap();
    from.read_exact(&mut [0]).unwrap();
    began.elapsed().as_secs_f64()
}

fn receive(mut to: impl Read + Write, bytes: usize) {
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
