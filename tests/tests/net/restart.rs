//! The daemon dies, the traffic does not.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_tests::lab::{
    Capture, Container, Family, Lab, Ping, TcpEcho, UdpEcho, UdpStream, ask, at, connect, ping, udp, until,
};

/// Makes a network `n` of both families, whose bridge is `br9`.
const CREATE: &str = "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 --opt com.docker.network.bridge.name=br9 n";

/// The name of the host's end of a container's link.
fn port_to(lab: &Lab, container: &Container) -> String {
    let link = container.ns.ip("-oneline link show eth0");
    let (_, index) = link.split_once("@if").expect("a veth");
    let (index, _) = index.split_once(':').expect("the other end's index");
    let ports = lab.host.ns.ip("-oneline link show");
    let port = ports.lines().find(|line| line.starts_with(&format!("{index}: "))).expect("the other end");
    port[index.len() + 2..].split_once('@').expect("a veth").0.to_owned()
}

/// New flows of every kind, from a container to the outside.
fn new_flows_work(lab: &Lab, from: &Container) {
    for family in Family::BOTH {
        assert!(ping(&from.ns, family.outside(), Ping::default()));
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 0));
        ask(&udp(&from.ns, family, 0), echo.address, b"hello");
        let server = TcpEcho::new(&lab.outside, at(family.outside(), 0));
        let mut stream = connect(&from.ns, 0, server.address).expect("connecting");
        stream.write_all(b"hello").expect("sending");
        stream.read_exact(&mut [0; 5]).expect("the echo");
    }
}

/// The endpoints of a network, by name.
fn endpoints(lab: &Lab, network: &str) -> Vec<String> {
    let (status, body) = lab.host.get(&format!("/networks/{network}")).expect("the daemon answers");
    assert_eq!(status, 200, "{body}");
    let network: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let containers = network["Containers"].as_object().expect("an object of endpoints");
    let mut names: Vec<_> =
        containers.values().filter_map(|c| Some(c["Name"].as_str()?.to_owned())).collect();
    names.sort_unstable();
    names
}

fn no_stream_loses_anything(end: impl Fn(&Lab)) {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    let _outside = Family::BOTH.map(|family| UdpEcho::new(&lab.outside, at(family.outside(), 5300)));
    let _beside = Family::BOTH.map(|family| UdpEcho::new(&b.ns, at(b.address(family), 5300)));
    let remotes = Family::BOTH.map(|family| [family.outside(), b.address(family)]).concat();
    let streams: Vec<_> = remotes.iter().map(|remote| UdpStream::start(&a.ns, at(*remote, 5300))).collect();
    let server = TcpEcho::new(&lab.outside, Family::V4.any(8000));
    let mut connection = connect(&a.ns, 0, at(Family::V4.outside(), 8000)).expect("connecting");
    let before = endpoints(&lab, "dual");
    assert_eq!(before, [a.ns.name(), b.ns.name()]);

    let mut run_on = || {
        streams.iter().for_each(|stream| stream.run_on(5000));
        connection.write_all(b"still here").expect("sending");
        connection.read_exact(&mut [0; 10]).expect("the echo");
    };
    for _ in 0..3 {
        run_on();
        end(&lab);
        run_on();
        new_flows_work(&lab, &a);
        lab.host.start(&[]);
        run_on();
        new_flows_work(&lab, &a);
    }
    assert_eq!(endpoints(&lab, "dual"), before);
    for (stream, remote) in streams.into_iter().zip(remotes) {
        let losses = stream.stop();
        assert_eq!(losses.lost, 0, "to {remote}: {losses:?}");
    }
    assert_eq!(server.peers().len(), 1);
}

#[test]
fn killed_and_restarted_under_a_stream() {
    no_stream_loses_anything(|lab| lab.host.kill());
}

#[test]
fn stopped_and_restarted_under_a_stream() {
    no_stream_loses_anything(|lab| lab.host.stop());
}

