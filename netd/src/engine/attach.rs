//! Sandboxes that join networks, and leave them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Action, Engine, Writer, choice, endpoint::Asked, internal, lock, random};
use crate::{
    ipam,
    link::Namespace,
    model::{
        Bridge, Driver, Endpoint, Error, FarEnd, Id, Network, Reserver, Sandbox, State, Timestamp, request,
    },
    plan::Touched,
    store::Change,
};

/// One who joins a network.
pub(super) struct Joining {
    pub(super) sandbox: Sandbox,
    /// What the endpoint is to be called.
    pub(super) name: String,
    /// See [`Endpoint::container`].
    pub(super) container: Option<String>,
    pub(super) ipv4: Option<IpNet>,
    pub(super) ipv6: Option<IpNet>,
    /// What else the endpoint is to be like.
    pub(super) config: request::EndpointConfig,
}

impl Engine {
    pub(super) async fn attach(
        &self,
        writer: &mut Writer,
        network: &str,
        request: request::NetworkConnect,
    ) -> Result<Endpoint, Error> {
        let sandbox = self.open(&request.container).await?;
        let network = self.state().find_network(network)?.id;
        self.forget_ghosts(writer, &sandbox).await?;
        loop {
            let joined = self.connect_once(writer, network, sandbox.clone(), request.clone()).await;
            // It may be for want of an address or a port of somebody who is no more.
            if joined.is_ok() || !self.forget_departed(writer).await? {
                return joined;
            }
        }
    }

    async fn connect_once(
        &self,
        writer: &mut Writer,
        network: Id,
        sandbox: Sandbox,
        request: request::NetworkConnect,
    ) -> Result<Endpoint, Error> {
        let state = self.state();
        let network = &state.networks[&network];
        let options = request.endpoint_config.as_ref().map(|config| &config.driver_opts);
        let specs = options.map(Self::specs).transpose()?.unwrap_or_default();
        let mut endpoint = self.endpoint(&state, network, sandbox, request).await?;
        endpoint.publications =
            self.resolve(writer, &state, network, &endpoint, specs, Reserver::Netd).await?;
        self.take_in(writer, network, endpoint).await
    }

    /// Brings about a new endpoint.
    pub(super) async fn take_in(
        &self,
        writer: &mut Writer,
        network: &Network,
        endpoint: Endpoint,
    ) -> Result<Endpoint, Error> {
        let far_end = endpoint.far_end.clone();
        let mut changes = vec![Change::PutEndpoint(endpoint.clone())];
        changes.extend(in_turn(network, &endpoint).map(Change::PutNetwork));
        let touched = Touched { networks: [network.id].into(), endpoints: self.beside(&endpoint) };
        self.change(writer, changes, touched).await?;
        if let (Some(_), Some(bridge)) = (endpoint.far_end.sandbox(), &network.bridge) {
            self.0.announcer.clone().announce(&self.0.host, &endpoint, bridge.advertise).await;
        }
        self.tell(Action::Connect, network, Some(far_end.to_string()));
        Ok(endpoint)
    }

    pub(super) async fn detach(
        &self,
        writer: &mut Writer,
        network: &str,
        request: &request::NetworkDisconnect,
    ) -> Result<(), Error> {
        let state = self.state();
        let network = state.find_network(network);
        let container = &request.container;
        let endpoint = network.as_ref().ok().and_then(|network| state.find_endpoint(network.id, container));
        let sandbox = match endpoint {
            Some(_) => None,
            None => match self.open(container).await {
                Err(error) if !request.force => return Err(error),
                opened => opened.ok(),
            },
        };
        let network = network?;
        // It may have joined by another of its names.
        let by_sandbox =
            || state.endpoints.in_sandbox(sandbox.as_ref()?).find(|other| other.network == network.id);
        let Some(endpoint) = endpoint.or_else(by_sandbox) else {
            return Err(if request.force {
                Error::not_found(format!("endpoint {container} not found"))
            } else {
                let name = &network.name;
                Error::internal(format!("container {container} is not connected to network {name}"))
            });
        };
        if endpoint.far_end.handover().is_some() && !request.force {
            return Err(Error::forbidden(format!(
                "{container} was connected by a container engine, which is the one to disconnect it; if the engine has \
                 forgotten it, force it"
            )));
        }
        self.drop_endpoint(writer, network, endpoint).await
    }

