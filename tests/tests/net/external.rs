//! 1:1 translation: containers with an address of their own outside, and networks with a prefix of theirs. The numbers are
//! those of the list of cases that the behaviour was specified by.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::IpNumber;
use netd_tests::lab::{
    Capture, Container, Datagram, Family, Lab, Namespace, PATIENCE, Packet, Ping, RawSocket, TcpEcho,
    UdpEcho, ask, at, connect, ping, set_offloads, transfer, udp, until,
};

/// An address of the uplink's own prefix that nobody has.
pub(crate) fn external(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => [203, 0, 113, last].into(),
        Family::V6 => format!("2001:db8::{last}").parse().expect("an address"),
    }
}

/// Gives a container the external addresses that end in `last`.
fn give(lab: &Lab, container: &Container, last: u8) {
    for family in Family::BOTH {
        lab.host.netd(&format!("nat add {} netns:{}", external(family, last), container.ns.name()));
    }
}

/// A lab with a container that is known outside as .9 and ::9.
pub(crate) fn known() -> (Lab, Container) {
    let lab = Lab::new();
    let a = lab.container("a");
    give(&lab, &a, 9);
    (lab, a)
}

/// Speaks TCP and UDP to a server; who it was to each. What the host sends from any of its addresses would come from another,
/// so there the server has the one that is dialled.
pub(crate) fn speak(from: &Namespace, family: Family, server: &Namespace, to: IpAddr) -> [SocketAddr; 2] {
    let has_it = server.ip("-oneline address show").contains(&format!(" {to}/"));
    let bound = |port| if has_it { at(to, port) } else { family.any(port) };
    let datagrams = UdpEcho::new(server, bound(5300));
    ask(&udp(from, family, 40_000), at(to, 5300), b"hello");
    let streams = TcpEcho::new(server, bound(8000));
    let mut stream =
        connect(from, 40_001, at(to, 8000)).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    stream.write_all(b"hello").expect("sending");
    stream.read_exact(&mut [0; 5]).expect("the echo");
    [datagrams.peers()[0], streams.peers()[0]]
}

#[test]
fn nat52_both_ways_under_the_external_address() {
    let (lab, a) = known();
    for family in Family::BOTH {
        let (own, external, outside) = (a.address(family), external(family, 9), family.outside());
        let mut there = Capture::new(&lab.outside, "eth0");
        assert!(ping(&a.ns, outside, Ping::default()));
        let request = there.expect("the echo request", |p| p.destination == outside);
        assert_eq!((request.source, request.ttl), (external, 63), "one hop, the gateway");
        // All ports are its own, those of the host's range included.
        let peers = speak(&a.ns, family, &lab.outside, outside);
        assert_eq!(peers, [at(external, 40_000), at(external, 40_001)]);

        let mut here = Capture::new(&a.ns, "eth0");
        assert!(ping(&lab.outside, external, Ping::default()));
        let request = here.expect("the echo request", |p| matches!(p.icmp_type(), Some((8 | 128, 0))));
        assert_eq!((request.source, request.destination, request.ttl), (outside, own, 63));
        let peers = speak(&lab.outside, family, &a.ns, external);
        assert_eq!(peers, [at(outside, 40_000), at(outside, 40_001)], "the remote's own address is seen");
    }
    let drops = lab.host.netd_json("stats")["drops"].clone();
    assert_eq!(drops["direct_access"], 0, "{drops}");
}

#[test]
fn nat52_the_hosts_first_datagram_arrives() {
    let (lab, a) = known();
    for family in Family::BOTH {
        let server = udp(&a.ns, family, 5300);
        let client = udp(&lab.host.ns, family, 40_000);
        client.send_to(b"first", at(external(family, 9), 5300)).expect("sending");
        let (_, peer) = server.recv_from(&mut [0; 16]).expect("the first datagram, whoever knows whom");
        assert_eq!(peer, at(family.host(), 40_000));
    }
}

