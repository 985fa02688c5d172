//! What a container finds on its network.

use std::net::IpAddr;
use std::process::Stdio;

use netd_tests::lab::{Container, DUAL, Family, Lab, Namespace, Ping, netd_binary, ping};

fn link(ns: &Namespace, name: &str) -> serde_json::Value {
    let json = ns.ip(&format!("-json link show dev {name}"));
    let mut links: Vec<serde_json::Value> = serde_json::from_str(&json).expect("ip -json");
    links.remove(0)
}

fn links(ns: &Namespace) -> Vec<String> {
    let json = ns.ip("-json link show");
    let links: Vec<serde_json::Value> = serde_json::from_str(&json).expect("ip -json");
    links.iter().filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect()
}

#[test]
fn an_interface_with_all_that_it_takes() {
    let lab = Lab::new();
    let a = lab.container("a");
    let eth0 = link(&a.ns, "eth0");
    assert_eq!(eth0["mtu"], 1500);
    assert!(eth0["flags"].as_array().expect("flags").contains(&"UP".into()), "{eth0}");
    let mac = eth0["address"].as_str().expect("a MAC");
    let first = u8::from_str_radix(&mac[..2], 16).expect("hexadecimal");
    assert_eq!(first & 3, 2, "locally administered, and a station's: {mac}");

    assert_eq!(a.ipv4, "172.30.0.2".parse::<std::net::Ipv4Addr>().expect("an address"));
    assert_eq!(a.gateway(Family::V4), "172.30.0.1".parse::<IpAddr>().expect("an address"));
    assert_eq!(a.ipv6, Some("fd00:30::2".parse().expect("an address")));
    assert_eq!(a.gateway(Family::V6), "fd00:30::1".parse::<IpAddr>().expect("an address"));
    for family in Family::BOTH {
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
    }
}

#[test]
fn the_default_network_is_dockers() {
    let lab = Lab::new();
    let a = lab.container_on("bridge", "a");
    assert_eq!(a.ipv4, "172.17.0.2".parse::<std::net::Ipv4Addr>().expect("an address"));
    assert_eq!(a.gateway(Family::V4), "172.17.0.1".parse::<IpAddr>().expect("an address"));
    assert_eq!(a.ipv6, None);
    let routes = lab.host.ns.ip("-4 route show dev netd0");
    assert!(routes.contains("172.17.0.0/16"), "{routes}");
    let netd0 = lab.host.ns.ip("-details link show dev netd0");
    assert!(netd0.contains(" bridge "), "a real bridge: {netd0}");
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
}

#[test]
fn the_default_network_makes_way_for_what_the_host_uses() {
    let lab = Lab::wired();
    lab.host.ns.ip("route add 172.17.5.0/24 via 203.0.113.10");
    lab.host.start(&[]);
    let a = lab.container_on("bridge", "a");
    assert_eq!(a.ipv4, "172.18.0.2".parse::<std::net::Ipv4Addr>().expect("an address"));
}

