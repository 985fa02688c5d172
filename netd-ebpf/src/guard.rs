//! Who a sender says it is: a container, whose frames the bridge's own port security does not see any more; and the outside.

use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    bridge::Network,
    drop::DropReason,
    endpoint::Endpoint,
    fdb::FdbKey,
    link_local::{self, LinkLocal},
    tuple::protocol::ICMPV6,
};

use crate::{
    arp::target,
    endpoint::{beside, station},
    external,
    family::{Family, V4, V6},
    gateway::Sending,
    maps::{ENDPOINTS, LINK_LOCALS},
    packet::Packet,
    parse::{Ip, arp, eth::Frame, ip6},
};

/// Nobody outside has an address of the host's own, or of its networks, or that its containers are known by; or one that is no host's.
#[inline(always)]
pub fn outsider<F: Family>(source: F::Address) -> Result<(), DropReason> {
    let is_inside =
        F::network_of(source).is_some() || F::is_of_links(source) || external::is_external::<F>(source);
    if is_inside || F::is_martian(source) { Err(DropReason::SpoofedAddress) } else { Ok(()) }
}

/// Who reports an error is any router on the way, under whichever of its addresses: it may be one that a network here has as well, or be
/// link-local, which says of nobody that he is this host. But none is the host itself, or no host at all.
#[inline(always)]
pub fn reporter<F: Family>(source: F::Address) -> Result<(), DropReason> {
    let is_routable = !F::is_unroutable(source);
    if F::is_martian(source) || is_routable && F::is_of_links(source) {
        return Err(DropReason::SpoofedAddress);
    }
    Ok(())
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
    if sender == endpoint.ipv4 || sender.0 == 0 {
        return Ok(());
    }
    if sender.is_link_local() {
        return claim(slot, Ipv6::mapped(sender));
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
/// (RFC 3927 section 2.6.2), and nobody else has them.
#[inline(always)]
pub fn source4(ip: &Ip<Ipv4>, slot: u32, own: Ipv4, is_to_gateway: bool) -> Result<(), DropReason> {
    if ip.source.is_link_local() && !is_to_gateway && ip.source != own {
        claim(slot, Ipv6::mapped(ip.source))
    } else {
        source(ip, own)
    }
}

/// As `source`; link-local addresses are the container's own affair, as long as nobody else has them.
#[inline(always)]
pub fn source6(ip: &Ip<Ipv6>, slot: u32, own: Ipv6) -> Result<(), DropReason> {
    if ip.source.is_link_local() && ip.source != own { claim(slot, ip.source) } else { source(ip, own) }
}

#[inline(always)]
fn claim(slot: u32, Ipv6([a, b, c, d]): Ipv6) -> Result<(), DropReason> {
    let words = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    if is_anothers(slot, words(a, b), words(c, d)) == 0 { Ok(()) } else { Err(DropReason::SpoofedAddress) }
}

/// Whether a link-local address, in two words as they stand in memory, is known to be somebody else's than the endpoint's: one that
/// another was given, the host's, or what the kernel makes of another's MAC. A global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_anothers(slot: u32, first: u64, second: u64) -> i64 {
    let words = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    i64::from(has_another(slot, Ipv6(words)))
}

#[inline(always)]
fn has_another(slot: u32, address: Ipv6) -> bool {
    let Some(endpoint) = ENDPOINTS.get(slot) else { return true };
    let network = endpoint.network;
    // SAFETY: the value is copied at once.
    if let Some(holder) = unsafe { LINK_LOCALS.get(LinkLocal { network, address }) }.copied() {
        return holder != slot;
    }
    if address.to_mapped().map_or_else(|| V6::is_local(address), V4::is_local) {
        return true;
    }
    let Some(mac) = link_local::station(address) else { return false };
    station(&FdbKey { network, mac, pad: [0; 2] }).is_some_and(|(holder, _)| holder != slot)
}

/// A neighbour advertisement's target is the endpoint's own address (RFC 4861 section 4.4), and routers are not found among endpoints: what
/// they advertise would lead all of their neighbours' IPv6 to them (RFC 6104). But for networks that have no gateway, where one may be.
#[inline(always)]
pub fn advertisement(packet: &Packet, ip: &Ip<Ipv6>, from: &Sending) -> Result<(), DropReason> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const REDIRECT: u8 = 137;
    if ip.protocol != ICMPV6 || ip.fragment.later {
        return Ok(());
    }
    let l4 = ip.l4;
    let kind =
        if l4 == packet.l3 + ip6::L4 { *packet.read::<u8>(packet.l3 + ip6::L4)? } else { packet.load(l4)? };
    if matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT) && from.network.has_gateway() {
        return Err(DropReason::SpoofedAddress);
    }
    if kind != NEIGHBOUR_ADVERTISEMENT {
        return Ok(());
    }
    let target: Ipv6 = packet.load(l4 + 8)?;
    if target == from.endpoint.ipv6 {
        return Ok(());
    }
    if target.is_link_local() { claim(from.slot, target) } else { Err(DropReason::SpoofedAddress) }
}
