//! Published and bound ports from within: a container that reaches another one, or itself, by a port of the host.
//!
//! The flow is one that was accepted, and the client its remote. On a network of its own the client is known by its own address;
//! on the server's network by the gateway's, or else the server would answer past the gateway.
//!
//! So it is with ports that are bound and open to all, but for the client whose own port is bound: it is known by that one,
//! as to everybody (RFC 4787 section 6).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    drop::DropReason,
    endpoint::VIA_BRIDGE,
    nat::PEER,
    stats::Path,
    tuple::{INBOUND, OUTBOUND, Tuple},
};

use crate::{
    conntrack::{self, Found},
    family::{Family, V4, V6},
    fib, filtering, frag,
    icmp::{self, Quoted, Reporter},
    maps::{ENDPOINTS, NETWORKS},
    nat,
    open::Opened,
    packet::Packet,
    parse::{
        icmp::Kind,
        l4::{self, L4Kind},
    },
    publish::{self, Publish},
    redirect, rewrite, stats, translation,
    verdict::{Outcome, Verdict},
};

/// The subprograms of this file, by family: global functions, see [`open::Open`].
pub trait Hairpin: Quoted + Publish {
    /// Takes a container's packet of the flow `flow` to whom it is for. The verdict's number, or a failure.
    fn turn(packet: &Packet, flow: i64) -> i64;
    /// Translates what the ICMP error at `l4` quotes. The flow of that, as of a packet that goes the error's way, or [`NOT_OURS`],
    /// or a failure.
    fn quoted_within(packet: &Packet, l4: usize) -> i64;
    /// The flow of a container's packet, if it is one of a published port's, and beside it [`ANSWER`] for one, and [`MORE`] for a
    /// first fragment, which leaves its note; or [`FIRST`], or [`ERROR`] and where its header is, or [`NOT_OURS`], or a failure.
    fn flow_within(packet: &Packet) -> i64;
    /// Hands the client an answer, whose other end is translated already. The verdict's number, or a failure.
    fn answer(packet: &Packet, index: u32) -> i64;
}

impl Hairpin for V4 {
    #[inline(always)]
    fn turn(packet: &Packet, flow: i64) -> i64 {
        hairpin4(packet.skb(), flow as u64)
    }
    #[inline(always)]
    fn quoted_within(packet: &Packet, l4: usize) -> i64 {
        hairpin_quoted4(packet.skb(), l4 as u32)
    }
    #[inline(always)]
    fn flow_within(packet: &Packet) -> i64 {
        hairpin_flow4(packet.skb())
    }
    #[inline(always)]
    fn answer(packet: &Packet, index: u32) -> i64 {
        hairpin_answer4(packet.skb(), index)
    }
}

