//! No packet with a container's address is ever seen outside, whatever it carries.

use std::net::IpAddr;

use etherparse::{IpNumber, ip_number};
use netd_tests::lab::{
    Capture, Container, Datagram, Family, HOST4, HOST6, Lab, Namespace, Packet, Ping, RawLink, RawSocket,
    TcpEcho, UdpEcho, at, close, connect, ping, udp,
};

/// May be seen outside: the host's own address, or what only lives on the link.
fn is_the_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ipv4) => ipv4 == HOST4,
        IpAddr::V6(ipv6) => ipv6 == HOST6 || ipv6.is_unicast_link_local() || ipv6.is_unspecified(),
    }
}

fn assert_none_leaked(packets: &[Packet]) {
    for packet in packets {
        assert!(is_the_hosts(packet.source), "{packet:?}");
        if let Some(error) = packet.icmp_error() {
            assert!(is_the_hosts(error.about.destination), "an error about {:?}", error.about);
        }
    }
}

/// A bit of everything.
fn speak(lab: &Lab, from: &Container, family: Family) {
    let (own, outside) = (from.address(family), family.outside());
    let raw = RawSocket::new(&from.ns, outside);
    let send = |ttl, protocol, payload: &[u8]| {
        let payload = payload.to_vec();
        let datagram = Datagram { source: own, destination: outside, ttl, protocol, payload };
        raw.send(&datagram.bytes(), outside);
    };
    for number in [0, 4, 41, 47, 50, 51, 89, 103, 112, 115, 132, 136, 255] {
        for ttl in [1, 2, 64] {
            send(ttl, IpNumber(number), &[0; 64]);
        }
    }
    // TCP of no connection: SYN, RST, ACK, FIN, nothing at all, everything at once.
    for flags in [0x02, 0x04, 0x10, 0x11, 0x00, 0xff] {
        let mut header = [0; 20];
        header[..4].copy_from_slice(&[0x13, 0x88, 0x14, 0xb4]);
        (header[12], header[13]) = (0x50, flags);
        send(64, ip_number::TCP, &header);
    }
    let icmp = if family == Family::V4 { ip_number::ICMP } else { ip_number::IPV6_ICMP };
    for kind in 0..=255 {
        // Type, any checksum, and something quoted.
        send(
            64,
            icmp,
            &[kind, 0, 0, 0, 0, 7, 0, 1, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        );
    }
    for cut in 0..8 {
        send(64, ip_number::UDP, &vec![0; cut]);
        send(64, ip_number::TCP, &vec![0; cut]);
        send(64, icmp, &vec![8; cut]);
    }
    for (id, order) in (1..).zip([[0, 1, 2], [2, 1, 0], [1, 2, 0]]) {
        for protocol in [ip_number::UDP, icmp, IpNumber(47)] {
            let payload = Datagram::udp(at(own, 5000), at(outside, 5300), &[7; 4000]).payload;
            let datagram = Datagram { source: own, destination: outside, ttl: 64, protocol, payload };
            let fragments = datagram.fragments(1400, id);
            for part in order {
                raw.send(&fragments[part], outside);
            }
        }
    }
    // The socket's own kernel may already know that nobody is there.
    let socket = udp(&from.ns, family, 5000);
    let _ = socket.send_to(b"closed", at(outside, 5399));
    let _ = socket.send_to(b"open", at(outside, 5300));
    let _ = connect(&from.ns, 0, at(outside, 8000)).expect("connecting");
    assert!(ping(&from.ns, outside, Ping::default()));
    assert!(ping(&from.ns, outside, Ping { size: 3000, ..Ping::default() }));
    // What the outside sends to a port that the container has closed by now is answered by ICMP.
    close(&from.ns, socket);
    udp(&lab.outside, family, 5301).send_to(b"?", at(family.host(), 5000)).expect("sending");
}

/// IPv4 options: record route, and one that no kernel knows.
fn speak_with_options(from: &Container) {
    let outside = Family::V4.outside();
    let raw = RawSocket::new(&from.ns, outside);
    for options in [[7, 7, 4, 0, 0, 0, 0, 0], [0x9e, 8, 0, 0, 0, 0, 0, 0]] {
        let mut packet = Datagram::udp(at(from.ipv4, 5000), at(outside, 5300), b"options").bytes();
        packet.splice(20..20, options);
        packet[0] = 0x47;
        let length = u16::try_from(packet.len()).expect("a small packet").to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet[10..12].fill(0);
        let sum = netd_tests::lab::checksum(&packet[..28]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        raw.send(&packet, outside);
    }
}

/// Packets of another's address: another container's, the host's, nobody's.
fn spoof(from: &Container, family: Family, others: &[IpAddr]) {
    let raw = RawSocket::new(&from.ns, family.outside());
    for source in others {
        let datagram = Datagram::udp(at(*source, 5000), at(family.outside(), 5300), b"spoofed");
        raw.send(&datagram.bytes(), family.outside());
    }
}

#[test]
fn a_mix_of_traffic_with_the_daemon_alive_and_dead() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container_on("bridge", "b"));
    let _servers = Family::BOTH.map(|family| {
        (
            UdpEcho::new(&lab.outside, at(family.outside(), 5300)),
            TcpEcho::new(&lab.outside, at(family.outside(), 8000)),
        )
    });
    let mut capture = Capture::new(&lab.outside, "eth0");
    for alive in [true, false, true] {
        if alive != lab.host.runs() {
            if alive { lab.host.start(&[]) } else { lab.host.kill() }
        }
        speak(&lab, &a, Family::V4);
        speak(&lab, &a, Family::V6);
        speak(&lab, &b, Family::V4);
        speak_with_options(&a);
        for family in Family::BOTH {
            spoof(
                &a,
                family,
                &[b.ipv4.into(), "172.30.0.200".parse().expect("an address")].map(|ipv4| match family {
                    Family::V4 => ipv4,
                    Family::V6 => "fd00:30::bad".parse().expect("an address"),
                }),
            );
            // All that was sent before this came back has arrived.
            assert!(ping(&a.ns, family.outside(), Ping::default()));
        }
        let packets = capture.drain();
        assert!(packets.len() > 50, "the capture sees what does get out: {packets:#?}");
        assert_none_leaked(&packets);
    }
}

