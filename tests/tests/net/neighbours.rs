//! First contacts: who has an address is asked alone, whoever asks, and the others do not hear of it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netd_tests::lab::{Capture, Container, Family, Lab, Namespace, Ping, RawLink, at, ping, udp, until};

const BRIEF: Ping = Ping { patience: Duration::from_millis(300), id: 7, size: 56 };

/// The address that a frame asks for, if it is a question. One about the sender's own address is none but an announcement
/// (RFC 5227 section 3), which comes when it comes.
fn asked(frame: &[u8]) -> Option<IpAddr> {
    match (frame.get(12..14)?, frame.get(20..22)) {
        ([8, 6], Some([0, 1])) if frame.get(28..32) == frame.get(38..42) => None,
        ([8, 6], Some([0, 1])) => Some(<[u8; 4]>::try_from(frame.get(38..42)?).ok()?.into()),
        ([0x86, 0xdd], _) if frame.get(20) == Some(&58) && frame.get(54) == Some(&135) => {
            Some(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?.into())
        }
        _ => None,
    }
}

/// What a namespace knows of a neighbour: its MAC, if it has one, and the states that the entry is in.
fn neighbour(ns: &Namespace, link: &str, address: IpAddr) -> Option<String> {
    let json = ns.ip(&format!("-json neighbour show {address} dev {link}"));
    let entries: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
    entries[0]["lladdr"].as_str().map(str::to_owned)
}

/// The bridge of the lab's network.
fn bridge(lab: &Lab) -> String {
    let routes = lab.host.ns.ip("-json route show 172.30.0.0/24");
    let routes: serde_json::Value = serde_json::from_str(&routes).expect("ip -json");
    routes[0]["dev"].as_str().expect("a link").to_owned()
}

/// What a third party hears until a broadcast of this container's, and who is asked for in it.
fn overheard(third: &mut Capture, of: &Container, port: u16) -> Vec<IpAddr> {
    let client = udp(&of.ns, Family::V4, port);
    client.set_broadcast(true).expect("a socket's option");
    client.send_to(b"enough", at(Ipv4Addr::new(172, 30, 0, 255), 9)).expect("sending");
    let is_last = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]) && frame[34..36] == port.to_be_bytes();
    let frames = third.frames("the broadcast", is_last);
    frames.iter().filter_map(|frame| asked(frame)).collect()
}

#[test]
fn ipv6_is_spoken_at_once() {
    let lab = Lab::new();
    let container = lab.container("a");
    for (ns, link) in [(&container.ns, "eth0"), (&lab.host.ns, &*bridge(&lab))] {
        let addresses = ns.ip(&format!("-6 address show dev {link}"));
        assert!(addresses.contains("fe80::") && !addresses.contains("tentative"), "{addresses}");
    }
}

#[test]
fn a_first_contact_reaches_nobody_else() {
    let lab = Lab::new();
    let [a, b, c] = ["a", "b", "third"].map(|role| lab.container(role));
    let br = bridge(&lab);
    let mut third = Capture::new(&c.ns, "eth0");
    for (namespace, link) in [(&a.ns, "eth0"), (&b.ns, "eth0"), (&lab.host.ns, &br)] {
        namespace.ip(&format!("neighbour flush dev {link}"));
    }
    for (number, family) in [7000, 7001].into_iter().zip(Family::BOTH) {
        let (near, far) = (a.address(family), b.address(family));
        assert!(ping(&a.ns, far, Ping::default()));
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&lab.host.ns, far, Ping::default()));
        for (namespace, link, address, wanted) in [
            (&a.ns, "eth0", far, b.ns.link_address("eth0")),
            (&b.ns, "eth0", near, a.ns.link_address("eth0")),
            (&a.ns, "eth0", a.gateway(family), lab.host.ns.link_address(&br)),
            (&lab.host.ns, &*br, near, a.ns.link_address("eth0")),
            (&lab.host.ns, &br, far, b.ns.link_address("eth0")),
        ] {
            let who = format!("{address} by {}", namespace.name());
            assert_eq!(neighbour(namespace, link, address), Some(wanted), "{who}");
        }
        let asked = overheard(&mut third, &a, number);
        let known = [near, far, a.gateway(family)];
        assert!(asked.iter().all(|target| !known.contains(target)), "{family:?}: {asked:?}");
    }
    // Whom nobody knows everyone is asked for, and whoever is gone.
    for (number, family) in [7002, 7003].into_iter().zip(Family::BOTH) {
        let nobody: IpAddr = match family {
            Family::V4 => "172.30.0.99".parse().expect("an address"),
            Family::V6 => "fd00:30::99".parse().expect("an address"),
        };
        assert!(!ping(&a.ns, nobody, BRIEF) && overheard(&mut third, &a, number).contains(&nobody));
    }
    lab.host.netd(&format!("network disconnect dual netns:{}", b.ns.name()));
    a.ns.ip("neighbour flush dev eth0");
    for (number, family) in [7004, 7005].into_iter().zip(Family::BOTH) {
        let gone = b.address(family);
        assert!(!ping(&a.ns, gone, BRIEF) && overheard(&mut third, &a, number).contains(&gone));
    }
}

