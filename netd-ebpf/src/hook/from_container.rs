//! What a container sends: tcx ingress of the host's end of its veth.

use aya_ebpf::programs::TcContext;
use netd_common::{
    addr::{Be16, IfIndex},
    bridge::INTERNAL,
    drop::DropReason,
    endpoint::{ANY_SOURCE, NO_GATEWAY, SENT_LIMITED},
};

use crate::{
    arp, bridge, endpoint,
    family::{Family, V4, V6},
    gateway::{self, Sending},
    guard,
    maps::NETWORKS,
    nd,
    packet::Packet,
    parse::eth,
    rate,
    redirect::{self, REPLAYED},
    rewrite, stats,
    verdict::Outcome,
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    let packet = Packet::new(ctx);
    let port = IfIndex(packet.ifindex());
    let (slot, endpoint) = endpoint::behind(port).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    let from = Sending { slot, endpoint, network };
    // A tag that leaves the frame where it would be without one (IEEE 802.1Q 6.9.1) hides nothing.
    if packet.is_tagged() && [0, endpoint.vlan].contains(&packet.vlan()) {
        rewrite::untag(&packet)?;
        return Ok(redirect::again(&packet));
    }
    if !packet.take_mark(REPLAYED) {
        if endpoint.flags & SENT_LIMITED != 0 {
            rate::pay(&packet, slot)?;
        }
        stats::sent(slot, packet.len());
    }

    let frame = eth::parse(&packet)?;
    let guarded = endpoint.flags & ANY_SOURCE == 0;
    if guarded {
        guard::frame(frame, endpoint)?;
    }
    if packet.is_tagged() {
        return bridge::tagged(network, frame.destination);
    }
    let to_gateway = frame.destination == network.mac && endpoint.flags & NO_GATEWAY == 0;
    match frame.ethertype {
        eth::IPV4 => {
            let ip = V4::parse(&packet)?;
            if ip.options && V4::is_source_routed(&packet) {
                return Err(DropReason::SourceRoute);
            }
            if frame.destination.is_multicast() && strays::<V4>(&from, ip.destination) {
                return Err(DropReason::Internal);
            }
            let checked = guard::source4(&ip, slot, endpoint.ipv4, frame.destination == network.mac);
            if to_gateway {
                return gateway::ask::<V4>(&packet, &ip, &speaker::<V4>(from, ip.source, checked)?);
            }
            if guarded {
                checked?;
            }
        }
        eth::IPV6 => {
            let ip = V6::parse(&packet)?;
            if frame.destination.is_multicast() && strays::<V6>(&from, ip.destination) {
                return Err(DropReason::Internal);
            }
            if guarded {
                guard::advertisement(&packet, &ip, &from)?;
            }
            let checked = guard::source6(&ip, slot, endpoint.ipv6);
            if to_gateway {
                return gateway::ask::<V6>(&packet, &ip, &speaker::<V6>(from, ip.source, checked)?);
            }
            if guarded {
                checked?;
            }
        }
        eth::ARP if guarded => guard::arp(&packet, slot, endpoint, network)?,
        _ => {}
    }
    if frame.destination.is_multicast() {
        return to_all(&packet, frame.ethertype, &from);
    }
    if frame.destination == network.mac {
        return bridge::flood();
    }
    bridge::forward(&packet, slot, endpoint, network, frame.destination)
}

/// Who speaks: the endpoint behind the port. Or another one of the same container, to whose network all that is said belongs: a host may
/// route by one interface what it sends under an address of another (RFC 1122 section 3.3.4.2, the weak model), and
/// answers so wherever its default route leads. `checked`: whether the source is the endpoint's own.
#[inline(always)]
fn speaker<'a, F: Family>(
    from: Sending<'a>,
    source: F::Address,
    checked: Result<(), DropReason>,
) -> Result<Sending<'a>, DropReason> {
    let Err(reason) = checked else { return Ok(from) };
    // Asked here and not before the guard is: with that, the verifier refuses the program (6.18).
    if from.endpoint.flags & ANY_SOURCE != 0 {
        return Ok(from);
    }
    let (slot, endpoint) = endpoint::beside::<F>(from.slot, from.endpoint, source).ok_or(reason)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    Ok(Sending { slot, endpoint, network })
}

/// Whether what goes to all on an internal network's link is for somebody who is not there: the host hears it, and would take it for one
/// of its other addresses.
#[inline(always)]
fn strays<F: Family>(from: &Sending, destination: F::Address) -> bool {
    from.network.flags & INTERNAL != 0
        && !F::is_unroutable(destination)
        && F::network_of(destination) != Some(from.endpoint.network)
}

/// To everyone, or a group: who has an address is a question to one, and who is a router is one as well.
#[inline(always)]
fn to_all(packet: &Packet, ethertype: Be16, from: &Sending) -> Outcome {
    let Sending { slot, endpoint, network } = *from;
    let asked = match ethertype {
        eth::ARP => arp::target(packet).map(|it| bridge::ask::<V4>(packet, slot, endpoint, network, it)),
        eth::IPV6 if nd::is_for_routers(packet) => Some(bridge::ask_router::<V6>(endpoint, network)),
        eth::IPV6 => nd::target(packet).map(|it| bridge::ask::<V6>(packet, slot, endpoint, network, it)),
        _ => None,
    };
    asked.unwrap_or_else(bridge::flood)
}
