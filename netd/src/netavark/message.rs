//! Networks and containers in netavark's words, and what they are in netd's.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Error, invalid};
use crate::{
    cni::drop_nulls,
    model::{
        Route,
        attachment::{Attach, Attachment, Range},
        request::{EndpointConfig, IpamRequest, NetworkCreate, PUBLISH, PoolRequest},
    },
};

const BRIDGE: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
/// The network is not the way out.
const NO_DEFAULT_ROUTE: &str = "no_default_route";

/// A network, as far as netd looks at it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) id: String,
    network_interface: String,
    subnets: Vec<Subnet>,
    routes: Vec<StaticRoute>,
    ipv6_enabled: bool,
    internal: bool,
    dns_enabled: bool,
    network_dns_servers: Vec<IpAddr>,
    options: BTreeMap<String, String>,
    ipam_options: BTreeMap<String, String>,
}

/// A subnet. Its `lease_range` is for whoever chooses addresses, which is podman.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Subnet {
    subnet: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct StaticRoute {
    destination: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    metric: u32,
    #[serde(default)]
    route_type: Option<String>,
}

/// A container that joins a network, or leaves it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Setup {
    container_id: String,
    container_name: String,
    port_mappings: Vec<PortMapping>,
    network: Network,
    network_options: NetworkOptions,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct NetworkOptions {
    aliases: Vec<String>,
    interface_name: String,
    static_ips: Vec<IpAddr>,
    static_mac: String,
    options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct PortMapping {
    container_port: u16,
    host_ip: String,
    host_port: u16,
    /// One, or several with commas between.
    protocol: String,
    /// How many ports there are; 0 is 1.
    range: u16,
}

/// Reads JSON. What is null is as good as absent.
pub(super) fn read(input: &[u8]) -> Result<Value, Error> {
    let mut value =
        serde_json::from_slice(input).map_err(|error| invalid(format!("invalid input: {error}")))?;
    drop_nulls(&mut value);
    Ok(value)
}

pub(super) fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(value).map_err(|error| invalid(format!("invalid input: {error}")))
}

/// Options of Docker's and of netd's have a dot in their names; of netavark's own, netd has `mtu` and `no_default_route`.
fn options(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let mut options = BTreeMap::new();
    for (name, value) in given {
        match name.as_str() {
            "mtu" if value == "0" => None,
            "mtu" => options.insert(MTU.to_owned(), value.clone()),
            NO_DEFAULT_ROUTE => None,
            name if name.contains('.') => options.insert(name.to_owned(), value.clone()),
            name => return Err(invalid(format!("unsupported network option {name}"))),
        };
    }
    Ok(options)
}

impl Network {
    /// What is asked of the daemon for it.
    pub(super) fn request(&self) -> Result<NetworkCreate, Error> {
        for (what, text) in [("name", &self.name), ("id", &self.id)] {
            if text.is_empty() {
                return Err(invalid(format!("invalid network: its {what} is empty")));
            }
        }
        let ipam = self.ipam_options.get("driver").map(String::as_str).unwrap_or_default();
        if !["", "host-local"].contains(&ipam) {
            return Err(invalid(format!("unsupported ipam driver {ipam}: netd's networks need host-local")));
        }
        let mut options = options(&self.options)?;
        if !self.network_interface.is_empty() {
            options.entry(BRIDGE.to_owned()).or_insert_with(|| self.network_interface.clone());
        }
        let has = |ipv6: bool| self.subnets.iter().any(|it| it.subnet.addr().is_ipv6() == ipv6);
        let config = self.subnets.iter().map(|it| PoolRequest {
            subnet: it.subnet.to_string(),
            // One that is asked for is told again, one that is not is not.
            gateway: it.gateway.or(it.subnet.hosts().next()).map(|it| it.to_string()).unwrap_or_default(),
            ..PoolRequest::default()
        });
        Ok(NetworkCreate {
            name: self.name.clone(),
            internal: self.internal,
            enable_ipv4: Some(self.subnets.is_empty() || has(false)),
            enable_ipv6: Some(self.ipv6_enabled || has(true)),
            ipam: Some(IpamRequest { config: config.collect(), ..IpamRequest::default() }),
            options,
            ..NetworkCreate::default()
        })
    }

