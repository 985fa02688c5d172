//! How fast a container may send.

use netd::datapath::{RateEntry, endpoint::SENT_LIMITED};

use crate::{
    fixture::{A, B, Context, DROPPED, Fixture, REDIRECTED},
    packet::{ACK, L4, frame},
};

const SECOND: u64 = 1_000_000_000;

/// A datagram without payload to a neighbour: 42 bytes over IPv4, 62 over IPv6.
fn datagram(v6: bool) -> Vec<u8> {
    frame([A.mac, B.mac], A.address(v6), B.address(v6), 64, L4::Udp(5000, 53), b"")
}

/// A byte a second, and what goes at once in so many.
fn limit(fixture: &Fixture, seconds: u64) {
    let rate = RateEntry { bytes_per_second: 1, burst: seconds * SECOND };
    fixture.datapath.put_rate(A.slot, rate).unwrap();
    fixture.endpoint(A, 0, SENT_LIMITED, 0);
}

fn super_frame(fixture: &Fixture, packet: &[u8], segments: u32) -> i32 {
    let set = |context: &mut Context| (context.gso_segs, context.gso_size) = (segments, 1000);
    fixture.run_with("from_container", A.veth, packet, set).verdict
}

#[test]
fn a_burst_passes_and_what_follows_is_dropped() {
    for (v6, passing) in [(false, 3), (true, 2)] {
        let fixture = Fixture::new();
        limit(&fixture, 100);
        // The last of them finds a little left, and takes more.
        for _ in 0..passing {
            assert_eq!(fixture.send(A, &datagram(v6)).verdict, REDIRECTED);
        }
        fixture.assert_drops("from_container", A.veth, &datagram(v6), "rate");
        assert_eq!(fixture.traffic(A).sent.packets, passing, "what was dropped was not sent");
        let back = frame([B.mac, A.mac], B.address(v6), A.address(v6), 64, L4::Udp(53, 5000), b"");
        assert_eq!(fixture.send(B, &back).verdict, REDIRECTED, "the others are free");
    }
}

#[test]
fn a_super_frame_pays_for_the_headers_of_its_segments() {
    // So many bytes of headers, and nothing else.
    for (l4, v6, bytes) in [
        (L4::Udp(5000, 53), false, 42),
        (L4::Udp(5000, 53), true, 62),
        (L4::Tcp(5000, 80, ACK), false, 54),
        (L4::Tcp(5000, 80, ACK), true, 74),
    ] {
        let packet = frame([A.mac, B.mac], A.address(v6), B.address(v6), 64, l4, b"");
        // The bucket is not empty after ten times as many, and it is after eleven.
        for (segments, next) in [(0, REDIRECTED), (1, REDIRECTED), (10, REDIRECTED), (11, DROPPED)] {
            let fixture = Fixture::new();
            limit(&fixture, bytes * 10 + bytes / 2);
            assert_eq!(super_frame(&fixture, &packet, segments), REDIRECTED);
            assert_eq!(super_frame(&fixture, &packet, 1), next, "{l4:?} {v6}");
        }
    }
}

#[test]
fn the_bucket_is_filled_for_a_new_rate_alone() {
    let fixture = Fixture::new();
    limit(&fixture, 1);
    assert_eq!(fixture.send(A, &datagram(false)).verdict, REDIRECTED);
    limit(&fixture, 1);
    fixture.assert_drops("from_container", A.veth, &datagram(false), "rate");
    limit(&fixture, 2);
    assert_eq!(fixture.send(A, &datagram(false)).verdict, REDIRECTED);
    fixture.assert_drops("from_container", A.veth, &datagram(false), "rate");
}
