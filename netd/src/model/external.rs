//! External addresses: what the outside knows a container or a network by, one for one.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netd_common::external;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Id, Network, State, Timestamp};

/// A 1:1 translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// What the outside sees: one address, or the prefix of a network. Unique.
    pub external: IpNet,
    /// What it stands for.
    pub target: Target,
    /// When it was made.
    pub created: Timestamp,
}

/// What an external address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// An endpoint's address of that family.
    Endpoint(Id),
    /// A network's IPv6 prefix (RFC 6296).
    Network(Id),
}

impl External {
    /// Whether it is one address, and not a prefix.
    pub fn is_address(&self) -> bool {
        self.external.prefix_len() == self.external.max_prefix_len()
    }

    /// What it stands for, in the same form; `None` if that has no such family.
    pub fn internal(&self, state: &State) -> Option<IpNet> {
        match self.target {
            Target::Endpoint(id) => state.endpoints.get(&id)?.address(self.is_ipv6()).map(IpNet::from),
            Target::Network(id) => Some(state.networks.get(&id)?.pool6()?.subnet),
        }
    }

    /// Whether packets of `endpoint` are translated by it.
    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        match self.target {
            Target::Endpoint(id) => endpoint.id == id,
            Target::Network(id) => endpoint.network == id,
        }
    }

    /// What the outside sees of an address that it stands for.
    pub fn outward(&self, state: &State, internal: IpAddr) -> Option<IpAddr> {
        match (self.external, self.internal(state)?, internal) {
            (IpNet::V4(external), IpNet::V4(_), IpAddr::V4(_)) => Some(external.addr().into()),
            (IpNet::V6(external), IpNet::V6(inside), IpAddr::V6(address)) => {
                let length = u32::from(external.prefix_len());
                let row =
                    external::External::new6(external.network().into(), inside.network().into(), length);
                row.outward(address.into()).map(|address| Ipv6Addr::from(address).into())
            }
            _ => None,
        }
    }

    /// Its family.
    pub fn is_ipv6(&self) -> bool {
        self.external.addr().is_ipv6()
    }
}

impl Endpoint {
    /// Its address of a family.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 { self.ipv6.map(|net| net.addr().into()) } else { self.ipv4.map(|net| net.addr().into()) }
    }

    /// Whether an address is its own.
    pub fn has(&self, address: IpAddr) -> bool {
        self.address(address.is_ipv6()) == Some(address)
    }
}

impl State {
    /// The external addresses that stand for an endpoint of its own, not for its network.
    pub fn externals_of(&self, endpoint: Id) -> impl Iterator<Item = &External> {
        self.externals.values().filter(move |external| external.target == Target::Endpoint(endpoint))
    }

    /// The external prefix of a network.
    pub fn external_prefix(&self, network: &Network) -> Option<&External> {
        self.externals.values().find(|external| external.target == Target::Network(network.id))
    }
}
