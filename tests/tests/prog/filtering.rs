//! Endpoint-independent filtering: anybody may send to a bound port.

use std::{fs, net::UdpSocket};

use netd::{
    datapath::bridge::{ICC, INDEPENDENT_FILTERING, INDEPENDENT_MAPPING, MASQUERADE},
    model::Local,
};
use netd_tests::lab::until;

use crate::{
    binding::{OF, ends, fixture, other, port, third},
    fixture::{A, B, C, Container, DROPPED, Fixture, REDIRECTED, entry},
    packet::{ACK, L4, RST, SYN, arriving, back, external, read, remote, to},
};

/// The same, and anybody may send to a bound port.
fn open_fixture() -> Fixture {
    let fixture = fixture();
    fixture.network(0, "br0", 17, MASQUERADE | ICC | INDEPENDENT_MAPPING | INDEPENDENT_FILTERING);
    fixture
}

/// Of a third party, to the port.
fn unasked(v6: bool, from: &str, l4: L4) -> Vec<u8> {
    arriving(from.parse().unwrap(), external(v6), l4)
}

#[test]
fn anybody_reaches_an_open_port_and_is_answered_from_it() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        for (of, unasked_by, answers) in [
            (OF[0], L4::Udp(777, 5000), L4::Udp(5000, 777)),
            (OF[1], L4::Tcp(777, 5000, SYN), L4::Tcp(5000, 777, SYN | ACK)),
        ] {
            fixture.assert_passes("from_uplink", "up0", &unasked(v6, other(v6), unasked_by));
            assert_eq!(port(&fixture, A, &remote(v6).to_string(), of(5000, 53)), 5000);
            let got = fixture.assert_returns(A, &unasked(v6, other(v6), unasked_by));
            assert_eq!((got.source, got.destination), (other(v6).parse().unwrap(), A.address(v6)));
            assert_eq!(got.ports, [777, 5000]);
            let left = fixture.assert_leaves(A, &to(A, other(v6), answers));
            assert_eq!((left.source, left.ports), (external(v6), [5000, 777]));
        }
        // Not what no first packet is, nor another protocol's, nor a port that nobody has.
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, third(v6), L4::Tcp(777, 5000, ACK)));
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, third(v6), L4::Sctp(777, 5000)));
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, third(v6), L4::Udp(777, 5001)));

        // Whoever may answer for the one who was asked; but requests are the host's.
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), L4::Echo(true, 7)), 7);
        let got = fixture.assert_returns(A, &unasked(v6, other(v6), L4::Echo(false, 7)));
        assert_eq!(got.source, other(v6).parse::<std::net::IpAddr>().unwrap());
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, other(v6), L4::Echo(true, 7)));
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, other(v6), L4::Echo(false, 8)));
    }
    assert_eq!((fixture.took("flow_accepted"), fixture.dropped()), (2 * 3, 0));
}

#[test]
fn who_only_sends_keeps_nothing_alive() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), L4::Udp(5000, 53)), 5000);
        // The flow ends 300 s after the container's last packet, and the binding 120 s later, whatever comes in meanwhile.
        for (seconds, is_bound) in [(200, true), (101, true), (110, true), (11, false)] {
            fixture.age(seconds);
            fixture.datapath.sweep().unwrap();
            assert_eq!(ends(&fixture)[1] > 0, is_bound, "{seconds} s later");
            if is_bound {
                fixture.assert_returns(A, &back(v6, L4::Udp(53, 5000)));
            }
            // Another stranger each time.
            let stranger = unasked(v6, other(v6), L4::Udp(700 + seconds as u16, 5000));
            assert_eq!(fixture.arrive(&stranger).verdict == REDIRECTED, is_bound, "{seconds} s later");
        }
        // Those that came last are heard for half a minute more.
        fixture.age(31);
        fixture.datapath.sweep().unwrap();
        assert_eq!((ends(&fixture), fixture.held(A)), ([0, 0], [0, 0]));
    }
}

#[test]
fn who_is_refused_keeps_nothing_alive() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), L4::Tcp(5000, 80, SYN)), 5000);
        fixture.age(200);
        fixture.assert_returns(A, &unasked(v6, other(v6), L4::Tcp(777, 5000, SYN)));
        fixture.assert_leaves(A, &to(A, other(v6), L4::Tcp(5000, 777, RST | ACK)));
        // The container's own flow ends, the binding rests; what is left of the refused one is still there.
        for (seconds, left) in [(41, [1, 1]), (121, [1, 0])] {
            fixture.age(seconds);
            fixture.datapath.sweep().unwrap();
            assert_eq!(ends(&fixture), left, "{seconds} s later");
        }
        // It is not taken up again on a port that may be another's.
        assert_ne!(fixture.send(A, &to(A, other(v6), L4::Tcp(5000, 777, ACK))).verdict, DROPPED);
        let flows = fixture.datapath.flows().unwrap();
        assert!(flows.iter().all(|flow| !flow.accepted), "{flows:?}");
        fixture.datapath.remove_endpoint(A.slot).unwrap();
        fixture.datapath.put_endpoint(A.slot, &entry(A, 0)).unwrap();
        assert_eq!((ends(&fixture), fixture.keys()), ([0, 0], [0, 0]));
    }
}

