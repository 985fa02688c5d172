//! Networks: listed, inspected, made, removed.

use netd_tests::lab::Namespace;
use serde_json::{Value, json};

use crate::{container, daemon, refusal};

#[test]
fn t02_a_fresh_daemon_has_three_networks() {
    let host = daemon();
    for path in ["/networks", "/networks/"] {
        let listed = host.call("GET", path, None);
        assert_eq!(listed.status, 200, "{path}");
        let networks = listed.json();
        let facts: Vec<_> = networks
            .as_array()
            .expect("an array")
            .iter()
            .map(|network| ["Name", "Driver", "Scope"].map(|field| network[field].as_str().expect("a text")))
            .collect();
        assert_eq!(
            facts,
            [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]],
            "{path}"
        );
    }
    let table = host.docker().ok("network ls");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("NETWORK ID     NAME      DRIVER    SCOPE"));
    let rows: Vec<_> = lines.map(|line| line.split_once(' ').expect("an id first")).collect();
    assert!(rows.iter().all(|(id, _)| id.len() == 12), "{table}");
    let rows: Vec<_> = rows.iter().map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(rows, [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]);
}

#[test]
fn networks_are_listed_in_every_form() {
    let host = daemon();
    let docker = host.docker();
    let id = docker.ok("network create --internal --ipv6 --label a=b --label c n1");
    let id = id.trim();
    assert_eq!(docker.ok("network ls -q --filter name=n1"), format!("{}\n", &id[..12]));
    assert_eq!(docker.ok("network ls -q --no-trunc --filter name=n1"), format!("{id}\n"));
    assert_eq!(
        docker.ok("network ls --filter id=$ --filter name=n1 --format '{{.Name}}'"
            .replace("$", &id[..5])
            .as_str()),
        "n1\n"
    );
    let line = docker.json("network ls --no-trunc --filter name=n1 --format '{{json .}}'");
    for (field, value) in [
        ("Driver", "bridge"),
        ("ID", id),
        ("IPv6", "true"),
        ("Internal", "true"),
        ("Name", "n1"),
        ("Scope", "local"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    // Older clients do not tell.
    assert!(line.get("IPv4").is_none_or(|ipv4| ipv4 == "true"), "{line}");
    assert!(["a=b,c=", "c=,a=b"].contains(&line["Labels"].as_str().expect("a text")), "{line}");
    assert_eq!(
        docker.ok("network ls --filter name=n1 --format 'table {{.Name}}\t{{.Label \"a\"}}'"),
        "NAME      LABEL\nn1        b\n".replace("LABEL", "a")
    );
}

/// The fields of an object, in their order.
fn fields(object: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let (mut depth, mut text, mut quoted) = (0, String::new(), false);
    let mut characters = object.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                if !quoted && characters.peek() == Some(&':') && depth == 1 {
                    fields.push(std::mem::take(&mut text));
                }
                text.clear();
            }
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            other => text.push(other),
        }
    }
    fields
}

