//! netd as a CNI plugin, called as container runtimes call it. The names of tests carry the numbers of the cases they
//! replay.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use netd_tests::lab::{
    Call, Cni, Container, Family, Lab, Namespace, Ping, TcpEcho, UdpEcho, ask, at, connect, ping, udp, until,
};
use serde_json::{Value, json};

/// A host with netd and nothing on it.
pub(crate) fn lab() -> Lab {
    let lab = Lab::wired();
    lab.host.start(&[]);
    lab
}

pub(crate) fn code(result: Result<Value, Value>) -> u64 {
    let error = result.expect_err("it should have failed");
    assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    error["code"].as_u64().unwrap_or_else(|| panic!("no code: {error}"))
}

fn message(result: Result<Value, Value>) -> String {
    let error = result.expect_err("it should have failed");
    error["msg"].as_str().unwrap_or_else(|| panic!("no message: {error}")).to_owned()
}

/// The address that a result (of 1.0.0 or later) has in one place.
pub(crate) fn address(result: &Value, index: usize) -> String {
    result["ips"][index]["address"].as_str().unwrap_or_else(|| panic!("no address: {result}")).to_owned()
}

/// The names of a network's endpoints.
pub(crate) fn endpoints(lab: &Lab, network: &str) -> Vec<String> {
    let inspected = lab.host.netd(&format!("network inspect {network}"));
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    let containers = inspected[0]["Containers"].as_object().expect("endpoints");
    containers.values().map(|endpoint| endpoint["Name"].as_str().expect("a name").to_owned()).collect()
}

fn dual(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": "pods",
        "ipMasq": true,
        "mtu": 1400,
        "ipam": {"ranges": [[{"subnet": "10.41.0.0/24"}], [{"subnet": "fd00:41::/64"}]]},
    })
}

#[test]
fn t74_every_version_gets_its_shape_and_real_traffic() {
    let lab = lab();
    for (number, version) in
        ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].iter().enumerate()
    {
        let cni = Cni::new(&lab.host, dual(version));
        let ns = Namespace::new(&format!("v{number}"));
        let result = cni.add("c1", &ns);
        assert_eq!(result["cniVersion"], *version, "{result}");
        let container = Container::of(ns);
        let (ipv4, ipv6) =
            (container.ipv4.to_string() + "/24", format!("{}/64", container.address(Family::V6)));
        if number < 2 {
            assert_eq!((&result["ip4"]["ip"], &result["ip6"]["ip"]), (&json!(ipv4), &json!(ipv6)));
            assert_eq!(result["ip4"]["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.41.0.1"}]));
            assert!(result.get("interfaces").is_none() && result.get("ips").is_none(), "{result}");
        } else {
            let interfaces = result["interfaces"].as_array().expect("interfaces");
            let own = &interfaces[2];
            assert_eq!((interfaces.len(), &own["name"]), (3, &json!("eth0")));
            assert_eq!(own["sandbox"], container.ns.path().to_str().expect("UTF-8"));
            assert!(interfaces[..2].iter().all(|link| link.get("sandbox").is_none()), "{result}");
            assert!(interfaces.iter().all(|link| link["mac"].as_str().is_some()), "{result}");
            let mut ip = json!({"address": ipv4, "gateway": "10.41.0.1", "interface": 2});
            if number < 5 {
                ip["version"] = "4".into();
            }
            assert_eq!(result["ips"][0], ip);
            assert_eq!(
                (&result["ips"][1]["address"], &result["ips"][1]["gateway"]),
                (&json!(ipv6), &json!("fd00:41::1"))
            );
            let mtu = if *version == "1.1.0" { json!(1400) } else { Value::Null };
            assert_eq!(own["mtu"], mtu);
            assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.41.0.1"}));
        }
        for family in Family::BOTH {
            assert!(ping(&container.ns, family.outside(), Ping::default()), "{version} {family:?}");
        }
        if number >= 4 {
            assert_eq!(cni.check("c1", &container.ns, &result), Ok(Value::Null), "{version}");
        } else {
            assert_eq!(code(cni.check("c1", &container.ns, &result)), 1, "{version} has no CHECK");
        }
        cni.del("c1", Some(&container.ns));
        cni.del("c1", Some(&container.ns));
        assert!(!container.ns.ip("-oneline link show").contains("eth0"));
    }
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
}

