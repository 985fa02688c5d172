//! What a runtime says in a plugin's environment.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    config,
    error::{Code, Error},
};
use crate::link::{self, Namespace};

/// What is asked of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The environment, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) verb: Verb,
    pub(super) container: String,
    /// Empty if the namespace is gone.
    pub(super) netns: String,
    pub(super) interface: String,
    /// Where other plugins are.
    pub(super) path: Vec<PathBuf>,
    pub(super) args: Args,
    /// The plugin may be in the very namespace that is meant.
    netns_override: bool,
}

/// `CNI_ARGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) ips: Vec<IpAddr>,
    pub(super) mac: String,
    /// The name of the pod, or of podman's container.
    pub(super) name: Option<String>,
}

impl Environment {
    /// Reads the environment by `get`.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let get = |name: &str| get(name).unwrap_or_default();
        let command = get("CNI_COMMAND");
        let verb = match command.as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            "" => return Err(missing(&["CNI_COMMAND"])),
            _ => {
                return Err(Error::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {command}")));
            }
        };
        let required: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Verb::Gc | Verb::Status => &["CNI_PATH"],
            Verb::Version => &[],
        };
        let absent: Vec<_> = required.iter().copied().filter(|name| get(name).is_empty()).collect();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let environment = Self {
            verb,
            container: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            path: std::env::split_paths(&get("CNI_PATH")).filter(|path| path.is_absolute()).collect(),
            args: Args::read(&get("CNI_ARGS"))?,
            netns_override: matches!(get("CNI_NETNS_OVERRIDE").to_uppercase().as_str(), "1" | "TRUE"),
        };
        if matches!(verb, Verb::Add | Verb::Del | Verb::Check) {
            config::check_name(&environment.container).map_err(|()| {
                Error::new(Code::InvalidEnvironment, "invalid characters in containerID")
                    .with(environment.container.clone())
            })?;
            check_interface(&environment.interface)?;
        }
        Ok(environment)
    }

    /// Refuses the namespace that the plugin itself is in: it is the host's.
    pub(super) fn check_namespace(&self) -> Result<(), Error> {
        if self.netns_override || self.netns.is_empty() {
            return Ok(());
        }
        let own = Namespace::current().map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        match Namespace::open(Path::new(&self.netns)) {
            Ok(namespace) if namespace.inode() == own.inode() => Err(Error::new(
                Code::InvalidNamespace,
                "plugin's netns and netns from CNI_NETNS should not be the same",
            )),
            // Whether one that is not there matters is the verb's affair.
            _ => Ok(()),
        }
    }

    /// Whether the namespace is the one at `path`.
    pub(super) fn is_in(&self, path: &str) -> Result<bool, Error> {
        let open = |path: &str| Namespace::open(Path::new(path));
        let gone = |error: link::Error| Error::new(Code::UnknownContainer, error.to_string());
        Ok(open(&self.netns).map_err(gone)?.inode() == open(path).map_err(gone)?.inode())
    }

    /// Whether the namespace can still be entered.
    pub(super) fn has_namespace(&self) -> bool {
        !self.netns.is_empty() && Namespace::open(Path::new(&self.netns)).is_ok()
    }
}

fn missing(names: &[&str]) -> Error {
    Error::new(Code::InvalidEnvironment, format!("required env variables [{}] missing", names.join(",")))
}

fn check_interface(name: &str) -> Result<(), Error> {
    let invalid = |message: &str| Error::new(Code::InvalidEnvironment, message).with(name);
    if name.len() >= libc::IFNAMSIZ {
        return Err(Error::new(Code::InvalidEnvironment, "interface name is too long")
            .with(format!("interface name should be less than {} characters", libc::IFNAMSIZ)));
    }
    if matches!(name, "." | "..") {
        return Err(invalid("interface name is . or .."));
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(invalid("interface name contains / or : or whitespace characters"));
    }
    Ok(())
}

impl Args {
    fn read(text: &str) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(Code::InvalidEnvironment, message);
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| invalid(format!("ARGS: invalid pair {pair:?}")))?;
            pairs.insert(name, value);
        }
        let mut args = Self::default();
        let mut unknown = Vec::new();
        for (&name, &value) in &pairs {
            match name {
                "IP" => {
                    let ips = value.split(',').map(|ip| config::address(ip).map(|(address, _)| address));
                    args.ips = ips.collect::<Option<_>>().ok_or_else(|| {
                        invalid(format!("ARGS: error parsing value of pair \"IP={value}\": it is no address"))
                    })?;
                }
                "MAC" => args.mac = value.to_owned(),
                "K8S_POD_NAME" => args.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
                "IgnoreUnknown" => {}
                _ => unknown.push(format!("{name}={value}")),
            }
        }
        let lenient = pairs
            .get("IgnoreUnknown")
            .is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true"));
        if !unknown.is_empty() && !lenient {
            return Err(invalid(format!("ARGS: unknown args {unknown:?}")));
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    ];

    fn with(name: &'static str, value: &'static str) -> Result<Environment, Error> {
        let mut variables: Vec<_> = ADD.into_iter().filter(|(key, _)| *key != name).collect();
        variables.push((name, value));
        read(&variables)
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert_eq!(error.code, 4);
        assert_eq!(error.message, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_PATH] missing");
        let error = read(&[("CNI_COMMAND", "DEL")]).unwrap_err();
        assert_eq!(error.message, "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing");
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]).unwrap().verb, Verb::Version);
        assert_eq!(read(&[("CNI_COMMAND", "NOP")]).unwrap_err().message, "unknown CNI_COMMAND: NOP");
    }

    #[test]
    fn names_are_checked_in_the_reference_s_words() {
        for (name, value, message) in [
            ("CNI_IFNAME", "sixteencharacter", "interface name is too long"),
            ("CNI_IFNAME", "..", "interface name is . or .."),
            ("CNI_IFNAME", "a/b", "interface name contains / or : or whitespace characters"),
            ("CNI_CONTAINERID", "a/b", "invalid characters in containerID"),
            ("CNI_CONTAINERID", "-a", "invalid characters in containerID"),
            ("CNI_COMMAND", "add", "unknown CNI_COMMAND: add"),
        ] {
            let error = with(name, value).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (4, message), "{value}");
        }
        assert_eq!(with("CNI_IFNAME", "fifteencharacte").unwrap().interface.len(), 15);
    }

    #[test]
    fn arguments_are_read() {
        let environment = with(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=web;IP=10.1.0.9,fd00::9;MAC=02:00:00:00:00:09",
        )
        .unwrap();
        assert_eq!(environment.args.ips.len(), 2);
        assert_eq!(
            (environment.args.mac.as_str(), environment.args.name.as_deref()),
            ("02:00:00:00:00:09", Some("web"))
        );
        assert_eq!(with("CNI_ARGS", "a=b").unwrap_err().message, "ARGS: unknown args [\"a=b\"]");
        assert_eq!(with("CNI_ARGS", "a").unwrap_err().message, "ARGS: invalid pair \"a\"");
        assert_eq!(with("CNI_ARGS", "IP=x").unwrap_err().code, 4);
    }
}