#[test]
fn a_network_is_golden() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create plain");
    let body = host.get("/networks/plain").expect("an answer").1;
    assert_eq!(
        fields(&body),
        [
            "Name",
            "Id",
            "Created",
            "Scope",
            "Driver",
            "EnableIPv4",
            "EnableIPv6",
            "IPAM",
            "Internal",
            "Attachable",
            "Ingress",
            "ConfigFrom",
            "ConfigOnly",
            "Containers",
            "Options",
            "Labels"
        ]
    );
    let network: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        network,
        json!({
            "Name": "plain", "Id": network["Id"], "Created": network["Created"], "Scope": "local", "Driver": "bridge",
            "EnableIPv4": true, "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
            "Containers": {}, "Options": {}, "Labels": {}
        })
    );
    let alone = docker.has_flag("network create", "--ipv4");
    docker.ok(&format!(
        "network create -d bridge --ipv6 {} --subnet fd00:5::/64 --gateway fd00:5::9 --aux-address h=fd00:5::7 \
         -o com.docker.network.bridge.name=br9 -o com.docker.network.driver.mtu=1400 -o foo --label a=b --label c \
         --attachable --internal --ipam-opt k=v n2",
        // Older clients always ask for IPv4.
        if alone { "--ipv4=false" } else { "--subnet 10.5.0.0/24" },
    ));
    let ipv6 =
        json!({"Subnet": "fd00:5::/64", "Gateway": "fd00:5::9", "AuxiliaryAddresses": {"h": "fd00:5::7"}});
    let config = if alone { json!([ipv6]) } else { json!([{"Subnet": "10.5.0.0/24"}, ipv6]) };
    let network = docker.json("network inspect n2");
    assert_eq!(
        network[0],
        json!({
            "Name": "n2", "Id": network[0]["Id"], "Created": network[0]["Created"], "Scope": "local", "Driver": "bridge",
            "EnableIPv4": !alone, "EnableIPv6": true,
            "IPAM": {"Driver": "default", "Options": {"k": "v"}, "Config": config},
            "Internal": true, "Attachable": true, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
            "Containers": {},
            "Options": {"com.docker.network.bridge.name": "br9", "com.docker.network.driver.mtu": "1400", "foo": ""},
            "Labels": {"a": "b", "c": ""}
        })
    );
    assert!(host.ns.ip("link show br9").contains("mtu 1400"));
    // What was asked for comes before what was found.
    docker.ok("network create --ipv6 --subnet fd00:6::/64 n3");
    assert_eq!(
        docker.json("network inspect n3 --format '{{json .IPAM.Config}}'"),
        json!([{"Subnet": "fd00:6::/64"}, {"Subnet": "172.19.0.0/16", "Gateway": "172.19.0.1"}])
    );
    for (name, driver) in [("host", "host"), ("none", "null")] {
        let network = docker.json(&format!("network inspect {name}"));
        assert_eq!(network[0]["Driver"], driver);
        assert_eq!(network[0]["IPAM"], json!({"Driver": "default", "Options": null, "Config": null}));
        assert_eq!((&network[0]["Options"], &network[0]["Labels"]), (&json!({}), &json!({})));
    }
}

#[test]
fn t08_predefined_networks_are_neither_made_nor_removed() {
    let host = daemon();
    let before = host.get("/networks");
    for name in ["bridge", "host", "none"] {
        let made = host.call("POST", "/networks/create", Some(&json!({"Name": name})));
        let says = format!("operation is not permitted on predefined {name} network ");
        assert_eq!((made.status, made.message()), (403, says));
        let removed = host.call("DELETE", &format!("/networks/{name}"), None);
        let says = format!("{name} is a pre-defined network and cannot be removed");
        assert_eq!((removed.status, removed.message()), (403, says.clone()));
        let said = host.docker().fails(&format!("network rm {name}"));
        assert_eq!(said, refusal(&says));
    }
    for driver in ["host", "null"] {
        let says = format!("only one instance of \"{driver}\" network is allowed");
        assert_eq!(host.docker().fails(&format!("network create -d {driver} n")), refusal(&says));
    }
    assert_eq!(host.get("/networks"), before);
}

#[test]
fn t09_a_name_is_given_once() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    let again = host.call("POST", "/networks/create", Some(&json!({"Name": "n1", "CheckDuplicate": false})));
    assert_eq!((again.status, &*again.message()), (409, "network with name n1 already exists"));
    assert_eq!(docker.fails("network create n1"), refusal("network with name n1 already exists"));
    assert_eq!(docker.ok("network ls --filter name=n1 --format {{.Name}}"), "n1\n");
}

#[test]
fn t11_several_networks_are_removed_and_one_in_use_stays() {
    let host = daemon();
    let docker = host.docker();
    for name in ["n1", "n2", "n3"] {
        docker.ok(&format!("network create {name}"));
    }
    let ns = Namespace::new("c");
    assert_eq!(docker.ok(&format!("network connect n2 {}", container(&ns))), "");
    let output = docker.run("network rm n1 n2 n3");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "n1\nn3\n");
    let endpoints = docker.json("network inspect n2 --format '{{json .Containers}}'");
    let (_, endpoint) = endpoints.as_object().expect("an object").iter().next().expect("an endpoint");
    let id = endpoint["EndpointID"].as_str().expect("an id");
    let in_use = format!(
        "error while removing network: network n2 has active endpoints (name:\"{}\" id:\"{}\")",
        ns.name(),
        &id[..12]
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().next(), Some(&*refusal(&in_use)));
    assert_eq!(docker.ok("network ls --filter type=custom --format {{.Name}}"), "n2\n");
    let absent = host.call("DELETE", "/networks/absent", None);
    assert_eq!((absent.status, &*absent.message()), (404, "network absent not found"));
    // Older clients say it in words of their own, and cannot be told to say nothing.
    assert!(docker.fails("network rm absent").contains("absent"));
    if docker.has_flag("network rm", "--force") {
        assert_eq!(docker.ok("network rm --force absent"), "");
    }
}

