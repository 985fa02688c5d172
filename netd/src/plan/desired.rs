//! What the stored networks and endpoints ask of the host.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netd_common::{
    bridge::{
        EXEMPTS, ICC, INDEPENDENT_FILTERING, INDEPENDENT_MAPPING, INTERNAL, MASQUERADE, NAMES, ROUTED4,
        ROUTED6, UNPROTECTED4, UNPROTECTED6,
    },
    endpoint::{
        ANY_SOURCE, DELIVERED_LIMITED, EXTERNAL4, EXTERNAL6, ISOLATED, NO_GATEWAY, PEER_IN_OTHER_NETNS,
        SENT_LIMITED, VIA_BRIDGE,
    },
};

use super::{
    BridgeLink, BridgePort, EndpointRow, FarEnd, Interface, LinkRef, NetworkRow, PublicationRow, Queue,
    Station, Trunk, Veth, VlanMembership, Vlans, World,
};
use crate::model::{
    self, Bridge, BridgeSettings, DEFAULT_VLAN, Dependence, Endpoint, External, GatewayMode, HostPorts,
    Network, Pool, Port, Ports, Rate, Reserver, Sandbox, Segment, State, Target,
};

/// What `state` asks of the host for those of its networks and endpoints that are asked about.
pub fn desired(
    state: &State,
    networks: impl Fn(&Network) -> bool,
    endpoints: impl Fn(&Endpoint) -> bool,
) -> World {
    let mut world = World::default();
    for network in state.networks.values().filter(|network| networks(network)) {
        if let Some(bridge) = &network.bridge {
            add_network(&mut world, network, bridge);
            add_segments(&mut world, state, network, bridge);
        }
    }
    let routes = default_routes(state);
    for endpoint in state.endpoints.values().filter(|endpoint| endpoints(endpoint)) {
        let network = &state.networks[&endpoint.network];
        if let Some(bridge) = &network.bridge {
            add_endpoint(&mut world, network, bridge, endpoint, &routes);
            for external in state.externals.values().filter(|external| external.is_of(endpoint)) {
                add_external_flag(&mut world, endpoint, external);
            }
        }
    }
    let touched = |external: &&External| match external.target {
        Target::Endpoint(id) => state.endpoints.get(&id).is_some_and(&endpoints),
        Target::Network(id) => state.networks.get(&id).is_some_and(&networks),
    };
    for external in state.externals.values().filter(touched) {
        world.externals.extend(external.internal(state).map(|internal| (external.external, internal)));
    }
    world
}

fn add_network(world: &mut World, network: &Network, bridge: &Bridge) {
    let borne = |address: &IpNet| bridge.bears(address.addr().is_ipv6());
    let addresses = network.ipam.pools.iter().filter_map(Pool::bridge_address).filter(borne).collect();
    let link = BridgeLink {
        mac: bridge.mac,
        mtu: bridge.mtu,
        up: true,
        addresses,
        adopted: bridge.adopted,
        given: bridge.given.iter().copied().collect(),
        segment: false,
        settings: bridge.settings,
    };
    world.bridges.insert(bridge.interface.clone(), link);
    let mut flags = 0;
    for (flag, on) in [
        (INTERNAL, network.internal),
        (MASQUERADE, bridge.masquerade),
        (ICC, bridge.icc),
        (NAMES, network.engine_id.is_none()),
        (EXEMPTS, !bridge.exempts.is_empty()),
        (INDEPENDENT_MAPPING, bridge.mapping == Dependence::EndpointIndependent),
        (INDEPENDENT_FILTERING, bridge.filtering == Dependence::EndpointIndependent),
    ] {
        flags |= if on { flag } else { 0 };
    }
    for (ipv6, routed, unprotected) in [(false, ROUTED4, UNPROTECTED4), (true, ROUTED6, UNPROTECTED6)] {
        flags |= match bridge.gateway_mode(ipv6) {
            GatewayMode::Routed => routed,
            GatewayMode::NatUnprotected => unprotected,
            GatewayMode::Nat | GatewayMode::Isolated => 0,
        };
    }
    let row = NetworkRow {
        bridge: LinkRef::Name(bridge.interface.clone()),
        flags,
        gateway4: network.pool4().filter(|_| bridge.bears(false)).and_then(|pool| ipv4(pool.gateway?)),
        gateway6: network.pool6().filter(|_| bridge.bears(true)).and_then(|pool| ipv6(pool.gateway?)),
        source4: bridge.host4,
        source6: bridge.host6,
        mac: bridge.mac,
    };
    world.networks.insert(bridge.number, row);
    world.exempts.extend(bridge.exempts.iter().map(|destination| (bridge.number, *destination)));
    // Link-local addresses are of every link: none of them says which network somebody is in.
    let telling = network.ipam.pools.iter().filter(|pool| match pool.subnet {
        IpNet::V4(subnet) => !subnet.addr().is_link_local(),
        IpNet::V6(subnet) => !subnet.addr().is_unicast_link_local(),
    });
    world.subnets.extend(telling.map(|pool| (pool.subnet, bridge.number)));
}

