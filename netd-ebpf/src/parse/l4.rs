//! Transport headers: ports, and what stands in their place.

use netd_common::{
    addr::Be16,
    conntrack::flags::{ACK, SYN},
    drop::DropReason,
    tuple::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

use super::{
    Ip,
    icmp::{self, Kind},
};
use crate::packet::Packet;

/// The first bytes of a transport header.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    pub source: Be16,
    pub destination: Be16,
}

/// UDP's whole header, and as much of SCTP's.
#[derive(Clone, Copy)]
#[repr(C)]
struct Datagram {
    ports: Ports,
    rest: u32,
}

/// Sequence numbers are of no interest; what follows them is.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tcp {
    ports: Ports,
    numbers: [u32; 2],
    offset: u8,
    flags: u8,
    window: Be16,
    checksum_urgent: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Icmp {
    icmp_type: u8,
    code: u8,
    checksum: u16,
    identifier: Be16,
    sequence: Be16,
}

/// A transport header.
#[derive(Clone, Copy)]
pub struct L4 {
    pub ports: Ports,
    /// TCP's flags; 0 for all others.
    pub flags: u8,
    /// Bytes of the header, as far as segmentation repeats it.
    pub length: u32,
    pub kind: L4Kind,
}

impl L4 {
    /// Whether the packet can be the first of one side: of TCP's segments only the one that asks for a connection can.
    #[inline(always)]
    pub fn is_first(&self, protocol: u8) -> bool {
        protocol != TCP || self.flags & (SYN | ACK) == SYN
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum L4Kind {
    /// TCP, UDP, SCTP.
    Ports,
    /// ICMP, whatever its version.
    Icmp(Kind),
    /// A protocol without ports.
    Other,
}

impl L4Kind {
    /// Whether a message can belong to a flow, be it that it can only answer.
    #[inline(always)]
    pub fn may_belong(self) -> bool {
        !matches!(self, Self::Icmp(Kind::Error | Kind::Other))
    }
}

pub const NO_PORTS: Ports = Ports { source: Be16(0), destination: Be16(0) };

/// Parses the transport header at `ip.l4`; `fixed` is how far behind the IP header's beginning it stands if there are no
/// options, and is read faster.
/// `icmp` is the protocol number of this IP version's ICMP: the other's is as foreign as any.
#[inline(always)]
pub fn parse<A>(packet: &Packet, ip: &Ip<A>, fixed: usize, icmp: u8) -> Result<L4, DropReason> {
    match ip.protocol {
        TCP => {
            let tcp: Tcp = header(packet, ip, fixed)?;
            let length = u32::from(tcp.offset >> 4) * 4;
            if length < 20 {
                return Err(DropReason::Malformed);
            }
            Ok(L4 { ports: tcp.ports, flags: tcp.flags, length, kind: L4Kind::Ports })
        }
        UDP | SCTP => {
            let Datagram { ports, .. } = header(packet, ip, fixed)?;
            Ok(L4 { ports, flags: 0, length: 8, kind: L4Kind::Ports })
        }
        ICMP | ICMPV6 if ip.protocol == icmp => {
            let header: Icmp = header(packet, ip, fixed)?;
            let kind = icmp::kind(ip.protocol, header.icmp_type);
            let ports = echo_ports(kind, header.identifier);
            Ok(L4 { ports, flags: 0, length: 8, kind: L4Kind::Icmp(kind) })
        }
        _ => Ok(L4 { ports: NO_PORTS, flags: 0, length: 0, kind: L4Kind::Other }),
    }
}

/// An echo's identifier is the port of whoever asks; who answers has none.
#[inline(always)]
pub fn echo_ports(kind: Kind, identifier: Be16) -> Ports {
    match kind {
        Kind::EchoReply => Ports { source: Be16(0), destination: identifier },
        _ => Ports { source: identifier, destination: Be16(0) },
    }
}

#[inline(always)]
fn header<T: Copy, A>(packet: &Packet, ip: &Ip<A>, fixed: usize) -> Result<T, DropReason> {
    let fixed = packet.l3 + fixed;
    if ip.l4 == fixed { packet.read::<T>(fixed).copied() } else { packet.load(ip.l4) }
}
