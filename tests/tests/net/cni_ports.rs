//! Port mappings and bandwidth that container runtimes ask for by CNI. The names of tests carry the numbers of the cases they
//! replay.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use netd_tests::lab::{Cni, Container, Family, Namespace, TcpEcho, UdpEcho, ask, at, connect, udp};
use serde_json::json;

use crate::cni::{dual, lab, message};

/// Has a word echoed over a new connection from the outside.
pub(crate) fn talk(from: &Namespace, to: SocketAddr) {
    let mut stream = connect(from, 0, to).expect("connecting");
    stream.write_all(b"hello").expect("sending");
    stream.read_exact(&mut [0; 5]).expect("the echo");
}

#[test]
fn mapped_ports_are_the_runtimes_to_reserve() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let mapping = |protocol: &str| json!({"hostPort": 9000, "containerPort": 80, "protocol": protocol});
    let mapped = cni.with(json!({"runtimeConfig": {"portMappings": [mapping("tcp"), mapping("udp")]}}));
    let a = mapped.container("a");
    let servers = |ns: &Namespace, port| {
        (TcpEcho::new(ns, Family::V6.any(port)), UdpEcho::new(ns, Family::V6.any(port)))
    };
    let heard = |(tcp, udp): &(TcpEcho, UdpEcho)| (tcp.peers().len(), udp.peers().len());
    let inside = servers(&a.ns, 80);
    // A runtime binds what it has had published, at one address or all.
    for family in Family::BOTH {
        drop(TcpEcho::new(&lab.host.ns, at(family.host(), 9000)));
        drop(UdpEcho::new(&lab.host.ns, at(family.loopback(), 9000)));
    }
    let runtimes = servers(&lab.host.ns, 9000);
    // What is published by netd itself netd keeps, for the same container too.
    lab.host.netd(&format!("publish pods/{}:eth0 9001:80", a.ns.name()));
    let is_kept = |port: u16| {
        let bound = lab.host.ns.enter(|| TcpListener::bind(Family::V4.any(port)));
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let as_it_was = || {
        let published = lab.host.netd_json("publish ls");
        let all = published.as_array().expect("publications").iter();
        let all: BTreeSet<_> = all.map(|it| (it["host_port"].as_u64(), it["reserved_by"].as_str())).collect();
        assert_eq!(all, BTreeSet::from([(Some(9000), Some("runtime")), (Some(9001), Some("netd"))]));
        assert!(is_kept(9001));
        // No socket that asks for any port gets one of them.
        let reserved = || fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
        assert_eq!(lab.host.ns.enter(reserved).expect("the setting").trim(), "9000-9001");
    };
    // The container alone hears those who come.
    let reach = || {
        let before = heard(&runtimes);
        for family in Family::BOTH {
            let (outside, host) = (&lab.outside, &lab.host.ns);
            for (from, to) in [(outside, family.host()), (host, family.host()), (host, family.loopback())] {
                let (tcp, datagrams) = heard(&inside);
                talk(from, at(to, 9000));
                assert_eq!(ask(&udp(from, family, 0), at(to, 9000), b"hello"), b"hello");
                assert_eq!(heard(&inside), (tcp + 1, datagrams + 1), "{} to {to}", from.name());
            }
        }
        assert_eq!(heard(&runtimes), before);
    };
    as_it_was();
    reach();
    let b = Namespace::new("b");
    let taken = message(mapped.try_add("b", &b));
    assert!(taken.contains("port is already allocated"), "{taken}");
    // A daemon that comes back finds it so, with all sockets.
    lab.host.kill();
    reach();
    lab.host.start(&[]);
    as_it_was();
    reach();
    // So does a container that leaves its network and comes again, whose runtime has the port all the while.
    mapped.del(a.ns.name(), Some(&a.ns));
    let before = heard(&inside);
    talk(&lab.outside, at(Family::V4.host(), 9000));
    assert_eq!((heard(&inside), heard(&runtimes)), (before, (1, 0)), "it is the host's own");
    mapped.add(a.ns.name(), &a.ns);
    reach();
    assert!(!is_kept(9001) && lab.host.metrics().contains("netd_binds_refused_total 2"));
}

#[test]
fn t72_mapped_ports_lead_to_the_container_and_go_with_it() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let mapping = |host: u16, container: u16, protocol: &str| json!({"hostPort": host, "containerPort": container, "protocol": protocol});
    let mapped = cni.with(
        json!({"runtimeConfig": {"portMappings": [mapping(9000, 80, "tcp"), mapping(9000, 53, "udp")]}}),
    );
    let a = mapped.container("a");
    let clients = [udp(&lab.outside, Family::V4, 5354), udp(&lab.outside, Family::V6, 5356)];
    for (family, client) in Family::BOTH.into_iter().zip(&clients) {
        let _tcp = TcpEcho::new(&a.ns, family.any(80));
        let _udp = UdpEcho::new(&a.ns, family.any(53));
        talk(&lab.outside, at(family.host(), 9000));
        assert_eq!(ask(client, at(family.host(), 9000), b"first"), b"first");
    }
    let b = Namespace::new("b");
    let taken = message(mapped.try_add("b", &b));
    assert!(taken.contains("port is already allocated"), "{taken}");
    mapped.del(a.ns.name(), Some(&a.ns));
    connect(&lab.outside, 0, at(Family::V4.host(), 9000)).expect_err("nothing is published any more");
    // The same client, with the socket it had, reaches the next container.
    mapped.add("b", &b);
    let b = Container::of(b);
    for (family, client) in Family::BOTH.into_iter().zip(&clients) {
        let server = UdpEcho::new(&b.ns, family.any(53));
        assert_eq!(ask(client, at(family.host(), 9000), b"second"), b"second");
        let port = client.local_addr().expect("a bound socket").port();
        assert_eq!(server.peers(), [at(family.outside(), port)]);
    }
    let c = Namespace::new("c");
    for (host, container, what) in [(0, 80, "host"), (80, 0, "container")] {
        let bad = cni.with(json!({"runtimeConfig": {"portMappings": [mapping(host, container, "tcp")]}}));
        assert_eq!(message(bad.try_add("c", &c)), format!("Invalid {what} port number: 0"));
    }
    let half = cni.with(json!({"runtimeConfig": {"bandwidth": {"ingressBurst": 1_000_000}}}));
    let error = message(half.try_add("c", &c));
    assert_eq!(error, "invalid bandwidth: ingressBurst is set, and ingressRate is not");
    let bandwidth = json!({"ingressRate": 1_000_000, "ingressBurst": 80_000, "egressRate": 2_000_000});
    let limited = cni.with(json!({"runtimeConfig": {"bandwidth": bandwidth}}));
    limited.add("c", &c);
    let queue = c.command("tc").args(["qdisc", "show", "dev", "eth0"]).output().expect("tc").stdout;
    let queue = String::from_utf8(queue).expect("tc's output");
    assert!(queue.contains("qdisc tbf") && queue.contains("rate 2Mbit"), "{queue}");
}
