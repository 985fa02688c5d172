//! Datagrams larger than any packet, both ways.

use std::net::{SocketAddr, UdpSocket};

use netd_tests::lab::{Capture, Container, Datagram, Family, Lab, Packet, RawSocket, UdpEcho, ask, at, udp};

/// Bytes of a datagram that takes three packets.
fn data() -> Vec<u8> {
    (0..4000_u32).map(|i| (i % 251) as u8).collect()
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut buffer).expect("the datagram");
    buffer.truncate(length);
    (buffer, from)
}

/// A container's socket whose mapping to `remote` is open, and the address that the remote knows it by.
fn mapped(lab: &Lab, container: &Container, remote: SocketAddr) -> (UdpSocket, SocketAddr) {
    let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = udp(&container.ns, family, 5000);
    let echo = UdpEcho::new(&lab.outside, remote);
    ask(&socket, remote, b"opens the mapping");
    (socket, echo.peers()[0])
}

#[test]
fn in_order_both_ways() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let mut capture = Capture::new(&lab.outside, "eth0");
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        let socket = udp(&a.ns, family, 5000);
        for _ in 0..3 {
            assert_eq!(ask(&socket, at(family.outside(), 5300), &data()), data());
        }
        assert!(echo.peers().iter().all(|peer| *peer == at(family.host(), 5000)));
        let fragments: Vec<Packet> = capture.drain().into_iter().filter(|p| p.fragment.is_some()).collect();
        assert_eq!(fragments.len(), 9, "{fragments:#?}");
        assert!(fragments.iter().all(|p| p.source == family.host()), "{fragments:#?}");
        for datagram in fragments.chunks(3) {
            let ids: Vec<_> = datagram.iter().filter_map(|p| Some(p.fragment?.0)).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "one datagram, one identification: {fragments:#?}");
        }
    }
}

#[test]
fn out_of_order_to_the_outside() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let (from, to) = (at(a.address(family), 5000), at(family.outside(), 5300));
        let remote = udp(&lab.outside, family, 5300);
        let raw = RawSocket::new(&a.ns, to.ip());
        for (id, order) in (1..).zip([[1, 0, 2], [2, 1, 0], [2, 0, 1]]) {
            let fragments = Datagram::udp(from, to, &data()).fragments(1400, id);
            for part in order {
                raw.send(&fragments[part], to.ip());
            }
            assert_eq!(receive(&remote), (data(), at(family.host(), 5000)), "{family:?}, {order:?}");
        }
    }
}

#[test]
fn out_of_order_to_a_container() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let (socket, mapping) = mapped(&lab, &a, remote);
        let raw = RawSocket::new(&lab.outside, mapping.ip());
        for (id, order) in (1..).zip([[0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1]]) {
            let fragments = Datagram::udp(remote, mapping, &data()).fragments(1400, id);
            for part in order {
                raw.send(&fragments[part], mapping.ip());
            }
            assert_eq!(receive(&socket), (data(), remote), "{family:?}, {order:?}");
        }
    }
}

#[test]
fn out_of_order_by_a_published_port_of_the_host() {
    let lab = Lab::new();
    lab.host.netd("network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 other");
    let a = lab.container("a");
    lab.host.netd(&format!("publish netns:{} 8080:80/udp", a.ns.name()));
    for client in [lab.container("neighbour"), lab.container_on("other", "stranger")] {
        for family in Family::BOTH {
            let (server, socket) = (udp(&a.ns, family, 80), udp(&client.ns, family, 5000));
            let (own, port) = (at(client.address(family), 5000), at(family.host(), 8080));
            let [there, back] = [&client.ns, &a.ns].map(|ns| RawSocket::new(ns, port.ip()));
            for (id, order) in (1..).zip([[1, 0, 2], [2, 1, 0], [2, 0, 1]]) {
                let fragments = Datagram::udp(own, port, &data()).fragments(1400, id);
                for part in order {
                    there.send(&fragments[part], port.ip());
                }
                let (got, seen) = receive(&server);
                assert_eq!(got, data(), "{family:?}, {order:?}");
                let answer = Datagram::udp(at(a.address(family), 80), seen, &data()).fragments(1400, id);
                for part in order {
                    back.send(&answer[part], seen.ip());
                }
                assert_eq!(receive(&socket), (data(), port), "{family:?}, {order:?}");
            }
        }
    }
    // What is for the host itself reaches it in any order, as it did.
    let server = udp(&lab.host.ns, Family::V4, 9000);
    let (own, to) = (at(a.ipv4, 5000), at(Family::V4.host(), 9000));
    let fragments = Datagram::udp(own, to, &data()).fragments(1400, 9);
    let raw = RawSocket::new(&a.ns, to.ip());
    for part in [2, 0, 1] {
        raw.send(&fragments[part], to.ip());
    }
    assert_eq!(receive(&server), (data(), own));
}

#[test]
fn the_host_may_have_to_fragment() {
    let lab = Lab::new();
    lab.narrow_uplink(1400);
    let a = lab.container("a");
    let (from, to) = (at(a.ipv4, 5000), at(Family::V4.outside(), 5300));
    let remote = udp(&lab.outside, Family::V4, 5300);
    let mut capture = Capture::new(&lab.outside, "eth0");
    let data = vec![7; 1472];
    RawSocket::new(&a.ns, to.ip()).send(&Datagram::udp(from, to, &data).bytes(), to.ip());
    assert_eq!(receive(&remote), (data, at(Family::V4.host(), 5000)));
    let fragments: Vec<Packet> = capture.drain().into_iter().filter(|p| p.fragment.is_some()).collect();
    assert_eq!(fragments.len(), 2, "{fragments:#?}");
    assert!(fragments.iter().all(|p| p.source == Family::V4.host()), "{fragments:#?}");
}

#[test]
fn a_flood_of_lone_fragments_harms_nobody_else() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    // Room for the flood where it ends; what it does on its way is what is tested.
    lab.outside.sysctl("net.ipv4.ipfrag_high_thresh", "1000000000");
    let remote = at(Family::V4.outside(), 5300);
    let (_echo, socket) = (UdpEcho::new(&lab.outside, remote), udp(&a.ns, Family::V4, 5000));
    // Not to the same address: fragments that come from one address to one other under one id are one datagram there (RFC 4963), and all
    // come from the host's.
    let (source, other) = (at(b.ipv4, 6000), at(Family::V4.outside_other(), 5300));
    let raw = RawSocket::new(&b.ns, other.ip());
    for id in 0..20_000 {
        raw.send(&Datagram::udp(source, other, &data()).fragments(1400, id)[0], other.ip());
        if id % 1000 == 0 {
            assert_eq!(ask(&socket, remote, &data()), data());
        }
    }
    assert_eq!(ask(&socket, remote, &data()), data());
}
