//! The configuration of a network, as a runtime hands it to a plugin.
//!
//! The keys are those of the reference plugin `bridge` and, under `ipam`, of `host-local`; keys that mean nothing to netd are
//! passed over.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{
    capability::{Aliases, PortMapping, RuntimeConfig, RuntimeDns},
    error::{Code, Error},
    result::{Dns, Outcome, Route, drop_nulls},
    version::SpecVersion,
};
use crate::model::attachment::{Key, Range};

/// Where the attachments that are to stay are listed; the second is a name of before, which libcni writes as well.
const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// Names of `ipam.type` that mean netd's own.
const OWN_IPAM: [&str; 3] = ["", "netd", "netd-cni"];

/// A configuration, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) version: SpecVersion,
    pub(super) name: String,
    pub(super) keys: Keys,
    pub(super) previous: Option<Outcome>,
    /// As it came, for the IPAM plugin.
    pub(super) raw: Vec<u8>,
}

/// The keys that netd knows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keys {
    cni_version: Option<String>,
    name: Option<String>,
    /// The daemon's socket; `NETD_HOST` or the usual one if there is none.
    pub(super) socket: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) is_gateway: Option<bool>,
    pub(super) is_default_gateway: Option<bool>,
    pub(super) ip_masq: Option<bool>,
    pub(super) mtu: Option<u32>,
    pub(super) promisc_mode: bool,
    pub(super) disable_container_interface: bool,
    pub(super) vlan: u32,
    pub(super) vlan_trunk: Vec<Value>,
    pub(super) port_isolation: bool,
    /// No way out at all.
    pub(super) internal: bool,
    /// Docker's driver options, for all that has no key of its own.
    pub(super) options: BTreeMap<String, String>,
    pub(super) ipam: IpamKeys,
    pub(super) dns: Dns,
    args: ArgsKey,
    pub(super) runtime_config: RuntimeConfig,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
    #[serde(rename = "cni.dev/attachments")]
    valid_before: Option<Vec<Valid>>,
}

/// `ipam`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IpamKeys {
    #[serde(rename = "type")]
    kind: String,
    ranges: Vec<Vec<RangeKeys>>,
    /// One range in the old way, beside the ranges.
    #[serde(flatten)]
    range: RangeKeys,
    pub(super) routes: Option<Vec<Route>>,
    pub(super) resolv_conf: String,
}

/// One of `ipam.ranges`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RangeKeys {
    subnet: Option<IpNet>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// `args`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct ArgsKey {
    cni: ArgsOfCni,
}

/// `args.cni`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct ArgsOfCni {
    ips: Vec<String>,
    mac: String,
}

/// An attachment that is to stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, message)
}

