//! The external port of a new flow: the NAT's mapping (RFC 4787 section 4).

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use netd_common::{
    addr::Be16,
    binding::taking,
    drop::DropReason,
    globals::Globals,
    limits,
    nat::{BOUND, CHOSEN, Flow, OWN_ADDRESS},
    tuple::{
        Tuple,
        protocol::{TCP, UDP},
    },
};

use crate::{
    binding::Bind,
    conntrack::{self, repeat},
    expiry,
    family::{Family, V4, V6},
    fib,
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
pub extern "C" fn take_port6(skb: *mut __sk_buff, index: u32) -> i64 {
    take_port::<V6>(skb, index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_over6(index: u32, holder: u32) -> i64 {
    take_over::<V6>(index, holder)
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
struct Search<'a, F: Family> {
    skb: *mut __sk_buff,
    globals: &'a Globals,
    flow: *mut Flow<F::Address>,
    index: u32,
    /// The inbound tuple; its destination port is what is searched.
    key: Tuple<F::Address>,
    /// The port that the sender uses, or that of the flow's binding.
    own: Be16,
    /// Those of the flow.
    flags: u16,
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
fn take_port<F: Family>(skb: *mut __sk_buff, index: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    let record = unsafe { &*flow };
    let flags = record.flags;
    let mut search = Search::<F> {
        skb,
        globals,
        flow,
        index,
        key: record.inbound_key(),
        own: if flags & BOUND != 0 { record.external_port } else { record.local_port },
        flags,
        draws: 0,
        claimed: false,
        over: None,
        over_since: u64::MAX,
    };
    repeat(limits::PORT_DRAWS, &mut search, try_port::<F>);
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
    if flags & BOUND != 0 { NOT_AS_BOUND } else { no_port(unsafe { (*flow).protocol }) }
}

#[inline(always)]
fn take_over<F: Family>(index: u32, holder: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    // SAFETY: as in `take_port`.
    let is_bound = unsafe { (*flow).flags } & BOUND != 0;
    if is_bound && conntrack::at::<F>(holder).is_none() {
        // Another CPU is making the same flow, for its port can be no other. By the time that the stack is done it is there.
        return STACK;
    }
    if expiry::end_if_over::<F>(holder, globals)
        // SAFETY: as in `take_port`.
        && claim::<F>(&unsafe { (*flow).inbound_key() }, flow, index)
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

/// Tries one port. Returns 1 when the search is at its end, as `bpf_loop` has it.
extern "C" fn try_port<F: Family>(_: u64, search: *mut Search<F>) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let search = unsafe { &mut *search };
    let first = search.draws == 0;
    let is_port = search.key.protocol == TCP || search.key.protocol == UDP;
    let is_bound = search.flags & BOUND != 0;
    // The address is not translated, and the port in nobody's way or the host's own socket's; or it is this network's own, and no
    // range of the host's in the way; or the binding has found the port already.
    let is_free_to_keep = search.flags & (OWN_ADDRESS | CHOSEN | BOUND) != 0;
    let keeps = first && (!is_port || is_free_to_keep || search.globals.ports.keeps(search.own.get()));
    if !first && (is_bound || rewrite::has_fixed_port(search.key.protocol)) {
        return 1;
    }
    search.draws += 1;
    search.key.destination_port = if keeps {
        search.own
    } else {
        // SAFETY: a plain helper call.
        let random = unsafe { bpf_get_prandom_u32() };
        if is_port {
            match search.globals.ports.draw(search.own.get(), random) {
                Some(port) => Be16::new(port),
                None => return 1,
            }
        } else {
            Be16(random as u16)
        }
    };
    // What it leads to is checked before it is ended.
    if let Some(holder) = F::flow_of(&search.key) {
        if let Some(since) = over_since::<F>(holder, search.globals)
            && since < search.over_since
        {
            search.over = Some((holder, search.key.destination_port));
            search.over_since = since;
        }
        return i64::from(is_bound || search.over.is_some() && search.draws >= limits::SPARING_DRAWS);
    }
    // Never a port that is published, or that the host itself uses towards this remote or listens on (port shadowing).
    let own_socket = search.flags & OWN_ADDRESS != 0 && first;
    if is_port
        && !own_socket
        && (!is_bound && is_published::<F>(&search.key) || has_socket::<F>(search.skb, &search.key))
    {
        return 0;
    }
    // SAFETY: as in `take_port`.
    unsafe { (*search.flow).external_port = search.key.destination_port };
    search.claimed = claim::<F>(&search.key, search.flow, search.index);
    i64::from(search.claimed)
}

#[inline(always)]
fn is_published<F: Family>(key: &Tuple<F::Address>) -> bool {
    publish::find::<F>(key.destination, key.protocol, key.destination_port).is_some()
}

/// Takes the port, towards the key's remote or alone.
#[inline(always)]
fn claim<F: Family>(key: &Tuple<F::Address>, flow: *mut Flow<F::Address>, index: u32) -> bool {
    // SAFETY: as in `take_port`.
    let taking = unsafe { taking((*flow).flags, (*flow).endpoint) };
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
fn over_since<F: Family>(index: u32, globals: &Globals) -> Option<u64> {
    let flow = F::flows().get_ptr_mut(index)?;
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
