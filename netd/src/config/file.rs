//! The file, with the keys of Docker's daemon.json.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{AddressPool, DEFAULT_BRIDGE, DefaultBridge, Flags, address_pool::AddressPoolText};

/// Keys that say nothing to netd, for they are about containers, images, clusters, or netfilter.
const IGNORED: &[&str] = &[
    "add-runtime",
    "allow-direct-routing",
    "allow-nondistributable-artifacts",
    "api-cors-header",
    "authorization-plugins",
    "bridge-accept-fwmark",
    "builder",
    "cgroup-parent",
    "cluster-advertise",
    "cluster-store",
    "cluster-store-opts",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "data-root",
    "default-cgroupns-mode",
    "default-init",
    "default-ipc-mode",
    "default-runtime",
    "default-shm-size",
    "default-ulimits",
    "dns",
    "dns-opts",
    "dns-search",
    "exec-opts",
    "exec-root",
    "experimental",
    "features",
    "firewall-backend",
    "graph",
    "group",
    "host-gateway-ip",
    "host-gateway-ips",
    "http-proxy",
    "https-proxy",
    "init",
    "init-path",
    "insecure-registries",
    "ip",
    "ip-forward-no-drop",
    "ip6tables",
    "iptables",
    "labels",
    "live-restore",
    "log-driver",
    "log-format",
    "log-opts",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "min-api-version",
    "network-control-plane-mtu",
    "network-diagnostic-port",
    "no-new-privileges",
    "no-proxy",
    "node-generic-resources",
    "oom-score-adjust",
    "pidfile",
    "proxies",
    "raw-logs",
    "registry-mirrors",
    "resolv-conf",
    "runtimes",
    "seccomp-profile",
    "selinux-enabled",
    "shutdown-timeout",
    "storage-driver",
    "storage-opts",
    "swarm-default-advertise-addr",
    "userland-proxy",
    "userland-proxy-path",
    "userns-remap",
];

/// Keys that ask for what netd does not do, and that nobody should believe in force when they are not.
const REFUSED: &[(&str, &str)] = &[
    ("tls", "the API is served in the clear only"),
    ("tlsverify", "the API is served in the clear only"),
    ("tlscacert", "the API is served in the clear only"),
    ("tlscert", "the API is served in the clear only"),
    ("tlskey", "the API is served in the clear only"),
];

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) hosts: Vec<String>,
    pub(super) plugin_socket: Option<String>,
    pub(super) metrics_addr: Option<SocketAddr>,
    pub(super) log_level: log::LevelFilter,
    pub(super) ip_forward: bool,
    pub(super) bridge: DefaultBridge,
    pub(super) address_pools: Vec<AddressPool>,
    pub(super) network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// Keys of Docker's that say nothing to netd.
    pub(super) ignored: Vec<String>,
}

impl File {
    /// Reads the file. The error names the key and the reason.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = decode(bytes)?;
        let map: Map<String, Value> = if text.trim().is_empty() {
            Map::new()
        } else {
            serde_json::from_str(&text).map_err(|error| error.to_string())?
        };
        let mut keys = Keys(map);
        for (key, reason) in REFUSED {
            if keys.0.contains_key(*key) {
                return Err(format!("`{key}` is not supported: {reason}"));
            }
        }
        let file = Self {
            hosts: keys.take("hosts")?.unwrap_or_default(),
            plugin_socket: keys.take("plugin-socket")?,
            metrics_addr: keys.text("metrics-addr", |text| parse(text, "an address and a port"))?,
            log_level: keys.log_level()?,
            ip_forward: keys.take("ip-forward")?.unwrap_or(true),
            bridge: keys.bridge()?,
            address_pools: keys
                .take::<Vec<AddressPoolText>>("default-address-pools")?
                .unwrap_or_default()
                .iter()
                .map(AddressPool::read)
                .collect::<Result<_, _>>()?,
            network_options: keys.take("default-network-opts")?.unwrap_or_default(),
            ignored: keys.ignored(),
        };
        let unknown: Vec<_> = keys.0.keys().map(String::as_str).collect();
        if unknown.is_empty() {
            Ok(file)
        } else {
            Err(format!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            ))
        }
    }

    /// Refuses what is given here and as a flag too.
    pub(super) fn conflicts(&self, flags: &Flags) -> Result<(), String> {
        let mut conflicts = Vec::new();
        let list = |texts: &[String]| texts.join(" ");
        if !self.hosts.is_empty() && !flags.host.is_empty() {
            conflicts.push(format!(
                "hosts: (from flag: [{}], from file: [{}])",
                list(&flags.host),
                list(&self.hosts)
            ));
        }
        if let (Some(flag), Some(file)) = (flags.metrics_addr, self.metrics_addr) {
            conflicts.push(format!("metrics-addr: (from flag: {flag}, from file: {file})"));
        }
        if let (Some(flag), Some(file)) = (&flags.plugin_socket, &self.plugin_socket) {
            conflicts.push(format!("plugin-socket: (from flag: {flag}, from file: {file})"));
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        ))
    }
}

