//! Results, in the shape of each version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    error::{Code, Error},
    version::SpecVersion,
};
use crate::model::attachment::Attachment;

/// What a plugin made, in the shape of the latest version. What is read may be of any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) interfaces: Vec<Interface>,
    pub(super) ips: Vec<Ip>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Dns,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Interface {
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mac: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) mtu: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) sandbox: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ip {
    /// Index among the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interface: Option<usize>,
    pub(super) address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gw: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) priority: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) mtu: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) advmss: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) options: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Dns {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Outcome {
    /// What the daemon made.
    pub(super) fn of(attachment: &Attachment, dns: Dns) -> Self {
        let interface = |link: &crate::model::attachment::Link, sandbox: &str| Interface {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: link.mtu,
            sandbox: sandbox.to_owned(),
        };
        let Attachment { bridge, host, interface: own, sandbox, .. } = attachment;
        let ips = attachment.addresses.iter().map(|address| Ip {
            interface: Some(2),
            address: address.address,
            gateway: address.gateway,
        });
        let routes = attachment.routes.iter().map(|route| Route {
            dst: route.destination,
            gw: route.gateway,
            priority: route.metric,
            mtu: 0,
            advmss: 0,
            table: None,
            scope: None,
        });
        Self {
            interfaces: vec![interface(bridge, ""), interface(host, ""), interface(own, sandbox)],
            ips: ips.collect(),
            routes: routes.collect(),
            dns,
        }
    }

    /// Reads a result of any version.
    pub(super) fn read(value: &Value) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Old {
            ip: IpNet,
            gateway: Option<IpAddr>,
            #[serde(default)]
            routes: Vec<Route>,
        }
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Any {
            interfaces: Vec<Interface>,
            ips: Vec<Ip>,
            ip4: Option<Old>,
            ip6: Option<Old>,
            routes: Vec<Route>,
            dns: Dns,
        }
        let mut value = value.clone();
        drop_nulls(&mut value);
        let any: Any = serde_path_to_error::deserialize(value).map_err(|error| {
            Error::new(Code::Decoding, format!("cannot read a result: {}: {}", error.path(), error.inner()))
        })?;
        let mut outcome = Self { interfaces: any.interfaces, ips: any.ips, routes: any.routes, dns: any.dns };
        for old in [any.ip4, any.ip6].into_iter().flatten() {
            outcome.ips.push(Ip { interface: None, address: old.ip, gateway: old.gateway });
            outcome.routes.extend(old.routes);
        }
        Ok(outcome)
    }

    /// The result as `version` has it.
    pub(super) fn write(&self, version: SpecVersion) -> Value {
        let mut result = Map::new();
        result.insert("cniVersion".to_owned(), version.text().into());
        if version < SpecVersion::V0_3_0 {
            for (name, ipv4) in [("ip4", true), ("ip6", false)] {
                // There is room for one address of each family.
                let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == ipv4) else {
                    continue;
                };
                let of_family = |route: &&Route| route.dst.addr().is_ipv4() == ipv4;
                let routes: Vec<_> = self.routes.iter().filter(of_family).map(short).collect();
                let mut object = json!({ "ip": ip.address });
                if let Some(gateway) = ip.gateway {
                    object["gateway"] = json!(gateway);
                }
                if !routes.is_empty() {
                    object["routes"] = routes.into();
                }
                result.insert(name.to_owned(), object);
            }
        } else {
            let interfaces = self.interfaces.iter().map(|interface| match version {
                SpecVersion::V1_1_0 => json!(interface),
                _ => json!(Interface { mtu: 0, ..interface.clone() }),
            });
            let ips = self.ips.iter().map(|ip| {
                let mut object = json!(ip);
                if version < SpecVersion::V1_0_0 {
                    object["version"] = if ip.address.addr().is_ipv4() { "4" } else { "6" }.into();
                }
                object
            });
            let routes = self.routes.iter().map(|route| match version {
                SpecVersion::V1_1_0 => json!(route),
                _ => short(route),
            });
            for (name, list) in [
                ("interfaces", interfaces.collect::<Vec<_>>()),
                ("ips", ips.collect()),
                ("routes", routes.collect()),
            ] {
                if !list.is_empty() {
                    result.insert(name.to_owned(), list.into());
                }
            }
        }
        result.insert("dns".to_owned(), json!(self.dns));
        result.into()
    }
}

/// A route as versions before 1.1.0 have it.
fn short(route: &Route) -> Value {
    match route.gw {
        Some(gw) => json!({ "dst": route.dst, "gw": gw }),
        None => json!({ "dst": route.dst }),
    }
}

/// Go writes nothing and null alike.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1400,
            sandbox: sandbox.into(),
        };
        let route = |dst: &str, gw: &str| Route {
            dst: dst.parse().unwrap(),
            gw: gw.parse().ok(),
            priority: 7,
            mtu: 0,
            advmss: 0,
            table: None,
            scope: None,
        };
        let ip = |address: &str, gateway: &str| Ip {
            interface: Some(2),
            address: address.parse().unwrap(),
            gateway: gateway.parse().ok(),
        };
        Outcome {
            interfaces: vec![interface("br0", ""), interface("veth0", ""), interface("eth0", "/run/netns/a")],
            ips: vec![ip("10.1.0.5/16", "10.1.0.1"), ip("fd00::5/64", "fd00::1")],
            routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00::1")],
            dns: Dns { nameservers: vec!["10.1.0.1".into()], ..Default::default() },
        }
    }

    #[test]
    fn each_version_has_its_shape() {
        let outcome = outcome();
        let old = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
            "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        assert_eq!(outcome.write(SpecVersion::V0_2_0), old);
        let middle = outcome.write(SpecVersion::V0_3_1);
        assert_eq!(
            middle["ips"],
            json!([
                {"version": "4", "interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
                {"version": "6", "interface": 2, "address": "fd00::5/64", "gateway": "fd00::1"},
            ])
        );
        assert_eq!(middle["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"}));
        assert_eq!(
            middle["interfaces"][2],
            json!({"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a"})
        );
        let one = outcome.write(SpecVersion::V1_0_0);
        assert_eq!(one["ips"][0], json!({"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}));
        assert_eq!(one["interfaces"][0].get("mtu"), None);
        let latest = outcome.write(SpecVersion::V1_1_0);
        assert_eq!(latest["interfaces"][0], json!({"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1400}));
        assert_eq!(latest["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 7}));
        for version in SpecVersion::ALL {
            assert_eq!(outcome.write(version)["cniVersion"], version.text());
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let outcome = outcome();
        for version in SpecVersion::ALL {
            let read = Outcome::read(&outcome.write(version)).unwrap();
            let addresses = |outcome: &Outcome| outcome.ips.iter().map(|ip| ip.address).collect::<Vec<_>>();
            assert_eq!(addresses(&read), addresses(&outcome), "{}", version.text());
            assert_eq!((read.routes.len(), read.dns), (2, outcome.dns.clone()));
        }
        assert_eq!(Outcome::read(&outcome.write(SpecVersion::V1_1_0)).unwrap(), outcome);
        assert_eq!(Outcome::read(&json!({"ips": [{"address": "x"}]})).unwrap_err().code, 6);
    }
}