    /// Puts into a description what the daemon chose: `pools` are subnets with their gateways.
    pub(super) fn complete<'a>(
        &self,
        given: &mut Value,
        pools: impl Iterator<Item = (&'a str, Option<&'a str>)>,
        bridge: &str,
    ) {
        if self.network_interface.is_empty() {
            given["network_interface"] = bridge.into();
        }
        let described = given["subnets"].take();
        let described = described.as_array().cloned().unwrap_or_default();
        let subnets = pools.map(|(subnet, gateway)| {
            let known = described.iter().find(|it| it["subnet"] == subnet).cloned();
            let mut it = known.unwrap_or_else(|| json!({ "subnet": subnet }));
            if let Some(gateway) = gateway
                && it["gateway"].is_null()
            {
                it["gateway"] = gateway.into();
            }
            it
        });
        let subnets: Vec<Value> = subnets.collect();
        let is_ipv6 = |it: &Value| it["subnet"].as_str().is_some_and(|subnet| subnet.contains(':'));
        given["ipv6_enabled"] = subnets.iter().any(is_ipv6).into();
        given["subnets"] = subnets.into();
    }
}

impl Setup {
    /// What the daemon knows it by: network, container and interface.
    pub(super) fn key(&self) -> [&str; 3] {
        [&self.network.name, &self.container_id, &self.network_options.interface_name]
    }

    /// What is asked of the daemon for it.
    pub(super) fn request(&self, netns: &str) -> Result<Attach, Error> {
        let own = &self.network_options;
        for (what, text) in [("container_id", &self.container_id), ("interface_name", &own.interface_name)] {
            if text.is_empty() {
                return Err(invalid(format!("invalid {what}: it is empty")));
            }
        }
        // The network's families and subnets are its ranges.
        let network = NetworkCreate {
            enable_ipv4: None,
            enable_ipv6: None,
            ipam: None,
            labels: BTreeMap::from([(super::LABEL.to_owned(), self.network.id.clone())]),
            ..self.network.request()?
        };
        let range =
            |it: &Subnet| vec![Range { subnet: it.subnet, first: None, last: None, gateway: it.gateway }];
        let mut driver_opts = options(&own.options)?;
        let ports =
            self.port_mappings.iter().map(PortMapping::specs).collect::<Result<Vec<_>, _>>()?.concat();
        if !ports.is_empty() {
            driver_opts.insert(PUBLISH.to_owned(), ports.join(","));
        }
        let mut aliases = own.aliases.clone();
        if !self.container_name.is_empty() && !aliases.contains(&self.container_name) {
            aliases.push(self.container_name.clone());
        }
        let no_default_route = self.network.options.get(NO_DEFAULT_ROUTE);
        Ok(Attach {
            network,
            ranges: self.network.subnets.iter().map(range).collect(),
            container: self.container_id.clone(),
            sandbox: netns.to_owned(),
            interface: own.interface_name.clone(),
            requested: own.static_ips.clone(),
            default_routes: no_default_route
                .filter(|value| matches!(&***value, "1" | "true"))
                .map(|_| Vec::new()),
            routes: self.network.routes.iter().map(StaticRoute::read).collect::<Result<_, _>>()?,
            endpoint_config: EndpointConfig {
                aliases,
                mac_address: own.static_mac.clone(),
                driver_opts,
                ..EndpointConfig::default()
            },
            ..Attach::default()
        })
    }

    /// What is told of it when it is done.
    pub(super) fn status(&self, attached: &Attachment) -> Value {
        let subnets: Vec<_> = attached
            .addresses
            .iter()
            .map(|it| match it.gateway {
                Some(gateway) => json!({"ipnet": it.address, "gateway": gateway}),
                None => json!({"ipnet": it.address}),
            })
            .collect();
        let interface = json!({"mac_address": attached.interface.mac, "subnets": subnets});
        let named = &self.network.network_dns_servers;
        let servers = match (named.is_empty(), self.network.dns_enabled) {
            (false, _) => named.clone(),
            (true, true) => attached.servers.clone(),
            (true, false) => Vec::new(),
        };
        json!({
            "dns_search_domains": [],
            "dns_server_ips": servers,
            "interfaces": {(attached.interface.name.clone()): interface},
        })
    }
}

impl StaticRoute {
    fn read(&self) -> Result<Route, Error> {
        match self.route_type.as_deref() {
            None | Some("" | "unicast") => {}
            Some(other) => {
                return Err(invalid(format!(
                    "unsupported type {other} of the route to {}",
                    self.destination
                )));
            }
        }
        Ok(Route { destination: self.destination.trunc(), gateway: self.gateway, metric: self.metric })
    }
}