#[test]
fn an_answered_stranger_holds_the_port_as_any_other() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), L4::Udp(5000, 53)), 5000);
        fixture.assert_returns(A, &unasked(v6, other(v6), L4::Udp(777, 5000)));
        for _ in 0..4 {
            fixture.assert_leaves(A, &to(A, other(v6), L4::Udp(5000, 777)));
            fixture.age(200);
            fixture.datapath.sweep().unwrap();
        }
        assert_eq!(ends(&fixture), [1, 1], "the first flow is over, the stranger's is not");
        assert_ne!(port(&fixture, B, third(v6), L4::Udp(5000, 53)), 5000);
        // A stranger who was not answered in time is none of the binding's any more.
        fixture.assert_returns(A, &unasked(v6, third(v6), L4::Udp(778, 5000)));
        fixture.datapath.remove_endpoint(B.slot).unwrap();
        fixture.datapath.put_endpoint(B.slot, &entry(B, 0)).unwrap();
        fixture.age(1000);
        fixture.datapath.sweep().unwrap();
        fixture.age(1000);
        fixture.datapath.sweep().unwrap();
        assert_eq!((ends(&fixture), fixture.held(A)), ([0, 0], [0, 0]));
    }
}

#[test]
fn what_is_the_hosts_or_published_goes_before() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        assert_eq!(port(&fixture, A, &remote(v6).to_string(), L4::Udp(5000, 53)), 5000);
        fixture.assert_returns(A, &unasked(v6, other(v6), L4::Udp(777, 5000)));
    }
    {
        let _socket = UdpSocket::bind("[::]:5000").unwrap();
        for v6 in [false, true] {
            fixture.assert_passes("from_uplink", "up0", &unasked(v6, third(v6), L4::Udp(777, 5000)));
        }
    }
    // A child that another thread forked, and that has not executed its program yet, holds the socket a moment longer.
    until("the socket is gone", || {
        !fs::read_to_string("/proc/thread-self/net/udp6").unwrap().contains(&format!(":{:04X} ", 5000))
    });
    for v6 in [false, true] {
        fixture.assert_returns(A, &unasked(v6, third(v6), L4::Udp(777, 5000)));
    }
    // A network whose ports are open no more: who came unasked is gone, who was asked is not.
    fixture.network(0, "br0", 17, MASQUERADE | ICC | INDEPENDENT_MAPPING);
    assert_eq!(fixture.datapath.end_unbound().unwrap(), 4);
    for v6 in [false, true] {
        fixture.assert_passes("from_uplink", "up0", &unasked(v6, third(v6), L4::Udp(777, 5000)));
        fixture.assert_returns(A, &back(v6, L4::Udp(53, 5000)));
    }
    assert_eq!(ends(&fixture), [2, 2]);
}

#[test]
fn a_container_reaches_another_by_its_external_port_and_is_known_by_its_own() {
    let fixture = open_fixture();
    for v6 in [false, true] {
        fixture.datapath.put_local(external(v6).into(), Local::Own).unwrap();
        for (of, reply) in [
            ((|from, to| L4::Udp(from, to)) as fn(u16, u16) -> L4, L4::Udp as fn(u16, u16) -> L4),
            (|from, to| L4::Tcp(from, to, SYN), |from, to| L4::Tcp(from, to, SYN | ACK)),
        ] {
            let of_a = port(&fixture, A, &remote(v6).to_string(), of(5000, 53));
            let of_b = port(&fixture, B, other(v6), of(5000, 53));
            assert_ne!(of_a, of_b);
            let ports = |container: Container, packet: &[u8]| {
                let ran = fixture.send(container, packet);
                assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
                read(&ran.packet)
            };
            let external_text = external(v6).to_string();
            let got = ports(A, &to(A, &external_text, of(5000, of_b)));
            assert_eq!((got.source, got.destination), (external(v6), B.address(v6)));
            assert_eq!((got.ports, got.macs), ([of_a, 5000], [crate::fixture::GATEWAY, B.mac]));
            let got = ports(B, &to(B, &external_text, reply(5000, of_a)));
            assert_eq!((got.source, got.destination), (external(v6), A.address(v6)));
            assert_eq!((got.ports, got.macs), ([of_b, 5000], [crate::fixture::GATEWAY, A.mac]));

            // A third one, who has sent nothing yet and is of a network that maps per remote: as by a published port.
            let got = ports(C, &to(C, &external_text, of(6000, of_b)));
            assert_eq!((got.source, got.destination), (C.address(v6), B.address(v6)));
            assert_eq!(got.ports, [6000, 5000]);
            // One of the same network, whose port is bound by that; and itself.
            let got = ports(A, &to(A, &external_text, of(6001, of_b)));
            assert_eq!((got.source, got.destination), (external(v6), B.address(v6)));
            assert_eq!(port(&fixture, A, &remote(v6).to_string(), of(6001, 53)), got.ports[0]);
            let got = ports(A, &to(A, &external_text, of(5000, of_a)));
            assert_eq!((got.source, got.destination), (external(v6), A.address(v6)));
            assert_eq!(got.ports, [of_a, 5000]);
        }
    }
    assert_eq!(fixture.dropped(), 0);
    for container in [A, B, C] {
        fixture.datapath.remove_endpoint(container.slot).unwrap();
    }
    assert_eq!((ends(&fixture), fixture.keys()), ([0, 0], [0, 0]));
}
