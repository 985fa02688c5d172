//! What a container sends to its gateway's MAC: for the host, for another network, for the outside.

use netd_common::{
    addr::IfIndex,
    bridge::{INTERNAL, Network},
    conntrack::Silence,
    drop::DropReason,
    endpoint::{Endpoint, VIA_BRIDGE},
    globals::MULTIHOMED,
    nat::{Flow, PEER},
    stats::Path,
    tuple::{INBOUND, OUTBOUND, Tuple},
};

use crate::{
    conntrack,
    egress::{ENDED, FOUND},
    external::{self, From, Translate},
    family::Family,
    fib,
    filtering::{self, Filter},
    frag::{self, Fragments, Hold},
    hairpin::{self, Hairpin},
    icmp::{self, Reporter, Sender},
    maps::{UPLINKS, WAYS},
    nat,
    open::{self, BY_STACK, Opened, Request, unfit, unless_reset},
    packet::Packet,
    parse::{
        Ip,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    policy::{self, Policy},
    redirect,
    refuse::{self, Refuse},
    rewrite, stats,
    verdict::{Outcome, Verdict},
};

/// Who sends.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    pub slot: u32,
    pub endpoint: &'a Endpoint,
    pub network: &'a Network,
}

/// Asks the gateway to take a packet on.
#[inline(always)]
pub fn ask<F: Translate + Refuse + Policy + Hairpin + Filter>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    from: &Sending,
) -> Outcome {
    if ip.destination == F::gateway(from.network) {
        F::verify(packet)?;
        return hairpin::forward::<F>(packet, from.slot).unwrap_or_else(|| to_host::<F>(packet, ip));
    }
    let is_internal = from.network.flags & INTERNAL != 0;
    // The host itself is no hop on the way, nor is it when the port is a container's.
    if ip.ttl <= 1 && !is_internal && !F::is_local(ip.destination) {
        return stack(Path::StackTtl);
    }
    let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
    if ip.options || from.endpoint.flags & VIA_BRIDGE != 0 {
        // The stack sends it, if it may go where it wants to.
        if let Some(outcome) = by_stack::<F>(packet, ip, from) {
            return outcome;
        }
        return match open::judge::<F>(packet, &request::<F>(ip, None, BY_STACK, from)) {
            Opened::Drop(reason) => Err(reason),
            _ => stack(if ip.options { Path::StackOptions } else { Path::StackBridge }),
        };
    }
    let l4 = if ip.fragment.later { None } else { Some(l4::parse(packet, ip, F::L4, F::ICMP)?) };
    if let Some(l4) = &l4
        && l4.kind == L4Kind::Icmp(Kind::Error)
    {
        if let Some(outcome) = hairpin::forward_error::<F>(packet) {
            return outcome;
        }
        if let Some(outcome) = icmp::error_out::<F>(packet, ip, Sender::Behind(from.network.bridge), |flow| {
            send::<F>(packet, Some(ip.l4), flow)
        }) {
            return outcome;
        }
    }
    let fit = match &l4 {
        Some(l4) => unfit(l4.kind),
        None => DropReason::Fragment as u32,
    };
    let mut request = request::<F>(ip, l4.as_ref(), fit, from);
    let mut known = match &l4 {
        None => frag::find::<F>(ip, OUTBOUND),
        Some(l4) if l4.kind.may_belong() => conntrack::find::<F>(&request.tuple),
        Some(_) => None,
    };
    if let Some(found) = &known
        // SAFETY: the flow points into an array map.
        && unsafe { (*found.flow).next_hop.generation } != globals.fib_generation
    {
        match F::reroute(packet, found.index, from.network.bridge) {
            0.. => {}
            ENDED => known = None,
            refused => match Opened::decode(refused) {
                Opened::Drop(reason) => return Err(reason),
                _ => return to_host::<F>(packet, ip),
            },
        }
    }
    // In a flow that is known it is the receiver who drops what was not sent so: to look at each packet is a tenth of what one costs.
    if known.is_none() {
        F::verify(packet)?;
    }
    let is_within = known.as_ref().is_some_and(hairpin::is_within::<F>);
    if (is_within || known.is_none() && F::is_local(ip.destination))
        && let Some(outcome) = hairpin::forward::<F>(packet, from.slot)
    {
        return outcome;
    }
    let silence = known.as_ref().map_or(Silence::Short, |found| conntrack::silence(found.flow, globals));
    let flags = l4.as_ref().map_or(0, |l4| l4.flags);
    let found = match known {
        Some(found)
            if conntrack::refresh::<F>(found.flow, OUTBOUND, flags, globals)
                && filtering::answer::<F>(&found) =>
        {
            found
        }
        _ if F::slot_of(ip.destination).is_some()
            && let Some(outcome) = neighbour::<F>(packet, ip, from) =>
        {
            return outcome;
        }
        _ if from.endpoint.flags & F::EXTERNAL != 0 && F::internal(ip.source).is_some() => {
            return one_to_one::<F>(packet, ip, l4.as_ref(), &request);
        }
        _ => {
            request.unfit = unless_reset(request.unfit, flags);
            match open::open::<F>(packet, &request) {
                Opened::Flow(index) => conntrack::at::<F>(index).ok_or(DropReason::FlowTableFull)?,
                Opened::Stack => return to_host::<F>(packet, ip),
                Opened::Drop(DropReason::Fragment) => return frag::hold::<F>(packet, OUTBOUND).outcome(),
                Opened::Drop(reason) => return refuse::answer::<F>(packet, from.slot, ip.protocol, reason),
            }
        }
    };
    match silence {
        Silence::Short => {}
        Silence::Broken => conntrack::begin_anew(found.flow),
        Silence::Long if F::lacks_neighbour(packet, found.index, from.network.bridge) => {
            // Once: what follows makes the kernel ask the link again.
            conntrack::begin_anew(found.flow);
            return refuse::answer::<F>(packet, from.slot, ip.protocol, DropReason::NoNeighbour);
        }
        Silence::Long => {}
    }
    if ip.fragment.more && l4.is_some() {
        frag::note::<F>(ip, OUTBOUND, found.index);
        if frag::replay::<F>(packet, OUTBOUND) {
            return Ok(Verdict::CONSUMED);
        }
    }
    nat::masquerade::<F>(packet, ip, l4.as_ref(), found.flow, |flow| send::<F>(packet, None, flow))
}

