//! Endpoint-independent mapping: to the outside a container's port is one port, whoever it speaks with.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use netd_tests::lab::{Capture, Family, Lab, Ping, TcpEcho, UdpEcho, ask, at, connect, ping, udp};

/// A lab with a network of both families that maps endpoint-independently, and what else the options say of it.
fn lab(options: &str) -> Lab {
    let lab = Lab::new();
    lab.host.netd(&format!(
        "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 \
         --opt netd.masquerade.mapping=endpoint-independent {options} {BOUND}"
    ));
    lab
}

const BOUND: &str = "bound";

const fn own_port(family: Family) -> u16 {
    match family {
        Family::V4 => 45_000,
        Family::V6 => 45_001,
    }
}

fn remotes(family: Family, port: u16) -> [SocketAddr; 3] {
    [at(family.outside(), port), at(family.outside_other(), port), at(family.outside(), port + 1)]
}

/// The live bindings of a container: protocol and external port.
fn bindings(lab: &Lab) -> Vec<(String, String)> {
    let nat = lab.host.netd_json("nat ls");
    let all =
        nat["bindings"].as_array().expect("a list").iter().filter(|binding| binding["remote"].is_null());
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    all.map(|binding| (text(&binding["protocol"]), text(&binding["external"]))).collect()
}

#[test]
fn a_container_has_one_port_for_all_remotes_and_shares_it_with_nobody() {
    let lab = lab("");
    let (a, b) = (lab.container_on(BOUND, "a"), lab.container_on(BOUND, "b"));
    let other = lab.container("other");
    for family in Family::BOTH {
        let echoes = remotes(family, 5300).map(|remote| UdpEcho::new(&lab.outside, remote));
        let all = [&a, &b, &other].map(|container| udp(&container.ns, family, 5000));
        for echo in &echoes {
            for socket in &all[..2] {
                ask(socket, echo.address, b"whoever you are");
            }
        }
        let [of_a, of_b] = [0, 1].map(|i| echoes.each_ref().map(|echo| echo.peers()[i]));
        assert_eq!(of_a, [at(family.host(), 5000); 3]);
        assert!(of_b.iter().all(|peer| *peer == of_b[0] && *peer != of_a[0]), "{of_b:?}");
        // Not even towards a remote that nobody has spoken with.
        let fourth = UdpEcho::new(&lab.outside, at(family.outside(), 5302));
        ask(&all[2], fourth.address, b"of another network");
        assert_ne!(fourth.peers()[0].port(), 5000);

        let servers = remotes(family, 8000).map(|remote| TcpEcho::new(&lab.outside, remote));
        let mut ports: Vec<_> = servers
            .iter()
            .map(|server| {
                // One after the other, for the socket's own address is the same.
                let mut stream = connect(&a.ns, 45_000, server.address).expect("connecting");
                stream.write_all(b"hello").expect("sending");
                stream.read_exact(&mut [0; 5]).expect("the echo");
                server.peers()[0]
            })
            .collect();
        ports.dedup();
        assert_eq!(ports.len(), 1, "45000 is the host's to keep, and one port stands for it: {ports:?}");

        let mut capture = Capture::new(&lab.outside, "eth0");
        for (container, remote) in
            [(&a, family.outside()), (&b, family.outside_other()), (&a, family.outside_other())]
        {
            assert!(ping(&container.ns, remote, Ping { id: 4711, ..Ping::default() }));
        }
        let ids: Vec<_> = capture
            .drain()
            .into_iter()
            .filter(|p| p.source == family.host() && matches!(p.icmp_type(), Some((8 | 128, 0))))
            .map(|p| u16::from_be_bytes([p.payload[4], p.payload[5]]))
            .collect();
        assert_eq!((ids.len(), ids[0], ids[2]), (3, 4711, 4711), "{ids:?}");
        assert_ne!(ids[1], 4711);
    }
    assert_eq!(bindings(&lab).len(), 2 * 5, "two of UDP, one of TCP, two of echo");
    let shown = lab.host.netd("nat ls");
    assert!(shown.lines().any(|line| line.starts_with(BOUND) && line.contains("EIM/")), "{shown}");
    let inspected = lab.host.netd(&format!("network inspect {BOUND}"));
    assert!(inspected.contains("\"netd.masquerade.mapping\": \"endpoint-independent\""), "{inspected}");
    let metrics = lab.host.metrics();
    for line in ["netd_nat_bindings{family=\"ipv4\"} 5", "netd_nat_bindings{family=\"ipv6\"} 5"] {
        assert!(metrics.lines().any(|it| it == line), "{metrics}");
    }
}

