//! Datagrams in pieces.

use netd::model::{HostPorts, Local, Protocol, Reserver};
use netd_common::frag::{HELD_BYTES, HELD_PARTS};

use crate::{
    fixture::{A, B, C, Container, DROPPED, Fixture, GATEWAY, NEXT, REDIRECTED, ROUTER, UPLINK},
    packet::{L4, Read, arriving, back, external, fragments, leaving, out, read, reassemble, remote, to},
};

#[test]
fn fragments_follow_the_first() {
    let fixture = Fixture::new();
    // The second's port is the host's, so that the first fragment's port changes.
    for (v6, own) in [(false, 5000), (false, 40000), (true, 5000), (true, 40000)] {
        let packet = out(A, v6, L4::Udp(own, 53));
        let ran = fragments(&packet, own, 16).map(|fragment| fixture.send(A, &fragment));
        for ran in &ran {
            assert_eq!(ran.verdict, REDIRECTED, "{:?}", fixture.datapath.counters());
        }
        let (before, after) = (read(&packet), read(&reassemble([&ran[0].packet, &ran[1].packet])));
        assert_eq!((after.source, after.destination), (external(v6), remote(v6)));
        assert_eq!((after.ttl, &after.payload), (63, &before.payload));
        assert_eq!(after.ports[0] == own, own == 5000);

        let reply = back(v6, L4::Udp(53, after.ports[0]));
        let ran = fragments(&reply, own, 8).map(|fragment| fixture.arrive(&fragment));
        for ran in &ran {
            assert_eq!(ran.verdict, REDIRECTED);
            assert_eq!(ran.packet[..12], [A.mac, GATEWAY].concat());
        }
        let got = read(&reassemble([&ran[0].packet, &ran[1].packet]));
        assert_eq!((got.source, got.destination), (remote(v6), A.address(v6)));
        assert_eq!((got.ports, got.ttl, got.payload), ([53, own], 56, read(&reply).payload));
    }
    assert_eq!(fixture.took("flow_created"), 4);
    assert_eq!(flow_packets(&fixture), (8, 8));
}

#[test]
fn a_fragment_waits_for_its_first() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let [first, later] = fragments(&out(A, v6, L4::Udp(5000, 53)), 7, 16);
        assert_held(&fixture, A, &later);
        // Both go the same way again, behind each other.
        let before = fixture.took("fragment_replayed");
        assert_eq!(fixture.send(A, &first).verdict, DROPPED);
        assert_eq!(fixture.took("fragment_replayed"), before + 1);
        assert_eq!(fixture.send(A, &first).verdict, REDIRECTED);
        assert_eq!(fixture.send(A, &later).verdict, REDIRECTED);
        // Another datagram, another sender, another protocol.
        let [_, other] = fragments(&out(A, v6, L4::Udp(5000, 53)), 8, 16);
        assert_held(&fixture, A, &other);
        let [_, other] = fragments(&out(B, v6, L4::Udp(5000, 53)), 7, 16);
        assert_held(&fixture, B, &other);
        let [_, other] = fragments(&out(A, v6, L4::Tcp(5000, 53, 2)), 7, 24);
        assert_held(&fixture, A, &other);
        // What fragments of a flow that ended left behind is no flow's.
        fixture.age(301);
        fixture.datapath.sweep().unwrap();
        assert_held(&fixture, A, &later);
    }
}

#[test]
fn so_many_fragments_wait_and_no_more() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let [_, later] = fragments(&out(A, v6, L4::Udp(5000, 53)), 7, 16);
        for _ in 0..HELD_PARTS {
            assert_held(&fixture, A, &later);
        }
        fixture.assert_drops("from_container", A.veth, &later, "fragment");
        let [_, mut large] = fragments(&out(A, v6, L4::Udp(5000, 53)), 8, 16);
        large.resize(HELD_BYTES + 1, 0);
        fixture.assert_drops("from_container", A.veth, &large, "fragment");
    }
}

#[test]
fn fragments_from_the_outside_wait_and_are_the_stacks_too() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        fixture.assert_leaves(A, &out(A, v6, L4::Udp(5000, 53)));
        let [first, later] = fragments(&back(v6, L4::Udp(53, 5000)), 7, 8);
        let before = (fixture.took("fragment_held"), fixture.took("fragment_replayed"));
        fixture.assert_passes("from_uplink", "up0", &later);
        assert_eq!(fixture.arrive(&first).verdict, DROPPED);
        let after = (fixture.took("fragment_held"), fixture.took("fragment_replayed"));
        assert_eq!(after, (before.0 + 1, before.1 + 1));
        // No flow's first fragment lets anything in.
        for fragment in fragments(&back(v6, L4::Udp(54, 5000)), 8, 8) {
            fixture.assert_passes("from_uplink", "up0", &fragment);
        }
        let held = fixture.took("fragment_held");
        for fragment in fragments(&arriving(remote(v6), A.address(v6), L4::Udp(53, 5000)), 9, 8) {
            fixture.assert_drops("from_uplink", "up0", &fragment, "direct_access");
        }
        assert_eq!(fixture.took("fragment_held"), held, "what may not come in need not wait");
    }
}

