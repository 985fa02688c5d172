//! Who a container says it is.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::EtherType;
use netd::{
    datapath::{EndpointEntry, Mac, NetworkEntry, bridge::ICC},
    model::Local,
};

use crate::{
    fixture::{A, B, C, Container, Fixture, GATEWAY, NEXT, REDIRECTED, entry, index},
    packet::{
        DESTINATION_OPTIONS, HOP_BY_HOP, L4, REMOTE, REMOTE6, address, back, ethernet, extension, fragments,
        frame, out, remote, with_extensions, with_ipv4,
    },
};

const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP packet; operation 1 asks, 2 answers.
fn arp(mac: [u8; 6], to: [u8; 6], operation: u8, sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(to);
    packet.extend(target.octets());
    ethernet([mac, to], EtherType::ARP, &packet)
}

/// A neighbour advertisement to all nodes.
fn advertisement(source: IpAddr, target: &str) -> Vec<u8> {
    let IpAddr::V6(target) = address(target) else { panic!("IPv6") };
    let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0], &target.octets()[..], &[2, 1], &A.mac].concat();
    frame([A.mac, [0x33, 0x33, 0, 0, 0, 1]], source, address("ff02::1"), 255, L4::Other(58), &message)
}

#[test]
fn a_false_sender_is_dropped() {
    let fixture = Fixture::new();
    let udp = L4::Udp(5000, 53);
    let from =
        |mac, source: &str, to: &str| frame([mac, GATEWAY], address(source), address(to), 64, udp, b"");
    for (packet, reason) in [
        (from(B.mac, "172.17.0.2", REMOTE), "spoofed_mac"),
        (from(B.mac, "fd00:17::2", REMOTE6), "spoofed_mac"),
        (from(A.mac, "172.17.0.3", REMOTE), "spoofed_address"),
        (from(A.mac, "172.17.0.1", REMOTE), "spoofed_address"),
        (from(A.mac, "fd00:17::3", REMOTE6), "spoofed_address"),
        (from(A.mac, "2001:db8::1", REMOTE6), "spoofed_address"),
        (ethernet([B.mac, BROADCAST], EtherType(0x88b5), b"anything"), "spoofed_mac"),
        (arp(A.mac, BROADCAST, 1, (B.mac, A.ipv4), B.ipv4), "spoofed_mac"),
        (arp(A.mac, BROADCAST, 1, (A.mac, B.ipv4), B.ipv4), "spoofed_address"),
        (arp(A.mac, B.mac, 2, (A.mac, Ipv4Addr::new(172, 17, 0, 1)), B.ipv4), "spoofed_address"),
        (advertisement(A.ipv6.into(), "fd00:17::1"), "spoofed_address"),
        (advertisement(address("fe80::2"), "fd00:17::3"), "spoofed_address"),
    ] {
        fixture.assert_drops("from_container", A.veth, &packet, reason);
    }
    assert_eq!(fixture.keys(), [0, 0]);
    assert_eq!(fixture.traffic(A).sent.packets, 12, "what was dropped was sent nevertheless");
}

/// A container on two networks sends under its address on the one by its interface on the other, where its default route leads.
#[test]
fn a_container_may_use_all_its_addresses() {
    let fixture = Fixture::new();
    let udp = L4::Udp(5000, 53);
    let speaks = |v6: bool| frame([A.mac, GATEWAY], C.address(v6), remote(v6), 64, udp, b"");
    let asks = |target: &str| match address(target) {
        IpAddr::V4(target) => arp(A.mac, BROADCAST, 1, (A.mac, C.ipv4), target),
        IpAddr::V6(_) => panic!("IPv4"),
    };
    let refused = [speaks(false), speaks(true), asks("172.17.0.1"), asks("172.17.0.3")];
    for packet in &refused {
        fixture.assert_drops("from_container", A.veth, packet, "spoofed_address");
    }
    let beside = EndpointEntry { sandbox: entry(A, 0).sandbox, ..entry(C, 1) };
    fixture.datapath.put_endpoint(C.slot, &beside).unwrap();
    for v6 in [false, true] {
        let ran = fixture.send(A, &speaks(v6));
        assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
    }
    let flows = fixture.datapath.flows().unwrap();
    assert!(flows.len() == 2 && flows.iter().all(|flow| flow.endpoint == Some(C.slot)), "{flows:?}");
    assert_eq!(fixture.send(A, &asks("172.17.0.1")).verdict, REDIRECTED, "of the gateway");
    // Within a network each has one address, and whoever names another is not its neighbour.
    let to_b = |v6: bool| frame([A.mac, B.mac], C.address(v6), B.address(v6), 64, udp, b"");
    for packet in [to_b(false), to_b(true), asks("172.17.0.3"), advertisement(C.ipv6.into(), "fd00:18::2")] {
        fixture.assert_drops("from_container", A.veth, &packet, "spoofed_address");
    }
}

