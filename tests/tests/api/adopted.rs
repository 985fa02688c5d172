//! Networks on bridges that are the user's.

use netd_tests::lab::Namespace;

use crate::{container, daemon};

/// The addresses that `br9` bears, the kernel's own apart.
fn addresses(ns: &Namespace) -> Vec<String> {
    let shown = ns.ip("-oneline address show dev br9");
    shown
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|net| !net.starts_with("fe80:"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_bridge_keeps_its_own_addresses_and_loses_those_of_its_network() {
    let host = daemon();
    let docker = host.docker();
    host.ns.ip("link add name br9 type bridge");
    host.ns.ip("address add 10.9.0.9/24 dev br9");
    let create = "network create -o com.docker.network.bridge.name=br9";
    // One that it bears already, one that it does not, and one of the pools, twice: the first leaves nothing in the second's way.
    for (arguments, given) in [
        ("--subnet 10.9.0.0/24 --gateway 10.9.0.9", None),
        ("--subnet 10.8.0.0/24", Some("10.8.0.1/24")),
        ("", Some("172.18.0.1/16")),
        ("", Some("172.18.0.1/16")),
        ("--ipv6 --subnet 10.8.0.0/24 --subnet fd00:8::/64", Some("fd00:8::1/64")),
    ] {
        docker.ok(&format!("{create} {arguments} n"));
        assert!(given.is_none_or(|given| addresses(&host.ns).iter().any(|net| net == given)), "{arguments}");
        let ns = Namespace::new("c");
        docker.ok(&format!("network connect n {}", container(&ns)));
        docker.ok(&format!("network disconnect n {}", container(&ns)));
        // Whose an address is, is known across a restart.
        host.stop();
        host.start(&[]);
        docker.ok("network rm n");
        assert_eq!(addresses(&host.ns), ["10.9.0.9/24"], "{arguments}");
    }
    docker.ok(&format!("{create} n"));
    host.stop();
    host.cleanup();
    assert_eq!(addresses(&host.ns), ["10.9.0.9/24"]);
}

#[test]
fn the_default_networks_bridge_loses_what_it_was_given() {
    let host = netd_tests::lab::Host::new();
    host.ns.ip("link add name br9 type bridge");
    host.start(&["--bridge", "br9"]);
    assert_eq!(addresses(&host.ns), ["172.17.0.1/16"]);
    for arguments in [&["--bridge", "br9"][..], &["--bridge", "none"]] {
        host.stop();
        host.start(arguments);
    }
    assert!(addresses(&host.ns).is_empty());
    host.ns.ip("link show br9");
}
