//! The steps, run on a model of the host that refuses what the kernel would refuse.

use std::collections::BTreeSet;

use netd_common::{bridge::ICC, rate::Rate};
use proptest::prelude::*;

use super::*;
use crate::{
    model::{BridgeSettings, HostPorts, MacAddress, Protocol, Reserver, Sandbox},
    plan::{BridgePort, FarEnd, Interface, PublicationRow, Queue},
};

impl World {
    /// Takes one step, or says why the host would not.
    fn take(&mut self, step: &Step) -> Result<(), String> {
        fn replace<K: Ord + Clone + std::fmt::Debug, V: Clone + PartialEq + std::fmt::Debug>(
            map: &mut BTreeMap<K, V>,
            key: &K,
            from: &Option<V>,
            to: &Option<V>,
        ) -> Result<(), String> {
            if map.get(key) != from.as_ref() {
                return Err(format!("{key:?} is {:?}, not {from:?}", map.get(key)));
            }
            if from == to {
                return Err(format!("{key:?} does not change"));
            }
            match to {
                Some(to) => map.insert(key.clone(), to.clone()),
                None => map.remove(key),
            };
            Ok(())
        }
        match step {
            Step::Discard { link } => self.strays.remove(link).then_some(()).ok_or("no such stray")?,
            Step::Bridge { name, from, to } => replace(&mut self.bridges, name, from, to)?,
            Step::Veth { name, from, to } => {
                replace(&mut self.veths, name, &from.as_deref().cloned(), &to.as_deref().cloned())?;
                if let Some(bridge) = to.as_ref().and_then(|veth| veth.bridge.as_ref())
                    && !self.bridges.contains_key(bridge)
                {
                    return Err(format!("{name} is put into {bridge}, which is not there"));
                }
            }
            Step::DefaultRoute { sandbox, from, to } => {
                for (route, leads) in [(from, false), (to, true)] {
                    let veth = self.veths.get_mut(&route.veth).ok_or(format!("{route:?} is nowhere"))?;
                    let FarEnd::Sandbox(interface) = &mut veth.far_end else {
                        return Err(format!("{route:?} is in no sandbox"));
                    };
                    let has = interface.gateways().any(|gateway| gateway == route.gateway);
                    if interface.sandbox != *sandbox || has == leads {
                        return Err(format!("{route:?} does not change in {sandbox:?}"));
                    }
                    interface.set_gateway(route.gateway, leads);
                }
            }
            Step::Station { station, put } => {
                let stations = &mut self.stations;
                let changed = if *put { stations.insert(station.clone()) } else { stations.remove(station) };
                changed.then_some(()).ok_or(format!("{station:?} does not change"))?;
            }
            Step::Network { number, from, to } => replace(&mut self.networks, number, from, to)?,
            Step::Exempt { network, destination, put } => {
                let exempt = (*network, *destination);
                let changed = if *put { self.exempts.insert(exempt) } else { self.exempts.remove(&exempt) };
                changed.then_some(()).ok_or(format!("{exempt:?} does not change"))?;
            }
            Step::Subnet { prefix, from, to } => replace(&mut self.subnets, prefix, from, to)?,
            Step::External { external, from, to } => replace(&mut self.externals, external, from, to)?,
            Step::Endpoint { slot, from, to } => replace(&mut self.endpoints, slot, from, to)?,
            Step::Forsake { port } => self.forsaken.remove(port).then_some(()).ok_or("no such port")?,
            Step::Segment { link, attach } => {
                let segments = &mut self.segments;
                let changed = if *attach { segments.insert(link.clone()) } else { segments.remove(link) };
                changed.then_some(()).ok_or(format!("{link:?} does not change"))?;
            }
            Step::Publication { host, from, to } => {
                replace(&mut self.publications, host, from, to)?;
                let mut hosts = self.publications.keys();
                if to.is_some() && hosts.any(|other| other != host && other.overlaps(host)) {
                    return Err(format!("{host} leads to two"));
                }
            }
            Step::EndUnbound | Step::EndUnpublished => {}
        }
        self.check()
    }

