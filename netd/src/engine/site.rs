//! What the configuration comes to on this host: decided before anything is changed.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Engine, internal, lease::OVERLAPS, spec::taken};
use crate::{
    config::Config,
    ipam::{self, Pools},
    link::{self, Device, Links},
    model::{Endpoint, Error, FarEnd, State},
    store::Stored,
};

/// The host, and what the daemon was told about it.
pub(super) struct Site<'a> {
    pub(super) config: &'a Config,
    pub(super) links: &'a Links,
    pub(super) pools: &'a Pools,
}

/// What a daemon starts with.
pub struct Prepared {
    pub(super) stored: Stored,
    pub(super) links: Links,
    pub(super) pools: Pools,
    /// What is to be.
    pub(super) wanted: State,
}

impl Prepared {
    /// Decides what is to become of what is stored.
    ///
    /// # Errors
    /// If the configuration contradicts itself, the store or the host.
    pub async fn new(config: &Config, stored: Stored) -> Result<Self, Error> {
        let links = Links::here().map_err(internal)?;
        let pools = Pools::new(&config.address_pools, stored.ula);
        let site = Site { config, links: &links, pools: &pools };
        site.check_uplinks().await?;
        let mut wanted = stored.state.clone();
        let devices = links.devices().await.map_err(internal)?;
        for endpoint in stored.state.endpoints.values().filter(|endpoint| !is_alive(endpoint, &devices)) {
            log::warn!("{} is no more: its endpoint is removed", endpoint.far_end);
            wanted.endpoints.remove(&endpoint.id);
        }
        free_leases(&stored.state, &mut wanted);
        site.predefine(&mut wanted).await?;
        let externals = wanted.externals.values().filter(|it| it.internal(&wanted).is_none());
        let gone: BTreeSet<_> = externals.map(|it| it.external).collect();
        wanted.externals.retain(|external, _| !gone.contains(external));
        Ok(Self { stored, links, pools, wanted })
    }
}

impl Engine {
    pub(super) fn site(&self) -> Site<'_> {
        Site { config: &self.0.config, links: &self.0.host.links, pools: &self.0.pools }
    }
}

impl Site<'_> {
    /// An uplink that was named and is not there is a slip of the pen until somebody says otherwise.
    async fn check_uplinks(&self) -> Result<(), Error> {
        for uplink in &self.config.uplinks {
            match self.links.device(uplink).await.map_err(internal)? {
                None => return Err(Error::invalid(format!("--uplink {uplink}: there is no such interface"))),
                Some(device) if device.framing.is_none() => {
                    let why =
                        "neither Ethernet nor a tunnel, and netd does not know how to use such an interface";
                    return Err(Error::invalid(format!("--uplink {uplink}: {why}")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The addresses that a device bears.
    pub(super) async fn borne(&self, device: &Device) -> Result<Vec<IpNet>, Error> {
        let addresses = self.links.addresses_of(device.index).await.map_err(internal)?;
        Ok(addresses.iter().map(|it| it.net).collect())
    }

    /// A network's subnet of one family: the one that is asked for, or the next of the pools.
    ///
    /// # Errors
    /// In Docker's words.
    pub(super) async fn subnet(
        &self,
        state: &State,
        asked: Option<IpNet>,
        ipv6: bool,
        own: Option<&str>,
    ) -> Result<IpNet, Error> {
        let taken: Vec<IpNet> = taken(state).collect();
        match asked {
            Some(subnet) if taken.iter().any(|taken| ipam::overlaps(*taken, subnet)) => {
                Err(Error::forbidden(OVERLAPS))
            }
            Some(subnet) => Ok(subnet),
            None => self.next_subnet(taken, ipv6, own).await,
        }
    }

    /// The next subnet of the pools that neither a network nor the host uses. Routes through `own` do not count.
    pub(super) async fn next_subnet(
        &self,
        mut taken: Vec<IpNet>,
        ipv6: bool,
        own: Option<&str>,
    ) -> Result<IpNet, Error> {
        let own = match own {
            Some(name) => self.links.device(name).await.map_err(internal)?.map(|device| device.index),
            None => None,
        };
        let routes = self.links.routes().await.map_err(internal)?;
        // 0.0.0.0/1 and 128.0.0.0/1 are how a VPN says "default route": they take no subnet.
        let taking = |route: &&link::Route| route.destination.prefix_len() > 1 && Some(route.index) != own;
        taken.extend(routes.iter().filter(taking).map(|route| route.destination));
        // No container may seem to have the address of one of the host's resolvers.
        taken.extend(link::nameservers().into_iter().map(IpNet::from));
        Ok(self.pools.next(ipv6, &taken)?)
    }
}

fn is_alive(endpoint: &Endpoint, devices: &[Device]) -> bool {
    match &endpoint.far_end {
        FarEnd::Sandbox(sandbox) => sandbox.open().is_some(),
        FarEnd::Engine(handover) => handover.joined.is_none() || is_away(endpoint, devices),
    }
}

/// Whether the far end of a veth is in another namespace. One that an engine had taken and that is gone, or is back, was
/// left while no daemon listened.
fn is_away(endpoint: &Endpoint, devices: &[Device]) -> bool {
    let near = devices.iter().find(|device| device.name == endpoint.host_interface);
    near.is_some_and(|near| {
        let is_far_end = |device: &Device| Some(device.index) == near.peer && device.peer == Some(near.index);
        !devices.iter().any(is_far_end)
    })
}

/// Takes the leases of endpoints that are no more: their engine could not give them back.
fn free_leases(old: &State, new: &mut State) {
    for endpoint in old.endpoints.values().filter(|endpoint| !new.endpoints.contains_key(&endpoint.id)) {
        let subnets = old.networks[&endpoint.network].ipam.pools.iter().map(|pool| pool.subnet);
        let subnets: Vec<_> = subnets.collect();
        for pool in new.pools.values_mut().filter(|pool| subnets.contains(&pool.pool.subnet)) {
            pool.leases.retain(|&lease| !endpoint.has(lease));
        }
    }
}
