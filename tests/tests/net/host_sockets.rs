//! Published ports and the host's own sockets: which addresses reach them, what the process is shown, and what it may not have.
//! Numbers are those of the reference's cases.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use netd_tests::lab::{
    Container, DUAL, Family, Host, Lab, Namespace, PATIENCE, TcpEcho, UdpEcho, ask, at, connect, udp, until,
};
use socket2::{Domain, Socket, Type};

pub(crate) fn publish(host: &Host, container: &Container, specs: &str) -> String {
    host.netd(&format!("publish netns:{} {specs}", container.ns.name()))
}

pub(crate) fn unpublish(host: &Host, container: &Container, specs: &str) -> String {
    host.netd(&format!("unpublish netns:{} {specs}", container.ns.name()))
}

/// The host's own addresses of a family: loopback, the uplink's, a network's gateway.
pub(crate) fn addresses(container: &Container, family: Family) -> [IpAddr; 3] {
    [family.loopback(), family.host(), container.gateway(family)]
}

/// An address as a socket of IPv6 has it.
pub(crate) fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ipv4) => at(ipv4.to_ipv6_mapped(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn socket6(ns: &Namespace, kind: Type) -> Socket {
    let socket = ns.enter(|| Socket::new(Domain::IPV6, kind, None)).expect("a socket");
    socket.set_only_v6(false).expect("a socket of both families");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
    socket
}

/// Talks over a new connection, which must know its peer by the address that was dialled.
fn talk(ns: &Namespace, to: SocketAddr) {
    let mut stream = connect(ns, 0, to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    assert_eq!(stream.peer_addr().expect("a peer"), to);
    stream.write_all(b"hello").expect("sending");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("an echo of {to}: {e}"));
    assert_eq!(&answer, b"hello");
}

fn refused(ns: &Namespace, to: SocketAddr) {
    let error = connect(ns, 0, to).expect_err("nothing is published there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}: {error}");
}

#[test]
fn t52_nat51_the_host_reaches_a_published_port_by_all_its_addresses() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "1780:80 1780:80/udp");
    for family in Family::BOTH {
        let (tcp, datagrams) = (TcpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&a.ns, family.any(80)));
        for to in addresses(&a, family).map(|address| at(address, 1780)) {
            talk(&lab.host.ns, to);
            // Unconnected: each answer comes from where the question went.
            let socket = udp(&lab.host.ns, family, 0);
            for _ in 0..2 {
                assert_eq!(ask(&socket, to, b"datagram"), b"datagram");
            }
            // Connected, and before that used by another address.
            let socket = udp(&lab.host.ns, family, 0);
            ask(&socket, at(family.loopback(), 1780), b"datagram");
            socket.connect(to).expect("connecting");
            assert_eq!(socket.peer_addr().expect("a peer"), to);
            socket.send(b"connected").expect("sending");
            let mut answer = [0; 64];
            let (length, from) = socket.recv_from(&mut answer).expect("an answer");
            assert_eq!((&answer[..length], from), (&b"connected"[..], to));
        }
        // The container sees its bridge, by whatever address it was dialled.
        assert!(tcp.peers().iter().all(|peer| peer.ip() == a.gateway(family)), "{:?}", tcp.peers());
        assert!(
            datagrams.peers().iter().all(|peer| peer.ip() == a.gateway(family)),
            "{:?}",
            datagrams.peers()
        );
        assert_eq!((tcp.peers().len(), datagrams.peers().len()), (3, 12));
        // No address is loopback's.
        let nowhere = connect(&lab.host.ns, 0, family.any(1780)).expect("connecting");
        assert_eq!(nowhere.peer_addr().expect("a peer"), at(addresses(&a, family)[0], 1780));
        for address in addresses(&a, family) {
            refused(&lab.host.ns, at(address, 1781));
        }
    }
    let shown = lab.host.netd("status");
    assert!(shown.contains("connect4") && shown.contains("cgroup"), "{shown}");
    let metrics = lab.host.metrics();
    assert!(
        !metrics.contains("netd_host_dials_total 0") && metrics.contains("netd_host_dials_total"),
        "{metrics}"
    );
}

