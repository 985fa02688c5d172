//! Inside a network.

use etherparse::EtherType;

use crate::{
    fixture::{A, B, C, Fixture, REDIRECTED},
    packet::{L4, SYN, address, ethernet, extension, frame, with_extensions, with_ipv4},
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
    fixture.network(0, "br0", 17, netd::datapath::bridge::MASQUERADE);
    for packet in [between(false, L4::Udp(5000, 53)), between(true, L4::Udp(5000, 53)), arp_reply()] {
        fixture.assert_drops("from_container", A.veth, &packet, "icc");
    }
    // Nor do they meet by way of the gateway, which would route the packet back into the bridge.
    for v6 in [false, true] {
        let gateway = crate::fixture::GATEWAY;
        let around = frame([A.mac, gateway], A.address(v6), B.address(v6), 64, L4::Udp(5000, 53), b"");
        fixture.assert_drops("from_container", A.veth, &around, "icc");
    }
    assert_eq!(fixture.traffic(B).delivered.packets, 0);
}