/// The segments that the network's endpoints are on, each with its trunk.
fn add_segments(world: &mut World, state: &State, network: &Network, bridge: &Bridge) {
    let mut segments: BTreeMap<Segment, Vlans> = BTreeMap::new();
    for endpoint in state.endpoints_of(network.id) {
        if let Some(segment) = endpoint.segment() {
            let vlans = segments.entry(segment).or_default();
            vlans.extend(port(bridge, &endpoint.port).vlans.unwrap_or_default());
        }
    }
    for (segment, mut vlans) in segments {
        let name = segment.bridge();
        let settings = BridgeSettings {
            // The network's own bridge stays what it would be without: the one that asks, and the one that may be the root.
            mcast_querier: None,
            priority: bridge.settings.stp.filter(|on| *on).map(|_| u16::MAX),
            ..bridge.settings
        };
        let link = BridgeLink {
            mac: segment.mac(bridge.mac),
            mtu: bridge.mtu,
            up: true,
            addresses: BTreeSet::new(),
            adopted: false,
            given: BTreeSet::new(),
            segment: true,
            settings,
        };
        world.bridges.insert(name.clone(), link);
        world.segments.insert(LinkRef::Name(name.clone()));
        // What the endpoints are in, tagged; but untagged frames are the default VLAN's at both ends.
        for membership in vlans.values_mut() {
            *membership = VlanMembership::default();
        }
        vlans.insert(DEFAULT_VLAN, VlanMembership { pvid: true, untagged: true });
        let tells_apart = bridge.settings.vlan_filtering == Some(true);
        let end = BridgePort {
            isolated: false,
            hairpin: false,
            multicast_router: true,
            vlans: tells_apart.then_some(vlans),
        };
        let far_end = FarEnd::Trunk(Trunk {
            name: segment.far_end(),
            bridge: Some(name),
            up: true,
            mtu: bridge.mtu,
            port: end.clone(),
        });
        let trunk = Veth {
            bridge: Some(bridge.interface.clone()),
            up: true,
            heard: false,
            mtu: bridge.mtu,
            port: BridgePort { isolated: segment.isolated, ..end },
            queue: None,
            far_end,
        };
        world.veths.insert(segment.trunk(), trunk);
        // The host is in the default VLAN.
        let vlan = tells_apart.then_some(DEFAULT_VLAN);
        let host = Station { bridge: segment.bridge(), port: segment.far_end(), mac: bridge.mac, vlan };
        world.stations.insert(host);
    }
}