#[test]
fn a_mapping_outlives_the_daemon_but_not_its_container() {
    let lab = lab("");
    let a = lab.container_on(BOUND, "a");
    // A socket of all IPv6 addresses has IPv4's port too.
    let sockets = Family::BOTH.map(|family| udp(&a.ns, family, own_port(family)));
    let echoes =
        Family::BOTH.map(|family| remotes(family, 5300).map(|remote| UdpEcho::new(&lab.outside, remote)));
    let mut seen = Vec::new();
    for (socket, echoes) in sockets.iter().zip(&echoes) {
        ask(socket, echoes[0].address, b"before");
        seen.push(echoes[0].peers()[0]);
    }
    lab.host.kill();
    for ((socket, echoes), seen) in sockets.iter().zip(&echoes).zip(&seen) {
        ask(socket, echoes[1].address, b"while it is dead");
        assert_eq!(&echoes[1].peers()[0], seen);
    }
    lab.host.start(&[]);
    for ((socket, echoes), seen) in sockets.iter().zip(&echoes).zip(&seen) {
        ask(socket, echoes[2].address, b"after");
        assert_eq!(&echoes[2].peers()[0], seen);
    }
    assert_eq!(bindings(&lab).len(), 2);

    lab.host.netd(&format!("network disconnect {BOUND} {}", a.ns.name()));
    assert_eq!(bindings(&lab), []);
    // A port that was bound is anybody's: kept, if that is what is asked for.
    let (heir, other) = (lab.container_on(BOUND, "heir"), lab.container("other"));
    assert_eq!(heir.ipv4, a.ipv4, "the address is the next one's");
    for (family, seen) in Family::BOTH.into_iter().zip(seen) {
        let echo = UdpEcho::new(&lab.outside, at(family.outside_other(), 5400));
        ask(&udp(&other.ns, family, seen.port()), echo.address, b"mine now");
        assert_eq!(echo.peers(), [seen]);
        let socket = udp(&heir.ns, family, own_port(family));
        ask(&socket, echo.address, b"and mine");
        assert_ne!(echo.peers()[1], seen);
    }
}

#[test]
fn errors_find_the_flow_that_they_are_about() {
    let lab = lab("");
    let a = lab.container_on(BOUND, "a");
    for family in Family::BOTH {
        let socket = udp(&a.ns, family, 45_000);
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        ask(&socket, echo.address, b"opens the mapping");
        // Nobody listens there: the remote's kernel says so, and the socket hears of it.
        socket.connect(at(family.outside_other(), 5399)).expect("connecting");
        socket.send(b"nobody there").expect("sending");
        let refused = socket.recv(&mut [0; 16]).expect_err("a refusal");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        assert_eq!(echo.peers().len(), 1);
    }
}

#[test]
fn bad_options_are_refused() {
    let lab = Lab::new();
    let create = |option: &str| lab.host.netd_fails(&format!("network create --opt {option} refused"));
    let error = create("netd.masquerade.mapping=eim");
    let wanted = "failed to parse netd.masquerade.mapping value: eim (it is endpoint-independent or address-and-port-dependent)";
    assert!(error.contains(wanted), "{error}");
    let error = create("netd.masquerade.filtering=endpoint-independent");
    let wanted = "option netd.masquerade.filtering=endpoint-independent needs netd.masquerade.mapping=endpoint-independent";
    assert!(error.contains(wanted), "{error}");
    let error = create("netd.masquerade.maping=endpoint-independent");
    assert!(error.contains("unknown option netd.masquerade.maping: the options are"), "{error}");
    assert!(!lab.host.netd("network ls").contains("refused"));
}

const OPEN: &str = "--opt netd.masquerade.filtering=endpoint-independent";

