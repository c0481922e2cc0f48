//! TLS that knows where the other end is, over real sockets: two hosts, each with what `domicile cert` issued, and every way
//! in which one of them is not what it should be.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use domicile::{Code, Error, Result};
use domicile_tests::hosts::{Hosts, REGIONS, by_identity, by_name, known};
use domicile_transport::{Acceptor, Blocking, Connector, Exchange, PlacedStream, Target, error_of};

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
