//! The external port of a new flow: the NAT's mapping (RFC 4787 section 4).

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use netd_common::{
    addr::{Be16, Ipv4, Ipv6},
    binding::taking,
    drop::DropReason,
    limits,
    nat::{BOUND, CHOSEN, Flow, OWN_ADDRESS},
    tuple::{
        Tuple,
        protocol::{TCP, UDP},
    },
};

use crate::{
    binding::Bind,
    conntrack, expiry,
    family::{Family, V4, V6},
    fib, loops,
    open::{Opened, STACK},
    packet::Packet,
    port_usage::Ports,
    publish,
    rewrite::{self, Rewrite},
    stats,
};

/// Towards this one remote the port of the flow's binding is the host's own, or came to be published.
const NOT_AS_BOUND: i64 = i64::MIN;
/// Beside the index of the flow that holds the port.
const HELD: i64 = 1 << 32;

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Mapping: Rewrite {
    /// Gives an admitted flow its external port, and the inbound key that holds it. The index; or, if there is only the port
    /// of a flow that is over, that flow's index and [`HELD`].
    fn take_port(packet: &Packet, index: u32) -> i64;
    /// Takes the port that `take_port` found from a flow that is over.
    fn take_over(index: u32, holder: u32) -> i64;
    /// Takes the port of a flow's inbound key, towards its remote or alone. The flow's index; negative if the port is not free.
    fn claim_port(key: &Tuple<Self::Address>, index: u32) -> i64;
}

impl Mapping for V4 {
    #[inline(always)]
    fn take_port(packet: &Packet, index: u32) -> i64 {
        take_port4(packet.skb(), index)
    }
    #[inline(always)]
    fn take_over(index: u32, holder: u32) -> i64 {
        take_over4(index, holder)
    }
    #[inline(always)]
    fn claim_port(key: &Tuple<Ipv4>, index: u32) -> i64 {
        claim_port4(key, index)
    }
}

impl Mapping for V6 {
    #[inline(always)]
    fn take_port(packet: &Packet, index: u32) -> i64 {
        take_port6(packet.skb(), index)
    }
    #[inline(always)]
    fn take_over(index: u32, holder: u32) -> i64 {
        take_over6(index, holder)
    }
    #[inline(always)]
    fn claim_port(key: &Tuple<Ipv6>, index: u32) -> i64 {
        claim_port6(key, index)
    }
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
pub extern "C" fn claim_port4(key: *const Tuple<Ipv4>, index: u32) -> i64 {
    if claim::<V4>(key, index) { Opened::Flow(index).encode() } else { -1 }
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
pub extern "C" fn claim_port6(key: *const Tuple<Ipv6>, index: u32) -> i64 {
    if claim::<V6>(key, index) { Opened::Flow(index).encode() } else { -1 }
}

/// Gives an admitted flow its external port: one that is free, or else that of a flow that is over. The index, or no flow.
#[inline(always)]
pub fn take<F: Bind>(packet: &Packet, index: u32) -> i64 {
    let mut taken = F::take_port(packet, index);
    if taken == NOT_AS_BOUND {
        F::leave(index);
        taken = F::take_port(packet, index);
    }
    if taken & HELD != 0 && taken > 0 {
        taken = F::take_over(index, taken as u32);
    }
    if taken < 0 {
        F::forgo(index);
    }
    taken
}

/// A search for a free external port, as its body sees it.
struct Search<F: Family> {
    skb: *mut __sk_buff,
    flow: *mut Flow<F::Address>,
    index: u32,
    /// The port that the sender uses, or that of the flow's binding.
    own: Be16,
    draws: u32,
    claimed: bool,
    /// Of the flows seen that are over, the one that has been for longest, and its port.
    over: Option<(u32, Be16)>,
    /// Since when it is over, in jiffies.
    over_since: u64,
}

/// Finds an external port and claims it for the flow: the sender's own if it may be kept, else random ones. Only if none of
/// the first draws is free, the place of a flow that is over is taken: a remote may yet remember the old connection, the sooner
/// the later it ended.
#[inline(always)]
fn take_port<F: Mapping>(skb: *mut __sk_buff, index: u32) -> i64 {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return STACK };
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    let record = unsafe { &*flow };
    let is_bound = record.flags & BOUND != 0;
    let mut search = Search::<F> {
        skb,
        flow,
        index,
        own: if is_bound { record.external_port } else { record.local_port },
        draws: 0,
        claimed: false,
        over: None,
        over_since: u64::MAX,
    };
    loops::repeat(limits::PORT_DRAWS, &mut search, try_port::<F>);
    if search.claimed {
        stats::drew(search.draws);
        return Opened::Flow(index).encode();
    }
    if let Some((holder, port)) = search.over {
        // SAFETY: as in `take_port`.
        unsafe { (*flow).external_port = port };
        return HELD | i64::from(holder);
    }
    // SAFETY: as above.
    if is_bound { NOT_AS_BOUND } else { no_port(unsafe { (*flow).protocol }) }
}

#[inline(always)]
fn take_over<F: Mapping>(index: u32, holder: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    // SAFETY: as in `take_port`.
    let is_bound = unsafe { (*flow).flags } & BOUND != 0;
    if is_bound && conntrack::at::<F>(holder).is_none() {
        // Another CPU is making the same flow, for its port can be no other. By the time that the stack is done it is there.
        return STACK;
    }
    if expiry::end_if_over::<F>(holder, globals)
        // SAFETY: as in `take_port`.
        && F::claim_port(&unsafe { (*flow).inbound_key() }, index) >= 0
    {
        stats::drew(limits::SPARING_DRAWS);
        return Opened::Flow(index).encode();
    }
    // SAFETY: as in `take_port`.
    no_port(unsafe { (*flow).protocol })
}

/// There is no port for the flow.
#[inline(always)]
pub fn no_port(protocol: u8) -> i64 {
    stats::drew(limits::PORT_DRAWS + 1);
    let fixed = rewrite::has_fixed_port(protocol);
    Opened::Drop(if fixed { DropReason::SctpPort } else { DropReason::PortsExhausted }).encode()
}

/// The port that a flow tries at its `draw`th draw, counted from 0, in network byte order; negative if there is nothing else to try.
/// `own` is the port that it has; in network byte order too.
///
/// A global function, or else the verifier would walk all that is done with a port once for each way to choose it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn port_to_try(own: u32, protocol: u32, flags: u32, draw: u32) -> i64 {
    let Some(globals) = fib::globals() else { return -1 };
    let (own, protocol, flags) = (Be16(own as u16), protocol as u8, flags as u16);
    let is_bound = flags & BOUND != 0;
    if draw == 0 {
        // The address is not translated, and the port in nobody's way or the host's own socket's; or it is this network's own, and no
        // range of the host's in the way; or the binding has found the port already.
        let is_free_to_keep = flags & (OWN_ADDRESS | CHOSEN | BOUND) != 0;
        if !has_ports(protocol) || is_free_to_keep || globals.ports.keeps(own.get()) {
            return i64::from(own.0);
        }
    } else if is_bound || rewrite::has_fixed_port(protocol) {
        return -1;
    }
    // SAFETY: a plain helper call.
    let random = unsafe { bpf_get_prandom_u32() };
    if !has_ports(protocol) {
        return i64::from(random as u16);
    }
    globals.ports.draw(own.get(), random).map_or(-1, |port| i64::from(Be16::new(port).0))
}

