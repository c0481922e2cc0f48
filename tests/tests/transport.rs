//! TLS that knows where the other end is, over real sockets: two hosts, each with what `domicile cert` issued, and every way
//! in which one of them is not what it should be.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use domicile::{Clock as _, Code, Error, ManualClock, Result, SystemClock};
use domicile_tests::hosts::{DAY, Hosts, NAME, REGIONS, by_identity, by_name, identity, known, later, uri};
use domicile_tests::way::{Fault, pass};
use domicile_transport::authority::{Authority, Issue};
use domicile_transport::{
    Acceptor, Blocking, Connector, Exchange, PlacedStream, Settings, Target, Transport, error_of,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
};
use time::OffsetDateTime;

type Stream = PlacedStream<Blocking<TcpStream>>;

/// What each of two ends came to: the one that accepted and the one that connected, after a word each way.
fn exchange_words(
    acceptor: &Acceptor,
    connector: &Connector,
    target: &Target,
) -> (Result<Stream>, Result<Stream>) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = acceptor.clone();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = acceptor.accept(socket)?;
        say(&mut stream, b"welcome")?;
        hear(&mut stream, b"hello")?;
        Ok(stream)
    });
    let client = connector.connect(address, target).and_then(|mut stream| {
        say(&mut stream, b"hello")?;
        hear(&mut stream, b"welcome")?;
        Ok(stream)
    });
    (server.join().unwrap(), client)
}

fn say(stream: &mut Stream, words: &[u8]) -> Result<()> {
    stream.write_all(words).map_err(|error| error_of(&error).unwrap().again())
}

fn hear(stream: &mut Stream, words: &[u8]) -> Result<()> {
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).map_err(|error| error_of(&error).unwrap().again())?;
    assert_eq!(heard, words);
    Ok(())
}

fn code<T>(result: &Result<T>) -> Option<Code> {
    result.as_ref().err().map(Error::code)
}

#[test]
fn every_pair_of_places_meets_where_it_may_and_nowhere_else() {
    let hosts = Hosts::new();
    let stores: Vec<_> = REGIONS.iter().map(|(region, _)| hosts.store(region)).collect();
    for (here, server) in REGIONS.iter().zip(&stores) {
        for (there, client) in REGIONS.iter().zip(&stores) {
            // The one who accepts has records of its own region to give; the one who connects takes whatever comes.
            let acceptor = server.acceptor(Exchange::processing(&known(here.0)));
            let connector = client.connector(Exchange::from_anywhere("records"));
            for target in [by_name(), by_identity(here.0)] {
                let (accepted, connected) = exchange_words(&acceptor, &connector, &target);
                if here.1 == there.1 {
                    let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
                    assert_eq!(accepted.peer().place(), &known(there.0));
                    assert_eq!(connected.peer().place(), &known(here.0));
                    assert_eq!(connected.peer().key_exchange(), "X25519MLKEM768");
                } else {
                    let refusal = accepted.unwrap_err();
                    assert_eq!(refusal.code(), Code::PeerRefused);
                    assert_eq!(refusal.broken_rule(), Some(&*format!("processing = [\"{}\"]", here.1)));
                    let denied = connected.unwrap_err();
                    assert_eq!(denied.code(), Code::PeerDenied);
                    assert!(denied.what().contains("access denied"), "{denied}");
                }
            }
            // The other way round: the one who connects sends home what is at home there.
            let acceptor = server.acceptor(Exchange::from_anywhere("segments"));
            let connector = client.connector(Exchange::home(&known(there.0)));
            let (accepted, connected) = exchange_words(&acceptor, &connector, &by_name());
            let refused = (here.0 != there.0).then_some(Code::PeerRefused);
            assert_eq!(code(&connected), refused, "{} to {}", there.0, here.0);
            assert_eq!(code(&accepted), refused.map(|_| Code::PeerDenied), "{} to {}", there.0, here.0);
        }
    }
}

/// A client of rustls that believes anybody: what an attacker brings, or another program.
#[derive(Debug)]
struct Believes;

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn own_files(
    hosts: &Hosts,
    region: &str,
    service: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let file = |kind: &str| hosts.file(&format!("{region}.{service}.{kind}"));
    let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(|read| read.unwrap()).collect();
    (chain, PrivateKeyDer::from_pem_file(file("key")).unwrap())
}

/// Another program's client with a certificate, or without one.
fn foreign_client(
    hosts: &Hosts,
    host: Option<(&str, &str)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Believes));
    match host {
        Some((region, service)) => {
            let (chain, key) = own_files(hosts, region, service);
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    }
}

/// Another program's server, which asks nobody who they are.
fn foreign_server(
    hosts: &Hosts,
    region: &str,
    service: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let (chain, key) = own_files(hosts, region, service);
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// What our server says of a foreign client, and the alert that this got.
fn server_meets(
    acceptor: &Acceptor,
    client: &Arc<ClientConfig>,
) -> (Result<Stream>, Option<AlertDescription>) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = acceptor.clone();
    let server = thread::spawn(move || {
        let mut stream = acceptor.accept(listener.accept().unwrap().0)?;
        say(&mut stream, b"welcome")?;
        Ok(stream)
    });
    let name = ServerName::try_from(NAME).unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    let mut heard = [0; 7];
    let alert =
        tls.write_all(b"hello").and_then(|()| tls.read_exact(&mut heard)).err().as_ref().and_then(alert);
    (server.join().unwrap(), alert)
}

