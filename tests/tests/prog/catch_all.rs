//! What leaves by an uplink: nothing with a container's address, and nothing of the host's is disturbed.

use std::net::{TcpListener, UdpSocket};

use netd::datapath::bridge::ICC;

use crate::{
    fixture::{A, Fixture, NEXT, REDIRECTED, ROUTER, UPLINK},
    packet::{ACK, L4, RST, Read, SYN, address, back, external, leaving, out, read, remote},
};

/// Runs a packet that the stack lets out and holds that it leaves translated; what leaves.
fn translated(fixture: &Fixture, packet: &[u8]) -> Read {
    let before = fixture.took("stack_masqueraded");
    let ran = fixture.leave(packet);
    assert_eq!(ran.verdict, NEXT, "{:?}", fixture.datapath.counters());
    assert_eq!(fixture.took("stack_masqueraded"), before + 1, "{packet:02x?}");
    let left = read(&ran.packet);
    assert_eq!(left.macs, [UPLINK, ROUTER]);
    left
}

#[test]
fn what_the_fast_path_translated_passes() {
    let fixture = Fixture::new();
    // Whatever it is: the mark says that it has been seen.
    let packet = leaving(A.address(false), remote(false), L4::Other(47));
    let ran = fixture.run_with("to_uplink", "up0", &packet, |context| context.mark = 0x6e65_7464);
    assert_eq!((ran.verdict, ran.mark, ran.packet), (NEXT, 0, packet.clone()));
    let ran = fixture.send(A, &out(A, false, L4::Udp(5000, 53)));
    assert_eq!(ran.mark, 0x6e65_7464);
    // Any other mark is the host's, and says nothing.
    let packet = leaving(external(false), remote(false), L4::Udp(50000, 53));
    let ran = fixture.run_with("to_uplink", "up0", &packet, |context| context.mark = 0x42);
    assert_eq!((ran.verdict, ran.mark, ran.packet), (NEXT, 0x42, packet.clone()));
}

#[test]
fn both_paths_share_a_flow() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for (fast_first, sent) in [
            (true, L4::Udp(40000, 53)),
            (false, L4::Udp(40001, 53)),
            (true, L4::Tcp(40000, 80, SYN)),
            (false, L4::Tcp(40001, 80, SYN)),
            (true, L4::Echo(true, 7)),
            (false, L4::Echo(true, 8)),
        ] {
            let by_stack = leaving(A.address(v6), remote(v6), sent);
            let fast = |fixture: &Fixture| fixture.assert_leaves(A, &out(A, v6, sent)).ports;
            let first = if fast_first { fast(&fixture) } else { translated(&fixture, &by_stack).ports };
            let left = translated(&fixture, &by_stack);
            assert_eq!((left.source, left.destination, left.ttl), (external(v6), remote(v6), 63));
            assert_eq!((left.ports, fast(&fixture)), (first, first));
            assert_eq!(left.payload, read(&by_stack).payload);
        }
    }
    assert_eq!((fixture.took("flow_created"), fixture.flows()), (12, 12));
    assert_eq!(fixture.held(A), [6, 6], "the stack's are charged to the container too");
}

#[test]
fn what_cannot_be_translated_is_dropped() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for (l4, reason) in [
            (L4::Other(47), "protocol"),
            (L4::Other(50), "protocol"),
            (L4::Echo(false, 7), "icmp_unrelated"),
            (L4::Tcp(5000, 80, RST), "tcp_unrelated"),
        ] {
            fixture.assert_drops("to_uplink", "up0", &leaving(A.address(v6), remote(v6), l4), reason);
        }
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn without_masquerade_all_passes() {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, ICC);
    for v6 in [false, true] {
        for l4 in [L4::Other(47), L4::Echo(false, 7), L4::Udp(5000, 53), L4::Tcp(40000, 80, SYN)] {
            let packet = leaving(A.address(v6), remote(v6), l4);
            let ran = fixture.leave(&packet);
            assert_eq!((ran.verdict, ran.packet), (NEXT, packet));
        }
        let reply = crate::packet::arriving(remote(v6), A.address(v6), L4::Udp(53, 5000));
        // It goes by the stack as well: netfilter may have something to undo.
        let ran = fixture.arrive(&reply);
        assert_eq!((ran.verdict, ran.packet), (REDIRECTED, reply));
        assert_eq!(fixture.traffic(A).delivered.packets, 0);
    }
}

