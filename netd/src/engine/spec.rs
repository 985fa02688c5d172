//! New networks, and the end of old ones.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use netd_common::limits;

use super::{
    Action, Created, Engine, Writer, configuration::Configuration, external, internal, lowest_free, options,
    random,
};
use crate::{
    ipam::{self, Requested},
    link::Kind,
    model::{
        Bridge, Driver, Error, GatewayMode, IPV6_MTU, Id, Ipam, MacAddress, Network, Pool, State, Timestamp,
        is_predefined, request,
    },
    plan::Touched,
    store::Change,
};

/// What Docker says about swarm's networks.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                        connect this node to swarm and try again.";

impl Engine {
    pub(super) async fn create(
        &self,
        writer: &mut Writer,
        request: request::NetworkCreate,
    ) -> Result<Created, Error> {
        let state = self.state();
        let network = self.specify(&state, request, Id::new(random()?)).await?;
        let warning = self.add_network(writer, &network).await?;
        Ok(Created { id: network.id, warning })
    }

    /// Makes a network that is complete, and says what the user should know.
    pub(super) async fn add_network(&self, writer: &mut Writer, network: &Network) -> Result<String, Error> {
        let changes = vec![Change::PutNetwork(network.clone())];
        self.change(writer, changes, Touched::network(network.id)).await?;
        self.0.announcer.begin(network.id);
        self.refresh_trusted().await?;
        self.tell(Action::Create, network, None);
        Ok(match self.forward(writer, network).await {
            Ok(()) => String::new(),
            // Where /proc/sys cannot be written; the network is whole, and inside it all is well.
            Err(error) => {
                log::warn!("{error}");
                format!("its way to the outside may be closed: {error}")
            }
        })
    }

