//! Maps by their types: what the daemon writes and reads.

mod endpoint;
mod globals;
mod host;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, MapError},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netd_common::{
    addr::{IfIndex, Ipv4, Ipv6},
    bridge::{Exempt, Network},
    endpoint::Endpoint,
    external::External,
    fdb::FdbKey,
    fib::Uplink,
    forwarded::Foreign,
    globals::Globals,
    limits,
    link_local::LinkLocal,
    policy::Trusted,
    rate::Rate,
    stats::{EndpointTraffic, Path as Way},
};

use super::{
    Error,
    counters::{Counters, Tallies},
    object::{failed, gone, take},
    prefix::{destination, exempt, key4, key6, net4, net6},
};
use crate::model::{HostPorts, Reserver};

/// What the maps and links hold.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Networks by their number.
    pub networks: BTreeMap<u32, Network>,
    /// Endpoints by their slot.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// How fast they may send, by their slot.
    pub rates: BTreeMap<u32, Rate>,
    /// Link-local addresses that endpoints were given, by their slot.
    pub link_locals: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Prefixes, and the number of their network.
    pub subnets: BTreeMap<IpNet, u32>,
    /// Destinations that see containers' own addresses, and the number of the containers' network.
    pub exempts: BTreeSet<(u32, IpNet)>,
    /// External addresses and prefixes, and what they stand for.
    pub externals: BTreeMap<IpNet, IpNet>,
    /// Uplinks.
    pub uplinks: BTreeMap<IfIndex, Uplink>,
    /// Interfaces that `from_container` is attached to.
    pub ports: BTreeSet<IfIndex>,
    /// Interfaces that `from_host` is attached to.
    pub bridges: BTreeSet<IfIndex>,
    /// Interfaces that `to_segment` is attached to.
    pub segments: BTreeSet<IfIndex>,
    /// Published ports: the endpoint's slot, the first port of the container, and who reserves those of the host.
    pub publications: BTreeMap<HostPorts, (u32, u16, Reserver)>,
}

