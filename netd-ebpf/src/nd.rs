//! Who has an address? The same as `arp`, in IPv6 (RFC 4861 section 7.2).

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_change_tail, programs::TcContext};
use netd_common::{
    addr::{Be16, IfIndex, Ipv6, Mac},
    csum,
    drop::DropReason,
    stats::Path,
    tuple::protocol::ICMPV6,
};

use crate::{
    external,
    family::V6,
    maps::UPLINKS,
    packet::Packet,
    parse::{
        eth::{self, Frame},
        ip6,
    },
    rewrite, stats,
};

const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Nobody is nearer (RFC 4861 section 6.1.1): what has this hop limit was sent on the link.
pub const HOP_LIMIT: u8 = 255;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6 = Ipv6([0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()]);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// A solicitation, as far as it is the same in all.
#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: u16,
    flags: [u8; 4],
    target: Ipv6,
}

/// A solicitation with its frame.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Question {
    frame: Frame,
    ip: ip6::Header,
    message: Message,
}

/// How any message begins, with its frame.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Opening {
    frame: Frame,
    ip: ip6::Header,
    kind: u8,
    code: u8,
}

/// What stands before the message. Halves are all that anything is aligned to behind 14 bytes of Ethernet.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Headers {
    frame: Frame,
    ip: ip6::Header,
}

/// An advertisement, with one option: the target's link-layer address.
#[derive(Clone, Copy)]
#[repr(C)]
struct Advertisement {
    message: Message,
    option: u8,
    /// In units of eight bytes.
    length: u8,
    mac: Mac,
}

/// Turns a solicitation of an external address into its answer: the MAC of this interface has it. `false`, and nothing is done,
/// if it is anything else.
#[inline(always)]
pub fn answer(packet: &Packet) -> Result<bool, DropReason> {
    match solicited6(packet.skb()) {
        0 => Ok(false),
        _ if advertise6(packet.skb()) != 0 => Err(DropReason::Rewrite),
        _ => {
            stats::took(Path::Answered);
            Ok(true)
        }
    }
}

/// Whether the packet asks for an external address. A global function, as the next: see [`crate::open::Open`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn solicited6(skb: *mut __sk_buff) -> i64 {
    let context = TcContext::new(skb);
    let target = target(&Packet::of(&context));
    i64::from(target.is_some_and(|target| external::endpoint_of::<V6>(target).is_some()))
}

/// 0 once the packet is the answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advertise6(skb: *mut __sk_buff) -> i64 {
    let context = TcContext::new(skb);
    i64::from(advertise(&Packet::of(&context)).is_err())
}

/// The address that a solicitation asks for. `None` if the packet is anything else.
#[inline(always)]
pub fn target(packet: &Packet) -> Option<Ipv6> {
    if solicits(packet, SOLICITATION) { Some(packet.read::<Question>(0).ok()?.message.target) } else { None }
}

/// Whether the packet asks who is a router (RFC 4861 section 4.1).
#[inline(always)]
pub fn is_for_routers(packet: &Packet) -> bool {
    solicits(packet, ROUTER_SOLICITATION)
}

/// Whether the packet is a message of this kind, and of the link's own. Behind extension headers nobody solicits.
#[inline(always)]
fn solicits(packet: &Packet, kind: u8) -> bool {
    packet.read::<Opening>(0).is_ok_and(|it| {
        it.ip.next_header == ICMPV6 && it.ip.hop_limit == HOP_LIMIT && it.kind == kind && it.code == 0
    })
}

#[inline(always)]
fn advertise(packet: &Packet) -> Result<(), DropReason> {
    let question = packet.read::<Question>(0)?;
    let target = question.message.target;
    // SAFETY: the value is copied at once.
    let uplink = unsafe { UPLINKS.get(IfIndex(packet.ifindex())) }.ok_or(DropReason::NoUplink)?;
    let mac = uplink.mac;
    // Who does not have an address yet asks whether anybody else does: all are to hear it (RFC 4861 section 7.2.4).
    let asker = question.ip.source;
    let (to, to_mac, flags) = if asker == Ipv6([0; 4]) {
        (ALL_NODES, ALL_NODES_MAC, OVERRIDE)
    } else {
        (asker, question.frame.source, SOLICITED | OVERRIDE)
    };
    let size = size_of::<Headers>() + size_of::<Advertisement>();
    // SAFETY: a plain helper call.
    if unsafe { bpf_skb_change_tail(packet.skb(), size as u32, 0) } != 0 {
        return Err(DropReason::Rewrite);
    }
    let message = Message { kind: ADVERTISEMENT, code: 0, checksum: 0, flags: [flags, 0, 0, 0], target };
    let mut advertisement = Advertisement { message, option: 2, length: 1, mac };
    advertisement.message.checksum = checksum(&advertisement, target, to);
    rewrite::store(packet, size_of::<Headers>(), &advertisement)?;
    store_headers(packet, Frame { destination: to_mac, source: mac, ethertype: eth::IPV6 }, target, to)
}

/// RFC 4443 section 2.3.
#[inline(always)]
fn checksum(advertisement: &Advertisement, from: Ipv6, to: Ipv6) -> u16 {
    const WORDS: usize = size_of::<Advertisement>() / 4;
    // SAFETY: plain bytes, as many as the words have; read unaligned.
    let words = unsafe { (&raw const *advertisement).cast::<[u32; WORDS]>().read_unaligned() };
    let mut sum = csum::add(csum::sum(from), csum::sum(to));
    for word in words {
        sum = csum::add(sum, word);
    }
    sum = csum::add(sum, (size_of::<Advertisement>() as u32).to_be());
    !csum::fold(csum::add(sum, u32::from(ICMPV6).to_be()))
}

#[inline(always)]
fn store_headers(packet: &Packet, frame: Frame, source: Ipv6, destination: Ipv6) -> Result<(), DropReason> {
    let ip = ip6::Header {
        version_class: 0x60,
        class_flow: 0,
        flow: Be16(0),
        payload_length: Be16::new(size_of::<Advertisement>() as u16),
        next_header: ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination,
    };
    rewrite::store(packet, 0, &Headers { frame, ip })
}
