//! "Communication administratively prohibited", to a container whose new flow finds no room (RFC 5508 REQ-8, RFC 6888
//! REQ-11A), and "host unreachable", where nobody on the link answers for the next hop (RFC 1812 section 5.2.7.1): the packet is
//! turned into the answer, and put back into its sender.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes},
    programs::TcContext,
};
use netd_common::{
    addr::{Be16, Ipv6},
    bridge::Network,
    csum,
    drop::DropReason,
    endpoint::Endpoint,
    tuple::protocol::{ICMP, ICMPV6, TCP},
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    family::{V4, V6},
    maps::{ENDPOINTS, NETWORKS},
    packet::Packet,
    parse::{
        eth::{self, Frame},
        ip4, ip6,
    },
    redirect,
    rewrite::{self, Rewrite},
    verdict::Outcome,
};

const ICMP_HEADER: usize = 8;
const TTL: u8 = 64;

/// Families that know how to refuse. The subprogram's answer is 0 once the packet is the answer.
pub trait Refuse: Rewrite {
    fn refuse(packet: &Packet, slot: u32, protocol: u8, code: u8) -> i64;
    /// "Communication administratively prohibited", and "host" or "address unreachable".
    const CODES: [u8; 2];
}

impl Refuse for V4 {
    const CODES: [u8; 2] = [13, 1];
    #[inline(always)]
    fn refuse(packet: &Packet, slot: u32, protocol: u8, code: u8) -> i64 {
        refuse4(packet.skb(), slot, u32::from(protocol), u32::from(code))
    }
}

impl Refuse for V6 {
    const CODES: [u8; 2] = [1, 3];
    #[inline(always)]
    fn refuse(packet: &Packet, slot: u32, protocol: u8, code: u8) -> i64 {
        refuse6(packet.skb(), slot, u32::from(protocol), u32::from(code))
    }
}