#[test]
fn nat52_every_protocol() {
    let (lab, a) = known();
    for family in Family::BOTH {
        let (own, external, outside) = (a.address(family), external(family, 9), family.outside());
        // A neighbour that is not resolved yet keeps only the last few packets.
        assert!(ping(&lab.outside, external, Ping::default()));
        let (mut there, mut here) = (Capture::new(&lab.outside, "eth0"), Capture::new(&a.ns, "eth0"));
        let (inside, beyond) = (RawSocket::new(&a.ns, outside), RawSocket::new(&lab.outside, external));
        // GRE, ESP, AH, SCTP, DCCP, UDP-Lite, and one that nobody has heard of.
        for number in [47, 50, 132, 33, 136, 200] {
            let protocol = IpNumber(number);
            let payload: Vec<u8> = (0..64).map(|byte| byte ^ number).collect();
            let datagram = |source, destination| Datagram {
                source,
                destination,
                ttl: 64,
                protocol,
                payload: payload.clone(),
            };
            inside.send(&datagram(own, outside).bytes(), outside);
            let left = there.expect("the packet outside", |p| p.protocol == protocol);
            assert_eq!((left.source, left.destination, left.ttl), (external, outside, 63), "{number}");
            beyond.send(&datagram(outside, external).bytes(), external);
            let came = here.expect("the packet inside", |p| p.protocol == protocol && p.destination == own);
            assert_eq!((came.source, came.ttl), (outside, 63), "{number}");
            if !matches!(number, 33 | 136) {
                assert_eq!(
                    (&left.payload, &came.payload),
                    (&payload, &payload),
                    "{number}: nothing but the address changes"
                );
            }
        }
    }
}

/// The ICMP error that arrives.
fn error(capture: &mut Capture) -> (Packet, Packet) {
    let packet = capture.expect("an ICMP error", |p| p.icmp_error().is_some());
    let about = packet.icmp_error().expect("an error").about;
    (packet, about)
}

#[test]
fn nat52_icmp_errors_both_ways() {
    let (lab, a) = known();
    for family in Family::BOTH {
        let (own, external, outside) = (a.address(family), external(family, 9), family.outside());
        let mut here = Capture::new(&a.ns, "eth0");
        let socket = udp(&a.ns, family, 5000);
        socket.connect(at(outside, 5399)).expect("connecting");
        socket.send(b"anybody?").expect("sending");
        let refused = socket.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        let (packet, about) = error(&mut here);
        assert_eq!((packet.source, packet.destination), (outside, own));
        assert_eq!((about.source, about.destination, about.ports()), (own, outside, Some((5000, 5399))));

        let mut there = Capture::new(&lab.outside, "eth0");
        let socket = udp(&lab.outside, family, 5001);
        socket.connect(at(external, 5398)).expect("connecting");
        socket.send(b"anybody?").expect("sending");
        let refused = socket.recv(&mut [0; 64]).expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        let (packet, about) = error(&mut there);
        assert_eq!(
            (packet.source, packet.destination),
            (external, outside),
            "RFC 5508 REQ-5: the mapped address"
        );
        assert_eq!((about.source, about.destination, about.ports()), (outside, external, Some((5001, 5398))));
    }
}

#[test]
fn nat52_hairpin() {
    let (lab, a) = known();
    let (b, e) = (lab.container("b"), lab.container("e"));
    give(&lab, &e, 8);
    let c = lab.container_on("bridge", "c");
    for family in Family::BOTH {
        let to = external(family, 9);
        // From itself, from a neighbour with an external address, from one without, and from the host.
        assert_eq!(speak(&a.ns, family, &a.ns, to).map(|peer| peer.ip()), [to; 2]);
        assert_eq!(speak(&e.ns, family, &a.ns, to).map(|peer| peer.ip()), [external(family, 8); 2]);
        assert_eq!(speak(&b.ns, family, &a.ns, to).map(|peer| peer.ip()), [family.host(); 2]);
        assert_eq!(speak(&lab.host.ns, family, &a.ns, to).map(|peer| peer.ip()), [family.host(); 2]);
        for from in [&a.ns, &e.ns, &b.ns, &lab.host.ns] {
            assert!(ping(from, to, Ping::default()), "from {}", from.name());
            let socket = udp(from, family, 5002);
            socket.connect(at(to, 5398)).expect("connecting");
            socket.send(b"anybody?").expect("sending");
            let refused = socket.recv(&mut [0; 64]).expect_err("nobody is there");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "from {}: {refused}", from.name());
        }
        // What the container sends to the host unasked is seen under its own address.
        assert_eq!(
            speak(&a.ns, family, &lab.host.ns, family.host()).map(|peer| peer.ip()),
            [a.address(family); 2]
        );
    }
    // From another network.
    assert_eq!(
        speak(&c.ns, Family::V4, &a.ns, external(Family::V4, 9)).map(|peer| peer.ip()),
        [Family::V4.host(); 2]
    );
    assert!(ping(&c.ns, external(Family::V4, 9), Ping::default()));
    assert!(!ping(&c.ns, a.ipv4.into(), Ping { patience: Duration::from_millis(300), ..Ping::default() }));
}

