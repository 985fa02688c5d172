//! What users make of networks: who reaches whom, and what an endpoint finds (docker.md 5.3).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use netd_tests::lab::{Capture, Family, Lab, Namespace, Ping, UdpEcho, ask, at, ping, udp, until};
use serde_json::{Value, json};

const BRIEF: Ping = Ping { patience: Duration::from_millis(400), id: 7, size: 56 };

fn started() -> Lab {
    let lab = Lab::wired();
    lab.host.start(&[]);
    lab
}

/// Connects a namespace with more flags.
fn connect(lab: &Lab, flags: &str, network: &str, ns: &Namespace) {
    lab.host.netd(&format!("network connect {flags} {network} netns:{}", ns.name()));
}

/// What `ip -json` says of a link.
fn link(ns: &Namespace, name: &str) -> Value {
    let json = ns.ip(&format!("-json link show dev {name}"));
    let mut links: Vec<Value> = serde_json::from_str(&json).expect("ip -json");
    links.remove(0)
}

/// The interface that a default route of a namespace leads through.
fn default_route(ns: &Namespace, family: Family) -> Option<String> {
    let version = if family == Family::V4 { "-4" } else { "-6" };
    let json = ns.ip(&format!("-json {version} route show default"));
    let routes: Vec<Value> = serde_json::from_str(&json).expect("ip -json");
    assert!(routes.len() < 2, "one default route: {json}");
    Some(routes.first()?["dev"].as_str().expect("a device").to_owned())
}

/// A namespace's address within a prefix.
fn address_in(ns: &Namespace, prefix: &str) -> IpAddr {
    let text = ns.ip("-oneline address show");
    let address = text
        .split_whitespace()
        .filter_map(|word| word.split_once('/'))
        .find(|(address, _)| address.starts_with(prefix) && address.parse::<IpAddr>().is_ok());
    let (address, _) = address.unwrap_or_else(|| panic!("no address {prefix}... in {text}"));
    address.parse().expect("an address")
}

/// T37.
#[test]
fn neighbours_reach_each_other_with_their_own_addresses() {
    let lab = started();
    for (case, create, prefixes) in [
        ("default bridge", "", &["172.17."][..]),
        ("user v4", "--subnet 172.30.0.0/24", &["172.30."]),
        ("internal", "--internal --subnet 172.31.0.0/24", &["172.31."]),
        ("v6 ULA", "--ipv6 --subnet fd00:37::/64", &["fd00:37:"]),
        ("v6 internal", "--internal --ipv6 --subnet fd00:38::/64", &["fd00:38:"]),
        ("link-local", "--ipv6 --subnet fe80::/64", &["fe80::"]),
        ("other link-local", "--ipv6 --subnet fe80:1234::/64", &["fe80:1234:", "fe80::"]),
    ] {
        let network = if create.is_empty() { "bridge" } else { "n" };
        if !create.is_empty() {
            lab.host.netd(&format!("network create {create} n"));
        }
        let (a, b) = (Namespace::new("a"), Namespace::new("b"));
        connect(&lab, "", network, &a);
        connect(&lab, "", network, &b);
        for prefix in prefixes {
            let (from, to) = (address_in(&a, prefix), address_in(&b, prefix));
            let mut capture = Capture::new(&b, "eth0");
            match to {
                // With its interface, as in `ping fe80::2%eth0`.
                IpAddr::V6(to) if to.is_unicast_link_local() => {
                    let mut pinged = a.command("ping");
                    pinged.args(["-6", "-c", "1", "-W", "3", &format!("{to}%eth0")]);
                    let output = pinged.output().expect("running ping");
                    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stdout));
                }
                to => assert!(ping(&a, to, Ping::default()), "{case}"),
            }
            capture.expect("the echo request", |packet| {
                packet.destination == to && (packet.source == from || !prefix.starts_with(&from.to_string()))
            });
        }
        for ns in [&a, &b] {
            lab.host.netd(&format!("network disconnect {network} netns:{}", ns.name()));
        }
        if network == "n" {
            lab.host.netd("network rm n");
        }
    }
    let said = lab.host.netd_fails("network create --ipv6 --subnet fe80::/80 n");
    assert!(said.contains("'fe80::1/80' clashes with the Link-Local prefix 'fe80::/64'"), "{said}");
}