/// What our client says of a foreign server, and the alert that this got.
fn client_meets(
    connector: &Connector,
    target: &Target,
    server: &Arc<ServerConfig>,
) -> (Result<Stream>, Option<AlertDescription>) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::clone(server);
    let serving = thread::spawn(move || {
        let connection = ServerConnection::new(server).unwrap();
        let mut tls = rustls::StreamOwned::new(connection, listener.accept().unwrap().0);
        tls.read_exact(&mut [0; 5]).err().as_ref().and_then(alert)
    });
    let connected = connector.connect(address, target).and_then(|mut stream| {
        say(&mut stream, b"hello")?;
        Ok(stream)
    });
    (connected, serving.join().unwrap())
}

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

const ONLY_13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Every way in which a certificate is not what it should be: how it is made, what is said of it, and what its holder is told.
type Flaw = (&'static str, fn(&Hosts, &str), &'static str, AlertDescription);

fn flaws() -> Vec<Flaw> {
    fn forged(hosts: &Hosts, service: &str, change: impl FnOnce(&mut CertificateParams)) {
        hosts.forge("eu-west-1", service, change);
    }
    use AlertDescription as Alert;
    vec![
        (
            "expired",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.not_after = OffsetDateTime::now_utc() - Duration::from_mins(1);
                });
            },
            "has expired",
            Alert::CertificateExpired,
        ),
        (
            "not yet valid",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.not_before = OffsetDateTime::now_utc() + Duration::from_mins(1);
                });
            },
            "does not hold yet",
            Alert::CertificateExpired,
        ),
        (
            "revoked",
            |hosts, service| {
                forged(hosts, service, |_| {});
                hosts.revoke("eu-west-1", service);
            },
            "was revoked",
            Alert::CertificateRevoked,
        ),
        (
            "another region's authority",
            |hosts, service| {
                hosts.forge_by("eu-central-1", "eu-west-1", service, |_| {});
            },
            "was not issued by an authority of eu-west-1",
            Alert::UnknownCA,
        ),
        (
            "its own authority",
            |hosts, service| {
                let key = rcgen::KeyPair::generate().unwrap();
                let certificate =
                    domicile_tests::hosts::leaf("eu-west-1", service).self_signed(&key).unwrap();
                hosts.write("eu-west-1", service, &certificate.pem(), &key.serialize_pem());
            },
            "was not issued by an authority of eu-west-1",
            Alert::UnknownCA,
        ),
        (
            "two URIs, both good",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.subject_alt_names.push(uri(&identity("eu-central-1", service)));
                });
            },
            "has 2 URIs",
            Alert::AccessDenied,
        ),
        (
            "a URI of another kind beside it",
            |hosts, service| {
                forged(hosts, service, |leaf| leaf.subject_alt_names.insert(0, uri("https://example.org/")));
            },
            "has 2 URIs",
            Alert::AccessDenied,
        ),
        (
            "no URI",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)));
                });
            },
            "does not say where its holder is",
            Alert::AccessDenied,
        ),
        (
            "no names at all",
            |hosts, service| {
                forged(hosts, service, |leaf| leaf.subject_alt_names.clear());
            },
            "does not say where its holder is",
            Alert::AccessDenied,
        ),
        (
            "a SPIFFE identity without a place",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.subject_alt_names = vec![uri("spiffe://domicile.internal/ns/default/sa/x")];
                });
            },
            "names no place",
            Alert::AccessDenied,
        ),
        (
            "another trust domain",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.subject_alt_names = vec![uri("spiffe://example.org/region/eu-west-1/x")];
                });
            },
            "is of the trust domain example.org",
            Alert::UnknownCA,
        ),
        (
            "a region that nobody vouches for",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.subject_alt_names = vec![uri(&identity("ap-south-1", "x"))];
                });
            },
            "nobody vouches for ap-south-1",
            Alert::UnknownCA,
        ),
        (
            "an authority's certificate as a host's",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                    leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
                });
            },
            "does not verify",
            Alert::CertificateUnknown,
        ),
        (
            "a certificate issued by a host",
            |hosts, service| {
                let (issuer, key) = (hosts.file("eu-west-1.store.pem"), hosts.file("eu-west-1.store.key"));
                let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
                let pem = fs::read_to_string(issuer).unwrap();
                let own = rcgen::KeyPair::generate().unwrap();
                let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap();
                let leaf =
                    domicile_tests::hosts::leaf("eu-west-1", service).signed_by(&own, &issuer).unwrap();
                hosts.write("eu-west-1", service, &(leaf.pem() + &pem), &own.serialize_pem());
            },
            "does not verify",
            Alert::CertificateUnknown,
        ),
        (
            "a purpose that is neither",
            |hosts, service| {
                forged(hosts, service, |leaf| {
                    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
                });
            },
            "is for another purpose",
            Alert::UnsupportedCertificate,
        ),
    ]
}

