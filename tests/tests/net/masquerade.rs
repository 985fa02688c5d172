//! To the outside: what the remote sees, and who gets its answers.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use netd_tests::lab::{
    Capture, Datagram, Family, Lab, Ping, RawSocket, TcpEcho, UdpEcho, ask, at, connect, ping, udp,
};

#[test]
fn the_remote_sees_the_hosts_address_and_the_same_port() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let mut outside = Capture::new(&lab.outside, "eth0");
        let mut inside = Capture::new(&a.ns, "eth0");
        assert!(ping(&a.ns, family.outside(), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()), "and again, over the same flow");
        let request = outside.expect("the echo request", |p| p.destination == family.outside());
        assert_eq!((request.source, request.ttl), (family.host(), 63), "one hop, the gateway");
        let reply = inside.expect("the echo reply", |p| p.source == family.outside());
        assert_eq!((reply.destination, reply.ttl), (a.address(family), 63));

        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        ask(&udp(&a.ns, family, 5000), at(family.outside(), 5300), b"who am I");
        assert_eq!(echo.peers(), [at(family.host(), 5000)]);

        let server = TcpEcho::new(&lab.outside, at(family.outside(), 8000));
        let mut stream = connect(&a.ns, 5001, at(family.outside(), 8000)).expect("connecting");
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        assert_eq!(server.peers(), [at(family.host(), 5001)]);
    }
}

#[test]
fn an_address_of_class_e_is_a_hosts() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.outside.ip("address add 240.9.9.9/32 dev lo");
    let remote = at([240, 9, 9, 9], 5300);
    let echo = UdpEcho::new(&lab.outside, remote);
    ask(&udp(&a.ns, Family::V4, 5000), remote, b"who am I");
    assert_eq!(echo.peers(), [at(Family::V4.host(), 5000)]);
    assert!(ping(&a.ns, remote.ip(), Ping::default()));
}

#[test]
fn two_containers_with_one_source_port_to_one_remote() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let echo = UdpEcho::new(&lab.outside, remote);
        let sockets = [udp(&a.ns, family, 5000), udp(&b.ns, family, 5000)];
        for _ in 0..10 {
            for (socket, word) in sockets.iter().zip([b"of a", b"of b"]) {
                assert_eq!(ask(socket, remote, word), word);
            }
        }
        let mut peers = echo.peers();
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), 2, "two flows, two mappings: {peers:?}");
        assert!(peers.iter().all(|peer| peer.ip() == family.host()));
        assert!(peers.contains(&at(family.host(), 5000)), "the first one keeps its port: {peers:?}");

        let remote = at(family.outside(), 8000);
        let server = TcpEcho::new(&lab.outside, remote);
        let mut streams = [&a, &b].map(|c| connect(&c.ns, 5001, remote).expect("connecting"));
        for _ in 0..10 {
            for (stream, word) in streams.iter_mut().zip([*b"of a", *b"of b"]) {
                stream.write_all(&word).expect("sending");
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).expect("the echo");
                assert_eq!(answer, word);
            }
        }
        let mut peers = server.peers();
        peers.dedup();
        assert_eq!(peers.len(), 2, "two connections, two mappings: {peers:?}");
        assert!(peers.contains(&at(family.host(), 5001)), "the first one keeps its port: {peers:?}");
    }
}

#[test]
fn two_containers_with_one_echo_id() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let mut capture = Capture::new(&lab.outside, "eth0");
        let request = Ping { id: 4711, ..Ping::default() };
        assert!(ping(&a.ns, family.outside(), request));
        assert!(ping(&b.ns, family.outside(), request));
        assert!(ping(&a.ns, family.outside(), request));
        let ids: Vec<_> = capture
            .drain()
            .into_iter()
            .filter(|p| p.source == family.host() && matches!(p.icmp_type(), Some((8 | 128, 0))))
            .map(|p| u16::from_be_bytes([p.payload[4], p.payload[5]]))
            .collect();
        assert_eq!((ids.len(), ids[0], ids[2]), (3, 4711, 4711), "{ids:?}");
        assert_ne!(ids[1], 4711, "an id is a port: it serves one container at a time");
    }
}

#[test]
fn one_port_serves_many_remotes() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let [here, there] = [at(family.outside(), 5300), at(family.outside_other(), 5300)];
        let echoes = [UdpEcho::new(&lab.outside, here), UdpEcho::new(&lab.outside, there)];
        let sockets = [udp(&a.ns, family, 5000), udp(&b.ns, family, 5000)];
        ask(&sockets[0], here, b"of a");
        ask(&sockets[1], there, b"of b");
        for echo in &echoes {
            assert_eq!(echo.peers(), [at(family.host(), 5000)]);
        }
    }
}

#[test]
fn a_mapping_is_for_its_remote_alone() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let socket = udp(&a.ns, family, 5000);
        let _echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        ask(&socket, at(family.outside(), 5300), b"opens the mapping");
        let other_port = udp(&lab.outside, family, 5301);
        let other_address = lab
            .outside
            .enter(|| std::net::UdpSocket::bind(at(family.outside_other(), 5300)))
            .expect("binding");
        for stranger in [&other_port, &other_address] {
            stranger.send_to(b"unasked", at(family.host(), 5000)).expect("sending");
        }
        // What the strangers sent came before this answer, had it come at all.
        assert_eq!(ask(&socket, at(family.outside(), 5300), b"asked"), b"asked");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket's timeout");
        assert!(socket.recv_from(&mut [0; 64]).is_err(), "nothing else came in");
    }
}