fn add_endpoint(
    world: &mut World,
    network: &Network,
    bridge: &Bridge,
    endpoint: &Endpoint,
    routes: &Routes<'_>,
) {
    let far_end = match &endpoint.far_end {
        model::FarEnd::Sandbox(sandbox) => FarEnd::Sandbox(interface(network, endpoint, sandbox, routes)),
        model::FarEnd::Engine(_) => FarEnd::Engine { name: endpoint.interface.clone(), mac: endpoint.mac },
    };
    // One that an engine has not taken yet, or has brought back, is in the host's namespace, where the kernel drops what
    // goes the short way. It is down there: nothing is lost by the long one.
    let away = endpoint.far_end.handover().is_none_or(|handover| handover.joined.is_some());
    let name = &endpoint.host_interface;
    let port = port(bridge, &endpoint.port);
    let queue = endpoint.rates.ingress.map(|rate| Queue::new(rate, endpoint.mtu));
    let at = endpoint.segment().map_or_else(|| bridge.interface.clone(), |segment| segment.bridge());
    let veth = Veth { bridge: Some(at), up: true, heard: true, mtu: endpoint.mtu, port, queue, far_end };
    world.veths.insert(name.clone(), veth);
    let (mut flags, vlan) = reach(network, bridge, &endpoint.port);
    // What the bridge hears all of it learns by itself.
    if flags & VIA_BRIDGE == 0 {
        world.stations.extend(stations(bridge, endpoint, vlan));
    }
    let rates = endpoint.rates;
    for (flag, on) in [
        (PEER_IN_OTHER_NETNS, away),
        (SENT_LIMITED, rates.egress.is_some()),
        (DELIVERED_LIMITED, rates.ingress.is_some()),
    ] {
        flags |= if on { flag } else { 0 };
    }
    let row = EndpointRow {
        port: LinkRef::Name(name.clone()),
        network: bridge.number,
        flags,
        ipv4: endpoint.ipv4.map(|net| net.addr()),
        ipv6: endpoint.ipv6.map(|net| net.addr()),
        mac: endpoint.mac,
        vlan,
        rate: rates.egress.map(|rate| policed(rate, &endpoint.far_end)).unwrap_or_default(),
    };
    world.endpoints.insert(endpoint.slot, row);
    let row = |container, reserved_by| PublicationRow { slot: endpoint.slot, container, reserved_by };
    let at_host = endpoint.publications.iter().filter(|publication| !endpoint.has(publication.host.address));
    world.publications.extend(at_host.map(|it| (it.host, row(it.container, it.reserved_by))));
    let own = own_ports(bridge, endpoint);
    world.publications.extend(own.into_iter().map(|host| (host, row(host.first, Reserver::Netd))));
}

/// The ports that are reached at the endpoint's own addresses: those that it has published where it is routed to, or from
/// somewhere trusted. No port is in two of them, whatever ports of the host lead to it.
fn own_ports(bridge: &Bridge, endpoint: &Endpoint) -> Vec<HostPorts> {
    let mut own: Vec<_> = endpoint
        .publications
        .iter()
        .filter_map(|publication| {
            let address = endpoint.address(publication.host.address.is_ipv6())?;
            let is_reached = publication.host.address == address || !bridge.trusted_interfaces.is_empty();
            let Ports { first, last } = publication.container_ports();
            let ports = HostPorts { protocol: publication.host.protocol, address, first, last };
            is_reached.then_some(ports)
        })
        .collect();
    own.sort_unstable();
    let mut disjoint: Vec<HostPorts> = Vec::new();
    for mut ports in own {
        if let Some(before) = disjoint.last()
            && before.overlaps(&ports)
        {
            if ports.last <= before.last {
                continue;
            }
            ports.first = before.last + 1;
        }
        disjoint.push(ports);
    }
    disjoint
}

/// What the programs hold an endpoint's own end to. Behind a queue that keeps to the rate they are to drop nothing, though it
/// take a while until they see what the queue has let out.
fn policed(rate: Rate, far_end: &model::FarEnd) -> netd_common::rate::Rate {
    const LATE: u64 = 100_000_000;
    let late = if far_end.sandbox().is_some() { LATE } else { 0 };
    netd_common::rate::Rate {
        bytes_per_second: rate.bytes_per_second(),
        burst: rate.burst_time().saturating_add(late),
    }
}

/// Where an endpoint is to be found: at its own port, and on the network's bridge at the trunk that leads there.
fn stations(bridge: &Bridge, endpoint: &Endpoint, vlan: u16) -> impl Iterator<Item = Station> {
    let at = |bridge: String, port: String| Station {
        bridge,
        port,
        mac: endpoint.mac,
        vlan: (vlan != 0).then_some(vlan),
    };
    let segment = endpoint.segment();
    let own = segment.map_or_else(|| bridge.interface.clone(), |segment| segment.bridge());
    let by_trunk = segment.map(|segment| at(bridge.interface.clone(), segment.trunk()));
    [at(own, endpoint.host_interface.clone())].into_iter().chain(by_trunk)
}