    /// What holds between any two steps.
    fn check(&self) -> Result<(), String> {
        let there = |link: &LinkRef| match link {
            LinkRef::Name(name) => self.veths.contains_key(name) || self.bridges.contains_key(name),
            LinkRef::Gone(_) => true,
        };
        let refs = self.networks.values().map(|row| &row.bridge);
        let refs = refs.chain(self.endpoints.values().map(|row| &row.port)).chain(&self.segments);
        for link in refs {
            if !there(link) {
                return Err(format!("{link:?} is referred to and not there"));
            }
        }
        if let Some(station) = self.stations.iter().find(|station| !self.has_port_of(station)) {
            return Err(format!("{station:?} is told of a port that is none"));
        }
        let internals: BTreeSet<_> = self.externals.values().collect();
        if internals.len() != self.externals.len() {
            return Err("two external addresses of one thing".into());
        }
        for sandbox in 0..SANDBOXES {
            let routes = |family: fn(&Interface) -> bool| {
                let interfaces = self.veths.values().filter_map(|veth| veth.far_end.interface());
                interfaces.filter(|i| i.sandbox.inode == sandbox && family(i)).count()
            };
            if routes(|i| i.gateway4.is_some()) > 1 || routes(|i| i.gateway6.is_some()) > 1 {
                return Err("two default routes in one sandbox".into());
            }
        }
        Ok(())
    }
}

const SANDBOXES: u64 = 3;

fn mac(last: u8) -> MacAddress {
    MacAddress::new([2, 0, 0, 0, 0, last])
}

fn addresses() -> impl Strategy<Value = BTreeSet<IpNet>> {
    prop::collection::btree_set(
        prop::sample::select(vec!["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"])
            .prop_map(|text| text.parse().unwrap()),
        0..3,
    )
}

fn bridge() -> impl Strategy<Value = BridgeLink> {
    (0..2u8, 1400..1402u32, any::<bool>(), addresses()).prop_map(|(last, mtu, up, addresses)| BridgeLink {
        mac: mac(last),
        mtu,
        up,
        addresses,
        connected: last == 1,
        adopted: false,
        given: BTreeSet::new(),
        ipv6: true,
        settings: BridgeSettings { stp: Some(last == 1), ..BridgeSettings::default() },
    })
}

fn queue(there: bool) -> Option<Queue> {
    there.then_some(Queue { bytes_per_second: 1_000_000, burst: 20_000, waiting: 131_072 })
}

fn veth() -> impl Strategy<Value = Veth> {
    (0..2u8, 1400..1402u32, any::<[bool; 5]>(), addresses(), any::<[bool; 2]>()).prop_map(
        |(last, mtu, [up, heard, enslaved, iface_up, ipv6], addresses, [route4, route6])| Veth {
            bridge: enslaved.then(|| "br".to_owned()),
            mac: mac(last),
            up,
            heard,
            mtu,
            port: BridgePort { isolated: last == 1, ..BridgePort::default() },
            queue: queue(last == 1),
            far_end: FarEnd::Sandbox(Interface {
                sandbox: Sandbox::parse("pid:1").unwrap(),
                name: "eth0".into(),
                mac: mac(last),
                mtu,
                up: iface_up,
                queue: queue(last == 0),
                ipv6,
                addresses,
                sysctls: BTreeSet::new(),
                gateway4: route4.then(|| [10, 0, 0, 1].into()),
                gateway6: route6.then(|| "fd00::1".parse().unwrap()),
                routes: Default::default(),
            }),
        },
    )
}

fn address(net: u8, host: u8) -> IpNet {
    IpNet::new([10, 0, net, host].into(), 32).unwrap()
}