/// T38.
#[test]
fn without_icc_only_the_way_out_is_left() {
    let lab = started();
    lab.host.netd(
        "network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 \
         --opt com.docker.network.bridge.enable_icc=false n",
    );
    let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
    for family in Family::BOTH {
        assert!(!ping(&a.ns, b.address(family), BRIEF));
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()));
    }
}

/// T39.
#[test]
fn networks_are_apart() {
    let lab = started();
    for (name, flags) in
        [("n1", "--ipv6"), ("n2", "--ipv6"), ("i1", "--internal --ipv6"), ("i2", "--internal --ipv6")]
    {
        lab.host.netd(&format!("network create {flags} {name}"));
    }
    let [n1, n2, i1, i2] = ["n1", "n2", "i1", "i2"].map(|name| lab.container_on(name, name));
    for family in Family::BOTH {
        assert!(!ping(&n1.ns, n2.address(family), BRIEF));
        assert!(!ping(&n2.ns, n1.address(family), BRIEF));
        let version = if family == Family::V4 { "-4" } else { "-6" };
        for (from, to) in [(&i1, &i2), (&i1, &n1)] {
            let mut pinged = from.ns.command("ping");
            pinged.args([version, "-c", "1", "-W", "1", &to.address(family).to_string()]);
            let output = pinged.output().expect("running ping");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains("Network is unreachable"), "{said}");
        }
        assert!(!ping(&n1.ns, i1.address(family), BRIEF));
    }
}

/// T41.
#[test]
fn an_internal_network_is_shut() {
    let lab = started();
    lab.host.netd("network create --internal --subnet 10.0.3.0/24 --gateway 10.0.3.1 n");
    let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
    assert!(ping(&a.ns, "10.0.3.1".parse().expect("an address"), Ping::default()));
    assert!(ping(&a.ns, b.ipv4.into(), Ping::default()));
    assert_eq!(default_route(&a.ns, Family::V4), None);
    // Nor with a route of the container's own making.
    a.ns.ip("route add default via 10.0.3.1");
    assert!(!ping(&a.ns, Family::V4.outside(), BRIEF));
    let elsewhere = lab.container_on("bridge", "elsewhere");
    assert!(!ping(&a.ns, elsewhere.ipv4.into(), BRIEF));
    lab.outside.ip("route add 10.0.3.0/24 via 203.0.113.1");
    assert!(!ping(&lab.outside, a.ipv4.into(), BRIEF));
}