#[test]
fn t12_several_networks_are_inspected_and_one_is_not_there() {
    let host = daemon();
    let docker = host.docker();
    let output = docker.run("network inspect host nonexistent");
    assert_eq!(output.status.code(), Some(1));
    let inspected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(inspected.as_array().map(Vec::len), Some(1));
    assert_eq!(inspected[0]["Name"], "host");
    // Older clients have words of their own for it.
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let says = [&*refusal("network nonexistent not found"), "Error: No such network: nonexistent"];
    assert!(says.contains(&&*said), "{said}");
    assert_eq!(docker.json("network inspect --verbose bridge host").as_array().map(Vec::len), Some(2));
    assert_eq!(docker.ok("network inspect -f {{.Name}} bridge"), "bridge\n");
}

#[test]
fn a_network_is_found_by_id_then_name_then_the_start_of_its_id() {
    let host = daemon();
    let docker = host.docker();
    let create = |name: &str| docker.ok(&format!("network create --internal {name}")).trim().to_owned();
    let first = create("first");
    // Named as another's id begins.
    let other = create(&first[..6]);
    // Named as another's id is: out of reach by it.
    let full = create(&first);
    let name = |text: &str| docker.ok(&format!("network inspect -f {{{{.Id}}}} {text}")).trim().to_owned();
    assert_eq!(name(&first), first);
    assert_eq!(name(&first[..6]), other);
    assert_eq!(name(&first[..7]), first);
    assert_eq!(name(&full), full);
    docker.ok(&format!("network rm {full}"));

    // Enough networks for two ids to begin alike.
    let mut ids = vec![first, other];
    let alike = loop {
        let id = create(&format!("n{}", ids.len()));
        if let Some(alike) = ids.iter().find(|other| other[..1] == id[..1]) {
            break alike[..1].to_owned();
        }
        ids.push(id);
    };
    let matches = host.call("GET", "/networks", None).json();
    let matches = matches.as_array().expect("an array").iter();
    let matches =
        matches.filter(|network| network["Id"].as_str().is_some_and(|id| id.starts_with(&alike))).count();
    let says = format!("network {alike} is ambiguous ({matches} matches found based on ID prefix)");
    for (method, path, body) in [
        ("GET", format!("/networks/{alike}"), None),
        ("DELETE", format!("/networks/{alike}"), None),
        ("POST", format!("/networks/{alike}/disconnect"), Some(json!({"Container": "x", "Force": true}))),
    ] {
        let refused = host.call(method, &path, body.as_ref());
        assert_eq!((refused.status, refused.message()), (400, says.clone()), "{method} {path}");
    }
    assert_eq!(docker.fails(&format!("network inspect {alike}")), refusal(&says));
}

#[test]
fn names_are_what_docker_lets_them_be() {
    let host = daemon();
    let docker = host.docker();
    for name in ["test@#$", "a/b", "create", "prune", "ü ö", "%2f", "a?b"] {
        docker.ok(&format!("network create --internal '{name}'"));
        assert_eq!(docker.ok(&format!("network inspect -f {{{{.Name}}}} '{name}'")), format!("{name}\n"));
        let ns = Namespace::new("c");
        docker.ok(&format!("network connect '{name}' {}", container(&ns)));
        docker.ok(&format!("network disconnect '{name}' {}", container(&ns)));
        assert_eq!(docker.ok(&format!("network rm '{name}'")), format!("{name}\n"));
    }
    for name in ["", "  "] {
        let refused = host.call("POST", "/networks/create", Some(&json!({"Name": name})));
        assert_eq!((refused.status, &*refused.message()), (400, "invalid name: name is empty"));
    }
    assert_eq!(docker.fails("network create ''"), refusal("invalid name: name is empty"));
}

#[test]
fn drivers_and_scopes_that_netd_has_not_are_refused() {
    let host = daemon();
    let docker = host.docker();
    let before = docker.ok("network ls");
    let no_swarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                    node to swarm and try again.";
    for (arguments, status, says) in [
        (json!({"Driver": "overlay"}), 403, no_swarm),
        (json!({"Driver": "macvlan"}), 404, "plugin \"macvlan\" not found"),
        (json!({"IPAM": {"Driver": "dhcp"}}), 404, "plugin \"dhcp\" not found"),
        (json!({"Ingress": true}), 403, "Ingress network can only be global scope network"),
        (json!({"Scope": "swarm"}), 403, "cannot create a swarm scoped network when swarm is not active"),
    ] {
        let mut body = arguments.clone();
        body["Name"] = json!("x");
        let refused = host.call("POST", "/networks/create", Some(&body));
        assert_eq!((refused.status, &*refused.message()), (status, says), "{arguments}");
    }
    assert_eq!(docker.fails("network create -d overlay x"), refusal(no_swarm));
    assert_eq!(docker.fails("network create -d macvlan x"), refusal("plugin \"macvlan\" not found"));
    docker.ok("network create --scope local --attachable x");
    docker.ok("network rm x");
    assert_eq!(docker.ok("network ls"), before);
}

