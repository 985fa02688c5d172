//! What engines' plugins ask of netd: an interface of a container on a network that may be yet to be made.
//!
//! CNI and netavark are both served by it. An attachment is known by its network's name, its container's id and its
//! interface's name, for that is all that is left to a plugin when the namespace is gone.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    MacAddress, Route,
    request::{EndpointConfig, NetworkCreate},
};

/// `POST /netd/attachments`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attach {
    /// The network. It is made if there is none of this name, and what is said of it has to be so if there is.
    pub network: NetworkCreate,
    /// Where its addresses come from: sets of ranges, each set for one address of an interface.
    pub ranges: Vec<Vec<Range>>,
    /// Which IPAM gave `addresses`; netd's own if empty.
    pub ipam: String,
    /// The container's id.
    pub container: String,
    /// Path of its network namespace.
    pub sandbox: String,
    /// What the interface is to be called.
    pub interface: String,
    /// Addresses from another IPAM than netd's.
    pub addresses: Vec<Address>,
    /// Addresses that netd's IPAM is asked for.
    pub requested: Vec<IpAddr>,
    /// The default routes, 0.0.0.0/0 and ::/0, that lead by the network; if it is not said, those that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_routes: Option<Vec<IpNet>>,
    /// Where else it leads.
    pub routes: Vec<Route>,
    /// What else the endpoint is to be like; its addresses are above.
    pub endpoint_config: EndpointConfig,
}

/// Some of a subnet's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Range {
    /// The subnet, host bits zero.
    pub subnet: IpNet,
    /// The first address to give out, if not the subnet's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<IpAddr>,
    /// The last address to give out, if not the subnet's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    /// The bridge's address, if not the subnet's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// An interface's address, and the gateway of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Address {
    /// With the subnet's prefix length.
    pub address: IpNet,
    /// The bridge's address in the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// An attachment within its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Key {
    /// The container's id.
    pub container: String,
    /// The interface's name.
    pub interface: String,
}

/// The endpoint's name.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.interface)
    }
}

/// `POST /netd/attachments/NETWORK/prune`: the attachments that are to stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Prune {
    /// All others of the network go.
    pub valid: Vec<Key>,
}

/// The answer to [`Prune`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pruned {
    /// What went.
    pub removed: Vec<Key>,
    /// Why others did not, one line each.
    pub failures: Vec<String>,
}

/// An attachment as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// Path of its network namespace.
    pub sandbox: String,
    /// The kernel bridge.
    pub bridge: Link,
    /// The host's end of the veth.
    pub host: Link,
    /// The container's end.
    pub interface: Link,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Where it leads, the default routes among it.
    pub routes: Vec<Route>,
    /// Who resolves the names of the network.
    #[serde(default)]
    pub servers: Vec<IpAddr>,
}

/// A link of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its address, if the link is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// In bytes.
    pub mtu: u32,
}
