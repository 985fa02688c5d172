//! Routing: the kernel's FIB decides, a flow remembers.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NO_SRC_ADDR, BPF_FIB_LKUP_RET_NOT_FWDED,
        BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC,
        bpf_fib_lookup,
    },
    helpers::generated::{bpf_check_mtu, bpf_fib_lookup as lookup_fib},
};
use netd_common::{
    addr::{Address as _, IfIndex},
    fib::NextHop,
    globals::{FIB_SOURCE, Globals},
    nat::OUTSIDE,
    tuple::Tuple,
};

use crate::{
    family::{Family, V4},
    maps::{GLOBALS, UPLINKS},
    packet::{BARE, Packet},
    parse::eth,
};

/// What the FIB says of a packet.
pub enum Route<A> {
    /// It is to be forwarded; `source` is the address that the host itself would use, unspecified if it has none or nobody
    /// has asked for it.
    Forward { hop: NextHop, source: A },
    /// There is no route, or it leads to the host itself.
    Nowhere,
    /// The stack has to see to it: a route that refuses, or one that a program cannot follow.
    Stack,
}

#[inline(always)]
pub fn globals() -> Option<&'static Globals> {
    GLOBALS.get(0)
}

/// Which routes count.
#[derive(Clone, Copy)]
pub enum Way {
    /// Those for what comes in by this interface.
    From(IfIndex),
    /// Those that lead out by this interface, if there are any. Of IPv6's it may be another that is found: asked for an interface, the
    /// kernel's search heeds neither that nor rules for a source, and is not asked so.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/core/filter.c> (`bpf_ipv6_fib_lookup`)
    Out(IfIndex),
}

/// The next hop of a flow that is begun towards a container: it is looked up with the first answer. Until then it is the station of
/// the outside that the packet comes from; none, if a container has sent it.
#[inline(always)]
pub fn unanswered(packet: &Packet, peer: u32, globals: &Globals) -> NextHop {
    let uplink = IfIndex(packet.ifindex());
    let generation = globals.fib_generation.wrapping_sub(1);
    let from = match eth::parse(packet) {
        _ if peer != OUTSIDE => NextHop::default(),
        Ok(frame) if packet.l3 != BARE => NextHop::station(uplink, frame.source),
        _ => NextHop { uplink, ..NextHop::default() },
    };
    NextHop { generation, ..from }
}

/// The MTU of an interface; 0 if there is no such interface.
#[inline(always)]
pub fn mtu(packet: &Packet, interface: IfIndex) -> u32 {
    let mut mtu = 0;
    // SAFETY: the kernel hands a valid context; the helper reads and writes `mtu` alone.
    unsafe { bpf_check_mtu(packet.skb().cast(), interface.0, &raw mut mtu, 0, 0) };
    mtu
}

/// Whether a packet, were it to come in by `interface`, is the host's own, and not to be forwarded: it is for one of its addresses,
/// or for one to which there is no route.
#[inline(always)]
pub fn is_host<F: Family>(
    packet: &Packet,
    source: F::Address,
    destination: F::Address,
    interface: IfIndex,
) -> bool {
    let mut params = between::<F>(source, destination, interface);
    ask(packet, &mut params, BPF_FIB_LOOKUP_SKIP_NEIGH) == BPF_FIB_LKUP_RET_NOT_FWDED
}

#[inline(always)]
fn between<F: Family>(source: F::Address, destination: F::Address, interface: IfIndex) -> bpf_fib_lookup {
    // SAFETY: a C struct of numbers and unions of numbers.
    let mut params: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    params.family = F::AF as u8;
    params.ifindex = interface.0;
    params.__bindgen_anon_3.ipv6_src = source.words();
    params.__bindgen_anon_4.ipv6_dst = destination.words();
    params
}

#[inline(always)]
fn of<F: Family>(tuple: &Tuple<F::Address>, interface: IfIndex) -> bpf_fib_lookup {
    let mut params = between::<F>(tuple.source, tuple.destination, interface);
    params.l4_protocol = tuple.protocol;
    params.sport = tuple.source_port.0;
    params.dport = tuple.destination_port.0;
    params
}

/// Asks the FIB: one of `BPF_FIB_LKUP_RET_*`, and the rest in `params`.
#[inline(always)]
fn ask(packet: &Packet, params: &mut bpf_fib_lookup, flags: u32) -> u32 {
    // SAFETY: the helper reads and writes `params` and no more than its size.
    unsafe { lookup_fib(packet.skb().cast(), params, size_of::<bpf_fib_lookup>() as i32, flags) as u32 }
}

/// Whether there is a route for what comes in by `interface`, and the kernel does not know its neighbour's MAC: it has not asked, or
/// has got no answer.
#[inline(always)]
pub fn lacks_neighbour<F: Family>(packet: &Packet, tuple: &Tuple<F::Address>, interface: IfIndex) -> bool {
    ask(packet, &mut of::<F>(tuple, interface), 0) == BPF_FIB_LKUP_RET_NO_NEIGH
}

/// Looks up where a packet goes, with routing rules applied to the tuple's source. `wants_source`: and by which
/// address, which of IPv6's addresses costs more than the route itself.
#[inline(always)]
pub fn lookup<F: Family>(
    packet: &Packet,
    tuple: &Tuple<F::Address>,
    way: Way,
    wants_source: bool,
    globals: &Globals,
) -> Route<F::Address> {
    let (interface, mut flags) = match way {
        Way::From(interface) => (interface, BPF_FIB_LOOKUP_SKIP_NEIGH),
        Way::Out(interface) if F::AF == V4::AF => {
            (interface, BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_OUTPUT)
        }
        Way::Out(interface) => (interface, BPF_FIB_LOOKUP_SKIP_NEIGH),
    };
    let mut params = of::<F>(tuple, interface);
    // Any length makes the kernel report the route's MTU; one that always fits keeps it from judging.
    params.__bindgen_anon_1.tot_len = 1;
    let asks_source = wants_source && globals.flags & FIB_SOURCE != 0;
    if asks_source {
        flags |= BPF_FIB_LOOKUP_SRC;
    }
    let result = ask(packet, &mut params, flags);
    match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_SRC_ADDR => {}
        BPF_FIB_LKUP_RET_NOT_FWDED => return Route::Nowhere,
        _ => return Route::Stack,
    }
    let uplink = IfIndex(params.ifindex);
    // SAFETY: the kernel filled these unions; all their members are plain numbers.
    let (found, address, mtu) = unsafe {
        (
            params.__bindgen_anon_3.ipv6_src,
            params.__bindgen_anon_4.ipv6_dst,
            u32::from(params.__bindgen_anon_1.mtu_result),
        )
    };
    let mut source = F::from_words([0; 4]);
    if asks_source && result == BPF_FIB_LKUP_RET_SUCCESS {
        source = F::from_words(found);
    } else if wants_source {
        // SAFETY: a shared reference to a map value that only the daemon replaces.
        source = unsafe { UPLINKS.get(uplink) }.map_or(source, F::uplink);
    }
    let hop = NextHop {
        uplink,
        family: u32::from(params.family),
        address,
        mtu,
        generation: globals.fib_generation,
    };
    Route::Forward { hop, source }
}

/// Has the packets that go on by the fast path be no larger than any route by the uplink takes, see [`netd_common::fib::Uplink::route_mtu`].
#[inline(always)]
pub fn narrow(hop: &mut NextHop) {
    // SAFETY: a shared reference to a map value that only the daemon replaces.
    if let Some(uplink) = unsafe { UPLINKS.get(hop.uplink) } {
        hop.mtu = uplink.within_routes(hop.mtu);
    }
}