/// Answers the packet that was dropped for `reason`, if the reason is one that the sender should hear of.
#[inline(always)]
pub fn answer<F: Refuse>(packet: &Packet, slot: u32, protocol: u8, reason: DropReason) -> Outcome {
    let [prohibited, unreachable] = F::CODES;
    let code = match reason {
        DropReason::FlowTableFull | DropReason::EndpointQuota | DropReason::PortsExhausted => prohibited,
        DropReason::NoNeighbour => unreachable,
        _ => return Err(reason),
    };
    if F::refuse(packet, slot, protocol, code) == 0
        && let Some(endpoint) = ENDPOINTS.get(slot)
    {
        crate::stats::dropped(reason);
        // Not straight into its namespace: to the kernel all that `make_room` has put before the quoted IP header is the link's, and
        // it would go on with the quoted packet.
        return Ok(redirect::down(endpoint));
    }
    Err(reason)
}

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Answer<H> {
    frame: Frame,
    ip: H,
    icmp: [u32; 2],
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuse4(skb: *mut __sk_buff, slot: u32, protocol: u32, code: u32) -> i64 {
    done(turn4(&Packet::of(&TcContext::new(skb)), slot, protocol as u8, code as u8))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuse6(skb: *mut __sk_buff, slot: u32, protocol: u32, code: u32) -> i64 {
    done(turn6(&Packet::of(&TcContext::new(skb)), slot, protocol as u8, code as u8))
}

#[inline(always)]
fn done(result: Result<(), DropReason>) -> i64 {
    if result.is_ok() { 0 } else { -1 }
}

#[inline(always)]
fn turn4(packet: &Packet, slot: u32, protocol: u8, code: u8) -> Result<(), DropReason> {
    const UNREACHABLE: u8 = 3;
    let (endpoint, network) = sender(slot)?;
    let (length, sum) = cut::<{ Ipv4Hdr::LEN / 4 }, { Ipv4Hdr::LEN / 4 + 5 }>(packet, protocol)?;
    make_room(packet, Ipv4Hdr::LEN + ICMP_HEADER)?;
    let message = u32::from_ne_bytes([UNREACHABLE, code, 0, 0]);
    let mut ip = ip4::Header {
        version_ihl: 0x45,
        tos: 0xc0,
        total_length: Be16::new((Ipv4Hdr::LEN + ICMP_HEADER + length) as u16),
        identification: Be16(0),
        fragment: Be16(0),
        ttl: TTL,
        protocol: ICMP,
        checksum: 0,
        source: network.gateway4,
        destination: endpoint.ipv4,
    };
    ip.checksum = !csum::fold(csum::sum_header(
        [0x45, 0xc0],
        ip.total_length,
        u16::from_ne_bytes([TTL, ICMP]),
        ip.source,
        ip.destination,
    ));
    let checksum = !csum::fold(csum::add(sum, message));
    let frame = Frame { destination: endpoint.mac, source: network.mac, ethertype: eth::IPV4 };
    rewrite::store(packet, 0, &Answer { frame, ip, icmp: [with_checksum(message, checksum), 0] })
}

#[inline(always)]
fn turn6(packet: &Packet, slot: u32, protocol: u8, code: u8) -> Result<(), DropReason> {
    const UNREACHABLE: u8 = 1;
    sender(slot)?;
    let (length, sum) = cut::<{ Ipv6Hdr::LEN / 4 }, { Ipv6Hdr::LEN / 4 + 5 }>(packet, protocol)?;
    make_room(packet, Ipv6Hdr::LEN + ICMP_HEADER)?;
    // Not before: what is held meanwhile is held on the programs' short stack.
    let (endpoint, network) = sender(slot)?;
    let message = u32::from_ne_bytes([UNREACHABLE, code, 0, 0]);
    let payload = Be16::new((ICMP_HEADER + length) as u16);
    let (source, destination): (Ipv6, Ipv6) = (network.gateway6, endpoint.ipv6);
    let ip = ip6::Header {
        version_class: 0x60,
        class_flow: 0,
        flow: Be16(0),
        payload_length: payload,
        next_header: ICMPV6,
        hop_limit: TTL,
        source,
        destination,
    };
    let pseudo = csum::add(csum::add(csum::sum(source), csum::sum(destination)), u32::from(payload.0));
    let pseudo = csum::add(pseudo, u32::from(u16::from_ne_bytes([0, ICMPV6])));
    let checksum = !csum::fold(csum::add(csum::add(sum, message), pseudo));
    let frame = Frame { destination: endpoint.mac, source: network.mac, ethertype: eth::IPV6 };
    rewrite::store(packet, 0, &Answer { frame, ip, icmp: [with_checksum(message, checksum), 0] })
}

#[inline(always)]
fn sender(slot: u32) -> Result<(&'static Endpoint, &'static Network), DropReason> {
    let endpoint = ENDPOINTS.get(slot).ok_or(DropReason::UnknownEndpoint)?;
    Ok((endpoint, NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?))
}

/// Cuts the packet to what is quoted, its IP header of `HEADER` words and the transport's, and sums that up.
///
/// TCP is quoted with its whole header: the kernel does not let a packet end before a checksum that is yet to be filled in.
/// There is room for it, `WORDS` in all, and one buffer for all protocols: frames are dear.
#[inline(always)]
fn cut<const HEADER: usize, const WORDS: usize>(
    packet: &Packet,
    protocol: u8,
) -> Result<(usize, u32), DropReason> {
    let mut quote = [0u32; WORDS];
    let bytes = if protocol == TCP { WORDS * 4 } else { HEADER * 4 + 8 };
    let (skb, buffer) = (packet.skb(), quote.as_mut_ptr());
    // SAFETY: the helpers read and write what they are told, which is there.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), EthHdr::LEN as u32, buffer.cast(), bytes as u32) != 0 {
            return Err(DropReason::Malformed);
        }
        if bpf_skb_change_tail(skb, (EthHdr::LEN + bytes) as u32, 0) != 0 {
            return Err(DropReason::Rewrite);
        }
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, buffer, bytes as u32, 0);
        Ok((bytes, sum as u32))
    }
}

/// Moves the packet down by `bytes`, so that the quoted IP header ends up right behind the new headers.
#[inline(always)]
fn make_room(packet: &Packet, bytes: usize) -> Result<(), DropReason> {
    // SAFETY: a plain helper call.
    if unsafe { bpf_skb_change_head(packet.skb(), bytes as u32, 0) } == 0 {
        Ok(())
    } else {
        Err(DropReason::Rewrite)
    }
}

/// Type, code and checksum, as they stand in memory.
#[inline(always)]
fn with_checksum(message: u32, checksum: u16) -> u32 {
    let ([kind, code, ..], [high, low]) = (message.to_ne_bytes(), checksum.to_ne_bytes());
    u32::from_ne_bytes([kind, code, high, low])
}
