//! The command line of `netd daemon`: netd's own flags, and those of dockerd's that are about its networks and sockets.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{address_pool, go, settings::Settings};

/// The file that is read if none is named; it may be missing.
pub const DEFAULT_CONFIG: &str = "/etc/netd/daemon.json";

/// Run the daemon in the network namespace it is started in.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Configuration with the keys of Docker's daemon.json [default: /etc/netd/daemon.json, if it is there]
    #[arg(long, visible_alias = "config-file", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, and exit
    #[arg(long, conflicts_with = "cleanup")]
    pub validate: bool,
    /// Remove all that netd ever made on this host, and exit
    #[arg(long)]
    pub cleanup: bool,
    /// Keep the networks and endpoints there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netd")]
    pub state_dir: PathBuf,
    /// Keep the socket there
    #[arg(long, value_name = "DIR", default_value = "/run/netd")]
    pub run_dir: PathBuf,
    /// An interface that leads outside; may be repeated [default: those that the host's routes use]
    #[arg(long, value_name = "IF")]
    pub uplink: Vec<String>,
    #[command(flatten)]
    pub(super) sockets: Sockets,
    #[command(flatten)]
    pub(super) bridge: Bridge,
    #[command(flatten)]
    pub(super) networks: Networks,
    #[command(flatten)]
    pub(super) log: Log,
    #[command(flatten)]
    pub(super) netfilter: Netfilter,
}

/// Where the daemon listens, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Sockets {
    /// Serve the API at unix:///PATH, tcp://ADDR:PORT or fd://; may be repeated [default: netd.sock in the run directory]
    #[arg(long, short = 'H', value_name = "URL")]
    host: Vec<String>,
    /// Group of the Unix sockets, a name or a number [default: docker, if there is one]
    #[arg(long, short = 'G', value_name = "GROUP")]
    group: Option<String>,
    /// Serve Docker Engine's plugin protocol at this socket; `none` for not at all [default:
    /// /run/docker/plugins/netd.sock, if it can be had]
    #[arg(long, value_name = "PATH|none")]
    plugin_socket: Option<String>,
    /// Serve Prometheus' metrics there as well as at the API
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_addr: Option<String>,
    /// Serve TCP with TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    tls: Option<bool>,
    /// Serve TCP with TLS, and ask the clients for certificates
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    tlsverify: Option<bool>,
    /// Trust clients whose certificates this CA signed
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<String>,
    /// The daemon's certificate
    #[arg(long, value_name = "FILE")]
    tlscert: Option<String>,
    /// The key of the daemon's certificate
    #[arg(long, value_name = "FILE")]
    tlskey: Option<String>,
}

/// The network `bridge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "The network `bridge`")]
pub(super) struct Bridge {
    /// Its kernel bridge; any other than the default must be there already; `none` for no such network [default: netd0]
    #[arg(long, short = 'b', value_name = "IF")]
    bridge: Option<String>,
    /// The bridge's address, and with it the subnet
    #[arg(long, value_name = "ADDR/LEN")]
    bip: Option<String>,
    /// The bridge's IPv6 address, and with it the subnet
    #[arg(long, value_name = "ADDR/LEN")]
    bip6: Option<String>,
    /// Where endpoints' addresses come from
    #[arg(long, value_name = "PREFIX")]
    fixed_cidr: Option<String>,
    /// Where endpoints' IPv6 addresses come from
    #[arg(long, value_name = "PREFIX")]
    fixed_cidr_v6: Option<String>,
    /// The endpoints' default route, if it is not the bridge
    #[arg(long, value_name = "ADDR")]
    default_gateway: Option<String>,
    /// The endpoints' IPv6 default route, if it is not the bridge
    #[arg(long, value_name = "ADDR")]
    default_gateway_v6: Option<String>,
    /// Give endpoints IPv6 addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    ipv6: Option<bool>,
    /// Let endpoints talk to each other [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    icc: Option<bool>,
    /// Masquerade what leaves [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    ip_masq: Option<bool>,
    /// Of the bridge and its endpoints [default: 1500]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    mtu: Option<i64>,
}

