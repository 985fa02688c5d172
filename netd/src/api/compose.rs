//! netd's own answers, put together out of what the engine, the host and the datapath tell, under names that people know.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use netd_common::{
    addr::IfIndex,
    stats::{self, EndpointTraffic},
};

use super::{
    system,
    view::{
        self, Binding, EndpointStats, External, FlowCounts, Link, Map, NamedEndpoint, Names, Nat,
        NetworkRoute, NetworkStats, Program, Routes, Rule, RuleUplink, Station, Status, Uplink, UplinkRoute,
    },
};
use crate::{
    datapath::{self, FdbKey, FlowView},
    dns,
    engine::{HostView, RouteView},
    link,
    model::{
        Bridge, Dependence, Endpoint, HostPorts, Id, MacAddress, Network, Publication, State as Model,
        Target, Total,
    },
};

/// Who serves the names of each network that has any, and what they are.
pub(super) fn names(state: &Model) -> Vec<Names> {
    let mut networks: Vec<_> = state
        .networks
        .values()
        .map(|network| {
            let mut names: Vec<_> = state
                .endpoints_of(network.id)
                .map(|endpoint| NamedEndpoint {
                    names: dns::names(endpoint).map(str::to_owned).collect(),
                    ipv4: endpoint.ipv4.map(|net| net.addr()),
                    ipv6: endpoint.ipv6.map(|net| net.addr()),
                })
                .collect();
            names.sort_by(|a, b| a.names.cmp(&b.names));
            Names {
                network: network.name.clone(),
                network_id: network.id.to_string(),
                servers: dns::addresses(network),
                forwards: !network.internal,
                names,
            }
        })
        .filter(|names| !names.servers.is_empty())
        .collect();
    networks.sort_by(|a, b| a.network.cmp(&b.network));
    networks
}

pub(super) fn status(state: &Model, host: &HostView, status: datapath::Status, uptime: Duration) -> Status {
    let [v4, v6] = status.flows;
    Status {
        version: system::VERSION.into(),
        abi: status.abi,
        kernel: system::kernel_version(),
        uptime: uptime.as_secs_f64(),
        pins: status.pins.display().to_string(),
        networks: state.networks.len(),
        endpoints: state.endpoints.len(),
        flows: FlowCounts { ipv4: v4.flows, ipv6: v6.flows },
        bindings: FlowCounts { ipv4: v4.bindings, ipv6: v6.bindings },
        uplinks: host.uplinks.iter().map(uplink).collect(),
        programs: status
            .programs
            .into_iter()
            .map(|program| Program {
                name: program.name,
                id: program.id,
                tag: format!("{:016x}", program.tag),
                verified_instructions: program.instructions,
                jited_bytes: program.jited,
            })
            .collect(),
        links: status
            .links
            .into_iter()
            .map(|link| Link {
                program: link.program.into(),
                interface: match link.interface {
                    Some(index) => interface_name(host, IfIndex(index)),
                    None => "cgroup".into(),
                },
            })
            .collect(),
        maps: status
            .maps
            .into_iter()
            .map(|map| Map {
                id: map.id,
                name: map.name.into(),
                kind: map.kind,
                key_size: map.key,
                value_size: map.value,
                max_entries: map.max_entries,
                entries: map.entries,
            })
            .collect(),
        features: status.features.into_iter().map(|(name, found)| (name.into(), found)).collect(),
    }
}

fn uplink(uplink: &link::Uplink) -> Uplink {
    Uplink {
        name: uplink.name.clone(),
        index: uplink.index.0,
        ipv4: uplink.ipv4,
        ipv6: uplink.ipv6,
        mtu: uplink.mtu,
        up: uplink.up,
    }
}

/// The name of interface `index`; the number if it has gone.
fn interface_name(host: &HostView, index: IfIndex) -> String {
    host.interfaces.get(&index).cloned().unwrap_or_else(|| index.0.to_string())
}

/// The name of IP protocol `number`; the number if it has none here.
fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

