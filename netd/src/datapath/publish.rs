//! Published ports, in the longest-prefix tables of both families.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use netd_common::{
    addr::{Address, Be16, Ipv4, Ipv6},
    nat::PortRange,
    publish::{PortPrefix, Publication, PublishedPort, RESERVED_BY_RUNTIME, published_bit},
};

use super::{
    Error,
    maps::Maps,
    object::{failed, gone, take},
};
use crate::model::{HostPorts, Protocol, Reserver};

/// One family's table.
struct Table<A: Address>
where
    PublishedPort<A>: Pod,
{
    name: &'static str,
    map: LpmTrie<MapData, PublishedPort<A>, Publication>,
}

/// The map that tells of ports without an address.
const BITS: &str = "PUBLISHED";

/// Both tables, and what can be told of a port without an address.
pub(super) struct Publications {
    v4: Table<Ipv4>,
    v6: Table<Ipv6>,
    bits: Array<MapData, u64>,
    /// All in the tables that sockets are refused: not what somebody else reserves, nor what is published at an endpoint's own
    /// address, which is no port of the host's.
    refused: BTreeSet<HostPorts>,
}

impl<A: Address> Table<A>
where
    PublishedPort<A>: Pod,
    IpAddr: From<Wrapped<A>>,
{
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        Ok(Self { name, map: take(ebpf, name)? })
    }

    fn put(&mut self, address: A, host: &HostPorts, entry: Publication) -> Result<(), Error> {
        for prefix in entry.ports.prefixes() {
            self.map.insert(&key(address, host.protocol, prefix), entry, 0).map_err(failed(self.name))?;
        }
        Ok(())
    }

    fn remove(&mut self, address: A, host: &HostPorts) -> Result<(), Error> {
        for prefix in ports(host).prefixes() {
            gone(self.name, self.map.remove(&key(address, host.protocol, prefix)))?;
        }
        Ok(())
    }

    /// What is published for the very address goes before what is for all.
    fn find(&self, address: A, protocol: Protocol, port: Be16) -> Result<Option<Publication>, Error> {
        for address in [address, A::default()] {
            let key = PublishedPort::new(address, protocol.number(), port);
            match self.map.get(&Key::new(PublishedPort::<A>::BITS, key), 0) {
                Err(MapError::KeyNotFound) => {}
                found => return found.map(Some).map_err(failed(self.name)),
            }
        }
        Ok(None)
    }

    /// What is published. Ranges that a daemon which died half-way left in part lead to no endpoint.
    fn observe(&self, into: &mut BTreeMap<HostPorts, (u32, u16, Reserver)>) -> Result<(), Error> {
        let mut seen: BTreeMap<(HostPorts, u32, u16, Reserver), u32> = BTreeMap::new();
        for item in self.map.iter() {
            let (key, entry) = item.map_err(failed(self.name))?;
            let Some(protocol) = Protocol::of(key.data().protocol) else { continue };
            let host = HostPorts {
                protocol,
                address: Wrapped(key.data().address).into(),
                first: entry.ports.first,
                last: entry.ports.last,
            };
            let count = 1 << (PublishedPort::<A>::BITS - key.prefix_len());
            *seen.entry((host, entry.endpoint, entry.container, reserver(&entry))).or_default() += count;
        }
        for ((host, slot, container, by), count) in seen {
            let whole = count == ports(&host).len() && !into.contains_key(&host);
            into.insert(host, (if whole { slot } else { u32::MAX }, container, by));
        }
        Ok(())
    }
}

