//! What netd chooses for a new endpoint: its addresses, its names, and its places, each other than its neighbours'.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netd_common::limits;

use super::{internal, random};
use crate::{
    ipam,
    link::Links,
    model::{Bridge, Endpoint, Error, Id, MacAddress, Network, Pool, Port, Sandbox, State},
    plan::{self, Room},
};

/// A place in the datapath's tables.
pub(super) fn slot(state: &State) -> Result<u32, Error> {
    let slot = state.endpoints.free_slot();
    slot.ok_or_else(|| Error::forbidden(format!("there are {} endpoints already", limits::ENDPOINTS)))
}

/// Where in the network there is room for one more such port.
pub(super) fn segment(
    state: &State,
    network: &Network,
    bridge: &Bridge,
    port: &Port,
) -> Result<Option<u8>, Error> {
    plan::place(Room::of(bridge), state.endpoints_of(network.id), port.isolated)
        .ok_or_else(|| Error::forbidden(format!("the bridges of network {} have no port left", network.name)))
}

/// The address asked for, or a random one that nobody in the network has.
pub(super) fn mac(
    state: &State,
    network: &Network,
    bridge: &Bridge,
    wanted: &str,
) -> Result<MacAddress, Error> {
    let is_taken =
        |mac: MacAddress| mac == bridge.mac || state.endpoints_of(network.id).any(|other| other.mac == mac);
    if !wanted.is_empty() {
        let mac: MacAddress = wanted.parse().map_err(|error| Error::invalid(format!("{error}")))?;
        if !mac.is_unicast() {
            return Err(Error::invalid(format!(
                "invalid MAC address {wanted}: one interface cannot bear it"
            )));
        }
        if is_taken(mac) {
            let name = &network.name;
            return Err(Error::forbidden(format!(
                "MAC address {wanted} is already in use in network {name}"
            )));
        }
        return Ok(mac);
    }
    loop {
        let mac = MacAddress::local(random()?);
        if !is_taken(mac) {
            return Ok(mac);
        }
    }
}

/// The address asked for, which the pool's subnet holds, or the next one that is free. `None` if the network has no such
/// family.
pub(super) fn address(
    state: &State,
    network: &Network,
    pool: Option<&Pool>,
    wanted: Option<IpAddr>,
) -> Result<Option<IpNet>, Error> {
    let Some(pool) = pool else { return Ok(None) };
    let used: BTreeSet<IpAddr> = addresses_in_use(state, network.id).collect();
    if let Some(wanted) = wanted {
        ipam::claim(pool, &used, wanted)?;
        return Ok(Some(pool.sized(wanted)));
    }
    let free = if network.ipam.is_serial() {
        ipam::next_free(pool, &used, pool.last)
    } else {
        ipam::lowest_free(pool, &used)
    };
    let address = free.map_err(|_| {
        let family = if pool.subnet.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        Error::internal(format!(
            "no available {family} addresses on this network's address pools: {} ({})",
            network.name, network.id
        ))
    })?;
    Ok(Some(pool.sized(address)))
}

/// The addresses of a network's endpoints, link-local ones that they were given among them.
pub(super) fn addresses_in_use(state: &State, network: Id) -> impl Iterator<Item = IpAddr> {
    state.endpoints_of(network).flat_map(Endpoint::all_addresses)
}

/// Refuses a link-local address that somebody else on the link has: the programs let one alone speak under it.
pub(super) fn link_local(
    state: &State,
    network: &Network,
    bridge: &Bridge,
    wanted: &[IpNet],
) -> Result<(), Error> {
    let macs = state.endpoints_of(network.id).map(|other| other.mac).chain([bridge.mac]);
    let used: BTreeSet<IpAddr> = addresses_in_use(state, network.id)
        .chain(network.ipam.pools.iter().filter_map(|pool| pool.gateway))
        .chain(macs.map(|mac| mac.link_local().addr().into()))
        .collect();
    let taken = wanted.iter().map(IpNet::addr).find(|address| used.contains(address));
    taken.map_or(Ok(()), |taken| {
        let name = &network.name;
        Err(Error::forbidden(format!("link-local IP address {taken} is already in use in network {name}")))
    })
}

/// The interface's name: the one asked for, or the first of eth0, eth1, ... that the sandbox does not have.
pub(super) async fn interface(
    sandbox: &Sandbox,
    bridge: &Bridge,
    wanted: Option<String>,
) -> Result<String, Error> {
    let namespace =
        sandbox.open().ok_or_else(|| Error::not_found(format!("No such container: {sandbox}")))?;
    let links = Links::within(&namespace).await.map_err(internal)?;
    let names: BTreeSet<_> =
        links.devices().await.map_err(internal)?.into_iter().map(|device| device.name).collect();
    if let Some(wanted) = wanted {
        if names.contains(&wanted) {
            return Err(Error::forbidden(format!("interface {wanted} already exists in {sandbox}")));
        }
        return Ok(wanted);
    }
    let mut candidates = (0..).map(|number| format!("{}{number}", bridge.prefix));
    Ok(candidates.find(|name| !names.contains(name)).expect("the numbers do not end"))
}

/// `veth` and seven random hexadecimal digits, other than any endpoint's.
pub(super) fn host_interface(state: &State) -> Result<String, Error> {
    loop {
        let digits = u32::from_ne_bytes(random()?) >> 4;
        let name = format!("veth{digits:07x}");
        if state.endpoints.at_link(&name).is_none() {
            return Ok(name);
        }
    }
}
