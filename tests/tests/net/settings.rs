//! Settings of the Linux bridge and of its ports, with the fast path and without it.

use std::time::Duration;

use netd_tests::lab::{Container, Family, Lab, Namespace, Ping, ping, until};
use serde_json::Value;

/// What `ip -d link` says of a link: the bridge's own data, or what it is as a port of one.
pub(crate) fn details(ns: &Namespace, link: &str, of: &str) -> Value {
    let json = ns.ip(&format!("-json -details link show dev {link}"));
    let mut links: Vec<Value> = serde_json::from_str(&json).expect("ip -json");
    links[0]["linkinfo"][of].take()
}

/// A container on a network, with options of its port.
pub(crate) fn container(lab: &Lab, network: &str, role: &str, options: &[&str]) -> Container {
    let ns = Namespace::new(role);
    let options: String =
        options.iter().map(|option| format!("--driver-opt netd.bridge.{option} ")).collect();
    lab.host.netd(&format!("network connect {options} {network} netns:{}", ns.name()));
    Container::of(ns)
}

/// The host's end of a container's veth.
pub(crate) fn port(lab: &Lab, container: &Container) -> String {
    let json = container.ns.ip("-json link show dev eth0");
    let links: Vec<Value> = serde_json::from_str(&json).expect("ip -json");
    let index = links[0]["link_index"].as_u64().expect("a veth's other end");
    let json = lab.host.ns.ip("-json link show");
    let links: Vec<Value> = serde_json::from_str(&json).expect("ip -json");
    let host_end = links.iter().find(|link| link["ifindex"].as_u64() == Some(index)).expect("the host's end");
    host_end["ifname"].as_str().expect("a name").to_owned()
}

/// Frames that the programs took past the bridge.
pub(crate) fn bridged(lab: &Lab) -> u64 {
    lab.host.netd_json("stats")["paths"]["bridged"].as_u64().expect("a counter")
}

pub(crate) const BRIEF: Ping = Ping { patience: Duration::from_millis(400), id: 7, size: 56 };

pub(crate) fn reaches(from: &Container, to: &Container) -> bool {
    Family::BOTH.into_iter().all(|family| ping(&from.ns, to.address(family), Ping::default()))
}

pub(crate) fn cut_off(from: &Container, to: &Container) -> bool {
    Family::BOTH.into_iter().all(|family| !ping(&from.ns, to.address(family), BRIEF))
}

/// A lab with a network of both families, with options in netd's namespace.
fn lab(options: &[&str]) -> Lab {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let options: String = options.iter().map(|option| format!("--opt netd.bridge.{option} ")).collect();
    lab.host.netd(&format!(
        "network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 \
         --opt com.docker.network.bridge.name=br9 {options} n"
    ));
    lab
}

#[test]
fn a_bridge_is_set_as_asked_and_stays_so() {
    let options = [
        "stp=true",
        "forward_delay=400",
        "priority=4096",
        "ageing_time=12000",
        "mcast_snooping=false",
        "mcast_querier=true",
        "mcast_igmp_version=3",
        "mcast_mld_version=2",
    ];
    let lab = lab(&options);
    let is_set = || {
        let seen = details(&lab.host.ns, "br9", "info_data");
        for option in options {
            let (name, value) = option.split_once('=').expect("a value");
            let name = if name == "stp" { "stp_state" } else { name };
            let value = match value {
                "true" => 1,
                "false" => 0,
                number => number.parse::<u64>().expect("a number"),
            };
            assert_eq!(seen[name], value, "{name}: {seen}");
        }
    };
    is_set();
    let inspected: Value = serde_json::from_str(&lab.host.netd("network inspect n")).expect("JSON");
    assert_eq!(inspected[0]["Options"]["netd.bridge.forward_delay"], "400");
    // What others change while the daemon is away is put right.
    lab.host.stop();
    lab.host.ns.ip("link set br9 type bridge stp_state 0 forward_delay 300 priority 7 mcast_snooping 1");
    lab.host.start(&[]);
    is_set();
    // A network that asks for nothing has what the kernel gives.
    let default = details(&lab.host.ns, "netd0", "info_data");
    assert_eq!((&default["stp_state"], &default["forward_delay"]), (&0.into(), &1500.into()));
}

