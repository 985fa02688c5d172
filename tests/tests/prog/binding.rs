//! Endpoint-independent mapping: one external port for whoever the remote is.

use std::net::UdpSocket;

use netd::datapath::bridge::{ICC, INDEPENDENT_MAPPING, MASQUERADE};
use netd_common::nat::PortRange;

use crate::{
    fixture::{A, B, C, Container, Fixture, REDIRECTED, entry},
    packet::{
        ACK, FIN, L4, SYN, arriving, back, external, fragments, leaving, out, read, read_error, remote, to,
    },
};

/// The network of A and B maps endpoint-independently, that of C does not.
pub(crate) fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, MASQUERADE | ICC | INDEPENDENT_MAPPING);
    fixture
}

pub(crate) const fn other(v6: bool) -> &'static str {
    if v6 { "2001:db8:1::8" } else { "198.51.100.8" }
}

pub(crate) const fn third(v6: bool) -> &'static str {
    if v6 { "2001:db8:1::9" } else { "198.51.100.9" }
}

/// The external port towards an address.
pub(crate) fn port(fixture: &Fixture, container: Container, destination: &str, l4: L4) -> u16 {
    fixture.assert_leaves(container, &to(container, destination, l4)).ports[0]
}

/// A packet with ports, of each protocol that is bound.
pub(crate) const OF: [fn(u16, u16) -> L4; 3] =
    [|own, far| L4::Udp(own, far), |own, far| L4::Tcp(own, far, SYN), |own, _| L4::Echo(true, own)];

pub(crate) fn ends(fixture: &Fixture) -> [usize; 2] {
    let flows = fixture.datapath.flows().unwrap();
    let bindings = flows.iter().filter(|flow| flow.remote.is_none()).count();
    [flows.len() - bindings, bindings]
}

#[test]
fn a_port_is_the_same_for_every_remote() {
    let fixture = fixture();
    for v6 in [false, true] {
        let remotes = [remote(v6).to_string(), other(v6).to_owned(), third(v6).to_owned()];
        for of in OF {
            // 40000 is the host's range for ports, and is drawn for; not so an echo's.
            for own in [5000, 40000] {
                let ports: Vec<_> =
                    remotes.iter().map(|remote| port(&fixture, A, remote, of(own, 53))).collect();
                assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
                assert!(own == 40000 || ports[0] == own, "kept where free");
                // Another port of the same remote too.
                assert_eq!(port(&fixture, A, &remotes[0], of(own, 54)), ports[0]);
                let reply = match of(own, 53).reply() {
                    L4::Udp(from, _) => L4::Udp(from, ports[0]),
                    L4::Tcp(from, _, flags) => L4::Tcp(from, ports[0], flags),
                    _ => L4::Echo(false, ports[0]),
                };
                for remote in &remotes {
                    let arriving = arriving(remote.parse().unwrap(), external(v6), reply);
                    assert_eq!(fixture.assert_returns(A, &arriving).destination, A.address(v6));
                }
            }
        }
    }
    // An echo has no far port, so that its fourth packet goes by the first's flow.
    assert_eq!(ends(&fixture), [2 * (2 * 4 + 2 * 4 + 2 * 3), 2 * 6]);
    assert_eq!(fixture.keys(), [2 * (22 + 6); 2]);
    assert_eq!(fixture.took("binding_created"), 12);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn nobody_else_has_a_bound_port_whoever_the_remote_is() {
    let fixture = fixture();
    for v6 in [false, true] {
        for of in OF {
            assert_eq!(port(&fixture, A, &remote(v6).to_string(), of(5000, 53)), 5000);
            // Another container of the network, one of a network that maps per remote, another port of the same one.
            let drawn = port(&fixture, B, other(v6), of(5000, 53));
            assert_ne!(drawn, 5000);
            assert_eq!(port(&fixture, B, third(v6), of(5000, 53)), drawn);
            assert_ne!(port(&fixture, C, third(v6), of(5000, 53)), 5000);
            // Nor does a binding take the port of who maps per remote.
            assert_eq!(port(&fixture, C, &remote(v6).to_string(), of(5001, 53)), 5001);
            assert_ne!(port(&fixture, A, other(v6), of(5001, 53)), 5001);
            // Which those share, as ever.
            assert_eq!(port(&fixture, C, other(v6), of(5001, 53)), 5001);
        }
    }
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn another_protocol_is_another_port() {
    let fixture = fixture();
    for v6 in [false, true] {
        for (container, of) in [A, B, A].into_iter().zip(OF) {
            assert_eq!(port(&fixture, container, other(v6), of(5000, 53)), 5000);
        }
        // SCTP's ports are not bound: they are shared, or nothing could be sent.
        for (container, destination) in [(A, other(v6)), (B, third(v6))] {
            assert_eq!(port(&fixture, container, destination, L4::Sctp(5000, 36412)), 5000);
        }
    }
}

#[test]
fn what_is_not_asked_for_does_not_come_in() {
    let fixture = fixture();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        let stranger = arriving(other(v6).parse().unwrap(), external(v6), L4::Udp(53, 5000));
        fixture.assert_passes("from_uplink", "up0", &stranger);
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(54, 5000)));
        fixture.assert_returns(A, &back(v6, L4::Udp(53, 5000)));
    }
}

