//! A bridge network as the datapath needs it.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Address as _, IfIndex, Ipv4, Ipv6, Mac};

/// Containers of this network have no way out and nobody has a way in.
pub const INTERNAL: u32 = 1 << 0;
/// Traffic to the outside takes an address of the uplink, where addresses are not routed to.
pub const MASQUERADE: u32 = 1 << 1;
/// Endpoints of the network may talk to each other.
pub const ICC: u32 = 1 << 2;
/// netd itself answers for names at the gateway's address, whatever is published there.
pub const NAMES: u32 = 1 << 3;
/// IPv4 addresses of this network are routed to: no masquerade, and published ports are reached at them.
pub const ROUTED4: u32 = 1 << 4;
/// The same for IPv6.
pub const ROUTED6: u32 = 1 << 5;
/// Every port is reached at the containers' own IPv4 addresses.
pub const UNPROTECTED4: u32 = 1 << 6;
/// The same for IPv6.
pub const UNPROTECTED6: u32 = 1 << 7;

/// Some destinations see the containers' own addresses: those in `EXEMPTS4` and `EXEMPTS6`.
pub const EXEMPTS: u32 = 1 << 8;
/// Masquerade takes one external port for all that is sent from one address and port, whoever it is sent to.
pub const INDEPENDENT_MAPPING: u32 = 1 << 9;
/// Anybody may send to such a port.
pub const INDEPENDENT_FILTERING: u32 = 1 << 10;

/// One network: a value of `NETWORKS`, an array indexed by the network's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Network {
    /// The kernel bridge; 0 while the number is unused.
    pub bridge: IfIndex,
    /// [`INTERNAL`], [`MASQUERADE`], [`ICC`], [`NAMES`], [`ROUTED4`], [`ROUTED6`], [`UNPROTECTED4`], [`UNPROTECTED6`],
    /// [`EXEMPTS`], [`INDEPENDENT_MAPPING`], [`INDEPENDENT_FILTERING`].
    pub flags: u32,
    /// The bridge's IPv4 address; 0.0.0.0 if it has none.
    pub gateway4: Ipv4,
    /// The bridge's IPv6 address; `::` if it has none.
    pub gateway6: Ipv6,
    /// What masquerade takes instead of an address of the uplink; 0.0.0.0 for nothing.
    pub source4: Ipv4,
    /// What masquerade takes instead of an address of the uplink; `::` for nothing.
    pub source6: Ipv6,
    /// The bridge's own MAC: frames to it are to be routed.
    pub mac: Mac,
    /// Always zero.
    pub pad: [u8; 2],
}

impl Network {
    /// Whether the bridge has an address that leads out.
    #[inline(always)]
    pub fn has_gateway(&self) -> bool {
        !self.gateway4.is_unspecified() || !self.gateway6.is_unspecified()
    }
}

/// Key of the longest-prefix tables that tell which network an address belongs to.
/// Value: the network's number, a `u32`.
pub type SubnetKey<A> = A;

/// Key of `EXEMPTS4/6`, without its prefix length: a destination that sees the own addresses of a network's containers,
/// though the network is masqueraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Exempt<A> {
    /// The network's number, which is always a part of the prefix.
    pub network: u32,
    /// An address, or the beginning of one.
    pub destination: A,
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for Exempt<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for Exempt<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for Exempt<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for Exempt<Ipv6> {}

impl<A> Exempt<A> {
    /// Bits of a key that names one address.
    pub const BITS: u32 = 8 * size_of::<Self>() as u32;
    /// Bits of the network's number, before those of the destination.
    pub const NETWORK_BITS: u32 = u32::BITS;
}
