//! Texts and values in the engine's JSON.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::model::{Endpoint, Error, Publication};

/// Options as the engine passes them on: by label, some of them structured.
pub(super) type Options = Map<String, Value>;

/// The driver options among an engine's options, as texts.
const GENERIC: &str = "com.docker.network.generic";

/// A subnet with an address in it, in text.
pub(super) fn net(field: &str, text: &str) -> Result<IpNet, Error> {
    text.parse().map_err(|_| Error::invalid(format!("invalid {field} {text}: invalid CIDR block notation")))
}

/// An address in text, with a prefix length or without; nothing if there is no text.
pub(super) fn address(field: &str, text: &str) -> Result<Option<IpAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.split('/').next().unwrap_or_default().parse();
    address.map(Some).map_err(|_| Error::invalid(format!("invalid {field} {text}: invalid address")))
}

/// A truth value among options; it may come as a text.
pub(super) fn flag(options: &Options, label: &str) -> Result<bool, Error> {
    match options.get(label) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" || text.is_empty() => Ok(false),
        Some(other) => Err(Error::invalid(format!("invalid option {label}: {other} is not a truth value"))),
    }
}

/// The driver options, `-o KEY=VALUE` on the engine's command line. Values that are no texts are taken as they are written.
pub(super) fn driver_options(options: &Options) -> Result<BTreeMap<String, String>, Error> {
    match options.get(GENERIC) {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(options)) => {
            Ok(options.iter().map(|(label, value)| (label.clone(), text(value))).collect())
        }
        Some(other) => Err(Error::invalid(format!("invalid option {GENERIC}: {other} is not an object"))),
    }
}

/// An endpoint's options that are netd's own, `--driver-opt netd.KEY=VALUE`: they come beside the engine's.
pub(super) fn own_options(options: &Options) -> BTreeMap<String, String> {
    let own = options.iter().filter(|(label, _)| label.starts_with("netd."));
    own.map(|(label, value)| (label.clone(), text(value))).collect()
}

/// A value among options as a text.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The ports of one publication, as the engine has them: one by one.
pub(super) fn port_bindings(endpoint: &Endpoint, publication: &Publication) -> Vec<Value> {
    let host = publication.host;
    let own = if host.address.is_ipv4() {
        endpoint.ipv4.map(|net| net.addr().to_string())
    } else {
        endpoint.ipv6.map(|net| net.addr().to_string())
    };
    // Where the endpoint's own address is what is reached, no port of the host's leads to it.
    let routed = own.as_ref().is_some_and(|own| *own == host.address.to_string());
    let binding = |port: u16| {
        let host_port = if routed { 0 } else { port };
        serde_json::json!({
            "Proto": host.protocol.number(),
            "IP": own.as_deref().unwrap_or_default(),
            "Port": publication.container + (port - host.first),
            "HostIP": if routed { String::new() } else { host.address.to_string() },
            "HostPort": host_port,
            "HostPortEnd": host_port,
        })
    };
    (host.first..=host.last).map(binding).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(value: Value) -> Options {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn values_are_read_as_the_engine_writes_them() {
        assert_eq!(net("pool", "10.9.0.0/16").unwrap().to_string(), "10.9.0.0/16");
        assert_eq!(
            net("pool", "10.9.0.0").unwrap_err().message,
            "invalid pool 10.9.0.0: invalid CIDR block notation"
        );
        assert_eq!(address("gateway", "10.9.0.1/16").unwrap(), "10.9.0.1".parse().ok());
        assert_eq!(address("gateway", "").unwrap(), None);
        assert_eq!(address("gateway", "here").unwrap_err().message, "invalid gateway here: invalid address");
        let flags = options(json!({"a": true, "b": "true", "c": "", "d": 1}));
        assert_eq!(
            ["a", "b", "c", "x"].map(|label| flag(&flags, label).unwrap()),
            [true, true, false, false]
        );
        assert_eq!(flag(&flags, "d").unwrap_err().message, "invalid option d: 1 is not a truth value");
    }

    #[test]
    fn driver_options_are_texts() {
        let given = options(json!({GENERIC: {"k": "v", "n": 1400, "t": true}}));
        let read = driver_options(&given).unwrap();
        let pairs: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("k", "v"), ("n", "1400"), ("t", "true")]);
        assert!(driver_options(&options(json!({GENERIC: "k=v"}))).is_err());
        let given = options(json!({"com.docker.network.portmap": [], "netd.rate.ingress": "1mbit"}));
        assert_eq!(own_options(&given), [("netd.rate.ingress".to_owned(), "1mbit".to_owned())].into());
    }
}