#[test]
fn t74_faults_have_their_codes() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.1.0"));
    let ns = Namespace::new("a");
    let path = ns.path();
    let call = Call { container: "c1", netns: path.to_str().expect("UTF-8"), interface: "eth0", args: "" };

    let version = cni.call("VERSION", Call::default()).expect("VERSION");
    let all = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!((&version["cniVersion"], &version["supportedVersions"]), (&json!("1.1.0"), &all));
    let version = cni.with(json!({"cniVersion": "1.0.0"})).call("VERSION", Call::default()).expect("VERSION");
    assert_eq!((&version["cniVersion"], &version["supportedVersions"]), (&json!("1.0.0"), &all));
    assert_eq!(cni.call("STATUS", Call::default()), Ok(Value::Null));

    assert_eq!(code(cni.with(json!({"cniVersion": "0.9.9"})).call("ADD", call)), 1);
    let missing = message(cni.call("ADD", Call { interface: "eth0", ..Call::default() }));
    assert_eq!(missing, "required env variables [CNI_CONTAINERID,CNI_NETNS] missing");
    assert_eq!(code(cni.call("ADD", Call { interface: "sixteencharacter", ..call })), 4);
    assert_eq!(code(cni.call("ADD", Call { container: "a/b", ..call })), 4);
    assert_eq!(code(cni.call("ADD", Call { args: "a=b", ..call })), 4);
    assert_eq!(code(cni.call("NOP", call)), 4);
    assert_eq!(code(cni.call_with("ADD", call, b"{")), 6);
    assert_eq!(code(cni.with(json!({"name": "a b"})).call("ADD", call)), 7);
    assert_eq!(code(cni.with(json!({"mtu": "big"})).call("ADD", call)), 7);
    assert_eq!(code(cni.call("ADD", Call { netns: "/run/netns/no-such", ..call })), 3);
    let own = lab.host.ns.path();
    assert_eq!(code(cni.call("ADD", Call { netns: own.to_str().expect("UTF-8"), ..call })), 8);
    assert_eq!(code(cni.call("CHECK", call)), 7, "prevResult is missing");
    assert_eq!(code(cni.call("GC", call)), 7, "nobody was said to be valid");
    for (key, value) in [("vlanTrunk", json!([{"id": 1}])), ("promiscMode", json!(true))] {
        assert_eq!(code(cni.with(json!({key: value})).call("ADD", call)), 2, "{key}");
    }
    assert!(!lab.host.netd("network ls").contains("pods"), "what failed left no network");

    cni.with(json!({"some": {"key": "unknown"}})).call("ADD", call).expect("unknown keys are fine");
    let again = message(cni.call("ADD", call));
    assert!(again.ends_with("has been allocated to c1, duplicate allocation is not allowed"), "{again}");
    assert_eq!(code(cni.with(json!({"prevResult": {"interfaces": []}})).call("ADD", call)), 7);
}

#[test]
fn a_daemon_that_is_down_is_told_at_once() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.1.0"));
    let (a, b, c) = (cni.container("a"), cni.container("b"), Namespace::new("c"));
    let gone = b.ns.name().to_owned();
    lab.host.kill();
    assert_eq!(code(cni.call("STATUS", Call::default())), 50);
    assert_eq!(code(cni.try_add("c", &c)), 11);
    assert_eq!(code(cni.try_del(a.ns.name(), Some(&a.ns))), 11);
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()), "its traffic goes on");
    drop(b);
    cni.del(&gone, None);
    lab.host.start(&[]);
    assert_eq!(endpoints(&lab, "pods"), [format!("{}:eth0", a.ns.name())]);
    assert_eq!(cni.call("STATUS", Call::default()), Ok(Value::Null));
    // What another daemon made is found by its key.
    cni.del(a.ns.name(), Some(&a.ns));
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
}

