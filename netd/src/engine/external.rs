//! External addresses: given to endpoints and networks, and taken back.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use netd_common::nptv6;

use super::{Engine, Writer, internal, spec};
use crate::{
    ipam,
    link::Uplink,
    model::{
        Advertise, Endpoint, Error, External, Framing, Network, Publication, State, Target, Timestamp, prefix,
    },
    plan::Touched,
    store::Change,
};

impl Engine {
    /// Gives `target` an external address: an endpoint one address, a network an IPv6 prefix.
    ///
    /// # Errors
    /// If either cannot be, or the address is somebody's already; nothing has changed then.
    pub async fn add_external(&self, external: &str, target: &str) -> Result<(), Error> {
        let (external, target) = (read(external)?, target.to_owned());
        self.act(move |engine, mut writer| async move {
            loop {
                let added = engine.add(&mut writer, external, &target).await;
                // Somebody who is no more may have had the address.
                if added.is_ok() || !engine.forget_departed(&mut writer).await? {
                    return added;
                }
            }
        })
        .await
    }

    /// Takes an external address back.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn remove_external(&self, external: &str) -> Result<(), Error> {
        let external = read(external)?;
        self.act(move |engine, mut writer| async move { engine.take_back(&mut writer, external).await }).await
    }

    async fn add(&self, writer: &mut Writer, external: IpNet, target: &str) -> Result<(), Error> {
        let state = self.state();
        self.not_the_hosts(external).await?;
        // The datapath is not to take it for the host's any more.
        self.refresh_locals(writer).await?;
        free(&state, external)?;
        let target = if external.prefix_len() == external.max_prefix_len() {
            Target::Endpoint(endpoint(&state, external, target)?.id)
        } else {
            Target::Network(network(&state, external, target)?.id)
        };
        let new = External { external, target, created: Timestamp::now() };
        self.change_external(writer, &new, Change::PutExternal(new.clone())).await?;
        log::info!("{} is {external} outside", name(&state, target));
        if let Target::Endpoint(_) = target
            && let Err(error) = self.announce_outside(external.addr()).await
        {
            log::warn!("{external} is not announced: {error}");
        }
        Ok(())
    }

    /// Says on each uplink's link that an address is of that who has had it elsewhere before: routers remember for long.
    async fn announce_outside(&self, address: IpAddr) -> Result<(), Error> {
        let around = self.surroundings().await?;
        let uplinks = self.uplinks_of(&around).into_values().filter(|uplink| {
            let is_on_link = |net: IpNet| net.contains(&address);
            uplink.up && uplink.framing == Framing::Ethernet && around.nets_of(uplink.index).any(is_on_link)
        });
        for uplink in uplinks {
            tokio::spawn(self.clone().repeat_outside(uplink, address));
        }
        Ok(())
    }

    /// Says it on one link, as often as it is said of an endpoint, and no more once the address is taken back.
    async fn repeat_outside(self, uplink: Uplink, address: IpAddr) {
        let Advertise { messages, interval } = Advertise::default();
        for _ in 0..messages {
            if !self.state().externals.contains_key(&IpNet::from(address)) {
                return;
            }
            let datapath = self.0.host.datapath.clone();
            let tell = move || datapath.advertise_outside(uplink.index, uplink.mac, address);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(tell).await {
                return log::warn!("{address} is not announced on {}: {error}", uplink.name);
            }
            tokio::time::sleep(Duration::from_millis(interval.into())).await;
        }
    }

    async fn take_back(&self, writer: &mut Writer, external: IpNet) -> Result<(), Error> {
        let state = self.state();
        let Some(old) = state.externals.get(&external) else {
            let prefix = state.externals.keys().find(|prefix| prefix.contains(&external));
            let part = prefix.map(|prefix| format!(": it is part of {}", shown(*prefix))).unwrap_or_default();
            return Err(Error::not_found(format!("no such external address: {}{part}", shown(external))));
        };
        if let Err(error) = self.change_external(writer, old, Change::RemoveExternal(external)).await {
            match old.target {
                Target::Endpoint(id) if self.has_departed(writer, id).await? => {}
                _ => return Err(error),
            }
        }
        log::info!("{} is {external} no more", name(&state, old.target));
        Ok(())
    }

    async fn change_external(
        &self,
        writer: &mut Writer,
        what: &External,
        change: Change,
    ) -> Result<(), Error> {
        let touched = match what.target {
            Target::Endpoint(id) => Touched::endpoint(id),
            Target::Network(id) => Touched {
                networks: [id].into(),
                endpoints: self.state().endpoints_of(id).map(|endpoint| endpoint.id).collect(),
            },
        };
        self.change(writer, vec![change], touched).await
    }

    /// Whoever has the host's own address, has the host's own traffic; and whoever has its router's, all that is for others.
    async fn not_the_hosts(&self, external: IpNet) -> Result<(), Error> {
        let links = &self.0.host.links;
        let addresses = links.addresses().await.map_err(internal)?;
        if let Some(own) = addresses.iter().find(|own| is_edge(own.net, external)) {
            let subnet = own.net.trunc();
            return Err(Error::conflict(format!(
                "external address {} stands for all of {subnet}",
                shown(external)
            )));
        }
        let Some(own) = addresses.iter().find(|own| external.contains(&own.net.addr())) else {
            return self.no_next_hop(external).await;
        };
        let devices = links.devices().await.map_err(internal)?;
        let device = devices.into_iter().find(|device| device.index == own.index);
        let device = device.map(|device| device.name).unwrap_or_default();
        let (external, own) = (shown(external), own.net.addr());
        Err(Error::conflict(if external == own.to_string() {
            format!("external address {external} is the host's own, on {device}")
        } else {
            format!("external prefix {external} holds the host's own address {own}, on {device}")
        }))
    }

    async fn no_next_hop(&self, external: IpNet) -> Result<(), Error> {
        let routes = self.0.host.links.routes().await.map_err(internal)?;
        match routes.iter().filter_map(|route| route.gateway).find(|gateway| external.contains(gateway)) {
            Some(gateway) if IpNet::from(gateway) == external => {
                Err(Error::conflict(format!("external address {gateway} is a next hop of the host's routes")))
            }
            Some(gateway) => Err(Error::conflict(format!(
                "external prefix {} holds {gateway}, a next hop of the host's routes",
                shown(external)
            ))),
            None => Ok(()),
        }
    }
}

