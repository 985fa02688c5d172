//! What arrives at an uplink.

use std::net::UdpSocket;

use etherparse::EtherType;

use crate::{
    fixture::{A, Fixture, ROUTER, UPLINK},
    packet::{ACK, L4, SYN, address, arriving, back, ethernet, external, frame, out, read, remote},
};

#[test]
fn only_the_remote_and_port_that_was_asked_may_answer() {
    // Address and port dependent filtering (RFC 4787 section 5).
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for sent in [L4::Udp(5000, 53), L4::Tcp(5000, 80, SYN), L4::Echo(true, 7), L4::Sctp(5000, 36412)] {
            fixture.assert_leaves(A, &out(A, v6, sent));
        }
        let stranger = address(if v6 { "2001:db8:1::8" } else { "198.51.100.8" });
        for packet in [
            back(v6, L4::Udp(54, 5000)),
            back(v6, L4::Udp(53, 5001)),
            back(v6, L4::Tcp(81, 5000, SYN | ACK)),
            back(v6, L4::Tcp(53, 5000, SYN | ACK)),
            back(v6, L4::Echo(false, 8)),
            // A question is no answer.
            back(v6, L4::Echo(true, 7)),
            back(v6, L4::Sctp(36413, 5000)),
            back(v6, L4::Other(47)),
            arriving(stranger, external(v6), L4::Udp(53, 5000)),
            arriving(stranger, external(v6), L4::Tcp(80, 5000, SYN | ACK)),
            arriving(stranger, external(v6), L4::Echo(false, 7)),
            arriving(remote(v6), address(if v6 { "2001:db8::2" } else { "203.0.113.2" }), L4::Udp(53, 5000)),
        ] {
            fixture.assert_passes("from_uplink", "up0", &packet);
        }
    }
    assert_eq!((fixture.took("returned"), fixture.dropped()), (0, 0));
    assert_eq!(fixture.took("flow_created"), 8);
}

#[test]
fn a_container_is_not_reached_past_its_nat() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        for l4 in [L4::Udp(53, 5000), L4::Tcp(4000, 80, SYN), L4::Echo(true, 7), L4::Other(47)] {
            let packet = arriving(remote(v6), A.address(v6), l4);
            fixture.assert_drops("from_uplink", "up0", &packet, "direct_access");
        }
        let unused = address(if v6 { "fd00:18::99" } else { "172.18.0.99" });
        let packet = arriving(remote(v6), unused, L4::Udp(1, 2));
        fixture.assert_drops("from_uplink", "up0", &packet, "direct_access");
    }
}

#[test]
fn frames_for_others_are_left_alone() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        for mac in [ROUTER, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
            for destination in [external(v6), A.address(v6)] {
                let packet = frame([ROUTER, mac], remote(v6), destination, 57, L4::Udp(53, 5000), b"");
                fixture.assert_passes("from_uplink", "up0", &packet);
            }
        }
    }
    let arp = ethernet([ROUTER, UPLINK], EtherType::ARP, &[0; 28]);
    fixture.assert_passes("from_uplink", "up0", &arp);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn the_hosts_own_traffic_is_the_hosts() {
    let fixture = Fixture::new();
    let _listening = UdpSocket::bind("[::]:5000").unwrap();
    for v6 in [false, true] {
        // The container wanted the port that the host listens on.
        let taken = fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53))).ports[0];
        assert_ne!(taken, 5000);
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(53, 5000)));
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Tcp(4000, 22, SYN)));
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Echo(true, 7)));
    }
    assert_eq!(fixture.took("returned"), 0);
}

#[test]
fn the_last_hop_takes_no_packet_its_last_hop() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        for (ttl, left) in [(1, 1), (2, 1), (64, 63)] {
            let packet = frame([ROUTER, UPLINK], remote(v6), external(v6), ttl, L4::Udp(53, 5000), b"");
            assert_eq!(fixture.assert_returns(A, &packet).ttl, left);
        }
    }
}

#[test]
fn a_mark_of_the_host_does_not_reach_a_container() {
    let fixture = Fixture::new();
    fixture.assert_leaves(A, &out(A, false, L4::Udp(5000, 53)));
    let packet = back(false, L4::Udp(53, 5000));
    let ran = fixture.run_with("from_uplink", "up0", &packet, |context| context.mark = 0x42);
    assert_eq!((ran.mark, read(&ran.packet).destination), (0, A.address(false)));
}

#[test]
fn a_reply_finds_its_endpoint_gone() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
    }
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    for v6 in [false, true] {
        fixture.assert_passes("from_uplink", "up0", &back(v6, L4::Udp(53, 5000)));
    }
}
