//! What comes from outside to published ports, and what is no business of theirs.

use std::net::IpAddr;

use netd::model::{HostPorts, Local, Protocol, Reserver};

use crate::{
    fixture::{A, B, Container, Fixture, GATEWAY, REDIRECTED, ROUTER, UPLINK, ip},
    packet::{ACK, L4, REMOTE, SYN, address, arriving, back, external, frame, out, read, remote},
};

fn publish(fixture: &Fixture, at: &str, protocol: Protocol, ports: [u16; 2], to: Container, container: u16) {
    let host = HostPorts { protocol, address: address(at), first: ports[0], last: ports[1] };
    fixture.datapath.put_publication(&host, to.slot, container, Reserver::Netd).unwrap();
}

fn publish_everywhere(fixture: &Fixture, ports: [u16; 2], to: Container, container: u16) {
    for at in ["0.0.0.0", "::"] {
        for protocol in Protocol::ALL {
            publish(fixture, at, protocol, ports, to, container);
        }
    }
}

#[test]
fn who_comes_is_led_to_the_container_and_the_answer_goes_back() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    for v6 in [false, true] {
        for (sent, led) in [
            (L4::Tcp(5001, 8080, SYN), [5001, 80]),
            (L4::Udp(5002, 8080), [5002, 80]),
            (L4::Sctp(5003, 8080), [5003, 8080]),
        ] {
            if matches!(sent, L4::Sctp(..)) {
                // Its checksum covers the ports, so they stay: it is published port for port or not at all.
                continue;
            }
            let request = back(v6, sent);
            let (before, after) = (read(&request), fixture.assert_returns(A, &request));
            assert_eq!((after.source, after.destination), (remote(v6), A.address(v6)));
            assert_eq!((after.ports, after.ttl, &after.payload), (led, 56, &before.payload));

            let reply = match sent {
                L4::Tcp(..) => L4::Tcp(80, led[0], SYN | ACK),
                _ => L4::Udp(80, led[0]),
            };
            let left = fixture.assert_leaves(A, &out(A, v6, reply));
            assert_eq!((left.source, left.destination), (external(v6), remote(v6)));
            assert_eq!((left.ports, left.ttl), ([8080, led[0]], 63));
            // And again, over the same flow.
            fixture.assert_returns(A, &request);
        }
    }
    assert_eq!((fixture.took("flow_accepted"), fixture.took("flow_created")), (4, 0));
    assert_eq!(fixture.keys(), [4, 4]);
    assert_eq!(fixture.held(A), [2, 2]);
    assert!(fixture.datapath.flows().unwrap().iter().all(|flow| flow.accepted));
}

#[test]
fn an_answer_without_a_route_is_for_whoever_handed_the_request_over() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    ip("route del default");
    ip("-6 route del default");
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        fixture.assert_returns(A, &back(v6, L4::Udp(5000, 8080)));
        let answer = || fixture.assert_leaves(A, &out(A, v6, L4::Udp(80, 5000)));
        let left = answer();
        assert_eq!((left.macs, left.source, left.destination), ([UPLINK, ROUTER], external(v6), remote(v6)));
        // A route is a better hop, if it refuses too.
        let (version, router) = if v6 { ("-6", "2001:db8::10") } else { ("-4", "203.0.113.10") };
        ip(&format!("{version} route add default via {router}"));
        fixture.datapath.bump_fib_generation().unwrap();
        assert_ne!(answer().macs, [UPLINK, ROUTER], "the kernel finds the neighbour");
        fixture.assert_returns(A, &back(v6, L4::Udp(5001, 8080)));
        ip(&format!("{version} route add blackhole {}", remote(v6)));
        fixture.datapath.bump_fib_generation().unwrap();
        fixture.assert_stack(A, &out(A, v6, L4::Udp(80, 5001)), "stack_host");
    }
}

#[test]
fn ranges_end_where_they_end() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8000, 8010], A, 9000);
    for v6 in [false, true] {
        for port in [8000, 8001, 8007, 8008, 8010] {
            let after = fixture.assert_returns(A, &back(v6, L4::Udp(5000, port)));
            assert_eq!(after.ports, [5000, port + 1000]);
        }
        for port in [7999, 8011, 8016, 9000] {
            fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(5000, port)));
            fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Tcp(5000, port, SYN)));
        }
    }
}

