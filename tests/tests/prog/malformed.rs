//! Packets that are cut short or say something impossible.

use crate::{
    fixture::{A, Context, Fixture, REDIRECTED},
    packet::{
        DESTINATION_OPTIONS, L3, L4, SYN, arriving, back, ethernet, extension, l4, leaving, out, remote,
        with_extensions, with_total_length,
    },
};
use etherparse::EtherType;
use netd::model::{HostPorts, Protocol, Reserver};

/// The packet with one byte changed.
fn with(packet: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] = byte;
    packet
}

/// Eight extension headers, more than any host sends.
fn chain(packet: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for _ in 0..7 {
        headers.extend(extension(DESTINATION_OPTIONS));
    }
    headers.extend(extension(17));
    with_extensions(packet, DESTINATION_OPTIONS, &headers)
}

/// Everything that is wrong with a packet of either family: `of` makes a good one.
fn broken(of: impl Fn(bool, L4) -> Vec<u8>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for v6 in [false, true] {
        let at = l4(v6);
        let (tcp, udp) = (of(v6, L4::Tcp(5000, 80, SYN)), of(v6, L4::Udp(5000, 53)));
        let echo = of(v6, L4::Echo(true, 7));
        // The other version's number in this version's packet, and a version that is none.
        packets.push(with(&udp, L3, if v6 { 0x45 } else { 0x65 }));
        packets.push(with(&udp, L3, if v6 { 0x50 } else { 0x55 }));
        // Transport headers that are not all there.
        packets.extend([0, 3, 7].map(|bytes| udp[..at + bytes].to_vec()));
        packets.extend([0, 3, 13, 19].map(|bytes| tcp[..at + bytes].to_vec()));
        packets.extend([0, 3, 7].map(|bytes| echo[..at + bytes].to_vec()));
        // A TCP header that says it is shorter than the shortest.
        packets.push(with(&tcp, at + 12, 0x40));
    }
    packets.push(with(&of(false, L4::Udp(5000, 53)), L3, 0x44));
    packets.push(chain(&of(true, L4::Udp(5000, 53))));
    // An extension header of which nothing, or not enough, is there.
    packets.push(with(&of(true, L4::Udp(5000, 53))[..l4(true)], L3 + 6, 44));
    packets.push(with(&of(true, L4::Udp(5000, 53))[..l4(true) + 4], L3 + 6, DESTINATION_OPTIONS));
    packets
}

/// Packets that are not as long as they say, and one whose header was changed on the way.
fn misstated(of: impl Fn(bool, L4) -> Vec<u8>) -> Vec<Vec<u8>> {
    let udp = |v6| of(v6, L4::Udp(5000, 53));
    let length = |length: u16| with_total_length(&udp(false), length);
    let [_, low] = u16::from_be_bytes([udp(true)[L3 + 4], udp(true)[L3 + 5]]).to_be_bytes();
    vec![
        with(&udp(false), L3 + 10, udp(false)[L3 + 10] ^ 1),
        length(0),
        length(19),
        length((udp(false).len() - L3 + 1) as u16),
        with(&udp(true), L3 + 5, low + 1),
        with(&udp(true), L3 + 4, 1),
    ]
}

/// What comes behind the packet fills the frame up (RFC 894), and a super-frame may have no room for its length.
#[test]
fn a_frame_may_be_longer_than_its_packet() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let packet = [out(A, v6, L4::Udp(5000, 53)), vec![0; 18]].concat();
        assert_eq!(fixture.send(A, &packet).verdict, REDIRECTED);
        assert_eq!(fixture.arrive(&[back(v6, L4::Udp(53, 5000)), vec![0; 18]].concat()).verdict, REDIRECTED);
    }
    let large = with_total_length(&out(A, false, L4::Tcp(5000, 80, SYN)), 0);
    let set = |context: &mut Context| (context.gso_segs, context.gso_size) = (2, 1000);
    assert_eq!(fixture.run_with("from_container", A.veth, &large, set).verdict, REDIRECTED);
    assert_eq!(fixture.dropped(), 0);
}

/// Of a flow that there is it is the receiver who drops it.
#[test]
fn what_is_not_as_it_was_sent_begins_nothing() {
    let fixture = Fixture::new();
    for at in ["0.0.0.0", "::"] {
        let host = HostPorts { protocol: Protocol::Udp, address: at.parse().unwrap(), first: 53, last: 53 };
        fixture.datapath.put_publication(&host, A.slot, 53, Reserver::Netd).unwrap();
    }
    for packet in misstated(|v6, l4| out(A, v6, l4)) {
        fixture.assert_drops("from_container", A.veth, &packet, "malformed");
    }
    for packet in misstated(back) {
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    assert_eq!(fixture.keys(), [0, 0]);
    for v6 in [false, true] {
        fixture.assert_returns(A, &back(v6, L4::Udp(5000, 53)));
    }
}

#[test]
fn from_a_container_it_is_dropped() {
    let fixture = Fixture::new();
    for packet in broken(|v6, l4| out(A, v6, l4)) {
        fixture.assert_drops("from_container", A.veth, &packet, "malformed");
    }
    // ARP that is cut short, or of another kind of address.
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &A.mac, &A.ipv4.octets(), &[0; 6], &[172, 17, 0, 3]].concat();
    for arp in [arp[..17].to_vec(), with(&arp, 4, 8), with(&arp, 5, 16)] {
        let packet = ethernet([A.mac, [0xff; 6]], EtherType::ARP, &arp);
        fixture.assert_drops("from_container", A.veth, &packet, "malformed");
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

/// Whoever forwards reads no extension header, and the stack would forward it.
#[test]
fn straight_to_a_container_it_is_dropped_however_much_stands_before() {
    let fixture = Fixture::new();
    for destination in ["fd00:17::2", "fd00:18::2"] {
        let packet = arriving(remote(true), destination.parse().unwrap(), L4::Udp(5000, 53));
        fixture.assert_drops("from_uplink", "up0", &packet, "direct_access");
        fixture.assert_drops("from_uplink", "up0", &chain(&packet), "malformed");
    }
}

#[test]
fn from_the_outside_it_is_the_stacks() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        // Flows that the packets would belong to, if they were whole.
        for l4 in [L4::Tcp(5000, 80, SYN), L4::Udp(5000, 53), L4::Echo(true, 7)] {
            fixture.assert_leaves(A, &out(A, v6, l4));
        }
    }
    for packet in broken(|v6, l4| back(v6, l4.reply())) {
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    assert_eq!((fixture.dropped(), fixture.took("returned")), (0, 0));
}

#[test]
fn from_the_stack_no_part_of_it_leaves() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let of = |l4| leaving(A.address(v6), remote(v6), l4);
        let at = l4(v6);
        for packet in [
            of(L4::Udp(5000, 53))[..at + 3].to_vec(),
            of(L4::Tcp(5000, 80, SYN))[..at + 13].to_vec(),
            with(&of(L4::Tcp(5000, 80, SYN)), at + 12, 0x40),
        ] {
            fixture.assert_drops("to_uplink", "up0", &packet, "malformed");
        }
    }
    assert_eq!(fixture.keys(), [0, 0]);
}