    pub(super) async fn drop_endpoint(
        &self,
        writer: &mut Writer,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let far_end = &endpoint.far_end;
        let alive = is_there(far_end);
        // With the namespace gone there is no default route to move to another endpoint.
        let touched = Touched {
            endpoints: if alive { self.beside(endpoint) } else { [endpoint.id].into() },
            ..Touched::default()
        };
        let state = self.state();
        let before = state.departed.get(&network.id).copied().unwrap_or_default();
        let departed = before + self.total_of(endpoint).await;
        let gone = || -> Vec<Change> {
            let externals = state.externals_of(endpoint.id).map(|it| Change::RemoveExternal(it.external));
            let endpoint = [Change::RemoveEndpoint(endpoint.id), Change::Depart(network.id, departed)];
            externals.chain(endpoint).collect()
        };
        if let Err(error) = self.change(writer, gone(), touched.clone()).await {
            // A namespace that ends takes the veth along, and may have done so under our hands: then there is less to do.
            if self.has_veth(endpoint).await? {
                return Err(error);
            }
            self.change(writer, gone(), touched).await?;
        }
        lock(&self.0.left).remove(&endpoint.host_interface);
        self.0.announcer.forget(endpoint.id);
        self.tell(Action::Disconnect, network, Some(far_end.to_string()));
        Ok(())
    }

    /// Brings about what an endpoint has come to be like.
    pub(super) async fn put_endpoint(&self, writer: &mut Writer, endpoint: &Endpoint) -> Result<(), Error> {
        // Another endpoint of the sandbox may have the same ports.
        let touched = Touched { endpoints: self.beside(endpoint), ..Touched::default() };
        self.change(writer, vec![Change::PutEndpoint(endpoint.clone())], touched).await
    }

    /// An endpoint and the others of its sandbox: which of them carries its default route may change with this one, and what they have in
    /// common.
    pub(super) fn beside(&self, endpoint: &Endpoint) -> BTreeSet<Id> {
        let state = self.state();
        let sandbox = endpoint.far_end.sandbox();
        let others = sandbox.into_iter().flat_map(|sandbox| state.endpoints.in_sandbox(sandbox));
        // Where an engine has taken it to, or has had it.
        let known = state.endpoints.get(&endpoint.id).map(|known| &**known);
        let far_ends = [Some(endpoint), known].into_iter().flatten().map(|endpoint| &endpoint.far_end);
        let taken = far_ends.filter_map(FarEnd::path).flat_map(|path| state.endpoints.taken_to(path));
        others.chain(taken).map(|other| other.id).chain([endpoint.id]).collect()
    }

    /// Whether the host's end of an endpoint's veth is there.
    pub(super) async fn has_veth(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let device = self.0.host.links.device(&endpoint.host_interface).await.map_err(internal)?;
        Ok(device.is_some())
    }

    /// Removes what namespaces that are no more left in any network, if they had this one's name. Or its inode, which the kernel
    /// soon gives to another one: then it shows by their interfaces, which went with them.
    pub(super) async fn forget_ghosts(&self, writer: &mut Writer, sandbox: &Sandbox) -> Result<(), Error> {
        let state = self.state();
        let mistakable = state.endpoints.at_path(&sandbox.path).chain(state.endpoints.in_sandbox(sandbox));
        let mistakable: BTreeMap<_, _> = mistakable.map(|endpoint| (endpoint.id, endpoint)).collect();
        for ghost in mistakable.into_values() {
            if is_there(&ghost.far_end) && self.has_veth(ghost).await? {
                continue;
            }
            log::warn!(
                "what joined as {} is no more, or has no interface: its endpoint is removed",
                ghost.far_end
            );
            self.drop_endpoint(writer, &state.networks[&ghost.network], ghost).await?;
        }
        Ok(())
    }

    /// Removes what namespaces that are no more left in any network, and returns whether there was anything. What a runtime has attached
    /// stays until the runtime takes it off.
    pub(super) async fn forget_departed(&self, writer: &mut Writer) -> Result<bool, Error> {
        let state = self.state();
        let has_departed =
            |endpoint: &&Endpoint| endpoint.container.is_none() && !is_there(&endpoint.far_end);
        let departed: Vec<&Endpoint> =
            state.endpoints.values().map(|endpoint| &**endpoint).filter(has_departed).collect();
        for endpoint in &departed {
            log::warn!("{} is no more: its endpoint is removed", endpoint.far_end);
            self.drop_endpoint(writer, &state.networks[&endpoint.network], endpoint).await?;
        }
        Ok(!departed.is_empty())
    }

    /// Whether an endpoint could not be changed because its namespace is no more. All of it is removed then, and with it what was to be
    /// taken from it.
    pub(super) async fn has_departed(&self, writer: &mut Writer, endpoint: Id) -> Result<bool, Error> {
        Ok(self.forget_departed(writer).await? && self.state().endpoints.get(&endpoint).is_none())
    }

