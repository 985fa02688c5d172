//! Published ports: which endpoint a port of the host leads to.
//!
//! They stand in longest-prefix tables whose keys end with the port, so that a range of ports is a handful of prefixes
//! and not an entry for each port.

use bytemuck::{Pod, Zeroable};

use crate::{
    addr::{Be16, Ipv4, Ipv6},
    nat::PortRange,
    tuple::protocol::{TCP, UDP},
};

/// Key of `PUBLICATIONS4/6`, without its prefix length: a port of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PublishedPort<A> {
    /// An address of the host, or unspecified for all of them.
    pub address: A,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
    /// The port, its first bit first: a prefix of it is a range.
    pub port: Be16,
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for PublishedPort<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for PublishedPort<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for PublishedPort<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for PublishedPort<Ipv6> {}

impl<A> PublishedPort<A> {
    /// Bits of a key that names one port.
    pub const BITS: u32 = 8 * size_of::<Self>() as u32;

    /// The key of one port.
    #[inline(always)]
    pub const fn new(address: A, protocol: u8, port: Be16) -> Self {
        Self { address, protocol, pad: 0, port }
    }
}

/// Flag of a [`Publication`]: who runs the container keeps the port from others by a socket of his own, which gets nothing.
/// Nobody is refused the port.
pub const RESERVED_BY_RUNTIME: u16 = 1 << 0;

/// Words of one protocol's ports in `PUBLISHED`, a bit for each that is published at some address and that sockets are refused.
pub const WORDS: u32 = 65_536 / 64;
/// Words of all: TCP and UDP, IPv4 and IPv6.
pub const ALL_WORDS: u32 = 4 * WORDS;

/// The word of `PUBLISHED` that tells of a port, and its bit. `None` for a protocol whose ports nobody can be refused.
#[inline(always)]
pub const fn published_bit(is_ipv6: bool, protocol: u8, port: u16) -> Option<(u32, u64)> {
    let kind = match protocol {
        TCP => 0,
        UDP => 1,
        _ => return None,
    };
    let part = 2 * is_ipv6 as u32 + kind;
    Some((part * WORDS + port as u32 / 64, 1 << (port % 64)))
}

/// Where a published port leads: a value of `PUBLICATIONS4/6`. All prefixes of one range have the same value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Publication {
    /// The endpoint's slot.
    pub endpoint: u32,
    /// The ports of the host, in the host's byte order.
    pub ports: PortRange,
    /// The container's port behind the first of them, in the host's byte order; the others follow in turn.
    pub container: u16,
    /// [`RESERVED_BY_RUNTIME`]
    pub flags: u16,
}

impl Publication {
    /// The container's port behind a port of the host.
    #[inline(always)]
    pub const fn container_port(&self, port: Be16) -> Be16 {
        Be16::new(self.container.wrapping_add(port.get().wrapping_sub(self.ports.first)))
    }
}

/// Ports that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPrefix {
    /// The first of them.
    pub first: u16,
    /// How many bits they have in common.
    pub bits: u32,
}

impl PortRange {
    /// The fewest prefixes that make up the range.
    pub fn prefixes(self) -> impl Iterator<Item = PortPrefix> {
        let (mut next, last) = (u32::from(self.first), u32::from(self.last));
        core::iter::from_fn(move || {
            if next > last {
                return None;
            }
            // The largest block that begins here, as far as its alignment and the end of the range let it.
            let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
            let fitting = (last - next + 1).ilog2();
            let free = aligned.min(fitting);
            let prefix = PortPrefix { first: next as u16, bits: 16 - free };
            next += 1 << free;
            Some(prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn a_port_is_one_prefix_and_a_range_a_handful() {
        let prefixes = |first, last| range(first, last).prefixes().collect::<Vec<_>>();
        assert_eq!(prefixes(80, 80), [PortPrefix { first: 80, bits: 16 }]);
        assert_eq!(prefixes(0, 65535), [PortPrefix { first: 0, bits: 0 }]);
        assert_eq!(prefixes(10000, 12000).len(), 10);
        assert_eq!(prefixes(2, 1), []);
    }

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        assert_eq!(published_bit(false, TCP, 0), Some((0, 1)));
        assert_eq!(published_bit(false, UDP, 64), Some((WORDS + 1, 1)));
        assert_eq!(published_bit(true, UDP, 65535), Some((ALL_WORDS - 1, 1 << 63)));
        assert_eq!(published_bit(true, 132, 80), None);
    }

    #[test]
    fn ports_of_a_range_lead_to_ports_of_the_container_in_turn() {
        let publication = Publication { ports: range(8000, 8010), container: 80, ..Publication::default() };
        assert_eq!(publication.container_port(Be16::new(8000)).get(), 80);
        assert_eq!(publication.container_port(Be16::new(8010)).get(), 90);
    }

    proptest! {
        #[test]
        fn prefixes_make_up_the_range_exactly(a: u16, b: u16) {
            let range = range(a.min(b), a.max(b));
            let mut next = u32::from(range.first);
            let mut count = 0;
            for prefix in range.prefixes() {
                prop_assert_eq!(u32::from(prefix.first), next);
                let length = 1 << (16 - prefix.bits);
                prop_assert_eq!(next % length, 0, "its first bits are the same");
                next += length;
                count += 1;
            }
            prop_assert_eq!(next, u32::from(range.last) + 1);
            prop_assert!(count <= 30);
        }
    }
}
