//! Who may speak to a container at its own address: literal packets for each verdict and each reason.

use std::net::IpAddr;

use netd::{
    datapath::{
        Trusted,
        bridge::{ICC, INTERNAL, MASQUERADE, ROUTED4, ROUTED6, UNPROTECTED4, UNPROTECTED6},
        endpoint::VIA_BRIDGE,
    },
    model::{HostPorts, Local, Protocol, Reserver},
};

use crate::{
    fixture::{A, B, C, Container, Fixture, GATEWAY, NEXT, REDIRECTED, ROUTER, UPLINK, index},
    packet::{
        ACK, L4, SYN, address, arriving, external, fragments, frame, icmp_error, l4, leaving, out, read,
        reassemble, remote, to,
    },
};

const ROUTED: u32 = MASQUERADE | ICC | ROUTED4 | ROUTED6;
const OPEN: u32 = MASQUERADE | ICC | UNPROTECTED4 | UNPROTECTED6;

/// A's network is of this kind, and A has published its port 80 at its own address.
fn fixture(flags: u32) -> Fixture {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, flags);
    for v6 in [false, true] {
        publish(&fixture, A, v6, 80);
    }
    fixture
}

fn own(container: Container, v6: bool, port: u16) -> [HostPorts; 2] {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| HostPorts {
        protocol,
        address: container.address(v6),
        first: port,
        last: port,
    })
}

fn publish(fixture: &Fixture, container: Container, v6: bool, port: u16) {
    for host in own(container, v6, port) {
        fixture.datapath.put_publication(&host, container.slot, port, Reserver::Netd).unwrap();
    }
}

/// From the outside straight to A.
fn straight(v6: bool, l4: L4) -> Vec<u8> {
    arriving(remote(v6), A.address(v6), l4)
}

/// Let in, not translated, and so is the answer.
fn assert_both_ways(fixture: &Fixture, v6: bool, asked: L4, answer: L4) {
    let request = straight(v6, asked);
    let (before, came) = (read(&request), fixture.assert_returns(A, &request));
    assert_eq!((came.source, came.destination, came.ports), (remote(v6), A.address(v6), before.ports));
    assert_eq!((came.ttl, came.payload), (56, before.payload));
    let reply = out(A, v6, answer);
    let (before, left) = (read(&reply), fixture.assert_leaves(A, &reply));
    assert_eq!((left.source, left.destination, left.ports), (A.address(v6), remote(v6), before.ports));
    assert_eq!((left.ttl, left.payload), (63, before.payload));
    // And again, over the same flow.
    fixture.assert_returns(A, &request);
}

#[test]
fn a_routed_network_lets_in_pings_and_what_is_published() {
    let fixture = fixture(ROUTED);
    for v6 in [false, true] {
        assert_both_ways(&fixture, v6, L4::Tcp(5001, 80, SYN), L4::Tcp(80, 5001, SYN | ACK));
        assert_both_ways(&fixture, v6, L4::Udp(5002, 80), L4::Udp(80, 5002));
        assert_both_ways(&fixture, v6, L4::Echo(true, 7), L4::Echo(false, 7));
        for (l4, reason) in [
            (L4::Tcp(5001, 81, SYN), "unpublished"),
            (L4::Tcp(5001, 81, ACK), "unpublished"),
            (L4::Udp(5002, 81), "unpublished"),
            (L4::Sctp(5003, 80), "unpublished"),
            (L4::Other(47), "unpublished"),
            (L4::Tcp(5009, 80, ACK), "tcp_unrelated"),
        ] {
            fixture.assert_drops("from_uplink", "up0", &straight(v6, l4), reason);
        }
        // An error about no flow is the container's to judge: it goes by the stack.
        let about = &out(A, v6, L4::Udp(1, 2))[l4(v6) - if v6 { 40 } else { 20 }..];
        let kind = if v6 { [1, 4] } else { [3, 3] };
        let error = icmp_error([ROUTER, UPLINK], remote(v6), A.address(v6), kind, 0, about);
        assert_eq!(fixture.arrive(&error).verdict, NEXT);
        // What the container begins itself is not masqueraded.
        assert_eq!(fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53))).source, A.address(v6));
    }
    assert_eq!((fixture.took("flow_accepted"), fixture.took("flow_created")), (6, 2));
    assert!(fixture.datapath.flows().unwrap().iter().all(|flow| flow.local == flow.external));
}

#[test]
fn an_unprotected_network_lets_in_everything_and_masquerades_the_rest() {
    let fixture = fixture(OPEN);
    for v6 in [false, true] {
        assert_both_ways(&fixture, v6, L4::Tcp(5001, 81, SYN), L4::Tcp(81, 5001, SYN | ACK));
        assert_both_ways(&fixture, v6, L4::Udp(5002, 80), L4::Udp(80, 5002));
        assert_both_ways(&fixture, v6, L4::Sctp(5003, 36412), L4::Sctp(36412, 5003));
        assert_both_ways(&fixture, v6, L4::Echo(true, 7), L4::Echo(false, 7));
        assert_both_ways(&fixture, v6, L4::Other(47), L4::Other(47));
        assert_eq!(fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53))).source, external(v6));
        fixture.assert_drops("from_container", A.veth, &out(A, v6, L4::Other(50)), "protocol");
        fixture.assert_drops("from_container", A.veth, &out(A, v6, L4::Echo(false, 8)), "icmp_unrelated");
    }
    // Unpublishing ends no flow that needed no published port.
    let live = fixture.flows();
    for v6 in [false, true] {
        for host in own(A, v6, 80) {
            fixture.datapath.remove_publication(&host).unwrap();
        }
    }
    assert_eq!(fixture.flows(), live);
}

