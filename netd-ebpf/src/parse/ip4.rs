//! IPv4 (RFC 791).

use netd_common::{
    addr::{Be16, Ipv4},
    drop::DropReason,
};
use network_types::ip::Ipv4Hdr;

use super::{Fragment, Ip};
use crate::packet::Packet;

/// Where the transport header begins, behind the beginning of this one, if there are no options.
pub const L4: usize = Ipv4Hdr::LEN;

/// Where source and destination are.
pub const ADDRESSES: usize = 12;

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// As in `Ipv4Hdr`, but in words: addresses are loaded at once and not byte by byte.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: Be16,
    pub identification: Be16,
    pub fragment: Be16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: Ipv4,
    pub destination: Ipv4,
}

#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Ip<Ipv4>, DropReason> {
    let header: &Header = packet.read(packet.l3)?;
    let header_length = usize::from(header.version_ihl & 0x0f) * 4;
    if header.version_ihl >> 4 != 4 || header_length < Ipv4Hdr::LEN {
        return Err(DropReason::Malformed);
    }
    let fragment = header.fragment.get();
    Ok(Ip {
        source: header.source,
        destination: header.destination,
        ttl: header.ttl,
        protocol: header.protocol,
        options: header_length != Ipv4Hdr::LEN,
        l4: packet.l3 + header_length,
        fragment: Fragment {
            identification: u32::from(header.identification.0),
            later: fragment & FRAGMENT_OFFSET != 0,
            more: fragment & MORE_FRAGMENTS != 0,
        },
    })
}