#[test]
fn a_certificate_that_is_not_what_it_should_be_is_refused_by_either_end() {
    let hosts = Hosts::new();
    for (number, (name, make, said, told)) in flaws().into_iter().enumerate() {
        let service = format!("fault-{number}");
        make(&hosts, &service);
        // Opened after it was made: a revocation is in a list that is read.
        let store = hosts.store("eu-central-1");
        let exchange = Exchange::from_anywhere("records");

        let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", &service)), ONLY_13));
        let (accepted, alert) = server_meets(&store.acceptor(exchange.clone()), &client);
        let refusal = accepted.expect_err(name);
        assert_eq!(refusal.code(), Code::PeerUnverified, "{name}: {refusal}");
        assert!(refusal.what().contains(said), "{name}: {refusal}");
        assert_eq!(alert, Some(told), "{name}: {refusal}");

        let server = foreign_server(&hosts, "eu-west-1", &service, ONLY_13);
        let this = Target::identity(identity("eu-west-1", &service).parse().unwrap());
        for target in [by_name(), this] {
            let (connected, alert) = client_meets(&store.connector(exchange.clone()), &target, &server);
            let refusal = connected.expect_err(name);
            assert_eq!(refusal.code(), Code::PeerUnverified, "{name}: {refusal}");
            // Where no name of a host is left, that may be what is found first.
            assert!(refusal.what().contains(said) || target == by_name(), "{name}: {refusal}");
            assert!(alert.is_some(), "{name}: {refusal}");
        }
    }
    // The same programs with what was issued properly are taken.
    let store = hosts.store("eu-central-1");
    let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", "store")), ONLY_13));
    let (accepted, alert) = server_meets(&store.acceptor(Exchange::from_anywhere("records")), &client);
    assert_eq!((accepted.unwrap().peer().region().as_str(), alert), ("eu-west-1", None));
}

#[test]
fn a_purpose_is_needed_for_each_end() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let exchange = Exchange::from_anywhere("records");
    for (purpose, serves, connects) in [
        (ExtendedKeyUsagePurpose::ServerAuth, true, false),
        (ExtendedKeyUsagePurpose::ClientAuth, false, true),
    ] {
        let service = format!("for-{}", if serves { "servers" } else { "clients" });
        hosts.forge("eu-west-1", &service, |leaf| leaf.extended_key_usages = vec![purpose]);
        let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", &service)), ONLY_13));
        let (accepted, _) = server_meets(&store.acceptor(exchange.clone()), &client);
        assert_eq!(code(&accepted), (!connects).then_some(Code::PeerUnverified), "{service}");
        let server = foreign_server(&hosts, "eu-west-1", &service, ONLY_13);
        let (connected, _) = client_meets(&store.connector(exchange.clone()), &by_name(), &server);
        assert_eq!(code(&connected), (!serves).then_some(Code::PeerUnverified), "{service}");
        // Whoever is known by identity alone is good for both ends (decision 0051).
        let target = Target::identity(identity("eu-west-1", &service).parse().unwrap());
        let (connected, _) = client_meets(&store.connector(exchange.clone()), &target, &server);
        assert_eq!(code(&connected), Some(Code::PeerUnverified), "{service}");
    }
}

#[test]
fn whoever_is_not_the_one_that_was_wanted_is_refused() {
    let hosts = Hosts::new();
    hosts.forge("eu-west-1", "nameless", |leaf| {
        leaf.subject_alt_names.retain(|name| matches!(name, SanType::URI(_)));
    });
    let store = hosts.store("eu-central-1");
    let connector = store.connector(Exchange::from_anywhere("records"));
    let server = foreign_server(&hosts, "eu-west-1", "nameless", ONLY_13);
    let meets = |target: &Target| client_meets(&connector, target, &server).0;
    let refusal = meets(&by_name()).unwrap_err();
    assert!(refusal.what().contains("not for the name that was connected to"), "{refusal}");
    meets(&Target::identity(identity("eu-west-1", "nameless").parse().unwrap())).unwrap();
    for other in [identity("eu-west-1", "store"), identity("eu-central-1", "nameless")] {
        let refusal = meets(&Target::identity(other.parse().unwrap())).unwrap_err();
        assert_eq!(refusal.code(), Code::PeerUnverified);
        assert!(refusal.what().contains(&format!("is not {other}")), "{refusal}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let client = Arc::new(foreign_client(&hosts, None, ONLY_13));
    let (accepted, alert) = server_meets(&store.acceptor(Exchange::from_anywhere("records")), &client);
    assert_eq!(code(&accepted), Some(Code::ConnectionFailed));
    assert_eq!(alert, Some(AlertDescription::CertificateRequired));
}

#[test]
fn nothing_below_tls_13_is_spoken() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let exchange = Exchange::from_anywhere("records");
    let only_12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", "store")), only_12));
    let (accepted, alert) = server_meets(&store.acceptor(exchange.clone()), &client);
    assert_eq!(
        (code(&accepted), alert),
        (Some(Code::ConnectionFailed), Some(AlertDescription::ProtocolVersion))
    );
    let server = foreign_server(&hosts, "eu-west-1", "store", only_12);
    let (connected, _) = client_meets(&store.connector(exchange), &by_name(), &server);
    assert_eq!(code(&connected), Some(Code::ConnectionFailed));
}

#[test]
fn sessions_are_never_resumed() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    // A client that resumes wherever it is let, and offers early data.
    let mut client = foreign_client(&hosts, Some(("eu-west-1", "store")), ONLY_13);
    client.enable_early_data = true;
    client.resumption = rustls::client::Resumption::in_memory_sessions(64);
    let client = Arc::new(client);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..3 {
        let acceptor = acceptor.clone();
        let socket = TcpStream::connect(address).unwrap();
        let accepted = listener.accept().unwrap().0;
        let server = thread::spawn(move || {
            let mut stream = acceptor.accept(accepted).unwrap();
            say(&mut stream, b"welcome").unwrap();
            hear(&mut stream, b"hello").unwrap();
            stream.close().unwrap();
        });
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls =
            rustls::StreamOwned::new(ClientConnection::new(Arc::clone(&client), name).unwrap(), socket);
        assert!(tls.conn.early_data().is_none());
        tls.write_all(b"hello").unwrap();
        let mut heard = Vec::new();
        tls.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"welcome");
        assert_eq!(tls.conn.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(tls.conn.tls13_tickets_received(), 0);
        server.join().unwrap();
    }
    // And the other way: a server that gives tickets to whoever comes.
    let server = foreign_server(&hosts, "eu-west-1", "store", ONLY_13);
    let connector = store.connector(Exchange::from_anywhere("records"));
    for _ in 0..3 {
        client_meets(&connector, &by_name(), &server).0.unwrap();
    }
}