impl PortMapping {
    /// As `docker run -p` has it, for each protocol.
    fn specs(&self) -> Result<Vec<String>, Error> {
        let more = self.range.max(1) - 1;
        let ports = |what: &str, first: u16| match first.checked_add(more) {
            Some(last) if last != first => Ok(format!("{first}-{last}")),
            Some(_) => Ok(first.to_string()),
            None => Err(invalid(format!("invalid {what}: {first} and {more} more are too many"))),
        };
        let container = ports("container_port", self.container_port)?;
        let host = if self.host_port == 0 { String::new() } else { ports("host_port", self.host_port)? };
        let address = match self.host_ip.as_str() {
            "" => String::new(),
            text => match text.parse().map_err(|_| invalid(format!("invalid host_ip: {text}")))? {
                IpAddr::V4(address) => format!("{address}:"),
                IpAddr::V6(address) => format!("[{address}]:"),
            },
        };
        let protocols = if self.protocol.is_empty() { "tcp" } else { &self.protocol };
        Ok(protocols
            .split(',')
            .map(|protocol| format!("{address}{host}:{container}/{}", protocol.trim()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_docker_reads_them() {
        let specs = |json: Value| {
            let mapping: PortMapping = serde_json::from_value(json).unwrap();
            mapping.specs().map_err(|Error(error)| error)
        };
        for (json, written) in [
            (json!({"container_port": 80, "host_port": 8080, "protocol": "tcp", "range": 1}), "8080:80/tcp"),
            (
                json!({"container_port": 80, "host_port": 8080, "range": 3, "protocol": "udp"}),
                "8080-8082:80-82/udp",
            ),
            (json!({"container_port": 80, "host_ip": "::1", "host_port": 0}), "[::1]::80/tcp"),
            (
                json!({"container_port": 53, "host_ip": "127.0.0.1", "host_port": 53, "protocol": "tcp,udp"}),
                "127.0.0.1:53:53/tcp 127.0.0.1:53:53/udp",
            ),
        ] {
            let written: Vec<_> = written.split(' ').map(str::to_owned).collect();
            assert_eq!(specs(json), Ok(written.clone()));
            for spec in written {
                spec.parse::<crate::model::PortSpec>().unwrap();
            }
        }
        assert!(specs(json!({"container_port": 65535, "range": 2})).is_err());
        assert!(specs(json!({"container_port": 80, "host_ip": "here"})).is_err());
    }

    #[test]
    fn what_netd_does_not_do_is_refused() {
        let network = |more: Value| {
            let mut json = json!({"name": "n", "id": "1"});
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parse::<Network>(&json).unwrap().request().map_err(|Error(error)| error)
        };
        for (more, reason) in [
            (json!({"name": ""}), "invalid network: its name is empty"),
            (json!({"options": {"vlan": "7"}}), "unsupported network option vlan"),
            (
                json!({"ipam_options": {"driver": "dhcp"}}),
                "unsupported ipam driver dhcp: netd's networks need host-local",
            ),
        ] {
            assert_eq!(network(more).unwrap_err(), reason);
        }
        let made =
            network(json!({"options": {"mtu": "1400", "netd.bridge.stp": "true"}, "ipv6_enabled": true}));
        let made = made.unwrap();
        assert_eq!((made.enable_ipv4, made.enable_ipv6), (Some(true), Some(true)));
        let options: Vec<_> = made.options.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(options, [(MTU, "1400"), ("netd.bridge.stp", "true")]);
    }

    #[test]
    fn a_description_keeps_what_it_had() {
        let mut given = json!({"name": "n", "id": "1", "driver": "netd", "x": [1], "subnets": [
            {"subnet": "10.1.0.0/24", "lease_range": {"start_ip": "10.1.0.9"}}
        ]});
        let network: Network = parse(&given).unwrap();
        network.complete(
            &mut given,
            [("10.1.0.0/24", Some("10.1.0.1")), ("fd00::/64", None)].into_iter(),
            "br-1",
        );
        assert_eq!(
            given,
            json!({"name": "n", "id": "1", "driver": "netd", "x": [1], "network_interface": "br-1", "ipv6_enabled": true,
            "subnets": [
                {"subnet": "10.1.0.0/24", "lease_range": {"start_ip": "10.1.0.9"}, "gateway": "10.1.0.1"},
                {"subnet": "fd00::/64"}
            ]})
        );
    }
}
