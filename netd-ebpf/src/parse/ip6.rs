//! IPv6 (RFC 8200).

use netd_common::{
    addr::{Be16, Ipv6},
    drop::DropReason,
};
use network_types::ip::Ipv6Hdr;

use super::{Fragment, Ip};
use crate::packet::Packet;

/// Where the transport header begins, behind the beginning of this one, if there are no extension headers.
pub const L4: usize = Ipv6Hdr::LEN;

/// Where source and destination are.
pub const ADDRESSES: usize = 8;

/// Extension headers that are walked over. A host sends each at most once, destination options twice (RFC 8200 section 4.1).
const EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Bytes of a fragment header.
const FRAGMENT_SIZE: usize = 8;

/// As in `Ipv6Hdr`, but in words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub version_class: u8,
    pub class_flow: u8,
    pub flow: Be16,
    pub payload_length: Be16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Ipv6,
    pub destination: Ipv6,
}

/// A fragment header; the other extension headers begin alike.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extension {
    next_header: u8,
    /// In units of 8 bytes, the first 8 not counted; reserved in a fragment header.
    length: u8,
    offset: Be16,
    identification: u32,
}

impl Extension {
    /// In bytes, of all but fragment headers.
    #[inline(always)]
    fn size(&self) -> usize {
        (usize::from(self.length) + 1) * 8
    }
}

#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Ip<Ipv6>, DropReason> {
    let header: &Header = packet.read(packet.l3)?;
    if header.version_class >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let mut ip = Ip {
        source: header.source,
        destination: header.destination,
        ttl: header.hop_limit,
        protocol: header.next_header,
        options: false,
        l4: packet.l3 + L4,
        fragment: Fragment { identification: 0, later: false, more: false },
    };
    if is_extension(ip.protocol) {
        walk(packet, &mut ip)?;
    }
    Ok(ip)
}

/// Whether all of the payload is there; of super-frames the field may be too small for it, and is zero.
#[inline(always)]
pub fn verify(packet: &Packet) -> Result<(), DropReason> {
    let header: &Header = packet.read(packet.l3)?;
    let length = u32::from(header.payload_length.get()) + L4 as u32;
    if length <= packet.len() - packet.l3 as u32 { Ok(()) } else { Err(DropReason::Malformed) }
}

#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Moves `ip.l4` past the extension headers.
#[inline(always)]
fn walk(packet: &Packet, ip: &mut Ip<Ipv6>) -> Result<(), DropReason> {
    for _ in 0..EXTENSIONS {
        if !is_extension(ip.protocol) || ip.fragment.later {
            return Ok(());
        }
        let extension: Extension = packet.load(ip.l4)?;
        if ip.protocol == FRAGMENT {
            let offset = extension.offset.get();
            ip.fragment = Fragment {
                identification: extension.identification,
                later: offset & !7 != 0,
                more: offset & 1 != 0,
            };
            ip.l4 += FRAGMENT_SIZE;
        } else {
            ip.options = true;
            ip.l4 += extension.size();
        }
        ip.protocol = extension.next_header;
    }
    if is_extension(ip.protocol) { Err(DropReason::Malformed) } else { Ok(()) }
}

/// Of a packet that is quoted in another one, from `at` on: its protocol, where the transport header is, and whether it has none because
/// it is a later fragment. In as little of the programs' short stack as can be.
#[inline(always)]
pub fn quoted_transport(packet: &Packet, at: usize) -> Result<(u8, usize, bool), DropReason> {
    let [version_class, _, _, _, _, _, mut protocol, _]: [u8; 8] = packet.load(at)?;
    if version_class >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let mut l4 = at + L4;
    for _ in 0..EXTENSIONS {
        if !is_extension(protocol) {
            return Ok((protocol, l4, false));
        }
        let extension: Extension = packet.load(l4)?;
        if protocol == FRAGMENT && extension.offset.get() & !7 != 0 {
            return Ok((extension.next_header, l4, true));
        }
        l4 += if protocol == FRAGMENT { FRAGMENT_SIZE } else { extension.size() };
        protocol = extension.next_header;
    }
    if is_extension(protocol) { Err(DropReason::Malformed) } else { Ok((protocol, l4, false)) }
}