#[test]
fn nat51_a_socket_of_ipv6_dials_ipv4_by_the_mapped_address() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "1780:80 1780:80/udp");
    let (_tcp, _datagrams) =
        (TcpEcho::new(&a.ns, Family::V4.any(80)), UdpEcho::new(&a.ns, Family::V4.any(80)));
    for to in addresses(&a, Family::V4).map(|address| mapped(at(address, 1780))) {
        let stream = socket6(&lab.host.ns, Type::STREAM);
        stream.connect_timeout(&to.into(), PATIENCE).expect("connecting");
        assert_eq!(stream.peer_addr().expect("a peer").as_socket(), Some(to));
        stream.send(b"hello").expect("sending");
        (&stream).read_exact(&mut [0; 5]).expect("the echo");
        let socket: UdpSocket = socket6(&lab.host.ns, Type::DGRAM).into();
        assert_eq!(ask(&socket, to, b"datagram"), b"datagram");
        socket.connect(to).expect("connecting");
        assert_eq!(socket.peer_addr().expect("a peer"), to);
        socket.send(b"connected").expect("sending");
        assert_eq!(socket.recv_from(&mut [0; 64]).expect("an answer"), (9, to));
    }
}

#[test]
fn a_port_of_one_address_is_reached_by_that_alone() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let [loopback, uplink, gateway] = addresses(&a, family);
        let spec = |address: IpAddr, port: u16| at(address, port).to_string() + ":80";
        publish(&lab.host, &a, &spec(loopback, 8080));
        publish(&lab.host, &a, &spec(uplink, 8081));
        // The same port of another address is another container's.
        publish(&lab.host, &b, &spec(uplink, 8080));
        let (one, other) = (TcpEcho::new(&a.ns, family.any(80)), TcpEcho::new(&b.ns, family.any(80)));
        talk(&lab.host.ns, at(loopback, 8080));
        talk(&lab.host.ns, at(uplink, 8081));
        assert_eq!((one.peers().len(), other.peers().len()), (2, 0));
        talk(&lab.host.ns, at(uplink, 8080));
        assert_eq!((one.peers().len(), other.peers().len()), (2, 1));
        refused(&lab.host.ns, at(gateway, 8080));
        refused(&lab.host.ns, at(loopback, 8081));
        let elsewhere: IpAddr =
            if family == Family::V4 { "127.0.0.2".parse().expect("an address") } else { gateway };
        refused(&lab.host.ns, at(elsewhere, 8080));
        for (container, address, port) in [(&a, loopback, 8080), (&a, uplink, 8081), (&b, uplink, 8080)] {
            unpublish(&lab.host, container, &spec(address, port));
        }
    }
}

#[test]
fn a_remote_with_the_same_port_is_reached_itself() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "1780:80 1780:80/udp");
    for family in Family::BOTH {
        let own = TcpEcho::new(&a.ns, family.any(80));
        let remote = TcpEcho::new(&lab.outside, family.any(1780));
        let datagrams = UdpEcho::new(&lab.outside, family.any(1780));
        talk(&lab.host.ns, at(family.outside(), 1780));
        ask(&udp(&lab.host.ns, family, 0), at(family.outside(), 1780), b"datagram");
        assert_eq!((own.peers().len(), remote.peers().len(), datagrams.peers().len()), (0, 1, 1));
        // Nor is the container's own address another name of it.
        let direct = at(a.address(family), 80);
        talk(&lab.host.ns, direct);
        let server = UdpEcho::new(&a.ns, family.any(80));
        let socket = udp(&lab.host.ns, family, 0);
        ask(&socket, at(family.host(), 1780), b"published");
        assert_eq!(ask(&socket, direct, b"direct"), b"direct");
        assert_eq!(server.peers().len(), 2);
    }
}

#[test]
fn an_address_that_comes_and_goes_is_the_hosts_while_it_is_there() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "1780:80");
    let _tcp = TcpEcho::new(&a.ns, Family::V4.any(80));
    let to = at("192.0.2.7".parse::<Ipv4Addr>().expect("an address"), 1780);
    lab.host.ns.ip("address add 192.0.2.7/32 dev lo");
    until("the new address is the host's", || connect(&lab.host.ns, 0, to).is_ok());
    lab.host.ns.ip("address del 192.0.2.7/32 dev lo");
    lab.host.ns.ip("route add unreachable 192.0.2.7/32");
    until("the address is not the host's any more", || connect(&lab.host.ns, 0, to).is_err());
}

