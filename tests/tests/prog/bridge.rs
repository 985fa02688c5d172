//! Inside a network.

use std::net::IpAddr;

use etherparse::EtherType;
use netd::datapath::{
    bridge::{ICC, INTERNAL, MASQUERADE},
    endpoint::{ANY_SOURCE, ISOLATED, NO_GATEWAY, VIA_BRIDGE},
};

use netd_common::limits;

use crate::{
    fixture::{A, B, C, Container, Fixture, GATEWAY, NEXT, REDIRECTED, container, index, ip},
    packet::{
        L4, SYN, address, back, ethernet, extension, external, frame, leaving, out, read, remote, to,
        with_extensions, with_ipv4,
    },
};

fn between(v6: bool, l4: L4) -> Vec<u8> {
    frame([A.mac, B.mac], A.address(v6), B.address(v6), 1, l4, b"to a neighbour")
}

/// "B's address is at A's MAC": no, an answer of A's own.
fn arp_reply() -> Vec<u8> {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &A.mac, &A.ipv4.octets(), &B.mac, &B.ipv4.octets()].concat();
    ethernet([A.mac, B.mac], EtherType::ARP, &packet)
}

#[test]
fn who_shares_a_shortcut_is_told_apart() {
    let fixture = Fixture::new();
    // The same entry as A's by the port's index, and as B's by the MAC's last bytes.
    let double = Container { slot: 9, veth: "vd", mac: [2, 0, 0, 9, 17, 3], ..container(9, "vd", 17, 99) };
    ip(&format!("link add vd index {} type bridge", index(A.veth).0 + limits::SHORTCUTS));
    fixture.endpoint(double, 0, 0, 0);
    let frame_of = |from: Container, to: Container| {
        frame([from.mac, to.mac], from.address(false), to.address(false), 1, L4::Udp(5000, 53), b"")
    };
    let hear = |from: Container, to: Container| {
        let before = (fixture.traffic(from).sent.packets, fixture.traffic(to).delivered.packets);
        assert_eq!(fixture.send(from, &frame_of(from, to)).verdict, REDIRECTED);
        let after = (fixture.traffic(from).sent.packets, fixture.traffic(to).delivered.packets);
        assert_eq!(after, (before.0 + 1, before.1 + 1));
    };
    hear(A, B);
    hear(A, double);
    hear(double, A);
    hear(double, B);
    fixture.datapath.remove_endpoint(double.slot).unwrap();
    hear(A, B);
    hear(B, A);
    assert_eq!(fixture.send(A, &frame_of(A, double)).verdict, NEXT);
    fixture.assert_drops("from_container", "vd", &frame_of(double, B), "unknown_endpoint");
}

#[test]
fn a_known_station_gets_the_frame_as_it_is() {
    let fixture = Fixture::new();
    let packets = [
        between(false, L4::Tcp(5000, 80, SYN)),
        between(true, L4::Tcp(5000, 80, SYN)),
        between(false, L4::Udp(5000, 53)),
        between(true, L4::Udp(5000, 53)),
        between(false, L4::Echo(true, 7)),
        between(true, L4::Echo(false, 7)),
        between(false, L4::Other(47)),
        between(true, L4::Other(50)),
        with_ipv4(&between(false, L4::Udp(5000, 53)), |ip| ip.options = [1; 4].into()),
        with_extensions(&between(true, L4::Udp(5000, 53)), 0, &extension(17)),
        arp_reply(),
        ethernet([A.mac, B.mac], EtherType(0x88b5), b"neither IP nor ARP"),
    ];
    let mut bytes = 0;
    for packet in &packets {
        let mark = |context: &mut crate::fixture::Context| context.mark = 0x42;
        let ran = fixture.run_with("from_container", A.veth, packet, mark);
        assert_eq!(ran.verdict, REDIRECTED, "{packet:02x?}");
        assert_eq!(ran.packet, *packet);
        assert_eq!(ran.mark, 0, "the host's mark must not reach a container");
        bytes += packet.len() as u64;
    }
    let count = packets.len() as u64;
    assert_eq!(fixture.took("bridged"), count);
    let (sent, delivered) = (fixture.traffic(A).sent, fixture.traffic(B).delivered);
    assert_eq!((sent.packets, sent.bytes), (count, bytes));
    assert_eq!((delivered.packets, delivered.bytes), (count, bytes));
    assert_eq!(fixture.keys(), [0, 0], "traffic inside a network is not tracked");
}

