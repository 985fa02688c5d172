//! What container runtimes say of a container more than once, or not all of them say: of one that is on several networks, above
//! all.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netd_tests::lab::{Call, Cni, Family, Namespace, TcpEcho, at, connect, until};
use serde_json::{Value, json};

use crate::cni::{address, code, lab};
use crate::cni_ports::talk;
use crate::names::resolve;

fn network(name: &str, subnet: &str) -> Value {
    json!({"cniVersion": "1.1.0", "name": name, "ipMasq": true, "ipam": {"ranges": [[{"subnet": subnet}]]}})
}

#[test]
fn the_ports_of_a_container_on_several_networks_are_where_its_default_route_is() {
    let lab = lab();
    // podman names the ports at each network.
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}});
    let [first, second] = [("a", "10.41.0.0/24"), ("b", "10.42.0.0/24")]
        .map(|(name, subnet)| Cni::new(&lab.host, network(name, subnet)).with(ports.clone()));
    let ns = Namespace::new("c");
    let path = ns.path();
    let of = |interface| Call { container: "c1", netns: path.to_str().expect("UTF-8"), interface, args: "" };
    let reached = |at_all: bool| {
        let _echo = TcpEcho::new(&ns, Family::V4.any(80));
        let to = at(Family::V4.host(), 8080);
        if at_all {
            talk(&lab.outside, to);
        } else {
            assert!(connect(&lab.outside, 0, to).is_err());
        }
    };
    // The default route leads by the network whose name comes first, whichever of them came first.
    let result = second.call("ADD", of("eth1")).expect("ADD");
    reached(true);
    first.call("ADD", of("eth0")).expect("ADD of another network with the same ports");
    assert!(ns.ip("route show default").contains("eth0"));
    reached(true);
    assert_eq!(second.with(json!({"prevResult": result})).call("CHECK", of("eth1")), Ok(Value::Null));
    let other = Namespace::new("d");
    assert_eq!(code(first.try_add("c2", &other)), 100, "they are nobody else's");
    lab.host.kill();
    lab.host.start(&[]);
    reached(true);
    first.call("DEL", of("eth0")).expect("DEL");
    reached(true);
    second.call("DEL", of("eth1")).expect("DEL");
    reached(false);
    assert_eq!(lab.host.netd_json("publish ls"), json!([]));
}

#[test]
fn ports_that_are_named_at_an_internal_network_too_are_those_of_the_other() {
    let lab = lab();
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}});
    let inner = Cni::new(&lab.host, network("inner", "10.41.0.0/24"))
        .with(json!({"internal": true}))
        .with(ports.clone());
    let outer = Cni::new(&lab.host, network("outer", "10.42.0.0/24")).with(ports);
    let ns = Namespace::new("c");
    let path = ns.path();
    let netns = path.to_str().expect("UTF-8");
    for (cni, interface) in [(&inner, "eth0"), (&outer, "eth1")] {
        cni.call("ADD", Call { container: "c1", netns, interface, args: "" }).expect("ADD");
    }
    let _echo = TcpEcho::new(&ns, Family::V4.any(80));
    talk(&lab.outside, at(Family::V4.host(), 8080));
    assert_eq!(lab.host.netd_json("publish ls").as_array().map(Vec::len), Some(1));
}

#[test]
fn an_address_that_is_asked_for_twice_is_one() {
    let lab = lab();
    let cni = Cni::new(&lab.host, network("pods", "10.41.0.0/24"))
        .with(json!({"runtimeConfig": {"ips": ["10.41.0.9", "10.41.0.9/24"]}}));
    let ns = Namespace::new("a");
    let path = ns.path();
    let netns = path.to_str().expect("UTF-8");
    let call = Call { container: "c1", netns, interface: "eth0", args: "IP=10.41.0.9" };
    assert_eq!(address(&cni.call("ADD", call).expect("ADD"), 0), "10.41.0.9/24");
}

#[test]
fn a_default_route_without_an_address_of_its_family_is_refused() {
    let lab = lab();
    let mut config = network("pods", "10.41.0.0/24");
    config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let cni = Cni::new(&lab.host, config);
    let ns = Namespace::new("a");
    let error = cni.try_add("c1", &ns).expect_err("it has no IPv6 address");
    assert_eq!(error["code"], 7);
    assert_eq!(error["msg"], "invalid route to ::/0: the interface has no address of that family");
    assert!(!ns.ip("-oneline link show").contains("eth0"));
    assert!(!lab.host.netd("network ls").contains("pods"), "the network is not left behind");
}

#[test]
fn check_compares_routes_with_those_of_the_result() {
    let lab = lab();
    let mut config = network("pods", "10.41.0.0/24");
    config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.60.0.0/16", "priority": 50}]);
    let cni = Cni::new(&lab.host, config);
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null));
    let changed = |index: usize, key: &str, value: Value| {
        let mut other = result.clone();
        other["routes"][index][key] = value;
        cni.check("c1", &ns, &other)
    };
    assert_eq!(code(changed(0, "gw", json!("10.41.0.77"))), 101);
    assert_eq!(code(changed(1, "priority", json!(51))), 101);
    // What plugins that follow have added is theirs.
    for (key, value) in [("dst", json!("10.61.0.0/16")), ("table", json!(100))] {
        assert_eq!(changed(1, key, value.clone()), Ok(Value::Null), "{key} {value}");
    }
}

#[test]
fn an_address_leads_back_to_the_pods_name() {
    let lab = lab();
    let cni = Cni::new(&lab.host, network("pods", "10.41.0.0/24"));
    let ns = Namespace::new("a");
    let path = ns.path();
    let netns = path.to_str().expect("UTF-8");
    // As long as runtimes have them, and too long for a label.
    let container = &"0123456789abcdef".repeat(4);
    cni.call("ADD", Call { container, netns, interface: "eth0", args: "K8S_POD_NAME=web" }).expect("ADD");
    let server = at("10.41.0.1".parse::<IpAddr>().expect("an address"), 53);
    until("the name server listens", || connect(&ns, 0, server).is_ok());
    let found = resolve(&ns, server, "2.0.41.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(found.1, ["web.pods."]);
    let all = resolve(&ns, server, "web.", RecordType::ANY);
    assert_eq!(all, (ResponseCode::NoError, vec!["10.41.0.2".to_owned()]));
}
