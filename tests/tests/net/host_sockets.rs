//! Published ports and the host's own sockets: which addresses reach them, what the process is shown, and what it may not have.
//! Numbers are those of the reference's cases.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use netd_tests::lab::{
    Container, DUAL, Family, Host, Lab, Namespace, PATIENCE, TcpEcho, UdpEcho, ask, at, close, connect, udp,
    until,
};
use socket2::{Domain, Protocol, Socket, Type};

fn publish(host: &Host, container: &Container, specs: &str) -> String {
    host.netd(&format!("publish netns:{} {specs}", container.ns.name()))
}

fn unpublish(host: &Host, container: &Container, specs: &str) -> String {
    host.netd(&format!("unpublish netns:{} {specs}", container.ns.name()))
}

/// The host's own addresses of a family: loopback, the uplink's, a network's gateway.
fn addresses(container: &Container, family: Family) -> [IpAddr; 3] {
    [family.loopback(), family.host(), container.gateway(family)]
}

/// An address as a socket of IPv6 has it.
fn mapped(address: SocketAddr) -> SocketAddr {
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

/// Binds a socket that may be refused, and closes it.
fn try_bind<S: AsFd + Send>(
    ns: &Namespace,
    address: SocketAddr,
    bind: fn(SocketAddr) -> io::Result<S>,
) -> io::Result<()> {
    ns.enter(|| bind(address)).map(|socket| close(ns, socket))
}

#[test]
fn t62_nat51_a_published_port_cannot_be_bound() {
    let lab = Lab::new();
    let a = lab.container("a");
    let ns = &lab.host.ns;
    let stream = |address: SocketAddr| try_bind(ns, address, TcpListener::bind);
    let datagram = |address: SocketAddr| try_bind(ns, address, UdpSocket::bind);
    let in_use = |what: &str, result: io::Result<()>| {
        let error = result.err().unwrap_or_else(|| panic!("{what} was bound"));
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE), "{what}: {error}");
    };
    let published = publish(&lab.host, &a, "8080:80 8080:80/udp");
    assert!(published.contains("0.0.0.0:8080") && published.contains("[::]:8080"), "{published}");
    for family in Family::BOTH {
        for address in addresses(&a, family).into_iter().chain([family.any(0).ip()]) {
            let address = at(address, 8080);
            in_use(&format!("{address}/tcp"), stream(address));
            in_use(&format!("{address}/udp"), datagram(address));
        }
        // Any port, and others, are free.
        stream(family.any(0)).expect("any port");
        datagram(family.any(0)).expect("any port");
        stream(family.any(8081)).expect("another port");
    }
    in_use("a mapped address", stream(mapped(at(Ipv4Addr::LOCALHOST, 8080))));
    // In a container it is the container's affair.
    a.ns.enter(|| TcpListener::bind(Family::V4.any(8080))).expect("a container's own port");
    lab.outside.enter(|| TcpListener::bind(Family::V4.any(8080))).expect("another host's port");
    assert!(lab.host.metrics().contains("netd_binds_refused_total 17"), "{}", lab.host.metrics());

    unpublish(&lab.host, &a, "8080:80 8080:80/udp");
    for family in Family::BOTH {
        stream(family.any(8080)).expect("a port that is free again");
        datagram(family.any(8080)).expect("a port that is free again");
    }
}

#[test]
fn t62_what_overlaps_is_what_bind_says() {
    let lab = Lab::new();
    let a = lab.container("a");
    let ns = &lab.host.ns;
    let stream = |address: SocketAddr| try_bind(ns, address, TcpListener::bind);
    let only6 = |only: bool| {
        let socket = ns.enter(|| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)))?;
        socket.set_only_v6(only)?;
        socket.bind(&Family::V6.any(8080).into())?;
        socket.listen(1)?;
        close(ns, socket);
        io::Result::Ok(())
    };
    // At one address of IPv4, the others are free, and all addresses are not.
    publish(&lab.host, &a, "127.0.0.1:8080:80");
    stream(at(Family::V4.host(), 8080)).expect("another address");
    stream(at(Ipv6Addr::LOCALHOST, 8080)).expect("another family");
    for address in [at(Ipv4Addr::LOCALHOST, 8080), Family::V4.any(8080)] {
        assert_eq!(stream(address).expect_err("it is published").kind(), io::ErrorKind::AddrInUse);
    }
    // All addresses of IPv6 are those of IPv4 too, unless the socket leaves them alone.
    assert_eq!(only6(false).expect_err("it is published").kind(), io::ErrorKind::AddrInUse);
    only6(true).expect("a socket of IPv6 alone");
    // With a second publication of the port, the end of one is not the end of the other.
    publish(&lab.host, &a, "127.0.0.2:8080:80");
    unpublish(&lab.host, &a, "127.0.0.1:8080:80");
    assert_eq!(stream(Family::V4.any(8080)).expect_err("it is published").kind(), io::ErrorKind::AddrInUse);
    stream(at(Ipv4Addr::LOCALHOST, 8080)).expect("a free address");
    unpublish(&lab.host, &a, "127.0.0.2:8080:80");
    stream(Family::V4.any(8080)).expect("a free port");
}

