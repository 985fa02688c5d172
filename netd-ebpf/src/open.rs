//! The first packet of a flow: where does it go, may it, and under which address?

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    programs::TcContext,
};
use netd_common::{
    addr::{Address as _, IfIndex, Ipv4, Ipv6},
    binding::is_bindable,
    bridge::{INDEPENDENT_FILTERING, INDEPENDENT_MAPPING},
    conntrack::flags::RST,
    drop::DropReason,
    event::{Refused, Sweep},
    fib::NextHop,
    globals::Globals,
    nat::{ACCEPTED, BINDING, BOUND, CHOSEN, OUTSIDE, OWN_ADDRESS, THROUGH_STACK, UNFILTERED},
    stats::Path,
    tuple::Tuple,
};

use crate::{
    binding::{self, Bind},
    conntrack,
    egress::{self, Egress, Exit, FOUND},
    expiry, external,
    family::{Family, V4, V6},
    fib, flow_table,
    mapping::{self, Mapping},
    maps::{EVENTS, NETWORKS},
    packet::Packet,
    parse::{icmp::Kind, l4::L4Kind},
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

/// Why a message cannot begin a flow, or [`FIT`].
#[inline(always)]
pub fn unfit(kind: L4Kind) -> u32 {
    match kind {
        L4Kind::Ports | L4Kind::Icmp(Kind::EchoRequest) => FIT,
        L4Kind::Icmp(_) => DropReason::IcmpUnrelated as u32,
        L4Kind::Other => DropReason::Protocol as u32,
    }
}

/// A reset resets what there is, and begins nothing.
#[inline(always)]
pub fn unless_reset(unfit: u32, tcp: u8) -> u32 {
    if tcp & RST != 0 { DropReason::TcpUnrelated as u32 } else { unfit }
}

/// The answer.
pub enum Opened {
    /// The flow's index.
    Flow(u32),
    /// Let the stack see to it.
    Stack,
    Drop(DropReason),
}

/// Beside the index of a flow that is not live yet, one of whose ports is a binding's.
pub const TO_BIND: i64 = 1 << 32;

// A subprogram returns one register.
pub const STACK: i64 = -1;
const DROP: i64 = -2;

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

/// What a subprogram returns: the code that it has come to, or that of a drop.
#[inline(always)]
pub fn or_drop(code: Result<i64, DropReason>) -> i64 {
    match code {
        Ok(code) => code,
        Err(reason) => Opened::Drop(reason).encode(),
    }
}

/// The subprograms of this file, by family.
///
/// They are global functions: the verifier walks each once, for any argument, and not once for each way that leads to a
/// call. That is why they take a context, numbers and plain memory, and why pointers into maps are looked up again.
pub trait Open: Mapping + Egress {
    /// Where a container's packet goes, and whether it may: a record for its flow that is not live yet, or no flow.
    fn admit(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// The same for a packet of the host itself.
    fn admit_host(packet: &Packet, request: &Request<Self::Address>) -> i64;
    /// Sets the flow's clock going and gives it its opener's key. The index of the flow that serves the packet, or no flow.
    fn go_live(index: u32) -> i64;
    /// Tells the daemon that a flow was refused.
    fn tell(request: &Request<Self::Address>, reason: u32) -> i64;
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
    fn go_live(index: u32) -> i64 {
        go_live4(index)
    }
    #[inline(always)]
    fn tell(request: &Request<Ipv4>, reason: u32) -> i64 {
        tell4(request, reason)
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
    fn go_live(index: u32) -> i64 {
        go_live6(index)
    }
    #[inline(always)]
    fn tell(request: &Request<Ipv6>, reason: u32) -> i64 {
        tell6(request, reason)
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
pub extern "C" fn tell6(request: *const Request<Ipv6>, reason: u32) -> i64 {
    tell::<V6>(request, reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_live6(index: u32) -> i64 {
    go_live::<V6>(index)
}

/// Whether the stack may send a packet that is [`BY_STACK`].
#[inline(always)]
pub fn judge<F: Open>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    Opened::decode(F::admit(packet, request))
}

/// Opens a flow for a packet from a container.
#[inline(always)]
pub fn open<F: Bind>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    let mut opened = establish::<F>(packet, F::admit(packet, request));
    let whose = match opened {
        Opened::Drop(DropReason::FlowTableFull) => Some(Sweep::ANY),
        Opened::Drop(DropReason::EndpointQuota) => Some(request.endpoint),
        _ => None,
    };
    if let Some(whose) = whose
        && F::make_room(whose) != 0
    {
        opened = establish::<F>(packet, F::admit(packet, request));
    }
    if let Opened::Drop(reason) = opened
        && reason.is_exhaustion()
    {
        F::tell(request, reason as u32);
    }
    opened
}

/// Opens a flow for a packet of the host itself, whose port or echo identifier a container's flow may hold already.
#[inline(always)]
pub fn open_for_host<F: Bind>(packet: &Packet, request: &Request<F::Address>) -> Opened {
    establish::<F>(packet, F::admit_host(packet, request))
}

#[inline(always)]
fn admit<F: Family>(skb: *mut __sk_buff, request: *const Request<F::Address>) -> i64 {
    // SAFETY: the caller's frame holds it; the verifier demands the check for null.
    match unsafe { request.as_ref() } {
        Some(request) => decide::<F>(&Packet::of(&TcContext::new(skb)), request),
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
fn decide<F: Family>(packet: &Packet, request: &Request<F::Address>) -> i64 {
    let drop = |reason| Opened::Drop(reason).encode();
    let (Some(globals), Some(network)) = (fib::globals(), NETWORKS.get(request.network)) else {
        return drop(DropReason::UnknownEndpoint);
    };
    let mut exit = Exit::<F::Address>::default();
    let refused = egress::find_exit::<F>(packet, request, network, globals, &mut exit);
    if refused != FOUND {
        return refused;
    }
    if request.unfit == BY_STACK {
        return STACK;
    }
    let comes_back = external::is_external::<F>(request.tuple.destination);
    // Whoever is asked by an external address within the host answers to one.
    let masquerade = F::is_masqueraded(request.network, network, request.tuple.destination) || comes_back;
    if request.unfit != FIT {
        return if masquerade { drop(DropReason::of(request.unfit)) } else { STACK };
    }
    let address =
        if masquerade { egress::external_address::<F>(network, &exit) } else { request.tuple.source };
    if address.is_unspecified() {
        return drop(DropReason::NoExternalAddress);
    }
    if comes_back {
        egress::come_back(&mut exit.hop);
    }
    let mut flags = if !masquerade {
        OWN_ADDRESS
    } else if address == F::source(network) {
        CHOSEN
    } else {
        0
    };
    if request.uplink.0 != 0 {
        flags |= THROUGH_STACK;
    }
    let is_bound =
        masquerade && network.flags & INDEPENDENT_MAPPING != 0 && is_bindable(request.tuple.protocol);
    if is_bound {
        flags |= BOUND | if network.flags & INDEPENDENT_FILTERING != 0 { UNFILTERED } else { 0 };
    }
    match record::<F>(request, address, flags, exit.hop, globals) {
        Ok(index) if is_bound => TO_BIND | i64::from(index),
        Ok(index) => i64::from(index),
        Err(reason) => drop(reason),
    }
}

/// Draws a record and fills it in, but for the external port.
#[inline(always)]
fn record<F: Family>(
    request: &Request<F::Address>,
    external: F::Address,
    flags: u16,
    hop: NextHop,
    globals: &Globals,
) -> Result<u32, DropReason> {
    let index = flow_table::draw::<F>(request.endpoint, globals)?;
    let flow = flow_table::blank::<F>(index)?;
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
fn establish<F: Bind>(packet: &Packet, admitted: i64) -> Opened {
    if admitted < 0 {
        return Opened::decode(admitted);
    }
    let index = admitted as u32;
    if admitted & TO_BIND != 0 {
        let bound = binding::bind::<F>(packet, index);
        if bound < 0 {
            return Opened::decode(bound);
        }
    }
    let taken = mapping::take::<F>(packet, index);
    if taken < 0 {
        return Opened::decode(taken);
    }
    Opened::decode(F::go_live(index))
}

#[inline(always)]
fn go_live<F: Family>(index: u32) -> i64 {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return STACK };
    // SAFETY: as in `record`.
    let (key, flags) = unsafe { ((*flow).opener_key(), (*flow).flags) };
    conntrack::start(flow);
    if F::flow_keys().insert(&key, index, u64::from(BPF_NOEXIST)).is_ok() {
        stats::took(if flags & ACCEPTED != 0 {
            Path::FlowAccepted
        } else if flags & BINDING != 0 {
            Path::BindingCreated
        } else {
            Path::FlowCreated
        });
        return Opened::Flow(index).encode();
    }
    // Another CPU has opened the same flow at the same time: its record serves both. Or the table has no room.
    expiry::end_unkeyed::<F>(index, flow);
    match conntrack::find::<F>(&key) {
        Some(found) => Opened::Flow(found.index).encode(),
        None => Opened::Drop(DropReason::FlowTableFull).encode(),
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
