//! The source that others see: the address that was chosen for a network, the container's own towards some, and within the
//! host. The numbers are those of the list of cases that the behaviour was specified by.

use std::net::UdpSocket;

use netd_tests::lab::{Container, Family, Lab, PATIENCE, Ping, UdpEcho, ask, at, bound, ping, udp};

use crate::external::{external, known, speak};

#[test]
fn t64_a_network_leaves_by_the_address_that_was_chosen() {
    let lab = Lab::new();
    for family in Family::BOTH {
        // Of several IPv6 addresses the kernel prefers the last, unless that is deprecated.
        let length = if family == Family::V4 { "24" } else { "64 nodad preferred_lft 0" };
        lab.host.ns.ip(&format!("address add {}/{length} dev up0", external(family, 9)));
    }
    lab.host.netd(
        "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 --opt com.docker.network.host_ipv4=203.0.113.9 \
         --opt com.docker.network.host_ipv6=2001:db8::9 chosen",
    );
    lab.host.netd(
        "network create --ipv6 --subnet 172.32.0.0/24 --subnet fd00:32::/64 \
         --opt com.docker.network.bridge.enable_ip_masquerade=false bare",
    );
    lab.outside.ip("route add 172.32.0.0/24 via 203.0.113.1");
    lab.outside.ip("-6 route add fd00:32::/64 via 2001:db8::1");
    let [a, b] = ["a", "b"].map(|role| lab.container_on("chosen", role));
    let (other, bare) = (lab.container("other"), lab.container_on("bare", "bare"));
    for family in Family::BOTH {
        let (chosen, outside) = (external(family, 9), family.outside());
        // Ports are kept when they are free, those of the host's own range too: the address is this network's.
        assert_eq!(speak(&a.ns, family, &lab.outside, outside), [at(chosen, 40_000), at(chosen, 40_001)]);
        assert!(ping(&a.ns, outside, Ping::default()));
        assert_eq!(speak(&other.ns, family, &lab.outside, outside)[0].ip(), family.host());
        assert_eq!(speak(&bare.ns, family, &lab.outside, outside)[0].ip(), bare.address(family));
        // Two containers with one port to one remote.
        let echo = UdpEcho::new(&lab.outside, at(outside, 5305));
        let sockets = [udp(&a.ns, family, 45_000), udp(&b.ns, family, 45_000)];
        for _ in 0..3 {
            for (socket, word) in sockets.iter().zip([b"of a", b"of b"]) {
                assert_eq!(ask(socket, echo.address, word), word);
            }
        }
        let mut peers = echo.peers();
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), 2, "{peers:?}");
        assert!(
            peers.iter().all(|peer| peer.ip() == chosen) && peers.contains(&at(chosen, 45_000)),
            "{peers:?}"
        );
        // A route that changes does not change the address of a flow.
        lab.host.ns.ip("route add 192.0.2.0/24 dev up0");
        lab.host.ns.ip("route delete 192.0.2.0/24 dev up0");
        assert_eq!(ask(&sockets[0], echo.address, b"still"), b"still");
        assert_eq!(echo.peers().last(), Some(&at(chosen, 45_000)));
        // The host, which has the address, keeps what is its own.
        let own = bound(&lab.host.ns, at(chosen, 46_000), UdpSocket::bind);
        own.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
        let theirs = udp(&a.ns, family, 46_000);
        for _ in 0..2 {
            assert_eq!(ask(&theirs, echo.address, b"theirs"), b"theirs");
            assert_eq!(ask(&own, echo.address, b"own"), b"own");
        }
    }
    let rules = lab.host.netd("nat ls");
    assert!(rules.lines().any(|line| line.starts_with("chosen") && line.contains("203.0.113.9")), "{rules}");
}

#[test]
fn some_destinations_see_the_containers_own_addresses() {
    let lab = Lab::new();
    let exempt = [(Family::V4, 32), (Family::V6, 128)]
        .map(|(family, length)| format!("{}/{length}", family.outside()));
    lab.host.netd(&format!(
        "network create --ipv6 --subnet 172.31.0.0/24 --subnet fd00:31::/64 --opt netd.masquerade.except={} n",
        exempt.join(",")
    ));
    lab.outside.ip("route add 172.31.0.0/24 via 203.0.113.1");
    lab.outside.ip("-6 route add fd00:31::/64 via 2001:db8::1");
    let (own, other) = (lab.container_on("n", "own"), lab.container("other"));
    for family in Family::BOTH {
        let elsewhere = external(family, 77);
        let nodad = if family == Family::V6 { " nodad" } else { "" };
        lab.outside.ip(&format!("address add {elsewhere} dev eth0{nodad}"));
        let seen = |from: &Container, to| speak(&from.ns, family, &lab.outside, to).map(|it| it.ip());
        assert_eq!(seen(&own, family.outside()), [own.address(family); 2]);
        assert_eq!(seen(&own, elsewhere), [family.host(); 2]);
        assert_eq!(seen(&other, family.outside()), [family.host(); 2], "of another network");
        assert!(ping(&own.ns, family.outside(), Ping::default()));
        assert!(ping(&own.ns, family.outside(), Ping { size: 4000, ..Ping::default() }), "in fragments");
    }
    lab.host.kill();
    lab.host.start(&[]);
    for family in Family::BOTH {
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5400));
        ask(&udp(&own.ns, family, 41_000), echo.address, b"after a restart");
        assert_eq!(echo.peers(), [at(own.address(family), 41_000)]);
    }
    let rules = lab.host.netd_json("nat ls")["rules"].clone();
    let rules = rules.as_array().expect("a list").iter().filter(|rule| rule["network"] == "n");
    let except: Vec<_> = rules.map(|rule| rule["except"][0].as_str().expect("a prefix")).collect();
    assert_eq!(except, exempt.each_ref().map(String::as_str));
    lab.host.netd(&format!("network disconnect n {}", own.ns.name()));
    lab.host.netd("network rm n");
    let status = lab.host.netd_json("status");
    let maps = status["maps"].as_array().expect("a list").iter();
    let left = maps.filter(|map| map["name"] == "EXEMPTS4" || map["name"] == "EXEMPTS6");
    assert_eq!(left.map(|map| &map["entries"]).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn t65_what_stays_within_the_host_keeps_its_source() {
    let (lab, a) = known();
    let b = lab.container("b");
    for family in Family::BOTH {
        assert_eq!(speak(&b.ns, family, &a.ns, a.address(family))[0].ip(), b.address(family));
        assert_eq!(
            speak(&a.ns, family, &b.ns, b.address(family))[0].ip(),
            a.address(family),
            "an external address or not"
        );
        assert_eq!(speak(&a.ns, family, &lab.host.ns, a.gateway(family))[0].ip(), a.address(family));
        assert_eq!(speak(&b.ns, family, &lab.host.ns, family.host())[0].ip(), b.address(family));
    }
}