#[test]
fn who_probes_for_an_address_hears_who_has_it() {
    let lab = Lab::new();
    let [a, b, c] = ["a", "b", "third"].map(|role| lab.container(role));
    let mut third = Capture::new(&c.ns, "eth0");
    // RFC 5227 section 2.1.1.
    let (own, theirs) = (a.ns.mac("eth0"), b.ns.mac("eth0"));
    let target = b.ipv4.octets();
    let probe = [&[0xff; 6][..], &own, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &own, &[0; 10], &target].concat();
    let mut heard = Capture::new(&a.ns, "eth0");
    RawLink::new(&a.ns, "eth0").send(&probe);
    let frames = heard.frames("the holder's answer", |frame| frame[12..14] == [8, 6] && frame[21] == 2);
    let answer = frames.last().expect("the answer");
    assert_eq!((&answer[..6], &answer[22..28], &answer[28..32]), (&own[..], &theirs[..], &target[..]));
    // The kernel probes by itself (RFC 4862 section 5.4).
    a.ns.ip(&format!("address add {}/64 dev eth0", b.address(Family::V6)));
    until("the address is known to be another's", || a.ns.ip("address show dev eth0").contains("dadfailed"));
    let asked = overheard(&mut third, &a, 7000);
    assert!(Family::BOTH.iter().all(|&family| !asked.contains(&b.address(family))), "{asked:?}");
}

#[test]
fn an_isolated_neighbour_does_not_answer() {
    let lab = Lab::new();
    let [a, b] = ["a", "b"].map(|role| {
        let ns = Namespace::new(role);
        let isolated = "--driver-opt netd.bridge.isolated=true";
        lab.host.netd(&format!("network connect {isolated} dual netns:{}", ns.name()));
        Container::of(ns)
    });
    let mut heard = Capture::new(&b.ns, "eth0");
    for (number, family) in [7000, 7001].into_iter().zip(Family::BOTH) {
        assert!(!ping(&a.ns, b.address(family), BRIEF));
        assert_eq!(neighbour(&a.ns, "eth0", b.address(family)), None);
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&lab.host.ns, b.address(family), Ping::default()));
        // The host is heard, and the other one is not.
        udp(&lab.host.ns, family, number).send_to(b"enough", at(b.address(family), 9)).expect("sending");
        let port = number.to_be_bytes();
        let is_last = |frame: &[u8]| {
            let l4 = if family == Family::V4 { 34 } else { 54 };
            frame.get(l4..l4 + 2) == Some(&port) && frame.get(l4 + 2..l4 + 4) == Some(&[0, 9])
        };
        let source = a.ns.link_address("eth0");
        for frame in heard.frames("the host's datagram", is_last) {
            let from: Vec<_> = frame[6..12].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_ne!(from.join(":"), source, "{frame:02x?}");
        }
    }
}

/// The stations that a bridge was told of, and where they are.
fn told(lab: &Lab, bridge: &str) -> Vec<(String, String)> {
    let command = lab.host.ns.command("bridge").args(["-json", "fdb", "show", "br", bridge]).output();
    let entries: serde_json::Value =
        serde_json::from_slice(&command.expect("running bridge").stdout).expect("bridge -json");
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = entries.as_array().expect("a list").iter();
    let told = entries.filter(|entry| entry["state"] == "static" && entry["vlan"].is_null());
    let mut told: Vec<_> = told.map(|entry| (text(entry, "mac"), text(entry, "ifname"))).collect();
    told.sort();
    told
}

