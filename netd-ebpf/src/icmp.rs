//! ICMP errors about translated packets: the packet that they quote is translated with them (RFC 5508 section 4).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Be16, IfIndex, Ipv4, Ipv6},
    csum,
    drop::DropReason,
    nat::{Flow, TWICE},
    stats::Path,
    tuple::protocol,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    conntrack,
    family::{Family, V4, V6},
    fib,
    frag::Fragments,
    nat::{self, Twice},
    open::{self, Open},
    packet::Packet,
    parse::{
        Ip, icmp, ip4, ip6,
        l4::{self, Ports},
    },
    redirect,
    rewrite::{self, End},
    stats,
    verdict::{Outcome, Verdict},
};

/// Bytes of an ICMP error before the packet that it quotes.
const ICMP_HEADER: usize = 8;

/// The packet that an error quotes.
#[derive(Clone, Copy)]
pub struct Quote<A> {
    source: A,
    destination: A,
    protocol: u8,
    ports: Ports,
    /// Where the quoted IP header begins.
    l3: usize,
    /// Where the quoted transport header begins.
    l4: usize,
}

/// Families whose quoted header can be read and changed.
pub trait Quoted: Open + Fragments + Twice {
    /// Translates an error from the outside. Its flow's index, [`NOT_OURS`], or a failure.
    fn translate_in(packet: &Packet) -> i64;
    /// Translates an error from a container. As `translate_in`, or [`STALE`].
    fn translate_out(packet: &Packet, from_stack: bool) -> i64;
    fn quote(packet: &Packet, at: usize) -> Result<Option<Quote<Self::Address>>, DropReason>;
    /// Writes `to` over one end of the quoted header. Returns what the ICMP checksum's data gained.
    fn rewrite(
        packet: &Packet,
        quote: &Quote<Self::Address>,
        end: End,
        to: Self::Address,
    ) -> Result<u32, DropReason>;
}

impl Quoted for V4 {
    #[inline(always)]
    fn translate_in(packet: &Packet) -> i64 {
        icmp_in4(packet.skb(), packet.l3 as u32)
    }
    #[inline(always)]
    fn translate_out(packet: &Packet, from_stack: bool) -> i64 {
        icmp_out4(packet.skb(), u32::from(from_stack), packet.l3 as u32)
    }
    #[inline(always)]
    fn quote(packet: &Packet, at: usize) -> Result<Option<Quote<Ipv4>>, DropReason> {
        let header: ip4::Header = packet.load(at)?;
        let length = usize::from(header.version_ihl & 0x0f) * 4;
        if header.version_ihl >> 4 != 4 || length < Ipv4Hdr::LEN {
            return Err(DropReason::Malformed);
        }
        // RFC 5508 REQ-3a: a quoted header that is broken is not to be believed.
        if length == Ipv4Hdr::LEN && !is_intact(&header) {
            return Err(DropReason::Malformed);
        }
        if header.fragment.get() & 0x1fff != 0 {
            return Ok(None); // A later fragment quotes no ports.
        }
        let l4 = at + length;
        quote_of::<V4>(packet, header.source, header.destination, header.protocol, at, l4).map(Some)
    }

    #[inline(always)]
    fn rewrite(packet: &Packet, quote: &Quote<Ipv4>, end: End, to: Ipv4) -> Result<u32, DropReason> {
        let mut header: ip4::Header = packet.load(quote.l3)?;
        let before = (header.checksum, if end == End::Source { header.source } else { header.destination });
        header.checksum = csum::apply(header.checksum, csum::delta(before.1.0, to.0));
        match end {
            End::Source => header.source = to,
            End::Destination => header.destination = to,
        }
        rewrite::store(packet, quote.l3, &header)?;
        let checksum = csum::delta(u32::from(before.0), u32::from(header.checksum));
        Ok(csum::add(checksum, csum::delta(before.1.0, to.0)))
    }
}

impl Quoted for V6 {
    #[inline(always)]
    fn translate_in(packet: &Packet) -> i64 {
        icmp_in6(packet.skb(), packet.l3 as u32)
    }
    #[inline(always)]
    fn translate_out(packet: &Packet, from_stack: bool) -> i64 {
        icmp_out6(packet.skb(), u32::from(from_stack), packet.l3 as u32)
    }
    #[inline(always)]
    fn quote(packet: &Packet, at: usize) -> Result<Option<Quote<Ipv6>>, DropReason> {
        let header: ip6::Header = packet.load(at)?;
        if header.version_class >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let l4 = at + Ipv6Hdr::LEN;
        quote_of::<V6>(packet, header.source, header.destination, header.next_header, at, l4).map(Some)
    }

