//! Bad input: a clear error, and nothing changed.

use netd_tests::lab::{Family, Lab, Namespace, Ping, netd_binary, ping};

/// What netd says when it does not start.
fn refuses_to_start(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.host.daemon_ends(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

/// All that netd could have changed: links, addresses and routes of the host, its networks and their endpoints.
fn state(lab: &Lab) -> [String; 3] {
    let get = |path| lab.host.get(path).expect("the daemon answers").1;
    [lab.host.ns.configuration(), get("/networks"), get("/networks/dual")]
}

#[test]
fn configurations() {
    let lab = Lab::wired();
    let before = lab.host.ns.configuration();
    for (config, says) in [
        (r#"{"bip": "192.168.1.0/24"}"#, "failed to allocate gateway (192.168.1.0): Address already in use"),
        (r#"{"bip": "192.168.1.1"}"#, "invalid CIDR address: 192.168.1.1"),
        (r#"{"bip": "nonsense"}"#, "bip"),
        (
            r#"{"no-such-key": 1}"#,
            "the following directives don't match any configuration option: no-such-key",
        ),
        (r#"{"mtu": "many"}"#, "mtu"),
        (r#"{"#, "daemon.json"),
    ] {
        lab.host.configure(config);
        let said = refuses_to_start(&lab, &[]);
        assert!(said.contains(says), "{config}: {said}");
        assert_eq!(lab.host.ns.configuration(), before, "{config}");
    }
    lab.host.configure("{}");
    for arguments in [["--host", "gopher://x"], ["--metrics-addr", "nonsense"], ["--uplink", "no-such-link"]]
    {
        let said = refuses_to_start(&lab, &arguments);
        assert!(said.contains(arguments[1]), "{arguments:?}: {said}");
        assert_eq!(lab.host.ns.configuration(), before, "{arguments:?}");
    }
    lab.host.start(&[]);
}

#[test]
fn a_state_directory_that_another_daemon_holds() {
    let lab = Lab::new();
    let before = state(&lab);
    let other = lab.host.run_dir().join("other");
    let mut second = lab.host.command(netd_binary());
    second.arg("daemon").arg("--state-dir").arg(lab.host.state_dir()).arg("--run-dir").arg(other);
    let said = lab.host.ends(&mut second);
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(lab.host.state_dir().to_str().expect("a path of text")), "{said}");
    assert_eq!(state(&lab), before);
    let said = refuses_to_start(&lab, &["--cleanup"]);
    assert!(said.contains(lab.host.state_dir().to_str().expect("a path of text")), "{said}");
    assert_eq!(state(&lab), before);
}

#[test]
fn a_network_namespace_that_another_netd_has() {
    let lab = Lab::new();
    let before = state(&lab);
    let refused = || {
        let mut second = lab.host.command(netd_binary());
        let directory = |name| lab.host.run_dir().join(name);
        second.args(["daemon", "--plugin-socket", "none"]);
        second.arg("--state-dir").arg(directory("state")).arg("--run-dir").arg(directory("run"));
        let said = lab.host.ends(&mut second);
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && error.contains("another netd"), "{error}");
    };
    refused();
    assert_eq!(state(&lab), before);
    // Its programs are there without it, too.
    lab.host.kill();
    let before = lab.host.ns.configuration();
    refused();
    assert_eq!(lab.host.ns.configuration(), before);
}

#[test]
fn networks() {
    let lab = Lab::new();
    let before = state(&lab);
    for (arguments, says) in [
        ("create --subnet 172.30.0.0/25 overlaps", "Pool overlaps with other one on this address space"),
        ("create --subnet 172.30.1.0/33 bad", "172.30.1.0/33"),
        ("create --subnet 172.30.1.7/24 bad", "it should be 172.30.1.0/24"),
        ("create --subnet 172.31.0.0/24 --gateway 172.30.9.1 bad", "172.30.9.1"),
        ("create dual", "network with name dual already exists"),
        ("inspect absent", "network absent not found"),
        ("rm absent", "network absent not found"),
        ("rm bridge", "bridge"),
        ("connect absent netns:absent", "No such container: netns:absent"),
    ] {
        let said = lab.host.netd_fails(&format!("network {arguments}"));
        assert!(said.contains(says), "netd network {arguments}: {said}");
        assert_eq!(state(&lab), before, "netd network {arguments}");
    }
}

#[test]
fn endpoints() {
    let lab = Lab::new();
    let a = lab.container("a");
    let connected = format!("netns:{}", a.ns.name());
    let stranger = Namespace::new("stranger");
    let before = state(&lab);
    for (arguments, says) in [
        (format!("connect dual {connected}"), a.ns.name()),
        ("connect dual netns:no-such-namespace".to_owned(), "no-such-namespace"),
        ("connect dual netns:../netns/escape".to_owned(), "escape"),
        ("connect dual /no/such/path".to_owned(), "/no/such/path"),
        ("connect dual /proc/self/ns/mnt".to_owned(), "/proc/self/ns/mnt"),
        ("connect dual /etc/hostname".to_owned(), "/etc/hostname"),
        ("connect dual pid:4194999".to_owned(), "4194999"),
        ("connect dual pid:many".to_owned(), "many"),
        ("connect dual plain".to_owned(), "plain"),
        (format!("disconnect dual netns:{}", stranger.name()), stranger.name()),
        (format!("disconnect bridge {connected}"), "is not connected to network bridge"),
    ] {
        let said = lab.host.netd_fails(&format!("network {arguments}"));
        assert!(said.contains(says), "netd network {arguments}: {said}");
        assert_eq!(state(&lab), before, "netd network {arguments}");
    }
}

#[test]
fn a_step_that_fails_half_way_is_undone() {
    let lab = Lab::new();
    // A bridge can be made, but not of this MTU.
    let before = state(&lab);
    let said = lab.host.netd_fails("network create --opt com.docker.network.driver.mtu=70000 large");
    assert!(!said.is_empty());
    assert_eq!(state(&lab), before);

    // The name that the network's bridge should get is taken by another kind of link.
    lab.host.ns.ip("link add taken type veth peer name other");
    let before = state(&lab);
    lab.host.netd_fails("network create --opt com.docker.network.bridge.name=taken --subnet 172.31.0.0/24 n");
    assert_eq!(state(&lab), before);
}

#[test]
fn a_connect_that_fails_half_way_is_undone() {
    let lab = Lab::new();
    let a = lab.container_on("bridge", "a");
    let connect =
        |options: &str| format!("network connect {options} --gw-priority 1 dual netns:{}", a.ns.name());
    let all = || {
        (
            state(&lab),
            a.ns.configuration(),
            lab.host.netd("fdb ls"),
            lab.host.netd_json("status")["links"].clone(),
        )
    };
    let before = all();
    // By then there is a pair of interfaces, one of them in the namespace.
    let sysctl = "com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.hop_limit=none";
    let said = lab.host.netd_fails(&connect(&format!("--driver-opt {sysctl}")));
    assert!(said.contains("set net/ipv6/conf/eth1/hop_limit to none"), "{said}");
    assert_eq!(all(), before);
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));

    lab.host.netd(&connect(""));
    for family in Family::BOTH {
        assert!(ping(&a.ns, family.outside(), Ping::default()));
    }
}

#[test]
fn a_pinned_map_of_another_abi() {
    let lab = Lab::new();
    let a = lab.container("a");
    let works = || assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    works();
    lab.host.kill();
    let before = lab.host.ns.configuration();
    // One map in the place of another has another size, as a map of another netd would.
    let script = r#"pins=$(dirname "$(find "$0" -name GLOBALS)") && mv "$pins/NETWORKS" "$pins/GLOBALS""#;
    let moved =
        lab.host.command("sh").arg("-c").arg(script).arg(lab.host.run_dir()).output().expect("running sh");
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let said = refuses_to_start(&lab, &[]);
    assert!(said.contains("GLOBALS") && said.contains("--cleanup"), "{said}");
    assert_eq!(lab.host.ns.configuration(), before);
    works();
    lab.host.cleanup();
    lab.host.start(&[]);
}
