//! Uplinks, and the routing decision a flow carries with it.

use bytemuck::{Pod, Zeroable};

use crate::addr::{IfIndex, Ipv4, Ipv6, Mac};

/// Address families as the kernel numbers them.
pub const AF_INET: u32 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u32 = 10;

/// In the place of a family: the neighbour is known by its MAC, and by nothing else. As the kernel numbers packet sockets.
pub const AF_PACKET: u32 = 17;

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
    /// [`AF_INET`] or [`AF_INET6`]: an IPv4 route may have an IPv6 next hop (RFC 8950). Or [`AF_PACKET`].
    pub family: u32,
    /// The neighbour to send to: an IPv4 address in the first word, or a MAC in the first six bytes.
    pub address: [u32; 4],
    /// The largest IP packet the route takes, in bytes.
    pub mtu: u32,
    /// `Globals::fib_generation` at the time of the lookup.
    pub generation: u32,
}

impl NextHop {
    /// The neighbour with this MAC. Its MTU and generation are the caller's to say.
    #[inline(always)]
    pub fn station(uplink: IfIndex, Mac([a, b, c]): Mac) -> Self {
        let address = [u32::from(a) | u32::from(b) << 16, u32::from(c), 0, 0];
        Self { uplink, family: AF_PACKET, address, ..Self::default() }
    }

    /// The neighbour's MAC, if it is by that alone that it is known.
    #[inline(always)]
    pub fn mac(&self) -> Option<Mac> {
        let [first, second, ..] = self.address;
        if self.family == AF_PACKET {
            Some(Mac([first as u16, (first >> 16) as u16, second as u16]))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_known_by_its_mac_alone() {
        let mac = Mac([0x0102, 0xf304, 0xfe06]);
        let hop = NextHop::station(IfIndex(7), mac);
        assert_eq!((hop.uplink, hop.mac()), (IfIndex(7), Some(mac)));
        for family in [0, AF_INET, AF_INET6] {
            assert_eq!(NextHop { family, ..hop }.mac(), None);
        }
    }
}
