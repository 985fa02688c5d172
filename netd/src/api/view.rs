//! What netd's own routes answer, and its command line reads: the shapes of `/netd/...`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::Reserver;
pub use crate::model::Traffic;

/// One of `GET /netd/names`: the names of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Names {
    /// Name of the network.
    pub network: String,
    /// Its id.
    pub network_id: String,
    /// The addresses of its name server, port 53.
    pub servers: Vec<IpAddr>,
    /// Whether it asks servers outside for names that it does not know.
    pub forwards: bool,
    /// What it knows.
    pub names: Vec<NamedEndpoint>,
}

/// An endpoint as its network's name server knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedEndpoint {
    /// Its name, and its aliases. Each is known with the network's name behind it too.
    pub names: Vec<String>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// `GET /netd/nat`: address translation.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nat {
    /// What is masqueraded.
    pub rules: Vec<Rule>,
    /// What is translated one for one: addresses, and prefixes followed by what that makes of their endpoints' addresses.
    pub externals: Vec<External>,
    /// The flows that are translated now, and the ports that are bound for whoever the remote is.
    pub bindings: Vec<Binding>,
}

/// Packets from `source` that leave through one of `uplinks` get its address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Name of the network.
    pub network: String,
    /// The network's prefix.
    pub source: IpNet,
    /// Where the rule is in force; nowhere if empty.
    pub uplinks: Vec<RuleUplink>,
    /// Destinations that it does not apply to.
    pub except: Vec<IpNet>,
    /// What the external port of an endpoint's address and port depends on, as in the option `netd.masquerade.mapping`.
    pub mapping: String,
    /// What it depends on who may send to that port, as in the option `netd.masquerade.filtering`.
    pub filtering: String,
}

/// What the outside knows an endpoint or a network by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// What the outside sees.
    pub external: IpNet,
    /// What it stands for.
    pub internal: IpNet,
    /// Name of the network.
    pub network: String,
    /// Name of the endpoint; none for a prefix.
    pub endpoint: Option<String>,
}

/// `POST /netd/nat`: gives an endpoint or a network an external address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAdd {
    /// An address for an endpoint, or an IPv6 prefix for a network.
    pub external: String,
    /// The endpoint: its name, its namespace in any form, its id, or NETWORK/ENDPOINT. Or the network.
    pub target: String,
}

/// Where a rule is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleUplink {
    /// Name of the interface.
    pub name: String,
    /// What the outside sees; an uplink is listed once for each source that its routes name.
    pub address: IpAddr,
}

/// One translated flow; or, where mapping is endpoint-independent, an external port with all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or the number.
    pub protocol: String,
    /// The container's side.
    pub local: SocketAddr,
    /// What the remote sees.
    pub external: SocketAddr,
    /// The far side. None for a port that serves any.
    pub remote: Option<SocketAddr>,
    /// Of the connection, as the datapath follows it.
    pub state: String,
    /// The remote began it: it came to a published port.
    pub accepted: bool,
    /// Seconds since the flow was made.
    pub age: f64,
    /// Seconds since its last packet, to within the second that the datapath keeps it at.
    pub idle: f64,
    /// Name of the network; none if the host began the flow.
    pub network: Option<String>,
    /// Name of the endpoint; none if the host began the flow.
    pub endpoint: Option<String>,
    /// Name of the interface it leaves through; none if it leaves through none, or if the interface is gone.
    pub uplink: Option<String>,
    /// To the remote.
    pub outbound: Traffic,
    /// From the remote.
    pub inbound: Traffic,
}

/// One entry of `GET /netd/publish`: ports of the host that lead to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Name of the network; empty in the answer to who named the endpoint himself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Name of the endpoint; as `network`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// An address of the host, or unspecified for all of its family.
    pub host_ip: IpAddr,
    /// The first port of the host; 0 on a routed network, where the endpoint's own address is dialled.
    pub host_port: u16,
    /// The last port of the host.
    pub host_port_end: u16,
    /// The container's port behind the first one of the host.
    pub container_port: u16,
    /// The container's port behind the last one of the host.
    pub container_port_end: u16,
    /// Who keeps the host's ports from others; absent on a routed network, where they are none of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_by: Option<Reserver>,
}