#[test]
fn a_restart_repairs_what_was_changed_meanwhile() {
    let lab = Lab::new();
    let a = lab.container_on("bridge", "a");
    lab.host.kill();
    lab.host.ns.ip("address delete 172.17.0.1/16 dev netd0");
    lab.host.ns.ip("link set netd0 down");
    lab.host.start(&[]);
    assert!(ping(&a.ns, a.gateway(Family::V4), Ping::default()));
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    assert!(ping(&lab.host.ns, a.ipv4.into(), Ping::default()), "the connected route is back");
}

#[test]
fn a_restart_gives_a_bridge_all_its_addresses_back() {
    let lab = Lab::new();
    lab.host.netd(
        "network create --ipv6 --subnet fd00:31::/64 --opt com.docker.network.bridge.name=flushed flushed",
    );
    let a = lab.container_on("flushed", "a");
    lab.host.netd(&format!("nat add 2001:db8::9 netns:{}", a.ns.name()));
    lab.host.kill();
    // What the host has learnt of its neighbours is forgotten, too.
    lab.host.ns.ip("address flush dev flushed");
    lab.host.ns.ip("neighbour flush dev flushed");
    lab.host.start(&[]);
    let external = "2001:db8::9".parse().expect("an address");
    assert!(
        ping(&lab.host.ns, external, Ping::default()),
        "the host finds the container by its link-local address"
    );
    assert!(ping(&lab.outside, external, Ping::default()));
    assert!(ping(&a.ns, a.gateway(Family::V6), Ping::default()));
}

#[test]
fn a_restart_gives_a_bridge_its_connected_routes_back() {
    let lab = Lab::new();
    lab.host.netd(CREATE);
    let a = lab.container_on("n", "a");
    let routes = || ["-4", "-6"].map(|family| lab.host.ns.ip(&format!("{family} route show dev br9")));
    let before = routes();
    lab.host.kill();
    lab.host.ns.ip("route delete 172.31.0.0/24 dev br9");
    lab.host.ns.ip("-6 route delete fd00:31::/64 dev br9");
    lab.host.start(&[]);
    assert_eq!(routes(), before);
    for family in Family::BOTH {
        assert!(ping(&lab.host.ns, a.address(family), Ping::default()));
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
    }
    // With the addresses they go, like the kernel's own.
    lab.host.ns.ip("address flush dev br9");
    assert_eq!(routes(), [""; 2]);
}

/// A bridge's MTU follows those of its ports, and without 1,280 bytes there is no IPv6.
#[test]
fn a_restart_gives_a_bridge_its_mtu_and_ipv6_back() {
    let lab = Lab::new();
    lab.host.netd(CREATE);
    let a = lab.container_on("n", "a");
    let port = port_to(&lab, &a);
    for narrowed in [&*port, "br9"] {
        lab.host.kill();
        lab.host.ns.ip(&format!("link set {narrowed} mtu 1200"));
        assert!(!lab.host.ns.ip("address show dev br9").contains("fd00:31::1"), "its IPv6 is gone");
        lab.host.start(&[]);
        for family in Family::BOTH {
            assert!(ping(&a.ns, a.gateway(family), Ping { size: 1400, ..Ping::default() }));
            assert!(ping(&lab.host.ns, a.address(family), Ping::default()));
            assert!(ping(&a.ns, family.outside(), Ping::default()));
        }
        assert_eq!(lab.host.ns.read_sysctl("net.ipv6.conf.br9.accept_ra"), "0");
    }
}