#[test]
fn what_is_gone_is_deleted_all_the_same() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    cni.del("never", None);
    let a = cni.container("a");
    let (name, path) = (a.ns.name().to_owned(), a.ns.path());
    drop(a);
    let netns = path.to_str().expect("UTF-8");
    let call = Call { container: &name, netns, interface: "eth0", args: "" };
    assert_eq!(cni.call("DEL", call), Ok(Value::Null));
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
    assert_eq!(
        Cni::new(&lab.host, json!({"cniVersion": "1.0.0", "name": "none-such"})).call("DEL", call),
        Ok(Value::Null)
    );
    let b = cni.container("b");
    b.ns.ip("link delete eth0");
    cni.del(b.ns.name(), Some(&b.ns));
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
}

#[test]
fn check_tells_what_was_changed() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.1.0"));
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null));
    // What others have is none of its business.
    let b = cni.container("b");
    lab.host.netd(&format!("publish netns:{} 8080:80", b.ns.name()));
    lab.host.netd(&format!("nat add 203.0.113.9 netns:{}", b.ns.name()));
    assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null));
    let told = message(cni.check("c1", &b.ns, &result));
    assert!(
        told.starts_with("eth0: it is in ") && told.ends_with(b.ns.path().to_str().expect("UTF-8")),
        "{told}"
    );
    let gone = Call { container: "c1", netns: "/run/netns/no-such", interface: "eth0", args: "" };
    assert_eq!(code(cni.with(json!({"prevResult": result})).call("CHECK", gone)), 3);
    let mut other = result.clone();
    other["ips"][0]["address"] = "10.41.0.99/24".into();
    assert_eq!(code(cni.check("c1", &ns, &other)), 101);
    assert_eq!(code(cni.check("c2", &ns, &result)), 3);
    for (change, back, named) in [
        ("link set eth0 down", "link set eth0 up", "eth0 is down"),
        ("address delete 10.41.0.2/24 dev eth0", "address add 10.41.0.2/24 brd + dev eth0", "10.41.0.2/24"),
        ("route delete default", "route add default via 10.41.0.1 dev eth0 onlink", "route"),
    ] {
        ns.ip(change);
        let told = message(cni.check("c1", &ns, &result));
        assert!(told.contains(named), "{change}: {told}");
        ns.ip(back);
        if !change.starts_with("route") {
            // With the link or the address the default routes went.
            for (ip, via) in [("", "10.41.0.1"), ("-6 ", "fd00:41::1")] {
                ns.ip(&format!("{ip}route replace default via {via} dev eth0 onlink"));
            }
            if !ns.ip("-oneline address show eth0").contains("fd00:41::2") {
                ns.ip("address add fd00:41::2/64 dev eth0 nodad");
                ns.ip("-6 route replace default via fd00:41::1 dev eth0 onlink");
            }
        }
        assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null), "after {back}");
    }
}

#[test]
fn t74_gc_removes_exactly_what_is_not_listed() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.1.0"));
    let other = Cni::new(&lab.host, json!({"cniVersion": "1.1.0", "name": "other", "ipMasq": true}));
    let (a, b, c) = (cni.container("a"), cni.container("b"), other.container("c"));
    lab.host.netd(&format!("network connect pods netns:{}", c.ns.name()));
    lab.host.stop();
    lab.host.start(&[]);
    let valid = json!([{"containerID": a.ns.name(), "ifname": "eth0"}]);
    let gc = cni.with(json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}));
    for _ in 0..2 {
        assert_eq!(gc.call("GC", Call::default()), Ok(Value::Null));
        assert!(!b.ns.ip("-oneline link show").contains("eth0"));
        assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
        assert!(ping(&c.ns, Family::V4.outside(), Ping::default()));
    }
    let mut left = endpoints(&lab, "pods");
    left.sort_unstable();
    // What no runtime has an id of is not a runtime's to remove.
    let mut wanted = [format!("{}:eth0", a.ns.name()), c.ns.name().to_owned()];
    wanted.sort_unstable();
    assert_eq!(left, wanted);
    assert_eq!(endpoints(&lab, "other"), [format!("{}:eth0", c.ns.name())]);
    let freed = cni.container("d");
    assert_eq!(freed.ipv4, b.ipv4, "its address is free again");
}

