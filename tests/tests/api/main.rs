//! Docker's API, and what its own command line makes of it: netd as those see it who know Docker.
//!
//! Each test has a daemon of its own in a namespace of its own, so they run side by side. Needs root, a kernel of 6.6 or
//! later, `ip`, and `docker`, the command line; a test panics where one of them is missing. A test whose name begins with
//! `t` and a number replays that case of the contract that netd meets.

mod adopted;
mod bodies;
mod bollard;
mod concurrency;
mod configuration;
mod daemon_json;
mod description;
mod endpoints;
mod engine;
mod events;
mod filters;
mod hostile;
mod negotiation;
mod networks;
mod plugin;
mod podman;
mod prune;
mod schema;
mod sockets;
mod system;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::SystemTime;

use netd_tests::lab::{Host, Lab, Namespace, TcpEcho, at, connect};

/// A host that runs netd with no more than its default networks.
fn daemon() -> Host {
    let host = Host::new();
    host.start(&[]);
    host
}

/// What the command line says when the daemon refuses.
fn refusal(message: &str) -> String {
    format!("Error response from daemon: {message}")
}

/// How a namespace is named as a container.
fn container(ns: &Namespace) -> String {
    format!("netns:{}", ns.name())
}

/// Whether a port answers the outside, whose own address the container sees.
fn answers(lab: &Lab, echo: &TcpEcho, to: SocketAddr) -> bool {
    let Ok(mut stream) = connect(&lab.outside, 0, to) else { return false };
    let mut answer = [0; 5];
    let answered = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer));
    let client = stream.local_addr().expect("a connected socket");
    let seen = |peer: &SocketAddr| at(peer.ip().to_canonical(), peer.port()) == client;
    answered.is_ok() && answer == *b"hello" && echo.peers().iter().any(seen)
}

/// The time as the API takes it.
fn now() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}