#[test]
fn t06_combinations_of_addresses_that_contradict_each_other() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --subnet=192.168.0.0/16 test0");
    let before = docker.ok("network ls");
    for arguments in [
        "--subnet=192.168.0.0/16 --ip-range=192.170.0.0/16",
        "--subnet=192.168.0.0/16 --gateway=192.168.0.1 --gateway=192.168.0.2",
        "--subnet=192.168.0.0/16 --subnet=192.168.1.0/16",
        "--subnet=192.168.128.0/17",
    ] {
        docker.fails(&format!("network create {arguments} test"));
        assert_eq!(docker.ok("network ls"), before, "{arguments}");
    }
    let overlap = "invalid pool request: Pool overlaps with other one on this address space";
    assert_eq!(docker.fails("network create --subnet=192.168.128.0/17 test"), refusal(overlap));
    let body = json!({"Name": "test", "IPAM": {"Config": [{"Subnet": "192.168.128.0/17"}]}});
    let refused = host.call("POST", "/networks/create", Some(&body));
    assert_eq!((refused.status, &*refused.message()), (403, overlap));
}

#[test]
fn t07_every_fault_in_the_addresses_is_named_at_once() {
    let host = daemon();
    let create = |name: &str, config: Value, ipv6: bool| {
        let body = json!({"Name": name, "EnableIPv6": ipv6, "IPAM": {"Driver": "default", "Config": config}});
        host.call("POST", "/networks/create", Some(&body))
    };
    for (config, lines) in [
        (json!([{"Subnet": "foobar"}]), "invalid subnet foobar: invalid CIDR block notation"),
        (json!([{"Subnet": "010.0.0.0/8"}]), "invalid subnet 010.0.0.0/8: invalid CIDR block notation"),
        (json!([{"Subnet": "10.10.10.0/8"}]), "invalid subnet 10.10.10.0/8: it should be 10.0.0.0/8"),
        (
            json!([{"Subnet": "10.10.0.0/16", "IPRange": "10.10.10.0/16"}]),
            "invalid ip-range 10.10.10.0/16: it should be 10.10.0.0/16",
        ),
        (
            json!([{"Subnet": "10.10.0.0/16", "IPRange": "10.0.0.0/8"}]),
            "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.10.0.0/16",
        ),
        (
            json!([{
                "Subnet": "10.10.0.0/16", "IPRange": "192.168.0.0/24", "Gateway": "10.11.0.1",
                "AuxiliaryAddresses": {"h": "10.12.0.1"}
            }]),
            "invalid ip-range 192.168.0.0/24: parent subnet 10.10.0.0/16 doesn't contain ip-range\n\
             invalid gateway 10.11.0.1: parent subnet 10.10.0.0/16 doesn't contain this address\n\
             invalid auxiliary address h: parent subnet 10.10.0.0/16 doesn't contain this address",
        ),
        (
            json!([{"Subnet": "10.10.0.0/16", "IPRange": "2001:db8::/32"}]),
            "invalid ip-range 2001:db8::/32: parent subnet is an IPv4 block",
        ),
        (
            json!([{"Subnet": "foobar"}, {"Subnet": "10.10.10.0/8"}, {"Subnet": "fd00::1/64"}]),
            "invalid subnet foobar: invalid CIDR block notation\n\
             invalid subnet 10.10.10.0/8: it should be 10.0.0.0/8\n\
             invalid subnet fd00::1/64: it should be fd00::/64",
        ),
    ] {
        let refused = create("bad", config.clone(), true);
        assert_eq!(
            (refused.status, refused.message()),
            (400, format!("invalid network config:\n{lines}")),
            "{config}"
        );
    }
    let made = create("good", json!([{"Subnet": "2001:db8::/32"}]), false);
    assert_eq!(made.status, 201, "{made:?}");
    let network = host.call("GET", "/networks/good", None).json();
    assert_eq!(network["EnableIPv6"], false);
    assert!(!network["IPAM"].to_string().contains("2001:db8"), "{network}");
}
