//! The kernel's side of a bridge network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Dependence, MacAddress};

/// The smallest MTU that IPv6 works with (RFC 8200 section 5).
pub const IPV6_MTU: u32 = 1280;

/// A kernel bridge, and what the datapath does at its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Index in the datapath's tables.
    pub number: u32,
    /// Name of the kernel bridge.
    pub interface: String,
    /// Its own address, set rather than left to the lowest port's.
    pub mac: MacAddress,
    /// Of the bridge and both ends of each veth, in bytes.
    pub mtu: u32,
    /// Whether endpoints may talk to each other.
    pub icc: bool,
    /// Whether traffic to the outside takes an address of the host.
    pub masquerade: bool,
    /// How the outside and the endpoints' IPv4 addresses meet.
    pub gateway_mode4: GatewayMode,
    /// How the outside and the endpoints' IPv6 addresses meet.
    pub gateway_mode6: GatewayMode,
    /// The address of the host that masqueraded traffic takes; the uplink's if absent.
    pub host4: Option<Ipv4Addr>,
    /// The address of the host that masqueraded traffic takes; the uplink's if absent.
    pub host6: Option<Ipv6Addr>,
    /// Destinations that see the endpoints' own addresses, masquerade or not.
    pub exempts: Vec<IpNet>,
    /// What masquerade makes the external port of an endpoint's own address and port depend on.
    pub mapping: Dependence,
    /// What it depends on who may send to that port.
    pub filtering: Dependence,
    /// The address of the host on which ports are published if none is named; any if absent.
    pub host_binding: Option<IpAddr>,
    /// Interfaces of the host from which published ports are reached at the endpoints' own addresses.
    pub trusted_interfaces: Vec<String>,
    /// The bridge bears no IPv4 address; its gateway is kept all the same, for somebody else to be.
    pub inhibit_ipv4: bool,
    /// What the endpoints' interfaces are called, before their number.
    pub prefix: String,
    /// How an endpoint that comes up makes itself known to its neighbours.
    pub advertise: Advertise,
    /// What the kernel bridge is set to.
    pub settings: BridgeSettings,
    /// How many of its ports endpoints may take; further ones are on segments.
    pub ports: u16,
    /// Whether the programs forward what they can; else the kernel's bridge and stack do it all.
    pub fast_path: bool,
    /// The bridge was there before the network, and stays when it goes.
    pub adopted: bool,
    /// Addresses that such a bridge did not bear before, and does not when the network has gone.
    #[serde(default)]
    pub given: Vec<IpNet>,
}

impl Bridge {
    /// A bridge as it is if nothing is asked for.
    pub fn new(number: u32, interface: impl Into<String>, mac: MacAddress) -> Self {
        Self {
            number,
            interface: interface.into(),
            mac,
            mtu: 1500,
            icc: true,
            masquerade: true,
            gateway_mode4: GatewayMode::Nat,
            gateway_mode6: GatewayMode::Nat,
            host4: None,
            host6: None,
            exempts: Vec::new(),
            mapping: Dependence::default(),
            filtering: Dependence::default(),
            host_binding: None,
            trusted_interfaces: Vec::new(),
            inhibit_ipv4: false,
            prefix: "eth".to_owned(),
            advertise: Advertise::default(),
            settings: BridgeSettings::default(),
            // All but 63, of which 32 are for trunks; the rest is for whoever else plugs something in.
            ports: 960,
            fast_path: true,
            adopted: false,
            given: Vec::new(),
        }
    }
}

impl Bridge {
    /// How the outside and the endpoints' addresses of a family meet.
    pub const fn gateway_mode(&self, ipv6: bool) -> GatewayMode {
        if ipv6 { self.gateway_mode6 } else { self.gateway_mode4 }
    }

    /// Whether the bridge bears an address of a family.
    pub const fn bears(&self, ipv6: bool) -> bool {
        !matches!(self.gateway_mode(ipv6), GatewayMode::Isolated) && (ipv6 || !self.inhibit_ipv4)
    }

    /// Whether what leaves the network takes another address of a family.
    pub const fn masquerades(&self, ipv6: bool) -> bool {
        self.masquerade && matches!(self.gateway_mode(ipv6), GatewayMode::Nat | GatewayMode::NatUnprotected)
    }
}

/// Gratuitous ARP and unsolicited neighbour advertisements of an endpoint that comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertise {
    /// How many of each address, at most three.
    pub messages: u8,
    /// Milliseconds from one to the next.
    pub interval: u16,
}

impl Default for Advertise {
    fn default() -> Self {
        Self { messages: 3, interval: 1000 }
    }
}

/// Settings of a kernel bridge, under the names and in the units of `ip link`. What is absent is left as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeSettings {
    /// The spanning tree protocol.
    pub stp: Option<bool>,
    /// How long a port listens, and then learns, before it forwards; in hundredths of a second.
    pub forward_delay: Option<u32>,
    /// The bridge's rank when a root is elected; the lowest becomes it.
    pub priority: Option<u16>,
    /// How long a station is remembered that is not heard; in hundredths of a second.
    pub ageing_time: Option<u32>,
    /// Whether multicast goes only where it was asked for.
    pub mcast_snooping: Option<bool>,
    /// Whether the bridge asks who wants multicast.
    pub mcast_querier: Option<bool>,
    /// 2 or 3.
    pub mcast_igmp_version: Option<u8>,
    /// 1 or 2.
    pub mcast_mld_version: Option<u8>,
    /// Whether the bridge tells VLANs apart.
    pub vlan_filtering: Option<bool>,
}

/// How the outside and the endpoints' addresses of one family meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Out by masquerade, in by published ports.
    #[default]
    Nat,
    /// As `Nat`, and every port is reached at the endpoint's own address.
    NatUnprotected,
    /// No translation: in by published ports at the endpoint's own address.
    Routed,
    /// The bridge has no address: nothing leads out, not even to the host. For internal networks alone.
    Isolated,
}

impl GatewayMode {
    /// The name in Docker's options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no gateway mode.
#[derive(Debug, thiserror::Error)]
#[error("unknown gateway mode {0}")]
pub struct UnknownGatewayMode(String);

impl FromStr for GatewayMode {
    type Err = UnknownGatewayMode;

    fn from_str(text: &str) -> Result<Self, UnknownGatewayMode> {
        [Self::Nat, Self::NatUnprotected, Self::Routed, Self::Isolated]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| UnknownGatewayMode(text.to_owned()))
    }
}
