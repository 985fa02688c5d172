//! What ADD asks of the daemon, from the configuration and the runtime's words.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Plugin,
    error::{Code, Error},
    result::{self, Outcome},
};
use crate::model::{
    Route,
    attachment::{Address, Attach},
    request::{EndpointConfig, NetworkCreate, PUBLISH},
};

/// Network options that keys of the configuration stand for.
const BRIDGE: &str = "com.docker.network.bridge.name";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";

impl Plugin<'_> {
    /// What ADD asks of the daemon.
    pub(super) fn request(&self, given: Option<&Outcome>) -> Result<Attach, Error> {
        let (config, environment) = (self.config, self.environment);
        // A runtime may ask for one address in several ways.
        let mut requested = environment.args.ips.clone();
        requested.extend(config.requested()?);
        let mut seen = BTreeSet::new();
        requested.retain(|address| seen.insert(*address));
        let addresses = given.map(|given| {
            let address = |ip: &result::Ip| Address {
                address: ip.address,
                gateway: ip.gateway.filter(|_| config.keys.is_gateway != Some(false)),
            };
            given.ips.iter().map(address).collect::<Vec<_>>()
        });
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::new(Code::InvalidConfig, "IPAM plugin returned missing IP config"));
        }
        let addresses = addresses.unwrap_or_default();
        let routes = given.map(|given| given.routes.clone()).or_else(|| config.keys.ipam.routes.clone());
        let is_default = |route: &result::Route| {
            let gateway = route.gw;
            route.dst.prefix_len() == 0
                && route.priority == 0
                && (gateway.is_none() || addresses.iter().any(|address| address.gateway == gateway))
        };
        let default_routes = match (&routes, config.keys.is_default_gateway) {
            (_, Some(true)) | (None, None) => None,
            (_, Some(false)) => Some(Vec::new()),
            (Some(routes), None) => {
                Some(routes.iter().filter(|route| is_default(route)).map(|route| route.dst).collect())
            }
        };
        let mut leads = Vec::new();
        for route in routes.iter().flatten() {
            if route.mtu != 0 || route.advmss != 0 || route.table.is_some() || route.scope.is_some() {
                return Err(Error::new(
                    Code::UnsupportedField,
                    format!("route to {}: of its attributes netd knows gw and priority", route.dst),
                ));
            }
            if !is_default(route) {
                leads.push(Route {
                    destination: route.dst.trunc(),
                    gateway: route.gw,
                    metric: route.priority,
                });
            }
        }
        let mut aliases: Vec<_> = environment.args.name.iter().cloned().collect();
        aliases.extend(config.aliases());
        let mut driver_opts = BTreeMap::new();
        let ports = config.ports()?;
        if !ports.is_empty() {
            driver_opts.insert(PUBLISH.to_owned(), ports.join(","));
        }
        driver_opts.extend(config.keys.runtime_config.bandwidth.options()?);
        let mac = config.mac().unwrap_or(&environment.args.mac).to_owned();
        Ok(Attach {
            network: self.network(),
            ranges: if given.is_some() { Vec::new() } else { config.ranges()? },
            ipam: config.foreign_ipam().unwrap_or_default().to_owned(),
            container: environment.container.clone(),
            sandbox: environment.netns.clone(),
            interface: environment.interface.clone(),
            addresses,
            requested: if given.is_some() { Vec::new() } else { requested },
            default_routes,
            routes: leads,
            endpoint_config: EndpointConfig {
                aliases,
                mac_address: mac,
                driver_opts,
                ..EndpointConfig::default()
            },
        })
    }

    /// The network that the configuration means.
    fn network(&self) -> NetworkCreate {
        let keys = &self.config.keys;
        let mut options = keys.options.clone();
        let said = [
            (BRIDGE, keys.bridge.clone().filter(|name| !name.is_empty())),
            (MASQUERADE, Some(keys.ip_masq.unwrap_or(false).to_string())),
            (INHIBIT_IPV4, keys.is_gateway.filter(|gateway| !gateway).map(|_| "true".to_owned())),
            (MTU, keys.mtu.filter(|mtu| *mtu != 0).map(|mtu| mtu.to_string())),
        ];
        for (name, value) in said {
            if let Some(value) = value {
                options.entry(name.to_owned()).or_insert(value);
            }
        }
        NetworkCreate {
            name: self.config.name.clone(),
            internal: keys.internal,
            options,
            ..NetworkCreate::default()
        }
    }

    /// Refuses what would do nothing.
    pub(super) fn refuse_unsupported(&self) -> Result<(), Error> {
        let keys = &self.config.keys;
        let asked = [
            ("promiscMode", keys.promisc_mode),
            ("disableContainerInterface", keys.disable_container_interface),
            ("vlan", keys.vlan != 0),
            ("vlanTrunk", !keys.vlan_trunk.is_empty()),
            ("portIsolation", keys.port_isolation),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            Some((key, _)) => Err(Error::new(Code::UnsupportedField, format!("unsupported field {key}"))),
            None => Ok(()),
        }
    }
}
