//! From a container to the outside and back.

use netd::datapath::bridge::{EXEMPTS, ICC, MASQUERADE};

use crate::{
    fixture::{A, C, Fixture, GATEWAY, index},
    packet::{
        ACK, FIN, L4, RST, SYN, arriving, back, external, frame, icmp_error, l4, out, read, remote, to,
    },
};

const PROTOCOLS: [L4; 4] =
    [L4::Udp(5000, 53), L4::Tcp(5001, 80, SYN), L4::Echo(true, 7), L4::Sctp(5002, 36412)];

#[test]
fn a_flow_goes_out_and_its_reply_comes_in() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        for sent in PROTOCOLS {
            let request = out(A, v6, sent);
            let (before, after) = (read(&request), fixture.assert_leaves(A, &request));
            assert_eq!(after, crate::packet::Read { source: external(v6), ttl: 63, ..before.clone() });

            let reply = back(v6, sent.reply());
            let (before, after) = (read(&reply), fixture.assert_returns(A, &reply));
            assert_eq!((after.source, after.destination), (remote(v6), A.address(v6)));
            assert_eq!((after.ttl, after.ports, after.payload), (56, before.ports, before.payload));

            // The second packet rides on the same flow.
            fixture.assert_leaves(A, &request);
        }
    }
    assert_eq!(fixture.took("flow_created"), 8);
    assert_eq!(fixture.keys(), [8, 8]);
    assert_eq!(fixture.held(A), [4, 4]);
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn an_exempt_destination_sees_the_containers_own_address() {
    let fixture = Fixture::new();
    for v6 in [false, true] {
        let source = |l4| read(&fixture.send(A, &out(A, v6, l4)).packet).source;
        let destination = remote(v6).into();
        // Another network's, and nobody's: this one has not said that it has any.
        fixture.datapath.put_exempt(1, destination).unwrap();
        fixture.network(0, "br0", 17, MASQUERADE | ICC | EXEMPTS);
        assert_eq!(source(L4::Udp(5000, 53)), external(v6));
        fixture.datapath.put_exempt(0, destination).unwrap();
        fixture.network(0, "br0", 17, MASQUERADE | ICC);
        assert_eq!(source(L4::Udp(5001, 53)), external(v6));

        fixture.network(0, "br0", 17, MASQUERADE | ICC | EXEMPTS);
        for (port, sent) in [(5002, L4::Udp(5002, 53)), (5003, L4::Tcp(5003, 80, SYN))] {
            let request = out(A, v6, sent);
            let left = read(&fixture.send(A, &request).packet);
            assert_eq!(left, crate::packet::Read { ttl: 63, macs: left.macs, ..read(&request) }, "{port}");
            fixture.assert_returns(A, &arriving(remote(v6), A.address(v6), sent.reply()));
        }
        // Flows that began before go on as they began.
        assert_eq!(source(L4::Udp(5001, 53)), external(v6));

        fixture.datapath.remove_exempt(0, destination).unwrap();
        assert_eq!(source(L4::Udp(5004, 53)), external(v6));
    }
    assert_eq!(fixture.dropped(), 0);
}

#[test]
fn the_record_tells_all_of_a_flow() {
    let fixture = Fixture::new();
    let (request, reply) = (out(A, true, L4::Udp(5000, 53)), back(true, L4::Udp(53, 5000)));
    fixture.assert_leaves(A, &request);
    fixture.assert_leaves(A, &request);
    fixture.assert_returns(A, &reply);
    let flow = fixture.flow();
    assert_eq!((flow.protocol, flow.state, flow.endpoint), (17, "active", Some(A.slot)));
    assert_eq!((flow.local.ip(), flow.local.port()), (A.address(true), 5000));
    assert_eq!(flow.remote, Some((remote(true), 53).into()));
    assert_eq!((flow.external.ip(), flow.external.port()), (external(true), 5000));
    assert_eq!((flow.outbound.packets, flow.outbound.bytes), (2, 2 * request.len() as u64));
    assert_eq!((flow.inbound.packets, flow.inbound.bytes), (1, reply.len() as u64));
    assert_eq!(flow.uplink, index("up0"));
}

#[test]
fn tcp_is_followed_to_its_end() {
    let fixture = Fixture::new();
    let ours = |flags| drop(fixture.assert_leaves(A, &out(A, false, L4::Tcp(5000, 80, flags))));
    let theirs = |flags| drop(fixture.assert_returns(A, &back(false, L4::Tcp(80, 5000, flags))));
    let is = |state| assert_eq!(fixture.flow().state, state);
    ours(SYN);
    is("opening");
    theirs(SYN | ACK);
    ours(ACK);
    is("established");
    ours(FIN | ACK);
    is("fin-out");
    theirs(FIN | ACK);
    is("closed");
    ours(SYN);
    is("opening");
    theirs(RST | ACK);
    is("reset");
    ours(ACK);
    is("established");
}