/// All networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "All networks")]
pub(super) struct Networks {
    /// Where subnets come from that nobody asks for; may be repeated
    #[arg(long, value_name = "base=PREFIX,size=LEN", value_parser = address_pool::parse_flag)]
    default_address_pool: Vec<Value>,
    /// An option of new networks; may be repeated
    #[arg(long, value_name = "DRIVER=OPT=VALUE", value_parser = network_option)]
    default_network_opt: Vec<NetworkOption>,
    /// The host's address that ports are published at [default: 0.0.0.0]
    #[arg(long, value_name = "ADDR")]
    ip: Option<String>,
    /// Have the host forward what netd's networks send [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    ip_forward: Option<bool>,
    /// Let the host forward between all its interfaces when netd has to switch forwarding on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    ip_forward_no_drop: Option<bool>,
    /// A server to ask for names outside; may be repeated [default: the system's]
    #[arg(long, value_name = "ADDR")]
    dns: Vec<String>,
    /// An option of containers' resolvers, which netd does not write
    #[arg(long, value_name = "OPT")]
    dns_opt: Vec<String>,
    /// A search domain of containers' resolvers, which netd does not write
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Networks outlive the daemon, whatever this says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    live_restore: Option<bool>,
    /// A label KEY=VALUE of the daemon; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "The log")]
pub(super) struct Log {
    /// Log what is done step by step
    #[arg(long, short = 'D', value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    debug: Option<bool>,
    /// trace, debug, info, warn, error or fatal [default: info]
    #[arg(long, short = 'l', value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of dockerd's that are about netfilter: accepted, so that its command line serves, and without meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Netfilter {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    iptables: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    ip6tables: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    userland_proxy: Option<bool>,
    #[arg(long, hide = true)]
    userland_proxy_path: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go::boolean)]
    allow_direct_routing: Option<bool>,
    #[arg(long, hide = true)]
    firewall_backend: Option<String>,
}

/// `DRIVER=OPT=VALUE`
#[derive(Clone, Debug, PartialEq, Eq)]
struct NetworkOption {
    driver: String,
    name: String,
    value: String,
}

fn network_option(text: &str) -> Result<NetworkOption, String> {
    let parts = text.split_once('=').and_then(|(driver, rest)| Some((driver, rest.split_once('=')?)));
    match parts {
        Some((driver, (name, value))) if !driver.is_empty() && !name.is_empty() => {
            Ok(NetworkOption { driver: driver.to_owned(), name: name.to_owned(), value: value.to_owned() })
        }
        _ => Err(format!("invalid value '{text}': it must be driver=option=value")),
    }
}

