//! What the host's stack sends to a network: tcx egress of the network's bridge.
//!
//! A connected socket asks nobody where its packets go: one that a published port has led to a container would reach that container,
//! or whoever has its address by now, for as long as it lives. And who has an address the host asks the one who has, and not all.
//! What comes in by an interface that is no uplink goes to no container.

use aya_ebpf::programs::TcContext;
use netd_common::{addr::IfIndex, conntrack::flags::RST, drop::DropReason, limits, socket::Socket};

use crate::{
    arp, bridge, endpoint,
    family::{Family, V4, V6},
    maps::{BRIDGES, UPLINKS},
    nd,
    packet::Packet,
    parse::{
        eth,
        l4::{self, L4Kind},
    },
    socket,
    verdict::{Outcome, Verdict},
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    if let Some(verdict) = ask(&Packet::of(ctx)) {
        return Ok(verdict);
    }
    if is_strangers(&Packet::of(ctx)) {
        return Err(DropReason::DirectAccess);
    }
    if turns_back(&Packet::of(ctx)) {
        return Err(DropReason::Icc);
    }
    let Some(sender) = socket::of(&Packet::of(ctx)) else { return Ok(Verdict::NEXT) };
    let packet = Packet::new(ctx);
    match packet.ethertype() {
        eth::IPV4 => enter::<V4>(&packet, sender),
        eth::IPV6 => enter::<V6>(&packet, sender),
        _ => Ok(Verdict::NEXT),
    }
}

/// Whether it came in where no program of netd's has judged it: by an interface that is neither an uplink nor a network's. Whatever
/// forwards to a group has been told to by name.
#[inline(always)]
fn is_strangers(packet: &Packet) -> bool {
    let interface = packet.came_by();
    // What the host itself sends has come in nowhere.
    if interface == IfIndex(0) || eth::parse(packet).is_ok_and(|frame| frame.destination.is_multicast()) {
        return false;
    }
    // SAFETY: the value is copied at once; and whether there is one, and nothing of it.
    let (network, uplink) = unsafe { (BRIDGES.get(interface).copied(), UPLINKS.get(interface)) };
    let is_networks = network.is_some_and(|number| number < limits::NETWORKS);
    !is_networks && uplink.is_none() && endpoint::behind(interface).is_none()
}

/// Whether the stack sends a packet with a link-local address back to the link that it is from. It forwards those, too, and no program
/// has asked whether the one may speak to the other: who may does so without a router (RFC 4291 section 2.5.6).
/// <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/ip6_output.c> (`ip6_forward`)
#[inline(always)]
fn turns_back(packet: &Packet) -> bool {
    packet.ethertype() == eth::IPV6
        && packet.came_by() == IfIndex(packet.ifindex())
        && eth::parse(packet).is_ok_and(|frame| !frame.destination.is_multicast())
        && V6::parse(packet).is_ok_and(|ip| V6::is_unroutable(ip.source) || V6::is_unroutable(ip.destination))
}

#[inline(always)]
fn ask(packet: &Packet) -> Option<Verdict> {
    let ethertype = packet.ethertype();
    let may_ask = ethertype == eth::ARP || ethertype == eth::IPV6;
    // What has a tag is in a VLAN of its own.
    if !may_ask || packet.is_tagged() || !eth::parse(packet).ok()?.destination.is_multicast() {
        return None;
    }
    // SAFETY: the value is copied at once.
    let network = unsafe { BRIDGES.get(IfIndex(packet.ifindex())) }.copied()?;
    if ethertype == eth::ARP {
        bridge::ask_for_host::<V4>(network, arp::target(packet)?)
    } else {
        bridge::ask_for_host::<V6>(network, nd::target(packet)?)
    }
}

/// Of a datagram the first fragment is enough, and a reset is what ends a connection.
#[inline(always)]
fn enter<F: Family>(packet: &Packet, sender: &Socket) -> Outcome {
    let Ok(ip) = F::parse(packet) else { return Ok(Verdict::NEXT) };
    if ip.fragment.later {
        return Ok(Verdict::NEXT);
    }
    let Ok(l4) = l4::parse(packet, &ip, F::L4, F::ICMP) else { return Ok(Verdict::NEXT) };
    if l4.kind != L4Kind::Ports || l4.flags & RST != 0 {
        return Ok(Verdict::NEXT);
    }
    match sender.dialled(&F::mapped(ip.destination), l4.ports.destination) {
        Some(dialled) if !socket::leads::<F>(ip.protocol, dialled) => Err(DropReason::Unpublished),
        _ => Ok(Verdict::NEXT),
    }
}
