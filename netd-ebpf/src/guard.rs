//! Who a container says it is. The bridge's own port security no longer sees what the programs redirect.

use netd_common::{
    addr::Address, addr::Ipv4, addr::Ipv6, drop::DropReason, endpoint::Endpoint, tuple::protocol::ICMPV6,
};

use crate::{
    packet::Packet,
    parse::{Ip, arp, eth::Frame, ip6},
};

/// The frame's source is the endpoint's MAC.
#[inline(always)]
pub fn frame(frame: &Frame, endpoint: &Endpoint) -> Result<(), DropReason> {
    if frame.source == endpoint.mac { Ok(()) } else { Err(DropReason::SpoofedMac) }
}

/// An ARP sender names itself: by the endpoint's MAC and address, or no address (a probe, RFC 5227).
#[inline(always)]
pub fn arp(packet: &Packet, endpoint: &Endpoint) -> Result<(), DropReason> {
    let header = arp::parse(packet)?;
    if header.sender_mac != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    if header.sender() != endpoint.ipv4 && header.sender().0 != 0 && !header.sender().is_link_local() {
        return Err(DropReason::SpoofedAddress);
    }
    Ok(())
}

/// The source address is the endpoint's. 0.0.0.0 and `::` may ask for an address or probe for one.
#[inline(always)]
pub fn source<A: Address>(ip: &Ip<A>, own: A) -> Result<(), DropReason> {
    if ip.source == own || ip.source.is_unspecified() { Ok(()) } else { Err(DropReason::SpoofedAddress) }
}

/// As `source`; link-local addresses are the container's own affair, as long as no one beyond the bridge is to hear them
/// (RFC 3927 section 2.6.2).
#[inline(always)]
pub fn source4(ip: &Ip<Ipv4>, own: Ipv4, is_to_gateway: bool) -> Result<(), DropReason> {
    if ip.source.is_link_local() && !is_to_gateway { Ok(()) } else { source(ip, own) }
}

/// As `source`; link-local addresses are the container's own affair, for the stack forwards none of them.
#[inline(always)]
pub fn source6(packet: &Packet, ip: &Ip<Ipv6>, own: Ipv6) -> Result<(), DropReason> {
    if !ip.source.is_link_local() {
        source(ip, own)?;
    }
    if ip.protocol == ICMPV6 && !ip.fragment.later { advertisement(packet, ip.l4, own) } else { Ok(()) }
}

/// A neighbour advertisement's target is the endpoint's own address (RFC 4861 section 4.4).
#[inline(always)]
fn advertisement(packet: &Packet, l4: usize, own: Ipv6) -> Result<(), DropReason> {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    let kind =
        if l4 == packet.l3 + ip6::L4 { *packet.read::<u8>(packet.l3 + ip6::L4)? } else { packet.load(l4)? };
    if kind != NEIGHBOUR_ADVERTISEMENT {
        return Ok(());
    }
    let target: Ipv6 = packet.load(l4 + 8)?;
    if target == own || target.is_link_local() { Ok(()) } else { Err(DropReason::SpoofedAddress) }
}
