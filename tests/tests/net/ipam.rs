//! Subnets and addresses that the daemon gives out (docker.md 5.2).

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::thread;

use netd_tests::lab::{Container, Family, Lab, Namespace, Ping, ping};
use serde_json::{Value, json};

fn inspect(lab: &Lab, network: &str) -> Value {
    let (status, body) = lab.host.get(&format!("/networks/{network}")).expect("the daemon answers");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn subnet(lab: &Lab, network: &str) -> String {
    inspect(lab, network)["IPAM"]["Config"][0]["Subnet"].as_str().expect("a subnet").to_owned()
}

fn lab(configuration: &Value) -> Lab {
    let lab = Lab::wired();
    lab.host.configure(&configuration.to_string());
    lab.host.start(&[]);
    lab
}

/// Connects a namespace to a network, and returns the address that it got there.
fn address(lab: &Lab, network: &str, ns: &Namespace) -> String {
    lab.host.netd(&format!("network connect {network} netns:{}", ns.name()));
    let containers = inspect(lab, network)["Containers"].take();
    let of_ns = containers.as_object().expect("an object").values().find(|it| it["Name"] == ns.name());
    of_ns.expect("the endpoint")["IPv4Address"].as_str().expect("an address").to_owned()
}

fn disconnect(lab: &Lab, network: &str, ns: &Namespace) {
    lab.host.netd(&format!("network disconnect {network} netns:{}", ns.name()));
}

/// T26 and T27.
#[test]
fn pools_are_used_in_their_order_and_kept() {
    let pools = json!([{"base": "175.30.0.0/16", "size": 16}, {"base": "175.33.0.0/16", "size": 24}]);
    let lab = lab(&json!({"default-address-pools": pools}));
    assert_eq!(subnet(&lab, "bridge"), "175.30.0.0/16");
    for (name, wanted) in [("n0", "175.33.0.0/24"), ("n1", "175.33.1.0/24")] {
        lab.host.netd(&format!("network create {name}"));
        assert_eq!(subnet(&lab, name), wanted);
    }
    lab.host.netd("network rm n0");
    lab.host.netd("network create n2");
    assert_eq!(subnet(&lab, "n2"), "175.33.0.0/24", "a subnet that was freed is given again");

    lab.host.stop();
    lab.host.configure(r#"{"default-address-pools": [{"base": "175.33.0.0/16", "size": 24}]}"#);
    lab.host.start(&[]);
    let kept = [subnet(&lab, "bridge"), subnet(&lab, "n1"), subnet(&lab, "n2")];
    assert_eq!(kept, ["175.30.0.0/16", "175.33.1.0/24", "175.33.0.0/24"]);
    lab.host.netd("network create n3");
    assert_eq!(subnet(&lab, "n3"), "175.33.2.0/24");
}

/// T29.
#[test]
fn pools_and_subnets_come_to_an_end() {
    let lab = lab(&json!({"default-address-pools": [{"base": "10.1.0.0/23", "size": 24}]}));
    lab.host.netd("network create last");
    let answer = lab.host.call("POST", "/networks/create", Some(&json!({"Name": "beyond"})));
    assert_eq!(
        (answer.status, answer.message()),
        (400, "all predefined address pools have been fully subnetted".to_owned())
    );

    for (name, options, again) in [
        ("first", "", "10.2.0.3/29"),
        ("serial", "--ipam-opt com.docker.network.ipam.serial=true", "10.2.0.5/29"),
    ] {
        lab.host.netd(&format!("network create --subnet 10.2.0.0/29 --gateway 10.2.0.1 {options} {name}"));
        let ns: Vec<_> = (0..6).map(|_| Namespace::new(name)).collect();
        let given: Vec<_> = ns[..4].iter().map(|ns| address(&lab, name, ns)).collect();
        assert_eq!(given, ["10.2.0.2/29", "10.2.0.3/29", "10.2.0.4/29", "10.2.0.5/29"]);
        disconnect(&lab, name, &ns[1]);
        disconnect(&lab, name, &ns[3]);
        // Of the addresses that are free now the lowest is next, or the one after the last, also after a restart.
        lab.host.kill();
        lab.host.start(&[]);
        let fifth = address(&lab, name, &ns[4]);
        let after_last = if name == "serial" { "10.2.0.6/29" } else { again };
        assert_eq!(fifth, after_last, "{name}");
        let rest = [address(&lab, name, &ns[1]), address(&lab, name, &ns[3])];
        let all: BTreeSet<_> = rest.into_iter().chain([given[0].clone(), given[2].clone(), fifth]).collect();
        assert_eq!(all.len(), 5, "{all:?}");
        let id = inspect(&lab, name)["Id"].as_str().expect("an id").to_owned();
        let body = json!({"Container": format!("netns:{}", ns[5].name())});
        let answer = lab.host.call("POST", &format!("/networks/{name}/connect"), Some(&body));
        let text = format!("no available IPv4 addresses on this network's address pools: {name} ({id})");
        assert_eq!((answer.status, answer.message()), (500, text));
        for ns in &ns[..5] {
            disconnect(&lab, name, ns);
        }
        lab.host.netd(&format!("network rm {name}"));
    }
}

/// T30.
#[test]
fn a_range_is_used_to_its_edges() {
    let lab = lab(&json!({}));
    lab.host.netd("network create --subnet 172.28.0.0/16 --ip-range 172.28.30.252/30 n");
    let ns: Vec<_> = (0..5).map(|_| Namespace::new("range")).collect();
    let given: Vec<_> = ns[..4].iter().map(|ns| address(&lab, "n", ns)).collect();
    assert_eq!(given, ["172.28.30.252/16", "172.28.30.253/16", "172.28.30.254/16", "172.28.30.255/16"]);
    let said = lab.host.netd_fails(&format!("network connect n netns:{}", ns[4].name()));
    assert!(said.contains("no available IPv4 addresses"), "{said}");
    // An address from outside the range can be asked for.
    lab.host.netd(&format!("network connect --ip 172.28.99.88 n netns:{}", ns[4].name()));
    assert_eq!(Container::of(ns.into_iter().nth(4).expect("the fifth")).ipv4.to_string(), "172.28.99.88");
}

/// T34.
#[test]
fn auxiliary_addresses_are_nobodys() {
    let lab = lab(&json!({}));
    lab.host.netd(
        "network create --subnet 10.5.0.0/16 --gateway 10.5.0.1 --aux-address a=10.5.0.2 \
         --aux-address DefaultGatewayIPv4=10.5.0.3 n",
    );
    let a = lab.container_on("n", "a");
    assert_eq!(a.ipv4.to_string(), "10.5.0.4");
    assert_eq!(a.gateway(Family::V4).to_string(), "10.5.0.3", "the way out is not the bridge");
    let bridge = lab.host.ns.ip("-oneline -4 address show");
    assert!(bridge.contains("10.5.0.1/16") && !bridge.contains("10.5.0.3"), "{bridge}");
    let config =
        json!({"Subnet": "10.6.0.0/16", "Gateway": "10.6.0.9", "AuxiliaryAddresses": {"a": "10.6.0.9"}});
    let answer =
        lab.host.call("POST", "/networks/create", Some(&json!({"Name": "m", "IPAM": {"Config": [config]}})));
    let text = "failed to allocate secondary ip address (a:10.6.0.9): Address already in use";
    assert_eq!((answer.status, answer.message()), (500, text.to_owned()));
}

/// T35.
#[test]
fn ipv6_subnets_come_out_of_one_local_prefix() {
    let lab = lab(&json!({}));
    let mut prefixes = BTreeSet::new();
    for name in ["n0", "n1", "n2"] {
        lab.host.netd(&format!("network create --ipv6 {name}"));
        let config = inspect(&lab, name)["IPAM"]["Config"].take();
        let subnet = config[1]["Subnet"].as_str().expect("an IPv6 subnet");
        let address = subnet.strip_suffix("/64").expect("a /64");
        let octets = address.parse::<Ipv6Addr>().expect("an address").octets();
        assert_eq!(octets[0], 0xfd, "{subnet}");
        prefixes.insert(octets[..6].to_vec());
    }
    assert_eq!(prefixes.len(), 1, "one /48 for the host");
}

#[test]
fn networks_that_are_made_at_once_do_not_overlap() {
    let lab = lab(&json!({"default-address-pools": [{"base": "10.128.0.0/9", "size": 24}]}));
    let create = |number: usize| {
        let answer = lab.host.call("POST", "/networks/create", Some(&json!({"Name": format!("n{number}")})));
        assert_eq!(answer.status, 201, "{}", answer.message());
    };
    thread::scope(|scope| {
        for first in 0..10 {
            scope.spawn(move || (first * 10..first * 10 + 10).for_each(create));
        }
    });
    let subnets: BTreeSet<_> = (0..100).map(|number| subnet(&lab, &format!("n{number}"))).collect();
    assert_eq!(subnets.len(), 100);
}

#[test]
fn a_network_without_address_management() {
    let lab = lab(&json!({}));
    let null = json!({"Name": "n", "IPAM": {"Driver": "null"}});
    assert_eq!(lab.host.call("POST", "/networks/create", Some(&null)).status, 201);
    assert_eq!(inspect(&lab, "n")["IPAM"]["Driver"], "null");
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    for (ns, address) in [(&a, "192.0.2.1/24"), (&b, "192.0.2.2/24")] {
        lab.host.netd(&format!("network connect n netns:{}", ns.name()));
        assert!(!ns.ip("-oneline address show dev eth0").contains("inet "), "nobody gave it an address");
        ns.ip(&format!("address add {address} dev eth0"));
    }
    assert!(ping(&a, "192.0.2.2".parse().expect("an address"), Ping::default()));
    let config = json!({"Driver": "null", "Config": [{"Subnet": "10.7.0.0/16"}]});
    let answer = lab.host.call("POST", "/networks/create", Some(&json!({"Name": "m", "IPAM": config})));
    let text = "null ipam driver does not handle specific address pool requests";
    assert_eq!((answer.status, answer.message()), (400, text.to_owned()));
}