    pub(super) async fn remove(&self, writer: &mut Writer, name: &str, force: bool) -> Result<(), Error> {
        let state = self.state();
        let network = state.find_network(name)?;
        if network.is_predefined() {
            let name = &network.name;
            return Err(Error::forbidden(format!("{name} is a pre-defined network and cannot be removed")));
        }
        if let Some(id) = network.engine_id.as_ref().filter(|_| !force) {
            return Err(Error::forbidden(format!(
                "network {} is a container engine's, which knows it as {id} and is the one to remove it; if the engine has \
                 forgotten it, force it",
                network.name
            )));
        }
        self.forget_departed(writer).await?;
        let now = self.state();
        let active: Vec<_> = now
            .endpoints_of(network.id)
            .map(|endpoint| format!("name:\"{}\" id:\"{}\"", endpoint.name, endpoint.id.short()))
            .collect();
        if !active.is_empty() {
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                active.join(", ")
            )));
        }
        let depends = |other: &Network| other.config_from.as_ref() == Some(&network.name);
        if network.config_only && state.networks.values().any(depends) {
            return Err(Error::forbidden(format!(
                "error while removing network: configuration network {:?} is in use",
                network.name
            )));
        }
        self.drop_network(writer, network).await
    }

    pub(super) async fn drop_network(&self, writer: &mut Writer, network: &Network) -> Result<(), Error> {
        let (id, state) = (network.id, self.state());
        let prefix = state.external_prefix(network).map(|it| Change::RemoveExternal(it.external));
        let changes = prefix.into_iter().chain([Change::RemoveNetwork(id)]).collect();
        self.change(writer, changes, Touched::network(id)).await?;
        self.0.announcer.end(id);
        self.refresh_trusted().await?;
        // Docker tells of the making of a configuration network, and not of its end.
        if !network.config_only {
            self.tell(Action::Destroy, network, None);
        }
        Ok(())
    }

    /// The network that a request asks for, complete and valid.
    pub(super) async fn specify(
        &self,
        state: &State,
        request: request::NetworkCreate,
        id: Id,
    ) -> Result<Network, Error> {
        admit(state, &request)?;
        let defaults = self.0.config.network_options.get("bridge").cloned().unwrap_or_default();
        let asked = Configuration::find(state, &request, &defaults)?;
        if request.config_only {
            return Ok(asked.template(id, request.name));
        }
        let Configuration { enable_ipv4, enable_ipv6, subnets, ipam_driver, ipam_options, options, labels } =
            asked;
        if ![ipam::DEFAULT, Ipam::NULL].contains(&&*ipam_driver) {
            return Err(Error::not_found(format!("plugin \"{ipam_driver}\" not found")));
        }
        if !enable_ipv4 && !enable_ipv6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }

        let interface = options::bridge_name(&options)?.unwrap_or_else(|| format!("br-{}", id.short()));
        let number = lowest_free(bridges(state).map(|(_, bridge)| bridge.number), limits::NETWORKS);
        let number = number.ok_or_else(|| {
            Error::forbidden(format!("there are {} bridge networks already", limits::NETWORKS))
        })?;
        if let Some((other, _)) = bridges(state).find(|(_, bridge)| bridge.interface == interface) {
            return Err(Error::forbidden(format!(
                "cannot create network {id} ({interface}): conflicts with network {} ({interface}): networks have \
                 same bridge name",
                other.id
            )));
        }
        let existing = self.0.host.links.device(&interface).await.map_err(internal)?;
        let mac = match &existing {
            Some(device) if device.kind == Kind::Bridge => device.mac,
            Some(_) => {
                return Err(Error::internal(format!("existing interface {interface} is not a bridge")));
            }
            None => None,
        };
        let mac = match mac {
            Some(mac) => mac,
            None => MacAddress::local(random()?),
        };
        let adopted = existing.is_some();
        let host_binding = self.0.config.publish_address;
        let bridge = Bridge { adopted, host_binding, ..Bridge::new(number, interface, mac) };
        let bridge = options::read(&options, request.internal, bridge)?;
        let sources = [bridge.host4.map(IpAddr::from), bridge.host6.map(IpAddr::from)];
        for source in sources.into_iter().flatten() {
            external::not_external(state, "masquerade as", source)?;
        }
        let mut bridge =
            existing.as_ref().map_or(bridge.clone(), |device| super::bridge::as_found(bridge, device));

        if enable_ipv6 && bridge.mtu < IPV6_MTU {
            let mtu = bridge.mtu;
            return Err(Error::internal(format!("invalid MTU number: {mtu} (IPv6 needs {IPV6_MTU} bytes)")));
        }
        let mut ipam = Ipam { driver: ipam_driver, options: ipam_options, pools: Vec::new() };
        if ipam.is_null() && !subnets.is_empty() {
            return Err(Error::invalid("null ipam driver does not handle specific address pool requests"));
        }
        for ipv6 in [false, true] {
            if !ipam.is_null() && if ipv6 { enable_ipv6 } else { enable_ipv4 } {
                let mut pool = self.pool(state, &subnets, ipv6).await?;
                // Who has no use for a gateway need not set an address aside for it; but may.
                let is_wanted = subnets.iter().any(|asked| asked.gateway == pool.gateway);
                if bridge.gateway_mode(ipv6) == GatewayMode::Isolated && !is_wanted {
                    pool.gateway = None;
                }
                ipam.pools.push(pool);
            }
        }
        if let Some(device) = &existing {
            let borne = self.site().borne(device).await?;
            bridge.given = new_addresses(&bridge, &ipam.pools, &borne, &[]);
        }
        Ok(Network {
            id,
            name: request.name,
            created: Timestamp::now(),
            driver: Driver::Bridge,
            enable_ipv4,
            enable_ipv6,
            internal: request.internal,
            attachable: request.attachable,
            config_only: false,
            config_from: request.config_from.map(|from| from.network).filter(|name| !name.is_empty()),
            ipam,
            options,
            labels,
            bridge: Some(bridge),
            engine_id: None,
        })
    }

    /// The pool of one family: the subnet that was asked for, or the next free one.
    async fn pool(&self, state: &State, requested: &[Requested], ipv6: bool) -> Result<Pool, Error> {
        let of_family =
            |request: &&Requested| request.subnet.is_some_and(|subnet| subnet.addr().is_ipv6() == ipv6);
        let mut of_family = requested.iter().filter(of_family);
        let request = of_family.next().cloned().unwrap_or_default();
        if of_family.next().is_some() {
            return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
        }
        let subnet = self.site().subnet(state, request.subnet, ipv6, None).await?;
        let pool = ipam::complete(subnet, &request)?;
        pool.bridge_address().map_or(Ok(()), bearable)?;
        Ok(pool)
    }
}

