//! Links that take less than a container sends.

use std::net::IpAddr;

use netd_tests::lab::{
    Capture, Container, Family, Lab, Packet, Ping, at, ping, set_offloads, transfer, udp, until,
};

const BYTES: usize = 10_000_000;

/// The path MTU that a container has learnt to an address.
fn learnt(container: &Container, to: IpAddr) -> Option<u64> {
    let json = container.ns.ip(&format!("-json route get {to}"));
    let routes: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
    routes[0]["metrics"].as_array()?.iter().find_map(|metrics| metrics["mtu"].as_u64())
}

/// Tells `sender` that its own packet was too big.
fn is_too_big(packet: &Packet, sender: IpAddr) -> bool {
    let too_big = if sender.is_ipv4() { (3, 4) } else { (2, 0) };
    packet
        .icmp_error()
        .is_some_and(|error| (error.kind, error.code) == too_big && error.about.source == sender)
}

#[test]
fn an_uplink_of_1400_under_containers_of_1500() {
    let lab = Lab::new();
    lab.narrow_uplink(1400);
    // Four containers that know nothing of the path yet.
    let containers = ["a", "b", "c", "d"].map(|role| lab.container(role));
    let cases = [true, false].into_iter().flat_map(|on| Family::BOTH.map(|family| (on, family)));
    for (a, (offloads, family)) in containers.iter().zip(cases) {
        set_offloads(&a.ns, "eth0", offloads);
        set_offloads(&lab.host.ns, "up0", offloads);
        set_offloads(&lab.outside, "eth0", offloads);
        let mut capture = Capture::new(&a.ns, "eth0");
        assert_eq!(learnt(a, family.outside()), None);
        transfer(&a.ns, &lab.outside, at(family.outside(), 5001), BYTES);
        let error = capture.expect("a packet too big", |p| is_too_big(p, a.address(family)));
        assert_eq!((error.source, error.destination), (a.gateway(family), a.address(family)));
        assert_eq!(error.icmp_error().expect("an error").mtu, 1400);
        assert_eq!(learnt(a, family.outside()), Some(1400), "{family:?}, offloads {offloads}");
    }
}

#[test]
fn a_route_takes_what_it_says() {
    let lab = Lab::new();
    let a = lab.container("a");
    for (family, mtu) in [(Family::V4, 1300), (Family::V6, 1320)] {
        lab.host.ns.ip(&format!("route add {} mtu {mtu} dev up0", family.outside()));
        // The daemon hears of the route a moment later.
        until("the container is told", || {
            transfer(&a.ns, &lab.outside, at(family.outside(), 5001), BYTES);
            learnt(&a, family.outside()) == Some(mtu)
        });
    }
}

#[test]
fn a_router_behind_says_what_it_takes() {
    let lab = Lab::new();
    let (behind, a) = (lab.behind(1280), lab.container("a"));
    for family in Family::BOTH {
        let mut capture = Capture::new(&a.ns, "eth0");
        transfer(&a.ns, &behind, at(family.behind(), 5001), BYTES);
        let error = capture.expect("a packet too big", |p| is_too_big(p, a.address(family)));
        assert_eq!(error.destination, a.address(family));
        let error = error.icmp_error().expect("an error");
        assert_eq!(
            (error.mtu, error.about.destination),
            (1280, family.behind()),
            "translated back, inside as well"
        );
        assert_eq!(learnt(&a, family.behind()), Some(1280));
    }
}

#[test]
fn the_outside_is_told_what_a_network_takes_that_the_stack_forwards_for() {
    let lab = Lab::new();
    lab.host.netd(
        "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 \
         --opt netd.bridge.fast_path=false --opt com.docker.network.driver.mtu=1300 narrow",
    );
    let a = lab.container_on("narrow", "a");
    lab.host.netd(&format!("publish netns:{} 5300:53/udp", a.ns.name()));
    for (family, external) in Family::BOTH.into_iter().zip(["203.0.113.9", "2001:db8::9"]) {
        lab.host.netd(&format!("nat add {external} netns:{}", a.ns.name()));
        let external: IpAddr = external.parse().expect("an address");
        for to in [at(family.host(), 5300), at(external, 53)] {
            let mut capture = Capture::new(&lab.outside, "eth0");
            udp(&lab.outside, family, 0).send_to(&[7; 1400], to).expect("sending");
            let error = capture.expect("a packet too big", |p| is_too_big(p, family.outside()));
            assert_eq!((error.source, error.destination), (family.host(), family.outside()));
            let error = error.icmp_error().expect("an error");
            let port = error.about.ports().map(|(_, port)| port);
            assert_eq!(
                (error.mtu, error.about.destination, port),
                (1300, to.ip(), Some(to.port())),
                "the remote is told of its own packet, not of a container"
            );
        }
    }
}

#[test]
fn large_pings_go_out_and_come_back_in_fragments() {
    let lab = Lab::new();
    let a = lab.container("a");
    for family in Family::BOTH {
        for size in [1472, 1474, 2000, 8000] {
            assert!(
                ping(&a.ns, family.outside(), Ping { size, ..Ping::default() }),
                "{size} bytes, {family:?}"
            );
        }
    }
}