#[test]
fn the_bridges_own_address_is_translated_for_the_host() {
    let fixture = Fixture::new();
    for (v6, gateway) in [(false, "172.17.0.1"), (true, "fd00:17::1")] {
        let packet = leaving(address(gateway), remote(v6), L4::Udp(5000, 53));
        let left = translated(&fixture, &packet);
        assert_eq!((left.source, left.ports), (external(v6), [5000, 53]));
        // The answer is the host's: restored, and passed on with its TTL untouched.
        let ran = fixture.arrive(&back(v6, L4::Udp(53, 5000)));
        assert_eq!(ran.verdict, NEXT);
        let got = read(&ran.packet);
        assert_eq!((got.destination, got.ports, got.ttl), (address(gateway), [53, 5000], 57));
        assert_eq!(got.macs, [ROUTER, UPLINK]);
    }
    assert!(fixture.datapath.flows().unwrap().iter().all(|flow| flow.endpoint.is_none()));
}

#[test]
fn the_hosts_own_traffic_is_left_alone() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for l4 in [
            L4::Udp(50000, 53),
            L4::Tcp(50000, 80, SYN),
            // Bound by hand, and answers of a server: no container is in the way.
            L4::Udp(5000, 53),
            L4::Tcp(5000, 80, SYN),
            L4::Tcp(443, 5000, SYN | ACK),
            L4::Echo(false, 7),
            L4::Sctp(5000, 36412),
            L4::Other(47),
        ] {
            fixture.assert_passes("to_uplink", "up0", &leaving(external(v6), remote(v6), l4));
        }
        let group = address(if v6 { "ff02::fb" } else { "224.0.0.251" });
        fixture.assert_passes("to_uplink", "up0", &leaving(external(v6), group, L4::Udp(5353, 5353)));
    }
    assert_eq!(fixture.keys(), [0, 0]);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn host_and_container_ping_with_the_same_identifier() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Echo(true, 7)));
        let left = translated(&fixture, &leaving(external(v6), remote(v6), L4::Echo(true, 7)));
        assert_ne!(left.ports, [7, 7]);
        assert_eq!(left.source, external(v6));
        // Each gets its own answer.
        let got = fixture.assert_returns(A, &back(v6, L4::Echo(false, 7)));
        assert_eq!((got.destination, got.ports), (A.address(v6), [7, 7]));
        let ran = fixture.arrive(&back(v6, L4::Echo(false, left.ports[0])));
        assert_eq!(ran.verdict, NEXT);
        let got = read(&ran.packet);
        assert_eq!((got.destination, got.ports, got.ttl), (external(v6), [7, 7], 57));
        // The other way round: the host was first, and a container finds its identifier taken.
        translated(&fixture, &leaving(external(v6), remote(v6), L4::Echo(true, 9)));
        assert_ne!(fixture.assert_leaves(A, &out(A, v6, L4::Echo(true, 9))).ports, [9, 9]);
    }
}

#[test]
fn a_host_socket_meets_a_containers_flow() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        // The containers come first, then the host binds the same port.
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(5000, 80, SYN)));
    }
    let _udp = UdpSocket::bind("[::]:5000").unwrap();
    let _tcp = TcpListener::bind("[::]:5000").unwrap();
    for v6 in [false, true] {
        for (first, next) in
            [(L4::Udp(5000, 53), L4::Udp(5000, 53)), (L4::Tcp(5000, 80, SYN), L4::Tcp(5000, 80, ACK))]
        {
            let left = translated(&fixture, &leaving(external(v6), remote(v6), first));
            assert_eq!(left.source, external(v6));
            let (own, remote_port) = (left.ports[0], left.ports[1]);
            assert_ne!(own, 5000);
            // Its later packets keep the port.
            assert_eq!(translated(&fixture, &leaving(external(v6), remote(v6), next)).ports, left.ports);

            let reply = |port| match first {
                L4::Udp(..) => L4::Udp(remote_port, port),
                _ => L4::Tcp(remote_port, port, SYN | ACK),
            };
            let ran = fixture.arrive(&back(v6, reply(own)));
            assert_eq!(ran.verdict, NEXT);
            let got = read(&ran.packet);
            assert_eq!((got.destination, got.ports), (external(v6), [remote_port, 5000]));
            fixture.assert_returns(A, &back(v6, reply(5000)));
        }
    }
}