#[test]
fn what_has_no_known_port_is_the_bridges() {
    let fixture = Fixture::new();
    for (mac, v6, destination) in [
        // Nobody, a station of another network, all, a group.
        ([2, 0, 0, 0, 17, 99], false, "172.17.0.99"),
        ([2, 0, 0, 0, 17, 99], true, "fd00:17::99"),
        (C.mac, false, "172.17.0.99"),
        ([0xff; 6], false, "172.17.255.255"),
        ([1, 0, 0x5e, 0, 0, 0xfb], false, "224.0.0.251"),
        ([0x33, 0x33, 0, 0, 0, 0xfb], true, "ff02::fb"),
    ] {
        let packet = frame([A.mac, mac], A.address(v6), address(destination), 1, L4::Udp(5353, 5353), b"");
        fixture.assert_passes("from_container", A.veth, &packet);
    }
    assert_eq!(fixture.took("flooded"), 6);
    assert_eq!(fixture.took("bridged"), 0);
}

#[test]
fn without_icc_neighbours_are_strangers() {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, MASQUERADE);
    for packet in [between(false, L4::Udp(5000, 53)), between(true, L4::Udp(5000, 53)), arp_reply()] {
        fixture.assert_drops("from_container", A.veth, &packet, "icc");
    }
    // Nor do they meet by way of the gateway, which would route the packet back into the bridge.
    for v6 in [false, true] {
        let around = frame([A.mac, GATEWAY], A.address(v6), B.address(v6), 64, L4::Udp(5000, 53), b"");
        fixture.assert_drops("from_container", A.veth, &around, "icc");
    }
    assert_eq!(fixture.traffic(B).delivered.packets, 0);
}

/// Both ways between A and B, in both families.
fn both_ways() -> Vec<(Container, Vec<u8>)> {
    let packet = |from: Container, to: Container, v6| {
        let addresses = (from.address(v6), to.address(v6));
        (from, frame([from.mac, to.mac], addresses.0, addresses.1, 64, L4::Udp(5000, 53), b""))
    };
    [false, true].into_iter().flat_map(|v6| [packet(A, B, v6), packet(B, A, v6)]).collect()
}

#[test]
fn what_the_bridge_may_refuse_is_left_to_it() {
    for (a, b, redirected) in [
        ((0, 1), (0, 1), true),
        ((0, 7), (0, 7), true),
        ((0, 7), (0, 8), false),
        ((0, 1), (NO_GATEWAY, 7), false),
        ((NO_GATEWAY, 7), (NO_GATEWAY, 7), true),
        ((ISOLATED, 0), (0, 0), true),
        ((ISOLATED, 0), (ISOLATED, 0), false),
        ((VIA_BRIDGE, 0), (0, 0), false),
        ((VIA_BRIDGE, 0), (VIA_BRIDGE, 0), false),
    ] {
        let fixture = Fixture::new();
        fixture.endpoint(A, 0, a.0, a.1);
        fixture.endpoint(B, 0, b.0, b.1);
        for (from, packet) in both_ways() {
            if redirected {
                assert_eq!(fixture.run("from_container", from.veth, &packet).verdict, REDIRECTED);
            } else {
                fixture.assert_passes("from_container", from.veth, &packet);
            }
        }
        let taken = if redirected { "bridged" } else { "flooded" };
        assert_eq!(fixture.took(taken), 4, "{a:?} {b:?}");
    }
}

#[test]
fn a_port_sends_nothing_back_to_itself() {
    let fixture = Fixture::new();
    let packet = frame([A.mac, A.mac], A.address(false), A.address(false), 64, L4::Udp(5000, 53), b"");
    fixture.assert_passes("from_container", A.veth, &packet);
    assert_eq!(fixture.took("bridged"), 0);
}

#[test]
fn isolated_ports_do_not_meet_by_way_of_the_gateway() {
    let fixture = Fixture::new();
    fixture.endpoint(A, 0, ISOLATED, 0);
    for v6 in [false, true] {
        let around = frame([A.mac, GATEWAY], A.address(v6), B.address(v6), 64, L4::Udp(5000, 53), b"");
        fixture.assert_drops("from_container", A.veth, &around, "icc");
    }
}

