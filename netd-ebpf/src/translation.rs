//! What the record of its flow makes of a packet's ends.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    drop::DropReason,
    nat::{Flow, TWICE},
    tuple::{INBOUND, OUTBOUND},
};

use crate::{
    conntrack,
    family::{V4, V6},
    packet::Packet,
    rewrite::{self, End, Rewrite, Translation},
};

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Ends: Rewrite {
    /// See [`translate`]. 0, or a failure.
    fn translate(packet: &Packet, flow: *mut Flow<Self::Address>, l4: u32, l3_direction: u32, ttl: u8)
    -> i64;
    /// Translates the remote's end too. 0 once it is done.
    fn other_end(packet: &Packet, index: u32, direction: u8) -> i64;
    /// Gives the packet the external end of the flow at `index`, and leaves its TTL. 0, or a failure.
    fn externalise(packet: &Packet, index: u32) -> i64;
}

impl Ends for V4 {
    #[inline(always)]
    fn translate(packet: &Packet, flow: *mut Flow<Ipv4>, l4: u32, l3_direction: u32, ttl: u8) -> i64 {
        translate4(packet.skb(), flow, l4, l3_direction, u32::from(ttl))
    }
    #[inline(always)]
    fn other_end(packet: &Packet, index: u32, direction: u8) -> i64 {
        other_end4(packet.skb(), index, u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn externalise(packet: &Packet, index: u32) -> i64 {
        externalise4(packet.skb(), index, packet.l3 as u32)
    }
}

impl Ends for V6 {
    #[inline(always)]
    fn translate(packet: &Packet, flow: *mut Flow<Ipv6>, l4: u32, l3_direction: u32, ttl: u8) -> i64 {
        translate6(packet.skb(), flow, l4, l3_direction, u32::from(ttl))
    }
    #[inline(always)]
    fn other_end(packet: &Packet, index: u32, direction: u8) -> i64 {
        other_end6(packet.skb(), index, u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn externalise(packet: &Packet, index: u32) -> i64 {
        externalise6(packet.skb(), index, packet.l3 as u32)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate4(
    skb: *mut __sk_buff,
    flow: *mut Flow<Ipv4>,
    l4: u32,
    l3_direction: u32,
    ttl: u32,
) -> i64 {
    i64::from(translate_ends::<V4>(skb, flow, l4 as usize, l3_direction, ttl as u8).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate6(
    skb: *mut __sk_buff,
    flow: *mut Flow<Ipv6>,
    l4: u32,
    l3_direction: u32,
    ttl: u32,
) -> i64 {
    i64::from(translate_ends::<V6>(skb, flow, l4 as usize, l3_direction, ttl as u8).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn other_end4(skb: *mut __sk_buff, index: u32, direction: u32, l3: u32) -> i64 {
    i64::from(translate_other_end::<V4>(skb, index, direction as u8, l3).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn other_end6(skb: *mut __sk_buff, index: u32, direction: u32, l3: u32) -> i64 {
    i64::from(translate_other_end::<V6>(skb, index, direction as u8, l3).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn externalise4(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    i64::from(externalise_one::<V4>(skb, index, l3).is_err())
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn externalise6(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    i64::from(externalise_one::<V6>(skb, index, l3).is_err())
}

#[inline(always)]
pub fn to_external<A: Address>(flow: &Flow<A>, ttl: u8) -> Translation<A> {
    Translation {
        end: End::Source,
        from: flow.local,
        to: flow.external,
        from_port: flow.local_port,
        to_port: flow.external_port,
        ttl,
    }
}

#[inline(always)]
pub fn to_local<A: Address>(flow: &Flow<A>, ttl: u8) -> Translation<A> {
    Translation {
        end: End::Destination,
        from: flow.external,
        to: flow.local,
        from_port: flow.external_port,
        to_port: flow.local_port,
        ttl,
    }
}

/// Gives a packet of the flow in this direction its other end there, in its transport header too if that stands at `l4`, and a TTL.
#[inline(always)]
pub fn translate<F: Ends>(
    packet: &Packet,
    flow: *mut Flow<F::Address>,
    direction: u8,
    l4: Option<usize>,
    ttl: u8,
) -> Result<(), DropReason> {
    // Where the IP header begins and the direction go in one argument: a global function has five at most.
    let l3_direction = (packet.l3 as u32) << 8 | u32::from(direction);
    let failed = F::translate(packet, flow, l4.unwrap_or(0) as u32, l3_direction, ttl);
    if failed == 0 { Ok(()) } else { Err(DropReason::Rewrite) }
}

#[inline(always)]
fn translate_ends<F: Rewrite>(
    skb: *mut __sk_buff,
    flow: *mut Flow<F::Address>,
    l4: usize,
    l3_direction: u32,
    ttl: u8,
) -> Result<(), DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3_direction >> 8);
    if flow.is_null() {
        return Err(DropReason::Rewrite);
    }
    // SAFETY: `flow` points into an array map.
    let flow = unsafe { &*flow };
    let translation =
        if l3_direction as u8 == OUTBOUND { to_external(flow, ttl) } else { to_local(flow, ttl) };
    if l4 != 0 {
        rewrite::transport_fast::<F>(packet, l4, flow.protocol, &translation)?;
    }
    rewrite::ip::<F>(packet, &translation)
}

/// Translates the remote's end of a packet, in the few flows whose container knows the remote by another name.
#[inline(always)]
pub fn other_end<F: Ends>(packet: &Packet, flow: &Flow<F::Address>, direction: u8) -> Result<(), DropReason> {
    if flow.flags & TWICE == 0 || F::other_end(packet, flow.index, direction) == 0 {
        Ok(())
    } else {
        Err(DropReason::Rewrite)
    }
}

#[inline(always)]
fn translate_other_end<F: Rewrite>(
    skb: *mut __sk_buff,
    index: u32,
    direction: u8,
    l3: u32,
) -> Result<(), DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let ip = F::parse(packet)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::Rewrite)?;
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    let mut translation = if direction == INBOUND {
        Translation {
            end: End::Source,
            from: flow.remote,
            to: flow.seen,
            from_port: flow.remote_port,
            to_port: flow.seen_port,
            ttl: ip.ttl,
        }
    } else {
        Translation {
            end: End::Destination,
            from: flow.seen,
            to: flow.remote,
            from_port: flow.seen_port,
            to_port: flow.remote_port,
            ttl: ip.ttl,
        }
    };
    if ip.protocol != flow.protocol {
        // An ICMP error has no ports; those that it quotes are translated.
        translation.to_port = translation.from_port;
    }
    if !ip.fragment.later {
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, &translation)?;
    }
    rewrite::ip::<F>(packet, &translation)
}

#[inline(always)]
fn externalise_one<F: Rewrite>(skb: *mut __sk_buff, index: u32, l3: u32) -> Result<(), DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let ip = F::parse(packet)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::Rewrite)?;
    // SAFETY: the flow points into an array map.
    let translation = to_external(unsafe { &*found.flow }, ip.ttl);
    if !ip.fragment.later {
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, &translation)?;
    }
    rewrite::ip::<F>(packet, &translation)
}
