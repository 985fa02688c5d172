//! Who forwards because of netd, and who does not.

use std::net::SocketAddrV6;
use std::time::Duration;

use netd_tests::lab::{Family, HOST4, HOST6, Lab, Namespace, Ping, UdpEcho, ask, at, ping, udp, until};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Two namespaces on interfaces of the host that are none of netd's, and of which the host is the way to each other and to the
/// outside.
fn neighbours(lab: &Lab) -> [Namespace; 2] {
    let neighbours = [1, 2].map(|number| {
        let neighbour = Namespace::new(&format!("side{number}"));
        let host = &lab.host.ns;
        host.ip(&format!("link add side{number} type veth peer name eth0 netns {}", neighbour.name()));
        host.ip(&format!("address add 10.20{number}.0.1/24 dev side{number}"));
        host.ip(&format!("address add fd20:{number}::1/64 dev side{number} nodad"));
        host.ip(&format!("link set side{number} up"));
        neighbour.ip(&format!("address add 10.20{number}.0.2/24 dev eth0"));
        neighbour.ip(&format!("address add fd20:{number}::2/64 dev eth0 nodad"));
        neighbour.ip("link set eth0 up");
        neighbour.ip(&format!("route add default via 10.20{number}.0.1"));
        neighbour.ip(&format!("-6 route add default via fd20:{number}::1"));
        neighbour.await_carrier("eth0");
        neighbour
    });
    lab.outside.ip(&format!("route add 10.200.0.0/14 via {HOST4}"));
    lab.outside.ip(&format!("-6 route add fd20::/16 via {HOST6}"));
    neighbours
}

/// Whatever this machine's own setting was when the namespace was made.
fn set_forwarding(lab: &Lab, family: &str, value: &str) {
    lab.host.ns.sysctl(&format!("net.{family}.conf.all.forwarding"), value);
    lab.host.ns.sysctl(&format!("net.{family}.conf.default.forwarding"), value);
}

fn reaches(from: &Namespace, to: &str) -> bool {
    ping(from, to.parse().unwrap(), Ping::default())
}

/// The same where no answer is expected; that the question was dropped, the counters tell.
fn reaches_after_all(from: &Namespace, to: &str) -> bool {
    ping(from, to.parse().unwrap(), Ping { patience: Duration::from_millis(300), ..Ping::default() })
}

/// The address of a neighbour, or of the host on its link.
fn side(family: Family, number: u32, last: u32) -> String {
    match family {
        Family::V4 => format!("10.20{number}.0.{last}"),
        Family::V6 => format!("fd20:{number}::{last}"),
    }
}

fn not_forwarded(lab: &Lab) -> u64 {
    let (_, stats) = lab.host.get("/netd/stats").expect("the daemon answers");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    stats["drops"]["not_forwarded"].as_u64().expect("the counter of not_forwarded")
}

/// Holds that the host forwards between all interfaces that are none of netd's, or between none of them.
fn assert_between_others(lab: &Lab, sides: &[Namespace; 2], families: &[Family], forwards: bool, case: &str) {
    for &family in families {
        let before = not_forwarded(lab);
        let outside = family.outside().to_string();
        for (from, to) in [
            (&sides[0], side(family, 2, 2)),
            (&sides[1], side(family, 1, 2)),
            (&sides[0], outside),
            (&lab.outside, side(family, 1, 2)),
        ] {
            let reached = if forwards { reaches(from, &to) } else { reaches_after_all(from, &to) };
            assert_eq!(reached, forwards, "{case}: from {} to {to}", from.name());
        }
        assert_eq!(not_forwarded(lab) - before, if forwards { 0 } else { 4 }, "{case}");
        // The host itself is no way to anybody.
        for number in [1, 2] {
            assert!(reaches(&lab.host.ns, &side(family, number, 2)), "{case}: {family:?}");
            assert!(reaches(&sides[0], &side(family, number, 1)), "{case}: {family:?}");
        }
        assert!(reaches(&sides[0], &family.host().to_string()), "{case}: {family:?}");
    }
}