/// The keys that have not been read yet.
struct Keys(Map<String, Value>);

impl Keys {
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.remove(key) else { return Ok(None) };
        serde_json::from_value(value).map_err(|error| format!("invalid value for `{key}`: {error}"))
    }

    /// Reads a text; an empty one counts as absent.
    fn text<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.take::<String>(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        read(&text).map(Some).map_err(|reason| format!("invalid value for `{key}`: {reason}"))
    }

    fn bridge(&mut self) -> Result<DefaultBridge, String> {
        let interface = self.take::<String>("bridge")?.filter(|name| !name.is_empty());
        let bip = self.text("bip", cidr::<Ipv4Net>)?;
        let bip6 = self.text("bip6", cidr::<Ipv6Net>)?;
        if interface.is_some() && (bip.is_some() || bip6.is_some()) {
            return Err(
                "You specified -b & --bip, mutually exclusive options. Please specify only one".into()
            );
        }
        let default = DefaultBridge::default();
        let mtu = self.take::<i64>("mtu")?.unwrap_or(i64::from(default.mtu));
        let bridge = DefaultBridge {
            interface: match interface.as_deref() {
                None => Some(DEFAULT_BRIDGE.to_owned()),
                Some("none") => None,
                Some(name) => Some(name.to_owned()),
            },
            bip,
            bip6,
            fixed_cidr: self.text("fixed-cidr", cidr::<Ipv4Net>)?,
            fixed_cidr_v6: self.text("fixed-cidr-v6", cidr::<Ipv6Net>)?,
            default_gateway: self
                .text("default-gateway", |text| parse::<Ipv4Addr>(text, "an IPv4 address"))?,
            default_gateway_v6: self
                .text("default-gateway-v6", |text| parse::<Ipv6Addr>(text, "an IPv6 address"))?,
            ipv6: self.take("ipv6")?.unwrap_or(default.ipv6),
            // 0 is Docker's way to say "the default"; an Ethernet interface takes 68 to 65535.
            mtu: match mtu {
                0 => default.mtu,
                68..=65535 => mtu as u32,
                _ => return Err(format!("invalid default MTU: {mtu}")),
            },
            icc: self.take("icc")?.unwrap_or(default.icc),
            masquerade: self.take("ip-masq")?.unwrap_or(default.masquerade),
        };
        if (bridge.fixed_cidr_v6.is_some() || bridge.bip6.is_some()) && !bridge.ipv6 {
            return Err("`fixed-cidr-v6` and `bip6` need `ipv6` to be true".into());
        }
        Ok(bridge)
    }

    fn log_level(&mut self) -> Result<log::LevelFilter, String> {
        let debug = self.take("debug")?.unwrap_or(false);
        let level = self.text("log-level", |text| match text {
            "trace" => Ok(log::LevelFilter::Trace),
            "debug" => Ok(log::LevelFilter::Debug),
            "info" => Ok(log::LevelFilter::Info),
            "warn" => Ok(log::LevelFilter::Warn),
            "error" | "fatal" | "panic" => Ok(log::LevelFilter::Error),
            _ => Err(format!("invalid logging level: {text}")),
        })?;
        Ok(if debug { log::LevelFilter::Debug } else { level.unwrap_or(log::LevelFilter::Info) })
    }

    fn ignored(&mut self) -> Vec<String> {
        let known: Vec<_> = self.0.keys().filter(|key| IGNORED.contains(&key.as_str())).cloned().collect();
        for key in &known {
            self.0.remove(key);
        }
        known
    }
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not {what}"))
}

fn cidr<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("invalid CIDR address: {text}"))
}

