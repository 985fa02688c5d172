//! Published ports: who reaches them, whom the container sees, and what becomes of them. Numbers are those of the
//! reference's cases.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use netd_tests::lab::{
    Capture, Container, Family, Lab, Namespace, TcpEcho, UdpEcho, ask, at, bound, close, connect, udp,
};

/// Publishes ports of a container.
fn publish(lab: &Lab, container: &Container, specs: &str) -> String {
    lab.host.netd(&format!("publish netns:{} {specs}", container.ns.name()))
}

fn unpublish(lab: &Lab, container: &Container, specs: &str) -> String {
    lab.host.netd(&format!("unpublish netns:{} {specs}", container.ns.name()))
}

/// Connects, has a word echoed, and returns the connection's own address.
fn talk(from: &Namespace, port: u16, to: SocketAddr) -> SocketAddr {
    let mut stream = connect(from, port, to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    stream.write_all(b"hello").expect("sending");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("an echo of {to}: {e}"));
    assert_eq!(&answer, b"hello");
    stream.local_addr().expect("a connected socket")
}

/// A TCP and a UDP server in a container, both on one port of a family.
fn servers(container: &Container, family: Family, port: u16) -> (TcpEcho, UdpEcho) {
    let address = family.any(port);
    (TcpEcho::new(&container.ns, address), UdpEcho::new(&container.ns, address))
}

#[test]
fn t52_nat44_a_published_port_is_reached_from_outside_and_the_source_is_kept() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab, &a, "1780:80 1780:80/udp");
    for family in Family::BOTH {
        let (tcp, udp_server) = servers(&a, family, 80);
        let mut outside = Capture::new(&lab.outside, "eth0");
        let client = talk(&lab.outside, 5001, at(family.host(), 1780));
        assert_eq!(tcp.peers(), [client], "the server sees the remote itself");
        let answer =
            outside.expect("the answer", |p| p.destination == client.ip() && p.ports() == Some((1780, 5001)));
        assert_eq!((answer.source, answer.ttl), (family.host(), 63));

        let socket = udp(&lab.outside, family, 5002);
        for _ in 0..3 {
            assert_eq!(ask(&socket, at(family.host(), 1780), b"datagram"), b"datagram");
        }
        assert_eq!(udp_server.peers(), [at(family.outside(), 5002); 3]);
    }
    let table = lab.host.netd("nat ls");
    assert!(table.contains(":1780"), "{table}");
    // What is not published is not reached.
    let error =
        connect(&lab.outside, 0, at(Family::V4.host(), 1781)).expect_err("nothing is published there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_range_is_reached_from_end_to_end() {
    let lab = Lab::new();
    let a = lab.container("a");
    let shown = publish(&lab, &a, "8000-8010:9000-9010");
    assert_eq!(shown, "0.0.0.0:8000-8010 -> 9000-9010/tcp\n[::]:8000-8010 -> 9000-9010/tcp\n");
    for family in Family::BOTH {
        for offset in [0, 5, 10] {
            let server = TcpEcho::new(&a.ns, family.any(9000 + offset));
            talk(&lab.outside, 0, at(family.host(), 8000 + offset));
            assert_eq!(server.peers().len(), 1, "port {}", 8000 + offset);
        }
        for port in [7999, 8011] {
            let error = connect(&lab.outside, 0, at(family.host(), port)).expect_err("outside the range");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{port}");
        }
    }
    let part = lab.host.netd_fails(&format!("unpublish netns:{} 8005:9005", a.ns.name()));
    let why = "but as part of 0.0.0.0:8000-8010, which ends as a whole";
    assert!(part.contains(why) && lab.host.netd("publish ls").contains("0.0.0.0:8000-8010"), "{part}");
}

