//! Networks and endpoints of a container engine: the engine knows them by ids of its own, chooses the addresses, and
//! furnishes the far ends; the host's side of each is netd's.
//!
//! The engine repeats a call whose answer it did not get, and forgets what it could not tell netd of. So what is there
//! already is as good as made, and a network goes with whatever is left in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use super::{Action, Engine, Writer, bridge, choice, options, random, rate};
use crate::{
    ipam,
    link::Namespace,
    model::{
        Endpoint, EndpointOrder, Error, FarEnd, Handover, Id, Ipam, Network, NetworkOrder, Pool, PoolOrder,
        Reserver, State, Timestamp, request,
    },
    plan::Touched,
    store::Change,
};

impl Engine {
    /// Makes a network for a container engine.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn order_network(&self, order: NetworkOrder) -> Result<(), Error> {
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            if let Ok(network) = state.network_of_engine(&order.id) {
                return same_network(network, &order);
            }
            let network = engine.ordered(&state, &order).await?;
            engine.add_network(&mut writer, &network).await.map(drop)
        })
        .await
    }

    /// Removes a container engine's network, with whatever of the engine's is still in it.
    ///
    /// # Errors
    /// If there is no such network, or the host refuses.
    pub async fn return_network(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&id)?;
            for endpoint in state.endpoints_of(network.id) {
                log::warn!("network {} goes with {} still in it", network.name, endpoint.far_end);
                engine.drop_endpoint(&mut writer, network, endpoint).await?;
            }
            engine.drop_network(&mut writer, network).await
        })
        .await
    }

    /// Makes an endpoint for a container engine: a veth whose far end waits in the host's namespace.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn order_endpoint(&self, order: EndpointOrder) -> Result<Endpoint, Error> {
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&order.network)?;
            if let Ok(endpoint) = state.endpoint_of_engine(network.id, &order.id) {
                return same_endpoint(endpoint, &order);
            }
            let endpoint = hand_over(&state, network, order)?;
            engine.put_endpoint(&mut writer, &endpoint).await?;
            engine.tell(Action::Connect, network, Some(endpoint.far_end.to_string()));
            Ok(endpoint)
        })
        .await
    }

    /// Removes a container engine's endpoint, whether its veth is still there or not.
    ///
    /// # Errors
    /// If there is no such endpoint, or the host refuses.
    pub async fn return_endpoint(&self, network: &str, id: &str) -> Result<(), Error> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&network)?;
            let endpoint = state.endpoint_of_engine(network.id, &id)?;
            engine.drop_endpoint(&mut writer, network, endpoint).await
        })
        .await
    }

    /// Gets an endpoint ready for the engine to take its far end to `sandbox`.
    ///
    /// # Errors
    /// If there is no such endpoint, it is elsewhere already, or the host refuses.
    pub async fn join(&self, network: &str, id: &str, sandbox: PathBuf) -> Result<Endpoint, Error> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&network)?;
            let endpoint = state.endpoint_of_engine(network.id, &id)?;
            if let Ok(namespace) = Namespace::open(&sandbox)
                && namespace.inode() == engine.0.own_netns
            {
                return Err(Error::forbidden(format!(
                    "{} is the host's network namespace, which needs no endpoint",
                    sandbox.display()
                )));
            }
            match endpoint.far_end.handover().and_then(|handover| handover.joined.as_ref()) {
                Some(joined) if *joined == sandbox => Ok(endpoint.clone()),
                Some(joined) => {
                    Err(Error::forbidden(format!("endpoint {id} has joined {} already", joined.display())))
                }
                None => {
                    engine.0.announcer.expect(endpoint.id);
                    engine.place(&mut writer, endpoint, Some(sandbox)).await
                }
            }
        })
        .await
    }

    /// Gets an endpoint ready for the engine to bring its far end back, if it is still there.
    ///
    /// # Errors
    /// If there is no such endpoint, or the host refuses.
    pub async fn leave(&self, network: &str, id: &str) -> Result<(), Error> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&network)?;
            let endpoint = state.endpoint_of_engine(network.id, &id)?;
            if engine.has_veth(endpoint).await? {
                match engine.place(&mut writer, endpoint, None).await {
                    Err(error) if engine.has_veth(endpoint).await? => return Err(error),
                    Err(_) => {}
                    Ok(_) => return Ok(()),
                }
            }
            // It went with the container: there is nothing on the host to get ready, but the container's other endpoints are without it.
            let mut others = engine.beside(endpoint);
            others.remove(&endpoint.id);
            let left = Change::PutEndpoint(placed(endpoint, None));
            engine.change(&mut writer, vec![left], Touched { endpoints: others, ..Touched::default() }).await
        })
        .await
    }

    /// Publishes the ports that an engine's endpoint options ask for, in the place of those that are published.
    ///
    /// # Errors
    /// In Docker's words; then none is published.
    pub async fn publish_for_engine(
        &self,
        network: &str,
        id: &str,
        options: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.act(move |engine, mut writer| async move {
            let specs = Self::specs(&options)?;
            let state = engine.state();
            let network = state.network_of_engine(&network)?;
            let bare = engine.unpublish_all(&mut writer, state.endpoint_of_engine(network.id, &id)?).await?;
            let publications =
                engine.resolve(&mut writer, &engine.state(), network, &bare, specs, Reserver::Netd).await?;
            if publications.is_empty() {
                return Ok(());
            }
            engine.put_endpoint(&mut writer, &Endpoint { publications, ..bare }).await
        })
        .await
    }

    /// Ends the publication of an engine's endpoint's ports, whoever published them.
    ///
    /// # Errors
    /// If there is no such endpoint, or the host refuses.
    pub async fn unpublish_for_engine(&self, network: &str, id: &str) -> Result<(), Error> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let network = state.network_of_engine(&network)?;
            engine.unpublish_all(&mut writer, state.endpoint_of_engine(network.id, &id)?).await.map(drop)
        })
        .await
    }

    async fn unpublish_all(&self, writer: &mut Writer, endpoint: &Endpoint) -> Result<Endpoint, Error> {
        let bare = Endpoint { publications: Vec::new(), ..endpoint.clone() };
        // One whose veth went with its container is there no more for the datapath either, and is soon returned.
        if bare != *endpoint && self.has_veth(endpoint).await? {
            self.put_endpoint(writer, &bare).await?;
        }
        Ok(bare)
    }

    /// Notes where the far end of an engine's endpoint is.
    async fn place(
        &self,
        writer: &mut Writer,
        endpoint: &Endpoint,
        joined: Option<PathBuf>,
    ) -> Result<Endpoint, Error> {
        let placed = placed(endpoint, joined);
        if placed != *endpoint {
            self.put_endpoint(writer, &placed).await?;
        }
        Ok(placed)
    }

    /// The network that an engine asks for, complete and valid.
    async fn ordered(&self, state: &State, order: &NetworkOrder) -> Result<Network, Error> {
        // What the engine has leased for this very network is not in its way.
        let mut others = state.clone();
        let is_for_it = |subnet| order.pools.iter().any(|pool| pool.leased && pool.subnet == subnet);
        others.pools.retain(|_, leased| !is_for_it(leased.pool.subnet));

        let request = request::NetworkCreate {
            name: name(state, &order.id),
            enable_ipv4: Some(order.ipv4),
            enable_ipv6: Some(order.ipv6),
            ipam: Some(request::IpamRequest {
                driver: if order.pools.is_empty() { Ipam::NULL.to_owned() } else { String::new() },
                config: order.pools.iter().map(pool_request).collect(),
                ..Default::default()
            }),
            internal: order.internal,
            options: order.options.clone(),
            ..Default::default()
        };
        let id = match order.id.parse() {
            Ok(id) if !state.networks.contains_key(&id) => id,
            _ => Id::new(random()?),
        };
        let mut network = self.specify(&others, request, id).await?;
        // The engine says whether there is a gateway: netd has none to give.
        for pool in &mut network.ipam.pools {
            let ordered = order.pools.iter().find(|ordered| ordered.subnet == pool.subnet);
            pool.gateway = ordered.and_then(|ordered| ordered.gateway);
            pool.gateway_shown = pool.gateway.is_some();
        }
        if order.pools.iter().any(|pool| pool.leased) {
            network.ipam.driver = "netd".into();
        }
        network.engine_id = Some(order.id.clone());
        Ok(network)
    }
}

