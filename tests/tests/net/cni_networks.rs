//! The networks that CNI configurations speak of, their routes, and the interfaces on them.

use netd_tests::lab::{Call, Cni, Family, Namespace, Ping, ping};
use serde_json::{Value, json};

use crate::cni::{address, code, dual, endpoints, lab, message};

#[test]
fn a_network_is_made_as_the_configuration_says_and_matched_thereafter() {
    let lab = lab();
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "bridge": "cni7",
        "mtu": 1300,
        "ipam": {"subnet": "10.42.0.0/24", "gateway": "10.42.0.254", "routes": [{"dst": "192.0.2.0/24"}, {"dst": "198.18.0.0/15", "gw": "10.42.0.9", "priority": 50}]},
    });
    let cni = Cni::new(&lab.host, config);
    let a = cni.container("a");
    let bridge = lab.host.ns.ip("address show cni7");
    assert!(bridge.contains("mtu 1300") && bridge.contains("10.42.0.254/24"), "{bridge}");
    let routes = a.ns.ip("route show");
    assert!(routes.contains("192.0.2.0/24 via 10.42.0.254") && !routes.contains("default"), "{routes}");
    assert!(
        routes.contains("198.18.0.0/15 via 10.42.0.9 dev eth0") && routes.contains("metric 50"),
        "{routes}"
    );

    let b = Namespace::new("b");
    for (keys, named) in [
        (json!({"mtu": 1400}), "com.docker.network.driver.mtu"),
        (json!({"bridge": "cni8"}), "com.docker.network.bridge.name"),
        (json!({"ipMasq": true}), "enable_ip_masquerade"),
        (json!({"ipam": {"subnet": "10.43.0.0/24"}}), "10.43.0.0/24"),
        (json!({"ipam": {"subnet": "10.42.0.0/24", "gateway": "10.42.0.1"}}), "10.42.0.254"),
        (
            json!({"ipam": {"subnet": "10.42.0.0/24", "gateway": "10.42.0.254", "rangeStart": "10.42.0.9"}}),
            "range",
        ),
        (json!({"ipam": {"type": "host-local", "subnet": "10.42.0.0/24"}}), "IPAM"),
    ] {
        let refused = message(cni.with(keys).try_add("b", &b));
        assert!(refused.contains("network pods is there already") && refused.contains(named), "{refused}");
    }
    // A network of Docker's API is joined by its name.
    lab.host.netd("network create --subnet 10.44.0.0/24 made");
    let made = Cni::new(&lab.host, json!({"cniVersion": "1.0.0", "name": "made", "ipMasq": true}));
    assert_eq!(made.container("c").ipv4.to_string(), "10.44.0.2");
    // So is the default one, whose settings are the daemon's.
    let default = |keys: Value| {
        Cni::new(&lab.host, json!({"cniVersion": "1.0.0", "name": "bridge", "ipMasq": true})).with(keys)
    };
    assert_eq!(default(json!({"mtu": 1500})).container("d").ipv4.to_string(), "172.17.0.2");
    let refused = message(default(json!({"mtu": 1400})).try_add("b", &b));
    assert!(refused.contains("its option com.docker.network.driver.mtu is 1500, not 1400"), "{refused}");
}

#[test]
fn default_routes_are_those_that_are_listed() {
    let lab = lab();
    let cni = |routes: Value| {
        let cni = Cni::new(&lab.host, dual("1.1.0"));
        let mut ipam = cni.config["ipam"].clone();
        ipam["routes"] = routes;
        cni.with(json!({ "ipam": ipam }))
    };
    let ns = Namespace::new("a");
    for (routes, ipv4, ipv6) in [
        (json!([{"dst": "0.0.0.0/0"}]), "via 10.41.0.1 ", ""),
        (json!([{"dst": "::/0"}]), "", "via fd00:41::1 "),
        (
            json!([{"dst": "0.0.0.0/0", "priority": 50}, {"dst": "::/0", "gw": "fd00:41::1"}]),
            "metric 50 ",
            "via fd00:41::1 ",
        ),
        (json!([]), "", ""),
    ] {
        let cni = cni(routes.clone());
        let result = cni.add("c1", &ns);
        assert_eq!(
            result["routes"].as_array().map_or(0, Vec::len),
            routes.as_array().map_or(0, Vec::len),
            "{result}"
        );
        for (family, wanted) in [("-4", ipv4), ("-6", ipv6)] {
            let is = ns.ip(&format!("{family} route show default"));
            assert!(is.contains(wanted) && is.is_empty() == wanted.is_empty(), "{routes}: {is}");
        }
        assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null), "{routes}");
        cni.del("c1", Some(&ns));
    }
    let refused = cni(json!([{"dst": "0.0.0.0/0", "mtu": 1300}])).try_add("c1", &ns);
    assert_eq!(code(refused), 2, "what netd does not know of a route it does not pass over");
}

#[test]
fn a_namespace_may_have_several_interfaces_of_one_network() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let a = cni.container("a");
    let path = a.ns.path();
    let second =
        Call { container: a.ns.name(), netns: path.to_str().expect("UTF-8"), interface: "net1", args: "" };
    let result = cni.call("ADD", second).expect("ADD net1");
    assert_eq!(
        (address(&result, 0), &result["interfaces"][2]["name"]),
        ("10.41.0.3/24".into(), &json!("net1"))
    );
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    assert!(a.ns.ip("route show default").contains("eth0"), "the first one keeps the default route");
    assert_eq!(cni.call("DEL", second), Ok(Value::Null));
    assert_eq!(endpoints(&lab, "pods"), [format!("{}:eth0", a.ns.name())]);
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
}
