//! The addresses of the lab, by family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{BEHIND4, BEHIND6, HOST4, HOST6, Namespace, OUTSIDE4, OUTSIDE4_OTHER, OUTSIDE6, OUTSIDE6_OTHER};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The host's address on its uplink.
    pub fn host(self) -> IpAddr {
        self.pick(HOST4, HOST6)
    }

    /// The remote.
    pub fn outside(self) -> IpAddr {
        self.pick(OUTSIDE4, OUTSIDE6)
    }

    /// Another address of the remote.
    pub fn outside_other(self) -> IpAddr {
        self.pick(OUTSIDE4_OTHER, OUTSIDE6_OTHER)
    }

    /// The remote behind a router.
    pub fn behind(self) -> IpAddr {
        self.pick(BEHIND4, BEHIND6)
    }

    /// 127.0.0.1 or ::1.
    pub fn loopback(self) -> IpAddr {
        self.pick(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    }

    /// 0.0.0.0 or ::, with a port.
    pub fn any(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.pick(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED), port)
    }

    fn pick(self, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> IpAddr {
        match self {
            Self::V4 => ipv4.into(),
            Self::V6 => ipv6.into(),
        }
    }
}

/// The addresses of global scope that an interface has and may use already.
pub(super) fn global(ns: &Namespace, interface: &str) -> Vec<IpAddr> {
    let json = ns.ip(&format!("-json address show dev {interface} scope global -tentative"));
    let links: serde_json::Value = serde_json::from_str(&json).expect("ip -json");
    let addresses = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
    addresses
        .iter()
        .filter_map(|address| address["local"].as_str())
        .map(|address| address.parse().expect("an address of ip -json"))
        .collect()
}
