//! What the host's stack has to see to: for itself, or because a program cannot.

use crate::{
    fixture::{A, Context, Fixture, GATEWAY, NEXT, REDIRECTED},
    packet::{
        DESTINATION_OPTIONS, HOP_BY_HOP, L4, SYN, extension, fragments, frame, l4, out, remote, to,
        with_extensions, with_ipv4,
    },
};

#[test]
fn what_is_for_the_host_is_the_hosts() {
    let fixture = Fixture::new();
    // The gateway, the uplink's own address, multicast by way of the gateway, a neighbour by way of the gateway.
    for destination in [
        "172.17.0.1",
        "fd00:17::1",
        "203.0.113.1",
        "2001:db8::1",
        "224.0.0.251",
        "255.255.255.255",
        "127.0.0.1",
        "ff02::fb",
        "fe80::1",
        "172.17.0.3",
        "fd00:17::3",
    ] {
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7), L4::Other(47)] {
            fixture.assert_stack(A, &to(A, destination, l4), "stack_host");
        }
        for fragment in fragments(&to(A, destination, L4::Udp(5000, 53)), 7, 16) {
            fixture.assert_stack(A, &fragment, "stack_host");
        }
    }
    assert_eq!(fixture.keys(), [0, 0]);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn the_ttl_ends_in_the_stack() {
    let fixture = Fixture::new();
    for (v6, ttl) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let packet = frame([A.mac, GATEWAY], A.address(v6), remote(v6), ttl, L4::Udp(5000, 33434), b"");
        fixture.assert_stack(A, &packet, "stack_ttl");
    }
    for v6 in [false, true] {
        let packet = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 2, L4::Udp(5000, 33434), b"");
        assert_eq!(fixture.assert_leaves(A, &packet).ttl, 1);
    }
}

#[test]
fn options_are_for_the_stack() {
    let fixture = Fixture::new();
    for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7)] {
        let packet = with_ipv4(&out(A, false, l4), |ip| ip.options = [1; 8].into());
        fixture.assert_stack(A, &packet, "stack_options");
    }
    for first in [HOP_BY_HOP, DESTINATION_OPTIONS, 43] {
        let packet = with_extensions(&out(A, true, L4::Udp(5000, 53)), first, &extension(17));
        fixture.assert_stack(A, &packet, "stack_options");
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

/// A packet to the remote with this many bytes of IP packet.
fn of_size(v6: bool, l4: L4, size: usize) -> Vec<u8> {
    let headers = self::l4(v6) - 14 + if matches!(l4, L4::Tcp(..)) { 20 } else { 8 };
    frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, l4, &vec![0x5a; size - headers])
}

#[test]
fn what_the_route_cannot_take_goes_to_the_stack() {
    let fixture = Fixture::new();
    crate::fixture::ip("link set up0 mtu 1400");
    for v6 in [false, true] {
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7)] {
            assert_eq!(fixture.send(A, &of_size(v6, l4, 1400)).verdict, REDIRECTED);
            // The flow is there already; what is larger passes it by unchanged.
            fixture.assert_stack(A, &of_size(v6, l4, 1401), "stack_mtu");
        }
    }
    assert_eq!(fixture.took("stack_mtu"), 6);
}

#[test]
fn a_super_frame_is_judged_by_its_segments() {
    let fixture = Fixture::new();
    crate::fixture::ip("link set up0 mtu 1400");
    for v6 in [false, true] {
        for (l4, header) in [(L4::Tcp(5000, 80, SYN), 20), (L4::Udp(5000, 53), 8)] {
            let packet = of_size(v6, l4, 3000);
            let fitting = (1400 - (self::l4(v6) - 14) - header) as u32;
            for (size, verdict) in [(fitting, REDIRECTED), (fitting + 1, NEXT)] {
                let set = |context: &mut Context| (context.gso_size, context.gso_segs) = (size, 3);
                let ran = fixture.run_with("from_container", A.veth, &packet, set);
                assert_eq!(ran.verdict, verdict, "segments of {size} bytes");
                assert_eq!(ran.packet == packet, verdict == NEXT);
            }
        }
    }
    assert_eq!(fixture.took("stack_mtu"), 4);
}
