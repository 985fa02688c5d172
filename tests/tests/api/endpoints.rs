//! Containers that join networks and leave them.

use netd_tests::lab::Namespace;
use serde_json::json;

use crate::{container, daemon, refusal};

#[test]
fn t15_a_container_joins_and_leaves() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --ipv6 --subnet 10.5.0.0/16 --subnet fd00:5::/64 n1");
    let ns = Namespace::new("c");
    let body = json!({"Container": container(&ns)});
    let joined = host.call("POST", "/networks/n1/connect", Some(&body));
    assert_eq!((joined.status, &*joined.body), (200, ""));
    let network = host.call("GET", "/networks/n1", None).json();
    let containers = network["Containers"].as_object().expect("an object");
    let (key, endpoint) = containers.iter().next().expect("an endpoint");
    let id = endpoint["EndpointID"].as_str().expect("an id");
    assert_eq!((containers.len(), key), (1, &format!("ep-{id}")));
    assert_eq!(id.len(), 64);
    assert_eq!(
        endpoint,
        &json!({
            "Name": ns.name(), "EndpointID": id, "MacAddress": endpoint["MacAddress"], "IPv4Address": "10.5.0.2/16",
            "IPv6Address": "fd00:5::2/64"
        })
    );
    let link = ns.ip("link show eth0");
    assert!(link.contains(endpoint["MacAddress"].as_str().expect("an address")), "{link}");
    assert_eq!(
        host.call("GET", "/networks", None).json()[2]["Containers"],
        json!({}),
        "a list tells of none"
    );

    let again = host.call("POST", "/networks/n1/connect", Some(&body));
    let says = format!("endpoint with name {} already exists in network n1", ns.name());
    assert_eq!((again.status, again.message()), (403, says.clone()));
    assert_eq!(docker.fails(&format!("network connect n1 {}", container(&ns))), refusal(&says));

    let left = host.call("POST", "/networks/n1/disconnect", Some(&body));
    assert_eq!((left.status, &*left.body), (200, ""));
    assert_eq!(host.call("GET", "/networks/n1", None).json()["Containers"], json!({}));
    let again = host.call("POST", "/networks/n1/disconnect", Some(&body));
    let says = format!("container {} is not connected to network n1", container(&ns));
    assert_eq!((again.status, again.message()), (500, says.clone()));
    assert_eq!(docker.fails(&format!("network disconnect n1 {}", container(&ns))), refusal(&says));
}

#[test]
fn what_is_not_there_is_named() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    let ns = Namespace::new("c");
    let there = container(&ns);
    for (path, container, force, status, says) in [
        ("/networks/n1/connect", "c1", false, 404, "No such container: c1"),
        ("/networks/absent/connect", "c1", false, 404, "No such container: c1"),
        ("/networks/absent/connect", &there, false, 404, "network absent not found"),
        ("/networks/n1/connect", "", false, 400, "invalid name or ID supplied: \"\""),
        ("/networks/n1/disconnect", "", false, 400, "invalid name or ID supplied: \"\""),
        ("/networks/n1/disconnect", "c1", false, 404, "No such container: c1"),
        ("/networks/absent/disconnect", "c1", false, 404, "No such container: c1"),
        ("/networks/absent/disconnect", "c1", true, 404, "network absent not found"),
        ("/networks/absent/disconnect", &there, false, 404, "network absent not found"),
        ("/networks/n1/disconnect", "c1", true, 404, "endpoint c1 not found"),
        (
            "/networks/host/connect",
            &there,
            false,
            403,
            "cannot connect container to host network - container must be created in host network mode",
        ),
        (
            "/networks/none/connect",
            &there,
            false,
            403,
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
    ] {
        let body = json!({"Container": container, "Force": force});
        let refused = host.call("POST", path, Some(&body));
        assert_eq!((refused.status, &*refused.message()), (status, says), "{path} {body}");
    }
    assert_eq!(docker.fails("network connect n1 c1"), refusal("No such container: c1"));
}

#[test]
fn a_container_joins_further_networks_by_its_name() {
    let host = daemon();
    let docker = host.docker();
    for network in ["n1", "n2", "n3"] {
        docker.ok(&format!("network create {network}"));
    }
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n1 {}", container(&ns)));
    docker.ok(&format!("network connect n2 {}", ns.name()));
    ns.ip("link show eth1");
    let says = format!("endpoint with name {} already exists in network n2", ns.name());
    assert_eq!(docker.fails(&format!("network connect n2 {}", ns.name())), refusal(&says));
    let says = format!("container {} is not connected to network n3", ns.name());
    assert_eq!(docker.fails(&format!("network disconnect n3 {}", ns.name())), refusal(&says));
    for network in ["n1", "n2"] {
        docker.ok(&format!("network disconnect {network} {}", ns.name()));
    }
    let says = format!("No such container: {}", ns.name());
    assert_eq!(docker.fails(&format!("network connect n3 {}", ns.name())), refusal(&says));
}

#[test]
fn a_container_leaves_by_another_of_its_names() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n1 {}", container(&ns)));
    let mut process = ns.command("sleep").arg("600").spawn().expect("sleep");
    let (pid, path) = (process.id(), format!("/proc/{}/ns/net", process.id()));
    let says = format!("endpoint with name {} already exists in network n1", ns.name());
    for name in [format!("pid:{pid}"), path.clone()] {
        assert_eq!(docker.fails(&format!("network connect n1 {name}")), refusal(&says));
    }
    docker.ok(&format!("network disconnect n1 pid:{pid}"));
    docker.ok(&format!("network connect n1 pid:{pid}"));
    docker.ok(&format!("network disconnect -f n1 {}", container(&ns)));
    let says = format!("container {path} is not connected to network n1");
    assert_eq!(docker.fails(&format!("network disconnect n1 {path}")), refusal(&says));
    process.kill().and_then(|()| process.wait()).expect("it ends");
}

#[test]
fn a_container_that_is_gone_is_disconnected_by_any_of_its_names() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    for by_id in [false, true] {
        let ns = Namespace::new("c");
        docker.ok(&format!("network connect n1 {}", container(&ns)));
        let endpoints = docker.json("network inspect n1 --format '{{json .Containers}}'");
        let id = endpoints.as_object().expect("an object").keys().next().expect("an endpoint").clone();
        let name = if by_id { id } else { container(&ns) };
        drop(ns);
        docker.ok(&format!("network disconnect -f n1 {name}"));
        assert_eq!(docker.ok("network inspect n1 --format '{{json .Containers}}'"), "{}\n");
    }
    docker.ok("network rm n1");
}

#[test]
fn every_flag_of_connect_takes_effect() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --ipv6 --subnet 10.5.0.0/16 --subnet fd00:5::/64 n1");
    docker.ok("network create --subnet 10.4.0.0/16 n0");
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n0 {}", container(&ns)));
    // Older clients know nothing of priorities, and the first network by name is the way out.
    let has_priority = docker.has_flag("network connect", "--gw-priority");
    let (priority, gateway) = if has_priority { ("--gw-priority 5", "10.5.0.1") } else { ("", "10.4.0.1") };
    docker.ok(&format!(
        "network connect --ip 10.5.0.7 --ip6 fd00:5::7 --alias a1 --driver-opt com.docker.network.endpoint.ifname=x0 \
         {priority} n1 {}",
        container(&ns)
    ));
    let addresses = ns.ip("address show x0");
    assert!(addresses.contains("10.5.0.7/16") && addresses.contains("fd00:5::7/64"), "{addresses}");
    let route = ns.ip("route show default");
    assert!(route.contains(&format!("via {gateway} ")), "the highest priority is the way out: {route}");
}
