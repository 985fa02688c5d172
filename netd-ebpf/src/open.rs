//! The first packet of a flow: where does it go, may it, and under which address and port?

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, BPF_NOEXIST, bpf_sock_tuple},
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use netd_common::{
    addr::{Address as _, Be16, IfIndex, Ipv4, Ipv6},
    bridge::{ICC, INTERNAL, Network},
    drop::DropReason,
    endpoint::ISOLATED,
    event::{Refused, Sweep},
    fib::NextHop,
    globals::Globals,
    limits,
    nat::{ACCEPTED, CHOSEN, Flow, OUTSIDE, OWN_ADDRESS, PEER},
    stats::Path,
    tuple::{INBOUND, OUTBOUND, Tuple, protocol},
};

use crate::{
    conntrack::{self, repeat},
    external,
    family::{Family, V4, V6},
    fib::{self, Route, Way},
    maps::{ENDPOINTS, EVENTS, NETWORKS, UPLINKS, WAYS},
    packet::Packet,
    publish,
    rewrite::{self, Rewrite},
    stats,
};

/// What a flow is asked for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request<A> {
    /// As the sender wrote it.
    pub tuple: Tuple<A>,
    /// The sender's slot, or [`netd_common::nat::HOST`].
    pub endpoint: u32,
    /// The sender's network.
    pub network: u32,
    /// Why the packet cannot begin a flow, a `DropReason` or [`BY_STACK`], or [`FIT`]. If it cannot, it may only stay within
    /// the host, or go out un-NATed.
    pub unfit: u32,
    /// The uplink that the packet is about to leave by, if the stack has chosen already; else 0.
    pub uplink: IfIndex,
}

/// The packet can begin a flow.
pub const FIT: u32 = u32::MAX;
/// The stack sends the packet, if it may go where it wants to.
pub const BY_STACK: u32 = u32::MAX - 1;

/// The answer.
pub enum Opened {
    /// The flow's index.
    Flow(u32),
    /// Let the stack see to it.
    Stack,
    Drop(DropReason),
}

// A subprogram returns one register.
const STACK: i64 = -1;
const DROP: i64 = -2;
/// The flow's address does not fit its new route: it is to end, or has ended.
pub const ENDED: i64 = i64::MIN;
/// The flow's answers need not, or cannot, leave by the uplink that the request came in by.
pub const ASTRAY: i64 = i64::MIN + 1;
/// Beside the index of the flow that holds the port.
const HELD: i64 = 1 << 32;

impl Opened {
    #[inline(always)]
    pub fn encode(self) -> i64 {
        match self {
            Self::Flow(index) => i64::from(index),
            Self::Stack => STACK,
            Self::Drop(reason) => DROP - i64::from(reason as u32),
        }
    }

    #[inline(always)]
    pub fn decode(code: i64) -> Self {
        match code {
            0.. => Self::Flow(code as u32),
            STACK => Self::Stack,
            _ => Self::Drop(DropReason::of((DROP - code) as u32)),
        }
    }
}