#[test]
fn t74_fifty_at_once_get_fifty_addresses() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let namespaces: Vec<_> = (0..50).map(|n| Namespace::new(&format!("n{n}"))).collect();
    let mut addresses: Vec<_> = thread::scope(|scope| {
        let adds: Vec<_> =
            namespaces.iter().map(|ns| scope.spawn(|| address(&cni.add(ns.name(), ns), 0))).collect();
        adds.into_iter().map(|add| add.join().expect("an ADD")).collect()
    });
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
    thread::scope(|scope| {
        for ns in &namespaces {
            scope.spawn(|| cni.del(ns.name(), Some(ns)));
        }
    });
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
}

#[test]
fn t70_netds_own_ipam_is_host_locals() {
    let lab = lab();
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "ipMasq": true,
        "ipam": {
            "type": "netd",
            "ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.2.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
        },
    });
    let cni = Cni::new(&lab.host, config);
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    let a = Container::of(ns);
    assert_eq!((address(&result, 0), address(&result, 1)), ("10.1.2.2/24".into(), "2001:db8:1::2/64".into()));
    assert_eq!(result["ips"][0]["gateway"], "10.1.2.1");
    let twice = message(cni.try_add("c1", &a.ns));
    assert_eq!(
        twice,
        "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation is not allowed"
    );
    let asking = |ips: Value| cni.with(json!({"args": {"cni": {"ips": ips}}}));
    let ns = Namespace::new("b");
    assert_eq!(address(&asking(json!(["10.1.2.88"])).add("c2", &ns), 0), "10.1.2.88/24");
    let c = Namespace::new("c");
    let refused = |ips: Value| message(asking(ips).try_add("c3", &c));
    assert_eq!(refused(json!(["10.1.99.9"])), "failed to allocate all requested IPs: 10.1.99.9");
    assert_eq!(
        refused(json!(["10.1.2.1"])),
        "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"
    );
    assert_eq!(
        refused(json!(["10.1.2.88"])),
        "failed to allocate for range 0: requested IP address 10.1.2.88 is not available in range set \
         10.1.2.1-10.1.2.254,10.2.2.1-10.2.2.254"
    );
    // The second subnet of the set is of the same network: its gateway is there, and its neighbours are.
    let d = {
        let ns = Namespace::new("d");
        assert_eq!(address(&asking(json!(["10.2.2.9"])).add("c4", &ns), 0), "10.2.2.9/24");
        Container::of(ns)
    };
    assert_eq!(d.gateway(Family::V4).to_string(), "10.2.2.1");
    assert!(ping(&d.ns, d.gateway(Family::V4), Ping::default()));
    assert!(ping(&d.ns, a.ipv4.into(), Ping::default()));
    assert!(ping(&d.ns, Family::V4.outside(), Ping::default()));
    cni.del("unknown", None);

    let small = json!({"cniVersion": "1.0.0", "name": "small", "ipam": {"subnet": "10.3.0.0/24", "rangeStart": "10.3.0.10", "rangeEnd": "10.3.0.11"}});
    let small = Cni::new(&lab.host, small);
    assert_eq!(small.container("e").ipv4.to_string(), "10.3.0.10");
    let f = small.container("f");
    assert_eq!(f.ipv4.to_string(), "10.3.0.11");
    assert_eq!(
        message(small.try_add("c", &c)),
        "failed to allocate for range 0: no IP addresses available in range set: 10.3.0.10-10.3.0.11"
    );
    let path = c.path();
    let netns = path.to_str().expect("UTF-8");
    let args = "IP=10.1.2.77;MAC=02:00:00:00:00:77";
    let args = Call { container: "g", netns, interface: "eth0", args };
    assert_eq!(address(&cni.call("ADD", args).expect("ADD"), 0), "10.1.2.77/24");
    assert!(c.ip("link show eth0").contains("02:00:00:00:00:77"));
}

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

