//! What names a flow: addresses, ports, protocol, and the side it is seen from.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Be16, Ipv4, Ipv6};

/// Seen at the container's veth: source is the container, untranslated.
pub const OUTBOUND: u8 = 0;
/// Seen at the uplink: source is the remote, destination the external address.
pub const INBOUND: u8 = 1;
/// Beside a direction: whoever the remote is. The key of a binding, which has the external address and no port in the remote's
/// place.
pub const ANY_REMOTE: u8 = 1 << 1;

/// IANA protocol numbers that the datapath tells apart.
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Datagram Congestion Control Protocol.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
    /// Lightweight User Datagram Protocol.
    pub const UDPLITE: u8 = 136;
}

/// One side's view of a flow, and the key of the flow table. For ICMP echo the identifier is the port of
/// whoever asks, and the other port is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tuple<A> {
    /// Source address of the packet.
    pub source: A,
    /// Destination address of the packet.
    pub destination: A,
    /// Source port of the packet.
    pub source_port: Be16,
    /// Destination port of the packet.
    pub destination_port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`OUTBOUND`] or [`INBOUND`], and [`ANY_REMOTE`] beside it.
    pub direction: u8,
    /// Always zero: a map compares keys byte by byte.
    pub pad: [u8; 2],
}

impl<A: Copy> Tuple<A> {
    /// The tuple of a packet from a container.
    #[inline(always)]
    pub const fn outbound(
        source: A,
        destination: A,
        source_port: Be16,
        destination_port: Be16,
        protocol: u8,
    ) -> Self {
        Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            direction: OUTBOUND,
            pad: [0; 2],
        }
    }

    /// The tuple of a packet from the outside.
    #[inline(always)]
    pub const fn inbound(
        source: A,
        destination: A,
        source_port: Be16,
        destination_port: Be16,
        protocol: u8,
    ) -> Self {
        Self {
            direction: INBOUND,
            ..Self::outbound(source, destination, source_port, destination_port, protocol)
        }
    }

    /// The tuple of an answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            direction: self.direction ^ (OUTBOUND ^ INBOUND),
            pad: [0; 2],
        }
    }
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for Tuple<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for Tuple<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for Tuple<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for Tuple<Ipv6> {}
