//! Whoever is at the other end, or between the two, and follows no rule: whatever comes, a connection ends with an error, and
//! nothing is heard that was not said.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use domicile::Code;
use domicile_tests::hosts::{Hosts, NAME, by_name};
use domicile_tests::way::{Fault, pass};
use domicile_transport::{Acceptor, Connector, Exchange, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Two hosts that may speak, and wait for nobody long.
struct Two {
    _hosts: Hosts,
    store: Transport,
    acceptor: Acceptor,
    connector: Connector,
}

impl Two {
    fn new() -> Self {
        let hosts = Hosts::new();
        let short = "handshake_timeout = \"1 s\"\nidle_timeout = \"1 s\"";
        for region in ["eu-central-1", "eu-west-1"] {
            hosts.configure(region, "store", short);
        }
        let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
        let acceptor = store.acceptor(Exchange::from_anywhere("records"));
        let connector = client.connector(Exchange::from_anywhere("records"));
        Self { _hosts: hosts, store, acceptor, connector }
    }
}

/// All that is heard until a proper end; none where there was none.
fn to_its_end(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).ok().map(|_| heard)
}

const QUESTION: &[u8; 10] = b"a question";

#[test]
fn an_octet_that_is_changed_anywhere_on_the_way_is_noticed() {
    let two = Two::new();
    let (server, way) =
        (TcpListener::bind("localhost:0").unwrap(), TcpListener::bind("localhost:0").unwrap());
    let (behind, front) = (server.local_addr().unwrap(), way.local_addr().unwrap());
    // Whether both ends were content.
    let exchange = |up: Fault, down: Fault| {
        thread::scope(|scope| {
            let serves = scope.spawn(|| {
                let mut stream = two.acceptor.accept(server.accept().unwrap().0).ok()?;
                let mut heard = [0; QUESTION.len()];
                stream.read_exact(&mut heard).ok()?;
                assert_eq!(&heard, QUESTION);
                stream.write_all(b"an answer").ok()?;
                stream.close().ok()
            });
            let passes = scope.spawn(|| pass(&way, behind, up, down));
            let asks = || {
                let mut stream = two.connector.connect(front, &by_name()).ok()?;
                stream.write_all(QUESTION).ok()?;
                assert_eq!(to_its_end(&mut stream)?, b"an answer");
                stream.close().ok()
            };
            let asked = asks();
            let served = serves.join().unwrap();
            (asked.is_some() && served.is_some(), passes.join().unwrap())
        })
    };
    let (content, [up, down]) = exchange(Fault::None, Fault::None);
    assert!(content && up > 1000 && down > 1000, "{up} {down}");
    let step = if domicile_tests::long_form() { 1 } else { 13 };
    let mut unnoticed = Vec::new();
    for octet in (0..up).step_by(step) {
        if exchange(Fault::Flip(octet), Fault::None).0 {
            unnoticed.push(("up", octet));
        }
    }
    for octet in (0..down).step_by(step) {
        if exchange(Fault::None, Fault::Flip(octet)).0 {
            unnoticed.push(("down", octet));
        }
    }
    // RFC 8446, 5.1: the version in a record's header says nothing and is ignored. Everything else is under a hash or a tag, and read
    // by somebody, but for the client's goodbye.
    unnoticed.retain(|(direction, octet)| *direction == "down" || octet + GOODBYE_OCTETS < up);
    assert!(unnoticed.len() <= VERSION_OCTETS, "{unnoticed:?}");
    assert_eq!(two.store.connections(), 0);
}

/// Of the records of a small exchange: five in each direction.
const VERSION_OCTETS: usize = 20;

/// The client's last record, with what the lengths of signatures differ from run to run.
const GOODBYE_OCTETS: usize = 64;

/// A record of this type.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], payload].concat()
}

