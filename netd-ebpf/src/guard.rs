//! Who a sender says it is: a container, whose frames the bridge's own port security does not see any more; and the outside.

use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    bridge::Network,
    drop::DropReason,
    endpoint::Endpoint,
    tuple::protocol::ICMPV6,
};

use crate::{
    arp::target,
    endpoint::beside,
    external,
    family::{Family, V4},
    packet::Packet,
    parse::{Ip, arp, eth::Frame, ip6},
};

/// Nobody outside has an address of the host's own, or of its networks, or that its containers are known by.
#[inline(always)]
pub fn outsider<F: Family>(source: F::Address) -> Result<(), DropReason> {
    let is_inside =
        F::network_of(source).is_some() || F::is_local(source) || external::is_external::<F>(source);
    if is_inside { Err(DropReason::SpoofedAddress) } else { Ok(()) }
}

/// The frame's source is the endpoint's MAC.
#[inline(always)]
pub fn frame(frame: &Frame, endpoint: &Endpoint) -> Result<(), DropReason> {
    if frame.source == endpoint.mac { Ok(()) } else { Err(DropReason::SpoofedMac) }
}

/// An ARP sender names itself: by the endpoint's MAC and address, or no address (a probe, RFC 5227). Of the gateway it may ask under an
/// address of another of its endpoints: the kernel asks so by default for a packet that it sends under that (`arp_announce`).
#[inline(always)]
pub fn arp(packet: &Packet, slot: u32, endpoint: &Endpoint, network: &Network) -> Result<(), DropReason> {
    let header = arp::parse(packet)?;
    if header.sender_mac != endpoint.mac {
        return Err(DropReason::SpoofedMac);
    }
    let sender = header.sender();
    if sender == endpoint.ipv4 || sender.0 == 0 || sender.is_link_local() {
        return Ok(());
    }
    let asks_gateway = target(packet).is_some_and(|target| target == network.gateway4);
    let is_beside = asks_gateway && beside::<V4>(slot, endpoint, sender).is_some();
    if is_beside { Ok(()) } else { Err(DropReason::SpoofedAddress) }
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
pub fn source6(ip: &Ip<Ipv6>, own: Ipv6) -> Result<(), DropReason> {
    if ip.source.is_link_local() { Ok(()) } else { source(ip, own) }
}

/// A neighbour advertisement's target is the endpoint's own address (RFC 4861 section 4.4).
#[inline(always)]
pub fn advertisement(packet: &Packet, ip: &Ip<Ipv6>, own: Ipv6) -> Result<(), DropReason> {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    if ip.protocol != ICMPV6 || ip.fragment.later {
        return Ok(());
    }
    let l4 = ip.l4;
    let kind =
        if l4 == packet.l3 + ip6::L4 { *packet.read::<u8>(packet.l3 + ip6::L4)? } else { packet.load(l4)? };
    if kind != NEIGHBOUR_ADVERTISEMENT {
        return Ok(());
    }
    let target: Ipv6 = packet.load(l4 + 8)?;
    if target == own || target.is_link_local() { Ok(()) } else { Err(DropReason::SpoofedAddress) }
}
