//! netd's own answers, put together out of what the engine, the host and the datapath tell, under names that people know.

mod nat;

use std::{collections::BTreeMap, time::Duration};

use netd_common::{addr::IfIndex, stats::EndpointTraffic};

use super::{
    system,
    view::{
        EndpointStats, FlowCounts, Link, Map, NamedEndpoint, Names, NetworkRoute, NetworkStats, Program,
        Routes, Station, Status, Uplink, UplinkRoute,
    },
};
use crate::{
    datapath::{self, FdbKey},
    dns,
    engine::{HostView, RouteView},
    link,
    model::{Endpoint, Id, MacAddress, State as Model, Total, Traffic},
};

pub(super) use nat::{nat, publications, published};

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

/// In seconds and whole milliseconds, so that no digit stands there which nobody has measured.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

pub(super) fn status(state: &Model, host: &HostView, status: datapath::Status, uptime: Duration) -> Status {
    let [v4, v6] = status.flows;
    Status {
        version: system::VERSION.into(),
        abi: status.abi,
        kernel: system::kernel_version(),
        uptime: seconds(uptime),
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

/// The name of the network that `endpoint` is in.
fn network_name(state: &Model, endpoint: &Endpoint) -> String {
    state.networks.get(&endpoint.network).map(|network| network.name.clone()).unwrap_or_default()
}

pub(super) fn fdb(state: &Model, stations: Vec<(FdbKey, u32)>) -> Vec<Station> {
    let mut stations: Vec<Station> = stations
        .into_iter()
        .filter_map(|(key, slot)| {
            let endpoint = state.endpoints.at_slot(slot)?;
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
    links: &BTreeMap<Id, Traffic>,
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
    use netd_common::{addr::Mac, stats};
    use serde_json::json;

    use super::*;
    use crate::api::sample;

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
        let links = BTreeMap::from([(Id::new([9; 32]), Traffic { packets: 2, bytes: 200 })]);
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