#[test]
fn bridges_are_told_of_whom_they_do_not_hear() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    lab.host.netd(
        "network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 \
         --opt com.docker.network.bridge.name=br9 --opt netd.bridge.ports=1 dual",
    );
    let [near, far, third] = ["near", "far", "third"].map(|role| lab.container_on("dual", role));
    let segment = lab.host.ns.ip("-oneline link show type bridge");
    let mut names = segment.lines().filter_map(|line| line.split(": ").nth(1));
    let segment = names.find(|name| name.ends_with("-s0")).expect("a segment").to_owned();
    let trunk = segment.replacen("br-", "dn-", 1);
    let (own, there) = (told(&lab, "br9"), told(&lab, &segment));
    let at_trunk = own.iter().filter(|(_, port)| *port == trunk).count();
    assert_eq!((own.len(), at_trunk, there.len()), (3, 2, 3), "{own:?} {there:?}");
    for container in [&near, &far, &third] {
        let mac = container.ns.link_address("eth0");
        assert!(own.iter().any(|(known, _)| *known == mac), "{mac} in {own:?}");
    }

    // What nobody has been heard of for long the bridge sends to one port all the same.
    for bridge in ["br9", &segment] {
        lab.host.ns.ip(&format!("link set {bridge} type bridge fdb_flush"));
    }
    let mut heard = Capture::new(&third.ns, "eth0");
    let [sent, marker] = [7000, 7001_u16].map(|port| udp(&lab.host.ns, Family::V4, port));
    sent.send_to(b"to one", at(far.ipv4, 9)).expect("sending");
    marker.send_to(b"enough", at(third.ipv4, 9)).expect("sending");
    let frames = heard.frames("the host's datagram", |frame| frame.get(34..36) == Some(&[0x1b, 0x59]));
    assert!(frames.iter().all(|frame| frame.get(34..36) != Some(&[0x1b, 0x58])), "{frames:02x?}");

    // What was forgotten is told again, and what is gone is not.
    lab.host.kill();
    let (mac, port) = &there[0];
    let forget = ["fdb", "del", mac, "dev", port, "master"];
    assert!(lab.host.ns.command("bridge").args(forget).status().expect("running bridge").success());
    assert_eq!(told(&lab, &segment).len(), 2);
    let leaving = own.iter().find(|(_, port)| *port != trunk).expect("a port of its own");
    lab.host.ns.ip(&format!("link set {} nomaster", leaving.1));
    assert_eq!(told(&lab, "br9").len(), 2);
    lab.host.start(&[]);
    assert_eq!((told(&lab, "br9"), told(&lab, &segment)), (own, there));
    lab.host.netd(&format!("network disconnect dual netns:{}", far.ns.name()));
    assert_eq!((told(&lab, "br9").len(), told(&lab, &segment).len()), (2, 2));
    assert!(ping(&lab.host.ns, third.ipv4.into(), Ping::default()));
}

#[test]
fn bridges_are_told_of_stations_in_their_vlans() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let create = "network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 \
                  --opt netd.bridge.vlan_filtering=true --opt com.docker.network.bridge.name=br9 \
                  --opt netd.bridge.ports=1 dual";
    let created = lab.host.client(create).output().expect("running netd");
    if !created.status.success() {
        // What no VLANs are needed for is told above.
        let said = String::from_utf8_lossy(&created.stderr).into_owned();
        assert!(said.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{said}");
        return;
    }
    let near = lab.container_on("dual", "near");
    let [one, other] = ["one", "other"].map(|role| {
        let ns = Namespace::new(role);
        lab.host.netd(&format!("network connect --driver-opt netd.bridge.vlan=7 dual netns:{}", ns.name()));
        Container::of(ns)
    });
    let stations = || {
        let command = lab.host.ns.command("bridge").args(["fdb", "show"]).output();
        let text = String::from_utf8(command.expect("running bridge").stdout).expect("text");
        let mut told: Vec<_> =
            text.lines().filter(|line| line.ends_with("static")).map(str::to_owned).collect();
        told.sort();
        told
    };
    let told = stations();
    let in_vlan = |container: &Container, vlan: u16| {
        let (mac, vlan) = (container.ns.link_address("eth0"), format!(" vlan {vlan} "));
        told.iter().filter(|line| line.starts_with(&mac) && line.contains(&vlan)).count()
    };
    // On the bridge itself; at the segment and at the trunk that leads there.
    let found = [in_vlan(&near, 1), in_vlan(&one, 7), in_vlan(&other, 7)];
    assert_eq!((found, told.len()), ([1, 2, 2], 6), "{told:#?}");
    for family in Family::BOTH {
        assert!(ping(&one.ns, other.address(family), Ping::default()));
        assert!(
            !ping(&one.ns, near.address(family), BRIEF) && !ping(&lab.host.ns, one.address(family), BRIEF)
        );
        assert!(ping(&lab.host.ns, near.address(family), Ping::default()));
    }
    lab.host.kill();
    lab.host.start(&[]);
    assert_eq!(stations(), told);
}
