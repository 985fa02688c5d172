//! Whether somebody can have an external address: decided from what is asked for and what is stored.

use std::net::IpAddr;

use ipnet::IpNet;
use netd_common::nptv6;

use crate::{
    engine::spec,
    ipam,
    model::{Endpoint, Error, External, Network, Publication, State, Target, is_link_local, prefix},
};

/// Whether an answer to the address finds its way there, and to one host alone.
pub(in crate::engine) fn is_routable(address: IpAddr) -> bool {
    let is_hosts = match address {
        IpAddr::V4(address) => address.octets()[0] != 0 && address.octets()[0] < 224,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
    };
    is_hosts
        && !is_link_local(address)
        && !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unspecified()
}

/// Reads an address, or a prefix whose host bits are zero.
pub(super) fn read(text: &str) -> Result<IpNet, Error> {
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
pub(super) fn free(state: &State, external: IpNet) -> Result<(), Error> {
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
pub(in crate::engine) fn not_external(state: &State, what: &str, address: IpAddr) -> Result<(), Error> {
    let Some(owner) = state.externals.values().find(|it| it.external.contains(&address)) else {
        return Ok(());
    };
    Err(Error::conflict(format!(
        "cannot {what} {address}: it is an external address of {}",
        name(state, owner.target)
    )))
}

/// The endpoint that is to have one address.
pub(super) fn endpoint<'a>(state: &'a State, external: IpNet, text: &str) -> Result<&'a Endpoint, Error> {
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
pub(super) fn network<'a>(state: &'a State, external: IpNet, text: &str) -> Result<&'a Network, Error> {
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
pub(super) fn name(state: &State, target: Target) -> String {
    let (kind, name) = match target {
        Target::Endpoint(id) => ("endpoint", state.endpoints.get(&id).map(|it| &it.name)),
        Target::Network(id) => ("network", state.networks.get(&id).map(|it| &it.name)),
    };
    format!("{kind} {}", name.map(String::as_str).unwrap_or_default())
}

/// An address without the length of all of it.
pub(super) fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Bridge, Driver, ErrorKind, HostPorts, MacAddress, Protocol, Reserver, Timestamp, sample,
    };

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
