//! What a container engine asks netd for: networks, endpoints, pools and addresses, under ids of the engine's own.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::MacAddress;

/// A network. Its name is the engine's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOrder {
    /// What the engine calls it.
    pub id: String,
    /// Whether its endpoints have no way out.
    pub internal: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Whether it brings IPv4.
    pub ipv4: bool,
    /// Whether it brings IPv6.
    pub ipv6: bool,
    /// One of each family; none if the addresses in it are nobody's business.
    pub pools: Vec<PoolOrder>,
}

/// A subnet that the engine has for a network, from netd's address management or from its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOrder {
    /// Host bits zero.
    pub subnet: IpNet,
    /// The bridge's address, if it has one.
    pub gateway: Option<IpAddr>,
    /// Addresses that the engine keeps back, and what for.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether it was leased from netd.
    pub leased: bool,
}

/// An endpoint, with the addresses that the engine chose for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOrder {
    /// What the engine calls the network.
    pub network: String,
    /// What the engine calls it.
    pub id: String,
    /// With the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// With the subnet's prefix length.
    pub ipv6: Option<Ipv6Net>,
    /// Any, if none is given.
    pub mac: Option<MacAddress>,
    /// What the interface is to be called in its sandbox, if that matters.
    pub name: Option<String>,
    /// Options in netd's own namespace.
    pub options: BTreeMap<String, String>,
}

/// Where an engine's pools are told apart. netd serves one host: a subnet is given once, whatever the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpace {
    /// For networks of one host.
    Local,
    /// For networks that several hosts have in common.
    Global,
}

impl AddressSpace {
    /// What the engine is told that it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "netd-local",
            Self::Global => "netd-global",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Local, Self::Global].into_iter().find(|space| space.name() == name)
    }
}

/// A subnet from netd's address management.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOrder {
    /// Where it is told apart.
    pub space: AddressSpace,
    /// Just this one, host bits zero; the next of the default pools if none is given.
    pub subnet: Option<IpNet>,
    /// Where addresses come from that nobody asked for, within `subnet`.
    pub range: Option<IpNet>,
    /// Of which family.
    pub ipv6: bool,
    /// Whether addresses are given out one after the other, and not the lowest that is free.
    pub serial: bool,
}