/// The maps that the daemon writes or reads entry by entry.
pub(super) struct Maps {
    globals: Array<MapData, Globals>,
    networks: Array<MapData, Network>,
    bridges: HashMap<MapData, IfIndex, u32>,
    endpoints: Array<MapData, Endpoint>,
    ports: HashMap<MapData, IfIndex, u32>,
    fdb: HashMap<MapData, FdbKey, u32>,
    port_shortcuts: Array<MapData, u32>,
    station_shortcuts: Array<MapData, u32>,
    rates: Array<MapData, Rate>,
    buckets: Array<MapData, u64>,
    addresses4: HashMap<MapData, Ipv4, u32>,
    addresses6: HashMap<MapData, Ipv6, u32>,
    link_locals: HashMap<MapData, LinkLocal, u32>,
    exempts4: LpmTrie<MapData, Exempt<Ipv4>, u32>,
    exempts6: LpmTrie<MapData, Exempt<Ipv6>, u32>,
    subnets4: LpmTrie<MapData, Ipv4, u32>,
    subnets6: LpmTrie<MapData, Ipv6, u32>,
    externals4: LpmTrie<MapData, Ipv4, External<Ipv4>>,
    externals6: LpmTrie<MapData, Ipv6, External<Ipv6>>,
    internals4: LpmTrie<MapData, Ipv4, External<Ipv4>>,
    internals6: LpmTrie<MapData, Ipv6, External<Ipv6>>,
    trusted: HashMap<MapData, Trusted, u32>,
    uplinks: HashMap<MapData, IfIndex, Uplink>,
    foreign: HashMap<MapData, IfIndex, Foreign>,
    locals4: LpmTrie<MapData, Ipv4, u32>,
    locals6: LpmTrie<MapData, Ipv6, u32>,
    tallies: Tallies,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            globals: take(ebpf, "GLOBALS")?,
            networks: take(ebpf, "NETWORKS")?,
            bridges: take(ebpf, "BRIDGES")?,
            endpoints: take(ebpf, "ENDPOINTS")?,
            ports: take(ebpf, "PORTS")?,
            fdb: take(ebpf, "FDB")?,
            port_shortcuts: take(ebpf, "PORT_SHORTCUTS")?,
            station_shortcuts: take(ebpf, "STATION_SHORTCUTS")?,
            rates: take(ebpf, "RATES")?,
            buckets: take(ebpf, "BUCKETS")?,
            addresses4: take(ebpf, "ADDRESSES4")?,
            addresses6: take(ebpf, "ADDRESSES6")?,
            link_locals: take(ebpf, "LINK_LOCALS")?,
            exempts4: take(ebpf, "EXEMPTS4")?,
            exempts6: take(ebpf, "EXEMPTS6")?,
            subnets4: take(ebpf, "SUBNETS4")?,
            subnets6: take(ebpf, "SUBNETS6")?,
            externals4: take(ebpf, "EXTERNALS4")?,
            externals6: take(ebpf, "EXTERNALS6")?,
            internals4: take(ebpf, "INTERNALS4")?,
            internals6: take(ebpf, "INTERNALS6")?,
            trusted: take(ebpf, "TRUSTED")?,
            uplinks: take(ebpf, "UPLINKS")?,
            foreign: take(ebpf, "FOREIGN")?,
            locals4: take(ebpf, "LOCALS4")?,
            locals6: take(ebpf, "LOCALS6")?,
            tallies: Tallies::take(ebpf)?,
        })
    }

    /// Returns the bridge that is no network's any more.
    pub(super) fn put_network(&mut self, number: u32, entry: &Network) -> Result<Option<IfIndex>, Error> {
        within("network", number, limits::NETWORKS)?;
        let before = self.networks.get(&number, 0).map_err(failed("NETWORKS"))?.bridge;
        let is_left =
            before != entry.bridge && self.bridges.get(&before, 0).is_ok_and(|holder| holder == number);
        if is_left {
            gone("BRIDGES", self.bridges.remove(&before))?;
        }
        if entry.bridge.0 != 0 {
            self.bridges.insert(entry.bridge, number, 0).map_err(failed("BRIDGES"))?;
        }
        self.networks.set(number, entry, 0).map_err(failed("NETWORKS"))?;
        Ok(is_left.then_some(before))
    }

    pub(super) fn put_subnet(&mut self, prefix: IpNet, network: u32) -> Result<(), Error> {
        match prefix {
            IpNet::V4(prefix) => self.subnets4.insert(&key4(prefix), network, 0).map_err(failed("SUBNETS4")),
            IpNet::V6(prefix) => self.subnets6.insert(&key6(prefix), network, 0).map_err(failed("SUBNETS6")),
        }
    }

    pub(super) fn remove_subnet(&mut self, prefix: IpNet) -> Result<(), Error> {
        match prefix {
            IpNet::V4(prefix) => gone("SUBNETS4", self.subnets4.remove(&key4(prefix))),
            IpNet::V6(prefix) => gone("SUBNETS6", self.subnets6.remove(&key6(prefix))),
        }
    }

    pub(super) fn put_exempt(&mut self, network: u32, destination: IpNet) -> Result<(), Error> {
        match destination {
            IpNet::V4(prefix) => {
                let key = exempt(network, key4(prefix));
                self.exempts4.insert(&key, 1, 0).map_err(failed("EXEMPTS4"))
            }
            IpNet::V6(prefix) => {
                let key = exempt(network, key6(prefix));
                self.exempts6.insert(&key, 1, 0).map_err(failed("EXEMPTS6"))
            }
        }
    }

    pub(super) fn remove_exempt(&mut self, network: u32, destination: IpNet) -> Result<(), Error> {
        match destination {
            IpNet::V4(prefix) => gone("EXEMPTS4", self.exempts4.remove(&exempt(network, key4(prefix)))),
            IpNet::V6(prefix) => gone("EXEMPTS6", self.exempts6.remove(&exempt(network, key6(prefix)))),
        }
    }

    /// What leads out first: an answer has to find its way before there is a question.
    pub(super) fn put_external(&mut self, external: IpNet, internal: IpNet) -> Result<(), Error> {
        match (external, internal) {
            (IpNet::V4(external), IpNet::V4(internal)) => {
                let row = External::new4(external.network().into(), internal.network().into());
                self.internals4.insert(&key4(internal), row, 0).map_err(failed("INTERNALS4"))?;
                self.externals4.insert(&key4(external), row, 0).map_err(failed("EXTERNALS4"))
            }
            (IpNet::V6(external), IpNet::V6(internal)) => {
                let length = u32::from(external.prefix_len());
                let row = External::new6(external.network().into(), internal.network().into(), length);
                self.internals6.insert(&key6(internal), row, 0).map_err(failed("INTERNALS6"))?;
                self.externals6.insert(&key6(external), row, 0).map_err(failed("EXTERNALS6"))
            }
            _ => Ok(()), // There is no translation between the families.
        }
    }

    pub(super) fn remove_external(&mut self, external: IpNet, internal: Option<IpNet>) -> Result<(), Error> {
        match external {
            IpNet::V4(external) => gone("EXTERNALS4", self.externals4.remove(&key4(external)))?,
            IpNet::V6(external) => gone("EXTERNALS6", self.externals6.remove(&key6(external)))?,
        }
        match internal {
            Some(IpNet::V4(internal)) => gone("INTERNALS4", self.internals4.remove(&key4(internal))),
            Some(IpNet::V6(internal)) => gone("INTERNALS6", self.internals6.remove(&key6(internal))),
            None => Ok(()),
        }
    }

    pub(super) fn observe(&self) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        for number in 0..limits::NETWORKS {
            let entry = self.networks.get(&number, 0).map_err(failed("NETWORKS"))?;
            if entry.bridge.0 != 0 {
                observed.networks.insert(number, entry);
            }
        }
        for port in self.ports.iter() {
            let (_, slot) = port.map_err(failed("PORTS"))?;
            observed.endpoints.insert(slot, self.endpoints.get(&slot, 0).map_err(failed("ENDPOINTS"))?);
            observed.rates.insert(slot, self.rates.get(&slot, 0).map_err(failed("RATES"))?);
        }
        for entry in self.subnets4.iter() {
            let (key, network) = entry.map_err(failed("SUBNETS4"))?;
            observed.subnets.extend(net4(&key).map(|prefix| (prefix, network)));
        }
        for entry in self.subnets6.iter() {
            let (key, network) = entry.map_err(failed("SUBNETS6"))?;
            observed.subnets.extend(net6(&key).map(|prefix| (prefix, network)));
        }
        for key in self.exempts4.keys() {
            let key = key.map_err(failed("EXEMPTS4"))?;
            let (network, destination) = destination(&key);
            observed.exempts.extend(net4(&destination).map(|prefix| (network, prefix)));
        }
        for key in self.exempts6.keys() {
            let key = key.map_err(failed("EXEMPTS6"))?;
            let (network, destination) = destination(&key);
            observed.exempts.extend(net6(&destination).map(|prefix| (network, prefix)));
        }
        for entry in self.externals4.iter() {
            let (_, row) = entry.map_err(failed("EXTERNALS4"))?;
            let net = |address: Ipv4| Ipv4Net::new(address.into(), row.length as u8).ok().map(IpNet::from);
            observed.externals.extend(net(row.external).zip(net(row.internal)));
        }
        for entry in self.externals6.iter() {
            let (_, row) = entry.map_err(failed("EXTERNALS6"))?;
            let net = |address: Ipv6| Ipv6Net::new(address.into(), row.length as u8).ok().map(IpNet::from);
            observed.externals.extend(net(row.external).zip(net(row.internal)));
        }
        observed.uplinks = self.uplinks()?;
        observed.link_locals = self.link_locals()?;
        Ok(observed)
    }

    pub(super) fn counters(&self) -> Result<Counters, Error> {
        let slots: Result<Vec<u32>, MapError> =
            self.ports.iter().map(|port| port.map(|(_, slot)| slot)).collect();
        self.tallies.counters(slots.map_err(failed("PORTS"))?)
    }

    pub(super) fn took(&self, way: Way) -> Result<u64, Error> {
        self.tallies.took(way)
    }

    pub(super) fn traffic(&self, slot: u32) -> Result<EndpointTraffic, Error> {
        self.tallies.traffic(slot)
    }

    /// How many entries the maps hold that can be counted in no time.
    pub(super) fn fill(&self, name: &str) -> Option<u64> {
        match name {
            "NETWORKS" => {
                let used = |number: &u32| self.networks.get(number, 0).is_ok_and(|entry| entry.bridge.0 != 0);
                Some((0..limits::NETWORKS).filter(used).count() as u64)
            }
            "BRIDGES" => Some(self.bridges.keys().count() as u64),
            "FOREIGN" => Some(self.foreign.keys().count() as u64),
            "ENDPOINTS" | "PORTS" | "TRAFFIC" => Some(self.ports.keys().count() as u64),
            "FDB" => Some(self.fdb.keys().count() as u64),
            "ADDRESSES4" => Some(self.addresses4.keys().count() as u64),
            "ADDRESSES6" => Some(self.addresses6.keys().count() as u64),
            "LINK_LOCALS" => Some(self.link_locals.keys().count() as u64),
            "SUBNETS4" => Some(self.subnets4.keys().count() as u64),
            "SUBNETS6" => Some(self.subnets6.keys().count() as u64),
            "EXEMPTS4" => Some(self.exempts4.keys().count() as u64),
            "EXEMPTS6" => Some(self.exempts6.keys().count() as u64),
            "EXTERNALS4" | "INTERNALS4" => Some(self.externals4.keys().count() as u64),
            "EXTERNALS6" | "INTERNALS6" => Some(self.externals6.keys().count() as u64),
            "TRUSTED" => Some(self.trusted.keys().count() as u64),
            "UPLINKS" => Some(self.uplinks.keys().count() as u64),
            "LOCALS4" => Some(self.locals4.keys().count() as u64),
            "LOCALS6" => Some(self.locals6.keys().count() as u64),
            _ => None,
        }
    }
}

fn within(what: &'static str, number: u32, limit: u32) -> Result<(), Error> {
    if number < limit { Ok(()) } else { Err(Error::Limit { what, number, limit }) }
}