/// The name of the network that `endpoint` is in.
fn network_name(state: &Model, endpoint: &Endpoint) -> String {
    state.networks.get(&endpoint.network).map(|network| network.name.clone()).unwrap_or_default()
}

/// All published ports, by their endpoints.
pub(super) fn publications(state: &Model) -> Vec<view::Publication> {
    let mut publications: Vec<_> = state
        .endpoints
        .values()
        .flat_map(|endpoint| {
            endpoint.publications.iter().map(|it| view::Publication {
                network: network_name(state, endpoint),
                endpoint: endpoint.name.clone(),
                ..published_port(it, endpoint.has(it.host.address))
            })
        })
        .collect();
    publications.sort_by(|a, b| {
        let key = |it: &view::Publication| (it.network.clone(), it.endpoint.clone(), it.container_port);
        key(a).cmp(&key(b)).then_with(|| (a.host_ip, a.host_port).cmp(&(b.host_ip, b.host_port)))
    });
    publications
}

/// Ports of one endpoint, whose name the asker knows.
pub(super) fn published(state: &Model, publications: &[Publication]) -> Vec<view::Publication> {
    let is_own = |address| state.endpoints.values().any(|endpoint| endpoint.has(address));
    publications.iter().map(|it| published_port(it, is_own(it.host.address))).collect()
}

fn published_port(publication: &Publication, is_own: bool) -> view::Publication {
    let (mut host, container) = (publication.host, publication.container_ports());
    if is_own {
        // As Docker shows it: no port of the host's leads there.
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        host = HostPorts { address: all[usize::from(host.address.is_ipv6())], first: 0, last: 0, ..host };
    }
    view::Publication {
        network: String::new(),
        endpoint: String::new(),
        protocol: host.protocol.to_string(),
        host_ip: host.address,
        host_port: host.first,
        host_port_end: host.last,
        container_port: container.first,
        container_port_end: container.last,
        reserved_by: (!is_own).then_some(publication.reserved_by),
    }
}

/// The destinations of the family of `source` that see the network's own addresses.
fn exempts_of(network: &Network, source: IpNet) -> Vec<IpNet> {
    let exempts = network.bridge.iter().flat_map(|bridge| &bridge.exempts).copied();
    exempts.filter(|destination| destination.addr().is_ipv4() == source.addr().is_ipv4()).collect()
}

fn behaviour(network: &Network, of: impl FnOnce(&Bridge) -> Dependence) -> String {
    network.bridge.as_ref().map(of).unwrap_or_default().to_string()
}

/// What the outside sees a network by that leaves through `uplink`: what its routes say, which need not be an address of the
/// uplink's own, or else that one.
fn sources(network: &Network, host: &HostView, uplink: &link::Uplink, ipv6: bool) -> BTreeSet<IpAddr> {
    let bridge = network.bridge.as_ref();
    let (chosen, own): (Option<IpAddr>, Option<IpAddr>) = if ipv6 {
        (bridge.and_then(|bridge| bridge.host6).map(Into::into), uplink.ipv6.map(Into::into))
    } else {
        (bridge.and_then(|bridge| bridge.host4).map(Into::into), uplink.ipv4.map(Into::into))
    };
    if let Some(chosen) = chosen {
        return BTreeSet::from([chosen]);
    }
    let through =
        |route: &&RouteView| route.index == uplink.index && route.destination.addr().is_ipv6() == ipv6;
    let mut routes = host.routes.iter().filter(through).peekable();
    match routes.peek() {
        None => own.into_iter().collect(),
        Some(_) => routes.filter_map(|route| route.source.or(own)).collect(),
    }
}