#[test]
fn t66_the_hosts_sockets_reach_what_is_published_while_the_daemon_is_dead() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "8080:80");
    let server = TcpEcho::new(&a.ns, Family::V4.any(80));
    let to = at(Ipv4Addr::LOCALHOST, 8080);
    let mut stream = connect(&lab.host.ns, 0, to).expect("connecting");
    let mut echoed = || {
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        assert_eq!(stream.peer_addr().expect("a peer"), to);
    };
    let programs = || {
        let status = lab.host.netd_json("status");
        let links = status["links"].as_array().expect("links").clone();
        links.iter().filter(|link| link["interface"] == "cgroup").count()
    };
    assert_eq!(programs(), 10);
    echoed();
    lab.host.kill();
    echoed();
    talk(&lab.host.ns, to);
    let bound = lab.host.ns.enter(|| TcpListener::bind(to));
    assert_eq!(bound.expect_err("it is published").kind(), io::ErrorKind::AddrInUse);
    lab.host.start(&[]);
    echoed();
    talk(&lab.host.ns, to);
    assert_eq!((server.peers().len(), programs()), (3, 10));
    lab.host.stop();
    lab.host.cleanup();
    // A link is taken apart a moment after its last pin is gone.
    until("nothing is led anywhere", || connect(&lab.host.ns, 0, to).is_err());
    lab.host.ns.enter(|| TcpListener::bind(to)).expect("a port of the host's again");
}

#[test]
fn each_daemon_acts_for_its_own_host_alone() {
    let (one, two) = (Lab::new(), Lab::new());
    let (a, b) = (one.container("a"), two.container("b"));
    publish(&one.host, &a, "8080:80");
    publish(&two.host, &b, "8080:81");
    let servers = [TcpEcho::new(&a.ns, Family::V4.any(80)), TcpEcho::new(&b.ns, Family::V4.any(81))];
    let to = at(Ipv4Addr::LOCALHOST, 8080);
    talk(&one.host.ns, to);
    talk(&two.host.ns, to);
    assert_eq!(servers.each_ref().map(|server| server.peers().len()), [1, 1]);
    unpublish(&one.host, &a, "8080:80");
    refused(&one.host.ns, to);
    talk(&two.host.ns, to);
    // Nor is a container the host.
    refused(&b.ns, to);
}

#[test]
fn a_daemon_mounts_the_control_groups_where_nobody_has() {
    let lab = Lab::wired();
    let unmounted = lab.host.command("umount").args(["--lazy", "--recursive", "/sys/fs/cgroup"]).status();
    assert!(unmounted.expect("running umount").success());
    lab.host.start(&[]);
    lab.host.netd(&format!("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 {DUAL}"));
    let a = lab.container("a");
    publish(&lab.host, &a, "8080:80");
    let _server = TcpEcho::new(&a.ns, Family::V4.any(80));
    talk(&lab.host.ns, at(Ipv4Addr::LOCALHOST, 8080));
    assert!(!lab.host.run_dir().join("cgroup").exists(), "the mount was for a moment");
}

#[test]
fn nat48_datagrams_follow_what_is_published_now() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let servers = [&a, &b].map(|container| UdpEcho::new(&container.ns, family.any(7000)));
        let to = at(addresses(&a, family)[0], 7001);
        let client = udp(&lab.host.ns, family, 0);
        publish(&lab.host, &a, "7001:7000/udp");
        ask(&client, to, b"to a");
        unpublish(&lab.host, &a, "7001:7000/udp");
        publish(&lab.host, &b, "7001:7000/udp");
        ask(&client, to, b"to b");
        assert_eq!(servers.each_ref().map(|server| server.peers().len()), [1, 1]);
        unpublish(&lab.host, &b, "7001:7000/udp");
        client.send_to(b"to nobody", to).expect("sending");
        talk_to_many(&lab, &a, family);
    }
}

