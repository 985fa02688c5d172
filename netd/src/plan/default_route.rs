//! Which of a sandbox's endpoints carries its default route, and how that changes.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use super::{FarEnd, Interface, Step, Veth, World};
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

/// A default route through one interface of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The name of the veth's end at the host.
    pub veth: String,
    /// A neighbour there.
    pub gateway: IpAddr,
}

/// A sandbox's default route of one family that comes to lead through another of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    sandbox: Sandbox,
    pub(super) from: DefaultRoute,
    pub(super) to: DefaultRoute,
}

impl Move {
    /// The move, made.
    pub(super) fn take(&self, veths: &mut BTreeMap<String, Veth>) {
        lead(veths, &self.from, false);
        lead(veths, &self.to, true);
    }

    /// The move, not made yet.
    pub(super) fn take_back(&self, veths: &mut BTreeMap<String, Veth>) {
        lead(veths, &self.to, false);
        lead(veths, &self.from, true);
    }

    pub(super) fn step(self) -> Step {
        let Self { sandbox, from, to } = self;
        Step::DefaultRoute { sandbox, from, to }
    }
}

fn lead(veths: &mut BTreeMap<String, Veth>, route: &DefaultRoute, leads: bool) {
    let veth = veths.get_mut(&route.veth);
    if let Some(FarEnd::Sandbox(interface)) = veth.map(|veth| &mut veth.far_end) {
        interface.set_gateway(route.gateway, leads);
    }
}

/// The default routes that move from one world to another.
pub(super) fn moves(from: &World, to: &World) -> Vec<Move> {
    let before: BTreeMap<_, _> = default_routes(from).collect();
    let moved = default_routes(to).filter_map(|((sandbox, ipv6), to)| {
        let from = before.get(&(sandbox, ipv6)).filter(|from| from.veth != to.veth)?;
        Some(Move { sandbox: sandbox.clone(), from: from.clone(), to })
    });
    moved.collect()
}

/// The default routes there are, by sandbox and by whether they are of IPv6.
fn default_routes(world: &World) -> impl Iterator<Item = ((&Sandbox, bool), DefaultRoute)> {
    let interfaces = world.veths.iter().filter_map(|(name, veth)| Some((name, veth.far_end.interface()?)));
    interfaces.flat_map(|(name, interface)| {
        interface.gateways().map(move |gateway| {
            let route = DefaultRoute { veth: name.clone(), gateway };
            ((&interface.sandbox, gateway.is_ipv6()), route)
        })
    })
}

impl Interface {
    /// The gateways of the default routes that lead through here.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.gateway4.map(IpAddr::from).into_iter().chain(self.gateway6.map(IpAddr::from))
    }

    /// Has its default route of a family lead through here, or no more.
    pub(super) const fn set_gateway(&mut self, gateway: IpAddr, leads: bool) {
        match gateway {
            IpAddr::V4(gateway) => self.gateway4 = if leads { Some(gateway) } else { None },
            IpAddr::V6(gateway) => self.gateway6 = if leads { Some(gateway) } else { None },
        }
    }
}