#[test]
fn the_stacks_own_fragments_leave_translated_in_any_order() {
    let fixture = Fixture::new();
    for (v6, own) in [(false, 5000), (false, 40000), (true, 5000), (true, 40000)] {
        let packet = leaving(A.address(v6), remote(v6), L4::Udp(own, 53));
        let [first, later] = fragments(&packet, own, 16);
        let counts =
            || ["fragment_held", "fragment_replayed", "stack_masqueraded"].map(|it| fixture.took(it));
        let before = counts();
        for fragment in [&later, &first] {
            assert_eq!(fixture.leave(fragment).verdict, DROPPED);
        }
        // They have gone out again by the hook itself, and nothing twice.
        assert_eq!(counts(), [before[0] + 1, before[1] + 1, before[2] + 2]);
        let ran = [first, later].map(|fragment| fixture.leave(&fragment));
        for ran in &ran {
            assert_eq!(ran.verdict, NEXT);
            assert_eq!(ran.packet[..12], [ROUTER, UPLINK].concat());
        }
        let after = read(&reassemble([&ran[0].packet, &ran[1].packet]));
        assert_eq!((after.source, after.destination, after.ttl), (external(v6), remote(v6), 63));
        assert_eq!(after.ports[0] == own, own == 5000);
        assert_eq!(after.payload, read(&packet).payload);
    }
    assert_eq!((fixture.took("stack_masqueraded"), fixture.dropped()), (16, 0));
}

#[test]
fn fragments_wait_at_published_ports_too() {
    let fixture = Fixture::new();
    for (client, v6) in [(B, false), (B, true), (C, false), (C, true)] {
        let there = external(v6);
        fixture.datapath.put_local(there.into(), Local::Own).unwrap();
        let host = HostPorts { protocol: Protocol::Udp, address: there, first: 8080, last: 8080 };
        fixture.datapath.put_publication(&host, A.slot, 80, Reserver::Netd).unwrap();
        // The first of whoever opens the flow, and of whoever goes by it; each has to be the host's as well.
        for identification in [7, 8] {
            let packet = to(client, &there.to_string(), L4::Udp(5000, 8080));
            let got = overtaken(&fixture, client, fragments(&packet, identification, 16), NEXT);
            assert_eq!((got.destination, got.ports[1]), (A.address(v6), 80));
            assert_eq!(got.payload, read(&packet).payload);

            // A neighbour is known as the gateway, and all others under their own address.
            let answer = to(A, &got.source.to_string(), L4::Udp(80, got.ports[0]));
            let verdict = if client.slot == B.slot { NEXT } else { DROPPED };
            let back = overtaken(&fixture, A, fragments(&answer, identification, 16), verdict);
            assert_eq!((back.source, back.destination), (there, client.address(v6)));
            assert_eq!((back.ports, back.payload), ([8080, 5000], read(&answer).payload));
        }
        // No datagram of a port's: it was the host's, and nothing comes of what was kept.
        for fragment in fragments(&to(client, &there.to_string(), L4::Udp(5000, 8081)), 9, 16).iter().rev() {
            fixture.assert_passes("from_container", client.veth, fragment);
        }
    }
    assert_eq!((fixture.took("flow_accepted"), fixture.dropped()), (4, 0));
}

/// Sends two fragments of a container's, the later one first, and holds what becomes of that; then both again, and what has been
/// sent.
fn overtaken(fixture: &Fixture, sender: Container, [first, later]: [Vec<u8>; 2], verdict: i32) -> Read {
    let counts = || ["fragment_held", "fragment_replayed"].map(|it| fixture.took(it));
    let before = counts();
    assert_eq!(fixture.send(sender, &later).verdict, verdict);
    assert_eq!(fixture.send(sender, &first).verdict, DROPPED);
    assert_eq!(counts(), before.map(|count| count + 1));
    let ran = [first, later].map(|fragment| fixture.send(sender, &fragment));
    assert!(ran.iter().all(|ran| ran.verdict == REDIRECTED), "{:?}", fixture.datapath.counters());
    assert_eq!(counts(), before.map(|count| count + 1));
    read(&reassemble([&ran[0].packet, &ran[1].packet]))
}

/// Sends a fragment, and holds that it is kept: neither sent nor counted as dropped, and no flow is made.
pub(crate) fn assert_held(fixture: &Fixture, container: Container, packet: &[u8]) {
    let before = (fixture.took("fragment_held"), fixture.dropped(), fixture.took("flow_created"));
    assert_eq!(fixture.send(container, packet).verdict, DROPPED);
    let after = (fixture.took("fragment_held"), fixture.dropped(), fixture.took("flow_created"));
    assert_eq!(after, (before.0 + 1, before.1, before.2), "{packet:02x?}");
}

/// Packets of all flows: outbound, inbound.
fn flow_packets(fixture: &Fixture) -> (u64, u64) {
    let flows = fixture.datapath.flows().unwrap();
    (
        flows.iter().map(|flow| flow.outbound.packets).sum(),
        flows.iter().map(|flow| flow.inbound.packets).sum(),
    )
}
