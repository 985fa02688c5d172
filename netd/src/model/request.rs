//! Requests as Docker's JSON has them. Keys that are not named here are ignored, as Docker does; whoever reads JSON from
//! a client leaves out its `null`s first, for to Docker they are absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// The network's name.
    pub name: String,
    /// `bridge` if absent or empty.
    pub driver: Option<String>,
    /// `local` or empty.
    pub scope: String,
    /// On if absent.
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Off if absent.
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Where addresses come from.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamRequest>,
    /// No way out for the endpoints.
    pub internal: bool,
    /// Stored.
    pub attachable: bool,
    /// Swarm's.
    pub ingress: bool,
    /// A template for other networks.
    pub config_only: bool,
    /// The template to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigFrom>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// The user's own marks.
    pub labels: BTreeMap<String, String>,
}

/// The network that another one's configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    /// Its name; empty for none.
    pub network: String,
}

/// Where a new network's addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamRequest {
    /// `default` if empty.
    pub driver: String,
    /// Options of the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
    /// At most one of each family.
    pub config: Vec<PoolRequest>,
}

/// One subnet, in texts that are yet to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PoolRequest {
    /// A prefix; one of the default pools if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// A prefix within the subnet.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// An address within the subnet; its first if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses that are not to be given out, by the name of who has them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// `POST /networks/N/connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkConnect {
    /// `netns:NAME`, `pid:N`, or the absolute path of a network namespace.
    pub container: String,
    /// What the endpoint is to be like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_config: Option<EndpointConfig>,
}

/// What an endpoint is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointConfig {
    /// Addresses asked for.
    #[serde(rename = "IPAMConfig", skip_serializing_if = "Option::is_none")]
    pub ipam_config: Option<EndpointAddresses>,
    /// More names of the endpoint.
    pub aliases: Vec<String>,
    /// An Ethernet address; a random one if empty.
    pub mac_address: String,
    /// Driver options.
    pub driver_opts: BTreeMap<String, String>,
    /// The highest of a sandbox's endpoints is its default route.
    pub gw_priority: i64,
    /// Docker's legacy links.
    pub links: Vec<String>,
}

/// Addresses asked for, in texts that are yet to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointAddresses {
    /// Empty for any.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// Empty for any.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Further addresses, link-local ones.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
}

/// Endpoint option: ports to publish, as `docker run -p` has them, separated by commas.
pub const PUBLISH: &str = "netd.publish";
/// Endpoint option: how fast it may be sent to.
pub const INGRESS: &str = "netd.rate.ingress";
/// Endpoint option: how much it may be sent at once.
pub const INGRESS_BURST: &str = "netd.rate.ingress_burst";
/// Endpoint option: how fast it may send.
pub const EGRESS: &str = "netd.rate.egress";
/// Endpoint option: how much it may send at once.
pub const EGRESS_BURST: &str = "netd.rate.egress_burst";

/// `POST /netd/publish` and `POST /netd/unpublish`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Publish {
    /// The endpoint's sandbox, name or id; `NETWORK/ENDPOINT` where one sandbox is in several networks.
    pub endpoint: String,
    /// Ports, as `docker run -p` has them.
    pub ports: Vec<String>,
}

/// `POST /networks/N/disconnect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkDisconnect {
    /// The endpoint's sandbox, name or id.
    pub container: String,
    /// Disconnect even what is not in order.
    pub force: bool,
}
