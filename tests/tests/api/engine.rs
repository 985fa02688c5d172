//! A real Docker Engine that runs its containers on netd.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use netd_tests::lab::{
    Engine, Family, Lab, Namespace, Ping, TcpEcho, UdpEcho, UdpStream, ask, at, connect, ping, udp,
};
use serde_json::{Value, json};

use crate::answers;

/// Networks of both families: one with the engine's addresses, one with netd's.
const ENGINES: &str = "network create --driver netd --ipv6 --subnet 10.40.0.0/24 --subnet fd00:40::/64 \
                       --opt com.docker.network.driver.mtu=1400 engines";
const NETDS: &str = "network create --driver netd --ipam-driver netd --ipv6 netds";

/// Whether a container resolves a name and reaches whom it names, IPv4 and IPv6.
fn reaches(engine: &Engine, from: &str, to: &str) -> bool {
    let ping = |arguments: &str| {
        let ping = engine.docker().run(&format!("exec {from} ping {arguments} -c 1 -W 3 {to}"));
        ping.status.success()
    };
    ping("-4") && ping("-6")
}

fn inspect(engine: &Engine, container: &str, network: &str) -> Value {
    let format = format!("'{{{{json (index .NetworkSettings.Networks \"{network}\")}}}}'");
    engine.docker().json(&format!("inspect --format {format} {container}"))
}

fn reaches_the_outside(from: &Namespace) {
    for family in Family::BOTH {
        assert!(ping(from, family.outside(), Ping::default()), "{family:?}");
    }
}