#[test]
fn two_published_ports_and_one_client_port_are_two_flows() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab, &a, "8080:80 8081:80 8080:80/udp 8081:80/udp");
    for family in Family::BOTH {
        let (tcp, udp_server) = servers(&a, family, 80);
        let [one, two] = [at(family.host(), 8080), at(family.host(), 8081)];
        let mut streams = [one, two].map(|to| connect(&lab.outside, 5001, to).expect("connecting"));
        for _ in 0..5 {
            for (stream, word) in streams.iter_mut().zip([*b"one", *b"two"]) {
                stream.write_all(&word).expect("sending");
                let mut answer = [0; 3];
                stream.read_exact(&mut answer).expect("the echo");
                assert_eq!(answer, word);
            }
        }
        let peers = tcp.peers();
        assert_eq!(peers.len(), 2);
        assert!(peers.iter().all(|peer| peer.ip() == family.outside()) && peers[0] != peers[1], "{peers:?}");

        let socket = udp(&lab.outside, family, 5002);
        for _ in 0..5 {
            assert_eq!(ask(&socket, one, b"one"), b"one");
            assert_eq!(ask(&socket, two, b"two"), b"two");
        }
        let mut peers = udp_server.peers();
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), 2, "{peers:?}");
    }
}

#[test]
fn nat48_a_published_port_captures_no_reply_of_a_containers_own_flow() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let remote = at(family.outside(), 5300);
        let _echo = UdpEcho::new(&lab.outside, remote);
        let socket = udp(&b.ns, family, 5000);
        ask(&socket, remote, b"first");
        let _server = UdpEcho::new(&a.ns, family.any(5000));
        publish(&lab, &a, "5000:5000/udp");
        assert_eq!(ask(&socket, remote, b"second"), b"second");
        // A new flow gets another port, for this one is published now.
        let other = at(family.outside_other(), 5300);
        let echo = UdpEcho::new(&lab.outside, other);
        ask(&socket, other, b"third");
        let peers = echo.peers();
        assert!(peers[0].ip() == family.host() && peers[0].port() != 5000, "{peers:?}");
        unpublish(&lab, &a, "5000:5000/udp");
    }
}

#[test]
fn t68_many_ports_are_published_at_once() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab, &a, "10000-12000:10000-12000/tcp 10000-12000:10000-12000/udp");
    for family in Family::BOTH {
        for port in (10000..=12000).step_by(500) {
            let (tcp, _udp) = servers(&a, family, port);
            talk(&lab.outside, 0, at(family.host(), port));
            assert_eq!(tcp.peers().len(), 1);
            ask(&udp(&lab.outside, family, 0), at(family.host(), port), b"datagram");
        }
    }
}

#[test]
fn t61_a_port_is_published_once() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    publish(&lab, &a, "8080:80");
    let fails = |specs: &str| lab.host.netd_fails(&format!("publish netns:{} {specs}", b.ns.name()));
    assert!(fails("8080:80").contains("Bind for 0.0.0.0:8080 failed: port is already allocated"));
    assert!(fails("8000-9000:8000-9000").contains("Bind for 0.0.0.0:8080 failed: port is already allocated"));
    let specific = fails(&format!("{}:8080:80", Family::V4.host()));
    assert!(specific.contains("failed: port is already allocated"), "{specific}");
    let taken = |family: Family, port| lab.host.ns.enter(|| std::net::TcpListener::bind(family.any(port)));
    let listener = taken(Family::V4, 8090).expect("binding");
    let error = fails("8090:80");
    let wanted =
        format!("failed to bind host port for 0.0.0.0:8090:{}:80/tcp: address already in use", b.ipv4);
    assert!(error.contains(&wanted), "{error}");
    // Nothing is left of what failed.
    close(&lab.host.ns, listener);
    assert!(!lab.host.netd("publish ls").contains("8090"));
    publish(&lab, &b, "8090:80");
    // A choice of ports gives the first that is free.
    assert!(publish(&lab, &b, "8080-8095:81").starts_with("0.0.0.0:8081 -> 81/tcp\n"));
    // Of any ports, the same for both families.
    let shown = publish(&lab, &b, "82");
    let ports: Vec<_> = shown
        .lines()
        .map(|line| line.split(" -> ").next().and_then(|host| host.rsplit(':').next()))
        .collect();
    assert!(ports.len() == 2 && ports[0] == ports[1], "{shown}");
    // An IPv4 address as a socket of IPv6 shows it.
    assert_eq!(publish(&lab, &b, "[::ffff:203.0.113.1]:8071:83"), "203.0.113.1:8071 -> 83/tcp\n");
    // An address that is not the host's.
    assert!(fails("198.51.100.1:8070:80").contains("cannot assign requested address"));
}

