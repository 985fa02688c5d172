//! What the daemon is told: its flags, and a file with the keys of Docker's daemon.json.

mod address_pool;
mod file;
mod flags;
mod host;
mod plugin;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::{Ipv4Net, Ipv6Net};

pub use address_pool::AddressPool;
pub use flags::{DEFAULT_CONFIG, Flags};
pub use host::Host;
pub use plugin::PluginSocket;

/// The kernel bridge of the network `bridge`, unless the file says otherwise.
pub const DEFAULT_BRIDGE: &str = "netd0";

/// Everything that the daemon is told, each value once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the API is served.
    pub hosts: Vec<Host>,
    /// Holds what must outlive a reboot.
    pub state_dir: PathBuf,
    /// Holds sockets, and the bpffs where the system has none.
    pub run_dir: PathBuf,
    /// Where Docker Engine finds its plugin.
    pub plugin: PluginSocket,
    /// Where metrics are served, if beside the API.
    pub metrics_addr: Option<SocketAddr>,
    /// Interfaces that lead outside; found from the routes if empty.
    pub uplinks: Vec<String>,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// Whether to switch on the host's forwarding.
    pub ip_forward: bool,
    /// The network `bridge`.
    pub bridge: DefaultBridge,
    /// Where subnets come from that nobody asked for; Docker's if empty.
    pub address_pools: Vec<AddressPool>,
    /// Options of new networks, by driver.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// Keys in the file that are Docker's and say nothing to netd: worth a warning each.
    pub ignored: Vec<String>,
}

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

/// Why the daemon does not start with what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to configure the daemon with file {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The file's content is not understood.
    #[error("unable to configure the daemon with file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A flag's value is not understood.
    #[error("{0}")]
    Flag(String),
}

impl Config {
    /// Reads the file that the flags name, and merges the two.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        let path = flags.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => Vec::new(),
            Err(reason) => return Err(Error::Read { path, reason }),
        };
        let fail = |reason: String| Error::File { path: path.clone(), reason };
        let file = file::File::parse(&bytes).map_err(fail)?;
        file.conflicts(flags).map_err(fail)?;
        let from_file = file.hosts.iter().map(|host| Host::parse(host).map_err(fail));
        let from_flags = flags.host.iter().map(|host| Host::parse(host).map_err(Error::Flag));
        let mut hosts = from_file.chain(from_flags).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            hosts.push(Host::Unix(flags.run_dir.join("netd.sock")));
        }
        let plugin = match &flags.plugin_socket {
            Some(text) => PluginSocket::read(Some(text)).map_err(Error::Flag)?,
            None => PluginSocket::read(file.plugin_socket.as_deref()).map_err(fail)?,
        };
        Ok(Self {
            hosts,
            plugin,
            state_dir: flags.state_dir.clone(),
            run_dir: flags.run_dir.clone(),
            metrics_addr: flags.metrics_addr.or(file.metrics_addr),
            uplinks: flags.uplink.clone(),
            log_level: file.log_level,
            ip_forward: file.ip_forward,
            bridge: file.bridge,
            address_pools: file.address_pools,
            network_options: file.network_options,
            ignored: file.ignored,
        })
    }
}
