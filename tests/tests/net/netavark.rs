//! netavark's plugin protocol, spoken by a netavark that is none.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use netd_tests::lab::{
    Container, Family, Host, Lab, Namespace, Ping, TcpEcho, at, connect, netd_binary, ping,
};
use serde_json::{Value, json};

/// podman's id of a network comes from its name alone.
const ID: &str = "7d86d31b1478e7cca9ebed7e73aa0fdeec46c5ca29497431d3007d2d9e15ed99";

fn run(host: &Host, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = host.command(netd_binary());
    command.args(arguments).env("NETD_HOST", format!("unix://{}", host.socket().display()));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("running the plugin");
    // One that fails early does not read its input.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("waiting for the plugin")
}

/// A call that is done; its answer, or null for none.
fn call(host: &Host, arguments: &[&str], input: &Value) -> Value {
    let output = run(host, arguments, input.to_string().as_bytes());
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {text}");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}

/// A call that is not done; the reason.
fn refused(host: &Host, arguments: &[&str], input: &Value) -> String {
    let output = run(host, arguments, input.to_string().as_bytes());
    assert!(!output.status.success(), "{arguments:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(1), "{answer}");
    answer["error"].as_str().expect("a reason").to_owned()
}

/// A network as podman describes it before the driver has had its say.
fn network() -> Value {
    json!({
        "name": "fast", "id": ID, "driver": "netd", "created": "2026-01-02T03:04:05Z", "ipv6_enabled": true,
        "internal": false, "dns_enabled": true, "labels": {"a": "b"}, "options": {"mtu": "1400"},
        "ipam_options": {"driver": "host-local"}
    })
}

fn container(network: &Value, id: &str, options: &Value) -> Value {
    let mut given = json!({
        "container_id": id, "container_name": format!("name-{id}"), "port_mappings": null, "network": network,
        "network_options": {
            "aliases": null, "interface_name": "eth0", "static_ips": null, "static_mac": null, "options": null
        }
    });
    for (key, value) in options.as_object().expect("an object") {
        match key.as_str() {
            "port_mappings" => given[key] = value.clone(),
            _ => given["network_options"][key] = value.clone(),
        }
    }
    given
}

fn setup(host: &Host, ns: &Namespace, given: &Value) -> Value {
    call(host, &["setup", ns.path().to_str().expect("text")], given)
}

#[test]
fn a_network_from_hello_to_goodbye() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let host = &lab.host;
    let before = host.ns.configuration();
    let info = json!({"version": env!("CARGO_PKG_VERSION"), "api_version": "1.0.0"});
    assert_eq!(call(host, &["info"], &Value::Null), info);

    // What was left open is filled in, and the rest is as it was.
    let given = network();
    let made = call(host, &["create"], &given);
    for (key, value) in given.as_object().expect("an object") {
        assert_eq!(made[key], *value, "{key}");
    }
    assert_eq!(made["subnets"][0], json!({"subnet": "172.18.0.0/16", "gateway": "172.18.0.1"}));
    let six = made["subnets"][1]["subnet"].as_str().expect("a subnet");
    assert!(six.starts_with("fd") && six.ends_with("/64"), "{six}");
    let bridge = made["network_interface"].as_str().expect("a name").to_owned();
    assert!(host.ns.ip(&format!("link show {bridge}")).contains("mtu 1400"));

    // podman chooses the addresses.
    let ports =
        json!([{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}]);
    let web = Namespace::new("web");
    let joining = container(
        &made,
        "c1",
        &json!({
            "static_ips": ["172.18.0.77"], "static_mac": "02:00:00:00:07:77", "aliases": ["api"], "port_mappings": ports
        }),
    );
    let status = setup(host, &web, &joining);
    let eth0 = &status["interfaces"]["eth0"];
    assert_eq!(eth0["mac_address"], "02:00:00:00:07:77");
    assert_eq!(eth0["subnets"][0], json!({"ipnet": "172.18.0.77/16", "gateway": "172.18.0.1"}));
    assert!(eth0["subnets"][1]["ipnet"].as_str().is_some_and(|net| net.ends_with("/64")), "{status}");
    assert_eq!(status["dns_server_ips"][0], "172.18.0.1");
    assert_eq!(status["dns_search_domains"], json!([]));
    let again = refused(host, &["setup", web.path().to_str().expect("text")], &joining);
    assert!(again.contains("c1"), "{again}");

    let web = Container::of(web);
    let other = Namespace::new("other");
    let second = container(&made, "c2", &json!({}));
    setup(host, &other, &second);
    let other = Container::of(other);
    for family in Family::BOTH {
        assert!(ping(&other.ns, web.address(family), Ping::default()), "{family:?}");
        assert!(ping(&other.ns, family.outside(), Ping::default()), "{family:?}");
    }
    assert_eq!(host.netd_json("fdb ls").as_array().map(Vec::len), Some(2));
    let names = host.netd("names ls");
    for name in ["api", "name-c1", "name-c2"] {
        assert!(names.contains(name), "{name}: {names}");
    }
    let _echo = TcpEcho::new(&web.ns, Family::V6.any(80));
    for family in Family::BOTH {
        connect(&lab.outside, 0, at(family.host(), 8080)).expect("the published port");
    }

    // A network in use is nobody's to make anew.
    let taken = refused(host, &["create"], &given);
    assert_eq!(taken, "network with name fast already exists");
    let sent = || {
        let stats = host.netd_json("stats");
        let mut networks = stats["networks"].as_array().expect("networks").iter();
        let network = networks.find(|network| network["network"] == "fast").expect("the network");
        network["sent"]["packets"].as_u64().expect("a counter")
    };
    let before_it_goes = sent();
    assert!(before_it_goes > 0);
    let path = web.ns.path();
    for _ in 0..2 {
        assert_eq!(call(host, &["teardown", path.to_str().expect("text")], &joining), Value::Null);
    }
    assert!(!web.ns.ip("link").contains("eth0"));
    assert!(sent() >= before_it_goes, "what it sent still counts");
    assert_eq!(host.netd_json("publish ls"), json!([]));
    // The second one's namespace goes first, and the daemon with it.
    let path = other.ns.path();
    drop(other);
    host.kill();
    assert_eq!(call(host, &["teardown", path.to_str().expect("text")], &second), Value::Null);
    let down = refused(host, &["create"], &given);
    assert!(down.starts_with("Cannot connect to the netd daemon"), "{down}");
    host.start(&[]);

    // What podman has forgotten is made anew, otherwise if it says otherwise.
    let mut anew = given.clone();
    anew["subnets"] = json!([{"subnet": "10.77.0.0/24", "lease_range": {"start_ip": "10.77.0.100"}}]);
    anew["ipv6_enabled"] = false.into();
    let made = call(host, &["create"], &anew);
    let subnet = json!([{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1", "lease_range": {"start_ip": "10.77.0.100"}}]);
    assert_eq!((&made["subnets"], &made["ipv6_enabled"]), (&subnet, &json!(false)));
    // And what netd has forgotten, when somebody joins.
    host.netd("network rm fast");
    let third = Namespace::new("third");
    let joining = container(&made, "c3", &json!({"static_ips": ["10.77.0.100"]}));
    let status = setup(host, &third, &joining);
    assert_eq!(status["interfaces"]["eth0"]["subnets"][0]["ipnet"], "10.77.0.100/24");
    assert!(ping(&third, Family::V4.outside(), Ping::default()), "it is masqueraded");
    call(host, &["teardown", third.path().to_str().expect("text")], &joining);
    host.netd("network rm fast");
    assert_eq!(host.ns.configuration(), before, "nothing is left");
}

#[test]
fn what_cannot_be_is_told_and_changes_nothing() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let host = &lab.host;
    host.netd("network create --subnet 10.7.0.0/16 own");
    let made = call(host, &["create"], &network());
    let before = (host.ns.configuration(), host.netd("network ls"));
    let with = |key: &str, value: Value| {
        let mut network = network();
        network["name"] = "another".into();
        network[key] = value;
        network
    };
    for (network, reason) in [
        (with("name", json!("own")), "network with name own already exists"),
        (
            with("subnets", json!([{"subnet": "10.7.1.0/24"}])),
            "Pool overlaps with other one on this address space",
        ),
        (with("subnets", json!([{"subnet": "here"}])), "invalid input: "),
        (with("options", json!({"vlan": "7"})), "unsupported network option vlan"),
        (with("options", json!({"mtu": "many"})), "many"),
        (with("ipam_options", json!({"driver": "none"})), "unsupported ipam driver none"),
        (json!({"id": ID}), "invalid network: its name is empty"),
    ] {
        let said = refused(host, &["create"], &network);
        assert!(said.contains(reason), "{network}: {said}");
    }
    let ns = Namespace::new("c");
    let path = ns.path().to_str().expect("text").to_owned();
    let port = |port: Value| json!({"port_mappings": [port]});
    for (options, reason) in [
        (json!({"static_ips": ["10.9.9.9"]}), "10.9.9.9"),
        (json!({"static_mac": "mac"}), "invalid MAC address mac"),
        (json!({"interface_name": ""}), "invalid interface_name: it is empty"),
        (json!({"interface_name": "much-too-long-a-name"}), "much-too-long-a-name"),
        (json!({"options": {"vrf": "blue"}}), "unsupported network option vrf"),
        (port(json!({"container_port": 80, "host_ip": "here"})), "invalid host_ip: here"),
        (port(json!({"container_port": 0, "host_port": 80})), "invalid containerPort: 0"),
        (port(json!({"container_port": 80, "protocol": "x"})), "invalid proto: x"),
    ] {
        let given = container(&made, "c1", &options);
        let said = refused(host, &["setup", &path], &given);
        assert!(said.contains(reason), "{given}: {said}");
    }
    assert!(!refused(host, &["setup", "/no/such"], &container(&made, "c1", &json!({}))).is_empty());
    for input in [&b""[..], b"{", b"[]", b"7"] {
        let output = run(host, &["create"], input);
        assert!(!output.status.success() && output.stdout.starts_with(b"{\"error\":"), "{output:?}");
    }
    assert_eq!((host.ns.configuration(), host.netd("network ls")), before);
    assert!(Path::new(&path).exists() && !ns.ip("link").contains("eth0"));
}