/// What the bridge has to know of a port.
fn port(bridge: &Bridge, port: &Port) -> BridgePort {
    let vlans = || {
        let tagged = port.trunk.iter().flat_map(|range| range.first..=range.last);
        let mut vlans: Vlans = tagged.map(|vlan| (vlan, VlanMembership::default())).collect();
        vlans.insert(port.vlan.unwrap_or(DEFAULT_VLAN), VlanMembership { pvid: true, untagged: true });
        vlans
    };
    BridgePort {
        isolated: port.isolated,
        hairpin: port.hairpin,
        multicast_router: false,
        vlans: (bridge.settings.vlan_filtering == Some(true)).then(vlans),
    }
}

/// What the programs have to know of a port, so that they never do what its bridge would not: flags and VLAN.
fn reach(network: &Network, bridge: &Bridge, port: &Port) -> (u32, u16) {
    let guarded = port.mac_spoof_check && !network.ipam.is_null();
    // Ports of a spanning tree may be blocked at any moment, and the stations behind an unguarded port are the bridge's to
    // learn: there the programs only judge.
    let via_bridge = !bridge.fast_path || bridge.settings.stp == Some(true) || !guarded;
    let vlan = match bridge.settings.vlan_filtering {
        Some(true) => port.vlan.unwrap_or(DEFAULT_VLAN),
        _ => 0,
    };
    let flags = [
        (VIA_BRIDGE, via_bridge),
        (ANY_SOURCE, !guarded),
        (ISOLATED, port.isolated),
        (NO_GATEWAY, ![0, DEFAULT_VLAN].contains(&vlan)),
    ];
    (flags.into_iter().filter(|(_, on)| *on).fold(0, |all, (flag, _)| all | flag), vlan)
}

/// A sandbox's end of the veth, as netd keeps it.
fn interface(network: &Network, endpoint: &Endpoint, sandbox: &Sandbox, routes: &Routes<'_>) -> Interface {
    let carries = |route: Option<&&Endpoint>| route.is_some_and(|carrier| carrier.id == endpoint.id);
    let (route4, route6) = routes.get(&sandbox.inode).copied().unwrap_or_default();
    let addresses = endpoint.ipv4.map(IpNet::from).into_iter().chain(endpoint.ipv6.map(IpNet::from));
    let addresses = addresses.chain(endpoint.link_local.iter().copied());
    Interface {
        sandbox: sandbox.clone(),
        name: endpoint.interface.clone(),
        mac: endpoint.mac,
        mtu: endpoint.mtu,
        up: true,
        queue: endpoint.rates.egress.map(|rate| Queue::new(rate, endpoint.mtu)),
        ipv6: network.enable_ipv6,
        addresses: addresses.collect(),
        sysctls: endpoint.sysctls.iter().cloned().collect(),
        gateway4: endpoint.gateway4.filter(|_| carries(route4.as_ref())),
        gateway6: endpoint.gateway6.filter(|_| carries(route6.as_ref())),
        routes: endpoint.routes.iter().copied().collect(),
    }
}

fn add_external_flag(world: &mut World, endpoint: &Endpoint, external: &External) {
    if let Some(row) = world.endpoints.get_mut(&endpoint.slot) {
        row.flags |= if external.is_ipv6() { EXTERNAL6 } else { EXTERNAL4 };
    }
}

/// The endpoint that carries a sandbox's default route; if two do, the one of IPv4.
pub fn gateway_endpoint<'a>(state: &'a State, sandbox: &Sandbox) -> Option<&'a Endpoint> {
    let (route4, route6) = default_routes(state).remove(&sandbox.inode)?;
    route4.or(route6)
}

/// The endpoints that carry each sandbox's default routes, IPv4 and IPv6; a sandbox, however it is named, is its inode.
type Routes<'a> = BTreeMap<u64, (Option<&'a Endpoint>, Option<&'a Endpoint>)>;

/// The highest priority wins, among equals the network whose name comes first, and in one network who came first.
fn default_routes(state: &State) -> Routes<'_> {
    let mut routes = Routes::new();
    let rank = |endpoint: &Endpoint| {
        let name = &state.networks[&endpoint.network].name;
        (Reverse(endpoint.gateway_priority), name, endpoint.created)
    };
    for endpoint in state.endpoints.values() {
        // The routes of an engine's sandboxes are the engine's.
        let Some(sandbox) = endpoint.far_end.sandbox() else { continue };
        let (route4, route6) = routes.entry(sandbox.inode).or_default();
        let better = |route: &Option<&Endpoint>| route.is_none_or(|route| rank(endpoint) < rank(route));
        if endpoint.gateway4.is_some() && better(route4) {
            *route4 = Some(endpoint);
        }
        if endpoint.gateway6.is_some() && better(route6) {
            *route6 = Some(endpoint);
        }
    }
    routes
}

