//! Where a flow leaves: the route that a container's packet takes, and the address that it has there.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::{Address as _, IfIndex, Ipv4, Ipv6, Mac},
    bridge::{ICC, INTERNAL, Network},
    drop::DropReason,
    endpoint::ISOLATED,
    fib::NextHop,
    globals::Globals,
    nat::{ACCEPTED, CHOSEN, PEER},
};

use crate::{
    conntrack, expiry, external,
    family::{Family, V4, V6},
    fib::{self, Route, Way},
    maps::{ENDPOINTS, NETWORKS, UPLINKS, WAYS},
    open::{Opened, Request, STACK},
    packet::Packet,
    rewrite::Rewrite,
};

/// The flow's address does not fit its new route: it is to end, or has ended.
pub const ENDED: i64 = i64::MIN;
/// The flow's answers need not, or cannot, leave by the uplink that the request came in by.
pub const ASTRAY: i64 = i64::MIN + 1;

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Egress: Rewrite {
    /// Where a container's packet leaves that needs no flow, and whether it may: [`FOUND`] and the hop in `WAYS`, or no flow.
    fn way_out(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// Puts a hop by the link of the sender's external address into `WAYS`, if that is another's than of the one there.
    fn keep_to_link(packet: &Packet, request: &Request<Self::Address>);
    /// Looks the route of a flow up again, from its bridge, or else by the uplink that it goes by already. The flow's index, or
    /// why this packet cannot follow it, or [`ENDED`], or [`ASTRAY`].
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64;
    /// Whether nobody on the link of the flow's uplink can be handed its packets.
    fn lacks_neighbour(packet: &Packet, index: u32, bridge: IfIndex) -> bool;
    /// Whether the flow's remote is an external address of this host's containers: 0 or 1. Or [`ENDED`] if it was not, or was, when the
    /// flow began.
    fn comes_back(index: u32) -> i64;

    /// Looks the route of a flow up again. As `reroute_by`, but for [`ASTRAY`].
    #[inline(always)]
    fn reroute(packet: &Packet, index: u32, bridge: IfIndex) -> i64 {
        let Some(found) = conntrack::at::<Self>(index) else { return ENDED };
        let seen = conntrack::clock(found.flow);
        let comes_back = Self::comes_back(index);
        let mut code = comes_back;
        if code != ENDED {
            code = Self::reroute_by(packet, index, None, comes_back != 0);
        }
        if code == ASTRAY {
            code = Self::reroute_by(packet, index, Some(bridge), comes_back != 0);
        }
        // Here and not there, for a call less on the programs' short stack.
        if code == ENDED {
            expiry::end::<Self>(index, seen);
        }
        code
    }
}

impl Egress for V4 {
    #[inline(always)]
    fn way_out(packet: &Packet, request: &Request<Ipv4>) -> i64 {
        way_out4(packet.skb(), request)
    }
    #[inline(always)]
    fn keep_to_link(packet: &Packet, request: &Request<Ipv4>) {
        keep_to_link4(packet.skb(), request);
    }
    #[inline(always)]
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64 {
        reroute4(packet.skb(), index, bridge.map_or(0, |bridge| bridge.0), u32::from(comes_back))
    }
    #[inline(always)]
    fn lacks_neighbour(packet: &Packet, index: u32, bridge: IfIndex) -> bool {
        lacks_neighbour4(packet.skb(), index, bridge.0) != 0
    }
    #[inline(always)]
    fn comes_back(index: u32) -> i64 {
        comes_back4(index)
    }
}

impl Egress for V6 {
    #[inline(always)]
    fn way_out(packet: &Packet, request: &Request<Ipv6>) -> i64 {
        way_out6(packet.skb(), request)
    }
    #[inline(always)]
    fn keep_to_link(packet: &Packet, request: &Request<Ipv6>) {
        keep_to_link6(packet.skb(), request);
    }
    #[inline(always)]
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64 {
        reroute6(packet.skb(), index, bridge.map_or(0, |bridge| bridge.0), u32::from(comes_back))
    }
    #[inline(always)]
    fn lacks_neighbour(packet: &Packet, index: u32, bridge: IfIndex) -> bool {
        lacks_neighbour6(packet.skb(), index, bridge.0) != 0
    }
    #[inline(always)]
    fn comes_back(index: u32) -> i64 {
        comes_back6(index)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn way_out4(skb: *mut __sk_buff, request: *const Request<Ipv4>) -> i64 {
    way_out::<V4>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep_to_link4(skb: *mut __sk_buff, request: *const Request<Ipv4>) -> i64 {
    keep_to_link::<V4>(skb, request);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reroute4(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: u32) -> i64 {
    reroute::<V4>(skb, index, bridge, comes_back != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lacks_neighbour4(skb: *mut __sk_buff, index: u32, bridge: u32) -> i64 {
    i64::from(lacks_neighbour::<V4>(skb, index, bridge))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn comes_back4(index: u32) -> i64 {
    comes_back::<V4>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn way_out6(skb: *mut __sk_buff, request: *const Request<Ipv6>) -> i64 {
    way_out::<V6>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep_to_link6(skb: *mut __sk_buff, request: *const Request<Ipv6>) -> i64 {
    keep_to_link::<V6>(skb, request);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reroute6(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: u32) -> i64 {
    reroute::<V6>(skb, index, bridge, comes_back != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lacks_neighbour6(skb: *mut __sk_buff, index: u32, bridge: u32) -> i64 {
    i64::from(lacks_neighbour::<V6>(skb, index, bridge))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn comes_back6(index: u32) -> i64 {
    comes_back::<V6>(index)
}

/// Where a packet leaves, and under which addresses it could.
#[derive(Clone, Copy, Default)]
pub struct Exit<A> {
    pub hop: NextHop,
    /// What the host itself would use on this route; unspecified if nothing, or if the network's own address goes before it.
    of_route: A,
    /// What the uplink has.
    of_uplink: A,
}

/// There is a way out.
pub const FOUND: i64 = 0;

/// Finds the way out for a packet of a network. [`FOUND`], or why there is none for it.
#[inline(always)]
pub fn find_exit<F: Family>(
    packet: &Packet,
    request: &Request<F::Address>,
    network: &Network,
    globals: &Globals,
    exit: &mut Exit<F::Address>,
) -> i64 {
    let drop = |reason| Opened::Drop(reason).encode();
    // Nothing that is to be forwarded (RFC 4291 section 2.5.6, RFC 1812 section 5.3.7): the stack has what is for the host itself, and
    // `from_host` lets none of it back. An internal network is not to reach more of the host than its gateway by such a source, and
    // without one nothing of it.
    if F::is_unroutable(request.tuple.destination) {
        let is_alone = network.flags & INTERNAL != 0 && F::gateway(network).is_unspecified();
        return if is_alone { drop(DropReason::Internal) } else { STACK };
    }
    if F::is_unroutable(request.tuple.source) {
        return if network.flags & INTERNAL == 0 { STACK } else { drop(DropReason::Internal) };
    }
    let wants_source = F::source(network).is_unspecified();
    let Route::Forward { mut hop, mut source } =
        fib::lookup::<F>(packet, &request.tuple, Way::From(network.bridge), wants_source, globals)
    else {
        // Of the host's addresses an internal network knows its gateway alone, which is no matter of routes.
        return if network.flags & INTERNAL == 0 { STACK } else { drop(DropReason::Internal) };
    };
    if hop.uplink == network.bridge {
        // By way of the gateway to a neighbour.
        let isolated = ENDPOINTS.get(request.endpoint).is_some_and(|sender| sender.flags & ISOLATED != 0);
        return if network.flags & ICC == 0 || isolated { drop(DropReason::Icc) } else { STACK };
    }
    if request.uplink.0 != 0 && request.uplink != hop.uplink {
        // A rule that the lookup could not see sent the packet elsewhere; the stack is right.
        hop.uplink = request.uplink;
        source = F::from_words([0; 4]);
    }
    // SAFETY: a shared reference to a map value that only the daemon replaces.
    let Some(uplink) = (unsafe { UPLINKS.get(hop.uplink) }) else {
        return drop(match F::network_of(request.tuple.destination) {
            Some(_) if network.flags & INTERNAL == 0 => DropReason::Isolated,
            Some(_) => DropReason::Internal,
            None => DropReason::NoUplink,
        });
    };
    if network.flags & INTERNAL != 0 {
        return drop(DropReason::Internal);
    }
    hop.mtu = uplink.within_routes(hop.mtu);
    *exit = Exit { hop, of_route: source, of_uplink: F::uplink(uplink) };
    FOUND
}

/// The way out for a packet that needs no flow, because its address is translated 1:1. As [`find_exit`].
#[inline(always)]
fn way_out<F: Family>(skb: *mut __sk_buff, request: *const Request<F::Address>) -> i64 {
    // SAFETY: the caller's frame holds it; the verifier demands the check for null.
    let (Some(request), Some(hop)) = (unsafe { request.as_ref() }, WAYS.get_ptr_mut(0)) else { return STACK };
    let (Some(globals), Some(network)) = (fib::globals(), NETWORKS.get(request.network)) else {
        return STACK;
    };
    let context = TcContext::new(skb);
    let mut exit = Exit::<F::Address>::default();
    let found = find_exit::<F>(&Packet::of(&context), request, network, globals, &mut exit);
    // SAFETY: this CPU's own value.
    unsafe { *hop = exit.hop };
    found
}

/// Whoever asks by an external address that is on the link of one uplink comes in there, and the networks behind the others need
/// not let its packets through (RFC 2827): they leave there where a rule for the address says so, or instead of by the default route of
/// another; not where there is a route to the destination. An address that is on no link is routed to this host, by which uplink nobody
/// can tell, and leaves where the routes say.
#[inline(always)]
fn keep_to_link<F: Family>(skb: *mut __sk_buff, request: *const Request<F::Address>) {
    // SAFETY: the caller's frame holds it; the verifier demands the check for null.
    let (Some(request), Some(hop)) = (unsafe { request.as_ref() }, WAYS.get_ptr_mut(0)) else { return };
    let (Some(globals), Some(network)) = (fib::globals(), NETWORKS.get(request.network)) else { return };
    let Ok(own) = external::outward::<F>(request.tuple.source) else { return };
    // SAFETY: this CPU's own value.
    let hop = unsafe { &mut *hop };
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let mut tuple = request.tuple;
    tuple.destination = own;
    let Route::Forward { hop: link, .. } =
        fib::lookup::<F>(packet, &tuple, Way::From(network.bridge), false, globals)
    else {
        return;
    };
    // SAFETY: whether there is an uplink and nothing of it.
    let is_elsewhere = link.uplink != hop.uplink && unsafe { UPLINKS.get(link.uplink) }.is_some();
    if !is_elsewhere || link.address != own.words() {
        return;
    }
    tuple.source = own;
    tuple.destination = request.tuple.destination;
    let mut way = Way::From(network.bridge);
    for _ in 0..2 {
        if let Route::Forward { hop: found, .. } = fib::lookup::<F>(packet, &tuple, way, false, globals)
            && found.uplink == link.uplink
        {
            *hop = found;
            fib::narrow(hop);
            return;
        }
        if !goes_by_default::<F>(hop, tuple.destination) {
            return;
        }
        way = Way::Out(link.uplink);
    }
}

#[inline(always)]
fn goes_by_default<F: Family>(hop: &NextHop, destination: F::Address) -> bool {
    let [destination, ..] = destination.words();
    // SAFETY: a shared reference to a map value that only the daemon replaces.
    let uplink = unsafe { UPLINKS.get(hop.uplink) };
    uplink.is_some_and(|uplink| uplink.leads_by_default(hop, Ipv4(destination)))
}

/// The packet is for a container of this host: it leaves by no uplink.
#[inline(always)]
pub fn come_back(hop: &mut NextHop) {
    hop.uplink = IfIndex(0);
    hop.mtu = u32::MAX;
}

/// The address to leave with; unspecified if there is none.
#[inline(always)]
pub fn external_address<F: Family>(network: &Network, exit: &Exit<F::Address>) -> F::Address {
    let chosen = F::source(network);
    if !chosen.is_unspecified() {
        return chosen;
    }
    // An uplink without an address makes the kernel fall back on any other, a bridge's too.
    let is_outside = !exit.of_route.is_unspecified() && F::network_of(exit.of_route).is_none();
    if is_outside { exit.of_route } else { exit.of_uplink }
}

#[inline(always)]
fn lacks_neighbour<F: Family>(skb: *mut __sk_buff, index: u32, bridge: u32) -> bool {
    let Some(found) = conntrack::at::<F>(index) else { return false };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    // SAFETY: the value is copied at once.
    let has_neighbours =
        unsafe { UPLINKS.get(flow.next_hop.uplink) }.is_some_and(|uplink| uplink.mac != Mac::default());
    let context = TcContext::new(skb);
    has_neighbours && fib::lacks_neighbour::<F>(&Packet::of(&context), &flow.outbound_key(), IfIndex(bridge))
}

#[inline(always)]
fn comes_back<F: Family>(index: u32) -> i64 {
    let Some(found) = conntrack::at::<F>(index) else { return ENDED };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    let comes_back = external::is_external::<F>(flow.remote);
    let came_back = flow.next_hop.uplink == IfIndex(0);
    if flow.flags & PEER == 0 && comes_back != came_back { ENDED } else { i64::from(comes_back) }
}

/// No route was found to the remote by the uplink that it came in by. Whoever handed the request over takes the answer, or who has taken
/// the answers until now; if it is known who that is.
#[inline(always)]
fn goes_on(packet: &Packet, hop: &mut NextHop, globals: &Globals) -> bool {
    let mtu = fib::mtu(packet, hop.uplink);
    // SAFETY: whether there is a value, and nothing of it.
    if hop.family == 0 || mtu == 0 || unsafe { UPLINKS.get(hop.uplink) }.is_none() {
        return false;
    }
    (hop.mtu, hop.generation) = (mtu, globals.fib_generation);
    true
}

#[inline(always)]
fn reroute<F: Family>(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: bool) -> i64 {
    let (Some(globals), Some(found)) = (fib::globals(), conntrack::at::<F>(index)) else { return ENDED };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &mut *found.flow };
    let (mut tuple, old) = (flow.outbound_key(), flow.next_hop.uplink);
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let accepted = flow.flags & ACCEPTED != 0;
    // Answers leave by the uplink that the request came in by, as long as there is a way; all else where the routes say.
    if flow.flags & PEER != 0 {
        // No route leads to it.
        flow.next_hop.generation = globals.fib_generation;
        return i64::from(index);
    }
    let way = match (bridge, accepted) {
        (0, false) => return ASTRAY,
        (0, true) => Way::Out(old),
        _ => Way::From(IfIndex(bridge)),
    };
    let keeps_address = accepted || flow.external == flow.local || flow.flags & CHOSEN != 0;
    if bridge == 0 {
        // As the host would answer from this address: rules that lead it out by its own uplink hold.
        tuple.source = flow.external;
    }
    let route = fib::lookup::<F>(packet, &tuple, way, !keeps_address, globals);
    if bridge == 0 {
        match &route {
            Route::Forward { hop, .. } if hop.uplink == old => {}
            Route::Forward { .. } | Route::Nowhere if goes_on(packet, &mut flow.next_hop, globals) => {
                return i64::from(index);
            }
            _ => return ASTRAY,
        }
    }
    let Route::Forward { mut hop, source } = route else {
        // The address has come to the host, where its ports may be published; or there is no route at present: the stack says so, and the
        // flow waits for a better one.
        return if F::is_local(flow.remote) { ENDED } else { STACK };
    };
    // Which address the route prefers is for who comes later, as it is with the kernel's masquerade: IPv6's temporary addresses are
    // preferred for a day, and good for a week (RFC 8981).
    let is_good = hop.uplink == old && F::is_local(flow.external);
    if !keeps_address && source != flow.external && !source.is_unspecified() && !is_good {
        return ENDED;
    }
    // SAFETY: a shared reference to a map value that only the daemon replaces.
    if hop.uplink != old && unsafe { UPLINKS.get(hop.uplink) }.is_none() {
        return Opened::Drop(DropReason::NoUplink).encode();
    }
    if comes_back {
        come_back(&mut hop);
    }
    fib::narrow(&mut hop);
    // Another CPU may write the same at the same time, or read half of it once.
    flow.next_hop = hop;
    i64::from(index)
}