#[test]
fn an_engine_runs_its_containers_on_netd() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = lab.host.engine(&["--shutdown-timeout", "1"]);
    let docker = engine.docker();
    let before = lab.host.ns.configuration();
    for network in [ENGINES, NETDS, "network create --driver netd --internal --subnet 10.41.0.0/24 inside"] {
        docker.ok(network);
    }

    let web = engine.container(
        "web",
        "--network engines --ip 10.40.0.77 --ip6 fd00:40::77 --mac-address 02:00:00:00:07:77",
    );
    let other = engine.container("other", "--network engines --network-alias api");
    let third = engine.container("third", "--network netds");
    let settings = inspect(&engine, "web", "engines");
    for (key, value) in [
        ("IPAddress", "10.40.0.77"),
        ("Gateway", "10.40.0.1"),
        ("GlobalIPv6Address", "fd00:40::77"),
        ("IPv6Gateway", "fd00:40::1"),
        ("MacAddress", "02:00:00:00:07:77"),
    ] {
        assert_eq!(settings[key], value, "{key}");
    }
    let eth0 = web.ip("address show dev eth0");
    for shown in ["mtu 1400", "02:00:00:00:07:77", "10.40.0.77/24", "fd00:40::77/64"] {
        assert!(eth0.contains(shown), "{shown}: {eth0}");
    }
    // What netd knows is what the engine knows.
    let id = docker.ok("network inspect --format {{.Id}} engines");
    let known = lab.host.call("GET", &format!("/networks/{}", id.trim()), None).json();
    let endpoint = settings["EndpointID"].as_str().expect("an id");
    assert_eq!(known["Containers"][format!("ep-{endpoint}")]["IPv4Address"], "10.40.0.77/24", "{known}");

    // The engine's own bridge does its work beside netd's, and a port published there is everybody's.
    let bridged = engine.container("bridged", "--publish 9090:90");
    assert!(ping(&bridged, Family::V4.outside(), Ping::default()));
    let echo = TcpEcho::new(&bridged, Family::V6.any(90));
    for from in [&lab.outside, &lab.host.ns, &web, &third] {
        connect(from, 0, at(Family::V4.host(), 9090)).unwrap_or_else(|e| panic!("{}: {e}", from.name()));
    }
    drop(echo);
    docker.ok("rm --force bridged");

    // The engine resolves names, and the packets go past its bridges and its rules.
    for (from, to) in [("other", "web"), ("web", "other"), ("web", "api")] {
        assert!(reaches(&engine, from, to), "{from} to {to}");
    }
    for container in [&web, &other, &third] {
        reaches_the_outside(container);
    }
    let stations = lab.host.netd_json("fdb ls");
    assert_eq!(stations.as_array().map(Vec::len), Some(3), "{stations}");
    let address = inspect(&engine, "third", "netds")["IPAddress"].as_str().expect("an address").to_owned();
    let lonely = Ping { patience: std::time::Duration::from_millis(300), ..Ping::default() };
    assert!(!ping(&web, address.parse().expect("an address"), lonely), "networks are apart");

    // A container that runs joins another network, and leaves it. What is under way goes on, wherever its default route leads.
    let under_way = Family::BOTH.map(|family| {
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 0));
        let socket = udp(&third, family, 0);
        socket.connect(echo.address).expect("connecting");
        (echo, socket)
    });
    let goes_on = || {
        for (echo, socket) in &under_way {
            socket.send(b"hello").expect("sending");
            socket.recv(&mut [0; 8]).unwrap_or_else(|e| panic!("from {}: {e}", echo.address));
        }
    };
    goes_on();
    docker.ok("network connect engines third");
    assert!(third.ip("route show default").contains("dev eth1"));
    goes_on();
    assert!(reaches(&engine, "third", "web") && reaches(&engine, "web", "third"));
    assert!(third.ip("link").contains("eth1"));
    reaches_the_outside(&third);
    docker.ok("network disconnect engines third");
    assert!(!third.ip("link").contains("eth1"));
    goes_on();
    assert!(!ping(&third, "10.40.0.77".parse().expect("an address"), lonely));
    reaches_the_outside(&third);

    // What netd's options say of an endpoint goes for an engine's as well; what is none is refused.
    for (option, reason) in
        [("netd.rate.up=1mbit", "unknown option"), ("netd.publish=80", "not for an engine")]
    {
        let output = docker.run(&format!("network connect --driver-opt {option} engines third"));
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(reason),
            "{output:?}"
        );
    }
    docker.ok("network disconnect netds third");
    for network in ["netds", "engines"] {
        docker.ok(&format!("network connect --driver-opt netd.bridge.isolated=true {network} third"));
    }
    docker.ok("network connect --driver-opt netd.bridge.isolated=true netds web");
    let isolated = inspect(&engine, "web", "netds")["IPAddress"].as_str().expect("an address").to_owned();
    assert!(!ping(&third, isolated.parse().expect("an address"), lonely), "two isolated ports");
    assert!(ping(&third, "10.40.0.77".parse().expect("an address"), Ping::default()), "one");
    docker.ok("network disconnect netds web");
    docker.ok("network disconnect engines third");

    // Where nobody manages addresses, containers have what they give themselves.
    docker.ok("network create --driver netd --ipam-driver null bare");
    let bare = ["bare1", "bare2"].map(|name| engine.container(name, "--network bare --cap-add NET_ADMIN"));
    for (container, address) in bare.iter().zip(["192.0.2.1/24", "192.0.2.2/24"]) {
        assert!(container.ip("route show default").is_empty());
        container.ip(&format!("address add {address} dev eth0"));
    }
    assert!(ping(&bare[0], "192.0.2.2".parse().expect("an address"), Ping::default()));
    docker.ok("rm --force bare1 bare2");
    docker.ok("network rm bare");
    drop(bare);

    // Serially, an address has its turn again when all others have had theirs.
    docker.ok("network create --driver netd --ipam-driver netd --subnet 10.42.0.0/29 \
         --ipam-opt com.docker.network.ipam.serial=true serial");
    let turn = || docker.ok("run --rm --network serial busybox ip -4 -o address show dev eth0");
    for last in [2, 3, 4, 5, 6, 2] {
        let shown = turn();
        assert!(shown.contains(&format!(" 10.42.0.{last}/29 ")), "{last}: {shown}");
    }
    docker.ok("network rm serial");

    let inside = engine.container("inside", "--network inside");
    assert!(inside.ip("route show default").is_empty());
    inside.ip("route add default via 10.41.0.1");
    assert!(!ping(&inside, Family::V4.outside(), lonely), "not even with a route of its own");

    // What cannot be is told, and leaves nothing.
    let refused = |line: &str, reason: &str| {
        let output = docker.run(line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(reason), "{line}: {error}");
    };
    refused("run --rm --network engines --ip 10.40.0.77 busybox sleep 0", "Address already in use");
    refused(
        "network create --driver netd --ipam-driver netd --subnet 10.40.0.0/16 twice",
        "Pool overlaps with other one on this address space",
    );
    refused("network create --driver netd --opt com.docker.network.driver.mtu=x bad", "failed to parse");
    refused("network rm engines", "has active endpoints");

    docker.ok("rm --force web other third inside");
    for network in ["engines", "netds", "inside"] {
        docker.ok(&format!("network rm {network}"));
    }
    drop((web, other, third, inside));
    assert_eq!(lab.host.ns.configuration(), before, "nothing is left");
}