/// One entry of `GET /netd/fdb`: behind which port a station is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Name of the network.
    pub network: String,
    /// Of the station.
    pub mac: String,
    /// Name of the endpoint.
    pub endpoint: String,
    /// The port: the host's end of the endpoint's veth.
    pub interface: String,
}

/// `GET /netd/routes`: where packets go.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Prefixes inside.
    pub networks: Vec<NetworkRoute>,
    /// Prefixes outside.
    pub uplinks: Vec<UplinkRoute>,
}

/// One prefix of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// Name of the network.
    pub network: String,
    /// The prefix.
    pub destination: IpNet,
    /// The kernel bridge.
    pub interface: String,
    /// The bridge's address.
    pub gateway: Option<IpAddr>,
}

/// A route of the host's that leads outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkRoute {
    /// The prefix.
    pub destination: IpNet,
    /// The uplink.
    pub interface: String,
    /// The next hop; none where the destination itself is on the link.
    pub gateway: Option<IpAddr>,
    /// Of routes to one prefix the lowest is taken.
    pub metric: u32,
}

/// `GET /netd/stats`: what was moved, which way, and what was not.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One for each bridge network.
    pub networks: Vec<NetworkStats>,
    /// One for each endpoint.
    pub endpoints: Vec<EndpointStats>,
    /// Packets by the way they took.
    pub paths: BTreeMap<String, u64>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// New flows by the number of ports that were tried for them, from none; the last are those that found none free.
    pub draws: Vec<u64>,
}

/// Traffic of a network's endpoints: of those it has, and of those that left it since the daemon was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Name of the network.
    pub network: String,
    /// By its endpoints.
    pub sent: Traffic,
    /// By its endpoints.
    pub received: Traffic,
}

/// Traffic of one endpoint, as it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Name of the network.
    pub network: String,
    /// Name of the endpoint.
    pub endpoint: String,
    /// By the container.
    pub sent: Traffic,
    /// By the container.
    pub received: Traffic,
}

/// `GET /netd/status`: the daemon and what it has in the kernel.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Of the maps' layout.
    pub abi: u32,
    /// Of the running kernel.
    pub kernel: String,
    /// Seconds since the daemon was started.
    pub uptime: f64,
    /// Where programs, links and maps are pinned.
    pub pins: String,
    /// How many networks there are.
    pub networks: usize,
    /// How many endpoints there are.
    pub endpoints: usize,
    /// How many flows are translated now.
    pub flows: FlowCounts,
    /// How many external ports are bound for whoever the remote is.
    pub bindings: FlowCounts,
    /// Interfaces that lead outside.
    pub uplinks: Vec<Uplink>,
    /// Programs in the kernel.
    pub programs: Vec<Program>,
    /// What the programs are attached to.
    pub links: Vec<Link>,
    /// Their maps.
    pub maps: Vec<Map>,
    /// What the kernel can do of what netd would use.
    pub features: BTreeMap<String, bool>,
}

/// Translated flows, or bindings, by family.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
}

/// An interface that leads outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// What IPv4 is masqueraded with.
    pub ipv4: Option<Ipv4Addr>,
    /// What IPv6 is masqueraded with.
    pub ipv6: Option<Ipv6Addr>,
    /// Its largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
}

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// Hash of its instructions.
    pub tag: String,
    /// Instructions that the verifier walked.
    pub verified_instructions: u32,
    /// Size of the machine code.
    pub jited_bytes: u32,
}

/// A program's attachment to an interface, or to the root of the control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name of the program.
    pub program: String,
    /// Name of the interface, or its index where it has gone; `cgroup` for a program that sockets call.
    pub interface: String,
}

/// A map in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Its id, as `bpftool map show id` takes it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it can have.
    pub max_entries: u32,
    /// How many it has; none where nobody counts.
    pub entries: Option<u64>,
}