impl Config {
    /// Reads a configuration.
    pub(super) fn read(raw: Vec<u8>) -> Result<Self, Error> {
        let mut value: Value = serde_json::from_slice(&raw).map_err(|error| {
            Error::new(Code::Decoding, format!("error unmarshall network config: {error}"))
        })?;
        // A runtime in Go writes a list without members so, which is not the same as no list.
        let none_valid = VALID.iter().any(|name| value.get(name).is_some_and(Value::is_null));
        drop_nulls(&mut value);
        // The version first: what is in another version's configuration is not for this plugin to judge.
        let version = SpecVersion::of_config(value.get("cniVersion").and_then(Value::as_str))?;
        let mut keys: Keys = serde_path_to_error::deserialize(value).map_err(|error| {
            invalid(format!("invalid network config: {}: {}", error.path(), error.inner()))
        })?;
        if none_valid {
            keys.valid_before.get_or_insert_default();
        }
        let name = keys.name.clone().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid("missing network name"))?;
        check_name(&name)
            .map_err(|()| invalid("invalid characters found in network name").with(name.clone()))?;
        let previous = keys.prev_result.as_ref().map(Outcome::read).transpose()?;
        Ok(Self { version, name, keys, previous, raw })
    }

    /// The IPAM plugin that gives addresses, if it is not netd itself.
    pub(super) fn foreign_ipam(&self) -> Option<&str> {
        Some(self.keys.ipam.kind.as_str()).filter(|kind| !OWN_IPAM.contains(kind))
    }

    /// Where netd's IPAM takes addresses from; anywhere if nothing is said.
    pub(super) fn ranges(&self) -> Result<Vec<Vec<Range>>, Error> {
        let ipam = &self.keys.ipam;
        let mut sets = self.keys.runtime_config.ip_ranges.clone();
        if ipam.range.subnet.is_some() {
            sets.push(vec![ipam.range.clone()]);
        }
        sets.extend(ipam.ranges.iter().cloned());
        let range = |keys: &RangeKeys| {
            let subnet = keys.subnet.ok_or_else(|| invalid("invalid range set: missing subnet"))?;
            Ok(Range { subnet, first: keys.range_start, last: keys.range_end, gateway: keys.gateway })
        };
        sets.iter().map(|set| set.iter().map(range).collect()).collect()
    }

    /// The addresses that netd's IPAM is asked for, those of the environment apart.
    pub(super) fn requested(&self) -> Result<Vec<IpAddr>, Error> {
        let texts = self.keys.args.cni.ips.iter().chain(&self.keys.runtime_config.ips);
        let read = |text: &String| {
            let read = address(text).map(|(address, _)| address);
            read.ok_or_else(|| invalid(format!("invalid IP address requested: {text}")))
        };
        texts.map(read).collect()
    }

    /// The MAC address that is asked for, that of the environment apart.
    pub(super) fn mac(&self) -> Option<&str> {
        let Keys { runtime_config, args, .. } = &self.keys;
        [&runtime_config.mac, &args.cni.mac].into_iter().map(String::as_str).find(|mac| !mac.is_empty())
    }

    /// More names of the container.
    pub(super) fn aliases(&self) -> Vec<String> {
        match &self.keys.runtime_config.aliases {
            Aliases::Own(aliases) => aliases.clone(),
            Aliases::ByNetwork(networks) => networks.get(&self.name).cloned().unwrap_or_default(),
        }
    }

    /// The resolvers that the runtime or the configuration names.
    pub(super) fn dns(&self) -> Dns {
        let RuntimeDns { servers, searches, options } = self.keys.runtime_config.dns.clone();
        let runtime = Dns { nameservers: servers, domain: String::new(), search: searches, options };
        if runtime.is_empty() { self.keys.dns.clone() } else { runtime }
    }

    /// The ports to publish, as `docker run -p` has them.
    pub(super) fn ports(&self) -> Result<Vec<String>, Error> {
        self.keys.runtime_config.port_mappings.iter().map(PortMapping::spec).collect()
    }

    /// The attachments that are to stay.
    pub(super) fn valid(&self) -> Result<Vec<Key>, Error> {
        let listed = self.keys.valid.as_ref().or(self.keys.valid_before.as_ref());
        let listed = listed.ok_or_else(|| invalid(format!("missing {}", VALID[0])))?;
        let key = |valid: &Valid| Key { container: valid.container.clone(), interface: valid.ifname.clone() };
        Ok(listed.iter().map(key).collect())
    }
}

/// `10.1.0.9` or `10.1.0.9/24`.
pub(super) fn address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    match text.trim().parse::<IpNet>() {
        Ok(net) => Some((net.addr(), Some(net.prefix_len()))),
        Err(_) => text.trim().parse().ok().map(|address| (address, None)),
    }
}