#[test]
fn a_bip_is_the_gateway_and_the_range() {
    let lab = Lab::wired();
    lab.host.configure(r#"{"bip": "172.60.0.1/24"}"#);
    lab.host.start(&[]);
    let a = lab.container_on("bridge", "a");
    assert_eq!(
        (a.ipv4.to_string(), a.gateway(Family::V4).to_string()),
        ("172.60.0.2".into(), "172.60.0.1".into())
    );
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
}

#[test]
fn a_namespace_is_named_by_path_or_by_process() {
    let lab = Lab::new();
    let by_path = Namespace::new("path");
    lab.host.netd(&format!("network connect dual {}", by_path.path().display()));
    let by_path = Container::of(by_path);

    let by_pid = Namespace::new("pid");
    // Ends with this test, when its input does.
    let mut process = by_pid.command("cat").stdin(Stdio::piped()).spawn().expect("running cat");
    lab.host.netd(&format!("network connect dual pid:{}", process.id()));
    let by_pid = Container::of(by_pid);
    assert!(ping(&by_path.ns, by_pid.ipv4.into(), Ping::default()));

    let inspected = lab.host.get("/networks/dual").expect("the daemon answers").1;
    for name in [by_path.ns.name().to_owned(), process.id().to_string()] {
        assert!(inspected.contains(&format!(r#""Name":"{name}""#)), "{name} in {inspected}");
    }
    lab.host.netd(&format!("network disconnect dual pid:{}", process.id()));
    assert!(links(&by_pid.ns).iter().all(|link| link != "eth0"));
    process.kill().and_then(|()| process.wait().map(drop)).expect("ending cat");
}

#[test]
fn a_container_that_dies_makes_room_for_others() {
    let lab = Lab::new();
    // A namespace that is gone without a word; the kernel soon gives its inode to another one.
    for network in [DUAL, DUAL, "bridge", "bridge"].repeat(3) {
        let a = lab.container_on(network, "a");
        assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    }
}

#[test]
fn a_network_that_goes_leaves_nothing() {
    let lab = Lab::new();
    let before = links(&lab.host.ns);
    lab.host.netd("network create --subnet 172.31.0.0/24 passing");
    let a = lab.container_on("passing", "a");
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    let busy = lab.host.netd_fails("network rm passing");
    assert!(busy.contains("active endpoints"), "{busy}");
    lab.host.netd(&format!("network disconnect passing netns:{}", a.ns.name()));
    lab.host.netd("network rm passing");
    assert_eq!(links(&lab.host.ns), before);
    assert!(!lab.host.ns.ip("route show").contains("172.31.0.0"));
    assert!(!lab.host.netd("network ls").contains("passing"));
}

#[test]
fn a_command_runs_on_a_network_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let before = links(&lab.host.ns);
    let inspect = || lab.host.get("/networks/dual").expect("the daemon answers").1;
    let (network, name) = (inspect(), format!("{}-run", lab.host.ns.name()));
    for (script, status) in
        [("true", 0), ("exit 7", 7), ("ip -brief address show eth0 | grep -q 172.30.0.2", 0)]
    {
        let mut run = lab.host.client(&format!("run --network dual --name {name} -- sh -c"));
        let output = run.arg(script).output().expect("running netd");
        assert_eq!(output.status.code(), Some(status), "{script}: {output:?}");
    }
    let mut run = lab.host.client("run -- cat /proc/self/net/dev");
    let output = run.output().expect("running netd");
    let devices = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(devices.contains("eth0") && !devices.contains("up0"), "{devices}");
    assert_eq!(links(&lab.host.ns), before);
    assert_eq!(inspect(), network);
    // As under nohup(1).
    let mut shell = lab.host.command("sh");
    shell.arg("-c").arg("trap '' HUP; exec \"$0\" run --host \"$1\" -- sh -c 'kill -HUP $$; exit 7'");
    shell.arg(netd_binary()).arg(format!("unix://{}", lab.host.socket().display()));
    assert_eq!(shell.status().expect("running a shell").code(), Some(7), "what was ignored stays so");
    let missing = lab.host.client("run -- /no/such/program").output().expect("running netd");
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    assert_eq!((links(&lab.host.ns), inspect()), (before, network));
}

#[test]
fn what_somebody_had_who_is_gone_is_to_be_had() {
    let lab = Lab::new();
    lab.host.netd("network create --subnet 172.29.0.0/30 small");
    for _ in 0..2 {
        // The only address that is left, and a port.
        let ns = Namespace::new("short");
        lab.host
            .netd(&format!("network connect --driver-opt netd.publish=8080:80 small netns:{}", ns.name()));
    }
    let container = lab.container("a");
    lab.host.netd(&format!("publish netns:{} 8080:80", container.ns.name()));
    lab.host.netd("network rm small");
    // An external address: given to another, and taken back. A port: unpublished.
    let departs_with = |line: &str| {
        let ns = Namespace::new("short");
        lab.host.netd(&format!("network connect bridge netns:{}", ns.name()));
        lab.host.netd(&line.replace("ENDPOINT", &format!("netns:{}", ns.name())));
        ns.name().to_owned()
    };
    departs_with("nat add 198.51.100.77 ENDPOINT");
    lab.host.netd(&format!("nat add 198.51.100.77 netns:{}", container.ns.name()));
    lab.host.netd("nat rm 198.51.100.77");
    departs_with("nat add 198.51.100.77 ENDPOINT");
    lab.host.netd("nat rm 198.51.100.77");
    let name = departs_with("publish ENDPOINT 8081:80");
    lab.host.netd(&format!("unpublish netns:{name} 8081:80"));
    assert!(!lab.host.netd("publish ls").contains("8081"));
}

/// The kernel gives the next namespace the inode of one that is gone: it is told apart by what became of the interface.
#[test]
fn a_namespace_joins_in_the_place_of_one_that_is_gone() {
    let lab = Lab::new();
    let mut ns = Namespace::new("again");
    for _ in 0..4 {
        lab.host.netd(&format!("network connect {DUAL} netns:{}", ns.name()));
        assert_eq!(links(&ns).len(), 2, "loopback, and the network's");
        ns = ns.again();
    }
}
