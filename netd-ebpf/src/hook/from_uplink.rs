//! What the outside sends: tcx ingress of each uplink. A tunnel's packets come without an Ethernet header; there is a program
//! for either kind, so that neither has to ask.
//!
//! The flow table is asked first, by the full tuple: a published port must not capture the replies of a container's own flow.

use aya_ebpf::programs::TcContext;
use netd_common::{addr::Be16, drop::DropReason, tuple::INBOUND};

use crate::{
    conntrack,
    family::{V4, V6},
    fib,
    frag::{self, Hold},
    icmp::{self, Quoted},
    nat,
    open::{self, Opened},
    packet::Packet,
    parse::{
        Ip, eth,
        icmp::Kind,
        l4::{self, L4Kind},
    },
    publish::{self, Publish},
    verdict::{Outcome, Verdict},
};

/// `__sk_buff::pkt_type` of a frame that is addressed to this host.
const PACKET_HOST: u32 = 0;

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    let packet = Packet::new(ctx);
    // What has a tag comes in again, by the VLAN's own interface.
    // SAFETY: the kernel hands a valid context.
    if packet.is_tagged() || unsafe { (*packet.skb()).pkt_type } != PACKET_HOST {
        return Ok(Verdict::NEXT);
    }
    let Ok(frame) = eth::parse(&packet) else { return Ok(Verdict::NEXT) };
    arrive(&packet, frame.ethertype)
}

/// On a link without a header of its own.
#[inline(always)]
pub fn run_bare(ctx: &TcContext) -> Outcome {
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

#[inline(always)]
fn inside<F: Quoted + Publish>(packet: &Packet) -> Outcome {
    // What cannot be parsed cannot be a reply; the stack drops it as it would without netd.
    let Ok(ip) = &F::parse(packet) else { return Ok(Verdict::NEXT) };
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    if ip.fragment.later {
        return match frag::find::<F>(ip, INBOUND) {
            Some(found) if conntrack::refresh(found.flow, INBOUND, 0, globals) => {
                nat::restore::<F>(packet, ip, None, found.flow)
            }
            // The host's own perhaps: its stack gets it as well, and forgets it if the first never comes there.
            _ => {
                let verdict = stranger::<F>(ip)?;
                let is_under_way = frag::hold::<F>(packet, INBOUND) == Hold::Replayed;
                Ok(if is_under_way { Verdict::CONSUMED } else { verdict })
            }
        };
    }
    let Ok(l4) = l4::parse(packet, ip, F::L4, F::ICMP) else { return stranger::<F>(ip) };
    match l4.kind {
        L4Kind::Ports | L4Kind::Icmp(Kind::EchoReply) => {
            let (source, destination) = (l4.ports.source, l4.ports.destination);
            let key = open::inbound(ip.source, ip.destination, source, destination, ip.protocol);
            if let Some(found) = conntrack::find::<F>(&key)
                && conntrack::refresh(found.flow, INBOUND, l4.flags, globals)
            {
                if ip.fragment.more {
                    frag::note::<F>(ip, INBOUND, found.index);
                    if frag::replay::<F>(packet, INBOUND) {
                        return Ok(Verdict::CONSUMED);
                    }
                }
                return nat::restore::<F>(packet, ip, Some(&l4), found.flow);
            }
            if l4.kind == L4Kind::Ports && l4.is_first(ip.protocol) {
                return first::<F>(packet);
            }
        }
        L4Kind::Icmp(Kind::Error) => {
            if let Some(outcome) = icmp::error_in::<F>(packet, ip) {
                return outcome;
            }
        }
        _ => {}
    }
    stranger::<F>(ip)
}

/// The first packet of somebody who may have come to a published port.
///
/// Nothing of the packet is held over these calls, for the programs' stack is short.
#[inline(always)]
fn first<F: Quoted + Publish>(packet: &Packet) -> Outcome {
    let index = match publish::open::<F>(packet) {
        Opened::Flow(index) => index,
        Opened::Stack => return Ok(Verdict::NEXT),
        Opened::Drop(reason) => return Err(reason),
    };
    if F::note_first(packet, index) != 0 && frag::replay::<F>(packet, INBOUND) {
        return Ok(Verdict::CONSUMED);
    }
    nat::restore_first::<F>(packet, index)
}

/// No flow of ours: the host's affair, unless it is aimed straight at a container.
#[inline(always)]
fn stranger<F: Quoted>(ip: &Ip<F::Address>) -> Outcome {
    if F::network_of(ip.destination).is_some() { Err(DropReason::DirectAccess) } else { Ok(Verdict::NEXT) }
}
