//! Uplinks without an Ethernet header: a tun device, with a process between it and the other end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netd_tests::lab::{
    Capture, Container, Datagram, Family, Lab, Packet, Ping, RawSocket, Tunnel, UdpEcho, ask, at, close,
    ping, transfer, udp, until,
};

/// The host's end of the tunnel.
fn near(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The far end.
fn far(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, 2).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// An address that only a route through the tunnel leads to.
fn beyond(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 99).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99).into(),
    }
}

/// `tun0` from the host to the outside, and routes through it.
fn tunnel(lab: &Lab) -> Tunnel {
    let tunnel = Tunnel::new(&lab.host.ns, &lab.outside, "tun0");
    for (ns, host) in [(&lab.host.ns, "1"), (&lab.outside, "2")] {
        ns.ip(&format!("address add 10.99.0.{host}/24 dev tun0"));
        ns.ip(&format!("address add fd00:99::{host}/64 dev tun0 nodad"));
        ns.ip("link set tun0 up");
    }
    lab.outside.ip("address add 198.51.100.99/32 dev lo");
    lab.outside.ip("address add 2001:db8:99::99/128 dev lo nodad");
    lab.host.ns.ip("route add 198.51.100.0/24 dev tun0");
    lab.host.ns.ip("-6 route add 2001:db8:99::/64 dev tun0");
    tunnel
}

/// The same once netd has seen it.
fn found(lab: &Lab) -> Tunnel {
    let tunnel = tunnel(lab);
    until("netd knows the tunnel and its addresses", || {
        let status = lab.host.netd("status");
        status.contains("10.99.0.1") && status.contains("fd00:99::1")
    });
    tunnel
}

fn sees_no_container(packets: &[Packet], container: &Container) -> bool {
    let own = Family::BOTH.map(|family| container.address(family));
    packets.iter().all(|packet| !own.contains(&packet.source))
}

#[test]
fn a_tunnel_is_found_and_masqueraded_into() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _tunnel = found(&lab);
    let mut capture = Capture::new(&lab.outside, "tun0");
    for family in Family::BOTH {
        for remote in [far(family), beyond(family)] {
            let echo = UdpEcho::new(&lab.outside, at(remote, 5300));
            ask(&udp(&a.ns, family, 5000), echo.address, b"hello");
            assert_eq!(echo.peers(), [at(near(family), 5000)]);
            assert!(ping(&a.ns, remote, Ping::default()), "{remote}");
            transfer(&a.ns, &lab.outside, at(remote, 5001), 1_000_000);
        }
        // The host's own traffic is none of netd's business, and its other uplink is still one.
        assert!(ping(&lab.host.ns, far(family), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()));
    }
    let packets = capture.drain();
    assert!(!packets.is_empty() && sees_no_container(&packets, &a), "{packets:#?}");
}

#[test]
fn a_tunnel_may_be_named() {
    let lab = Lab::wired();
    let _tunnel = tunnel(&lab);
    lab.host.start(&["--uplink", "tun0"]);
    let a = lab.container_on("bridge", "a");
    let echo = UdpEcho::new(&lab.outside, at(beyond(Family::V4), 5300));
    ask(&udp(&a.ns, Family::V4, 5000), echo.address, b"hello");
    assert_eq!(echo.peers(), [at(near(Family::V4), 5000)]);
}