/// Nobody on the uplink's link speaks under an address of the host's, or of what is behind it.
#[test]
fn the_outside_speaks_for_nobody_inside() {
    for flags in [ROUTED, OPEN] {
        let fixture = fixture(flags);
        for v6 in [false, true] {
            let length = if v6 { 128 } else { 32 };
            let whole = |address: IpAddr| format!("{address}/{length}").parse().unwrap();
            let known = address(if v6 { "2001:db8::9" } else { "203.0.113.9" });
            fixture.datapath.put_local(whole(external(v6)), Local::Own).unwrap();
            fixture.datapath.put_external(whole(known), whole(B.address(v6))).unwrap();
            let gateway = address(if v6 { "fd00:17::1" } else { "172.17.0.1" });
            for source in [C.address(v6), gateway, external(v6), known] {
                for destination in [A.address(v6), known] {
                    for l4 in [L4::Udp(5002, 80), L4::Tcp(5001, 80, SYN), L4::Echo(true, 7)] {
                        let packet = arriving(source, destination, l4);
                        fixture.assert_drops("from_uplink", "up0", &packet, "spoofed_address");
                    }
                }
            }
            let from_outside = arriving(remote(v6), known, L4::Udp(5002, 80));
            assert_eq!(fixture.arrive(&from_outside).verdict, REDIRECTED);
        }
        // An address that means nothing elsewhere cannot be answered; but a router may report an error under it.
        let [link_local, known] = ["fe80::77", "2001:db8::9"].map(address);
        let datagram = arriving(link_local, known, L4::Udp(5002, 80));
        fixture.assert_drops("from_uplink", "up0", &datagram, "spoofed_address");
        let about = leaving(known, remote(true), L4::Udp(1, 2));
        let error = icmp_error([ROUTER, UPLINK], link_local, known, [2, 0], 1280, &about[14..]);
        assert_eq!(fixture.arrive(&error).verdict, REDIRECTED);
    }
}

#[test]
fn a_masqueraded_network_lets_in_nothing_but_from_whom_it_trusts() {
    let fixture = fixture(MASQUERADE | ICC);
    let asked =
        [L4::Tcp(5001, 80, SYN), L4::Udp(5002, 80), L4::Udp(5002, 81), L4::Echo(true, 7), L4::Other(47)];
    for v6 in [false, true] {
        for l4 in asked {
            fixture.assert_drops("from_uplink", "up0", &straight(v6, l4), "direct_access");
        }
    }
    let pair = Trusted { uplink: index("up0"), network: 0 };
    fixture.datapath.put_trusted(pair).unwrap();
    for v6 in [false, true] {
        assert_both_ways(&fixture, v6, L4::Tcp(5001, 80, SYN), L4::Tcp(80, 5001, SYN | ACK));
        assert_both_ways(&fixture, v6, L4::Udp(5002, 80), L4::Udp(80, 5002));
        for l4 in &asked[2..] {
            fixture.assert_drops("from_uplink", "up0", &straight(v6, *l4), "direct_access");
        }
    }
    fixture.datapath.remove_trusted(pair).unwrap();
    fixture.assert_drops("from_uplink", "up0", &straight(false, L4::Udp(5003, 80)), "direct_access");
}

#[test]
fn an_internal_network_lets_in_nothing_and_out_nothing() {
    let fixture = fixture(INTERNAL | ICC | ROUTED4 | ROUTED6 | UNPROTECTED4 | UNPROTECTED6);
    for v6 in [false, true] {
        for l4 in [L4::Tcp(5001, 80, SYN), L4::Echo(true, 7), L4::Other(47)] {
            fixture.assert_drops("from_uplink", "up0", &straight(v6, l4), "internal");
        }
        let host = |destination, ttl| {
            frame([A.mac, GATEWAY], A.address(v6), destination, ttl, L4::Udp(5000, 53), b"")
        };
        for destination in [C.address(v6), external(v6), remote(v6)] {
            for ttl in [1, 64] {
                fixture.assert_drops("from_container", A.veth, &host(destination, ttl), "internal");
            }
        }
        // Its own gateway is not outside.
        let gateway = if v6 { "fd00:17::1" } else { "172.17.0.1" };
        fixture.assert_passes("from_container", A.veth, &host(gateway.parse().unwrap(), 1));
    }
}

