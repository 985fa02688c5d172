//! What a container sends: tcx ingress of the host's end of its veth.

use aya_ebpf::programs::TcContext;
use netd_common::{
    addr::{Be16, IfIndex},
    bridge::{INTERNAL, Network},
    conntrack::{Silence, flags::RST},
    drop::DropReason,
    endpoint::{ANY_SOURCE, Endpoint, NO_GATEWAY, SENT_LIMITED, VIA_BRIDGE},
    globals::MULTIHOMED,
    nat::{Flow, PEER},
    stats::Path,
    tuple::{INBOUND, OUTBOUND},
};

use crate::{
    arp, bridge, conntrack,
    egress::{ENDED, FOUND},
    endpoint,
    external::{self, From, Translate},
    family::{Family, V4, V6},
    fib,
    filtering::{self, Filter},
    frag::{self, Fragments, Hold},
    guard,
    hairpin::{self, Hairpin},
    hook::from_uplink::accepted,
    icmp::{self, Reporter, Sender},
    maps::{NETWORKS, UPLINKS, WAYS},
    nat, nd,
    open::{self, BY_STACK, FIT, Opened, Request},
    packet::Packet,
    parse::{
        Ip, eth,
        icmp::Kind,
        l4::{self, L4, L4Kind},
    },
    policy::{self, Policy},
    rate,
    redirect::{self, REPLAYED},
    refuse::{self, Refuse},
    rewrite, stats,
    verdict::{Outcome, Verdict},
};

/// The sender.
#[derive(Clone, Copy)]
struct Sending<'a> {
    slot: u32,
    endpoint: &'a Endpoint,
    network: &'a Network,
}

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    let packet = Packet::new(ctx);
    let port = IfIndex(packet.ifindex());
    let (slot, endpoint) = endpoint::behind(port).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    let from = Sending { slot, endpoint, network };
    // A tag that leaves the frame where it would be without one (IEEE 802.1Q 6.9.1) hides nothing.
    if packet.is_tagged() && [0, endpoint.vlan].contains(&packet.vlan()) {
        rewrite::untag(&packet)?;
        return Ok(redirect::again(&packet));
    }
    if !packet.take_mark(REPLAYED) {
        if endpoint.flags & SENT_LIMITED != 0 {
            rate::pay(slot, packet.wire_len())?;
        }
        stats::sent(slot, packet.len());
    }

    let frame = eth::parse(&packet)?;
    let guarded = endpoint.flags & ANY_SOURCE == 0;
    if guarded {
        guard::frame(frame, endpoint)?;
    }
    if packet.is_tagged() {
        return bridge::tagged(network, frame.destination);
    }
    let to_gateway = frame.destination == network.mac && endpoint.flags & NO_GATEWAY == 0;
    match frame.ethertype {
        eth::IPV4 => {
            let ip = V4::parse(&packet)?;
            if frame.destination.is_multicast() && strays::<V4>(&from, ip.destination) {
                return Err(DropReason::Internal);
            }
            let checked = guard::source4(&ip, endpoint.ipv4, frame.destination == network.mac);
            if to_gateway {
                return outside::<V4>(&packet, &ip, &speaker::<V4>(from, ip.source, checked)?);
            }
            if guarded {
                checked?;
            }
        }
        eth::IPV6 => {
            let ip = V6::parse(&packet)?;
            if frame.destination.is_multicast() && strays::<V6>(&from, ip.destination) {
                return Err(DropReason::Internal);
            }
            if guarded {
                guard::advertisement(&packet, &ip, endpoint.ipv6)?;
            }
            let checked = guard::source6(&ip, endpoint.ipv6);
            if to_gateway {
                return outside::<V6>(&packet, &ip, &speaker::<V6>(from, ip.source, checked)?);
            }
            if guarded {
                checked?;
            }
        }
        eth::ARP if guarded => guard::arp(&packet, slot, endpoint, network)?,
        _ => {}
    }
    if frame.destination.is_multicast() {
        return to_all(&packet, frame.ethertype, &from);
    }
    if frame.destination == network.mac {
        return bridge::flood();
    }
    bridge::forward(&packet, slot, endpoint, network, frame.destination)
}

/// Who speaks: the endpoint behind the port. Or another one of the same container, to whose network all that is said belongs: a host may
/// route by one interface what it sends under an address of another (RFC 1122 section 3.3.4.2, the weak model), and
/// answers so wherever its default route leads. `checked`: whether the source is the endpoint's own.
#[inline(always)]
fn speaker<'a, F: Family>(
    from: Sending<'a>,
    source: F::Address,
    checked: Result<(), DropReason>,
) -> Result<Sending<'a>, DropReason> {
    let Err(reason) = checked else { return Ok(from) };
    // Asked here and not before the guard is: with that, the verifier refuses the program (6.18).
    if from.endpoint.flags & ANY_SOURCE != 0 {
        return Ok(from);
    }
    let (slot, endpoint) = endpoint::beside::<F>(from.slot, from.endpoint, source).ok_or(reason)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    Ok(Sending { slot, endpoint, network })
}

/// Whether what goes to all on an internal network's link is for somebody who is not there: the host hears it, and would take it for one
/// of its other addresses.
#[inline(always)]
fn strays<F: Family>(from: &Sending, destination: F::Address) -> bool {
    from.network.flags & INTERNAL != 0
        && !F::is_unroutable(destination)
        && F::network_of(destination) != Some(from.endpoint.network)
}

/// To everyone, or a group: who has an address is a question to one, and who is a router is one as well.
#[inline(always)]
fn to_all(packet: &Packet, ethertype: Be16, from: &Sending) -> Outcome {
    let Sending { slot, endpoint, network } = *from;
    let asked = match ethertype {
        eth::ARP => arp::target(packet).map(|it| bridge::ask::<V4>(packet, slot, endpoint, network, it)),
        eth::IPV6 if nd::is_for_routers(packet) => Some(bridge::ask_router::<V6>(endpoint, network)),
        eth::IPV6 => nd::target(packet).map(|it| bridge::ask::<V6>(packet, slot, endpoint, network, it)),
        _ => None,
    };
    asked.unwrap_or_else(bridge::flood)
}

/// To the gateway's MAC: for the host, for another network, for the outside.
#[inline(always)]
fn outside<F: Translate + Refuse + Policy + Hairpin + Filter>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    from: &Sending,
) -> Outcome {
    if ip.destination == F::gateway(from.network) {
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
        Some(l4) if may_belong(l4.kind) => conntrack::find::<F>(&request.tuple),
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
        return Some(accepted::<F>(packet, policy::open::<F>(packet, admitted, from.slot), OUTBOUND));
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

/// Why a message cannot begin a flow, or [`FIT`].
#[inline(always)]
pub fn unfit(kind: L4Kind) -> u32 {
    match kind {
        L4Kind::Ports | L4Kind::Icmp(Kind::EchoRequest) => FIT,
        L4Kind::Icmp(_) => DropReason::IcmpUnrelated as u32,
        L4Kind::Other => DropReason::Protocol as u32,
    }
}

/// Whether a message can belong to a flow, be it that it can only answer.
#[inline(always)]
pub fn may_belong(kind: L4Kind) -> bool {
    !matches!(kind, L4Kind::Icmp(Kind::Error | Kind::Other))
}

/// A reset resets what there is, and begins nothing.
#[inline(always)]
pub fn unless_reset(unfit: u32, tcp: u8) -> u32 {
    if tcp & RST != 0 { DropReason::TcpUnrelated as u32 } else { unfit }
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
        tuple: open::outbound(ip.source, ip.destination, source, destination, ip.protocol),
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
