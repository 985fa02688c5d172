//! The networks that are always there: `bridge`, `host`, `none`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netd_common::limits;

use super::{
    bridge::as_found,
    internal, lowest_free,
    options::{BRIDGE_NAME, DEFAULT_BRIDGE, HOST_BINDING, ICC, MASQUERADE, MTU},
    random,
    site::Site,
    spec::{bearable, bridges, new_addresses},
};
use crate::{
    config::{self, DEFAULT_BRIDGE as OWN_BRIDGE},
    ipam::{self, DefaultBridge, RangeOutside, Requested},
    link::Kind,
    model::{Bridge, Driver, Error, Id, Ipam, MacAddress, Network, Pool, State, Timestamp},
};

impl Site<'_> {
    /// Brings the predefined networks in line with the configuration: what it does not say stays as it was.
    pub(super) async fn predefine(&self, state: &mut State) -> Result<(), Error> {
        for (name, driver) in [("host", Driver::Host), ("none", Driver::Null)] {
            if state.network_named(name).is_none() {
                let network = plain(name, driver)?;
                state.networks.insert(network.id, network);
            }
        }
        self.default_bridge(state).await.map_err(of_default)
    }

    async fn default_bridge(&self, state: &mut State) -> Result<(), Error> {
        let config = &self.config.bridge;
        let publish_address = self.config.publish_address;
        let before = state.network_named("bridge").cloned();
        let Some(interface) = config.interface.clone() else {
            return match before {
                Some(network) => drop_default(state, &network),
                None => Ok(()),
            };
        };
        let existing = self.links.device(&interface).await.map_err(internal)?;
        let adopted = interface != OWN_BRIDGE;
        match &existing {
            Some(device) if device.kind != Kind::Bridge => {
                return Err(Error::internal(format!("existing interface {interface} is not a bridge")));
            }
            None if adopted => {
                return Err(Error::invalid(format!(
                    "bridge device with non default name {interface} must be created manually"
                )));
            }
            _ => {}
        }
        let mut others = state.clone();
        if let Some(before) = &before {
            others.networks.remove(&before.id);
        }
        let stored = before.as_ref().and_then(|network| network.bridge.as_ref());
        let stored_mac = stored.filter(|bridge| bridge.interface == interface).map(|bridge| bridge.mac);
        let mac = match stored_mac.or(existing.as_ref().and_then(|device| device.mac)) {
            Some(mac) => mac,
            None => MacAddress::local(random()?),
        };
        let borne = match &existing {
            Some(device) => self.borne(device).await?,
            None => Vec::new(),
        };
        let mut pools = Vec::new();
        for ipv6 in [false, true] {
            if ipv6 && !config.ipv6 {
                continue;
            }
            let kept = before.as_ref().filter(|_| stored_mac.is_some());
            let kept = kept.and_then(|network| if ipv6 { network.pool6() } else { network.pool4() });
            let mut addresses: Vec<IpNet> =
                borne.iter().filter(|net| net.addr().is_ipv6() == ipv6).copied().collect();
            // What netd keeps in order says nothing new; a bridge that is the user's does, as long as it says anything.
            if let Some(kept) = kept
                && (!adopted || addresses.is_empty())
            {
                addresses = kept.bridge_address().into_iter().collect();
            }
            let wanted = wanted(config, ipv6, addresses, adopted, mac)?;
            pools.push(self.default_pool(&others, kept, wanted, ipv6, &interface).await?);
        }
        let number = match stored {
            Some(bridge) => bridge.number,
            None => lowest_free(bridges(state).map(|(_, bridge)| bridge.number), limits::NETWORKS)
                .ok_or_else(|| Error::internal("there is no room for it"))?,
        };
        let id = match &before {
            Some(network) => network.id,
            None => Id::new(random()?),
        };
        let mut bridge = Bridge {
            mtu: config.mtu,
            icc: config.icc,
            masquerade: config.masquerade,
            host_binding: publish_address,
            adopted,
            ..Bridge::new(number, interface.clone(), mac)
        };
        if let Some(device) = &existing {
            bridge = as_found(bridge, device);
        }
        if adopted {
            let given = stored.filter(|stored| stored.interface == interface).map(|stored| &*stored.given);
            bridge.given = new_addresses(&bridge, &pools, &borne, given.unwrap_or_default());
        }
        let network = Network {
            id,
            name: "bridge".into(),
            created: before.as_ref().map_or_else(Timestamp::now, |network| network.created),
            driver: Driver::Bridge,
            enable_ipv4: true,
            enable_ipv6: config.ipv6,
            internal: false,
            attachable: false,
            config_only: false,
            config_from: None,
            ipam: Ipam { driver: "default".into(), options: None, pools },
            options: BTreeMap::from(
                [
                    (DEFAULT_BRIDGE, "true".to_owned()),
                    (ICC, config.icc.to_string()),
                    (MASQUERADE, config.masquerade.to_string()),
                    (HOST_BINDING, publish_address.map_or_else(|| "0.0.0.0".to_owned(), |at| at.to_string())),
                    (BRIDGE_NAME, interface),
                    (MTU, config.mtu.to_string()),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            ),
            labels: BTreeMap::new(),
            bridge: Some(bridge),
            engine_id: None,
        };
        move_endpoints(state, &network)?;
        state.networks.insert(id, network);
        Ok(())
    }

    async fn default_pool(
        &self,
        others: &State,
        kept: Option<&Pool>,
        wanted: Requested,
        ipv6: bool,
        interface: &str,
    ) -> Result<Pool, Error> {
        let subnet = self.subnet(others, wanted.subnet, ipv6, Some(interface)).await?;
        let mut pool = pool(subnet, &wanted)?;
        // A restart changes nothing, not even what is shown.
        if let Some(kept) = kept.filter(|kept| (kept.subnet, kept.gateway) == (pool.subnet, pool.gateway)) {
            let configured =
                if ipv6 { self.config.bridge.bip6.is_some() } else { self.config.bridge.bip.is_some() };
            pool.gateway_shown = kept.gateway_shown || configured;
            pool.requested = kept.requested;
        }
        Ok(pool)
    }
}

