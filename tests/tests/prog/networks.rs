//! Between networks, and out of networks that have no way out.

use netd::datapath::bridge::{ICC, INTERNAL, MASQUERADE};

use crate::{
    fixture::{A, B, Fixture},
    fragments::assert_held,
    packet::{HOP_BY_HOP, L4, SYN, extension, fragments, frame, to, with_extensions, with_ipv4},
};

const ELSEWHERE: [&str; 2] = ["172.18.0.2", "fd00:18::2"];

#[test]
fn networks_do_not_reach_each_other() {
    let fixture = Fixture::new();
    for destination in ELSEWHERE {
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7), L4::Other(47)] {
            fixture.assert_drops("from_container", A.veth, &to(A, destination, l4), "isolated");
        }
        let [first, later] = fragments(&to(A, destination, L4::Udp(5000, 53)), 7, 16);
        // A later fragment may be an answer's, and waits for its first, which does not come through.
        fixture.assert_drops("from_container", A.veth, &first, "isolated");
        assert_held(&fixture, A, &later);
        fixture.assert_drops("from_container", A.veth, &first, "isolated");
    }
    // What goes to the stack for its options would be routed there.
    let [v4, v6] = ELSEWHERE.map(|destination| to(A, destination, L4::Udp(5000, 53)));
    let with_options = with_ipv4(&v4, |ip| ip.options = [1; 4].into());
    fixture.assert_drops("from_container", A.veth, &with_options, "isolated");
    let with_options = with_extensions(&v6, HOP_BY_HOP, &extension(17));
    fixture.assert_drops("from_container", A.veth, &with_options, "isolated");
    assert_eq!((fixture.keys(), fixture.took("fragment_replayed")), ([0, 0], 0));
}

#[test]
fn the_gateway_of_another_network_is_the_host() {
    let fixture = Fixture::new();
    for destination in ["172.18.0.1", "fd00:18::1"] {
        fixture.assert_stack(A, &to(A, destination, L4::Udp(5000, 53)), "stack_host");
    }
}

#[test]
fn an_internal_network_reaches_itself_and_its_gateway() {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, MASQUERADE | ICC | INTERNAL);
    for destination in ["198.51.100.7", "2001:db8:1::7", ELSEWHERE[0], ELSEWHERE[1]] {
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7), L4::Other(47)] {
            fixture.assert_drops("from_container", A.veth, &to(A, destination, l4), "internal");
        }
    }
    for destination in ["172.17.0.1", "fd00:17::1"] {
        fixture.assert_stack(A, &to(A, destination, L4::Udp(5000, 53)), "stack_host");
    }
    for v6 in [false, true] {
        let packet = frame([A.mac, B.mac], A.address(v6), B.address(v6), 64, L4::Udp(5000, 53), b"");
        assert_eq!(fixture.send(A, &packet).packet, packet);
    }
    assert_eq!(fixture.took("bridged"), 2);
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn nobody_enters_an_internal_network() {
    let fixture = Fixture::new();
    fixture.network(1, "br1", 18, MASQUERADE | ICC | INTERNAL);
    for destination in ELSEWHERE {
        let ran = fixture.send(A, &to(A, destination, L4::Udp(5000, 53)));
        assert_eq!(ran.verdict, crate::fixture::DROPPED);
    }
    // Out of it by the stack: the catch-all has the last word.
    let packet = frame(
        [crate::fixture::UPLINK, crate::fixture::ROUTER],
        "172.18.0.2".parse().unwrap(),
        "198.51.100.7".parse().unwrap(),
        63,
        L4::Udp(5000, 53),
        b"",
    );
    fixture.assert_drops("to_uplink", "up0", &packet, "internal");
}
