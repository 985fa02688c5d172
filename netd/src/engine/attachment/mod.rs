//! What engines' plugins ask: interfaces of containers on networks that may be yet to be made.

mod address;
mod fault;

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use self::{
    address::{address_towards, addresses, pools, range, routes},
    fault::fault,
};
use super::{
    Engine, Writer,
    attach::Joining,
    endpoint::IFNAME,
    internal,
    options::{self, BRIDGE_NAME},
    random,
    spec::taken,
};
use crate::{
    ipam,
    model::{
        Endpoint, Error, Id, Network, Pool, Reserver, Route, State,
        attachment::{Address, Attach, Attachment, Key, Link, Prune, Pruned},
        request,
    },
    plan::{self, Touched},
    store::Change,
};

impl Engine {
    /// Makes an attachment, and its network if there is none of that name.
    ///
    /// # Errors
    /// In the words of CNI's reference plugins where they have them; nothing has changed then.
    pub async fn add_attachment(&self, request: Attach) -> Result<Attachment, Error> {
        self.act(move |engine, mut writer| async move { engine.plug(&mut writer, request).await }).await
    }

    /// Ends an attachment, if it is there.
    ///
    /// # Errors
    /// If the host refuses; nothing has changed then.
    pub async fn remove_attachment(&self, network: &str, key: Key) -> Result<(), Error> {
        let network = network.to_owned();
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let Some(network) = state.network_named(&network) else { return Ok(()) };
            match state.find_attachment(network.id, &key.container, &key.interface) {
                Some(endpoint) => engine.drop_endpoint(&mut writer, network, endpoint).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Ends the attachments of a network that are not to stay. One that fails does not keep the others from going.
    ///
    /// # Errors
    /// None of its own; what went wrong is in the answer.
    pub async fn prune_attachments(&self, network: &str, request: Prune) -> Result<Pruned, Error> {
        let network = network.to_owned();
        self.act(move |engine, mut writer| async move {
            let mut pruned = Pruned::default();
            let state = engine.state();
            let Some(network) = state.network_named(&network) else { return Ok(pruned) };
            let valid: BTreeSet<_> = request.valid.into_iter().collect();
            for endpoint in state.endpoints_of(network.id) {
                let Some(container) = endpoint.container.clone() else { continue };
                let key = Key { container, interface: endpoint.interface.clone() };
                if valid.contains(&key) {
                    continue;
                }
                match engine.drop_endpoint(&mut writer, network, endpoint).await {
                    Ok(()) => pruned.removed.push(key),
                    Err(error) => pruned.failures.push(format!("{}: {error}", endpoint.name)),
                }
            }
            Ok(pruned)
        })
        .await
    }

    /// An attachment, if the host has it as it was made.
    ///
    /// # Errors
    /// If there is no such attachment, or the host has changed; then with what would have to be done about it.
    pub async fn check_attachment(&self, network: &str, key: Key) -> Result<Attachment, Error> {
        let network = network.to_owned();
        self.act(move |engine, _writer| async move {
            let state = engine.state();
            let missing = || {
                let Key { container, interface } = &key;
                Error::not_found(format!(
                    "{interface} of container {container} is not attached to network {network}"
                ))
            };
            let network = state.network_named(&network).ok_or_else(missing)?;
            let found = state.find_attachment(network.id, &key.container, &key.interface);
            let endpoint = found.ok_or_else(missing)?;
            let touched = Touched { networks: [network.id].into(), endpoints: [endpoint.id].into() };
            let wanted = plan::desired(&state, &touched);
            let seen = engine.0.host.observe_whole(&wanted).await.map_err(internal)?;
            let faults: Vec<_> = plan::steps(&seen, &wanted).iter().map(fault).collect();
            if !faults.is_empty() {
                return Err(Error::conflict(format!(
                    "{} is not as it was made: {}",
                    endpoint.name,
                    faults.join("; ")
                )));
            }
            engine.attachment(network, endpoint).await
        })
        .await
    }

    async fn plug(&self, writer: &mut Writer, request: Attach) -> Result<Attachment, Error> {
        let sandbox = self.open(&request.sandbox).await?;
        let known = self.state().network_named(&request.network.name).map(|network| network.id);
        let network = match known {
            Some(network) => network,
            None => self.make(writer, &request).await?,
        };
        let attached = async {
            self.forget_ghosts(writer, &sandbox).await?;
            self.fit(writer, network, &request).await?;
            let state = self.state();
            let network = &state.networks[&network];
            refuse_again(&state, network, &request)?;
            let (ipv4, ipv6) = addresses(&state, network, &request)?;
            let mut config = request.endpoint_config.clone();
            if network.is_predefined() {
                // It has no names of its own.
                config.aliases.clear();
            }
            config.driver_opts.insert(IFNAME.to_owned(), request.interface.clone());
            let key = Key { container: request.container.clone(), interface: request.interface.clone() };
            let name = key.to_string();
            let container = Some(request.container.clone());
            let joining = Joining { sandbox, name, container, ipv4, ipv6, config };
            let mut specs = Self::specs(&joining.config.driver_opts)?;
            // A runtime names a container's ports at each of its networks, those among them that nobody outside reaches.
            if network.internal {
                specs.clear();
            }
            let mut endpoint = self.complete(&state, network, joining).await?;
            // As with the plugins that its runtime knows, which keep no port from anybody.
            let reserver = Reserver::Runtime;
            endpoint.publications = self.resolve(writer, &state, network, &endpoint, specs, reserver).await?;
            if let Some(said) = &request.default_routes {
                for route in said {
                    address_towards(*route, &endpoint)?;
                }
                let leads = |ipv6: bool| said.iter().any(|route| route.addr().is_ipv6() == ipv6);
                endpoint.gateway4 = endpoint.gateway4.filter(|_| leads(false));
                endpoint.gateway6 = endpoint.gateway6.filter(|_| leads(true));
            }
            endpoint.routes = routes(network, &request.routes, &endpoint)?;
            let endpoint = self.take_in(writer, network, endpoint).await?;
            self.attachment(network, &endpoint).await
        };
        let attached = attached.await;
        if attached.is_err() && known.is_none() {
            self.remove(writer, &network.to_string(), false).await?;
        }
        attached
    }

    /// Makes the network of a request.
    async fn make(&self, writer: &mut Writer, request: &Attach) -> Result<Id, Error> {
        let state = self.state();
        let pools = pools(request)?;
        refuse_taken(&state, &pools)?;
        let mut network = request.network.clone();
        if !pools.is_empty() {
            let has = |ipv6: bool| pools.iter().any(|pool| pool.subnet.addr().is_ipv6() == ipv6);
            (network.enable_ipv4, network.enable_ipv6) = (Some(has(false)), Some(has(true)));
            let first = |ipv6: bool| pools.iter().find(move |pool| pool.subnet.addr().is_ipv6() == ipv6);
            let config = [first(false), first(true)]
                .into_iter()
                .flatten()
                .map(|pool| request::PoolRequest { subnet: pool.subnet.to_string(), ..Default::default() });
            network.ipam = Some(request::IpamRequest { config: config.collect(), ..Default::default() });
        }
        let mut network = self.specify(&state, network, Id::new(random()?)).await?;
        if !pools.is_empty() {
            network.ipam.pools = pools;
        }
        if !request.ipam.is_empty() {
            network.ipam.driver.clone_from(&request.ipam);
        }
        self.add_network(writer, &network).await?;
        Ok(network.id)
    }

    /// Refuses a request that says of its network what is not so. What another IPAM has come to give addresses of is
    /// added.
    async fn fit(&self, writer: &mut Writer, network: Id, request: &Attach) -> Result<(), Error> {
        let state = self.state();
        let network = &state.networks[&network];
        let differs = |what: &str, is: &dyn std::fmt::Display, said: &dyn std::fmt::Display| {
            let name = &network.name;
            Err(Error::invalid(format!(
                "network {name} is there already, and its {what} is {is}, not {said} as the configuration has it; \
                 `netd network rm {name}` removes it when nobody is attached"
            )))
        };
        let Some(bridge) = &network.bridge else { return Ok(()) };
        let mut options = network.options.clone();
        // The daemon's own settings are not all among the options of `bridge`.
        let read = |options: &_| options::read(options, network.internal, bridge.clone());
        let known = read(&options)?;
        for (name, said) in &request.network.options {
            let is = options.insert(name.clone(), said.clone());
            let same = match name.as_str() {
                BRIDGE_NAME => bridge.interface == *said,
                _ => read(&options)? == known,
            };
            if !same {
                return differs(&format!("option {name}"), &is.as_deref().unwrap_or("not given"), said);
            }
        }
        if request.network.internal && !network.internal {
            return differs("internal", &false, &true);
        }
        let driver = if request.ipam.is_empty() { ipam::DEFAULT } else { &request.ipam };
        if network.ipam.driver != driver {
            return differs("IPAM", &network.ipam.driver, &driver);
        }
        let mut more = Vec::new();
        for wanted in pools(request)? {
            let Some(pool) = network.ipam.pools.iter().find(|pool| pool.subnet == wanted.subnet) else {
                if request.ipam.is_empty() {
                    let is: Vec<_> = network.ipam.pools.iter().map(|pool| pool.subnet.to_string()).collect();
                    return differs("subnet", &is.join(", "), &wanted.subnet);
                }
                more.push(wanted);
                continue;
            };
            if wanted.gateway_shown && wanted.gateway != pool.gateway {
                let text = |gateway: Option<IpAddr>| {
                    gateway.map_or("none".to_owned(), |gateway| gateway.to_string())
                };
                return differs("gateway", &text(pool.gateway), &text(wanted.gateway));
            }
            if request.ipam.is_empty() && ipam::bounds(pool) != ipam::bounds(&wanted) {
                return differs("range", &range(pool), &range(&wanted));
            }
        }
        if more.is_empty() {
            return Ok(());
        }
        refuse_taken(&state, &more)?;
        let mut network = network.clone();
        network.enable_ipv4 |= more.iter().any(|pool| pool.subnet.addr().is_ipv4());
        network.enable_ipv6 |= more.iter().any(|pool| pool.subnet.addr().is_ipv6());
        network.ipam.pools.extend(more);
        let changes = vec![Change::PutNetwork(network.clone())];
        self.change(writer, changes, Touched::network(network.id)).await?;
        self.forward(writer, &network).await
    }

    /// What there is to tell of an attachment.
    async fn attachment(&self, network: &Network, endpoint: &Endpoint) -> Result<Attachment, Error> {
        let near = self.0.host.links.device(&endpoint.host_interface).await.map_err(internal)?;
        let addresses = endpoint.nets();
        let gateway = |address: IpNet| {
            let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address.addr()))?;
            pool.way_out()
        };
        let defaults = [endpoint.gateway4.map(IpAddr::from), endpoint.gateway6.map(IpAddr::from)];
        Ok(Attachment {
            container: endpoint.container.clone().unwrap_or_default(),
            sandbox: endpoint
                .far_end
                .sandbox()
                .map(|sandbox| sandbox.path.display().to_string())
                .unwrap_or_default(),
            bridge: network.bridge.as_ref().map_or(
                Link { name: String::new(), mac: None, mtu: endpoint.mtu },
                |bridge| Link { name: bridge.interface.clone(), mac: Some(bridge.mac), mtu: bridge.mtu },
            ),
            host: Link {
                name: endpoint.host_interface.clone(),
                mac: near.and_then(|device| device.mac),
                mtu: endpoint.mtu,
            },
            interface: Link { name: endpoint.interface.clone(), mac: Some(endpoint.mac), mtu: endpoint.mtu },
            addresses: addresses.map(|address| Address { address, gateway: gateway(address) }).collect(),
            routes: defaults
                .into_iter()
                .flatten()
                .map(Route::default_via)
                .chain(endpoint.routes.iter().copied())
                .collect(),
            servers: Vec::new(),
        })
    }
}

/// No network can be where another one is, nor what the outside knows containers by.
fn refuse_taken(state: &State, pools: &[Pool]) -> Result<(), Error> {
    for pool in pools {
        if let Some(taken) = taken(state).find(|&taken| ipam::overlaps(taken, pool.subnet)) {
            return Err(Error::forbidden(format!(
                "the subnet {} overlaps with {taken}, which is in use",
                pool.subnet
            )));
        }
    }
    Ok(())
}

/// A container has each interface once, and each address has one owner.
fn refuse_again(state: &State, network: &Network, request: &Attach) -> Result<(), Error> {
    let Some(other) = state.find_attachment(network.id, &request.container, &request.interface) else {
        return Ok(());
    };
    let address = other.ipv4.map(IpNet::from).or(other.ipv6.map(IpNet::from));
    let address = address.map_or_else(|| other.interface.clone(), |net| net.addr().to_string());
    Err(Error::forbidden(format!(
        "failed to allocate for range 0: {address} has been allocated to {}, duplicate allocation is not allowed",
        request.container
    )))
}
