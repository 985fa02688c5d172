//! What netd has on the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netd_common::rate::Rate;

use super::Queue;
use crate::model::{BridgeSettings, HostPorts, MacAddress, Reserver, Route, Sandbox, Sysctl};

/// What netd has on the host, or should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Links that are netd's and should not be: left by a daemon that died half-way, or under an endpoint's name without
    /// being its veth.
    pub strays: BTreeSet<String>,
    /// Kernel bridges, by name.
    pub bridges: BTreeMap<String, BridgeLink>,
    /// Veth pairs, by the name of the host's end.
    pub veths: BTreeMap<String, Veth>,
    /// Whom the bridges are told of.
    pub stations: BTreeSet<Station>,
    /// The datapath's networks, by number.
    pub networks: BTreeMap<u32, NetworkRow>,
    /// The datapath's prefixes, and the number of the network each belongs to.
    pub subnets: BTreeMap<IpNet, u32>,
    /// The datapath's destinations that see containers' own addresses, by the number of the containers' network.
    pub exempts: BTreeSet<(u32, IpNet)>,
    /// The datapath's external addresses and prefixes, and what they stand for.
    pub externals: BTreeMap<IpNet, IpNet>,
    /// The datapath's endpoints, by slot.
    pub endpoints: BTreeMap<u32, EndpointRow>,
    /// Indices of links that `from_container` is attached to, or was as long as they were there, and that are no endpoint's.
    pub forsaken: BTreeSet<u32>,
    /// The links that `to_segment` is attached to.
    pub segments: BTreeSet<LinkRef>,
    /// The datapath's published ports.
    pub publications: BTreeMap<HostPorts, PublicationRow>,
}

/// A link as the datapath's tables refer to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkRef {
    /// The link of this name.
    Name(String),
    /// A link that is no more; it had this index.
    Gone(u32),
}

/// A kernel bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeLink {
    /// Its own address.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses, the kernel's own link-local one apart.
    pub addresses: BTreeSet<IpNet>,
    /// Whether the host's routes lead to the subnets of those addresses, as far as they are [`Self::connecting`].
    pub connected: bool,
    /// It was there before netd, and stays; addresses that netd did not give it are not mentioned.
    pub adopted: bool,
    /// Addresses that it did not bear before it was adopted.
    pub given: BTreeSet<IpNet>,
    /// Whether the host speaks IPv6 there, be it by a link-local address alone.
    pub ipv6: bool,
    /// What it is set to; settings that nobody asked for are not mentioned.
    pub settings: BridgeSettings,
}

impl BridgeLink {
    /// The addresses that netd gave it and that bring a route to a subnet: the kernel makes none to an IPv4 address by itself.
    pub fn connecting(&self) -> impl Iterator<Item = IpNet> {
        let is_own = |net: &&IpNet| !self.adopted || self.given.contains(*net);
        let has_subnet = |net: &&IpNet| net.addr().is_ipv6() || net.prefix_len() < net.max_prefix_len();
        self.addresses.iter().filter(is_own).filter(has_subnet).copied()
    }

    /// An adopted one as it is left: with no address but those that it bore before.
    pub fn released(&self) -> Self {
        Self { addresses: self.addresses.difference(&self.given).copied().collect(), ..self.clone() }
    }
}

/// A veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The bridge that the host's end is a port of.
    pub bridge: Option<String>,
    /// The MAC of the host's end. It is the bridge's: whatever a bridge's port has for a MAC is the host's for everybody on the
    /// link, and a container that spoke to it would come to the host's stack past the programs, which know the bridge's alone.
    pub mac: MacAddress,
    /// Whether the host's end is up.
    pub up: bool,
    /// Whether `from_container` hears what comes out of it.
    pub heard: bool,
    /// Of the host's end, in bytes.
    pub mtu: u32,
    /// How the bridge treats the host's end.
    pub port: BridgePort,
    /// What waits there to go into the container; one that nobody asked for is not mentioned.
    pub queue: Option<Queue>,
    /// The other end.
    pub far_end: FarEnd,
}

/// The host's end of a veth pair as a port of its bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Two such ports do not hear each other.
    pub isolated: bool,
    /// Frames may go back out of the port that they came in by.
    pub hairpin: bool,
    /// All multicast goes there, and not only what was asked for there.
    pub multicast_router: bool,
    /// The VLANs that it is in, where the bridge tells VLANs apart; else they are not mentioned.
    pub vlans: Option<Vlans>,
}

/// The VLANs that a port is in.
pub type Vlans = BTreeMap<u16, VlanMembership>;

/// How a port is in a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanMembership {
    /// Untagged frames that come in belong to it.
    pub pvid: bool,
    /// Its frames go out untagged.
    pub untagged: bool,
}

