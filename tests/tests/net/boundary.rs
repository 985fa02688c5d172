//! By what else than its own way something could come to a container, or out of one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netd_tests::lab::{
    Capture, Container, Datagram, Family, Lab, Namespace, Ping, RawLink, UdpEcho, ask, at, ping, udp, until,
};

use crate::uplink::second_uplink;

/// How many packets were dropped for a reason.
fn drops(lab: &Lab, reason: &str) -> u64 {
    lab.host.netd_json("stats")["drops"][reason].as_u64().unwrap_or_default()
}

/// The MACs that a bridge takes for its own, each once.
fn own_macs(ns: &Namespace, bridge: &str) -> Vec<String> {
    let shown = ns.command("bridge").args(["fdb", "show", "br", bridge]).output().expect("bridge").stdout;
    let shown = String::from_utf8(shown).expect("bridge's output");
    let local = shown.lines().filter(|line| line.contains("permanent") && !line.starts_with("33:33:"));
    let local = local.filter(|line| !line.starts_with("01:00:5e:"));
    let mut macs: Vec<_> = local.map(|line| line.split(' ').next().expect("a MAC").to_owned()).collect();
    macs.sort_unstable();
    macs.dedup();
    macs
}

fn mac(ns: &Namespace, link: &str) -> String {
    let shown: serde_json::Value =
        serde_json::from_str(&ns.ip(&format!("-json link show {link}"))).expect("JSON");
    shown[0]["address"].as_str().expect("a MAC").to_owned()
}

#[test]
fn an_interface_that_is_no_uplink_leads_to_no_container() {
    let lab = Lab::new();
    let a = lab.container("a");
    lab.host.stop();
    lab.host.start(&["--uplink", "up0"]);
    second_uplink(&lab);
    for (family, router) in Family::BOTH.into_iter().zip(["192.0.2.1", "2001:db8:2::1"]) {
        assert!(ping(&lab.outside, router.parse().expect("an address"), Ping::default()), "the link works");
        lab.outside.ip(&format!("route add {} via {router}", a.address(family)));
        let server = UdpEcho::new(&a.ns, family.any(5300));
        let client = udp(&lab.outside, family, 0);
        let before = drops(&lab, "direct_access");
        client.send_to(b"let me in", at(a.address(family), 5300)).expect("sending");
        until("it is dropped", || drops(&lab, "direct_access") == before + 1);
        // The host and the container's neighbours come in all the same.
        ask(&udp(&lab.host.ns, family, 0), at(a.address(family), 5300), b"hello");
        assert_eq!(server.peers().len(), 1);
    }
}

#[test]
fn neighbours_that_are_kept_apart_hear_nothing_of_each_other() {
    let lab = Lab::new();
    lab.host.netd(
        "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 \
         --opt com.docker.network.bridge.enable_icc=false apart",
    );
    let [a, b] = ["a", "b"].map(|role| lab.container_on("apart", role));
    let to_all = [
        at(Ipv4Addr::new(172, 31, 0, 255), 5300),
        at(Ipv4Addr::BROADCAST, 5300),
        at(Ipv4Addr::new(224, 0, 0, 1), 5300),
    ];
    let hears_at_once = |by: &Container| {
        let host = udp(&lab.host.ns, Family::V4, 5300);
        let mut capture = Capture::new(&b.ns, "eth0");
        let client = udp(&by.ns, Family::V4, 0);
        client.set_broadcast(true).expect("a socket's option");
        for to in to_all {
            client.send_to(b"everybody", to).expect("sending");
        }
        // The host is no neighbour. What it hears the neighbour would have heard.
        let (_, from) = host.recv_from(&mut [0; 64]).expect("the host hears a broadcast");
        assert_eq!(from.ip(), by.address(Family::V4));
        assert!(ping(&lab.host.ns, b.address(Family::V4), Ping::default()));
        capture.drain().iter().any(|packet| packet.source == by.address(Family::V4))
    };
    assert!(!hears_at_once(&a), "of one network");
    // A frame to all that is meant for one.
    let (source, to) = (a.ipv4, b.ipv4);
    let server = UdpEcho::new(&b.ns, Family::V4.any(5301));
    let packet = Datagram::udp(at(source, 5000), at(to, 5301), b"for one");
    let frame = [&[0xff; 6][..], &octets(&mac(&a.ns, "eth0")), &[8, 0], &packet.bytes()].concat();
    RawLink::new(&a.ns, "eth0").send(&frame);
    ask(&udp(&lab.host.ns, Family::V4, 0), at(to, 5301), b"the host's");
    assert_eq!(server.peers().iter().map(SocketAddr::ip).collect::<Vec<_>>(), [b.gateway(Family::V4)]);
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("a MAC")).collect()
}

/// A bridge takes what is sent to the MAC of any of its ports for the host's, past the programs.
#[test]
fn a_bridge_and_its_ports_have_one_mac() {
    let lab = Lab::new();
    lab.host.ns.ip("link add before type bridge");
    lab.host.netd("network create --subnet 172.31.0.0/24 --opt com.docker.network.bridge.name=before before");
    lab.host.netd("network create --subnet 172.32.0.0/24 --opt com.docker.network.bridge.name=after after");
    for bridge in ["before", "after"] {
        let first = mac(&lab.host.ns, bridge);
        let [a, b] = ["a", "b"].map(|role| lab.container_on(bridge, &format!("{bridge}-{role}")));
        assert_eq!(own_macs(&lab.host.ns, bridge), [&*first], "{bridge}");
        let other = lab.container("other");
        let server = UdpEcho::new(&other.ns, Family::V4.any(5300));
        for container in [&a, &b] {
            let before = drops(&lab, "isolated");
            let client = udp(&container.ns, Family::V4, 0);
            client.send_to(b"who is there?", at(other.ipv4, 5300)).expect("sending");
            until("it is dropped", || drops(&lab, "isolated") == before + 1);
            assert!(ping(&container.ns, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), Ping::default()));
        }
        assert!(server.peers().is_empty());
        lab.host.kill();
        lab.host.start(&[]);
        assert_eq!(mac(&lab.host.ns, bridge), first);
        assert_eq!(own_macs(&lab.host.ns, bridge), [&*first], "{bridge}");
    }
}