#[test]
fn t48_the_host_forwards_as_it_is_told() {
    for (before, config, forwards) in [
        ("0", "{}", true),
        ("1", "{}", true),
        ("0", r#"{"ip-forward-no-drop": true}"#, true),
        ("0", r#"{"ip-forward": false}"#, false),
    ] {
        let case = format!("ip_forward {before}, {config}");
        let lab = Lab::wired();
        for family in ["ipv4", "ipv6"] {
            set_forwarding(&lab, family, "0");
        }
        if before == "1" {
            lab.host.ns.sysctl("net.ipv4.ip_forward", before);
        }
        let sides = neighbours(&lab);
        lab.host.configure(config);
        lab.host.start(&[]);
        let expected = if forwards { "1" } else { "0" };
        assert_eq!(lab.host.ns.read_sysctl("net.ipv4.ip_forward"), expected, "{case}");
        let is_told = config.contains("no-drop");
        if forwards {
            assert_between_others(&lab, &sides, &[Family::V4], before == "1" || is_told, &case);
        } else {
            assert!(!reaches_after_all(&sides[0], &side(Family::V4, 2, 2)), "{case}");
        }
        let container = lab.container_on("bridge", "a");
        assert_eq!(ping(&container.ns, Family::V4.outside(), Ping::default()), forwards, "{case}");

        // Of IPv6 nothing is touched before it is needed.
        let forwarding = |link: &str| lab.host.ns.read_sysctl(&format!("net.ipv6.conf.{link}.forwarding"));
        assert_eq!([forwarding("all"), forwarding("up0")], ["0", "0"], "{case}");
        lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
        let container = lab.container("b");
        assert_eq!(ping(&container.ns, Family::V6.outside(), Ping::default()), forwards, "{case}");
        assert_eq!(forwarding("all"), expected, "{case}");
        let advertisements = || lab.host.ns.read_sysctl("net.ipv6.conf.up0.accept_ra");
        assert_eq!(advertisements(), if forwards { "2" } else { "1" }, "{case}");
        if forwards {
            assert_between_others(&lab, &sides, &[Family::V6], is_told, &case);
        }

        lab.host.stop();
        lab.host.cleanup();
        let ipv4 = lab.host.ns.read_sysctl("net.ipv4.ip_forward");
        let ipv6 = [forwarding("all"), forwarding("default"), forwarding("up0")];
        assert_eq!(
            (&*ipv4, ipv6.each_ref().map(|it| &**it)),
            (before, ["0"; 3]),
            "{case}: after the cleanup"
        );
        assert_eq!(advertisements(), "1", "{case}: after the cleanup");
    }
}

/// What comes in by a link that forwards by a setting of its own is forwarded as before, and after the clean-up, too.
#[test]
fn t48_a_link_that_forwards_by_itself_goes_on() {
    let lab = Lab::wired();
    for family in ["ipv4", "ipv6"] {
        set_forwarding(&lab, family, "0");
    }
    let sides = neighbours(&lab);
    let forwarding = |family: &str, link: &str| format!("net.{family}.conf.{link}.forwarding");
    for link in ["side1", "side2"] {
        lab.host.ns.sysctl(&forwarding("ipv4", link), "1");
        lab.host.ns.sysctl(&forwarding("ipv6", link), "1");
    }
    let as_before = |case: &str| {
        let [first, second] = [1, 2].map(|number| side(Family::V4, number, 2));
        assert!(reaches(&sides[0], &second) && reaches(&sides[1], &first), "{case}");
        // The answer comes in by the uplink.
        assert!(!reaches_after_all(&sides[0], &Family::V4.outside().to_string()), "{case}");
        assert!(!reaches_after_all(&lab.outside, &first), "{case}");
        // Of IPv6 the kernel forwards all or nothing.
        assert!(!reaches_after_all(&sides[0], &side(Family::V6, 2, 2)), "{case}");
    };
    as_before("before netd");
    lab.host.start(&[]);
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
    as_before("with netd");
    lab.host.kill();
    lab.host.start(&[]);
    as_before("with its successor");
    let container = lab.container("a");
    assert!(FAMILIES.iter().all(|family| ping(&container.ns, family.outside(), Ping::default())));
    lab.host.stop();
    lab.host.cleanup();
    as_before("after the clean-up");
    for family in ["ipv4", "ipv6"] {
        let values = ["side1", "side2", "up0", "default", "all"]
            .map(|link| lab.host.ns.read_sysctl(&forwarding(family, link)));
        assert_eq!(values, ["1", "1", "0", "0", "0"], "{family}");
    }
}

/// A bridge that is not netd's, with a veth and nothing else, is somebody's for containers: whoever came to a host that forwards.
#[test]
fn t48_the_guests_of_others_are_forwarded() {
    let lab = Lab::wired();
    for family in ["ipv4", "ipv6"] {
        set_forwarding(&lab, family, "0");
    }
    lab.host.start(&[]);
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
    let sides = neighbours(&lab);
    lab.host.ns.ip("link add guests0 type bridge");
    lab.host.ns.ip("address add 10.203.0.1/24 dev guests0");
    lab.host.ns.ip("address add fd20:3::1/64 dev guests0 nodad");
    lab.host.ns.ip("link set guests0 up");
    let guest = Namespace::new("guest");
    lab.host.ns.ip(&format!("link add guest0 type veth peer name eth0 netns {}", guest.name()));
    lab.host.ns.ip("link set guest0 up master guests0");
    guest.ip("address add 10.203.0.2/24 dev eth0");
    guest.ip("address add fd20:3::2/64 dev eth0 nodad");
    guest.ip("link set eth0 up");
    guest.await_carrier("eth0");
    guest.ip("route add default via 10.203.0.1");
    guest.ip("-6 route add default via fd20:3::1");
    for family in FAMILIES {
        let outside = family.outside().to_string();
        until("the bridge is known", || reaches_after_all(&guest, &outside));
        assert!(reaches(&lab.outside, &side(family, 3, 2)));
    }
    lab.host.kill();
    lab.host.start(&[]);
    for family in FAMILIES {
        assert!(reaches(&guest, &family.outside().to_string()));
        assert!(!reaches_after_all(&sides[0], &side(family, 2, 2)), "as ever");
    }
}

/// A router of 2001:db8:5::/64 on a link advertises itself (RFC 4861 section 4.2).
fn advertise(ns: &Namespace, interface: &str) {
    let lifetime = 1800_u32.to_be_bytes();
    let router = [&[134, 0, 0, 0, 64, 0][..], &lifetime[2..], &[0; 8]].concat();
    let prefix =
        [&[3, 4, 64, 0xc0][..], &lifetime, &lifetime, &[0; 4], &[0x20, 1, 0xd, 0xb8, 0, 5], &[0; 10]]
            .concat();
    let index = ns.enter(|| if_nametoindex(interface)).expect("an interface");
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    let socket =
        ns.enter(|| Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))).expect("a raw socket");
    socket.set_multicast_hops_v6(255).expect("a socket's option");
    // The kernel fills in the checksum. Until the link has an address that may be used, there is none to send from.
    let _ = socket.send_to(&[router, prefix].concat(), &all_nodes.into());
}

