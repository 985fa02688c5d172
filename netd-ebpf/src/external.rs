//! 1:1 translation of containers' addresses: stateless, whatever the packet carries.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::Address,
    drop::DropReason,
    endpoint::{Endpoint, NO_GATEWAY, VIA_BRIDGE},
    external::External,
    fib::NextHop,
    stats::Path,
    tuple::{INBOUND, Tuple},
};

use crate::{
    conntrack,
    family::{Family, V4, V6},
    frag, guard,
    icmp::{self, Quoted},
    maps::{ENDPOINTS, NETWORKS},
    packet::Packet,
    parse::{
        Ip,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    redirect,
    rewrite::{self, End, Translation},
    stats,
    verdict::Outcome,
};

/// Where a packet comes from that is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A wire, the outside's or a container's: this is a hop for it.
    Wire,
    /// The other half of a translation: the hop is taken already.
    Within,
    /// The host's stack, which has routed it already.
    Stack,
}

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
///
/// Small ones: they stand on the frames of whole programs, and all have 512 bytes together.
pub trait Translate: Quoted {
    /// Tells a checksum over the address at `end` of what it will be. 0, or a failure.
    fn payload(packet: &Packet, end: End) -> i64;
    /// Gives the packet its external source. 0, or a failure.
    fn leave(packet: &Packet, is_routed: bool) -> i64;
    /// Gives the packet the destination that its external one stands for. The endpoint's slot, or a failure.
    fn enter(packet: &Packet, is_routed: bool) -> i64;
    /// Does to the packet that an ICMP error at `l4` is about what `leave` or `enter` will do to the error. 0, or a failure.
    fn quoted(packet: &Packet, l4: usize, end: End) -> i64;
    /// The flow that the packet answers, of somebody within the host who asked by the sender's external address; negative if
    /// there is none.
    fn answers(packet: &Packet) -> i64;
    /// The same for a later fragment.
    fn fragment_answers(packet: &Packet) -> i64;
    /// The later fragments of this one's datagram answer the flow at `index`.
    fn note_answer(packet: &Packet, index: u32) -> i64;
}

impl Translate for V4 {
    #[inline(always)]
    fn payload(packet: &Packet, end: End) -> i64 {
        external_payload4(packet.skb(), u32::from(end == End::Source), packet.l3 as u32)
    }
    #[inline(always)]
    fn leave(packet: &Packet, is_routed: bool) -> i64 {
        external_leave4(packet.skb(), u32::from(is_routed), packet.l3 as u32)
    }
    #[inline(always)]
    fn enter(packet: &Packet, is_routed: bool) -> i64 {
        external_enter4(packet.skb(), u32::from(is_routed), packet.l3 as u32)
    }
    #[inline(always)]
    fn quoted(packet: &Packet, l4: usize, end: End) -> i64 {
        external_quoted4(packet.skb(), l4 as u32, u32::from(end == End::Source), packet.l3 as u32)
    }
    #[inline(always)]
    fn answers(packet: &Packet) -> i64 {
        external_answers4(packet.skb())
    }
    #[inline(always)]
    fn fragment_answers(packet: &Packet) -> i64 {
        external_fragment_answers4(packet.skb())
    }
    #[inline(always)]
    fn note_answer(packet: &Packet, index: u32) -> i64 {
        external_note_answer4(packet.skb(), index)
    }
}