impl Publications {
    pub(super) fn take(ebpf: &mut Ebpf, maps: &Maps) -> Result<Self, Error> {
        let (v4, v6) = (Table::take(ebpf, "PUBLICATIONS4")?, Table::take(ebpf, "PUBLICATIONS6")?);
        let mut this = Self { v4, v6, bits: take(ebpf, BITS)?, refused: BTreeSet::new() };
        let mut all = this.observe()?;
        all.retain(|host, (.., by)| *by == Reserver::Netd && !maps.is_endpoints(host.address));
        this.refused = all.into_keys().collect();
        for protocol in Protocol::ALL {
            for address in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
                this.mark(&HostPorts { protocol, address, first: 0, last: u16::MAX })?;
            }
        }
        Ok(this)
    }

    /// `is_endpoints`: the address is the endpoint's own.
    pub(super) fn put(
        &mut self,
        host: &HostPorts,
        endpoint: u32,
        container: u16,
        reserved_by: Reserver,
        is_endpoints: bool,
    ) -> Result<(), Error> {
        let flags = if reserved_by == Reserver::Runtime { RESERVED_BY_RUNTIME } else { 0 };
        let entry = Publication { endpoint, ports: ports(host), container, flags };
        match host.address {
            IpAddr::V4(address) => self.v4.put(address.into(), host, entry)?,
            IpAddr::V6(address) => self.v6.put(address.into(), host, entry)?,
        }
        if is_endpoints || reserved_by == Reserver::Runtime {
            return Ok(());
        }
        self.refused.insert(*host);
        self.mark(host)
    }

    pub(super) fn remove(&mut self, host: &HostPorts) -> Result<(), Error> {
        match host.address {
            IpAddr::V4(address) => self.v4.remove(address.into(), host)?,
            IpAddr::V6(address) => self.v6.remove(address.into(), host)?,
        }
        self.refused.remove(host);
        self.mark(host)
    }

    /// Says of ports, whatever their address, whether sockets are refused them.
    fn mark(&mut self, host: &HostPorts) -> Result<(), Error> {
        let is_ipv6 = host.address.is_ipv6();
        let beside = |other: &&HostPorts| {
            other.protocol == host.protocol
                && other.address.is_ipv6() == is_ipv6
                && other.first / 64 <= host.last / 64
                && host.first / 64 <= other.last / 64
        };
        let mut words = BTreeMap::new();
        for port in (host.first / 64..=host.last / 64).map(|word| 64 * word) {
            let Some((index, _)) = published_bit(is_ipv6, host.protocol.number(), port) else {
                return Ok(());
            };
            words.insert(index, 0u64);
        }
        for other in self.refused.iter().filter(beside) {
            for port in other.first.max(host.first / 64 * 64)..=other.last.min(host.last | 63) {
                if let Some((index, bit)) = published_bit(is_ipv6, host.protocol.number(), port) {
                    *words.entry(index).or_default() |= bit;
                }
            }
        }
        for (index, word) in words {
            if self.bits.get(&index, 0).map_err(failed(BITS))? != word {
                self.bits.set(index, word, 0).map_err(failed(BITS))?;
            }
        }
        Ok(())
    }

    pub(super) fn observe(&self) -> Result<BTreeMap<HostPorts, (u32, u16, Reserver)>, Error> {
        let mut publications = BTreeMap::new();
        self.v4.observe(&mut publications)?;
        self.v6.observe(&mut publications)?;
        Ok(publications)
    }

    /// Where a port of the host leads; an address of IPv4 is a mapped one.
    pub(super) fn find(
        &self,
        address: Ipv6,
        protocol: Protocol,
        port: Be16,
    ) -> Result<Option<Publication>, Error> {
        match address.to_mapped() {
            Some(address) => self.v4.find(address, protocol, port),
            None => self.v6.find(address, protocol, port),
        }
    }

    /// How many prefixes the tables hold.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.v4.map.keys().count() as u64, self.v6.map.keys().count() as u64)
    }
}

/// An address on its way to the standard library's.
struct Wrapped<A>(A);

impl From<Wrapped<Ipv4>> for IpAddr {
    fn from(Wrapped(address): Wrapped<Ipv4>) -> Self {
        Ipv4Addr::from(address).into()
    }
}

impl From<Wrapped<Ipv6>> for IpAddr {
    fn from(Wrapped(address): Wrapped<Ipv6>) -> Self {
        Ipv6Addr::from(address).into()
    }
}

fn reserver(entry: &Publication) -> Reserver {
    if entry.flags & RESERVED_BY_RUNTIME == 0 { Reserver::Netd } else { Reserver::Runtime }
}

fn ports(host: &HostPorts) -> PortRange {
    PortRange { first: host.first, last: host.last }
}

fn key<A>(address: A, protocol: Protocol, prefix: PortPrefix) -> Key<PublishedPort<A>>
where
    PublishedPort<A>: Pod,
{
    let bits = PublishedPort::<A>::BITS - 16 + prefix.bits;
    Key::new(bits, PublishedPort::new(address, protocol.number(), Be16::new(prefix.first)))
}
