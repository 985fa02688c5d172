//! An endpoint: one sandbox's attachment to one network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{FarEnd, Id, MacAddress, Port, Publication, Rates, Route, Segment, Sysctl, Timestamp};

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Unique for ever.
    pub id: Id,
    /// The network it is in.
    pub network: Id,
    /// What the network knows it as; unique in the network.
    pub name: String,
    /// The id that an engine's plugin gave for its container: with the interface's name it says which endpoint is meant,
    /// whatever becomes of the namespace.
    pub container: Option<String>,
    /// Who has the far end of its veth.
    pub far_end: FarEnd,
    /// Index in the datapath's tables.
    pub slot: u32,
    /// Of its interface.
    pub mac: MacAddress,
    /// With the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// With the subnet's prefix length.
    pub ipv6: Option<Ipv6Net>,
    /// The host's end of the veth.
    pub host_interface: String,
    /// The far end of the veth: in its sandbox, or in the host's namespace for an engine to take.
    pub interface: String,
    /// The network's way out, if it has one; whether it is the sandbox's default route depends on the sandbox's other
    /// endpoints.
    pub gateway4: Option<Ipv4Addr>,
    /// See `gateway4`.
    pub gateway6: Option<Ipv6Addr>,
    /// Where else it leads.
    pub routes: Vec<Route>,
    /// Among the endpoints of a sandbox the one with the highest is the default route.
    pub gateway_priority: i64,
    /// Of both ends of the veth, in bytes.
    pub mtu: u32,
    /// Further addresses of its interface, that nobody gives out.
    pub link_local: Vec<IpNet>,
    /// Names that it has in the network beside its own.
    pub aliases: Vec<String>,
    /// Kernel settings of its interface.
    pub sysctls: Vec<Sysctl>,
    /// How the bridge treats it.
    pub port: Port,
    /// The number of the segment that it is on, among those for ports like its own; the network's own bridge if absent.
    pub segment: Option<u8>,
    /// How fast it may send and be sent to.
    pub rates: Rates,
    /// The ports of the host that lead to it.
    pub publications: Vec<Publication>,
    /// When it was made.
    pub created: Timestamp,
}

impl Endpoint {
    /// The segment that it is on, if that is not the network's own bridge.
    pub fn segment(&self) -> Option<Segment> {
        let isolated = self.port.isolated;
        self.segment.map(|number| Segment { network: self.network, isolated, number })
    }

    /// Its links in the host's namespace: the host's end, and the far end that an engine takes from there.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        let far_end = self.far_end.handover().map(|_| &*self.interface);
        [&*self.host_interface].into_iter().chain(far_end)
    }

    /// Its addresses in its subnets, IPv4's first.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.ipv4.map(IpNet::from).into_iter().chain(self.ipv6.map(IpNet::from))
    }

    /// The addresses alone.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.nets().map(|net| net.addr())
    }

    /// Those and the link-local ones that it was given.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().chain(self.link_local.iter().map(IpNet::addr))
    }
}