/// Whether the address is the first or the last of a subnet of the host's, which is nobody's: it stands for all hosts there.
fn is_edge(subnet: IpNet, external: IpNet) -> bool {
    subnet.addr().is_ipv4() && ipam::reserved(subnet).any(|address| address == external.addr())
}

/// Whether an answer to the address finds its way there, and to one host alone.
pub(super) fn is_routable(address: IpAddr) -> bool {
    let is_hosts = match address {
        IpAddr::V4(address) => {
            address.octets()[0] != 0 && address.octets()[0] < 224 && !address.is_link_local()
        }
        IpAddr::V6(address) => !address.is_unicast_link_local() && address.to_ipv4_mapped().is_none(),
    };
    is_hosts && !address.is_multicast() && !address.is_loopback() && !address.is_unspecified()
}

/// Reads an address, or a prefix whose host bits are zero.
fn read(text: &str) -> Result<IpNet, Error> {
    let invalid = |why: &str| Error::invalid(format!("invalid external address {text:?}: {why}"));
    let external = match (text.parse::<IpAddr>(), prefix::<IpNet>(text)) {
        (Ok(address), _) => IpNet::from(address),
        (_, Some(prefix)) => prefix,
        _ => return Err(invalid("neither an address nor a prefix")),
    };
    if external != external.trunc() {
        return Err(invalid(&format!("its prefix is {}", external.trunc())));
    }
    if let IpAddr::V6(address) = external.addr()
        && let Some(ipv4) = address.to_ipv4_mapped()
        && external.prefix_len() == 128
    {
        return Err(invalid(&format!("it is how IPv6 writes {ipv4}; name that")));
    }
    if !is_routable(external.addr()) {
        return Err(invalid("no router leads to such an address"));
    }
    match external {
        IpNet::V4(net) if net.prefix_len() < 32 => {
            Err(invalid("only an IPv6 prefix can be translated as a whole"))
        }
        IpNet::V6(net) if net.prefix_len() < 128 && u32::from(net.prefix_len()) > nptv6::LONGEST => Err(
            invalid(&format!("a prefix longer than /{} leaves nothing to adjust (RFC 6296)", nptv6::LONGEST)),
        ),
        _ => Ok(external),
    }
}

/// Refuses what is in use among netd's own.
fn free(state: &State, external: IpNet) -> Result<(), Error> {
    let conflict = |why: String| Err(Error::conflict(format!("external address {} {why}", shown(external))));
    for other in state.externals.values() {
        if ipam::overlaps(other.external, external) {
            let owner = name(state, other.target);
            return if other.external == external {
                conflict(format!("is given to {owner} already"))
            } else {
                conflict(format!("overlaps {}, which is given to {owner}", shown(other.external)))
            };
        }
    }
    for network in state.networks.values() {
        if let Some(pool) = network.ipam.pools.iter().find(|pool| ipam::overlaps(pool.subnet, external)) {
            return conflict(format!("is in the subnet {} of network {}", pool.subnet, network.name));
        }
    }
    for endpoint in state.endpoints.values() {
        let holds = |publication: &&Publication| external.contains(&publication.host.address);
        if let Some(publication) = endpoint.publications.iter().find(holds) {
            return conflict(format!("is where endpoint {} publishes {}", endpoint.name, publication.host));
        }
    }
    for (network, bridge) in spec::bridges(state) {
        let chosen = [bridge.host4.map(IpAddr::from), bridge.host6.map(IpAddr::from)];
        if chosen.into_iter().flatten().any(|chosen| external.contains(&chosen)) {
            return conflict(format!("is what network {} masquerades as", network.name));
        }
    }
    Ok(())
}

