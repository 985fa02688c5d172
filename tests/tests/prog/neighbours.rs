//! Who has an address? The question goes to the one who has it.

use std::net::IpAddr;

use etherparse::EtherType;
use netd::datapath::{
    Mac, NetworkEntry,
    bridge::{ICC, INTERNAL, MASQUERADE},
    endpoint::{ANY_SOURCE, DELIVERED_LIMITED, ISOLATED, NO_GATEWAY, VIA_BRIDGE},
};

use crate::{
    fixture::{A, B, C, Container, Fixture, GATEWAY, NEXT, REDIRECTED, Ran, container, index},
    packet::{HOP_BY_HOP, L3, address, ethernet, extension, icmp_error, l4, with_extensions},
};

const BROADCAST: [u8; 6] = [0xff; 6];

/// "Who has `target`? Tell `sender`", in their family.
fn who_has(mac: [u8; 6], sender: IpAddr, target: IpAddr) -> Vec<u8> {
    match (sender, target) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            let question = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &sender.octets(), &[0; 6], &target.octets()];
            ethernet([mac, BROADCAST], EtherType::ARP, &question.concat())
        }
        (_, IpAddr::V6(ipv6)) => {
            let [.., a, b, c] = ipv6.octets();
            let group = address(&format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}"));
            let message = [&ipv6.octets()[..], &[1, 1], &mac].concat();
            let to = [0x33, 0x33, 0xff, a, b, c];
            let mut packet = icmp_error([mac, to], sender, group, [135, 0], 0, &message);
            packet[L3 + 7] = 255;
            packet
        }
        _ => panic!("two families in one question"),
    }
}

/// In both families: a container asks for an address that ends in this number.
fn questions(from: Container, host: u8) -> [Vec<u8>; 2] {
    [false, true].map(|v6| {
        let target = if v6 { format!("fd00:17::{host:x}") } else { format!("172.17.0.{host}") };
        who_has(from.mac, from.address(v6), address(&target))
    })
}

/// A container asks, and another one is asked, as it was said.
fn assert_asks(fixture: &Fixture, from: Container, question: &[u8], whom: Container) {
    let before = (fixture.took("bridged"), fixture.traffic(whom).delivered.packets);
    let ran = fixture.send(from, question);
    assert_eq!((ran.verdict, &ran.packet[..]), (REDIRECTED, question), "{:?}", fixture.datapath.counters());
    let after = (fixture.took("bridged"), fixture.traffic(whom).delivered.packets);
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{question:02x?}");
}

/// A container asks, and the bridge asks all.
fn assert_asks_all(fixture: &Fixture, from: Container, question: &[u8]) {
    let before = fixture.took("flooded");
    fixture.assert_passes("from_container", from.veth, question);
    assert_eq!(fixture.took("flooded"), before + 1);
}

#[test]
fn who_has_an_address_is_asked_alone() {
    let fixture = Fixture::new();
    for question in questions(A, 3) {
        assert_asks(&fixture, A, &question, B);
    }
    // Whoever has no address yet, or one of the link's own, is heard by the same station.
    for (sender, v6) in [("0.0.0.0", false), ("169.254.1.1", false), ("::", true), ("fe80::2", true)] {
        assert_asks(&fixture, A, &who_has(A.mac, address(sender), B.address(v6)), B);
    }
    fixture.endpoint(B, 0, DELIVERED_LIMITED, 0);
    let (bridged, counted) = (fixture.took("bridged"), fixture.traffic(B).delivered.packets);
    for question in questions(A, 3) {
        assert_eq!(fixture.send(A, &question).verdict, REDIRECTED);
    }
    assert_eq!(fixture.took("bridged"), bridged + 2);
    assert_eq!(fixture.traffic(B).delivered.packets, counted, "the veth counts what goes by its queue");
    assert_eq!((fixture.took("flooded"), fixture.dropped()), (0, 0));
    assert_eq!(fixture.keys(), [0, 0]);
    // Without `icc` they hear nothing of each other, be it a question.
    fixture.network(0, "br0", 17, MASQUERADE);
    for question in questions(A, 3) {
        fixture.assert_drops("from_container", A.veth, &question, "icc");
    }
}

