//! ICMP (RFC 792, RFC 4443): which messages are queries, which are errors.

use netd_common::tuple::protocol;

/// What a message is to NAT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Echo request: begins a flow, its identifier is the port.
    EchoRequest,
    /// Echo reply: belongs to a flow that the other side began.
    EchoReply,
    /// Carries the beginning of the packet that it is about.
    Error,
    /// All else: router and neighbour discovery, redirect, timestamp, ...
    Other,
}

/// Types that quote a packet: destination unreachable, source quench, time exceeded, parameter problem;
/// in version 6 all below 128 (RFC 4443 section 2.1).
#[inline(always)]
pub fn kind(protocol: u8, icmp_type: u8) -> Kind {
    if protocol == protocol::ICMP {
        match icmp_type {
            8 => Kind::EchoRequest,
            0 => Kind::EchoReply,
            3 | 4 | 11 | 12 => Kind::Error,
            _ => Kind::Other,
        }
    } else {
        match icmp_type {
            128 => Kind::EchoRequest,
            129 => Kind::EchoReply,
            1..=4 => Kind::Error,
            _ => Kind::Other,
        }
    }
}