/// The subprograms of this file, by family.
///
/// They are global functions: the verifier walks each once, for any argument, and not once for each way that leads to a
/// call. That is why they take a context, numbers and plain memory, and why pointers into maps are looked up again.
pub trait Open: Rewrite {
    /// Where a container's packet goes, and whether it may: a record for its flow that is not live yet, or no flow.
    fn admit(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// The same for a packet of the host itself.
    fn admit_host(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// Gives an admitted flow its external port, and the inbound key that holds it. The index; or, if there is only the port
    /// of a flow that is over, that flow's index and [`HELD`].
    fn take_port(packet: &Packet, index: u32) -> i64;
    /// Takes the port that `take_port` found from a flow that is over.
    fn take_over(index: u32, holder: u32) -> i64;
    /// Sets the flow's clock going and gives it its opener's key. The index of the flow that serves the packet, or no flow.
    fn go_live(index: u32) -> i64;
    /// Tells the daemon that a flow was refused.
    fn tell(request: &Request<Self::Address>, reason: u32) -> i64;
    /// Where a container's packet leaves that needs no flow, and whether it may: [`FOUND`] and the hop in `WAYS`, or no flow.
    fn way_out(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// Looks the route of a flow up again, from its bridge, or else by the uplink that it goes by already. The flow's index, or
    /// why this packet cannot follow it, or [`ENDED`], or [`ASTRAY`].
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64;
    /// Whether the flow's remote is an external address of this host's containers.
    fn comes_back(index: u32) -> bool;

    /// Looks the route of a flow up again. As `reroute_by`, but for [`ASTRAY`].
    #[inline(always)]
    fn reroute(packet: &Packet, index: u32, bridge: IfIndex) -> i64 {
        let Some(found) = conntrack::at::<Self>(index) else { return ENDED };
        let seen = conntrack::clock(found.flow);
        let mut code = Self::reroute_by(packet, index, None, false);
        if code == ASTRAY {
            code = Self::reroute_by(packet, index, Some(bridge), Self::comes_back(index));
        }
        // Here and not there, for a call less on the programs' short stack.
        if code == ENDED {
            conntrack::end::<Self>(index, seen);
        }
        code
    }
}

impl Open for V4 {
    #[inline(always)]
    fn admit(packet: &Packet, request: &Request<Ipv4>) -> i64 {
        admit4(packet.skb(), request)
    }
    #[inline(always)]
    fn admit_host(_packet: &Packet, request: &Request<Ipv4>) -> i64 {
        admit_host4(request)
    }
    #[inline(always)]
    fn take_port(packet: &Packet, index: u32) -> i64 {
        take_port4(packet.skb(), index)
    }
    #[inline(always)]
    fn take_over(index: u32, holder: u32) -> i64 {
        take_over4(index, holder)
    }
    #[inline(always)]
    fn go_live(index: u32) -> i64 {
        go_live4(index)
    }
    #[inline(always)]
    fn tell(request: &Request<Ipv4>, reason: u32) -> i64 {
        tell4(request, reason)
    }
    #[inline(always)]
    fn way_out(packet: &Packet, request: &Request<Ipv4>) -> i64 {
        way_out4(packet.skb(), request)
    }
    #[inline(always)]
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64 {
        reroute4(packet.skb(), index, bridge.map_or(0, |bridge| bridge.0), u32::from(comes_back))
    }
    #[inline(always)]
    fn comes_back(index: u32) -> bool {
        comes_back4(index) != 0
    }
}

impl Open for V6 {
    #[inline(always)]
    fn admit(packet: &Packet, request: &Request<Ipv6>) -> i64 {
        admit6(packet.skb(), request)
    }
    #[inline(always)]
    fn admit_host(_packet: &Packet, request: &Request<Ipv6>) -> i64 {
        admit_host6(request)
    }
    #[inline(always)]
    fn take_port(packet: &Packet, index: u32) -> i64 {
        take_port6(packet.skb(), index)
    }
    #[inline(always)]
    fn take_over(index: u32, holder: u32) -> i64 {
        take_over6(index, holder)
    }
    #[inline(always)]
    fn go_live(index: u32) -> i64 {
        go_live6(index)
    }
    #[inline(always)]
    fn tell(request: &Request<Ipv6>, reason: u32) -> i64 {
        tell6(request, reason)
    }
    #[inline(always)]
    fn way_out(packet: &Packet, request: &Request<Ipv6>) -> i64 {
        way_out6(packet.skb(), request)
    }
    #[inline(always)]
    fn reroute_by(packet: &Packet, index: u32, bridge: Option<IfIndex>, comes_back: bool) -> i64 {
        reroute6(packet.skb(), index, bridge.map_or(0, |bridge| bridge.0), u32::from(comes_back))
    }
    #[inline(always)]
    fn comes_back(index: u32) -> bool {
        comes_back6(index) != 0
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit4(skb: *mut __sk_buff, request: *const Request<Ipv4>) -> i64 {
    admit::<V4>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit6(skb: *mut __sk_buff, request: *const Request<Ipv6>) -> i64 {
    admit::<V6>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit_host4(request: *const Request<Ipv4>) -> i64 {
    admit_host::<V4>(request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_port4(skb: *mut __sk_buff, index: u32) -> i64 {
    take_port::<V4>(skb, index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_over4(index: u32, holder: u32) -> i64 {
    take_over::<V4>(index, holder)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell4(request: *const Request<Ipv4>, reason: u32) -> i64 {
    tell::<V4>(request, reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_live4(index: u32) -> i64 {
    go_live::<V4>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn admit_host6(request: *const Request<Ipv6>) -> i64 {
    admit_host::<V6>(request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_port6(skb: *mut __sk_buff, index: u32) -> i64 {
    take_port::<V6>(skb, index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_over6(index: u32, holder: u32) -> i64 {
    take_over::<V6>(index, holder)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell6(request: *const Request<Ipv6>, reason: u32) -> i64 {
    tell::<V6>(request, reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_live6(index: u32) -> i64 {
    go_live::<V6>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn way_out4(skb: *mut __sk_buff, request: *const Request<Ipv4>) -> i64 {
    way_out::<V4>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reroute4(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: u32) -> i64 {
    reroute::<V4>(skb, index, bridge, comes_back != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn comes_back4(index: u32) -> i64 {
    i64::from(leads_back::<V4>(index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn way_out6(skb: *mut __sk_buff, request: *const Request<Ipv6>) -> i64 {
    way_out::<V6>(skb, request)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reroute6(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: u32) -> i64 {
    reroute::<V6>(skb, index, bridge, comes_back != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn comes_back6(index: u32) -> i64 {
    i64::from(leads_back::<V6>(index))
}

/// Whether the stack may send a packet that is [`BY_STACK`].
#[inline(always)]
pub fn judge<F: Open>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    Opened::decode(F::admit(packet, request))
}

/// Opens a flow for a packet from a container.
#[inline(always)]
pub fn open<F: Open>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    let mut admitted = F::admit(packet, request);
    if let Opened::Drop(reason) = Opened::decode(admitted) {
        let whose = match reason {
            DropReason::FlowTableFull => Sweep::ANY,
            DropReason::EndpointQuota => request.endpoint,
            _ => return Opened::Drop(reason),
        };
        if F::make_room(whose) != 0 {
            admitted = F::admit(packet, request);
        }
    }
    let opened = establish::<F>(packet, admitted);
    if let Opened::Drop(reason) = opened {
        F::tell(request, reason as u32);
    }
    opened
}

/// Opens a flow for a packet of the host itself, whose port or echo identifier a container's flow may hold already.
#[inline(always)]
pub fn open_for_host<F: Open>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    establish::<F>(packet, F::admit_host(packet, request))
}

#[inline(always)]
fn admit<F: Family>(skb: *mut __sk_buff, request: *const Request<F::Address>) -> i64 {
    // SAFETY: the caller's frame holds it; the verifier demands the check for null.
    match unsafe { request.as_ref() } {
        Some(request) => decide::<F>(&Packet::of(&TcContext::new(skb)), request).encode(),
        None => STACK,
    }
}

#[inline(always)]
fn admit_host<F: Family>(request: *const Request<F::Address>) -> i64 {
    // SAFETY: as in `admit`.
    let (Some(globals), Some(request)) = (fib::globals(), unsafe { request.as_ref() }) else { return STACK };
    let hop = NextHop { uplink: request.uplink, generation: globals.fib_generation, ..NextHop::default() };
    match record::<F>(request, request.tuple.source, OWN_ADDRESS, hop, globals) {
        Ok(index) => Opened::Flow(index),
        Err(reason) => Opened::Drop(reason),
    }
    .encode()
}

#[inline(always)]
fn decide<F: Family>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    let (Some(globals), Some(network)) = (fib::globals(), NETWORKS.get(request.network)) else {
        return Opened::Drop(DropReason::UnknownEndpoint);
    };
    let mut exit = Exit::<F::Address>::default();
    let refused = find_exit::<F>(packet, request, network, globals, &mut exit);
    if refused != FOUND {
        return Opened::decode(refused);
    }
    if request.unfit == BY_STACK {
        return Opened::Stack;
    }
    let comes_back = external::is_external::<F>(request.tuple.destination);
    // Whoever is asked by an external address within the host answers to one.
    let masquerade = F::is_masqueraded(request.network, network, request.tuple.destination) || comes_back;
    if request.unfit != FIT {
        return if masquerade { Opened::Drop(DropReason::of(request.unfit)) } else { Opened::Stack };
    }
    let address = if masquerade { external_address::<F>(network, &exit) } else { request.tuple.source };
    if address.is_unspecified() {
        return Opened::Drop(DropReason::NoExternalAddress);
    }
    if comes_back {
        come_back(&mut exit.hop);
    }
    let flags = if !masquerade {
        OWN_ADDRESS
    } else if address == F::source(network) {
        CHOSEN
    } else {
        0
    };
    match record::<F>(request, address, flags, exit.hop, globals) {
        Ok(index) => Opened::Flow(index),
        Err(reason) => Opened::Drop(reason),
    }
}

/// Where a packet leaves, and under which addresses it could.
#[derive(Clone, Copy, Default)]
struct Exit<A> {
    hop: NextHop,
    /// What the host itself would use on this route; unspecified if nothing.
    of_route: A,
    /// What the uplink has.
    of_uplink: A,
}

/// There is a way out.
pub const FOUND: i64 = 0;

/// Finds the way out for a packet of a network. [`FOUND`], or why there is none for it.
#[inline(always)]
fn find_exit<F: Family>(
    packet: &Packet,
    request: &Request<F::Address>,
    network: &Network,
    globals: &Globals,
    exit: &mut Exit<F::Address>,
) -> i64 {
    let drop = |reason| Opened::Drop(reason).encode();
    // Nothing that is to be forwarded; the stack knows how to drop it (RFC 4291 section 2.5.6, RFC 1812 section 5.3.7).
    if F::is_unroutable(request.tuple.destination) || F::is_unroutable(request.tuple.source) {
        return STACK;
    }
    let Route::Forward { mut hop, mut source } =
        fib::lookup::<F>(packet, &request.tuple, Way::From(network.bridge), globals)
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

/// The packet is for a container of this host: it leaves by no uplink.
#[inline(always)]
fn come_back(hop: &mut NextHop) {
    hop.uplink = IfIndex(0);
    hop.mtu = u32::MAX;
}

/// The address to leave with; unspecified if there is none.
#[inline(always)]
fn external_address<F: Family>(network: &Network, exit: &Exit<F::Address>) -> F::Address {
    let chosen = F::source(network);
    if !chosen.is_unspecified() {
        return chosen;
    }
    // An uplink without an address makes the kernel fall back on any other, a bridge's too.
    let is_outside = !exit.of_route.is_unspecified() && F::network_of(exit.of_route).is_none();
    if is_outside { exit.of_route } else { exit.of_uplink }
}

/// Draws a record and fills it in, but for the external port.
#[inline(always)]
fn record<F: Family>(
    request: &Request<F::Address>,
    external: F::Address,
    flags: u8,
    hop: NextHop,
    globals: &Globals,
) -> Result<u32, DropReason> {
    let index = conntrack::draw::<F>(request.endpoint, globals)?;
    let flow = conntrack::blank::<F>(index)?;
    let tuple = &request.tuple;
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).next_hop = hop;
        (*flow).local = tuple.source;
        (*flow).remote = tuple.destination;
        (*flow).external = external;
        (*flow).seen = tuple.destination;
        (*flow).local_port = tuple.source_port;
        (*flow).remote_port = tuple.destination_port;
        (*flow).seen_port = tuple.destination_port;
        (*flow).protocol = tuple.protocol;
        (*flow).endpoint = request.endpoint;
        (*flow).peer = OUTSIDE;
        (*flow).flags = flags;
    }
    Ok(index)
}

/// Step by step, each in a frame of its own, for all frames of a call chain share 512 bytes.
#[inline(always)]
pub fn establish<F: Open>(packet: &Packet, admitted: i64) -> Opened {
    if admitted < 0 {
        return Opened::decode(admitted);
    }
    let index = admitted as u32;
    let mut taken = F::take_port(packet, index);
    if taken & HELD != 0 && taken > 0 {
        taken = F::take_over(index, taken as u32);
    }
    if taken < 0 {
        return Opened::decode(taken);
    }
    Opened::decode(F::go_live(index))
}

#[inline(always)]
fn go_live<F: Family>(index: u32) -> i64 {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return STACK };
    // SAFETY: as in `record`.
    let (key, accepted) = unsafe { ((*flow).opener_key(), (*flow).flags & ACCEPTED != 0) };
    conntrack::start(flow);
    if F::flow_keys().insert(&key, index, u64::from(BPF_NOEXIST)).is_ok() {
        stats::took(if accepted { Path::FlowAccepted } else { Path::FlowCreated });
        return Opened::Flow(index).encode();
    }
    // Another CPU has opened the same flow at the same time: its record serves both. Or the table has no room.
    conntrack::end_unkeyed::<F>(index, flow);
    match conntrack::find::<F>(&key) {
        Some(found) => Opened::Flow(found.index).encode(),
        None => Opened::Drop(DropReason::FlowTableFull).encode(),
    }
}

/// A search for a free external port, as its body sees it.
struct Search<'a, F: Family> {
    packet: &'a Packet<'a>,
    globals: &'a Globals,
    flow: *mut Flow<F::Address>,
    index: u32,
    /// The inbound tuple; its destination port is what is searched.
    key: Tuple<F::Address>,
    /// The port that the sender uses.
    own: Be16,
    /// The protocol's ports are shared with the host's sockets.
    is_port: bool,
    /// The address is this network's own: no range of the host's is in the way.
    is_chosen: bool,
    /// The address is not translated: the port is in nobody's way, or it is the host's own socket's.
    same_address: bool,
    draws: u32,
    claimed: bool,
    /// The last flow seen that is over, and its port.
    over: Option<(u32, Be16)>,
}

/// Finds an external port and claims it for the flow: the sender's own if it may be kept, else random ones. Only if none of
/// the draws is free, the place of a flow that is over is taken: a remote may yet remember the old connection.
#[inline(always)]
fn take_port<F: Family>(skb: *mut __sk_buff, index: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    // SAFETY: as in `record`.
    let record = unsafe { &*flow };
    let key = record.inbound_key();
    let mut search = Search::<F> {
        packet,
        globals,
        flow,
        index,
        key,
        own: record.local_port,
        is_port: key.protocol == protocol::TCP || key.protocol == protocol::UDP,
        is_chosen: record.flags & CHOSEN != 0,
        same_address: record.flags & OWN_ADDRESS != 0,
        draws: 0,
        claimed: false,
        over: None,
    };
    repeat(limits::PORT_DRAWS, &mut search, try_port::<F>);
    if search.claimed {
        stats::drew(search.draws);
        return Opened::Flow(index).encode();
    }
    if let Some((holder, port)) = search.over {
        // SAFETY: as in `record`.
        unsafe { (*flow).external_port = port };
        return HELD | i64::from(holder);
    }
    no_port::<F>(index, flow)
}

#[inline(always)]
fn take_over<F: Family>(index: u32, holder: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    if conntrack::end_if_over::<F>(holder, globals)
        // SAFETY: as in `record`.
        && conntrack::claim::<F>(&unsafe { (*flow).inbound_key() }, index)
    {
        stats::drew(limits::PORT_DRAWS);
        return Opened::Flow(index).encode();
    }
    no_port::<F>(index, flow)
}

/// Gives the record back.
#[inline(always)]
pub fn no_port<F: Family>(index: u32, flow: *mut Flow<F::Address>) -> i64 {
    // SAFETY: as in `record`.
    let (protocol, endpoint) = unsafe { ((*flow).protocol, (*flow).endpoint) };
    stats::drew(limits::PORT_DRAWS + 1);
    conntrack::give_back::<F>(index, endpoint);
    let fixed = rewrite::has_fixed_port(protocol);
    Opened::Drop(if fixed { DropReason::SctpPort } else { DropReason::PortsExhausted }).encode()
}

/// Tries one port. Returns 1 when the search is at its end, as `bpf_loop` has it.
extern "C" fn try_port<F: Family>(_: u64, search: *mut Search<F>) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let search = unsafe { &mut *search };
    let first = search.draws == 0;
    let is_free_to_keep = search.same_address || search.is_chosen;
    let keeps = first && (!search.is_port || is_free_to_keep || search.globals.ports.keeps(search.own.get()));
    if !first && rewrite::has_fixed_port(search.key.protocol) {
        return 1;
    }
    search.draws += 1;
    search.key.destination_port = if keeps {
        search.own
    } else {
        // SAFETY: a plain helper call.
        let random = unsafe { bpf_get_prandom_u32() };
        if search.is_port {
            match search.globals.ports.draw(search.own.get(), random) {
                Some(port) => Be16::new(port),
                None => return 1,
            }
        } else {
            Be16(random as u16)
        }
    };
    // SAFETY: the value is copied at once, and what it leads to is checked before it is ended.
    if let Some(holder) = unsafe { F::flow_keys().get(&search.key) }.copied() {
        if is_over::<F>(holder, search.globals) {
            search.over = Some((holder, search.key.destination_port));
        }
        return 0;
    }
    // Never a port that is published, or that the host itself uses towards this remote or listens on (port shadowing).
    let own_socket = search.same_address && first;
    if search.is_port
        && !own_socket
        && (is_published::<F>(&search.key) || is_hosts::<F>(search.packet, &search.key))
    {
        return 0;
    }
    search.claimed = claim::<F>(search);
    i64::from(search.claimed)
}

#[inline(always)]
pub fn is_published<F: Family>(key: &Tuple<F::Address>) -> bool {
    publish::find::<F>(key.destination, key.protocol, key.destination_port).is_some()
}

#[inline(always)]
fn claim<F: Family>(search: &Search<F>) -> bool {
    // SAFETY: as in `record`.
    unsafe { (*search.flow).external_port = search.key.destination_port };
    conntrack::claim::<F>(&search.key, search.index)
}

#[inline(always)]
fn is_over<F: Family>(index: u32, globals: &Globals) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let clock = conntrack::clock(flow);
    // SAFETY: a byte of a live map value.
    clock.state().is_over() || clock.is_expired(unsafe { (*flow).protocol }, conntrack::now(), globals.hz)
}

/// Whether a socket of the host would receive packets with this inbound tuple.
#[inline(always)]
pub fn is_hosts<F: Family>(packet: &Packet, key: &Tuple<F::Address>) -> bool {
    // The kernel's tuple has the fields of ours in the same order, and the packet that a socket would receive is this one.
    let tuple = (&raw const *key).cast_mut().cast::<bpf_sock_tuple>();
    let size = 2 * (size_of::<F::Address>() + size_of::<Be16>()) as u32;
    // SAFETY: the helpers read `size` bytes of `tuple`; a socket that they return is released.
    unsafe {
        let context = packet.skb().cast();
        let socket = if key.protocol == protocol::TCP {
            bpf_skc_lookup_tcp(context, tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
        } else {
            bpf_sk_lookup_udp(context, tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}

/// Tells the daemon that a flow was refused. A full ring loses the event, never the packet's counter.
#[inline(always)]
fn tell<F: Family>(request: *const Request<F::Address>, reason: u32) -> i64 {
    // SAFETY: as in `admit`.
    let Some(request) = (unsafe { request.as_ref() }) else { return 0 };
    let Some(mut event) = EVENTS.reserve::<Refused>(0) else { return 0 };
    event.write(Refused {
        endpoint: request.endpoint,
        reason,
        remote: request.tuple.destination.words(),
        family: F::AF,
        remote_port: request.tuple.destination_port,
        protocol: request.tuple.protocol,
        pad: 0,
    });
    event.submit(0);
    0
}

#[inline(always)]
fn leads_back<F: Family>(index: u32) -> bool {
    // SAFETY: the flow points into an array map.
    conntrack::at::<F>(index).is_some_and(|found| external::is_external::<F>(unsafe { (*found.flow).remote }))
}

#[inline(always)]
fn reroute<F: Family>(skb: *mut __sk_buff, index: u32, bridge: u32, comes_back: bool) -> i64 {
    let (Some(globals), Some(found)) = (fib::globals(), conntrack::at::<F>(index)) else { return ENDED };
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &mut *found.flow };
    let (tuple, old) = (flow.outbound_key(), flow.next_hop.uplink);
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
    let route = fib::lookup::<F>(packet, &tuple, way, globals);
    if bridge == 0 && !matches!(route, Route::Forward { .. }) {
        return ASTRAY;
    }
    // No route at present: the stack says so, and the flow waits for a better one.
    let Route::Forward { mut hop, source } = route else { return STACK };
    let same_address = accepted
        || flow.external == flow.local
        || source == flow.external
        || source.is_unspecified()
        || flow.flags & CHOSEN != 0;
    if !same_address {
        return ENDED;
    }
    // SAFETY: a shared reference to a map value that only the daemon replaces.
    if hop.uplink != old && unsafe { UPLINKS.get(hop.uplink) }.is_none() {
        return Opened::Drop(DropReason::NoUplink).encode();
    }
    if comes_back {
        come_back(&mut hop);
    }
    // Another CPU may write the same at the same time, or read half of it once.
    flow.next_hop = hop;
    i64::from(index)
}

/// The tuple of a packet from the outside.
#[inline(always)]
pub fn inbound<A>(
    source: A,
    destination: A,
    source_port: Be16,
    destination_port: Be16,
    protocol: u8,
) -> Tuple<A> {
    Tuple { source, destination, source_port, destination_port, protocol, direction: INBOUND, pad: [0; 2] }
}

/// The tuple of a packet from a container.
#[inline(always)]
pub fn outbound<A>(
    source: A,
    destination: A,
    source_port: Be16,
    destination_port: Be16,
    protocol: u8,
) -> Tuple<A> {
    Tuple { source, destination, source_port, destination_port, protocol, direction: OUTBOUND, pad: [0; 2] }
}
