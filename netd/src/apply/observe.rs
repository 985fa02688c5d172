//! What the host is seen to have of netd's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ipnet::IpNet;
use tokio::runtime::Handle;

use super::{Error, Host};
use crate::{
    datapath::{EndpointEntry, IfIndex, NetworkEntry, RateEntry},
    link::{Device, Kind, Links, wanted_settings},
    plan::{
        BridgeLink, BridgePort, EndpointRow, FarEnd, Interface, LinkRef, NetworkRow, PublicationRow, Station,
        Trunk, Veth, World,
    },
};

impl Host {
    /// What the host has of what is `known` by name, and all that is in the datapath's tables. Links in `left` that are
    /// there and not known are strays.
    pub async fn observe(&self, known: &World, left: &BTreeSet<String>) -> Result<World, Error> {
        let devices = self.links.devices().await?;
        let mut world = self.observe_links(known, &devices).await?;
        self.observe_routes(&mut world, &devices).await?;
        world.stations = self.observe_stations(known, &devices).await?;
        let unknown = |name: &&String| !known.bridges.contains_key(*name) && !known.veths.contains_key(*name);
        let there = |name: &&String| devices.iter().any(|device| device.name == **name);
        world.strays.extend(left.iter().filter(unknown).filter(there).cloned());
        self.observe_tables(&mut world, &devices)?;
        Ok(world)
    }

    /// What the host has of what is `known`, when all of that was put in place by this daemon; of a veth that is not `wanted` any more,
    /// whether it is there.
    ///
    /// The datapath's tables are netd's alone, so they are read only if a link that they refer to is gone.
    pub async fn observe_part(&self, known: &World, wanted: &World) -> Result<World, Error> {
        // A few of many, most often.
        let devices = self.links.devices_named(link_names(known)).await?;
        let (staying, going): (BTreeMap<_, _>, BTreeMap<_, _>) =
            known.veths.clone().into_iter().partition(|(name, _)| wanted.veths.contains_key(name));
        let mut world = self.observe_links(&World { veths: staying, ..known.clone() }, &devices).await?;
        let is_there = |name: &String| devices.iter().any(|it| it.name == *name && it.kind == Kind::Veth);
        world.veths.extend(going.into_iter().filter(|(name, _)| is_there(name)));
        let all_there = known.veths.keys().all(|name| world.veths.contains_key(name))
            && known.bridges.keys().all(|name| world.bridges.contains_key(name));
        if all_there {
            world.networks.clone_from(&known.networks);
            world.subnets.clone_from(&known.subnets);
            world.exempts.clone_from(&known.exempts);
            world.externals.clone_from(&known.externals);
            world.endpoints.clone_from(&known.endpoints);
            world.segments.clone_from(&known.segments);
            world.publications.clone_from(&known.publications);
            // A port that has left its bridge has taken them along.
            world.stations = known.stations.iter().filter(|it| world.has_port_of(it)).cloned().collect();
            return Ok(world);
        }
        world.stations = self.observe_stations(known, &devices).await?;
        let mut tables = world.clone();
        self.observe_tables(&mut tables, &devices)?;
        world.networks = keep(tables.networks, &known.networks);
        world.subnets = keep(tables.subnets, &known.subnets);
        world.exempts = tables.exempts.intersection(&known.exempts).copied().collect();
        world.externals = keep(tables.externals, &known.externals);
        world.endpoints = keep(tables.endpoints, &known.endpoints);
        world.publications = keep(tables.publications, &known.publications);
        world.veths = tables.veths;
        let of_known = |port: &u32| world.endpoints.values().any(|it| it.port == LinkRef::Gone(*port));
        world.forsaken = tables.forsaken.into_iter().filter(of_known).collect();
        world.segments = tables.segments;
        world.segments.retain(|link| known.segments.contains(link));
        Ok(world)
    }

    /// What the host has of what is `known`, whoever has changed it: links and tables alike.
    pub async fn observe_whole(&self, known: &World) -> Result<World, Error> {
        let devices = self.links.devices().await?;
        let mut world = self.observe_links(known, &devices).await?;
        self.observe_routes(&mut world, &devices).await?;
        world.stations = self.observe_stations(known, &devices).await?;
        self.observe_tables(&mut world, &devices)?;
        world.networks = keep(world.networks, &known.networks);
        world.subnets = keep(world.subnets, &known.subnets);
        world.exempts.retain(|exempt| known.exempts.contains(exempt));
        world.externals = keep(world.externals, &known.externals);
        world.endpoints = keep(world.endpoints, &known.endpoints);
        world.publications = keep(world.publications, &known.publications);
        world.forsaken.clear();
        world.segments.retain(|link| known.segments.contains(link));
        Ok(world)
    }

