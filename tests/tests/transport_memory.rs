//! What connections cost in memory: 1,000 that are idle beside 200 that carry something, in one process with both ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use domicile_tests::hosts::{Hosts, by_identity};
use domicile_transport::Exchange;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

const IDLE: usize = 1_000;
const ACTIVE: usize = 200;

/// What one connection may cost at both of its ends together, in KiB; each end has half.
const IDLE_KIB_MAX: u64 = 64;

/// The same while it carries 64 KiB at a time: TLS keeps a record or two each way at each end.
const ACTIVE_KIB_MAX: u64 = 448;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_active_connections_stay_within_stated_memory() {
    // Two descriptors for each connection.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let hosts = Hosts::new();
    let (store, client) = (hosts.store("eu-central-1"), hosts.store("eu-west-1"));
    let acceptor = store.acceptor(Exchange::from_anywhere("records"));
    let connector = client.connector(Exchange::from_anywhere("records"));
    let mut listener = acceptor.listen(TcpListener::bind("localhost:0").await.unwrap()).unwrap();
    let address = listener.local_addr();
    let target = by_identity("eu-central-1");

    // What is there before, with everything used once.
    let warm = tokio::join!(listener.accept(), connector.connect_async(address, &target));
    let before = resident_kib();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let (here, there) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
        idle.push((here, there.unwrap()));
    }
    let with_idle = resident_kib();
    assert_eq!((store.connections(), client.connections()), (IDLE + 1, IDLE + 1));

    let (all, mut busy) = (Arc::new(Barrier::new(ACTIVE * 2 + 1)), Vec::with_capacity(ACTIVE * 2));
    for _ in 0..ACTIVE {
        let (here, there) = tokio::join!(listener.accept(), connector.connect_async(address, &target));
        for (mut stream, first) in [(here, true), (there.unwrap(), false)] {
            let all = Arc::clone(&all);
            busy.push(tokio::spawn(async move {
                let mut page = vec![0_u8; 1 << 16];
                for turn in 0..16 {
                    if (turn % 2 == 0) == first {
                        stream.write_all(&page).await.unwrap();
                        stream.flush().await.unwrap();
                    } else {
                        stream.read_exact(&mut page).await.unwrap();
                    }
                }
                // All of them at once, with everything that they ever held.
                all.wait().await;
                all.wait().await;
            }));
        }
    }
    all.wait().await;
    let with_active = resident_kib();
    assert_eq!(store.connections(), IDLE + ACTIVE + 1);
    all.wait().await;
    for busy in busy {
        busy.await.unwrap();
    }
    let idle_kib = with_idle.saturating_sub(before) / IDLE as u64;
    let active_kib = with_active.saturating_sub(with_idle) / ACTIVE as u64;
    assert!(idle_kib <= IDLE_KIB_MAX, "an idle connection costs {idle_kib} KiB at both ends");
    assert!(active_kib <= ACTIVE_KIB_MAX, "an active connection costs {active_kib} KiB at both ends");
    drop((warm, idle));
    drop(listener);
    assert_eq!(client.connections(), 0);
}
