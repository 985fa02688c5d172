//! Endpoints: their records, and what leads to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use netd_common::{
    addr::{Address as _, IfIndex, Ipv6},
    endpoint::Endpoint,
    fdb::FdbKey,
    limits,
    link_local::LinkLocal,
    rate::Rate,
};

use super::{
    super::{
        Error,
        object::{failed, gone},
    },
    Maps, within,
};

impl Maps {
    /// The record first, then what leads to it; what led to an older record of the slot is taken away.
    pub(in crate::datapath) fn put_endpoint(&mut self, slot: u32, entry: &Endpoint) -> Result<(), Error> {
        within("endpoint", slot, limits::ENDPOINTS)?;
        let before = self.endpoints.get(&slot, 0).map_err(failed("ENDPOINTS"))?;
        self.endpoints.set(slot, entry, 0).map_err(failed("ENDPOINTS"))?;
        if before != *entry {
            self.forget(slot, &before)?;
        }
        self.fdb.insert(station(entry), slot, 0).map_err(failed("FDB"))?;
        if !entry.ipv4.is_unspecified() {
            self.addresses4.insert(entry.ipv4, slot, 0).map_err(failed("ADDRESSES4"))?;
        }
        if !entry.ipv6.is_unspecified() {
            self.addresses6.insert(entry.ipv6, slot, 0).map_err(failed("ADDRESSES6"))?;
        }
        self.ports.insert(entry.port, slot, 0).map_err(failed("PORTS"))?;
        self.station_shortcuts
            .set(station(entry).shortcut(), slot, 0)
            .map_err(failed("STATION_SHORTCUTS"))?;
        self.port_shortcuts.set(entry.port.shortcut(), slot, 0).map_err(failed("PORT_SHORTCUTS"))
    }

    /// Writes how fast an endpoint may send, and fills its bucket if that changes.
    pub(in crate::datapath) fn put_rate(&mut self, slot: u32, wanted: Rate) -> Result<(), Error> {
        within("endpoint", slot, limits::ENDPOINTS)?;
        if self.rates.get(&slot, 0).map_err(failed("RATES"))? != wanted {
            self.rates.set(slot, wanted, 0).map_err(failed("RATES"))?;
            self.buckets.set(slot, 0, 0).map_err(failed("BUCKETS"))?;
        }
        Ok(())
    }

    /// Writes which link-local addresses an endpoint was given.
    pub(in crate::datapath) fn put_link_locals(
        &mut self,
        slot: u32,
        network: u32,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        let failed = || failed("LINK_LOCALS");
        let key = |address: &IpAddr| match *address {
            IpAddr::V4(address) => LinkLocal { network, address: Ipv6::mapped(address.into()) },
            IpAddr::V6(address) => LinkLocal { network, address: address.into() },
        };
        let wanted: Vec<LinkLocal> = addresses.iter().map(key).collect();
        for entry in self.link_locals.iter().collect::<Result<Vec<_>, _>>().map_err(failed())? {
            if entry.1 == slot && !wanted.contains(&entry.0) {
                gone("LINK_LOCALS", self.link_locals.remove(&entry.0))?;
            }
        }
        wanted.into_iter().try_for_each(|key| self.link_locals.insert(key, slot, 0).map_err(failed()))
    }

    /// The link-local addresses that endpoints were given, by their slots.
    pub(super) fn link_locals(&self) -> Result<BTreeMap<u32, BTreeSet<IpAddr>>, Error> {
        let mut all: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for entry in self.link_locals.iter() {
            let (LinkLocal { address, .. }, slot) = entry.map_err(failed("LINK_LOCALS"))?;
            all.entry(slot).or_default().insert(Ipv6Addr::from(address).to_canonical());
        }
        Ok(all)
    }

    pub(in crate::datapath) fn remove_endpoint(&mut self, slot: u32) -> Result<(), Error> {
        within("endpoint", slot, limits::ENDPOINTS)?;
        let before = self.endpoints.get(&slot, 0).map_err(failed("ENDPOINTS"))?;
        self.forget(slot, &before)?;
        self.endpoints.set(slot, Endpoint::default(), 0).map_err(failed("ENDPOINTS"))?;
        self.put_rate(slot, Rate::default())?;
        self.put_link_locals(slot, before.network, &BTreeSet::new())?;
        self.tallies.clear(slot)
    }

    /// Takes away what leads to `slot`, and leaves what leads elsewhere by now.
    fn forget(&mut self, slot: u32, entry: &Endpoint) -> Result<(), Error> {
        if entry.port.0 == 0 {
            return Ok(());
        }
        if self.ports.get(&entry.port, 0).is_ok_and(|holder| holder == slot) {
            gone("PORTS", self.ports.remove(&entry.port))?;
        }
        if self.fdb.get(&station(entry), 0).is_ok_and(|holder| holder == slot) {
            gone("FDB", self.fdb.remove(&station(entry)))?;
        }
        if self.addresses4.get(&entry.ipv4, 0).is_ok_and(|holder| holder == slot) {
            gone("ADDRESSES4", self.addresses4.remove(&entry.ipv4))?;
        }
        if self.addresses6.get(&entry.ipv6, 0).is_ok_and(|holder| holder == slot) {
            gone("ADDRESSES6", self.addresses6.remove(&entry.ipv6))?;
        }
        Ok(())
    }

    pub(in crate::datapath) fn fdb(&self) -> Result<Vec<(FdbKey, u32)>, Error> {
        self.fdb.iter().collect::<Result<_, _>>().map_err(failed("FDB"))
    }

    /// Whether an address is some endpoint's.
    pub(in crate::datapath) fn is_endpoints(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.addresses4.get(&address.into(), 0).is_ok(),
            IpAddr::V6(address) => self.addresses6.get(&address.into(), 0).is_ok(),
        }
    }

    /// Whether an endpoint is there and has this address, which is a mapped one for IPv4.
    pub(in crate::datapath) fn has_address(&self, slot: u32, address: Ipv6) -> Result<bool, Error> {
        let endpoint = self.endpoints.get(&slot, 0).map_err(failed("ENDPOINTS"))?;
        let is_its = address == endpoint.ipv6 || address == Ipv6::mapped(endpoint.ipv4);
        Ok(endpoint.port != IfIndex(0) && is_its)
    }
}

fn station(entry: &Endpoint) -> FdbKey {
    FdbKey { network: entry.network, mac: entry.mac, pad: [0; 2] }
}