    /// The links. What is attached to them is in the tables, what leads to them in the routes: both are taken for being as known.
    async fn observe_links(&self, known: &World, devices: &[Device]) -> Result<World, Error> {
        let by_name: BTreeMap<&str, &Device> = devices.iter().map(|device| (&*device.name, device)).collect();
        let by_index: BTreeMap<u32, &Device> = devices.iter().map(|device| (device.index, device)).collect();
        let mut world = World::default();
        for (name, wanted) in &known.bridges {
            let Some(device) = by_name.get(name.as_str()) else { continue };
            let (Kind::Bridge, Some(mac)) = (device.kind, device.mac) else {
                return Err(Error::NotABridge(name.clone()));
            };
            let mut addresses = self.links.own_addresses(device.index, &wanted.addresses).await?;
            if wanted.adopted {
                addresses.retain(|net| wanted.addresses.contains(net));
            }
            let settings = wanted_settings(&device.settings, &wanted.settings);
            let link =
                BridgeLink { mac, mtu: device.mtu, up: device.up, addresses, settings, ..wanted.clone() };
            world.bridges.insert(name.clone(), link);
        }
        let tells_apart = known.veths.values().any(|veth| veth.port.vlans.is_some());
        let vlans = if tells_apart { self.links.vlans().await? } else { BTreeMap::new() };
        let limited = known.veths.values().any(|veth| veth.queue.is_some());
        let queues = if limited { self.links.queues().await? } else { BTreeMap::new() };
        let bridge = |device: &Device| {
            device.controller.and_then(|index| by_index.get(&index)).map(|device| device.name.clone())
        };
        let port = |device: &Device, wanted: &BridgePort| BridgePort {
            isolated: device.isolated,
            hairpin: device.hairpin,
            multicast_router: device.multicast_router,
            vlans: wanted.vlans.as_ref().and_then(|_| vlans.get(&device.index).cloned()),
        };
        let mut inside = observe_interfaces(known, &by_name).await?;
        for (name, wanted) in &known.veths {
            let Some(device) = by_name.get(name.as_str()) else { continue };
            let far_end = match (device.kind, &wanted.far_end) {
                (Kind::Veth, FarEnd::Sandbox(_)) => inside.remove(name).flatten().map(FarEnd::Sandbox),
                (Kind::Veth, FarEnd::Engine { .. }) => Some(wanted.far_end.clone()),
                (Kind::Veth, FarEnd::Trunk(wanted)) => {
                    let end = by_name.get(wanted.name.as_str());
                    let end =
                        end.filter(|end| Some(end.index) == device.peer && end.peer == Some(device.index));
                    end.map(|end| {
                        FarEnd::Trunk(Trunk {
                            name: wanted.name.clone(),
                            bridge: bridge(end),
                            up: end.up,
                            mtu: end.mtu,
                            port: port(end, &wanted.port),
                        })
                    })
                }
                _ => None,
            };
            let Some(far_end) = far_end else {
                world.strays.insert(name.clone());
                continue;
            };
            let queue = wanted.queue.and_then(|_| queues.get(&device.index).copied());
            let (bridge, port) = (bridge(device), port(device, &wanted.port));
            let (up, heard, mtu) = (device.up, wanted.heard, device.mtu);
            let mac = device.mac.unwrap_or(wanted.mac);
            let veth = Veth { bridge, mac, up, heard, mtu, port, queue, far_end };
            world.veths.insert(name.clone(), veth);
        }
        Ok(world)
    }

    /// Whether the routes lead to the bridges' subnets.
    async fn observe_routes(&self, world: &mut World, devices: &[Device]) -> Result<(), Error> {
        let routes = self.links.routes().await?;
        let on_link = routes.iter().filter(|route| route.gateway.is_none());
        let connected: BTreeSet<_> = on_link.map(|route| (route.index, route.destination)).collect();
        for device in devices {
            if let Some(bridge) = world.bridges.get_mut(&device.name) {
                let leads = |net: IpNet| connected.contains(&(device.index, net.trunc()));
                let all_lead = bridge.connecting().all(leads);
                bridge.connected = all_lead;
            }
        }
        Ok(())
    }

    /// Those of the known stations that the bridges are told of.
    async fn observe_stations(&self, known: &World, devices: &[Device]) -> Result<BTreeSet<Station>, Error> {
        if known.stations.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut stations = self.links.stations(devices).await?;
        stations.retain(|station| known.stations.contains(station));
        Ok(stations)
    }

