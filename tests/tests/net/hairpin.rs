//! Published ports from within the host: a container that reaches itself, its neighbour, or another network's container by a port of
//! the host. Numbers are those of the reference's cases.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};

use netd_tests::lab::{
    Container, DUAL, Datagram, Family, Lab, Namespace, RawSocket, TcpEcho, UdpEcho, ask, at, close, connect,
    udp, until,
};

use crate::icmp::too_big;

const OTHER: &str = "other";

/// A lab with a second network of both families.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.host.netd(&format!("network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 {OTHER}"));
    lab
}

fn publish(lab: &Lab, container: &Container, specs: &str) {
    lab.host.netd(&format!("publish netns:{} {specs}", container.ns.name()));
}

fn unpublish(lab: &Lab, container: &Container, specs: &str) {
    lab.host.netd(&format!("unpublish netns:{} {specs}", container.ns.name()));
}

/// Talks over a new connection and returns its own address.
fn talk(ns: &Namespace, to: SocketAddr) -> SocketAddr {
    let mut stream = connect(ns, 0, to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    for _ in 0..3 {
        stream.write_all(b"hello").expect("sending");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("an echo of {to}: {e}"));
        assert_eq!(&answer, b"hello");
    }
    stream.local_addr().expect("a connected socket")
}

fn refused(ns: &Namespace, to: SocketAddr) {
    let error = connect(ns, 0, to).expect_err("nothing is published there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}: {error}");
}

#[test]
fn t53_nat50_a_container_reaches_its_own_port_and_its_neighbours() {
    let lab = lab();
    let (a, b) = (lab.container("a"), lab.container("b"));
    publish(&lab, &a, "8080:80 8080:80/udp");
    for family in Family::BOTH {
        let (tcp, datagrams) = (TcpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&a.ns, family.any(80)));
        for client in [&a, &b] {
            for address in [family.host(), a.gateway(family)] {
                talk(&client.ns, at(address, 8080));
                let socket = udp(&client.ns, family, 0);
                for _ in 0..3 {
                    assert_eq!(ask(&socket, at(address, 8080), b"datagram"), b"datagram");
                }
            }
        }
        // Each is seen as the gateway, or the answers would go past it.
        let seen: Vec<IpAddr> = tcp.peers().iter().chain(&datagrams.peers()).map(SocketAddr::ip).collect();
        assert_eq!((seen.len(), seen.iter().all(|peer| *peer == a.gateway(family))), (16, true), "{seen:?}");
        refused(&b.ns, at(family.host(), 8081));
        refused(&b.ns, at(a.gateway(family), 8081));
    }
    assert!(lab.host.metrics().contains("path=\"hairpinned\""));
}

/// Who is known by the gateway's address takes none of its ports that is a socket's of the host's, or published.
#[test]
fn nat51_a_neighbour_takes_no_port_of_the_hosts() {
    let lab = lab();
    let (a, b) = (lab.container("a"), lab.container("b"));
    publish(&lab, &a, "8080:80 8080:80/udp");
    publish(&lab, &b, "6503:80/udp");
    for family in Family::BOTH {
        let (tcp, datagrams) = (TcpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&a.ns, family.any(80)));
        let server = at(a.address(family), 80);
        let hosts = udp(&lab.host.ns, family, 6501);
        ask(&hosts, server, b"hello");
        let mut stream = connect(&lab.host.ns, 6502, server).expect("connecting");
        for port in [6501, 6503] {
            ask(&udp(&b.ns, family, port), at(family.host(), 8080), b"hello");
        }
        let mut beside = connect(&b.ns, 6502, at(family.host(), 8080)).expect("connecting");
        for stream in [&mut beside, &mut stream] {
            stream.write_all(b"hello").expect("sending");
            stream.read_exact(&mut [0; 5]).expect("the echo");
        }
        ask(&hosts, server, b"hello");
        let ports = |peers: Vec<SocketAddr>| peers.iter().map(SocketAddr::port).collect::<Vec<_>>();
        let [udp, tcp] = [datagrams.peers(), tcp.peers()].map(ports);
        assert_eq!((udp[0], udp[3], tcp[0]), (6501, 6501, 6502), "the host's");
        assert!(![6501, 6503].contains(&udp[1]) && udp[2] != 6503 && tcp[1] != 6502, "{udp:?} {tcp:?}");
    }
}