#[test]
fn a_revocation_list_that_is_too_old_refuses_everybody_of_its_region() {
    let hosts = Hosts::new();
    for (region, _) in REGIONS {
        hosts.issue(region, "store", 20 * DAY);
    }
    hosts.configure("eu-central-1", "store", "crl_age_max = \"90 days\"");
    let clock = ManualClock::new(SystemClock.now());
    // By what the list says of itself, and by what the configuration says of it.
    let lax = hosts.host_at("eu-central-1", "store", Arc::new(clock.clone()));
    hosts.configure("eu-central-1", "store", "crl_age_max = \"2 days\"");
    let strict = hosts.host_at("eu-central-1", "store", Arc::new(clock.clone()));
    let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", "store")), ONLY_13));
    for (advance, lax_said, strict_said) in [
        (Duration::ZERO, None, None),
        (3 * DAY, None, Some("the revocation list of eu-west-1 is too old")),
        (
            5 * DAY,
            Some("the revocation list of eu-west-1 has expired"),
            Some("the revocation list of eu-west-1 is too old"),
        ),
    ] {
        clock.advance(advance);
        for (store, said) in [(&lax, lax_said), (&strict, strict_said)] {
            let (accepted, alert) =
                server_meets(&store.acceptor(Exchange::from_anywhere("records")), &client);
            let Some(said) = said else {
                accepted.unwrap();
                continue;
            };
            let refusal = accepted.unwrap_err();
            assert_eq!((refusal.code(), alert), (Code::PeerUnverified, Some(AlertDescription::UnknownCA)));
            assert!(refusal.what().starts_with(said), "{refusal}");
        }
    }
}