#[test]
fn what_is_for_one_address_goes_before_what_is_for_all() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    publish(&fixture, "203.0.113.1", Protocol::Udp, [8080, 8080], B, 80);
    publish(&fixture, "2001:db8::1", Protocol::Udp, [8080, 8080], B, 80);
    for v6 in [false, true] {
        fixture.assert_returns(B, &back(v6, L4::Udp(5000, 8080)));
        fixture.assert_returns(A, &back(v6, L4::Tcp(5000, 8080, SYN)));
    }
}

#[test]
fn loopback_is_the_hosts_alone() {
    // moby#45610: whoever is on the same wire could send to 127.0.0.1.
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    publish(&fixture, "127.0.0.1", Protocol::Tcp, [8081, 8081], A, 80);
    publish(&fixture, "::1", Protocol::Tcp, [8081, 8081], A, 80);
    for (v6, loopback) in [(false, "127.0.0.1"), (false, "127.1.2.3"), (true, "::1")] {
        for port in [8080, 8081] {
            let packet = arriving(remote(v6), address(loopback), L4::Tcp(5000, port, SYN));
            fixture.assert_passes("from_uplink", "up0", &packet);
        }
        let packet = arriving(address(loopback), external(v6), L4::Tcp(5000, 8080, SYN));
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    // Nor are link-local clients led anywhere.
    let packet = arriving(address("fe80::7"), external(true), L4::Tcp(5000, 8080, SYN));
    fixture.assert_passes("from_uplink", "up0", &packet);
}

#[test]
fn a_port_of_all_addresses_is_of_the_hosts_addresses() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    for (v6, elsewhere) in [(false, "203.0.113.77"), (false, "192.0.2.1"), (true, "2001:db8::77")] {
        let packet = arriving(remote(v6), address(elsewhere), L4::Tcp(5000, 8080, SYN));
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    for v6 in [false, true] {
        let packet = arriving(remote(v6), A.address(v6), L4::Tcp(5000, 8080, SYN));
        fixture.assert_drops("from_uplink", "up0", &packet, "direct_access");
        let packet = arriving(B.address(v6), external(v6), L4::Tcp(5000, 8080, SYN));
        fixture.assert_drops("from_uplink", "up0", &packet, "spoofed_address");
    }
}

/// An address that means all of a link is nobody's to answer under, nor to ask under.
#[test]
fn broadcast_addresses_neither_have_a_port_nor_ask_for_one() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    for broadcast in ["203.0.113.255", "172.17.255.255"] {
        fixture.datapath.put_local(format!("{broadcast}/32").parse().unwrap(), Local::Broadcast).unwrap();
    }
    let asks = |source: &str, destination: &str, v6| {
        arriving(
            address(source),
            if destination.is_empty() { external(v6) } else { address(destination) },
            L4::Udp(5000, 8080),
        )
    };
    fixture.assert_passes("from_uplink", "up0", &asks(REMOTE, "203.0.113.255", false));
    fixture.assert_drops("from_uplink", "up0", &asks(REMOTE, "172.17.255.255", false), "direct_access");
    for (source, v6) in [("203.0.113.255", false), ("0.1.2.3", false), ("::ffff:198.51.100.7", true)] {
        fixture.assert_drops("from_uplink", "up0", &asks(source, "", v6), "spoofed_address");
    }
    assert_eq!(fixture.flows(), 0);
}

#[test]
fn only_who_asks_for_a_connection_gets_one() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    for v6 in [false, true] {
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Tcp(5000, 8080, ACK)));
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Tcp(5000, 8080, SYN | ACK)));
    }
}

#[test]
fn a_reply_of_a_containers_own_flow_stays_its_own() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(B, &out(B, v6, L4::Udp(5000, 53)));
    }
    publish_everywhere(&fixture, [5000, 5000], A, 5000);
    for v6 in [false, true] {
        fixture.assert_returns(B, &back(v6, L4::Udp(53, 5000)));
        fixture.assert_returns(A, &back(v6, L4::Udp(54, 5000)));
        // A new flow does not take the port.
        let left = fixture.assert_leaves(B, &out(B, v6, L4::Udp(5000, 55)));
        assert_ne!(left.ports[0], 5000);
    }
}

