//! ICMP errors about translated packets.

use netd::model::Local;

use crate::{
    fixture::{A, B, Fixture, GATEWAY, NEXT, REDIRECTED, ROUTER, UPLINK},
    packet::{
        L3, L4, Read, SYN, address, back, external, fragments, frame, icmp_error, l4, out, read, read_error,
        remote,
    },
};

/// Type, code and the word that follows, of errors that the outside sends.
fn errors(v6: bool) -> &'static [([u8; 2], u32)] {
    if v6 {
        &[([1, 0], 0), ([1, 4], 0), ([2, 0], 1280), ([3, 0], 0), ([4, 1], 40)]
    } else {
        &[
            ([3, 0], 0),
            ([3, 1], 0),
            ([3, 3], 0),
            ([3, 4], 1280),
            ([4, 0], 0),
            ([11, 0], 0),
            ([12, 0], 0x0800_0000),
        ]
    }
}

/// A router on the way.
fn router(v6: bool) -> std::net::IpAddr {
    address(if v6 { "2001:db8:ff::1" } else { "192.0.2.254" })
}

/// What leaves of a container's packet, from its IP header on, and its external port.
fn left(fixture: &Fixture, packet: &[u8]) -> (Vec<u8>, u16) {
    let ran = fixture.send(A, packet);
    assert_eq!(ran.verdict, REDIRECTED);
    let port = read(&ran.packet).ports[0];
    (ran.packet[L3..].to_vec(), port)
}

/// No router is this host, or no host at all.
#[test]
fn errors_under_an_address_that_no_router_has_are_dropped() {
    let fixture = Fixture::new();
    fixture.datapath.put_local("203.0.113.1/32".parse().unwrap(), Local::Own).unwrap();
    fixture.datapath.put_local("203.0.113.255/32".parse().unwrap(), Local::Broadcast).unwrap();
    fixture.datapath.put_local("2001:db8::1/128".parse().unwrap(), Local::Own).unwrap();
    let v4 = ["127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "203.0.113.1", "203.0.113.255"];
    let v6 = ["::1", "::", "ff02::1", "2001:db8::1", "::ffff:192.0.2.1"];
    for (is6, source) in v4.map(|it| (false, it)).into_iter().chain(v6.map(|it| (true, it))) {
        let (about, _) = left(&fixture, &out(A, is6, L4::Udp(5000, 53)));
        let kind = if is6 { [1, 0] } else { [3, 0] };
        let error = icmp_error([ROUTER, UPLINK], address(source), external(is6), kind, 0, &about);
        fixture.assert_drops("from_uplink", "up0", &error, "spoofed_address");
    }
    // A router on the way may have an address of a network here, or a link-local one that this host has as well.
    fixture.datapath.put_local("fe80::1/128".parse().unwrap(), Local::Own).unwrap();
    for (is6, source) in [(false, "172.17.9.9"), (true, "fd00:17::9"), (true, "fe80::1")] {
        let (about, _) = left(&fixture, &out(A, is6, L4::Udp(5000, 53)));
        let kind = if is6 { [2, 0] } else { [3, 4] };
        let error = icmp_error([ROUTER, UPLINK], address(source), external(is6), kind, 1280, &about);
        assert_eq!(fixture.arrive(&error).verdict, REDIRECTED, "{source}");
    }
}

#[test]
fn errors_from_the_outside_reach_the_sender() {
    let fixture = Fixture::new();
    let mut count = 0;
    for v6 in [false, true] {
        // With the port kept, and with the port changed.
        for sent in [
            L4::Udp(5000, 53),
            L4::Udp(40000, 53),
            L4::Tcp(5000, 80, SYN),
            L4::Tcp(40000, 80, SYN),
            L4::Echo(true, 7),
            L4::Sctp(5000, 36412),
        ] {
            let original = out(A, v6, sent);
            let (about, _) = left(&fixture, &original);
            for (kind, word) in errors(v6) {
                let error = icmp_error([ROUTER, UPLINK], router(v6), external(v6), *kind, *word, &about);
                let ran = fixture.arrive(&error);
                assert_eq!(ran.verdict, REDIRECTED, "{kind:?} about {sent:?}");
                let got = read_error(&ran.packet);
                assert_eq!((got.source, got.destination), (router(v6), A.address(v6)));
                assert_eq!((got.kind, got.word, got.ttl), (*kind, *word, 59));
                assert_eq!(got.macs, [GATEWAY, A.mac]);
                // The container sees its own packet, as it was when the router had it.
                assert_eq!(got.quoted(), Read { ttl: 63, macs: [[0; 6]; 2], ..read(&original) });
                count += 1;
            }
        }
    }
    assert_eq!(fixture.took("icmp_error_in"), count);
    assert_eq!(fixture.dropped(), 0);
}

/// Routers report that a fragment is too big: under IPv6 its header is between the IP header and the ports.
#[test]
fn an_error_about_a_fragment_reaches_the_sender() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for port in [5000, 40000] {
            let whole = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, L4::Udp(port, 53), &[7; 200]);
            let [first, _] = fragments(&whole, port, 64);
            let sent = fixture.send(A, &first);
            assert_eq!(sent.verdict, REDIRECTED);
            let (kind, word) = if v6 { ([2, 0], 1280) } else { ([3, 4], 1280) };
            let about = &sent.packet[L3..];
            let error = icmp_error([ROUTER, UPLINK], router(v6), external(v6), kind, word, about);
            let ran = fixture.arrive(&error);
            assert_eq!(ran.verdict, REDIRECTED, "port {port}");
            let got = read_error(&ran.packet);
            assert_eq!((got.destination, got.kind, got.word), (A.address(v6), kind, word));
            // As the container has sent it, but for its TTL.
            let [addresses, ttl] = if v6 { [8, 7] } else { [12, 8] };
            assert_eq!(got.about[addresses..], first[L3 + addresses..]);
            assert_eq!(got.about[ttl], 63);
        }
    }
}