#[test]
fn without_the_fast_path_the_programs_only_judge() {
    let fixture = Fixture::new();
    fixture.endpoint(A, 0, VIA_BRIDGE, 0);
    for v6 in [false, true] {
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7)] {
            let packet = out(A, v6, l4);
            fixture.assert_stack(A, &packet, "stack_bridge");
            // The stack routes it, and what leaves is translated; so is the answer, which the stack routes back.
            let left = fixture.leave(&leaving(A.address(v6), remote(v6), l4));
            assert_eq!((left.verdict, read(&left.packet).source), (NEXT, external(v6)));
            let answer = back(v6, l4.reply());
            let ran = fixture.arrive(&answer);
            let (got, sent) = (read(&ran.packet), read(&answer));
            assert_eq!((ran.verdict, got.destination, got.ttl), (REDIRECTED, A.address(v6), sent.ttl));
            assert_eq!(got.macs, sent.macs, "in once more by the uplink");
        }
    }
    assert_eq!(fixture.traffic(A).delivered.packets, 0, "the veth counts those");
    for destination in ["172.18.0.2", "fd00:18::2"] {
        for l4 in [L4::Udp(5000, 53), L4::Echo(true, 7), L4::Other(47)] {
            fixture.assert_drops("from_container", A.veth, &to(A, destination, l4), "isolated");
        }
    }
    fixture.network(0, "br0", 17, MASQUERADE | ICC | INTERNAL);
    fixture.assert_drops("from_container", A.veth, &out(A, false, L4::Udp(5000, 53)), "internal");
}

/// The host, which hears what goes to all, takes what is for any of its addresses.
#[test]
fn who_is_internal_reaches_nobody_else_by_speaking_to_all() {
    let fixture = Fixture::new();
    let to_all = |destination: &str, group: [u8; 6]| {
        let destination: IpAddr = destination.parse().unwrap();
        let source = A.address(destination.is_ipv6());
        frame([A.mac, group], source, destination, 64, L4::Udp(5000, 53), b"to all")
    };
    let others = ["203.0.113.1", "172.18.0.1", "2001:db8::1", "fd00:18::1"];
    let own = ["172.17.0.1", "172.17.255.255", "255.255.255.255", "224.0.0.251", "fd00:17::1", "ff02::fb"];
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        fixture.network(0, "br0", 17, MASQUERADE | ICC);
        for destination in others.into_iter().chain(own) {
            fixture.assert_passes("from_container", A.veth, &to_all(destination, group));
        }
        fixture.network(0, "br0", 17, MASQUERADE | ICC | INTERNAL);
        for destination in others {
            fixture.assert_drops("from_container", A.veth, &to_all(destination, group), "internal");
        }
        for destination in own {
            fixture.assert_passes("from_container", A.veth, &to_all(destination, group));
        }
    }
}

#[test]
fn a_vlan_without_the_gateway_hears_nothing_from_it() {
    let fixture = Fixture::new();
    let l4 = L4::Udp(5000, 53);
    fixture.assert_leaves(A, &out(A, false, l4));
    fixture.endpoint(A, 0, NO_GATEWAY, 7);
    // To the gateway's MAC: the bridge knows that its own port is not in this VLAN.
    fixture.assert_passes("from_container", A.veth, &out(A, false, l4));
    fixture.assert_passes("from_container", A.veth, &out(A, true, l4));
    let ran = fixture.arrive(&back(false, l4.reply()));
    assert_eq!(ran.verdict, NEXT, "no redirect past the bridge");
}

#[test]
fn an_unguarded_port_speaks_for_others() {
    let fixture = Fixture::new();
    fixture.endpoint(A, 0, ANY_SOURCE | VIA_BRIDGE, 0);
    let nested = [2, 0, 0, 0, 17, 77];
    for v6 in [false, true] {
        let source = address(if v6 { "fd00:17::77" } else { "172.17.0.77" });
        let l4 = L4::Udp(5000, 53);
        let packet = frame([nested, B.mac], source, B.address(v6), 64, l4, b"");
        fixture.assert_passes("from_container", A.veth, &packet);
        let packet = frame([nested, GATEWAY], source, remote(v6), 64, l4, b"");
        fixture.assert_passes("from_container", A.veth, &packet);
        // But not to where A itself may not go.
        let elsewhere = address(if v6 { "fd00:18::2" } else { "172.18.0.2" });
        let packet = frame([nested, GATEWAY], source, elsewhere, 64, l4, b"");
        fixture.assert_drops("from_container", A.veth, &packet, "isolated");
    }
    assert_eq!(fixture.keys(), [0, 0]);
}
