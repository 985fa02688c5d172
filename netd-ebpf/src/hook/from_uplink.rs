//! What the outside sends: tcx ingress of each uplink. A tunnel's packets come without an Ethernet header; there is a program
//! for either kind, so that neither has to ask.
//!
//! The flow table is asked first, by the full tuple: a published port must not capture the replies of a container's own flow.

use aya_ebpf::programs::TcContext;
use netd_common::{
    addr::{Be16, IfIndex},
    drop::DropReason,
    nat::OUTSIDE,
    tuple::{INBOUND, Tuple},
};

use crate::{
    arp, conntrack,
    external::{self, From, Translate},
    family::{Family, V4, V6},
    fib, filtering,
    frag::{self, Hold},
    icmp,
    maps::UPLINKS,
    nat, nd,
    open::Opened,
    packet::{BARE, Packet},
    parse::{
        Ip, eth,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    policy::{self, Policy},
    port_usage, publish,
    redirect::{self, TRANSLATED},
    rewrite,
    verdict::{Outcome, Verdict},
};

/// `__sk_buff::pkt_type` of a frame that is addressed to this host.
const PACKET_HOST: u32 = 0;

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    if Packet::of(ctx).take_mark(TRANSLATED) {
        return Ok(Verdict::NEXT);
    }
    let packet = Packet::new(ctx);
    // What is in a VLAN comes in again, by the VLAN's own interface; a tag that names none is as good as no tag.
    if packet.is_tagged() {
        if packet.vlan() != 0 {
            return Ok(Verdict::NEXT);
        }
        rewrite::untag(&packet)?;
        return Ok(redirect::again(&packet));
    }
    // SAFETY: the kernel hands a valid context.
    if unsafe { (*packet.skb()).pkt_type } != PACKET_HOST {
        return asked(&packet);
    }
    let Ok(frame) = eth::parse(&packet) else { return Ok(Verdict::NEXT) };
    if frame.ethertype == eth::ARP {
        return asked(&packet);
    }
    arrive(&packet, frame.ethertype)
}

/// On a link without a header of its own.
#[inline(always)]
pub fn run_bare(ctx: &TcContext) -> Outcome {
    if Packet::of(ctx).take_mark(TRANSLATED) {
        return Ok(Verdict::NEXT);
    }
    let packet = Packet::bare(ctx);
    arrive(&packet, packet.ethertype())
}

#[inline(always)]
fn arrive(packet: &Packet, ethertype: Be16) -> Outcome {
    match ethertype {
        eth::IPV4 => inside::<V4>(packet),
        eth::IPV6 => inside::<V6>(packet),
        _ => Ok(Verdict::NEXT),
    }
}

/// To everyone on the link: who has an external address?
#[inline(always)]
fn asked(packet: &Packet) -> Outcome {
    let Ok(frame) = eth::parse(packet) else { return Ok(Verdict::NEXT) };
    let is_answered = match frame.ethertype {
        eth::ARP => {
            // SAFETY: the value is copied at once.
            let uplink = unsafe { UPLINKS.get(IfIndex(packet.ifindex())) }.copied();
            uplink.map_or(Ok(false), |uplink| arp::answer(packet, uplink.mac))?
        }
        eth::IPV6 => nd::answer(packet)?,
        _ => false,
    };
    Ok(if is_answered { redirect::back(packet) } else { Verdict::NEXT })
}