/// A world that the host can be in; `stale` allows for what a dead daemon may have left.
fn world(stale: bool) -> impl Strategy<Value = World> {
    let keys = |prefix: &'static str, n: u32| (0..n).prop_map(move |i| format!("{prefix}{i}"));
    (
        prop::collection::btree_map(keys("br", 3), bridge(), 0..3),
        prop::collection::btree_map(keys("veth", 4), veth(), 0..4),
        prop::collection::btree_map(0..3u32, (0..4usize, 0..2u32), 0..3),
        prop::collection::btree_map(0..3u8, 0..3u32, 0..3),
        prop::collection::btree_map(0..4u32, (0..5usize, 0..2u32), 0..4),
        prop::collection::btree_set(7..10u32, 0..3),
        prop::collection::btree_set(keys("stray", 3), 0..3),
        prop::collection::btree_map(80..84u16, (0..3u16, 0..2u32), 0..3),
        (prop::collection::btree_set(0..3u8, 0..3), 0..3u8),
        prop::collection::btree_set(0..4usize, 0..3),
        (
            prop::collection::btree_set((0..3u32, 0..3u8), 0..3),
            prop::collection::btree_set((0..4u8, 0..2u8), 0..4),
        ),
    )
        .prop_map(
            move |(
                bridges,
                mut veths,
                networks,
                subnets,
                endpoints,
                forsaken,
                strays,
                published,
                externals,
                segments,
                (exempts, stations),
            )| {
                let mut routed = BTreeSet::new();
                for (name, veth) in &mut veths {
                    veth.bridge = veth.bridge.take().and(bridges.keys().next().cloned());
                    veth.heard |= veth.up && !stale;
                    // Whose the far end is follows from the name, as it does for endpoints: the last one is an engine's.
                    let FarEnd::Sandbox(interface) = &mut veth.far_end else { continue };
                    if name == "veth3" {
                        veth.far_end = FarEnd::Engine { name: "peer3".into(), mac: mac(3) };
                        continue;
                    }
                    interface.sandbox.inode = u64::from(name.as_bytes()[4]) % SANDBOXES;
                    interface.gateway4 =
                        interface.gateway4.filter(|_| routed.insert((4, interface.sandbox.inode)));
                    interface.gateway6 =
                        interface.gateway6.filter(|_| routed.insert((6, interface.sandbox.inode)));
                }
                let stations = stations.into_iter().filter_map(|(at, last)| {
                    let port = format!("veth{at}");
                    let bridge = veths.get(&port)?.bridge.clone()?;
                    Some(Station { bridge, port, mac: mac(last), vlan: None })
                });
                let stations = stations.collect();
                let link = |names: Vec<&String>, at: usize| match names.get(at) {
                    Some(name) => Some(LinkRef::Name((*name).clone())),
                    None if stale => Some(LinkRef::Gone(at as u32)),
                    None => None,
                };
                let networks = networks.into_iter().filter_map(|(number, (at, flags))| {
                    let bridge = link(bridges.keys().collect(), at)?;
                    let (gateway4, gateway6, source4, source6) = (None, None, None, None);
                    Some((
                        number,
                        NetworkRow {
                            bridge,
                            heard: at == 0,
                            flags,
                            gateway4,
                            gateway6,
                            source4,
                            source6,
                            mac: mac(0),
                        },
                    ))
                });
                let endpoints = endpoints.into_iter().filter_map(|(slot, (at, flags))| {
                    let port = link(veths.keys().collect(), at)?;
                    let (ipv4, ipv6, rate) = (None, None, Rate::default());
                    Some((
                        slot,
                        EndpointRow {
                            port,
                            network: 0,
                            flags,
                            ipv4,
                            ipv6,
                            mac: mac(0),
                            vlan: 0,
                            sandbox: 0,
                            beside: slot,
                            link_locals: BTreeSet::new(),
                            rate,
                        },
                    ))
                });
                World {
                    stations,
                    strays: if stale { strays } else { Default::default() },
                    networks: networks.collect(),
                    subnets: subnets
                        .into_iter()
                        .map(|(third, number)| (IpNet::new([10, 0, third, 0].into(), 24).unwrap(), number))
                        .collect(),
                    exempts: exempts
                        .into_iter()
                        .map(|(number, third)| (number, IpNet::new([10, 1, third, 0].into(), 24).unwrap()))
                        .collect(),
                    // Each stands for another.
                    externals: externals
                        .0
                        .iter()
                        .map(|at| (address(113, *at), address(0, (at + externals.1) % 3)))
                        .collect(),
                    endpoints: endpoints.collect(),
                    forsaken: if stale { forsaken } else { Default::default() },
                    segments: segments
                        .into_iter()
                        .filter_map(|at| link(bridges.keys().collect(), at))
                        .collect(),
                    bridges,
                    veths,
                    publications: published.into_iter().fold(BTreeMap::new(), publish),
                }
            },
        )
}

/// Publishes ports, unless one of them is published.
fn publish(
    mut all: BTreeMap<HostPorts, PublicationRow>,
    (first, (more, slot)): (u16, (u16, u32)),
) -> BTreeMap<HostPorts, PublicationRow> {
    let (protocol, address) = (Protocol::Tcp, [0, 0, 0, 0].into());
    let host = HostPorts { protocol, address, first, last: first + more };
    if !all.keys().any(|other| other.overlaps(&host)) {
        all.insert(host, PublicationRow { slot, container: 80, reserved_by: Reserver::Netd });
    }
    all
}