/// UTF-8 or UTF-16, with a byte order mark or without.
fn decode(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |rest: &[u8], word: fn([u8; 2]) -> u16| {
        String::from_utf16(
            &rest.chunks(2).map(|pair| word([pair[0], *pair.get(1).unwrap_or(&0)])).collect::<Vec<_>>(),
        )
        .map_err(|error| error.to_string())
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).map_err(|error| error.to_string()),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        File::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let default = File::parse(b"").unwrap();
        assert_eq!(default, File::parse(b"{}").unwrap());
        assert_eq!(default.bridge, DefaultBridge::default());
        assert_eq!(File::parse(b"\xef\xbb\xbf{\"debug\":true}").unwrap().log_level, log::LevelFilter::Debug);
        let utf16: Vec<u8> = "\u{feff}{\"icc\":false}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(!File::parse(&utf16).unwrap().bridge.icc);
    }

    #[test]
    fn unknown_keys_are_all_named() {
        assert_eq!(
            error(r#"{"foo": 1, "mtu": 1400, "bar": {}}"#),
            "the following directives don't match any configuration option: bar, foo"
        );
    }

    #[test]
    fn the_engines_keys_are_passed_over() {
        let file = File::parse(br#"{"log-driver": "journald", "storage-driver": "overlay2"}"#).unwrap();
        assert_eq!(file.ignored, ["log-driver", "storage-driver"]);
    }

    #[test]
    fn the_default_bridge_is_read() {
        let file =
            File::parse(br#"{"bip": "192.168.1.5/24", "fixed-cidr": "192.168.1.128/25", "mtu": 1400}"#)
                .unwrap();
        assert_eq!(file.bridge.bip.unwrap().to_string(), "192.168.1.5/24");
        assert_eq!((file.bridge.fixed_cidr.unwrap().prefix_len(), file.bridge.mtu), (25, 1400));
        assert_eq!(File::parse(br#"{"bridge": "none"}"#).unwrap().bridge.interface, None);
    }

    #[test]
    fn bad_values_are_named_with_their_key() {
        assert_eq!(
            error(r#"{"bip": "192.168.1.1"}"#),
            "invalid value for `bip`: invalid CIDR address: 192.168.1.1"
        );
        assert_eq!(error(r#"{"mtu": -1}"#), "invalid default MTU: -1");
        assert!(error(r#"{"ipv6": "yes"}"#).starts_with("invalid value for `ipv6`: invalid type: string"));
        assert_eq!(
            error(r#"{"log-level": "loud"}"#),
            "invalid value for `log-level`: invalid logging level: loud"
        );
        assert!(error(r#"{"bridge": "br9", "bip": "10.0.0.1/8"}"#).starts_with("You specified -b & --bip"));
        assert!(error(r#"{"tls": true}"#).contains("`tls` is not supported"));
        assert!(error("{").contains("EOF"));
    }

    #[test]
    fn address_pools_are_checked() {
        let pools = |text: &str| File::parse(format!(r#"{{"default-address-pools": [{text}]}}"#).as_bytes());
        let read =
            pools(r#"{"base": "10.1.0.0/16", "size": 24}, {"base": "fd00:1::/48", "size": 64}"#).unwrap();
        assert_eq!(read.address_pools.len(), 2);
        let error = |text| pools(text).unwrap_err();
        assert_eq!(
            error(r#"{"base": "foo", "size": 24}"#),
            "invalid base prefix \"foo\": it is no prefix in CIDR notation"
        );
        assert_eq!(
            error(r#"{"base": "10.0.0.0/16", "size": 8}"#),
            "invalid size 8 for base prefix \"10.0.0.0/16\": it must lie from 16 to 32"
        );
        assert!(error(r#"{"base": "10.0.0.0/16", "size": 24, "x": 1}"#).contains("unknown field `x`"));
    }

    #[test]
    fn what_is_given_twice_is_refused() {
        let file = File::parse(br#"{"hosts": ["unix:///a"]}"#).unwrap();
        let flags = Flags {
            config: None,
            host: vec!["tcp://b".into()],
            state_dir: "/s".into(),
            run_dir: "/r".into(),
            metrics_addr: None,
            plugin_socket: None,
            uplink: Vec::new(),
            cleanup: false,
        };
        assert_eq!(
            file.conflicts(&flags).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: \
             hosts: (from flag: [tcp://b], from file: [unix:///a])"
        );
        assert_eq!(file.conflicts(&Flags { host: Vec::new(), ..flags }), Ok(()));
    }
}
