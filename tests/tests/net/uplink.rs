//! The way outside changes while traffic flows.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netd_tests::lab::{
    Capture, Datagram, Family, Lab, Namespace, PATIENCE, Ping, RawLink, TcpEcho, UdpEcho, ask, at, connect,
    connect_from, ping, udp, until,
};

/// A second uplink `up1` to the same outside: 192.0.2.1/24 and 2001:db8:2::1/64 on the host, .10 and ::10 beyond.
pub(crate) fn second_uplink(lab: &Lab) {
    lab.outside.ip(&format!("link add eth2 type veth peer name up1 netns {}", lab.host.ns.name()));
    address_second_uplink(lab, "eth2");
}

/// Gives `up1` and the link beyond it their addresses.
fn address_second_uplink(lab: &Lab, beyond: &str) {
    for (ns, link, host) in [(&lab.outside, beyond, "10"), (&lab.host.ns, "up1", "1")] {
        ns.ip(&format!("address add 192.0.2.{host}/24 dev {link}"));
        ns.ip(&format!("address add 2001:db8:2::{host}/64 dev {link} nodad"));
        ns.ip(&format!("link set {link} up"));
    }
    lab.outside.await_carrier(beyond);
    lab.host.ns.await_carrier("up1");
}

/// The same, once netd has attached its programs to it.
fn known_second_uplink(lab: &Lab) {
    second_uplink(lab);
    knows_second_uplink(lab);
}

fn knows_second_uplink(lab: &Lab) {
    until("netd knows the second uplink", || {
        lab.host.netd("status").lines().any(|line| line.starts_with("up1 "))
    });
}

/// A remote behind the outside, which only the default route leads to.
fn remote(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 51, 100, 99].into(),
        Family::V6 => "2001:db8:99::99".parse().expect("an address"),
    }
}

/// A lab with remotes behind the outside.
fn with_remotes() -> Lab {
    let lab = Lab::new();
    for family in Family::BOTH {
        lab.outside.ip(&format!("address add {} dev lo", remote(family)));
    }
    lab
}

/// The source that a remote sees of a new flow.
fn seen_as(lab: &Lab, from: &Namespace, family: Family) -> IpAddr {
    let echo = UdpEcho::new(&lab.outside, at(remote(family), 0));
    ask(&udp(from, family, 0), echo.address, b"hello");
    echo.peers()[0].ip()
}

#[test]
fn new_flows_follow_the_route() {
    let lab = with_remotes();
    let a = lab.container("a");
    for family in Family::BOTH {
        assert_eq!(seen_as(&lab, &a.ns, family), family.host());
    }
    second_uplink(&lab);
    lab.host.ns.ip("route replace default via 192.0.2.10");
    lab.host.ns.ip("-6 route replace default via 2001:db8:2::10");
    // Programs are attached to it before.
    knows_second_uplink(&lab);
    assert_eq!(seen_as(&lab, &a.ns, Family::V4).to_string(), "192.0.2.1");
    assert_eq!(seen_as(&lab, &a.ns, Family::V6).to_string(), "2001:db8:2::1");
    for family in Family::BOTH {
        assert!(ping(&a.ns, family.outside(), Ping::default()), "the old one is still there, on its link");
    }
}

#[test]
fn new_flows_follow_the_uplinks_address() {
    let lab = with_remotes();
    let a = lab.container("a");
    assert_eq!(seen_as(&lab, &a.ns, Family::V4), Family::V4.host());
    lab.host.ns.ip("address delete 203.0.113.1/24 dev up0");
    lab.host.ns.ip("address add 203.0.113.7/24 dev up0");
    lab.host.ns.ip("route replace default via 203.0.113.10");
    until("netd knows the new address", || lab.host.netd("status").contains("203.0.113.7"));
    assert_eq!(seen_as(&lab, &a.ns, Family::V4).to_string(), "203.0.113.7");
}