impl Flags {
    /// What the flags set, under the names that the file has for it.
    pub(super) fn settings(&self) -> Settings {
        let Self { sockets, bridge, networks, log, netfilter, .. } = self;
        let mut set = Set(Map::new());
        set.list("hosts", &sockets.host);
        set.one("group", sockets.group.as_deref());
        set.one("plugin-socket", sockets.plugin_socket.as_deref());
        set.one("metrics-addr", sockets.metrics_addr.as_deref());
        set.one("tls", sockets.tls);
        set.one("tlsverify", sockets.tlsverify);
        set.one("tlscacert", sockets.tlscacert.as_deref());
        set.one("tlscert", sockets.tlscert.as_deref());
        set.one("tlskey", sockets.tlskey.as_deref());
        set.one("bridge", bridge.bridge.as_deref());
        set.one("bip", bridge.bip.as_deref());
        set.one("bip6", bridge.bip6.as_deref());
        set.one("fixed-cidr", bridge.fixed_cidr.as_deref());
        set.one("fixed-cidr-v6", bridge.fixed_cidr_v6.as_deref());
        set.one("default-gateway", bridge.default_gateway.as_deref());
        set.one("default-gateway-v6", bridge.default_gateway_v6.as_deref());
        set.one("ipv6", bridge.ipv6);
        set.one("icc", bridge.icc);
        set.one("ip-masq", bridge.ip_masq);
        set.one("mtu", bridge.mtu);
        set.list("default-address-pools", &networks.default_address_pool);
        set.options("default-network-opts", &networks.default_network_opt);
        set.one("ip", networks.ip.as_deref());
        set.one("ip-forward", networks.ip_forward);
        set.one("ip-forward-no-drop", networks.ip_forward_no_drop);
        set.list("dns", &networks.dns);
        set.list("dns-opts", &networks.dns_opt);
        set.list("dns-search", &networks.dns_search);
        set.one("live-restore", networks.live_restore);
        set.list("labels", &networks.label);
        set.one("debug", log.debug);
        set.one("log-level", log.log_level.as_deref());
        set.one("log-format", log.log_format.as_deref());
        set.one("iptables", netfilter.iptables);
        set.one("ip6tables", netfilter.ip6tables);
        set.one("userland-proxy", netfilter.userland_proxy);
        set.one("userland-proxy-path", netfilter.userland_proxy_path.as_deref());
        set.one("allow-direct-routing", netfilter.allow_direct_routing);
        set.one("firewall-backend", netfilter.firewall_backend.as_deref());
        Settings(set.0)
    }
}

/// Values in the making.
struct Set(Map<String, Value>);

impl Set {
    fn one(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    fn list<T: Clone + Into<Value>>(&mut self, key: &str, values: &[T]) {
        if !values.is_empty() {
            self.0.insert(key.to_owned(), values.to_vec().into());
        }
    }

    fn options(&mut self, key: &str, options: &[NetworkOption]) {
        let mut drivers: Map<String, Value> = Map::new();
        for NetworkOption { driver, name, value } in options {
            let driver = drivers.entry(driver.clone()).or_insert_with(|| Value::Object(Map::new()));
            driver[name.as_str()] = value.as_str().into();
        }
        if !drivers.is_empty() {
            self.0.insert(key.to_owned(), drivers.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn settings(line: &str) -> Value {
        let line =
            Line::try_parse_from(format!("netd {line}").split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
        Value::Object(line.flags.settings().0)
    }

    #[test]
    fn a_command_line_of_dockerds_says_what_its_file_would() {
        assert_eq!(settings(""), json!({}));
        assert_eq!(
            settings(
                "--config-file /c -H unix:///a -H tcp://b --tlsverify --tlscacert=ca --bip 10.0.0.1/24 --mtu=1400 --icc=false \
                 --ipv6 --default-address-pool base=10.0.0.0/8,size=24 --default-network-opt bridge=a.b=c=d \
                 --label x=y -D -l warn --iptables=false -b br0 --dns 1.1.1.1 --dns-opt x --ip 127.0.0.1"
            ),
            json!({
                "hosts": ["unix:///a", "tcp://b"], "tlsverify": true, "tlscacert": "ca", "bip": "10.0.0.1/24",
                "mtu": 1400, "icc": false, "ipv6": true,
                "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                "default-network-opts": {"bridge": {"a.b": "c=d"}}, "labels": ["x=y"], "debug": true,
                "log-level": "warn", "iptables": false, "bridge": "br0", "dns": ["1.1.1.1"], "dns-opts": ["x"],
                "ip": "127.0.0.1",
            })
        );
    }

    #[test]
    fn bad_values_are_refused() {
        for (line, says) in [
            ("--icc=maybe", "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ("--mtu many", "invalid digit"),
            ("--default-address-pool base=x", "invalid base prefix \"x\""),
            ("--default-network-opt bridge=x", "it must be driver=option=value"),
        ] {
            let error = Line::try_parse_from(format!("netd {line}").split_whitespace()).err().unwrap();
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }
}