/// What is to be asked for, by the configuration and the bridge's addresses of one family.
fn wanted(
    config: &config::DefaultBridge,
    ipv6: bool,
    addresses: Vec<IpNet>,
    users: bool,
    mac: MacAddress,
) -> Result<Requested, Error> {
    let named = |name: &str, gateway: IpAddr| (name.to_owned(), gateway);
    let default = if ipv6 {
        DefaultBridge {
            own: config.bip6.map(IpNet::from),
            range: config.fixed_cidr_v6.map(IpNet::from),
            default_gateway: config
                .default_gateway_v6
                .map(|gateway| named("DefaultGatewayIPv6", gateway.into())),
            addresses,
            users,
            link_local: Some(mac.link_local().into()),
        }
    } else {
        DefaultBridge {
            own: config.bip.map(IpNet::from),
            range: config.fixed_cidr.map(IpNet::from),
            default_gateway: config
                .default_gateway
                .map(|gateway| named("DefaultGatewayIPv4", gateway.into())),
            addresses,
            users,
            link_local: None,
        }
    };
    let outside = "is outside any subnet implied by addresses on the user-managed default bridge";
    match default.request() {
        Ok((request, Some(RangeOutside::Dropped(range)))) => {
            log::warn!("fixed-cidr={range} {outside}");
            Ok(request)
        }
        Ok((request, _)) => Ok(request),
        Err(RangeOutside::Dropped(range) | RangeOutside::Refused(range)) => {
            Err(Error::internal(format!("fixed-cidr-v6={range} {outside}")))
        }
    }
}

/// The pool that is asked for, which is to be of this subnet.
fn pool(subnet: IpNet, wanted: &Requested) -> Result<Pool, Error> {
    if let Some(range) = wanted.range.filter(|range| !subnet.contains(range)) {
        return Err(Error::invalid(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        )));
    }
    if let Some((_, gateway)) = wanted.auxiliary.iter().find(|(_, gateway)| !subnet.contains(*gateway)) {
        return Err(Error::invalid(format!(
            "invalid default gateway {gateway}: parent subnet {subnet} doesn't contain this address"
        )));
    }
    let pool = ipam::complete(subnet, wanted)?;
    pool.bridge_address().map_or(Ok(()), bearable)?;
    Ok(pool)
}

