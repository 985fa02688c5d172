//! Time to live.

use std::net::IpAddr;

use netd_tests::lab::{Capture, Container, Family, Lab, Packet, at, udp};

/// Sends a datagram of a time to live, and returns the ICMP error that comes back.
fn probe(from: &Container, family: Family, to: IpAddr, ttl: u32) -> Packet {
    let mut capture = Capture::new(&from.ns, "eth0");
    let socket = udp(&from.ns, family, 0);
    let port = socket.local_addr().expect("a bound socket").port();
    match family {
        Family::V4 => socket.set_ttl(ttl).expect("a socket's option"),
        Family::V6 => socket2::SockRef::from(&socket).set_unicast_hops_v6(ttl).expect("a socket's option"),
    }
    // A traceroute's first port; nothing listens there.
    socket.send_to(b"how far", at(to, 33434)).expect("sending");
    capture.expect("an ICMP error about the datagram", |p| {
        p.icmp_error().is_some_and(|error| error.about.ports() == Some((port, 33434)))
    })
}

#[test]
fn traceroute_shows_every_hop() {
    let lab = Lab::new();
    let _behind = lab.behind(1500);
    let a = lab.container("a");
    for family in Family::BOTH {
        let (exceeded, unreachable) = if family == Family::V4 { ((11, 0), (3, 3)) } else { ((3, 0), (1, 4)) };
        let path =
            [(a.gateway(family), exceeded), (family.outside(), exceeded), (family.behind(), unreachable)];
        for (ttl, (hop, kind)) in (1..).zip(path) {
            let answer = probe(&a, family, family.behind(), ttl);
            let error = answer.icmp_error().expect("an error");
            assert_eq!((answer.source, (error.kind, error.code)), (hop, kind), "hop {ttl}");
            assert_eq!(answer.destination, a.address(family));
            assert_eq!((error.about.source, error.about.destination), (a.address(family), family.behind()));
        }
    }
}

#[test]
fn each_way_costs_one() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let mut outside = Capture::new(&lab.outside, "eth0");
        let socket = udp(&a.ns, family, 5000);
        match family {
            Family::V4 => socket.set_ttl(2).expect("a socket's option"),
            Family::V6 => socket2::SockRef::from(&socket).set_unicast_hops_v6(2).expect("a socket's option"),
        }
        socket.send_to(b"just there", at(family.outside(), 5300)).expect("sending");
        let arrived = outside.expect("the datagram", |p| p.ports() == Some((5000, 5300)));
        assert_eq!((arrived.source, arrived.ttl), (family.host(), 1));
    }
}