/// Refuses to do with an address what cannot be done where it is somebody's wholly: to publish ports of it, for one.
pub(super) fn not_external(state: &State, what: &str, address: IpAddr) -> Result<(), Error> {
    let Some(owner) = state.externals.values().find(|it| it.external.contains(&address)) else {
        return Ok(());
    };
    Err(Error::conflict(format!(
        "cannot {what} {address}: it is an external address of {}",
        name(state, owner.target)
    )))
}

/// The endpoint that is to have one address.
fn endpoint<'a>(state: &'a State, external: IpNet, text: &str) -> Result<&'a Endpoint, Error> {
    let named = state.find_endpoints(text);
    if named.is_empty() {
        let hint = match state.find_network(text) {
            Ok(_) => ": a network takes a prefix",
            Err(_) => "",
        };
        return Err(Error::not_found(format!("no such endpoint: {text}{hint}")));
    }
    let ipv6 = external.addr().is_ipv6();
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let mut fit = named.iter().filter(|endpoint| endpoint.address(ipv6).is_some());
    let Some(endpoint) = fit.next() else {
        return Err(Error::invalid(format!("endpoint {text} has no {family} address")));
    };
    if fit.next().is_some() {
        let networks: Vec<_> =
            named.iter().map(|endpoint| state.networks[&endpoint.network].name.as_str()).collect();
        return Err(Error::invalid(format!(
            "endpoint {text} is in several networks ({}): name it as NETWORK/ENDPOINT",
            networks.join(", ")
        )));
    }
    let network = &state.networks[&endpoint.network];
    has_an_outside(network)?;
    if let Some(other) =
        state.externals.values().find(|other| other.is_of(endpoint) && other.is_ipv6() == ipv6)
    {
        return Err(Error::conflict(format!(
            "endpoint {} is {} outside already",
            endpoint.name,
            shown(other.external)
        )));
    }
    Ok(endpoint)
}

/// The network that is to have a prefix.
fn network<'a>(state: &'a State, external: IpNet, text: &str) -> Result<&'a Network, Error> {
    let network = state.find_network(text)?;
    has_an_outside(network)?;
    let name = &network.name;
    let Some(pool) = network.pool6() else {
        return Err(Error::invalid(format!("network {name} has no IPv6 subnet")));
    };
    if pool.subnet.prefix_len() != external.prefix_len() {
        return Err(Error::invalid(format!(
            "external prefix {external} is not as long as {}, the subnet of network {name}",
            pool.subnet
        )));
    }
    let of_endpoint = |other: &&External| {
        other.is_ipv6() && state.endpoints_of(network.id).any(|endpoint| other.is_of(endpoint))
    };
    if let Some(other) = state.externals.values().find(of_endpoint) {
        let (owner, other) = (self::name(state, other.target), shown(other.external));
        return Err(Error::conflict(format!("{owner} is {other} outside already")));
    }
    Ok(network)
}

fn has_an_outside(network: &Network) -> Result<(), Error> {
    let name = &network.name;
    if network.internal {
        return Err(Error::forbidden(format!("network {name} is internal: it has no outside")));
    }
    if network.bridge.is_none() {
        return Err(Error::forbidden(format!(
            "network {name} has driver {}: it has no addresses",
            network.driver
        )));
    }
    Ok(())
}

/// What an external address stands for, for people.
fn name(state: &State, target: Target) -> String {
    let (kind, name) = match target {
        Target::Endpoint(id) => ("endpoint", state.endpoints.get(&id).map(|it| &it.name)),
        Target::Network(id) => ("network", state.networks.get(&id).map(|it| &it.name)),
    };
    format!("{kind} {}", name.map(String::as_str).unwrap_or_default())
}