#[test]
fn from_network_to_network() {
    let fixture = fixture(ROUTED);
    for v6 in [false, true] {
        let at = A.address(v6).to_string();
        for (asked, answer) in [
            (L4::Tcp(5001, 80, SYN), L4::Tcp(80, 5001, SYN | ACK)),
            (L4::Udp(5002, 80), L4::Udp(80, 5002)),
            (L4::Echo(true, 7), L4::Echo(false, 7)),
        ] {
            let request = to(C, &at, asked);
            for _ in 0..2 {
                let ran = fixture.send(C, &request);
                assert_eq!(ran.verdict, REDIRECTED, "{asked:?}: {:?}", fixture.datapath.counters());
                let (came, sent) = (read(&ran.packet), read(&request));
                assert_eq!((came.source, came.destination), (C.address(v6), A.address(v6)), "not translated");
                assert_eq!((came.macs, came.ports, came.ttl), ([GATEWAY, A.mac], sent.ports, 63));
                let ran = fixture.send(A, &to(A, &C.address(v6).to_string(), answer));
                assert_eq!(ran.verdict, REDIRECTED, "{answer:?}: {:?}", fixture.datapath.counters());
                let back = read(&ran.packet);
                assert_eq!((back.source, back.destination), (A.address(v6), C.address(v6)));
                assert_eq!((back.macs, back.ttl), ([GATEWAY, C.mac], 63));
                // Routes that change are nothing to those who go by none.
                fixture.datapath.bump_fib_generation().unwrap();
            }
        }
        fixture.assert_drops("from_container", C.veth, &to(C, &at, L4::Udp(5002, 81)), "unpublished");
        fixture.assert_drops("from_container", C.veth, &to(C, &at, L4::Other(47)), "unpublished");
        // The other way round nobody is let in who was not asked.
        let at = C.address(v6).to_string();
        for l4 in [L4::Udp(80, 5003), L4::Echo(true, 9), L4::Echo(false, 9), L4::Tcp(5001, 80, SYN)] {
            fixture.assert_drops("from_container", A.veth, &to(A, &at, l4), "isolated");
        }
    }
    assert_eq!((fixture.took("flow_accepted"), fixture.took("flow_created")), (6, 0));
    assert!(fixture.traffic(A).delivered.packets > 0 && fixture.traffic(C).delivered.packets > 0);
    // Where the other side is unprotected, it is from the outside alone; and an internal network keeps its own in.
    fixture.network(1, "br1", 18, OPEN);
    fixture.assert_drops("from_container", B.veth, &to(B, "172.18.0.2", L4::Udp(5002, 80)), "isolated");
    fixture.network(1, "br1", 18, ICC | INTERNAL);
    fixture.assert_drops("from_container", C.veth, &to(C, "172.17.0.2", L4::Udp(6000, 80)), "internal");
    fixture.assert_drops("from_container", A.veth, &to(A, "172.18.0.2", L4::Udp(6000, 80)), "internal");
}

#[test]
fn between_networks_by_the_stack() {
    let fixture = fixture(ROUTED);
    fixture.endpoint(A, 0, VIA_BRIDGE, 0);
    fixture.endpoint(C, 1, VIA_BRIDGE, 0);
    for v6 in [false, true] {
        let (here, there) = (A.address(v6).to_string(), C.address(v6).to_string());
        for _ in 0..2 {
            fixture.assert_stack(C, &to(C, &here, L4::Udp(5002, 80)), "stack_bridge");
            fixture.assert_stack(A, &to(A, &there, L4::Udp(80, 5002)), "stack_bridge");
        }
        fixture.assert_drops("from_container", A.veth, &to(A, &there, L4::Udp(80, 5003)), "isolated");
        fixture.assert_drops("from_container", C.veth, &to(C, &here, L4::Udp(5002, 81)), "unpublished");
    }
}

#[test]
fn fragments_follow_the_first_of_their_datagram() {
    let fixture = fixture(ROUTED);
    for v6 in [false, true] {
        let whole = frame([ROUTER, UPLINK], remote(v6), A.address(v6), 57, L4::Udp(5000, 80), &[7; 100]);
        let parts = fragments(&whole, 9, 64);
        let came: Vec<_> = parts.iter().map(|part| fixture.arrive(part)).collect();
        assert!(came.iter().all(|ran| ran.verdict == REDIRECTED), "{:?}", fixture.datapath.counters());
        assert_eq!(read(&reassemble([&came[0].packet, &came[1].packet])).payload.len(), 100);

        let whole = frame([C.mac, GATEWAY], C.address(v6), A.address(v6), 64, L4::Udp(5000, 80), &[7; 100]);
        let parts = fragments(&whole, 10, 64);
        let came: Vec<_> = parts.iter().map(|part| fixture.send(C, part)).collect();
        assert!(came.iter().all(|ran| ran.verdict == REDIRECTED), "{:?}", fixture.datapath.counters());
        assert_eq!(read(&reassemble([&came[0].packet, &came[1].packet])).payload.len(), 100);

        let whole = frame([ROUTER, UPLINK], remote(v6), A.address(v6), 57, L4::Udp(5000, 81), &[7; 100]);
        fixture.assert_drops("from_uplink", "up0", &fragments(&whole, 11, 64)[0], "unpublished");
    }
}