    #[inline(always)]
    fn rewrite(packet: &Packet, quote: &Quote<Ipv6>, end: End, to: Ipv6) -> Result<u32, DropReason> {
        let (offset, from) = if end == End::Source { (8, quote.source) } else { (24, quote.destination) };
        rewrite::store(packet, quote.l3 + offset, &to)?;
        Ok(csum::delta(csum::sum(from), csum::sum(to)))
    }
}

#[inline(always)]
fn is_intact(header: &ip4::Header) -> bool {
    // SAFETY: twenty bytes of plain numbers, 4-byte aligned, seen as words.
    let words = unsafe { &*(&raw const *header).cast::<[u32; 5]>() };
    csum::fold(words.iter().fold(0, |sum, word| csum::add(sum, *word))) == 0xffff
}

#[inline(always)]
fn quote_of<F: Family>(
    packet: &Packet,
    source: F::Address,
    destination: F::Address,
    protocol: u8,
    l3: usize,
    transport: usize,
) -> Result<Quote<F::Address>, DropReason> {
    let ports = if protocol == F::ICMP {
        let kind = icmp::kind(protocol, packet.load(transport)?);
        l4::echo_ports(kind, packet.load(transport + 4)?)
    } else {
        packet.load(transport)?
    };
    Ok(Quote { source, destination, protocol, ports, l3, l4: transport })
}

/// Translates one end of the quoted packet, and the ICMP checksum with it.
#[inline(always)]
fn translate<F: Quoted>(
    packet: &Packet,
    icmp: usize,
    quote: &Quote<F::Address>,
    end: End,
    to: F::Address,
    to_port: Be16,
) -> Result<(), DropReason> {
    let (from, from_port) = match end {
        End::Source => (quote.source, quote.ports.source),
        End::Destination => (quote.destination, quote.ports.destination),
    };
    let mut gained = F::rewrite(packet, quote, end, to)?;
    if from_port != to_port {
        let offset = rewrite::port_offset(quote.protocol, end);
        rewrite::store(packet, quote.l4 + offset, &to_port)?;
        gained = csum::add(gained, csum::delta(u32::from(from_port.0), u32::from(to_port.0)));
    }
    // The quoted transport checksum is there if enough of the packet was quoted (RFC 5508 REQ-3c: mended, not judged).
    if let Some(field) = rewrite::checksum_offset(quote.protocol)
        && let Ok(checksum) = packet.load::<u16>(quote.l4 + field)
        && !(quote.protocol == protocol::UDP && checksum == 0)
    {
        let mut delta = csum::delta(u32::from(from_port.0), u32::from(to_port.0));
        if quote.protocol != protocol::ICMP {
            delta = csum::add(delta, csum::delta(csum::sum(from), csum::sum(to)));
        }
        let mended = csum::apply(checksum, delta);
        rewrite::store(packet, quote.l4 + field, &mended)?;
        gained = csum::add(gained, csum::delta(u32::from(checksum), u32::from(mended)));
    }
    rewrite::icmp_checksum(packet, icmp, gained, false)
}

