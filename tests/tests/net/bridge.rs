//! Between containers: one network, and two.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_tests::lab::{
    Capture, Container, Family, Lab, Ping, TcpEcho, UdpEcho, ask, at, connect, ping, udp, until,
};

#[test]
fn one_network_keeps_source_addresses_and_ttl() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        let (from, to) = (a.address(family), b.address(family));
        let mut capture = Capture::new(&b.ns, "eth0");
        assert!(ping(&a.ns, to, Ping::default()));
        let request = capture.expect("the echo request", |p| p.destination == to && p.source == from);
        assert_eq!(request.ttl, 64, "a bridge is no hop");

        let echo = UdpEcho::new(&b.ns, family.any(5300));
        let client = udp(&a.ns, family, 5000);
        assert_eq!(ask(&client, at(to, 5300), b"who am I"), b"who am I");
        assert_eq!(echo.peers(), [at(from, 5000)]);

        let server = TcpEcho::new(&b.ns, family.any(8000));
        let mut stream = connect(&a.ns, 5001, at(to, 8000)).expect("connecting");
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
        assert_eq!(server.peers(), [at(from, 5001)]);
    }
    assert!(
        lab.host.netd("nat ls").lines().all(|line| !line.contains("8000")),
        "traffic of one network is not tracked"
    );
}

#[test]
fn large_pings_cross_in_fragments() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    for family in Family::BOTH {
        for size in [1473, 2000, 8000] {
            assert!(
                ping(&a.ns, b.address(family), Ping { size, ..Ping::default() }),
                "{size} bytes, {family:?}"
            );
        }
    }
}

#[test]
fn a_bridge_that_was_down_leads_where_it_did() {
    let lab = Lab::new();
    lab.host.netd(
        "network create --ipv6 --subnet fd00:33::/64 --opt com.docker.network.bridge.name=flapped flapped",
    );
    let a = lab.container_on("flapped", "a");
    lab.host.ns.ip("link set flapped down");
    lab.host.ns.ip("link set flapped up");
    for family in Family::BOTH {
        // It speaks IPv6 once the kernel has made sure of its link-local address.
        until("the host reaches the container", || ping(&lab.host.ns, a.address(family), Ping::default()));
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()));
    }
}

#[test]
fn broadcast_and_multicast_are_the_kernel_bridges_business() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    let (client, server) = (udp(&a.ns, Family::V4, 0), udp(&b.ns, Family::V4, 5300));
    client.set_broadcast(true).expect("a socket's option");
    client.send_to(b"everybody", at(Ipv4Addr::new(172, 30, 0, 255), 5300)).expect("sending");
    let (_, from) = server.recv_from(&mut [0; 64]).expect("the broadcast");
    assert_eq!(from.ip(), a.address(Family::V4));

    let mut capture = Capture::new(&b.ns, "eth0");
    let group = "239.1.2.3:5300";
    client.send_to(b"some", group).expect("sending");
    capture.expect("the multicast", |p| p.source == a.ipv4 && p.destination == Ipv4Addr::new(239, 1, 2, 3));
}

#[test]
fn the_host_and_its_containers_reach_each_other() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&lab.host.ns, a.address(family), Ping::default()));
        let echo = UdpEcho::new(&lab.host.ns, family.any(5300));
        ask(&udp(&a.ns, family, 5000), at(a.gateway(family), 5300), b"host");
        assert_eq!(echo.peers(), [at(a.address(family), 5000)], "the host sees who speaks to it");
    }
}

#[test]
fn two_networks_are_apart() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container_on("bridge", "b"));
    let brief = Ping { patience: Duration::from_millis(300), ..Ping::default() };
    assert!(!ping(&a.ns, b.ipv4.into(), brief));
    assert!(!ping(&b.ns, a.ipv4.into(), brief));
}

#[test]
fn the_outside_has_no_way_to_a_container_by_its_address() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.outside.ip("route add 172.30.0.0/24 via 203.0.113.1");
    lab.outside.ip("-6 route add fd00:30::/64 via 2001:db8::1");
    let brief = Ping { patience: Duration::from_millis(300), ..Ping::default() };
    for family in Family::BOTH {
        let mut capture = Capture::new(&a.ns, "eth0");
        assert!(!ping(&lab.outside, a.address(family), brief));
        assert!(capture.drain().iter().all(|p| p.source != family.outside()), "nothing of it arrives");
        assert!(ping(&a.ns, family.outside(), Ping::default()), "the container's own flows do");
    }
}

#[test]
fn an_address_that_moves_to_another_station_is_found_again() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    assert!(ping(&a.ns, b.ipv4.into(), Ping::default()));
    let (name, address) = (b.ns.name().to_owned(), b.ipv4);
    lab.host.netd(&format!("network disconnect dual netns:{name}"));
    assert!(!b.ns.ip("link show").contains("eth0"), "its interface is gone");
    lab.host.netd(&format!("network connect dual netns:{name}"));
    let b = Container::of(b.ns);
    assert_eq!(b.ipv4, address, "the first free address is the one just freed");
    assert!(ping(&b.ns, a.ipv4.into(), Ping::default()), "which tells a of the station's new MAC");
    assert!(ping(&a.ns, address.into(), Ping::default()));
}