/// An interface of the host's that comes up later has nothing but advertisements to get its addresses and routes by.
#[test]
fn t48_advertisements_are_heeded_as_before() {
    for forwarded in [false, true] {
        let lab = Lab::wired();
        set_forwarding(&lab, "ipv6", if forwarded { "1" } else { "0" });
        lab.host.start(&[]);
        lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
        let router = Namespace::new("router");
        lab.host.ns.ip(&format!("link add late0 type veth peer name eth0 netns {}", router.name()));
        lab.host.ns.ip("link set late0 up");
        router.ip("link set eth0 up");
        let addresses = || lab.host.ns.ip("-6 address show dev late0 scope global");
        if forwarded {
            lab.host.ns.ip("address add 192.0.2.1/24 dev late0");
            until("netd has looked at it", || {
                lab.host.netd("status").lines().any(|line| line.starts_with("late0 "))
            });
            let container = lab.container("a");
            assert!(ping(&container.ns, Family::V6.outside(), Ping::default()));
            for link in ["up0", "late0"] {
                assert_eq!(lab.host.ns.read_sysctl(&format!("net.ipv6.conf.{link}.accept_ra")), "1");
            }
            continue;
        }
        until("the host has taken what was advertised", || {
            advertise(&router, "eth0");
            addresses().contains("2001:db8:5:")
        });
        assert!(lab.host.ns.ip("-6 route show default dev late0").contains("proto ra"));
        lab.host.stop();
        lab.host.cleanup();
        assert_eq!(lab.host.ns.read_sysctl("net.ipv6.conf.late0.accept_ra"), "1");
    }
}

