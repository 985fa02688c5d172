//! Uplinks, and the routing decision a flow carries with it.

use bytemuck::{Pod, Zeroable};

use crate::addr::{IfIndex, Ipv4, Ipv6, Mac};

/// Address families as the kernel numbers them.
pub const AF_INET: u32 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u32 = 10;

/// An interface that leads outside: a value of `UPLINKS`, keyed by [`IfIndex`].
///
/// The addresses serve kernels whose `bpf_fib_lookup` cannot give the source of a route (before 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Uplink {
    /// The first global IPv4 address; 0.0.0.0 if there is none.
    pub ipv4: Ipv4,
    /// The first global IPv6 address; `::` if there is none.
    pub ipv6: Ipv6,
    /// The interface's own MAC.
    pub mac: Mac,
    /// Always zero.
    pub pad: [u8; 2],
}

/// Where packets of a flow leave: the result of one FIB lookup, good while `generation` is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// The uplink; 0 if the packet comes back in at once, for it is sent to an external address of this host's containers.
    pub uplink: IfIndex,
    /// [`AF_INET`] or [`AF_INET6`]: an IPv4 route may have an IPv6 next hop (RFC 8950).
    pub family: u32,
    /// The neighbour to send to, an IPv4 address in the first word.
    pub address: [u32; 4],
    /// The largest IP packet the route takes, in bytes.
    pub mtu: u32,
    /// `Globals::fib_generation` at the time of the lookup.
    pub generation: u32,
}