#[inline(always)]
fn inside<F: Translate + Policy>(packet: &Packet) -> Outcome {
    let Ok(ip) = &F::parse(packet) else { return unreadable::<F>(packet) };
    if ip.options && F::is_source_routed(packet) {
        return Err(DropReason::SourceRoute);
    }
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    if ip.fragment.later {
        return match frag::find::<F>(ip, INBOUND) {
            Some(found) if conntrack::refresh::<F>(found.flow, INBOUND, 0, globals) => {
                nat::restore::<F>(packet, ip, None, found.flow)
            }
            _ if external::is_external::<F>(ip.destination) => external::enter::<F>(packet, None, From::Wire),
            // The host's own perhaps: its stack gets it as well, and forgets it if the first never comes there.
            _ => {
                let Ok(verdict) = hosts::<F>(ip) else {
                    return unless_admitted::<F>(packet, Err(DropReason::DirectAccess));
                };
                let is_under_way = frag::hold::<F>(packet, INBOUND) == Hold::Replayed;
                Ok(if is_under_way { Verdict::CONSUMED } else { verdict })
            }
        };
    }
    let Ok(l4) = l4::parse(packet, ip, F::L4, F::ICMP) else {
        return stranger::<F>(packet, ip, None);
    };
    match l4.kind {
        L4Kind::Ports | L4Kind::Icmp(Kind::EchoReply) => {
            let (source, destination) = (l4.ports.source, l4.ports.destination);
            let key = Tuple::inbound(ip.source, ip.destination, source, destination, ip.protocol);
            if let Some(found) = conntrack::find::<F>(&key)
                && conntrack::refresh::<F>(found.flow, INBOUND, l4.flags, globals)
            {
                if ip.fragment.more {
                    frag::note::<F>(ip, INBOUND, found.index);
                    if frag::replay::<F>(packet, INBOUND) {
                        return Ok(Verdict::CONSUMED);
                    }
                }
                return nat::restore::<F>(packet, ip, Some(&l4), found.flow);
            }
        }
        L4Kind::Icmp(Kind::Error) if F::verify(packet).is_ok() => {
            if let Some(outcome) = icmp::error_in::<F>(packet, ip) {
                return outcome;
            }
        }
        _ => {}
    }
    let may_ask = F::AF == V6::AF && packet.l3 != BARE && l4.kind == L4Kind::Icmp(Kind::Other);
    if may_ask && nd::answer(packet)? {
        return Ok(redirect::back(packet));
    }
    stranger::<F>(packet, ip, Some(&l4))
}

/// What cannot be parsed, or is not as it was sent, cannot be a reply. The stack drops it as it would without netd; but for one with more extension headers than
/// are walked over here: whoever forwards reads none of them (RFC 8200 section 4).
#[inline(always)]
fn unreadable<F: Family>(packet: &Packet) -> Outcome {
    match F::destination(packet).and_then(F::network_of) {
        Some(_) => Err(DropReason::Malformed),
        None => Ok(Verdict::NEXT),
    }
}

/// No flow of ours. A container's external address is its own wholly; of all others the host has what is not published.
#[inline(always)]
fn stranger<F: Translate + Policy>(packet: &Packet, ip: &Ip<F::Address>, l4: Option<&L4>) -> Outcome {
    if F::verify(packet).is_err() {
        return unreadable::<F>(packet);
    }
    if external::is_external::<F>(ip.destination) {
        return external::enter::<F>(packet, external::error(ip, l4), From::Wire);
    }
    let outcome = match l4 {
        Some(l4) if l4.kind == L4Kind::Ports && l4.is_first(ip.protocol) => {
            nat::accepted::<F>(packet, publish::open::<F>(packet, OUTSIDE), INBOUND)
        }
        // Nobody but who asked hears a reply; unless all of the outside may answer for the one that was asked.
        Some(l4)
            if l4.kind == L4Kind::Icmp(Kind::EchoReply)
                && port_usage::Ports::of::<F>(ip.destination, ip.protocol)
                    .is_bound::<F>(l4.ports.destination) =>
        {
            nat::accepted::<F>(packet, filtering::open::<F>(packet, OUTSIDE), INBOUND)
        }
        _ => hosts::<F>(ip),
    };
    unless_admitted::<F>(packet, outcome)
}

/// What is aimed straight at a container is dropped, unless its network lets it in.
#[inline(always)]
fn unless_admitted<F: Translate + Policy>(packet: &Packet, outcome: Outcome) -> Outcome {
    if !matches!(outcome, Err(DropReason::DirectAccess)) {
        return outcome;
    }
    let admitted = F::judge(packet, OUTSIDE);
    if admitted >= 0 {
        return nat::accepted::<F>(packet, policy::open::<F>(packet, admitted, OUTSIDE), INBOUND);
    }
    nat::accepted::<F>(packet, Opened::decode(admitted), INBOUND)
}

/// The host's affair, unless it is aimed straight at a container.
#[inline(always)]
fn hosts<F: Family>(ip: &Ip<F::Address>) -> Outcome {
    if F::network_of(ip.destination).is_some() { Err(DropReason::DirectAccess) } else { Ok(Verdict::NEXT) }
}
