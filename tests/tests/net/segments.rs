//! A network of more endpoints than a kernel bridge has ports.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_tests::lab::{Capture, Container, Family, Lab, Namespace, Ping, UdpEcho, ask, at, ping, udp};
use serde_json::Value;

const BRIEF: Ping = Ping { patience: Duration::from_millis(400), id: 7, size: 56 };

/// A container on the network, with options of its port.
fn container(lab: &Lab, role: &str, options: &str) -> Container {
    let ns = Namespace::new(role);
    lab.host.netd(&format!("network connect {options} crowd netns:{}", ns.name()));
    Container::of(ns)
}

const ISOLATED: &str = "--driver-opt netd.bridge.isolated=true";
/// The programs only judge what such a port sends and is sent: the kernel's bridges carry it.
const UNGUARDED: &str = "--driver-opt netd.bridge.mac_spoof_check=false";

fn reaches(from: &Container, to: &Container) {
    for family in Family::BOTH {
        let (a, b) = (from.ns.name(), to.ns.name());
        assert!(ping(&from.ns, to.address(family), Ping::default()), "{a} to {b}, {family:?}");
    }
}

fn cut_off(from: &Container, to: &Container) {
    for family in Family::BOTH {
        let (a, b) = (from.ns.name(), to.ns.name());
        assert!(!ping(&from.ns, to.address(family), BRIEF), "{a} to {b}, {family:?}");
    }
}

/// The host's links, by name, and the bridge that each is a port of.
fn links(lab: &Lab) -> Vec<(String, Option<String>)> {
    let text = |link: &Value, key: &str| link[key].as_str().map(str::to_owned);
    let links: Vec<Value> = serde_json::from_str(&lab.host.ns.ip("-json link show")).expect("ip -json");
    links.iter().map(|link| (text(link, "ifname").expect("a name"), text(link, "master"))).collect()
}

/// The segments' bridges, and how many ports each has.
fn segments(lab: &Lab) -> Vec<(String, usize)> {
    let all = links(lab);
    let own: Vec<_> = all.iter().filter(|(_, master)| master.as_deref() == Some("br9")).collect();
    let trunks = own.iter().filter_map(|(name, _)| name.strip_prefix("dn-"));
    let bridges = trunks.map(|trunk| format!("br-{trunk}"));
    let ports = |bridge: &String| all.iter().filter(|(_, master)| master.as_ref() == Some(bridge)).count();
    let mut segments: Vec<_> = bridges.map(|bridge| (bridge.clone(), ports(&bridge))).collect();
    segments.sort();
    segments
}

#[test]
fn endpoints_beyond_a_bridges_ports_are_on_segments() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    lab.host.netd(
        "network create --ipv6 --subnet 10.40.0.0/20 --subnet fd00:40::/64 \
         --opt com.docker.network.bridge.name=br9 --opt netd.bridge.ports=2 crowd",
    );
    let first = container(&lab, "first", "");
    let lonely = container(&lab, "lonely", ISOLATED);
    assert_eq!(segments(&lab), []);

    let (near, other) = (container(&lab, "near", ""), container(&lab, "other", ""));
    let (alone, apart) = (container(&lab, "alone", ISOLATED), container(&lab, "apart", ISOLATED));
    let slow = container(&lab, "slow", UNGUARDED);
    let sizes: Vec<_> = segments(&lab).into_iter().map(|(_, ports)| ports).collect();
    assert_eq!(sizes, [3, 4], "two isolated ports, three others, and a trunk each");
    for (a, b) in [(&first, &near), (&near, &other), (&first, &slow), (&slow, &near)] {
        reaches(a, b);
        reaches(b, a);
    }
    for isolated in [&lonely, &alone, &apart] {
        for heard in [&first, &near, &slow] {
            reaches(isolated, heard);
            reaches(heard, isolated);
        }
    }
    for (a, b) in [(&lonely, &alone), (&lonely, &apart), (&alone, &apart)] {
        cut_off(a, b);
        cut_off(b, a);
    }

    // The host is in the network once: one address, and each broadcast is heard once.
    let mac = lab.host.ns.ip("-json link show dev br9");
    let mac: Vec<Value> = serde_json::from_str(&mac).expect("ip -json");
    for container in [&near, &alone, &slow] {
        for family in Family::BOTH {
            assert!(ping(&lab.host.ns, container.address(family), Ping::default()));
            assert!(ping(&container.ns, container.gateway(family), Ping::default()));
            assert!(ping(&container.ns, family.outside(), Ping::default()));
        }
        let neighbours = container.ns.ip(&format!("neigh show {}", container.gateway(Family::V4)));
        assert!(neighbours.contains(mac[0]["address"].as_str().expect("an address")), "{neighbours}");
    }
    let server = udp(&lab.host.ns, Family::V4, 5300);
    let mut captures = [&first, &other, &alone].map(|container| Capture::new(&container.ns, "eth0"));
    let client = udp(&near.ns, Family::V4, 0);
    client.set_broadcast(true).expect("a socket's option");
    let everybody = at(Ipv4Addr::new(10, 40, 15, 255), 5300);
    client.send_to(b"everybody", everybody).expect("sending");
    client.send_to(b"some", "239.1.2.3:5300").expect("sending");
    client.send_to(b"host", at(near.gateway(Family::V4), 5300)).expect("sending");
    for said in ["everybody", "host"] {
        let mut heard = [0; 64];
        let (length, from) = server.recv_from(&mut heard).expect("a datagram");
        assert_eq!((&heard[..length], from.ip()), (said.as_bytes(), near.address(Family::V4)));
    }
    for capture in &mut captures {
        capture.expect("the broadcast", |p| p.source == near.ipv4 && p.destination == everybody.ip());
        let group = Ipv4Addr::new(239, 1, 2, 3);
        capture.expect("the multicast", |p| p.source == near.ipv4 && p.destination == group);
    }

    // What was damaged is mended, and what was not is left alone.
    let before = segments(&lab);
    lab.host.kill();
    let (bridge, trunk) = (&before[0].0, before[1].0.replacen("br-", "dn-", 1));
    lab.host.ns.ip(&format!("link delete {bridge}"));
    lab.host.ns.ip(&format!("link delete {trunk}"));
    lab.host.start(&[]);
    assert_eq!(segments(&lab), before);
    reaches(&alone, &other);
    reaches(&slow, &first);
    cut_off(&alone, &lonely);
    let echo = UdpEcho::new(&lab.outside, Family::V4.any(5300));
    ask(&udp(&other.ns, Family::V4, 5000), at(Family::V4.outside(), 5300), b"out");
    drop(echo);

    // A segment goes with the last of its endpoints.
    for gone in [&near, &other, &slow] {
        lab.host.netd(&format!("network disconnect crowd netns:{}", gone.ns.name()));
    }
    assert_eq!(segments(&lab), before[..1]);
    reaches(&alone, &first);
    lab.host.stop();
    lab.host.cleanup();
    let mut left: Vec<_> = links(&lab).into_iter().map(|(name, _)| name).collect();
    left.sort();
    assert_eq!(left, ["lo", "up0"]);
}