#[test]
fn one_client_port_by_two_published_ports_is_two_flows() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    publish_everywhere(&fixture, [8081, 8081], A, 80);
    for v6 in [false, true] {
        for (first, second) in
            [(L4::Tcp(5001, 8080, SYN), L4::Tcp(5001, 8081, SYN)), (L4::Udp(5002, 8080), L4::Udp(5002, 8081))]
        {
            let own = fixture.assert_returns(A, &back(v6, first)).ports[0];
            let led = fixture.assert_returns(A, &back(v6, second));
            assert_ne!(led.ports[0], own, "the container can tell the two apart");
            assert_eq!((led.source, led.ports[1]), (remote(v6), 80));
            for (seen, published) in [(own, 8080), (led.ports[0], 8081)] {
                let answer = match first {
                    L4::Tcp(..) => L4::Tcp(80, seen, SYN | ACK),
                    _ => L4::Udp(80, seen),
                };
                let left = fixture.assert_leaves(A, &out(A, v6, answer));
                assert_eq!((left.source, left.ports), (external(v6), [published, own]));
            }
        }
    }
}

#[test]
fn a_port_of_nobody_is_told_apart() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    for v6 in [false, true] {
        fixture.assert_drops("from_uplink", "up0", &back(v6, L4::Tcp(5000, 8080, SYN)), "no_backend");
    }
}

#[test]
fn who_never_confirms_makes_room_for_others() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], A, 80);
    fixture.change_globals(|globals| globals.flows_per_container = [64; 2]);
    for v6 in [false, true] {
        for port in 0..2000 {
            let ran = fixture.arrive(&back(v6, L4::Tcp(10000 + port, 8080, SYN)));
            // Whether room is found is a matter of chance: of random records some are looked at.
            assert!(ran.verdict == REDIRECTED || fixture.drops("endpoint_quota") > 0);
        }
        assert!(fixture.held(A)[usize::from(v6)] <= 64);
    }
}

#[test]
fn flows_of_an_ended_publication_are_ended_and_no_others() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8081], A, 80);
    publish_everywhere(&fixture, [9090, 9090], B, 80);
    for v6 in [false, true] {
        fixture.assert_returns(A, &back(v6, L4::Udp(5000, 8080)));
        fixture.assert_returns(B, &back(v6, L4::Udp(5000, 9090)));
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(6000, 53)));
    }
    assert_eq!(fixture.datapath.end_unpublished().unwrap(), 0);
    for (protocol, at) in Protocol::ALL.iter().flat_map(|p| ["0.0.0.0", "::"].map(|at| (*p, at))) {
        let host = HostPorts { protocol, address: address(at), first: 8080, last: 8081 };
        fixture.datapath.remove_publication(&host).unwrap();
    }
    assert_eq!(fixture.datapath.end_unpublished().unwrap(), 2);
    let left: Vec<u16> = fixture.datapath.flows().unwrap().iter().map(|flow| flow.external.port()).collect();
    assert!(left.len() == 4 && !left.contains(&8080), "{left:?}");
    for v6 in [false, true] {
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(5000, 8080)));
    }
}

#[test]
fn what_is_published_is_what_is_observed() {
    let fixture = Fixture::new();
    publish(&fixture, "0.0.0.0", Protocol::Tcp, [1, 65535], A, 1);
    let host = |protocol, at: IpAddr, first, last| HostPorts { protocol, address: at, first, last };
    let bound = host(Protocol::Udp, address("2001:db8::1"), 10000, 12000);
    fixture.datapath.put_publication(&bound, B.slot, 20000, Reserver::Runtime).unwrap();
    let observed = fixture.datapath.observe().unwrap().publications;
    assert_eq!(
        observed.into_iter().collect::<Vec<_>>(),
        [
            (host(Protocol::Tcp, address("0.0.0.0"), 1, 65535), (A.slot, 1, Reserver::Netd)),
            (bound, (B.slot, 20000, Reserver::Runtime)),
        ]
    );
}

/// The host is no hop on the way to a port of its own that is a container's.
#[test]
fn a_hop_limit_of_1_leads_to_a_published_port_from_within() {
    let fixture = Fixture::new();
    publish_everywhere(&fixture, [8080, 8080], B, 80);
    for v6 in [false, true] {
        fixture.datapath.put_local(external(v6).into(), Local::Own).unwrap();
        let of = |ttl, port| {
            let l4 = L4::Udp(5000, port);
            frame([A.mac, GATEWAY], A.address(v6), external(v6), ttl, l4, b"within")
        };
        let ran = fixture.send(A, &of(1, 8080));
        assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
        let got = read(&ran.packet);
        assert_eq!((got.destination, got.ports[1], got.ttl), (B.address(v6), 80, 1));
        fixture.assert_passes("from_container", A.veth, &of(1, 8081));
    }
    assert_eq!(fixture.took("stack_ttl"), 0);
}
