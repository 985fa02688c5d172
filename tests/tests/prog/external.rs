//! External addresses: packets translated 1:1, and who answers for them on the link.

use std::net::IpAddr;

use etherparse::EtherType;
use netd::{
    datapath::{
        EndpointEntry,
        endpoint::{EXTERNAL4, EXTERNAL6},
    },
    model::{HostPorts, Local, Protocol, Reserver},
};

use crate::{
    fixture::{A, B, C, Container, Fixture, GATEWAY, NEXT, REDIRECTED, ROUTER, UPLINK, entry},
    packet::{
        ACK, L3, L4, Read, SYN, address, arriving, back, ethernet, external, fragments, frame, icmp_error,
        l4, leaving, out, read, read_error, reassemble, remote, to, with_length,
    },
};

/// What A is known by.
fn known(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8::9" } else { "203.0.113.9" })
}

/// A has an external address of each family.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture
        .datapath
        .put_external("203.0.113.9/32".parse().unwrap(), "172.17.0.2/32".parse().unwrap())
        .unwrap();
    fixture
        .datapath
        .put_external("2001:db8::9/128".parse().unwrap(), "fd00:17::2/128".parse().unwrap())
        .unwrap();
    flag(&fixture, A, 0);
    fixture
}

fn flag(fixture: &Fixture, container: Container, network: u32) {
    let entry = entry(container, network);
    let flags = entry.flags | EXTERNAL4 | EXTERNAL6;
    fixture.datapath.put_endpoint(container.slot, &EndpointEntry { flags, ..entry }).unwrap();
}

#[test]
fn every_protocol_leaves_and_comes_without_a_flow() {
    let fixture = fixture();
    for v6 in [false, true] {
        for sent in [
            L4::Udp(40000, 53),
            L4::Tcp(40000, 80, SYN),
            L4::Echo(true, 7),
            L4::Echo(false, 7),
            L4::Sctp(40000, 36412),
            L4::Other(47),
            L4::Other(50),
        ] {
            let ran = fixture.send(A, &out(A, v6, sent));
            assert_eq!(ran.verdict, REDIRECTED, "{sent:?}: {:?}", fixture.datapath.counters());
            let left = read(&ran.packet);
            let before = read(&out(A, v6, sent));
            assert_eq!((left.source, left.destination, left.ttl), (known(v6), remote(v6), 63));
            assert_eq!((left.ports, left.payload), (before.ports, before.payload));

            let packet = arriving(remote(v6), known(v6), sent.reply());
            let ran = fixture.arrive(&packet);
            assert_eq!(ran.verdict, REDIRECTED, "{sent:?}: {:?}", fixture.datapath.counters());
            let (came, before) = (read(&ran.packet), read(&packet));
            assert_eq!((came.source, came.destination, came.ttl), (remote(v6), A.address(v6), 56));
            assert_eq!(
                (came.macs, came.ports, came.payload),
                ([GATEWAY, A.mac], before.ports, before.payload)
            );
        }
    }
    assert_eq!((fixture.flows(), fixture.dropped()), (0, 0));
    assert_eq!((fixture.took("external_out"), fixture.took("external_in")), (14, 14));
}

#[test]
fn a_flow_from_before_goes_on_as_it_was() {
    let fixture = Fixture::new();
    fixture.assert_leaves(A, &out(A, false, L4::Udp(5000, 53)));
    fixture
        .datapath
        .put_external("203.0.113.9/32".parse().unwrap(), "172.17.0.2/32".parse().unwrap())
        .unwrap();
    flag(&fixture, A, 0);
    assert_eq!(fixture.assert_leaves(A, &out(A, false, L4::Udp(5000, 53))).source, external(false));
    let left = read(&fixture.send(A, &out(A, false, L4::Udp(5001, 53))).packet);
    assert_eq!(left.source, known(false));
    // Taken back, the next one is masqueraded.
    fixture
        .datapath
        .remove_external("203.0.113.9/32".parse().unwrap(), "172.17.0.2/32".parse().ok())
        .unwrap();
    assert_eq!(fixture.assert_leaves(A, &out(A, false, L4::Udp(5001, 53))).source, external(false));
}

