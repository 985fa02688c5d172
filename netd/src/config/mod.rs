//! What the daemon is told: its flags, and a file with the keys of Docker's daemon.json.

mod address_pool;
mod bridge;
mod dns;
mod docker;
mod flags;
mod go;
mod host;
mod label;
mod log;
mod plugin;
mod reload;
mod settings;
mod tls;

use std::{
    collections::BTreeMap,
    env, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use crate::model::publishable;

use self::settings::{Invalid, Settings};
pub use self::{
    address_pool::AddressPool,
    bridge::{DEFAULT_BRIDGE, DefaultBridge},
    dns::Dns,
    flags::{DEFAULT_CONFIG, Flags},
    host::{Defaults, Host},
    log::{Log, LogFormat},
    plugin::PluginSocket,
    reload::Changed,
    tls::{CertificateFiles, Tls, certificate_directory},
};

/// Everything that the daemon is told, each value once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the API is served.
    pub hosts: Vec<Host>,
    /// How TCP is served; in the clear if there is nothing.
    pub tls: Option<Tls>,
    /// Whose the Unix sockets are.
    pub group: Group,
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
    pub log: Log,
    /// The daemon's labels, `key=value`.
    pub labels: Vec<String>,
    /// What may be done to the host's forwarding.
    pub forwarding: Forwarding,
    /// Whether what netd has made the host forward is forwarded between interfaces that are none of netd's, too.
    pub forwards_for_others: bool,
    /// The network `bridge`.
    pub bridge: DefaultBridge,
    /// Where subnets come from that nobody asked for, in the order of their addresses; Docker's if empty.
    pub address_pools: Vec<AddressPool>,
    /// Options of new networks, by driver.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// The host's address that ports are published at; any if there is none.
    pub publish_address: Option<IpAddr>,
    /// Who is asked for names that are not of netd's networks.
    pub dns: Dns,
    /// What the user should know of what was set.
    pub warnings: Vec<String>,
    /// All that was set, as it was.
    settings: Settings,
}

/// Whose a Unix socket is, beside the daemon's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// The group `docker` if there is one, else the daemon's own.
    Default,
    /// The daemon's own.
    Own,
    /// The one of this name or number, which must be there.
    Named(String),
}

/// What may be done to the host's forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Nothing.
    Untouched,
    /// If the host did not forward before, it does now.
    Host,
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
    ///
    /// # Errors
    /// Names the key, in Docker's words.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        let path = flags.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => Vec::new(),
            Err(reason) => return Err(Error::Read { path, reason }),
        };
        let fail = |reason: String| Error::File { path: path.clone(), reason };
        let file = Settings::parse(&bytes).map_err(fail)?;
        file.check_known().map_err(fail)?;
        let settings = Settings::merge(file.clone(), flags.settings()).map_err(fail)?;
        let certificates = certificate_directory(|name| env::var_os(name));
        Self::read(settings, flags, &certificates).map_err(|Invalid { key, reason }| {
            if file.0.contains_key(&key) { fail(reason) } else { Error::Flag(reason) }
        })
    }

    /// Whether somebody said that TCP is to be served in the clear, which it also is where nobody said anything.
    pub fn is_clear_on_purpose(&self) -> bool {
        self.settings.0.get("tls").is_some_and(|tls| *tls == false) && self.tls.is_none()
    }

    fn read(settings: Settings, flags: &Flags, certificates: &Path) -> Result<Self, Invalid> {
        let tls = Tls::read(&settings, certificates)?;
        let socket = flags.run_dir.join("netd.sock");
        let defaults = Defaults { socket: &socket, tls: tls.is_some() };
        let host = |url: &str| Host::parse(url, defaults).map_err(|reason| Invalid::new("hosts", reason));
        let mut hosts = settings.texts("hosts")?.into_iter().map(host).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            hosts.push(Host::Unix(socket));
        }
        let forwarding = match settings.boolean("ip-forward")? {
            Some(false) => Forwarding::Untouched,
            Some(true) | None => Forwarding::Host,
        };
        let forwards_for_others = settings.boolean("ip-forward-no-drop")?.unwrap_or(false);
        // Networks outlive the daemon, whatever is said of it.
        settings.boolean("live-restore")?;
        let address_pools = settings.objects("default-address-pools", "ipamutils.NetworkToSplit")?;
        let mut config = Self {
            hosts,
            group: group(&settings)?,
            state_dir: flags.state_dir.clone(),
            run_dir: flags.run_dir.clone(),
            plugin: PluginSocket::read(&settings)?,
            metrics_addr: metrics_addr(&settings)?,
            uplinks: flags.uplink.clone(),
            log: Log::read(&settings)?,
            labels: label::read(&settings)?,
            forwarding,
            forwards_for_others,
            bridge: DefaultBridge::read(&settings)?,
            address_pools: address_pool::read(&address_pools)?,
            network_options: settings.options("default-network-opts")?,
            publish_address: publish_address(&settings)?,
            dns: Dns::read(&settings)?,
            warnings: settings.foreign()?,
            tls,
            settings: Settings::default(),
        };
        config.warnings.extend(unheeded(&config, &settings));
        config.settings = settings;
        Ok(config)
    }
}