#[test]
fn what_cannot_be_translated_does_not_leave() {
    let fixture = Fixture::new();
    let timestamp = [13, 0, 0, 0, 0, 1, 0, 1];
    let solicitation = [135, 0, 0, 0, 0, 0, 0, 0];
    let raw = |v6, protocol, message: &[u8]| {
        frame([A.mac, GATEWAY], A.address(v6), remote(v6), 64, L4::Other(protocol), message)
    };
    let nothing = &out(A, false, L4::Udp(1, 2))[l4(false) - 20..];
    let error = |v6, kind| icmp_error([A.mac, GATEWAY], A.address(v6), remote(v6), kind, 0, nothing);
    for (packet, reason) in [
        (out(A, false, L4::Other(47)), "protocol"),
        (out(A, true, L4::Other(47)), "protocol"),
        (out(A, false, L4::Other(50)), "protocol"),
        (out(A, true, L4::Other(50)), "protocol"),
        // The other version's ICMP.
        (out(A, false, L4::Other(58)), "protocol"),
        (out(A, true, L4::Other(1)), "protocol"),
        // Answers that nobody asked for, and questions that NAT cannot tell apart.
        (out(A, false, L4::Tcp(5000, 80, RST)), "tcp_unrelated"),
        (out(A, true, L4::Tcp(5000, 80, RST | ACK)), "tcp_unrelated"),
        (out(A, false, L4::Echo(false, 7)), "icmp_unrelated"),
        (out(A, true, L4::Echo(false, 7)), "icmp_unrelated"),
        (raw(false, 1, &timestamp), "icmp_unrelated"),
        (raw(true, 58, &solicitation), "icmp_unrelated"),
        // Errors about no flow.
        (error(false, [3, 3]), "icmp_unrelated"),
        (error(true, [1, 4]), "icmp_unrelated"),
    ] {
        fixture.assert_drops("from_container", A.veth, &packet, reason);
    }
    assert_eq!(fixture.keys(), [0, 0]);
}

#[test]
fn without_masquerade_containers_leave_as_themselves() {
    let fixture = Fixture::new();
    fixture.network(0, "br0", 17, ICC);
    // A port on which the host listens is no concern of an address that is not the host's.
    let _host = std::net::UdpSocket::bind("[::]:5000").unwrap();
    for v6 in [false, true] {
        for sent in [L4::Udp(5000, 53), L4::Udp(40000, 53), L4::Tcp(5001, 80, SYN), L4::Echo(true, 7)] {
            let request = out(A, v6, sent);
            let (before, after) = (read(&request), fixture.assert_leaves(A, &request));
            assert_eq!(after, crate::packet::Read { ttl: 63, ..before });
            let reply = arriving(remote(v6), A.address(v6), sent.reply());
            let (before, after) = (read(&reply), fixture.assert_returns(A, &reply));
            assert_eq!((after.source, after.ports, after.ttl), (before.source, before.ports, 56));
            assert_eq!(after.destination, A.address(v6));
        }
        // What needs no flow is the stack's to forward.
        fixture.assert_stack(A, &out(A, v6, L4::Other(47)), "stack_host");
        fixture.assert_stack(A, &out(A, v6, L4::Echo(false, 7)), "stack_host");
        // What nobody asked for does not come in.
        let stranger = arriving(remote(v6), A.address(v6), L4::Udp(54, 5000));
        fixture.assert_drops("from_uplink", "up0", &stranger, "direct_access");
    }
    // Another network still has its masquerade.
    assert_eq!(fixture.assert_leaves(C, &to(C, "198.51.100.7", L4::Udp(5000, 53))).source, external(false));
}

#[test]
fn a_udp_checksum_of_none_stays_none() {
    let fixture = Fixture::new();
    let at = l4(false) + 6;
    // 40000 is the host's, so that the port changes too.
    for port in [5000, 40000] {
        let mut request = out(A, false, L4::Udp(port, 53));
        request[at..at + 2].fill(0);
        let ran = fixture.send(A, &request);
        assert_eq!(ran.packet[at..at + 2], [0, 0]);
        let external = read(&ran.packet).ports[0];
        assert_eq!(external == port, port == 5000);
        let mut reply = back(false, L4::Udp(53, external));
        reply[at..at + 2].fill(0);
        let ran = fixture.arrive(&reply);
        assert_eq!(ran.packet[at..at + 2], [0, 0]);
        assert_eq!(read(&ran.packet).ports, [53, port]);
    }
}
