//! All that there is, and how a request finds some of it.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::{
    Endpoint, Endpoints, Error, External, Forwards, Id, LeasedPool, Network, PortSet, Sandbox, Total,
};

/// All that the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By id.
    pub networks: BTreeMap<Id, Network>,
    /// By id, and by what else they are found.
    pub endpoints: Endpoints,
    /// By id.
    pub pools: BTreeMap<String, LeasedPool>,
    /// By what the outside sees.
    pub externals: BTreeMap<IpNet, External>,
    /// By network, what endpoints had sent and received when they left: a network's totals do not fall when one does.
    pub departed: BTreeMap<Id, Total>,
    /// Ports that netd has reserved, beside the administrator's.
    pub reserved: PortSet,
    /// What netd has switched on.
    pub forwards: Forwards,
}

impl State {
    /// The network that `text` names: by its full id, else its name, else the start of its id.
    ///
    /// # Errors
    /// `network X not found`, or `network X is ambiguous` where a prefix fits more than one.
    pub fn find_network(&self, text: &str) -> Result<&Network, Error> {
        let by_id = text.parse().ok().and_then(|id: Id| self.networks.get(&id));
        if let Some(network) = by_id.or_else(|| self.network_named(text)) {
            return Ok(network);
        }
        let mut matches = self
            .networks
            .values()
            .filter(|network| !text.is_empty() && network.id.to_string().starts_with(text));
        match (matches.next(), matches.count()) {
            (None, _) => Err(Error::not_found(format!("network {text} not found"))),
            (Some(network), 0) => Ok(network),
            (Some(_), more) => Err(Error::invalid(format!(
                "network {text} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
        }
    }

    /// The network of exactly this name.
    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|network| network.name == name)
    }

    /// The daemon's id, in the form of a UUID. It comes and goes with the state, as the network `none` does, whose id is as
    /// random as one could be.
    pub fn daemon_id(&self) -> String {
        let none = self.network_named("none").map(|network| network.id.to_string()).unwrap_or_default();
        let part = |range: std::ops::Range<usize>| none.get(range).unwrap_or_default();
        [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
    }

    /// The network that a container engine calls `id`.
    ///
    /// # Errors
    /// `network X not found`.
    pub fn network_of_engine(&self, id: &str) -> Result<&Network, Error> {
        let mut networks = self.networks.values();
        let found = networks.find(|network| network.engine_id.as_deref() == Some(id));
        found.ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    /// The endpoint of `network` that a container engine calls `id`.
    ///
    /// # Errors
    /// `endpoint X not found`.
    pub fn endpoint_of_engine(&self, network: Id, id: &str) -> Result<&Endpoint, Error> {
        let is_it = |endpoint: &&Endpoint| {
            endpoint.network == network
                && endpoint.far_end.handover().is_some_and(|handover| handover.id == id)
        };
        // The engine's id is netd's own, unless that was taken.
        let own = id.parse().ok().and_then(|id: Id| self.endpoints.get(&id)).map(Arc::as_ref).filter(is_it);
        let found = own.or_else(|| self.endpoints_of(network).find(is_it));
        found.ok_or_else(|| Error::not_found(format!("endpoint {id} not found")))
    }

    /// The endpoints of one network.
    pub fn endpoints_of(&self, network: Id) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(Arc::as_ref).filter(move |endpoint| endpoint.network == network)
    }

    /// The endpoint that an engine's plugin knows by its container's id and its interface's name.
    pub fn find_attachment(&self, network: Id, container: &str, interface: &str) -> Option<&Endpoint> {
        self.endpoints_of(network).find(|endpoint| {
            endpoint.container.as_deref() == Some(container) && endpoint.interface == interface
        })
    }

    /// The endpoints that `text` names, in whatever network: as [`State::find_endpoint`] does, or as `NETWORK/ENDPOINT`.
    pub fn find_endpoints(&self, text: &str) -> Vec<&Endpoint> {
        let in_network = text.split_once('/').and_then(|(network, endpoint)| {
            let network = self.find_network(network).ok()?;
            self.find_endpoint(network.id, endpoint)
        });
        match in_network {
            Some(endpoint) => vec![endpoint],
            None => self.networks.keys().filter_map(|network| self.find_endpoint(*network, text)).collect(),
        }
    }

    /// The sandbox that `text` names: in any of its forms, or by an endpoint that it has already.
    ///
    /// # Errors
    /// `No such container: X`, or the endpoints of that name are in several sandboxes.
    pub fn find_sandbox(&self, text: &str) -> Result<Sandbox, Error> {
        Sandbox::parse(text).or_else(|unknown| {
            let endpoints = self.find_endpoints(text);
            let mut sandboxes = endpoints.iter().filter_map(|endpoint| endpoint.far_end.sandbox());
            let found = sandboxes.next().ok_or(unknown)?;
            match sandboxes.find(|other| other.inode != found.inode) {
                None => Ok(found.clone()),
                Some(other) => {
                    Err(Error::invalid(format!("{text} is ambiguous: it is in {found} and in {other}")))
                }
            }
        })
    }

    /// The endpoint of `network` that `container` names: its sandbox in any of its forms, its name, or its id, bare or
    /// as `ep-ID`.
    pub fn find_endpoint(&self, network: Id, container: &str) -> Option<&Endpoint> {
        let path = Sandbox::parse(container).ok().map(|sandbox| sandbox.path);
        let id = container.strip_prefix("ep-").unwrap_or(container).parse::<Id>().ok();
        self.endpoints_of(network).find(|endpoint| {
            let sandbox = endpoint.far_end.sandbox().map(|sandbox| &sandbox.path);
            sandbox.is_some() && sandbox == path.as_ref()
                || endpoint.name == container
                || Some(endpoint.id) == id
        })
    }
}
