//! Which external port a flow gets.

use std::net::{TcpListener, UdpSocket};

use netd_common::nat::PortRange;

use crate::{
    fixture::{A, B, C, Fixture, REDIRECTED, Ran},
    packet::{ACK, FIN, L4, RST, SYN, arriving, back, external, out, remote, to},
};

/// The external port of a container's packet.
fn port(fixture: &Fixture, container: crate::fixture::Container, v6: bool, l4: L4) -> u16 {
    fixture.assert_leaves(container, &out(container, v6, l4)).ports[0]
}

/// Leaves two ports to masquerade, 1024 and 1025.
fn leave_two(fixture: &Fixture) {
    fixture.change_globals(|globals| {
        globals.ports.below = PortRange { first: 1024, last: 1025 };
        globals.ports.above = PortRange { first: 1, last: 0 };
    });
}

#[test]
fn a_free_port_is_kept_and_its_class_always() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for own in [1, 22, 1023, 1024, 5000, 32767, 61000, 65535] {
            assert_eq!(port(&fixture, A, v6, L4::Udp(own, 53)), own);
            assert_eq!(port(&fixture, A, v6, L4::Tcp(own, 80, SYN)), own);
        }
        for own in [1, 1023] {
            let other = port(&fixture, B, v6, L4::Udp(own, 53));
            assert!((1..1024).contains(&other) && other != own, "{own} became {other}");
        }
        for own in [1024, 5000, 65535] {
            let other = port(&fixture, B, v6, L4::Tcp(own, 80, SYN));
            assert!(other >= 1024 && other != own, "{own} became {other}");
        }
        // An echo identifier is no port: all of them are free to take.
        assert_eq!(port(&fixture, A, v6, L4::Echo(true, 40000)), 40000);
        assert_ne!(port(&fixture, B, v6, L4::Echo(true, 40000)), 40000);
    }
}

#[test]
fn the_hosts_own_range_is_left_to_the_host() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for own in [32768, 40000, 60999] {
            for l4 in [L4::Udp(own, 53), L4::Tcp(own, 80, SYN)] {
                let other = port(&fixture, A, v6, l4);
                assert!((1024..32768).contains(&other) || other > 60999, "{own} became {other}");
            }
        }
    }
}

#[test]
fn each_sender_gets_its_own_replies() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for sent in [L4::Udp(5000, 53), L4::Tcp(5000, 80, SYN), L4::Echo(true, 7)] {
            let ports = [A, B, C].map(|container| port(&fixture, container, v6, sent));
            assert!(ports[0] != ports[1] && ports[0] != ports[2] && ports[1] != ports[2], "{ports:?}");
            for (container, port) in [A, B, C].into_iter().zip(ports) {
                let (reply, own) = match sent.reply() {
                    L4::Udp(from, own) => (L4::Udp(from, port), own),
                    L4::Tcp(from, own, flags) => (L4::Tcp(from, port, flags), own),
                    L4::Echo(request, own) => (L4::Echo(request, port), own),
                    _ => unreachable!("none of the above"),
                };
                let got = fixture.assert_returns(container, &back(v6, reply));
                assert_eq!((got.destination, got.ports[1]), (container.address(v6), own));
                // The next packet keeps the port.
                assert_eq!(self::port(&fixture, container, v6, sent), port);
            }
        }
    }
    let draws = fixture.datapath.counters().unwrap().draws;
    assert_eq!((draws[1], draws.iter().sum::<u64>()), (6, 18));
}

#[test]
fn a_port_serves_many_remotes() {
    let fixture = Fixture::new();
    for (container, destination) in [
        (A, "198.51.100.7"),
        (B, "198.51.100.8"),
        (C, "198.51.100.9"),
        (A, "2001:db8:1::7"),
        (B, "2001:db8:1::8"),
    ] {
        let packet = to(container, destination, L4::Udp(5000, 53));
        assert_eq!(fixture.assert_leaves(container, &packet).ports, [5000, 53]);
        let back =
            arriving(destination.parse().unwrap(), external(destination.contains(':')), L4::Udp(53, 5000));
        fixture.assert_returns(container, &back);
    }
    // Another port of the same remote is another remote.
    assert_eq!(fixture.assert_leaves(B, &to(B, "198.51.100.7", L4::Udp(5000, 54))).ports, [5000, 54]);
}