#[test]
fn nat48_a_connected_socket_leads_nowhere_once_its_port_is_not_published() {
    let lab = Lab::new();
    for family in Family::BOTH {
        let (a, other) = (lab.container("a"), lab.container("other"));
        let own = a.address(family);
        let (tcp, datagrams) = (TcpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&a.ns, family.any(80)));
        let direct = udp(&lab.host.ns, family, 0);
        direct.connect(at(own, 80)).expect("connecting");
        publish(&lab.host, &a, "8080:80 8080:80/udp 8081:80");
        let to = at(addresses(&a, family)[0], 8080);
        let mut stream = connect(&lab.host.ns, 0, to).expect("connecting");
        let mut elsewhere = connect(&lab.host.ns, 0, at(to.ip(), 8081)).expect("connecting");
        let socket = udp(&lab.host.ns, family, 0);
        socket.connect(to).expect("connecting");
        let echoed = |socket: &UdpSocket| {
            socket.send(b"hello").expect("sending");
            socket.recv(&mut [0; 64]).expect("an answer");
        };
        echoed(&socket);
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");

        // To the old endpoint, and to a new one at the same port.
        let unpublished = || {
            let (_, stats) = lab.host.get("/netd/stats").expect("the daemon answers");
            serde_json::from_str::<serde_json::Value>(&stats).expect("JSON")["drops"]["unpublished"]
                .as_u64()
                .expect("a counter")
        };
        let silent = |what: &str| {
            let (before, count) = (unpublished(), datagrams.peers().len());
            socket.send(b"late").expect("sending");
            until(what, || unpublished() > before);
            assert_eq!(datagrams.peers().len(), count, "{what}");
        };
        unpublish(&lab.host, &a, "8080:80 8080:80/udp");
        let error = stream.read(&mut [0; 1]).expect_err("a connection is ended, and told");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        silent("to a port that is not published");
        publish(&lab.host, &other, "8080:80/udp");
        let moved = UdpEcho::new(&other.ns, family.any(80));
        silent("to a port that leads to another endpoint");
        assert_eq!(moved.peers().len(), 0);

        // Whoever came by another port, or by none, is left alone; and who connects anew, reaches what is published.
        elsewhere.write_all(b"hello").expect("sending");
        elsewhere.read_exact(&mut [0; 5]).expect("the echo");
        echoed(&direct);
        socket.connect(to).expect("connecting");
        echoed(&socket);
        assert_eq!((moved.peers().len(), tcp.peers().len()), (1, 2));

        // An endpoint that is gone, and one that has its address after it.
        publish(&lab.host, &a, "8082:80/udp");
        let socket = udp(&lab.host.ns, family, 0);
        socket.connect(at(to.ip(), 8082)).expect("connecting");
        echoed(&socket);
        lab.host.netd(&format!("network disconnect {DUAL} netns:{}", a.ns.name()));
        let heir = Namespace::new("heir");
        let option = if family == Family::V4 { "--ip" } else { "--ip6" };
        lab.host.netd(&format!("network connect {option} {own} {DUAL} netns:{}", heir.name()));
        let heirs = UdpEcho::new(&heir, family.any(80));
        let before = unpublished();
        socket.send(b"late").expect("sending");
        until("the heir hears nothing", || unpublished() > before);
        assert_eq!(heirs.peers().len(), 0);
        let fresh = udp(&lab.host.ns, family, 0);
        assert_eq!(ask(&fresh, at(own, 80), b"hello"), b"hello");
        for ns in [&heir, &other.ns] {
            lab.host.netd(&format!("network disconnect {DUAL} netns:{}", ns.name()));
        }
    }
}

/// One socket and many ports: each answer comes from where its question went.
fn talk_to_many(lab: &Lab, a: &Container, family: Family) {
    publish(&lab.host, a, "7100-7104:7100-7104/udp");
    let servers: Vec<_> = (7100..=7104).map(|port| UdpEcho::new(&a.ns, family.any(port))).collect();
    let client = udp(&lab.host.ns, family, 0);
    let [loopback, uplink, _] = addresses(a, family);
    for _ in 0..3 {
        for server in &servers {
            for address in [loopback, uplink] {
                ask(&client, at(address, server.address.port()), b"question");
            }
        }
    }
    unpublish(&lab.host, a, "7100-7104:7100-7104/udp");
}

#[test]
fn names_are_served_at_the_gateway_though_port_53_is_published() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "53:53/udp 53:53");
    let family = Family::V4;
    let server = UdpEcho::new(&a.ns, family.any(53));
    ask(&udp(&lab.outside, family, 0), at(family.host(), 53), b"from outside");
    ask(&udp(&lab.host.ns, family, 0), at(Ipv4Addr::LOCALHOST, 53), b"from the host");
    assert_eq!(server.peers().len(), 2);
    // A network that comes later has its names too, and so has one that was there.
    lab.host.netd("network create --subnet 172.31.0.0/24 later");
    let b = lab.container_on("later", "b");
    for (container, name) in [(&a, a.ns.name()), (&b, b.ns.name())] {
        let mut question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        question.push(u8::try_from(name.len()).expect("a short name"));
        question.extend_from_slice(name.as_bytes());
        question.extend_from_slice(b"\x00\x00\x01\x00\x01");
        for ns in [&container.ns, &lab.host.ns] {
            let gateway = at(container.gateway(family), 53);
            until("the names are served", || {
                let socket = udp(ns, family, 0);
                socket.connect(gateway).expect("connecting");
                let mut answer = [0; 512];
                let length =
                    socket.send(&question).and_then(|_| socket.recv(&mut answer)).unwrap_or_default();
                length > question.len() && answer[length - 4..length] == container.ipv4.octets()
            });
        }
    }
    assert_eq!(server.peers().len(), 2);
}