#[test]
fn a_restart_has_a_bridge_hear_the_host_again() {
    let lab = Lab::new();
    let status = lab.host.netd_json("status");
    let attached = |status: &serde_json::Value| {
        let mut links = status["links"].as_array().expect("a list").iter();
        links.any(|link| link["program"] == "from_host" && link["interface"] == "netd0")
    };
    assert!(attached(&status), "{status}");
    let index = lab.host.ns.ip("-oneline link show netd0");
    let (index, _) = index.split_once(':').expect("an index");
    lab.host.kill();
    let pin = format!("{}/links/from_host-{index}", status["pins"].as_str().expect("a path"));
    assert!(lab.host.command("rm").arg(pin).status().expect("running rm").success());
    lab.host.start(&[]);
    let status = lab.host.netd_json("status");
    assert!(attached(&status), "{status}");
}

#[test]
fn a_restart_gives_a_port_its_name_back() {
    let lab = Lab::new();
    let a = lab.container_on("bridge", "a");
    let server = TcpEcho::new(&lab.outside, Family::V4.any(8000));
    let mut connection = connect(&a.ns, 0, at(Family::V4.outside(), 8000)).expect("connecting");
    let port = port_to(&lab, &a);
    let mut run_on = || {
        connection.write_all(b"still here").expect("sending");
        connection.read_exact(&mut [0; 10]).expect("the echo");
    };
    run_on();
    lab.host.kill();
    lab.host.ns.ip(&format!("link set {port} name renamed"));
    run_on();
    lab.host.start(&[]);
    run_on();
    assert_eq!(port_to(&lab, &a), port);
    assert_eq!(server.peers().len(), 1);
}

#[test]
fn a_port_that_cannot_have_its_name_back_is_guarded_still() {
    let lab = Lab::new();
    let (a, b) = (lab.container_on("bridge", "a"), lab.container_on("bridge", "b"));
    let brief = Ping { patience: Duration::from_millis(300), ..Ping::default() };
    let port = port_to(&lab, &a);
    lab.host.kill();
    lab.host.ns.ip(&format!("link set {port} name renamed"));
    lab.host.ns.ip(&format!("link add {port} type bridge"));
    lab.host.start(&[]);
    assert!(!ping(&a.ns, b.ipv4.into(), brief));
    // Under an address that is not its own.
    a.ns.ip("address add 172.17.0.88/16 dev eth0");
    a.ns.ip(&format!("route add {} dev eth0 src 172.17.0.88", b.ipv4));
    let mut capture = Capture::new(&b.ns, "eth0");
    assert!(!ping(&a.ns, b.ipv4.into(), brief));
    assert!(capture.drain().iter().all(|packet| packet.source != Ipv4Addr::new(172, 17, 0, 88)));
}

#[test]
fn a_bridge_that_was_taken_away_comes_back_with_all_its_ports() {
    let lab = Lab::new();
    let a = lab.container_on("bridge", "a");
    lab.host.ns.ip("link delete netd0");
    let b = lab.container_on("bridge", "b");
    for container in [&a, &b] {
        assert!(ping(&container.ns, container.gateway(Family::V4), Ping::default()));
        assert!(ping(&container.ns, Family::V4.outside(), Ping::default()));
    }
}

#[test]
fn a_container_that_died_meanwhile_is_forgotten() {
    let lab = Lab::new();
    let (a, b) = (lab.container("a"), lab.container("b"));
    let freed = b.ipv4;
    lab.host.kill();
    drop(b);
    lab.host.start(&[]);
    until("the dead endpoint is gone", || endpoints(&lab, "dual") == [a.ns.name()]);
    let c = lab.container("c");
    assert_eq!(c.ipv4, freed, "its address is free again");
    assert!(ping(&a.ns, freed.into(), Ping::default()));
}

#[test]
fn networks_and_addresses_are_kept() {
    let lab = Lab::new();
    let a = lab.container("a");
    let network = |lab: &Lab| lab.host.get("/networks/dual").expect("the daemon answers").1;
    let before = network(&lab);
    lab.host.kill();
    lab.host.start(&[]);
    assert_eq!(network(&lab), before);
    let b = lab.container("b");
    assert_ne!(b.ipv4, a.ipv4, "an address in use is not given twice");
    assert!(ping(&b.ns, a.ipv4.into(), Ping::default()));
}