/// Who is to be found at a port of a bridge, heard or not: what the programs take past the bridge it never hears, and what it does
/// not know it floods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// The bridge.
    pub bridge: String,
    /// The port, either end of a veth pair.
    pub port: String,
    /// The station's address.
    pub mac: MacAddress,
    /// Where the bridge tells VLANs apart, the one that the station is in.
    pub vlan: Option<u16>,
}

/// The other end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarEnd {
    /// In a sandbox, and kept as it should be there.
    Sandbox(Interface),
    /// A container engine's, wherever it has it and whatever it does with it.
    Engine {
        /// Its name in the host's namespace, where it is made.
        name: String,
        /// The address that it is made with.
        mac: MacAddress,
    },
    /// A port of another bridge: the pair joins the two.
    Trunk(Trunk),
}

/// The end of a veth pair at a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Its name.
    pub name: String,
    /// The segment's bridge, which it is a port of.
    pub bridge: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// In bytes.
    pub mtu: u32,
    /// How the segment's bridge treats it.
    pub port: BridgePort,
}

/// A sandbox's end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Where it is.
    pub sandbox: Sandbox,
    /// Its name there.
    pub name: String,
    /// Its address.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// What waits there to go out of the container; one that nobody asked for is not mentioned.
    pub queue: Option<Queue>,
    /// Whether it has IPv6 at all.
    pub ipv6: bool,
    /// Its addresses, the kernel's own link-local one apart.
    pub addresses: BTreeSet<IpNet>,
    /// Its kernel settings; those that nobody asked for are not mentioned.
    pub sysctls: BTreeSet<Sysctl>,
    /// The sandbox's default route, if it leads through here.
    pub gateway4: Option<Ipv4Addr>,
    /// The sandbox's default route, if it leads through here.
    pub gateway6: Option<Ipv6Addr>,
    /// Other routes that lead through here.
    pub routes: BTreeSet<Route>,
}

/// A network in the datapath's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    /// The kernel bridge.
    pub bridge: LinkRef,
    /// Whether `from_host` hears what the host sends there.
    pub heard: bool,
    /// `netd_common::bridge`'s.
    pub flags: u32,
    /// The bridge's address.
    pub gateway4: Option<Ipv4Addr>,
    /// The bridge's address.
    pub gateway6: Option<Ipv6Addr>,
    /// What masquerade takes; an address of the uplink if absent.
    pub source4: Option<Ipv4Addr>,
    /// What masquerade takes; an address of the uplink if absent.
    pub source6: Option<Ipv6Addr>,
    /// The bridge's own.
    pub mac: MacAddress,
}

/// An endpoint in the datapath's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// The host's end of the veth.
    pub port: LinkRef,
    /// The network's number.
    pub network: u32,
    /// `netd_common::endpoint`'s.
    pub flags: u32,
    /// The endpoint's address.
    pub ipv4: Option<Ipv4Addr>,
    /// The endpoint's address.
    pub ipv6: Option<Ipv6Addr>,
    /// The endpoint's own.
    pub mac: MacAddress,
    /// The VLAN of its untagged frames; 0 where the bridge does not tell VLANs apart.
    pub vlan: u16,
    /// The same number for all endpoints of one container, and for no others; 0 if it is not known whose it is.
    pub sandbox: u32,
    /// The slot of the next endpoint of the same container, in a ring; its own if there is no other.
    pub beside: u32,
    /// Link-local addresses that it was given.
    pub link_locals: BTreeSet<IpAddr>,
    /// How fast it may send; 0 for as fast as it can.
    pub rate: Rate,
}

impl World {
    /// Whether the port that a station is at is a port of the station's bridge.
    pub fn has_port_of(&self, station: &Station) -> bool {
        let near = self.veths.get(&station.port).and_then(|veth| veth.bridge.as_ref());
        let mut trunks = self.veths.values().filter_map(|veth| veth.far_end.trunk());
        let far = || trunks.find(|trunk| trunk.name == station.port).and_then(|trunk| trunk.bridge.as_ref());
        near.or_else(far) == Some(&station.bridge)
    }
}

impl FarEnd {
    /// The end at a segment, if it is there.
    pub const fn trunk(&self) -> Option<&Trunk> {
        match self {
            Self::Trunk(trunk) => Some(trunk),
            Self::Sandbox(_) | Self::Engine { .. } => None,
        }
    }

    /// The interface in a sandbox, if it is there.
    pub const fn interface(&self) -> Option<&Interface> {
        match self {
            Self::Sandbox(interface) => Some(interface),
            Self::Engine { .. } | Self::Trunk(_) => None,
        }
    }
}

/// Where published ports lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicationRow {
    /// The endpoint's slot.
    pub slot: u32,
    /// The container's port behind the first of them.
    pub container: u16,
    /// Who reserves the host's ports.
    pub reserved_by: Reserver,
}