#[test]
fn nat52_fragments_and_narrow_uplinks() {
    let (lab, a) = known();
    let b = lab.container("b");
    for family in Family::BOTH {
        let (external, outside) = (external(family, 9), family.outside());
        let large = Ping { size: 4000, ..Ping::default() };
        assert!(ping(&a.ns, outside, large));
        assert!(ping(&lab.outside, external, large));
        let _here = UdpEcho::new(&a.ns, family.any(5300));
        let _there = UdpEcho::new(&lab.outside, family.any(5301));
        assert_eq!(ask(&udp(&lab.outside, family, 0), at(external, 5300), &[7; 4000]), [7; 4000]);
        assert_eq!(ask(&udp(&a.ns, family, 0), at(outside, 5301), &[7; 4000]), [7; 4000]);
        assert_eq!(ask(&udp(&b.ns, family, 0), at(external, 5300), &[7; 4000]), [7; 4000], "hairpin");
    }
    lab.narrow_uplink(1400);
    for offloads in [true, false] {
        set_offloads(&a.ns, "eth0", offloads);
        set_offloads(&lab.host.ns, "up0", offloads);
        for family in Family::BOTH {
            let mut there = Capture::new(&lab.outside, "eth0");
            // In IPv6 nobody on the way fragments: the first is lost, and its sender learns.
            let large = Ping { size: 3000, ..Ping::default() };
            assert!(family == Family::V6 || ping(&a.ns, family.outside(), large));
            transfer(&a.ns, &lab.outside, at(family.outside(), 5001), 1_000_000);
            assert!(ping(&a.ns, family.outside(), large));
            let leaked: Vec<_> =
                there.drain().into_iter().filter(|p| p.source == a.address(family)).collect();
            assert!(leaked.is_empty(), "{leaked:#?}");
        }
    }
}

/// What a namespace knows of a neighbour: its MAC, or the state that it is in without one.
fn neighbour(ns: &Namespace, address: IpAddr) -> Option<String> {
    let json = ns.ip(&format!("-json neighbour show {address} dev eth0"));
    let entries: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
    entries[0]["lladdr"].as_str().map(str::to_owned)
}

/// An address that was another machine's: whoever remembers that one's MAC is told, and need not find out.
#[test]
fn an_external_address_is_announced_on_the_uplinks_link() {
    let lab = Lab::new();
    let a = lab.container("a");
    let mac = lab.host.ns.link_address("up0");
    for family in Family::BOTH {
        let address = external(family, 9);
        lab.outside.ip(&format!("neighbour replace {address} dev eth0 lladdr 02:00:00:00:00:99 nud stale"));
        lab.host.netd(&format!("nat add {address} netns:{}", a.ns.name()));
        until("it is known anew", || neighbour(&lab.outside, address).is_some_and(|known| known == mac));
    }
}