/// IPv6's temporary addresses come and go like that (RFC 8981).
#[test]
fn a_flow_keeps_its_address_for_as_long_as_the_host_has_it() {
    let lab = with_remotes();
    let a = lab.container("a");
    let ip = |command: &str| lab.host.ns.ip(command);
    for (family, [old, new], gateway) in [
        (Family::V4, ["203.0.113.1/24", "203.0.113.2/32"], "203.0.113.10"),
        (Family::V6, ["2001:db8::1/64", "2001:db8::2/128"], "2001:db8::10"),
    ] {
        let remote = at(remote(family), 5300);
        let (tcp, echo) = (TcpEcho::new(&lab.outside, remote), UdpEcho::new(&lab.outside, remote));
        let mut stream = connect(&a.ns, 0, remote).expect("a connection");
        let datagrams = udp(&a.ns, family, 0);
        datagrams.connect(remote).expect("connecting");
        let mut exchange = || {
            datagrams.send(b"hello").and_then(|_| datagrams.recv(&mut [0; 5])).expect("an answer");
            stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut [0; 5]))
        };
        exchange().expect("an echo");

        let (version, nodad) = if family == Family::V6 { ("-6", "nodad") } else { ("-4", "") };
        let (source, _) = new.split_once('/').expect("CIDR");
        ip(&format!("address add {new} dev up0 {nodad}"));
        ip(&format!("{version} route replace default via {gateway} src {source}"));
        until("new flows have the new address", || {
            seen_as(&lab, &a.ns, family) == source.parse::<IpAddr>().expect("an address")
        });
        exchange().expect("an echo");
        assert_eq!((tcp.peers().len(), echo.peers()[1]), (1, echo.peers()[0]));

        ip(&format!("address delete {old} dev up0"));
        // What leaves before netd knows has no answer.
        until("the connection ends with its address", || {
            stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut [0; 5])).is_err()
        });
        until("datagrams go on under the other", || {
            let answer = datagrams.send(b"hello").and_then(|_| datagrams.recv(&mut [0; 5]));
            answer.is_ok() && echo.peers().last().expect("a peer").ip().to_string() == source
        });
    }
}

/// An uplink without an address of its own: its routes name one that the host has elsewhere.
#[test]
fn a_route_names_the_address_that_is_seen() {
    let lab = with_remotes();
    let a = lab.container("a");
    lab.outside.ip("route add 203.0.114.9/32 dev eth0");
    lab.host.ns.ip("address delete 203.0.113.1/24 dev up0");
    lab.host.ns.ip("address add 203.0.114.9/32 dev lo");
    lab.host.ns.ip("route add 203.0.113.10 dev up0 src 203.0.114.9");
    lab.host.ns.ip("route add default via 203.0.113.10 src 203.0.114.9");
    let rule = || {
        let nat = lab.host.netd("nat ls");
        nat.lines()
            .find(|line| line.contains("172.30.0.0/24"))
            .is_some_and(|line| line.contains("203.0.114.9"))
    };
    until("the rule has the address", rule);
    assert_eq!(seen_as(&lab, &a.ns, Family::V4).to_string(), "203.0.114.9");
}

/// What was attached before the daemon started is detached like the rest, and can be attached again.
#[test]
fn an_uplink_goes_and_comes_back_after_a_restart() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.host.stop();
    lab.host.start(&[]);
    let is_uplink = || lab.host.netd("status").lines().any(|line| line.starts_with("up0 "));
    until("netd knows the uplink", is_uplink);
    // Its routes go with that, and the one to its own network comes back.
    lab.host.ns.ip("link set up0 down");
    until("no route leads there", || !is_uplink());
    lab.host.ns.ip("link set up0 up");
    lab.host.ns.ip("route replace default via 203.0.113.10");
    until("netd knows it again", is_uplink);
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
}

#[test]
fn an_uplink_may_be_named() {
    let lab = Lab::wired();
    second_uplink(&lab);
    lab.host.start(&["--uplink", "up0"]);
    let a = lab.container_on("bridge", "a");
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    let mut capture = Capture::new(&lab.outside, "eth2");
    let brief = Ping { patience: Duration::from_millis(300), ..Ping::default() };
    assert!(!ping(&a.ns, "192.0.2.10".parse::<IpAddr>().expect("an address"), brief), "up1 is no uplink");
    assert!(capture.drain().iter().all(|p| p.source != a.ipv4), "and nothing leaks there");
}