pub(super) fn nat(state: &Model, host: &HostView, flows: Vec<FlowView>) -> Nat {
    let endpoints: HashMap<u32, &Endpoint> =
        state.endpoints.values().map(|it| (it.slot, it.as_ref())).collect();
    let mut rules: Vec<Rule> = state
        .networks
        .values()
        .filter(|network| !network.internal)
        .flat_map(|network| network.ipam.pools.iter().map(move |pool| (network, pool.subnet)))
        .filter(|(network, subnet)| {
            let bridge = network.bridge.as_ref();
            bridge.is_some_and(|bridge| bridge.masquerades(subnet.addr().is_ipv6()))
        })
        .map(|(network, source)| Rule {
            network: network.name.clone(),
            source,
            uplinks: host
                .uplinks
                .iter()
                .flat_map(|uplink| {
                    let seen = sources(network, host, uplink, source.addr().is_ipv6());
                    seen.into_iter().map(|address| RuleUplink { name: uplink.name.clone(), address })
                })
                .collect(),
            except: exempts_of(network, source),
            mapping: behaviour(network, |bridge| bridge.mapping),
            filtering: behaviour(network, |bridge| bridge.filtering),
        })
        .collect();
    rules.sort_by(|a, b| (&a.network, a.source).cmp(&(&b.network, b.source)));
    let mut bindings: Vec<Binding> = flows
        .into_iter()
        .map(|flow| {
            let endpoint = flow.endpoint.and_then(|slot| endpoints.get(&slot));
            Binding {
                protocol: protocol_name(flow.protocol),
                local: flow.local,
                external: flow.external,
                remote: flow.remote,
                state: flow.state.into(),
                accepted: flow.accepted,
                age: flow.age.as_secs_f64(),
                idle: flow.idle.as_secs_f64(),
                network: endpoint.map(|endpoint| network_name(state, endpoint)),
                endpoint: endpoint.map(|endpoint| endpoint.name.clone()),
                uplink: host.interfaces.get(&flow.uplink).cloned(),
                outbound: flow.outbound.into(),
                inbound: flow.inbound.into(),
            }
        })
        .collect();
    bindings.sort_by(|a, b| (a.local, a.remote, &a.protocol).cmp(&(b.local, b.remote, &b.protocol)));
    Nat { rules, externals: externals(state), bindings }
}

fn externals(state: &Model) -> Vec<External> {
    let mut externals = Vec::new();
    for it in state.externals.values() {
        let Some(internal) = it.internal(state) else { continue };
        let network = match it.target {
            Target::Endpoint(id) => state.endpoints[&id].network,
            Target::Network(id) => id,
        };
        let network = &state.networks[&network];
        let row = |external, internal, endpoint: Option<&Endpoint>| External {
            external,
            internal,
            network: network.name.clone(),
            endpoint: endpoint.map(|endpoint| endpoint.name.clone()),
        };
        if !it.is_address() {
            externals.push(row(it.external, internal, None));
        }
        for endpoint in state.endpoints.values().filter(|endpoint| it.is_of(endpoint)) {
            let internal = endpoint.address(it.is_ipv6());
            let external = internal.and_then(|internal| it.outward(state, internal));
            externals.extend(
                external.zip(internal).map(|(out, within)| row(out.into(), within.into(), Some(endpoint))),
            );
        }
    }
    externals
}

pub(super) fn fdb(state: &Model, stations: Vec<(FdbKey, u32)>) -> Vec<Station> {
    let endpoints: HashMap<u32, &Endpoint> =
        state.endpoints.values().map(|it| (it.slot, it.as_ref())).collect();
    let mut stations: Vec<Station> = stations
        .into_iter()
        .filter_map(|(key, slot)| {
            let endpoint = endpoints.get(&slot)?;
            Some(Station {
                network: network_name(state, endpoint),
                mac: MacAddress::from(key.mac).to_string(),
                endpoint: endpoint.name.clone(),
                interface: endpoint.host_interface.clone(),
            })
        })
        .collect();
    stations.sort_by(|a, b| (&a.network, &a.endpoint, &a.mac).cmp(&(&b.network, &b.endpoint, &b.mac)));
    stations
}