    /// The namespace that a request names, with its inode.
    pub(super) async fn open(&self, container: &str) -> Result<Sandbox, Error> {
        let mut sandbox = self.state().find_sandbox(container)?;
        let path = sandbox.path.clone();
        let opened = tokio::task::spawn_blocking(move || Namespace::open(&path)).await.map_err(internal)?;
        let namespace = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::not_found(format!("No such container: {container}")),
            io::ErrorKind::InvalidInput => Error::invalid(error.to_string()),
            _ => internal(error),
        })?;
        sandbox.inode = namespace.inode();
        if sandbox.inode == self.0.own_netns {
            return Err(Error::forbidden(format!(
                "{container} is the daemon's own network namespace: it has the network \"host\" already"
            )));
        }
        Ok(sandbox)
    }

    /// The endpoint that a request of Docker's API asks for.
    async fn endpoint(
        &self,
        state: &State,
        network: &Network,
        sandbox: Sandbox,
        request: request::NetworkConnect,
    ) -> Result<Endpoint, Error> {
        let bridge = bridge(network)?;
        let name = sandbox.name();
        let mut present = state.endpoints_of(network.id);
        let is_same = |other: &Sandbox| other.inode == sandbox.inode;
        if let Some(other) =
            present.find(|other| other.name == name || other.far_end.sandbox().is_some_and(is_same))
        {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                other.name, network.name
            )));
        }
        if network.ipam.driver != ipam::DEFAULT && !network.ipam.is_null() {
            let (name, driver) = (&network.name, &network.ipam.driver);
            return Err(Error::forbidden(format!(
                "the addresses of network {name} come from the CNI plugin {driver}, which only CNI can ask"
            )));
        }
        let config = request.endpoint_config.unwrap_or_default();
        let asked = Asked::read(&config, network, bridge)?;
        let ipv4 = choice::address(state, network, network.pool4(), asked.ipv4.map(IpAddr::from))?;
        let ipv6 = choice::address(state, network, network.pool6(), asked.ipv6.map(IpAddr::from))?;
        self.complete(state, network, Joining { sandbox, name, container: None, ipv4, ipv6, config }).await
    }

    /// The endpoint of one who joins a network, complete and valid.
    pub(super) async fn complete(
        &self,
        state: &State,
        network: &Network,
        joining: Joining,
    ) -> Result<Endpoint, Error> {
        let Joining { sandbox, name, container, ipv4, ipv6, config } = joining;
        let bridge = bridge(network)?;
        let asked = Asked::read(&config, network, bridge)?;
        let mac = choice::mac(state, network, bridge, &config.mac_address)?;
        choice::link_local(state, network, bridge, &asked.link_local)?;
        let way_out = |address: Option<IpNet>| {
            let address = address.filter(|_| !network.internal)?.addr();
            network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address))?.way_out()
        };
        let slot = choice::slot(state)?;
        let segment = choice::segment(state, network, bridge, &asked.port)?;
        let interface = choice::interface(&sandbox, bridge, asked.interface).await?;
        Ok(Endpoint {
            id: Id::new(random()?),
            network: network.id,
            name,
            container,
            far_end: FarEnd::Sandbox(sandbox),
            slot,
            mac,
            ipv4: ipv4.and_then(|net| if let IpNet::V4(net) = net { Some(net) } else { None }),
            ipv6: ipv6.and_then(|net| if let IpNet::V6(net) = net { Some(net) } else { None }),
            host_interface: choice::host_interface(state)?,
            interface,
            gateway4: way_out(ipv4).and_then(|way| if let IpAddr::V4(way) = way { Some(way) } else { None }),
            gateway6: way_out(ipv6).and_then(|way| if let IpAddr::V6(way) = way { Some(way) } else { None }),
            routes: Vec::new(),
            gateway_priority: config.gw_priority,
            mtu: bridge.mtu,
            link_local: asked.link_local,
            aliases: config.aliases,
            sysctls: asked.sysctls,
            port: asked.port,
            segment,
            rates: asked.rates,
            publications: Vec::new(),
            created: Timestamp::now(),
        })
    }
}

/// Whether the namespace is still there; of an engine's it is the engine that knows.
fn is_there(far_end: &FarEnd) -> bool {
    far_end.sandbox().is_none_or(|sandbox| sandbox.open().is_some())
}

/// The network with the endpoint's addresses as the last that were given out, if it gives them serially.
fn in_turn(network: &Network, endpoint: &Endpoint) -> Option<Network> {
    if !network.ipam.is_serial() {
        return None;
    }
    let mut network = network.clone();
    for pool in &mut network.ipam.pools {
        pool.last = endpoint.addresses().find(|own| pool.subnet.contains(own)).or(pool.last);
    }
    Some(network)
}

/// The bridge that an endpoint of a network is a port of.
fn bridge(network: &Network) -> Result<&Bridge, Error> {
    if network.config_only {
        return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
    }
    if network.engine_id.is_some() {
        return Err(Error::forbidden(format!(
            "network {} is a container engine's, which gives out its addresses: connect a container of the engine's",
            network.name
        )));
    }
    match (&network.bridge, network.driver) {
        (Some(bridge), _) => Ok(bridge),
        (None, Driver::Host) => Err(Error::forbidden(
            "cannot connect container to host network - container must be created in host network mode",
        )),
        (None, _) => Err(Error::forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
    }
}