#[test]
fn nat53_the_uplink_answers_for_external_addresses_alone() {
    let (lab, _a) = known();
    let mac = lab.host.ns.link_address("up0");
    let quick = Ping { patience: Duration::from_millis(500), ..Ping::default() };
    for family in Family::BOTH {
        assert!(ping(&lab.outside, external(family, 9), Ping::default()));
        assert_eq!(neighbour(&lab.outside, external(family, 9)), Some(mac.clone()));
        // The kernel asks the neighbour itself, now and then.
        lab.outside.ip(&format!("neighbour change {} dev eth0 lladdr {mac} nud probe", external(family, 9)));
        until("the neighbour is confirmed", || {
            let shown = lab.outside.ip(&format!("neighbour show {} dev eth0", external(family, 9)));
            shown.contains("REACHABLE")
        });
        // Nobody answers for an address that is nobody's; the kernel may say so itself.
        let unknown = external(family, 77);
        let answered = lab.outside.enter(|| std::panic::catch_unwind(|| ping_here(unknown, quick)));
        assert!(!matches!(answered, Ok(true)));
        assert_eq!(neighbour(&lab.outside, unknown), None);
        lab.host.netd(&format!("nat rm {}", external(family, 9)));
        lab.outside.ip("neighbour flush dev eth0");
        let answered =
            lab.outside.enter(|| std::panic::catch_unwind(|| ping_here(external(family, 9), quick)));
        assert!(!matches!(answered, Ok(true)));
        assert_eq!(neighbour(&lab.outside, external(family, 9)), None, "it was taken back");
    }
}

/// Whether anybody answers, from the namespace that the thread is in.
fn ping_here(to: IpAddr, quick: Ping) -> bool {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("binding");
    socket.set_read_timeout(Some(quick.patience)).expect("a socket's timeout");
    let _ = socket.send_to(b"anybody?", at(to, 5398));
    socket.recv_from(&mut [0; 8]).is_ok()
}

/// What the outside knows an endpoint by, as the table shows it.
fn shown(lab: &Lab, container: &Container) -> Vec<String> {
    let nat = lab.host.netd_json("nat ls");
    let externals = nat["externals"].as_array().expect("a list").iter();
    let of = externals.filter(|row| row["endpoint"].as_str() == Some(container.ns.name()));
    of.map(|row| row["external"].as_str().expect("an address").to_owned()).collect()
}

#[test]
fn a_network_has_a_prefix_outside() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    lab.host.netd("nat add 2001:db8:9::/64 dual");
    lab.outside.ip("-6 route add 2001:db8:9::/64 via 2001:db8::1");
    let address = |container: &Container| -> IpAddr {
        let [shown] = &shown(&lab, container)[..] else { panic!("{:?}", shown(&lab, container)) };
        shown.strip_suffix("/128").expect("one address").parse().expect("an address")
    };
    let outside = Family::V6.outside();
    for container in [&a, &b] {
        let external = address(container);
        assert!(external.to_string().starts_with("2001:db8:9:"), "{external}");
        let peers = speak(&container.ns, Family::V6, &lab.outside, outside);
        assert_eq!(peers, [at(external, 40_000), at(external, 40_001)]);
        let peers = speak(&lab.outside, Family::V6, &container.ns, external);
        assert_eq!(peers, [at(outside, 40_000), at(outside, 40_001)]);
        assert!(ping(&lab.outside, external, Ping { size: 4000, ..Ping::default() }));
    }
    assert_ne!(address(&a), address(&b));
    assert_eq!(speak(&b.ns, Family::V6, &a.ns, address(&a))[0].ip(), address(&b), "hairpin");
    // A container that comes later has its share; one that goes leaves nothing.
    let c = lab.container("c");
    assert!(ping(&lab.outside, address(&c), Ping::default()));
    // IPv4 goes out as before.
    assert_eq!(speak(&a.ns, Family::V4, &lab.outside, Family::V4.outside())[0].ip(), Family::V4.host());
    lab.host.netd("nat rm 2001:db8:9::/64");
    assert_eq!(speak(&a.ns, Family::V6, &lab.outside, outside)[0].ip(), Family::V6.host());
}

#[test]
fn it_outlives_the_daemon_and_not_its_endpoint() {
    let (lab, a) = known();
    let works = || {
        for family in Family::BOTH {
            assert_eq!(speak(&a.ns, family, &lab.outside, family.outside())[0].ip(), external(family, 9));
            assert_eq!(speak(&lab.outside, family, &a.ns, external(family, 9))[0].ip(), family.outside());
        }
    };
    lab.host.kill();
    works();
    lab.host.start(&[]);
    works();
    assert_eq!(shown(&lab, &a), ["203.0.113.9/32", "2001:db8::9/128"]);
    lab.host.netd(&format!("network disconnect dual netns:{}", a.ns.name()));
    assert_eq!(lab.host.netd_json("nat ls")["externals"], serde_json::json!([]));
    // They are free again, for another.
    let b = lab.container("b");
    give(&lab, &b, 9);
    assert!(ping(&lab.outside, external(Family::V4, 9), Ping::default()));
    // One whose endpoint died with the daemon is forgotten.
    lab.host.kill();
    drop(b);
    lab.host.start(&[]);
    assert_eq!(lab.host.netd_json("nat ls")["externals"], serde_json::json!([]));
}

