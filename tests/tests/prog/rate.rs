//! How fast a container may send.

use netd::datapath::{RateEntry, endpoint::SENT_LIMITED};

use crate::{
    fixture::{A, B, DROPPED, Fixture, REDIRECTED},
    packet::{L4, frame},
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

fn super_frame(fixture: &Fixture, segments: u32) -> i32 {
    let set = |context: &mut super::fixture::Context| (context.gso_segs, context.gso_size) = (segments, 1000);
    fixture.run_with("from_container", A.veth, &datagram(false), set).verdict
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
    // 42 bytes, and ten headers of 42 more.
    for (segments, next) in [(0, REDIRECTED), (1, REDIRECTED), (11, DROPPED)] {
        let fixture = Fixture::new();
        limit(&fixture, 400);
        assert_eq!(super_frame(&fixture, segments), REDIRECTED);
        assert_eq!(super_frame(&fixture, 1), next);
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
