//! A route of a sandbox.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A way to somewhere, beside the default route, that leads through an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// By whom; `None` if the destination is on the link.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The lower, the better; 0 for the kernel's own choice.
    #[serde(default)]
    pub metric: u32,
}

impl Route {
    /// The default route by a neighbour.
    pub fn default_via(gateway: IpAddr) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => Ipv4Net::default().into(),
            IpAddr::V6(_) => Ipv6Net::default().into(),
        };
        Self { destination, gateway: Some(gateway), metric: 0 }
    }
}
