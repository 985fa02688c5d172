//! The external port of a new flow: the NAT's mapping (RFC 4787 section 4).

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use netd_common::{
    addr::Be16,
    drop::DropReason,
    globals::Globals,
    limits,
    nat::{CHOSEN, Flow, OWN_ADDRESS},
    tuple::{Tuple, protocol},
};

use crate::{
    conntrack::{self, repeat},
    family::{Family, V4, V6},
    fib,
    open::{Opened, STACK},
    packet::Packet,
    publish,
    rewrite::{self, Rewrite},
    stats,
};

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
pub fn take<F: Mapping>(packet: &Packet, index: u32) -> i64 {
    let taken = F::take_port(packet, index);
    if taken & HELD != 0 && taken > 0 { F::take_over(index, taken as u32) } else { taken }
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
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
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
        // SAFETY: as in `take_port`.
        unsafe { (*flow).external_port = port };
        return HELD | i64::from(holder);
    }
    no_port::<F>(index, flow)
}

#[inline(always)]
fn take_over<F: Family>(index: u32, holder: u32) -> i64 {
    let (Some(globals), Some(flow)) = (fib::globals(), F::flows().get_ptr_mut(index)) else { return STACK };
    if conntrack::end_if_over::<F>(holder, globals)
        // SAFETY: as in `take_port`.
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
    // SAFETY: as in `take_port`.
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
fn is_published<F: Family>(key: &Tuple<F::Address>) -> bool {
    publish::find::<F>(key.destination, key.protocol, key.destination_port).is_some()
}

#[inline(always)]
fn claim<F: Family>(search: &Search<F>) -> bool {
    // SAFETY: as in `take_port`.
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
fn is_hosts<F: Family>(packet: &Packet, key: &Tuple<F::Address>) -> bool {
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
