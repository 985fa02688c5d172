//! Driver options of a bridge network.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    num::{IntErrorKind, ParseIntError},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{external::is_routable, masquerade, rate};
use crate::model::{Advertise, Bridge, Error, GatewayMode, publishable, request::PUBLISH};

/// What all options of netd's own begin with.
const OWN: &str = "netd.";
/// Namespaces of netd's own in which networks have options, and those in which endpoints have some.
const OF_NETWORKS: [&str; 2] = [super::bridge::NAMESPACE, masquerade::NAMESPACE];
const OF_ENDPOINTS: [&str; 3] = [super::bridge::NAMESPACE, rate::NAMESPACE, PUBLISH];

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

/// How the outside and the endpoints' IPv4 addresses meet.
const GATEWAY_MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
/// How the outside and the endpoints' IPv6 addresses meet.
const GATEWAY_MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// Whether the bridge goes without an IPv4 address.
const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// Interfaces of the host from which published ports are reached at the endpoints' own addresses.
const TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// The IPv4 address that masqueraded traffic takes.
const HOST4: &str = "com.docker.network.host_ipv4";
/// The IPv6 address that masqueraded traffic takes.
const HOST6: &str = "com.docker.network.host_ipv6";

/// How often an endpoint that comes up makes itself known.
const ADVERTISE_MESSAGES: &str = "com.docker.network.advertise_addr_nmsgs";
/// Milliseconds from one time to the next.
const ADVERTISE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";

/// The name of the kernel bridge, if one is asked for.
pub(super) fn bridge_name(options: &BTreeMap<String, String>) -> Result<Option<String>, Error> {
    let name = options.get(BRIDGE_NAME).filter(|name| !name.is_empty());
    name.map(|name| interface_name(name).map(|()| name.clone())).transpose()
}

/// `bridge` with what the options say of it.
pub(super) fn read(
    options: &BTreeMap<String, String>,
    internal: bool,
    bridge: Bridge,
) -> Result<Bridge, Error> {
    only(options, &OF_NETWORKS, &OF_ENDPOINTS, "an endpoint's: give it to `network connect`")?;
    boolean(options, DEFAULT_BRIDGE)?;
    let prefix = options.get(PREFIX).filter(|prefix| !prefix.is_empty()).cloned().unwrap_or(bridge.prefix);
    // The longest number is four digits: a sandbox has one interface in each network.
    const MOST_PREFIX: usize = libc::IFNAMSIZ - 1 - 4;
    if prefix.len() > MOST_PREFIX {
        let why = format!("a number follows, and so it has at most {MOST_PREFIX} characters");
        return Err(unreadable(PREFIX, &prefix, why));
    }
    interface_name(&format!("{prefix}0000"))?;
    let gateway_mode4 = parsed(options, GATEWAY_MODE4)?.unwrap_or(bridge.gateway_mode4);
    let gateway_mode6 = parsed(options, GATEWAY_MODE6)?.unwrap_or(bridge.gateway_mode6);
    if [gateway_mode4, gateway_mode6].contains(&GatewayMode::Isolated) && !internal {
        return Err(Error::internal("gateway mode 'isolated' can only be used for an internal network"));
    }
    let trusted = options.get(TRUSTED_INTERFACES).map(String::as_str).unwrap_or_default();
    let trusted_interfaces = trusted.split(':').filter(|name| !name.is_empty());
    let bridge = Bridge {
        mtu: mtu(options)?.unwrap_or(bridge.mtu),
        icc: boolean(options, ICC)?.unwrap_or(bridge.icc),
        masquerade: boolean(options, MASQUERADE)?.unwrap_or(bridge.masquerade),
        gateway_mode4,
        gateway_mode6,
        host4: source(options, HOST4)?,
        host6: source(options, HOST6)?,
        host_binding: host_binding(options)?.or(bridge.host_binding),
        trusted_interfaces: trusted_interfaces.map(str::to_owned).collect(),
        inhibit_ipv4: boolean(options, INHIBIT_IPV4)?.unwrap_or(bridge.inhibit_ipv4),
        prefix,
        advertise: advertise(options, bridge.advertise)?,
        ..bridge
    };
    super::bridge::read_network(options, masquerade::read(options, bridge)?)
}

/// Refuses what is no endpoint's among options of netd's own.
pub(super) fn only_endpoints(options: &BTreeMap<String, String>) -> Result<(), Error> {
    only(options, &OF_ENDPOINTS, &OF_NETWORKS, "a network's: give it to `network create`")
}

