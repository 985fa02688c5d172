//! Real namespaces, real sockets: what netd promises, seen from the containers and from the outside.
//!
//! Each test has a lab of its own, so they run side by side. Needs root, a kernel of 6.6 or later, `ip` and `nft`;
//! a test panics where one of them is missing.

mod binding;
mod bridge;
mod cni;
mod cni_again;
mod cni_ipam;
mod cni_networks;
mod cni_ports;
mod connections;
mod daemon;
mod default_bridge;
mod endpoint;
mod external;
mod forwarding;
mod fragments;
mod hairpin;
mod host_sockets;
mod icmp;
mod ipam;
mod kernel;
mod leak;
mod masquerade;
mod mtu;
mod multihomed;
mod names;
mod neighbours;
mod netavark;
mod networks;
mod publish;
mod publish_model;
mod rate;
mod refusals;
mod reserved;
mod restart;
mod rules;
mod segments;
mod settings;
mod source;
mod stream;
mod ttl;
mod tunnel;
mod unpublished;
mod uplink;
mod verdicts;
mod vlan;
