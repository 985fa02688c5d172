//! ICMP errors of the host's own. What they are about may have been translated before the stack had it, where the stack forwards
//! for the container; but the remote knows the packet as it was sent.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{drop::DropReason, nat::TWICE, stats::Path, tuple::OUTBOUND};

use crate::{
    conntrack,
    family::{V4, V6},
    icmp::{self, ICMP_HEADER, NOT_OURS, Quoted},
    packet::Packet,
    parse::Ip,
    rewrite::End,
    stats,
};

/// Gives the packet that the error quotes back the ends that it came with, if it was translated.
#[inline(always)]
pub fn untranslate<F: Quoted>(packet: &Packet, ip: &Ip<F::Address>) -> Result<(), DropReason> {
    match F::untranslate_quoted(packet, ip.l4) {
        NOT_OURS => Ok(()),
        code => icmp::succeed(code).inspect(|()| stats::took(Path::IcmpErrorOut)),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn own_error4(skb: *mut __sk_buff, l4: u32) -> i64 {
    quoted::<V4>(skb, l4 as usize).map_or(NOT_OURS, icmp::code)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn own_error6(skb: *mut __sk_buff, l4: u32) -> i64 {
    quoted::<V6>(skb, l4 as usize).map_or(NOT_OURS, icmp::code)
}

/// By the flow that the packet belongs to, or else by the external address of its receiver.
#[inline(always)]
fn quoted<F: Quoted>(skb: *mut __sk_buff, l4: usize) -> Option<Result<(), DropReason>> {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let quote = F::quote(packet, l4 + ICMP_HEADER).ok()?;
    let found = if quote.is_later { None } else { conntrack::find::<F>(&icmp::answer_to(&quote, OUTBOUND)) };
    let Some(found) = found else {
        let to = F::internal(quote.destination)?.outward(quote.destination)?;
        return Some(icmp::translate::<F>(packet, l4, &quote, End::Destination, to, quote.ports.destination));
    };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    let (address, port) = (flow.external, flow.external_port);
    let receiver = icmp::translate::<F>(packet, l4, &quote, End::Destination, address, port);
    if receiver.is_err() || flow.flags & TWICE == 0 {
        return Some(receiver);
    }
    Some(icmp::translate::<F>(packet, l4, &quote, End::Source, flow.remote, flow.remote_port))
}
