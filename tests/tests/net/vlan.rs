//! VLANs on a network's bridges, with the fast path and without it, on one bridge and across segments.
//!
//! A kernel without `CONFIG_BRIDGE_VLAN_FILTERING` has none: there the tests hold netd to saying so, and tell on standard error that
//! this is all they did.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;

use netd_tests::lab::{Container, Datagram, Family, Lab, Namespace, Ping, RawLink, at, ping, transfer, udp};
use serde_json::Value;

use crate::settings::{BRIEF, bridged, container, cut_off, details, port, reaches};

/// What a network is to be like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    fast_path: bool,
    /// Endpoints on its own bridge; further ones are on segments.
    ports: u16,
}

const SHAPES: [Shape; 4] = [
    Shape { fast_path: true, ports: 900 },
    Shape { fast_path: false, ports: 900 },
    Shape { fast_path: true, ports: 2 },
    Shape { fast_path: false, ports: 2 },
];

/// One of the lab's networks.
#[derive(Clone, Copy, Debug)]
struct Network {
    number: u8,
    shape: Shape,
}

impl Network {
    fn create(self) -> String {
        let Self { number, shape: Shape { fast_path, ports } } = self;
        format!(
            "network create --ipv6 --subnet 172.30.{number}.0/24 --subnet fd00:3{number}::/64 \
             --opt com.docker.network.bridge.name=br{number} --opt netd.bridge.vlan_filtering=true \
             --opt netd.bridge.fast_path={fast_path} --opt netd.bridge.ports={ports} n{number}"
        )
    }

    fn bridge(self) -> String {
        format!("br{}", self.number)
    }

    fn container(self, lab: &Lab, role: &str, options: &[&str]) -> Container {
        container(lab, &format!("n{}", self.number), role, options)
    }

    /// A station behind a container's port, in one of the port's tagged VLANs.
    fn station(self, behind: &Container, vlan: u16, host: &str) -> Container {
        let (ns, number) = (Namespace::new("station"), self.number);
        behind.ns.ip(&format!("link add link eth0 name tagged type vlan id {vlan}"));
        behind.ns.ip(&format!("link set tagged netns {} name eth0", ns.name()));
        ns.ip(&format!("address add 172.30.{number}.{host}/24 dev eth0"));
        ns.ip(&format!("address add fd00:3{number}::{host}/64 dev eth0 nodad"));
        ns.ip("link set eth0 up");
        Container::of(ns)
    }
}

