//! Many who want the same thing at once, and some who do not wait for it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::thread;

use netd_tests::lab::{Answer, Host, Namespace, until};
use serde_json::{Value, json};

use crate::{container, daemon};

/// The answers to requests that are sent at once.
fn at_once(host: &Host, requests: &[(&str, String, Option<Value>)]) -> Vec<Answer> {
    thread::scope(|scope| {
        let sent: Vec<_> = requests
            .iter()
            .map(|(method, path, body)| scope.spawn(move || host.call(method, path, body.as_ref())))
            .collect();
        sent.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    })
}

fn create(name: &str) -> (&'static str, String, Option<Value>) {
    ("POST", "/networks/create".to_owned(), Some(json!({"Name": name})))
}

/// Names of the kernel bridges that the host has, and of those that its networks say they have.
fn bridges(host: &Host) -> [BTreeSet<String>; 2] {
    let json = host.ns.ip("-json link show type bridge");
    let links: Value = serde_json::from_str(&json).expect("ip -json");
    let there = links
        .as_array()
        .expect("an array")
        .iter()
        .map(|link| link["ifname"].as_str().expect("a name").to_owned());
    let networks = host.call("GET", "/networks?filters=%7B%22driver%22%3A%5B%22bridge%22%5D%7D", None).json();
    let said = networks.as_array().expect("an array").iter().map(|network| {
        let named = network["Options"]["com.docker.network.bridge.name"].as_str().map(str::to_owned);
        named.unwrap_or_else(|| format!("br-{}", &network["Id"].as_str().expect("an id")[..12]))
    });
    [there.collect(), said.collect()]
}

#[test]
fn one_of_many_makes_the_network_and_one_removes_it() {
    let host = daemon();
    let before = (host.ns.configuration(), host.get("/networks"));
    for _ in 0..3 {
        let made = at_once(&host, &vec![create("n"); 8]);
        let (done, refused): (Vec<_>, Vec<_>) = made.iter().partition(|answer| answer.status == 201);
        assert_eq!(done.len(), 1, "{made:?}");
        for answer in refused {
            assert_eq!((answer.status, &*answer.message()), (409, "network with name n already exists"));
        }
        let removed = at_once(&host, &vec![("DELETE", "/networks/n".to_owned(), None); 8]);
        let (done, refused): (Vec<_>, Vec<_>) = removed.iter().partition(|answer| answer.status == 204);
        assert_eq!(done.len(), 1, "{removed:?}");
        for answer in refused {
            assert_eq!((answer.status, &*answer.message()), (404, "network n not found"));
        }
    }
    assert_eq!((host.ns.configuration(), host.get("/networks")), before);
}

#[test]
fn one_of_many_joins_and_one_leaves() {
    let host = daemon();
    host.docker().ok("network create n");
    let ns = Namespace::new("c");
    let body = json!({"Container": container(&ns)});
    for _ in 0..3 {
        let join = ("POST", "/networks/n/connect".to_owned(), Some(body.clone()));
        let joined = at_once(&host, &vec![join; 6]);
        assert_eq!(joined.iter().filter(|answer| answer.status == 200).count(), 1, "{joined:?}");
        assert!(joined.iter().all(|answer| [200, 403].contains(&answer.status)), "{joined:?}");
        let leave = ("POST", "/networks/n/disconnect".to_owned(), Some(body.clone()));
        let left = at_once(&host, &vec![leave; 6]);
        assert_eq!(left.iter().filter(|answer| answer.status == 200).count(), 1, "{left:?}");
        for answer in left.iter().filter(|answer| answer.status != 200) {
            assert!(answer.message().ends_with("is not connected to network n"), "{answer:?}");
        }
        assert!(!ns.ip("link show").contains("eth0"));
    }
}

#[test]
fn a_network_is_not_removed_from_under_those_who_join() {
    let host = daemon();
    let namespaces: Vec<_> = (0..3).map(|_| Namespace::new("c")).collect();
    let before = host.ns.configuration();
    for _ in 0..5 {
        assert_eq!(host.call("POST", "/networks/create", Some(&json!({"Name": "n"}))).status, 201);
        let mut requests: Vec<_> = namespaces
            .iter()
            .map(|ns| ("POST", "/networks/n/connect".to_owned(), Some(json!({"Container": container(ns)}))))
            .collect();
        requests.insert(1, ("DELETE", "/networks/n".to_owned(), None));
        let answers = at_once(&host, &requests);
        let [there, said] = bridges(&host);
        assert_eq!(there, said);
        let joined = answers.iter().filter(|answer| answer.status == 200).count();
        match host.call("GET", "/networks/n", None) {
            network if network.status == 200 => {
                assert_eq!(
                    network.json()["Containers"].as_object().map(serde_json::Map::len),
                    Some(joined),
                    "{answers:?}"
                );
                for ns in &namespaces {
                    host.call(
                        "POST",
                        "/networks/n/disconnect",
                        Some(&json!({"Container": container(ns), "Force": true})),
                    );
                }
                assert_eq!(host.call("DELETE", "/networks/n", None).status, 204);
            }
            absent => assert_eq!((absent.status, joined), (404, 0), "{answers:?}"),
        }
        assert_eq!(host.ns.configuration(), before);
    }
}

#[test]
fn a_hundred_networks_at_once_have_a_hundred_subnets() {
    let host = Host::new();
    host.configure(r#"{"default-address-pools": [{"base": "10.64.0.0/16", "size": 24}]}"#);
    host.start(&[]);
    let before = host.ns.configuration();
    let names: Vec<_> = (0..100).map(|number| format!("n{number}")).collect();
    let requests: Vec<_> = names.iter().map(|name| create(name)).collect();
    let answers = at_once(&host, &requests);
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let networks = host.call("GET", "/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D", None).json();
    let networks = networks.as_array().expect("an array");
    let subnets: BTreeSet<_> = networks
        .iter()
        .map(|network| network["IPAM"]["Config"][0]["Subnet"].as_str().expect("a subnet"))
        .collect();
    assert_eq!((networks.len(), subnets.len()), (100, 100), "{subnets:?}");
    let [there, said] = bridges(&host);
    assert_eq!(there, said);
    let pruned = host.call("POST", "/networks/prune", None).json();
    assert_eq!(pruned["NetworksDeleted"].as_array().map(Vec::len), Some(100));
    assert_eq!(host.ns.configuration(), before);
}

#[test]
fn a_client_that_does_not_wait_leaves_a_whole_network_or_none() {
    let host = daemon();
    let before = host.ns.configuration();
    for number in 0..10 {
        let body = json!({"Name": format!("n{number}")}).to_string();
        let request = format!(
            "POST /networks/create HTTP/1.1\r\nHost: netd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // All of it, or all but its end, or its head alone.
        let sent = [request.len(), request.len() - 1, request.len() - body.len()][number % 3];
        let mut stream = host.dial();
        stream.write_all(&request.as_bytes()[..sent]).expect("sending");
        drop(stream);
    }
    // One that is done although nobody waits for it is done whole; whether it is, is up to when the daemon sees the end.
    let whole = ["n0", "n3", "n6", "n9"];
    until("nothing is under way, and nothing left", || {
        let [there, said] = bridges(&host);
        let pruned = host.call("POST", "/networks/prune", None).json();
        for name in pruned["NetworksDeleted"].as_array().into_iter().flatten() {
            assert!(whole.iter().any(|whole| name == whole), "not asked for to the end: {name}");
        }
        there == said && host.ns.configuration() == before
    });
}
