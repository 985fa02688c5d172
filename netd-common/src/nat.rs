//! Masquerade: the flow record that both directions share, and the choice of an external port.

use bytemuck::{Pod, Zeroable};

use crate::{
    addr::{Address, Be16, Ipv4, Ipv6},
    conntrack::{Clock, Side},
    fib::NextHop,
    stats::Traffic,
    tuple::{ANY_REMOTE, INBOUND, OUTBOUND, Tuple},
};

/// Endpoint slot of flows that the host itself began.
pub const HOST: u32 = u32::MAX;
/// Peer of flows whose remote is beyond an uplink.
pub const OUTSIDE: u32 = u32::MAX;

/// The remote sent the first packet: it came to a published port.
pub const ACCEPTED: u16 = 1 << 0;
/// The container knows the remote by another address or port than the remote's own.
pub const TWICE: u16 = 1 << 1;
/// The remote is an endpoint of this host.
pub const PEER: u16 = 1 << 2;
/// The opener is known by his own address all the way.
pub const OWN_ADDRESS: u16 = 1 << 3;
/// The external address is one that the user chose for the network.
pub const CHOSEN: u16 = 1 << 4;
/// The remote dials the container's own address, for which it needs no published port: the protocol has none, or the network
/// protects none.
pub const OPEN: u16 = 1 << 5;
/// No flow but a binding, see [`crate::binding`]: its remote is the external address, and port 0.
pub const BINDING: u16 = 1 << 6;
/// The external port is that of a binding.
pub const BOUND: u16 = 1 << 7;
/// Anybody may send to the external port: what comes in does not keep the flow alive (RFC 7857 section 7), nor thereby the binding.
pub const UNFILTERED: u16 = 1 << 8;
/// The remote is an endpoint of this host, and `seen` the external port of a binding of its own.
pub const SEEN_BOUND: u16 = 1 << 9;
/// The host's stack let the first packet out, and may have translated it before: what comes back goes by the stack as well.
pub const THROUGH_STACK: u16 = 1 << 10;

/// One flow, or one binding: a value of `FLOWS4` or `FLOWS6`, an array. Two keys of `FLOW_KEYS4/6` hold its index, one per
/// direction.
///
/// An index is free, or belongs to whoever drew it from `FREE_FLOWS4/6`, or is live: then `clock` is not dead and both keys
/// lead here. Ending a flow begins with a compare-and-swap of `clock` to dead; who wins it removes the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<A: Address> {
    /// State and last refresh.
    pub clock: Clock,
    /// When the flow was made, in jiffies; or began anew, without an answer so far.
    pub created: u64,
    /// From the container.
    pub outbound: Traffic,
    /// To the container.
    pub inbound: Traffic,
    /// Where packets to the remote leave.
    pub next_hop: NextHop,
    /// The container's address.
    pub local: A,
    /// The remote's address.
    pub remote: A,
    /// The address that the remote sees.
    pub external: A,
    /// The remote's address as the container sees it: its own, unless it has to be the gateway's.
    pub seen: A,
    /// The container's port.
    pub local_port: Be16,
    /// The remote's port.
    pub remote_port: Be16,
    /// The port that the remote sees.
    pub external_port: Be16,
    /// The remote's port as the container sees it.
    pub seen_port: Be16,
    /// The container's slot in `ENDPOINTS`, or [`HOST`].
    pub endpoint: u32,
    /// The remote's slot in `ENDPOINTS`, or [`OUTSIDE`].
    pub peer: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
    /// [`ACCEPTED`], [`TWICE`], [`PEER`], [`OWN_ADDRESS`], [`CHOSEN`], [`OPEN`], [`BINDING`], [`BOUND`],
    /// [`UNFILTERED`], [`SEEN_BOUND`], [`THROUGH_STACK`].
    pub flags: u16,
    /// The record's own index.
    pub index: u32,
    /// Of a binding: flows that hold it. Of a flow: 1 if it holds its binding, or bindings.
    pub holds: u64,
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for Flow<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for Flow<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for Flow<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for Flow<Ipv6> {}

/// Who sends packets of a flow with these flags in this direction.
#[inline(always)]
pub const fn side(flags: u16, direction: u8) -> Side {
    let accepted = flags & ACCEPTED != 0;
    Side { opener: accepted == (direction == INBOUND), accepted }
}

impl<A: Address> Flow<A> {
    /// The key of what whoever sent the first packet sends.
    #[inline(always)]
    pub fn opener_key(&self) -> Tuple<A> {
        self.key(if self.flags & ACCEPTED != 0 { INBOUND } else { OUTBOUND })
    }

    /// The key of what comes back to him. Its destination port is the one that is chosen for the flow.
    #[inline(always)]
    pub fn answer_key(&self) -> Tuple<A> {
        self.key(if self.flags & ACCEPTED != 0 { OUTBOUND } else { INBOUND })
    }

    /// The key of what the container sends.
    #[inline(always)]
    pub fn outbound_key(&self) -> Tuple<A> {
        self.key(OUTBOUND)
    }

    /// The key of what the remote sends.
    #[inline(always)]
    pub fn inbound_key(&self) -> Tuple<A> {
        self.key(INBOUND)
    }