#[test]
fn a_vlan_over_the_uplink_is_another_link() {
    let lab = Lab::new();
    let a = lab.container("a");
    let link = RawLink::new(&lab.outside, "eth0");
    let addresses = [lab.host.ns.mac("up0"), lab.outside.mac("eth0")].concat();
    for (family, ethertype) in [(Family::V4, [0x08, 0x00]), (Family::V6, [0x86, 0xdd])] {
        let (remote, mapping) = (at(family.outside(), 5300), at(family.host(), 5000));
        let _echo = UdpEcho::new(&lab.outside, remote);
        ask(&udp(&a.ns, family, 5000), remote, b"opens the mapping");
        let mut capture = Capture::new(&a.ns, "eth0");
        let (tag, urgent) = ([0x81, 0x00, 0, 100], [0x81, 0x00, 0xe0, 0]);
        let frames =
            [(&tag[..], &b"of vlan 100"[..]), (&urgent, b"of the uplink"), (&[], b"the same, untagged")];
        for (tag, data) in frames {
            let packet = Datagram::udp(remote, mapping, data).bytes();
            link.send(&[&addresses, tag, &ethertype, &packet].concat());
        }
        let mut next = || capture.expect("a datagram", |p| p.source == remote.ip() && p.ports().is_some());
        // The one of the VLAN came first, had it come at all; and which of the others does is not said.
        let arrived = [next().payload, next().payload];
        for data in [&b"of the uplink"[..], b"the same, untagged"] {
            assert!(arrived.iter().any(|payload| payload.ends_with(data)), "{arrived:?}");
        }
    }
}

/// Both are uplinks, and what leaves by the upper one passes the lower one's programs as well.
#[test]
fn a_macvlan_over_the_uplink_is_an_uplink_too() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.host.ns.ip("link add link up0 name up1 type macvlan mode bridge");
    address_second_uplink(&lab, "eth0");
    knows_second_uplink(&lab);
    let remotes: [IpAddr; 2] = [[192, 0, 2, 10].into(), "2001:db8:2::10".parse().expect("an address")];
    for (family, remote) in Family::BOTH.into_iter().zip(remotes) {
        assert!(ping(&a.ns, remote, Ping::default()), "{remote}");
        assert!(ping(&a.ns, family.outside(), Ping::default()), "the lower one's link is there still");
        let echo = UdpEcho::new(&lab.outside, at(remote, 5300));
        ask(&udp(&a.ns, family, 5000), echo.address, b"hello");
        assert_eq!(echo.peers()[0].port(), 5000, "what is free is kept");
        let _echo = TcpEcho::new(&lab.outside, at(remote, 8000));
        let mut stream = connect(&a.ns, 5001, at(remote, 8000)).expect("a connection");
        stream.write_all(b"hello").expect("writing");
        stream.read_exact(&mut [0; 5]).expect("an answer");
        // The host's own go by it too, also with a container's flow to the same place under way.
        ask(&udp(&lab.host.ns, family, 5000), echo.address, b"of the host");
        assert!(ping(&lab.host.ns, remote, Ping::default()));
    }
    let flows = lab.host.netd("nat ls");
    let is_hosts_below = |line: &str| line.trim_start().starts_with("host ") && line.contains(" up0 ");
    assert!(!flows.lines().any(is_hosts_below), "translated where it left first: {flows}");
}

/// An address of the outside that is on no link of the host's, with which it speaks by its second uplink.
struct Remote {
    family: Family,
    address: IpAddr,
    /// The router to it, on the second uplink's link.
    router: &'static str,
    /// What of the host's is on that link.
    link: &'static str,
    by_first: Capture,
    by_second: Capture,
}