    fn observe_tables(&self, world: &mut World, devices: &[Device]) -> Result<(), Error> {
        let observed = self.datapath.observe()?;
        let names: BTreeMap<u32, &str> = devices.iter().map(|device| (device.index, &*device.name)).collect();
        let bridge = |IfIndex(index): IfIndex| match names.get(&index) {
            Some(name) if world.bridges.contains_key(*name) => LinkRef::Name((*name).to_owned()),
            _ => LinkRef::Gone(index),
        };
        let port = |IfIndex(index): IfIndex| match names.get(&index) {
            Some(name) if world.veths.contains_key(*name) => LinkRef::Name((*name).to_owned()),
            _ => LinkRef::Gone(index),
        };
        let networks = observed.networks.iter().map(|(&number, entry)| {
            let heard = observed.bridges.contains(&entry.bridge);
            (number, network_row(entry, bridge(entry.bridge), heard))
        });
        let networks = networks.collect();
        let endpoints = observed.endpoints.iter().map(|(&slot, entry)| {
            let rate = observed.rates.get(&slot).copied().unwrap_or_default();
            let link_locals = observed.link_locals.get(&slot).cloned().unwrap_or_default();
            (slot, EndpointRow { link_locals, ..endpoint_row(entry, port(entry.port), rate) })
        });
        let endpoints = endpoints.collect();
        let mut forsaken = observed.ports.clone();
        for device in devices {
            if let Some(veth) = world.veths.get_mut(&device.name) {
                veth.heard = forsaken.remove(&IfIndex(device.index));
            }
        }
        let segments = observed.segments.iter().copied().map(bridge).collect();
        (world.networks, world.endpoints) = (networks, endpoints);
        (world.forsaken, world.segments) = (forsaken.into_iter().map(|port| port.0).collect(), segments);
        (world.subnets, world.externals) = (observed.subnets, observed.externals);
        world.exempts = observed.exempts;
        let row = |(slot, container, reserved_by)| PublicationRow { slot, container, reserved_by };
        world.publications = observed.publications.into_iter().map(|(host, it)| (host, row(it))).collect();
        Ok(())
    }
}

/// The interfaces in sandboxes, by the names of their veths: one core looks into one sandbox, and none waits for another.
async fn observe_interfaces(
    known: &World,
    devices: &BTreeMap<&str, &Device>,
) -> Result<BTreeMap<String, Option<Interface>>, Error> {
    let at_once = Handle::current().metrics().num_workers();
    let sandboxed = |(name, veth): (&String, &Veth)| {
        let device = devices.get(name.as_str()).filter(|device| device.kind == Kind::Veth)?;
        Some((name.clone(), Device::clone(device), veth.far_end.interface()?.clone()))
    };
    let sandboxed: Vec<_> = known.veths.iter().filter_map(sandboxed).collect();
    let looks = sandboxed.into_iter().map(|(name, device, wanted)| async move {
        let look = tokio::spawn(async move { Links::interface(&device, &wanted).await });
        let seen = look.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()));
        Ok((name, seen?))
    });
    stream::iter(looks).buffer_unordered(at_once).try_collect().await
}

/// The links of a world that are the host's for good.
fn link_names(world: &World) -> impl Iterator<Item = &str> {
    let far_ends = world.veths.values().filter_map(|veth| match &veth.far_end {
        FarEnd::Trunk(trunk) => Some(&trunk.name),
        FarEnd::Sandbox(_) | FarEnd::Engine { .. } => None,
    });
    world.bridges.keys().chain(world.veths.keys()).chain(far_ends).map(String::as_str)
}

fn network_row(entry: &NetworkEntry, bridge: LinkRef, heard: bool) -> NetworkRow {
    NetworkRow {
        bridge,
        heard,
        flags: entry.flags,
        gateway4: Some(Ipv4Addr::from(entry.gateway4)).filter(|address| !address.is_unspecified()),
        gateway6: Some(Ipv6Addr::from(entry.gateway6)).filter(|address| !address.is_unspecified()),
        source4: Some(Ipv4Addr::from(entry.source4)).filter(|address| !address.is_unspecified()),
        source6: Some(Ipv6Addr::from(entry.source6)).filter(|address| !address.is_unspecified()),
        mac: entry.mac.into(),
    }
}

fn endpoint_row(entry: &EndpointEntry, port: LinkRef, rate: RateEntry) -> EndpointRow {
    EndpointRow {
        port,
        network: entry.network,
        flags: entry.flags,
        ipv4: Some(Ipv4Addr::from(entry.ipv4)).filter(|address| !address.is_unspecified()),
        ipv6: Some(Ipv6Addr::from(entry.ipv6)).filter(|address| !address.is_unspecified()),
        mac: entry.mac.into(),
        vlan: entry.vlan,
        sandbox: entry.sandbox,
        beside: entry.beside,
        link_locals: BTreeSet::new(),
        rate,
    }
}

fn keep<K: Ord, V>(map: BTreeMap<K, V>, known: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    map.into_iter().filter(|(key, _)| known.contains_key(key)).collect()
}
