//! Driver options of a bridge network.

use std::collections::BTreeMap;

use crate::model::Error;

/// Name of the kernel bridge.
pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Whether endpoints may talk to each other.
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
/// Whether traffic to the outside takes an address of the uplink.
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Marks the network `bridge`.
pub(super) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
/// Where published ports are bound by default.
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Of the bridge and both ends of each veth.
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
/// What the endpoints' interfaces are called, before their number.
pub(super) const PREFIX: &str = "com.docker.network.container_iface_prefix";
/// A new network's IPv4, in the defaults for new networks.
pub(super) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
/// A new network's IPv6, in the defaults for new networks.
pub(super) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Options that change what a network does and that netd cannot do, with the one value that asks for nothing.
const UNSUPPORTED: [(&str, &str); 5] = [
    ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
    ("com.docker.network.bridge.gateway_mode_ipv6", "nat"),
    ("com.docker.network.bridge.inhibit_ipv4", "false"),
    ("com.docker.network.host_ipv4", ""),
    ("com.docker.network.host_ipv6", ""),
];

/// Options of one network, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) bridge: Option<String>,
    pub(super) icc: bool,
    pub(super) masquerade: bool,
    pub(super) mtu: u32,
    pub(super) prefix: String,
}

impl Options {
    pub(super) fn read(options: &BTreeMap<String, String>) -> Result<Self, Error> {
        for (name, harmless) in UNSUPPORTED {
            if let Some(value) = options.get(name).filter(|value| *value != harmless) {
                return Err(Error::not_implemented(format!("option {name}={value} is not supported")));
            }
        }
        let text = |name: &str| options.get(name).filter(|value| !value.is_empty());
        let bridge = text(BRIDGE_NAME).map(|name| interface_name(name).map(|()| name.clone())).transpose()?;
        let prefix = text(PREFIX).cloned().unwrap_or_else(|| "eth".to_owned());
        // The longest number is four digits: a kernel bridge has 1023 ports.
        interface_name(&format!("{prefix}0000"))?;
        Ok(Self {
            bridge,
            icc: boolean(options, ICC)?.unwrap_or(true),
            masquerade: boolean(options, MASQUERADE)?.unwrap_or(true),
            mtu: mtu(options)?.unwrap_or(1500),
            prefix,
        })
    }
}

/// Reads a truth value as Go does, with Docker's text if it is none.
pub(super) fn boolean(options: &BTreeMap<String, String>, name: &str) -> Result<Option<bool>, Error> {
    let Some(value) = options.get(name) else { return Ok(None) };
    match value.as_str() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
        _ => Err(Error::invalid(format!(
            "failed to parse {name} value: {value} (strconv.ParseBool: parsing \"{value}\": invalid syntax)"
        ))),
    }
}

fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>, Error> {
    let Some(value) = options.get(MTU) else { return Ok(None) };
    let number: i64 = value.parse().map_err(|_| {
        Error::invalid(format!(
            "failed to parse {MTU} value: {value} (strconv.Atoi: parsing \"{value}\": invalid syntax)"
        ))
    })?;
    match number {
        0 => Ok(None),
        68..=65535 => Ok(Some(number as u32)),
        _ => Err(Error::invalid(format!("invalid MTU number: {number}"))),
    }
}

/// Whether the kernel would take the name for a link.
pub(super) fn interface_name(name: &str) -> Result<(), Error> {
    let fits = !name.is_empty() && name.len() < libc::IFNAMSIZ && name != "." && name != "..";
    if fits && !name.chars().any(|c| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control())
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid interface name {name:?}: it must have 1 to 15 characters, and no /, :, % or space"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Options, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Options::read(&options).map_err(|error| error.message)
    }

    #[test]
    fn options_are_read() {
        let default = read(&[("unknown", "x")]).unwrap();
        assert_eq!(
            default,
            Options { bridge: None, icc: true, masquerade: true, mtu: 1500, prefix: "eth".into() }
        );
        let set =
            read(&[(BRIDGE_NAME, "br9"), (ICC, "false"), (MASQUERADE, "0"), (MTU, "9000"), (PREFIX, "net")]);
        let wanted = Options {
            bridge: Some("br9".into()),
            icc: false,
            masquerade: false,
            mtu: 9000,
            prefix: "net".into(),
        };
        assert_eq!(set.unwrap(), wanted);
    }

    #[test]
    fn bad_values_are_refused_in_dockers_words() {
        let error = |name, value| read(&[(name, value)]).unwrap_err();
        assert_eq!(
            error(ICC, "maybe"),
            format!(
                "failed to parse {ICC} value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)"
            )
        );
        assert!(error(MTU, "big").starts_with(&format!("failed to parse {MTU} value: big")));
        assert_eq!(error(MTU, "-1"), "invalid MTU number: -1");
        assert_eq!(error(MTU, "65536"), "invalid MTU number: 65536");
        assert!(error(BRIDGE_NAME, "a/b").starts_with("invalid interface name"));
        assert!(
            error("com.docker.network.bridge.gateway_mode_ipv4", "routed")
                .ends_with("routed is not supported")
        );
    }
}
