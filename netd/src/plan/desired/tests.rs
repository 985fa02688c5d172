//! Networks and endpoints, and what the host should have for them.

use super::*;
use crate::model::{Bits, MacAddress, Pool, Rates, Sandbox, Timestamp, sample};

fn network(number: u32, name: &str) -> Network {
    let pool = |subnet: String, gateway: String| Pool {
        gateway: Some(gateway.parse().unwrap()),
        ..sample::pool(&subnet)
    };
    let pools = vec![
        pool(format!("10.{number}.0.0/16"), format!("10.{number}.0.1")),
        pool(format!("fd00:{number}::/64"), format!("fd00:{number}::1")),
    ];
    Network {
        bridge: Some(Bridge {
            mtu: 1400,
            masquerade: false,
            ..Bridge::new(number, format!("br{number}"), MacAddress::new([2, 0, 0, 0, 0, 1]))
        }),
        ..sample::network(number as u8, name, pools)
    }
}

fn endpoint(network: &Network, slot: u32, sandbox: &str, priority: i64) -> Endpoint {
    let number = network.bridge.as_ref().unwrap().number;
    Endpoint {
        far_end: model::FarEnd::Sandbox(Sandbox {
            inode: sandbox.len() as u64,
            ..Sandbox::parse(&format!("netns:{sandbox}")).unwrap()
        }),
        slot,
        mac: MacAddress::new([2, 0, 0, 0, 1, slot as u8]),
        ipv4: format!("10.{number}.0.2/16").parse().ok(),
        ipv6: format!("fd00:{number}::2/64").parse().ok(),
        host_interface: format!("veth{slot}"),
        gateway4: format!("10.{number}.0.1").parse().ok(),
        gateway6: format!("fd00:{number}::1").parse().ok(),
        gateway_priority: priority,
        mtu: 1400,
        ..sample::endpoint(network, 100 + slot as u8, sandbox)
    }
}

fn state(networks: &[&Network], endpoints: &[&Endpoint]) -> State {
    State {
        networks: networks.iter().map(|&network| (network.id, network.clone())).collect(),
        endpoints: endpoints.iter().map(|&endpoint| endpoint.clone()).collect(),
        ..State::default()
    }
}

fn whole(state: &State) -> World {
    desired(state, &Touched::all(state))
}

#[test]
fn an_engines_end_is_its_own_and_takes_the_short_way_only_from_another_namespace() {
    let network = network(1, "n");
    let mut handed = endpoint(&network, 0, "box", 0);
    let taken = |joined: Option<&str>| {
        let joined = joined.map(Into::into);
        model::FarEnd::Engine(model::Handover { id: "e".into(), joined, name: None })
    };
    for (joined, flags) in [(None, 0), (Some("/run/docker/netns/0"), PEER_IN_OTHER_NETNS)] {
        handed.far_end = taken(joined);
        let world = whole(&state(&[&network], &[&handed]));
        let far_end = FarEnd::Engine { name: "eth0".into(), mac: handed.mac };
        assert_eq!((&world.veths["veth0"].far_end, world.endpoints[&0].flags), (&far_end, flags));
    }
    // Its default route is no sandbox's that netd furnishes.
    let other = endpoint(&network, 1, "box", -1);
    assert_eq!(carriers(&[&network], &[&handed, &other]).0, ["veth1"]);
}

#[test]
fn the_endpoints_of_one_container_are_known_as_such() {
    let network = network(1, "n");
    let mut all: Vec<_> = (0..6).map(|slot| endpoint(&network, slot, "box", 0)).collect();
    let paths = [Some("/run/docker/netns/a"), None, Some("/run/docker/netns/b"), Some("/run/docker/netns/a")];
    for (endpoint, path) in all.iter_mut().zip(paths) {
        let joined = path.map(Into::into);
        endpoint.far_end = model::FarEnd::Engine(model::Handover { id: "e".into(), joined, name: None });
    }
    let sandboxes = |all: &[Endpoint]| -> Vec<u32> {
        let all: Vec<_> = all.iter().collect();
        whole(&state(&[&network], &all)).endpoints.values().map(|row| row.sandbox).collect()
    };
    let inode = sandboxes(&all)[4];
    assert_eq!(sandboxes(&all), [1, 0, 3, 1, inode, inode]);
    assert_eq!(u64::from(inode), all[4].far_end.sandbox().unwrap().inode);
    let beside = |all: &[Endpoint]| -> Vec<u32> {
        let all: Vec<_> = all.iter().collect();
        whole(&state(&[&network], &all)).endpoints.values().map(|row| row.beside).collect()
    };
    assert_eq!(beside(&all), [3, 1, 2, 0, 5, 4]);
    assert_eq!(beside(&all[1..]), [1, 2, 3, 5, 4]);
    // Who gets the place of one that has left has nothing in common with the others.
    assert_eq!(sandboxes(&all[1..]), [0, 3, 4, inode, inode]);
}

