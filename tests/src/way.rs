//! What lies between two ends: octets pass, until the way is cut, or one of them is changed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What befalls the octets of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    None,
    /// So many pass, and then both directions are cut.
    CutAfter(usize),
    /// This one, from 0 on, has one bit changed: another one for each octet in turn.
    Flip(usize),
}

/// Takes one connection, passes its octets on to `to`, and back; how many passed in each direction.
pub fn pass(listener: &TcpListener, to: SocketAddr, up: Fault, down: Fault) -> [usize; 2] {
    carry(listener.accept().unwrap().0, to, up, down)
}

/// Takes every connection that comes until one comes when it `is_over`, and passes octets on in all of them at once: the first has
/// the faults. How many passed in that one.
pub fn pass_all(
    listener: &TcpListener,
    to: SocketAddr,
    up: Fault,
    down: Fault,
    is_over: &AtomicBool,
) -> [usize; 2] {
    let first = listener.accept().unwrap().0;
    thread::scope(|scope| {
        let first = scope.spawn(move || carry(first, to, up, down));
        loop {
            let next = listener.accept().unwrap().0;
            if is_over.load(Ordering::SeqCst) {
                return first.join().unwrap();
            }
            scope.spawn(move || carry(next, to, Fault::None, Fault::None));
        }
    })
}

fn carry(client: TcpStream, to: SocketAddr, up: Fault, down: Fault) -> [usize; 2] {
    let Ok(server) = TcpStream::connect(to) else { return [0, 0] };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let upwards = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upwards = thread::spawn(move || forward(upwards.0, upwards.1, up));
    let passed_down = forward(server, client, down);
    [upwards.join().unwrap(), passed_down]
}

fn forward(mut from: TcpStream, mut to: TcpStream, fault: Fault) -> usize {
    let most = if let Fault::CutAfter(octets) = fault { octets } else { usize::MAX };
    let (mut passed, mut buffer) = (0, vec![0; 4096]);
    while passed < most {
        let room = buffer.len().min(most - passed);
        let read = match from.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        if let Fault::Flip(at) = fault
            && (passed..passed + read).contains(&at)
        {
            buffer[at - passed] ^= 1 << (at % 8);
        }
        passed += read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if passed == most {
        // Whatever comes after this is lost, in both directions.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    } else {
        let _ = to.shutdown(Shutdown::Write);
    }
    passed
}