#[test]
fn a_short_quote_is_enough() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for sent in [L4::Udp(40000, 53), L4::Tcp(40000, 80, SYN)] {
            let original = out(A, v6, sent);
            let (about, _) = left(&fixture, &original);
            // RFC 792: the IP header and 64 bits.
            let error = icmp_error(
                [ROUTER, UPLINK],
                router(v6),
                external(v6),
                if v6 { [1, 4] } else { [3, 3] },
                0,
                &about[..l4(v6) - L3 + 8],
            );
            let ran = fixture.arrive(&error);
            assert_eq!(ran.verdict, REDIRECTED);
            let got = read_error(&ran.packet);
            let ports = &original[l4(v6)..l4(v6) + 4];
            assert_eq!(got.about[l4(v6) - L3..][..4], *ports, "the ports are the container's");
            let address = if v6 { 8..24 } else { 12..16 };
            assert_eq!(got.about[address.clone()], original[L3..][address]);
        }
    }
}

#[test]
fn an_error_neither_keeps_nor_ends_a_flow() {
    let fixture = Fixture::new();
    let (about, _) = left(&fixture, &out(A, false, L4::Udp(5000, 53)));
    fixture.age(200);
    let idle = fixture.flow().idle;
    let error = icmp_error([ROUTER, UPLINK], router(false), external(false), [3, 3], 0, &about);
    assert_eq!(fixture.arrive(&error).verdict, REDIRECTED);
    let flow = fixture.flow();
    assert!(flow.idle >= idle, "{:?} became {:?}", idle, flow.idle);
    assert_eq!((flow.state, flow.inbound.packets), ("active", 0));
}

#[test]
fn errors_that_belong_to_no_flow_are_the_stacks() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let (about, _) = left(&fixture, &out(A, v6, L4::Udp(5000, 53)));
        let kind = if v6 { [1, 4] } else { [3, 3] };
        let error = |about: &[u8]| icmp_error([ROUTER, UPLINK], router(v6), external(v6), kind, 0, about);
        let with = |at: usize, byte: u8| {
            let mut about = about.clone();
            about[at] = byte;
            about
        };
        let l4 = l4(v6) - L3;
        // Another port, another remote, another protocol; a quote that is cut before the ports, or is no packet.
        let mut broken = vec![
            with(l4 + 1, 0x89),
            with(l4 + 3, 54),
            with(if v6 { 39 } else { 19 }, 8),
            with(if v6 { 6 } else { 9 }, 6),
            with(0, 0x15),
            about[..l4 + 2].to_vec(),
            about[..12].to_vec(),
            Vec::new(),
        ];
        if !v6 {
            // RFC 5508 REQ-3: a quoted header whose checksum is wrong.
            broken.push(with(8, 1));
            broken.push(with(10, !about[10]));
        }
        for about in broken {
            fixture.assert_passes("from_uplink", "up0", &error(&about));
        }
        // About a packet that another host sent.
        let elsewhere = address(if v6 { "2001:db8::2" } else { "203.0.113.2" });
        let error = icmp_error([ROUTER, UPLINK], router(v6), elsewhere, kind, 0, &about);
        fixture.assert_passes("from_uplink", "up0", &error);
        // Straight to the container.
        let error = icmp_error([ROUTER, UPLINK], router(v6), A.address(v6), kind, 0, &about);
        fixture.assert_drops("from_uplink", "up0", &error, "direct_access");
    }
    assert_eq!(fixture.took("icmp_error_in"), 0);
    assert_eq!(fixture.flows(), 2);
}