#[test]
fn the_gateway_is_the_host_and_the_host_alone_is_asked() {
    let fixture = Fixture::new();
    fixture.endpoint(B, 0, ISOLATED, 0);
    for flags in [MASQUERADE | ICC, MASQUERADE, MASQUERADE | ICC | INTERNAL] {
        fixture.network(0, "br0", 17, flags);
        for from in [A, B] {
            for question in questions(from, 1) {
                let before = fixture.took("stack_host");
                let ran = fixture.send(from, &question);
                assert_eq!((ran.verdict, ran.packet), (REDIRECTED, question));
                assert_eq!(fixture.took("stack_host"), before + 1);
            }
        }
    }
    // Where the bridge would not let it through, or is to see to it.
    for flags in [NO_GATEWAY, VIA_BRIDGE, VIA_BRIDGE | ANY_SOURCE] {
        let fixture = Fixture::new();
        fixture.endpoint(A, 0, flags, 7);
        for question in questions(A, 1) {
            assert_asks_all(&fixture, A, &question);
        }
    }
}

/// "Who is a router?", to all that are.
fn for_routers(from: Container, hop_limit: u8) -> Vec<u8> {
    let macs = [from.mac, [0x33, 0x33, 0, 0, 0, 2]];
    let mut packet = icmp_error(macs, address("fe80::2"), address("ff02::2"), [133, 0], 0, &[]);
    packet[L3 + 7] = hop_limit;
    packet
}

#[test]
fn the_host_is_the_router_where_it_is_the_gateway() {
    let fixture = Fixture::new();
    let ran = fixture.send(A, &for_routers(A, 255));
    assert_eq!((ran.verdict, ran.packet), (REDIRECTED, for_routers(A, 255)));
    assert_eq!(fixture.took("stack_host"), 1);
    assert_asks_all(&fixture, A, &for_routers(A, 64));
    fixture.endpoint(B, 0, VIA_BRIDGE, 0);
    assert_asks_all(&fixture, B, &for_routers(B, 255));
    // Somebody else has the gateway's address.
    let entry = NetworkEntry {
        bridge: index("br0"),
        flags: MASQUERADE | ICC,
        mac: Mac::new(GATEWAY),
        ..NetworkEntry::default()
    };
    fixture.datapath.put_network(0, &entry).unwrap();
    for question in [vec![for_routers(A, 255)], questions(A, 1).into()].concat() {
        assert_asks_all(&fixture, A, &question);
    }
}

#[test]
fn a_question_is_for_all_if_nobody_known_can_answer() {
    let fixture = Fixture::new();
    let truncated = |packet: &[u8], bytes: usize| packet[..bytes].to_vec();
    let changed = |packet: &[u8], offset: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[offset] = byte;
        packet
    };
    let [arp, solicitation] = questions(A, 3);
    let [announcement, own] = questions(A, 2);
    for question in [
        // Nobody has it; the asker has it; somebody has it who is in another network.
        questions(A, 99),
        [announcement, own],
        [false, true].map(|v6| who_has(A.mac, A.address(v6), C.address(v6))),
        [who_has(A.mac, address("0.0.0.0"), A.ipv4.into()), who_has(A.mac, address("::"), A.ipv6.into())],
        // An answer to all, and an advertisement to all; its target is A's own, as the guard demands.
        [
            changed(&changed(&arp, L3 + 7, 2), L3 + 27, 2),
            changed(&changed(&solicitation, l4(true), 136), l4(true) + 23, 2),
        ],
        // Not from this link; not for this link's hosts to know; cut short.
        [changed(&solicitation, L3 + 7, 64), changed(&solicitation, l4(true) + 1, 1)],
        [with_extensions(&solicitation, HOP_BY_HOP, &extension(58)), truncated(&solicitation, 70)],
    ]
    .concat()
    {
        assert_asks_all(&fixture, A, &question);
    }
    let spoofed = who_has(A.mac, B.ipv4.into(), address("172.17.0.1"));
    fixture.assert_drops("from_container", A.veth, &spoofed, "spoofed_address");
    let spoofed = who_has(A.mac, B.ipv6.into(), address("fd00:17::1"));
    fixture.assert_drops("from_container", A.veth, &spoofed, "spoofed_address");
}