/// What was set and has no effect, or another than the user may think.
fn unheeded(config: &Config, settings: &Settings) -> Vec<String> {
    let set = |key: &&str| settings.0.get(*key).is_some_and(|value| !value.is_null());
    let mut warnings = Vec::new();
    let files: Vec<_> = ["dns-opts", "dns-search"].into_iter().filter(|key| set(key)).collect();
    if !files.is_empty() {
        warnings.push(format!(
            "netd writes no container's resolv.conf: nothing is done with {}",
            files.join(", ")
        ));
    }
    let certificates: Vec<_> =
        ["tlscacert", "tlscert", "tlskey"].into_iter().filter(|key| set(key)).collect();
    if config.tls.is_none() && !certificates.is_empty() {
        warnings.push(format!(
            "neither `tls` nor `tlsverify` is set: nothing is done with {}",
            certificates.join(", ")
        ));
    }
    warnings
}

fn group(settings: &Settings) -> Result<Group, Invalid> {
    Ok(match settings.text("group")? {
        Some(name) => Group::Named(name.to_owned()),
        None if settings.0.get("group").is_some_and(|value| !value.is_null()) => Group::Own,
        None => Group::Default,
    })
}

/// `ADDR:PORT`, `NAME:PORT`, or `:PORT` at any address.
fn metrics_addr(settings: &Settings) -> Result<Option<SocketAddr>, Invalid> {
    let Some(text) = settings.text("metrics-addr")? else { return Ok(None) };
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    let invalid =
        |why: String| Invalid::value("metrics-addr", format!("`{text}` is not an address and a port: {why}"));
    let mut found = full.to_socket_addrs().map_err(|error| invalid(error.to_string()))?;
    found.next().map(Some).ok_or_else(|| invalid("the name has no address".to_owned()))
}