#[test]
fn a_containers_errors_reach_the_remote() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let kinds: &[([u8; 2], u32)] =
            if v6 { &[([1, 4], 0), ([2, 0], 1280)] } else { &[([3, 3], 0), ([3, 4], 1280)] };
        for sent in [L4::Udp(5000, 53), L4::Udp(40000, 53), L4::Tcp(5000, 80, SYN), L4::Echo(true, 7)] {
            let (_, port) = left(&fixture, &out(A, v6, sent));
            let reply = match sent.reply() {
                L4::Udp(from, _) => L4::Udp(from, port),
                L4::Tcp(from, _, flags) => L4::Tcp(from, port, flags),
                other => other,
            };
            let reply = back(v6, reply);
            let delivered = fixture.arrive(&reply).packet;
            for (kind, word) in kinds {
                let error =
                    icmp_error([A.mac, GATEWAY], A.address(v6), remote(v6), *kind, *word, &delivered[L3..]);
                // A route has changed since the container spoke last.
                fixture.datapath.bump_fib_generation().unwrap();
                // On the fast path, and by the stack, which has taken the TTL already.
                for (ran, verdict, ttl) in
                    [(fixture.send(A, &error), REDIRECTED, 59), (fixture.leave(&error), NEXT, 60)]
                {
                    assert_eq!(ran.verdict, verdict, "{:?}", fixture.datapath.counters());
                    let left = read_error(&ran.packet);
                    assert_eq!((left.source, left.destination), (external(v6), remote(v6)));
                    assert_eq!((left.kind, left.word, left.ttl), (*kind, *word, ttl));
                    // The remote sees its own packet, with the TTL that it had left when the container got it.
                    assert_eq!(left.quoted(), Read { ttl: 56, macs: [[0; 6]; 2], ..read(&reply) });
                }
            }
        }
    }
    assert_eq!(fixture.took("icmp_error_out"), 32);
}

#[test]
fn a_container_speaks_for_its_own_flows_alone() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        left(&fixture, &out(A, v6, L4::Udp(5000, 53)));
        let delivered = fixture.arrive(&back(v6, L4::Udp(53, 5000))).packet;
        let kind = if v6 { [1, 4] } else { [3, 3] };
        let error = icmp_error([B.mac, GATEWAY], B.address(v6), remote(v6), kind, 0, &delivered[L3..]);
        fixture.assert_drops("from_container", B.veth, &error, "icmp_unrelated");
        fixture.assert_drops("to_uplink", "up0", &error, "icmp_unrelated");
    }
}

#[test]
fn the_hosts_own_errors_are_about_what_the_remote_has_sent() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let (kind, word) = if v6 { ([2, 0], 1280) } else { ([3, 4], 1280) };
        let host = |about: &[u8]| icmp_error([UPLINK, ROUTER], external(v6), remote(v6), kind, word, about);
        // With the port kept, and with the port changed.
        for port in [5000, 40000] {
            let (_, outside) = left(&fixture, &out(A, v6, L4::Udp(port, 53)));
            let sent = back(v6, L4::Udp(53, outside));
            // Translated before the stack has seen that its next link does not take it.
            let ran = fixture.leave(&host(&fixture.arrive(&sent).packet[L3..]));
            let left = read_error(&ran.packet);
            assert_eq!((ran.verdict, left.source, left.word), (NEXT, external(v6), word));
            assert_eq!(left.quoted(), Read { ttl: 56, macs: [[0; 6]; 2], ..read(&sent) });
        }
        // About a packet of its own.
        let own = host(&back(v6, L4::Udp(53, 123))[L3..]);
        let ran = fixture.leave(&own);
        assert!(ran.verdict == NEXT && ran.packet == own);
    }
    assert_eq!(fixture.took("icmp_error_out"), 4);
}
