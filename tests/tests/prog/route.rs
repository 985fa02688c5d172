//! Routes: taken from the host, followed as they change.

use netd::model::Local;

use crate::{
    fixture::{A, Fixture, index, ip},
    packet::{L4, address, arriving, back, external, out, to},
};

/// A second uplink, with addresses of its own.
fn second_uplink(fixture: &Fixture) {
    ip("link add up1 type veth peer name up1p");
    ip("link set up1p up");
    ip("link set up1 up");
    ip("addr add 192.0.2.1/24 dev up1");
    ip("addr add 2001:db8:2::1/64 dev up1 nodad");
    ip("neighbour add 192.0.2.10 lladdr 02:00:00:00:00:21 dev up1");
    ip("neighbour add 2001:db8:2::10 lladdr 02:00:00:00:00:21 dev up1");
    fixture.uplink("up1", "192.0.2.1", "2001:db8:2::1");
}

#[test]
fn without_a_route_the_stack_answers() {
    let fixture = Fixture::new();
    for words in [
        "route add unreachable 198.51.100.8",
        "route add blackhole 198.51.100.9",
        "route add prohibit 198.51.100.10",
        "-6 route add unreachable 2001:db8:1::8",
        "-6 route add blackhole 2001:db8:1::9",
        "-6 route add prohibit 2001:db8:1::10",
    ] {
        ip(words);
        let packet = to(A, words.split(' ').next_back().unwrap(), L4::Udp(5000, 53));
        fixture.assert_stack(A, &packet, "stack_host");
    }
    ip("route del default");
    ip("-6 route del default");
    for v6 in [false, true] {
        fixture.assert_stack(A, &out(A, v6, L4::Udp(5000, 53)), "stack_host");
    }
}

#[test]
fn only_uplinks_lead_outside() {
    let fixture = Fixture::new();
    ip("link add other type veth peer name otherp");
    ip("link set otherp up");
    ip("link set other up");
    ip("addr add 192.0.2.1/24 dev other");
    ip("addr add 2001:db8:2::1/64 dev other nodad");
    for destination in ["192.0.2.7", "2001:db8:2::7"] {
        for l4 in [L4::Udp(5000, 53), L4::Other(47)] {
            fixture.assert_drops("from_container", A.veth, &to(A, destination, l4), "no_uplink");
        }
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn an_uplink_without_an_address_masquerades_nobody() {
    let fixture = Fixture::new();
    ip("addr flush dev up0");
    ip("route replace default dev up0");
    ip("-6 route replace default dev up0");
    fixture.uplink("up0", "0.0.0.0", "::");
    // The host itself would fall back on the bridge's address, which nobody outside knows.
    for v6 in [false, true] {
        let packet = out(A, v6, L4::Udp(5000, 53));
        fixture.assert_drops("from_container", A.veth, &packet, "no_external_address");
    }
}

#[test]
fn the_source_is_the_one_that_the_route_prefers() {
    let fixture = Fixture::new();
    ip("addr add 203.0.113.2/24 dev up0");
    ip("route add 198.51.100.8 via 203.0.113.10 src 203.0.113.2");
    ip("addr add 2001:db8::2/64 dev up0 nodad");
    ip("-6 route add 2001:db8:1::8 via 2001:db8::10 src 2001:db8::2");
    for (destination, source) in
        [("198.51.100.7", "203.0.113.1"), ("198.51.100.8", "203.0.113.2"), ("2001:db8:1::8", "2001:db8::2")]
    {
        let packet = to(A, destination, L4::Udp(5000, 53));
        assert_eq!(fixture.assert_leaves(A, &packet).source, address(source));
    }
}

#[test]
fn a_flow_follows_its_route() {
    let fixture = Fixture::new();
    let packet = |v6| out(A, v6, L4::Udp(5000, 53));
    for v6 in [false, true] {
        fixture.assert_leaves(A, &packet(v6));
    }
    // Until it is told of a change, a flow leaves as before.
    ip("link set up0 mtu 1300");
    let large = |v6| {
        let payload = [0; 1300];
        let (source, destination) = (A.address(v6), crate::packet::remote(v6));
        crate::packet::frame(
            [A.mac, crate::fixture::GATEWAY],
            source,
            destination,
            64,
            L4::Udp(5000, 53),
            &payload,
        )
    };
    for v6 in [false, true] {
        fixture.assert_leaves(A, &large(v6));
    }
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        fixture.assert_stack(A, &large(v6), "stack_mtu");
        fixture.assert_leaves(A, &packet(v6));
    }
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (2, 0));
}