impl Translate for V6 {
    #[inline(always)]
    fn payload(packet: &Packet, end: End) -> i64 {
        external_payload6(packet.skb(), u32::from(end == End::Source), packet.l3 as u32)
    }
    #[inline(always)]
    fn leave(packet: &Packet, is_routed: bool) -> i64 {
        external_leave6(packet.skb(), u32::from(is_routed), packet.l3 as u32)
    }
    #[inline(always)]
    fn enter(packet: &Packet, is_routed: bool) -> i64 {
        external_enter6(packet.skb(), u32::from(is_routed), packet.l3 as u32)
    }
    #[inline(always)]
    fn quoted(packet: &Packet, l4: usize, end: End) -> i64 {
        external_quoted6(packet.skb(), l4 as u32, u32::from(end == End::Source), packet.l3 as u32)
    }
    #[inline(always)]
    fn answers(packet: &Packet) -> i64 {
        external_answers6(packet.skb())
    }
    #[inline(always)]
    fn fragment_answers(packet: &Packet) -> i64 {
        external_fragment_answers6(packet.skb())
    }
    #[inline(always)]
    fn note_answer(packet: &Packet, index: u32) -> i64 {
        external_note_answer6(packet.skb(), index)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_payload4(skb: *mut __sk_buff, source: u32, l3: u32) -> i64 {
    payload_one::<V4>(skb, if source != 0 { End::Source } else { End::Destination }, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_leave4(skb: *mut __sk_buff, is_routed: u32, l3: u32) -> i64 {
    leave_one::<V4>(skb, is_routed != 0, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_enter4(skb: *mut __sk_buff, is_routed: u32, l3: u32) -> i64 {
    enter_one::<V4>(skb, is_routed != 0, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_quoted4(skb: *mut __sk_buff, l4: u32, source: u32, l3: u32) -> i64 {
    translate_quoted::<V4>(skb, l4, if source != 0 { End::Source } else { End::Destination }, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_answers4(skb: *mut __sk_buff) -> i64 {
    answered_flow::<V4>(skb).map_or(-1, i64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_fragment_answers4(skb: *mut __sk_buff) -> i64 {
    let answered = known_outside::<V4>(skb).and_then(|ip| frag::find::<V4>(&ip, INBOUND));
    answered.map_or(-1, |found| i64::from(found.index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_note_answer4(skb: *mut __sk_buff, index: u32) -> i64 {
    known_outside::<V4>(skb).map_or(-1, |ip| {
        frag::note::<V4>(&ip, INBOUND, index);
        0
    })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_payload6(skb: *mut __sk_buff, source: u32, l3: u32) -> i64 {
    payload_one::<V6>(skb, if source != 0 { End::Source } else { End::Destination }, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_leave6(skb: *mut __sk_buff, is_routed: u32, l3: u32) -> i64 {
    leave_one::<V6>(skb, is_routed != 0, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_enter6(skb: *mut __sk_buff, is_routed: u32, l3: u32) -> i64 {
    enter_one::<V6>(skb, is_routed != 0, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_quoted6(skb: *mut __sk_buff, l4: u32, source: u32, l3: u32) -> i64 {
    translate_quoted::<V6>(skb, l4, if source != 0 { End::Source } else { End::Destination }, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_answers6(skb: *mut __sk_buff) -> i64 {
    answered_flow::<V6>(skb).map_or(-1, i64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_fragment_answers6(skb: *mut __sk_buff) -> i64 {
    let answered = known_outside::<V6>(skb).and_then(|ip| frag::find::<V6>(&ip, INBOUND));
    answered.map_or(-1, |found| i64::from(found.index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn external_note_answer6(skb: *mut __sk_buff, index: u32) -> i64 {
    known_outside::<V6>(skb).map_or(-1, |ip| {
        frag::note::<V6>(&ip, INBOUND, index);
        0
    })
}

// One register back from a subprogram: below zero the reason, counted from here.
const FAILED: i64 = -1;

#[inline(always)]
fn code(done: Result<u32, DropReason>) -> i64 {
    match done {
        Ok(value) => i64::from(value),
        Err(reason) => FAILED - i64::from(reason as u32),
    }
}

#[inline(always)]
fn reason(code: i64) -> DropReason {
    DropReason::of((FAILED - code) as u32)
}

/// Whether the address is one that the outside knows a container or a network by.
#[inline(always)]
pub fn is_external<F: Family>(address: F::Address) -> bool {
    // The row is looked into, or else the compiler would compute with the pointer itself, which the verifier forbids.
    F::external(address).is_some_and(|row: &External<F::Address>| row.length != 0)
}

/// The endpoint that an external address stands for.
#[inline(always)]
pub fn endpoint_of<F: Family>(external: F::Address) -> Option<u32> {
    let internal = F::external(external)?.inward(external)?;
    F::slot_of(internal)
}

/// Gives the packet its external source. `error`: where the header of an ICMP error is, if it is one.
#[inline(always)]
pub fn leave<F: Translate>(packet: &Packet, error: Option<usize>, from: From) -> Result<(), DropReason> {
    if let Some(l4) = error {
        // Who sends an error has received what it is about.
        succeed(F::quoted(packet, l4, End::Destination))?;
    }
    succeed(F::payload(packet, End::Source))?;
    succeed(F::leave(packet, from != From::Wire)).map(drop)
}

/// Puts a packet that is sent to an external address into its container.
#[inline(always)]
pub fn enter<F: Translate>(packet: &Packet, error: Option<usize>, from: From) -> Outcome {
    if let Some(l4) = error {
        succeed(F::quoted(packet, l4, End::Source))?;
    }
    succeed(F::payload(packet, End::Destination))?;
    let slot = succeed(F::enter(packet, from != From::Wire))?;
    let endpoint = ENDPOINTS.get(slot).ok_or(DropReason::UnknownEndpoint)?;
    if from != From::Stack {
        return Ok(redirect::into(packet, slot, endpoint));
    }
    if endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) == 0 {
        // Not to a neighbour: what waits for one is looked up again by the route that it had before it was translated.
        return Ok(redirect::down(endpoint));
    }
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    let address = F::endpoint(endpoint).words();
    Ok(redirect::out(
        packet,
        &NextHop { uplink: network.bridge, family: F::AF, address, ..NextHop::default() },
    ))
}

/// Where the header of an ICMP error is, if the packet is one.
#[inline(always)]
pub fn error<A>(ip: &Ip<A>, l4: Option<&L4>) -> Option<usize> {
    if l4.is_some_and(|l4| l4.kind == L4Kind::Icmp(Kind::Error)) { Some(ip.l4) } else { None }
}

#[inline(always)]
fn succeed(code: i64) -> Result<u32, DropReason> {
    if code < 0 { Err(reason(code)) } else { Ok(code as u32) }
}

/// What the outside sees of an address.
#[inline(always)]
pub fn outward<F: Family>(internal: F::Address) -> Result<F::Address, DropReason> {
    F::internal(internal).and_then(|it| it.outward(internal)).ok_or(DropReason::NoExternalAddress)
}

/// What an external address stands for.
#[inline(always)]
fn inward<F: Family>(external: F::Address) -> Result<F::Address, DropReason> {
    F::external(external).and_then(|it| it.inward(external)).ok_or(DropReason::UnknownEndpoint)
}

#[inline(always)]
fn payload_one<F: Quoted>(skb: *mut __sk_buff, end: End, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let done = F::parse(packet).and_then(|ip| {
        if ip.fragment.later {
            return Ok(());
        }
        let (from, to) = match end {
            End::Source => (ip.source, outward::<F>(ip.source)?),
            End::Destination => (ip.destination, inward::<F>(ip.destination)?),
        };
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, &translation(end, from, to, ip.ttl))
    });
    code(done.map(|()| 0))
}

#[inline(always)]
fn leave_one<F: Quoted>(skb: *mut __sk_buff, is_routed: bool, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let done = F::parse(packet).and_then(|ip| {
        let to = outward::<F>(ip.source)?;
        let ttl = if is_routed { ip.ttl } else { ip.ttl.wrapping_sub(1) };
        rewrite::ip::<F>(packet, &translation(End::Source, ip.source, to, ttl))?;
        stats::took(Path::ExternalOut);
        Ok(0)
    });
    code(done)
}

#[inline(always)]
fn enter_one<F: Quoted>(skb: *mut __sk_buff, is_routed: bool, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let done = F::parse(packet).and_then(|ip| {
        if !is_routed {
            guard::outsider::<F>(ip.source)?;
            // A router on the link may report an error under its link-local address; all else could not be answered.
            if F::is_unroutable(ip.source) && ip.protocol != F::ICMP {
                return Err(DropReason::SpoofedAddress);
            }
        }
        let to = inward::<F>(ip.destination)?;
        let slot = F::slot_of(to).ok_or(DropReason::UnknownEndpoint)?;
        let endpoint: &Endpoint = ENDPOINTS.get(slot).ok_or(DropReason::UnknownEndpoint)?;
        let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
        if endpoint.port.0 == 0 {
            return Err(DropReason::UnknownEndpoint);
        }
        // The stack routes it to the bridge, as any other packet.
        let by_stack = endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0;
        // Else the container is the last hop: a TTL that ends here has still arrived, and must not become 0.
        let ttl = if by_stack || is_routed || ip.ttl <= 1 { ip.ttl } else { ip.ttl - 1 };
        rewrite::ip::<F>(packet, &translation(End::Destination, ip.destination, to, ttl))?;
        if !by_stack {
            rewrite::frame::<F>(packet, network.mac, endpoint.mac)?;
        }
        stats::took(Path::ExternalIn);
        Ok(slot)
    });
    code(done)
}

#[inline(always)]
fn translation<A: Address>(end: End, from: A, to: A, ttl: u8) -> Translation<A> {
    Translation { end, from, to, from_port: Default::default(), to_port: Default::default(), ttl }
}

#[inline(always)]
fn translate_quoted<F: Quoted>(skb: *mut __sk_buff, l4: u32, end: End, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let done = rewrite::ends::<F>(packet).and_then(|[source, destination]| {
        let (from, to) = match end {
            End::Destination => (source, outward::<F>(source)?),
            End::Source => (destination, inward::<F>(destination)?),
        };
        icmp::quoted_address::<F>(packet, l4 as usize, end, from, to)
    });
    code(done.map(|()| 0))
}

/// The packet as it is known outside.
#[inline(always)]
fn known_outside<F: Family>(skb: *mut __sk_buff) -> Option<Ip<F::Address>> {
    let context = TcContext::new(skb);
    let mut ip = F::parse(&Packet::of(&context)).ok()?;
    ip.source = outward::<F>(ip.source).ok()?;
    Some(ip)
}

#[inline(always)]
fn answered_flow<F: Family>(skb: *mut __sk_buff) -> Option<u32> {
    let ip = known_outside::<F>(skb)?;
    let context = TcContext::new(skb);
    let l4 = l4::parse(&Packet::of(&context), &ip, F::L4, F::ICMP).ok()?;
    if !matches!(l4.kind, L4Kind::Ports | L4Kind::Icmp(Kind::EchoReply)) {
        return None;
    }
    let (from, to) = (l4.ports.source, l4.ports.destination);
    let key = Tuple::inbound(ip.source, ip.destination, from, to, ip.protocol);
    Some(conntrack::find::<F>(&key)?.index)
}