#[test]
fn a_binding_lives_as_long_as_its_flows_and_two_minutes() {
    let fixture = fixture();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        fixture.assert_leaves(A, &to(A, other(v6), L4::Udp(5000, 53)));
    }
    let sweep = |age, left| {
        fixture.age(age);
        fixture.datapath.sweep().unwrap();
        assert_eq!(ends(&fixture), left);
    };
    sweep(200, [4, 2]);
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    sweep(200, [2, 2]);
    sweep(200, [0, 2]);
    // Nobody else gets the port meanwhile, and its own sender gets it again.
    sweep(119, [0, 2]);
    for v6 in [false, true] {
        assert_ne!(port(&fixture, B, other(v6), L4::Udp(5000, 53)), 5000);
        assert_eq!(port(&fixture, A, third(v6), L4::Udp(5000, 53)), 5000);
    }
    sweep(301, [0, 4]);
    sweep(121, [0, 0]);
    assert_eq!((fixture.keys(), fixture.held(A), fixture.held(B)), ([0; 2], [0; 2], [0; 2]));
    assert_eq!(fixture.took("binding_created"), fixture.took("binding_ended"));
    // Free for whoever comes, to be bound or shared.
    for v6 in [false, true] {
        assert_eq!(port(&fixture, B, other(v6), L4::Udp(5000, 53)), 5000);
    }
    sweep(1000, [0, 2]);
    sweep(1000, [0, 0]);
    for v6 in [false, true] {
        assert_eq!(port(&fixture, C, other(v6), L4::Udp(5000, 53)), 5000);
    }
    sweep(1000, [0, 0]);
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, other(v6), L4::Udp(5000, 53)), 5000);
    }
}

#[test]
fn an_endpoint_takes_its_bindings_with_it() {
    let fixture = fixture();
    for v6 in [false, true] {
        for of in OF {
            assert_eq!(port(&fixture, A, other(v6), of(5000, 53)), 5000);
        }
    }
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    assert_eq!((ends(&fixture), fixture.keys(), fixture.held(A)), ([0; 2], [0; 2], [0; 2]));
    // Who has the address next has nothing of it, and the ports are free.
    fixture.datapath.put_endpoint(A.slot, &entry(A, 0)).unwrap();
    for v6 in [false, true] {
        fixture.assert_passes(
            "from_uplink",
            "up0",
            &arriving(other(v6).parse().unwrap(), external(v6), L4::Udp(53, 5000)),
        );
        for of in OF {
            assert_eq!(port(&fixture, C, other(v6), of(5000, 53)), 5000);
        }
    }
}

#[test]
fn a_network_that_maps_per_remote_again_has_no_bindings() {
    let fixture = fixture();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, other(v6), L4::Udp(5000, 53)), 5000);
        assert_eq!(port(&fixture, C, other(v6), L4::Udp(5001, 53)), 5001);
    }
    assert_eq!(fixture.datapath.end_unbound().unwrap(), 0, "all are as they should be");
    fixture.network(0, "br0", 17, MASQUERADE | ICC);
    assert_eq!(fixture.datapath.end_unbound().unwrap(), 4);
    assert_eq!((ends(&fixture), fixture.held(A)), ([2, 0], [0; 2]));
    for v6 in [false, true] {
        for (container, destination) in [(A, other(v6)), (B, third(v6)), (C, &*remote(v6).to_string())] {
            assert_eq!(port(&fixture, container, destination, L4::Udp(5000, 53)), 5000);
        }
    }
}

#[test]
fn a_port_that_the_host_uses_is_not_bound() {
    let fixture = fixture();
    let _listens = UdpSocket::bind("[::]:5000").unwrap();
    for v6 in [false, true] {
        let drawn = port(&fixture, A, other(v6), L4::Udp(5000, 53));
        assert_ne!(drawn, 5000);
        assert_eq!(port(&fixture, A, third(v6), L4::Udp(5000, 53)), drawn);
    }
    // A socket of the host that speaks with this remote alone: it keeps what is its own, whoever came first.
    let speaks = UdpSocket::bind("203.0.113.1:5001").unwrap();
    speaks.connect((other(false), 53)).unwrap();
    assert_ne!(port(&fixture, A, other(false), L4::Udp(5001, 53)), 5001);
    assert_eq!(port(&fixture, A, third(false), L4::Udp(5002, 53)), 5002);
    let comes_later = UdpSocket::bind("203.0.113.1:5002").unwrap();
    comes_later.connect((other(false), 53)).unwrap();
    assert_ne!(port(&fixture, A, other(false), L4::Udp(5002, 53)), 5002);
    fixture.assert_passes(
        "from_uplink",
        "up0",
        &arriving(other(false).parse().unwrap(), external(false), L4::Udp(53, 5002)),
    );
    // To all others the port is the binding's as before.
    assert_eq!(port(&fixture, A, &remote(false).to_string(), L4::Udp(5002, 53)), 5002);
    assert_eq!(fixture.dropped(), 0);
    // The host's own echoes take what nobody has.
    assert_eq!(port(&fixture, A, other(false), L4::Echo(true, 7)), 7);
    let ran = fixture.leave(&leaving(external(false), third(false).parse().unwrap(), L4::Echo(true, 7)));
    assert_ne!(read(&ran.packet).ports[0], 7);
}