#[test]
fn a_route_through_another_uplink_keeps_a_flow_whose_address_fits() {
    let fixture = Fixture::new();
    second_uplink(&fixture);
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    ip("route replace default via 192.0.2.10 src 203.0.113.1");
    ip("-6 route replace default via 2001:db8:2::10 src 2001:db8::1");
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        assert_eq!(fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53))).source, external(v6));
    }
    let uplinks: Vec<_> = fixture.datapath.flows().unwrap().iter().map(|flow| flow.uplink).collect();
    assert_eq!(uplinks, [index("up1"); 2]);
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (2, 0));
}

#[test]
fn a_flow_whose_address_does_not_fit_begins_anew() {
    let fixture = Fixture::new();
    second_uplink(&fixture);
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    ip("route replace default via 192.0.2.10");
    ip("-6 route del default via 2001:db8::10");
    ip("-6 route add default via 2001:db8:2::10");
    fixture.datapath.bump_fib_generation().unwrap();
    for (v6, source) in [(false, "192.0.2.1"), (true, "2001:db8:2::1")] {
        let source = address(source);
        assert_eq!(fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53))).source, source);
        // What still comes to the old address is nobody's; what comes to the new one is the container's.
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(53, 5000)));
        let reply = arriving(crate::packet::remote(v6), source, L4::Udp(53, 5000));
        let mut reply = reply;
        let mac = std::fs::read_to_string("/sys/class/net/up1/address").unwrap();
        let mac: Vec<u8> = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        reply[..6].copy_from_slice(&mac);
        let ran = fixture.run("from_uplink", "up1", &reply);
        assert_eq!(ran.verdict, crate::fixture::REDIRECTED);
        assert_eq!(crate::packet::read(&ran.packet).destination, A.address(v6));
    }
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (4, 2));
    assert_eq!((fixture.held(A), fixture.keys()), ([1, 1], [2, 2]));
}

#[test]
fn a_flow_keeps_its_address_for_as_long_as_the_host_has_it() {
    let fixture = Fixture::new();
    let packet = |v6| out(A, v6, L4::Udp(5000, 53));
    let own = |v6| format!("{}/{}", external(v6), if v6 { 128 } else { 32 }).parse().unwrap();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &packet(v6));
        fixture.datapath.put_local(own(v6), Local::Own).unwrap();
    }
    ip("addr add 203.0.113.2/24 dev up0");
    ip("route replace default via 203.0.113.10 src 203.0.113.2");
    ip("addr add 2001:db8::2/64 dev up0 nodad");
    ip("-6 route replace default via 2001:db8::10 src 2001:db8::2");
    fixture.datapath.bump_fib_generation().unwrap();
    for (v6, preferred) in [(false, "203.0.113.2"), (true, "2001:db8::2")] {
        assert_eq!(fixture.assert_leaves(A, &packet(v6)).source, external(v6));
        let another = out(A, v6, L4::Udp(5001, 53));
        assert_eq!(fixture.assert_leaves(A, &another).source, address(preferred));
    }
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (4, 0));

    for v6 in [false, true] {
        fixture.datapath.remove_local(own(v6)).unwrap();
    }
    fixture.datapath.bump_fib_generation().unwrap();
    for (v6, preferred) in [(false, "203.0.113.2"), (true, "2001:db8::2")] {
        assert_eq!(fixture.assert_leaves(A, &packet(v6)).source, address(preferred));
    }
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (6, 2));
}

#[test]
fn a_flow_whose_route_is_gone_waits_for_another() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    ip("route del default");
    ip("-6 route del default");
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        fixture.assert_stack(A, &out(A, v6, L4::Udp(5000, 53)), "stack_host");
    }
    ip("route add default via 203.0.113.10");
    ip("-6 route add default via 2001:db8::10");
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    assert_eq!((fixture.took("flow_created"), fixture.took("flow_ended")), (2, 0));
}

#[test]
fn a_flow_whose_route_leaves_by_no_uplink_is_held() {
    let fixture = Fixture::new();
    ip("link add other type veth peer name otherp");
    ip("link set otherp up");
    ip("link set other up");
    ip("addr add 192.0.2.1/24 dev other");
    ip("addr add 2001:db8:2::1/64 dev other nodad");
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    // A route that prefers the flow's address, so that only the way is wrong.
    ip("route replace default via 192.0.2.10 src 203.0.113.1");
    ip("-6 route replace default via 2001:db8:2::10 src 2001:db8::1");
    fixture.datapath.bump_fib_generation().unwrap();
    for v6 in [false, true] {
        fixture.assert_drops("from_container", A.veth, &out(A, v6, L4::Udp(5000, 53)), "no_uplink");
    }
    assert_eq!(fixture.flows(), 2);
}