fn publish_address(settings: &Settings) -> Result<Option<IpAddr>, Invalid> {
    let Some(text) = settings.text("ip")? else { return Ok(None) };
    let invalid = |why: String| Invalid::value("ip", why);
    let address = text.parse().map_err(|_| invalid(format!("invalid IP address: {text}")))?;
    publishable(address).map_err(invalid)?;
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn read(json: &str) -> Result<Config, String> {
        let settings = Settings::parse(json.as_bytes())?;
        settings.check_known()?;
        let flags = Flags { run_dir: "/run/netd".into(), ..Flags::default() };
        Config::read(settings, &flags, Path::new("/certs")).map_err(|invalid| invalid.reason)
    }

    use proptest::prelude::*;
    use serde_json::{Map, Value};

    /// Any JSON, of what the file's values are made of.
    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "[0-9a-f:.]{1,12}(/[0-9]{1,3})?",
            "(tcp|unix|fd|x)://[\\[\\]:/a-z0-9.*]{0,12}",
            "[a-z]{1,3}=[a-z]{0,3}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-1i64..70000).prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let key =
                prop_oneof![Just("base"), Just("size"), Just("bridge"), Just("x")].prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// A file with some of the keys that there are, and perhaps one that there is not.
    fn file() -> impl Strategy<Value = Value> {
        let docker = docker::KEYS.iter().map(|(key, ..)| *key);
        let keys: Vec<_> = settings::OWN.iter().copied().chain(docker).chain(["nonsense"]).collect();
        let entry = (prop::sample::select(keys).prop_map(str::to_owned), value());
        prop::collection::vec(entry, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever a file says, it is understood or refused with a reason, and what is understood changes nothing twice.
        #[test]
        fn any_file_is_read_or_refused(file in file()) {
            match read(&file.to_string()) {
                Ok(config) => prop_assert!(config.changes(&config.reloaded(&config)).is_empty()),
                Err(reason) => prop_assert!(!reason.is_empty()),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            // Hardly one of them is a file; none may be more than refused.
            if let Ok(settings) = Settings::parse(&bytes) {
                prop_assert!(settings.0.is_empty() || settings.check_known().is_err());
            }
        }

        #[test]
        fn a_file_that_is_cut_off_is_refused(file in file(), at in any::<prop::sample::Index>()) {
            let text = file.to_string();
            let cut = &text.as_bytes()[..at.index(text.len())];
            prop_assert!(cut.is_empty() || Settings::parse(cut).is_err());
        }
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let default = read("").unwrap();
        assert_eq!(default, read("{}").unwrap());
        assert_eq!(default.bridge, DefaultBridge::default());
        assert_eq!(default.hosts, [Host::Unix("/run/netd/netd.sock".into())]);
        assert_eq!((default.forwarding, default.group), (Forwarding::Host, Group::Default));
        assert!(default.warnings.is_empty());
    }

    #[test]
    fn hosts_have_the_port_of_their_kind() {
        let shown =
            |json: &str| read(json).unwrap().hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown(r#"{"hosts": ["unix://", "tcp://0.0.0.0", "fd://"]}"#),
            ["unix:///run/netd/netd.sock", "tcp://0.0.0.0:2375", "fd://"]
        );
        assert_eq!(shown(r#"{"hosts": ["tcp://0.0.0.0"], "tlsverify": true}"#), ["tcp://0.0.0.0:2376"]);
        assert_eq!(
            read(r#"{"hosts": ["tcp://:5555/"]}"#).unwrap_err(),
            "invalid bind address (tcp://:5555/): should not contain a path element"
        );
    }

    #[test]
    fn the_clear_is_meant_where_somebody_said_so() {
        for (json, meant) in [
            ("{}", false),
            (r#"{"tls": null}"#, false),
            (r#"{"tls": false}"#, true),
            (r#"{"tls": true}"#, false),
            (r#"{"tls": false, "tlsverify": false}"#, false),
        ] {
            assert_eq!(read(json).unwrap().is_clear_on_purpose(), meant, "{json}");
        }
    }

    #[test]
    fn the_host_forwards_as_it_is_told() {
        for (json, expected) in [
            ("{}", (Forwarding::Host, false)),
            (r#"{"ip-forward-no-drop": true}"#, (Forwarding::Host, true)),
            (r#"{"ip-forward": false}"#, (Forwarding::Untouched, false)),
        ] {
            let config = read(json).unwrap();
            assert_eq!((config.forwarding, config.forwards_for_others), expected, "{json}");
        }
    }

    #[test]
    fn addresses_and_groups_are_read() {
        let config = read(r#"{"metrics-addr": ":9323", "ip": "::1", "group": "wheel"}"#).unwrap();
        assert_eq!(config.metrics_addr.unwrap().to_string(), "[::]:9323");
        assert_eq!(config.publish_address.unwrap().to_string(), "::1");
        assert_eq!(config.group, Group::Named("wheel".into()));
        assert_eq!(read(r#"{"group": ""}"#).unwrap().group, Group::Own);
        assert_eq!(read(r#"{"ip": "x"}"#).unwrap_err(), "invalid value for `ip`: invalid IP address: x");
        let reason = read(r#"{"ip": "ff02::1"}"#).unwrap_err();
        assert_eq!(reason, "invalid value for `ip`: cannot publish ports at ff02::1: it is nobody's own");
        assert!(read(r#"{"metrics-addr": "9323"}"#).is_err());
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let warnings = |json: &str| read(json).unwrap().warnings;
        assert_eq!(
            warnings(r#"{"dns": ["1.1.1.1"], "dns-search": ["a"]}"#),
            ["netd writes no container's resolv.conf: nothing is done with dns-search"]
        );
        assert_eq!(
            warnings(r#"{"tlscert": "/c"}"#),
            ["neither `tls` nor `tlsverify` is set: nothing is done with tlscert"]
        );
        // Without netfilter there is nothing for `icc` to miss.
        let config = read(r#"{"icc": false, "iptables": false}"#).unwrap();
        assert!(!config.bridge.icc && config.warnings.len() == 1);
    }
}