#[test]
fn a_port_of_the_hosts_own_is_left_to_the_host() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let echo = UdpEcho::new(&lab.outside, remote);
        let of_host = udp(&lab.host.ns, family, 5000);
        assert_eq!(ask(&of_host, remote, b"of the host"), b"of the host");
        let of_container = udp(&a.ns, family, 5000);
        for _ in 0..3 {
            assert_eq!(ask(&of_container, remote, b"of a"), b"of a");
            assert_eq!(ask(&of_host, remote, b"of the host"), b"of the host");
        }
        let peers = echo.peers();
        assert_eq!(peers[0], at(family.host(), 5000));
        assert_ne!(peers[1], peers[0], "the container's flow has another port");
    }
}

#[test]
fn the_hosts_own_traffic_is_not_touched() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        assert!(ping(&lab.host.ns, family.outside(), Ping::default()));
        assert!(ping(&lab.outside, family.host(), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()));

        let server = TcpEcho::new(&lab.host.ns, at(family.host(), 8000));
        for client in [&lab.outside, &a.ns] {
            let mut stream = connect(client, 0, at(family.host(), 8000)).expect("connecting to the host");
            stream.write_all(b"hello").expect("sending");
            stream.read_exact(&mut [0; 5]).expect("the echo");
        }
        let peers: Vec<_> = server.peers().iter().map(std::net::SocketAddr::ip).collect();
        assert_eq!(peers, [family.outside(), a.address(family)], "the host sees who speaks to it");

        let server = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        ask(&udp(&lab.host.ns, family, 5000), server.address, b"of the host");
        assert_eq!(server.peers(), [at(family.host(), 5000)]);
    }
}

#[test]
fn a_refused_connection_is_refused_at_once() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let error = connect(&a.ns, 5001, at(family.outside(), 8099)).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
}

#[test]
fn a_flow_that_finds_no_port_is_refused_at_once() {
    let lab = Lab::wired();
    // The host's own range leaves one port to masquerade.
    lab.host.ns.sysctl("net.ipv4.ip_local_port_range", "1024 65534");
    lab.host.start(&[]);
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
    let (a, b) = (lab.container("a"), lab.container("b"));
    for (family, kind) in
        [(Family::V4, io::ErrorKind::HostUnreachable), (Family::V6, io::ErrorKind::PermissionDenied)]
    {
        let (datagrams, stream) = (at(family.outside(), 5300), at(family.outside(), 8000));
        let (echo, _server) = (UdpEcho::new(&lab.outside, datagrams), TcpEcho::new(&lab.outside, stream));
        ask(&udp(&a.ns, family, 5000), datagrams, b"the last port");
        assert_eq!(echo.peers(), [at(family.host(), 65535)]);
        let socket = udp(&b.ns, family, 5000);
        socket.connect(datagrams).expect("a datagram's way");
        socket.send(b"one too many").expect("sending");
        assert_eq!(socket.recv(&mut [0; 16]).expect_err("a refusal").kind(), kind);

        let _open = connect(&a.ns, 5001, stream).expect("connecting");
        assert_eq!(connect(&b.ns, 5001, stream).expect_err("a refusal").kind(), kind);
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let lab = Lab::new();
    let a = lab.container("a");
    let (from, to) = (at(a.ipv4, 5000), at(Family::V4.outside(), 5300));
    let mut capture = Capture::new(&lab.outside, "eth0");
    let server = udp(&lab.outside, Family::V4, 5300);
    let mut datagram = Datagram::udp(from, to, b"unsummed");
    datagram.payload[6..8].fill(0);
    RawSocket::new(&a.ns, to.ip()).send(&datagram.bytes(), to.ip());
    let mut buffer = [0; 64];
    let (length, peer) = server.recv_from(&mut buffer).expect("the datagram");
    assert_eq!((&buffer[..length], peer), (&b"unsummed"[..], at(Family::V4.host(), 5000)));
    let arrived = capture.expect("the datagram", |p| p.ports() == Some((5000, 5300)));
    assert_eq!(arrived.payload[6..8], [0, 0], "RFC 768: zero is no checksum, not a sum to be corrected");
}

#[test]
fn the_nat_table_shows_live_bindings() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let _echo = UdpEcho::new(&lab.outside, remote);
        let socket = udp(&a.ns, family, 5000);
        for _ in 0..3 {
            ask(&socket, remote, b"hello");
        }
        let table = lab.host.netd("nat ls");
        let shown = [
            at(a.address(family), 5000).to_string(),
            remote.to_string(),
            at(family.host(), 5000).to_string(),
        ];
        assert!(
            table.lines().any(|line| shown.iter().all(|address| line.contains(address))),
            "no line shows {shown:?}:\n{table}"
        );
        let json = lab.host.netd_json("nat ls").to_string();
        assert!(json.contains(&family.outside().to_string()), "{json}");
    }
}

#[test]
fn a_removed_container_takes_its_flows_along() {
    let lab = Lab::new();
    let a = lab.container("a");
    let _echo = UdpEcho::new(&lab.outside, at(Family::V4.outside(), 5300));
    ask(&udp(&a.ns, Family::V4, 5000), at(Family::V4.outside(), 5300), b"hello");
    assert!(lab.host.netd("nat ls").contains(":5300"));
    lab.host.netd(&format!("network disconnect dual netns:{}", a.ns.name()));
    assert!(!lab.host.netd("nat ls").contains(":5300"), "{}", lab.host.netd("nat ls"));
}
