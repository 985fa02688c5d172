//! netd as a CNI plugin, called as container runtimes call it. The names of tests carry the numbers of the cases they
//! replay.

use std::fs;
use std::thread;

use netd_tests::lab::{Call, Cni, Container, Family, Lab, Namespace, Ping, ping, until};
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

pub(crate) fn message(result: Result<Value, Value>) -> String {
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

pub(crate) fn dual(version: &str) -> Value {
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