#[test]
fn a_network_is_a_bridge_a_row_and_its_prefixes() {
    let mut network = network(3, "n");
    network.internal = true;
    let world = whole(&state(&[&network], &[]));
    let bridge = &world.bridges["br3"];
    let addresses: Vec<_> = bridge.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((addresses, bridge.mtu), (vec!["10.3.0.1/16".into(), "fd00:3::1/64".into()], 1400));
    let row = &world.networks[&3];
    assert_eq!((row.flags, row.gateway4), (INTERNAL | ICC | NAMES, Some([10, 3, 0, 1].into())));
    assert_eq!(world.subnets.values().collect::<Vec<_>>(), [&3, &3]);
    assert_eq!(desired(&state(&[&network], &[]), &Touched::default()), World::default());
}

/// Whom a bridge is told of, and in which VLAN.
fn at(world: &World, bridge: &str) -> Vec<(String, Option<u16>)> {
    let stations = world.stations.iter().filter(|station| station.bridge == bridge);
    stations.map(|station| (station.port.clone(), station.vlan)).collect()
}

#[test]
fn a_bridge_is_told_of_whom_it_does_not_hear() {
    let mut network = network(1, "n");
    let mut near = endpoint(&network, 0, "near", 0);
    let mut far = endpoint(&network, 1, "far", 0);
    far.segment = Some(0);
    let mut unguarded = endpoint(&network, 2, "unguarded", 0);
    unguarded.port.mac_spoof_check = false;
    let segment = far.segment().unwrap();
    let seen = |network: &Network, near: &Endpoint| {
        let world = whole(&state(&[network], &[near, &far, &unguarded]));
        assert!(world.stations.iter().all(|station| world.has_port_of(station)));
        [at(&world, "br1"), at(&world, &segment.bridge())]
    };
    let (trunk, end) = (segment.trunk(), segment.far_end());
    let own = |vlan| vec![(trunk.clone(), vlan), ("veth0".to_owned(), vlan)];
    let there = |vlan| vec![(end.clone(), vlan), ("veth1".to_owned(), vlan)];
    assert_eq!(seen(&network, &near), [own(None), there(None)]);
    let settings = |network: &mut Network, settings| network.bridge.as_mut().unwrap().settings = settings;
    settings(&mut network, BridgeSettings { vlan_filtering: Some(true), ..BridgeSettings::default() });
    assert_eq!(seen(&network, &near), [own(Some(1)), there(Some(1))]);
    near.port.vlan = Some(7);
    let mut in_another = own(Some(1));
    in_another[1].1 = Some(7);
    assert_eq!(seen(&network, &near), [in_another, there(Some(1))]);
}

#[test]
fn a_segment_is_a_bridge_and_its_trunk_for_as_long_as_it_has_endpoints() {
    let mut network = network(1, "n");
    let bridge = network.bridge.as_mut().unwrap();
    bridge.settings = BridgeSettings {
        stp: Some(true),
        ageing_time: Some(200),
        mcast_querier: Some(true),
        vlan_filtering: Some(true),
        ..BridgeSettings::default()
    };
    let mut far = endpoint(&network, 0, "far", 0);
    (far.segment, far.port.vlan) = (Some(3), Some(7));
    let mut alone = endpoint(&network, 1, "alone", 0);
    (alone.segment, alone.port.isolated) = (Some(3), true);
    let world = whole(&state(&[&network], &[&far, &alone]));
    let (far, alone) = (far.segment().unwrap(), alone.segment().unwrap());
    assert_eq!(world.veths["veth0"].bridge, Some(far.bridge()));
    assert_eq!(world.veths["veth1"].bridge, Some(alone.bridge()));
    // The ports of a spanning tree the bridge hears.
    assert_eq!(at(&world, &far.bridge()), [(far.far_end(), Some(1))]);
    let link = &world.bridges[&far.bridge()];
    assert_eq!((link.ipv6, link.addresses.len(), link.mtu), (false, 0, 1400));
    let settings = link.settings;
    assert_eq!((settings.ageing_time, settings.priority), (Some(200), Some(u16::MAX)));
    assert_eq!((settings.stp, settings.mcast_querier), (Some(true), None));
    for (segment, isolated, vlans) in [(far, false, vec![1, 7]), (alone, true, vec![1])] {
        assert!(world.segments.contains(&LinkRef::Name(segment.bridge())));
        let trunk = &world.veths[&segment.trunk()];
        assert_eq!((trunk.bridge.as_deref(), trunk.port.isolated), (Some("br1"), isolated));
        let FarEnd::Trunk(end) = &trunk.far_end else { panic!("{trunk:?}") };
        assert_eq!((end.bridge.clone(), end.port.isolated), (Some(segment.bridge()), false));
        for port in [&trunk.port, &end.port] {
            assert!(port.multicast_router);
            assert_eq!(port.vlans.as_ref().unwrap().keys().copied().collect::<Vec<_>>(), vlans);
        }
    }
    let world = whole(&state(&[&network], &[]));
    assert_eq!((world.bridges.len(), world.veths.len(), world.segments.len()), (1, 0, 0));
}

