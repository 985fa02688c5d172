//! What a request says of an endpoint, read with every fault told at once.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use super::{bridge, options, rate};
use crate::model::{
    Bridge, Error, Network, Pool, Port, Rates, Sysctl, is_link_local, request::EndpointConfig,
};

/// Endpoint option: the interface's name.
pub(super) const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// Endpoint option: settings of the interface.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What is asked of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The address of the network's IPv4 subnet.
    pub(super) ipv4: Option<Ipv4Addr>,
    /// The address of the network's IPv6 subnet.
    pub(super) ipv6: Option<Ipv6Addr>,
    /// Further addresses, with the prefix lengths of link-local ones.
    pub(super) link_local: Vec<IpNet>,
    /// The interface's name.
    pub(super) interface: Option<String>,
    /// Its kernel settings.
    pub(super) sysctls: Vec<Sysctl>,
    /// How the bridge treats its port.
    pub(super) port: Port,
    /// How fast it may send and be sent to.
    pub(super) rates: Rates,
}

impl Asked {
    pub(super) fn read(config: &EndpointConfig, network: &Network, bridge: &Bridge) -> Result<Self, Error> {
        let mut faults = Vec::new();
        let wanted = config.ipam_config.clone().unwrap_or_default();
        let fixed = !wanted.ipv4_address.is_empty() || !wanted.ipv6_address.is_empty();
        if network.is_predefined() {
            if fixed {
                faults
                    .push("user specified IP address is supported on user defined networks only".to_owned());
            }
            if !config.aliases.is_empty() {
                let what = "network-scoped alias is supported only for containers in user defined networks";
                faults.push(what.to_owned());
            }
        }
        let ipv4 =
            address(&wanted.ipv4_address, "IPv4", |ipv4: Ipv4Addr| !ipv4.is_unspecified(), &mut faults);
        let bearable = |ipv6: Ipv6Addr| !ipv6.is_unspecified() && ipv6.to_ipv4_mapped().is_none();
        let ipv6 = address(&wanted.ipv6_address, "IPv6", bearable, &mut faults);
        let link_local =
            wanted.link_local_ips.iter().filter_map(|text| link_local(text, &mut faults)).collect();
        if !network.is_predefined() {
            within(network.pool4(), ipv4.map(IpAddr::from), &mut faults);
            within(network.pool6(), ipv6.map(IpAddr::from), &mut faults);
        }
        let mut sysctls = Vec::new();
        for text in config.driver_opts.get(SYSCTLS).into_iter().flat_map(|all| all.split(',')) {
            match text.parse() {
                Ok(sysctl) => sysctls.push(sysctl),
                Err(why) => faults.push(format!("{why}")),
            }
        }
        if !faults.is_empty() {
            return Err(Error::invalid(format!("invalid endpoint settings:\n{}", faults.join("\n"))));
        }
        let interface = config.driver_opts.get(IFNAME).cloned();
        interface.as_deref().map(options::interface_name).transpose()?;
        options::only_endpoints(&config.driver_opts)?;
        let port = bridge::read_port(&config.driver_opts, bridge)?;
        let rates = rate::read(&config.driver_opts)?;
        Ok(Self { ipv4, ipv6, link_local, interface, sysctls, port, rates })
    }
}

/// Reads an address of one family that one interface can bear; an empty text asks for none.
fn address<A: FromStr + Copy>(
    text: &str,
    family: &str,
    bearable: impl Fn(A) -> bool,
    faults: &mut Vec<String>,
) -> Option<A> {
    if text.is_empty() {
        return None;
    }
    let read = text.parse().ok().filter(|&address| bearable(address));
    if read.is_none() {
        faults.push(format!("invalid {family} address: {text}"));
    }
    read
}

