//! By what else than its own way something could come to a container, or out of one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use netd_tests::lab::{
    Capture, Container, Datagram, Family, Lab, Namespace, Ping, RawLink, UdpEcho, ask, at, bound, ping, udp,
    until,
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
    let frame = [&[0xff; 6][..], &a.ns.mac("eth0"), &[8, 0], &packet.bytes()].concat();
    RawLink::new(&a.ns, "eth0").send(&frame);
    ask(&udp(&lab.host.ns, Family::V4, 0), at(to, 5301), b"the host's");
    assert_eq!(server.peers().iter().map(SocketAddr::ip).collect::<Vec<_>>(), [b.gateway(Family::V4)]);
}

/// The address that an interface has for its link alone, and which link that is.
fn link_local(ns: &Namespace, link: &str) -> SocketAddrV6 {
    let json = ns.ip(&format!("-json -6 address show dev {link} scope link"));
    let shown: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
    let addresses = shown[0]["addr_info"].as_array().expect("addresses").iter();
    let mut addresses = addresses.filter_map(|it| it["local"].as_str()?.parse().ok());
    let address = addresses.next().unwrap_or_else(|| panic!("no link-local address: {json}"));
    SocketAddrV6::new(address, 0, 0, shown[0]["ifindex"].as_u64().expect("an index") as u32)
}

/// Leads a container to an address by its gateway's MAC, and asks from its link-local address.
fn ask_by_gateway(lab: &Lab, from: &Namespace, bridge: &str, to: SocketAddr) -> UdpSocket {
    let gateway = lab.host.ns.link_address(bridge);
    from.ip(&format!("-6 route replace {} dev eth0", to.ip()));
    from.ip(&format!("-6 neigh replace {} lladdr {gateway} dev eth0 nud permanent", to.ip()));
    let client = bound(from, link_local(from, "eth0").into(), UdpSocket::bind);
    client.send_to(b"by the gateway", to).expect("sending");
    client
}

/// The stack forwards what is from or to a link-local address back to the link that it is from, and takes what is for any of the host's
/// addresses.
#[test]
fn link_local_addresses_lead_past_no_verdict() {
    let lab = Lab::new();
    let named = "--opt com.docker.network.bridge.name=";
    lab.host.netd(&format!(
        "network create --ipv6 {named}apart --opt com.docker.network.bridge.enable_icc=false apart"
    ));
    lab.host.netd(&format!("network create --ipv6 {named}ports ports"));
    lab.host.netd(&format!("network create --ipv6 --internal {named}shut shut"));
    let mode = "--opt com.docker.network.bridge.gateway_mode_ipv";
    lab.host.netd(&format!(
        "network create --ipv6 --internal {named}alone {mode}4=isolated {mode}6=isolated alone"
    ));
    let isolated = |role: &str| {
        let ns = Namespace::new(role);
        let option = "--driver-opt netd.bridge.isolated=true";
        lab.host.netd(&format!("network connect {option} ports netns:{}", ns.name()));
        Container::of(ns)
    };
    for (network, [a, b]) in [
        ("apart", ["a", "b"].map(|role| lab.container_on("apart", role))),
        ("ports", ["c", "d"].map(isolated)),
    ] {
        let server = UdpEcho::new(&b.ns, Family::V6.any(5300));
        for to in [b.address(Family::V6), (*link_local(&b.ns, "eth0").ip()).into()] {
            let before = drops(&lab, "icc");
            let _client = ask_by_gateway(&lab, &a.ns, network, at(to, 5300));
            until("it is dropped", || drops(&lab, "icc") > before);
        }
        ask(&udp(&lab.host.ns, Family::V6, 0), at(b.address(Family::V6), 5300), b"the host's");
        let peers: Vec<_> = server.peers().iter().map(SocketAddr::ip).collect();
        assert_eq!(peers, [b.gateway(Family::V6)], "{network}");
    }
    let server = UdpEcho::new(&lab.host.ns, Family::V6.any(5300));
    for network in ["shut", "alone"] {
        let ns = Namespace::new("e");
        lab.host.netd(&format!("network connect {network} netns:{}", ns.name()));
        let before = drops(&lab, "internal");
        let _client = ask_by_gateway(&lab, &ns, network, at(Family::V6.host(), 5300));
        until("it is dropped", || drops(&lab, "internal") > before);
    }
    assert!(server.peers().is_empty(), "{:?}", server.peers());
    // Where the host has no part it has no address either.
    assert!(!lab.host.ns.ip("-6 address show dev alone").contains("inet6"));
}

/// A bridge takes what is sent to the MAC of any of its ports for the host's, past the programs.
#[test]
fn a_bridge_and_its_ports_have_one_mac() {
    let lab = Lab::new();
    lab.host.ns.ip("link add before type bridge");
    lab.host.netd("network create --subnet 172.31.0.0/24 --opt com.docker.network.bridge.name=before before");
    lab.host.netd("network create --subnet 172.32.0.0/24 --opt com.docker.network.bridge.name=after after");
    for bridge in ["before", "after"] {
        let first = lab.host.ns.link_address(bridge);
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
        assert_eq!(lab.host.ns.link_address(bridge), first);
        assert_eq!(own_macs(&lab.host.ns, bridge), [&*first], "{bridge}");
    }
}