#[test]
fn traffic_goes_on_while_engine_and_netd_are_restarted() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let mut engine = lab.host.engine(&["--live-restore", "--shutdown-timeout", "1"]);
    engine.docker().ok(ENGINES);
    engine.docker().ok(NETDS);
    let (a, b) = (engine.container("one", "--network engines"), engine.container("two", "--network netds"));
    let _echoes = Family::BOTH.map(|family| UdpEcho::new(&lab.outside, at(family.outside(), 5300)));
    let mut streams = Vec::new();
    for container in [&a, &b] {
        let start = |family: Family| UdpStream::start(container, at(family.outside(), 5300));
        streams.extend(Family::BOTH.map(start));
    }
    let run_on = || streams.iter().for_each(|stream| stream.run_on(500));

    let netd = &lab.host;
    run_on();
    netd.kill();
    run_on();
    netd.start(&[]);
    run_on();
    engine.kill();
    run_on();
    engine.start();
    run_on();
    // Both, netd last to go and first to come.
    engine.stop();
    netd.stop();
    run_on();
    netd.start(&[]);
    engine.start();
    run_on();
    // And the other way round: netd is back before the engine has given up on it.
    netd.stop();
    engine.kill();
    run_on();
    netd.start(&[]);
    engine.start();
    run_on();
    for stream in streams {
        let losses = stream.stop();
        assert_eq!(losses.lost, 0, "{losses:?}");
    }

    // Both still know what there is: new containers join, old ones leave, addresses are told apart.
    let addresses = |name: &str, network: &str| inspect(&engine, name, network)["IPAddress"].clone();
    let c = engine.container("new", "--network netds");
    assert_ne!(addresses("new", "netds"), addresses("two", "netds"));
    assert!(reaches(&engine, "new", "two"));
    reaches_the_outside(&c);
    engine.docker().ok("network connect netds one");
    assert!(reaches(&engine, "one", "new"));
    engine.docker().ok("rm --force one two new");
    engine.docker().ok("network rm engines netds");
    assert_eq!(lab.host.netd_json("network ls").as_array().map(Vec::len), Some(3), "bridge, host and none");
}

#[test]
fn an_engine_without_bridges_and_rules_of_its_own() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let mut engine = lab.host.engine(&["--bridge=none", "--iptables=false", "--shutdown-timeout", "1"]);
    let before = lab.host.ns.configuration();
    engine.docker().ok(NETDS);
    let (a, b) = (engine.container("one", "--network netds"), engine.container("two", "--network netds"));
    assert!(reaches(&engine, "one", "two"));
    reaches_the_outside(&a);
    assert!(lab.host.ns.command("iptables-save").output().is_ok_and(|output| output.stdout.is_empty()));

    // An engine that dies with its containers, and finds what is left of them when it comes back.
    engine.kill();
    engine.start();
    let network = || {
        let id = engine.docker().ok("network inspect --format {{.Id}} netds");
        lab.host.call("GET", &format!("/networks/{}", id.trim()), None).json()
    };
    assert_eq!(network()["Containers"], serde_json::json!({}));
    engine.docker().ok("start one");
    let again = engine.namespace_of("one");
    reaches_the_outside(&again);
    assert_eq!(network()["Containers"].as_object().map(serde_json::Map::len), Some(1));
    engine.docker().ok("rm --force one two");
    engine.docker().ok("network rm netds");
    drop((a, b, again));
    assert_eq!(lab.host.ns.configuration(), before, "nothing is left");
}