#[test]
fn what_is_revoked_after_a_good_handshake_is_ended_by_a_reload() {
    let hosts = Hosts::new();
    hosts.issue("eu-west-1", "other", DAY);
    hosts.configure("eu-west-1", "other", "");
    let (store, client, other) =
        (hosts.store("eu-central-1"), hosts.store("eu-west-1"), hosts.host("eu-west-1", "other"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let anything = || Exchange::from_anywhere("records");
    let (stream, _its) = exchange_words(&acceptor, &client.connector(anything()), &by_name());
    let (mut stays, mut its_stays) = match exchange_words(&acceptor, &other.connector(anything()), &by_name())
    {
        (Ok(here), Ok(there)) => (here, there),
        other => panic!("{other:?}"),
    };
    let mut stream = stream.unwrap();
    assert_eq!(store.keep_up().unwrap(), None, "nothing changed");
    hosts.revoke("eu-west-1", "store");
    // Somebody waits for a word meanwhile, and is woken.
    let waits = thread::spawn(move || {
        let error = stream.read(&mut [0; 1]).unwrap_err();
        let again = stream.write(b"x").unwrap_err();
        [error, again].map(|error| error_of(&error).unwrap().code())
    });
    assert_eq!(store.keep_up().unwrap().map(|reloaded| reloaded.ended), Some(1));
    assert_eq!(waits.join().unwrap(), [Code::ConnectionEnded; 2]);
    say(&mut its_stays, b"still here").unwrap();
    hear(&mut stays, b"still here").unwrap();
    let (accepted, connected) = exchange_words(&acceptor, &client.connector(anything()), &by_name());
    assert!(accepted.unwrap_err().what().contains("was revoked"));
    assert_eq!(code(&connected), Some(Code::PeerDenied));
    assert_eq!(store.connections(), 1);
}

#[test]
fn connections_are_judged_again_when_the_policy_changes() {
    let hosts = Hosts::new();
    let wider = "[processing]\nEU = [\"EU\", \"us-east-1\"]";
    hosts.configure_with("eu-central-1", "store", "", wider);
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("us-east-1"));
    let acceptor = store.acceptor(Exchange::processing(&known("eu-central-1")));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let (stream, _its) = exchange_words(&acceptor, &connector, &by_name());
    let mut stream = stream.unwrap();
    say(&mut stream, b"so far").unwrap();
    hosts.configure("eu-central-1", "store", "");
    assert_eq!(store.keep_up().unwrap().map(|reloaded| reloaded.ended), Some(1));
    let ended = say(&mut stream, b"no further").unwrap_err();
    assert_eq!((ended.code(), ended.broken_rule()), (Code::ConnectionEnded, Some("processing = [\"EU\"]")));
    assert_eq!(code(&exchange_words(&acceptor, &connector, &by_name()).0), Some(Code::PeerRefused));
}

#[test]
fn a_connection_ends_with_the_certificate_of_either_end() {
    for short in ["eu-central-1", "eu-west-1"] {
        let hosts = Hosts::new();
        let until = hosts.issue(short, "store", Duration::from_hours(1)).not_after;
        let clock = ManualClock::new(SystemClock.now());
        let store = hosts.host_at("eu-central-1", "store", Arc::new(clock.clone()));
        let client = hosts.host_at("eu-west-1", "store", Arc::new(clock.clone()));
        let acceptor = store.acceptor(Exchange::from_anywhere("records"));
        let connector = client.connector(Exchange::from_anywhere("records"));
        let (accepted, connected) = exchange_words(&acceptor, &connector, &by_name());
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!((accepted.ends_at(), connected.ends_at()), (until, until));
        clock.advance(Duration::from_mins(59));
        store.keep_up().unwrap();
        say(&mut accepted, b"yet").unwrap();
        hear(&mut connected, b"yet").unwrap();
        clock.advance(Duration::from_mins(2));
        // Whoever waits is woken when somebody keeps up; whoever does something finds it anyway.
        let waits = thread::spawn(move || error_of(&accepted.read(&mut [0; 1]).unwrap_err()).unwrap().code());
        store.keep_up().unwrap();
        assert_eq!(waits.join().unwrap(), Code::ConnectionEnded, "{short}");
        assert_eq!(say(&mut connected, b"over").unwrap_err().code(), Code::ConnectionEnded, "{short}");
    }
}

#[test]
fn certificates_are_renewed_under_load_and_no_connection_is_dropped() {
    const RENEWALS: usize = 12;
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let (mut old, mut its_old) = match exchange_words(&acceptor, &connector, &by_name()) {
        (Ok(here), Ok(there)) => (here, there),
        other => panic!("{other:?}"),
    };
    let (stop, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seen = thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = std::collections::BTreeSet::new();
                    while !stop.load(Ordering::SeqCst) {
                        let (accepted, connected) = exchange_words(&acceptor, &connector, &by_name());
                        accepted.unwrap();
                        seen.insert(connected.unwrap().peer().fingerprint().to_owned());
                        handshakes.fetch_add(1, Ordering::SeqCst);
                    }
                    seen
                })
            })
            .collect();
        // So many more that both workers have begun and ended one since; a worker that failed tells by itself.
        let both_go_on = || {
            let begun = handshakes.load(Ordering::SeqCst);
            while handshakes.load(Ordering::SeqCst) < begun + 5
                && !workers.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                thread::yield_now();
            }
        };
        both_go_on();
        for _ in 0..RENEWALS {
            let renewed = hosts.issue("eu-central-1", "store", DAY);
            hosts.authority("eu-central-1").revoke(&[], 7 * DAY, SystemClock.now()).unwrap();
            assert_eq!(store.keep_up().unwrap().map(|reloaded| reloaded.ended), Some(0));
            assert_eq!(client.keep_up().unwrap().map(|reloaded| reloaded.ended), Some(0));
            both_go_on();
            say(&mut old, renewed.fingerprint.as_bytes()).unwrap();
            hear(&mut its_old, renewed.fingerprint.as_bytes()).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(seen.len(), RENEWALS + 1, "each certificate was seen");
}