#[test]
fn an_external_address_is_its_containers_wholly() {
    let fixture = fixture();
    for v6 in [false, true] {
        let host = HostPorts { protocol: Protocol::Tcp, address: all(v6), first: 80, last: 80 };
        fixture.datapath.put_publication(&host, B.slot, 8080, Reserver::Netd).unwrap();
        let sent = L4::Tcp(5001, 80, SYN);
        let came = fixture.arrive(&arriving(remote(v6), known(v6), sent));
        let came = read(&came.packet);
        assert_eq!((came.destination, came.ports, came.macs[1]), (A.address(v6), [5001, 80], A.mac));
        // Any other address of the host is not its own.
        let came = fixture.assert_returns(B, &back(v6, sent));
        assert_eq!((came.destination, came.ports), (B.address(v6), [5001, 8080]));
        // A flow that its container accepted elsewhere is answered from there.
        let host = HostPorts { first: 81, last: 81, ..host };
        fixture.datapath.put_publication(&host, A.slot, 8081, Reserver::Netd).unwrap();
        let [seen, _] = fixture.assert_returns(A, &back(v6, L4::Tcp(5002, 81, SYN))).ports;
        let left = fixture.assert_leaves(A, &out(A, v6, L4::Tcp(8081, seen, SYN | ACK)));
        assert_eq!((left.source, left.ports), (external(v6), [81, 5002]));
        // And what is said to the remote by the external address is another flow, though of the remote's same port.
        let came = read(&fixture.arrive(&arriving(remote(v6), known(v6), L4::Tcp(5002, 8081, SYN))).packet);
        assert_eq!((came.destination, came.ports), (A.address(v6), [5002, 8081]));
        let left = read(&fixture.send(A, &out(A, v6, L4::Tcp(8081, 5002, SYN | ACK))).packet);
        assert_eq!((left.source, left.ports), (known(v6), [8081, 5002]));
    }
}

/// The host's address becomes a container's; unless the host keeps it, within a prefix that is a network's.
#[test]
fn a_flow_whose_address_is_given_away_is_ended() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        let given = external(v6);
        assert_eq!(fixture.datapath.end_unpublished().unwrap(), 0);
        fixture.datapath.put_local(given.into(), Local::Own).unwrap();
        fixture.datapath.put_external(given.into(), B.address(v6).into()).unwrap();
        assert_eq!(fixture.datapath.end_unpublished().unwrap(), 0, "the host has it still");
        fixture.datapath.remove_local(given.into()).unwrap();
        assert_eq!(fixture.datapath.end_unpublished().unwrap(), 1);
    }
}

/// All addresses of the host.
fn all(v6: bool) -> IpAddr {
    address(if v6 { "::" } else { "0.0.0.0" })
}

#[test]
fn fragments_are_translated_in_any_order() {
    let fixture = fixture();
    for v6 in [false, true] {
        let whole = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, L4::Udp(5000, 53), &[7; 100]);
        let parts = fragments(&whole, 9, 64);
        let left: Vec<_> = [1, 0].map(|at: usize| fixture.send(A, &parts[at])).into();
        assert!(left.iter().all(|ran| ran.verdict == REDIRECTED), "{:?}", fixture.datapath.counters());
        let got = read(&reassemble([&left[1].packet, &left[0].packet]));
        assert_eq!((got.source, got.payload.len()), (known(v6), 100));
        let whole = frame([ROUTER, UPLINK], remote(v6), known(v6), 57, L4::Udp(53, 5000), &[7; 100]);
        let parts = fragments(&whole, 10, 64);
        let came: Vec<_> = [1, 0].map(|at: usize| fixture.arrive(&parts[at])).into();
        assert!(came.iter().all(|ran| ran.verdict == REDIRECTED), "{:?}", fixture.datapath.counters());
        let got = read(&reassemble([&came[1].packet, &came[0].packet]));
        assert_eq!((got.destination, got.payload.len()), (A.address(v6), 100));
    }
}

#[test]
fn errors_both_ways_with_the_packet_that_they_are_about() {
    let fixture = fixture();
    for v6 in [false, true] {
        let kind = if v6 { [1, 4] } else { [3, 3] };
        for sent in [L4::Udp(40000, 53), L4::Tcp(40000, 80, SYN), L4::Echo(true, 7), L4::Other(47)] {
            let original = out(A, v6, sent);
            let left = fixture.send(A, &original).packet;
            let router = address(if v6 { "2001:db8:ff::1" } else { "192.0.2.254" });
            let error = icmp_error([ROUTER, UPLINK], router, known(v6), kind, 0, &left[L3..]);
            let ran = fixture.arrive(&error);
            assert_eq!(ran.verdict, REDIRECTED, "{sent:?}: {:?}", fixture.datapath.counters());
            let got = read_error(&ran.packet);
            assert_eq!((got.source, got.destination, got.macs), (router, A.address(v6), [GATEWAY, A.mac]));
            assert_eq!(got.quoted(), Read { ttl: 63, macs: [[0; 6]; 2], ..read(&original) });

            let packet = arriving(remote(v6), known(v6), sent.reply());
            let came = fixture.arrive(&packet).packet;
            let error = icmp_error([A.mac, GATEWAY], A.address(v6), remote(v6), kind, 0, &came[L3..]);
            for (ran, verdict, ttl) in
                [(fixture.send(A, &error), REDIRECTED, 59), (fixture.leave(&error), NEXT, 60)]
            {
                assert_eq!(ran.verdict, verdict, "{sent:?}: {:?}", fixture.datapath.counters());
                let got = read_error(&ran.packet);
                assert_eq!((got.source, got.destination, got.ttl), (known(v6), remote(v6), ttl));
                assert_eq!(got.quoted(), Read { ttl: 56, macs: [[0; 6]; 2], ..read(&packet) });
            }
        }
    }
}