/// The veths that carry a sandbox's default routes, IPv4 and IPv6.
fn carriers(networks: &[&Network], endpoints: &[&Endpoint]) -> (Vec<String>, Vec<String>) {
    let world = whole(&state(networks, endpoints));
    let names = |carries: fn(&Interface) -> bool| {
        world
            .veths
            .iter()
            .filter(|(_, veth)| veth.far_end.interface().is_some_and(carries))
            .map(|(name, _)| name.clone())
            .collect()
    };
    (names(|interface| interface.gateway4.is_some()), names(|interface| interface.gateway6.is_some()))
}

#[test]
fn one_endpoint_of_a_sandbox_carries_each_default_route() {
    let (alpha, beta) = (network(1, "alpha"), network(2, "beta"));
    let networks = [&beta, &alpha];
    let (in_beta, in_alpha) = (endpoint(&beta, 0, "box", 0), endpoint(&alpha, 1, "box", 0));
    // The network's name decides among equals, whichever was joined first.
    assert_eq!(carriers(&networks, &[&in_beta, &in_alpha]), (vec!["veth1".into()], vec!["veth1".into()]));
    assert_eq!(carriers(&networks, &[&in_beta]), (vec!["veth0".into()], vec!["veth0".into()]));
    // The priority goes before the name.
    let first = endpoint(&beta, 0, "box", 1);
    assert_eq!(carriers(&networks, &[&first, &in_alpha]), (vec!["veth0".into()], vec!["veth0".into()]));
    // The families may part.
    let without6 = Endpoint { gateway6: None, ..in_alpha.clone() };
    assert_eq!(carriers(&networks, &[&in_beta, &without6]), (vec!["veth1".into()], vec!["veth0".into()]));
    // Another sandbox has routes of its own.
    let other = endpoint(&beta, 2, "other", 0);
    assert_eq!(carriers(&networks, &[&in_alpha, &other]).0, ["veth1", "veth2"]);
}

#[test]
fn a_limited_endpoint_has_a_queue_at_each_end_that_is_netds() {
    let network = network(1, "n");
    let mut limited = endpoint(&network, 0, "box", 0);
    let (ingress, egress) = (Rate::new(Bits(8_000_000_000)), Rate::new(Bits(80_000_000)));
    limited.rates = Rates { ingress: Some(ingress), egress: Some(egress) };
    let handover = model::Handover { id: "e".into(), joined: None, name: None };
    for (far_end, inner, late) in [
        (limited.far_end.clone(), Some(Queue::new(egress, 1400)), 100_000_000),
        (model::FarEnd::Engine(handover), None, 0),
    ] {
        let limited = Endpoint { far_end, ..limited.clone() };
        let world = whole(&state(&[&network], &[&limited]));
        let veth = &world.veths["veth0"];
        assert_eq!(veth.queue, Some(Queue::new(ingress, 1400)));
        assert_eq!(veth.far_end.interface().and_then(|interface| interface.queue), inner);
        let row = &world.endpoints[&0];
        assert_eq!(row.flags & (SENT_LIMITED | DELIVERED_LIMITED), SENT_LIMITED | DELIVERED_LIMITED);
        assert_eq!((row.rate.bytes_per_second, row.rate.burst), (10_000_000, 20_000_000 + late));
    }
}

#[test]
fn an_external_address_is_a_row_and_a_flag() {
    let network = network(1, "n");
    let (web, other) = (endpoint(&network, 0, "web", 0), endpoint(&network, 1, "other", 0));
    let mut state = state(&[&network], &[&web, &other]);
    let mut add = |external: &str, target| {
        let external = external.parse().unwrap();
        state.externals.insert(external, External { external, target, created: Timestamp::now() });
    };
    add("203.0.113.9/32", Target::Endpoint(web.id));
    add("2001:db8:1::/64", Target::Network(network.id));
    let row = |world: &World, external: &str| {
        world.externals.get(&external.parse().unwrap()).map(ToString::to_string)
    };
    let world = whole(&state);
    assert_eq!(row(&world, "203.0.113.9/32").unwrap(), "10.1.0.2/32");
    assert_eq!(row(&world, "2001:db8:1::/64").unwrap(), "fd00:1::/64");
    let flags = |slot| world.endpoints[&slot].flags & (EXTERNAL4 | EXTERNAL6);
    assert_eq!((flags(0), flags(1)), (EXTERNAL4 | EXTERNAL6, EXTERNAL6));
    // What is not asked about is not touched.
    let part = desired(&state, &Touched::endpoint(other.id));
    assert_eq!(part.externals.len(), 0);
    let part = desired(&state, &Touched::endpoint(web.id));
    assert_eq!(part.externals.keys().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.9/32"]);
}