fn ipv4(address: std::net::IpAddr) -> Option<Ipv4Addr> {
    match address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

fn ipv6(address: std::net::IpAddr) -> Option<Ipv6Addr> {
    match address {
        std::net::IpAddr::V6(address) => Some(address),
        std::net::IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
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
            endpoints: endpoints.iter().map(|&endpoint| (endpoint.id, endpoint.clone())).collect(),
            ..State::default()
        }
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
            let world = desired(&state(&[&network], &[&handed]), |_| true, |_| true);
            let far_end = FarEnd::Engine { name: "eth0".into(), mac: handed.mac };
            assert_eq!((&world.veths["veth0"].far_end, world.endpoints[&0].flags), (&far_end, flags));
        }
        // Its default route is no sandbox's that netd furnishes.
        let other = endpoint(&network, 1, "box", -1);
        assert_eq!(carriers(&[&network], &[&handed, &other]).0, ["veth1"]);
    }

    #[test]
    fn a_network_is_a_bridge_a_row_and_its_prefixes() {
        let mut network = network(3, "n");
        network.internal = true;
        let world = desired(&state(&[&network], &[]), |_| true, |_| true);
        let bridge = &world.bridges["br3"];
        let addresses: Vec<_> = bridge.addresses.iter().map(ToString::to_string).collect();
        assert_eq!((addresses, bridge.mtu), (vec!["10.3.0.1/16".into(), "fd00:3::1/64".into()], 1400));
        let row = &world.networks[&3];
        assert_eq!((row.flags, row.gateway4), (INTERNAL | ICC | NAMES, Some([10, 3, 0, 1].into())));
        assert_eq!(world.subnets.values().collect::<Vec<_>>(), [&3, &3]);
        assert_eq!(desired(&state(&[&network], &[]), |_| false, |_| true), World::default());
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
            let world = desired(&state(&[network], &[near, &far, &unguarded]), |_| true, |_| true);
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
        let world = desired(&state(&[&network], &[&far, &alone]), |_| true, |_| true);
        let (far, alone) = (far.segment().unwrap(), alone.segment().unwrap());
        assert_eq!(world.veths["veth0"].bridge, Some(far.bridge()));
        assert_eq!(world.veths["veth1"].bridge, Some(alone.bridge()));
        // The ports of a spanning tree the bridge hears.
        assert_eq!(at(&world, &far.bridge()), [(far.far_end(), Some(1))]);
        let link = &world.bridges[&far.bridge()];
        assert_eq!((link.segment, link.addresses.len(), link.mtu), (true, 0, 1400));
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
        let world = desired(&state(&[&network], &[]), |_| true, |_| true);
        assert_eq!((world.bridges.len(), world.veths.len(), world.segments.len()), (1, 0, 0));
    }

    /// The veths that carry a sandbox's default routes, IPv4 and IPv6.
    fn carriers(networks: &[&Network], endpoints: &[&Endpoint]) -> (Vec<String>, Vec<String>) {
        let world = desired(&state(networks, endpoints), |_| true, |_| true);
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
            let world = desired(&state(&[&network], &[&limited]), |_| true, |_| true);
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
        let world = desired(&state, |_| true, |_| true);
        assert_eq!(row(&world, "203.0.113.9/32").unwrap(), "10.1.0.2/32");
        assert_eq!(row(&world, "2001:db8:1::/64").unwrap(), "fd00:1::/64");
        let flags = |slot| world.endpoints[&slot].flags & (EXTERNAL4 | EXTERNAL6);
        assert_eq!((flags(0), flags(1)), (EXTERNAL4 | EXTERNAL6, EXTERNAL6));
        // What is not asked about is not touched.
        let part = desired(&state, |_| false, |it| it.id == other.id);
        assert_eq!(part.externals.len(), 0);
        let part = desired(&state, |_| false, |it| it.id == web.id);
        assert_eq!(part.externals.keys().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.9/32"]);
    }
}