/// A lab with a network of each shape, all of which tell VLANs apart; none where the kernel cannot, and netd has said so and
/// changed nothing.
fn lab() -> Option<(Lab, [Network; 4])> {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let networks = [0, 1, 2, 3].map(|number| Network { number, shape: SHAPES[usize::from(number)] });
    if kernel_tells_vlans_apart(&lab.host.ns) {
        for network in networks {
            lab.host.netd(&network.create());
        }
        return Some((lab, networks));
    }
    let before = lab.host.ns.configuration();
    let said = lab.host.netd_fails(&networks[0].create());
    assert!(said.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{said}");
    assert_eq!(lab.host.ns.configuration(), before);
    // Past the test harness, which keeps to itself what a test that passes prints.
    let missing = b"this kernel has no VLANs on bridges: only that netd refuses them was tested\n";
    std::io::stderr().write_all(missing).expect("writing to standard error");
    None
}

fn kernel_tells_vlans_apart(ns: &Namespace) -> bool {
    let mut probe = ns.command("ip");
    probe.args(["link", "add", "name", "probe", "type", "bridge", "vlan_filtering", "1"]);
    let made = probe.output().expect("running ip").status.success();
    if made {
        ns.ip("link delete probe");
    }
    made
}

/// The VLANs of each bridge port and bridge of the host, by `bridge vlan show`, with a `p` for the one that untagged frames come in
/// by and a `u` for those that leave untagged.
fn vlans(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let output = lab.host.ns.command("bridge").args(["-json", "vlan", "show"]).output();
    let links: Vec<Value> =
        serde_json::from_slice(&output.expect("running bridge").stdout).expect("bridge -json");
    let vlan = |vlan: &Value| {
        let flags = vlan["flags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let letter = |flag| match flag {
            "PVID" => 'p',
            "Egress Untagged" => 'u',
            other => panic!("a flag that this test does not know: {other}"),
        };
        vlan["vlan"].to_string() + &flags.map(letter).collect::<String>()
    };
    let of_link = |link: &Value| {
        let vlans = link["vlans"].as_array().expect("a list").iter().map(vlan).collect();
        (link["ifname"].as_str().expect("a name").to_owned(), vlans)
    };
    links.iter().map(of_link).collect()
}

/// Both ends of the trunks between bridges.
fn trunks(vlans: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    vlans.keys().filter(|link| link.starts_with("dn-") || link.starts_with("up-")).cloned().collect()
}

#[test]
fn vlans_are_kept_apart() {
    let Some((lab, networks)) = lab() else { return };
    let mut known = Vec::new();
    for network in networks {
        let before = bridged(&lab);
        // With room for two, these are on the network's own bridge,
        let a = network.container(&lab, "a", &["vlan=10"]);
        let c = network.container(&lab, "c", &["vlan=20"]);
        // and these on a segment.
        let b = network.container(&lab, "b", &["vlan=10"]);
        let d = network.container(&lab, "d", &[]);
        let trunk = network.container(&lab, "trunk", &["vlan_trunk=10,20-22"]);

        assert_eq!(details(&lab.host.ns, &network.bridge(), "info_data")["vlan_filtering"], 1);
        let seen = vlans(&lab);
        let of = |link: &str| seen.get(link).map(|vlans| vlans.join(" ")).unwrap_or_default();
        assert_eq!(
            [&a, &b, &c, &d].map(|it| of(&port(&lab, it))),
            ["10pu", "10pu", "20pu", "1pu"],
            "{network:?}"
        );
        assert_eq!(
            (&*of(&port(&lab, &trunk)), &*of(&network.bridge())),
            ("1pu 10 20 21 22", "1pu"),
            "{network:?}"
        );
        let to_segment: Vec<_> = trunks(&seen).into_iter().filter(|trunk| !known.contains(trunk)).collect();
        assert_eq!(to_segment.len(), if network.shape.ports == 2 { 2 } else { 0 }, "{network:?}");
        for end in &to_segment {
            assert_eq!(of(end), "1pu 10 20 21 22", "{network:?}");
        }
        known.extend(to_segment);

        for (from, to) in [(&a, &b), (&d, &trunk)] {
            assert!(reaches(from, to) && reaches(to, from), "{network:?}");
        }
        for (from, to) in [(&a, &c), (&c, &b), (&b, &d), (&d, &c), (&a, &trunk), (&trunk, &c)] {
            assert!(cut_off(from, to) && cut_off(to, from), "{network:?}");
        }
        let host = &lab.host.ns;
        for family in Family::BOTH {
            for inside in [&d, &trunk] {
                assert!(ping(&inside.ns, inside.gateway(family), Ping::default()), "{network:?}");
                assert!(ping(&inside.ns, family.outside(), Ping::default()), "the bridge's VLAN leads out");
                assert!(ping(host, inside.address(family), Ping::default()), "{network:?}");
            }
            for apart in [&a, &b, &c] {
                assert!(!ping(&apart.ns, family.outside(), BRIEF), "{network:?}");
                assert!(!ping(&apart.ns, apart.gateway(family), BRIEF), "{network:?}");
                assert!(!ping(host, apart.address(family), BRIEF), "{network:?}");
            }
        }

        // Stations that hear and speak tagged frames alone: were they untagged they would be the trunk's own, and were those of
        // an access port tagged, nobody would take them there.
        let (ten, twenty) = (network.station(&trunk, 10, "210"), network.station(&trunk, 20, "220"));
        for (from, to) in [(&ten, &a), (&ten, &b), (&twenty, &c)] {
            assert!(reaches(from, to) && reaches(to, from), "{network:?}");
        }
        for (from, to) in [(&ten, &c), (&twenty, &a), (&ten, &d), (&twenty, &d), (&ten, &twenty)] {
            assert!(cut_off(from, to) && cut_off(to, from), "{network:?}");
        }
        for family in Family::BOTH {
            let gateway: IpAddr = d.gateway(family);
            assert!(!ping(&ten.ns, gateway, BRIEF) && !ping(&twenty.ns, gateway, BRIEF), "{network:?}");
            transfer(&ten.ns, &a.ns, at(a.address(family), 5001), 1 << 20);
            transfer(&b.ns, &ten.ns, at(ten.address(family), 5001), 1 << 20);
            transfer(&a.ns, &b.ns, at(b.address(family), 5001), 1 << 20);
        }
        assert_eq!(bridged(&lab) > before, network.shape.fast_path, "{network:?}");
    }
}

#[test]
fn no_tag_leads_into_another_vlan() {
    let Some((lab, networks)) = lab() else { return };
    for network in networks {
        let a = network.container(&lab, "a", &["vlan=10"]);
        let c = network.container(&lab, "c", &["vlan=20"]);
        let b = network.container(&lab, "b", &["vlan=10"]);
        let d = network.container(&lab, "d", &[]);
        let beside = network.container(&lab, "beside", &["vlan=20"]);
        let link = RawLink::new(&a.ns, "eth0");
        let send = |to: &Container, family: Family, source: IpAddr, tags: &[u16]| {
            let tags: Vec<u8> =
                tags.iter().flat_map(|vlan| [[0x81, 0x00], vlan.to_be_bytes()].concat()).collect();
            let ethertype: [u8; 2] = if family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
            let packet = Datagram::udp(at(source, 5000), at(to.address(family), 5300), b"tagged").bytes();
            link.send(&[&*to.ns.mac("eth0"), &a.ns.mac("eth0"), &tags, &ethertype, &packet].concat());
        };
        for family in Family::BOTH {
            let (own, other) = (a.address(family), b.gateway(family));
            let servers = [&b, &c, &d].map(|it| udp(&it.ns, family, 5300));
            let first = |server: usize| {
                let (_, from) = servers[server].recv_from(&mut [0; 64]).expect("the one that may");
                from
            };
            // By a tag of its own choice, and by one behind another.
            for tags in [&[20][..], &[10, 20], &[0, 20], &[10, 10, 20], &[1], &[10, 1], &[0, 0, 1]] {
                send(&c, family, own, tags);
                send(&d, family, own, tags);
            }
            udp(&beside.ns, family, 5001).send_to(b"honest", at(c.address(family), 5300)).expect("sending");
            assert_eq!(first(1), at(beside.address(family), 5001), "{network:?}");
            udp(&lab.host.ns, family, 5001).send_to(b"honest", at(d.address(family), 5300)).expect("sending");
            assert_eq!(first(2), at(d.gateway(family), 5001), "{network:?}");
            // Its own VLAN's tag, or one that names none, is as good as no tag: for the honest, and for nobody else.
            for tags in [&[10][..], &[0], &[0, 10]] {
                send(&b, family, other, tags);
                send(&b, family, own, tags);
                assert_eq!(first(0), at(own, 5000), "{tags:?}, {network:?}");
            }
        }
    }
}

#[test]
fn vlans_that_others_changed_are_put_right() {
    let Some((lab, networks)) = lab() else { return };
    let endpoints = networks.map(|network| {
        let join = |role, options: &[&str]| network.container(&lab, role, options);
        [
            join("a", &["vlan=10"]),
            join("b", &["vlan_trunk=20-2000"]),
            join("c", &["vlan=10"]),
            join("d", &["vlan=4094", "vlan_trunk=1"]),
        ]
    });
    let before = vlans(&lab);
    lab.host.stop();
    let bridge = |arguments: String| {
        let run = lab.host.ns.command("bridge").args(arguments.split_whitespace()).output();
        let run = run.expect("running bridge");
        assert!(run.status.success(), "bridge {arguments}: {}", String::from_utf8_lossy(&run.stderr));
    };
    for (network, endpoints) in networks.iter().zip(&endpoints) {
        let [a, b, c, d] = endpoints.each_ref().map(|it| port(&lab, it));
        bridge(format!("vlan delete dev {a} vid 10"));
        bridge(format!("vlan add dev {a} vid 11 pvid untagged"));
        bridge(format!("vlan delete dev {b} vid 30-1999"));
        bridge(format!("vlan add dev {c} vid 20-40"));
        bridge(format!("vlan add dev {d} vid 1 pvid untagged"));
        lab.host.ns.ip(&format!("link set {} type bridge vlan_filtering 0", network.bridge()));
    }
    let ends = trunks(&before);
    assert_eq!(ends.len(), 4, "two networks have a segment each");
    for end in ends {
        bridge(format!("vlan delete dev {end} vid 10"));
    }
    assert_ne!(vlans(&lab), before);
    lab.host.start(&[]);
    assert_eq!(vlans(&lab), before);
    for (network, [a, b, c, d]) in networks.iter().zip(&endpoints) {
        assert_eq!(details(&lab.host.ns, &network.bridge(), "info_data")["vlan_filtering"], 1);
        assert!(reaches(a, c) && cut_off(a, d) && cut_off(b, c), "{network:?}");
    }
}