#[test]
fn what_cannot_be_read_again_changes_nothing() {
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let meet = || {
        let acceptor = store.acceptor(Exchange::from_anywhere("records"));
        exchange_words(&acceptor, &client.connector(Exchange::from_anywhere("records")), &by_name())
            .0
            .unwrap();
    };
    let file = |name: &str| hosts.file(&format!("eu-central-1.{name}"));
    for (name, code) in [
        ("store.pem", Code::CertificateInvalid),
        ("store.key", Code::CertificateInvalid),
        ("authority.crl", Code::CertificateInvalid),
        ("store.toml", Code::ConfigInvalid),
    ] {
        let good = fs::read(file(name)).unwrap();
        fs::write(file(name), "junk").unwrap();
        assert_eq!(store.keep_up().unwrap_err().code(), code, "{name}");
        // It is tried again until it can be read.
        assert_eq!(store.keep_up().unwrap_err().code(), code, "{name}");
        meet();
        fs::write(file(name), good).unwrap();
        assert!(store.keep_up().unwrap().is_some(), "{name}");
        meet();
    }
    fs::set_permissions(file("store.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(store.reload().unwrap_err().code(), Code::CertificateExposed);
    fs::set_permissions(file("store.key"), fs::Permissions::from_mode(0o600)).unwrap();
    // Another certificate's key, as it is for a moment while both are replaced.
    let other = fs::read(hosts.file("eu-west-1.store.key")).unwrap();
    fs::write(file("store.key"), other).unwrap();
    assert_eq!(store.reload().unwrap_err().code(), Code::CertificateInvalid);
    meet();
    let moved = fs::read_to_string(file("store.toml"))
        .unwrap()
        .replace("here = \"eu-central-1\"", "here = \"us-east-1\"");
    fs::write(file("store.toml"), moved).unwrap();
    assert_eq!(store.reload().unwrap_err().code(), Code::ConfigInvalid);
}

#[test]
fn a_host_is_where_its_own_certificate_says_or_does_not_begin() {
    let hosts = Hosts::new();
    let open = |region: &str, service: &str| Transport::open(&hosts.config(region, service)).unwrap_err();
    let write = |service: &str, certificate: &str| {
        let pem = |kind: &str| fs::read_to_string(hosts.file(&format!("{certificate}.{kind}"))).unwrap();
        hosts.write("eu-central-1", service, &pem("pem"), &pem("key"));
    };
    write("elsewhere", "us-east-1.store");
    let refusal = open("eu-central-1", "elsewhere");
    assert!(refusal.what().contains("of us-east-1, and this host is in eu-central-1 (EU)"), "{refusal}");
    write("authority", "eu-central-1.authority");
    assert!(open("eu-central-1", "authority").what().contains("does not say where it is"));
    hosts.forge("eu-central-1", "past", |leaf| leaf.not_after = OffsetDateTime::now_utc() - DAY / 2);
    assert!(open("eu-central-1", "past").what().contains("holds from"));
    hosts.forge("eu-central-1", "foreign", |leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://example.org/region/eu-central-1/x")];
    });
    assert!(open("eu-central-1", "foreign").what().contains("trust domain example.org"));
    for error in [open("eu-central-1", "elsewhere"), open("eu-central-1", "past")] {
        assert_eq!(error.code(), Code::CertificateInvalid);
        assert!(error.place().unwrap().contains("eu-central-1."), "{error}");
    }
    // Anchors that are no authority's.
    let text = fs::read_to_string(hosts.file("eu-central-1.store.toml")).unwrap();
    fs::write(
        hosts.file("eu-central-1.store.toml"),
        text.replace("us-east-1.authority.pem", "us-east-1.store.pem"),
    )
    .unwrap();
    assert!(open("eu-central-1", "store").what().contains("is no authority's"));
}

#[test]
fn a_workload_of_spiffe_brings_its_own_files() {
    let hosts = Hosts::new();
    // As spiffe-helper writes them: chain, key, and everybody's authorities in one bundle; and no revocation lists.
    let copy = |from: &str, to: &str| fs::copy(hosts.file(from), hosts.file(to)).unwrap();
    hosts.issue("eu-west-1", "store", DAY / 2);
    copy("eu-west-1.store.pem", "svid.pem");
    copy("eu-west-1.store.key", "svid_key.pem");
    let own = fs::read_to_string(hosts.file("eu-west-1.authority.pem")).unwrap();
    fs::write(hosts.file("bundle.pem"), own).unwrap();
    let text = fs::read_to_string(hosts.file("eu-west-1.store.toml")).unwrap();
    let text = text
        .replace("eu-west-1.store.pem", "svid.pem")
        .replace("eu-west-1.store.key", "svid_key.pem")
        .replace("eu-west-1.authority.pem", "bundle.pem")
        .replace("crls = [\"eu-west-1.authority.crl\"]", "lifetime_max = \"1 day\"");
    fs::write(hosts.file("eu-west-1.store.toml"), text).unwrap();
    let workload = hosts.store("eu-west-1");
    let anything = || Exchange::from_anywhere("records");
    let (accepted, connected) = exchange_words(
        &workload.acceptor(anything()),
        &workload.connector(anything()),
        &by_identity("eu-west-1"),
    );
    drop((accepted.unwrap(), connected.unwrap()));
    // A certificate that lives longer than its region's may needs a revocation list.
    hosts.issue("eu-west-1", "lasting", 3 * DAY);
    let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", "lasting")), ONLY_13));
    let (accepted, alert) = server_meets(&workload.acceptor(anything()), &client);
    assert!(accepted.unwrap_err().what().contains("lives longer"));
    assert_eq!(alert, Some(AlertDescription::AccessDenied));
    // And SPIFFE's own library takes what was issued here for what it is.
    let (chain, key) = own_files(&hosts, "eu-west-1", "store");
    let chain: Vec<u8> = chain.iter().flat_map(|certificate| certificate.to_vec()).collect();
    let svid = spiffe::X509Svid::parse_from_der(&chain, key.secret_der()).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), identity("eu-west-1", "store"));
}

