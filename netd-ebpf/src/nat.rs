//! Masquerade: translation of packets whose flow is known.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Address, IfIndex},
    drop::DropReason,
    endpoint::{NO_GATEWAY, VIA_BRIDGE},
    nat::{Flow, HOST, OUTSIDE, THROUGH_STACK},
    stats::Path,
    tuple::{INBOUND, OUTBOUND},
};

use crate::{
    conntrack,
    family::{Family, V4, V6},
    frag::{self, Fragments},
    maps::{ENDPOINTS, NETWORKS, UPLINKS},
    open::Opened,
    packet::Packet,
    parse::{
        Ip,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    redirect,
    rewrite::{self, Rewrite},
    stats,
    translation::{Ends, other_end, to_local, translate},
    verdict::{Outcome, Verdict},
};

/// Whether each IP packet that leaves is small enough for the route: of a super-frame, each segment.
#[inline(always)]
pub fn fits<A>(packet: &Packet, ip: &Ip<A>, l4: Option<&L4>, mtu: u32) -> bool {
    let segment = packet.segment_size();
    let size = match l4 {
        Some(l4) if segment != 0 => (ip.l4 - packet.l3) as u32 + l4.length + segment,
        _ => packet.len() - packet.l3 as u32,
    };
    size <= mtu
}

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Restore: Ends {
    /// Restores the packet that has begun the flow at `index`, but for the remote's end. The verdict's number, or below all of
    /// those the reason of a drop.
    fn restore_first(packet: &Packet, index: u32) -> i64;
    /// Turns a packet of the flow at `index` back, and leaves its delivery to the caller: 0, or a failure.
    fn turn_back(packet: &Packet, index: u32) -> i64;
}

impl Restore for V4 {
    #[inline(always)]
    fn restore_first(packet: &Packet, index: u32) -> i64 {
        restore_first4(packet.skb(), index, packet.l3 as u32)
    }
    #[inline(always)]
    fn turn_back(packet: &Packet, index: u32) -> i64 {
        turn_back4(packet.skb(), index)
    }
}

impl Restore for V6 {
    #[inline(always)]
    fn restore_first(packet: &Packet, index: u32) -> i64 {
        restore_first6(packet.skb(), index, packet.l3 as u32)
    }
    #[inline(always)]
    fn turn_back(packet: &Packet, index: u32) -> i64 {
        turn_back6(packet.skb(), index)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn restore_first4(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    restore_opener::<V4>(skb, index, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn restore_first6(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    restore_opener::<V6>(skb, index, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn turn_back4(skb: *mut __sk_buff, index: u32) -> i64 {
    i64::from(turn_back::<V4>(skb, index).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn turn_back6(skb: *mut __sk_buff, index: u32) -> i64 {
    i64::from(turn_back::<V6>(skb, index).is_err())
}

/// Below all verdicts.
const DROPPED: i64 = -2;

/// The first packet of whoever came to a published port, or any of another container, to the container that the port leads to.
#[inline(always)]
pub fn restore_first<F: Restore>(packet: &Packet, index: u32) -> Outcome {
    if let Some(found) = conntrack::at::<F>(index) {
        // SAFETY: the flow points into an array map.
        other_end::<F>(packet, unsafe { &*found.flow }, INBOUND)?;
    }
    let answer = F::restore_first(packet, index);
    if answer <= DROPPED {
        return Err(DropReason::of((DROPPED - answer) as u32));
    }
    Ok(Verdict::redirected(answer))
}

/// A packet of somebody who has come to a published port, or to a container itself. `from`: where fragments are held, the direction
/// of their keys.
///
/// Nothing of the packet is held over these calls, for the programs' stack is short.
#[inline(always)]
pub fn accepted<F: Restore + Fragments>(packet: &Packet, opened: Opened, from: u8) -> Outcome {
    let index = match opened {
        Opened::Flow(index) => index,
        Opened::Stack => return Ok(Verdict::NEXT),
        Opened::Drop(DropReason::Fragment) => return frag::hold::<F>(packet, from).outcome(),
        Opened::Drop(reason) => return Err(reason),
    };
    if F::note_first(packet, index) != 0 && frag::replay::<F>(packet, from) {
        return Ok(Verdict::CONSUMED);
    }
    restore_first::<F>(packet, index)
}

#[inline(always)]
fn restore_opener<F: Rewrite>(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let restored = F::parse(packet).and_then(|ip| {
        let found = conntrack::at::<F>(index).ok_or(DropReason::NoBackend)?;
        // SAFETY: the flow points into an array map.
        let record = unsafe { &*found.flow };
        conntrack::tally(found.flow, INBOUND, packet.len());
        if !ip.fragment.later && ip.protocol == record.protocol {
            rewrite::transport::<F>(packet, ip.l4, ip.protocol, &to_local(record, 0))?;
        }
        stats::took(if record.peer == OUTSIDE { Path::Returned } else { Path::Hairpinned });
        deliver::<F>(packet, &ip, record, |ttl| rewrite::ip::<F>(packet, &to_local(record, ttl)))
    });
    match restored {
        Ok(verdict) => verdict.number(),
        Err(reason) => DROPPED - i64::from(reason as u32),
    }
}

/// From a container to the outside in one pass, by what `send` does. `l4` is absent in later fragments.
#[inline(always)]
pub fn masquerade<F: Ends>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    flow: *mut Flow<F::Address>,
    send: impl FnOnce(&Flow<F::Address>) -> Outcome,
) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    if !fits(packet, ip, l4, record.next_hop.mtu) {
        stats::took(Path::StackMtu);
        return Ok(Verdict::NEXT);
    }
    conntrack::tally(flow, OUTBOUND, packet.len());
    translate::<F>(packet, flow, OUTBOUND, l4.map(|_| ip.l4), ip.ttl - 1)?;
    other_end::<F>(packet, record, OUTBOUND)?;
    stats::took(Path::Masqueraded);
    send(record)
}

/// What the stack lets out, translated over the same table. The TTL is the stack's business and done.
#[inline(always)]
pub fn masquerade_from_stack<F: Ends>(packet: &Packet, flow: *mut Flow<F::Address>) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    conntrack::tally(flow, OUTBOUND, packet.len());
    if F::externalise(packet, record.index) != 0 {
        return Err(DropReason::Rewrite);
    }
    other_end::<F>(packet, record, OUTBOUND)?;
    stats::took(Path::StackMasqueraded);
    Ok(Verdict::NEXT)
}

/// From the outside back to whoever began the flow.
#[inline(always)]
pub fn restore<F: Ends>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    flow: *mut Flow<F::Address>,
) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    conntrack::tally(flow, INBOUND, packet.len());
    other_end::<F>(packet, record, INBOUND)?;
    stats::took(Path::Returned);
    deliver::<F>(packet, ip, record, |ttl| translate::<F>(packet, flow, INBOUND, l4.map(|_| ip.l4), ttl))
}

#[inline(always)]
fn turn_back<F: Rewrite>(skb: *mut __sk_buff, index: u32) -> Result<(), DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let ip = F::parse(packet)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::UnknownEndpoint)?;
    let l4 = if ip.fragment.later { None } else { Some(l4::parse(packet, &ip, F::L4, F::ICMP)?) };
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*found.flow };
    // What an error quotes has been turned back already.
    if l4.as_ref().is_none_or(|l4| l4.kind != L4Kind::Icmp(Kind::Error)) {
        conntrack::tally(found.flow, INBOUND, packet.len());
        if l4.is_some() {
            rewrite::transport::<F>(packet, ip.l4, ip.protocol, &to_local(record, 0))?;
        }
    }
    stats::took(Path::Returned);
    let to = record.endpoint;
    let (source, destination) = if to == HOST {
        // SAFETY: the value is copied at once.
        let uplink = unsafe { UPLINKS.get(record.next_hop.uplink) }.ok_or(DropReason::NoUplink)?;
        (uplink.mac, uplink.mac)
    } else {
        let endpoint = ENDPOINTS.get(to).ok_or(DropReason::UnknownEndpoint)?;
        let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
        if endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
            return rewrite::ip::<F>(packet, &to_local(record, ip.ttl));
        }
        (network.mac, endpoint.mac)
    };
    rewrite::ip::<F>(packet, &to_local(record, last_ttl(ip.ttl)))?;
    rewrite::frame::<F>(packet, source, destination)
}