#[test]
fn bindings_end_where_a_network_has_no_such_option_any_more() {
    let row = |flags| NetworkRow {
        bridge: LinkRef::Gone(1),
        heard: true,
        flags,
        gateway4: None,
        gateway6: None,
        source4: None,
        source6: None,
        mac: mac(0),
    };
    let with = |rows: &[(u32, u32)]| World {
        networks: rows.iter().map(|&(number, flags)| (number, row(flags))).collect(),
        ..World::default()
    };
    let ends = |from: &[(u32, u32)], to: &[(u32, u32)]| {
        let steps = steps(&with(from), &with(to));
        let ends = steps.iter().filter(|step| **step == Step::EndUnbound).count();
        // By then the programs know: they make no new ones.
        assert!(ends == 0 || steps.last() == Some(&Step::EndUnbound), "{steps:?}");
        ends
    };
    let both = INDEPENDENT_MAPPING | INDEPENDENT_FILTERING;
    for lost in [INDEPENDENT_MAPPING, INDEPENDENT_FILTERING, both] {
        assert_eq!(ends(&[(0, both)], &[(0, both & !lost)]), 1);
        assert_eq!(ends(&[(0, lost)], &[(0, 0)]), 1);
        assert_eq!(ends(&[(0, 0)], &[(0, lost)]), 0, "what is asked for ends nothing");
        assert_eq!(ends(&[(0, lost | ICC)], &[(0, lost)]), 0, "another option");
        assert_eq!(ends(&[(0, lost), (1, both)], &[(0, 0), (1, 0)]), 1, "once for all networks");
        assert_eq!(ends(&[(0, lost)], &[(0, lost), (1, 0)]), 0, "another network");
        assert_eq!(ends(&[(0, lost)], &[]), 0, "a network's endpoints are gone before it");
    }
    assert_eq!(Step::EndUnbound.inverse(), None, "what has ended does not come back");
}

#[test]
fn a_default_route_moves_without_being_missed() {
    let interface = |index: u8, leads: bool| Interface {
        sandbox: Sandbox::parse("pid:1").unwrap(),
        name: format!("eth{index}"),
        mac: mac(index),
        mtu: 1500,
        up: true,
        queue: None,
        ipv6: true,
        addresses: BTreeSet::new(),
        sysctls: BTreeSet::new(),
        gateway4: leads.then(|| [10, 0, index, 1].into()),
        gateway6: leads.then(|| std::net::Ipv6Addr::new(0xfd00, index.into(), 0, 0, 0, 0, 0, 1)),
        routes: BTreeSet::new(),
    };
    let with = |there: &[(u8, bool)]| World {
        veths: there
            .iter()
            .map(|&(index, leads)| {
                let far_end = FarEnd::Sandbox(interface(index, leads));
                let (port, heard) = (BridgePort::default(), true);
                (
                    format!("veth{index}"),
                    Veth {
                        bridge: None,
                        mac: mac(0),
                        up: true,
                        heard,
                        mtu: 1500,
                        port,
                        queue: None,
                        far_end,
                    },
                )
            })
            .collect(),
        ..World::default()
    };
    let another_joins = (with(&[(1, true)]), with(&[(0, true), (1, false)]));
    let it_leaves = (with(&[(0, true), (1, false)]), with(&[(1, true)]));
    let it_comes_first = (with(&[(0, false), (1, true)]), with(&[(0, true), (1, false)]));
    for (from, to) in [another_joins, it_leaves, it_comes_first] {
        let mut world = from.clone();
        for step in steps(&from, &to) {
            world.take(&step).unwrap();
            for ipv6 in [false, true] {
                let leads = |veth: &&Veth| {
                    veth.far_end.interface().is_some_and(|it| it.gateways().any(|it| it.is_ipv6() == ipv6))
                };
                let carriers: Vec<_> = world.veths.values().filter(leads).collect();
                assert!(carriers.len() == 1 && carriers[0].up, "after {step:?}: {world:?}");
            }
        }
        assert_eq!(world, to);
    }
}

fn comes_up_unheard(step: &Step) -> bool {
    let Step::Veth { from, to: Some(to), .. } = step else { return false };
    to.up && !to.heard && from.as_ref().is_none_or(|veth| !veth.up)
}

proptest! {
    #[test]
    fn a_plan_leads_to_what_is_desired(from in world(true), to in world(false)) {
        let mut world = from.clone();
        for step in steps(&from, &to) {
            prop_assert!(!comes_up_unheard(&step), "{step:?}");
            world.take(&step).map_err(|why| TestCaseError::fail(format!("{step:?}: {why}")))?;
        }
        prop_assert_eq!(&world, &to);
        prop_assert_eq!(steps(&world, &to), vec![]);
    }

    #[test]
    fn undoing_from_any_step_restores_the_start(from in world(true), to in world(false), stop: prop::sample::Index) {
        let plan = steps(&from, &to);
        prop_assume!(!plan.is_empty());
        let mut world = from.clone();
        let mut done = Vec::new();
        for step in plan.into_iter().take(stop.index(64)) {
            world.take(&step).unwrap();
            done.push(step);
        }
        while let Some(step) = done.pop() {
            let Some(inverse) = step.inverse() else { continue };
            world.take(&inverse).map_err(|why| TestCaseError::fail(format!("{inverse:?}: {why}")))?;
        }
        // Nobody wants these back.
        let (strays, forsaken) = (from.strays.clone(), from.forsaken.clone());
        prop_assert_eq!(World { strays, forsaken, ..world }, from);
    }
}