/// What networks and containers may be called: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(super) fn check_name(name: &str) -> Result<(), ()> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let all = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && all { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Config, Error> {
        Config::read(value.to_string().into_bytes())
    }

    #[test]
    fn faults_have_the_reference_s_codes_and_words() {
        let error = |value: Value| {
            let error = read(&value).unwrap_err();
            (error.code, error.message)
        };
        assert_eq!(Config::read(b"{".to_vec()).unwrap_err().code, 6);
        assert_eq!(
            error(json!({"cniVersion": "0.9.9", "name": "n"})),
            (1, "incompatible CNI versions".into())
        );
        assert_eq!(error(json!({"cniVersion": "1.0.0"})), (7, "missing network name".into()));
        assert_eq!(error(json!({"name": "a/b"})), (7, "invalid characters found in network name".into()));
        let (code, message) = error(json!({"name": "n", "mtu": "big"}));
        assert_eq!((code, message.contains("mtu")), (7, true), "{message}");
        let unknown = read(&json!({"cniVersion": "1.1.0", "name": "n", "type": "netd", "x": {"y": 1}}));
        assert_eq!(unknown.unwrap().version, SpecVersion::V1_1_0);
        assert_eq!(read(&json!({"name": "n", "ipam": null})).unwrap().version, SpecVersion::V0_1_0);
        assert_eq!(read(&json!({"name": "n"})).unwrap().valid().unwrap_err().code, 7);
        for name in VALID {
            assert_eq!(read(&json!({"name": "n", name: null})).unwrap().valid(), Ok(Vec::new()));
        }
        let listed = json!({"name": "n", VALID[0]: null, VALID[1]: [{"containerID": "c", "ifname": "eth0"}]});
        assert_eq!(read(&listed).unwrap().valid().unwrap().len(), 1, "to keep one is the safer reading");
    }

    #[test]
    fn ranges_of_all_kinds_are_read() {
        let config = read(&json!({
            "name": "n",
            "ipam": {
                "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.10", "gateway": "10.9.0.254",
                "ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.2.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
            },
            "runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24", "rangeEnd": "10.7.0.9"}]]},
        }))
        .unwrap();
        let subnets: Vec<Vec<String>> = config
            .ranges()
            .unwrap()
            .iter()
            .map(|set| set.iter().map(|range| range.subnet.to_string()).collect())
            .collect();
        assert_eq!(
            subnets,
            [
                vec!["10.7.0.0/24"],
                vec!["10.9.0.0/24"],
                vec!["10.1.2.0/24", "10.2.2.0/24"],
                vec!["2001:db8:1::/64"]
            ]
        );
        let error = read(&json!({"name": "n", "ipam": {"ranges": [[{"rangeStart": "10.0.0.1"}]]}}));
        assert_eq!(error.unwrap().ranges().unwrap_err().message, "invalid range set: missing subnet");
        assert_eq!(read(&json!({"name": "n", "ipam": {"subnet": "10.0.0.0/33"}})).unwrap_err().code, 7);
    }

    #[test]
    fn capabilities_are_read() {
        let config = read(&json!({
            "name": "n",
            "args": {"cni": {"ips": ["10.1.2.88"], "mac": "02:00:00:00:00:01"}},
            "runtimeConfig": {
                "ips": ["10.1.0.9/24"],
                "mac": "02:00:00:00:00:02",
                "dns": {"servers": ["10.0.0.53"], "searches": ["x"]},
                "aliases": {"n": ["web"], "other": ["y"]},
                "portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                    {"hostPort": 53, "containerPort": 53, "protocol": "UDP", "hostIP": "::1"},
                ],
            },
        }))
        .unwrap();
        assert_eq!(config.requested().unwrap().len(), 2);
        assert_eq!(config.mac(), Some("02:00:00:00:00:02"));
        assert_eq!(config.aliases(), ["web"]);
        assert_eq!(config.dns().nameservers, ["10.0.0.53"]);
        assert_eq!(config.ports().unwrap(), ["8080:80/tcp", "[::1]:53:53/udp"]);
    }

    #[test]
    fn who_is_to_stay_must_be_said() {
        let config = read(&json!({
            "name": "n", "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]
        }));
        let key = Key { container: "a".into(), interface: "eth0".into() };
        assert_eq!(config.unwrap().valid().unwrap(), [key]);
        assert_eq!(read(&json!({"name": "n"})).unwrap().valid().unwrap_err().code, 7);
    }
}
