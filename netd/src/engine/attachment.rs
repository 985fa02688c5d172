//! What engines' plugins ask: interfaces of containers on networks that may be yet to be made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Engine, Writer,
    attach::Joining,
    endpoint::IFNAME,
    internal,
    options::{self, BRIDGE_NAME},
    random,
    spec::subnets,
};
use crate::{
    ipam::{self, Requested},
    model::{
        Endpoint, Error, Id, Network, Pool, Reserver, Route, State,
        attachment::{Address, Attach, Attachment, Key, Link, Prune, Pruned, Range},
        request,
    },
    plan::{self, Step},
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
            let wanted =
                plan::desired(&state, |other| other.id == network.id, |other| other.id == endpoint.id);
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
            let specs = Self::specs(&joining.config.driver_opts)?;
            let mut endpoint = self.complete(&state, network, joining).await?;
            // As with the plugins that its runtime knows, which keep no port from anybody.
            let reserver = Reserver::Runtime;
            endpoint.publications = self.resolve(writer, &state, network, &endpoint, specs, reserver).await?;
            if let Some(said) = &request.default_routes {
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
        for pool in &pools {
            if subnets(&state).any(|taken| ipam::overlaps(taken, pool.subnet)) {
                return Err(Error::forbidden(format!(
                    "the subnet {} overlaps with that of another network",
                    pool.subnet
                )));
            }
        }
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
        for pool in &more {
            if subnets(&state).any(|taken| ipam::overlaps(taken, pool.subnet)) {
                return Err(Error::forbidden(format!(
                    "the subnet {} overlaps with that of another network",
                    pool.subnet
                )));
            }
        }
        let mut network = network.clone();
        network.enable_ipv4 |= more.iter().any(|pool| pool.subnet.addr().is_ipv4());
        network.enable_ipv6 |= more.iter().any(|pool| pool.subnet.addr().is_ipv6());
        network.ipam.pools.extend(more);
        let (id, changed) = (network.id, vec![Change::PutNetwork(network.clone())]);
        self.change(writer, changed, |other| other.id == id, |_| false).await?;
        self.forward(writer, &network).await
    }

    /// What there is to tell of an attachment.
    async fn attachment(&self, network: &Network, endpoint: &Endpoint) -> Result<Attachment, Error> {
        let near = self.0.host.links.device(&endpoint.host_interface).await.map_err(internal)?;
        let addresses =
            [endpoint.ipv4.map(IpNet::from), endpoint.ipv6.map(IpNet::from)].into_iter().flatten();
        let gateway = |address: IpNet| {
            let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address.addr()))?;
            pool.way_out()
        };
        let default = |gateway: IpAddr| {
            let any = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            Route { destination: any.parse().expect("a prefix"), gateway: Some(gateway), metric: 0 }
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
                .map(default)
                .chain(endpoint.routes.iter().copied())
                .collect(),
            servers: Vec::new(),
        })
    }
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

/// The pools that a request speaks of: its ranges, or else the subnets of its addresses.
fn pools(request: &Attach) -> Result<Vec<Pool>, Error> {
    let of_addresses = request.addresses.iter().map(|given| Range {
        subnet: given.address.trunc(),
        first: None,
        last: None,
        gateway: given.gateway,
    });
    let mut families = BTreeSet::new();
    for set in &request.ranges {
        let Some(first) = set.first() else {
            return Err(Error::invalid("invalid ipam ranges: a set of them is empty"));
        };
        let ipv6 = first.subnet.addr().is_ipv6();
        if set.iter().any(|range| range.subnet.addr().is_ipv6() != ipv6) {
            return Err(Error::invalid("invalid ipam ranges: mixed address families in one set"));
        }
        if !families.insert(ipv6) {
            return Err(Error::not_implemented(
                "invalid ipam ranges: netd gives an interface one address of each family, not two",
            ));
        }
    }
    let ranges = request.ranges.iter().flatten().copied();
    let mut pools: Vec<Pool> = Vec::new();
    for range in ranges.chain(of_addresses) {
        if pools.iter().any(|pool| ipam::overlaps(pool.subnet, range.subnet)) {
            return Err(Error::invalid(format!(
                "invalid ipam ranges: {} overlaps with another one",
                range.subnet
            )));
        }
        pools.push(pool(&range, !request.ipam.is_empty())?);
    }
    Ok(pools)
}