#[test]
fn others_follow_in_the_chain() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    let path = ns.path();
    let call = Call { container: "c1", netns: path.to_str().expect("UTF-8"), interface: "eth0", args: "" };
    let tuning = Cni::reference(
        &lab.host,
        "tuning",
        json!({"cniVersion": "1.0.0", "name": "pods", "type": "tuning", "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}, "prevResult": result}),
    );
    let passed = tuning.call("ADD", call).expect("tuning takes what netd hands on");
    assert_eq!(passed["ips"], result["ips"]);
    assert_eq!(
        ns.enter(|| fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians"))
            .expect("a setting")
            .trim(),
        "1"
    );
    assert_eq!(cni.check("c1", &ns, &passed), Ok(Value::Null));
    tuning.call("DEL", call).expect("DEL in reverse order");
    assert_eq!(cni.with(json!({"prevResult": passed})).call("DEL", call), Ok(Value::Null));
}

#[test]
fn results_name_the_resolvers() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), "nameserver 192.0.2.53\nsearch example.net\noptions ndots:2\n")
        .expect("writing it");
    let from_file = json!({"ipam": {"ranges": dual("1.0.0")["ipam"]["ranges"], "resolvConf": file.path()}});
    let wanted = json!({"nameservers": ["192.0.2.53"], "search": ["example.net"], "options": ["ndots:2"]});
    let result = cni.with(from_file).add("c1", &Namespace::new("a"));
    assert_eq!(result["dns"], wanted);
    // With nothing said it is the network's own, on its gateway.
    let result = cni.add("c0", &Namespace::new("o"));
    assert_eq!(result["dns"], json!({"nameservers": ["10.41.0.1", "fd00:41::1"]}));
    let said = json!({"dns": {"nameservers": ["192.0.2.54"]}, "runtimeConfig": {"dns": {"servers": ["192.0.2.55"]}}});
    let result = cni.with(said).add("c2", &Namespace::new("b"));
    assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.55"]}));
}

#[test]
fn runtimes_are_told_of_it_and_no_more() {
    let lab = lab();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let places =
        format!("--bin-dir {} --conf-dir {} --name pods", path("bin").display(), path("net.d").display());
    let socket = format!("unix://{}", lab.host.socket().display());
    for (subnets, why) in [
        ("--subnet 10.46.0.5/24", "invalid --subnet 10.46.0.5/24: it should be 10.46.0.0/24"),
        ("--subnet 10.46.0.0/24 --subnet 10.47.0.0/24", "10.46.0.0/24 is of that family already"),
    ] {
        let said = lab.host.netd_fails(&format!("cni install {places} {subnets}"));
        assert!(said.contains(why) && !path("net.d").exists(), "{said}");
    }
    lab.host
        .netd(&format!("cni install {places} --subnet 10.46.0.0/24 --subnet fd00:46::/64 --socket {socket}"));
    fs::write(path("net.d/20-other.conflist"), "{}").expect("writing a file");
    let list = fs::read_to_string(path("net.d/10-pods.conflist")).expect("the list");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    // As libcni makes a plugin's configuration of a list.
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config["name"] = list["name"].clone();
    let cni = Cni::new(&lab.host, config);
    let a = cni.container("a");
    assert_eq!(a.ipv4.to_string(), "10.46.0.2");
    assert!(ping(&a.ns, Family::V6.outside(), Ping::default()));
    for link in ["bin/netd", "bin/netd-cni"] {
        let mut called = lab.host.command(path(link));
        let output = called.env_clear().env("CNI_COMMAND", "VERSION").output().expect("running the plugin");
        assert!(
            output.status.success() && output.stdout.starts_with(b"{\"cniVersion\":\"1.1.0\""),
            "{output:?}"
        );
    }
    let about = lab
        .host
        .command(path("bin/netd-cni"))
        .env_remove("CNI_COMMAND")
        .output()
        .expect("running the plugin");
    assert!(
        about.status.success() && String::from_utf8_lossy(&about.stderr).contains("0.1.0, 0.2.0"),
        "{about:?}"
    );
    lab.host.netd(&format!("cni install {places}"));
    lab.host.netd(&format!("cni uninstall {places}"));
    let left = |name: &str| fs::read_dir(path(name)).expect("a directory").count();
    assert_eq!((left("bin"), left("net.d")), (0, 1));
    until("the attachment is still the daemon's", || endpoints(&lab, "pods").len() == 1);
}