/// An address of the host's comes to be a container's: whoever speaks to it speaks to that one.
#[test]
fn nat48_no_flow_leads_to_whom_an_address_led_before() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    lab.host.netd(&format!("publish netns:{} 8080:80/udp", a.ns.name()));
    for family in Family::BOTH {
        let address = external(family, 5);
        let on_uplink = match family {
            Family::V4 => format!("{address}/24 dev up0"),
            Family::V6 => format!("{address}/64 dev up0 nodad"),
        };
        let (old, new) = (UdpEcho::new(&a.ns, family.any(80)), UdpEcho::new(&b.ns, family.any(8080)));
        lab.host.ns.ip(&format!("address add {on_uplink}"));
        let (client, within) = (udp(&lab.outside, family, 0), udp(&lab.host.ns, family, 0));
        until("the address is the host's", || answers(&client, at(address, 8080)));
        until("the host's own sockets reach it", || {
            within.connect(at(address, 8080)).expect("connecting");
            within.send(b"hello").and_then(|_| within.recv(&mut [0; 64])).is_ok()
        });
        let before = old.peers().len();

        lab.host.ns.ip(&format!("address delete {}", on_uplink.replace(" nodad", "")));
        until("the address can be given", || {
            lab.host.client(&format!("nat add {address} netns:{}", b.ns.name())).status().unwrap().success()
        });
        ask(&client, at(address, 8080), b"hello");
        let _ = within.send(b"hello");
        assert_eq!((old.peers().len(), new.peers().len()), (before, 1), "{family:?}");
    }
}

/// Sends a datagram; whether there is an answer, which need not be.
fn answers(socket: &UdpSocket, to: SocketAddr) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket's timeout");
    let answered = socket.send_to(b"hello", to).and_then(|_| socket.recv(&mut [0; 64])).is_ok();
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
    answered
}

/// An address of the outside comes to the host, or to be a container's: sockets that speak to it already are led there.
#[test]
fn kept_sockets_follow_an_address_to_this_host() {
    let lab = Lab::new();
    for (network, subnet, mode) in [("nat", 40, "nat"), ("routed", 41, "routed")] {
        lab.host.netd(&format!(
            "network create --ipv6 --subnet 172.{subnet}.0.0/16 --subnet fd00:{subnet}::/64 \
             --opt com.docker.network.bridge.gateway_mode_ipv4={mode} \
             --opt com.docker.network.bridge.gateway_mode_ipv6={mode} {network}"
        ));
    }
    lab.outside.ip(&format!("route add 172.41.0.0/16 via {}", Family::V4.host()));
    lab.outside.ip(&format!("-6 route add fd00:41::/64 via {}", Family::V6.host()));
    let (a, b) = (lab.container("a"), lab.container("b"));
    let clients = ["nat", "routed"].map(|network| lab.container_on(network, network));
    lab.host.netd(&format!("publish netns:{} 8080:80/udp", a.ns.name()));
    for family in Family::BOTH {
        for last in [70, 71] {
            let address = external(family, last);
            let (whole, nodad) = match family {
                Family::V4 => (format!("{address}/24"), ""),
                Family::V6 => (format!("{address}/64"), "nodad"),
            };
            lab.outside.ip(&format!("address add {whole} dev eth0 {nodad}"));
            let there = UdpEcho::new(&lab.outside, at(address, 8080));
            let sockets = clients.each_ref().map(|client| udp(&client.ns, family, 0));
            for socket in &sockets {
                until("the address is outside", || answers(socket, at(address, 8080)));
            }
            drop(there);
            lab.outside.ip(&format!("address delete {whole} dev eth0"));
            let (server, port) = if last == 70 { (&a, 80) } else { (&b, 8080) };
            let here = UdpEcho::new(&server.ns, family.any(port));
            if last == 70 {
                lab.host.ns.ip(&format!("address add {whole} dev up0 {nodad}"));
            } else {
                lab.host.netd(&format!("nat add {address} netns:{}", b.ns.name()));
            }
            for (socket, client) in sockets.iter().zip(&clients) {
                until(&format!("{address} is here, for {}", client.ns.name()), || {
                    answers(socket, at(address, 8080))
                });
            }
            assert!(here.peers().len() >= 2);
        }
    }
}