impl Hairpin for V6 {
    #[inline(always)]
    fn turn(packet: &Packet, flow: i64) -> i64 {
        hairpin6(packet.skb(), flow as u64)
    }
    #[inline(always)]
    fn quoted_within(packet: &Packet, l4: usize) -> i64 {
        hairpin_quoted6(packet.skb(), l4 as u32)
    }
    #[inline(always)]
    fn flow_within(packet: &Packet) -> i64 {
        hairpin_flow6(packet.skb())
    }
    #[inline(always)]
    fn answer(packet: &Packet, index: u32) -> i64 {
        hairpin_answer6(packet.skb(), index)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin4(skb: *mut __sk_buff, flow: u64) -> i64 {
    turn::<V4>(skb, flow as i64)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin6(skb: *mut __sk_buff, flow: u64) -> i64 {
    turn::<V6>(skb, flow as i64)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_quoted4(skb: *mut __sk_buff, l4: u32) -> i64 {
    quoted_within::<V4>(skb, l4 as usize).unwrap_or_else(failure)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_quoted6(skb: *mut __sk_buff, l4: u32) -> i64 {
    quoted_within::<V6>(skb, l4 as usize).unwrap_or_else(failure)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_flow4(skb: *mut __sk_buff) -> i64 {
    flow_within::<V4>(skb)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_flow6(skb: *mut __sk_buff) -> i64 {
    flow_within::<V6>(skb)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_answer4(skb: *mut __sk_buff, index: u32) -> i64 {
    match answer::<V4>(skb, index) {
        Ok(verdict) => verdict.number(),
        Err(reason) => failure(reason),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hairpin_answer6(skb: *mut __sk_buff, index: u32) -> i64 {
    match answer::<V6>(skb, index) {
        Ok(verdict) => verdict.number(),
        Err(reason) => failure(reason),
    }
}

// One register back from a subprogram. Verdicts are small, and one is -1.
const FAILED: i64 = -0x1000;
/// No flow of a published port, and none to be.
const NOT_OURS: i64 = i64::MIN;
/// Whoever sends it may be one who comes to a published port.
const FIRST: i64 = i64::MIN + 1;
/// Beside a flow's index: an answer.
const ANSWER: i64 = 1 << 32;
/// Beside a flow's index: other fragments follow.
const MORE: i64 = 1 << 33;
/// Beside where the header of an ICMP error is; more than any flow's code.
const ERROR: i64 = 1 << 34;

#[inline(always)]
fn failure(reason: DropReason) -> i64 {
    FAILED - i64::from(reason as u32)
}

/// Takes a container's packet to whom it is for, if it is one of a published port's flows.
#[inline(always)]
pub fn forward<F: Hairpin>(packet: &Packet, slot: u32) -> Option<Outcome> {
    let mut code = F::flow_within(packet);
    // Here and not there, for a call less on the programs' short stack.
    if code == FIRST {
        code = match publish::open::<F>(packet, slot) {
            Opened::Flow(index) => {
                i64::from(index) | if F::note_first(packet, index) != 0 { MORE } else { 0 }
            }
            Opened::Stack => return None,
            Opened::Drop(reason) => return Some(Err(reason)),
        };
    }
    finish::<F>(packet, code)
}

/// The same for an ICMP error, which begins no flow.
#[inline(always)]
pub fn forward_error<F: Hairpin>(packet: &Packet) -> Option<Outcome> {
    finish::<F>(packet, F::flow_within(packet))
}

#[inline(always)]
fn finish<F: Hairpin>(packet: &Packet, mut code: i64) -> Option<Outcome> {
    if code >= ERROR {
        code = F::quoted_within(packet, usize::from(code as u16));
    }
    if code >= 0 {
        if code & MORE != 0 && frag::replay::<F>(packet, OUTBOUND) {
            return Some(Ok(Verdict::CONSUMED));
        }
        code = F::turn(packet, code);
    }
    match code {
        NOT_OURS | FIRST => None,
        code if code <= FAILED => Some(Err(DropReason::of((FAILED - code) as u32))),
        verdict => Some(Ok(Verdict::redirected(verdict))),
    }
}

/// Whether a flow's remote is a container of this host, that came by a port of the host's.
#[inline(always)]
pub fn is_within<F: Family>(found: &Found<F::Address>) -> bool {
    // SAFETY: the flow points into an array map.
    unsafe { (*found.flow).flags & PEER != 0 && (*found.flow).external != (*found.flow).local }
}

#[inline(always)]
fn turn<F: Hairpin>(skb: *mut __sk_buff, flow: i64) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let index = flow as u32;
    if flow & ANSWER == 0 {
        return match nat::restore_first::<F>(packet, index) {
            Ok(verdict) => verdict.number(),
            Err(reason) => failure(reason),
        };
    }
    let Some(found) = conntrack::at::<F>(index).filter(filtering::answer::<F>) else {
        return failure(DropReason::NoBackend);
    };
    // SAFETY: the flow points into an array map.
    match translation::other_end::<F>(packet, unsafe { &*found.flow }, OUTBOUND) {
        Ok(()) => F::answer(packet, index),
        Err(reason) => failure(reason),
    }
}

#[inline(always)]
fn quoted_within<F: Hairpin>(skb: *mut __sk_buff, l4: usize) -> Result<i64, DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let (mut direction, mut index) = (OUTBOUND, F::quoted_flow(packet, l4, Reporter::Container));
    if index < 0 {
        (direction, index) = (INBOUND, F::quoted_flow(packet, l4, Reporter::Client));
    }
    if index < 0 {
        return Ok(NOT_OURS);
    }
    let Some(found) = conntrack::at::<F>(index as u32).filter(is_within::<F>) else { return Ok(NOT_OURS) };
    // SAFETY: the flow points into an array map.
    icmp::quoted::<F>(packet, l4, unsafe { &*found.flow }, direction)?;
    Ok(if direction == OUTBOUND { index | ANSWER } else { index })
}

#[inline(always)]
fn flow_within<F: Hairpin>(skb: *mut __sk_buff) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let Ok(ip) = F::parse(packet) else { return NOT_OURS };
    if ip.options {
        return NOT_OURS;
    }
    if ip.fragment.later {
        return refreshed::<F>(
            match frag::find::<F>(&ip, OUTBOUND) {
                Some(found) if is_within::<F>(&found) => i64::from(found.index) | ANSWER,
                _ => match frag::find::<F>(&ip, INBOUND) {
                    Some(found) if is_within::<F>(&found) => i64::from(found.index),
                    _ => NOT_OURS,
                },
            },
            0,
        );
    }
    let Ok(l4) = l4::parse(packet, &ip, F::L4, F::ICMP) else { return NOT_OURS };
    match l4.kind {
        L4Kind::Ports => {}
        L4Kind::Icmp(Kind::Error) => return ERROR | i64::from(ip.l4 as u16),
        _ => return NOT_OURS,
    }
    let (source, destination) = (l4.ports.source, l4.ports.destination);
    let mut key = Tuple::outbound(ip.source, ip.destination, source, destination, ip.protocol);
    let mut code = NOT_OURS;
    if let Some(found) = conntrack::find::<F>(&key)
        && is_within::<F>(&found)
    {
        code = i64::from(found.index) | ANSWER;
    } else {
        key.direction = INBOUND;
        if let Some(found) = conntrack::find::<F>(&key)
            && is_within::<F>(&found)
        {
            code = i64::from(found.index);
        } else if l4.is_first(ip.protocol) {
            code = FIRST;
        }
    }
    if code >= 0 && ip.fragment.more {
        frag::note::<F>(&ip, if code & ANSWER != 0 { OUTBOUND } else { INBOUND }, code as u32);
        code |= MORE;
    }
    refreshed::<F>(code, l4.flags)
}

/// The same, or a failure if the flow that was found has been ended meanwhile.
#[inline(always)]
fn refreshed<F: Family>(code: i64, tcp: u8) -> i64 {
    if code < 0 {
        return code;
    }
    let (Some(globals), Some(found)) = (fib::globals(), conntrack::at::<F>(code as u32)) else {
        return failure(DropReason::NoBackend);
    };
    let direction = if code & ANSWER != 0 { OUTBOUND } else { INBOUND };
    if conntrack::refresh::<F>(found.flow, direction, tcp, globals) {
        code
    } else {
        failure(DropReason::NoBackend)
    }
}

/// The client is the last hop: a TTL that ends there has still arrived, and must not become 0.
#[inline(always)]
fn answer<F: Hairpin>(skb: *mut __sk_buff, index: u32) -> Outcome {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let ip = F::parse(packet)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::NoBackend)?;
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    conntrack::tally(found.flow, OUTBOUND, packet.len());
    if !ip.fragment.later && ip.protocol == flow.protocol {
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, &translation::to_external(flow, 0))?;
    }
    let endpoint = ENDPOINTS.get(flow.peer).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    if endpoint.port.0 == 0 || endpoint.flags & VIA_BRIDGE != 0 {
        return Err(DropReason::UnknownEndpoint);
    }
    rewrite::ip::<F>(packet, &translation::to_external(flow, nat::last_ttl(ip.ttl)))?;
    rewrite::frame::<F>(packet, network.mac, endpoint.mac)?;
    stats::took(Path::Hairpinned);
    Ok(redirect::into(packet, flow.peer, endpoint))
}