/// Has a word echoed over a new connection from the outside.
pub(crate) fn talk(from: &Namespace, to: SocketAddr) {
    let mut stream = connect(from, 0, to).expect("connecting");
    stream.write_all(b"hello").expect("sending");
    stream.read_exact(&mut [0; 5]).expect("the echo");
}

#[test]
fn mapped_ports_are_the_runtimes_to_reserve() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let mapping = |protocol: &str| json!({"hostPort": 9000, "containerPort": 80, "protocol": protocol});
    let mapped = cni.with(json!({"runtimeConfig": {"portMappings": [mapping("tcp"), mapping("udp")]}}));
    let a = mapped.container("a");
    let servers = |ns: &Namespace, port| {
        (TcpEcho::new(ns, Family::V6.any(port)), UdpEcho::new(ns, Family::V6.any(port)))
    };
    let heard = |(tcp, udp): &(TcpEcho, UdpEcho)| (tcp.peers().len(), udp.peers().len());
    let inside = servers(&a.ns, 80);
    // A runtime binds what it has had published, at one address or all.
    for family in Family::BOTH {
        drop(TcpEcho::new(&lab.host.ns, at(family.host(), 9000)));
        drop(UdpEcho::new(&lab.host.ns, at(family.loopback(), 9000)));
    }
    let runtimes = servers(&lab.host.ns, 9000);
    // What is published by netd itself netd keeps, for the same container too.
    lab.host.netd(&format!("publish pods/{}:eth0 9001:80", a.ns.name()));
    let is_kept = |port: u16| {
        let bound = lab.host.ns.enter(|| TcpListener::bind(Family::V4.any(port)));
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let as_it_was = || {
        let published = lab.host.netd_json("publish ls");
        let all = published.as_array().expect("publications").iter();
        let all: BTreeSet<_> = all.map(|it| (it["host_port"].as_u64(), it["reserved_by"].as_str())).collect();
        assert_eq!(all, BTreeSet::from([(Some(9000), Some("runtime")), (Some(9001), Some("netd"))]));
        assert!(is_kept(9001));
        // No socket that asks for any port gets one of them.
        let reserved = || fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
        assert_eq!(lab.host.ns.enter(reserved).expect("the setting").trim(), "9000-9001");
    };
    // The container alone hears those who come.
    let reach = || {
        let before = heard(&runtimes);
        for family in Family::BOTH {
            let (outside, host) = (&lab.outside, &lab.host.ns);
            for (from, to) in [(outside, family.host()), (host, family.host()), (host, family.loopback())] {
                let (tcp, datagrams) = heard(&inside);
                talk(from, at(to, 9000));
                assert_eq!(ask(&udp(from, family, 0), at(to, 9000), b"hello"), b"hello");
                assert_eq!(heard(&inside), (tcp + 1, datagrams + 1), "{} to {to}", from.name());
            }
        }
        assert_eq!(heard(&runtimes), before);
    };
    as_it_was();
    reach();
    let b = Namespace::new("b");
    let taken = message(mapped.try_add("b", &b));
    assert!(taken.contains("port is already allocated"), "{taken}");
    // A daemon that comes back finds it so, with all sockets.
    lab.host.kill();
    reach();
    lab.host.start(&[]);
    as_it_was();
    reach();
    // So does a container that leaves its network and comes again, whose runtime has the port all the while.
    mapped.del(a.ns.name(), Some(&a.ns));
    let before = heard(&inside);
    talk(&lab.outside, at(Family::V4.host(), 9000));
    assert_eq!((heard(&inside), heard(&runtimes)), (before, (1, 0)), "it is the host's own");
    mapped.add(a.ns.name(), &a.ns);
    reach();
    assert!(!is_kept(9001) && lab.host.metrics().contains("netd_binds_refused_total 2"));
}