/// A link-local address, with the prefix length that link-local addresses of its family have.
fn link_local(text: &str, faults: &mut Vec<String>) -> Option<IpNet> {
    let read = text.parse().ok().filter(|address| is_link_local(*address));
    if read.is_none() {
        faults.push(format!("invalid link-local IP address: {text}"));
    }
    let address = read?;
    IpNet::new(address, if address.is_ipv4() { 16 } else { 64 }).ok()
}

/// An address can be asked for where the subnet was, and only of that.
fn within(pool: Option<&Pool>, wanted: Option<IpAddr>, faults: &mut Vec<String>) {
    let Some(wanted) = wanted else { return };
    match pool.filter(|pool| pool.requested) {
        None => faults.push(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        ),
        Some(pool) if !pool.subnet.contains(&wanted) => {
            faults.push(format!("no configured subnet or ip-range contain the IP address {wanted}"));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{MacAddress, request::EndpointAddresses, sample};

    /// A network with a subnet of each family, asked for or not.
    fn network(name: &str, requested: bool) -> Network {
        let pools = ["10.5.0.0/16", "fd00:5::/64"].map(|subnet| Pool { requested, ..sample::pool(subnet) });
        Network {
            bridge: Some(Bridge::new(1, "br1", MacAddress::new([2, 0, 0, 0, 0, 1]))),
            ..sample::network(1, name, pools.into())
        }
    }

    fn read(network: &Network, config: &EndpointConfig) -> Result<Asked, String> {
        let asked = Asked::read(config, network, network.bridge.as_ref().unwrap());
        asked.map_err(|error| error.message)
    }

    fn addresses(ipv4: &str, ipv6: &str, link_local: &[&str]) -> EndpointConfig {
        let ipam_config = EndpointAddresses {
            ipv4_address: ipv4.into(),
            ipv6_address: ipv6.into(),
            link_local_ips: link_local.iter().map(|&text| text.to_owned()).collect(),
        };
        EndpointConfig { ipam_config: Some(ipam_config), ..EndpointConfig::default() }
    }

    #[test]
    fn good_requests_are_read() {
        assert_eq!(read(&network("bridge", false), &EndpointConfig::default()).unwrap(), Asked::default());
        let mut config = addresses("10.5.9.9", "fd00:5::9", &["169.254.1.1", "fe80::9"]);
        config.driver_opts = BTreeMap::from(
            [
                (IFNAME, "lan0"),
                (SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.hop_limit=9"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let asked = read(&network("n", true), &config).unwrap();
        assert_eq!((asked.ipv4, asked.ipv6), ("10.5.9.9".parse().ok(), "fd00:5::9".parse().ok()));
        let link_local: Vec<_> = asked.link_local.iter().map(ToString::to_string).collect();
        assert_eq!(link_local, ["169.254.1.1/16", "fe80::9/64"]);
        assert_eq!((asked.interface.as_deref(), asked.sysctls.len()), (Some("lan0"), 2));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let mut config = addresses("garbage", "::", &["x", "0.0.0.0"]);
        config.driver_opts = BTreeMap::from([(SYSCTLS.to_owned(), "net.ipv4.conf.eth0.x=1".to_owned())]);
        config.aliases = vec!["a".into()];
        assert_eq!(
            read(&network("bridge", false), &config).unwrap_err(),
            "invalid endpoint settings:\n\
             user specified IP address is supported on user defined networks only\n\
             network-scoped alias is supported only for containers in user defined networks\n\
             invalid IPv4 address: garbage\n\
             invalid IPv6 address: ::\n\
             invalid link-local IP address: x\n\
             invalid link-local IP address: 0.0.0.0\n\
             unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; represent 'net.X.Y.ethN.Z=V' as \
             'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        );
        assert_eq!(
            read(&network("n", true), &addresses("10.6.0.1", "", &[])).unwrap_err(),
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.6.0.1"
        );
        assert_eq!(
            read(&network("n", false), &addresses("10.6.0.1", "fd00::1", &[]))
                .unwrap_err()
                .matches("user configured subnets")
                .count(),
            2
        );
    }
}
