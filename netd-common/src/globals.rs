//! What every program reads and only the daemon writes: the one value of the array `GLOBALS`.

use bytemuck::{Pod, Zeroable};

use crate::nat::PortRanges;

/// The host forwards IPv4 for netd's networks alone.
pub const CLOSED4: u32 = 1 << 0;
/// The same for IPv6.
pub const CLOSED6: u32 = 1 << 1;
/// There is more than one uplink.
pub const MULTIHOMED: u32 = 1 << 2;
/// `bpf_fib_lookup` knows BPF_FIB_LOOKUP_SRC (6.7).
pub const FIB_SOURCE: u32 = 1 << 3;

/// Settings that hold for all networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Globals {
    /// The cookie of the daemon's network namespace: sockets of others are none of netd's business.
    pub netns: u64,
    /// Bumped when a route, an address or a link changes: next hops of older generations are looked up anew.
    pub fib_generation: u32,
    /// Jiffies in a second (CONFIG_HZ).
    pub hz: u32,
    /// Ports that masquerade may take.
    pub ports: PortRanges,
    /// Flows that one container may hold, of IPv4 and of IPv6.
    pub flows_per_container: [u32; 2],
    /// [`CLOSED4`], [`CLOSED6`], [`MULTIHOMED`], [`FIB_SOURCE`].
    pub flags: u32,
}