#[test]
fn a_tunnel_takes_less_than_a_container_sends() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _tunnel = found(&lab);
    lab.host.ns.ip("link set tun0 mtu 1300");
    lab.outside.ip("link set tun0 mtu 1300");
    let data: Vec<u8> = (0..4000_u32).map(|i| (i % 251) as u8).collect();
    let mut capture = Capture::new(&lab.outside, "tun0");
    for family in Family::BOTH {
        transfer(&a.ns, &lab.outside, at(beyond(family), 5001), 1_000_000);
        let refused = udp(&a.ns, family, 0).send_to(&data[..1400], at(beyond(family), 5300));
        assert_eq!(refused.expect("the container knows no better"), 1400);
        until("the container is told what the tunnel takes", || {
            a.ns.ip(&format!("route get {}", beyond(family))).contains("mtu 1300")
        });
        // In fragments, there and back.
        let echo = UdpEcho::new(&lab.outside, at(beyond(family), 5300));
        assert_eq!(ask(&udp(&a.ns, family, 5000), echo.address, &data), data);
        assert_eq!(echo.peers(), [at(near(family), 5000)]);
        assert!(ping(&a.ns, beyond(family), Ping { size: 4000, ..Ping::default() }));
    }
    assert!(sees_no_container(&capture.drain(), &a));
}

#[test]
fn fragments_come_out_of_a_tunnel_in_any_order() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _tunnel = found(&lab);
    let data: Vec<u8> = (0..4000_u32).map(|i| (i % 251) as u8).collect();
    for family in Family::BOTH {
        let remote = at(beyond(family), 5300);
        let socket = udp(&a.ns, family, 5000);
        {
            let echo = UdpEcho::new(&lab.outside, remote);
            ask(&socket, remote, b"opens the mapping");
            assert_eq!(echo.peers(), [at(near(family), 5000)]);
        }
        let raw = RawSocket::new(&lab.outside, near(family));
        for (id, order) in (1..).zip([[0, 1, 2], [1, 0, 2], [2, 1, 0]]) {
            let fragments = Datagram::udp(remote, at(near(family), 5000), &data).fragments(1400, id);
            for part in order {
                raw.send(&fragments[part], near(family));
            }
            let mut buffer = vec![0; 65536];
            let (length, from) = socket.recv_from(&mut buffer).expect("the datagram");
            assert_eq!((&buffer[..length], from), (&data[..], remote), "{order:?}");
        }
    }
}

#[test]
fn errors_cross_a_tunnel_both_ways() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _tunnel = found(&lab);
    for family in Family::BOTH {
        let socket = udp(&a.ns, family, 5000);
        socket.connect(at(beyond(family), 5399)).expect("connecting");
        socket.send(b"anybody?").expect("sending");
        let error = socket.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        close(&a.ns, socket);

        // A container's own error is about what the remote sent to the mapping.
        let remote = lab.outside.enter(|| std::net::UdpSocket::bind(at(beyond(family), 5300)));
        let remote = remote.expect("binding");
        remote.set_read_timeout(Some(netd_tests::lab::PATIENCE)).expect("a socket's timeout");
        let socket = udp(&a.ns, family, 5000);
        socket.send_to(b"hello", at(beyond(family), 5300)).expect("sending");
        let (_, mapping) = remote.recv_from(&mut [0; 64]).expect("the datagram");
        assert_eq!(mapping, at(near(family), 5000));
        close(&a.ns, socket);
        remote.connect(mapping).expect("connecting");
        remote.send(b"still there?").expect("sending");
        let error = remote.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
}

#[test]
fn nobody_enters_by_a_tunnel() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _tunnel = found(&lab);
    for family in Family::BOTH {
        let listener = udp(&a.ns, family, 5300);
        let to = at(a.address(family), 5300);
        lab.outside.ip(&match family {
            Family::V4 => format!("route add {} dev tun0", to.ip()),
            Family::V6 => format!("-6 route add {} dev tun0", to.ip()),
        });
        let drops =
            || lab.host.netd("stats").lines().find(|l| l.contains("direct_access")).map(str::to_owned);
        let before = drops();
        udp(&lab.outside, family, 5301).send_to(b"let me in", to).expect("sending");
        until("the datagram is dropped", || drops() != before);
        listener.set_nonblocking(true).expect("a socket's mode");
        assert_eq!(
            listener.recv(&mut [0; 64]).expect_err("nothing").kind(),
            io::ErrorKind::WouldBlock,
            "{family:?}"
        );
    }
}