#[test]
fn link_local_addresses_stay_on_the_link() {
    let fixture = Fixture::new();
    let own = Ipv4Addr::new(169, 254, 1, 1);
    let to_all = frame([A.mac, BROADCAST], own.into(), address("169.254.255.255"), 1, L4::Udp(1, 2), b"");
    fixture.assert_passes("from_container", A.veth, &to_all);
    let nobody = Ipv4Addr::new(169, 254, 1, 2);
    fixture.assert_passes("from_container", A.veth, &arp(A.mac, BROADCAST, 1, (A.mac, own), nobody));
    let to_b = frame([A.mac, B.mac], own.into(), B.ipv4.into(), 1, L4::Udp(1, 2), b"");
    assert_eq!(fixture.send(A, &to_b).packet, to_b);
    assert_eq!(fixture.took("bridged"), 1);
    let beyond = frame([A.mac, GATEWAY], own.into(), address(REMOTE), 64, L4::Udp(1, 2), b"");
    fixture.assert_drops("from_container", A.veth, &beyond, "spoofed_address");
}

/// A link-local address is of its link alone, and there of one.
#[test]
fn a_link_local_address_is_whose_it_is_known_to_be() {
    let fixture = Fixture::new();
    let given: [IpAddr; 2] = [address("169.254.7.7"), address("fe80::7777")];
    let give = |container: Container, network: u32| {
        fixture.datapath.put_link_locals(container.slot, network, &given.into_iter().collect()).unwrap();
    };
    let asks =
        || arp(A.mac, BROADCAST, 1, (A.mac, Ipv4Addr::new(169, 254, 7, 7)), Ipv4Addr::new(169, 254, 7, 9));
    let to_b = |source: &str| {
        let destination = if source.contains(':') { address("fe80::b") } else { address("169.254.7.9") };
        frame([A.mac, B.mac], address(source), destination, 64, L4::Udp(1, 2), b"")
    };
    let claims = |source: &str| advertisement(A.ipv6.into(), source);
    let theirs = ["fe80::7777", "fe80::ff:fe00:1103", "fe80::ff:fe00:1", "fe80::99"];
    // What the kernel makes of B's MAC and of the bridge's, and an address of the host's.
    fixture.datapath.put_local("fe80::ff:fe00:1/128".parse().unwrap(), Local::Own).unwrap();
    fixture.datapath.put_local("fe80::99/128".parse().unwrap(), Local::Own).unwrap();
    give(B, 0);
    for packet in theirs.iter().flat_map(|it| [to_b(it), claims(it)]).chain([asks(), to_b("169.254.7.7")]) {
        fixture.assert_drops("from_container", A.veth, &packet, "spoofed_address");
    }
    // Its own, those of nobody, and those that somebody has on another link.
    let passes = |packet: &[u8]| {
        let before = fixture.dropped();
        fixture.send(A, packet);
        assert_eq!(fixture.dropped(), before, "{packet:x?}");
    };
    for own in ["fe80::ff:fe00:1102", "fe80::1234"] {
        passes(&to_b(own));
        passes(&claims(own));
    }
    for (container, network) in [(B, 1), (A, 0)] {
        fixture.datapath.put_link_locals(B.slot, 0, &Default::default()).unwrap();
        give(container, network);
        for packet in [to_b("fe80::7777"), claims("fe80::7777"), asks(), to_b("169.254.7.7")] {
            passes(&packet);
        }
    }
    fixture.datapath.put_link_locals(B.slot, 1, &Default::default()).unwrap();
    assert_eq!(fixture.datapath.observe().unwrap().link_locals, [(A.slot, given.into())].into());
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    assert_eq!(fixture.datapath.observe().unwrap().link_locals, Default::default());
}

/// CVE-2020-10749: one container's router advertisement leads all of its neighbours' IPv6 to it.
#[test]
fn routers_are_not_found_among_containers() {
    let fixture = Fixture::new();
    let message = |kind: u8| {
        let all = [A.mac, [0x33, 0x33, 0, 0, 0, 1]];
        frame(all, address("fe80::2"), address("ff02::1"), 255, L4::Other(58), &[kind, 0, 0, 0, 64, 0, 1, 0])
    };
    for kind in [134, 137] {
        fixture.assert_drops("from_container", A.veth, &message(kind), "spoofed_address");
    }
    fixture.assert_passes("from_container", A.veth, &message(143));
    // Where nobody else is the gateway, a container may be.
    let bare =
        NetworkEntry { bridge: index("br0"), flags: ICC, mac: Mac::new(GATEWAY), ..Default::default() };
    fixture.datapath.put_network(0, &bare).unwrap();
    fixture.assert_passes("from_container", A.veth, &message(134));
}