#[test]
fn bad_settings_are_told_and_leave_nothing() {
    let lab = Lab::new();
    let before = (lab.host.ns.configuration(), lab.host.netd("network ls"));
    for (option, says) in [
        ("stp=on", "failed to parse netd.bridge.stp value: on"),
        ("forward_delay=15", "hundredths of a second must lie from 200 to 3000"),
        ("priority=65536", "a priority must lie from 0 to 65535"),
        ("mcast_igmp_version=1", "a version of IGMP must lie from 2 to 3"),
        ("stpp=true", "unknown option netd.bridge.stpp"),
        ("isolated=true", "give it to `network connect`"),
    ] {
        let said = lab.host.netd_fails(&format!("network create --opt netd.bridge.{option} bad"));
        assert!(said.contains(says), "{option}: {said}");
    }
    let ns = Namespace::new("bad");
    for (option, says) in [
        ("vlan=4095", "failed to parse netd.bridge.vlan value: 4095"),
        ("vlan=7", "needs a network that was made with netd.bridge.vlan_filtering=true"),
        ("hairpin=perhaps", "failed to parse netd.bridge.hairpin value: perhaps"),
        ("stp=true", "give it to `network create`"),
    ] {
        let connect = format!("network connect --driver-opt netd.bridge.{option} dual netns:{}", ns.name());
        let said = lab.host.netd_fails(&connect);
        assert!(said.contains(says), "{option}: {said}");
    }
    assert_eq!((lab.host.ns.configuration(), lab.host.netd("network ls")), before);
}

#[test]
fn without_the_fast_path_the_kernel_forwards_everything() {
    let lab = lab(&["fast_path=false"]);
    let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
    assert!(reaches(&a, &b) && reaches(&b, &a));
    assert_eq!(bridged(&lab), 0);
    for family in Family::BOTH {
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()), "masqueraded on its way out of the stack");
    }
    let paths = &lab.host.netd_json("stats")["paths"];
    assert_eq!((&paths["masqueraded"], paths["stack_masqueraded"].as_u64() > Some(0)), (&0.into(), true));
    // Who may not be reached is not, whoever forwards.
    let elsewhere = lab.container_on("bridge", "elsewhere");
    assert!(!ping(&a.ns, elsewhere.ipv4.into(), BRIEF) && !ping(&elsewhere.ns, a.ipv4.into(), BRIEF));
}

#[test]
fn isolated_ports_do_not_hear_each_other() {
    for fast_path in [true, false] {
        let lab = lab(&[&format!("fast_path={fast_path}")]);
        let a = container(&lab, "n", "a", &["isolated=true"]);
        let b = container(&lab, "n", "b", &["isolated=true", "hairpin=true"]);
        let c = container(&lab, "n", "c", &[]);
        assert!(cut_off(&a, &b) && cut_off(&b, &a), "fast path {fast_path}");
        assert!(reaches(&a, &c) && reaches(&c, &b), "fast path {fast_path}");
        assert_eq!(bridged(&lab) > 0, fast_path);
        for family in Family::BOTH {
            assert!(ping(&a.ns, family.outside(), Ping::default()));
        }
        let as_port = |container| {
            let data = details(&lab.host.ns, &port(&lab, container), "info_slave_data");
            (data["isolated"].as_bool().expect("a flag"), data["hairpin"].as_bool().expect("a flag"))
        };
        let flags = || [as_port(&a), as_port(&b), as_port(&c)];
        assert_eq!(flags(), [(true, false), (true, true), (false, false)]);
        // What others change while the daemon is away is put right.
        lab.host.stop();
        let name = port(&lab, &a);
        lab.host.ns.ip(&format!("link set {name} type bridge_slave isolated off hairpin on"));
        lab.host.start(&[]);
        assert_eq!(flags(), [(true, false), (true, true), (false, false)]);
    }
}