#[test]
fn a_cut_at_any_octet_is_an_error_and_never_an_end() {
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let (server, proxy) =
        (TcpListener::bind("localhost:0").unwrap(), TcpListener::bind("localhost:0").unwrap());
    let (behind, front) = (server.local_addr().unwrap(), proxy.local_addr().unwrap());
    let all = |stream: &mut dyn Read| {
        let mut heard = Vec::new();
        let ended = stream.read_to_end(&mut heard).map_err(|error| error_of(&error).map(Error::code));
        (heard, ended.map(drop))
    };
    // One exchange through a proxy: what the server heard until a proper end, and the client after it.
    let exchange = |up: Fault, down: Fault| {
        thread::scope(|scope| {
            let serves = scope.spawn(|| {
                let mut stream = acceptor.accept(server.accept().unwrap().0).ok()?;
                let (heard, ended) = all(&mut stream);
                ended.ok()?;
                assert_eq!(heard, b"a question");
                stream.write_all(b"an answer").ok()?;
                stream.close().ok()
            });
            let cuts = scope.spawn(|| pass(&proxy, behind, up, down));
            let asks = || {
                let mut stream = connector.connect(front, &by_name()).ok()?;
                stream.write_all(b"a question").ok()?;
                // The half that writes ends, the one that reads goes on.
                let mut stream = stream.finish().ok()?;
                let (heard, ended) = all(&mut stream);
                // Only a cut connection may have been heard in part, and it is told from a whole one.
                ended.ok()?;
                assert_eq!(heard, b"an answer");
                Some(())
            };
            let asked = asks();
            (serves.join().unwrap(), asked, cuts.join().unwrap())
        })
    };
    let (served, asked, [up, down]) = exchange(Fault::None, Fault::None);
    assert_eq!((served, asked), (Some(()), Some(())));
    assert!(up > 1000 && down > 1000, "{up} {down}");
    // Two signatures of P-256 in each direction, whose lengths differ by up to two octets from run to run: so near the end
    // an exchange may be whole, which it is only when everything was heard.
    const SIGNATURES: usize = 8;
    for octet in 0..up {
        let (_, asked, _) = exchange(Fault::CutAfter(octet), Fault::None);
        assert!(
            asked.is_none() || octet + SIGNATURES > up,
            "cut after {octet} of {up} octets towards the server"
        );
    }
    for octet in 0..down {
        let (_, asked, _) = exchange(Fault::None, Fault::CutAfter(octet));
        assert!(
            asked.is_none() || octet + SIGNATURES > down,
            "cut after {octet} of {down} octets towards the client"
        );
    }
}

#[test]
fn limits_hold_for_connections_handshakes_and_silence() {
    let hosts = Hosts::new();
    hosts.configure(
        "eu-central-1",
        "store",
        "connections_max = 2\nhandshake_timeout = \"150 ms\"\nidle_timeout = \"150 ms\"",
    );
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Somebody who says nothing, and somebody who says one octet at a time.
    let _silent = TcpStream::connect(address).unwrap();
    let slow = acceptor.accept(listener.accept().unwrap().0).unwrap_err();
    assert_eq!(slow.code(), Code::ConnectionFailed);
    assert!(slow.what().contains("waiting for too long"), "{slow}");
    let mut dripping = TcpStream::connect(address).unwrap();
    let drips = thread::spawn(move || {
        while dripping.write_all(&[22]).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let slow = acceptor.accept(listener.accept().unwrap().0).unwrap_err();
    assert_eq!(slow.code(), Code::ConnectionFailed);
    drips.join().unwrap();
    assert_eq!(store.connections(), 0);

    let (first, its_first) = exchange_words(&acceptor, &connector, &by_name());
    let (second, _its_second) = exchange_words(&acceptor, &connector, &by_name());
    let (mut first, second) = (first.unwrap(), second.unwrap());
    let third = exchange_words(&acceptor, &connector, &by_name()).0.unwrap_err();
    assert_eq!(third.broken_rule(), Some("connections_max = 2"));
    drop(second);
    drop(exchange_words(&acceptor, &connector, &by_name()).0.unwrap());
    // Nobody says anything.
    let error = first.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(error_of(&error).unwrap().what().contains("waiting for too long"));
    let after = error_of(&first.write(b"x").unwrap_err()).unwrap().code();
    assert_eq!(after, Code::ConnectionFailed);
    drop(its_first);
}

#[test]
fn keys_are_logged_only_for_whoever_asks() {
    let hosts = Hosts::new();
    let log = hosts.file("keys.log");
    let settings = Settings::from_config(&hosts.config("eu-central-1", "store")).unwrap();
    let logged = Transport::builder(settings).danger_log_keys_to(&log).build().unwrap();
    let client = hosts.store("eu-west-1");
    let acceptor = logged.acceptor(Exchange::from_anywhere("records"));
    exchange_words(&acceptor, &client.connector(Exchange::from_anywhere("records")), &by_name()).0.unwrap();
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{lines}");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing of the environment asks.
    let script = hosts.file("environment.log");
    let own = std::env::current_exe().unwrap();
    let ran = Command::new(own)
        .args(["--exact", "every_pair_of_places_meets_where_it_may_and_nowhere_else"])
        .env("SSLKEYLOGFILE", &script)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(ran.success());
    assert!(!script.exists());
}

/// `openssl s_client` towards our server: what it said, and what the server heard or found.
fn openssl(hosts: &Hosts, store: &Transport, region: &str, more: &[&str]) -> (String, Result<()>) {
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = store.acceptor(Exchange::processing(&known("eu-central-1")));
    let server = thread::spawn(move || {
        let mut stream = acceptor.accept(listener.accept().unwrap().0)?;
        say(&mut stream, b"welcome\n")?;
        hear(&mut stream, b"hello\n")?;
        stream.close()
    });
    let file = |name: String| hosts.file(&name).display().to_string();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            NAME,
            "-verify_return_error",
            "-ign_eof",
        ])
        .args(["-verify_hostname", NAME, "-CAfile", &file("eu-central-1.authority.pem".to_owned())])
        .args(["-cert", &file(format!("{region}.store.pem")), "-key", &file(format!("{region}.store.key"))])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    // It goes on until the other end is done, whatever becomes of its input; where it was refused, it may be gone already.
    let _ = input.write_all(b"hello\n");
    drop(input);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (said, server.join().unwrap())
}