/// Hands a packet that was turned back to whoever began its flow.
#[inline(always)]
pub fn hand_over<A: Address>(packet: &Packet, flow: &Flow<A>) -> Outcome {
    if flow.endpoint == HOST {
        return Ok(redirect::in_by(packet, flow.next_hop.uplink));
    }
    let endpoint = ENDPOINTS.get(flow.endpoint).ok_or(DropReason::UnknownEndpoint)?;
    if endpoint.port.0 == 0 {
        return Err(DropReason::UnknownEndpoint);
    }
    Ok(redirect::into(packet, flow.endpoint, endpoint))
}

/// Hands an answer to the endpoint of this host that opened the flow. Its TTL has been seen to.
#[inline(always)]
pub fn to_peer<F: Family>(packet: &Packet, flow: &Flow<F::Address>) -> Outcome {
    let endpoint = ENDPOINTS.get(flow.peer).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    if endpoint.port.0 == 0 {
        return Err(DropReason::UnknownEndpoint);
    }
    if endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) == 0 {
        rewrite::frame::<F>(packet, network.mac, endpoint.mac)?;
    }
    Ok(redirect::into(packet, flow.peer, endpoint))
}

/// What the receiver finds for a TTL: he is the last hop, where one that ends has still arrived, and must not become 0.
#[inline(always)]
pub fn last_ttl(ttl: u8) -> u8 {
    if ttl > 1 { ttl - 1 } else { 1 }
}

/// Hands a packet to the flow's own end, once `translate` has turned its destination back into that, with a TTL.
#[inline(always)]
pub fn deliver<F: Rewrite>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    flow: &Flow<F::Address>,
    translate: impl FnOnce(u8) -> Result<(), DropReason>,
) -> Outcome {
    if flow.endpoint == HOST {
        translate(ip.ttl)?;
        return Ok(Verdict::NEXT);
    }
    let endpoint = ENDPOINTS.get(flow.endpoint).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    if endpoint.port.0 == 0 {
        return Err(DropReason::UnknownEndpoint);
    }
    let by_stack = endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0;
    let is_answer_to_stack = flow.flags & THROUGH_STACK != 0;
    translate(if by_stack || is_answer_to_stack { ip.ttl } else { last_ttl(ip.ttl) })?;
    if is_answer_to_stack {
        // Netfilter undoes what it has done. Where the uplink is a bridge it may have looked at the packet already, as it was, and
        // would not again at one that has not come in anew.
        return Ok(redirect::in_by(packet, IfIndex(packet.ifindex())));
    }
    if by_stack {
        // The stack routes it to the bridge, as any other packet.
        return Ok(Verdict::NEXT);
    }
    rewrite::frame::<F>(packet, network.mac, endpoint.mac)?;
    Ok(redirect::into(packet, flow.endpoint, endpoint))
}
