//! Headers to meaning. Parsers read and judge; they never write and never look anything up.

pub mod arp;
pub mod eth;
pub mod icmp;
pub mod ip4;
pub mod ip6;
pub mod l4;

/// What the datapath wants of an IP header, of either version.
#[derive(Clone, Copy)]
pub struct Ip<A> {
    pub source: A,
    pub destination: A,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The transport protocol.
    pub protocol: u8,
    /// Options or extension headers (other than a fragment header) are present.
    pub options: bool,
    /// Where the transport header begins.
    pub l4: usize,
    pub fragment: Fragment,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy)]
pub struct Fragment {
    /// As it stands in the packet.
    pub identification: u32,
    /// Not the datagram's beginning: there is no transport header.
    pub later: bool,
    /// Not the datagram's end.
    pub more: bool,
}
