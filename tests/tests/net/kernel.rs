//! The lab itself, on what the kernel does without netd.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netd_tests::lab::{
    Capture, Container, Datagram, Family, Lab, Losses, Namespace, Ping, RawSocket, TcpEcho, UdpEcho,
    UdpStream, bound, ping, set_offloads, transfer,
};

/// Two namespaces on a bridge of the kernel's, in a third.
fn bridged() -> (Namespace, [Container; 2]) {
    let switch = Namespace::new("switch");
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    let station = |port: &str, ipv4: &str, ipv6: &str| {
        let ns = Namespace::new(port);
        ns.ip(&format!("link add eth0 type veth peer name {port} netns {}", switch.name()));
        ns.ip(&format!("address add {ipv4}/24 dev eth0"));
        ns.ip(&format!("address add {ipv6}/64 dev eth0 nodad"));
        ns.ip("link set eth0 up");
        switch.ip(&format!("link set dev {port} master br0 up"));
        ns.await_carrier("eth0");
        Container::of(ns)
    };
    let stations = [station("a", "10.9.0.1", "fd00:9::1"), station("b", "10.9.0.2", "fd00:9::2")];
    (switch, stations)
}

#[test]
fn the_lab_sees_what_a_kernel_bridge_does() {
    let (_switch, [a, b]) = bridged();
    for family in Family::BOTH {
        let mut capture = Capture::new(&b.ns, "eth0");
        assert!(ping(&a.ns, b.address(family), Ping::default()));
        let request = capture.expect("the echo request", |p| p.destination == b.address(family));
        assert_eq!((request.source, request.ttl), (a.address(family), 64));
        assert!(capture.drain().iter().all(|p| p.source != b.address(family)), "what leaves is not captured");

        for on in [true, false] {
            set_offloads(&a.ns, "eth0", on);
            transfer(&a.ns, &b.ns, SocketAddr::new(b.address(family), 5001), 1 << 20);
        }
        let echo = UdpEcho::new(&b.ns, family.any(5002));
        let stream = UdpStream::start(&a.ns, SocketAddr::new(b.address(family), 5002));
        stream.run_on(10_000);
        let Losses { sent, lost } = stream.stop();
        assert_eq!((lost, echo.peers().len() as u64), (0, sent));
        let tcp = TcpEcho::new(&b.ns, family.any(5003));
        a.ns.enter(|| std::net::TcpStream::connect(SocketAddr::new(b.address(family), 5003)))
            .expect("connecting");
        netd_tests::lab::until("the server sees it", || tcp.peers().len() == 1);
        assert_eq!(tcp.peers()[0].ip(), a.address(family));
    }
}

#[test]
fn a_ping_into_nothing_fails_and_a_stream_counts_what_is_lost() {
    let (switch, [a, b]) = bridged();
    let absent = Ping { patience: std::time::Duration::from_millis(200), ..Ping::default() };
    assert!(!ping(&a.ns, IpAddr::V4(Ipv4Addr::new(10, 9, 0, 99)), absent));

    let _echo = UdpEcho::new(&b.ns, Family::V4.any(5002));
    let stream = UdpStream::start(&a.ns, SocketAddr::new(b.ipv4.into(), 5002));
    stream.run_on(1000);
    switch.ip("link set dev b down");
    netd_tests::lab::until("datagrams are lost", || stream.lost() > 0);
    switch.ip("link set dev b up");
    stream.run_on(1000);
    assert!(stream.stop().lost > 0);
}

#[test]
fn fragments_written_by_hand_are_put_together() {
    let (_switch, [a, b]) = bridged();
    for family in Family::BOTH {
        let (from, to) = (SocketAddr::new(a.address(family), 4000), SocketAddr::new(b.address(family), 4001));
        let server = bound(&b.ns, to, std::net::UdpSocket::bind);
        let data: Vec<u8> = (0..4000_u32).map(|i| (i % 251) as u8).collect();
        let raw = RawSocket::new(&a.ns, to.ip());
        let datagram = Datagram::udp(from, to, &data);
        for fragment in datagram.fragments(1400, 77).iter().rev() {
            raw.send(fragment, to.ip());
        }
        let mut buffer = vec![0; 8192];
        server.set_read_timeout(Some(netd_tests::lab::PATIENCE)).expect("a socket's timeout");
        let (length, peer) = server.recv_from(&mut buffer).expect("the datagram");
        assert_eq!((peer, &buffer[..length]), (from, &data[..]));
    }
}

#[test]
fn a_host_is_wired_to_its_outside_and_removed_with_the_lab() {
    let lab = Lab::wired();
    for family in Family::BOTH {
        assert!(ping(&lab.host.ns, family.outside(), Ping::default()));
        assert!(ping(&lab.host.ns, family.outside_other(), Ping::default()));
    }
    let sys = lab.host.command("ls").arg("/sys/class/net").output().expect("running ls");
    let sys = String::from_utf8_lossy(&sys.stdout).into_owned();
    assert!(sys.lines().any(|line| line == "up0"), "the host's /sys shows {sys}");
    let late = Namespace::new("late");
    let seen = lab.host.command("ls").arg(late.path()).output().expect("running ls");
    assert!(seen.status.success(), "a namespace made after the host is seen by it");

    let paths =
        [lab.host.ns.path(), lab.outside.path(), lab.host.state_dir().parent().expect("a directory").into()];
    assert!(paths.iter().all(|path| path.exists()));
    drop(lab);
    assert!(paths.iter().all(|path| !path.exists()));
}
