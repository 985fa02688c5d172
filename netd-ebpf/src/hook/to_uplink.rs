//! What leaves by an uplink: tcx egress. The catch-all: what went by the host's stack is translated over the same table,
//! and nothing leaves with a container's address.

use aya_ebpf::programs::TcContext;
use netd_common::{
    addr::{Be16, IfIndex},
    drop::DropReason,
    fib::Uplink,
    frag::BY_STACK,
    nat::HOST,
    tuple::{OUTBOUND, Tuple, protocol},
};

use crate::{
    arp, conntrack,
    external::{self, From, Translate},
    family::{Family, V4, V6},
    fib,
    filtering::{self, Filter},
    frag,
    icmp::{self, Sender},
    maps::{NETWORKS, UPLINKS},
    nat, nd,
    open::{self, FIT, Opened, Request, unfit, unless_reset},
    own_error,
    packet::{BARE, Packet},
    parse::{
        Ip, eth,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    redirect::{self, REPLAYED, TRANSLATED},
    verdict::{Outcome, Verdict},
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    let packet = Packet::of(ctx);
    if packet.take_mark(TRANSLATED) {
        return Ok(Verdict::NEXT);
    }
    let packet = Packet::new(ctx);
    let Ok(frame) = eth::parse(&packet) else { return Ok(Verdict::NEXT) };
    if frame.ethertype == eth::ARP {
        return asked(&packet);
    }
    depart(&packet, frame.ethertype)
}

/// On a link without a header of its own.
#[inline(always)]
pub fn run_bare(ctx: &TcContext) -> Outcome {
    if Packet::of(ctx).take_mark(TRANSLATED) {
        return Ok(Verdict::NEXT);
    }
    let packet = Packet::bare(ctx);
    depart(&packet, packet.ethertype())
}

#[inline(always)]
fn depart(packet: &Packet, ethertype: Be16) -> Outcome {
    match ethertype {
        eth::IPV4 => leave::<V4>(packet),
        eth::IPV6 => leave::<V6>(packet),
        _ => Ok(Verdict::NEXT),
    }
}

/// The host itself asks who has an address: an external one is here, and nobody outside would say so.
#[inline(always)]
fn asked(packet: &Packet) -> Outcome {
    let uplink = IfIndex(packet.ifindex());
    // SAFETY: the value is copied at once.
    let Some(mac) = (unsafe { UPLINKS.get(uplink) }).map(|uplink| uplink.mac) else {
        return Ok(Verdict::NEXT);
    };
    Ok(if arp::answer(packet, mac)? { redirect::in_by(packet, uplink) } else { Verdict::NEXT })
}

#[inline(always)]
fn leave<F: Translate + Filter>(packet: &Packet) -> Outcome {
    let Ok(ip) = &F::parse(packet) else { return Ok(Verdict::NEXT) };
    if F::AF == V6::AF
        && packet.l3 != BARE
        && ip.protocol == F::ICMP
        && ip.ttl == nd::HOP_LIMIT
        && nd::answer(packet)?
    {
        return Ok(redirect::in_by(packet, IfIndex(packet.ifindex())));
    }
    let comes_back = external::is_external::<F>(ip.destination);
    let verdict = match F::network_of(ip.source) {
        Some(network) => container::<F>(packet, ip, network)?,
        None => {
            // SAFETY: a shared reference to a map value that only the daemon replaces.
            let uplink = unsafe { UPLINKS.get(IfIndex(packet.ifindex())) };
            if has_left(packet, uplink) {
                return Ok(Verdict::NEXT);
            }
            if !comes_back {
                return host::<F>(packet, ip, uplink);
            }
            within::<F>(packet, ip)?
        }
    };
    if !comes_back {
        return Ok(verdict);
    }
    let l4 = if ip.fragment.later { None } else { Some(l4::parse(packet, ip, F::L4, F::ICMP)?) };
    external::enter::<F>(packet, external::error(ip, l4.as_ref()), From::Stack)
}

/// Whether it has left the host already, by an interface above this one: a VLAN's, or one with a MAC of its own, such as a macvlan. It
/// was translated there, if that was called for.
#[inline(always)]
fn has_left(packet: &Packet, uplink: Option<&Uplink>) -> bool {
    let is_anothers = |uplink: &Uplink| eth::parse(packet).is_ok_and(|frame| frame.source != uplink.mac);
    packet.is_tagged() || packet.l3 != BARE && uplink.is_some_and(is_anothers)
}

/// From an address of a network: a container's, or the bridge's own.
#[inline(always)]
fn container<F: Translate + Filter>(packet: &Packet, ip: &Ip<F::Address>, network: u32) -> Outcome {
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    let entry = NETWORKS.get(network).ok_or(DropReason::UnknownEndpoint)?;
    // Asked where it matters, for the verifier would follow either answer through all that comes after.
    let masquerade = || F::is_masqueraded(network, entry, ip.destination);
    if ip.fragment.later {
        return match frag::find::<F>(ip, OUTBOUND) {
            Some(found) if conntrack::refresh::<F>(found.flow, OUTBOUND, 0, globals) => {
                packet.take_mark(REPLAYED);
                nat::masquerade_from_stack::<F>(packet, found.flow)
            }
            _ if F::internal(ip.source).is_some() => one_to_one::<F>(packet, None),
            _ if masquerade() => frag::hold::<F>(packet, BY_STACK).outcome(),
            _ => Ok(Verdict::NEXT),
        };
    }
    let l4 = l4::parse(packet, ip, F::L4, F::ICMP)?;
    if l4.kind == L4Kind::Icmp(Kind::Error)
        && let Some(outcome) = icmp::error_out::<F>(packet, ip, Sender::Stack, |_| Ok(Verdict::NEXT))
    {
        return outcome;
    }
    let endpoint = F::slot_of(ip.source).unwrap_or(HOST);
    let mut request = request::<F>(packet, ip, &l4, endpoint, network, unfit(l4.kind));
    let index = match conntrack::find::<F>(&request.tuple) {
        Some(found)
            if l4.kind.may_belong()
                && conntrack::refresh::<F>(found.flow, OUTBOUND, l4.flags, globals)
                && filtering::answer::<F>(&found) =>
        {
            found.index
        }
        _ if F::internal(ip.source).is_some() => {
            return one_to_one::<F>(packet, external::error(ip, Some(&l4)));
        }
        _ => {
            request.unfit = unless_reset(request.unfit, l4.flags);
            match open::open::<F>(packet, &request) {
                Opened::Flow(index) => index,
                Opened::Stack if masquerade() => return Err(DropReason::Protocol),
                Opened::Stack => return Ok(Verdict::NEXT),
                Opened::Drop(reason) => return Err(reason),
            }
        }
    };
    let found = conntrack::at::<F>(index).ok_or(DropReason::FlowTableFull)?;
    if ip.fragment.more {
        frag::note::<F>(ip, OUTBOUND, index);
        // What is sent again comes by here at once, and sends nothing again.
        if !packet.take_mark(REPLAYED) && frag::replay::<F>(packet, BY_STACK) {
            return Ok(Verdict::CONSUMED);
        }
    }
    nat::masquerade_from_stack::<F>(packet, found.flow)
}

/// From a container with an external address, by the stack.
#[inline(always)]
fn one_to_one<F: Translate>(packet: &Packet, error: Option<usize>) -> Outcome {
    external::leave::<F>(packet, error, From::Stack)?;
    Ok(Verdict::NEXT)
}

/// From the host itself to an external address of its containers: a flow tells the answer from what the container sends unasked,
/// which the host sees under its own address.
#[inline(always)]
fn within<F: Translate + Filter>(packet: &Packet, ip: &Ip<F::Address>) -> Outcome {
    if ip.fragment.later {
        let found = frag::find::<F>(ip, OUTBOUND).ok_or(DropReason::Fragment)?;
        return nat::masquerade_from_stack::<F>(packet, found.flow);
    }
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    let l4 = l4::parse(packet, ip, F::L4, F::ICMP)?;
    match l4.kind {
        L4Kind::Ports | L4Kind::Icmp(Kind::EchoRequest) => {}
        L4Kind::Icmp(_) => return Ok(Verdict::NEXT),
        L4Kind::Other => return Err(DropReason::Protocol),
    }
    let request = request::<F>(packet, ip, &l4, HOST, 0, FIT);
    let index = match conntrack::find::<F>(&request.tuple) {
        Some(found) if conntrack::refresh::<F>(found.flow, OUTBOUND, l4.flags, globals) => found.index,
        _ => match open::open_for_host::<F>(packet, &request) {
            Opened::Flow(index) => index,
            Opened::Stack => return Ok(Verdict::NEXT),
            Opened::Drop(reason) => return Err(reason),
        },
    };
    let found = conntrack::at::<F>(index).ok_or(DropReason::FlowTableFull)?;
    if ip.fragment.more {
        frag::note::<F>(ip, OUTBOUND, index);
    }
    nat::masquerade_from_stack::<F>(packet, found.flow)
}

/// From the host itself. Its own port range is disjoint from masquerade's, so only two kinds can meet a container's flow:
/// sockets that were bound to a port by hand, and echo requests.
#[inline(always)]
fn host<F: Translate + Filter>(packet: &Packet, ip: &Ip<F::Address>, uplink: Option<&Uplink>) -> Outcome {
    if ip.fragment.later || F::is_unroutable(ip.destination) {
        return Ok(Verdict::NEXT);
    }
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    let Ok(l4) = l4::parse(packet, ip, F::L4, F::ICMP) else { return Ok(Verdict::NEXT) };
    if l4.kind == L4Kind::Icmp(Kind::Error) {
        return own_error::untranslate::<F>(packet, ip).map(|()| Verdict::NEXT);
    }
    let is_echo = l4.kind == L4Kind::Icmp(Kind::EchoRequest);
    // A network may have been given an address of the host's, and then keeps its ports.
    let is_other = uplink.is_some_and(|uplink| F::uplink(uplink) != ip.source);
    let is_bound = matches!(ip.protocol, protocol::TCP | protocol::UDP)
        && (is_other || globals.ports.keeps(l4.ports.source.get()));
    if !is_echo && !is_bound {
        return Ok(Verdict::NEXT);
    }
    let request = request::<F>(packet, ip, &l4, HOST, 0, FIT);
    let index = match conntrack::find::<F>(&request.tuple) {
        Some(found) => found.index,
        // A connection that the host accepted came to a listener, whose port is never taken.
        None if !l4.is_first(ip.protocol) => return Ok(Verdict::NEXT),
        None => {
            let (source, destination) = (ip.destination, ip.source);
            let key = Tuple::inbound(source, destination, l4.ports.destination, l4.ports.source, ip.protocol);
            if !is_echo && conntrack::find::<F>(&key).is_none() {
                return Ok(Verdict::NEXT);
            }
            match open::open_for_host::<F>(packet, &request) {
                Opened::Flow(index) => index,
                Opened::Stack => return Ok(Verdict::NEXT),
                Opened::Drop(reason) => return Err(reason),
            }
        }
    };
    let found = conntrack::at::<F>(index).ok_or(DropReason::FlowTableFull)?;
    if ip.fragment.more {
        frag::note::<F>(ip, OUTBOUND, index);
    }
    nat::masquerade_from_stack::<F>(packet, found.flow)
}

#[inline(always)]
fn request<F: Family>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: &L4,
    endpoint: u32,
    network: u32,
    unfit: u32,
) -> Request<F::Address> {
    Request {
        tuple: Tuple::outbound(ip.source, ip.destination, l4.ports.source, l4.ports.destination, ip.protocol),
        endpoint,
        network,
        unfit,
        uplink: IfIndex(packet.ifindex()),
    }
}