#[test]
fn whatever_comes_in_place_of_a_handshake_is_an_error() {
    let two = Two::new();
    let repeated = |record: &[u8], times: usize| record.repeat(times);
    let hello_of = |length: u32| [&[1][..], &length.to_be_bytes()[1..]].concat();
    let openings: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("one octet", vec![22]),
        ("a request of HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a hello of SSL 2", [&[0x80, 0x2e, 1, 0, 2, 0, 21, 0, 0, 0, 16][..], &[7; 37]].concat()),
        ("a record that is too long", [&[22, 3, 1, 0xff, 0xff][..], &[0; 1 << 16]].concat()),
        ("a record of no known type", record(99, b"x")),
        ("a heartbeat", record(24, &[1, 0x40, 0, 0])),
        ("records without anything in them", repeated(&record(22, b""), 10_000)),
        ("records that change ciphers, without an end", repeated(&record(20, &[1]), 10_000)),
        ("warnings without an end", repeated(&record(21, &[1, 90]), 10_000)),
        ("an end before a beginning", record(21, &[1, 0])),
        ("a fatal alert", record(21, &[2, 40])),
        ("half an alert", record(21, &[2])),
        ("records of data before any handshake", record(23, &[0; 100])),
        ("a request to say hello again", record(22, &[0, 0, 0, 0])),
        ("the last message first", record(22, &[&[20, 0, 0, 32][..], &[0; 32]].concat())),
        ("a hello of a server", record(22, &[2, 0, 0, 2, 3, 3])),
        ("a hello that is empty", record(22, &hello_of(0))),
        (
            "a hello of 16 MiB in small pieces",
            [record(22, &hello_of(0x00ff_ffff)), repeated(&record(22, &[0; 1 << 14]), 200)].concat(),
        ),
    ];
    for (what, octets) in openings {
        let error = meets(&two, octets.clone(), false);
        assert!(matches!(error, Code::ConnectionFailed | Code::PeerUnverified), "{what}: {error}");
        // And where nothing more comes, nobody is waited for.
        let error = meets(&two, octets, true);
        assert!(
            matches!(error, Code::ConnectionFailed | Code::PeerUnverified),
            "{what}, and an end: {error}"
        );
    }
    assert_eq!(two.store.connections(), 0);
}

/// What a server says of somebody who sends these octets, and then nothing, or an end.
fn meets(two: &Two, octets: Vec<u8>, ends: bool) -> Code {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    let speaks = thread::spawn(move || {
        // Whoever is refused need not hear it all.
        let _ = socket.write_all(&octets);
        if ends {
            let _ = socket.shutdown(Shutdown::Write);
        }
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut told = Vec::new();
        let _ = socket.read_to_end(&mut told);
        told
    });
    let error = two.acceptor.accept(accepted).map(drop).unwrap_err();
    // Before it knows who is there, a server says alerts and no more.
    let told = speaks.join().unwrap();
    assert!(told.is_empty() || told[0] == 21, "{told:02x?}");
    error.code()
}

/// Another program's client with a proper certificate, connected.
fn foreign(two: &Two, socket: TcpStream) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let file = |kind: &str| two._hosts.file(&format!("eu-west-1.store.{kind}"));
    let mut roots = rustls::RootCertStore::empty();
    let authority = two._hosts.file("eu-central-1.authority.pem");
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(|read| read.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

#[test]
fn whatever_comes_behind_a_handshake_that_is_under_no_key_is_an_error() {
    let two = Two::new();
    for octets in [
        record(23, &[0; 40]),
        record(22, &[1, 0, 0, 0]),
        record(21, &[1, 0]),
        record(20, &[1]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![23, 3, 3, 0xff, 0xff],
        vec![23, 3, 3, 0, 0],
    ] {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        let (greeted, greets) = mpsc::channel();
        let serves = thread::scope(|scope| {
            let serves = scope.spawn(|| {
                let mut stream = two.acceptor.accept(accepted).unwrap();
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"hello");
                greeted.send(()).unwrap();
                stream.read(&mut heard).map_err(|error| error.kind())
            });
            let mut tls = foreign(&two, socket);
            tls.write_all(b"hello").unwrap();
            tls.flush().unwrap();
            greets.recv().unwrap();
            tls.sock.write_all(&octets).unwrap();
            let heard = serves.join().unwrap();
            drop(tls);
            heard
        });
        assert!(serves.is_err(), "{octets:02x?}: {serves:?}");
    }
    assert_eq!(two.store.connections(), 0);
}

#[test]
fn keys_that_are_renewed_again_and_again_lose_no_octet() {
    let two = Two::new();
    let listener = TcpListener::bind("localhost:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    thread::scope(|scope| {
        let serves = scope.spawn(|| {
            let mut stream = two.acceptor.accept(accepted).unwrap();
            let heard = to_its_end(&mut stream);
            stream.write_all(b"an answer").unwrap();
            stream.close().unwrap();
            heard
        });
        let mut tls = foreign(&two, socket);
        for number in 0..30_u8 {
            tls.write_all(&[number]).unwrap();
            tls.conn.refresh_traffic_keys().unwrap();
        }
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        assert_eq!(serves.join().unwrap(), Some((0..30).collect::<Vec<u8>>()));
        assert_eq!(to_its_end(&mut tls).unwrap(), b"an answer");
    });
}
