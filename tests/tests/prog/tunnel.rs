//! Uplinks without an Ethernet header.
//!
//! BPF_PROG_TEST_RUN takes every packet for a frame, and tells the program of the protocol that bytes 12 and 13 name. In a
//! packet without a frame these are of the source address: hence the addresses here, which say what the packet is.

use std::net::IpAddr;

use crate::{
    fixture::{A, DROPPED, Fixture, GATEWAY, NEXT, REDIRECTED},
    packet::{ACK, L3, L4, SYN, address, frame, read},
};

fn remote(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8:86dd::7" } else { "8.0.0.7" })
}

fn external(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8:2::1" } else { "192.0.2.1" })
}

/// A packet as a tunnel has it.
fn bare(source: IpAddr, destination: IpAddr, ttl: u8, l4: L4) -> Vec<u8> {
    frame([[0; 6]; 2], source, destination, ttl, l4, b"through the tunnel")[L3..].to_vec()
}

#[test]
fn a_flow_goes_into_a_tunnel_and_its_reply_comes_out() {
    let fixture = Fixture::new();
    fixture.tunnel();
    for v6 in [false, true] {
        for (l4, reply) in [
            (L4::Udp(5000, 53), L4::Udp(53, 5000)),
            (L4::Tcp(5001, 80, SYN), L4::Tcp(80, 5001, SYN | ACK)),
            (L4::Echo(true, 7), L4::Echo(false, 7)),
        ] {
            let sent = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, l4, b"into the tunnel");
            let left = fixture.assert_leaves(A, &sent);
            assert_eq!((left.source, left.destination), (external(v6), remote(v6)));

            let ran = fixture.run("from_tunnel", "tun0", &bare(remote(v6), external(v6), 57, reply));
            assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
            // Byte by byte: the container gets a frame.
            let payload = b"through the tunnel";
            let expected = frame([GATEWAY, A.mac], remote(v6), A.address(v6), 56, reply, payload);
            assert_eq!(ran.packet, expected);
            read(&ran.packet);
        }
    }
}

#[test]
fn what_comes_out_of_a_tunnel_and_is_no_reply_is_the_stacks() {
    let fixture = Fixture::new();
    fixture.tunnel();
    for v6 in [false, true] {
        let packet = bare(remote(v6), external(v6), 57, L4::Udp(53, 5000));
        let ran = fixture.run("from_tunnel", "tun0", &packet);
        assert_eq!((ran.verdict, ran.packet), (NEXT, packet));
        let ran = fixture.run("from_tunnel", "tun0", &bare(remote(v6), A.address(v6), 57, L4::Udp(53, 5000)));
        assert_eq!(ran.verdict, DROPPED);
    }
    assert_eq!(fixture.drops("direct_access"), 2);
}

#[test]
fn what_the_stack_sends_into_a_tunnel_is_translated() {
    let fixture = Fixture::new();
    fixture.tunnel();
    // Networks whose addresses say what the packets are, as above.
    fixture.datapath.put_subnet("8.0.1.0/24".parse().unwrap(), 0).unwrap();
    fixture.datapath.put_subnet("2001:db8:86dd:1::/64".parse().unwrap(), 0).unwrap();
    for v6 in [false, true] {
        let inside = address(if v6 { "2001:db8:86dd:1::5" } else { "8.0.1.5" });
        let l4 = L4::Udp(5000, 53);
        let ran = fixture.run("to_tunnel", "tun0", &bare(inside, remote(v6), 63, l4));
        assert_eq!((ran.verdict, ran.packet), (NEXT, bare(external(v6), remote(v6), 63, l4)));
        let ran = fixture.run("to_tunnel", "tun0", &bare(inside, remote(v6), 63, L4::Other(47)));
        assert_eq!(ran.verdict, DROPPED, "nothing leaves with a container's address");
    }
}
