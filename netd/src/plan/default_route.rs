//! Which of a sandbox's endpoints carries its default route.

use std::cmp::Reverse;

use crate::model::{Endpoint, Sandbox, State};

/// The endpoint that carries a sandbox's default route; if two do, the one of IPv4.
pub fn gateway_endpoint<'a>(state: &'a State, sandbox: &Sandbox) -> Option<&'a Endpoint> {
    [false, true].into_iter().find_map(|ipv6| carrier(state, sandbox, ipv6))
}

/// The endpoint that carries a sandbox's default route of a family: that of the highest priority, among equals that of the network
/// whose name comes first, and in one network who came first.
pub(super) fn carrier<'a>(state: &'a State, sandbox: &Sandbox, ipv6: bool) -> Option<&'a Endpoint> {
    let leads = |endpoint: &&Endpoint| {
        if ipv6 { endpoint.gateway6.is_some() } else { endpoint.gateway4.is_some() }
    };
    let rank = |endpoint: &&'a Endpoint| {
        let name = &state.networks[&endpoint.network].name;
        (Reverse(endpoint.gateway_priority), name, endpoint.created)
    };
    state.endpoints.in_sandbox(sandbox).filter(leads).min_by_key(rank)
}