/// An engine's endpoint whose far end is there.
fn placed(endpoint: &Endpoint, joined: Option<PathBuf>) -> Endpoint {
    let mut placed = endpoint.clone();
    if let FarEnd::Engine(handover) = &mut placed.far_end {
        handover.joined = joined;
    }
    placed
}

/// The name of an engine's network: the start of the engine's id, for the engine does not tell its name.
fn name(state: &State, id: &str) -> String {
    let name = format!("docker-{}", short(id));
    if state.network_named(&name).is_none() { name } else { format!("docker-{id}") }
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn pool_request(pool: &PoolOrder) -> request::PoolRequest {
    request::PoolRequest {
        subnet: pool.subnet.to_string(),
        ip_range: String::new(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: pool
            .auxiliary
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    }
}

/// Whether an order that comes for the second time is the same one.
fn same_network(network: &Network, order: &NetworkOrder) -> Result<(), Error> {
    let has: BTreeSet<_> = network.ipam.pools.iter().map(|pool| (pool.subnet, pool.gateway)).collect();
    let wanted = order.pools.iter().map(|pool| (pool.subnet, pool.gateway)).collect();
    let families = (network.enable_ipv4, network.enable_ipv6) == (order.ipv4, order.ipv6);
    if has == wanted && families && network.internal == order.internal {
        Ok(())
    } else {
        Err(Error::conflict(format!("network {} already exists, and is another one", order.id)))
    }
}

fn same_endpoint(endpoint: &Endpoint, order: &EndpointOrder) -> Result<Endpoint, Error> {
    let is_same = (endpoint.ipv4, endpoint.ipv6) == (order.ipv4, order.ipv6)
        && order.mac.is_none_or(|mac| mac == endpoint.mac);
    if is_same {
        Ok(endpoint.clone())
    } else {
        Err(Error::conflict(format!("endpoint {} already exists, and is another one", order.id)))
    }
}

/// The endpoint that an engine asks for, complete and valid.
fn hand_over(state: &State, network: &Network, order: EndpointOrder) -> Result<Endpoint, Error> {
    let bridge = network.bridge.as_ref();
    let bridge = bridge.ok_or_else(|| Error::internal(format!("network {} has no bridge", network.name)))?;
    if let Some(name) = &order.name {
        options::interface_name(name)?;
    }
    let mac = order.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let mac = choice::mac(state, network, bridge, &mac)?;
    let ipv4 = order.ipv4.map(|net| (net.addr().into(), net.prefix_len()));
    let ipv6 = order.ipv6.map(|net| (net.addr().into(), net.prefix_len()));
    check_address(state, network, network.pool4(), ipv4)?;
    check_address(state, network, network.pool6(), ipv6)?;
    let way_out = |pool: Option<&Pool>| pool.filter(|_| !network.internal)?.way_out();
    let slot = choice::slot(state)?;
    let host_interface = choice::host_interface(state)?;
    options::only_endpoints(&order.options)?;
    if order.options.contains_key(request::PUBLISH) {
        return Err(Error::invalid(format!(
            "option {} is not for an engine, which publishes by itself",
            request::PUBLISH
        )));
    }
    let port = bridge::read_port(&order.options, bridge)?;
    let is_named = |name: &String| state.endpoints_of(network.id).any(|other| other.name == *name);
    Ok(Endpoint {
        id: match order.id.parse() {
            Ok(id) if !state.endpoints.contains_key(&id) => id,
            _ => Id::new(random()?),
        },
        network: network.id,
        name: Some(short(&order.id)).filter(|name| !is_named(name)).unwrap_or_else(|| order.id.clone()),
        container: None,
        far_end: FarEnd::Engine(Handover { id: order.id, joined: None, name: order.name }),
        slot,
        mac,
        ipv4: order.ipv4,
        ipv6: order.ipv6,
        interface: host_interface.replacen("veth", "peer", 1),
        host_interface,
        gateway4: match way_out(network.pool4()) {
            Some(IpAddr::V4(way)) => Some(way),
            _ => None,
        },
        gateway6: match way_out(network.pool6()) {
            Some(IpAddr::V6(way)) => Some(way),
            _ => None,
        },
        routes: Vec::new(),
        gateway_priority: 0,
        mtu: bridge.mtu,
        // The engine furnishes the interface; its names and settings are the engine's.
        link_local: Vec::new(),
        aliases: Vec::new(),
        sysctls: Vec::new(),
        segment: choice::segment(state, network, bridge, &port)?,
        port,
        rates: rate::read(&order.options)?,
        publications: Vec::new(),
        created: Timestamp::now(),
    })
}

/// Whether an endpoint of the network can have this address, which the engine says it has.
fn check_address(
    state: &State,
    network: &Network,
    pool: Option<&Pool>,
    address: Option<(IpAddr, u8)>,
) -> Result<(), Error> {
    let Some((address, prefix_len)) = address else { return Ok(()) };
    let Some(pool) = pool.filter(|pool| pool.subnet.prefix_len() == prefix_len) else {
        return Err(Error::invalid(format!(
            "invalid address {address}/{prefix_len}: network {} has no subnet of that size",
            network.name
        )));
    };
    let used: BTreeSet<IpAddr> = choice::addresses_in_use(state, network.id).collect();
    ipam::claim(pool, &used, address).map_err(|error| match error {
        ipam::Error::OutOfRange => {
            Error::invalid(format!("invalid address {address}: {} does not contain it", pool.subnet))
        }
        other => Error { message: format!("{address}: {other}"), ..other.into() },
    })
}