/// The host's ports at one of its addresses that lead to a port of a container's, as netd tells them.
fn leading_to(lab: &Lab, address: IpAddr, container: u16) -> Vec<u16> {
    let published = lab.host.netd_json("publish ls");
    let all = published.as_array().expect("publications").iter();
    let is_it = |it: &&Value| it["host_ip"] == address.to_string() && it["container_port"] == container;
    let mut ports: Vec<_> =
        all.filter(is_it).map(|it| it["host_port"].as_u64().expect("a port") as u16).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn an_engine_publishes_ports() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let mut engine = lab.host.engine(&["--live-restore", "--shutdown-timeout", "1"]);
    engine.docker().ok(ENGINES);
    let (host4, host6) = (Family::V4.host(), Family::V6.host());
    let forms = format!(
        "--publish 8080:80 --publish 127.0.0.1:8081:81 --publish 8090-8092:90-92/udp --publish {host4}::83 \
         --publish [{host6}]:8084:84 --publish 8100-8110:85 --publish 86 --publish 8093:93/sctp"
    );
    let refused = |engine: &Engine, line: &str, reason: &str| {
        let output = engine.docker().run(line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(reason), "{line}: {error}");
        engine.docker().ok("container prune --force");
    };
    let run = |forms: &str| format!("run --network engines {forms} busybox sleep 0");
    let published = || lab.host.netd_json("publish ls");
    refused(&engine, &run(&forms), "the checksum of SCTP covers its ports");
    assert_eq!(published(), json!([]), "what was refused left nothing");

    let served = engine.container("served", &format!("--network engines {}", forms.replace("8093", "93")));
    let echoes = |ns: &Namespace| [80, 83, 84, 85, 86].map(|port| TcpEcho::new(ns, Family::V6.any(port)));
    let tcp = echoes(&served);
    let _udp = UdpEcho::new(&served, Family::V6.any(91));
    let any = |family: Family| family.any(0).ip();
    let one = |address, port| match leading_to(&lab, address, port)[..] {
        [port] => port,
        ref other => panic!("{port} at {address}: {other:?}"),
    };
    let works = |tcp: &[TcpEcho; 5]| {
        for family in Family::BOTH {
            for (echo, port) in [(&tcp[0], 80), (&tcp[3], 85), (&tcp[4], 86)] {
                let to = at(family.host(), one(any(family), port));
                assert!(answers(&lab, echo, to), "{to} to {port}");
            }
            assert_eq!(ask(&udp(&lab.outside, family, 0), at(family.host(), 8091), b"hello"), b"hello");
        }
        assert!(answers(&lab, &tcp[1], at(host4, one(host4, 83))), "any port of one address");
        assert!(answers(&lab, &tcp[2], at(host6, 8084)), "IPv6 alone");
        assert!(connect(&lab.outside, 0, at(host4, 8081)).is_err(), "the loopback's alone");
    };
    works(&tcp);
    assert_eq!(one(any(Family::V4), 80), 8080);
    assert_eq!(one(any(Family::V6), 85), 8100, "the first of a range that is free");
    assert_eq!(one(Ipv4Addr::LOCALHOST.into(), 81), 8081);
    assert_eq!(one(any(Family::V4), 86), one(any(Family::V6), 86), "one port at all addresses");
    let bindings = engine.docker().json("inspect --format '{{json .HostConfig.PortBindings}}' served");
    assert_eq!(bindings["80/tcp"][0]["HostPort"], "8080");

    // What is taken is refused, in the engine's own words, and leaves nothing.
    let allocated = "Bind for 0.0.0.0:8080 failed: port is already allocated";
    let before = published();
    let holder = lab.host.ns.enter(|| TcpListener::bind("0.0.0.0:8200")).expect("listening");
    let in_use = "address already in use";
    let check = |engine: &Engine| {
        refused(engine, &run("--publish 8300:80 --publish 8080:80"), allocated);
        refused(engine, &run("--publish 8200:80"), in_use);
        refused(engine, &run("--publish 8100:80"), "0.0.0.0:8100 failed: port is already allocated");
        assert_eq!(published(), before);
    };
    check(&engine);
    let next = engine.container("next", "--network engines --publish 8100-8110:85");
    assert_eq!(leading_to(&lab, any(Family::V4), 85), [8100, 8101]);
    engine.docker().ok("rm --force next");
    drop((next, holder));

    // Ports outlive the daemons, whichever of them goes.
    lab.host.kill();
    assert!(answers(&lab, &tcp[0], at(host4, 8080)) && answers(&lab, &tcp[0], at(host6, 8080)));
    lab.host.start(&[]);
    works(&tcp);
    engine.kill();
    engine.start();
    works(&tcp);
    assert_eq!(published(), before);
    refused(&engine, &run("--publish 8080:80"), allocated);

    // A container that ends gives them back, and has them again when it comes back, as one that leaves the network.
    drop(tcp);
    engine.docker().ok("stop served");
    assert_eq!(published(), json!([]));
    engine.docker().ok(&run("--rm --publish 8080:80"));
    engine.docker().ok("start served");
    drop(served);
    let served = engine.namespace_of("served");
    let tcp = echoes(&served);
    let _udp = UdpEcho::new(&served, Family::V6.any(91));
    works(&tcp);
    engine.docker().ok("network disconnect engines served");
    assert_eq!(published(), json!([]));
    assert!(connect(&lab.outside, 0, at(host4, 8080)).is_err());
    engine.docker().ok("network connect engines served");
    works(&tcp);

    engine.docker().ok("rm --force served");
    assert_eq!(published(), json!([]));
    engine.docker().ok(&run("--rm --publish 8080:80 --publish 8200:80"));
    engine.docker().ok("network rm engines");
}
