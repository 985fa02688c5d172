//! Published ports that are in force.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{PortSpec, Ports, Protocol};

/// Ports of the host that lead to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPorts {
    /// Their protocol.
    pub protocol: Protocol,
    /// An address of the host, or unspecified for all of its family.
    pub address: IpAddr,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl HostPorts {
    /// The ports, wherever they are.
    pub const fn ports(&self) -> Ports {
        Ports { first: self.first, last: self.last }
    }

    /// Whether a socket could not be bound to a port of both: bind(2)'s rules.
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_family = self.address.is_ipv4() == other.address.is_ipv4();
        let either = self.address.is_unspecified() || other.address.is_unspecified();
        self.protocol == other.protocol
            && (self.address == other.address || same_family && either)
            && self.first <= other.last
            && other.first <= self.last
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports();
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{ports}"),
            IpAddr::V6(address) => write!(f, "[{address}]:{ports}"),
        }
    }
}

/// Who keeps a published port of the host's from being bound by others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reserver {
    /// netd: no socket is given it.
    #[default]
    Netd,
    /// Who runs the container, by a socket of his own or not at all.
    Runtime,
}

impl Reserver {
    /// The name that is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netd => "netd",
            Self::Runtime => "runtime",
        }
    }
}

/// Ports of the host, and the container's that they lead to in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// The host's ports.
    pub host: HostPorts,
    /// The container's port behind the first of them.
    pub container: u16,
    /// Who reserves the host's ports.
    pub reserved_by: Reserver,
}

impl Publication {
    /// The container's ports.
    pub const fn container_ports(&self) -> Ports {
        Ports { first: self.container, last: self.container + (self.host.last - self.host.first) }
    }

    /// Whether what `spec` names is part of this publication, or all of it.
    pub fn holds(&self, spec: &PortSpec) -> bool {
        spec.protocol == self.host.protocol
            && self.container_ports().contains(spec.container)
            && spec.address.is_none_or(|address| address == self.host.address)
            && spec.host.is_none_or(|ports| self.host.ports().contains(ports))
    }

    /// Whether all of the container's ports that `other` leads to are reached by this publication, too.
    pub fn leads_where(&self, other: &Self) -> bool {
        self.host.protocol == other.host.protocol && self.container_ports().contains(other.container_ports())
    }

    /// Whether `spec` names this publication: what it leaves open it does not ask for.
    pub fn is_meant_by(&self, spec: &PortSpec) -> bool {
        let host = self.host.ports();
        let own = self.container_ports();
        // Of ranges of one length the ports that stand in the same place.
        let in_place = |ports: Ports| {
            ports.count() != spec.container.count()
                || host.first - ports.first == own.first - spec.container.first
        };
        spec.protocol == self.host.protocol
            && spec.container.contains(own)
            && spec.address.is_none_or(|address| address == self.host.address)
            && spec.host.is_none_or(|ports| ports.contains(host) && in_place(ports))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_those_of_bind() {
        let host = |address: &str, first, last| HostPorts {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            first,
            last,
        };
        let all = host("0.0.0.0", 80, 90);
        assert!(all.overlaps(&host("0.0.0.0", 90, 95)) && all.overlaps(&host("127.0.0.1", 85, 85)));
        assert!(!all.overlaps(&host("0.0.0.0", 91, 95)) && !all.overlaps(&host("::", 80, 90)));
        assert!(!host("127.0.0.1", 80, 80).overlaps(&host("127.0.0.2", 80, 80)));
        assert!(!all.overlaps(&HostPorts { protocol: Protocol::Udp, ..all }));
    }

    #[test]
    fn a_publication_is_meant_by_what_leaves_open_what_it_has() {
        let host = HostPorts {
            protocol: Protocol::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            first: 8001,
            last: 8001,
        };
        let publication = Publication { host, container: 81, reserved_by: Reserver::Netd };
        let meant = |text: &str| publication.is_meant_by(&text.parse().unwrap());
        for text in
            ["81", "8001:81", "0.0.0.0:8001:81", "0.0.0.0::81", "80-90", "8000-8010:80-90", "8000-8010:81"]
        {
            assert!(meant(text), "{text}");
        }
        for text in ["80", "81/udp", "8000:81", "127.0.0.1:8001:81", "8001-8011:80-90", "82-90"] {
            assert!(!meant(text), "{text}");
        }
    }
}