#[test]
fn t72_mapped_ports_lead_to_the_container_and_go_with_it() {
    let lab = lab();
    let cni = Cni::new(&lab.host, dual("1.0.0"));
    let mapping = |host: u16, container: u16, protocol: &str| json!({"hostPort": host, "containerPort": container, "protocol": protocol});
    let mapped = cni.with(
        json!({"runtimeConfig": {"portMappings": [mapping(9000, 80, "tcp"), mapping(9000, 53, "udp")]}}),
    );
    let a = mapped.container("a");
    let clients = [udp(&lab.outside, Family::V4, 5354), udp(&lab.outside, Family::V6, 5356)];
    for (family, client) in Family::BOTH.into_iter().zip(&clients) {
        let _tcp = TcpEcho::new(&a.ns, family.any(80));
        let _udp = UdpEcho::new(&a.ns, family.any(53));
        talk(&lab.outside, at(family.host(), 9000));
        assert_eq!(ask(client, at(family.host(), 9000), b"first"), b"first");
    }
    let b = Namespace::new("b");
    let taken = message(mapped.try_add("b", &b));
    assert!(taken.contains("port is already allocated"), "{taken}");
    mapped.del(a.ns.name(), Some(&a.ns));
    connect(&lab.outside, 0, at(Family::V4.host(), 9000)).expect_err("nothing is published any more");
    // The same client, with the socket it had, reaches the next container.
    mapped.add("b", &b);
    let b = Container::of(b);
    for (family, client) in Family::BOTH.into_iter().zip(&clients) {
        let server = UdpEcho::new(&b.ns, family.any(53));
        assert_eq!(ask(client, at(family.host(), 9000), b"second"), b"second");
        let port = client.local_addr().expect("a bound socket").port();
        assert_eq!(server.peers(), [at(family.outside(), port)]);
    }
    let c = Namespace::new("c");
    for (host, container, what) in [(0, 80, "host"), (80, 0, "container")] {
        let bad = cni.with(json!({"runtimeConfig": {"portMappings": [mapping(host, container, "tcp")]}}));
        assert_eq!(message(bad.try_add("c", &c)), format!("Invalid {what} port number: 0"));
    }
    let half = cni.with(json!({"runtimeConfig": {"bandwidth": {"ingressBurst": 1_000_000}}}));
    let error = message(half.try_add("c", &c));
    assert_eq!(error, "invalid bandwidth: ingressBurst is set, and ingressRate is not");
    let bandwidth = json!({"ingressRate": 1_000_000, "ingressBurst": 80_000, "egressRate": 2_000_000});
    let limited = cni.with(json!({"runtimeConfig": {"bandwidth": bandwidth}}));
    limited.add("c", &c);
    let queue = c.command("tc").args(["qdisc", "show", "dev", "eth0"]).output().expect("tc").stdout;
    let queue = String::from_utf8(queue).expect("tc's output");
    assert!(queue.contains("qdisc tbf") && queue.contains("rate 2Mbit"), "{queue}");
}
