//! ICMP errors about translated packets, both ways.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::ip_number;
use netd_tests::lab::{
    Capture, Datagram, Family, Lab, RawSocket, UdpEcho, ask, at, close, connect, udp, until,
};

#[test]
fn a_closed_port_outside_is_refused_to_the_container() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let socket = udp(&a.ns, family, 5000);
        socket.connect(at(family.outside(), 5399)).expect("connecting");
        socket.send(b"anybody?").expect("sending");
        let error = socket.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
}

#[test]
fn a_closed_port_of_a_container_is_refused_to_the_outside() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let remote =
            lab.outside.enter(|| std::net::UdpSocket::bind(at(family.outside(), 5300))).expect("binding");
        remote.set_read_timeout(Some(netd_tests::lab::PATIENCE)).expect("a socket's timeout");
        let socket = udp(&a.ns, family, 5000);
        socket.send_to(b"hello", at(family.outside(), 5300)).expect("sending");
        let (_, mapping) = remote.recv_from(&mut [0; 64]).expect("the datagram");
        assert_eq!(mapping.ip(), family.host());

        close(&a.ns, socket);
        let mut capture = Capture::new(&lab.outside, "eth0");
        remote.connect(mapping).expect("connecting");
        remote.send(b"still there?").expect("sending");
        let error = remote.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        let packet = capture.expect("the error", |p| p.icmp_error().is_some());
        let error = packet.icmp_error().expect("an error");
        assert_eq!(packet.source, family.host());
        assert_eq!(
            (error.about.source, error.about.destination, error.about.ports()),
            (family.outside(), mapping.ip(), Some((5300, mapping.port()))),
            "the remote is told of its own packet, not of a container"
        );
    }
}

/// ICMP time exceeded about a packet, as a router sends it.
fn time_exceeded(router: IpAddr, to: IpAddr, about: &[u8]) -> Datagram {
    let kind = if to.is_ipv4() { 11 } else { 3 };
    error([kind, 0, 0, 0, 0, 0, 0, 0], router, to, about)
}

/// An ICMP packet that is too big for the next link of a router.
pub(crate) fn too_big(mtu: u16, router: IpAddr, to: IpAddr, about: &[u8]) -> Datagram {
    let (kind, code) = if to.is_ipv4() { (3, 4) } else { (2, 0) };
    let [high, low] = mtu.to_be_bytes();
    error([kind, code, 0, 0, 0, 0, high, low], router, to, about)
}

/// An ICMP error whose message begins so, but for the checksum.
fn error(header: [u8; 8], router: IpAddr, to: IpAddr, about: &[u8]) -> Datagram {
    let mut payload = [&header[..], about].concat();
    let (protocol, pseudo_header) = match (router, to) {
        (IpAddr::V6(router), IpAddr::V6(to)) => {
            let length = u32::try_from(payload.len()).expect("a small packet").to_be_bytes();
            let next = [0, 0, 0, ip_number::IPV6_ICMP.0];
            (ip_number::IPV6_ICMP, [&router.octets()[..], &to.octets()[..], &length, &next].concat())
        }
        _ => (ip_number::ICMP, Vec::new()),
    };
    let sum = netd_tests::lab::checksum(&[pseudo_header, payload.clone()].concat());
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    Datagram { source: router, destination: to, ttl: 64, protocol, payload }
}

#[test]
fn an_error_neither_ends_a_flow_nor_comes_from_nowhere() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let (remote, mapping) = (at(family.outside(), 5300), at(family.host(), 5000));
        let _echo = UdpEcho::new(&lab.outside, remote);
        let socket = udp(&a.ns, family, 5000);
        ask(&socket, remote, b"opens the mapping");

        let mut capture = Capture::new(&a.ns, "eth0");
        let router = family.outside_other();
        let raw = RawSocket::new(&lab.outside, mapping.ip());
        let ours = Datagram::udp(mapping, remote, b"opens the mapping").bytes();
        let strangers = Datagram::udp(at(family.host(), 5999), remote, b"nobody's").bytes();
        for about in [strangers, ours] {
            raw.send(&time_exceeded(router, mapping.ip(), &about).bytes(), mapping.ip());
        }
        // The stranger's came first, had it come at all.
        let packet = capture.expect("an ICMP error", |p| p.icmp_error().is_some());
        let error = packet.icmp_error().expect("an error");
        assert_eq!(packet.source, router, "the router's address is kept");
        assert_eq!(packet.destination, a.address(family));
        assert_eq!((error.about.source, error.about.ports()), (a.address(family), Some((5000, 5300))));

        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket's timeout");
        ask(&socket, remote, b"the flow lives on");
    }
}

/// As the host's own stack says it, after as long.
#[test]
fn where_nobody_has_the_address_there_is_no_route_to_host() {
    let lab = Lab::new();
    let a = lab.container("a");
    for (family, nobody) in Family::BOTH.into_iter().zip(["203.0.113.77", "2001:db8::77"]) {
        let there = at(nobody.parse::<IpAddr>().expect("an address"), 5300);
        let told = || lab.host.netd_json("stats")["drops"]["no_neighbour"].as_u64().expect("a counter");
        let before = told();
        let mut capture = Capture::new(&a.ns, "eth0");
        let error = connect(&a.ns, 0, there).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");
        assert!(told() > before);
        let error = capture.expect("the error", |packet| packet.icmp_error().is_some());
        assert_eq!((error.source, error.destination), (a.gateway(family), a.address(family)));
        // The link is asked again and again: who comes late is found, by a flow that has been refused too.
        let socket = udp(&a.ns, family, 5000);
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket's option");
        let refused = told();
        until("datagrams are refused", || {
            socket.send_to(b"hello", there).expect("sending");
            told() > refused
        });
        let length = if family == Family::V4 { 24 } else { 64 };
        lab.outside.ip(&format!("address add {nobody}/{length} dev eth0 nodad"));
        let _echo = UdpEcho::new(&lab.outside, there);
        until("they arrive", || {
            socket.send_to(b"hello", there).expect("sending");
            socket.recv_from(&mut [0; 5]).is_ok()
        });
        let error = connect(&a.ns, 0, there).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
}
