//! The network `bridge`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::settings::{Invalid, Settings};
use crate::model::{IPV6_MTU, prefix};

/// The kernel bridge of the network `bridge`, unless the file says otherwise.
pub const DEFAULT_BRIDGE: &str = "netd0";

/// The network `bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultBridge {
    /// The kernel bridge; `None` for no such network.
    pub interface: Option<String>,
    /// The bridge's own address, and with it the subnet.
    pub bip: Option<Ipv4Net>,
    /// The bridge's own IPv6 address.
    pub bip6: Option<Ipv6Net>,
    /// Where endpoints' addresses come from.
    pub fixed_cidr: Option<Ipv4Net>,
    /// Where endpoints' IPv6 addresses come from.
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// The endpoints' default route, if it is not the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    /// The endpoints' IPv6 default route, if it is not the bridge.
    pub default_gateway_v6: Option<Ipv6Addr>,
    /// Whether endpoints get IPv6 addresses.
    pub ipv6: bool,
    /// In bytes.
    pub mtu: u32,
    /// Whether endpoints may talk to each other.
    pub icc: bool,
    /// Whether traffic to the outside takes an address of the uplink.
    pub masquerade: bool,
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            interface: Some(DEFAULT_BRIDGE.to_owned()),
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            ipv6: false,
            mtu: 1500,
            icc: true,
            masquerade: true,
        }
    }
}

impl DefaultBridge {
    pub(super) fn read(settings: &Settings) -> Result<Self, Invalid> {
        let default = Self::default();
        let interface = settings.text("bridge")?;
        let bridge = Self {
            interface: match interface {
                None => default.interface,
                Some("none") => None,
                Some(name) => Some(name.to_owned()),
            },
            bip: cidr(settings, "bip")?,
            bip6: cidr(settings, "bip6")?,
            fixed_cidr: cidr(settings, "fixed-cidr")?,
            fixed_cidr_v6: cidr(settings, "fixed-cidr-v6")?,
            default_gateway: address(settings, "default-gateway")?,
            default_gateway_v6: address(settings, "default-gateway-v6")?,
            ipv6: settings.boolean("ipv6")?.unwrap_or(default.ipv6),
            mtu: match settings.integer("mtu")? {
                // 0 is Docker's way to say "the default"; an Ethernet interface takes 68 to 65535.
                None | Some(0) => default.mtu,
                Some(mtu @ 68..=65535) => mtu as u32,
                Some(mtu) => return Err(Invalid::new("mtu", format!("invalid default MTU: {mtu}"))),
            },
            icc: settings.boolean("icc")?.unwrap_or(default.icc),
            masquerade: settings.boolean("ip-masq")?.unwrap_or(default.masquerade),
        };
        if interface.is_some() && (bridge.bip.is_some() || bridge.bip6.is_some()) {
            let reason = "You specified -b & --bip, mutually exclusive options. Please specify only one";
            return Err(Invalid::new("bridge", reason));
        }
        if bridge.ipv6 && bridge.mtu < IPV6_MTU {
            let mtu = bridge.mtu;
            let reason = format!("invalid MTU number: {mtu} (IPv6 needs {IPV6_MTU} bytes)");
            return Err(Invalid::value("mtu", reason));
        }
        for (key, set) in [("bip6", bridge.bip6.is_some()), ("fixed-cidr-v6", bridge.fixed_cidr_v6.is_some())]
        {
            if set && !bridge.ipv6 {
                return Err(Invalid::value(key, "it needs `ipv6` to be true"));
            }
        }
        Ok(bridge)
    }
}

fn cidr<T: FromStr>(settings: &Settings, key: &str) -> Result<Option<T>, Invalid> {
    let Some(text) = settings.text(key)? else { return Ok(None) };
    prefix(text).map(Some).ok_or_else(|| Invalid::value(key, format!("invalid CIDR address: {text}")))
}

fn address<T: FromStr>(settings: &Settings, key: &str) -> Result<Option<T>, Invalid> {
    let Some(text) = settings.text(key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Invalid::value(key, format!("invalid IP address: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<DefaultBridge, String> {
        DefaultBridge::read(&Settings::parse(json.as_bytes()).unwrap()).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn the_default_bridge_is_read() {
        let bridge =
            read(r#"{"bip": "192.168.1.5/24", "fixed-cidr": "192.168.1.128/25", "mtu": 1400, "bip6": ""}"#)
                .unwrap();
        assert_eq!(bridge.bip.unwrap().to_string(), "192.168.1.5/24");
        assert_eq!((bridge.fixed_cidr.unwrap().prefix_len(), bridge.mtu, bridge.bip6), (25, 1400, None));
        assert_eq!(read(r#"{"bridge": "none"}"#).unwrap().interface, None);
        assert_eq!(read(r#"{"mtu": 0}"#).unwrap().mtu, 1500);
    }

    #[test]
    fn bad_values_are_named_with_their_key() {
        let error = |json| read(json).unwrap_err();
        assert_eq!(
            error(r#"{"bip": "192.168.1.1"}"#),
            "invalid value for `bip`: invalid CIDR address: 192.168.1.1"
        );
        assert_eq!(
            error(r#"{"fixed-cidr": "010.0.0.0/8"}"#),
            "invalid value for `fixed-cidr`: invalid CIDR address: 010.0.0.0/8"
        );
        assert_eq!(
            error(r#"{"default-gateway": "::1"}"#),
            "invalid value for `default-gateway`: invalid IP address: ::1"
        );
        assert_eq!(error(r#"{"mtu": -1}"#), "invalid default MTU: -1");
        assert_eq!(
            error(r#"{"mtu": 1000, "ipv6": true}"#),
            "invalid value for `mtu`: invalid MTU number: 1000 (IPv6 needs 1280 bytes)"
        );
        assert_eq!(error(r#"{"mtu": 65536}"#), "invalid default MTU: 65536");
        assert!(error(r#"{"bridge": "br9", "bip": "10.0.0.1/8"}"#).starts_with("You specified -b & --bip"));
        assert!(error(r#"{"fixed-cidr-v6": "fd00::/64"}"#).contains("`fixed-cidr-v6`"));
    }
}