#[test]
fn a_spoofed_source_is_dropped_on_its_own_network_too() {
    let lab = Lab::new();
    let (a, b, c) = (lab.container("a"), lab.container("b"), lab.container("c"));
    for family in Family::BOTH {
        let server = udp(&b.ns, family, 5300);
        let raw = RawSocket::new(&a.ns, b.address(family));
        for source in [c.address(family), a.gateway(family), family.outside()] {
            let datagram = Datagram::udp(at(source, 5000), at(b.address(family), 5300), b"spoofed");
            raw.send(&datagram.bytes(), b.address(family));
        }
        udp(&a.ns, family, 5001).send_to(b"honest", at(b.address(family), 5300)).expect("sending");
        let (_, first) = server.recv_from(&mut [0; 64]).expect("the honest one");
        assert_eq!(first, at(a.address(family), 5001), "the spoofed ones came before, had they come at all");
    }
}

/// A frame's head with a priority tag (IEEE 802.1Q 6.9.1): of no VLAN, and to most receivers as good as none.
fn priority_tagged(ns: &Namespace, to: &[u8], family: Family) -> Vec<u8> {
    let ethertype: [u8; 2] = if family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [to, &ns.mac("eth0"), &[0x81, 0x00, 0xe0, 0x00], &ethertype].concat()
}

#[test]
fn a_tag_that_says_nothing_hides_nothing() {
    let lab = Lab::new();
    let (a, b, c) = (lab.container("a"), lab.container("b"), lab.container("c"));
    let link = RawLink::new(&a.ns, "eth0");
    for family in Family::BOTH {
        let server = udp(&b.ns, family, 5300);
        let head = priority_tagged(&a.ns, &b.ns.mac("eth0"), family);
        for source in [c.address(family), a.gateway(family), family.outside(), a.address(family)] {
            let datagram = Datagram::udp(at(source, 5000), at(b.address(family), 5300), b"tagged");
            link.send(&[&*head, &datagram.bytes()].concat());
        }
        let (_, first) = server.recv_from(&mut [0; 64]).expect("the honest one");
        assert_eq!(first, at(a.address(family), 5000), "the spoofed ones came before, had they come at all");
    }
}

#[test]
fn a_tag_opens_no_way_to_a_neighbour() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    lab.host.netd(
        "network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 \
         --opt com.docker.network.bridge.enable_icc=false n",
    );
    let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
    for family in Family::BOTH {
        let server = udp(&b.ns, family, 5300);
        let mut head = priority_tagged(&a.ns, &b.ns.mac("eth0"), family);
        let datagram = Datagram::udp(at(a.address(family), 5000), at(b.address(family), 5300), b"tagged");
        let link = RawLink::new(&a.ns, "eth0");
        link.send(&[&*head, &datagram.bytes()].concat());
        head[15] = 100;
        let mut capture = Capture::new(&b.ns, "eth0");
        link.send(&[&*head, &datagram.bytes()].concat());
        udp(&lab.host.ns, family, 5001).send_to(b"honest", at(b.address(family), 5300)).expect("sending");
        let (_, first) = server.recv_from(&mut [0; 64]).expect("the host's");
        assert_eq!(first, at(b.gateway(family), 5001));
        assert!(capture.drain().iter().all(|packet| packet.source != a.address(family)));
    }
}

#[test]
fn a_tag_that_says_nothing_opens_no_way_out() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let create = |name, number, options| {
        lab.host.netd(&format!(
            "network create {options} --ipv6 --subnet 172.{number}.0.0/24 --subnet fd00:{number}::/64 \
             --opt com.docker.network.bridge.name=br-{name} {name}"
        ));
        lab.container_on(name, name)
    };
    let networks = [("open", create("open", 30, "")), ("inside", create("inside", 31, "--internal"))];
    let mut capture = Capture::new(&lab.outside, "eth0");
    for family in Family::BOTH {
        // The one that may not goes first: its datagram would have come before the other one's.
        for (name, from) in networks.iter().rev() {
            let bridge = lab.host.ns.mac(&format!("br-{name}"));
            let head = priority_tagged(&from.ns, &bridge, family);
            let (source, remote) = (at(from.address(family), 5000), at(family.outside(), 5300));
            let datagram = Datagram::udp(source, remote, name.as_bytes());
            RawLink::new(&from.ns, "eth0").send(&[&*head, &datagram.bytes()].concat());
        }
        let first =
            capture.expect("a datagram", |p| p.destination == family.outside() && p.ports().is_some());
        assert!(first.payload.ends_with(b"open"), "{first:?}");
    }
}