/// Out by the uplink; or back in, to the container that opened the flow, or that is known by the external address.
#[inline(always)]
fn send<F: Translate>(packet: &Packet, error: Option<usize>, flow: &Flow<F::Address>) -> Outcome {
    let hop = &flow.next_hop;
    if let Some(station) = hop.mac() {
        // SAFETY: the value is copied at once.
        let own = unsafe { UPLINKS.get(hop.uplink) }.map(|uplink| uplink.mac).ok_or(DropReason::NoUplink)?;
        rewrite::frame::<F>(packet, own, station)?;
        return Ok(redirect::along(packet, hop.uplink));
    }
    if hop.uplink.0 != 0 {
        return Ok(redirect::out(packet, hop));
    }
    if flow.flags & PEER != 0 {
        return nat::to_peer::<F>(packet, flow);
    }
    external::enter::<F>(packet, error, From::Within)
}

/// From a container with an external address: no flow is needed, whatever the protocol.
#[inline(always)]
fn one_to_one<F: Translate + Refuse>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    request: &Request<F::Address>,
) -> Outcome {
    let error = external::error(ip, l4);
    let answered = match (error, l4) {
        (Some(l4), _) => F::quoted_flow(packet, l4, Reporter::External),
        (None, Some(_)) => F::answers(packet),
        (None, None) => F::fragment_answers(packet),
    };
    if answered >= 0 {
        if ip.fragment.more && l4.is_some() {
            F::note_answer(packet, answered as u32);
            if frag::replay::<F>(packet, OUTBOUND) {
                return Ok(Verdict::CONSUMED);
            }
        }
        // An error keeps no flow alive.
        if error.is_none() {
            let globals = fib::globals().ok_or(DropReason::UnknownEndpoint)?;
            let found = conntrack::at::<F>(answered as u32).ok_or(DropReason::UnknownEndpoint)?;
            let flags = l4.map_or(0, |l4| l4.flags);
            if !conntrack::refresh::<F>(found.flow, INBOUND, flags, globals) {
                return Err(DropReason::UnknownEndpoint);
            }
        }
        return answer::<F>(packet, error, answered as u32);
    }
    if external::is_external::<F>(ip.destination) {
        external::leave::<F>(packet, error, From::Wire)?;
        return external::enter::<F>(packet, error, From::Within);
    }
    match F::way_out(packet, request) {
        FOUND if fib::globals().is_some_and(|globals| globals.flags & MULTIHOMED != 0) => {
            F::keep_to_link(packet, request);
        }
        FOUND => {}
        refused => {
            return match Opened::decode(refused) {
                Opened::Drop(reason) => Err(reason),
                _ => to_host::<F>(packet, ip),
            };
        }
    }
    let hop = WAYS.get(0).ok_or(DropReason::NoUplink)?;
    if ip.options {
        return stack(Path::StackOptions);
    }
    if !nat::fits(packet, ip, l4, hop.mtu) {
        return stack(Path::StackMtu);
    }
    external::leave::<F>(packet, error, From::Wire)?;
    Ok(redirect::out(packet, hop))
}