pub(super) fn routes(state: &Model, routes: Vec<RouteView>) -> Routes {
    let mut networks: Vec<NetworkRoute> = state
        .networks
        .values()
        .filter_map(|network| Some((network, network.bridge.as_ref()?)))
        .flat_map(|(network, bridge)| {
            network.ipam.pools.iter().map(|pool| NetworkRoute {
                network: network.name.clone(),
                destination: pool.subnet,
                interface: bridge.interface.clone(),
                gateway: pool.gateway,
            })
        })
        .collect();
    networks.sort_by(|a, b| (&a.network, a.destination).cmp(&(&b.network, b.destination)));
    let mut uplinks: Vec<UplinkRoute> = routes
        .into_iter()
        .map(|route| UplinkRoute {
            destination: route.destination,
            interface: route.interface,
            gateway: route.gateway,
            metric: route.metric,
        })
        .collect();
    uplinks.sort_by(|a, b| {
        (a.destination, a.metric, &a.interface).cmp(&(b.destination, b.metric, &b.interface))
    });
    Routes { networks, uplinks }
}

/// Traffic of the endpoints there are, and of networks with those that have departed.
pub(super) fn traffic(
    state: &Model,
    links: &BTreeMap<Id, stats::Traffic>,
    programs: &BTreeMap<u32, EndpointTraffic>,
) -> (Vec<NetworkStats>, Vec<EndpointStats>) {
    let mut endpoints: Vec<_> = state
        .endpoints
        .values()
        .map(|endpoint| {
            let link = links.get(&endpoint.id).copied().unwrap_or_default();
            let program = programs.get(&endpoint.slot).copied().unwrap_or_default();
            let Total { sent, received } = Total::of(link, program);
            EndpointStats {
                network: network_name(state, endpoint),
                endpoint: endpoint.name.clone(),
                sent,
                received,
            }
        })
        .collect();
    endpoints.sort_by(|a, b| (&a.network, &a.endpoint).cmp(&(&b.network, &b.endpoint)));
    let mut networks: Vec<_> = state
        .networks
        .values()
        .filter(|network| network.bridge.is_some())
        .map(|network| {
            let departed = state.departed.get(&network.id).copied().unwrap_or_default();
            let of_network = || endpoints.iter().filter(|endpoint| endpoint.network == network.name);
            NetworkStats {
                network: network.name.clone(),
                sent: departed.sent + of_network().map(|endpoint| endpoint.sent).sum(),
                received: departed.received + of_network().map(|endpoint| endpoint.received).sum(),
            }
        })
        .collect();
    networks.sort_by(|a, b| a.network.cmp(&b.network));
    (networks, endpoints)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netd_common::addr::Mac;
    use serde_json::json;

    use super::*;
    use crate::{api::sample, model::Traffic};

    fn host() -> HostView {
        let eth1 = link::Uplink {
            index: IfIndex(2),
            name: "eth1".into(),
            framing: crate::model::Framing::Ethernet,
            ipv4: Some([192, 0, 2, 1].into()),
            ipv6: None,
            mac: MacAddress::new([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            up: true,
        };
        HostView {
            uplinks: vec![eth1],
            routes: Vec::new(),
            endpoints: BTreeMap::new(),
            interfaces: BTreeMap::from([(IfIndex(2), "eth1".into())]),
        }
    }

    #[test]
    fn rules_are_of_networks_that_masquerade() {
        let mut state = sample::state();
        let exempts = ["10.8.0.0/16", "fd08::/64"].map(|prefix| prefix.parse().unwrap());
        for bridge in state.networks.values_mut().filter_map(|network| network.bridge.as_mut()) {
            bridge.exempts = exempts.to_vec();
            bridge.mapping = Dependence::EndpointIndependent;
        }
        let nat = nat(&state, &host(), Vec::new());
        assert_eq!(
            serde_json::to_value(nat).unwrap(),
            json!({"bindings": [], "externals": [], "rules": [
                {"network": "bridge", "source": "172.17.0.0/16", "uplinks": [{"name": "eth1", "address": "192.0.2.1"}], "except": ["10.8.0.0/16"], "mapping": "endpoint-independent", "filtering": "address-and-port-dependent"}
            ]})
        );
    }

    #[test]
    fn a_rule_has_the_sources_that_its_routes_name() {
        let route = |destination: &str, source: Option<&str>| RouteView {
            destination: destination.parse().unwrap(),
            gateway: None,
            index: IfIndex(2),
            interface: "eth1".into(),
            source: source.map(|source| source.parse().unwrap()),
            metric: 0,
        };
        let seen = |own: Option<[u8; 4]>, routes: &[RouteView]| -> Vec<String> {
            let mut host = host();
            host.uplinks[0].ipv4 = own.map(Into::into);
            host.routes = routes.to_vec();
            let nat = nat(&sample::state(), &host, Vec::new());
            nat.rules[0].uplinks.iter().map(|uplink| uplink.address.to_string()).collect()
        };
        let own = Some([192, 0, 2, 1]);
        let (named, unnamed) = (route("0.0.0.0/0", Some("192.0.2.9")), route("10.9.0.0/16", None));
        assert_eq!(seen(own, &[route("::/0", Some("2001:db8::1"))]), ["192.0.2.1"]);
        assert_eq!(seen(own, &[named.clone(), unnamed.clone()]), ["192.0.2.1", "192.0.2.9"]);
        assert_eq!(seen(None, &[named, unnamed.clone()]), ["192.0.2.9"], "an uplink without an address");
        assert_eq!(seen(None, &[unnamed]), [""; 0]);
    }

    #[test]
    fn bindings_have_the_names_of_their_ends() {
        let flow = |endpoint| FlowView {
            protocol: 6,
            local: "10.5.1.2:4000".parse().unwrap(),
            remote: "198.51.100.7:443".parse().ok(),
            external: "192.0.2.1:4000".parse().unwrap(),
            state: "established",
            accepted: false,
            endpoint,
            age: Duration::from_millis(1500),
            idle: Duration::ZERO,
            outbound: stats::Traffic { packets: 3, bytes: 300 },
            inbound: stats::Traffic::default(),
            uplink: IfIndex(2),
        };
        let nat = nat(&sample::state(), &host(), vec![flow(Some(7)), flow(None)]);
        let [by_container, by_host] = nat.bindings.as_slice() else { panic!("{nat:?}") };
        assert_eq!(
            (
                by_container.network.as_deref(),
                by_container.endpoint.as_deref(),
                by_container.uplink.as_deref()
            ),
            (Some("n1"), Some("web"), Some("eth1"))
        );
        assert_eq!(
            (by_container.age, by_container.outbound.bytes, &*by_container.protocol),
            (1.5, 300, "tcp")
        );
        assert_eq!((&by_host.network, &by_host.endpoint), (&None, &None));
    }

    #[test]
    fn stations_are_those_of_endpoints() {
        let key = FdbKey { network: 1, mac: Mac::new([2, 0x42, 0x0a, 5, 1, 2]), pad: [0; 2] };
        let stations = fdb(&sample::state(), vec![(key, 7), (key, 8)]);
        assert_eq!(
            serde_json::to_value(stations).unwrap(),
            json!([{"network": "n1", "mac": "02:42:0a:05:01:02", "endpoint": "web", "interface": "veth0123456"}])
        );
    }

    #[test]
    fn what_an_endpoint_got_is_what_both_ways_brought() {
        let mut state = sample::state();
        let of = |packets, bytes| stats::Traffic { packets, bytes };
        let links = BTreeMap::from([(Id::new([9; 32]), of(2, 200))]);
        let programs = BTreeMap::from([(7, EndpointTraffic { sent: of(5, 500), delivered: of(3, 3000) })]);
        let left = Total { sent: Traffic { packets: 1, bytes: 100 }, received: Traffic::default() };
        state.departed.insert(Id::new([2; 32]), left);
        let (networks, endpoints) = traffic(&state, &links, &programs);
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].sent, Traffic { packets: 5, bytes: 500 });
        assert_eq!(endpoints[0].received, Traffic { packets: 5, bytes: 3200 });
        let names: Vec<_> =
            networks.iter().map(|network| (&*network.network, network.received.bytes)).collect();
        assert_eq!(names, [("bridge", 0), ("dev", 0), ("n1", 3200)]);
        let sent: u64 = networks.iter().map(|network| network.sent.packets).sum();
        assert_eq!(sent, 6, "what has left counts");
    }
}