#[test]
fn t54_nat50_a_container_of_another_network_is_served_and_known() {
    let lab = lab();
    let (a, c) = (lab.container("a"), lab.container_on(OTHER, "c"));
    publish(&lab, &a, "5000:80 5000:80/udp");
    for family in Family::BOTH {
        let (tcp, datagrams) = (TcpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&a.ns, family.any(80)));
        // By the host's address, by the client's own gateway, by the server's.
        for address in [family.host(), c.gateway(family), a.gateway(family)] {
            let client = talk(&c.ns, at(address, 5000));
            assert_eq!(tcp.peers().last(), Some(&client), "the client's own address");
            let socket = udp(&c.ns, family, 5001);
            for _ in 0..3 {
                ask(&socket, at(address, 5000), b"datagram");
            }
        }
        assert!(
            datagrams.peers().iter().all(|peer| peer.ip() == c.address(family)),
            "{:?}",
            datagrams.peers()
        );
        // By two addresses from one port: two flows.
        let socket = udp(&c.ns, family, 5002);
        for _ in 0..3 {
            ask(&socket, at(family.host(), 5000), b"one");
            ask(&socket, at(c.gateway(family), 5000), b"two");
        }
        // The container itself stays out of reach.
        let direct = udp(&c.ns, family, 0);
        direct.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a socket's timeout");
        direct.send_to(b"direct", at(a.address(family), 80)).expect("sending");
        assert!(direct.recv_from(&mut [0; 64]).is_err());
    }
}

#[test]
fn a_port_of_one_address_is_reached_by_that_alone_from_within() {
    let lab = lab();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let spec = at(family.host(), 8080).to_string() + ":80";
        publish(&lab, &a, &spec);
        let loopback = if family == Family::V4 { "127.0.0.1:8081:80" } else { "[::1]:8081:80" };
        publish(&lab, &a, loopback);
        let _server = TcpEcho::new(&a.ns, family.any(80));
        talk(&b.ns, at(family.host(), 8080));
        refused(&b.ns, at(a.gateway(family), 8080));
        refused(&b.ns, at(family.host(), 8081));
        unpublish(&lab, &a, &spec);
        unpublish(&lab, &a, loopback);
    }
}

#[test]
fn t38_ports_are_reached_though_neighbours_are_not() {
    let lab = lab();
    lab.host
        .netd("network create --opt com.docker.network.bridge.enable_icc=false --subnet 172.29.0.0/24 apart");
    lab.host.netd("network create --internal --subnet 172.28.0.0/24 inside");
    let (a, b) = (lab.container_on("apart", "a"), lab.container_on("apart", "b"));
    let c = lab.container_on("inside", "c");
    publish(&lab, &a, "8080:80");
    let server = TcpEcho::new(&a.ns, Family::V4.any(80));
    talk(&b.ns, at(Family::V4.host(), 8080));
    talk(&b.ns, at(a.gateway(Family::V4), 8080));
    // An internal network reaches its own addresses and the gateway, and nothing through it.
    refused(&c.ns, at("172.28.0.1".parse::<IpAddr>().expect("an address"), 8080));
    assert_eq!(server.peers().len(), 2);
}