#[test]
fn openssl_is_taken_and_refused_as_anybody() {
    let hosts = Hosts::new();
    let store = hosts.store("eu-central-1");
    let (said, heard) = openssl(&hosts, &store, "eu-west-1", &["-tls1_3"]);
    assert_eq!(code(&heard), None, "{said}");
    assert!(said.contains("welcome"), "{said}");
    assert!(said.contains("Verify return code: 0 (ok)") && !said.contains("New session ticket"), "{said}");

    let (said, heard) = openssl(&hosts, &store, "us-east-1", &["-tls1_3"]);
    let refusal = heard.unwrap_err();
    assert_eq!((refusal.code(), refusal.broken_rule()), (Code::PeerRefused, Some("processing = [\"EU\"]")));
    assert!(said.contains("access denied"), "{said}");

    let (said, heard) = openssl(&hosts, &store, "eu-west-1", &["-tls1_2"]);
    assert_eq!(heard.unwrap_err().code(), Code::ConnectionFailed);
    assert!(said.contains("protocol version"), "{said}");
}

#[test]
fn sockets_of_this_machine_are_placed_too() {
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let serves = thread::spawn(move || {
        let mut stream = store.acceptor(Exchange::from_anywhere("records")).accept(here).unwrap();
        stream.write_all(b"welcome").unwrap();
        stream.close().unwrap();
    });
    let connector = client.connector(Exchange::home(&known("eu-central-1")));
    let mut stream = connector.connect_over(there, &by_identity("eu-central-1")).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!((heard.as_slice(), stream.peer().address()), (&b"welcome"[..], None));
    assert!(stream.ends_at() < later(8 * DAY));
    serves.join().unwrap();
}

#[test]
fn an_authority_is_replaced_while_both_are_believed() {
    let hosts = Hosts::new();
    // Another authority of the region, in a place of its own, and a host that has its certificate.
    let new = hosts.file("new");
    fs::create_dir(&new).unwrap();
    let (region, now) = ("eu-west-1".parse().unwrap(), SystemClock.now());
    let authority = Authority::create(&new, &region, Settings::TRUST_DOMAIN, 30 * DAY, 7 * DAY, now).unwrap();
    let issue = Issue { service: "new", dns_names: &[], valid: DAY, replace: false };
    let issued = authority.issue(hosts.path(), &issue, now).unwrap();
    hosts.configure("eu-west-1", "new", "");
    let path = hosts.file("eu-central-1.store.toml");
    let only_old = fs::read_to_string(&path).unwrap();
    let both = only_old
        .replace(
            "[\"eu-west-1.authority.pem\"]",
            "[\"eu-west-1.authority.pem\", \"new/eu-west-1.authority.pem\"]",
        )
        .replace(
            "[\"eu-west-1.authority.crl\"]",
            "[\"eu-west-1.authority.crl\", \"new/eu-west-1.authority.crl\"]",
        );
    let only_new = only_old.replace("\"eu-west-1.authority.", "\"new/eu-west-1.authority.");
    let store = hosts.store("eu-central-1");
    let meets = |service: &str| {
        let client = Arc::new(foreign_client(&hosts, Some(("eu-west-1", service)), ONLY_13));
        server_meets(&store.acceptor(Exchange::from_anywhere("records")), &client).0.map(drop)
    };
    for (text, old_is_taken, new_is_taken) in
        [(only_old, true, false), (both, true, true), (only_new, false, true)]
    {
        fs::write(&path, text).unwrap();
        store.keep_up().unwrap();
        assert_eq!((meets("store").is_ok(), meets("new").is_ok()), (old_is_taken, new_is_taken));
    }
    // What one of them revokes, the other does not.
    authority.revoke(&[domicile_tests::hosts::certificate(&issued.certificate)], DAY, now).unwrap();
    assert!(store.keep_up().unwrap().is_some());
    assert!(meets("new").unwrap_err().what().contains("was revoked"));
}

#[test]
fn revocations_are_not_taken_back() {
    let hosts = Hosts::new();
    hosts.revoke("eu-west-1", "store");
    let authority = hosts.authority("eu-west-1");
    let fresh = authority.revoke(&[], DAY, SystemClock.now()).unwrap();
    assert_eq!((fresh.revoked.len(), fresh.number), (1, Some(3)));
    fs::remove_file(&authority.files().crl).unwrap();
    assert_eq!(authority.revoke(&[], DAY, SystemClock.now()).unwrap_err().code(), Code::CertificateInvalid);
    // Another region's certificate, and a key in another's place.
    let other = domicile_tests::hosts::certificate(&hosts.file("us-east-1.store.pem"));
    let refused = hosts.authority("eu-central-1").revoke(&[other], DAY, SystemClock.now()).unwrap_err();
    assert_eq!(refused.code(), Code::ArgumentInvalid);
    fs::copy(hosts.file("us-east-1.authority.key"), hosts.file("eu-west-1.authority.key")).unwrap();
    let region = "eu-west-1".parse().unwrap();
    assert!(
        Authority::open(hosts.path(), &region).unwrap_err().what().contains("belongs to another certificate")
    );
    for kind in ["pem", "key"] {
        let to = hosts.file(&format!("eu-west-1.authority.{kind}"));
        fs::copy(hosts.file(&format!("us-east-1.authority.{kind}")), to).unwrap();
    }
    assert!(Authority::open(hosts.path(), &region).unwrap_err().what().contains("no authority of eu-west-1"));
}