#[test]
fn what_the_stack_sends_is_translated_and_what_it_must_judge_is_not() {
    let fixture = fixture();
    for v6 in [false, true] {
        let ran = fixture.leave(&leaving(A.address(v6), remote(v6), L4::Other(47)));
        let left = read(&ran.packet);
        assert_eq!((ran.verdict, left.source, left.ttl), (NEXT, known(v6), 63));
        let dying = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 1, L4::Other(47), b"dying");
        fixture.assert_stack(A, &dying, "stack_ttl");
        let large = frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, L4::Udp(1, 2), &[7; 1500]);
        fixture.assert_stack(A, &large, "stack_mtu");
        // To the host, under its own address.
        fixture.assert_stack(A, &to(A, &external(v6).to_string(), L4::Udp(40000, 53)), "stack_host");
        // Another network is out of reach, external address or not.
        fixture.assert_drops(
            "from_container",
            A.veth,
            &to(A, &C.address(v6).to_string(), L4::Other(47)),
            "isolated",
        );
    }
}

#[test]
fn within_the_host_both_ends_are_translated() {
    let fixture = fixture();
    for v6 in [false, true] {
        // B has no external address: it is masqueraded, and answered by the one it has asked.
        let ran = fixture.send(B, &to(B, &known(v6).to_string(), L4::Udp(5000, 53)));
        assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
        let came = read(&ran.packet);
        assert_eq!(
            (came.source, came.destination, came.macs),
            (external(v6), A.address(v6), [GATEWAY, A.mac])
        );
        assert_eq!((came.ports, came.ttl), ([5000, 53], 63));
        let answer = to(A, &external(v6).to_string(), L4::Udp(53, 5000));
        let ran = fixture.send(A, &answer);
        assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
        let came = read(&ran.packet);
        assert_eq!((came.source, came.destination, came.macs), (known(v6), B.address(v6), [GATEWAY, B.mac]));
        assert_eq!(came.ports, [53, 5000]);
        // A itself needs no flow.
        let ran = fixture.send(A, &to(A, &known(v6).to_string(), L4::Other(47)));
        let came = read(&ran.packet);
        assert_eq!((ran.verdict, came.source, came.destination), (REDIRECTED, known(v6), A.address(v6)));
    }
    assert_eq!(fixture.flows(), 2);
}

#[test]
fn a_prefix_is_translated_without_a_checksum_touched() {
    let fixture = Fixture::new();
    fixture
        .datapath
        .put_external("2001:db8:9::/64".parse().unwrap(), "fd00:17::/64".parse().unwrap())
        .unwrap();
    flag(&fixture, A, 0);
    let packet = out(A, true, L4::Udp(5000, 53));
    let ran = fixture.send(A, &packet);
    let left = read(&ran.packet);
    assert_eq!(ran.verdict, REDIRECTED);
    assert!(left.source.to_string().starts_with("2001:db8:9:0:"), "{}", left.source);
    let sum = l4(true) + 6..l4(true) + 8;
    assert_eq!(ran.packet[sum.clone()], packet[sum], "RFC 6296: nothing but the address changes");
    let back = read(&fixture.arrive(&arriving(remote(true), left.source, L4::Udp(53, 5000))).packet);
    assert_eq!(back.destination, A.address(true));
    // An address that stands for nobody is not handed on, to come back for ever.
    let nobody = arriving(remote(true), address("2001:db8:9::dead"), L4::Udp(53, 5000));
    fixture.assert_drops("from_uplink", "up0", &nobody, "unknown_endpoint");
    // IPv4 goes by a flow.
    fixture.assert_leaves(A, &out(A, false, L4::Udp(5000, 53)));
}

const BROADCAST: [u8; 6] = [0xff; 6];

fn who_has(sender: &str, target: &str) -> Vec<u8> {
    let octets = |text: &str| match address(text) {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("IPv4"),
    };
    let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ROUTER, &octets(sender), &[0; 6], &octets(target)].concat();
    ethernet([ROUTER, BROADCAST], EtherType::ARP, &packet)
}