#[test]
fn nobody_says_by_whom_a_packet_is_to_go() {
    let fixture = Fixture::new();
    let packet = out(A, false, L4::Udp(5000, 53));
    let arrives = back(false, L4::Udp(53, 5000));
    for (options, dropped) in [
        (vec![131, 7, 4, 198, 51, 100, 9, 0], true),
        (vec![137, 7, 4, 198, 51, 100, 9, 0], true),
        // Behind others.
        (vec![1, 1, 148, 4, 0, 0, 1, 131, 7, 4, 198, 51, 100, 9, 1, 0], true),
        // A router alert; a record of the route, with a source route's number in it; one that ends before.
        (vec![148, 4, 0, 0], false),
        (vec![7, 7, 4, 131, 131, 131, 131, 0], false),
        (vec![0, 131, 7, 4], false),
        (vec![148, 0, 131, 7], false),
    ] {
        let with = |packet: &[u8]| with_ipv4(packet, |ip| ip.options = (&*options).try_into().unwrap());
        for (program, interface, packet) in
            [("from_container", A.veth, with(&packet)), ("from_uplink", "up0", with(&arrives))]
        {
            if dropped {
                fixture.assert_drops(program, interface, &packet, "source_route");
            } else {
                fixture.run(program, interface, &packet);
            }
        }
    }
    assert_eq!(fixture.drops("source_route"), 6);
}

#[test]
fn an_advertisement_cannot_hide_behind_other_headers() {
    let fixture = Fixture::new();
    let false_one = advertisement(A.ipv6.into(), "fd00:17::3");
    for first in [HOP_BY_HOP, DESTINATION_OPTIONS] {
        let packet = with_extensions(&false_one, first, &extension(58));
        fixture.assert_drops("from_container", A.veth, &packet, "spoofed_address");
    }
    let [first, _] = fragments(&false_one, 7, 24);
    fixture.assert_drops("from_container", A.veth, &first, "spoofed_address");
}

#[test]
fn a_true_sender_passes() {
    let fixture = Fixture::new();
    let none = Ipv4Addr::UNSPECIFIED;
    for packet in [
        arp(A.mac, BROADCAST, 1, (A.mac, A.ipv4), Ipv4Addr::new(172, 17, 0, 99)),
        // A probe for its address (RFC 5227), and a request to be given one.
        arp(A.mac, BROADCAST, 1, (A.mac, none), A.ipv4),
        frame([A.mac, BROADCAST], none.into(), address("255.255.255.255"), 64, L4::Udp(68, 67), b""),
        advertisement(A.ipv6.into(), "fd00:17::2"),
        advertisement(address("fe80::2"), "fe80::2"),
        frame(
            [A.mac, [0x33, 0x33, 0, 0, 0, 2]],
            address("fe80::2"),
            address("ff02::2"),
            255,
            L4::Udp(1, 2),
            b"",
        ),
        ethernet([A.mac, BROADCAST], EtherType(0x88b5), b"anything"),
    ] {
        fixture.assert_passes("from_container", A.veth, &packet);
    }
    assert_eq!(fixture.took("flooded"), 7);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn a_source_that_no_router_forwards_begins_no_flow() {
    // Nothing tells two containers' link-local addresses apart, and no reply can be routed to 0.0.0.0.
    let fixture = Fixture::new();
    for (source, v6) in [("fe80::2", true), ("::", true), ("0.0.0.0", false)] {
        let packet = frame([A.mac, GATEWAY], address(source), remote(v6), 64, L4::Udp(5000, 53), b"");
        fixture.assert_passes("from_container", A.veth, &packet);
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn a_veth_that_belongs_to_nobody_is_closed() {
    let fixture = Fixture::new();
    fixture.assert_drops("from_container", "up0", &out(A, false, L4::Udp(5000, 53)), "unknown_endpoint");
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    fixture.assert_drops("from_container", A.veth, &out(A, false, L4::Udp(5000, 53)), "unknown_endpoint");
    // Its neighbours no longer reach it past the bridge either.
    let packet = frame([B.mac, A.mac], B.ipv4.into(), A.ipv4.into(), 64, L4::Udp(1, 2), b"");
    assert_eq!(fixture.send(B, &packet).verdict, NEXT);
}