#[test]
fn a_port_that_the_spanning_tree_holds_back_is_silent() {
    for fast_path in [true, false] {
        let lab = lab(&["stp=true", "forward_delay=400", &format!("fast_path={fast_path}")]);
        let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
        let state =
            |container| details(&lab.host.ns, &port(&lab, container), "info_slave_data")["state"].take();
        let brief = Ping { patience: Duration::from_millis(100), ..BRIEF };
        let mut held_back = 0;
        until("both ports forward", || {
            let arrives = ping(&a.ns, b.ipv4.into(), brief) || ping(&a.ns, Family::V4.outside(), brief);
            // Asked for afterwards: a port that does not forward now did not forward then.
            let forwards = state(&a) == "forwarding" && state(&b) == "forwarding";
            assert!(forwards || !arrives, "a port that is held back has spoken");
            held_back += u32::from(!forwards);
            forwards
        });
        assert!(held_back > 0, "the ports were never held back");
        // Whoever has asked for a neighbour in vain up to now gives up, and drops what has come to wait for the answer meanwhile.
        a.ns.ip("neighbour flush dev eth0");
        assert!(reaches(&a, &b) && reaches(&b, &a));
        assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
        assert_eq!(bridged(&lab), 0, "such ports are the bridge's alone");
    }
}

#[test]
fn an_unguarded_port_may_have_stations_behind_it() {
    for unguarded in [false, true] {
        let lab = lab(&[]);
        let a = container(&lab, "n", "a", &[&format!("mac_spoof_check={}", !unguarded)]);
        let b = lab.container_on("n", "b");
        assert!(reaches(&a, &b));
        // A second station behind the same port, with an address of its own.
        let nested = Namespace::new("nested");
        a.ns.ip("link add link eth0 name sub0 type macvlan mode bridge");
        a.ns.ip(&format!("link set sub0 netns {} name eth0", nested.name()));
        nested.ip("address add 172.30.0.200/24 dev eth0");
        nested.ip("link set eth0 up");
        nested.ip("route add default via 172.30.0.1");
        assert_eq!(ping(&nested, b.ipv4.into(), BRIEF), unguarded);
        assert_eq!(ping(&nested, a.gateway(Family::V4), BRIEF), unguarded);
        assert_eq!(ping(&nested, Family::V4.outside(), BRIEF), unguarded);
        assert!(reaches(&a, &b), "the endpoint itself is heard as before");
    }
}

#[test]
fn a_hairpin_port_sends_back_what_came_by_it() {
    for fast_path in [true, false] {
        for hairpin in [false, true] {
            let lab = lab(&[&format!("fast_path={fast_path}")]);
            let options = ["mac_spoof_check=false", &format!("hairpin={hairpin}")];
            let a = container(&lab, "n", "a", &options);
            // Two stations that leave it to the bridge to bring them together, as guests of a VEPA do.
            let stations = ["172.30.0.200", "172.30.0.201"].map(|address| {
                let station = Namespace::new("station");
                a.ns.ip("link add link eth0 name sub0 type macvlan mode vepa");
                a.ns.ip(&format!("link set sub0 netns {} name eth0", station.name()));
                station.ip(&format!("address add {address}/24 dev eth0"));
                station.ip("link set eth0 up");
                station
            });
            for station in &stations {
                assert!(ping(station, a.gateway(Family::V4), Ping::default()), "it is heard at all");
            }
            let meet = ping(&stations[0], "172.30.0.201".parse().expect("an address"), BRIEF);
            assert_eq!(meet, hairpin, "fast path {fast_path}");
        }
    }
}