#[test]
fn nat48_no_flow_from_within_outlives_its_publication() {
    let lab = lab();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for client in [lab.container("client"), lab.container_on(OTHER, "client")] {
        for family in Family::BOTH {
            let servers = [&a, &b].map(|container| UdpEcho::new(&container.ns, family.any(7000)));
            let tcp = TcpEcho::new(&a.ns, family.any(7000));
            let to = at(family.host(), 7001);
            let socket = udp(&client.ns, family, 0);
            socket.connect(to).expect("connecting");
            let echoed = |word: &[u8]| {
                socket.send(word).expect("sending");
                let mut answer = [0; 64];
                let length = socket.recv(&mut answer).expect("an answer");
                assert_eq!(&answer[..length], word);
            };
            let counts = || servers.each_ref().map(|server| server.peers().len());
            publish(&lab, &a, "7001:7000/udp 7001:7000");
            echoed(b"to a");
            let mut stream = connect(&client.ns, 0, to).expect("connecting");
            unpublish(&lab, &a, "7001:7000/udp 7001:7000");
            assert!(!lab.host.netd("nat ls").contains(":7001"), "{}", lab.host.netd("nat ls"));
            let _ = stream.write_all(b"late");
            assert!(stream.read_exact(&mut [0; 4]).is_err(), "the connection is no more");
            publish(&lab, &b, "7001:7000/udp");
            echoed(b"to b");
            assert_eq!((counts(), tcp.peers().len()), ([1, 1], 1));
            unpublish(&lab, &b, "7001:7000/udp");
            // Nobody is there: the host says so.
            socket.send(b"to nobody").expect("sending");
            assert_eq!(
                socket.recv(&mut [0; 64]).expect_err("refused").kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
        // A client that goes takes its flows along.
        publish(&lab, &a, "7001:7000/udp");
        let _server = UdpEcho::new(&a.ns, Family::V4.any(7000));
        ask(&udp(&client.ns, Family::V4, 0), at(Family::V4.host(), 7001), b"hello");
        assert!(lab.host.netd("nat ls").contains(":7001"));
        let network = if client.ipv4.octets()[1] == 31 { OTHER } else { DUAL };
        lab.host.netd(&format!("network disconnect {network} netns:{}", client.ns.name()));
        assert!(!lab.host.netd("nat ls").contains(":7001"), "{}", lab.host.netd("nat ls"));
        unpublish(&lab, &a, "7001:7000/udp");
    }
}

#[test]
fn large_datagrams_and_streams_go_within_the_host() {
    let lab = lab();
    let a = lab.container("a");
    publish(&lab, &a, "8081:81/udp 8082:82");
    for client in [lab.container("neighbour"), lab.container_on(OTHER, "stranger")] {
        for family in Family::BOTH {
            // In fragments both ways.
            let _echo = UdpEcho::new(&a.ns, family.any(81));
            let large = vec![7; 4000];
            let socket = udp(&client.ns, family, 0);
            for _ in 0..3 {
                assert_eq!(ask(&socket, at(family.host(), 8081), &large), large);
            }
            let _server = TcpEcho::new(&a.ns, family.any(82));
            let stream = connect(&client.ns, 0, at(family.host(), 8082)).expect("connecting");
            let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
            let mut received = vec![0; sent.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| (&stream).write_all(&sent).expect("sending"));
                (&stream).read_exact(&mut received).expect("the echo");
            });
            assert!(sent == received, "what comes back is what was sent");
        }
    }
}

#[test]
fn many_clients_of_one_port_are_told_apart() {
    let lab = lab();
    let a = lab.container("a");
    publish(&lab, &a, "8080:80");
    let clients: Vec<_> = (0..4).map(|n| lab.container(&format!("c{n}"))).collect();
    for family in Family::BOTH {
        let server = TcpEcho::new(&a.ns, family.any(80));
        let to = at(family.host(), 8080);
        // All from the same port, as neighbours that are all the gateway to the server.
        let mut streams: Vec<_> =
            clients.iter().map(|client| connect(&client.ns, 6000, to).expect("connecting")).collect();
        for round in 0..3u8 {
            for (n, stream) in streams.iter_mut().enumerate() {
                let word = [round, n as u8, 0x55];
                stream.write_all(&word).expect("sending");
                let mut answer = [0; 3];
                stream.read_exact(&mut answer).expect("the echo");
                assert_eq!(answer, word);
            }
        }
        let mut peers = server.peers();
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), clients.len(), "{peers:?}");
    }
}

#[test]
fn errors_come_back_to_whom_they_are_about() {
    let lab = lab();
    let a = lab.container("a");
    publish(&lab, &a, "8085:85/udp 8086:86/udp");
    for client in [lab.container("neighbour"), lab.container_on(OTHER, "stranger")] {
        for family in Family::BOTH {
            let case = format!("{} {family:?}", client.ns.name());
            let refused = |socket: &std::net::UdpSocket, who: &str| {
                socket.send(b"anybody?").expect("sending");
                let error = socket.recv(&mut [0; 64]).expect_err("nobody is there");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{case}, {who}: {error}");
            };
            // The server's port is closed; by the host's address and by either gateway.
            for address in [family.host(), client.gateway(family), a.gateway(family)] {
                let socket = udp(&client.ns, family, 0);
                socket.connect(at(address, 8085)).expect("connecting");
                refused(&socket, "the client");
            }

            // The way on from the server is narrow.
            let server = udp(&a.ns, family, 86);
            let socket = udp(&client.ns, family, 0);
            socket.connect(at(family.host(), 8086)).expect("connecting");
            socket.send(b"hello").expect("sending");
            let (_, seen) = server.recv_from(&mut [0; 64]).expect("the datagram");
            let own = at(a.address(family), 86);
            let about = Datagram::udp(seen, own, &[0; 1380]).bytes();
            let narrow = too_big(1300, own.ip(), seen.ip(), &about[..548]);
            RawSocket::new(&a.ns, seen.ip()).send(&narrow.bytes(), seen.ip());
            until(&format!("{case}: the client knows what fits"), || {
                client.ns.ip(&format!("route get {}", family.host())).contains("mtu 1300")
            });

            // The client's port is closed.
            server.connect(seen).expect("connecting");
            close(&client.ns, socket);
            refused(&server, "the server");
        }
    }
}