fn pool(range: &Range, foreign: bool) -> Result<Pool, Error> {
    let Range { subnet, first, last, gateway } = *range;
    if subnet != subnet.trunc() {
        return Err(Error::invalid(format!("invalid subnet {subnet}: it should be {}", subnet.trunc())));
    }
    for (what, address) in [("range start", first), ("range end", last), ("gateway", gateway)] {
        if let Some(address) = address.filter(|address| !subnet.contains(address)) {
            return Err(Error::invalid(format!("invalid {what} {address}: it is not in {subnet}")));
        }
    }
    let requested = Requested { subnet: Some(subnet), range: None, gateway, auxiliary: BTreeMap::new() };
    let mut pool = if foreign && gateway.is_none() {
        // Another IPAM's network without a gateway: the bridge has no address in it.
        Pool {
            subnet,
            range: None,
            bounds: None,
            last: None,
            gateway: None,
            gateway_shown: false,
            auxiliary: BTreeMap::new(),
            requested: true,
        }
    } else {
        ipam::complete(subnet, &requested)?
    };
    if first.is_some() || last.is_some() {
        let whole = ipam::bounds(&pool);
        let (first, last) = (first.unwrap_or(whole.0), last.unwrap_or(whole.1));
        if first > last {
            return Err(Error::invalid(format!("invalid range {first}-{last}: it ends before it begins")));
        }
        pool.bounds = Some((first, last));
    }
    Ok(pool)
}

fn range(pool: &Pool) -> String {
    let (first, last) = ipam::bounds(pool);
    format!("{first}-{last}")
}

/// The addresses of an attachment: those that another IPAM chose, those that were asked for, or the lowest that are free.
fn addresses(
    state: &State,
    network: &Network,
    request: &Attach,
) -> Result<(Option<IpNet>, Option<IpNet>), Error> {
    let used: BTreeMap<IpAddr, &Endpoint> = state
        .endpoints_of(network.id)
        .flat_map(|endpoint| {
            let ipv4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
            let all = ipv4.into_iter().chain(endpoint.ipv6.map(|net| IpAddr::V6(net.addr())));
            all.map(move |address| (address, endpoint))
        })
        .collect();
    let mut asked = request.requested.clone();
    let mut chosen = [None, None];
    let mut set = 0;
    for (ipv6, chosen) in [false, true].into_iter().zip(&mut chosen) {
        if !request.ipam.is_empty() {
            *chosen = given(&used, request, ipv6)?;
            continue;
        }
        let pools: Vec<&Pool> = network.pools(ipv6).collect();
        if pools.is_empty() {
            continue;
        }
        let within = |address: &IpAddr| {
            pools.iter().copied().find(|pool| {
                let (first, last) = ipam::bounds(pool);
                first.is_ipv4() == address.is_ipv4() && (first..=last).contains(address)
            })
        };
        let failed = |why: String| Error::forbidden(format!("failed to allocate for range {set}: {why}"));
        let ranges = || pools.iter().map(|pool| range(pool)).collect::<Vec<_>>().join(",");
        let wanted = asked.iter().position(|address| within(address).is_some()).map(|at| asked.remove(at));
        *chosen = Some(match wanted {
            Some(wanted) => {
                let pool = within(&wanted).expect("it was found there");
                if pool.gateway == Some(wanted) {
                    return Err(failed(format!("requested ip {wanted} is subnet's gateway")));
                }
                ipam::claim(pool, &used.keys().copied().collect(), wanted).map_err(|_| {
                    failed(format!(
                        "requested IP address {wanted} is not available in range set {}",
                        ranges()
                    ))
                })?;
                pool.sized(wanted)
            }
            None => {
                let taken = used.keys().copied().collect();
                let free =
                    |pool: &&Pool| ipam::lowest_free(pool, &taken).ok().map(|address| pool.sized(address));
                let free = pools.iter().find_map(free);
                free.ok_or_else(|| failed(format!("no IP addresses available in range set: {}", ranges())))?
            }
        });
        set += 1;
    }
    if !asked.is_empty() {
        let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
        return Err(Error::invalid(format!("failed to allocate all requested IPs: {}", asked.join(" "))));
    }
    let [ipv4, ipv6] = chosen;
    Ok((ipv4, ipv6))
}

/// The address of one family that another IPAM chose.
fn given(used: &BTreeMap<IpAddr, &Endpoint>, request: &Attach, ipv6: bool) -> Result<Option<IpNet>, Error> {
    let mut of_family = request.addresses.iter().filter(|given| given.address.addr().is_ipv6() == ipv6);
    let Some(Address { address, .. }) = of_family.next().copied() else { return Ok(None) };
    if of_family.next().is_some() {
        return Err(Error::not_implemented(format!(
            "{} gave two addresses of one family, and netd gives an interface one",
            request.ipam
        )));
    }
    if let Some(owner) = used.get(&address.addr()) {
        return Err(Error::forbidden(format!(
            "{} gave the address {}, which {} has already",
            request.ipam,
            address.addr(),
            owner.name
        )));
    }
    Ok(Some(address))
}

