//! A kernel setting of one interface.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A setting under `net.FAMILY.TABLE.IFNAME`, whatever the interface will be called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sysctl {
    /// `ipv4`, `ipv6` or `mpls`.
    pub family: String,
    /// `conf` or `neigh`, for instance.
    pub table: String,
    /// `log_martians`, for instance.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

/// A text that is not `net.X.Y.IFNAME.Z=V`, in Docker's words.
#[derive(Debug, thiserror::Error)]
#[error(
    "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', \
     'X' must be 'ipv4', 'ipv6' or 'mpls'"
)]
pub struct InvalidSysctl(String);

impl Sysctl {
    /// Its path below /proc/sys/net, for an interface of this name.
    pub fn path(&self, interface: &str) -> String {
        format!("{}/{}/{interface}/{}", self.family, self.table, self.name)
    }
}

impl FromStr for Sysctl {
    type Err = InvalidSysctl;

    fn from_str(text: &str) -> Result<Self, InvalidSysctl> {
        let invalid = || InvalidSysctl(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(invalid)?;
        let parts: Vec<&str> = key.split('.').collect();
        // Only words: nothing that leads out of the interface's own directory.
        let is_word =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match parts[..] {
            ["net", family @ ("ipv4" | "ipv6" | "mpls"), table, "IFNAME" | "ifname", name]
                if is_word(table) && is_word(name) =>
            {
                let [family, table, name, value] = [family, table, name, value].map(str::to_owned);
                Ok(Self { family, table, name, value })
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net.{}.{}.IFNAME.{}={}", self.family, self.table, self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_for_any_interface() {
        let text = "net.ipv4.conf.IFNAME.log_martians=1";
        let sysctl: Sysctl = text.parse().unwrap();
        assert_eq!((sysctl.to_string(), &*sysctl.path("eth0")), (text.into(), "ipv4/conf/eth0/log_martians"));
        assert_eq!("net.ipv4.conf.ifname.log_martians=1".parse::<Sysctl>().unwrap(), sysctl);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.IFNAME=1",
            "net.core.conf.IFNAME.x=1",
            "ipv4.conf.IFNAME.log_martians=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.../../../kernel/x=1",
            "net.ipv4.conf.IFNAME.a.b=1",
        ] {
            let error = text.parse::<Sysctl>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("unrecognised network interface sysctl '{text}'; ")),
                "{error}"
            );
        }
    }
}