#[test]
fn what_cannot_be_given_is_refused() {
    let (lab, a) = known();
    let (name, b) = (a.ns.name(), lab.container("b"));
    lab.host.netd("network create --internal inner");
    let fails = |arguments: &str, why: &str| {
        let said = lab.host.netd_fails(arguments);
        assert!(said.contains(why), "{arguments}: {said}");
    };
    fails(&format!("nat add 203.0.113.1 {name}"), "external address 203.0.113.1 is the host's own, on up0");
    fails("nat add 2001:db8::/64 dual", "external prefix 2001:db8::/64");
    for edge in ["203.0.113.0", "203.0.113.255"] {
        fails(
            &format!("nat add {edge} {}", b.ns.name()),
            &format!("{edge} stands for all of 203.0.113.0/24"),
        );
    }
    lab.host.ns.ip("route add 198.51.100.0/24 via 203.0.113.77");
    fails(
        &format!("nat add 203.0.113.77 {}", b.ns.name()),
        "external address 203.0.113.77 is a next hop of the host's routes",
    );
    fails(
        "network create --opt com.docker.network.host_ipv4=203.0.113.9 n",
        &format!("cannot masquerade as 203.0.113.9: it is an external address of endpoint {name}"),
    );
    fails(&format!("nat add 172.30.0.77 {name}"), "is in the subnet 172.30.0.0/24 of network dual");
    fails(&format!("nat add 203.0.113.9 {}", b.ns.name()), &format!("is given to endpoint {name} already"));
    fails(&format!("nat add 203.0.113.7 {name}"), "is 203.0.113.9 outside already");
    fails("nat add 203.0.113.7 nobody", "no such endpoint: nobody");
    fails("nat add 203.0.113.7 dual", "a network takes a prefix");
    fails("nat add 2001:db8:9::/64 inner", "is internal: it has no outside");
    fails("nat add 2001:db8:9::/64 bridge", "has no IPv6 subnet");
    fails("nat add 2001:db8:9::/48 dual", "is not as long as fd00:30::/64");
    fails("nat add 2001:db8:9::/64 dual", "is 2001:db8::9 outside already");
    fails(&format!("nat add 224.0.0.9 {name}"), "no router leads to such an address");
    fails(&format!("nat add ::ffff:203.0.113.9 {name}"), "it is how IPv6 writes 203.0.113.9; name that");
    fails("nat rm 203.0.113.77", "no such external address: 203.0.113.77");
    // Nor is a network made where one is, be it by chance.
    for subnet in ["203.0.113.8/29", "2001:db8::/120"] {
        let overlaps = "Pool overlaps with other one on this address space";
        fails(&format!("network create --ipv6 --subnet {subnet} n"), overlaps);
    }
    assert_eq!(shown(&lab, &a), ["203.0.113.9/32", "2001:db8::9/128"], "nothing has changed");
    lab.host.netd(&format!("nat add 172.19.0.2 {}", b.ns.name()));
    for network in ["next", "last"] {
        lab.host.netd(&format!("network create {network}"));
        let inspected = lab.host.netd(&format!("network inspect {network}"));
        assert!(!inspected.contains("\"172.19."), "{inspected}");
    }
    assert!(lab.host.netd("network inspect last").contains("\"172.21.0.0/16\""), "the next but one");
}

#[test]
fn an_address_that_the_host_takes_is_told() {
    let (lab, _a) = known();
    for (family, bits) in Family::BOTH.into_iter().zip([24, 64]) {
        let taken = external(family, 9);
        lab.host.ns.ip(&format!("address add {taken}/{bits} dev up0 nodad"));
        let told = format!("{taken} is the host's own now");
        until("a warning", || lab.host.log().contains(&told));
    }
}