/// Leaves one port to masquerade, 1024.
fn leave_one(fixture: &Fixture) {
    fixture.change_globals(|globals| {
        globals.ports.below = PortRange { first: 1024, last: 1024 };
        globals.ports.above = PortRange { first: 1, last: 0 };
    });
}

#[test]
fn a_port_is_held_until_its_flows_have_ended() {
    let fixture = fixture();
    leave_one(&fixture);
    for v6 in [false, true] {
        let refuses = |l4| {
            let refused = fixture.send(B, &to(B, other(v6), l4));
            assert_eq!(read_error(&refused.packet).kind, if v6 { [1, 1] } else { [3, 13] });
            assert_eq!(fixture.held(B), [0, 0], "nothing is left of it");
        };
        let sweep = |seconds, left| {
            fixture.age(seconds);
            fixture.datapath.sweep().unwrap();
            assert_eq!(ends(&fixture), left);
        };
        // TCP: as long as what is left of a closed connection might be taken up again; then it needs no rest.
        let syn = |own| L4::Tcp(own, 80, SYN);
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), syn(7000)), 1024);
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, 1024, SYN | ACK)));
        refuses(syn(7000));
        fixture.assert_returns(A, &back(v6, L4::Tcp(80, 1024, FIN | ACK)));
        fixture.assert_leaves(A, &out(A, v6, L4::Tcp(7000, 80, FIN | ACK)));
        refuses(syn(7000));
        sweep(241, [0, 1]);
        refuses(syn(7000));
        fixture.age(2);
        assert_eq!(port(&fixture, B, other(v6), syn(7000)), 1024);
        assert_eq!((ends(&fixture), fixture.held(A)), ([1, 1], [0, 0]), "of B alone");
        sweep(1000, [0, 1]);
        sweep(1000, [0, 0]);

        // UDP: and for two minutes beyond.
        let datagram = |own| L4::Udp(own, 53);
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), datagram(7000)), 1024);
        sweep(301, [0, 1]);
        fixture.age(119);
        refuses(datagram(7000));
        fixture.age(2);
        assert_eq!(port(&fixture, B, other(v6), datagram(7000)), 1024);
        assert_eq!((ends(&fixture), fixture.held(A)), ([1, 1], [0, 0]), "of B alone");
        sweep(1000, [0, 1]);
        sweep(1000, [0, 0]);
    }
}

#[test]
fn when_there_is_no_room_the_sender_is_told_and_bindings_live_on() {
    let fixture = fixture();
    fixture.change_globals(|globals| globals.flows_per_container = [3; 2]);
    for (family, v6) in [false, true].into_iter().enumerate() {
        assert_eq!(port(&fixture, A, other(v6), L4::Udp(5000, 53)), 5000);
        // A second binding would be one record more, and its flow another.
        let ran = fixture.send(A, &to(A, other(v6), L4::Udp(5001, 53)));
        assert_eq!(read_error(&ran.packet).kind, if v6 { [1, 1] } else { [3, 13] });
        assert_eq!(fixture.drops("endpoint_quota"), family as u64 + 1);
        assert_eq!(fixture.held(A)[family], 2, "nothing is left of it");
        // A flow of the binding that there is has room.
        assert_eq!(port(&fixture, A, third(v6), L4::Udp(5000, 53)), 5000);
        assert_eq!(port(&fixture, B, third(v6), L4::Udp(5001, 53)), 5001);
    }
    let bindings = fixture.took("binding_created");
    assert_eq!((fixture.took("binding_ended"), bindings), (0, 4));
}

#[test]
fn fragments_and_what_the_stack_sends_go_by_the_same_port() {
    let fixture = fixture();
    for v6 in [false, true] {
        let drawn = port(&fixture, A, other(v6), L4::Udp(40000, 53));
        let packet = to(A, third(v6), L4::Udp(40000, 53));
        let [first, later] = fragments(&packet, 7, 16);
        let [first, later] = [first, later].map(|part| {
            let ran = fixture.send(A, &part);
            assert_eq!(ran.verdict, REDIRECTED);
            ran.packet
        });
        assert_eq!(read(&crate::packet::reassemble([&first, &later])).ports, [drawn, 53]);
        let by_stack = leaving(A.address(v6), remote(v6), L4::Udp(40000, 53));
        assert_eq!(read(&fixture.leave(&by_stack).packet).ports, [drawn, 53]);
    }
    assert_eq!((ends(&fixture), fixture.dropped()), ([6, 2], 0));
}
