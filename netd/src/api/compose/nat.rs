//! What leads to other addresses and ports: rules, bindings, published ports, external addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{network_name, seconds};
use crate::{
    api::view::{self, Binding, External, Nat, Rule, RuleUplink},
    datapath::FlowView,
    engine::{HostView, RouteView},
    link,
    model::{Bridge, Dependence, Endpoint, HostPorts, Network, Publication, State as Model, Target},
};

/// All published ports, by their endpoints.
pub(in crate::api) fn publications(state: &Model) -> Vec<view::Publication> {
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
pub(in crate::api) fn published(state: &Model, publications: &[Publication]) -> Vec<view::Publication> {
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

pub(in crate::api) fn nat(state: &Model, host: &HostView, flows: Vec<FlowView>) -> Nat {
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
            let endpoint = flow.endpoint.and_then(|slot| state.endpoints.at_slot(slot));
            Binding {
                protocol: protocol_name(flow.protocol),
                local: flow.local,
                external: flow.external,
                remote: flow.remote,
                state: flow.state.into(),
                accepted: flow.accepted,
                age: seconds(flow.age),
                idle: seconds(flow.idle),
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use netd_common::{addr::IfIndex, stats};
    use serde_json::json;

    use super::*;
    use crate::{api::sample, model::MacAddress};

    fn host() -> HostView {
        let eth1 = link::Uplink {
            index: IfIndex(2),
            name: "eth1".into(),
            framing: crate::model::Framing::Ethernet,
            ipv4: Some([192, 0, 2, 1].into()),
            ipv6: None,
            default4: None,
            route_mtu: 0,
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
}
