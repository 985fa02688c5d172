//! ICMP errors about translated packets: the packet that they quote is translated with them (RFC 5508 section 4).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Address, Be16, IfIndex, Ipv4, Ipv6},
    csum,
    drop::DropReason,
    nat::{Flow, TWICE},
    stats::Path,
    tuple::{INBOUND, OUTBOUND, Tuple, protocol},
};
use network_types::ip::Ipv4Hdr;

use crate::{
    conntrack,
    family::{Family, V4, V6},
    fib,
    frag::Fragments,
    guard,
    nat::{self, Restore},
    open::Open,
    own_error::{own_error4, own_error6},
    packet::Packet,
    parse::{
        Ip, icmp, ip4, ip6,
        l4::{self, Ports},
    },
    rewrite::{self, End},
    stats, translation,
    verdict::Outcome,
};

/// Bytes of an ICMP error before the packet that it quotes.
pub const ICMP_HEADER: usize = 8;

/// The packet that an error quotes.
#[derive(Clone, Copy)]
pub struct Quote<A> {
    source: A,
    pub destination: A,
    protocol: u8,
    pub ports: Ports,
    /// A later fragment: there are no ports, nor a transport header at all.
    pub is_later: bool,
    /// Where the quoted IP header begins.
    l3: usize,
    /// Where the quoted transport header begins.
    l4: usize,
}