/// What netd switched on stays closed to others over restarts, to interfaces that come later and to those that were not named as
/// uplinks, and is open to all that concerns netd's networks.
#[test]
fn t48_the_host_is_no_router_by_netds_doing() {
    for uplinks in [&[][..], &["--uplink", "up0"]] {
        let case = format!("{uplinks:?}");
        let lab = Lab::wired();
        for family in ["ipv4", "ipv6"] {
            set_forwarding(&lab, family, "0");
        }
        lab.host.start(uplinks);
        lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
        let sides = neighbours(&lab);
        until("the interfaces are known", || {
            let status = lab.host.netd_json("status");
            let links = status["links"].as_array().expect("links");
            links.iter().filter(|link| link["program"] == "forwarded").count() == 3
        });
        assert_between_others(&lab, &sides, &FAMILIES, false, &case);

        lab.host.kill();
        assert!(!reaches_after_all(&sides[0], &side(Family::V4, 2, 2)), "{case}: without the daemon");
        lab.host.start(uplinks);
        assert_between_others(&lab, &sides, &FAMILIES, false, &case);

        // Containers by the stack and by the programs, both ways.
        lab.host.netd("network create --opt netd.bridge.fast_path=false slow");
        let (fast, slow) = (lab.container("fast"), lab.container_on("slow", "slow"));
        assert!(reaches(&fast.ns, &Family::V4.outside().to_string()), "{case}");
        assert!(reaches(&fast.ns, &Family::V6.outside().to_string()), "{case}");
        assert!(reaches(&slow.ns, &Family::V4.outside().to_string()), "{case}");
        if uplinks.is_empty() {
            assert!(reaches(&fast.ns, &side(Family::V4, 1, 2)), "{case}");
            assert!(reaches(&slow.ns, &side(Family::V4, 1, 2)), "{case}");
        }
        for (container, port, families) in [(&fast, 8080, &FAMILIES[..]), (&slow, 8081, &FAMILIES[..1])] {
            lab.host.netd(&format!("publish netns:{} {port}:80/udp", container.ns.name()));
            for &family in families {
                let _server = UdpEcho::new(&container.ns, family.any(80));
                for client in [&lab.outside, &sides[0]] {
                    if client.name() == lab.outside.name() || uplinks.is_empty() {
                        let client = udp(client, family, 0);
                        assert_eq!(ask(&client, at(family.host(), port), b"hello"), b"hello", "{case}");
                    }
                }
            }
        }

        // Somebody wants it otherwise, and then again not.
        lab.host.stop();
        lab.host.configure(r#"{"ip-forward-no-drop": true}"#);
        lab.host.start(uplinks);
        assert_between_others(&lab, &sides, &FAMILIES, true, &case);
        lab.host.stop();
        lab.host.configure(r#"{"ip-forward": false}"#);
        lab.host.start(uplinks);
        assert_between_others(&lab, &sides, &FAMILIES, false, &case);
    }
}
