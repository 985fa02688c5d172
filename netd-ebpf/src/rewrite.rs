//! The only writer of packets. Every change comes with its checksums.
//!
//! The checksum helpers are used for all transport headers, for they alone know whether the packet carries a checksum that is yet
//! to be finished by a device (CHECKSUM_PARTIAL) and whether the receiving device summed it (CHECKSUM_COMPLETE); but what one did
//! with an address says what another would do with a port.
//!
//! What stands at a known place is written without a helper. The kernel sees that a program does, and before each run that nobody
//! else shares the packet's head.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
};
use netd_common::{
    addr::{Address, Be16, Ipv4, Ipv6, Mac},
    csum::{self, Checksum},
    drop::DropReason,
    tuple::protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
};
use network_types::eth::EthHdr;

use crate::{
    family::{Family, V4, V6},
    packet::{BARE, Packet},
    parse::{eth::Frame, ip4, ip6},
};

/// The address update concerns IPv6, where no header checksum balances it in the sum of the whole packet. Since 6.16:
/// <https://github.com/torvalds/linux/commit/ead7f9b8de65632ef8060b84b0c55049a33cfea1>
const BPF_F_IPV6: u64 = 1 << 7;

/// Which of the two ends a translation replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// What takes the place of one end of a packet.
#[derive(Clone, Copy)]
pub struct Translation<A> {
    pub end: End,
    pub from: A,
    pub to: A,
    pub from_port: Be16,
    pub to_port: Be16,
    /// The new TTL or hop limit.
    pub ttl: u8,
}

impl<A: Address> Translation<A> {
    /// What a sum over the address gains.
    #[inline(always)]
    fn gain(&self) -> u32 {
        csum::delta(csum::sum(self.from), csum::sum(self.to))
    }
}

/// An IP header that can be changed.
pub trait Header: Copy {
    type Address;
    /// Source and destination.
    fn ends(&self) -> [Self::Address; 2];
    fn replace(&mut self, translation: &Translation<Self::Address>);
    /// What the sum of the whole packet gains by a new TTL, if no checksum within the packet makes it good.
    fn gain(&self, ttl: u8) -> u32;
}

impl Header for ip4::Header {
    type Address = Ipv4;

    #[inline(always)]
    fn ends(&self) -> [Ipv4; 2] {
        [self.source, self.destination]
    }

    #[inline(always)]
    fn replace(&mut self, t: &Translation<Ipv4>) {
        let lifetime = |ttl| u32::from(u16::from_ne_bytes([ttl, self.protocol]));
        let delta =
            csum::add(csum::delta(t.from.0, t.to.0), csum::delta(lifetime(self.ttl), lifetime(t.ttl)));
        self.checksum = csum::apply(self.checksum, delta);
        self.ttl = t.ttl;
        match t.end {
            End::Source => self.source = t.to,
            End::Destination => self.destination = t.to,
        }
    }

    #[inline(always)]
    fn gain(&self, _ttl: u8) -> u32 {
        0
    }
}

impl Header for ip6::Header {
    type Address = Ipv6;

    #[inline(always)]
    fn ends(&self) -> [Ipv6; 2] {
        [self.source, self.destination]
    }

    #[inline(always)]
    fn replace(&mut self, t: &Translation<Ipv6>) {
        self.hop_limit = t.ttl;
        match t.end {
            End::Source => self.source = t.to,
            End::Destination => self.destination = t.to,
        }
    }

    #[inline(always)]
    fn gain(&self, ttl: u8) -> u32 {
        let lifetime = |limit| u32::from(u16::from_ne_bytes([self.next_header, limit]));
        csum::delta(lifetime(self.hop_limit), lifetime(ttl))
    }
}

/// Families whose header is known here.
pub trait Rewrite: Family {
    type Header: Header<Address = Self::Address>;
}

impl Rewrite for V4 {
    type Header = ip4::Header;
}

impl Rewrite for V6 {
    type Header = ip6::Header;
}

/// The packet's source and destination.
#[inline(always)]
pub fn ends<F: Rewrite>(packet: &Packet) -> Result<[F::Address; 2], DropReason> {
    Ok(packet.read::<F::Header>(packet.l3)?.ends())
}

/// Replaces one end in the IP header.
#[inline(always)]
pub fn ip<F: Rewrite>(packet: &Packet, translation: &Translation<F::Address>) -> Result<(), DropReason> {
    tell_sum::<F>(packet, translation.ttl)?;
    packet.write::<F::Header>(packet.l3)?.replace(translation);
    Ok(())
}

/// Replaces both MACs. A packet that came without an Ethernet header gets one, which is the end of what its offsets were good for.
#[inline(always)]
pub fn frame<F: Family>(packet: &Packet, source: Mac, destination: Mac) -> Result<(), DropReason> {
    if packet.l3 == BARE {
        // SAFETY: a plain helper call on a valid context.
        check(unsafe { bpf_skb_change_head(packet.skb(), EthHdr::LEN as u32, 0) })?;
        return store(packet, 0, &Frame { destination, source, ethertype: F::ETHERTYPE });
    }
    let frame = packet.write::<Frame>(0)?;
    (frame.destination, frame.source) = (destination, source);
    Ok(())
}

/// Prepares the sum of the whole packet, where the receiving device has made one, for a new TTL.
#[inline(always)]
fn tell_sum<F: Rewrite>(packet: &Packet, ttl: u8) -> Result<(), DropReason> {
    let gained = packet.read::<F::Header>(packet.l3)?.gain(ttl);
    if gained != 0 {
        // SAFETY: a plain helper call; it fails where there is no such sum, and then there is nothing to tell.
        unsafe { bpf_csum_update(packet.skb(), gained) };
    }
    Ok(())
}