/// What a socket hears next, and from whom.
fn hear(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut heard = [0; 64];
    let (length, from) = socket.recv_from(&mut heard).expect("a datagram");
    (heard[..length].to_vec(), from)
}

#[test]
fn a_third_party_reaches_an_open_port_and_only_that() {
    let (open, closed) = (lab(OPEN), lab(""));
    for family in Family::BOTH {
        for (lab, is_open) in [(&open, true), (&closed, false)] {
            let a = lab.container_on(BOUND, &format!("a-{family:?}").to_lowercase());
            let socket = udp(&a.ns, family, 45_000);
            let server = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
            ask(&socket, server.address, b"where am I?");
            let port = server.peers()[0];
            // Somebody whom the container has never spoken with has heard of the port.
            let peer =
                lab.outside.enter(|| UdpSocket::bind(at(family.outside_other(), 777))).expect("binding");
            peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket's timeout");
            peer.send_to(b"hello", port).expect("sending");
            if is_open {
                assert_eq!(hear(&socket), (b"hello".to_vec(), at(family.outside_other(), 777)));
                socket.send_to(b"hello yourself", at(family.outside_other(), 777)).expect("answering");
                assert_eq!(hear(&peer), (b"hello yourself".to_vec(), port));
                // In fragments too.
                peer.send_to(&[7; 4000], port).expect("sending");
                assert_eq!(socket.recv_from(&mut [0; 5000]).expect("a datagram").0, 4000);
            } else {
                // Had it come at all, it would have come before this.
                assert_eq!(ask(&socket, server.address, b"anything?"), b"anything?");
            }
        }
    }
}

#[test]
fn a_connection_comes_in_by_an_open_port_and_a_refusal_goes_out() {
    let lab = lab(OPEN);
    let a = lab.container_on(BOUND, "a");
    for family in Family::BOTH {
        let server = TcpEcho::new(&lab.outside, at(family.outside(), 8000));
        // What peers do that want to be found: they ask from the port that they listen on.
        let mut asks = connect(&a.ns, 6000, server.address).expect("connecting");
        asks.write_all(b"where am I?").expect("sending");
        asks.read_exact(&mut [0; 11]).expect("the echo");
        let port = server.peers()[0];
        let listener = TcpEcho::new(&a.ns, at(a.address(family), 6000));
        let mut stream = connect(&lab.outside, 0, port).expect("connecting to the container");
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        assert_eq!(listener.peers()[0].ip(), family.outside());

        // Nobody has the container's port any more, and its kernel says so to whoever still sends to it.
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        ask(&udp(&a.ns, family, 7000), echo.address, b"where am I?");
        let late = lab.outside.enter(|| UdpSocket::bind(at(family.outside_other(), 777))).expect("binding");
        late.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket's timeout");
        late.connect(echo.peers()[0]).expect("connecting");
        late.send(b"anybody there?").expect("sending");
        let refused = late.recv(&mut [0; 16]).expect_err("a refusal");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
    }
}

#[test]
fn containers_meet_by_their_external_ports() {
    let lab = lab(OPEN);
    let (a, b) = (lab.container_on(BOUND, "a"), lab.container_on(BOUND, "b"));
    for family in Family::BOTH {
        let server = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        let [of_a, of_b] = [&a, &b].map(|container| udp(&container.ns, family, 45_000));
        ask(&of_a, server.address, b"where is a?");
        ask(&of_b, server.address, b"where is b?");
        let [a_is_at, b_is_at] = [0, 1].map(|i| server.peers()[i]);
        assert_ne!(a_is_at, b_is_at);
        of_a.send_to(b"hello b", b_is_at).expect("sending");
        assert_eq!(hear(&of_b), (b"hello b".to_vec(), a_is_at));
        of_b.send_to(b"hello a", a_is_at).expect("sending");
        assert_eq!(hear(&of_a), (b"hello a".to_vec(), b_is_at));
        assert_eq!(ask(&of_a, server.address, b"still there?"), b"still there?");
        assert_eq!(server.peers()[2], a_is_at);
    }
    lab.host.netd(&format!("network disconnect {BOUND} {}", b.ns.name()));
    let left = bindings(&lab);
    assert_eq!(left.len(), 2, "a's own: {left:?}");
}
