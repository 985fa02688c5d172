//! IPv4 (RFC 791).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Be16, Ipv4},
    csum,
    drop::DropReason,
};
use network_types::ip::Ipv4Hdr;

use super::{Fragment, Ip};
use crate::{loops, packet::Packet};

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

impl Header {
    /// In bytes, with its options.
    #[inline(always)]
    fn length(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// Whether the checksum is right, of a header without options.
    #[inline(always)]
    pub fn is_intact(&self) -> bool {
        // SAFETY: twenty bytes of plain numbers, 4-byte aligned, seen as words.
        let words = unsafe { &*(&raw const *self).cast::<[u32; 5]>() };
        csum::fold(csum::sum_words(words)) == u16::MAX
    }
}

/// RFC 1812 section 5.2.2. A header with options is left to the stack, whose affair they are.
#[inline(always)]
pub fn verify(packet: &Packet) -> Result<(), DropReason> {
    let header: &Header = packet.read(packet.l3)?;
    if header.length() != Ipv4Hdr::LEN {
        return Ok(());
    }
    let length = u32::from(header.total_length.get());
    let there = packet.len() - packet.l3 as u32;
    // The field has no room for the length of the largest super-frames.
    let is_whole =
        Ipv4Hdr::LEN as u32 <= length && length <= there || length == 0 && packet.segment_size() != 0;
    if is_whole && header.is_intact() { Ok(()) } else { Err(DropReason::Malformed) }
}

/// Whether there is an option that names hosts to go by: 1 or 0. A global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn source_routed4(skb: *mut __sk_buff, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    i64::from(is_source_routed(&Packet::with_l3(&context, l3)))
}

/// A search through the options of a header.
struct Search<'a> {
    packet: &'a Packet<'a>,
    at: usize,
    end: usize,
    is_routed: bool,
}

#[inline(always)]
fn is_source_routed(packet: &Packet) -> bool {
    const MOST: u32 = 60 - Ipv4Hdr::LEN as u32;
    let Ok(header) = packet.read::<Header>(packet.l3) else { return false };
    let (at, end) = (packet.l3 + L4, packet.l3 + header.length());
    let mut search = Search { packet, at, end, is_routed: false };
    loops::repeat(MOST, &mut search, next_option);
    search.is_routed
}

extern "C" fn next_option(_: u64, search: *mut Search) -> i64 {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    // SAFETY: `repeat` passes the pointer that it was given.
    let search = unsafe { &mut *search };
    if search.at >= search.end {
        return 1;
    }
    let length = match search.packet.load::<u8>(search.at) {
        Ok(NO_OPERATION) => 1,
        Ok(LOOSE | STRICT) => {
            search.is_routed = true;
            return 1;
        }
        Ok(END) | Err(_) => return 1,
        Ok(_) => search.packet.load::<u8>(search.at + 1).map_or(0, usize::from),
    };
    search.at += length;
    // An option that is shorter than what says so is the stack's to refuse.
    i64::from(length == 0)
}

#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Ip<Ipv4>, DropReason> {
    let header: &Header = packet.read(packet.l3)?;
    let header_length = header.length();
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