impl Remote {
    fn both(lab: &Lab) -> [Self; 2] {
        Family::BOTH.map(|family| {
            let (router, link) = match family {
                Family::V4 => ("192.0.2.10", "192.0.2.0/24"),
                Family::V6 => ("2001:db8:2::10", "2001:db8:2::/64"),
            };
            let address = remote(family);
            lab.outside.ip(&format!("address add {address} dev lo"));
            let [by_first, by_second] = ["eth0", "eth2"].map(|link| Capture::new(&lab.outside, link));
            Self { family, address, router, link, by_first, by_second }
        })
    }

    /// The host's address on the second uplink.
    fn host(&self) -> IpAddr {
        match self.family {
            Family::V4 => [192, 0, 2, 1].into(),
            Family::V6 => "2001:db8:2::1".parse().expect("an address"),
        }
    }

    /// `ip` on the host, for this family.
    fn ip(&self, lab: &Lab, arguments: &str) {
        let version = if self.family == Family::V4 { "-4" } else { "-6" };
        lab.host.ns.ip(&format!("{version} {arguments}"));
    }

    /// A rule that leads what the second uplink's addresses send out by it.
    fn rule(&self, lab: &Lab, verb: &str) {
        let Self { router, link, .. } = self;
        self.ip(lab, &format!("route {verb} default via {router} dev up1 table 77"));
        self.ip(lab, &format!("rule {verb} from {link} lookup 77"));
    }

    /// A socket of its.
    fn socket(&self, lab: &Lab) -> UdpSocket {
        let socket = lab.outside.enter(|| UdpSocket::bind(at(self.address, 0))).expect("binding");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
        socket
    }

    /// What comes from `source` comes by the second uplink.
    fn expect_by_second(&mut self, source: IpAddr, way: &str) {
        self.by_second.expect(way, |p| (p.source, p.destination) == (source, self.address));
        let astray = self.by_first.drain().into_iter().find(|p| p.source == source);
        assert!(astray.is_none(), "{way}: {astray:?}");
    }

    /// Asks for the port that is published on the second uplink's address, and is answered there.
    fn ask_for_port(&mut self, lab: &Lab, way: &str) {
        let host = self.host();
        ask(&self.socket(lab), at(host, 8080), b"hello");
        self.expect_by_second(host, way);
        let mut stream = connect_from(&lab.outside, at(self.address, 0), at(host, 8080))
            .unwrap_or_else(|e| panic!("{way}: {e}"));
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        self.expect_by_second(host, way);
    }
}

/// Whatever the routes say, where there are any.
#[test]
fn answers_leave_by_the_uplink_of_the_request() {
    let lab = Lab::new();
    let a = lab.container("a");
    known_second_uplink(&lab);
    lab.host.netd(&format!("publish netns:{} 8080:80/tcp 8080:80/udp", a.ns.name()));
    for mut remote in Remote::both(&lab) {
        let server = at(a.address(remote.family), 80);
        let (datagrams, _streams) = (UdpEcho::new(&a.ns, server), TcpEcho::new(&a.ns, server));
        remote.ask_for_port(&lab, "no route there");
        let way = format!("default via {} dev up1 metric 5000", remote.router);
        remote.ip(&lab, &format!("route add {way}"));
        remote.ask_for_port(&lab, "a route that another goes before");
        remote.ip(&lab, &format!("route delete {way}"));
        remote.rule(&lab, "add");
        remote.ask_for_port(&lab, "a rule");
        remote.rule(&lab, "delete");
        assert!(datagrams.peers().iter().all(|peer| peer.ip() == remote.address));
    }
}

