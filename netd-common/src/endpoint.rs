//! An endpoint: one container's attachment to one network.

use bytemuck::{Pod, Zeroable};

use crate::addr::{IfIndex, Ipv4, Ipv6, Mac};

/// The far end of the veth is in another network namespace, so `bpf_redirect_peer` may be used:
/// the kernel drops what it would redirect within one namespace.
/// <https://github.com/torvalds/linux/blob/v6.18/net/core/filter.c#L2520-L2550>
pub const PEER_IN_OTHER_NETNS: u32 = 1 << 0;
/// Nothing is redirected to it or from it: the kernel's bridge and stack forward it all, and the programs only judge.
pub const VIA_BRIDGE: u32 = 1 << 1;
/// The guard lets any source through.
pub const ANY_SOURCE: u32 = 1 << 2;
/// The port is isolated: two such ports of a bridge do not hear each other.
pub const ISOLATED: u32 = 1 << 3;
/// The endpoint is in a VLAN that the bridge's own port is not in, so it and the gateway do not hear each other.
pub const NO_GATEWAY: u32 = 1 << 4;
/// The endpoint's IPv4 address has an external one of its own.
pub const EXTERNAL4: u32 = 1 << 5;
/// The endpoint's IPv6 address has an external one of its own.
pub const EXTERNAL6: u32 = 1 << 6;
/// The endpoint may send only so much.
pub const SENT_LIMITED: u32 = 1 << 8;
/// The endpoint may be sent only so much: the queue of the host's end of its veth sees to that.
pub const DELIVERED_LIMITED: u32 = 1 << 9;

/// One endpoint: a value of `ENDPOINTS`, an array indexed by the endpoint's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// The host's end of the veth; 0 while the slot is unused.
    pub port: IfIndex,
    /// The network's number, an index of `NETWORKS`.
    pub network: u32,
    /// [`PEER_IN_OTHER_NETNS`], [`VIA_BRIDGE`], [`ANY_SOURCE`], [`ISOLATED`], [`NO_GATEWAY`], [`EXTERNAL4`], [`EXTERNAL6`],
    /// [`SENT_LIMITED`], [`DELIVERED_LIMITED`].
    pub flags: u32,
    /// The only IPv4 source that the guard lets through; 0.0.0.0 if the endpoint has none.
    pub ipv4: Ipv4,
    /// The only global IPv6 source that the guard lets through; `::` if the endpoint has none.
    pub ipv6: Ipv6,
    /// The only source MAC that the guard lets through.
    pub mac: Mac,
    /// The VLAN of its untagged frames; 0 where the bridge does not tell VLANs apart.
    pub vlan: u16,
    /// The same number for all endpoints of one container, and for no others; 0 if it is not known whose it is.
    pub sandbox: u32,
    /// The slot of the next endpoint of the same container, in a ring; its own if there is no other.
    pub beside: u32,
}
