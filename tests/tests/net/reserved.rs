//! Published ports are reserved: what sockets of the host may not have. Numbers are those of the reference's cases.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use netd_tests::lab::{DUAL, Family, Lab, Namespace, UdpEcho, at, close, udp, until};
use socket2::{Domain, Protocol, Socket, Type};

use crate::host_sockets::{addresses, mapped, publish, unpublish};

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