/// To somebody within the host who asked by the sender's external address, and is answered by it.
#[inline(always)]
fn answer<F: Translate + Refuse>(packet: &Packet, error: Option<usize>, index: u32) -> Outcome {
    external::leave::<F>(packet, error, From::Within)?;
    let found = conntrack::at::<F>(index).ok_or(DropReason::UnknownEndpoint)?;
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    if let Some(l4) = error {
        icmp::quoted::<F>(packet, l4, flow, INBOUND)?;
    }
    if F::turn_back(packet, index) != 0 {
        return Err(DropReason::IcmpUnrelated);
    }
    nat::hand_over(packet, flow)
}

/// To a container of another network. `None` if it is none of another.
#[inline(always)]
fn neighbour<F: Translate + Policy>(packet: &Packet, ip: &Ip<F::Address>, from: &Sending) -> Option<Outcome> {
    let admitted = F::judge(packet, from.slot);
    if admitted >= 0 {
        return Some(nat::accepted::<F>(packet, policy::open::<F>(packet, admitted, from.slot), OUTBOUND));
    }
    match Opened::decode(admitted) {
        // Its first may be an answer, which is let through.
        Opened::Drop(DropReason::Isolated) if ip.fragment.later => {
            Some(frag::hold::<F>(packet, OUTBOUND).outcome())
        }
        Opened::Drop(reason) => Some(Err(reason)),
        _ => None,
    }
}

/// To a container of another network, as `neighbour`, if it is the stack that takes it there.
#[inline(always)]
fn by_stack<F: Policy>(packet: &Packet, ip: &Ip<F::Address>, from: &Sending) -> Option<Outcome> {
    F::slot_of(ip.destination)?;
    if F::answers(packet) >= 0 {
        return Some(stack(Path::StackBridge));
    }
    let admitted = F::judge(packet, from.slot);
    let opened = if admitted >= 0 {
        policy::open::<F>(packet, admitted, from.slot)
    } else {
        match Opened::decode(admitted) {
            Opened::Stack => return None,
            judged => judged,
        }
    };
    Some(match opened {
        Opened::Drop(reason) => Err(reason),
        _ => stack(Path::StackBridge),
    })
}

/// To the host's stack. A fragment that overtakes its first may be a published port's yet: a copy waits, and the stack forgets
/// its own if the first never comes there.
#[inline(always)]
fn to_host<F: Fragments>(packet: &Packet, ip: &Ip<F::Address>) -> Outcome {
    if ip.fragment.later && frag::hold::<F>(packet, OUTBOUND) == Hold::Replayed {
        return Ok(Verdict::CONSUMED);
    }
    stack(Path::StackHost)
}

#[inline(always)]
fn request<F: Family>(
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    unfit: u32,
    from: &Sending,
) -> Request<F::Address> {
    let (source, destination) =
        l4.map_or_else(Default::default, |l4| (l4.ports.source, l4.ports.destination));
    Request {
        tuple: Tuple::outbound(ip.source, ip.destination, source, destination, ip.protocol),
        endpoint: from.slot,
        network: from.endpoint.network,
        unfit,
        uplink: IfIndex(0),
    }
}

#[inline(always)]
fn stack(path: Path) -> Outcome {
    stats::took(path);
    Ok(Verdict::NEXT)
}
