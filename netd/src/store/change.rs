//! What an action changes of the state.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Endpoint, External, Forwards, Id, LeasedPool, Network, PortSet, State, Total};

/// One change to the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A network is new or changed.
    PutNetwork(Network),
    /// A network is gone.
    RemoveNetwork(Id),
    /// An endpoint is new or changed.
    PutEndpoint(Endpoint),
    /// An endpoint is gone.
    RemoveEndpoint(Id),
    /// What a network's endpoints that are gone had sent and received, all together.
    Depart(Id, Total),
    /// An engine's pool is new or changed.
    PutPool(LeasedPool),
    /// An engine's pool is gone.
    RemovePool(String),
    /// An external address is new.
    PutExternal(External),
    /// An external address is gone.
    RemoveExternal(IpNet),
    /// The ports that netd has reserved are others.
    Reserve(PortSet),
    /// Something of the host's forwarding is switched on.
    Forward(Forwards),
}

impl Change {
    /// The endpoint that it is about, if it is about one.
    pub fn endpoint<'a>(&'a self, before: &'a State) -> Option<&'a Endpoint> {
        match self {
            Self::PutEndpoint(endpoint) => Some(endpoint),
            Self::RemoveEndpoint(id) => before.endpoints.get(id).map(Arc::as_ref),
            _ => None,
        }
    }

    /// Makes the change to a state in memory.
    pub fn make(self, state: &mut State) {
        match self {
            Self::PutNetwork(network) => drop(state.networks.insert(network.id, network)),
            Self::RemoveNetwork(id) => {
                state.networks.remove(&id);
                state.departed.remove(&id);
            }
            Self::PutEndpoint(endpoint) => state.endpoints.insert(endpoint),
            Self::RemoveEndpoint(id) => state.endpoints.remove(&id),
            Self::Depart(network, total) => drop(state.departed.insert(network, total)),
            Self::PutPool(pool) => drop(state.pools.insert(pool.id.clone(), pool)),
            Self::RemovePool(id) => drop(state.pools.remove(&id)),
            Self::PutExternal(external) => drop(state.externals.insert(external.external, external)),
            Self::RemoveExternal(external) => drop(state.externals.remove(&external)),
            Self::Reserve(ports) => state.reserved = ports,
            Self::Forward(forwards) => state.forwards = forwards,
        }
    }

    /// What is different between two states.
    pub fn between(old: &State, new: &State) -> Vec<Self> {
        let mut changes = Vec::new();
        for (id, network) in &new.networks {
            if old.networks.get(id) != Some(network) {
                changes.push(Self::PutNetwork(network.clone()));
            }
        }
        for (id, endpoint) in new.endpoints.iter() {
            if old.endpoints.get(id) != Some(endpoint) {
                changes.push(Self::PutEndpoint(Endpoint::clone(endpoint)));
            }
        }
        let gone = old.endpoints.keys().filter(|id| !new.endpoints.contains_key(id));
        changes.extend(gone.map(|id| Self::RemoveEndpoint(*id)));
        let gone = old.networks.keys().filter(|id| !new.networks.contains_key(id));
        changes.extend(gone.map(|id| Self::RemoveNetwork(*id)));
        for (id, total) in &new.departed {
            if old.departed.get(id) != Some(total) {
                changes.push(Self::Depart(*id, *total));
            }
        }
        for (id, pool) in &new.pools {
            if old.pools.get(id) != Some(pool) {
                changes.push(Self::PutPool(pool.clone()));
            }
        }
        let gone = old.pools.keys().filter(|id| !new.pools.contains_key(*id));
        changes.extend(gone.map(|id| Self::RemovePool(id.clone())));
        for (prefix, external) in &new.externals {
            if old.externals.get(prefix) != Some(external) {
                changes.push(Self::PutExternal(external.clone()));
            }
        }
        let gone = old.externals.keys().filter(|external| !new.externals.contains_key(external));
        changes.extend(gone.map(|external| Self::RemoveExternal(*external)));
        if old.reserved != new.reserved {
            changes.push(Self::Reserve(new.reserved.clone()));
        }
        if old.forwards != new.forwards {
            changes.push(Self::Forward(new.forwards.clone()));
        }
        changes
    }
}