/// Whether the protocol's ports are those of sockets.
#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// Tries one port. Returns 1 when the search is at its end, as `bpf_loop` has it.
extern "C" fn try_port<F: Mapping>(_: u64, search: *mut Search<F>) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let search = unsafe { &mut *search };
    // SAFETY: as in `take_port`.
    let flow = unsafe { &mut *search.flow };
    let port =
        port_to_try(u32::from(search.own.0), u32::from(flow.protocol), u32::from(flow.flags), search.draws);
    if port < 0 {
        return 1;
    }
    let first = search.draws == 0;
    let is_bound = flow.flags & BOUND != 0;
    search.draws += 1;
    flow.external_port = Be16(port as u16);
    let key = flow.inbound_key();
    // What it leads to is checked before it is ended.
    if let Some(holder) = F::flow_of(&key) {
        if let Some(since) = over_since::<F>(holder)
            && since < search.over_since
        {
            search.over = Some((holder, key.destination_port));
            search.over_since = since;
        }
        return i64::from(is_bound || search.over.is_some() && search.draws >= limits::SPARING_DRAWS);
    }
    // Never a port that is published, or that the host itself uses towards this remote or listens on (port shadowing).
    let own_socket = flow.flags & OWN_ADDRESS != 0 && first;
    if has_ports(key.protocol)
        && !own_socket
        && (!is_bound && is_published::<F>(&key) || has_socket::<F>(search.skb, &key))
    {
        return 0;
    }
    search.claimed = F::claim_port(&key, search.index) >= 0;
    i64::from(search.claimed)
}

#[inline(always)]
fn is_published<F: Family>(key: &Tuple<F::Address>) -> bool {
    publish::find::<F>(key.destination, key.protocol, key.destination_port).is_some()
}

#[inline(always)]
fn claim<F: Family>(key: *const Tuple<F::Address>, index: u32) -> bool {
    // SAFETY: the verifier holds callers to memory of this size, or none.
    let (Some(key), Some(flow)) = (unsafe { key.as_ref() }, F::flows().get_ptr_mut(index)) else {
        return false;
    };
    // SAFETY: as in `take_port`.
    let record = unsafe { &*flow };
    let taking = taking(record.flags, record.endpoint);
    let ports = Ports::of::<F>(key.destination, key.protocol);
    if !ports.take::<F>(key.destination_port, taking) {
        return false;
    }
    if conntrack::claim::<F>(key, index) {
        return true;
    }
    ports.give_back::<F>(key.destination_port, taking);
    false
}

/// Since when a flow is over, in jiffies, if it is.
#[inline(always)]
fn over_since<F: Family>(index: u32) -> Option<u64> {
    let (globals, flow) = (fib::globals()?, F::flows().get_ptr_mut(index)?);
    let seen = conntrack::clock(flow);
    if expiry::is_over(flow, seen, globals) { Some(seen.jiffies()) } else { None }
}

/// Whether a socket of the host would receive packets with this inbound tuple.
#[inline(always)]
pub fn has_socket<F: Family>(skb: *mut __sk_buff, key: &Tuple<F::Address>) -> bool {
    // The kernel's tuple has the fields of ours in the same order, and the packet that a socket would receive is this one.
    let tuple = (&raw const *key).cast_mut().cast::<bpf_sock_tuple>();
    let size = 2 * (size_of::<F::Address>() + size_of::<Be16>()) as u32;
    // SAFETY: the helpers read `size` bytes of `tuple`; a socket that they return is released.
    unsafe {
        let context = skb.cast();
        let socket = if key.protocol == TCP {
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
