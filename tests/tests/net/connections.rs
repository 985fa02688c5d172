//! Many short connections.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use netd_tests::lab::{Container, Family, Lab, at};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const CONNECTIONS: u32 = 100_000;
const CLIENTS: usize = 4;
const SERVERS: usize = 2;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The server closes first, so that its side keeps TIME_WAIT and the client's port is free at once.
    ServerFin,
    /// The client resets it.
    ClientReset,
}

/// One connection after the other, of `CLIENTS` at a time, as fast as they go; returns how many failed.
///
/// The client uses 64,000 source ports, so that the records of closed connections come to be in the way of new ones.
fn short_connections(lab: &Lab, from: &Container, remote: SocketAddr, end: End) -> Vec<std::io::Error> {
    from.ns.sysctl("net.ipv4.ip_local_port_range", "1500 65500");
    // Whoever only resets waits for no server: none is to be turned away because the servers' threads are behind.
    lab.outside.sysctl("net.core.somaxconn", &CONNECTIONS.to_string());
    let listener = lab.outside.enter(|| {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&remote.into())?;
        socket.listen(CONNECTIONS.cast_signed())?;
        Ok::<_, std::io::Error>(TcpListener::from(socket))
    });
    let listener = listener.expect("listening");
    let left = AtomicU32::new(CONNECTIONS);
    let failed = thread::scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| serve(&listener, end));
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    from.ns.join();
                    let one = || {
                        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
                    };
                    std::iter::repeat_with(one)
                        .take_while(|more| *more)
                        .filter_map(|_| open(remote, end).err())
                        .collect()
                })
            })
            .collect();
        let failed: Vec<Vec<std::io::Error>> =
            clients.into_iter().map(|client| client.join().expect("a client")).collect();
        // Wakes the servers, which take each an accept that fails as their end.
        SockRef::from(&listener).shutdown(std::net::Shutdown::Read).expect("shutting down");
        failed
    });
    failed.into_iter().flatten().collect()
}

fn serve(listener: &TcpListener, end: End) {
    while let Ok((mut stream, _)) = listener.accept() {
        if let End::ClientReset = end {
            // The client's reset, or its end if that came first.
            let _ = stream.read(&mut [0; 1]);
        }
    }
}

fn open(remote: SocketAddr, end: End) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&remote, Duration::from_secs(5))?;
    match end {
        End::ServerFin => {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.read(&mut [0; 1]).map(drop)
        }
        End::ClientReset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
    }
}

fn none_fails(family: Family, end: End) {
    let lab = Lab::new();
    let a = lab.container("a");
    let failed = short_connections(&lab, &a, at(family.outside(), 8000), end);
    assert!(failed.is_empty(), "{} of {CONNECTIONS} failed, the first by {}", failed.len(), failed[0]);
    let again = a.ns.counter("TcpExt", "TCPSynRetrans");
    // A port comes up again so soon that the server's side of its last connection may still be there to refuse it.
    let refused = ["PAWSTimewait", "TCPSYNChallenge"].map(|name| lab.outside.counter("TcpExt", name));
    let lost = again.saturating_sub(refused.iter().sum());
    let overflows = lab.outside.counter("TcpExt", "ListenOverflows");
    assert_eq!(
        lost,
        0,
        "SYNs lost: {again} sent again, {refused:?} refused, {overflows} turned away\n{}",
        lab.host.netd("stats --all")
    );
}

#[test]
fn a_hundred_thousand_to_one_remote_closed_by_the_server() {
    none_fails(Family::V4, End::ServerFin);
}

#[test]
fn a_hundred_thousand_to_one_remote_closed_by_the_server_ipv6() {
    none_fails(Family::V6, End::ServerFin);
}

#[test]
fn a_hundred_thousand_to_one_remote_reset_by_the_client() {
    none_fails(Family::V4, End::ClientReset);
}