/// The host's setting.
fn reserved(ns: &Namespace) -> String {
    let mut text = [0; 65536];
    let read = || std::fs::File::open("/proc/sys/net/ipv4/ip_local_reserved_ports")?.read(&mut text);
    let length = ns.enter(read).expect("reading the setting");
    String::from_utf8_lossy(&text[..length]).trim().to_owned()
}

#[test]
fn published_ports_are_not_given_to_the_hosts_own_sockets() {
    let lab = Lab::new();
    let (a, ns) = (lab.container("a"), &lab.host.ns);
    ns.sysctl("net.ipv4.ip_local_reserved_ports", "80,40000-40010");
    publish(&lab.host, &a, "40005:80 40020-40025:40020-40025/udp 9000:90");
    assert_eq!(reserved(ns), "80,9000,40000-40010,40020-40025");
    // The only port that is left of the range is the only one that is given.
    ns.sysctl("net.ipv4.ip_local_port_range", "40000 40026");
    let _echo = UdpEcho::new(&lab.outside, Family::V4.any(53));
    let mut own = Vec::new();
    for _ in 0..10 {
        let socket = udp(ns, Family::V4, 0);
        own.push((socket.local_addr().expect("an address").port(), socket));
    }
    assert!(own.iter().all(|(port, _)| (40011..=40019).contains(port) || *port == 40026), "{own:?}");
    // Not all of them can be published: a socket that wants any could have none.
    let all = format!("publish netns:{} 40000-40004:1000-1004 40006-40026:1006-1026", a.ns.name());
    let refusal = lab.host.netd_fails(&all);
    assert!(refusal.contains("no port of 40000-40026 (net.ipv4.ip_local_port_range)"), "{refusal}");
    assert_eq!(reserved(ns), "80,9000,40000-40010,40020-40025");
    // What the administrator had stays his, also over a crash; what he adds meanwhile, too.
    lab.host.kill();
    lab.host.start(&[]);
    assert_eq!(reserved(ns), "80,9000,40000-40010,40020-40025");
    unpublish(&lab.host, &a, "40005:80 9000:90");
    assert_eq!(reserved(ns), "80,40000-40010,40020-40025");
    ns.sysctl("net.ipv4.ip_local_reserved_ports", "80,443,40000-40010,40020-40025");
    lab.host.netd(&format!("network disconnect {DUAL} netns:{}", a.ns.name()));
    assert_eq!(reserved(ns), "80,443,40000-40010");
    // Many single ones are more than the kernel takes at once.
    let b = lab.container("b");
    let specs: Vec<_> = (0..1500).map(|n| format!("{0}:{0}", 10_000 + 2 * n)).collect();
    publish(&lab.host, &b, &specs.join(" "));
    assert_eq!(reserved(ns).matches(',').count(), 1500 + 2);
    lab.host.stop();
    lab.host.cleanup();
    assert_eq!(reserved(ns), "80,443,40000-40010");
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

/// Nobody keeps published ports while neither daemon nor programs are there, after a boot for instance.
#[test]
fn who_took_a_published_port_before_the_daemon_came_is_told_of() {
    let lab = Lab::new();
    let a = lab.container("a");
    publish(&lab.host, &a, "8080-8082:80-82 8090:90/udp 8091:91");
    lab.host.stop();
    let unmounted = lab.host.command("umount").arg(lab.host.run_dir().join("bpf")).status();
    assert!(unmounted.expect("running umount").success(), "what is pinned goes as at a boot");
    let (mut tcp, mut udp) = (None, None);
    // The kernel lets go of programs a while after the last pin is gone.
    until("nobody keeps the ports", || {
        lab.host.ns.enter(|| {
            tcp = tcp.take().or_else(|| TcpListener::bind(Family::V4.any(8081)).ok());
            udp = udp.take().or_else(|| UdpSocket::bind(Family::V6.any(8090)).ok());
        });
        tcp.is_some() && udp.is_some()
    });
    lab.host.start(&[]);
    let log = lab.host.log();
    let told: Vec<_> = log.lines().filter_map(|line| line.split_once("is bound to ")).collect();
    // A socket of all IPv6 addresses has IPv4's as well.
    let taken = ["0.0.0.0:8081/tcp", "0.0.0.0:8090/udp", "[::]:8090/udp"];
    assert_eq!(told.len(), taken.len(), "{log}");
    for port in taken {
        assert!(told.iter().any(|(_, what)| what.starts_with(port)), "{log}");
    }
}
