//! Uplinks, and the routing decision a flow carries with it.

use bytemuck::{Pod, Zeroable};

use crate::addr::{IfIndex, Ipv4, Ipv6, Mac};

/// Address families as the kernel numbers them.
pub const AF_INET: u32 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u32 = 10;

/// In the place of a family: the neighbour is known by its MAC, and by nothing else. As the kernel numbers packet sockets.
pub const AF_PACKET: u32 = 17;

/// Value of `LOCALS4/6`: the host's own, by a local route.
pub const OWN: u32 = 0;
/// Value of `LOCALS4`: all hosts of a link of this one.
pub const BROADCAST: u32 = 1;

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
    /// The smallest MTU that a route by it says itself, in bytes; 0 if none does. What `bpf_fib_lookup` reports is the link's MTU, where
    /// the route's is not locked, though the stack forwards by the route's
    /// (<https://github.com/torvalds/linux/blob/v6.18/include/net/ip.h>, `ip_dst_mtu_maybe_forward`).
    pub route_mtu: u16,
    /// The next hop of the IPv4 default route by it; 255.255.255.255 if all are on its link, 0.0.0.0 if it has none.
    pub default4: Ipv4,
}

impl Uplink {
    /// In [`Self::default4`]: the default route has no gateway, all are on the link.
    pub const ON_LINK: Ipv4 = Ipv4(u32::MAX);

    /// What a packet may have of `mtu` bytes, so that none passes a route that takes less: the stack knows which one that is.
    #[inline(always)]
    pub fn within_routes(&self, mtu: u32) -> u32 {
        let least = self.route_mtu as u32;
        if least != 0 && least < mtu { least } else { mtu }
    }

    /// Whether a packet to an IPv4 address, whose next hop by this uplink is `hop`, goes where all goes that has no route of its own.
    #[inline(always)]
    pub fn leads_by_default(&self, hop: &NextHop, destination: Ipv4) -> bool {
        let [gateway, ..] = hop.address;
        let default = if gateway == destination.0 { Self::ON_LINK } else { Ipv4(gateway) };
        hop.family == AF_INET && self.default4 == default
    }
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
    fn a_default_route_is_known_by_its_next_hop() {
        let [router, other, far] = [Ipv4(10), Ipv4(11), Ipv4(12)];
        let by =
            |address: Ipv4| NextHop { family: AF_INET, address: [address.0, 0, 0, 0], ..NextHop::default() };
        let uplink = Uplink { default4: router, ..Uplink::default() };
        assert!(uplink.leads_by_default(&by(router), far));
        assert!(!uplink.leads_by_default(&by(other), far), "a static route");
        assert!(!uplink.leads_by_default(&by(far), far), "a neighbour");
        assert!(!uplink.leads_by_default(&by(router), router), "the router itself");
        let tunnel = Uplink { default4: Uplink::ON_LINK, ..Uplink::default() };
        assert!(tunnel.leads_by_default(&by(far), far));
        assert!(!tunnel.leads_by_default(&by(router), far));
        for hop in [by(router), by(far)] {
            assert!(!Uplink::default().leads_by_default(&hop, far));
        }
    }

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