#[test]
fn a_question_goes_no_way_that_the_bridge_may_refuse() {
    for (a, b, asked) in [
        ((0, 7), (0, 7), true),
        ((0, 7), (0, 8), false),
        ((NO_GATEWAY, 7), (NO_GATEWAY, 7), true),
        ((ISOLATED, 0), (0, 0), true),
        ((ISOLATED, 0), (ISOLATED, 0), false),
        ((VIA_BRIDGE, 0), (0, 0), false),
        ((0, 0), (VIA_BRIDGE, 0), false),
        ((0, 0), (VIA_BRIDGE | ANY_SOURCE, 0), false),
        ((VIA_BRIDGE | ANY_SOURCE, 0), (0, 0), false),
    ] {
        let fixture = Fixture::new();
        fixture.endpoint(A, 0, a.0, a.1);
        fixture.endpoint(B, 0, b.0, b.1);
        for (from, whom, host) in [(A, B, 3), (B, A, 2)] {
            for question in questions(from, host) {
                if asked {
                    assert_asks(&fixture, from, &question, whom);
                } else {
                    assert_asks_all(&fixture, from, &question);
                }
            }
        }
    }
}

#[test]
fn who_is_asked_is_who_has_the_address_by_now() {
    let fixture = Fixture::new();
    fixture.datapath.remove_endpoint(B.slot).unwrap();
    for question in questions(A, 3) {
        assert_asks_all(&fixture, A, &question);
    }
    let heir = Container { slot: 9, mac: [2, 0, 0, 9, 17, 3], ..container(9, "vb", 17, 3) };
    fixture.endpoint(heir, 0, 0, 0);
    for question in questions(A, 3) {
        assert_asks(&fixture, A, &question, heir);
    }
}

#[test]
fn what_has_a_tag_is_a_question_in_the_bridges_vlan() {
    let fixture = Fixture::new();
    for question in questions(A, 3) {
        let tagged = [&question[..12], &[0x81, 0, 0, 7], &question[12..]].concat();
        assert_eq!(fixture.send(A, &tagged).verdict, NEXT);
    }
    assert_eq!(fixture.took("bridged"), 0);
}

#[test]
fn the_host_asks_who_has_the_address() {
    let fixture = Fixture::new();
    fixture.endpoint(B, 0, ISOLATED, 0);
    let host = |v6, target: IpAddr| {
        let own = address(if v6 { "fd00:17::1" } else { "172.17.0.1" });
        who_has(GATEWAY, own, target)
    };
    let ask = |question: &[u8]| -> Ran { fixture.run("from_host", "br0", question) };
    for v6 in [false, true] {
        for whom in [A, B] {
            let question = host(v6, whom.address(v6));
            let ran = ask(&question);
            assert_eq!((ran.verdict, ran.packet), (REDIRECTED, question));
        }
        // Another network's, and nobody's.
        let nobody = address(if v6 { "fd00:17::63" } else { "172.17.0.99" });
        for target in [C.address(v6), nobody] {
            fixture.assert_passes("from_host", "br0", &host(v6, target));
        }
    }
    assert_eq!(fixture.took("bridged"), 4);
    assert_eq!(fixture.traffic(A).delivered.packets, 0, "the veth counts those");
    for flags in [NO_GATEWAY, VIA_BRIDGE] {
        fixture.endpoint(B, 0, flags, 7);
        for v6 in [false, true] {
            fixture.assert_passes("from_host", "br0", &host(v6, B.address(v6)));
        }
    }
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    for v6 in [false, true] {
        fixture.assert_passes("from_host", "br0", &host(v6, A.address(v6)));
    }
}
