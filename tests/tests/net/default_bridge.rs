//! The default network: what the configuration says, and what its bridge bears already (docker.md 5.2).

use netd_tests::lab::Lab;
use serde_json::{Value, json};

/// A network as the daemon shows it.
fn inspect(lab: &Lab, network: &str) -> Value {
    let (status, body) = lab.host.get(&format!("/networks/{network}")).expect("the daemon answers");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Runs a daemon with a configuration on a host whose bridge, `netd0` unless it is the user's, bears some addresses. What
/// inspection shows of the default network's addresses.
fn ipam_of(lab: &Lab, bridge: &str, addresses: &[&str], configuration: &Value) -> Value {
    lab.host.configure(&configuration.to_string());
    if !addresses.is_empty() {
        lab.host.ns.ip(&format!("link add name {bridge} type bridge"));
        for address in addresses {
            lab.host.ns.ip(&format!("address add {address} dev {bridge}"));
        }
        lab.host.ns.ip(&format!("link set {bridge} up"));
    }
    lab.host.start(&[]);
    let first = inspect(lab, "bridge")["IPAM"]["Config"].take();
    lab.host.stop();
    lab.host.start(&[]);
    assert_eq!(inspect(lab, "bridge")["IPAM"]["Config"], first, "a restart changes nothing");
    let seen = lab.host.ns.ip(&format!("-oneline address show dev {bridge}"));
    for pool in first.as_array().expect("a list") {
        if let Some(gateway) = pool["Gateway"].as_str() {
            assert!(seen.contains(&format!(" {gateway}/")), "{bridge} bears {gateway}: {seen}");
        }
    }
    lab.host.stop();
    lab.host.cleanup();
    if bridge != "netd0" {
        lab.host.ns.ip(&format!("link delete {bridge}"));
    }
    first
}

/// T24 a to j.
#[test]
fn the_subnet_of_netds_own_bridge() {
    let lab = Lab::wired();
    let pools = json!([
        {"base": "192.168.176.0/20", "size": 24}, {"base": "fdd1:8161:2d2c::/56", "size": 64}
    ]);
    let at = |subnet: &str, range: &str, gateway: &str| {
        let mut pool = json!({"Subnet": subnet});
        for (key, value) in [("IPRange", range), ("Gateway", gateway)] {
            if !value.is_empty() {
                pool[key] = value.into();
            }
        }
        pool
    };
    let (s20, s24, t24) = ("192.168.176.0/20", "192.168.176.0/24", "192.168.177.0/24");
    let (a, a20, a24) = ("192.168.176.88", "192.168.176.88/20", "192.168.176.88/24");
    let v6 = "fdd1:8161:2d2c::/64";
    for (case, addresses, configuration, wanted) in [
        (
            "a",
            &[][..],
            json!({"default-address-pools": pools, "ipv6": true}),
            json!([at(s24, "", "192.168.176.1"), at(v6, "", "fdd1:8161:2d2c::1")]),
        ),
        ("b", &[], json!({"fixed-cidr": s24}), json!([at(s24, s24, "")])),
        (
            "c",
            &[],
            json!({"bip": a24, "bip6": "fdd1:8161:2d2c::8888/64", "ipv6": true}),
            json!([at(s24, "", a), at(v6, "", "fdd1:8161:2d2c::8888")]),
        ),
        (
            "d",
            &[a24, "fdd1:8161:2d2c::8888/64"],
            json!({"ipv6": true}),
            json!([at(s24, "", a), at(v6, "", "fdd1:8161:2d2c::8888")]),
        ),
        ("e", &[a20], json!({"fixed-cidr": s24}), json!([at(s20, s24, a)])),
        (
            "f",
            &[a20],
            json!({"fixed-cidr": s24, "bip": "192.168.176.99/24"}),
            json!([at(s24, s24, "192.168.176.99")]),
        ),
        ("g", &[a24], json!({"fixed-cidr": s20}), json!([at(s20, s20, a)])),
        ("h", &[a24], json!({"fixed-cidr": t24}), json!([at(t24, t24, "")])),
        (
            "i",
            &[a24],
            json!({"fixed-cidr": t24, "bip": "192.168.177.99/24"}),
            json!([at(t24, t24, "192.168.177.99")]),
        ),
    ] {
        assert_eq!(ipam_of(&lab, "netd0", addresses, &configuration), wanted, "T24 {case}");
    }

    // j: the gateway is the link-local address that the kernel gives the bridge.
    lab.host.configure(r#"{"fixed-cidr-v6": "fe80::/64", "ipv6": true}"#);
    lab.host.start(&[]);
    let pool = inspect(&lab, "bridge")["IPAM"]["Config"][1].take();
    let addresses = lab.host.ns.ip("-oneline -6 address show dev netd0");
    assert_eq!((&pool["Subnet"], &pool["IPRange"]), (&json!("fe80::/64"), &json!("fe80::/64")));
    let gateway = pool["Gateway"].as_str().expect("a gateway");
    assert!(addresses.contains(&format!("inet6 {gateway}/64")), "T24 j: {gateway} in {addresses}");
}

/// T24 k and l.
#[test]
fn the_subnet_of_a_users_bridge() {
    let lab = Lab::wired();
    let a = "192.168.176.88";
    let (a20, a24) = (&*format!("{a}/20"), &*format!("{a}/24"));
    let three = ["192.168.160.88/20", a20, "192.168.192.88/20"];
    for (case, addresses, range, wanted) in [
        (
            "k",
            &three[..],
            "192.168.176.0/24",
            json!({"Subnet": "192.168.176.0/20", "IPRange": "192.168.176.0/24", "Gateway": a}),
        ),
        (
            "k",
            &three,
            "192.168.177.0/24",
            json!({"Subnet": "192.168.176.0/20", "IPRange": "192.168.177.0/24", "Gateway": a}),
        ),
        ("l", &[a24], "192.168.176.0/20", json!({"Subnet": "192.168.176.0/24", "Gateway": a})),
        (
            "l",
            &["192.168.160.88/20"],
            "192.168.176.0/24",
            json!({"Subnet": "192.168.160.0/20", "Gateway": "192.168.160.88"}),
        ),
    ] {
        let configuration = json!({"bridge": "br9", "fixed-cidr": range});
        assert_eq!(ipam_of(&lab, "br9", addresses, &configuration), json!([wanted]), "T24 {case}");
    }

    lab.host.configure(r#"{"bridge": "br9", "ipv6": true, "fixed-cidr-v6": "fd00:9::/64"}"#);
    lab.host.ns.ip("link add name br9 type bridge");
    lab.host.ns.ip("address add fd00:8::1/64 dev br9");
    let output = lab.host.daemon_ends(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    let text = "fixed-cidr-v6=fd00:9::/64 is outside any subnet implied by addresses on the user-managed default bridge";
    assert!(!output.status.success() && said.contains(text), "{said}");
}

/// T25, and what T49 says of `-b`.
#[test]
fn a_default_network_that_cannot_be() {
    let lab = Lab::wired();
    let before = lab.host.ns.configuration();
    lab.host.ns.ip("link add name dummy0 type veth peer name other0");
    let with_dummy = lab.host.ns.configuration();
    lab.host.ns.sysctl("net.ipv4.ip_forward", "0");
    for (configuration, says) in [
        (r#"{"bip": "192.168.1.0/24"}"#, "failed to allocate gateway (192.168.1.0): Address already in use"),
        (
            r#"{"bip": "192.168.1.255/24"}"#,
            "failed to allocate gateway (192.168.1.255): Address already in use",
        ),
        (r#"{"bip": "192.168.1.1"}"#, "invalid CIDR address: 192.168.1.1"),
        (
            r#"{"bridge": "nosuchbr"}"#,
            "bridge device with non default name nosuchbr must be created manually",
        ),
        (r#"{"bridge": "dummy0"}"#, "existing interface dummy0 is not a bridge"),
        (
            r#"{"ipv6": true, "mtu": 1200}"#,
            "invalid value for `mtu`: invalid MTU number: 1200 (IPv6 needs 1280 bytes)",
        ),
        (r#"{"bip": "127.0.0.1/8"}"#, "loopback subnet '127.0.0.1/8' is not allowed"),
        (
            r#"{"bip": "10.9.0.1/24", "fixed-cidr": "10.8.0.0/24"}"#,
            "invalid ip-range 10.8.0.0/24: parent subnet 10.9.0.0/24 doesn't contain ip-range",
        ),
    ] {
        lab.host.configure(configuration);
        let output = lab.host.daemon_ends(&[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{configuration}: {said}");
        assert_eq!(lab.host.ns.configuration(), with_dummy, "{configuration}");
        assert_eq!(lab.host.ns.read_sysctl("net.ipv4.ip_forward"), "0", "{configuration}");
        assert!(!lab.host.run_dir().join("bpf").exists(), "{configuration}: nothing was loaded");
        // Without a look at the host.
        let valid = lab.host.daemon_ends(&["--validate"]).status.success();
        assert_eq!(valid, configuration.contains("bridge"), "{configuration}");
    }
    lab.host.ns.ip("link delete dummy0");
    assert_eq!(lab.host.ns.configuration(), before);
    // A bip goes before the pools.
    let pools = r#"[{"base": "10.9.0.0/16", "size": 24}]"#;
    lab.host.configure(&format!(r#"{{"bip": "172.60.0.1/16", "default-address-pools": {pools}}}"#));
    lab.host.start(&[]);
    let config = inspect(&lab, "bridge")["IPAM"]["Config"].take();
    assert_eq!(config, json!([{"Subnet": "172.60.0.0/16", "Gateway": "172.60.0.1"}]));
}