/// What a container sends under an external address leaves by the link that the address is on: there the outside asks for it, and
/// behind another uplink nobody need let it through.
#[test]
fn an_external_address_keeps_to_its_link() {
    let lab = Lab::new();
    let a = lab.container("a");
    known_second_uplink(&lab);
    for mut remote in Remote::both(&lab) {
        let external: IpAddr = match remote.family {
            Family::V4 => [192, 0, 2, 9].into(),
            Family::V6 => "2001:db8:2::9".parse().expect("an address"),
        };
        remote.rule(&lab, "add");
        lab.host.netd(&format!("nat add {external} netns:{}", a.ns.name()));
        let _echo = UdpEcho::new(&a.ns, at(a.address(remote.family), 5300));
        ask(&remote.socket(&lab), at(external, 5300), b"hello");
        remote.expect_by_second(external, "an answer");
        assert!(ping(&a.ns, remote.address, Ping::default()));
        remote.expect_by_second(external, "a question");
        // With no way there it leaves where there is one.
        remote.rule(&lab, "delete");
        until("the other way", || {
            ping(&a.ns, remote.address, Ping { patience: Duration::from_millis(300), ..Ping::default() });
            remote.by_first.drain().iter().any(|p| (p.source, p.destination) == (external, remote.address))
        });
    }
}

/// What a client that came by the second uplink is sent goes on to leave by it, wherever the default route led when it came, and leads by now.
#[test]
fn an_accepted_flow_stays_on_its_uplink() {
    let lab = Lab::new();
    let a = lab.container("a");
    known_second_uplink(&lab);
    lab.host.netd(&format!("publish netns:{} 8080:80/tcp 8080:80/udp", a.ns.name()));
    for mut remote in Remote::both(&lab) {
        let family = remote.family;
        let server = at(a.address(family), 80);
        let (_datagrams, _streams) = (UdpEcho::new(&a.ns, server), TcpEcho::new(&a.ns, server));
        let host = remote.host();
        remote.ip(&lab, &format!("route replace default via {} dev up1", remote.router));
        let socket = remote.socket(&lab);
        ask(&socket, at(host, 8080), b"hello");
        let mut stream =
            connect_from(&lab.outside, at(remote.address, 0), at(host, 8080)).expect("connecting");
        let echoed = |stream: &mut TcpStream| {
            stream.write_all(b"hello").expect("sending");
            stream.read_exact(&mut [0; 5]).expect("the echo");
        };
        echoed(&mut stream);
        remote.expect_by_second(host, "the default route");
        remote.ip(&lab, &format!("route replace default via {} dev up0", family.outside()));
        until("netd knows the route", || {
            ping(&a.ns, remote.address, Ping { patience: Duration::from_millis(300), ..Ping::default() });
            remote.by_first.drain().iter().any(|p| p.destination == remote.address)
        });
        for _ in 0..3 {
            ask(&socket, at(host, 8080), b"hello");
            echoed(&mut stream);
        }
        remote.expect_by_second(host, "where the default route was");
    }
}

/// An external address keeps to its link only where its packets would leave by another's default route: what is on another link, or is routed
/// there, is reached there.
#[test]
fn an_external_address_is_no_obstacle_to_other_links() {
    let lab = Lab::new();
    let a = lab.container("a");
    known_second_uplink(&lab);
    let [mut remote, _] = Remote::both(&lab);
    let outside = Family::V4.outside();
    let external: IpAddr = [192, 0, 2, 9].into();
    remote.ip(&lab, &format!("route add default via {} dev up1 metric 5000", remote.router));
    lab.host.netd(&format!("nat add {external} netns:{}", a.ns.name()));
    until("the default route of the address's link goes before", || {
        ping(&a.ns, remote.address, Ping { patience: Duration::from_millis(300), ..Ping::default() });
        let by_second = remote.by_second.drain();
        by_second.iter().any(|p| (p.source, p.destination) == (external, remote.address))
    });
    remote.by_first.drain();
    // The link of the first uplink, and a way by a router that is there.
    lab.outside.ip("address add 198.51.100.50 dev lo");
    lab.outside.ip("address add 203.0.113.77/24 dev eth0");
    lab.host.ns.ip("route add 198.51.100.50 via 203.0.113.77");
    for address in [outside, [198, 51, 100, 50].into()] {
        until("it leaves by the first uplink", || {
            ping(&a.ns, address, Ping { patience: Duration::from_millis(300), ..Ping::default() });
            let by_first = remote.by_first.drain();
            by_first.iter().any(|p| (p.source, p.destination) == (external, address))
        });
    }
}
