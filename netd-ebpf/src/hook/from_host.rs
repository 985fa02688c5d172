//! What the host's stack sends to a network: tcx egress of the network's bridge.
//!
//! A connected socket asks nobody where its packets go: one that a published port has led to a container would reach that container,
//! or whoever has its address by now, for as long as it lives. And who has an address the host asks the one who has, and not all.

use aya_ebpf::programs::TcContext;
use netd_common::{addr::IfIndex, conntrack::flags::RST, drop::DropReason, socket::Socket};

use crate::{
    arp, bridge,
    family::{Family, V4, V6},
    maps::BRIDGES,
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
    let Some(sender) = socket::of(&Packet::of(ctx)) else { return Ok(Verdict::NEXT) };
    let packet = Packet::new(ctx);
    match packet.ethertype() {
        eth::IPV4 => enter::<V4>(&packet, sender),
        eth::IPV6 => enter::<V6>(&packet, sender),
        _ => Ok(Verdict::NEXT),
    }
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