/// T43.
#[test]
fn a_family_that_is_off_is_off() {
    let lab = started();
    lab.host.netd("network create --ipv4=false --ipv6 six");
    lab.host.netd("network create --subnet 172.30.0.0/24 four");
    let (six, four) = (Namespace::new("six"), Namespace::new("four"));
    connect(&lab, "", "six", &six);
    connect(&lab, "", "four", &four);
    let addresses = |ns: &Namespace| ns.ip("-oneline address show dev eth0");
    assert!(!addresses(&six).contains("inet "), "{}", addresses(&six));
    assert!(addresses(&six).contains("inet6 fd"), "{}", addresses(&six));
    assert_eq!(default_route(&six, Family::V4), None);
    assert!(!addresses(&four).contains("inet6"), "{}", addresses(&four));
    let disabled = four.enter(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/disable_ipv6"));
    assert_eq!(disabled.expect("a setting").trim(), "1");
    let body = json!({"Name": "off", "EnableIPv4": false, "EnableIPv6": false});
    let answer = lab.host.call("POST", "/networks/create", Some(&body));
    assert_eq!((answer.status, &*answer.message()), (400, "IPv4 or IPv6 must be enabled"));
}

/// T44.
#[test]
fn the_default_route_is_of_the_highest_priority() {
    let lab = started();
    for (name, flags) in [
        ("alpha", "--subnet 172.30.0.0/24"),
        ("beta", "--ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64"),
        ("inner", "--internal --subnet 172.29.0.0/24"),
        ("six", "--ipv4=false --ipv6 --subnet fd00:33::/64"),
    ] {
        lab.host.netd(&format!("network create {flags} {name}"));
    }
    let ns = Namespace::new("box");
    let routes = || (default_route(&ns, Family::V4), default_route(&ns, Family::V6));
    let on = |four: &str, six: &str| {
        let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (name(four), name(six))
    };
    connect(&lab, "", "inner", &ns);
    assert_eq!(routes(), on("", ""), "an internal network leads nowhere");
    connect(&lab, "", "beta", &ns);
    assert_eq!(routes(), on("eth1", "eth1"));
    connect(&lab, "", "alpha", &ns);
    assert_eq!(routes(), on("eth2", "eth1"), "among equals the first name, for each family by itself");
    connect(&lab, "--gw-priority 1", "six", &ns);
    assert_eq!(routes(), on("eth2", "eth3"), "a priority goes before names");
    assert!(
        ping(&ns, Family::V4.outside(), Ping::default()) && ping(&ns, Family::V6.outside(), Ping::default())
    );
    let leave = |network: &str| lab.host.netd(&format!("network disconnect {network} netns:{}", ns.name()));
    leave("alpha");
    assert_eq!(routes(), on("eth1", "eth3"));
    leave("six");
    assert_eq!(routes(), on("eth1", "eth1"));
    connect(&lab, "--gw-priority -1", "alpha", &ns);
    assert_eq!(routes(), on("eth1", "eth1"), "and below zero it comes last");
    leave("beta");
    let alpha = default_route(&ns, Family::V4).expect("a default route");
    assert_eq!(default_route(&ns, Family::V6), None);
    assert!(ns.ip(&format!("-oneline address show dev {alpha}")).contains("172.30.0."));
    assert!(ping(&ns, Family::V4.outside(), Ping::default()));
}

/// T46, and what else an endpoint can be asked to be.
#[test]
fn an_endpoint_is_as_it_was_asked_to_be() {
    let lab = started();
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 n");
    let (a, b) = (Namespace::new("a"), lab.container_on("n", "b"));
    let mut capture = Capture::new(&b.ns, "eth0");
    b.ns.ip("neighbour replace 172.30.0.77 lladdr 02:00:00:00:00:99 nud stale dev eth0");
    connect(
        &lab,
        "--ip 172.30.0.77 --ip6 fd00:30::77 --link-local-ip 169.254.1.1 --mac-address 02:00:00:00:00:77 \
         --driver-opt com.docker.network.endpoint.ifname=lan0 \
         --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.hop_limit=9",
        "n",
        &a,
    );
    let addresses = a.ip("-oneline address show dev lan0");
    for address in ["172.30.0.77/24", "fd00:30::77/64", "169.254.1.1/16"] {
        assert!(addresses.contains(address), "{address} in {addresses}");
    }
    assert_eq!(link(&a, "lan0")["address"], "02:00:00:00:00:77");
    let read = |path: &str| a.enter(|| std::fs::read_to_string(format!("/proc/sys/net/{path}")));
    assert_eq!(read("ipv4/conf/lan0/log_martians").expect("a setting").trim(), "1");
    assert_eq!(read("ipv6/conf/lan0/hop_limit").expect("a setting").trim(), "9");
    // Its neighbours are told, by ARP and by a neighbour advertisement.
    until("the neighbour knows better", || {
        b.ns.ip("neighbour show 172.30.0.77 dev eth0").contains("02:00:00:00:00:77")
    });
    let own: Ipv6Addr = "fd00:30::77".parse().expect("an address");
    capture.expect("the advertisement", |packet| packet.source == own && packet.destination.is_multicast());
    // Its link-local address is good on the link.
    b.ns.ip("address add 169.254.1.2/16 dev eth0");
    let echo = UdpEcho::new(&b.ns, "169.254.1.2:5300".parse().expect("an address"));
    let client = udp(&a, Family::V4, 0);
    assert_eq!(
        ask(&client, at("169.254.1.2".parse::<IpAddr>().expect("an address"), 5300), b"hello"),
        b"hello"
    );
    assert_eq!(echo.peers().len(), 1);

    let stranger = Namespace::new("stranger");
    let before = stranger.configuration();
    let inspected = lab.host.get("/networks/n");
    for (config, status, says) in [
        (
            json!({"DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.eth0.x=1"}}),
            400,
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; represent 'net.X.Y.ethN.Z=V' as \
             'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
        ),
        (
            json!({"DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.nonsense=1"}}),
            500,
            "nonsense",
        ),
        (json!({"IPAMConfig": {"IPv4Address": "mynetip"}}), 400, "invalid IPv4 address: mynetip"),
        (json!({"IPAMConfig": {"IPv4Address": "172.30.0.77"}}), 403, "Address already in use"),
        (
            json!({"IPAMConfig": {"IPv4Address": "172.29.0.7"}}),
            400,
            "no configured subnet or ip-range contain the IP address 172.29.0.7",
        ),
        (
            json!({"IPAMConfig": {"LinkLocalIPs": ["10.0.0.1"]}}),
            400,
            "invalid link-local IP address: 10.0.0.1",
        ),
        (
            json!({"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}),
            403,
            "link-local IP address 169.254.1.1 is already in use in network n",
        ),
        // What the kernel makes of the other's MAC.
        (json!({"IPAMConfig": {"LinkLocalIPs": ["fe80::ff:fe00:77"]}}), 403, "already in use"),
        (json!({"MacAddress": "02:00:00:00:00"}), 400, "invalid MAC address 02:00:00:00:00"),
        (json!({"MacAddress": "02:00:00:00:00:77"}), 403, "already in use"),
    ] {
        let body = json!({"Container": format!("netns:{}", stranger.name()), "EndpointConfig": config});
        let answer = lab.host.call("POST", "/networks/n/connect", Some(&body));
        assert_eq!(answer.status, status, "{config}: {}", answer.body);
        assert!(answer.message().contains(says), "{config}: {}", answer.message());
        assert_eq!(
            (stranger.configuration(), lab.host.get("/networks/n")),
            (before.clone(), inspected.clone())
        );
    }
    let auto = json!({"Container": format!("netns:{}", stranger.name()), "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}});
    let answer = lab.host.call("POST", "/networks/bridge/connect", Some(&auto));
    assert_eq!(answer.status, 400);
    assert!(
        answer.message().contains("user specified IP address is supported on user defined networks only")
    );
}

/// T49.
#[test]
fn a_bridge_that_was_there_is_used_and_stays() {
    let lab = started();
    lab.host.ns.ip("link add name br9 type bridge");
    lab.host.ns.ip("address add 10.9.0.9/24 dev br9");
    lab.host.ns.ip("link add name dummy0 type veth peer name other0");
    let before = lab.host.ns.configuration();
    let named = |bridge: &str| format!("--opt com.docker.network.bridge.name={bridge}");
    lab.host.netd(&format!("network create {} --subnet 10.9.0.0/24 --gateway 10.9.0.9 n", named("br9")));
    let a = lab.container_on("n", "a");
    assert!(ping(&a.ns, "10.9.0.9".parse().expect("an address"), Ping::default()));
    let said = lab.host.netd_fails(&format!("network create {} m", named("br9")));
    assert!(
        said.contains("(br9): conflicts with network") && said.contains("networks have same bridge name"),
        "{said}"
    );
    let said = lab.host.netd_fails(&format!("network create {} m", named("dummy0")));
    assert!(said.contains("existing interface dummy0 is not a bridge"), "{said}");
    lab.host.netd(&format!("network disconnect n netns:{}", a.ns.name()));
    lab.host.netd("network rm n");
    let after = lab.host.ns.configuration();
    let is_route = |line: &&str| line.contains("dev br9");
    let without_routes =
        |text: &str| text.lines().filter(|line| !is_route(line)).collect::<Vec<_>>().join("\n");
    assert_eq!(without_routes(&after), without_routes(&before), "the bridge and its address stay");
    assert!(lab.host.ns.ip("-oneline address show dev br9").contains("10.9.0.9/24"));
}

/// A bridge on which the spanning tree runs already is the kernel's alone, though nobody asked for it.
#[test]
fn the_fast_path_honours_a_bridge_as_it_finds_it() {
    let lab = started();
    lab.host.ns.ip("link add name br9 type bridge stp_state 1 forward_delay 200");
    lab.host.netd("network create --opt com.docker.network.bridge.name=br9 --subnet 172.30.0.0/24 n");
    let (a, b) = (lab.container_on("n", "a"), lab.container_on("n", "b"));
    until("the ports forward", || ping(&a.ns, b.ipv4.into(), BRIEF));
    assert_eq!(lab.host.netd_json("stats")["paths"]["bridged"], 0);
}

/// T50.
#[test]
fn an_mtu_is_everywhere_or_nowhere() {
    let lab = started();
    let before = (lab.host.ns.configuration(), lab.host.netd("network ls"));
    for (mtu, says) in [
        ("65536", "invalid MTU number: 65536"),
        ("-1", "invalid MTU number: -1"),
        ("1000 --ipv6", "invalid MTU number: 1000 (IPv6 needs 1280 bytes)"),
        ("many", "strconv.Atoi: parsing \"many\": invalid syntax"),
    ] {
        let said =
            lab.host.netd_fails(&format!("network create --opt com.docker.network.driver.mtu={mtu} n"));
        assert!(said.contains(says), "{mtu}: {said}");
        assert_eq!((lab.host.ns.configuration(), lab.host.netd("network ls")), before);
    }
    lab.host.netd(
        "network create --opt com.docker.network.driver.mtu=9000 --opt com.docker.network.bridge.name=br9 n",
    );
    let a = lab.container_on("n", "a");
    let links: Vec<Value> = serde_json::from_str(&lab.host.ns.ip("-json link show")).expect("ip -json");
    let of_network = |link: &&Value| link["ifname"] == "br9" || link["master"] == "br9";
    let mtus: Vec<_> = links.iter().filter(of_network).map(|link| link["mtu"].clone()).collect();
    assert_eq!(mtus, [json!(9000), json!(9000)]);
    assert_eq!(link(&a.ns, "eth0")["mtu"], 9000);
    let b = lab.container_on("n", "b");
    assert!(ping(&a.ns, b.ipv4.into(), Ping { size: 8900, ..Ping::default() }));
    // Below what IPv6 needs a link has none.
    lab.host.netd("network create --opt com.docker.network.driver.mtu=576 small");
    let (c, d) = (lab.container_on("small", "c"), lab.container_on("small", "d"));
    assert_eq!(link(&c.ns, "eth0")["mtu"], 576);
    assert!(ping(&c.ns, d.ipv4.into(), Ping { size: 2000, ..Ping::default() }));
}

#[test]
fn a_bridge_without_an_address_leaves_the_gateway_to_somebody_else() {
    let lab = started();
    lab.host
        .netd("network create --subnet 172.30.0.0/24 --opt com.docker.network.bridge.inhibit_ipv4=true n");
    assert!(!lab.host.ns.ip("-oneline -4 address show").contains("172.30.0.1"));
    let (a, router) = (lab.container_on("n", "a"), lab.container_on("n", "router"));
    assert_eq!(a.gateway(Family::V4).to_string(), "172.30.0.1");
    assert_eq!((a.ipv4.to_string(), router.ipv4.to_string()), ("172.30.0.2".into(), "172.30.0.3".into()));
    assert!(ping(&a.ns, router.ipv4.into(), Ping::default()));
}