#[test]
fn a_port_on_which_the_host_listens_is_not_taken() {
    let fixture = Fixture::new();
    // Both families, and the uplink's address alone.
    let _udp = UdpSocket::bind("[::]:5000").unwrap();
    let _tcp = TcpListener::bind("[::]:5000").unwrap();
    let _one = UdpSocket::bind("203.0.113.1:5001").unwrap();
    for v6 in [false, true] {
        assert_ne!(port(&fixture, A, v6, L4::Udp(5000, 53)), 5000);
        assert_ne!(port(&fixture, A, v6, L4::Tcp(5000, 80, SYN)), 5000);
        assert_eq!(port(&fixture, A, v6, L4::Udp(5001, 53)) == 5001, v6);
        assert_eq!(port(&fixture, A, v6, L4::Tcp(5001, 80, SYN)), 5001);
    }
    // Nor is it drawn.
    let _last = UdpSocket::bind("[::]:1025").unwrap();
    leave_two(&fixture);
    assert_eq!(port(&fixture, A, false, L4::Udp(7000, 53)), 1024);
    assert_eq!(fixture.send(A, &out(A, false, L4::Udp(7001, 53))).verdict, REDIRECTED);
    assert_eq!(fixture.drops("ports_exhausted"), 1);
}

#[test]
fn sctp_keeps_its_port_or_does_not_leave() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        // Even the host's: the checksum covers the port.
        for own in [5000, 40000] {
            assert_eq!(port(&fixture, A, v6, L4::Sctp(own, 36412)), own);
            let packet = out(B, v6, L4::Sctp(own, 36412));
            fixture.assert_drops("from_container", B.veth, &packet, "sctp_port");
        }
        let got = fixture.assert_returns(A, &back(v6, L4::Sctp(36412, 5000)));
        assert_eq!((got.destination, got.ports), (A.address(v6), [36412, 5000]));
    }
    assert_eq!((fixture.held(A), fixture.held(B)), ([2, 2], [0, 0]));
}

/// Takes both ports that `leave_two` left.
fn take_both(fixture: &Fixture, v6: bool, l4: impl Fn(u16) -> L4) -> [u16; 2] {
    let mut ports = [7000, 7001].map(|own| port(fixture, A, v6, l4(own)));
    let in_order = ports;
    ports.sort_unstable();
    assert_eq!(ports, [1024, 1025]);
    in_order
}

/// That the answer tells the sender that its flow was refused; RFC 5508 REQ-8.
fn assert_refusal(ran: &Ran, v6: bool, packet: &[u8]) {
    assert_eq!(ran.verdict, REDIRECTED);
    let answer = crate::packet::read_error(&ran.packet);
    assert_eq!(answer.macs, [crate::fixture::GATEWAY, B.mac]);
    let gateway = crate::packet::address(if v6 { "fd00:17::1" } else { "172.17.0.1" });
    assert_eq!((answer.source, answer.destination), (gateway, B.address(v6)));
    assert_eq!((answer.kind, answer.word), (if v6 { [1, 1] } else { [3, 13] }, 0));
    assert_eq!(answer.about, packet[14..14 + answer.about.len()], "what is quoted");
    assert!(answer.about.len() >= crate::packet::l4(v6) - 14 + 8);
}

#[test]
fn when_no_port_is_left_the_sender_is_told_and_flows_live_on() {
    let fixture = Fixture::new();
    leave_two(&fixture);
    let mut events = fixture.datapath.events().unwrap();
    for v6 in [false, true] {
        for (number, of) in
            [(17, (|own| L4::Udp(own, 53)) as fn(u16) -> L4), (6, |own| L4::Tcp(own, 80, SYN))]
        {
            let ports = take_both(&fixture, v6, of);
            let refused = out(B, v6, of(7000));
            let (drops, flows, keys) = (fixture.drops("ports_exhausted"), fixture.flows(), fixture.keys());
            let ran = fixture.send(B, &refused);
            assert_refusal(&ran, v6, &refused);
            assert_eq!(fixture.drops("ports_exhausted"), drops + 1);
            assert_eq!((fixture.flows(), fixture.keys()), (flows, keys));
            assert_eq!(fixture.held(B), [0, 0], "the record was given back");

            let event = *bytemuck::from_bytes::<netd::datapath::Refused>(&events.next().expect("an event"));
            assert_eq!((event.endpoint, event.protocol), (B.slot, number));
            assert_eq!(event.reason, netd_common::drop::DropReason::PortsExhausted as u32);
            assert_eq!(event.family, if v6 { 10 } else { 2 });
            let words: Vec<u8> = event.remote.iter().flat_map(|word| word.to_ne_bytes()).collect();
            match remote(v6) {
                std::net::IpAddr::V4(remote) => assert_eq!(words[..4], remote.octets()),
                std::net::IpAddr::V6(remote) => assert_eq!(words, remote.octets()),
            }
            assert!(events.next().is_none());

            // Another remote has all ports free, and the flows that were there still are.
            let elsewhere = to(B, if v6 { "2001:db8:1::8" } else { "198.51.100.8" }, of(7000));
            fixture.assert_leaves(B, &elsewhere);
            for (own, port) in [7000, 7001].into_iter().zip(ports) {
                assert_eq!(self::port(&fixture, A, v6, of(own)), port);
            }
            fixture.datapath.remove_endpoint(B.slot).unwrap();
            fixture.datapath.put_endpoint(B.slot, &crate::fixture::entry(B, 0)).unwrap();
        }
    }
    let draws = fixture.datapath.counters().unwrap().draws;
    assert_eq!((draws.len(), *draws.last().unwrap()), (34, 4));
}

