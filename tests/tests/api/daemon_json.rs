//! The daemon's configuration: what it takes, what it refuses, and what of it can change while it runs.

use std::process::Output;

use netd_tests::lab::{Host, until};
use serde_json::{Value, json};

use crate::now;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The subnets of a network.
fn subnets(host: &Host, network: &str) -> Vec<String> {
    let inspected = host.docker().json(&format!("network inspect {network}"));
    let pools = inspected[0]["IPAM"]["Config"].as_array().expect("pools");
    pools.iter().map(|pool| pool["Subnet"].as_str().expect("a subnet").to_owned()).collect()
}

#[test]
fn t23_files_are_checked_without_a_start() {
    let host = Host::new();
    let file = host.state_dir().with_file_name("daemon.json");
    let file = file.display();
    for (config, flags, says) in [
        (
            r#"{"foo": 1}"#,
            vec![],
            "the following directives don't match any configuration option: foo".to_owned(),
        ),
        (
            r#"{"hosts": ["unix:///a"]}"#,
            vec!["-H", "tcp://b", "-H", "fd://"],
            "the following directives are specified both as a flag and in the configuration file: \
             hosts: (from flag: [tcp://b fd://], from file: [unix:///a])"
                .to_owned(),
        ),
        (
            r#"{"mtu": 1400, "icc": true}"#,
            vec!["--mtu", "1500", "--icc=false"],
            "icc: (from flag: false, from file: true), mtu: (from flag: 1500, from file: 1400)".to_owned(),
        ),
        (
            r#"{"mtu": 1400,"#,
            vec![],
            format!("unable to configure the daemon with file {file}: invalid JSON: "),
        ),
        (
            r#"{"mtu": "many"}"#,
            vec![],
            "json: cannot unmarshal string into Go struct field Config.mtu of type int".to_owned(),
        ),
        (r#"{"mtu": -1}"#, vec![], "invalid default MTU: -1".to_owned()),
        (
            r#"{"bridge": "br9", "bip": "10.0.0.1/24"}"#,
            vec![],
            "You specified -b & --bip, mutually exclusive options.".to_owned(),
        ),
        (
            r#"{"default-address-pools": [{"base": "x", "size": 24}]}"#,
            vec![],
            "invalid base prefix \"x\": ".to_owned(),
        ),
        (
            "{}",
            vec!["--default-address-pool", "base=10.0.0.0/8,k=v"],
            "unexpected key 'k' in 'k=v'".to_owned(),
        ),
        (
            r#"{"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}"#,
            vec![],
            "could not construct local v4 address space: ".to_owned(),
        ),
        (r#"{"hosts": ["tcp://:5555/"]}"#, vec![], "invalid bind address (tcp://:5555/)".to_owned()),
        (r#"{"log-level": "loud"}"#, vec![], "invalid logging level: loud".to_owned()),
        (r#"{"labels": ["a=1", "a=2"]}"#, vec![], "conflict labels for a=2 and a=1".to_owned()),
    ] {
        host.configure(config);
        for more in [&[][..], &["--validate"]] {
            let output = host.daemon_ends(&[&flags[..], more].concat());
            let said = said(&output);
            assert!(said.contains(&says), "{config} {flags:?} {more:?}: {said}");
            assert_ne!(output.status.code(), Some(0), "{config} {flags:?} {more:?}");
        }
    }
    for config in [
        "",
        "\u{feff}{\"debug\": true}",
        "{}",
        r#"{"iptables": false, "icc": false, "storage-driver": "overlay2"}"#,
    ] {
        host.configure(config);
        let output = host.daemon_ends(&["--validate"]);
        assert!(
            output.status.success() && output.stdout == b"configuration OK\n",
            "{config:?}: {}",
            said(&output)
        );
    }
    let output = host.daemon_ends(&["--validate", "--config-file", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2), "given twice, as --config: {}", said(&output));
    assert!(!host.state_dir().exists() && !host.run_dir().exists(), "nothing was started");
}

#[test]
fn t23_one_file_serves_both_daemons() {
    let host = Host::new();
    host.configure("\u{feff}{\"log-driver\": \"journald\", \"iptables\": true, \"ip\": \"127.0.0.1\", \"log-format\": \"json\"}");
    host.start(&[]);
    for key in ["log-driver", "iptables"] {
        assert_eq!(host.log().matches(&format!("`{key}`")).count(), 1, "{}", host.log());
    }
    for line in host.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["msg"].is_string() && line["time"].is_string(), "{line}");
    }
    let bridge = host.docker().json("network inspect bridge");
    assert_eq!(bridge[0]["Options"]["com.docker.network.bridge.host_binding_ipv4"], "127.0.0.1");
}

#[test]
fn a_hangup_reloads_what_can_be_reloaded() {
    let host = Host::new();
    host.configure(r#"{"labels": ["a=1"], "mtu": 1400}"#);
    host.start(&[]);
    let info = || host.docker().json("info --format '{{json .}}'");
    assert_eq!((&info()["Labels"], &info()["Debug"]), (&json!(["a=1"]), &json!(false)));

    host.configure(r#"{"labels": ["a=2", "b="], "mtu": 1500, "debug": true}"#);
    host.hang_up();
    until("the labels are new", || info()["Labels"] == json!(["a=2", "b="]));
    assert_eq!(info()["Debug"], json!(true));
    until("the change that has to wait is told of", || {
        host.log().contains("mtu: 1500 (was 1400) takes effect at the next start")
    });
    assert!(host.log().contains("labels: [a=2 b=] (was [a=1])"), "{}", host.log());
    let told = || {
        let line =
            format!("events --since 1 --until {} --filter type=daemon --format '{{{{json .}}}}'", now());
        host.docker()
            .ok(&line)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect::<Vec<Value>>()
    };
    let [event] = &told()[..] else { panic!("{:?}", told()) };
    assert_eq!((&event["Type"], &event["Action"]), (&json!("daemon"), &json!("reload")));
    let attributes = json!({
        "debug": "true", "labels": r#"["a=2","b="]"#, "live-restore": "true", "name": info()["Name"],
    });
    assert_eq!(event["Actor"], json!({"ID": info()["ID"], "Attributes": attributes}));
    let bridge = host.docker().json("network inspect bridge");
    assert_eq!(bridge[0]["Options"]["com.docker.network.driver.mtu"], "1400");

    host.configure(r#"{"labels": ["a"#);
    host.hang_up();
    until("the bad file is told of", || {
        host.log().contains("the configuration stays as it was: unable to configure")
    });
    assert_eq!(info()["Labels"], json!(["a=2", "b="]));
    host.configure(r#"{"labels": ["a"]}"#);
    host.hang_up();
    until("the bad label is told of", || host.log().contains("bad attribute format: a"));
    assert_eq!(told().len(), 1, "what was refused is no news");
    assert_eq!(info()["Labels"], json!(["a=2", "b="]));
}

#[test]
fn t25_the_bridges_own_address() {
    let host = Host::new();
    for (bip, says) in [
        ("192.168.1.0/24", "failed to allocate gateway (192.168.1.0): Address already in use"),
        ("192.168.1.255/24", "failed to allocate gateway (192.168.1.255): Address already in use"),
        ("192.168.1.1", "invalid CIDR address: 192.168.1.1"),
    ] {
        host.configure(&json!({"bip": bip}).to_string());
        let output = host.daemon_ends(&[]);
        let said = said(&output);
        assert!(output.status.code() == Some(1) && said.contains(says), "{bip}: {said}");
    }
    host.configure(
        r#"{"bip": "172.60.0.1/16", "default-address-pools": [{"base": "175.30.0.0/16", "size": 16}]}"#,
    );
    host.start(&[]);
    assert_eq!(subnets(&host, "bridge"), ["172.60.0.0/16"]);
    assert!(host.ns.ip("address show netd0").contains("172.60.0.1/16"));
}

#[test]
fn t26_networks_come_from_the_pools() {
    let host = Host::new();
    host.configure(
        r#"{"default-address-pools": [{"base": "175.33.0.0/16", "size": 24}, {"base": "175.30.0.0/16", "size": 16}]}"#,
    );
    host.start(&[]);
    assert_eq!(subnets(&host, "bridge"), ["175.30.0.0/16"]);
    for (name, subnet) in [("n1", "175.33.0.0/24"), ("n2", "175.33.1.0/24")] {
        host.docker().ok(&format!("network create {name}"));
        assert_eq!(subnets(&host, name), [subnet]);
    }
    host.docker().ok("network rm n1");
    host.docker().ok("network create n3");
    assert_eq!(subnets(&host, "n3"), ["175.33.0.0/24"]);
}

#[test]
fn t27_networks_keep_their_subnets_when_the_pools_change() {
    let host = Host::new();
    host.start(&["--default-address-pool", "base=175.30.0.0/16,size=24"]);
    host.docker().ok("network create n1");
    let before = [subnets(&host, "bridge"), subnets(&host, "n1")];
    assert_eq!(before, [["175.30.0.0/24"], ["175.30.1.0/24"]]);
    host.stop();
    host.start(&[
        "--default-address-pool",
        "base=175.30.0.0/22,size=24",
        "--default-address-pool=base=175.40.0.0/16,size=24",
    ]);
    assert_eq!([subnets(&host, "bridge"), subnets(&host, "n1")], before);
    for (name, subnet) in [("n2", "175.30.2.0/24"), ("n3", "175.30.3.0/24"), ("n4", "175.40.0.0/24")] {
        host.docker().ok(&format!("network create {name}"));
        assert_eq!(subnets(&host, name), [subnet], "{name}");
    }
}