/// Whether a configuration's default network contradicts itself, whatever the host is like.
///
/// # Errors
/// As at the start.
pub fn validate(config: &config::DefaultBridge) -> Result<(), Error> {
    // A bridge of the user's says by its addresses what is right.
    if config.interface.as_deref() != Some(OWN_BRIDGE) {
        return Ok(());
    }
    for ipv6 in [false, true] {
        if ipv6 && !config.ipv6 {
            continue;
        }
        let check = || {
            let wanted = wanted(config, ipv6, Vec::new(), false, MacAddress::new([2; 6]))?;
            wanted.subnet.map(|subnet| pool(subnet, &wanted)).transpose()
        };
        check().map_err(of_default)?;
    }
    Ok(())
}

fn of_default(mut error: Error) -> Error {
    error.message.insert_str(0, "error creating default \"bridge\" network: ");
    error
}

/// A network without a bridge.
fn plain(name: &str, driver: Driver) -> Result<Network, Error> {
    Ok(Network {
        id: Id::new(random()?),
        name: name.to_owned(),
        created: Timestamp::now(),
        driver,
        enable_ipv4: true,
        enable_ipv6: false,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: None,
        ipam: Ipam { driver: "default".into(), options: None, pools: Vec::new() },
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        bridge: None,
        engine_id: None,
    })
}

fn drop_default(state: &mut State, network: &Network) -> Result<(), Error> {
    if let Some(endpoint) = state.endpoints_of(network.id).next() {
        return Err(Error::forbidden(format!(
            "it cannot be left out while {} is connected to it; \
             disconnect that first, with the configuration as it was",
            endpoint.far_end
        )));
    }
    state.networks.remove(&network.id);
    Ok(())
}

/// Keeps the endpoints of the default network where they are, with its new gateway, prefix length and MTU.
fn move_endpoints(state: &mut State, network: &Network) -> Result<(), Error> {
    let present: Vec<_> = state.endpoints_of(network.id).cloned().collect();
    for mut endpoint in present {
        let misplaced = |address: IpAddr, pool: Option<&Pool>| {
            pool.is_none_or(|pool| ipam::claim(pool, &Default::default(), address).is_err())
        };
        let refuse = |address: IpAddr| {
            Error::forbidden(format!(
                "{} is connected with the address {address}, which the configured subnet has no place for; \
                 disconnect it first, with the configuration as it was",
                endpoint.far_end
            ))
        };
        if let Some(net) = endpoint.ipv4 {
            let address = net.addr();
            if misplaced(address.into(), network.pool4()) {
                return Err(refuse(address.into()));
            }
            let prefix_len = network.pool4().map_or(32, |pool| pool.subnet.prefix_len());
            endpoint.ipv4 = ipnet::Ipv4Net::new(address, prefix_len).ok();
            endpoint.gateway4 = network.pool4().and_then(Pool::way_out).and_then(|way| match way {
                IpAddr::V4(way) => Some(way),
                IpAddr::V6(_) => None,
            });
        }
        if let Some(net) = endpoint.ipv6 {
            let address = net.addr();
            if network.enable_ipv6 && misplaced(address.into(), network.pool6()) {
                return Err(refuse(address.into()));
            }
            let pool = network.pool6();
            if pool.is_none() {
                log::warn!(
                    "{} loses the address {address} until it is connected anew: the default network is without IPv6",
                    endpoint.far_end
                );
            }
            endpoint.ipv6 = pool.and_then(|pool| ipnet::Ipv6Net::new(address, pool.subnet.prefix_len()).ok());
            endpoint.gateway6 = pool.and_then(Pool::way_out).and_then(|way| match way {
                IpAddr::V6(way) => Some(way),
                IpAddr::V4(_) => None,
            });
        }
        endpoint.mtu = network.bridge.as_ref().map_or(endpoint.mtu, |bridge| bridge.mtu);
        state.endpoints.insert(endpoint);
    }
    Ok(())
}
