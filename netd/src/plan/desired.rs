//! What the stored networks and endpoints ask of the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
    Station, Trunk, Veth, VlanMembership, Vlans, World, default_route::carrier,
};
use crate::model::{
    self, Bridge, BridgeSettings, DEFAULT_VLAN, Dependence, Endpoint, External, GatewayMode, HostPorts, Id,
    Network, Pool, Port, Ports, Rate, Reserver, Sandbox, Segment, State, Target, is_link_local,
};

/// What of a state is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These networks,
    pub networks: BTreeSet<Id>,
    /// and these endpoints, in whatever networks.
    pub endpoints: BTreeSet<Id>,
}

impl Touched {
    /// All that there is.
    pub fn all(state: &State) -> Self {
        let (networks, endpoints) = (state.networks.keys(), state.endpoints.keys());
        Self { networks: networks.copied().collect(), endpoints: endpoints.copied().collect() }
    }

    /// A network without its endpoints.
    pub fn network(id: Id) -> Self {
        Self { networks: [id].into(), ..Self::default() }
    }

    /// An endpoint without its network.
    pub fn endpoint(id: Id) -> Self {
        Self { endpoints: [id].into(), ..Self::default() }
    }
}

/// What `state` asks of the host for what of it is touched; what is not there asks for nothing.
pub fn desired(state: &State, touched: &Touched) -> World {
    let mut world = World::default();
    for network in touched.networks.iter().filter_map(|id| state.networks.get(id)) {
        if let Some(bridge) = &network.bridge {
            add_network(&mut world, network, bridge);
            add_segments(&mut world, state, network, bridge);
        }
    }
    for endpoint in touched.endpoints.iter().filter_map(|id| state.endpoints.get(id)) {
        let network = &state.networks[&endpoint.network];
        if let Some(bridge) = &network.bridge {
            add_endpoint(&mut world, state, network, bridge, endpoint);
            for external in state.externals.values().filter(|external| external.is_of(endpoint)) {
                add_external_flag(&mut world, endpoint, external);
            }
        }
    }
    let touched = |external: &&External| match external.target {
        Target::Endpoint(id) => touched.endpoints.contains(&id),
        Target::Network(id) => touched.networks.contains(&id),
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
        connected: true,
        adopted: bridge.adopted,
        given: bridge.given.iter().copied().collect(),
        ipv6: !is_isolated(network, bridge),
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
        heard: true,
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
    let telling = network.ipam.pools.iter().filter(|pool| !is_link_local(pool.subnet.addr()));
    world.subnets.extend(telling.map(|pool| (pool.subnet, bridge.number)));
}

/// Whether the host has no part in a network's IPv6: as it was asked, or as it was for IPv4 where the network has no other.
fn is_isolated(network: &Network, bridge: &Bridge) -> bool {
    bridge.gateway_mode(network.enable_ipv6) == GatewayMode::Isolated
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
            connected: true,
            adopted: false,
            given: BTreeSet::new(),
            ipv6: false,
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
            mac: bridge.mac,
            up: true,
            heard: false,
            mtu: bridge.mtu,
            port: BridgePort { isolated: segment.isolated || !bridge.icc, ..end },
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

fn add_endpoint(world: &mut World, state: &State, network: &Network, bridge: &Bridge, endpoint: &Endpoint) {
    let far_end = match &endpoint.far_end {
        model::FarEnd::Sandbox(sandbox) => FarEnd::Sandbox(interface(state, network, endpoint, sandbox)),
        model::FarEnd::Engine(_) => FarEnd::Engine { name: endpoint.interface.clone(), mac: endpoint.mac },
    };
    // One that an engine has not taken yet, or has brought back, is in the host's namespace, where the kernel drops what
    // goes the short way. It is down there: nothing is lost by the long one.
    let away = endpoint.far_end.handover().is_none_or(|handover| handover.joined.is_some());
    let name = &endpoint.host_interface;
    let port = port(bridge, &endpoint.port);
    let queue = endpoint.rates.ingress.map(|rate| Queue::new(rate, endpoint.mtu));
    let own = || (bridge.interface.clone(), bridge.mac);
    let (at, mac) =
        endpoint.segment().map_or_else(own, |segment| (segment.bridge(), segment.mac(bridge.mac)));
    let veth = Veth { bridge: Some(at), mac, up: true, heard: true, mtu: endpoint.mtu, port, queue, far_end };
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
        sandbox: sandbox_number(state, endpoint),
        beside: next_beside(state, endpoint),
        link_locals: link_locals(endpoint),
        rate: rates.egress.map(|rate| policed(rate, &endpoint.far_end)).unwrap_or_default(),
    };
    world.endpoints.insert(endpoint.slot, row);
    let row = |container, reserved_by| PublicationRow { slot: endpoint.slot, container, reserved_by };
    let carrier = |ipv6| endpoint.far_end.sandbox().and_then(|sandbox| carrier(state, sandbox, ipv6));
    let carriers = [carrier(false), carrier(true)];
    let at_host = endpoint
        .publications
        .iter()
        .filter(|it| !endpoint.has(it.host.address) && is_led_to(endpoint, &it.host, carriers));
    world.publications.extend(at_host.map(|it| (it.host, row(it.container, it.reserved_by))));
    let own = own_ports(bridge, endpoint);
    world.publications.extend(own.into_iter().map(|host| (host, row(host.first, Reserver::Netd))));
}

/// Whether ports of the host that an endpoint has published lead to it. A runtime names a container's ports at each network that the
/// container joins: they lead to the endpoint that carries its default route, by which the answers leave. There is one of IPv4, and one
/// of IPv6.
fn is_led_to(endpoint: &Endpoint, ports: &HostPorts, carriers: [Option<&Endpoint>; 2]) -> bool {
    carriers[usize::from(ports.address.is_ipv6())].is_none_or(|carrier| {
        carrier.id == endpoint.id || !carrier.publications.iter().any(|it| it.host == *ports)
    })
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
        // What goes to all, or to a group, is the bridge's to keep apart.
        isolated: port.isolated || !bridge.icc,
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

/// What the endpoints of one container have in common, and no others: the inode of its namespace, which in the kernel has no more bits. That of
/// an engine's is not there yet when its first endpoint joins: the lowest of their slots, counted from 1, and no inode is as low. 0 for none.
fn sandbox_number(state: &State, endpoint: &Endpoint) -> u32 {
    match &endpoint.far_end {
        model::FarEnd::Sandbox(sandbox) => u32::try_from(sandbox.inode).unwrap_or_default(),
        model::FarEnd::Engine(_) => slots_of_container(state, endpoint).first().map_or(0, |slot| slot + 1),
    }
}

/// The slots of the endpoints of one container; none while it is not known whose the endpoint is.
fn slots_of_container(state: &State, endpoint: &Endpoint) -> BTreeSet<u32> {
    match &endpoint.far_end {
        model::FarEnd::Sandbox(sandbox) => state.endpoints.in_sandbox(sandbox).map(|it| it.slot).collect(),
        model::FarEnd::Engine(handover) => {
            let path = handover.joined.as_deref();
            path.into_iter().flat_map(|path| state.endpoints.taken_to(path)).map(|it| it.slot).collect()
        }
    }
}

/// The next of the endpoints of one container, by their slots, and the first after the last.
fn next_beside(state: &State, endpoint: &Endpoint) -> u32 {
    let slots = slots_of_container(state, endpoint);
    let next = slots.range(endpoint.slot + 1..).next().or(slots.first());
    next.copied().unwrap_or(endpoint.slot)
}

/// The link-local addresses that nobody else on the endpoint's link is to speak under.
fn link_locals(endpoint: &Endpoint) -> BTreeSet<IpAddr> {
    endpoint.all_addresses().filter(|address| is_link_local(*address)).collect()
}

/// A sandbox's end of the veth, as netd keeps it.
fn interface(state: &State, network: &Network, endpoint: &Endpoint, sandbox: &Sandbox) -> Interface {
    let carries = |ipv6: bool| carrier(state, sandbox, ipv6).is_some_and(|carrier| carrier.id == endpoint.id);
    let addresses = endpoint.nets().chain(endpoint.link_local.iter().copied());
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
        gateway4: endpoint.gateway4.filter(|_| carries(false)),
        gateway6: endpoint.gateway6.filter(|_| carries(true)),
        routes: endpoint.routes.iter().copied().collect(),
    }
}

fn add_external_flag(world: &mut World, endpoint: &Endpoint, external: &External) {
    if let Some(row) = world.endpoints.get_mut(&endpoint.slot) {
        row.flags |= if external.is_ipv6() { EXTERNAL6 } else { EXTERNAL4 };
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn ipv6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests;