/// Families whose quoted header can be read and changed.
pub trait Quoted: Open + Fragments + Restore {
    /// The flow of the packet that the error at `l4` quotes; [`NOT_OURS`] if there is none.
    fn quoted_flow(packet: &Packet, l4: usize, reporter: Reporter) -> i64;
    /// Translates one end of that packet: the flow's own, or the remote's. 0, or a failure.
    fn translate_quoted(packet: &Packet, l4: usize, index: u32, direction: u8, is_remote: bool) -> i64;
    /// See [`crate::own_error`].
    fn untranslate_quoted(packet: &Packet, l4: usize) -> i64;
    fn quote(packet: &Packet, at: usize) -> Result<Quote<Self::Address>, DropReason>;
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
    fn quoted_flow(packet: &Packet, l4: usize, reporter: Reporter) -> i64 {
        icmp_flow4(packet.skb(), l4 as u32, reporter as u32, packet.l3 as u32)
    }
    #[inline(always)]
    fn translate_quoted(packet: &Packet, l4: usize, index: u32, direction: u8, is_remote: bool) -> i64 {
        icmp_quoted4(packet.skb(), l4 as u32, index, u32::from(direction), u32::from(is_remote))
    }
    #[inline(always)]
    fn untranslate_quoted(packet: &Packet, l4: usize) -> i64 {
        own_error4(packet.skb(), l4 as u32)
    }
    #[inline(always)]
    fn quote(packet: &Packet, at: usize) -> Result<Quote<Ipv4>, DropReason> {
        let header: ip4::Header = packet.load(at)?;
        let length = usize::from(header.version_ihl & 0x0f) * 4;
        if header.version_ihl >> 4 != 4 || length < Ipv4Hdr::LEN {
            return Err(DropReason::Malformed);
        }
        // RFC 5508 REQ-3a: a quoted header that is broken is not to be believed.
        if length == Ipv4Hdr::LEN && !header.is_intact() {
            return Err(DropReason::Malformed);
        }
        let is_later = header.fragment.get() & 0x1fff != 0;
        let ends = [header.source, header.destination];
        quote_of::<V4>(packet, ends, header.protocol, is_later, at, at + length)
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
    fn quoted_flow(packet: &Packet, l4: usize, reporter: Reporter) -> i64 {
        icmp_flow6(packet.skb(), l4 as u32, reporter as u32, packet.l3 as u32)
    }
    #[inline(always)]
    fn translate_quoted(packet: &Packet, l4: usize, index: u32, direction: u8, is_remote: bool) -> i64 {
        icmp_quoted6(packet.skb(), l4 as u32, index, u32::from(direction), u32::from(is_remote))
    }
    #[inline(always)]
    fn untranslate_quoted(packet: &Packet, l4: usize) -> i64 {
        own_error6(packet.skb(), l4 as u32)
    }
    #[inline(always)]
    fn quote(packet: &Packet, at: usize) -> Result<Quote<Ipv6>, DropReason> {
        let (protocol, l4, is_later) = ip6::quoted_transport(packet, at)?;
        let ends = packet.load(at + ip6::ADDRESSES)?;
        quote_of::<V6>(packet, ends, protocol, is_later, at, l4)
    }

    #[inline(always)]
    fn rewrite(packet: &Packet, quote: &Quote<Ipv6>, end: End, to: Ipv6) -> Result<u32, DropReason> {
        let (offset, from) = if end == End::Source { (8, quote.source) } else { (24, quote.destination) };
        rewrite::store(packet, quote.l3 + offset, &to)?;
        Ok(csum::delta(csum::sum(from), csum::sum(to)))
    }
}

#[inline(always)]
fn quote_of<F: Family>(
    packet: &Packet,
    [source, destination]: [F::Address; 2],
    protocol: u8,
    is_later: bool,
    l3: usize,
    transport: usize,
) -> Result<Quote<F::Address>, DropReason> {
    let ports = if is_later {
        l4::NO_PORTS
    } else if protocol == F::ICMP {
        let kind = icmp::kind(protocol, packet.load(transport)?);
        l4::echo_ports(kind, packet.load(transport + 4)?)
    } else {
        packet.load(transport)?
    };
    Ok(Quote { source, destination, protocol, ports, is_later, l3, l4: transport })
}

/// Translates one end of the quoted packet, and the ICMP checksum with it.
#[inline(always)]
pub fn translate<F: Quoted>(
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
    if !quote.is_later
        && let Some(field) = rewrite::checksum_offset(quote.protocol)
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

/// Translates one end of the packet that the error at `l4` quotes, if it is `from`: by an address alone, without a flow.
#[inline(always)]
pub fn quoted_address<F: Quoted>(
    packet: &Packet,
    l4: usize,
    end: End,
    from: F::Address,
    to: F::Address,
) -> Result<(), DropReason> {
    let quote = F::quote(packet, l4 + ICMP_HEADER)?;
    let (address, port) = match end {
        End::Source => (quote.source, quote.ports.source),
        End::Destination => (quote.destination, quote.ports.destination),
    };
    if address == from { translate::<F>(packet, l4, &quote, end, to, port) } else { Ok(()) }
}

/// Who reports an error about a packet that he got, or should have forwarded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// Somebody outside.
    Outside,
    /// The flow's container.
    Container,
    /// A container that the flow knows by its external address.
    External,
    /// The container that opened the flow, which came to a published port.
    Client,
}

// One register back from a subprogram.
pub const NOT_OURS: i64 = -1;
const FAILED: i64 = -2;

/// What [`succeed`] reads.
#[inline(always)]
pub fn code(done: Result<(), DropReason>) -> i64 {
    match done {
        Ok(()) => 0,
        Err(reason) => FAILED - i64::from(reason as u32),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_flow4(skb: *mut __sk_buff, l4: u32, reporter: u32, l3: u32) -> i64 {
    find_quoted::<V4>(skb, l4 as usize, reporter, l3).map_or(NOT_OURS, i64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_flow6(skb: *mut __sk_buff, l4: u32, reporter: u32, l3: u32) -> i64 {
    find_quoted::<V6>(skb, l4 as usize, reporter, l3).map_or(NOT_OURS, i64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_quoted4(
    skb: *mut __sk_buff,
    l4: u32,
    index: u32,
    direction: u32,
    is_remote: u32,
) -> i64 {
    code(translate_one::<V4>(skb, l4 as usize, index, direction as u8, is_remote != 0))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp_quoted6(
    skb: *mut __sk_buff,
    l4: u32,
    index: u32,
    direction: u32,
    is_remote: u32,
) -> i64 {
    code(translate_one::<V6>(skb, l4 as usize, index, direction as u8, is_remote != 0))
}

/// What is broken is not ours to judge: the stack drops it.
#[inline(always)]
fn find_quoted<F: Quoted>(skb: *mut __sk_buff, l4: usize, reporter: u32, l3: u32) -> Option<u32> {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    let quote = F::quote(packet, l4 + ICMP_HEADER).ok()?;
    let [sender, receiver] = rewrite::ends::<F>(packet).ok()?;
    let is_outside = reporter == Reporter::Outside as u32;
    if quote.is_later || quote.source != receiver || !(is_outside || quote.destination == sender) {
        return None;
    }
    let mut key = answer_to(&quote, if reporter == Reporter::Container as u32 { OUTBOUND } else { INBOUND });
    if reporter == Reporter::External as u32 {
        key.source = F::internal(key.source)?.outward(key.source)?;
    }
    Some(conntrack::find::<F>(&key)?.index)
}

/// What would answer the quoted packet.
#[inline(always)]
pub fn answer_to<A: Address>(quote: &Quote<A>, direction: u8) -> Tuple<A> {
    Tuple {
        source: quote.destination,
        destination: quote.source,
        source_port: quote.ports.destination,
        destination_port: quote.ports.source,
        protocol: quote.protocol,
        direction,
        pad: [0; 2],
    }
}

#[inline(always)]
fn translate_one<F: Quoted>(
    skb: *mut __sk_buff,
    l4: usize,
    index: u32,
    direction: u8,
    is_remote: bool,
) -> Result<(), DropReason> {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let quote = F::quote(packet, l4 + ICMP_HEADER)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::IcmpUnrelated)?;
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    // Who sent the quoted packet is whom the error is for.
    let (end, to, port) = match (direction, is_remote) {
        (INBOUND, false) => (End::Source, &flow.local, flow.local_port),
        (INBOUND, true) => (End::Destination, &flow.seen, flow.seen_port),
        (_, false) => (End::Destination, &flow.external, flow.external_port),
        (_, true) => (End::Source, &flow.remote, flow.remote_port),
    };
    translate::<F>(packet, l4, &quote, end, *to, port)?;
    match (direction, is_remote) {
        (_, true) => Ok(()),
        (INBOUND, _) => outer_address::<F>(packet, l4, flow.external, flow.local),
        _ => outer_address::<F>(packet, l4, flow.local, flow.external),
    }
}

/// Translates what the error at `l4` quotes as a packet of its flow that goes the other way.
#[inline(always)]
pub fn quoted<F: Quoted>(
    packet: &Packet,
    l4: usize,
    flow: &Flow<F::Address>,
    direction: u8,
) -> Result<(), DropReason> {
    succeed(F::translate_quoted(packet, l4, flow.index, direction, false))?;
    // In the few flows whose container knows the remote by another name.
    if flow.flags & TWICE == 0 {
        return Ok(());
    }
    succeed(F::translate_quoted(packet, l4, flow.index, direction, true))
}

#[inline(always)]
pub fn succeed(code: i64) -> Result<(), DropReason> {
    if code == 0 { Ok(()) } else { Err(DropReason::of((FAILED - code) as u32)) }
}

/// An error from the outside about a packet that a container sent.
#[inline(always)]
pub fn error_in<F: Quoted>(packet: &Packet, ip: &Ip<F::Address>) -> Option<Outcome> {
    let index = F::quoted_flow(packet, ip.l4, Reporter::Outside);
    if index < 0 {
        return None;
    }
    if let Err(reason) = guard::reporter::<F>(ip.source) {
        return Some(Err(reason));
    }
    let Some(found) = conntrack::at::<F>(index as u32) else { return Some(Err(DropReason::IcmpUnrelated)) };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    stats::took(Path::IcmpErrorIn);
    Some(quoted::<F>(packet, ip.l4, flow, INBOUND).and_then(|()| {
        nat::deliver::<F>(packet, ip, flow, |ttl| rewrite::ip::<F>(packet, &translation::to_local(flow, ttl)))
    }))
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

/// Who hands an error out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A container behind this bridge.
    Behind(IfIndex),
    /// The stack, which has routed it and will send it.
    Stack,
}

/// An error from a container about a packet that came from the outside. The state is neither refreshed nor changed
/// (RFC 7857 section 7.1). `send` takes it to its next hop.
#[inline(always)]
pub fn error_out<F: Quoted>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    from: Sender,
    send: impl FnOnce(&Flow<F::Address>) -> Outcome,
) -> Option<Outcome> {
    let index = F::quoted_flow(packet, ip.l4, Reporter::Container);
    if index < 0 {
        return None;
    }
    let Some(found) = conntrack::at::<F>(index as u32) else { return Some(Err(DropReason::IcmpUnrelated)) };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    let is_fresh = fib::globals().is_some_and(|globals| globals.fib_generation == flow.next_hop.generation);
    if let Sender::Behind(bridge) = from
        && !is_fresh
        && F::reroute(packet, index as u32, bridge) < 0
    {
        return Some(Err(DropReason::NoUplink));
    }
    stats::took(Path::IcmpErrorOut);
    let ttl = if from == Sender::Stack { ip.ttl } else { ip.ttl - 1 };
    Some(
        quoted::<F>(packet, ip.l4, flow, OUTBOUND)
            .and_then(|()| rewrite::ip::<F>(packet, &translation::to_external(flow, ttl)))
            .and_then(|()| send(flow)),
    )
}