/// An address without the length of all of it.
fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bridge, Driver, ErrorKind, HostPorts, MacAddress, Protocol, Reserver, sample};

    /// The networks `one` with the endpoint `web`, `four` without IPv6, `inner` without an outside, and `host`.
    fn state() -> State {
        let network = |last: u8, name: &str, subnets: &[&str]| Network {
            bridge: Some(Bridge::new(last.into(), name, MacAddress::new([2, 0, 0, 0, 0, last]))),
            ..sample::network(last, name, subnets.iter().map(|subnet| sample::pool(subnet)).collect())
        };
        let one = network(1, "one", &["10.5.0.0/16", "fd00:5::/64"]);
        let web = Endpoint {
            ipv4: Some("10.5.0.2/16".parse().unwrap()),
            ipv6: Some("fd00:5::2/64".parse().unwrap()),
            ..sample::endpoint(&one, 9, "web")
        };
        let inner = Network { internal: true, ..network(3, "inner", &["10.7.0.0/16", "fd00:7::/64"]) };
        let host = Network { bridge: None, driver: Driver::Host, ..network(4, "host", &[]) };
        let networks = [one, network(2, "four", &["10.6.0.0/16"]), inner, host];
        State {
            networks: networks.into_iter().map(|network| (network.id, network)).collect(),
            endpoints: [web].into_iter().collect(),
            ..State::default()
        }
    }

    #[test]
    fn addresses_and_prefixes_are_read() {
        for good in ["203.0.113.9", "203.0.113.9/32", "2001:db8::9", "2001:db8:1::/64", "2001:db8::/112"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "neither"),
            ("web", "neither"),
            ("203.0.113.0/24", "only an IPv6 prefix"),
            ("2001:db8:1::1/64", "its prefix is 2001:db8:1::/64"),
            ("2001:db8::/120", "longer than /112"),
            ("224.0.0.1", "no router"),
            ("255.255.255.255", "no router"),
            ("127.0.0.1", "no router"),
            ("0.0.0.0", "no router"),
            ("169.254.1.1", "no router"),
            ("fe80::1", "no router"),
            ("ff02::1", "no router"),
            ("::ffff:203.0.113.9", "how IPv6 writes 203.0.113.9"),
            ("::", "no router"),
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn conflicts_are_named() {
        let mut state = state();
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        let web = endpoint(&state, net("203.0.113.9/32"), "web").unwrap();
        let target = Target::Endpoint(web.id);
        let external = External { external: net("203.0.113.9/32"), target, created: Timestamp::now() };
        state.externals.insert(external.external, external);
        let text = |result: Result<(), Error>| result.unwrap_err().message;
        let taken = |external| text(free(&state, net(external)));
        assert_eq!(taken("203.0.113.9/32"), "external address 203.0.113.9 is given to endpoint web already");
        assert_eq!(
            taken("10.6.0.9/32"),
            "external address 10.6.0.9 is in the subnet 10.6.0.0/16 of network four"
        );
        let published = Publication {
            host: HostPorts {
                protocol: Protocol::Tcp,
                address: [198, 51, 100, 9].into(),
                first: 80,
                last: 80,
            },
            container: 8080,
            reserved_by: Reserver::Netd,
        };
        let mut web = state.endpoints.values().next().map(|web| Endpoint::clone(web)).unwrap();
        web.publications.push(published);
        state.endpoints.insert(web);
        let taken = |external| text(free(&state, net(external)));
        assert_eq!(
            taken("198.51.100.9/32"),
            "external address 198.51.100.9 is where endpoint web publishes 198.51.100.9:80"
        );
        assert_eq!(
            text(not_external(&state, "publish a port of", [203, 0, 113, 9].into())),
            "cannot publish a port of 203.0.113.9: it is an external address of endpoint web"
        );
        assert!(not_external(&state, "publish a port of", [0, 0, 0, 0].into()).is_ok());
        let refused = |external, to| text(endpoint(&state, net(external), to).map(drop));
        assert_eq!(refused("203.0.113.8/32", "web"), "endpoint web is 203.0.113.9 outside already");
        assert_eq!(refused("203.0.113.8/32", "nobody"), "no such endpoint: nobody");
        assert_eq!(refused("203.0.113.8/32", "one"), "no such endpoint: one: a network takes a prefix");
        assert!(endpoint(&state, net("2001:db8::9/128"), "one/web").is_ok());
        let refused = |external, to| text(network(&state, net(external), to).map(drop));
        assert_eq!(refused("2001:db8:1::/64", "four"), "network four has no IPv6 subnet");
        assert_eq!(
            refused("2001:db8:1::/48", "one"),
            "external prefix 2001:db8:1::/48 is not as long as fd00:5::/64, the subnet of network one"
        );
        assert_eq!(refused("2001:db8:1::/64", "inner"), "network inner is internal: it has no outside");
        assert!(network(&state, net("2001:db8:1::/64"), "one").is_ok());
        assert!(refused("2001:db8:1::/64", "host").contains("has driver host"));
    }
}