#[test]
fn a_flow_that_is_over_gives_up_its_port_when_none_is_free() {
    let fixture = Fixture::new();
    leave_two(&fixture);
    for v6 in [false, true] {
        for end in [RST, FIN] {
            let [first, _] = take_both(&fixture, v6, |own| L4::Tcp(own, 80, SYN));
            // Its sender and the remote close the first, or the remote resets it.
            fixture.assert_returns(A, &back(v6, L4::Tcp(80, first, SYN | ACK)));
            fixture.assert_returns(A, &back(v6, L4::Tcp(80, first, end | ACK)));
            if end == FIN {
                fixture.assert_leaves(A, &out(A, v6, L4::Tcp(7000, 80, FIN | ACK)));
            }
            assert_eq!(port(&fixture, B, v6, L4::Tcp(9000, 80, SYN)), first);
            let got = fixture.assert_returns(B, &back(v6, L4::Tcp(80, first, SYN | ACK)));
            assert_eq!((got.destination, got.ports), (B.address(v6), [80, 9000]));
            // The old flow has no port any more, and there is none for it.
            let drops = fixture.drops("ports_exhausted");
            assert_eq!(fixture.send(A, &out(A, v6, L4::Tcp(7000, 80, SYN))).verdict, REDIRECTED);
            assert_eq!(fixture.drops("ports_exhausted"), drops + 1);
            let family = usize::from(v6);
            assert_eq!((fixture.held(A)[family], fixture.held(B)[family], fixture.keys()[family]), (1, 1, 4));
            fixture.age(8000);
            assert_eq!(fixture.datapath.sweep().unwrap(), 2);
        }
    }
}

#[test]
fn of_flows_that_are_over_the_first_to_end_gives_way() {
    const ROUNDS: u64 = 24;
    let fixture = Fixture::new();
    leave_two(&fixture);
    let mut in_order = 0;
    for _ in 0..ROUNDS {
        let ports = take_both(&fixture, false, |own| L4::Tcp(own, 80, SYN));
        for port in ports {
            fixture.assert_returns(A, &back(false, L4::Tcp(80, port, RST)));
            fixture.age(10);
        }
        let looked_at_eight = || fixture.datapath.counters().unwrap().draws[8];
        let before = looked_at_eight();
        in_order += u64::from(port(&fixture, B, false, L4::Tcp(9000, 80, SYN)) == ports[0]);
        assert_eq!(looked_at_eight(), before + 1, "and at no more");
        fixture.age(8000);
        assert_eq!(fixture.datapath.sweep().unwrap(), 2);
    }
    // Eight draws of two ports meet but one of them once in 128 times.
    assert!(in_order >= ROUNDS - 8, "{in_order} of {ROUNDS}");
}

#[test]
fn a_flow_that_both_ends_closed_keeps_its_port_while_others_are_free() {
    // The remote may yet hold the old connection in TIME-WAIT.
    let fixture = Fixture::new();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, v6, L4::Tcp(5000, 80, SYN)), 5000);
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, 5000, SYN | ACK)));
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, 5000, FIN | ACK)));
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(5000, 80, FIN | ACK)));
        assert_ne!(port(&fixture, B, v6, L4::Tcp(5000, 80, SYN)), 5000);
        // The last acknowledgement, and a new connection of the same sender, still take it.
        for flags in [ACK, SYN] {
            assert_eq!(port(&fixture, A, v6, L4::Tcp(5000, 80, flags)), 5000);
        }
    }
    assert_eq!(fixture.took("flow_ended"), 0);
}