/// Refuses options of netd's own outside of `namespaces`, within which each is looked at by those who know it.
fn only(
    options: &BTreeMap<String, String>,
    namespaces: &[&str],
    others: &[&str],
    elsewhere: &str,
) -> Result<(), Error> {
    let is_in = |name: &str, namespaces: &[&str]| namespaces.iter().any(|it| name.starts_with(it));
    let strange = |name: &&String| name.starts_with(OWN) && !is_in(name, namespaces);
    match options.keys().find(strange) {
        None => Ok(()),
        Some(name) if is_in(name, others) => Err(Error::invalid(format!("option {name} is {elsewhere}"))),
        Some(name) => Err(Error::invalid(format!("unknown option {name}"))),
    }
}

/// An option in a namespace of netd's that is not among `known`: a slip of the pen there is nobody else's option.
pub(super) fn strange<'a>(
    options: &'a BTreeMap<String, String>,
    namespace: &str,
    known: &[&str],
) -> Option<&'a String> {
    options.keys().find(|name| name.starts_with(namespace) && !known.contains(&name.as_str()))
}

/// How an endpoint that comes up makes itself known; every fault is told, one a line.
fn advertise(options: &BTreeMap<String, String>, default: Advertise) -> Result<Advertise, Error> {
    let mut faults = Vec::new();
    let mut read = |name: &str, unit: &str, range: RangeInclusive<u16>| {
        let text = options.get(name)?;
        match text.parse::<i64>() {
            Err(_) => faults.push(format!("value for option {name} {text:?} must be {unit}")),
            Ok(number) => {
                let fits = u16::try_from(number).ok().filter(|number| range.contains(number));
                if fits.is_none() {
                    faults.push(format!("{name} must be in the range {} to {}", range.start(), range.end()));
                }
                return fits;
            }
        }
        None
    };
    let messages = read(ADVERTISE_MESSAGES, "an integer", 0..=3);
    let interval = read(ADVERTISE_INTERVAL, "integer milliseconds", 100..=2000);
    if !faults.is_empty() {
        return Err(Error::invalid(faults.join("\n")));
    }
    Ok(Advertise {
        messages: messages.map_or(default.messages, |messages| messages as u8),
        interval: interval.unwrap_or(default.interval),
    })
}

/// Docker's text for a value that cannot be read.
pub(super) fn unreadable(name: &str, value: &str, why: impl fmt::Display) -> Error {
    Error::invalid(format!("failed to parse {name} value: {value} ({why})"))
}

/// Reads a value whose own error tells why it is none.
pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
    options: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = options.get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|why| unreadable(name, value, why))
}

/// Reads an address.
fn address<T: FromStr>(options: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, Error> {
    let Some(value) = options.get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| unreadable(name, value, "nil ip"))
}

/// An address for others to answer to; the unspecified one stands for the uplink's.
fn source<T: FromStr + Copy + Into<IpAddr>>(
    options: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, Error> {
    let source: Option<T> = address(options, name)?;
    if source.map(Into::into).is_some_and(|source| !source.is_unspecified() && !is_routable(source)) {
        return Err(unreadable(name, &options[name], "no router leads to such an address"));
    }
    Ok(source)
}

fn host_binding(options: &BTreeMap<String, String>) -> Result<Option<IpAddr>, Error> {
    let binding = address(options, HOST_BINDING)?;
    binding
        .map_or(Ok(()), publishable)
        .map_err(|why| unreadable(HOST_BINDING, &options[HOST_BINDING], why))?;
    Ok(binding)
}

/// Reads a truth value as Go does, with Docker's text if it is none.
pub(super) fn boolean(options: &BTreeMap<String, String>, name: &str) -> Result<Option<bool>, Error> {
    let Some(value) = options.get(name) else { return Ok(None) };
    match value.as_str() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
        _ => Err(unreadable(name, value, format!("strconv.ParseBool: parsing \"{value}\": invalid syntax"))),
    }
}

/// Reads a whole number as Go does, with Docker's text if it is none.
pub(super) fn integer(options: &BTreeMap<String, String>, name: &str) -> Result<Option<i64>, Error> {
    let Some(value) = options.get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        unreadable(name, value, format!("strconv.Atoi: parsing \"{value}\": {why}"))
    })
}

fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>, Error> {
    match integer(options, MTU)? {
        None | Some(0) => Ok(None),
        Some(number @ 68..=65535) => Ok(Some(number as u32)),
        Some(number @ ..0) => Err(Error::invalid(format!("invalid MTU number: {number}"))),
        // Docker leaves these to the kernel, and calls its refusal a fault of its own.
        Some(number) => Err(Error::internal(format!("invalid MTU number: {number}"))),
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
    use crate::model::MacAddress;

    fn bare() -> Bridge {
        Bridge::new(1, "br1", MacAddress::new([2, 0, 0, 0, 0, 1]))
    }

    fn read_all(options: &[(&str, &str)], internal: bool) -> Result<Bridge, Error> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        bridge_name(&options)?;
        read(&options, internal, bare())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(read_all(&[("unknown", "x")], false).unwrap(), bare());
        let options = [
            (BRIDGE_NAME, "br9"),
            (ICC, "false"),
            (MASQUERADE, "0"),
            (MTU, "9000"),
            (PREFIX, "net"),
            (INHIBIT_IPV4, "T"),
            (HOST_BINDING, "::1"),
        ];
        let wanted = Bridge {
            icc: false,
            masquerade: false,
            mtu: 9000,
            prefix: "net".into(),
            inhibit_ipv4: true,
            host_binding: "::1".parse().ok(),
            ..bare()
        };
        assert_eq!(read_all(&options, false).unwrap(), wanted);
        assert_eq!(read_all(&[(MTU, "0"), (PREFIX, "")], false).unwrap(), bare());
    }

    #[test]
    fn what_is_nobodys_option_in_netds_own_namespace_is_refused() {
        let network = |name| read_all(&[(name, "1")], false).unwrap_err().message;
        assert_eq!(network("netd.mtu"), "unknown option netd.mtu");
        for name in ["netd.rate.ingress", PUBLISH] {
            assert_eq!(
                network(name),
                format!("option {name} is an endpoint's: give it to `network connect`")
            );
        }
        let endpoint = |name: &str| only_endpoints(&BTreeMap::from([(name.to_owned(), "1".to_owned())]));
        assert_eq!(endpoint("netd.mtu").unwrap_err().message, "unknown option netd.mtu");
        assert_eq!(
            endpoint("netd.masquerade.mapping").unwrap_err().message,
            "option netd.masquerade.mapping is a network's: give it to `network create`"
        );
        for name in ["netd.rate.ingress", "netd.bridge.vlan", PUBLISH, "com.example.mtu"] {
            endpoint(name).unwrap();
        }
    }

    #[test]
    fn bad_values_are_refused_in_dockers_words() {
        let error = |name, value| read_all(&[(name, value)], false).unwrap_err().message;
        for name in [ICC, MASQUERADE, INHIBIT_IPV4, DEFAULT_BRIDGE] {
            assert_eq!(
                error(name, "maybe"),
                format!(
                    "failed to parse {name} value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)"
                )
            );
        }
        assert_eq!(
            error(MTU, "big"),
            format!("failed to parse {MTU} value: big (strconv.Atoi: parsing \"big\": invalid syntax)")
        );
        assert!(error(MTU, "9223372036854775808").ends_with("value out of range)"));
        assert_eq!(error(MTU, "-1"), "invalid MTU number: -1");
        assert_eq!(error(MTU, "65536"), "invalid MTU number: 65536");
        assert!(error(BRIDGE_NAME, "a/b").starts_with("invalid interface name"));
        assert_eq!(
            error(GATEWAY_MODE6, "bogus"),
            format!("failed to parse {GATEWAY_MODE6} value: bogus (unknown gateway mode bogus)")
        );
        assert_eq!(
            error(GATEWAY_MODE4, "isolated"),
            "gateway mode 'isolated' can only be used for an internal network"
        );
        for (name, value) in [(HOST4, "fd00::1"), (HOST6, ""), (HOST_BINDING, "localhost")] {
            assert_eq!(error(name, value), format!("failed to parse {name} value: {value} (nil ip)"));
        }
        let nobodys = [
            (HOST4, "224.0.0.1"),
            (HOST4, "255.255.255.255"),
            (HOST4, "127.0.0.1"),
            (HOST6, "ff02::1"),
            (HOST6, "::1"),
            (HOST6, "fe80::1"),
        ];
        for (name, value) in nobodys {
            let why = "no router leads to such an address";
            assert_eq!(error(name, value), format!("failed to parse {name} value: {value} ({why})"));
        }
    }

    #[test]
    fn modes_and_trusted_interfaces_are_read() {
        let options = [
            (GATEWAY_MODE4, "routed"),
            (GATEWAY_MODE6, "nat-unprotected"),
            (TRUSTED_INTERFACES, "eth1::eth2"),
        ];
        let bridge = read_all(&options, false).unwrap();
        assert_eq!(
            (bridge.gateway_mode4, bridge.gateway_mode6),
            (GatewayMode::Routed, GatewayMode::NatUnprotected)
        );
        assert_eq!(bridge.trusted_interfaces, ["eth1", "eth2"]);
        assert!(!bridge.masquerades(false) && bridge.masquerades(true) && bridge.bears(false));
        let bridge = read_all(&[(GATEWAY_MODE6, "isolated")], true).unwrap();
        assert_eq!((bridge.bears(false), bridge.bears(true)), (true, false));
    }
}
