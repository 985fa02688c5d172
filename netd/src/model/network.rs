//! A network, complete and valid.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Bridge, Id, Timestamp};

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Unique for ever.
    pub id: Id,
    /// Unique among the networks there are.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What it is made of.
    pub driver: Driver,
    /// Whether endpoints get an IPv4 address.
    pub enable_ipv4: bool,
    /// Whether endpoints get an IPv6 address.
    pub enable_ipv6: bool,
    /// Whether endpoints have no way out.
    pub internal: bool,
    /// Stored for Docker's clients; means nothing on one host.
    pub attachable: bool,
    /// A template for other networks: it has no bridge, and its addresses are those of whoever takes them.
    pub config_only: bool,
    /// The name of the template that its configuration was taken from.
    pub config_from: Option<String>,
    /// Where addresses come from.
    pub ipam: Ipam,
    /// Driver options as given, known to netd or not.
    pub options: BTreeMap<String, String>,
    /// The user's own marks.
    pub labels: BTreeMap<String, String>,
    /// The kernel's side of it; exactly with [`Driver::Bridge`].
    pub bridge: Option<Bridge>,
    /// What a container engine calls it, if it is one's: the engine alone gives out its addresses, and removes it.
    pub engine_id: Option<String>,
}

/// What a network is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A kernel bridge with netd's programs at its ports.
    Bridge,
    /// The host's own network.
    Host,
    /// No network.
    Null,
}

impl Driver {
    /// The name in Docker's API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a network's addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// `default`, or the CNI plugin that gives the addresses.
    pub driver: String,
    /// As given.
    pub options: Option<BTreeMap<String, String>>,
    /// At most one of each family, but for networks that CNI made.
    pub pools: Vec<Pool>,
}

/// The addresses of one family of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The network's prefix, host bits zero.
    pub subnet: IpNet,
    /// Where endpoints' addresses come from, within `subnet`; all of it if none is given.
    pub range: Option<IpNet>,
    /// The first and the last address that endpoints get, where that is no prefix; it goes before `range`.
    pub bounds: Option<(IpAddr, IpAddr)>,
    /// The bridge's address.
    pub gateway: Option<IpAddr>,
    /// Whether inspection shows the gateway: not if a subnet was asked for and no gateway, as Docker has it.
    pub gateway_shown: bool,
    /// Addresses that are never given out, and what for.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether the subnet was asked for; else it came from the default pools.
    pub requested: bool,
    /// The last address that was given out in turn, where the network gives them serially.
    pub last: Option<IpAddr>,
}

impl Ipam {
    /// The IPAM driver that gives no addresses.
    pub const NULL: &str = "null";

    /// The option by which addresses are given out one after the other.
    pub const SERIAL: &str = "com.docker.network.ipam.serial";

    /// Whether endpoints get the next address after the last one, and not the lowest that is free.
    pub fn is_serial(&self) -> bool {
        let option = self.options.as_ref().and_then(|options| options.get(Self::SERIAL));
        option.is_some_and(|value| value == "true")
    }

    /// Whether the addresses in the network are nobody's business.
    pub fn is_null(&self) -> bool {
        self.driver == Self::NULL
    }
}

impl Network {
    /// Whether it is one of the three that are always there.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// The pools of one family; the first is the one of the bridge's own address.
    pub fn pools(&self, ipv6: bool) -> impl Iterator<Item = &Pool> {
        self.ipam.pools.iter().filter(move |pool| pool.subnet.addr().is_ipv6() == ipv6)
    }

    /// The pool of the IPv4 addresses.
    pub fn pool4(&self) -> Option<&Pool> {
        self.ipam.pools.iter().find(|pool| pool.subnet.addr().is_ipv4())
    }

    /// The pool of the IPv6 addresses.
    pub fn pool6(&self) -> Option<&Pool> {
        self.ipam.pools.iter().find(|pool| pool.subnet.addr().is_ipv6())
    }
}

impl Pool {
    /// The gateway with the subnet's prefix length, as a bridge bears it.
    pub fn bridge_address(&self) -> Option<IpNet> {
        self.gateway.map(|gateway| self.sized(gateway))
    }

    /// An address of the subnet with the subnet's prefix length.
    pub fn sized(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).expect("the address is of its subnet's family")
    }

    /// The endpoints' way out: the bridge, unless an auxiliary address is named as the default gateway.
    pub fn way_out(&self) -> Option<IpAddr> {
        let name = if self.subnet.addr().is_ipv4() { "DefaultGatewayIPv4" } else { "DefaultGatewayIPv6" };
        self.auxiliary.get(name).copied().or(self.gateway)
    }
}

/// Whether `name` is one of the three networks that are always there.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}