/// Routes as the kernel takes them: by the gateway of the endpoint's subnet, unless they say by whom.
fn routes(network: &Network, wanted: &[Route], endpoint: &Endpoint) -> Result<Vec<Route>, Error> {
    let address = |ipv4| {
        let (own4, own6) = (endpoint.ipv4.map(IpNet::from), endpoint.ipv6.map(IpNet::from));
        if ipv4 { own4 } else { own6 }
    };

    let mut routes = Vec::new();
    for route in wanted {
        let ipv4 = route.destination.addr().is_ipv4();
        let Some(address) = address(ipv4) else {
            return Err(Error::invalid(format!(
                "invalid route to {}: the interface has no address of that family",
                route.destination
            )));
        };
        if route.gateway.is_some_and(|gateway| gateway.is_ipv4() != ipv4) {
            return Err(Error::invalid(format!(
                "invalid route to {}: its gateway is of the other family",
                route.destination
            )));
        }
        let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address.addr()));
        let route = Route { gateway: route.gateway.or(pool.and_then(Pool::way_out)), ..*route };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    Ok(routes)
}

/// What a step would set right, for people.
fn fault(step: &Step) -> String {
    let be = |from: bool| if from { "is changed" } else { "is missing" };
    match step {
        Step::Discard { link } => format!("{link} is another link than netd made"),
        Step::Bridge { name, from, .. } => format!("the bridge {name} {}", be(from.is_some())),
        Step::Veth { name, from: None, .. } => format!("the veth pair of {name} is missing"),
        Step::Veth { name, from: Some(from), to: Some(to) } => changed(name, from, to),
        Step::Veth { name, .. } => format!("{name} should not be there"),
        Step::Station { station, .. } => {
            format!("the bridge {} does not know who is at {}", station.bridge, station.port)
        }
        Step::Network { number, from, .. } => {
            format!("the datapath's network {number} {}", be(from.is_some()))
        }
        Step::Subnet { prefix, from, .. } => format!("the datapath's subnet {prefix} {}", be(from.is_some())),
        Step::Exempt { destination, .. } => {
            format!("the datapath's exempt destination {destination} is missing")
        }
        Step::External { external, from, .. } => {
            format!("the datapath's external address {external} {}", be(from.is_some()))
        }
        Step::Endpoint { slot, from, .. } => format!("the datapath's endpoint {slot} {}", be(from.is_some())),
        Step::Forsake { port } => format!("the program at the interface {port} should not be there"),
        Step::Segment { .. } => "the program at a segment's bridge is missing".to_owned(),
        Step::Publication { host, from, .. } => {
            format!("the datapath's publication of {host} {}", be(from.is_some()))
        }
        Step::EndUnbound => {
            "bindings are left of a mapping or a filtering that the network has no more".to_owned()
        }
        Step::EndUnpublished => "flows lead to ports that are not published any more".to_owned(),
    }
}

fn changed(name: &str, from: &plan::Veth, to: &plan::Veth) -> String {
    let (Some(is), Some(should)) = (from.far_end.interface(), to.far_end.interface()) else {
        return format!("{name} is changed");
    };
    let list = |nets: &BTreeSet<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut faults = Vec::new();
    if is.addresses != should.addresses {
        let missing: BTreeSet<_> = should.addresses.difference(&is.addresses).copied().collect();
        faults.push(format!("{} lacks the address {}", should.name, list(&missing)));
    }
    if is.mac != should.mac {
        faults.push(format!("{} has the MAC address {}, not {}", should.name, is.mac, should.mac));
    }
    if is.mtu != should.mtu || from.mtu != to.mtu {
        faults.push(format!("{} has the MTU {}, not {}", should.name, is.mtu, should.mtu));
    }
    if !is.up || !from.up {
        faults.push(format!("{} is down", should.name));
    }
    if is.gateway4 != should.gateway4 || is.gateway6 != should.gateway6 || is.routes != should.routes {
        faults.push(format!("{} lacks a route", should.name));
    }
    if from.queue != to.queue || is.queue != should.queue {
        faults.push(format!("{} is not limited as it should be", should.name));
    }
    if from.heard != to.heard {
        faults.push(format!("the program at {name} is missing"));
    }
    if from.bridge != to.bridge {
        faults.push(format!("{name} is no port of {}", to.bridge.as_deref().unwrap_or("any bridge")));
    }
    if faults.is_empty() { format!("{name} is changed") } else { faults.join(", ") }
}