#[test]
fn nat48_a_new_endpoint_gets_what_the_old_one_got() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        let port = if family == Family::V4 { 7001 } else { 7002 };
        let spec = format!("{port}:7000/udp");
        publish(&lab, &a, &spec);
        let first = UdpEcho::new(&a.ns, family.any(7000));
        // One socket, and connected: what comes of another address would not reach it.
        let client = udp(&lab.outside, family, 6000);
        ask(&client, at(family.host(), port), b"to a");
        assert_eq!(first.peers().len(), 1);
        unpublish(&lab, &a, &spec);
        assert!(!lab.host.netd("nat ls").contains(&format!(":{port}")), "{}", lab.host.netd("nat ls"));
        let b = lab.container("b");
        publish(&lab, &b, &spec);
        let second = UdpEcho::new(&b.ns, family.any(7000));
        ask(&client, at(family.host(), port), b"to b");
        assert_eq!((first.peers().len(), second.peers().len()), (1, 1));
        // The same, when the endpoint is gone.
        lab.host.netd(&format!("network disconnect dual netns:{}", b.ns.name()));
        publish(&lab, &a, &spec);
        ask(&client, at(family.host(), port), b"to a again");
        assert_eq!((first.peers().len(), second.peers().len()), (2, 1));
    }
}

#[test]
fn t66_publications_outlive_the_daemon() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    publish(&lab, &a, "8080:80");
    let family = Family::V4;
    let server = TcpEcho::new(&a.ns, family.any(80));
    let mut stream = connect(&lab.outside, 5001, at(family.host(), 8080)).expect("connecting");
    let mut echoed = || {
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
    };
    echoed();
    lab.host.kill();
    echoed();
    talk(&lab.outside, 0, at(family.host(), 8080));
    lab.host.start(&[]);
    echoed();
    talk(&lab.outside, 0, at(family.host(), 8080));
    assert_eq!(server.peers().len(), 3);
    let error = lab.host.netd_fails(&format!("publish netns:{} 8080:80", b.ns.name()));
    assert!(error.contains("port is already allocated"), "{error}");
}

#[test]
fn endpoint_options_publish_ports() {
    let lab = Lab::new();
    let family = Family::V4;
    let mut containers = Vec::new();
    for (option, port) in [
        ("netd.publish=8080:80,8081:81/udp".to_owned(), 8080),
        (
            r#"com.docker.network.portmap=[{"Proto":6,"Port":80,"HostPort":8090,"HostPortEnd":8090}]"#
                .to_owned(),
            8090,
        ),
    ] {
        let ns = Namespace::new("options");
        lab.host.netd(&format!("network connect --driver-opt {option} dual netns:{}", ns.name()));
        let container = Container::of(ns);
        let server = TcpEcho::new(&container.ns, family.any(80));
        talk(&lab.outside, 0, at(family.host(), port));
        assert_eq!(server.peers().len(), 1);
        containers.push(container);
    }
    // What fails leaves nothing.
    let ns = Namespace::new("refused");
    let connect = |option: &str| {
        lab.host.netd_fails(&format!(
            "network connect --driver-opt netd.publish={option} dual netns:{}",
            ns.name()
        ))
    };
    assert!(connect("8080:80").contains("port is already allocated"));
    assert!(connect("x").contains("invalid containerPort: x"));
    assert!(!lab.host.netd("network inspect dual").contains(ns.name()));
}

#[test]
fn a_port_on_an_address_is_reached_there_alone() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.host.ns.ip("address add 203.0.113.9/24 dev up0");
    lab.host.ns.ip("address add 2001:db8::9/64 dev up0 nodad");
    for (family, second) in [(Family::V4, "203.0.113.9"), (Family::V6, "2001:db8::9")] {
        let second: IpAddr = second.parse().expect("an address");
        let spec = if second.is_ipv4() { format!("{second}:8080:80") } else { format!("[{second}]:8080:80") };
        publish(&lab, &a, &spec);
        let server = TcpEcho::new(&a.ns, family.any(80));
        talk(&lab.outside, 0, at(second, 8080));
        let error = connect(&lab.outside, 0, at(family.host(), 8080)).expect_err("published elsewhere");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(server.peers().len(), 1);
    }
}