#[test]
fn arp_is_answered_for_external_addresses_alone() {
    let fixture = fixture();
    let broadcast = |packet: &[u8]| fixture.run("from_uplink", "up0", packet);
    let ran = broadcast(&who_has("203.0.113.10", "203.0.113.9"));
    assert_eq!(ran.verdict, REDIRECTED);
    let answer =
        [&[0, 1, 8, 0, 6, 4, 0, 2][..], &UPLINK, &[203, 0, 113, 9], &ROUTER, &[203, 0, 113, 10]].concat();
    assert_eq!(ran.packet, ethernet([UPLINK, ROUTER], EtherType::ARP, &answer));
    // Somebody else's, the host's, an announcement, one cut short.
    for packet in [
        who_has("203.0.113.10", "203.0.113.8"),
        who_has("203.0.113.10", "203.0.113.1"),
        who_has("203.0.113.10", "172.17.0.2"),
        who_has("203.0.113.9", "203.0.113.9"),
        who_has("203.0.113.10", "203.0.113.9")[..38].to_vec(),
    ] {
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    // The host itself asks in vain outside, and is answered as if from there.
    let ran = fixture.leave(&who_has("203.0.113.1", "203.0.113.9"));
    assert_eq!(ran.verdict, REDIRECTED);
    assert_eq!(ran.packet[L3 + 7], 2, "a reply");
    fixture.assert_passes("to_uplink", "up0", &who_has("203.0.113.1", "203.0.113.8"));
    // An endpoint that is gone has no address.
    fixture.datapath.remove_endpoint(A.slot).unwrap();
    fixture.assert_passes("from_uplink", "up0", &who_has("203.0.113.10", "203.0.113.9"));
    assert_eq!(fixture.took("answered"), 2);
}

/// A neighbour solicitation, to the target itself.
fn solicitation(source: &str, target: &str, hop_limit: u8, options: &[u8]) -> Vec<u8> {
    let (source, target) = (address(source), address(target));
    let IpAddr::V6(octets) = target else { panic!("IPv6") };
    // The checksum of an error is made like that of any message.
    let message = [&octets.octets()[..], options].concat();
    let mut packet = icmp_error([ROUTER, UPLINK], source, target, [135, 0], 0, &message);
    packet[L3 + 7] = hop_limit;
    packet
}

#[test]
fn nd_is_answered_for_external_addresses_alone() {
    let fixture = fixture();
    let option = [&[1, 1][..], &ROUTER].concat();
    for options in [&option[..], &[]] {
        let ran = fixture.arrive(&solicitation("2001:db8::10", "2001:db8::9", 255, options));
        assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
        let got = read(&ran.packet);
        assert_eq!((got.source, got.destination, got.ttl), (known(true), address("2001:db8::10"), 255));
        assert_eq!(got.macs, [UPLINK, ROUTER]);
        let message = &ran.packet[l4(true)..];
        assert_eq!((message[0], message[1], message[4], message.len()), (136, 0, 0x60, 32));
        assert_eq!(message[24..], [&[2, 1][..], &UPLINK].concat());
    }
    // Whoever wants the address for himself is told before all (RFC 4862 section 5.4).
    let ran = fixture.arrive(&solicitation("::", "2001:db8::9", 255, &[]));
    let got = read(&ran.packet);
    assert_eq!((got.destination, got.macs[1]), (address("ff02::1"), [0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(ran.packet[l4(true) + 4], 0x20);
    for packet in [
        solicitation("2001:db8::10", "2001:db8::8", 255, &option),
        solicitation("2001:db8::10", "2001:db8::1", 255, &option),
    ] {
        fixture.assert_passes("from_uplink", "up0", &packet);
    }
    // What came by a router is no neighbour's: it is a packet to the container as any other.
    let ran = fixture.arrive(&solicitation("2001:db8::10", "2001:db8::9", 64, &option));
    assert_eq!((ran.verdict, read(&ran.packet).destination), (REDIRECTED, A.address(true)));
    let ran = fixture.leave(&solicitation("2001:db8::1", "2001:db8::9", 255, &option));
    assert_eq!((ran.verdict, ran.packet[l4(true)]), (REDIRECTED, 136));
    assert_eq!(fixture.took("answered"), 4);
}

#[test]
fn a_packet_too_short_for_its_checksum_is_dropped() {
    let fixture = fixture();
    for v6 in [false, true] {
        let cut = |packet: Vec<u8>| with_length(&packet[..l4(v6) + 8]);
        let short = cut(arriving(remote(v6), known(v6), L4::Tcp(80, 5000, SYN)));
        fixture.assert_drops("from_uplink", "up0", &short, "rewrite");
        let short = cut(out(A, v6, L4::Tcp(5000, 80, SYN)));
        fixture.assert_drops("from_container", A.veth, &short, "malformed");
    }
}