/// Refuses what netd does not do, and names that are taken.
fn admit(state: &State, request: &request::NetworkCreate) -> Result<(), Error> {
    let name = &request.name;
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    // "default" is what a container's configuration calls the network that it gets if it names none.
    if is_predefined(name) || name == "default" {
        return Err(Error::forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    if state.network_named(name).is_some() {
        return Err(Error::conflict(format!("network with name {name} already exists")));
    }
    let driver = request.driver.as_deref().unwrap_or_default();
    if driver == "overlay" {
        return Err(Error::forbidden(NO_SWARM));
    }
    // A configuration network is of no driver, whatever it was asked to be.
    if request.config_only {
        return Ok(());
    }
    match driver {
        "" | "bridge" => {}
        "host" | "null" => {
            return Err(Error::forbidden(format!("only one instance of \"{driver}\" network is allowed")));
        }
        driver => return Err(Error::not_found(format!("plugin \"{driver}\" not found"))),
    }
    if request.ingress {
        return Err(Error::forbidden("Ingress network can only be global scope network"));
    }
    match request.scope.as_str() {
        "" | "local" => Ok(()),
        "swarm" => Err(Error::forbidden("cannot create a swarm scoped network when swarm is not active")),
        scope => Err(Error::invalid(format!("invalid scope {scope:?}: a bridge network is local"))),
    }
}

/// Refuses an address that a bridge should not bear, in Docker's words where it does.
pub(super) fn bearable(address: IpNet) -> Result<(), Error> {
    if address.addr().is_loopback() {
        return Err(Error::invalid(format!("loopback subnet '{address}' is not allowed")));
    }
    if address.addr().is_multicast() {
        return Err(Error::invalid(format!("multicast subnet '{address}' is not allowed")));
    }
    let IpNet::V6(address) = address else { return Ok(()) };
    let link_local = Ipv6Net::new_assert([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 64);
    let overlaps = link_local.contains(&address.addr()) || address.contains(&link_local.addr());
    if overlaps && address.trunc() != link_local {
        return Err(Error::invalid(format!("'{address}' clashes with the Link-Local prefix 'fe80::/64'")));
    }
    Ok(())
}

/// Those of a network's addresses on its bridge that the bridge did not bear before: it bears `borne`, and has `given` of those
/// from netd.
pub(super) fn new_addresses(bridge: &Bridge, pools: &[Pool], borne: &[IpNet], given: &[IpNet]) -> Vec<IpNet> {
    let is_new = |net: &IpNet| !borne.contains(net) || given.contains(net);
    let own = pools.iter().filter_map(Pool::bridge_address);
    own.filter(|net| bridge.bears(net.addr().is_ipv6()) && is_new(net)).collect()
}

/// The bridge networks.
pub(super) fn bridges(state: &State) -> impl Iterator<Item = (&Network, &Bridge)> {
    state.networks.values().filter_map(|network| Some((network, network.bridge.as_ref()?)))
}

/// Where no further network can be: in the subnets of all that are there, and in those that an engine has for a network to be; nor where
/// the outside knows containers by external addresses. A configuration network's subnets are those of whoever takes them.
pub(super) fn taken(state: &State) -> impl Iterator<Item = IpNet> {
    let networks = state.networks.values().filter(|network| network.bridge.is_some());
    let pools = networks.flat_map(|network| network.ipam.pools.iter());
    let subnets = pools.chain(state.pools.values().map(|leased| &leased.pool)).map(|pool| pool.subnet);
    subnets.chain(state.externals.values().map(|it| it.external))
}

impl From<ipam::Error> for Error {
    fn from(error: ipam::Error) -> Self {
        let message = error.to_string();
        match error {
            ipam::Error::Subnetted | ipam::Error::OutOfRange => Self::invalid(message),
            ipam::Error::InUse => Self::forbidden(message),
            ipam::Error::Exhausted
            | ipam::Error::Gateway(_)
            | ipam::Error::NoGateway
            | ipam::Error::Auxiliary { .. } => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    #[test]
    fn what_netd_does_not_do_is_refused_in_dockers_words() {
        let request = |f: fn(&mut request::NetworkCreate)| {
            let mut request = request::NetworkCreate { name: "n".into(), ..Default::default() };
            f(&mut request);
            let error = admit(&State::default(), &request).unwrap_err();
            (error.kind, error.message)
        };
        assert_eq!(request(|r| r.name.clear()), (ErrorKind::Invalid, "invalid name: name is empty".into()));
        for name in ["none", "default"] {
            let request = request::NetworkCreate { name: name.into(), ..Default::default() };
            let error = admit(&State::default(), &request).unwrap_err();
            let text = format!("operation is not permitted on predefined {name} network ");
            assert_eq!((error.kind, error.message), (ErrorKind::Forbidden, text));
        }
        assert_eq!(
            request(|r| r.driver = Some("null".into())),
            (ErrorKind::Forbidden, "only one instance of \"null\" network is allowed".into())
        );
        assert_eq!(
            request(|r| r.driver = Some("macvlan".into())),
            (ErrorKind::NotFound, "plugin \"macvlan\" not found".into())
        );
        assert_eq!(request(|r| r.driver = Some("overlay".into())), (ErrorKind::Forbidden, NO_SWARM.into()));
        assert_eq!(
            request(|r| r.scope = "swarm".into()),
            (ErrorKind::Forbidden, "cannot create a swarm scoped network when swarm is not active".into())
        );
        assert_eq!(request(|r| r.scope = "global".into()).0, ErrorKind::Invalid);
        assert_eq!(
            request(|r| r.ingress = true),
            (ErrorKind::Forbidden, "Ingress network can only be global scope network".into())
        );
        let good =
            request::NetworkCreate { name: "n".into(), driver: Some("bridge".into()), ..Default::default() };
        assert_eq!(admit(&State::default(), &good), Ok(()));
    }
}