/// Replaces one end in the transport header at `l4`: its port, and what the checksum knows of its address.
#[inline(always)]
pub fn transport<F: Family>(
    packet: &Packet,
    l4: usize,
    protocol: u8,
    translation: &Translation<F::Address>,
) -> Result<(), DropReason> {
    exchange::<F>(packet, l4, protocol, translation, |_| None)
}

/// As `transport`, by more code and fewer calls: for where nearly every packet comes by.
#[inline(always)]
pub fn transport_fast<F: Family>(
    packet: &Packet,
    l4: usize,
    protocol: u8,
    translation: &Translation<F::Address>,
) -> Result<(), DropReason> {
    exchange::<F>(packet, l4, protocol, translation, |at| packet.write_near(at).ok())
}

/// `near` gives a word of the packet to be read and written in place, if it can: behind long headers it may lie outside the linear part.
#[inline(always)]
fn exchange<'a, F: Family>(
    packet: &Packet<'a>,
    l4: usize,
    protocol: u8,
    translation: &Translation<F::Address>,
    near: impl Fn(usize) -> Option<&'a mut u16>,
) -> Result<(), DropReason> {
    let Some(field) = checksum_offset(protocol) else {
        return Ok(()); // SCTP: its CRC covers no address, and its ports are never changed.
    };
    let field = l4 + field;
    let mut kind = Checksum::Unknown;
    let gain = translation.gain();
    if protocol != ICMP && gain != csum::NOTHING {
        let before = near(field).map(|it| *it);
        replace_address::<F>(packet, field, protocol, gain)?;
        if let (Some(before), Some(after)) = (before, near(field)) {
            kind = Checksum::seen(before, *after, gain);
        }
    }
    let (from, to) = (translation.from_port, translation.to_port);
    if from == to {
        return Ok(());
    }
    let port = l4 + port_offset(protocol, translation.end);
    match near(port) {
        Some(it) => *it = to.0,
        None => store(packet, port, &to)?,
    }
    match (kind, near(field)) {
        (Checksum::Unfinished, _) => Ok(()),
        (Checksum::Finished, Some(it)) => {
            let checksum = csum::apply(*it, csum::delta(from.0.into(), to.0.into()));
            *it = if protocol == UDP && checksum == 0 { !0 } else { checksum };
            Ok(())
        }
        _ => replace_port(packet, field, protocol, from, to),
    }
}

/// Tells the checksum at `field` of an address that it covers by the pseudo header.
#[inline(always)]
fn replace_address<F: Family>(
    packet: &Packet,
    field: usize,
    protocol: u8,
    delta: u32,
) -> Result<(), DropReason> {
    let replace = |flags| {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | if_any(protocol) | flags;
        // SAFETY: a plain helper call on a valid context.
        unsafe { bpf_l4_csum_replace(packet.skb(), field as u32, 0, delta.into(), flags) }
    };
    if F::AF != V6::AF {
        return check(replace(0));
    }
    // Kernels before 6.16 refuse the flag that they do not know.
    if replace(BPF_F_IPV6) == 0 { Ok(()) } else { check(replace(0)) }
}

/// Tells the checksum at `field` of a port.
#[inline(always)]
fn replace_port(packet: &Packet, field: usize, protocol: u8, from: Be16, to: Be16) -> Result<(), DropReason> {
    let flags = if_any(protocol) | size_of::<Be16>() as u64;
    // SAFETY: a plain helper call on a valid context.
    check(unsafe { bpf_l4_csum_replace(packet.skb(), field as u32, from.0.into(), to.0.into(), flags) })
}

/// A UDP checksum of zero means none, and must neither be updated nor come to be (RFC 768).
#[inline(always)]
fn if_any(protocol: u8) -> u64 {
    if protocol == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

/// Where the checksum stands in a transport header.
#[inline(always)]
pub fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDPLITE | DCCP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

/// Where the port stands, or the identifier of an ICMP echo.
#[inline(always)]
pub fn port_offset(protocol: u8, end: End) -> usize {
    match protocol {
        ICMP | ICMPV6 => 4,
        _ if end == End::Source => 0,
        _ => 2,
    }
}

/// Whether the port may be changed at all.
#[inline(always)]
pub fn has_fixed_port(protocol: u8) -> bool {
    protocol == SCTP
}

/// Adds `delta` to an ICMP checksum. `pseudo`: what changed is in IPv6's pseudo header, not in the message.
#[inline(always)]
pub fn icmp_checksum(packet: &Packet, l4: usize, delta: u32, pseudo: bool) -> Result<(), DropReason> {
    let field = l4 + 2;
    if pseudo {
        return replace_address::<V6>(packet, field, ICMPV6, delta);
    }
    // SAFETY: a plain helper call on a valid context.
    check(unsafe { bpf_l4_csum_replace(packet.skb(), field as u32, 0, delta.into(), 0) })
}

/// Takes the VLAN tag off.
#[inline(always)]
pub fn untag(packet: &Packet) -> Result<(), DropReason> {
    // SAFETY: a plain helper call on a valid context.
    check(unsafe { bpf_skb_vlan_pop(packet.skb()) })
}

/// Writes plain bytes.
#[inline(always)]
pub fn store<T>(packet: &Packet, offset: usize, value: &T) -> Result<(), DropReason> {
    // SAFETY: the helper reads `size_of::<T>()` bytes of `value` and checks the packet's bounds itself.
    check(unsafe {
        bpf_skb_store_bytes(packet.skb(), offset as u32, (&raw const *value).cast(), size_of::<T>() as u32, 0)
    })
}

#[inline(always)]
fn check(result: i64) -> Result<(), DropReason> {
    if result == 0 { Ok(()) } else { Err(DropReason::Rewrite) }
}
