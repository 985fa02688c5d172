//! What many published ports cost: to publish them, to connect with them there, and in the daemon's memory.

use std::time::{Duration, Instant};

use super::{Ends, Load, PORT, Plan};
use crate::lab::{Container, Family, Lab, at};

/// A number of published ports, and what they cost.
pub struct Ports {
    /// What was published.
    pub what: &'static str,
    /// How long publishing took, in one command.
    pub published: Duration,
    /// Connect, request, close rounds a second through one of them: of each round of the benchmark.
    pub rates: Vec<f64>,
    /// The daemon's resident memory with them, in bytes.
    pub memory: u64,
}

/// A host with so many ports published to one container, `PORT` among them.
struct Host {
    what: &'static str,
    lab: Lab,
    server: Container,
    published: Duration,
}

impl Host {
    fn new(what: &'static str, specs: &str) -> Self {
        let lab = Lab::new();
        let server = lab.container("server");
        let begun = Instant::now();
        lab.host.netd(&format!("publish netns:{} {PORT}:{PORT} {specs}", server.ns.name()));
        Self { what, published: begun.elapsed(), lab, server }
    }
}

/// Every other port, so that no two make a range.
fn singles(count: u16) -> String {
    (0..count).map(|n| 20_000 + 2 * n).map(|port| format!("{port}:{port} ")).collect()
}

/// Measures all numbers of ports, the rounds of each in turn.
pub fn ports(plan: Plan) -> Vec<Ports> {
    let hosts = [
        Host::new("one port", ""),
        Host::new("1,000 single ports", &singles(1000)),
        Host::new("10,000 single ports", &singles(10_000)),
        Host::new("10,000 ports in 10 ranges", &ranges(10, 1000)),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..plan.rounds {
        for (host, rates) in hosts.iter().zip(&mut rates) {
            let dial = at(Family::V4.host(), PORT);
            let listen = at(host.server.address(Family::V4), PORT);
            let ends = Ends { client: &host.lab.outside, server: &host.server.ns, listen, dial };
            rates.push(Load::TcpConnect.run(&ends, plan.time, plan.core));
        }
    }
    let measured = hosts.into_iter().zip(rates);
    measured
        .map(|(host, rates)| Ports {
            what: host.what,
            published: host.published,
            rates,
            memory: host.lab.host.resident(),
        })
        .collect()
}

fn ranges(count: u16, size: u16) -> String {
    let range = |n: u16| {
        let first = 20_000 + n * (size + 1);
        format!("{first}-{last}:{first}-{last} ", last = first + size - 1)
    };
    (0..count).map(range).collect()
}
