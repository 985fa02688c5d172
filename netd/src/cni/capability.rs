//! What runtimes ask for by a plugin's capabilities, beside the configuration: `runtimeConfig`.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::{
    config::{RangeKeys, invalid},
    error::Error,
};
use crate::model::request::{EGRESS, EGRESS_BURST, INGRESS, INGRESS_BURST};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RuntimeConfig {
    pub(super) port_mappings: Vec<PortMapping>,
    pub(super) bandwidth: Bandwidth,
    pub(super) ips: Vec<String>,
    pub(super) mac: String,
    pub(super) ip_ranges: Vec<Vec<RangeKeys>>,
    pub(super) dns: RuntimeDns,
    pub(super) aliases: Aliases,
}

/// The capability `dns`, whose keys are not those of a result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RuntimeDns {
    pub(super) servers: Vec<String>,
    pub(super) searches: Vec<String>,
    pub(super) options: Vec<String>,
}

/// The capability `aliases`: of this network, or as podman has it by network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Aliases {
    /// This network's.
    Own(Vec<String>),
    /// Those of each network, by its name.
    ByNetwork(BTreeMap<String, Vec<String>>),
}

impl Default for Aliases {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

/// A port to publish.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PortMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// Rates and bursts in bits; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Bandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

impl Bandwidth {
    /// The endpoint's options that ask for it.
    pub(super) fn options(self) -> Result<impl Iterator<Item = (String, String)>, Error> {
        for (what, rate, burst) in [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ] {
            if rate == 0 && burst != 0 {
                return Err(invalid(format!("invalid bandwidth: {what}Burst is set, and {what}Rate is not")));
            }
        }
        let said = [
            (INGRESS, self.ingress_rate),
            (INGRESS_BURST, self.ingress_burst),
            (EGRESS, self.egress_rate),
            (EGRESS_BURST, self.egress_burst),
        ];
        let said = said.into_iter().filter(|(_, bits)| *bits != 0);
        Ok(said.map(|(name, bits)| (name.to_owned(), bits.to_string())))
    }
}

impl PortMapping {
    /// As `docker run -p` has it.
    pub(super) fn spec(&self) -> Result<String, Error> {
        let port = |what: &str, port: i64| {
            let valid = u16::try_from(port).ok().filter(|port| *port != 0);
            valid.ok_or_else(|| invalid(format!("Invalid {what} port number: {port}")))
        };
        let container = port("container", self.container_port)?;
        let host = port("host", self.host_port)?;
        let protocol = match self.protocol.to_lowercase().as_str() {
            "" => "tcp".to_owned(),
            protocol @ ("tcp" | "udp" | "sctp") => protocol.to_owned(),
            protocol => return Err(invalid(format!("Invalid protocol: {protocol}"))),
        };
        let address = match self.host_ip.as_str() {
            "" => String::new(),
            text => match text.parse().map_err(|_| invalid(format!("Invalid host IP: {text}")))? {
                IpAddr::V4(address) => format!("{address}:"),
                IpAddr::V6(address) => format!("[{address}]:"),
            },
        };
        Ok(format!("{address}{host}:{container}/{protocol}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn bad_ports_are_refused_in_portmaps_words() {
        let error = |mapping: Value| {
            serde_json::from_value::<PortMapping>(mapping).unwrap().spec().unwrap_err().message
        };
        assert_eq!(error(json!({"hostPort": 0, "containerPort": 80})), "Invalid host port number: 0");
        assert_eq!(error(json!({"hostPort": 80, "containerPort": 0})), "Invalid container port number: 0");
        assert_eq!(
            error(json!({"hostPort": 80, "containerPort": 65536})),
            "Invalid container port number: 65536"
        );
        assert_eq!(error(json!({"hostPort": 80, "containerPort": 80, "hostIP": "x"})), "Invalid host IP: x");
    }
}