    #[inline(always)]
    fn key(&self, direction: u8) -> Tuple<A> {
        // By reference, so that a direction which is not known beforehand costs no second tuple of the program's stack.
        let (source, destination, source_port, destination_port) = if direction == OUTBOUND {
            (&self.local, &self.seen, &self.local_port, &self.seen_port)
        } else {
            (&self.remote, &self.external, &self.remote_port, &self.external_port)
        };
        Tuple {
            source: *source,
            destination: *destination,
            source_port: *source_port,
            destination_port: *destination_port,
            protocol: self.protocol,
            direction: if self.flags & BINDING != 0 { direction | ANY_REMOTE } else { direction },
            pad: [0; 2],
        }
    }
}

/// Ports from `first` to `last`, both included; empty if `first > last`. In host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// How many ports there are.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        if self.first > self.last { 0 } else { self.last as u32 - self.first as u32 + 1 }
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `port` is one of them.
    #[inline(always)]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// What masquerade may take: the privileged ports for privileged ports (RFC 4787 REQ-3a), and for all others what lies
/// below and above the host's own `ip_local_port_range`, so that the two never choose the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortRanges {
    /// For source ports up to 1023.
    pub privileged: PortRange,
    /// Below the host's range.
    pub below: PortRange,
    /// Above the host's range.
    pub above: PortRange,
}

impl PortRanges {
    /// What is left beside the host's own range `host`.
    pub const fn beside(host: PortRange) -> Self {
        let below = PortRange { first: 1024, last: if host.first > 1024 { host.first - 1 } else { 1023 } };
        let above = if host.last == u16::MAX {
            PortRange { first: 1, last: 0 }
        } else {
            PortRange { first: if host.last < 1023 { 1024 } else { host.last + 1 }, last: u16::MAX }
        };
        Self { privileged: PortRange { first: 1, last: 1023 }, below, above }
    }

    /// Whether a flow from `port` may keep it.
    #[inline(always)]
    pub const fn keeps(&self, port: u16) -> bool {
        self.privileged.contains(port) || self.below.contains(port) || self.above.contains(port)
    }

    /// A port of the class of `port`, each as likely as any other; `random` is any 32 bits. `None` if the class is empty.
    ///
    /// Independent draws, for a walk from one draw fails at half the load: with 75 to 90 % of the ports taken, 32 draws fail
    /// for 0.7 % of new flows where "next port" walks fail for half.
    #[inline(always)]
    pub const fn draw(&self, port: u16, random: u32) -> Option<u16> {
        let (first, second) = if port < 1024 {
            (self.privileged, PortRange { first: 1, last: 0 })
        } else {
            (self.below, self.above)
        };
        let n = first.len() + second.len();
        if n == 0 {
            return None;
        }
        let at = ((random as u64 * n as u64) >> 32) as u32;
        if at < first.len() {
            Some((first.first as u32 + at) as u16)
        } else {
            Some((second.first as u32 + at - first.len()) as u16)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn linux() -> PortRanges {
        PortRanges::beside(PortRange { first: 32768, last: 60999 })
    }

    #[test]
    fn the_hosts_own_range_is_left_alone() {
        let ranges = linux();
        assert_eq!(ranges.below, PortRange { first: 1024, last: 32767 });
        assert_eq!(ranges.above, PortRange { first: 61000, last: 65535 });
        assert!(ranges.keeps(5000) && ranges.keeps(22) && ranges.keeps(61000));
        assert!(!ranges.keeps(40000) && !ranges.keeps(0));
    }

    #[test]
    fn odd_host_ranges_leave_what_they_leave() {
        let all = PortRanges::beside(PortRange { first: 1024, last: 65535 });
        assert!(all.below.is_empty() && all.above.is_empty());
        assert_eq!(all.draw(5000, 7), None);
        assert!(all.draw(80, 7).is_some());
        let low = PortRanges::beside(PortRange { first: 1, last: 500 });
        assert_eq!((low.below.len(), low.above), (0, PortRange { first: 1024, last: 65535 }));
    }

    #[test]
    fn every_port_can_be_drawn() {
        let ranges = PortRanges {
            privileged: PortRange { first: 1, last: 3 },
            below: PortRange { first: 1024, last: 1027 },
            above: PortRange { first: 65533, last: 65535 },
        };
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..7u32 {
            seen.insert(ranges.draw(5000, ((u64::from(i) << 32) / 7 + 1) as u32).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1024, 1025, 1026, 1027, 65533, 65534, 65535]);
    }

    proptest! {
        #[test]
        fn a_draw_keeps_the_class_and_the_range(first in 1u16.., last in 1u16.., port in 1u16.., random: u32) {
            let host = PortRange { first: first.min(last), last: first.max(last) };
            let ranges = PortRanges::beside(host);
            if let Some(drawn) = ranges.draw(port, random) {
                prop_assert_eq!(drawn < 1024, port < 1024);
                prop_assert!(ranges.keeps(drawn));
                prop_assert!(port < 1024 || !host.contains(drawn));
            }
        }

        #[test]
        fn the_two_keys_mirror_each_other(local: u32, remote: u32, external: u32, ports: [u16; 3], protocol: u8) {
            let flow = Flow { local: Ipv4(local), remote: Ipv4(remote), external: Ipv4(external), seen: Ipv4(remote),
                local_port: Be16(ports[0]), remote_port: Be16(ports[1]), external_port: Be16(ports[2]), seen_port: Be16(ports[1]),
                protocol, ..Flow::default() };
            let (out, back) = (flow.outbound_key(), flow.inbound_key());
            prop_assert_eq!((out.destination, out.destination_port), (back.source, back.source_port));
            prop_assert_ne!(out, back);
        }
    }
}