// One register back from a subprogram.
const NOT_OURS: i64 = -1;
const FAILED: i64 = -2;
/// Beside the flow's index: nothing is done yet, for the flow's route has to be looked up again first.
const STALE: i64 = 1 << 32;

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_in4(skb: *mut __sk_buff, l3: u32) -> i64 {
    translate_in::<V4>(skb, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_in6(skb: *mut __sk_buff, l3: u32) -> i64 {
    translate_in::<V6>(skb, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_out4(skb: *mut __sk_buff, from_stack: u32, l3: u32) -> i64 {
    translate_out::<V4>(skb, from_stack != 0, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_out6(skb: *mut __sk_buff, from_stack: u32, l3: u32) -> i64 {
    translate_out::<V6>(skb, from_stack != 0, l3)
}

/// An error from the outside about a packet that a container sent.
#[inline(always)]
pub fn error_in<F: Quoted>(packet: &Packet, ip: &Ip<F::Address>) -> Option<Outcome> {
    match F::translate_in(packet) {
        NOT_OURS => None,
        index @ 0.. => Some(match conntrack::at::<F>(index as u32) {
            Some(found) => {
                stats::took(Path::IcmpErrorIn);
                // SAFETY: the flow points into an array map.
                nat::deliver::<F>(packet, ip, unsafe { &*found.flow })
            }
            None => Err(DropReason::IcmpUnrelated),
        }),
        code => Some(Err(reason(code))),
    }
}

#[inline(always)]
fn translate_in<F: Quoted>(skb: *mut __sk_buff, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let Ok(ip) = F::parse(packet) else { return NOT_OURS };
    let quote = match F::quote(packet, ip.l4 + ICMP_HEADER) {
        Ok(Some(quote)) if quote.source == ip.destination => quote,
        Ok(_) => return NOT_OURS,
        Err(_) => return NOT_OURS, // Not ours to judge: the stack drops what is broken.
    };
    let Ports { source, destination } = quote.ports;
    let key = open::inbound(quote.destination, quote.source, destination, source, quote.protocol);
    let Some(found) = conntrack::find::<F>(&key) else { return NOT_OURS };
    // SAFETY: the flow points into an array map.
    let flow: &Flow<F::Address> = unsafe { &*found.flow };
    let done = translate::<F>(packet, ip.l4, &quote, End::Source, flow.local, flow.local_port)
        .and_then(|()| match flow.flags & TWICE {
            0 => Ok(()),
            _ => translate::<F>(packet, ip.l4, &quote, End::Destination, flow.seen, flow.seen_port),
        })
        .and_then(|()| outer_address::<F>(packet, ip.l4, flow.external, flow.local));
    answer(found.index, done)
}

/// Tells an ICMPv6 checksum of the outer address, which is in its pseudo header (RFC 4443 section 2.3); ICMP has none.
#[inline(always)]
fn outer_address<F: Family>(
    packet: &Packet,
    l4: usize,
    from: F::Address,
    to: F::Address,
) -> Result<(), DropReason> {
    if F::AF != V6::AF {
        return Ok(());
    }
    rewrite::icmp_checksum(packet, l4, csum::delta(csum::sum(from), csum::sum(to)), true)
}

#[inline(always)]
fn answer(index: u32, done: Result<(), DropReason>) -> i64 {
    match done {
        Ok(()) => i64::from(index),
        Err(reason) => FAILED - i64::from(reason as u32),
    }
}

/// Who hands an error out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A container behind this bridge.
    Behind(IfIndex),
    /// The stack, which has routed it and will send it.
    Stack,
}

/// An error from a container about a packet that came from the outside. The state is neither refreshed nor changed
/// (RFC 7857 section 7.1).
#[inline(always)]
pub fn error_out<F: Quoted>(packet: &Packet, ip: &Ip<F::Address>, from: Sender) -> Option<Outcome> {
    let from_stack = from == Sender::Stack;
    let mut translated = F::translate_out(packet, from_stack);
    if let Sender::Behind(bridge) = from
        && translated >= STALE
    {
        if F::reroute(packet, translated as u32, bridge) < 0 {
            return Some(Err(DropReason::NoUplink));
        }
        translated = F::translate_out(packet, from_stack);
    }
    match translated {
        NOT_OURS => None,
        // The routes change faster than they are looked up.
        STALE.. => Some(Err(DropReason::NoUplink)),
        index @ 0.. => Some(match conntrack::at::<F>(index as u32) {
            Some(found) => {
                // SAFETY: the flow points into an array map.
                let flow = unsafe { &*found.flow };
                stats::took(Path::IcmpErrorOut);
                let ttl = if from_stack { ip.ttl } else { ip.ttl - 1 };
                let sent = rewrite::ip::<F>(packet, &nat::to_external(flow, ttl));
                sent.map(|()| if from_stack { Verdict::NEXT } else { redirect::out(packet, &flow.next_hop) })
            }
            None => Err(DropReason::IcmpUnrelated),
        }),
        code => Some(Err(reason(code))),
    }
}

#[inline(always)]
fn translate_out<F: Quoted>(skb: *mut __sk_buff, from_stack: bool, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let Ok(ip) = F::parse(packet) else { return NOT_OURS };
    let quote = match F::quote(packet, ip.l4 + ICMP_HEADER) {
        Ok(Some(quote)) if quote.source == ip.destination && quote.destination == ip.source => quote,
        _ => return NOT_OURS,
    };
    let Ports { source, destination } = quote.ports;
    let key = open::outbound(quote.destination, quote.source, destination, source, quote.protocol);
    let Some(found) = conntrack::find::<F>(&key) else { return NOT_OURS };
    // SAFETY: the flow points into an array map.
    let flow: &Flow<F::Address> = unsafe { &*found.flow };
    if !from_stack && fib::globals().is_none_or(|globals| globals.fib_generation != flow.next_hop.generation)
    {
        return STALE | i64::from(found.index);
    }
    let done = translate::<F>(packet, ip.l4, &quote, End::Destination, flow.external, flow.external_port)
        .and_then(|()| match flow.flags & TWICE {
            0 => Ok(()),
            _ => translate::<F>(packet, ip.l4, &quote, End::Source, flow.remote, flow.remote_port),
        })
        .and_then(|()| outer_address::<F>(packet, ip.l4, flow.local, flow.external));
    answer(found.index, done)
}

#[inline(always)]
fn reason(code: i64) -> DropReason {
    DropReason::of((FAILED - code) as u32)
}