#[test]
fn what_is_only_routed_by_the_host_is_not_captured() {
    let lab = Lab::wired();
    // A router before there is a netd, to a network that netd knows nothing of.
    lab.host.ns.sysctl("net.ipv4.ip_forward", "1");
    lab.host.start(&[]);
    let (a, b) = (lab.container_on("bridge", "a"), Namespace::new("routed"));
    lab.host.ns.ip(&format!("link add other0 type veth peer name eth0 netns {}", b.name()));
    lab.host.ns.ip("address add 198.51.100.1/24 dev other0");
    lab.host.ns.ip("link set other0 up");
    b.ip("address add 198.51.100.2/24 dev eth0");
    b.ip("link set eth0 up");
    b.ip("route add default via 198.51.100.1");
    b.await_carrier("eth0");
    lab.outside.ip("route add 198.51.100.0/24 via 203.0.113.1");
    publish(&lab, &a, "8080:80");
    let captured = TcpEcho::new(&a.ns, Family::V4.any(80));
    let server = TcpEcho::new(&b, Family::V4.any(8080));
    talk(&lab.outside, 0, "198.51.100.2:8080".parse().expect("an address"));
    assert_eq!((server.peers().len(), captured.peers().len()), (1, 0));
}

#[test]
fn unpublishing_leaves_other_flows_alone() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab, &a, "8080:80 8081:81");
    let family = Family::V4;
    let servers = [80, 81].map(|port| TcpEcho::new(&a.ns, family.any(port)));
    let mut streams =
        [8080, 8081].map(|port| connect(&lab.outside, 0, at(family.host(), port)).expect("connecting"));
    let remote = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
    let own = udp(&a.ns, family, 5000);
    ask(&own, remote.address, b"own flow");
    assert_eq!(unpublish(&lab, &a, "80"), "0.0.0.0:8080 -> 80/tcp\n[::]:8080 -> 80/tcp\n");
    streams[1].write_all(b"hello").expect("sending");
    streams[1].read_exact(&mut [0; 5]).expect("the echo");
    ask(&own, remote.address, b"own flow");
    assert_eq!(remote.peers(), [at(family.host(), 5000); 2]);
    let error = connect(&lab.outside, 0, at(family.host(), 8080)).expect_err("not published any more");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    drop(servers);
    let error = lab.host.netd_fails(&format!("unpublish netns:{} 80", a.ns.name()));
    assert!(error.contains("port 80 is not published by endpoint"), "{error}");
}

#[test]
fn datagrams_without_an_answer_go_on() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab, &a, "5140:514/udp");
    for family in Family::BOTH {
        let sink = bound(&a.ns, family.any(514), UdpSocket::bind);
        sink.set_read_timeout(Some(netd_tests::lab::PATIENCE)).expect("a socket's timeout");
        let client = udp(&lab.outside, family, 5003);
        for _ in 0..3 {
            client.send_to(b"a line of a log", at(family.host(), 5140)).expect("sending");
            let (_, peer) = sink.recv_from(&mut [0; 64]).expect("the datagram");
            assert_eq!(peer, at(family.outside(), 5003));
        }
        let table = lab.host.netd("nat ls");
        assert!(table.contains("unanswered"), "{table}");
    }
}

#[test]
fn what_is_unpublished_names_the_endpoint_that_publishes_it() {
    let lab = Lab::new();
    for network in ["second", "first"] {
        lab.host.netd(&format!("network create {network}"));
    }
    let container = lab.container_on("second", "a");
    let name = container.ns.name();
    lab.host.netd(&format!("publish netns:{name} 8080:80"));
    // This one's gateway is the container's from now on.
    lab.host.netd(&format!("network connect first netns:{name}"));
    lab.host.netd(&format!("publish netns:{name} 8081:80"));
    let published = lab.host.netd("publish ls");
    assert!(["first", "second"].iter().all(|network| published.contains(network)), "{published}");
    lab.host.netd(&format!("unpublish netns:{name} 8080:80"));
    lab.host.netd(&format!("unpublish netns:{name} 8081:80"));
}
